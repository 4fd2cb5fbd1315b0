"""JSON files that people may open, too: written whole, with null for what is no number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bertcourse.base import atomic


def finite(value: Any) -> Any:
    """The same with None for nan and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all. Raises `OSError`.

    A path that is not UTF-8 keeps its bytes, as JSON's escapes of lone surrogates.
    """
    text = json.dumps(finite(content), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    atomic.replace(path, text.encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no such file, or something else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a row a line, whole or not at all. Raises `OSError`."""
    text = "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in rows)
    atomic.replace(path, text.encode("utf-8"))
