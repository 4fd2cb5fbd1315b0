"""Folders of `bertcourse export` that somebody edited or damaged: one sentence from every command, or a service that works."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import httpx
import onnx
import pytest
import services
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bertcourse import runtime
from bertcourse.base.display import json_of, printable
from bertcourse.jobs import serving
from bertcourse.models.exported import ExportedModel
from bertcourse.runtime import ModelError
from bertcourse.serving.settings import Settings
from bertcourse.serving.web import Service


@pytest.fixture(autouse=True, scope="module")
def surroundings(cached_exports):
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return services.export(tmp_path_factory.mktemp("folders"), "pairs", "ner", "qa", "regression")


def read(folder: Path, name: str = "bertcourse.json") -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder: Path, value, name: str = "bertcourse.json") -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def note_check_sum(folder: Path, name: str) -> None:
    "Write that a file is the right one, as it is now."
    about = read(folder)
    write(folder, about | {"files": about["files"] | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}})


def edited(folder: Path, to: Path, changes: dict) -> Path:
    "A copy with other entries in its bertcourse.json."
    made = shutil.copytree(folder, to)
    write(made, read(made) | changes)
    return made


def refused_by_all(folder: Path, says: str, monkeypatch) -> None:
    "By serve, predict and bench, in one sentence, with exit code 2."
    monkeypatch.setattr(serving, "greet", lambda *given: pytest.fail("it said that it is served"))
    for argv in (["serve", folder, "--port", "0", "--workers", "1"], ["serve", folder, "--port", "0", "--workers", "2"], ["predict", folder],
                 ["bench", folder, "--quiet"]):
        code, out, err = commands.run(*argv, stdin='{"sentence1": "a", "sentence2": "b"}\n')
        assert code == 2 and not out and says in err and len(err.splitlines()) == 1, (argv[0], err)


# --- entries of bertcourse.json -----------------------------------------------------------------------------------

ODD = [
    ({"task": ["x"]}, 'says ["x"] for task, not a name'), ({"task": "poetry"}, "no task of ours"), ({"task": None}, "for task"),
    ({"task": "ner"}, "cannot answer"), ({"task": "regression"}, "needs none"),
    ({"labels": "abc"}, 'says "abc" for labels, not a list of different names'), ({"labels": ["a", "a", "b"]}, "for labels"),
    ({"labels": ["a", 1, "b"]}, "for labels"), ({"labels": ["a", " ", "b"]}, "for labels"), ({"labels": ["a", "b"]}, "has 2 labels, model.onnx gives 3"),
    ({"labels": []}, "needs some"), ({"labels": {"a": 1}}, "for labels"),
    ({"max_length": 10**9}, "for max_length"), ({"max_length": 0}, "for max_length"), ({"max_length": -5}, "for max_length"),
    ({"max_length": "48"}, "for max_length"), ({"max_length": 48.5}, "for max_length"), ({"max_length": True}, "for max_length"),
    ({"max_length": 5000}, "says 5000 for max_length, tokenizer_config.json at most"),
    ({"sha256": 5}, "for sha256"), ({"sha256": "0" * 64}, "not the file that was exported"), ({"lang": 7}, "for lang"),
    ({"threshold": "x"}, "for threshold"), ({"threshold": float("nan")}, "for threshold"), ({"columns": ["a"]}, "for columns"),
    ({"columns": {"a": 1}}, "for columns"), ({"inputs": "sentence"}, "for inputs"), ({"inputs": [1]}, "for inputs"), ({"opset": "x"}, "for opset"),
    ({"quantisation": "dynamic"}, "for quantisation"), ({"parity": 3}, "for parity"), ({"dev": []}, "for dev"), ({"model": {}}, "for model"),
    ({"files": {"tokenizer.json": 3}}, "for files"), ({"files": {"../pairs/model.onnx": "0"}}, "model.onnx"), ({"files": {"absent": "0"}}, "holds no absent"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "says"), ODD, ids=lambda value: json.dumps(value) if isinstance(value, dict) else "")
def test_an_odd_entry_is_one_sentence(models, tmp_path, changes, says):
    with pytest.raises(ModelError) as found:
        ExportedModel(edited(models["pairs"], tmp_path / "model", changes))
    assert says in found.value.en and found.value.en.isprintable() and commands.HAN.search(found.value.zh)


@pytest.mark.parametrize("changes", [{"task": ["x"]}, {"labels": "abc"}, {"max_length": 10**9}], ids=str)
def test_every_command_says_it(models, tmp_path, monkeypatch, changes):
    refused_by_all(edited(models["pairs"], tmp_path / "model", changes), "bertcourse.json says", monkeypatch)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"task"', b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, b'{"task": 1}'])
def test_a_description_that_is_none_is_one_sentence(models, tmp_path, content):
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    (folder / "bertcourse.json").write_bytes(content)
    with pytest.raises(ModelError, match="missing or broken"):
        ExportedModel(folder)


def test_an_editor_may_add_a_byte_order_mark(models, tmp_path):
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    (folder / "bertcourse.json").write_bytes(b"\xef\xbb\xbf" + (folder / "bertcourse.json").read_bytes())
    assert ExportedModel(folder).answer([services.ASKED["pairs"]])


def test_a_folder_without_check_sums_is_one_sentence(models, tmp_path, monkeypatch):
    "Anybody could have put another tokenizer there, as a copy that was mixed up does."
    about = read(models["pairs"])
    assert set(about.pop("files")) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    write(folder, about)
    refused_by_all(folder, "bertcourse.json has no check sum of tokenizer.json: export the model again", monkeypatch)


# --- files --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_another_file_is_noticed_and_changes_the_fingerprint(models, tmp_path, monkeypatch, name):
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    before = runtime.read_about(folder).fingerprint
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    refused_by_all(folder, f"{name} is damaged or not the file that was exported", monkeypatch)
    note_check_sum(folder, name)
    assert runtime.read_about(folder).fingerprint != before


def test_the_description_is_part_of_the_fingerprint(models, tmp_path):
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    before = runtime.read_about(folder)
    assert before.fingerprint != before.sha256
    write(folder, read(folder) | {"labels": [*reversed(before.labels)]})
    assert runtime.read_about(folder).fingerprint != before.fingerprint
    (folder / "README.md").write_text("other words", encoding="utf-8")
    write(folder, read(models["pairs"]))
    runtime.read_about(folder)  # which nothing is read from


def with_external_weights(folder: Path, to: Path) -> Path:
    "A copy whose weights lie beside model.onnx, with the right check sum of that."
    made = shutil.copytree(folder, to)
    model = onnx.load(made / "model.onnx")
    (made / "model.onnx").unlink()
    onnx.save(model, made / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024)
    assert (made / "weights.bin").stat().st_size > 10_000
    write(made, read(made) | {"sha256": hashlib.sha256((made / "model.onnx").read_bytes()).hexdigest()})
    return made


def test_weights_outside_of_the_model_need_a_check_sum(models, tmp_path, monkeypatch):
    folder = with_external_weights(models["pairs"], tmp_path / "model")
    assert runtime.external_files(folder / "model.onnx") == ["weights.bin"] and runtime.external_files(models["pairs"] / "model.onnx") == []
    refused_by_all(folder, "has weights in weights.bin", monkeypatch)
    note_check_sum(folder, "weights.bin")
    asked = [services.ASKED["pairs"]]
    assert services.numbers(ExportedModel(folder).answer(asked)) == pytest.approx(services.numbers(ExportedModel(models["pairs"]).answer(asked)), abs=1e-5)
    content = bytearray((folder / "weights.bin").read_bytes())
    content[::997] = bytes(len(content[::997]))
    (folder / "weights.bin").write_bytes(content)  # swapped
    refused_by_all(folder, "weights.bin is damaged", monkeypatch)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "bertcourse.json", "config.json", "model.onnx"])
def test_a_pipe_or_a_device_is_not_waited_for(models, tmp_path, name):
    folder = shutil.copytree(models["pairs"], tmp_path / "model")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        make(folder / name)
        code = f"from bertcourse.models.exported import ExportedModel\nExportedModel({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert "ModelError" in done.stderr.splitlines()[-1] and name in done.stderr.splitlines()[-1], done.stderr


# --- whatever else somebody may write there -----------------------------------------------------------------------

VALUES = st.recursive(st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=6) |
                      st.sampled_from(["classification", "pairs", "ner", "qa", "regression", "zh", "O", "B-PER", "\x1b[31m"]),
                      lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5)  # fmt: skip
NAMES = {"bertcourse.json": [*runtime._RULES], "tokenizer_config.json": ["model_max_length", "pad_token", "do_lower_case"],
         "config.json": ["max_position_embeddings", "vocab_size", "architectures"]}
CHANGES = st.sampled_from(sorted(NAMES)).flatmap(lambda file: st.tuples(st.just(file), st.dictionaries(st.sampled_from(NAMES[file]), VALUES, min_size=1, max_size=2)))


async def works(predictor: ExportedModel, asked: dict) -> None:
    "Does a service with this model answer at every path?"
    service = Service(Settings(str(predictor.folder)), predictor)
    await service.batcher.start()
    try:
        transport = httpx.ASGITransport(service.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in ("model", "openapi.json", "docs", "metrics", "health"):
                answer = await client.get("/" + path)
                assert answer.status_code == 200, (path, answer.text)
            texts = {name: asked.get(name, "good " * 60) for name in predictor.required}
            for body in (texts, {name: [text, "a"] for name, text in texts.items()}):
                answer = await client.post("/predict", json=body)
                assert answer.status_code == 200, answer.text
    finally:
        await service.batcher.stop()


@pytest.mark.parametrize("kind", ["pairs", "ner", "qa", "regression"])
def test_any_edit_is_one_sentence_or_a_service_that_works(models, tmp_path, kind):
    source = models[kind]
    folder = shutil.copytree(source, tmp_path / "model")

    @given(CHANGES)
    @examples(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    def edit(change):
        file, values = change
        for name in NAMES:
            shutil.copyfile(source / name, folder / name)
        write(folder, read(folder, file) | values, file)
        if file != "bertcourse.json":
            note_check_sum(folder, file)  # so that it is read, not only compared
        try:
            predictor = ExportedModel(folder)
        except ModelError as error:
            assert "\n" not in error.en and "\n" not in error.zh
            code, out, err = commands.run("predict", folder, stdin="a line\n")
            assert code == 2 and not out and len(err.splitlines()) == 1 and err[:-1].isprintable(), err
            return
        asyncio.run(works(predictor, services.ASKED[kind]))
        assert commands.run("predict", folder, stdin="a line\n")[0] in (0, 2)
    edit()


# --- names that would move a terminal's cursor ---------------------------------------------------------------------

EVIL = "a\x1b[31mb\x9bc\u202ed\re"
SAFE = r"a\x1b[31mb\x9bc\u202ed\re"


def test_names_are_shown_with_escapes(models, tmp_path, monkeypatch):
    for argv in (["serve", tmp_path / EVIL, "--port", "0"], ["predict", tmp_path / EVIL, tmp_path / EVIL], ["bench", tmp_path / EVIL],
                 ["export", tmp_path / EVIL, "--out", tmp_path / "out"], ["predict", tmp_path, "--" + EVIL],
                 ["finetune", "--task", "ner", "--model", "tiny", "--train", tmp_path / EVIL, "--out", tmp_path / "out"]):
        code, out, err = commands.run(*argv, stdin="")
        assert code == 2 and not out and SAFE in err and err[:-1].isprintable(), err
    folder = shutil.copytree(models["pairs"], tmp_path / EVIL)
    monkeypatch.setattr("bertcourse.serving.server.run_alone", lambda *given: None)
    code, out, err = commands.run("serve", folder, "--port", "0", "--workers", "1")
    assert code == 0 and SAFE in err and "\x1b" not in err
    about = read(folder)
    write(folder, about | {"labels": [EVIL, *about["labels"][1:]]})
    code, out, err = commands.run("predict", folder, "--scores", stdin="a text\tanother\n")
    assert code == 0 and out[:-1].isprintable() and EVIL in json.loads(out)["scores"]
    code, out, err = commands.run("bench", folder, "--lengths", "8", "--batches", "1")
    assert code == 0 and SAFE in out and "\x1b" not in out + err


def test_what_does_not_show_is_escaped_and_nothing_else():
    assert printable(EVIL) == SAFE and printable("中文　名 é.txt") == "中文　名 é.txt" and printable("a\nb", keep="\n") == "a\nb"
    assert printable("\udce9") == r"\udce9"
    value = {EVIL: [EVIL, "中文\u2028", 1.5]}
    assert json.loads(json_of(value)) == value and json_of(value).isprintable() and "中文" in json_of(value)
    assert json.loads(json_of(value, indent=1)) == value
