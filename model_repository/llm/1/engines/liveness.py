"""When an engine that says nothing wrong has hung all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_LONGEST_LOOK_S = 1.0
_SAME_STEP_S = 1e-3  # its time is worked out of its age, never twice exactly alike


@dataclass(frozen=True)
class HangRule:
    """An engine hangs that has prompts and completes no step, or gives no sign of life, for ``silence_s`` seconds.

    Its first step may take ``first_step_factor`` times as long: it may compile. A prompt that waits behind others is
    no hang, as their steps go on.
    """

    silence_s: float = 60.0
    first_step_factor: float = 5.0


class HangWatch:
    """Applies the rule; to be asked several times a second.

    Only time during which this process ran itself counts: where all is stopped together, a suspended container say,
    no engine hangs.
    """

    def __init__(self, rule: HangRule, clock: Callable[[], float] = time.monotonic) -> None:
        self._rule = rule
        self._clock = clock
        self.started(None)

    def started(self, last_step: float | None) -> None:
        """The engine has started; ``last_step`` as for :meth:`look`."""
        self._looked_at = self._clock()
        self._last_step = last_step
        self._heard = -1
        self._first_step = True
        self._without_step_s = self._without_word_s = 0.0

    def look(self, *, busy: bool, last_step: float | None, heard: int) -> str | None:
        """Why the engine counts as hung, if it does.

        ``busy``: it has prompts. ``last_step``: when it completed its latest step, in seconds on any clock, give or
        take a little each time it is told. ``heard``: messages so far.
        """
        elapsed = self._elapsed()
        stepped, spoke = _is_later(last_step, self._last_step), heard != self._heard
        self._heard = heard
        if stepped:
            self._first_step, self._last_step = False, last_step
        self._without_step_s = 0.0 if stepped or not busy else self._without_step_s + elapsed
        self._without_word_s = 0.0 if spoke else self._without_word_s + elapsed
        limit = self._rule.silence_s * (self._rule.first_step_factor if self._first_step else 1.0)
        if self._without_step_s > limit:
            return f"it has prompts and completed no step for {limit:.0f} s"
        if self._without_word_s > limit:
            return f"its process gave no sign of life for {limit:.0f} s"
        return None

    def _elapsed(self) -> float:
        now = self._clock()
        elapsed, self._looked_at = now - self._looked_at, now
        return min(elapsed, _LONGEST_LOOK_S)


def _is_later(step: float | None, before: float | None) -> bool:
    return step is not None and (before is None or step > before + _SAME_STEP_S)
