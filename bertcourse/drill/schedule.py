"""When a card is asked again: FSRS, and the learner's progress in one JSON file.

The file belongs to the learner. Each answer is added under a lock and the file is replaced in one step, so that two processes lose
nothing and an interruption loses at most the card on the screen. Cards and fields that this version does not know stay as they are;
a file that is damaged or of a newer version is refused and never written.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcourse.base import atomic, records
from bertcourse.base.bilingual import Text
from bertcourse.drill.bank import Card, chapter_of
from bertcourse.languages import WORKSPACE_FILE

if TYPE_CHECKING:
    import fsrs

FORMAT, VERSION = "bertcourse quiz", 1
RATINGS = ("again", "hard", "good", "easy")  # FSRS counts them from 1
MATURE_DAYS = 21  # as in Anki: a card whose interval is at least so long
LATER = timedelta(hours=12)
STATE_FILE = "quiz.json"
TITLE = Text("测验的进度文件", "progress of the quiz")
REMEDY = Text("请用 --state 换一个文件", "name another file with --state")


# --- the file -----------------------------------------------------------------------------------------------------

@dataclass
class Progress:
    """What a learner's file says; `cards` are the tables as stored, by id."""

    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)  # what else the file holds; it is kept

    def due(self, id: str) -> datetime | None:
        """When a card is due; None for one that was never answered."""
        entry = self.cards.get(id)
        return parse_time(entry["due"]) if entry else None

    def is_due(self, id: str, now: datetime) -> bool:
        """Was the card answered before, and is it due?"""
        due = self.due(id)
        return due is not None and due <= now

    def to_bytes(self) -> bytes:
        """As it is stored."""
        content = {**self.rest, "format": FORMAT, "version": VERSION, "cards": self.cards}
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def find_state_file(start: Path | None = None) -> Path:
    """Where the progress lies by default: in the workspace that `start` (the current folder) is in, else in ./bertcourse-work."""
    return records.find_folder(WORKSPACE_FILE, start) / STATE_FILE


def parse_time(text: str) -> datetime:
    """A point in time in UTC. Raises `ValueError` and `TypeError`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)


def _check_entry(entry: Any) -> None:
    """Raises `ValueError`, `TypeError` or `KeyError` for a table that no answer of ours leaves."""
    parse_time(entry["due"]), parse_time(entry["last_review"])
    if not all(math.isfinite(entry[name]) and entry[name] > 0 for name in ("stability", "difficulty")):
        raise ValueError("stability and difficulty are positive numbers")
    for review in entry["reviews"]:
        parse_time(review["at"])
        RATINGS.index(review["rating"])


def parse_progress(raw: bytes, name: str) -> Progress:
    """The progress that a file's bytes hold; `name` is for the message. Raises `UserError`."""
    content = records.parse(raw, name, FORMAT, VERSION, TITLE, REMEDY)
    try:
        cards = content["cards"]
        for entry in cards.values():
            _check_entry(entry)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise records.damaged_file(name, TITLE, REMEDY) from None
    rest = {key: value for key, value in content.items() if key not in ("format", "version", "cards")}
    return Progress(cards, rest)


def read_progress(path: Path) -> Progress:
    """The progress in a file; an empty one where there is no file. Raises `UserError`."""
    raw = records.read_bytes(path, REMEDY)
    return Progress() if raw is None else parse_progress(raw, str(path))


def check_state_file(path: Path) -> Progress:
    """The progress, after a look whether it can be written, too. Raises `UserError`."""
    progress = read_progress(path)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise records.unusable(path, NotADirectoryError(20, f"{above} is a file"), REMEDY)
    if not os.access(above, os.W_OK | os.X_OK):
        raise records.unusable(path, PermissionError(13, os.strerror(13)), REMEDY)
    return progress


def record_review(path: Path, id: str, rating: str, now: datetime | None = None) -> datetime:
    """Add an answer to the file and return when the card is due next.

    The file is read anew under a lock, so that what another process has added stays. Raises `UserError`.
    """
    now = now or datetime.now(UTC)
    with records.changing(path, REMEDY) as file:
        progress = read_progress(file)
        progress.cards[id] = add_review(progress.cards.get(id), rating, now)
        atomic.replace(file, progress.to_bytes())
    return parse_time(progress.cards[id]["due"])


