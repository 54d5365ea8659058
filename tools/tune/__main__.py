"""``python -m tools.tune SPACE QUESTIONS --out FOLDER --threshold SCORE``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.console import progress, run, say
from tools.errors import UsageError
from tools.questions import read_questions
from tools.results import make_folder
from tools.tune import report, webhook
from tools.tune.options import Options, parse
from tools.tune.space import Value, as_text, is_on, read_space
from tools.tune.study import Search, log_file
from tools.tune.trial import Bench, Measured


def main(arguments: Sequence[str]) -> int:
    """Search; 0 if some settings pass, else 1."""
    options = parse(arguments)
    webhook.check(options.webhook)
    space = read_space(options.space)
    fixed = {**space.fixed, **({"MODEL_DIR": str(options.model.resolve())} if options.model else {})}
    model = Path(str(fixed.get("MODEL_DIR", "")))
    if "MODEL_DIR" not in fixed:
        raise UsageError("name the model's folder: --model, or MODEL_DIR in [fixed]")
    bench = Bench(options, read_questions(options.questions, options.limit), model, is_on(fixed, "BATCH_MODE", True))
    make_folder(options.out)
    search = Search(options, space)
    winner: report.Row | None = None
    try:
        _search(options, search, bench, fixed)
    finally:
        winner = report.write(options.out, report.rows(search.trials, options.threshold), fixed, options.threshold)
        _tell(options, search, winner)
    return 0 if winner else 1


def _search(options: Options, search: Search, bench: Bench, fixed: dict[str, Value]) -> None:
    def measure(number: int, settings: dict[str, Value], prune: Callable[[int, float], bool]) -> Measured:
        environ = {name: as_text(value) for name, value in {**fixed, **settings}.items()}
        return bench.measure(environ, log_file(options.out, number), prune)

    with progress(options.trials, "trials", "trial") as bar:
        bar.update(len(search.trials))
        while len(search.trials) < options.trials:
            search.step(measure)
            bar.update(1)


def _tell(options: Options, search: Search, winner: report.Row | None) -> None:
    print(report.text(report.rows(search.trials, options.threshold)))
    if winner:
        outcome = f"trial {winner.number}: {winner.tokens_per_s:.1f} tokens/s at a score of {winner.score:.4f}"
        print(f"BEST  {outcome}; settings: {options.out / report.ENV}")
    else:
        outcome = f"no settings reach a score of {options.threshold:g}"
        print(f"NONE  {outcome}; the trials' errors: {options.out / report.RESULT}")
    webhook.notify(options.webhook, {"text": f"tune: {outcome}", "trials": len(search.trials), "passed": bool(winner)})
    say(f"written: {options.out}")


if __name__ == "__main__":
    sys.exit(run(main))
