"""`bertcourse augment`: variants of the rows of a file or a pipe, by Algorithm 1 of TinyBERT, as JSON lines.

It holds one batch at a time where the input is JSON lines or text, and writes each batch as soon as it is done; what
stands in tables is read whole, as for `bertcourse finetune`. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bertcourse.app import labels
from bertcourse.app.finetune import ALIASES, TASKS, Narrator, kind_of, language_in
from bertcourse.app.messages import UserError, plural, reader_language
from bertcourse.app.predict import UNREADABLE, batches, check_out, open_model, reading, text_of, writing
from bertcourse.app.pretrain import unusable, whole
from bertcourse.app.reading import add_options, check_fit, peek
from bertcourse.base.machine import set_threads
from bertcourse.serving.answers import CHINESE, DIGITS, cut

KINDS = tuple(kind for kind in TASKS if kind != "qa")
TARGETS = ("label", "ner_tags")
LOOK = 32  # rows that tell the language; not a batch, so that its size changes nothing
UNIT = re.compile(rf"[{CHINESE}]|[^\s{CHINESE}]+")  # what counts as a word where changes are counted
USAGE = "bertcourse augment [FILE|-] --task TASK --model MODEL [option ...]"
EPILOG = """others: -n N variants of each row (20), -p X probability that a word changes (0.4), -k N candidates for it (15),
  --seed N (0), --lang en|zh|auto (auto: of the first rows), --batch-size N rows at a time (32), --quiet
