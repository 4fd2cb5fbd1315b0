"""Masks have the right shares, pairs lose nothing, heads agree with transformers, runs come out the same again."""

import ast
import dataclasses
import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from other_device import on_other_device
from torch import nn

from bertcourse.assets import asset
from bertcourse.bert import BertModel
from bertcourse.corpus import load_tokenizer
from bertcourse.pieces import Pieces, toy_pieces
from bertcourse.pretraining import (
    BertForPreTraining,
    Collator,
    Inputs,
    Masking,
    PreTrainingHeads,
    Recipe,
    chances,
    cost,
    fillers,
    items,
    losses,
    mask_tokens,
    pretrain,
    pseudo_perplexity,
    segment_pairs,
    word_keys,
)
from bertcourse.progress import count_known_facts
from bertcourse.recipes import make_data

TOKENIZER = load_tokenizer()
V, MASK = len(TOKENIZER), TOKENIZER.mask_token_id
IGNORED = -100
TINY = transformers.BertConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                               hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
SMALL = Recipe(documents=60, num_layers=1, hidden_size=16, num_heads=2, lengths=((64, 1.0),), steps=6, parts=2, batch_size=4, lr=1e-3)


@pytest.fixture(scope="module")
def both():
    "Toy text of both languages."
    return toy_pieces(TOKENIZER, 200)


def throw(ids, seed=0, masking=Masking(), **kwargs):
    "Inputs and labels for ids above 4, the special ones."
    dice = np.random.default_rng(seed).random((len(ids), 4, ids.shape[1]))
    return mask_tokens(ids, ids > 4, dice, masking, MASK, kwargs.pop("vocab_size", V), **kwargs)


def text(rows=2000, n=100, seed=0):
    "Rows of random ordinary pieces."
    return np.random.default_rng(seed).integers(5, V, (rows, n))


def pieces_of(*documents):
    "Documents given as the lengths of their sentences, every piece a number of its own."
    sentences = np.cumsum([0, *(n for document in documents for n in document)])
    ends = np.cumsum([0, *map(len, documents)])
    return Pieces(np.arange(sentences[-1]) + 5, np.ones(sentences[-1], bool), sentences, ends)


# --- masks --------------------------------------------------------------------------------------------------------


def faults(inputs, labels, masking):
    "Which shares lie outside of five standard deviations of their binomial distribution."
    chosen = labels != IGNORED
    masked, kept = chosen & (inputs == MASK), chosen & (inputs == labels)
    counts = {
        "chosen": (chosen.sum(), chosen.size, masking.rate),
        "[MASK]": (masked.sum(), chosen.sum(), masking.mask),
        "kept": (kept.sum(), chosen.sum(), 1 - masking.mask - masking.random),
        "random": ((chosen & ~masked & ~kept).sum(), chosen.sum(), masking.random),
    }
    # a random piece is [MASK] or the piece itself twice in V, again within five standard deviations
    def slack(n, p):
        return 5 * math.sqrt(n * p * (1 - p)) + 2 * n / V + 5 * math.sqrt(2 * n / V)
    return [name for name, (k, n, p) in counts.items() if abs(k - n * p) > slack(n, p)]


@pytest.mark.parametrize("masking", [Masking(), Masking(0.4, 0.5, 0.3), Masking(0.15, 1.0, 0.0), Masking(0.15, 0.0, 1.0)])
def test_shares(masking):
    assert faults(*throw(text(), masking=masking), masking) == []


@pytest.mark.parametrize("planted, fault", [(Masking(rate=0.2), "chosen"), (Masking(mask=0.75, random=0.15), "[MASK]"),
                                            (Masking(random=0.15), "random"), (Masking(random=0.05), "kept")])  # fmt: skip
def test_wrong_shares_are_found(planted, fault):
    assert fault in faults(*throw(text(), masking=planted), Masking())


@pytest.mark.parametrize("whole_words", [0.0, 0.5, 1.0])
def test_special_tokens_and_padding_stay(whole_words):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 40, (500, 30))  # an eighth is special
    inputs, labels = throw(ids, masking=Masking(0.5, whole_words=whole_words), starts=rng.random(ids.shape) < 0.6)
    assert (inputs[ids <= 4] == ids[ids <= 4]).all() and (labels[ids <= 4] == IGNORED).all()
    assert (labels[labels != IGNORED] == ids[labels != IGNORED]).all() and (labels != IGNORED).any()


def test_at_least_one_and_the_luckiest():
    ids = text(3000, 3)
    dice = np.random.default_rng(1).random((3000, 4, 3))
    _, labels = mask_tokens(ids, ids > 4, dice, Masking(), MASK, V)
    chosen, none = labels != IGNORED, (dice[:, 0] >= 0.15).all(1)
    assert (chosen.sum(1) >= 1).all() and none.mean() == pytest.approx(0.85**3, abs=0.05)
    assert (chosen[none].sum(1) == 1).all() and (chosen[none].argmax(1) == dice[none, 0].argmin(1)).all()


@pytest.mark.parametrize("most", [1, 3, 20])
def test_a_fixed_number_is_that_of_googles_code(most):
    """min(most, max(1, round(0.15 n))), n with [CLS] and [SEP]: in one batch, whatever the padding."""
    rng = np.random.default_rng(0)
    rows = []
    for i, n in enumerate([3, 5, 9, 10, 11, 30, 37, 64, 100, 128]):
        ids = np.array([TOKENIZER.cls_token_id, *rng.integers(5, V, n - 2), TOKENIZER.sep_token_id])
        rows.append({"input_ids": ids, "starts": np.ones(n, bool), "token_type_ids": np.zeros(n, int), "next_sentence_label": 0,
                     "example": (0, 0, i)})
    batch = Collator(TOKENIZER, Masking(max_predictions=most))(rows)
    found = (batch["labels"] != IGNORED).sum(1).tolist()
    assert found == [min(most, max(1, round(0.15 * len(row["input_ids"])))) for row in rows]
    assert most < 20 or found[-1] == 19


