"""What the tests need, and nbval to run the course's notebooks (`pytest --nbval-lax --nbval-current-env nbs`)."""

import re
import signal

import pytest

# `nbdev_clean` leaves execution counts null, which nbval takes for "never run" and fails as soon as outputs are stored.
_EVAL_FALSE = re.compile(r"^\s*#\|\s*eval:\s*false\b", re.MULTILINE | re.IGNORECASE)


def pytest_configure() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that: tests that send it would all fail."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nbval run cleaned notebooks, and skip the cells that are not to be run."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is None or not hasattr(item, "cell_num"):
            continue
        if _EVAL_FALSE.search(cell.source):
            item.add_marker(pytest.mark.skip(reason="#| eval: false"))
        elif cell.execution_count is None:
            cell.execution_count = 0


def pytest_make_parametrize_id(val):
    """Bytes are named by their length: those of a gzip hold the second they were made in, and workers must collect the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
