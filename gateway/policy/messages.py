"""A question as the conversation the model is given: JSON messages, the system prompt's part serialized once."""

from __future__ import annotations

import orjson


class MessageEncoder:
    """Makes the messages of questions that share one system prompt. A blank system prompt is left out."""

    def __init__(self, system_prompt: str) -> None:
        system = b""
        if system_prompt.strip():
            system = orjson.dumps({"role": "system", "content": system_prompt}) + b","
        self._before = b"[" + system + b'{"role":"user","content":'

    def encode(self, question: str) -> bytes:
        """Return the JSON list of messages for one question."""
        return self._before + orjson.dumps(question) + b"}]"


class SystemPrompt:
    """The default system prompt of this process, replaceable while it runs; requests that start later see it."""

    def __init__(self, text: str) -> None:
        self.replace(text)

    def replace(self, text: str) -> None:
        self.text = text
        self._encoder = MessageEncoder(text)

    def encoder(self, override: str | None = None) -> MessageEncoder:
        """The encoder of the default system prompt, or of a request's own."""
        return self._encoder if override is None else MessageEncoder(override)
