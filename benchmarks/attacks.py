"""How many attacks of a submission on its grader gain a point: with `bertcourse grade`, with nbgrader and with otter-grader.

    python benchmarks/attacks.py [--otter PYTHON] [--only NAME ...] [--tools TOOL ...] [--json FILE]

Each attack of `tests/attacks.py` is a notebook with a wrong answer to exercise 5.1. Each tool grades it once with its usual settings:
nbgrader and otter-grader by a cell or file of hidden tests with three inputs. They run student code with all rights of whoever grades,
so here they run in a sandbox of this script (bubblewrap, no network, Linux), which shows no more than what they need. It has the
same limits for all attacks: 60 seconds, memory, processes, disk. With `--json` an attack that the file has already is not run again.
`bertcourse grade` marks whole classes, the others one attack at a time (nbgrader with a second student, whose answer is right).
"""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bertcourse.app.cli import Parser  # noqa: E402
from bertcourse.grading.sandbox import system_folders  # noqa: E402

LIMIT = 60.0  # seconds of a run of a stock tool; what takes longer is ended
MEMORY_MB = 4_000  # of all processes of a run together
SCRATCH_MB = 150  # of each of the two folders that can be written
ACCOUNT = 64_321  # user and group without rights, used by nothing else
WRONG_POINTS, RIGHT_POINTS = 0.0, 1.0
TOOLS = ("ours", "nbgrader", "otter")
SOLVED = "def soften(logits, temperature):\n    return torch.softmax(logits / temperature, dim=-1)"
COURSE = [ROOT / "bertcourse", ROOT / "exercises"]  # with the solutions, as on the machine of whoever grades
STUB = "def soften(logits, temperature):\n    ..."
CASES = """cases = [
    (torch.tensor([2.0, 1.0, 0.1]), 5.0, torch.tensor([0.399586, 0.327153, 0.273261])),
    (torch.tensor([[1.0, 3.0], [2.0, -2.0]]), 2.0, torch.tensor([[0.268941, 0.731059], [0.880797, 0.119203]])),
    (torch.tensor([0.5, -1.0, 2.0, 0.0]), 0.5, torch.tensor([0.046505, 0.002315, 0.934072, 0.017108])),
]
"""
ASSERTS = "for logits, temperature, expected in cases:\n    assert torch.allclose({}(logits, temperature), expected, atol=1e-4)"
NBGRADER_TEST = f"import torch\n\n### BEGIN HIDDEN TESTS\n{CASES}{ASSERTS.format('soften')}\n### END HIDDEN TESTS"
OTTER_TEST = (
    "import torch\nfrom otter.test_files import test_case\n\nOK_FORMAT = False\nname = 'soften'\npoints = 1\n\n\n@test_case(points=1, hidden=True)\n"
    "def test_soften(env):\n" + "".join(f"    {line}\n" for line in (CASES + ASSERTS.format("env['soften']")).splitlines())
)


@dataclass(frozen=True)
class Found:
    """What a run of an attack came to."""

    gained: bool | None  # None: not run
    score: float | None = None  # None: the tool gave none
    harm: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """As it is stored."""
        return {"gained": self.gained, "score": self.score, "harm": list(self.harm), "note": self.note, "seconds": round(self.seconds, 1)}


def load_from_tests(name: str) -> ModuleType:
    """A module of the tests, under a name of its own: one is called like this script."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", ROOT / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


# --- notebooks ----------------------------------------------------------------------------------------------------


def code_cell(id: str, source: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A cell as Jupyter writes it."""
    return {"cell_type": "code", "id": id, "metadata": dict(metadata or {}), "execution_count": None, "outputs": [], "source": source}


