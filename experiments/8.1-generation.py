"""Who can write? Three encoders of one architecture, trained alike, write sentences, and the toy world's grammar is the judge.

`causal` predicts the next token and sees the left side only (like GPT). `masked` fills gaps and sees both sides: 15% of the
tokens are chosen, and 80% of these become [MASK], 10% stay, 10% become a random token (like BERT). `any share` is the same
encoder with both sides in view, but a share of the tokens between 0 and 1, drawn anew for each sentence, becomes [MASK].
All have the same layers, text, batches and steps; the text is that of five scenes, and the vocabulary what occurs in it. An arm is a model and a way of writing with it:

- `causal`: one token after another, each drawn from the model's distribution, until it ends the sentence itself.
- `all at once`: every place is [MASK], all tokens are drawn in one pass, independently.
- `append`: [CLS] and the tokens so far, [MASK], [SEP]; draw, append the next [MASK].
- `left to right`: all places are [MASK] from the beginning, and they are filled from the left.
- `Gibbs`: as `all at once`; then each place is hidden and drawn again, in random order, five times over.
- `any share`: `left to right` with the third model.

All but `causal` are told how long the sentence is to be: lengths are those of real sentences. Scores:

- `possible`: share of the written sentences that the grammar of the toy world can make.
- `new`: share of the written sentences that it can make and that are not in the training text.
- `gaps`: share of hidden tokens that the model finds in real sentences, one hidden at a time; `causal` sees the left side only.
- `of real text`: share of real sentences of which the judge says that the grammar can make them.
"""

import hashlib
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from bertcourse import corpus
from bertcourse.bert import BertModel
from bertcourse.corpus import documents, load_tokenizer
from bertcourse.experiments import once

ARMS = {  # arm → model
    "causal": "causal", "all at once": "masked", "append": "masked", "left to right": "masked", "Gibbs": "masked", "any share": "any share",
}  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": ARMS, "lang": "en", "documents": 6000, "test_documents": 800, "scenes": ["ate", "music", "sport", "player", "animal"], "max_length": 24,
    "steps": 1500, "batch": 32, "lr": 4e-3, "warmup": 0.1, "chosen": 0.15, "layers": 2, "hidden_size": 64, "heads": 4,
    "initializer_range": 0.06, "written": 300, "sweeps": 5,
}  # fmt: skip


# ── The judge ────────────────────────────────────────────────────────────────────────────────────────────────────────


def squeeze(text: str) -> str:
    "A sentence in small letters and without spaces: pieces do not tell where spaces were."
    return "".join(text.lower().split())


def is_possible(sentence: str) -> bool:
    "Can the English grammar of the toy world make this sentence? Spaces and capitals do not count."
    text = squeeze(sentence)
    frames = (frame for scene in corpus.SCENES.values() for rule in scene.frames for frame in rule)
    return any(_fits(frame, text, form) for frame in frames for form in ("name", "pronoun", "first"))


def _fits(frame, text: str, form: str) -> bool:
    "Can one rule make it, with this way of mentioning the protagonist?"
    if form != "name" and "P" not in frame.names:
        return False
    pools = {name: corpus.POOLS[name.rstrip("0123456789")].items for name in frame.names}
    return _match(frame.tokens["en"], 0, text, pools, form)


def _match(tokens, i: int, rest: str, items: dict, form: str) -> bool:
    "The tokens from number `i` on against the rest of the text; `items` holds what each variable can still be."
    if i == len(tokens):
        return not rest and _agree(items)
    token = tokens[i]
    for word, left in _choices(token, items, form):
        word = squeeze(word)
        if word and rest.startswith(word) and _match(tokens, i + 1, rest[len(word) :], left, form):
            return True
    return False


def _choices(token, items: dict, form: str):
    "Each text that a token can have, with what its variable can then be."
    if isinstance(token, corpus.Word):
        yield token.text, items
    elif isinstance(token, corpus.Verb):
        yield (token.first if form == "first" else token.third).text, items
    elif isinstance(token, corpus.Choice):
        for word in token.words:
            yield word.text, items
    elif isinstance(token, corpus.Slot):
        groups: dict[str, list] = {}
        for item in items[token.name]:
            groups.setdefault(_written(token, item, form), []).append(item)
        for word, group in groups.items():
            yield word, items | {token.name: group}
    else:  # Agreeing
        yield token.word.text, items


def _written(slot, item, form: str) -> str:
    "A slot's text for one item, as the corpus writes it."
    named = form == "name" or slot.mention in ("name", "name's")
    path = slot.path
    if not named and slot.mention:
        path = ("poss",) if slot.mention == "owner" else ("sub",)
    own = form == "first" and slot.name == "P" and len(path) == 1 and path[0] in corpus._FIRST
    value = corpus._FIRST[path[0]] if own else corpus._follow(item, path)
    owned = slot.mention in ("owner", "name's") and named
    return corpus._surface(value, "en", slot.form) + ("'s" if owned else "")