def mask_by_loops(ids, maskable, draws, most, rate=0.15, mask=0.8, random=0.1):
    "The rule position by position, as chapter 3 has it, with given random numbers."
    inputs, labels = list(ids), [IGNORED] * len(ids)
    choose, how, which = draws[:3]
    order = sorted((choose[i], i) for i in range(len(ids)) if maskable[i])
    chosen = [i for draw, i in order if draw < rate] or [order[0][1]]
    if most:
        chosen = [i for _, i in order[: min(most, max(1, round(rate * len(ids))))]]
    for i in chosen:
        labels[i] = ids[i]
        if how[i] < mask:
            inputs[i] = MASK
        elif how[i] < mask + random:
            inputs[i] = int(which[i] * V)
    return inputs, labels


@pytest.mark.parametrize("most", [0, 20])
def test_loops_give_the_same(most):
    ids = np.array([TOKENIZER("My dog is hairy, and Anna's cat eats fish on Mondays.")["input_ids"]])
    maskable = ~np.isin(ids, TOKENIZER.all_special_ids)
    for seed in range(200):
        draws = np.random.default_rng(seed).random((1, 4, ids.shape[1]))
        inputs, labels = mask_tokens(ids, maskable, draws, Masking(max_predictions=most), MASK, V)
        assert (inputs[0].tolist(), labels[0].tolist()) == mask_by_loops(ids[0].tolist(), maskable[0], draws[0], most)


def test_a_fixed_number_prefers_the_rare():
    ids, probability = text(4000, 20), np.full((4000, 20), 0.1)
    probability[:, :10] = 0.3
    draws = np.random.default_rng(3).random((4000, 4, 20))
    chosen = mask_tokens(ids, ids > 4, draws, Masking(max_predictions=20), MASK, V, probability=probability)[1] != IGNORED
    assert (chosen.sum(1) == 3).all() and chosen[:, :10].sum() > 2 * chosen[:, 10:].sum()


def test_a_fixed_number_replaces_as_ever():
    assert faults(*throw(text(), masking=Masking(max_predictions=20)), Masking()) == []


def test_a_row_of_special_tokens_predicts_nothing():
    assert (throw(np.full((3, 5), 2))[1] == IGNORED).all()


def words_of(starts):
    "Spans of a row's words."
    ends = [*np.flatnonzero(starts), len(starts)]
    return list(zip(ends, ends[1:]))


@pytest.mark.parametrize("whole_words", [0.5, 1.0])
def test_words_are_whole_or_in_part(whole_words):
    rng, ids = np.random.default_rng(0), text(4000, 40)
    starts = rng.random(ids.shape) < 0.5
    starts[:, 0] = True
    chosen = throw(ids, masking=Masking(0.3, whole_words=whole_words), starts=starts)[1] != IGNORED
    hidden = [chosen[r, a:b] for r in range(1000) for a, b in words_of(starts[r]) if b - a > 1 and chosen[r, a:b].any()]
    share_whole = np.mean([word.all() for word in hidden])
    assert abs(share_whole - whole_words) < 5 * math.sqrt(0.25 / len(hidden)) * (whole_words < 1) + 1e-9
    if whole_words == 1.0:  # the rate of pieces is the rate of words; hiding in part takes from it
        assert abs(chosen.mean() - 0.3) < 0.01


def test_a_word_is_chosen_by_its_first_die():
    ids, starts = text(500, 20), np.tile([True, False], (500, 10))
    dice = np.random.default_rng(2).random((500, 4, 20))
    chosen = mask_tokens(ids, ids > 4, dice, Masking(0.4, whole_words=1.0), MASK, V, starts)[1] != IGNORED
    some = (dice[:, 0, ::2] < 0.4).any(1)
    assert (chosen[some, ::2] == (dice[some, 0, ::2] < 0.4)).all() and (chosen[:, ::2] == chosen[:, 1::2]).all()


def test_a_word_cut_by_the_edge_begins_after_cls():
    ids = np.array([[2, 10, 11, 12, 3]])
    starts = np.array([[True, False, False, True, True]])  # the input begins in the middle of a word
    found = {tuple((throw(ids, seed, Masking(0.5, 1.0, 0.0, 1.0), starts=starts)[1] != IGNORED)[0]) for seed in range(60)}
    assert found == {(False, True, True, False, False), (False, False, False, True, False), (False, True, True, True, False)}


def test_whole_words_need_to_know_where_words_begin():
    with pytest.raises(ValueError, match="give `starts`"):
        throw(text(2, 5), masking=Masking(whole_words=1.0))


def chi_square(a, b):
    "Do two rows of counts come from one distribution? Standard deviations above what chance gives."
    keep = (a + b) > 0
    a, b = a[keep].astype(float), b[keep].astype(float)
    expected = (a + b) / (a + b).sum()
    value = sum((((x - x.sum() * expected) ** 2) / (x.sum() * expected)).sum() for x in (a, b))
    freedom = len(a) - 1
    return (value - freedom) / math.sqrt(2 * freedom)


def census(inputs, labels, vocab_size):
    "What is to be compared: kinds of replacement; places; which pieces are random; which pieces are chosen."
    chosen = labels != IGNORED
    masked, kept = chosen & (inputs == MASK), chosen & (inputs == labels)
    random = chosen & ~masked & ~kept
    kinds = np.array([(~chosen).sum(), masked.sum(), kept.sum(), random.sum()])
    per_row = np.bincount(chosen.sum(1), minlength=inputs.shape[1] + 1)
    return kinds, chosen.sum(0), np.bincount(inputs[random], minlength=vocab_size), np.bincount(labels[chosen], minlength=vocab_size), per_row


