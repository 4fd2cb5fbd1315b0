"""The Anki deck and the CSV file: every card in both languages, stable ids, nothing overwritten; cards and questions in a notebook."""

import base64
import csv
import html
import io
import json
import os
import re
import sqlite3
import sys
import zipfile
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bertcourse.app import cli
from bertcourse.base.errors import UserError
from bertcourse.drill import deck, load_bank, select_cards, show_answer, show_cards, show_question
from bertcourse.drill.bank import Text
from bertcourse.languages import LANGUAGES, keep_language

pytest.importorskip("genanki")
BANK = load_bank()
CARDS = BANK.drill_cards()
VOID = {"img", "br", "hr"}


class Balanced(HTMLParser):
    """Finds elements that are not closed in order, and collects tags and pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.pictures = [], set(), []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def opened(data: bytes, folder) -> dict:
    """What an .apkg holds: notes by guid, cards, decks, note types, media."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        media = json.loads(archive.read("media"))
        files = {name: archive.read(number) for number, name in media.items()}
        (folder / "collection.anki2").write_bytes(archive.read("collection.anki2"))
    with closing(sqlite3.connect(folder / "collection.anki2")) as base:
        notes = {guid: (mid, fields.split("\x1f"), tags.strip()) for guid, mid, fields, tags in base.execute("select guid, mid, flds, tags from notes")}
        cards = base.execute("select c.did, n.guid from cards c join notes n on c.nid = n.id").fetchall()
        models, decks = (json.loads(text) for text in base.execute("select models, decks from col").fetchone())
    return {"notes": notes, "cards": cards, "models": models, "decks": decks, "files": files}


@pytest.fixture(scope="module", params=LANGUAGES)
def package(request, tmp_path_factory):
    """The whole deck of one language, opened."""
    return request.param, opened(deck.apkg_bytes(CARDS, request.param, BANK), tmp_path_factory.mktemp("apkg"))


def test_deck_holds_every_card(package):
    lang, content = package
    assert len(content["notes"]) == len(content["cards"]) == len(CARDS)
    for card in CARDS:
        mid, fields, tags = content["notes"][deck.note_guid(card.id, lang)]
        assert len(fields) == len(deck.FIELDS) and all(field.strip() for field in fields), card.id
        assert fields[0] == card.id and fields[3] == card.page and tags == f"bertcourse::{card.page}"


def test_formulas_of_the_deck_are_mathjax(package):
    lang, content = package
    formulas = 0
    for _, fields, _ in content["notes"].values():
        for field in fields:
            rest = re.sub(r"\\\((.+?)\\\)", "", field)
            assert r"\(" not in rest and r"\)" not in rest and "$" not in rest, field
            for formula in re.findall(r"\\\((.+?)\\\)", field):
                formulas += 1
                assert "<" not in formula and formula.count("{") == formula.count("}"), formula
    assert formulas > 30


def test_html_of_the_deck_is_whole(package):
    lang, content = package
    for _, fields, _ in content["notes"].values():
        front, back = Balanced(fields[1]), Balanced(fields[2])
        for picture in front.pictures + back.pictures:
            assert picture["src"] in content["files"] and picture["alt"]
    assert content["files"] and all(data for data in content["files"].values())


def test_choice_cards_of_the_deck(package):
    lang, content = package
    for card in CARDS:
        if card.kind == "choice":
            _, (_, front, back, _), _ = content["notes"][deck.note_guid(card.id, lang)]
            letters = re.findall(r"<b>([A-E])</b>", front)
            assert letters == list("ABCDE")[: len(card.options)]
            right = re.match(r"<div>✓ <b>([A-E])</b>", back)[1]
            assert deck.to_html(card.right.text[lang], deck.anki_formula) in front.split(f"<b>{right}</b>")[1].split("</div>")[0]
            assert len(re.findall(r"<li><b>[A-E]</b>", back)) == len(card.options) - 1
    letters = [re.match(r"<div>✓ <b>([A-E])</b>", content["notes"][deck.note_guid(card.id, lang)][1][2])[1] for card in CARDS if card.kind == "choice"]
    assert max(map(letters.count, set(letters))) < 0.7 * len(letters), "the right letter is nearly always the same"


