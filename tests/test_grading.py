"""`bertcourse release` and `grade`, as far as no submission has to be run: what goes in and out, who handed in what, tables and pages."""

import csv
import http
import io
import json
import os
import re
import stat
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import gradebooks
import numpy as np
import pytest
import torch

from bertcourse.app.cli import main
from bertcourse.base.bilingual import Text
from bertcourse.base.errors import UserError
from bertcourse.exercises import checking
from bertcourse.exercises.definition import Exercise, Experiment
from bertcourse.exercises.loading import find_entry, load_sheets
from bertcourse.grading import inside, pages, reports, sandbox, scoring, submissions, wire
from bertcourse.grading.assignment import choose_sheets, default_assignment, read_assignment, read_secret, to_toml
from bertcourse.grading.marking import grade
from bertcourse.grading.releasing import release, student_notebook
from bertcourse.grading.requests import inputs_of, request_of, seed_of
from bertcourse.grading.running import Journal
from bertcourse.grading.sandbox import Limits
from bertcourse.grading.scoring import Mark, Run, Trials

SECRET = b"a secret of the tests"
CODED = [entry for sheet in load_sheets() for entry in sheet.entries if entry.facts.kind in ("Exercise", "Bug")]


# --- values -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("value", [
    None, True, 3, -2**80, 0.1, float("inf"), "文\ud800", [1, [2, "x"]], (1, (2,)), {1, 2}, {"a": [1], 2: None}, torch.tensor([[1.5, -2]]),
    torch.tensor(3), torch.tensor([True, False]), np.arange(6).reshape(2, 3), torch.zeros(0, 3), torch.tensor([1 + 2j]),
], ids=repr)
def test_a_value_comes_back(value):
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert type(back) is type(value) and checking.difference(value, back, 0.0) is None


def test_tensors_of_any_kind_come_back_as_numbers():
    sent = [torch.ones(2, requires_grad=True), torch.nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.bfloat16), torch.ones(2, 2).T[0]]
    assert all(torch.equal(wire.decode(wire.encode(value)).float(), torch.ones(2)) for value in sent)
    assert wire.decode(wire.encode(np.float32(0.5))) == 0.5


@pytest.mark.parametrize("value, plain", [
    (http.HTTPStatus.OK, 200), (np.str_("x"), "x"), (Fraction(1, 2), 0.5), (Decimal("0.5"), 0.5), (np.longdouble(0.5), 0.5), ({np.int64(1): 2}, {1: 2}),
    (MappingProxyType({"a": 1}), {"a": 1}), (frozenset({1}), {1}), (type("L", (list,), {})([1]), [1]), (np.uint32(3), 3),
], ids=repr)  # fmt: skip
def test_values_of_other_classes_are_those_of_pythons_own(value, plain):
    back = wire.decode(wire.encode(value))
    assert back == plain and type(back) is type(plain)


def test_tensors_in_odd_forms_come_back():
    odd = [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag, torch.tensor([1.0, 0.0]).to_sparse(), torch.tensor([1], dtype=torch.uint16)]
    assert all(not isinstance(wire.decode(wire.encode(value)), wire.Foreign) for value in odd)
    assert checking.difference(torch.tensor([1.0, 0.0]), odd[2], 0.0) is None


@pytest.mark.parametrize("value, name", [(object(), "object"), (print, "builtin_function_or_method"), (torch.nn.Linear(1, 1), "Linear"), (10**2000, "int"),
                                         ("x" * 2_000_000, "str"), ([0] * 300_000, "list"), (torch.zeros(1).expand(10**9), "Tensor")],
                         ids=lambda value: str(value)[:20])  # fmt: skip
def test_what_cannot_be_sent_is_named(value, name):
    assert type(wire.decode(wire.encode(value))).__name__ == name


def test_cyclic_and_deep_values_end():
    cyclic, deep = [], []
    cyclic += [cyclic, cyclic]
    for _ in range(10_000):
        deep = [deep]
    assert isinstance(wire.decode(wire.encode(cyclic)), wire.Foreign) and isinstance(wire.decode(wire.encode(deep)), wire.Foreign)


