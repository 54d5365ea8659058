"""The status tab: state, throughput and engines, looked at every few seconds while the tab is open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from webui.client import GatewayClient
from webui.errors import WebError
from webui.labels import QUIET, Labels
from webui.status import KEPT_RATES, Rates, Reading, look, rates
from webui.tables import html_table, sparkline
from webui.texts import TEXTS, Language, say

EVERY_S = 2.0


@dataclass(frozen=True)
class Seen:
    """What a page has seen so far: the last reading, and the token rates up to it."""

    last: Reading | None = None
    token_rates: tuple[float, ...] = field(default=())

    def plus(self, reading: Reading) -> tuple[Seen, Rates]:
        """With one more reading, and the rates since the one before."""
        now = rates(self.last, reading)
        known = self.token_rates if self.last is None else (*self.token_rates, now.tokens)
        return Seen(reading, known[-KEPT_RATES:]), now


class StatusTab:
    """Layout and behaviour."""

    def __init__(self, client: GatewayClient, labels: Labels, language: Any) -> None:
        self._client = client
        with labels.put(gr.Tab(id="status", elem_id="tab-status"), label="status.tab") as self.tab:
            self.notice = gr.Markdown(elem_id="status-notice")
            self.service = gr.HTML(elem_id="status-service")
            self.engines = gr.HTML(elem_id="status-engines")
        seen = gr.State(Seen())
        self.timer = gr.Timer(EVERY_S, active=False)
        wires: dict[str, Any] = {
            "inputs": [language, seen],
            "outputs": [self.notice, self.service, self.engines, seen],
            **QUIET,
        }
        self.timer.tick(self._look, **wires)
        self.tab.select(self._look, **wires)
        self.tab.select(lambda: gr.Timer(active=True), None, self.timer, **QUIET)

    def rests_with(self, others: Sequence[Any]) -> None:
        """Nothing is asked while another tab is open."""
        for tab in others:
            tab.select(lambda: gr.Timer(active=False), None, self.timer, **QUIET)

    async def _look(self, language: Language, seen: Seen) -> tuple[Any, ...]:
        try:
            seen, now = seen.plus(await look(self._client, time.monotonic()))
        except WebError as exc:
            return exc.sentence(language), "", "", Seen()
        assert seen.last is not None
        told = say(language, "status.at", time=time.strftime("%H:%M:%S"), seconds=f"{EVERY_S:g}")
        service = service_table(language, seen.last, now) + sparkline(seen.token_rates)
        return told, service, engine_table(language, seen.last), seen


def service_table(language: Language, reading: Reading, now: Rates) -> str:
    """The service as a whole, a line for each fact."""
    info = reading.info
    backend = " ".join(str(info[name]) for name in ("backend", "backend_version", "dtype") if info.get(name))
    facts = {
        "state": state_word(language, reading.state),
        "model": str(info.get("model") or "–"),
        "backend": backend or "–",
        "length": str(info.get("max_model_len") or "–"),
        "token_rate": f"{now.tokens:.1f}",
        "prompt_rate": f"{now.prompts:.1f}",
        "in_flight": str(reading.in_flight),
        "prompts": f"{reading.prompts:.0f}",
        "tokens": f"{reading.completion_tokens:.0f}",
    }
    return html_table([], [[say(language, f"status.{name}"), value] for name, value in facts.items()])


def state_word(language: Language, state: str) -> str:
    """The gateway's word for its state in the reader's language; a word the page does not know is shown as it is."""
    key = f"status.state.{state}"
    return say(language, key) if key in TEXTS else state


def engine_table(language: Language, reading: Reading) -> str:
    """A row for each engine."""
    header = [say(language, f"status.{name}") for name in ("engine", "state", "running", "waiting", "since_step")]
    fields = ("name", "state", "running", "waiting", "seconds_since_step")
    rows = [[_cell(engine.get(name)) for name in fields] for engine in reading.engines]
    return html_table(header, rows) if rows else ""


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
