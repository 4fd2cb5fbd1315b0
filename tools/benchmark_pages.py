"""The recorded benchmarks as pages of the site: what was measured and how, a plot, the rows, what follows from them.

Everything with a figure is computed from `benchmarks/*.json` by `benchmark_sections`; the words are in `benchmark_pages.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import api
import page_parts
from benchmark_plots import framed, picture, rows_of, series_of
from benchmark_rows import Damaged, Recording, Section, Table, Words, recordings
from benchmark_sections import section

from bertcourse.languages import LANGUAGES, split_marker

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
SOURCE = api.SOURCE
Page = dict[str, Any]


@cache
def texts() -> dict[str, Any]:
    """All words of the pages."""
    return tomllib.loads(Path(__file__).with_name("benchmark_pages.toml").read_text(encoding="utf-8"))


def pick(words: Words | Sequence[str], lang: str) -> str:
    """One language of a pair; a text alone is for both."""
    return words if isinstance(words, str) else words[LANGUAGES.index(lang)].strip("\n")


def word(name: str, lang: str, **values: Words) -> str:
    """A text that all pages share."""
    return filled(texts()["words"][name], values, lang)


def filled(words: Words | Sequence[str], values: Mapping[str, Words], lang: str) -> str:
    """A text with its places filled. Raises `Damaged` where a place has no value."""
    text = pick(words, lang)
    try:
        return text.format_map({name: pick(value, lang) for name, value in values.items()} | {"source": SOURCE})
    except KeyError as error:
        raise Damaged(f"tools/benchmark_pages.toml: there is no value {error} for the text {text[:60]!r}") from None


# --- parts of a page ----------------------------------------------------------------------------------------------


def name_in(name: str, lang: str, shown: frozenset[str] = frozenset()) -> str:
    """What a table calls an entry of the JSON: on the Chinese page in Chinese, with the name in the picture behind it."""
    text, chinese = api.cell(api.prose(name)), texts()["names"].get(name)
    if lang == "en" or not chinese:
        return text
    told_apart = re.findall(r"\d+", name)  # by its numbers it is found in the picture
    return f"{api.cell(chinese)}（{text}）" if name in shown and not told_apart else api.cell(chinese)


def table_text(table: Table, lang: str, shown: frozenset[str] = frozenset()) -> str:
    """A table in Markdown, numbers to the right. `shown` are the names in the picture."""
    heads = [pick(texts()["heads"].get(head, head), lang) for head in table.heads]
    rule = ["---:" if all(is_number(row[i]) for row in table.rows) else "---" for i in range(len(heads))]
    rows = [[name_in(value, lang, shown) for value in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in [heads, rule, *rows]]
    return "\n".join([*([f"**{title_in(table.title, lang)}**\n"] if table.title else []), *lines])


def title_in(title: str, lang: str) -> str:
    """A table's title: the processor, and how many threads."""
    if lang == "en":
        return title
    for count in (1, 2):
        title = title.replace(f", {count} thread{'s' * (count > 1)}", f"，{count} 个线程")
    return title.replace(", MiB", "，MiB")


def is_number(text: str) -> bool:
    """Is it a number, perhaps with a sign or a unit, or a place without one?"""
    return re.fullmatch(r"(?:> )?[-+]?[\d,.]+%?(?: / \d+)?|–|", text) is not None


def alt_text(made: Section, lang: str) -> str:
    """What the picture shows, for those who cannot see it."""
    found = []
    for panel, rows in made.panels.items():
        points = [(point.value, row, kind) for row, kinds in rows.items() for kind, point in kinds.items()]
        ends = {}
        for name, (value, row, kind) in (("low", min(points)), ("high", max(points))):
            ends |= {name: f"{value:,.3g}", f"{name}_row": row, f"{name}_series": kind}
        found.append(word("extremes", lang, panel=panel, **ends))
    kind = word("log" if made.log else "linear", lang)
    rows, series = str(len(rows_of(made.panels))), str(len(series_of(made.panels)))
    return word("alt", lang, kind=kind, xlabel=made.xlabel, rows=rows, series=series, extremes=("；" if lang == "zh" else "; ").join(found))


def heading_of(page: str, title: str, lang: str) -> tuple[str, str]:
    """A heading of a chapter in a language, and its anchor. Raises `Damaged` where it is not there."""
    cells: dict[str, list] = {of: [] for of in LANGUAGES}
    for cell in page_parts.read_page(ROOT / "nbs" / f"{page}.ipynb")["cells"]:
        if cell["cell_type"] == "markdown" and (of := split_marker("".join(cell["source"]))[0]):
            cells[of].append(cell)
    titles = {of: [text for _, text in page_parts.headings(cells[of])] for of in LANGUAGES}
    if title not in titles["en"]:
        raise Damaged(f"tools/benchmark_pages.toml: nbs/{page}.ipynb has no heading {title!r}")
    number = titles["en"].index(title)
    return titles[lang][number], page_parts.heading_anchors(titles["en"])[number]


def section_cells(part: Page, made: Section, lang: str) -> Iterator[dict[str, Any]]:
    """Question, picture, what follows, rows."""
    id, title = part["id"], pick(part["title"], lang)
    yield api.markdown(f"{id}-asks", f"## {title}\n\n{filled(part['asks'], made.values, lang)}")
    if made.panels:
        html = framed(picture(made), alt_text(made, lang), pick(part.get("caption", texts()["words"]["rounds"]), lang))
        yield api.markdown(f"{id}-plot", f"```{{=html}}\n{html}\n```")
    chapter, anchor = heading_of(*part["chapter"], lang)
    link = f"{word('chapter', lang)}[{chapter}](../{part['chapter'][0]}.ipynb#{anchor})"
    gap = f"\n\n{word('gap', lang, **made.values)}" if part.get("gap") else ""
    yield api.markdown(f"{id}-says", f"{filled(part['says'], made.values, lang)}\n\n{link}")
    shown = frozenset([*rows_of(made.panels), *series_of(made.panels)])
    for number, table in enumerate(made.tables):
        yield api.markdown(f"{id}-table-{number}", table_text(table, lang, shown) + (gap if number == 0 else ""))


