"""`bertcourse predict`: run a fine-tuned model on each line or row of a file or a pipe; JSON lines in the same order.

It holds one batch at a time, whatever the length of the input, and writes each batch as soon as it is done.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from bertcourse.app import labels as names
from bertcourse.app.exported import RUNTIMES, is_exported, open_exported
from bertcourse.app.finetune import ABOUT, TASKS, base_name
from bertcourse.app.messages import UserError, plural, reader_language
from bertcourse.app.pretrain import check_writable, load, unusable, whole
from bertcourse.app.reading import HEAD, add_options, as_numbers, check_fit, inform, kinds_of, peek, read_for
from bertcourse.base.atomic import _beside
from bertcourse.base.display import json_of
from bertcourse.base.encodings import GZIP
from bertcourse.base.machine import set_threads
from bertcourse.serving.answers import cut, result

QA_SETTINGS = ("threshold", "max_answer_length")  # of a `bertcourse.tasks.Answering`, kept with the model
HEADS = {"SequenceClassification": "classification", "TokenClassification": "ner", "QuestionAnswering": "qa"}
EPILOG = """FILE: a text per line (a pair: two, a tab between them), or a JSON object
  {"sentence": …}, {"sentence1": …, "sentence2": …}, {"tokens": [...]}, {"question": …, "context": …}
or what `bertcourse finetune` reads: a table, CoNLL, SQuAD; labels in it are not used, or with
--labelled compared. A row's "id" is repeated. What is written, a line for each (blank: {}):
  classification, pairs  {"label", "probability"} and with --scores {"scores"}; regression {"score"}
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
    add("file", nargs="?", default="-", metavar="FILE", help="a file or its .gz (default: -, standard input)")
    add("--out", type=Path, metavar="FILE", help="write there when all is done (default: standard output)")
    add("--batch-size", type=whole(1), default=32, metavar="N", help="lines at a time (default: 32)")
    add("--scores", action="store_true", help="the probabilities of all labels, too")
    add("--labelled", action="store_true", help="compare with the file's labels: scores on stderr, \"gold\" in each line")
    add("--metrics", type=Path, metavar="FILE", help="with --labelled: write the scores there, as JSON")
    add("--max-answer-length", type=whole(1), metavar="N", help="qa: pieces of an answer (default: that of the model, else 30)")
    add("--blank", choices=("keep", "skip"), default="keep", metavar="HOW", help="blank lines: keep (an empty object, default) or skip")
    add_options(parser, text=True)
    add("--labels", type=names.names, metavar="LIST", help=names.HELP)
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
    name: str = ""  # for messages


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


def open_model(name: str, labels: Sequence[str] | None = None) -> Predictor:
    """Load a folder; `labels` are names for the model's. Raises `UserError` if it holds no fine-tuned model."""
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
    known = tuple(config.id2label[i] for i in sorted(config.id2label)) if kind not in ("regression", "qa") else ()
    length = min(about.get("max_length") or tokenizer.model_max_length, tokenizer.model_max_length)
    task = TASK_TYPES[kind](tokenizer, known, max_length=length, lang=about.get("lang") or profile.languages[0])
    for setting in QA_SETTINGS:
        if kind == "qa" and about.get(setting) is not None:
            setattr(task, setting, about[setting])
    set_threads(config.hidden_size)
    model = profile.model(task.auto_class)
    if model.newly_initialised:
        raise not_fine_tuned(name, f"{type(model).__name__} without {model.newly_initialised[0]}")
    made = Predictor(kind, task, model, about.get("columns") or {}, about.get("inputs") or [], base_name(name))
    if labels:
        names.rename(made, labels, made.name)
    return made


# --- input --------------------------------------------------------------------------------------------------------