@pytest.mark.parametrize("data", [
    {}, [], ["list"], ["list", 1], ["nothing", []], [[]], ["dict", [[1]]], ["dict", [[["list", []], 1]]], ["tensor", "float32", [2], "AAAA"],
    ["tensor", "object", [1], "AAAAAAAA"], ["tensor", "float32", [-1], ""], ["tensor", "float32", [10**9], ""], ["tensor", "float32", [True], "AAAAAA=="],
    ["array", "float32", [1], "no base64"], ["array", "float32", 1, "AAAAAA=="], ["other", 1], ["set", "abc"], ["array", "float32", [1]],
    ["array", "float32", [3000, 3000, 0], ""],
], ids=repr)  # fmt: skip
def test_anything_else_is_refused(data):
    with pytest.raises(ValueError):
        wire.decode(data)


def test_a_byte_that_is_no_truth_value_becomes_one():
    assert wire.decode(["tensor", "bool", [2], "AgA="]).tolist() == [True, False]


def test_the_name_of_a_class_is_a_name():
    assert type(wire.decode(["other", "<script>"])).__name__ == "object"


# --- what goes in -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("entry", CODED, ids=lambda entry: entry.id)
def test_the_sandbox_gets_inputs_and_no_answer(entry):
    task, inputs = entry.task(), inputs_of(entry.definition)
    answers = {task.name, *(mistake.name for mistake in task.mistakes), *(helper.__name__ for helper in task.helpers)}
    assert not answers & inputs.names and "Mistake" not in inputs.source and "hints" not in inputs.source


def test_inputs_that_need_the_answer_are_refused():
    definition = "def f(x):\n    return x\n\ndef cases(draw):\n    return [(f(1),)]\n\nexercise = Exercise(reference=f, cases=cases, mistakes=[])"
    with pytest.raises(ValueError, match="inputs need f"):
        inputs_of(definition)


def test_seeds_tell_nothing_of_each_other():
    seeds = {seed_of(secret, entry.id) for secret in (SECRET, SECRET + b"!") for entry in CODED}
    assert len(seeds) == 2 * len(CODED) and seed_of(SECRET, "2.1") == seed_of(SECRET, "2.1")
    assert SECRET not in request_of([], [find_entry("5.1")], SECRET, Limits())


def test_the_seed_decides_the_order_of_the_inputs():
    """Some exercises have a fixed set of inputs; an answer that counts its calls must not do."""
    results = [[result.value for _, result in Trials(secret)[find_entry("2.5")].right] for secret in (SECRET, b"a", b"b")]
    assert len({str(one) for one in results}) == 3 and len({str(sorted(map(str, one))) for one in results}) == 1


def sent_by(entry, function):
    """What the sandbox would send of a function, here without one."""
    request = json.loads(request_of([], [entry], SECRET, Limits()))["exercises"][0]
    result = inside.try_exercise(request, inside.prepare(request), {request["name"]: function})
    return json.loads(json.dumps(result))


@pytest.mark.parametrize("entry", CODED, ids=lambda entry: entry.id)
def test_answers_are_judged_as_in_the_notebook(entry):
    task, trials = entry.task(), Trials(SECRET)
    for function in (task.reference, *(mistake.answer for mistake in task.mistakes)):
        unchanged = checking.same_body(function.__code__, checking.code_of(entry.stub, task.name))
        here = trials[entry].verdict(checking.outputs(task, function, trials[entry].cases), unchanged)
        mark = scoring.judge_result(entry, sent_by(entry, function), trials)
        if here.status == checking.CORRECT or not here.is_unchanged:
            assert mark.outcome.status == here.status and mark.outcome.mistake == here.mistake, function.__name__
            assert mark.outcome.difference == here.difference or here.status != checking.NOT_YET
        else:
            assert mark.status == checking.NOT_ATTEMPTED


