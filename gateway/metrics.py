"""What Prometheus is told: requests, times, prompts and tokens, retries, the state of the upstreams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The gateway's metrics, in a registry of their own: an application is made more than once in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests, by route and status", ("method", "route", "status"))
        self.seconds = self._histogram("request_seconds", "Time from a request to the end of its answer", ("route",))
        self.first_piece = self._histogram("first_piece_seconds", "Time to the first event of a stream", ("route",))
        self.ready_wait = self._histogram("ready_wait_seconds", "Time that requests waited for a ready model")
        self.prompts = self._counter("prompts", "Prompts taken on")
        self.failed_prompts = self._counter("failed_prompts", "Prompts of /predict that have no answer")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of answered prompts")
        self.completion_tokens = self._counter("completion_tokens", "Generated tokens")
        self.retries = self._counter("retries", "Prompts sent again after their model was lost")
        self.system_prompt_changes = self._counter("system_prompt_changes", "Changes of the default system prompt")

    def note_first_piece(self, route: str, started: float) -> None:
        """A stream that began at ``started`` (``time.monotonic``) has its first event now."""
        self.first_piece.labels(route).observe(time.monotonic() - started)

    def watch_prompts_in_flight(self, read: Callable[[], float]) -> None:
        """Show ``read()`` as the number of prompts in hand, waiting ones included."""
        gauge = Gauge("gateway_prompts_in_flight", "Prompts in hand", registry=self.registry)
        gauge.set_function(read)

    def watch_upstreams(self, read: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        """Show for each Triton server of ``read()`` whether its model answers."""
        self.registry.register(_UpstreamCollector(read))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"gateway_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(f"gateway_{name}", what, labels, buckets=_SECONDS, registry=self.registry)


class _UpstreamCollector(Collector):
    """Asks when it is asked, so that nobody has to keep a gauge up to date."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, bool]]]) -> None:
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("gateway_upstream_up", "Whether the model of a Triton answers", labels=["upstream"])
        for name, is_up in self._read():
            family.add_metric([name], float(is_up))
        yield family
