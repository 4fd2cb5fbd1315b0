r"""The bank as an Anki deck (.apkg), or as a CSV file that Anki imports.

Ids of decks, note types and notes depend on the language and on a card's own id, on nothing else: a deck that is imported again
updates its notes and keeps their progress. Formulas become Anki's MathJax, `\(…\)`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bertcourse.base.errors import UserError
from bertcourse.drill.bank import Bank, Card, Text, chapter_of, chapter_title
from bertcourse.drill.markup import anki_formula, to_html
from bertcourse.drill.show import back_html, data_address, options_html, picture_html, picture_path

if TYPE_CHECKING:
    import genanki

DECK = Text("BERT 课程", "BERT course")
FIELDS = ("Id", "Front", "Back", "Page")
FORMATS = (".apkg", ".csv")
CSS = """.card { font-family: system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; font-size: 19px; line-height: 1.6;
  text-align: left; max-width: 40em; margin: 0 auto; padding: .6em; color: #1b1b1b; background: #fff; }
.card.nightMode, .nightMode .card, .card.night_mode { color: #e6e6e6; background: #222; }
code { font-family: ui-monospace, Consolas, monospace; font-size: .92em; background: rgba(127,127,127,.22); border-radius: 3px; padding: 0 .25em; }
pre { background: rgba(127,127,127,.22); border-radius: 3px; padding: .5em; overflow-x: auto; }
img { max-width: 100%; height: auto; }
ul { padding-left: 1.2em; } li { margin: .2em 0; }
a { color: #3b82f6; }
.page { margin-top: 1em; font-size: .75em; opacity: .7; }"""


def stable_id(name: str) -> int:
    """A number of the size that Anki wants, the same for the same name."""
    return (1 << 30) + int.from_bytes(hashlib.sha256(f"bertcourse/{name}".encode()).digest()[:8], "big") % (1 << 30)


def note_guid(id: str, lang: str) -> str:
    """The id by which Anki knows a note again."""
    return hashlib.sha256(f"bertcourse/{lang}/{id}".encode()).hexdigest()[:20]


def media_name(name: str) -> str:
    """The name of a picture in Anki, where all decks share one folder."""
    return f"bertcourse-{name}"


def deck_name(card: Card, lang: str) -> str:
    """`BERT course::4 Fine-tuning`: a deck for each chapter."""
    chapter = chapter_of(card.page)
    return f"{DECK[lang]}::{chapter} {chapter_title(chapter)[lang]}"


def front_html(card: Card, lang: str, address: str = "") -> str:
    """What is asked, the picture at `address`, the options."""
    return to_html(card.prompt[lang], anki_formula) + picture_html(card.picture, address, lang) + options_html(card, lang, anki_formula)


def note_fields(card: Card, lang: str, address: str = "") -> list[str]:
    """The fields of a note, in the order of `FIELDS`."""
    return [card.id, front_html(card, lang, address), back_html(card, lang, anki_formula), card.page]


# --- .apkg --------------------------------------------------------------------------------------------------------

def _need_genanki() -> None:
    try:
        import genanki  # noqa: F401
    except ImportError:
        raise UserError('genanki is not installed, which writes Anki decks: pip install "bertcourse[lab]", or name a file that ends in .csv',
                        '没有安装写 Anki 牌组的 genanki：请运行 pip install "bertcourse[lab]"，或换成以 .csv 结尾的文件名') from None


@functools.cache
def note_type(lang: str) -> genanki.Model:
    """Anki's note type of one language."""
    import genanki
    page = '<div class="page">{{Page}} · {{Id}}</div>'
    template = {"name": "Card 1", "qfmt": "{{Front}}" + page, "afmt": "{{Front}}<hr id=answer>{{Back}}" + page}
    return genanki.Model(stable_id(f"model/{lang}"), f"bertcourse {lang}", fields=[{"name": name} for name in FIELDS],
                         templates=[template], css=CSS)


def make_decks(cards: Sequence[Card], lang: str) -> list[genanki.Deck]:
    """A deck for each chapter of the cards, in their order."""
    import genanki
    decks: dict[str, genanki.Deck] = {}
    for place, card in enumerate(cards):
        name = deck_name(card, lang)
        deck = decks.setdefault(name, genanki.Deck(stable_id(f"deck/{lang}/{chapter_of(card.page)}"), name))
        fields = note_fields(card, lang, media_name(card.picture.name) if card.picture else "")
        deck.add_note(genanki.Note(model=note_type(lang), fields=fields, guid=note_guid(card.id, lang), due=place,
                                   tags=[f"bertcourse::{card.page}"]))
    return list(decks.values())


def apkg_bytes(cards: Sequence[Card], lang: str, bank: Bank) -> bytes:
    """An Anki package with the cards and their pictures. Raises `UserError` where genanki is not installed."""
    _need_genanki()
    import genanki
    pictures = {card.picture.name: picture_path(card.picture, bank) for card in cards if card.picture}
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:  # genanki takes a picture's name in Anki from the file
        media = [shutil.copyfile(path, Path(folder) / media_name(name)) for name, path in sorted(pictures.items())]
        genanki.Package(make_decks(cards, lang), [str(path) for path in media]).write_to_file(buffer)
    return buffer.getvalue()


# --- .csv ---------------------------------------------------------------------------------------------------------

def csv_bytes(cards: Sequence[Card], lang: str, bank: Bank) -> bytes:
    """UTF-8, every field quoted; lines at the head tell Anki what the columns are. Pictures are in the fields themselves."""
    text = io.StringIO(newline="")
    text.write("#separator:Comma\n#html:true\n#columns:Guid,Deck,Tags,Front,Back\n")
    text.write("#guid column:1\n#deck column:2\n#tags column:3\n")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for card in cards:
        address = data_address(picture_path(card.picture, bank)) if card.picture else ""
        _, front, back, page = note_fields(card, lang, address)
        writer.writerow([note_guid(card.id, lang), deck_name(card, lang), f"bertcourse::{page}", front, back])
    return text.getvalue().encode()


def make_flashcards(cards: Sequence[Card], lang: str, bank: Bank, out: Path) -> bytes:
    """The file that `out`'s ending asks for. Raises `UserError` for another ending."""
    ending = out.suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"{out} ends in neither .apkg nor .csv: name a file that does", f"{out} 既不以 .apkg 也不以 .csv 结尾：请换一个文件名")
    return (apkg_bytes if ending == ".apkg" else csv_bytes)(cards, lang, bank)
