"""Which text belongs where on the page, so that one selector changes the language of all."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.texts import Language, say

# For events that answer once. The page is for people, the gateway has the API; a line of text tells what runs; and
# nobody waits for somebody else: the gateway queues. Gradio's own queue is left out too: through it, one new page
# in a few dozen was seen to wait for its first answer for ever (6.31, a busy machine).
QUIET: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
    "queue": False,
}
# For events whose answers come in pieces, which only the queue can send.
STREAMED: dict[str, Any] = {**QUIET, "queue": True}


class Labels:
    """Components, and for each the keys of its properties' texts. A page starts in English and is told at once."""

    def __init__(self) -> None:
        self._keys: list[tuple[Any, dict[str, str]]] = []

    def put(self, component: Any, **keys: str) -> Any:
        """Note that the component's property ``name`` shows the text of ``keys[name]``; returns the component."""
        for name, key in keys.items():
            setattr(component, name, say("en", key))
        self._keys.append((component, keys))
        return component

    @property
    def components(self) -> list[Any]:
        """Everything that changes with the language, in the order of :meth:`updates`."""
        return [component for component, _ in self._keys]

    def updates(self, language: Language) -> list[Any]:
        """What each of them changes to."""
        return [gr.update(**{name: say(language, key) for name, key in keys.items()}) for _, keys in self._keys]
