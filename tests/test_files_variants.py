"""`bertcourse.files`: variants that were once misread without a word: CoNLL-2003, semicolons, Excel, pandas, R."""

import csv
import io
import json
import random

import pytest
from test_files import one, pair, put, said, squad

from bertcourse.files import dataset, read, table_format
from bertcourse.tables import looks_like_csv, table_kind

# --- CoNLL --------------------------------------------------------------------------------------

IOB2 = """EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O
to TO B-VP O
boycott VB I-VP O
British JJ B-NP B-MISC
lamb NN I-NP O
. . O O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
IOB1 = """EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
to TO I-VP O
boycott VB I-VP O
British JJ I-NP I-MISC
lamb NN I-NP O
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
"""
TAGS = [["B-ORG", "O", "B-MISC", "O", "O", "O", "B-MISC", "O", "O"], ["B-PER", "I-PER"]]
WORDS = ["EU", "rejects", "German", "call", "to", "boycott", "British", "lamb", "."]


def numbered(text):
    """The same with the tokens of each sentence counted from 1."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return "\n\n".join("\n".join(f"{i} {line}" for i, line in enumerate(block, 1)) for block in blocks) + "\n"


def tags_of(path, **kw):
    return [row["ner_tags"] for row in read("ner", path, **kw).rows]