@pytest.fixture(scope="module")
def theirs():
    "transformers' collator on random pieces."
    collate = transformers.DataCollatorForLanguageModeling(TOKENIZER, mlm_probability=0.15, seed=0)
    batch = collate([{"input_ids": row} for row in torch.from_numpy(text(6000, 60))])
    return census(batch["input_ids"].numpy(), batch["labels"].numpy(), V)


def test_as_transformers_distributes_them(theirs):
    ours = census(*throw(text(6000, 60, seed=1), seed=5), V)
    assert max(chi_square(a, b) for a, b in zip(ours, theirs)) < 5


@pytest.mark.parametrize("planted, what", [(dict(masking=Masking(rate=0.16)), 0), (dict(masking=Masking(mask=0.79)), 0),
                                           (dict(vocab_size=V // 2), 2)])  # fmt: skip
def test_another_distribution_is_found(theirs, planted, what):
    ours = census(*throw(text(6000, 60, seed=1), seed=5, **planted), V)
    assert chi_square(ours[what], theirs[what]) > 5


@pytest.mark.parametrize("bad, message", [
    (dict(rate=0.0), "rate"), (dict(rate=1.0), "rate"), (dict(mask=0.9, random=0.2), "together at most 1"), (dict(random=-0.1), "random must be a number from 0 to 1, not -0.1"),
    (dict(whole_words=1.5), "whole_words"), (dict(rarity=-1.0), "rarity"),
    (dict(max_predictions=-1), "max_predictions"), (dict(max_predictions=20, whole_words=0.5), "counts tokens"),
    (dict(rate=0.6, rarity=0.5), "no word is chosen with a probability above 0.5"), (dict(rate="0.1"), "rate"), (dict(mask=True), "mask"),
])  # fmt: skip
def test_masking_refuses(bad, message):
    with pytest.raises(ValueError, match=message):
        Masking(**bad)


@pytest.mark.parametrize("masking", [Masking(rarity=0.5), Masking(0.25, rarity=1.0), Masking(0.25, whole_words=1.0, rarity=0.5)])
def test_chances_keep_the_rate_and_prefer_the_rare(both, masking):
    begins = both.starts if masking.whole_words else np.ones_like(both.starts)
    keys, found = word_keys(both.ids, begins), chances(both, masking)
    assert found[keys].mean() == pytest.approx(masking.rate, rel=0.02) and 0 < found.min() and found.max() <= 0.5
    frequency = np.bincount(keys[begins], minlength=len(found))
    assert (np.diff(found[np.argsort(-frequency, kind="stable")]) >= -1e-12).all()


def test_rare_words_of_common_characters_count_as_rare(both):
    "The months of Chinese are made of numbers; in English they are words of their own."
    found = chances(both, Masking(0.25, whole_words=1.0, rarity=0.5))

    def chance(text):
        ids = np.array(TOKENIZER.convert_tokens_to_ids(TOKENIZER.tokenize(text)))
        return found[word_keys(ids, np.arange(len(ids)) == 0)[0]]

    assert chance("九月") > 3 * chance("的") and chance("September") > 3 * chance("the")


words_in_order = st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=20), min_size=1, max_size=30)


@given(words_in_order)
def test_equal_words_have_equal_numbers(words):
    ids = np.concatenate(words)
    begins = np.concatenate([np.arange(len(word)) == 0 for word in words])
    keys = word_keys(ids, begins)
    at = np.flatnonzero(begins)
    numbers = {}
    for word, start in zip(words, at):
        assert (keys[start : start + len(word)] == keys[start]).all()
        assert numbers.setdefault(tuple(word), keys[start]) == keys[start]


def test_other_words_have_other_numbers(both):
    ends = [*np.flatnonzero(both.starts)[1:], len(both.ids)]
    keys, numbers = word_keys(both.ids, both.starts), {}
    for start, end in zip(np.flatnonzero(both.starts), ends):
        numbers.setdefault(tuple(both.ids[start:end]), keys[start])
    assert len(set(numbers.values())) > 0.99 * len(numbers) > 500
    ab, ba = (word_keys(np.array(ids), np.array([True, False]))[0] for ids in ([7, 9], [9, 7]))
    assert ab != ba


# --- the collator -------------------------------------------------------------------------------------------------


def rows_of(pieces, n=24, epoch=0, **kwargs):
    "Rows of an epoch."
    inputs = Inputs(pieces, TOKENIZER, n, kwargs.pop("max_length", 64), **kwargs)
    inputs.set_epoch(epoch)
    return [inputs[i] for i in range(n)]


def test_a_row_throws_the_same_dice_in_any_batch(both):
    rows, collate = rows_of(both), Collator(TOKENIZER, Masking(0.3, whole_words=0.5, rarity=0.5), chances(both, Masking(rarity=0.5, whole_words=0.5)))
    together = collate(rows)
    for order in ([5], [7, 5, 0], list(range(23, -1, -1))):
        batch = collate([rows[i] for i in order])
        for place, i in enumerate(order):
            n = len(rows[i]["input_ids"])
            for name in ("input_ids", "labels", "token_type_ids"):
                assert batch[name][place, :n].tolist() == together[name][i, :n].tolist()


def test_batch_has_padding_segments_and_labels(both):
    rows = rows_of(both)
    batch = Collator(TOKENIZER)(rows)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    inside = torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]
    assert (batch["attention_mask"].bool() == inside).all() and batch["input_ids"].shape[1] == lengths.max()
    assert (batch["input_ids"][~inside] == TOKENIZER.pad_token_id).all() and (batch["labels"][~inside] == IGNORED).all()
    assert batch["next_sentence_label"].tolist() == [row["next_sentence_label"] for row in rows]
    original = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    for row, ids, n in zip(rows, original, lengths):
        assert ids[:n].tolist() == row["input_ids"].tolist()
    special = torch.isin(original, torch.tensor(TOKENIZER.all_special_ids))
    assert (batch["labels"][special] == IGNORED).all() and ((batch["labels"] != IGNORED).sum(1) >= 1).all()
    assert items(batch).tolist() == [(batch["labels"] != IGNORED).sum(), 24]


def masked_epochs(inputs, epochs):
    "What the epochs give, all rows in one batch each."
    collate, found = Collator(TOKENIZER, Masking(0.3)), []
    for epoch in range(epochs):
        inputs.set_epoch(epoch)
        found.append(collate([inputs[i] for i in range(len(inputs))]))
    return found


def equal(a, b):
    "The same batch?"
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_static_masks_repeat_and_dynamic_ones_do_not(both, task):
    static, dynamic = (masked_epochs(Inputs(both, TOKENIZER, 50, 64, task, seed=3, copies=copies), 9) for copies in (3, None))
    assert all(equal(a, b) for a, b in zip(static, static[3:])) and all(equal(a, b) for a, b in zip(static[:3], dynamic))
    assert not any(equal(a, b) for i, a in enumerate(dynamic) for b in dynamic[:i])


@pytest.mark.parametrize("copies", [2, None])
def test_a_sentence_has_no_more_masks_than_there_are_copies(copies):
    """Masks of the sentence that begins a document, which is in A once in an epoch at most; over twenty epochs."""
    pieces = toy_pieces(TOKENIZER, 15)
    inputs, collate, masks = Inputs(pieces, TOKENIZER, len(pieces), 128, copies=copies), Collator(TOKENIZER), defaultdict(set)
    firsts = {int(pieces.sentences[sentence]): int(pieces.sentences[sentence + 1]) for sentence in pieces.documents[:-1]}
    for epoch in range(20):
        inputs.set_epoch(epoch)
        for i, (begin, end, *_) in enumerate(inputs.rows.tolist()):
            if firsts.get(begin, end + 1) <= end:  # all of the sentence is in A
                masks[begin].add(str(collate([inputs[i]])["labels"][0, 1 : 1 + firsts[begin] - begin].tolist()))
    most = max(map(len, masks.values()))
    assert len(masks) > 20 and (most == copies if copies else most > 10)


def test_copies_of_a_length_are_made_for_that_length(both):
    "BERT's data are made once for 128 and once for 512 tokens."
    inputs = Inputs(both, TOKENIZER, 30, lambda epoch: 20 if epoch < 4 else 60, copies=2)
    found = masked_epochs(inputs, 8)
    assert all(equal(a, b) for a, b in [*zip(found[:2], found[2:4]), *zip(found[4:6], found[6:])])
    assert max(batch["input_ids"].shape[1] for batch in found[:4]) <= 20 < min(batch["input_ids"].shape[1] for batch in found[4:])


def test_a_recipe_with_copies_reads_the_same_data_again(both):
    inputs, _ = make_data(dataclasses.replace(SMALL, parts=4, steps=12, copies=2), TOKENIZER, both)
    first, second, third, fourth = masked_epochs(inputs, 4)
    assert equal(first, third) and equal(second, fourth) and not equal(first, second)


# --- pairs --------------------------------------------------------------------------------------------------------

corpora = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=7), min_size=2, max_size=9)


