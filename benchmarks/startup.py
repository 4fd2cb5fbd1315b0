"""What starting costs: `import bertcourse` and `bertcourse --help` beside a Python that does nothing.

    python benchmarks/startup.py [--runs 15] [--json FILE]

The three are run in turn, so that a busy moment of the machine falls on all of them; medians are compared.
Goals: at most 0.1 s more for the import, 0.5 s more for the command (wall clock).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bertcourse.base.machine import describe_machine

GOALS = {"import bertcourse": 0.1, "bertcourse --help": 0.5}  # seconds more than nothing, wall clock
NOTHING = "python -c pass"


def commands() -> dict[str, list[str]]:
    """What is measured, by name. The installed script where there is one: it is what a person starts."""
    script = Path(sys.executable).with_name("bertcourse" + (".exe" if os.name == "nt" else ""))
    command = [str(script)] if script.exists() else [sys.executable, "-m", "bertcourse.app.cli"]
    return {NOTHING: [sys.executable, "-c", "pass"], "import bertcourse": [sys.executable, "-c", "import bertcourse"],
            "bertcourse --help": [*command, "--help"]}


def child_seconds() -> float:
    """CPU seconds, user and system, of all children so far."""
    try:
        from resource import RUSAGE_CHILDREN, getrusage
    except ImportError:  # Windows, which does not count children: zero
        times = os.times()
        return times.children_user + times.children_system
    usage = getrusage(RUSAGE_CHILDREN)  # os.times counts in steps of 10 ms
    return usage.ru_utime + usage.ru_stime


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    cpu, wall = child_seconds(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - wall, child_seconds() - cpu


def compare(runs: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved runs, in seconds, and what each costs more than nothing."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands()}
    for number in range(runs + 1):
        for name, command in commands().items():
            sample = measure(command)
            if number:  # the first round fills the caches
                samples[name].append(sample)
    rows = {}
    for name, pairs in samples.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        rows[name] = {"wall_s": round(wall, 4), "cpu_s": round(cpu, 4)}
    for row in rows.values():
        row["more_wall_s"] = round(row["wall_s"] - rows[NOTHING]["wall_s"], 4)
        row["more_cpu_s"] = round(row["cpu_s"] - rows[NOTHING]["cpu_s"], 4)
    return rows


def main() -> int:
    """Print the table, write the JSON; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.runs < 7:
        parser.error("at least 7 runs make a median worth reading")
    rows = compare(args.runs)
    print(f"{'':20}{'wall':>9}{'cpu':>9}{'more wall':>11}{'more cpu':>11}{'goal':>8}")
    for name, row in rows.items():
        goal = f"≤ {GOALS[name]}" if name in GOALS else ""
        print(f"{name:20}{row['wall_s']:8.3f}s{row['cpu_s']:8.3f}s{row['more_wall_s']:10.3f}s{row['more_cpu_s']:10.3f}s"
              f"{goal:>8}")
    if args.json:
        found = {"runs": args.runs, "machine": describe_machine(), "rows": rows, "goals_s": GOALS}
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(rows[name]["more_wall_s"] > goal for name, goal in GOALS.items()))


if __name__ == "__main__":
    sys.exit(main())
