"""Pages that are done keep to the limits of a good page; each check is tried on planted faults."""

import pytest
from checks import pages, reading
from checks.planting import code, en, html, md, notebook, zh

pytestmark = pytest.mark.check


@pytest.mark.parametrize("check", pages.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", pages.done())
def test_page(name, check):
    found = list(check(reading.load(reading.NBS / name), name))
    assert not found, "\n".join(found)


def tagged(cell, *tags):
    """A cell with tags."""
    return cell | {"metadata": {"tags": list(tags)}}


def page(*cells):
    """A small page without faults, and more cells."""
    asked = [cell for i in range(4) for cell in (
        zh(f"第 {i} 件事。\n\n**猜一猜**：会怎样？"), en(f"Thing {i}.\n\n**Predict:** what happens?"), code(f"x = {i}  # try: 7"))]  # fmt: skip
    return notebook(*asked, zh("看到了。"), en("So it is."), *cells)


def test_a_good_page_passes():
    good = page(
        code("plot_lines([1], {}, caption='a', xlabel='n')", [html("<svg></svg><figcaption>x</figcaption>")]), zh("一"), en("One"),
        tagged(code('fill("我")'), "zh"), tagged(code('fill("I")'), "en"), code("#| hide\nfor id in ['a']: claim(id)"), code("claim('a', show=True)"),
    )  # fmt: skip
    for check in pages.CHECKS:
        assert list(check(good, "a")) == [], check.__name__


LONG = "\n".join(f"x{i} = {i}" for i in range(16))
FAULTS = {
    "too many cells": (pages.length, page(*[md("x")] * 90), "cells, at most 90"),
    "a long cell": (pages.sizes_of_cells, page(code(LONG)), "16 lines, at most 15"),
    "a long class": (pages.sizes_of_cells, page(code("#| exports\nclass A:\n" + "\n".join(f"    x{i} = {i}" for i in range(40)))), "41 lines"),
    "a long function": (pages.sizes_of_cells, page(code("#| exports\ndef f(a):\n" + "\n".join(f"    x{i} = {i}" for i in range(16)))), "17 lines, at most 16"),
    "a wide line": (pages.sizes_of_cells, page(code("x = 1  # " + "y" * 95)), "a line of 104 characters"),
    "code without prose": (pages.prose_before_code, page(*[code("x = 1")] * 4), "the 4th code cell in a row"),
    "a caption in the cell": (pages.captions, page(code("plot_lines([1], {}, zh='一', en='one')")), "put it into assets/captions.toml"),
    "two languages in a cell": (pages.captions, page(code('fill("我")')), "make a twin of it"),
    "a single twin": (pages.twins, page(tagged(code('fill("我")'), "zh"), code("y")), "without its twin"),
    "twins in the wrong order": (pages.twins, page(tagged(code("fill('I')"), "en"), tagged(code("fill('我')"), "zh")), "without its twin"),
    "both tags": (pages.twins, page(tagged(code("x"), "zh", "en")), "without its twin"),
    "machinery": (pages.names, page(code("from bertcourse.plots import style, plot_bars")), "imports style"),
    "a silent claim": (pages.names, page(code("claim('a', measured=x)")), "shows nothing"),
    "no questions": (pages.questions, notebook(zh("一"), en("One")), "0 questions to predict in zh"),
    "no question mark": (pages.questions, page(zh("**猜一猜**：会变。"), en("**Predict:** it does.")), "without a question"),
    "the answer at once": (pages.questions, page(zh("**猜一猜**：会变吗？\n\n会。"), en("**Predict:** does it?\n\nYes.")), "the answer comes after the code"),
    "nothing to try": (pages.tries, notebook(code("x = 1")), "0 places marked # try"),
    "a picture without words": (pages.figures, page(code("f()", [html("<svg></svg>")])), "without a caption"),
    "a plot without caption": (pages.figures, page(code("plot_lines([1], {}, xlabel='n')")), "without caption="),
    "a plot without labels": (pages.figures, page(code("plot_lines([1], {}, caption='a')")), "without a label on an axis"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_planted_fault_is_noticed(case):
    check, nb, expected = FAULTS[case]
    assert any(expected in found for found in check(nb, "a")), list(check(nb, "a"))