def recordings_table(found: list[Recording], lang: str) -> str:
    """Which files, measured where, when and how often."""
    lines = []
    for one in found:
        machine = one.found["machine"]
        rounds = one.found.get("settings", one.found).get("rounds", "–")
        software = ", ".join(f"{name} {machine[key]}" for name, key in (("Python", "python"), ("torch", "torch")) if key in machine)
        link = f"[{one.name}]({SOURCE}/benchmarks/{one.name})"
        lines.append([link, api.cell(one.cpu), str(machine["cores"]), str(rounds), one.found["date"], software])
    heads = [pick(texts()["heads"][head], lang) for head in ("file", "processor", "cores", "rounds", "date", "software")]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *lines])


def how_cell(page: Page, found: list[Recording], made: Mapping[str, Section], lang: str) -> dict[str, Any]:
    """How it was measured, where, and how to do it again."""
    values: dict[str, Words] = {name: value for one in made.values() for name, value in one.values.items()}
    values |= {
        key: f"{value:g}"
        for key, value in {**found[0].found, **found[0].found.get("settings", {})}.items()
        if isinstance(value, (int, float))
    }
    script = page.get("script", page["command"].split("/")[-1].split()[0])
    return api.markdown("how", "\n\n".join([
        f"## {word('how', lang)}", filled(page["how"], values, lang), recordings_table(found, lang),
        word("again", lang), f"```sh\n{page['command']}\n```",
        f"{word('script', lang)}[`benchmarks/{script}`]({SOURCE}/benchmarks/{script})",
    ]))  # fmt: skip


# --- pages --------------------------------------------------------------------------------------------------------


def made_sections(folder: Path) -> dict[str, tuple[list[Recording], dict[str, Section]]]:
    """Of each page its recordings and its sections."""
    found = {}
    for page in texts()["page"]:
        files = recordings(folder, page["files"])[: None if page.get("others", True) else 1]
        found[page["id"]] = files, {part["id"]: section(part["id"], files) for part in page["section"]}
    return found


def benchmark_page(page: Page, found: list[Recording], made: Mapping[str, Section], lang: str) -> dict[str, Any]:
    """The page of a benchmark."""
    cells = [
        api.markdown("title", f"# {pick(page['title'], lang)}\n\n> {pick(page['asks'], lang)}"),
        api.markdown("why", pick(page["why"], lang)),
    ]
    for part in page["section"]:
        cells += section_cells(part, made[part["id"]], lang)
    return api.page_of([*cells, how_cell(page, found, made, lang)])


def index_page(found: Mapping[str, tuple[list[Recording], Mapping[str, Section]]], lang: str) -> dict[str, Any]:
    """All pages with their question and what was found."""
    rows, results = [], []
    for page in texts()["page"]:
        files, made = found[page["id"]]
        link = f"[{pick(page['title'], lang)}]({page['id']}.ipynb)"
        rows.append(f"|{link}|{pick(page['asks'], lang)}|{'<br>'.join(api.cell(one.cpu) for one in files)}|")
        first = page["section"][0]
        results.append(f"- **{link}**{'：' if lang == 'zh' else ': '}{filled(first['says'], made[first['id']].values, lang)}")
    heads = f"| {word('page', lang)} | {word('asks', lang)} | {word('where', lang)} |\n|---|---|---|"
    return api.page_of([
        api.markdown("title", f"# {word('title', lang)}\n\n> {word('about', lang)}"),
        api.markdown("intro", word("intro", lang)),
        api.markdown("pages", "\n".join([f"## {word('pages', lang)}\n", heads, *rows])),
        api.markdown("results", "\n".join([f"## {word('results', lang)}\n", *results])),
        api.markdown("rules", f"## {word('rules', lang)}\n\n{word('rules_text', lang)}\n\n{word('more', lang)}"),
    ])  # fmt: skip


def check_files(folder: Path) -> None:
    """Raises `Damaged` where a recording has no page."""
    stems = {page["files"] for page in texts()["page"]}
    for path in sorted(folder.glob("*.json")):
        if not any(path.stem == stem or path.stem.startswith(f"{stem}-") for stem in stems):
            raise Damaged(
                f"benchmarks/{path.name} has no page: add one to tools/benchmark_pages.toml, and its rows to tools/benchmark_sections.py"
            )


def site_pages(folder: Path = FOLDER) -> dict[str, dict[str, dict[str, Any]]]:
    """The pages by language and file name. Raises `Damaged`, with one sentence, where a recording cannot be shown."""
    check_files(folder)
    found = made_sections(folder)
    pages = {lang: {"index.ipynb": index_page(found, lang)} for lang in LANGUAGES}
    for page in texts()["page"]:
        for lang in LANGUAGES:
            pages[lang][f"{page['id']}.ipynb"] = benchmark_page(page, *found[page["id"]], lang)
    return pages


def write_pages(folder: Path, lang: str) -> None:
    """Write the pages of a language, with the anchors of both, into a new folder."""
    folder.mkdir()
    for name, notebook in page_parts.anchored(site_pages(), lang).items():
        page_parts.write_page(folder / name, notebook)
