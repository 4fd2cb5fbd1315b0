"""What runs in the sandbox: the cells of one notebook, then its functions on the inputs that came with it.

Only values leave it, by `wire`; nothing here knows a right answer. The first process never runs a line of the submission: it starts
another one for that, and starts it again without the cell or exercise that ended it, so that what comes after is tried, too.
Everything may be attacked by the submission. That changes which values are sent, and values are all that is judged.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import linecache
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

WRAPPERS = re.compile(r"\s*%%(?:time|timeit|capture|prun)\b[^\n]*\n")  # magics whose cell is Python
MAGIC = re.compile(r"^\s*[%!?]|\?\s*$|=\s*[%!]", re.MULTILINE)
GRACE = 2.0  # seconds after the time limit until the process is killed that does not end by itself
MEGABYTE = 1_000_000


# --- limits -------------------------------------------------------------------------------------------------------

def set_limits(limits: Mapping[str, int]) -> None:
    """Bound what this process and its children may use, for good."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource
        wanted = {"RLIMIT_CPU": limits["cpu_seconds"], "RLIMIT_NPROC": limits["processes"], "RLIMIT_FSIZE": limits["file_bytes"],
                  "RLIMIT_NOFILE": limits["files"], "RLIMIT_CORE": 0, "RLIMIT_AS": address_space() + limits["memory_bytes"]}
        for name, value in wanted.items():
            if hasattr(resource, name):
                with contextlib.suppress(ValueError, OSError):  # below what there is already: that one holds
                    resource.setrlimit(getattr(resource, name), (value, value))


def address_space() -> int:
    """Bytes that this process has mapped, most of them libraries."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 8_000 * MEGABYTE


# --- cells --------------------------------------------------------------------------------------------------------

class NoShell:
    """What `get_ipython()` gives: magics and shell commands do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def plain_python(source: str) -> str:
    """A cell without magics: they become calls of `get_ipython()`."""
    source = WRAPPERS.sub("", source, count=1) if WRAPPERS.match(source) else source
    if not MAGIC.search(source):
        return source
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        return "\n".join("pass" if re.match(r"[%!?]", line) else line for line in source.split("\n"))
    return TransformerManager().transform_cell(source)


def run_cell(source: str, name: str, names: dict[str, Any], seconds: float) -> str:
    """Run a cell; what went wrong, or ""."""
    from bertcourse.exercises.running import TimeIsUp, no_input, time_limit
    try:
        code = plain_python(source)
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        compiled = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with no_input(), time_limit(seconds):
            waiting = eval(compiled, names)
            if inspect.iscoroutine(waiting):
                asyncio.run(waiting)
    except TimeIsUp:
        return "TimeIsUp"
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too: the next cell comes all the same
        return type(error).__name__
    return ""


def hide_checks() -> None:
    """`check`, `hint`, `solution` and `progress` do nothing here."""
    import bertcourse.exercises
    for name in ("check", "hint", "solution", "progress"):
        setattr(bertcourse.exercises, name, lambda *args, **kwargs: None)


# --- exercises ----------------------------------------------------------------------------------------------------

def prepare(exercise: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], Callable[..., Any] | None]:
    """The inputs of an exercise, and what looks at a result before it is compared."""
    from bertcourse.exercises.definition import shuffled_cases
    names: dict[str, Any] = {"__name__": f"bertcourse.exercises.inputs_{exercise['id'].replace('.', '_')}"}
    exec(compile(exercise["inputs"], f"<inputs of {exercise['id']}>", "exec"), names)
    cases = shuffled_cases(eval(exercise["cases"], names), exercise["seed"])
    return cases, eval(exercise["observe"], names) if exercise["observe"] else None


def try_case(function: Callable[..., Any], arguments: tuple[Any, ...], observe: Any, seconds: float) -> dict[str, Any]:
    """One call of the answer, as it is sent."""
    from bertcourse.exercises.checking import is_data
    from bertcourse.exercises.running import call
    from bertcourse.grading.wire import encode
    done = call(function, arguments, seconds)
    sent: dict[str, Any] = {"printed": done.printed}
    if done.is_late:
        return sent | {"late": True}
    if done.failure:
        return sent | {"failure": [done.failure.kind, done.failure.message, done.failure.line, done.failure.code]}
    sent["arguments"] = [encode(one) if is_data(one) else None for one in done.arguments]
    sent["raw"] = encode(done.value)
    if observe is None:
        return sent
    try:
        return sent | {"value": encode(observe(done.value, done.arguments))}
    except Exception as error:
        return sent | {"error": type(error).__name__}


