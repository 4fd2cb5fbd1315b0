"""What is done to the rendered site: links between the languages, a map for search engines, a page for wrong addresses, synonyms in the search."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from page_parts import page_address

from bertcourse.base.text import HAN
from bertcourse.languages import LANGUAGES, Term, glossary

SITE = "https://bertcourse.github.io/bertcourse"
CHAPTERS = {page_address(path.name) for path in (Path(__file__).resolve().parents[1] / "nbs").glob("0[1-7]_*.ipynb")}
CODES = {"zh": "zh-Hans", "en": "en"}  # as hreflang has them


def pages(out: Path, lang: str) -> list[str]:
    """The pages of a language, relative to its folder."""
    return sorted(path.relative_to(out / lang).as_posix() for path in (out / lang).rglob("*.html") if "site_libs" not in path.parts)


def address(site: str, lang: str, page: str) -> str:
    """Where a page is published; a folder's own page by its folder."""
    return f"{site}/{lang}/" + re.sub(r"(?:^|(?<=/))index\.html$", "", page)


def add_alternates(out: Path, site: str) -> None:
    """Tell search engines of each page's address and of its twin."""
    there = {lang: set(pages(out, lang)) for lang in LANGUAGES if (out / lang).is_dir()}
    for lang, names in there.items():
        for page in names:
            path = out / lang / page
            text = path.read_text(encoding="utf-8")
            links = [] if 'rel="canonical"' in text else [f'<link rel="canonical" href="{address(site, lang, page)}">']
            for other in there:
                if page in there[other]:
                    links.append(f'<link rel="alternate" hreflang="{CODES[other]}" href="{address(site, other, page)}">')
            path.write_text(text.replace("</head>", "\n".join([*links, "</head>"]), 1), encoding="utf-8")


def write_map(out: Path, site: str) -> None:
    """`sitemap.xml` of both languages, each page with its twin, and `robots.txt` that names it."""
    there = {lang: set(pages(out, lang)) for lang in LANGUAGES if (out / lang).is_dir()}
    entries = []
    for lang, names in there.items():
        for page in sorted(names):
            twins = "".join(f'<xhtml:link rel="alternate" hreflang="{CODES[other]}" href="{address(site, other, page)}"/>'
                            for other in there if page in there[other])  # fmt: skip
            entries.append(f"<url><loc>{address(site, lang, page)}</loc>{twins}</url>")
        (out / lang / "sitemap.xml").unlink(missing_ok=True)
    head = '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:xhtml="http://www.w3.org/1999/xhtml">'
    (out / "sitemap.xml").write_text('<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join([head, *entries, "</urlset>"]) + "\n", encoding="utf-8")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {site}/sitemap.xml\n", encoding="utf-8")


def write_not_found(out: Path, site: str) -> None:
    """`404.html`, which the server sends for every wrong address; its links are whole, as it may stand anywhere."""
    (out / "404.html").write_text(f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>没有这一页 | No such page</title>
<style>html {{ background: Canvas; color: CanvasText }} body {{ font: 1.2rem/1.8 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1em }}</style>
<main>
<h1>404</h1>
<p lang="zh">这里没有页面。请从<a href="{site}/zh/index.html">目录</a>开始，或者用那里的搜索。</p>
<p>There is no page here. Begin with the <a href="{site}/en/index.html">contents</a>, or use the search there.</p>
</main>
</html>
""", encoding="utf-8")  # fmt: skip


# --- search --------------------------------------------------------------------------------------------------------


def synonyms(term: Term, lang: str) -> tuple[str, list[str]]:
    """How a term is written in a language, and what else people search for."""
    words = [term.en, term.american, term.abbreviation, *([term.zh] if lang == "zh" else [])]
    own = term.zh if lang == "zh" else term.en
    return own, [word for word in dict.fromkeys(words) if word and word != own]


def has_word(text: str, word: str) -> bool:
    """Does a text hold a word? A Chinese one anywhere, others as words."""
    if re.search(f"[{HAN}]", word):
        return word in text
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def add_synonyms(path: Path, lang: str) -> int:
    """Let a section be found by other names of the terms it speaks of (`search.json` of Quarto); returns how many sections have more now."""
    sections = json.loads(path.read_text(encoding="utf-8"))
    changed = 0
    for section in sections:
        text = f"{section.get('title', '')} {section.get('section', '')} {section.get('text', '')}"
        more = [word for term in glossary() if has_word(text, (found := synonyms(term, lang))[0]) for word in found[1] if not has_word(text, word)]
        if more:
            section["text"] = f"{section.get('text', '')}\n({', '.join(dict.fromkeys(more))})"
            changed += 1
    path.write_text(json.dumps(sections, ensure_ascii=False), encoding="utf-8")
    return changed


def add_terms(path: Path, lang: str, chapters: set[str]) -> int:
    """Let each term of the glossary be found with its definition: an entry in the index that leads to the section about it.

    That is a chapter's section with the term in its heading, or else the one that mentions it most. Returns the number of
    entries. Without them a term leads to short pages first, since the search ranks a match in a short text higher.
    """
    sections = json.loads(path.read_text(encoding="utf-8"))
    prose = [section for section in sections if section["href"].partition("#")[0] in chapters]
    entries = [entry for term in glossary() if (entry := term_entry(term, prose, lang))]
    path.write_text(json.dumps([*entries, *sections], ensure_ascii=False), encoding="utf-8")
    return len(entries)


def term_entry(term: Term, prose: list[dict[str, Any]], lang: str) -> dict[str, Any] | None:
    """The entry of a term; None where no section mentions it."""
    name, others = synonyms(term, lang)

    def mentions(section: dict[str, Any]) -> tuple[bool, int]:
        return any(has_word(section["section"], word) for word in (name, *others)), section["text"].lower().count(name.lower())

    best = max(prose, key=mentions, default=None)
    if best is None or mentions(best) == (False, 0):
        return None
    shown = f"{name} ({', '.join(others)})" if others else name
    definition = term.definition_zh if lang == "zh" else term.definition_en
    return best | {"objectID": f"{best['objectID']}?{term.en}", "section": shown, "text": html.escape(definition)}


def finish(out: Path, site: str) -> None:
    """All of it, for the languages that are there."""
    add_alternates(out, site)
    write_map(out, site)
    write_not_found(out, site)
    for lang in LANGUAGES:
        if (out / lang / "search.json").is_file():
            add_synonyms(out / lang / "search.json", lang)
            add_terms(out / lang / "search.json", lang, CHAPTERS)
