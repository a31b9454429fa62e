"""A Hub on this machine: enough of its interface for the library to list, fetch and go on with a model's files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1" * 40


@dataclass
class Hub:
    """What it has, what it refuses, and what it was asked."""

    models: dict[str, Path] = field(default_factory=dict[str, Path])
    gated: set[str] = field(default_factory=set[str])
    breaks_at: str = ""
    """A file whose body breaks off in its middle."""
    fetched: list[str] = field(default_factory=list[str])
    """Paths of files that were sent, with the byte they were sent from."""
    url: str = ""


class _Answer(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        asked = path.removeprefix("api/models/")
        name = "/".join(asked.split("/")[:2])
        if name not in self.hub.models:
            return self.refuse(404, "RepoNotFound")
        parts = asked.split("/")
        revision = parts[3] if len(parts) > 3 else "main"
        if revision not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        folder = self.hub.models[name]
        if path.startswith("api/"):
            return self.listing(name, folder, parts)
        if name in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        return self.file("/".join(parts[4:]), folder)

    def listing(self, name: str, folder: Path, parts: list[str]) -> None:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        rows = [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in files]
        if len(parts) > 2 and parts[2] == "tree":
            return self.send(
                json.dumps([{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in rows]).encode(), {}
            )
        siblings = [{"rfilename": n, "size": s, "blobId": "0" * 40} for n, s in rows]
        return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), {})

    def file(self, inside: str, folder: Path) -> None:
        place = folder / inside
        if not place.is_file():
            return self.refuse(404, "EntryNotFound")
        body = place.read_bytes()
        tag = hashlib.sha256(body).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0] or 0)
        if self.command == "GET":
            self.hub.fetched.append(f"{inside}@{start}")
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.send(body[start:], headers, 206 if start else 200, breaks=inside == self.hub.breaks_at)

    def send(self, body: bytes, headers: dict[str, str], status: int = 200, *, breaks: bool = False) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if breaks else body)


@contextmanager
def running() -> Generator[Hub]:
    """A Hub that answers at ``hub.url``."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
