"""What a user does with files and models, as functions: the commands of `bertcourse` call them, and so can you.

    from bertcourse.jobs import finetune, distill, export, load, serve

Each takes the command's options as keyword arguments, raises `UserError` with the command's sentence for what a user can fix, and
returns what was made. Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertcourse.base.errors import UserError
    from bertcourse.jobs.augmenting import augment
    from bertcourse.jobs.benchmarking import bench
    from bertcourse.jobs.distilling import distill
    from bertcourse.jobs.exporting import export
    from bertcourse.jobs.finetuning import finetune
    from bertcourse.jobs.predicting import predict
    from bertcourse.jobs.pretraining import pretrain
    from bertcourse.jobs.serving import serve
    from bertcourse.jobs.stopping import Stopped
    from bertcourse.models import load

__all__ = ["Stopped", "UserError", "augment", "bench", "distill", "export", "finetune", "load", "predict", "pretrain", "serve"]
PLACES = {
    "UserError": "bertcourse.base.errors", "Stopped": "bertcourse.jobs.stopping", "load": "bertcourse.models",
    "augment": "bertcourse.jobs.augmenting", "bench": "bertcourse.jobs.benchmarking", "distill": "bertcourse.jobs.distilling",
    "export": "bertcourse.jobs.exporting", "finetune": "bertcourse.jobs.finetuning", "predict": "bertcourse.jobs.predicting",
    "pretrain": "bertcourse.jobs.pretraining", "serve": "bertcourse.jobs.serving",
}  # modules have other names than their functions: an imported module would take the function's place


def __getattr__(name: str) -> Any:
    """A job, imported when it is asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    """The jobs, for completion."""
    return sorted({*globals(), *PLACES})
