"""The learner's workspace: what a learner wrote is never lost, and every file is whole at any moment."""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from checks.outputs import is_timing
from checks.reading import ROOT
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bertcourse.app import workspace
from bertcourse.assets import asset
from bertcourse.base import atomic
from bertcourse.base.messages import UserError, reader_language
from bertcourse.languages import WORKSPACE_FILE, split_marker


def course_notebook(title: str, version: int = 0) -> dict:
    """A small notebook of the course, with all that a learner must not see."""
    def cell(id, kind, source):
        code = {"outputs": [], "execution_count": None} if kind == "code" else {}
        return {"id": id, "cell_type": kind, "metadata": {}, "source": source.splitlines(True), **code}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        cell("title", "markdown", f"# {title}（中文） | {title} (English)\n\n> 摘要 | Summary"),
        cell("zh", "markdown", f"<!-- zh -->\n第 {version} 版"),
        cell("en", "markdown", f"<!-- en -->\nVersion {version}"),
        cell("hidden", "code", "#| hide\nsecret = 1"), cell("code", "code", f"#| export\nx = {version}"),
    ]}


class Course:
    """A course folder whose notebooks can change, in place of `nbs/`."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("01_bert", "02_transformer", "helpers/plots"):
            self.write(name)

    def write(self, name: str, version: int = 0):
        path = self.root / "course" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(course_notebook(name, version)), encoding="utf-8")

    def asset(self, name: str) -> Path:
        path = self.root / name
        if not path.exists():
            raise FileNotFoundError(name)
        return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    made = Course(tmp_path / "source")
    monkeypatch.setattr(workspace, "asset", made.asset)
    return made


@pytest.fixture
def root(tmp_path):
    return tmp_path / "work"


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a workspace except its state."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*")
            if p.is_file() and p.name != WORKSPACE_FILE}


def state(root: Path) -> dict:
    return json.loads((root / WORKSPACE_FILE).read_text(encoding="utf-8"))


# --- one step at a time -------------------------------------------------------------------------------------------

def test_first_run_hands_out_everything(course, root):
    report = workspace.prepare(root, "en")
    assert set(contents(root)) == {"01_bert.ipynb", "02_transformer.ipynb", "helpers/plots.ipynb", "README.md"}
    assert set(report.created) == set(contents(root)) and not report.kept
    assert state(root)["lang"] == "en" and state(root)["complete"] and set(state(root)["files"]) == set(contents(root))
    for name, entry in state(root)["files"].items():
        assert entry["handed"] == atomic.file_digest(root / name) and len(entry["source"]) == 64
    assert "[01_bert (English)](01_bert.ipynb)" in (root / "README.md").read_text(encoding="utf-8")
    assert 2 <= len(report.lines()) <= 4 and not re.search("[一-鿿]", "\n".join(report.lines()))


def test_second_run_touches_nothing(course, root):
    workspace.prepare(root, "zh")
    def state():  # not the time of the last access, which reading changes
        return {p: (p.stat().st_mtime_ns, p.stat().st_ino, p.stat().st_size) for p in root.rglob("*")}

    before = state()
    report = workspace.prepare(root)
    assert state() == before
    assert report.lang == "zh" and not (report.created or report.updated or report.kept or report.waiting)
    assert "一切照旧" in report.lines()[1]


def test_changed_notebook_stays_and_new_version_goes_beside(course, root):
    workspace.prepare(root, "en")
    mine = root / "01_bert.ipynb"
    mine.write_bytes(b"mine")
    assert workspace.prepare(root, update=True).beside == []  # nothing new to offer
    course.write("01_bert", 1)
    report = workspace.prepare(root)
    assert report.kept == ["01_bert.ipynb"] and report.waiting == ["01_bert.ipynb"] and not report.beside
    report = workspace.prepare(root, update=True)
    (beside,) = report.beside
    assert re.fullmatch(r"01_bert\.new-[\d.]+-[0-9a-f]{8}\.ipynb", beside) and mine.read_bytes() == b"mine"
    assert b"Version 1" in (root / beside).read_bytes()
    (root / beside).write_bytes(b"mine too")
    assert workspace.prepare(root, update=True).beside == []
    course.write("01_bert", 2)
    assert len(workspace.prepare(root, update=True).beside) == 1
    assert (root / beside).read_bytes() == b"mine too" and mine.read_bytes() == b"mine"


def test_notebook_that_was_only_opened_is_untouched(course, root):
    """JupyterLab notes the kernel's language version in every notebook that it opens, and saves that by itself."""
    workspace.prepare(root, "en")
    for name, metadata in (("01_bert.ipynb", {"language_info": {"name": "python", "version": "3.13.0"}}),
                           ("02_transformer.ipynb", {"kernelspec": {"name": "my-own"}})):
        notebook = json.loads((root / name).read_bytes())
        notebook["metadata"].update(metadata)
        (root / name).write_text(json.dumps(notebook, ensure_ascii=False, indent=2), encoding="utf-8")
    assert workspace.prepare(root).kept == ["02_transformer.ipynb"]
    course.write("01_bert", 1)
    course.write("02_transformer", 1)
    report = workspace.prepare(root, update=True)
    assert report.updated == ["01_bert.ipynb"] and len(report.beside) == 1
    assert b"my-own" in (root / "02_transformer.ipynb").read_bytes()


