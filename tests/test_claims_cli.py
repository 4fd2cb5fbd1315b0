"""`bertcourse claims`: what was asked for, as text and as JSON; bad input is one sentence."""

import json

import pytest
from test_cli import call

from bertcourse.claims import CHAPTERS, VERDICTS, Ledger, ledger

pytestmark = pytest.mark.check


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)


def test_all_claims_as_json(capsys):
    code, out, err = call(capsys, "claims", "--json")
    data = json.loads(out)
    assert code == 0 and not err and [entry["id"] for entry in data] == list(ledger())
    [entry] = [e for e in data if e["id"] == "1.2-base-parameters"]
    assert entry["measured"]["value"] == [109482240, 110106428] and entry["measured"]["page"] == "01_bert.ipynb"
    assert entry["chapter"] == "1" and entry["section"] == "1.2" and "line" not in entry
    assert {"id", "kind", "verdict", "zh", "en", "source", "confidence", "chapter", "section", "measured"} <= data[0].keys()


@pytest.mark.parametrize("options, asked", [
    (["--chapter", "4"], {"chapter": "4"}),
    (["--chapter", "4.3"], {"chapter": "4.3"}),
    (["--chapter", "appendix", "--verdict", "depends"], {"chapter": "appendix", "verdict": "depends"}),
    (["--kind", "timed"], {"kind": "timed"}),
])  # fmt: skip
def test_filters(capsys, options, asked):
    _, out, _ = call(capsys, "claims", "--json", *options)
    assert [entry["id"] for entry in json.loads(out)] == [c.id for c in Ledger(**asked).claims]


@pytest.mark.parametrize("lang, says", [("en", "[corrected] The guide says: "), ("zh", "[更正] 指南说：")])
def test_text(capsys, lang, says):
    code, out, _ = call(capsys, "claims", "--chapter", "2.2", "--verdict", "corrected", "--lang", lang)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith(f"2.2-ffn-formula  {says}") and len([x for x in lines if says in x]) == 2


def test_counts(capsys):
    _, out, _ = call(capsys, "claims", "--counts", "--json")
    counts = json.loads(out)
    assert list(counts) == list(CHAPTERS) and sum(sum(c.values()) for c in counts.values()) == len(ledger())
    _, out, _ = call(capsys, "claims", "--counts")
    assert out.splitlines()[0].split() == ["chapter", *VERDICTS, "together"] and out.split()[-1] == str(len(ledger()))


@pytest.mark.parametrize("argv, says", [
    (["--chapter", "99"], "no claims of '99': chapters are 1, 2"),
    (["--chapter", "2.3", "--kind", "timed"], "no claims of '2.3 timed'"),
    (["--verdict", "wrong"], "invalid choice: 'wrong'"),
    (["stray"], "stray"),
])  # fmt: skip
def test_bad_input_is_one_sentence(capsys, argv, says):
    code, out, err = call(capsys, "claims", *argv)
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1


def test_refusal_in_chinese(capsys, monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, _, err = call(capsys, "claims", "--chapter", "99")
    assert code == 2 and "没有符合 '99' 的说法" in err
