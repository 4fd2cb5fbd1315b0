"""Does it matter which layers get the small learning rates? Five ways to share them out, on 300 reviews in five grades.

The arms give the embeddings (0), the encoder layers 1 to 4 and the head (5) these shares of one learning rate:
`decay 0.95` and `decay 0.8` multiply by the factor for each layer down from the head. `upside down` uses the same rates as
`decay 0.8` in the opposite order, the smallest on top. `equal, lower` gives their geometric mean to all. The head always has the
full rate. Each seed has reviews of its own, the same for all arms.

- `test`: accuracy on 1,000 test reviews (0.95 is the best, the rest is noise).
- `masked en`, `masked zh`: loss on masked tokens (nats) with the pre-trained head put back, as in 8.2-learning-rate.
- `moved i`: length of the change of layer i's weights as a share of their length before; 0: the embeddings.
- `cka i`: linear CKA between the vectors after layer i before and after fine-tuning, over the tokens of test reviews (1: equal
  up to rotation, scale and shift; Kornblith et al. 2019).
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForPreTraining

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.finetuning import layer_groups
from bertcourse.masking import Collator
from bertcourse.pairs import Inputs
from bertcourse.pieces import toy_pieces
from bertcourse.tasks import task_of
from bertcourse.training import fit

LAYERS = 4
ARMS = {  # shares of the learning rate: embeddings, layers 1 to 4, head
    "equal": [1.0] * (LAYERS + 2),
    "decay 0.95": [0.95 ** (LAYERS + 1 - i) for i in range(LAYERS + 2)],
    "decay 0.8": [0.8 ** (LAYERS + 1 - i) for i in range(LAYERS + 2)],
    "upside down": [0.8 ** (i + 1) for i in range(LAYERS + 1)] + [1.0],
    "equal, lower": [0.8**3] * (LAYERS + 1) + [1.0],
}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": ARMS, "task": "sentiment", "lang": "en", "examples": 300, "test_examples": 1000, "steps": 300, "batch": 16, "lr": 1e-3,
    "warmup": 0.1, "precision": "bf16", "languages": ["en", "zh"], "masked_inputs": 200, "max_length": 64, "cka_examples": 200,
}  # fmt: skip


@lru_cache
def data():
    "Training sets of all seeds one after the other, and the test set."
    return dataset(CONFIG["task"], CONFIG["lang"], {"train": CONFIG["examples"] * len(SEEDS), "test": CONFIG["test_examples"]})


@lru_cache
def masked_batch(lang: str) -> dict[str, Tensor]:
    "Test documents of one language with their masked tokens, always the same ones."
    tokenizer, n = profiles.load("tiny").tokenizer(), CONFIG["masked_inputs"]
    inputs = Inputs(toy_pieces(tokenizer, n, (lang,), split="test"), tokenizer, n, CONFIG["max_length"], seed=0)
    return Collator(tokenizer)([inputs[i] for i in range(n)])


@torch.no_grad()
def masked_loss(encoder: torch.nn.Module, lang: str) -> float:
    "Mean loss of the masked tokens, with the head of the shipped model on top of an encoder."
    head, batch = profiles.load("tiny").model(AutoModelForPreTraining).cls.predictions, masked_batch(lang)
    names = ("input_ids", "attention_mask", "token_type_ids")
    hidden_states = encoder(**{name: batch[name] for name in names}).last_hidden_state
    chosen = batch["labels"] != -100
    return torch.nn.functional.cross_entropy(head(hidden_states[chosen]), batch["labels"][chosen]).item()


def moved(encoder: torch.nn.Module, original: torch.nn.Module, part: str) -> float:
    "How far the weights of a part are from where they began, as a share of their length then."
    start = dict(original.named_parameters())
    pairs = [(p.detach(), start[name].detach()) for name, p in encoder.named_parameters() if name.startswith(part)]
    change = sum((after - before).square().sum().item() for after, before in pairs)
    return (change / sum(before.square().sum().item() for _, before in pairs)) ** 0.5


@torch.no_grad()
def vectors(encoder: torch.nn.Module) -> list[Tensor]:  # for each layer (tokens, H)
    "The vectors of every token of some test reviews after each layer, padding left out."
    rows = data()["test"].select(range(CONFIG["cka_examples"]))["sentence"]
    inputs = profiles.load("tiny").tokenizer()(list(rows), padding=True, return_tensors="pt")
    hidden_states = encoder(**inputs, output_hidden_states=True).hidden_states
    return [states[inputs["attention_mask"].bool()] for states in hidden_states]


def cka(x: Tensor, y: Tensor) -> float:  # of (tokens, H) and (tokens, H)
    "Linear centred kernel alignment."
    x, y = (x - x.mean(0)).double(), (y - y.mean(0)).double()
    return ((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def run(arm: str, seed: int) -> dict[str, float]:
    "Train with one way to share out the learning rate."
    profile, found = profiles.load("tiny"), data()
    task = task_of(CONFIG["task"], found["train"], profile.tokenizer())
    rows = found["train"].select(range(seed * CONFIG["examples"], (seed + 1) * CONFIG["examples"]))
    torch.manual_seed(seed)
    model, original = task.model(profile.model, attn_implementation="eager"), profile.model(AutoModel)
    groups = layer_groups(model, CONFIG["lr"], 1.0)
    for group in groups:
        group["lr"] = CONFIG["lr"] * ARMS[arm][group["layer"]]
    fit(model, task.encode(rows), steps=CONFIG["steps"], lr=CONFIG["lr"], warmup=CONFIG["warmup"], batch_size=CONFIG["batch"],
        collate=task.collate, precision=CONFIG["precision"], seed=seed, progress=False,
        optimizer=torch.optim.AdamW(groups, lr=CONFIG["lr"], eps=1e-6))  # fmt: skip
    scores = {"test": task.metrics(found["test"])(model)["accuracy"]}
    scores |= {f"masked {lang}": masked_loss(model.bert, lang) for lang in CONFIG["languages"]}
    parts = ["embeddings", *(f"encoder.layer.{i}." for i in range(LAYERS))]
    scores |= {f"moved {i}": moved(model.bert, original, part) for i, part in enumerate(parts)}
    before, after = vectors(original), vectors(model.bert)
    return scores | {f"cka {i}": cka(before[i], after[i]) for i in range(LAYERS + 1)}


def data_fingerprint() -> str:
    "Of the test examples, of the masked tokens and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset(CONFIG["task"], CONFIG["lang"], {"test": 100})["test"])).encode())
    digest.update(str([masked_batch(lang)["labels"].sum().item() for lang in CONFIG["languages"]]).encode())
    return digest.hexdigest()[:16]
