"""The options of a command, from the signature of its function, the rules of its options and the words in `assets/help`."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bertcourse.base.messages import reader_language
from bertcourse.base.text import WIDTH, wide, wrap
from bertcourse.jobs.options import Choice, Columns, Labels, Layers, Numbers, Options, Or, Real, Refused, Rule, Whole, flag_of, rules

PARAMETER = re.compile(r"^\s+(\w+): .*,\s+# (.*)$")
METAVARS = {Whole: "N", Real: "X", Columns: "LIST", Labels: "LIST", Layers: "LIST", Numbers: "LIST"}


@cache
def help_texts(command: str) -> Mapping[str, Any]:
    """What `assets/help` holds of a command: usage, examples, notes, and the Chinese of its options; nothing where it has no file."""
    import tomllib

    from bertcourse.assets import asset
    file = asset("help") / f"{command}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))[command] if file.is_file() else {}


def parameter_comments(function: Callable) -> dict[str, str]:
    """The comment beside each parameter of a function: its documentation."""
    lines = inspect.getsource(function).splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith(")"))
    return {found[1]: found[2] for found in map(PARAMETER.match, lines[:end]) if found}


def escape(text: str) -> str:
    """A help text as argparse takes it."""
    return re.sub(r"%(?!\()", "%%", text)  # but not of %(default)s


def finish_help(command: str, parser: argparse.ArgumentParser) -> None:
    """Give a command's help its examples and notes, the width of all of them, and for a Chinese reader the Chinese words."""
    own, zh = help_texts(command), reader_language() == "zh"
    if not own:  # a command of a test
        return
    parser.usage = own.get("usage") or parser.usage
    notes = own.get("notes_zh" if zh else "notes", "")
    lines = ["例：" if zh else "examples:", *(f"  {line}" for line in own["examples"]), *([""] if notes else [])]
    for line in notes.strip().splitlines():
        lines += wrap(line, WIDTH) if wide(line) > WIDTH else [line]
    parser.epilog = escape("\n".join(lines))
    for action in parser._actions if zh else ():
        chinese = own["zh"].get(action.dest) or help_texts("shared")["zh"].get(action.dest)
        if chinese and action.help is not argparse.SUPPRESS:
            action.help = escape(chinese)


def reader(rule: Rule) -> Callable[[str], Any]:
    """A rule as argparse takes it."""
    def read(text: str) -> Any:
        try:
            return rule.read(text)
        except Refused as error:
            raise argparse.ArgumentTypeError(error.zh if reader_language() == "zh" else error.en) from None
    return read


def metavar_of(name: str, rule: Rule | None, annotation: str) -> str:
    """What stands for the value of an option."""
    if isinstance(rule, Or):
        return metavar_of(name, rule.rule, annotation)
    if isinstance(rule, Choice):
        return "NAME" if len(rule.words) > 3 else "|".join(rule.words)
    return METAVARS.get(type(rule)) or ("DIR" if name in ("out", "teacher") else "FILE" if "Path" in annotation or "Source" in annotation else "NAME")


def add_options(
    parser: argparse.ArgumentParser,
    function: Callable,  # of `bertcourse.jobs`: its parameters are the options
    kind: type[Options],
    positional: Sequence[str] = (),  # options that are written without a name
    required: Sequence[str] = ("out",),
    json: bool = True,  # may the result be printed as JSON?
    **metavars: str,
) -> None:
    """Declare the options of a command, with their English help; `finish_help` does the rest."""
    english, rule_of = parameter_comments(function), rules(kind)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in positional or parameter.kind is parameter.VAR_KEYWORD:
            continue
        add_option(parser, name, parameter, rule_of.get(name), english[name], name in required, metavars.get(name))
    if json and "quiet" in inspect.signature(function).parameters:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_option(parser: argparse.ArgumentParser, name: str, parameter: inspect.Parameter, rule: Rule | None, help: str, required: bool,
               metavar: str | None) -> None:  # fmt: skip
    """Declare one option."""
    default = None if parameter.default is parameter.empty else parameter.default
    settings: dict[str, Any] = {"dest": name, "default": default, "help": escape(help)}
    annotation = str(parameter.annotation)
    if annotation == "bool":
        parser.add_argument(flag_of(name), action="store_true", **settings)
        return
    if isinstance(rule, Choice):
        settings |= {"choices": rule.words}
    elif rule is not None:
        settings |= {"type": reader(rule)}
    elif "Path" in annotation or "Source" in annotation:
        settings |= {"type": path} | ({"nargs": "+"} if "list[" in annotation else {})
    parser.add_argument(flag_of(name), required=required, metavar=metavar or metavar_of(name, rule, annotation), **settings)


def path(text: str) -> Path:
    """A path as it was typed."""
    return Path(text)
