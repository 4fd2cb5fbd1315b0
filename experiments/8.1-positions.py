"""Learned or sinusoidal position embeddings? Small BERTs, pre-trained alike, with three kinds of position embedding.

`learned` is a table that is trained (like BERT). `sinusoidal` holds the sines and cosines of Vaswani et al. (2017) and is
not trained; it is scaled so that its entries begin as large as those of the learned table. `none` has no positions.
All are trained as masked language models on passages of whole sentences of up to 32 tokens; all have room for 64. Scores:

- `within`: share of hidden tokens found in unseen passages as long as those of training.
- `beyond`: the same for hidden tokens at positions from 32 on, in passages of 33 to 64 tokens. These positions never occurred in training.
- `before`: the same passages, hidden tokens at positions up to 31.
"""

import hashlib
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from bertcourse.bert import BertModel
from bertcourse.corpus import documents, load_tokenizer
from bertcourse.experiments import once

ARMS = {"learned": "a trained table", "sinusoidal": "sines and cosines, fixed", "none": "zeros, fixed"}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": ARMS, "lang": "en", "documents": 5000, "test_documents": 1000, "trained_length": 32, "max_length": 64, "steps": 800,
    "batch": 24, "lr": 3e-3, "warmup": 0.1, "hidden": 0.25, "layers": 2, "hidden_size": 64, "heads": 4, "initializer_range": 0.06,
}  # fmt: skip


def sinusoids(length: int, size: int) -> Tensor:  # (length, size)
    "Position encoding of Vaswani et al. (2017), §3.5."
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Model(nn.Module):
    "A BERT with a tied head over the vocabulary."

    def __init__(self, arm: str, vocab_size: int):
        super().__init__()
        config = BertConfig(
            vocab_size=vocab_size, hidden_size=CONFIG["hidden_size"], num_attention_heads=CONFIG["heads"],
            intermediate_size=4 * CONFIG["hidden_size"], num_hidden_layers=CONFIG["layers"],
            max_position_embeddings=CONFIG["max_length"], initializer_range=CONFIG["initializer_range"],
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.bert = BertModel(config, add_pooling_layer=False)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        table = self.bert.embeddings.position_embeddings.weight
        if arm != "learned":
            table.requires_grad_(False)
            table.zero_()
        if arm == "sinusoidal":  # entries of a sinusoid have a mean square of 1/2
            table.add_(sinusoids(*table.shape) * 2**0.5 * config.initializer_range)

    def forward(self, ids: Tensor, at: Tensor) -> Tensor:  # (batch, n), truth values (batch, n) → logits (places, V)
        hidden = self.bert(ids, (ids > 0).long()).last_hidden_state
        return self.norm(F.gelu(self.transform(hidden[at]))) @ self.bert.embeddings.word_embeddings.weight.T


def read(split: str, n: int, shortest: int, longest: int) -> list[list[int]]:
    "Passages of whole sentences, as many as fit into `longest` ids with [CLS] and [SEP], if they have `shortest` or more."
    tokenizer, rows = load_tokenizer(), []
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    for document in documents(n, seed=3, lang=CONFIG["lang"], split=split):
        passage: list[int] = []
        for sentence in [*document, None]:
            ids = tokenizer(sentence.text, add_special_tokens=False)["input_ids"] if sentence else []
            if sentence is None or len(passage) + len(ids) + 2 > longest:
                if len(passage) + 2 >= shortest:
                    rows.append([cls, *passage, sep])
                passage = []
            passage += ids
    return rows


def pad(rows: list[list[int]]) -> Tensor:
    "Ids (batch, n); 0 is [PAD]."
    n = max(map(len, rows))
    return torch.tensor([row + [0] * (n - len(row)) for row in rows])


def train(model: Model, rows: list[list[int]], mask_id: int, seed: int) -> None:
    "Masked language modelling: warm up, then decay to 0."
    rng, steps = random.Random(seed), CONFIG["steps"]
    warmup = steps * CONFIG["warmup"]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=CONFIG["lr"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: min((t + 1) / warmup, (steps - t) / (steps - warmup)))
    for _ in range(steps):
        ids = pad([rows[int(rng.random() * len(rows))] for _ in range(CONFIG["batch"])])
        at = (torch.rand(ids.shape) < CONFIG["hidden"]) & (ids > mask_id)
        loss = F.cross_entropy(model(ids.masked_fill(at, mask_id), at), ids[at])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def find(model: Model, rows: list[list[int]], mask_id: int) -> tuple[Tensor, Tensor]:  # right or not, positions
    "Hidden tokens of a test set, the same for every arm and seed."
    chance, hits, places = torch.Generator().manual_seed(0), [], []
    for start in range(0, len(rows), 64):
        ids = pad(rows[start : start + 64])
        at = (torch.rand(ids.shape, generator=chance) < CONFIG["hidden"]) & (ids > mask_id)
        hits.append(model(ids.masked_fill(at, mask_id), at).argmax(-1) == ids[at])
        places.append(at.nonzero()[:, 1])
    return torch.cat(hits), torch.cat(places)


def run(arm: str, seed: int) -> dict[str, float]:
    "Train one arm and ask it."
    torch.manual_seed(seed)
    tokenizer, n = load_tokenizer(), CONFIG["trained_length"]
    train_rows = once("8.1-positions train", lambda: read("train", CONFIG["documents"], 1, n))
    short = once("8.1-positions short", lambda: read("test", CONFIG["test_documents"], 1, n))
    long = once("8.1-positions long", lambda: read("test", CONFIG["test_documents"], n + 1, CONFIG["max_length"]))
    with torch.no_grad():
        model = Model(arm, len(tokenizer))
    train(model, train_rows, tokenizer.mask_token_id, seed)
    within, _ = find(model.eval(), short, tokenizer.mask_token_id)
    hits, places = find(model, long, tokenizer.mask_token_id)
    scores = {"within": within, "before": hits[places < n], "beyond": hits[places >= n]}
    return {name: values.double().mean().item() for name, values in scores.items()} | {
        f"{name} tokens": len(values) for name, values in scores.items()
    }


def data_fingerprint() -> str:
    "Of the first passages and the vocabulary."
    digest = hashlib.sha256()
    for split in ("train", "test"):
        digest.update(str(read(split, 30, 1, CONFIG["max_length"])).encode())
    digest.update(str(sorted(load_tokenizer().get_vocab().items())).encode())
    return digest.hexdigest()[:16]