@pytest.mark.parametrize("text", [IOB2, IOB1], ids=["IOB2", "IOB1"])
@pytest.mark.parametrize("count", [str, numbered], ids=["plain", "numbered"])
@pytest.mark.parametrize("begin", ["", "-DOCSTART- -X- O O\n\n", "-DOCSTART- -X- -X- O\n\n"], ids=["none", "O", "X"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conll_2003_has_entities_and_not_phrases(text, count, begin, end, tmp_path):
    path = put(tmp_path, "eng.train", (begin + count(text)).replace("\n", end))
    found = read("ner", path)
    assert [row["ner_tags"] for row in found.rows] == TAGS
    assert found.rows[0]["tokens"] == WORDS and "4 entities (MISC: 2, ORG: 1, PER: 1)" in found.understood.en


@pytest.mark.parametrize("sentence", [
    "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\ncall NN I-NP O\n",  # no chunk is O
    "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\ncall NN I-NP O\n. . O O\n",
])
@pytest.mark.parametrize("count", [str, numbered])
def test_one_sentence_of_conll_2003(sentence, count, tmp_path):
    (tags,) = tags_of(put(tmp_path, "a.txt", count(sentence.strip("\n"))))
    assert tags[:4] == ["B-ORG", "O", "B-MISC", "O"]


def test_conll_2003_without_an_entity(tmp_path):
    text = "He PRP B-NP O\nslept VBD B-VP O\n. . O O\n"
    assert tags_of(put(tmp_path, "a.txt", text)) == [["O", "O", "O"]] == tags_of(put(tmp_path, "b.txt", numbered(text)))


def test_conll_2003_in_german(tmp_path):
    """Its phrases are NC, VC and PC, with B- between two of one kind; entities are in IOB1."""
    rows = ["Das d ART I-NC O", "Haus Haus NN I-NC O", "Siemens Siemens NE B-NC I-ORG", "liegt liegen VVFIN I-VC O",
            "in in APPR I-PC O", "Köln Köln NE I-PC I-LOC", "Bonn Bonn NE B-NC I-LOC", ". . $. O O"]
    found = read("ner", put(tmp_path, "deu.train", "-DOCSTART- -X- -X- -X- O\n\n" + "\n".join(rows) + "\n"))
    assert found.rows[0]["ner_tags"] == ["O", "O", "B-ORG", "O", "O", "B-LOC", "I-LOC", "O"]


def test_phrases_are_read_where_they_are_asked_for_or_come_last(tmp_path):
    chunks = [["B-NP", "B-VP", "B-NP", "I-NP", "O"]]
    text = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\ncall NN I-NP O\n. . O O\n"
    assert tags_of(put(tmp_path, "a.txt", text), columns={"ner_tags": "3"}) == chunks
    conll_2000 = "".join(" ".join(line.split()[:3]) + "\n" for line in text.splitlines())
    assert tags_of(put(tmp_path, "b.txt", conll_2000)) == chunks


def test_a_numbered_document_mark_is_no_sentence(tmp_path):
    text = "1 -DOCSTART- -X- -X- O\n\n" + numbered(IOB2)
    assert tags_of(put(tmp_path, "a.txt", text)) == TAGS


def test_iob1_becomes_bio(tmp_path):
    text = "Paris I-LOC\nBonn B-LOC\nis O\nUN I-ORG\nEU B-ORG\nBank I-ORG\nAnna I-PER\n"
    found = read("ner", put(tmp_path, "a.txt", text))
    assert found.rows[0]["ner_tags"] == ["B-LOC", "B-LOC", "O", "B-ORG", "B-ORG", "I-ORG", "B-PER"]
    assert "IOB1: an I- that begins an entity is read as B-" in found.understood.en and "IOB1" in found.understood.zh
    rows = {"tokens": ["a", "b"], "ner_tags": ["I-X", "I-X"]}
    assert tags_of(put(tmp_path, "a.jsonl", json.dumps(rows))) == [["B-X", "I-X"]]
    stray = "a I-X\nb O\nc B-X\nd I-X\n"  # BIO with a mistake: left as it is
    assert tags_of(put(tmp_path, "b.txt", stray)) == [["I-X", "O", "B-X", "I-X"]]


def test_a_training_file_in_iob1_beside_one_in_bio(tmp_path):
    train, test = put(tmp_path, "train.txt", IOB1), put(tmp_path, "test.txt", IOB2)
    data = dataset("ner", {"train": train, "test": test})
    assert data["train"]["ner_tags"][:] == data["test"]["ner_tags"][:]


@pytest.mark.parametrize("scheme", [
    ["B-X", "I-X", "E-X", "O", "S-Y"], ["B-X", "I-X", "L-X", "O", "U-Y"], ["B-X", "M-X", "E-X", "O", "S-Y"],
    ["b-X", "i-X", "i-X", "o", "b-Y"], ["B_X", "I_X", "E_X", "O", "S_Y"], ["X-B", "X-I", "X-E", "O", "Y-S"], ["B_X", "I_X", "I_X", "O", "B_Y"],
])  # fmt: skip
def test_schemes(scheme, tmp_path):
    text = "".join(f"w{i} {tag}\n" for i, tag in enumerate(scheme)) + "".join(f"v{i} {scheme[3]}\n" for i in range(5))
    assert tags_of(put(tmp_path, "a.txt", text)) == [["B-X", "I-X", "I-X", "O", "B-Y"] + ["O"] * 5]


def test_a_tag_before_its_token(tmp_path):
    """As in the MIT corpora of films and restaurants."""
    text = "O\tshow\nO\tme\nB-ACTOR\ttom\nI-ACTOR\thanks\n\nO\tany\nB-GENRE\tdrama\n"
    found = read("ner", put(tmp_path, "engtrain.bio", text))
    assert found.rows[0] == {"tokens": ["show", "me", "tom", "hanks"], "ner_tags": ["O", "O", "B-ACTOR", "I-ACTOR"]}
    assert "tokens in column 2, tags in column 1" in found.understood.en
    assert read("ner", put(tmp_path, "engtest.bio", text), labelled=False).rows[1] == {"tokens": ["any", "drama"]}
    assert table_format("ner", text) == "conll"


@pytest.mark.parametrize(("header", "tag"), [("Token\tTag\n", "B-PER"), ("word\tner\n", "PER"), ("token\tpos\tner_tag\n\n", "x\tB-PER")])
def test_a_header_is_no_token(header, tag, tmp_path):
    rest = "O" if "pos" not in header else "x\tO"
    path = put(tmp_path, "a.tsv", f"{header}Anna\t{tag}\n" + "".join(f"w{i}\t{rest}\n" for i in range(3)))
    found = read("ner", path)
    assert found.rows == [{"tokens": ["Anna", "w0", "w1", "w2"], "ner_tags": ["B-PER", "O", "O", "O"]}]
    assert "header left out" in found.understood.en and found.places == [header.count("\n") + 1]
    assert read("ner", path, labelled=False).rows[0]["tokens"][0] == "Anna"
    assert table_format("ner", path.read_text(), labels=("O", "PER", "B-PER")) == "conll"
    assert read("ner", put(tmp_path, "b.tsv", "Token\tB-X\nring\tI-X\n")).rows[0]["tokens"] == ["Token", "ring"]
    assert said(read, "ner", put(tmp_path, "c.tsv", header)).endswith("c.tsv has no rows: name a file with data")


@pytest.mark.parametrize("gap", ["\t ", " \t ", "\t", " ", "  "])
def test_blanks_around_a_tag(gap, tmp_path):
    assert tags_of(put(tmp_path, "a.txt", f"Anna{gap}B-PER\nwept{gap}O\n")) == [["B-PER", "O"]]


def test_a_single_token_of_conll_u(tmp_path):
    text = "# text = Go\n1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n"
    assert read("ner", put(tmp_path, "a.conllu", text)).rows == [{"tokens": ["Go"], "ner_tags": ["VERB"]}]


def test_conll_2012_is_refused(tmp_path):
    text = "#begin document (a); part 000\n" + "bc/a 0 0 It PRP (TOP* - - - sp * -\n" * 3 + "\n#end document\n"
    assert said(read, "ner", put(tmp_path, "a.conll", text)).startswith("a.conll is in the format of CoNLL-2012: convert it")


RANGES = """# text = Don't go, Anna
1-2\tDon't\t_\t_\t_
1\tDo\tO\t-\t-
2\tn't\tO\t-\t-
3\tgo\tO\t-\t-
3.1\twe\t_\t_\t_
4-5\tAnnaland\t_\t_\t_
4\tAnna\tB-PER\t-\t-
5\tland\tI-NEW\t-\t-
"""


def test_errors_name_the_line_of_the_token(tmp_path):
    found = read("ner", put(tmp_path, "a.conll", RANGES))
    assert found.places == [3] and [found.at(0, i).place for i in range(5)] == [3, 4, 5, 8, 9]
    train, test = put(tmp_path, "train.conll", "a O\nb B-PER\n"), put(tmp_path, "test.conll", RANGES)
    assert said(dataset, "ner", {"train": train, "test": test}).startswith("test.conll, line 9: train has no label 'I-NEW'")
    first = said(dataset, "ner", {"train": put(tmp_path, "o.conll", "a O\nb B-NEW\n"), "test": test})
    assert first.startswith("test.conll, line 8: train has no label 'B-PER'")


def test_a_sentence_of_nothing_but_ranges(tmp_path):
    text = "1\ta\tB-X\t-\n2\tb\tO\t-\n\n1-2\tab\t_\t_\n"
    assert tags_of(put(tmp_path, "a.conll", text)) == [["B-X", "O"]]


def test_a_line_that_begins_with_a_tab_is_no_conll():
    assert table_format("ner", "\t".join(["", *"bcdefghij"]) + "\n" + "\t".join(["", *"bcdefghij"]) + "\n") is None


# --- separators ---------------------------------------------------------------------------------

SEPARATED = {  # task, file, text, rows, what the summary has to say
    "decimal commas": ("regression", "a.csv", "4,5;good film\n1,0;bad film\n", [one("good film", 4.5), one("bad film", 1.0)], "CSV (;) without"),
    "decimal commas behind": ("regression", "a.csv", "good film;4,5\nbad film;1,0\n", [one("good film", 4.5), one("bad film", 1.0)], "points"),
    "and a blank": ("regression", "a.csv", "good film; 4,5\nbad film; 1,0\n", [one("good film", 4.5), one("bad film", 1.0)], "points"),
    "and a header": ("regression", "a.csv", "text;score\ngood, really;4,5\nbad;1\n", [one("good, really", 4.5), one("bad", 1.0)], "points"),
    "and pairs": ("similarity", "a.csv", "a;b;0,5\nc;d;3\n", [pair("a", "b", 0.5), pair("c", "d", 3.0)], "decimal commas read as points"),
    "one row": ("regression", "a.csv", "4,5;good film\n", [one("good film", 4.5)], "CSV (;)"),
    "quoted, decimal commas": ("regression", "a.csv", '"4,5";"good; film"\n"1,0";"bad"\n', [one("good; film", 4.5), one("bad", 1.0)], "CSV (;)"),
    "classes": ("sentiment", "a.csv", "nice, warm;good\nwet, cold;bad\n", [one("nice, warm", "good"), one("wet, cold", "bad")], "CSV (;)"),
    "commas in some texts": ("sentiment", "a.csv", "nice, warm;good\ncold;bad\n", [one("nice, warm", "good"), one("cold", "bad")], "CSV (;)"),
    "label first": ("sentiment", "a.csv", "1;so,so\n0;no,no\n1;go\n", [one("so,so", "1"), one("no,no", "0"), one("go", "1")], "CSV (;)"),
    "label first, even": ("sentiment", "a.csv", "1;so,so\n0;no,no\n1;go,go\n", [one("so,so", "1"), one("no,no", "0"), one("go,go", "1")], "CSV (;)"),
    "commas, semicolons in the texts": ("sentiment", "a.csv", "nice; warm,good\nwet; cold,bad\n", [one("nice; warm", "good"), one("wet; cold", "bad")],
                                        "CSV without"),
    "commas, tight semicolons": ("sentiment", "a.csv", "so;so,1\nno;no,0\n", [one("so;so", "1"), one("no;no", "0")], "CSV without"),
    "commas with blanks, number first": ("sentiment", "a.csv", "1, good; fine\n0, bad; poor\n1, ok; so\n",
                                         [one(" good; fine", "1"), one(" bad; poor", "0"), one(" ok; so", "1")], "CSV without"),
    "tabs, commas in the texts": ("sentiment", "a.csv", "a, b\t1\nc, d\t0\n", [one("a, b", "1"), one("c, d", "0")], "CSV (tab)"),
    "tabs, tight commas": ("sentiment", "a.csv", "good\tso,10\nbad\tno,1\ngood\tgo,2\n", [one("so,10", "good"), one("no,1", "bad"), one("go,2", "good")],
                           "CSV (tab)"),
    "a TSV with commas": ("sentiment", "a.tsv", "a, b; c\t1\nc, d; e\t0\n", [one("a, b; c", "1"), one("c, d; e", "0")], "TSV"),
    "a .txt with tabs and commas": ("sentiment", "a.txt", "a,b\t1\nc,d\t0\n", [one("a,b", "1"), one("c,d", "0")], "TSV"),
    "lines in quotes, semicolons": ("sentiment", "a.csv", '"a,\nb;";1\n"c";0\n', [one("a,\nb;", "1"), one("c", "0")], "CSV (;)"),
    "lines in quotes, commas": ("sentiment", "a.csv", '"a;\nb;",1\n"c;d",0\n', [one("a;\nb;", "1"), one("c;d", "0")], "CSV without"),
    "lines in quotes, even": ("pairs", "a.csv", '"a,b\nc,d",e,1\n"f,g\nh,i",j,0\n', [pair("a,b\nc,d", "e", "1"), pair("f,g\nh,i", "j", "0")], "CSV without"),
    "CRLF": ("regression", "a.csv", "4,5;good film\r\n1,0;bad film\r\n", [one("good film", 4.5), one("bad film", 1.0)], "CSV (;)"),
    "a mark": ("regression", "a.csv", "\ufeff4,5;good film\n1,0;bad film\n", [one("good film", 4.5), one("bad film", 1.0)], "CSV (;)"),
    "headers with commas in them": ("sentiment", "a.csv", "text;date, time;label\na;1, 2;x\nb;3, 4;y\n", [one("a", "x"), one("b", "y")], "CSV (;)"),
    "semicolons in a .txt": ("sentiment", "a.txt", "sentence;label\nfine, really;1\nbad;0\n", [one("fine, really", "1"), one("bad", "0")], "CSV (;)"),
    "in a .txt without header": ("sentiment", "a.txt", "fine;1\nbad;0\n", [one("fine", "1"), one("bad", "0")], "CSV (;)"),
    "Excel's line in a .txt": ("sentiment", "a.txt", '"sep=;"\nsentence;label\nfine;1\n', [one("fine", "1")], "CSV (;)"),
    "empty columns and rows of Excel": ("sentiment", "a.csv", "sentence;label;;\nfine;1;;\n;;;\n;;;\n", [one("fine", "1")], "1 row"),
    "quoted behind a blank": ("sentiment", "a.csv", '1, "a, b"\n0, "c"\n1, "d"\n', [one("a, b", "1"), one("c", "0"), one("d", "1")], "CSV without"),
    "a header, quoted behind a blank": ("sentiment", "a.csv", 'label, text\n1, "good film"\n0, bad film\n', [one("good film", "1"), one("bad film", "0")], None),
    "a text that begins with a quote": ("sentiment", "a.csv", 'label,text\n1, "so" so\n0,bad\n', [one(' "so" so', "1"), one("bad", "0")], None),
    "a quoted text that begins with a blank": ("sentiment", "a.csv", 'label,text\n1," ""so"""\n', [one(' "so"', "1")], None),
    "two carriage returns": ("sentiment", "a.tsv", "label\ttext\r\r\n1\tfine\r\r\n", [one("fine", "1")], None),
}  # fmt: skip


@pytest.mark.parametrize("case", SEPARATED)
def test_separators(case, tmp_path):
    task, name, text, rows, part = SEPARATED[case]
    found = read(task, put(tmp_path, name, text))
    assert found.rows == rows and (part is None or part in found.understood.en), found.understood.en


@pytest.mark.parametrize(("name", "text"), [
    ("a.csv", "so so\nnot bad\n"), ("a.txt", "well, fine\nbad, sad\n"), ("a.txt", "good; fine\nbad; sad\n"), ("a.txt", "nothing\na, b; c\n"),
    ("a.tsv", "well,fine\nbad,sad\n"), ("a.txt", "a,b\nc\n"),
])  # fmt: skip
def test_texts_in_one_column_stay_whole(name, text, tmp_path):
    assert [row["sentence"] for row in read("sentiment", put(tmp_path, name, text), labelled=False).rows] == text.splitlines()


def test_any_separator_with_all_characters_in_the_texts(tmp_path):
    texts = ["a, b; c", "d\te", 'say "no"; or, "yes"', "two\nlines, one; cell", "plain", "1,5;2"]
    for separator in ",;\t":
        for header in (True, False):
            file = io.StringIO()
            writer = csv.writer(file, delimiter=separator)
            writer.writerows([("sentence", "label")] * header + [(text, i % 2) for i, text in enumerate(texts)])
            found = read("sentiment", put(tmp_path, "a.csv", file.getvalue()))
            assert found.rows == [one(text, str(i % 2)) for i, text in enumerate(texts)], (separator, header)


def test_texts_with_any_punctuation_between_any_separators(tmp_path):
    """Quoted only where they must be, with and without header; with one or two rows nobody can be certain."""
    draw = random.Random(0)
    words = ["good", "the,", "really;", "well,", "5", "1,5", "3.2", "ok;", "3;4", "a\tb", '"hm"', "x,y"]
    for _ in range(400):
        separator, header, task = draw.choice(",;\t"), draw.random() < 0.5, draw.choice(["sentiment", "regression", "pairs"])
        rows = []
        for _ in range(draw.choice([3, 5, 20])):
            a, b = (" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(2))
            label = draw.randint(0, 50) / 10 if task == "regression" else draw.choice(["yes", "no"])
            rows.append(pair(a, b, label) if task == "pairs" else one(a, label))
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([[*rows[0]]] * header)
        writer.writerows([str(v).replace(".", ",") if isinstance(v, float) and separator == ";" else v for v in row.values()] for row in rows)
        assert read(task, put(tmp_path, "a.csv", file.getvalue())).rows == rows, file.getvalue()


def test_decimal_commas_are_refused_where_they_are_not_certain(tmp_path):
    assert said(read, "regression", put(tmp_path, "a.csv", "text;score\na;4,5\nb;high\n")).startswith("a.csv, line 2: '4,5' is not a number")
    assert said(read, "regression", put(tmp_path, "a.tsv", "text\tscore\na\t4,5\n")).startswith("a.tsv, line 2: '4,5' is not a number")


def test_fields_in_quotation_marks_are_mentioned(tmp_path):
    """As Excel and pandas write them between tabs; in most published files a quotation mark is a character."""
    found = read("sentiment", put(tmp_path, "a.tsv", 'text\tlabel\n"say ""no"""\t1\nfine\t0\n'))
    assert "1 field in quotation marks, which are kept (--format csv takes them off)" in found.understood.en
    plain = read("sentiment", put(tmp_path, "b.tsv", 'text\tlabel\n"say ""no"""\t1\n"so" so\t0\n'))
    assert "quotation" not in plain.understood.en and plain.rows[1] == one('"so" so', "0")
    assert read("sentiment", tmp_path / "a.tsv", format="csv").rows[0] == one('say "no"', "1")


@pytest.mark.parametrize(("text", "says"), [
    ("text,label\nfine,1\n", "the header has ',' between its columns: use --format csv"),
    ("text;label\nfine;1\n", "the header has ';' between its columns"),
    ("text|label\nfine|1\n", "the header has '|' between its columns: use --format csv and put a line sep=| above it"),
    ('"text"\t"label"\n"fine"\t"1"\n', "the names of the columns are in quotation marks, which TSV keeps"),
])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_header_that_is_separated_otherwise_is_no_text(text, says, labelled, tmp_path):
    assert f"a.tsv, line 1: {says}" in said(read, "sentiment", put(tmp_path, "a.tsv", text), labelled=labelled)


def test_bars_in_a_csv(tmp_path):
    path = put(tmp_path, "a.csv", "text|label\nfine|1\n")
    assert said(read, "sentiment", path) == "a.csv, line 1: the header has '|' between its columns: put a line sep=| above it"


def test_a_column_that_only_counts_is_no_text(tmp_path):
    rows = [f"{i}\tfilm number {i}\t{i % 3}.5" for i in range(12)]
    path = put(tmp_path, "a.tsv", "\n".join(rows))
    assert said(read, "regression", path).startswith("a.tsv, line 1: the first column only counts the rows")
    assert read("regression", path, {"sentence": "2", "label": "3"}).rows[0] == one("film number 0", 0.5)
    bare = put(tmp_path, "b.tsv", "\n".join(row.rpartition("\t")[0] for row in rows))
    assert "only counts the rows" in said(read, "sentiment", bare, labelled=False)
    assert "only counts the rows" in said(read, "pairs", put(tmp_path, "c.csv", "0,good,1\n1,bad,0\n2,so,1\n"))
    few = put(tmp_path, "d.tsv", "1\tbad\n2\tso\n3\tgood\n")  # here the numbers may be the labels
    assert read("regression", few).rows[0] == one("bad", 1.0)


# --- headers and formats ------------------------------------------------------------------------

@pytest.mark.parametrize(("task", "text", "columns"), [
    ("sentiment", "opinion\tstars\nfine\t5\nbad\t1\n", {"sentence": "1", "label": "2"}),
    ("regression", "opinion\tstars\nfine\t5\nbad\t1\n", {"sentence": "1", "label": "2"}),
    ("sentiment", "opinion\tverdict\n" + "fine\tgood\nawful\tbad\n" * 6, {"sentence": "1", "label": "2"}),
    ("pairs", "this\tthat\tsame\n" + "a\tb\t1\nc\td\t0\n", {"sentence1": "1", "sentence2": "2", "label": "3"}),
])
def test_an_unknown_header_is_no_row_where_columns_have_numbers(task, text, columns, tmp_path):
    path, header = put(tmp_path, "a.tsv", text), text.split("\n")[0].split("\t")
    error = said(read, task, path, columns)
    assert error.startswith(f"a.tsv, line 1: {', '.join(header)} looks like a header: give columns by name, --columns ")
    named = {ours: header[int(n) - 1] for ours, n in columns.items()}
    assert ",".join(f"{ours}={theirs}" for ours, theirs in named.items()) in error
    assert len(read(task, path, named)) == len(text.splitlines()) - 1
    bare = put(tmp_path, "b.tsv", text.partition("\n")[2])
    assert len(read(task, bare, columns)) == len(text.splitlines()) - 1
    columns = {ours: n for ours, n in columns.items() if ours != "label"}
    assert len(read(task, bare, columns, labelled=False)) == len(text.splitlines()) - 1
    assert "looks like a header" in said(read, task, path, {**columns, "label": str(len(header)), "id": "9"})


def test_a_label_of_the_first_row_is_no_name_of_a_column(tmp_path):
    """Columns given by number: a 1 or 2 in the first row was once taken for a name, and the row for a header."""
    path = put(tmp_path, "a.tsv", "fine\t1\nbad\t0\n")
    assert read("sentiment", path, {"sentence": "1", "label": "2"}).rows == [one("fine", "1"), one("bad", "0")]
    assert read("sentiment", path, {"sentence": "1"}, labelled=False).rows == [one("fine"), one("bad")]
    pandas = put(tmp_path, "b.csv", "0,1\nfine,1\nbad,0\n")
    assert read("sentiment", pandas, {"sentence": "0", "label": "1"}).rows == [one("fine", "1"), one("bad", "0")]
    named = put(tmp_path, "c.csv", "text,1\nfine,1\nbad,0\n")
    assert read("sentiment", named, {"label": "1"}).rows == [one("fine", "1"), one("bad", "0")]


def test_questions_under_other_names(tmp_path):
    rows = '{"q": "who?", "c": "a dog", "a": [{"text": "dog", "answer_start": 2}]}\n' * 2
    columns = {"question": "q", "context": "c", "answers": "a"}
    found = read("qa", put(tmp_path, "a.json", rows), columns)
    assert found.rows[1]["question"] == "who?" and "JSON lines" in found.understood.en
    array = put(tmp_path, "b.json", json.dumps([json.loads(line) for line in rows.splitlines()]))
    assert read("qa", array, columns).rows[0]["answers"] == {"text": ["dog"], "answer_start": [2]}
    assert said(read, "qa", tmp_path / "a.json", {"question": "q"}).startswith("a.json, line 1: no column 'context', only q, c, a")
    nested = put(tmp_path, "c.json", squad({"answers": []}))
    assert said(read, "qa", nested, {"question": "q"}).startswith("c.json: what the parts of a SQuAD file are called is fixed")
    cmrc = put(tmp_path, "d.json", json.dumps([{"context_text": "a", "qas": []}]))
    assert "is fixed" in said(read, "qa", cmrc, {"question": "q"})


def test_questions_without_an_answer_in_rows(tmp_path):
    rows = {"question": "?", "context": "a dog", "is_impossible": True, "answers": {"text": ["dog"], "answer_start": [2]}}
    found = read("qa", put(tmp_path, "a.jsonl", json.dumps(rows) + "\n" + json.dumps(rows | {"is_impossible": False})))
    assert [row["answers"]["text"] for row in found.rows] == [[], ["dog"]]


@pytest.mark.parametrize(("head", "found"), [
    ("sentence;label\nfine;1\n", "csv"), ("sep=;\nfine;1\n", "csv"), ('"sep=;"\nsentence;label\n', "csv"), ("Label; Sentence\n1;a\n", "csv"),
    ("sep=\t\nsentence\tlabel\n", "csv"), ("sentence,label\nfine,1\n", "csv"), ("sentence\tlabel\nfine\t1\n", "tsv"),
    ("fine; really\nbad; so\n", None), ("good; with a semicolon\n", None), ("sep=; is what Excel writes\n", None),
])  # fmt: skip
def test_a_stream_with_a_table(head, found):
    assert table_format("sentiment", head) == found == table_kind("sentiment", [line for line in head.split("\n") if line])


def test_a_stream_with_pairs_between_semicolons():
    assert table_format("nli", "premise;hypothesis;label\na;b;no\n") == "csv"
    assert table_format("nli", "premise;label\na;no\n") is None


def test_a_carriage_return_in_the_first_line_of_a_stream():
    assert table_format("sentiment", "fine,\rreally\nbad\n") is None


def test_what_looks_like_csv():
    assert looks_like_csv("sentiment", "sep=;\nfine;1\n") and looks_like_csv("sentiment", "fine, 1\nbad, 0\n")
    assert not looks_like_csv("sentiment", "") and not looks_like_csv("sentiment", "sentence\tlabel\n")
    assert looks_like_csv("sentiment", "text,label\n" + "a" * 200_000 + ",1\n")
    assert not looks_like_csv("sentiment", "a" * 200_000 + "\n")
