"""The encoder layer beyond what the notebook shows: random shapes against torch and transformers, odd inputs, planted faults."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertLayer

from bertcourse.attention_checks import check_weights
from bertcourse.bert import SHAPES, BertModel
from bertcourse.layers import PreNormLayer, layer_cost, mean_cosine, plot_layer, random_layers
from bertcourse.sizes import stages
from bertcourse.transformer import (
    AddNorm,
    Attention,
    EncoderLayer,
    Intermediate,
    SelfAttention,
    causal_mask,
    gelu,
    gelu_tanh,
    layer_norm,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)

SIZE = st.integers(1, 6)
DTYPES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def small(heads=4, head_dim=8, inner=48, activation="gelu", dropout=0.0):
    return BertConfig(
        hidden_size=heads * head_dim, num_attention_heads=heads, intermediate_size=inner, hidden_act=activation,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, attn_implementation="eager",
    )  # fmt: skip


def attention_weights(scores, visible=None):
    """What attention makes of given scores: the keys are unit vectors, so that a query holds its own scores."""
    m = scores.shape[-1]
    keys = torch.eye(m, dtype=scores.dtype)
    return scaled_dot_product_attention(scores * math.sqrt(m), keys, keys, visible)[1]


def some_visible(*shape):
    """A random mask in which every query may see something."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return mask


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return EncoderLayer(small()).eval()


# --- against torch and transformers -------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(lead=st.lists(SIZE, max_size=2), n=SIZE, m=SIZE, d_k=SIZE, d_v=SIZE, dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_attention_is_torchs(lead, n, m, d_k, d_v, dtype, seed):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(*lead, *size, dtype=dtype) for size in ((n, d_k), (m, d_k), (m, d_v)))
    tolerance = dict(atol=DTYPES[dtype], rtol=DTYPES[dtype])
    for mask in (None, some_visible(n, m), some_visible(*lead, 1, m)):
        mixed, weights = scaled_dot_product_attention(q, k, v, mask)
        assert_close(mixed, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), **tolerance)
        check_weights(weights.double(), mask, atol=max(1e-5, DTYPES[dtype]))


@settings(max_examples=25, deadline=None)
@given(heads=st.integers(1, 4), head_dim=SIZE, n=SIZE, batch=SIZE, seed=st.integers(0, 99))
def test_self_attention_is_torchs(heads, head_dim, n, batch, seed):
    torch.manual_seed(seed)
    ours, H = Attention(small(heads, head_dim)).eval(), heads * head_dim
    theirs = nn.MultiheadAttention(H, heads, batch_first=True).eval()
    parts = [ours.self.query, ours.self.key, ours.self.value]
    theirs.load_state_dict({
        "in_proj_weight": torch.cat([p.weight for p in parts]), "in_proj_bias": torch.cat([p.bias for p in parts]),
        "out_proj.weight": ours.output.dense.weight, "out_proj.bias": ours.output.dense.bias,
    })  # fmt: skip
    x, text = torch.randn(batch, n, H), some_visible(batch, n)
    mixed, weights = ours.self(x, padding_mask(text))
    expected, expected_weights = theirs(x, x, x, key_padding_mask=~text, average_attn_weights=False)
    assert_close(ours.output.dense(mixed), expected, atol=1e-5, rtol=1e-5)
    assert_close(weights, expected_weights, atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(SIZE, min_size=1, max_size=3), eps=st.sampled_from([1e-12, 1e-5, 0.1]), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 99))
