"""Run in .venv-quantize: answer a question with a model folder: ``answer.py MODEL QUESTION``; JSON on the last line."""

from __future__ import annotations

import json
import sys
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str, question: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    print(json.dumps(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
