"""lm-eval over questions with reference answers; run by the interpreter of the clients' environment.

    evaluate.py KIND URL QUESTIONS OUTPUT

KIND is lm-eval's name of a client (``local-chat-completions``, ``local-completions``). Writes the results as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

BATCHED = "local-completions"  # sends several prompts a request


def task(questions: str, system_prompt: str) -> str:
    """The task as lm-eval's documentation describes one."""
    return yaml.safe_dump(
        {
            "task": "course",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": questions}},
            "test_split": "test",
            "output_type": "generate_until",
            "description": system_prompt,
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{reference}}",
            "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 256, "temperature": 0},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
        allow_unicode=True,
    )


def main(kind: str, url: str, questions: str, output: str) -> None:
    folder = Path(output).parent / f"task-{kind}"
    folder.mkdir()
    system_prompt = json.loads(sys.stdin.read())
    (folder / "course.yaml").write_text(task(questions, system_prompt), encoding="utf-8")
    client = {
        "model": "course-qa",
        "base_url": url,
        "num_concurrent": 4,
        "max_retries": 1,
        "tokenizer_backend": None,
        "tokenized_requests": False,
        "batch_size": 4 if kind == BATCHED else 1,
    }
    found = simple_evaluate(
        model=kind,
        model_args=client,
        tasks=["course"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        apply_chat_template=kind != BATCHED,
        limit=40,
    )
    answers = [sample["resps"][0][0] for sample in found["samples"]["course"]]
    results = {"exact_match": float(found["results"]["course"]["exact_match,none"]), "answers": answers}
    Path(output).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
