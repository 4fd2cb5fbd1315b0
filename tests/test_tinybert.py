"""TinyBERT's terms against slow loops in float64 and a step by hand, its two stages, and augmentation word by word."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, BertTokenizer
from transformers.utils import ModelOutput

from bertcourse import profiles
from bertcourse.bert import SHAPES, count_parameters
from bertcourse.distillation import cache_logits, new_model, observe, soft_loss, with_logits
from bertcourse.files import FileError
from bertcourse.tasks import Answering, Classification, Regression, Tagging
from bertcourse.tinybert import (
    ABLATIONS,  # fmt: skip
    COLUMNS,
    GLUE,
    STOP_WORDS,
    Augmenter,
    Intermediate,
    Prediction,
    Terms,
    Vectors,
    cooccurrence_vectors,
    general_distillation,
    layer_map,
    passages,
    prediction_loss,
    task_distillation,
    teacher_labels,
)
from bertcourse.training import fit, pad

SMALL = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32)
LARGE = dict(vocab_size=40, hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, max_position_embeddings=32)


def model(shape, auto=AutoModelForSequenceClassification, seed=0, **kw):
    torch.manual_seed(seed)
    return new_model(BertConfig(**shape))(auto, "eager", **({"num_labels": 3} if auto is not AutoModel else {}) | kw)


def rows(n=8, labels=True):
    g = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(5, 40, (4 + i % 5,), generator=g).tolist(), **({"labels": i % 3} if labels else {})} for i in range(n)]


def z(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- layers -------------------------------------------------------------------------------------------------------

def test_the_mappings_of_the_paper():
    assert layer_map(4, 12) == (3, 6, 9, 12)
    assert layer_map(4, 12, "top") == (9, 10, 11, 12)
    assert layer_map(4, 12, "bottom") == (1, 2, 3, 4)
    assert layer_map(6, 12) == (2, 4, 6, 8, 10, 12) and layer_map(2, 4) == (2, 4)


@pytest.mark.parametrize("given, said", [((4, 12, "middle"), "uniform, top, bottom"), ((5, 4, "top"), "the student has 5 layers, the teacher only 4"),
                                         ((5, 12), "name the teacher's layers")])  # fmt: skip
def test_mappings_that_cannot_be(given, said):
    with pytest.raises(ValueError, match=said):
        layer_map(*given)


# --- terms --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("T", [0.5, 1.0, 3.0])
def test_prediction_loss_is_a_sum_over_classes(T):
    s, t, slow = z(5, 4) * 2, z(5, 4, seed=1) * 2, 0.0
    for i in range(5):
        p, q = (np.exp(x[i].numpy() / T) / np.exp(x[i].numpy() / T).sum() for x in (t, s))
        slow -= sum(p[c] * np.log(q[c]) for c in range(4)) / 5
    assert prediction_loss(s, t, T).item() == pytest.approx(slow, abs=1e-12)
    entropy = torch.special.entr(torch.softmax(t / T, -1)).sum(-1).mean()
    assert_close(prediction_loss(s, t, T) - entropy, soft_loss(s, t, T) / T**2), "KL but for the teacher's entropy, and without T²"
    mask = torch.tensor([True, False, True, True, False])
    assert_close(prediction_loss(s, t, T, mask), prediction_loss(s[mask], t[mask], T))
    with pytest.raises(ValueError, match=r"\(5, 4\) and \(5, 3\)"):
        prediction_loss(s, t[:, :3])


def slow_terms(pupil, given):
    "The three sums of the paper, one number at a time, over tokens that are no padding."
    inputs = {name: value for name, value in given.items() if name != "labels"}
    with torch.no_grad():
        ours, theirs = (observe(m, inputs, hidden=True, scores=True) for m in (pupil.student, pupil.teacher))
    W = {"embedding": pupil.project_embedding, "hidden": pupil.project_hidden}
    weight = {name: (p.weight.double(), p.bias.double()) for name, p in W.items()}
    real = [[i for i in range(given["input_ids"].shape[1]) if given["attention_mask"][b, i]] for b in range(len(given["input_ids"]))]

    def states(kind, s, t):
        total = count = 0
        for b, places in enumerate(real):
            for i in places:
                projected = weight[kind][0] @ s[b, i].double() + weight[kind][1]
                for d in range(len(projected)):
                    total, count = total + (projected[d] - t[b, i, d].double()).item() ** 2, count + 1
        return total / count

    def scores(s, t):
        squares = [(s[b, h, i, j] - t[b, h, i, j]).double().item() ** 2 for b, places in enumerate(real) for h in range(s.shape[1])
                   for i in places for j in places]  # fmt: skip
        return sum(squares) / len(squares)

    pairs = list(enumerate(pupil.layers, 1))
    return {"embedding": states("embedding", ours.hidden[0], theirs.hidden[0]),
            "attention": sum(scores(ours.scores[m - 1], theirs.scores[g - 1]) for m, g in pairs),
            "hidden": sum(states("hidden", ours.hidden[m], theirs.hidden[g]) for m, g in pairs)}


@pytest.mark.parametrize("how", ["uniform", "top", "bottom", (1, 3)])
@pytest.mark.parametrize("shared", [False, True])
def test_terms_are_the_sums_of_the_paper(how, shared):
    pupil = Intermediate(model(SMALL), model(LARGE, seed=1), how, shared=shared).eval()
    given = pad(rows(3))
    found, slow = pupil(**given), slow_terms(pupil, given)
    for name, value in slow.items():
        assert found.terms[name].item() == pytest.approx(value, rel=1e-5), name
    assert_close(found.loss, sum(found.terms.values()))
    assert (pupil.project_embedding is pupil.project_hidden) == shared


def test_one_step_by_hand():
    "Width 1, one layer, one token: hidden states are numbers, and SGD moves the projection as worked out on paper."
    class Plain(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))
            self.config = SimpleNamespace(num_hidden_layers=1, hidden_size=1, num_attention_heads=1)

        def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
            state = self.value.expand(*input_ids.shape, 1)
            return ModelOutput(hidden_states=(state, state))

    class Wide(Plain):
        def __init__(self):
            super().__init__(1.0)
            self.config = SimpleNamespace(num_hidden_layers=1, hidden_size=2, num_attention_heads=1)

        def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
            state = torch.tensor([1.0, -1.0]).expand(*input_ids.shape, 2)
            return ModelOutput(hidden_states=(state, state))

    pupil = Intermediate(Plain(2.0), Wide(), terms=Terms(embedding=False, attention=False))
    with torch.no_grad():
        pupil.project_hidden.weight.copy_(torch.tensor([[0.5], [0.25]]))
        pupil.project_hidden.bias.zero_()
    loss = pupil(input_ids=torch.tensor([[7]]), attention_mask=torch.tensor([[1]])).loss
    assert loss.item() == pytest.approx(((2 * 0.5 - 1) ** 2 + (2 * 0.25 + 1) ** 2) / 2)  # (0 + 2.25) / 2
    loss.backward()
    assert pupil.student.value.grad.item() == pytest.approx(0.0 * 0.5 + 1.5 * 0.25)  # each error times its weight, a mean over two
    assert_close(pupil.project_hidden.weight.grad, torch.tensor([[0.0 * 2], [1.5 * 2]]))
    assert_close(pupil.project_hidden.bias.grad, torch.tensor([0.0, 1.5]))


def test_the_same_width_needs_no_projection():
    pupil = Intermediate(model(dict(LARGE, num_hidden_layers=2)), model(LARGE, seed=1))
    assert isinstance(pupil.project_hidden, nn.Identity) and len(list(pupil.parameters())) == len(list(pupil.student.parameters()))


@pytest.mark.parametrize("terms", [Terms(embedding=False), Terms(attention=False), Terms(hidden=False), Terms(attention=False, hidden=False)])
def test_terms_can_be_left_out(terms):
    found = Intermediate(model(SMALL), model(LARGE), terms=terms)(**pad(rows(2))).terms
    assert set(found) == {name for name in ("embedding", "attention", "hidden") if getattr(terms, name)}


def test_terms_can_be_weighted():
    given, weights = pad(rows(2)), {"embedding": 1.0, "attention": 0.125, "hidden": 2.0}
    plain, weighted = (Intermediate(model(SMALL), model(LARGE, seed=1), terms=terms) for terms in (Terms(), Terms(**weights)))
    weighted.load_state_dict(plain.state_dict())
    plain, weighted = plain.eval()(**given), weighted.eval()(**given)
    for name, weight in weights.items():
        assert_close(weighted.terms[name], weight * plain.terms[name])
    assert_close(weighted.loss, sum(weighted.terms.values()))


def test_padding_changes_nothing():
    pupil, given = Intermediate(model(SMALL), model(LARGE, seed=1)).eval(), pad(rows(4))
    wider = {name: nn.functional.pad(value, (0, 5)) if value.ndim == 2 else value for name, value in given.items()}
    for name, term in pupil(**given).terms.items():
        assert_close(pupil(**wider).terms[name], term, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("make", [lambda s, t: Intermediate(s, t), lambda s, t: Prediction(s, t)])
def test_the_teacher_only_teaches(make):
    teacher = model(LARGE, seed=1, hidden_dropout_prob=0.5).train()
    pupil = make(model(SMALL), teacher).train()
    pupil(**pad(rows(3))).loss.backward()
    assert not pupil.teacher.training and all(p.grad is None for p in teacher.parameters())
    assert not any("teacher" in name for name in pupil.state_dict())


def test_outputs_may_be_cached():
    teacher, pupil_rows = model(LARGE, seed=1), rows(5)
    pupil = Prediction(model(SMALL).eval(), teacher).eval()
    fresh = pupil(**pad(pupil_rows)).loss
    known = with_logits(lambda some: pad([{k: v for k, v in row.items() if k != "teacher_logits"} for row in some]))
    pupil._teacher = (None,)
    assert_close(pupil(**known(cache_logits(teacher, pupil_rows))).loss, fresh)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4 attention heads, the teacher 2"):
        Intermediate(model(dict(SMALL, num_attention_heads=4)), model(LARGE))
    Intermediate(model(dict(SMALL, num_attention_heads=4)), model(LARGE), terms=Terms(attention=False))
    with pytest.raises(ValueError, match="every term is 0: there is nothing to learn"):
        Intermediate(model(SMALL), model(LARGE), terms=Terms(embedding=False, attention=0.0, hidden=0))
    with pytest.raises(ValueError, match="label 0 is 'b' to the student and 'a' to the teacher"):
        Prediction(model(SMALL, id2label={0: "b", 1: "a", 2: "c"}), model(LARGE, id2label={0: "a", 1: "b", 2: "c"}))


def test_configurations_of_the_paper():
    counted = {name: count_parameters(SHAPES[name].config()) for name in ("TinyBERT-4", "TinyBERT-6")}
    assert counted == {"TinyBERT-4": 14_350_248, "TinyBERT-6": 66_955_008}


@pytest.mark.parametrize("rows, columns", [(GLUE, len(COLUMNS)), (ABLATIONS, 4)], ids=["table 1", "tables 2 to 4"])
def test_the_papers_averages(rows, columns):
    for name, (*cells, mean) in rows.items():
        assert len(cells) == columns and np.mean(cells) == pytest.approx(mean, abs=0.051), name


# --- stages -------------------------------------------------------------------------------------------------------

def test_the_two_stages():
    base, teacher = model(LARGE, AutoModel, seed=1), model(LARGE, seed=1)
    encoder, text = model(SMALL, AutoModel), rows(16, labels=False)
    settings = dict(batch_size=4, progress=False)
    general = general_distillation(encoder, base, text, steps=30, lr=1e-2, **settings)
    before = Intermediate(model(SMALL, AutoModel), base)(**pad(text)).loss.item()
    assert general(**pad(text)).loss.item() < 0.8 * before
    student = model(SMALL, seed=3)
    student.bert.load_state_dict(encoder.state_dict())
    outputs_before = Prediction(student, teacher)(**pad(text)).loss.item()
    found = task_distillation(student, teacher, rows(16), steps=(30, 60), lr=(1e-2, 1e-2), general=general, **settings)
    assert list(found) == ["intermediate", "prediction"] and found["prediction"].steps == 60
    assert Prediction(student, teacher)(**pad(text)).loss.item() < outputs_before
    losses = found["intermediate"].column("loss")[1]
    assert losses[-1] < losses[0]


def test_projections_go_on():
    general = Intermediate(model(SMALL, AutoModel), model(LARGE, AutoModel))
    student, teacher, seen = model(SMALL), model(LARGE), []

    class Look:
        def on_step_begin(self, state):
            if state.step == 0 and hasattr(state.model, "project_hidden"):
                seen.append(torch.equal(state.model.project_hidden.weight, general.project_hidden.weight))
    task_distillation(student, teacher, rows(8), steps=(1, 1), lr=(1e-3, 1e-3), general=general, batch_size=4, progress=False, callbacks=[Look()])
    assert seen == [True]


@pytest.mark.parametrize("at", [3, 9])
def test_stages_can_be_resumed(tmp_path, at):
    class Stop:
        def __init__(self, calls):
            self.calls = calls

        def on_step_end(self, state):
            self.calls -= 1
            if not self.calls:
                raise KeyboardInterrupt

    def train(out, callbacks=()):
        student = model(SMALL)
        task_distillation(student, model(LARGE, seed=1), rows(16), steps=(6, 6), lr=(1e-3, 1e-3), out=out, resume=True, save_every=1,
                          batch_size=4, progress=False, callbacks=callbacks)  # fmt: skip
        return student.state_dict()
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", [Stop(at)])
    resumed = train(tmp_path / "cut", [Stop(1000)])
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


@pytest.mark.parametrize("interrupt", [{"stop_at": 3}, {"pause": lambda: True}], ids=["stop_at", "pause"])
def test_the_second_step_waits_for_the_first(tmp_path, interrupt):
    def train(out, **settings):
        student = model(SMALL)
        found = task_distillation(student, model(LARGE, seed=1), rows(16), steps=(6, 4), lr=(1e-3, 1e-3), out=out, batch_size=4,
                                  progress=False, **settings)  # fmt: skip
        return found, student.state_dict()
    _, whole = train(tmp_path / "whole")
    cut, _ = train(tmp_path / "cut", **interrupt)
    assert list(cut) == ["intermediate"] and 0 < cut["intermediate"].steps < 6 and not (tmp_path / "cut" / "prediction").exists()
    found, resumed = train(tmp_path / "cut", resume=True)
    assert [history.steps for history in found.values()] == [6, 4]
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_a_callback_may_end_the_first_step_for_good(tmp_path):
    class Enough:
        def on_step_end(self, state):
            state.stop = state.stop or hasattr(state.model, "project_hidden") and state.step == 2
    for resume in (False, True):
        found = task_distillation(model(SMALL), model(LARGE, seed=1), rows(16), steps=(6, 4), lr=(1e-3, 1e-3), out=tmp_path, batch_size=4,
                                  progress=False, callbacks=[Enough()], resume=resume)  # fmt: skip
        assert [history.steps for history in found.values()] == [2, 4]


def distilled(kind, given, **settings):
    "Weights of a student without dropout after three steps of plain gradient descent, by one of the functions; or by `fit` alone."
    student, teacher = model(SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), model(LARGE, seed=1)
    torch.manual_seed(5)  # of the projections
    settings = dict(batch_size=4, progress=False, stop_at=3, optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=0.1)) | settings
    if kind == "fit":
        fit(Intermediate(student, teacher), given, steps=4, **settings)
    elif kind == "general":
        general_distillation(student, teacher, given, steps=4, **settings)
    else:
        task_distillation(student, teacher, given, steps=(4, 4), lr=(5e-5, 5e-5), **settings)
    return torch.cat([weight.flatten() for weight in student.state_dict().values()])


@pytest.mark.parametrize("kind", ["general", "task"])
def test_parts_count_by_their_tokens(kind):
    given = [{"input_ids": [2, *range(5, 5 + 3 * i), 3]} for i in range(1, 9)] * 2  # of 5 to 26 tokens
    whole = distilled(kind, given)
    assert torch.equal(whole, distilled("fit", given))  # recorded experiments have no parts: they stay what they were
    in_parts = distilled(kind, given, accumulate=4)
    assert 0 < (whole - in_parts).abs().max() < 1e-5 < (whole - distilled("fit", given, accumulate=4)).abs().max()


def test_passages_hold_every_sentence_once():
    tokenizer = profiles.load("tiny").tokenizer()
    documents = [["Grace has a dog.", "It is black.", "It likes milk."], ["Jack is at home."]]
    made = passages(documents, tokenizer, seed=3)
    said = " ".join(tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in made)
    assert said == tokenizer.decode(tokenizer(" ".join(s for d in documents for s in d))["input_ids"], skip_special_tokens=True)
    assert made == passages(documents, tokenizer, seed=3) and all(tokenizer.mask_token_id not in row["input_ids"] for row in made)


# --- vectors ------------------------------------------------------------------------------------------------------

def test_neighbours():
    v = Vectors(["up", "down", "above", "side"], np.array([[1, 1.0], [-1, -1], [2, 2.1], [1, -1]]))
    assert v.near("up", 2) == ("above", "side") and v.near("UP", 1) == ("above",) and v.near("nowhere") == ()
    assert v.near("up", 99) == ("above", "side", "down")
    with pytest.raises(ValueError, match="1 words, 2 vectors"):
        Vectors(["a"], np.eye(2))


def test_vectors_of_a_file(tmp_path):
    glove, word2vec = tmp_path / "glove.txt", tmp_path / "w2v.txt"
    glove.write_text("cat 1 0\ndog 0.9 0.1\nsky 0 1\n")
    word2vec.write_text("3 2\ncat 1 0\ndog 0.9 0.1\nsky 0 1\n")
    for path in glove, word2vec:
        assert Vectors.read(path).near("cat", 1) == ("dog",)
    assert Vectors.read(glove, most=2).words == ["cat", "dog"]


@pytest.mark.parametrize("text, said", [("cat 1 0\ndog 1\n", "line 2: a word and 2 numbers"), ("cat x y\n", "line 1"), ("cat 1 nan\n", "line 1"), ("", "is empty"),
                                        ("cat 1 0\n\n", "line 2")])  # fmt: skip
def test_damaged_vectors(tmp_path, text, said):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(FileError, match=said):
        Vectors.read(tmp_path / "v.txt")


@pytest.mark.parametrize("content, said, there", [
    (None, "cannot be read: there is no such file", "没有这个文件"), ("folder", "cannot be read: it is a folder", "它是文件夹"),
    (b"cat 1 0\ndog \xff 1\n", r"v.txt is not UTF-8 text: .* \(line 2\)", "第 2 行"),
    (b"\x1f\x8b\x08\x00cat", r"v.txt is not UTF-8 text: unpack it, .* \(line 1\)", "请解压"),
])  # fmt: skip
def test_vectors_that_cannot_be_read(tmp_path, content, said, there):
    path = tmp_path / "v.txt"
    if content == "folder":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    with pytest.raises(FileError, match=said) as caught:
        Vectors.read(path)
    assert there in caught.value.zh


def test_words_in_the_same_places_are_neighbours():
    rng = np.random.default_rng(0)
    sentences = [[rng.choice(["the", "a"]), rng.choice(["cat", "dog", "cow"]), rng.choice(["eats", "drinks"]), rng.choice(["milk", "water", "grass"])]
                 for _ in range(2000)]  # fmt: skip
    v = cooccurrence_vectors(sentences, width=4)
    assert set(v.near("cat", 2)) == {"dog", "cow"} and v.near("eats", 1) == ("drinks",)


# --- augmentation -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def tiny():
    profile = profiles.load("tiny")
    return profile.tokenizer(), profile.model(AutoModelForMaskedLM)


def test_variants_keep_what_they_do_not_change(tiny):
    text = " Grace  likes milk, and Jack likes tea! "
    varied = Augmenter(*tiny)([[text]], n=30)[0]
    assert len(varied) == 30 and len({v[0] for v in varied}) > 10
    for (v,) in varied:
        assert v.startswith(" ") and v.endswith("! ") and "  " in v and v.count(",") == 1


def test_how_often_words_change(tiny):
    text, n = "Grace likes milk and Jack likes tea", 200
    words = np.array([v[0].split() for v in Augmenter(*tiny, p=0.4, k=15)([[text]], n=n)[0]])
    changed = (words != np.array(text.split())).mean()
    assert 0.25 < changed < 0.4  # 0.4, less where the word itself is drawn
    assert Augmenter(*tiny, p=0.0)([[text]], n=3)[0] == [(text,)] * 3


def test_candidates_are_the_likeliest_in_context(tiny):
    tokenizer, net = tiny
    text = "Grace likes milk"
    ids = tokenizer("[MASK] likes milk", return_tensors="pt")
    with torch.no_grad():
        logits = net(**ids).logits[0, 1]
    likeliest = [t for t in tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
                 if t not in tokenizer.all_special_tokens and not t.startswith("##") and t.isascii() and t[0].isalnum()][:3]  # fmt: skip
    firsts = {v[0].split()[0] for v in Augmenter(tokenizer, net, p=1.0, k=3)([[text]], n=60)[0]}
    assert firsts == set(likeliest)


def test_pairs_change_one_side_at_a_time(tiny):
    pair = ("Grace likes milk.", "Jack likes tea.")
    varied = Augmenter(*tiny, p=1.0, k=5)([pair], n=20)[0]
    for i, (a, b) in enumerate(varied):
        assert (b == pair[1] and a != pair[0]) if i % 2 == 0 else (a == pair[0] and b != pair[1])


def test_words_of_several_pieces_have_neighbours(tiny):
    tokenizer, net = tiny
    word = "zebralike"
    assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) > 1

    def near(asked, k):
        return ("milk", "tea") if asked == word else ()
    varied = [v[0] for v in Augmenter(tokenizer, net, near, p=1.0, k=2)([[f"A {word}"]], n=20)[0]]
    assert {v.split()[1] for v in varied} == {"milk", "tea"}
    assert {v[0].split()[1] for v in Augmenter(tokenizer, net, p=1.0)([[f"A {word}"]], n=5)[0]} == {word}


def test_chinese_stays_chinese(tiny):
    text = "小红喜欢喝牛奶。"
    for (v,) in Augmenter(*tiny, p=1.0)([[text]], n=10)[0]:
        assert len(v) == len(text) and v.endswith("。") and all("\u4e00" <= c <= "\u9fff" for c in v[:-1])
    for (v,) in Augmenter(*tiny, p=1.0)([["Grace likes milk"]], n=10)[0]:
        assert v.isascii()


def test_lists_of_words_stay_lists(tiny):
    words = ["Grace", "likes", "milk", "."]
    for (v,) in Augmenter(*tiny, p=1.0)([[words]], n=5)[0]:
        assert isinstance(v, list) and len(v) == 4 and v[3] == "." and v != words
    assert words == ["Grace", "likes", "milk", "."]


def test_rows_have_random_numbers_of_their_own(tiny):
    augment, texts = Augmenter(*tiny), [["Grace likes milk."], ["Jack has a black dog."], ["It is cold today."]]
    together = augment(texts, n=4, seed=5)
    assert together == [augment([text], n=4, seed=5, first=i)[0] for i, text in enumerate(texts)]
    assert together != augment(texts, n=4, seed=6)
    assert augment([["..."], [""]], n=2) == [[("...",)] * 2, [("",)] * 2]


def test_texts_may_be_longer_than_the_model(tiny):
    "Neighbours of more pieces than the word, and texts beyond the positions: a window around the mask is what the model sees."
    word, tall = "zyxwv", "qzxkvj" * 5
    text = " ".join([f"{word} dog"] * 15)
    varied = Augmenter(*tiny, lambda asked, k: (tall,) if asked == word else (), p=1.0)([(text,)], n=2)[0]
    assert all(v[0].split()[::2] == [tall] * 15 for v in varied)
    long = "a dog " * 100
    ((a, b),) = Augmenter(*tiny, p=1.0)([(long, "a cat")], n=1)[0]
    assert len(a.split()) == 200 and sum(x != y for x, y in zip(a.split(), long.split())) > 100 and b == "a cat"


def test_stop_words_stay(tiny):
    text = "The noodles were fresh, but the acting was very bad."
    kept = {"the", "were", "but", "was", "very"}
    assert kept <= STOP_WORDS["en"]
    for (v,) in Augmenter(*tiny, p=1.0, k=2, stop_words=STOP_WORDS["en"])([[text]], n=10)[0]:
        words = v.replace(",", " ,").replace(".", " .").split()
        assert [w.lower() for w in words if w.lower() in kept] == ["the", "were", "but", "the", "was", "very"]
        assert v != text
    assert Augmenter(*tiny, stop_words=())([[text]], n=5) == Augmenter(*tiny)([[text]], n=5)
    chinese = "面条很新鲜，但是表演非常糟糕。"
    for (v,) in Augmenter(*tiny, p=1.0, stop_words=STOP_WORDS["zh"])([[chinese]], n=5)[0]:
        assert [v[i] for i in (2, 6, 7, 10, 11)] == [*"很但是非常"]


def test_candidates_may_come_from_the_original(tiny):
    "Each word as if it were the only one that changes."
    tokenizer, net = tiny
    text = "Grace likes milk"
    varied = Augmenter(tokenizer, net, p=1.0, k=1, original_context=True)([[text]], n=1)[0][0][0].split()
    for i, masked in enumerate(["[MASK] likes milk", "Grace [MASK] milk", "Grace likes [MASK]"]):
        with torch.no_grad():
            logits = net(**tokenizer(masked, return_tensors="pt")).logits[0, i + 1]
        best = next(t for t in tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
                    if t not in tokenizer.all_special_tokens and not t.startswith("##") and t.isascii() and t[0].isalnum())  # fmt: skip
        assert varied[i] == best


def test_only_words_are_candidates():
    "No [unused1], and no more candidates than there are words of the script."
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "dog", "cat", "a", "##s", "我"]
    torch.manual_seed(0)
    net = BertForMaskedLM(BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                                     max_position_embeddings=32))  # fmt: skip
    tokenizer = BertTokenizer(vocab={name: i for i, name in enumerate(names)}, do_lower_case=True, model_max_length=32)
    made = Augmenter(tokenizer, net, p=1.0, k=6)([("a dog 我",)], n=40)[0]
    assert {w for (v,) in made for w in v.split()[:2]} == {"dog", "cat", "a"} and {v.split()[2] for (v,) in made} == {"我"}


def test_the_second_text_is_the_second_segment(tiny):
    augment = Augmenter(*tiny)
    first, second = augment._draft("Grace likes milk"), augment._draft("Jack likes tea")
    tokenizer = tiny[0]
    whole = tokenizer("Grace likes [MASK]", "Jack likes tea")
    assert augment._masked([], first, 2, second.ids)[:3] == (whole["input_ids"], whole["token_type_ids"], 3)
    whole = tokenizer("Grace likes milk", "[MASK] likes tea")
    assert augment._masked(first.ids, second, 0, [])[:3] == (whole["input_ids"], whole["token_type_ids"], 5)


def test_other_tokenizers_are_refused():
    other = SimpleNamespace(backend_tokenizer=SimpleNamespace(model=SimpleNamespace()))
    with pytest.raises(ValueError, match="give a model with WordPiece"):
        Augmenter(other, None)


def test_words_with_blanks(tmp_path):
    (tmp_path / "v.txt").write_text("a 1 2\n. . 1 3\n")
    assert Vectors.read(tmp_path / "v.txt").words == ["a", ". ."]


def test_probabilities_only(tiny):
    with pytest.raises(ValueError, match="p is 1.5"):
        Augmenter(*tiny, p=1.5)


# --- labels of the teacher ----------------------------------------------------------------------------------------

def test_labels_come_from_the_teacher(tiny):
    tokenizer, profile = tiny[0], profiles.load("tiny")
    texts = [{"sentence": "Grace likes milk."}, {"sentence": "Jack has a dog."}]
    task = Classification(tokenizer, ("x", "y", "z"))
    teacher = task.model(profile.model)
    said = task.predict(teacher, texts)
    assert [row["label"] for row in teacher_labels(task, teacher, texts)] == [task.labels.index(p["label"]) for p in said]
    number = Regression(tokenizer)
    teacher = number.model(profile.model)
    assert [row["label"] for row in teacher_labels(number, teacher, texts)] == [p["score"] for p in number.predict(teacher, texts)]
    tags, words = Tagging(tokenizer, ("O", "B-P", "I-P")), [{"tokens": ["Grace", "likes", "milk"]}]
    teacher = tags.model(profile.model)
    assert [tags.labels[i] for i in teacher_labels(tags, teacher, words)[0]["ner_tags"]] == tags.predict(teacher, words)[0]["tags"]
    answers = Answering(tokenizer)
    with pytest.raises(ValueError, match="cannot be augmented"):
        teacher_labels(answers, answers.model(profile.model), [{"question": "Who likes milk?", "context": "Grace likes milk."}])
