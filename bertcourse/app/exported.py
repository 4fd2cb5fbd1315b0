"""Folders that `bertcourse export` writes: read for `predict` and `bench`, which take them as they take a checkpoint's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertcourse.app.messages import UserError

# Those of `bertcourse.runtime`, which a --help need not import.
RUNTIMES = ("ort", "openvino")
PROVIDERS = ("cpu", "cuda", "tensorrt", "migraphx", "directml", "coreml", "openvino")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What the library refuses, as the command's sentence."""
    from bertcourse.runtime import ModelError
    try:
        yield
    except ModelError as error:
        raise UserError(error.en, error.zh) from None


def is_exported(name: str | Path) -> bool:
    """Does a folder hold an exported model?"""
    from bertcourse import runtime
    return runtime.is_exported(Path(name).expanduser())


def open_exported(
    name: str | Path, runtime: str = "ort", threads: int | None = None, labels: Sequence[str] | None = None
) -> Any:  # a Predictor
    """The model of a folder, ready to run, without torch; `labels` are names for its own.

    Raises `UserError` for one that is damaged or was not written by `export`.
    """
    from bertcourse.app.labels import rename
    from bertcourse.app.predict import Predictor
    from bertcourse.serving.predictor import Predictor as Served
    with refusals():
        found = Served(Path(name).expanduser(), runtime, threads)
    about = found.about
    made = Predictor(about.task, found.task, found.session, dict(about.columns), list(about.inputs), Path(name).expanduser().name)
    if labels:
        rename(made, labels, made.name)
    return made
