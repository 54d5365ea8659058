"""One Triton server over gRPC: a channel, one ModelStreamInfer call a request, errors translated."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from gateway.errors import BadValue, DeadlineExceeded, GatewayError, ModelFailed, UpstreamUnavailable
from gateway.tracing import CallTrace, untraced
from gateway.triton.wire import WireError, decode_info, encode_info_request

logger = logging.getLogger(__name__)

_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server takes pings more often than every five minutes for an attack, unless it sends data meanwhile. What
    # keepalive brings besides is TCP_USER_TIMEOUT: a host that vanished is noticed 20 s after something was sent.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Triton is back within seconds of a restart; gRPC's own back-off would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in fact the time-out of one attempt to connect
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # an http_proxy of the environment is not meant for Triton
)
_MODEL_CODES = ("INVALID_ARG", "UNAVAILABLE", "INTERNAL", "CANCELLED")
# What Triton itself answers while the model loads, when its stub process has died or while it stops.
_TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)


class TritonClient:
    """Requests to the Triton at ``url`` (``host:port``). Must be opened on the event loop that uses it."""

    def __init__(self, url: str, trace: CallTrace = untraced) -> None:
        self.url = url
        self._trace = trace
        self._channel: Any = None
        self._stream_infer: Any = None
        self._last_fault: tuple[Any, str] | None = None

    def open(self) -> None:
        """Make the channel; it connects when first used and reconnects by itself."""
        self._channel = grpc.aio.insecure_channel(self.url, options=_CHANNEL_OPTIONS)
        # Triton's method takes a stream of requests. On the wire a call with one request is the same as this one,
        # which sends request and end of stream together and costs a quarter less.
        self._stream_infer = self._channel.unary_stream(
            _STREAM_INFER,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def close(self) -> None:
        """Close the channel; calls that still run are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def responses(self, request: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Send one ModelInferRequest and yield each ModelInferResponse. Closing or cancelling stops the generation.

        Raises:
            BadValue: the model says that the request is at fault.
            ModelFailed: the model failed on this request.
            UpstreamUnavailable: Triton or its model is gone; the same request may succeed later.
            DeadlineExceeded: ``timeout_s`` passed.
        """
        with self._trace(self.url, request) as metadata:
            call = self._stream_infer(request, timeout=max(timeout_s, 0.0), metadata=metadata)
            try:
                async for message in call:
                    # Triton gives the code of such an error only to callers with the metadata `triton_grpc_error`, and
                    # 2.51 crashes when a stream that has it is cancelled. The model's own texts begin with the code's
                    # name.
                    if message.error_message:
                        raise self._translate(grpc.StatusCode.INTERNAL, message.error_message)
                    self._last_fault = None
                    yield message.infer_response
            except grpc.aio.AioRpcError as exc:
                raise self._translate(exc.code(), exc.details() or "") from exc
            finally:
                call.cancel()  # nothing happens to a call that has ended

    async def info(self, timeout_s: float) -> Mapping[str, Any]:
        """The model's status. Raises as :meth:`responses`."""
        responses = await self.all_responses(encode_info_request(), timeout_s)
        try:
            return decode_info(responses[0])
        except WireError as exc:
            raise ModelFailed("the model's status cannot be read") from exc

    async def all_responses(self, request: Any, timeout_s: float) -> list[Any]:
        """All responses of one request, at least one. Raises as :meth:`responses`.

        Reads to the end of the stream even where one response is enough: Triton logs an error about every stream that
        is dropped between its last response and its end.
        """
        async with aclosing(self.responses(request, timeout_s)) as responses:
            found = [response async for response in responses]
        if not found:
            raise UpstreamUnavailable("the model gave no answer")
        return found

    def _translate(self, code: Any, details: str) -> GatewayError:
        """Only texts of the model itself, which begin with a code's name, are passed on; Triton's own stay here."""
        name, separator, text = details.partition(": ")
        if separator and name in _MODEL_CODES:
            return error_of_model(name, text)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the model did not answer in time")
        # A Triton that is away answers each probe and every request in flight alike: one line is enough.
        level = logging.DEBUG if self._last_fault == (code, details) else logging.WARNING
        self._last_fault = (code, details)
        logger.log(level, "Triton at %s answered %s: %s", self.url, code.name, details)
        if code in _TRANSIENT_CODES:
            return UpstreamUnavailable("the model is not available")
        return ModelFailed("the model failed on this request")


def error_of_model(code: str, text: str) -> GatewayError:
    """The error for a code and text that the model itself gave, for a request or for one row of it."""
    if code == "INVALID_ARG":
        return BadValue(text)
    if code in ("UNAVAILABLE", "CANCELLED"):  # nobody but the model itself cancels while we still wait
        return UpstreamUnavailable("the model is not available")
    if code == "INTERNAL":
        return ModelFailed(text)
    return ModelFailed("the model failed on this request")
