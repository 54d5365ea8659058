"""The application put together: parts, routes, layers, and the order in which parts start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gateway.errors import error_response
from gateway.metrics import Metrics
from gateway.middleware.api_key import ApiKeyMiddleware
from gateway.middleware.body_limit import BODY_TIMEOUT_S, BodyLimitMiddleware
from gateway.middleware.context import ContextMiddleware, record_of
from gateway.middleware.direct import DirectMiddleware
from gateway.middleware.draining import Drain, DrainMiddleware
from gateway.middleware.security_headers import SecurityHeadersMiddleware
from gateway.middleware.tracing import TracingMiddleware
from gateway.middleware.turns import TurnsMiddleware
from gateway.openai.service import OpenAIService
from gateway.policy.messages import SystemPrompt
from gateway.prediction import Predictor
from gateway.readiness import DEFAULT_PROBE_TIMES, ProbeTimes
from gateway.routes.docs import docs_routes
from gateway.routes.health import PATH as HEALTH_PATH
from gateway.routes.health import health_endpoint, health_routes
from gateway.routes.info import info_routes
from gateway.routes.metrics import metrics_routes
from gateway.routes.openai_chat import chat_routes
from gateway.routes.openai_completions import completion_routes
from gateway.routes.openai_models import model_routes
from gateway.routes.predict import PATH as PREDICT_PATH
from gateway.routes.predict import predict_endpoint, predict_routes
from gateway.routes.system_prompt import system_prompt_routes
from gateway.settings import GatewaySettings
from gateway.tracing import Tracing, untraced
from gateway.triton.sampling import Sampler
from gateway.triton.upstreams import Upstreams
from gateway.turns import Turns
from gateway.version import VERSION

Step = tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]


def create_app(
    settings: GatewaySettings,
    drain: Drain,
    probe_times: ProbeTimes = DEFAULT_PROBE_TIMES,
    body_timeout_s: float = BODY_TIMEOUT_S,
) -> FastAPI:
    """Build the application. Nothing runs and nothing connects before its lifespan starts."""
    tracing = _tracing(settings)
    upstreams = Upstreams(settings.triton_urls, probe_times, tracing.call if tracing else untraced)
    turns = Turns()
    metrics = Metrics()
    system_prompt = SystemPrompt(settings.system_prompt)
    predictor = Predictor(settings, upstreams, system_prompt, turns, metrics)
    sampler = Sampler(upstreams, metrics)
    openai = OpenAIService(settings, upstreams, predictor.admission, sampler, metrics)
    metrics.watch_prompts_in_flight(lambda: predictor.admission.prompts_in_flight)
    metrics.watch_upstreams(upstreams.up)
    limit_s = settings.limits.request_timeout_s
    health = health_endpoint(upstreams, batch_mode=settings.batch_mode)
    predict = predict_endpoint(predictor, metrics, limit_s)
    steps: list[Step] = [
        *([(tracing.open, tracing.close)] if tracing else []),  # stops last: the other parts' ends are told too
        (upstreams.open, upstreams.close),  # channels and probes: ready may be reported from here on
    ]
    app = FastAPI(
        title="LLM service",
        description="Questions and answers over a model served by Triton",
        version=VERSION,
        docs_url=None,  # FastAPI's pages would fetch their scripts from the internet; ours is a route
        redoc_url=None,
        redirect_slashes=False,  # else an address with a slash too many gets a redirect without an error's form
        lifespan=lambda _: _run(steps),
        middleware=[
            *_cors(settings.cors_allow_origins),
            Middleware(SecurityHeadersMiddleware),
            *([Middleware(TracingMiddleware, tracing=tracing)] if tracing else []),
            Middleware(ContextMiddleware, metrics=metrics),
            Middleware(TurnsMiddleware, turns=turns),
            Middleware(DrainMiddleware, drain=drain),
            Middleware(ApiKeyMiddleware, api_key=settings.api_key),
            Middleware(BodyLimitMiddleware, max_bytes=settings.limits.max_body_bytes, timeout_s=body_timeout_s),
            Middleware(DirectMiddleware, endpoints={("GET", HEALTH_PATH): health, ("POST", PREDICT_PATH): predict}),
        ],
        exception_handlers={HTTPException: _translate, RequestValidationError: _translate},
    )
    app.include_router(health_routes(upstreams, health))
    app.include_router(predict_routes(predict))
    app.include_router(info_routes(settings, upstreams, predictor))
    app.include_router(system_prompt_routes(system_prompt, settings.admin_token, metrics))
    app.include_router(metrics_routes(metrics))
    app.include_router(docs_routes())
    app.include_router(chat_routes(openai, metrics, limit_s))
    app.include_router(completion_routes(openai, metrics, limit_s))
    app.include_router(model_routes(openai, upstreams))
    return app


def _tracing(settings: GatewaySettings) -> Tracing | None:
    if settings.otlp_endpoint is None:
        return None
    return Tracing(settings.otlp_endpoint, settings.otlp_protocol, settings.served_model_name)


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """Outermost, as errors need its headers too. Without origins pages of other sites cannot read any answer."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    ]


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
    return error_response(exc, record_of(request).request_id, request.url.path)
