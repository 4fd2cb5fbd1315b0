"""The machinery of the exercises: comparison, safe calls, outcomes, messages, the progress file, the learner's functions."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertcourse import exercises
from bertcourse.app import cli
from bertcourse.base.errors import UserError
from bertcourse.exercises import Exercise, Mistake, Text, state
from bertcourse.exercises.checking import CORRECT, LATE, NOT_ATTEMPTED, NOT_YET, RAISED, judge
from bertcourse.exercises.compare import difference, show
from bertcourse.exercises.running import TimeIsUp, call, time_limit


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "progress.json"))
    monkeypatch.setenv("BERTCOURSE_LANG", "en")
    return tmp_path / "progress.json"


# --- an exercise to play with -------------------------------------------------------------------------------------

def scale(values, factor):
    return values * factor


def forgot(values, factor):
    return values


def squared(values, factor):
    return values * factor ** 2


EXERCISE = Exercise(
    id="1.1", aim=1, level=1, minutes=1, reference=scale, cases=lambda draw: [(draw.tensor(3), 2.0), (draw.tensor(2, 2), 3.0)],
    mistakes=[Mistake(forgot, "忘了乘。", "Not multiplied."), Mistake(squared, "平方了。", "Squared.")],
    hints=[Text("乘。", "Multiply."), Text("用 *。", "Use *.")])


def outcome(function, **options):
    return judge(EXERCISE, function, "def scale(values, factor):\n    ...\n", **options)


# --- comparing ----------------------------------------------------------------------------------------------------

SAME = [
    (torch.tensor([1.0, 2.0]), [1, 2]), (torch.tensor([1.0, 2.0]), np.array([1.0, 2.0])), ([1, 2, 3], (1, 2, 3)), ([1, 2], torch.tensor([1, 2])),
    (3, 3.0), (3, torch.tensor(3)), (2.5, np.float32(2.5)), (torch.tensor(True), 1), (torch.tensor([True, False]), [1, 0]), ("a", "a"), (None, None),
    ({"a": 1, "b": [1.0]}, {"b": [1.0], "a": 1}), (float("nan"), float("nan")), (float("inf"), float("inf")), ([("a", 0.5)], [["a", 0.50001]]),
    ({1, 2}, [2, 1]), (1.0, 1.00005), (torch.tensor(2.0), torch.tensor([2.0])), ([], []), ([["a"], []], [["a"], []]),
]
DIFFERENT = [
    (torch.ones(2), torch.ones(3)), (torch.ones(2, 1), torch.ones(1, 2)), (torch.ones(2), [1, 1.01]), (3, 4), (3, 3.0001), (1.0, 1.001), ("a", "b"), ("a", 1),
    (1, "a"), (None, 0), (1.0, None), ({"a": 1}, {"a": 2}), ({"a": 1}, {}), ({"a": 1}, {"a": 1, "b": 2}), ([1, 2], [1, 2, 3]), ([1, 2], "12"), (float("nan"), 0.0),
    (float("inf"), 1e9), (torch.tensor([True]), [0]), ([("a", 0.5)], [("b", 0.5)]), ({1}, {2}), ([[1], [2, 3]], [[1], [2]]), (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), None), (torch.ones(2), "x"), (torch.ones(2), {"a": 1}),
]


@pytest.mark.parametrize("expected, got", SAME, ids=repr)
def test_what_counts_as_the_same(expected, got):
    assert difference(expected, got, 1e-4) is None


@pytest.mark.parametrize("expected, got", DIFFERENT, ids=repr)
def test_what_does_not(expected, got):
    found = difference(expected, got, 1e-4)
    assert found and re.search("[一-鿿]", found.zh) and not re.search("[一-鿿]", found.en)


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=8), st.data())
def test_any_value_equals_itself_and_can_be_shown(value, data):
    assert difference(value, value, 1e-4) is None
    assert len(show(value)) < 2_000
    other = data.draw(st.none() | st.integers() | st.text(max_size=2) | st.lists(st.integers(), max_size=2))
    difference(value, other, 1e-4), difference(other, value, 1e-4)  # no pair of values makes it raise


def test_a_wrong_number_is_named_with_its_place():
    found = difference(torch.zeros(2, 3), torch.tensor([[0, 0, 0], [0, 0.5, 0]]), 1e-4)
    assert found.en == "1 of 6 numbers is wrong; the first is at (1, 1): it should be 0, and is 0.5"


# --- outcomes -----------------------------------------------------------------------------------------------------

def test_the_outcomes():
    assert outcome(scale).status == CORRECT
    assert outcome(lambda values, factor: [v * factor for v in values.flatten().tolist()]).status == NOT_YET  # the second case has two axes
    wrong = outcome(forgot)
    assert (wrong.status, wrong.case, wrong.mistake.name) == (NOT_YET, 0, "forgot")
    assert outcome(lambda values, factor: values + factor).mistake is None
    assert outcome(lambda values, factor: None).status == NOT_ATTEMPTED
    raised = outcome(lambda values: values)
    assert raised.status == RAISED and raised.failure.kind == "TypeError"


def test_the_cell_as_handed_out_is_not_an_attempt():
    namespace = {}
    exec("def scale(values, factor):\n    '''Another docstring.'''\n    ...  # a comment\n", namespace)
    found = judge(EXERCISE, namespace["scale"], "def scale(values, factor):\n    ...\n")
    assert found.status == NOT_ATTEMPTED and found.is_unchanged


def test_an_answer_that_changes_its_arguments():
    found = outcome(lambda values, factor: values.mul_(factor))
    assert found.status == NOT_YET and "changed its argument `values`" in found.difference.en


def test_the_line_of_an_error():
    source = "def scale(values, factor):\n    total = values * factor\n    return total.no_such_thing\n"
    namespace = {}
    import linecache
    linecache.cache["<cell 7>"] = (len(source), None, source.splitlines(True), "<cell 7>")
    exec(compile(source, "<cell 7>", "exec"), namespace)
    found = outcome(namespace["scale"]).failure
    assert (found.kind, found.line, found.code) == ("AttributeError", 3, "return total.no_such_thing")


# --- an answer can do no harm -------------------------------------------------------------------------------------

def forever(values, factor):
    while True:
        pass


def asleep(values, factor):
    time.sleep(60)


def swallows(values, factor):
    while True:
        try:
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def swallows_politely(values, factor):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


@pytest.mark.parametrize("answer", [forever, asleep, swallows, swallows_politely])
def test_an_answer_that_never_ends(answer):
    before = time.monotonic()
    assert outcome(answer, seconds=0.3).status == LATE
    assert time.monotonic() - before < 20
    assert sys.gettrace() is None and outcome(scale).status == CORRECT  # and the next check works


def test_an_answer_that_never_ends_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(outcome(forever, seconds=0.3).status))
    thread.start()
    thread.join(20)
    assert found == [LATE]


def test_the_time_limit_leaves_no_timer():
    with time_limit(0.2):
        pass
    time.sleep(0.4)  # nothing raises
    with pytest.raises(TimeIsUp), time_limit(0.1):
        time.sleep(5)


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), MemoryError(), GeneratorExit(), StopIteration()], ids=repr)
def test_whatever_an_answer_raises(error):
    def answer(values, factor):
        raise error
    assert outcome(answer).status == RAISED


def test_an_endless_recursion():
    def answer(values, factor):
        return answer(values, factor)
    assert outcome(answer).failure.kind == "RecursionError"


def test_the_learners_objects_and_settings_stay():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()

    def answer(values, factor):
        random.random(), np.random.rand(), torch.rand(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        print("x" * 10_000)
        return values * factor

    assert outcome(answer).status == CORRECT
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    assert torch.get_default_dtype() is torch.float32 and torch.is_grad_enabled()


def test_an_argument_is_a_copy():
    values = [1, 2]
    done = call(lambda given: given.append(3), (values,))
    assert values == [1, 2] and done.arguments == ([1, 2, 3],)


def test_no_network_is_used(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a check opened a socket")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert "not attempted" in repr(exercises.check("1.2", None))
    for part in (exercises.hint("1.2"), exercises.solution("1.2", now=True), exercises.progress()):
        assert part.html()


# --- what a learner sees ------------------------------------------------------------------------------------------

def answer_of(id):
    from bertcourse.exercises.loading import find_entry
    return find_entry(id).task()


def test_a_learner_solves_an_exercise(own_progress):
    task = answer_of("1.2")
    said = exercises.check("1.2", task.mistakes[0].answer)
    assert "not yet" in repr(said) and task.mistakes[0].en.split(":")[0] in repr(said) and "Input 1 of" in repr(said)
    assert "hint 1 of 3" in repr(exercises.hint("1.2")) and "hint 2 of 3" in repr(exercises.hint("1.2"))
    assert "hint 3 of 3" in repr(exercises.hint("1.2")) and "hint 3 of 3" in repr(exercises.hint("1.2"))
    assert "hint 1 of 3" in repr(exercises.hint("1.2", 1))
    before = exercises.progress().html()
    assert "correct" in repr(exercises.check("1.2", task.reference))
    after = exercises.progress().html()
    assert before != after and "1 of" in after
    entry = json.loads(own_progress.read_text())["exercises"]["1.2"]
    assert entry["attempts"] == 2 and entry["hints"] == 3 and entry["solved"]
    exercises.check("1.2", task.mistakes[0].answer)
    assert json.loads(own_progress.read_text())["exercises"]["1.2"]["solved"] == entry["solved"]  # for good


def test_a_solution_is_shown_after_an_attempt():
    task = answer_of("1.7")
    assert "You have not tried yet" in repr(exercises.solution("1.7")) and "def count_parameters" not in repr(exercises.solution("1.7"))
    exercises.check("1.7", task.mistakes[0].answer)
    assert "def count_parameters" in repr(exercises.solution("1.7")) and task.mistakes[0].en in repr(exercises.solution("1.7"))


def test_the_function_is_found_in_the_notebook():
    namespace = {"check": exercises.check}
    exec("found = check('1.7')", namespace)
    assert "There is no count_parameters here yet" in repr(namespace["found"])
    namespace["count_parameters"] = 3
    exec("found = check('1.7')", namespace)
    assert "is not a function" in repr(namespace["found"])
    namespace["count_parameters"] = answer_of("1.7").reference
    exec("found = check('1.7')", namespace)
    assert "1.7 Counting parameters: correct" in repr(namespace["found"])


def test_a_question_is_marked_by_the_learner(own_progress):
    assert "you mark it yourself" in repr(exercises.check("1.9"))
    assert "a whole number from 0 to 3" in repr(exercises.check("1.9", points=7))
    assert "1 of 3 points" in repr(exercises.check("1.9", points=1)) and "all 3 points" in repr(exercises.check("1.9", points=3))
    assert "A good answer says" in repr(exercises.solution("1.9"))
    assert state.state(json.loads(own_progress.read_text())["exercises"]["1.9"]) == state.SOLVED
    assert "leave out points" in repr(exercises.check("1.7", points=1))


@pytest.mark.parametrize("id", ["9.9", "1.99", "", "x\x1b[31m"])
def test_an_unknown_exercise(id):
    for ask in (exercises.check, exercises.hint, exercises.solution):
        said = repr(ask(id))
        assert "there is no exercise" in said and "Traceback" not in said and "\x1b" not in said


@pytest.mark.parametrize("id", [1.2, 2.10, 77, None, ["1.2"]])
def test_an_id_that_is_no_text_changes_nothing(own_progress, id):
    exercises.check("1.7", answer_of("1.7").reference)
    before = own_progress.read_text()
    for ask in (exercises.check, exercises.hint, exercises.solution):
        assert "write its number in quotes" in repr(ask(id))
    assert "hint 1 of 3" in repr(exercises.hint(" 1.2 ")) and "hint 2 of 3" in repr(exercises.hint(" 1.2 "))
    assert json.loads(own_progress.read_text())["exercises"].keys() == {"1.7", "1.2"}
    assert json.loads(before)["exercises"]["1.7"] == json.loads(own_progress.read_text())["exercises"]["1.7"]


def test_a_bug_that_is_to_be_found_is_not_given_away():
    from checks.exercises import stub_function

    from bertcourse.exercises.loading import load_sheets
    for entry in (entry for sheet in load_sheets() for entry in sheet.entries if entry.facts.kind == "Bug"):
        said = repr(exercises.check(entry.id, stub_function(entry)))
        assert "find its bug and fix it" in said and not any(mistake.en in said for mistake in entry.task().mistakes), entry.id


def test_a_cell_whose_last_run_failed():
    namespace = {"check": exercises.check, "In": ["", "def count_parameters(V, P, H, L, I):\n    return 1\n", "def count_parameters(V P):\n    return 2\n"]}
    exec(namespace["In"][1], namespace)
    exec("found = check('1.7')", namespace)
    assert "the version before" in repr(namespace["found"])
    namespace["In"].append(namespace["In"][1])
    exec("found = check('1.7')", namespace)
    assert "the version before" not in repr(namespace["found"])


def test_a_learner_who_stops_a_check(monkeypatch):
    def interrupted(*shape):
        raise KeyboardInterrupt
    assert "stopped by you" in repr(exercises.check("1.7", interrupted))


def test_an_answer_that_asks_or_warns():
    def asks(*shape):
        return int(input("how many?"))

    def warns(*shape):
        import warnings
        warnings.warn("deprecated")
        return answer_of("1.7").reference(*shape) + 1
    assert "input() cannot be used" in repr(exercises.check("1.7", asks))
    assert "deprecated" not in repr(exercises.check("1.7", warns))


@pytest.mark.parametrize("prediction, difference, says", [(None, 0.1, "There is no prediction_5_10"), ("none", 0.1, "is one of"), (["better"], 0.1, "is one of"),
                                                          ("better", None, "There is no difference_5_10"), ("better", "much", "is a number")])
def test_an_experiment_needs_a_prediction_and_a_number(own_progress, prediction, difference, says):
    namespace = {"check": exercises.check, "prediction_5_10": prediction, "difference_5_10": difference}
    exec("found = check('5.10')", namespace)
    assert says in repr(namespace["found"]) and not own_progress.exists()


def test_an_experiment_is_compared_with_the_records(own_progress):
    namespace = {"check": exercises.check, "prediction_5_10": "no difference", "difference_5_10": 0.01}
    exec("found = check('5.10')", namespace)
    assert "agrees with the records" in repr(namespace["found"]) and state.read_progress(own_progress).is_solved("5.10")


@pytest.mark.parametrize("number", [0, 4, -1, "2", 1.5])
def test_a_hint_that_is_not_there(number):
    assert "has the hints 1 to 3" in repr(exercises.hint("1.2", number))


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_messages_are_in_the_readers_language(monkeypatch, lang):
    monkeypatch.setenv("BERTCOURSE_LANG", lang)
    task = answer_of("1.7")
    said = [exercises.check("1.7", function) for function in (None, task.reference, lambda *a: None, lambda: 1, *(m.answer for m in task.mistakes))]
    said += [exercises.check("9.9"), exercises.hint("1.7"), exercises.solution("1.7"), exercises.check("1.9"), exercises.check("1.9", points=2),
             exercises.solution("1.9"), exercises.progress()]
    for one in said:
        for text in (repr(one), re.sub("<[^>]+>", "", one.html())):
            assert bool(re.search("[一-鿿]", text)) == (lang == "zh"), text


def test_both_languages_where_none_is_known(monkeypatch, tmp_path):
    monkeypatch.delenv("BERTCOURSE_LANG")
    monkeypatch.chdir(tmp_path)
    page = exercises.check("1.9").html()
    assert 'lang="zh"' in page and 'lang="en"' in page


def test_what_an_answer_gives_is_shown_as_text_not_as_html():
    task = answer_of("1.2")
    page = exercises.check("1.2", lambda word, vocabulary: ["<script>alert(1)</script>"]).html()
    assert "<script>" not in page and "&lt;script&gt;" in page and task


# --- the progress file --------------------------------------------------------------------------------------------

def test_what_others_wrote_stays(own_progress):
    own_progress.write_text(json.dumps({"format": state.FORMAT, "version": 1, "note": "mine", "exercises": {"77.1": {"attempts": 2, "later": [1]}}}))
    state.record_attempt("1.1", True)
    found = json.loads(own_progress.read_text())
    assert found["note"] == "mine" and found["exercises"]["77.1"] == {"attempts": 2, "later": [1]} and found["exercises"]["1.1"]["attempts"] == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "bertcourse exercises", "version": 1}', '{"format": "bertcourse exercises", "version": 2, "exercises": {}}',
                                     '{"format": "bertcourse exercises", "version": 1, "exercises": {"1.1": {"attempts": "x"}}}',
                                     '{"format": "bertcourse exercises", "version": 1, "exercises": {"1.1": {"solved": "yesterday"}}}',
                                     '{"format": "bertcourse quiz", "version": 1, "exercises": {}}'])
def test_a_damaged_file_is_never_written(own_progress, content):
    own_progress.write_text(content)
    with pytest.raises(UserError):
        state.record_attempt("1.1", True)
    said = repr(exercises.check("1.7", answer_of("1.7").reference))
    assert "correct" in said and "Your progress was not saved" in said and own_progress.read_text() == content
    assert "left as it is" in repr(exercises.progress())


def test_two_processes_lose_nothing(own_progress):
    code = "import sys; from bertcourse.exercises import state\nfor i in range(25): state.record_attempt(f'{sys.argv[1]}.{i}', i % 2 == 0)"
    running = [subprocess.Popen([sys.executable, "-c", code, name], env={**os.environ}) for name in ("1", "2")]
    assert [one.wait(120) for one in running] == [0, 0]
    assert len(json.loads(own_progress.read_text())["exercises"]) == 50


def test_the_command(own_progress, capsys):
    task = answer_of("1.7")
    exercises.check("1.7", task.reference), exercises.check("1.2", lambda *a: 1)
    exercises.check("1.3", answer_of("1.3").mistakes[0].answer), exercises.solution("1.3"), time.sleep(1.1)
    exercises.check("1.3", answer_of("1.3").reference)
    assert cli.main(["progress", "--lang", "en"]) == 0
    out = capsys.readouterr().out
    assert "2 of" in out and re.search(r"How BERT works\s+2/10\s+○◐◉○○○●", out)
    assert cli.main(["progress", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["solved"] == 2 and found["pages"][0]["states"]["1.2"] == {"state": "tried", "attempts": 1, "hints": 0}
    assert cli.main(["progress", "--state", str(own_progress) + "x"]) == 2 and "does not exist" in capsys.readouterr().err
    own_progress.write_text("{")
    assert cli.main(["progress"]) == 2 and "left as it is" in capsys.readouterr().err
