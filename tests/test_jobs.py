"""The commands as Python functions: rows in memory, results, interruptions, and one definition of every option."""

import inspect
import re
import signal
from pathlib import Path
from types import MappingProxyType

import commands
import numpy
import pytest

from bertcourse import jobs
from bertcourse.app import cli
from bertcourse.app.options import help_texts, parameter_comments
from bertcourse.base.errors import UserError
from bertcourse.jobs.options import Columns, Labels, Layers, Numbers, Or, Real, Refused, Whole, Words, rules

ROOT = Path(__file__).parents[1]
WITH_OPTIONS = {"pretrain": "PretrainOptions", "finetune": "FinetuneOptions", "distill": "DistillOptions"}
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def reviews() -> dict:
    from bertcourse.corpus_tasks import dataset
    return dataset("sentiment", "en", {"train": 80, "test": 24})


def as_records(rows) -> list[dict]:
    """Rows with labels as names."""
    names = rows.features["label"].names
    return [{"sentence": row["sentence"], "label": names[row["label"]]} for row in rows]


# --- the page's example -------------------------------------------------------------------------------------------

def example_of(path: Path) -> str:
    """The Python example of a document, between the marks that name it."""
    text = path.read_text(encoding="utf-8")
    return re.search(r"<!-- jobs -->\n```python\n(.*?)```", text, re.S)[1]


@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, reviews, document):
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train.tsv", reviews["train"]), ("dev.tsv", reviews["test"])):
        lines = [f"{row['sentence']}\t{row['label']}" for row in as_records(rows)]
        Path(name).write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    served = []
    monkeypatch.setattr("bertcourse.jobs.serving.serve", lambda folder, **options: served.append((folder, options)))
    code = example_of(ROOT / document).replace("epochs=3", "epochs=1")
    names: dict = {}
    exec(compile(code, document, "exec"), names)
    assert names["teacher"].metrics["dev"]["accuracy"] >= 0 and names["student"].comparison["parameters"]["ratio"] < 1
    assert names["onnx"].report["dev"]["agree"] > 0.5 and names["answer"]["label"] in names["teacher"].metrics["labels"]
    assert served == [("fast", {"port": 8000})]


@pytest.mark.check
def test_the_page_shows_the_same_example():
    import json
    page = json.loads((ROOT / "nbs/04_1_tasks.ipynb").read_text(encoding="utf-8"))
    cells = {cell["id"]: "".join(cell["source"]) for cell in page["cells"]}
    for cell, document in (("recap-en", "README.md"), ("recap-zh", "README.zh.md")):
        assert example_of(ROOT / document) in cells[cell]


# --- rows in memory -----------------------------------------------------------------------------------------------

def test_rows_in_memory_are_rows_of_a_file(tmp_path, reviews):
    import json

    import pandas
    records = as_records(reviews["train"])
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    found = []
    for number, source in enumerate([file, str(file), records, reviews["train"], pandas.DataFrame(records)]):
        done = jobs.finetune("classification", source, model="tiny", steps=2, precision="no", out=tmp_path / str(number), quiet=True)
        found.append(((done.folder / "model.safetensors").read_bytes(), done.metrics["labels"], done.metrics["files"][0]["name"]))
    assert all(one == found[0] for one in found)


def test_tags_and_answers_in_memory(tmp_path):
    from bertcourse.corpus_tasks import dataset
    for task in ("ner", "qa"):
        rows = dataset(task, "en", {"train": 20})["train"]
        done = jobs.finetune(task, rows, model="tiny", steps=1, precision="no", out=tmp_path / task, quiet=True)
        assert done.metrics["task"] == task and done.metrics["data"]["rows"]["train"] == 18


@pytest.mark.parametrize("source, says", [
    ([1, 2], "train, row 1 is int: give a mapping"),
    ({"sentence": "a"}, "train is dict: give a file, a list of dicts"),
    (3, "train is int"),
    ([{"sentence": "a", "label": object()}], "train, row 1 cannot be written as JSON"),
    ([{"sentence": "a", "label": "\ud800"}] * 3, "train, row 1 cannot be written as JSON"),
    ([{"sentence": "a"}], "train.jsonl, line 1: no column 'label'"),
    ([], "train has no rows: give some"),
])
def test_rows_that_are_refused(tmp_path, source, says):
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        jobs.finetune("classification", source, model="tiny", out=tmp_path / "m", quiet=True)
    assert HAN.search(caught.value.zh) and not (tmp_path / "m").exists()


