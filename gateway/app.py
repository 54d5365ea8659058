"""The application put together: parts, routes, layers, and the order in which parts start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from gateway.errors import error_response
from gateway.middleware.body_limit import BODY_TIMEOUT_S, BodyLimitMiddleware
from gateway.middleware.context import ContextMiddleware, record_of
from gateway.middleware.draining import Drain, DrainMiddleware
from gateway.middleware.turns import TurnsMiddleware
from gateway.policy.messages import SystemPrompt
from gateway.prediction import Predictor
from gateway.readiness import DEFAULT_PROBE_TIMES, ProbeTimes
from gateway.routes.health import health_routes
from gateway.routes.info import info_routes
from gateway.routes.predict import predict_routes
from gateway.settings import GatewaySettings
from gateway.triton.upstreams import Upstreams
from gateway.turns import Turns

Step = tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]


def create_app(
    settings: GatewaySettings,
    drain: Drain,
    probe_times: ProbeTimes = DEFAULT_PROBE_TIMES,
    body_timeout_s: float = BODY_TIMEOUT_S,
) -> FastAPI:
    """Build the application. Nothing runs and nothing connects before its lifespan starts."""
    upstreams = Upstreams(settings.triton_urls, probe_times)
    turns = Turns()
    predictor = Predictor(settings, upstreams, SystemPrompt(settings.system_prompt), turns)
    steps: list[Step] = [
        (upstreams.open, upstreams.close),  # channels and probes: ready may be reported from here on
    ]
    app = FastAPI(
        title="LLM service",
        description="Questions and answers over a model served by Triton",
        docs_url=None,  # its pages would fetch their scripts from the internet
        redoc_url=None,
        lifespan=lambda _: _run(steps),
        middleware=[
            Middleware(ContextMiddleware),
            Middleware(TurnsMiddleware, turns=turns),
            Middleware(DrainMiddleware, drain=drain),
            Middleware(BodyLimitMiddleware, max_bytes=settings.limits.max_body_bytes, timeout_s=body_timeout_s),
        ],
        exception_handlers={HTTPException: _translate, RequestValidationError: _translate},
    )
    app.include_router(health_routes(upstreams, batch_mode=settings.batch_mode))
    app.include_router(predict_routes(predictor))
    app.include_router(info_routes(settings, upstreams, predictor))
    return app


@asynccontextmanager
async def _run(steps: Sequence[Step]) -> AsyncIterator[None]:
    """Start the parts in order; stop those that were started in the opposite order, whatever happens."""
    async with AsyncExitStack() as stack:
        for start, stop in steps:
            await start()
            stack.push_async_callback(stop)
        yield


async def _translate(request: Request, exc: Exception) -> Response:
    """Errors that Starlette answers itself (no such route, wrong method) take our form too."""
    return error_response(exc, record_of(request).request_id)
