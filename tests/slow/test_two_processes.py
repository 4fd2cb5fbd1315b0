"""Two processes on one CPU train like one with the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from bertcourse.training import Callback, NonFiniteLoss, count_labels, fit, pad

TOLERANCE = 1e-5


def examples(n: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(5, 40, rng.integers(4, 20)).tolist()} for _ in range(n)]


def hide(rows, keys):
    """Blanks as the key of a row says: each process has another number of them."""
    hidden = []
    for row, key in zip(rows, keys):
        ids = np.array(row["input_ids"])
        chosen = np.random.default_rng(key).random(len(ids)) < 0.2
        hidden.append({"input_ids": np.where(chosen, 4, ids), "labels": np.where(chosen, ids, -100)})
    return pad(hidden)


def parts_loss(model, batch):
    """Calls the parts of the model, not the model, and has two terms."""
    vectors = model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    cross_entropy = torch.nn.functional.cross_entropy
    return torch.stack([cross_entropy(model.cls(vectors[at]), batch["labels"][at]) for at in kinds(batch)])


def kinds(batch):
    return [(batch["labels"] >= 0) & (batch["labels"] % 3 > 0), batch["labels"] % 3 == 0]


class FGM(Callback):
    def after_backward(self, state):
        table = state.model.get_input_embeddings().weight
        kept = table.detach().clone()
        table.data.add_(table.grad / table.grad.norm(), alpha=0.1)
        state.backward()
        table.data.copy_(kept)


class Unequal:
    """A metric that differs between processes: only the main one's may count."""

    def __init__(self):
        self.asked = 0

    def __call__(self, model):
        self.asked += 1
        return {"accuracy": -self.asked if int(os.environ.get("RANK", 0)) == 0 else self.asked}


class Pause(Callback):
    """Only the second process asks for a pause, after step 8, which evaluates."""

    def __init__(self, asks=True):
        self.asks, self.step = asks and os.environ.get("RANK") == "1", 0

    def on_step_end(self, state):
        self.step = state.step

    def __call__(self):
        return self.asks and self.step == 8


RUNS = {
    "plain": dict(),
    "accumulate": dict(accumulate=3),
    "one left over": dict(n=33),  # the last batch of an epoch has an example for one process only
    "two terms": dict(loss=parts_loss, items=lambda batch: torch.stack([at.sum() for at in kinds(batch)])),
    "adversarial": dict(callbacks=[FGM()]),
    "means of means": dict(items=lambda batch: count_labels(batch).clamp(max=1)),  # planted fault
}


def run(folder: Path, name: str, n: int = 163, dropout: float = 0.0, save: bool = True, **kwargs):
    """One of the runs; its weights and history go to a file."""
    torch.manual_seed(int(os.environ.get("RANK", 0)) if name == "plain" else 0)  # weights of the main process count
    model = BertForMaskedLM(BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout))
    kwargs = dict(steps=24, dev=examples(31), collate=hide, batch_size=16, lr=1e-2, progress=False) | kwargs
    history = fit(model, examples(n), **kwargs)
    rank = int(os.environ.get("RANK", 0))
    if save:
        torch.save({"weights": model.state_dict(), "rows": history.rows}, folder / f"{name}-{rank}.pt")
    return model