FILE holds what `bertcourse finetune` reads, labels or none, or a text per line (a pair: two, a tab between).
Written for finetune and distill: each row, then its variants, with "sentence", "sentence1" and "sentence2" (one of
them changed at a time) or "tokens", and "label" or "ner_tags". Words of several pieces change with --vectors only.
"""


# --- arguments ----------------------------------------------------------------------------------------------------

def probability(text: str) -> float:
    """An argument from 0 to 1, both of them allowed."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20, width=110)
    add = parser.add_argument
    add("file", nargs="?", default="-", metavar="FILE", help="a file or its .gz (default: -, standard input)")
    add("--task", choices=(*TASKS, *ALIASES), metavar="TASK", help=f"{', '.join(KINDS)} (or {', '.join(ALIASES)})")
    add("--model", metavar="MODEL", help="that predicts masked words: tiny, base, a folder, or its owner/name on the hub")
    add("--teacher", metavar="DIR", help="fine-tuned model that labels the variants (default: they keep the row's label)")
    add("--labels", type=labels.names, metavar="LIST", help=f"with --teacher: {labels.HELP}")
    add("--vectors", type=Path, metavar="FILE", help="word vectors as text, as GloVe and word2vec have them")
    add("--out", type=Path, metavar="FILE", help="write there when all is done (default: standard output)")
    add_options(parser, text=True, default={})
    add("--only-new", action="store_true", help="write the variants without the rows")
    for option, read, default in [("-n", whole(1), 20), ("-p", probability, 0.4), ("-k", whole(1), 15), ("--seed", whole(0), 0),
                                  ("--batch-size", whole(1), 32)]:
        add(option, type=read, default=default, help=argparse.SUPPRESS)
    add("--lang", choices=("en", "zh", "auto"), default="auto", help=argparse.SUPPRESS)
    add("--quiet", action="store_true", help=argparse.SUPPRESS)


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything is read. Raises `UserError`."""
    if args.labels is not None and args.teacher is None:
        raise UserError("--labels are names for the labels of --teacher: give one, or leave it out",
                        "--labels 给 --teacher 的标签命名：请给出教师，或去掉它")
    if args.task == "qa":
        raise UserError("rows of qa cannot be augmented, their answers are places in the text and would move: choose another --task",
                        "qa 的数据无法增强：答案是原文里的位置，换词后会错位；请换一个 --task")
    absent = [f"--{name}" for name in ("task", "model") if getattr(args, name) is None]
    if absent:
        raise UserError(f"{', '.join(absent)} must be given: see `bertcourse augment --help`",
                        f"缺少 {'、'.join(absent)}：请看 `bertcourse augment --help`")
    check_out(args.out, args.file)


# --- input --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Placed:
    """A row, and where it stands: `at.error(en, zh)` is a `UserError` that says so."""

    at: Any  # a bertcourse.files._At
    row: dict[str, Any]


@dataclass
class Input:
    """Rows as they come."""

    rows: Iterable[Placed]
    total: int | None = None  # where it is known
    skipped: int = 0  # rows whose annotators did not agree


def read_table(args: argparse.Namespace, content: bytes, found: str) -> Input:
    """The rows of a table, a CoNLL file or a JSON array, with labels if it has any. Raises `UserError`."""
    from bertcourse import files
    rows = files.read(args.task, args.file, args.columns, None, format=found, encoding=args.encoding, content=content)
    return Input([Placed(rows.at(i), row) for i, row in enumerate(rows.rows)], len(rows), rows.skipped.total())


def label_of(task: str, raw: Mapping[str, Any], row: Mapping[str, Any], names: Mapping[str, str], at: Any) -> dict[str, Any]:
    """The label of a JSON object; none if it has none. Raises `UserError`."""
    from bertcourse import files
    target = files.TASKS[task][-1]
    theirs = files._find(task, target, raw, names)
    if theirs is None:
        if target in names:
            files._choose(task, raw, names, True, at)  # says that the column is not there
        return {}
    if target == "ner_tags":
        return {target: files._tags(raw[theirs], row["tokens"], at)}
    return files._made(task, {target: theirs}, raw, at)


def check_text(task: str, text: str, first: bool, at: Any) -> None:
    """Raises `UserError` for the line of a table, whose label would be taken for words of the text."""
    from bertcourse.files import _bio
    fields = text.split()
    if kind_of(task) == "classification" and "\t" in text:
        raise at.error("a tab in a text: let the name of a table end in .tsv, or write JSON lines",
                       "文本里有制表符：如果是表格，请把扩展名改为 .tsv，或写成 JSON，一行一个对象")
    if first and kind_of(task) == "ner" and len(fields) > 1 and all(map(_bio, fields[1:][-2:])):  # two: "Send an E-mail" is no table
        raise at.error("a word and its tag: let the name of a CoNLL file end in .conll, or write JSON lines",
                       "是一个词和它的标签：如果是 CoNLL 文件，请把扩展名改为 .conll，或写成 JSON，一行一个对象")


def first_line(lines: Iterator[bytes | str]) -> tuple[str, Iterator[bytes | str]]:
    """The first line that is not blank, "" if there is none, and all lines again."""
    before = []
    for line in lines:
        before.append(line)
        if line.strip():
            break
    first = before[-1] if before else ""
    first = first.decode("utf-8", "replace") if isinstance(first, bytes) else first
    return first.lstrip("\ufeff").lstrip(), chain(before, lines)


def read_lines(task: str, lines: Iterable[bytes | str], names: Mapping[str, str], name: str) -> Input:
    """The rows of JSON lines, with labels if they have any, or of text, as they come. Raises `UserError`."""
    from bertcourse import files
    said, lines = first_line(iter(lines))
    as_json, number, line = said.startswith("{"), 0, b""

    def watched() -> Iterator[bytes | str]:  # `stream` does not say which line a row is of
        nonlocal number, line
        for number, line in enumerate(lines, 1):
            yield line

    def rows() -> Iterator[Placed]:
        judge, first = files.Rows(task, Path(name), files.Said("", "")), None
        as_text = "classification" if kind_of(task) == "ner" else task  # whole lines, to be cut as `predict` cuts them
        for row in files.stream(task if as_json else as_text, watched(), names if as_json else None, name):
            at = files._At(name, number)
            row.pop("id", None)  # variants would share it
            if as_json:
                row |= label_of(task, json.loads(line.decode("utf-8-sig") if isinstance(line, bytes) else line.removeprefix("\ufeff")), row, names, at)
            elif "sentence" in row:
                check_text(task, row["sentence"], first is None, at)
                row = {"tokens": cut(row["sentence"])["tokens"]} if kind_of(task) == "ner" else row
            if first is not None and row.keys() != first.keys():
                raise at.error(f"{', '.join(row)}, but {', '.join(first)} before: make the rows alike",
                               f"这一行有 {'、'.join(row)}，前面的行有 {'、'.join(first)}：请统一")
            first = row
            if task in ("nli", "pairs") and judge._disagreement(number, row.get("label")):
                found.skipped += 1
                continue
            yield Placed(at, row)

    found = Input(rows())
    return found


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Input]:
    """The input. Raises `UserError`."""
    with reading(args.file) as lines:
        found = peek(lines, args.file, [args.task], args)
        if found.format not in (None, "text"):
            yield read_table(args, found.lines.read(), found.format)
        else:
            yield read_lines(args.task, found.lines, args.columns, "" if args.file == "-" else Path(args.file).name)


def inputs_of(row: Mapping[str, Any]) -> list[str]:
    """The columns that hold text."""
    return [column for column in row if column not in TARGETS]


def language_of(rows: Iterable[Placed]) -> str:
    """Of most of the rows."""
    return language_in(json.dumps([[placed.row[column] for column in inputs_of(placed.row)] for placed in rows], ensure_ascii=False))


# --- the models ---------------------------------------------------------------------------------------------------

class Once:
    """Says things on stderr, each of them once, whatever bar is shown there."""

    def __init__(self, tell: Narrator) -> None:
        self.tell, self.said = tell, set()

    def __call__(self, about: str, en: str, zh: str) -> None:
        """A line, unless nothing is to be said, or it has been."""
        if about not in self.said and not self.tell.quiet:
            from tqdm import tqdm
            tqdm.write(zh if self.tell.zh else en, file=sys.stderr)
        self.said.add(about)


def neighbours(vectors: Path | None, once: Once) -> Callable[[str, int], Sequence[str]]:
    """What gives the neighbours of a word of several pieces. Raises `UserError`."""
    from bertcourse.tinybert import Vectors
    if vectors is None:
        def none(word: str, k: int) -> tuple[str, ...]:
            once("vectors", "words of several pieces stay as they are: --vectors FILE gives neighbours for them",
                 "由多个 token 组成的词保持原样：用 --vectors FILE 可以为它们给出近邻")
            return ()
        return none
    try:
        return Vectors.read(vectors.expanduser()).near
    except OSError as error:
        en, zh = next((said for kind, *said in UNREADABLE if isinstance(error, kind)), (error.strerror, error.strerror))
        raise UserError(f"{vectors} cannot be read: {en}", f"{vectors} 无法读取：{zh}") from None
    except UnicodeDecodeError:
        raise UserError(f"{vectors} is not UTF-8 text: unpack it, or save the vectors in text format",
                        f"{vectors} 不是 UTF-8 文本：请解压，或把词向量另存为文本格式") from None


def check_model(name: str, tokenizer: Any, model: Any) -> None:
    """Raises `UserError` for a model that cannot fill gaps, or not with whole words of WordPiece."""
    import torch
    if model.newly_initialised:
        raise UserError(f"{name} has no head for masked words ({model.newly_initialised[0]} is missing): give tiny, base, or the model "
                        "as it was before it was fine-tuned",
                        f"{name} 没有预测被遮词的任务头（缺 {model.newly_initialised[0]}）：请给出 tiny、base，或微调之前的模型")
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
        raise UserError(f"{name} does not cut words into WordPieces: give a model that does, such as base",
                        f"{name} 用的不是 WordPiece 分词：请换一个用 WordPiece 的模型，例如 base")
    ids = torch.tensor([[tokenizer.cls_token_id, tokenizer.mask_token_id, tokenizer.sep_token_id]], device=model.device)
    with torch.no_grad():
        if not model(input_ids=ids).logits.isfinite().all():
            raise UserError(f"{name} gives nan instead of numbers, its weights are damaged: train it again, or get it again",
                            f"{name} 给出的不是数而是 nan，权重已损坏：请重新训练，或重新取得")


def open_augmenter(args: argparse.Namespace, profile: Any, lang: str | None, near: Callable) -> Any:  # a bertcourse.tinybert.Augmenter
    """Load the model that fills gaps. Raises `UserError`."""
    import torch
    from transformers import AutoModelForMaskedLM

    from bertcourse.tinybert import Augmenter
    tokenizer = profile.tokenizer(lang)
    model = profile.model(AutoModelForMaskedLM, lang).to("cuda" if torch.cuda.is_available() else "cpu")
    set_threads(model.config.hidden_size)
    check_model(args.model, tokenizer, model)
    augmenter = Augmenter(tokenizer, model, near, args.p, args.k)
    most = int(augmenter._allowed.sum(1).max())
    if args.k > most:
        raise UserError(f"-k {args.k} is more than the {most:,} whole words of {args.model}: choose at most that",
                        f"-k {args.k} 超过了 {args.model} 的 {most:,} 个整词：请不要超过它")
    return augmenter


def open_teacher(name: str | None, kind: str, labels: Sequence[str] | None = None) -> Any:  # a Predictor, or None
    """Load the model that labels; `labels` are names for its own. Raises `UserError`."""
    if name is None:
        return None
    import torch
    teacher = open_model(name, labels)
    unsure = not teacher.inputs and {kind, teacher.kind} == {"classification", "pairs"}  # its head is the same for both
    if teacher.kind != kind and not unsure:
        raise UserError(f"{name} was fine-tuned for {teacher.kind}, --task is {kind}: give a teacher for {kind}",
                        f"{name} 是为 {teacher.kind} 微调的，--task 却是 {kind}：请给出 {kind} 的教师")
    teacher.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return teacher


# --- the work -----------------------------------------------------------------------------------------------------

@dataclass
class Counts:
    """What is said at the end."""

    read: int = 0
    written: int = 0
    words: int = 0
    changed: int = 0


@dataclass
class Work:
    """What turns rows into more of them."""

    augmenter: Any
    once: Once
    n: int
    seed: int = 0
    only_new: bool = False
    teacher: Any = None
    teacher_name: str = ""
    counts: Counts = field(default_factory=Counts)


def check_row(work: Work, placed: Placed) -> None:
    """Raises `UserError` for a row that is not what the teacher was trained on."""
    teacher, name = work.teacher, work.teacher_name
    check_fit(teacher.inputs, teacher.kind, placed.row, name)
    said = placed.row.get("ner_tags") or [placed.row.get("label")]
    if "ner_tags" in placed.row:
        from bertcourse.tasks import in_scheme
        said = in_scheme(said, teacher.task.labels)
    strange = next((label for label in said if isinstance(label, str) and label not in teacher.task.labels), None)
    if strange is not None:
        known = ", ".join(teacher.task.labels[:10])
        raise placed.at.error(f"{name} does not know the label {strange!r}, only {known}: give a teacher of these labels, or with --labels "
                              "the names of its own", f"{name} 没有标签 {strange!r}，只有 {known}：请给出用这些标签训练的教师，或用 --labels 写出它的标签名")


def give_labels(work: Work, rows: Sequence[dict[str, Any]]) -> None:
    """What the teacher says of rows, by name, in place."""
    from bertcourse.tasks import repair
    from bertcourse.tinybert import teacher_labels
    task = work.teacher.task
    for row, said in zip(rows, teacher_labels(task, work.teacher.model, rows)):
        if "ner_tags" in said:
            tags, = task.truth([said])
            row["ner_tags"] = tags if task.meaning is None else repair(tags)
        else:
            row["label"] = task.labels[said["label"]] if task.labels else round(said["label"], DIGITS)


def units(text: str | Sequence[str]) -> list[str]:
    """The words of a text, of a list of words the list; Chinese characters are words. Case does not count."""
    return [word.lower() for word in (UNIT.findall(text) if isinstance(text, str) else text)]


def count_changes(counts: Counts, row: Sequence[Any], variants: Sequence[Sequence[Any]]) -> None:
    """Words with letters or digits, in those texts of a variant that were to be changed."""
    split = [units(text) for text in row]
    for v, variant in enumerate(variants):
        turn = v % len(row)
        for before, after in zip(split[turn], units(variant[turn])):
            if any(map(str.isalnum, before)):
                counts.words += 1
                counts.changed += before != after


def make(work: Work, batch: Sequence[Placed]) -> list[dict[str, Any]]:
    """What is written for a batch of rows. Raises `UserError`."""
    for placed in batch:
        if work.teacher:
            check_row(work, placed)
    names = inputs_of(batch[0].row)
    texts = [tuple(placed.row[name] for name in names) for placed in batch]
    found = work.augmenter(texts, work.n, work.seed, work.counts.read)
    made, unlabelled = [], []
    for placed, text, variants in zip(batch, texts, found):
        new = [placed.row | dict(zip(names, variant)) for variant in variants]
        old = [] if work.only_new else [placed.row]
        unlabelled += new if len(placed.row) > len(names) else old + new
        made += old + new
        count_changes(work.counts, text, variants)
    if work.teacher:
        give_labels(work, unlabelled)
    elif len(batch[0].row) > len(names):
        work.once("labels", "the variants keep the labels of their rows, right or wrong: --teacher DIR gives them anew",
                  "变体沿用原来那一条的标签，不论是否还对：用 --teacher DIR 可以重新标注")
    work.counts.read += len(batch)
    work.counts.written += len(made)
    return made


def summary(counts: Counts, skipped: int, zh: bool) -> str:
    """What a person wants to know at the end."""
    share = counts.changed / max(counts.words, 1)
    if zh:
        said = f"读入 {counts.read:,} 条，写出 {counts.written:,} 条，变体里 {share:.1%} 的词已换"
        return said + (f"，跳过 {skipped:,} 条：标签为“-”" if skipped else "")
    said = f"{plural(counts.read, 'row')} read, {counts.written:,} written, {share:.1%} of the words changed"
    return said + (f", {skipped:,} skipped: label \"-\"" if skipped else "")


def start(args: argparse.Namespace, found: Input, tell: Narrator, typed: bool) -> tuple[Work, Iterator[Placed]]:  # and all rows
    """Load what the work needs. Raises `UserError`."""
    from transformers.utils import logging

    from bertcourse import profiles
    logging.set_verbosity_error()  # what matters becomes a `UserError`
    once, rows, kind = Once(tell), iter(found.rows), kind_of(args.task)
    near, profile = neighbours(args.vectors, once), profiles.load(args.model)
    lang = None if args.lang == "auto" else args.lang
    if lang is None and not isinstance(profile.encoder, str):  # an encoder for each language
        first = list(islice(rows, 1 if typed else LOOK))
        lang, rows = language_of(first), chain(first, rows)
    augmenter, teacher = open_augmenter(args, profile, lang, near), open_teacher(args.teacher, kind, args.labels)
    return Work(augmenter, once, args.n, args.seed, args.only_new, teacher, args.teacher or ""), rows


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Augment and write: 0. Raises `UserError`."""
    check_arguments(args)
    tell = Narrator(reader_language(), args.quiet)
    try:
        with opened(args) as found:
            typed = args.file == "-" and sys.stdin.isatty()  # and somebody waits for the answer to each line
            work, rows = start(args, found, tell, typed)
            hidden = not tell.seen or typed or args.out is None and sys.stdout.isatty()
            from tqdm import tqdm
            with writing(args.out) as out, tqdm(total=found.total, unit=" rows", disable=hidden, leave=False) as bar:
                for batch in batches(rows, 1 if typed else args.batch_size):
                    out.write(text_of(make(work, batch), work.teacher_name))
                    out.flush()  # for whoever waits at the other end of a pipe
                    bar.update(len(batch))
                if not work.counts.read and args.file != "-":
                    raise UserError(f"{args.file} is empty: there is nothing to augment", f"{args.file} 是空的：没有可以增强的内容")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unusable(args.out or Path("standard output"), error) from None
    said = summary(work.counts, found.skipped, tell.zh)
    tell.state(said, said)
    return 0
