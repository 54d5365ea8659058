"""``POST /v1/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.metrics import Metrics
from gateway.middleware.context import record_of
from gateway.openai.answers import CompletionForm
from gateway.openai.conversion import StreamWish, completion_samples
from gateway.openai.schemas import CompletionRequest, parse_request, request_openapi
from gateway.openai.service import Job, OpenAIService
from gateway.routes.openai_common import RESPONSES, answer

_EXAMPLES = {
    "one prompt": {"prompt": "线程块是", "max_tokens": 32},
    "several prompts": {"prompt": ["线程块是", "共享内存是"], "max_tokens": 32, "temperature": 0},
}


def completion_routes(service: OpenAIService, metrics: Metrics, limit_s: float) -> APIRouter:
    """The route, answering with ``service``. ``limit_s`` is the time that a request has as a whole."""
    router = APIRouter()

    @router.post("/v1/completions", responses=RESPONSES, openapi_extra=request_openapi(CompletionRequest, _EXAMPLES))
    async def completions(request: Request) -> Response:
        """Continue texts or token ids as they are, one or many, as OpenAI's API does."""
        wish = parse_request(await request.body(), CompletionRequest)
        service.check_model(wish.model)
        streaming = StreamWish.of(wish)
        wanted = completion_samples(wish, record_of(request).request_id)
        echoed = [text.decode() for text in wanted.inputs] if wish.echo and wish.stream else ()
        form = CompletionForm(service.model_name, logprobs=wish.logprobs is not None, n=wish.n, prompts=echoed)
        return await answer(service, metrics, Job(wanted, form, streaming), request, limit_s)

    return router
