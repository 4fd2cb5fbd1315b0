"""[CLS], mean or maximum: which makes the better sentence vector once the encoder is fine-tuned for similarity?

The shipped encoder is trained on 1,000 English pairs of the task `similarity` so that the cosine of two sentence vectors is a fifth
of the label (the regression objective of Sentence-BERT). The arms differ in how the vectors of the tokens become one. All get the
same batches, steps and learning rate. Score: Spearman's correlation of the cosines with the gold scores of 500 test pairs. All three
pairs of arms are compared.
"""

import hashlib
from functools import lru_cache

import torch
from transformers import AutoModel

from bertcourse import profiles
from bertcourse.assets import asset
from bertcourse.corpus_tasks import dataset
from bertcourse.representations import sentence_vectors, similarity_score, tune_sentence_vectors

ARMS = {"[CLS]": "cls", "mean": "mean", "maximum": "max"}
SEEDS = [0, 1, 2, 3, 4]
CONFIG = {"arms": ARMS, "lang": "en", "examples": 1000, "test_examples": 500, "steps": 120, "batch": 16, "lr": 1e-3}


@lru_cache
def data():
    "Training and test pairs."
    return dataset("similarity", CONFIG["lang"], {"train": CONFIG["examples"], "test": CONFIG["test_examples"]})


def run(arm: str, seed: int) -> dict[str, float]:
    "Fine-tune one arm and score it."
    profile, found, how = profiles.load("tiny"), data(), ARMS[arm]
    tokenizer, encoder = profile.tokenizer(), profile.model(AutoModel)
    torch.manual_seed(seed)
    rows = {name: list(found["train"][name]) for name in ("sentence1", "sentence2", "label")}
    tune_sentence_vectors(encoder, tokenizer, rows, how, CONFIG["steps"], CONFIG["batch"], CONFIG["lr"], seed)
    first, second = (sentence_vectors(encoder, tokenizer, list(found["test"][side]), how) for side in ("sentence1", "sentence2"))
    return {"spearman": similarity_score(first, second, found["test"]["gold"])}


def data_fingerprint() -> str:
    "Of the first test pairs and of the shipped weights."
    digest = hashlib.sha256((asset("tiny-bert") / "model.safetensors").read_bytes())
    digest.update(str(list(dataset("similarity", CONFIG["lang"], {"test": 20})["test"])).encode())
    return digest.hexdigest()[:16]
