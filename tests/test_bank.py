"""The question bank: whole, right by the ledger, the same in both languages. The checks are tested below with planted faults."""

import dataclasses
import shutil
from dataclasses import replace

import pytest
from checks import bank as checks
from checks.reading import ROOT
from hypothesis import given
from hypothesis import strategies as st

from bertcourse.base.errors import UserError
from bertcourse.claims import ledger
from bertcourse.drill import load_bank, select_cards
from bertcourse.drill.bank import Correction, FollowUp, Picture, Text, page_names, page_title, read_file
from bertcourse.drill.markup import anki_formula, check_markup, html_formula, plain_formula, to_html, to_plain, wrap

pytestmark = pytest.mark.check

BANK = load_bank()


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_bank(check):
    found = list(check(BANK))
    assert not found, "\n".join(found)


def test_there_is_enough():
    assert [question.id for question in BANK.questions] == [f"Q{number}" for number in range(1, 21)]
    assert len(BANK.cards) >= 40 and sum(card.kind == "choice" for card in BANK.cards) >= 15
    written = {path.stem for path in (ROOT / "nbs").glob("0[1-7]*.ipynb")}
    assert written <= {card.page for card in BANK.cards}, "a page of chapters 1 to 7 has no card"


# --- the checks are checked: planted faults must be found ---------------------------------------------------------

QUESTION, CARD, CHOICE = BANK.questions[0], BANK.cards[0], next(card for card in BANK.cards if card.kind == "choice")


def with_question(**changes):
    """The bank, its first question changed."""
    return replace(BANK, questions=(replace(QUESTION, **changes), *BANK.questions[1:]))


def with_card(card, **changes):
    """The bank, one card changed."""
    return replace(BANK, cards=tuple(replace(other, **changes) if other is card else other for other in BANK.cards))


def option(n, **changes):
    """The options of the choice card, the n-th changed."""
    return tuple(replace(o, **changes) if i == n else o for i, o in enumerate(CHOICE.options))