def test_note_type_reads_in_the_dark(package):
    lang, content = package
    (model,) = content["models"].values()
    assert ".nightMode" in model["css"] and [field["name"] for field in model["flds"]] == list(deck.FIELDS)
    assert "{{Front}}" in model["tmpls"][0]["qfmt"] and "{{Back}}" in model["tmpls"][0]["afmt"]
    names = {entry["name"] for entry in content["decks"].values()}
    assert len([name for name in names if name.startswith(deck.DECK[lang] + "::")]) == 8


def test_ids_stay(tmp_path):
    """A second build, of a bank with one more card, another order and another text, gives every note, deck and type its id."""
    changed = [replace(CARDS[0], id="01-more"), replace(CARDS[1], prompt=Text("改了？", "Changed?")), *CARDS[:1], *CARDS[2:]]
    first, second = (opened(deck.apkg_bytes(cards, "en", BANK), tmp_path) for cards in (CARDS, changed))
    assert set(second["notes"]) - set(first["notes"]) == {deck.note_guid("01-more", "en")} and set(first["notes"]) <= set(second["notes"])
    assert first["models"].keys() == second["models"].keys() and first["decks"].keys() == second["decks"].keys()
    place = {guid: did for did, guid in first["cards"]}
    assert all(place.get(guid, did) == did for did, guid in second["cards"])


def test_ids_are_these():
    """Written down: a change would cut off everybody's progress."""
    assert deck.note_guid("Q1", "zh") == "c988eb300cf9dad72de3"
    assert (deck.stable_id("model/zh"), deck.stable_id("deck/en/1")) == (1606470072, 1992874781)


def test_languages_share_no_id():
    ids = [deck.note_guid(card.id, lang) for card in CARDS for lang in LANGUAGES]
    ids += [str(deck.stable_id(f"{kind}/{lang}")) for kind in ("model", "deck") for lang in LANGUAGES]
    assert len(ids) == len(set(ids))


# --- CSV ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_csv_is_what_anki_reads(lang):
    text = deck.csv_bytes(CARDS, lang, BANK).decode("utf-8")
    head = [line for line in text.split("\n") if line.startswith("#")]
    assert head == ["#separator:Comma", "#html:true", "#columns:Guid,Deck,Tags,Front,Back", "#guid column:1", "#deck column:2", "#tags column:3"]
    body = text.split("#tags column:3\n")[1]
    rows = list(csv.reader(io.StringIO(body)))
    assert len(rows) == len(CARDS) and all(len(row) == 5 and all(cell.strip() for cell in row) for row in rows)
    assert all(line.startswith('"') for line in body.splitlines() if '","' in line)
    for card, row in zip(CARDS, rows):
        assert row[0] == deck.note_guid(card.id, lang)
        for picture in Balanced(row[3]).pictures:
            assert base64.b64decode(picture["src"].split("base64,")[1]).startswith((b"<svg", b"\x89PNG"))
        Balanced(row[4])


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)


def call(capsys, *argv):
    """Exit code, stdout and stderr of `bertcourse flashcards ARGV`."""
    try:
        code = cli.main(["flashcards", *map(str, argv)])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", ["deck.apkg", "卡片.CSV", "a b.Apkg"])
