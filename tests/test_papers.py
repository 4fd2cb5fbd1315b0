"""The papers' tables as data: averages computed again, the known misprint found; resources that can be cited."""

import re
from dataclasses import replace

import pytest

from bertcourse.papers import TOPICS, Misprint, find_misprints, paper_table, paper_tables, recomputed, resources

pytestmark = pytest.mark.check

TABLES = [*(f"bert-{i}" for i in range(1, 9)), *(f"distilbert-{i}" for i in range(1, 5)), *(f"tinybert-{i}" for i in range(1, 8)),
          "roberta-2", "albert-2"]  # fmt: skip


def test_tables_are_there():
    assert list(paper_tables())[: len(TABLES)] == TABLES
    with pytest.raises(KeyError, match="no table 'bert-9': bert-1"):
        paper_table("bert-9")


@pytest.mark.parametrize("table", paper_tables().values(), ids=paper_tables())
def test_table_is_sound(table):
    assert table.rows and len(set(table.columns)) == len(table.columns)
    assert all(isinstance(value, (int, float, type(None))) for row in table.rows.values() for value in row)
    used = [name for group in table.of for name in ([group] if isinstance(group, str) else group)]
    assert set(used) <= {*table.columns} - {table.average} and bool(table.average) == bool(table.of)


@pytest.mark.parametrize("table", [t for t in paper_tables().values() if t.average], ids=lambda t: t.id)
def test_averages_are_those_of_the_cells(table):
    assert list(find_misprints(table)) == [misprint.row for misprint in table.misprints]


def test_the_misprint_is_found_and_explained():
    glue = paper_table("distilbert-1")
    printed, mean = find_misprints(glue)["BERT-base"]
    assert (printed, round(mean, 2)) == (79.5, 79.72)
    [misprint] = glue.misprints
    assert misprint == Misprint("BERT-base", "MNLI", 84.7, misprint.source) and glue.cell("BERT-base", "MNLI") == 86.7
    row = list(glue.rows["BERT-base"])
    row[glue.columns.index("MNLI")] = misprint.right
    mended = replace(glue, rows=glue.rows | {"BERT-base": tuple(row)})
    assert not find_misprints(mended) and round(recomputed(mended)["BERT-base"], 2) == 79.5


def test_a_planted_misprint_is_found():
    glue = paper_table("tinybert-1")
    row = list(glue.rows["TinyBERT-4"])
    row[glue.columns.index("CoLA")] += 5
    assert list(find_misprints(replace(glue, rows=glue.rows | {"TinyBERT-4": tuple(row)}))) == ["TinyBERT-4"]


def test_rows_with_gaps_are_left_out():
    glue = paper_table("tinybert-1")
    assert "PD-6" not in recomputed(glue) and "PD-6" not in glue.select("CoLA") and "PD-6" in glue.select("QNLI")
    assert glue.column("speed")["TinyBERT-4"] == 9.4 and "MobileBERT-tiny" not in glue.column("speed")


def test_resources_can_be_cited():
    found = resources()
    assert len({r.link for r in found}) == len(found) and all(r.zh and r.en and r.link.startswith("http") for r in found)
    for paper in resources(kind="paper"):
        assert 2015 <= paper.year <= 2026 and paper.authors
        year = re.search(r"arxiv.org/abs/(\d\d)\d\d\.\d{5}$", paper.link)
        assert year is None or 2000 + int(year[1]) == paper.year, "the year is that of the first version"
        assert not paper.venue or int(re.search(r"20\d\d", paper.venue)[0]) >= paper.year
    assert {r.topic for r in found} == {*TOPICS} and sum(r.in_guide for r in found) == 9
    with pytest.raises(ValueError, match="no topic 'cats': bert"):
        resources("cats")


def test_chapter_6_has_the_same_numbers():
    from bertcourse.tinybert import ABLATIONS, COLUMNS, GLUE

    assert GLUE == paper_table("tinybert-1").select(*COLUMNS, "average")
    rows = {name: row for number in (2, 3, 4) for name, row in paper_table(f"tinybert-{number}").rows.items()}
    assert ABLATIONS | {"uniform": ABLATIONS["TinyBERT"]} == rows