@pytest.mark.parametrize("sent", [
    None, 5, [], {}, {"unchanged": False}, {"unchanged": False, "calls": []}, {"unchanged": False, "calls": None}, {"unchanged": False, "calls": [{}] * 5},
    {"unchanged": False, "calls": [{"printed": "", "raw": ["tensor", "float32", [3], ""], "arguments": []}] * 5}, {"unchanged": 1, "calls": "abcde"},
    {"unchanged": False, "calls": [{"printed": "", "failure": ["a", "b"]}] * 5}, {"unchanged": False, "calls": [{"printed": 5, "late": True}] * 5},
], ids=repr)  # fmt: skip
def test_a_forged_result_is_wrong(sent):
    assert scoring.judge_result(find_entry("5.1"), sent, Trials(SECRET)).status == checking.NOT_YET


@pytest.mark.parametrize("key", ["$}$", "$" + "{" * 3000 + "$", "[**click**](https://a.b)", "`x`", "<b>"])
def test_a_key_is_text_and_no_markup(key):
    entry = find_entry("1.3")
    right = entry.task().reference
    mark = scoring.judge_result(entry, sent_by(entry, lambda *arguments: right(*arguments) | {key: 1}), Trials(SECRET))
    shown = pages.mark_message(entry, mark).html("en")
    assert mark.status == checking.NOT_YET and "<a " not in shown and "<b>" not in shown.replace("<b>not yet", "").partition("too many")[2]


def test_the_first_result_counts_and_noise_is_left_out():
    lines = [b"noise", b"[1]", b"{}", b'{"exercise": "5.1", "result": 1}', b'{"exercise": "5.1", "result": 2}', b'{"cell": 2, "error": "X"}', b"[" * 100_000,
             b'{"ended": "cell 3"}']
    run = scoring.read_run(lines)
    assert (run.results, run.ended, run.errors, run.stopped) == ({"5.1": 1}, ["cell 3"], {2: "X"}, "")


def test_a_prediction_is_read_without_running_it():
    experiment = next(task for sheet in load_sheets() for entry in sheet.entries if isinstance(task := entry.task(), Experiment))
    choice, name = next(iter(experiment.choices)), experiment.prediction
    for source, found in [(f"{name} = None", None), (f'{name} = "{choice}"', choice), (f"x = 1\n{name}='{choice}'  # so", choice), (f"{name} = 'no such'", None),
                          (f'{name} = "{choice}"\n{name} = None', choice), (f"# {name} = '{choice}'", None),
                          (f"import os; {name}: str = ('{choice}')", choice), (f"a = {name} = '{choice}'", choice), (f'  {name} = """{choice}"""', choice)]:
        assert scoring.prediction_of([source], experiment) == found, source


# --- release ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("sheet", load_sheets(), ids=lambda sheet: sheet.page)
def test_students_get_no_solution(sheet, lang):
    text = json.dumps(student_notebook(sheet, default_assignment([sheet], lang)), ensure_ascii=False)
    given = "".join(entry.stub + entry.prompts[lang] for entry in sheet.entries)  # another exercise may show a line
    for entry in sheet.entries:
        task, secrets = entry.task(), []
        if isinstance(task, Exercise):
            body = [line.strip() for line in gradebooks.solution_cell(entry).splitlines() if len(line.strip()) > 25 and not line.startswith(("def ", "import ", "from "))]
            secrets = [line for line in body if line not in given]
            secrets += [f"def {mistake.name}(" for mistake in task.mistakes] + [mistake.text[lang] for mistake in task.mistakes] + ["def cases", "Mistake("]
        secrets += [hint[lang] for hint in task.hints] + [getattr(task, "answer", Text("", ""))[lang]]
        for secret in filter(None, secrets):
            assert json.dumps(secret, ensure_ascii=False)[1:-1] not in text, (entry.id, secret)


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("sheet", load_sheets(), ids=lambda sheet: sheet.page)
def test_what_is_handed_out_does_not_say_how_to_see_solutions(sheet, lang):
    cells = ["".join(cell["source"]) for cell in student_notebook(sheet, default_assignment([sheet], lang))["cells"]]
    assert not [cell for cell in cells if re.search(r"\bhint\b|\bsolution\b", cell)]
    assert any(cell.endswith("from bertcourse.exercises import check, progress") for cell in cells)
    assert sum({"zh": "`progress()` 显示进度。", "en": ". `progress()` shows how far you are."}[lang] in cell for cell in cells) == 1


