"""`bertcourse.pieces`: text files become documents, documents become arrays, whatever their size and format."""

import contextlib
import gzip
import os
import random
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertcourse import pieces as module
from bertcourse.corpus import documents, load_tokenizer, texts
from bertcourse.pieces import Pieces, TextError, encode, encoding_of, read_lines, read_text, split_sentences, toy_pieces

TOY = 508, 6_765, "d34077fcb4203fe7"  # sentences, pieces, fingerprint of the first 50 documents of each language


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture
def write(tmp_path):
    """Write a file, text or bytes; returns its path."""
    def writing(content: str | bytes, name: str = "text.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return writing


# --- sentences ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sentences", [
    ["It is 3.14 m long.", "Is it?", "Yes!"],
    ["Mr. and Mrs. Li met Dr. Wang, e.g. at No. 5, St. James."],
    ["He left at 6 p.m. on Monday."],
    ["“Stop!” she said.", "“Why?”", "He went on."],
    ['"It is late."', "She got up."],
    ["Albert I. Jones met J. K. Rowling."],
    ["you and I.", "Then we left."],
    ["Wait... no.", "Yes … Well."[:5], "Well."],
    ["1. The first item of a list"],
    ["In 1969.", "Later."],
    ["What?!", "Really!!!", "Oh."],
    ["no capitals here.", "and none there.", "none"],
    ["(He was late.)", "She was not."],
])
def test_english_sentences(sentences):
    assert list(split_sentences(" ".join(sentences))) == sentences


@pytest.mark.parametrize("sentences", [
    ["圆周率是 3.14。", "对吗？", "对！"],
    ["他说：“下雨了。”", "我们没出门。"],
    ["真的吗？！", "（当然。）", "好"],
    ["我……我不知道。", "你呢？"],
    ["你好!", "再见。"],
    ["BERT 是谷歌的。", "It came in 2018. ".strip(), "之后还有很多。"],
    ["そうですか。", "はい。"],
])
def test_chinese_and_mixed_sentences(sentences):
    text = "".join(s + " " * s.isascii() for s in sentences).strip()
    assert list(split_sentences(text)) == sentences


@pytest.mark.parametrize("text", ["", "   ", "\t\u3000"])
def test_nothing_is_no_sentence(text):
    assert list(split_sentences(text)) == []


def test_long_sentences_are_cut_at_spaces():
    parts = list(split_sentences("word " * 1000))
    assert max(map(len, parts)) <= module.SENTENCE and all(set(part.split()) == {"word"} for part in parts)
    assert [len(part) for part in split_sentences("字" * 4500)] == [2000, 2000, 500]


@settings(max_examples=300, deadline=None)
@given(st.text("ab. !?…。！”\"' J1é字\n\u3000", max_size=80))
def test_nothing_is_lost_in_splitting(text):
    sentences = list(split_sentences(text))
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


# --- files --------------------------------------------------------------------------------------------------------

FORMATS = {
    "plain": lambda text: text.encode(),
    "BOM": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip, BOM, CRLF": lambda text: gzip.compress(text.replace("\n", "\r\n").encode("utf-8-sig")),
    "gzip in two parts": lambda text: gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode()),
    "no last newline": lambda text: text.strip().encode(),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_give_the_same_documents(write, kind):
    text = "我的狗毛茸茸的。\nmy dog is hairy\n\n  It barks.  \n \nLast one. Really.\n"
    found = list(read_text(write(FORMATS[kind](text), "文本 1.txt")))
    assert found == [["我的狗毛茸茸的。", "my dog is hairy"], ["It barks."], ["Last one.", "Really."]]


def test_blank_lines_separate_documents(write):
    assert list(read_text(write("\n\na\nb\n\n\n\nc\n"))) == [["a", "b"], ["c"]]


def test_paragraphs_are_documents(write):
    assert list(read_text(write("One. Two.\nThree. Four. Five.\nSix\n"))) == [["One.", "Two."], ["Three.", "Four.", "Five."], ["Six"]]


def test_lines_that_nothing_separates_come_together(write):
    found = list(read_text(write("".join(f"line {i}\n" for i in range(40)))))
    assert [len(document) for document in found] == [16, 16, 8] and found[1][0] == "line 16"


def test_long_documents_are_cut(write):
    found = list(read_text(write("a\n\n" + "b\n" * 2500 + "\nc\n")))
    assert [len(document) for document in found] == [1, 1000, 1000, 500, 1]


