"""Does it matter which side a model can see? Three encoders of almost equal size learn to fill gaps in the toy world's text.

`both sides` attends to all positions (like BERT), `left only` to those before it (like GPT), `two halves` has two
separate stacks of half the layers, one for each direction, whose vectors are joined at the top (like ELMo). All get the
same text, steps and optimiser. Each is then asked for Chinese measure words and verbs that agree with a noun, one hidden
at a time, where the noun stands before them (left) or after them (right).
"""

import hashlib
import random
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from bertcourse.bert import BertModel
from bertcourse.corpus import documents, load_tokenizer

ARMS = {"both sides": "BERT", "left only": "GPT", "two halves": "ELMo"}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": ARMS, "lang": "zh", "documents": 6000, "test_documents": 2000, "max_length": 80, "steps": 4000, "batch": 32,
    "lr": 4e-3, "warmup": 0.1, "masked": 0.2, "layers": 2, "hidden_size": 64, "heads": 4, "initializer_range": 0.06,
}  # fmt: skip


class Model(nn.Module):
    "An encoder that sees one side, the other, or both, under a masked-language-model head."

    def __init__(self, arm: str, vocab_size: int):
        super().__init__()
        self.halves = 2 if arm == "two halves" else 1
        self.arm = arm
        config = BertConfig(
            vocab_size=vocab_size, hidden_size=CONFIG["hidden_size"], num_attention_heads=CONFIG["heads"],
            intermediate_size=4 * CONFIG["hidden_size"], num_hidden_layers=CONFIG["layers"] // self.halves,
            max_position_embeddings=CONFIG["max_length"], initializer_range=CONFIG["initializer_range"],
        )  # fmt: skip
        self.encoders = nn.ModuleList(BertModel(config, add_pooling_layer=False) for _ in range(self.halves))
        if self.halves == 2:  # one set of embeddings, so that all arms have the same
            self.encoders[1].embeddings = self.encoders[0].embeddings
        self.transform = nn.Linear(config.hidden_size * self.halves, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:  # (batch, n) three times → logits (places, V)
        n = ids.shape[1]
        left = torch.ones(n, n, dtype=torch.bool).tril()
        views = {"both sides": [torch.ones_like(left)], "left only": [left], "two halves": [left, left.T]}[self.arm]
        own = torch.eye(n, dtype=torch.bool)  # padding sees itself, or its softmax would have nothing to look at
        seen = [view & mask[:, None, :].bool() | own for view in views]
        x = torch.cat([e(ids, s).last_hidden_state for e, s in zip(self.encoders, seen)], dim=-1)
        x = self.norm(F.gelu(self.transform(x[at])))
        return x @ self.encoders[0].embeddings.word_embeddings.weight.T


def read(split: str, n: int, tokenizer) -> list[dict]:
    "Passages of two sentences as pieces, with the place of each word that agrees with another and the side of that one."
    pieces = lru_cache(None)(lambda word: tuple(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))))
    rows = []
    for document in documents(n, seed=0, lang=CONFIG["lang"], split=split):
        for first in range(0, len(document) - 1, 2):
            ids, places = [tokenizer.cls_token_id], {}
            for s in (first, first + 1):
                for w, word in enumerate(document[s]):
                    places[s, w] = (len(ids), len(ids) + len(pieces(word.text)))
                    ids += pieces(word.text)
                ids.append(tokenizer.sep_token_id)
            words = []
            for (s, w), (begin, end) in places.items():
                word = document[s][w]
                sides = {"left" if c < (s, w) else "right" for c in word.clues if c in places}
                # not pronouns (a name's gender takes longer to learn), nor things (a measure word fits several)
                agrees = word.by == "agreement" and word.pos != "PRON" and word.role != "object"
                if agrees and len(sides) == 1 and all(c in places for c in word.clues):
                    words.append((begin, end, sides.pop()))
            rows.append({"ids": ids, "words": words})
    return rows


def collate(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    "Pad to the longest: ids and attention mask."
    n = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (n - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (n - len(row)) for row in rows])
    return ids, mask


def train(model: Model, rows: list[dict], tokenizer, seed: int) -> None:
    "Masked language modelling: warm up, then decay to 0."
    rng = random.Random(seed)
    steps, warmup = CONFIG["steps"], CONFIG["steps"] * CONFIG["warmup"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=CONFIG["lr"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: min((t + 1) / warmup, (steps - t) / (steps - warmup)))
    model.train()
    for _ in range(steps):
        batch = [rows[int(rng.random() * len(rows))]["ids"] for _ in range(CONFIG["batch"])]
        ids, mask = collate(batch, tokenizer.pad_token_id)
        hidden = (torch.rand(ids.shape) < CONFIG["masked"]) & (ids > tokenizer.mask_token_id)  # no special tokens
        logits = model(ids.masked_fill(hidden, tokenizer.mask_token_id), mask, hidden)
        loss = F.cross_entropy(logits, ids[hidden])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: Model, rows: list[dict], tokenizer) -> dict[str, float]:
    "Share of words of which every piece is guessed, by the side of their clues."
    model.eval()
    right: dict[str, list[bool]] = {"left": [], "right": []}
    tasks = [(row["ids"], word) for row in rows for word in row["words"]]
    for start in range(0, len(tasks), 128):
        chunk = tasks[start : start + 128]
        gapped = [[tokenizer.mask_token_id if b <= i < e else id for i, id in enumerate(ids)] for ids, (b, e, _) in chunk]
        inputs, mask = collate(gapped, tokenizer.pad_token_id)
        at = inputs == tokenizer.mask_token_id
        guesses = model(inputs, mask, at).argmax(-1).split(at.sum(1).tolist())
        for (ids, (b, e, side)), guess in zip(chunk, guesses):
            right[side].append(guess.tolist() == ids[b:e])
    shares = {f"{side} clues": sum(hits) / len(hits) for side, hits in right.items()}
    return shares | {f"{side} words": len(hits) for side, hits in right.items()}


def run(arm: str, seed: int) -> dict[str, float]:
    "Train one arm and ask it."
    torch.manual_seed(seed)
    tokenizer = load_tokenizer()
    model = Model(arm, len(tokenizer))
    train(model, read("train", CONFIG["documents"], tokenizer), tokenizer, seed)
    scores = accuracy(model, read("test", CONFIG["test_documents"], tokenizer), tokenizer)
    return scores | {"parameters": sum(p.numel() for p in model.parameters())}


def data_fingerprint() -> str:
    "Of the first test documents and the vocabulary."
    digest = hashlib.sha256()
    for document in documents(50, seed=0, lang=CONFIG["lang"], split="test"):
        digest.update(document.text.encode())
    digest.update(str(sorted(load_tokenizer().get_vocab().items())).encode())
    return digest.hexdigest()[:16]
