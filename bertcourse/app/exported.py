"""Folders that `bertcourse export` writes: read for `predict` and `bench`, which take them as they take a checkpoint's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertcourse.app.messages import UserError

RUNTIMES = ("ort", "openvino")  # those of `bertcourse.runtime`, which a --help need not import


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


def open_exported(name: str | Path, runtime: str = "ort", threads: int | None = None) -> Any:  # a Predictor
    """The model of a folder, ready to run, without torch. Raises `UserError` for one that is damaged or was not written by `export`."""
    from bertcourse.app.predict import Predictor
    from bertcourse.runtime import MODEL, open_session
    from bertcourse.serving.predictor import load_task
    folder = Path(name).expanduser()
    with refusals():
        about, task = load_task(folder)
        session = open_session(folder / MODEL, runtime, threads=threads, pad_id=task.tokenizer.pad_token_id)
    return Predictor(about.task, task, session, dict(about.columns), list(about.inputs))
