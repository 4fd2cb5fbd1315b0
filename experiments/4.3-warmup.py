"""Does warm-up help, and at which learning rates? Reviews in five grades, in English and in Chinese, from the shipped weights.

The arms differ in the share of the steps in which the learning rate rises from 0: `no warm-up` starts at the highest rate,
`warm-up` takes the first 10% of the steps. In both the rate then falls to 0 in a straight line. Each seed has 500 reviews of
its own, the same for both arms. `en, 1e-3` and the like: accuracy on 500 test reviews (0.95 is the best, the rest is noise)
after training at this highest rate in this language.
"""

import hashlib
from functools import lru_cache

import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = {"no warm-up": 0.0, "warm-up": 0.1}  # share of the steps
SEEDS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
CONFIG = {"task": "sentiment", "languages": ["en", "zh"], "rates": ["3e-4", "1e-3", "3e-3"], "examples": 500, "test_examples": 500,
          "steps": 120, "batch": 16, "precision": "bf16"}  # fmt: skip


@lru_cache
def data(lang: str):
    "Training sets of all seeds one after the other, and the test set, in one language."
    return dataset(CONFIG["task"], lang, {"train": CONFIG["examples"] * len(SEEDS), "test": CONFIG["test_examples"]})


def train(lang: str, lr: float, warmup: float, seed: int) -> float:
    "Accuracy on the test set after one training."
    profile, found = profiles.load("tiny"), data(lang)
    task = task_of(CONFIG["task"], found["train"], profile.tokenizer())
    rows = found["train"].select(range(seed * CONFIG["examples"], (seed + 1) * CONFIG["examples"]))
    torch.manual_seed(seed)
    model = task.model(profile.model, attn_implementation="eager")
    fit(model, task.encode(rows), steps=CONFIG["steps"], lr=lr, warmup=warmup, batch_size=CONFIG["batch"], collate=task.collate,
        precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
    return task.metrics(found["test"])(model)["accuracy"]


def run(arm: str, seed: int) -> dict[str, float]:
    "Every language and every rate, with or without warm-up."
    return {f"{lang}, {rate}": train(lang, float(rate), ARMS[arm], seed) for lang in CONFIG["languages"] for rate in CONFIG["rates"]}


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["languages"]:
        digest.update(str(list(dataset(CONFIG["task"], lang, {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
