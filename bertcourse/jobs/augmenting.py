"""Variants of the rows of a file or a pipe, by Algorithm 1 of TinyBERT, as JSON lines.

It holds one batch at a time where the input is JSON lines or text, and writes each batch as soon as it is done; what
stands in tables is read whole, as for `finetune`. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from bertcourse.base.errors import UserError
from bertcourse.base.machine import threads_for
from bertcourse.base.messages import plural
from bertcourse.jobs.data import language_of_text
from bertcourse.jobs.options import COUNT, LANGUAGE, SEED, SHARE, TEXT_FORMATS, Choice, FileOptions, Labels, as_path, option
from bertcourse.jobs.reading import file_name, first_line, is_typed, open_lines, recognise
from bertcourse.jobs.reporter import Reporter
from bertcourse.jobs.rows import Source, as_files
from bertcourse.jobs.writing import as_output, check_output, is_terminal, open_output, output_errors
from bertcourse.models.answers import CHINESE, DIGITS, cut
from bertcourse.models.checkpoint import open_checkpoint
from bertcourse.models.kinds import ALIASES, TARGETS, TASKS, base_task, check_inputs
from bertcourse.models.predictor import Predictor, batches

LANGUAGE_ROWS = 32  # rows that tell the language; not a batch, so that its size changes nothing
UNIT = re.compile(rf"[{CHINESE}]|[^\s{CHINESE}]+")  # what counts as a word where changes are counted


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class AugmentOptions(FileOptions):
    """The options of `augment`."""

    file: str = "-"
    task: str | None = option(Choice(*TASKS, *ALIASES))
    model: str | None = None
    teacher: str | None = None
    labels: list[str] | None = option(Labels())
    vectors: Path | None = None
    out: Path | TextIO | None = None
    n: int = option(COUNT, 20)
    p: float = option(SHARE, 0.4)
    k: int = option(COUNT, 15)
    seed: int = option(SEED, 0)
    lang: str = option(LANGUAGE, "auto")
    batch_size: int = option(COUNT, 32)
    only_new: bool = False
    format: str | None = option(TEXT_FORMATS)

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything is read."""
        if self.labels is not None and self.teacher is None:
            raise UserError("--labels are names for the labels of --teacher: give one, or leave it out",
                            "--labels 给 --teacher 的标签命名：请给出教师，或去掉它")
        if self.task == "qa":
            raise UserError("rows of qa cannot be augmented, their answers are places in the text and would move: choose another --task",
                            "qa 的数据无法增强：答案是原文里的位置，换词后会错位；请换一个 --task")
        self.require("augment", ("task", "model"))
        check_output(self.out, self.file)


# --- input --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class LocatedRow:
    """A row, and where it stands: `at.error(en, zh)` is a `UserError` that says so."""

    at: Any  # a bertcourse.files.Location
    row: dict[str, Any]


@dataclass
class Input:
    """Rows as they come."""

    rows: Iterable[LocatedRow]
    total: int | None = None  # where it is known
    skipped: int = 0  # rows whose annotators did not agree


@contextlib.contextmanager
def open_rows(options: AugmentOptions, reporter: Reporter) -> Iterator[Input]:
    """The input. Raises `UserError`."""
    with open_lines(options.file) as lines:
        found = recognise(lines, options, [options.task], (), reporter)
        if found.format not in (None, "text"):
            yield read_table(options, found.lines.read(), found.format)
        else:
            yield read_lines(options, found.lines)


def read_table(options: AugmentOptions, content: bytes, format: str) -> Input:
    """The rows of a table, a CoNLL file or a JSON array, with labels if it has any. Raises `UserError`."""
    from bertcourse import files
    rows = files.read(options.task, options.file, options.columns, None, format=format, encoding=options.encoding, content=content)
    return Input([LocatedRow(rows.at(i), row) for i, row in enumerate(rows.rows)], len(rows), rows.skipped.total())


