"""How the tests call the commands of `bertcourse`, in this process, and what they expect of them."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertcourse.app import cli

HAN = re.compile(r"[\u4e00-\u9fff]")


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    "An English reader, no power cuts, no network."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "en_US.UTF-8")
        patch.setenv("RAYON_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(os, "fsync", lambda _: None)
        yield


class Pipe(io.RawIOBase):
    "A pipe that gives a line at a time."

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        line = next(self.lines, b"")
        buffer[:len(line)] = line
        return len(line)


class Stdin:
    "Standard input with bytes, or with what gives lines."

    def __init__(self, content) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(content) if isinstance(content, bytes) else Pipe(content))

    def isatty(self) -> bool:
        return False


def run(command: str, *argv: object, stdin=None, out=None) -> tuple[int, str, str]:
    "Exit code, stdout and stderr of `bertcourse COMMAND ARGV`."
    out, err = out or io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if stdin is not None:
            patch.setattr(sys, "stdin", Stdin(stdin.encode() if isinstance(stdin, str) else stdin))
        try:
            code = cli.main([command, *map(str, argv)])
        except SystemExit as end:
            code = end.code
    return code, out.getvalue() if isinstance(out, io.StringIO) else "", err.getvalue()


@contextlib.contextmanager
def abandoned_pipe() -> Iterator[io.TextIOBase]:
    "Where nobody reads any more: what is written there raises `BrokenPipeError`."
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as out:
        yield out


class Training:
    "A command that trains and writes a folder."

    def __init__(self, command: str) -> None:
        self.command = command

    def call(self, *argv: object) -> tuple[int, str, str]:
        "Exit code, stdout and stderr."
        return run(self.command, *argv)

    def succeed(self, *argv: object) -> dict:
        "The metrics that a run prints."
        code, out, err = self.call(*argv, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=pytest.fail)

    def refused(self, says: str, *argv: object, left: Path | None = None) -> str:
        "The last sentence of a run that is refused and leaves nothing at `left`."
        code, out, err = self.call(*argv)
        assert code == 2 and not out and says in err, err
        assert err.splitlines()[-1].startswith("bertcourse") and "Traceback" not in err
        assert "--quiet" not in argv or len(err.splitlines()) == 1
        assert left is None or not left.exists()
        return err

    def in_both_languages(self, monkeypatch, says: str, *argv: object, left: Path | None = None) -> None:
        "The same, in English and in Chinese."
        assert not HAN.search(self.refused(says, *argv, left=left))
        with monkeypatch.context() as patch:
            patch.setenv("LC_ALL", "zh_CN.UTF-8")
            assert HAN.search(self.refused("", *argv, left=left))


def weights(folder: Path) -> bytes:
    "Those of a finished folder."
    return (folder / "model.safetensors").read_bytes()
