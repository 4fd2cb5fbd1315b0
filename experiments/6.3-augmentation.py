"""Which augmentation? TinyBERT's Algorithm 1, in three settings, beside the guide's other methods and none.

Every arm is the whole of TinyBERT, as `TinyBERT` in 6.5-ablations: the same general distillation, teacher, examples and steps; only the 20
variants of each example are made in another way. All of them are labelled by the teacher, whose outputs the student learns.

- `p = 0.4, K = 15` is the paper's Algorithm 1 as it is written, `p = 0.2, K = 5` the setting of 6.5-ablations.
- `stop words kept` is Algorithm 1 as the authors' code runs it, p = 0.4 and K = 15: it never replaces a stop word, and it draws the
  candidates of every word from the original sentence.
- `neighbours` replaces a tenth of the words by one of the 5 nearest among word vectors of the corpus; `insert, delete, swap` are the other
  operations of easy data augmentation (Wei and Zou 2019), each on a tenth of the words.
- `back-translation` is what our bilingual grammar makes of a row on its way to Chinese and back, which is mostly the same again.

Scores: accuracy (sentiment) and F1 of entities (ner) on 1,000 test examples; `kept` is the share of variants that the teacher labels as it
does the original, `same` the share that are the original.
"""

import hashlib
import random
import re

from transformers import AutoModel, AutoModelForMaskedLM, set_seed

from bertcourse import corpus, profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset, examples
from bertcourse.distillation import new_model
from bertcourse.experiments import once
from bertcourse.finetuning import eda
from bertcourse.tasks import task_of
from bertcourse.tinybert import (
    STOP_WORDS,
    Augmenter,  # fmt: skip
    cooccurrence_vectors,
    general_distillation,
    passages,
    task_distillation,
    teacher_labels,
)
from bertcourse.training import fit, pad

NAME = "6.3-augmentation"
ARMS = {
    "none": {}, "p = 0.4, K = 15": {"p": 0.4, "k": 15}, "p = 0.2, K = 5": {"p": 0.2, "k": 5},
    "stop words kept": {"p": 0.4, "k": 15, "keep": True},
    "neighbours": {"operations": ("replace",)}, "insert, delete, swap": {"operations": ("insert", "delete", "swap")},
    "back-translation": {"retell": True},
}  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "lang": "en", "examples": 500, "test_examples": 1000, "batch": 32, "warmup": 0.1, "precision": "bf16", "variants": 20,
    "documents": 6000, "general": {"steps": 2000, "lr": 3e-3}, "task": {"steps": [800, 800], "lr": [3e-3, 3e-3]},
    "tasks": {"sentiment": {"score": "accuracy", "teacher_steps": 300, "teacher_lr": 1e-3},
              "ner": {"score": "f1", "teacher_steps": 300, "teacher_lr": 1e-3}},
}  # fmt: skip
COMMON = {"batch_size": CONFIG["batch"], "warmup": CONFIG["warmup"], "precision": CONFIG["precision"], "progress": False}


def words_of(text) -> list[str]:
    "Words and marks; a list of words is that already."
    return re.findall(r"[\w']+|[^\w\s]", text) if isinstance(text, str) else list(text)


def vectors():
    "Word vectors of the corpus."
    documents = corpus.texts(3000, lang=CONFIG["lang"], split="train")
    return cooccurrence_vectors(words_of(sentence.lower()) for document in documents for sentence in document)


