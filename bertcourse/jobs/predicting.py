"""Run a fine-tuned model on each line or row of a file or a pipe: JSON lines in the same order.

It holds one batch at a time, whatever the length of the input, and writes each batch as soon as it is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import write_json
from bertcourse.base.machine import threads_for
from bertcourse.base.messages import plural
from bertcourse.jobs.options import COUNT, TEXT_FORMATS, Choice, FileOptions, Labels, as_model, as_path, option
from bertcourse.jobs.reading import file_name, first_line, is_typed, kinds_of, open_lines, read_for, recognise, service_columns
from bertcourse.jobs.reporter import Reporter, format_scores, in_notebook
from bertcourse.jobs.rows import Source, as_files
from bertcourse.jobs.writing import Output, as_output, check_output, open_output, output_errors
from bertcourse.models import load
from bertcourse.models.answers import cut, result
from bertcourse.models.kinds import RUNTIMES
from bertcourse.models.labels import as_numbers, match_labels
from bertcourse.models.predictor import Predictor

TARGETS = {"ner": "ner_tags", "qa": "answers"}  # of the other tasks: label


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class PredictOptions(FileOptions):
    """The options of `predict`."""

    model: str
    file: str = "-"
    out: Path | TextIO | None = None
    batch_size: int = option(COUNT, 32)
    scores: bool = False
    labelled: bool = False
    metrics: Path | None = None
    max_answer_length: int | None = option(COUNT)
    blank: str = option(Choice("keep", "skip"), "keep")
    format: str | None = option(TEXT_FORMATS)
    labels: list[str] | None = option(Labels())
    runtime: str | None = option(Choice(*RUNTIMES))

    def check(self) -> None:
        """Raises `UserError` for what can be said before the model is loaded."""
        check_output(self.out, self.file)
        check_output(self.metrics, self.file)
        if self.metrics and not self.labelled:
            raise UserError("--metrics needs --labelled: give both, or neither", "--metrics 要和 --labelled 一起用：请都写上，或都去掉")


# --- input --------------------------------------------------------------------------------------------------------

@dataclass
class Input:
    """What is to be predicted on."""

    rows: Iterable[dict[str, Any] | None]  # None: a blank line
    gold: Sequence[dict[str, Any]] = ()  # the same with labels as names, where they are to be compared
    truth: Sequence[dict[str, Any]] = ()  # the same with labels as numbers


def read_input(options: PredictOptions, predictor: Predictor, lines: Any, reporter: Reporter) -> Input:
    """The rows of a file or of standard input: lines one by one, all else as a whole. Raises `UserError`.

    lines: of `bertcourse.jobs.reading.open_lines`.
    """
    if options.labelled:
        return read_whole(options, predictor, lines.read(), options.format, reporter)
    found = recognise(lines, options, kinds_of(predictor), predictor.task.labels, reporter)
    if found.format not in (None, "text"):
        return read_whole(options, predictor, lines.read(), found.format, reporter)
    if found.format is None:
        check_tabs(predictor, found.head, file_name(options.file))
    return Input(stream_rows(options, predictor, found.lines))


def check_tabs(predictor: Predictor, head: str, name: str) -> None:
    """Raises `UserError` for tabs in every line where a sentence is wanted: a table of which nobody knows the columns."""
    lines = [line for line in head.split("\n") if line.strip()]
    if predictor.inputs != ["sentence"] or not all("\t" in line for line in lines) or not lines:
        return
    raise UserError(f"{name or 'the input'} has tabs in its lines: say --format text where a line is one text, or --format tsv with "
                    "--columns sentence=NUMBER",
                    f"{name or '输入'} 的每一行都有制表符：整行是一个文本就写 --format text，是表格就写 --format tsv 和 --columns sentence=序号")


def read_whole(options: PredictOptions, predictor: Predictor, content: bytes, format: str | None, reporter: Reporter) -> Input:
    """The rows of a table, a CoNLL file, a SQuAD file, or of any file with labels. Raises `UserError`."""
    if format == "text":
        raise UserError("--labelled needs labels, and lines of text have none: give a table, JSON lines, CoNLL or SQuAD",
                        "--labelled 要有标签，而纯文本没有：请给出表格、JSON、CoNLL 或 SQuAD 文件")
    name = file_name(options.file) or "-"
    rows = read_for(predictor, name, options.columns, options.labelled, format=format, encoding=options.encoding, content=content)
    reporter.rows(rows)
    if options.labelled:
        rows, = match_labels(predictor, {"file": rows}, predictor.name, reporter).values()
    plain = [row if id is None else {"id": id} | row for id, row in zip(rows.ids, rows.rows)]
    return Input(plain, *((rows.rows, as_numbers(rows, predictor.task.labels)) if options.labelled else ()))


def stream_rows(options: PredictOptions, predictor: Predictor, lines: Iterable[bytes | str]) -> Iterator[dict[str, Any] | None]:
    """The rows of lines of text or JSON, as they come; the first that is not blank tells which it is. Raises `UserError`."""
    from bertcourse.files import stream
    first, lines = first_line(lines)
    if not first.strip():
        return iter(())
    name, blank = file_name(options.file), options.blank == "keep" and not is_typed(options.file)
    as_json = first.lstrip().startswith("{") and options.format != "text"
    example = object_in(first) if as_json else {}
    columns = columns_of(predictor, [*example]) if options.columns is None else options.columns
    if predictor.kind == "ner" and (not as_json or holds_text(example, columns)):
        found = stream("classification", lines, {**columns, "sentence": "text"} if as_json else None, name, blank)
        return (row and ({"id": row["id"]} if "id" in row else {}) | cut(row["sentence"]) for row in found)
    return stream(kind_of(predictor, first, columns), lines, columns, name, blank)


def object_in(line: str) -> dict[str, Any]:
    """The JSON object of a line; an empty one if it is damaged: whoever reads it says what is wrong."""
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    return {}


def columns_of(predictor: Predictor, names: Sequence[str]) -> dict[str, str]:
    """Our columns as rows with these names call them: as the training files did, or as requests of the service do."""
    trained = {name: column for name, column in predictor.columns.items() if column in names and name in (*predictor.inputs, "id")}
    return service_columns(predictor, names) | trained


def holds_text(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Does a row hold a text that is to be cut into words, as requests of the service do, rather than tokens?"""
    from bertcourse.files import find_column
    column, tags = (find_column("ner", name, row, columns) for name in ("tokens", "ner_tags"))
    return column == "text" and "tokens" not in columns and tags is None and isinstance(row["text"], str)


