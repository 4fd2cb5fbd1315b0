"""How much memory a service takes: BERT-base in FP32 and in INT8, by the number of its workers.

    python benchmarks/memory.py [--workers 1,2,4] [--json benchmarks/memory.json] [--quick]

A model of BERT-base's shape with random weights, as `benchmarks/serve.py` makes it, but for 512 pieces. Measured while the service
starts, when it is idle, under load (16 connections with short texts, then requests of 8 texts of 512 pieces), and while SIGHUP
replaces the workers. The measure is the proportional set size of all its processes: what they share is counted once. The peaks are
the greatest of samples that are taken all the time.

The rule that comes of it: a pod needs what the master takes, and for each worker, and one more while they are replaced, the peak of a
worker. `limit` is that, rounded up to 256 MiB.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from bertcourse.app.cli import Parser
from bertcourse.base.machine import describe_machine

HERE = Path(__file__).parent
MIB = 2**20
STEP = 256  # MiB, to which limits are rounded up
PAUSE = 0.05  # seconds between two samples


def make_models(folder: Path, layers: int) -> dict[str, Path]:
    """The classifier of `serve.py`, for 512 pieces, in FP32 and INT8."""
    import serve
    return serve.make_models(folder, layers, length=512)


class Watch(threading.Thread):
    """Samples the memory of a process and its children: the latest, and the greatest since `mark`."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.ended = process, threading.Event()
        self.now: list[float] = []  # MiB of each process, the master first
        self.peak = self.peak_of_one = 0.0
        self.start()

    def run(self) -> None:
        """Sample until the end."""
        while not self.ended.is_set():
            self.sample()
            self.ended.wait(PAUSE)

    def sample(self) -> None:
        """Once."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [self.process, *self.process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    found.append(one.memory_full_info().pss / MIB)
        if found:
            self.now = found
            self.peak = max(self.peak, sum(found))
            self.peak_of_one = max([self.peak_of_one, *(found[1:] or found)])

    def mark(self) -> None:
        """Forget the peaks."""
        self.peak = self.peak_of_one = 0.0


def ask(url: str, texts: list[str] | None = None) -> int:
    """The status of a request; without texts of `/ready`."""
    body = None if texts is None else json.dumps({"text": texts}).encode()
    request = urllib.request.Request(url + ("ready" if texts is None else "predict"), body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy
    with opener.open(request, timeout=3_600) as answer:
        return answer.status


def count(log: Path, event: str) -> int:
    """How often it has been logged."""
    return log.read_text(encoding="utf-8").count(f'"event": "{event}"')


def wait_for(log: Path, event: str, times: int, process: psutil.Popen) -> None:
    """Until it has been logged so often."""
    end = time.monotonic() + 300
    while count(log, event) < times:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(log.read_text(encoding="utf-8"))
        time.sleep(PAUSE)


@contextlib.contextmanager
def serving(folder: Path, workers: int, log: Path) -> Iterator[tuple[psutil.Popen, Watch]]:
    """A service, watched from its first moment."""
    line = [sys.executable, "-m", "bertcourse.app.cli", "serve", str(folder), "--port", "0", "--workers", str(workers), "--timeout", "3600"]
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with log.open("w", encoding="utf-8") as out:
        process = psutil.Popen(line, stderr=out, stdout=subprocess.DEVNULL, env=clean)
    watch = Watch(process)
    try:
        yield process, watch
    finally:
        watch.ended.set()
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def measure(folder: Path, workers: int, share: float, log: Path) -> dict[str, Any]:
    """MiB of a service in all its states."""
    with serving(folder, workers, log) as (process, watch):
        wait_for(log, "ready", workers, process)
        url = next(word for word in log.read_text(encoding="utf-8").split() if word.startswith("http://"))
        watch.sample()
        found: dict[str, Any] = {"start": watch.peak, "idle": sum(watch.now), "master": watch.now[0] if workers > 1 else 0.0}
        watch.mark()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: ask(url, [f"the music was good {n}"]), range(max(32, round(400 * share)))))
            found["short texts"] = watch.peak
            list(pool.map(lambda n: ask(url, ["good " * 600] * 8), range(max(workers, round(4 * workers * share)))))
        found |= {"load": watch.peak, "worker": watch.peak_of_one}
        watch.sample()
        found["after"] = sum(watch.now)
        if workers > 1:
            watch.mark()
            process.send_signal(signal.SIGHUP)
            wait_for(log, "worker_ended", workers, process)
            found["replacing"] = watch.peak
    return found


def fit(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of the rows of a model: MiB of the master, and of a worker at its peak, by the number of workers the median."""
    several = [row for name, row in rows.items() if int(name) > 1]
    master = statistics.median(row["master"] for row in several)
    worker = max(statistics.median(row["worker"] for row in rows.values()),
                 max((row["load"] - row["master"]) / int(name) for name, row in rows.items()))
    return {"master": master, "worker": worker}


def limit(rule: dict[str, float], workers: int) -> int:
    """MiB for a pod with so many workers, and one more while they are replaced, rounded up."""
    needed = rule["master"] + (workers + 1) * rule["worker"] if workers > 1 else rule["worker"]
    return STEP * math.ceil(1.1 * needed / STEP)


def shown(found: dict[str, Any]) -> str:
    """A table."""
    lines = []
    for name, rows in found["models"].items():
        for workers, row in rows.items():
            lines.append(f"{name} {workers}: " + ", ".join(f"{key} {value:.0f}" for key, value in row.items()) + f"; limit {found['limits'][name][workers]} MiB")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, store."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    layers, share = (1, 0.02) if args.quick else (12, 1.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("BENCH_MODELS") or temporary) / f"memory-{layers}-layers"
        if not (folder / "int8" / "bertcourse.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            make_models(folder, layers)
        models = {name: {str(workers): measure(folder / kind, workers, share, Path(temporary) / "log") for workers in args.workers}
                  for name, kind in (("FP32", "fp32"), ("INT8", "int8"))}
    rules = {name: fit(rows) for name, rows in models.items()}
    found = {"models": models, "rules": rules, "limits": {name: {workers: limit(rules[name], int(workers)) for workers in rows} for name, rows in models.items()},
             "layers": layers, "machine": describe_machine(), "date": datetime.date.today().isoformat()}
    print(shown(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
