"""What can go wrong on the way to an answer.

::

    WebError              a sentence in the reader's language: `sentence(language)`
    ├── Unreachable       nobody answers at the gateway's address
    ├── Interrupted       the connection broke, or went silent, in the middle
    ├── Refused           the gateway answered with an error
    └── BadUpload         a file that is not what the page asks for
"""

from __future__ import annotations

from webui.texts import Language, say


class WebError(Exception):
    """Something to be told to the person at the page. ``key`` names the sentence, ``values`` fill it."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key)
        self._key = key
        self._values = values

    def sentence(self, language: Language) -> str:
        """One sentence, to be shown as it is."""
        return say(language, self._key, **self._values)

    def __str__(self) -> str:
        return self.sentence("en")


class Unreachable(WebError):
    """No connection to the gateway."""

    def __init__(self, url: str) -> None:
        super().__init__("error.unreachable", url=url)


class Interrupted(WebError):
    """The answer ended before its end."""

    def __init__(self) -> None:
        super().__init__("error.interrupted")


class BadUpload(WebError):
    """The file cannot be used; the sentence says why."""


# The gateway's error types and statuses that deserve a sentence of their own; the type is looked up first.
_BY_TYPE = {
    "not_ready": "error.warming",
    "queue_full": "error.busy",
    "shutting_down": "error.stopping",
    "forbidden": "error.forbidden",
}
_BY_STATUS = {
    400: "error.bad_request",
    401: "error.unauthorized",
    403: "error.forbidden",
    413: "error.too_large",
    422: "error.bad_request",
    429: "error.busy",
    503: "error.warming",
    504: "error.deadline",
}


class Refused(WebError):
    """The gateway's own error, from its status, type and message. ``retry_after_s`` is its ``Retry-After``."""

    def __init__(self, status: int, kind: str = "", message: str = "", retry_after_s: int | None = None) -> None:
        key = _BY_TYPE.get(kind) or _BY_STATUS.get(status, "error.other")
        super().__init__(key, status=status, message=message or kind or "–", seconds=retry_after_s or 5)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after_s = retry_after_s
