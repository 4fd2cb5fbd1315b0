"""What does the learning rate of fine-tuning do to the task, and to what pre-training had taught?

1,000 reviews in five grades, three epochs, one learning rate for all weights. Each seed has reviews of its own, the same for every rate.

- `test`: accuracy on 1,000 test reviews (0.95 is the best, the rest is noise).
- `scratch`: the same from random weights.
- `masked en`, `masked zh`: loss on masked tokens (nats) of test documents of the toy world, after fine-tuning, with the
  pre-trained head for masked words put back on the encoder. Page 8.2 computes what it is before fine-tuning.
- `moved`: length of the change of the encoder's weights as a share of their length.
- `train loss`: mean of the last tenth of the steps; guessing gives ln 5 = 1.609.
"""

import hashlib
from functools import lru_cache
from statistics import mean

import torch
from transformers import AutoModelForPreTraining

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.masking import Collator
from bertcourse.pairs import Inputs
from bertcourse.pieces import toy_pieces
from bertcourse.tasks import task_of, untrained
from bertcourse.training import fit

ARMS = {"3e-5": 3e-5, "1e-4": 1e-4, "3e-4": 3e-4, "1e-3": 1e-3, "3e-3": 3e-3, "1e-2": 1e-2}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "task": "sentiment", "lang": "en", "examples": 1000, "test_examples": 1000, "epochs": 3, "batch": 16, "warmup": 0.1,
    "precision": "bf16", "languages": ["en", "zh"], "masked_inputs": 200, "max_length": 64,
}  # fmt: skip


@lru_cache
def data():
    "Training sets of all seeds one after the other, and the test set."
    return dataset(CONFIG["task"], CONFIG["lang"], {"train": CONFIG["examples"] * len(SEEDS), "test": CONFIG["test_examples"]})


@lru_cache
def masked_batch(lang: str) -> dict[str, torch.Tensor]:
    "Test documents of one language with their masked tokens, always the same ones."
    tokenizer, n = profiles.load("tiny").tokenizer(), CONFIG["masked_inputs"]
    inputs = Inputs(toy_pieces(tokenizer, n, (lang,), split="test"), tokenizer, n, CONFIG["max_length"], seed=0)
    return Collator(tokenizer)([inputs[i] for i in range(n)])


@torch.no_grad()
def masked_loss(encoder: torch.nn.Module, lang: str) -> float:
    "Mean loss of the masked tokens, with the head of the shipped model on top of an encoder."
    original = profiles.load("tiny").model(AutoModelForPreTraining)
    head, batch = original.cls.predictions, masked_batch(lang)
    names = ("input_ids", "attention_mask", "token_type_ids")
    hidden_states = encoder(**{name: batch[name] for name in names}).last_hidden_state
    chosen = batch["labels"] != -100
    return torch.nn.functional.cross_entropy(head(hidden_states[chosen]), batch["labels"][chosen]).item()


def moved(encoder: torch.nn.Module, start: dict[str, torch.Tensor], part: str = "") -> float:
    "How far the weights of a part are from where they began, as a share of their length then."
    pairs = [(p.detach(), start[name]) for name, p in encoder.named_parameters() if name.startswith(part)]
    change = sum((after - before).square().sum().item() for after, before in pairs)
    return (change / sum(before.square().sum().item() for _, before in pairs)) ** 0.5


def train(source, lr: float, seed: int) -> tuple[torch.nn.Module, float, float]:
    "A fine-tuned model, its accuracy and its training loss."
    found, tokenizer = data(), profiles.load("tiny").tokenizer()
    task = task_of(CONFIG["task"], found["train"], tokenizer)
    rows = found["train"].select(range(seed * CONFIG["examples"], (seed + 1) * CONFIG["examples"]))
    torch.manual_seed(seed)
    model = task.model(source, attn_implementation="eager")
    history = fit(model, task.encode(rows), epochs=CONFIG["epochs"], lr=lr, warmup=CONFIG["warmup"], batch_size=CONFIG["batch"],
                  log_every=1, collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False)  # fmt: skip
    losses = history.column("loss")[1]
    return model, task.metrics(found["test"])(model)["accuracy"], mean(losses[-max(1, len(losses) // 10) :])


def run(arm: str, seed: int) -> dict[str, float]:
    "Train at one rate, from the shipped and from random weights."
    profile = profiles.load("tiny")
    model, accuracy, loss = train(profile.model, ARMS[arm], seed)
    start = {name: p.detach() for name, p in profile.model(AutoModelForPreTraining).bert.named_parameters()}
    scores = {f"masked {lang}": masked_loss(model.bert, lang) for lang in CONFIG["languages"]}
    _, scratch, _ = train(untrained(profile), ARMS[arm], seed)
    return {"test": accuracy, "scratch": scratch, "train loss": loss, "moved": moved(model.bert, start)} | scores


def data_fingerprint() -> str:
    "Of the test examples, of the masked tokens and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    digest.update(str([masked_batch(lang)["labels"].sum().item() for lang in CONFIG["languages"]]).encode())
    return digest.hexdigest()[:16]
