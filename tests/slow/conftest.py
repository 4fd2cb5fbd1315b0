"""What the slow tests share: JupyterLab as `bertcourse lab` starts it, and a browser."""

import functools
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

TOKEN = "for-the-test"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync"]
KEPT = re.compile(r"PATH|LANG|LC_.*|TMPDIR|BERTCOURSE_DATA|OMP_.*|SYSTEMROOT", re.IGNORECASE)


# They use both cores themselves, or have limits of time: they run after the others, one at a time.
ALONE = ("test_serving_benchmark", "test_serving_load", "test_serving_page", "test_two_processes")
SPREAD = ("test_corpus_statistics", "test_experiments", "test_grading_sandbox")  # without fixtures that all tests of a module share


def scope_of(test: str) -> str:
    """Tests of one scope run in one process: those of a module, which share fixtures; each of `SPREAD` is its own."""
    file = test.partition("::")[0]
    return test if Path(file).stem in SPREAD else file


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Distribute by `scope_of`: with pytest 9.2 pytest-xdist's own groups are ignored without a word (pytest-xdist#1386)."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder is slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if item.path.stem in ALONE:
                item.add_marker(pytest.mark.alone)


def make_environment(home: Path, **more: str) -> dict[str, str]:
    """A new user's environment: an empty home, nothing of Jupyter, Hugging Face, pip or a proxy."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
    return kept | {"HOME": str(home), "USERPROFILE": str(home), "LC_ALL": "C.UTF-8"} | more


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_jupyterlab(folder: Path, home: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Run `bertcourse lab` on a workspace; yields the address that opens it. Its log goes to `home`/lab.log."""
    port = free_port()
    command = [sys.executable, "-m", "bertcourse.app.cli", "lab", "--dir", str(folder), "--no-browser",
               f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", *arguments]
    env = make_environment(home, **environment)
    log = home / "lab.log"
    with log.open("w") as out, subprocess.Popen(command, env=env, cwd=home, stdout=out, stderr=out) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api/status?token={TOKEN}", process, log)
            yield f"{address}/?token={TOKEN}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Wait until the server answers; fail with its log if it ends or is late."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not come up (exit code {process.poll()}):\n{log.read_text()}")


@pytest.fixture
def bare_environment() -> Callable[..., dict[str, str]]:
    """`make_environment`, for test modules: a conftest is not for importing."""
    return make_environment


@pytest.fixture
def jupyterlab() -> Callable[..., AbstractContextManager[str]]:
    """`run_jupyterlab`, likewise."""
    return run_jupyterlab


@pytest.fixture(scope="module")  # not the session: while playwright is open its event loop counts as running, and asyncio.run refuses
def browser():
    """Debian's Chromium, or whatever of that family is on PATH."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is on PATH (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_ARGS)
        yield browser
        browser.close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """A file server that writes no log."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="session")
def serve_files() -> Iterator[Callable[[Path], str]]:
    """Serve a folder on this machine until the tests are over; gives the address."""
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(QuietFiles, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures go: `BERTCOURSE_SCREENSHOTS`, else a temporary folder."""
    folder = Path(os.environ.get("BERTCOURSE_SCREENSHOTS") or tempfile.mkdtemp(prefix="bertcourse-screenshots-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
