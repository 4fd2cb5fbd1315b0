"""How far do rules get instead of labels? Reviews, good or bad, from the shipped weights.

`true labels` and `rules` train on so many reviews, with their labels or with what a vote of five rules says (reviews without a
vote are left out); `rules, then 100` goes on training with 100 true labels. Score: accuracy on 1,000 test reviews (ceiling .95,
the rest is noise); `votes` is the share of test reviews that the rules have an answer for, `votes right` how often it is true.
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.finetuning import vote
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = {"true labels": (False, False), "rules": (True, False), "rules, then 100": (True, True)}  # weak labels, then true ones
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {"task": "polarity", "lang": "en", "pool": 3000, "test_examples": 1000, "sizes": [100, 300, 1000, 3000], "true": 100,
          "steps": 250, "batch": 32, "lr": 1e-3, "warmup": 0.1, "precision": "bf16"}  # fmt: skip
GOOD = frozenset("good funny exciting beautiful moving delicious fresh tasty special liked enjoyed again".split())
BAD = frozenset("bad boring slow silly strange salty cold sour sweet never".split())


def said(word_list: frozenset[str], label: int, negated: int | None):
    "A rule: a word of the list stands for a label, and after `not` for another one (or for nothing)."
    def rule(row):
        words = row["sentence"].lower().replace(",", " ,").replace(".", " .").split()
        for i, word in enumerate(words):
            if word in word_list:
                return negated if "not" in words[max(0, i - 3) : i] else label
        return None
    return rule  # fmt: skip


def after_but(row) -> int | None:
    "A rule: what is said after `but` counts."
    _, found, rest = row["sentence"].partition(" but ")
    return vote(RULES[:2], [{"sentence": rest}])[0] if found else None


def before_although(row) -> int | None:
    "A rule: what is said before `although` counts."
    first, found, _ = row["sentence"].partition(", although ")
    return vote(RULES[:2], [{"sentence": first}])[0] if found else None


def likes(row) -> int | None:
    "A rule: `did not like` and `did not enjoy` are bad."
    return 0 if "did not like" in row["sentence"] or "did not enjoy" in row["sentence"] else None


RULES = [said(GOOD, 1, 0), said(BAD, 0, 1), likes, after_but, before_although]


@lru_cache
def data():
    "The pool, and the test set."
    return dataset(CONFIG["task"], CONFIG["lang"], {"train": CONFIG["pool"], "test": CONFIG["test_examples"]})


def train(rows, seed: int, model=None, steps: int | None = None):
    "The task and a model that has been trained on the rows."
    profile = profiles.load("tiny")
    task = task_of(CONFIG["task"], data()["train"], profile.tokenizer())
    torch.manual_seed(seed)
    model = model or task.model(profile.model, attn_implementation="eager")
    fit(model, task.encode(rows), steps=steps or CONFIG["steps"], lr=CONFIG["lr"], warmup=CONFIG["warmup"], batch_size=CONFIG["batch"],
        collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
    return task, model


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy by the number of reviews, and how good the rules are."
    weak, then = ARMS[arm]
    pool, scores = list(data()["train"]), {}
    pool = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool)).tolist()]
    votes = vote(RULES, pool)
    for size in CONFIG["sizes"]:
        rows = [row | {"label": label} for row, label in zip(pool[:size], votes) if label is not None] if weak else pool[:size]
        task, model = train(rows, seed)
        if then:
            train(pool[: CONFIG["true"]], seed, model, steps=CONFIG["steps"] // 2)
        scores[str(size)] = task.metrics(data()["test"])(model)["accuracy"]
    test = list(data()["test"])
    right = [label == row["gold"] for label, row in zip(vote(RULES, test), test) if label is not None]
    return scores | {"votes": len(right) / len(test), "votes right": sum(right) / len(right)}


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
