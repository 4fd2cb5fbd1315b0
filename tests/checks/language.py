"""Do the two languages of a notebook say the same, each in good form?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from bertcourse.languages import LANGUAGES, misspellings

from . import reading
from .reading import CJK, HAS_CJK, PLACEHOLDER, Cell, prose

Complaints = Iterator[str]


def twins(cells: list[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Each zh cell with the en cell that follows it."""
    return ((a, b) for a, b in pairwise(cells) if (a.lang, b.lang) == LANGUAGES)


def pairing(cells: list[Cell]) -> Complaints:
    """Every zh cell is directly followed by its en twin; no en cell stands alone."""
    for i, cell in enumerate(cells):
        after = cells[i + 1].lang if i + 1 < len(cells) else None
        before = cells[i - 1].lang if i else None
        if cell.lang == "zh" and after != "en":
            yield f"{cell.where}: this zh cell is not directly followed by its en twin"
        if cell.lang == "en" and before != "zh":
            yield f"{cell.where}: this en cell does not directly follow its zh twin"
    for zh, en in twins(cells):
        for cell in (zh, en):
            if not cell.text.strip():
                yield f"{cell.where}: empty {cell.lang} cell"
        if zh.text.strip() and zh.text.strip() == en.text.strip():
            yield f"{zh.where}: the same text in both languages; leave the marker off if it is no prose"


def structure(cells: list[Cell]) -> Complaints:
    """Twins have the same headings, links, code and mathematics."""
    for zh, en in twins(cells):
        levels = [
            [f"{'#' * level} {number}".strip() for level, number, _ in reading.headings(c.text)] for c in (zh, en)
        ]
        if levels[0] != levels[1]:
            yield f"{zh.where}: headings differ: zh {levels[0]}, en {levels[1]}"
        for what, parts in (
            ("links", own_pictures),
            ("code spans", own_language),
            ("mathematics", reading.math_spans),
        ):
            yield from _differ(zh.where, what, parts(zh.text), parts(en.text))


def own_language(text: str) -> list[str]:
    """The code spans of a cell; each edition asks for its own language (`--lang zh`, `--lang en`)."""
    return [re.sub(r"--lang (?:zh|en)\b", "--lang LANGUAGE", span) for span in reading.code_spans(text)]


def own_pictures(text: str) -> list[str]:
    """Where the links of a cell lead; a screenshot may show its own language (`images/lab-zh.png`, `images/lab-en.png`)."""
    return [re.sub(r"-(?:zh|en)\.png$", "-LANGUAGE.png", target) for target in reading.targets(text)]


def _differ(where: str, what: str, zh: list[str], en: list[str]) -> Complaints:
    only_zh, only_en = Counter(zh) - Counter(en), Counter(en) - Counter(zh)
    if only_zh or only_en:
        yield f"{where}: {what} differ: only zh {sorted(only_zh.elements())}, only en {sorted(only_en.elements())}"


_MONTHS = [
    *("january", "february", "march", "april", "may", "june", "july", "august"),
    *("september", "october", "november", "december"),
]
_UNITS = {
    "万亿": 1e12,
    "百万": 1e6,
    "千万": 1e7,
    "十亿": 1e9,
    "亿": 1e8,
    "万": 1e4,
    "千": 1e3,
    "百": 1e2,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "K": 1e3,
    "k": 1e3,
    "M": 1e6,
    "B": 1e9,
    "G": 1e9,
    "T": 1e12,
}
_NUMBER = re.compile(
    r"(?<![A-Za-z_\d.])(?P<n>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)*)(?P<e>[eE][-+−]?\d+|\s?[×x]\s?10[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"
    r"(?P<p>\s?[%‰])?(?:\s?(?P<u>万亿|百万|千万|十亿|亿|万|千(?![\u4e00-\u9fff])|百(?!分)|thousand\b|million\b|billion\b|trillion\b|[KkMBGT](?![A-Za-z])))?"
)
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
_DATE = re.compile(
    rf"(?:(\d{{1,2}})\s+)?\b({'|'.join(m.title() for m in _MONTHS)})\b(?:\s+(\d{{1,2}}),)?(?:\s+(\d{{4}}))?"
)


def _months_in_digits(text: str) -> str:
    """`11 October 2018` → `11 10 2018`; a month without day and year stays a word."""

    def digits(found: re.Match) -> str:
        if not any(found[i] for i in (1, 3, 4)):
            return found[0]
        return " ".join(
            str(part) for part in (found[1], _MONTHS.index(found[2].lower()) + 1, found[3], found[4]) if part
        )

    return _DATE.sub(digits, text)


