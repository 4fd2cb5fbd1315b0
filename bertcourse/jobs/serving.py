"""An exported model behind HTTP, on one machine: `serve`.

The service itself is `bertcourse.serving`; it is imported when it is known that its packages are installed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import threading
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcourse.base.display import printable
from bertcourse.base.errors import UserError
from bertcourse.base.machine import usable_cores
from bertcourse.base.messages import plural
from bertcourse.jobs.options import COUNT, Choice, Options, Real, Refused, Whole, option
from bertcourse.jobs.reporter import Reporter
from bertcourse.models.kinds import PROVIDERS, RUNTIMES
from bertcourse.serving.settings import TOKEN, Settings, read_token

PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client")


# --- options ------------------------------------------------------------------------------------------------------

class Port(Whole):
    """The number of a port."""

    def __init__(self) -> None:
        super().__init__(0, 65_535)

    def refusal(self, value: Any) -> Refused:
        """Says what is a port."""
        return Refused(f"{value} is no port: give 0 to 65535", f"{value} 不是端口号：请给出 0 到 65535")


class Duration(Real):
    """A positive number of seconds or milliseconds; with `zero` it may be 0."""

    def __init__(self, zero: bool = False) -> None:
        super().__init__(above=not zero)

    def refusal(self, value: Any) -> Refused:
        """Says that it is none."""
        return Refused(f"{value} is no positive number", f"{value} 不是正数")


@dataclass(kw_only=True)
class ServeOptions(Options):
    """The options of `serve`, with rules; None: the default of `bertcourse.serving.settings.Settings`."""

    folder: str
    host: str | None = None
    port: int | None = option(Port())
    workers: int | None = option(COUNT)
    threads: int | None = option(COUNT)
    runtime: str | None = option(Choice(*RUNTIMES))
    provider: str | None = option(Choice(*PROVIDERS))
    max_batch: int | None = option(COUNT)
    max_wait_ms: float | None = option(Duration(zero=True))
    max_queue: int | None = option(COUNT)
    timeout: float | None = option(Duration())
    max_texts: int | None = option(COUNT)
    max_chars: int | None = option(COUNT)
    max_windows: int | None = option(COUNT)
    max_pieces: int | None = option(COUNT)
    max_body: int | None = option(COUNT)
    read_timeout: float | None = option(Duration())
    keep_alive: float | None = option(Duration())
    drain: float | None = option(Duration())
    log: str | None = option(Choice("requests", "errors"))

    def settings(self) -> Settings:
        """What to serve, and how. Raises `UserError`."""
        if absent := [name for name in PACKAGES if find_spec(name) is None]:
            raise UserError(f'{absent[0]} is not installed: run `pip install "bertcourse[serve]"`',
                            f'没有安装 {absent[0]}：请运行 `pip install "bertcourse[serve]"`')
        settings = Settings(**self.given([*vars(self)]) | {"folder": str(Path(self.folder).expanduser())})
        return replace(settings, workers=self.choose_workers(settings))

    def choose_workers(self, settings: Settings) -> int:
        """How many processes: as many as there are cores for, where there can be several. Raises `UserError`."""
        refused = None
        if os.name == "nt":
            refused = UserError("--workers needs gunicorn, which Windows has not: leave it out, or use a container",
                                "--workers 需要 gunicorn，它在 Windows 上不可用：请去掉它，或改用容器")
        elif not owns_process():
            refused = UserError("--workers needs the main thread, with no event loop running in it as in Jupyter: leave it out, "
                                "or run `bertcourse serve` in a terminal",
                                "--workers 需要主线程，且其中没有运行事件循环（Jupyter 里有）：请去掉它，或在终端运行 `bertcourse serve`")
        if refused and (self.workers or 1) > 1:
            raise refused
        usual = 1 if refused or settings.provider != PROVIDERS[0] else usable_cores() // settings.threads  # a GPU is shared badly
        return self.workers or max(1, usual)


def owns_process() -> bool:
    """May this thread handle signals, start processes and run an event loop? In a Jupyter kernel one runs in the main thread already."""
    import asyncio
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return False
    return threading.current_thread() is threading.main_thread()


# --- the start ----------------------------------------------------------------------------------------------------

def open_port(settings: Settings) -> Any:  # a socket
    """The socket. Raises `UserError`."""
    from bertcourse.serving.server import listen
    try:
        return listen(settings)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{settings.host}:{settings.port} cannot be listened at ({why}): choose another with --host and --port",
                        f"无法在 {settings.host}:{settings.port} 监听（{why}）：请用 --host 与 --port 换一个") from None


def is_open(host: str) -> bool:
    """Can other machines reach this address?"""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def greet(settings: Settings, address: tuple[Any, ...]) -> None:
    """One line that says where, and one that warns of an open door."""
    reporter, name, count = Reporter(), printable(settings.name), settings.workers
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    url = f"http://{host}:{address[1]}/"
    end, end_zh = ("interrupt the kernel to end it", "中断内核即可结束") if reporter.notebook else ("Ctrl-C ends it", "按 Ctrl-C 结束")
    reporter.info(f"{name} is served at {url} by {plural(count, 'process')}; {end}",
                  f"{name} 已就绪：{url}（{count} 个进程）；{end_zh}")
    if is_open(settings.host) and not read_token():
        reporter.info(f"other machines can reach it, and nobody needs a token: set {TOKEN} if that is not meant",
                      f"其他机器也能访问，且无需令牌：若非本意，请设置 {TOKEN}")


# --- the job ------------------------------------------------------------------------------------------------------

def run_service(options: ServeOptions) -> int:
    """Check all, then serve until SIGTERM or Ctrl-C; returns an exit code. Raises `UserError`."""
    settings = options.settings()
    from bertcourse.runtime import read_about
    from bertcourse.serving import server
    from bertcourse.serving.logs import nobody_waits
    read_about(settings.folder)
    read_token()
    with open_port(settings) as listener:
        if settings.workers > 1:
            from bertcourse.serving import workers
            workers.check_apart(settings)
        else:
            app = server.make_app(settings)
        with nobody_waits():
            greet(settings, listener.getsockname())
            if settings.workers > 1:
                return workers.run_workers(settings, listener)
            run = server.run_alone if owns_process() else server.run_in_thread
            run(settings, listener, app)
    return 0


def serve(
    folder: str | Path,  # that `bertcourse export` made
    *,
    host: str = Settings.host,  # address to listen at (default: 127.0.0.1, this machine only)
    port: int = Settings.port,  # 0: any that is free (default: 8000)
    workers: int | None = None,  # processes (default: one for each core; on a GPU or in Jupyter, one)
    threads: int = Settings.threads,  # of a model (default: 1)
    runtime: str = Settings.runtime,  # ort or openvino (default: ort)
    provider: str = Settings.provider,  # of ort: cpu, cuda, tensorrt, migraphx, directml, coreml, openvino (default: cpu)
    max_batch: int = Settings.max_batch,  # inputs that the model reads at once (default: 16)
    max_wait_ms: float = Settings.max_wait_ms,  # that a batch waits for more, when more are to be expected (default: 4)
    max_queue: int = Settings.max_queue,  # inputs that may wait in a worker; more get 429 (default: 512)
    timeout: float = Settings.timeout,  # seconds for an answer, then 503 (default: 10)
    max_texts: int = Settings.max_texts,  # of a request (default: 64)
    max_chars: int = Settings.max_chars,  # of a text, the rest is cut off (default: 10000)
    max_windows: int = Settings.max_windows,  # of a request: long texts of ner and qa are read in windows (default: 256)
    max_pieces: int = Settings.max_pieces,  # of a request, in all its windows (default: 65536)
    max_body: int = Settings.max_body,  # bytes of a request (default: 2000000)
    read_timeout: float = Settings.read_timeout,  # seconds for a request to arrive in (default: 10)
    keep_alive: float = Settings.keep_alive,  # seconds of an idle connection (default: 65)
    drain: float = Settings.drain,  # seconds that idle connections get at the end (default: 1)
    log: str = Settings.log,  # requests or errors: what is logged (default: requests)
) -> None:
    """Answer HTTP requests with an exported model until SIGTERM or Ctrl-C (in Jupyter: until the kernel is interrupted); then return.

    Where an event loop runs already, as in Jupyter, the service runs in a thread of its own, and this call waits for it. Raises
    `bertcourse.base.errors.UserError` for what a user can fix.
    """
    options = ServeOptions.of(dict(locals()) | {"folder": str(folder)})
    with contextlib.suppress(KeyboardInterrupt):
        if code := run_service(options):
            raise UserError(f"the processes ended with exit code {code}: their log tells why", f"各进程已退出，退出码 {code}：原因见日志")
