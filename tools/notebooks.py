"""Run the course's notebooks: store their outputs, measure them, look for faults.

    python tools/notebooks.py outputs [NB …]   run each in a fresh kernel and store its outputs, clean, their fingerprints, and
                                               what its claims measured
    python tools/notebooks.py timings [NB …]   measure each page's seconds and memory into assets/timings.json
    python tools/notebooks.py check            does timings.json know every page, are all outputs of today's cells, and was
                                               every claim measured?
    python tools/notebooks.py lint [NB …]      every complaint of the tests' checks, and the guidelines

NB is a path, or a name such as `01_bert`; without any, all notebooks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from checks import language, locks, measured, outputs, reading, stored  # noqa: E402 (tests/ is not installed)

TIMINGS = ROOT / "bertcourse/assets/timings.json"  # in the package, for the pages show it
MEASURED = ROOT / "bertcourse/assets/measured.json"  # what `claim` was given, for the ledger shows it
CORES = 2  # what the pages promise
EVAL_FALSE = re.compile(r"^\s*#\|\s*eval:\s*false\b", re.MULTILINE | re.IGNORECASE)
# Outputs are stored once, for both languages and the default profile: without network, with the same hashes each time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # as `bertcourse lab` and `make test` have it
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TERM": "dumb",
    "TQDM_DISABLE": "1",  # a progress bar is for those who wait
    "NO_COLOR": "1",
}
UNSET = ("BERTCOURSE_LANG", "BERTCOURSE_PROFILE", "PYTHONWARNINGS", "MPLBACKEND")


class Fault(Exception):
    """Something the user can fix; its text is the whole message."""


def find(names: list[str], all_of: list[Path]) -> list[Path]:
    """The notebooks that the command line names."""
    found = []
    for name in names:
        matches = [p for p in reading.notebooks() if p.stem == name or p.name == name]
        if Path(name).is_file() and name.endswith(".ipynb"):
            matches = [Path(name).resolve()]
        if len(matches) != 1:
            raise Fault(
                f"no notebook {name!r}: give a path, or one of {', '.join(p.stem for p in reading.notebooks())}"
            )
        found += matches
    return found or all_of


def kernel_environment() -> dict[str, str]:
    """The environment every notebook runs in."""
    return {k: v for k, v in os.environ.items() if k not in UNSET} | ENVIRONMENT


def run_cells(path: Path, watch=None, log: dict[str, str] | None = None):
    """Run a notebook in a fresh kernel, in its own folder; the notebook with its outputs.

    `watch` is called with the kernel's process id as soon as there is one; `log` is added to the environment. Raises `Fault` at
    the first cell that fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        timeout=900,
        kernel_name="python3",
        extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.reset_execution_trackers()
    with client.setup_kernel(env=kernel_environment() | (log or {})):
        if watch:
            watch(client.km.provisioner.pid)
        for number, cell in enumerate(nb.cells):
            if cell.cell_type != "code" or EVAL_FALSE.search(cell.source):
                continue
            try:
                client.execute_cell(cell, number)
            except CellExecutionError as error:
                message = (error.evalue or "").partition("\n")[0]
                raise Fault(f"{path.name}#{cell.id}: the cell raises {error.ename}: {message}") from None
            except (CellTimeoutError, DeadKernelError) as error:
                raise Fault(f"{path.name}#{cell.id}: {type(error).__name__}: {str(error).splitlines()[0]}") from None
    return nb