def test_a_file_is_written_once(capsys, tmp_path, name):
    out = tmp_path / name
    code, said, err = call(capsys, out, "--lang", "zh", "--chapter", "8.1")
    count = len(select_cards(BANK, "8.1"))
    assert code == 0 and not err and said == f"{out}：{count} 张卡片（中文）\n"
    before = out.read_bytes()
    code, said, err = call(capsys, out)
    assert code == 2 and not said and "exists: name another file, or replace it by --force" in err and out.read_bytes() == before
    code, said, _ = call(capsys, out, "--force", "--json")
    assert code == 0 and json.loads(said) == {"out": str(out), "language": "en", "cards": len(CARDS), "bytes": out.stat().st_size}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("argv, says", [
    ([], "OUT"),
    (["deck"], "ends in neither .apkg nor .csv"),
    (["deck.txt"], "ends in neither .apkg nor .csv"),
    ([".apkg"], "ends in neither"),
    (["no/deck.apkg"], "there is no folder"),
    (["folder.csv"], "is a folder: name a file"),
    (["pipe.csv"], "is no regular file"),
    (["dangling.csv"], "is no regular file"),
    (["deck.csv", "--chapter", "42"], "the course has no '42'"),
    (["deck.csv", "--lang", "de"], "'de'"),
    (["deck.csv", "more.csv"], "unrecognized arguments"),
    (["a\0.csv"], "cannot be"),
    (["x" * 300 + ".csv"], "cannot be"),
])  # fmt: skip
def test_bad_input_is_one_sentence(capsys, monkeypatch, tmp_path, argv, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "dangling.csv").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    code, out, err = call(capsys, *argv)
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1, err
    assert sorted(tmp_path.iterdir()) == before


def test_without_genanki(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "genanki", None)
    code, _, err = call(capsys, tmp_path / "deck.apkg")
    assert code == 2 and "genanki is not installed" in err and ".csv" in err and not list(tmp_path.iterdir())
    assert call(capsys, tmp_path / "deck.csv")[0] == 0


# --- in a notebook ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_both(monkeypatch, tmp_path):
    """No workspace, so both languages are shown."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("question", BANK.questions, ids=lambda question: question.id)
def test_question_and_answer(in_both, question):
    asked, answered = show_question(question.id), show_answer(question.id)
    for shown in (asked, answered):
        bundle = shown._repr_mimebundle_()
        Balanced(bundle["text/html"])
        assert bundle["text/html"].count('lang="zh"') == bundle["text/html"].count('lang="en"') == 1
        assert bundle["text/plain"] == repr(shown) and "<" not in re.sub(r"[<>] ?[\d.]", "", bundle["text/plain"])
    for lang in LANGUAGES:
        said = html.unescape(re.sub("<[^>]+>", "", answered.html()))
        assert html.unescape(re.sub("<[^>]+>", "", deck.to_html(question.prompt[lang]))) in html.unescape(re.sub("<[^>]+>", "", asked.html()))
        assert question.answer[lang][:8] in said and question.answer[lang][:8] not in asked.html()
    tags = Balanced(answered.html())
    assert {"details", "summary"} <= tags.tags and answered.html().count("<details") == 2 * len(question.followups)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_filter_of_the_site_keeps_one_language(in_both, lang):
    for shown in (show_question("Q3"), show_answer("Q3"), show_cards("01_bert")):
        kept = keep_language(shown.html(), lang)
        Balanced(kept)
        assert f'lang="{lang}"' in kept and f'lang="{LANGUAGES[lang == "zh"]}"' not in kept and len(kept) < 0.7 * len(shown.html())


def test_one_language_in_its_workspace(monkeypatch, tmp_path):
    monkeypatch.setenv("BERTCOURSE_LANG", "zh")
    text = show_answer("Q7").html() + show_answer("Q7").plain()
    assert 'lang="en"' not in text and "One-minute" not in text and "一分钟回答" in text


@pytest.mark.parametrize("page", sorted({card.page for card in BANK.cards}))
def test_cards_of_a_page(in_both, page):
    shown = show_cards(page)
    own = [card for card in BANK.cards if card.page == page]
    Balanced(shown.html())
    assert shown.html().count("<details") == 2 * len(own) and len(shown.plain()) > 200
    assert shown.html().count("<img") == 2 * sum(card.picture is not None for card in own)


def test_what_there_is_not():
    for use in (lambda: show_question("Q21"), lambda: show_answer("q1x"), lambda: show_cards("99"), lambda: show_cards("appendix")):
        with pytest.raises(UserError):
            use()


def test_colours_are_the_pages_own(in_both):
    """No text and no background has a colour of its own, so that light and dark both read."""
    text = "".join(show_answer(question.id).html() for question in BANK.questions) + show_cards("2").html()
    assert not re.search(r"(?<!border-)(?<!-)\b(color|background(-color)?):", text)
