"""Which reviews are worth labelling? Good or bad, from the shipped weights.

Both arms begin with 100 labelled reviews of a pool of 3,000 and label 100 more at a time: drawn by chance, or those whose
prediction has the highest entropy. The model is trained anew each time. Score: accuracy on 1,000 test reviews (ceiling .95,
the rest is noise).
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.finetuning import entropy
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = {"random": False, "uncertain": True}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {"task": "polarity", "lang": "en", "pool": 3000, "test_examples": 1000, "first": 100, "more": 100, "rounds": 7, "steps": 250,
          "batch": 32, "lr": 1e-3, "warmup": 0.1, "precision": "bf16"}  # fmt: skip


@lru_cache
def data():
    "The pool, and the test set."
    return dataset(CONFIG["task"], CONFIG["lang"], {"train": CONFIG["pool"], "test": CONFIG["test_examples"]})


def train(rows, seed: int):
    "The task and a model that has been trained on the rows."
    profile = profiles.load("tiny")
    task = task_of(CONFIG["task"], data()["train"], profile.tokenizer())
    torch.manual_seed(seed)
    model = task.model(profile.model, attn_implementation="eager")
    fit(model, task.encode(rows), steps=CONFIG["steps"], lr=CONFIG["lr"], warmup=CONFIG["warmup"], batch_size=CONFIG["batch"],
        collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
    return task, model


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy by the number of labels."
    pool, rng = list(data()["train"]), np.random.default_rng(seed)
    order, scores = rng.permutation(len(pool)).tolist(), {}
    labelled, left = order[: CONFIG["first"]], order[CONFIG["first"] :]
    for _ in range(CONFIG["rounds"]):
        task, model = train([pool[i] for i in labelled], seed)
        scores[str(len(labelled))] = task.metrics(data()["test"])(model)["accuracy"]
        if ARMS[arm]:
            unsure = entropy(np.array([list(p["scores"].values()) for p in task.predict(model, [pool[i] for i in left])]))
            left = [left[i] for i in np.argsort(-unsure)]
        labelled, left = labelled + left[: CONFIG["more"]], left[CONFIG["more"] :]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
