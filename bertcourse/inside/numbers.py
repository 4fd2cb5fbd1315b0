"""The numbers that the view draws: attention, embeddings, vectors in two dimensions, predictions for masked tokens, the next sentence.

`assets/inside/live.js` computes the same in the browser; `tests/slow/test_inside_browser.py` compares the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertcourse.base.inference import evaluating

LONGEST = 64  # tokens: beyond, neither lines nor squares can be told apart
SHOWN = 64  # numbers of a vector that are drawn
PREDICTIONS = 5
Encoded = Mapping[str, Tensor]


def inspect(model: nn.Module, tokenizer: Any, text: str, text_pair: str | None = None) -> dict[str, Any]:
    """What a view draws of one or two sentences.

    model: an encoder of `transformers`; with a head for masked words there are predictions, with one for the next sentence its probability.
    Returns lists and numbers, ready for JSON; `attention[layer][head][from][to]` and the rest as in `assets/inside/view.js`.
    Raises `ValueError` for an empty text and for more than 64 tokens.
    """
    if not text.strip():
        raise ValueError("the text is empty: give a sentence")
    encoded = tokenizer(text, text_pair or None, return_tensors="pt", truncation=False).to(model.device)
    count = encoded["input_ids"].shape[1]
    for part in (text, text_pair):
        if part and all(special_mask(tokenizer, tokenizer(part, truncation=False)["input_ids"])):
            raise ValueError("the text has no token besides those that mark its ends: give a sentence")
    if count > LONGEST:
        raise ValueError(f"the text has {count} tokens, a view draws at most {LONGEST}: give a shorter one")
    with attention_is_kept(model), torch.no_grad():
        output = model(**encoded, output_attentions=True, output_hidden_states=True)
        check_outputs(output, count)
        predictions = predict_masked(model, tokenizer, encoded)
        alone = [hidden_states(model, tokenizer, part) for part in (text, text_pair) if part]
    ids = encoded["input_ids"][0].tolist()
    return {
        "tokens": token_names(tokenizer, ids),
        "ids": ids,
        "segments": encoded.get("token_type_ids", torch.zeros(1, count, dtype=torch.long))[0].tolist(),
        "special": special_mask(tokenizer, ids),
        "width": model.config.hidden_size,
        "attention": [rounded(layer[0], 3) for layer in output.attentions],
        "embeddings": embeddings(model, encoded, output.hidden_states[0]),
        "map": vector_map(alone),
        "predictions": predictions,
        "next": next_sentence(model, output) if text_pair else None,
    }


def check_choice(numbers: Mapping[str, Any], layer: int | None, head: int, token: str | None, compare: str | None) -> dict[str, Any]:
    """What a view shows at first, as it is stored with the numbers. Raises `ValueError` for what is not there."""
    attention, tokens = numbers["attention"], numbers["tokens"]
    layer = len(attention) if layer is None else layer
    for name, value, count in (("layer", layer, len(attention)), ("head", head, len(attention[0]))):
        if not 1 <= value <= count:
            raise ValueError(f"there is no {name} {value}: the model has {name}s 1 to {count}")
    if token is not None and token not in tokens:
        raise ValueError(f"{token!r} is not a token of the text: choose from {' '.join(tokens)}")
    shared = numbers["map"]["cosines"]
    if compare is not None and compare not in shared:
        raise ValueError(f"{compare!r} is not a token of both sentences: choose from {' '.join(shared) or 'none: they share no token'}")
    chosen = {"layer": layer, "head": head, "map": numbers["map"] | {"word": compare}}
    if token is not None:
        chosen |= {"token": tokens.index(token)} | ({"masked": tokens.index(token)} if compare is None else {})
    return chosen


def check_outputs(output: Any, count: int) -> None:
    """Raises `ValueError` where there is nothing to draw: no weights, weights that are no distribution, numbers that are not finite."""
    attention = getattr(output, "attentions", None)
    if not attention or any(layer is None or layer.shape[-2:] != (count, count) for layer in attention):
        raise ValueError("this model returns no attention weights from every token to every token: give another")
    found = torch.stack([layer[0].float() for layer in attention])
    if not torch.isfinite(found).all() or not all(torch.isfinite(value).all() for value in output.hidden_states):
        raise ValueError("the model's outputs are not finite numbers: its weights are damaged, or its precision is too low")
    if (found.sum(-1) - 1).abs().max() > 0.02:
        raise ValueError("this model's attention does not sum to 1: what it returns are no weights")


@contextlib.contextmanager
def attention_is_kept(model: nn.Module) -> Iterator[None]:
    """Within, attention is computed step by step: faster implementations return no weights. Dropout is off."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with evaluating(model):
            yield
    finally:
        model.set_attn_implementation(before)


