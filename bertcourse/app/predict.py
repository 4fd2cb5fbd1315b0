"""`bertcourse predict`: what a fine-tuned model says of each line of a file or a pipe, as JSON lines in the same order.

It holds one batch at a time, whatever the length of the input, and writes each batch as soon as it is done.
"""

from __future__ import annotations

import argparse
import codecs
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from bertcourse.app.atomic import _beside
from bertcourse.app.exported import RUNTIMES, is_exported, open_exported
from bertcourse.app.finetune import ABOUT, TASKS
from bertcourse.app.messages import UserError, reader_language
from bertcourse.app.pretrain import check_writable, load, unusable, whole
from bertcourse.serving.answers import cut, result

HEADS = {"SequenceClassification": "classification", "TokenClassification": "ner", "QuestionAnswering": "qa"}
EPILOG = """FILE: a text per line (a pair: two, a tab between them), or a JSON object; blank lines are left out
  {"sentence": …}, {"sentence1": …, "sentence2": …}, {"tokens": [...]}, {"question": …, "context": …}
A JSON object's "id" is repeated. What is written, a line for each:
  classification, pairs  {"label", "probability"} and with --scores {"scores"}
  regression             {"score"}
  ner                    {"tags", "spans": [{"label", "text", "start", "end", "probability"}]}
                         start and end count characters of a line, but words of JSON tokens
  qa                     {"answer", "start", "end", "probability"}, "" for no answer
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = "bertcourse predict DIR [FILE|-] [option ...]", EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=18, width=100)
    add = parser.add_argument
    add("model", metavar="DIR", help="folder of a fine-tuned model, also an exported one, or its owner/name on the hub")
    add("file", nargs="?", default="-", metavar="FILE", help="UTF-8 or its .gz (default: -, standard input)")
    add("--out", type=Path, metavar="FILE", help="write there when all is done (default: standard output)")
    add("--batch-size", type=whole(1), default=32, metavar="N", help="lines at a time (default: 32)")
    add("--scores", action="store_true", help="the probabilities of all labels, too")
    add("--runtime", choices=RUNTIMES, metavar="NAME", help=f"of an exported model: {' or '.join(RUNTIMES)} (default: {RUNTIMES[0]})")


# --- the model ----------------------------------------------------------------------------------------------------

@dataclass
class Predictor:
    """A fine-tuned model and what its folder says of it."""

    kind: str  # one of `TASKS`
    task: Any  # a bertcourse.tasks.Task
    model: Any
    columns: dict[str, str]  # ours: theirs
    inputs: list[str]  # columns it was trained on; empty where nobody knows


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


def open_model(name: str) -> Predictor:
    """Load a folder. Raises `UserError` if it holds no fine-tuned model."""
    from transformers.utils import logging

    from bertcourse import profiles
    from bertcourse.tasks import TASK_TYPES
    logging.set_verbosity_error()  # what matters becomes a `UserError`
    profile = profiles.load(name)
    config = profile.teacher_config if isinstance(profile.encoder, str) else None
    if config is None:  # the profile "base": an encoder for each language
        raise not_fine_tuned(name, "")
    by_head = task_by_head(config, name)
    about = load(Path(profile.encoder) / ABOUT)
    kind = about.get("task", by_head)
    if kind not in TASKS or TASK_TYPES[kind].auto_class is not TASK_TYPES[by_head].auto_class:
        raise UserError(f"{name}: {ABOUT} says {kind}, but the model is a {config.architectures[0]}: remove that file, or get it again",
                        f"{name}：{ABOUT} 里的任务是 {kind}，模型却是 {config.architectures[0]}：请删掉那个文件，或重新取得")
    tokenizer = profile.tokenizer()
    labels = tuple(config.id2label[i] for i in sorted(config.id2label)) if kind not in ("regression", "qa") else ()
    length = min(about.get("max_length") or tokenizer.model_max_length, tokenizer.model_max_length)
    task = TASK_TYPES[kind](tokenizer, labels, max_length=length, lang=about.get("lang") or profile.languages[0])
    if kind == "qa" and about.get("threshold") is not None:
        task.threshold = about["threshold"]
    model = profile.model(task.auto_class)
    if model.newly_initialised:
        raise not_fine_tuned(name, f"{type(model).__name__} without {model.newly_initialised[0]}")
    return Predictor(kind, task, model, about.get("columns") or {}, about.get("inputs") or [])


# --- input --------------------------------------------------------------------------------------------------------

@contextmanager
def reading(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file, plain or gzip, or of standard input, as they come. Raises `UserError`."""
    if file == "-":
        if sys.stdin is None:
            raise UserError("there is no standard input: name a file", "没有标准输入：请写出文件名")
        if sys.stdin.isatty():
            print("每行一条；按 Ctrl-D 结束" if reader_language() == "zh" else "a text per line; Ctrl-D ends it", file=sys.stderr)
        yield sys.stdin.buffer
        return
    try:
        plain = open(file, "rb")
    except OSError as error:
        en, zh = next((said for kind, *said in UNREADABLE if isinstance(error, kind)), (error.strerror, error.strerror))
        raise UserError(f"{file} cannot be read: {en}", f"{file} 无法读取：{zh}") from None
    with plain, gzip.open(plain) if plain.peek(2)[:2] == b"\x1f\x8b" else plain as lines:
        try:
            yield lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{file} is damaged ({error}): pack it again", f"{file} 已损坏（{error}）：请重新压缩") from None


