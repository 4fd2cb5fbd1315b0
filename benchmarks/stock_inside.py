"""Run a stock grader in the sandbox of `attacks.py`, and report its own score and what the submission did beside it.

Gets a request on standard input and writes one line of JSON. No benchmark by itself; needs the standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path("/home/teacher")
SCRATCH = (HOME, Path("/tmp"))  # what can be written
CODE = (  # which runs when nbgrader is done: its score of each student
    "import json; from nbgrader.api import Gradebook\n"
    "with Gradebook('sqlite:///gradebook.db') as book:\n"
    "    print(json.dumps({one.student.id: one.score for one in book.assignment_submissions('ps1')}))"
)


def write_files(files: dict[str, str]) -> None:
    """The folder of the teacher."""
    for name, content in files.items():
        path = HOME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))


def state(shown: list[str], own: list[str]) -> dict[str, tuple[int, int]]:
    """Size and time of all files that a submission has no business with."""
    found = {}
    for top in SCRATCH:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in shown]
            for name in names:
                path = os.path.join(folder, name)
                if not path.startswith(tuple(own)):
                    status = os.lstat(path)
                    found[path] = status.st_size, status.st_mtime_ns
    return found


def processes() -> set[int]:
    """All that run here, but the first one, this one, and what is no longer alive."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                if Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.add(int(name))
            except OSError:
                pass
    return found


def run_tool(command: list[str], cwd: Path, seconds: float) -> tuple[int | None, float, str]:
    """Exit status (None: it was ended), seconds, and the end of what it printed."""
    log, begin = HOME / "log", time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = None
            process.wait()
    return status, time.monotonic() - begin, log.read_bytes()[-1500:].decode(errors="replace")


def nbgrader_scores(cwd: Path) -> dict[str, float]:
    """What nbgrader's gradebook says."""
    done = subprocess.run([sys.executable, "-I", "-B", "-c", CODE], cwd=cwd, capture_output=True, text=True, timeout=20)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def otter_scores(cwd: Path) -> dict[str, float]:
    """What otter's file of results says."""
    try:
        tests = json.loads((cwd / "out" / "results.json").read_text())["tests"]
        return {"ann": sum(test.get("score") or 0.0 for test in tests)}
    except (OSError, ValueError, KeyError):
        return {}


def main() -> None:
    """Run the tool once."""
    request = json.load(sys.stdin)
    write_files(request["files"])
    cwd = HOME / "class"
    own = [str(path) for path in (HOME / "log", HOME / ".ipython", HOME / ".local/share", HOME / ".jupyter", HOME / ".cache", HOME / ".config", "/tmp/tmp")]
    own += [str(HOME / name) for name in request["own"]]
    before, running = state(request["shown"], own), processes()
    status, seconds, text = run_tool(request["command"], cwd, request["seconds"])
    time.sleep(0.2)  # kernels that are told to end do so
    left = processes() - running
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    after = state(request["shown"], own)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    try:
        scores = (nbgrader_scores if request["tool"] == "nbgrader" else otter_scores)(cwd)
    except subprocess.TimeoutExpired:
        scores = {}
    found = {"status": status, "seconds": seconds, "scores": scores, "changed": changed[:20], "left": len(left), "text": text}
    print(json.dumps({request["nonce"]: found}), flush=True)


if __name__ == "__main__":
    main()