def variants(name: str, how: dict, rows) -> list[list]:
    "Texts, or lists of words, for each row."
    profile, column, n = profiles.load("tiny"), "tokens" if "tokens" in rows.column_names else "sentence", CONFIG["variants"]
    if "p" in how:
        near, keep = once((NAME, "vectors"), vectors).near, how.get("keep", False)
        augment = Augmenter(profile.tokenizer(), profile.model(AutoModelForMaskedLM), near, how["p"], how["k"], original_context=keep,
                            stop_words=STOP_WORDS[CONFIG["lang"]] if keep else ())  # fmt: skip
        return [[text for (text,) in some] for i in range(0, len(rows), 50)
                for some in augment([(row[column],) for row in rows.select(range(i, i + 50))], n, first=i)]  # fmt: skip
    if "retell" in how:
        told = [list(examples(name, len(rows), 0, CONFIG["lang"], "train", 0, retelling=k)) for k in range(1, n + 1)]
        return [[again[i][column] for again in told] for i in range(len(rows))]
    rng, near, made = random.Random(0), once((NAME, "vectors"), vectors).near, []
    for row in rows:
        words = words_of(row[column])
        synonyms = {word: near(word, 5) for word in words if near(word, 5)}
        some = [eda(words, synonyms, rng, operations=how["operations"]) for _ in range(n)]
        made.append([" ".join(new) if column == "sentence" else new for new in some])
    return made


def prepare(name: str):
    "Task, training rows, their encoding, test rows, teacher."
    profile, of = profiles.load("tiny"), CONFIG["tasks"][name]
    found = dataset(name, CONFIG["lang"], {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})
    task = task_of(name, found["train"], profile.tokenizer())
    encoded = task.encode(found["train"])
    set_seed(0)
    teacher = task.model(profile.model, attn_implementation="eager")
    fit(teacher, encoded, steps=of["teacher_steps"], lr=of["teacher_lr"], collate=task.collate, **COMMON)
    return task, found["train"], encoded, found["test"], teacher


def augmented(name: str, arm: str):
    "Encoded variants, the share with the label of their original, the share that are the original."
    task, rows, _, _, teacher = once((NAME, name), lambda: prepare(name))
    made = variants(name, ARMS[arm], rows)
    column = "tokens" if "tokens" in rows.column_names else "sentence"
    new = teacher_labels(task, teacher, [{column: text} for some in made for text in some])
    old = teacher_labels(task, teacher, [{column: text} for text in rows[column]])
    label = "ner_tags" if column == "tokens" else "label"
    pairs = list(zip(new, (row for row in old for _ in range(CONFIG["variants"]))))
    return (task.encode(new), sum(a[label] == b[label] for a, b in pairs) / len(pairs),
            sum(words_of(a[column]) == words_of(b[column]) for a, b in pairs) / len(pairs))  # fmt: skip


def general(seed: int):
    "An encoder and its projections after general distillation."
    profile = profiles.load("tiny")
    text = once((NAME, "text"), lambda: passages(corpus.texts(CONFIG["documents"], lang=CONFIG["lang"], split="train"), profile.tokenizer()))
    set_seed(seed)
    return general_distillation(new_model(profile.student_config)(AutoModel, "eager"), profile.model(AutoModel, attn_implementation="eager"),
                                text, **CONFIG["general"], collate=pad, seed=seed, **COMMON)  # fmt: skip


def run(arm: str, seed: int) -> dict[str, float]:
    "Scores of student and teacher on each task."
    first, scores = once((NAME, "general", seed), lambda: general(seed)), {}
    for name, of in CONFIG["tasks"].items():
        task, _, encoded, test, teacher = once((NAME, name), lambda name=name: prepare(name))
        more, kept, same = once((NAME, name, arm), lambda name=name: augmented(name, arm)) if arm != "none" else ([], 1.0, 1.0)
        set_seed(seed)
        student = task.model(new_model(profiles.load("tiny").student_config), attn_implementation="eager")
        student.bert.load_state_dict(first.student.state_dict(), strict=False)  # without a pooler, where the head has none
        task_distillation(student, teacher, encoded + more, steps=CONFIG["task"]["steps"], lr=CONFIG["task"]["lr"], general=first,
                          collate=task.collate, seed=seed, **COMMON)  # fmt: skip
        scores |= {name: task.metrics(test)(student)[of["score"]], f"{name} teacher": task.metrics(test)(teacher)[of["score"]],
                   f"{name} kept": kept, f"{name} same": same}  # fmt: skip
    return scores


def data_fingerprint() -> str:
    "Of the test examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for name in CONFIG["tasks"]:
        digest.update(str(list(dataset(name, CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
