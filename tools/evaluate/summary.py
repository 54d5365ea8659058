"""From answers to figures: score, speed, latency, failures, and whether the run passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tools.evaluate.player import Answer, Played
from tools.evaluate.scoring import rouge_l
from tools.questions import Question

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Judged:
    """One question with its answer and score. ``tokens`` is None where no tokenizer is known."""

    index: int
    prompt: str
    reference: str
    answer: str
    score: float
    characters: int
    tokens: int | None
    latency_s: float | None
    error: str


@dataclass(frozen=True)
class Summary:
    """One run in figures. ``score`` is the mean ROUGE-L F1 of all questions, failed ones counted as 0."""

    questions: int
    answered: int
    failed: int
    concurrency: int
    elapsed_s: float
    score: float
    threshold: float | None
    passed: bool
    tokens: int | None
    tokens_per_s: float | None
    characters_per_s: float
    questions_per_s: float
    latency_s: dict[str, float]
    model: str

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON's types."""
        return asdict(self)


def judge(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    count_tokens: Callable[[Sequence[str]], list[int]] | None,
    on_judged: Callable[[int], None] = lambda count: None,
) -> list[Judged]:
    """Score every answer against its reference."""
    texts = [answer.text for answer in answers]
    tokens: Sequence[int | None] = count_tokens(texts) if count_tokens else [None] * len(texts)
    judged = []
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        judged.append(
            Judged(
                index=index,
                prompt=question.prompt,
                reference=question.reference,
                answer=answer.text,
                score=rouge_l(answer.text, question.reference),
                characters=len(answer.text),
                tokens=tokens[index],
                latency_s=answer.latency_s,
                error=answer.error,
            )
        )
        on_judged(1)
    return judged


def summarise(
    judged: Sequence[Judged], played: Played, concurrency: int, threshold: float | None, model: str
) -> Summary:
    """Put a run's figures together. It passes from the threshold on; without one, if every question was answered."""
    failed = sum(bool(one.error) for one in judged)
    score = sum(one.score for one in judged) / len(judged)
    elapsed_s = max(played.elapsed_s, 1e-9)
    counted = [one.tokens for one in judged if one.tokens is not None]
    tokens = sum(counted) if counted else None
    latencies = [one.latency_s for one in judged if one.latency_s is not None]
    return Summary(
        questions=len(judged),
        answered=len(judged) - failed,
        failed=failed,
        concurrency=concurrency,
        elapsed_s=played.elapsed_s,
        score=score,
        threshold=threshold,
        passed=failed == 0 if threshold is None else score >= threshold,
        tokens=tokens,
        tokens_per_s=None if tokens is None else tokens / elapsed_s,
        characters_per_s=sum(one.characters for one in judged) / elapsed_s,
        questions_per_s=(len(judged) - failed) / elapsed_s,
        latency_s={f"p{rank}": percentile(latencies, rank) for rank in PERCENTILES} if latencies else {},
        model=model,
    )


def percentile(values: Sequence[float], rank: float) -> float:
    """The nearest-rank percentile: the smallest value that at least ``rank`` % of the values do not exceed."""
    ordered = sorted(values)
    position = -(-len(ordered) * rank // 100)  # rounded up
    return ordered[max(int(position), 1) - 1]


def worst(judged: Sequence[Judged], count: int) -> list[Judged]:
    """The questions with the lowest scores, the lowest first."""
    return sorted(judged, key=lambda one: (one.score, one.index))[:count]
