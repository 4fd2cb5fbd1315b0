"""What the pages of the benchmarks are made of: recordings (`benchmarks/*.json`), ratios with intervals, tables, sections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTEL = re.compile(r"Intel\(R\) Xeon\(R\) Processor ")  # a name that is too long for a picture
WALL, CPU = 1, 2  # places in a sample, behind the amount of work


class Damaged(Exception):
    """A recording that cannot be shown, or a text that no longer fits it; the text is the whole message."""


# --- recordings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One file."""

    name: str  # of the file
    found: dict[str, Any]

    @property
    def cpu(self) -> str:
        """The processor."""
        return self.found["machine"]["cpu"]

    @property
    def short(self) -> str:
        """The processor, as a picture names it."""
        return INTEL.sub("Xeon ", self.cpu)

    def arms(self, part: str) -> dict[str, Any]:
        """What was compared in a part."""
        return self.found["parts"][part]["arms"]


def read(path: Path) -> Recording:
    """A recording. Raises `Damaged` where the file cannot be read, or does not say when and on which processor it was measured."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(f"benchmarks/{path.name} is missing, and a page shows it: restore the file") from None
    except ValueError as error:
        raise Damaged(f"benchmarks/{path.name} is not JSON ({error}): restore the file") from None
    machine = found.get("machine") if isinstance(found, dict) else None
    if not isinstance(machine, dict) or not machine.get("cpu"):
        raise Damaged(f"benchmarks/{path.name} does not name the processor (machine.cpu): measure again")
    if not found.get("date"):
        raise Damaged(f"benchmarks/{path.name} does not say when it was measured (date): measure again")
    return Recording(path.name, found)


def recordings(folder: Path, stem: str) -> list[Recording]:
    """All recordings of a benchmark: `stem.json`, then those on other processors, `stem-PROCESSOR.json`."""
    return [read(path) for path in (folder / f"{stem}.json", *sorted(folder.glob(f"{stem}-*.json")))]


# --- what a section shows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A dot and its interval."""

    value: float
    low: float
    high: float
    open: bool = False  # the value is at least this large: the run was ended


Panels = dict[str, dict[str, dict[str, Point]]]  # title → row → series
Words = str | tuple[str, str]  # the same in both languages, or Chinese and English


@dataclass(frozen=True)
class Table:
    """Heads are keys of `heads` in `benchmark_pages.toml` or stand for themselves."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """All of it. `panels` is empty where a table says enough."""

    tables: list[Table]
    values: dict[str, Words]
    holds: dict[str, bool]
    panels: Panels = field(default_factory=dict)
    xlabel: str = ""
    line: tuple[float, str] | None = None  # a dashed line, and what it is
    log: bool = True


def ratio(arms: Mapping[str, Any], of: str, to: str, place: int = WALL) -> Point:
    """How many times as fast one arm is as another: of the medians, and between which values it lies in single rounds."""
    key = "per_s" if place == WALL else "per_cpu_s"
    rounds = [(a[0] / a[place]) / (b[0] / b[place]) for a, b in zip(arms[of]["samples"], arms[to]["samples"], strict=True)]
    value = arms[of][key] / arms[to][key]
    return Point(value, min(value, *rounds), max(value, *rounds))


def single(value: float, open: bool = False) -> Point:
    """A value that was measured once."""
    return Point(value, value, value, open)


def span(values: Iterable[float], form: str = ".2f") -> Words:
    """`2.08 to 3.12`, in both languages."""
    ordered = sorted(values)
    ends = [format(end, form) for end in (ordered[0], ordered[-1])]
    return " 到 ".join(ends), " to ".join(ends)


def times(points: Iterable[Point], digits: int = 2) -> Words:
    """The smallest and the largest ratio."""
    return span((point.value for point in points), f".{digits}f")


def by_shape(arms: Mapping[str, Any], baseline: str, head: str = "") -> dict[str, dict[str, Point]]:
    """Ratios to the baseline: variant → shape, of arms that are called `HEAD SHAPE: VARIANT`."""
    found: dict[str, dict[str, Point]] = {}
    for name in arms:
        shape, _, variant = name.removeprefix(head).partition(": ")
        if name.startswith(head) and variant != baseline:
            found.setdefault(variant, {})[shape] = ratio(arms, name, f"{head}{shape}: {baseline}")
    return found


def shape_table(rows: Mapping[str, Mapping[str, Point]], title: str, more: Mapping[str, Mapping[str, str]] | None = None) -> Table:
    """Ratios, a column for each shape; `more` are columns of texts behind them."""
    shapes, more = list(dict.fromkeys(shape for row in rows.values() for shape in row)), more or {}
    lines = [
        [name, *(f"{row[shape].value:.2f}" for shape in shapes), *(column.get(name, "") for column in more.values())]
        for name, row in rows.items()
    ]
    return Table(["variant", *shapes, *more], lines, title)


def short(value: float) -> str:
    """A ratio with three digits at least."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def cpu_gap(arms: Mapping[str, Any], pairs: Iterable[tuple[str, str]]) -> str:
    """By how much a ratio of CPU times differs from that of wall times, at most."""
    gaps = [abs(ratio(arms, of, to, CPU).value / ratio(arms, of, to).value - 1) for of, to in pairs]
    return f"{max(gaps):.1%}"
