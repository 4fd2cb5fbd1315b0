"""Heads of a model: shares against rows made by hand, heads switched off, and what a map refuses."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForMaskedLM

from bertcourse import heads as heads_module
from bertcourse.corpus import documents
from bertcourse.heads import (
    RELATIONS,
    _encode,
    attention_weights,
    collect_shares,
    loss_without,
    masked_batch,
    masked_loss,
    plot_attention,
    plot_gap,
    relations,
    share_on,
    silence,
    summarise,
    survey_heads,
)
from bertcourse.profiles import load

TRUE = torch.ones(7, 7, dtype=torch.bool)
N = 5
ROW, COLUMN = torch.arange(N)[:, None], torch.arange(N)


@pytest.fixture(scope="module")
def tokenizer():
    return load("tiny").tokenizer()


@pytest.fixture(scope="module")
def model():
    return load("tiny").model(AutoModelForMaskedLM, attn_implementation="eager")


def test_share_of_heads_made_by_hand():
    previous = ROW - COLUMN == 1
    looks_back = torch.where(ROW == 0, torch.eye(N), previous.float())
    uniform = torch.full((N, N), 1 / N)
    weights = torch.stack([looks_back, uniform, torch.eye(N)])
    assert_close(share_on(weights, previous), torch.tensor([1.0, 0.2, 0.0]))  # the first row has no target
    assert share_on(weights, torch.zeros(N, N, dtype=torch.bool)).isnan().all()
    assert_close(share_on(weights, torch.ones(N, N, dtype=torch.bool)), torch.ones(3))


@pytest.mark.parametrize("relation, message", [
    (TRUE[:6], r"shape \(7, 7\) for weights \(4, 7, 7\), not torch.bool of shape \(6, 7\)"),
    (TRUE.float(), r"not torch.float32 of shape \(7, 7\)"),
])  # fmt: skip
def test_a_relation_of_another_shape_or_kind_is_refused(relation, message):
    with pytest.raises(ValueError, match=message):
        share_on(torch.ones(4, 7, 7), relation)


def test_the_most_pronounced_head_is_picked_on_one_half_and_reported_on_the_other():
    torch.manual_seed(0)
    share = torch.full((20, 2, 3), 0.1) + 0.01 * torch.randn(20, 2, 3)
    share[:10, 1, 2] += 0.5  # a head that leads by chance in the first half only
    values = {"share": share, "others": share, "uniform": torch.full((20,), 0.1)}
    row = summarise(values)
    assert (row["layer"], row["head"], row["documents"]) == (1, 2, 10)
    assert abs(row["share"] - 0.1) < 0.02 and row["low"] < 0 < row["high"]
    wider = summarise(values, comparisons=9)
    assert wider["low"] < row["low"] and wider["high"] > row["high"]


def test_the_interval_is_that_of_a_paired_test():
    from scipy.stats import ttest_rel

    torch.manual_seed(0)
    share, uniform = torch.rand(40, 1, 1), torch.rand(40) / 4
    row = summarise({"share": share, "others": share, "uniform": uniform})
    expected = ttest_rel(share[20:, 0, 0].double(), uniform[20:].double()).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_targets_are_what_the_grammar_says(tokenizer, lang):
    """Each target of a relation is read off the words again."""
    seen = set()
    for document in documents(60, lang=lang, split="validation"):
        inputs, words = _encode(tokenizer, document)
        ids = inputs["input_ids"][0]
        found = relations(tokenizer, ids, words)
        assert tuple(found) == RELATIONS
        for name, relation in found.items():
            for i, j in relation.nonzero().tolist():
                seen.add(name)
                (s, a), (t, b) = words[i], words[j] or (None, None)
                good = {"previous token": j == i - 1, "next token": j == i + 1, "[SEP]": ids[j] == tokenizer.sep_token_id}
                if b:
                    good |= {"verb → its subject": a.pos == "VERB" and b.role == "subject" and s == t,
                             "verb → its subject, not adjacent": a.pos == "VERB" and b.role == "subject" and not any(
                                 abs(k - m) == 1 for k, first in enumerate(words) if first is words[i]
                                 for m, second in enumerate(words) if second and second[0] == s and second[1].role == "subject"),
                             "same word elsewhere": a.text.lower() == b.text.lower() and a.pos != "PUNCT" and words[i] is not words[j],
                             "another thing of the same kind": a.entity == b.entity != "" and a.text != b.text,
                             "pronoun → its name": a.pos == "PRON" and a.ref == b.ref != "",
                             "8 or more tokens away": abs(i - j) >= 8}  # fmt: skip
                assert good[name], (name, i, j, document)
    assert seen == set(RELATIONS)


def test_the_same_word_is_neither_punctuation_nor_a_part_of_the_same_word(tokenizer):
    """Full stops and the characters of one Chinese name are no other occurrences of a word."""
    for lang in ("en", "zh"):
        for document in documents(30, lang=lang, split="validation"):
            inputs, words = _encode(tokenizer, document)
            same = relations(tokenizer, inputs["input_ids"][0], words)["same word elsewhere"]
            for i, j in same.nonzero().tolist():
                assert words[i] is not words[j] and words[i][1].text.isalnum() | ("'" in words[i][1].text)


def test_a_verb_beside_its_subject_is_adjacent_with_all_its_tokens(tokenizer):
    """In Chinese a verb has several tokens, of which only the first is beside the subject."""
    parts = 0
    for document in documents(60, lang="zh", split="validation"):
        inputs, words = _encode(tokenizer, document)
        found = relations(tokenizer, inputs["input_ids"][0], words)
        subject, apart = found["verb → its subject"], found["verb → its subject, not adjacent"]
        for i, word in enumerate(words):
            tokens = [k for k, other in enumerate(words) if other is word and word is not None]
            if subject[i].any() and len(tokens) > 1:
                parts += 1
                assert len({bool(apart[k].any()) for k in tokens}) == 1, (document, i)
    assert parts > 20


@pytest.mark.parametrize("text, frame, columns", [
    ("Anna ate a cake because she was tired.", ("she", "Anna"), ["anna"]),
    ("安娜不会打鼓，可是她很高兴。", ("她", "安娜"), ["安", "娜"]),
    ("Anna ate a cake because she was tired.", ("she", "Ben"), []),
])  # fmt: skip
def test_only_the_word_is_framed(model, tokenizer, monkeypatch, text, frame, columns):
    """Not the article in the name, and all pieces of the name."""
    framed = []
    monkeypatch.setattr(heads_module, "plot_heatmaps", lambda maps, tokens, **how: framed.extend(tokens[j] for _, j in how["frames"]))
    plot_attention(model, tokenizer, text, heads={"a head": (0, 0)}, frame=frame)
    assert framed == columns


def test_others_are_the_rows_without_a_target(model, tokenizer):
    shares = collect_shares(model, tokenizer, "en", count=6)
    for name in ("pronoun → its name", "verb → its subject"):
        others = shares[name]["others"]
        assert others.shape[1:] == (4, 4) and ((others >= 0) & (others <= 1)).all(), name


@pytest.mark.parametrize("part, size", [(2, 32), ("attention", 128), ("feed-forward", 128)])
def test_a_silent_part_puts_out_zeros_and_speaks_again_afterwards(model, tokenizer, part, size):
    layer = model.base_model.encoder.layer[1]
    modules = {"attention": layer.attention.output.dense, "feed-forward": layer.output.dense}
    outputs = []
    inputs = tokenizer("my dog is hairy", return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
        with silence(model, 1, part):
            watch = modules.get(part, layer.attention.self).register_forward_hook(lambda m, i, o: outputs.append(o))
            during = model(**inputs).logits
            watch.remove()
        after = model(**inputs).logits
    output = outputs[0][0][..., 64:96] if part == 2 else outputs[0]
    assert output.shape[-1] == size and not output.any()
    assert not torch.allclose(before, during) and torch.equal(before, after)


@pytest.mark.parametrize("layer, part, said", [
    (0, -1, "layer 0 has no part -1: give a head, 0 to 3, 'attention' or 'feed-forward'"), (0, 4, "layer 0 has no part 4"),
    (0, "ffn", "layer 0 has no part 'ffn'"), (4, 0, "there is no layer 4: the model has layers 0 to 3"), (-1, 0, "there is no layer -1"),
])  # fmt: skip
def test_a_part_that_is_not_there_is_refused(model, layer, part, said):
    "It would silence nothing, and the loss would seem not to need it."
    with pytest.raises(ValueError, match=said):
        with silence(model, layer, part):
            pass


def test_what_others_hold_of_a_silent_head_stays(model, tokenizer):
    "A tensor that somebody noted before is not overwritten."
    inputs, noted = tokenizer("my dog is hairy", return_tensors="pt"), []
    attention = model.base_model.encoder.layer[1].attention.self
    watch = attention.register_forward_hook(lambda m, i, output: noted.append(output[0]))
    try:
        with torch.no_grad(), silence(model, 1, 2):
            model(**inputs)
    finally:
        watch.remove()
    assert noted[0][..., 64:96].any()


def test_dropout_is_off_after_training(tokenizer):
    "A model comes out of a training loop in train mode; measuring leaves it there."
    model = load("tiny").model(AutoModelForMaskedLM, attn_implementation="eager", hidden_dropout_prob=0.5).train()
    batch, inputs = masked_batch(tokenizer, "en", 5), tokenizer("my dog is hairy", return_tensors="pt")
    assert masked_loss(model, *batch) == masked_loss(model, *batch)
    assert torch.equal(attention_weights(model, inputs), attention_weights(model, inputs))
    assert all(module.training for module in model.modules())


def test_the_loss_is_that_of_transformers(model, tokenizer):
    batch, labels = masked_batch(tokenizer, "en", 20)
    with torch.no_grad():
        expected = model(**batch, labels=labels).loss.item()
    assert masked_loss(model, batch, labels) == pytest.approx(expected, abs=1e-5)
    assert loss_without(model, [(batch, labels)], 0, "attention") > 3 * expected
    hidden = labels > -100
    assert (batch["input_ids"][hidden] == tokenizer.mask_token_id).all() and 0.05 < hidden.float().mean() < 0.25


def test_weights_of_all_heads(model, tokenizer):
    weights = attention_weights(model, tokenizer("my dog is hairy", return_tensors="pt"))
    assert weights.shape == (4, 4, 6, 6)
    assert_close(weights.sum(-1), torch.ones(4, 4, 6))


def test_what_is_not_there_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match=r"there is no \[MASK\] in this text"):
        plot_gap(model, tokenizer, "my dog is hairy", 4)
    with pytest.raises(ValueError, match="this model knows en, not zh"):
        survey_heads(load("tiny").only("en"), "zh")


def test_a_survey_shows_every_relation():
    found = survey_heads(load("tiny"), "en", count=30)
    text = found._repr_mimebundle_()["text/plain"]
    assert text.startswith("targets | layer.head | share | uniform | difference, 95% interval | other rows | documents\nprevious token | 1.3 | 0.6")
    assert found.heads("next token") == {"next token": (0, 3)}
    assert all(math.isfinite(row["share"]) for row in found.rows.values())