def kind_of(predictor: Predictor, line: str, columns: Mapping[str, str]) -> str:
    """The task by which lines are read; for a classifier of others the first one tells whether they are pairs."""
    from bertcourse.files import FileError, stream
    for kind in kinds_of(predictor)[:-1]:
        with suppress(FileError):
            next(stream(kind, [line], columns))
            return kind
    return predictor.kind


# --- output -------------------------------------------------------------------------------------------------------

def gold_of(kind: str, row: Mapping[str, Any]) -> Any:
    """What is right: a label, a number, tags, or the texts of the answers."""
    gold = row[TARGETS.get(kind, "label")]
    return gold["text"] if kind == "qa" else gold


def write_predictions(options: PredictOptions, predictor: Predictor, found: Input, out: Output) -> list[dict[str, Any]]:
    """An answer for each row, as soon as its batch is done; returns the predictions if they are to be compared. Raises `UserError`."""
    kind, lang, kept, gold, count = predictor.kind, predictor.task.lang, [], iter(found.gold), 0
    for batch in predictor.predict_rows(found.rows, 1 if is_typed(options.file) else options.batch_size):
        answers = [{} if row is None else result(kind, prediction, row, lang, options.scores) for row, prediction in batch]
        if options.labelled:
            answers = [answer | {"gold": gold_of(kind, right)} for answer, right in zip(answers, gold)]
            kept += [prediction for _, prediction in batch]
        out.add(answers, options.model)
        count += sum(row is not None for row, _ in batch)
    if not count and options.file != "-":
        raise UserError(f"{options.file} is empty: there is nothing to predict", f"{options.file} 是空的：没有可预测的内容")
    return kept


