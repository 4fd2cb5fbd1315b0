"""Stored outputs teach, files are clean, chapters follow the guide. The checks are tested below with planted faults."""

from pathlib import Path

import pytest
from checks import locks, outline, reading, stored
from checks.planting import code, en, html, md, notebook, stream, zh
from checks.reading import ROOT

from bertcourse.languages import learner_notebook

pytestmark = pytest.mark.check


def name_of(path):
    """As in messages."""
    return path.relative_to(reading.NBS).as_posix()


@pytest.mark.parametrize("check", stored.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("path", reading.notebooks(), ids=lambda p: p.stem)
def test_notebook(path, check):
    found = list(check(reading.load(path), name_of(path)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", reading.notebooks(), ids=lambda p: p.stem)
def test_outputs_are_of_todays_cells(path):
    found = list(locks.faults(reading.load(path), name_of(path), locks.read()))
    assert not found, "\n".join(found)


def test_every_lock_has_its_notebook():
    strangers = locks.read().keys() - {name_of(path) for path in reading.notebooks()}
    assert not strangers, f"nbs/outputs.json knows {sorted(strangers)}, which are no notebooks: delete the entries"


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("path", reading.notebooks(), ids=lambda p: p.stem)
def test_learner_notebook_is_a_notebook(path, lang):
    import nbformat

    made = learner_notebook(reading.load(path), lang)
    nbformat.validate(made)
    lines = [line.lstrip() for cell in made["cells"] for line in cell["source"]]
    assert not [line for line in lines if line.startswith(("#|", "<!-- zh", "<!-- en"))]


# --- faults planted -----------------------------------------------------------------------------------------------

HOME = str(Path.home())
OUTPUTS = [
    ({"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}, "stored an error: ValueError"),
    (stream("oops\n", "stderr"), "stderr"),
    (stream(f"read {HOME}/data\n"), "a path of this machine"),
    (stream(f"{ROOT}/nbs\n"), "a path of this machine"),
    (stream("wrote /tmp/x1/y\n"), "a path of this machine"),
    (stream("/home/ann/x\n"), "a path of this machine"),
    (stream("C:\\Users\\ann\n"), "a path of this machine"),
    (html("<p>/Users/ann</p>"), "a path of this machine"),
    (stream("FutureWarning: soon\n"), "a warning"),
    (stream("100%|████| 3/3 [00:00<00:00, 9.1it/s]"), "a progress bar"),
    (stream("<generator at 0x7f2a0c3d>\n"), "a memory address"),
    (stream("\x1b[31mred\x1b[0m\n"), "terminal colours"),
    (stream("50%\r100%\n"), "a carriage return"),
    (
        {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-view+json": {}}},
        "a widget",
    ),
]


@pytest.mark.parametrize("output, expected", OUTPUTS, ids=[e for _, e in OUTPUTS])
def test_bad_output_is_noticed(output, expected):
    assert any(expected in found for found in stored.outputs(notebook(code("1", [output])), "a"))


def test_good_outputs_pass():
    good = [
        stream("21% of 30,522 in 1.5 s\n0x1f is 31; 3 it or 5 s; either/or\n"),
        html("<a href='https://a.org/home/x'>x</a>"),
    ]
    assert list(stored.outputs(notebook(code("1", good)), "a")) == []


@pytest.mark.parametrize(
    "source, missing",
    [
        ("plot_bars({})", True),
        ("x = 1\ntoken_grid({})", True),
        ("print(1)\nx = 2", True),
        ("plots.plot_lines([], {})", True),
        ("plot_bars({});", False),
        ("figure = plot_bars({})", False),
        ("#| eval: false\nplot_bars({})", False),
        ("def f():\n    print(1)", False),
        ("", False),
        ("!ls\nx", False),
    ],
)
def test_missing_figure_is_noticed(source, missing):
    assert bool(list(stored.shown(notebook(code(source)), "a"))) == missing
    assert list(stored.shown(notebook(code(source, [stream("x")])), "a")) == []


def broken(change):
    """A good notebook after `change`."""
    nb = notebook(zh("一。", "one-zh"), en("One.", "one-en"), code("x = 1\ny = 2", id="two"))
    change(nb)
    return nb


FORM = [
    (lambda nb: nb["metadata"].update(language_info={}), "metadata is not what"),
    (lambda nb: nb["metadata"]["kernelspec"].update(name="py311"), "metadata is not what"),
    (lambda nb: nb.update(nbformat_minor=4), "nbformat"),
    (lambda nb: nb["cells"][1].pop("id"), "needs an id"),
    (lambda nb: nb["cells"][1].update(id="a b"), "needs an id"),
    (lambda nb: nb["cells"][1].update(id="17"), "needs an id"),
    (lambda nb: nb["cells"][1].update(id="two"), "2 cells have this id"),
    (lambda nb: nb["cells"][3].update(source="x = 1"), "not a list of lines"),
    (lambda nb: nb["cells"][3].update(source=["x = 1\ny = 2"]), "not one line"),
    (lambda nb: nb["cells"][3].update(source=["x = 1", "y = 2"]), "not one line"),
    (lambda nb: nb["cells"][3].update(source=[]), "empty cell"),
    (lambda nb: nb["cells"][3].update(execution_count=3), "execution count"),
    (lambda nb: nb["cells"][3].update(metadata={"scrolled": True}), "has metadata"),
    (lambda nb: nb["cells"][3].update(metadata={"tags": ["timd"]}), "has the tag 'timd'"),
]


@pytest.mark.parametrize("change, expected", FORM, ids=range(len(FORM)))
def test_bad_form_is_noticed(change, expected):
    assert any(expected in found for found in stored.form(broken(change), "a"))


def test_good_form_passes():
    assert list(stored.form(broken(lambda nb: nb["cells"][3].update(metadata={"tags": ["trained"]})), "a")) == []


def test_size_is_noticed():
    assert list(stored.size(notebook(*[md("$x$")] * 140), "01_a.ipynb"))
    assert list(stored.size(notebook(*[md("$x$")] * 139), "01_a.ipynb")) == []
    assert list(stored.size(notebook(*[md("$x$")] * 140), "helpers/a.ipynb")) == []
    assert list(stored.size(notebook(code("x = " + "1" * 140)), "a.ipynb"))
    assert list(stored.size(notebook(code("x = " + "1" * 130)), "a.ipynb")) == []
    data = code(f"rows = '''\n{'x ' * 80}\n'''")
    assert list(stored.size(notebook(data), "a.ipynb")) == [] and list(stored.long_lines(notebook(data), "a.ipynb"))
    assert list(stored.long_lines(notebook(code("x = " + "1" * 130)), "a.ipynb"))


@pytest.mark.parametrize(
    "cells, lost",
    [
        (["#| hide\nsecret = 1", "secret + 1"], "secret"),
        (["#| hide\nimport math", "math.pi"], "math"),
        (["#| include: false\ndef f(): pass", "def g(): return f()"], "f"),
        (["#| hide\nfrom bertcourse.plots import *", "plot_bars({})"], "plot_bars"),
        (["#| hide\nx = 1", "x = 2", "x"], None),
        (["import math", "#| hide\nimport math", "math.pi"], None),
        (["#| hide\nfor i in range(3): pass", "[i for i in range(2)]"], None),
        (["#| hide\nx = 1", "def f(x): return x"], None),
        (["#| export\nx = 1", "x"], None),
        (["#| hide\nprint(1)", "print(2)"], None),
        (["def f():\n    x = 1", "#| hide\nx = 1", "x"], "x"),
    ],
)
def test_hidden_name_is_noticed(cells, lost):
    found = list(stored.hidden_names(notebook(*map(code, cells)), "a"))
    assert bool(found) == bool(lost) and (not lost or f"uses {lost}," in found[0]), found


# --- the outline --------------------------------------------------------------------------------------------------


def test_outline_is_the_guides():
    headings = outline.outline()
    numbers = [h.number for h in headings if h.number]
    assert len(set(numbers)) == len(numbers)
    assert [n for n in numbers if n.isdigit()] == [str(n) for n in range(1, 9)]
    assert [n for n in numbers if n.startswith("Q")] == [f"Q{n}" for n in range(1, 21)]
    assert {n.count(".") for n in numbers} == {0, 1, 2} and len(numbers) == 86 and len(headings) == 119
    sections = [tuple(map(int, n.split("."))) for n in numbers if n[0].isdigit()]
    assert sections == sorted(sections)
    for section in sections:  # no gap: 2.3 comes after 2.2
        assert section[-1] == 1 or (*section[:-1], section[-1] - 1) in sections
    assert all(h.zh and h.en and h.notebook.endswith(".ipynb") for h in headings)
    assert all(h.number or h.under in numbers or outline.chapter(h) == "appendix" for h in headings)


def test_outline_speaks_the_glossarys_language():
    from bertcourse.languages import misspellings

    for heading in outline.outline():
        assert not misspellings(heading.zh) and not misspellings(heading.en), heading


@pytest.mark.parametrize("number", outline.finished() or ["none"])
def test_finished_chapter_has_every_heading(number):
    if number == "none":
        pytest.skip("no chapter is marked as finished in outline.toml")
    headings = [h for h in outline.outline() if outline.chapter(h) == number]
    assert headings, f"outline.toml has no chapter {number}"
    found = []
    for file in dict.fromkeys(h.notebook for h in headings):
        assert (reading.NBS / file).exists(), f"chapter {number} is marked as finished, but nbs/{file} is missing"
        found += outline.missing([h for h in headings if h.notebook == file], reading.read(reading.NBS / file), file)
    assert not found, "\n".join(found)


def test_numbered_notebooks_are_in_the_outline():
    strangers = {p.name for p in reading.chapters()} - {h.notebook for h in outline.outline()}
    assert not strangers, f"outline.toml names no section for {sorted(strangers)}"


PLAN = [
    outline.Heading("一", "One", "a", "1"),
    outline.Heading("甲", "First", "a", "1.1"),
    outline.Heading("模型规模", "Model sizes", "a", "", "1.1"),
    outline.Heading("乙", "Second", "a", "1.2"),
]
WHOLE = [
    zh("## 1.1 甲甲"),
    en("## 1.1 First one"),
    zh("### 模型规模"),
    en("### Model sizes"),
    zh("## 1.2 乙"),
    en("## 1.2 Second"),
]


@pytest.mark.parametrize(
    "cells, expected",
    [
        (WHOLE[:4], ["no zh heading “1.2 乙”", "no en heading “1.2 Second”"]),
        (WHOLE[:2] + WHOLE[4:], ["no zh heading “模型规模”", "no en heading “Model sizes”"]),
        (WHOLE[4:] + WHOLE[:4], ["out of order"]),
        (WHOLE[:3] + [en("### Sizes")] + WHOLE[4:], ["no en heading “Model sizes”"]),
        ([zh("```\n## 1.1 甲\n```")], ["no zh heading “1.1 甲”"]),
    ],
)
def test_missing_heading_is_noticed(cells, expected):
    found = list(outline.missing(PLAN, reading.cells(notebook(*cells)), "a"))
    assert all(any(e in f for f in found) for e in expected), found


def test_whole_chapter_passes():
    assert list(outline.missing(PLAN, reading.cells(notebook(*WHOLE)), "a")) == []
