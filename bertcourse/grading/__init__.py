"""Grading what others hand in: `release` writes the students' notebooks, `grade` marks what comes back, without trusting any of it.

    from bertcourse.grading import release, grade

    release("course", due="2027-01-31")            # hand out course/release
    found = grade("course/submitted", "scores.csv", course="course")
    print(found.totals)

The same definitions of exercises serve the learner's own check and the grader. A submission runs in a sandbox that knows inputs and no
answers; what its functions return is compared outside.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertcourse.grading.marking import grade
    from bertcourse.grading.releasing import release

__all__ = ["grade", "release"]
PLACES = {"grade": "bertcourse.grading.marking", "release": "bertcourse.grading.releasing"}


def __getattr__(name: str) -> Any:
    """A function, imported when it is asked for: what runs in the sandbox needs neither."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)
