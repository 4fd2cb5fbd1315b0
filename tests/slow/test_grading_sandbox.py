"""Submissions in the sandbox: attacks gain nothing and change nothing, honest work gets its points, and a run always ends."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import attacks
import gradebooks
import psutil
import pytest

from bertcourse.base.errors import UserError
from bertcourse.exercises import checking
from bertcourse.exercises.loading import find_entry
from bertcourse.grading import sandbox, scoring
from bertcourse.grading.sandbox import Limits
from bertcourse.grading.scoring import Trials

PAGE = "05_distillation"
GRADED = [find_entry("5.1"), find_entry("5.4")]  # attacked, and honest
OURS = sandbox.START.format(root=str(Path(sandbox.__file__).resolve().parents[2]))
QUICK = {"cell_seconds": 2.0, "answer_seconds": 2.0}


def reason() -> str:
    """Why there is no sandbox here; "" where there is one."""
    try:
        sandbox.check_sandbox()
    except UserError as error:
        return error.en
    return ""


pytestmark = pytest.mark.skipif(bool(reason()), reason=reason() or "there is a sandbox")


@pytest.fixture(scope="module")
def trials():
    return Trials(b"SECRET-OF-THE-TEACHER")


def left_behind():
    """Processes of the sandbox that this process or nobody is the parent of."""
    own = {os.getpid(), *(one.pid for one in psutil.Process().children(recursive=True))}
    for one in psutil.process_iter(["cmdline", "ppid", "status"]):
        if OURS in " ".join(one.info["cmdline"] or []) and (one.info["ppid"] == 1 or one.pid in own) and one.info["status"] != psutil.STATUS_ZOMBIE:
            yield one


@pytest.fixture(autouse=True)
def untouched():
    """No file is left in places that an attack aims at, and no process."""
    places = [Path(name) for name in ("/", "/usr", "/usr/lib", "/etc", "/root", "/home", "/tmp", "/dev", "/dev/shm", "/var")]
    before = {place: set(os.listdir(place)) for place in places if place.is_dir()}
    settings = Path("/proc/sys/kernel/core_pattern").read_text()
    yield
    new = {f"{place}/{name}" for place, names in before.items() for name in set(os.listdir(place)) - names}
    assert not [name for name in new if any(word in name for word in ("bertcourse-attack", "evil", "flood", "scores.csv", "gradebook", "customize"))]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == settings
    deadline = time.monotonic() + 5
    while left := list(left_behind()):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def graded(cells, trials, entries=GRADED, **limits):
    limit = Limits(**({"seconds": 30.0} | QUICK | limits))
    run = scoring.run_request(scoring.request_for(cells, entries, trials, limit), limit)
    return {mark.id: mark.status for mark in scoring.judge_run(cells, entries, run, trials)}, run


# --- attacks ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_gains_nothing(attack, trials, monkeypatch):
    monkeypatch.setenv("BERTCOURSE_SECRET", "SECRET-OF-THE-TEACHER")
    start = time.monotonic()
    found, _ = graded([*attack.cells, gradebooks.solution_cell(GRADED[1])], trials, seconds=min(attack.seconds, 10.0))
    assert found["5.1"] != checking.CORRECT and time.monotonic() - start < 45


def test_there_are_forty_of_different_names():
    names = [attack.name for attack in [*attacks.ATTACKS, *attacks.FILES]]
    assert len(set(names)) == len(names) >= 40


def test_a_right_answer_would_gain_it(trials):
    found, run = graded([gradebooks.solution_cell(entry) for entry in GRADED], trials)
    assert set(found.values()) == {checking.CORRECT} and not run.ended and not run.errors


@pytest.mark.parametrize("cell", ["while True: pass", "import os; os._exit(1)", "import ctypes; ctypes.string_at(0)", "def broken(:", "1 / 0",
                                  "import sys; sys.exit()", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass"])  # fmt: skip
def test_what_is_broken_costs_itself_only(cell, trials):
    found, _ = graded([cell, *(gradebooks.solution_cell(entry) for entry in GRADED)], trials)
    assert set(found.values()) == {checking.CORRECT}


@pytest.mark.parametrize("cell", [
    "import mmap, os, time\nfor _ in range(3):\n    if os.fork() == 0: break\nm = mmap.mmap(-1, 400 * 10**6)\nfor i in range(0, len(m), 4096): m[i] = 1\ntime.sleep(30)",
    "import os, time\nfiles = [os.memfd_create(str(n)) for n in range(50)]\nfor f in files: os.write(f, b'x' * 40 * 10**6)\ntime.sleep(30)",
    "import os, time\nif os.fork() == 0:\n    while True:\n        for n in range(3, 12):\n            try: os.write(n, b'{\"a\": 1}\\n')\n            except OSError: pass\n        time.sleep(0.01)\n"
    "for _ in range(3):\n    if os.fork() == 0: break\nx = bytearray(400 * 10**6)\ntime.sleep(30)",
], ids=["shared", "files in memory", "beside a trickle of output"])  # fmt: skip
def test_memory_is_limited_however_it_is_taken(cell, trials):
    _, run = graded([cell], trials, memory_mb=800, cell_seconds=30.0)
    assert run.stopped == "memory"


def test_what_python_understands_in_a_notebook_is_understood(trials):
    cells = ["%%time\n" + gradebooks.solution_cell(GRADED[0]), "import asyncio\nawait asyncio.sleep(0)\n" + gradebooks.solution_cell(GRADED[1])]
    found, run = graded(cells, trials)
    assert set(found.values()) == {checking.CORRECT} and not run.errors


def test_slow_cells_leave_time_for_the_exercises(trials):
    cells = [*(gradebooks.solution_cell(entry) for entry in GRADED), *["import time; time.sleep(1.9)"] * 20]
    found, run = graded(cells, trials, seconds=16.0)
    assert set(found.values()) == {checking.CORRECT} and not run.stopped


def test_what_can_be_seen_inside(trials):
    """The walls, looked at from inside: nothing can be written, nothing of the course's answers or of other people can be read."""
    look = """
import json, os, socket, sys
def can_write(place):
    try:
        open(os.path.join(place, 'attack'), 'w').close(); os.remove(os.path.join(place, 'attack')); return True
    except OSError: return False
seen = {
    'writable': [p for p in ('/', '/usr', '/dev', '/proc', '/proc/sys/kernel', '/tmp', '/dev/shm', sys.prefix, '/etc') if can_write(p)],
    'exercises': [d for top in os.listdir('/') if top != 'proc' for d, _, files in os.walk('/' + top) if os.path.basename(d) == 'exercises'
                  and any(f.endswith('.ipynb') for f in files)], 'home': os.listdir('/root') if os.path.isdir('/root') else [],
    'processes': sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), 'environment': sorted(os.environ),
    'uid': os.getuid(), 'caps': [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')], 'network': [n for _, n in socket.if_nameindex()],
    'privileges': [l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')],
}
def soften(logits, temperature): return json.dumps(seen)
"""
    limit = Limits(cell_seconds=60.0)
    run = scoring.run_request(scoring.request_for([look], GRADED[:1], trials, limit), limit)
    seen = json.loads(scoring.judge_run([look], GRADED[:1], run, trials)[0].outcome.got)
    assert seen["writable"] in (["/tmp", "/dev/shm"], ["/tmp"]) and seen["exercises"] == [] and len(seen["processes"]) < 8
    assert seen["uid"] != 0 and set(seen["caps"]) == {"0000000000000000"} and set(seen["network"]) <= {"lo"} and seen["privileges"] == ["1"]
    assert set(seen["environment"]) <= {*sandbox.ENVIRONMENT, "PWD", "LC_CTYPE"}


