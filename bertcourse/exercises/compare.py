"""Compare two values, and show one: what a check says of an answer's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np

from bertcourse.base.bilingual import Text
from bertcourse.base.display import printable

SHOWN = 36  # numbers of an array that are printed in full
WIDEST = 300  # characters of one value


# --- arrays -------------------------------------------------------------------------------------------------------

def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _is_number(value: Any) -> bool:
    return isinstance(value, (Number, np.number, np.bool_))


def _all_numbers(value: Any) -> bool:
    """A number, or lists of numbers all the way down."""
    if isinstance(value, (list, tuple)):
        return all(map(_all_numbers, value))
    return _is_number(value) or _is_array(value)


def as_array(value: Any) -> np.ndarray | None:
    """A tensor, an array, a number or nested lists of numbers as an array; None for anything else."""
    if _is_array(value):
        if isinstance(value, np.ndarray):
            return value if value.dtype.kind in "biufc" else None
        value = value.detach().cpu()
        value = (value.to_dense() if str(value.layout) != "torch.strided" else value).resolve_conj().resolve_neg()
        return (value if value.dtype.is_complex or not value.dtype.is_floating_point else value.double()).numpy()
    if _is_number(value):
        return np.asarray(value)
    if isinstance(value, (list, tuple)) and value and _all_numbers(value):
        parts = [as_array(one) for one in value]
        shapes = {None if part is None else part.shape for part in parts}
        return np.stack(parts) if len(shapes) == 1 and None not in shapes else None
    return None


def _close(expected: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    """Where two arrays of one shape agree."""
    if expected.dtype.kind in "biu":
        return expected == got
    if "c" in (got.dtype.kind, expected.dtype.kind):  # a conversion would drop the imaginary part
        return np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    with np.errstate(invalid="ignore"):
        return np.isclose(got.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True)


def _array_difference(expected: np.ndarray, got: np.ndarray, tolerance: float) -> Text | None:
    if expected.shape != got.shape and not (expected.size == got.size == 1 and expected.ndim == 0):
        return Text(f"形状应为 {expected.shape}，得到的是 {got.shape}", f"the shape should be {expected.shape}, and is {got.shape}")
    agree = _close(expected.reshape(got.shape), got, tolerance)
    if agree.all():
        return None
    wrong = int((~agree).sum())
    if agree.size == 1:
        return Text("数值不对", "the number is wrong")
    first = tuple(map(int, np.argwhere(~agree)[0]))
    place = first[0] if len(first) == 1 else first
    should, came = show_number(expected[first]), show_number(got[first])
    return Text(f"{agree.size} 个数里有 {wrong} 个不对；第一个在位置 {place}：应为 {should}，得到 {came}",
                f"{wrong} of {agree.size} numbers {'is' if wrong == 1 else 'are'} wrong; the first is at {place}: it should be {should}, and is {came}")


# --- values -------------------------------------------------------------------------------------------------------

def _as_code(key: Any) -> str:
    """A key in a sentence, where it may hold anything: as code, so that nothing in it is taken for markup."""
    return f"`{printable(repr(key)).replace('`', chr(39))[:60]}`"


def _dict_difference(expected: Mapping[Any, Any], got: Any, tolerance: float, path: str) -> Text | None:
    if not isinstance(got, Mapping):
        return _at(path, kind_difference(expected, got))
    missing, extra = [k for k in expected if k not in got], [k for k in got if k not in expected]
    if missing or extra:
        names = ", ".join(map(_as_code, (missing or extra)[:5]))
        return _at(path, Text(f"缺少键 {names}", f"the keys {names} are missing") if missing else
                   Text(f"多出键 {names}", f"there are keys too many: {names}"))
    found = (difference(expected[key], got[key], tolerance, f"{path}[{key!r}]") for key in expected)
    return next(filter(None, found), None)


def _list_difference(expected: Sequence[Any], got: Any, tolerance: float, path: str) -> Text | None:
    if _is_array(got):
        got = got.tolist()
    if not isinstance(got, (list, tuple)):
        return _at(path, kind_difference(expected, got))
    if len(expected) != len(got):
        return _at(path, Text(f"应有 {len(expected)} 项，得到 {len(got)} 项", f"there should be {len(expected)} items, and there are {len(got)}"))
    found = (difference(one, other, tolerance, f"{path}[{i}]") for i, (one, other) in enumerate(zip(expected, got)))
    return next(filter(None, found), None)


def _at(path: str, found: Text | None) -> Text | None:
    """The sentence with the place in a nested value, such as [0]["a"]."""
    return Text(f"结果的 {path}：{found.zh}", f"at {path} of the result: {found.en}") if found and path else found


def kind_difference(expected: Any, got: Any) -> Text:
    """That another sort of value came than expected."""
    should, came = kind(expected), kind(got)
    return Text(f"应当是{should.zh}，得到的是{came.zh}", f"it should be {should.en}, and is {came.en}")


def difference(expected: Any, got: Any, tolerance: float, path: str = "") -> Text | None:
    """What is wrong with a value, or None: lists, arrays and tensors of any type may stand for each other.

    `tolerance` is absolute and relative, and counts where floating-point numbers are expected; whole numbers are exact.
    """
    if isinstance(expected, Mapping):
        return _dict_difference(expected, got, tolerance, path)
    if isinstance(expected, str) or expected is None:
        if type(expected) is not type(got) and not isinstance(got, str):
            return _at(path, kind_difference(expected, got))
        return None if expected == got else _at(path, Text("文本不对", "the text is wrong"))
    if isinstance(expected, (set, frozenset)):
        same = isinstance(got, (set, frozenset, list, tuple)) and expected == set(got)
        return None if same else _at(path, Text("集合不对", "the set is wrong"))
    wanted, is_list = as_array(expected), isinstance(expected, (list, tuple))
    if wanted is None and not is_list:
        return None if expected == got else _at(path, Text("值不对", "the value is wrong"))
    came = as_array(got)
    if wanted is None or came is None:
        return _list_difference(expected, got, tolerance, path) if is_list else _at(path, kind_difference(expected, got))
    return _at(path, _array_difference(wanted, came, tolerance))


def contains_floats(value: Any) -> bool:
    """Are there floating-point numbers in a value, so that the tolerance counts?"""
    if isinstance(value, Mapping):
        return any(map(contains_floats, value.values()))
    array = as_array(value)
    if array is not None:
        return array.dtype.kind == "f"
    return isinstance(value, (list, tuple)) and any(map(contains_floats, value))


# --- showing ------------------------------------------------------------------------------------------------------

KINDS = (  # the first that fits
    (bool, Text("真假值", "a truth value")), (int, Text("整数", "a whole number")), (float, Text("数", "a number")), (str, Text("文本", "a text")),
    (Mapping, Text("字典", "a dictionary")), ((set, frozenset), Text("集合", "a set")),
)


def kind(value: Any) -> Text:
    """What sort of value it is, in words: `a tensor of shape (2, 3)`."""
    if value is None:
        return Text(" None", "None")
    if _is_array(value):
        shape, (zh, en) = tuple(value.shape), ("数组", "an array") if isinstance(value, np.ndarray) else ("张量", "a tensor")
        return Text(f"形状为 {shape} 的{zh}", f"{en} of shape {shape}")
    if isinstance(value, (list, tuple)):
        zh, en = ("列表", "a list") if isinstance(value, list) else ("元组", "a tuple")
        return Text(f"有 {len(value)} 项的{zh}", f"{en} of {len(value)} item{'' if len(value) == 1 else 's'}")
    if found := next((text for type_, text in KINDS if isinstance(value, type_)), None):
        return found
    return Text(f" {type(value).__name__}", type(value).__name__)


def show_number(value: Any) -> str:
    """A number with at most five significant digits."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _show_array(value: Any) -> str:
    array = as_array(value)
    if array is None:
        return kind(value)
    with np.printoptions(precision=4, suppress=True, threshold=SHOWN, edgeitems=2, linewidth=90):
        text = np.array2string(array, separator=", ")
    return f"{array.shape} {text}" if _is_array(value) and array.ndim else text


def show(value: Any) -> str:
    """A value as a learner reads it: numbers with four digits, arrays with their shape, long ones shortened."""
    if _is_array(value):
        text = _show_array(value)
    elif isinstance(value, (list, tuple)) and len(value) > 3 and _all_numbers(value) and as_array(value) is not None:
        text = _show_array(value)
    elif isinstance(value, (list, tuple)):
        inner = ", ".join(show(one) for one in value[:12]) + (", …" if len(value) > 12 else "")
        text = f"[{inner}]" if isinstance(value, list) else f"({inner})"
    elif isinstance(value, Mapping):
        inner = ", ".join(f"{key!r}: {show(one)}" for key, one in list(value.items())[:12])
        text = "{" + inner + (", …" if len(value) > 12 else "") + "}"
    elif isinstance(value, float):
        text = show_number(value)
    elif callable(value) and hasattr(value, "__name__"):
        text = f"<function {value.__name__}>"  # without its address
    else:
        text = repr(value)
    return printable(text if len(text) <= WIDEST else text[:WIDEST] + " …", keep="\n")
