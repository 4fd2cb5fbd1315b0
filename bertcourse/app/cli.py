"""Entry point of the `bertcourse` command.

A sub-command is a module of this package with `configure(parser)` and `run(args, extra) -> int`; it is named in
`COMMANDS` and imported only when it is called, so that `bertcourse --help` stays light. A module that sets
`PASS_THROUGH = True` gets the arguments it does not know as `extra`; to the others an unknown argument is an error.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module

from bertcourse import __version__
from bertcourse.base.display import printable
from bertcourse.base.machine import wait_passively
from bertcourse.base.messages import UserError, reader_language
from bertcourse.base.text import WIDTH, wrap

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes: as argparse has it, and 128 + SIGINT as shells have it

COMMANDS = {  # name: one line of help in English and Chinese; the module is bertcourse.app.<name>
    "lab": ("open the course in JupyterLab, in a folder of your own", "在 JupyterLab 里打开课程，放在你自己的文件夹中"),
    "doctor": ("tell whether this machine can run the course, and how to fix what is missing", "检查这台机器能否运行课程，以及怎样解决"),
    "pretrain": ("pre-train a BERT on your own text, or on the toy world", "用自己的文本（或玩具世界）预训练 BERT"),
    "finetune": ("fine-tune a BERT on labelled files of your own", "用自己的标注数据微调 BERT"),
    "distill": ("train a small model to answer as a fine-tuned one does", "训练一个小模型，学微调过的模型怎样作答"),
    "augment": ("make more training rows out of those of a file, as TinyBERT does", "像 TinyBERT 那样增强训练数据"),
    "predict": ("run a fine-tuned model on each line or row of a file", "对文件的每一行运行微调过的模型"),
    "export": ("write a fine-tuned model as ONNX, and compare the two", "把微调过的模型导出为 ONNX，并与原来比较"),
    "serve": ("answer HTTP requests with an exported model", "用导出的模型回答 HTTP 请求"),
    "bench": ("time models side by side, checkpoints and exported ones", "并排测量模型的速度：检查点与导出的模型"),
    "quiz": ("ask the course's cards and interview questions, each when it is due", "按到期时间提问卡片和面试题"),
    "flashcards": ("write the cards as an Anki deck or a CSV file", "把卡片写成 Anki 牌组或 CSV 文件"),
    "progress": ("show which exercises are solved", "显示哪些练习已经完成"),
    "release": ("write the exercises as notebooks for students, with points and a due date", "写出发给学生的练习笔记本，带分数与截止时间"),
    "grade": ("grade the notebooks of many students, each in a sandbox", "批改许多学生的笔记本，每份都在沙箱里运行"),
    "claims": ("list the guide's statements with verdict, source and measured value", "列出指南的说法：结论、来源与测得的值"),
    "completion": ("print a script that completes commands and options in a shell", "打印补全命令和选项的 shell 脚本"),
}
CHINESE = [  # argparse's sentences
    (r"the following arguments are required: (.*)", r"缺少 \1"), (r"unrecognized arguments: (.*)", r"不认识的参数：\1"),
    (r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)(.*)", r"\1 不能是 \2\4；可选：\3"),
    (r"argument (\S+): not allowed with argument (\S+)", r"\1 不能与 \2 同时使用"),
    (r"argument (\S+): expected (at least )?one argument", r"\1 后面缺少值"), (r"argument (\S+): (.*)", r"\1：\2"),
]


def in_chinese() -> bool:
    """Does the reader read Chinese?"""
    return reader_language() == "zh"


class Help(argparse.RawDescriptionHelpFormatter):
    """Help texts of one width, with commands not indented below their heading."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=WIDTH)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width)

    def _iter_indented_subactions(self, action: argparse.Action) -> Iterator[argparse.Action]:
        yield from getattr(action, "_get_subactions", list)()


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` in the reader's language that says what is wrong in one sentence, without the usage before it."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **{"formatter_class": Help} | settings, add_help=False)
        zh = in_chinese()
        self.add_argument("-h", "--help", action="help", help="显示这段说明" if zh else "show this help message and exit")
        if zh:
            self._positionals.title, self._optionals.title = "参数", "选项"

    def format_help(self) -> str:
        """The help text, in the reader's language."""
        text = super().format_help()
        return re.sub(r"^(参数|选项|命令):$", r"\1：", text.replace("usage: ", "用法：", 1), flags=re.M) if in_chinese() else text

    def error(self, message: str) -> None:
        """Print the sentence to stderr and exit with code 2."""
        zh, usage = in_chinese(), ""
        if self.usage and "required" in message:
            usage = f"；用法：{self.usage}" if zh else f"; usage: {self.usage}"
        if zh:
            message = next((found.expand(text) for pattern, text in CHINESE if (found := re.fullmatch(pattern, message, re.S))), message)
        see = f"；见 `{self.prog} --help`" if zh else f"; see `{self.prog} --help`"
        self.exit(BAD_INPUT, printable(f"{self.prog}: {message}{usage or see}") + "\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """As argparse, with the nearest choice."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if guess := did_you_mean(str(value), list(action.choices or ())):
                error.message += guess
            raise


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest of the words that are known, as a question; "" where none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    if not near:
        return ""
    return f"；是不是 {near[0]}？" if in_chinese() else f"; did you mean {near[0]}?"


def make_parser(chosen: str | None, every: bool = False) -> tuple[Parser, object | None]:
    """The parser, with the arguments of the chosen command only (or of every command), and that command's module."""
    zh = in_chinese()
    parser = Parser(prog="bertcourse", allow_abbrev=False,
                    description="从 BERT 的原理到服务的课程。" if zh else "A course on BERT, from its principles to a service.",
                    epilog="`bertcourse 命令 --help` 说明一个命令。" if zh else "`bertcourse COMMAND --help` explains one command.")
    parser.add_argument("--version", action="version", version=f"bertcourse {__version__}", help="显示版本" if zh else "show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="命令" if zh else "COMMAND", title="命令" if zh else "commands")
    module = None
    for name, lines in COMMANDS.items():
        line = lines[zh] if isinstance(lines, tuple) else lines
        command = commands.add_parser(name, help=line, description=f"{line}。" if zh else line[0].upper() + line[1:] + ".", allow_abbrev=False)
        if name == chosen or every:
            module = import_module(f"bertcourse.app.{name}")
            module.configure(command)
            from bertcourse.app.options import finish_help
            finish_help(name, command)
    return parser, module


def refuse_unknown(parser: Parser, chosen: str | None, extra: Sequence[str]) -> None:
    """Exit with a sentence about arguments that there are not, and the nearest that there are."""
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    command = commands.choices.get(chosen, parser)
    word = extra[0].partition("=")[0]
    known = [flag for action in command._actions for flag in action.option_strings]
    command.error(f"unrecognized arguments: {' '.join(extra)}{did_you_mean(word, known)}")


def dispatch(argv: Sequence[str]) -> int:
    """Parse `argv` and run the command it names. Raises `UserError` and `SystemExit`."""
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser, module = make_parser(chosen)
    args, extra = parser.parse_known_args(argv)
    if extra and not getattr(module, "PASS_THROUGH", False):
        refuse_unknown(parser, chosen, extra)
    if module is None:
        parser.print_help()
        return 0
    return module.run(args, [word for word in extra if word != "--"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 (the command's own verdict), 2 (bad input), 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show Chinese must not end in a traceback
    wait_passively()  # before a command imports PyTorch
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        with suppress(OSError):  # nobody reads it
            if os.environ.get("RANK", "0") in ("", "0"):  # of several processes of a training one speaks
                print(f"bertcourse: {error.text(reader_language())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `bertcourse doctor | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