def ran(data: bytes, **metadata) -> dict:
    """A notebook as JupyterLab saves it after all cells were run: outputs, counts, times, folded cells."""
    notebook = json.loads(data)
    notebook["metadata"] |= {"language_info": {"name": "python"}, "widgets": {"application/vnd.jupyter.widget-state+json": {}}} | metadata
    for count, cell in enumerate(notebook["cells"], 1):
        cell["metadata"] |= {"collapsed": True, "jupyter": {"source_hidden": True}, "scrolled": False}
        if cell["cell_type"] == "code":
            cell["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
            cell |= {"execution_count": count, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]}
    return notebook


def store(path: Path, notebook: dict) -> None:
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def test_notebook_that_was_only_run_is_untouched(course, root):
    workspace.prepare(root, "en")
    for name in ("01_bert.ipynb", "helpers/plots.ipynb"):
        spec = {"kernelspec": {"display_name": ".venv (3.11)", "language": "python", "name": "python3"}}  # as VS Code names it
        store(root / name, ran((root / name).read_bytes(), **spec))
    report = workspace.prepare(root)
    assert not report.kept and not report.waiting and "Nothing to do" in report.lines()[1]
    assert b"execution_count" in (root / "01_bert.ipynb").read_bytes() and b"iopub" in (root / "01_bert.ipynb").read_bytes()
    assert not workspace.prepare(root, update=True).updated  # nor are outputs cleared where nothing is new
    course.write("01_bert", 1)
    report = workspace.prepare(root, update=True)
    assert report.updated == ["01_bert.ipynb"] and not report.beside and b"Version 1" in (root / "01_bert.ipynb").read_bytes()


def change_source(cells): cells[-2]["source"].append("\ny = 1")
def change_kind(cells): cells[-2].update(cell_type="raw")
def change_order(cells): cells.reverse()
def add_cell(cells): cells.append({"id": "mine", "cell_type": "markdown", "metadata": {}, "source": []})
def add_tag(cells): cells[0]["metadata"]["tags"] = ["mine"]
def drop_cell(cells): cells.pop()


@pytest.mark.parametrize("change", [change_source, change_kind, change_order, add_cell, add_tag, drop_cell])
def test_notebook_that_was_run_and_changed_is_the_learners(course, root, change):
    workspace.prepare(root, "en")
    notebook = ran((root / "01_bert.ipynb").read_bytes())
    change(notebook["cells"])
    store(root / "01_bert.ipynb", notebook)
    before = (root / "01_bert.ipynb").read_bytes()
    course.write("01_bert", 1)
    report = workspace.prepare(root, update=True)
    assert report.kept == ["01_bert.ipynb"] and len(report.beside) == 1 and (root / "01_bert.ipynb").read_bytes() == before


def test_notebook_run_by_a_kernel_is_untouched(course, root):
    from nbclient import NotebookClient

    workspace.prepare(root, "en")
    path = root / "helpers/plots.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(notebook, path)
    assert notebook.cells[2].outputs[0].data["text/plain"].startswith("All cells") and notebook.cells[2].execution_count == 1
    assert workspace.prepare(root).kept == []