def test_a_planted_solution_would_be_found():
    sheet = gradebooks.sheet_of("05_distillation")
    entry = sheet.entries[0]
    text = json.dumps(gradebooks.solved("05_distillation", answers={}), ensure_ascii=False)
    assert any(json.dumps(line.strip())[1:-1] in text for line in gradebooks.solution_cell(entry).splitlines() if len(line.strip()) > 25)


def test_release_writes_a_course(tmp_path, capsys):
    found = release(tmp_path / "课程", chapters=["5"], lang="zh", due="2027-01-31")
    names = {path.relative_to(tmp_path / "课程").as_posix() for path in (tmp_path / "课程").rglob("*") if path.is_file()}
    assert names == {"assignment.toml", "nbgrader_config.py", "seed.txt", "release/05_distillation/05_distillation.ipynb",
                     "source/05_distillation/05_distillation.ipynb"}
    assert read_assignment(tmp_path / "课程/assignment.toml").points == found.points and found.due.hour == 23
    assert stat.S_IMODE((tmp_path / "课程/seed.txt").stat().st_mode) == 0o600 and len(read_secret(tmp_path / "课程/seed.txt")) == 64
    notebook = json.loads((tmp_path / "课程/release/05_distillation/05_distillation.ipynb").read_text(encoding="utf-8"))
    graded = {cell["metadata"]["nbgrader"]["grade_id"] for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade")}
    assert {"check-5-1", "answer-5-8", "check-5-10"} <= graded and "check-5-8" not in graded
    assert "../" not in json.dumps(notebook)
    assert main(["release", str(tmp_path / "课程")]) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize("chapters, pages", [
    (5, ["05_distillation"]), ("5", ["05_distillation"]), ("05_distillation", ["05_distillation"]), ([5], ["05_distillation"]),
    ((5, "01_bert"), ["01_bert", "05_distillation"]), ([5, "5"], ["05_distillation"]),
])  # fmt: skip
def test_chapters_by_number_or_name_alone_or_together(tmp_path, chapters, pages):
    assert release(tmp_path / "c", chapters=chapters).pages == [sheet.page for sheet in choose_sheets(chapters)] == pages
    gradebooks.write(tmp_path / "in", "a/01_bert.ipynb", gradebooks.solved("01_bert"))
    if "01_bert" not in pages:
        with pytest.raises(UserError, match="holds no notebook"):
            grade(tmp_path / "in", tmp_path / "s.csv", chapters=chapters, trust_submissions=True, quiet=True)


@pytest.mark.parametrize("chapters", [0, 9, "²", "", 1.5, [None]])
def test_chapters_that_there_are_not(tmp_path, chapters):
    with pytest.raises(UserError, match="there are no exercises called"):
        release(tmp_path / "c", chapters=chapters)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv, expected", [
    (["--chapters", "9"], "no exercises called '9'"), (["--due", "soon"], "--due soon is no date"), (["--lang", "fr"], "zh"),
])  # fmt: skip
def test_what_release_refuses(tmp_path, capsys, monkeypatch, argv, expected):
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    try:
        code = main(["release", str(tmp_path / "c"), *argv])
    except SystemExit as error:
        code = error.code
    assert code == 2 and expected in capsys.readouterr().err and not (tmp_path / "c").exists()


@pytest.mark.parametrize("text, expected", [
    ("due = ", "is no TOML"), ("[points]\n", "no exercise has points"), ("lang = 'en'", "it has no [points]"), ("[points]\n\"9.1\" = 1", "no exercise '9.1'"),
    ("[points]\n2.1 = 1", "no exercise '2'"), ("[points]\n\"2.1\" = -1", "from 0 to"), ("[points]\n\"2.1\" = true", "from 0 to"),
    ("due = 'soon'\n[points]\n\"2.1\" = 1", "due must be a date"), ("lang = 'fr'\n[points]\n\"2.1\" = 1", "lang must be"),
    ("pionts = 1\n[points]\n\"2.1\" = 1", "'pionts'"),
])  # fmt: skip
def test_what_an_assignment_must_not_be(tmp_path, text, expected):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as found:
        read_assignment(tmp_path / "a.toml")
    assert expected in found.value.en and "a.toml" in found.value.zh