# --- files and runs -----------------------------------------------------------------------------------------------

def command(*argv, cwd):
    env = {**os.environ, "LANG": "en_US.UTF-8", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "bertcourse", "grade", *argv], cwd=cwd, env=env | {"PYTHONPATH": str(Path(__file__).parents[2])},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def test_a_class_with_bad_files(tmp_path):
    """Damaged, huge and malicious files among honest work: the run ends, and everybody gets what was earned."""
    for number, bad in enumerate(attacks.FILES):
        gradebooks.write(tmp_path / "in", f"bad{number}/{bad.file}", bad.make())
    gradebooks.write(tmp_path / "in", f"full/{PAGE}.ipynb", gradebooks.solved(PAGE))
    gradebooks.write(tmp_path / "in", f"partial/{PAGE}.ipynb", gradebooks.solved(PAGE, leave=("5.1", "5.7")))
    gradebooks.write(tmp_path / "in", f"syntax/{PAGE}.ipynb", gradebooks.solved(PAGE, answers={"5.1": "def soften(:"}))
    other = "import numpy as np\nclass Soften:\n    def __call__(self, logits, temperature):\n        e = np.exp(np.asarray(logits) / temperature)\n        return (e / e.sum(-1, keepdims=True)).tolist()\nsoften = Soften()"
    gradebooks.write(tmp_path / "in", f"other/{PAGE}.ipynb", gradebooks.solved(PAGE, answers={"5.1": other}))
    done = command("in", "--out", "scores.csv", "--chapters", "5", "--lang", "en", cwd=tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0 and "Traceback" not in err, err
    points = {}
    for row in rows(tmp_path / "scores.csv"):
        points.setdefault(row["student"], {})[row["exercise"]] = row["status"]
    coded = [f"5.{n}" for n in range(1, 8)]
    wrong = {"full": [], "partial": ["5.1", "5.7"], "syntax": ["5.1"], "other": []}
    for student, missed in wrong.items():
        assert [id for id in coded if points[student][id] != checking.CORRECT] == missed, student
    assert not [student for student, found in points.items() if student.startswith("bad") and checking.CORRECT in found.values()]
    assert len([student for student in points if student.startswith("bad")]) >= len(attacks.FILES) - 1  # a bomb may have other names


def test_a_killed_run_goes_on_without_grading_twice(tmp_path):
    for name in ("a", "b", "c", "d", "e", "f"):
        gradebooks.write(tmp_path / "in", f"{name}/{PAGE}.ipynb", gradebooks.solved(PAGE))
    argv = ("in", "--out", "s.csv", "--chapters", "5", "--jobs", "1")
    first, journal = command(*argv, cwd=tmp_path), tmp_path / "s-journal.jsonl"
    deadline = time.monotonic() + 120
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 3:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    lines = [json.loads(line) for line in journal.read_bytes().splitlines() if line.endswith(b"}")]
    again = command(*argv, "--resume", cwd=tmp_path)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    after = [json.loads(line) for line in journal.read_bytes().splitlines()]
    assert after[:len(lines)] == lines and len({one.get("key") for one in after}) == len(after) == 7
    assert {row["status"] for row in rows(tmp_path / "s.csv") if row["exercise"] in ("5.1", "5.2")} == {checking.CORRECT}


def test_ctrl_c_ends_it_at_once(tmp_path):
    for name in ("a", "b", "c"):
        gradebooks.write(tmp_path / "in", f"{name}/{PAGE}.ipynb", gradebooks.solved(PAGE, answers={"5.1": "while True: pass"}))
    run, journal = command("in", "--out", "s.csv", "--chapters", "5", cwd=tmp_path), tmp_path / "s-journal.jsonl"
    deadline = time.monotonic() + 120
    while not journal.is_file():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130 and "Traceback" not in err and not (tmp_path / "s.csv").exists()


def test_points_reach_the_gradebook_of_nbgrader(tmp_path):
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook

    from bertcourse.grading import grade, release
    course = tmp_path / "课程"
    release(course, chapters=["5"], lang="zh", due="2027-01-31")
    gradebooks.write(course, f"submitted/学生甲/{PAGE}/{PAGE}.ipynb", gradebooks.solved(PAGE, lang="zh"))
    evil = gradebooks.solved(PAGE, lang="zh", leave=("5.1",))
    answer = next(cell for cell in evil["cells"] if cell["id"] == "answer-5-8")
    answer["source"] = ["```\n<script>alert(1)</script>\n![x](http://127.0.0.1:9/x.png)"]
    gradebooks.write(course, f"submitted/b/{PAGE}/{PAGE}.ipynb", evil)
    found = grade(course / "submitted", tmp_path / "s.csv", course=course, quiet=True)
    with Gradebook(f"sqlite:///{course}/gradebook.db", "bertcourse") as book:
        full, less = (book.find_submission(PAGE, name) for name in ("学生甲", "b"))
        assert full.score == found.totals["学生甲"] == less.score + 1 and full.needs_manual_grade
        grade_of = book.find_grade("answer-5-8", PAGE, PAGE, "b")
        grade_of.manual_score, grade_of.needs_manual_grade = 1.5, False
        book.db.commit()
    shown = json.loads((course / f"autograded/b/{PAGE}/{PAGE}.ipynb").read_text(encoding="utf-8"))
    text = "".join(next(cell for cell in shown["cells"] if cell["id"] == "answer-5-8")["source"])
    assert text.startswith("````text\n") and text.endswith("\n````")
    grade(course / "submitted", tmp_path / "s.csv", course=course, quiet=True, resume=True)
    with Gradebook(f"sqlite:///{course}/gradebook.db", "bertcourse") as book:
        assert book.find_submission(PAGE, "b").score == less_score(found) + 1.5


def less_score(found):
    return found.totals["b"]


def test_no_dialog_and_no_request_in_a_feedback_page(tmp_path, trials):
    sync = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here")
    for name in ("markup in what is shown", "markup in an error"):
        attack = next(one for one in attacks.ATTACKS if one.name == name)
        gradebooks.write(tmp_path / "in", f"{name}/{PAGE}.ipynb", gradebooks.solved(PAGE, answers={"5.1": attack.cells[0]}))
    run = command("in", "--out", "s.csv", "--chapters", "5", cwd=tmp_path)
    assert run.communicate(timeout=200) and run.returncode == 0
    events = []
    with sync.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: events.append(request.url) if not request.url.startswith("file:") else None)
        found = sorted((tmp_path / "s-feedback").glob("*/*.html"))
        for path in found:
            page.goto(path.as_uri())
            page.wait_for_timeout(300)
            assert page.locator("script, img, iframe, svg").count() == 0 and "alert(" in page.content()
        chromium.close()
    assert len(found) == 2 and not events
