"""What can be checked in the rendered site without a browser: links, anchors, what pages load, the twin of each page, weight."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from bertcourse.languages import LANGUAGES

# Attributes whose file is loaded with the page, and values of `rel` that load it.
LOADING = {
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "script": ("src",),
    "iframe": ("src",),
    "audio": ("src",),
    "track": ("src",),
    "embed": ("src",),
    "input": ("src",),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
LOADING_RELS = {"stylesheet", "icon", "apple-touch-icon", "manifest", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch"}
PREVIEWS = {"og:image", "twitter:image"}
CSS_URL = re.compile(r"url\(\s*[\"']?([^\"')]+)[\"']?\s*\)|@import\s+[\"']([^\"']+)[\"']")
PACKED = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".woff", ".woff2", ".bin", ".zip"}  # a server sends them as they are


class Finding(NamedTuple):
    """Something wrong: the name of the check, the page, what is wrong, and where on the page."""

    check: str
    page: str
    what: str
    where: str


class Page(HTMLParser):
    """What a page holds: anchors, sections (level and anchor), links, and what is loaded with it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: set[str] = set()
        self.sections: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self._in_style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element refers to."""
        attributes = {name: value or "" for name, value in attrs}
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name) and (name == "id" or tag == "a")}
        if tag == "section" and (level := re.search(r"\blevel[2-6]\b", attributes.get("class", ""))):
            self.sections.append((level[0], attributes.get("id", "")))
        self.loads += css_urls(attributes.get("style", ""))
        self._in_style = tag == "style"
        if tag in ("a", "area") and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag == "link" and "href" in attributes:
            (self.loads if LOADING_RELS & {*attributes.get("rel", "").lower().split()} else self.links).append(attributes["href"])
        elif tag == "meta" and {attributes.get("property"), attributes.get("name")} & PREVIEWS:
            self.links.append(attributes.get("content", ""))
        for name in LOADING.get(tag, ()):
            self.loads += (srcset(attributes[name]) if name == "srcset" else [attributes[name]]) if attributes.get(name) else []

    def handle_endtag(self, tag: str) -> None:
        """The end of a style sheet in the page."""
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        """Note what a style sheet in the page loads."""
        if self._in_style:
            self.loads += css_urls(data)


def css_urls(text: str) -> list[str]:
    """What a style sheet loads, but for data in the address itself."""
    found = [first or second for first, second in CSS_URL.findall(text)]
    return [url.strip() for url in found if not url.strip().startswith(("data:", "#"))]


def srcset(text: str) -> list[str]:
    """The addresses in a list of pictures of several sizes."""
    return [] if text.strip().startswith("data:") else [part.split()[0] for part in text.split(",") if part.strip()]


class Target(NamedTuple):
    """Where an address leads. `kind`: "file" of the site, "outside" of its folder on its host, "foreign" host, or "other", such as mail."""

    kind: str
    path: str
    anchor: str


@dataclass
class Site:
    """A rendered site in a folder, published at an address; pages by their path from the folder."""

    folder: Path
    address: str
    sheets: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def pages(self) -> dict[str, Page]:
        """All pages, read."""
        paths = [path for path in sorted(self.folder.rglob("*.html")) if not {"site_libs", "live"} & {*path.relative_to(self.folder).parts}]
        return {path.relative_to(self.folder).as_posix(): Page(path.read_text(encoding="utf-8", errors="replace")) for path in paths}

    @property
    def languages(self) -> list[str]:
        """The languages that were rendered."""
        return [lang for lang in LANGUAGES if (self.folder / lang / "index.html").is_file()]

    def pages_of(self, lang: str) -> dict[str, Page]:
        """The pages of a language, by their path in its folder."""
        return {name.removeprefix(f"{lang}/"): page for name, page in self.pages.items() if name.startswith(f"{lang}/")}

    def target(self, base: str, url: str) -> Target:
        """Where an address leads that stands in a file of the site."""
        whole = urljoin(f"{self.address}/{base}", url.strip())
        plain, _, anchor = whole.partition("#")
        plain = plain.partition("?")[0]
        if not re.match(r"(?:https?|wss?):", whole):
            return Target("other", whole, "")
        if plain == self.address or plain.startswith(f"{self.address}/"):
            return Target("file", self.file(unquote(plain[len(self.address) + 1 :])), unquote(anchor))
        return Target("outside" if urlsplit(whole).netloc == urlsplit(self.address).netloc else "foreign", whole, "")

    def file(self, path: str) -> str:
        """The file that a server gives for a path: that of a folder is its index.html."""
        return f"{path.rstrip('/')}/index.html".lstrip("/") if path in ("", "/") or (self.folder / path).is_dir() else path

    def exists(self, path: str) -> bool:
        """Is there such a file?"""
        return (self.folder / path).is_file()

    def loads_of_sheet(self, path: str) -> list[str]:
        """What a style sheet loads, as addresses."""
        if path not in self.sheets:
            self.sheets[path] = css_urls((self.folder / path).read_text(encoding="utf-8", errors="replace"))
        return self.sheets[path]


# --- links ---------------------------------------------------------------------------------------------------------


def check_links(site: Site) -> list[Finding]:
    """Everything that pages link to or load must be there, and nothing may be loaded from elsewhere."""
    found = [finding for name, page in site.pages.items() for finding in page_findings(site, name, page)]
    for sheet in sorted({path for files in files_by_page(site).values() for path in files if path.endswith(".css")}):
        found += [finding for url in site.loads_of_sheet(sheet) for finding in load_findings(site, sheet, url)]
    return found + index_findings(site) + map_findings(site)


def page_findings(site: Site, name: str, page: Page) -> Iterator[Finding]:
    """What is wrong with the links of a page."""
    for url in dict.fromkeys(page.links):
        yield from link_findings(site, name, url)
    for url in dict.fromkeys(page.loads):
        yield from load_findings(site, name, url)


def link_findings(site: Site, name: str, url: str) -> Iterator[Finding]:
    """What is wrong with a link; those to other sites are not followed."""
    target = site.target(name, url)
    if target.kind == "outside":
        yield Finding("links", name, "link out of the site's folder", url)
    elif target.kind == "file" and not site.exists(target.path):
        yield Finding("links", name, "link to a missing file", url)
    elif target.kind == "file" and target.anchor and not has_anchor(site, target):
        yield Finding("links", name, "link to a missing anchor", url)


def has_anchor(site: Site, target: Target) -> bool:
    """Is the anchor on the page? Every page has a top; what is no page is not looked into."""
    page = site.pages.get(target.path)
    return page is None or target.anchor == "top" or target.anchor.startswith(":~:") or target.anchor in page.anchors


def load_findings(site: Site, name: str, url: str) -> Iterator[Finding]:
    """What is wrong with a picture, script or style sheet."""
    target = site.target(name, url)
    if target.kind in ("outside", "foreign"):
        yield Finding("links", name, "request that leaves the site", url)
    elif target.kind == "file" and not site.exists(target.path):
        yield Finding("links", name, "missing picture, script or style sheet", url)


def index_findings(site: Site) -> list[Finding]:
    """What is wrong with the addresses in the search index of each language."""
    found = []
    for lang in site.languages:
        index = site.folder / lang / "search.json"
        if not index.is_file():
            found.append(Finding("links", f"{lang}/search.json", "missing", ""))
            continue
        for entry in json.loads(index.read_text(encoding="utf-8")):
            found += link_findings(site, f"{lang}/search.json", entry["href"])
    return found


def map_findings(site: Site) -> list[Finding]:
    """What is wrong with the addresses in the map of the site."""
    path = site.folder / "sitemap.xml"
    places = re.findall(r"<loc>(.*?)</loc>", path.read_text(encoding="utf-8")) if path.is_file() else []
    return [finding for place in places for finding in link_findings(site, "sitemap.xml", place)]


# --- twins ---------------------------------------------------------------------------------------------------------


def check_twins(site: Site) -> list[Finding]:
    """Each page must be there in both languages, with the same anchors of sections."""
    if len(site.languages) < 2:
        return []
    first, second = site.languages
    both = {lang: site.pages_of(lang) for lang in (first, second)}
    found = []
    for here, there in ((first, second), (second, first)):
        for name, page in both[here].items():
            if name not in both[there]:
                found.append(Finding("twins", f"{here}/{name}", f"no such page in {there}", name))
                continue
            missing = [anchor for level, anchor in page.sections if (level, anchor) not in both[there][name].sections]
            found += [Finding("twins", f"{here}/{name}", f"no such heading in {there}", f"#{anchor}") for anchor in missing]
    return found


# --- weight --------------------------------------------------------------------------------------------------------


def files_by_page(site: Site) -> dict[str, set[str]]:
    """The files of the site that each page loads, with what its style sheets load."""
    return {name: {path for url in page.loads for path in with_sheets(site, name, url)} for name, page in site.pages.items()}


def with_sheets(site: Site, base: str, url: str) -> set[str]:
    """The file at an address, if it is the site's, and what it loads if it is a style sheet."""
    found, waiting = set(), [site.target(base, url)]
    while waiting:
        target = waiting.pop()
        if target.kind == "file" and target.path not in found and site.exists(target.path):
            found.add(target.path)
            if target.path.endswith(".css"):
                waiting += [site.target(target.path, more) for more in site.loads_of_sheet(target.path)]
    return found


