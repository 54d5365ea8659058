"""An engine's figures, collected in plain Python as its steps complete.

Names are vLLM's own (``vllm:…``), as of 0.32. Collecting costs no call to Triton: :mod:`metrics` publishes the sums
about once a second.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

Labels = tuple[tuple[str, str], ...]

# Upper bounds in seconds, as vLLM's.
_BETWEEN_TOKENS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)

COUNTERS = {
    "vllm:prompt_tokens_total": "Number of prefill tokens processed.",
    "vllm:generation_tokens_total": "Number of generation tokens processed.",
    "vllm:request_success_total": "Count of successfully processed requests, by finish reason.",
    "vllm:num_preemptions_total": "Cumulative number of preemptions from the engine.",
    "vllm:spec_decode_num_drafts_total": "Number of speculative decoding drafts.",
    "vllm:spec_decode_num_draft_tokens_total": "Number of draft tokens.",
    "vllm:spec_decode_num_accepted_tokens_total": "Number of accepted draft tokens.",
    "llm:engine_restarts_total": "Number of times that the engine was started again after it died.",
}
GAUGES = {
    "vllm:num_requests_running": "Number of requests in model execution batches.",
    "vllm:num_requests_waiting": "Number of requests waiting to be processed.",
    "vllm:kv_cache_usage_perc": "Fraction of used KV cache blocks; 1 means all.",
    "llm:engine_alive": "1 while the engine takes requests, else 0.",
}
_OF_THE_POOL = {"llm:engine_alive", "llm:engine_restarts_total"}
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": ("Time to first token in seconds.", _FIRST_TOKEN),
    "vllm:inter_token_latency_seconds": ("Inter-token latency in seconds.", _BETWEEN_TOKENS),
    "vllm:e2e_request_latency_seconds": ("End-to-end request latency in seconds.", _REQUEST),
    "vllm:request_queue_time_seconds": ("Time a request spent waiting, in seconds.", _REQUEST),
    "vllm:request_prompt_tokens": ("Prompt tokens of a finished request.", _TOKENS),
    "vllm:request_generation_tokens": ("Generated tokens of a finished request.", _TOKENS),
}


@dataclass
class Histogram:
    """Counts of values by upper bound, not cumulative; the last count is that of values above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, values: Iterable[float]) -> None:
        """Add values, in the unit of the bounds."""
        for value in values:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.total += value


class StatsSnapshot(msgspec.Struct, frozen=True):
    """The figures of an engine at one moment, to be sent to another process. Histograms: counts and sum by name."""

    counters: list[tuple[str, Labels, float]] = []
    gauges: dict[str, float] = {}
    histograms: dict[str, tuple[list[int], float]] = {}

    def plus(self, other: StatsSnapshot) -> StatsSnapshot:
        """The counts of both together, and the gauges of ``other``."""
        counters: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        for name, labels, value in (*self.counters, *other.counters):
            counters[name, labels] += value
        histograms = dict(self.histograms)
        for name, (counts, total) in other.histograms.items():
            before, sum_before = histograms.get(name, ([0] * len(counts), 0.0))
            histograms[name] = ([a + b for a, b in zip(before, counts, strict=True)], sum_before + total)
        return StatsSnapshot([(*key, value) for key, value in counters.items()], other.gauges, histograms)

    def without_gauges(self) -> StatsSnapshot:
        """The counts alone: what an engine has done stays, what it is doing does not."""
        return msgspec.structs.replace(self, gauges={})


class EngineStats:
    """Figures of one engine since its start. Written on the event loop; reading elsewhere sees a recent state.

    Those of the pool (``llm:…``) are set by whoever reads, on a thread of its own: they are there from the start, so
    that no key is added while the event loop copies.
    """

    def __init__(self) -> None:
        self.counters: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self.counters["llm:engine_restarts_total", ()] = 0.0
        self.gauges: dict[str, float] = dict.fromkeys(GAUGES, 0.0)
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
        self.held_back = 0
        """Prompts that wait before the engine's own queue."""
        self._last_step: float | None = None

    def count(self, name: str, amount: float, labels: Labels = ()) -> None:
        """Add to a counter of :data:`COUNTERS`."""
        self.counters[name, labels] += amount

    def step_completed(self) -> None:
        """Note that the engine made progress."""
        self._last_step = time.monotonic()

    @property
    def seconds_since_step(self) -> float | None:
        return None if self._last_step is None else time.monotonic() - self._last_step

    def snapshot(self) -> StatsSnapshot:
        """A copy of the figures, without those that the pool keeps (``llm:…``)."""
        return StatsSnapshot(
            [(*key, value) for key, value in self.counters.items() if key[0] not in _OF_THE_POOL],
            {name: value for name, value in self.gauges.items() if name not in _OF_THE_POOL},
            {name: (list(found.counts), found.total) for name, found in self.histograms.items()},
        )

    def load(self, snapshot: StatsSnapshot) -> None:
        """Take over the figures of a snapshot; a reader on another thread sees the old ones or the new ones."""
        counters: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        counters.update({key: value for key, value in self.counters.items() if key[0] in _OF_THE_POOL})
        counters.update({(name, labels): value for name, labels, value in snapshot.counters})
        self.counters = counters
        kept = {name: self.gauges.get(name, 0.0) for name in GAUGES if name in _OF_THE_POOL}
        self.gauges = dict.fromkeys(GAUGES, 0.0) | snapshot.gauges | kept
        for name, (counts, total) in snapshot.histograms.items():
            self.histograms[name].counts, self.histograms[name].total = list(counts), total
