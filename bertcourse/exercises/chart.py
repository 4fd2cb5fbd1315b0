"""The picture of a learner's progress, in HTML and for a terminal. Light: `bertcourse progress` imports it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from bertcourse.base.bilingual import Text
from bertcourse.base.display import printable
from bertcourse.base.text import wide
from bertcourse.exercises import state

GREEN, ORANGE, GREY = "#009E73", "#E69F00", "#7F7F7F"
MARKS = {state.SOLVED: ("●", GREEN), state.SHOWN: ("◉", GREEN), state.TRIED: ("◐", ORANGE), state.OPEN: ("○", GREY)}
STATES = {state.SOLVED: Text("已解出", "solved"), state.SHOWN: Text("看过解答后解出", "solved after seeing the solution"),
          state.TRIED: Text("试过", "tried"), state.OPEN: Text("未做", "open")}


SIZE, GAP = 16, 4  # of a square of the picture, in pixels


def _square(one: str, x: int, title: str) -> str:
    """An exercise as a square of an SVG: filled by its state, with a tick if solved, and a dot if the solution was seen before."""
    opacity = {state.OPEN: 0.18, state.TRIED: 0.9}.get(one, 1.0)
    tick = f'<path d="M{x + 4} 9l3 3 5-7" stroke="#fff" stroke-width="2" fill="none"/>' if one in (state.SOLVED, state.SHOWN) else ""
    dot = f'<circle cx="{x + SIZE - 3}" cy="3.5" r="3" fill="#E69F00"/>' if one == state.SHOWN else ""
    return (f'<g><title>{title}</title><rect x="{x}" y="1" width="{SIZE}" height="{SIZE}" rx="3" fill="{MARKS[one][1]}" '
            f'fill-opacity="{opacity}" stroke="{MARKS[one][1]}" stroke-opacity="0.5"/>{tick}{dot}</g>')


def _bar(row: state.Row, lang: str) -> str:
    """A strip of squares, one for each exercise, with its number and state as a tooltip."""
    squares = [_square(one, i * (SIZE + GAP), f"{id}: {STATES[one][lang]}") for i, (id, one) in enumerate(row.states.items())]
    width = len(squares) * (SIZE + GAP)
    return f'<svg width="{width}" height="{SIZE + 2}" role="img" aria-label="{row.solved}/{len(squares)}">{"".join(squares)}</svg>'


def _legend_html(lang: str) -> str:
    drawn = (f'<svg width="{SIZE + GAP}" height="{SIZE + 2}" aria-hidden="true" style="vertical-align:middle">{_square(one, 0, "")}</svg>{STATES[one][lang]}'
             for one in MARKS)
    return "".join(f'<span style="margin-right:1.2em;white-space:nowrap">{one}</span>' for one in drawn)


def _legend(lang: str) -> str:
    return "  ".join(f"{MARKS[one][0]} {STATES[one][lang]}" for one in MARKS)


def _place(path: Path, lang: str) -> str:
    """Where the progress lies; a file that is not there yet may be the wrong one."""
    name, is_there = printable(str(path)), path.exists()
    if lang == "zh":
        return f"进度文件：{name}" + ("" if is_there else "（还没有这个文件）")
    return f"Your progress: {name}" + ("" if is_there else " (not there yet)")


def progress_html(rows: Sequence[state.Row], path: Path, lang: str) -> str:
    """A table: notebook, a square for each exercise, how many are solved."""
    solved, count = sum(row.solved for row in rows), sum(len(row.states) for row in rows)
    head = f"<b>已解出 {solved} / {count}</b>" if lang == "zh" else f"<b>{solved} of {count} solved</b>"
    cell = 'style="padding:.2em .8em .2em 0;text-align:left;border:0;white-space:nowrap"'
    body = "".join(f'<tr style="background:none"><td {cell}>{html.escape(row.title[lang])}</td><td {cell}>{_bar(row, lang)}</td>'
                   f'<td {cell}>{row.solved} / {len(row.states)}</td></tr>' for row in rows)
    return f'{head}<div style="overflow-x:auto"><table style="border:0;margin:.4em 0">{body}</table></div><div style="opacity:.8;font-size:.9em">{_legend_html(lang)}<br>{html.escape(_place(path, lang))}</div>'


def progress_plain(rows: Sequence[state.Row], path: Path, lang: str) -> str:
    """The same for a terminal."""
    solved, count = sum(row.solved for row in rows), sum(len(row.states) for row in rows)
    widest = max(wide(row.title[lang]) for row in rows)
    lines = [f"已解出 {solved} / {count}" if lang == "zh" else f"{solved} of {count} solved"]
    for row in rows:
        title = row.title[lang]
        marks = "".join(MARKS[one][0] for one in row.states.values())
        lines.append(f"{title}{' ' * (widest - wide(title))}  {row.solved:>2}/{len(row.states):<2}  {marks}")
    return "\n".join([*lines, _legend(lang), _place(path, lang)])
