"""What a page of the site has besides its own cells: an address, anchors, links to the library, definitions of terms, boxes, its notebook to download."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import api
import hosted

from bertcourse.app.workspace import handouts
from bertcourse.base.text import HAN
from bertcourse.languages import LANGUAGES, Term, glossary, split_marker

FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{2,6})[ \t]+(.+?)[ \t]*$", re.MULTILINE)
Cells = list[dict[str, Any]]


def outside(kept: re.Pattern, text: str, change: Callable[[str], str]) -> str:
    """Change a text, but not what a pattern finds in it."""
    pieces, last = [], 0
    for found in kept.finditer(text):
        pieces += [change(text[last : found.start()]), found[0]]
        last = found.end()
    return "".join([*pieces, change(text[last:])])


def edit_markdown(cells: Cells, change: Callable[[str], str]) -> None:
    """Write the prose of cells anew."""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = change("".join(cell["source"])).splitlines(keepends=True)


def read_page(path: Path) -> dict[str, Any]:
    """A notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_page(path: Path, notebook: dict[str, Any]) -> None:
    """Store a notebook."""
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1), encoding="utf-8")


# --- the same anchors in both languages ----------------------------------------------------------------------------


EXPLICIT = re.compile(r"\{#[\w:.-]+\}\s*$")  # a heading that has its anchor


