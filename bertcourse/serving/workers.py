"""Several processes that serve: gunicorn starts them, watches them, and replaces one that dies or all of them on SIGHUP.

Only where gunicorn is: not on Windows.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from bertcourse.runtime import ModelError
from bertcourse.serving.logs import log, set_up, writer
from bertcourse.serving.metrics import FOLDER, forget
from bertcourse.serving.server import Server, Shares, make_app
from bertcourse.serving.settings import Settings

BOOT = 120  # seconds that a worker may take to load its model, or not to answer gunicorn
PAUSE = 5.0  # seconds before a worker that could not load its model is tried again
CHECK = "import sys; from bertcourse.serving.workers import check; check(*sys.argv[1:])"


def check(folder: str, runtime: str, provider: str) -> None:
    """In a process of its own: can the model be loaded? Prints the two sentences of its `ModelError` as JSON."""
    from bertcourse.models.exported import ExportedModel
    try:
        ExportedModel(folder, runtime, provider=provider)
    except ModelError as error:
        print(json.dumps([error.en, error.zh]))


def check_apart(settings: Settings) -> None:
    """Load the model once, in a process that ends: the one that forks workers must not have threads. Raises `ModelError`."""
    line = [sys.executable, "-c", CHECK, settings.folder, settings.runtime, settings.provider]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        why = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:200]
        raise ModelError(f"the model in {settings.folder} cannot be loaded ({why}): export it again",
                         f"{settings.folder} 里的模型无法加载（{why}）：请重新导出")
    if done.stdout.strip():
        raise ModelError(*json.loads(done.stdout))


class Lines(Logger):
    """gunicorn's log, as ours."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn."""
        self.loglevel = logging.WARNING
        set_up()


class Process(Worker):
    """A worker: a process with a model and a server."""

    def init_signals(self) -> None:
        """Called by gunicorn."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))  # while it loads the model
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the master's, and a terminal that is closed tells all processes
        signal.signal(signal.SIGQUIT, lambda number, frame: os._exit(0))  # the quick end: Ctrl-C

    def run(self) -> None:
        """Serve until SIGTERM."""
        async def notify() -> None:
            self.notify()
            server.should_exit |= os.getppid() != self.ppid  # gunicorn is gone, and nobody would end this process
        server = Server(self.app.settings, self.wsgi, self.app.shares, self.slot, callback_notify=notify, timeout_notify=5)
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn raises it again when all is done
        try:
            server.run(self.sockets)
        finally:
            writer().flush()


class Master(Arbiter):
    """gunicorn's master. On SIGHUP it replaces the workers one after the other, each when the one for it is ready.

    gunicorn itself ends all old ones at once: until the new ones have loaded the model, nobody would answer.
    """

    def __init__(self, app: Application) -> None:
        super().__init__(app)
        self.outgoing: list[Any] = []  # workers to be replaced, the oldest first
        self.incoming: Any = None  # that loads the model
        self.leaving: Any = None  # that answers its last requests

    def handle_hup(self) -> None:
        """Called on SIGHUP."""
        if self.app.in_terminal:  # which is closed
            raise StopIteration
        self.outgoing = [worker for worker in sorted(self.WORKERS.values(), key=lambda worker: worker.age)
                         if worker not in (self.incoming, self.leaving)]
        log("replacing_workers", workers=len(self.outgoing))

    def handle_usr2(self) -> None:
        """Called on SIGUSR2, on which gunicorn would start itself again."""
        log("signal_ignored", logging.WARNING, signal="SIGUSR2", why="SIGHUP replaces the workers")

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """As gunicorn, but more often while workers are replaced."""
        return super().wait_for_signals(0.1 if self.outgoing or self.incoming or self.leaving else timeout)

    def manage_workers(self) -> None:
        """As gunicorn, but one step further in replacing workers first."""
        living = list(self.WORKERS.values())
        self.outgoing = [worker for worker in self.outgoing if worker in living]
        if self.leaving not in living:
            self.leaving = None
        if self.incoming and self.incoming not in living:
            log("replacing_failed", logging.ERROR, why="a new worker could not load the model: the old ones go on")
            self.outgoing, self.incoming = [], None
        elif self.incoming and self.app.shares.is_ready(self.incoming):
            self.incoming = None
            if self.outgoing:
                self.leaving = self.outgoing.pop(0)
                self.kill_worker(self.leaving.pid, signal.SIGTERM)
        elif self.outgoing and not self.incoming and not self.leaving:
            self.incoming = self.WORKERS[self.spawn_worker()]
        if not (self.incoming or self.leaving):
            super().manage_workers()


class Application(BaseApplication):
    """What gunicorn is to run."""

    def __init__(self, settings: Settings, bind: str, folder: Path) -> None:
        self.settings, self.bind, self.folder = settings, bind, folder
        self.shares = Shares(2 * settings.workers + 8)  # while SIGHUP replaces workers there is one more; some may be about to end
        self.in_terminal = sys.stderr.isatty()
        super().__init__()

    def run(self) -> None:
        """Run until a signal ends it."""
        Master(self).run()

    def load_config(self) -> None:
        """Called by gunicorn."""
        settings = self.settings
        for name, value in {
            "bind": self.bind, "workers": settings.workers, "worker_class": Process, "logger_class": Lines,
            "timeout": BOOT, "graceful_timeout": int(settings.timeout + settings.read_timeout + settings.drain) + 2,
            "control_socket_disable": True, "pre_fork": enter, "child_exit": leave, "proc_name": "bertcourse",
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application with its model, in a worker."""
        try:
            return make_app(self.settings)
        except ModelError as error:  # it could be loaded when the service started: the others may still answer
            log("model_lost", logging.ERROR, error=error.en)
            time.sleep(PAUSE)
            os._exit(1)


def enter(arbiter: Master, worker: Process) -> None:
    """Called by gunicorn before it forks a worker."""
    worker.slot = arbiter.app.shares.enter(worker)


def leave(arbiter: Master, worker: Process) -> None:
    """Called by gunicorn when a worker has ended."""
    arbiter.app.shares.leave(worker)
    forget(worker.pid, arbiter.app.folder)
    log("worker_ended", worker=worker.pid)


def run_workers(settings: Settings, listener: socket.socket) -> int:
    """Serve with several processes until SIGTERM or SIGINT; gunicorn's exit code."""
    folder = Path(tempfile.mkdtemp(prefix="bertcourse-metrics-"))
    os.environ[FOLDER] = str(folder)
    owner = os.getpid()
    try:
        Application(settings, f"fd://{listener.detach()}", folder).run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        if os.getpid() != owner:  # a worker: only the first process goes on with what its caller does next
            os._exit(code)
        return code
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)
    return 0
