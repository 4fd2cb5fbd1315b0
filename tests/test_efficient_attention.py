"""The ways to compute attention that page 8.5 compares."""

import pytest
import torch
from transformers import AutoModel

from bertcourse.efficient_attention import (
    METHODS,
    count_flops,
    full_attention,
    head_vectors,
    kernel_attention,
    largest_tensor,
    low_rank_attention,
    plot_survey,
    survey_attention,
    tiled_attention,
    windowed_attention,
)
from bertcourse.profiles import load
from bertcourse.transformer import scaled_dot_product_attention


def vectors(n, d=16, heads=2, seed=0):
    return torch.randn(3, heads, n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n, block", [(64, 16), (65, 16), (7, 64), (1, 1), (50, 49)])
def test_tiles_are_exact(n, block):
    q, k, v = vectors(n)
    assert torch.allclose(tiled_attention(q, k, v, block), full_attention(q, k, v), atol=1e-6)


def test_tiles_survive_large_scores():
    q, k, v = vectors(20)
    assert torch.allclose(tiled_attention(100 * q, 100 * k, v, 4), full_attention(100 * q, 100 * k, v), atol=1e-5)


@pytest.mark.parametrize("n, window", [(64, 8), (65, 8), (10, 64), (33, 1)])
def test_windows_are_attention_with_a_band(n, window):
    q, k, v = vectors(n)
    i = torch.arange(n)
    band = (i[:, None] - i).abs() <= window
    assert torch.allclose(windowed_attention(q, k, v, window), scaled_dot_product_attention(q, k, v, band)[0], atol=1e-6)


def test_low_rank_of_full_length_is_exact():
    q, k, v = vectors(32)
    assert torch.allclose(low_rank_attention(q, k, v, 32), full_attention(q, k, v), atol=1e-6)
    assert low_rank_attention(q, k, v, 4).shape == q.shape


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(), (2,), (3, 2)], ids=["2 axes", "3 axes", "4 axes"])
def test_every_head_of_a_batch_is_computed_alone(name, shape):
    q, k, v = torch.randn(3, *shape, 70, 8, generator=torch.Generator().manual_seed(0))
    found = METHODS[name](q, k, v)
    assert found.shape == q.shape
    for place in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape)).tolist() if shape else [[]]:
        one = tuple(place)
        assert torch.allclose(found[one], METHODS[name](q[one], k[one], v[one]), atol=1e-5)


def test_more_features_are_nearer():
    q, k, v = 0.3 * vectors(64)  # small scores, for which random features do well
    full = full_attention(q, k, v)
    far, near = ((kernel_attention(q, k, v, m) - full).norm() / full.norm() for m in (4, 4096))
    assert near < 0.3 * far and near < 0.2


def test_counts():
    q, k, v = vectors(128, 64, 1)
    assert count_flops(lambda: full_attention(q, k, v)) == 4 * 128 * 128 * 64
    assert count_flops(lambda: tiled_attention(q, k, v, 32)) == 4 * 128 * 128 * 64
    assert largest_tensor(lambda: full_attention(q, k, v)) == 4 * 128 * 128
    assert largest_tensor(lambda: tiled_attention(q, k, v, 32)) == 4 * 128 * 64


def test_survey():
    found = survey_attention([64, 128], head_dim=8)
    assert set(found) == {"ms", "MB", "MFLOPs"} and all(list(found[unit]) == list(METHODS) for unit in found)
    assert found["MB"]["full"][1] == 4 * found["MB"]["full"][0]
    assert "<svg" in plot_survey([64, 128], found)._repr_mimebundle_()["text/html"]


def test_every_method_is_drawn():
    names = [f"method {i}" for i in range(9)]
    found = {unit: {name: [1 + i, 2 + i] for i, name in enumerate(names)} for unit in ("ms", "MB", "MFLOPs")}
    html = plot_survey([64, 128], found).html()
    assert all(f">{name}<" in html for name in names)


def test_head_vectors_of_a_model_in_train_mode_and_of_a_long_text():
    profile = load()
    model, tokenizer = profile.model(AutoModel, hidden_dropout_prob=0.5).train(), profile.tokenizer()
    tokenizer.model_max_length = int(1e30)  # as of a tokenizer that records none
    first, second = (head_vectors(model, tokenizer, "Anna likes rice. " * 200, layer=2) for _ in range(2))
    assert all(map(torch.equal, first, second)) and first[0].shape[1] == model.config.max_position_embeddings
    assert model.training


def test_head_vectors_are_those_of_the_layer():
    profile = load()
    model, tokenizer = profile.model(AutoModel, attn_implementation="eager"), profile.tokenizer()
    q, k, v = head_vectors(model, tokenizer, "Anna likes rice.", layer=2)
    weights = scaled_dot_product_attention(q, k, v)[1]
    with torch.no_grad():
        attentions = model(**tokenizer("Anna likes rice.", return_tensors="pt"), output_attentions=True).attentions
    assert torch.allclose(weights, attentions[1][0], atol=1e-5)
