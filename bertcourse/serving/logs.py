"""Logs as JSON lines on stderr, of this package, uvicorn and gunicorn alike; never with the texts that somebody sent.

Nobody waits for a log: lines go into a queue, and a thread writes them. What does not fit because nobody reads, or is not taken
because the disk is full or the reader is gone, is dropped and counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

LOGGERS = ("bertcourse.serving", "uvicorn.error", "gunicorn.error", "asyncio")
ROOM = 10_000  # lines that wait to be written
TOGETHER = 4_096  # bytes of one write: those of several processes do not mix in a pipe (PIPE_BUF)
GATHER = 0.005  # seconds that a line waits for others
FLUSH = 1.0  # seconds that the end of a process waits for its last lines


class Writer:
    """Writes lines to a file descriptor, in a thread that is started with the first of them."""

    def __init__(self, target: int | TextIO | None, room: int = ROOM) -> None:  # a descriptor, a stream in memory, or nothing
        self.target, self.room = target, room
        self.on_drop: Callable[[int], None] = lambda count: None
        self.reset()

    def reset(self) -> None:
        """Begin anew: a process that was forked has neither the thread nor a right to the lines of the other one."""
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._torn = False
        self._unsaid = 0  # lines that were dropped since the last that was written

    def put(self, line: str) -> None:
        """Take a line, or drop it; never waits, never raises."""
        with self._changed:
            if self.target is None or len(self._lines) >= self.room:
                return self._drop(1)
            self._lines.append(line.encode("utf-8", "backslashreplace") + b"\n")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH) -> bool:
        """Wait until all lines are written, but not longer; are they?"""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._busy, seconds)

    def _drop(self, count: int) -> None:
        self._unsaid += count
        with contextlib.suppress(Exception):  # a metric that cannot be counted is no reason to fail a request
            self.on_drop(count)

    def _work(self) -> None:
        while True:
            with self._changed:
                if is_idle := not self._lines:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._lines)
                    self._busy = True
            if is_idle:
                time.sleep(GATHER)  # one write for several lines
            with self._changed:
                batch = [self._lines.popleft()]
                size = len(batch[0])
                while self._lines and size + len(self._lines[0]) <= TOGETHER:
                    batch.append(self._lines.popleft())
                    size += len(batch[-1])
            self._write(batch)

    def _write(self, batch: list[bytes]) -> None:
        """Write some lines, after one that says how many are missing before them."""
        missing = self._unsaid
        report = [json_line("log_lines_dropped", logging.WARNING, lines=missing).encode() + b"\n"] if missing else []
        data = (b"\n" if self._torn else b"") + b"".join([*report, *batch])  # an end for a line of which only a part was taken
        written = write_all(self.target, data)
        self._torn = data[:written][-1:] not in (b"\n", b"") or self._torn and not written
        with self._changed:
            lost = min(len(batch), data[written:].count(b"\n"))
            if lost < len(batch):
                self._unsaid -= missing
            if lost:
                self._drop(lost)


def write_all(target: int | TextIO, data: bytes) -> int:
    """Write it, waiting where the other side is slow; how many bytes were taken before a fault."""
    if not isinstance(target, int):
        try:
            target.write(data.decode("utf-8", "replace"))
        except (OSError, ValueError):
            return 0
        return len(data)
    done = 0
    while done < len(data):
        try:
            done += os.write(target, data[done:])
        except BlockingIOError:  # somebody made it non-blocking
            with contextlib.suppress(OSError, AttributeError):  # Windows has no `poll`
                waiting = select.poll()
                waiting.register(target, select.POLLOUT)
                waiting.poll(1_000)
        except OSError:
            break
    return done


class Stream(io.TextIOBase):
    """In the place of `sys.stderr`: whatever else is printed there, such as a traceback, waits for nobody either."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer, self._rest = writer, ""

    def write(self, text: str) -> int:
        """Whole lines go to the writer, the rest stays until its end comes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._writer.put(line)
        return len(text)

    def fileno(self) -> int:
        """That of the writer. Raises `OSError`."""
        if not isinstance(self._writer.target, int):
            raise OSError("there is no file behind it")
        return self._writer.target

    def isatty(self) -> bool:
        """Is it a terminal?"""
        return isinstance(self._writer.target, int) and os.isatty(self._writer.target)

    def writable(self) -> bool:
        """It is."""
        return True


def places(trace: TracebackType | None, most: int = 6) -> list[str]:
    """Where an exception came through, without its message, which may hold a text."""
    return [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-most:]]


def json_line(event: str, level: int = logging.INFO, when: datetime | None = None, **more: Any) -> str:
    """Time, level, event, process, and what else is known, in one line; ASCII, so that nothing in it can move a terminal's cursor."""
    when = when or datetime.now(UTC)
    said = {"time": when.isoformat(timespec="milliseconds"), "level": logging.getLevelName(level).lower(), "event": event, "pid": os.getpid()}
    return json.dumps(said | more)


class Handler(logging.Handler):
    """A record as one line of JSON in the queue."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits, never raises."""
        try:
            more = getattr(record, "said", {})
            if record.exc_info and record.exc_info[0]:
                more = {"error": record.exc_info[0].__name__, "at": places(record.exc_info[2])} | more
            line = json_line(record.getMessage().strip(), record.levelno, datetime.fromtimestamp(record.created, UTC), **more)
        except Exception as error:
            line = json_line("log_record_broken", logging.ERROR, error=type(error).__name__)
        writer().put(line)


def target_of(stream: Any) -> Any:
    """The file descriptor behind a stream, the stream itself if it is in memory, None for none."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return stream


_writers: list[Writer] = []  # the process's only one, once there is one


def writer() -> Writer:
    """This process's writer, to the stderr that it had when it was first asked for."""
    if not _writers:
        _writers.append(Writer(target_of(sys.stderr)))
    return _writers[0]


def _after_fork() -> None:
    for one in _writers:
        one.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def nobody_waits() -> Iterator[None]:
    """While it lasts, nothing that is written to `sys.stderr` or logged can hold this process up or fail in it."""
    before = sys.stderr
    _writers[:] = [Writer(target_of(before))]
    sys.stderr = Stream(writer())
    set_up()
    try:
        yield
    finally:
        writer().flush()
        sys.stderr = before


def set_up() -> None:
    """Let all loggers write JSON lines: ours all of them, the servers' own only what is wrong."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Handler()], False
        logger.setLevel(logging.INFO if name == LOGGERS[0] else logging.WARNING)


def log(event: str, level: int = logging.INFO, **more: Any) -> None:
    """One line."""
    logging.getLogger(LOGGERS[0]).log(level, event, extra={"said": more})


def log_request(*, status: int, **more: Any) -> None:
    """One line for a request, without the detour over `logging`, which takes longer than a short text takes to tokenise."""
    writer().put(json_line("request", logging.INFO if status < 500 else logging.ERROR, status=status, **more))