def test_an_assignment_as_written_is_read(tmp_path):
    plan = default_assignment(lang="zh", due=datetime(2027, 1, 31, 12, tzinfo=UTC))
    (tmp_path / "a.toml").write_text("\ufeff" + to_toml(plan), encoding="utf-8")
    assert read_assignment(tmp_path / "a.toml") == plan


def test_a_seed_that_can_be_guessed_is_refused(tmp_path):
    (tmp_path / "seed").write_text("1234")
    with pytest.raises(UserError, match="can be guessed"):
        read_secret(tmp_path / "seed")


# --- who handed in what -------------------------------------------------------------------------------------------

class OldInfo(zipfile.ZipInfo):
    """An entry whose name is in the encoding of an old Windows, without the flag for UTF-8."""

    def _encodeFilenameFlags(self):
        return self.filename.encode("gb18030"), self.flag_bits & ~0x800


def archive(path: Path, entries, encoding="utf-8"):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            file.writestr((zipfile.ZipInfo if encoding == "utf-8" else OldInfo)(name, (2027, 1, 1, 0, 0, 0)), json.dumps(data))
    return path


def found_in(root):
    return {(one.student, one.page): one.problem and one.problem.en for one in submissions.load(root)[0]}


def test_students_by_folder_file_and_archive(tmp_path):
    page, notebook = "05_distillation", gradebooks.handed_out("05_distillation")
    gradebooks.write(tmp_path, f"甲/{page}/{page}.ipynb", notebook)
    gradebooks.write(tmp_path, f"Ab_12345_assignsubmission_file_/{page}.ipynb", notebook)
    gradebooks.write(tmp_path, f"丙_{page}.ipynb", notebook)
    gradebooks.write(tmp_path, "丁.ipynb", notebook)
    archive(tmp_path / "戊.zip", {"work/x.ipynb": notebook, "__MACOSX/._x.ipynb": {}, "readme.txt": 1})
    gradebooks.write(tmp_path, "甲/.ipynb_checkpoints/x.ipynb", notebook)
    assert found_in(tmp_path) == {(name, page): None for name in ("甲", "Ab", "丙", "丁", "戊")}


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_an_archive_of_a_platform(tmp_path, encoding):
    notebook = gradebooks.handed_out("05_distillation")
    path = archive(tmp_path / "all.zip", {"王甲_1_assignsubmission_file_/a.ipynb": notebook, "王甲_2_assignsubmission_file_/b.ipynb": notebook, "李/c.ipynb": notebook}, encoding)
    assert {name for name, _ in found_in(path)} == {"王甲_1_assignsubmission_file_", "王甲_2_assignsubmission_file_", "李"}


def test_the_last_one_that_can_be_read_counts(tmp_path):
    page = "05_distillation"
    for number, (name, data) in enumerate([(" (1)", gradebooks.handed_out(page)), (" (2)", gradebooks.solved(page)), (" - 副本", b"{")]):
        path = gradebooks.write(tmp_path, f"a/{page}{name}.ipynb", data)
        os.utime(path, (1000 + number, 1000 + number))
    kept, replaced = submissions.load(tmp_path)
    assert [one.source for one in kept] == ["a/05_distillation (2).ipynb"] and len(replaced) == 2


