"""Connections: uvicorn serves, with limits on how a request arrives; several workers share what comes in."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import logging
import mmap
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bertcourse.serving.inputs import LONGEST_HEAD, Problem, head_too_large, problem
from bertcourse.serving.logs import log
from bertcourse.serving.settings import HEADERS, Settings

if TYPE_CHECKING:
    from bertcourse.serving.web import Edge, Service

PART = 4_096  # bytes that are given to the parser at a time
# Linux, asm-generic/socket.h and linux/filter.h: of a TCP header, drop it if of the flags SYN and ACK (byte 13) only SYN is set.
ATTACH_FILTER, DETACH_FILTER = 26, 27
DROP_SYN = b"".join(struct.pack("HBBI", *step) for step in [
    (0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)])


class Connection(HttpToolsProtocol):
    """A connection that has to deliver a request in time and with a head of a sensible size."""

    read_timeout = 10.0  # a class of its own is made with the settings' and the service
    service: Service

    def connection_made(self, transport: Any) -> None:
        """A client has come: it may not just sit there."""
        super().connection_made(transport)
        self._refused = self._upgrading = self._half_closed = False
        self._last_words: Callable[[], None] | None = None  # a refusal that has to wait for the answers before it
        self._head = 0  # bytes since the request began, -1 when its head is complete
        self._limit: asyncio.TimerHandle | None = None
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request; in parts, because the parser does not say where in them a head begins."""
        self._unset_keepalive_if_required()
        for begin in range(0, len(data), PART):
            part = data[begin:begin + PART]
            if self._refused or self.transport.is_closing():
                return
            if self._head >= 0:
                self._head += len(part)
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserError:
                self.send_400_response("")
            except httptools.HttpParserUpgrade as stop:
                return self._ignore_upgrade(data[begin + stop.args[0]:])
            if self._head > LONGEST_HEAD and not self._refused:  # and there is no end of it in sight
                self.refuse(head_too_large())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request that asks for another protocol as one that does not (RFC 9110, 7.8): its body is still to come.

        The parser takes such a request for complete after its head and everything behind it for the other protocol. uvicorn would
        then lose the body, and read one that comes in a second packet as the next request.
        """
        self._upgrading = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            return self.send_400_response("")
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token.strip() for token in value.split(b",") if token.strip().lower() not in (b"upgrade", b"http2-settings")]
                value = b", ".join(kept) or b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                head.append(b"%s: %s\r\n" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self._head = 0
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def eof_received(self) -> bool:
        """The client sends nothing more. Whoever has asked still gets an answer; true keeps the connection open until then.

        A client that hangs up looks the same: by `hung_up` in the scope its requests wait for those of the others.
        """
        self._half_closed = True
        if self._last_words or self._drop_incomplete():
            return True
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def on_response_complete(self) -> None:
        """An answer is written; was it the last one?"""
        last = not self.pipeline
        super().on_response_complete()
        if last and self._last_words:
            self._last_words()
        elif last and self._half_closed:
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["hung_up"] = lambda: self._half_closed
        self._start_clock()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head = -1
        self._upgrading = self.parser.should_upgrade()
        if self._refused or self._upgrading:
            return
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > LONGEST_HEAD:
            self.refuse(head_too_large())
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there."""
        if self._upgrading or self._refused:
            return
        self._stop_clock()
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self.refuse(problem("bad_request", "this is no HTTP request that can be read: send HTTP/1.1"))

    def refuse(self, fault: Problem) -> None:
        """Answer without the application, after the answers that are on their way, and close."""
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._drop_incomplete() or not cycle.more_body:
                self._last_words = partial(self._say, fault)
                return
            cycle.scope["refused"] = True  # this is the answer to it
            cycle.disconnected = True
            cycle.message_event.set()  # the application need not wait for its body
        self._say(fault)

    def _drop_incomplete(self) -> bool:
        """Forget a request that waits behind another one and will never be complete; is there one?"""
        if not (self.pipeline and self.pipeline[0][0] is self.cycle and self.cycle.more_body):
            return False
        self.pipeline.popleft()
        return True

    def _say(self, fault: Problem) -> None:
        """Write a refusal; the connection ends at once for writing, and for reading when the client has read it."""
        self._last_words = None
        if self.transport.is_closing():
            return
        known = secrets.token_hex(8)
        body = json.dumps(fault.content()).encode()
        lines = [f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}", "content-type: application/json", f"content-length: {len(body)}",
                 "connection: close", f"x-request-id: {known}", *(f"{name.decode()}: {value.decode()}" for name, value in HEADERS)]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if self._half_closed:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._unset_keepalive_if_required()
            self._start_clock()
        self.service.metrics.errors.labels(fault.code).inc()
        self.service.record(known, "unknown", fault.status, 0.0, code=fault.code)

    def _start_clock(self) -> None:
        self._stop_clock()
        # Twice: a body that is slow is refused in words by the application, which has the same time and starts later.
        self._limit = self.loop.call_later(2 * self.read_timeout, self._too_slow)

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class Shares:
    """How many connections each worker has, in memory that all of them see.

    Whoever wakes first would else take all connections that wait, and a keep-alive connection stays where it is.
    """

    ABSENT = 2**31 - 1

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("i")
        self._slots: dict[Any, int] = {}
        for slot in range(workers):
            self._counts[slot] = self.ABSENT

    def enter(self, worker: Any) -> int:
        """A slot for a worker, in the process that starts it; it counts when it is ready."""
        self._slots[worker] = slot = min({*range(len(self._counts))} - {*self._slots.values()}, default=0)
        self._counts[slot] = self.ABSENT
        return slot

    def is_ready(self, worker: Any) -> bool:
        """Does a worker accept connections?"""
        return self._counts[self._slots[worker]] != self.ABSENT

    def leave(self, worker: Any) -> None:
        """That worker is gone."""
        self._counts[self._slots.pop(worker)] = self.ABSENT

    def set(self, slot: int, count: int) -> None:
        """A worker says how many it has."""
        self._counts[slot] = count

    def least(self) -> int:
        """Of all workers, the fewest connections."""
        return min(self._counts)


