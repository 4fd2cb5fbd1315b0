"""A stand-in for a GPU: tensors that say they lie on another device, and that refuse what a GPU would refuse.

Their values are kept on the CPU, so everything is computed for real. An operation on tensors of both devices fails, and so does `numpy()`
of one that is not on the CPU. What PyTorch lets through on a GPU passes here, too: copies from one device to the other, indices on the CPU,
and single numbers. One thing is different: a model that moves gets new parameters, where a GPU leaves the old ones in place.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("lazy")  # a name that PyTorch knows, with which nothing else is done here
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class Remote(Tensor):
    "A tensor on the other device."

    inner: Tensor  # its values, on the CPU
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Remote":
        made = Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE)
        made.inner = inner
        return made

    def tolist(self) -> Any:
        "PyTorch copies to the CPU for this, but not for a class of ours."
        return self.inner.tolist()

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_with_tensors(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(key), value)

    def __repr__(self) -> str:
        return f"Remote({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def _with_tensors(key: Any) -> Any:
    "An index with tensors of the CPU for lists: PyTorch would make theirs on the other device, below the dispatcher."
    if isinstance(key, tuple):
        return tuple(map(_with_tensors, key))
    return torch.tensor(list(key)) if isinstance(key, (list, range)) else key


class _Watching(TorchDispatchMode):
    "Makes tensors on the other device where one is asked for."

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


class _Lists(TorchFunctionMode):
    "`torch.tensor` of a list makes its tensor below the dispatcher: here it goes by way of the CPU."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and kwargs.get("device") == DEVICE:
            return function(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


def dispatch(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    "Run an operation on the CPU; what it gives lies where its inputs do, or where it is told."
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    remote = [value for value in tensors if isinstance(value, Remote)]
    check_devices(function, tensors, remote)
    place = kwargs.get("device")
    goes_out = place == DEVICE if place is not None else bool(remote)
    if goes_out and place is not None or (remote and place is not None):
        kwargs = kwargs | {"device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map(lambda value: value.inner if isinstance(value, Remote) else value, (args, kwargs))
    found = function(*inner_args, **inner_kwargs)
    known = {id(value.inner): value for value in remote}  # an operation in place gives its own input

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not goes_out:
            return value
        return known[id(value)] if id(value) in known else Remote(value)

    return tree_map(wrapped, found)


def check_devices(function: Any, tensors: list[Tensor], remote: list[Tensor]) -> None:
    "Raises `RuntimeError`, as PyTorch does, for an operation on tensors of both devices."
    if not remote or function in COPIES:
        return
    here = [value for value in tensors if not isinstance(value, Remote) and value.dim()]
    if here and not (function in INDEXING and isinstance(tensors[0], Remote)):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu ({function})")


@contextlib.contextmanager
def on_other_device(*models: nn.Module) -> Iterator[None]:
    "Within the block there is another device, and the models are on it; afterwards they are on the CPU again."
    with _Watching(), _Lists():
        for model in models:
            model.to(DEVICE)
        try:
            yield
        finally:
            for model in models:
                model.to("cpu")
