"""The client of the gateway over a transport that answers in this process."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from webui.batch import ask_all
from webui.client import GatewayClient, Generation, Piece
from webui.errors import Interrupted, Refused, Unreachable, WebError
from webui.questions import Question
from webui.settings import WebSettings

SETTINGS = WebSettings(gateway_url="http://gateway", api_key="key")
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> GatewayClient:
    return GatewayClient(SETTINGS, httpx.MockTransport(handler))


def events(*fields: object, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(one)}\n\n" for one in fields]
    return httpx.Response(200, text=": heartbeat\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else ""))


def chunk(text: str | None, finish_reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}], "usage": None}


async def pieces(of: GatewayClient) -> list[Piece]:
    return [piece async for piece in of.stream_chat([{"role": "user", "content": "q"}], Generation(5, 0.5, 0.9))]


async def test_a_stream_is_read_to_its_end() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        usage = {"choices": [], "usage": {"completion_tokens": 2}}
        return events(chunk("one "), chunk("two"), chunk(None, "length"), usage)

    assert await pieces(client(answer)) == [
        Piece("one "),
        Piece("two"),
        Piece(finish_reason="length"),
        Piece(completion_tokens=2),
    ]
    body = json.loads(asked[0].content)
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stream"]) == (5, 0.5, 0.9, True)
    assert asked[0].headers["authorization"] == "Bearer key"


async def test_a_stream_without_its_end_is_an_interruption() -> None:
    with pytest.raises(Interrupted):
        await pieces(client(lambda request: events(chunk("one"), done=False)))


async def test_an_error_event_is_the_services_error() -> None:
    error = {"error": {"type": "shutting_down", "message": "bye"}}
    with pytest.raises(Refused, match="The service is shutting down"):
        await pieces(client(lambda request: events(chunk("one"), error)))


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            httpx.Response(429, json={"error": {"type": "queue_full", "message": "m"}}, headers={"Retry-After": "7"}),
            "in 7 s",
        ),
        (httpx.Response(400, json={"error": {"type": "invalid_value", "message": "too long"}}), "request: too long"),
        (httpx.Response(503, json={"error": {"type": "not_ready", "message": "m"}}), "not ready yet"),
        (httpx.Response(403, json={"error": {"type": "forbidden", "message": "m"}}), "without ADMIN_TOKEN"),
        (httpx.Response(500, text="<html>"), "error 500"),
        (httpx.Response(502, json=["odd"]), "error 502"),
        (httpx.Response(200, text="no JSON"), "not the gateway's JSON"),
        (httpx.Response(200, json=[1]), "not a JSON object"),
    ],
)
async def test_errors_are_sentences(reply: httpx.Response, sentence: str) -> None:
    with pytest.raises(WebError) as caught:
        await client(lambda request: reply).info()
    assert sentence in caught.value.sentence("en")
    assert caught.value.sentence("zh") != caught.value.sentence("en")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (httpx.ConnectError("no"), Unreachable),
        (httpx.ConnectTimeout("no"), Unreachable),
        (httpx.ReadError("cut"), Interrupted),
    ],
)
async def test_faults_of_the_network_are_told(fault: httpx.TransportError, kind: type[WebError]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise fault

    with pytest.raises(kind):
        await client(fail).metrics()


async def test_a_model_that_is_not_ready_is_told_without_asking_it() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/health/ready"
        return httpx.Response(503, json={"status": "warming"}, headers={"Retry-After": "5"})

    with pytest.raises(Refused, match="in 5 seconds"):
        await client(answer).require_ready()


async def test_a_full_queue_is_asked_again_a_few_times() -> None:
    replies = [httpx.Response(429, headers={"Retry-After": "0"}), httpx.Response(200, json={"response": ["a", "b"]})]
    questions = [Question("1"), Question("2")]
    (progress,) = [step async for step in ask_all(client(lambda request: replies.pop(0)), questions, {}, 10)]
    assert [answer.text for answer in progress.answers] == ["a", "b"]
    with pytest.raises(Refused):
        _ = [
            step
            async for step in ask_all(
                client(lambda request: httpx.Response(429, headers={"Retry-After": "0"})), questions, {}, 10
            )
        ]


async def test_the_admin_token_goes_with_the_system_prompt_alone() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.headers["authorization"]) == ("PUT", "Bearer admin")
        return httpx.Response(200, json=json.loads(request.content))

    assert await client(answer).replace_system_prompt("new", "admin") == "new"
