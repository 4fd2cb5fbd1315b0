"""Five small encoders, equal in parameters: does the number of heads matter, and does the activation?

Each is pre-trained on the toy world's English by the course's own code, with everything equal but one thing. `4 heads, GELU`
is the common baseline. `1 head` and `16 heads` cut the same width of 64 into heads of 64 and of 4 numbers, which changes no
parameter. `ReLU` changes the activation; `SwiGLU` has a gated feed-forward network of width 170 in place of 256 (two thirds),
so that its three matrices have as many weights as the two of the others (Shazeer 2020). All get the same batches, masks and
learning rate, which was chosen for none of them.

Three tokens in ten are masked in training, twice as many as in BERT, so that short runs learn more from each batch.

Scores, on 600 documents of the validation split, of whose tokens three in twenty are masked, the same for all arms: `loss`, the
mean cross-entropy of masked tokens, in nats; `guessed`, the share of them that is guessed. Two families of comparisons were
fixed before the runs: the numbers of heads (three pairs), and the activations (three pairs), both by `loss`.
"""

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from bertcourse.corpus import load_tokenizer
from bertcourse.heads import masked_batch
from bertcourse.masking import Masking
from bertcourse.pieces import toy_pieces
from bertcourse.pretraining import BertForPreTraining, items, losses
from bertcourse.recipes import Recipe, make_data
from bertcourse.training import fit

ARMS = {  # heads, activation
    "4 heads, GELU": (4, "gelu"), "1 head": (1, "gelu"), "16 heads": (16, "gelu"), "ReLU": (4, "relu"), "SwiGLU": (4, "swiglu"),
}  # fmt: skip
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {
    "arms": {arm: list(made) for arm, made in ARMS.items()}, "lang": "en", "documents": 5000, "max_length": 24, "layers": 2,
    "hidden_size": 64, "gated_width": 170, "initializer_range": 0.06, "dropout": 0.0, "masked": 0.3, "steps": 700, "batch": 32, "lr": 4e-3,
    "warmup": 0.1, "test_documents": 600,
}  # fmt: skip


class GatedIntermediate(nn.Module):
    "SwiGLU: one matrix makes the values, another the gates (Shazeer 2020)."

    def __init__(self, hidden_size: int, width: int):
        super().__init__()
        self.gate, self.value = nn.Linear(hidden_size, width), nn.Linear(hidden_size, width)

    def forward(self, x: Tensor) -> Tensor:  # (batch, n, H) → (batch, n, width)
        return F.silu(self.gate(x)) * self.value(x)


def make_model(arm: str, recipe: Recipe, vocab_size: int) -> BertForPreTraining:
    "An untrained model of this arm."
    config, activation = recipe.config(vocab_size), ARMS[arm][1]
    config.hidden_act = "relu" if activation == "relu" else "gelu"
    model = BertForPreTraining._from_config(config, attn_implementation="eager")
    if activation == "swiglu":
        for layer in model.bert.encoder.layer:
            layer.intermediate = GatedIntermediate(config.hidden_size, CONFIG["gated_width"])
            layer.output.dense = nn.Linear(CONFIG["gated_width"], config.hidden_size)
            for linear in (layer.intermediate.gate, layer.intermediate.value, layer.output.dense):
                nn.init.normal_(linear.weight, std=config.initializer_range)
                nn.init.zeros_(linear.bias)
    return model


@lru_cache
def text():
    "The training text, the same for all runs of a process."
    return toy_pieces(load_tokenizer(), CONFIG["documents"], (CONFIG["lang"],))


@torch.no_grad()
def score(model: BertForPreTraining) -> dict[str, float]:
    "Loss and accuracy on masked tokens of sentences that no run has read."
    batch, labels = masked_batch(load_tokenizer(), CONFIG["lang"], CONFIG["test_documents"])
    n = CONFIG["max_length"]
    batch, labels = {name: tensor[:, :n] for name, tensor in batch.items()}, labels[:, :n]
    hidden = model.bert(**batch).last_hidden_state[labels > -100]
    logits, truth = model.cls.predictions(hidden), labels[labels > -100]
    return {"loss": F.cross_entropy(logits, truth).item(), "guessed": (logits.argmax(-1) == truth).double().mean().item()}


def run(arm: str, seed: int) -> dict[str, float]:
    "Pre-train one arm and score it."
    recipe = Recipe(
        languages=(CONFIG["lang"],), documents=CONFIG["documents"], lengths=((CONFIG["max_length"], 1.0),),
        num_layers=CONFIG["layers"], hidden_size=CONFIG["hidden_size"], num_heads=ARMS[arm][0],
        initializer_range=CONFIG["initializer_range"], dropout=CONFIG["dropout"], masking=Masking(rate=CONFIG["masked"]),
        steps=CONFIG["steps"], batch_size=CONFIG["batch"], lr=CONFIG["lr"], warmup=CONFIG["warmup"], betas=(0.9, 0.98), seed=seed,
    )  # fmt: skip
    tokenizer = load_tokenizer()
    transformers.set_seed(seed)
    model = make_model(arm, recipe, len(tokenizer))
    inputs, collate = make_data(recipe, tokenizer, text())
    fit(model, inputs, collate=collate, loss=losses, items=items, progress=False, **recipe.options())
    return score(model.eval()) | {"parameters": sum(p.numel() for p in model.parameters())}


def data_fingerprint() -> str:
    "Of the masked test batch, the first training pieces, and the vocabulary."
    tokenizer, digest = load_tokenizer(), hashlib.sha256()
    digest.update(str(masked_batch(tokenizer, CONFIG["lang"], 20)[1].tolist()).encode())
    digest.update(toy_pieces(tokenizer, 50, (CONFIG["lang"],)).fingerprint().encode())
    digest.update(str(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()[:16]
