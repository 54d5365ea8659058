"""Publishes the engines' figures on Triton's own metrics endpoint.

Every change of a Triton metric is a blocking round trip to the server, so one per token or request is out of the
question: a thread publishes the differences about once a second. Triton's histograms take single observations only;
ours are published as the counters a Prometheus histogram consists of (``…_bucket`` with the label ``le``, ``…_sum``,
``…_count``), which ``histogram_quantile`` and every dashboard read the same.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from .engines.stats import COUNTERS, GAUGES, HISTOGRAMS, EngineStats, Histogram, Labels
from .logs import logger

_INTERVAL_S = 1.0

EngineFigures = Callable[[], Mapping[str, EngineStats]]
Sample = tuple[str, Labels, float]


class MetricsPublisher:
    """A thread that brings Triton's metrics up to date. ``figures`` returns the stats by engine name.

    ``labels`` (model and version) are put on every sample, with the engine's name.
    """

    def __init__(self, labels: Mapping[str, str], figures: EngineFigures) -> None:
        self._labels = dict(labels)
        self._figures = figures
        self._families: dict[str, Any] = {}
        self._metrics: dict[tuple[str, Labels], Any] = {}
        self._published: dict[tuple[str, Labels], float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Start publishing; does nothing where the server has metrics off."""
        try:
            self._publish()
        except pb_utils.TritonModelException as exc:
            logger.info("no model metrics: %s", exc)
            return
        self._thread.start()

    def stop(self) -> None:
        """Publish for a last time and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._metrics.clear()  # each talks to Triton when it is freed, which must happen while the stub still can
        self._families.clear()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(_INTERVAL_S)
            try:
                self._publish()
            except Exception:  # figures must never take the model down
                logger.exception("the metrics could not be published")

    def _publish(self) -> None:
        for engine, stats in self._figures().items():
            for name, labels, value in _counter_samples(stats):
                self._bring_to(name, (*labels, ("engine", engine)), value, gauge=False)
            for name, value in stats.gauges.items():
                self._bring_to(name, (("engine", engine),), value, gauge=True)

    def _bring_to(self, name: str, labels: Labels, value: float, *, gauge: bool) -> None:
        key = (name, labels)
        if key not in self._metrics:
            kind = pb_utils.MetricFamily.GAUGE if gauge else pb_utils.MetricFamily.COUNTER
            family = self._families.get(name)
            if family is None:
                family = pb_utils.MetricFamily(name=name, description=_description(name), kind=kind)
                self._families[name] = family
            self._metrics[key] = family.Metric(labels={**self._labels, **dict(labels)})
        before = self._published.get(key, 0.0)
        if value == before or (value < before and not gauge):  # a counter never goes back
            return
        if gauge:
            self._metrics[key].set(value)
        else:
            self._metrics[key].increment(value - before)
        self._published[key] = value


def _counter_samples(stats: EngineStats) -> Iterator[Sample]:
    """All counters of one engine with their present values, those of the histograms included."""
    # Counters without labels show 0 from the start; those with labels appear with their first event.
    counters: dict[tuple[str, Labels], float] = {
        (name, ()): 0.0 for name in COUNTERS if name != "vllm:request_success_total"
    }
    counters.update(stats.counters)
    for (name, labels), value in counters.items():
        yield name, labels, value
    for name, histogram in stats.histograms.items():
        yield from _histogram_samples(name, histogram)


def _histogram_samples(name: str, histogram: Histogram) -> Iterable[Sample]:
    counts = list(histogram.counts)  # a copy: the event loop goes on counting
    running = list(itertools.accumulate(counts))
    bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
    buckets = [(f"{name}_bucket", (("le", bound),), float(n)) for bound, n in zip(bounds, running, strict=True)]
    return [*buckets, (f"{name}_sum", (), histogram.total), (f"{name}_count", (), float(running[-1]))]


def _description(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base in HISTOGRAMS:
            return HISTOGRAMS[base][0]
    return COUNTERS.get(name) or GAUGES[name]
