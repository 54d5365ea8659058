"""What a search leaves: a table, JSON, the best settings as an env file, the Pareto front of speed and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.console import table
from tools.errors import UsageError
from tools.results import write_json, write_text
from tools.tune.space import Value, as_text

ENV, RESULT, TABLE, PLOT = "best.env", "result.json", "trials.txt", "pareto.png"


@dataclass(frozen=True)
class Row:
    """One finished trial. ``state``: complete, pruned or failed; a failed one has an error and no figures."""

    number: int
    state: str
    settings: dict[str, Value]
    tokens_per_s: float | None
    score: float | None
    passed: bool
    error: str


def rows(trials: Sequence[Any], threshold: float) -> list[Row]:
    """Read Optuna's trials."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    found = []
    for trial in trials:
        score = trial.user_attrs.get("score")
        found.append(
            Row(
                number=trial.number,
                state=states.get(trial.state.name, trial.state.name),
                settings=dict(trial.params),
                tokens_per_s=trial.user_attrs.get("tokens_per_s"),
                score=score,
                passed=score is not None and score >= threshold,
                error=trial.user_attrs.get("error", ""),
            )
        )
    return found


def best(trials: Sequence[Row]) -> Row | None:
    """The fastest of the complete trials that passed."""
    passed = [one for one in trials if one.passed and one.state == "complete"]
    return max(passed, key=lambda one: one.tokens_per_s or 0.0, default=None)


def pareto(trials: Sequence[Row]) -> list[Row]:
    """The complete trials that no other one beats in speed and score, the fastest first."""
    complete = [one for one in trials if one.state == "complete"]
    ordered = sorted(complete, key=lambda one: (-(one.tokens_per_s or 0.0), -(one.score or 0.0)))
    front: list[Row] = []
    for one in ordered:
        if not front or (one.score or 0.0) > (front[-1].score or 0.0):
            front.append(one)
    return front


def text(trials: Sequence[Row]) -> str:
    """All trials as a table, the fastest that passed on top, failed ones at the end."""
    ordered = sorted(trials, key=lambda one: (not one.passed, -(one.tokens_per_s or 0.0)))
    names = sorted({name for one in trials for name in one.settings})
    header = ("trial", "state", "tokens/s", "score", "passed", *names)
    lines = [
        (
            str(one.number),
            one.state,
            "–" if one.tokens_per_s is None else f"{one.tokens_per_s:.1f}",
            "–" if one.score is None else f"{one.score:.4f}",
            "yes" if one.passed else "no",
            *(as_text(one.settings[name]) if name in one.settings else "" for name in names),
        )
        for one in ordered
    ]
    return table(header, lines)


def env_text(settings: dict[str, Value], note: str) -> str:
    """The lines of an env file that ``make serve`` and ``docker run --env-file`` read alike: values as they are.

    Raises :class:`UsageError` for a value that the two would not read alike.
    """
    lines = [f"# {note}"]
    for name, value in settings.items():
        shown = as_text(value)
        if shown != shown.strip() or (len(shown) > 1 and shown[0] == shown[-1] and shown[0] in "'\""):
            raise UsageError(f"{name} = {shown!r}: cannot be written to an env file")
        lines.append(f"{name}={shown}")
    return "\n".join(lines) + "\n"


def write(out: Path, trials: Sequence[Row], fixed: dict[str, Value], threshold: float) -> Row | None:
    """Write all files; return the best trial, if one passed."""
    from tools.plots import speed_and_score

    winner, front = best(trials), pareto(trials)
    write_text(out / TABLE, text(trials) + "\n")
    if winner:
        note = f"trial {winner.number}: {winner.tokens_per_s:.1f} tokens/s, ROUGE-L F1 {winner.score:.4f}"
        write_text(out / ENV, env_text({**fixed, **winner.settings}, note))
    speed_and_score(
        out / PLOT,
        [(one.tokens_per_s or 0.0, one.score or 0.0) for one in trials if one.state == "complete"],
        [(one.tokens_per_s or 0.0, one.score or 0.0) for one in front],
        threshold,
    )
    result = {
        "threshold": threshold,
        "best": asdict(winner) if winner else None,
        "pareto": [one.number for one in front],
        "fixed": fixed,
        "trials": [asdict(one) for one in trials],
    }
    write_json(out / RESULT, result)
    return winner
