"""What a teacher sees in nbgrader's formgrader: submissions that count as graded, answers that can be read, no autograding; and the page about it."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from bertcourse.app import workspace
from bertcourse.assets import asset
from bertcourse.base.errors import UserError
from bertcourse.grading import gradebook, release, sandbox

MODIFIED = "2027-01-30T21:40:00+00:00"
UTC = datetime(2027, 1, 30, 21, 40)


# --- when a submission came ---------------------------------------------------------------------------------------

@pytest.fixture
def times():
    pytest.importorskip("nbgrader")
    return gradebook.note_time


def test_a_submission_gets_the_file_by_which_nbgrader_knows_that_it_is_graded(times, tmp_path):
    from nbgrader.utils import parse_utc
    folder = tmp_path / "submitted/student-a/02_transformer"
    assert times(folder, MODIFIED) == UTC == parse_utc((folder / "timestamp.txt").read_text())
    assert times(folder, "2027-02-01T00:00:00+00:00") == datetime(2027, 2, 1) == parse_utc((folder / "timestamp.txt").read_text())


def test_the_time_that_nbgrader_collected_stays(times, tmp_path):
    (tmp_path / "timestamp.txt").write_text("2027-01-29 08:00:00.000000 UTC\n")
    assert times(tmp_path, MODIFIED) == datetime(2027, 1, 29, 8)
    assert "08:00" in (tmp_path / "timestamp.txt").read_text()


def test_a_file_that_holds_no_time_is_replaced(times, tmp_path):
    (tmp_path / "timestamp.txt").write_bytes(b"\xff soon")
    assert times(tmp_path, MODIFIED) == UTC and (tmp_path / "timestamp.txt").read_text() == MODIFIED


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_of_a_student_are_not_followed(times, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "student").symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path / "student", tmp_path / "student/02_transformer"):
        assert times(folder, MODIFIED) == UTC
    assert not [*(tmp_path / "elsewhere").iterdir()]
    (tmp_path / "page").mkdir()
    (tmp_path / "private").write_text("2020-01-01 00:00:00 UTC")
    (tmp_path / "page/timestamp.txt").symlink_to(tmp_path / "private")
    assert times(tmp_path / "page", MODIFIED) == UTC and (tmp_path / "private").read_text().startswith("2020")


# --- answers ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", ["word " * 100, "字" * 300, "x" * 500, "一个 word " * 60])
def test_long_lines_are_wrapped_and_nothing_is_lost(text):
    lines = gradebook.as_text(text).split("\n")[1:-1]
    assert len(lines) > 1 and max(map(len, lines)) <= gradebook.COLUMNS
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_short_lines_and_code_stay_as_they_are():
    text = "a\n\n    indented\n```\ncode\n```"
    assert gradebook.as_text(text) == f"````text\n{text}\n````"


# --- nbgrader's own buttons ---------------------------------------------------------------------------------------

def test_nbgrader_runs_no_submission_in_the_folder_of_a_course(tmp_path):
    pytest.importorskip("nbgrader")
    course = tmp_path / "course"
    release(course, chapters=["5"], lang="en")
    place = course / "submitted/student-a/05_distillation"
    place.mkdir(parents=True)
    evil = {"cell_type": "code", "id": "x", "metadata": {}, "execution_count": None, "outputs": [], "source": "open('evil', 'w')"}
    (place / "05_distillation.ipynb").write_text(json.dumps({"cells": [evil], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    before = (course / "release/05_distillation/05_distillation.ipynb").read_bytes()
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    for command in ("autograde", "generate_assignment"):
        done = subprocess.run([sys.executable, "-m", "nbgrader", command, "05_distillation", "--force"], cwd=course, env=env, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode and "bertcourse grade" in done.stderr, done.stderr
    assert not (course / "autograded").exists() and not [*course.rglob("evil")]
    assert (course / "release/05_distillation/05_distillation.ipynb").read_bytes() == before


# --- the sandbox --------------------------------------------------------------------------------------------------

def test_scratch_space_hides_no_folder_that_is_shown():
    options = sandbox.walls(sandbox.Limits())
    scratch = next(i for i, one in enumerate(options) if one == "--tmpfs" and options[i + 1] == "/tmp")
    assert all(scratch < options.index(str(folder)) for folder in sandbox.shown_folders())


def test_a_sandbox_in_which_the_package_does_not_start_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: name)
    monkeypatch.setattr(sandbox, "sandboxed", lambda command, limits: [sys.executable, "-c", "import no_such_module"])
    with pytest.raises(UserError, match="No module named 'no_such_module'.*another folder"):
        sandbox.check_sandbox.__wrapped__()


# --- the page -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_page_for_teachers_brings_its_pictures_along(lang):
    import nbformat
    notebook = json.loads(workspace.handouts(lang)["teaching.ipynb"].data)
    nbformat.validate(nbformat.from_dict(notebook))
    attached = {name for cell in notebook["cells"] for name in cell.get("attachments", {})}
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert attached == {f"teaching-{what}-{lang}.png" for what in ("list", "marking", "feedback")} and "](images/" not in text
    assert all(f"](attachment:{name})" in text for name in attached)


def test_its_pictures_are_small():
    pictures = sorted((asset("course") / "images").glob("teaching-*.png"))
    assert len(pictures) == 6 and all(path.stat().st_size < 150_000 for path in pictures)


# --- what the page says of its class ------------------------------------------------------------------------------

def recognised(answer, id):
    """The known mistake in an invented answer, judged in this process; "" for none."""
    from bertcourse.exercises.checking import judge
    from bertcourse.exercises.loading import find_entry
    entry, names = find_entry(id), {}
    exec(answer, names)
    outcome = judge(entry.task(), names[entry.task().name], entry.stub, seconds=1)
    return outcome.mistake.name if outcome.mistake else ""


def test_the_common_mistakes_of_the_page_are_those_of_its_class():
    import re
    from collections import Counter

    import scripts
    source = Path(scripts.__file__).parents[1] / "tools/teaching_pictures.py"
    definitions = source.read_text(encoding="utf-8")
    names = {"HEAD": ""}
    exec(definitions[definitions.index("HEAD = "):definitions.index("FLAT, ON_")], names)
    answers = [(id, answer) for replaced, *_ in names["PLAN"] for id, answer in replaced.items() if answer not in (names["CHEAT"], names["LOOP"])]
    made = Counter((id, found) for id, answer in answers if (found := recognised(answer, id)))
    notebook = json.loads((source.parents[1] / "nbs/teaching.ipynb").read_text(encoding="utf-8"))
    for lang in ("zh", "en"):
        text = "".join(next(cell for cell in notebook["cells"] if cell["id"] == f"grade-{lang}")["source"])
        rows = re.findall(r"^\| (\d\.\d+) \| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
        assert {(id, name): int(count) for id, name, count in rows} == dict(made)
