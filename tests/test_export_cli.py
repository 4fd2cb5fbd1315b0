"""`bertcourse export`, and what `predict` and `bench` make of its folders; one sentence for whatever stands in the way."""

import json
import os
import shutil
from pathlib import Path

import commands
import numpy as np
import onnx
import pytest
import services
import torch
import transformers
from test_finetune import TASKS, text_of

from bertcourse import deployment, jobs, runtime
from bertcourse.base.errors import UserError
from bertcourse.base.machine import Processor
from bertcourse.corpus_tasks import examples
from bertcourse.jobs import benchmarking, exporting
from bertcourse.models import kinds, load

EXPORT, BENCH = commands.Training("export"), commands.Training("bench")
call, succeed, refused, in_both_languages = EXPORT.call, EXPORT.succeed, EXPORT.refused, EXPORT.in_both_languages


@pytest.fixture(autouse=True, scope="module")
def surroundings(cached_exports):
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    "A fine-tuned folder for each task; their heads know nothing, but say something."
    folder = tmp_path_factory.mktemp("models")
    return {kind: services.checkpoint(folder / kind[0], kind) for kind in services.HEADS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    "A labelled file for each task."
    folder, made = tmp_path_factory.mktemp("data"), {}
    for task, (toy, ending, _) in TASKS.items():
        made[task] = folder / f"{task}.{ending}"
        made[task].write_text(text_of(toy, list(examples(toy, 24, split="validation"))), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def exported(models, data, tmp_path_factory) -> dict[str, Path]:
    "Each task's model in INT8, and the classifier in FP32."
    folder = tmp_path_factory.mktemp("exported")
    for task, model in reversed(models.items()):  # another worker may begin with the first: see `services.export`
        succeed(model, "--out", folder / task, "--int8", "dynamic", "--dev", data[task])
    succeed(models["classification"], "--out", folder / "fp32")
    return {name: folder / name for name in (*models, "fp32")}


def inputs(task: str, n: int = 12) -> list[dict]:
    columns = {"classification": ("sentence",), "ner": ("tokens",), "qa": ("question", "context")}.get(task, ("sentence1", "sentence2"))
    return [{name: row[name] for name in columns} for row in examples(TASKS[task][0], n, split="test")]


def said(*argv, rows) -> list[dict]:
    code, out, err = commands.run("predict", *argv, stdin="".join(json.dumps(row) + "\n" for row in rows))
    assert code == 0 and not err, err
    return [json.loads(line) for line in out.splitlines()]


# --- the folder ---------------------------------------------------------------------------------------------------

def test_the_folder_holds_what_it_promises(exported, models):
    for task, folder in exported.items():
        assert {p.name for p in folder.iterdir()} == {"model.onnx", "bertcourse.json", "README.md", "config.json", "tokenizer.json",
                                                      "tokenizer_config.json"}
        about = runtime.read_about(folder)
        assert about.parity["worst"] < 1e-4 and about.parity["lengths"] == [1, 48] and about.opset >= 18
        assert (about.quantisation is None) == (task == "fp32")
        onnx.checker.check_model(onnx.load(folder / "model.onnx"))
    about = runtime.read_about(exported["qa"])
    assert about.threshold == -100.0 and about.task == "qa" and about.inputs == ["question", "context"]
    about = runtime.read_about(exported["classification"])
    assert about.labels == tuple(services.CLASSES) and about.dev["rows"] == 24 and about.dev["agree"] > 0.9
    assert not list(exported["fp32"].parent.glob(".*")), "nothing is left behind"


def test_the_files_are_the_sizes_of_their_weights(exported):
    big, small = ((exported[name] / "model.onnx").stat().st_size for name in ("fp32", "classification"))
    assert 3 < big / small < 4.2


@pytest.mark.parametrize("task", ["classification", "pairs", "regression", "ner", "qa"])
def test_predictions_are_those_of_the_checkpoint(models, exported, task):
    rows = inputs(task)
    before, after = (said(folder[task], rows=rows) for folder in (models, exported))
    assert [row.keys() for row in before] == [row.keys() for row in after]
    if task == "ner":  # of a head that knows nothing
        tags = [(x, y) for a, b in zip(before, after, strict=True) for x, y in zip(a["tags"], b["tags"], strict=True)]
        assert np.mean([x == y for x, y in tags]) > 0.85
    elif task == "regression":
        first, second = ([row["score"] for row in rows] for rows in (before, after))
        assert first != second and np.corrcoef(first, second)[0, 1] > 0.95
    else:
        name = "answer" if task == "qa" else "label"
        assert np.mean([a[name] == b[name] for a, b in zip(before, after, strict=True)]) > 0.7
        assert before != after, "in 8 bits"


def test_fp32_says_the_same_to_the_digit_almost(models, exported):
    rows = inputs("classification")
    before, after = (said(folder, "--scores", rows=rows) for folder in (models["classification"], exported["fp32"]))
    for a, b in zip(before, after, strict=True):
        assert a["label"] == b["label"] and a["scores"] == pytest.approx(b["scores"], abs=2e-5)


def test_the_other_runtime_says_the_same(exported):
    pytest.importorskip("openvino")
    rows = inputs("classification")
    first, second = (said(exported["fp32"], "--runtime", name, rows=rows) for name in ("ort", "openvino"))
    assert [row["label"] for row in first] == [row["label"] for row in second]


def test_long_texts_are_seen_through_windows(models, exported):
    rows = [{"tokens": ["Anna", "lives", "in", "Paris", "."] * 30}]
    before, after = (said(folder["ner"], rows=rows)[0] for folder in (models, exported))
    assert len(after["tags"]) == 150 == len(before["tags"])


def test_a_file_whose_name_is_not_utf8_is_scored(models, data, tmp_path):
    dev = tmp_path / os.fsdecode("验证.jsonl".encode("gbk"))
    try:
        shutil.copyfile(data["classification"], dev)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 only")
    report = succeed(models["classification"], "--out", tmp_path / "out", "--dev", dev)
    assert report["dev"]["rows"] == 24 and "\ufffd" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_static_quantisation_reads_texts_without_labels(models, data, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps(row) + "\n" for row in inputs("classification", 40)))
    report = succeed(models["classification"], "--out", tmp_path / "out", "--int8", "static", "--calibrate", texts, "--dev", data["classification"])
    assert report["about"]["quantisation"]["calibration"] == {"file": "texts.jsonl", "rows": 40} and report["dev"]["agree"] > 0.8
    found = deployment.operators(tmp_path / "out/model.onnx")
    assert found["QuantizeLinear"] and not found["DynamicQuantizeLinear"]
    assert "static" in (tmp_path / "out/README.md").read_text()


def test_a_family_without_segments(tmp_path):
    config = transformers.DistilBertConfig(vocab_size=2000, dim=24, n_layers=1, n_heads=3, hidden_dim=32, max_position_embeddings=64, num_labels=2)
    from bertcourse.corpus import load_tokenizer
    tokenizer = load_tokenizer()
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    succeed(tmp_path / "model", "--out", tmp_path / "out")
    session = runtime.Session(tmp_path / "out/model.onnx")
    assert set(session.inputs) == {"input_ids", "attention_mask"}
    rows = inputs("classification")
    assert [r["label"] for r in said(tmp_path / "model", rows=rows)] == [r["label"] for r in said(tmp_path / "out", rows=rows)]


# --- --max-drop, --force ------------------------------------------------------------------------------------------

def test_a_model_that_loses_too_much_is_not_written(models, data, tmp_path, monkeypatch):
    real = deployment.quantize

    def ruin(source, target, **kw):
        "Quantised, and then its head turned around."
        real(source, target, **kw)
        model = onnx.load(target)
        last = model.graph.node[-1]
        last.output[0] = "turned"
        model.graph.node.append(onnx.helper.make_node("Neg", ["turned"], ["logits"]))
        onnx.save(model, target)
        return target

    labels = said(models["classification"], rows=[{"sentence": row["sentence"]} for row in examples("sentiment", 24, split="validation")])
    rows = [{"sentence": row["sentence"], "label": p["label"]} for row, p in zip(examples("sentiment", 24, split="validation"), labels)]
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(json.dumps(row) + "\n" for row in rows))  # on which the model is always right
    monkeypatch.setattr(deployment, "quantize", ruin)
    options = (models["classification"], "--out", tmp_path / "out", "--int8", "dynamic", "--dev", dev, "--max-drop", "0.5")
    in_both_languages(monkeypatch, "more than --max-drop", *options, left=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["dev.jsonl"]
    report = succeed(*options[:-2])
    assert report["dev"]["became_wrong"] > 10 and report["dev"]["p"] < 0.01 and report["dev"]["before"]["accuracy"] == 1.0


# --- the processor ------------------------------------------------------------------------------------------------

SKYLAKE = Processor("a Xeon", "GenuineIntel", 6, 85, 4, "Skylake-SP", ("avx2", "avx512f"))
ZEN4 = Processor("an EPYC", "AuthenticAMD", 25, 17, 1, "Zen 4", ("avx2", "avx512f", "avx512_vnni"))


def largest_weight(folder: Path) -> int:
    "Of those in 8 bits."
    graph = onnx.load(folder / "model.onnx").graph
    return max(abs(onnx.numpy_helper.to_array(w).astype(int)).max() for w in graph.initializer if w.data_type == onnx.TensorProto.INT8)


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_weights_in_7_bits(models, data, tmp_path, method):
    more = ("--calibrate" if method == "static" else "--dev", data["ner"])
    report = succeed(models["ner"], "--out", tmp_path / "out", "--int8", method, "--reduce-range", *more)
    assert report["about"]["quantisation"]["reduce_range"] is True
    assert largest_weight(tmp_path / "out") == 64 and 2 * 255 * 64 < 2**15, "two products of the largest numbers fit 16 bits"
    assert "weights in 7 bits" in (tmp_path / "out/README.md").read_text()
    assert said(tmp_path / "out", rows=inputs("ner"))


@pytest.mark.parametrize("found, options, warns", [
    (SKYLAKE, ("--int8", "dynamic"), True), (SKYLAKE, ("--int8", "dynamic", "--reduce-range"), False), (SKYLAKE, (), False),
    (ZEN4, ("--int8", "dynamic"), False),
])  # fmt: skip
def test_a_processor_that_overflows_is_named(models, data, tmp_path, monkeypatch, found, options, warns):
    monkeypatch.setattr(exporting, "processor", lambda: found)
    code, _, err = call(models["ner"], "--out", tmp_path / "out", *options)
    assert code == 0 and ("warning: a Xeon (Skylake-SP) has no VNNI" in err) == warns, err
    about = json.loads((tmp_path / "out/bertcourse.json").read_text())
    assert about["processor"]["name"] == str(found) and about["processor"]["flags"] == list(found.flags)
    shows_nothing = "this shows nothing for a processor with other 8-bit instructions (x86 without VNNI)"
    assert (shows_nothing in err) == (shows_nothing in (tmp_path / "out/README.md").read_text()) == (options == ("--int8", "dynamic"))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    err = call(models["ner"], "--out", tmp_path / "zh", *options)[2]
    assert ("警告：a Xeon (Skylake-SP) 没有 VNNI" in err) == warns


def test_what_helps_a_model_that_loses_too_much(models, data, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "points_lost", lambda dev: 9.0)
    for found, hint in ((SKYLAKE, "try --reduce-range, or FP32"), (ZEN4, "try --int8 static, or FP32")):
        monkeypatch.setattr(exporting, "processor", lambda found=found: found)
        refused(hint, models["ner"], "--out", tmp_path / "out", "--int8", "dynamic", "--dev", data["ner"], "--max-drop", 1, left=tmp_path / "out")


def test_force_replaces_an_exported_model_and_nothing_else(models, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported["classification"], out)
    in_english = refused("exists", models["classification"], "--out", out)
    assert "--force" in in_english
    succeed(models["classification"], "--out", out, "--force")
    assert runtime.read_about(out).quantisation is None and [p.name for p in tmp_path.iterdir()] == ["out"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    refused("--force does not replace it", models["classification"], "--out", other, "--force")
    refused("--force does not replace it", models["classification"], "--out", models["classification"], "--force")
    assert (other / "thesis.tex").read_text() == "years" and (models["classification"] / "model.safetensors").exists()


def test_a_failure_keeps_what_was_there(models, exported, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(exported["classification"], out)
    before = (out / "model.onnx").read_bytes()
    monkeypatch.setattr(deployment, "verify", lambda *args, **kw: deployment.Parity(1, 1, (1, 1), 1.0, "logits", 0.0, 1e-4, ("planted",)))
    refused("does not answer as before: planted", models["classification"], "--out", out, "--force")
    assert (out / "model.onnx").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_sentence(models, tmp_path, monkeypatch):
    def full(*args, **kw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_json", full)
    refused("No space left", models["classification"], "--out", tmp_path / "out", left=tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- refusals -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, said", [
    (["--reduce-range"], "--int8"), (["--int8", "static"], "--calibrate"), (["--calibrate", "DATA"], "--int8 static"), (["--int8", "dynamic", "--max-drop", "1"], "--dev"),
    (["--dev", "DATA", "--max-drop", "1"], "--int8"), (["--int8", "static", "--calibrate", "absent.txt"], "is not there"),
    (["--dev", "FOLDER"], "is a folder"), (["--int8", "fp4"], "invalid choice"), (["--max-drop", "-1"], "must be a number"),
    (["--int8", "dynamic", "--dev", "DATA", "--columns", "sentence=absent"], "absent"),
])  # fmt: skip
def test_options_that_do_not_fit(models, data, tmp_path, options, said):
    known = {"DATA": data["classification"], "FOLDER": tmp_path}
    refused(said, models["classification"], "--out", tmp_path / "out", *(known.get(o, o) for o in options), left=tmp_path / "out")


def test_models_that_cannot_be_exported(models, exported, tmp_path, monkeypatch):
    out = tmp_path / "out"
    in_both_languages(monkeypatch, "is no checkpoint", tmp_path, "--out", out, left=out)
    in_both_languages(monkeypatch, "an exported model already", exported["fp32"], "--out", out, left=out)
    refused("not fine-tuned", "tiny", "--out", out, left=out)
    odd = tmp_path / "odd"
    shutil.copytree(models["classification"], odd)
    (odd / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    refused("model_type 'gpt2'", odd, "--out", out, left=out)
    weights = tmp_path / "cut"
    shutil.copytree(models["classification"], weights)
    file = weights / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused("damaged", weights, "--out", out, left=out)


def test_data_of_another_task(models, data, tmp_path):
    refused("", models["classification"], "--out", tmp_path / "out", "--dev", data["ner"], left=tmp_path / "out")
    other = tmp_path / "other.tsv"
    other.write_text("sentence\tlabel\nfine\tgreen\nbad\tblue\n")
    refused("other.tsv", models["classification"], "--out", tmp_path / "out", "--dev", other, left=tmp_path / "out")


def spoil(folder: Path, to: Path, how: str) -> Path:
    "A copy of an exported folder with one fault."
    shutil.copytree(folder, to)
    file = to / "model.onnx"
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif how == "no description":
        (to / "bertcourse.json").unlink()
    elif how == "no tokenizer":
        (to / "tokenizer.json").unlink()
    else:
        model = onnx.load(file)
        for put in model.graph.input:
            put.name = put.name.replace("attention_mask", "mask")
        for node in model.graph.node:
            node.input[:] = ["mask" if name == "attention_mask" else name for name in node.input]
        onnx.save(model, file)
        import hashlib
        about = json.loads((to / "bertcourse.json").read_text())
        (to / "bertcourse.json").write_text(json.dumps(about | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    return to


@pytest.mark.parametrize("how, says", [("cut", "damaged"), ("no description", "missing or broken"), ("no tokenizer", "no tokenizer"),
                                       ("other inputs", "takes input_ids, mask")])  # fmt: skip
def test_spoilt_folders_are_refused(exported, tmp_path, monkeypatch, how, says):
    bad = spoil(exported["fp32"], tmp_path / "bad", how)
    code, out, err = commands.run("predict", bad, stdin="a text\n")
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1, err
    BENCH.in_both_languages(monkeypatch, says, bad, "--lengths", "4", "--batches", "1")


def test_runtime_is_for_exported_models(models):
    code, out, err = commands.run("predict", models["classification"], "--runtime", "ort", stdin="a text\n")
    assert code == 2 and "--runtime is for exported models" in err and not out


# --- bench --------------------------------------------------------------------------------------------------------

@pytest.fixture
def short_samples(monkeypatch):
    "How long a sample takes is not what is tested."
    monkeypatch.setattr(benchmarking, "SAMPLE", 1e-3)


@pytest.mark.usefixtures("short_samples")
def test_bench_measures_every_pair(models, exported, data, tmp_path):
    pytest.importorskip("openvino")
    out = tmp_path / "found.json"
    found = BENCH.succeed(models["classification"], exported["fp32"], exported["classification"], "--lengths", "4,8", "--batches", "1,2",
                          "--threads", "1,2", "--runtimes", "ort,openvino", "--rounds", "7", "--dev", data["classification"], "--out", out)
    assert json.loads(out.read_text()) == found and out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert len(list(tmp_path.iterdir())) == 2
    names = [(m["model"], m["runtime"]) for m in found["models"]]
    assert names == [("c", "pytorch"), ("fp32", "ort"), ("fp32", "openvino"), ("classification", "ort"), ("classification", "openvino")]
    assert len(found["results"]) == 2 * 2 * 2 * 5
    for row in found["results"]:
        assert row["ms"] > 0 and len(row["ms_of_rounds"]) == 7
        base = next(r for r in found["results"] if all(r[k] == row[k] for k in ("threads", "batch", "length")) and r["runtime"] == "pytorch")
        assert row["ratio"] == pytest.approx(base["ms"] / row["ms"])
    scores = found["dev"]["models"]
    assert scores[0]["scores"] == scores[1]["scores"] and scores[0]["agree"] == scores[1]["agree"] == 1.0


@pytest.mark.usefixtures("three_threads")
def test_bench_gives_pytorch_the_threads_that_it_names(models, monkeypatch):
    import torch
    found = []

    def race(entries, size, length, rounds):
        found.append(torch.get_num_threads())
        return []
    monkeypatch.setattr(benchmarking, "race", race)
    jobs.bench(models["classification"], threads=[2, 4], lengths=[4], batches=[1], quiet=True)
    assert found == [2, 4], "small model or not"
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("short_samples")
def test_bench_prints_a_table_in_both_languages(exported, monkeypatch):
    code, out, _ = BENCH.call(exported["fp32"], exported["classification"], "--lengths", "4", "--batches", "1")
    assert code == 0 and out.startswith("times as fast") and "fp32 (ort)" in out and "1.00" in out
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, out, _ = BENCH.call(exported["fp32"], "--lengths", "4", "--batches", "1")
    assert code == 0 and out.startswith("倍速")


@pytest.mark.parametrize("options, says", [
    (["--lengths", "0"], "--lengths"), (["--lengths", "8,8"], "each once"), (["--batches", "many"], "--batches"), (["--threads", ""], "--threads"),
    (["--rounds", "3"], "--rounds"), (["--runtimes", "tensorrt"], "no runtime 'tensorrt'"), (["--lengths", "500"], "at most"),
    (["--out", "no/such/folder/x.json"], "there is no folder"), (["--out", "x.png"], "cannot be the JSON"), (["--dev", "absent.tsv"], "is not there"),
])  # fmt: skip
def test_bench_refuses(exported, options, says):
    BENCH.refused(says, exported["fp32"], *options)


def test_bench_refuses_models_that_cannot_be_compared(models, exported, data, monkeypatch, tmp_path):
    BENCH.in_both_languages(monkeypatch, "given twice", exported["fp32"], exported["fp32"])
    BENCH.in_both_languages(monkeypatch, "models of the same task", exported["fp32"], exported["ner"], "--dev", data["classification"], "--lengths", "4")
    BENCH.refused("is no checkpoint", exported["fp32"], tmp_path)


def test_the_command_knows_the_library_s_runtimes():
    assert kinds.RUNTIMES == tuple(runtime.RUNTIMES)


# --- the functions ------------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("short_samples")
def test_functions_take_rows_in_memory(models, tmp_path, capsys):
    rows = [{"sentence": row["sentence"], "label": services.CLASSES[row["label"]]} for row in examples("sentiment", 24, split="validation")]
    done = jobs.export(models["classification"], out=tmp_path / "out", int8="static", calibrate=rows, dev=rows, quiet=True)
    assert done.folder == tmp_path / "out" and str(done).startswith(f"{tmp_path / 'out'}: BertForSequenceClassification, INT8 static")
    about = json.loads((tmp_path / "out/bertcourse.json").read_text(encoding="utf-8"))
    assert done.report["about"] == about and about["dev"]["rows"] == about["quantisation"]["calibration"]["rows"] == 24
    assert done.load().predict("a good film")["label"] in services.CLASSES
    found = jobs.bench(tmp_path / "out", lengths="4", batches=(1,), dev=rows, quiet=True)
    assert found["dev"]["models"][0]["scores"] == about["dev"]["after"] and [row["ratio"] for row in found["results"]] == [1.0]
    assert capsys.readouterr() == ("", "")


def test_functions_refuse_in_the_command_s_words(models, exported, tmp_path):
    with pytest.raises(UserError, match="^--int8 must be one of dynamic, static, not 'fp4'$"):
        jobs.export(models["ner"], out=tmp_path / "out", int8="fp4")
    with pytest.raises(UserError, match="^--runtimes knows no runtime 'tensorrt'"):
        jobs.bench([exported["fp32"]], runtimes=["tensorrt"])
    with pytest.raises(UserError, match="given twice"):
        jobs.bench([exported["fp32"], str(exported["fp32"])])


def test_a_bare_graph_is_no_exported_model(exported, tmp_path):
    "Such as `bertcourse.deployment.export` writes."
    shutil.copyfile(exported["fp32"] / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(UserError, match="export the model again with `bertcourse export`, which writes it"):
        load(str(tmp_path))
