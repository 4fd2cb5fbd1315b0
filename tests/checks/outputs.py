"""Stored outputs against those of a run: what must not change has not changed.

What may change is said by a tag of the cell (`metadata.tags`):

- no tag: words are equal, whole numbers are equal, other numbers differ by one unit of their last digit at most, and the
  lines of a figure by `POINTS`;
- `timed`: the output shows times, memory or speed; words are equal, numbers are not compared;
- `trained`: the output depends on a training run or on another long sum of floating-point numbers, so that it differs from
  processor to processor; numbers may differ, and words too, but not what is shown: as many printed lines, tables and figures;
- `machine`: the output depends on the machine (its processor, its files, its clock); only the kinds of outputs are compared.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TAGS = ("timed", "trained", "machine")
POINTS = 1.5  # how far a line of a figure may move, in the units of its viewBox
NUMBER = re.compile(r"(?<![\w#.])[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?", re.IGNORECASE)
HASH = re.compile(r"(?<=[#\"-])[mp]?[0-9a-f]{10,}\b")  # matplotlib names clip paths and markers by their content
DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
LABEL = re.compile(r"<text\b[^>]*>(.*?)</text>", re.DOTALL)
MARKUP = re.compile(r"<[^>]*>")


WIDGET = "application/vnd.jupyter.widget-view+json"
TIMING = re.compile(r"^timing\([\"'](\w+)[\"']\)\s*\Z", re.MULTILINE)  # as bertcourse.experiments.show_timing knows it
LIVE = re.compile(r"^(?:Ledger|LearningPath)\(\)\s*\Z", re.MULTILINE)  # what the site fills in, too: data that changes


def is_timing(cell: dict) -> bool:
    """A cell whose output is not stored: site and workspace fill it in from timings.json."""
    return bool(TIMING.search(_joined(cell["source"])))


def is_live(cell: dict) -> bool:
    """A cell whose output is not stored: a timing, or one that the site fills in with today's ledger or learning path."""
    return is_timing(cell) or bool(LIVE.search(_joined(cell["source"])))


def cell_differences(cell: dict, fresh: Sequence[dict]) -> list[str]:
    """`differences` of a stored cell and what a run gave."""
    if is_live(cell):
        return []
    if _joined(cell["source"]).rstrip().endswith(";"):  # IPython shows no result then, but it does where nbval runs the cell
        fresh = [output for output in fresh if output["output_type"] != "execute_result"]
    return list(differences(cell["outputs"], fresh, cell["metadata"].get("tags", ())))


def join_streams(outputs: Sequence[dict]) -> list[dict]:
    """Outputs with what was printed in one go stored in one piece: how it is cut up depends on the moment."""
    found: list[dict] = []
    for output in outputs:
        last = found[-1] if found else {}
        if output["output_type"] == "stream" and (last.get("output_type"), last.get("name")) == ("stream", output["name"]):
            text = _joined(last["text"]) + _joined(output["text"])
            found[-1] = last | {"text": text.splitlines(keepends=True)}
        else:
            found.append(output)
    return found


@dataclass(frozen=True)
class Shown:
    """One output as it is compared."""

    kind: str  # "stdout", "text/html", "text/plain"
    text: str