def read_lines(options: AugmentOptions, lines: Iterable[bytes | str]) -> Input:
    """The rows of JSON lines, with labels if they have any, or of text, as they come. Raises `UserError`."""
    from bertcourse.files import lacks_agreement, stream_located
    first, lines = first_line(lines)
    task, as_json = options.task, first.lstrip().startswith("{")
    as_words = base_task(task) == "ner" and not as_json  # whole lines, to be cut as `predict` cuts them

    def rows() -> Iterator[LocatedRow]:
        signs, before = set(), None
        located = stream_located("classification" if as_words else task, lines, options.columns, file_name(options.file), labelled=as_json)
        for at, row in located:
            row.pop("id", None)  # variants would share it
            if not as_json:
                check_text(task, row, before is None, at)
                row = {"tokens": cut(row["sentence"])["tokens"]} if as_words else row
            if before is not None and row.keys() != before.keys():
                raise at.error(f"{', '.join(row)}, but {', '.join(before)} before: make the rows alike",
                               f"这一行有 {'、'.join(row)}，前面的行有 {'、'.join(before)}：请统一")
            before = row
            if lacks_agreement(task, row.get("label"), signs, at):
                found.skipped += 1
                continue
            yield LocatedRow(at, row)

    found = Input(rows())
    return found


def check_text(task: str, row: Mapping[str, Any], first: bool, at: Any) -> None:
    """Raises `UserError` for the line of a table, whose label would be taken for words of the text."""
    from bertcourse.files import as_bio
    text = row.get("sentence", "")
    words = text.split()
    if base_task(task) == "classification" and "\t" in text:
        raise at.error("a tab in a text: let the name of a table end in .tsv, or write JSON lines",
                       "文本里有制表符：如果是表格，请把扩展名改为 .tsv，或写成 JSON，一行一个对象")
    if first and base_task(task) == "ner" and len(words) > 1 and all(map(as_bio, words[1:][-2:])):  # two: "Send an E-mail" is no table
        raise at.error("a word and its tag: let the name of a CoNLL file end in .conll, or write JSON lines",
                       "是一个词和它的标签：如果是 CoNLL 文件，请把扩展名改为 .conll，或写成 JSON，一行一个对象")


def text_columns(row: Mapping[str, Any]) -> list[str]:
    """The columns that hold text."""
    return [column for column in row if column not in TARGETS]


def language_of(rows: Iterable[LocatedRow]) -> str:
    """Of most of the rows."""
    texts = [[located.row[column] for column in text_columns(located.row)] for located in rows]
    return language_of_text(json.dumps(texts, ensure_ascii=False))


# --- the models ---------------------------------------------------------------------------------------------------