def slug(title: str) -> str:
    """A heading as an anchor, as Pandoc makes it."""
    plain = re.sub(r"[^\w\s.-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
    return re.sub(r"^[^a-zA-Z]+", "", re.sub(r"\s+", "-", plain.strip()).lower()) or "section"


def heading_anchors(titles: list[str]) -> list[str]:
    """An anchor for each heading of a page, all different."""
    found: list[str] = []
    for title in titles:
        anchor, count = slug(title), 1
        while anchor in found:
            count += 1
            anchor = f"{slug(title)}-{count}"
        found.append(anchor)
    return found


def headings(cells: Cells) -> list[tuple[str, str]]:
    """Marks and title of each heading below the title of a page."""
    return [found.groups() for cell in cells for found in HEADING.finditer(FENCE.sub("", "".join(cell["source"])))]


def share_anchors(cells: dict[str, Cells]) -> bool:
    """Give the headings of a page the anchors of the English ones in both languages; False where the headings do not match."""
    found = {lang: headings(cells[lang]) for lang in LANGUAGES}
    if [marks for marks, _ in found["zh"]] != [marks for marks, _ in found["en"]]:
        return False
    for lang in LANGUAGES:
        anchors = iter(heading_anchors([title for _, title in found["en"]]))

        def add(heading: re.Match, anchors=anchors) -> str:
            anchor = next(anchors)  # Pandoc takes the last one of two, and prints the other
            return heading[0] if EXPLICIT.search(heading[0]) else f"{heading[0].rstrip()} {{#{anchor}}}"

        edit_markdown(cells[lang], lambda text, add=add: outside(FENCE, text, partial(HEADING.sub, add)))
    return True


def add_anchors(folder: Path) -> None:
    """Give the headings of all bilingual notebooks their anchors, in place."""
    for path in [*folder.glob("*.ipynb"), *folder.glob("helpers/*.ipynb")]:
        notebook = read_page(path)
        prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        if share_anchors({lang: [cell for cell in prose if split_marker("".join(cell["source"]))[0] == lang] for lang in LANGUAGES}):
            write_page(path, notebook)


def anchored(both: dict[str, dict[str, dict]], lang: str) -> dict[str, dict]:
    """Pages that were made in each language, in one of them, with shared anchors."""
    for name in both[lang]:
        share_anchors({of: [cell for cell in both[of][name]["cells"] if cell["cell_type"] == "markdown"] for of in LANGUAGES})
    return both[lang]


# --- addresses -----------------------------------------------------------------------------------------------------


def page_address(name: str) -> str:
    """The file that a page is rendered to: what it is about, without the number of a notebook, which is not that of a section.

    `07_2_serving` holds section 7.5 and becomes `serving.html`, `08_2_finetuning` becomes `interview-finetuning.html`.
    """
    stem = Path(name).stem
    subject = re.sub(r"^\d+_(?:\d+_)?", "", stem).replace("_", "-")
    return f"{'interview-' if stem.startswith('08_') else ''}{subject}.html"


def set_address(notebook: dict[str, Any], name: str) -> None:
    """Write a page's address into its front matter; nbdev would leave a part of the number, as in `2_serving.html`."""
    text = "".join(notebook["cells"][0]["source"])
    text = re.sub(r"^output-file: .*$", f"output-file: {page_address(name)}", text, count=1, flags=re.MULTILINE)
    notebook["cells"][0]["source"] = text.splitlines(keepends=True)


# --- definitions of terms ------------------------------------------------------------------------------------------

PLAIN = re.compile(
    FENCE.pattern  # what is no running text: code blocks
    + r"|^\|[^\n]*$|^#[^\n]*$|^>[^\n]*$|^ {4,}[^\n]*$"  # tables, headings, quotations, code by indentation
    r"|\$\$.*?\$\$|\$[^$\n]+\$|`+[^`\n]+`+"  # formulas, code
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|\*\*[^*\n]+\*\*|https?://\S+",  # links, HTML, what is defined in bold, addresses
    re.MULTILINE | re.DOTALL,
)


@cache
def any_term(lang: str) -> tuple[re.Pattern, dict[str, Term]]:
    """A pattern of all terms, longer ones first, so that a term inside another is not taken for itself; spelling → term."""
    names = {(term.zh if lang == "zh" else term.en).lower(): term for term in glossary()}
    terms = {name: term for name, term in names.items() if len(name) > 1}  # one character alone (值, 键) is part of many words
    words = [re.escape(word) if re.search(f"[{HAN}]", word) else rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in terms]
    return re.compile("|".join(sorted(words, key=len, reverse=True)), re.IGNORECASE), terms


def mark_terms(text: str, lang: str, marked: set[str]) -> str:
    """Markdown with the definition at the first mention of each term of the glossary on a page.

    marked: English names of the terms that have their definition already; more are added.
    """
    pattern, terms = any_term(lang)

    def mark(found: re.Match) -> str:
        term = terms[found[0].lower()]
        if term.en in marked:
            return found[0]
        marked.add(term.en)
        definition = (term.definition_zh if lang == "zh" else term.definition_en).replace("`", "")
        return f'<span class="term" tabindex="0" aria-description="{html.escape(definition)}">{found[0]}</span>'

    return outside(PLAIN, text, partial(pattern.sub, mark))


# --- boxes ---------------------------------------------------------------------------------------------------------

BOXES = {  # class in styles.css → the paragraphs that get one
    "predict": re.compile(r"(?:\A|(?<=\n\n))\*\*(?:猜一猜|Predict)[：:]?\*\*.*?(?=\n[ \t]*\n|\Z)", re.DOTALL),
    "to-exercises": re.compile(r"(?:\A|(?<=\n\n))[^\s|#>*+-][^\n]*\]\((?:\.\./)?exercises/\w+\.ipynb\)[^\n]*(?=\n[ \t]*\n|\s*\Z)"),
}


def add_boxes(text: str) -> str:
    """Markdown with questions to predict, and where a page leads to its exercises, in boxes; lines stay as they are."""
    for name, paragraph in BOXES.items():
        text = outside(FENCE, text, partial(paragraph.sub, lambda found, name=name: f"::: {{.{name}}}\n{found[0].rstrip()}\n:::"))
    return text


# --- the notebook to download, exercises, cards --------------------------------------------------------------------

INFO = {
    "zh": {"notebook": "下载这个笔记本", "colab": "在 Colab 中打开", "binder": "在 Binder 中打开", "exercises": "练习", "cards": "记忆卡", "chapter": "这一章"},
    "en": {"notebook": "Download this notebook", "colab": "Open in Colab", "binder": "Open in Binder", "exercises": "Exercises", "cards": "Cards", "chapter": "The chapter"},
}


def info_links(name: str, names: set[str], downloads: set[str], lang: str) -> list[tuple[str, str]]:
    """Where the line below a page's title leads: (address, or target from the site's root, what it is)."""
    links = [(f"notebooks/{name}", "notebook"), *((address, what) for what, address in hosted.addresses(name, lang).items())] if name in downloads else []
    if f"exercises/{name}" in names:
        links.append((f"exercises/{name}", "exercises"))
    if (chapter := re.match(r"0(\d)_", name)) and f"cards/chapter_{chapter[1]}.ipynb" in names:
        links.append((f"cards/chapter_{chapter[1]}.ipynb", "cards"))
    page = re.sub(r"^exercises/(.*?)(?:_solutions)?(?=\.ipynb)", r"\1", name)
    return [*links, (page, "chapter")] if page != name and page in names else links


def insert_info(notebook: dict[str, Any], links: list[tuple[str, str]], up: str, lang: str) -> None:
    """Put a line of links behind the front matter. Quarto must leave notebooks to download as they are, which are no pages."""
    more = {"notebook": " download data-noresolveinput"}
    made = [f'<a href="{"" if target.startswith("https:") else up}{target}"{more.get(what, "")}>{INFO[lang][what]}</a>' for target, what in links]
    text = f'```{{=html}}\n<p class="page-info">{" · ".join(made)}</p>\n```'
    notebook["cells"].insert(1, {"cell_type": "markdown", "id": "page-info", "metadata": {}, "source": text.splitlines(keepends=True)})


def write_downloads(folder: Path, lang: str) -> set[str]:
    """The notebooks that `bertcourse lab` hands out, in a new folder; returns their names.

    It lies beside the pages: a pattern such as `*.ipynb` in `project.render` takes whatever lies below.
    """
    notebooks = {name: handout.data for name, handout in handouts(lang).items() if name.endswith(".ipynb")}
    for name, data in notebooks.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_page(folder / name, hosted.with_install_cell(json.loads(data), lang))
    return set(notebooks)


# --- all of it -----------------------------------------------------------------------------------------------------


GENERATED = ("api/", "benchmarks/", "cards/", "exercises/")  # pages that no notebook in `nbs` is the source of


def hide_source(notebook: dict[str, Any]) -> None:
    """Let Quarto leave out "view source" and "report an issue", which would name a file that is not in the repository."""
    text = "".join(notebook["cells"][0]["source"]).rstrip()
    notebook["cells"][0]["source"] = f"{text.removesuffix('---')}repo-actions: false\n---\n".splitlines(keepends=True)


def rename_cells(notebook: dict[str, Any]) -> None:
    """Ids of cells become ids of elements, beside those of headings, which often have the same name."""
    for cell in notebook["cells"]:
        cell["id"] = f"cell-{cell['id']}"[:64]


def complete(folder: Path, downloads: Path, lang: str) -> None:
    """Give the processed pages of a language all that; the notebooks to download go into the folder `downloads`, which must not exist."""
    available = write_downloads(downloads, lang)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")}
    for name in sorted(names):
        notebook, linked, marked = read_page(folder / name), set(), set()
        up = "../" * name.count("/")
        set_address(notebook, Path(name).name)
        if not name.startswith(("api/", "exercises/", "cards/")):
            edit_markdown(notebook["cells"], lambda text, up=up, linked=linked: api.link_prose(text, up, linked))
        if re.match(r"\d", name):
            edit_markdown(notebook["cells"], lambda text, marked=marked: add_boxes(mark_terms(text, lang, marked)))
        if links := info_links(name, names, available, lang):
            insert_info(notebook, links, up, lang)
        if name.startswith(GENERATED):
            hide_source(notebook)
        rename_cells(notebook)
        write_page(folder / name, notebook)
