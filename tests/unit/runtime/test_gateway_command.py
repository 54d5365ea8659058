"""What the gateway is told by the launcher."""

from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings
from runtime.gateway_command import gateway_variables
from runtime.settings import RuntimeSettings


@pytest.mark.parametrize(
    "environ,url",
    [
        ({}, "127.0.0.1:8001"),
        ({"TRITON_GRPC_PORT": "9001", "TRITON_URL": " "}, "127.0.0.1:9001"),
        ({"TRITON_GRPC_ADDRESS": "10.0.0.5"}, "10.0.0.5:8001"),
        ({"TRITON_GRPC_ADDRESS": "0.0.0.0"}, "127.0.0.1:8001"),
        ({"TRITON_GRPC_ADDRESS": "::"}, "[::1]:8001"),
        ({"TRITON_GRPC_ADDRESS": "10.0.0.5", "TRITON_URL": "other:1"}, "other:1"),
    ],
)
def test_the_gateway_asks_triton_where_it_listens(environ: dict[str, str], url: str) -> None:
    told = {**environ, **gateway_variables(RuntimeSettings.from_env(environ), environ)}
    assert GatewaySettings.from_env(told).triton_urls == (url,)
