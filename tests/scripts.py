"""The benchmarks are scripts, not modules: how tests load and run them."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    "A script of `benchmarks/` as a module."
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # where a script finds what the benchmarks share
        spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run(name: str, *args: object, **kwargs) -> subprocess.CompletedProcess:
    "A script of `benchmarks/`, as a person starts it."
    return subprocess.run([sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, args)], capture_output=True, text=True, **kwargs)