def home(pieces, place):
    "Number of the document that a piece stands in."
    return int(np.searchsorted(pieces.documents, np.searchsorted(pieces.sentences, place, "right") - 1, "right") - 1)


@settings(max_examples=300, deadline=None)
@given(corpora, st.integers(5, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 1.0]), st.booleans(), st.integers(1, 2))
def test_next_sentence_pairs(documents, max_length, seed, short, put_back, streams):
    pieces = pieces_of(*documents)
    pieces.streams = streams = min(streams, len(documents) // 2)
    order = np.random.default_rng(seed).permutation(len(documents))
    rows = segment_pairs(pieces, order, max_length, np.random.default_rng(seed), "nsp", short, put_back)
    assert len(rows) >= len(documents)
    for a0, a1, b0, b1, label in rows.tolist():
        assert a0 < a1 and b0 < b1 and (a1 - a0) + (b1 - b0) <= max_length - 3
        mine, other = home(pieces, a0), home(pieces, b0)
        assert home(pieces, a1 - 1) == mine and home(pieces, b1 - 1) == other
        strangers = [d for d in range(len(documents)) if d != mine and d % streams == mine % streams]
        if label:
            assert other in strangers
        else:
            assert other == mine and a1 <= b0


@settings(max_examples=200, deadline=None)
@given(corpora, st.integers(0, 10**6), st.sampled_from([0.0, 1.0]))
def test_no_piece_is_lost_or_used_twice(documents, seed, short):
    "With room enough: what A and the continuations hold, over all pairs, is the text, once."
    pieces = pieces_of(*documents)
    rows = segment_pairs(pieces, range(len(documents)), 10**4, np.random.default_rng(seed), "nsp", short)
    mine = [range(a0, a1) for a0, a1, *_ in rows.tolist()] + [range(b0, b1) for *_, b0, b1, label in rows.tolist() if not label]
    assert sorted(place for stretch in mine for place in stretch) == list(range(len(pieces.ids)))
    assert all(a1 == b0 for a0, a1, b0, b1, label in rows.tolist() if not label)


@settings(max_examples=200, deadline=None)
@given(corpora, st.integers(5, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.1]))
def test_sentence_order_pairs(documents, max_length, seed, short):
    pieces = pieces_of(*documents)
    rows = segment_pairs(pieces, range(len(documents)), max_length, np.random.default_rng(seed), "sop", short)
    for a0, a1, b0, b1, swapped in rows.tolist():
        assert a0 < a1 and b0 < b1 and home(pieces, a0) == home(pieces, b1 - 1)
        assert (b1 <= a0) if swapped else (a1 <= b0)
    if short == 0 and max_length == 40:
        assert len(rows) >= sum(len(d) > 1 and d[0] < 37 for d in documents) * 0  # documents of one sentence give none
    assert not [r for r in rows.tolist() if len(documents[home(pieces, r[0])]) == 1]