@cache
def packed_size(path: Path) -> int:
    """Bytes of a file on the wire: compressed by gzip, unless its format is compressed already."""
    data = path.read_bytes()
    return len(data) if path.suffix.lower() in PACKED else len(gzip.compress(data, 6, mtime=0))


def weights(site: Site, files: dict[str, set[str]], shared: int) -> dict[str, int]:
    """Bytes on the wire of each page and of the files that at most `shared` pages load."""
    count = Counter(path for paths in files.values() for path in paths)
    own = {name: {path for path in files.get(name, ()) if count[path] <= shared and path != name} for name in site.pages}
    return {name: sum(packed_size(site.folder / path) for path in {name, *paths}) for name, paths in own.items()}


def check_weight(found: dict[str, int], limit: int, heavier: dict[str, int]) -> list[Finding]:
    """Pages over the limit (bytes), or over one of their own in `heavier`; a limit that no page needs is wrong, too."""
    over = [(name, size) for name, size in sorted(found.items()) if size > heavier.get(name, limit)]
    findings = [Finding("weight", name, f"{size / 1000:.0f} kB of at most {heavier.get(name, limit) / 1000:.0f}", "") for name, size in over]
    idle = [name for name in heavier if found.get(name, 0) <= limit]
    return findings + [Finding("weight", name, "needs no limit of its own", "heavier, in the settings") for name in idle]


# --- the search index ----------------------------------------------------------------------------------------------


def check_index(site: Site, terms: Iterable[dict]) -> list[Finding]:
    """The index must hold each term on one of the pages where it is expected."""
    found = []
    for term in terms:
        index = site.folder / term["lang"] / "search.json"
        if term["lang"] not in site.languages or not index.is_file():
            continue
        entries = json.loads(index.read_text(encoding="utf-8"))
        with_term = {e["href"].partition("#")[0] for e in entries if term["term"].lower() in f"{e['title']} {e['section']} {e['text']}".lower()}
        if not with_term & {*term["pages"]}:
            found.append(Finding("search", f"{term['lang']}/search.json", f"{term['term']} is not on {' or '.join(term['pages'])}", "search.json"))
    return found
