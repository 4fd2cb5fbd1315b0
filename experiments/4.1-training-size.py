"""How much does pre-training save? Reviews in five grades, from 100 to 8,000 training examples.

`pre-trained` trains all weights from the shipped ones, `from scratch` from random ones, `frozen` only the pooler and the
new layer on top of the shipped encoder. Steps, learning rate and batches are equal for the three. Score: accuracy on 1,000
test reviews, of whose labels one in twenty is noise.
"""

import hashlib
from functools import lru_cache

import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.tasks import task_of, untrained
from bertcourse.training import fit

ARMS = {"pre-trained": (True, False), "from scratch": (False, False), "frozen": (True, True)}  # shipped weights, encoder frozen
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "task": "sentiment", "lang": "en", "steps": {"100": 250, "300": 250, "1000": 400, "3000": 500, "8000": 750}, "test_examples": 1000,
    "batch": 32, "lr": 1e-3, "warmup": 0.1, "precision": "bf16",
}  # fmt: skip


@lru_cache
def data():
    "All examples; smaller training sets are the beginning of the largest."
    return dataset(CONFIG["task"], CONFIG["lang"], {"train": max(map(int, CONFIG["steps"])), "test": CONFIG["test_examples"]})


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy by the number of training examples."
    pretrained, frozen = ARMS[arm]
    profile, found, scores = profiles.load("tiny"), data(), {}
    task = task_of(CONFIG["task"], found["train"], profile.tokenizer())
    for size, steps in CONFIG["steps"].items():
        torch.manual_seed(seed)
        model = task.model(profile.model if pretrained else untrained(profile), attn_implementation="eager")
        for part in (model.bert.embeddings, model.bert.encoder) if frozen else ():
            part.requires_grad_(False)
        fit(model, task.encode(found["train"].select(range(int(size)))), steps=steps, lr=CONFIG["lr"], warmup=CONFIG["warmup"],
            batch_size=CONFIG["batch"], collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
        scores[size] = task.metrics(found["test"])(model)["accuracy"]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
