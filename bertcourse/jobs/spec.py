"""What a run was asked for: kept in `run.json`, so that `--resume` needs no other option, and compared when it is given one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from bertcourse.base.atomic import file_digest
from bertcourse.base.errors import UserError
from bertcourse.base.json_files import read_json, write_json
from bertcourse.jobs.data import describe_file
from bertcourse.jobs.folder import SPEC, WORK
from bertcourse.jobs.options import flag_of
from bertcourse.models.checkpoint import model_name


@dataclass(kw_only=True)
class Spec:
    """What is asked for, with defaults filled in."""

    command: str  # as a user would type it
    settings: dict[str, Any]
    paths: dict[str, str] = field(default_factory=dict)  # option: absolute path
    files: list[dict[str, Any]] = field(default_factory=list)  # option, name, bytes, sha256 of each

    def write(self, folder: Path) -> None:
        """Into `run.json`, whole or not at all."""
        write_json(folder / SPEC, asdict(self))

    def add_files(self, files: Mapping[str, Path]) -> Self:
        """Record where the files are and what they hold."""
        self.paths |= {option: str(file.resolve()) for option, file in files.items()}
        self.files += [describe_file(option, file) for option, file in files.items()]
        return self

    def keep_rows(self, folder: Path, sources: Mapping[str, Any]) -> None:
        """Move files of rows that were in memory into the run's folder, where `resume` finds them. sources: as they were given."""
        for option, source in sources.items():
            if option in self.paths and source is not None and not isinstance(source, (str, os.PathLike)):
                kept = folder / "rows" / f"{option}.jsonl"
                kept.parent.mkdir(exist_ok=True)
                shutil.copyfile(self.paths[option], kept)
                self.paths[option] = str(kept.resolve())

    @classmethod
    def read(cls, out: Path, settings: Iterable[str]) -> Self:
        """What an unfinished run was asked for. Raises `UserError`.

        settings: the names that there must be.
        """
        was = read_json(out / WORK / SPEC)
        if was.keys() != {one.name for one in fields(cls)} or not isinstance(was["settings"], dict) or was["settings"].keys() != set(settings):
            raise unknown_run(out)
        return cls(**was)

    def check_unchanged(self, out: Path) -> None:
        """Raises `UserError` if a file is no longer what the run in `out` began with."""
        for file in self.files:
            path = Path(self.paths[file["option"]])
            if not path.is_file() or file_digest(path) != file["sha256"]:
                raise other_file(out, path.name)


def unknown_run(out: Path) -> UserError:
    """The sentence for a `run.json` that cannot be used: killed before it was written, or of another version of the command."""
    return UserError(f"{out / WORK} does not say what the run was: remove it and start again",
                     f"{out / WORK} 没有记下那次训练是什么：请删除后重新开始")


def other_file(out: Path, name: str) -> UserError:
    """A sentence for a file that is not what it was."""
    return UserError(f"{name} is not the file of the run in {out}: put that back, or choose another folder with --out",
                     f"{name} 与 {out} 里的训练所用的文件不同：请放回原来的文件，或用 --out 换一个文件夹")


def other_setting(out: Path, name: str, old: Any, new: Any) -> UserError:
    """A sentence for an option that is not what it was."""
    return UserError(f"the run in {out} has another {name} ({old}, not {new}): leave the option out, or choose another folder",
                     f"{out} 里的训练用的是另一个 {name}（{old}，不是 {new}）：请去掉这个选项，或换一个文件夹")


def check_same(out: Path, changed: Iterable[tuple[str, Any, Any]], files: Mapping[str, Path], known: Sequence[Mapping[str, Any]]) -> None:
    """Raises `UserError` for an option (name, what it was, what it is) or a file that is not that of the run in `out`."""
    for name, old, new in changed:
        if old != new:
            raise other_setting(out, flag_of(name), old, new)
    digests = {file["option"]: file["sha256"] for file in known}
    for option, file in files.items():
        if file_digest(file) != digests.get(option):
            raise other_file(out, file.name)


def comparable(was: Any, now: Any) -> tuple[Any, Any]:
    """Two models' names; those of folders without their place where only one has it, as in the metrics."""
    if isinstance(was, str) and isinstance(now, str) and not Path(was).is_absolute():
        return model_name(was), model_name(now)
    return was, now


def filled(options: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings: what the options say, else the defaults."""
    return dict(defaults) | options.given(list(defaults))


def check_one_process(command: str) -> None:
    """Raises `UserError` where several processes were launched for a job that works in one."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError(f"bertcourse {command} runs in one process: start it without a launcher",
                        f"bertcourse {command} 只用一个进程：请不要用启动器运行")


def check_seed(seed: int | None) -> None:
    """Raises `UserError` for a seed that NumPy does not take."""
    if seed is not None and seed >= 2**32:
        raise UserError(f"--seed must be below 2^32, not {seed}", f"--seed 应小于 2^32，不能是 {seed}")
