"""The HTTP side: paths, statuses, headers and logs. What is answered comes from `predictor`, when from `batching`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import json
import logging
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bertcourse.models.exported import ExportedModel
from bertcourse.runtime import ModelError
from bertcourse.serving.batching import Batcher, Full, Hooks, Speed, Stopped, TooMuch, pieces_of
from bertcourse.serving.docs import page as docs_page
from bertcourse.serving.inputs import Problem, problem, read_json, read_request
from bertcourse.serving.inputs import Request as PredictRequest
from bertcourse.serving.logs import log, log_request, places, writer
from bertcourse.serving.metrics import Metrics
from bertcourse.serving.openapi import describe
from bertcourse.serving.settings import HEADERS, LOOPBACK, Settings, read_token

GUARDED = ("/predict", "/model", "/metrics")
PAGES = {"/": ("try.html", "text/html"), "/static/try.js": ("try.js", "text/javascript"), "/static/style.css": ("style.css", "text/css")}
STALLED = 60.0  # seconds after which a batch that does not end means that the process is sick
PAGE_HEADERS = {  # of those that a browser shows
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY", "referrer-policy": "no-referrer", "cross-origin-resource-policy": "same-origin",
}
ONCE = (b"host", b"content-type", b"authorization")  # headers of which nobody could say which one counts
ID, HOST = re.compile(r"[\w.-]{1,64}", re.ASCII), re.compile(r"[\w.:\[\]-]{1,255}", re.ASCII)
GONE = 499  # nobody reads this status: nginx's number for a client that hung up, for log and counters
LINGER = 1.0  # seconds in which a body that is too large is still read: who is sending would else lose the answer with the connection
BIG = 20_000  # characters of a request that are not cut into pieces in the event loop, where they would hold up the others
CROWD = 8  # such requests that wait for the one thread that cuts them; more are refused

Scope, Receive, Send = dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, as UTF-8."""
    return Response(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(), status, headers, "application/json")


