"""A view as HTML that needs nothing else: the script, the style, the words and the numbers are in it."""

from __future__ import annotations

import html
import json
import tomllib
from typing import Any

from bertcourse.assets import asset

PARTS = ("input", "masked", "attention", "states", "next")  # of a view, from top to bottom
STATIC_STYLE = "border:1px solid rgba(127,127,127,.35);padding:.1em .3em;text-align:center"
START = """
(() => {
  const here = document.currentScript.parentElement;
  const data = JSON.parse(here.querySelector('script[type="application/json"]').textContent);
  bertcourseView.mount(here.querySelector(".bert-view"), data.numbers, data.style, data.words);
})();
"""


def view_html(numbers: dict[str, Any], lang: str, live: bool = False) -> str:
    """An element that draws itself; where scripts do not run, a table of one head's weights stands there.

    numbers: from `inspect`; with "layer" and "head" (counted from 1) and "token" (from 0) for what is chosen at first.
    lang: "zh" or "en".
    live: let the course's site offer to load the model into this view.
    """
    data = {"numbers": numbers, "words": view_words(lang), "style": asset("inside/view.css").read_text(encoding="utf-8")}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    script = asset("inside/view.js").read_text(encoding="utf-8")
    return (f'<div><div class="bert-view"{" data-live" if live else ""}>{static_table(numbers, data["words"])}</div>\n'
            f'<script type="application/json">{safe}</script>\n<script>\n{script}{START}</script></div>')  # fmt: skip


def view_words(lang: str) -> dict[str, str]:
    """What the view says."""
    return {name: both[lang] for name, both in tomllib.loads(asset("inside/words.toml").read_text(encoding="utf-8")).items()}


def static_table(numbers: dict[str, Any], words: dict[str, str]) -> str:
    """The weights of the chosen head, for readers without scripts."""
    layer, head = numbers.get("layer", 1), numbers.get("head", 1)
    tokens = [html.escape(token) for token in numbers["tokens"]]
    top = "".join(f'<th scope="col" style="{STATIC_STYLE}">{token}</th>' for token in tokens)
    rows = []
    for token, weights in zip(tokens, numbers["attention"][layer - 1][head - 1]):
        cells = "".join(f'<td style="{STATIC_STYLE};background:rgba(0,158,115,{weight})">{weight:.2f}</td>' for weight in weights)
        rows.append(f'<tr><th scope="row" style="{STATIC_STYLE}">{token}</th>{cells}</tr>')
    title = words["heat"].format(l=layer, h=head)
    # Quarto would make a table of its own of it, and cut the scripts behind it off.
    return (f'<table data-quarto-disable-processing="true" style="border-collapse:collapse;font-size:.85em"><caption>{html.escape(title)}</caption>'
            f'<tr><td style="{STATIC_STYLE}"></td>{top}</tr>{"".join(rows)}</table>')  # fmt: skip
