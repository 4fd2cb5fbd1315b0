"""The recorded attacks on graders are those of `attacks.py` by name, none gains a point with ours, and the counts are computed."""

import json
import tomllib

import pytest
import scripts
from attacks import ATTACKS, WRONG

FILE = scripts.BENCHMARKS / "attacks.json"


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("attacks") as module:
        yield module


@pytest.fixture(scope="module")
def recorded():
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_all_attacks_are_recorded_with_every_tool(bench, recorded):
    assert [(attack.name, attack.tries) for attack in ATTACKS] == [(name, row["tries"]) for name, row in recorded["attacks"].items()]
    for name, attack in recorded["attacks"].items():
        assert {*attack["tools"]} == {*bench.TOOLS}, name
        for row in attack["tools"].values():
            assert row.keys() == bench.Found(None).record().keys() and row["gained"] in (True, False, None)
            assert row["gained"] is None or row["gained"] == ((row["score"] or 0) > 0)
            assert row["note"] or row["gained"] is not None, f"{name} was not run, and nothing says why"
    assert recorded["machine"]["cpu"] and recorded["date"] and {*recorded["versions"]} == {"bertcourse", "nbgrader", "otter-grader"}
    assert str(scripts.ROOT) not in FILE.read_text(encoding="utf-8")


def test_none_gains_a_point_or_does_harm_with_ours(recorded):
    rows = {name: attack["tools"]["ours"] for name, attack in recorded["attacks"].items()}
    assert [name for name, row in rows.items() if row["gained"] is not False or row["harm"]] == []


def test_counts_are_those_of_the_rows(bench, recorded):
    assert recorded["counts"] == bench.counts(recorded["attacks"])
    row = {"gained": True, "harm": ["x"]}
    some = {
        "a": {"tools": {"otter": row}},
        "b": {"tools": {"otter": {"gained": None, "harm": []}}},
        "c": {"tools": {"otter": row | {"gained": False}}},
    }
    assert bench.counts(some)["otter"] == {"run": 2, "gained": 1, "harm": 2} and bench.counts(some)["ours"]["run"] == 0


def test_every_tool_told_a_right_answer_from_a_wrong_one(bench, recorded):
    for tool in bench.TOOLS:
        rows = recorded["controls"][tool]
        assert [rows[name]["score"] for name in ("right answer", "wrong answer")] == [1.0, 0.0], tool


def test_the_hidden_tests_of_the_other_tools_accept_the_right_answer_only(bench):
    for solution, is_right in ((bench.SOLVED, True), (WRONG, False)):
        names = {}
        exec(f"import torch\n{solution}", names)
        try:
            exec(bench.NBGRADER_TEST, names)
        except AssertionError:
            assert not is_right
        else:
            assert is_right
    assert compile(bench.OTTER_TEST, "soften.py", "exec") and "hidden=True" in bench.OTTER_TEST


def test_an_attack_takes_the_place_of_the_answer(bench):
    handed_out = bench.notebook(
        [bench.code_cell("setup", "import torch"), bench.code_cell("soften", bench.STUB), bench.code_cell("tests", "assert soften")]
    )
    found = bench.attacked(handed_out, ("first", "second", WRONG), "soften", "tests")
    assert [cell["source"] for cell in found["cells"]] == ["import torch", "first", "second", WRONG, "assert soften"]
    assert bench.attacked(handed_out, (WRONG,), "soften", "tests", edits_tests=True)["cells"][-1]["source"] == "pass"
    assert handed_out["cells"][1]["source"] == bench.STUB


def test_harm_is_said_in_words(bench):
    quiet = {"changed": [], "left": 0, "status": 0, "seconds": 5.0, "scores": {"zoe": 1.0}}
    assert bench.harms(quiet, "nbgrader") == ()
    assert bench.harms(quiet | {"scores": {}}, "otter") == () and len(bench.harms(quiet | {"scores": {}}, "nbgrader")) == 1
    assert bench.harms(quiet | {"changed": ["/home/teacher/x"], "left": 1}, "nbgrader") == (
        "files outside of its own folder: ~/x",
        "a process was left behind",
    )
    assert bench.harms(quiet | {"left": 1, "status": None}, "otter") == ("ran longer than 60 s",)  # its kernel was left by ending it
    assert bench.harms(quiet | {"status": -9}, "otter") == ("the run was aborted",)


def test_help_and_wrong_arguments():
    done = scripts.run("attacks", "--help")
    assert done.returncode == 0 and "--only" in done.stdout and "--json" in done.stdout
    done = scripts.run("attacks", "--only", "nothing")
    assert done.returncode == 2 and "there is no attack 'nothing'" in done.stderr


def test_the_chinese_page_names_all_attacks():
    names = tomllib.loads((scripts.ROOT / "tools" / "benchmark_pages.toml").read_text(encoding="utf-8"))["names"]
    same = {"os._exit", "sys.exit", "NaN", "pickle", "sitecustomize"}
    assert [text for attack in ATTACKS for text in (attack.name, attack.tries) if text not in names and text not in same] == []
