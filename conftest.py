"""What the tests need, and nbval to run the course's notebooks (`pytest --nbval-lax --nbval-current-env nbs`).

Each cell's outputs are compared with those that are stored, and shown on the site: `tests/checks/outputs.py` says how.
"""

import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest

# `nbdev_clean` leaves execution counts null, which nbval takes for "never run" and fails as soon as outputs are stored.
_EVAL_FALSE = re.compile(r"^\s*#\|\s*eval:\s*false\b", re.MULTILINE | re.IGNORECASE)
CHECKS = Path(__file__).parent / "tests"
_PATCH = pytest.StashKey[pytest.MonkeyPatch]()
_genuine = {"signal": signal.signal, "raise_signal": signal.raise_signal}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-outputs`: for a notebook run on another model than the one whose outputs are stored."""
    parser.addoption("--no-outputs", action="store_true", help="run notebooks without comparing their outputs with the stored ones")


def pytest_configure(config: pytest.Config) -> None:
    """Signals reach whom they are meant for, and requests to this machine go past proxies.

    A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that: tests that send it would all fail.
    And `kill` is meant for pytest, not for the command under test that runs in the same process and handles SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[_PATCH] = patch = pytest.MonkeyPatch()
    ask_directly(patch)
    keep_termination(patch)
    signal.signal(signal.SIGTERM, end_at_once)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Handlers are set as usual again."""
    config.stash[_PATCH].undo()


def ask_directly(patch: pytest.MonkeyPatch) -> None:
    """Servers under test are on this machine, where no proxy looks for them; httpx would ask the one that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        patch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"])))


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End this process and all it has started, as if nobody handled the signal."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.terminate()
        except psutil.Error:
            pass  # it has ended by itself
    _genuine["signal"](number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def keep_termination(patch: pytest.MonkeyPatch) -> None:
    """A handler of SIGTERM that is set during a test is called for what the test itself raises; from outside, the process ends."""
    raising: list[int] = []

    def raise_signal(number: int) -> None:
        raising.append(number)
        try:
            _genuine["raise_signal"](number)
        finally:
            raising.pop()

    def set_handler(number: int, handler):
        if number != signal.SIGTERM or not callable(handler) or handler is end_at_once or hasattr(handler, "of_a_test"):
            return _genuine["signal"](number, handler)

        def handle(number: int, frame: FrameType | None) -> None:
            (handler if raising else end_at_once)(number, frame)

        handle.of_a_test = True
        return _genuine["signal"](number, handle)

    patch.setattr(signal, "signal", set_handler)
    patch.setattr(signal, "raise_signal", raise_signal)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nbval run cleaned notebooks, skip the cells that are not to be run, and name each test after its cell."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is None or not hasattr(item, "cell_num"):
            continue
        if _EVAL_FALSE.search(cell.source):
            item.add_marker(pytest.mark.skip(reason="#| eval: false"))
        elif cell.execution_count is None:
            cell.execution_count = 0


# Outputs are compared with those that `make outputs` stored, so notebooks run as they ran there: no progress bars, the same hashes.
KERNEL = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    """Before the first cell of a notebook nbval starts a kernel, which inherits this process' environment."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(item, "cell_num"):
            for name, value in KERNEL.items():
                patch.setenv(name, value)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """After a cell has run without an error, compare its outputs with the stored ones."""
    result = yield
    if getattr(item, "test_outputs", None) is not None and not item.config.getoption("--no-outputs"):
        if found := list(_differences(item)):
            item.raise_cell_error(f"the stored output of cell {item.cell.get('id')} is not that of a run: {'; '.join(found)}.\n"
                                  f"Run `make outputs NB={item.path.name.removesuffix('.ipynb')}` and look at what changed")
    return result


def _differences(item: pytest.Item) -> list[str]:
    if str(CHECKS) not in sys.path:
        sys.path.insert(0, str(CHECKS))
    from checks import outputs

    return outputs.cell_differences(item.cell, item.test_outputs)


def pytest_make_parametrize_id(val):
    """Bytes are named by their length: those of a gzip hold the second they were made in, and workers must collect the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure when it happens, not half an hour later; workers of pytest-xdist print nothing, the first process gets their reports."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when}): {_reason(report)[:300]}", file=sys.__stderr__, flush=True)


def _reason(report: pytest.TestReport) -> str:
    """The line of a report that says most."""
    if crash := getattr(report.longrepr, "reprcrash", None):
        return crash.message.strip().partition("\n")[0]
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", report.longreprtext).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Cell ")), lines[-1] if lines else "")
