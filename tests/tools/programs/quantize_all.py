"""Run in .venv-quantize: quantize a model by every method in one process, and answer questions with each result.

    quantize_all.py MODEL QUESTIONS FOLDER      one JSON object on the last line: method → {"status", "answers"}

One process, as importing llm-compressor takes longer than quantizing so small a model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools.console import run
from tools.quantize.__main__ import main
from tools.quantize.options import METHODS
from tools.questions import read_questions


def answers(folder: Path, prompts: list[str], system_prompt: str) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    found = []
    for prompt in prompts:
        chat = [{"role": "system", "content": system_prompt}, {"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        found.append(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


if __name__ == "__main__":
    model, questions, folder, system_prompt = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    prompts = [one.prompt for one in read_questions(questions, limit=5)]
    results = {}
    for method in METHODS:
        out = folder / method
        arguments = ["--model", model, "--out", out, "--method", method, "--json", folder / f"{method}.json"]
        calibration = ["--calibration", questions, "--samples", 16, "--system-prompt", system_prompt]
        status = run(main, [str(one) for one in arguments + calibration])
        results[method] = {"status": status, "answers": answers(out, prompts, system_prompt) if status == 0 else []}
    print(json.dumps(results))
