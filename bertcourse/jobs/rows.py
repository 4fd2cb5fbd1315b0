"""Rows in memory as a data file, so that one way of reading, checking and recording serves files and Python objects."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError

Source = str | os.PathLike[str] | Sequence[Mapping[str, Any]] | Any  # a file, a list of dicts, a datasets.Dataset or a pandas.DataFrame


def is_file(source: Any) -> bool:
    """Is it the name of a file, not rows?"""
    return isinstance(source, (str, os.PathLike))


def records(source: Any, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a Python object, classes by name. Raises `UserError`.

    source: a `datasets.Dataset`, a `pandas.DataFrame`, or an iterable of mappings; name: the option, for messages.
    """
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        source = source.to_dict("records")
    names = _class_names(getattr(source, "features", None) or {})
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise _no_rows(source, name)
    for number, row in enumerate(source, 1):
        if not isinstance(row, Mapping):
            raise UserError(f"{name}, row {number} is {type(row).__name__}: give a mapping such as {{'sentence': …, 'label': …}}",
                            f"{name} 第 {number} 条是 {type(row).__name__}：请给出 {{'sentence': …, 'label': …}} 这样的映射")
        yield {column: _plain(value, names.get(column)) for column, value in row.items()}


def _no_rows(source: Any, name: str) -> UserError:
    kind = type(source).__name__
    if isinstance(source, Mapping) and source and all(hasattr(part, "column_names") for part in source.values()):
        split = next(iter(source))
        return UserError(f"{name} is a {kind} of several splits: give one of them, such as [{split!r}]",
                         f"{name} 是有多个划分的 {kind}：请给出其中一个，例如 [{split!r}]")
    return UserError(f"{name} is {kind}: give a file, a list of dicts, a datasets.Dataset or a pandas.DataFrame",
                     f"{name} 是 {kind}：请给出文件、字典的列表、datasets.Dataset 或 pandas.DataFrame")


def _class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of classes that a dataset stores as numbers, by column."""
    found = {}
    for column, feature in features.items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            found[column] = list(names)
    return found


def _plain(value: Any, names: Sequence[str] | None) -> Any:
    """A value as JSON has it; dates as text."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one, names) for one in value]
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_rows(source: Any, name: str, path: Path) -> None:
    """Write rows as JSON lines: row n is line n. Raises `UserError`."""
    number = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(records(source, name), 1):
            try:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            except (TypeError, UnicodeEncodeError) as error:
                raise UserError(f"{name}, row {number} cannot be written as JSON ({error}): give texts and numbers",
                                f"{name} 第 {number} 条无法写成 JSON（{error}）：请给出文本和数") from None
    if not number:
        raise UserError(f"{name} has no rows: give some", f"{name} 是空的：请给出数据")


@contextmanager
def as_files(values: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The values of options with files in place of rows; the files are gone afterwards. Raises `UserError`."""
    with tempfile.TemporaryDirectory(prefix="bertcourse-rows-") as folder:
        found = dict(values)
        for name in names:
            value = values.get(name)
            if value is None:
                continue
            found[name] = Path(value).expanduser() if is_file(value) else Path(folder) / f"{name}.jsonl"
            if not is_file(value):
                write_rows(value, name, found[name])
        yield found
