"""Run a submission where it can reach nothing: bubblewrap, without privileges, network or files, for a bounded time.

What runs inside sees Python, its libraries and this package, all read-only, and a small scratch folder that vanishes. The process
that starts it drops root and its environment first, so that what got out of the namespaces would find an account without rights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bertcourse
from bertcourse.base.errors import UserError
from bertcourse.exercises.running import SECONDS

NOBODY = 65534  # user and group without rights
LIBRARIES = ("torch", "numpy", "IPython")  # whose places are shown inside
START = "import sys; sys.path.insert(0, {root!r}); from bertcourse.grading.inside import main; main()"
TRIAL = "import sys; sys.path.insert(0, {root!r}); import bertcourse.grading.inside, numpy, torch; print('inside')"  # what every submission needs
POLL = 0.2  # seconds between two looks at the memory
RESERVE = 300_000_000  # bytes of memory that the machine keeps
ENVIRONMENT = {"HOME": "/tmp", "USER": "student", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
               "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 120.0  # wall clock, all in all
    cell_seconds: float = 10.0
    answer_seconds: float = SECONDS  # all inputs of one exercise
    memory_mb: int = 2_000  # of all its processes together, and of each
    processes: int = 64
    file_mb: int = 50  # one file
    scratch_mb: int = 100  # all files
    output_mb: int = 40  # what it sends
    files: int = 256  # open at once

    def inside(self) -> dict[str, int]:
        """Those that the process inside sets."""
        return {"cpu_seconds": int(self.seconds) + 5, "processes": self.processes, "file_bytes": self.file_mb * 10**6, "files": self.files,
                "memory_bytes": self.memory_mb * 10**6}


# --- what is shown inside -----------------------------------------------------------------------------------------

@cache
def shown_folders() -> tuple[Path, ...]:
    """Folders that Python needs, read-only inside, none within another."""
    package = Path(bertcourse.__file__).resolve().parent
    found = {Path("/usr"), Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, package}
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            found.add(Path(spec.origin).resolve().parent.parent)
    return tuple(sorted(one for one in found if not any(other in one.parents for other in found)))


def hidden_folders() -> list[Path]:
    """What is not shown although it lies within: the exercises with their solutions."""
    return [path for path in [Path(bertcourse.__file__).resolve().parent / "assets" / "exercises"] if path.is_dir()]


def _is_open(path: Path) -> bool:
    """May anybody look into it?"""
    return bool(path.stat().st_mode & 0o001)


def openings(folders: Sequence[Path]) -> list[str]:
    """Options of a first bubblewrap, run as root, that let nobody reach folders below one that is closed, such as /root."""
    closed = {parent for folder in folders for parent in folder.parents if not _is_open(parent)}
    tops = sorted(one for one in closed if not any(parent in closed for parent in one.parents))
    options = []
    for top in tops:
        options += ["--tmpfs", str(top)]
        inner = [folder for folder in folders if top in folder.parents]
        made = {parent for folder in inner for parent in folder.parents if top in parent.parents}
        for folder in sorted(made):
            options += ["--perms", "0755", "--dir", str(folder)]
        for folder in inner:
            options += ["--ro-bind", str(folder), str(folder)]
    return options


# --- the command --------------------------------------------------------------------------------------------------

def system_folders() -> list[str]:
    """Options that show the system's folders beside /usr, most of which are links into it today."""
    options = []
    for name in ("lib", "lib64", "lib32", "bin", "sbin"):
        place = Path("/", name)
        if place.is_symlink():
            options += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            options += ["--ro-bind", str(place), str(place)]
    return options