def keep_out(listener: socket.socket) -> None:
    """Let no new connection begin, where the system can (Linux); those that have begun can be accepted.

    A connection that begins between the last `accept` and `close` would else be reset, its request lost. A client's first packet is
    dropped: it asks again after a second, and finds the port closed.
    """
    if sys.platform == "linux":
        steps = ctypes.create_string_buffer(DROP_SYN, len(DROP_SYN))
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", len(DROP_SYN) // 8, ctypes.addressof(steps)))


def let_in(listener: socket.socket) -> None:
    """Undo `keep_out`."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # there is no filter
            listener.setsockopt(socket.SOL_SOCKET, DETACH_FILTER, 0)


class Door:
    """Accepts connections, one at a time, and leaves one to a worker that has fewer, if it takes it at once."""

    POLITE, EXHAUSTED = 0.005, 0.2  # seconds to wait: for another worker, for a file descriptor

    def __init__(self, listeners: Sequence[socket.socket], make: Callable[[], asyncio.Protocol], connections: set, shares: Shares | None,
                 slot: int) -> None:
        self.listeners, self._make, self._connections, self._shares, self._slot = listeners, make, connections, shares, slot
        self._loop, self._tasks, self._closing = asyncio.get_running_loop(), set(), False
        self._ahead()  # from now on the others know of it
        for listener in listeners:
            let_in(listener)  # the worker that was here before may have thought itself the last
            listener.setblocking(False)
            self._loop.add_reader(listener, self._knock, listener)

    def _ahead(self) -> int:
        """How many connections more than the worker with the fewest."""
        if not self._shares:
            return 0
        count = len(self._connections) + len(self._tasks)
        self._shares.set(self._slot, count)
        return count - self._shares.least()

    def _knock(self, listener: socket.socket) -> None:
        if self._ahead() > 0:
            self._wait(listener, self.POLITE)
        else:
            self._accept(listener)

    def _wait(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._open_again, listener)

    def _open_again(self, listener: socket.socket) -> None:
        if self._closing:
            return
        self._loop.add_reader(listener, self._knock, listener)
        for _ in range(max(1, self._ahead())):  # the further the others are behind, the less it is worth to wait for them
            if not self._accept(listener):
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Take one connection, if there is one."""
        try:
            accepted, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log("too_many_connections", logging.ERROR, error=error.strerror)
                self._wait(listener, self.EXHAUSTED)
            return False  # or another worker was faster
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Take whoever has come, then shut."""
        self._closing = True
        if self._shares:
            self._shares.set(self._slot, Shares.ABSENT)
        is_last = not self._shares or self._shares.least() == Shares.ABSENT
        for listener in self.listeners:
            self._loop.remove_reader(listener)
            if is_last:
                keep_out(listener)
            while self._accept(listener):
                await asyncio.sleep(0)
            listener.close()
        while self._tasks:
            await asyncio.sleep(0)


class Server(uvicorn.Server):
    """uvicorn, with a door of its own and a slower end: whoever is connected gets an answer, and the news that the connection closes."""

    def __init__(self, settings: Settings, app: Edge, shares: Shares | None = None, slot: int = 0, **more: Any) -> None:
        self.settings, self.service, self.shares, self.slot = settings, app.service, shares, slot
        self.door: Door | None = None
        self.protocol = type("Connection", (Connection,), {"read_timeout": settings.read_timeout, "service": app.service})
        super().__init__(uvicorn.Config(
            app, http=self.protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False, proxy_headers=False,
            timeout_keep_alive=settings.keep_alive, timeout_graceful_shutdown=int(settings.timeout + settings.read_timeout) + 1, **more))

    async def startup(self, sockets: Sequence[socket.socket]) -> None:
        """Start the application, then accept."""
        if os.name == "nt":  # whose event loop cannot watch a socket, and where there are no other workers
            await super().startup([*sockets])
            return
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return

        def connection() -> asyncio.Protocol:
            return self.protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        self.servers: list[Any] = []
        self.door = Door(sockets, connection, self.server_state.connections, self.shares, self.slot)
        self.started = True

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Stop to accept, let idle connections send what is on its way, then finish."""
        if self.door:
            await self.door.close()
        self.service.draining = True  # each answer now closes its connection
        end = time.monotonic() + self.settings.drain
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(None)


