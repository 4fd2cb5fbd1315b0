"""What do the levers of faster inference cost in accuracy? The course's small BERT, fine-tuned on sentiment, once for each seed.

Every arm changes the same fine-tuned model of its seed: other numbers (bf16, 8 bits), fewer heads or layers, shorter inputs. Heads go
in the order of their importance on 512 validation examples (Michel et al. 2019, without their norm for each layer); a layer keeps one
at least. A model that is trained on after the cut has a counterpart that is trained on without it. Score: accuracy on 2,000 test
examples; "agreement" is the share of answers that are those of FP32.
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

ARMS = ["FP32", "bf16", "dynamic INT8", "dynamic INT8, weights in 7 bits", "static INT8, 256 texts", "static INT8, 4 texts",
        "static INT8, 256 texts of another task", "4 of 16 heads cut", "8 of 16 heads cut", "1 of 4 layers cut",
        "1 of 4 layers cut, then 100 steps", "FP32, 100 steps more", "first 12 tokens", "first 8 tokens", "last 8 tokens"]  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {"lang": "en", "train_examples": 3000, "validation_examples": 512, "test_examples": 2000, "steps": 400, "lr": 1e-3, "batch": 32,
          "warmup": 0.1, "precision": "bf16", "again": {"steps": 100, "lr": 3e-4}}  # fmt: skip
SIZES = {"train": CONFIG["train_examples"], "validation": CONFIG["validation_examples"], "test": CONFIG["test_examples"]}


def tune(model, rows, task, seed, steps, lr):
    "Fine-tune a model."
    fit(model, rows, steps=steps, lr=lr, seed=seed, batch_size=CONFIG["batch"], warmup=CONFIG["warmup"],
        precision=CONFIG["precision"], collate=task.collate, progress=False)  # fmt: skip


def prepare(seed: int) -> dict:
    "Data, the model of a seed, its ONNX file and its answers."
    profile, found = profiles.load("tiny"), dataset("sentiment", CONFIG["lang"], SIZES)
    task = task_of("sentiment", found["train"], profile.tokenizer())
    rows = {split: task.encode(found[split]) for split in SIZES}
    set_seed(seed)
    model = task.model(profile.model, attn_implementation="eager", hidden_dropout_prob=0.1)
    tune(model, rows["train"], task, seed, CONFIG["steps"], CONFIG["lr"])
    folder = Path(tempfile.mkdtemp(prefix="bertcourse-levers-"))
    path = export(model, folder / "model.onnx", task.max_length, profile.tokenizer().model_input_names)
    answers = answers_of_graph(path, rows["test"])
    return {"task": task, "rows": rows, "model": model, "path": path, "folder": folder, "answers": answers}


def answers_of_graph(path: Path, rows: list) -> np.ndarray:
    "The likeliest class of each row."
    return np.array([found["logits"].argmax() for found in Session(path, threads=1).outputs_of(rows)])


@torch.inference_mode()
def answers_of_model(model, rows: list, dtype=torch.float32) -> np.ndarray:
    "The same from PyTorch."
    found = []
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        for start in range(0, len(rows), 32):
            batch = pad_arrays(rows[start:start + 32])
            logits = model.eval()(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits
            found += logits.argmax(-1).tolist()
    return np.array(found)


def calibration(arm: str, made: dict) -> Calibration:
    "Texts to measure the ranges of activations on."
    rows = made["rows"]["train"]
    if "another task" in arm:
        task = task_of("nli", dataset("nli", CONFIG["lang"], {"train": 256})["train"], profiles.load("tiny").tokenizer())
        rows = task.encode(dataset("nli", CONFIG["lang"], {"train": 256})["train"])
    rows = rows[:4 if " 4 texts" in arm else 256]
    return Calibration([pad_arrays(rows[i:i + 8]) for i in range(0, len(rows), 8)])


def without_heads(made: dict, count: int):
    "A copy of the model without its least important heads."
    task, model, rows = made["task"], made["model"], made["rows"]["validation"]
    importance = head_importance(model, [task.collate(rows[i:i + 64]) for i in range(0, len(rows), 64)])
    layers, heads = importance.shape
    gone, left = {}, Counter({layer: heads for layer in range(layers)})
    for place in importance.flatten().argsort().tolist():
        layer, head = divmod(place, heads)
        if sum(map(len, gone.values())) < count and left[layer] > 1:
            gone.setdefault(layer, []).append(head)
            left[layer] -= 1
    return prune_heads(copy.deepcopy(model), gone)


def shortened(rows: list, arm: str) -> list:
    "The first or last tokens of each row, with [CLS] and [SEP]."
    which, count = arm.split()[0], int(arm.split()[1]) - 2
    short = []
    for row in rows:
        ids = list(row["input_ids"])
        inner = ids[1:-1][:count] if which == "first" else ids[1:-1][-count:]
        short.append({"input_ids": [ids[0], *inner, ids[-1]]})
    return short


def answers(arm: str, seed: int, made: dict) -> np.ndarray:
    "What the changed model answers."
    rows, model = made["rows"]["test"], made["model"]
    if arm == "FP32":
        return made["answers"]
    if arm == "bf16":
        return answers_of_model(model, rows, torch.bfloat16)
    if "INT8" in arm:
        how = {"reduce_range": "7 bits" in arm}
        if arm.startswith("static"):
            how["calibration"] = calibration(arm, made)
        return answers_of_graph(quantize(made["path"], made["folder"] / "int8.onnx", **how), rows)
    if "heads" in arm:
        return answers_of_model(without_heads(made, int(arm.split()[0])), rows)
    if "tokens" in arm:
        return answers_of_graph(made["path"], shortened(rows, arm))
    changed = copy.deepcopy(model)
    if "layers" in arm:
        prune_layers(changed, [3])
    if "steps" in arm:
        tune(changed, made["rows"]["train"], made["task"], seed, **CONFIG["again"])
    return answers_of_model(changed, rows)


def run(arm: str, seed: int) -> dict[str, float]:
    "Accuracy, and agreement with FP32."
    made = once(("8.4-levers", seed), lambda: prepare(seed))
    found, labels = answers(arm, seed, made), np.array([row["labels"] for row in made["rows"]["test"]])
    return {"accuracy": float((found == labels).mean()), "agreement": float((found == made["answers"]).mean())}


def data_fingerprint() -> str:
    "Of the examples and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    for name in ("sentiment", "nli"):
        digest.update(str(list(dataset(name, CONFIG["lang"], {"test": 100})["test"])).encode())
    return digest.hexdigest()[:16]
