"""How many threads, and how they wait: chapters, fine-tuning and tests on a quiet machine and on a busy one.

    python benchmarks/threads.py [JOB …] [--rounds 1] [--busy N] [--limit 300] [--json FILE] [--quick]

Every job runs in a process of its own with one thread, with one for each core that spin while they wait (OpenMP's default), and with
as many that sleep (`OMP_WAIT_POLICY=PASSIVE`): on a quiet machine, and beside `--busy` processes that compute all the time. The
settings of a job run in turn. A run that takes longer than `--limit` seconds is ended and counted as that. Wall clock and CPU time.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bertcourse.app.cli import Parser
from bertcourse.base.machine import describe_machine, usable_cores

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("03_2_pretraining", "04_1_tasks", "04_2_practice", "05_distillation", "06_tinybert")
TESTS = ("tests/test_training.py", "tests/test_distillation.py", "tests/test_tinybert.py")
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with the benchmark, however that ends
RUN_NOTEBOOK = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tools")
import notebooks
mine = {name: value for name, value in os.environ.items() if name.startswith("OMP_")}
notebooks.ENVIRONMENT = {name: value for name, value in notebooks.ENVIRONMENT.items() if "NUM_THREADS" not in name and "OMP_" not in name} | mine
notebooks.run_cells(Path(sys.argv[1]))
"""


def settings(cores: int) -> dict[str, dict[str, str]]:
    """What is compared: name → environment."""
    return {
        "1 thread": {"OMP_NUM_THREADS": "1"},
        f"{cores} threads, spinning": {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "ACTIVE"},
        f"{cores} threads, passive": {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE"},
    }


def jobs(folder: Path, quick: bool) -> dict[str, list[str]]:
    """What is run: name → command, in the repository's root."""
    found = {name: [sys.executable, "-c", RUN_NOTEBOOK, str(ROOT / f"nbs/{name}.ipynb")] for name in CHAPTERS}
    rows = 40 if quick else 2_000
    train = folder / "train.tsv"
    if not train.exists():
        write_rows(train, rows)
    found["finetune"] = [sys.executable, "-m", "bertcourse.app.cli", "finetune", "--task", "classification", "--model", "tiny",
                         "--train", str(train), "--out", "{out}", "--steps", "4" if quick else "200", "--quiet"]  # fmt: skip
    found["tests"] = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    return found


def write_rows(path: Path, count: int) -> None:
    """Toy reviews as a TSV file."""
    from bertcourse.corpus_tasks import dataset

    reviews = dataset("sentiment", "en")["train"]
    names = reviews.features["label"].names
    lines = [f"{row['sentence']}\t{names[row['label']]}" for row in reviews.select(range(count))]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def tree_cpu(root: psutil.Process) -> float:
    """CPU seconds of a process and all that it has started, those that have ended included."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    return total


def run(command: list[str], environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Wall and CPU seconds of one run; `ended` says that it was stopped at the limit."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "GOMP_", "KMP_"))}
    fresh = tempfile.mkdtemp()
    command = [word.format(out=f"{fresh}/out") if word == "{out}" else word for word in command]
    start, cpu = time.perf_counter(), 0.0
    process = psutil.Popen(command, cwd=ROOT, env=given | environment | {"TQDM_DISABLE": "1"}, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE)  # fmt: skip
    while process.poll() is None and time.perf_counter() - start < limit:
        cpu = max(cpu, tree_cpu(process))
        with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.wait(0.1)
    wall, ended = time.perf_counter() - start, process.poll() is None
    if ended:
        for child in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                child.kill()
    message = process.communicate()[1].decode(errors="replace")
    shutil.rmtree(fresh, ignore_errors=True)
    if not ended and process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … failed: {message.strip().splitlines()[-1] if message.strip() else process.returncode}")
    return {"wall": round(wall, 1), "cpu": round(cpu, 1), "ended": ended}


def measure(job: list[str], busy: int, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Medians of a job by setting, quiet or beside busy processes."""
    names = settings(usable_cores())
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            with load(busy):
                rows[name].append(run(job, names[name], args.limit))
    return {name: {"wall": statistics.median(r["wall"] for r in found), "cpu": statistics.median(r["cpu"] for r in found),
                   "ended": any(r["ended"] for r in found), "samples": found} for name, found in rows.items()}  # fmt: skip


def show(name: str, where: str, found: dict[str, dict[str, Any]]) -> None:
    """A line for each setting."""
    for setting, row in found.items():
        more = " (ended)" if row["ended"] else ""
        print(f"{name:18}{where:8}{setting:22}{row['wall']:8.1f} s{row['cpu']:8.1f} CPU s{more}", flush=True)


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = Parser(description=__doc__.splitlines()[0])
    known = (*CHAPTERS, "finetune", "tests")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"{', '.join(known)} (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="runs of every setting (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=usable_cores(), help="busy processes beside (default: one for each core)")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a run is ended (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, after each job")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    args = parser.parse_args(argv)
    if unknown := [job for job in args.jobs if job not in known]:
        parser.error(f"there is no job {unknown[0]!r}: choose from {', '.join(known)}")
    if args.rounds < 1 or args.busy < 0 or args.limit <= 0:
        parser.error("--rounds must be 1 or more, --busy 0 or more, --limit more than 0")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    args = read_arguments(argv)
    found: dict[str, Any] = {"settings": {"rounds": args.rounds, "busy": args.busy, "limit": args.limit, "quick": args.quick},
                             "machine": describe_machine(), "date": datetime.date.today().isoformat(), "jobs": {}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        known = jobs(Path(folder), args.quick)
        for name in args.jobs or known:
            found["jobs"][name] = {}
            for where, busy in (("quiet", 0), ("busy", args.busy)):
                found["jobs"][name][where] = measure(known[name], busy, args)
                show(name, where, found["jobs"][name][where])
            if args.json:
                args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
