"""vLLM without any server, in a process of its own: one JSON job a line on stdin, one JSON answer a line on stdout.

The first line is ``{"options": …, "way": …}``; then jobs ``{"chats", "sampling"}`` (all at once) or with ``"clients"``
too (``async`` alone). The ways, all from messages to texts:

- ``texts``: ``LLM.generate`` with rendered texts, as its documentation shows it.
- ``token_ids``: what the service does too: one batch call of the tokenizer, token ids in and out, one batch decode.
- ``async``: ``AsyncLLM`` with one request a prompt, only the finished one awaited.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from functools import partial
from typing import Any

from benchmarks.turns import take_turns


class Offline:
    """One ``LLM`` and the way it is asked."""

    def __init__(self, options: dict[str, Any], by_token_ids: bool) -> None:
        from vllm import LLM

        self._llm = LLM(**options)
        self._tokenizer = self._llm.get_tokenizer()
        self._by_token_ids = by_token_ids

    def answer(self, chats: list[Any], sampling: dict[str, Any]) -> dict[str, Any]:
        """How long the texts of all chats take."""
        began = time.perf_counter()
        texts = [render(self._tokenizer, chat) for chat in chats]
        answers = self._token_ids(texts, sampling) if self._by_token_ids else self._texts(texts, sampling)
        assert len(answers) == len(chats)
        return {"seconds": time.perf_counter() - began}

    def _texts(self, texts: list[str], sampling: dict[str, Any]) -> list[str]:
        from vllm import SamplingParams

        return [out.outputs[0].text for out in self._llm.generate(texts, SamplingParams(**sampling), use_tqdm=False)]

    def _token_ids(self, texts: list[str], sampling: dict[str, Any]) -> list[str]:
        from vllm import SamplingParams

        encoded = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        params = SamplingParams(**sampling, detokenize=False)
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in encoded], params, use_tqdm=False)
        decoded: list[str] = self._tokenizer.batch_decode([out.outputs[0].token_ids for out in outputs])
        return decoded


class InProcess:
    """One ``AsyncLLM``, whose caller shares its process."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._loop = asyncio.new_event_loop()
        self._llm = self._loop.run_until_complete(self._start(AsyncLLM, AsyncEngineArgs(**options)))
        self._tokenizer = self._llm.get_tokenizer()
        if asyncio.iscoroutine(self._tokenizer):  # of older releases
            self._tokenizer = self._loop.run_until_complete(self._tokenizer)
        self._numbers = itertools.count()

    @staticmethod
    async def _start(engine: Any, arguments: Any) -> Any:
        return engine.from_engine_args(arguments)

    def answer(self, chats: list[Any], sampling: dict[str, Any], clients: int = 0) -> dict[str, Any]:
        """How long the texts of all chats take, and each; so many at a time."""
        callers = [partial(self._one, sampling)] * (clients or len(chats))
        return self._loop.run_until_complete(take_turns(callers, chats))

    async def _one(self, sampling: dict[str, Any], chat: Any) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(**sampling, output_kind=RequestOutputKind.FINAL_ONLY)
        encoded = self._tokenizer(render(self._tokenizer, chat), add_special_tokens=False)["input_ids"]
        text = ""
        async for output in self._llm.generate({"prompt_token_ids": encoded}, params, str(next(self._numbers))):
            text = output.outputs[0].text
        return text


def render(tokenizer: Any, chat: Any) -> str:
    """The chat as the model's template writes it."""
    text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return text


def main() -> None:
    """Answer until stdin ends. vLLM prints to stdout too, so answers go to the descriptor it was at the start."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    options, way = first["options"], first["way"]
    engine: Any = InProcess(options) if way == "async" else Offline(options, way == "token_ids")
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(engine.answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