def test_untouched_notebook_is_renewed_only_by_update(course, root):
    workspace.prepare(root, "en")
    course.write("helpers/plots", 1)
    course.write("03_1_objectives")
    report = workspace.prepare(root)
    before = "02_transformer.ipynb"  # its last line now leads to chapter 3
    assert not report.created and set(report.waiting) == {"helpers/plots.ipynb", "03_1_objectives.ipynb", "README.md", before}
    assert "--update" in report.lines()[-1] and not (root / "03_1_objectives.ipynb").exists()
    report = workspace.prepare(root, update=True)
    assert set(report.updated) == {"helpers/plots.ipynb", "README.md", before} and report.created == ["03_1_objectives.ipynb"]
    assert not workspace.prepare(root, update=True).updated


def test_deleted_notebook_comes_back_only_with_update(course, root):
    workspace.prepare(root, "en")
    (root / "01_bert.ipynb").unlink()
    assert not workspace.prepare(root).created and not (root / "01_bert.ipynb").exists()
    assert workspace.prepare(root, update=True).created == ["01_bert.ipynb"]


def test_files_that_were_there_before_are_the_learners(course, root):
    root.mkdir()
    (root / "01_bert.ipynb").write_bytes(b"older than the course")
    assert workspace.prepare(root, "en").kept == ["01_bert.ipynb"]
    assert len(workspace.prepare(root, update=True).beside) == 1
    assert (root / "01_bert.ipynb").read_bytes() == b"older than the course"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"lang": "fr"}', b"\xff\xfe", b"[" * 100_000,
                                    b'{"lang": "zh", "files": {"01_bert.ipynb": "x"}}', b'{"lang": "zh", "extra": 1}'])
def test_damaged_state_makes_every_file_the_learners(course, root, damage):
    workspace.prepare(root, "zh")
    (root / "02_transformer.ipynb").write_bytes(b"mine")
    (root / "helpers/plots.ipynb").unlink()
    (root / WORKSPACE_FILE).write_bytes(damage)
    course.write("01_bert", 1)
    before = contents(root)
    lang = None if b'"zh"' in damage else "zh"
    report = workspace.prepare(root, lang)
    assert contents(root) == before and report.damaged and report.lang == "zh" and "已损坏" in "\n".join(report.lines())
    report = workspace.prepare(root, update=True)  # the state is sound again
    assert not report.damaged and report.created == ["helpers/plots.ipynb"] and len(report.beside) == 2
    assert before.items() <= contents(root).items()


def test_missing_state_loses_nothing(course, root):
    workspace.prepare(root, "en")
    (root / "01_bert.ipynb").write_bytes(b"mine")
    (root / WORKSPACE_FILE).unlink()
    before = contents(root)
    assert workspace.prepare(root, "en").kept == ["01_bert.ipynb"] and contents(root) == before


def test_link_and_folder_in_a_notebooks_place_are_kept(course, root, tmp_path):
    workspace.prepare(root, "en")
    target = tmp_path / "elsewhere.ipynb"
    os.replace(root / "01_bert.ipynb", target)
    (root / "01_bert.ipynb").symlink_to(target)
    (root / "02_transformer.ipynb").unlink()
    (root / "02_transformer.ipynb").mkdir()
    course.write("01_bert", 1)
    course.write("02_transformer", 1)
    report = workspace.prepare(root, update=True)
    assert set(report.kept) == {"01_bert.ipynb", "02_transformer.ipynb"} and len(report.beside) == 2
    assert (root / "01_bert.ipynb").is_symlink() and b"Version 0" in target.read_bytes()


# --- refusals -----------------------------------------------------------------------------------------------------

def refused(*args, **kwargs) -> UserError:
    with pytest.raises(UserError) as caught:
        workspace.prepare(*args, **kwargs)
    for sentence in (caught.value.en, caught.value.zh):
        assert sentence and "\n" not in sentence and "--dir" in sentence
    return caught.value


def test_language_of_a_workspace_is_settled(course, root):
    workspace.prepare(root, "zh")
    before = contents(root)
    assert "in Chinese" in refused(root, "en").en and contents(root) == before


