"""`bertcourse finetune`: fine-tune a BERT on labelled files of one's own.

While it runs, everything lies in `OUT/unfinished`: `run.json` (what was asked for), `tokenizer`, `training` (history and
checkpoints). When the model is complete its files are moved to OUT, each whole, the metrics last, and `unfinished` goes:
the way of `bertcourse pretrain`, whose parts are used. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app import pretrain
from bertcourse.app.messages import UserError, plural
from bertcourse.app.pretrain import (
    METRICS,
    WORK,
    Interruption,
    SaveEvery,
    Teller,
    Workplace,
    conduct,
    load,
    name_of,
    positive,
    training,
    whole,
    writing,
)
from bertcourse.app.reading import add_options, options_of
from bertcourse.base.atomic import file_digest
from bertcourse.base.machine import set_threads
from bertcourse.base.names import PREFIX, built_in
from bertcourse.base.text import is_chinese, shown_name

ABOUT = "bertcourse.json"  # what a user of the model has to know beside its configuration
ALIASES = {"sentiment": "classification", "nli": "pairs", "similarity": "regression"}
TASKS = ("classification", "pairs", "regression", "ner", "qa")
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # option: split
DEV_SHARE = 0.1  # of --train, where there is no --dev
MOST_LENGTHS = 10_000  # texts that are looked at to choose a length
SHORTEST_LIMIT = 30  # pieces of an answer, as in google-research/bert
SHORTEST = 8  # pieces: room for a window of question and passage
WIDTHS, RATES = (128, 768), (1e-3, 5e-5)  # --lr auto: the course's model, BERT-base
LEAST_RATE = 2e-5
DEFAULTS: dict[str, Any] = {
    "columns": {}, "format": None, "encoding": None, "lang": "auto", "max_length": "auto", "max_answer_length": None, "epochs": None, "steps": None, "lr": "auto", "batch_size": 32,
    "warmup": 0.1, "weight_decay": 0.01, "patience": None, "seed": 0, "llrd": None, "reinit": 0, "adversarial": None,
    "dropout": None, "precision": "auto",
}
NEEDED = ("task", "train", "model")  # beside --out; a run that is resumed knows its own
USAGE = "bertcourse finetune --task TASK --train FILE --model MODEL --out DIR [option ...]"
EPILOG = """training:  --epochs N (3) or --steps N, --batch-size N (32), --warmup SHARE|STEPS (0.1), --seed N (0)
  --weight-decay X (0.01), --dropout P, --precision no|bf16|auto, --patience N (epochs; keeps the best)
  --lr X (auto: 1e-3 at width 128, 5e-5 at 768, a straight line between logarithms)
  --max-answer-length N (qa: pieces of an answer; as many as the longest one of --train, 30 at least)
  --llrd X (learning rate falls by X per layer), --reinit N (top layers), --adversarial fgm|pgd
"""


# --- arguments ----------------------------------------------------------------------------------------------------

def number(low: float, high: float = math.inf, closed: bool = False) -> Callable[[str], float]:
    """An argument that is a number from `low` to below `high`, or with `closed` above `low` to `high`."""
    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = float(text)
            if math.isfinite(value) and (low < value <= high if closed else low <= value < high):
                return value
        limit = f"above {low:g}, at most {high:g}" if closed else f"from {low:g}" + ("" if math.isinf(high) else f" to below {high:g}")
        raise argparse.ArgumentTypeError(f"must be a number {limit}, not {text!r}")
    return read


def auto(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same, or "auto"."""
    return lambda text: text if text == "auto" else read(text)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20, width=100)
    add = parser.add_argument
    add("--task", choices=(*TASKS, *ALIASES), metavar="TASK", help=f"{', '.join(TASKS)} (or {', '.join(ALIASES)})")
    add("--train", type=Path, metavar="FILE", help="TSV, CSV, JSONL; ner: CoNLL or JSONL, entities or a label a word; qa: SQuAD or JSONL")
    add("--dev", type=Path, metavar="FILE", help=f"scored after each epoch (default: {DEV_SHARE:.0%}% of --train)")
    add("--test", type=Path, metavar="FILE", help="scored once, at the end")
    add("--model", metavar="MODEL", help="tiny, base, the folder of a checkpoint, or its owner/name on the hub")
    add("--out", type=Path, required=True, metavar="DIR", help="new folder for the model")
    add_options(parser)
    add("--lang", choices=("en", "zh", "auto"), metavar="LANG", help="en or zh (default, auto: what most of the text is)")
    add("--max-length", type=auto(whole(SHORTEST)), metavar="N", help="pieces (default, auto: what holds 99%% of the texts)")
    add("--resume", action="store_true", help="with --out: go on with a run that Ctrl-C or a crash stopped, to the same weights")
    add("--json", action="store_true", help="print the metrics as JSON")
    add("--quiet", action="store_true", help="say nothing but errors")
    duration = parser.add_mutually_exclusive_group()
    hidden = {"help": argparse.SUPPRESS}
    duration.add_argument("--epochs", type=whole(1), **hidden)
    duration.add_argument("--steps", type=whole(1), **hidden)
    for option, read in [("max-answer-length", whole(1)), ("lr", auto(positive())), ("batch-size", whole(1)), ("warmup", number(0)), ("weight-decay", number(0)),
                         ("patience", whole(1)), ("seed", whole(0)), ("llrd", number(0, 1, closed=True)), ("reinit", whole(0)),
                         ("dropout", number(0, 1))]:
        add(f"--{option}", type=read, **hidden)
    add("--adversarial", choices=("fgm", "pgd"), **hidden)
    add("--precision", choices=("no", "bf16", "auto"), **hidden)


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported. Raises `UserError`."""
    check_given(args, "finetune", NEEDED)
    check_files(given_files(args).values())
    if args.model is not None:
        built_in(args.model)
    if args.max_answer_length is not None and args.task not in (None, "qa"):
        raise UserError(f"--max-answer-length is for --task qa, not for {args.task}: leave it out",
                        f"--max-answer-length 用于 --task qa，不能用于 {args.task}：请去掉它")


def check_given(args: argparse.Namespace, command: str, needed: Sequence[str]) -> None:
    """One process, all that is needed, a seed that there is. Raises `UserError`."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError("this command runs in one process: for several, call bertcourse.training.fit in a script",
                        "这个命令只用一个进程：要用多个进程，请在脚本里调用 bertcourse.training.fit")
    absent = [f"--{name}" for name in needed if getattr(args, name) is None]
    if absent and not args.resume:
        raise UserError(f"{', '.join(absent)} must be given: see `bertcourse {command} --help`",
                        f"缺少 {'、'.join(absent)}：请看 `bertcourse {command} --help`")
    if args.seed is not None and args.seed >= 2**32:
        raise UserError(f"--seed must be below 2^32, not {args.seed}", f"--seed 应小于 2^32，不能是 {args.seed}")


