"""Is pre-training worth it? Each of the toy world's tasks from 1,000 examples, with the shipped weights and with random ones.

Everything but the weights to start from is equal: architecture, examples, steps, batches, and the learning rate but for nli,
where random weights get the lower one that suits them better. Scores are those of the tasks on 1,000 test examples, which
combine what no training example does: accuracy (sentiment, nli, agreement), Pearson's correlation (similarity), span F1
(ner), exact match (qa); for pos, roles and depth the accuracy on words that have more than one label, since of the others the
word alone tells it.
"""

import hashlib
from functools import lru_cache

import torch
from datasets.utils.logging import disable_progress_bar

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.tasks import Classification, Tagging, task_of, untrained
from bertcourse.training import fit

ARMS = {"pre-trained": True, "from scratch": False}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "languages": ["en", "zh"], "examples": 1000, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16",
    "lr": 1e-3, "lr of nli from scratch": 5e-4,  # at 1e-3 some of these trainings never get going, and the mean is lower
    "steps": {"sentiment": 400, "nli": 400, "similarity": 400, "ner": 250, "qa": 400, "pos": 200, "roles": 200, "depth": 200,
              "agreement": 200},
}  # fmt: skip
METRICS = {"sentiment": "accuracy", "nli": "accuracy", "similarity": "pearson", "ner": "f1", "qa": "exact"}
TOKENS = ("pos", "roles", "depth")
disable_progress_bar()


@lru_cache
def data(task: str, lang: str):
    "Training and test set with the columns of a task of chapter 4."
    probing = task in ("pos", "roles", "agreement")
    sizes = {"train": CONFIG["examples"], "test": CONFIG["test_examples"]}
    if task == "agreement":  # two of three rows ask for it
        sizes = {split: n * 3 // 2 for split, n in sizes.items()}
    found = dataset("probing" if probing else task, lang, sizes)
    if task in TOKENS:
        found = found.select_columns(["tokens", task]).rename_column(task, "ner_tags")
    elif task == "agreement":
        found = found.filter(lambda row: row["agreement"] >= 0).map(lambda row: {"sentence": " ".join(row["tokens"])})
        found = found.select_columns(["sentence", "agreement"]).rename_column("agreement", "label")
    return found


def ambiguous(train, test, predictions, labels) -> float:
    "Accuracy on the words that have several labels in training."
    known: dict[str, set] = {}
    for row in train:
        for token, tag in zip(row["tokens"], row["ner_tags"]):
            known.setdefault(token.lower(), set()).add(tag)
    right = [
        labels[tag] == guess
        for row, said in zip(test, predictions) for token, tag, guess in zip(row["tokens"], row["ner_tags"], said["raw"])
        if len(known.get(token.lower(), ())) > 1
    ]  # fmt: skip
    return sum(right) / len(right)


class Words(Tagging):
    "Labels of words that are no BIO: nothing is to be repaired."

    def _entities(self, words, tags, p):
        return {"raw": list(tags), "tags": list(tags)}


def make_task(task: str, lang: str, train, tokenizer):
    "The task as chapter 4 has it."
    if task in TOKENS:
        return Words(tokenizer, tuple(train.features["ner_tags"].feature.names))
    if task == "agreement":
        return Classification(tokenizer, tuple(train.features["label"].names))
    return task_of(task, train, tokenizer, lang=lang)


def run_task(name: str, lang: str, pretrained: bool, seed: int) -> float:
    "Fine-tune on one task and score it."
    profile, found = profiles.load("tiny"), data(name, lang)
    task = make_task(name, lang, found["train"], profile.tokenizer())
    lr = CONFIG["lr of nli from scratch" if name == "nli" and not pretrained else "lr"]
    torch.manual_seed(seed)
    model = task.model(profile.model if pretrained else untrained(profile), attn_implementation="eager")
    fit(model, task.encode(found["train"]), steps=CONFIG["steps"][name], lr=lr, warmup=CONFIG["warmup"],
        batch_size=CONFIG["batch"], collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
    predictions = task.predict(model, found["test"])
    if name in TOKENS:
        return ambiguous(found["train"], found["test"], predictions, task.labels)
    return task.score(predictions, found["test"])[METRICS.get(name, "accuracy")]


def run(arm: str, seed: int) -> dict[str, float]:
    "Every task in every language."
    return {f"{task} {lang}": run_task(task, lang, ARMS[arm], seed) for lang in CONFIG["languages"] for task in CONFIG["steps"]}


def data_fingerprint() -> str:
    "Of the first test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["languages"]:
        for task in ("sentiment", "nli", "similarity", "ner", "qa", "probing", "depth"):
            digest.update(str(list(dataset(task, lang, {"test": 20})["test"])).encode())
    return digest.hexdigest()[:16]
