"""How long the answer to a question may be: the kind of question, and the token budget of that kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.settings import BudgetSettings

Kind = Literal["hard_code", "long_answer", "code", "short"]

HARD_CODE_KEYWORDS = ("kernel<<<", "global void", "#include")
LONG_ANSWER_KEYWORDS = ("算子", "spmv", "convnets", "im2col", "gemm", "tensor cores", "triton", "tilelang")
CODE_KEYWORDS = ("代码", "伪代码", "核心代码", "代码片段", "#include", "import ", "def ")


class Plan(NamedTuple):
    """What is decided about one answer before it is generated.

    ``is_short`` says that the rules for short answers apply, ``asks_for_code`` that examples may be the answer.
    """

    max_tokens: int
    is_short: bool
    asks_for_code: bool


@dataclass(frozen=True)
class Keywords:
    """A list of lower-case keywords, each counted once."""

    words: tuple[str, ...]

    @staticmethod
    def of(*lists: Sequence[str]) -> Keywords:
        return Keywords(tuple(dict.fromkeys(word.lower() for words in lists for word in words)))

    def found_in(self, question: str, at_least: int) -> bool:
        """Whether ``at_least`` different keywords stand in ``question``, which is in lower case."""
        hits = 0
        for word in self.words:
            if word in question:
                hits += 1
                if hits >= at_least:
                    return True
        return False


class BudgetPolicy:
    """Decides by the keywords of a question; the first kind that matches wins."""

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        built_in = LONG_ANSWER_KEYWORDS if settings.long_answer_enable_default else ()
        self._hard_code = Keywords.of(HARD_CODE_KEYWORDS, settings.hard_code_keywords)
        self._long_answer = Keywords.of(built_in, settings.long_answer_keywords)
        self._code = Keywords.of(CODE_KEYWORDS, settings.code_keywords)
        self._budgets: dict[Kind, int] = {
            "hard_code": settings.max_new_tokens_code_hard,
            "long_answer": settings.max_new_tokens_code,
            "code": settings.max_new_tokens_code_soft,
            "short": settings.max_new_tokens,
        }

    def kind(self, question: str) -> Kind:
        """The kind of a question; every question is short where routing is off."""
        return self._kind(question.lower())

    def plan(self, question: str, max_new_tokens: int | None = None) -> Plan:
        """Budget and rules for one question. A caller's ``max_new_tokens`` goes before the kind's budget.

        A caller who asks for more than the short budget wants a long answer: the rules for short ones are then off.
        """
        lowered = question.lower()
        kind = self._kind(lowered)
        short_by_wish = max_new_tokens is None or max_new_tokens <= self._settings.max_new_tokens
        return Plan(
            max_tokens=self._budgets[kind] if max_new_tokens is None else max_new_tokens,
            is_short=kind == "short" and short_by_wish,
            asks_for_code=kind in ("hard_code", "code") or self._code.found_in(lowered, 1),
        )

    def _kind(self, lowered: str) -> Kind:
        settings = self._settings
        if settings.disable_token_routing:
            return "short"
        if self._hard_code.found_in(lowered, settings.hard_code_min_hits):
            return "hard_code"
        if self._long_answer.found_in(lowered, settings.long_answer_min_hits):
            return "long_answer"
        return "code" if self._code.found_in(lowered, 1) else "short"
