"""A learner's first hour: `bertcourse lab` opens chapter 1, Run All works, and one's own sentence changes the grid."""

import json
import re
import time
from pathlib import Path

import pytest

from bertcourse.app import workspace
from bertcourse.assets import asset

CHAPTER = "01_bert.ipynb"
INPUT_CELL = re.compile(r'^pair = "', re.MULTILINE)
RUN_MINUTES = 6  # for all cells of the chapter, on two busy cores
STDERR = '.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]'
ERROR = '.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"], .jp-OutputArea-error'
KERNEL = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
OWN = {  # a sentence of one's own, and pieces that the grid must then show
    "en": ("the cat likes music", ["cat", "likes", "music"]),
    "zh": ("一个女孩在唱歌", ["女", "孩", "唱", "歌"]),
}

# Prompts of all code cells: "[ ]:" not run, "[*]:" waiting or running, "[3]:" done. textContent, because what is
# scrolled out of view has no inner text.
PROMPTS = """() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].map(cell =>
    [cell.querySelector('.cm-content')?.textContent.trim() ?? '?',
     cell.querySelector('.jp-InputPrompt').textContent])"""


def until(page, condition, seconds: float) -> None:
    """Wait until something is so; fail with the time that was too short."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        page.wait_for_timeout(200)


def idle(page) -> bool:
    """Is the kernel there, connected to the page and idle?"""
    kernels = page.evaluate("async () => (await fetch('/api/kernels')).json()")
    shown = page.locator(".jp-Notebook-ExecutionIndicator").get_attribute("data-status")
    return shown == "idle" and any(k["connections"] and k["execution_state"] == "idle" for k in kernels)


def choose(page, menu: str, item: str) -> None:
    """An item of the menu bar, by the beginning of its name."""
    page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu .lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).first.click()


def save(page) -> None:
    """File > Save Notebook, and wait until it is done."""
    choose(page, "File", "Save Notebook")
    until(page, lambda: page.locator(".jp-mod-dirty").count() == 0, 30)


def open_chapter(browser, url: str):
    """A page that shows the chapter, its kernel idle; and a list that collects what it asks of other servers."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, locale="en-US")
    outside, own = [], "/".join(url.split("/")[:3])

    def look(request):
        if request.url.startswith("http") and not request.url.startswith(own):
            outside.append(request.url)
    page.on("request", look)
    page.goto(url, timeout=60_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    until(page, lambda: idle(page), 90)
    return page, outside


def run_all(page) -> None:
    """Run > Run All Cells, and wait for the last cell."""
    choose(page, "Run", "Run All Cells")
    until(page, lambda: any(re.search(r"\[(\*|\d+)\]", prompt) for _, prompt in page.evaluate(PROMPTS)), 60)
    until(page, lambda: idle(page) and not any("*" in prompt for _, prompt in page.evaluate(PROMPTS)), 60 * RUN_MINUTES)


def errors(page) -> list[str]:
    """What went wrong in the notebook: error outputs, tracebacks on stderr, cells that were not run."""
    found = [text or "" for text in page.locator(ERROR).all_text_contents()]
    found += [text for text in page.locator(STDERR).all_text_contents() if "Traceback" in text or "Error" in text]
    prompts = page.evaluate(PROMPTS)
    return found + [f"not run: {source[:60]}" for source, prompt in prompts if not re.search(r"\[\d+\]", prompt)]


def input_cell(page):
    """The code cell that takes the learner's sentence."""
    return page.locator(".jp-Notebook .jp-CodeCell").filter(has_text='pair = "').first


def type_and_run(page, cell, source: str) -> None:
    """Replace a cell's source as by hand, and run it."""
    editor = cell.locator(".cm-content")
    editor.scroll_into_view_if_needed()
    editor.click()
    editor.press("Control+a")
    page.keyboard.insert_text(source)
    editor.press("Control+Enter")


@pytest.fixture(params=["zh", "en"])
def lang(request):
    return request.param


def test_chapter_one_in_jupyterlab(browser, jupyterlab, screenshots, tmp_path, lang):
    root = tmp_path / "work"
    with jupyterlab(root, tmp_path / "home", "--lang", lang) as url:
        page, outside = open_chapter(browser, url)
        assert page.url.endswith(f"/lab/tree/{CHAPTER}")
        page.screenshot(path=screenshots / f"{lang}-1-opened.png")
        run_all(page)
        page.screenshot(path=screenshots / f"{lang}-2-run.png")
        assert errors(page) == []
        assert page.locator("figure svg").count() >= 3
        save(page)
        assert json.loads((root / CHAPTER).read_text(encoding="utf-8"))["cells"][-2]["cell_type"] == "markdown"
        assert b"execution_count\": 1," in (root / CHAPTER).read_bytes() and workspace.prepare(root).kept == []  # only run

        cell = input_cell(page)
        grid = cell.locator(".jp-OutputArea-output")
        before = grid.text_content()
        sentence, pieces = OWN[lang]
        made = json.loads((root / CHAPTER).read_text(encoding="utf-8"))
        source = next(text for text in ("".join(c["source"]) for c in made["cells"]) if INPUT_CELL.search(text))
        type_and_run(page, cell, re.sub(r'(?m)^pair = "[^"]*"', f'pair = "{sentence}"', source))
        until(page, lambda: grid.locator("table, svg").count() == 1 and grid.text_content() != before, 60)
        after = grid.text_content()
        assert all(piece in after for piece in pieces), after
        cell.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / f"{lang}-3-own-sentence.png")

        assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0  # no news, no update, no question
        assert outside == []
        save(page)
        page.close()
    saved = json.loads((root / CHAPTER).read_text(encoding="utf-8"))
    assert saved["metadata"]["language_info"]["name"] == "python"
    assert sentence in "".join("".join(c["source"]) for c in saved["cells"])
    report = workspace.prepare(root, update=True)
    assert report.kept == [CHAPTER] and sentence in (root / CHAPTER).read_text(encoding="utf-8")