def check_files(files: Iterable[Path]) -> None:
    """Raises `UserError` unless they are regular files, each another."""
    seen: dict[Path, Path] = {}
    for file in files:
        if str(file) == "-" or (file.exists() and not file.is_file() and not file.is_dir()):
            raise UserError(f"{file} can be read only once: save it in a file first", f"{file} 只能读一遍：请先存成文件")
        if file.is_dir() or not file.exists():
            en, zh = ("is a folder: name the file in it", "是文件夹：请写出其中的文件") if file.is_dir() else \
                ("is not there: check its name", "不存在：请检查文件名")
            raise UserError(f"{file} {en}", f"{file} {zh}")
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice: scores on texts of the training tell nothing",
                            f"{file} 出现了两次：在训练过的文本上打分没有意义")
        seen[file.resolve()] = file


def given_files(args: argparse.Namespace) -> dict[str, Path]:
    """Option: file."""
    return {option: getattr(args, option) for option in SPLITS if getattr(args, option) is not None}


def is_ours(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command?"""
    tables = ("dev", "data", "settings")
    return metrics.get("task") in TASKS and "method" not in metrics and all(isinstance(metrics.get(name), dict) for name in tables)


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

    task: str
    model: str  # absolute path, or a profile's or the hub's name
    settings: dict[str, Any]  # those of `DEFAULTS`
    paths: dict[str, str]  # option: absolute path
    files: list[dict[str, Any]]  # option, name, bytes, sha256 of each
    command: str

    def write(self, path: Path) -> None:
        """Into `run.json`, whole or not at all. A path that is not UTF-8 keeps its bytes, as JSON's escapes of lone surrogates."""
        partial = path.with_name(".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)


def kind_of(task: str) -> str:
    """One of `TASKS`."""
    return ALIASES.get(task, task)


def place_of(model: str) -> str:
    """A model's name; a folder's is its absolute path. Raises `UserError` for a name that may mean either."""
    if own := built_in(model):
        return PREFIX + own
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def base_name(model: str) -> str:
    """A model's name without the folders of this machine."""
    return name_of(Path(model)) if Path(model).is_absolute() else model.removeprefix(PREFIX)


def comparable(was: Any, now: Any) -> tuple[Any, Any]:
    """Two models' names; those of folders without their place where only one has it, as in the metrics."""
    if isinstance(was, str) and isinstance(now, str) and not Path(was).is_absolute():
        return base_name(was), base_name(now)
    return was, now


def describe(option: str, file: Path) -> dict[str, Any]:
    """A file, by its content."""
    return {"option": option, "name": shown_name(file), "bytes": file.stat().st_size, "sha256": file_digest(file)}


def command_line(args: argparse.Namespace) -> str:
    """The command without the folders of this machine."""
    words = ["bertcourse", "finetune"]
    for name, value in vars(args).items():
        if name in ("command", "resume", "json", "quiet") or value is None:
            continue
        if name == "model":
            value = base_name(place_of(value))
        elif isinstance(value, dict):
            value = ",".join(f"{ours}={theirs}" for ours, theirs in value.items())
        words += ["--" + name.replace("_", "-"), name_of(value) if isinstance(value, Path) else str(value)]
    return shlex.join(words)


def asked(args: argparse.Namespace) -> Job:
    """What is asked for now. Raises `UserError`."""
    settings = {name: default if getattr(args, name) is None else getattr(args, name) for name, default in DEFAULTS.items()}
    if settings["steps"] is None and settings["epochs"] is None:
        settings["epochs"] = 3
    files = given_files(args)
    return Job(args.task, place_of(args.model), settings, {option: str(file.resolve()) for option, file in files.items()},
               [describe(option, file) for option, file in files.items()], command_line(args))


def recorded(args: argparse.Namespace) -> Job:
    """What an unfinished run was asked for, and is now again. Raises `UserError`."""
    was = load(args.out / WORK / "run.json")
    if was.keys() != {field.name for field in fields(Job)} or not isinstance(was["settings"], dict) \
            or was["settings"].keys() != DEFAULTS.keys():
        raise UserError(f"{args.out / WORK} does not say what the run was: remove it and start again",
                        f"{args.out / WORK} 没有记下那次训练是什么：请删除后重新开始")
    job = Job(**was)
    compare(args, was)
    check_unchanged(args.out, job)
    return job


def check_unchanged(out: Path, job: Any) -> None:
    """Raises `UserError` if a file is no longer what the run in `out` began with."""
    for file in job.files:
        path = Path(job.paths[file["option"]])
        if not path.is_file() or file_digest(path) != file["sha256"]:
            raise other_file(out, path.name)


def compare(args: argparse.Namespace, was: Mapping[str, Any]) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or the metrics)."""
    changed = [(name, was["settings"][name], getattr(args, name)) for name in DEFAULTS if getattr(args, name) is not None]
    if args.task is not None:
        changed.append(("task", kind_of(was["task"]), kind_of(args.task)))
    if args.model is not None:
        changed.append(("model", *comparable(was["model"], place_of(args.model))))
    check_same(args.out, changed, given_files(args), was["files"])


def check_same(out: Path, options: Iterable[tuple[str, Any, Any]], given: Mapping[str, Path], known: Sequence[Mapping[str, Any]]) -> None:
    """Raises `UserError` for an option (name, what it was, what it is) or a file that is not that of the run in `out`."""
    for name, old, new in options:
        if old != new:
            name = name.replace("_", "-")
            raise UserError(f"the run in {out} has another --{name} ({old}, not {new}): leave the option out, or choose "
                            "another folder", f"{out} 里的训练用的是另一个 --{name}（{old}，不是 {new}）：请去掉这个选项，或换一个文件夹")
    digests = {file["option"]: file["sha256"] for file in known}
    for option, file in given.items():
        if file_digest(file) != digests.get(option):
            raise other_file(out, file.name)


def other_file(out: Path, name: str) -> UserError:
    """A sentence for a file that is not what it was."""
    return UserError(f"{name} is not the file of the run in {out}: put that back, or choose another folder with --out",
                     f"{name} 与 {out} 里的训练所用的文件不同：请放回原来的文件，或用 --out 换一个文件夹")


# --- data ---------------------------------------------------------------------------------------------------------

class Narrator(Teller):
    """Says on stderr what was understood and what will be done, in logs, too."""


@dataclass
class Data:
    """Labelled rows, as the library reads them, and how many of each file were left out or mended."""

    splits: dict[str, Any]  # option: a datasets.Dataset
    skipped: dict[str, int]
    moved: dict[str, int]  # answers that were not where the file says
    held_out: bool  # is `dev` a part of the training file?

    def counts(self) -> dict[str, int]:
        """Option: rows."""
        return {option: len(rows) for option, rows in self.splits.items()}


def read(job: Job, tell: Narrator) -> Data:
    """Read the files, say what they are, hold out some of the training rows if there is no `--dev`. Raises `UserError`."""
    from bertcourse import files
    named = {SPLITS[option]: path for option, path in job.paths.items()}
    rows = files.read_all(job.task, named, job.settings["columns"] or None, **options_of(job.settings))
    return understand(job, rows, tell)


def understand(job: Any, rows: Mapping[str, Any], tell: Narrator, classes: Sequence[str] | None = None) -> Data:
    """The same from what was read, by split; `classes` are those of a trained model. Raises `UserError`."""
    from bertcourse import files
    found = files.as_dataset(job.task, rows, classes)
    splits = {option: found[split] for option, split in SPLITS.items() if split in found}
    for option in splits:
        tell_rows(rows[SPLITS[option]], tell)
    check_learnable(kind_of(job.task), splits["train"], Path(job.paths["train"]).name)
    if held_out := "dev" not in splits:
        splits |= hold_out(splits["train"], job.settings["seed"], Path(job.paths["train"]).name)
        tell.state(f"no --dev: {plural(len(splits['dev']), 'row')} of the training file held out for it (seed {job.settings['seed']}), "
                   f"{len(splits['train']):,} are left",
                   f"没有 --dev：从训练文件里留出 {len(splits['dev']):,} 条（种子 {job.settings['seed']}），剩下 {len(splits['train']):,} 条训练")
    parts = {option: rows[split] for option, split in SPLITS.items() if split in rows}
    return Data(splits, {option: part.skipped.total() for option, part in parts.items()},
                {option: part.moved for option, part in parts.items()}, held_out)


def tell_rows(rows: Any, tell: Narrator) -> None:
    """Say what was understood of a file, and show one row of it."""
    for said in (rows.understood, rows.example):
        tell.state(said.en, said.zh)


def hold_out(train: Any, seed: int, name: str) -> dict[str, Any]:
    """A seeded tenth of the rows as `dev`, the others as `train`.

    Every class gives its share, and keeps one row at least. Rows with the same input stay together, as do questions about a passage.
    Raises `UserError` for a file `name` that is too small.
    """
    groups: dict[Any, list[int]] = {}
    for i, key in enumerate(inputs_as_keys(train)):
        groups.setdefault(key, []).append(i)
    if len(groups) < 2:
        raise UserError(f"{name} has too few rows to hold some out: give a file with --dev", f"{name} 太少，留不出验证数据：请用 --dev 给出文件")
    wanted, held = max(1, round(DEV_SHARE * len(train))), []
    for group in in_proportion([*groups.values()], strata_of(train), seed)[:-1]:  # one group at least is left to learn from
        if len(held) < wanted:
            held += group
    kept = sorted(set(range(len(train))) - set(held))
    return {"train": train.select(kept), "dev": train.select(sorted(held))}


def inputs_as_keys(rows: Any) -> list[Any]:
    """What a model reads of each row, as a key; of a question the passage."""
    names = ["context"] if "context" in rows.column_names else inputs_of(rows)
    columns = [[tuple(value) if isinstance(value, list) else value for value in rows[name]] for name in names]
    return [*zip(*columns, strict=True)]


def strata_of(rows: Any) -> list[Any]:
    """Of each row the class; where labels are numbers, the tenth of them in which it is; else nothing."""
    import numpy as np
    if "label" not in rows.column_names:
        return [None] * len(rows)
    labels = np.array(rows["label"])
    if labels.dtype.kind != "f":
        return labels.tolist()
    return np.searchsorted(np.quantile(labels, np.arange(0.1, 1, 0.1)), labels).tolist()


def in_proportion(groups: list[list[int]], strata: Sequence[Any], seed: int) -> list[list[int]]:
    """Groups of rows in a seeded order of which every beginning has each stratum in its share; a stratum's only group comes last."""
    import numpy as np
    random = np.random.default_rng([seed, len(strata)])
    members: dict[Any, list[list[int]]] = {}
    for group in groups:
        members.setdefault(strata[group[0]], []).append(group)
    placed: list[tuple[float, list[int]]] = []
    for found in members.values():
        offset = random.random() if len(found) > 1 else math.inf
        for rank, i in enumerate(random.permutation(len(found)).tolist()):
            placed.append(((rank + offset) / len(found), found[i]))
    return [group for _, group in sorted(placed)]


def check_learnable(kind: str, train: Any, name: str) -> None:
    """Raises `UserError` for answers that are all the same; `files.as_dataset` has done so for classes."""
    if kind == "qa" and not any(answers["text"] for answers in train["answers"]):
        raise UserError(f"no question in {name} has an answer: there is nothing to learn from it",
                        f"{name} 里没有一个问题有答案：从中学不到什么")
    if kind == "regression" and len(numbers := set(train["label"])) < 2:
        raise UserError(f"every label in {name} is {min(numbers):g}: give numbers that differ",
                        f"{name} 里的标签全是 {min(numbers):g}：请给出不同的数")


def language_in(text: str) -> str:
    """Of most of a text: "zh" if it is written in Chinese characters."""
    chinese = sum(map(is_chinese, text))
    return "zh" if 2 * chinese > sum(char.isascii() and char.isalpha() for char in text) else "en"


def language_of(train: Any) -> str:
    """Of most of the first rows."""
    text = json.dumps(train.select(range(min(len(train), 1_000))).remove_columns(
        [name for name in train.column_names if name in ("label", "ner_tags", "id", "answers")])[:], ensure_ascii=False)
    return language_in(text)


def inputs_of(rows: Any) -> list[str]:
    """The columns that a model reads, in its order."""
    return [name for name in ("sentence", "sentence1", "sentence2", "question", "context", "tokens") if name in rows.column_names]


def lengths(tokenizer: Any, rows: Any) -> list[int]:
    """Pieces of each input if nothing were cut; of at most `MOST_LENGTHS` rows, evenly taken."""
    rows = rows.select(range(0, len(rows), -(-len(rows) // MOST_LENGTHS)))
    names = inputs_of(rows)
    coded = tokenizer(*(list(rows[name]) for name in names), is_split_into_words="tokens" in names, truncation=False,
                      return_attention_mask=False, verbose=False)
    return [len(ids) for ids in coded["input_ids"]]


# --- the model ----------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What was chosen where nothing was asked for, and what follows from it."""

    lang: str
    lr: float
    precision: str
    steps: int
    parameters: int = 0
    head: str = ""  # its parts
    inputs: Sequence[Mapping[str, Any]] = ()  # the training rows, encoded


def learning_rate(width: int) -> float:
    """`--lr auto`: 1e-3 at a width of 128 and below, 5e-5 at 768, on a straight line between logarithms, never below 2e-5."""
    (narrow, wide), (high, low) = WIDTHS, RATES
    share = math.log(width / narrow) / math.log(wide / narrow)
    return float(f"{min(high, max(LEAST_RATE, high * (low / high) ** share)):.1e}")


def choose_precision(asked_for: str, *configs: Any) -> str:
    """`--precision auto`: bf16 where a GPU or the CPU's matrix unit (AMX) computes in it. Raises `UserError` for models that cannot."""
    if any(config.model_type == "deberta" for config in configs):  # of transformers: it fills scores with a number bf16 does not have
        if asked_for == "bf16":
            raise UserError("--precision bf16: deberta cannot compute in it, only deberta-v2 can: take --precision no",
                            "--precision bf16：deberta 不能用 bf16 计算，deberta-v2 可以：请用 --precision no")
        return "no"
    if asked_for != "auto":
        return asked_for
    import torch
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if tiles() else "no"


DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
            "dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout", "embedding_dropout", "mlp_dropout",
            "pooler_dropout")  # of all families


def make_model(job: Job, plan: Plan, profile: Any, task: Any, tell: Narrator) -> Any:
    """The encoder with a head for the task. Says which part is new. Raises `UserError`."""
    from functools import partial

    import torch
    config, asked_for = profile.only(plan.lang).teacher_config, job.settings["dropout"]
    settings = {} if asked_for is None else {name: asked_for for name in DROPOUTS if hasattr(config, name)}
    if plan.precision == "bf16" and not torch.cuda.is_available():
        settings["attn_implementation"] = "eager"  # measured: a tenth faster than PyTorch's fused attention, on a CPU
    settings |= {"classification": {"problem_type": "single_label_classification"}, "qa": {"num_labels": 2}}.get(task.name, {})
    set_threads(config.hidden_size)
    torch.manual_seed(job.settings["seed"])
    model = task.model(partial(profile.model, lang=plan.lang, ignore_mismatched_sizes=True), **settings)
    before = next(iter(config.architectures or []), "")
    same = settle_head(model, config, task)
    parts = {name for name, _ in model.named_children() if name != model.base_model_prefix and
             any(True for _ in getattr(model, name).parameters())}
    plan.head, plan.parameters = ", ".join(sorted(parts)), sum(p.numel() for p in model.parameters())
    reinitialise_top(model, job.settings["reinit"])
    check_layerwise(model, job.settings["llrd"])
    pooler = any(".pooler." in name for name in model.newly_initialised)
    new = plan.head + (", pooler" if pooler else "")
    en = f"the head ({plan.head}) goes on from the checkpoint's" if same else f"newly initialised: {new}"
    zh = f"任务头（{plan.head}）接着检查点里的训练" if same else f"新初始化：{new}"
    if not same and "For" in before and "PreTraining" not in before and "MaskedLM" not in before:
        en, zh = f"{en}, in place of the head of {before}", f"{zh}，换下了 {before} 的任务头"
    shape = f"{model.config.num_hidden_layers} × {model.config.hidden_size}"
    tell.state(f"model {base_name(job.model)}: {type(model).__name__}, {shape}, {plan.parameters:,} parameters; {en}",
               f"模型 {base_name(job.model)}：{type(model).__name__}，{shape}，{plan.parameters:,} 个参数；{zh}")
    return model


def settle_head(model: Any, config: Any, task: Any) -> bool:
    """Does the checkpoint's head (its configuration tells) go on, being one for the same labels? Any other is made anew."""
    before = next(iter(config.architectures or []), "")
    same = before == type(model).__name__ and (task.name == "qa" or list(config.id2label.values()) == list(model.config.id2label.values()))
    if not same:
        fresh_head(model)
    return same


def fresh_head(model: Any) -> None:
    """New weights for all that is not the encoder: another task's, or other labels', mean nothing here."""
    from torch import nn
    for name, part in model.named_children():
        for module in part.modules() if name != model.base_model_prefix else ():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def reinitialise_top(model: Any, layers: int) -> None:
    """New weights for the top layers. Raises `UserError`."""
    if not layers:
        return
    from bertcourse.finetuning import reinitialise
    from bertcourse.tasks import TaskError
    total = model.config.num_hidden_layers
    if layers > total:
        raise UserError(f"--reinit {layers} is more than the {total} layers of this model: choose fewer",
                        f"--reinit {layers} 超过了这个模型的 {total} 层：请减少")
    try:
        reinitialise(model, layers)
    except TaskError as error:
        raise UserError(f"--reinit: {error.en}", f"--reinit：{error.zh}") from None


def check_layerwise(model: Any, decay: float | None) -> None:
    """Raises `UserError` for a model whose layers cannot have a learning rate each."""
    if not decay:
        return
    from bertcourse.finetuning import layer_groups
    from bertcourse.tasks import TaskError
    try:
        layer_groups(model, 1.0, decay)
    except TaskError as error:
        raise UserError(f"--llrd: {error.en}", f"--llrd：{error.zh}") from None


def choose_max_length(job: Job, tokenizer: Any, train: Any, tell: Narrator) -> int:
    """`--max-length`, or what holds 99% of the training texts. Says how many are longer. Raises `UserError`."""
    from bertcourse.finetuning import choose_length
    asked_for, positions = job.settings["max_length"], tokenizer.model_max_length
    if asked_for != "auto" and asked_for > positions:
        raise UserError(f"--max-length {asked_for} is more than the {positions} positions of {base_name(job.model)}: choose at most "
                        "that, or another model",
                        f"--max-length {asked_for} 超过了 {base_name(job.model)} 的 {positions} 个位置：请不要超过它，或换一个模型")
    found = lengths(tokenizer, train)
    chosen = max(SHORTEST, choose_length(found, most=positions)) if asked_for == "auto" else asked_for
    share = sum(n > chosen for n in found) / len(found)
    windowed = kind_of(job.task) in ("ner", "qa")
    en, zh = ("seen in windows", "分窗口处理") if windowed else ("cut", "被截断")
    tell.state(f"length {chosen} pieces{' (auto)' if asked_for == 'auto' else ''}: {share:.1%} of the texts are longer and {en}",
               f"长度 {chosen} 个 token{'（自动）' if asked_for == 'auto' else ''}：{share:.1%} 的文本更长，{zh}")
    return chosen


def inputs(encoded: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the model takes of encoded rows; windows carry more, for decoding. Answers that could not be placed are left out."""
    from bertcourse.tasks import UNPLACED
    names = ("input_ids", "token_type_ids", "labels", "start_positions", "end_positions")
    return [{name: row[name] for name in names if name in row} for row in encoded if row.get("start_positions") != UNPLACED]


def count_unplaced(encoded: Sequence[Mapping[str, Any]]) -> int:
    """Questions whose answer gives no piece: nothing that a model could point at."""
    from bertcourse.tasks import UNPLACED
    return len({row["example"] for row in encoded if row.get("start_positions") == UNPLACED})


def longest_answer(encoded: Sequence[Mapping[str, Any]]) -> int:
    """Pieces that an answer may have: as many as the longest one of the training rows, `SHORTEST_LIMIT` at least."""
    from bertcourse.tasks import UNPLACED
    lengths = [row["end_positions"] - row["start_positions"] + 1 for row in encoded if row["start_positions"] != UNPLACED]
    return max([SHORTEST_LIMIT, *lengths])


# --- training -----------------------------------------------------------------------------------------------------

METRIC_NAMES = {"accuracy": "准确率", "macro_f1": "宏平均 F1", "mcc": "MCC", "pearson": "Pearson", "spearman": "Spearman", "mse": "均方误差",
                "f1": "F1", "precision": "精确率", "recall": "召回率", "exact": "完全匹配", "f1_answerable": "有答案的 F1",
                "f1_unanswerable": "无答案的 F1"}  # in Chinese; those that are shares are shown in percent
NUMBERS = ("mcc", "pearson", "spearman", "mse")


def shown(scores: Mapping[str, float | None], zh: bool) -> str:
    """Scores in a line."""
    return ("，" if zh else ", ").join(f"{METRIC_NAMES[name] if zh else name} {value_of(name, value)}"
                                      for name, value in scores.items() if name in METRIC_NAMES)


def value_of(name: str, value: float | None) -> str:
    """A score as people write it; "–" where it is not defined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if name in NUMBERS else f"{value:.1%}"


class Report:
    """A callback of `training.fit`: a line at each evaluation."""

    def __init__(self, plan: Plan, tell: Narrator) -> None:
        self.plan, self.tell = plan, tell

    def on_eval(self, state: Any) -> None:
        """Say how it stands."""
        if self.tell.quiet:
            return
        from tqdm import tqdm
        epoch, steps = state.epoch + state.position / state.size, self.plan.steps
        en = f"epoch {epoch:.3g}, step {state.step:,} of {steps:,}: loss {state.loss:.3f}; dev: {shown(state.dev, False)}"
        zh = f"第 {epoch:.3g} 轮，第 {state.step:,} 步（共 {steps:,} 步）：损失 {state.loss:.3f}；验证：{shown(state.dev, True)}"
        tqdm.write(zh if self.tell.zh else en, file=sys.stderr)


def train(job: Job, plan: Plan, task: Any, model: Any, data: Data, work: Path, tell: Narrator,
          interruption: Interruption) -> Any:  # a History
    """Fine-tune, from the newest checkpoint on if there is one. Raises `UserError` for what a user can mend."""
    from bertcourse.finetuning import FGM, PGD, layerwise
    from bertcourse.training import fit
    s = job.settings
    attack = {"fgm": FGM, "pgd": PGD}.get(s["adversarial"])
    optimizer = layerwise(plan.lr, s["llrd"], s["weight_decay"]) if s["llrd"] else None
    with training(plan.lr, work / "training" / "best", interruption):
        return fit(
            model, plan.inputs, dev=inputs(task.encode(data.splits["dev"])),
            metrics=task.metrics(data.splits["dev"]), better=task.better, epochs=s["epochs"], steps=s["steps"], lr=plan.lr,
            warmup=s["warmup"], weight_decay=s["weight_decay"], batch_size=s["batch_size"], collate=task.collate,
            patience=s["patience"], precision=plan.precision, optimizer=optimizer, seed=s["seed"], progress=tell.seen,
            callbacks=[interruption, Report(plan, tell), *([attack()] if attack else [])], out=work / "training", resume=True,
            save_every=SaveEvery(min(pretrain.SAVED_EVERY, max(1, plan.steps // 20)), interruption))


def evaluate(job: Job, task: Any, model: Any, data: Data, history: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # dev, test
    """The scores of the weights that are kept; tunes the threshold of questions without answers before."""
    row = history.best if job.settings["patience"] and history.best else next(r for r in reversed(history.rows) if "dev" in r)
    dev = dict(row["dev"])
    if task.name == "qa" and not all(answers["text"] for answers in data.splits["dev"]["answers"]):
        task.tune_threshold(model, data.splits["dev"])
        dev |= task.metrics(data.splits["dev"])(model)
    return dev, task.metrics(data.splits["test"])(model) if "test" in data.splits else {}


# --- the finished folder ------------------------------------------------------------------------------------------

def finite(value: Any) -> Any:
    """The same with None for what is no number: JSON has no nan."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any) -> None:
    """A JSON file for people, too."""
    path.write_text(json.dumps(finite(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def draw_curves(history: Any, metric: str, path: Path) -> None:
    """Losses, learning rate and the score on the development set."""
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    from bertcourse.plots import axes, dress, style
    figure, (left, middle, right) = axes(1, 3, (10.5, 3.0))
    with style():
        left.plot(*history.column("loss"), label="training")
        left.plot(*history.column("dev.loss"), marker="o", markersize=4, label="dev")
        left.legend()
        middle.plot(*history.column("lr"))
        right.plot(*history.column(f"dev.{metric}"), marker="o", markersize=4)
        for ax, name in [(left, "loss"), (middle, "learning rate"), (right, f"{metric}, dev")]:
            dress(ax, "step", name).grid(axis="y")
            ax.set_xlim(0, history.steps * 1.03)  # the same for all, though there is a score after each epoch only
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if metric not in NUMBERS:
            right.set_ylim(0, 1)
        figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


PIPELINES = {"classification": "text-classification", "pairs": "text-classification", "regression": "text-classification",
             "ner": "token-classification", "qa": "question-answering"}


def about_data(metrics: Mapping[str, Any]) -> str:
    """A part of a model card: the files, how many rows, the labels."""
    data = metrics["data"]
    files = "\n".join(f"| `{f['name']}` | {f['option']} | {f['bytes']:,} | `{f['sha256'][:16]}` |" for f in metrics["files"])
    rows = ", ".join(f"{option} {count:,}" for option, count in data["rows"].items())
    left_out = sum(data["skipped"].values())
    notes = "（dev 从训练文件里留出 / dev held out of the training file）" if data["held_out"] else ""
    notes += f"；跳过 / skipped: {left_out:,}" if left_out else ""
    notes += f"；改正了位置的答案 / answers moved: {moved:,}" if (moved := sum(data["moved"].values())) else ""
    labels = ", ".join(f"`{label}`" for label in metrics["labels"]) or "–"
    return f"""## 数据 / Data

| 文件 / file | | 字节 / bytes | SHA-256 |
|---|---|---|---|
{files}

条数 / rows: {rows}{notes}

标签 / labels: {labels}"""


def about_scores(metrics: Mapping[str, Any]) -> str:
    """A part of a model card: all scores."""
    test = metrics["test"]
    scores = "\n".join(f"| {METRIC_NAMES[k]} / {k} | {value_of(k, v)} |" + (f" {value_of(k, test[k])} |" if test else "")
                       for k, v in metrics["dev"].items() if k in METRIC_NAMES)
    head = "| | dev |" + (" test |\n|---|---|---|" if test else "\n|---|---|")
    return f"""## 得分 / Scores

{head}
{scores}

![loss, learning rate, score](curves.png)"""


def about_settings(metrics: Mapping[str, Any], beginning: str, steps: str, apart: Sequence[str]) -> str:
    """A part of a model card: what it began as (rows of a table), how it was trained; settings `apart` are told elsewhere."""
    s = metrics["settings"]
    others = ", ".join(f"{k} {v}" for k, v in s.items() if v not in (None, {}, 0) and k not in apart)
    threshold = "" if metrics["threshold"] is None else f"\n| 无答案的阈值 / threshold of no answer | {metrics['threshold']:.3g} |"
    kept = "最好的一轮 / the best evaluation" if s["patience"] else "最后一步 / the last step"
    return f"""## 设置 / Settings

| | |
|---|---|
{beginning}
| 训练 / training | {steps} steps, {metrics['seconds'] / 60:,.1f} min; 权重 / weights: {kept} |
| 学习率 / learning rate | {metrics['lr']:g} |
| 长度 / length | {metrics['max_length']} pieces |
| 精度 / precision | {metrics['precision']} |{threshold}
| 其他 / others | {others} |
| 命令 / command | `{metrics['command']}` |"""


def about_use(metrics: Mapping[str, Any], name: str, auto_class: str, example: str, warning: str) -> str:
    """The end of a model card: how to use the model, and what to beware of."""
    return f"""## 使用 / Use

```sh
{example}
```

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

{warning}

{', '.join(f'{package} {version}' for package, version in metrics['versions'].items())}
"""


def card(name: str, metrics: Mapping[str, Any], auto_class: str, example: str) -> str:
    """The model card, in both languages."""
    beginning = f"| 起点 / base model | `{metrics['model']}`, {metrics['parameters']:,} parameters, head: {metrics['head']} |"
    settings = about_settings(metrics, beginning, f"{metrics['steps']:,}", ("lr", "max_length", "precision", "lang"))
    warning = "它只为上面的数据打过分，未检查偏见与隐私。/ It was scored on the data above only, and was not examined for bias or private data."
    return f"""---
library_name: transformers
pipeline_tag: {PIPELINES[metrics['task']]}
language: {metrics['lang']}
tags: [bert, {metrics['task']}]
---

# {name}

用 `bertcourse finetune` 微调的模型，任务 {metrics['task']}。/ A model fine-tuned by `bertcourse finetune`, task {metrics['task']}.

{about_data(metrics)}

{about_scores(metrics)}

{settings}

{about_use(metrics, name, auto_class, example, warning)}"""


def example_of(used: Sequence[str], name: str) -> str:
    """A shell line that predicts."""
    row = {column: ["…", "…"] if column == "tokens" else "…" for column in used}
    words = json.dumps(row, ensure_ascii=False)
    return f"echo '{words}' | bertcourse predict {shlex.quote(name)}"


def assemble(job: Job, plan: Plan, name: str, work: Path, task: Any, model: Any, data: Data, history: Any) -> dict[str, Any]:
    """Put all that the finished folder is to hold into `work/model`; returns the metrics."""
    folder, training, kind = work / "model", work / "training", kind_of(job.task)
    shutil.rmtree(folder, ignore_errors=True)
    dev, test = evaluate(job, task, model, data, history)
    shutil.copytree(work / "tokenizer", folder)
    for file in [*training.glob("*.json"), *training.glob("*.safetensors")]:
        shutil.copyfile(file, folder / file.name)
    rows = "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in history.rows)
    (folder / "history.jsonl").write_text(rows, encoding="utf-8")
    base, threshold, used = base_name(job.model), getattr(task, "threshold", None), inputs_of(data.splits["train"])
    about = {"task": kind, "labels": list(task.labels), "max_length": task.max_length, "lang": plan.lang, "threshold": threshold,
             "max_answer_length": getattr(task, "max_answer_length", None),
             "columns": job.settings["columns"], "inputs": used, "model": base, "bertcourse": __version__}
    write_json(folder / ABOUT, about)
    metrics = finite({
        "task": kind, "dev": dev, "test": test, "seconds": round(history.seconds, 1), "seed": job.settings["seed"],
        "command": job.command, "steps": history.steps, "best_step": history.best and history.best["step"], "model": base,
        "head": plan.head, "parameters": plan.parameters, "lr": plan.lr, "precision": plan.precision, "lang": plan.lang,
        "max_length": task.max_length, "labels": list(task.labels), "threshold": threshold, "files": job.files,
        "data": {"rows": data.counts(), "skipped": data.skipped, "moved": data.moved, "held_out": data.held_out}, "settings": job.settings,
        "versions": pretrain.versions(),
    })
    text = card(name, metrics, task.auto_class.__name__, example_of(used, name))
    (folder / "README.md").write_text(text, encoding="utf-8")
    draw_curves(history, task.better[0], folder / "curves.png")
    write_json(folder / METRICS, metrics)
    return metrics


def summary(out: Path, metrics: Mapping[str, Any], lang: str) -> str:
    """What a person wants to know at the end."""
    zh, lines = lang == "zh", []
    steps, minutes = metrics["steps"], metrics["seconds"] / 60
    lines.append(f"{out}：{steps:,} 步，{minutes:.1f} 分钟" if zh else f"{out}: {plural(steps, 'step')}, {minutes:.1f} minutes")
    lines += [f"{part}{'：' if zh else ': '}{shown(metrics[part], zh)}" for part in ("dev", "test") if metrics[part]]
    lines.append(f"模型卡：{out / 'README.md'}" if zh else f"model card: {out / 'README.md'}")
    return "\n".join(lines)


# --- the run ------------------------------------------------------------------------------------------------------

def count_steps(job: Job, count: int) -> int:
    """Steps in all. Raises `UserError` when the warm-up leaves none of them."""
    s = job.settings
    steps = s["steps"] or s["epochs"] * math.ceil(count / s["batch_size"])
    if 1 <= s["warmup"] >= steps:
        raise UserError(f"--warmup {s['warmup']:g} leaves nothing of {plural(steps, 'step')}: shorten it",
                        f"共 {steps} 步，--warmup 就要 {s['warmup']:g} 步：请缩短")
    return steps


def get_ready(job: Job, data: Data, tell: Narrator) -> tuple[Plan, Any, Any]:  # plan, task, model
    """Choose what was left open, and load the model. Raises `UserError`."""
    from transformers.utils import logging

    from bertcourse import profiles
    from bertcourse.tasks import for_words, task_of
    logging.set_verbosity_error()  # what matters is said below
    profile = profiles.load(job.model)
    lang = job.settings["lang"]
    if lang == "auto":
        lang = language_of(data.splits["train"])
        lang = lang if lang in profile.languages else profile.languages[0]
    tokenizer, config = profile.tokenizer(lang), profile.only(lang).teacher_config
    if kind_of(job.task) == "ner":
        tokenizer = for_words(tokenizer)
    rate, auto_rate = job.settings["lr"], job.settings["lr"] == "auto"
    plan = Plan(lang, learning_rate(config.hidden_size) if auto_rate else rate, choose_precision(job.settings["precision"], config), 0)
    length = choose_max_length(job, tokenizer, data.splits["train"], tell)
    task = task_of(kind_of(job.task), data.splits["train"], tokenizer, max_length=length, lang=lang)
    model = make_model(job, plan, profile, task, tell)
    encoded = task.encode(data.splits["train"])
    plan.inputs = inputs(encoded)
    if unplaced := count_unplaced(encoded):
        tell.state(f"{plural(unplaced, 'question')} left out of training: the tokenizer gives no piece for the answer",
                   f"有 {unplaced:,} 个问题不参加训练：分词器对它的答案切不出任何 token")
    if task.name == "qa":
        asked_for = job.settings["max_answer_length"]
        task.max_answer_length = asked_for or longest_answer(encoded)
        tell.state(f"answers of at most {plural(task.max_answer_length, 'piece')}{'' if asked_for else ' (auto)'}",
                   f"答案最多 {task.max_answer_length} 个 token{'' if asked_for else '（自动）'}")
    plan.steps = count_steps(job, len(plan.inputs))
    how = f" (auto, width {config.hidden_size})" if auto_rate else ""
    tell.state(f"{plural(plan.steps, 'step')} of {job.settings['batch_size']}, learning rate {plan.lr:g}{how}, "
               f"precision {plan.precision}, language {lang}",
               f"{plan.steps:,} 步，每步 {job.settings['batch_size']} 条，学习率 {plan.lr:g}{how.replace('auto, width', '自动，宽度')}，"
               f"精度 {plan.precision}，语言 {lang}")
    return plan, task, model


def save_tokenizer(job: Job, lang: str, length: int, folder: Path) -> None:
    """A fresh one: what was used to cut would tell of that in its file."""
    from bertcourse import profiles
    from bertcourse.tasks import for_words
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = profiles.load(job.model).tokenizer(lang)
    if kind_of(job.task) == "ner":
        tokenizer = for_words(tokenizer)
    tokenizer.model_max_length = length
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
        compare(args, metrics)
        shutil.rmtree(args.out / WORK, ignore_errors=True)  # of a run that was killed while it tidied up
        return metrics
    tell = Narrator(lang, args.quiet)
    job = recorded(args) if found == "unfinished" else asked(args)
    data = read(job, tell)
    plan, task, model = get_ready(job, data, tell)
    with Workplace(args.out, interruption) as place, writing():
        state["place"], work = place, place.path
        job.write(work / "run.json")
        if not (work / "tokenizer").is_dir():
            save_tokenizer(job, plan.lang, task.max_length, work / "tokenizer")
        history = train(job, plan, task, model, data, work, tell, interruption)
        metrics = assemble(job, plan, name_of(args.out), work, task, model, data, history)
        place.finish()
    return metrics


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Fine-tune and report: 0, or 130 when interrupted. Raises `UserError`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # of scores where all rows, or all guesses, are of one class
        return conduct("finetune", args, start, summary)
