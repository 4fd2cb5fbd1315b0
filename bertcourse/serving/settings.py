"""What a service is started with. Each limit is enforced in one place and named in the answer that refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]  # of every answer
TOKEN = "BERTCOURSE_TOKEN"  # environment variable: who asks must know it
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")  # names of this machine that no other one is reached by


def read_token(environment: Mapping[str, str] = os.environ) -> str:
    """The token that callers must know, "" for none; blanks and a line end around it, as a file has them, do not count.

    `ModelError` for one that no header can carry.
    """
    token = environment.get(TOKEN, "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        from bertcourse.runtime import ModelError  # numpy; `bertcourse serve --help` does without

        raise ModelError(f"{TOKEN} holds a blank, a control character or a letter that is not ASCII: choose one of printable ASCII characters",
                         f"{TOKEN} 里有空白、控制字符或非 ASCII 字符：请只用可打印的 ASCII 字符")
    return token


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; fixed when the service starts."""

    folder: str  # of an exported model
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1  # processes, each with a model of its own
    threads: int = 1  # of a model: one for each core that a worker may use
    runtime: str = "ort"
    provider: str = "cpu"  # what runs the graph, of `bertcourse.runtime.PROVIDERS`
    max_batch: int = 16  # inputs in one forward pass
    max_wait_ms: float = 4.0  # that a batch waits for others, while others are to be expected
    max_queue: int = 512  # inputs that wait, in each worker; more are refused with 429
    timeout: float = 10.0  # seconds until an answer; then 503, and the work is dropped
    max_texts: int = 64  # in one request
    max_chars: int = 10_000  # of a text; the rest is cut off, and the answer says so
    max_windows: int = 256  # inputs that one request may make: long texts of NER and QA are read in windows
    max_pieces: int = 65_536  # of all windows of one request
    max_body: int = 2_000_000  # bytes of a request
    read_timeout: float = 10.0  # seconds for a request to arrive in
    keep_alive: float = 65.0  # seconds that an idle connection stays open: longer than a load balancer keeps it
    drain: float = 1.0  # seconds that idle connections get at the end
    log: str = "requests"  # or "errors": which requests are logged

    @property
    def name(self) -> str:
        """The folder's own name: paths stay inside."""
        return Path(self.folder).resolve().name
