"""A Hugging Face hub on loopback: enough of its HTTP interface for `huggingface_hub`, `transformers` and `datasets`.

    with StubHub({"models/ann/bert": {"config.json": b"{}"}, "datasets/ann/data@refs/convert/parquet": {...}}) as hub:
        subprocess.run([...], env=hub.environment(tmp_path))  # HF_ENDPOINT is read when huggingface_hub is imported

`hub.requests` lists what was asked. `hub.fault` breaks every answer whose path matches: see `Fault`. A test that wants
"connection refused" closes the hub and goes on using its address.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
KEPT = re.compile(r"PATH|LANG|LC_.*|TMPDIR|OMP_.*|SYSTEMROOT|BERTCOURSE_DATA", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """How an answer goes wrong."""

    path: str = ""  # regular expression, searched in the request's path; "" is all of them
    status: int = 0  # answer with this status
    code: str = ""  # X-Error-Code: what the hub says beside the status
    delay: float = 0.0  # seconds of silence first
    cut: int = -1  # close the connection after so many bytes of the body, announced in full


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository on one branch."""

    files: Mapping[str, bytes]

    @property
    def commit(self) -> str:
        """40 hexadecimal digits, the same for the same files."""
        digest = hashlib.sha1()
        for path, data in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + hashlib.sha1(data).digest())
        return digest.hexdigest()

    def tree(self, folder: str, recursive: bool) -> list[dict]:
        """What lies in a folder, as the hub lists it."""
        under = folder + "/" if folder else ""
        below = [path for path in sorted(self.files) if path.startswith(under)]
        folders = {under + path.removeprefix(under).rpartition("/")[0] for path in below} - {under}
        if not recursive:
            below = [path for path in below if "/" not in path.removeprefix(under)]
            folders = {under + name.removeprefix(under).partition("/")[0] for name in folders}
        listed = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        return listed + [self.entry(path) for path in below]

    def entry(self, path: str) -> dict:
        """A file of the listing; binary ones lie in large file storage."""
        data = self.files[path]
        listed = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if path.endswith((".safetensors", ".parquet", ".bin")):
            listed["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return listed

    def etag(self, path: str) -> str:
        """As the hub names the content: SHA-256 in large file storage, else git's blob id (any hash will do)."""
        entry = self.entry(path)
        return entry.get("lfs", entry)["oid"]


class StubHub:
    """The hub; a context manager that serves while it is open."""

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        """`repos`: "models/owner/name" or "datasets/owner/name", optionally "@branch" → path → content."""
        self.snapshots: dict[tuple[str, str], Snapshot] = {}  # (repository, branch or commit)
        for name, files in repos.items():
            repo, _, branch = name.partition("@")
            snapshot = Snapshot(dict(files))
            self.snapshots[repo, branch or "main"] = self.snapshots[repo, snapshot.commit] = snapshot
        self.requests: list[str] = []
        self.fault: Fault | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> StubHub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """A user's environment whose hub this is: an empty cache under `home`, no token, no proxy."""
        kept = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
        return kept | {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HOME": str(home), "USERPROFILE": str(home),
                       "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
                       "LC_ALL": "C.UTF-8"} | more  # fmt: skip

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Answer with this fault meanwhile."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None


def handler_for(hub: StubHub) -> type[BaseHTTPRequestHandler]:
    """The request handler of a hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            """Find what is asked for and send it, or what the fault makes of it."""
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(f"{self.command} {unquote(path)}")
            fault = hub.fault if hub.fault and re.search(hub.fault.path, unquote(path)) else None
            if fault and fault.delay:
                time.sleep(fault.delay)
            if fault and fault.status:
                return self.refuse(fault.status, fault.code)
            if found := API.fullmatch(path):
                return self.api(*found.groups(), body=body, cut=fault.cut if fault else -1)
            if found := RESOLVE.fullmatch(path):
                return self.file(*found.groups(), cut=fault.cut if fault else -1)
            self.refuse(404)

        def api(self, kind, name, verb, revision, under, *, body, cut) -> None:
            """What is known of a repository: its commit, its files, some of its files."""
            snapshot = hub.snapshots.get((f"{kind}/{name}", unquote(revision or "main")))
            if snapshot is None:
                known = any(repo == f"{kind}/{name}" for repo, _ in hub.snapshots)
                return self.refuse(404, "RevisionNotFound" if known else "RepoNotFound")
            if verb == "tree":
                recursive = "recursive=true" in urlsplit(self.path).query.lower()
                listed = snapshot.tree(unquote(under or ""), recursive)
                return self.send(json.dumps(listed).encode(), cut=cut) if listed else self.refuse(404, "EntryNotFound")
            if verb == "paths-info":
                wanted = json.loads(body)["paths"]
                return self.send(json.dumps([snapshot.entry(p) for p in wanted if p in snapshot.files]).encode())
            siblings = [{"rfilename": path} for path in sorted(snapshot.files)]
            about = {"id": name, "sha": snapshot.commit, "siblings": siblings, "private": False, "gated": False,
                     "disabled": False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            self.send(json.dumps(about).encode())

        def file(self, datasets, name, revision, path, *, cut) -> None:
            """A file's content, or a part of it."""
            repo, path = f"{'datasets' if datasets else 'models'}/{name}", unquote(path)
            snapshot = hub.snapshots.get((repo, unquote(revision)))
            if snapshot is None:
                return self.refuse(404, "RevisionNotFound" if (repo, "main") in hub.snapshots else "RepoNotFound")
            if path not in snapshot.files:
                return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": snapshot.commit})
            headers = {"X-Repo-Commit": snapshot.commit, "ETag": f'"{snapshot.etag(path)}"', "Accept-Ranges": "bytes"}
            data, status = snapshot.files[path], 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data, status = data[start : end + 1], 206
            self.send(data, status, headers, cut)

        def send(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None, cut: int = -1) -> None:
            """An answer, possibly cut short."""
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self.wfile.write(data if cut < 0 else data[:cut])
            except ConnectionError:  # the client has gone
                self.close_connection = True
            if 0 <= cut < len(data):
                self.close_connection = True

        def refuse(self, status: int, code: str = "", headers: Mapping[str, str] | None = None) -> None:
            """An error, with the hub's name for it."""
            self.send(b'{"error":"no"}', status, dict(headers or {}) | ({"X-Error-Code": code} if code else {}))

    return Handler
