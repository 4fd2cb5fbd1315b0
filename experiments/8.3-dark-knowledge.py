"""What of a soft target helps a student: its certainty, the relations between wrong classes, or both?

Teacher, student, examples and steps as in 5.2-alpha-temperature, on the five grades of sentiment; the teacher's outputs are worked
out once. α = 1 and T = 8, the cell with the highest mean in that recording; the seeds are others than there. Arms:

- `labels`: cross-entropy with the hard labels, without a teacher.
- `soft`: the teacher's probabilities at T.
- `permuted`: the probabilities of the classes other than the teacher's first choice change places, by a permutation drawn
  once for each example: the same numbers, so the same certainty and entropy, without the relations between classes.
- `even`: these classes share their probability evenly: the certainty of each example, nothing else.
- `class means`: each example gets the mean soft target of all examples with its label: relations between classes, but nothing
  about the single example.

Scores on 1,000 test examples: accuracy; `same first`, the share on which student and teacher have the same first choice; and
`same second`, the share on which they have the same second choice.
"""

import hashlib

import numpy as np
from transformers import set_seed

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.distillation import Distiller, Weights, cache_logits, new_model, with_logits
from bertcourse.experiments import once
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = ["labels", "soft", "permuted", "even", "class means"]
SEEDS = [10, 11, 12, 13, 14]
CONFIG = {
    "lang": "en", "task": "sentiment", "examples": 1000, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16",
    "temperature": 8.0, "teacher": {"steps": 400, "lr": 1e-3}, "student": {"steps": 1200, "lr": 3e-3},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def prepare():
    "Task, training rows with the teacher's logits, test rows, teacher and its logits on the test rows."
    profile, config = profiles.load("tiny"), CONFIG
    found = dataset(config["task"], config["lang"], {"train": config["examples"], "test": config["test_examples"]})
    task = task_of(config["task"], found["train"], profile.tokenizer())
    rows = task.encode(found["train"])
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, rows, **config["teacher"], collate=task.collate, **COMMON)
    return task, cache_logits(teacher, rows, task.collate), found["test"], teacher, logits_of(task, teacher, found["test"])


def logits_of(task, model, rows) -> np.ndarray:  # (rows, classes)
    "A model's logits on rows of a data set."
    encoded = task.encode(rows, labelled=False)
    return np.array([row["teacher_logits"] for row in cache_logits(model, encoded, task.collate)])


def targets(arm: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:  # (examples, classes), logits
    "The teacher's logits (examples, classes), changed as the arm says."
    temperature, draw = CONFIG["temperature"], np.random.default_rng(0)
    soft = np.exp(logits / temperature)
    soft /= soft.sum(-1, keepdims=True)
    if arm == "class means":
        soft = np.stack([soft[labels == label].mean(0) for label in labels])
    for row in soft:
        others = np.delete(np.arange(len(row)), row.argmax())
        if arm == "permuted":
            row[others] = row[draw.permutation(others)]
        if arm == "even":
            row[others] = row[others].mean()
    return temperature * np.log(soft)


def changed(arm: str) -> list[dict]:
    "Training rows with the targets of an arm."
    _, rows, *_ = once("8.3-dark-knowledge", prepare)
    found = targets(arm, np.array([row["teacher_logits"] for row in rows]), np.array([row["labels"] for row in rows]))
    return [row | {"teacher_logits": target.astype(np.float32)} for row, target in zip(rows, found, strict=True)]


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy of the student, and how often it agrees with the teacher."
    task, _, test, teacher, taught = once("8.3-dark-knowledge", prepare)
    set_seed(seed)
    student = task.model(new_model(profiles.load("tiny").student_config), attn_implementation="eager")
    weights = Weights(hard=1.0) if arm == "labels" else Weights(soft=1.0)
    fit(Distiller(student, teacher, weights, CONFIG["temperature"]), changed(arm), **CONFIG["student"],
        collate=with_logits(task.collate), seed=seed, **COMMON)  # fmt: skip
    order, order_of_teacher = (np.argsort(-logits, -1) for logits in (logits_of(task, student, test), taught))
    same = (order == order_of_teacher).mean(0)
    correct = np.array(test["label"])
    return {"accuracy": float((order[:, 0] == correct).mean()), "same first": float(same[0]), "same second": float(same[1]),
            "teacher accuracy": float((order_of_teacher[:, 0] == correct).mean())}  # fmt: skip


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