def main(folder: Path) -> None:
    """What each of the two processes does."""
    from accelerate import Accelerator

    assert Accelerator().num_processes == 2
    for name, settings in RUNS.items():
        run(folder, name, **settings)
    asked = dict(dropout=0.3, out=folder / "resumed", save_every=5)
    run(folder, "whole", **asked | dict(out=folder / "whole"))
    run(folder, "cut", **asked, stop_at=13, save=False)
    run(folder, "resumed", **asked, resume=True)
    for name, pause, resume in (("paused", Pause(), False), ("after the pause", Pause(asks=False), True)):
        run(folder, name, **asked | dict(out=folder / "pause"), eval_every=4, callbacks=[pause], pause=pause, resume=resume)
    run(folder, "patience", metrics=Unequal(), better=("accuracy", "max"), patience=2, eval_every=3, dev=None)
    try:
        run(folder, "nan", save=False, loss=lambda model, batch: model(**batch).loss * float("nan" if Accelerator().process_index else 1))
    except NonFiniteLoss as error:
        (folder / f"nan-{Accelerator().process_index}").write_text(str(error))
    try:
        run(folder, "exists", save=False, out=folder / "whole")
    except FileExistsError:
        (folder / f"exists-{Accelerator().process_index}").touch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results of two processes, as `accelerate launch` runs them where there is no GPU."""
    folder = tmp_path_factory.mktemp("two")
    env = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", __file__, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same runs on one process."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("one")
    torch.set_num_threads(1)
    for name, settings in RUNS.items():
        run(folder, name, **settings)
    torch.set_num_threads(threads)
    return folder


def load(folder: Path, name: str, rank: int = 0) -> dict:
    return torch.load(folder / f"{name}-{rank}.pt")


def distance(a: dict, b: dict) -> float:
    return max((a["weights"][name] - b["weights"][name]).abs().max().item() for name in a["weights"])


@pytest.mark.parametrize("name", [name for name in RUNS if name != "means of means"])
def test_two_are_as_good_as_one(folder, alone, name):
    one, two = load(alone, name), load(folder, name)
    assert distance(one, two) <= TOLERANCE
    assert distance(two, load(folder, name, rank=1)) == 0
    assert len(one["rows"]) == len(two["rows"]) > 20
    for ours, theirs in zip(one["rows"], two["rows"]):
        assert ours["step"] == theirs["step"] and ours.get("tokens") == theirs.get("tokens")
        for value in ("loss", "grad_norm"):
            assert ours.get("dev", ours).get(value, 0) == pytest.approx(theirs.get("dev", theirs).get(value, 0), rel=1e-4)


def test_a_mean_of_means_would_be_noticed(folder, alone):
    assert distance(load(alone, "means of means"), load(folder, "means of means")) > 10 * TOLERANCE


def test_two_processes_resume_to_the_same_bits(folder):
    for rank in (0, 1):
        assert distance(load(folder, "whole", rank), load(folder, "resumed", rank)) == 0
    assert distance(load(folder, "whole"), load(folder, "plain")) > TOLERANCE  # there is dropout


def test_both_pause_where_one_is_asked_to(folder):
    for rank in (0, 1):
        paused, after = load(folder, "paused", rank)["rows"], load(folder, "after the pause", rank)["rows"]
        assert paused[-1]["step"] == 8 and [row["step"] for row in paused if "dev" in row] == [4]
        assert [row["step"] for row in after if "dev" in row] == [4, 8, 12, 16, 20, 24]
        assert distance(load(folder, "whole", rank), load(folder, "after the pause", rank)) == 0


def test_only_the_main_process_decides_when_to_stop(folder):
    for rank in (0, 1):
        assert [row["step"] for row in load(folder, "patience", rank)["rows"] if "dev" in row] == [3, 6, 9]


def test_all_stop_at_a_loss_that_is_no_number(folder):
    assert "step 1: the loss is nan" in (folder / "nan-0").read_text() == (folder / "nan-1").read_text()


def test_both_refuse_a_folder_that_holds_a_run(folder):
    assert (folder / "exists-0").exists() and (folder / "exists-1").exists()


SCRIPT = """
import atexit, os, sys, time, torch
say = lambda: os.write(1, b"left: True\\n" if not torch.distributed.is_initialized() else b"left: False\\n")  # in one piece: both write to one pipe
atexit.register(say)  # runs after what is registered later
from bertcourse.training import Work
work = Work()
assert work.accelerator.num_processes == 2
time.sleep(0.5 * work.accelerator.process_index)
for _ in range(1000):
    torch.distributed.all_reduce(torch.ones(3), async_op=True)
if "planted" in sys.argv:
    from bertcourse.base.processes import end_gloo
    atexit.unregister(end_gloo)
"""


@pytest.mark.parametrize("planted", [False, True], ids=["", "gloo is not left"])
def test_the_end_of_a_program_is_no_crash(tmp_path, planted):
    """Threads of gloo still hold tensors when Python ends, because the second process is late: mostly a crash where the group is not left."""
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "script.py")]
    done = subprocess.run(command + ["planted"] * planted, env=env, capture_output=True, text=True, timeout=300)
    if planted:
        assert "left: False" in done.stdout and "left: True" not in done.stdout
    else:
        assert done.returncode == 0 and done.stdout.count("left: True") == 2, done.stderr[-3000:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