def walls(limits: Limits) -> list[str]:
    """The options of bubblewrap: everything apart, nothing writable but a scratch folder."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL",
               "--die-with-parent", "--new-session", "--clearenv", "--proc", "/proc", "--dev", "/dev"]
    options += system_folders()
    options += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--size", str(limits.scratch_mb * 10**6), "--tmpfs", "/tmp"]
    for folder in shown_folders():
        options += ["--ro-bind", str(folder), str(folder)]
    for folder in hidden_folders():
        options += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    options += ["--size", "1000000", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    for name, value in ENVIRONMENT.items():
        options += ["--setenv", name, value]
    return [*options, "--remount-ro", "/", "--chdir", "/tmp"]


def python(code: str) -> list[str]:
    """The interpreter, without what the account or the environment would add to it; `{root}` in the code is where this package lies."""
    return [sys.executable, "-I", "-B", "-c", code.format(root=str(Path(bertcourse.__file__).resolve().parent.parent))]


def sandboxed(command: Sequence[str], limits: Limits) -> list[str]:
    """A command behind the walls."""
    inner = ["bwrap", *walls(limits), "--", *command]
    if os.geteuid() != 0:
        return inner
    dropped = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs", "--inh-caps", "-all",
               "--bounding-set", "-all", "--pdeathsig", "KILL", "--", *inner]
    extra = openings(shown_folders())
    return ["bwrap", "--dev-bind", "/", "/", *extra, "--die-with-parent", "--", *dropped] if extra else dropped


# --- is there one? ------------------------------------------------------------------------------------------------

OWN_WORK = ("or, for work of your own only, add --trust-submissions", "如果只是检查自己的作业，可以加上 --trust-submissions")


def _refused(en: str, zh: str) -> UserError:
    return UserError(f"submissions are not run without a sandbox: {en}, {OWN_WORK[0]}", f"没有沙箱就不运行提交的作业：{zh}；{OWN_WORK[1]}")


@cache
def check_sandbox() -> None:
    """Raises `UserError` where submissions cannot be run behind walls, with what has to be installed or allowed."""
    if sys.platform != "linux":
        raise _refused("grade on Linux (on Windows in WSL 2)", "请在 Linux 上批改（Windows 上用 WSL 2）")
    if shutil.which("bwrap") is None:
        raise _refused("install bubblewrap (Debian and Ubuntu: `apt install bubblewrap`)", "请安装 bubblewrap（Debian、Ubuntu：`apt install bubblewrap`）")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise _refused("grade as an ordinary user, or install util-linux (setpriv)", "请用普通用户批改，或安装 util-linux（setpriv）")
    try:
        tried = subprocess.run(sandboxed(python(TRIAL), Limits()), capture_output=True, timeout=60, env={"PATH": os.environ.get("PATH", "")})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(f"bubblewrap does not run here ({error})", f"bubblewrap 在这里不能运行（{error}）") from None
    if tried.returncode or tried.stdout.strip() != b"inside":
        said = (tried.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        if not said.startswith(("bwrap", "setpriv", "no message")):
            raise _refused(f"Python or bertcourse does not start in it ({said}), which mostly means that they lie where it cannot show them; install "
                           "them in another folder", f"Python 或 bertcourse 在沙箱里启动不了（{said}），多半是装在沙箱看不到的位置；请装到别的文件夹")
        raise _refused(f"bubblewrap cannot build one here ({said}), which mostly means that user namespaces are switched off; an "
                       "administrator allows them with `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu from 24.04 on with an AppArmor "
                       "profile for bwrap, in a container by starting it with them",
                       f"bubblewrap 在这里建不了沙箱（{said}），多半是没有开放用户命名空间；管理员可用 `sysctl kernel.unprivileged_userns_clone=1` 开放，"
                       "Ubuntu 24.04 起要给 bwrap 一个 AppArmor 配置，在容器里则要在启动时允许")


# --- running ------------------------------------------------------------------------------------------------------

class Stopped(Exception):
    """A submission was ended from outside: why, in one word ("time", "memory", "output")."""


def _in_files(pid: int, seen: set[tuple[int, int]]) -> int:
    """Bytes in files of a process that lie in memory and nowhere else."""
    total = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("/memfd:"):
                    continue
                status = os.stat(f"/proc/{pid}/fd/{name}")
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def _memory(pid: int) -> int:
    """Bytes that a process and those that it started hold in memory; what several share counts once."""
    import psutil
    total, seen = 0, set()
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                info = one.memory_full_info()
                total += getattr(info, "pss", info.rss)
            total += _in_files(one.pid, seen)
    return total


def _too_much_memory(pid: int, limits: Limits) -> bool:
    """Is the limit passed, or the machine itself short of memory, for whatever reason?"""
    import psutil
    return _memory(pid) > limits.memory_mb * 10**6 or psutil.virtual_memory().available < RESERVE


def _lines(process: subprocess.Popen[bytes], limits: Limits, stop: threading.Event) -> Iterator[bytes]:
    """What a process writes, line by line, within its limits. Raises `Stopped`."""
    end, size, rest, look = time.monotonic() + limits.seconds, 0, b"", 0.0
    descriptor = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if stop.is_set() or time.monotonic() > end:
                raise Stopped("time")
            if time.monotonic() > look:
                if _too_much_memory(process.pid, limits):
                    raise Stopped("memory")
                look = time.monotonic() + POLL
            if not selector.select(min(POLL, max(0.0, end - time.monotonic()))):
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            size += len(data)
            if size > limits.output_mb * 10**6:
                raise Stopped("output")
            *lines, rest = (rest + data).split(b"\n")
            yield from lines


def _feed(process: subprocess.Popen[bytes], request: bytes) -> None:
    """Write the request; the process may end without reading it."""
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(request)
        process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its group, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()


def run(request: bytes, limits: Limits, trust: bool = False, stop: threading.Event | None = None) -> Iterator[bytes]:
    """The lines that the process inside sends for a request, as they come. Raises `Stopped` and `OSError`.

    trust: without any walls, for one's own work: what runs may do whatever the account may.
    stop: ends it at once when it is set.
    """
    command = python(START)
    with tempfile.TemporaryDirectory(prefix="bertcourse-grade-") if trust else contextlib.nullcontext("/") as folder:
        place: dict[str, Any] = {"cwd": folder, "env": ENVIRONMENT | {"HOME": folder, "TMPDIR": folder}} if trust else {"cwd": "/", "env": {
            "PATH": os.environ.get("PATH", os.defpath)}}
        process = subprocess.Popen(command if trust else sandboxed(command, limits), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, start_new_session=True, **place)  # fmt: skip
        feeder = threading.Thread(target=_feed, args=(process, request), daemon=True)
        feeder.start()
        try:
            yield from _lines(process, limits, stop or threading.Event())
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)  # it ends by itself, and its CPU time is counted
        finally:
            _end(process)
            feeder.join(5)
