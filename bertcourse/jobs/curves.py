"""The picture of a training, `curves.png`: a panel for each of loss, learning rate and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Points = tuple[Sequence[float], Sequence[float]]  # steps and values, as `History.column` gives them


@dataclass
class Panel:
    """One pair of axes."""

    label: str  # of the vertical axis
    lines: dict[str, Points] = field(default_factory=dict)  # name: points joined by a line
    dots: dict[str, Points] = field(default_factory=dict)  # name: points that are marked, too
    level: tuple[str, float | None] | None = None  # name and height of a dashed line
    limits: tuple[float, float] | None = None  # of the vertical axis
    steps: int | None = None  # where the horizontal axis ends

    def draw(self, ax: Any) -> None:
        """Draw it."""
        from matplotlib.ticker import MaxNLocator

        from bertcourse.plots import dress
        for name, points in self.lines.items():
            ax.plot(*points, label=name)
        for name, points in self.dots.items():
            ax.plot(*points, label=name, marker="o", markersize=4)
        if self.level and self.level[1] is not None and math.isfinite(self.level[1]):
            ax.axhline(self.level[1], color="#7f7f7f" if self.lines else "C1", linestyle="--", label=self.level[0])
        if len(self.lines) + len(self.dots) > 1 or self.level:
            ax.legend()
        dress(ax, "step", self.label).grid(axis="y")
        if self.steps:
            ax.set_xlim(0, self.steps * 1.03)
        if self.limits:
            ax.set_ylim(*self.limits)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw_curves(panels: Sequence[Panel], path: Path, width: float = 3.5) -> None:
    """Draw the panels beside each other, each `width` inches wide."""
    from matplotlib import pyplot

    from bertcourse.plots import axes, style
    figure, places = axes(1, len(panels), (width * len(panels), 3.0))
    with style():
        for panel, ax in zip(panels, places):
            panel.draw(ax)
        figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)
