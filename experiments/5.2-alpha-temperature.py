"""Which share of the soft loss, which temperature? α from 0.25 to 1, T from 1 to 8, and the labels alone (α = 0).

Teacher, student, examples and steps as in 5.3-terms; the teacher's outputs are worked out once, since the data do not change.
Score: accuracy on 1,000 test examples.
"""

import hashlib

from transformers import set_seed

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.distillation import Distiller, Weights, cache_logits, new_model, with_logits
from bertcourse.experiments import once
from bertcourse.tasks import task_of
from bertcourse.training import fit

ALPHAS, TEMPERATURES = [0.25, 0.5, 0.75, 1.0], [1.0, 2.0, 4.0, 8.0]
ARMS = {"labels": (0.0, 1.0)} | {f"α={alpha:g} T={t:g}": (alpha, t) for alpha in ALPHAS for t in TEMPERATURES}
SEEDS = [0, 1, 2]
CONFIG = {
    "lang": "en", "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16", "alphas": ALPHAS, "temperatures": TEMPERATURES,
    "student": {"steps": 1200, "lr": 3e-3},
    "tasks": {"sentiment": {"examples": 1000, "teacher_steps": 400, "teacher_lr": 1e-3},
              "nli": {"examples": 4000, "teacher_steps": 1000, "teacher_lr": 5e-4}},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def prepare(name: str):
    "Task, training rows with the teacher's logits, test rows and teacher."
    profile, of = profiles.load("tiny"), CONFIG["tasks"][name]
    found = dataset(name, CONFIG["lang"], {"train": of["examples"], "test": CONFIG["test_examples"]})
    task = task_of(name, found["train"], profile.tokenizer())
    rows = task.encode(found["train"])
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, rows, steps=of["teacher_steps"], lr=of["teacher_lr"], collate=task.collate, **COMMON)
    return task, cache_logits(teacher, rows, task.collate), found["test"], teacher


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy of the student on each task."
    (alpha, temperature), config, scores = ARMS[arm], profiles.load("tiny").student_config, {}
    for name in CONFIG["tasks"]:
        task, rows, test, teacher = once(("5.2-alpha-temperature", name), lambda name=name: prepare(name))
        set_seed(seed)
        student = task.model(new_model(config), attn_implementation="eager")
        fit(Distiller(student, teacher, Weights(hard=1 - alpha, soft=alpha), temperature), rows, steps=CONFIG["student"]["steps"],
            lr=CONFIG["student"]["lr"], collate=with_logits(task.collate), seed=seed, **COMMON)  # fmt: skip
        scores[name] = task.metrics(test)(student)["accuracy"]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for name in CONFIG["tasks"]:
        digest.update(str(list(dataset(name, CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
