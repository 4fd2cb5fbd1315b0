"""Call a learner's function so that it can neither hang the notebook nor change what is not its own."""

from __future__ import annotations

import builtins
import contextlib
import copy
import ctypes
import io
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

SECONDS = 10.0
AGAIN = 0.5  # seconds until an answer that swallowed the exception gets it again
LINES = 10  # of what an answer prints
LETTERS = 200  # of an error's message


class TimeIsUp(BaseException):
    """Raised in an answer that takes too long. Not an `Exception`, which the answer might catch."""


class _Alarm:
    """Raises `TimeIsUp` in the main thread once the time is up, and again while the answer swallows it."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.strikes, self.active = seconds, 0, True

    def strike(self, frame: FrameType | None) -> None:
        """The time is up; from the second time on every line of the answer raises, those of its `except` blocks too."""
        if not self.active:
            return
        self.strikes += 1
        if self.strikes > 1:
            sys.settrace(self._trace)
            while frame is not None and frame.f_code.co_filename != __file__:
                frame.f_trace = self._trace
                frame = frame.f_back
        raise TimeIsUp

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.active and event == "line" and frame.f_code.co_filename != __file__:
            raise TimeIsUp
        return self._trace


@contextlib.contextmanager
def _signal_limit(alarm: _Alarm) -> Iterator[None]:
    """The limit by a timer of the system: it also ends `time.sleep`."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: alarm.strike(frame))
    signal.setitimer(signal.ITIMER_REAL, alarm.seconds, AGAIN)
    try:
        yield
    finally:
        alarm.active = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _thread_limit(alarm: _Alarm) -> Iterator[None]:
    """The limit where there is no such timer (Windows) or this is not the main thread: between two steps of Python only."""
    target, done = threading.get_ident(), threading.Event()

    def watch() -> None:
        wait = alarm.seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object(TimeIsUp))
            wait = AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        alarm.active = False
        done.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), None)  # one that has not been raised yet


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUp` in what runs inside once `seconds` are over. One long call of compiled code is not interrupted."""
    tracer = sys.gettrace()
    on_main = threading.current_thread() is threading.main_thread()
    limit = _signal_limit if on_main and hasattr(signal, "setitimer") else _thread_limit
    try:
        with limit(_Alarm(seconds)):
            yield
    finally:
        sys.settrace(tracer)


@contextlib.contextmanager
def kept_state() -> Iterator[None]:
    """Seed the random generators; at the end put them back, and gradient mode, default type and threads, which an answer may change."""
    import numpy as np
    import torch
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    try:
        random.seed(0), np.random.seed(0), torch.random.default_generator.manual_seed(0)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@contextlib.contextmanager
def no_input() -> Iterator[None]:
    """`input()` raises an error: a question to the learner would outlast the check."""
    def refuse(*_: object) -> str:
        raise RuntimeError("input() cannot be used in an exercise: everything that it needs is in its arguments")
    before, builtins.input = builtins.input, refuse
    try:
        yield
    finally:
        builtins.input = before


@dataclass(frozen=True)
class Failure:
    """An error that an answer raised: its type and message, and the line of the answer."""

    kind: str  # the exception's class
    message: str
    line: int | None = None  # in the learner's cell, from 1
    code: str = ""  # that line

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@dataclass(frozen=True)
class Call:
    """One call of a function: what it returned or raised."""

    value: Any = None
    failure: Failure | None = None
    arguments: tuple[Any, ...] = ()  # after the call
    printed: str = ""
    is_late: bool = False


def _failure(error: BaseException, function: Callable[..., Any]) -> Failure:
    """The error with the last line of the answer's own file."""
    message = " ".join(str(error).split())[:LETTERS]
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not frames:
        return Failure(type(error).__name__, message)
    return Failure(type(error).__name__, message, frames[-1].lineno, (frames[-1].line or "").strip())


def call(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float = SECONDS) -> Call:
    """Call a function with copies of the arguments, for at most `seconds`; never raises what it raises."""
    arguments, printed = copy.deepcopy(arguments), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings(), no_input():
        warnings.simplefilter("ignore")
        try:
            with time_limit(seconds):
                value = function(*arguments)
            return Call(value, None, arguments, _shortened(printed))
        except TimeIsUp:
            return Call(None, None, arguments, _shortened(printed), is_late=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, too: an answer may not end the kernel
            return Call(None, _failure(error, function), arguments, _shortened(printed))


def _shortened(printed: io.StringIO) -> str:
    lines = printed.getvalue().splitlines()
    return "\n".join(line[:LETTERS] for line in lines[:LINES]) + ("\n…" if len(lines) > LINES else "")


def remaining(end: float) -> float:
    """Seconds until a moment of `time.monotonic`, at least a tenth."""
    return max(0.1, end - time.monotonic())
