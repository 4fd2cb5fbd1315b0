"""What it costs to grade: a submission beside nbgrader, and a class of a hundred.

    python benchmarks/grade.py [peers] [class] [--rounds 7] [--json benchmarks/grade.json] [--quick]

The submissions are the exercises of chapter 5, solved by the course's own solutions. nbgrader runs them with its stock autograder: one
kernel a notebook, and in each graded cell the course's check, which has to say "correct". `bertcourse grade` runs them in its sandbox.
Both get the same notebooks, one at a time, in turns; the seconds are those of the whole command. CPU seconds are those of the whole
machine, which has to be idle: what a sandbox's processes took is not handed up to whoever started them. Needs `pip install "bertcourse[grade]"`
and bubblewrap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measuring import Rounds, Sample, command, interleave, rates, ratio

PAGE = "05_distillation"
GOAL = 1 / 1.2  # of nbgrader's speed: a submission may take 1.2 times as long
MINUTES, KILOBYTES, GROWTH = 3.0, 300, 1.2  # of a class of a hundred


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    rounds: int = 7
    batch: int = 6  # submissions of a round
    students: int = 100


QUICK = {"rounds": 1, "batch": 1, "students": 2}


# --- what is graded -----------------------------------------------------------------------------------------------


def solved() -> dict[str, Any]:
    """The students' notebook of chapter 5 with right answers."""
    from bertcourse.exercises.definition import Exercise
    from bertcourse.exercises.feedback import solution_source
    from bertcourse.exercises.loading import load_sheets
    from bertcourse.grading.assignment import default_assignment
    from bertcourse.grading.releasing import student_notebook

    sheet = next(sheet for sheet in load_sheets() if sheet.page == PAGE)
    notebook = student_notebook(sheet, default_assignment([sheet], "en"))
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    for entry in sheet.entries:
        if isinstance(entry.task(), Exercise):
            imports = [line for line in entry.definition.splitlines() if line.startswith(("import ", "from torch"))]
            source = "\n".join(imports) + "\n\n\n" + solution_source(entry.task())
            cells[f"stub-{entry.id.replace('.', '-')}"]["source"] = source.splitlines(keepends=True)
    notebook["cells"] = [cell for cell in notebook["cells"] if not cell["id"].startswith(("run-", "predict-", "libraries-", "progress"))]
    return notebook


