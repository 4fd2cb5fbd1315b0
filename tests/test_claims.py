"""The ledger agrees with itself and with the notebooks: every computed claim of a finished chapter is checked in a cell."""

import ast
import json
import tomllib
from pathlib import Path

import pytest
from checks.claims import calls, complaints

from bertcourse.assets import asset
from bertcourse.claims import KINDS, VERDICTS, Claim, Ledger, agrees, claim, ledger

NOTEBOOKS = sorted(p for p in asset("course").glob("*.ipynb"))
FINISHED = tomllib.loads(asset("outline.toml").read_text(encoding="utf-8"))["finished"]


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


@pytest.mark.parametrize("entry", ledger().values(), ids=lambda c: c.id)
def test_entry_is_complete(entry):
    assert entry.kind in KINDS and entry.verdict in VERDICTS and entry.confidence in ("A", "B", "C")
    assert entry.zh and entry.en and entry.source and entry.line > 0
    assert (entry.correct is not None) == (entry.kind == "computed"), "a computed claim, and only it, has a correct value"
    assert bool(entry.note_zh) == bool(entry.note_en) and bool(entry.unit_zh) == bool(entry.unit_en)
    assert entry.kind != "cited" or entry.verdict != "confirmed", "what is only cited is not confirmed here"
    assert entry.kind == "cited" or entry.verdict != "cited"
    if entry.verdict in ("corrected", "depends"):
        assert entry.note_en, "say what is right"


def test_entries_follow_the_guide():
    by_section = [(tuple(int(n) for n in c.section.split("."))) for c in ledger().values()]
    assert by_section == sorted(by_section)


def test_every_claim_of_a_finished_chapter_is_checked_in_a_cell():
    used = {call.id for path in NOTEBOOKS for source in code_cells(path) for call in calls(source)}
    missing = [c.id for c in ledger().values() if c.chapter in FINISHED and c.id not in used]
    assert not missing, f"no cell checks {missing}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_claims_are_held_against_computed_values(path):
    problems = [problem for source in code_cells(path) for problem in complaints(source, ledger())]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_at_most_half_a_dozen_boxes(path):
    boxes = sum(call.shown for source in code_cells(path) for call in calls(source))
    assert boxes <= 10, f"{boxes} claim boxes in {path.name}: show the ones worth seeing"


# The checks are checked: planted faults must be found.

PLANTED = {
    'claim("1.2-large-parameters", measured=[335141888, 336226108])': "a literal",
    'claim("1.2-large-parameters", [335141888, 336226108])': "a literal",
    'claim("1.1-bidirectional", measured=-1.0)': "a literal",
    'claim("1.1-bidirectional", measured=float("1"))': "a literal",
    'n = 1.0\nclaim("1.1-bidirectional", measured=n)': "a literal",
    'a = b = [1, 2]\nclaim("1.2-sep-separates", measured=b)': "a literal",
    'claim("9.9-nothing", measured=f(x))': "no such claim",
    'claim("1.1-bidirectional")': "nothing measured",
    'claim("1.1-google-2018", measured=f(x))': "nothing to measure",
    'claim(name, measured=f(x))': "not written out",
}


@pytest.mark.parametrize("source, complaint", PLANTED.items())
def test_planted_faults_are_found(source, complaint):
    assert any(complaint in problem for problem in complaints(source, ledger())), source


def test_honest_cells_pass():
    honest = 'share = counted / total\nclaim("1.1-bidirectional", measured=share, show=True)\nclaim("1.1-google-2018")'
    assert complaints(honest, ledger()) == []
    loop = 'for id in ["1.1-google-2018", "1.1-many-tasks"]: claim(id)'
    assert complaints(loop, ledger()) == [] and {c.id for c in calls(loop)} == {"1.1-google-2018", "1.1-many-tasks"}


def numbers(correct, **tolerance):
    return Claim("0-x", 1, "computed", "confirmed", "", "", "", "A", correct=correct, **tolerance)


@pytest.mark.parametrize("measured, entry, same", [
    (1.0, numbers(1.0), True),
    (1.0 + 1e-12, numbers(1.0), False),
    (1.05, numbers(1.0, rtol=0.1), True),
    (0.5, numbers(0.0, atol=1.0), True),
    ([1, 2], numbers([1, 2]), True),
    ([1, 2, 3], numbers([1, 2]), False),
    ([2, 1], numbers([1, 2]), False),
    (True, numbers(True), True),
    (1, numbers(True), False),
    (float("nan"), numbers(1.0, rtol=1.0), False),
    ("a", numbers("a"), True),
    ("b", numbers("a"), False),
])  # fmt: skip
def test_agrees(measured, entry, same):
    assert agrees(measured, entry) is same


def test_box_speaks_both_languages_and_escapes_html():
    box = claim("1.2-base-parameters", [109482240, 110106428], note=("<b>", "<b>"), show=True).html()
    assert "110M" in box and "&lt;b&gt;" in box and box.count('lang="zh"') == box.count('lang="en"') >= 5
    assert "109,482,240 · 110,106,428 个参数" in box


def test_ledger_counts_every_claim_once():
    assert sum(Ledger("1").counts().values()) == len(Ledger("1").claims) > 25
    assert ast.literal_eval(str(Ledger("9").counts())) == dict.fromkeys(VERDICTS, 0)