RIGHT = next(i for i, o in enumerate(CHOICE.options) if o.is_right)
WRONG = next(i for i, o in enumerate(CHOICE.options) if not o.is_right)
LONG = Text("很长的话。" * 100, "Many words. " * 200)
FAULTS = {
    "same id": (checks.ids, with_card(CARD, id=BANK.cards[1].id), "occurs 2 times"),
    "id of a question": (checks.ids, with_card(CARD, id="Q1a"), "occurs 2 times"),
    "form of an id": (checks.ids, with_card(CARD, id="Input_sum"), "an id is the two digits"),
    "id of another page": (checks.ids, with_card(CARD, id="07-input"), "an id is the two digits"),
    "id of a follow-up": (checks.ids, with_question(followups=(replace(QUESTION.followups[0], id="Q1-1"),)), "are Q1a, Q1b"),
    "a question too few": (checks.numbering, replace(BANK, questions=BANK.questions[1:]), "Q1: page and section are None"),
    "wrong section": (checks.numbering, with_question(section="8.2"), "('08_1_principles', '8.2')"),
    "unknown page": (checks.pages, with_card(CARD, page="01_birt"), "no page 01_birt"),
    "unknown page to read": (checks.pages, with_question(reread=("10_more",)), "no page 10_more"),
    "unknown claim": (checks.claims, with_card(CARD, claim="1.1-nothing"), "no claim 1.1-nothing"),
    "question without claims": (checks.claims, with_question(claims=()), "no claims"),
    "question without sources": (checks.claims, with_question(sources=()), "no sources"),
    "corrected number": (checks.verdicts, with_card(CARD, claim="6.5-tinybert6-speed", answer=Text("5.3 倍。", "5.3 times.")), "corrects"),
    "near number": (checks.verdicts, with_card(CARD, claim="7.4-size", answer=Text("112 MB。", "112 MB.")), "no rounding of 109.8"),
    "near count": (checks.verdicts, with_card(CARD, claim="1.2-base-parameters", answer=Text("108M。", "108M.")), "no rounding of 1.0"),
    "number of a choice": (checks.verdicts, with_card(CHOICE, claim="7.4-size", options=option(RIGHT, text=Text("107", "107"))), "no rounding"),
    "recall without answer": (checks.choices, with_card(CARD, answer=None), "has an answer and no options"),
    "unknown kind": (checks.choices, with_card(CARD, kind="cloze"), "kind is cloze"),
    "two right": (checks.choices, with_card(CHOICE, options=option(WRONG, is_right=True)), "2 options are right"),
    "none right": (checks.choices, with_card(CHOICE, options=option(RIGHT, is_right=False)), "0 options are right"),
    "no reason": (checks.choices, with_card(CHOICE, options=option(WRONG, why=None)), "no why says so"),
    "two options": (checks.choices, with_card(CHOICE, options=CHOICE.options[:2]), "2 options, not 3"),
    "equal options": (checks.choices, with_card(CHOICE, options=option(WRONG, text=CHOICE.right.text)), "two options are the same"),
    "long option": (checks.choices, with_card(CHOICE, options=option(WRONG, text=LONG)), "more than"),
    "longest is right": (checks.giveaways, replace(BANK, cards=tuple(replace(CHOICE, id=str(n), options=option(RIGHT, text=LONG)) for n in "ab")),
                         "the longest option is right"),
    "long answer": (checks.lengths, with_question(answer=LONG), "takes"),
    "short answer": (checks.lengths, with_question(answer=Text("对。", "Yes.")), "takes 0.0 minutes"),
    "empty list": (checks.lengths, with_question(good=()), "0 items in good"),
    "one follow-up": (checks.lengths, with_question(followups=QUESTION.followups[:1]), "1 follow-ups"),
    "empty text": (checks.markup, with_card(CARD, prompt=Text("", "x")), "empty in zh"),
    "open code": (checks.markup, with_card(CARD, prompt=Text("`a", "`a")), "unpaired"),
    "open formula": (checks.markup, with_card(CARD, prompt=Text("$a", "$a")), "unpaired"),
    "HTML": (checks.markup, with_card(CARD, prompt=Text("<b>一</b>", "<b>a</b>")), "an HTML tag"),
    "table": (checks.markup, with_card(CARD, prompt=Text("| 一 |", "| a |")), "a table"),
    "unknown LaTeX": (checks.markup, with_card(CARD, prompt=Text(r"$\foo$", r"$\foo$")), "is not known"),
    "open brace": (checks.markup, with_card(CARD, prompt=Text("$x_{1$", "$x_{1$")), "not closed"),
    "no picture": (checks.pictures, with_card(CARD, picture=Picture("no.svg", Text("图", "a"))), "no picture no.svg"),
    "kind of picture": (checks.pictures, with_card(CARD, picture=Picture("a.bmp", Text("图", "a"))), ".svg or .png"),
    "unused picture": (checks.pictures, replace(BANK, cards=()), "no card uses"),
    "numbers": (checks.languages, with_card(CARD, prompt=Text("有 12 层吗？", "Are there 24 layers?")), "numbers differ"),
    "formulas": (checks.languages, with_card(CARD, prompt=Text("$d_k$ 是什么？", "What is $d_v$?")), "mathematics differ"),
    "code": (checks.languages, with_card(CARD, prompt=Text("`a` 是什么？", "What is `b`?")), "code spans differ"),
    "one language": (checks.languages, with_card(CARD, prompt=Text("What is it?", "What is it?")), "the same text"),
    "glossary": (checks.languages, with_card(CARD, prompt=Text("令牌是什么？", "What is a token?")), "should be token"),
    "spelling": (checks.languages, with_card(CARD, prompt=Text("归一化是什么？", "What is to normalize?")), "American spelling"),
    "punctuation": (checks.languages, with_card(CARD, prompt=Text("这是什么,为什么？", "What is it, and why?")), "half-width"),
    "follow-up": (checks.languages, with_question(followups=(FollowUp("Q1a", Text("问？", "Ask?"), Text("共 3 个。", "There are 4.")),)), "Q1a answer"),
    "correction": (checks.languages, with_question(correction=Correction(Text("说 1。", "Say 2."), Text("因为。", "Because."))), "instead"),
    "explanation": (checks.languages, with_card(CHOICE, options=option(WRONG, why=Text("是 1。", "It is 2."))), "why: numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name):
    check, bank, complaint = FAULTS[name]
    found = list(check(bank))
    assert any(complaint in problem for problem in found), found


GUIDE = "这里有一句别人写的话，谁也不可以照抄到题库里面去，哪怕换几个标点符号。"  # stands for the guide


@pytest.mark.parametrize("text, is_copied", [
    (GUIDE, True),
    ("开头不同：谁也不可以，照抄到 bank 题库里面去 —— 结尾也不同。", True),  # punctuation and Latin letters do not hide it
    ("前面的话不一样。不可以照抄到题库里面去", True),  # 13 characters
    ("别人写的话，可以照抄。", False),
    ("", False),
])  # fmt: skip
def test_copies_are_found(text, is_copied):
    known = checks.fingerprints(GUIDE)
    found = list(checks.copied(with_card(CARD, prompt=Text(text, "x")), known))
    assert bool(found) is is_copied


@given(st.text(alphabet="的一是不了在人有我他这中大来上国个到说们", min_size=12, max_size=60), st.data())
def test_any_twelve_characters_are_found(text, data):
    start = data.draw(st.integers(0, len(text) - 12))
    assert set(checks.runs(text[start:start + 12])) & set(checks.fingerprints(text))


def test_numbers_that_agree_pass():
    for text in ("110 MB", "109.8 MB", "438 MB become 109.8", "about 0.25"):
        assert not list(checks.contradictions(text, "", ledger()["7.4-size"])), text
    assert not list(checks.contradictions("110M", "", ledger()["1.2-base-parameters"]))


# --- the files ----------------------------------------------------------------------------------------------------

CARD_FILE = """[[card]]
id = "01-a"
kind = "recall"
prompt_zh = "问？"
prompt_en = "Ask?"
answer_zh = "答。"
answer_en = "Answer."
"""


@pytest.mark.parametrize("text, says", [
    (CARD_FILE.replace("answer_en", "anser_en"), "01_bert.toml, card 1: answer_en is missing"),
    (CARD_FILE + "claims = 1", "card 1: unknown claims"),
    (CARD_FILE.replace('kind = "recall"\n', ""), "card 1: kind is missing"),
    (CARD_FILE + "picture = 3", "picture is missing or no str"),
    (CARD_FILE + "[[cards]]\nid = 1", "unknown cards"),
    (CARD_FILE + "[[card.option]]\ntext_zh = 'a'\ntext_en = 'a'\nright = 'yes'", "option 1: right is missing or no bool"),
    ("[[question]]\nid = 'Q1'", "question 1: section is missing"),
    ("card = [", "01_bert.toml: "),
    ("[[card]", "01_bert.toml: "),
])  # fmt: skip
def test_a_fault_in_a_file_is_named(tmp_path, text, says):
    path = tmp_path / "01_bert.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_file(path)
    assert says in str(error.value)


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "01_bert.toml").write_text(CARD_FILE, encoding="utf-8")
    bank = load_bank(tmp_path)
    assert [card.id for card in bank.drill_cards()] == ["01-a"] and bank.cards[0].page == "01_bert"


def test_bank_lies_in_the_package():
    assert BANK.folder == ROOT / "bertcourse/assets/bank" and (BANK.folder / "README.md").is_file()


# --- choosing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, pages", [
    ("4", {"04_1_tasks", "04_2_practice"}),
    ("4.3", {"04_2_practice"}),
    ("4.2.1", {"04_1_tasks"}),
    ("7.5", {"07_2_serving"}),
    ("8.1", {"08_1_principles"}),
    ("08_1_principles", {"08_1_principles"}),
    ("01_bert.ipynb", {"01_bert"}),
    (" 1 ", {"01_bert"}),
])
def test_cards_of_a_chapter(name, pages):
    assert {card.page for card in select_cards(BANK, name)} == pages


