"""vLLM without any server: reads ``{"model", "chats", "params", "options"}`` on stdin, prints the texts as JSON.

A process of its own, because an engine needs its memory and its signal handlers for itself.
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    from vllm import LLM, SamplingParams

    job = json.load(sys.stdin)
    llm = LLM(model=job["model"], **job["options"])
    outputs = llm.chat(job["chats"], SamplingParams(**job["params"]), use_tqdm=False)
    print("RESULT " + json.dumps([output.outputs[0].text for output in outputs]))
