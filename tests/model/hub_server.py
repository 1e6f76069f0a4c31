"""A hub on 127.0.0.1: what huggingface_hub asks of the real one for listing and getting a repository's
files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Serves the folders under `root` as repositories `owner/name`. Large files are redirected to another
    address, as the real hub hands them to its CDN."""

    LARGE = 20_000

    def __init__(self, root: Path):
        self.root = root
        self.licences: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers (lower case) of every request, the CDN's under `cdn:`."""
        self.token: str | None = None
        """The token without which nothing is there, as for private repositories."""
        self.gated = False
        self.cut_after: dict[str, list[int]] = {}
        """By file name: bytes after which a transfer breaks off, one for each of the next transfers."""
        self.stall_after: dict[str, int] = {}
        """By file name: bytes after which a transfer stands still until the other side leaves."""
        self.spoiled: set[str] = set()
        """Names of files that arrive with a byte changed."""
        self._servers = [
            ThreadingHTTPServer(("127.0.0.1", 0), self._handler(prefix)) for prefix in ("", "cdn:")
        ]
        self.endpoint, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    @contextlib.contextmanager
    def running(self) -> Iterator[Hub]:
        threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in self._servers
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server in self._servers:
                server.shutdown()
                server.server_close()

    def ranges(self, name: str) -> list[str | None]:
        """The byte ranges that were asked for of a file, None for all of it, in order; of the CDN where it is
        there."""
        asked = [(path, headers.get("range")) for method, path, headers in self.requests if method == "GET"]
        return [asked_range for path, asked_range in asked if path.endswith(f"{name}?cdn") or
                (path.endswith(f"/{name}") and not self._is_large(path))]  # fmt: skip

    def _is_large(self, path: str) -> bool:
        file = self._file(urlsplit(path).path)
        return file is not None and file.stat().st_size > self.LARGE

    def _file(self, path: str) -> Path | None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", unquote(path))
        file = self.root / match[1] / match[2] if match else None
        return file if file is not None and file.is_file() else None

    def _description(self, repository: str) -> dict:
        siblings = []
        for file in sorted((self.root / repository).rglob("*")):
            if file.is_file():
                content = file.read_bytes()
                entry = {
                    "rfilename": file.relative_to(self.root / repository).as_posix(),
                    "size": len(content),
                }
                entry["blobId"] = git_blob_id(content)
                if len(content) > self.LARGE:
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                siblings.append(entry)
        card = {"license": self.licences[repository]} if repository in self.licences else {}
        return {"id": repository, "sha": REVISION, "siblings": siblings, "cardData": card, "private": False}

    def _handler(hub, prefix: str) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args) -> None:
                pass

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                hub.requests.append(("GET", prefix + self.path, headers))
                if not prefix and hub.token and headers.get("authorization") != f"Bearer {hub.token}":
                    return self._refuse(401, "RepoNotFound", "Repository not found")
                if not prefix and hub.gated:
                    return self._refuse(403, "GatedRepo", "Access to this model is restricted")
                path = urlsplit(self.path).path
                if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
                    if not (hub.root / match[1]).is_dir():
                        return self._refuse(404, "RepoNotFound", "Repository not found")
                    body = json.dumps(hub._description(match[1])).encode()
                    return self._send(200, body, {"Content-Type": "application/json"})
                file = hub._file(path)
                if file is None:
                    return self._refuse(404, "EntryNotFound", "Entry not found")
                if not prefix and hub._is_large(path):
                    return self._send(302, b"", {"Location": f"{hub.cdn}{self.path}?cdn"})
                self._send_file(file, headers.get("range"))

            def _refuse(self, status: int, code: str, message: str) -> None:
                self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _send_file(self, file: Path, asked_range: str | None) -> None:
                content = bytearray(file.read_bytes())
                if file.name in hub.spoiled:
                    content[len(content) // 2] ^= 1
                start = int(re.fullmatch(r"bytes=(\d+)-", asked_range)[1]) if asked_range else 0
                self.send_response(206 if asked_range else 200)
                self.send_header("Content-Length", str(len(content) - start))
                if asked_range:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                cuts = hub.cut_after.get(file.name)
                stall = hub.stall_after.get(file.name)
                if cuts:
                    self.wfile.write(content[start : start + cuts.pop(0)])
                    self.close_connection = True
                elif stall is not None:
                    self.wfile.write(content[start : start + stall])
                    self.wfile.flush()
                    with contextlib.suppress(ConnectionError):
                        self.rfile.read(1)  # until the other side leaves
                    self.close_connection = True
                else:
                    self.wfile.write(content[start:])

        return Handler


def environment(hub: Hub, **more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "POSEANYTHING_"))
    }
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
    return kept | settings | {"HOME": "/nonexistent", "NO_PROXY": "127.0.0.1"} | more


def weights(hub: Hub, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess:
    """The weights command as a user runs it, in a process of its own."""
    command = [sys.executable, "-m", "inference_server", "weights", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment(hub, **more), timeout=240
    )
