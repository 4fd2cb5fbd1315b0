"""The numbers and the HTML of the view into a BERT."""

import json
import re
import tomllib

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, BertConfig, BertForMaskedLM, RobertaConfig, RobertaModel

from bertcourse.assets import asset
from bertcourse.inside import numbers
from bertcourse.inside.html import view_html, view_words
from bertcourse.plots import attention_view
from bertcourse.profiles import load

TEXT, PAIR = "Anna turned on the light in the bedroom.", "Her bag was light."
SCRIPTS = {name: asset(f"inside/{name}").read_text(encoding="utf-8") for name in ("view.js", "live.js", "view.css")}
WORDS = tomllib.loads(asset("inside/words.toml").read_text(encoding="utf-8"))
EXAMPLES = tomllib.loads(asset("inside/examples.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    return load().model(AutoModelForPreTraining)


@pytest.fixture(scope="module")
def tokenizer():
    return load().tokenizer()


@pytest.fixture(scope="module")
def pair(model, tokenizer):
    """The numbers of two sentences."""
    return numbers.inspect(model, tokenizer, TEXT, PAIR)


@pytest.fixture(scope="module")
def outputs(model, tokenizer):
    """What the model itself says of them."""
    encoded = tokenizer(TEXT, PAIR, return_tensors="pt")
    eager = load().model(AutoModelForPreTraining, attn_implementation="eager")
    with torch.no_grad():
        return encoded, eager(**encoded, output_attentions=True, output_hidden_states=True)


def test_attention_and_embeddings_are_those_of_the_model(model, pair, outputs):
    encoded, output = outputs
    attention = np.array(pair["attention"])
    assert attention.shape == (4, 4, *[len(pair["tokens"])] * 2) and pair["ids"] == encoded["input_ids"][0].tolist()
    assert np.abs(attention - torch.stack(output.attentions)[:, 0].numpy()).max() <= 5.1e-4
    parts = {name: np.array(rows) for name, rows in pair["embeddings"].items()}
    assert np.abs(parts["normed"] - output.hidden_states[0][0, :, : numbers.SHOWN].numpy()).max() <= 5.1e-3
    words = model.bert.embeddings.word_embeddings(encoded["input_ids"])[0, :, : numbers.SHOWN].detach().numpy()
    assert np.abs(parts["word"] - words).max() <= 5.1e-3 and len({tuple(row) for row in parts["segment"].tolist()}) == 2
    assert pair["next"] == pytest.approx(output.seq_relationship_logits.softmax(-1)[0, 0].item(), abs=1e-4)


def test_predictions_are_those_of_the_masked_sentence(model, tokenizer, pair):
    at = pair["tokens"].index("light")
    ids = torch.tensor([pair["ids"]])
    ids[0, at] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model(input_ids=ids, token_type_ids=torch.tensor([pair["segments"]])).prediction_logits
    probabilities = logits[0, at].softmax(-1)
    found = pair["predictions"][at]
    assert found["top"][0][0] == tokenizer.convert_ids_to_tokens(int(probabilities.argmax())) and len(found["top"]) == 5
    assert found["top"][0][1] == pytest.approx(probabilities.max().item(), abs=1e-4)
    assert found["token"] == "light" and found["probability"] == pytest.approx(probabilities[pair["ids"][at]].item(), abs=1e-4)
    assert [bool(prediction) for prediction in pair["predictions"]] == [not special for special in pair["special"]]


def test_the_map_holds_each_sentence_alone(model, tokenizer, pair):
    alone = numbers.inspect(model, tokenizer, PAIR)["map"]
    assert pair["map"]["tokens"][1] == alone["tokens"][0] and alone["tokens"][1] == [] and alone["cosines"] == {}
    with torch.no_grad():
        states = [model.bert(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states for text in (TEXT, PAIR)]
    places = [tokenizer.tokenize(text).index("light") + 1 for text in (TEXT, PAIR)]
    wanted = [torch.cosine_similarity(a[0, places[0]], b[0, places[1]], dim=0).item() for a, b in zip(*states)]
    assert pair["map"]["cosines"]["light"] == pytest.approx(wanted, abs=1e-3)
    assert np.array(pair["map"]["points"]).shape == (5, sum(map(len, pair["map"]["tokens"])), 2)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_principal_components(count):
    rows = np.random.default_rng(count).normal(size=(count, 5))
    found, share = numbers.principal_components(rows)
    centred = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centred)
    assert share == pytest.approx(1 if count < 3 else (values[:2] ** 2).sum() / (values**2).sum())
    for k in range(2):
        wanted = centred @ axes[k]
        assert np.allclose(found[:, k], wanted, atol=1e-9) or np.allclose(found[:, k], -wanted, atol=1e-9)
        assert found[np.abs(found[:, k]).argmax(), k] >= 0


def test_the_model_is_as_it_was(tokenizer):
    model = load().model(AutoModelForPreTraining, attn_implementation="sdpa").train()
    numbers.inspect(model, tokenizer, TEXT)
    assert model.training and model.config._attn_implementation == "sdpa"


def test_models_with_less(tokenizer):
    bare = numbers.inspect(load().model(AutoModel), tokenizer, TEXT, PAIR)
    assert bare["predictions"] is None and bare["next"] is None and bare["embeddings"]
    small = dict(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    masked = numbers.inspect(BertForMaskedLM(BertConfig(**small)).eval(), tokenizer, TEXT, PAIR)
    assert masked["predictions"][1] and masked["next"] is None
    other = numbers.inspect(RobertaModel(RobertaConfig(**small, max_position_embeddings=140, type_vocab_size=2, pad_token_id=0)), tokenizer, TEXT)
    assert other["embeddings"] is None  # it counts positions in another way
    assert "NaN" not in json.dumps([bare, masked, other])


@pytest.mark.parametrize("change, said", [
    (dict(text=" "), "the text is empty"),
    (dict(text="a " * 70), "the text has 78 tokens, a view draws at most 64"),
    (dict(layer=5), "there is no layer 5: the model has layers 1 to 4"),
    (dict(head=0), "there is no head 0: the model has heads 1 to 4"),
    (dict(token="cat"), r"'cat' is not a token of the text: choose from \[CLS\] anna turned"),
    (dict(compare="anna"), "'anna' is not a token of both sentences: choose from light ."),
    (dict(compare="anna", text_pair=None), "'anna' is not a token of both sentences: choose from none: they share no token"),
    (dict(lang="fr"), "unknown language 'fr'"),
    (dict(parts=["input", "head"]), "there is no part 'head': choose from input, masked, attention, states, next"),
])  # fmt: skip
def test_bad_input_is_said_in_a_sentence(model, tokenizer, change, said):
    with pytest.raises(ValueError, match=said):
        attention_view(model, tokenizer=tokenizer, **{"text": TEXT, "text_pair": PAIR} | change)


def test_a_model_that_names_no_folder_needs_its_tokenizer(tokenizer):
    small = BertForMaskedLM(BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    with pytest.raises(ValueError, match="the model does not say where it came from: give its tokenizer, too"):
        attention_view(small, TEXT)
    assert attention_view(small, TEXT, tokenizer=tokenizer)


@pytest.mark.parametrize("text", ["[SEP]", "\u200b", "[CLS] [PAD]"])
def test_a_text_without_a_token_of_its_own(model, tokenizer, text):
    with pytest.raises(ValueError, match="no token besides"):
        numbers.inspect(model, tokenizer, text)
    with pytest.raises(ValueError, match="no token besides"):
        numbers.inspect(model, tokenizer, TEXT, text)


def test_numbers_that_are_not_finite_are_said(tokenizer):
    damaged = load().model(AutoModelForPreTraining)
    with torch.no_grad():
        damaged.bert.encoder.layer[1].output.dense.bias[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        numbers.inspect(damaged, tokenizer, TEXT)


def test_weights_that_are_none_are_refused():
    square = torch.full((1, 2, 3, 3), 1 / 3)
    class Output:
        hidden_states = (torch.zeros(1, 3, 4),)
    for attentions, said in (((), "no attention weights"), (None, "no attention weights"), ((square[..., :2],), "no attention weights"),
                             ((square * 2,), "does not sum to 1"), ((square,), "")):  # fmt: skip
        output = Output()
        output.attentions = attentions
        if said:
            with pytest.raises(ValueError, match=said):
                numbers.check_outputs(output, 3)
        else:
            numbers.check_outputs(output, 3)


def test_half_precision_keeps_the_embeddings(tokenizer):
    half = load().model(AutoModelForPreTraining).to(torch.bfloat16)
    assert numbers.inspect(half, tokenizer, TEXT)["embeddings"]


def test_parts_of_the_model_that_were_in_evaluation_stay_so(tokenizer):
    model = load().model(AutoModelForPreTraining).train()
    model.bert.embeddings.eval()
    numbers.inspect(model, tokenizer, TEXT)
    assert model.training and not model.bert.embeddings.training


def test_byte_level_tokens_can_be_read():
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["the light is on 安娜"] * 5, vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer = RobertaTokenizerFast(tokenizer_object=trained._tokenizer)
    names = numbers.token_names(tokenizer, tokenizer("the light")["input_ids"])
    assert "light" in names and not any("Ġ" in name for name in names)


def test_a_view_is_one_piece_of_html(model):
    shown = attention_view(model, TEXT, PAIR, token="light", compare="light", layer=2, head=3).html()
    assert not re.search(r"(?:src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", shown)
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', shown, re.DOTALL)[1])
    assert data["numbers"]["layer"] == 2 and data["numbers"]["token"] == data["numbers"]["tokens"].index("light")
    assert data["words"] == view_words("en") and "data-live" not in shown
    table = re.search(r"<table.*?</table>", shown, re.DOTALL)[0]
    assert table.count("<tr>") == len(data["numbers"]["tokens"]) + 1 and "anna" in table


def test_a_text_of_chinese_characters_has_chinese_words(model, monkeypatch):
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)
    assert view_words("zh")["attention"] in attention_view(model, "高兴住在东京。").html()


def test_no_text_ends_the_script(pair):
    planted = pair | {"tokens": ["</script><script>alert(1)</script>", "<!--", "\u2028"] + pair["tokens"][3:]}
    shown = view_html(planted, "en")
    assert shown.count("<script") == 2 == shown.count("</script>") and "alert(1)" in shown and "<!--" not in shown
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', shown, re.DOTALL)[1])
    assert data["numbers"]["tokens"] == planted["tokens"]


def used_words() -> set[str]:
    """The words that the scripts ask for by name."""
    text = SCRIPTS["view.js"] + SCRIPTS["live.js"]
    rows = {"word", "positions", "segments", "added", "normed", "token", "id", "segment", "position", "first_sentence", "second_sentence",
            "input", "attention", "masked", "states", "next", "facts", "facts_alone", "predictions", "predictions_here"}  # by a variable
    return rows | set(re.findall(r'say\("(\w+)"', text)) | set(re.findall(r"\bwords\.(\w+)", text)) - {"toml"}


def test_every_word_is_there_in_both_languages_and_used():
    assert used_words() == set(WORDS)
    places = {name: [set(re.findall(r"\{(\w+)\}", both[lang])) for lang in ("zh", "en")] for name, both in WORDS.items()}
    assert not [name for name, (zh, en) in places.items() if zh != en]


def test_every_class_of_the_style_is_drawn():
    drawn = SCRIPTS["view.js"] + SCRIPTS["live.js"]
    names = set(re.findall(r"\.([a-z][a-z0-9-]*)", re.sub(r"\{[^{}]*\}", "", SCRIPTS["view.css"])))
    assert names and not [name for name in names if name.rstrip("1") not in drawn]


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_examples_show_what_they_name(model, tokenizer, lang):
    for example in EXAMPLES[lang]:
        found = numbers.inspect(model, tokenizer, example["text"], example.get("pair"))
        assert tokenizer.unk_token not in found["tokens"], example["name"]
        for key in ("mask", "token"):
            assert example.get(key, found["tokens"][1]) in found["tokens"], (example["name"], key)
        numbers.check_choice(found, example.get("layer"), example.get("head", 1), None, example.get("compare"))
        if "mask" in example:
            prediction = found["predictions"][found["tokens"].index(example["mask"])]
            assert prediction["top"][0][0] == example["mask"], example["name"]
        if "compare" in example:
            cosines = found["map"]["cosines"][example["compare"]]
            assert cosines[-1] < cosines[0], example["name"]
