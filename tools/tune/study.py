"""The search itself: Optuna's study in a file, so that it goes on where it was cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.errors import ToolError, UsageError
from tools.tune.options import Options
from tools.tune.space import Space, Value
from tools.tune.trial import Measured

STUDY = "study.db"
LEFT_OUT = "left_out"
PROPOSALS = 5  # of the sampler, before settings that are new are looked for one by one
Measure = Callable[[int, dict[str, Value], Callable[[int, float], bool]], Measured]


class Search:
    """A study: TPE proposes, the median of earlier trials prunes, scores below the threshold are infeasible."""

    def __init__(self, options: Options, space: Space) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space = space
        self._threshold = options.threshold
        self._study = optuna.create_study(
            study_name="settings",
            storage=f"sqlite:///{(options.out / STUDY).resolve()}",
            sampler=optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=min(options.trials, 8)),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            direction="maximize",
            load_if_exists=True,
        )
        self._check_same(options)
        self._take_up()

    @property
    def trials(self) -> list[Any]:
        """The trials that were measured to their end, oldest first."""
        left_out = self._left_out
        return [one for one in self._study.trials if one.state.is_finished() and one.number not in left_out]

    @property
    def _left_out(self) -> list[int]:
        """The numbers of trials that were cut, or that would have repeated another one."""
        return list(self._study.user_attrs.get(LEFT_OUT, []))

    def _leave_out(self, number: int) -> None:
        self._study.set_user_attr(LEFT_OUT, [*self._left_out, number])

    def step(self, measure: Measure) -> None:
        """Run one trial. One that fails is recorded as such; other errors than :class:`ToolError` are not caught."""
        trial, settings = self._next()
        states = self._optuna.trial.TrialState

        def prune(number: int, speed: float) -> bool:
            trial.report(speed, number)
            return bool(trial.should_prune())

        try:
            measured = measure(trial.number, settings, prune)
        except ToolError as exc:
            trial.set_user_attr("error", str(exc)[:500])
            self._study.tell(trial, state=states.FAIL)
            return
        trial.set_user_attr("score", measured.score)
        trial.set_user_attr("tokens_per_s", measured.tokens_per_s)
        trial.set_user_attr("repeats", measured.repeats)
        trial.set_constraint("score", self._threshold - measured.score)
        if measured.pruned:
            self._study.tell(trial, state=states.PRUNED)
        else:
            self._study.tell(trial, measured.tokens_per_s)

    def _next(self) -> tuple[Any, dict[str, Value]]:
        """Ask for settings that were not measured yet, as long as there are any."""
        known = {_key(one.params): one for one in self.trials}
        for _ in range(PROPOSALS):
            trial = self._study.ask()
            settings = self._space.suggest(trial)
            earlier = known.get(_key(trial.params))
            if earlier is None:
                return trial, settings
            self._repeat(trial, earlier)
        new = next((one for one in self._space.combinations() if _key(one) not in known), None)
        if new:
            self._study.enqueue_trial(new)
        trial = self._study.ask()
        return trial, self._space.suggest(trial)

    def _repeat(self, trial: Any, earlier: Any) -> None:
        """Tell the sampler what is known of these settings already."""
        self._leave_out(trial.number)
        if earlier.value is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            trial.set_constraint("score", self._threshold - earlier.user_attrs["score"])
            self._study.tell(trial, earlier.value)

    def _check_same(self, options: Options) -> None:
        wanted = {
            "space": self._space.fingerprint(),
            "threshold": options.threshold,
            "questions": [options.questions.name, options.limit],
        }
        for name, value in wanted.items():
            if self._study.user_attrs.get(name, value) != value:
                raise UsageError(f"--out {options.out}: holds a study with another {name}; name another folder")
            self._study.set_user_attr(name, value)

    def _take_up(self) -> None:
        """Begin with the start values, or with what was under way when the search was cut."""
        if not self._study.trials and self._space.start:
            self._study.enqueue_trial(self._space.start)
        for trial in self._study.trials:
            if trial.state == self._optuna.trial.TrialState.RUNNING:
                self._leave_out(trial.number)
                self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                if trial.params:
                    self._study.enqueue_trial(trial.params)


def _key(params: dict[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(params.items()))


def log_file(out: Path, number: int) -> Path:
    """Where a trial's service writes."""
    return out / f"trial-{number:03}.log"