def test_sentence_orders_are_half_and_half():
    rows = segment_pairs(pieces_of(*[[3, 4, 5]] * 3000), range(3000), 64, np.random.default_rng(0), "sop")
    assert rows[:, 4].mean() == pytest.approx(0.5, abs=0.04)


def positives(n):
    "Expected positives of a document of n sentences that fits: one with chance 1/2, else the rest has its turn."
    return (1 + sum(positives(k) for k in range(1, n)) / (n - 1)) / 2 if n > 1 else 0.0


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_share_of_negatives(n):
    rows = segment_pairs(pieces_of(*[[1] * n] * 4000), range(4000), 64, np.random.default_rng(n), short=0)
    assert rows[:, 4].mean() == pytest.approx(1 / (1 + positives(n)), abs=0.02) and rows[:, 4].mean() > 0.5
    assert rows[:, 4].sum() / 4000 == pytest.approx(1, abs=0.06)  # one negative per document


def test_share_of_negatives_is_half_of_those_that_have_a_choice():
    "Inputs of one sentence are negative, half of the others: (1 + p) / 2."
    rng = np.random.default_rng(0)
    pieces = pieces_of(*(rng.integers(1, 9, 1 if rng.random() < 0.6 else rng.integers(2, 6)).tolist() for _ in range(4000)))
    rows = segment_pairs(pieces, range(4000), 10**3, np.random.default_rng(1), short=0)
    ends = np.searchsorted(pieces.sentences, rows[:, 1])
    last = pieces.documents[[home(pieces, a) + 1 for a in rows[:, 0]]]
    first = np.searchsorted(pieces.sentences, rows[:, 0])
    alone = (rows[:, 4] == 1) & (ends == last) & (ends - first == 1)
    assert alone.mean() > 0.5
    assert rows[:, 4].mean() == pytest.approx((1 + alone.mean()) / 2, abs=0.02)


