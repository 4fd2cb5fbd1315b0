"""Is the question bank whole, the same in both languages, and in agreement with the ledger?"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from bertcourse.app.pages import CHARACTERS_A_MINUTE, CHINESE, WORD, WORDS_A_MINUTE
from bertcourse.claims import Claim, ledger
from bertcourse.drill.bank import Bank, Card, Question, Text, headings, page_names
from bertcourse.drill.markup import check_markup
from bertcourse.drill.show import LETTERS, picture_path
from bertcourse.languages import LANGUAGES

from . import language
from .reading import CODE, MATH, ROOT, Cell, prose

Complaints = Iterator[str]
SPOKEN_MINUTES = (0.6, 1.2)  # a spoken answer, read aloud at the speed of `bertcourse.app.pages`
ITEMS = (1, 4)  # of each of the three lists
FOLLOW_UPS = (2, 3)
OPTIONS = (3, 5)
LONGEST_OPTION = {"zh": 60, "en": 30}  # characters, words
PICTURES = (".svg", ".png")


# --- what there is to look at -------------------------------------------------------------------------------------


def question_texts(question: Question) -> Iterator[tuple[str, Text]]:
    """Each text of a question, with its place."""
    yield "prompt", question.prompt
    yield "answer", question.answer
    for name in ("weak", "good", "outstanding"):
        for number, text in enumerate(getattr(question, name), 1):
            yield f"{name} {number}", text
    if question.correction:
        yield "instead", question.correction.instead
        yield "expected", question.correction.expected
    for more in question.followups:
        yield f"{more.id} prompt", more.prompt
        yield f"{more.id} answer", more.answer


def card_texts(card: Card) -> Iterator[tuple[str, Text]]:
    """Each text of a card, with its place."""
    yield "prompt", card.prompt
    if card.answer:
        yield "answer", card.answer
    if card.picture:
        yield "alt", card.picture.alt
    for number, option in enumerate(card.options, 1):
        yield f"option {number}", option.text
        if option.why:
            yield f"option {number} why", option.why


def texts(bank: Bank) -> Iterator[tuple[str, Text]]:
    """Every text of the bank, as `id place`."""
    for question in bank.questions:
        yield from ((f"{question.id} {place}", text) for place, text in question_texts(question))
    for card in bank.cards:
        yield from ((f"{card.id} {place}", text) for place, text in card_texts(card))


# --- ids, pages, claims -------------------------------------------------------------------------------------------


def ids(bank: Bank) -> Complaints:
    """Every id occurs once and has its form: Q7, Q7a, 04-two-digits-of-the-page."""
    every = [card.id for card in bank.drill_cards()] if not list(pages(bank)) else []
    yield from (f"{id}: this id occurs {count} times" for id, count in Counter(every).items() if count > 1)
    for card in bank.cards:
        if not re.fullmatch(r"\d\d(-[a-z0-9]+)+", card.id) or card.id[:2] != card.page[:2]:
            yield f"{card.id}: an id is the two digits of the page and words in small letters, such as {card.page[:2]}-a-few-words"
    for question in bank.questions:
        for more, letter in zip(question.followups, "abcdefgh"):
            if more.id != question.id + letter:
                yield f"{more.id}: follow-ups of {question.id} are {question.id}a, {question.id}b, …"


def numbering(bank: Bank) -> Complaints:
    """The questions are those of the outline, on the pages and in the sections that it says."""
    section, planned = "", {}
    for heading in headings():
        section = heading.number if heading.number.startswith("8.") else section
        if re.fullmatch(r"Q\d+", heading.number):
            planned[heading.number] = (heading.page, section)
    there = {question.id: (question.page, question.section) for question in bank.questions}
    for id in sorted(planned.keys() | there.keys()):
        if planned.get(id) != there.get(id):
            yield f"{id}: page and section are {there.get(id)}, the outline says {planned.get(id)}"


def pages(bank: Bank) -> Complaints:
    """Every page is one of the course's."""
    for id, names in [(c.id, [c.page]) for c in bank.cards] + [(q.id, [q.page, *q.reread]) for q in bank.questions]:
        yield from (f"{id}: the course has no page {name}" for name in names if name not in page_names())


def claims(bank: Bank) -> Complaints:
    """Every claim is in the ledger; a question names at least one, a page to read again and a source."""
    for id, names in [(c.id, [c.claim] if c.claim else []) for c in bank.cards] + [(q.id, q.claims) for q in bank.questions]:
        yield from (f"{id}: the ledger has no claim {name}" for name in names if name not in ledger())
    for question in bank.questions:
        for what in ("claims", "reread", "sources"):
            if not getattr(question, what):
                yield f"{question.id}: no {what}"