def test_several_files_keep_apart(write):
    one, two = write("a\nb\n", "1"), write("c\n", "2")
    assert list(read_text([one, str(two)])) == [["a", "b"], ["c"]] and list(read_text(one)) == [["a", "b"]]


def test_blank_lines_far_down_still_separate(write):
    lines = "".join(f"line {i}\n" for i in range(130_000))  # more than is looked at
    found = list(read_text(write(lines + "\nlast\n")))
    assert found[-1] == ["last"] and {len(d) for d in found[:-2]} == {16}


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_endless_line_comes_in_parts(write, ending):
    size = 3 * module.LINE
    lines = list(read_lines(write("字" * size + ending + "next\n")))
    assert "".join(lines) == "字" * size + "next" and max(map(len, lines)) <= module.LINE
    assert lines[-1] == "next" or not ending
    assert "" not in lines  # no blank line where a part ends with the line


@pytest.mark.parametrize("content, name, says", [
    (b"good\n\n" + "你好".encode("gb18030"), "gbk.txt", "line 3 (byte 7): not UTF-8: save the file as UTF-8"),
    (b"text\nmore\0", "zero.txt", "line 2 (byte 10): binary, not text"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.png", "line 1 (byte 1): binary, not text"),
    ("字".encode()[:2], "half.txt", "line 1 (byte 1): not UTF-8"),
    (b"a\n" * 50_000 + b"\xff", "late.txt", "line 50,001 (byte 100,001): not UTF-8"),
    (b"x" * (module.LINE - 1) + "字".encode() + b"\xc3(", "seam.txt", f"line 1 (byte {module.LINE + 3:,}): not UTF-8"),
    (gzip.compress(b"line\n" * 9)[:-9], "cut.gz", "is damaged"),
    (gzip.compress(b"line\n" * 9)[:12] + b"\xff" * 9, "broken.gz", "is damaged"),
    (gzip.compress(b"a\nb\0"), "binary.gz", "line 2 (byte 4): binary"),
    (b"", "empty.txt", "is empty"), (b"\n \r\n\t", "blank.txt", "is empty"), (gzip.compress(b""), "empty.gz", "is empty"),
])
def test_faulty_file_is_named_with_the_place(write, content, name, says):
    path = write(content, name)
    with pytest.raises(TextError) as caught:
        list(read_text(path))
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in caught.value.zh and caught.value.zh != caught.value.en and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030", "latin-1", "utf-16-le"])
def test_other_encodings(write, encoding):
    text = "Zoë wept in São Paulo.\nJosé was déjà là.\n" if encoding == "latin-1" else "这部电影很好看。\n服务太差了，我不会再来。\n" * 3
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = write(mark + text.encode(encoding), "a.txt")
    name, guessed = encoding_of(path)
    assert list(read_lines(path, name)) == text.splitlines() and guessed == (encoding in ("gb18030", "latin-1", "utf-16-le"))
    if not guessed:
        assert list(read_lines(path)) == text.splitlines()
    with pytest.raises(TextError, match="is not ascii: name the right one with --encoding"):
        list(read_lines(path, "ascii"))


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8", "utf-8-sig", None])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
def test_a_byte_order_mark_is_no_text(write, name, mark):
    """Whether the encoding is named or not; the mark's character further down is text."""
    assert list(read_lines(write(mark + "一\n\ufeff二\n".encode()), name)) == ["一", "\ufeff二"]


def test_file_that_cannot_be_read(tmp_path):
    for path, says in [(tmp_path / "absent", "there is no file"), (tmp_path, "is a folder")]:
        with pytest.raises(TextError, match=says):
            list(read_text(path))
    unreadable = Path("/proc/self/mem")  # a regular file that not even root can read from its beginning
    if not unreadable.is_file():
        pytest.skip("no /proc here")
    with pytest.raises(TextError, match="cannot be read: "):
        list(read_text(unreadable))


def test_reading_is_lazy_and_closes_the_file(write):
    reading = read_text([write("a\n\n" * 500_000), Path("absent")])
    assert list(islice(reading, 3)) == [["a"]] * 3  # the second file is not looked at
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    before = len(os.listdir("/proc/self/fd"))
    reading.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_memory_does_not_grow_with_a_line(write):
    def peak(size):
        path = write(b"some words. And more " * (size // 21))
        tracemalloc.start()
        with contextlib.closing(read_lines(path)) as lines:
            assert sum(map(len, lines)) == path.stat().st_size
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most
    assert peak(20_000_000) < 1.5 * peak(2_000_000) < 3_000_000


# --- arrays -------------------------------------------------------------------------------------------------------

def test_pieces_of_own_text(tokenizer):
    found = encode([["My dog is hairy.", "It barks."], [], ["", "我的狗。"]], tokenizer)
    assert len(found) == 2 and found.documents.tolist() == [0, 2, 3]
    text = [tokenizer.convert_ids_to_tokens(found.ids[a:b]) for a, b in zip(found.sentences, found.sentences[1:])]
    assert text[0] == ["my", "dog", "is", "hairy", "."] and text[2] == list("我的狗。")
    assert [t for t, s in zip(sum(text, []), found.starts) if not s] == [t for t in sum(text, []) if t.startswith("##")]
    assert found.sentence_lengths(0).tolist() == [5, len(text[1])] and found.ids.dtype == np.uint16
    assert found.counts(len(tokenizer)).sum() == len(found.ids)


def test_disk_and_memory_are_the_same(tokenizer, tmp_path):
    text = list(texts(30)) + list(texts(30, lang="zh"))
    kept, block = encode(text, tokenizer), random.Random(0).randint(2, 9)
    on_disk = encode(iter(text), tokenizer, tmp_path / "new" / "folder", block)
    again = Pieces.open(tmp_path / "new" / "folder")
    assert kept.fingerprint() == on_disk.fingerprint() == again.fingerprint() and isinstance(again.ids, np.memmap)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["folder"]
    assert encode(text[::-1], tokenizer).fingerprint() != kept.fingerprint()
    with pytest.raises(FileExistsError, match="exists already"):
        encode(text, tokenizer, tmp_path / "new" / "folder")


def test_a_folder_knows_how_many_kinds_of_documents_come_in_turn(tokenizer, tmp_path):
    made = toy_pieces(tokenizer, 4, folder=tmp_path / "toy")
    assert made.streams == Pieces.open(tmp_path / "toy").streams == toy_pieces(tokenizer, 4).streams == 2
    encode(texts(3), tokenizer, tmp_path / "own")
    assert Pieces.open(tmp_path / "own").streams == encode(texts(3), tokenizer).streams == 1
    (tmp_path / "toy" / Pieces.ABOUT).unlink()  # as earlier versions wrote it
    assert Pieces.open(tmp_path / "toy").streams == 1


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_nothing_is_left_of_an_interrupted_encoding(tokenizer, tmp_path, error):
    def failing():
        yield from texts(20)
        raise error("planted")
    with pytest.raises(error, match="planted"):
        encode(failing(), tokenizer, tmp_path / "pieces", 8)
    assert list(tmp_path.iterdir()) == []


def test_no_text_is_an_error(tokenizer, tmp_path):
    for nothing in ([], [[]], [["", " "]]):
        with pytest.raises(ValueError, match="no text"):
            encode(nothing, tokenizer, tmp_path / "pieces")
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_do_not_fit_are_noticed(tokenizer):
    good = encode(texts(3), tokenizer)
    arrays = {name: getattr(good, name) for name in Pieces.ARRAYS}
    for name in arrays:
        with pytest.raises(ValueError, match="do not fit"):
            Pieces(**arrays | {name: arrays[name][:-1]})


def test_toy_world_is_what_it_was(tokenizer):
    """The shipped model was trained on these very arrays."""
    toy = toy_pieces(tokenizer, 50)
    assert (len(toy), len(toy.sentences) - 1, len(toy.ids), toy.fingerprint()) == (100, TOY[0], TOY[1], TOY[2])
    seen = []
    watched = toy_pieces(tokenizer, 50, watch=lambda items: (seen.append(i) or i for i in items))
    assert watched.fingerprint() == toy.fingerprint() and len(seen) == 100 and watched.streams == 2
    assert toy_pieces(tokenizer, 50, start=50).fingerprint() != toy.fingerprint()


def test_toy_world_has_the_words_of_its_grammar(tokenizer):
    toy = toy_pieces(tokenizer, 5, ["zh"])
    assert toy.starts.sum() == sum(1 for document in documents(5, lang="zh") for _ in document.words())