def test_a_short_length_is_drawn_once_per_document_or_for_each_input():
    """Sentences of one piece each: an input that is not a document's last is as long as its target."""
    pieces = pieces_of(*[[1] * 60] * 300)

    def targets(**options):
        rows = segment_pairs(pieces, range(300), 23, np.random.default_rng(0), short=0.5, put_back=False, **options)
        found = {}
        for a0, a1, b0, b1, _ in rows.tolist():
            if a1 % 60 and a1 // 60 == a0 // 60 and b0 // 60 != a0 // 60 and b1 % 60:  # a negative: B fills what A leaves
                found.setdefault(a0 // 60, set()).add(a1 - a0 + b1 - b0)
        return [lengths for lengths in found.values() if len(lengths)]

    assert sum(len(lengths) > 1 for lengths in targets()) == 0
    assert sum(len(lengths) > 1 for lengths in targets(redraw_short=True)) > 50


@pytest.mark.parametrize("streams", [1, 2])
def test_another_document_has_to_be_there(streams):
    "Else B of a negative pair would be from the document of A, and its label wrong."
    pieces = pieces_of(*[[3, 4, 5, 6]] * (2 * streams - 1))
    pieces.streams = streams
    with pytest.raises(ValueError, match="^next sentence prediction needs two documents of each language: separate documents by blank lines$"):
        segment_pairs(pieces, [0], 30, np.random.default_rng(0))
    with pytest.raises(ValueError, match="two documents of each language"):
        Inputs(pieces, TOKENIZER, 10)
    assert len(segment_pairs(pieces, [0], 30, np.random.default_rng(0), "sop"))  # which needs one


@pytest.mark.parametrize("arguments, message", [((20, "mlm"), "'nsp' or 'sop'"), ((4, "nsp"), "no room")])
def test_pairs_refuse(arguments, message):
    length, task = arguments
    with pytest.raises(ValueError, match=message):
        segment_pairs(pieces_of([2, 2]), [0], length, np.random.default_rng(0), task)


def test_epochs_differ_and_come_again(both):
    a, b = (Inputs(both, TOKENIZER, 50, 64, seed=3) for _ in range(2))
    first = a.rows.tolist()
    a.set_epoch(1)
    b.set_epoch(1)
    assert a.rows.tolist() == b.rows.tolist() != first
    a.set_epoch(0)
    assert a.rows.tolist() == first and Inputs(both, TOKENIZER, 50, 64, seed=4).rows.tolist() != first
    assert len(a) == 50 and a.lengths.tolist() == [len(a[i]["input_ids"]) for i in range(50)] and a.lengths.max() <= 64


def test_an_epoch_larger_than_the_text():
    inputs = Inputs(pieces_of([3, 4], [5], [2, 2, 2]), TOKENIZER, 500, 16)
    assert len(inputs) == 500 and {len(inputs[i]["input_ids"]) for i in range(500)} <= set(range(5, 17))


def test_lengths_of_an_epoch(both):
    inputs = Inputs(both, TOKENIZER, 30, lambda epoch: 20 if epoch < 2 else 60)
    longest = []
    for epoch in range(3):
        inputs.set_epoch(epoch)
        longest.append(inputs.lengths.max())
    assert longest[0] <= 20 and longest[1] <= 20 < longest[2] <= 60


def test_options_reach_the_pairs(both):
    whole = Inputs(both, TOKENIZER, 400, 128, short=0.0, put_back=False)
    assert (np.diff(whole.rows[:, :2]).min() >= 1) and whole.rows[:, 4].mean() == pytest.approx(0.5, abs=0.08)
    assert Inputs(both, TOKENIZER, 4_000, 128).rows[:, 4].mean() > 0.53


def test_sentence_order_needs_two_sentences():
    with pytest.raises(ValueError, match="no document has two sentences"):
        Inputs(pieces_of([5], [6]), TOKENIZER, 10, 32, "sop")
    assert len(Inputs(pieces_of(*[[5]] * 30, [6, 7]), TOKENIZER, 3, 32, "sop")) == 3  # one document has


# --- heads and loss -----------------------------------------------------------------------------------------------


@pytest.fixture
def models():
    "transformers' model and ours with the same weights, and a batch."
    torch.manual_seed(0)
    theirs = transformers.BertForPreTraining(TINY).eval()
    ours = BertForPreTraining(TINY).eval()
    ours.load_state_dict(theirs.state_dict())
    batch = Collator(TOKENIZER, Masking(0.3))(rows_of(toy_pieces(TOKENIZER, 60), 8))
    return theirs, ours, batch


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new"])
def test_heads_to_read(activation):
    torch.manual_seed(0)
    config = transformers.BertConfig(**TINY.to_dict() | {"hidden_act": activation})
    theirs = transformers.BertForPreTraining(config).eval()
    nn.init.normal_(theirs.cls.predictions.bias)
    encoder = BertModel(config).eval()
    heads = PreTrainingHeads(config, encoder.embeddings.word_embeddings)
    weights = theirs.state_dict()
    encoder.load_state_dict({n.removeprefix("bert."): w for n, w in weights.items() if n.startswith("bert.")})
    heads.load_state_dict({n.removeprefix("cls."): w for n, w in weights.items() if n.startswith("cls.")})
    assert heads.predictions.decoder.weight is encoder.embeddings.word_embeddings.weight
    ids = torch.randint(5, V, (3, 11))
    with torch.no_grad():
        a, b = encoder(ids), theirs(ids)
        words, follows = heads(a.last_hidden_state, a.pooler_output)
    assert (words - b.prediction_logits).abs().max() < 1e-5 and (follows - b.seq_relationship_logits).abs().max() < 1e-5


def test_loss_and_gradient_are_transformers(models):
    theirs, ours, batch = models
    a, b = ours(**batch), theirs(**batch)
    assert a.loss.item() == pytest.approx(b.loss.item(), abs=1e-5)
    assert a.losses.sum().item() == pytest.approx(a.loss.item(), abs=1e-6)
    assert len(a.prediction_logits) == (batch["labels"] != IGNORED).sum()
    a.loss.backward()
    b.loss.backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert (p.grad - q.grad).abs().max() < 1e-5, name


def test_losses_are_means(models):
    theirs, ours, batch = models
    with torch.no_grad():
        mlm, nsp = losses(ours, batch)
        logits = theirs(**{n: t for n, t in batch.items() if "label" not in n})
    chosen = batch["labels"] != IGNORED
    each = nn.functional.cross_entropy(logits.prediction_logits[chosen], batch["labels"][chosen], reduction="none")
    pairs = nn.functional.cross_entropy(logits.seq_relationship_logits, batch["next_sentence_label"], reduction="none")
    assert mlm.item() == pytest.approx(each.mean().item(), abs=1e-5) and nsp.item() == pytest.approx(pairs.mean().item(), abs=1e-5)
    assert items(batch).tolist() == [len(each), len(pairs)]


def test_without_labels_it_is_transformers(models):
    theirs, ours, batch = models
    inputs = {name: tensor for name, tensor in batch.items() if "label" not in name}
    with torch.no_grad():
        assert torch.equal(ours(**inputs).prediction_logits, theirs(**inputs).prediction_logits)
        assert len(ours(**inputs, labels=batch["labels"])["losses"]) == 1  # masked words only


def test_word_table_is_tied_after_saving(models, tmp_path):
    _, ours, _ = models
    ours.save_pretrained(tmp_path)
    for cls in (BertForPreTraining, transformers.BertForPreTraining, transformers.BertForMaskedLM):
        loaded = cls.from_pretrained(tmp_path)
        table = loaded.bert.embeddings.word_embeddings.weight
        assert loaded.cls.predictions.decoder.weight is table and torch.equal(table, ours.bert.embeddings.word_embeddings.weight)
        with torch.no_grad():
            table += 1.0
        assert torch.equal(loaded.cls.predictions.decoder.weight, table)


def test_fillers(models):
    theirs, ours, _ = models
    guesses = fillers(ours, TOKENIZER, "Anna [MASK] in [MASK].", k=4)
    assert len(guesses) == 2 and all(len(guess) == 4 for guess in guesses)
    for guess in guesses:
        chances_ = [p for _, p in guess]
        assert chances_ == sorted(chances_, reverse=True) and 0 < sum(chances_) <= 1
        assert all(piece in TOKENIZER.get_vocab() for piece, _ in guess)
    assert fillers(theirs, TOKENIZER, "Anna [MASK] in [MASK].", k=4) == guesses
    with pytest.raises(ValueError, match="no \\[MASK\\]"):
        fillers(ours, TOKENIZER, "Anna lives in Paris.")


# --- on a GPU -----------------------------------------------------------------------------------------------------

@pytest.fixture
def shipped():
    "The model that comes with the course, twice: on the CPU and, in this test, on another device."
    here, there = (BertForPreTraining.from_pretrained(asset("tiny-bert"), attn_implementation="eager").eval() for _ in range(2))
    with on_other_device(there):
        yield here, there


@pytest.mark.parametrize("ask, arguments", [(fillers, ["Anna [MASK] in [MASK].", 4]), (pseudo_perplexity, ["My dog is hairy."]), (count_known_facts, [])])
def test_a_model_on_another_device_is_asked_there(shipped, ask, arguments):
    """While `fit` trains, the model is on the GPU, if there is one."""
    here, there = (ask(model, TOKENIZER, *arguments) for model in shipped)
    assert here == there


def function_of_page(page, cell, name, **names):
    "A function that a page defines, and its imports. names: what it takes from other cells."
    notebook = json.loads((Path(__file__).parent.parent / "nbs" / page).read_text(encoding="utf-8"))
    source = next("".join(found["source"]) for found in notebook["cells"] if found["id"] == cell)
    body = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom)) or getattr(node, "name", "") == name]
    exec(compile(ast.Module(body, []), f"{page}#{cell}", "exec"), names)
    return names[name]


