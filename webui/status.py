"""The state of the service and its throughput, from what the gateway tells of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webui.client import GatewayClient

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{.*\})? (?P<value>\S+)")
KEPT_RATES = 120


@dataclass(frozen=True)
class Reading:
    """One look at the service. ``at`` is a monotonic time in seconds; counters count from the gateway's start."""

    at: float
    state: str
    info: Mapping[str, Any]
    prompts: float
    completion_tokens: float

    @property
    def engines(self) -> list[Mapping[str, Any]]:
        """The engines, none while no model answers."""
        return list(self.info.get("engines") or ())

    @property
    def in_flight(self) -> int:
        """Prompts that the gateway has in hand."""
        return int((self.info.get("gateway") or {}).get("prompts_in_flight") or 0)


@dataclass(frozen=True)
class Rates:
    """What came between two looks, a second."""

    prompts: float = 0.0
    tokens: float = 0.0


async def look(client: GatewayClient, now: float) -> Reading:
    """Ask the gateway. Raises :class:`~webui.errors.WebError`."""
    info = await client.info()
    totals = counters(await client.metrics())
    return Reading(
        at=now,
        state=str(info.get("status")),
        info=info,
        prompts=totals.get("gateway_prompts_total", 0.0),
        completion_tokens=totals.get("gateway_completion_tokens_total", 0.0),
    )


def rates(before: Reading | None, after: Reading) -> Rates:
    """The rates between two readings; none for the first, and where a restart has set the counters back."""
    if before is None or after.at <= before.at:
        return Rates()
    seconds = after.at - before.at
    prompts, tokens = after.prompts - before.prompts, after.completion_tokens - before.completion_tokens
    return Rates() if min(prompts, tokens) < 0 else Rates(prompts / seconds, tokens / seconds)


def counters(exposition: str) -> dict[str, float]:
    """Metric → value, summed over its labels, from Prometheus' text format."""
    totals: dict[str, float] = {}
    for line in exposition.splitlines():
        if match := _SAMPLE.match(line):
            totals[match["name"]] = totals.get(match["name"], 0.0) + float(match["value"])
    return totals