def token_names(tokenizer: Any, ids: list[int]) -> list[str]:
    """Tokens as they can be read: those of byte-level vocabularies are decoded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "ByteLevel" not in type(backend.decoder).__name__:
        return tokenizer.convert_ids_to_tokens(ids)
    return [tokenizer.decode([i]).strip() or name for i, name in zip(ids, tokenizer.convert_ids_to_tokens(ids))]


def special_mask(tokenizer: Any, ids: list[int]) -> list[int]:
    """1 for each token that only marks a place, such as [CLS]; 0 for those of the text, unknown ones included."""
    marks = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    return [int(i in marks) for i in ids]


def rounded(values: Any, digits: int) -> list:
    """Numbers as nested lists."""
    array = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.round(array.astype(np.float64), digits).tolist()


def embeddings(model: nn.Module, encoded: Encoded, normed: Tensor) -> dict[str, list] | None:
    """The three vectors that make each token's input vector, and that after LayerNorm. None where a model has others."""
    found = getattr(model.base_model, "embeddings", None)
    tables = [getattr(found, f"{name}_embeddings", None) for name in ("word", "position", "token_type")]
    width, norm = model.config.hidden_size, getattr(found, "LayerNorm", None)
    if norm is None or not all(isinstance(table, nn.Embedding) and table.embedding_dim == width for table in tables) or "token_type_ids" not in encoded:
        return None
    places = torch.arange(encoded["input_ids"].shape[1], device=model.device)
    parts = [tables[0](encoded["input_ids"][0]), tables[1](places), tables[2](encoded["token_type_ids"][0])]
    with torch.no_grad():
        tolerance = 1e-4 if normed.dtype == torch.float32 else 0.05
        if not torch.allclose(norm(sum(parts)).float(), normed[0].float(), atol=tolerance):
            return None  # positions counted in another way, such as RoBERTa's
    return {name: rounded(part[:, :SHOWN], 2) for name, part in zip(("word", "position", "segment", "normed"), [*parts, normed[0]])}


def predict_masked(model: nn.Module, tokenizer: Any, encoded: Encoded) -> list[dict | None] | None:
    """For each token: the likeliest tokens where it is masked alone, and how likely the token itself is. None without a head for it."""
    ids = encoded["input_ids"][0]
    if tokenizer.mask_token_id is None or model.get_output_embeddings() is None:
        return None
    found: list[dict | None] = []
    names, special = token_names(tokenizer, ids.tolist()), special_mask(tokenizer, ids.tolist())
    for places in torch.arange(len(ids), device=ids.device).split(8):  # all at once would need the memory of n² × vocabulary numbers
        masked = ids.repeat(len(places), 1)
        masked.scatter_(1, places[:, None], tokenizer.mask_token_id)
        output = model(**{**{name: value.expand(len(places), -1) for name, value in encoded.items()}, "input_ids": masked})
        logits = output.prediction_logits if "prediction_logits" in output else output.logits
        for row, place in enumerate(places.tolist()):
            probabilities = logits[row, place].float().softmax(-1)
            best = probabilities.topk(PREDICTIONS)
            top = [[name, round(value, 4)] for name, value in zip(token_names(tokenizer, best.indices.tolist()), best.values.tolist())]
            probability = round(probabilities[ids[place]].item(), 4)
            found.append(None if special[place] else {"token": names[place], "probability": probability, "top": top})
    return found


def hidden_states(model: nn.Module, tokenizer: Any, text: str) -> tuple[list[str], np.ndarray]:
    """The tokens of a sentence that goes through the model alone, and their vectors: (layers + 1, tokens, width)."""
    encoded = tokenizer(text, return_tensors="pt").to(model.device)
    states = torch.stack(model.base_model(**encoded, output_hidden_states=True).hidden_states)[:, 0]
    ids = encoded["input_ids"][0].tolist()
    kept = [i for i, special in enumerate(special_mask(tokenizer, ids)) if not special]
    return token_names(tokenizer, [ids[i] for i in kept]), states.float().cpu().numpy()[:, kept]


def vector_map(alone: list[tuple[list[str], np.ndarray]]) -> dict[str, Any]:
    """Vectors of one or two sentences as points in two dimensions by layer, and cosines of the tokens that both have."""
    tokens = [names for names, _ in alone] + [[]] * (2 - len(alone))
    states = np.concatenate([vectors for _, vectors in alone], axis=1)
    reduced = [principal_components(layer) for layer in states]
    cosines = {}
    for word in dict.fromkeys(tokens[0]):
        if word in tokens[1]:
            a, b = states[:, tokens[0].index(word)], states[:, len(tokens[0]) + tokens[1].index(word)]
            cosines[word] = rounded((a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12), 3)
    return {"tokens": tokens, "points": [rounded(points, 2) for points, _ in reduced], "share": [round(share, 3) for _, share in reduced], "cosines": cosines}


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Rows projected onto their first two principal components, (rows, 2), and the share of the variance that these keep.

    The largest coordinate of each component is positive.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(vectors), 2))
    found[:, : min(2, len(values))] = (left * values)[:, :2]
    signs = np.sign(found[np.abs(found).argmax(axis=0), [0, 1]])
    total = float((values**2).sum())
    return found * np.where(signs == 0, 1, signs), float((values[:2] ** 2).sum()) / total if total > 0 else 1.0


def next_sentence(model: nn.Module, output: Any) -> float | None:
    """The probability that the second sentence followed the first, where the model has a head for it."""
    if "seq_relationship_logits" in output:
        logits = output.seq_relationship_logits
    elif type(model).__name__.endswith("ForNextSentencePrediction"):
        logits = output.logits
    else:
        return None
    return round(logits[0].float().softmax(-1)[0].item(), 4)