def score(predictor: Predictor, predictions: Sequence[dict[str, Any]], truth: Sequence[Any], reporter: Reporter) -> dict[str, Any]:
    """Say how good the predictions are, and return the scores."""
    scores = predictor.task.score(predictions, truth)
    reporter.info(f"{plural(len(truth), 'row')}: {format_scores(scores, False)}", f"{len(truth):,} 条：{format_scores(scores, True)}")
    return scores | {"rows": len(truth)}


# --- the run ------------------------------------------------------------------------------------------------------

def set_answer_length(predictor: Predictor, length: int | None) -> None:
    """Raises `UserError` for a model that gives no answers."""
    if length is None:
        return
    if predictor.kind != "qa":
        raise UserError(f"--max-answer-length is for answers to questions, this model is for {predictor.kind}: leave it out",
                        f"--max-answer-length 用于问答，这个模型的任务是 {predictor.kind}：请去掉它")
    predictor.task.max_answer_length = length


def own_threads(predictor: Predictor) -> AbstractContextManager[None]:
    """PyTorch's threads that suit this model; an exported model has threads of its own, and needs no PyTorch."""
    width = getattr(getattr(predictor.model, "config", None), "hidden_size", None)
    return nullcontext() if width is None else threads_for(width)


def run_predicting(options: PredictOptions, reporter: Reporter) -> list[dict[str, Any]] | dict[str, Any] | None:
    """Check all, then predict and write. Returns the answers where `options.out` is None, else the scores if they were asked for.

    Raises `UserError`.
    """
    options.check()
    with output_errors(options.metrics if options.out is None else options.out), open_lines(options.file) as lines:
        predictor = load(options.model, labels=options.labels, runtime=options.runtime)
        set_answer_length(predictor, options.max_answer_length)
        found = read_input(options, predictor, lines, reporter)
        with own_threads(predictor), open_output(options.out) as out:
            predictions = write_predictions(options, predictor, found, out)
            scores = score(predictor, predictions, found.truth, reporter) if options.labelled else None
            if options.metrics:
                write_json(options.metrics, scores)
    return out.rows if options.out is None else scores


def predict(
    model: str | Path,  # a fine-tuned or an exported model's folder, or its owner/name on the hub
    file: Source = "-",  # a file or its .gz (default: -, standard input)
    *,
    out: str | Path | TextIO | None = None,  # write there when all is done (default: standard output; in Python a list)
    batch_size: int = 32,  # lines at a time (default: 32)
    scores: bool = False,  # the probabilities of all labels, too
    labelled: bool = False,  # compare with the file's labels: scores on stderr, "gold" in each line
    metrics: str | Path | None = None,  # with --labelled: write the scores there, as JSON
    max_answer_length: int | None = None,  # qa: tokens of an answer (default: that of the model, else 30)
    blank: str = "keep",  # blank lines: keep (an empty object, default) or skip
    columns: str | Mapping[str, str] | None = None,  # what the file calls them, or their numbers: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll, squad or text (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    labels: Sequence[str] | None = None,  # names for the model's labels in their order: bad,good, or a JSON list
    runtime: str | None = None,  # of an exported model: ort (default) or openvino
) -> list[dict[str, Any]] | dict[str, Any] | None:
    """What a model predicts for each line of a file, or for rows in memory. Returns a list of the answers, or writes them as JSON lines.

    `file` is a file, a list of dicts, a `datasets.Dataset` or a `pandas.DataFrame`, `out` a file or an open stream; where it is given,
    the scores are returned with `labelled`, else nothing. For single texts see `bertcourse.models.load`. Raises
    `bertcourse.base.errors.UserError` for what a user can fix.
    """
    if in_notebook() and isinstance(file, str) and file == "-":
        raise UserError("a notebook has no standard input: give a file or rows", "笔记本没有标准输入：请给出文件或数据")
    with as_files(dict(locals()), ["file"]) as values:
        paths = {"model": as_model(model), "file": str(values["file"]), "out": as_output(out), "metrics": as_path(metrics, "metrics")}
        return run_predicting(PredictOptions.of(values | paths), Reporter())