def test_several_splits_are_refused(tmp_path, reviews):
    with pytest.raises(UserError, match=r"train is a DatasetDict of several splits: give one of them, such as \['train'\]"):
        jobs.finetune("classification", reviews, model="tiny", out=tmp_path / "m", quiet=True)


# --- values -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, says", [
    ({"epochs": 0}, "--epochs must be a whole number from 1 on, not 0"), ({"epochs": 1.5}, "--epochs must be a whole number"),
    ({"epochs": True}, "--epochs must be"), ({"lr": "fast"}, "--lr must be a number above 0, or auto, not 'fast'"), ({"lr": float("nan")}, "--lr must be"),
    ({"dropout": 1.0}, "--dropout must be a number from 0 to below 1"), ({"precision": "fp16"}, "--precision must be one of no, bf16, auto"),
    ({"columns": "sentence"}, "--columns must be like"), ({"epochs": 1, "steps": 2}, "--steps: not allowed with argument --epochs"),
    ({"task": "parsing"}, "--task must be one of"), ({"train": None}, "--train must be given"), ({"max_length": "long"}, "or auto, not 'long'"),
])
def test_values_that_are_refused_in_the_words_of_the_command(tmp_path, options, says):
    given = {"task": "classification", "train": [{"sentence": "a", "label": "b"}], "model": "tiny", "quiet": True} | options
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        jobs.finetune(**given, out=tmp_path / "m")
    assert HAN.search(caught.value.zh)


STORED = [  # a rule, what a call gives, what a job stores
    (Layers(), "2,4,6", [2, 4, 6]), (Layers(), (2, 4), [2, 4]), (Layers(), numpy.array([2, 4]), [2, 4]), (Layers(), "none", "none"),
    (Labels(), "bad,good", ["bad", "good"]), (Labels(), '["a,b", "c"]', ["a,b", "c"]), (Labels(), ("bad", "good"), ["bad", "good"]),
    (Columns(), "sentence=review,label=3", {"sentence": "review", "label": "3"}), (Columns(), MappingProxyType({"a": "b"}), {"a": "b"}),
    (Numbers(4096), "32,128", [32, 128]), (Numbers(4096), numpy.array([32, 128]), [32, 128]), (Numbers(4096), range(1, 3), [1, 2]),
    (Words("ort", "openvino"), "ort,openvino", ["ort", "openvino"]), (Words("ort", "openvino"), ("ort",), ["ort"]),
    (Whole(0), numpy.int64(3), 3), (Whole(0, 9), numpy.uint8(9), 9), (Real(0), numpy.float32(0.5), 0.5), (Real(0), 1, 1.0),
    (Or("auto", Real(0)), numpy.float64(0.25), 0.25), (Or("auto", Whole(1)), numpy.int32(8), 8), (Or("auto", Whole(1)), "auto", "auto"),
]


@pytest.mark.parametrize("rule, value, stored", STORED)
def test_values_are_stored_as_python_s_own(rule, value, stored):
    import json
    found = rule.check(value)
    assert found == stored and type(found) is type(stored) and json.dumps(found) == json.dumps(stored)


@pytest.mark.parametrize("rule, value", [
    (Whole(0), True), (Whole(0), numpy.True_), (Whole(0), "3"), (Whole(0), 3.0), (Whole(0), None), (Real(0), "0.5"), (Real(0), False), pytest.param(Real(0), 10**400, id="too large"),
    (Layers(), "2,0"), (Layers(), "two"), (Layers(), [True]), (Layers(), ["2"]), (Layers(), 2), (Layers(), []), (Layers(), ""), (Labels(), "bad"),
    (Labels(), "bad,bad"), (Labels(), "["), (Columns(), "sentence"), (Columns(), "a=b,a=c"), (Columns(), ["a=b"]), (Numbers(16), "8,8"), (Numbers(16), "8,32"),
    (Numbers(16), [8, numpy.int64(8)]), (Numbers(16), (n for n in [8])), (Words("ort"), "ort,foo"), (Words("ort"), []), (Or("auto", Whole(1)), "8"),
])  # fmt: skip
def test_other_values_are_refused(rule, value):
    with pytest.raises(Refused):
        rule.check(value)