def test_layer_norm_is_torchs(shape, eps, scale, seed):
    torch.manual_seed(seed)
    x = scale * torch.randn(*shape, dtype=torch.float64)
    weight, bias = torch.randn(2, shape[-1], dtype=torch.float64)
    assert_close(layer_norm(x, weight, bias, eps), F.layer_norm(x, shape[-1:], weight, bias, eps))
    assert_close(layer_norm(x, eps=eps), F.layer_norm(x, shape[-1:], eps=eps))


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 4), head_dim=st.integers(1, 8), inner=st.integers(1, 40), n=st.integers(1, 8), seed=st.integers(0, 99),
    activation=st.sampled_from(["gelu", "relu", "gelu_new", "silu"]),
)  # fmt: skip
def test_layer_is_transformers(heads, head_dim, inner, n, seed, activation):
    torch.manual_seed(seed)
    config = small(heads, head_dim, inner, activation)
    theirs, ours = BertLayer(config).eval(), EncoderLayer(config).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x, text = torch.randn(3, n, heads * head_dim), torch.arange(n) < torch.tensor([[n], [(n + 1) // 2], [1]])
    hide = torch.zeros(3, 1, 1, n).masked_fill(~padding_mask(text), torch.finfo(x.dtype).min)
    for mask, added in ((padding_mask(text), hide), (None, None)):
        expected = theirs(x, added)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert_close(ours(x, mask)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make, norm_first", [(EncoderLayer, False), (PreNormLayer, True)])
def test_both_orders_are_torchs(make, norm_first):
    torch.manual_seed(0)
    config = small()
    ours = make(config).eval()
    theirs = nn.TransformerEncoderLayer(32, 4, 48, activation="gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=norm_first).eval()
    parts = [ours.attention.self.query, ours.attention.self.key, ours.attention.self.value]
    modules = {"self_attn.out_proj": ours.attention.output.dense, "norm1": ours.attention.output.LayerNorm,
               "linear1": ours.intermediate.dense, "linear2": ours.output.dense, "norm2": ours.output.LayerNorm}  # fmt: skip
    for module in modules.values():
        nn.init.normal_(module.bias)
    weights = {f"{name}.{p}": getattr(module, p) for name, module in modules.items() for p in ("weight", "bias")}
    weights["self_attn.in_proj_weight"] = torch.cat([p.weight for p in parts])
    weights["self_attn.in_proj_bias"] = torch.cat([p.bias for p in parts])
    theirs.load_state_dict(weights)
    x, text = torch.randn(2, 6, 32), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    ours_out, theirs_out = ours(x, padding_mask(text))[0], theirs(x, src_key_padding_mask=text == 0)
    assert_close(ours_out[text > 0], theirs_out[text > 0], atol=1e-5, rtol=1e-5)


def test_public_names_and_parameters_are_those_of_transformers():
    config = small()
    assert EncoderLayer(config).state_dict().keys() == BertLayer(config).state_dict().keys()
    assert {type(m) for m in EncoderLayer(config).modules()} >= {SelfAttention, Attention, AddNorm, Intermediate}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gelu_is_torchs(dtype):
    x = torch.linspace(-12, 12, 4801, dtype=dtype)
    assert_close(gelu(x), F.gelu(x), atol=1e-6, rtol=1e-5)
    assert_close(gelu_tanh(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=1e-5)
    assert_close(gelu(x), ACT2FN["gelu"](x), atol=1e-6, rtol=1e-5)
    assert_close(gelu_tanh(x), ACT2FN["gelu_new"](x), atol=1e-6, rtol=1e-5)
    assert x[gelu(x).argmin()].item() == pytest.approx(-0.7518, abs=0.005) and gelu(x).min().item() == pytest.approx(-0.16997, abs=1e-5)


@pytest.mark.parametrize("shape, heads", [((2, 3, 12), 3), ((5, 8), 1), ((1, 2, 4, 6), 6)])
def test_heads_split_and_merge(shape, heads):
    x = torch.randn(*shape)
    split = split_heads(x, heads)
    assert split.shape == (*shape[:-2], heads, shape[-2], shape[-1] // heads)
    assert torch.equal(merge_heads(split), x)
    width = shape[-1] // heads
    assert all(torch.equal(split.select(-3, h), x[..., h * width : (h + 1) * width]) for h in range(heads))


# --- masks --------------------------------------------------------------------------------------------------------


def test_masks_are_what_they_say():
    mask = padding_mask(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert mask.tolist() == [[[[True, True, False]]], [[[True, False, False]]]]
    assert torch.equal(padding_mask(torch.tensor([[True, False]])), torch.tensor([[[[True, False]]]]))
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert (mask & causal_mask(3)).shape == (2, 1, 3, 3)


@pytest.mark.parametrize("make", [EncoderLayer, PreNormLayer])
def test_what_is_hidden_does_not_matter(make):
    torch.manual_seed(0)
    layer, x = make(small()).eval(), torch.randn(2, 6, 32)
    other = x.clone()
    other[:, 4:] = 100 * torch.randn(2, 2, 32)
    padding = padding_mask(torch.tensor([[1, 1, 1, 1, 0, 0]] * 2))
    for visible in (padding, causal_mask(6)):
        assert_close(layer(x, visible)[0][:, :4], layer(other, visible)[0][:, :4])
    assert not torch.allclose(layer(x)[0][:, :4], layer(other)[0][:, :4])
    alone, padded = layer(x[:, :4])[0], layer(x, padding)[0][:, :4]
    assert_close(padded, alone)


def test_a_row_that_sees_nothing_has_equal_weights_and_gradients():
    scores = torch.randn(2, 4, 5, requires_grad=True)
    visible = torch.ones(4, 5, dtype=torch.bool)
    visible[2] = False
    weights = attention_weights(scores, visible)
    assert_close(weights[:, 2], torch.full((2, 5), 0.2))
    (weights * torch.randn(2, 4, 5)).sum().backward()
    assert scores.grad.isfinite().all() and scores.grad[:, 2].abs().max() == 0
    check_weights(weights, visible)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masks_hold_in_half_precision(dtype):
    scores = (50 * torch.randn(2, 4, 4)).to(dtype)
    weights = attention_weights(scores, causal_mask(4))
    assert weights.dtype == dtype and weights.isfinite().all() and not weights.triu(1).any()


# --- bad input ----------------------------------------------------------------------------------------------------

X = torch.randn(2, 7, 32)
TRUE = torch.ones(2, 1, 7, 7, dtype=torch.bool)
BAD = {
    "heads do not divide": (lambda layer: SelfAttention(BertConfig(hidden_size=30, num_attention_heads=4)), r"hidden size 30 does not split into 4 heads"),
    "no heads": (lambda layer: split_heads(X, 0), r"hidden size 32 does not split into 0 heads"),
    "split of a vector": (lambda layer: split_heads(X[0, 0], 4), r"takes \(…, n, H\), not \(32,\)"),
    "merge of a matrix": (lambda layer: merge_heads(X[0]), r"takes \(…, h, n, d\), not \(7, 32\)"),
    "query and key width": (lambda layer: scaled_dot_product_attention(X, X[..., :16], X), r"width: \(2, 7, 32\) and \(2, 7, 16\)"),
    "query and key batch": (lambda layer: scaled_dot_product_attention(X, X.repeat(2, 1, 1), X.repeat(2, 1, 1)), r"batches or heads: \(2, 7, 32\) and \(4, 7, 32\)"),
    "a query that is a vector": (lambda layer: scaled_dot_product_attention(X[0, 0], X[0], X[0]), r"\(32,\) and \(7, 32\)"),
    "key and value number": (lambda layer: scaled_dot_product_attention(X, X, X[:, :6]), r"number: \(2, 7, 32\) and \(2, 6, 32\)"),
    "layer, width": (lambda layer: layer(X[..., :30]), r"\(2, 7, 30\), but the layer takes \(…, n, 32\)"),
    "feed-forward, width": (lambda layer: layer.intermediate(X[..., :8]), r"\(2, 7, 8\), but the layer takes \(…, n, 32\)"),
    "add, another width": (lambda layer: layer.output(X, X), r"output \(2, 7, 32\) and input \(2, 7, 32\) do not fit: \(…, n, 48\)"),
    "add, another length": (lambda layer: layer.attention.output(X, X[:, :1]), r"output \(2, 7, 32\) and input \(2, 1, 32\)"),
    "mask, keys": (lambda layer: layer(X, TRUE[..., :6]), r"mask \(2, 1, 7, 6\) does not broadcast to the scores \(2, 4, 7, 7\)"),
    "mask, queries": (lambda layer: layer(X, TRUE[..., :6, :]), r"mask \(2, 1, 6, 7\) does not broadcast to the scores \(2, 4, 7, 7\)"),
    "mask, batch": (lambda layer: layer(X, TRUE.repeat(2, 1, 1, 1)), r"mask \(4, 1, 7, 7\) does not broadcast"),
    "mask, heads": (lambda layer: layer(X, TRUE.repeat(1, 3, 1, 1)), r"mask \(2, 3, 7, 7\) does not broadcast"),
    "mask, axes": (lambda layer: layer(X, TRUE[None]), r"mask \(1, 2, 1, 7, 7\) does not broadcast"),
    "mask, (batch, n)": (lambda layer: layer(X, TRUE[:, 0, 0]), r"mask \(2, 7\) does not broadcast to the scores \(2, 4, 7, 7\)"),
    "mask of integers": (lambda layer: layer(X, TRUE.long()), r"mask \(2, 1, 7, 7\) for scores \(2, 4, 7, 7\) holds torch.int64: give truth values"),
    "mask of floats": (lambda layer: layer(X, TRUE.float()), r"holds torch.float32: give truth values"),
    "padding mask, floats": (lambda layer: padding_mask(torch.ones(2, 7)), r"integers or truth values, not torch.float32 of shape \(2, 7\)"),
    "padding mask, axes": (lambda layer: padding_mask(torch.ones(2, 1, 7, dtype=torch.long)), r"of shape \(2, 1, 7\)"),
    "padding mask, ids": (lambda layer: padding_mask(torch.tensor([[2, 17, 3]])), r"not 2 … 17: are these ids\?"),
    "causal mask, nothing": (lambda layer: causal_mask(0), r"length of 1 at least, not 0"),
    "layer norm, weight": (lambda layer: layer_norm(X, torch.ones(7)), r"weight has shape \(7,\), the vectors \(2, 7, 32\)"),
    "layer norm, bias": (lambda layer: layer_norm(X, None, torch.ones(1, 32)), r"bias has shape \(1, 32\)"),
    "cost, nothing": (lambda layer: layer_cost(BertConfig(), 0), r"at least, not 0"),
}  # fmt: skip


@pytest.mark.parametrize("run, message", BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(layer, run, message):
    with pytest.raises(ValueError, match=message):
        run(layer)


def test_checks_look_at_shapes_only():
    """On the meta device there are no values: a check that looked at them, and made a GPU wait, would fail here."""
    with torch.device("meta"):
        out, weights = EncoderLayer(small())(torch.empty(2, 7, 32), torch.empty(2, 1, 1, 7, dtype=torch.bool))
    assert out.shape == (2, 7, 32) and weights.shape == (2, 4, 7, 7)


# --- the checks are checked ---------------------------------------------------------------------------------------

SCORES = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0))
HIDE = causal_mask(5)
FAULTS = {
    "no softmax": (lambda s: s, "softmax missing"),
    "not a number": (lambda s: s.masked_fill(s < math.inf, -math.inf).softmax(-1), "not a number"),
    "softmax over the queries": (lambda s: s.softmax(-2), "rows sum to"),
    "mask after the softmax": (lambda s: s.softmax(-1) * HIDE, "rows sum to"),
    "no mask": (lambda s: s.softmax(-1), "a hidden key has weight"),
    "inverted": (lambda s: attention_weights(s, ~HIDE), "a hidden key has weight"),
    "transposed": (lambda s: attention_weights(s, HIDE.T), "a hidden key has weight"),
    "a small number instead of the lowest": (lambda s: s.masked_fill(~HIDE, -1.0).softmax(-1), "a hidden key has weight"),
}


@pytest.mark.parametrize("weigh, message", FAULTS.values(), ids=FAULTS.keys())
def test_wrong_weights_are_noticed(weigh, message):
    check_weights(attention_weights(SCORES, HIDE), HIDE)
    with pytest.raises(ValueError, match=message):
        check_weights(weigh(SCORES), HIDE)


def test_a_check_with_a_wrong_mask_says_so():
    with pytest.raises(ValueError, match=r"mask \(5, 4\) does not broadcast"):
        check_weights(SCORES.softmax(-1), HIDE[:, :4])


VARIANTS = {
    "no scale": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "scaled by the number of keys": lambda q, k, v: (q @ k.mT / k.shape[-2] ** 0.5).softmax(-1) @ v,
    "softmax over the queries": lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v,
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_wrong_attention_would_be_noticed(variant):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    expected = F.scaled_dot_product_attention(q, k, v)
    assert_close(scaled_dot_product_attention(q, k, v)[0], expected)
    assert not torch.allclose(variant(q, k, v), expected, atol=1e-3)


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [3, 2, 1, 0]])
def test_words_in_another_order_have_the_same_outputs(order):
    """Attention knows no order: the outputs move with the words."""
    x = torch.randn(2, 4, 8)
    mixed, weights = scaled_dot_product_attention(x, x, x)
    moved, _ = scaled_dot_product_attention(x[:, order], x[:, order], x[:, order])
    assert_close(moved, mixed[:, order])


def test_heads_one_by_one_are_the_module():
    """As the formula of multi-head attention says it."""
    torch.manual_seed(0)
    attention, x, text = SelfAttention(small()).eval(), torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    heads = []
    for i in range(4):
        rows = slice(8 * i, 8 * (i + 1))  # nn.Linear keeps W transposed: a head is 8 rows
        q, k, v = (x @ m.weight[rows].T + m.bias[rows] for m in (attention.query, attention.key, attention.value))
        heads.append(scaled_dot_product_attention(q, k, v, padding_mask(text)[:, 0])[0])
    assert_close(torch.cat(heads, dim=-1), attention(x, padding_mask(text))[0])


def test_a_padding_mask_without_axes_is_taken_for_queries_and_keys():
    """A batch of n sequences of n tokens: nothing is refused, and the result is wrong; `padding_mask` gives it its axes."""
    x, mask = torch.randn(4, 1, 4, 8), torch.ones(4, 4, dtype=torch.long).tril()
    right, _ = scaled_dot_product_attention(x, x, x, padding_mask(mask))
    assert not torch.allclose(scaled_dot_product_attention(x, x, x, mask > 0)[0], right)


def test_the_feed_forward_network_works_on_each_position_by_itself(layer):
    x = torch.randn(2, 7, 32)
    together = layer.output.dense(layer.intermediate(x))
    one_by_one = torch.stack([layer.output.dense(layer.intermediate(x[:, i : i + 1]))[:, 0] for i in range(7)], dim=1)
    assert_close(together, one_by_one)


def test_gelu_is_the_expectation_of_a_random_mask():
    torch.manual_seed(0)
    points = torch.linspace(-2, 2, 9, dtype=torch.float64)
    passed = torch.rand(200_000, 9, dtype=torch.float64) < torch.special.ndtr(points)  # with probability Φ(x)
    assert_close((passed * points).mean(0), gelu(points), atol=0.01, rtol=0)
    assert torch.equal(gelu(points), gelu(points))


def test_softmax_has_the_slope_that_the_page_says():
    """diag(p) − ppᵀ, whose diagonal is p(1 − p)."""
    p = (scores := torch.randn(16, dtype=torch.float64)).softmax(-1)
    found = torch.autograd.functional.jacobian(lambda s: s.softmax(-1), scores)
    assert_close(found, torch.diag(p) - torch.outer(p, p))
    assert_close(found.diagonal(), p * (1 - p))


def test_batch_norm_of_one_vector_is_refused_and_layer_norm_is_not():
    x = torch.randn(1, 8)
    assert layer_norm(x).shape == x.shape
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(8, affine=False).train()(x)


@pytest.mark.parametrize("scale, least", [(1.0, 1e-6), (0.01, 1e-3)])
def test_another_epsilon_matters_for_small_vectors(scale, least):
    """PyTorch's default of 1e-5 in place of BERT's 1e-12."""
    torch.manual_seed(0)
    x = scale * torch.randn(20, 32)
    change = (layer_norm(x) - layer_norm(x, eps=1e-5)).abs().max()
    assert least < change and (scale < 1 or change < 1e-4)


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [EncoderLayer, PreNormLayer])
def test_every_parameter_learns_but_the_bias_of_the_keys(make):
    torch.manual_seed(0)
    layer = make(small(dropout=0.1)).train()
    out, _ = layer(torch.randn(4, 7, 32))
    (out * torch.randn_like(out)).sum().backward()
    largest = {name: p.grad.abs().max().item() for name, p in layer.named_parameters()}
    still = {name for name, g in largest.items() if g < 1e-6 * max(largest.values())}
    assert still == {"attention.self.key.bias"}


def test_train_mode_drops_out_and_eval_does_not():
    torch.manual_seed(0)
    layer, x = EncoderLayer(small(dropout=0.3)), torch.randn(1, 5, 32)
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
    _, weights = layer.train()(x)
    check_weights(weights)  # the weights returned are those before dropout


# --- cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden, inner, n", [(32, 48, 1), (32, 128, 9), (96, 100, 33)])
def test_cost_is_what_is_counted(hidden, inner, n):
    config = BertConfig(hidden_size=hidden, num_attention_heads=4, intermediate_size=inner)
    with torch.device("meta"):
        layer = EncoderLayer(config)
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, n, hidden))
    parameters, flops = zip(*layer_cost(config, n).values())
    assert sum(parameters) == sum(p.numel() for p in layer.parameters()) and sum(flops) == counter.get_total_flops()


@pytest.mark.parametrize("n", [128, 512])
def test_cost_agrees_with_chapter_1(n):
    shape = SHAPES["BERT-base"]
    assert 12 * sum(flops for _, flops in layer_cost(BertConfig(), n).values()) == sum(shape.flops(n).values())


# --- what the helper page of the layers adds ----------------------------------------------------------------------


def test_the_flow_of_a_layer_names_the_shape_after_each_step(layer):
    figure = plot_layer(layer, torch.randn(2, 7, 32))
    for shape in ("(2, 7, 32)", "(2, 4, 7, 7)", "(2, 7, 48)"):
        assert shape in figure.picture
    assert not any(module._forward_hooks for module in layer.modules()), "hooks are left behind"


@pytest.mark.parametrize("width, std, expected", [(128, None, 0.02 * math.sqrt(6)), (64, 0.1, 0.1)])
def test_random_layers_have_the_weights_that_were_asked_for(width, std, expected):
    torch.manual_seed(0)
    layers = random_layers(3, width, std, PreNormLayer)
    assert len(layers) == 3 and all(type(layer) is PreNormLayer for layer in layers)
    weight = layers[2].intermediate.dense.weight
    assert weight.std().item() == pytest.approx(expected, rel=0.05)
    assert not layers[0].attention.self.query.bias.any() and layers[0].output.dropout.p == 0


def test_mean_cosine_of_vectors_made_by_hand():
    x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]])
    assert mean_cosine(x) == pytest.approx(1 / 3, abs=1e-6)
    assert mean_cosine(-5 * torch.ones(1, 4, 3)) == pytest.approx(1, abs=1e-6)


def test_pictures_leave_nothing_on_a_model_that_refused():
    layer = EncoderLayer(small())
    with pytest.raises(Exception):  # noqa: B017 - whatever torch raises for a wrong width
        plot_layer(layer, torch.zeros(1, 3, 5))
    assert not any(module._forward_hooks for module in layer.modules())
    model = BertModel(small())
    with pytest.raises(Exception):  # noqa: B017
        stages(model, {"input_ids": torch.zeros(1, 10_000, dtype=torch.long)})
    assert not any(module._forward_hooks for module in model.modules())