def test_opened_and_saved_notebook_counts_as_untouched(browser, jupyterlab, tmp_path):
    root = tmp_path / "work"
    with jupyterlab(root, tmp_path / "home", "--lang", "en") as url:
        page, _ = open_chapter(browser, url)
        page.wait_for_selector(".jp-mod-dirty", timeout=30_000)  # JupyterLab noted the kernel's language version
        save(page)
        page.close()
    assert b"language_info" in (root / CHAPTER).read_bytes()
    assert workspace.prepare(root).kept == []


def test_starts_where_the_home_folder_cannot_be_written(jupyterlab, tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "home")  # not even root can make it
    with jupyterlab(tmp_path / "work", tmp_path / "home", "--lang", "en", HOME=nowhere, USERPROFILE=nowhere):
        pass  # it has answered
    log = (tmp_path / "home" / "lab.log").read_text(encoding="utf-8")
    assert "Your home folder cannot be written" in log and "Traceback" not in log


# --- an exercise --------------------------------------------------------------------------------------------------

SHEET = "exercises/01_bert.ipynb"
WRONG = """def count_parameters(V, P, H, L, I):
    embeddings = (V + P + 2) * H + 2 * H
    layer = 3 * (H * H + H) + H * I + I + I * H + H + 4 * H
    return embeddings + L * layer + H * H + H"""
SAID = {  # what a learner reads: wrong answer, hint, right answer, progress
    "en": ("Attention has four linear layers", "hint 1 of 2", "1.7 Counting parameters: correct", "1 of"),
    "zh": ("注意力有四个线性层", "提示 1 / 2", "1.7 数参数：正确", "已解出 1 /"),
}


def code_cell(page, text: str):
    """The first code cell that has this text now: it stays the same cell when its source changes."""
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    return cells.nth(next(i for i, source in enumerate(cells.all_text_contents()) if text in source))


def run_cell(page, cell, source: str | None = None) -> str:
    """Run a cell, with another source if there is one; what it shows then."""
    before = cell.locator(".jp-InputPrompt").text_content()
    if source is None:
        cell.locator(".cm-content").click()
        cell.locator(".cm-content").press("Control+Enter")
    else:
        type_and_run(page, cell, source)

    def is_done() -> bool:
        now = cell.locator(".jp-InputPrompt").text_content()
        return now != before and bool(re.search(r"\[\d+\]", now)) and idle(page)

    until(page, is_done, 60)
    return cell.locator(".jp-OutputArea").text_content() or ""


