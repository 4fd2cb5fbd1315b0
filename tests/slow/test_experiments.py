"""Recorded experiments, run again with one seed, must fit the recorded spread.

All arms take hours (`make experiments-again`, weekly on GitHub), so a run of the tests takes those that fit into `BUDGET`: of each experiment
the cheapest arm where that is cheap, then others in an order that the library's code decides: the same code reruns the same arms, other
code others. Arms too long for the budget are left to the weekly run.
"""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

import bertcourse
from bertcourse import experiments
from bertcourse.assets import asset
from bertcourse.base.machine import computes_in_bf16

RECORDED = [experiments.recorded(path.stem) for path in sorted(asset("experiments").glob("*.json"))]
CHEAP, BUDGET = 25.0, 140.0  # seconds of one core, as recorded


@dataclass(frozen=True)
class Arm:
    """An arm of an experiment, and the seconds that its first seed took."""

    id: str
    name: str
    seconds: float
    seed: int = 0


def arms(recording: experiments.Recording) -> list[Arm]:
    """Each with its first seed."""
    first = min(row["seed"] for row in recording.rows)
    return [Arm(recording.id, row["arm"], row["seconds"], first) for row in recording.rows if row["seed"] == first]


def code_of_library() -> bytes:
    """The modules that experiments import."""
    return b"".join(path.read_bytes() for path in sorted(Path(bertcourse.__file__).parent.glob("*.py")))


def chosen(found: list[list[Arm]], code: bytes, budget: float = BUDGET) -> list[Arm]:
    """The arms to rerun: the cheapest of each experiment if it is cheap, then by lot until the budget is used up."""
    first = [min(group, key=lambda arm: arm.seconds) for group in found]
    first = [arm for arm in first if arm.seconds <= CHEAP]
    rest = [arm for group in found for arm in group if arm not in first]
    rest.sort(key=lambda arm: hashlib.sha256(code + f"{arm.id} {arm.name}".encode()).digest())
    for arm in rest:
        if sum(one.seconds for one in first) + arm.seconds <= budget:
            first.append(arm)
    return first


def is_slow_here(recording: experiments.Recording) -> bool:
    """Was it trained in bfloat16, which takes this processor about ten times as long?"""
    return recording.config.get("precision") == "bf16" and not computes_in_bf16()


ALL = [arms(recording) for recording in RECORDED if not is_slow_here(recording)]
AGAIN = sum(ALL, []) if os.environ.get("BERTCOURSE_RERUN") == "all" else chosen(ALL, code_of_library())


@pytest.fixture(scope="module")
def process():
    """A process beside this one, which keeps what the arms of an experiment share; `make test-slow` has two of them."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("arm", AGAIN, ids=lambda arm: f"{arm.id}:{arm.name}")
def test_rerun_fits(arm, process):
    """One thread, as it was recorded."""
    recording = next(one for one in RECORDED if one.id == arm.id)
    assert experiments.outside(recording, process.submit(experiments.run_one, experiments.source(arm.id), arm.name, arm.seed).result()) == []


def test_all_recordings_can_be_rerun_here():
    if left_out := [recording.id for recording in RECORDED if is_slow_here(recording)]:
        pytest.skip(f"this processor does not compute in bfloat16, so these are not rerun: {', '.join(left_out)}")


def test_every_arm_has_its_turn():
    cheap = [Arm("a", str(i), CHEAP + i) for i in range(4)]
    found = [cheap, [Arm("b", str(i), 200) for i in range(3)]]
    seen = [chosen(found, str(code).encode(), 300) for code in range(60)]
    assert all(sum(arm.seconds for arm in some) <= 300 and cheap[0] in some for some in seen)
    assert {arm for some in seen for arm in some} == set(sum(found, []))
    assert chosen(found, b"x", 300) == chosen(found, b"x", 300)
