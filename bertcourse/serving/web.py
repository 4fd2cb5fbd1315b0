"""The HTTP side: paths, statuses, headers and logs. What is answered comes from `predictor`, when from `batching`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bertcourse.runtime import ModelError
from bertcourse.serving.batching import Batcher, Full, Hooks, Stopped
from bertcourse.serving.docs import page as docs_page
from bertcourse.serving.inputs import Problem, problem, read_json, read_request
from bertcourse.serving.logs import log, log_request, places
from bertcourse.serving.metrics import Metrics
from bertcourse.serving.openapi import describe
from bertcourse.serving.predictor import Predictor
from bertcourse.serving.settings import TOKEN, Settings

GUARDED = ("/predict", "/model", "/metrics")
PAGES = {"/": ("try.html", "text/html"), "/static/try.js": ("try.js", "text/javascript"), "/static/style.css": ("style.css", "text/css")}
STALLED = 60.0  # seconds after which a batch that does not end means that the process is sick
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]  # of every answer
PAGE_HEADERS = {  # and of those that a browser shows
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY", "referrer-policy": "no-referrer", "cross-origin-resource-policy": "same-origin",
}
ID, HOST = re.compile(r"[\w.-]{1,64}", re.ASCII), re.compile(r"[\w.:\[\]-]{1,255}", re.ASCII)
GONE = 499  # nobody reads this status: nginx's number for a client that hung up, for log and counters
LINGER = 1.0  # seconds in which a body that is too large is still read: who is sending would else lose the answer with the connection
BIG = 20_000  # characters of a request that are not cut into pieces in the event loop, where they would hold up the others

Scope, Receive, Send = dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, as UTF-8."""
    return Response(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(), status, headers, "application/json")


