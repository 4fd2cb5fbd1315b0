"""Models that answer: checkpoints and exported models as folders, opened, described, saved and asked.

`load` opens either of them, or a checkpoint of the hub; all give a `Predictor`. Importing this package imports no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertcourse.models.predictor import Predictor

__all__ = ["load"]


def load(
    name: str | os.PathLike[str],  # folder of a checkpoint or of an exported model, or an owner/name of the hub
    *,
    labels: list[str] | None = None,  # names for the model's labels, in their order
    runtime: str | None = None,  # of an exported model: "ort" (default) or "openvino"
    threads: int | None = None,  # of an exported model (default: one for each physical core)
) -> Predictor:
    """Open a fine-tuned model where it runs fastest: PyTorch on a GPU if there is one, an exported model in its runtime.

    PyTorch keeps the number of threads that it has: on a CPU, `torch.set_num_threads(1)` suits a small model (up to 256 wide).
    Raises `bertcourse.base.errors.UserError` for what cannot be opened, or is not fine-tuned.
    """
    from bertcourse.base.errors import UserError
    from bertcourse.models.kinds import RUNTIMES
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise UserError(f"{name!r} is no model: give its folder, or an owner/name of the hub", f"{name!r} 不是模型：请给出文件夹，或 Hub 上的 owner/name")
    if runtime not in (None, *RUNTIMES):
        raise UserError(f"there is no runtime {runtime!r}: choose {' or '.join(RUNTIMES)}", f"没有 {runtime!r} 这种运行时：请选 {' 或 '.join(RUNTIMES)}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UserError(f"threads must be a whole number from 1 on, not {threads!r}", f"threads 应为不小于 1 的整数，不能是 {threads!r}")
    from bertcourse.models.exported import is_exported, open_exported
    name = os.fspath(name)
    if is_exported(name):
        return open_exported(name, runtime or "ort", threads, labels)
    if runtime:
        raise UserError(f"--runtime is for exported models, {name} is none: leave it out, or run `bertcourse export` first",
                        f"--runtime 用于导出的模型，{name} 不是：请去掉它，或先运行 `bertcourse export`")
    import torch  # seconds

    from bertcourse.models.checkpoint import open_checkpoint
    found = open_checkpoint(name, labels)
    found.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return found


def __getattr__(name: str) -> Any:
    """`Predictor`, imported when it is asked for."""
    if name == "Predictor":
        from bertcourse.models.predictor import Predictor
        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
