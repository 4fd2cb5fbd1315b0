"""Which part of the pre-trained weights helps a new task: the embeddings, the lower layers, the upper ones, or all?

Two tasks of the toy world, from 300 English examples each: reviews in five grades (`sentiment`, accuracy) and names in text
(`ner`, span F1), on 400 test examples. All arms get the same examples, steps, batches and learning rate. `all` starts from all
shipped weights. In the arms with `new` those parts start from random weights: layers 1-2, layers 3-4, all four layers (the
embeddings stay), or everything. In `layers 1-2 fixed` and `all fixed` the weights are the shipped ones, and those of the
embeddings and the named layers are not trained any further.

The comparisons were fixed before the runs: each arm against `all`, and `layers 1-2 new` against `layers 3-4 new`, in both tasks.
"""

import hashlib
from functools import lru_cache

import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.tasks import task_of, untrained
from bertcourse.training import fit

ARMS = {  # layers with new weights (0: the embeddings), layers that are not trained
    "all": ([], []), "layers 3-4 new": ([3, 4], []), "layers 1-2 new": ([1, 2], []), "layers 1-4 new": ([1, 2, 3, 4], []),
    "everything new": ([0, 1, 2, 3, 4], []), "layers 1-2 fixed": ([], [0, 1, 2]), "all fixed": ([], [0, 1, 2, 3, 4]),
}  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
PAIRS = [(arm, "all") for arm in ARMS if arm != "all"] + [("layers 1-2 new", "layers 3-4 new")]
CONFIG = {
    "pairs": PAIRS, "lang": "en", "tasks": {"sentiment": "accuracy", "ner": "f1"}, "examples": 300, "test_examples": 400, "steps": 120,
    "batch": 16, "lr": 1e-3, "warmup": 0.1,
}  # fmt: skip


@lru_cache
def data(task: str):
    "Training and test examples of a task."
    return dataset(task, CONFIG["lang"], {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})


def parts_of(model) -> list[torch.nn.Module]:
    "The embeddings, then the layers."
    return [model.bert.embeddings, *model.bert.encoder.layer]


def run_task(name: str, arm: str, seed: int) -> float:
    "Fine-tune on one task and score it."
    (new, fixed), profile, found = ARMS[arm], profiles.load("tiny"), data(name)
    task = task_of(name, found["train"], profile.tokenizer(), lang=CONFIG["lang"])
    torch.manual_seed(seed)
    model = task.model(profile.model, attn_implementation="eager")  # the same new head in all arms
    random = task.model(untrained(profile), attn_implementation="eager")
    for i in new:
        parts_of(model)[i].load_state_dict(parts_of(random)[i].state_dict())
    if 0 in new and getattr(model.bert, "pooler", None) is not None:  # everything: the pooler, too
        model.bert.pooler.load_state_dict(random.bert.pooler.state_dict())
    for i in fixed:
        parts_of(model)[i].requires_grad_(False)
    fit(model, task.encode(found["train"]), steps=CONFIG["steps"], lr=CONFIG["lr"], warmup=CONFIG["warmup"],
        batch_size=CONFIG["batch"], collate=task.collate, seed=seed, progress=False)  # fmt: skip
    return task.score(task.predict(model, found["test"]), found["test"])[CONFIG["tasks"][name]]


def run(arm: str, seed: int) -> dict[str, float]:
    "Both tasks."
    return {name: run_task(name, arm, seed) for name in CONFIG["tasks"]}


def data_fingerprint() -> str:
    "Of the first test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for task in CONFIG["tasks"]:
        digest.update(str(list(dataset(task, CONFIG["lang"], {"test": 20})["test"])).encode())
    return digest.hexdigest()[:16]
