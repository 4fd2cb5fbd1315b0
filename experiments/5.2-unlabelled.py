"""What is a teacher worth where labels are few and texts are many? In Chinese and in English.

A teacher is fine-tuned on 1,000 labelled reviews of each language. Students of one language start from random weights and train for the
same number of steps on the 1,000 texts of their language that have labels, or on 8,000 texts of which 7,000 have none: the teacher's
probabilities (T = 1) take the place of labels there. `labels, 8,000` is a control that nobody has in practice: all 8,000 texts labelled.
Seeds change the student's weights and the order; the teacher is one. Score: accuracy on 1,000 test examples of each language.
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

ARMS = {  # weights of the loss, and whether the texts without labels are used
    "labels": ({"hard": 1.0}, False),
    "teacher": ({"soft": 1.0}, False),
    "teacher, 8,000": ({"soft": 1.0}, True),
    "labels, 8,000": ({"hard": 1.0}, True),
}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "languages": ["zh", "en"], "labelled": 1000, "texts": 8000, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16",
    "temperature": 1.0, "teacher": {"steps": 400, "lr": 1e-3}, "student": {"steps": 800, "lr": 3e-3},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def prepare():
    "Task, teacher, and for each language the training rows with the teacher's logits and the test rows."
    profile, sizes = profiles.load("tiny"), {"train": CONFIG["texts"], "test": CONFIG["test_examples"]}
    found = {lang: dataset("sentiment", lang, sizes) for lang in CONFIG["languages"]}
    task = task_of("sentiment", found["en"]["train"], profile.tokenizer())
    rows = {lang: task.encode(found[lang]["train"]) for lang in found}
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    labelled = [row for lang in found for row in rows[lang][: CONFIG["labelled"]]]
    fit(teacher, labelled, steps=CONFIG["teacher"]["steps"], lr=CONFIG["teacher"]["lr"], collate=task.collate, **COMMON)
    return task, teacher, {lang: (cache_logits(teacher, rows[lang], task.collate), found[lang]["test"]) for lang in found}


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy of student and teacher in each language."
    task, teacher, of = once("5.2-unlabelled", prepare)
    (weights, all_texts), config, scores = ARMS[arm], profiles.load("tiny").student_config, {}
    for lang, (rows, test) in of.items():
        set_seed(seed)
        student = task.model(new_model(config), attn_implementation="eager")
        fit(Distiller(student, teacher, Weights(**weights), CONFIG["temperature"]), rows if all_texts else rows[: CONFIG["labelled"]],
            steps=CONFIG["student"]["steps"], lr=CONFIG["student"]["lr"], collate=with_logits(task.collate), seed=seed, **COMMON)  # fmt: skip
        scores[lang] = task.metrics(test)(student)["accuracy"]
        scores[f"{lang} teacher"] = task.metrics(test)(teacher)["accuracy"]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["languages"]:
        digest.update(str(list(dataset("sentiment", lang, {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