def test_the_page_measures_a_model_where_it_is(shipped, both):
    """`metrics` of section 3.3, which `fit` calls with a model on the GPU and which has its held-out text on the CPU."""
    held_out = Collator(TOKENIZER)(rows_of(both))
    evaluate = function_of_page("03_2_pretraining.ipynb", "live", "evaluate", held_out=held_out)
    with torch.no_grad():
        here, there = map(evaluate, shipped)
    assert here == there and here.keys() == {"loss", "accuracy", "nsp"}


# --- recipes ------------------------------------------------------------------------------------------------------


LENGTHS = "lengths must be a list of [length from 5 on, share of the steps], with shares that add up to 1, not "


@pytest.mark.parametrize("line, message", [
    ("step = 5", "there is no setting step: remove it"), ("steps = '5'", 'steps must be a whole number from 1 on, not "5"'),
    ("steps = 2.5", "steps must be a whole number from 1 on, not 2.5"), ("lr = true", "lr must be a number above 0, not true"),
    ("put_back = 1", "put_back must be true or false, not 1"), ("languages = 'en'", 'languages must be a list of "en", "zh" or both, not "en"'),
    ("masking = 0.15", "masking must be a table, not 0.15"), ("[masking]\nshare = 0.1", "there is no setting masking.share"),
    ("[masking]\nrate = 2.0", "masking.rate must be a number above 0 and below 1, not 2.0"), ("steps = 0", "steps must be a whole number from 1 on"),
    ("copies = 0", "copies must be a whole number from 1 on"), ("copies = -2", "copies must be a whole number from 1 on"),
    ("num_heads = 3", "3 heads do not divide a width of 128 evenly"), ("task = 'mlm'", 'task must be "nsp" or "sop", not "mlm"'),
    ("lengths = [[64, 0.5]]", LENGTHS + "[[64, 0.5]]"), ("lengths = [64, 128]", LENGTHS + "[64, 128]"),
    ("lengths = [['64', 1.0]]", LENGTHS + '[["64", 1.0]]'), ("lengths = []", LENGTHS + "[]"), ("lengths = [[64, 1.0, 2]]", LENGTHS),
    ("lr = -1", "lr must be a number above 0, not -1"), ("dropout = 2", "dropout must be a number from 0 to below 1, not 2"),
    ("betas = [0.9]", "betas must be two numbers from 0 to below 1, not [0.9]"), ("short = 2", "short must be a number from 0 to 1, not 2"),
    ("seed = 1979-05-27", "seed must be a whole number"), ("warmup = 1_000", "a warm-up of 1000 steps leaves nothing of 1000 steps"),
    ("steps = 1\nbatch_size = 4\nparts = 5", "cannot be cut into 5 parts"), ("steps =", "is not TOML"),
    ("parts = 4", "length 128 has 0.1 of 4 parts, less than one epoch: take more parts"),
    ("parts = 2\nsteps = 2", "length 128 has 0.1 of 2 parts, less than one epoch: take more steps and parts"),
    ("lengths = [[8, 0.1], [16, 0.9]]\nparts = 3", "length 8 has 0.1 of 3 parts"),
])  # fmt: skip
def test_recipe_refuses(tmp_path, line, message):
    (tmp_path / "mine.toml").write_text(line)
    with pytest.raises(ValueError, match="^mine.toml") as error:
        Recipe.read(tmp_path / "mine.toml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_recipe_reads(tmp_path):
    (tmp_path / "r.toml").write_text(
        "lengths = [[16, 0.9], [24, 0.1]]\nlanguages = ['zh']\nbetas = [0.9, 0.98]\ncopies = 10\nlr = 1\nput_back = false\n"
        "[masking]\nrate = 0.2\nwhole_words = 1"
    )
    recipe = Recipe.read(tmp_path / "r.toml", seed=7)
    assert recipe == Recipe(lengths=((16, 0.9), (24, 0.1)), languages=("zh",), betas=(0.9, 0.98), copies=10, lr=1, put_back=False,
                            masking=Masking(0.2, whole_words=1), seed=7)  # fmt: skip
    (tmp_path / "empty.toml").write_text("")
    assert Recipe.read(tmp_path / "empty.toml") == Recipe()
    assert Recipe.read(tmp_path / "empty.toml", masking=Masking(0.3), lengths=[[16, 1.0]]) == Recipe(masking=Masking(0.3), lengths=((16, 1.0),))
    with pytest.raises(FileNotFoundError):
        Recipe.read(tmp_path / "none.toml")


@pytest.mark.parametrize("wrong", [dict(lr=-1), dict(dropout=2), dict(betas=(0.9,)), dict(short=2), dict(parts=4), dict(lengths=(64, 128)), dict(steps=2.5)])
def test_a_recipe_made_in_python_is_checked_too(wrong):
    with pytest.raises(ValueError, match=f"^{'length 128' if 'parts' in wrong else next(iter(wrong))} "):
        Recipe(**wrong)


@pytest.mark.parametrize("parts", range(5, 40))
def test_every_length_has_its_epochs(parts):
    epochs = [Recipe(parts=parts).max_length(epoch) for epoch in range(2 * parts)]
    assert epochs[:parts] == epochs[parts:] == sorted(epochs[:parts]) and {*epochs} == {64, 128}
    assert abs(epochs.count(128) / 2 - 0.1 * parts) <= 0.5


def test_shipped_recipe_is_read():
    recipe = Recipe.read(asset("tiny-bert/pretrain.toml"))
    assert set(recipe.languages) == {"en", "zh"} and recipe.steps > 1000 and isinstance(recipe.masking, Masking)


@pytest.mark.parametrize("lengths, parts, expected", [
    (((64, 0.9), (128, 0.1)), 10, [64] * 9 + [128]),
    (((8, 0.5), (16, 0.25), (32, 0.25)), 4, [8, 8, 16, 32]),
    (((64, 1.0),), 3, [64] * 3),
])  # fmt: skip
def test_short_inputs_come_first(lengths, parts, expected):
    recipe = Recipe(lengths=lengths, parts=parts)
    assert [recipe.max_length(epoch) for epoch in range(parts)] == expected
    assert recipe.config(V).max_position_embeddings == max(expected)


def test_cost_of_the_original():
    base = Recipe(num_layers=12, hidden_size=768, num_heads=12, lengths=((128, 0.9), (512, 0.1)), steps=1_000_000, batch_size=256)
    tokens, flops = cost(base, 30522)
    assert tokens == 256 * (900_000 * 128 + 100_000 * 512) and flops == pytest.approx(2.4e19, rel=0.02)
    assert cost(dataclasses.replace(base, steps=2_000_000), 30522) == (2 * tokens, 2 * flops)


# --- runs ---------------------------------------------------------------------------------------------------------


def weights_of(recipe, pieces, **kwargs):
    "The weights that a run ends with."
    model, history = pretrain(recipe, TOKENIZER, pieces, progress=False, **kwargs)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, history


def same(a, b):
    "To the last bit."
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def once(both):
    return weights_of(SMALL, both)


def test_the_same_seed_gives_the_same_weights(once, both):
    torch.manual_seed(99)  # what was drawn before does not matter
    again, _ = weights_of(SMALL, both)
    assert same(once[0], again)
    assert len(once[1].column("terms")[1][-1]) == 2


@pytest.mark.parametrize("change", [dict(seed=1), dict(masking=Masking(0.3)), dict(task="sop"), dict(lr=2e-3)])
def test_another_setting_gives_others(once, both, change):
    assert not same(once[0], weights_of(dataclasses.replace(SMALL, **change), both)[0])


def test_resumed_after_a_stop(once, both, tmp_path):
    weights_of(SMALL, both, out=tmp_path, stop_at=4, save_every=2)
    resumed, _ = weights_of(SMALL, both, out=tmp_path, resume=True)
    assert same(once[0], resumed)


def test_the_model_is_the_recipes(both):
    model, _ = pretrain(dataclasses.replace(SMALL, steps=1, parts=1, dropout=0.3, initializer_range=0.5), TOKENIZER, both, progress=False)
    assert model.config.hidden_dropout_prob == 0.3 and not model.training
    assert model.bert.encoder.layer[0].output.dense.weight.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_step_in_parts_is_a_step_in_one_go(both):
    """Each part's mean counts as much as it has predictions; Adam divides by small numbers, so the last digits differ."""
    plain = dataclasses.replace(SMALL, dropout=0.0)
    whole, in_parts = weights_of(plain, both)[0], weights_of(plain, both, accumulate=4)[0]
    assert max((whole[name] - in_parts[name]).abs().max() for name in whole) < 1e-4


def test_rarity_weighs_the_masks(both, monkeypatch):
    import bertcourse.recipes as module
    seen = []
    monkeypatch.setattr(module, "chances", lambda *args: seen.append(args) or chances(*args))
    pretrain(dataclasses.replace(SMALL, steps=2, parts=1), TOKENIZER, both, progress=False)
    assert not seen
    pretrain(dataclasses.replace(SMALL, steps=2, parts=1, masking=Masking(rarity=0.5)), TOKENIZER, both, progress=False)
    assert len(seen) == 1


FINGERPRINTS = {"nsp": "c4a8585a1e358410", "sop": "408cc6b177c21def"}


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_pairs_and_masks_are_those_of_the_shipped_model(task):
    "Another order of random draws would train another model: then the shipped one has to be trained again."
    lengths = np.random.default_rng(0).integers(1, 15, (300, 5)).tolist()
    pieces = pieces_of(*lengths)
    pieces.ids = pieces.ids % (V - 5) + 5
    pieces.starts = np.random.default_rng(1).random(len(pieces.ids)) < 0.7
    pieces.streams = 2
    inputs = Inputs(pieces, TOKENIZER, 200, 48, task, seed=3, short=0.1, put_back=task == "nsp", redraw_short=True)
    inputs.set_epoch(2)
    masking = Masking(0.25, whole_words=0.5, rarity=0.5)
    batch = Collator(TOKENIZER, masking, chances(pieces, masking))([inputs[i] for i in range(200)])
    digest = hashlib.sha256(inputs.rows.tobytes())
    for name in sorted(batch):
        digest.update(batch[name].numpy().tobytes())
    assert digest.hexdigest()[:16] == FINGERPRINTS[task]