def _values(text: str) -> set[float]:
    """The numbers of a text; 21% is both 21 and 0.21."""
    found = set()
    for number in language.numbers(text):
        try:
            value = float(number.rstrip("%‰"))
        except ValueError:  # a version
            continue
        found |= {value, value / 100} if number.endswith("%") else {value}
    return found


def _correct(claim: Claim) -> list[float]:
    values = claim.correct if isinstance(claim.correct, list) else [claim.correct]
    return [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]


def _is_rounded(value: float, exact: float) -> bool:
    return any(float(f"{exact:.{digits}g}") == value for digits in range(1, 16))


def contradictions(text: str, asked: str, claim: Claim) -> Complaints:
    """Numbers of a text that the ledger calls wrong, or that nearly are its right ones."""
    backing = _values(f"{claim.note_en} {claim.source} {claim.here_en} {claim.unit_en}") | set(_correct(claim))
    wrong = _values(claim.en) - backing if claim.verdict == "corrected" else set()
    for value in sorted(_values(text) - _values(asked)):
        if value in wrong and not (value < 10 and value.is_integer()):
            yield f"{value:g} is what the ledger's {claim.id} corrects"
        for exact in _correct(claim):
            near = exact > 10 and abs(value - exact) < 0.04 * exact
            if near and value not in backing and not _is_rounded(value, exact):
                yield f"{value:g} is near, but no rounding of {exact:g} in the ledger's {claim.id}"


def verdicts(bank: Bank) -> Complaints:
    """What a card or an answer calls right does not contradict the numbers of its claims."""
    for card in bank.cards:
        if card.claim in ledger():
            right = [card.answer] if card.answer else [text for o in card.options if o.is_right for text in (o.text, o.why) if text]
            said = " ".join(text.en for text in right)
            yield from (f"{card.id}: {problem}" for problem in contradictions(said, card.prompt.en, ledger()[card.claim]))
    for question in bank.questions:
        for id in question.claims:
            if id in ledger():
                yield from (f"{question.id}: {problem}" for problem in contradictions(question.answer.en, "", ledger()[id]))


# --- form ---------------------------------------------------------------------------------------------------------


def choices(bank: Bank) -> Complaints:
    """A recall card has an answer; a choice card has one right option, different options, and a reason for each wrong one."""
    for card in bank.cards:
        if card.kind not in ("recall", "choice"):
            yield f"{card.id}: kind is {card.kind}, not recall or choice"
        elif card.kind == "recall" and (card.answer is None or card.options):
            yield f"{card.id}: a recall card has an answer and no options"
        elif card.kind == "choice":
            yield from (f"{card.id}: {problem}" for problem in _choice(card))


def _choice(card: Card) -> Complaints:
    if card.answer is not None:
        yield "a choice card has options and no answer"
    if not OPTIONS[0] <= len(card.options) <= min(OPTIONS[1], len(LETTERS)):
        yield f"{len(card.options)} options, not {OPTIONS[0]} to {OPTIONS[1]}"
    if (right := sum(option.is_right for option in card.options)) != 1:
        yield f"{right} options are right, not one"
    yield from (f"option {n} is wrong, and no why says so" for n, o in enumerate(card.options, 1) if not o.is_right and not o.why)
    for lang in LANGUAGES:
        if len({option.text[lang] for option in card.options}) < len(card.options):
            yield f"two options are the same in {lang}"
        for option in card.options:
            length = len(option.text.zh) if lang == "zh" else len(option.text.en.split())
            if length > LONGEST_OPTION[lang]:
                yield f"an option has {length} {'characters' if lang == 'zh' else 'words'}, more than {LONGEST_OPTION[lang]}"


def giveaways(bank: Bank) -> Complaints:
    """The right option is the longest one in at most half of the choice cards, or a reader need not know the answer."""
    cards = [card for card in bank.cards if card.kind == "choice" and any(option.is_right for option in card.options)]
    for lang in LANGUAGES:
        longest = [c.id for c in cards if all(o.is_right or len(o.text[lang]) < len(c.right.text[lang]) for o in c.options)]
        if len(longest) > max(1, len(cards) / 2):
            yield f"in {len(longest)} of {len(cards)} choice cards the longest option is right ({lang}): {', '.join(longest)}"


def spoken_minutes(text: str) -> float:
    """Minutes to say a text, code and formulas left out."""
    bare = CODE.sub(" ", MATH.sub(" ", text))
    return len(CHINESE.findall(bare)) / CHARACTERS_A_MINUTE + len(WORD.findall(CHINESE.sub(" ", bare))) / WORDS_A_MINUTE