def test_an_exercise_in_jupyterlab(browser, jupyterlab, screenshots, tmp_path, lang):
    mistake, hinted, correct, solved = SAID[lang]
    root = tmp_path / "work"
    with jupyterlab(root, tmp_path / "home", "--lang", lang) as url:
        page, outside = open_chapter(browser, url.replace("/?", f"/lab/tree/{SHEET}?"))
        run_all(page)
        assert errors(page) == []  # as handed out: nothing is attempted, nothing raises
        progress = code_cell(page, "progress()")
        before = run_cell(page, progress)
        answer, check = code_cell(page, "def count_parameters"), code_cell(page, 'check("1.7")')
        run_cell(page, answer, WRONG)
        assert mistake in run_cell(page, check)
        check.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / f"{lang}-4-wrong.png")
        assert hinted in run_cell(page, check, 'hint("1.7")')
        page.screenshot(path=screenshots / f"{lang}-5-hint.png")
        run_cell(page, answer, WRONG.replace("3 * (H", "4 * (H"))
        assert correct in run_cell(page, check, 'check("1.7")')
        page.screenshot(path=screenshots / f"{lang}-6-right.png")
        after = run_cell(page, progress)
        assert after != before and solved in after and progress.locator("svg").count() >= 1
        progress.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / f"{lang}-7-progress.png")
        assert outside == [] and errors(page) == []
        save(page)
        page.close()
    assert json.loads((root / "progress.json").read_text())["exercises"]["1.7"]["solved"]
    workspace.prepare(root, update=True)
    assert "4 * (H * H + H)" in (root / SHEET).read_text(encoding="utf-8")  # solved work stays


# --- the view into a BERT ----------------------------------------------------------------------------------------

def test_the_view_in_jupyterlab(browser, jupyterlab, screenshots, tmp_path):
    """After a run the view can be used, and nothing is loaded from elsewhere."""
    root = tmp_path / "work"
    with jupyterlab(root, tmp_path / "home", "--lang", "en") as url:
        page, outside = open_chapter(browser, url.replace("/?", "/lab/tree/look_inside.ipynb?"))
        run_all(page)
        assert errors(page) == []
        view = page.locator(".bert-view").first
        view.get_by_role("button", name=re.compile(r"^guitar\b")).click()
        view.get_by_text("(it was guitar)").wait_for()
        view.get_by_role("button", name="layer 2, head 4").click()
        view.get_by_text("layer 2, head 4", exact=True).first.wait_for()
        view.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "en-8-view.png")
        assert view.locator("table").count() == 0 and outside == [] and errors(page) == []
        page.close()


# --- the check itself: it must notice what is wrong ---------------------------------------------------------------

@pytest.mark.parametrize("fault, says", [
    ("raise ValueError('planted')", "planted"),
    ("import sys; print('Traceback (most recent call last): planted', file=sys.stderr)", "planted"),
])
def test_planted_fault_is_noticed(browser, jupyterlab, tmp_path, fault, says):
    root = tmp_path / "work"
    root.mkdir()
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": ["# planted"]}
    cell = {"cell_type": "code", "id": "fault", "metadata": {}, "source": [fault]}
    cells = [title, cell | {"outputs": [], "execution_count": None}]
    (root / CHAPTER).write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": KERNEL, "cells": cells}))
    with jupyterlab(root, tmp_path / "home", "--lang", "en") as url:
        page, _ = open_chapter(browser, url)
        assert [text[:8] for text in errors(page)] == ["not run:"]
        run_all(page)
        assert any(says in text for text in errors(page))
        page.close()


def test_chapter_has_the_input_cell():
    course = json.loads(Path(asset("course") / CHAPTER).read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in course["cells"] if cell["cell_type"] == "code"]
    assert any(INPUT_CELL.search(source) for source in sources)
