"""A local hub that speaks as much of ModelScope's and of Hugging Face's protocol as their real clients ask for.

ModelScope (client 0.5)                                     Hugging Face (client 2.4)
GET /api/v1/models/{id}/repo/files?Revision&Recursive       GET /api/models/{id}/revision/{revision}
GET /api/v1/models/{id}/repo?Revision&FilePath  (Range)     GET /api/models/{id}/tree/{commit}
                                                            HEAD, GET /{id}/resolve/{commit}/{file}  (Range)

The hub misbehaves on demand: it cuts a file's connection, holds a file back, sends other bytes than it lists, or asks
for a token (and repeats a wrong one in its answer, as careless servers do).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


@dataclass(frozen=True)
class Seen:
    """One request that reached the hub; ``file`` is empty for listings."""

    method: str
    model: str
    file: str
    range: str | None
    authorization: str | None


@dataclass
class ModelHub:
    """``with ModelHub({"owner/name": {"master": {"config.json": b"…"}}}) as hub: … hub.url``."""

    models: dict[str, dict[str, Files]]
    token: str | None = None
    cut_after: dict[str, int] = field(default_factory=dict)  # file -> bytes sent before the connection is dropped
    corrupt: set[str] = field(default_factory=set)  # files whose first byte is not what the list says
    held: dict[str, threading.Event] = field(default_factory=dict)  # file -> its second half waits for this
    seen: list[Seen] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> ModelHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for event in self.held.values():
            event.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The hub's address, for ``MODELSCOPE_ENDPOINT`` or ``HF_ENDPOINT``."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self, file: str) -> list[Seen]:
        """Return the GET requests for one file's content."""
        return [request for request in self.seen if request.file == file and request.method == "GET"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed in mid-download are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", url.path):
            self._modelscope(match[1], query["Revision"], query.get("FilePath", ""))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", url.path):
            self._hf_listing(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            self._content(match[1], self._hf_revision(match[1], match[2]), unquote(match[3]))
        else:
            self._json(HTTPStatus.NOT_FOUND, {"Message": f"no such page: {url.path}"})

    def _modelscope(self, model: str, revision: str, file: str) -> None:
        if file:
            self._content(model, revision, file)
            return
        self._remember(model, "")
        if self._is_refused():
            return
        files = self.hub.models.get(model, {}).get(revision)
        if files is None:
            what = "revision" if model in self.hub.models else "model"
            self._json(HTTPStatus.NOT_FOUND, {"Code": 10010205001, "Success": False, "Message": f"{what} not found"})
            return
        listed = [{"Path": p, "Type": "blob", "Size": len(c), "Sha256": _sha256(c)} for p, c in files.items()]
        self._json(HTTPStatus.OK, {"Code": 200, "Success": True, "Data": {"Files": listed}})

    def _hf_listing(self, model: str, kind: str, reference: str) -> None:
        self._remember(model, "")
        if self._is_refused():
            return
        revision = self._hf_revision(model, reference)
        files = self.hub.models.get(model, {}).get(revision)
        if files is None:
            code = "RevisionNotFound" if model in self.hub.models else "RepoNotFound"
            self._json(HTTPStatus.NOT_FOUND, {"error": code}, {"X-Error-Code": code})
        elif kind == "revision":
            siblings = [{"rfilename": p, "size": len(c), "blobId": _sha256(c)[:40]} for p, c in files.items()]
            for sibling, (file, content) in zip(siblings, files.items(), strict=True):
                if file.endswith(".safetensors"):  # only files in Git LFS are listed with a hash
                    sibling["lfs"] = {"size": len(content), "sha256": _sha256(content), "pointerSize": 134}
            self._json(HTTPStatus.OK, {"id": model, "sha": _commit(revision), "siblings": siblings})
        else:
            entries = [{"type": "file", "path": p, "size": len(c), "oid": _sha256(c)[:40]} for p, c in files.items()]
            self._json(HTTPStatus.OK, entries)

    def _hf_revision(self, model: str, reference: str) -> str:
        return next((r for r in self.hub.models.get(model, {}) if reference in {r, _commit(r)}), reference)

    def _content(self, model: str, revision: str, file: str) -> None:
        self._remember(model, file)
        content = self.hub.models.get(model, {}).get(revision, {}).get(file)
        if content is None:
            self._json(HTTPStatus.NOT_FOUND, {"Message": "file not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        etag = _sha256(content)
        if file in self.hub.corrupt:
            content = bytes([content[0] ^ 0xFF]) + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", _commit(revision))
        self.end_headers()
        if self.command == "GET":
            self._send(file, content, start)

    def _send(self, file: str, content: bytes, start: int) -> None:
        if file in self.hub.cut_after:
            self.wfile.write(content[start : self.hub.cut_after[file]])
            self.close_connection = True  # fewer bytes than announced: the client sees a dropped connection
            return
        if file in self.hub.held:
            middle = start + (len(content) - start) // 2
            self.wfile.write(content[start:middle])
            self.wfile.flush()
            self.hub.held[file].wait(timeout=60)
            start = middle
        self.wfile.write(content[start:])

    def _remember(self, model: str, file: str) -> None:
        sent = self.headers
        self.hub.seen.append(Seen(self.command, model, file, sent.get("Range"), sent.get("Authorization")))

    def _is_refused(self) -> bool:
        authorization = self.headers.get("Authorization")
        if self.hub.token is None or authorization == f"Bearer {self.hub.token}":
            return False
        self._json(HTTPStatus.FORBIDDEN, {"Code": 403, "Message": f"no access with {authorization}", "error": "no"})
        return True

    def _json(self, status: HTTPStatus, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _commit(revision: str) -> str:
    return hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest()