def notebook(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A notebook of these cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": list(cells), "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def attacked(handed_out: Mapping[str, Any], cells: Sequence[str], answer: str, tests: str, edits_tests: bool = False) -> dict[str, Any]:
    """The notebook with an attack: the last cell in place of the answer, the others before it.

    answer, tests: the ids of the cell for the answer and of the one that checks it
    """
    found = json.loads(json.dumps(handed_out))
    place = next(number for number, cell in enumerate(found["cells"]) if cell["id"] == answer)
    found["cells"][place]["source"] = cells[-1]
    for cell in found["cells"]:
        if edits_tests and cell["id"] == tests:
            cell["source"] = "pass"
    found["cells"][place:place] = [code_cell(f"own-{number}", source) for number, source in enumerate(cells[:-1])]
    return found


# --- ours ---------------------------------------------------------------------------------------------------------


@cache
def our_notebooks() -> tuple[dict[str, Any], dict[str, Any]]:
    """The notebook of chapter 5 as it is handed out, and with a right answer to 5.1."""
    gradebooks = load_from_tests("gradebooks")
    page = "05_distillation"
    others = tuple(entry.id for entry in gradebooks.sheet_of(page).entries if entry.id != "5.1")
    return gradebooks.handed_out(page), gradebooks.solved(page, leave=others)


def our_class(attacks: Sequence[Any]) -> Iterator[tuple[str, Found]]:
    """`bertcourse grade` on classes: in each the attacks that have the same time limit, and a student who answers right."""
    for seconds in sorted({max(10.0, attack.seconds) for attack in attacks}):
        yield from our_run([attack for attack in attacks if max(10.0, attack.seconds) == seconds], seconds)


def our_run(attacks: Sequence[Any], seconds: float) -> Iterator[tuple[str, Found]]:
    """One class. Where harm was done, each attack is run again with that student alone."""
    handed_out, honest = our_notebooks()
    names = {f"student-{number:02}": attack.name for number, attack in enumerate(attacks)}
    work = {
        student: attacked(handed_out, attack.cells, "stub-5-1", "check-5-1", attack.edits_tests)
        for student, attack in zip(names, attacks, strict=True)
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for student, content in (work | {"zoe": honest}).items():
            path = folder / "submitted" / student / "05_distillation.ipynb"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        (folder / "assignment.toml").write_text('lang = "en"\n[points]\n"5.1" = 1\n', encoding="utf-8")
        before, begin = outside(folder), time.monotonic()
        done = subprocess.run([sys.executable, "-m", "bertcourse.app.cli", "grade", str(folder / "submitted"), "--assignment", str(folder / "assignment.toml"),
                               "--chapters", "5", "--jobs", "1", "--seconds", f"{seconds:g}", "--out", str(folder / "scores.csv")],
                              capture_output=True, text=True, cwd=ROOT)  # fmt: skip
        took, after, rows = (time.monotonic() - begin) / (len(attacks) + 1), outside(folder), {}
        with contextlib.suppress(OSError), (folder / "scores.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = {row["student"]: row for row in csv.DictReader(file)}
    scores = {student: float(row["points"]) for student, row in rows.items()}
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    harm = harms({"changed": changed, "left": 0, "status": done.returncode, "seconds": took, "scores": scores}, "ours")
    if (harm or not rows) and len(attacks) > 1:
        for attack in attacks:
            yield from our_run([attack], seconds)
        return
    for student, name in names.items():
        score = scores.get(student)
        note = f"status: {rows[student]['status']}" if rows else "no score"
        yield name, Found(bool(score and score > 0), score, harm if rows else ("the run was aborted",), note, took)


def outside(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of the class, and those that attacks write elsewhere."""
    places = ("/", "/usr", "/usr/lib", "/etc", "/root", "/home", "/work", "/var", "/tmp")
    paths = [*(folder / "submitted").rglob("*.ipynb"), Path("/tmp/evil"), *(Path(place, "bertcourse-attack") for place in places)]
    return {str(path).replace(str(folder), ""): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()}


# --- the sandbox of the stock tools -------------------------------------------------------------------------------


def otter_folders(python: Path) -> list[Path]:
    """The environment of otter-grader."""
    return [python.parent.parent]


def search_path(python: Path) -> str:
    """Where programs of an environment are found: nbgrader starts alembic."""
    return f"{python.parent}:/usr/bin:/bin"


def sandboxed(command: Sequence[str], shown: Iterable[Path]) -> list[str]:
    """A command that sees these folders and may write its home and /tmp; no network, no rights, bounded."""
    from bertcourse.grading import sandbox

    folders = sorted({*sandbox.shown_folders(), *shown})
    folders = [one for one in folders if not any(other in one.parents for other in folders)]
    size = str(SCRATCH_MB * 10**6)
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(ACCOUNT), "--gid", str(ACCOUNT), "--cap-drop", "ALL",
               "--die-with-parent", "--new-session", "--clearenv", "--proc", "/proc", "--dev", "/dev", "--size", size, "--tmpfs", "/tmp",
               "--size", size, "--tmpfs", "/home/teacher"]  # fmt: skip
    options += system_folders()
    for path in ("/etc/ld.so.cache", "/etc/passwd", "/etc/hosts", "/etc/nsswitch.conf"):
        options += ["--ro-bind-try", path, path]
    for folder in folders:
        options += ["--ro-bind", str(folder), str(folder)]
    options += ["--size", "1000000", "--tmpfs", "/dev/shm"]
    environment = {"HOME": "/home/teacher", "USER": "teacher", "PATH": search_path(Path(command[0])), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "SECRET": "SECRET-OF-THE-TEACHER"}  # fmt: skip
    for name, value in environment.items():
        options += ["--setenv", name, value]
    inner = ["prlimit", "--as=10000000000", "--nproc=150", "--fsize=60000000", "--cpu=90", "--nofile=512", "--core=0", "--",
             "bwrap", *options, "--remount-ro", "/", "--chdir", "/home/teacher", "--", *command]  # fmt: skip
    if os.geteuid() != 0:
        return inner
    dropped = ["setpriv", "--reuid", str(ACCOUNT), "--regid", str(ACCOUNT), "--clear-groups", "--no-new-privs", "--inh-caps", "-all",
               "--bounding-set", "-all", "--", *inner]  # fmt: skip
    extra = sandbox.openings(folders)
    return ["bwrap", "--dev-bind", "/", "/", *extra, "--die-with-parent", "--", *dropped] if extra else dropped


def watch_memory(process: subprocess.Popen, ended: list[str]) -> None:
    """End a run that takes more memory than it may."""
    from bertcourse.grading.sandbox import _memory

    while process.poll() is None:
        if _memory(process.pid) > MEMORY_MB * 10**6:
            ended.append("memory")
            process.kill()
            return
        time.sleep(0.2)


def run_inside(request: Mapping[str, Any], python: Path, shown: Sequence[Path]) -> tuple[dict[str, Any] | None, str, float]:
    """What the run came to (None: nothing came back), why it was ended from outside, and seconds."""
    nonce, ended, begin = secrets.token_hex(8), [], time.monotonic()
    code = (ROOT / "benchmarks" / "stock_inside.py").read_text(encoding="utf-8")
    show = [str(one) for one in shown]
    process = subprocess.Popen(["timeout", "-k", "2", str(LIMIT + 30), *sandboxed([str(python), "-I", "-B", "-c", code], shown)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env={"PATH": os.environ.get("PATH", os.defpath)},
                               start_new_session=True)  # fmt: skip
    watcher = threading.Thread(target=watch_memory, args=(process, ended), daemon=True)
    watcher.start()
    out, err = process.communicate(json.dumps({**request, "nonce": nonce, "shown": show, "seconds": LIMIT}).encode())
    watcher.join()
    for line in out.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return json.loads(line)[nonce], "", time.monotonic() - begin
    if not ended and process.returncode == 124:
        ended.append("time")
    return None, ended[0] if ended else err.decode(errors="replace").strip()[-300:], time.monotonic() - begin


def harms(found: Mapping[str, Any], tool: str) -> tuple[str, ...]:
    """What a run did beside the score, in words."""
    harm = []
    if found["changed"]:
        names = [path.replace("/home/teacher/", "~/") for path in found["changed"]]
        harm.append(f"files outside of its own folder: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}")
    if found["left"] and found["status"] is not None:  # what was ended from outside leaves its kernel behind
        harm.append("a process was left behind")
    if found["status"] is None or found["seconds"] > LIMIT:
        harm.append("ran longer than 60 s")
    elif found["status"] < 0:
        harm.append("the run was aborted")
    if tool != "otter" and found["scores"].get("zoe") != RIGHT_POINTS:
        harm.append("the next student got no point for a right answer")
    return tuple(harm)


def stock_run(tool: str, request: Mapping[str, Any], python: Path, shown: Sequence[Path]) -> Found:
    """One attack on a stock tool."""
    found, why, took = run_inside(request, python, shown)
    if found is None:
        reasons = {"memory": f"took more than {MEMORY_MB:,} MB", "time": "ran longer than 60 s"}
        return Found(False, None, (reasons.get(why, "the run was aborted"),), "no score", took)
    score = found["scores"].get("ann")
    note = "" if score is not None else "no score"
    return Found(bool(score and score > 0), score, harms(found, tool), note, found["seconds"])


# --- nbgrader -----------------------------------------------------------------------------------------------------


def files_below(folder: Path, name: str) -> dict[str, str]:
    """The files of a folder as they are sent into the sandbox."""
    return {
        f"{name}/{path.relative_to(folder)}": base64.b64encode(path.read_bytes()).decode() for path in folder.rglob("*") if path.is_file()
    }


def sent(content: Any) -> str:
    """A notebook or text as it is sent."""
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.b64encode(text.encode()).decode()


@cache
def nbgrader_class() -> tuple[dict[str, str], dict[str, Any]]:
    """The course after `nbgrader generate_assignment`, and the notebook that students get."""
    graded = {"schema_version": 3, "grade_id": "soften", "grade": False, "solution": True, "locked": False, "task": False}
    tests = {"schema_version": 3, "grade_id": "test-soften", "grade": True, "solution": False, "locked": True, "task": False, "points": 1}
    source = notebook([code_cell("setup", "import torch"), code_cell("soften", STUB, {"nbgrader": graded}),
                       code_cell("tests", NBGRADER_TEST, {"nbgrader": tests})])  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source" / "ps1").mkdir(parents=True)
        (folder / "source" / "ps1" / "soften.ipynb").write_text(json.dumps(source), encoding="utf-8")
        (folder / "nbgrader_config.py").write_text("c = get_config()\n", encoding="utf-8")
        subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", "ps1"], cwd=folder, check=True, capture_output=True,
                       env=os.environ | {"PATH": search_path(Path(sys.executable))})  # fmt: skip
        handed_out = json.loads((folder / "release" / "ps1" / "soften.ipynb").read_text(encoding="utf-8"))
        return files_below(folder, "class"), handed_out


def nbgrader_run(attack: Any) -> Found:
    """`nbgrader autograde` on a class of two."""
    files, handed_out = nbgrader_class()
    work = {
        "ann": attacked(handed_out, attack.cells, "soften", "tests", attack.edits_tests),
        "zoe": attacked(handed_out, [SOLVED], "soften", "tests"),
    }
    files = files | {f"class/submitted/{student}/ps1/soften.ipynb": sent(one) for student, one in work.items()}
    request = {"tool": "nbgrader", "files": files, "command": [sys.executable, "-m", "nbgrader", "autograde", "ps1"],
               "own": ["class/autograded", "class/gradebook.db", "class/.nbgrader.log"]}  # fmt: skip
    return stock_run("nbgrader", request, Path(sys.executable), COURSE)


# --- otter-grader -------------------------------------------------------------------------------------------------


@cache
def otter_class(python: Path) -> dict[str, str]:
    """The autograder as `otter generate` makes it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tests").mkdir()
        (folder / "tests" / "soften.py").write_text(OTTER_TEST, encoding="utf-8")
        command = [str(python), "-m", "otter", "generate", "-t", "tests", "-o", "autograder.zip", "--no-requirements", "--no-environment"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (folder / "out").mkdir()
        return files_below(folder, "class")


def otter_run(attack: Any, python: Path) -> Found:
    """`otter run` on a submission; another one lies beside it."""
    start = "import otter\ngrader = otter.Notebook('soften.ipynb')\nimport torch"
    handed_out = notebook([code_cell("setup", start), code_cell("soften", STUB), code_cell("tests", "grader.check('soften')")])
    work = {
        "ann": attacked(handed_out, attack.cells, "soften", "tests", attack.edits_tests),
        "zoe": attacked(handed_out, [SOLVED], "soften", "tests"),
    }
    files = (
        otter_class(python)
        | {f"class/submitted/{student}/soften.ipynb": sent(one) for student, one in work.items()}
        | {"class/out/.keep": ""}
    )
    request = {"tool": "otter", "files": files, "own": ["class/out/"], "command": [
        str(python), "-m", "otter", "run", "-a", "autograder.zip", "-o", "out", "--no-logo", "submitted/ann/soften.ipynb"]}  # fmt: skip
    return stock_run("otter", request, python, [*COURSE, *otter_folders(python)])


# --- the command --------------------------------------------------------------------------------------------------


def read_arguments(names: Sequence[str]) -> Any:
    """What is asked for, checked."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these attacks only")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="default: all")
    parser.add_argument(
        "--otter", type=Path, metavar="PYTHON", help="the Python of an environment with otter-grader and torch (default: this one)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to this file, and go on with what it holds")
    args = parser.parse_args()
    for name in args.only or ():
        if name not in names:
            parser.error(f"there is no attack {name!r}: the names are those in tests/attacks.py")
    if args.json and not (args.json.absolute().parent.is_dir() and not args.json.is_dir()):
        parser.error(f"--json {args.json}: this cannot be a file, give a name in a folder that exists")
    return args


Runner = Callable[[Sequence[Any]], Iterator[tuple[str, Found]]]  # attacks → what each of them came to


def version_in(python: Path, package: str) -> str:
    """The version of a package in an environment; "" where it is not installed."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def one_by_one(run: Callable[[Any], Found]) -> Runner:
    """A run for each attack."""
    return lambda attacks: ((attack.name, run(attack)) for attack in attacks)


def runners(tools: Sequence[str], otter: Path) -> dict[str, Runner]:
    """The tools that are installed."""
    found: dict[str, Runner] = {"ours": our_class}
    if importlib.util.find_spec("nbgrader"):
        found["nbgrader"] = one_by_one(nbgrader_run)
    if version_in(otter, "otter-grader"):
        found["otter"] = one_by_one(partial(otter_run, python=otter))
    return {tool: run for tool, run in found.items() if tool in tools}


def versions(otter: Path) -> dict[str, str]:
    """Of what is compared."""
    from bertcourse import __version__

    found = {"bertcourse": __version__, "otter-grader": version_in(otter, "otter-grader") or "not installed"}
    with contextlib.suppress(ModuleNotFoundError):
        found["nbgrader"] = version("nbgrader")
    return found


def counts(attacks: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """How many attacks were run with each tool, how many gained a point, how many did harm."""
    found = {}
    for tool in TOOLS:
        rows = [attack["tools"][tool] for attack in attacks.values() if tool in attack["tools"]]
        ran = [row for row in rows if row["gained"] is not None]
        found[tool] = {"run": len(ran), "gained": sum(row["gained"] for row in ran), "harm": sum(bool(row["harm"]) for row in ran)}
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Store everything that was found."""
    from bertcourse.training import write_whole

    text = json.dumps(found | {"counts": counts(found["attacks"])}, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda one: one.write_text(text, encoding="utf-8"))


def check_controls(run: Runner, module: ModuleType) -> dict[str, Any]:
    """The scores of a right answer and of a wrong one without any attack. Raises `SystemExit` where the tool does not tell them apart."""
    rows = dict(run([module.Attack(name, "", (source,)) for name, source in (("right answer", SOLVED), ("wrong answer", module.WRONG))]))
    if [row.score for row in rows.values()] != [RIGHT_POINTS, WRONG_POINTS] or any(row.harm for row in rows.values()):
        raise SystemExit(f"this tool does not work here: {rows}")
    return {name: row.record() for name, row in rows.items()}


def main() -> int:
    """Run the attacks, print a table."""
    module = load_from_tests("attacks")
    attacks = {attack.name: attack for attack in module.ATTACKS}
    args = read_arguments([*attacks])
    import torch

    from bertcourse.base.machine import describe_machine
    from bertcourse.grading.sandbox import check_sandbox

    check_sandbox()
    otter = (args.otter or Path(sys.executable)).absolute()
    stored = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.is_file() else {}
    known = stored.get("attacks", {})
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": describe_machine(torch=torch.__version__.split("+")[0]),
                             "versions": versions(otter), "limits": {"seconds": LIMIT, "memory_mb": MEMORY_MB, "scratch_mb": SCRATCH_MB}, "controls": stored.get("controls", {}),
                             "attacks": {name: {"tries": attack.tries, "tools": known.get(name, {}).get("tools", {})} for name, attack in attacks.items()}}  # fmt: skip
    print(f"{'':40}{'':10}{'gained':>8}{'s':>7}  harm")
    for tool, run in runners(args.tools, otter).items():
        found["controls"][tool] = check_controls(run, module)
        todo = [attacks[name] for name in args.only or attacks if args.only or tool not in found["attacks"][name]["tools"]]
        for name, result in run(todo):
            found["attacks"][name]["tools"][tool] = result.record()
            said = {True: "yes", False: "no", None: "not run"}[result.gained]
            print(f"{name[:39]:40}{tool:10}{said:>8}{result.seconds:7.1f}  {'; '.join(result.harm)} {result.note}", flush=True)
            if args.json:
                write(args.json, found)
    for tool, row in counts(found["attacks"]).items():
        print(f"{tool}: {row['gained']} of {row['run']} gained a point, {row['harm']} did harm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
