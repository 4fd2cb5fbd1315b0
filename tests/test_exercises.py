"""The exercises, each proved: the reference passes, the mistakes are recognised, mutations fail, other right forms pass."""

import inspect
import json
import random
import re

import pytest
from checks import exercises as proofs
from checks import language, reading

from bertcourse.app.pages import reading_minutes
from bertcourse.exercises import Exercise, Experiment, Question, state
from bertcourse.exercises.checking import CORRECT, NOT_ATTEMPTED, NOT_YET, RAISED, judge
from bertcourse.exercises.definition import LEVELS
from bertcourse.exercises.loading import load_sheets
from bertcourse.exercises.pages import anchor, learner_sheet, site_pages

SHEETS = load_sheets()
ENTRIES = [entry for sheet in SHEETS for entry in sheet.entries]
CODED = [entry for entry in ENTRIES if "Exercise(" in entry.definition]
EXCEPTIONS = {}


by_id = pytest.mark.parametrize("entry", CODED, ids=lambda entry: entry.id)
by_sheet = pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.page)


# --- what there is ------------------------------------------------------------------------------------------------

def aims(page: str) -> int:
    """How many aims the chapter names at its top."""
    cells = json.loads((reading.NBS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = next("".join(cell["source"]) for cell in cells if cell["id"] == "aims-en")
    return len(re.findall(r"^- ", text, re.MULTILINE))


@pytest.mark.check
@by_sheet
def test_a_sheet_is_complete(sheet):
    tasks = [entry.task() for entry in sheet.entries]
    coded = [task for task in tasks if isinstance(task, Exercise)]
    assert len(coded) >= 6 and sum(isinstance(task, Question) for task in tasks) >= 2
    assert {task.level for task in coded} == set(LEVELS)
    assert {task.aim for task in tasks} == set(range(1, aims(sheet.page) + 1)), "each aim has its exercise"
    assert all(1 <= task.minutes <= 45 for task in tasks)
    assert not [f"{entry.id} {text}" for entry in sheet.entries for text in proofs.complaints(entry)]


@pytest.mark.check
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_minutes_that_are_stated_suffice(entry):
    """To read the prompt aloud, as pages measure it, and half a minute for each line of the solution."""
    reading_time = max(reading_minutes([{"cell_type": "markdown", "source": text}]) for text in entry.prompts.values())
    task = entry.task()
    functions = (*task.helpers, task.reference) if isinstance(task, Exercise) else ()
    lines = [line for function in functions for line in inspect.getsource(function).splitlines() if line.strip()]
    assert task.minutes >= reading_time + 0.5 * len(lines)


@pytest.mark.check
def test_a_prompt_ends_where_the_exercise_does():
    for entry in ENTRIES:
        assert not [prompt for prompt in entry.prompts.values() if "progress" in prompt.lower() or "\n## " in prompt], entry.id


@pytest.mark.check
def test_ids_are_those_of_the_chapters_and_unique():
    ids = [entry.id for entry in ENTRIES]
    assert len(set(ids)) == len(ids)
    for entry in ENTRIES:
        assert int(entry.id.split(".")[0]) == int(entry.page[:2])
    numbers = {}
    for id in ids:
        chapter, number = map(int, id.split("."))
        numbers.setdefault(chapter, []).append(number)
    assert all(found == [*range(1, len(found) + 1)] for found in numbers.values())


@pytest.mark.check
@pytest.mark.parametrize("check", language.CHECKS, ids=lambda c: c.__name__)
@by_sheet
def test_both_languages(sheet, check):
    cells = reading.read(sheet.path)
    found = [*check(cells, EXCEPTIONS)] if check is language.same_numbers else [*check(cells)]
    assert not found, "\n".join(found)


@pytest.mark.check
@by_sheet
def test_cells(sheet):
    cells = json.loads(sheet.path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert all(not cell.get("outputs") for cell in cells)
    for entry in sheet.entries:
        assert sources.count(f'check("{entry.id}")') == 1
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    long = [line for source in code for line in source.splitlines() if len(line) > (150 if "#| exercise" in source else 100)]
    assert not long


# --- as a learner gets it -----------------------------------------------------------------------------------------

SLOW_CELL = re.compile(r"\bfit\(")  # one run of an experiment


@pytest.mark.parametrize("lang", ["zh", "en"])
@by_sheet
def test_a_sheet_as_handed_out_runs(sheet, lang, tmp_path, monkeypatch):
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "progress.json"))
    monkeypatch.setenv("BERTCOURSE_LANG", lang)
    copy = learner_sheet(json.loads(sheet.path.read_text(encoding="utf-8")), sheet.page, lang)
    namespace, said = {"__name__": "__main__"}, {}
    for cell in copy["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not SLOW_CELL.search(source):
            exec(compile(source, f"<{cell['id']}>", "exec"), namespace)
            if called := re.match(r'check\("([\d.]+)"\)', source):
                said[called[1]] = repr(eval(source, namespace))
    assert said.keys() == {entry.id for entry in sheet.entries}
    marks = {text.splitlines()[0][0] for text in said.values()}
    assert marks <= {"○", "✗"}  # nothing is solved; a find-the-bug exercise says what its function gives
    assert all(bool(re.search("[一-鿿]", text)) == (lang == "zh") for text in said.values())
    assert not (tmp_path / "progress.json").exists()  # and nothing counts as an attempt


@by_sheet
def test_the_pages_of_the_site(sheet):
    for lang in ("zh", "en"):
        exercises, solutions = site_pages(sheet, lang).values()
        for entry in sheet.entries:
            for page in (exercises, solutions):
                found = ["".join(cell["source"]) for cell in page["cells"] if f"{{#{anchor(entry.id)}}}" in "".join(cell["source"])]
                assert len(found) == 1 and entry.titles[lang] in found[0]
            if "Exercise(" in entry.definition:
                source = inspect.getsource(entry.task().reference).strip()
                assert source in str_of(solutions) and source not in str_of(exercises)


def str_of(page):
    return "\n".join("".join(cell["source"]) for cell in page["cells"])


# --- proofs -------------------------------------------------------------------------------------------------------

@by_id
def test_the_reference_passes_with_a_hundred_seeds(entry):
    exercise = entry.task()
    for seed in range(100):
        outcome = judge(exercise, exercise.reference, entry.stub, seed)
        assert outcome.status == CORRECT, (seed, outcome)


@by_id
def test_the_cell_as_handed_out(entry):
    exercise = entry.task()
    outcome = judge(exercise, proofs.stub_function(entry), entry.stub)
    assert outcome.is_unchanged
    if exercise.origin:
        assert outcome.status in (NOT_YET, RAISED) and outcome.mistake, "the bug that is to be found is one of the mistakes"
    else:
        assert outcome.status == NOT_ATTEMPTED


@by_id
def test_each_mistake_fails_and_is_recognised(entry):
    exercise = entry.task()
    for mistake in exercise.mistakes:
        for seed in range(5):
            outcome = judge(exercise, mistake.answer, entry.stub, seed)
            assert outcome.status in (NOT_YET, RAISED), (mistake.name, seed, outcome.status)
            assert outcome.mistake is mistake, (mistake.name, seed, outcome.mistake and outcome.mistake.name)


@by_id
def test_other_forms_of_a_right_answer_pass(entry):
    exercise = entry.task()
    if exercise.observe is None:
        for form in proofs.FORMS:
            assert judge(exercise, proofs.in_form(exercise.reference, form)).status == CORRECT, form


@by_id
def test_the_tolerance_lies_between_rounding_and_the_smallest_mistake(entry):
    exercise = entry.task()
    assert proofs.rounding(exercise) < exercise.tolerance < proofs.smallest_mistake(exercise) / 5


@by_id
def test_mutations_fail(entry):
    exercise = entry.task()
    made = [*proofs.mutants(exercise)]
    random.Random(entry.id).shuffle(made)
    made = made[:40]
    survivors = [source for source in made if proofs.survives(exercise, source)]
    assert len(made) - len(survivors) >= max(2, 0.8 * len(made)), "\n\n".join(survivors[:5])


@pytest.mark.skipif(len(SHEETS) < 10, reason="not all notebooks are there yet")
def test_enough_of_each_kind():
    tasks = [entry.task() for entry in ENTRIES]
    assert sum(isinstance(task, Exercise) and task.origin is not None for task in tasks) >= 8
    assert sum(isinstance(task, Experiment) for task in tasks) >= 3


# What the explanations of the experiments rest on: where a new recording says otherwise, the explanation is to be written anew.
VERDICTS = {"4.19": "lower", "5.10": "no difference", "6.9": "bottom"}


def test_the_recordings_still_say_what_the_explanations_do():
    tasks = [entry.task() for entry in ENTRIES if "Experiment(" in entry.definition]
    assert {task.id: task.verdict(task.recorded()) for task in tasks} == VERDICTS
    assert all(VERDICTS[task.id] in task.choices for task in tasks)
