"""A local hub that takes uploads from ModelScope's real client (modelscope-hub 0.5) as far as that one asks for.

GET  /openapi/v1/models/{id}                                 is there such a model?
POST /api/v1/models                                          make one
POST /api/v1/repos/models/{id}/info/lfs/objects/batch        which large files are missing, and where do they go?
PUT  /blobs/{sha256}                                         a large file
POST /api/v1/repos/models/{id}/commit/{revision}             small files with their content, large ones by their hash
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class UploadHub:
    """``with UploadHub("token") as hub: …``; afterwards ``hub.models["owner/name"]["config.json"]``."""

    token: str
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    broken: bool = False  # commits are refused, with the token in the answer as careless servers do
    seen: list[str] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> UploadHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def commit(self, model: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.broken:
            return 400, {"Code": 400, "Success": False, "Message": f"refused {self.token}"}
        for action in body["actions"]:
            if action["type"] == "lfs":
                content = self.blobs[action["sha256"]]
            else:
                content = base64.b64decode(action["content"])
            self.models[model][action["path"]] = content
        self.messages.append(body["commit_message"])
        return 200, {"Code": 200, "Success": True, "Data": {"oid": "0" * 40}}


class _Handler(BaseHTTPRequestHandler):
    hub: UploadHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        pass

    def _answer(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        self.hub.seen.append(f"{self.command} {path}")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, {"Code": 401, "Success": False, "Message": "who are you?"})
        elif self.command == "PUT":
            self._send(*self._blob(path.rpartition("/")[2], body))
        elif match := re.fullmatch(r"/(?:openapi|api)/v1/models/([^/]+/[^/]+)", path):
            self._send(*self._model(match[1]))
        elif path == "/api/v1/models":
            self._send(*self._made(json.loads(body)))
        elif match := re.fullmatch(r"/api/v1/repos/models/([^/]+/[^/]+)/info/lfs/objects/batch", path):
            self._send(*self._missing(json.loads(body)["objects"]))
        elif match := re.fullmatch(r"/api/v1/repos/models/([^/]+/[^/]+)/commit/master", path):
            self._send(*self.hub.commit(match[1], json.loads(body)))
        else:
            self._send(404, {"Code": 404, "Success": False, "Message": "no such path"})

    def _model(self, name: str) -> tuple[int, Any]:
        if name not in self.hub.models:
            return 404, {"Code": 404, "Success": False, "success": False, "Message": "no such model"}
        owner, _, short = name.partition("/")
        data = {"Path": owner, "Name": short, "id": name, "owner": owner, "name": short}
        return 200, {"Code": 200, "Success": True, "success": True, "Data": data, "data": data}

    def _made(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = f"{body['Path']}/{body['Name']}"
        if name in self.hub.models:
            return 400, {"Code": 10010101001, "Success": False, "Message": "the model exists"}
        self.hub.made.append(body)
        self.hub.models[name] = {}
        return 200, {"Code": 200, "Success": True, "Data": {"Path": body["Path"], "Name": body["Name"]}}

    def _missing(self, objects: list[dict[str, Any]]) -> tuple[int, Any]:
        answers = []
        for one in objects:
            upload = {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}}
            answers.append({**one, "actions": {} if one["oid"] in self.hub.blobs else upload})
        return 200, {"Code": 200, "Success": True, "Data": {"objects": answers}}

    def _blob(self, oid: str, content: bytes) -> tuple[int, Any]:
        if hashlib.sha256(content).hexdigest() != oid:
            return 400, {"Code": 400, "Success": False, "Message": "another file than announced"}
        self.hub.blobs[oid] = content
        return 200, {"Code": 200, "Success": True, "Data": {"oid": oid}}

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
