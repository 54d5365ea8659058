"""Why a measurement cannot be made, in one line for the person who asked for it.

BenchmarkError
└── PeerFailed            a measured program did not start, or did not do what was asked
"""


class BenchmarkError(Exception):
    """A measurement cannot be made."""


class PeerFailed(BenchmarkError):
    """A measured program did not start, or did not do what was asked."""