def test_a_file_and_the_sources_are_no_place(root, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(tmp_path / "file", "en").en
    course = asset("course")
    places = [course, course / "deeper", Path(workspace.__file__).parent]
    if course.name == "nbs":
        places += [course.parent, course.parent / "exercises"]
        (tmp_path / "link").symlink_to(course)
        places.append(tmp_path / "link" / "x")
    for place in places:
        before = sorted(place.parent.iterdir()) if place.parent.exists() else None
        assert "sources of the course" in refused(place, "en").en
        assert before is None or sorted(place.parent.iterdir()) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that even root cannot write to")
def test_unwritable_place():
    assert "cannot write" in refused(Path("/proc/bertcourse"), "en").en


def test_file_in_the_way_of_a_folder(course, root):
    root.mkdir()
    (root / "helpers").write_bytes(b"mine")
    assert "helpers" in refused(root, "en").en and (root / "helpers").read_bytes() == b"mine"


def test_broken_course_notebook_writes_nothing(course, root):
    (course.root / "course/02_transformer.ipynb").write_text("{")
    with pytest.raises(UserError, match="02_transformer.ipynb is not a notebook"):
        workspace.prepare(root, "en")
    assert not root.exists()


# --- any sequence of steps ----------------------------------------------------------------------------------------

NAMES = ("01_bert.ipynb", "02_transformer.ipynb", "helpers/plots.ipynb", "README.md", "03_1_objectives.ipynb", "own.txt")


class Learner(RuleBasedStateMachine):
    """Runs, edits, deletions, updates, damages and new versions of the course, in any order."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        base = Path(self.folder.name)
        self.course, self.root = Course(base / "source"), base / "work"
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(workspace, "asset", self.course.asset)
        self.patch.setattr(atomic.os, "fsync", lambda _: None)  # only for speed
        self.mine, self.handed, self.edits, self.deleted = {}, set(), 0, set()

    def teardown(self):
        if hasattr(self, "folder"):
            self.patch.undo()
            self.folder.cleanup()

    @rule(update=st.booleans())
    def run(self, update):
        self.handed |= {made.data for made in workspace.handouts("en").values()}
        had_state = (self.root / WORKSPACE_FILE).exists()
        before = set(contents(self.root)) if self.root.exists() else set()
        workspace.prepare(self.root, "en", update)
        if not update and had_state:
            assert set(contents(self.root)) == before  # nothing comes, or comes back, unasked
        if update:
            assert set(contents(self.root)) >= set(workspace.handouts("en"))

    @rule(name=st.sampled_from(NAMES), again=st.booleans())
    def edit(self, name, again):
        path = self.root / name
        found = sorted(self.root.glob("*.new-*")) if again else []
        path = found[-1] if found else path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.edits += 1
        path.write_bytes(b"edit %d" % self.edits)
        self.mine[path] = path.read_bytes()

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name):
        (self.root / name).unlink(missing_ok=True)
        self.mine.pop(self.root / name, None)

    @rule(name=st.sampled_from(("01_bert", "helpers/plots", "03_1_objectives")), version=st.integers(1, 3))
    def course_changes(self, name, version):
        self.course.write(name, version)

    @rule(how=st.sampled_from(("gone", "damaged", "old")))
    def state_suffers(self, how):
        path = self.root / WORKSPACE_FILE
        if how == "gone":
            path.unlink(missing_ok=True)
        elif path.exists():
            knows_nothing = b'{"lang": "en", "version": "0", "complete": true, "files": {}}'
            path.write_bytes(b"{" if how == "damaged" else knows_nothing)

    @invariant()
    def nothing_of_the_learners_is_lost(self):
        if not hasattr(self, "root") or not self.root.exists():
            return
        for path, data in self.mine.items():
            assert path.read_bytes() == data, f"{path.name} was overwritten"
        for name, data in contents(self.root).items():
            assert self.root / name in self.mine or data in self.handed, f"{name} is neither the learner's nor whole"
            assert not name.endswith((".tmp", ".old"))


TestLearner = Learner.TestCase
TestLearner.settings = settings(max_examples=60, stateful_step_count=25, deadline=None,
                                suppress_health_check=list(HealthCheck))


# --- interruptions ------------------------------------------------------------------------------------------------

class Planted(BaseException):
    """Not an `Exception`, as a Ctrl-C is none."""


def plant(monkeypatch, function: str, at: int, error: BaseException):
    """Make the `at`-th call of os.<function> raise; returns the list of calls."""
    real, calls = getattr(os, function), []

    def planted(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise error
        return real(*args, **kwargs)
    monkeypatch.setattr(atomic.os, function, planted)
    return calls


@pytest.mark.parametrize("error", [Planted(), OSError(errno.ENOSPC, "No space left on device")], ids=["stop", "full"])
@pytest.mark.parametrize("function", ["fsync", "link", "replace"])
def test_interrupted_write_leaves_old_or_new(course, tmp_path, monkeypatch, function, error):
    for at in range(1, 100):
        root = tmp_path / f"work-{at}"
        course.write("01_bert", 0)
        workspace.prepare(root, "en")
        (root / "02_transformer.ipynb").write_bytes(b"mine")
        (root / "helpers/plots.ipynb").unlink()
        course.write("01_bert", 1)
        course.write("02_transformer", at)
        old, new = contents(root), {name: made.data for name, made in workspace.handouts("en").items()}
        with monkeypatch.context() as patch:
            calls = plant(patch, function, at, error)
            try:
                workspace.prepare(root, update=True)
            except Planted:
                pass
            except UserError as refusal:
                assert "no space is left" in refusal.en
        left = contents(root)
        for name, data in left.items():
            plain = re.sub(r"\.new-[^/]*(?=\.ipynb)", "", name)
            assert data in (old.get(name), new.get(plain)), f"{name} is half written after {function} number {at}"
        assert left["02_transformer.ipynb"] == b"mine" and old.keys() <= left.keys()
        json.loads((root / WORKSPACE_FILE).read_bytes())
        workspace.prepare(root, update=True)
        assert contents(root)["01_bert.ipynb"] == new["01_bert.ipynb"] and "helpers/plots.ipynb" in contents(root)
        if len(calls) < at:
            break
    assert at > 2 and len(calls) < at  # every call was made to fail once


def test_interrupted_first_run_is_completed_by_the_next(course, root, monkeypatch):
    with monkeypatch.context() as patch:
        plant(patch, "fsync", 4, Planted())  # files and folders in turn
        with pytest.raises(Planted):
            workspace.prepare(root, "zh")
    assert 0 < len(contents(root)) < 4 and not state(root)["complete"]
    workspace.prepare(root)
    assert len(contents(root)) == 4 and state(root)["lang"] == "zh" and len(state(root)["files"]) == 4


def test_without_hard_links_nothing_changes_but_the_way(course, root, monkeypatch):
    def no_links(*args):
        raise OSError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(atomic.os, "link", no_links)
    workspace.prepare(root, "en")
    (root / "01_bert.ipynb").write_bytes(b"mine")
    course.write("01_bert", 1)
    course.write("helpers/plots", 1)
    report = workspace.prepare(root, update=True)
    assert len(report.beside) == 1 and report.updated == ["helpers/plots.ipynb"]
    assert (root / "01_bert.ipynb").read_bytes() == b"mine" and not atomic.create(root / "01_bert.ipynb", b"x")


def test_save_that_slips_in_before_the_rename_survives(tmp_path, monkeypatch):
    path = tmp_path / "01_bert.ipynb"
    path.write_bytes(b"handed out")
    real = os.replace

    def save_first(source, target):
        if Path(target) == path and str(source).endswith(".tmp"):
            path.write_bytes(b"saved meanwhile")  # in place, as Jupyter does
        real(source, target)
    monkeypatch.setattr(atomic.os, "replace", save_first)
    assert not atomic.replace_untouched(path, b"new version", atomic.digest(b"handed out"))
    assert path.read_bytes() == b"saved meanwhile" and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("links", [True, False])
def test_changed_file_is_not_replaced(tmp_path, monkeypatch, links):
    def no_links(*args):
        raise OSError(errno.EPERM, "Operation not permitted")
    if not links:
        monkeypatch.setattr(atomic.os, "link", no_links)
    path = tmp_path / "a"
    path.write_bytes(b"changed")
    assert not atomic.replace_untouched(path, b"new", atomic.digest(b"handed out"))
    assert path.read_bytes() == b"changed" and [p.name for p in tmp_path.iterdir()] == ["a"]
    assert atomic.replace_untouched(path, b"new", atomic.digest(b"changed")) and path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_file_that_appears_meanwhile_survives(tmp_path, monkeypatch):
    path, real = tmp_path / "a", os.link

    def save_first(source, target):
        path.write_bytes(b"saved meanwhile")
        real(source, target)
    monkeypatch.setattr(atomic.os, "link", save_first)
    assert not atomic.create(path, b"new") and path.read_bytes() == b"saved meanwhile"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# --- several processes --------------------------------------------------------------------------------------------

PREPARE = """
import os, sys, pathlib
sys.path.insert(0, sys.argv[4])
from bertcourse.app import workspace
from bertcourse.base import atomic
from bertcourse.base.messages import UserError
source = pathlib.Path(sys.argv[1])
def asset(name):
    if not (source / name).exists(): raise FileNotFoundError(name)
    return source / name
workspace.asset = asset
real, calls, last = os.fsync, [], int(sys.argv[5])
def fsync(handle):
    calls.append(handle)
    if len(calls) == last: os._exit(9)  # as if killed
    real(handle)
os.fsync = fsync
try: workspace.prepare(pathlib.Path(sys.argv[2]), sys.argv[3], update=True)
except UserError as error: print(error.en); sys.exit(2)
"""


def start(course, root, lang, killed_at=0):
    package = Path(workspace.__file__).parents[2]
    command = [sys.executable, "-c", PREPARE, course.root, root, lang, package, str(killed_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_at_the_same_time_agree(course, root):
    runs = [start(course, root, "en") for _ in range(4)]
    assert [(run.communicate()[0], run.returncode) for run in runs] == [("", 0)] * 4
    assert contents(root) == {name: made.data for name, made in workspace.handouts("en").items()}
    assert set(state(root)["files"]) == set(contents(root))


def test_of_two_languages_one_wins(course, root):
    runs = {lang: start(course, root, lang) for lang in ("zh", "en")}
    codes = {lang: (run.communicate()[0], run.returncode)[1] for lang, run in runs.items()}
    assert sorted(codes.values()) == [0, 2]
    winner = min(codes, key=codes.get)
    assert contents(root) == {name: made.data for name, made in workspace.handouts(winner).items()}


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_killed_process_leaves_whole_files(course, root, at):
    run = start(course, root, "en", killed_at=at)
    run.communicate()
    assert run.returncode in (0, 9)
    made = {name: made.data for name, made in workspace.handouts("en").items()}
    whole = {name: data for name, data in contents(root).items() if not name.endswith(".tmp")}
    assert whole.items() <= made.items()
    workspace.prepare(root, "en")
    assert made.items() <= contents(root).items()


# --- what the learner gets ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("lang", ["zh", "en"])
def test_learner_notebooks_of_the_course(tmp_path, lang):
    workspace.prepare(tmp_path / "w", lang)
    sources = {name.as_posix(): json.loads(path.read_text(encoding="utf-8"))
               for name, path in workspace._notebooks(asset("course"))}
    assert sources.keys() <= contents(tmp_path / "w").keys()
    for name, source in sources.items():
        made = nbformat.read(tmp_path / "w" / name, as_version=4)
        nbformat.validate(made)
        texts = [cell["source"] for cell in made.cells]
        marked = [split_marker(re.sub(r"\]\(images/", "](attachment:", "".join(cell["source"]).replace("](../exercises/", "](exercises/")))  # as in a workspace
                  for cell in source["cells"] if cell["cell_type"] == "markdown"]
        assert not {text for other, text in marked if other not in (None, lang)} & set(texts), name
        assert {text for own, text in marked if own == lang} <= set(texts), name
        for cell in made.cells:
            assert cell.source.strip() and not re.match(r"\s*<!-- (zh|en) -->", cell.source), name
            if cell.cell_type == "code":
                assert cell.execution_count is None and bool(cell.outputs) == is_timing(cell), name  # known before it is run
                shown = str(cell.outputs)
                assert not cell.outputs or ("全部单元" in shown) == (lang == "zh") and ("All cells" in shown) == (lang == "en"), name
                assert not re.search(r"^\s*#\|", cell.source, re.M), name


def test_hidden_cells_and_directives_are_gone(course, root):
    workspace.prepare(root, "zh")
    cells = json.loads((root / "01_bert.ipynb").read_bytes())["cells"]
    assert [cell["id"] for cell in cells] == ["title", "how-to-run", "page-time", "zh", "code", "next-page"]
    of_the_course = [cell for cell in cells if cell["id"] in ("title", "zh", "code")]
    assert ["".join(cell["source"]) for cell in of_the_course] == ["# 01_bert（中文）\n\n> 摘要", "第 0 版", "x = 0"]


def page(root: Path, name: str) -> list[dict]:
    return json.loads((root / name).read_bytes())["cells"]


def text(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_page_says_how_it_is_run_how_long_it_takes_and_where_it_goes_on(tmp_path, lang):
    root = tmp_path / "w"
    workspace.prepare(root, lang)
    names = [name for name in workspace.handouts(lang) if name.endswith(".ipynb")]
    chapters = [name for name in names if re.fullmatch(r"\d\d_\w+\.ipynb", name)]
    assert chapters == sorted(path.name for path in (ROOT / "nbs").glob("[0-9]*.ipynb"))
    exercises = [name for name in names if name.startswith("exercises/")]
    assert exercises == sorted(f"exercises/{path.name}" for path in (ROOT / "exercises").glob("[0-9]*.ipynb"))
    helpers = [path.relative_to(ROOT / "nbs").as_posix() for path in (ROOT / "nbs/helpers").glob("*.ipynb")]
    assert {*names} == {*chapters, *exercises, *helpers, "index.ipynb", "look_inside.ipynb", "teaching.ipynb"} and len(names) == len({*names})
    for name in exercises:
        cells = page(root, name)
        first = next(cell for cell in cells if cell["cell_type"] == "code")
        assert "find_spec" in text(first) and re.search("约 \\d+ 分钟" if lang == "zh" else r"about \d+ minutes", text(cells[1]))
        assert f"](../{name.partition('/')[2]})" in text(cells[-1]) and f"]({name})" in "".join(map(text, page(root, name.partition("/")[2])))
        assert not re.search("Mistake|reference=|solution_source", str(cells)), "nothing of the solution"
        assert bool(re.search("[一-鿿]", "".join(map(text, cells)).replace("高兴", ""))) == (lang == "zh"), name
    for name in [name for name in names if name not in exercises]:
        cells = page(root, name)
        assert len({cell["id"] for cell in cells}) == len(cells) and cells[0]["cell_type"] == "markdown"
        start, last = cells[1], cells[-1]
        assert "Shift+Enter" in text(start) and re.search(r"阅读约 \d+ 分钟.*运行全部单元约 \d+ (秒|分钟)" if lang == "zh" else
                                                          r"about \d+ minutes? to read .*, about \d+ (s|minutes) to run", text(start)), name
        first = next(cell for cell in cells if cell["cell_type"] == "code")
        assert is_timing(first) and ("MB" in str(first["outputs"])), name
        assert bool(re.search("[一-鿿]", text(start) + text(first) + text(last))) == (lang == "zh"), name
        for link in re.findall(r"\]\(([^)]+)\)", text(last)):
            assert (root / name).parent.joinpath(link).is_file(), name
    follows = {name: re.findall(r"\[(.+)\]\((.+)\)", text(page(root, name)[-1]))[-1] for name in ["index.ipynb", *chapters]}
    assert [link for _, link in follows.values()] == [*chapters, "README.md"]
    for title, link in [*follows.values()][:-1]:
        assert text(page(root, link)[0]).splitlines()[0] == f"# {title}"
    index = (root / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^- \[.+\]\(\d\d_\w+\.ipynb\).*\d+.*\d+", index, re.MULTILINE)) == len(chapters) and "--dir" in index


def test_the_guess_of_minutes():
    from bertcourse.app import pages

    def cell(text, kind="markdown"):
        return {"cell_type": kind, "source": [text]}
    assert pages.reading_minutes([cell("word " * 300), cell("code " * 9000, "code"), cell("```\n" + "x " * 900 + "\n```")]) == 2
    assert pages.reading_minutes([cell("字" * 1000), cell("$" + "a " * 500 + "$ [字](" + "x" * 500 + ")")]) == 4
    assert pages.reading_minutes([]) == 1
    assert [pages.duration(seconds, "en") for seconds in (0.2, 12.5, 89, 150)] == ["about 1 s", "about 12 s", "about 89 s", "about 2 minutes"]


@pytest.mark.parametrize("lang, says", [("zh", "里没有 bertcourse。请用 bertcourse lab 打开课程"), ("en", "has no bertcourse. Open the course with")])
def test_kernel_without_bertcourse_says_what_to_do(course, root, lang, says):
    workspace.prepare(root, lang)
    for name in ("01_bert.ipynb", "helpers/plots.ipynb"):
        first = next(cell for cell in page(root, name) if cell["cell_type"] == "code")
        bare = [sys.executable, "-I", "-S", "-c", text(first)]  # nothing but the standard library
        done = subprocess.run(bare, capture_output=True, text=True, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"})
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.startswith("ModuleNotFoundError: ") and says in last and sys.executable in last and "Change Kernel" in last
        assert subprocess.run([sys.executable, "-c", text(first)], cwd=Path(workspace.__file__).parents[2]).returncode == 0


def test_pages_in_a_folder_are_in_the_workspaces_language(course, root, monkeypatch, tmp_path):
    from bertcourse.languages import bilingual, current_language

    workspace.prepare(root, "zh")
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)
    (root / "helpers" / "deeper").mkdir()
    for folder in (root, root / "helpers", root / "helpers" / "deeper"):
        monkeypatch.chdir(folder)
        assert current_language() == "zh" and bilingual("词", "word") == '<span lang="zh">词</span>'
    monkeypatch.chdir(tmp_path)
    assert current_language() is None and bilingual("词", "word").count("<span") == 2
    monkeypatch.chdir(root / "helpers")
    (root / WORKSPACE_FILE).write_text("{")
    assert current_language() is None
    monkeypatch.setenv("BERTCOURSE_LANG", "en")
    assert current_language() == "en"


def test_checkpoints_and_drafts_are_not_handed_out(course, root):
    for name in (".ipynb_checkpoints/01_bert-checkpoint", "_draft", "_proc/01_bert"):
        course.write(name)
    course.root.joinpath("exercises").mkdir()
    (course.root / "exercises/README.md").write_text("about")
    course.write("../exercises/01_bert")
    workspace.prepare(root, "en")
    assert len(contents(root)) == 5 and "exercises/01_bert.ipynb" in contents(root)


def test_first_page(course, root):
    workspace.prepare(root, "en")
    assert workspace.first_page(root) == "01_bert.ipynb"
    (root / "01_bert.ipynb").rename(root / "01_bert.new-0.1.0-12345678.ipynb")
    assert workspace.first_page(root) == "02_transformer.ipynb"
    (root / "02_transformer.ipynb").unlink()
    assert workspace.first_page(root) == "README.md"


@pytest.mark.parametrize("environ, lang", [
    ({"LANG": "zh_CN.UTF-8"}, "zh"), ({"LANG": "en_US.UTF-8"}, "en"), ({"LANG": "C.UTF-8"}, "en"),
    ({"LANG": "zh_TW", "LC_ALL": "de_DE"}, "en"), ({"LANG": "de_DE", "LC_MESSAGES": "zh_HK.UTF-8"}, "zh"),
    ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
])
def test_language_of_the_locale(environ, lang):
    assert reader_language(environ) == lang


@pytest.mark.parametrize("name, lang", [
    ("Chinese (Simplified)_China", "zh"), ("zh_CN", "zh"), ("de_DE", "en"), (None, "en"),
])
def test_language_of_the_system(monkeypatch, name, lang):
    monkeypatch.setattr("bertcourse.base.reader.locale.getlocale", lambda: (name, None))
    assert reader_language({}) == lang
