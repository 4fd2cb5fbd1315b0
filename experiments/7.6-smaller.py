"""What does a smaller model cost in accuracy? The course's small BERT, fine-tuned on Chinese and English reviews, once for each seed.

Every arm changes the same fine-tuned model of its seed: weights in 8 bits, fewer heads, a layer less. Heads are ordered by their
importance on 512 validation examples (Michel et al. 2019, without their norm for each layer); each layer keeps at least one. Three
arms are trained for 100 steps more: without a cut (the control), after 8 heads are cut, after the last layer is cut. Scores: accuracy
on 2,000 test examples of each language.
"""

import copy
import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.deployment import Calibration, export, head_importance, prune_heads, prune_layers, quantize
from bertcourse.experiments import once
from bertcourse.runtime import Session, pad_arrays
from bertcourse.tasks import task_of
from bertcourse.training import fit

ARMS = ["whole", "dynamic INT8", "static INT8", "4 heads cut", "8 heads cut", "8 random heads cut", "8 most important heads cut",
        "layer 1 cut", "layer 2 cut", "layer 3 cut", "layer 4 cut", "whole, 100 steps more", "8 heads cut, 100 steps",
        "layer 4 cut, 100 steps"]  # fmt: skip
PAIRS = [*((arm, "whole") for arm in ARMS[1:6]), *((arm, "whole") for arm in ARMS[7:11]), ("8 heads cut", "8 random heads cut"),
         ("8 heads cut, 100 steps", "whole, 100 steps more"), ("layer 4 cut, 100 steps", "whole, 100 steps more")]  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {"langs": ["zh", "en"], "train_examples": 3000, "validation_examples": 256, "test_examples": 2000, "steps": 600, "lr": 1e-3,
          "batch": 32, "warmup": 0.1, "precision": "bf16", "again": {"steps": 100, "lr": 3e-4}, "pairs": PAIRS}  # fmt: skip
SIZES = {"train": CONFIG["train_examples"], "validation": CONFIG["validation_examples"], "test": CONFIG["test_examples"]}


def tune(model, rows, task, seed, steps, lr):
    "Fine-tune a model."
    fit(model, rows, steps=steps, lr=lr, seed=seed, batch_size=CONFIG["batch"], warmup=CONFIG["warmup"],
        precision=CONFIG["precision"], collate=task.collate, progress=False)  # fmt: skip


def prepare(seed: int) -> dict:
    "Data, the model of a seed and its ONNX file."
    profile = profiles.load("tiny")
    data = {lang: dataset("sentiment", lang, SIZES) for lang in CONFIG["langs"]}
    task = task_of("sentiment", data["en"]["train"], profile.tokenizer())
    rows = {split: {lang: task.encode(data[lang][split]) for lang in data} for split in SIZES}
    set_seed(seed)
    model = task.model(profile.model, attn_implementation="eager", hidden_dropout_prob=0.1)
    train = [row for pair in zip(*rows["train"].values(), strict=True) for row in pair]
    tune(model, train, task, seed, CONFIG["steps"], CONFIG["lr"])
    folder = Path(tempfile.mkdtemp(prefix="bertcourse-smaller-"))
    path = export(model, folder / "model.onnx", task.max_length, profile.tokenizer().model_input_names)
    return {"task": task, "train": train, "rows": rows, "model": model, "path": path, "folder": folder}


@torch.inference_mode()
def answers_of_model(model, rows: list) -> np.ndarray:
    "The likeliest class of each row."
    found = []
    for start in range(0, len(rows), 32):
        batch = pad_arrays(rows[start:start + 32])
        found += model.eval()(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.argmax(-1).tolist()
    return np.array(found)


def answers_of_graph(path: Path, rows: list) -> np.ndarray:
    "The same from an ONNX file."
    return np.array([found["logits"].argmax() for found in Session(path, threads=1).outputs_of(rows)])


def without_heads(made: dict, count: int, which: str, seed: int):
    "A copy of the model without some of its heads; each layer keeps one."
    task, model = made["task"], made["model"]
    rows = [row for lang in CONFIG["langs"] for row in made["rows"]["validation"][lang]]
    importance = head_importance(model, [task.collate(rows[i:i + 64]) for i in range(0, len(rows), 64)])
    layers, heads = importance.shape
    order = importance.flatten().argsort(descending=which == "most important").tolist()
    if which == "random":
        order = np.random.default_rng(seed).permutation(layers * heads).tolist()
    gone, left = {}, Counter({layer: heads for layer in range(layers)})
    for place in order:
        layer, head = divmod(place, heads)
        if sum(map(len, gone.values())) < count and left[layer] > 1:
            gone.setdefault(layer, []).append(head)
            left[layer] -= 1
    return prune_heads(copy.deepcopy(model), gone)


def changed(arm: str, seed: int, made: dict):
    "The model of an arm: cut, then perhaps trained on."
    if arm.startswith("layer"):
        model = prune_layers(copy.deepcopy(made["model"]), [int(arm.split()[1]) - 1])
    elif "heads" in arm:
        which = "random" if "random" in arm else "most important" if "most" in arm else "least important"
        model = without_heads(made, int(arm.split()[0]), which, seed)
    else:
        model = copy.deepcopy(made["model"])
    if "steps" in arm:
        tune(model, made["train"], made["task"], seed, **CONFIG["again"])
    return model


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy in each language."
    made = once(("7.6-smaller", seed), lambda: prepare(seed))
    rows = made["rows"]["test"]
    if "INT8" in arm:
        texts = [row for pair in zip(*(made["rows"]["train"][lang][:128] for lang in CONFIG["langs"]), strict=True) for row in pair]
        how = {"calibration": Calibration([pad_arrays(texts[i:i + 8]) for i in range(0, len(texts), 8)])} if "static" in arm else {}
        path = quantize(made["path"], made["folder"] / "int8.onnx", **how)
        answers = {lang: answers_of_graph(path, rows[lang]) for lang in rows}
    else:
        model = changed(arm, seed, made)
        answers = {lang: answers_of_model(model, rows[lang]) for lang in rows}
    return {f"accuracy {lang}": float(np.mean([a == row["labels"] for a, row in zip(answers[lang], rows[lang], strict=True)])) for lang in rows}


def data_fingerprint() -> str:
    "Of the examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for lang in CONFIG["langs"]:
        digest.update(str(list(dataset("sentiment", lang, {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
