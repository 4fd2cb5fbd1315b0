"""The first steps of the shipped model's training, run again, give the recorded losses."""

import json

import pytest

from bertcourse.assets import asset
from bertcourse.pretraining import Recipe, pretrain

STEPS = 160  # two rows of the history


def test_first_steps_come_again():
    folder = asset("tiny-bert")
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    recorded = {row["step"]: row for row in map(json.loads, lines)}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe = Recipe.read(folder / "pretrain.toml", seed=metrics["seed"])
    _, history = pretrain(recipe, stop_at=STEPS, progress=False)
    again = {row["step"]: row for row in history.rows}
    common = sorted(again.keys() & recorded.keys())
    assert common and common[-1] == STEPS
    for step in common:  # bfloat16 sums depend on the processor, so not to the last bit
        assert again[step]["terms"] == pytest.approx(recorded[step]["terms"], abs=0.05), step
        assert again[step]["lr"] == pytest.approx(recorded[step]["lr"], rel=1e-6)
        assert again[step]["tokens"] == recorded[step]["tokens"]
