"""An engine that a test kills and that can be started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from llm_model.engines.base import GenerationRequest, Sample
from llm_model.errors import EngineDied
from tests.unit.model.fake_engines import Answer, ScriptedEngine, echo


class MortalEngine(ScriptedEngine):
    """Dies by :meth:`die`, or from a prompt that ``poison`` picks out; the next starts raise ``start_results``."""

    def __init__(
        self, name: str = "mortal-0", answer: Answer = echo, poison: Callable[[GenerationRequest], bool] | None = None
    ) -> None:
        super().__init__(name, answer)
        self.start_results: list[Exception] = []
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.tried_alone: list[str] = []
        self._poison = poison or (lambda request: False)
        self._death = asyncio.Event()
        self._in_flight: dict[str, asyncio.Future[list[Sample]]] = {}

    async def start(self) -> None:
        await super().start()
        if self.starts > 1:
            await self.may_start.wait()
        if self.start_results:
            raise self.start_results.pop(0)
        self._death.clear()
        self.alive = True

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        if self._poison(request):
            if not self._in_flight:
                self.tried_alone.append(request.request_id)
            asyncio.get_running_loop().call_soon(self.die)
        work = asyncio.ensure_future(super().generate(request))
        death = self._in_flight[request.request_id] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise EngineDied("killed")
            return await work
        finally:
            self._in_flight.pop(request.request_id, None)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        for token in (await self.generate(request))[0].token_ids:
            if not self.alive:
                raise EngineDied("killed")
            yield [Sample(0, [token], text="x")]

    def die(self) -> None:
        self.alive = False
        self._death.set()
        for death in self._in_flight.values():
            if not death.done():
                death.set_result([])

    async def wait_dead(self) -> str:
        await self._death.wait()
        return "killed"