def _agree(items: dict) -> bool:
    "Is there a protagonist whose facts allow the other variables?"
    for person in items.get("P", [None]):
        pools = {name: corpus._pool_for(name.rstrip("0123456789"), person).items for name in items if name != "P"}
        if all(any(item in pools[name] for item in items[name]) for name in pools):
            return True
    return False


# ── Text and model ───────────────────────────────────────────────────────────────────────────────────────────────────


CLS, SEP, MASK = 1, 2, 3  # 0 is padding; words follow


def read(split: str, n: int) -> list[list[str]]:
    "Sentences as pieces, with [CLS] and [SEP]."
    tokenizer, rows = load_tokenizer(), []
    for document in documents(n, seed=2, lang=CONFIG["lang"], split=split):
        for sentence in document:
            pieces = tokenizer.tokenize(sentence.text)
            if sentence.frame.split(".")[0] in CONFIG["scenes"] and len(pieces) + 2 <= CONFIG["max_length"]:
                rows.append(["[CLS]", *pieces, "[SEP]"])
    return rows


def join(pieces: list[str]) -> str:
    "Pieces as text."
    return " ".join(pieces).replace(" ##", "")


class Text:
    "The text of the experiment as ids of its own vocabulary."

    def __init__(self):
        train, test = read("train", CONFIG["documents"]), read("test", CONFIG["test_documents"])
        pieces = sorted({piece for row in train for piece in row} - {"[CLS]", "[SEP]"})
        self.pieces = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *pieces]
        number = {piece: i for i, piece in enumerate(self.pieces)}
        self.train = [[number[piece] for piece in row] for row in train]
        self.test = [[number[piece] for piece in row] for row in test if all(piece in number for piece in row)]
        self.known = {squeeze(self.write(row[1:-1])) for row in self.train}

    def write(self, ids: list[int]) -> str:
        "Ids as text."
        return join([self.pieces[i] for i in ids])


def pad(rows: list[list[int]]) -> Tensor:
    "Ids (batch, n); 0 is [PAD]."
    n = max(map(len, rows))
    return torch.tensor([row + [0] * (n - len(row)) for row in rows])


class Model(nn.Module):
    "An encoder with a tied head over the vocabulary; `causal` decides what a place can see."

    def __init__(self, causal: bool, vocab_size: int):
        super().__init__()
        config = BertConfig(
            vocab_size=vocab_size, hidden_size=CONFIG["hidden_size"], num_attention_heads=CONFIG["heads"],
            intermediate_size=4 * CONFIG["hidden_size"], num_hidden_layers=CONFIG["layers"],
            max_position_embeddings=CONFIG["max_length"], initializer_range=CONFIG["initializer_range"],
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.causal = causal
        self.bert = BertModel(config, add_pooling_layer=False)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, ids: Tensor, at: Tensor) -> Tensor:  # (batch, n), truth values (batch, n) → logits (places, V)
        seen = (ids > 0)[:, None, :] | torch.eye(ids.shape[1], dtype=torch.bool)
        if self.causal:
            seen = seen & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        hidden = self.bert(ids, seen).last_hidden_state
        return self.norm(F.gelu(self.transform(hidden[at]))) @ self.bert.embeddings.word_embeddings.weight.T


