"""Values on their way out of the sandbox: JSON with numbers, texts, lists, dictionaries and arrays, and nothing that could run.

A value is a JSON scalar, or a list whose first entry says what it is: `["tuple", [1, 2]]`, `["tensor", "float32", [2, 3], base64]`.
Whoever decodes trusts nothing: sizes, types and depth are looked at, and what an answer's class says of itself counts for nothing.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

DEPTH = 16  # lists in lists
ITEMS = 20_000  # values in one value, those of arrays not counted
ARRAY_BYTES = 8_000_000  # of all arrays of one value
DIGITS = 1_000  # of a whole number
TEXT = 1_000_000  # characters of one text
DTYPES = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")
SEQUENCES = {"list": list, "tuple": tuple, "set": set}
NAME = 60  # characters of a class's name


class Foreign:
    """Stands for a value that cannot be sent: a module, a function, or too large; its class has the name of the value's class."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def foreign(name: str) -> Foreign:
    """A stand-in for a value of a class that is called `name`."""
    return type(name if name.isidentifier() else "object", (Foreign,), {})()


# --- in the sandbox -----------------------------------------------------------------------------------------------

class _Budget:
    def __init__(self) -> None:
        self.items, self.bytes = ITEMS, ARRAY_BYTES

    def take(self, items: int = 1, size: int = 0) -> bool:
        """Is there room for this much more?"""
        self.items, self.bytes = self.items - items, self.bytes - size
        return self.items >= 0 and self.bytes >= 0


def encode(value: Any) -> Any:
    """A value as JSON; what cannot be sent becomes the name of its class. Never raises."""
    try:
        return _encode(value, DEPTH, _Budget())
    except Exception:  # an answer's class may do anything
        return _other(value)


def _other(value: Any) -> list[str]:
    name = type.__getattribute__(type(value), "__name__")
    return ["other", name[:NAME] if type(name) is str else "object"]


def _plain(value: Any, kind: type) -> Any:
    """A number or text of any class as one of Python's own, by the base's methods and not by the class's; `value` itself for the rest."""
    if issubclass(kind, np.generic) and not issubclass(kind, str):
        return complex(value) if issubclass(kind, np.complexfloating) else float(value) if issubclass(kind, np.floating) else value.item()
    for base, convert in ((int, int.__index__), (float, float.__float__), (str, str.__str__)):
        if issubclass(kind, base):
            return convert(value)
    return float(value) if issubclass(kind, (Fraction, Decimal)) else value


def _encode(value: Any, depth: int, budget: _Budget) -> Any:
    if depth == 0 or not budget.take():
        raise OverflowError
    if value is None or type(value) is bool:
        return value
    value = _plain(value, type(value))
    kind = type(value)
    if kind is float or kind is bool:
        return value
    if kind is int:
        return value if value.bit_length() < 3 * DIGITS else ["other", "int"]
    if kind is str:
        return value if len(value) <= TEXT and budget.take(0, len(value)) else ["other", "str"]
    for name, base in (("list", list), ("tuple", tuple), ("set", (set, frozenset))):
        if issubclass(kind, base):
            items = [*list.__iter__(value)] if base is list else [*tuple.__iter__(value)] if base is tuple else [*value]
            return [name, [_encode(one, depth - 1, budget) for one in items]]
    if issubclass(kind, Mapping):
        pairs = dict.items(value) if issubclass(kind, dict) else value.items()
        return ["dict", [[_encode(key, depth - 1, budget), _encode(one, depth - 1, budget)] for key, one in pairs]]
    return _encode_array(value, kind, budget)


def _encode_array(value: Any, kind: type, budget: _Budget) -> list[Any]:
    """A tensor, an array or a number of NumPy."""
    import torch
    name = "array"
    if issubclass(kind, torch.Tensor):
        name, value = "tensor", value.detach().cpu()
        value = (value if value.layout is torch.strided else value.to_dense()).resolve_conj().resolve_neg()
        value = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    elif not issubclass(kind, (np.ndarray, complex)):
        return _other(value)
    array = np.asarray(value)
    if array.dtype.name not in DTYPES or not budget.take(0, array.nbytes):
        return ["other", "Tensor" if name == "tensor" else "ndarray"]
    return [name, array.dtype.name, list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]


# --- outside ------------------------------------------------------------------------------------------------------

def decode(data: Any) -> Any:
    """The value that JSON stands for. Raises `ValueError` for anything that `encode` does not write."""
    return _decode(data, DEPTH, _Budget())


def _decode(data: Any, depth: int, budget: _Budget) -> Any:
    if depth < 0 or not budget.take():
        raise ValueError("too deep or too large")
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        raise ValueError("no value")
    kind, *rest = data
    if kind in SEQUENCES and len(rest) == 1 and isinstance(rest[0], list):
        return _collect(kind, [_decode(one, depth - 1, budget) for one in rest[0]])
    if kind == "dict" and len(rest) == 1 and isinstance(rest[0], list):
        return _dictionary(rest[0], depth, budget)
    if kind in ("array", "tensor") and len(rest) == 3:
        return _decode_array(kind, *rest, budget)
    if kind == "other" and len(rest) == 1 and isinstance(rest[0], str):
        return foreign(rest[0][:NAME])
    raise ValueError("no value")


def _collect(kind: str, values: list[Any]) -> Any:
    """The list, tuple or set of values; a set of what has no hash stays a list."""
    try:
        return SEQUENCES[kind](values)
    except TypeError:
        return values


def _dictionary(pairs: list[Any], depth: int, budget: _Budget) -> dict[Any, Any]:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("no dictionary")
    found = [(_decode(key, depth - 1, budget), _decode(one, depth - 1, budget)) for key, one in pairs]
    try:
        return dict(found)
    except TypeError:
        raise ValueError("a key without a hash") from None


def _decode_array(kind: str, dtype: Any, shape: Any, text: Any, budget: _Budget) -> Any:
    if dtype not in DTYPES or not isinstance(text, str) or not isinstance(shape, list) or len(shape) > 32:
        raise ValueError("no array")
    if not all(type(n) is int and 0 <= n <= ARRAY_BYTES for n in shape) or not budget.take(0, len(text) * 3 // 4 - 2):
        raise ValueError("too large")
    if math.prod(max(n, 1) for n in shape) > ARRAY_BYTES:  # lists in lists of nothing
        raise ValueError("too large")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("no array") from None
    if len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError("no array of this shape")
    if dtype == "bool":  # any other byte than 0 and 1 would be a number that is neither
        raw = bytes(map(bool, raw))
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    if kind == "array":
        return array
    import torch
    return torch.from_numpy(array)
