"""A run killed at ten random moments, some of them while it saves, ends with the very bits of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

KILLS, STEPS = 10, 300


def train(out: Path) -> None:
    """The run in question: dropout, accumulation, random blanks, evaluations, and a checkpoint every other step."""
    import numpy as np
    from transformers import BertConfig, BertForMaskedLM

    from bertcourse.training import Callback, fit, pad

    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(5, 30, rng.integers(3, 12)).tolist()} for _ in range(90)]

    def hide(rows, keys):
        hidden = []
        for row, key in zip(rows, keys):
            ids = np.array(row["input_ids"])
            chosen = np.random.default_rng(key).random(len(ids)) < 0.3
            hidden.append({"input_ids": np.where(chosen, 4, ids), "labels": np.where(chosen, ids, -100)})
        return pad(hidden)

    class Tell(Callback):
        def on_step_end(self, state):
            print("step", state.step, flush=True)

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                       intermediate_size=32, max_position_embeddings=16))
    fit(model, rows, dev=rows[:9], collate=hide, steps=STEPS, lr=3e-3, batch_size=8, accumulate=2, eval_every=7, save_every=2,
        log_every=5, out=out, resume=True, callbacks=[Tell()], progress=False)


def serve() -> None:
    """Import once; then, for each folder on stdin, train in a process of its own and say how that one ended."""
    torch.set_num_threads(1)
    import transformers  # noqa: F401 (the children shall not have to)

    import bertcourse.training  # noqa: F401

    for line in sys.stdin:
        if not (pid := os.fork()):
            train(Path(line.strip()))
            sys.stdout.flush()
            os._exit(0)
        print("pid", pid, flush=True)
        print("ended", os.waitpid(pid, 0)[1], flush=True)


@pytest.fixture
def server():
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield process
        process.stdin.close()


def live(server, out: Path, steps: int | None, saving: bool) -> tuple[int, bool]:
    """Train until `steps` more are done, then kill, if asked while it is saving: the signal it ended by, and was it saving?"""
    server.stdin.write(f"{out}\n")
    server.stdin.flush()
    seen, pid, caught = 0, 0, False
    for line in server.stdout:
        word, _, number = line.partition(" ")
        if word == "ended":
            return int(number) & 0x7F, caught
        if word == "pid":
            pid = int(number)
        elif word == "step":
            seen += 1
        if pid and steps is not None and seen >= steps:
            end = time.monotonic() + 10
            while saving and not (caught := bool(list(out.glob(".*.partial")))) and time.monotonic() < end:
                pass
            time.sleep(random.uniform(0, 0.001 if saving else 0.01))
            os.kill(pid, signal.SIGKILL)
            pid = 0
    raise AssertionError("the server died")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_ten_random_moments(server, tmp_path):
    from bertcourse.training import History, checkpoints, load_checkpoint

    assert live(server, tmp_path / "whole", None, False) == (0, False)
    assert History.read(tmp_path / "whole").steps == STEPS
    out, reached, while_saving = tmp_path / "killed", [], 0
    for kill in range(KILLS):
        how, caught = live(server, out, random.randint(0, 27), saving=kill % 2 == 1)
        assert how == signal.SIGKILL
        while_saving += caught
        for path in checkpoints(out):  # whole, every one of them
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                content = load_checkpoint(out)
            assert content["state"]["step"] == int(checkpoints(out)[0].stem[-8:])
            assert torch.load(path, weights_only=True)["state"]["step"] == int(path.stem[-8:])
        reached.append(content["state"]["step"] if checkpoints(out) else 0)
    assert while_saving >= 3, "the kills were to hit savings, too"
    assert reached == sorted(reached) and 0 < reached[-1] < STEPS
    assert live(server, out, None, False)[0] == 0  # let it finish

    for name in ("model.safetensors", "config.json", "best/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in History.read(folder).rows]
            for folder in (out, tmp_path / "whole")]
    assert rows[0] == rows[1] and any("dev" in row for row in rows[0])
    ends = [torch.load(checkpoints(folder)[0], weights_only=True) for folder in (out, tmp_path / "whole")]
    for content in ends:
        history = json.loads(content.pop("history"))
        assert history["seconds"] > 0
    assert flat(ends[0]) == flat(ends[1])  # optimiser and random generators, too
    assert not list(out.glob(".*")) and len(checkpoints(out)) == 2


def flat(value):
    """Nested content with tensors as bytes, to be compared."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    serve()
