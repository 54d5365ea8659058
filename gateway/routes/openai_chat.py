"""``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.metrics import Metrics
from gateway.middleware.context import record_of
from gateway.openai.answers import ChatForm
from gateway.openai.conversion import StreamWish, chat_samples
from gateway.openai.schemas import ChatRequest, parse_request, request_openapi
from gateway.openai.service import Job, OpenAIService
from gateway.routes.openai_common import RESPONSES, answer

_HELLO = {"messages": [{"role": "user", "content": "什么是线程块？"}], "max_tokens": 64}
_EXAMPLES = {"one question": _HELLO, "streamed": {**_HELLO, "stream": True}}


def chat_routes(service: OpenAIService, metrics: Metrics, limit_s: float) -> APIRouter:
    """The route, answering with ``service``. ``limit_s`` is the time that a request has as a whole."""
    router = APIRouter()

    @router.post("/v1/chat/completions", responses=RESPONSES, openapi_extra=request_openapi(ChatRequest, _EXAMPLES))
    async def chat_completions(request: Request) -> Response:
        """Continue a chat, as OpenAI's API does. The model sees what is sent, with its chat template around it."""
        wish = parse_request(await request.body(), ChatRequest)
        service.check_model(wish.model)
        streaming = StreamWish.of(wish)
        wanted = chat_samples(wish, record_of(request).request_id)
        form = ChatForm(service.model_name, (wish.top_logprobs or 0) if wish.logprobs else None)
        return await answer(service, metrics, Job(wanted, form, streaming), request, limit_s)

    return router
