"""Stored outputs that are not those of a run are noticed, and what may differ between machines is not. The faults are planted."""

import copy
import json

import pytest
import scripts
from checks import locks, outputs, stored
from checks.planting import code, html, notebook, stream
from test_notebook_tools import nbval

from bertcourse.experiments import _TIMING, show_timing

SVG = '<figure><svg viewBox="0 0 400 200"><path d="M {x} 20 L 30 40" style="fill: {fill}" clip-path="url(#p{hash})"/><text>{label}</text></svg></figure>'


def figure(x=10.0, label="layer 3", fill="#009e73", hash="89bb5bb6ad", lines=1):
    "A figure with some lines."
    return html(SVG.format(x=x, label=label, fill=fill, hash=hash).replace("<text>", "<path/>" * (lines - 1) + "<text>"))


def differ(before, after, *tags):
    "What is said of two outputs."
    return list(outputs.differences([before], [after], tags))


@pytest.mark.parametrize("before, after", [
    (stream("something else 1234\n"), stream("loss 1.25\n")),
    (stream("12 layers\n"), stream("13 layers\n")),
    (stream("109,482,240 parameters\n"), stream("109,482,241 parameters\n")),
    (stream("loss 1.25\n"), stream("loss 1.27\n")),
    (stream("21.4% right\n"), stream("21.9% right\n")),
    (stream("a\nb\n"), stream("a\n")),
    (stream("1e-7\n"), stream("1e-5\n")),
    (stream("-0.5\n"), stream("0.5\n")),
    (html("<b>12</b> heads"), html("<b>16</b> heads")),
    (html("<td>dog</td>"), html("<td>cat</td>")),
    (figure(), figure(x=20.0)),
    (figure(), figure(label="layer 4")),
    (figure(), figure(fill="#d55e00")),
    (figure(), figure(lines=2)),
    (figure(), html("<table></table>")),
    (figure(), stream("a figure\n")),
])  # fmt: skip
def test_a_wrong_output_is_noticed(before, after):
    assert differ(before, after) and differ(after, before) and not differ(before, before)


@pytest.mark.parametrize("before, after, tags", [
    (stream("loss 1.25\n"), stream("loss 1.26\n"), ()),  # the last digit, from another order of the same sum
    (stream("1.000\n"), stream("0.999\n"), ()),
    (stream("3.1e-7\n"), stream("3.2e-7\n"), ()),
    (figure(), figure(x=10.9, hash="0123456789"), ()),
    (stream("in 7 s\n"), stream("in 12 s\n"), ("timed",)),
    (stream("loss 1.25 after Tom\n"), stream("loss 1.45 after Ann\n"), ("trained",)),
    (figure(), figure(x=200, label="0.2"), ("trained",)),
    (stream("AMD EPYC\n"), stream("Apple M3\nwith 8 cores\n"), ("machine",)),
])  # fmt: skip
def test_what_may_change_may_change(before, after, tags):
    assert not differ(before, after, *tags)


@pytest.mark.parametrize("before, after, tag", [
    (stream("in 7 s\n"), stream("after 7 s\n"), "timed"),
    (stream("a\n"), stream("a\nb\n"), "trained"),
    (figure(), html("no figure"), "trained"),
    (html("<table><th>a</th></table>"), html("<table><th>a</th><th>b</th></table>"), "trained"),
    (stream("x\n"), figure(), "machine"),
])  # fmt: skip
def test_a_tag_does_not_allow_everything(before, after, tag):
    assert differ(before, after, tag)


def test_streams_are_joined_however_they_came():
    pieces = [stream("one\n"), stream("two"), stream("\n"), figure(), stream("three\n")]
    joined = outputs.join_streams(pieces)
    assert [o.get("text") for o in joined] == [["one\n", "two\n"], None, ["three\n"]]
    assert outputs.join_streams(joined) == joined and not list(outputs.differences(pieces, joined))
    assert list(stored.storable(notebook(code("1", pieces)), "a")) and not list(stored.storable(notebook(code("1", joined)), "a"))


def test_a_timing_is_filled_in_and_not_stored():
    cell = code('from bertcourse.experiments import timing\ntiming("01_bert")')
    assert outputs.TIMING.pattern == _TIMING.pattern and outputs.is_timing(cell)
    show_timing(cell)
    shown = "".join(cell["outputs"][0]["data"]["text/html"])
    assert 'lang="zh"' in shown and "All cells: about" in shown
    assert list(stored.storable(notebook(cell), "a")) and outputs.cell_differences(cell, []) == []
    show_timing(cell, "en")
    assert "All cells" in str(cell["outputs"]) and "全部" not in str(cell["outputs"])
    untouched = code('x = timing("01_bert")\nx')
    show_timing(untouched)
    assert untouched["outputs"] == []


