"""The pictures of the benchmarks: dots with intervals, in the course's colours, as SVG that reads on light and dark pages."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache

import numpy as np
from benchmark_rows import Panels, Point, Section
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bertcourse.plots import PALETTE, Figure, axes, dress, style

GREY = "#7f7f7f"
COLOURS = [PALETTE[i] for i in (0, 5, 2, 3, 1)]  # blue, vermilion, green, purple, orange: apart on light and on dark
STEP = 0.13  # inches of a series in a row


def series_of(panels: Panels) -> list[str]:
    """The series, in the order of the fullest row."""
    rows = sorted((list(row) for rows in panels.values() for row in rows.values()), key=lambda row: -len(row))
    return list(dict.fromkeys(name for row in rows for name in row))


def rows_of(panels: Panels) -> list[str]:
    """The rows, likewise."""
    return list(dict.fromkeys(name for rows in panels.values() for name in rows))


def ticks(low: float, high: float) -> Sequence[float]:
    """Plain numbers on a logarithmic axis: 1, 2, 5, or finer ones where both ends are near each other."""
    if high / low < 2.5:
        return [value for value in MaxNLocator(5).tick_values(low, high) if low <= value <= high]
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 60 else (1, 3) if high / low < 300 else (1,)
    return [step * power for power in powers for step in steps if low <= step * power <= high]


def draw_panel(ax, rows: dict[str, dict[str, Point]], names: Sequence[str], series: Sequence[str]) -> None:
    """Dots and lines of one panel."""
    gap = 0.72 / max(len(series), 1)
    for i, name in enumerate(names):
        if i % 2 == 0:
            ax.axhspan(i - 0.5, i + 0.5, color=GREY, alpha=0.07, linewidth=0)
        for j, kind in enumerate(series):
            if not (point := rows.get(name, {}).get(kind)):
                continue
            y, colour = i + (j - (len(series) - 1) / 2) * gap, COLOURS[j]
            ax.plot([point.low, point.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt")
            ax.plot([point.value], [y], ">" if point.open else "o", color=colour, markersize=6 if point.open else 4, markeredgewidth=0)


def scale(ax, values: Sequence[float], log: bool) -> None:
    """Ends and ticks of the axis."""
    low, high = min(values), max(values)
    if not log:
        ax.margins(x=0.1)
        if all(float(value).is_integer() for value in values):  # counts
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    room = (high / low) ** 0.06
    ax.set_xscale("log")
    ax.set_xlim(low / room, high * room)
    ax.xaxis.set_major_locator(FixedLocator(ticks(low / room, high * room)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def lines_of(panels: Panels) -> list[Panels]:
    """Two panels beside each other, at most."""
    titles = list(panels)
    return [{title: panels[title] for title in titles[i : i + 2]} for i in range(0, len(titles), 2)]


def draw_line(axs, panels: Panels, series: Sequence[str], section: Section, ends: Sequence[float]) -> None:
    """Panels beside each other, with the same rows."""
    names = rows_of(panels)
    for ax, (title, rows) in zip(axs, panels.items(), strict=True):
        draw_panel(ax, rows, names, series)
        scale(ax, ends, section.log)
        dress(ax, title=title).grid(axis="x")
        ax.tick_params(axis="y", length=0)
        if section.line:
            ax.axvline(section.line[0], color=GREY, linewidth=1.1, linestyle="--")
    axs[0].set_yticks(range(len(names)), names)
    axs[0].set_ylim(len(names) - 0.5, -0.5)


@cache
def picture(section: Section) -> str:
    """SVG with rows from top to bottom and a colour for each series; both languages have the same."""
    lines, series = lines_of(section.panels), series_of(section.panels)
    heights = [0.35 + len(rows_of(panels)) * max(0.26, 0.06 + STEP * len(series)) for panels in lines]
    columns = max(map(len, lines))
    figure, axs = axes(
        len(lines), columns, (8.8 if columns > 1 else 7.2, 0.7 + sum(heights)), squeeze=False, sharey="row", height_ratios=heights
    )
    ends = [end for rows in section.panels.values() for row in rows.values() for point in row.values() for end in (point.low, point.high)]
    ends += [section.line[0]] if section.line else []
    with style():
        for some, panels in zip(axs, lines, strict=True):
            draw_line(some, panels, series, section, ends)
        figure.supxlabel(section.xlabel, fontsize=9.5)
        legend(figure, section, series)
    return Figure(figure).picture


def legend(figure, section: Section, series: Sequence[str]) -> None:
    """What the colours and the dashed line mean, above the picture."""
    marks = [Line2D([], [], marker="o", linestyle="-", linewidth=1.4, markersize=4, color=colour, label=name)
             for name, colour in zip(series, COLOURS, strict=False)] if len(series) > 1 else []  # fmt: skip
    if section.line:
        marks.append(Line2D([], [], color=GREY, linewidth=1.1, linestyle="--", label=section.line[1]))
    if marks:
        figure.legend(handles=marks, loc="outside upper center", ncols=min(len(marks), 5), columnspacing=1.4, handlelength=1.6)


def framed(svg: str, alt: str, caption: str) -> str:
    """The SVG with its description for a screen reader and its caption."""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
    return f'<figure style="margin:.6em 0;overflow-x:auto">{svg}<figcaption>{html.escape(caption, quote=False)}</figcaption></figure>'