@contextmanager
def reading(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file or of standard input, plain or gzip, as they come. Raises `UserError`."""
    if file == "-" and sys.stdin is not None and sys.stdin.isatty():
        print("每行一条；按 Ctrl-D 结束" if reader_language() == "zh" else "a text per line; Ctrl-D ends it", file=sys.stderr)
        yield sys.stdin.buffer
        return
    with standard_input() if file == "-" else opened_file(file) as plain, \
            gzip.open(plain) if plain.peek(2)[:2] == GZIP else contextlib.nullcontext(plain) as lines:
        try:
            yield lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{file} is damaged ({error}): pack it again", f"{file} 已损坏（{error}）：请重新压缩") from None


@contextmanager
def standard_input() -> Iterator[Any]:
    """Standard input as a binary file that can be peeked into; it stays open. Raises `UserError`."""
    if sys.stdin is None:
        raise UserError("there is no standard input: name a file", "没有标准输入：请写出文件名")
    lines = sys.stdin.buffer
    yield lines if hasattr(lines, "peek") else io.BufferedReader(lines)


def opened_file(file: str) -> Any:
    """A binary file. Raises `UserError`."""
    try:
        return open(file, "rb", buffering=HEAD)
    except OSError as error:
        en, zh = next((said for kind, *said in UNREADABLE if isinstance(error, kind)), (error.strerror, error.strerror))
        raise UserError(f"{file} cannot be read: {en}", f"{file} 无法读取：{zh}") from None


UNREADABLE = [(FileNotFoundError, "there is no such file: check its name", "没有这个文件：请检查文件名"),
              (IsADirectoryError, "it is a folder: name a file in it", "它是文件夹：请写出其中的文件")]


@dataclass
class Input:
    """What is to be predicted on."""

    rows: Iterable[dict[str, Any] | None]  # None: a blank line
    gold: Sequence[dict[str, Any]] = ()  # the same with labels as names, where they are to be compared
    truth: Sequence[dict[str, Any]] = ()  # the same with labels as numbers


def read_input(args: argparse.Namespace, predictor: Predictor, lines: Any) -> Input:
    """The rows of a file or of standard input: lines one by one, all else as a whole. Raises `UserError`.

    lines: a binary file that can be peeked into.
    """
    name = "" if args.file == "-" else Path(args.file).name
    if args.labelled:
        return read_whole(args, predictor, lines.read(), name or "-", args.format)
    found = peek(lines, args.file, kinds_of(predictor), args, predictor.task.labels)
    if found.format not in (None, "text"):
        return read_whole(args, predictor, lines.read(), name or "-", found.format)
    if found.format is None:
        check_tabs(predictor, found.head, name)
    blank = args.blank == "keep" and not (args.file == "-" and sys.stdin.isatty())
    return Input(rows_of(predictor, found.lines, name, blank, args.columns, found.format == "text"))


def check_tabs(predictor: Predictor, head: str, name: str) -> None:
    """Raises `UserError` for tabs in every line where a sentence is wanted: a table of which nobody knows the columns."""
    lines = [line for line in head.split("\n") if line.strip()]
    if predictor.inputs != ["sentence"] or not all("\t" in line for line in lines) or not lines:
        return
    raise UserError(f"{name or 'the input'} has tabs in its lines: say --format text where a line is one text, or --format tsv with "
                    "--columns sentence=NUMBER",
                    f"{name or '输入'} 的每一行都有制表符：整行是一个文本就写 --format text，是表格就写 --format tsv 和 --columns sentence=序号")


def read_whole(args: argparse.Namespace, predictor: Predictor, content: bytes, name: str, found: str | None) -> Input:
    """The rows of a table, a CoNLL file, a SQuAD file, or of any file with labels. Raises `UserError`."""
    if found == "text":
        raise UserError("--labelled needs labels, and lines of text have none: give a table, JSON lines, CoNLL or SQuAD",
                        "--labelled 要有标签，而纯文本没有：请给出表格、JSON、CoNLL 或 SQuAD 文件")
    rows = read_for(predictor, name, args.columns, args.labelled, format=found, encoding=args.encoding, content=content)
    for said in (rows.understood, rows.example):
        inform(said.en, said.zh)
    if args.labelled:
        rows, = names.settle(predictor, {"file": rows}, predictor.name, SimpleNamespace(state=inform)).values()
    ids = [{"id": id} if id is not None else {} for id in rows.ids]
    plain = [id | row for id, row in zip(ids, rows.rows)]
    return Input(plain, *((rows.rows, as_numbers(rows, predictor.task.labels)) if args.labelled else ()))


def rows_of(predictor: Predictor, lines: Iterable[bytes | str], name: str, blank: bool = False,
            columns: Mapping[str, str] | None = None, text: bool = False) -> Iterator[dict[str, Any] | None]:
    """The rows of lines of text or JSON; the first that is not blank tells which it is. Raises `UserError`.

    blank: give None for a blank line; columns: asked for, else those of the training; text: lines are text, whatever they hold.
    """
    from bertcourse import files
    lines, before = iter(lines), []
    for line in lines:
        before.append(line)
        if line.strip():
            break
    else:
        return iter(())
    first, kind = before[-1], predictor.kind
    first = first.lstrip("\ufeff") if isinstance(first, str) else first.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    keys: Sequence[str] = ()
    if first.lstrip().startswith("{") and not text:
        with suppress(ValueError):  # `stream` says what is wrong
            keys = [*json.loads(first)]
    elif kind == "ner":
        found = files.stream("classification", chain(before, lines), name=name, blank=blank)
        return (row and cut(row["sentence"]) for row in found)
    if kind == "classification" and not predictor.inputs:  # nobody says whether it was trained on pairs
        with suppress(files.FileError):
            next(files.stream("pairs", [first]))
            kind = "pairs"
    if columns is None:
        columns = {ours: theirs for ours, theirs in predictor.columns.items() if theirs in keys and ours in (*predictor.inputs, "id")}
    return files.stream(kind, chain(before, lines), columns, name, blank)


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows, the last perhaps shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


# --- output -------------------------------------------------------------------------------------------------------

def text_of(batch: Sequence[Mapping[str, Any]], name: str) -> str:
    """JSON lines. Raises `UserError` for what is no number, which JSON cannot say."""
    try:
        return "".join(json_of(row, allow_nan=False) + "\n" for row in batch)
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
        return open_exported(args.model, args.runtime or RUNTIMES[0], labels=args.labels)
    if args.runtime:
        raise UserError(f"--runtime is for exported models, {args.model} is none: leave it out, or run `bertcourse export` first",
                        f"--runtime 用于导出的模型，{args.model} 不是：请去掉它，或先运行 `bertcourse export`")
    import torch  # seconds
    predictor = open_model(args.model, args.labels)
    predictor.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return predictor


def predict(predictor: Predictor, rows: Iterable[Mapping[str, Any] | None], name: str,
            batch_size: int) -> Iterator[list[tuple[Mapping[str, Any] | None, dict[str, Any] | None]]]:
    """Rows, each with its prediction, a batch at a time; for None, a blank line, None. Raises `UserError`."""
    for batch in batches(rows, batch_size):
        given = [row for row in batch if row is not None]
        for row in given:
            check_fit(predictor.inputs, predictor.kind, row, name)
        found = iter(predictor.task.predict(predictor.model, given, batch_size) if given else ())
        yield [(row, None if row is None else next(found)) for row in batch]


TARGETS = {"ner": "ner_tags", "qa": "answers"}  # of the other tasks: label


def gold_of(kind: str, row: Mapping[str, Any]) -> Any:
    """What is right: a label, a number, tags, or the texts of the answers."""
    gold = row[TARGETS.get(kind, "label")]
    return gold["text"] if kind == "qa" else gold


def report(args: argparse.Namespace, predictor: Predictor, predictions: Sequence[dict[str, Any]], truth: Sequence[Any]) -> None:
    """Say how good the predictions are. Raises `UserError`."""
    from bertcourse.app.finetune import shown, write_json
    scores = predictor.task.score(predictions, truth)
    inform(f"{plural(len(truth), 'row')}: {shown(scores, False)}", f"{len(truth):,} 条：{shown(scores, True)}")
    if args.metrics:
        write_json(args.metrics, scores | {"rows": len(truth)})


def set_answer_length(predictor: Predictor, asked_for: int | None) -> None:
    """Raises `UserError` for a model that gives no answers."""
    if asked_for is None:
        return
    if predictor.kind != "qa":
        raise UserError(f"--max-answer-length is for answers to questions, this model is for {predictor.kind}: leave it out",
                        f"--max-answer-length 用于问答，这个模型的任务是 {predictor.kind}：请去掉它")
    predictor.task.max_answer_length = asked_for


def write_predictions(args: argparse.Namespace, predictor: Predictor, given: Input, out: TextIO) -> None:
    """A line for each row, as soon as its batch is done; then the scores, if they are asked for. Raises `UserError`."""
    kind, lang, kept, gold, count = predictor.kind, predictor.task.lang, [], iter(given.gold), 0
    somebody_types = args.file == "-" and sys.stdin.isatty()  # and waits for the answer to each line
    for batch in predict(predictor, given.rows, args.model, 1 if somebody_types else args.batch_size):
        made = [{} if row is None else result(kind, said, row, lang, args.scores) for row, said in batch]
        if args.labelled:
            made = [row | {"gold": gold_of(kind, right)} for row, right in zip(made, gold)]
            kept += [said for _, said in batch]
        out.write(text_of(made, args.model))
        out.flush()  # for whoever waits at the other end of a pipe
        count += sum(row is not None for row, _ in batch)
    if not count and args.file != "-":
        raise UserError(f"{args.file} is empty: there is nothing to predict", f"{args.file} 是空的：没有可预测的内容")
    if args.labelled:
        report(args, predictor, kept, given.truth)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Predict and write: 0. Raises `UserError`."""
    check_out(args.out, args.file)
    check_out(args.metrics, args.file)
    if args.metrics and not args.labelled:
        raise UserError("--metrics needs --labelled: give both, or neither", "--metrics 要和 --labelled 一起用：请都写上，或都去掉")
    try:
        with reading(args.file) as lines:
            predictor = opened(args)
            set_answer_length(predictor, args.max_answer_length)
            given = read_input(args, predictor, lines)
            with writing(args.out) as out:
                write_predictions(args, predictor, given, out)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unusable(args.out or Path("standard output"), error) from None
    return 0
