"""Each recorded experiment, one seed of every arm run again, must fit the recorded spread."""

from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest

from bertcourse import experiments
from bertcourse.assets import asset

RECORDED = [experiments.recorded(path.stem) for path in sorted(asset("experiments").glob("*.json"))]


@pytest.mark.parametrize("recording", RECORDED, ids=[recording.id for recording in RECORDED])
def test_rerun_fits(recording):
    path = experiments.source(recording.id)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # one thread each, as they were recorded
        rows = list(pool.map(experiments.run_one, repeat(path), recording.arms, repeat(0)))
    assert [misfit for row in rows for misfit in experiments.outside(recording, row)] == []