def numbers(text: str) -> list[str]:
    """The numbers of a text in digits, units such as 亿 and billion multiplied out, sorted."""
    found = []
    for m in _NUMBER.finditer(_months_in_digits(text)):
        plain = m["n"].replace(",", "")
        if plain.count(".") > 1:  # a version, a section
            found.append(plain)
            continue
        exponent = re.sub(r"\s?[×x]\s?10", "e", (m["e"] or "")).translate(_POWERS)
        value = float(plain + exponent) * _UNITS.get(m["u"] or "", 1)
        found.append(f"{value:.12g}{(m['p'] or '').strip()}")
    return sorted(found)


def same_numbers(cells: list[Cell], exceptions: dict[str, str] | None = None) -> Complaints:
    """Twins name the same numbers in digits; `exceptions` maps a cell to the reason why it need not."""
    for zh, en in twins(cells):
        if zh.where not in (exceptions or {}):
            yield from _differ(zh.where, "numbers", numbers(prose(zh.text)), numbers(prose(en.text)))
    for cell in code_cells(cells):
        for both in reading.captions(cell.text):
            if len(both) == 2:
                yield from _differ(
                    cell.where, "numbers of a caption", numbers(prose(both["zh"])), numbers(prose(both["en"]))
                )


def code_cells(cells: list[Cell]) -> Iterator[Cell]:
    """The cells that hold Python."""
    return (c for c in cells if c.kind == "code")


_WORD = re.compile(rf"[{CJK}]|[A-Za-z]{{2,}}")


def unmarked(cells: list[Cell]) -> Complaints:
    """A cell without a marker holds no prose, but for the title cell, which carries both languages in each line."""
    for i, cell in enumerate(cells):
        if cell.kind != "markdown" or cell.lang:
            continue
        if cell.text.startswith("# "):
            if i:
                yield f"{cell.where}: a title (# ) belongs into the first cell"
            yield from _title(cell)
            continue
        # HTML may hold both languages in elements of their own
        text = re.sub(r'<(\w+)[^>]*\blang="(?:zh|en)"[^>]*>.*?</\1>', "", cell.text, flags=re.DOTALL)
        text = re.sub(r"!?\[[^\]]*\]\([^)]*\)", "", text)
        if _WORD.search(prose(text)):
            yield f"{cell.where}: prose without a language marker"
    if cells and not cells[0].text.startswith("# "):
        yield f"{cells[0].where}: a notebook starts with its title: # 中文 | English, and > 描述 | description"


def _title(cell: Cell) -> Complaints:
    lines = [line for line in cell.text.splitlines() if line.strip()]
    for line in lines:
        # nbdev takes title and description from this cell and drops the rest of it
        if not line.startswith(("# ", "> ")):
            yield f"{cell.where}: the title cell holds more than title and description: {line[:40]!r}"
            continue
        halves = line[2:].split(" | ")
        if len(halves) != 2 or not HAS_CJK.search(halves[0]) or HAS_CJK.search(halves[1]):
            yield f"{cell.where}: not “中文 | English”: {line[:60]!r}"
    if [line[0] for line in lines] != ["#", ">"]:
        yield f"{cell.where}: the title cell has one line # and one line >"


_QUOTED = re.compile(r"「[^」]*」|『[^』]*』|“[^”]*”|‘[^’]*’|\"[^\"\n]*\"|《[^》]*》")


def english(cells: list[Cell]) -> Complaints:
    """No Chinese in English text, comments, docstrings and names, but for quotations and tables; no zh cell without."""
    for cell in cells:
        if cell.lang == "en":
            text = re.sub(r"^[ \t]*\|.*$", "", prose(cell.text), flags=re.MULTILINE)
            yield from _no_chinese(cell.where, "English text", text)
        if cell.lang == "zh" and _WORD.search(prose(cell.text)) and not HAS_CJK.search(cell.text):
            yield f"{cell.where}: a zh cell without a Chinese character"
    for cell in code_cells(cells):
        for comment in reading.comments(cell.text):
            yield from _no_chinese(cell.where, "a comment", reading.without_code(comment))
        for docstring in reading.docstrings(cell.text):
            yield from _no_chinese(cell.where, "a docstring", reading.without_code(docstring))
        for name in sorted(_names(cell.text)):
            yield from _no_chinese(cell.where, "a name", name)
        for both in reading.captions(cell.text):
            yield from _no_chinese(cell.where, "an English caption", prose(both.get("en", "")))


