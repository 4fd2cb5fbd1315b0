"""`bertcourse lab`: make or renew the learner's workspace and open it in JupyterLab."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from bertcourse.app import workspace
from bertcourse.base.display import printable
from bertcourse.base.machine import choose_threads, wait_passively
from bertcourse.base.messages import UserError
from bertcourse.languages import LANGUAGES

PASS_THROUGH = True  # to `jupyter lab`
TINY, TINY_WIDTH = "tiny", 128  # the default profile and the hidden size of its model
WORKSPACE = Path("bertcourse-work")
OPTIONS = ("--dir", "--lang", "--update", "--no-browser", "--port", "--no-launch", "--help")
QUIET = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
DEFAULTS = {  # of JupyterLab's settings; a learner's own choices go before them
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},  # asks nothing
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},  # README, to read
}


def port(text: str) -> int:
    """A TCP port; 0 means any free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dir", type=Path, default=WORKSPACE, help="your folder (default: %(default)s)")
    parser.add_argument("--lang", choices=LANGUAGES, help="default: the one the folder has, else that of your locale")
    parser.add_argument("--update", action="store_true", help="add what is new, beside what you changed")
    parser.add_argument("--no-browser", action="store_true", help="start the server only")
    parser.add_argument("--port", type=port, help="where the server listens (default: 8888, or the next free one)")
    parser.add_argument("--no-launch", action="store_true", help="write the folder, start nothing")


def check_extra(extra: Sequence[str]) -> None:
    """Refuse a slip of the pen that `jupyter lab` would be asked to understand. Raises `UserError`."""
    for word in extra:
        option = word.partition("=")[0]
        near = difflib.get_close_matches(option, OPTIONS, n=1, cutoff=0.8)
        if option.startswith("--") and near:
            raise UserError(f"there is no option {option}: did you mean {near[0]}?",
                            f"没有 {option} 这个选项：是不是 {near[0]}？")


def check_jupyterlab() -> None:
    """Raises `UserError` if JupyterLab or its Python kernel is not installed."""
    for name in ("jupyterlab", "ipykernel"):
        if find_spec(name) is None:
            raise UserError(f'{name} is not installed in this Python: pip install "bertcourse[lab]"',
                            f'这个 Python 里没有安装 {name}：请运行 pip install "bertcourse[lab]"')


def check_port(number: int | None) -> None:
    """Raises `UserError` if JupyterLab could not listen at the port that was asked for; it would quietly take the next one."""
    if not number:  # none was asked for, or any that is free
        return
    try:
        found = socket.getaddrinfo("localhost", number, type=socket.SOCK_STREAM)
    except OSError:  # the name is unknown here; JupyterLab will say what it makes of that
        return
    for family, kind, _, _, address in found:
        try:
            with socket.socket(family, kind) as probe:
                if os.name != "nt":  # there it means that a port may be taken from somebody else
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a machine without IPv6
                continue
            used = error.errno == errno.EADDRINUSE
            raise UserError(f"port {number} {'is in use' if used else f'cannot be used ({error.strerror})'}: "
                            "choose another with --port, or leave --port out",
                            f"端口 {number} {'已被占用' if used else f'无法使用（{error.strerror}）'}：请用 --port 换一个，或去掉 --port") from None


