"""`bertcourse pretrain`: pre-train a BERT on text files of one's own, or on the toy world.

While it runs, everything lies in `OUT/unfinished`: `run.json` (what was asked for), `tokenizer`, `train` and `dev` (text
as pieces), `training` (history and checkpoints). When the model is complete its files are moved to OUT, each whole, and
`unfinished` goes. torch is imported only when what can be checked without it has been checked.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import platform
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app.messages import UserError, reader_language
from bertcourse.assets import asset
from bertcourse.base.atomic import file_digest
from bertcourse.base.display import json_of, printable
from bertcourse.base.machine import set_threads
from bertcourse.base.names import check_utf8
from bertcourse.base.text import shown_name

WORK, METRICS, RECIPE = "unfinished", "metrics.json", "pretrain.toml"
VOCABULARY, DEV_SHARE = 8_000, 0.02
SAMPLE = 10_000_000  # characters from which a tokenizer is trained
FEWEST = 4  # documents: two to train on, two held out, so that a stranger can be found for either
DEV_DOCUMENTS, DEV_INPUTS = 500, 2_000  # of the toy world, of each language; pairs that an evaluation looks at, at most
SAVED_EVERY = 1_000  # steps, at most
SETTINGS = {  # option: the recipe's setting; `--max-length` is `lengths` with one entry
    "steps": "steps", "batch_size": "batch_size", "lr": "lr", "seed": "seed", "layers": "num_layers",
    "hidden_size": "hidden_size", "heads": "num_heads", "max_length": "lengths", "precision": "precision",
}
USAGE = "bertcourse pretrain --out DIR [--corpus FILE ...] [option ...]"
EPILOG = """settings of the recipe, which win over the TOML file's:
  --steps N  --batch-size N  --lr X  --seed N  --precision no|bf16
  --layers N  --hidden-size N  --heads N  --max-length N (pieces in an input)

Ctrl-C saves the run; `--out DIR --resume` goes on with it, to the same weights.
"""


# --- arguments ----------------------------------------------------------------------------------------------------

def whole(least: int) -> Callable[[str], int]:
    """An argument that is a whole number, not less than `least`."""
    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text!r}")
    return read


def positive(most: float = math.inf) -> Callable[[str], float]:
    """An argument that is a number above 0, finite and at most `most`."""
    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if math.isfinite(float(text)) and 0 < float(text) <= most:
                return float(text)
        limit = "" if math.isinf(most) else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"must be a number above 0{limit}, not {text!r}")
    return read


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20, width=92)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="new folder for the model")
    add("--corpus", type=Path, nargs="+", metavar="FILE",
        help="text or its .gz, blank lines between documents; default: toy world")
    add("--encoding", metavar="NAME", help="of --corpus (default: UTF-8, or guessed and said)")
    add("--tokenizer", type=Path, metavar="DIR", help="default: a new one for --corpus, else the course's own")
    add("--vocab-size", type=whole(1), metavar="N",
        help=f"of a new tokenizer, or more for its characters (default: {VOCABULARY})")
    add("--dev-share", type=positive(0.5), metavar="X", help=f"of --corpus, held out (default: {DEV_SHARE})")
    add("--config", type=Path, metavar="TOML", help="recipe (default: that of the course's own model)")
    add("--threads", type=whole(1), metavar="N", help="of the CPU")
    add("--resume", action="store_true",
        help="go on with the run in --out; with --corpus or --config, or begin it")
    add("--json", action="store_true", help="print the metrics as JSON")
    add("--quiet", action="store_true", help="show no progress")
    for option, least in [("steps", 1), ("batch-size", 1), ("layers", 1), ("hidden-size", 1), ("heads", 1),
                          ("max-length", 5), ("seed", 0)]:
        add(f"--{option}", type=whole(least), help=argparse.SUPPRESS)
    add("--lr", type=positive(), help=argparse.SUPPRESS)
    add("--precision", choices=("no", "bf16"), help=argparse.SUPPRESS)


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said without looking far into a file, before anything heavy is imported. Raises `UserError`."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError("this command runs in one process: for several, call bertcourse.pretraining.pretrain in a script",
                        "这个命令只用一个进程：要用多个进程，请在脚本里调用 bertcourse.pretraining.pretrain")
    if args.vocab_size and args.tokenizer:
        raise UserError("--vocab-size is for a new tokenizer: leave it or --tokenizer out",
                        "--vocab-size 用于新的分词器：请去掉它或 --tokenizer")
    for option in ("vocab_size", "dev_share"):
        if getattr(args, option) and not args.corpus and not args.resume:
            name = "--" + option.replace("_", "-")
            raise UserError(f"{name} needs text of your own: add --corpus", f"{name} 要配合自己的文本：请加上 --corpus")
    if args.tokenizer and not any((args.tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(f"{args.tokenizer} has no tokenizer.json or vocab.txt: give the folder of a tokenizer",
                        f"{args.tokenizer} 里没有 tokenizer.json 或 vocab.txt：请给出分词器所在的文件夹")
    if args.config and not args.config.is_file():
        raise UserError(f"there is no file {args.config}: check the name after --config",
                        f"没有 {args.config} 这个文件：请检查 --config 后的文件名")
    files = args.corpus or []
    check_files(files, [args.encoding] * len(files))


def name_of(path: Path) -> str:
    """The last part of a path; of `.` and `..` that of the folder they stand for."""
    return shown_name(os.path.abspath(path))


def check_files(files: Sequence[Path], encodings: Sequence[str | None] = ()) -> None:
    """The first lines of each file, which must be a different regular file each. Raises `UserError`."""
    from bertcourse.files import check_encoding
    from bertcourse.pieces import encoding_of, read_lines, read_text
    seen: dict[Path, Path] = {}
    for file, encoding in zip(files, encodings or [None] * len(files), strict=True):
        check_encoding(encoding)
        if str(file) == "-" or (file.exists() and not file.is_file() and not file.is_dir()):
            raise UserError(f"{file} can be read only once: save the text in a file first",
                            f"{file} 只能读一遍：请先把文本存成文件")
        with contextlib.closing(read_lines(file, encoding or encoding_of(file)[0])) as lines:
            first = next((line for line in lines if line.strip()), None)
        if first is None:
            list(read_text(file))  # says that it is empty
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice: name each file once", f"{file} 出现了两次：每个文件请只写一次")
        seen[file.resolve()] = file


# --- the output folder --------------------------------------------------------------------------------------------

def look_at(out: Path, resume: bool) -> str:
    """What `--out` is: "new", "unfinished" or "finished". Raises `UserError` if it cannot be used as it was asked."""
    check_utf8(out.absolute())
    try:
        names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    except OSError as error:
        raise unusable(out, error) from None
    if out.is_dir() and not names:
        check_writable(out)
        return "new"
    if resume and METRICS in names and is_ours(load(out / METRICS)):
        return "finished"  # whatever else lies there: the metrics come last
    if WORK in names:
        if resume:
            return "unfinished"
        raise UserError(f"{out} holds an unfinished run: go on with it by --resume, or choose another folder",
                        f"{out} 里有一次没跑完的训练：请用 --resume 继续，或换一个文件夹")
    if names:
        raise UserError(f"{out} is not empty: choose another folder with --out", f"{out} 不是空的：请用 --out 换一个文件夹")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} is a file: choose a folder with --out", f"{out} 是一个文件：请用 --out 指定文件夹")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise UserError(f"{above} is a file, no folder can be made in it: choose another --out",
                        f"{above} 是一个文件，里面不能建文件夹：请用 --out 换一个位置")
    check_writable(above)
    return "new"


def unusable(path: Path, error: OSError) -> UserError:
    """A sentence for what the system says of a folder."""
    why = error.strerror or type(error).__name__
    return UserError(f"{path} cannot be written to ({why}): choose another folder with --out",
                     f"{path} 无法写入（{why}）：请用 --out 换一个文件夹")


def check_writable(folder: Path) -> None:
    """Raises `UserError` if nothing can be made in a folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unusable(folder, PermissionError(13, os.strerror(13)))


