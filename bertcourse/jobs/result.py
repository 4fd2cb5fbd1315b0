"""What jobs return."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertcourse.models.predictor import Predictor


@dataclass
class Trained:
    """A finished folder and what was measured; printed, it is the summary that the command prints."""

    folder: Path
    metrics: dict[str, Any]  # the content of `metrics.json`
    text: str = field(default="", repr=False)  # the summary

    def __repr__(self) -> str:
        return self.text

    @property
    def comparison(self) -> dict[str, Any]:
        """Of a distillation: scores, sizes and times of teacher and student."""
        return self.metrics["comparison"]

    def load(self) -> Predictor:
        """The model, ready to answer."""
        from bertcourse.models import load
        return load(str(self.folder))


@dataclass
class Exported:
    """An exported folder and how it compares with the checkpoint it came from."""

    folder: Path
    report: dict[str, Any]  # what `bertcourse export --json` prints
    text: str = field(default="", repr=False)  # the summary

    def __repr__(self) -> str:
        return self.text

    def load(self) -> Predictor:
        """The model, ready to answer."""
        from bertcourse.models import load
        return load(str(self.folder))
