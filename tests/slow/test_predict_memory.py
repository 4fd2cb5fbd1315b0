"""Input of any length: `bertcourse predict` takes as much memory for twenty times the lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTE = 1 << 20
FEW, MANY = 1_000, 20_000
WIDE = "a line with a number and a long tail that the model does not read " * 10  # 700 characters, so that hoarding shows


def measure(folder: str, file: str, out: str, hoards: bool) -> int:
    """Predict, as the command does; returns this process's peak memory, in bytes."""
    from bertcourse.app import cli
    from bertcourse.jobs import predicting

    genuine = predicting.stream_rows
    if hoards:
        predicting.stream_rows = lambda *args: iter(list(genuine(*args)))
    assert cli.main(["predict", folder, file, "--out", out, "--batch-size", "64"]) == 0
    return highest()


def highest() -> int:
    """This process's peak memory, in bytes. Linux's ru_maxrss would count the parent's, from before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak(folder: Path, file: Path, out: Path, hoards: bool = False) -> int:
    """The same in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(folder), str(file), str(out), str(int(hoards))]
    return int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def model(tmp_path) -> Path:
    """A narrow model, so that most of the time is not spent in it."""
    import shutil

    from transformers import BertConfig, BertForSequenceClassification

    from bertcourse.assets import asset

    folder = tmp_path / "model"
    BertForSequenceClassification(BertConfig(vocab_size=2083, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                             intermediate_size=8, max_position_embeddings=16)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(asset("tiny-bert") / name, folder)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="no ru_maxrss")
def test_memory_does_not_grow_with_the_input(tmp_path, model):
    peaks = {}
    for count in (FEW, MANY):
        file = tmp_path / f"{count}.txt"
        file.write_text("".join(f"{i} {WIDE}\n" for i in range(count)))
        peaks[count] = peak(model, file, tmp_path / f"{count}.jsonl")
        assert len((tmp_path / f"{count}.jsonl").read_bytes().splitlines()) == count
    assert peaks[MANY] < peaks[FEW] + 8 * MEGABYTE
    hoarded = peak(model, tmp_path / f"{MANY}.txt", tmp_path / "hoarded.jsonl", hoards=True)
    assert hoarded > peaks[FEW] + 12 * MEGABYTE  # the measurement would see it


if __name__ == "__main__":
    print(measure(*sys.argv[1:4], sys.argv[4] == "1"))
