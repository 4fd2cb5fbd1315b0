"""The scripts of the site, on pages built as Quarto builds them: the switch of languages, what scrolls, terms."""

import html
from pathlib import Path

import pytest

NBS = Path(__file__).parents[2] / "nbs"
PAGE = """<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><link rel="icon" href="data:,"><style>{style}</style></head>
<body><div class="quarto-navbar-tools" style="position: fixed; top: 0"></div><main class="content">
<p style="height: 300px">A <span class="term" tabindex="0" aria-description="{definition}">term</span>.</p>
<section id="one" style="height: 1500px"><h2>1</h2></section><section id="two" style="height: 1500px"><h2>2</h2></section>
<pre id="wide" style="overflow-x: auto; width: 200px">{wide}</pre><pre id="narrow" style="overflow-x: auto">x</pre>
</main>{scripts}</body></html>"""


@pytest.fixture
def site(tmp_path, serve_files):
    """A site of one page in two languages."""
    scripts = "".join((NBS / name).read_text(encoding="utf-8") for name in ("language-switch.html", "scrolling.html", "live.html"))
    style = (NBS / "styles.css").read_text(encoding="utf-8")
    for lang in ("zh", "en"):
        (tmp_path / "course" / lang).mkdir(parents=True)
        text = PAGE.format(lang=lang, style=style, wide="x" * 500, scripts=scripts, definition=html.escape('what "it" means'))
        (tmp_path / "course" / lang / "a.html").write_text(text, encoding="utf-8")
    return f"{serve_files(tmp_path)}/course"


@pytest.fixture
def page(site, browser):
    """The page in Chinese; an error on the console fails the test."""
    page, faults = browser.new_page(viewport={"width": 900, "height": 600}), []
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{site}/zh/a.html")
    yield page
    page.close()
    assert not faults


def test_the_switch_lands_on_the_same_heading(page, site):
    page.evaluate("document.getElementById('two').scrollIntoView()")
    page.get_by_role("link", name="English").click()
    page.wait_for_url(f"{site}/en/a.html#two")
    assert page.evaluate("Math.abs(document.getElementById('two').getBoundingClientRect().top)") < 5
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("link", name="中文").click()
    page.wait_for_url(f"{site}/zh/a.html")
    assert page.evaluate("localStorage.getItem('bertcourse-lang')") == "zh"


def test_what_scrolls_can_be_reached(page):
    assert page.locator("#wide").get_attribute("tabindex") == "0" and page.locator("#wide").get_attribute("aria-label") == "可以横向滚动"
    assert page.locator("#narrow").get_attribute("tabindex") is None
    page.evaluate("document.getElementById('wide').textContent = 'short'; dispatchEvent(new Event('resize'))")
    assert page.locator("#wide").get_attribute("tabindex") is None and page.locator("#wide").get_attribute("role") is None


def test_a_definition_stays_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 700})
    page.evaluate("document.querySelector('.term').style.marginLeft = '250px'; document.querySelector('.term').setAttribute('aria-description', 'word '.repeat(40))")
    before = page.evaluate("document.documentElement.scrollWidth")
    page.locator(".term").focus()
    assert page.evaluate("document.documentElement.scrollWidth") == before


def test_a_term_shows_its_definition_on_focus(page):
    shown = "getComputedStyle(document.querySelector('.term'), '::after').content"
    assert page.evaluate(shown) == "none"
    page.locator(".term").focus()
    assert "what" in page.evaluate(shown) and "means" in page.evaluate(shown)
