"""Data files as a command's options say, and as a trained model wants them."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse.app.messages import UserError, reader_language
from bertcourse.base.display import printable

HEAD = 65_536  # bytes that are looked at to recognise a format


def columns(text: str) -> dict[str, str]:
    """`sentence=review,label=stars`: the task's name for a column, and the file's (or the column's number, from 1)."""
    pairs = [part.partition("=") for part in text.split(",")]
    found = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if len(found) < len(pairs) or not all(ours and theirs for ours, theirs in found.items()):
        raise argparse.ArgumentTypeError(f"must be like sentence=review,label=stars, each name once, not {text!r}")
    return found


def add_options(parser: argparse.ArgumentParser, text: bool = False, **columns_options: Any) -> None:
    """Declare `--columns`, `--format` and `--encoding`; `text`: plain lines are a format, too."""
    formats = ("tsv", "csv", "json", "conll", "squad", *(("text",) if text else ()))
    parser.add_argument("--columns", type=columns, metavar="LIST",
                        help="what the file calls them, or their numbers: sentence=review,label=3", **columns_options)
    parser.add_argument("--format", choices=formats, metavar="NAME", help=f"{', '.join(formats)} (default: what the content is)")
    parser.add_argument("--encoding", metavar="NAME", help="such as gb18030, latin-1 (default: UTF-8, or guessed and said)")


def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`format` and `encoding`, as `files.read` takes them."""
    return {name: settings.get(name) for name in ("format", "encoding")}


def read_first(path: str | Path, attempts: Iterable[tuple[str, Mapping[str, str]]], labelled: bool | None = True, **kw: Any) -> Any:  # Rows
    """A file by the first task and columns that fit. Raises `FileError`: of several, one that is not about columns tells more."""
    from bertcourse import files
    errors = []
    for task, names in dict.fromkeys((task, tuple(names.items())) for task, names in attempts):
        try:
            return files.read(task, path, dict(names) or None, labelled, **kw)
        except files.FileError as error:
            errors.append(error)
    raise next((error for error in errors if "column" not in error.en), errors[-1])


def kinds_of(predictor: Any) -> list[str]:
    """The tasks by which a model's input may be read: nobody says whether a classifier of others reads pairs."""
    return ["pairs", predictor.kind] if predictor.kind == "classification" and not predictor.inputs else [predictor.kind]


def read_for(predictor: Any, path: str | Path, names: Mapping[str, str] | None, labelled: bool | None = True,
             **kw: Any) -> Any:  # Rows
    """A file as a model was trained to read it: by the columns asked for, else by those of its training, else by the usual ones.

    predictor: a `bertcourse.app.predict.Predictor`. Raises `UserError`.
    """
    spellings = [names] if names is not None else [predictor.columns, {}]
    attempts = [(kind, spelling) for kind in kinds_of(predictor) for spelling in spellings]
    return read_first(path, attempts, labelled, **kw)


def check_fit(inputs: Sequence[str], kind: str, row: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if a row has not the columns that the model `name` was trained on."""
    absent = [column for column in inputs if column not in row]
    if absent:
        has = ", ".join(column for column in row if column not in ("id", "text", "offsets", "label", "answers", "ner_tags"))
        raise UserError(f"{name} ({kind}) reads {', '.join(inputs)}, the input has {has}: give what it was trained on",
                        f"{name}（{kind}）读的是 {'、'.join(inputs)}，输入里却是 {has}：请给出训练时那样的输入")


def as_numbers(rows: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rows whose classes are numbers, as `Task.score` wants them. Raises `UserError` for a class that the model has not.

    rows: a `bertcourse.files.Rows`; labels: the model's, in the order of their numbers.
    """
    from bertcourse import files
    files.check_classes(rows, labels)
    number = {name: i for i, name in enumerate(labels)}
    made = []
    for row in rows.rows:
        row = dict(row)
        if isinstance(row.get("label"), str):
            row["label"] = number[row["label"]]
        if "ner_tags" in row:
            row["ner_tags"] = [number[tag] for tag in row["ner_tags"]]
        made.append(row)
    return made


@dataclass
class Peeked:
    """What the beginning of a file shows."""

    lines: Any  # bytes, or text where it is not UTF-8
    format: str | None  # one of `bertcourse.files.FORMATS`, or "text"; None: plain lines or JSON lines
    head: str  # the first lines


def inform(en: str, zh: str) -> None:
    """A line on stderr, in the reader's language."""
    print(printable(zh if reader_language() == "zh" else en, keep="\n"), file=sys.stderr)


def peek(lines: Any, file: str, tasks: Sequence[str], args: argparse.Namespace, labels: Sequence[str] = ()) -> Peeked:
    """Recognise format and encoding by the beginning, unless `args` names them; say so where the encoding is a guess.

    lines: a binary file that can be peeked into; file: its name, "-" for standard input; tasks: by which it may be read; labels: the
    model's. A file of rows with columns is left as it is, to be read whole; other lines are decoded. Raises `UserError`.
    """
    from bertcourse.files import check_encoding, check_format, table_format
    check_encoding(args.encoding)
    if args.format != "text":
        check_format(tasks[-1], args.format)
    somebody_types = file == "-" and sys.stdin.isatty()
    head, encoding, guessed = first_lines(b"" if somebody_types else lines.peek(HEAD)[:HEAD], args.encoding)
    suffix = "" if file == "-" else Path(file.lower().removesuffix(".gz")).suffix
    found = args.format or next(filter(None, (table_format(task, head, suffix, labels) for task in tasks)), None)
    if found in (None, "text"):
        if guessed:
            inform(f"decoded as {encoding.upper()} (guessed; --encoding changes it)",
                   f"按 {encoding.upper()} 解码（猜测的，可用 --encoding 指定）")
        if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
            lines = io.TextIOWrapper(lines, encoding, newline="\n")
    return Peeked(lines, found, head)


def first_lines(data: bytes, encoding: str | None) -> tuple[str, str, bool]:  # text, encoding, guessed?
    """The whole lines at the beginning of a file; "" where they cannot be decoded (whoever reads them says so)."""
    from bertcourse.base.encodings import decode, whole_lines
    data = whole_lines(data)
    for cut in range(4):  # the last character of a very long line may be cut
        with contextlib.suppress(UnicodeDecodeError):
            return decode(data[:len(data) - cut], encoding)
    return "", encoding or "utf-8", False
