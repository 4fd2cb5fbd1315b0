"""`bertcourse.bert` where a notebook cell is the wrong place: many configurations, odd inputs, checkpoint formats."""

import json
import os

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig

from bertcourse.assets import asset
from bertcourse.bert import SHAPES, BertModel, Shape, count_parameters, influence, wordpiece
from bertcourse.checkpoints import read_checkpoint
from bertcourse.wordpieces import tokenize, words

SMALL = BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return BertModel(SMALL).eval()


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(0, 3),
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 8),
    intermediate=st.integers(1, 40),
    vocab=st.integers(5, 50),
    positions=st.integers(8, 20),
    segments=st.integers(1, 3),
    activation=st.sampled_from(["gelu", "relu", "gelu_new", "silu"]),
)
def test_agrees_with_transformers(layers, heads, head_dim, intermediate, vocab, positions, segments, activation):
    config = BertConfig(
        num_hidden_layers=layers, num_attention_heads=heads, hidden_size=heads * head_dim, intermediate_size=intermediate,
        vocab_size=vocab, max_position_embeddings=positions, type_vocab_size=segments, hidden_act=activation,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    theirs = AutoModel.from_config(config).eval()
    ours = BertModel(config).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    ids, mask = torch.randint(0, vocab, (3, 8)), (torch.arange(8) < torch.tensor([[8], [5], [1]])).long()
    inputs = dict(input_ids=ids, attention_mask=mask, token_type_ids=torch.randint(0, segments, (3, 8)))
    with torch.no_grad():
        a, b = ours(**inputs), theirs(**inputs)
    torch.testing.assert_close(a.last_hidden_state, b.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.pooler_output, b.pooler_output, atol=1e-5, rtol=0)


def test_initialised_like_the_released_code():
    model = BertModel(BertConfig(num_hidden_layers=1))
    assert model.embeddings.word_embeddings.weight[1:].std().item() == pytest.approx(0.02, rel=0.02)
    assert not model.embeddings.word_embeddings.weight[0].any()
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_train_mode_drops_out_and_eval_does_not(small):
    ids = torch.randint(1, 60, (2, 6))
    small.train()
    assert not torch.equal(small(ids).last_hidden_state, small(ids).last_hidden_state)
    small.eval()
    assert torch.equal(small(ids).last_hidden_state, small(ids).last_hidden_state)


def test_a_mask_with_a_row_per_query_is_obeyed(small):
    causal = torch.ones(1, 5, 5).tril()
    seen = influence(lambda x: small(x, attention_mask=causal).last_hidden_state, torch.arange(1, 6)[None], 50)
    assert torch.equal(seen, causal[0].bool())


@pytest.mark.parametrize("inputs, message", [
    (dict(input_ids=torch.ones(2, 3)), r"int64 or int32 of shape \(batch, n\) with n ≥ 1, not torch.float32"),
    (dict(input_ids=torch.ones(2, 3, dtype=torch.bool)), "not torch.bool"),
    (dict(input_ids=torch.ones(2, 0, dtype=torch.long)), "n ≥ 1"),
    (dict(input_ids=torch.ones(3, dtype=torch.long)), r"shape \(3,\)"),
    (dict(input_ids=torch.tensor([[60]])), "holds 60 … 60, but the vocabulary has entries 0 … 59"),
    (dict(input_ids=torch.tensor([[-1]])), "holds -1 … -1"),
    (dict(input_ids=torch.ones(1, 2, dtype=torch.long), token_type_ids=torch.ones(1, 3, dtype=torch.long)), "must be equal"),
    (dict(input_ids=torch.ones(1, 2, dtype=torch.long), token_type_ids=torch.tensor([[0, 2]])), "segment table has entries 0 … 1"),
    (dict(input_ids=torch.ones(1, 2, dtype=torch.long), attention_mask=torch.ones(2, 2)), r"must be \(1, 2\) or \(1, 2, 2\)"),
    (dict(input_ids=torch.ones(1, 513, dtype=torch.long)), "513 tokens, but only 512 positions"),
])  # fmt: skip
def test_bad_inputs_are_named(small, inputs, message):
    with pytest.raises(ValueError, match=message):
        small(**inputs)


def saved(tmp_path, model):
    model.save_pretrained(tmp_path)
    return tmp_path


def test_checkpoints_of_every_kind_load(tmp_path):
    reference = transformers.BertForPreTraining(SMALL).eval()
    ids = torch.randint(1, 60, (2, 6))
    folder = saved(tmp_path / "one", reference)
    tensors = load_file(folder / "model.safetensors")
    config = (folder / "config.json").read_text()

    def variant(name, write):
        place = tmp_path / name
        place.mkdir()
        (place / "config.json").write_text(config)
        write(place)
        return place

    def shards(place):
        names = sorted(tensors)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, part in parts.items():
            save_file({n: tensors[n] for n in part}, place / file)
        index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))

    def old(place):
        renamed = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for n, t in tensors.items()}
        torch.save(renamed, place / "pytorch_model.bin")

    encoder = saved(tmp_path / "encoder", reference.bert)
    for place in [folder, variant("shards", shards), variant("old", old), encoder]:
        with torch.no_grad():
            torch.testing.assert_close(BertModel.from_pretrained(place)(ids).pooler_output, reference.bert(ids).pooler_output)