def test_cards_of_a_question():
    assert [card.id for card in select_cards(BANK, "q7")] == ["Q7", "Q7a", "Q7b"]


def test_all_cards_are_in_the_order_of_the_course():
    cards = select_cards(BANK)
    assert len(cards) == len({card.id for card in cards}) == len(BANK.cards) + sum(1 + len(q.followups) for q in BANK.questions)
    assert [card.page for card in cards] == sorted((card.page for card in cards), key=page_names().index)


@pytest.mark.parametrize("name", ["", "99", "8.9", "Q21", "appendix", "../x", "0", "四", "9"])
def test_what_the_course_does_not_have(name):
    with pytest.raises(UserError) as error:
        select_cards(BANK, name)
    assert ("the course has no" in error.value.en or "there are no cards" in error.value.en) and error.value.zh


@pytest.mark.parametrize("page, title", [("01_bert", "How BERT works"), ("04_1_tasks", "Fine-tuning"), ("04_2_practice", "Fine-tuning in practice"),
                                         ("07_2_serving", "Deployment in production"), ("08_5_depth", "Deeper understanding")])
def test_titles_of_pages(page, title):
    assert page_title(page).en == title


# --- markup -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source, plain, html", [
    (r"\sqrt{d_k}", "√dₖ", "√<i>d</i><sub><i>k</i></sub>"),
    (r"QK^{\top}/\sqrt{d_k}", "QKᵀ/√dₖ", "<i>Q</i><i>K</i>ᵀ/√<i>d</i><sub><i>k</i></sub>"),
    (r"T^2", "T²", "<i>T</i><sup>2</sup>"),
    (r"\frac{1}{T}(q_i - p_i)", "1/T(qᵢ − pᵢ)", "1/<i>T</i>(<i>q</i><sub><i>i</i></sub> − <i>p</i><sub><i>i</i></sub>)"),
    (r"\eta d^{L-i}", "ηd^(L−i)", "η<i>d</i><sup><i>L</i>−<i>i</i></sup>"),
    (r"\frac{a+b}{2}", "(a+b)/2", "(<i>a</i>+<i>b</i>)/2"),
    (r"\mathrm{softmax}(x)\,V", "softmax(x) V", "softmax(<i>x</i>) <i>V</i>"),
    (r"30{,}522 \times 768", "30,522 × 768", "30,522 × 768"),
    (r"KL(p_t \| p_s)", "KL(pₜ ∥ pₛ)", "<i>K</i><i>L</i>(<i>p</i><sub><i>t</i></sub> ∥ <i>p</i><sub><i>s</i></sub>)"),
    (r"a < b", "a < b", "<i>a</i> &lt; <i>b</i>"),
])
def test_formulas(source, plain, html):
    assert plain_formula(source) == plain
    assert html_formula(source) == f'<span style="white-space:nowrap">{html}</span>'
    assert anki_formula(source).startswith(r"\(") and "<" not in anki_formula(source)


