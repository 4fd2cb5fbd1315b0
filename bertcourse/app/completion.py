"""`bertcourse completion SHELL`: a script that completes commands, options, their values and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from bertcourse.base.errors import UserError

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=SHELLS, help=", ".join(SHELLS))


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its sub-commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the script: 0. Raises `UserError` where shtab is not installed."""
    if find_spec("shtab") is None:
        raise UserError("shtab is not installed: run `pip install shtab`", "没有安装 shtab：请运行 `pip install shtab`")
    import shtab

    from bertcourse.app.cli import make_parser
    parser, _ = make_parser(None, every=True)
    for action in actions(parser):
        if action.metavar in ("FILE", "DIR", "FOLDER") or getattr(action.type, "__name__", "") in ("path", "Path"):
            action.complete = shtab.FILE
    print(shtab.complete(parser, args.shell))
    return 0