def test_texts_of_the_command_line_in_a_call():
    from bertcourse.jobs.benchmarking import BenchOptions
    from bertcourse.jobs.distill_options import DistillOptions
    found = DistillOptions(init_layers="2,4,6", labels="bad,good", columns="sentence=review")
    assert (found.init_layers, found.labels, found.columns) == ([2, 4, 6], ["bad", "good"], {"sentence": "review"})
    assert BenchOptions(models=["m"], lengths="32,128", rounds=9).lengths == [32, 128]
    with pytest.raises(UserError, match="^--init-layers must be like 2,4,6, counted from 1, or none, not '2,x'$"):
        DistillOptions(init_layers="2,x")


def test_numbers_of_numpy(tmp_path, reviews):
    import json
    for seed in numpy.arange(1, 2):
        done = jobs.finetune("classification", as_records(reviews["train"]), model="tiny", steps=numpy.int32(1), warmup=numpy.float32(0.5), seed=seed,
                             precision="no", out=tmp_path / f"{seed}", quiet=True)
    settings = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["seed"], settings["steps"], settings["warmup"]) == (1, 1, 0.5)


# --- threads and memory -------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("three_threads")
def test_a_job_leaves_the_threads_of_the_process(tmp_path, monkeypatch, reviews):
    import torch

    import bertcourse.training
    from bertcourse.jobs import predicting
    rows, inside, record, write = as_records(reviews["train"]), [], bertcourse.training.State.record, predicting.write_predictions
    monkeypatch.setattr(bertcourse.training.State, "record", lambda *given: (inside.append(torch.get_num_threads()), record(*given))[1])
    monkeypatch.setattr(predicting, "write_predictions", lambda *given: (inside.append(torch.get_num_threads()), write(*given))[1])
    settings = {"steps": 1, "precision": "no", "quiet": True}
    done = jobs.finetune("classification", rows, model="tiny", out=tmp_path / "m", **settings)
    jobs.distill(str(done.folder), student={"num_hidden_layers": 1}, train=rows, method="kd", out=tmp_path / "s", **settings)
    jobs.predict(done.folder, rows[:2])
    jobs.augment(rows[:2], task="classification", model="tiny", n=1, quiet=True)
    assert set(inside) == {1} and len(inside) >= 3, "a small model has one"
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_a_loaded_model_leaves_the_threads_of_the_process(trained):
    import torch
    model = jobs.load(trained)
    model.predict("good")
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("text", ["CUDA error: an illegal memory access was encountered", "required rank 4 tensor to use channels_last memory_format"])
def test_what_is_no_lack_of_memory_is_shown_as_it_is(tmp_path, text):
    from types import SimpleNamespace

    from bertcourse.jobs.running import training_errors
    with pytest.raises(RuntimeError, match=text), training_errors(1.0, tmp_path, SimpleNamespace()):
        raise RuntimeError(text)


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "MPS backend out of memory (MPS allocated: 9 GB)", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_too_little_memory_keeps_its_cause(tmp_path, text):
    from types import SimpleNamespace

    from bertcourse.jobs.running import training_errors
    error = RuntimeError(text)
    with pytest.raises(UserError, match="not enough memory") as caught, training_errors(1.0, tmp_path, SimpleNamespace()):
        raise error
    assert caught.value.__cause__ is error


# --- interrupted --------------------------------------------------------------------------------------------------

