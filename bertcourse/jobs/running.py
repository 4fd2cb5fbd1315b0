"""A training as a job: signals, errors of the system and of the libraries, and what is left when it stops."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import read_json
from bertcourse.base.processes import end_gloo_at_exit
from bertcourse.jobs.folder import METRICS, Diverged, RunFolder
from bertcourse.jobs.reporter import in_notebook, is_main_process
from bertcourse.jobs.stopping import Stopped, StopRequest

SAVED_EVERY = 1_000  # steps, at most
UNWRITTEN = re.compile(r"os error (\d+)|inline_container|iostream|PytorchStreamWriter")  # safetensors; torch
# What PyTorch's allocators say: of the CPU, of other devices, and of CUDA's libraries for matrix products.
UNALLOCATED = re.compile(r"DefaultCPUAllocator|can't allocate memory|out of memory|_STATUS_ALLOC_FAILED", re.IGNORECASE)


def save_interval(steps: int) -> int:
    """Steps between checkpoints."""
    return min(SAVED_EVERY, max(1, steps // 20))


class Run:
    """One call of a job that trains: the request to stop, and the folder once there is one."""

    def __init__(self, command: str, out: Path, stop: StopRequest) -> None:
        self.command, self.out, self.stop = command, out, stop
        self.folder: RunFolder | None = None
        self.threads: int | None = None  # PyTorch's, before the job set their number

    def load_libraries(self) -> None:
        """Import PyTorch, transformers and what comes with them; Ctrl-C waits for the end of it."""
        with self.stop.held():
            import torch
            import transformers.models.bert.modeling_bert  # noqa: F401

            import bertcourse.files
            import bertcourse.profiles
            import bertcourse.tasks
            import bertcourse.training  # noqa: F401
        self.threads = torch.get_num_threads()

    def restore_threads(self) -> None:
        """Give PyTorch the threads that it had: whoever called the job goes on in the same process."""
        if self.threads is not None:
            import torch
            torch.set_num_threads(self.threads)

    @contextlib.contextmanager
    def open_folder(self, stages: bool = False) -> Iterator[RunFolder]:
        """The folder to work in. `stages`: the training has several, each with checkpoints of its own."""
        wait_for_all()  # until all have seen the folder as it was
        with RunFolder(self.out, self.stop, stages) as self.folder, disk_errors():
            yield self.folder

    def stopped(self) -> Stopped:
        """What to raise when the run was interrupted."""
        kept = self.folder is not None and self.folder.is_kept()
        return Stopped(self.command, self.out, self.folder.saved_step() if self.folder else 0, kept)


def run_training(command: str, out: Path, zh: bool, work: Callable[[Run], dict[str, Any] | None]) -> dict[str, Any]:
    """Let a job train and return its metrics. Raises `Stopped` when it was interrupted, `UserError` for what a user can fix.

    work: takes the `Run`; returns the metrics, or None where the training stopped before its last step.
    """
    with StopRequest(zh) as stop:
        run = Run(command, out, stop)
        try:
            metrics = work(run)
        except KeyboardInterrupt:
            raise run.stopped() from None
        except OSError as error:
            raise failed(run, error) from None
        finally:
            run.restore_threads()
    if metrics is None:
        raise run.stopped()
    wait_for_all()  # until the main process has moved the model out
    return metrics if is_main_process() else read_json(out / METRICS)


def wait_for_all() -> None:
    """Let the processes of a training wait for each other; returns at once where there is one. Raises `UserError`."""
    launched = os.environ.get("WORLD_SIZE", "1")
    if launched in ("", "1"):
        return
    from datetime import timedelta

    from accelerate import Accelerator, InitProcessGroupKwargs  # PartialState alone does not heed ACCELERATE_USE_CPU
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))])  # there may be much text to read
    end_gloo_at_exit()
    if str(accelerator.num_processes) != launched:
        raise UserError(f"{launched} processes were launched, but do not know of each other: without a GPU set ACCELERATE_USE_CPU=1",
                        f"启动了 {launched} 个进程，但它们互不相识：没有 GPU 时请设 ACCELERATE_USE_CPU=1")
    accelerator.wait_for_everyone()


def failed(run: Run, error: OSError) -> UserError:
    """A sentence for what the system said during the run, such as a full disk."""
    why = ": ".join(filter(None, [str(error.filename or ""), error.strerror or str(error)]))
    if run.folder and run.folder.is_kept():
        step = run.folder.saved_step()
        return UserError(f"{why}; {run.out} holds the run up to step {step:,}: fix this, then go on by --resume",
                         f"{why}；{run.out} 里保存到第 {step:,} 步：解决之后用 --resume 继续")
    return UserError(f"{why}; nothing was written: fix this and start again", f"{why}；什么也没有写：解决之后请重新开始")


def is_memory_error(error: BaseException) -> bool:
    """Was there too little memory? PyTorch says so by a type of its own on a GPU, elsewhere by the text of a `RuntimeError`."""
    import torch
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or UNALLOCATED.search(str(error)) is not None


@contextlib.contextmanager
def training_errors(lr: float, best: Path, stop: StopRequest) -> Iterator[None]:
    """Ctrl-C waits for a checkpoint, stdout is kept for results, and what a user can fix becomes a `UserError`."""
    from bertcourse.training import NonFiniteLoss
    stop.gentle = True
    try:
        with contextlib.nullcontext() if in_notebook() else contextlib.redirect_stdout(sys.stderr):
            yield
    except NonFiniteLoss as error:
        raise diverged(str(error).split(",")[0], lr, best) from None
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise UserError("there is not enough memory: choose a smaller --batch-size or --max-length",
                        "内存不够：请调小 --batch-size 或 --max-length") from error
    except ValueError as error:
        if "cannot resume" not in str(error):
            raise
        text = str(error).splitlines()[0]
        raise UserError(text, f"无法继续这次训练，请换一个文件夹（{text}）") from None
    finally:
        stop.gentle = False


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
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


def diverged(text: str, lr: float, best: Path) -> Diverged:
    """A sentence for a loss that is no number; it tells of the best model before, which is worth keeping."""
    if best.is_dir():
        return Diverged(f"training diverged ({text}): start anew in another folder, with a learning rate below {lr:g} (--lr); "
                        f"the best model before lies in {best}",
                        f"训练发散了（{text}）：请用小于 {lr:g} 的学习率（--lr）在另一个文件夹里重新开始；此前最好的模型在 {best}")
    return Diverged(f"training diverged ({text}): start anew with a learning rate below {lr:g} (--lr)",
                    f"训练发散了（{text}）：请用小于 {lr:g} 的学习率（--lr）重新开始")
