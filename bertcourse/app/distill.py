"""`bertcourse distill`: train a small model to answer as a fine-tuned one does.

The run is that of `bertcourse finetune`, whose parts are used: while it lasts, everything lies in `OUT/unfinished`, where each
stage of the training has a folder of its own in `training`. The teacher is read again when a run is resumed; `run.json` knows
its weights by a check sum. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import os
import re
import shlex
import shutil
import statistics
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app import finetune, labels, pretrain
from bertcourse.app.finetune import (
    ABOUT,
    METRIC_NAMES,
    PIPELINES,
    SPLITS,
    Data,
    Narrator,
    Report,
    auto,
    base_name,
    comparable,
    describe,
    finite,
    number,
    place_of,
    value_of,
    write_json,
)
from bertcourse.app.messages import UserError, grid, plural
from bertcourse.app.pretrain import (
    METRICS,
    WORK,
    Interruption,
    SaveEvery,
    Workplace,
    conduct,
    load,
    name_of,
    positive,
    training,
    whole,
    writing,
)
from bertcourse.app.reading import add_options, check_fit, kinds_of, options_of, read_first
from bertcourse.base.names import MODELS, PREFIX, built_in

METHODS: dict[str, dict[str, Any]] = {  # the settings that only some have
    "kd": {"temperature": 2.0, "alpha": 0.5}, "distilbert": {"temperature": 2.0},
    "tinybert": {"temperature": 1.0, "mapping": "uniform", "layer_epochs": None, "layer_steps": None},
}
DEFAULTS: dict[str, Any] = {
    "columns": None, "format": None, "encoding": None, "labels": None, "init_layers": None, "temperature": None, "alpha": None,
    "mapping": None, "layer_epochs": None,
    "layer_steps": None, "epochs": None, "steps": None, "lr": "auto", "batch_size": 32, "warmup": 0.1, "weight_decay": 0.01,
    "patience": None, "seed": 0, "precision": "auto",
}
GENERAL = "general"  # a method without a task, see bertcourse.app.general
MAPPINGS = ("uniform", "top", "bottom")
STUDENTS = {"tinybert-4": "TinyBERT-4", "tinybert-6": "TinyBERT-6", "distilbert-6": None}  # of bertcourse.bert.SHAPES
FILES = (*SPLITS, "augmented")
NEEDED = ("teacher", "student", "train", "method")  # beside --out; a run that is resumed knows its own
HIGHEST_RATE = 3e-3  # --lr auto, from random weights
ROUNDS = 15  # of a race
USAGE = "bertcourse distill --teacher DIR --student MODEL --train FILE --method METHOD --out DIR [...]"
EPILOG = """as for finetune: --epochs N|--steps N, --lr, --batch-size, --warmup, --weight-decay, --patience, --seed, --precision;
all: --temperature X (2; tinybert: 1), --labels bad,good (names of the teacher's); kd: --alpha X (the teacher's share: 0.5);
tinybert: --mapping uniform|top|bottom, --layer-epochs N (twice --epochs) or --layer-steps N
"""


# --- arguments ----------------------------------------------------------------------------------------------------

def share(text: str) -> float:
    """An argument from 0 to 1, both of them allowed."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")


