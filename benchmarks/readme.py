"""The tables of `README.md` in this folder, from what `deploy.py` and `serve.py` measured.

    python benchmarks/readme.py

Writes what stands between the markers anew; a test asks whether it is of the committed `deploy.json` and `serve.json`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def rows(heads: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *lines]) + "\n"


def by_shape(part: dict[str, Any], head: str = "") -> tuple[list[str], dict[str, list[str]]]:
    """Ratios of a part, a row for each variant, a column for each shape."""
    shapes, found = [], {}
    for name, row in part["ratios"].items():
        place, _, variant = name.partition(": ")
        if place.startswith(head):
            shapes += [place] * (place not in shapes)
            found.setdefault(variant, {})[place] = f"{row['wall']:.2f}"
    return [place.removeprefix(head) for place in shapes], {name: [cells.get(place, "") for place in shapes] for name, cells in found.items()}


def goals(found: Any, name: str = "") -> Iterator[list[str]]:
    """Every goal in the figures: what, goal, reached, met."""
    if not isinstance(found, dict):
        return
    if found.get("met") is not None:
        value = found.get("wall", found.get("MB", found.get("points")))
        yield [name, found["goal"], f"{value:.2f}", "met" if found["met"] else "**missed**"]
        return
    for key, value in found.items():
        yield from goals(value, key if key not in ("ratios", "shares") else name)


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The tables by marker."""
    parts, machine = found["parts"], found["machine"]
    made = {"machine": f"{machine['cpu']}, {found['settings']['rounds']} interleaved rounds, {found['date']}, torch {machine['torch']}.\n"}
    for count in found["settings"]["counts"]:
        head = f"{count} thread{'s' * (count > 1)}, "
        shapes, lines = by_shape(parts["speed"], head)
        megabytes = parts["speed"]["megabytes"]
        made[f"speed{count}"] = rows([f"{count} thread{'s' * (count > 1)}", *shapes, "MB"],
                                     [[name, *cells, f"{megabytes[name]:.1f}" if name in megabytes else ""] for name, cells in lines.items()])  # fmt: skip
    shapes, lines = by_shape(parts["tried"])
    made["tried"] = rows(["", *shapes], [[name, *cells] for name, cells in lines.items()])
    profile = parts["speed"]["ms by operator"]
    names = list(dict.fromkeys(name for column in profile.values() for name in column))
    made["operators"] = rows(["milliseconds", *profile], [[name, *(f"{column[name]:.2f}" if name in column else "" for column in profile.values())]
                                                          for name in names])  # fmt: skip
    scores = parts["accuracy"]["scores"]
    made["accuracy"] = rows(["task", "metric", "FP32", "INT8", "answers the same", "rows"],
                            [[name, s["metric"], f"{s['before'][s['metric']]:.4f}", f"{s['after'][s['metric']]:.4f}", "–" if s["agree"] is None else f"{s['agree']:.1%}", f"{s['rows']:,}"]
                             for name, s in scores.items()])  # fmt: skip
    made["goals"] = rows(["", "goal", "reached", ""], list(goals(parts)))
    return made


def served(found: dict[str, Any]) -> dict[str, str]:
    """The tables of `serve.json`."""
    parts, machine = found["parts"], found["machine"]
    made = {"servemachine": f"{machine['cpu']}, {found['settings']['rounds']} interleaved rounds, {found['date']}.\n"}
    for name in ("ladder", "peers"):
        part = parts[name]
        made[name] = rows(["", "ms of CPU for a request", "requests a second"],
                          [[arm, f"{part['ms_of_cpu'][arm]:,.1f}", f"{row['per_s']:,.0f}"] for arm, row in part["arms"].items()])  # fmt: skip
    made["servegoals"] = rows(["", "goal", "reached", ""], list(goals(parts["service"])))
    return made


def written(text: str, found: dict[str, Any], service: dict[str, Any]) -> str:
    """The page with the tables of these figures, of `deploy.json` and `serve.json`. Raises `KeyError` for a marker that has none."""
    made = tables(found) | served(service)
    return MARK.sub(lambda mark: mark[1] + "\n" + made[mark[2]] + "\n" + mark[3], text)


def main() -> int:
    """Write the page."""
    page = HERE / "README.md"
    stored = (json.loads((HERE / name).read_text(encoding="utf-8")) for name in ("deploy.json", "serve.json"))
    text = written(page.read_text(encoding="utf-8"), *stored)
    partial = page.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
