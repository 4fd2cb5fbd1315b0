"""Entry point of the `bertcourse` command.

A sub-command is a module of this package with `configure(parser)` and `run(args, extra) -> int`; it is named in
`COMMANDS` and imported only when it is called, so that `bertcourse --help` stays light. A module that sets
`PASS_THROUGH = True` gets the arguments it does not know as `extra`; to the others an unknown argument is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from bertcourse import __version__
from bertcourse.app.messages import UserError, reader_language
from bertcourse.base.display import printable
from bertcourse.base.machine import wait_passively

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes: as argparse has it, and 128 + SIGINT as shells have it

COMMANDS = {  # name: one line of help; the module is bertcourse.app.<name>
    "lab": "open the course in JupyterLab, in a folder of your own",
    "doctor": "tell whether this machine can run the course, and what mends it",
    "pretrain": "pre-train a BERT on your own text, or on the toy world",
    "finetune": "fine-tune a BERT on labelled files of your own",
    "distill": "train a small model to answer as a fine-tuned one does",
    "augment": "make more training rows out of those of a file, as TinyBERT does",
    "predict": "run a fine-tuned model on each line or row of a file",
    "export": "write a fine-tuned model as ONNX, and compare the two",
    "serve": "answer HTTP requests with an exported model",
    "bench": "time models side by side, checkpoints and exported ones",
    "quiz": "ask the course's cards and interview questions, each when it is due",
    "flashcards": "write the cards as an Anki deck or a CSV file",
    "progress": "show which exercises are solved",
    "claims": "list the guide's statements with verdict, source and measured value",
}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> None:
        """Print the sentence to stderr and exit with code 2."""
        self.exit(BAD_INPUT, printable(f"{self.prog}: {message}; see `{self.prog} --help`") + "\n")


def make_parser(chosen: str | None) -> tuple[Parser, object | None]:
    """The parser, with the arguments of the chosen command only, and that command's module."""
    parser = Parser(prog="bertcourse", allow_abbrev=False,
                    description="A course on BERT, from its principles to a service.",
                    epilog="`bertcourse COMMAND --help` explains one command.")
    parser.add_argument("--version", action="version", version=f"bertcourse {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    module = None
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".", allow_abbrev=False)
        if name == chosen:
            module = import_module(f"bertcourse.app.{name}")
            module.configure(command)
    return parser, module


def dispatch(argv: Sequence[str]) -> int:
    """Parse `argv` and run the command it names. Raises `UserError` and `SystemExit`."""
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser, module = make_parser(chosen)
    args, extra = parser.parse_known_args(argv)
    if extra and not getattr(module, "PASS_THROUGH", False):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
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
            print(f"bertcourse: {error.text(reader_language())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `bertcourse doctor | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
