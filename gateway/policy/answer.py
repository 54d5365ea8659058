"""From the model's text to the answer. Each rule is a small function; none of them makes an answer empty.

The rules only ever keep a beginning of the text behind the think block, so that a streamed answer can be sent piece
by piece: what a rule may still take back is at most the part behind the last certain place.
"""

from __future__ import annotations

import re

from gateway.policy.budget import Plan
from gateway.settings import AnswerSettings

_THINK_BLOCK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)
_EXAMPLES = re.compile(r"(?:例如|比如|举例(?:来说)?)[：:]")
# A dot behind a digit numbers a list more often than it ends a sentence.
_SENTENCE_END = re.compile(r"[。！？；\n]+[”’」』）)]*|(?:(?<!\d)\.|[!?])[.!?]*[\"')]*(?=\s)")
_DANGLING = " \t\n，,；;：:、（("  # what may stand before "for example:" and means nothing at an end


def finish_answer(text: str, plan: Plan, settings: AnswerSettings) -> str:
    """Apply all rules to a whole text. Blank text stays blank, any other text stays something."""
    answer = strip_think(text)
    if plan.is_short:
        if settings.trim_examples and not plan.asks_for_code:
            answer = cut_examples(answer)
        if settings.max_sentences:
            answer = keep_sentences(answer, settings.max_sentences)
    return answer


def strip_think(text: str) -> str:
    """Remove think blocks and white space around the answer; if nothing is left, the inside is the answer.

    A block that was never closed reaches to the end, and one whose opening tag belonged to the prompt begins at the
    start of the text.
    """
    stripped = text.strip()
    if "think>" not in stripped.lower():
        return stripped
    outside = outside_think(stripped)
    answer = behind_closing_tags(outside)[0].strip()
    if answer:
        return answer
    return _THINK_TAG.sub("", stripped).strip() or stripped


def outside_think(text: str) -> str:
    """The text without think blocks; one that was never closed reaches to the end."""
    return _THINK_BLOCK.sub("", text)


def behind_closing_tags(outside: str) -> tuple[str, bool]:
    """What stands behind the last closing tag whose opening one is not there, and whether there is such a tag."""
    parts = _THINK_CLOSE.split(outside)
    return parts[-1], len(parts) > 1


def begins_examples(text: str) -> bool:
    """Whether examples begin somewhere in the text."""
    return _EXAMPLES.search(text) is not None


def without_dangling(text: str) -> str:
    """The text without the punctuation that would dangle before examples."""
    return text.rstrip(_DANGLING)


def cut_examples(text: str) -> str:
    """Cut where examples begin, and the punctuation that would dangle there."""
    found = _EXAMPLES.search(text)
    if found is None:
        return text
    return without_dangling(text[: found.start()]) or text


def keep_sentences(text: str, limit: int) -> str:
    """Keep at most ``limit`` sentences (Chinese or Latin end marks, line breaks). Blank ones do not count."""
    start = kept = 0
    for found in _SENTENCE_END.finditer(text):
        if not text[start : found.end()].strip():
            continue
        start = found.end()
        kept += 1
        if kept == limit:
            return text[:start].rstrip()
    return text
