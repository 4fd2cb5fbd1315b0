"""Each recorded experiment, one seed of every arm run again, or of some where there are many, must fit the recorded spread."""

from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest

from bertcourse import experiments
from bertcourse.assets import asset

RECORDED = [experiments.recorded(path.stem) for path in sorted(asset("experiments").glob("*.json"))]
EVERY = {"5.2-alpha-temperature": 4, "6.3-augmentation": 3, "6.5-ablations": 4}  # so many arms on: all of them would take too long


@pytest.mark.parametrize("recording", RECORDED, ids=[recording.id for recording in RECORDED])
def test_rerun_fits(recording):
    path, arms = experiments.source(recording.id), recording.arms[::EVERY.get(recording.id, 1)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # one thread each, as they were recorded
        rows = list(pool.map(experiments.run_one, repeat(path), arms, repeat(0)))
    assert [misfit for row in rows for misfit in experiments.outside(recording, row)] == []
