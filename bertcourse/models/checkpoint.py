"""Folders of checkpoints: opened with what their `bertcourse.json` says, or what their configuration shows; written whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import read_json, write_json
from bertcourse.base.names import PREFIX, built_in
from bertcourse.base.text import shown_name
from bertcourse.models.kinds import ABOUT, INPUTS, TASKS, describe
from bertcourse.models.labels import rename
from bertcourse.models.predictor import Predictor

HEADS = {"SequenceClassification": "classification", "TokenClassification": "ner", "QuestionAnswering": "qa"}
QA_SETTINGS = ("threshold", "max_answer_length")  # of a `bertcourse.tasks.Answering`, kept with the model


# --- names --------------------------------------------------------------------------------------------------------

def model_location(model: str | os.PathLike[str]) -> str:
    """A model's name; a folder's is its absolute path. Raises `UserError` for a name that may mean either."""
    model = os.fspath(model)
    if own := built_in(model):
        return PREFIX + own
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def folder_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path; of `.` and `..` that of the folder they stand for."""
    return shown_name(os.path.abspath(path))


def model_name(model: str) -> str:
    """A model's name without the folders of this machine."""
    return folder_name(model) if os.path.isabs(model) else model.removeprefix(PREFIX)


# --- opening ------------------------------------------------------------------------------------------------------

def not_fine_tuned(name: str, architecture: str) -> UserError:
    """A sentence for a model without a head of ours."""
    return UserError(f"{name} is a {architecture or 'model without a head'}, not fine-tuned for a task: run `bertcourse finetune` first",
                     f"{name} 是 {architecture or '没有任务头的模型'}，没有为任务微调过：请先用 `bertcourse finetune` 微调")


def task_by_head(config: Any, name: str) -> str:
    """The task that an architecture tells. Raises `UserError`."""
    architecture = next(iter(config.architectures or []), "")
    kind = next((kind for ending, kind in HEADS.items() if architecture.endswith("For" + ending)), None)
    if kind is None:
        raise not_fine_tuned(name, architecture)
    if config.problem_type == "multi_label_classification":
        raise UserError(f"{name} gives several labels at once (problem_type in its config.json), predict gives one: choose another model",
                        f"{name} 一次给出多个标签（config.json 里的 problem_type），predict 只给一个：请换一个模型")
    regression = config.problem_type == "regression" or config.num_labels == 1
    return "regression" if kind == "classification" and regression else kind


def task_of_folder(about: Mapping[str, Any], config: Any, name: str) -> str:
    """The task by `bertcourse.json`, else by the head. Raises `UserError` where the two contradict each other."""
    from bertcourse.tasks import TASK_TYPES
    by_head = task_by_head(config, name)
    kind = about.get("task", by_head)
    if kind not in TASKS or TASK_TYPES[kind].auto_class is not TASK_TYPES[by_head].auto_class:
        raise UserError(f"{name}: {ABOUT} says {kind}, but the model is a {config.architectures[0]}: remove that file, or get it again",
                        f"{name}：{ABOUT} 里的任务是 {kind}，模型却是 {config.architectures[0]}：请删掉那个文件，或重新取得")
    return kind


def open_checkpoint(name: str, labels: Sequence[str] | None = None) -> Predictor:
    """Load a checkpoint; `labels` are names for the model's. Raises `UserError` if it holds no fine-tuned model."""
    from transformers.utils import logging

    from bertcourse import profiles
    from bertcourse.tasks import TASK_TYPES
    logging.set_verbosity_error()  # what matters becomes a `UserError`
    profile = profiles.load(name)
    config = profile.teacher_config if isinstance(profile.encoder, str) else None
    if config is None:  # the profile "base": an encoder for each language
        raise not_fine_tuned(name, "")
    about = read_json(Path(profile.encoder) / ABOUT)
    kind, tokenizer = task_of_folder(about, config, name), profile.tokenizer()
    known = tuple(config.id2label[i] for i in sorted(config.id2label)) if kind not in ("regression", "qa") else ()
    length = min(about.get("max_length") or tokenizer.model_max_length, tokenizer.model_max_length)
    task = TASK_TYPES[kind](tokenizer, known, max_length=length, lang=about.get("lang") or profile.languages[0])
    for setting in QA_SETTINGS:
        if kind == "qa" and about.get(setting) is not None:
            setattr(task, setting, about[setting])
    model = profile.model(task.auto_class)
    if model.newly_initialised:
        raise not_fine_tuned(name, f"{type(model).__name__} without {model.newly_initialised[0]}")
    found = Predictor(kind, task, model, about.get("columns") or {}, about.get("inputs") or [], model_name(name))
    if labels:
        rename(found, labels, found.name)
    return found


