"""Were the stored outputs written by a run of today's cells? `nbs/outputs.json` remembers what `make outputs` saw and wrote.

For every notebook it holds a fingerprint of each code cell and of each cell's outputs. The fingerprint of a cell is taken from its
syntax tree: comments, blank lines and nbdev's directives may change without a run. No notebook has to be run for this check.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from . import reading

LOCK = reading.NBS / "outputs.json"
MAGIC = re.compile(r"^[ \t]*[%!]", re.MULTILINE)
AGAIN = "run `make outputs NB={}`"


def fingerprint(text: str) -> str:
    """A short SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_fingerprint(source: str) -> str:
    """Of what a cell does. A cell with IPython's magics or shell lines is taken as it is written, directives left out."""
    if MAGIC.search(source):
        return fingerprint(reading.DIRECTIVE.sub("", source))
    return fingerprint(dump(reading.tree(source)))


def dump(tree: ast.AST) -> str:
    """A syntax tree as text, the same in every Python: as 3.11 writes it. 3.12 has one field more, 3.13 leaves empty lists out."""
    written = ast.dump(tree, show_empty=True) if sys.version_info >= (3, 13) else ast.dump(tree)
    return written.replace(", type_params=[]", "")


def lock(notebook: dict) -> dict[str, list[str]]:
    """Cell id → fingerprints of the cell and of its outputs, in the order of the cells."""
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return {cell["id"]: [code_fingerprint("".join(cell["source"])), _of_outputs(cell["outputs"])] for cell in cells}


def _of_outputs(outputs: list[dict]) -> str:
    return fingerprint(json.dumps(outputs, sort_keys=True, ensure_ascii=False)) if outputs else ""


def read(path: Path = LOCK) -> dict[str, dict[str, list[str]]]:
    """What the file remembers: notebook → `lock` of it."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def faults(notebook: dict, name: str, known: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    """What has changed since the outputs of this notebook were stored; the first edited cell and every edited output."""
    again = AGAIN.format(Path(name).stem)
    if name not in known:
        yield f"{name}: its outputs were never stored by a run: {again}"
        return
    before, now = known[name], lock(notebook)
    edited = [id for id, (code, _) in now.items() if code != before.get(id, [""])[0]]
    if edited:
        yield f"{name}#{edited[0]}: edited or new since the outputs were stored: {again}"
    elif list(before) != list(now):
        yield f"{name}: cells were removed or moved since the outputs were stored: {again}"
    for id, (_, output) in now.items():
        if id in before and output != before[id][1]:
            yield f"{name}#{id}: its stored output was changed by hand or by another tool: {again}"


def text(known: dict[str, dict[str, list[str]]]) -> str:
    """The file's content: a line for each cell, so that changes of different cells merge."""
    blocks = []
    for name in sorted(known):
        lines = [f"  {json.dumps(id)}: {json.dumps(prints)}" for id, prints in known[name].items()]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"
