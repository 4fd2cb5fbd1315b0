"""The text in a file's bytes: byte order marks, gzip, and encodings that have to be guessed."""

from __future__ import annotations

import codecs
import gzip
import zlib
from typing import NamedTuple

# UTF-32-LE begins as UTF-16-LE does, so it is looked for first.
MARKS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]
CANDIDATES = ["gb18030", "big5", "cp1252"]  # what Chinese and Western programs write beside UTF-8
WIDE = ["utf_16_le", "utf_16_be"]  # only where there is a zero byte, as in the line end of any such text
SAMPLE = 200_000  # bytes that are looked at to guess
GZIP = b"\x1f\x8b"


class Text(NamedTuple):
    """A decoded text."""

    text: str
    encoding: str  # Python's name
    guessed: bool = False


def is_encoding(name: str) -> bool:
    """Does Python know a text encoding of this name?"""
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        return False


def unpack(data: bytes) -> bytes:
    """The content of a gzip file; other bytes as they are. Raises `ValueError` for a damaged one."""
    if data[:2] != GZIP:
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(str(error)) from None


def mark_of(data: bytes) -> tuple[bytes, str | None]:
    """The byte order mark that bytes begin with, and its encoding; `b""` and None without one."""
    return next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", None))


def whole_lines(head: bytes) -> bytes:
    """The beginning of a file up to where a character surely ends: the last line end, or in UTF-16 and UTF-32 a multiple of four."""
    if mark_of(head)[1] not in (None, "utf-8") or b"\0" in head:
        return head[:len(head) - len(head) % 4]
    return head[:head.rindex(b"\n") + 1] if b"\n" in head else head


def guess(data: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8; None if there is no likely one."""
    from charset_normalizer import from_bytes
    sample = data[:SAMPLE - SAMPLE % 4]
    if len(sample) < len(data):  # not in the middle of a character
        sample = sample[:sample.rfind(b"\n") + 1] or sample
    replaced = sample.decode("utf-8", "replace")
    if 0 < replaced.count("\ufffd") <= sum(char > "\x7f" for char in replaced) / 2:
        return None  # UTF-8 with a few damaged places
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) > len(sample) / 20:  # UTF-16 without a mark: the upper half of ASCII is zero
        found = "utf-16-le" if odd > even else "utf-16-be"
    else:
        best = from_bytes(sample, cp_isolation=WIDE if b"\0" in sample else CANDIDATES).best()
        found = best and best.encoding
    return found if found and _is_readable(sample.decode(found, "ignore")) else None


def _is_readable(text: str) -> bool:
    """Is nearly all of a text something to read, rather than control and unassigned characters?"""
    strange = sum(not (char.isprintable() or char in "\t\r\n\f\u3000\xa0") for char in text)
    return bool(text) and strange <= len(text) / 1000


def decode(data: bytes, encoding: str | None = None) -> Text:
    """The text in bytes, without a byte order mark.

    encoding: given by the user; else that of the mark, else UTF-8, else a guess. Raises `UnicodeDecodeError`; its `start` is where
    decoding fails (a NUL character counts as a failure).
    """
    mark, marked = mark_of(data)
    name, data = encoding or marked or "utf-8", data[len(mark):]
    try:
        return Text(_strict(data, name), name)
    except UnicodeDecodeError:
        other = None if encoding or marked else guess(data)
        if other is None:
            raise
        return Text(_strict(data, other), other, guessed=True)


def _strict(data: bytes, encoding: str) -> str:
    text = data.decode(encoding)
    if "\0" in text:  # UTF-16 without a mark, or no text at all
        at = len(text[:text.index("\0")].encode(encoding, "ignore"))
        raise UnicodeDecodeError(encoding, data, at, at + 1, "a NUL character")
    return text
