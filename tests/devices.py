"""A second device on every machine, to see that code works where a model is on a GPU.

Its tensors lie on the CPU, but say that they are on "meta", and an operation that mixes them with the CPU's is refused. What CUDA
allows is allowed: a number of the CPU (a tensor without dimensions), an index of the CPU, a copy from one device to the other. What
PyTorch itself knows of "meta" is in the way of `torch.tensor(numbers, device=OTHER)`: it would leave out the numbers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

OTHER = torch.device("meta")
MIXED = (torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class There(Tensor):
    """A tensor of the other device. `inner`: its numbers."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=OTHER)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_with_tensors(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(key), value)

    def tolist(self) -> Any:  # PyTorch's refuses classes of one's own
        """The numbers."""
        return self.inner.tolist()


def _with_tensors(key: Any) -> Any:
    """An index with tensors for lists, which PyTorch would turn into tensors of "meta"."""
    if isinstance(key, tuple):
        return tuple(map(_with_tensors, key))
    return torch.tensor(list(key)) if isinstance(key, (list, range)) else key


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """An operation: its numbers by the CPU, its result on the device of its tensors, or on the one that it names."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    if there and func not in MIXED and any(tensor.ndim and not isinstance(tensor, There) for tensor in tensors):
        raise RuntimeError(f"{func}: tensors on two devices")
    named = kwargs.get("device")
    inside = tree_map(lambda leaf: leaf.inner if isinstance(leaf, There) else leaf, (args, kwargs))
    result = func(*inside[0], **inside[1] | ({} if named is None else {"device": "cpu"}))
    if func._schema.is_mutable:
        return args[0]
    is_there = bool(there) if named is None else torch.device(named) == OTHER
    return tree_map(lambda leaf: There(leaf) if is_there and isinstance(leaf, Tensor) else leaf, result)


class OtherDevice(TorchDispatchMode):
    """A block in which the other device can be used: `.to(OTHER)`, `device=OTHER`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


def move(model: nn.Module) -> nn.Module:
    """Put a model on the other device, for inference; in a block of `OtherDevice`."""
    moved: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                moved.setdefault(id(weight), nn.Parameter(There(weight.detach()), requires_grad=False))
                module._parameters[name] = moved[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else There(buffer)
    return model