def length_of(request: Request) -> int:
    """The bytes of a body as its head has them; 0 if it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


class Service:
    """One process of the service."""

    def __init__(self, settings: Settings, predictor: ExportedModel) -> None:
        self.settings, self.predictor = settings, predictor
        self.token = read_token()
        self.metrics, self.log_all = Metrics(), settings.log == "requests"
        self.draining = False
        hooks = Hooks(batch=self._count_batch, queue=self.metrics.queue.set)
        self.batcher = Batcher(predictor, settings.max_batch, settings.max_wait_ms / 1000, settings.max_queue, settings.timeout, hooks,
                               Speed(*predictor.measure()))
        self._cutting, self._big = ThreadPoolExecutor(1, "cutting"), 0  # the thread that cuts large requests into pieces, and how many wait for it
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
            self.batcher.check(length_of(request))  # before the body is even looked at: under overload it is the refusals that cost
        body = await self._body(request)
        payload = read_request(read_json(body), self.predictor.required, self.predictor.optional, self.settings.max_texts, self.settings.max_chars)
        if sum(len(text) for row in payload.texts for text in row.values()) > BIG:
            rows, inputs, truncated = await self._prepare_apart(payload)
        else:
            rows, inputs, truncated = self._prepare(payload.texts, payload.cut)
        with self._refusals():
            # `receive` says nothing more until the connection is lost.
            predictions = await self.batcher.answer(rows, inputs, request.receive, request.scope.get("hung_up", bool), len(body))
        request.state.texts = len(predictions)
        self.metrics.texts.inc(len(predictions))
        self.metrics.truncated.inc(sum(truncated))
        return answer({"predictions": [one | {"truncated": cut} for one, cut in zip(predictions, truncated, strict=True)]})

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Why the batcher does not answer, as a `Problem`."""
        try:
            yield
        except Full as full:
            raise problem("queue_full", f"too many requests wait: try again in {math.ceil(full.seconds)} s",
                          Retry_After=str(math.ceil(full.seconds))) from None
        except TooMuch as much:
            raise self._too_much(f"would take about {math.ceil(much.seconds)} s, one may take {self.settings.timeout / 2:g}") from None
        except Stopped:
            raise problem("stopping", "the service is being stopped: ask another replica", Retry_After="1") from None
        except TimeoutError:
            raise problem("timed_out", f"no answer within {self.settings.timeout:g} s: try again later, or with less text",
                          Retry_After=str(math.ceil(self.settings.timeout))) from None
        except ModelError as error:
            log("model_failed", logging.ERROR, error=error.en)
            raise problem("model_failed", "the model gave no usable answer: tell whoever runs this service") from None

    async def _prepare_apart(self, payload: PredictRequest) -> tuple[list[Any], list[Any], list[bool]]:
        """The same in a thread, one request after the other. Raises `Problem`."""
        if self._big >= CROWD:
            raise problem("queue_full", "too many large requests wait: try again in 1 s", Retry_After="1")
        self._big += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._cutting, self._prepare, payload.texts, payload.cut)
        finally:
            self._big -= 1

    def _prepare(self, texts: list[dict[str, str]], cut: list[bool]) -> tuple[list[Any], list[Any], list[bool]]:
        """Rows, their inputs, and of which texts a part is lost. Raises `Problem` as soon as it is more work than a request may make."""
        rows, inputs, lost = [], [], []
        pieces = 0
        for number, (text, is_cut) in enumerate(zip(texts, cut)):
            row = self.predictor.request_row(text)
            made = self.predictor.encode_one(row, number)
            pieces += pieces_of(made)
            rows.append(row)
            inputs += made
            lost.append(is_cut or self.predictor.too_long(row, made))
            self._check_work(len(inputs), pieces)
        return rows, inputs, lost

    def _check_work(self, windows: int, pieces: int) -> None:
        """Raises `Problem` for more than one request may ask of the model."""
        settings, seconds = self.settings, self.batcher.seconds(windows, pieces)
        if windows > settings.max_windows:
            raise self._too_much(f"makes more than {settings.max_windows:,} windows of the model")
        if pieces > settings.max_pieces:
            raise self._too_much(f"makes more than {settings.max_pieces:,} tokens")
        if windows > 1 and seconds > settings.timeout / 2:
            raise self._too_much(f"would take more than {settings.timeout / 2:g} s")

    def _too_much(self, what: str) -> Problem:
        """A request that nobody could answer in time, however often it is sent."""
        return problem("too_much_work", f"the request {what}: send fewer or shorter texts at a time")

    async def _body(self, request: Request) -> bytes:
        """The bytes of a request. Raises `Problem`."""
        most, patience = self.settings.max_body, self.settings.read_timeout
        too_large = length_of(request) > most
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
        coded = ",".join(request.headers.getlist("content-encoding") + request.headers.getlist("transfer-encoding")).lower()
        if coding := [name for name in map(str.strip, coded.split(",")) if name not in ("", "identity", "chunked")]:
            raise problem("wrong_content_encoding", f"the body is encoded as {coding[0][:40]}: send it as it is", Accept_Encoding="identity")
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
            "fingerprint": about.fingerprint, "quantisation": (about.quantisation or {}).get("method"),
            "runtime": self.predictor.session.runtime, "provider": self.predictor.session.providers[0],
            "fields": {"required": list(self.predictor.required), "optional": list(self.predictor.optional)},
            "limits": {"texts": limits.max_texts, "characters": limits.max_chars, "bytes": limits.max_body, "windows": limits.max_windows,
                       "pieces": limits.max_pieces, "seconds": limits.timeout},
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

    def record(self, known: str, path: str, status: int, seconds: float, method: str = "", code: str | None = None, texts: int = 0) -> None:
        """Count an answer and log it."""
        self.metrics.requests.labels(path, str(status)).inc()
        if path == "/predict":
            self.metrics.latency.observe(seconds)
        if self.log_all or status >= 500:
            more = {name: value for name, value in (("method", method), ("code", code), ("texts", texts)) if value}
            log_request(id=known, path=path, status=status, ms=round(1000 * seconds, 2), **more)

    # --- the application ---

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """While the server runs."""
        await self.batcher.start()
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again
        writer().on_drop = self.metrics.unlogged.inc
        self.metrics.ready.set(1)
        log("ready", model=self.settings.name, task=self.predictor.about.task)
        try:
            yield
        finally:
            self.metrics.ready.set(0)
            await self.batcher.stop()
            self._cutting.shutdown(wait=False)
            gc.unfreeze()  # this process may go on, as a notebook's does
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
            refusal = problem("method_not_allowed", f"this path takes {allow.get('Allow', 'another method')}: use it")
        else:
            refusal = problem("not_found", "there is nothing at this path: see /docs")
        refusal.headers = allow
        return await self._refuse(request, refusal)

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
        headers = dict(scope["headers"])
        requested = headers.get(b"x-request-id", b"").decode("latin-1")
        known = requested if ID.fullmatch(requested) else secrets.token_hex(8)
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
            if refused := self._refusal(scope, headers):
                state["code"] = refused.code
                self.service.metrics.errors.labels(refused.code).inc()
                await answer(refused.content(), refused.status, refused.headers)(scope, receive, sending)
            else:
                await self.inner(scope, receive, sending)
        except Exception as error:  # ours, and nobody outside learns what it was
            log("internal_error", logging.ERROR, id=known, error=type(error).__name__, at=places(error.__traceback__))
        finally:
            if "refused" not in scope:  # what was no HTTP in the middle of its body has been recorded by the connection
                path = scope["path"] if scope["path"] in self.paths else "unknown"  # which may hold what somebody wrote
                self.service.record(known, path, status or GONE, time.perf_counter() - begin, scope["method"], state["code"], state["texts"])

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Problem | None:
        """What is wrong before anything is read."""
        if len(headers) < len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            if twice := [name for name in ONCE if names.count(name) > 1]:
                return problem("bad_request", f"there are several headers {twice[0].decode()}: send one")
        if b"host" not in headers and scope["http_version"] == "1.1":
            return problem("bad_request", "there is no header host: HTTP/1.1 has one")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.local and name not in LOOPBACK:  # a page elsewhere whose name was made to point here
            return problem("bad_request", "the Host header does not name this machine: ask 127.0.0.1 or localhost")
        token = self.service.token
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        if token and scope["path"] in GUARDED and not (scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), token.encode())):
            return problem("unauthorized", "the bearer token is missing or wrong: send Authorization: Bearer …", WWW_Authenticate="Bearer")
        return None
