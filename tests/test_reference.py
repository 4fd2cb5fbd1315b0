"""Glossary, symbols, learning path and checklist: complete, and in agreement with the pages."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from checks import outline, reading
from checks.planting import en, notebook, zh

from bertcourse.assets import asset
from bertcourse.languages import LANGUAGES, glossary, keep_language
from bertcourse.reference import (
    Checklist,
    Glossary,
    LearningPath,
    SymbolTable,
    page_minutes,
    pages_before,
    path_pages,
    reading_minutes,
    show_path,
    symbols,
)

pytestmark = pytest.mark.check

SYMBOLS = tomllib.loads(asset("symbols.toml").read_text(encoding="utf-8"))
GREEK = "alpha beta gamma delta epsilon varepsilon eta theta lambda mu sigma tau phi Phi pi omega".split()
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|underbrace|mathcal)\{[^{}]*\}")


def letters(formula: str) -> set[str]:
    "The symbols of a formula: letters and Greek names, `d_k` and `d_v` with their index."
    text = re.sub(r"\}_\{[^{}]*\}", "}", re.sub(r"_\{\\text\{[^{}]*\}\}|_\{\\mathrm\{[^{}]*\}\}", "", formula))
    text = WORDS.sub(" ", text)
    found = set(re.findall(r"d_[kv]", text))
    text = re.sub(r"d_[kv]", " ", text)
    found |= {name for name in re.findall(r"\\([a-zA-Z]+)", text) if name in GREEK and name not in ("delta", "pi")}
    return found | set(re.findall("[A-Za-z]", re.sub(r"\\[a-zA-Z]+|\blr\b", " ", text)))


def undeclared(cells: list[reading.Cell], page: str) -> Iterator[str]:
    "Symbols of a page that symbols.toml does not know there, and words that go with another symbol."
    own, here = set(SYMBOLS["local"].get(page, ())), symbols(page)
    known = {s.symbol for s in here} | own
    for cell in cells:
        if cell.lang:
            for formula in reading.math_spans(cell.text):
                for symbol in sorted(letters(formula.strip("$")) - known):
                    yield f"{cell.where}: {symbol} is not in symbols.toml for {page}"
            yield from misnamed(cell, here)


def misnamed(cell: reading.Cell, here: list) -> Iterator[str]:
    "A name such as “layers” directly before a symbol that means something else."
    for symbol in here:
        for word in symbol.words_zh if cell.lang == "zh" else symbol.words_en:
            for found in re.finditer(rf"(?<![\w\u4e00-\u9fff-]){re.escape(word)} ?\$([A-Za-z](?:_[a-z])?|\\[a-zA-Z]+)(?: = [^$]*)?\$", cell.text, re.IGNORECASE):
                used = found[1].lstrip("\\")
                same = {s.symbol for s in here if word in (*s.words_zh, *s.words_en)}
                if used.split("_")[0] not in same and used not in same:
                    yield f"{cell.where}: “{word} ${found[1]}$”, but {word} is {symbol.symbol}"


@pytest.mark.parametrize("page", SYMBOLS["pages"])
def test_symbols_are_used_as_declared(page):
    found = list(dict.fromkeys(undeclared(reading.read(reading.NBS / f"{page}.ipynb"), page)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", SYMBOLS["pages"])
def test_a_symbol_has_one_meaning_on_a_page(page):
    here = [s.symbol for s in symbols(page)]
    assert len(set(here)) == len(here), f"two meanings on {page}: {sorted({s for s in here if here.count(s) > 1})}"
    both = set(here) & set(SYMBOLS["local"].get(page, ()))
    assert not both, f"{page}: {both} are declared twice"


@pytest.mark.parametrize("page", SYMBOLS["pages"])
def test_declared_symbols_are_used(page):
    cells = reading.read(reading.NBS / f"{page}.ipynb")
    used = {symbol for cell in cells for formula in reading.math_spans(cell.text) for symbol in letters(formula.strip("$"))}
    declared = {s.symbol for s in symbols(page)} | set(SYMBOLS["local"].get(page, ()))
    if page != "09_appendix":  # its table lists symbols that its formulas need not hold
        assert declared <= used, f"symbols.toml declares {sorted(declared - used)} for {page}, which has none"


@pytest.mark.parametrize("cells, says", [
    ([zh("层数 $N$。"), en("It has layers $N$.")], "N is not in symbols.toml"),
    ([zh("层数 $H$。"), en("x $L$")], "“层数 $H$”, but 层数 is L"),
    ([zh("层数 $L$。"), en("The hidden size $L$.")], "“hidden size $L$”, but hidden size is H"),
    ([zh("$$Q\\zeta + \\gamma$$"), en("$x$")], "gamma is not in symbols.toml"),
])  # fmt: skip
def test_planted_symbols_are_found(cells, says):
    assert any(says in fault for fault in undeclared(reading.cells(notebook(*cells)), "01_bert"))


def test_the_guides_symbols_are_there():
    assert {s.symbol for s in symbols() if s.guide} == {"Q", "K", "V", "d_k", "d_v", "h", "L", "H", "n", "T", "alpha", "W"}
    assert len(SymbolTable("02_transformer").symbols) == len(symbols("02_transformer"))


# --- the glossary -------------------------------------------------------------------------------------------------


def test_glossary_is_complete_and_says_each_term_once():
    terms = glossary()
    assert len(terms) >= 100 and sum(term.guide for term in terms) == 11
    for names in ([t.en.lower() for t in terms], [t.zh for t in terms], [t.abbreviation for t in terms if t.abbreviation]):
        assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
    for term in terms:
        assert term.definition_en.endswith((".", "?")) and term.definition_zh.endswith(("。", "？")) and term.en != term.american
        assert not reading.HAS_CJK.search(term.definition_en), term.en


def test_american_spellings_are_given():
    british = re.compile(r"isation|iser\b|ised\b", re.IGNORECASE)
    assert [t.en for t in glossary() if british.search(t.en) and not t.american] == []


@pytest.mark.parametrize("asked, finds", [("MLM", "masked language model"), ("困惑度", "perplexity"), ("quantization", "quantisation"),
                                          ("Latency", "latency")])  # fmt: skip
def test_terms_are_found(asked, finds):
    assert finds in [term.en for term in Glossary(asked).terms]


def test_unknown_term():
    with pytest.raises(ValueError, match="no term with 'zebra' in it"):
        Glossary("zebra")


@pytest.mark.parametrize("shown", [Glossary(), SymbolTable(), Checklist(), LearningPath()], ids=lambda s: type(s).__name__)
def test_tables_speak_both_languages(shown):
    html = shown._repr_html_()
    assert html.count('lang="zh"') == html.count('lang="en"') > 0 and "src=" not in html
    for lang, other in (LANGUAGES, LANGUAGES[::-1]):
        assert f'lang="{other}"' not in keep_language(html, lang)


# --- the learning path --------------------------------------------------------------------------------------------


def test_path_has_every_page_and_no_circle():
    pages = path_pages()
    assert {p.notebook for p in pages} >= {p.stem for p in reading.chapters()} - {"09_appendix"}
    assert len({p.at for p in pages}) == len(pages) == len({p.id for p in pages})
    seen = set()
    for page in pages:  # in the order of the course, what a page needs comes before it
        if not page.id.startswith("8"):
            assert set(page.needs) <= seen, page
        seen.add(page.id)
    assert all(set(page.needs) <= seen for page in pages)
    planned = {h.notebook.removesuffix(".ipynb") for h in outline.outline()} - {"09_appendix"}
    assert {p.notebook for p in pages} == planned


def test_pages_before_a_page():
    assert [page.id for page in pages_before("6")] == ["1", "2", "3.1", "4.1", "5", "6"]
    with pytest.raises(KeyError):
        pages_before("99")


def test_minutes_are_reading_and_running():
    words = notebook(zh("字" * 300), en("word " * 400))
    assert reading_minutes(words, "zh") == pytest.approx(1, abs=0.05) and reading_minutes(words, "en") == pytest.approx(2, abs=0.05)
    first = path_pages()[0]
    assert 10 < page_minutes(first, "zh") < 90 and 10 < page_minutes(first, "en") < 90


def test_site_fills_the_map_in():
    cell = {"cell_type": "code", "source": "LearningPath()", "outputs": []}
    show_path(cell)
    assert "<svg" in "".join(cell["outputs"][0]["data"]["text/html"])
    other = {"cell_type": "code", "source": 'LearningPath("6")', "outputs": []}
    show_path(other)
    assert not other["outputs"]


def test_checklist_is_chapter_8():
    assert sum(map(len, Checklist().questions.values())) == 20 and [c["section"] for c in Checklist().checks] == [f"8.{i}" for i in range(1, 6)]