# --- FSRS ---------------------------------------------------------------------------------------------------------

@functools.cache
def scheduler() -> fsrs.Scheduler:
    """FSRS with its default parameters, in days: no steps of minutes, and no random part, so that a plan can be repeated."""
    import fsrs
    return fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)


def add_review(entry: Mapping[str, Any] | None, rating: str, now: datetime) -> dict[str, Any]:
    """A card's table after one more answer, "again", "hard", "good" or "easy"; None is a card never answered."""
    import fsrs
    entry = dict(entry or {"reviews": []})
    card = fsrs.Card(card_id=1, due=now)
    if entry["reviews"] or "stability" in entry:
        last = parse_time(entry["last_review"])
        now = max(now, last)  # a clock that was put back
        card = fsrs.Card(card_id=1, state=fsrs.State.Review, step=None, stability=entry["stability"], difficulty=entry["difficulty"],
                         due=parse_time(entry["due"]), last_review=last)
    now = now.astimezone(UTC).replace(microsecond=0)
    after, _ = scheduler().review_card(card, fsrs.Rating(RATINGS.index(rating) + 1), now)
    return {**entry, "due": after.due.isoformat(), "last_review": now.isoformat(), "stability": after.stability,
            "difficulty": after.difficulty, "reviews": [*entry["reviews"], {"at": now.isoformat(), "rating": rating}]}


def interval(entry: Mapping[str, Any]) -> timedelta:
    """From a card's last answer to when it is due."""
    return parse_time(entry["due"]) - parse_time(entry["last_review"])


# --- choosing and counting ----------------------------------------------------------------------------------------

def choose_cards(cards: Sequence[Card], progress: Progress, now: datetime, limit: int, only_due: bool = False) -> list[Card]:
    """At most `limit` cards for one session: those that are due, the longest overdue first, then new ones in the course's order."""
    due = sorted((card for card in cards if progress.is_due(card.id, now)), key=lambda card: progress.due(card.id))
    new = [] if only_due else [card for card in cards if progress.due(card.id) is None]
    return [*due, *new][:limit]


@dataclass
class Counts:
    """The numbers of one chapter, or of all."""

    chapter: str  # "1" … "8", or "all"
    cards: int
    seen: int
    due: int
    mature: int  # next interval of at least `MATURE_DAYS`
    retention: float | None  # share of `late_ratings` that were not "again"; None where there were none
    next_due: datetime | None  # the earliest


def late_ratings(entry: Mapping[str, Any]) -> list[str]:
    """The ratings of a card's repetitions, those left out that came within `LATER` of the answer before: they test no memory."""
    pairs = zip(entry["reviews"], entry["reviews"][1:])
    return [after["rating"] for before, after in pairs if parse_time(after["at"]) - parse_time(before["at"]) >= LATER]


def _count(chapter: str, cards: Sequence[Card], progress: Progress, now: datetime) -> Counts:
    entries = [progress.cards[card.id] for card in cards if card.id in progress.cards]
    repeated = [rating for entry in entries for rating in late_ratings(entry)]
    retention = sum(rating != "again" for rating in repeated) / len(repeated) if repeated else None
    return Counts(chapter, len(cards), len(entries), sum(parse_time(entry["due"]) <= now for entry in entries),
                  sum(interval(entry) >= timedelta(days=MATURE_DAYS) for entry in entries), retention,
                  min((parse_time(entry["due"]) for entry in entries), default=None))


def count_cards(cards: Sequence[Card], progress: Progress, now: datetime) -> list[Counts]:
    """The counts of each chapter that has cards, and last of all of them."""
    chapters = list(dict.fromkeys(chapter_of(card.page) for card in cards))
    rows = [_count(name, [card for card in cards if chapter_of(card.page) == name], progress, now) for name in chapters]
    return [*rows, _count("all", cards, progress, now)]