def lengths(bank: Bank) -> Complaints:
    """A spoken answer takes about a minute; the lists are short; there are two or three follow-ups."""
    for question in bank.questions:
        for lang in LANGUAGES:
            minutes = spoken_minutes(question.answer[lang])
            if not SPOKEN_MINUTES[0] <= minutes <= SPOKEN_MINUTES[1]:
                yield f"{question.id}: the {lang} answer takes {minutes:.1f} minutes, not {SPOKEN_MINUTES[0]} to {SPOKEN_MINUTES[1]}"
        for name in ("weak", "good", "outstanding"):
            if not ITEMS[0] <= len(getattr(question, name)) <= ITEMS[1]:
                yield f"{question.id}: {len(getattr(question, name))} items in {name}"
        if not FOLLOW_UPS[0] <= len(question.followups) <= FOLLOW_UPS[1]:
            yield f"{question.id}: {len(question.followups)} follow-ups"


def markup(bank: Bank) -> Complaints:
    """No text is empty, or holds Markdown or LaTeX that a terminal, a notebook and Anki would not all show."""
    for where, text in texts(bank):
        for lang in LANGUAGES:
            if not text[lang]:
                yield f"{where}: empty in {lang}"
            yield from (f"{where} ({lang}): {problem}" for problem in check_markup(text[lang]))


def pictures(bank: Bank) -> Complaints:
    """Every picture is there, of a kind that is shown everywhere, and used."""
    used = {card.picture.name for card in bank.cards if card.picture}
    for card in bank.cards:
        if card.picture and not picture_path(card.picture, bank).is_file():
            yield f"{card.id}: there is no picture {card.picture.name}"
        if card.picture and not card.picture.name.endswith(PICTURES):
            yield f"{card.id}: a picture is {' or '.join(PICTURES)}"
    folder = bank.folder / "pictures"
    yield from (f"{path.name}: no card uses this picture" for path in sorted(folder.glob("*")) if path.name not in used)


# --- the two languages --------------------------------------------------------------------------------------------


def _twins(where: str, text: Text) -> list[Cell]:
    """A text as a pair of cells, for the checks of the notebooks."""
    return [Cell(where, "markdown", lang, text[lang]) for lang in LANGUAGES]


NOTEBOOKS_ONLY = (language.unmarked, language.outputs)  # cells without a language, outputs of code


def languages(bank: Bank) -> Complaints:
    """Both languages have the same code, formulas and numbers, in good form, with the glossary's words."""
    for where, text in texts(bank):
        if text.zh == text.en and not re.search(r"[A-Za-z]{2,}", prose(text.en)):
            continue  # numbers or a formula
        cells = _twins(where, text)
        for check in language.CHECKS:
            if check not in NOTEBOOKS_ONLY:
                yield from check(cells)


# --- nothing of the guide -----------------------------------------------------------------------------------------

FINGERPRINTS = ROOT / "tests" / "checks" / "guide-fingerprints.txt"
RUN, WINDOW = 8, 5  # Chinese characters of a run; of so many runs the smallest hash is kept: 12 equal characters are always found


def _characters(text: str) -> str:
    return "".join(CHINESE.findall(text))


def runs(text: str) -> list[str]:
    """A hash of each run of Chinese characters; everything else is left out."""
    plain = _characters(text)
    return [hashlib.sha256(plain[i : i + RUN].encode()).hexdigest()[:10] for i in range(len(plain) - RUN + 1)]


def fingerprints(text: str) -> list[str]:
    """The hashes of a text that are kept: of each `WINDOW` neighbouring ones the smallest (winnowing)."""
    hashes = runs(text)
    return sorted({min(hashes[i : i + WINDOW]) for i in range(max(1, len(hashes) - WINDOW + 1)) if hashes})


def copied(bank: Bank, known: Iterable[str] | None = None) -> Complaints:
    """No run of Chinese characters of the guide, whose licence forbids it; known by hashes, so that the repository holds no text of it."""
    known = set(FINGERPRINTS.read_text(encoding="utf-8").split()) if known is None else set(known)
    for where, text in texts(bank):
        plain = _characters(text.zh)
        for place, hash in enumerate(runs(text.zh)):
            if hash in known:
                yield f"{where}: “{plain[place : place + RUN]}” stands in the guide, too"
                break


CHECKS: tuple[Callable[[Bank], Complaints], ...] = (
    ids,
    numbering,
    pages,
    claims,
    verdicts,
    choices,
    giveaways,
    lengths,
    markup,
    pictures,
    languages,
    copied,
)
