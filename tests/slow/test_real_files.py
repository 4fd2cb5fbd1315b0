"""`bertcourse finetune` reads real files and takes a few steps on them: with a real checkpoint where there is one, and always
with the shipped model. `benchmarks/real.md` holds whole runs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

DATA, CHECKPOINT = os.environ.get("BERTCOURSE_DATA"), os.environ.get("BERTCOURSE_CHECKPOINT")
pytestmark = pytest.mark.skipif(not DATA, reason="BERTCOURSE_DATA names no folder with real data")
MODELS = [
    "tiny",
    pytest.param(CHECKPOINT, id="real", marks=pytest.mark.skipif(
        not CHECKPOINT, reason="BERTCOURSE_CHECKPOINT names no folder with a real uncased BERT checkpoint")),
]  # fmt: skip


def finetune(tmp_path, task, model, *files, steps=4):
    "The scores of a few steps, and the folder of the model."
    out, paths = tmp_path / "model", [Path(DATA) / file for file in files]
    if missing := [path for path in paths if not path.is_file()]:
        pytest.skip(f"BERTCOURSE_DATA has no {missing[0].name}")
    splits = [part for pair in zip(("--train", "--dev", "--test"), map(str, paths)) for part in pair]
    done = subprocess.run(
        [sys.executable, "-m", "bertcourse.app.cli", "finetune", "--task", task, *splits, "--model", model, "--out", str(out),
         "--steps", str(steps), "--max-length", "32", "--json"], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


@pytest.mark.parametrize("model", MODELS)
def test_sst2(tmp_path, model):
    said, out = finetune(tmp_path, "classification", model, "sst2/train.tsv", "sst2/dev.tsv")
    assert said["data"]["rows"] == {"train": 67_349, "dev": 872} and said["steps"] == 4
    assert 0.3 < said["dev"]["accuracy"] < 1
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert set(loaded.config.label2id) == {"0", "1"} and loaded.num_labels == 2


@pytest.mark.parametrize("model", MODELS)
def test_wnut17(tmp_path, model):
    said, out = finetune(tmp_path, "ner", model, "wnut17/train.conll", "wnut17/dev.conll", "wnut17/test.conll")
    kinds = {"corporation", "creative-work", "group", "location", "person", "product"}
    assert said["data"]["rows"] == {"train": 3_394, "dev": 1_009, "test": 1_287}
    assert 0 <= said["test"]["f1"] <= 1 and said["test"]["accuracy"] < 1
    labels = transformers.AutoModelForTokenClassification.from_pretrained(out).config.label2id
    assert set(labels) == {"O", *(f"{b}-{kind}" for b in "BI" for kind in kinds)}
