"""TinyBERT's own ablations (Jiao et al. 2020, tables 2 to 4) in the toy world: stages, terms and mappings left out or changed.

Teacher: the shipped model, fine-tuned on 500 examples. Student: 2 layers, 8.4 times fewer parameters. `TinyBERT` is the whole: general
distillation (GD) on text, then on the task (TD) first the layers, then the outputs, on the examples and 20 variants of each (DA).
An arm leaves out or changes one thing, in general distillation as well as in that of the task:

- `w/o GD` starts from random weights; `w/o TD` learns the labels instead, those of variants given by the teacher; `w/o DA` has the
  examples only.
- `w/o Embd`, `w/o Attn`, `w/o Hidn`, `w/o Trm` (neither of these two): without that term; `w/o Pred`: the second step learns labels.
- `top`, `bottom`: other layers of the teacher.
- `no distillation`: random weights, labels, variants with the labels of their originals: nothing in it comes from a teacher.

All arms see the task for the same number of steps. Variants: p = 0.2 and K = 5, since few words fit each place of our grammar (the
paper's p = 0.4, K = 15 is an arm of 6.3-augmentation). Seeds change the student's weights and the order of the data; the teacher and the
variants are the same for all. Scores: accuracy (sentiment) and F1 of entities (ner) on 1,000 test examples.
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
    cooccurrence_vectors,
    general_distillation,
    passages,
    task_distillation,
    teacher_labels,
)
from bertcourse.training import fit, pad

NAME = "6.5-ablations"
ARMS = {
    "TinyBERT": {}, "w/o GD": {"general": False}, "w/o TD": {"task": "labels"}, "w/o DA": {"data": "examples"},
    "w/o Embd": {"embedding": False}, "w/o Pred": {"prediction": False}, "w/o Trm": {"attention": False, "hidden": False},
    "w/o Attn": {"attention": False}, "w/o Hidn": {"hidden": False}, "top": {"layers": "top"}, "bottom": {"layers": "bottom"},
    "no distillation": {"general": False, "task": "labels", "data": "own labels"},
}  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "lang": "en", "examples": 500, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16", "variants": 20, "p": 0.2, "k": 5,
    "documents": 6000, "general": {"steps": 2000, "lr": 3e-3}, "task": {"steps": [800, 800], "lr": [3e-3, 3e-3]},
    "tasks": {"sentiment": {"score": "accuracy", "teacher_steps": 300, "teacher_lr": 1e-3},
              "ner": {"score": "f1", "teacher_steps": 300, "teacher_lr": 1e-3}},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}
TEXT = ("sentence", "tokens")


def text():
    "Documents of the toy world in passages, encoded."
    return passages(corpus.texts(CONFIG["documents"], lang=CONFIG["lang"], split="train"), profiles.load("tiny").tokenizer())


def variants(task, teacher, rows):
    "Variants of the rows, once with the teacher's labels and once with those of their originals."
    profile, name = profiles.load("tiny"), next(name for name in TEXT if name in rows.column_names)
    words = [s.lower().replace(".", " .").replace(",", " ,").split()
             for document in corpus.texts(3000, lang=CONFIG["lang"], split="train") for s in document]  # fmt: skip
    augment = Augmenter(profile.tokenizer(), profile.model(AutoModelForMaskedLM), cooccurrence_vectors(words).near, CONFIG["p"], CONFIG["k"])
    made = [[{name: v} for (v,) in some] for i in range(0, len(rows), 50)
            for some in augment([(row[name],) for row in rows.select(range(i, i + 50))], CONFIG["variants"], first=i)]  # fmt: skip
    label = "label" if "label" in rows.column_names else "ner_tags"
    kept = [new | {label: row[label]} for row, some in zip(rows, made) for new in some]
    return {"teacher's labels": teacher_labels(task, teacher, [new for some in made for new in some]), "own labels": kept}


def prepare(name: str):
    "Task, encoded training sets by kind, test rows, teacher."
    profile, of = profiles.load("tiny"), CONFIG["tasks"][name]
    found = dataset(name, CONFIG["lang"], {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})
    task = task_of(name, found["train"], profile.tokenizer())
    examples = task.encode(found["train"])
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, examples, steps=of["teacher_steps"], lr=of["teacher_lr"], collate=task.collate, **COMMON)
    sets = {kind: examples + task.encode(more) for kind, more in variants(task, teacher, found["train"]).items()}
    return task, sets | {"examples": examples}, found["test"], teacher


def general(terms: Terms, layers: str, seed: int) -> Intermediate:
    "An encoder and its projections after general distillation."
    profile = profiles.load("tiny")
    set_seed(seed)
    student = new_model(profile.student_config)(AutoModel, "eager")
    return general_distillation(student, profile.model(AutoModel, attn_implementation="eager"), once((NAME, "text"), text), layers=layers,
                                terms=terms, **CONFIG["general"], collate=pad, seed=seed, **COMMON)  # fmt: skip


def run(arm: str, seed: int) -> dict[str, float]:
    "Scores of student and teacher on each task."
    how, scores = ARMS[arm], {}
    layers = how.get("layers", "uniform")
    terms = Terms(**{name: how.get(name, True) for name in ("embedding", "attention", "hidden")})
    first = once((NAME, terms, layers, seed), lambda: general(terms, layers, seed)) if how.get("general", True) else None
    for name, of in CONFIG["tasks"].items():
        task, sets, test, teacher = once((NAME, name), lambda name=name: prepare(name))
        set_seed(seed)
        student = task.model(new_model(profiles.load("tiny").student_config), attn_implementation="eager")
        if first is not None:
            student.bert.load_state_dict(first.student.state_dict(), strict=False)  # without a pooler, where the head has none
        rows, (steps, lr) = sets[how.get("data", "teacher's labels")], (CONFIG["task"]["steps"], CONFIG["task"]["lr"])
        settings = {"collate": task.collate, "seed": seed, **COMMON}
        if how.get("task") == "labels":
            fit(student, rows, steps=sum(steps), lr=lr[1], **settings)
        elif how.get("prediction", True):
            task_distillation(student, teacher, rows, steps=steps, lr=lr, general=first, layers=layers, terms=terms, **settings)
        else:
            pupil = Intermediate(student, teacher, layers, terms)
            for part in ("project_hidden", "project_embedding"):
                getattr(pupil, part).load_state_dict(getattr(first, part).state_dict())
            fit(pupil, rows, steps=steps[0], lr=lr[0], **settings)
            fit(student, rows, steps=steps[1], lr=lr[1], **settings)
        scores[name] = task.metrics(test)(student)[of["score"]]
        scores[f"{name} teacher"] = task.metrics(test)(teacher)[of["score"]]
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for name in CONFIG["tasks"]:
        digest.update(str(list(dataset(name, CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
