"""Logs as JSON lines on stderr, of this package, uvicorn and gunicorn alike; never with the texts that somebody sent."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

LOGGERS = ("bertcourse.serving", "uvicorn.error", "gunicorn.error")


def places(trace: TracebackType | None, most: int = 6) -> list[str]:
    """Where an exception came through, without its message, which may hold a text."""
    return [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-most:]]


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event, process, and what else is known."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {"time": when, "level": record.levelname.lower(), "event": record.getMessage().strip(), "pid": record.process}
        if record.exc_info and record.exc_info[0]:
            said |= {"error": record.exc_info[0].__name__, "at": places(record.exc_info[2])}
        return json.dumps(said | getattr(record, "said", {}), ensure_ascii=False)


def set_up() -> None:
    """Let all three loggers write JSON lines: ours all of them, the servers' own only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == LOGGERS[0] else logging.WARNING)


def log(event: str, level: int = logging.INFO, **more: Any) -> None:
    """One line."""
    logging.getLogger(LOGGERS[0]).log(level, event, extra={"said": more})


def log_request(*, status: int, **more: Any) -> None:
    """One line for a request, without the detour over `logging`, which takes longer than a short text takes to tokenise."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = {"time": when, "level": "info" if status < 500 else "error", "event": "request", "pid": os.getpid(),
            "status": status, **more}
    sys.stderr.write(json.dumps(said) + "\n")
