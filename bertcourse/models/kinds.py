"""The tasks a model can be fine-tuned for, and what a folder says of its model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bertcourse import __version__
from bertcourse.base.errors import UserError

ABOUT = "bertcourse.json"  # what a user of the model has to know beside its configuration
ALIASES = {"sentiment": "classification", "nli": "pairs", "similarity": "regression"}
TASKS = ("classification", "pairs", "regression", "ner", "qa")
TARGETS = ("label", "ner_tags", "answers")  # columns that hold what is to be predicted
RUNTIMES = ("ort", "openvino")  # those of `bertcourse.runtime`, which a --help need not import; so are the providers
PROVIDERS = ("cpu", "cuda", "tensorrt", "migraphx", "directml", "coreml", "openvino")
INPUTS = ("sentence", "sentence1", "sentence2", "question", "context", "tokens")  # in the order in which models read them


def base_task(name: str) -> str:
    """One of `TASKS`: "nli" is a task of pairs."""
    return ALIASES.get(name, name)


def input_columns(names: Sequence[str]) -> list[str]:
    """Those of the columns that a model reads, in its order."""
    return [name for name in INPUTS if name in names]


def describe(task: Any, columns: Mapping[str, str] | None = None, inputs: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """The content of `bertcourse.json` beside a checkpoint.

    task: a `bertcourse.tasks.Task`; columns: our name → the training files'; inputs: the columns that the model reads.
    """
    kind = task.name
    if kind == "classification" and "sentence1" in inputs:
        kind = "pairs"
    about = {"task": kind, "labels": list(task.labels), "max_length": task.max_length, "lang": task.lang,
             "threshold": getattr(task, "threshold", None), "max_answer_length": getattr(task, "max_answer_length", None),
             "columns": dict(columns or {}), "inputs": list(inputs)}
    return about | more | {"bertcourse": __version__}


def check_inputs(inputs: Sequence[str], kind: str, row: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if a row has not the columns that the model `name` was trained on."""
    absent = [column for column in inputs if column not in row]
    if absent:
        has = ", ".join(column for column in row if column not in ("id", "text", "offsets", *TARGETS)) or "–"
        raise UserError(f"{name} ({kind}) reads {', '.join(inputs)}, the input has {has}: give what it was trained on",
                        f"{name}（{kind}）读的是 {'、'.join(inputs)}，输入里却是 {has}：请给出训练时那样的输入")


def shell_example(inputs: Sequence[str], name: str) -> str:
    """A shell line that predicts with the model `name`."""
    import shlex
    row = {column: ["…", "…"] if column == "tokens" else "…" for column in inputs}
    return f"echo '{json.dumps(row, ensure_ascii=False)}' | bertcourse predict {shlex.quote(name)}"