def test_links_and_devices_are_not_opened(tmp_path):
    target = gradebooks.write(tmp_path, "a/05_distillation.ipynb", gradebooks.solved("05_distillation"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/05_distillation.ipynb").symlink_to(target)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d/05_distillation.ipynb")
    found = found_in(tmp_path)
    assert found.keys() == {("c", ""), *((name, "05_distillation") for name in "abd")} and found.pop(("a", "05_distillation")) is None
    assert all("no regular file" in problem for problem in found.values())


@pytest.mark.parametrize("change, page", [
    (lambda nb: nb["metadata"].pop("bertcourse"), ""), (lambda nb: [cell.pop("id") for cell in nb["cells"]], "05_distillation"),
    (lambda nb: nb["cells"].reverse(), "05_distillation"), (lambda nb: nb.update(metadata={}, nbformat_minor=2), ""),
], ids=["no note", "no ids", "reversed", "old format"])  # fmt: skip
def test_which_page_it_is(tmp_path, change, page):
    notebook = gradebooks.solved("05_distillation")
    change(notebook)
    gradebooks.write(tmp_path, "a/Untitled.ipynb", notebook)
    assert found_in(tmp_path) == {("a", "05_distillation"): None}, page


@pytest.mark.parametrize("files, students", [
    (["班.zip/张三/x.ipynb", "班.zip/李四/x.ipynb"], {"班/张三", "班/李四"}), (["class1/a/x.ipynb", "class1/b/x.ipynb", "c/x.ipynb"], {"class1/a", "class1/b", "c"}),
    (["top/甲_11_assignsubmission_file_/x.ipynb", "top/乙_12_assignsubmission_file_/x.ipynb"], {"甲", "乙"}), (["Ann Lee 05_distillation.ipynb"], {"Ann Lee"}),
    (["Copy of 05_distillation.ipynb"], {"Copy of 05_distillation"}), (["li_101_9001_05_distillation.ipynb", "li_LATE_101_9002_05_distillation-1.ipynb"], {"li_101"}),
    (["Jose\u0301/x.ipynb", "Jos\u00e9/05_distillation.ipynb"], {"Jos\u00e9"}),
], ids=["archive of a class", "folders of classes", "a platform's, unpacked", "a blank", "a copy", "Canvas", "Unicode"])  # fmt: skip
def test_nobody_is_taken_for_another(tmp_path, files, students):
    notebook, archives = gradebooks.handed_out("05_distillation"), {}
    for name in files:
        first, _, rest = name.partition(".zip/")
        if rest:
            archives.setdefault(first, {})[rest] = notebook
        else:
            gradebooks.write(tmp_path, name, notebook)
    for name, entries in archives.items():
        archive(tmp_path / f"{name}.zip", entries)
    assert {student for student, _ in found_in(tmp_path)} == students


def test_an_archive_of_a_student_says_nothing_of_its_time(tmp_path):
    archive(tmp_path / "a.zip", {"05_distillation.ipynb": gradebooks.handed_out("05_distillation")})
    os.utime(tmp_path / "a.zip", (2_000_000_000,) * 2)
    assert submissions.load(tmp_path)[0][0].modified.timestamp() == 2_000_000_000


def test_what_cannot_be_graded_is_named(tmp_path):
    for name in ("a.rar", "b/x.ipynb.txt", "c/notes.txt"):
        gradebooks.write(tmp_path, name, b"x")
    assert {student for student, _ in found_in(tmp_path)} == {"a", "b"}


def test_a_course_is_no_folder_of_submissions(tmp_path):
    release(tmp_path / "c", chapters=["5"])
    with pytest.raises(UserError, match="submitted"):
        submissions.load(tmp_path / "c")


def test_archives_in_archives_share_their_room(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "ARCHIVE", 3_000_000)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(20):
            file.writestr(f"{number}/05_distillation.ipynb", b"#" * 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(20):
            file.writestr(f"{number}.zip", inner.getvalue())
    read = [one for one in submissions.find(tmp_path)]
    assert sum(len(one.data) for one in read) < 5_000_000 and any("holds too much" in one.problem.en for one in read if one.problem)


def test_answers_are_found_without_ids(tmp_path):
    notebook = gradebooks.handed_out("05_distillation")
    answer = next(cell for cell in notebook["cells"] if cell["id"].startswith("answer-5-8"))
    answer["source"] = "MY ANSWER"
    for cell in notebook["cells"]:
        cell.pop("id"), cell.update(metadata={})
    gradebooks.write(tmp_path, "a/05_distillation.ipynb", notebook)
    assert dict(submissions.load(tmp_path)[0][0].answers)["5.8"] == "MY ANSWER"


# --- tables and pages ---------------------------------------------------------------------------------------------

def record(student="a", page="05_distillation", **marks):
    return {"key": student, "student": student, "source": f"{student}/x.ipynb", "page": page, "modified": "2027-02-01T01:00:00+00:00", "problem": None,
            "marks": [{"id": id.replace("_", "."), "status": status, "mistake": "", "note": None} for id, status in marks.items()]}


def rows_of(records, **plan):
    data = reports.to_csv([reports.COLUMNS, *reports.score_rows(records, plan_of(**plan))])
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))


