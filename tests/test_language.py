"""Both languages of every notebook say the same, in good form. The checks are tested below with planted faults."""

import tomllib

import pytest
from checks import language, reading
from checks.planting import code, en, html, md, notebook, zh
from hypothesis import given
from hypothesis import strategies as st

from bertcourse.languages import keep_language, lang_only, learner_notebook, split_marker

pytestmark = pytest.mark.check

EXCEPTIONS = tomllib.loads((reading.ROOT / "tests/checks/exceptions.toml").read_text(encoding="utf-8"))
NUMBERS = {e["cell"]: e["reason"] for e in EXCEPTIONS.get("numbers", [])}


def complaints(check, cells):
    """What a check says of some cells."""
    return list(check(cells, NUMBERS)) if check is language.same_numbers else list(check(cells))


@pytest.mark.parametrize("check", language.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("path", reading.notebooks(), ids=lambda p: p.stem)
def test_notebook(path, check):
    found = complaints(check, reading.read(path))
    assert not found, "\n".join(found)


def test_there_are_notebooks():
    assert len(reading.notebooks()) >= 3


def test_exceptions_are_needed():
    needed = set()
    for path in reading.notebooks():
        needed |= {text.split(": ")[0] for text in language.same_numbers(reading.read(path))}
    assert NUMBERS.keys() <= needed, f"no longer needed in exceptions.toml: {sorted(NUMBERS.keys() - needed)}"
    assert all(len(reason) > 10 for reason in NUMBERS.values())


GOOD = notebook(
    zh(
        "## 1.1 词表\n\n词表有 30,522 项，占 `bert-base` 的 21%，见[论文](https://arxiv.org/abs/1810.04805)第 3.1 节；"
        "$H=768$ 时共 1.1 亿参数（`[MASK]` 在内）。"
    ),
    en(
        "## 1.1 The vocabulary\n\nThe vocabulary has 30,522 entries, 21% of `bert-base`: see §3.1 of the "
        "[paper](https://arxiv.org/abs/1810.04805); with $H=768$ there are 110 million parameters, `[MASK]` included."
    ),
    code(
        "# a tokenizer's size, e.g. “我”\nplot_bars({'a': 1}, zh='共 3 个，条形图。', en='A chart of 3.')",
        [html('<b lang="zh">一</b><b lang="en">one</b>')],
    ),
    md("$$a^2 + b^2 = c^2$$"),
    zh("论文发表于 2018 年 10 月 11 日，学习率 2e-5；语料共 33 亿词。"),
    en("The paper appeared on 11 October 2018; its learning rate is 2e-5, its corpus 3.3 billion words."),
)


@pytest.mark.parametrize("check", [*language.CHECKS, language.long_passages], ids=lambda c: c.__name__)
def test_good_notebook(check):
    assert list(check(reading.cells(GOOD))) == []


PLANTED = [
    # pairing
    (language.pairing, [zh("一。")], "not directly followed"),
    (language.pairing, [zh("一。"), code("1"), en("One.")], "not directly followed"),
    (language.pairing, [zh("一。"), zh("二。"), en("Two.")], "not directly followed"),
    (language.pairing, [en("One."), zh("一。")], "does not directly follow"),
    (language.pairing, [zh(""), en("One.")], "empty zh"),
    (language.pairing, [zh("One."), en("One.")], "same text"),
    # structure
    (language.structure, [zh("## 1.1 一"), en("### 1.1 One")], "headings differ"),
    (language.structure, [zh("### 2.1.2 一"), en("### 2.1.3 One")], "headings differ"),
    (language.structure, [zh("## 一"), en("One")], "headings differ"),
    (language.structure, [zh("见[一](a.ipynb)。"), en("See [one](b.ipynb).")], "links differ"),
    (language.structure, [zh("见 https://a.org。"), en("See https://a.com.")], "links differ"),
    (language.structure, [zh("见<a href='a.html'>一</a>。"), en("See one.")], "links differ"),
    (language.structure, [zh("![图](a.png)"), en("![plot](b.png)")], "links differ"),
    (language.structure, [zh("![图](a-zh.png)"), en("![plot](b-en.png)")], "links differ"),
    (language.structure, [zh("`a` 和 `b`。"), en("`a` and `c`.")], "code spans differ"),
    (language.structure, [zh("`a`。"), en("`a` and `a`.")], "code spans differ"),
    (language.structure, [zh("```\nx = 1\n```"), en("```\nx = 2\n```")], "code spans differ"),
    (language.structure, [zh("`lab --lang zh`。"), en("`lab --lang fr`.")], "code spans differ"),
    (language.structure, [zh("宽 $d_k$。"), en("Width $d_v$.")], "mathematics differ"),
    # numbers
    (language.same_numbers, [zh("占 21%。"), en("It is 20%.")], "numbers differ"),
    (language.same_numbers, [zh("共 33 亿。"), en("In all 3.2 billion.")], "numbers differ"),
    (language.same_numbers, [zh("共 30,522 项。"), en("There are 30,000.")], "numbers differ"),
    (language.same_numbers, [zh("学习率 1e-5。"), en("The rate is 1e-4.")], "numbers differ"),
    (language.same_numbers, [zh("学习率 10⁻⁵。"), en("A rate.")], "numbers differ"),
    (language.same_numbers, [zh("2018 年 10 月。"), en("November 2018.")], "numbers differ"),
    (language.same_numbers, [zh("**12** 层。"), en("Many layers.")], "numbers differ"),
    (language.same_numbers, [zh("| 层 | 12 |"), en("| layers | 24 |")], "numbers differ"),
    (language.same_numbers, [code("f(zh='共 3 个。', en='There are 4.')")], "numbers of a caption differ"),
    # unmarked
    (language.unmarked, [md("没有标记。")], "without a language marker"),
    (language.unmarked, [md("Prose here.")], "without a language marker"),
    (language.unmarked, [md('<p lang="zh">一</p>prose')], "without a language marker"),
    (language.unmarked, [md("# 二 | Two")], "belongs into the first cell"),
    # english
    (language.english, [zh("一。"), en("One 词.")], "Chinese in English text"),
    (language.english, [zh("One."), en("One!")], "without a Chinese character"),
    (language.english, [code("x = 1  # 词表")], "Chinese in a comment"),
    (language.english, [code("词 = 1")], "Chinese in a name"),
    (language.english, [code("def f():\n    '词表'")], "Chinese in a docstring"),
    (language.english, [code("f(zh='词', en='the 词')")], "Chinese in an English caption"),
    # punctuation
    (language.punctuation, [zh("一,二。"), en("x")], "half-width punctuation"),
    (language.punctuation, [zh("注意: 一。"), en("x")], "half-width punctuation"),
    (language.punctuation, [zh("这是一句."), en("x")], "half-width punctuation"),
    (language.punctuation, [zh("词 `x`, 然后。"), en("x")], "half-width punctuation"),
    (language.punctuation, [zh("一(二)。"), en("x")], "brackets"),
    (language.punctuation, [zh('所谓"词"。'), en("x")], "straight quotes"),
    (language.punctuation, [zh("一， 二。"), en("x")], "a blank after"),
    (language.punctuation, [zh("一 ，二。"), en("x")], "a blank before"),
    (language.punctuation, [zh("等等..."), en("x")], "doubled"),
    (language.punctuation, [zh("一。"), en("One，two.")], "full-width punctuation in English"),
    (language.punctuation, [code("f(zh='一,二。', en='x')")], "half-width punctuation"),
    # terms
    (language.terms, [zh("遮蔽语言模型。"), en("x")], "遮蔽语言模型"),
    (language.terms, [zh("一。"), en("Multihead attention.")], "multi-head attention"),
    (language.terms, [zh("见[令牌](a.ipynb)。"), en("x")], "令牌"),
    (language.terms, [code("f(zh='令牌。', en='x')")], "令牌"),
    (language.terms, [code("def f():\n    'For finetuning.'")], "finetuning"),
    (language.terms, [zh("特殊标记【掩码】。"), en("x")], "translated special token"),
    (language.terms, [zh("特殊标记［MASK］。"), en("x")], "translated special token"),
    # spelling
    (language.spelling, [zh("一。"), en("Layer normalization.")], "normalization"),
    (language.spelling, [zh("一。"), en("The optimizer analyzes.")], "optimizer, analyzes"),
    (language.spelling, [zh("一。"), en("Its behavior and colors.")], "behavior, colors"),
    (language.spelling, [code("def f():\n    'Quantized weights.'")], "Quantized"),
    (language.spelling, [code("f(zh='一。', en='Distill it.')")], "distill"),
    (language.spelling, [code("x = 1  # vectorized")], "vectorized"),
    # emphasis
    (language.emphasis, [zh("**双向。**改动一个词。"), en("**Both.** Change a word.")], "bold text cannot end with"),
    # outputs
    (language.outputs, [code("x", [html('<p lang="zh">一</p>')])], "1 elements in zh and 0"),
]


@pytest.mark.parametrize("check, planted, expected", PLANTED, ids=lambda x: getattr(x, "__name__", None))
def test_planted_fault_is_noticed(check, planted, expected):
    found = list(check(reading.cells(notebook(*planted))))
    assert any(expected in complaint for complaint in found), found
    assert all("a.ipynb#" in complaint for complaint in found)


@pytest.mark.parametrize(
    "title, expected",
    [
        ("# 只有中文\n\n> 描述 | Description", "not “中文 | English”"),
        ("# One | 一\n\n> 描述 | Description", "not “中文 | English”"),
        ("# 一 | One", "one line # and one line >"),
        ("# 一 | One\n\n> 描述 | Description\n\nlost", "more than title"),
        ("Prose", "starts with its title"),
    ],
)
def test_title_cell(title, expected):
    found = list(language.unmarked(reading.cells(notebook(title=title))))
    assert any(expected in complaint for complaint in found), found


@pytest.mark.parametrize(
    "check, harmless",
    [
        (language.unmarked, [md("$x$ [![](a.png)](https://b.org) <hr>")]),
        (language.unmarked, [md('<p lang="zh">一</p><p lang="en">one</p>')]),
        (language.english, [zh("一。"), en("The pair “弹吉他” and `我`, and\n\n| word | 我 |")]),
        (language.english, [code("x = '我'  # “我” in quotes")]),
        (
            language.punctuation,
            [zh("1. 一\n2. 用 `a, b` 和 BERT, GPT（2018）；$f(词), x$。\n\n[论文](https://a.org/x,y)：好。"), en("x")],
        ),
        (
            language.terms,
            [
                zh("见[第三章](03_1_objectives.ipynb)，`finetuning`。"),
                en("See [it](03_1_objectives.ipynb), `finetuning`."),
            ],
        ),
        (
            language.spelling,
            [zh("一。"), en("The size of the tokenizer; `normalize`; *Layer Normalization*; see AdamOptimizer.")],
        ),
        (language.same_numbers, [zh("`12` 层，$3$，[四](a4.ipynb)。"), en("`12` layers, $3$, [four](a5.ipynb).")]),
    ],
)
def test_harmless_text_passes(check, harmless):
    assert list(check(reading.cells(notebook(*harmless)))) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("33 亿", ["3300000000"]),
        ("3.3 billion", ["3300000000"]),
        ("110M", ["110000000"]),
        ("1.1 亿", ["110000000"]),
        ("10 MB", ["10"]),
        ("22.3 G", ["22300000000"]),
        ("1e-5", ["1e-05"]),
        ("2 × 10⁻⁵", ["2e-05"]),
        ("80%", ["80%"]),
        ("30,522", ["30522"]),
        ("11 October 2018", ["10", "11", "2018"]),
        ("2018 年 10 月 11 日", ["10", "11", "2018"]),
        ("October 11, 2018", ["10", "11", "2018"]),
        ("transformers 5.23.0", ["5.23.0"]),
        ("64–128", ["128", "64"]),
        ("A100", []),
        ("It may be", []),
    ],
)
def test_numbers(text, expected):
    assert language.numbers(text) == expected


