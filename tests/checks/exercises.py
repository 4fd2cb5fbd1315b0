"""What every exercise must hold, as functions that tests apply to the course's exercises and to planted faults."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bertcourse.exercises import Exercise
from bertcourse.exercises.checking import Result, code_of, compare, judge, outputs
from bertcourse.exercises.compare import as_array
from bertcourse.exercises.definition import Draw
from bertcourse.exercises.loading import Entry

# --- other forms of a right answer --------------------------------------------------------------------------------


def _map(value: Any, change) -> Any:
    """The value with `change` applied to its tensors and arrays."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(one, change) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_map(one, change) for one in value)
    return value


def _as_numpy(tensor: Any) -> Any:
    return tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else tensor


FORMS = {
    "lists for tensors": lambda value: _map(value, lambda tensor: tensor.tolist()),
    "arrays for tensors": lambda value: _map(value, _as_numpy),
    "float64": lambda value: _map(value, lambda tensor: torch.as_tensor(tensor).double()),
    "a tuple for a list": lambda value: tuple(value) if isinstance(value, list) else value,
    "a list for a tuple": lambda value: list(value) if isinstance(value, tuple) else value,
    "a tensor for numbers": lambda value: torch.as_tensor(value) if type(value) in (int, float) else value,
}


def in_form(function, form: str):
    """The function with its result in another legitimate form."""
    def answer(*arguments):
        return FORMS[form](function(*arguments))
    return answer


# --- mutations ----------------------------------------------------------------------------------------------------

def mutants(exercise: Exercise) -> Iterator[str]:
    """Sources of the reference with one operator, constant or name changed, by mutmut."""
    from mutmut.mutation.file_mutation import create_mutations
    source = inspect.getsource(exercise.reference)
    module, mutations, *_ = create_mutations("reference.py", source)
    for mutation in mutations:
        changed = module.deep_replace(mutation.original_node, mutation.mutated_node).code
        if changed != source:
            yield changed


def survives(exercise: Exercise, source: str, seconds: float = 2.0) -> bool:
    """Does a check take the mutant for a right answer?"""
    namespace = dict(exercise.reference.__globals__)
    try:
        exec(compile(source, "<mutant>", "exec"), namespace)
    except Exception:
        return False
    return judge(exercise, namespace[exercise.name], seconds=seconds).status == "correct"


# --- tolerance ----------------------------------------------------------------------------------------------------

def _numbers(value: Any) -> Iterator[np.ndarray]:
    """The floating-point arrays in a value."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)
    elif (array := as_array(value)) is not None:
        if array.dtype.kind == "f":
            yield array.astype(np.float64)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one)


def _excess(one: Result, other: Result) -> float:
    """The largest difference of two results, in units of max(1, expected); infinite where they are no comparable numbers."""
    left, right = [*_numbers(one.value)], [*_numbers(other.value)]
    if one.error or other.error or not left or [a.shape for a in left] != [a.shape for a in right]:
        return float("inf")
    if any((np.isnan(a) != np.isnan(b)).any() for a, b in zip(left, right)):
        return float("inf")
    with np.errstate(invalid="ignore"):
        return max((float(np.nanmax(np.abs(a - b) / (1 + np.abs(a)))) if a.size else 0.0 for a, b in zip(left, right)), default=float("inf"))


def smallest_mistake(exercise: Exercise, seed: int = 0) -> float:
    """The largest deviation of the mistake that deviates least."""
    cases = list(exercise.cases(Draw(seed)))
    right = [result for _, result in outputs(exercise, exercise.reference, cases)]
    deviations = []
    for mistake in exercise.mistakes:
        wrong = [result for _, result in outputs(exercise, mistake.answer, cases)]
        deviations.append(max(_excess(a, b) for a, b in zip(right, wrong) if compare(exercise, a, b) is not None))
    return min(deviations)


def _double(value: Any) -> Any:
    """The same argument in float64."""
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).double()
    return _map(value, _double_tensor)


def _double_tensor(tensor: Any) -> Any:
    """A tensor or parameter in float64, again a leaf of the graph; arrays and whole numbers as they are."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return tensor
    made = tensor.detach().double()
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made.requires_grad_(tensor.requires_grad)


def rounding(exercise: Exercise, seed: int = 0) -> float:
    """The largest difference between float32 and float64 inputs."""
    cases = list(exercise.cases(Draw(seed)))
    doubled = [tuple(map(_double, case)) for case in cases]
    pairs = zip(outputs(exercise, exercise.reference, cases), outputs(exercise, exercise.reference, doubled))
    found = [_excess(a, b) for (_, a), (_, b) in pairs]
    return max((one for one in found if one != float("inf")), default=0.0)


SETUP = "import math\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


def stub_function(entry: Entry):
    """The function as it is handed out."""
    namespace: dict[str, Any] = {}
    for cell in (SETUP, entry.stub):  # one after the other, as in a notebook: an import beside the function changes its byte code
        exec(compile(cell, "<cell>", "exec"), namespace)
    return namespace[entry.task().name]


# --- form ---------------------------------------------------------------------------------------------------------

def complaints(entry: Entry) -> Iterator[str]:
    """What is missing or badly formed in one exercise."""
    if not entry.definition:
        yield "has no definition"
        return
    task = entry.task()
    if task.id != entry.id:
        yield f"its definition says {task.id}"
    for lang in ("zh", "en"):
        if not entry.titles.get(lang) or len(entry.prompts.get(lang, "")) < 30:
            yield f"has no title or prompt in {lang}"
    if not isinstance(task, Exercise):
        return
    if len(task.hints) < 2:
        yield "has fewer than two hints"
    if len(task.mistakes) < 3:
        yield "has fewer than three mistakes"
    if code_of(entry.stub, task.name) is None:
        yield f"its cell to fill in does not define {task.name}"
        return
    try:
        stub = stub_function(entry)
    except Exception as error:
        yield f"its cell to fill in raises {error!r}"
        return
    if inspect.signature(stub) != inspect.signature(task.reference):
        yield f"the cell to fill in has the parameters {inspect.signature(stub)}, the reference {inspect.signature(task.reference)}"
    if not (stub.__doc__ or "").strip():
        yield "the cell to fill in has no docstring"
