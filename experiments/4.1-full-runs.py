"""The tasks of chapter 4 with all their training examples: what the pages train for seconds, trained for minutes.

8,000 examples of each task, from the shipped weights. Score: the task's own, on 1,000 test examples, which combine what no
training example does: accuracy (sentiment, nli), Pearson's correlation (similarity), span F1 (ner), exact match (qa).
"""

import hashlib
from functools import lru_cache

import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = {"sentiment": "accuracy", "nli": "accuracy", "similarity": "pearson", "ner": "f1", "qa": "exact"}
SEEDS = [0, 1, 2]
CONFIG = {
    "languages": ["en", "zh"], "examples": 8000, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16",
    "steps": {"sentiment": 750, "nli": 1500, "similarity": 1000, "ner": 750, "qa": 1500},
    "lr": {"sentiment": 1e-3, "nli": 5e-4, "similarity": 3e-4, "ner": 1e-3, "qa": 1e-3},
}  # fmt: skip


@lru_cache
def data(task: str, lang: str):
    "Training and test set."
    return dataset(task, lang, {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})


def run(arm: str, seed: int) -> dict[str, float]:
    "One task in both languages."
    scores = {}
    for lang in CONFIG["languages"]:
        profile, found = profiles.load("tiny"), data(arm, lang)
        task = task_of(arm, found["train"], profile.tokenizer(), lang=lang)
        torch.manual_seed(seed)
        model = task.model(profile.model, attn_implementation="eager")
        fit(model, task.encode(found["train"]), steps=CONFIG["steps"][arm], lr=CONFIG["lr"][arm], warmup=CONFIG["warmup"],
            batch_size=CONFIG["batch"], collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
        scores[lang] = float(task.metrics(found["test"])(model)[ARMS[arm]])
    return scores


def data_fingerprint() -> str:
    "Of the first test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["languages"]:
        for task in ARMS:
            digest.update(str(list(dataset(task, lang, {"test": 20})["test"])).encode())
    return digest.hexdigest()[:16]