def plan_of(due=None, **points):
    from dataclasses import replace
    plan = default_assignment([gradebooks.sheet_of("05_distillation"), gradebooks.sheet_of("06_tinybert")], "en", due)
    return replace(plan, points={id.replace("_", "."): float(value) for id, value in points.items()}) if points else plan


def test_one_row_a_student_and_exercise():
    rows = rows_of([record(p5_1="", **{"5_1": "correct", "5_8": "to be marked"})], **{"5_1": 2, "5_2": 1, "5_8": 3, "6_1": 1})
    assert [(row["exercise"], row["points"], row["max_points"], row["status"]) for row in rows] == [
        ("5.1", "2", "2", "correct"), ("5.2", "0", "1", "not handed in"), ("5.8", "", "3", "to be marked"), ("6.1", "0", "1", "not handed in")]


def test_what_was_late_is_said():
    rows = rows_of([record(**{"5_1": "correct"})], due=datetime(2027, 1, 31, 23, tzinfo=UTC), **{"5_1": 2})
    assert (rows[0]["hours_late"], rows[0]["points"]) == ("2", "2")


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+1", "-1", "\tx"])
def test_a_name_is_no_formula(name):
    assert rows_of([record(name, **{"5_1": "correct"})], **{"5_1": 1})[0]["student"].startswith(("'", "\\"))


def test_mistakes_of_the_class_are_counted():
    marked = [record(name, **{"5_1": "not yet"}) for name in "abc"]
    for one in marked[:2]:
        one["marks"][0]["mistake"] = "multiplied"
    assert reports.mistake_rows(marked, plan_of())[0][:3] == ["5.1", "multiplied", 2]


def test_a_page_holds_nothing_that_runs():
    evil = "<script>alert(1)</script><img src=http://a.b/c onerror=alert(2)>"
    one = submissions.Submission(evil, "x", datetime.now(UTC), "05_distillation", answers=(("5.8", evil),))
    entry, question = find_entry("5.1"), find_entry("5.8")
    mark = scoring.judge_result(entry, sent_by(entry, lambda logits, temperature: (print(evil), [evil, evil])[1]), Trials(SECRET))
    page = pages.feedback_page(one, "T", [(entry, mark, 0.0, 1.0), (question, Mark("5.8", scoring.TO_MARK), None, 2.0)], Run(errors={1: evil}), "en", evil)
    assert "<script" not in page and "<img" not in page and page.count("&lt;script") >= 4
    assert "default-src 'none'" in page and len(page.encode()) < 300_000


def test_a_page_stays_small():
    entry = find_entry("5.8")
    one = submissions.Submission("a", "x", datetime.now(UTC), "05_distillation", answers=(("5.8", "x" * 10**6),))
    page = pages.feedback_page(one, "T", [(entry, Mark("5.8", scoring.TO_MARK), None, 1.0)] * 200, Run(), "zh", "")
    assert len(page.encode()) < 300_000


def test_folders_of_students_stay_apart_and_inside():
    names = pages.folder_names(["a/../b", "a_.._b", "A_.._B", "..", "", "文" * 200, "x\ud800"])
    assert len(set(names.values())) == 7 and pages.folder_names(["a?", "a!"])["a?"] == pages.folder_names(["a?"])["a?"]
    assert all(name and "/" not in name and not name.startswith(".") and len(name.encode()) < 255 for name in names.values())


# --- the journal --------------------------------------------------------------------------------------------------

