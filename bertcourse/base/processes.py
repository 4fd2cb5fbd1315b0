"""Several processes that train together, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import atexit
import gc
from functools import cache


@cache
def end_gloo_at_exit() -> None:
    """When the program ends, leave a process group of gloo (several processes on CPUs) if one was formed.

    Gloo's threads hold tensors of the last reductions. Where Python ends before they have let go, the finished process dies of
    SIGABRT ("terminate called without an active exception", pytorch#179291), and the launcher reports a failed training.
    NCCL's groups (GPUs) are left alone: ending them waits for the other processes, which may have failed.
    """
    atexit.register(end_gloo)


def end_gloo() -> None:
    """Leave the process group if it is one of gloo."""
    from torch import distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        gc.collect()  # a module that still holds the group would keep its threads
        distributed.destroy_process_group()