# --- writing ------------------------------------------------------------------------------------------------------

def save_tokenizer(tokenizer: Any, folder: Path, max_length: int | None = None) -> None:
    """Write a tokenizer's files to a new folder, whole or not at all. Give one that is freshly loaded: a used one saves its truncation."""
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    if max_length is not None:
        tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(partial)
    os.replace(partial, folder)


def save_checkpoint(
    folder: str | Path,  # new or empty
    task: Any,  # a `bertcourse.tasks.Task` with the tokenizer to save
    model: Any,  # a PyTorch model of transformers
    *,
    inputs: Sequence[str] = (),  # columns it was trained on, such as `["sentence"]`
    columns: Mapping[str, str] | None = None,  # our name → that of the training files
) -> Path:
    """Write a model so that `load`, `export`, `distill` and `predict` read it as it was trained: weights, tokenizer, `bertcourse.json`.

    The model's configuration gets the task's labels. Raises `UserError` for a folder that holds something, and where task, model and
    columns do not fit together; `OSError` when the disk is full.
    """
    from bertcourse.training import save_weights
    folder = Path(folder)
    check_saved(task, model, inputs)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: choose another folder", f"{folder} 不是空的：请换一个文件夹")
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder)
    task.tokenizer.save_pretrained(folder)
    write_json(folder / ABOUT, describe(task, columns, inputs))
    return folder


def check_saved(task: Any, model: Any, inputs: Sequence[str]) -> None:
    """Give the model's configuration the labels of its task. Raises `UserError` where task, model and columns do not fit together."""
    if not hasattr(task, "encode") or not hasattr(model, "state_dict"):
        raise UserError("save_checkpoint takes a folder, a task and a model, in this order", "save_checkpoint 的参数依次是文件夹、任务和模型")
    unknown = [name for name in ([inputs] if isinstance(inputs, str) else inputs) if name not in INPUTS]
    if unknown or isinstance(inputs, str):
        raise UserError(f"inputs must be a list of the columns that the model reads, some of {', '.join(INPUTS)}, not {inputs!r}",
                        f"inputs 应为模型所读各列的列表，取自 {'、'.join(INPUTS)}，不能是 {inputs!r}")
    if task.name in ("classification", "ner"):
        if len(task.labels) != model.config.num_labels:
            raise UserError(f"the task has {len(task.labels)} labels, the model {model.config.num_labels} outputs: give the task the model's labels",
                            f"任务有 {len(task.labels)} 个标签，模型有 {model.config.num_labels} 个输出：请让任务的标签与模型一致")
        model.config.id2label = dict(enumerate(task.labels))
        model.config.label2id = {label: i for i, label in enumerate(task.labels)}


def count_parameters(model: Any) -> int:
    """How many numbers a model has."""
    return sum(p.numel() for p in model.parameters())


def weights_digest(model: Any) -> str:
    """A check sum of a model's weights."""
    from hashlib import sha256
    digest = sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    import platform

    import tokenizers
    import torch
    import transformers

    from bertcourse import __version__
    return {"bertcourse": __version__, "python": platform.python_version(), "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}


def new_folder(folder: Path, tokenizer: Path, files: Iterable[Path] = ()) -> Path:
    """An empty folder with the tokenizer's files and copies of `files`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tokenizer, folder)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder
