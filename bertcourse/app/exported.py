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
    """The model of a folder, ready to run. Raises `UserError` for one that is damaged or was not written by `export`."""
    from bertcourse import profiles
    from bertcourse.app.predict import Predictor
    from bertcourse.runtime import MODEL, open_session, read_about
    from bertcourse.tasks import TASK_TYPES
    folder = Path(name).expanduser()
    with refusals():
        about = read_about(folder)
        if about.task not in TASK_TYPES:
            raise UserError(f"{folder / 'bertcourse.json'} says {about.task}, which is no task of ours: export the model again",
                            f"{folder / 'bertcourse.json'} 里的任务是 {about.task}，我们没有这种任务：请重新导出模型")
        tokenizer = profiles.load(str(folder)).tokenizer()
        task = TASK_TYPES[about.task](tokenizer, about.labels, max_length=about.max_length, lang=about.lang)
        if about.task == "qa" and about.threshold is not None:
            task.threshold = about.threshold
        session = open_session(folder / MODEL, runtime, threads=threads, pad_id=tokenizer.pad_token_id or 0)
    return Predictor(about.task, task, session, dict(about.columns), list(about.inputs))