def test_broken_checkpoints_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        BertModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(SMALL.to_json_string())
    with pytest.raises(ValueError, match="holds no weights"):
        BertModel.from_pretrained(tmp_path)
    model = transformers.BertModel(SMALL)
    tensors = {n: t for n, t in model.state_dict().items() if "layer.1" not in n}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks 16 of 39 parameters, first 'encoder.layer.1"):
        BertModel.from_pretrained(tmp_path)
    assert read_checkpoint(tmp_path)[0].hidden_size == 24
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="weights in .* are damaged"):
        BertModel.from_pretrained(tmp_path)
    for option, value in {"model_type": "distilbert", "position_embedding_type": "relative_key", "is_decoder": True}.items():
        (tmp_path / "config.json").write_text(json.dumps({option: value}))
        with pytest.raises(ValueError, match=f"has {option} {value!r}: only"):
            BertModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        BertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda s: s.name)
def test_shapes_agree_with_transformers(shape):
    assert count_parameters(shape.config()) == shape.total()


# TinyBERT Table 1 and errata §9.1: FLOPs at length 128 to the printed digit
@pytest.mark.parametrize("name, printed", [("BERT-base", 22.5), ("TinyBERT-4", 1.2), ("TinyBERT-6", 11.3)])
def test_flops_agree_with_the_papers(name, printed):
    assert sum(SHAPES[name].flops(128).values()) / 1e9 == pytest.approx(printed, rel=0.04)


def test_a_wrong_formula_would_be_noticed():
    wrong = Shape("one bias too few", 12, 768, 12, 3072, segments=1)
    assert count_parameters(SHAPES["BERT-base"].config()) != wrong.total()


# Text that any unicode version since 8 (that of the Rust tables) reads alike.
OLD = "".join(chr(c) for low, high in [(0, 0x17F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939),
              (0x2010, 0x2027), (0x3000, 0x3011), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x4E80), (0xAC00, 0xAC80), (0xFF01, 0xFF5E),
              (0x1F600, 0x1F640)] for c in range(low, high + 1))  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(asset("tiny-bert"))


PIECE = st.one_of(st.sampled_from(OLD), st.sampled_from("mydoghairy 我的狗"), st.sampled_from(["[MASK]", "[SEP]", "[mask]", "##"]))


@settings(max_examples=2000, deadline=None)
@given(text=st.lists(PIECE, max_size=60).map("".join))
def test_wordpiece_agrees_with_the_rust_tokenizer(tokenizer, text):
    assert tokenize(text, tokenizer.get_vocab()) == tokenizer.tokenize(text)


def test_wordpiece_limits():
    vocab = {"a": 0, "##a": 1}
    assert wordpiece("a" * 100, vocab) == ["a"] + ["##a"] * 99
    assert wordpiece("a" * 101, vocab) == ["[UNK]"] and wordpiece("", vocab) == ["[UNK]"]
    assert words("") == [] and words("\u200b \x00") == []


def test_a_wrong_wordpiece_would_be_noticed(tokenizer):
    vocab = tokenizer.get_vocab()
    shortest = [c if i == 0 else "##" + c for i, c in enumerate("hairy")]
    assert wordpiece("hairy", vocab) != shortest and tokenizer.tokenize("hairy") != shortest


CHECKPOINT = os.environ.get("BERTCOURSE_CHECKPOINT")


@pytest.mark.skipif(not CHECKPOINT, reason="BERTCOURSE_CHECKPOINT names no folder with a real uncased BERT checkpoint")
def test_a_real_checkpoint_agrees():
    theirs, ours = AutoModel.from_pretrained(CHECKPOINT).eval(), BertModel.from_pretrained(CHECKPOINT)
    real = AutoTokenizer.from_pretrained(CHECKPOINT)
    texts = ["my dog is hairy", "Crème brûlée, unaffable haircuts & a 弹吉他 pun (2018)!"]
    assert [tokenize(t, real.get_vocab()) for t in texts] == [real.tokenize(t) for t in texts]
    inputs = real(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(ours(**inputs).last_hidden_state, theirs(**inputs).last_hidden_state, atol=1e-5, rtol=0)