def _names(source: str) -> set[str]:
    import ast

    return {
        getattr(n, field)
        for n in ast.walk(reading.tree(source))
        for field in ("id", "arg", "name", "attr")
        if isinstance(getattr(n, field, None), str)
    }


def _no_chinese(where: str, what: str, text: str) -> Complaints:
    found = re.search(f"[{CJK}\u3000-\u303f\uff01-\uff5e]+", _QUOTED.sub("", text))
    if found:
        yield f"{where}: Chinese in {what}: {found[0][:20]!r} (quote an example with “” or as code)"


_LIST_MARK = re.compile(r"^[ \t]*(?:[-*+]|\d+\.)[ \t]+", re.MULTILINE)
_HALF_WIDTH = [
    (re.compile(rf"[^\s|][,;:?!][ \t]*(?=[{CJK}])"), "half-width punctuation before Chinese"),
    (
        re.compile(rf"[{CJK}][ \t]?[,;:?!.](?=\s|$|[{CJK}{PLACEHOLDER}])", re.MULTILINE),
        "half-width punctuation after Chinese",
    ),
    (re.compile(rf"\([^()\n]*[{CJK}][^()\n]*\)"), "half-width brackets around Chinese"),
    (re.compile(rf"\"[^\"\n]*[{CJK}][^\"\n]*\""), "straight quotes around Chinese"),
    (re.compile(r"[，。；：？！、][ \t]+(?=\S)"), "a blank after full-width punctuation"),
    (re.compile(r"(?<=[^\s|])[ \t]+[，。；：？！、）]"), "a blank before full-width punctuation"),
    (re.compile(r"。。|，，|\.\.\."), "doubled punctuation, or ... for ……"),
]


def punctuation(cells: list[Cell]) -> Complaints:
    """Chinese prose uses full-width punctuation, English prose half-width."""
    texts = [(c.where, prose(c.text)) for c in cells if c.lang == "zh"]
    texts += [
        (c.where, prose(both["zh"])) for c in code_cells(cells) for both in reading.captions(c.text) if "zh" in both
    ]
    for where, text in texts:
        text = _LIST_MARK.sub("", text)
        for pattern, what in _HALF_WIDTH:
            if found := pattern.search(text):
                around = text[max(0, found.start() - 6) : found.end() + 6].replace("\n", " ").replace(PLACEHOLDER, "…")
                yield f"{where}: {what}: {around!r}"
    for cell in cells:
        if cell.lang == "en" and (
            found := re.search(
                "[，。；：？！、（）]",
                _QUOTED.sub("", re.sub(r"^[ \t]*\|.*$", "", prose(cell.text), flags=re.MULTILINE)),
            )
        ):
            yield f"{cell.where}: full-width punctuation in English text: {found[0]!r}"


_TRANSLATED_TOKEN = re.compile(
    rf"[\[【［][{CJK}]{{1,4}}(?:标记|符)?[\]】］](?!\()|[【［](?:MASK|CLS|SEP|PAD|UNK)[】］]"
)


def terms(cells: list[Cell]) -> Complaints:
    """Glossary terms are spelt as the glossary spells them; special tokens are never translated."""
    texts = [(c.where, prose(c.text)) for c in cells if c.kind == "markdown"]
    texts += [
        (c.where, prose(text)) for c in code_cells(cells) for both in reading.captions(c.text) for text in both.values()
    ]
    texts += [(c.where, prose(text)) for c in code_cells(cells) for text in reading.docstrings(c.text)]
    for where, text in texts:
        for bad, term in misspellings(text):
            yield f"{where}: {bad!r} should be {term.zh} / {term.en}"
        if found := _TRANSLATED_TOKEN.search(text):
            yield f"{where}: a translated special token: {found[0]!r}"


