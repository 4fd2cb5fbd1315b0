"""An exported model's session, its folder and its cache: what they refuse, and that neither torch nor transformers is needed."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bertcourse import runtime


def graph(outputs=("logits",), names=("input_ids", "attention_mask"), mask=TensorProto.INT64):
    "Adds up ids where the mask is 1: one number for each class, or for each token."
    def put(name, kind, *shape):
        return helper.make_tensor_value_info(name, kind, shape)
    nodes = [helper.make_node("Cast", [names[1]], ["m"], to=TensorProto.INT64), helper.make_node("Mul", [names[0], "m"], ["kept"]),
             helper.make_node("Cast", ["kept"], ["x"], to=TensorProto.FLOAT)]
    if outputs == ("logits",):
        nodes += [helper.make_node("ReduceSum", ["x", "axis"], ["s"], keepdims=1), helper.make_node("Concat", ["s", "s"], ["logits"], axis=1)]
        found = [put("logits", TensorProto.FLOAT, "b", 2)]
    else:
        nodes += [helper.make_node("Neg" if name == outputs[-1] else "Identity", ["x"], [name]) for name in outputs]
        found = [put(name, TensorProto.FLOAT, "b", "n") for name in outputs]
    made = helper.make_graph(nodes, "toy", [put(names[0], TensorProto.INT64, "b", "n"), put(names[1], mask, "b", "n")], found,
                             [helper.make_tensor("axis", TensorProto.INT64, [1], [1])])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def saved(folder, **kw):
    path = folder / "model.onnx"
    onnx.save(graph(**kw), path)
    return path


KINDS = [runtime.Session, runtime.OpenVino]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.runtime)
def kind(request):
    if request.param is runtime.OpenVino:
        pytest.importorskip("openvino")
    return request.param


def test_rows_come_back_in_their_order_without_padding(tmp_path, kind):
    session = kind(saved(tmp_path), threads=1, pad_id=9)
    rows = [{"input_ids": list(range(1, n + 1))} for n in (5, 1, 3, 2, 4)]
    found = session.outputs_of(rows, batch_size=2)
    assert [row["logits"].tolist() for row in found] == [[sum(row["input_ids"])] * 2 for row in rows]
    batches = dict((tuple(ids), batch["input_ids"].shape) for ids, batch in session.batches(rows, 2))
    assert batches == {(1, 3): (2, 2), (2, 4): (2, 4), (0,): (1, 5)}


def test_tokens_come_back_without_padding(tmp_path, kind):
    session = kind(saved(tmp_path, outputs=("start_logits", "end_logits")), threads=1, pad_id=9)
    rows = [{"input_ids": [4, 5]}, {"input_ids": [1, 2, 3]}]
    found = session.outputs_of(rows)
    assert [row["start_logits"].tolist() for row in found] == [[4, 5], [1, 2, 3]]
    assert [row["end_logits"].tolist() for row in found] == [[-4, -5], [-1, -2, -3]]


def test_results_are_not_overwritten_by_the_next_call(tmp_path, kind):
    session = kind(saved(tmp_path), threads=1)
    def run(ids):
        return session(input_ids=np.array([ids]), attention_mask=np.ones((1, len(ids)), int))["logits"]
    first = run([1, 2])
    run([50, 60])
    assert first.tolist() == [[3, 3]]


def test_padding_of_a_row_stays_padding():
    rows = [{"input_ids": [2, 5, 3, 0], "attention_mask": [1, 1, 1, 0], "token_type_ids": [0, 1, 1, 0]}, {"input_ids": [2, 3]}]
    batch = runtime.pad_arrays(rows)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]] and batch["token_type_ids"].tolist() == [[0, 1, 1, 0], [0] * 4]


def test_padding_has_the_tokenizers_id():
    batch = runtime.pad_arrays([{"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]}, {"input_ids": [8]}], pad_id=1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]] and batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]] and {a.dtype for a in batch.values()} == {np.dtype("int64")}


@pytest.mark.parametrize("made, said", [
    ({"mask": TensorProto.FLOAT}, "attention_mask is"), ({"names": ("a", "b")}, "takes a, b"), ({"outputs": ("start_logits", "other")}, "other"),
])  # fmt: skip
def test_other_graphs_are_refused(tmp_path, kind, made, said):
    with pytest.raises(runtime.ModelError, match=said) as error:
        kind(saved(tmp_path, **made))
    assert str(tmp_path) not in str(error.value) and error.value.zh != error.value.en


@pytest.mark.parametrize("content", [b"", b"no model at all" * 50, None])
def test_broken_files_are_refused(tmp_path, kind, content):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(runtime.ModelError, match="no usable ONNX file|takes"):
        kind(path)
    with pytest.raises(runtime.ModelError, match="there is no file"):
        kind(tmp_path / "absent.onnx")


def test_a_provider_that_is_not_there_is_refused(tmp_path):
    import onnxruntime
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(runtime.ModelError, match="no CUDAExecutionProvider"):
        runtime.Session(saved(tmp_path), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_a_batch_without_an_input_names_it(tmp_path, kind):
    "The tokenizer of another family, such as DistilBERT's, gives no segments."
    session = kind(saved(tmp_path), threads=1)
    with pytest.raises(runtime.ModelError, match="model.onnx takes input_ids, attention_mask, and the batch has no attention_mask") as error:
        session(input_ids=np.array([[1, 2]]))
    assert "这一批没有 attention_mask" in error.value.zh


def test_unknown_runtimes_and_providers_are_named(tmp_path):
    with pytest.raises(runtime.ModelError, match="there is no runtime 'foo': choose from ort, openvino") as error:
        runtime.open_session(saved(tmp_path), "foo")
    assert "没有名为 'foo' 的运行时" in error.value.zh
    with pytest.raises(runtime.ModelError, match="there is no provider 'foo': choose from cpu, cuda, tensorrt"):
        runtime.providers_of("foo")


def test_options_reach_the_session(tmp_path):
    session = runtime.Session(saved(tmp_path), threads=3, enable_mem_pattern=False, **{"session.intra_op.allow_spinning": "0"})
    options = session._session.get_session_options()
    assert options.intra_op_num_threads == 3 and not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_openvino_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(runtime.ModelError, match="pip install"):
        runtime.open_session(saved(tmp_path), "openvino")


SIGNALLED = """
import signal, sys
from bertcourse import runtime
signal.signal(signal.SIGINT, lambda *_: print("handled"))
first, second = runtime.OpenVino(sys.argv[1]), runtime.OpenVino(sys.argv[1])
del first, second
signal.raise_signal(signal.SIGINT)
"""


def test_ctrl_c_is_handled_when_openvino_models_are_gone(tmp_path):
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, saved(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


# --- the folder ---------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    path, others = saved(tmp_path), ["tokenizer.json", "tokenizer_config.json", "config.json"]
    for name in others:
        (tmp_path / name).write_text("{}")
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    about = {"task": "classification", "labels": ["no", "yes"], "max_length": 8, "sha256": sums[path.name],
             "files": {name: sums[name] for name in others}}
    (tmp_path / "bertcourse.json").write_text(json.dumps(about | {"of a later version": 1}))
    return tmp_path


def forget(folder, name=None):
    "Take the check sum of a file out of the description, or all of them."
    about = json.loads((folder / "bertcourse.json").read_text())
    about["files"].pop(name) if name else about.pop("files")
    (folder / "bertcourse.json").write_text(json.dumps(about))


def test_about_is_read(folder):
    about = runtime.read_about(folder)
    assert (about.task, about.labels, about.max_length, about.quantisation) == ("classification", ("no", "yes"), 8, None)


@pytest.mark.parametrize("spoil, said", [
    (lambda f: (f / "model.onnx").unlink(), "holds no model.onnx"),
    (lambda f: (f / "bertcourse.json").unlink(), "missing or broken"),
    (lambda f: (f / "bertcourse.json").write_text("{"), "missing or broken"),
    (lambda f: (f / "bertcourse.json").write_text('{"task": "ner"}'), "missing or broken"),
    (lambda f: (f / "model.onnx").write_bytes((f / "model.onnx").read_bytes()[:-1] + b"\0"), "damaged"),
    (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer.json is damaged"),
    (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
    (lambda f: forget(f, "tokenizer.json"), "bertcourse.json has no check sum of tokenizer.json: export the model again"),
    (lambda f: [forget(f, "config.json"), (f / "config.json").unlink()], "has no check sum of config.json"),
    (lambda f: forget(f), "has no check sum of tokenizer.json"),
])  # fmt: skip
def test_a_spoilt_folder_is_refused(folder, spoil, said):
    spoil(folder)
    with pytest.raises(runtime.ModelError, match=said):
        runtime.read_about(folder)


# --- the cache ----------------------------------------------------------------------------------------------------

@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), max_size=6), max_size=8), st.integers(1, 5))
def test_the_cache_is_a_function(requests, size):
    "The same answers as without it, never more kept than allowed, hits and misses add up."
    asked = []
    kept = runtime.Cached(lambda new: asked.extend(new) or [10 * x for x in new], size)
    for request in requests:
        assert kept(request) == [10 * x for x in request]
        assert len(kept._kept) <= size
    assert kept.misses == len(asked) and kept.hits + kept.misses == sum(map(len, requests))


def test_what_was_used_last_stays():
    asked = []
    kept = runtime.Cached(lambda new: asked.append(new) or new, 2)
    for request in ("a", "b", "a", "c", "a", "b"):
        kept([request])
    assert asked == [["a"], ["b"], ["c"], ["b"]]
    with pytest.raises(ValueError, match="at least one"):
        runtime.Cached(list, 0)


def test_a_failure_is_not_kept():
    kept = runtime.Cached(lambda new: [], 2)
    with pytest.raises(ValueError):
        kept(["a"])
    assert not kept._kept


def test_no_torch_and_no_transformers(tmp_path):
    path = saved(tmp_path)
    code = ("import sys; from bertcourse.runtime import Session; Session(sys.argv[1]);"
            "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