def test_long_passage_is_reported():
    text = "一。二。三。四。五。六。七。"
    assert list(language.long_passages(reading.cells(notebook(zh(text), en("x"), code("1")))))


# --- the filter itself --------------------------------------------------------------------------------------------

PLAIN = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs", "Cc"]), max_size=12)
LEAVES = st.one_of(PLAIN, st.just("<br>"), st.just("\n"), st.just('<img src="a.png">'), st.just("<path d='M0'/>"))
NEUTRAL = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"<div class='x'>{''.join(parts)}</div>"),
    max_leaves=6,
)


@given(NEUTRAL)
def test_filter_keeps_what_has_no_language_byte_for_byte(text):
    assert keep_language(text, "zh") == text and keep_language(text, "en") == text


@given(NEUTRAL, NEUTRAL, NEUTRAL, NEUTRAL)
def test_filter_drops_the_other_language_whole(before, chinese, between, after):
    text = f'{before}<p lang="zh">{chinese}</p>{between}<span lang="en">{chinese}</span>{after}'
    assert keep_language(text, "zh") == f'{before}<p lang="zh">{chinese}</p>{between}{after}'
    assert keep_language(text, "en") == f'{before}{between}<span lang="en">{chinese}</span>{after}'
    assert keep_language(keep_language(text, "zh"), "zh") == keep_language(text, "zh")