def try_exercise(exercise: Mapping[str, Any], inputs: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """All calls of one answer, or why there are none."""
    from bertcourse.exercises.checking import code_of, same_body
    from bertcourse.exercises.running import kept_state, remaining
    function = names.get(exercise["name"])
    if not callable(function):
        return {"missing": exercise["name"] in names}
    unchanged = same_body(getattr(function, "__code__", None), code_of(exercise["stub"], exercise["name"]))
    cases, observe = inputs
    end, calls = time.monotonic() + exercise["seconds"], []
    with kept_state():
        for arguments in cases:
            calls.append(try_case(function, arguments, observe, remaining(end)))
            if "late" in calls[-1]:
                break
    return {"unchanged": bool(unchanged), "calls": calls}


# --- the process that runs the submission -------------------------------------------------------------------------

def run_notebook(request: Mapping[str, Any], skip: set[str], send: Callable[[dict[str, Any]], None]) -> None:
    """Run the cells and try the exercises but those to be skipped, and say before each which one comes."""
    hide_checks()
    inputs = {one["id"]: prepare(one) for one in request["exercises"] if one["id"] not in skip}
    names: dict[str, Any] = {"__name__": "__main__", "get_ipython": NoShell, "display": lambda *args, **kwargs: None}
    for number, source in enumerate(request["cells"], 1):
        step = f"cell {number}"
        if step in skip or time.monotonic() > request["until"]:  # the rest of the time is for the exercises
            continue
        send({"step": step, "seconds": request["cell_seconds"]})
        if error := run_cell(source, f"<{step}>", names, request["cell_seconds"]):
            send({"cell": number, "error": error})
    for exercise in request["exercises"]:
        if exercise["id"] not in skip:
            send({"step": exercise["id"], "seconds": exercise["seconds"]})
            send({"exercise": exercise["id"], "result": try_exercise(exercise, inputs[exercise["id"]], names)})


def line(message: Mapping[str, Any]) -> bytes:
    """A message as a line of JSON in ASCII."""
    return json.dumps(message).encode() + b"\n"


def child(request: Mapping[str, Any], skip: set[str], pipe: int) -> None:
    """The body of the process that runs the submission; does not return."""
    write, leave = os.write, os._exit

    def send(message: dict[str, Any]) -> None:
        data = memoryview(line(message))
        while data:
            data = data[write(pipe, data):]
    try:
        run_notebook(request, skip, send)
        send({"step": "end", "seconds": 0})
    finally:
        leave(0)


# --- the process that watches it ----------------------------------------------------------------------------------

class Watch:
    """Reads what the other process sends, and knows which step it is at and until when."""

    def __init__(self, pipe: int, out: BinaryIO) -> None:
        self.pipe, self.out, self.rest, self.step, self.done = pipe, out, b"", "start", set()
        self.end = time.monotonic() + 60

    def follow(self) -> bool:
        """Pass results on until the other process ends or is too late; is everything done?"""
        while (wait := self.end + GRACE - time.monotonic()) > 0:
            if not select.select([self.pipe], [], [], wait)[0]:
                break
            data = os.read(self.pipe, 1 << 16)
            if not data:
                break
            *lines, self.rest = (self.rest + data).split(b"\n")
            for one in lines:
                self.take(one)
            if self.step == "end":
                return True
        return False

    def take(self, text: bytes) -> None:
        """Note a step, or pass a result on."""
        try:
            message = json.loads(text)
            if "step" in message:
                self.step, self.end = str(message["step"]), time.monotonic() + min(float(message["seconds"]), 600.0)
                return
            if "exercise" in message:
                self.done.add(str(message["exercise"]))
            if message.get("error") == "TimeIsUp":
                self.done.add(f"cell {message['cell']}")  # another try would take as long
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return  # no message of ours
        self.out.write(text + b"\n")
        self.out.flush()


def attempt(request: Mapping[str, Any], skip: set[str], out: BinaryIO) -> tuple[bool, str, set[str]]:
    """Run the submission in a process of its own: is all done, the last step, and what needs no second try."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        child(request, skip, writing)
    os.close(writing)
    watch = Watch(reading, out)
    try:
        done = watch.follow()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
    return done, watch.step, watch.done


def grade(request: Mapping[str, Any], out: BinaryIO) -> None:
    """Try everything, as often as something ends the process before its end."""
    skip: set[str] = set()
    steps = {f"cell {n}" for n in range(1, len(request["cells"]) + 1)} | {one["id"] for one in request["exercises"]}
    for _ in range(len(steps) + 1):
        done, step, tried = attempt(request, skip, out)
        if done:
            break
        out.write(line({"ended": step}))
        skip |= (tried | {step}) & steps
        if step not in steps:
            break
    out.write(line({"end": True}))
    out.flush()


def quiet_descriptors() -> BinaryIO:
    """Standard output as a file of our own; whatever else is printed goes nowhere."""
    own = os.dup(1)
    os.set_inheritable(own, False)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return os.fdopen(own, "wb", buffering=0)


def main() -> None:
    """Read a request from standard input, and write results to standard output."""
    request = json.load(sys.stdin.buffer)
    out = quiet_descriptors()
    import numpy  # noqa: F401
    import torch

    import bertcourse.exercises.checking
    import bertcourse.exercises.definition
    import bertcourse.grading.wire  # noqa: F401  all that is needed, once for all attempts
    torch.set_num_threads(1)
    request["until"] = time.monotonic() + request["seconds"] / 2
    set_limits(request["limits"])
    grade(request, out)
