"""Options of jobs: what each may be, and the names that a command line and a function call share."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.rules import Choice, Real, Refused, Rule, Whole, as_whole


class Written(Rule):
    """What a function call may also give as the text of a command line: a list, or a mapping."""

    def check(self, value: Any) -> Any:
        """The value of a function call as a job stores it; a text is read. Raises `Refused`."""
        return self.read(value) if isinstance(value, str) else super().check(value)


class Or(Rule):
    """A word such as "auto", or what another rule allows."""

    def __init__(self, word: str, rule: Rule) -> None:
        self.word, self.rule = word, rule
        super().__init__(f"{rule.en}, or {word}", f"{rule.zh}，或 {word}")

    def parse(self, text: str) -> Any:
        """The word, or the other rule's value."""
        return text if text == self.word else self.rule.parse(text)

    def allows(self, value: Any) -> bool:
        """Is it the word, or allowed by the other rule?"""
        return value == self.word if isinstance(value, str) else self.rule.allows(value)

    def convert(self, value: Any) -> Any:
        """The word as it is, any other value as the other rule converts it."""
        return value if isinstance(value, str) else self.rule.convert(value)


class Columns(Written):
    """`sentence=review,label=stars`, or a mapping: the task's name for a column, and the file's (or the column's number, from 1)."""

    def __init__(self) -> None:
        super().__init__("like sentence=review,label=stars, each name once", " sentence=review,label=stars 的形式，每个名字一次")

    def parse(self, text: str) -> dict[str, str]:
        """The mapping."""
        pairs = [part.partition("=") for part in text.split(",")]
        found = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
        if len(found) < len(pairs):
            raise ValueError(text)
        return found

    def allows(self, value: Any) -> bool:
        """Are all names texts with something in them?"""
        return isinstance(value, Mapping) and all(isinstance(part, str) and part for pair in value.items() for part in pair)

    def convert(self, value: Any) -> dict[str, str]:
        """As a dict."""
        return dict(value)


class Labels(Written):
    """`bad,good`, a JSON list, or a list of names."""

    def __init__(self) -> None:
        super().__init__("like bad,good, or a JSON list of strings, each name once", " bad,good 的形式，或 JSON 字符串列表，每个名字一次")

    def parse(self, text: str) -> list[str]:
        """The names."""
        return json.loads(text) if text.lstrip().startswith("[") else [part.strip() for part in text.split(",")]

    def allows(self, value: Any) -> bool:
        """Are they two names at least, all different?"""
        names = [name for name in value if isinstance(name, str) and name] if isinstance(value, (list, tuple)) else []
        return len(names) > 1 and len(names) == len(value) == len(set(names))

    def convert(self, value: Any) -> list[str]:
        """As a list."""
        return list(value)


class Layers(Written):
    """`2,4,6`, `none`, or a list of numbers."""

    def __init__(self) -> None:
        super().__init__("like 2,4,6, counted from 1, or none", " 2,4,6 的形式（从 1 数起），或 none")

    def parse(self, text: str) -> str | list[int]:
        """The numbers."""
        return text if text == "none" else [int(part) for part in text.split(",")]

    def allows(self, value: Any) -> bool:
        """Is it "none", or are they numbers from 1 on?"""
        return value == "none" if isinstance(value, str) else len(value) > 0 and all(as_whole(one) > 0 for one in value)

    def convert(self, value: Any) -> str | list[int]:
        """As a list of Python's own numbers, or "none"."""
        return value if isinstance(value, str) else list(map(as_whole, value))


class Numbers(Written):
    """`16,32,128`, or a list of numbers."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"like 1,8, each once, from 1 to {most}", f" 1,8 的形式，每个一次，从 1 到 {most}")

    def parse(self, text: str) -> list[int]:
        """The numbers."""
        return [int(part) for part in text.split(",")]

    def allows(self, value: Any) -> bool:
        """Are they different whole numbers in the range?"""
        return len(value) > 0 and all(1 <= as_whole(one) <= self.most for one in value) and len(set(value)) == len(value)

    def convert(self, value: Any) -> list[int]:
        """As a list of Python's own numbers."""
        return list(map(as_whole, value))


