"""How long hypothesis looks: without a deadline for one example, as the machine may be busy."""

from hypothesis import settings

quick = settings(deadline=None, max_examples=40)
