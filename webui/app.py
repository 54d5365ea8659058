"""The page as a web application, closed against everything that is not on its own host."""

from __future__ import annotations

import os
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.client import GatewayClient
from webui.settings import WebSettings

# The second lock after fonts and scripts of one's own: a browser asks nobody else, whatever the page says.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
MAX_UPLOAD = "64mb"  # as much as the gateway takes in one request


class ContentPolicy:
    """Sends the policy with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, sent)


def create_app(settings: WebSettings) -> Any:
    """The application for a server to run."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import and later; also turns off the look for updates
    import gradio as gr
    from fastapi import FastAPI

    from webui.page import CSS, build_page, theme

    app = FastAPI(openapi_url=None)
    app.add_middleware(ContentPolicy)
    page = build_page(GatewayClient(settings))
    return gr.mount_gradio_app(
        app, page, path="/", theme=theme(), css=CSS, footer_links=[], max_file_size=MAX_UPLOAD, ssr_mode=False
    )