class Words(Written):
    """`ort,openvino`, or a list of words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        super().__init__(f"some of {', '.join(words)}", f" {'、'.join(words)} 中的几个")

    def parse(self, text: str) -> list[str]:
        """The words, each once."""
        return list(dict.fromkeys(text.split(",")))

    def allows(self, value: Any) -> bool:
        """Are all of them known?"""
        return len(value) > 0 and set(value) <= set(self.words)

    def convert(self, value: Any) -> list[str]:
        """As a list."""
        return list(value)


def option(rule: Rule | None = None, default: Any = None) -> Any:
    """A field of `Options`; None is always allowed, and means "not given"."""
    return field(default=default, metadata={"rule": rule})


@dataclass(kw_only=True)
class Options:
    """Options of a job: a field each, None where nothing was asked for. `UserError` for a value that a rule refuses."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, rule = getattr(self, one.name), one.metadata.get("rule")
            if one.type == "bool" and not isinstance(value, bool):
                raise UserError(f"{flag_of(one.name)} must be True or False, not {value!r}", f"{flag_of(one.name)} 应为 True 或 False，不能是 {value!r}")
            if rule is None or value is None:
                continue
            try:
                setattr(self, one.name, rule.check(value))
            except Refused as error:
                flag = flag_of(one.name)
                raise UserError(f"{flag} {error.en}", f"{flag} {error.zh}") from None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Any:
        """Those of the values that are options of this job."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})

    def given(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of the named options that are set."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def require(self, command: str, names: Sequence[str]) -> None:
        """Raises `UserError` unless all of these options are set."""
        absent = [flag_of(name) for name in names if getattr(self, name) is None]
        if absent:
            raise UserError(f"{', '.join(absent)} must be given: see `bertcourse {command} --help`",
                            f"缺少 {'、'.join(absent)}：请看 `bertcourse {command} --help`")


def flag_of(name: str) -> str:
    """`batch_size` → `--batch-size`; the letters n, p and k are short options."""
    return f"-{name}" if len(name) == 1 else "--" + name.replace("_", "-")


def rules(kind: type[Options]) -> dict[str, Rule | None]:
    """The rule of each option."""
    return {one.name: one.metadata.get("rule") for one in dataclasses.fields(kind)}


def as_path(value: Any, name: str = "out") -> Path | None:
    """A path, with `~` as the home folder. Raises `UserError` for what is none; `name`: the option."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise UserError(f"{flag_of(name)} must be the name of a file or folder, not {value!r}", f"{flag_of(name)} 应为文件或文件夹的名称，不能是 {value!r}")
    return Path(value).expanduser()


def as_model(value: Any, name: str = "model") -> str | None:
    """The name or folder of a model. Raises `UserError` for anything else, such as a model that is loaded; `name`: the option."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UserError(f"{flag_of(name)} must be a model's folder or name, not {type(value).__name__}",
                    f"{flag_of(name)} 应为模型的文件夹或名称，不能是 {type(value).__name__}")


def command_line(command: str, options: Options, shown: Mapping[str, Any], left_out: Sequence[str] = ("resume",)) -> str:
    """The command as a user would type it, without the folders of this machine; `shown`: what is written of some options."""
    from bertcourse.models.checkpoint import folder_name
    words = ["bertcourse", command]
    own = type(options).__annotations__  # before what it has in common with other jobs
    for name in (*own, *(one.name for one in fields(options) if one.name not in own)):
        value = shown.get(name, getattr(options, name))
        if name in left_out or value is None or value is False:
            continue
        values = value if isinstance(value, list) and value and isinstance(value[0], os.PathLike) else [value]
        words.append(flag_of(name))
        words += [] if value is True else [_as_text(part, folder_name) for part in values]
    return shlex.join(words)


def _as_text(value: Any, folder_name: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, os.PathLike):
        return folder_name(value)
    if isinstance(value, Mapping):
        return ",".join(f"{ours}={theirs}" for ours, theirs in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


# --- rules that several jobs share --------------------------------------------------------------------------------

SEED = Whole(0)
COUNT = Whole(1)
SHARE = Real(0, 1)
ABOVE = Real(0, above=True)
FORMATS = Choice("tsv", "csv", "json", "conll", "squad")
TEXT_FORMATS = Choice(*FORMATS.words, "text")
LANGUAGE = Choice("en", "zh", "auto")
PRECISION = Choice("no", "bf16", "auto")


@dataclass(kw_only=True)
class FileOptions(Options):
    """How data files are read."""

    columns: dict[str, str] | None = option(Columns())
    format: str | None = option(FORMATS)
    encoding: str | None = option(Rule("the name of an encoding", "编码的名称"))


@dataclass(kw_only=True)
class TrainingOptions(Options):
    """How long and how fast a model is trained."""

    epochs: int | None = option(COUNT)
    steps: int | None = option(COUNT)
    lr: float | str | None = option(Or("auto", ABOVE))
    batch_size: int | None = option(COUNT)
    warmup: float | None = option(Real(0))
    weight_decay: float | None = option(Real(0))
    patience: int | None = option(COUNT)
    seed: int | None = option(SEED)
    precision: str | None = option(PRECISION)