@pytest.mark.parametrize("source", [r"\foo", "a}", "{a", "a^", r"\frac{1}", r"\text x", "_"])
def test_formulas_that_are_none(source):
    with pytest.raises(ValueError):
        plain_formula(source)


@given(st.text(alphabet=r"\{}^_ ab1+-=/<&" + "αlpfrcsqt", max_size=30))
def test_any_formula_is_written_or_refused(source):
    for write in (plain_formula, html_formula):
        try:
            assert "\\" not in write(source).replace("\\_", "")
        except ValueError:
            pass


def test_blocks():
    text = "First `a<b` line\ngoes **on**.\n\n- one $x_1$\n- two\n\n```\nx = 1 < 2\n```\n\n第一行\n第二行 [页](https://a.org)"
    assert to_html(text) == ("<p>First <code>a&lt;b</code> line goes <b>on</b>.</p><ul><li>one "
                             f"{html_formula('x_1')}</li><li>two</li></ul><pre>x = 1 &lt; 2</pre>"
                             '<p>第一行第二行 <a href="https://a.org">页</a></p>')
    assert to_plain(text).splitlines() == ["First `a<b` line goes on.", "", "• one x₁", "• two", "", "    x = 1 < 2", "",
                                           "第一行第二行 页 (https://a.org)"]
    assert check_markup(text) == [] and to_html("one") == "one" and to_html(r"5 \$") == "5 $"


@given(st.text(max_size=200))
def test_html_is_always_escaped(text):
    try:
        html = to_html(text)
    except ValueError:
        return
    known = ("p", "ul", "li", "pre", "code", "b", "i", "sub", "sup", "a", "span")
    for part in html.split("<")[1:]:
        assert part.lstrip("/").split(">")[0].split(" ")[0] in known


@given(st.text(alphabet="中文，。 abc-", max_size=120), st.integers(20, 60))
def test_lines_are_no_wider_than_asked(text, width):
    from bertcourse.base.text import wide
    lines = wrap(text, width).split("\n")
    assert all(wide(line) <= width + 4 or " " not in line.strip() for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_no_line_begins_with_punctuation():
    lines = wrap("一二三四五六七八九十，一二三四五六七八九十。end of a line, and more.", 20).split("\n")
    assert lines == ["一二三四五六七八九", "十，一二三四五六七八", "九十。end of a line,", "and more."]
    assert wrap("• one two three four five six", 20) == "• one two three four\n  five six"


def test_every_field_of_the_bank_is_looked_at():
    seen = {id(text) for _, text in checks.texts(BANK)}

    def all_texts(value):
        if isinstance(value, Text):
            yield value
        elif dataclasses.is_dataclass(value):
            for part in dataclasses.fields(value):
                yield from all_texts(getattr(value, part.name))
        elif isinstance(value, tuple):
            for part in value:
                yield from all_texts(part)
    assert {id(text) for text in all_texts((BANK.questions, BANK.cards))} == seen


def test_copy_of_the_folder_reads_the_same(tmp_path):
    shutil.copytree(BANK.folder, tmp_path / "bank")
    other = load_bank(tmp_path / "bank")
    assert (other.questions, other.cards) == (BANK.questions, BANK.cards)
