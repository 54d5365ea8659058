"""What the page is told by its environment. Read once, passed on. Standard library only: the checks read it too."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


class SettingsError(ValueError):
    """A variable has a value that is not allowed: one line with variable, value and what is allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={' '.join(value.split())}: {allowed}")


@dataclass(frozen=True)
class WebSettings:
    """Where the page listens and which gateway it asks."""

    address: str = LOOPBACK
    port: int = 7860
    gateway_url: str = f"http://{LOOPBACK}:8000"
    """Without a slash at the end."""
    api_key: str | None = field(default=None, repr=False)
    """The gateway's API_KEY: whoever reaches the page chats with it."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> WebSettings:
        """Read the variables, blank ones as unset.

        Raises:
            SettingsError: naming the variable, its value and what is allowed.
        """
        gateway_port = _port(environ, "GATEWAY_PORT", 8000)
        return cls(
            address=_address(environ, "WEBUI_ADDRESS", LOOPBACK),
            port=_port(environ, "WEBUI_PORT", 7860),
            gateway_url=_url(environ, "WEBUI_GATEWAY_URL", f"http://{LOOPBACK}:{gateway_port}"),
            api_key=_text(environ, "API_KEY"),
        )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _address(environ: Mapping[str, str], name: str, default: str) -> str:
    text = _text(environ, name) or default
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise SettingsError(name, text, "an IP address") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise SettingsError(name, text, "a TCP port, 1 to 65535")
    return int(text)


def _url(environ: Mapping[str, str], name: str, default: str) -> str:
    text = _text(environ, name) or default
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(name, text, "an address that begins with http:// or https://")
    return text.rstrip("/")
