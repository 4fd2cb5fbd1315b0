"""Install the course into an environment, with that environment's Python: `make venv` calls it.

    python tools/install.py [--extras lab,dev] [--torch-index auto|ADDRESS|""] [--log build/install.log]

PyTorch comes first, from an index that fits the machine, then bertcourse and what it needs, as pinned in constraints.txt.
While pip runs, its last line and the seconds are shown; all it says goes to the log. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import glob
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import TextIO

AUTO = "auto"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own, as on its "Get started" page
ANSWER_SECONDS = 3.0  # for that index
DRIVER_SECONDS = 10.0  # for nvidia-smi
DEVICES = "/dev/nvidia[0-9]*"  # there is one for each card that a Linux driver found
CONSTRAINTS = Path("constraints.txt")
REPORT_SECONDS = 20.0  # between two lines where there is no terminal
LINE = 120  # characters of one
PROGRESS = re.compile(r"Progress (\d+) of (\d+)")  # of `pip --progress-bar raw`, in bytes


# --- which build of PyTorch ---------------------------------------------------------------------------------------

def has_nvidia_card() -> bool:
    """Is there an NVIDIA card that PyTorch could use? A card without a driver is none."""
    if glob.glob(DEVICES):
        return True
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, errors="replace", timeout=DRIVER_SECONDS)
    except subprocess.TimeoutExpired:
        return True  # a driver that is slow to answer is there
    except OSError:
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def answers(index: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Does a package index answer in time? It is asked as pip would ask: through the proxy of the environment, if it names one."""
    found = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{index}/torch/", timeout=seconds) as answer:
                found.append(answer.status == 200)
        except (OSError, ValueError, HTTPException):
            found.append(False)
    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(seconds)
    return found == [True]


def choose_index(wanted: str) -> tuple[str, str]:
    """The additional index for PyTorch ("" for none), and a sentence that says why ("" where there is nothing to choose)."""
    if wanted != AUTO:
        return wanted, f"PyTorch: from {wanted}, as TORCH_INDEX says" if wanted else "PyTorch: pip's usual build, as TORCH_INDEX says"
    if sys.platform != "linux":
        return "", ""
    if has_nvidia_card():
        return "", "PyTorch: there is an NVIDIA card, so pip's usual build with CUDA (several GB); TORCH_INDEX=ADDRESS names another index"
    if answers(CPU_INDEX):
        return CPU_INDEX, f"PyTorch: no NVIDIA card here, so the CPU build from {CPU_INDEX}; TORCH_INDEX= (empty) takes pip's usual one"
    return "", (f"PyTorch: no NVIDIA card here, but {CPU_INDEX} did not answer within {ANSWER_SECONDS:g} seconds, so pip's usual build,"
                " which may bring several GB of CUDA; TORCH_INDEX=ADDRESS names another index of CPU builds")


def pinned(name: str) -> str:
    """`name==version`, as constraints.txt has it."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def is_installed(requirement: str) -> bool:
    """Is `name==version` in this environment, in any build (+cpu, +cu…)?"""
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


# --- pip, and what it is doing ------------------------------------------------------------------------------------

class Progress:
    """Shows pip's last line and the seconds: on a terminal in one line that changes, elsewhere now and then in a line of its own."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.start, self.next = out, time.monotonic(), REPORT_SECONDS
        self.line, self.error, self.share = "", "", ""  # pip's last one, its last one about an error, how much of a download

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.start

    def take(self, line: str) -> bool:
        """Note a line of pip's; False if it only counts bytes."""
        if found := PROGRESS.fullmatch(line.strip()):
            done, total = (int(number) / 1e6 for number in found.groups())
            self.share = f" {done:.0f} of {total:.0f} MB" if total else ""
            return False
        if line.strip():
            self.line, self.share = line.strip(), ""
            self.error = self.line if self.line.startswith("ERROR") else self.error
        return True

    def show(self) -> None:
        """Say where pip is."""
        text = f"  {self.seconds():.0f} s  {self.line}{self.share}"
        if self.out.isatty():
            width = shutil.get_terminal_size().columns - 1
            self.out.write(f"\r{text[:width]:<{width}}")
        elif self.seconds() >= self.next:
            self.next += REPORT_SECONDS
            self.out.write(text[:LINE] + "\n")
        self.out.flush()

    def end(self, text: str) -> None:
        """Replace the changing line by a last one."""
        width = shutil.get_terminal_size().columns - 1
        self.out.write((f"\r{'':<{width}}\r" if self.out.isatty() else "") + f"  {text}\n")
        self.out.flush()


def pip_command(arguments: Sequence[str]) -> list[str]:
    """`pip install` with these arguments; a pip that can count the bytes of a download is asked to."""
    version = tuple(int(part) for part in re.findall(r"\d+", metadata.version("pip"))[:2])
    counting = ["--progress-bar", "raw"] if version >= (24, 1) else []
    return [sys.executable, "-u", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *counting,
            "-c", str(CONSTRAINTS), *arguments]


def run(command: Sequence[str], log: Path, out: TextIO) -> str:
    """Run a command with its output in the log and its last line on `out`. Returns what went wrong, "" if nothing did."""
    progress = Progress(out)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")

    def read() -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n")
            for line in process.stdout:
                if progress.take(line):
                    file.write(line)
                    file.flush()
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            progress.show()
            reader.join(0.5)
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    progress.end(f"{'done' if code == 0 else 'failed'} after {progress.seconds():.0f} s")
    return "" if code == 0 else progress.error or progress.line or f"exit code {code}"


def install(steps: Sequence[tuple[str, Sequence[str]]], log: Path, out: TextIO) -> int:
    """Run `pip install` for each title and its arguments, until one fails; the exit code."""
    for title, arguments in steps:
        print(f"installing {title}", file=out, flush=True)
        if wrong := run(pip_command(arguments), log, out):
            print(f"pip could not install {title}: {wrong}\nall that it said is in {log}", file=sys.stderr)
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 if pip fails, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", default="lab,dev", help="of bertcourse (default: %(default)s)")
    parser.add_argument("--torch-index", default=AUTO, metavar="ADDRESS", help='"auto": choose; "": pip\'s own; or an address')
    parser.add_argument("--log", type=Path, default=Path("build/install.log"), help="default: %(default)s")
    args = parser.parse_args(argv)
    torch = pinned("torch")
    steps: list[tuple[str, Sequence[str]]] = []
    print(f"what pip says goes to {args.log}", flush=True)
    if not is_installed(torch):
        index, sentence = choose_index(args.torch_index.strip())
        print(sentence, end="\n" if sentence else "", flush=True)
        steps.append((torch, [*(["--extra-index-url", index] if index else []), torch]))
    steps.append((f"bertcourse[{args.extras}] and what it needs, as pinned in {CONSTRAINTS}",
                  ["--use-pep517", "-e", f".[{args.extras}]"]))
    args.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        return install(steps, args.log, sys.stdout)
    except KeyboardInterrupt:
        print("\ninterrupted; the next run goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