@pytest.mark.parametrize(
    "text, lang, rest",
    [
        ("<!-- zh -->\n一", "zh", "一"),
        ("\n<!--en--> \nOne", "en", "One"),
        ("One <!-- zh -->", None, "One <!-- zh -->"),
        ("<!-- fr -->\nUn", None, "<!-- fr -->\nUn"),
        ("", None, ""),
    ],
)
def test_marker(text, lang, rest):
    assert split_marker(text) == (lang, rest)


def test_processor_does_nothing_without_a_language(monkeypatch):
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)
    cell = zh("一。")
    lang_only(cell)
    assert "source" in cell
    monkeypatch.setenv("BERTCOURSE_LANG", "en")
    lang_only(cell)
    assert "source" not in cell
    monkeypatch.setenv("BERTCOURSE_LANG", "fr")
    with pytest.raises(ValueError, match="unknown language 'fr'"):
        lang_only(en("One."))


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_learner_notebook_of_the_good_notebook(lang):
    made = learner_notebook(GOOD, lang)
    text = "\n".join("".join(c["source"]) for c in made["cells"])
    assert ("词表有" in text) == (lang == "zh") and ("entries" in text) == (lang == "en") and "$$a^2" in text
    assert not any(c.get("outputs") for c in made["cells"]) and GOOD["cells"][3]["outputs"], (
        "the source keeps its outputs"
    )
