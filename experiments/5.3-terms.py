"""What does each term of a distillation add? A teacher of 4 layers, students of 2 with an eighth of its parameters.

`labels` learns from the labels alone, all others from labels and teacher in equal parts (T = 2), with one term more each. Students
start from random weights, see the same examples for the same number of steps in the same order, and are scored at the last step.
Seeds change the student's weights and the order; the teacher, fine-tuned from the shipped weights on the same examples, is one.
Score: accuracy on 1,000 test examples.
"""

import hashlib

from transformers import set_seed

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.distillation import Distiller, Weights, new_model
from bertcourse.experiments import once
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = {
    "labels": {"hard": 1.0},
    "+ soft": {"hard": 0.5, "soft": 0.5},
    "+ hidden": {"hard": 0.5, "soft": 0.5, "hidden": 1.0},
    "+ attention": {"hard": 0.5, "soft": 0.5, "attention": 0.1},
    "+ relation": {"hard": 0.5, "soft": 0.5, "relation": 1.0},
}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "lang": "en", "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16", "temperature": 2.0,
    "student": {"steps": 1200, "lr": 3e-3},
    "tasks": {"sentiment": {"examples": 1000, "teacher_steps": 400, "teacher_lr": 1e-3},
              "nli": {"examples": 4000, "teacher_steps": 1000, "teacher_lr": 5e-4}},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def prepare(name: str):
    "Task, training rows, their encoding, test rows and teacher."
    profile, of = profiles.load("tiny"), CONFIG["tasks"][name]
    found = dataset(name, CONFIG["lang"], {"train": of["examples"], "test": CONFIG["test_examples"]})
    task = task_of(name, found["train"], profile.tokenizer())
    rows = task.encode(found["train"])
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, rows, steps=of["teacher_steps"], lr=of["teacher_lr"], collate=task.collate, **COMMON)
    return task, rows, found["test"], teacher


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy of teacher and student on each task."
    config, scores = profiles.load("tiny").student_config, {}
    for name in CONFIG["tasks"]:
        task, rows, test, teacher = once(("5.3-terms", name), lambda name=name: prepare(name))
        set_seed(seed)
        student = task.model(new_model(config), attn_implementation="eager")
        fit(Distiller(student, teacher, Weights(**ARMS[arm]), CONFIG["temperature"]), rows, steps=CONFIG["student"]["steps"],
            lr=CONFIG["student"]["lr"], collate=task.collate, seed=seed, **COMMON)  # fmt: skip
        scores[name] = task.metrics(test)(student)["accuracy"]
        scores[f"{name} teacher"] = task.metrics(test)(teacher)["accuracy"]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for name in CONFIG["tasks"]:
        digest.update(str(list(dataset(name, CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