def jupyter_command(root: Path, args: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """The command that starts JupyterLab on a workspace, without dialogs and without asking the network."""
    page = workspace.first_page(root)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", *QUIET]
    if page:
        command.append(f"--LabApp.default_url=/lab/tree/{page}")
    if args.no_browser:
        command.append("--no-browser")
    if args.port is not None:
        command.append(f"--port={args.port}")
        if not any("port_retries" in word or "port-retries" in word for word in extra):  # JupyterLab refuses it twice
            command.append("--ServerApp.port_retries=0")  # this port and no other
    if getattr(os, "geteuid", lambda: 1)() == 0:
        command.append("--allow-root")  # a container's only user; the server listens on this machine only
    return command + list(extra)


def write_settings(folder: Path) -> None:
    """What JupyterLab is to find before it looks at the user's own: this very Python as kernel, and `DEFAULTS`."""
    from ipykernel.kernelspec import write_kernel_spec  # only here: it is not quick to import
    write_kernel_spec(folder / "kernels" / "python3")
    (folder / "labconfig").mkdir()
    (folder / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(DEFAULTS), encoding="utf-8")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder until the end. Raises `UserError` if there is no place for one."""
    try:
        made = tempfile.TemporaryDirectory(prefix="bertcourse-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror}): set TMPDIR to a folder that can be written",
                        f"无法建立临时文件夹（{error.strerror}）：请把 TMPDIR 设为可写的文件夹") from None
    with made as folder:
        yield Path(folder)


def is_writable(folder: Path) -> bool:
    """Can files be made in this folder? It is made itself if it is missing, as Jupyter would."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def own_folders() -> dict[str, Path]:
    """Where Jupyter, IPython and matplotlib write for this user, by the variable that names another folder."""
    from jupyter_core import paths
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    matplotlib = config / "matplotlib" if sys.platform == "linux" else home / ".matplotlib"
    return {"JUPYTER_CONFIG_DIR": Path(paths.jupyter_config_dir()), "JUPYTER_DATA_DIR": Path(paths.jupyter_data_dir()),
            "JUPYTER_RUNTIME_DIR": Path(paths.jupyter_runtime_dir()),
            "IPYTHONDIR": Path(os.environ.get("IPYTHONDIR") or home / ".ipython"),
            "MPLCONFIGDIR": Path(os.environ.get("MPLCONFIGDIR") or matplotlib)}


def substitutes(folder: Path) -> dict[str, str]:
    """Variables that put into `folder` what cannot be written where it belongs: in a container with an arbitrary user, for one."""
    try:
        missing = [name for name, own in own_folders().items() if not is_writable(own)]
    except RuntimeError:  # a user without a home
        missing = ["HOME"]
    made = {name: folder / "home" / name.lower() for name in missing}
    for place in made.values():
        place.mkdir(parents=True)
    return {name: str(place) for name, place in made.items()}


def environment(lang: str, settings: str | Path, changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """The server's and its kernels' environment: language, folder of settings, this Python's folder for shell cells, threads.

    `changed` are variables that differ from this process' own.
    """
    first = {"JUPYTER_PATH": str(settings), "JUPYTER_CONFIG_PATH": str(settings), "PATH": str(Path(sys.executable).parent)}
    paths = {key: os.pathsep.join(filter(None, [path, os.environ.get(key)])) for key, path in first.items()}
    made = os.environ | dict(changed or {}) | paths | {"BERTCOURSE_LANG": lang}
    wait_passively(made)
    if made.get("BERTCOURSE_PROFILE", TINY) == TINY and "MKL_NUM_THREADS" not in made:
        made.setdefault("OMP_NUM_THREADS", str(choose_threads(TINY_WIDTH)))
    return made


def serve(command: list[str], env: dict[str, str]) -> int:
    """Run JupyterLab until it ends. Ctrl-C reaches it too, and it asks before it stops: so wait for its answer."""
    with subprocess.Popen(command, env=env) as server:
        with suppress(ValueError):  # not in the main thread: then somebody else handles signals
            signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        interrupted = False
        while True:
            try:
                code = server.wait()
                return 130 if interrupted else code
            except KeyboardInterrupt:
                interrupted = True


def update_command(folder: Path) -> str:
    """What renews this workspace, as it is typed."""
    words = [*workspace.UPDATE.split(), *([] if folder == WORKSPACE else ["--dir", str(folder)])]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def say_where(changed: dict[str, str], lang: str) -> None:
    """One line if something of the user's cannot be written."""
    if any(name in changed for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")):
        print("主目录不可写：JupyterLab 的设置既不读取也不保留，笔记本照常保存在工作区。" if lang == "zh" else
              "Your home folder cannot be written: JupyterLab's settings are neither read nor kept; notebooks are saved as always.", flush=True)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the workspace, say what was done, start JupyterLab; returns its exit code. Raises `UserError`."""
    check_extra(extra)
    if not args.no_launch:
        check_jupyterlab()
        check_port(args.port)
    report = workspace.prepare(args.dir, args.lang, args.update)
    print(*map(printable, report.lines(update_command(args.dir))), sep="\n", flush=True)
    if args.no_launch:
        return 0
    with temporary_folder() as folder:
        write_settings(folder)
        changed = substitutes(folder)
        say_where(changed, report.lang)
        env = environment(report.lang, folder, changed)
        return serve(jupyter_command(report.root, args, extra), env)
