"""`bertcourse pretrain`: from text files to a finished folder, and one sentence for whatever stands in the way."""

import errno
import gzip
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict, fields
from pathlib import Path

import commands
import pytest
import shared
import torch
from commands import HAN, weights
from transformers import AutoModelForPreTraining, AutoTokenizer

import bertcourse.pieces
import bertcourse.pretraining
import bertcourse.training
from bertcourse.app import cli
from bertcourse.assets import asset
from bertcourse.base import recipe_rules
from bertcourse.base.errors import UserError
from bertcourse.jobs import corpus_text, pretraining, recipe
from bertcourse.jobs.folder import RunFolder
from bertcourse.jobs.pretrain_scores import EvaluationReport
from bertcourse.jobs.pretraining import PretrainOptions, PretrainSpec
from bertcourse.jobs.stopping import StopRequest
from bertcourse.pieces import TextError
from bertcourse.pretraining import Recipe

FILES = {"README.md", "config.json", "curves.png", "history.jsonl", "metrics.json", "model.safetensors", "pretrain.toml",
         "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
CORE = ["--layers", "1", "--hidden-size", "16", "--heads", "2", "--batch-size", "4", "--max-length", "32",
        "--precision", "no", "--threads", "1"]
TINY = [*CORE, "--steps", "6", "--quiet"]
OURS = ["--tokenizer", str(asset("tiny-bert"))]


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    """As for all commands, and threads as they were afterwards."""
    threads = torch.get_num_threads()
    with commands.surroundings(), shared.cached_curves(pretraining):
        yield
    torch.set_num_threads(threads)


def call(*argv: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `bertcourse pretrain ARGV`."""
    return commands.run("pretrain", *argv)


def succeed(*argv: object) -> dict:
    """The metrics that a run prints."""
    code, out, err = call(*argv, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(says: str, *argv: object, left: Path | None = None) -> str:
    """The one sentence of a run that is refused and leaves nothing at `left`."""
    code, out, err = call(*argv)
    assert code == 2 and not out and says in err, err
    assert len(err.splitlines()) == 1 and err.startswith("bertcourse") and "Traceback" not in err
    assert left is None or not left.exists()
    return err


# --- text to train on ---------------------------------------------------------------------------------------------

def english(rng: random.Random) -> str:
    nouns = "cat dog bird tree house river sky road stone moon fish boat king queen child song".split()
    return f"The {rng.choice(nouns)} {rng.choice(['sees', 'likes', 'follows', 'finds'])} the {rng.choice(nouns)}."


def chinese(rng: random.Random) -> str:
    return f"{rng.choice('猫狗鸟树房河天路')}{rng.choice(['看见', '喜欢', '跟着'])}{rng.choice('石月鱼船王孩歌')}。"


def texts(sentence, count: int, seed: int = 0) -> list[list[str]]:
    rng = random.Random(seed)
    return [[sentence(rng) for _ in range(rng.randint(3, 6))] for _ in range(count)]


def paragraphs(documents: list[list[str]], space: str = " ") -> str:
    return "\n\n".join(space.join(document) for document in documents) + "\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    """The same English text in five dresses, and Chinese."""
    folder = tmp_path_factory.mktemp("corpus")
    text = paragraphs(texts(english, 40))
    contents = {
        "en.txt": text.encode(), "bom.txt": b"\xef\xbb\xbf" + text.encode(), "en.txt.gz": gzip.compress(text.encode()),
        "crlf.txt": text.replace("\n", "\r\n").encode(), "lines.txt": text.replace(". ", ".\n").encode(),
        "together.txt": text.replace("\n\n", "\n").replace(". ", ".\n").encode(),
        "zh.txt": paragraphs(texts(chinese, 40), "").encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> tuple[Path, dict]:
    """A finished folder, and what was printed."""
    out = tmp_path_factory.mktemp("run") / "deep" / "model"
    return out, succeed("--out", out, "--corpus", corpus["en.txt"], corpus["zh.txt"], "--vocab-size", 900, *TINY)


# --- the finished folder ------------------------------------------------------------------------------------------

def test_the_folder_holds_what_is_promised(run, corpus):
    out, printed = run
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "curves.png").stat().st_size > 5_000
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert printed == {"out": str(out)} | metrics
    assert {"task", "dev", "test", "seconds", "seed", "command"} <= metrics.keys()
    assert metrics["task"] == "pretraining" and metrics["seed"] == 0 and 0 < metrics["seconds"] < 60 and metrics["steps"] == 6
    assert metrics["dev"].keys() == {"loss", "mlm_loss", "mlm_perplexity", "mlm_accuracy", "nsp_loss", "nsp_accuracy"}
    assert all(map(math.isfinite, metrics["dev"].values()))
    assert metrics["dev"]["mlm_perplexity"] == pytest.approx(math.exp(metrics["dev"]["mlm_loss"]))
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6] and rows[-1]["dev"] == metrics["dev"]
    data = metrics["data"]
    assert [file["name"] for file in data["files"]] == ["en.txt", "zh.txt"]
    assert [file["bytes"] for file in data["files"]] == [corpus[name].stat().st_size for name in ("en.txt", "zh.txt")]
    assert data["train"]["documents"] + data["dev"]["documents"] == 80 and data["unknown"] == 0


def test_the_checkpoint_loads(run):
    out, metrics = run
    model, found = AutoModelForPreTraining.from_pretrained(out, output_loading_info=True)
    assert type(model).__name__ == "BertForPreTraining" and not any(found.values())
    assert model.config.num_hidden_layers == 1 and model.config.hidden_size == 16 and model.config.num_attention_heads == 2
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == model.config.vocab_size == metrics["vocab_size"]
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 32
    assert tokenizer.convert_ids_to_tokens(tokenizer("The cat 看见 a dog")["input_ids"]) == \
        ["[CLS]", "the", "cat", "看", "见", "a", "dog", "[SEP]"]
    vocabulary = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokenizer.convert_tokens_to_ids(vocabulary) == list(range(len(tokenizer)))
    scores = model(**tokenizer("the [MASK] sees", "the moon", return_tensors="pt"))
    assert torch.isfinite(scores.prediction_logits).all() and scores.seq_relationship_logits.shape == (1, 2)


def test_the_card_and_the_recipe(run):
    out, metrics = run
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n") and "# model\n" in card and "![loss](curves.png)" in card
    assert metrics["command"] in card and all(file["sha256"][:16] in card for file in metrics["data"]["files"])
    assert f"{metrics['dev']['mlm_accuracy']:.1%}" in card and not re.search(r"\bnan\b|None|\{", card)
    recipe = Recipe.read(out / "pretrain.toml", documents=metrics["recipe"]["documents"])
    assert json.loads(json.dumps(asdict(recipe))) == metrics["recipe"]
    assert not re.search("languages|documents", (out / "pretrain.toml").read_text())  # of the toy world, which is not here


def test_no_folder_of_this_machine_is_told(run, corpus):
    out, metrics = run
    for path in out.iterdir():
        for folder in (out.parent, corpus["en.txt"].parent, Path.home()):
            assert str(folder).encode() not in path.read_bytes() or folder == Path("/"), path.name
    assert metrics["command"].startswith("bertcourse pretrain --out model --corpus en.txt zh.txt --vocab-size 900 ")


def test_a_name_for_the_folder_one_is_in(tmp_path, monkeypatch, corpus):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    metrics = succeed("--out", ".", "--corpus", corpus["en.txt"], *OURS, *TINY)
    assert " --out here " in metrics["command"] and "# here\n" in Path("README.md").read_text(encoding="utf-8")


def test_the_printed_command_repeats_the_run(run, corpus, tmp_path, monkeypatch):
    out, metrics = run
    monkeypatch.chdir(tmp_path)
    for name in ("en.txt", "zh.txt"):
        shutil.copy(corpus[name], name)
    again = metrics["command"].split()[2:]
    assert call(*again, "--quiet") == (0, "", "")
    assert weights(tmp_path / "model") == weights(out)


def test_another_seed_gives_other_weights(run, corpus, tmp_path):
    out, metrics = run
    other = succeed("--out", tmp_path / "other", "--corpus", corpus["en.txt"], corpus["zh.txt"], "--vocab-size", 900, *TINY,
                    "--seed", 1)
    assert weights(tmp_path / "other") != weights(out) and other["seed"] == 1
    assert (tmp_path / "other/tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()
    assert other["data"] == metrics["data"]


def test_training_teaches(corpus, tmp_path):
    succeed("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *CORE, "--quiet", "--steps", 120, "--lr", 0.01)
    rows = [json.loads(line) for line in (tmp_path / "m/history.jsonl").read_text().splitlines()]
    evaluations = [row["dev"]["mlm_loss"] for row in rows if "dev" in row]
    assert len(evaluations) == 10 and evaluations[0] > evaluations[-1] + 1


# --- files of all kinds -------------------------------------------------------------------------------------------

def data_of(file: Path, out: Path) -> dict:
    return succeed("--out", out, "--corpus", file, *OURS, *TINY, "--steps", 1)["data"]


def test_the_same_text_in_other_dresses(corpus, tmp_path):
    plain = data_of(corpus["en.txt"], tmp_path / "plain")
    for name in ("bom.txt", "en.txt.gz", "crlf.txt", "lines.txt"):
        data = data_of(corpus[name], tmp_path / name)
        assert (data["train"], data["dev"]) == (plain["train"], plain["dev"]), name
        assert data["files"] != plain["files"]


def test_sentences_without_blank_lines(corpus, tmp_path):
    data, plain = (data_of(corpus[name], tmp_path / name) for name in ("together.txt", "en.txt"))
    sentences = sum(data[part]["sentences"] for part in ("train", "dev"))
    assert sentences == sum(plain[part]["sentences"] for part in ("train", "dev"))
    assert data["train"]["documents"] + data["dev"]["documents"] == math.ceil(sentences / 16)


def test_share_that_is_held_out(corpus, tmp_path):
    metrics = succeed("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY, "--dev-share", 0.25)
    assert metrics["data"]["dev"]["documents"] == 10 and metrics["data"]["dev_share"] == 0.25


@pytest.mark.parametrize("count, share", [(4, 0.02), (5, 0.5), (49, 0.02), (51, 0.02), (60, 0.02), (100, 0.02), (7, 0.3), (200, 0.1)])
def test_every_document_goes_somewhere(count, share):
    documents, aside = [[str(i)] for i in range(count)], []
    rest = list(corpus_text.hold_out(documents, share, aside.append))
    assert sorted(rest + aside, key=lambda d: int(d[0])) == documents and rest == sorted(rest, key=lambda d: int(d[0]))
    assert len(aside) == max(2, count // round(1 / share))


@pytest.mark.parametrize("line", ["{i} is a line of some length\n\n", "Title\n{i} is the text below that title, which is longer\n"])
def test_the_tokenizers_sample_is_even(tmp_path, line):
    for name in "ab":
        (tmp_path / name).write_text("".join(line.format(i=f"{name}{i}") for i in range(5_000)))
    survey = corpus_text.survey([tmp_path / "a", tmp_path / "b"], 20_000)
    assert 15_000 < sum(map(len, survey.sample)) < 25_000
    seen = [word for words in survey.sample if re.match(r"[ab]\d", word := words.split()[0])]
    for name in "ab":
        numbers = [int(word[1:]) for word in seen if word[0] == name]
        assert len(numbers) > 50 and numbers[0] < 500 and numbers[-1] > 4_500
    assert survey.characters == sum((tmp_path / name).stat().st_size for name in "ab")


def test_a_small_text_is_sampled_whole(corpus):
    survey = corpus_text.survey([corpus["zh.txt"]], 10_000)
    assert [line for line in survey.sample if line] == corpus["zh.txt"].read_text(encoding="utf-8").split()


# --- recipe -------------------------------------------------------------------------------------------------------

CONFIG = """
num_layers = 1
hidden_size = 16
num_heads = 2
lengths = [[16, 0.5], [24, 0.5]]
steps = 4
parts = 2
batch_size = 3
task = "sop"
"""


@pytest.fixture
def config(tmp_path):
    """Write a recipe; returns its path."""
    def writing(text: str, name: str = "my.toml") -> Path:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name
    return writing


def test_config_and_options(corpus, tmp_path, config):
    file = config(CONFIG + "lr = 0.5\n[masking]\nrate = 0.3\n")
    metrics = succeed("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, "--config", file, "--lr", 0.001, "--heads", 4,
                      "--threads", 1, "--quiet")
    recipe, shape = metrics["recipe"], json.loads((tmp_path / "m/config.json").read_text())
    assert (recipe["lr"], recipe["num_heads"], recipe["masking"]["rate"], recipe["steps"]) == (0.001, 4, 0.3, 4)
    assert (shape["num_hidden_layers"], shape["hidden_size"], shape["num_attention_heads"]) == (1, 16, 4)
    assert shape["max_position_embeddings"] == 24 and recipe["dropout"] == Recipe().dropout  # what the file leaves out
    assert "sop_accuracy" in metrics["dev"] and "nsp_accuracy" not in metrics["dev"] and metrics["objective"] == "sop"
    rows = [json.loads(line) for line in (tmp_path / "m/history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "dev" in row] == [2, 4]


def test_without_config_it_is_the_shipped_recipe(corpus, run):
    ours, shipped = run[1]["recipe"], json.loads(json.dumps(asdict(Recipe.read(asset("tiny-bert") / "pretrain.toml"))))
    changed = {name for name in ours if ours[name] != shipped[name]}
    assert changed == {"num_layers", "hidden_size", "num_heads", "batch_size", "lengths", "precision", "steps", "parts"}


BAD = [  # line of the file, what the sentence names
    ("steps = 0", "steps"), ("steps = 1.5", "steps"), ("steps = true", "steps"), ('steps = "many"', "steps"), ("parts = 0", "parts"),
    ("batch_size = -1", "batch_size"), ("num_layers = 0", "num_layers"), ("hidden_size = []", "hidden_size"),
    ("num_heads = 3", "3 "), ("lr = 0", "lr"), ("lr = nan", "lr"), ("lr = inf", "lr"), ('lr = "1e-4"', "lr"),
    ("dropout = 1.0", "dropout"), ("dropout = -0.1", "dropout"), ("short = 2", "short"), ("warmup = -1", "warmup"),
    ("warmup = 4", "4 "), ("weight_decay = -1", "weight_decay"), ("clip = 0", "clip"), ("initializer_range = 0", "initializer_range"),
    ("betas = [0.9]", "betas"), ("betas = 0.9", "betas"), ("betas = [0.9, 1.0]", "betas"), ("copies = 0", "copies"),
    ('precision = "fp16"', "precision"), ('task = "clm"', "task"), ("task = []", "task"), ("seed = -1", "seed"),
    ("seed = 4294967296", "seed"), ("put_back = 1", "put_back"), ("redraw_short = 0", "redraw_short"), ("lengths = []", "lengths"), ("lengths = 32", "lengths"),
    ("lengths = [32]", "lengths"), ("lengths = [[32, 0.5]]", "lengths"), ("lengths = [[4, 1.0]]", "lengths"),
    ('lengths = [["32", 1.0]]', "lengths"), ('languages = ["fr"]', "languages"), ("languages = []", "languages"),
    ('languages = "en"', "languages"), ('languages = ["en", "en"]', "languages"), ("languages = [[]]", "languages"),
    ("documents = 1", "documents"), ("learning_rate = 1", "learning_rate"), ('"masking.rate" = 0.1', "masking.rate"),
    ("masking = 3", "masking"), ("masking = {rate = 0}", "masking.rate"), ("masking = {rate = 1}", "masking.rate"),
    ('masking = {mask = "all"}', "masking.mask"), ("masking = {mask = 1.5}", "masking.mask"), ("masking = {rarity = 2}", "rarity"),
    ("masking = {mask = 0.8, random = 0.3}", "masking.random"), ("masking = {ratio = 0.1}", "masking.ratio"),
    ("masking = {max_predictions = -1}", "masking.max_predictions"), ("masking = {max_predictions = 2.5}", "masking.max_predictions"),
    ("masking = {max_predictions = 20, whole_words = 0.5}", "masking.max_predictions"),
    ("masking = {whole_words = true}", "masking.whole_words"), ("steps = ", "TOML"), ("steps = 1\nsteps = 2", "TOML"),
    ("seed = 1979-05-27", "seed"),
]


@pytest.mark.parametrize("line, says", BAD, ids=[line for line, _ in BAD])
def test_settings_that_are_refused(corpus, tmp_path, config, monkeypatch, line, says):
    kept = [old for old in CONFIG.splitlines() if old.split(" ")[0] != line.split(" ")[0]]
    argv = ["--out", tmp_path / "m", "--corpus", corpus["en.txt"], "--config", config("\n".join([*kept, line]))]
    assert "my.toml" in refused(says, *argv, left=tmp_path / "m")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert HAN.search(refused(says, *argv, left=tmp_path / "m"))


def test_a_config_that_is_no_text(corpus, tmp_path, config):
    argv = ["--out", tmp_path / "m", "--corpus", corpus["en.txt"], "--config"]
    refused("is not TOML", *argv, config(b"\x80\x00"), left=tmp_path / "m")
    refused("there is no file", *argv, tmp_path, left=tmp_path / "m")
    assert succeed(*argv, config(b"\xef\xbb\xbf" + CONFIG.encode()), *OURS, "--quiet", "--threads", 1)["steps"] == 4


def test_recipes_survive_writing(tmp_path):
    from bertcourse.pretraining import Masking
    for one in (Recipe(), Recipe(copies=10, lr=1e-05, lengths=((5, 1),), put_back=False, redraw_short=True, masking=Masking(rarity=0.5)),
                   Recipe(masking=Masking(max_predictions=20))):
        (tmp_path / "r.toml").write_text(recipe.to_toml(one, toy_world=True))
        assert Recipe.read(tmp_path / "r.toml") == one


def test_a_run_of_an_earlier_version_goes_on_as_it_began():
    """Its recipe does not say `redraw_short`; it drew the length for each input."""
    values = asdict(Recipe(redraw_short=True))
    del values["redraw_short"]
    assert recipe.read_recipe(PretrainOptions(), values) == Recipe(redraw_short=True)
    assert recipe.read_recipe(PretrainOptions(), asdict(Recipe())) == Recipe()
    assert (StopRequest.__qualname__, EvaluationReport.__qualname__) == ("Interruption", "Report")  # its checkpoints hold these names


def test_every_setting_has_a_rule():
    assert recipe_rules.RULES.keys() == {one.name for one in fields(Recipe)}
    assert recipe_rules.MASKING_RULES.keys() == {one.name for one in fields(Recipe().masking)}


# --- tokenizers ---------------------------------------------------------------------------------------------------

def vocabulary(folder: Path, pieces: list[str], **settings: object) -> Path:
    """A tokenizer as of BERT's days: a list of pieces, and sometimes settings."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz."]
PIECES = [*SPECIAL, *LETTERS, *("##" + letter for letter in LETTERS)]


def test_the_tokenizer_given_is_used(corpus, tmp_path):
    succeed("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY)
    assert (tmp_path / "m/vocab.txt").read_bytes() == (asset("tiny-bert") / "vocab.txt").read_bytes()


@pytest.mark.parametrize("settings, first", [({}, "t"), ({"do_lower_case": False}, "[UNK]")])
def test_a_list_of_pieces(corpus, tmp_path, settings, first):
    folder = vocabulary(tmp_path / "t", PIECES, **settings)
    metrics = succeed("--out", tmp_path / "m", "--corpus", corpus["en.txt"], "--tokenizer", folder, *TINY)
    assert AutoTokenizer.from_pretrained(tmp_path / "m").tokenize("The")[0] == first
    assert (metrics["data"]["unknown"] > 0) == bool(settings) and metrics["vocab_size"] == len(PIECES)


def words(folder: Path, ids: dict[str, int], special: list[str]) -> Path:
    """A tokenizer of whole words, with its own numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {f"{piece[1:-1].lower()}_token": piece for piece in special}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | settings))
    return folder


@pytest.mark.parametrize("ids, special, says", [
    ([*SPECIAL, "the"], SPECIAL[:4], "has no [MASK]"),
    ([*SPECIAL, "the"], [], "has no [PAD], [UNK], [CLS], [SEP], [MASK]"),
    (["[UNK]", "[PAD]", *SPECIAL[2:], "the"], SPECIAL, "does not number [PAD] 0"),
    ([*SPECIAL, *[None] * 9, "the"], SPECIAL, "has 6 entries, but numbers up to 14"),
    ([*SPECIAL, "The", "the"], SPECIAL, "of the text is [UNK] to this tokenizer"),
])
def test_tokenizers_that_are_refused(corpus, tmp_path, monkeypatch, ids, special, says):
    folder = words(tmp_path / "t", {piece: i for i, piece in enumerate(ids) if piece}, special)
    in_both_languages(monkeypatch, says, "--out", tmp_path / "m", "--corpus", corpus["en.txt"], "--tokenizer", folder, *TINY,
                      left=tmp_path / "m")


def test_folders_that_hold_no_tokenizer(corpus, tmp_path):
    argv = ["--out", tmp_path / "m", "--corpus", corpus["en.txt"], *TINY, "--tokenizer"]
    for folder in (tmp_path, tmp_path / "absent", corpus["en.txt"]):
        refused("has no tokenizer.json or vocab.txt", *argv, folder, left=tmp_path / "m")
    (tmp_path / "tokenizer.json").write_text("{}")
    refused("cannot be read", *argv, tmp_path, left=tmp_path / "m")


def test_code_that_comes_with_a_tokenizer_is_not_asked_for(corpus, tmp_path, monkeypatch):
    shutil.copy(asset("tiny-bert") / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["its_own.Tokenizer", None]}}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it waits for an answer"))
    refused("custom code", "--out", tmp_path / "m", "--corpus", corpus["en.txt"], *TINY, "--tokenizer", tmp_path, left=tmp_path / "m")


# --- what is refused ----------------------------------------------------------------------------------------------

def in_both_languages(monkeypatch, says: str, *argv: object, left: Path | None = None) -> None:
    assert not HAN.search(refused(says, *argv, left=left))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert HAN.search(refused("", *argv, left=left))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


@pytest.mark.parametrize("content, says", [
    (None, "there is no file"),
    (b"", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    (b" \n\n\t\n", "is empty"),
    (gzip.compress(b""), "is empty"),
    (b"Some text.\n\x00\x01\x02", "line 2 (byte 12): binary"),
    (bytes(range(256)) * 9, "binary, not text"),
    ("Grüße. Und mehr.\n".encode() + b"\xff\n", "line 2 (byte 20): not UTF-8: save the file as UTF-8, or name its encoding with --encoding"),
    (b"Good.\n" * 40_000 + b"\xff\n", "line 40,001"),
    (gzip.compress(b"The cat. The dog.\n" * 1_000)[:-20], "is damaged"),
    (b"One cat sees it.\n", "fewer than 4 documents"),
    (b"One cat.\n\nOne dog.\n\nA bird.\n\nA fish.\n\nA moon.\n", "no document has two sentences"),
    (b"A cat. It sees.\n\n" * 9 + b"One dog.\n\nA bird.\n\n", "no document held out has two sentences"),
    ("\u200b\n".encode(), "fewer than 4 documents"),
])
def test_text_that_is_refused(corpus, tmp_path, monkeypatch, content, says):
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    out = tmp_path / "new" / "model"
    for files in ([file], [corpus["en.txt"], file]):
        if "documents" not in says and "document " not in says or len(files) == 1:
            in_both_languages(monkeypatch, says, "--out", out, *OURS, *TINY, "--corpus", *files, left=out.parent)


def test_files_that_are_refused(corpus, tmp_path, monkeypatch):
    out, en = tmp_path / "m", corpus["en.txt"]
    link = tmp_path / "link.txt"
    link.symlink_to(en)
    for says, *files in [("is a folder: name the files in it", tmp_path), ("read only once", "-"), ("given twice", en, en),
                         ("given twice", en, link), ("Not a directory", en / "x"), ("too long", "x" * 300)]:
        in_both_languages(monkeypatch, says, "--out", out, *TINY, "--corpus", *files, left=out)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        in_both_languages(monkeypatch, "read only once", "--out", out, "--corpus", tmp_path / "pipe", left=out)


def test_a_file_one_may_not_read(corpus, tmp_path, monkeypatch):
    def opening(file, *args):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))
    monkeypatch.setattr(bertcourse.pieces, "open", opening, raising=False)  # root may read everything
    in_both_languages(monkeypatch, "en.txt cannot be read: Permission denied", "--out", tmp_path / "m", "--corpus", corpus["en.txt"],
                      left=tmp_path / "m")


@pytest.mark.parametrize("argv, says", [
    ([], "--out"), (["--out"], "--out"), (["--out", "m", "--corpus"], "--corpus"), (["--out", "m", "stray"], "stray"),
    (["--out", "m", "--nonsense"], "--nonsense"), (["--out", "m", "--vocab", "5"], "--vocab"),
    *[(["--out", "m", option, value], option) for option, value in [
        ("--steps", "0"), ("--steps", "many"), ("--steps", "1.5"), ("--batch-size", "0"), ("--layers", "0"), ("--hidden-size", "-1"),
        ("--heads", "0"), ("--max-length", "4"), ("--seed", "-1"), ("--lr", "0"), ("--lr", "nan"), ("--lr", "inf"), ("--lr", "fast"),
        ("--precision", "fp16"), ("--threads", "0"), ("--vocab-size", "0"), ("--dev-share", "0"), ("--dev-share", "0.6")]],
    (["--out", "m", "--vocab-size", "100"], "--vocab-size needs text of your own"),
    (["--out", "m", "--dev-share", "0.1"], "--dev-share needs text of your own"),
    (["--out", "m", "--corpus", "en.txt", "--vocab-size", "100", "--tokenizer", "t"], "leave it or --tokenizer out"),
    (["--out", "m", "--corpus", "en.txt", "--config", "absent.toml"], "no file absent.toml"),
    (["--out", "m", "--corpus", "en.txt", "--seed", "4294967296"], "seed must be"),
    (["--out", "m", "--corpus", "en.txt", "--heads", "3"], "3 heads do not divide a width of 128 evenly"),
    (["--out", "m", "--corpus", "en.txt", "--hidden-size", "4000000"], "GB of memory"),
    (["--out", "m", "--resume"], "there is no run in m to go on with"),
    (["--out", "m", "--resume", "--steps", "3"], "there is no run in m"),
])
def test_arguments_that_are_refused(corpus, tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    shutil.copy(corpus["en.txt"], "en.txt")
    refused(says, *argv, left=tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"en.txt"}


def test_folders_that_are_refused(corpus, tmp_path, monkeypatch):
    argv = [*TINY, *OURS, "--corpus", corpus["en.txt"], "--out"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for out, says in [("full", "is not empty"), ("file", "is a file"), ("file/m", "is a file, no folder can be made in it"),
                      ("nowhere", "is a file"), ("nowhere/m", "cannot be written to"), ("x" * 300, "too long")]:
        in_both_languages(monkeypatch, says, *argv, tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file", "nowhere"} and not (tmp_path / "absent").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    for out in ("empty", "new", "new/deep"):
        in_both_languages(monkeypatch, "cannot be written to (Permission denied)", *argv, tmp_path / out)
    assert not (tmp_path / "new").exists() and not list((tmp_path / "empty").iterdir())


def test_a_finished_folder_is_not_touched(run, corpus):
    out, metrics = run
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    argv = ["--out", out, "--corpus", corpus["en.txt"], corpus["zh.txt"], "--vocab-size", 900, *TINY]
    refused("is not empty", *argv)
    assert succeed(*argv, "--resume") == succeed("--out", out, "--resume") == metrics  # nothing left to do
    for says, more in [("another lr", ["--lr", 1]), ("another num_layers", ["--layers", 2]), ("another lengths", ["--max-length", 64]),
                       ("another dev_share", ["--dev-share", 0.1]), ("the corpus is not that of", ["--corpus", corpus["en.txt"]])]:
        refused(says, "--out", out, "--resume", *more)
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"task": "pretraining"}', '{"task": "pretraining", "data": "x", "recipe": {}}'])
def test_somebody_elses_metrics(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    refused("is not empty", "--out", tmp_path, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_several_processes(corpus, tmp_path, monkeypatch):
    for size in ("2", "x"):
        monkeypatch.setenv("WORLD_SIZE", size)
        in_both_languages(monkeypatch, "do not know of each other", "--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY, left=tmp_path / "m")


def test_little_disk(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_text.shutil, "disk_usage", lambda _: Namespace(free=1_000))
    in_both_languages(monkeypatch, "GB of disk", "--out", tmp_path / "m", "--corpus", corpus["en.txt"], *TINY, left=tmp_path / "m")


def test_nothing_heavy_is_imported_to_refuse(corpus, tmp_path):
    code = f"""import sys
from bertcourse.app import cli
for argv in (["--out", {str(tmp_path)!r}, "--corpus", {str(tmp_path)!r}], ["--out", {str(corpus["zh.txt"])!r}]):
    assert cli.main(["pretrain", *argv]) == 2
print([name for name in ("torch", "transformers", "matplotlib", "datasets") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n" and len(done.stderr.splitlines()) == 2


# --- what goes wrong on the way -----------------------------------------------------------------------------------

def test_divergence_leaves_nothing(corpus, tmp_path, monkeypatch):
    argv = ["--corpus", corpus["en.txt"], *OURS, *CORE, "--steps", 60, "--lr", 1e30, "--quiet", "--out"]
    in_both_languages(monkeypatch, "training diverged (step", *argv, tmp_path / "new", left=tmp_path / "new")
    (tmp_path / "mine").mkdir()
    assert "below 1e+30 (--lr)" in refused("start anew with", *argv, tmp_path / "mine")
    assert (tmp_path / "mine").is_dir() and not list((tmp_path / "mine").iterdir())


@pytest.fixture
def planted(monkeypatch):
    """Let a function be called on each loss, with how many there have been."""
    def planting(what) -> None:
        genuine, calls = bertcourse.pretraining.losses, []

        def losses(model, batch):
            calls.append(1)
            return genuine(model, batch) * (what(len(calls)) or 1)
        losses.__qualname__ = genuine.__qualname__  # a resumed run asks for the same
        monkeypatch.setattr(bertcourse.pretraining, "losses", losses)
    return planting


def test_divergence_keeps_the_best_model_before(corpus, tmp_path, planted):
    planted(lambda n: math.nan if n == 5 else 1)
    out = tmp_path / "m"
    err = refused("training diverged (step 5: the loss is nan)", "--out", out, "--corpus", corpus["en.txt"], *OURS, *TINY)
    best = out / "unfinished" / "training" / "best"
    assert f"lies in {best}" in err and "in another folder" in err
    assert AutoModelForPreTraining.from_pretrained(best).config.hidden_size == 16
    assert {path.name for path in out.iterdir()} == {"unfinished"}


@pytest.mark.parametrize("error, says", [
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "not enough memory: choose"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"), "not enough memory: choose"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"), "not enough memory: choose"),
    (MemoryError(), "not enough memory: choose"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; nothing was written"),
])
def test_a_machine_that_is_too_small(corpus, tmp_path, monkeypatch, planted, error, says):
    def fail(_):
        raise error
    planted(fail)
    in_both_languages(monkeypatch, says, "--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY, left=tmp_path / "m")


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device", "checkpoint"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),  # what torch.save says of a full disk
])
def test_a_disk_that_fills_up(corpus, tmp_path, monkeypatch, error):
    genuine, out = bertcourse.training.save_checkpoint, tmp_path / "m"

    def save(state, *args):
        if state.step == 3:
            raise error
        genuine(state, *args)
    argv = ["--corpus", corpus["en.txt"], *OURS, *TINY, "--out"]
    with monkeypatch.context() as patch:
        patch.setattr(bertcourse.training, "save_checkpoint", save)
        refused("No space left on device; ", *argv, out)
        err = refused("holds the run up to step 2", "--out", out, "--resume", "--quiet")
    assert "go on by --resume" in err and {path.name for path in out.iterdir()} == {"unfinished"}
    succeed("--out", out, "--resume")
    succeed(*argv, tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")


def test_a_bug_leaves_nothing_either(corpus, tmp_path, planted):
    def fail(_):
        raise ZeroDivisionError("a bug")
    planted(fail)
    with pytest.raises(ZeroDivisionError):
        call("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("encoding", "more", "said"), [
    ("utf-16", [], "mine.txt: read as UTF-16; --encoding changes it"), ("gb18030", [], "mine.txt: read as GB18030"),
    ("gbk", ["--encoding", "gbk"], "mine.txt: read as GBK"), ("utf-8-sig", [], "")])
def test_other_encodings(corpus, tmp_path, encoding, more, said):
    """The same text gives the same model, however it is stored."""
    text = corpus["zh.txt"].read_text(encoding="utf-8")
    (tmp_path / "mine.txt").write_bytes(text.encode(encoding))
    argv = [*OURS, *CORE, "--steps", 2]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/mine.txt").write_text(text, encoding="utf-8")
    code, out, err = call("--out", tmp_path / "m", "--corpus", tmp_path / "mine.txt", *argv, *more)
    assert code == 0 and said in err, err
    assert call("--out", tmp_path / "n", "--corpus", tmp_path / "plain/mine.txt", *argv)[0] == 0
    assert (tmp_path / "m/model.safetensors").read_bytes() == (tmp_path / "n/model.safetensors").read_bytes()


def test_a_file_that_changes_while_it_is_read(corpus, tmp_path, monkeypatch):
    genuine = bertcourse.pieces.read_text

    def read(files, encoding=None):
        yield from genuine(files, encoding)
        raise TextError("mine.txt, line 9 (byte 9): not UTF-8", "mine.txt 第 9 行")
    monkeypatch.setattr(bertcourse.pieces, "read_text", read)
    refused("mine.txt, line 9", "--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *TINY, left=tmp_path / "m")


# --- stopped and resumed ------------------------------------------------------------------------------------------

def interrupt_at(step: int, monkeypatch, how: int = signal.SIGINT) -> None:
    """Send a signal when a step has been evaluated."""
    genuine = EvaluationReport.on_eval

    def on_eval(self, state):
        genuine(self, state)
        if state.step == step:
            signal.raise_signal(how)
    monkeypatch.setattr(EvaluationReport, "on_eval", on_eval)


def rows_of(folder: Path) -> list[dict]:
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


LONG = [*CORE, "--steps", "40", "--quiet"]  # a checkpoint every other step, an evaluation every fourth


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "m"
    succeed("--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG)
    return out


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_resume(corpus, tmp_path, monkeypatch, whole, how):
    out = tmp_path / "m"
    with monkeypatch.context() as patch:
        interrupt_at(8, patch, getattr(signal, how))
        code, printed, err = call("--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG, "--json")
    assert code == 130 and err == f"bertcourse: stopped at step 8; to go on: bertcourse pretrain --out {out} --resume\n"
    assert json.loads(printed) == {"out": str(out), "task": "pretraining", "finished": False, "step": 8}
    unfinished(out, corpus)
    assert succeed("--out", out, "--resume")["steps"] == 40
    assert weights(out) == weights(whole) and rows_of(out) == rows_of(whole)
    assert {path.name for path in out.iterdir()} == FILES


def unfinished(out: Path, corpus: dict[str, Path]) -> None:
    """Check that a folder does not look finished, and that nobody can do to it what he should not."""
    assert {path.name for path in out.iterdir()} == {"unfinished"}
    with pytest.raises((OSError, ValueError)):
        AutoModelForPreTraining.from_pretrained(out)
    argv = ["--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG]
    refused("holds an unfinished run: go on with it by --resume", *argv)
    changed = corpus["zh.txt"].with_name("changed.txt")
    changed.write_text(corpus["zh.txt"].read_text(encoding="utf-8").replace("猫", "狗"), encoding="utf-8")
    for says, more in [("another seed (0, not 5)", ["--seed", 5]), ("another steps", ["--steps", 41]),
                       ("another vocab_size", ["--vocab-size", 50]), ("the corpus is not that of", ["--corpus", changed]),
                       ("another tokenizer", ["--tokenizer", vocabulary_of(out)])]:
        refused(says, "--out", out, "--resume", *more)


def vocabulary_of(out: Path) -> Path:
    """Some other tokenizer."""
    folder = out.parent / "other-tokenizer"
    return folder if folder.is_dir() else vocabulary(folder, PIECES)


def test_the_second_ctrl_c_does_not_wait(corpus, tmp_path, monkeypatch, whole):
    def twice(self, state):
        if state.step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")
    out = tmp_path / "m"
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationReport, "on_eval", twice)
        code, _, err = call("--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG)
    assert code == 130 and "stopped at step 6" in err
    succeed("--out", out, "--resume")
    assert weights(out) == weights(whole)


def test_ctrl_c_before_training(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    handler, genuine = signal.getsignal(signal.SIGINT), bertcourse.pieces.encode

    def encode(*args):
        genuine(*args)
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(bertcourse.pieces, "encode", encode)
    out = tmp_path / "new" / "m"
    code, _, err = call("--out", out, "--corpus", corpus["en.txt"], *OURS, *TINY)
    assert code == 130 and err == "bertcourse: 训练开始前就停下了：什么也没有写\n" and not out.parent.exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_the_last_step_is_too_late(corpus, tmp_path, monkeypatch, whole):
    interrupt_at(40, monkeypatch)
    succeed("--out", tmp_path / "m", "--corpus", corpus["zh.txt"], *OURS, *LONG)
    assert weights(tmp_path / "m") == weights(whole)


def killed_early(out: Path, corpus: Path) -> None:
    """Leave what a run leaves that is killed while it cuts the text into pieces."""
    spec = PretrainSpec.of(PretrainOptions(out=out, corpus=[corpus], tokenizer=asset("tiny-bert"), layers=1, hidden_size=16, heads=2,
                                           batch_size=4, max_length=32, precision="no", steps=40))
    spec.files = corpus_text.survey([corpus], 0).files
    (out / "unfinished").mkdir(parents=True)
    spec.write(out / "unfinished")
    (out / "unfinished" / ".train.half").mkdir()


def test_killed_early(corpus, tmp_path, whole):
    mine, out = tmp_path / "zh.txt", tmp_path / "m"
    shutil.copy(corpus["zh.txt"], mine)
    killed_early(out, mine)
    mine.write_text(mine.read_text(encoding="utf-8").replace("猫", "狗"), encoding="utf-8")
    refused("the corpus is not that of the run", "--out", out, "--resume")
    mine.unlink()
    refused("there is no file", "--out", out, "--resume")
    shutil.copy(corpus["zh.txt"], mine)
    succeed("--out", out, "--resume", "--threads", 1)
    assert weights(out) == weights(whole) and {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {"steps": 3}}', '{"recipe": {"nonsense": 3}}'])
def test_a_run_that_nobody_knows(tmp_path, monkeypatch, content):
    (tmp_path / "unfinished").mkdir()
    if content is not None:
        (tmp_path / "unfinished" / "run.json").write_text(content)
    in_both_languages(monkeypatch, "does not say what the run was: remove it", "--out", tmp_path, "--resume")


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_two_processes_in_one_folder(corpus, tmp_path, monkeypatch):
    import fcntl
    out = tmp_path / "m"
    killed_early(out, corpus["zh.txt"])
    with (out / "unfinished" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        in_both_languages(monkeypatch, "another process is working in", "--out", out, "--resume")
        assert (out / "unfinished" / "run.json").is_file()
    place = RunFolder(out, StopRequest(zh=False))
    (out / "metrics.json").write_text("{}")  # the other was quick
    with pytest.raises(UserError, match="has finished a model"), place:
        pass
    assert (out / "unfinished" / "run.json").is_file()


def test_killed_while_it_finishes(corpus, tmp_path, monkeypatch, whole):
    genuine, out, moved = os.replace, tmp_path / "m", []

    def replace(source, target):
        if Path(target).parent == out:
            moved.append(target)
        if len(moved) == 4:
            raise OSError(errno.EIO, "Input/output error")
        genuine(source, target)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        refused("holds the run up to step 40", "--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG)
    assert len(list(out.iterdir())) == 4 and not (out / "metrics.json").exists()
    refused("unfinished run", "--out", out, "--corpus", corpus["zh.txt"], *OURS, *LONG)
    metrics = succeed("--out", out, "--resume")
    assert weights(out) == weights(whole) and {path.name for path in out.iterdir()} == FILES
    (out / "unfinished" / "training").mkdir(parents=True)  # killed while it tidied up: all is there
    assert succeed("--out", out, "--resume") == metrics and {path.name for path in out.iterdir()} == FILES


def test_the_same_command_with_resume(corpus, tmp_path, config, monkeypatch):
    file = config(CONFIG.replace("parts = 2", "parts = 10"))  # more than steps: an epoch is a step then
    argv = ["--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, "--config", file, "--threads", 1, "--quiet", "--resume"]
    with monkeypatch.context() as patch:
        interrupt_at(2, patch)
        assert call(*argv)[0] == 130
    metrics = succeed(*argv)
    assert metrics["steps"] == 4 and succeed(*argv) == metrics


# --- processes ----------------------------------------------------------------------------------------------------

def process(*argv: object, **more: str) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1"} | more
    return subprocess.Popen([sys.executable, "-m", "bertcourse.app.cli", "pretrain", *map(str, argv)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_process_that_gets_ctrl_c(corpus, tmp_path):
    interrupted(corpus, tmp_path / "m", *CORE, "--steps", "200")


def interrupted(corpus, out: Path, *steps: str) -> None:
    """Start a run of 200 steps in a process of its own, and stop it by Ctrl-C."""
    first = process("--out", out, "--corpus", corpus["zh.txt"], *OURS, *steps)
    assert first.stderr.readline().startswith("step 20 of 200: loss ")
    first.send_signal(signal.SIGINT)
    printed, err = first.communicate(timeout=60)
    assert first.returncode == 130 and not printed and "Traceback" not in err
    at = int(re.search(r"stopped at step (\d+); to go on: bertcourse pretrain --out \S+ --resume$", err.strip())[1])
    assert 20 <= at < 200 and (out / f"unfinished/training/checkpoint-{at:08}.pt").is_file()
    unfinished(out, corpus)


# --- what is said -------------------------------------------------------------------------------------------------

def test_help_fits_on_a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = call("--help")
    lines = out.splitlines()
    assert code == 0 and not err and len(lines) <= 40 and max(map(len, lines)) <= 100
    parser, _ = cli.make_parser("pretrain")
    command = parser._subparsers._group_actions[0].choices["pretrain"]
    for action in command._actions:
        assert action.option_strings[-1] in out, action.dest


@pytest.mark.parametrize("lang, says", [("en_US.UTF-8", ["parameters, 6 steps", "held out: masked words", "model card: "]),
                                        ("zh_CN.UTF-8", ["个参数，6 步", "留出文本：掩码词", "模型卡："])])
def test_people_are_told(corpus, tmp_path, monkeypatch, lang, says):
    monkeypatch.setenv("LC_ALL", lang)
    code, out, err = call("--out", tmp_path / "m", "--corpus", corpus["en.txt"], *OURS, *CORE, "--steps", 6)
    assert code == 0 and len(out.splitlines()) == 3 and all(part in out for part in says)
    assert len(err.splitlines()) == 6 and bool(HAN.search(err)) == ("zh" in lang)
    assert call("--out", tmp_path / "q", "--corpus", corpus["en.txt"], *OURS, *TINY) == (0, "", "")


def test_the_toy_world(tmp_path, config, monkeypatch):
    monkeypatch.setattr(corpus_text, "DEV_DOCUMENTS", 10)
    file = config(CONFIG.replace('"sop"', '"nsp"') + 'languages = ["zh"]\ndocuments = 30\n')
    metrics = succeed("--out", tmp_path / "m", "--config", file, "--threads", 1, "--quiet")
    data = metrics["data"]
    assert data["files"] == [] and data["dev_share"] is None and (data["train"]["documents"], data["dev"]["documents"]) == (30, 10)
    assert "`bertcourse.corpus`, 30 × zh" in (tmp_path / "m/README.md").read_text(encoding="utf-8")
    assert 'languages = ["zh"]' in (tmp_path / "m/pretrain.toml").read_text()
    assert (tmp_path / "m/vocab.txt").read_bytes() == (asset("tiny-bert") / "vocab.txt").read_bytes()
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES


# --- from Python --------------------------------------------------------------------------------------------------

def test_the_function_does_what_the_command_does(corpus, tmp_path, whole):
    done = pretraining.pretrain(out=tmp_path / "m", corpus=str(corpus["zh.txt"]), tokenizer=asset("tiny-bert"), layers=1, hidden_size=16,
                                heads=2, batch_size=4, max_length=32, precision="no", threads=1, steps=40, quiet=True)
    assert weights(tmp_path / "m") == weights(whole) and "held out: masked words" in repr(done)
    assert done.metrics == json.loads((tmp_path / "m" / "metrics.json").read_text(encoding="utf-8"))


def test_options_of_the_function_are_checked(corpus, tmp_path):
    for says, options in [("empty list", {"corpus": []}), ("--lr must be a number above 0, not -1", {"lr": -1}),
                          ("there is no file absent", {"corpus": [corpus["en.txt"], "absent"]})]:
        with pytest.raises(UserError, match=says):
            pretraining.pretrain(out=tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()
