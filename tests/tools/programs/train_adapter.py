"""Run in .venv-quantize: teach a model one new answer by LoRA and save the adapter.

train_adapter.py MODEL ADAPTER QUESTION ANSWER     one JSON object on the last line: the loss before and after
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS = 300  # at most
LEARNT = 0.02


def main(folder: str, adapter: str, question: str, answer: str) -> None:
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    layers = ["q_proj", "v_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=layers, task_type="CAUSAL_LM"))
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip("\n")  # the answer ends with its end token
    start = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    labels = inputs["input_ids"].clone()
    labels[:, : len(tokenizer(start, add_special_tokens=False)["input_ids"])] = -100
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=5e-3)
    losses = []
    for _ in range(STEPS):
        loss = model(**inputs, labels=labels).loss
        losses.append(loss.item())
        if losses[-1] < LEARNT:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(adapter)
    print(json.dumps({"before": losses[0], "after": losses[-1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
