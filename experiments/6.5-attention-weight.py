"""Does TinyBERT's attention loss help less because it is larger than the other terms? Three weights for it, in English and in Chinese.

In 6.5-ablations the student recognises entities better without the attention loss, and that loss is several times as large as the
loss of the hidden states. Here everything is as in `TinyBERT` of 6.5-ablations, but for the weight of the attention loss in both
stages: 1 as in the paper, 1/8, which makes it about as large as the loss of the hidden states at the beginning, and 0. The weight 1/8
was chosen before the runs.

The task is `ner`, once with English and once with Chinese text in both stages. Seeds change the student's weights and the order of the
data; the teacher and the variants are the same for all. Scores: F1 of entities on 1,000 test examples.
"""

import hashlib

from transformers import AutoModel, AutoModelForMaskedLM, set_seed

from bertcourse import corpus, profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.distillation import new_model
from bertcourse.experiments import once
from bertcourse.tasks import task_of
from bertcourse.tinybert import (
    Augmenter,  # fmt: skip
    Intermediate,
    Terms,
    general_distillation,
    passages,
    task_distillation,
    teacher_labels,
)
from bertcourse.training import fit, pad

NAME = "6.5-attention-weight"
ARMS = {"weight 1": 1.0, "weight 1/8": 0.125, "weight 0": 0.0}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "languages": ["en", "zh"], "examples": 500, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16",
    "variants": 20, "p": 0.2, "k": 5, "documents": 6000, "general": {"steps": 2000, "lr": 3e-3},
    "task": {"steps": [800, 800], "lr": [3e-3, 3e-3]}, "teacher_steps": 300, "teacher_lr": 1e-3,
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def encode_text(lang: str):
    "Documents of the toy world in passages, encoded."
    return passages(corpus.texts(CONFIG["documents"], lang=lang, split="train"), profiles.load("tiny").tokenizer())


def prepare(lang: str):
    "Task, encoded examples with their variants, test rows, teacher."
    profile = profiles.load("tiny")
    found = dataset("ner", lang, {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})
    rows, task = found["train"], task_of("ner", found["train"], profile.tokenizer())
    examples = task.encode(rows)
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, examples, steps=CONFIG["teacher_steps"], lr=CONFIG["teacher_lr"], collate=task.collate, **COMMON)
    # no word vectors: nearly all words of both languages are single tokens here
    augment = Augmenter(profile.tokenizer(), profile.model(AutoModelForMaskedLM), p=CONFIG["p"], k=CONFIG["k"])
    new = []
    for start in range(0, len(rows), 50):
        for variants in augment([(row["tokens"],) for row in rows.select(range(start, start + 50))], CONFIG["variants"], first=start):
            new += [{"tokens": tokens} for (tokens,) in variants]
    return task, examples + task.encode(teacher_labels(task, teacher, new)), found["test"], teacher


def general(lang: str, terms: Terms, seed: int) -> Intermediate:
    "An encoder and its projections after general distillation."
    profile = profiles.load("tiny")
    text = once((NAME, "text", lang), lambda: encode_text(lang))
    set_seed(seed)
    student = new_model(profile.student_config)(AutoModel, "eager")
    teacher = profile.model(AutoModel, attn_implementation="eager")
    return general_distillation(student, teacher, text, terms=terms, **CONFIG["general"], collate=pad, seed=seed, **COMMON)


def run(arm: str, seed: int) -> dict[str, float]:
    "Scores of student and teacher in each language."
    terms, scores = Terms(attention=ARMS[arm]), {}
    for lang in CONFIG["languages"]:
        first = general(lang, terms, seed)
        task, rows, test, teacher = once((NAME, lang), lambda lang=lang: prepare(lang))
        set_seed(seed)
        student = task.model(new_model(profiles.load("tiny").student_config), attn_implementation="eager")
        student.bert.load_state_dict(first.student.state_dict(), strict=False)  # without a pooler, where the head has none
        task_distillation(student, teacher, rows, steps=CONFIG["task"]["steps"], lr=CONFIG["task"]["lr"], general=first, terms=terms,
                          collate=task.collate, seed=seed, **COMMON)  # fmt: skip
        scores[f"ner {lang}"] = task.metrics(test)(student)["f1"]
        scores[f"ner {lang} teacher"] = task.metrics(test)(teacher)["f1"]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["languages"]:
        digest.update(str(list(dataset("ner", lang, {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