# Words in -ize and -yze that British English spells so too, or that are names of things here.
_KEEP_Z = {"size", "prize", "seize", "capsize", "resize", "downsize", "oversize", "assize", "tokenize", "detokenize"}
_AMERICAN = {
    "color": "colour",
    "behavior": "behaviour",
    "center": "centre",
    "gray": "grey",
    "labeled": "labelled",
    "labeling": "labelling",
    "modeling": "modelling",
    "modeled": "modelled",
    "favor": "favour",
    "favorite": "favourite",
    "neighbor": "neighbour",
    "honor": "honour",
    "canceled": "cancelled",
    "traveled": "travelled",
    "fulfill": "fulfil",
    "distill": "distil",
    "distills": "distils",
    "defense": "defence",
    "artifact": "artefact",
    "catalog": "catalogue",
    "analog": "analogue",
    "skeptical": "sceptical",
    "judgment": "judgement",
    "meter": "metre",
    "liter": "litre",
    "fiber": "fibre",
    "aging": "ageing",
    "spelled": "spelt",
    "flavor": "flavour",
    "labor": "labour",
}
_IZE = re.compile(r"\b([a-z]+(?:iz|yz))(e|es|ed|er|ers|ing|ation|ations|able)\b", re.IGNORECASE)


def american(text: str) -> list[str]:
    """American spellings in a text."""
    found = [m[0] for m in _IZE.finditer(text) if m[1].lower() + "e" not in _KEEP_Z]
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", text)}
    plurals = {word + "s": good + "s" for word, good in _AMERICAN.items()}
    return found + sorted(words & (_AMERICAN.keys() | plurals.keys()))


_NAMES_KEPT = re.compile(
    r"“[^”]*”|\"[^\"\n]*\"|\*[^*\n]+\*|Masked Language Model\w*|Graph\s?Optimiz\w+|\b[A-Z][a-z]+[A-Z]\w*|\w+[._]\w+"
)


def spelling(cells: list[Cell]) -> Complaints:
    """English is British: normalise, optimiser, behaviour. Quotations, *titles* and names of an API are left alone."""
    texts = [(c.where, prose(c.text)) for c in cells if c.lang == "en"]
    for cell in cells:
        if cell.kind == "markdown" and not cell.lang and cell.text.startswith("# "):
            texts.append((cell.where, prose(cell.text)))
    for cell in code_cells(cells):
        texts += [(cell.where, prose(both["en"])) for both in reading.captions(cell.text) if "en" in both]
        texts += [(cell.where, prose(text)) for text in (*reading.docstrings(cell.text), *reading.comments(cell.text))]
    for where, text in texts:
        if words := american(_NAMES_KEPT.sub("", text)):
            yield f"{where}: American spelling: {', '.join(dict.fromkeys(words))}"


_LANG_ELEMENT = re.compile(r"<(\w+)[^>]*\blang=\"(zh|en)\"")


def outputs(cells: list[Cell]) -> Complaints:
    """HTML that an output holds in one language is there in the other one as well."""
    for cell in cells:
        for output in cell.outputs:
            html = output.get("data", {}).get("text/html", "")
            found = [m[2] for m in _LANG_ELEMENT.finditer(html if isinstance(html, str) else "".join(html))]
            if found.count("zh") != found.count("en"):
                yield f"{cell.where}: an output has {found.count('zh')} elements in zh and {found.count('en')} in en"


_SENTENCE = re.compile(r"[。！？]|[.!?](?=\s|$)")


def long_passages(cells: list[Cell], most: int = 3) -> Complaints:
    """Guideline: no more than about three sentences between two code cells."""
    for lang in LANGUAGES:
        count, start = 0, ""
        for cell in [*cells, Cell("", "code", None, "")]:
            if cell.kind == "code":
                if count > most + 2:
                    yield f"{start}: {count} sentences in {lang} before the next code cell"
                count, start = 0, ""
            elif cell.lang == lang:
                start = start or cell.where
                text = re.sub(r"^[ \t]*(?:\||#).*$", "", _LIST_MARK.sub("", prose(cell.text)), flags=re.MULTILINE)
                count += len(_SENTENCE.findall(text))


_UNCLOSED = re.compile(r"\*\*[^*\n]*[，。；：？！、）》」”]\*\*(?=\w)")


def emphasis(cells: list[Cell]) -> Complaints:
    """`**` after full-width punctuation and before a letter does not close: Markdown shows the asterisks."""
    for cell in cells:
        if cell.kind == "markdown" and (found := _UNCLOSED.search(cell.text)):
            yield f"{cell.where}: bold text cannot end with punctuation here, put it after the **: {found[0]!r}"


CHECKS: tuple[Callable[[list[Cell]], Complaints], ...] = (
    pairing,
    structure,
    same_numbers,
    unmarked,
    english,
    punctuation,
    terms,
    spelling,
    outputs,
    emphasis,
)
