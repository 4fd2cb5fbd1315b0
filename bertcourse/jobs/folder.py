"""The folder of a training: what it holds, who works in it, and how a finished model gets there.

While a training runs, everything lies in `OUT/unfinished`: `run.json` (what was asked for), `tokenizer`, `training` (history and
checkpoints). When the model is complete its files are moved to OUT, each whole, the metrics last, and `unfinished` goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import read_json
from bertcourse.base.names import check_utf8
from bertcourse.jobs.reporter import is_main_process
from bertcourse.jobs.stopping import StopRequest

WORK, METRICS, SPEC = "unfinished", "metrics.json", "run.json"


class Diverged(UserError):
    """The training has come to nothing, and would again."""


# --- before the run -----------------------------------------------------------------------------------------------

def unwritable(path: Path, error: OSError) -> UserError:
    """A sentence for what the system says of a folder."""
    why = error.strerror or type(error).__name__
    return UserError(f"{path} cannot be written to ({why}): choose another folder with --out",
                     f"{path} 无法写入（{why}）：请用 --out 换一个文件夹")


def check_writable(folder: Path) -> None:
    """Raises `UserError` if nothing can be made in a folder."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable(folder, PermissionError(13, os.strerror(13)))


def check_place(out: Path) -> None:
    """Raises `UserError` if a folder cannot be made there, because of what lies above it."""
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise UserError(f"{above} is a file, no folder can be made in it: choose another --out",
                        f"{above} 是一个文件，里面不能建文件夹：请用 --out 换一个位置")
    check_writable(above)


def check_output_file(out: Path | None, source: str | Path = "-") -> None:
    """Raises `UserError` if a file cannot be written, or would take the place of `source`, the input ("-": standard input, or none)."""
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file with --out", f"{out} 是文件夹：请用 --out 写出文件名")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no regular file: leave --out out and redirect to it", f"{out} 不是普通文件：请去掉 --out，改用重定向")
    if str(source) != "-" and out.exists() and os.path.exists(source) and out.samefile(source):
        raise UserError(f"{out} is the input: choose another file with --out", f"{out} 就是输入文件：请用 --out 换一个")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: make it, or choose another file with --out",
                        f"没有 {folder} 这个文件夹：请先建立，或用 --out 换一个文件")
    check_writable(folder)


def not_empty(out: Path) -> UserError:
    """The sentence for a folder that holds something else."""
    return UserError(f"{out} is not empty: choose another folder with --out", f"{out} 不是空的：请用 --out 换一个文件夹")


def folder_status(out: Path, resume: bool, is_finished: Callable[[Mapping[str, Any]], bool], complete: bool) -> str:
    """What `--out` is: "new", "unfinished" or "finished". Raises `UserError` if it cannot be used as it was asked.

    is_finished: are these the metrics of a run of this command?
    complete: is all given that a new run needs? With --resume and less than that, an unfinished run must be there.
    """
    found = _folder_status(out, resume, is_finished)
    if found == "new" and resume and not complete:  # a slip in --out, most likely
        raise UserError(f"there is no run in {out} to go on with: check --out, or leave --resume out",
                        f"{out} 里没有可以继续的训练：请检查 --out，或去掉 --resume")
    return found


def _folder_status(out: Path, resume: bool, is_finished: Callable[[Mapping[str, Any]], bool]) -> str:
    check_utf8(out.absolute())
    try:
        names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    except OSError as error:
        raise unwritable(out, error) from None
    if out.is_dir() and not names:
        check_writable(out)
        return "new"
    if resume and METRICS in names and is_finished(read_json(out / METRICS)):
        return "finished"  # whatever else lies there: the metrics come last
    if WORK in names:
        if resume:
            return "unfinished"
        raise UserError(f"{out} holds an unfinished run: go on with it by --resume, or choose another folder",
                        f"{out} 里有一次没跑完的训练：请用 --resume 继续，或换一个文件夹")
    if names:
        raise not_empty(out)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} is a file: choose a folder with --out", f"{out} 是一个文件：请用 --out 指定文件夹")
    check_place(out)
    return "new"


# --- during the run -----------------------------------------------------------------------------------------------

class RunFolder:
    """`OUT/unfinished`, for one training at a time. What is of no use is removed again when the run fails.

    Of several processes only the main one makes, locks and clears it.
    """

    def __init__(self, out: Path, stop: StopRequest, stages: bool = False) -> None:
        self.out, self.path, self.stop, self.stages = out, out / WORK, stop, stages
        self.made: list[Path] = []
        self.lock: Any = None
        self.main = is_main_process()

    def __enter__(self) -> RunFolder:
        if not self.main:
            return self
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
            raise unwritable(self.out, error) from None
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
        self.stop.over = True  # what is done now takes moments
        if not self.main:
            return
        if kind is Diverged and not self.best.is_dir():
            self.made = self.made or [self.path]  # to resume it would end in the same
            self._clear()
        elif kind and not self.is_kept():
            self._clear()
        elif self.lock:
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
    def training(self) -> Path:
        """The folder of `training.fit`; where there are several stages each has one in it."""
        return self.path / "training"

    @property
    def best(self) -> Path:
        """The folder of the best model so far."""
        return self.training / "best"

    def is_kept(self) -> bool:
        """Does an earlier call's work lie here, or a checkpoint of this one?"""
        return not self.made or self.saved_step() > 0

    def saved_step(self) -> int:
        """The step of the newest checkpoint, of all stages together; 0 where there is none."""
        steps: dict[Path, int] = {}
        for path in self.path.glob("training/*/checkpoint-*.pt" if self.stages else "training/checkpoint-*.pt"):
            steps[path.parent] = max(steps.get(path.parent, 0), int(path.stem[-8:]))
        return sum(steps.values())

    def finish(self) -> None:
        """Move the finished model out, and remove all else."""
        self.stop.over = True
        if not self.main:
            return
        try:
            for file in sorted((self.path / "model").iterdir(), key=lambda file: file.name == METRICS):  # that one last
                os.replace(file, self.out / file.name)
        finally:
            self.lock.close()
        shutil.rmtree(self.path)


def remove_leftovers(out: Path) -> None:
    """Remove what a run left that was killed while it tidied up."""
    shutil.rmtree(out / WORK, ignore_errors=True)