def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, reviews):
    import bertcourse.training
    genuine, options = bertcourse.training.State.record, {"model": "tiny", "epochs": 2, "batch_size": 16, "precision": "no", "quiet": True}

    def record(self, due):
        genuine(self, due)
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
    whole = jobs.finetune("classification", as_records(reviews["train"]), out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(bertcourse.training.State, "record", record)
        with pytest.raises(jobs.Stopped, match="stopped at step 3; to go on: bertcourse finetune") as caught:
            jobs.finetune("classification", as_records(reviews["train"]), out=tmp_path / "m", **options)
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.saved and caught.value.step == 3
    done = jobs.finetune(out=tmp_path / "m", resume=True, quiet=True)  # the rows are in the folder
    assert (done.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert {path.name for path in done.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}


# --- a folder that was trained without a job ----------------------------------------------------------------------

def test_a_model_trained_with_the_library_is_read_as_it_was_trained(tmp_path, reviews):
    from bertcourse import profiles
    from bertcourse.models.checkpoint import save_checkpoint
    from bertcourse.tasks import task_of
    from bertcourse.training import fit
    profile = profiles.load("tiny")
    task = task_of("classification", reviews["train"], profile.tokenizer(), max_length=32, lang="en")
    model = task.model(profile.model)
    fit(model, task.encode(reviews["train"]), steps=2, collate=task.collate, progress=False)
    save_checkpoint(tmp_path / "m", task, model, inputs=["sentence"])
    onnx = jobs.export(tmp_path / "m", out=tmp_path / "onnx", quiet=True)
    assert onnx.report["about"]["max_length"] == 32 and onnx.report["about"]["inputs"] == ["sentence"]
    texts = list(reviews["test"]["sentence"])
    answers = [[one["label"] for one in jobs.load(tmp_path / name).predict(texts)] for name in ("m", "onnx")]
    assert answers[0] == answers[1] == [one["label"] for one in task.predict(model, reviews["test"])]
    with pytest.raises(UserError, match="is not empty"):
        save_checkpoint(tmp_path / "m", task, model)


# --- one definition of every option -------------------------------------------------------------------------------

@pytest.mark.check
@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name in jobs.PLACES])
def test_every_option_of_a_command_is_a_parameter_with_a_comment(name, monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    function = getattr(jobs, name)
    parameters = {p for p, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD}
    parser, _ = cli.make_parser(name)
    command = next(action.choices[name] for action in parser._actions if hasattr(action, "choices") and isinstance(action.choices, dict))
    options = {action.dest for action in command._actions} - {"help", "json"}
    assert options == parameters - ({"quiet"} - options)
    comments = parameter_comments(function)
    assert parameters <= comments.keys() and all(comments[p][0] not in "A" for p in parameters)


@pytest.mark.check
@pytest.mark.parametrize("name, kind", WITH_OPTIONS.items())
def test_options_are_those_of_the_function(name, kind):
    module = inspect.getmodule(getattr(jobs, name))
    assert set(rules(getattr(module, kind))) == set(inspect.signature(getattr(jobs, name)).parameters) - {"quiet"}


@pytest.mark.check
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_help_text_is_complete(name, monkeypatch, capsys):
    """Two examples, every option with its words in both languages, at most 100 columns."""
    from bertcourse.base.text import wide
    examples = help_texts(name)["examples"]
    assert len(examples) == 2 and all(line.startswith("bertcourse " + name) for line in examples)
    for lang in ("en_US.UTF-8", "zh_CN.UTF-8"):
        monkeypatch.setenv("LC_ALL", lang)
        parser, _ = cli.make_parser(name)
        with pytest.raises(SystemExit):
            parser.parse_args([name, "--help"])
        shown = capsys.readouterr().out
        assert "SUPPRESS" not in shown and max(map(wide, shown.splitlines())) <= 100
        command = next(action.choices[name] for action in parser._actions if hasattr(action, "choices") and isinstance(action.choices, dict))
        for action in command._actions:
            assert action.help and "==SUPPRESS==" not in action.help, action.dest
            assert bool(HAN.search(action.help)) == lang.startswith("zh") or not re.search("[a-z] [a-z]", action.help), (name, action.dest)


@pytest.mark.check
def test_the_package_is_light():
    import subprocess
    import sys
    code = f"import bertcourse.jobs, bertcourse.models, sys; [getattr(bertcourse.jobs, name) for name in {list(jobs.PLACES)!r}]; " \
           "print([name for name in ('torch', 'transformers', 'datasets', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.check
def test_the_package_is_typed():
    assert (ROOT / "bertcourse/py.typed").is_file()
    for name in jobs.PLACES:
        function = getattr(jobs, name)
        if inspect.isfunction(function):
            signature = inspect.signature(function)
            assert all(p.annotation is not p.empty for p in signature.parameters.values()) and signature.return_annotation is not signature.empty


# --- a loaded model -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory, reviews) -> Path:
    out = tmp_path_factory.mktemp("loaded") / "m"
    return jobs.finetune("classification", as_records(reviews["train"]), model="tiny", steps=2, precision="no", out=out, quiet=True).folder


@pytest.fixture(scope="module")
def loaded(trained):
    return jobs.load(trained)


def test_every_kind_of_collection_is_answered_row_by_row(loaded, reviews):
    import numpy
    import pandas
    texts = list(reviews["test"]["sentence"])[:3]
    answers = loaded.predict(texts)
    assert [loaded.predict(text) for text in texts] == answers and list(loaded.predict(text for text in texts)) == answers
    rows = [{"sentence": text} for text in texts]
    for several in (tuple(rows), rows, pandas.DataFrame(rows), pandas.Series(texts), numpy.array(texts), reviews["test"].select(range(3))):
        if not isinstance(several, tuple):
            assert loaded.predict(several) == answers, type(several)
    assert loaded.predict([{"text": text} for text in texts]) == answers and loaded.predict([]) == []
    assert len(repr(loaded)) < 200


@pytest.mark.parametrize("example, says", [
    (None, "cannot read None"), (5, "cannot read 5"), (b"a", "cannot read b'a'"), ([3], "cannot read 3"), ({"label": "a"}, "the input has –"),
    ({"sentence": 3}, "sentence is 3: give a text"), (("a", "b"), "cannot read ('a', 'b')"),
])
def test_examples_that_are_refused(loaded, example, says):
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        loaded.predict(example)
    assert HAN.search(caught.value.zh)


@pytest.mark.parametrize("call, says", [
    (lambda model: model.predict(["a"], batch_size=0), "batch_size must be a whole number from 1 on, not 0"),
    (lambda model: jobs.load(""), "'' is no model"), (lambda model: jobs.load("tiny", runtime="foo"), "there is no runtime 'foo'"),
    (lambda model: jobs.load("tiny", threads=0), "threads must be"), (lambda model: jobs.finetune(out=5), "--out must be the name of a file or folder, not 5"),
    (lambda model: jobs.export(model, out="x"), "--model must be a model's folder or name, not Predictor"),
    (lambda model: jobs.distill(model, out="x"), "--teacher must be a model's folder or name, not Predictor"),
    (lambda model: jobs.finetune(out="x", resume="no"), "--resume must be True or False, not 'no'"),
    (lambda model: jobs.finetune("classification", [], model="tiny", out="x"), "train has no rows"),
])
def test_calls_that_are_refused(loaded, call, says):
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        call(loaded)
    assert HAN.search(caught.value.zh)


def test_a_saved_checkpoint_has_the_labels_of_its_task(tmp_path, loaded):
    from dataclasses import replace

    from bertcourse.models.checkpoint import save_checkpoint
    names = tuple(f"class {i}" for i in range(len(loaded.task.labels)))
    save_checkpoint(tmp_path / "m", replace(loaded.task, labels=names), loaded.model, inputs=["sentence"])
    assert jobs.load(tmp_path / "m").predict("good")["label"] in names
    for wrong, says in [({"task": replace(loaded.task, labels=("a", "b"))}, "the task has 2 labels, the model 5 outputs"),
                        ({"inputs": ["foo"]}, "inputs must be a list"), ({"inputs": "sentence"}, "inputs must be a list"),
                        ({"task": loaded.model, "model": loaded.task}, "a folder, a task and a model, in this order")]:
        given = {"task": loaded.task, "model": loaded.model, "inputs": ["sentence"]} | wrong
        with pytest.raises(UserError, match=says):
            save_checkpoint(tmp_path / "n", **given)
        assert not (tmp_path / "n").exists()


def test_a_notebook_shows_the_sentence(monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert UserError("wrong", "错了")._render_traceback_() == ["UserError: 错了"]
    shown, = jobs.Stopped("finetune", Path("m"), 3, True)._render_traceback_()
    assert "第 3 步" in shown and "resume=True" in shown


def test_ctrl_c_during_the_imports_waits_for_them():
    from bertcourse.jobs.stopping import StopRequest
    done = []
    with StopRequest(zh=False) as stop, pytest.raises(KeyboardInterrupt), stop.held():
        signal.raise_signal(signal.SIGINT)
        done.append("imported")
    assert done == ["imported"]


def test_a_column_that_is_not_used_may_hold_dates(tmp_path, reviews):
    import pandas
    frame = pandas.DataFrame(as_records(reviews["train"])).assign(when=pandas.Timestamp("2026-01-02"))
    assert jobs.finetune("classification", frame, model="tiny", steps=1, precision="no", out=tmp_path / "m", quiet=True).metrics["steps"] == 1
