"""Small notebooks with faults in them, to see whether a check notices."""

from __future__ import annotations

import itertools

KERNELSPEC = {"display_name": "python3", "language": "python", "name": "python3"}
_count = itertools.count()


def _cell(kind: str, source: str, id: str | None, **more) -> dict:
    return {
        "cell_type": kind,
        "id": id or f"cell-{next(_count)}",
        "metadata": {},
        "source": source.splitlines(keepends=True),
        **more,
    }


def md(source: str, id: str | None = None) -> dict:
    """A markdown cell for both languages."""
    return _cell("markdown", source, id)


def zh(source: str, id: str | None = None) -> dict:
    """A Chinese cell."""
    return _cell("markdown", f"<!-- zh -->\n{source}", id)


def en(source: str, id: str | None = None) -> dict:
    """An English cell."""
    return _cell("markdown", f"<!-- en -->\n{source}", id)


def code(source: str, outputs: list | None = None, id: str | None = None) -> dict:
    """A code cell."""
    return _cell("code", source, id, execution_count=None, outputs=outputs or [])


def html(text: str) -> dict:
    """An output that is HTML."""
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": [text], "text/plain": ["x"]}}


def stream(text: str, name: str = "stdout") -> dict:
    """An output that was printed."""
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


TITLE = "# 标题 | Title\n\n> 描述 | Description"


def notebook(*cells: dict, title: str | None = TITLE) -> dict:
    """A notebook, with a title cell in front unless `title` is None."""
    first = [md(title, "title")] if title is not None else []
    return {"cells": [*first, *cells], "metadata": {"kernelspec": dict(KERNELSPEC)}, "nbformat": 4, "nbformat_minor": 5}
