"""From token ids to text, one token at a time: incremental detokenizing and stop strings.

Nothing here knows a model or a tokenizer; decoding is a function ``ids -> text`` that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..parameters import SamplingParameters

Decode = Callable[[list[int]], str]

_REPLACEMENT = "\ufffd"  # what an unfinished UTF-8 sequence decodes to
_CONTEXT_TOKENS = 6  # prompt tokens decoded along, so that the first piece keeps its leading space


class Detokenizer:
    """Decodes a growing sequence in pieces whose concatenation is the decoded whole.

    A token's text depends on its neighbours (byte-level tokens that form one character, word-start spaces), so each
    step decodes a short window twice, with and without the new token, and returns the difference. A window that ends
    in an unfinished character yields nothing until a later token completes it.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt[-_CONTEXT_TOKENS:])
        self._window = 0  # where the decoded window begins
        self._known = len(self._ids)  # up to here the text has been returned

    def push(self, token_id: int) -> str:
        """Add one token; return the text that has become certain, often ``""``."""
        self._ids.append(token_id)
        before = self._decode(self._ids[self._window : self._known])
        after = self._decode(self._ids[self._window :])
        if after.endswith(_REPLACEMENT) or len(after) <= len(before):
            return ""
        self._window, self._known = self._known, len(self._ids)
        return after[len(before) :]


def find_stop(text: str, new_chars: int, stops: Sequence[str]) -> tuple[str, int] | None:
    """Return the stop string that ends first within the last ``new_chars`` characters, and where it begins.

    Older text has been searched before. Of two that end together the one listed first wins, as in vLLM.
    """
    found: tuple[str, int] | None = None
    for stop in stops:
        begin = text.find(stop, max(0, len(text) - new_chars - len(stop) + 1))
        if begin >= 0 and (found is None or begin + len(stop) < found[1] + len(found[0])):
            found = (stop, begin)
    return found


def held_back(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


class CompletionText:
    """The text of one completion: grows by token, is cut at a stop string, is released in pieces that stay."""

    def __init__(self, decode: Decode, prompt: Sequence[int], params: SamplingParameters) -> None:
        self.text = ""
        self._detokenizer = Detokenizer(decode, prompt)
        self._stops = params.stop_strings
        self._min_tokens = params.min_tokens
        self._keeps_stop = params.include_stop_str_in_output
        self._released = 0

    def push(self, token_id: int, count: int) -> str | None:
        """Add the ``count``-th token of the completion; return the stop string that it completed, if any."""
        piece = self._detokenizer.push(token_id)
        self.text += piece
        if not piece or count <= self._min_tokens:
            return None
        found = find_stop(self.text, len(piece), self._stops)
        if found is None:
            return None
        stop, begin = found
        self.text = self.text[: begin + len(stop) if self._keeps_stop else begin]
        return stop

    def release(self, ended: bool) -> str:
        """Return the text not yet returned, without a tail that may still become a stop string."""
        fresh = self.text[self._released :]
        if not ended and not self._keeps_stop:
            fresh = fresh[: len(fresh) - held_back(fresh, self._stops)]
        self._released += len(fresh)
        return fresh