def for_nbgrader(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same with checks that nbgrader understands: an assertion in each graded code cell."""
    cells = []
    for cell in notebook["cells"]:
        name = cell["id"]
        if name.startswith("check-") and cell["metadata"].get("nbgrader"):
            id = name.removeprefix("check-").replace("-", ".")
            if id == "5.10":  # an experiment: nothing to assert
                continue
            cell = cell | {"source": [f"from bertcourse.exercises import checking, loading\ntask = loading.find_entry('{id}').task()\n"
                                      "assert checking.judge(task, globals()[task.name]).status == 'correct'"]}  # fmt: skip
        cells.append(cell)
    return notebook | {"cells": cells}


def write(path: Path, notebook: dict[str, Any]) -> None:
    """A notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")


def submit(folder: Path, notebook: dict[str, Any], count: int) -> Path:
    """A folder for each of so many students."""
    for number in range(count):
        write(folder / f"student{number:03}" / PAGE / f"{PAGE}.ipynb", notebook)
    return folder


# --- the commands -------------------------------------------------------------------------------------------------


def busy_seconds() -> float:
    """What the machine's cores have worked since it was started."""
    found = psutil.cpu_times()
    return found.user + found.system + getattr(found, "nice", 0.0)


def run(argv: list[str], cwd: Path, amount: int) -> Sample:
    """Run a command to its end; its seconds, and those of CPU time of the machine meanwhile."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "LANG": "en_US.UTF-8"}
    before, start = busy_seconds(), time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, busy_seconds()
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[:4])} failed: {done.stderr.strip()[-500:]}")
    return Sample(amount, wall, after - before)


def grade(submissions: Path, place: Path, count: int, jobs: int) -> Sample:
    """`bertcourse grade`, into a new table."""
    out = place / f"{time.time_ns()}.csv"
    return run([sys.executable, "-m", "bertcourse", "grade", str(submissions), "--out", str(out), "--chapters", "5", "--jobs", str(jobs), "--quiet"], place, count)


def check_points(place: Path, students: int) -> None:
    """Everybody must have all points, or other work was timed than was meant."""
    import csv

    table = max(place.glob("*.csv"), key=lambda path: path.stat().st_mtime if "-mistakes" not in path.name else 0)
    with table.open(encoding="utf-8-sig") as file:
        right = sum(row["status"] == "correct" for row in csv.DictReader(file))
    if right != 7 * students:
        raise SystemExit(f"{right} of {7 * students} answers were found right: the comparison would be of something else")


def nbgrader_course(folder: Path, count: int) -> Path:
    """A course of nbgrader with so many submissions."""
    notebook = for_nbgrader(solved())
    write(folder / "source" / PAGE / f"{PAGE}.ipynb", notebook)
    (folder / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'x'\nc.ClearSolutions.enforce_metadata = False\n", encoding="utf-8")
    run(["nbgrader", "generate_assignment", PAGE, "--force"], folder, 1)
    submit(folder / "submitted", notebook, count)
    return folder


def check_nbgrader(course: Path) -> None:
    """Every graded cell must have its points."""
    import sqlite3

    with sqlite3.connect(course / "gradebook.db") as base:
        scores = [row[0] for row in base.execute("select auto_score from grade where auto_score is not null")]
    if not scores or min(scores) <= 0:
        raise SystemExit("nbgrader did not find the right answers right: the comparison would be of something else")


def peers(settings: Settings) -> dict[str, Any]:
    """A submission in `bertcourse grade` and in stock nbgrader, one at a time."""
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), settings.batch
        ours = submit(folder / "ours", solved(), count)
        course = nbgrader_course(folder / "course", count)
        names = "bertcourse grade", "nbgrader autograde"
        arms = {names[0]: lambda: grade(ours, folder, count, 1), names[1]: lambda: run(["nbgrader", "autograde", PAGE, "--force"], course, count)}
        found = rates(interleave(arms, settings.rounds, warm=not settings.quick))
        check_points(folder, count)
        check_nbgrader(course)
    seconds = {name: 1 / arm["per_s"] for name, arm in found.items()}
    return {"unit": "submissions", "arms": found, "ratios": {"bertcourse grade / nbgrader": ratio(found, *names, GOAL)}, "seconds_each": seconds}


def watch(seen: list[float], stop: threading.Event) -> None:
    """The memory of the command's own process, not of the sandboxes, a few times a second; MB."""
    while not stop.wait(0.2):
        for child in psutil.Process().children():
            try:
                if "grade" in child.cmdline()[:5]:
                    seen.append(child.memory_info().rss / 1e6)
            except psutil.Error:
                pass


def whole_class(settings: Settings) -> dict[str, Any]:
    """A class on all threads: minutes, memory of the grading process, the largest page."""
    with tempfile.TemporaryDirectory() as name:
        folder, stop, seen = Path(name), threading.Event(), []
        submissions = submit(folder / "in", solved(), settings.students)
        watcher = threading.Thread(target=watch, args=(seen, stop), daemon=True)
        watcher.start()
        sample = grade(submissions, folder, settings.students, settings.threads)
        stop.set()
        check_points(folder, settings.students)
        pages = [path.stat().st_size / 1e3 for path in folder.glob("*-feedback/*/*.html")]
    later = seen[len(seen) // 2:]
    growth = max(later, default=0) / max(max(seen[:len(seen) // 2], default=1), 1)
    minutes, largest = sample.wall / 60, max(pages)
    return {"unit": "submissions", "arms": rates({f"{settings.threads} at a time": [sample]}), "students": settings.students,
            "minutes": {"value": minutes, "goal": f"< {MINUTES}", "met": minutes < MINUTES},
            "largest_page_kb": {"value": largest, "goal": f"< {KILOBYTES}", "met": largest < KILOBYTES},
            "memory": {"peak_mb": max(seen, default=0), "second_half_to_first": growth, "goal": f"< {GROWTH}", "met": growth < GROWTH}}  # fmt: skip


if __name__ == "__main__":
    sys.exit(command(__doc__, {"peers": peers, "class": whole_class}, Settings, QUICK))
