"""Rows of results as JSON lines in an open stream, or in a file that is there when all of it is; or as a list for the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bertcourse.base.atomic import whole_file
from bertcourse.base.display import json_of
from bertcourse.base.errors import UserError
from bertcourse.jobs.folder import check_output_file, unwritable
from bertcourse.jobs.options import as_path


def is_stream(out: Any) -> bool:
    """Is it an open stream, or None where the rows are kept, rather than the name of a file?"""
    return out is None or hasattr(out, "write")


def is_terminal(out: Any) -> bool:
    """Is it a stream that a person reads as it comes?"""
    return getattr(out, "isatty", bool)()


def as_output(out: Any) -> Path | TextIO | None:
    """A file's name as a path; a stream as it is."""
    return out if is_stream(out) else as_path(out)


def check_output(out: Path | TextIO | None, file: str) -> None:
    """Raises `UserError` if a file cannot be written, or would take the place of the input `file`."""
    if not is_stream(out):
        check_output_file(out, file)


@contextmanager
def output_errors(out: Path | TextIO | None) -> Iterator[None]:
    """What the system says of the output, as `UserError`; a reader that leaves stays a `BrokenPipeError`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if out is None:
            raise
        raise unwritable(Path("standard output") if is_stream(out) else out, error) from None


@dataclass
class Output:
    """Takes rows a batch at a time: writes them to a stream, or keeps them where there is none."""

    stream: TextIO | None
    rows: list[dict[str, Any]] = field(default_factory=list)  # where there is no stream

    def add(self, rows: Sequence[dict[str, Any]], name: str) -> None:
        """Write or keep rows. Raises `UserError` for what is no number (`name`: the model that gave it), and `OSError`."""
        lines = json_lines(rows, name)
        if self.stream is None:
            self.rows += rows
            return
        self.stream.write(lines)
        self.stream.flush()  # for whoever waits at the other end of a pipe


@contextmanager
def open_output(out: Path | TextIO | None) -> Iterator[Output]:
    """Where rows go: to a stream, to a file that is there when all of it is, or for None to a list. Raises `OSError`."""
    if is_stream(out):
        yield Output(out)
        return
    with whole_file(out) as temporary, temporary.open("x", encoding="utf-8", newline="\n") as file:
        yield Output(file)


def json_lines(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Rows as JSON lines. Raises `UserError` for what is no number, which JSON cannot say; `name`: the model that gave it."""
    try:
        return "".join(json_of(row, allow_nan=False) + "\n" for row in rows)
    except ValueError:
        raise UserError(f"{name} gives nan instead of numbers, its weights are damaged: train it again",
                        f"{name} 给出的不是数而是 nan，权重已损坏：请重新训练") from None
