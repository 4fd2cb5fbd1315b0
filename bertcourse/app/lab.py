"""`bertcourse lab`: make or renew the learner's workspace and open it in JupyterLab."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from bertcourse.app import workspace
from bertcourse.app.messages import UserError
from bertcourse.languages import LANGUAGES

PASS_THROUGH = True  # to `jupyter lab`
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
    parser.epilog = "Further arguments go to `jupyter lab`. What you changed in the folder is never overwritten."


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
    if getattr(os, "geteuid", lambda: 1)() == 0:
        command.append("--allow-root")  # a container's only user; the server listens on this machine only
    return command + list(extra)


def write_settings(folder: Path) -> None:
    """What JupyterLab is to find before it looks at the user's own: this very Python as kernel, and `DEFAULTS`."""
    from ipykernel.kernelspec import write_kernel_spec  # only here: it is not quick to import
    write_kernel_spec(folder / "kernels" / "python3")
    (folder / "labconfig").mkdir()
    (folder / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(DEFAULTS), encoding="utf-8")


def environment(lang: str, settings: str) -> dict[str, str]:
    """The server's environment: the reader's language, the folder of settings, this Python's folder for shell cells."""
    first = {"JUPYTER_PATH": settings, "JUPYTER_CONFIG_PATH": settings, "PATH": str(Path(sys.executable).parent)}
    paths = {key: os.pathsep.join(filter(None, [path, os.environ.get(key)])) for key, path in first.items()}
    return os.environ | paths | {"BERTCOURSE_LANG": lang}


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


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the workspace, say what was done, start JupyterLab; returns its exit code. Raises `UserError`."""
    check_extra(extra)
    if not args.no_launch:
        check_jupyterlab()
    report = workspace.prepare(args.dir, args.lang, args.update)
    print(*report.lines(), sep="\n", flush=True)
    if args.no_launch:
        return 0
    with tempfile.TemporaryDirectory(prefix="bertcourse-", ignore_cleanup_errors=True) as folder:
        write_settings(Path(folder))
        return serve(jupyter_command(report.root, args, extra), environment(report.lang, folder))
