"""What the pages measured for the ledger's claims, as stored in assets/measured.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bertcourse.claims import agrees, ledger

from . import reading
from .claims import MEASURES, calls

AGAIN = "run `make outputs NB={}`"
DIGITS = 6  # that are stored of a number


def rounded(value: object) -> object:
    """Numbers with few digits: the last ones differ between processors."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read(path: Path) -> dict[str, dict]:
    """Id of a claim → value, page and date."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def text(known: Mapping[str, dict]) -> str:
    """The file's content: a line for each claim, so that changes of different claims merge."""
    lines = [f" {json.dumps(id)}: {json.dumps(known[id], ensure_ascii=False)}" for id in sorted(known)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _measuring(path: Path) -> set[str]:
    """The claims that a page measures."""
    ids = set()
    for cell in reading.load(path)["cells"]:
        if cell["cell_type"] == "code":
            ids |= {call.id for call in calls("".join(cell["source"])) if call.measured is not None}
    return ids


def faults(known: Mapping[str, dict], pages: Sequence[Path]) -> Iterator[str]:
    """Values that are missing, of no claim, of a page that does not measure them, or not what the ledger says."""
    claims = ledger()
    measuring = {path.name: _measuring(path) for path in pages}
    for name, ids in measuring.items():
        for id in sorted(ids - known.keys()):
            yield f"measured.json has no value of {id}: {AGAIN.format(Path(name).stem)}"
    for id, entry in known.items():
        if id not in claims or claims[id].kind not in MEASURES:
            yield f"measured.json: {id} is no claim that is measured: {AGAIN.format(Path(entry['page']).stem)}"
        elif entry["page"] in measuring and id not in measuring[entry["page"]]:
            yield f"measured.json: {entry['page']} no longer measures {id}: {AGAIN.format(Path(entry['page']).stem)}"
        elif claims[id].kind == "computed" and not _close(entry["value"], id):
            yield f"measured.json: {id} is {entry['value']!r}, the ledger says {claims[id].correct!r}"


def _close(value: object, id: str) -> bool:
    """Is a stored value the right one, the digits left out aside?"""
    entry = ledger()[id]
    return agrees(value, entry) or rounded(entry.correct) == value or agrees(value, _tolerant(entry))


def _tolerant(entry):
    from dataclasses import replace

    return replace(entry, rtol=max(entry.rtol * 1.01, 10.0 ** (1 - DIGITS)))
