"""The students' version of the exercises, in the folder that nbgrader calls a course: `release`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.base import atomic
from bertcourse.base.errors import UserError
from bertcourse.exercises.loading import Sheet
from bertcourse.exercises.pages import learner_sheet
from bertcourse.grading.assignment import FILE, SEED_FILE, Assignment, as_due, choose_sheets, default_assignment, to_toml
from bertcourse.jobs.folder import check_place, unwritable
from bertcourse.jobs.options import Choice, Options, as_path, option
from bertcourse.languages import LANGUAGES

LOCAL_LINK = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\.ipynb[^)]*\)")
HELP = re.compile(r"`hint\([^`]*` 给提示，`solution\([^`]*` 给解答，|`hint\([^`]*` gives a hint, `solution\([^`]*` the solution, and "
                  r"|(?<=import check), hint(?=, progress)|(?<=, progress), solution$")
CELL = re.compile(r"(stub|check|answer)-(\d)-(\d+)(?:-en)?")
CONFIG = '''# nbgrader's settings for this folder; `bertcourse grade --course .` fills its gradebook.
c = get_config()  # noqa: F821  nbgrader defines it
c.CourseDirectory.course_id = "bertcourse"

# nbgrader's own autograding is switched off here: it runs the students' code with all your rights, and gives points to each cell that raises
# nothing. `bertcourse grade` runs it in a sandbox. Its "generate" would put other notebooks in place of those in release/.
from nbgrader.converters import Autograde, GenerateAssignment, NbGraderException  # noqa: E402

REFUSAL = """In this folder `bertcourse release` writes the notebooks, and `bertcourse grade` grades them, in a sandbox.
这个文件夹里的作业由 `bertcourse release` 生成，由 `bertcourse grade` 在沙箱里批改。"""


def refuse(converter):
    converter.log.error(REFUSAL)
    raise NbGraderException(REFUSAL)


Autograde.start = GenerateAssignment.start = refuse
'''


@dataclass(kw_only=True)
class ReleaseOptions(Options):
    """The options of `release`."""

    out: Path
    chapters: str | int | Sequence[str | int] | None = None
    lang: str = option(Choice(*LANGUAGES), "zh")
    due: str | None = None

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything is read."""
        if os.path.lexists(self.out) and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise UserError(f"{self.out} exists: choose another folder, what is in it stays as it is", f"{self.out} 已存在：请换一个文件夹，原有内容不会改动")
        check_place(self.out)
        try:
            as_due(self.due)
        except ValueError:
            raise UserError(f"--due {self.due} is no date: write 2027-01-31, or 2027-01-31T18:00", f"--due {self.due} 不是日期：请写成 2027-01-31 或 2027-01-31T18:00") from None


# --- notebooks ----------------------------------------------------------------------------------------------------

def grader_metadata(part: str, id: str, points: float, kind: str) -> dict[str, Any]:
    """What nbgrader keeps of a cell: a function to write, its check with the points, or an answer to be marked by hand."""
    is_check, is_answer = part == "check", part == "answer"
    return {"grade": is_check or is_answer, "solution": not is_check, "locked": is_check, "task": False, "schema_version": 3, "cell_type": kind,
            "grade_id": f"{part}-{id.replace('.', '-')}"} | ({"points": points} if is_check or is_answer else {})


def student_notebook(sheet: Sheet, assignment: Assignment) -> dict[str, Any]:
    """The notebook that is handed out, with nbgrader's metadata: no definition, no hint or solution, nor the functions that show them."""
    source = json.loads(sheet.path.read_text(encoding="utf-8"))
    notebook = learner_sheet(source, sheet.page, assignment.lang)
    questions = {entry.id for entry in sheet.entries if entry.facts.kind == "Question"}
    for cell in notebook["cells"]:
        cell["source"] = [HELP.sub("", LOCAL_LINK.sub(r"\1", line)) for line in cell["source"]]
        found = CELL.fullmatch(cell["id"])
        if not found:
            continue
        part, id = found[1], f"{found[2]}.{found[3]}"
        if id in assignment.points and not (part == "check" and id in questions):
            cell["metadata"]["nbgrader"] = grader_metadata(part, id, assignment.points[id], cell["cell_type"])
    notebook["metadata"]["bertcourse"] = {"page": sheet.page, "lang": assignment.lang, "version": __version__}
    return notebook


def to_bytes(notebook: dict[str, Any]) -> bytes:
    """A notebook as Jupyter writes it."""
    return (json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


# --- the folder ---------------------------------------------------------------------------------------------------

def write_private(path: Path, data: bytes) -> None:
    """A new file that only its owner reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def write_course(folder: Path, assignment: Assignment) -> None:
    """Everything of a course into an empty folder."""
    for sheet in assignment.sheets:
        data = to_bytes(student_notebook(sheet, assignment))
        for part in ("release", "source"):  # nbgrader lists the assignments that have a source
            (folder / part / sheet.page).mkdir(parents=True)
            atomic.replace(folder / part / sheet.page / f"{sheet.page}.ipynb", data)
    (folder / "submitted").mkdir()
    atomic.replace(folder / FILE, to_toml(assignment).encode())
    atomic.replace(folder / "nbgrader_config.py", CONFIG.encode())
    write_private(folder / SEED_FILE, secrets.token_hex(32).encode() + b"\n")


def run_release(options: ReleaseOptions) -> Assignment:
    """Write the folder, whole or not at all. Raises `UserError`."""
    options.check()
    assignment = default_assignment(choose_sheets(options.chapters), options.lang, as_due(options.due))
    partial = options.out.with_name(f".{options.out.name}.{secrets.token_hex(4)}.partial")
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        write_course(partial, assignment)
        os.replace(partial, options.out)
    except OSError as error:
        raise unwritable(options.out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return assignment


def release(
    out: str | Path,  # a new folder: release/ is for the students, the rest stays with you
    chapters: str | int | Sequence[str | int] | None = None,  # chapters (4) or pages (04_1_tasks); default: all
    lang: str = "zh",  # the language of notebooks and feedback
    due: str | None = None,  # until when: 2027-01-31 (23:59:59 in the time zone of this machine) or 2027-01-31T18:00
) -> Assignment:  # what will be graded
    "Write the students' notebooks, a file with points and due date, and a secret seed. Raises `UserError`."
    return run_release(ReleaseOptions(out=as_path(out), chapters=chapters, lang=lang, due=due))
