"""Data files as a command's options say, and as a trained model wants them: opened, recognised, read."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bertcourse.base.encodings import GZIP
from bertcourse.base.errors import UserError
from bertcourse.base.messages import reader_language
from bertcourse.jobs.reporter import Reporter

HEAD = 65_536  # bytes that are looked at to recognise a format
SERVICE_PAIR = {"sentence1": "text", "sentence2": "text_pair"}  # what requests of the service call a pair


# --- opening ------------------------------------------------------------------------------------------------------

def is_typed(file: str) -> bool:
    """Is the input typed on a terminal, by somebody who waits for the answer to each line?"""
    return file == "-" and sys.stdin is not None and sys.stdin.isatty()


def file_name(file: str) -> str:
    """The name of an input for messages; "" for standard input."""
    return "" if file == "-" else Path(file).name


@contextlib.contextmanager
def open_lines(file: str) -> Iterator[Any]:
    """A file or standard input ("-"), plain or gzip, as a binary file that can be peeked into. Raises `UserError`."""
    if is_typed(file):
        print("每行一条；按 Ctrl-D 结束" if reader_language() == "zh" else "a text per line; Ctrl-D ends it", file=sys.stderr)
        yield sys.stdin.buffer
        return
    with _standard_input() if file == "-" else _open_file(file) as plain, \
            gzip.open(plain) if plain.peek(2)[:2] == GZIP else contextlib.nullcontext(plain) as lines:
        try:
            yield lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{file} is damaged ({error}): pack it again", f"{file} 已损坏（{error}）：请重新压缩") from None


@contextlib.contextmanager
def _standard_input() -> Iterator[Any]:
    """Standard input, which stays open. Raises `UserError`."""
    if sys.stdin is None:
        raise UserError("there is no standard input: name a file", "没有标准输入：请写出文件名")
    lines = sys.stdin.buffer
    yield lines if hasattr(lines, "peek") else io.BufferedReader(lines)


def _open_file(file: str) -> Any:
    try:
        return open(file, "rb", buffering=HEAD)
    except OSError as error:
        raise unreadable(file, error) from None


def unreadable(file: str | Path, error: OSError) -> UserError:
    """A sentence for a file that the system does not open."""
    en = zh = error.strerror
    if isinstance(error, FileNotFoundError):
        en, zh = "there is no such file: check its name", "没有这个文件：请检查文件名"
    elif isinstance(error, IsADirectoryError):
        en, zh = "it is a folder: name a file in it", "它是文件夹：请写出其中的文件"
    return UserError(f"{file} cannot be read: {en}", f"{file} 无法读取：{zh}")


def first_line(lines: Iterable[bytes | str]) -> tuple[str, Iterator[bytes | str]]:
    """The first line that is not blank, "" if there is none, and all lines again."""
    lines, before = iter(lines), []
    for line in lines:
        before.append(line)
        if line.strip():
            break
    first = before[-1] if before else ""
    first = first.decode("utf-8", "replace") if isinstance(first, bytes) else first
    return first.lstrip("\ufeff"), chain(before, lines)


# --- recognising --------------------------------------------------------------------------------------------------

@dataclass
class Recognised:
    """What the beginning of a file shows."""

    lines: Any  # bytes, or text where it is not UTF-8
    format: str | None  # one of `bertcourse.files.FORMATS`, or "text"; None: plain lines or JSON lines
    head: str  # the first lines


def recognise(lines: Any, options: Any, tasks: Sequence[str], labels: Sequence[str], reporter: Reporter) -> Recognised:
    """Recognise format and encoding by the beginning, unless `options` name them; say so where the encoding is a guess.

    lines: of `open_lines`; options: have `file`, `format` and `encoding`; tasks: by which the file may be read; labels: the model's.
    A file of rows with columns is left as it is, to be read whole; other lines are decoded. Raises `UserError`.
    """
    from bertcourse.files import check_encoding, check_format, table_format
    check_encoding(options.encoding)
    if options.format != "text":
        check_format(tasks[-1], options.format)
    head, encoding, guessed = first_lines(b"" if is_typed(options.file) else lines.peek(HEAD)[:HEAD], options.encoding)
    suffix = Path(file_name(options.file).lower().removesuffix(".gz")).suffix
    found = options.format or next(filter(None, (table_format(task, head, suffix, labels) for task in tasks)), None)
    if found in (None, "text"):
        if guessed:
            reporter.info(f"decoded as {encoding.upper()} (guessed; --encoding changes it)",
                          f"按 {encoding.upper()} 解码（猜测的，可用 --encoding 指定）")
        if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
            lines = io.TextIOWrapper(lines, encoding, newline="\n")
    return Recognised(lines, found, head)


def first_lines(data: bytes, encoding: str | None) -> tuple[str, str, bool]:  # text, encoding, guessed?
    """The whole lines at the beginning of a file; "" where they cannot be decoded (whoever reads them says so)."""
    from bertcourse.base.encodings import decode, whole_lines
    data = whole_lines(data)
    for cut in range(4):  # the last character of a very long line may be cut
        with contextlib.suppress(UnicodeDecodeError):
            return decode(data[:len(data) - cut], encoding)
    return "", encoding or "utf-8", False


# --- reading as a whole -------------------------------------------------------------------------------------------

def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`format` and `encoding`, as `files.read` takes them."""
    return {name: settings.get(name) for name in ("format", "encoding")}


def read_first(path: str | Path, attempts: Iterable[tuple[str, Mapping[str, str]]], labelled: bool | None = True, **kw: Any) -> Any:  # Rows
    """A file by the first task and columns that fit. Raises `FileError`: of several, one that is not about columns tells more."""
    from bertcourse import files
    errors = []
    for task, columns in dict.fromkeys((task, tuple(columns.items())) for task, columns in attempts):
        try:
            return files.read(task, path, dict(columns) or None, labelled, **kw)
        except files.FileError as error:
            errors.append(error)
    raise next((error for error in errors if "column" not in error.en), errors[-1])


def kinds_of(predictor: Any) -> list[str]:
    """The tasks by which a model's input may be read: nobody says whether a classifier of others reads pairs."""
    return ["pairs", predictor.kind] if predictor.kind == "classification" and not predictor.inputs else [predictor.kind]


def read_for(predictor: Any, path: str | Path, columns: Mapping[str, str] | None, labelled: bool | None = True,
             **kw: Any) -> Any:  # Rows
    """A file as a model was trained to read it: by the columns asked for, else by those of its training, else by the usual ones.

    predictor: a `bertcourse.models.predictor.Predictor`. Raises `UserError`.
    """
    spellings = [predictor.columns, {}] if columns is None else [columns]
    if columns is None and b'"text_pair"' in (kw.get("content") or b"")[:HEAD]:
        spellings.insert(0, service_columns(predictor, SERVICE_PAIR.values()))
    attempts = [(kind, spelling) for kind in kinds_of(predictor) for spelling in spellings]
    return read_first(path, attempts, labelled, **kw)


def service_columns(predictor: Any, names: Iterable[str]) -> dict[str, str]:
    """The columns of a pair where rows with these names call them as requests of the service do; none where they do not."""
    names, reads_one = set(names), "sentence" in predictor.inputs or predictor.kind in ("ner", "qa")
    return SERVICE_PAIR if names >= {*SERVICE_PAIR.values()} and not names & {*SERVICE_PAIR} and not reads_one else {}