class Service:
    """One process of the service."""

    def __init__(self, settings: Settings, predictor: Predictor) -> None:
        self.settings, self.predictor = settings, predictor
        self.token = os.environ.get(TOKEN, "")
        self.metrics, self.log_all = Metrics(), settings.log == "requests"
        self.draining = False
        hooks = Hooks(batch=self._count_batch, queue=self.metrics.queue.set)
        self.batcher = Batcher(predictor, settings.max_batch, settings.max_wait_ms / 1000, settings.max_queue, settings.timeout, hooks)
        self.described = describe(predictor, settings, bool(self.token))
        folder = files("bertcourse.serving") / "pages"
        self._pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGES.items()}

    def _count_batch(self, size: int, seconds: float) -> None:
        self.metrics.batches.observe(size)
        self.metrics.model.observe(seconds)

    # --- paths ---

    async def predict(self, request: Request) -> Response:
        """`POST /predict`."""
        with self._refusals():
            self.batcher.check()  # before the body is even looked at: under overload it is the refusals that cost
        body = await self._body(request)
        asked = read_request(read_json(body), self.predictor.required, self.predictor.optional, self.settings.max_texts, self.settings.max_chars)
        if sum(len(text) for row in asked.texts for text in row.values()) > BIG:
            rows, inputs, truncated = await asyncio.to_thread(self._prepare, asked.texts, asked.cut)
        else:
            rows, inputs, truncated = self._prepare(asked.texts, asked.cut)
        with self._refusals():
            said = await self.batcher.answer(rows, inputs, request.receive)  # which says nothing more until the connection is lost
        request.state.texts = len(said)
        self.metrics.texts.inc(len(said))
        self.metrics.truncated.inc(sum(truncated))
        return answer({"predictions": [one | {"truncated": cut} for one, cut in zip(said, truncated, strict=True)]})

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Why the batcher does not answer, as a `Problem`."""
        try:
            yield
        except Full as full:
            raise problem("queue_full", f"too many requests wait: try again in {math.ceil(full.seconds)} s",
                          Retry_After=str(math.ceil(full.seconds))) from None
        except Stopped:
            raise problem("stopping", "the service is being stopped: ask another replica", Retry_After="1") from None
        except TimeoutError:
            raise problem("timed_out", f"no answer within {self.settings.timeout:g} s: try again later, or with less text",
                          Retry_After=str(math.ceil(self.settings.timeout))) from None
        except ModelError as error:
            log("model_failed", logging.ERROR, error=error.en)
            raise problem("model_failed", "the model gave no usable answer: tell whoever runs this service") from None

    def _prepare(self, texts: list[dict[str, str]], cut: list[bool]) -> tuple[list[Any], list[Any], list[bool]]:
        """Rows, their inputs, and of which texts a part is lost."""
        rows = [self.predictor.row(one) for one in texts]
        inputs = self.predictor.encode(rows)
        if self.predictor.kind in ("ner", "qa"):  # several inputs for a long text, none of which loses any of it
            lost = [self.predictor.too_long(row, ()) for row in rows]
        else:
            lost = [self.predictor.too_long(row, [one]) for row, one in zip(rows, inputs, strict=True)]
        return rows, inputs, [a or b for a, b in zip(cut, lost)]

    async def _body(self, request: Request) -> bytes:
        """The bytes of a request. Raises `Problem`."""
        most, patience = self.settings.max_body, self.settings.read_timeout
        length = request.headers.get("content-length", "0")
        too_large = length.isascii() and length.isdigit() and int(length) > most
        parts, size = [], 0
        try:
            async with asyncio.timeout(min(patience, LINGER) if too_large else patience) as limit:
                if too_large and request.headers.get("expect", "").lower() == "100-continue":
                    raise TimeoutError  # nothing has been sent, and nothing need be
                async for part in request.stream():
                    size += len(part)
                    if size > most and not too_large:
                        too_large = True
                        limit.reschedule(asyncio.get_running_loop().time() + LINGER)
                    if size > 8 * most:
                        break
                    if not too_large:
                        parts.append(part)
        except TimeoutError:
            if not too_large:
                raise problem("too_slow", f"the body did not arrive within {patience:g} s: send it at once", connection="close") from None
        if too_large:
            raise problem("body_too_large", f"the body has more than {most:,} bytes: send fewer texts at a time", connection="close")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise problem("wrong_content_type", f"Content-Type is {kind[:40] or 'missing'}: send application/json")
        return b"".join(parts)

    async def health(self, request: Request) -> Response:
        """`GET /health`: alive, and the model's thread moves."""
        self._check_moving()
        return answer({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """`GET /ready`: requests may be sent here."""
        if self.draining:
            raise problem("stopping", "the service is being stopped: ask another replica")
        self._check_moving()
        return answer({"status": "ready"})

    def _check_moving(self) -> None:
        since = self.batcher.busy_since
        if since is not None and time.monotonic() - since > max(STALLED, 2 * self.settings.timeout):
            raise problem("not_ready", "the model's last batch does not end: restart this process")

    async def model(self, request: Request) -> Response:
        """`GET /model`: what is served."""
        about, limits = self.predictor.about, self.settings
        return answer({
            "name": limits.name, "task": about.task, "labels": list(about.labels), "language": about.lang, "max_length": about.max_length,
            "fingerprint": about.sha256, "quantisation": (about.quantisation or {}).get("method"),
            "fields": {"required": list(self.predictor.required), "optional": list(self.predictor.optional)},
            "limits": {"texts": limits.max_texts, "characters": limits.max_chars, "bytes": limits.max_body, "seconds": limits.timeout},
        })

    async def show_metrics(self, request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        content, kind = self.metrics.text()
        return Response(content, headers={"content-type": kind})

    async def schema(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        return answer(self.described)

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: the description, for people."""
        wanted = request.query_params.get("lang") or request.headers.get("accept-language", "")
        host = request.headers.get("host", "")
        address = f"{request.url.scheme}://{host if HOST.fullmatch(host) else f'127.0.0.1:{self.settings.port}'}"
        return Response(docs_page(self.described, self.settings, address, "zh" if wanted.lower().startswith("zh") else "en"),
                        headers=PAGE_HEADERS, media_type="text/html")

    async def page(self, request: Request) -> Response:
        """`GET /` and what belongs to it."""
        content, kind = self._pages[request.url.path]
        return Response(content, headers=PAGE_HEADERS, media_type=kind)

    # --- the application ---

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """While the server runs."""
        await self.batcher.start()
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again
        self.metrics.ready.set(1)
        log("ready", model=self.settings.name, task=self.predictor.about.task)
        try:
            yield
        finally:
            self.metrics.ready.set(0)
            await self.batcher.stop()
            log("stopped")

    def app(self) -> Edge:
        """The ASGI application."""
        gets = {"/health": self.health, "/ready": self.ready, "/model": self.model, "/metrics": self.show_metrics,
                "/openapi.json": self.schema, "/docs": self.docs, **dict.fromkeys(PAGES, self.page)}
        routes = [Route("/predict", self.predict, methods=["POST"]), *(Route(path, handler) for path, handler in gets.items())]
        inner = Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={
            Problem: self._refuse, HTTPException: self._refuse_http, ClientDisconnect: self._gone, ConnectionError: self._gone,
            Exception: self._fault})
        inner.router.redirect_slashes = False
        return Edge(self, inner, {route.path for route in routes})

    async def _refuse(self, request: Request, error: Problem) -> Response:
        request.state.code = error.code
        self.metrics.errors.labels(error.code).inc()
        return answer(error.content(), error.status, error.headers)

    async def _refuse_http(self, request: Request, error: HTTPException) -> Response:
        """What Starlette itself refuses: the path, the method."""
        allow = dict(error.headers or {})
        if error.status_code == 405:
            said = problem("method_not_allowed", f"this path takes {allow.get('Allow', 'another method')}: use it")
        else:
            said = problem("not_found", "there is nothing at this path: see /docs")
        said.headers = allow
        return await self._refuse(request, said)

    async def _fault(self, request: Request, error: Exception) -> Response:
        return await self._refuse(request, problem("internal_error", f"a fault of the service: report the request id {request.state.id}"))

    async def _gone(self, request: Request, error: Exception) -> Response:
        request.state.code = "client_gone"
        return Response(status_code=GONE)


class Edge:
    """Around everything: who may ask, headers, the log line, the count, and the last resort for a fault of our own."""

    def __init__(self, service: Service, inner: Starlette, paths: set[str]) -> None:
        self.service, self.inner, self.paths = service, inner, paths
        self.local = service.settings.host in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"authorization", b"x-request-id")}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        known = given if ID.fullmatch(given) else secrets.token_hex(8)
        scope["state"] = state = {"id": known, "code": None, "texts": 0}
        status = 0

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS, (b"x-request-id", known.encode())]
                if self.service.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if refused := self._refusal(scope["path"], headers):
                state["code"] = refused.code
                self.service.metrics.errors.labels(refused.code).inc()
                await answer(refused.content(), refused.status, refused.headers)(scope, receive, sending)
            else:
                await self.inner(scope, receive, sending)
        except Exception as error:  # ours, and nobody outside learns what it was
            log("internal_error", logging.ERROR, id=known, error=type(error).__name__, at=places(error.__traceback__))
        finally:
            self._record(scope, known, status or GONE, time.perf_counter() - begin, state)

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> Problem | None:
        """What is wrong before anything is read."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.local and name not in LOOPBACK:  # a page elsewhere whose name was made to point here
            return problem("bad_request", "the Host header does not name this machine: ask 127.0.0.1 or localhost")
        token = self.service.token
        if token and path in GUARDED and not hmac.compare_digest(headers.get(b"authorization", b""), b"Bearer " + token.encode()):
            return problem("unauthorized", "the bearer token is missing or wrong: send Authorization: Bearer …", WWW_Authenticate="Bearer")
        return None

    def _record(self, scope: Scope, known: str, status: int, seconds: float, state: Mapping[str, Any]) -> None:
        """Count it and log it; an unknown path may hold what somebody wrote."""
        service, path = self.service, scope["path"] if scope["path"] in self.paths else "unknown"
        service.metrics.requests.labels(path, str(status)).inc()
        if path == "/predict":
            service.metrics.latency.observe(seconds)
        if service.log_all or status >= 500:
            more = {name: value for name, value in (("code", state["code"]), ("texts", state["texts"])) if value}
            log_request(id=known, method=scope["method"], path=path, status=status, ms=round(1000 * seconds, 2), **more)