class Hints:
    """Lines above the progress bar, each of them once."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.topics = reporter, set()

    def __call__(self, topic: str, en: str, zh: str) -> None:
        """Say a line about a topic, unless there was one."""
        if topic not in self.topics:
            self.reporter.above_bar(en, zh)
        self.topics.add(topic)


def neighbours(vectors: Path | None, hints: Hints) -> Callable[[str, int], Sequence[str]]:
    """What gives the neighbours of a word of several pieces. Raises `UserError`."""
    from bertcourse.tinybert import Vectors
    if vectors is None:
        def none(word: str, k: int) -> tuple[str, ...]:
            hints("vectors", "words of several tokens stay as they are: --vectors FILE gives neighbours for them",
                  "由多个 token 组成的词保持原样：用 --vectors FILE 可以为它们给出近邻")
            return ()
        return none
    return Vectors.read(vectors.expanduser()).near


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


def open_augmenter(options: AugmentOptions, profile: Any, lang: str | None, near: Callable) -> Any:  # a bertcourse.tinybert.Augmenter
    """Load the model that fills gaps. Raises `UserError`."""
    import torch
    from transformers import AutoModelForMaskedLM

    from bertcourse.tinybert import Augmenter
    tokenizer = profile.tokenizer(lang)
    model = profile.model(AutoModelForMaskedLM, lang).to("cuda" if torch.cuda.is_available() else "cpu")
    check_model(options.model, tokenizer, model)
    augmenter = Augmenter(tokenizer, model, near, options.p, options.k)
    most = int(augmenter._allowed.sum(1).max())
    if options.k > most:
        raise UserError(f"-k {options.k} is more than the {most:,} whole words of {options.model}: choose at most that",
                        f"-k {options.k} 超过了 {options.model} 的 {most:,} 个整词：请不要超过它")
    return augmenter


def open_teacher(options: AugmentOptions) -> Predictor | None:
    """Load the model that labels, if there is to be one. Raises `UserError`."""
    if options.teacher is None:
        return None
    import torch
    teacher, name, kind = open_checkpoint(options.teacher, options.labels), options.teacher, base_task(options.task)
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
class Augmentation:
    """What turns rows into more of them."""

    options: AugmentOptions
    augmenter: Any
    teacher: Predictor | None
    hints: Hints
    counts: Counts = field(default_factory=Counts)

    @property
    def width(self) -> int:
        """The hidden size of the wider of its models, which needs more threads."""
        models = [self.augmenter.model] + ([self.teacher.model] if self.teacher else [])
        return max(model.config.hidden_size for model in models)

    def augment(self, batch: Sequence[LocatedRow]) -> list[dict[str, Any]]:
        """What is written for a batch of rows. Raises `UserError`."""
        for located in batch:
            self.check_row(located)
        columns, counts, options = text_columns(batch[0].row), self.counts, self.options
        texts = [tuple(located.row[column] for column in columns) for located in batch]
        found = self.augmenter(texts, options.n, options.seed, counts.read)
        made, unlabelled = [], []
        for located, text, variants in zip(batch, texts, found):
            new = [located.row | dict(zip(columns, variant)) for variant in variants]
            old = [] if options.only_new else [located.row]
            unlabelled += new if len(located.row) > len(columns) else old + new
            made += old + new
            count_changes(counts, text, variants)
        if self.teacher:
            self.give_labels(unlabelled)
        elif len(batch[0].row) > len(columns):
            self.hints("labels", "the variants keep the labels of their rows, right or wrong: --teacher DIR gives them anew",
                       "变体沿用原来那一条的标签，不论是否还对：用 --teacher DIR 可以重新标注")
        counts.read += len(batch)
        counts.written += len(made)
        return made

    def check_row(self, located: LocatedRow) -> None:
        """Raises `UserError` for a row that is not what the teacher was trained on."""
        teacher, name = self.teacher, self.options.teacher
        if teacher is None:
            return
        check_inputs(teacher.inputs, teacher.kind, located.row, name)
        labels = [located.row.get("label")]
        if "ner_tags" in located.row:
            from bertcourse.tasks import in_scheme
            labels = in_scheme(located.row["ner_tags"], teacher.task.labels)
        strange = next((label for label in labels if isinstance(label, str) and label not in teacher.task.labels), None)
        if strange is not None:
            known = ", ".join(teacher.task.labels[:10])
            raise located.at.error(
                f"{name} does not know the label {strange!r}, only {known}: give a teacher of these labels, or with --labels the names of its own",
                f"{name} 没有标签 {strange!r}，只有 {known}：请给出用这些标签训练的教师，或用 --labels 写出它的标签名")

    def give_labels(self, rows: Sequence[dict[str, Any]]) -> None:
        """What the teacher says of rows, by name, in place."""
        from bertcourse.tasks import repair
        from bertcourse.tinybert import teacher_labels
        task = self.teacher.task
        for row, labelled in zip(rows, teacher_labels(task, self.teacher.model, rows)):
            if "ner_tags" in labelled:
                tags, = task.truth([labelled])
                row["ner_tags"] = tags if task.meaning is None else repair(tags)
            else:
                row["label"] = task.labels[labelled["label"]] if task.labels else round(labelled["label"], DIGITS)


def words_of(text: str | Sequence[str]) -> list[str]:
    """The words of a text, of a list of words the list; Chinese characters are words. Case does not count."""
    return [word.lower() for word in (UNIT.findall(text) if isinstance(text, str) else text)]


def count_changes(counts: Counts, row: Sequence[Any], variants: Sequence[Sequence[Any]]) -> None:
    """Words with letters or digits, in those texts of a variant that were to be changed."""
    split = [words_of(text) for text in row]
    for v, variant in enumerate(variants):
        turn = v % len(row)
        for before, after in zip(split[turn], words_of(variant[turn])):
            if any(map(str.isalnum, before)):
                counts.words += 1
                counts.changed += before != after


def report(counts: Counts, skipped: int, reporter: Reporter) -> None:
    """Say what a person wants to know at the end."""
    share = counts.changed / max(counts.words, 1)
    en = f"{plural(counts.read, 'row')} read, {counts.written:,} written, {share:.1%} of the words changed"
    zh = f"读入 {counts.read:,} 条，写出 {counts.written:,} 条，变体里 {share:.1%} 的词已换"
    if skipped:
        en, zh = f"{en}, {skipped:,} skipped: label \"-\"", f"{zh}，跳过 {skipped:,} 条：标签为“-”"
    reporter.info(en, zh)


# --- the run ------------------------------------------------------------------------------------------------------

def prepare(options: AugmentOptions, found: Input, reporter: Reporter) -> tuple[Augmentation, Iterator[LocatedRow]]:  # and all rows
    """Load what the work needs. Raises `UserError`."""
    from transformers.utils import logging

    from bertcourse import profiles
    logging.set_verbosity_error()  # what matters becomes a `UserError`
    hints, rows = Hints(reporter), iter(found.rows)
    near, profile = neighbours(options.vectors, hints), profiles.load(options.model)
    lang = None if options.lang == "auto" else options.lang
    if lang is None and not isinstance(profile.encoder, str):  # an encoder for each language
        first = list(islice(rows, 1 if is_typed(options.file) else LANGUAGE_ROWS))
        lang, rows = language_of(first), chain(first, rows)
    return Augmentation(options, open_augmenter(options, profile, lang, near), open_teacher(options), hints), rows


def run_augmenting(options: AugmentOptions, reporter: Reporter) -> list[dict[str, Any]] | None:
    """Check all, then write the rows and their variants to `options.out`, a batch at a time, or return them where it is None.

    Raises `UserError`.
    """
    options.check()
    with output_errors(options.out), open_rows(options, reporter) as found:
        work, rows = prepare(options, found, reporter)
        with threads_for(work.width), open_output(options.out) as out:
            for batch in show_progress(options, found, rows, reporter.progress and not is_terminal(options.out)):
                out.add(work.augment(batch), options.teacher or "")
            if not work.counts.read and options.file != "-":
                raise UserError(f"{options.file} is empty: there is nothing to augment", f"{options.file} 是空的：没有可以增强的内容")
    report(work.counts, found.skipped, reporter)
    return out.rows if options.out is None else None


def show_progress(options: AugmentOptions, found: Input, rows: Iterable[LocatedRow], visible: bool) -> Iterator[list[LocatedRow]]:
    """Batches of the rows, with a bar where it disturbs nobody."""
    from tqdm import tqdm
    typed = is_typed(options.file)
    with tqdm(total=found.total, unit=" rows", disable=typed or not visible, leave=False) as bar:
        for batch in batches(rows, 1 if typed else options.batch_size):
            yield batch
            bar.update(len(batch))


def augment(
    file: Source = "-",  # a file or its .gz (default: -, standard input)
    *,
    task: str,  # classification, pairs, regression or ner (or sentiment, nli, similarity)
    model: str,  # that predicts masked words: tiny, base, a folder, or its owner/name on the hub
    teacher: str | None = None,  # fine-tuned model that labels the variants (default: they keep the row's label)
    labels: Sequence[str] | None = None,  # with --teacher: names for its labels in their order: bad,good, or a JSON list
    vectors: str | Path | None = None,  # word vectors as text (GloVe, word2vec); without, words of several tokens stay
    out: str | Path | TextIO | None = None,  # write there when all is done (default: standard output; in Python a list)
    n: int = 20,  # variants of each row (default: 20)
    p: float = 0.4,  # probability that a word changes (default: 0.4)
    k: int = 15,  # candidates for a word (default: 15)
    seed: int = 0,  # of the words that change (default: 0)
    lang: str = "auto",  # en, zh or auto (default: auto, that of the first rows)
    batch_size: int = 32,  # rows at a time (default: 32)
    only_new: bool = False,  # write the variants without the rows
    columns: str | Mapping[str, str] | None = None,  # what the file calls them, or their numbers: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll, squad or text (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    quiet: bool = False,  # say nothing but errors
) -> list[dict[str, Any]] | None:
    """Make more training rows: each row of a file, or in memory, and then its variants. Returns a list of them, or writes JSON lines.

    `file` is a file, a list of dicts, a `datasets.Dataset` or a `pandas.DataFrame`, `out` a file or an open stream; where it is given,
    nothing is returned. Raises `bertcourse.base.errors.UserError` for what a user can fix.
    """
    with as_files(dict(locals()), ["file"]) as values:
        names = {name: None if values[name] is None else str(values[name]) for name in ("file", "model", "teacher")}
        options = AugmentOptions.of(values | names | {"vectors": as_path(vectors), "out": as_output(out)})
        return run_augmenting(options, Reporter(quiet))