def shown(outputs: Sequence[dict]) -> list[Shown]:
    """Outputs as they are compared: streams joined, of several forms of one result the one that a reader sees."""
    found: list[Shown] = []
    for output in outputs:
        if output["output_type"] == "stream":
            kind, text = output["name"], _joined(output["text"])
            if found and found[-1].kind == kind:
                found[-1] = Shown(kind, found[-1].text + text)
            else:
                found.append(Shown(kind, text))
        elif output["output_type"] in ("display_data", "execute_result"):
            data = output["data"]
            if WIDGET in data:  # a progress bar
                continue
            kind = "text/html" if "text/html" in data else "text/plain" if "text/plain" in data else min(data, default="")
            found.append(Shown(kind, _joined(data.get(kind, ""))))
        else:
            found.append(Shown(output["output_type"], ""))
    return [one for one in found if one.text or not one.kind.startswith("text/")]  # a quiet claim shows nothing


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def differences(stored: Sequence[dict], fresh: Sequence[dict], tags: Sequence[str] = ()) -> Iterator[str]:
    """One sentence for each way in which the outputs of a run differ from the stored ones."""
    before, after = shown(stored), shown(fresh)
    if [one.kind for one in before] != [one.kind for one in after]:
        yield f"stored {_kinds(before)}, a run gives {_kinds(after)}"
        return
    if "machine" in tags:
        return
    for old, new in zip(before, after, strict=True):
        if "trained" in tags:
            yield from _differing_shape(old.text, new.text)
        elif old.kind == "text/html":
            yield from _differing_html(old.text, new.text, "timed" not in tags)
        else:
            yield from _differing_text(old.text, new.text, "timed" not in tags)


def _kinds(found: Sequence[Shown]) -> str:
    return ", ".join(one.kind for one in found) or "nothing"


def _differing_shape(old: str, new: str) -> Iterator[str]:
    """A printed line more, a table's row less, a figure that is gone."""
    for name, pattern in (("lines", r"\n"), ("figures", "<figure"), ("drawings", "<svg"), ("tables", "<table"), ("columns", "<th")):
        counts = [len(re.findall(pattern, text)) for text in (old, new)]
        if counts[0] != counts[1] and not (name == "lines" and "<svg" in old):
            yield f"stored {counts[0]} {name}, a run gives {counts[1]}"


def _differing_html(old: str, new: str, numbers: bool) -> Iterator[str]:
    """Words and numbers of the page, then what the drawings are made of."""
    yield from _differing_text(*(_readable(text) for text in (old, new)), numbers)
    drawings = [[HASH.sub("…", LABEL.sub("", part)) for part in DRAWING.findall(text)] for text in (old, new)]
    for before, after in zip(*drawings, strict=False):
        if numbers:
            yield from _differing_drawing(before, after)


def _readable(text: str) -> str:
    """What a reader sees of HTML, the labels of figures included."""
    text = DRAWING.sub(lambda found: "\n".join(LABEL.findall(found[0])) + "\n", text)
    return html.unescape(MARKUP.sub(" ", text))


def _differing_text(old: str, new: str, numbers: bool = True) -> Iterator[str]:
    words = [" ".join(NUMBER.sub("0" if numbers else "", text).split()) for text in (old, new)]  # an axis may have more ticks
    if words[0] != words[1]:
        yield "the words differ: " + _first_difference(*(" ".join(text.split()) for text in (old, new)))
    elif numbers:
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
            if not _near(a, b):
                yield f"stored {a}, a run gives {b}"
                return


def _near(a: str, b: str) -> bool:
    """Are two printed numbers equal, but for one unit of the last digit of one that has a fraction?"""
    if a == b:
        return True
    digits = [len(text.rstrip("%").partition("e")[0].partition(".")[2]) for text in (a, b)]
    x, y = (float(text.rstrip("%").replace(",", "").replace("−", "-")) for text in (a, b))
    if not any(digits) and "e" not in (a + b).lower():
        return x == y
    exponents = [int(text.lower().rstrip("%").rpartition("e")[2]) if "e" in text.lower() else 0 for text in (a, b)]
    scale = 10.0 ** min(exponents)
    return abs(x - y) <= 1.001 * scale * 10.0 ** -min(digits)


def _differing_drawing(old: str, new: str) -> Iterator[str]:
    if NUMBER.sub("0", old) != NUMBER.sub("0", new):
        yield "a figure is drawn otherwise (other lines, colours or shapes)"
        return
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
        if abs(float(a.rstrip("%").replace(",", "")) - float(b.rstrip("%").replace(",", ""))) > POINTS:
            yield f"a line of a figure has moved: stored {a}, a run gives {b}"
            return


def _first_difference(old: str, new: str, around: int = 40) -> str:
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return f"stored …{old[max(0, at - around):at + around]}…, a run gives …{new[max(0, at - around):at + around]}…"