def batch_of(kind: str, ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    "What the model gets, where it predicts, and the right tokens."
    if kind == "causal":  # each place predicts the next token, [SEP] too
        at = ids[:, 1:] > 0
        return ids[:, :-1], at, ids[:, 1:][at]
    words = ids > MASK
    share = torch.rand(len(ids), 1) if kind == "any share" else torch.full((len(ids), 1), CONFIG["chosen"])
    at = (torch.rand(ids.shape) < share) & words
    at[0, 1] = True  # never empty
    inputs = ids.masked_fill(at, MASK)
    if kind == "masked":  # 80/10/10
        lot = torch.rand(ids.shape)
        inputs = torch.where(at & (lot < 0.1), ids, inputs)
        inputs = torch.where(at & (lot > 0.9), torch.randint(MASK + 1, vocab_size, ids.shape), inputs)
    return inputs, at, ids[at]


def train(kind: str, seed: int) -> Model:
    "Warm up, then decay to 0."
    torch.manual_seed(seed)
    text, rng = once("8.1-generation text", Text), random.Random(seed)
    model, steps = Model(kind == "causal", len(text.pieces)), CONFIG["steps"]
    warmup = steps * CONFIG["warmup"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=CONFIG["lr"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: min((t + 1) / warmup, (steps - t) / (steps - warmup)))
    for _ in range(steps):
        ids = pad([text.train[int(rng.random() * len(text.train))] for _ in range(CONFIG["batch"])])
        inputs, at, truth = batch_of(kind, ids, len(text.pieces))
        loss = F.cross_entropy(model(inputs, at), truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(model: Model, ids: Tensor, at: Tensor) -> Tensor:  # one token for each place
    "Tokens drawn from the model's distribution, special ones left out."
    logits = model(ids, at)
    logits[:, : MASK + 1] = -torch.inf
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


@torch.no_grad()
def write_causal(model: Model, n: int) -> list[list[int]]:
    "Sentences, each until its [SEP] or the longest length."
    ids = torch.full((n, 1), CLS)
    for _ in range(CONFIG["max_length"] - 1):
        at = torch.zeros(ids.shape, dtype=torch.bool)
        at[:, -1] = True
        logits = model(ids, at)
        logits[:, [0, CLS, MASK]] = -torch.inf
        following = torch.multinomial(logits.softmax(-1), 1)
        following[(ids == SEP).any(1)] = 0
        ids = torch.cat([ids, following], dim=1)
    return [row[1 : row.index(SEP)] if SEP in row else row[1:] for row in ids.tolist()]


@torch.no_grad()
def write_masked(model: Model, way: str, lengths: list[int]) -> list[list[int]]:
    "Sentences of the lengths asked for (of pieces, without [CLS] and [SEP])."
    ids = pad([[CLS] + [MASK] * n + [SEP] for n in lengths])
    words = ids == MASK
    if way == "append":
        rows: list[list[int]] = [[] for _ in lengths]
        for step in range(max(lengths)):
            unfinished = [i for i, n in enumerate(lengths) if n > step]
            now = pad([[CLS, *rows[i], MASK, SEP] for i in unfinished])
            for i, token in zip(unfinished, draw(model, now, now == MASK).tolist()):
                rows[i].append(token)
        return rows
    if way in ("left to right", "any share"):
        for place in range(1, ids.shape[1]):
            at = words & (torch.arange(ids.shape[1]) == place)
            if at.any():
                ids[at] = draw(model, ids, at)
    else:
        ids[words] = draw(model, ids, words)
        for _ in range(CONFIG["sweeps"] if way == "Gibbs" else 0):
            order = torch.rand(ids.shape).masked_fill(~words, 2.0).argsort(1)  # each row in an order of its own
            for step in range(max(lengths)):
                at = torch.zeros_like(words).scatter(1, order[:, step : step + 1], True) & words
                ids[at] = MASK
                ids[at] = draw(model, ids, at)
    return [row[1 : n + 1] for row, n in zip(ids.tolist(), lengths)]


@torch.no_grad()
def fill_gaps(model: Model, rows: list[list[int]], seed: int) -> float:
    "One token of each sentence hidden: how many are found?"
    rng, hits = random.Random(seed), []
    for row in rows:
        place = 1 + int(rng.random() * (len(row) - 2))
        ids = torch.tensor([row])
        if model.causal:
            ids = ids[:, :place]
        else:
            ids[0, place] = MASK
        at = torch.zeros(ids.shape, dtype=torch.bool)
        at[0, place - 1 if model.causal else place] = True
        hits.append(model(ids, at).argmax().item() == row[place])
    return sum(hits) / len(hits)


def run(arm: str, seed: int) -> dict:
    "Write with one model in one way, and judge."
    kind, text, n = ARMS[arm], once("8.1-generation text", Text), CONFIG["written"]
    model = once(("8.1-generation", kind, seed), lambda: train(kind, seed))
    torch.manual_seed(seed)
    if kind == "causal":
        written = write_causal(model, n)
    else:
        written = write_masked(model, arm, [len(row) - 2 for row in random.Random(seed).sample(text.test, n)])
    sentences = [text.write(ids) for ids in written]
    possible = [is_possible(sentence) for sentence in sentences]
    new = [ok and squeeze(sentence) not in text.known for ok, sentence in zip(possible, sentences)]
    real = once("8.1-generation real", lambda: [is_possible(text.write(row[1:-1])) for row in text.test[:n]])
    return {
        "possible": sum(possible) / n, "new": sum(new) / n, "gaps": fill_gaps(model, text.test[:n], seed),
        "of real text": sum(real) / n, "samples": sentences[:4], "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(text.pieces),
    }  # fmt: skip


def data_fingerprint() -> str:
    "Of the first sentences and of the vocabulary."
    digest = hashlib.sha256()
    for split in ("train", "test"):
        digest.update(str(read(split, 100)).encode())
    digest.update(str(sorted(load_tokenizer().get_vocab().items())).encode())
    return digest.hexdigest()[:16]