def listen(settings: Settings) -> socket.socket:
    """The socket, bound and listening. Raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":  # where it would let two services share a port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(2048)
    except OSError:
        made.close()
        raise
    return made


def make_app(settings: Settings) -> Edge:
    """The application, its model loaded. Raises `ModelError`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core for each worker
    from bertcourse.models.exported import ExportedModel
    from bertcourse.serving.web import Service
    return Service(settings, ExportedModel(settings.folder, settings.runtime, settings.threads, settings.provider)).app()


def run_alone(settings: Settings, listener: socket.socket, app: Edge) -> None:
    """Serve in this process until SIGTERM or SIGINT."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn raises it again when all is done
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up and signal.getsignal(hang_up) is signal.SIG_DFL:  # else `nohup`
        signal.signal(hang_up, end_gracefully if sys.stderr.isatty() else ignore_hang_up)
    try:
        Server(settings, app).run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def run_in_thread(settings: Settings, listener: socket.socket, app: Edge) -> None:
    """Serve in a thread with an event loop of its own, and wait for its end: for a thread in which a loop runs, such as Jupyter's.

    In the main thread SIGTERM and SIGINT end it, whatever the loop there would make of them.
    """
    server = Server(settings, app)
    with ended_by_signals(server), ThreadPoolExecutor(1, "server") as pool:
        served = pool.submit(server.run, [listener])
        try:
            while not served.done():
                wait([served], timeout=0.5)  # Windows notices no signal during a wait
        except KeyboardInterrupt:  # not by a signal
            server.should_exit = True
    served.result()


@contextlib.contextmanager
def ended_by_signals(server: Server) -> Iterator[None]:
    """SIGTERM and SIGINT end the server after the requests that are on their way, the second SIGINT at once."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_gracefully(number: int, frame: Any) -> None:
    """The terminal in which it was started is closed."""
    os.kill(os.getpid(), signal.SIGTERM)


def ignore_hang_up(number: int, frame: Any) -> None:
    """A single process has nobody to take its place while it loads the model again."""
    log("hang_up_ignored", logging.WARNING, why="a single process cannot be replaced without a gap: use --workers 2, or restart it")
