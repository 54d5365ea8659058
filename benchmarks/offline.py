"""vLLM without any server, in a process of its own: one JSON job a line on stdin, one JSON answer a line on stdout.

The first line is ``{"options": …, "tuned": …}``; then jobs ``{"chats", "sampling"}``. ``tuned`` means what the service
does too: one batch call of the tokenizer, token ids in and out, one batch decode.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Offline:
    """One ``LLM`` and the way it is asked."""

    def __init__(self, options: dict[str, Any], tuned: bool) -> None:
        from vllm import LLM

        self._llm = LLM(**options)
        self._tokenizer = self._llm.get_tokenizer()
        self._tuned = tuned

    def seconds(self, chats: list[Any], sampling: dict[str, Any]) -> float:
        """How long the texts of all chats take, from messages to texts."""
        from vllm import SamplingParams

        began = time.perf_counter()
        if not self._tuned:
            texts = [self._tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
            answers = [o.outputs[0].text for o in self._llm.generate(texts, SamplingParams(**sampling), use_tqdm=False)]
        else:
            answers = self._by_token_ids(chats, SamplingParams(**sampling, detokenize=False))
        assert len(answers) == len(chats)
        return time.perf_counter() - began

    def _by_token_ids(self, chats: list[Any], params: Any) -> list[str]:
        texts = [self._tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        encoded = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in encoded], params, use_tqdm=False)
        decoded: list[str] = self._tokenizer.batch_decode([o.outputs[0].token_ids for o in outputs])
        return decoded


def main() -> None:
    """Answer until stdin ends. vLLM prints to stdout too, so answers go to the descriptor it was at the start."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    offline = Offline(first["options"], first["tuned"])
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps({"seconds": offline.seconds(job["chats"], job["sampling"])}), file=answers, flush=True)


if __name__ == "__main__":
    main()
