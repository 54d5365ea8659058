"""One question of a set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """What is asked and the answer it is compared with; neither is blank."""

    prompt: str
    reference: str
