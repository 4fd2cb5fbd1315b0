"""What should stand in the place of a word that is to be predicted? The six mixes of BERT's Table 8, in miniature.

Six encoders are pre-trained on the toy world's English by `bertcourse.pretraining.pretrain`, with everything equal but
the mix of [MASK], the word itself and a random piece. Then each is asked, on sentences whose combinations it never saw:

- `masked words`: which word does [MASK] hide? One piece at a time; this is the pre-training task itself.
- `fine-tuned`: what role has a word in its sentence (subject, object, modifier …)? All weights are trained for the task;
  no [MASK] in the input. Table 8's columns MNLI and NER fine-tune.
- `frozen`: the same question to a linear model on top of vectors that are not trained any further, those of all layers
  side by side. Table 8's column NER feature-based.
- `drift`: how far a word's last vector moves when [MASK] in its place gives way to the word (1 - cosine).
- `named`: does the pre-training head name a word that is there to be seen?

Roles are scored on words that occur in more than one: the word alone does not tell (`by word` is how far it gets).
"""

import copy
import hashlib
from collections import Counter, defaultdict
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertcourse.corpus import ROLES, documents, load_tokenizer
from bertcourse.pieces import toy_pieces
from bertcourse.pretraining import Masking, Recipe, pretrain

ARMS = {  # MASK/SAME/RND in percent, as in Table 8: shares of [MASK] and of random pieces
    "80/10/10": (0.8, 0.1),
    "100/0/0": (1.0, 0.0),
    "80/0/20": (0.8, 0.2),
    "80/20/0": (0.8, 0.0),
    "0/20/80": (0.0, 0.8),
    "0/0/100": (0.0, 1.0),
}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": {arm: list(shares) for arm, shares in ARMS.items()}, "lang": "en", "documents": 6000, "max_length": 24,
    "layers": 2, "hidden_size": 128, "heads": 4, "initializer_range": 0.06, "dropout": 0.0, "masked": 0.15,
    "steps": 1300, "batch": 32, "lr": 2e-3, "warmup": 0.1, "label_documents": 40, "test_documents": 600,
    "tuning_steps": 120, "tuning_lr": 1e-3, "ridge": 1.0,
}  # fmt: skip
LABELS = sorted({*ROLES.values(), "function"})


@lru_cache
def read(split: str, n: int) -> list[tuple[list[int], list[tuple[int, int, str]]]]:
    "Sentences as pieces with, for each word, its first piece, its role's number and its text."
    tokenizer, rows = load_tokenizer(), []
    for document in documents(n, seed=1, lang=CONFIG["lang"], split=split):
        for sentence in document:
            ids, words = [tokenizer.cls_token_id], []
            for word in sentence:
                pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word.text))
                words.append((len(ids), LABELS.index(word.role), word.text.lower()))
                ids += pieces
            ids.append(tokenizer.sep_token_id)
            if len(ids) <= CONFIG["max_length"]:
                rows.append((ids, words))
    return rows


def questions(rows, known: dict[str, Counter]) -> list[list[tuple[int, int, str]]]:
    "Of each sentence the words whose role their text does not tell."
    return [[(at, role, text) for at, role, text in words if len(known.get(text, ())) > 1] for _, words in rows]


def pad(rows) -> tuple[Tensor, Tensor]:
    "Ids and attention mask, (batch, n)."
    n = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (n - len(ids)) for ids, _ in rows])
    return ids, (ids > 0).long()


@torch.no_grad()
def vectors(model: nn.Module, rows, asked) -> tuple[Tensor, Tensor]:  # (words, layers · H), roles (words,)
    "Vectors of all layers, side by side, for the words asked about."
    found, roles = [], []
    for start in range(0, len(rows), 128):
        ids, mask = pad(rows[start : start + 128])
        states = model.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
        places = [(r, at) for r, words in enumerate(asked[start : start + 128]) for at, _, _ in words]
        r, at = torch.tensor(places).T
        found.append(torch.cat([state[r, at] for state in states], dim=-1))
        roles += [role for words in asked[start : start + 128] for _, role, _ in words]
    return torch.cat(found), torch.tensor(roles)


def frozen(model: nn.Module, train, train_asked, test, test_asked) -> float:
    "Accuracy of a linear model: least squares on one-hot roles, with a ridge."
    x, y = vectors(model, train, train_asked)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = F.pad((x - mean) / scale, (0, 1), value=1.0).double()
    targets = F.one_hot(y, len(LABELS)).double()
    weights = torch.linalg.solve(x.T @ x + CONFIG["ridge"] * torch.eye(x.shape[1]), x.T @ targets)
    x, y = vectors(model, test, test_asked)
    guess = (F.pad((x - mean) / scale, (0, 1), value=1.0).double() @ weights).argmax(-1)
    return (guess == y).double().mean().item()


