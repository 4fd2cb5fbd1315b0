"""The ledger agrees with itself and with the notebooks: every computed claim of a finished chapter is checked in a cell."""

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from checks import measured, outputs, reading
from checks.claims import calls, complaints

from bertcourse.assets import asset
from bertcourse.claims import (
    APPENDIX,
    CHAPTERS,
    KINDS,
    LOG,
    VERDICTS,
    Claim,
    Ledger,
    agrees,
    claim,
    ledger,
    measured_values,
    show_ledger,
)  # fmt: skip
from bertcourse.languages import keep_language

pytestmark = pytest.mark.check

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


def place(section: str) -> tuple:
    "Where a section stands in the guide: numbered ones, the questions of chapter 8, then the appendices and the advice."
    if section[0].isdigit():
        return (0, *(int(n) for n in section.split(".")))
    return (0, 8, int(section[1:])) if re.fullmatch(r"Q\d+", section) else (1, ["A", "B", "C", "advice"].index(section))


def test_entries_follow_the_guide():
    by_section = [place(c.section) for c in ledger().values()]
    assert by_section == sorted(by_section)


def test_ledger_is_complete():
    assert len(ledger()) >= 348
    assert {c.chapter for c in ledger().values()} >= {*"12345678", APPENDIX}
    assert {c.section for c in ledger().values() if c.chapter == APPENDIX} == {"A", "B", "C", "advice"}


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
    box = claim("1.2-large-parameters", [335141888, 336226108], note=("<b>", "<b>"), show=True).html()
    assert "340M" in box and "&lt;b&gt;" in box and box.count('lang="zh"') == box.count('lang="en"') == 1
    assert "指南说：BERT-Large 有 340M 参数。这里是 335,141,888、336,226,108 个参数" in box
    assert "The guide says: BERT-large has 340M parameters. Here it is 335,141,888, 336,226,108 parameters" in box
    own = claim("1.2-base-parameters", [109482240, 110106428], show=True)
    assert own.sentences("en").startswith("The guide says: BERT-base has 110M parameters. Here encoder and pooler have 109,482,240,")


def test_ledger_counts_every_claim_once():
    assert sum(Ledger("1").counts().values()) == len(Ledger("1").claims) > 25
    whole = Ledger()
    assert sum(sum(whole.counts(chapter).values()) for chapter in CHAPTERS) == len(whole.claims) == len(ledger())
    assert sum(len(Ledger(verdict=v).claims) for v in VERDICTS) == sum(len(Ledger(kind=k).claims) for k in KINDS) == len(ledger())
    assert [c.section for c in Ledger("4.3", verdict="corrected").claims] == ["4.3"] * len(Ledger("4.3", verdict="corrected").claims)


@pytest.mark.parametrize("asked, says", [
    ({"chapter": "9"}, "no claims of '9'"), ({"verdict": "wrong"}, "no verdict 'wrong': confirmed"),
    ({"kind": "guessed"}, "no kind 'guessed': computed"), ({"chapter": "2.3", "kind": "timed"}, "no claims of '2.3 timed'"),
])  # fmt: skip
def test_ledger_refuses_what_it_does_not_have(asked, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Ledger(**asked)


class Rows(HTMLParser):
    "The rows of the ledger's large table, and the choices above it."

    def __init__(self):
        super().__init__()
        self.rows, self.options, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "tr" and "data-kind" in attrs:
            self.rows.append((attrs["data-chapter"], attrs["data-verdict"], attrs["data-kind"]))
        if tag == "option":
            self.options.append((attrs["value"], attrs["lang"]))
        self.scripts += tag == "script"


def test_ledger_is_a_table_that_can_be_filtered():
    page = Rows()
    html = Ledger()._repr_html_()
    page.feed(html)
    assert page.rows == [(c.chapter, c.verdict, c.kind) for c in ledger().values()] and page.scripts == 1
    assert {value for value, _ in page.options} == {"", *VERDICTS, *KINDS, *(c.chapter for c in ledger().values())}
    assert html.count('lang="zh"') == html.count('lang="en"') and "src=" not in html, "nothing is loaded"
    assert '<p class="ledger-filters" hidden' in html, "without a script the choices do not show"


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_ledger_in_one_language(lang):
    page = Rows()
    page.feed(keep_language(Ledger("2")._repr_html_(), lang))
    assert {found for _, found in page.options} == {lang} and len(page.rows) == len(Ledger("2").claims)


def test_site_fills_the_ledger_in():
    cell = {"cell_type": "code", "source": "Ledger()", "outputs": []}
    assert outputs.is_live(cell) and not outputs.is_live({"cell_type": "code", "source": 'Ledger("4")', "outputs": []})
    show_ledger(cell)
    [output] = cell["outputs"]
    assert "".join(output["data"]["text/html"]) == Ledger()._repr_html_()
    other = {"cell_type": "code", "source": "len(Ledger().claims)", "outputs": []}
    show_ledger(other)
    assert not other["outputs"]


# --- what the pages measured --------------------------------------------------------------------------------------


def test_every_claim_that_is_measured_has_its_value():
    found = list(measured.faults(measured.read(asset("measured.json")), reading.chapters()))
    assert not found, "\n".join(found)


def test_measured_values_are_read():
    assert measured_values()["1.2-base-parameters"].value == [109482240, 110106428]
    assert {entry.page for entry in measured_values().values()} >= {"01_bert.ipynb", "09_appendix.ipynb"}


def test_claims_are_logged(tmp_path, monkeypatch):
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    claim("1.2-large-parameters", [335141888, 336226108])
    claim("1.1-google-2018")
    [line] = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line) == {"id": "1.2-large-parameters", "value": [335141888, 336226108]}


ENTRY = {"value": [335141888, 336226108], "page": "01_bert.ipynb", "date": "2026-11-29"}
FAULTS = {
    "a value of nothing": ({"9.9-nothing": ENTRY}, "9.9-nothing is no claim that is measured"),
    "a value of a cited claim": ({"1.1-google-2018": ENTRY}, "1.1-google-2018 is no claim that is measured"),
    "a page that no longer measures it": ({"1.2-large-parameters": ENTRY | {"page": "02_transformer.ipynb"}}, "no longer measures"),
    "a wrong value": ({"1.2-large-parameters": ENTRY | {"value": [1, 2]}}, "the ledger says"),
    "nothing": ({}, "measured.json has no value of 1.1-bidirectional: run `make outputs NB=01_bert`"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_measured_values_are_found(case):
    known, says = FAULTS[case]
    assert any(says in fault for fault in measured.faults(known, reading.chapters()))


def test_numbers_are_stored_with_few_digits():
    assert measured.rounded([1.23456789, 3, True, "a"]) == [1.23457, 3, True, "a"]
    assert json.loads(measured.text({"b": ENTRY, "a": ENTRY})) == {"a": ENTRY, "b": ENTRY}