UNREADABLE = [(FileNotFoundError, "there is no such file: check its name", "没有这个文件：请检查文件名"),
              (IsADirectoryError, "it is a folder: name a file in it", "它是文件夹：请写出其中的文件")]
def rows_of(predictor: Predictor, lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """The rows of lines of text or JSON; the first that is not blank tells which it is. Raises `UserError`."""
    from bertcourse import files
    lines, before = iter(lines), []
    for line in lines:
        before.append(line)
        if line.strip():
            break
    else:
        return iter(())
    said, kind = before[-1].removeprefix(codecs.BOM_UTF8).lstrip(), predictor.kind
    keys: Sequence[str] = ()
    if said.startswith(b"{"):
        with suppress(ValueError):  # `stream` says what is wrong
            keys = [*json.loads(said)]
    elif kind == "ner":
        return (cut(row["sentence"]) for row in files.stream("classification", chain(before, lines), name=name))
    if kind == "classification" and not predictor.inputs:  # nobody says whether it was trained on pairs
        with suppress(files.FileError):
            next(files.stream("pairs", [said]))
            kind = "pairs"
    columns = {ours: theirs for ours, theirs in predictor.columns.items() if theirs in keys}
    columns = {ours: theirs for ours, theirs in columns.items() if ours in (*predictor.inputs, "id")}
    return files.stream(kind, chain(before, lines), columns, name)


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows, the last perhaps shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


# --- output -------------------------------------------------------------------------------------------------------

def text_of(batch: Sequence[Mapping[str, Any]], name: str) -> str:
    """JSON lines. Raises `UserError` for what is no number, which JSON cannot say."""
    try:
        return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in batch)
    except ValueError:
        raise UserError(f"{name} gives nan instead of numbers, its weights are damaged: train it again",
                        f"{name} 给出的不是数而是 nan，权重已损坏：请重新训练") from None


@contextmanager
def writing(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there when all of it is. Raises `UserError`."""
    if out is None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8, whatever the terminal
        yield sys.stdout
        return
    temporary = _beside(out, "tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_out(out: Path | None, file: str) -> None:
    """Raises `UserError` if the output cannot be written, or would take the place of the input."""
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file with --out", f"{out} 是文件夹：请用 --out 写出文件名")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no regular file: leave --out out and redirect to it", f"{out} 不是普通文件：请去掉 --out，改用重定向")
    if file != "-" and out.exists() and os.path.exists(file) and out.samefile(file):
        raise UserError(f"{out} is the input: choose another file with --out", f"{out} 就是输入文件：请用 --out 换一个")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: make it, or choose another file with --out",
                        f"没有 {folder} 这个文件夹：请先建立，或用 --out 换一个文件")
    check_writable(folder)


# --- the run ------------------------------------------------------------------------------------------------------

def opened(args: argparse.Namespace) -> Predictor:
    """The model where it runs fastest. Raises `UserError`."""
    if is_exported(args.model):
        return open_exported(args.model, args.runtime or RUNTIMES[0])
    if args.runtime:
        raise UserError(f"--runtime is for exported models, {args.model} is none: leave it out, or run `bertcourse export` first",
                        f"--runtime 用于导出的模型，{args.model} 不是：请去掉它，或先运行 `bertcourse export`")
    import torch  # seconds
    predictor = open_model(args.model)
    predictor.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return predictor


def check_fit(predictor: Predictor, row: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if a row is not what the model was trained on."""
    absent = [column for column in predictor.inputs if column not in row]
    if absent:
        has = ", ".join(column for column in row if column not in ("id", "text", "offsets"))
        raise UserError(f"{name} ({predictor.kind}) reads {', '.join(predictor.inputs)}, the input has {has}: give what it was "
                        "trained on", f"{name}（{predictor.kind}）读的是 {'、'.join(predictor.inputs)}，输入里却是 {has}：请给出训练时那样的输入")


def predict(predictor: Predictor, rows: Iterable[Mapping[str, Any]], name: str, batch_size: int,
            scores: bool) -> Iterator[list[dict[str, Any]]]:
    """What is written, a batch at a time. Raises `UserError`."""
    task, lang = predictor.task, predictor.task.lang
    for batch in batches(rows, batch_size):
        for row in batch:
            check_fit(predictor, row, name)
        found = task.predict(predictor.model, batch, batch_size)
        yield [result(predictor.kind, said, row, lang, scores) for said, row in zip(found, batch)]


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Predict and write: 0. Raises `UserError`."""
    check_out(args.out, args.file)
    try:
        with reading(args.file) as lines:
            predictor = opened(args)
            rows = rows_of(predictor, lines, "" if args.file == "-" else Path(args.file).name)
            somebody_types = args.file == "-" and sys.stdin.isatty()  # and waits for the answer to each line
            with writing(args.out) as out:
                count = 0
                for batch in predict(predictor, rows, args.model, 1 if somebody_types else args.batch_size, args.scores):
                    out.write(text_of(batch, args.model))
                    out.flush()  # for whoever waits at the other end of a pipe
                    count += len(batch)
                if not count and args.file != "-":
                    raise UserError(f"{args.file} is empty: there is nothing to predict", f"{args.file} 是空的：没有可预测的内容")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unusable(args.out or Path("standard output"), error) from None
    return 0
