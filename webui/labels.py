"""Which text belongs where on the page, so that one selector changes the language of all."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.texts import Language, say

# For every event: the page is for people, the gateway has the API; a line of text tells what runs; and nobody waits
# for somebody else's answer, as the gateway does the queueing.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


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
