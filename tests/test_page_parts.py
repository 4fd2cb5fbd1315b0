"""What a page of the site gets besides its own cells."""

import html

import pytest
import scripts
from checks.planting import md


@pytest.fixture(scope="module")
def parts():
    return scripts.tool("page_parts")


@pytest.mark.parametrize("lang, before, after", [
    ("en", "The perplexity. Then perplexity.", 'The <span class="term" tabindex="0" aria-description="DEF">perplexity</span>. Then perplexity.'),
    ("en", "`perplexity` [perplexity](x) $perplexity$ **perplexity**", None),
    ("en", "## perplexity\n| perplexity |\n```\nperplexity\n```", None),
    ("en", "superperplexityness", None),
    ("zh", "给出差值", None),
    ("zh", "看困惑度", '看<span class="term" tabindex="0" aria-description="DEF">困惑度</span>'),
])  # fmt: skip
def test_first_mention_of_a_term_has_its_definition(parts, lang, before, after):
    term = next(term for term in parts.glossary() if term.en == "perplexity")
    definition = html.escape(term.definition_zh if lang == "zh" else term.definition_en)
    assert parts.mark_terms(before, lang, set()) == (after or before).replace("DEF", definition)


@pytest.mark.parametrize("lang, text", [("en", "self-attention, then self-attention"), ("zh", "自注意力，又是自注意力")])
def test_a_term_inside_another_is_not_taken_for_itself(parts, lang, text):
    assert parts.mark_terms(text, lang, set()).count("<span") == 1


def test_every_term_can_be_marked(parts):
    for lang in ("zh", "en"):
        names = {term.zh if lang == "zh" else term.en for term in parts.glossary()}
        assert parts.mark_terms(" ; ".join(names), lang, set()).count("<span") > 0.9 * len(names)


@pytest.mark.parametrize("zh, en, expected", [
    (["## 一", "文\n\n### 二"], ["## One", "### 2. Two `x`"], ["## 一 {#one}", "文\n\n### 二 {#two-x}"]),
    (["## 一\n\n## 又一"], ["## One\n\n## One"], ["## 一 {#one}\n\n## 又一 {#one-2}"]),
    (["```\n## no\n```\n## 一"], ["## One"], ["```\n## no\n```\n## 一 {#one}"]),
    (["## 一 {#own}\n\n## 二"], ["## One {#own}\n\n## Two"], ["## 一 {#own}\n\n## 二 {#two}"]),
    (["## 一"], ["### One"], None),
    (["# 题"], ["# Title"], ["# 题"]),
])  # fmt: skip
def test_shared_anchors(parts, zh, en, expected):
    cells = {"zh": [md(text) for text in zh], "en": [md(text) for text in en]}
    assert parts.share_anchors(cells) == (expected is not None)
    assert ["".join(cell["source"]) for cell in cells["zh"]] == (expected or zh)


@pytest.mark.parametrize("name, address", [
    ("01_bert.ipynb", "bert.html"), ("07_2_serving.ipynb", "serving.html"), ("08_2_finetuning.ipynb", "interview-finetuning.html"),
    ("look_inside.ipynb", "look-inside.html"), ("index.ipynb", "index.html"), ("01_bert_solutions.ipynb", "bert-solutions.html"),
])  # fmt: skip
def test_addresses_say_what_a_page_holds(parts, name, address):
    assert parts.page_address(name) == address


def test_a_term_after_a_heading_or_a_table_has_its_definition(parts):
    text = "## Perplexity\n\n| perplexity |\n|---|\n\nThe perplexity is low."
    assert parts.mark_terms(text, "en", set()).startswith(text[:-20]) and parts.mark_terms(text, "en", set()).count("<span") == 1


def test_no_backtick_is_read_aloud(parts):
    assert "`" not in parts.mark_terms("Then padding.", "en", set())


def test_what_is_below_a_title(parts):
    names = {"01_bert.ipynb", "exercises/01_bert.ipynb", "exercises/01_bert_solutions.ipynb", "cards/chapter_1.ipynb"}
    found = parts.info_links("01_bert.ipynb", names, {"01_bert.ipynb"}, "zh")
    assert [what for _, what in found] == ["notebook", "colab", "binder", "exercises", "cards"]
    assert found[1][0].endswith("/blob/notebooks/zh/01_bert.ipynb") and found[2][0].endswith("notebooks?labpath=zh%2F01_bert.ipynb")
    assert [one for one in found if one[1] not in ("colab", "binder")] == [
        ("notebooks/01_bert.ipynb", "notebook"), ("exercises/01_bert.ipynb", "exercises"), ("cards/chapter_1.ipynb", "cards")]  # fmt: skip
    for name in ("exercises/01_bert.ipynb", "exercises/01_bert_solutions.ipynb"):
        assert parts.info_links(name, names, set(), "en") == [("01_bert.ipynb", "chapter")]
    assert parts.info_links("helpers/plots.ipynb", names, set(), "en") == []


def test_cells_and_headings_have_different_ids(parts):
    notebook = {"cells": [md("## Contents {#contents}") | {"id": "contents"}]}
    parts.rename_cells(notebook)
    assert [cell["id"] for cell in notebook["cells"]] == ["cell-contents"]


def test_generated_pages_name_no_source(parts):
    notebook = {"cells": [{"cell_type": "raw", "id": "a", "metadata": {}, "source": ["---\n", "title: x\n", "---\n"]}]}
    parts.hide_source(notebook)
    assert "".join(notebook["cells"][0]["source"]) == "---\ntitle: x\nrepo-actions: false\n---\n"


@pytest.mark.parametrize("text, expected", [
    ("Before.\n\n**Predict:** is it\nlarger?\n\nAfter.", "Before.\n\n::: {.predict}\n**Predict:** is it\nlarger?\n:::\n\nAfter."),
    ("**猜一猜**：更大吗？", "::: {.predict}\n**猜一猜**：更大吗？\n:::"),
    ("Now try [the exercises](exercises/01_bert.ipynb).", "::: {.to-exercises}\nNow try [the exercises](exercises/01_bert.ipynb).\n:::"),
    ("```\n**Predict:** no\n```", None),
    ("What you **predict:** matters.", None),
    ("A line\n**Predict:** inside a paragraph", None),  # Pandoc wants an empty line before a box
    ("| [exercises](exercises/01_bert.ipynb) |", None),
    ("- [exercises](exercises/01_bert.ipynb)", None),
])  # fmt: skip
def test_questions_and_ways_to_exercises_have_boxes(parts, text, expected):
    assert parts.add_boxes(text) == (expected or text)