def tuned(model: nn.Module, train, train_asked, test, test_asked, seed: int) -> float:
    "Accuracy after training all weights and a linear layer on the last vectors."
    model, rng = copy.deepcopy(model), np.random.default_rng(seed)
    head = nn.Linear(CONFIG["hidden_size"], len(LABELS))
    params = [*model.bert.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(params, lr=CONFIG["tuning_lr"], weight_decay=0.01)
    steps = CONFIG["tuning_steps"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: min((t + 1) / (0.1 * steps), (steps - t) / (0.9 * steps)))

    def scores(rows, asked):
        ids, mask = pad(rows)
        places = torch.tensor([(r, at) for r, words in enumerate(asked) for at, _, _ in words])
        roles = torch.tensor([role for words in asked for _, role, _ in words])
        hidden = model.bert(ids, attention_mask=mask).last_hidden_state
        return head(hidden[places[:, 0], places[:, 1]]), roles

    model.train()
    for _ in range(steps):
        chosen = rng.integers(len(train), size=CONFIG["batch"])
        logits, roles = scores([train[i] for i in chosen], [train_asked[i] for i in chosen])
        optimiser.zero_grad()
        F.cross_entropy(logits, roles).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    right = []
    with torch.no_grad():
        for start in range(0, len(test), 128):
            logits, roles = scores(test[start : start + 128], test_asked[start : start + 128])
            right.append((logits.argmax(-1) == roles).double())
    return torch.cat(right).mean().item()


@torch.no_grad()
def hidden_and_seen(model: nn.Module, rows, seed: int) -> dict[str, float]:
    "One piece of each sentence, once behind [MASK] and once in the open."
    tokenizer, rng = load_tokenizer(), np.random.default_rng(seed)
    guessed, named, drift = [], [], []
    for start in range(0, len(rows), 128):
        chunk = rows[start : start + 128]
        seen, mask = pad(chunk)
        at = torch.tensor([int(rng.integers(1, len(ids) - 1)) for ids, _ in chunk])
        r = torch.arange(len(chunk))
        truth, covered = seen[r, at], seen.clone()
        covered[r, at] = tokenizer.mask_token_id
        behind, before = (model.bert(x, attention_mask=mask).last_hidden_state[r, at] for x in (covered, seen))
        guessed.append(model.cls.predictions(behind).argmax(-1) == truth)
        named.append(model.cls.predictions(before).argmax(-1) == truth)
        drift.append(1 - F.cosine_similarity(behind, before))
    means = {"masked words": guessed, "named": named, "drift": drift}
    return {name: torch.cat(values).double().mean().item() for name, values in means.items()}


def run(arm: str, seed: int) -> dict[str, float]:
    "Pre-train one arm, then ask it."
    mask, random = ARMS[arm]
    recipe = Recipe(
        languages=(CONFIG["lang"],), documents=CONFIG["documents"], lengths=((CONFIG["max_length"], 1.0),),
        num_layers=CONFIG["layers"], hidden_size=CONFIG["hidden_size"], num_heads=CONFIG["heads"],
        initializer_range=CONFIG["initializer_range"], dropout=CONFIG["dropout"],
        masking=Masking(rate=CONFIG["masked"], mask=mask, random=random), steps=CONFIG["steps"],
        batch_size=CONFIG["batch"], lr=CONFIG["lr"], warmup=CONFIG["warmup"], betas=(0.9, 0.98), seed=seed,
    )  # fmt: skip
    tokenizer = load_tokenizer()
    model, _ = pretrain(recipe, tokenizer, toy_pieces(tokenizer, CONFIG["documents"], (CONFIG["lang"],)), progress=False)
    model.eval()
    train, test = read("train", CONFIG["label_documents"]), read("test", CONFIG["test_documents"])
    known = defaultdict(Counter)
    for _, words in train:
        for _, role, text in words:
            known[text][role] += 1
    data = (train, questions(train, known), test, questions(test, known))
    asked = [word for words in data[3] for word in words]
    by_word = [known[text].most_common(1)[0][0] == role for _, role, text in asked]
    scores = hidden_and_seen(model, test, seed)
    return scores | {
        "frozen": frozen(model, *data), "fine-tuned": tuned(model, *data, seed),
        "by word": sum(by_word) / len(by_word), "words": len(asked),
    }  # fmt: skip


def data_fingerprint() -> str:
    "Of the first test sentences with their roles, the first training pieces, and the vocabulary."
    tokenizer, digest = load_tokenizer(), hashlib.sha256()
    digest.update(str(read("test", 20)).encode())
    digest.update(toy_pieces(tokenizer, 50, (CONFIG["lang"],)).fingerprint().encode())
    digest.update(str(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()[:16]
