"""The scripts and the look of the site, on pages built as Quarto builds them: the switch of languages, what scrolls, terms, length of lines, code."""

import html
import re
from pathlib import Path

import pytest
import yaml

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


def test_what_is_unfolded_can_be_reached(page):  # Chromium measures what is folded, other browsers do not
    page.evaluate("""document.querySelector('main').insertAdjacentHTML('beforeend',
        '<style>details:not([open]) > div { display: none }</style><details><summary>x</summary><div id="inner" style="overflow:auto; height: 40px; width: 200px"><p style="height: 200px">x</p></div></details>');
        dispatchEvent(new Event('resize'))""")
    inner = page.locator("#inner")
    assert inner.get_attribute("tabindex") is None
    page.locator("summary").last.click()
    page.wait_for_function("document.getElementById('inner').tabIndex === 0")
    assert inner.get_attribute("aria-label") == "可以滚动" and inner.get_attribute("role") == "group"
    inner.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.getElementById('inner').scrollTop > 0")


# --- the look -----------------------------------------------------------------------------------------------------

# As on the site: 17px, the theme's fonts, and the column that Quarto's grid leaves beside the two sidebars (its own style sheets need Quarto).
LOOK = """<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><style>
:root {{ font-size: 17px; --bs-body-color: {ink}; --bs-body-bg: {ground}; }} * {{ box-sizing: border-box; }}
body {{ margin: 0; font-family: {sans}; color: {ink}; background: {ground}; }} pre, code {{ font-family: {mono}; }} pre {{ overflow: auto; margin: 0; }}
main.content {{ width: {column}px; margin-left: 8px; }} div.sourceCode > pre.sourceCode {{ font-size: {code_size}; padding: .4em; }} {style}</style></head>
<body class="quarto-{scheme}"><main class="content"><section><p id="prose">{prose}</p><ul><li id="item">{prose}</li></ul>
<div class="predict"><p id="boxed">{prose}</p></div>
<div class="claim" style="border-left:4px solid #D55E00;padding:.3em .9em;margin:.6em 0;font-size:.95em"><span><b>✎ X</b> <span id="claimed">{prose}</span></span></div>
<div class="sourceCode"><pre class="sourceCode"><code class="sourceCode"><span>{line}</span>\n<span>x</span></code></pre></div>
<table><tr><td id="cell">1</td></tr></table><a id="link" href="#">link</a></section></main></body></html>"""
PROSE = {
    "zh": "注意力把每个位置的查询与所有位置的键相乘再用归一化指数函数变成权重最后按权重把值加起来" * 8,
    "en": "Attention multiplies the query of each position by the keys of all positions, turns the products into weights, and adds up the values by them. " * 8,
}
LINES = """id => { const lines = new Map(), range = document.createRange(), text = document.getElementById(id).firstChild;
    for (let i = 0; i < text.length; i++) { range.setStart(text, i); range.setEnd(text, i + 1); const box = range.getClientRects()[0];
        if (box && box.width) lines.set(Math.round(box.top), (lines.get(Math.round(box.top)) || 0) + 1); }
    return [...lines.values()].slice(1, -1); }"""


def sass(name):
    """The value of a variable of the theme."""
    return re.search(rf"^\${name}: (.*);$", (NBS / "theme.scss").read_text(encoding="utf-8"), re.MULTILINE)[1]


def column_at(width):
    """How wide Quarto's grid makes the text beside two sidebars, with a docked one; measured on rendered pages: 899px at 1440, 862 at 1280, 349 at 390."""
    grid = yaml.safe_load((NBS / "_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]["grid"]
    body, sides = int(grid["body-width"][:-2]) + 200, int(grid["sidebar-width"][:-2]) + int(grid["margin-width"][:-2])
    gutters = 2 * float(grid["gutter-width"][:-3]) * 17
    return min(body - gutters, width - sides) if width >= 992 else width - gutters


@pytest.fixture
def look(browser, tmp_path):
    """Opens a page of a language at a width, with more CSS where a fault is planted."""
    opened = []

    def show(lang="zh", width=1440, scheme="light", fault=""):
        ink, ground = ("#373a3c", "#ffffff") if scheme == "light" else ("#ffffff", "#222222")
        style = (NBS / "styles.css").read_text(encoding="utf-8") + fault
        file = tmp_path / f"{len(opened)}.html"
        file.write_text(LOOK.format(lang=lang, sans=sass("font-family-sans-serif"), mono=sass("font-family-monospace"), column=column_at(width), ink=ink,
                                    ground=ground, code_size=sass("code-block-font-size"), style=style, scheme=scheme, prose=PROSE[lang], line="x" * 100),
                        encoding="utf-8")  # fmt: skip
        opened.append(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
        opened[-1].goto(file.as_uri())
        return opened[-1]

    yield show
    for page in opened:
        page.close()


def long_lines(page, lang):
    """The parts of a page whose lines are too long or too short."""
    low, high = (36, 39) if lang == "zh" else (65, 82)
    found = {}
    for part in ("prose", "item", "boxed", "claimed"):
        lines = page.evaluate(LINES, part)
        mean = sum(lines) / len(lines)
        if not low <= mean <= high:
            found[part] = mean
    return found


@pytest.mark.parametrize("width", [1280, 1440])
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_lines_are_of_a_good_length(look, lang, width):
    assert long_lines(look(lang, width), lang) == {}


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_long_lines_are_noticed(look, lang):
    assert set(long_lines(look(lang, fault="body, :lang(zh) body { --measure: none; } .claim { max-width: none !important; }"), lang)) == {
        "prose", "item", "boxed", "claimed"}  # fmt: skip


def hidden(page):
    """How many pixels of a line of 100 characters have to be scrolled to."""
    return page.evaluate("(pre => pre.scrollWidth - pre.clientWidth)(document.querySelector('pre'))")


@pytest.mark.parametrize("width", [1280, 1440])
def test_a_hundred_characters_of_code_are_not_cut(look, width):
    assert hidden(look(width=width)) <= 0
    assert hidden(look(width=width, fault="div.sourceCode > pre.sourceCode { font-size: 1em !important; }")) > 50


def test_a_phone_scrolls_the_code_and_not_the_page(look):
    page = look(width=390)
    assert hidden(page) > 100 and page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_is_visible(look, scheme):
    page = look(scheme=scheme)
    page.keyboard.press("Tab")
    page.locator("#link").focus()
    ring = page.evaluate("(s => [s.outlineStyle, s.outlineWidth, s.outlineColor])(getComputedStyle(document.getElementById('link')))")
    assert ring == ["solid", "3px", "rgb(55, 58, 60)" if scheme == "light" else "rgb(255, 255, 255)"]


def test_digits_of_tables_have_one_width(look):
    assert "tabular-nums" in look().evaluate("getComputedStyle(document.getElementById('cell')).fontVariantNumeric")