def layers(text: str) -> str | list[int]:
    """`2,4,6`, or `none`."""
    if text == "none":
        return text
    with contextlib.suppress(ValueError):
        found = [int(part) for part in text.split(",")]
        if min(found) > 0:
            return found
    raise argparse.ArgumentTypeError(f"must be like 2,4,6, counted from 1, or none, not {text!r}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=22, width=100)
    add = parser.add_argument
    add("--teacher", metavar="DIR", help="fine-tuned model; its task, labels, length and column names are used")
    add("--student", metavar="MODEL", help="tinybert-4, tinybert-6, distilbert-6, JSON ({...}, a file), or a checkpoint")
    add("--train", type=Path, metavar="FILE", help="as for `bertcourse finetune`; general: text (default: the toy world)")
    add("--dev", type=Path, metavar="FILE", help=f"scored after each epoch (default: {finetune.DEV_SHARE:.0%}% of --train)")
    add("--test", type=Path, metavar="FILE", help="scored once, at the end")
    add("--augmented", type=Path, metavar="FILE", help="more rows to train on, from `bertcourse augment`; needs --dev")
    add("--method", choices=(*METHODS, GENERAL), metavar="METHOD",
        help="kd, distilbert, tinybert (layers, then outputs), or general (layers, on text)")
    add("--out", type=Path, required=True, metavar="DIR", help="new folder for the student")
    add("--init-layers", type=layers, metavar="LIST", help="layers of the teacher to start from: 2,4,6 or none (default: by method)")
    add_options(parser)
    add("--resume", action="store_true", help="with --out: go on with a run that was stopped, to the same weights")
    add("--json", action="store_true", help="print metrics and costs as JSON")
    add("--quiet", action="store_true", help="say nothing but errors")
    hidden = {"help": argparse.SUPPRESS}
    for first, second in [("--epochs", "--steps"), ("--layer-epochs", "--layer-steps")]:
        duration = parser.add_mutually_exclusive_group()
        duration.add_argument(first, type=whole(1), **hidden)
        duration.add_argument(second, type=whole(1), **hidden)
    for option, read in [("lr", auto(positive())), ("batch-size", whole(1)), ("warmup", number(0)), ("weight-decay", number(0)),
                         ("patience", whole(1)), ("seed", whole(0)), ("temperature", positive()), ("alpha", share)]:
        add(f"--{option}", type=read, **hidden)
    add("--labels", type=labels.names, **hidden)
    add("--mapping", choices=MAPPINGS, **hidden)
    add("--precision", choices=("no", "bf16", "auto"), **hidden)


def given_files(args: argparse.Namespace) -> dict[str, Path]:
    """Option: file."""
    return {option: getattr(args, option) for option in FILES if getattr(args, option) is not None}


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported. Raises `UserError`."""
    finetune.check_given(args, "distill", NEEDED)
    if args.method is not None:
        check_options(args)
    if args.augmented is not None and args.dev is None and not args.resume:
        raise UserError("--augmented needs --dev: variants of rows held out of --train would be trained on",
                        "--augmented 要配合 --dev：从 --train 里留出的数据，它们的变体会出现在训练里")
    finetune.check_files(given_files(args).values())
    if args.teacher is not None and not is_model(args.teacher):
        raise UserError(f"there is no folder {args.teacher}: give a fine-tuned model with --teacher",
                        f"没有 {args.teacher} 这个文件夹：请用 --teacher 给出微调过的模型")
    if args.student is not None:
        read_student(args.student)


def check_options(args: argparse.Namespace) -> None:
    """Raises `UserError` for an option that the method does not know."""
    for name in ("temperature", "alpha", "mapping", "layer_epochs", "layer_steps"):
        if getattr(args, name) is not None and name not in METHODS[args.method]:
            option, others = f"--{name.replace('_', '-')}", [method for method, own in METHODS.items() if name in own]
            raise UserError(f"{option} is for --method {' or '.join(others)}, not for {args.method}: leave it out",
                            f"{option} 用于 --method {'、'.join(others)}，不能用于 {args.method}：请去掉它")


def is_model(name: str) -> bool:
    """Can it be a model: one of the course, a folder, or a name on the hub? Raises `UserError` for a name that may mean either."""
    path = os.path.expanduser(name)
    on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not os.path.isdir(os.path.dirname(path))
    return built_in(name) is not None or os.path.isdir(path) or bool(on_hub)


def read_student(text: str) -> str | dict[str, Any]:
    """What `--student` says: a name, a folder by its absolute path, or a configuration. Raises `UserError`."""
    path = os.path.expanduser(text)
    if text.removeprefix(PREFIX) not in MODELS and (shape := built_in(text, tuple(STUDENTS))):
        return shape
    if text.lstrip().startswith("{"):
        return as_configuration(text, "--student")
    if os.path.isfile(path):
        try:
            return as_configuration(Path(path).read_text(encoding="utf-8-sig"), text)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(f"{text} cannot be read ({why}): give a configuration as JSON",
                            f"{text} 无法读取（{why}）：请给出 JSON 格式的配置") from None
    if is_model(text):
        return place_of(text)
    raise UserError(f"--student {text} is no name, file or folder: give {', '.join(STUDENTS)}, a configuration as JSON, or a checkpoint",
                    f"--student {text} 既不是名称，也不是文件或文件夹：请写 {'、'.join(STUDENTS)}、JSON 格式的配置，或一个检查点")


def as_configuration(text: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises `UserError`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "nested too deeply"
        raise UserError(f'{where} is not valid JSON ({why}): write {{"num_hidden_layers": 3}}, for example',
                        f'{where} 不是合法的 JSON（{why}）：请写成 {{"num_hidden_layers": 3}} 这样') from None
    if not isinstance(found, dict):
        raise UserError(f'{where} is no JSON object: write {{"num_hidden_layers": 3}}, for example',
                        f'{where} 不是 JSON 对象：请写成 {{"num_hidden_layers": 3}} 这样')
    return found


def is_ours(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command?"""
    tables = ("dev", "teacher", "comparison", "settings")
    return metrics.get("method") in METHODS and all(isinstance(metrics.get(name), dict) for name in tables)


def look_at(out: Path, resume: bool) -> str:
    """What `--out` is: "new", "unfinished" or "finished". Raises `UserError` if it cannot be used as it was asked."""
    if resume and is_ours(load(out / METRICS)):
        return "finished"
    found = pretrain.look_at(out, resume)
    if found == "finished":  # of `bertcourse pretrain`
        raise UserError(f"{out} is not empty: choose another folder with --out", f"{out} 不是空的：请用 --out 换一个文件夹")
    return found


# --- what is asked for --------------------------------------------------------------------------------------------

@dataclass
class Job:
    """What is asked for. `run.json` holds it, so that `--resume` needs no other option."""

    teacher: str  # absolute path, or the hub's name
    student: str | dict[str, Any]  # a name of `STUDENTS`, a checkpoint as above, or a configuration
    method: str
    settings: dict[str, Any]  # those of `DEFAULTS`; None: the method has none
    paths: dict[str, str]  # option: absolute path
    files: list[dict[str, Any]]  # option, name, bytes, sha256 of each
    command: str
    task: str = ""  # as the files are read; the teacher tells
    fingerprint: str = ""  # of the teacher's weights

    def write(self, path: Path) -> None:
        """Into `run.json`, whole or not at all."""
        partial = path.with_name(".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)


def shown_student(student: str | Mapping[str, Any]) -> str:
    """What to call it, without the folders of this machine."""
    return base_name(student) if isinstance(student, str) else json.dumps(student, ensure_ascii=False)


def command_line(args: argparse.Namespace) -> str:
    """The command without the folders of this machine."""
    words = ["bertcourse", "distill"]
    for name, value in vars(args).items():
        if name in ("command", "resume", "json", "quiet") or value is None:
            continue
        if name == "teacher":
            value = base_name(place_of(value))
        elif name == "student":
            found = read_student(value)
            value = base_name(found) if isinstance(found, str) else value if value.lstrip().startswith("{") else name_of(Path(value))
        elif isinstance(value, dict):
            value = ",".join(f"{ours}={theirs}" for ours, theirs in value.items())
        elif isinstance(value, list):
            value = ",".join(map(str, value))
        words += ["--" + name.replace("_", "-"), name_of(value) if isinstance(value, Path) else str(value)]
    return shlex.join(words)


def asked(args: argparse.Namespace) -> Job:
    """What is asked for now. Raises `UserError`."""
    settings = DEFAULTS | METHODS[args.method]
    settings |= {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    if settings["steps"] is None and settings["epochs"] is None:
        settings["epochs"] = 3
    if args.method == "tinybert" and settings["layer_steps"] is None and settings["layer_epochs"] is None:
        twice = "epochs" if settings["steps"] is None else "steps"
        settings[f"layer_{twice}"] = 2 * settings[twice]
    files = given_files(args)
    return Job(place_of(args.teacher), read_student(args.student), args.method, settings,
               {option: str(file.resolve()) for option, file in files.items()},
               [describe(option, file) for option, file in files.items()], command_line(args))


def recorded(args: argparse.Namespace, settings: Iterable[str] = tuple(DEFAULTS)) -> Job:
    """What an unfinished run was asked for, and is now again; `settings` are those that its method has. Raises `UserError`."""
    was = load(args.out / WORK / "run.json")
    if "settings" in was and "teacher" not in was:
        raise UserError(f"{args.out} holds a run of `bertcourse finetune`: go on with it by that command, or choose another folder",
                        f"{args.out} 里是 `bertcourse finetune` 的训练：请用那个命令继续，或换一个文件夹")
    if was.keys() != {field.name for field in fields(Job)} or not isinstance(was["settings"], dict) \
            or was["settings"].keys() != set(settings):
        raise UserError(f"{args.out / WORK} does not say what the run was: remove it and start again",
                        f"{args.out / WORK} 没有记下那次训练是什么：请删除后重新开始")
    compare(args, was, settings)
    job = Job(**was)
    finetune.check_unchanged(args.out, job)
    return job


def compare(args: argparse.Namespace, was: Mapping[str, Any], settings: Iterable[str] = tuple(DEFAULTS)) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or the metrics)."""
    changed = [("method", was["method"], args.method or was["method"])]
    if args.teacher is not None:
        changed.append(("teacher", *comparable(was["teacher"], place_of(args.teacher))))
    if args.student is not None:
        changed.append(("student", *comparable(was["student"], read_student(args.student))))
    changed += [(name, was["settings"][name], getattr(args, name)) for name in settings if getattr(args, name) is not None]
    finetune.check_same(args.out, changed, given_files(args), was["files"])


# --- the teacher and its data -------------------------------------------------------------------------------------

def fingerprint(model: Any) -> str:
    """A check sum of a model's weights."""
    from hashlib import sha256
    digest = sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def open_teacher(job: Job, out: Path, tell: Narrator) -> Any:  # a Predictor
    """Load the teacher to where the training will be, and say what it is. Raises `UserError`."""
    from accelerate import Accelerator

    from bertcourse.app.predict import open_model
    teacher = open_model(job.teacher, job.settings["labels"])
    teacher.model.to(Accelerator().device).requires_grad_(False)
    found, name = fingerprint(teacher.model), base_name(job.teacher)
    if job.fingerprint and found != job.fingerprint:
        raise UserError(f"{name} is not the teacher of the run in {out}: put that back, or choose another folder with --out",
                        f"{name} 不是 {out} 里的训练所用的教师：请放回原来的模型，或用 --out 换一个文件夹")
    job.fingerprint = found
    job.settings["columns"] = teacher.columns if job.settings["columns"] is None else job.settings["columns"]
    if job.settings["temperature"] != METHODS[job.method]["temperature"] and teacher.kind == "regression":
        raise UserError("--temperature makes distributions flatter, and a regression gives none: leave it out",
                        "--temperature 用来让分布变平，回归没有分布：请去掉它")
    known = teacher.task.labels
    labels = f", labels {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else ""
    tell.state(f"teacher {name}: {teacher.kind}, {type(teacher.model).__name__}, {parameters(teacher.model):,} parameters, "
               f"length {teacher.task.max_length} pieces{labels}",
               f"教师 {name}：{teacher.kind}，{type(teacher.model).__name__}，{parameters(teacher.model):,} 个参数，"
               f"长度 {teacher.task.max_length} 个 token{labels.replace(', labels ', '，标签 ')}")
    return teacher


def parameters(model: Any) -> int:
    """How many there are."""
    return sum(p.numel() for p in model.parameters())


def read(job: Job, teacher: Any, asked_for: bool, tell: Narrator) -> tuple[Data, Any]:  # rows; the augmented ones, or None
    """Read the files with the teacher's labels in its order; `asked_for` are the columns, not the teacher's. Raises `UserError`."""
    names, kinds = job.settings["columns"], kinds_of(teacher)
    spellings = [names] if asked_for else [names, {}]  # a file may have our own names as well
    rows: dict[str, Any] = {}
    for option, split in SPLITS.items():
        if option in job.paths:
            rows[split] = read_first(job.paths[option], [(kind, names) for kind in kinds for names in spellings],
                                     **options_of(job.settings))
            kinds = [rows[split].task]
            check_fit(teacher.inputs, teacher.kind, rows[split].rows[0], base_name(job.teacher))
    job.task, = kinds
    rows = labels.settle(teacher, rows, base_name(job.teacher), tell)
    data = finetune.understand(job, rows, tell, teacher.task.labels or None)
    return data, read_augmented(job, teacher, data, tell) if "augmented" in job.paths else None


def read_augmented(job: Job, teacher: Any, data: Data, tell: Narrator) -> Any:  # a datasets.Dataset
    """The rows of `--augmented`, for tinybert without labels. Raises `UserError`."""
    from bertcourse import files
    path, labelled = job.paths["augmented"], job.method != "tinybert"
    attempts = [(job.task, job.settings["columns"]), (job.task, {})]  # `bertcourse augment` writes our names
    try:
        rows = read_first(path, attempts, labelled, **options_of(job.settings))
    except files.FileError as error:
        if not labelled or "column" not in error.en:
            raise
        read_first(path, attempts, labelled=False, **options_of(job.settings))  # is it the labels alone that are missing?
        name = Path(path).name
        raise UserError(f"{name} has rows without labels, which --method {job.method} learns from: have `bertcourse augment --teacher` "
                        "write them, or take --method tinybert",
                        f"{name} 里有的行没有标签，而 --method {job.method} 要用标签：请用 `bertcourse augment --teacher` 标注，"
                        "或改用 --method tinybert") from None
    finetune.tell_rows(rows, tell)
    if labelled:
        rows, = labels.settle(teacher, {"augmented": rows}, base_name(job.teacher), tell).values()
    found = files.as_dataset(job.task, {"augmented": rows}, teacher.task.labels or None)["augmented"]
    ours, theirs = finetune.inputs_of(data.splits["train"]), finetune.inputs_of(found)
    if ours != theirs:
        raise UserError(f"{Path(path).name} has {', '.join(theirs)}, the training file {', '.join(ours)}: augment that file",
                        f"{Path(path).name} 里是 {'、'.join(theirs)}，训练文件里是 {'、'.join(ours)}：请用训练文件来增强")
    return found


def without_labels(task: Any, rows: Any) -> list[dict[str, Any]]:
    """Encoded rows without what is right; of words only which pieces carry a tag."""
    encoded = task.encode(rows, labelled=False)
    if task.name == "ner":
        encoded = [row | {"labels": [0 if word >= 0 else -100 for word in row["words"]]} for row in encoded]
    return finetune.inputs(encoded)


def encode(job: Job, teacher: Any, data: Data, augmented: Any) -> list[dict[str, Any]]:
    """The rows to train on, as the teacher reads them."""
    parts = [data.splits["train"], *([augmented] if augmented is not None else [])]
    if job.method == "tinybert":
        return [row for part in parts for row in without_labels(teacher.task, part)]
    return [row for part in parts for row in finetune.inputs(teacher.task.encode(part))]


# --- the student's shape ------------------------------------------------------------------------------------------

DISTILBERT = {  # what others call it: DistilBERT
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim",
    "hidden_act": "activation", "hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout",
}
SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
TAKEN_OVER = (*DISTILBERT, "layer_norm_eps", "initializer_range", "type_vocab_size", "classifier_dropout", "vocab_size", "pad_token_id",
              "bos_token_id", "eos_token_id")
ABOUT_FILES = ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype")  # of no effect here
FIXED = ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "is_decoder",
            "add_cross_attention", "num_labels")  # beside what all configurations have: not a matter of shape


def spelling(family: str, name: str) -> str:
    """What a family calls a setting."""
    return DISTILBERT.get(name, name) if family == "distilbert" else name


def like(teacher: Any, family: str) -> dict[str, Any]:
    """The settings of a teacher's configuration as another family has them."""
    from transformers import AutoConfig

    from bertcourse.profiles import skipped_positions
    if family == teacher.model_type:
        return teacher.to_dict()
    made = AutoConfig.for_model(family).to_dict()
    for name in TAKEN_OVER:
        theirs, ours = spelling(teacher.model_type, name), spelling(family, name)
        if ours in made and hasattr(teacher, theirs) and (name != "type_vocab_size" or teacher.type_vocab_size):  # DeBERTa has none
            made[ours] = getattr(teacher, theirs)
    room = teacher.max_position_embeddings - skipped_positions(teacher)
    return made | {"max_position_embeddings": room + skipped_positions(AutoConfig.for_model(family, pad_token_id=made["pad_token_id"]))}


def configuration(given: Mapping[str, Any], teacher: Any) -> Any:  # of transformers
    """That of the teacher with what is given. Raises `UserError`."""
    from transformers import AutoConfig, PretrainedConfig

    from bertcourse.profiles import FAMILIES
    family = given.get("model_type", teacher.model_type)
    if family not in FAMILIES:
        raise UserError(f"--student: there is no model_type {family!r}: write one of {', '.join(FAMILIES)}",
                        f"--student：没有 {family!r} 这种 model_type：请写 {'、'.join(FAMILIES)} 之一")
    settings, general = like(teacher, family) | {"num_labels": teacher.num_labels}, PretrainedConfig().to_dict()
    for name, value in given.items():
        ours = spelling(family, name)
        if name in ABOUT_FILES:
            continue
        if ours not in settings:
            close = difflib.get_close_matches(name, [*settings, *DISTILBERT], 1)
            raise UserError(f"--student: {family} has no setting {name!r}: " + (f"did you mean {close[0]}?" if close else "leave it out"),
                            f"--student：{family} 没有 {name!r} 这个设置：" + (f"是不是 {close[0]}？" if close else "请去掉它"))
        if (ours in FIXED or ours in general) and value != settings[ours]:
            raise UserError(f"--student: {name} must be that of the teacher ({settings[ours]}), not {value}: leave it out",
                            f"--student：{name} 应与教师相同（{settings[ours]}），不能是 {value}：请去掉它")
        settings[ours] = value
    check_numbers(settings, family)
    if settings.get("layer_types"):  # ModernBERT: which layers look how far
        settings["layer_types"] = fewer(settings["layer_types"], settings["num_hidden_layers"])
    names = ("id2label", "label2id", "num_labels", "problem_type", "architectures")  # these come with the task
    try:
        return built(type(AutoConfig.for_model(family)).from_dict({name: value for name, value in settings.items() if name not in names}))
    except Exception as error:  # each family has checks of its own
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(f"--student makes no {family} ({said[-1]}): correct it", f"--student 配不成 {family}（{said[-1]}）：请改正") from None


def fewer(types: Sequence[str], count: int) -> list[str] | None:
    """The kinds of a teacher's first layers; None, which is transformers' own choice, for more layers than it has."""
    return list(types[:count]) if count <= len(types) else None


def built(config: Any) -> Any:
    """The same, when a model of it can be made."""
    import copy

    import torch
    from transformers import AutoModel
    with torch.device("meta"):
        AutoModel.from_config(copy.deepcopy(config))
    return config


def check_numbers(settings: Mapping[str, Any], family: str) -> None:
    """Raises `UserError` for a shape that cannot be."""
    values = {name: settings.get(spelling(family, name)) for name in SHAPE}
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise UserError(f"--student: {name} must be a whole number from 1 on, not {json.dumps(value)}",
                            f"--student：{name} 应为不小于 1 的整数，不能是 {json.dumps(value)}")
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise UserError(f"--student: {heads} heads do not divide a width of {width} evenly: change num_attention_heads or hidden_size",
                        f"--student：宽度 {width} 不能被 {heads} 个头整除：请改 num_attention_heads 或 hidden_size")


@dataclass
class Beginning:
    """What the student begins as."""

    config: Any
    profile: Any = None  # its checkpoint; None: random weights


def begin(job: Job, teacher: Any) -> Beginning:
    """The student's configuration, checked against the teacher and the method. Raises `UserError`."""
    theirs = teacher.model.config
    named = isinstance(job.student, dict) or job.student in STUDENTS
    found = Beginning(shape_of(job.student, theirs)) if named else begin_with_checkpoint(job, teacher)
    check_method(job, found.config, theirs)
    chosen = job.settings["init_layers"]
    if isinstance(chosen, list):
        check_init_layers(chosen, found, theirs)
    return found


def shape_of(student: str | Mapping[str, Any], theirs: Any) -> Any:  # of transformers
    """The configuration of a name of `STUDENTS`, or that which was given. Raises `UserError`."""
    if student == "distilbert-6":
        student = {"model_type": "distilbert", "num_hidden_layers": 6}
    elif isinstance(student, str):
        from bertcourse.bert import SHAPES
        shape = SHAPES[STUDENTS[student]].config()
        student = {"model_type": shape.model_type} | {name: getattr(shape, name) for name in SHAPE}
    return configuration(student, theirs)


def begin_with_checkpoint(job: Job, teacher: Any) -> Beginning:
    """A student that has been trained before, on the same vocabulary. Raises `UserError`."""
    from bertcourse.profiles import Profile, has_tokenizer, skipped_positions
    from bertcourse.profiles import load as load_profile
    lang, name = teacher.task.lang, base_name(job.student)
    profile = load_profile(job.student).only(lang) if job.student.startswith(PREFIX) else Profile(name, job.student, (lang,), 0)
    config, theirs = profile.teacher_config, teacher.model.config
    folder = Path(profile.encoder)
    tokenizer = not folder.is_dir() or has_tokenizer(folder)
    if config.vocab_size != theirs.vocab_size or tokenizer and profile.tokenizer().get_vocab() != teacher.task.tokenizer.get_vocab():
        raise UserError(f"{name} has another vocabulary than the teacher ({config.vocab_size:,} entries, {theirs.vocab_size:,}): give a "
                        "checkpoint with the teacher's",
                        f"{name} 的词表（{config.vocab_size:,} 项）与教师的（{theirs.vocab_size:,} 项）不同：请给出与教师词表相同的检查点")
    room, longest = config.max_position_embeddings - skipped_positions(config), teacher.task.max_length
    if room < longest:
        raise UserError(f"{name} has {room} positions, the teacher reads up to {longest} pieces: give a checkpoint with more",
                        f"{name} 只有 {room} 个位置，教师最多读 {longest} 个 token：请换一个位置更多的检查点")
    return Beginning(config, profile)


def check_method(job: Job, ours: Any, theirs: Any) -> None:
    """Raises `UserError` where the method cannot compare the two shapes."""
    width, others = ours.hidden_size, theirs.hidden_size
    if job.method == "distilbert" and width != others:
        raise UserError(f"--method distilbert compares directions, and the student is {width} wide, the teacher {others}: make it as wide, "
                        "or take --method kd or tinybert",
                        f"--method distilbert 要比较方向，而学生宽 {width}，教师宽 {others}：请改成一样宽，或改用 --method kd、tinybert")
    if job.method not in ("tinybert", GENERAL):
        return
    from bertcourse.distillation import check_scores
    try:
        check_scores(ours, theirs)
    except ValueError:
        family = next(config.model_type for config in (theirs, ours) if config.model_type.startswith("deberta"))
        instead, instead_zh = ("take --method kd", "改用 --method kd") if job.method == "tinybert" else ("give another teacher", "换一个教师")
        raise UserError(f"--method {job.method} compares attention scores, which {family} does not show: {instead}",
                        f"--method {job.method} 要比较注意力分数，而 {family} 不给出它们：请{instead_zh}") from None
    or_kd, or_kd_zh = (", or take --method kd", "，或改用 --method kd") if job.method == "tinybert" else ("", "")  # text has no labels
    heads, others = ours.num_attention_heads, theirs.num_attention_heads
    if heads != others:
        raise UserError(f"--method {job.method} compares head by head, and the student has {heads}, the teacher {others}: give it as many"
                        f"{or_kd}", f"--method {job.method} 逐头比较，而学生有 {heads} 个头，教师有 {others} 个：请改成一样多{or_kd_zh}")
    layers, others = ours.num_hidden_layers, theirs.num_hidden_layers
    if layers > others:
        raise UserError(f"the student has {plural(layers, 'layer')}, the teacher only {others}: give it fewer{or_kd}",
                        f"学生有 {layers} 层，教师只有 {others} 层：请减少学生的层数{or_kd_zh}")
    check_mapping(job.settings["mapping"], layers, others)


def check_mapping(mapping: str, ours: int, theirs: int) -> None:
    """Raises `UserError` for layers that cannot be spread evenly."""
    if mapping == "uniform" and theirs % ours:
        few = [str(n) for n in range(1, theirs + 1) if theirs % n == 0]
        raise UserError(f"{ours} layers cannot be spread evenly over the teacher's {theirs}: take --mapping top or bottom, or "
                        f"{', '.join(few)} layers", f"学生的 {ours} 层不能均匀对应教师的 {theirs} 层：请用 --mapping top 或 bottom，"
                        f"或把层数改为 {'、'.join(few)}")


def check_init_layers(chosen: Sequence[int], found: Beginning, theirs: Any) -> None:
    """Raises `UserError` for layers that the student cannot start from."""
    count, most = found.config.num_hidden_layers, theirs.num_hidden_layers
    if found.profile is not None:
        raise UserError("--init-layers is for a student without weights of its own: leave it out, or give a name or a configuration",
                        "--init-layers 用于还没有权重的学生：请去掉它，或把 --student 改为名称或配置")
    if len(chosen) != count or max(chosen) > most:
        said = ",".join(map(str, chosen))
        raise UserError(f"--init-layers {said}: the student needs {plural(count, 'layer')}, each a number from 1 to {most}",
                        f"--init-layers {said}：学生需要 {count} 层，每层是 1 到 {most} 之间的数")
    if not same_layers(found.config, theirs):
        raise misfit(found.config, theirs)


def same_layers(ours: Any, theirs: Any) -> bool:
    """Can weights of a layer be the other's? Cut into other heads, they would mean something else."""
    return all(getattr(ours, name) == getattr(theirs, name) for name in ("hidden_size", "num_attention_heads"))


def misfit(ours: Any, theirs: Any) -> UserError:
    """A sentence for layers that cannot be copied."""
    shapes = [f"{config.model_type}, {config.hidden_size} wide, {config.num_attention_heads} heads" for config in (ours, theirs)]
    zh = [f"{config.model_type}，宽 {config.hidden_size}，{config.num_attention_heads} 个头" for config in (ours, theirs)]
    return UserError(f"--init-layers: layers of the teacher ({shapes[1]}) do not fit the student ({shapes[0]}): leave it out",
                     f"--init-layers：教师的层（{zh[1]}）与学生（{zh[0]}）形状不合：请去掉它")


# --- the student --------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What was chosen where nothing was asked for, and what follows from it."""

    lr: float
    precision: str
    steps: int = 0  # of the last stage
    stages: dict[str, int] = field(default_factory=dict)  # name: steps
    parameters: int = 0
    layers: tuple[int, ...] = ()  # of the teacher, that the student starts from
    copied: tuple[int, int] | None = None  # tensors, of how many
    random: bool = False  # are its weights?
    beginning: tuple[str, str] = ("", "")  # the same, in both languages
    teacher_dev: dict[str, Any] = field(default_factory=dict)


def choose_layers(job: Job, found: Beginning, theirs: Any) -> tuple[int, ...]:
    """The layers of the teacher to start from; none: random weights, or the checkpoint's."""
    ours, chosen = found.config, job.settings["init_layers"]
    if isinstance(chosen, list):
        return tuple(chosen)
    count, most = ours.num_hidden_layers, theirs.num_hidden_layers
    fits = found.profile is None and same_layers(ours, theirs) and most % count == 0
    if chosen == "none" or job.method != "distilbert" or not fits:
        return ()
    from bertcourse.distillation import teacher_layers
    return teacher_layers(count, most)


def fresh_tokenizer(job: Job, teacher: Any, model_inputs: Iterable[str]) -> Any:
    """The teacher's, as it was, giving what the student takes."""
    from bertcourse import profiles
    from bertcourse.tasks import for_words
    tokenizer = profiles.load(job.teacher).tokenizer()
    if teacher.kind == "ner":
        tokenizer = for_words(tokenizer)
    tokenizer.model_max_length = teacher.task.max_length
    if "token_type_ids" not in model_inputs and "token_type_ids" in tokenizer.model_input_names:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # else it is not saved
    return tokenizer


def make_student(job: Job, plan: Plan, found: Beginning, teacher: Any) -> tuple[Any, Any]:  # task, model
    """The student with the teacher's head, started as was asked for. Raises `UserError`."""
    import inspect
    from functools import partial

    import torch

    from bertcourse.distillation import new_model
    theirs = teacher.model.config
    head = {"id2label": theirs.id2label, "label2id": theirs.label2id}
    if plan.precision == "bf16" and not torch.cuda.is_available():
        head["attn_implementation"] = "eager"  # as for `bertcourse finetune`
    loader = new_model(found.config) if found.profile is None else partial(found.profile.model, ignore_mismatched_sizes=True)
    torch.manual_seed(job.settings["seed"])
    student = teacher.task.model(loader, **head).to(teacher.model.device)
    plan.beginning = start_from(job, plan, found, student, teacher)
    plan.parameters = parameters(student)
    task = replace(teacher.task, tokenizer=fresh_tokenizer(job, teacher, inspect.signature(student.forward).parameters))
    if task.name == "qa":
        task.threshold = 0.0  # the student's own comes later
    return task, student


def start_from(job: Job, plan: Plan, found: Beginning, student: Any, teacher: Any) -> tuple[str, str]:
    """Copy layers if there are any to be copied; says what the weights are. Raises `UserError`."""
    from bertcourse.distillation import copy_layers
    if found.profile is not None:
        same = finetune.settle_head(student, found.config, teacher.task)
        return ("goes on from its checkpoint", "接着检查点训练") if same else \
            ("starts from its checkpoint, with a new head", "从检查点开始，任务头是新的")
    plan.layers = choose_layers(job, found, teacher.model.config)
    if plan.layers:
        try:
            plan.copied = copy_layers(student, teacher.model, plan.layers)
        except ValueError:  # a family whose layers are others
            if isinstance(job.settings["init_layers"], list):
                raise misfit(found.config, teacher.model.config) from None
            plan.layers = ()
    if not plan.layers:
        return "starts from random weights", "从随机权重开始"
    (count, of), which = plan.copied, ", ".join(map(str, plan.layers))
    return (f"starts from layer{'s' if len(plan.layers) > 1 else ''} {which} of the teacher: {count} of {of} tensors copied",
            f"从教师的第 {which.replace(', ', '、')} 层开始：复制了 {of} 个张量中的 {count} 个")


def learning_rate(width: int, random: bool) -> float:
    """`--lr auto`: that of `bertcourse finetune`, three times as high from random weights, but at most 3e-3."""
    rate = finetune.learning_rate(width)
    return float(f"{min(HIGHEST_RATE, 3 * rate):.2g}") if random else rate


def count_steps(job: Job, rows: int) -> dict[str, int]:
    """The stages and their steps. Raises `UserError` when the warm-up leaves none of them."""
    s = job.settings
    stages = {"distillation": (s["epochs"], s["steps"])}
    if job.method == "tinybert":
        stages = {"intermediate": (s["layer_epochs"], s["layer_steps"]), "prediction": (s["epochs"], s["steps"])}
    return {name: finetune.count_steps(replace(job, settings=s | {"epochs": epochs, "steps": steps}), rows)
            for name, (epochs, steps) in stages.items()}


def get_ready(job: Job, found: Beginning, teacher: Any, rows: int) -> tuple[Plan, Any, Any]:  # plan, task, model
    """Choose what was left open, and make the student. Raises `UserError`."""
    plan = Plan(0.0, finetune.choose_precision(job.settings["precision"], found.config, teacher.model.config))
    task, student = make_student(job, plan, found, teacher)
    plan.random = found.profile is None and not plan.layers
    asked_for = job.settings["lr"]
    plan.lr = learning_rate(found.config.hidden_size, plan.random) if asked_for == "auto" else asked_for
    plan.stages = count_steps(job, rows)
    *_, plan.steps = plan.stages.values()
    return plan, task, student


def tell_plan(job: Job, plan: Plan, teacher: Any, student: Any, tell: Narrator) -> None:
    """What will be done."""
    s, name, config = job.settings, shown_student(job.student), student.config
    shape = f"{config.num_hidden_layers} × {config.hidden_size}"
    tell.state(f"student {name}: {type(student).__name__}, {shape}, {plan.parameters:,} parameters; {plan.beginning[0]}",
               f"学生 {name}：{type(student).__name__}，{shape}，{plan.parameters:,} 个参数；{plan.beginning[1]}")
    *before, last = plan.stages.values()
    en, zh = plural(last, "step"), f"{last:,} 步"
    if before:
        en, zh = f"{plural(before[0], 'step')} on the layers, then {en} on the outputs", f"逐层 {before[0]:,} 步，然后输出 {zh}"
    rate = rate_zh = f"{plan.lr:g}"
    if s["lr"] == "auto":
        rate += f" (auto, width {config.hidden_size}{', random weights' if plan.random else ''})"
        rate_zh += f"（自动，宽度 {config.hidden_size}{'，随机权重' if plan.random else ''}）"
    terms = {"temperature": ("temperature", "温度"), "alpha": ("alpha", "alpha")}
    terms = {name: said for name, said in terms.items() if s[name] is not None and (teacher.kind != "regression" or name == "alpha")}
    en_terms, zh_terms = (", ".join([job.method, *(f"{said[i]} {s[name]:g}" for name, said in terms.items())]) for i in (0, 1))
    tell.state(f"{en_terms}: {en}, {plural(s['batch_size'], 'row')} each, learning rate {rate}, precision {plan.precision}",
               f"{zh_terms.replace(', ', '，')}：{zh}，每步 {s['batch_size']} 条，学习率 {rate_zh}，精度 {plan.precision}")


def score_teacher(teacher: Any, data: Data, tell: Narrator) -> dict[str, float]:
    """What the teacher reaches on the development set."""
    found = teacher.task.metrics(data.splits["dev"])(teacher.model)
    tell.state(f"the teacher on dev: {finetune.shown(found, False)}", f"教师在验证集上：{finetune.shown(found, True)}")
    return found


# --- training -----------------------------------------------------------------------------------------------------

class Place(Workplace):
    """`OUT/unfinished`, where each stage of the training has a folder of its own."""

    def saved(self) -> int:
        """The steps of the newest checkpoints, of all stages together."""
        steps: dict[Path, int] = {}
        for path in self.path.glob("training/*/checkpoint-*.pt"):
            steps[path.parent] = max(steps.get(path.parent, 0), int(path.stem[-8:]))
        return sum(steps.values())


def scores(task: Any, rows: Any) -> Any:
    """For `fit`: the scores of the student in what is trained."""
    measure = task.metrics(rows)
    return lambda pupil: measure(pupil.student)


def cached(job: Job, teacher: Any, rows: Sequence[Mapping[str, Any]], tell: Narrator) -> Sequence[Mapping[str, Any]]:
    """Rows with what the teacher says of them, worked out once, where that is all it is asked for."""
    from bertcourse.distillation import cache_logits
    if job.method != "kd" or teacher.task.name == "qa" or not job.settings["alpha"]:
        return rows
    tell.say("asking the teacher", "正在询问教师")
    return cache_logits(teacher.model, rows, teacher.task.collate)


def pupils(job: Job, student: Any, teacher: Any) -> dict[str, Any]:
    """Stage: the student with the loss by which it learns there."""
    from bertcourse.app import general
    from bertcourse.distillation import Distiller, Weights
    from bertcourse.tinybert import Intermediate, Prediction
    temperature, alpha = job.settings["temperature"], job.settings["alpha"]
    if job.method == "tinybert":
        layers = Intermediate(student, teacher.model, job.settings["mapping"])
        if isinstance(job.student, str):
            general.load_projections(layers, job.student)  # of a general distillation
        return {"intermediate": layers, "prediction": Prediction(student, teacher.model, temperature)}
    weights = Weights(hard=1 - alpha, soft=alpha) if job.method == "kd" else \
        Weights(soft=5 / 8, hard=2 / 8, cosine=1 / 8)  # 5 : 2 : 1, as in DistilBERT's own example
    return {"distillation": Distiller(student, teacher.model, weights, temperature)}


def train(job: Job, plan: Plan, task: Any, student: Any, teacher: Any, data: Data, rows: list[dict[str, Any]], place: Place,
          tell: Narrator, interruption: Interruption) -> dict[str, Any]:  # stage: its History
    """All stages, from the newest checkpoint on if there is one. Raises `UserError` for what a user can mend."""
    from bertcourse.distillation import with_logits
    from bertcourse.training import fit
    s, histories, dev = job.settings, {}, data.splits["dev"]
    rows = cached(job, teacher, rows, tell)
    dev_rows = cached(job, teacher, finetune.inputs(teacher.task.encode(dev)), tell)
    collate = with_logits(teacher.task.collate) if rows and "teacher_logits" in rows[0] else teacher.task.collate
    scored = dict(dev=dev_rows, metrics=scores(task, dev), better=task.better, patience=s["patience"])
    with training(plan.lr, place.best, interruption):
        for stage, pupil in pupils(job, student, teacher).items():
            steps = plan.stages[stage]
            histories[stage] = fit(
                pupil, rows, steps=steps, lr=plan.lr, warmup=s["warmup"], weight_decay=s["weight_decay"],
                batch_size=s["batch_size"], collate=collate, precision=plan.precision, seed=s["seed"], progress=tell.seen,
                callbacks=[interruption, Report(plan, tell)], out=place.path / "training" / stage, resume=True,
                save_every=SaveEvery(min(pretrain.SAVED_EVERY, max(1, steps // 20)), interruption),
                **({} if stage == "intermediate" else scored))
            if stage == "intermediate":
                first, last = (histories[stage].column("loss")[1][i] for i in (0, -1))
                tell.state(f"layers: {plural(steps, 'step')}, loss {first:.3f}, at the end {last:.3f}",
                           f"逐层：{steps:,} 步，损失从 {first:.3f} 到 {last:.3f}")
    return histories


# --- teacher against student --------------------------------------------------------------------------------------

def kept(teacher: float | None, student: float | None) -> float | None:
    """The share of the teacher's score that the student keeps; None where a share means nothing."""
    good = all(value is not None and math.isfinite(value) and value >= 0 for value in (teacher, student))
    return student / teacher if good and teacher else None


def side_by_side(teacher: float, student: float) -> dict[str, float]:
    """Both, and the student's as a share of the teacher's."""
    return {"teacher": teacher, "student": student, "ratio": student / teacher}


def costs(teacher: Any, student: Any, row: Mapping[str, Any], collate: Any) -> dict[str, Any]:
    """Size, operations and time of a forward pass over one text, of both."""
    import torch

    from bertcourse.distillation import measure_cost, race, unlabelled
    models = {"teacher": teacher, "student": student}
    device = teacher.device
    batch = {name: value.to(device) for name, value in unlabelled(collate([row])).items()}
    for model in models.values():
        model.to(device).eval().set_attn_implementation("sdpa")  # what one would run
    weights = {name: measure_cost(model, batch) for name, model in models.items()}
    times = {name: statistics.median(found) for name, found in race(models, batch, ROUNDS).items()}
    of = {name: side_by_side(*(weights[who][name] for who in models)) for name in ("parameters", "megabytes", "gflops")}
    gflops = of.pop("gflops")
    return of | {"mflops": gflops | {who: gflops[who] * 1e3 for who in models}, "milliseconds": side_by_side(*times.values()),
                 "pieces": len(row["input_ids"]), "batch": 1, "rounds": ROUNDS, "device": device.type, "threads": torch.get_num_threads()}


def contrast(teacher: Any, folder: Path, metric: str, student: Mapping[str, Any], theirs: Mapping[str, Any], dev: Any) -> dict[str, Any]:
    """The table of the end, from the scores of both. The student is the one in the folder: who reads the table will load that."""
    from bertcourse.app.predict import open_model
    encoded = sorted(finetune.inputs(teacher.task.encode(dev, labelled=False)), key=lambda row: len(row["input_ids"]))
    made: dict[str, Any] = {"metric": metric}
    for part in ("dev", "test"):
        ours, other = student[part].get(metric), theirs[part].get(metric)
        made[part] = {"teacher": other, "student": ours, "kept": kept(other, ours)} if student[part] else {}
    return made | costs(teacher.model, open_model(str(folder)).model, encoded[len(encoded) // 2], teacher.task.collate)


def percent(value: float | None) -> str:
    """As people write it; "–" where there is none."""
    return "–" if value is None else f"{value:.1%}"


def table(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Rows of the comparison: what in Chinese and in English, teacher, student, the student's share."""
    c, rows = metrics["comparison"], []
    name = c["metric"]
    for part, zh in (("dev", "验证"), ("test", "测试")):
        if c[part]:
            values = (value_of(name, c[part][who]) for who in ("teacher", "student"))
            rows.append((f"{zh}，{METRIC_NAMES[name]}", f"{part}, {name}", *values, percent(c[part]["kept"])))
    for key, zh, en, form in [("parameters", "参数", "parameters", ",.0f"), ("megabytes", "MB", "MB", ",.1f"),
                              ("mflops", "MFLOPs", "MFLOPs", ",.1f"), ("milliseconds", "毫秒", "milliseconds", ",.2f")]:
        rows.append((zh, en, *(format(c[key][who], form) for who in ("teacher", "student")), percent(c[key]["ratio"])))
    return rows


def measured(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """How the costs were measured, in Chinese and in English."""
    c = metrics["comparison"]
    where = c["device"] + (f" ({plural(c['threads'], 'thread')})" if c["device"] == "cpu" else "")
    zh = c["device"] + (f"（{c['threads']} 线程）" if c["device"] == "cpu" else "")
    return (f"MB：FP32；MFLOPs 与毫秒：一次前向，每批 1 条，{c['pieces']} 个 token；毫秒是交替计时 {c['rounds']} 轮的中位数，{zh}",
            f"MB: in FP32; MFLOPs and milliseconds: a forward pass, batch 1, {plural(c['pieces'], 'piece')}; milliseconds: median of "
            f"{c['rounds']} interleaved rounds, {where}")


# --- the finished folder ------------------------------------------------------------------------------------------

def draw_curves(histories: Mapping[str, Any], metric: str, level: float | None, path: Path) -> None:
    """The loss of each stage, the learning rate, and the score on the development set beside the teacher's."""
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    from bertcourse.plots import axes, dress, style
    names = {"intermediate": "loss, layers", "prediction": "loss, outputs", "distillation": "loss"}
    figure, panels = axes(1, len(histories) + 2, (3.5 * (len(histories) + 2), 3.0))
    *losses, middle, right = panels
    with style():
        before = 0
        for ax, (stage, history) in zip(losses, histories.items()):
            ax.plot(*history.column("loss"), label="training")
            if stage != "intermediate":
                ax.plot(*history.column("dev.loss"), marker="o", markersize=4, label="dev")
            ax.legend()
            steps, rates = history.column("lr")
            middle.plot([before + step for step in steps], rates, color="C0")
            before += history.steps
        right.plot(*history.column(f"dev.{metric}"), marker="o", markersize=4, label="student")
        if level is not None and math.isfinite(level):
            right.axhline(level, color="C1", linestyle="--", label="teacher")
        right.legend()
        lasts = [*(h.steps for h in histories.values()), before, history.steps]
        for ax, name, last in zip(panels, [*(names[stage] for stage in histories), "learning rate", f"{metric}, dev"], lasts):
            dress(ax, "step", name).grid(axis="y")
            ax.set_xlim(0, last * 1.03)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if metric not in finetune.NUMBERS:
            right.set_ylim(0, 1.02)
        figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def card(name: str, metrics: Mapping[str, Any], auto_class: str, example: str) -> str:
    """The model card, in both languages."""
    teacher, student = metrics["teacher"], metrics["student"]
    against = "\n".join(f"| {zh if zh == en else f'{zh} / {en}'} | {' | '.join(cells)} |" for zh, en, *cells in table(metrics))
    beginning = f"""| 教师 / teacher | `{teacher['name']}`, weights `{teacher['fingerprint'][:16]}` |
| 学生 / student | `{student if isinstance(student, str) else json.dumps(student)}`; {metrics['beginning']} |"""
    stages = ", ".join(f"{stage} {of['steps']:,}" for stage, of in metrics["stages"].items())
    settings = finetune.about_settings(metrics, beginning, stages, ("lr", "precision", "init_layers"))
    warning = """它只为上面的数据打过分，未检查偏见与隐私；教师的错误它也学。/ It was scored on the data above only, and was not examined for bias or
private data; it has learnt its teacher's mistakes, too."""
    return f"""---
library_name: transformers
pipeline_tag: {PIPELINES[metrics['task']]}
language: {metrics['lang']}
tags: [bert, {metrics['task']}, distillation]
---

# {name}

用 `bertcourse distill` 蒸馏的学生模型，任务 {metrics['task']}，方法 {metrics['method']}。/ A student distilled by `bertcourse distill`, task \
{metrics['task']}, method {metrics['method']}.

## 教师与学生 / Teacher and student

| | 教师 / teacher | 学生 / student | 学生 ÷ 教师 / student ÷ teacher |
|---|---|---|---|
{against}

{'。/ '.join(measured(metrics))}.

{finetune.about_scores(metrics)}

{finetune.about_data(metrics)}

{settings}

{finetune.about_use(metrics, name, auto_class, example, warning)}"""


def save_folder(job: Job, folder: Path, work: Path, task: Any, student: Any, data: Data, histories: Mapping[str, Any]) -> None:
    """The checkpoint, what `bertcourse predict` has to know, and the history."""
    from bertcourse.training import save_weights
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "tokenizer", folder)
    save_weights(student, folder)
    rows = "".join(json.dumps(finite({"stage": stage} | row), allow_nan=False) + "\n" for stage, h in histories.items() for row in h.rows)
    (folder / "history.jsonl").write_text(rows, encoding="utf-8")
    write_json(folder / ABOUT, {
        "task": kind_of(job), "labels": list(task.labels), "max_length": task.max_length, "lang": task.lang,
        "threshold": getattr(task, "threshold", None), "max_answer_length": getattr(task, "max_answer_length", None),
        "columns": job.settings["columns"],
        "inputs": finetune.inputs_of(data.splits["train"]), "model": shown_student(job.student), "teacher": base_name(job.teacher),
        "bertcourse": __version__})


def kind_of(job: Job) -> str:
    """One of `TASKS`."""
    return finetune.kind_of(job.task)


def assemble(job: Job, plan: Plan, name: str, work: Path, task: Any, student: Any, teacher: Any, data: Data, rows: Mapping[str, int],
             histories: Mapping[str, Any]) -> dict[str, Any]:
    """Put all that the finished folder is to hold into `work/model`; returns the metrics."""
    folder, (*_, last) = work / "model", histories.values()
    dev, test = finetune.evaluate(job, task, student, data, last)
    save_folder(job, folder, work, task, student, data, histories)
    theirs = {"dev": plan.teacher_dev, "test": teacher.task.metrics(data.splits["test"])(teacher.model) if "test" in data.splits else {}}
    about = job.student if isinstance(job.student, dict) else base_name(job.student)
    metrics = finite({
        "task": kind_of(job), "method": job.method, "dev": dev, "test": test,
        "teacher": {"name": base_name(job.teacher), "fingerprint": job.fingerprint} | theirs,
        "seconds": round(sum(h.seconds for h in histories.values()), 1), "seed": job.settings["seed"], "command": job.command,
        "steps": sum(h.steps for h in histories.values()), "best_step": last.best and last.best["step"],
        "stages": {stage: {"steps": h.steps, "seconds": round(h.seconds, 1), "loss": h.column("loss")[1][-1]}
                   for stage, h in histories.items()},
        "student": about, "beginning": plan.beginning[0], "init_layers": list(plan.layers), "copied": plan.copied and list(plan.copied),
        "parameters": plan.parameters, "lr": plan.lr, "precision": plan.precision, "lang": task.lang, "max_length": task.max_length,
        "labels": list(task.labels), "threshold": getattr(task, "threshold", None), "files": job.files,
        "data": {"rows": data.counts() | dict(rows), "skipped": data.skipped, "moved": data.moved, "held_out": data.held_out},
        "settings": job.settings,
        "comparison": contrast(teacher, folder, task.better[0], {"dev": dev, "test": test}, theirs, data.splits["dev"]),
        "versions": pretrain.versions(),
    })
    text = card(name, metrics, task.auto_class.__name__, finetune.example_of(finetune.inputs_of(data.splits["train"]), name))
    (folder / "README.md").write_text(text, encoding="utf-8")
    draw_curves(histories, task.better[0], plan.teacher_dev.get(task.better[0]), folder / "curves.png")
    write_json(folder / METRICS, metrics)
    return metrics


def summary(out: Path, metrics: Mapping[str, Any], lang: str) -> str:
    """What a person wants to know at the end."""
    zh, steps, minutes = lang == "zh", metrics["steps"], metrics["seconds"] / 60
    lines = [f"{out}：{steps:,} 步，{minutes:.1f} 分钟" if zh else f"{out}: {plural(steps, 'step')}, {minutes:.1f} minutes"]
    rows = [("", "教师", "学生", "学生 ÷ 教师") if zh else ("", "teacher", "student", "student ÷ teacher")]
    rows += [(row[0] if zh else row[1], *row[2:]) for row in table(metrics)]
    lines += grid(rows)
    lines.append(measured(metrics)[not zh])
    lines.append(f"模型卡：{out / 'README.md'}" if zh else f"model card: {out / 'README.md'}")
    return "\n".join(lines)


# --- the run ------------------------------------------------------------------------------------------------------

def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Whole or not at all."""
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(partial)
    os.replace(partial, folder)


def start(args: argparse.Namespace, lang: str, interruption: Interruption, state: dict[str, Any]) -> dict[str, Any] | None:
    """Check all, then work. Returns the metrics; None when interrupted. `state` tells the caller about the work place."""
    check_arguments(args)
    found = look_at(args.out, args.resume)
    if found == "new" and args.resume and any(getattr(args, name) is None for name in NEEDED):  # a slip in --out, most likely
        raise UserError(f"there is no run in {args.out} to go on with: check --out, or leave --resume out",
                        f"{args.out} 里没有可以继续的训练：请检查 --out，或去掉 --resume")
    if found == "finished":
        metrics = load(args.out / METRICS)
        compare(args, metrics | {"teacher": metrics["teacher"].get("name", "")})
        shutil.rmtree(args.out / WORK, ignore_errors=True)  # of a run that was killed while it tidied up
        return metrics
    tell = Narrator(lang, args.quiet)
    job = recorded(args) if found == "unfinished" else asked(args)
    asked_for = job.settings["columns"] is not None and found == "new"
    teacher = open_teacher(job, args.out, tell)
    beginning = begin(job, teacher)
    data, augmented = read(job, teacher, asked_for, tell)
    rows = encode(job, teacher, data, augmented)
    plan, task, student = get_ready(job, beginning, teacher, len(rows))
    tell_plan(job, plan, teacher, student, tell)
    plan.teacher_dev = score_teacher(teacher, data, tell)
    with Place(args.out, interruption) as place, writing():
        state["place"], work = place, place.path
        job.write(work / "run.json")
        if not (work / "tokenizer").is_dir():
            save_tokenizer(fresh_tokenizer(job, teacher, task.tokenizer.model_input_names), work / "tokenizer")
        histories = train(job, plan, task, student, teacher, data, rows, place, tell, interruption)
        more = {} if augmented is None else {"augmented": len(augmented)}
        metrics = assemble(job, plan, name_of(args.out), work, task, student, teacher, data, more, histories)
        place.finish()
    return metrics


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Distil and report: 0, or 130 when interrupted. Raises `UserError`."""
    from bertcourse.app import general
    way = general if general.is_asked_for(args) else sys.modules[__name__]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # of scores where all rows, or all guesses, are of one class
        return conduct("distill", args, way.start, way.summary)
