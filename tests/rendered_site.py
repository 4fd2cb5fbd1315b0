"""A small site as Quarto renders one, in two languages, without a fault; tests plant faults in it."""

import json
import struct
import zlib
from pathlib import Path

from checks.reading import ROOT

SWITCH = (ROOT / "nbs/language-switch.html").read_text(encoding="utf-8")
PAGE = """<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><title>{title}</title><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{up}dot.png"><link rel="stylesheet" href="{up}site_libs/page.css"><meta name="quarto:offset" content="{up}">
<link rel="canonical" href="https://bertcourse.github.io/bertcourse/{lang}/{name}"><meta property="og:image" content="https://bertcourse.github.io/bertcourse/{lang}/dot.png"></head>
<body><header><div id="quarto-search"></div><div class="quarto-navbar-tools"></div></header><main class="content"><h1 class="title">{title}</h1>
<section id="one" class="level2"><h2>1</h2><p style="height: 70vh">{text} <a href="{up}index.html#two">two</a> <a href="https://a.org">elsewhere</a> <a href="mailto:a@a.org">mail</a>
<img src="{up}dot.png" alt="a dot"></p></section>
<section id="two" class="level2"><h2>2</h2><p>the second</p><section id="three" class="level3"><h3>3</h3><p>last</p></section></section>
<!-- here --></main>{switch}<script src="{up}site_libs/search.js"></script></body></html>"""
CSS = """html { color-scheme: light dark; background: Canvas; color: CanvasText } main { max-width: 40em } a:link { color: LinkText } @font-face { font-family: x; src: url("data:font/woff2;base64,") }"""
# What tools/site_browser.py sees of Quarto's search: the field, results with `q` in their addresses, the note that there are none.
SEARCH = """
const place = document.getElementById("quarto-search"), offset = document.querySelector("meta[name='quarto:offset']").content;
place.innerHTML = '<input class="aa-Input" aria-label="search"><div class="results"></div>';
place.querySelector("input").addEventListener("input", async ({ target }) => {
  const entries = await (await fetch(offset + "search.json")).json(), term = target.value;
  const found = term ? entries.filter((entry) => (entry.title + entry.text).includes(term)) : [];
  place.querySelector(".results").innerHTML = found.map(({ href, title }) =>
    `<div class="search-result-doc"><a class="search-result-link" href="${offset}${href.replace(/#|$/, "?q=" + encodeURIComponent(term) + "$&")}">${title}</a></div>`).join("")
    || `<div class="quarto-search-no-results${term ? "" : " no-query"}"></div>`;
});
"""
DOOR = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>door</title></head><body><main><h1>door</h1><a href="zh/index.html">zh</a> <a href="en/index.html">en</a></main>
<script>location.replace((navigator.language.startsWith("zh") ? "zh" : "en") + "/index.html")</script></body></html>"""
WORDS = {"zh": "剪枝 pruning", "en": "quantisation quantization"}
SETTINGS = """samples = ["index.html"]
switch = ["more/a.html"]
weight = {limit = 20_000, shared = 2}
term = [{lang = "zh", term = "剪枝", pages = ["more/a.html"]}, {lang = "en", term = "quantization", pages = ["more/a.html"]}]
"""


def dot() -> bytes:
    """A picture of one pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + part(b"IDAT", zlib.compress(b"\0\0")) + part(b"IEND", b"")


def write(folder: Path) -> Path:
    """Write the site with its settings (`settings.toml` beside it); returns its folder."""
    site = folder / "_docs"
    for lang in ("zh", "en"):
        (site / lang / "more").mkdir(parents=True)
        (site / lang / "site_libs").mkdir()
        (site / lang / "dot.png").write_bytes(dot())
        (site / lang / "site_libs/page.css").write_text(CSS)
        (site / lang / "site_libs/search.js").write_text(SEARCH)
        for name in ("index.html", "more/a.html"):
            text = PAGE.format(lang=lang, name=name, title=name, up="../" * name.count("/"), text=WORDS[lang], switch=SWITCH)
            (site / lang / name).write_text(text, encoding="utf-8")
        entries = [{"objectID": href, "href": href, "title": "a", "section": "1", "text": WORDS[lang]} for href in ("more/a.html#one", "more/a.html")]
        (site / lang / "search.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    (site / "index.html").write_text(DOOR, encoding="utf-8")
    (site / "404.html").write_text(DOOR.partition("<script>")[0], encoding="utf-8")
    (site / "sitemap.xml").write_text("<urlset><url><loc>https://bertcourse.github.io/bertcourse/en/more/a.html</loc></url></urlset>")
    (folder / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    return site


def plant(page: Path, html: str, before: str = "<!-- here -->") -> None:
    """Put HTML into a page."""
    text = page.read_text(encoding="utf-8")
    assert before in text
    page.write_text(text.replace(before, html + before, 1), encoding="utf-8")
