"""OpenAI's API on the real service, judged by the official client; and ``/predict`` streamed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

QUESTION: Any = [{"role": "user", "content": "什么是线程块？"}]
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    (model,) = client.models.list()
    return model.id


def chat(client: openai.OpenAI, model: str, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "messages": QUESTION, "temperature": 0, **fields})


def test_chat(client: openai.OpenAI, model: str) -> None:
    cut = chat(client, model, max_tokens=3)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 3
    assert cut.usage.prompt_tokens > 3
    whole = chat(client, model, max_tokens=12)
    assert whole.choices[0].message.content.startswith(cut.choices[0].message.content)


def test_a_stream_says_the_same(client: openai.OpenAI, model: str) -> None:
    whole = chat(client, model, max_tokens=12)
    chunks = list(chat(client, model, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 4


def test_samples_with_a_seed(client: openai.OpenAI, model: str) -> None:
    first, second = (chat(client, model, max_tokens=8, n=3, temperature=1.5, seed=7) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) > 1
    assert len(chat(client, model, max_tokens=4, n=2).choices) == 2  # greedy too


def test_stop_logit_bias_and_penalties(client: openai.OpenAI, model: str) -> None:
    text = chat(client, model, max_tokens=12).choices[0].message.content
    stopped = chat(client, model, max_tokens=12, stop=[text[2]]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (text[: text.index(text[2])], "stop")
    biased: Any = client.completions.create(
        model=model, prompt="a", max_tokens=4, temperature=0, logit_bias={"100": 100}, logprobs=0
    )
    assert len(set(biased.choices[0].logprobs.tokens)) == 1
    chat(client, model, max_tokens=4, presence_penalty=1, frequency_penalty=1)


def test_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = chat(client, model, max_tokens=4, logprobs=True, top_logprobs=3).choices[0]
    assert len(answer.logprobs.content) == 4
    for token in answer.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert math.isfinite(token.logprob)


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_response_format(client: openai.OpenAI, model: str, kind: str) -> None:
    wanted: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        wanted["json_schema"] = {"name": "answer", "schema": SCHEMA, "strict": True}
    answer = chat(client, model, max_tokens=200, response_format=wanted).choices[0]
    if answer.finish_reason == "stop":
        value = json.loads(answer.message.content)
        assert isinstance(value, dict)
        if kind == "json_schema":
            assert isinstance(value["answer"], int)
    else:
        assert answer.message.content.lstrip().startswith("{")


def test_completions(client: openai.OpenAI, model: str) -> None:
    texts = client.completions.create(model=model, prompt=["线程块是", "a"], max_tokens=4, temperature=0, echo=True)
    assert [choice.text[:1] for choice in texts.choices] == ["线", "a"]
    ids = client.completions.create(model=model, prompt=[[100, 101], [102]], max_tokens=4, temperature=0)
    assert len(ids.choices) == 2
    assert ids.usage is not None
    assert ids.usage.prompt_tokens == 3


def test_errors(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.completions.create(model=model, prompt="a b c d e " * 20_000)
    with pytest.raises(openai.BadRequestError, match="tools"):
        chat(client, model, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(openai.NotFoundError):
        chat(client, "no-such-model")
    with pytest.raises(openai.BadRequestError, match="tokens"):
        list(client.completions.create(model=model, prompt="a b c d e " * 20_000, stream=True))


def test_without_a_limit_an_answer_ends_by_itself_or_where_the_model_does(client: openai.OpenAI, model: str) -> None:
    stream = chat(client, model, stream=True)
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()


def test_predict_streamed_is_predict(stack: Stack) -> None:
    body = {"prompt": "什么是线程块？"}
    whole = stack.predict(body["prompt"])
    answer = httpx.post(f"{stack.url}/predict", json=body, headers={"Accept": "text/event-stream"}, timeout=120)
    *deltas, final = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]
    assert final["response"] == whole == "".join(event["delta"] for event in deltas)
    assert final["finish_reason"] in {"stop", "length"}
    assert len(deltas) > 1