# --- fingerprints -------------------------------------------------------------------------------------------------

CELLS = [code("x = 1  # one", id="a"), code("print(x)", [stream("1\n")], id="b"), code("%time x", [stream("t\n")], id="c")]


@pytest.mark.parametrize("change, said", [
    (lambda cells: cells[1].update(outputs=[stream("something else 1234\n")]), "a#b: its stored output was changed"),
    (lambda cells: cells[0].update(source=["x = 2"]), "a#a: edited or new"),
    (lambda cells: cells[2].update(source=["%time y"]), "a#c: edited or new"),
    (lambda cells: cells.append(code("y = 1", id="d")), "a#d: edited or new"),
    (lambda cells: cells.pop(0), "a: cells were removed or moved"),
    (lambda cells: cells.reverse(), "a: cells were removed or moved"),
    (lambda cells: cells[0].update(outputs=[stream("1\n")]), "a#a: its stored output was changed"),
])  # fmt: skip
def test_an_edit_without_a_run_is_noticed(change, said):
    before = notebook(*CELLS)
    after = copy.deepcopy(before)
    cells = after["cells"][1:]
    change(cells)
    found = list(locks.faults({"cells": cells}, "a", {"a": locks.lock(before)}))
    assert found and found[0].startswith(said) and "make outputs NB=a" in found[0]


def test_comments_and_directives_need_no_run():
    before = notebook(*CELLS)
    after = copy.deepcopy(before)
    after["cells"][1]["source"] = ["#| exports\n", "# another comment\n", "x  =  1"]
    assert not list(locks.faults(after, "a", {"a": locks.lock(before)}))
    assert list(locks.faults(before, "a", {})) == ["a: its outputs were never stored by a run: run `make outputs NB=a`"]


def test_a_fingerprint_is_the_same_in_every_python():
    """`ast.dump` writes more in 3.12 and less in 3.13."""
    assert locks.code_fingerprint('def f(x, *, y=()):\n    "Doc."\n    return [x, f"{x!r:>3}"]\n\nclass A: pass\n') == "bd603c9a191b"


def test_the_file_has_a_line_for_each_cell():
    known = {"b.ipynb": locks.lock(notebook(*CELLS)), "a.ipynb": locks.lock(notebook(code("1")))}
    written = locks.text(known)
    assert json.loads(written) == known and list(json.loads(written)) == ["a.ipynb", "b.ipynb"]
    assert len(written.splitlines()) == 2 + 2 * 2 + 3 + 1


# --- in a run -----------------------------------------------------------------------------------------------------

def test_nbval_compares_and_names_the_failure_at_once(tmp_path):
    cells = [code("x = 1", id="first"), code("print(f'{x} layer')", [stream("something else 1234\n")], id="wrong"),
             code("print(x)", [stream("1\n")], id="right")]  # fmt: skip
    code_, out = nbval(tmp_path, *cells)
    assert code_ == 1 and "1 failed, 2 passed" in out
    assert "the stored output of cell wrong is not that of a run: the words differ" in out and "make outputs NB=a" in out
    code_, out = nbval(tmp_path, *cells, options=["--no-outputs"])
    assert code_ == 0, out


@pytest.fixture(scope="module")
def tool():
    "tools/notebooks.py as a module."
    return scripts.tool("notebooks")


def test_a_rerun_changes_nothing(tool, tmp_path, monkeypatch):
    "Whatever the pieces in which a stream arrives; and the fingerprints are those of what is stored."
    monkeypatch.setattr(tool.reading, "NBS", tmp_path)
    monkeypatch.setattr(tool.locks, "LOCK", tmp_path / "outputs.json")
    source = "import sys, time\nfor i in range(5):\n    print(i); sys.stdout.flush(); time.sleep(.05)"
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook(code(source, id="slow"), code('timing = str\ntiming("a")', id="timing"))), encoding="utf-8")
    assert tool.main(["outputs", str(path)]) == 0
    first = path.read_bytes()
    nb = json.loads(first)
    assert [len(cell.get("outputs", [])) for cell in nb["cells"]] == [0, 1, 0]
    assert not list(locks.faults(nb, "a.ipynb", locks.read(tmp_path / "outputs.json")))
    assert tool.main(["outputs", str(path)]) == 0 and path.read_bytes() == first
