"""The answer policy on a stream: of the text that has come so far, the part that no rule can take back any more.

The pieces together are the answer that :func:`gateway.policy.answer.finish_answer` makes of the whole text. One thing
cannot be known beforehand: a ``</think>`` whose opening tag nobody has seen. A model whose chat template opens the
block says so, and everything is then held until the block is closed; from any other such a tag is not expected.
"""

from __future__ import annotations

import re

from gateway.policy import answer as rules
from gateway.policy.budget import Plan
from gateway.settings import AnswerSettings

_TAGS = ("<think>", "</think>")
_EXAMPLES_BEGIN = re.compile(r"(?:例如?|比如?|举(?:例(?:来说?)?)?)\Z")


class StreamedAnswer:
    """One answer on its way. ``opens_think``: the prompt ends within a think block."""

    def __init__(self, plan: Plan, settings: AnswerSettings, *, opens_think: bool = False) -> None:
        self._plan = plan
        self._settings = settings
        self._opens_think = opens_think
        self._text = ""
        self._sent = ""

    def add(self, piece: str) -> str:
        """Take new text; return what became certain by it, often nothing."""
        self._text += piece
        return self._send(self._certain())

    def finish(self) -> tuple[str, str]:
        """The text is complete: the rest of the answer, and all of it."""
        answer = rules.finish_answer(self._text, self._plan, self._settings)
        return self._send(answer), answer

    def _send(self, certain: str) -> str:
        """What of ``certain`` has not been sent."""
        if not certain.startswith(self._sent):
            return ""
        delta, self._sent = certain[len(self._sent) :], certain
        return delta

    def _certain(self) -> str:
        certain, is_whole = certain_outside_think(self._text, opens_think=self._opens_think), False
        if not certain or not self._plan.is_short:
            return certain
        if self._settings.trim_examples and not self._plan.asks_for_code:
            certain, is_whole = certain_before_examples(certain)
        if self._settings.max_sentences:
            certain = certain_sentences(certain, self._settings.max_sentences, is_whole=is_whole)
        return certain


def certain_outside_think(text: str, *, opens_think: bool) -> str:
    """The text outside think blocks, without white space and without the beginning of a tag at its end."""
    outside = rules.outside_think(text)
    if opens_think:
        outside, is_closed = rules.behind_closing_tags(outside)
        if not is_closed:
            return ""
    return outside[: _tag_begins(outside)].strip()


def certain_before_examples(text: str) -> tuple[str, bool]:
    """The text before examples, and whether that is all: they have begun."""
    if rules.begins_examples(text):
        cut = rules.cut_examples(text)
        return cut, cut != text
    return rules.without_dangling(_EXAMPLES_BEGIN.sub("", text)), False


def certain_sentences(text: str, limit: int, *, is_whole: bool) -> str:
    """The first ``limit`` sentences of a text that may go on."""
    kept = rules.keep_sentences(text, limit)
    # An end mark at the end of the text may still grow ("。" to "。”"); what is kept of it by then does not change.
    return kept if is_whole or len(kept) < len(text.rstrip()) else text.rstrip()


def _tag_begins(text: str) -> int:
    """Where at the end of ``text`` the beginning of a tag stands; its length if none does."""
    lowered = text[-len(_TAGS[1]) :].lower()
    for place in range(len(lowered)):
        if any(tag.startswith(lowered[place:]) for tag in _TAGS):
            return len(text) - (len(lowered) - place)
    return len(text)
