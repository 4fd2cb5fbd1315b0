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

from bertcourse.app.exported import RUNTIMES, refusals
from bertcourse.app.messages import UserError, plural, reader_language
from bertcourse.app.pretrain import whole
from bertcourse.serving.settings import TOKEN

PACKAGES = ("starlette", "uvicorn", "httptools", "prometheus_client")
EPILOG = f"""others: --threads N of a model (1), --max-texts N (64), --max-body N bytes (2000000) of a request, --log requests|errors (requests),
  --read-timeout S for a request to arrive in (10), --keep-alive S that an idle connection stays (65), --drain S at the end (1)
Paths: POST /predict; GET / (to try it), /docs, /openapi.json, /model, /health, /ready, /metrics. Environment: {TOKEN},
a secret that /predict, /model and /metrics then ask for (Authorization: Bearer ...). SIGTERM finishes what is queued.
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
    add("--workers", type=whole(1), metavar="N", help="processes, each with the model (default: one for each core)")
    add("--threads", type=whole(1), default=1, metavar="N", help=argparse.SUPPRESS)
    add("--runtime", choices=RUNTIMES, default=RUNTIMES[0], metavar="NAME", help=f"{' or '.join(RUNTIMES)} (default: {RUNTIMES[0]})")
    add("--max-batch", type=whole(1), default=16, metavar="N", help="inputs that the model reads at once (default: 16)")
    add("--max-wait-ms", type=milliseconds, default=4.0, metavar="MS", help="that a batch waits for more, when more are to be expected (4)")
    add("--max-queue", type=whole(1), default=512, metavar="N", help="inputs that may wait in a worker; more get 429 (default: 512)")
    add("--timeout", type=seconds, default=10.0, metavar="S", help="seconds for an answer, then 503 (default: 10)")
    add("--max-texts", type=whole(1), default=64, metavar="N", help=argparse.SUPPRESS)
    add("--max-chars", type=whole(1), default=10_000, metavar="N", help="of a text, the rest is cut off (default: 10000)")
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
    workers = args.workers or max(1, cores() // args.threads)
    if os.name == "nt" and workers > 1:
        if args.workers:
            raise UserError("--workers needs gunicorn, which Windows has not: leave it out, or use a container",
                            "--workers 需要 gunicorn，它在 Windows 上不可用：请去掉它，或改用容器")
        workers = 1
    return Settings(str(Path(args.folder).expanduser()), args.host, args.port, workers, args.threads, args.runtime, args.max_batch,
                    args.max_wait_ms, args.max_queue, args.timeout, args.max_texts, args.max_chars, args.max_body,
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
    url, zh = f"http://{host}:{place[1]}/", reader_language() == "zh"
    if zh:
        print(f"{settings.name} 已就绪：{url}（{settings.workers} 个进程）；按 Ctrl-C 结束", file=sys.stderr)
    else:
        print(f"{settings.name} is served at {url} by {plural(settings.workers, 'process')}; Ctrl-C ends it", file=sys.stderr)
    if is_open(settings.host) and not os.environ.get(TOKEN):
        print(f"其他机器也能访问，且无需令牌：若非本意，请设置 {TOKEN}" if zh else
              f"other machines can reach it, and nobody needs a token: set {TOKEN} if that is not meant", file=sys.stderr)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Serve until SIGTERM: 0. Raises `UserError`."""
    settings = settings_of(args)
    from bertcourse.serving import server
    with refusals():
        from bertcourse.runtime import read_about
        read_about(settings.folder)
        listener = open_port(settings)
        with listener:
            if settings.workers == 1:
                app = server.make_app(settings)
                greet(settings, listener.getsockname())
                server.run_alone(settings, listener, app)
                return 0
            server.check_apart(settings)
            greet(settings, listener.getsockname())
            return server.run_workers(settings, listener)
