"""`bertcourse serve`: an exported model behind HTTP, on one machine."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcourse.app.exported import PROVIDERS, RUNTIMES, refusals
from bertcourse.app.messages import UserError, plural, reader_language
from bertcourse.app.pretrain import whole
from bertcourse.base.display import printable
from bertcourse.serving.settings import TOKEN, read_token

PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client")
EPILOG = f"""others: --threads N of a model (1); --max-wait-ms MS that a batch waits for more, when more are to be expected (4); of a request:
  --max-texts N (64), --max-chars N of a text, the rest is cut off (10000), --max-windows N (256), --max-pieces N (65536), --max-body N
  bytes (2000000), --read-timeout S to arrive in (10); --keep-alive S of an idle connection (65), --drain S at the end (1), --log
  requests|errors (requests). Environment: {TOKEN}, a secret that /predict, /model and /metrics then ask for. All paths are on /docs.
SIGTERM finishes what is queued; SIGHUP replaces the workers (two or more) one by one, by new ones that read FOLDER again.
"""


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def milliseconds(text: str) -> float:
    """A number of milliseconds, perhaps 0."""
    return 0.0 if text.strip() in ("0", "0.0") else seconds(text)


def port(text: str) -> int:
    """A number of a port, 0 for any free one."""
    value = whole(0)(text)
    if value > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port: give 0 to 65535")
    return value


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = "bertcourse serve FOLDER [option ...]", EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20, width=120)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="that `bertcourse export` made")
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=port, default=8000, metavar="N", help="default: 8000; 0: any that is free")
    add("--workers", type=whole(1), metavar="N", help="processes, each with the model (default: one for each core; on a GPU, one)")
    add("--threads", type=whole(1), default=1, metavar="N", help=argparse.SUPPRESS)
    add("--runtime", choices=RUNTIMES, default=RUNTIMES[0], metavar="NAME", help=f"{' or '.join(RUNTIMES)} (default: {RUNTIMES[0]})")
    add("--provider", choices=PROVIDERS, default=PROVIDERS[0], metavar="NAME", help=f"{', '.join(PROVIDERS)} (default: {PROVIDERS[0]})")
    add("--max-batch", type=whole(1), default=16, metavar="N", help="inputs that the model reads at once (default: 16)")
    add("--max-wait-ms", type=milliseconds, default=4.0, metavar="MS", help=argparse.SUPPRESS)
    add("--max-queue", type=whole(1), default=512, metavar="N", help="inputs that may wait in a worker; more get 429 (default: 512)")
    add("--timeout", type=seconds, default=10.0, metavar="S", help="seconds for an answer, then 503 (default: 10)")
    add("--max-texts", type=whole(1), default=64, metavar="N", help=argparse.SUPPRESS)
    add("--max-chars", type=whole(1), default=10_000, metavar="N", help=argparse.SUPPRESS)
    add("--max-windows", type=whole(1), default=256, metavar="N", help=argparse.SUPPRESS)
    add("--max-pieces", type=whole(1), default=65_536, metavar="N", help=argparse.SUPPRESS)
    add("--max-body", type=whole(1), default=2_000_000, metavar="N", help=argparse.SUPPRESS)
    add("--read-timeout", type=seconds, default=10.0, help=argparse.SUPPRESS)
    add("--keep-alive", type=seconds, default=65.0, help=argparse.SUPPRESS)
    add("--drain", type=seconds, default=1.0, help=argparse.SUPPRESS)
    add("--log", choices=("requests", "errors"), default="requests", metavar="WHAT", help=argparse.SUPPRESS)


def cores() -> int:
    """The cores that this process may use: by its affinity, and by the quota of a container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup of version 2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    return count


def settings_of(args: argparse.Namespace) -> Any:  # a bertcourse.serving.settings.Settings
    """What was asked for. Raises `UserError`."""
    from bertcourse.serving.settings import Settings
    if absent := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f'{absent[0]} is not installed: run `pip install "bertcourse[serve]"`',
                        f'没有安装 {absent[0]}：请运行 `pip install "bertcourse[serve]"`')
    usual = 1 if args.provider != PROVIDERS[0] else max(1, cores() // args.threads)  # a GPU is shared badly
    workers = args.workers or usual
    if os.name == "nt" and workers > 1:
        if args.workers:
            raise UserError("--workers needs gunicorn, which Windows has not: leave it out, or use a container",
                            "--workers 需要 gunicorn，它在 Windows 上不可用：请去掉它，或改用容器")
        workers = 1
    return Settings(str(Path(args.folder).expanduser()), args.host, args.port, workers, args.threads, args.runtime, args.provider, args.max_batch,
                    args.max_wait_ms, args.max_queue, args.timeout, args.max_texts, args.max_chars, args.max_windows, args.max_pieces, args.max_body,
                    args.read_timeout, args.keep_alive, args.drain, args.log)


def open_port(settings: Any) -> Any:  # a socket
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


def greet(settings: Any, place: tuple[Any, ...]) -> None:
    """One line that says where, and one that warns of an open door."""
    host = f"[{place[0]}]" if ":" in str(place[0]) else place[0]
    url, zh, name = f"http://{host}:{place[1]}/", reader_language() == "zh", printable(settings.name)
    if zh:
        print(f"{name} 已就绪：{url}（{settings.workers} 个进程）；按 Ctrl-C 结束", file=sys.stderr)
    else:
        print(f"{name} is served at {url} by {plural(settings.workers, 'process')}; Ctrl-C ends it", file=sys.stderr)
    if is_open(settings.host) and not read_token():
        print(f"其他机器也能访问，且无需令牌：若非本意，请设置 {TOKEN}" if zh else
              f"other machines can reach it, and nobody needs a token: set {TOKEN} if that is not meant", file=sys.stderr)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Serve until SIGTERM: 0. Raises `UserError`."""
    settings = settings_of(args)
    from bertcourse.serving import server
    from bertcourse.serving.logs import nobody_waits
    with refusals():
        from bertcourse.runtime import read_about
        read_about(settings.folder)
        read_token()
        listener = open_port(settings)
        with listener:
            app = server.make_app(settings) if settings.workers == 1 else server.check_apart(settings)
            with nobody_waits():
                greet(settings, listener.getsockname())
                if settings.workers > 1:
                    return server.run_workers(settings, listener)
                server.run_alone(settings, listener, app)
                return 0
