"""Cells of a notebook whose output is not stored with it but filled in where the page is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def fill_in(
    cell: dict[str, Any],  # of a notebook; changed in place
    pattern: re.Pattern[str],  # finds the last line of its source
    show: Callable[[re.Match[str]], dict[str, str]],  # what was found → the output by its MIME type
) -> None:
    """Give a code cell the output that it has today; leave any other cell as it is."""
    source = cell.get("source") or ""
    source = source if isinstance(source, str) else "".join(source)
    if cell.get("cell_type") != "code" or not (found := pattern.search(source)):
        return
    data = {form: text.splitlines(keepends=True) for form, text in show(found).items()}
    cell["outputs"] = [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}]
