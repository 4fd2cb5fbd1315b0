"""Each recorded experiment, one seed of every arm run again, must fit the recorded spread."""

import pytest

from bertcourse import experiments
from bertcourse.assets import asset

RECORDED = [experiments.recorded(path.stem) for path in sorted(asset("experiments").glob("*.json"))]
ARMS = [(recording, arm) for recording in RECORDED for arm in recording.arms]


@pytest.mark.parametrize("recording, arm", ARMS, ids=[f"{r.id}-{a}" for r, a in ARMS])
def test_rerun_fits(recording, arm):
    row = experiments.run_one(experiments.source(recording.id), arm, seed=0)
    assert experiments.outside(recording, row) == []