def cleaned(nb) -> dict:
    """The notebook as `nbdev_clean` would leave it."""
    import nbformat
    from nbdev.clean import clean_nb

    plain = json.loads(nbformat.writes(nb))
    for cell in plain["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [] if outputs.is_live(cell) else outputs.join_streams(cell["outputs"])
    clean_nb(plain, allowed_cell_metadata_keys=["tags"])
    plain["metadata"] = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return plain


def write(path: Path, text: str) -> bool:
    """Write a file atomically, unless it holds that text already; True if it was written."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return True


def store_outputs(paths: list[Path]) -> int:
    """Run notebooks and store their outputs; the number of those that could not be stored."""
    failed = 0
    for path in paths:
        start = time.perf_counter()
        try:
            nb, values = run_and_log(path)
            # errors never get here: run_cells raises; what a page must not show is refused as the tests refuse it
            if faults := list(stored.outputs(nb, path.name)):
                raise Fault("\n".join(faults))
        except Fault as fault:
            failed += 1
            print(f"{fault}\n{path.name}: nothing stored", file=sys.stderr)
            continue
        changed = write(path, json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
        if path.is_relative_to(reading.NBS):
            name = path.relative_to(reading.NBS).as_posix()
            write(locks.LOCK, locks.text(locks.read() | {name: locks.lock(nb)}))
            store_measured(name, values)
        print(
            f"{path.name}: {time.perf_counter() - start:.1f} s, outputs {'stored' if changed else 'unchanged'}",
            flush=True,
        )
    return failed


def run_and_log(path: Path) -> tuple[dict, dict]:
    """Run a notebook; the notebook as it is stored, and what its claims measured."""
    from bertcourse.claims import LOG

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "claims.jsonl"
        nb = cleaned(run_cells(path, log={LOG: str(log)}))
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return nb, {entry["id"]: measured.rounded(entry["value"]) for entry in map(json.loads, lines)}


def store_measured(name: str, values: dict) -> None:
    """Merge what a page measured into measured.json; values of claims that it no longer holds go."""
    known = measured.read(MEASURED)
    today = datetime.date.today().isoformat()
    kept = {id: entry for id, entry in known.items() if entry["page"] != name}
    new = {id: {"value": value, "page": name, "date": today} for id, value in values.items()}
    if name.startswith("helpers/"):  # a helper's page shows how it is done; the chapter is where it is measured
        new = {id: entry for id, entry in new.items() if id not in kept}
    write(MEASURED, measured.text(kept | new))


class Meter(threading.Thread):
    """Samples memory and processor time of a process and all it starts."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.memory, self.cpu, self.end = pid, 0, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        import psutil

        while not self.end.is_set():
            try:
                root = psutil.Process(self.pid)
                memory = cpu = 0.0
                for process in [root, *root.children(recursive=True)]:
                    times = process.cpu_times()
                    # what children used counts for their parent once they have ended
                    cpu += (
                        times.user
                        + times.system
                        + getattr(times, "children_user", 0)
                        + getattr(times, "children_system", 0)
                    )
                    memory += process.memory_info().rss
                self.memory, self.cpu = max(self.memory, memory), max(self.cpu, cpu)
            except psutil.Error:
                pass  # a child ended between two looks
            self.end.wait(0.05)


def measure(path: Path) -> dict:
    """Seconds, processor seconds and peak memory of all cells of a notebook, the kernel's start left out."""
    import platform
    from importlib.metadata import version

    from bertcourse.base.machine import processor

    meters: list[Meter] = []
    started: list[float] = []

    def watch(pid):
        meters.append(Meter(pid))
        started.append(time.perf_counter())

    try:
        run_cells(path, watch)
        seconds = time.perf_counter() - started[0]
    finally:
        for meter in meters:
            meter.end.set()
            meter.join()
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(meters[0].cpu, 1),
        "memory_mb": round(meters[0].memory / 1e6),
        "measured": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "cpu": str(processor()),
        "cores": CORES,
    }


def timings() -> dict:
    """What timings.json holds."""
    try:
        return json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.exists() else {}
    except json.JSONDecodeError as error:
        raise Fault(f"{TIMINGS.name} is not JSON ({error}): fix it or delete it") from None


def store_timings(paths: list[Path]) -> int:
    """Measure notebooks and merge the results into timings.json; the number of those that failed."""
    failed, known = 0, timings()
    for path in paths:
        try:
            known[path.stem] = entry = measure(path)
        except Fault as fault:
            failed += 1
            print(f"{fault}\n{path.name}: not measured", file=sys.stderr)
            continue
        write(TIMINGS, json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")
        print(f"{path.name}: {entry['seconds']} s, {entry['cpu_seconds']} CPU s, {entry['memory_mb']} MB", flush=True)
    return failed


FIELDS = {
    "seconds": (int, float),
    "cpu_seconds": (int, float),
    "memory_mb": (int, float),
    "measured": str,
    "python": str,
    "torch": str,
    "cpu": str,
    "cores": int,
}


def timing_faults(known: dict, names: list[str]) -> Iterator[str]:
    """What is wrong with timings.json, given the pages there are."""
    for name in names:
        if name not in known:
            yield f"timings.json does not know {name}: run `python tools/notebooks.py timings {name}`"
            continue
        for key, kind in FIELDS.items():
            value = known[name].get(key)
            if not isinstance(value, kind) or (kind is not str and value <= 0):
                yield f"timings.json: {name} has {key} = {value!r}"
    for name in known.keys() - names:
        yield f"timings.json knows {name}, which is no chapter and no other page: delete the entry"


def lint(paths: list[Path]) -> int:
    """Print every complaint of the checks, then what the guidelines say; the number of complaints."""
    complaints = 0
    for path in paths:
        cells, name = (
            reading.read(path),
            path.relative_to(reading.NBS).as_posix() if path.is_relative_to(reading.NBS) else path.name,
        )
        nb = reading.load(path)
        hard = [c for check in language.CHECKS for c in check(cells)] + [
            c for check in stored.CHECKS for c in check(nb, name)
        ]
        soft = [c for c in (*language.long_passages(cells), *stored.long_lines(nb, name)) if c not in hard]
        complaints += len(hard)
        print("\n".join([*hard, *(f"guideline: {c}" for c in soft)] or [f"{name}: no complaint"]))
    return complaints


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, 1 where a notebook fails, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["outputs", "timings", "check", "lint"])
    parser.add_argument("notebooks", nargs="*", metavar="NB")
    args = parser.parse_args(argv)
    try:
        if args.command == "outputs":
            return bool(store_outputs(find(args.notebooks, reading.notebooks())))
        if args.command == "timings":
            return bool(store_timings(find(args.notebooks, reading.notebooks())))
        if args.command == "lint":
            return bool(lint(find(args.notebooks, reading.notebooks())))
        faults = list(timing_faults(timings(), [p.stem for p in reading.notebooks()]))
        for path in reading.notebooks():
            faults += locks.faults(reading.load(path), path.relative_to(reading.NBS).as_posix(), locks.read())
        faults += measured.faults(measured.read(MEASURED), reading.chapters())
        print("\n".join(faults) or "timings, outputs and measured values are those of today's notebooks", file=sys.stderr if faults else sys.stdout)
        return bool(faults)
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