def test_a_torn_line_is_left_out(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.add({"secret": "s"})
    journal.add({"key": "a", "marks": []})
    with (tmp_path / "j.jsonl").open("ab") as file:
        file.write(b'{"key": "b", "mar')
    again = Journal(tmp_path / "j.jsonl")
    again.add({"key": "c"})
    assert again.secret == "s" and Journal(tmp_path / "j.jsonl").records.keys() == {"a", "c"}


def test_a_damaged_journal_is_said(tmp_path):
    (tmp_path / "j.jsonl").write_bytes(b"no json\n")
    with pytest.raises(UserError, match="damaged"):
        Journal(tmp_path / "j.jsonl")


# --- no sandbox, no grading ---------------------------------------------------------------------------------------

@pytest.fixture
def fresh():
    sandbox.check_sandbox.cache_clear()
    yield
    sandbox.check_sandbox.cache_clear()


@pytest.mark.parametrize("change, expected", [
    (lambda patch: patch.setattr(sandbox.sys, "platform", "darwin"), "on Windows in WSL 2"),
    (lambda patch: patch.setattr(sandbox.shutil, "which", lambda name: None), "apt install bubblewrap"),
    (lambda patch: (patch.setattr(sandbox.shutil, "which", lambda name: "/bin/false"), patch.setattr(sandbox, "sandboxed", lambda command, limits: [
        "sh", "-c", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1"])), "No permissions to create new namespace"),
], ids=["macOS", "not installed", "no namespaces"])  # fmt: skip
def test_without_a_sandbox_nothing_is_run(tmp_path, monkeypatch, capsys, fresh, change, expected):
    gradebooks.write(tmp_path / "in", "a/05_distillation.ipynb", gradebooks.solved("05_distillation"))
    change(monkeypatch)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    assert main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "s.csv")]) == 2
    said = capsys.readouterr().err
    assert expected in said and "--trust-submissions" in said and not list(tmp_path.glob("s*"))


@pytest.mark.parametrize("argv, expected", [
    (["--course", "nowhere"], "holds no assignment.toml"), (["--assignment", "nowhere.toml"], "cannot be read"), (["--seed-file", "nowhere"], "seed cannot be read"),
    (["--chapters", "9"], "no exercises called"), (["--chapters", "6"], "holds no notebook"), (["--jobs", "0"], "--jobs"), (["--seconds", "1"], "--seconds"),
])  # fmt: skip
def test_what_grade_refuses(tmp_path, monkeypatch, capsys, argv, expected):
    gradebooks.write(tmp_path / "in", "a/05_distillation.ipynb", gradebooks.solved("05_distillation"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    try:
        code = main(["grade", "in", "--out", "s.csv", "--trust-submissions", *argv])
    except SystemExit as error:
        code = error.code
    assert code == 2 and expected in capsys.readouterr().err and not (tmp_path / "s.csv").exists()


def test_own_work_is_graded_without_a_sandbox(tmp_path, capsys):
    gradebooks.write(tmp_path / "in", "a/01_bert.ipynb", gradebooks.solved("01_bert", answers={"1.7": "def wrong(): pass"}))
    argv = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "s.csv"), "--trust-submissions", "--chapters", "1", "--lang", "en"]
    assert main(argv) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8-sig"))))
    states = {row["exercise"]: row["status"] for row in rows}
    assert states == {f"1.{n}": {7: "missing", 9: "to be marked", 10: "to be marked"}.get(n, "correct") for n in range(1, 11)}
    before = (tmp_path / "s-journal.jsonl").read_bytes()
    capsys.readouterr()
    assert main(argv) == 2 and str(tmp_path / "s") in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0 and (tmp_path / "s-journal.jsonl").read_bytes() == before
    assert (tmp_path / "s-feedback/a/01_bert.html").is_file() and not list(tmp_path.glob("**/.*"))


def test_cells_keep_the_numbers_that_a_student_sees(tmp_path):
    notebook = gradebooks.solved("01_bert", leave=("1.2",))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    number = next(i for i, cell in enumerate(code, 1) if cell["id"] == "stub-1-2")
    code[number - 1]["source"] = ["1 / 0"]
    gradebooks.write(tmp_path / "in", "a/01_bert.ipynb", notebook)
    main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "s.csv"), "--trust-submissions", "--chapters", "1", "--lang", "en"])
    assert f"counted from 1: {number} (ZeroDivisionError)." in (tmp_path / "s-feedback/a/01_bert.html").read_text(encoding="utf-8")