def load(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one where there is none, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_ours(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command?"""
    tables = ("data", "recipe", "dev", "baseline")
    return metrics.get("task") == "pretraining" and all(isinstance(metrics.get(name), dict) for name in tables)


class Diverged(UserError):
    """The training has come to nothing, and would again."""


class Workplace:
    """`OUT/unfinished`, for one process at a time. What is of no use is removed again when the run fails."""

    def __init__(self, out: Path, interruption: Interruption) -> None:
        self.out, self.path, self.interruption = out, out / WORK, interruption
        self.made: list[Path] = []
        self.lock = None

    def __enter__(self) -> Workplace:
        try:
            for folder in [*reversed(self.out.absolute().parents), self.out.absolute(), self.path.absolute()]:
                if not folder.is_dir():
                    folder.mkdir()
                    self.made.append(folder)
            self.lock = (self.path / "lock").open("w")
            self._take()
            if (self.out / METRICS).exists():
                raise UserError(f"another process has finished a model in {self.out} just now: choose another folder",
                                f"另一个进程刚在 {self.out} 里训练完一个模型：请换一个文件夹")
        except OSError as error:
            self._clear()
            raise unusable(self.out, error) from None
        except BaseException:  # Ctrl-C, too
            self._clear()
            raise
        return self

    def _take(self) -> None:
        with contextlib.suppress(ImportError):  # Windows
            import fcntl
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.made = []  # they are the other's
                raise UserError(f"another process is working in {self.out}: wait for it, or choose another folder",
                                f"另一个进程正在使用 {self.out}：请等它结束，或换一个文件夹") from None

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self.interruption.over = True  # what is done now takes moments
        if kind is Diverged and not self.best.is_dir():
            self.made = self.made or [self.path]  # to resume it would end in the same
            self._clear()
        elif kind and not self.kept():
            self._clear()
        else:
            self.lock.close()

    def _clear(self) -> None:
        if self.lock:
            self.lock.close()
        if self.made and self.made[-1].name == WORK:  # else it is another process's
            shutil.rmtree(self.path, ignore_errors=True)
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def best(self) -> Path:
        """The folder of the best model so far."""
        return self.path / "training" / "best"

    def kept(self) -> bool:
        """Does an earlier call's work lie here, or a checkpoint of this one?"""
        return not self.made or self.saved() > 0

    def saved(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max((int(path.stem[-8:]) for path in self.path.glob("training/checkpoint-*.pt")), default=0)

    def finish(self) -> None:
        """Move the finished model out, and remove all else."""
        self.interruption.over = True
        try:
            for file in sorted((self.path / "model").iterdir(), key=lambda file: file.name == METRICS):  # that one last
                os.replace(file, self.out / file.name)
        finally:
            self.lock.close()
        shutil.rmtree(self.path)


class Interruption:
    """Ctrl-C and termination: a wish to stop after the step, while `gentle`; at once at the second time, and else.

    An evaluation may take many minutes, so it is left at once; what was done since the last checkpoint is done again by `--resume`.
    """

    def __init__(self, lang: str) -> None:
        self.gentle = self.asked = self.saved = self.over = self.evaluates = False
        self.zh, self.before = lang == "zh", {}

    def __enter__(self) -> Interruption:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants to go on
                with contextlib.suppress(ValueError):  # not the main thread: somebody else handles signals
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, *_: Any) -> None:
        """Called by a signal."""
        if self.over:
            return
        if self.gentle and not self.asked and not self.evaluates:
            self.asked = True
            text = "\n本步结束后停下；再按一次 Ctrl-C 立即停下\n" if self.zh else "\nstopping after this step; once more: at once\n"
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, text.encode())  # not print, which this may have interrupted
            return
        raise KeyboardInterrupt

    def on_step_begin(self, state: Any) -> None:
        """A callback of `training.fit`, which leaves it when `SaveEvery` has had it save what was done."""
        if self.saved:
            raise KeyboardInterrupt

    def on_eval_begin(self, state: Any) -> None:
        """A callback of `training.fit`."""
        if self.asked:
            raise KeyboardInterrupt
        self.evaluates = True

    def on_eval(self, state: Any) -> None:
        """A callback of `training.fit`."""
        self.evaluates = False


class SaveEvery(int):
    """A number of steps for `training.fit`, which saves where `step % every` is 0; after an interruption that is now."""

    def __new__(cls, steps: int, interruption: Interruption) -> SaveEvery:
        every = super().__new__(cls, steps)
        every.interruption = interruption
        return every

    def __rmod__(self, step: int) -> int:
        self.interruption.saved = self.interruption.asked
        return 0 if self.interruption.saved else step % int(self)


# --- the recipe ---------------------------------------------------------------------------------------------------

def _int(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def _num(value: Any, low: float = 0, high: float = math.inf) -> bool:
    return type(value) in (int, float) and low <= value < high


def _list(value: Any, good: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(good, value))


def _lengths(value: Any) -> bool:
    pairs = _list(value, lambda e: _list(e, _num) and len(e) == 2 and _int(e[0], 5))
    return pairs and abs(sum(share for _, share in value) - 1) < 1e-6


_COUNT = _int, "a whole number from 1 on", "不小于 1 的整数"
_SHARE = lambda v: _num(v, 0, 1), "a number from 0 to below 1", "不小于 0、小于 1 的数"
_PART = lambda v: _num(v) and v <= 1, "a number from 0 to 1", "0 到 1 的数"
_ABOVE = lambda v: _num(v) and v > 0, "a number above 0", "大于 0 的数"
_ZERO = _num, "a number from 0 on", "不小于 0 的数"
RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {  # setting: what it must be
    "languages": (lambda v: _list(v, lambda lang: lang in ("en", "zh")) and 0 < len(v) == len(set(v)),
                  'a list of "en", "zh" or both', '由 "en"、"zh" 组成的列表'),
    "documents": (lambda v: _int(v, 2), "a whole number from 2 on", "不小于 2 的整数"),
    "num_layers": _COUNT, "hidden_size": _COUNT, "num_heads": _COUNT, "steps": _COUNT, "parts": _COUNT,
    "batch_size": _COUNT, "initializer_range": _ABOVE, "dropout": _SHARE, "short": _PART, "lr": _ABOVE, "clip": _ABOVE,
    "warmup": _ZERO, "weight_decay": _ZERO,
    "masking": (lambda v: isinstance(v, Mapping), "a table", "一个表"),
    "masking.rate": (lambda v: _num(v, 0, 1) and v > 0, "a number above 0 and below 1", "大于 0、小于 1 的数"),
    "masking.mask": _PART, "masking.random": _PART, "masking.whole_words": _PART, "masking.rarity": _PART,
    "masking.max_predictions": (lambda v: _int(v, 0), "a whole number from 0 on", "不小于 0 的整数"),
    "copies": (lambda v: v is None or _int(v), *_COUNT[1:]),
    "task": (lambda v: v in ("nsp", "sop"), '"nsp" or "sop"', '"nsp" 或 "sop"'),
    "put_back": (lambda v: isinstance(v, bool), "true or false", "true 或 false"),
    "redraw_short": (lambda v: isinstance(v, bool), "true or false", "true 或 false"),
    "lengths": (_lengths, "a list of [length from 5 on, share of the steps], with shares that add up to 1",
                "[长度（不小于 5）, 步数占比] 的列表，占比之和为 1"),
    "betas": (lambda v: _list(v, lambda b: _num(b, 0, 1)) and len(v) == 2, "two numbers from 0 to below 1",
              "两个不小于 0、小于 1 的数"),
    "precision": (lambda v: v in ("no", "bf16"), '"no" or "bf16"', '"no" 或 "bf16"'),
    "seed": (lambda v: _int(v, 0) and v < 2**32, "a whole number from 0 to below 2^32", "不小于 0、小于 2^32 的整数"),
}


EARLIER = {"redraw_short": True}  # what a run did whose recipe does not say


def recipe_of(values: Mapping[str, Any]) -> Any:  # a Recipe
    """A recipe from plain values, as they come from TOML or JSON. Raises `TypeError` and `ValueError`."""
    from bertcourse.pretraining import Masking, Recipe
    made = {name: tuple(tuple(e) if isinstance(e, list) else e for e in value) if isinstance(value, (list, tuple)) else value
            for name, value in values.items()}
    if "masking" in made:
        made["masking"] = Masking(**made["masking"])
    return Recipe(**made)


def check_values(values: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for a setting that there is not, or that no run could have."""
    from bertcourse.pretraining import Masking, Recipe
    for name, value in values.items():
        check_value(name, value, name in {setting.name for setting in fields(Recipe)}, where)
    for name, value in values.get("masking", {}).items():
        check_value(f"masking.{name}", value, name in {setting.name for setting in fields(Masking)}, where)


def check_value(name: str, value: Any, known: bool, where: str) -> None:
    """Raises `UserError` for a setting that there is not, or that no run could have."""
    if not known:
        raise UserError(f"{where}: there is no setting {name}: remove it", f"{where}：没有 {name} 这个设置：请删去")
    good, en, zh = RULES.get(name, (lambda value: True, "", ""))
    try:
        passes = good(value)
    except TypeError:  # such as a list, looked for in a set
        passes = False
    if not passes:
        said = json.dumps(value, ensure_ascii=False, default=str)
        raise UserError(f"{where}: {name} must be {en}, not {said}", f"{where}：{name} 应为{zh}，不能是 {said}")


def check_together(given: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for settings, each right for itself, that do not go together."""
    from bertcourse.pretraining import Recipe
    values = {setting.name: setting.default for setting in fields(Recipe)} | dict(given)
    masking = asdict(Recipe().masking) | dict(given.get("masking", {}))
    width, heads, warmup, steps = (values[name] for name in ("hidden_size", "num_heads", "warmup", "steps"))
    if width % heads:
        raise UserError(f"{where}: {heads} heads do not divide a width of {width} evenly: change --heads or --hidden-size",
                        f"{where}：宽度 {width} 不能被 {heads} 个头整除：请改 --heads 或 --hidden-size")
    if 1 <= warmup >= steps:
        raise UserError(f"{where}: a warm-up of {warmup} steps leaves nothing of {steps} steps: shorten it",
                        f"{where}：共 {steps} 步，预热就要 {warmup} 步：请缩短预热")
    if masking["mask"] + masking["random"] > 1 + 1e-9:
        raise UserError(f"{where}: masking.mask and masking.random are shares of the same pieces, together at most 1",
                        f"{where}：masking.mask 与 masking.random 是同一些 token 中的占比，合计不能超过 1")
    if masking["max_predictions"] and masking["whole_words"]:
        raise UserError(f"{where}: masking.max_predictions counts tokens, masking.whole_words chooses words: set one of them to 0",
                        f"{where}：masking.max_predictions 按 token 计数，masking.whole_words 按词选：请把其中一个设为 0")


def read_toml(file: Path) -> dict[str, Any]:
    """The values in a file. Raises `UserError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", f"{file} 无法读取：{error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not TOML: {error}", f"{file} 不是 TOML：{error}") from None


def read_recipe(args: argparse.Namespace, was: Mapping[str, Any] | None) -> Any:  # a Recipe
    """The recipe of a file (by default the run's own, or the shipped model's) with the options. Raises `UserError`."""
    where = args.config.name if args.config else "recipe"
    values = EARLIER | dict(was) if was and not args.config else read_toml(args.config or asset("tiny-bert") / RECIPE)
    for option, name in SETTINGS.items():
        if (value := getattr(args, option)) is not None:
            values[name] = [[value, 1.0]] if option == "max_length" else value
    steps, parts = values.get("steps"), values.get("parts", 10)
    if _int(steps) and _int(parts) and steps < parts:
        values["parts"] = steps  # else an epoch had less than a step
    check_values(values, where)
    check_together(values, where)
    return recipe_of(values)


def to_toml(recipe: Any, own_text: bool) -> str:
    """A recipe as the TOML file from which it can be read again."""
    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    values = asdict(recipe)
    masking = values.pop("masking")
    left_out = {"languages", "documents"} if own_text else set()
    lines = [f"{name} = {text(value)}" for name, value in values.items() if value is not None and name not in left_out]
    return "\n".join([*lines, "", "[masking]", *(f"{name} = {text(value)}" for name, value in masking.items())]) + "\n"


# --- what is asked for --------------------------------------------------------------------------------------------

@dataclass
class Job:
    """What is asked for. `run.json` holds it, so that `--resume` needs no other option."""

    recipe: Any
    corpus: list[str]  # absolute paths; none: the toy world
    tokenizer: str | None  # absolute path; None: a new one, or the course's own
    vocab_size: int
    dev_share: float
    command: str
    files: list[dict[str, Any]] = field(default_factory=list)  # name, bytes, sha256 of each
    encodings: list[str] = field(default_factory=list)  # of each file of the corpus

    def write(self, path: Path) -> None:
        """Into `run.json`, whole or not at all."""
        partial = path.with_name(".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)


def command_line(args: argparse.Namespace) -> str:
    """The command without the folders of this machine."""
    words = ["bertcourse", "pretrain"]
    for name, value in vars(args).items():
        if name in ("command", "resume", "json", "quiet") or value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += ["--" + name.replace("_", "-"), *(name_of(v) if isinstance(v, Path) else str(v) for v in values)]
    return shlex.join(words)


def asked(args: argparse.Namespace) -> Job:
    """What is asked for now. Raises `UserError`."""
    from bertcourse.pieces import encoding_of
    files = args.corpus or []
    return Job(read_recipe(args, None), [str(file.resolve()) for file in files],
               str(args.tokenizer.resolve()) if args.tokenizer else None, args.vocab_size or VOCABULARY,
               args.dev_share or DEV_SHARE, command_line(args), encodings=[args.encoding or encoding_of(file)[0] for file in files])


def recorded(args: argparse.Namespace) -> Job:
    """What an unfinished run was asked for, and is now again. Raises `UserError`."""
    was = load(args.out / WORK / "run.json")
    try:
        job = Job(**was | {"recipe": recipe_of(EARLIER | was["recipe"])})
    except (KeyError, TypeError, ValueError):  # killed before it was written, or of another version of this command
        raise UserError(f"{args.out / WORK} does not say what the run was: remove it and start again",
                        f"{args.out / WORK} 没有记下那次训练是什么：请删除后重新开始") from None
    compare(args, was)
    return job


def compare(args: argparse.Namespace, was: Mapping[str, Any]) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or `data` of the metrics)."""
    before, now = recipe_of(EARLIER | was["recipe"]), read_recipe(args, was["recipe"])
    changed = [(s.name, getattr(before, s.name), getattr(now, s.name)) for s in fields(before)]
    if args.tokenizer and "tokenizer" in was:
        changed.append(("tokenizer", was["tokenizer"], str(args.tokenizer.resolve())))
    changed += [(name, was[name], getattr(args, name)) for name in ("vocab_size", "dev_share")
                if getattr(args, name) and name in was]
    for name, old, new in changed:
        if old != new:
            raise UserError(f"the run in {args.out} has another {name} ({old}, not {new}): leave the option out, or choose "
                            "another folder", f"{args.out} 里的训练用的是另一个 {name}（{old}，不是 {new}）：请去掉这个选项，或换一个文件夹")
    if args.corpus and [file_digest(file) for file in args.corpus] != [file["sha256"] for file in was["files"]]:
        raise other_corpus(args.out)


def other_corpus(out: Path) -> UserError:
    """A sentence for text that is not what it was."""
    return UserError(f"the corpus is not that of the run in {out}: choose another folder with --out",
                     f"语料与 {out} 里的训练所用的不同：请用 --out 换一个文件夹")


# --- text ---------------------------------------------------------------------------------------------------------

class Teller:
    """Says on stderr what is being done, to people who look."""

    def __init__(self, lang: str, quiet: bool) -> None:
        self.zh, self.quiet = lang == "zh", quiet
        self.seen = not quiet and sys.stderr is not None and sys.stderr.isatty()

    def say(self, en: str, zh: str) -> None:
        """A line, on a terminal only: a log wants the results."""
        if self.seen:
            print(printable(zh if self.zh else en), file=sys.stderr, flush=True)

    def state(self, en: str, zh: str) -> None:
        """A line, in logs too, unless nothing is to be said."""
        if not self.quiet:
            print(printable(zh if self.zh else en, keep="\n"), file=sys.stderr, flush=True)

    def watch(self, items: Iterable[Any], total: int, size: Callable[[Any], int], unit: str) -> Iterator[Any]:
        """The items, with a bar that grows by `size` of each."""
        from tqdm import tqdm
        with tqdm(total=total, unit=unit, unit_scale=True, disable=not self.seen, leave=False) as bar:
            for item in items:
                yield item
                bar.update(size(item))


@dataclass
class Survey:
    """What a corpus is, after all of it has been read once."""

    files: list[dict[str, Any]]
    characters: int
    pieces: int  # roughly, rather too many
    sample: list[str]


def survey(files: Sequence[Path], sample: int, encodings: Sequence[str | None] = ()) -> Survey:
    """Read everything, so that a fault is found before anything is written; take a sample evenly. Raises `TextError`."""
    from bertcourse.pieces import read_lines
    total = sum(file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in files)
    kept, taken = [], 0
    characters = pieces = 0
    for line in chain.from_iterable(map(read_lines, files, encodings or [None] * len(files))):
        characters += len(line) + 1
        pieces += len(line) // 3 if line.isascii() else len(line)  # English; Chinese, where each character is one
        if line and taken < sample and taken * total <= characters * sample:  # not every nth, which might all be titles
            kept.append(line)
            taken += len(line)
    known = [{"name": shown_name(file), "bytes": file.stat().st_size, "sha256": file_digest(file)} for file in files]
    return Survey(known, characters, pieces, kept)


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer that BERT's inputs can be made with. Raises `UserError`."""
    from transformers import AutoTokenizer, BertTokenizer
    from transformers.utils import logging
    logging.set_verbosity_error()  # what matters is said below
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        else:  # of the days of BERT: AutoTokenizer asks for more
            tokenizer = BertTokenizer.from_pretrained(str(folder), local_files_only=True)
        names = ("pad", "unk", "cls", "sep", "mask")
        absent = [f"[{name.upper()}]" for name in names if getattr(tokenizer, f"{name}_token_id") is None]
        size, last = len(tokenizer), max(tokenizer.get_vocab().values())
    except Exception as error:  # half a dozen libraries' own
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"the tokenizer in {folder} cannot be read ({said}): get it again",
                        f"{folder} 里的分词器读不出来（{said}）：请重新取得") from None
    for wrong, en, zh in [
        (absent, f"has no {', '.join(absent)}", f"缺少 {'、'.join(absent)}"),
        (not tokenizer.is_fast, "is not a fast one (tokenizer.json)", "不是快速分词器（tokenizer.json）"),
        (not absent and tokenizer.pad_token_id != 0, "does not number [PAD] 0, as BERT's do", "的 [PAD] 编号不是 0，与 BERT 不同"),
        (last >= size, f"has {size:,} pieces, but numbers up to {last:,}", f"有 {size:,} 项，编号却到 {last:,}"),
    ]:
        if wrong:
            raise UserError(f"the tokenizer in {folder} {en}: choose another, or leave --tokenizer out",
                            f"{folder} 里的分词器{zh}：请换一个，或去掉 --tokenizer")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path, max_length: int) -> None:
    """With the vocabulary as a list, too."""
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(partial)
    ids = tokenizer.get_vocab()
    text = "".join(piece + "\n" for piece in sorted(ids, key=ids.get))
    (partial / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, folder)


def hold_out(documents: Iterable[list[str]], share: float, aside: Callable[[list[str]], Any]) -> Iterator[list[str]]:
    """All documents but every so many, which go `aside`; two go aside of however few."""
    every, held, waiting = max(2, round(1 / share)), 0, deque()
    for number, document in enumerate(documents, 1):
        if number % every == 0:
            aside(document)
            held += 1
        else:
            waiting.append(document)
            if len(waiting) > 2:
                yield waiting.popleft()
    for document in waiting:
        if held < 2:
            aside(document)
            held += 1
        else:
            yield document


def encode_corpus(job: Job, tokenizer: Any, work: Path, characters: int, tell: Teller) -> None:
    """Cut the files into pieces: `work/train` and `work/dev`; none of the two where there are no pieces for it."""
    from bertcourse.pieces import TextError, encode, read_text

    def cut(documents: Iterable[list[str]], part: str) -> None:
        try:
            encode(documents, tokenizer, work / part)
        except TextError:  # a ValueError, too: the file has changed since it was surveyed
            raise
        except ValueError:  # no pieces at all, of which `check_pieces` speaks
            pass

    aside = work / "dev.jsonl"
    with aside.open("w", encoding="utf-8") as file:
        texts = chain.from_iterable(map(read_text, job.corpus, job.encodings))
        documents = tell.watch(texts, characters, lambda d: sum(len(s) + 1 for s in d), " characters")
        cut(hold_out(documents, job.dev_share, lambda d: file.write(json.dumps(d) + "\n")), "train")
    with aside.open(encoding="utf-8") as file:
        cut(map(json.loads, file), "dev")
    aside.unlink()


def encode_toy_world(job: Job, tokenizer: Any, work: Path, tell: Teller) -> None:
    """Write the toy world's documents: `work/train` and, of the validation split, `work/dev`."""
    from bertcourse.pieces import toy_pieces
    recipe = job.recipe
    toy_pieces(tokenizer, DEV_DOCUMENTS, recipe.languages, split="validation", folder=work / "dev")
    total = recipe.documents * len(recipe.languages)
    toy_pieces(tokenizer, recipe.documents, recipe.languages, folder=work / "train",
               watch=lambda documents: tell.watch(documents, total, lambda d: 1, " documents"))


def open_pieces(job: Job, work: Path) -> dict[str, Any]:
    """`train` and `dev`, where both are complete, else nothing."""
    from bertcourse.pieces import Pieces
    if not all((work / part).is_dir() for part in ("train", "dev")):
        return {}
    found = {part: Pieces.open(work / part) for part in ("train", "dev")}
    for pieces in found.values():
        pieces.streams = 1 if job.corpus else len(job.recipe.languages)
    return found


def check_pieces(pieces: Mapping[str, Any], tokenizer: Any) -> float:  # share of [UNK]
    """Raises `UserError` for a text from which nothing can be learnt."""
    from numpy import diff
    documents = sum(map(len, pieces.values()))
    if not pieces or documents < FEWEST or min(map(len, pieces.values())) < 2:
        raise UserError(f"the corpus has fewer than {FEWEST} documents, too few to find a stranger for next sentence "
                        "prediction: put blank lines between documents, or add text",
                        f"语料不足 {FEWEST} 篇，做下一句预测时找不到别处的句子：请用空行分隔各篇，或添加文本")
    for name, part in pieces.items():
        if not (diff(part.documents[:1_000_000]) > 1).any():
            en, zh = ("", "") if name == "train" else (" held out", "留出的文本里")
            raise UserError(f"no document{en} has two sentences, so there is no next one to predict: put blank lines between "
                            "documents only", f"{zh}没有一篇有两句话，也就没有下一句可预测：请只在两篇之间留空行")
    counts = pieces["train"].counts(len(tokenizer))
    unknown = counts[tokenizer.unk_token_id] / counts.sum()
    if unknown > 0.5:
        raise UserError(f"{unknown:.0%} of the text is [UNK] to this tokenizer: choose one that knows its language, or "
                        "leave --tokenizer out", f"这个分词器把 {unknown:.0%} 的文本都当成 [UNK]：请换一个认识这种语言的，或去掉 --tokenizer")
    return float(unknown)


# --- what the machine must have -----------------------------------------------------------------------------------

def shape_of(recipe: Any, vocab_size: int) -> Any:
    """The model's numbers, as `bertcourse.bert` counts them."""
    from bertcourse.bert import Shape
    return Shape("", recipe.num_layers, recipe.hidden_size, recipe.num_heads, 4 * recipe.hidden_size, vocab_size,
                 positions=max(length for length, _ in recipe.lengths))


def check_memory(recipe: Any, vocab_size: int) -> None:
    """Raises `UserError` if training cannot fit into the memory of this machine."""
    import psutil
    import torch

    from bertcourse.bert import training_memory
    shape = shape_of(recipe, vocab_size)
    need = training_memory(shape, recipe.batch_size, shape.positions)
    activations = need.pop("activations") // (2 if recipe.precision == "bf16" else 1)
    chosen = recipe.batch_size * shape.positions * recipe.masking.rate  # places that are scored for every piece
    total = sum(need.values()) + activations + int(2 * 4 * chosen * vocab_size)
    there = psutil.virtual_memory().total
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory
    if total > there:
        raise UserError(f"this needs about {total / 1e9:,.1f} GB of memory, there are {there / 1e9:,.1f} GB: choose a smaller "
                        "--batch-size, --max-length, --hidden-size or --layers",
                        f"大约需要 {total / 1e9:,.1f} GB 内存，这里只有 {there / 1e9:,.1f} GB："
                        "请调小 --batch-size、--max-length、--hidden-size 或 --layers")


def check_disk(out: Path, job: Job, vocab_size: int, pieces: int) -> None:
    """Raises `UserError` if text as pieces, checkpoints and model cannot fit on the disk."""
    wide = 2 if vocab_size <= 1 << 16 else 4
    pieces = pieces or 80 * job.recipe.documents * len(job.recipe.languages)
    text = pieces * (2 * wide + 1)  # ids lie there twice for a moment
    model = 4 * shape_of(job.recipe, vocab_size).total()
    need = text + model * (3 * 3 + 3)  # three checkpoints with Adam's two moments; the best, the last, the one to move
    above = next(path for path in [out.absolute(), *out.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(above).free
    if need > free:
        raise UserError(f"this needs about {need / 1e9:,.1f} GB of disk in {out}, {free / 1e9:,.1f} GB are free: make room, or "
                        "choose another folder with --out",
                        f"{out} 所在磁盘大约需要 {need / 1e9:,.1f} GB，只剩 {free / 1e9:,.1f} GB：请腾出空间，或用 --out 换一个文件夹")


# --- scores -------------------------------------------------------------------------------------------------------

def _scores(model: Any, batch: Mapping[str, Any]) -> Any:  # (4,): two losses, two shares of right answers
    import torch
    output, labels = model(**batch), batch["labels"]
    words = output.prediction_logits.argmax(-1) == labels[labels != -100]
    pairs = output.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
    return torch.cat([output["losses"].float(), torch.stack([words.float().mean(), pairs.float().mean()])])


def _counts(batch: Mapping[str, Any]) -> Any:  # (4,)
    from bertcourse.pretraining import items
    return items(batch).repeat(2)


class Scores:
    """How well a model does on held-out text: the same pairs and masks each time."""

    def __init__(self, recipe: Any, tokenizer: Any, pieces: Mapping[str, Any]) -> None:
        from bertcourse.pretraining import Collator, Inputs, chances, segment_pairs
        self.recipe, self.train, self.vocab_size = recipe, pieces["train"], len(tokenizer)
        import numpy as np
        dev, longest = pieces["dev"], max(length for length, _ in recipe.lengths)
        order = range(min(len(dev), DEV_INPUTS))
        drawn = {"task": recipe.task, "redraw_short": recipe.redraw_short}
        pairs = len(segment_pairs(dev, order, longest, np.random.default_rng(0), **drawn))
        self.inputs = Inputs(dev, tokenizer, min(max(pairs, 2), DEV_INPUTS), longest, **drawn)
        weights = chances(self.train, recipe.masking) if recipe.masking.rarity else None
        self.collate = Collator(tokenizer, recipe.masking, weights)

    def __call__(self, model: Any) -> dict[str, float]:
        """Losses (natural logarithm), and shares of right answers."""
        from bertcourse.training import evaluate
        task = self.recipe.task
        mlm, pairs, words_right, pairs_right = evaluate(
            model, self.inputs, batch_size=self.recipe.batch_size, collate=self.collate, loss=_scores, items=_counts,
            precision=self.recipe.precision)["terms"]
        return {"loss": mlm + pairs, "mlm_loss": mlm, "mlm_perplexity": math.exp(min(mlm, 700)), "mlm_accuracy": words_right,
                f"{task}_loss": pairs, f"{task}_accuracy": pairs_right}

    def baseline(self) -> dict[str, float]:
        """What the frequencies of pieces and of answers give, without looking at the text."""
        import numpy as np
        frequency = self.train.counts(self.vocab_size) + 1.0
        labels = np.zeros(self.vocab_size)
        negatives = 0
        size = self.recipe.batch_size
        for start in range(0, len(self.inputs), size):
            batch = self.collate([self.inputs[i] for i in range(start, min(start + size, len(self.inputs)))])
            found = batch["labels"].numpy()
            labels += np.bincount(found[found != -100], minlength=self.vocab_size)
            negatives += int(batch["next_sentence_label"].sum())
        loss = float(-(labels * np.log(frequency / frequency.sum())).sum() / labels.sum())
        share = negatives / len(self.inputs)
        return {"mlm_loss": loss, "mlm_perplexity": math.exp(loss),
                "mlm_accuracy": float(labels[frequency.argmax()] / labels.sum()),
                f"{self.recipe.task}_accuracy": max(share, 1 - share)}


class Report:
    """A callback of `training.fit`: a line at each evaluation."""

    def __init__(self, recipe: Any, tell: Teller) -> None:
        self.recipe, self.tell = recipe, tell

    def on_eval(self, state: Any) -> None:
        """Say how it stands and how long it will take."""
        if self.tell.quiet:
            return
        from tqdm import tqdm
        steps, dev, task = self.recipe.steps, state.dev, self.recipe.task
        left = state.history.seconds / state.step * (steps - state.step) / 60
        en = (f"step {state.step:,} of {steps:,}: loss {state.loss:.3f}; held out: masked words {dev['mlm_accuracy']:.1%}, "
              f"sentence pairs {dev[f'{task}_accuracy']:.1%}; {left:.0f} min left")
        zh = (f"第 {state.step:,} 步，共 {steps:,} 步：损失 {state.loss:.3f}；留出文本：掩码词 {dev['mlm_accuracy']:.1%}，"
              f"句对 {dev[f'{task}_accuracy']:.1%}；还需 {left:.0f} 分钟")
        tqdm.write(zh if self.tell.zh else en, file=sys.stderr)


# --- the finished folder ------------------------------------------------------------------------------------------

def draw_curves(history: Any, baseline: Mapping[str, float], task: str, path: Path) -> None:
    """Losses of training and of held-out text; shares of right answers on held-out text."""
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    from bertcourse.plots import axes, dress, style
    figure, (left, right) = axes(1, 2, (8.4, 3.2))
    with style():
        steps, terms = history.column("terms")
        left.plot(steps, [pair[0] for pair in terms], label="training")
        left.plot(*history.column("dev.mlm_loss"), marker="o", markersize=4, label="held out")
        left.axhline(baseline["mlm_loss"], linestyle=":", color="#7f7f7f", label="piece frequencies")
        right.plot(*history.column("dev.mlm_accuracy"), marker="o", markersize=4, label="masked words")
        right.plot(*history.column(f"dev.{task}_accuracy"), marker="o", markersize=4, label="sentence pairs")
        right.set_ylim(0, 1)
        for ax, name in [(left, "loss of masked words"), (right, "right answers, held out")]:
            dress(ax, "step", name).grid(axis="y")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.legend()
        figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    import tokenizers
    import torch
    import transformers
    return {"bertcourse": __version__, "python": platform.python_version(), "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}


def _percent(value: float) -> str:
    return f"{value:.1%}"


def card(name: str, metrics: Mapping[str, Any]) -> str:
    """The model card, in both languages."""
    dev, base, data, recipe, task = (metrics[key] for key in ("dev", "baseline", "data", "recipe", "objective"))
    train, held = data["train"], data["dev"]
    files = data["files"]
    if files:
        source = "\n".join(f"| `{f['name']}` | {f['bytes']:,} | `{f['sha256'][:16]}` |" for f in files)
        source = f"| 文件 / file | 字节 / bytes | SHA-256 |\n|---|---|---|\n{source}"
    else:
        source = (f"`bertcourse.corpus`, {recipe['documents']:,} × {', '.join(recipe['languages'])}："
                  "本课程的玩具世界 / the toy world of this course")
    shape = f"{recipe['num_layers']} × {recipe['hidden_size']}, {recipe['num_heads']} heads"
    pairs = {"nsp": "下一句预测，准确率 / next sentence, accuracy", "sop": "句序预测，准确率 / sentence order, accuracy"}[task]
    seen = metrics["tokens"] / max(train["pieces"], 1)
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, fill-mask]
---

# {name}

用 `bertcourse pretrain` 从头预训练的 BERT。/ A BERT pre-trained from scratch by `bertcourse pretrain`.

## 数据 / Data

{source}

| | 训练 / training | 留出 / held out |
|---|---|---|
| 篇 / documents | {train['documents']:,} | {held['documents']:,} |
| 句 / sentences | {train['sentences']:,} | {held['sentences']:,} |
| token / pieces | {train['pieces']:,} | {held['pieces']:,} |
| 指纹 / fingerprint | `{train['fingerprint']}` | `{held['fingerprint']}` |

`[UNK]` 的占比 / share of `[UNK]`: {_percent(data['unknown'])}

## 配方 / Recipe

| | |
|---|---|
| 结构 / shape | {shape}; {metrics['parameters']:,} parameters, vocabulary {metrics['vocab_size']:,} |
| 训练 / training | {metrics['steps']:,} steps of {recipe['batch_size']} pairs, {metrics['tokens']:,} tokens ({seen:,.1f} × the text), seed {metrics['seed']}, {metrics['seconds'] / 60:,.1f} min |
| 全部设置 / all settings | `{RECIPE}` |
| 命令 / command | `{metrics['command']}` |

## 得分 / Scores

留出文本 / on held-out text, {metrics['dev_inputs']:,} pairs:

| | | 基线 / baseline |
|---|---|---|
| 掩码词，准确率 / masked words, accuracy | {_percent(dev['mlm_accuracy'])} | {_percent(base['mlm_accuracy'])}, 最常见的 token / the most frequent piece |
| 掩码词，损失 / masked words, loss | {dev['mlm_loss']:.3f} | {base['mlm_loss']:.3f}, token 频率 / piece frequencies |
| 掩码词，困惑度 / masked words, perplexity | {dev['mlm_perplexity']:,.1f} | {base['mlm_perplexity']:,.1f} |
| {pairs} | {_percent(dev[f'{task}_accuracy'])} | {_percent(base[f'{task}_accuracy'])}, 总答同一个 / always the same answer |

![loss](curves.png)

## 使用 / Use

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

它只读过上面的文本，未经微调，也未检查偏见与隐私。/ It has read nothing but the text above, is not fine-tuned, and was not
examined for bias or private data.

{', '.join(f'{package} {version}' for package, version in metrics['versions'].items())}
"""


def _described(pieces: Any) -> dict[str, Any]:
    return {"documents": len(pieces), "sentences": len(pieces.sentences) - 1, "pieces": len(pieces.ids),
            "fingerprint": pieces.fingerprint()}


def assemble(job: Job, name: str, work: Path, history: Any, scores: Scores, pieces: Mapping[str, Any], unknown: float,
             parameters: int) -> dict[str, Any]:  # the metrics
    """Put all that the finished folder is to hold into `work/model`."""
    import torch
    model, training = work / "model", work / "training"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(work / "tokenizer", model)
    for file in [*training.glob("*.json"), *training.glob("*.safetensors"), training / "history.jsonl"]:
        shutil.copyfile(file, model / file.name)
    recipe = job.recipe
    metrics = {
        "task": "pretraining", "objective": recipe.task, "dev": history.rows[-1]["dev"],
        "baseline": scores.baseline(), "test": {}, "seconds": round(history.seconds, 1), "seed": recipe.seed,
        "command": job.command, "steps": history.steps, "tokens": history.column("tokens")[1][-1],
        "parameters": parameters, "vocab_size": scores.vocab_size, "dev_inputs": len(scores.inputs),
        "threads": torch.get_num_threads(), "versions": versions(), "recipe": asdict(recipe), "data": {
            "files": job.files, "dev_share": job.dev_share if job.corpus else None, "unknown": unknown,
            **{part: _described(pieces[part]) for part in ("train", "dev")}},
    }
    (model / RECIPE).write_text(to_toml(recipe, bool(job.corpus)), encoding="utf-8")
    (model / METRICS).write_text(json.dumps(metrics, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (model / "README.md").write_text(card(name, metrics), encoding="utf-8")
    draw_curves(history, metrics["baseline"], recipe.task, model / "curves.png")
    return metrics


def summary(out: Path, metrics: Mapping[str, Any], lang: str) -> str:
    """What a person wants to know at the end."""
    dev, base, task = metrics["dev"], metrics["baseline"], metrics["objective"]
    words, pairs = "mlm_accuracy", f"{task}_accuracy"
    if lang == "zh":
        return (f"{out}：{metrics['parameters']:,} 个参数，{metrics['steps']:,} 步，{metrics['seconds'] / 60:.1f} 分钟\n"
                f"留出文本：掩码词 {dev[words]:.1%}（最常见的 token：{base[words]:.1%}），困惑度 {dev['mlm_perplexity']:,.1f}"
                f"（{base['mlm_perplexity']:,.1f}），句对 {dev[pairs]:.1%}（{base[pairs]:.1%}）\n模型卡：{out / 'README.md'}")
    return (f"{out}: {metrics['parameters']:,} parameters, {metrics['steps']:,} steps, {metrics['seconds'] / 60:.1f} minutes\n"
            f"held out: masked words {dev[words]:.1%} (most frequent piece: {base[words]:.1%}), perplexity "
            f"{dev['mlm_perplexity']:,.1f} ({base['mlm_perplexity']:,.1f}), sentence pairs {dev[pairs]:.1%} ({base[pairs]:.1%})\n"
            f"model card: {out / 'README.md'}")


# --- the run ------------------------------------------------------------------------------------------------------

def train(job: Job, work: Path, tokenizer: Any, pieces: Mapping[str, Any], scores: Scores, tell: Teller,
          interruption: Interruption) -> tuple[Any, Any]:  # model, history
    """Pre-train, from the newest checkpoint on if there is one. Raises `UserError` for what a user can mend."""
    from bertcourse.pretraining import pretrain
    recipe = job.recipe
    with training(recipe.lr, work / "training" / "best", interruption):
        return pretrain(recipe, tokenizer, pieces["train"], out=work / "training", resume=True, metrics=scores,
                        callbacks=[interruption, Report(recipe, tell)], progress=tell.seen,
                        save_every=SaveEvery(min(SAVED_EVERY, max(1, recipe.steps // 20)), interruption))


@contextlib.contextmanager
def training(lr: float, best: Path, interruption: Interruption) -> Iterator[None]:
    """Ctrl-C waits for a checkpoint, stdout is kept for results, and what a user can mend becomes a `UserError`."""
    from bertcourse.training import NonFiniteLoss
    interruption.gentle = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except NonFiniteLoss as error:
        raise diverged(str(error).split(",")[0], lr, best) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise UserError("there is not enough memory: choose a smaller --batch-size or --max-length",
                        "内存不够：请调小 --batch-size 或 --max-length") from None
    except ValueError as error:
        if "cannot resume" not in str(error):
            raise
        said = str(error).splitlines()[0]
        raise UserError(said, f"无法继续这次训练，请换一个文件夹（{said}）") from None
    finally:
        interruption.gentle = False


UNWRITTEN = re.compile(r"os error (\d+)|inline_container|iostream|PytorchStreamWriter")  # safetensors; torch


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """A full disk as `OSError`: torch and safetensors raise exceptions of their own, with none of the system's behind them."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        found = UNWRITTEN.search(f"{error} {error.__context__ or ''}")
        if not found:
            raise
        code = int(found[1] or errno.ENOSPC)  # torch does not tell why: hardly ever for another reason
        raise OSError(code, os.strerror(code), "checkpoint") from None


def diverged(said: str, lr: float, best: Path) -> Diverged:
    """A sentence for a loss that is no number; it tells of the best model before, which is worth keeping."""
    if best.is_dir():
        return Diverged(f"training diverged ({said}): start anew in another folder, with a learning rate below {lr:g} (--lr); "
                        f"the best model before lies in {best}",
                        f"训练发散了（{said}）：请用小于 {lr:g} 的学习率（--lr）在另一个文件夹里重新开始；此前最好的模型在 {best}")
    return Diverged(f"training diverged ({said}): start anew with a learning rate below {lr:g} (--lr)",
                    f"训练发散了（{said}）：请用小于 {lr:g} 的学习率（--lr）重新开始")


def work_on(job: Job, args: argparse.Namespace, place: Workplace, tokenizer: Any, text: Survey | None, tell: Teller,
            interruption: Interruption) -> dict[str, Any] | None:  # the metrics; None: interrupted, and saved
    """From the text to the finished folder, from wherever an earlier run got to."""
    work, recipe = place.path, job.recipe
    pieces = open_pieces(job, work)
    if not pieces:
        for path in work.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        job.write(work / "run.json")
        if tokenizer is None:
            from bertcourse.corpus import train_tokenizer
            tell.say(f"training a tokenizer of {job.vocab_size:,} pieces", f"正在训练 {job.vocab_size:,} 项的分词器")
            tokenizer = train_tokenizer(text.sample, job.vocab_size)
        save_tokenizer(tokenizer, work / "tokenizer", max(length for length, _ in recipe.lengths))
        tell.say("cutting the text into pieces", "正在把文本切成 token")
        if job.corpus:
            encode_corpus(job, tokenizer, work, text.characters, tell)
        else:
            encode_toy_world(job, tokenizer, work, tell)
        pieces = open_pieces(job, work)
    tokenizer = load_tokenizer(work / "tokenizer")
    unknown = check_pieces(pieces, tokenizer)
    times = recipe.steps * recipe.batch_size * max(n for n, _ in recipe.lengths) / len(pieces["train"].ids)
    tell.say(f"text: {pieces['train']}; {recipe.steps:,} steps read it up to {times:,.1f} times",
             f"文本：{pieces['train']}；{recipe.steps:,} 步最多读 {times:,.1f} 遍")
    scores = Scores(recipe, tokenizer, pieces)
    model, history = train(job, work, tokenizer, pieces, scores, tell, interruption)
    if history.steps < recipe.steps:
        return None
    metrics = assemble(job, name_of(args.out), work, history, scores, pieces, unknown,
                       sum(p.numel() for p in model.parameters()))
    del pieces, scores  # Windows removes no file that is mapped
    place.finish()
    return metrics


def tell_encodings(job: Job, tell: Teller) -> None:
    """Say which files are not UTF-8, and how they are read."""
    for file, name in zip(job.corpus, job.encodings):
        if not name.lower().startswith("utf-8"):
            tell.state(f"{shown_name(file)}: read as {name.upper()}; --encoding changes it", f"{shown_name(file)}：按 {name.upper()} 读取，可用 --encoding 指定")


def prepare(job: Job, out: Path) -> tuple[Survey, Any]:  # the text; its tokenizer, or None: it is to be trained
    """Check tokenizer, memory, text and disk, before anything is written. Raises `UserError`."""
    files, tokenizer = [Path(file) for file in job.corpus], None
    if job.files:  # a run that was killed early
        check_files(files, job.encodings)
    if job.tokenizer:
        tokenizer = load_tokenizer(Path(job.tokenizer))
    elif not job.corpus:
        tokenizer = load_tokenizer(asset("tiny-bert"))
    vocab_size = len(tokenizer) if tokenizer else job.vocab_size
    check_memory(job.recipe, vocab_size)
    text = survey(files, 0 if tokenizer else SAMPLE, job.encodings)
    if job.files and text.files != job.files:
        raise other_corpus(out)
    job.files = text.files
    check_disk(out, job, vocab_size, text.pieces)
    return text, tokenizer


def start(args: argparse.Namespace, lang: str, interruption: Interruption, state: dict[str, Any]) -> dict[str, Any] | None:
    """Check all, then work. Returns the metrics; None when interrupted. `state` tells the caller about the work place."""
    check_arguments(args)
    found = look_at(args.out, args.resume)
    if args.resume and found == "new" and not (args.corpus or args.config):  # a slip in --out, most likely
        raise UserError(f"there is no run in {args.out} to go on with: check --out, or leave --resume out",
                        f"{args.out} 里没有可以继续的训练：请检查 --out，或去掉 --resume")
    tell = Teller(lang, args.quiet)
    tell.say("reading", "正在读取")
    if args.threads:
        os.environ.setdefault("RAYON_NUM_THREADS", str(args.threads))  # the tokenizer's
    if found == "finished":
        metrics = load(args.out / METRICS)
        compare(args, metrics["data"] | {"recipe": metrics["recipe"]})
        shutil.rmtree(args.out / WORK, ignore_errors=True)  # of a run that was killed while it tidied up
        return metrics
    job = recorded(args) if found == "unfinished" else asked(args)
    set_threads(job.recipe.hidden_size, args.threads)
    text = tokenizer = None
    if not open_pieces(job, args.out / WORK):
        tell_encodings(job, tell)
        text, tokenizer = prepare(job, args.out)
    with Workplace(args.out, interruption) as place, writing():
        state["place"] = place
        return work_on(job, args, place, tokenizer, text, tell, interruption)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Pre-train and report: 0, or 130 when interrupted. Raises `UserError`."""
    return conduct("pretrain", args, start, summary, task="pretraining")


def conduct(command: str, args: argparse.Namespace, start: Callable, summary: Callable, **about: str) -> int:
    """Let a command that trains do its work and report it: 0, or 130 when interrupted. Raises `UserError`."""
    lang, state = reader_language(), {}
    metrics = None
    with Interruption(lang) as interruption:
        try:
            metrics = start(args, lang, interruption, state)
        except KeyboardInterrupt:
            pass
        except OSError as error:
            raise failed(args.out, error, state.get("place")) from None
    if metrics is None:
        return stopped(command, args, lang, state.get("place"), about)
    if args.json:
        print(json_of({"out": str(args.out)} | metrics, indent=1))
    elif not args.quiet:
        print(printable(summary(args.out, metrics, lang), keep="\n"))
    return 0


def failed(out: Path, error: OSError, place: Workplace | None) -> UserError:
    """A sentence for what the system said during the run, such as a full disk."""
    why = ": ".join(filter(None, [str(error.filename or ""), error.strerror or str(error)]))
    if place and place.kept():
        return UserError(f"{why}; {out} holds the run up to step {place.saved():,}: mend this, then go on by --resume",
                         f"{why}；{out} 里保存到第 {place.saved():,} 步：解决之后用 --resume 继续")
    return UserError(f"{why}; nothing was written: mend this and start again", f"{why}；什么也没有写：解决之后请重新开始")


def stopped(command: str, args: argparse.Namespace, lang: str, place: Workplace | None, about: Mapping[str, str]) -> int:
    """Say what an interrupted run has left and how to go on; returns 130."""
    step = place.saved() if place else 0
    again = shlex.join(["bertcourse", command, "--out", str(args.out), "--resume"])
    if place and place.kept():
        en, zh = f"stopped at step {step:,}; to go on: {again}", f"停在第 {step:,} 步；继续：{again}"
    else:
        en, zh = "stopped before training began: nothing was written", "训练开始前就停下了：什么也没有写"
    if args.json:
        print(json.dumps({"out": str(args.out), **about, "finished": False, "step": step}))
    print(f"bertcourse: {printable(zh if lang == 'zh' else en)}", file=sys.stderr)
    return 130
