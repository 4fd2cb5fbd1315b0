"""Export, verification, quantisation and pruning: exact where they must be, and each planted fault is named."""

import copy
import errno
from collections import Counter
from math import comb
from pathlib import Path

import numpy as np
import onnx
import pytest
import services
import torch
from onnxruntime import quantization
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MobileBertConfig,
    RobertaConfig,
)

from bertcourse import deployment
from bertcourse.deployment import Calibration, export, fuse, mcnemar, operators, opset_of, quantize, verify
from bertcourse.distillation import interleave
from bertcourse.models.checkpoint import open_checkpoint
from bertcourse.runtime import ModelError, Session, pad_arrays

VOCAB, LONGEST = 120, 20
SMALL = {"vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32,
         "max_position_embeddings": LONGEST}  # fmt: skip
FAMILIES = {
    "bert": BertConfig(**SMALL), "electra": ElectraConfig(**SMALL, embedding_size=16), "albert": AlbertConfig(**SMALL, embedding_size=16),
    "roberta": RobertaConfig(**SMALL | {"max_position_embeddings": LONGEST + 2}, pad_token_id=1),
    "distilbert": DistilBertConfig(vocab_size=VOCAB, dim=24, n_layers=2, n_heads=3, hidden_dim=32, max_position_embeddings=LONGEST),
    "mobilebert": MobileBertConfig(**SMALL | {"hidden_size": 32, "num_attention_heads": 4}, embedding_size=16, intra_bottleneck_size=16,
                                   true_hidden_size=16),
}  # fmt: skip
def network(family="bert", **kw):
    "A small model whose outputs differ visibly."
    torch.manual_seed(0)
    config = copy.deepcopy(FAMILIES[family])
    config.update({"num_labels": 3} | kw)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def names_of(family):
    "The inputs that a family's tokenizer gives."
    return ("input_ids", "attention_mask") if family in ("distilbert", "roberta") else deployment.INPUTS


def compared(model, path, pad_id=0, longest=LONGEST, **kw):
    config = model.config
    session = Session(path, threads=1, pad_id=pad_id)
    return verify(model, session, longest, config.vocab_size, getattr(config, "type_vocab_size", 1), **kw)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    "A model and its file, alone in its folder."
    model = network()
    return model, export(model, tmp_path_factory.mktemp("plain") / "model.onnx", LONGEST)


def check_export(model, path, names, outputs=("logits",), longest=LONGEST):
    "An exported model answers as before, takes these inputs, gives these outputs, and is one file."
    parity = compared(model, path, longest=longest)
    assert parity.ok, parity
    assert parity.worst < 1e-5 and parity.lengths == (1, longest) and parity.agree > 0.99
    session = Session(path)
    assert set(session.inputs) == set(names) and session.outputs == list(outputs)
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"], "the weights are in the file, and nothing is left behind"


# --- export -------------------------------------------------------------------------------------------------------

def test_a_classifier_answers_as_before(plain):
    check_export(*plain, deployment.INPUTS)


def test_the_file_names_nothing_of_this_machine(plain):
    "The exporter notes where each operation stands in the source: paths of whoever exports, in a file that is given away."
    content = plain[1].read_bytes()
    for path in (str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[1]), str(Path.home()), "site-packages", "stack_trace"):
        assert path.encode() not in content, path


@pytest.mark.usefixtures("cached_exports")
@pytest.mark.parametrize("kind, outputs", [
    ("regression", ["logits"]), ("ner", ["logits"]), ("qa", ["start_logits", "end_logits"]),
])  # fmt: skip
def test_every_head_answers_as_before(tmp_path, kind, outputs):
    "The models that `bertcourse export` is tested with, which are exported once."
    task = open_checkpoint(str(services.checkpoint(tmp_path / "checkpoint", kind)))
    (tmp_path / "onnx").mkdir()
    names = task.task.tokenizer.model_input_names
    path = deployment.export(task.model, tmp_path / "onnx/model.onnx", task.task.max_length, names)
    check_export(task.model, path, names, outputs, longest=task.task.max_length)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_every_family_answers_as_before(tmp_path, family):
    "By the exporter that traces, which is fast; `slow/test_export_families.py` takes today's."
    names = names_of(family)
    model = network(family)
    check_export(model, export(model, tmp_path / "model.onnx", LONGEST, names, legacy=True, opset=17), names)


def test_both_exporters_write_what_is_asked_for(tmp_path, plain):
    model, path = plain
    old = export(model, tmp_path / "old.onnx", LONGEST, legacy=True, opset=14)
    assert opset_of(old) == 14 and opset_of(path) >= 18 and compared(model, old).ok
    assert sum(operators(old).values()) > sum(operators(path).values())
    for file in (old, path):
        onnx.checker.check_model(onnx.load(file))


def test_the_model_stays_as_it_was(tmp_path):
    model = network(hidden_dropout_prob=0.5, num_hidden_layers=1)
    model.set_attn_implementation("sdpa")
    model.train()
    path = export(model, tmp_path / "model.onnx", LONGEST)
    assert model.training and all(m.training for m in model.modules()) and model.config._attn_implementation == "sdpa"
    assert "Dropout" not in operators(path)
    assert compared(model, path).ok and model.training


def test_what_cannot_be_exported_leaves_nothing(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = BertConfig(**SMALL)
            self.config._attn_implementation = "eager"

        def set_attn_implementation(self, name):
            return self

        def forward(self, input_ids, attention_mask):
            return {"logits": input_ids.float() if input_ids.sum() > 3 else -input_ids.float()}

    with pytest.raises(ModelError, match="Odd cannot be exported"):
        export(Odd(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_run_is_named(tmp_path):
    "Whatever goes wrong in the model itself is a `ModelError`, too."
    model = network().requires_grad_(False)
    model.bert.embeddings.word_embeddings = torch.nn.Embedding(3, 24)
    with pytest.raises(ModelError, match="BertForSequenceClassification cannot be exported"):
        export(model.train(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir()) and model.training


def test_a_disk_is_not_a_model(tmp_path, plain, monkeypatch):
    "A folder or a source that is missing and a full disk are said as they are, not as a fault of the model."
    model, path = plain
    for legacy in (False, True):
        with pytest.raises(FileNotFoundError, match="there is no folder .*absent: make it first"):
            export(model, tmp_path / "absent" / "model.onnx", legacy=legacy)
    with pytest.raises(FileNotFoundError, match="there is no folder .*absent"):
        quantize(path, tmp_path / "absent" / "small.onnx")
    with pytest.raises(FileNotFoundError, match="absent.onnx"):
        quantize(tmp_path / "absent.onnx", tmp_path / "small.onnx")

    def full(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    monkeypatch.setattr(quantization, "quantize_dynamic", full)
    for write in (lambda: export(model, tmp_path / "model.onnx"), lambda: quantize(path, tmp_path / "small.onnx")):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_failing_export_keeps_the_old_file(tmp_path, plain, monkeypatch):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kw: 1 / 0)
    with pytest.raises(ModelError, match="division"):
        export(plain[0], target)
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# --- verification -------------------------------------------------------------------------------------------------

def changed(path, target, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return target


def rename(graph, names):
    for put in graph.input:
        put.name = names.get(put.name, put.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def no_mask(graph):
    "All places count, whatever the mask says."
    for node in graph.node:
        node.input[:] = ["ones" if name == "attention_mask" else name for name in node.input]
    graph.node.insert(0, onnx.helper.make_node("Shape", ["input_ids"], ["shape of ids"]))
    graph.node.insert(1, onnx.helper.make_node("ConstantOfShape", ["shape of ids"], ["ones"],
                                               value=onnx.helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])))  # fmt: skip


def other_weight(graph):
    tensor = next(t for t in graph.initializer if sorted(t.dims) == [24, 32])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.2, tensor.name))


@pytest.mark.parametrize("change, said", [
    (lambda g: rename(g, {"attention_mask": "token_type_ids", "token_type_ids": "attention_mask"}), "inputs are swapped"),
    (no_mask, "the mask is not used"), (other_weight, "the weights or the graph are not those of the model"),
], ids=["swapped", "no mask", "weight"])  # fmt: skip
def test_planted_faults_are_named(tmp_path, plain, change, said):
    model, path = plain
    parity = compared(model, changed(path, tmp_path / "bad.onnx", change))
    assert not parity.ok and said in parity.faults[0] and said in str(parity) and parity.worst > 1e-4


@pytest.mark.parametrize("legacy", [False, True])
def test_dropout_left_on_is_named(tmp_path, legacy):
    model = network(hidden_dropout_prob=0.5, num_hidden_layers=1)
    given = deployment.example(model)
    how = {"dynamo": False, "training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False,
           "dynamic_axes": {name: {0: "b", 1: "n"} for name in given}} if legacy else \
        {"dynamo": True, "external_data": False, "dynamic_shapes": {name: {0: torch.export.Dim("b"), 1: torch.export.Dim("n", min=2, max=LONGEST)}
                                                                    for name in given}}  # fmt: skip
    with deployment._quiet():
        torch.onnx.export(model.train(), (), tmp_path / "bad.onnx", kwargs=given, input_names=list(given), output_names=["logits"], **how)
    parity = compared(model.eval(), tmp_path / "bad.onnx")
    assert not parity.ok and "dropout is on" in parity.faults[0]


def test_fixed_shapes_are_named(tmp_path):
    model = network()
    given = deployment.example(model)
    with deployment._quiet():
        torch.onnx.export(model, (), tmp_path / "bad.onnx", kwargs=given, input_names=list(given), output_names=["logits"], dynamo=False)
    parity = compared(model, tmp_path / "bad.onnx")
    assert not parity.ok and "invalid dimensions" in parity.faults[0] and "fails" in parity.faults[0]


def test_nan_and_wrong_shapes_are_no_match():
    mask, good = np.ones((2, 3)), {"logits": np.zeros((2, 4))}
    assert deployment._compare({"logits": np.full((2, 4), np.nan)}, good, mask)[0] == np.inf
    assert deployment._compare({"logits": np.zeros((2, 5))}, good, mask)[0] == np.inf


def test_padding_is_not_compared():
    mask = np.array([[1, 1, 0]])
    ours, theirs = ({"start_logits": np.array([[1.0, 2.0, x]]), "end_logits": np.array([[0.0, 1.0, x]])} for x in (50.0, -3.0))
    assert deployment._compare(ours, theirs, mask) == (0.0, "start_logits", [True, True])


def test_cases_cover_batches_lengths_and_padding():
    shapes, padded = [], 0
    for batch in deployment.cases(128, VOCAB, 2):
        mask = batch["attention_mask"]
        shapes.append(mask.shape)
        assert mask[:, 0].all() and batch["input_ids"].max() < VOCAB and batch["token_type_ids"].max() <= 1
        assert (np.diff(mask, axis=1) <= 0).all() and not (batch["input_ids"] * (1 - mask)).any()
        padded += not mask.all()
    assert {b for b, _ in shapes} == set(range(1, 9)) and {1, 2, 128} <= {n for _, n in shapes} and padded == len(shapes) // 2


# --- quantisation and fusion --------------------------------------------------------------------------------------

def some_batches(n=4, length=12):
    rng = np.random.default_rng(0)
    return [pad_arrays([{"input_ids": rng.integers(0, VOCAB, length).tolist()} for _ in range(4)]) for _ in range(n)]


@pytest.mark.parametrize("how", [{}, {"weights": "uint8", "per_channel": False}, {"calibration": True}, {"calibration": True, "method": "entropy"}],
                         ids=["dynamic", "uint8", "static", "entropy"])  # fmt: skip
def test_quantised_models_are_smaller_and_close(tmp_path, plain, how):
    model, path = plain
    if "calibration" in how:
        how = how | {"calibration": Calibration(some_batches())}
    small = quantize(path, tmp_path / "small.onnx", **how)
    kinds = Counter(t.data_type for t in onnx.load(small).graph.initializer if np.prod(t.dims) > 200)
    assert set(kinds) <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}, "every large weight is in 8 bits"
    assert compared(model, small, tolerance=0.4).ok
    found = operators(small)
    assert (found["QuantizeLinear"] > 0) == ("calibration" in how) and (found["MatMulInteger"] > 0) == ("calibration" not in how)
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_static_leaves_products_of_activations_alone(tmp_path, plain):
    _, path = plain
    graph = onnx.load(quantize(path, tmp_path / "small.onnx", calibration=Calibration(some_batches()))).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    from_integers = [all(makers.get(name) == "DequantizeLinear" for name in node.input) for node in products]
    assert from_integers.count(False) == 2 * 2 and from_integers.count(True) > 8  # two of them in each of two layers


def test_calibration_can_be_read_again(tmp_path, plain):
    texts = Calibration(some_batches(), ("input_ids", "attention_mask"))
    assert len(list(iter(texts.get_next, None))) == 4 and texts.get_next() is None
    texts.rewind()
    assert set(texts.get_next()) == {"input_ids", "attention_mask"}
    full = Calibration(some_batches())
    first, second = (quantize(plain[1], tmp_path / f"{i}.onnx", calibration=full).read_bytes() for i in range(2))
    assert first == second
    with pytest.raises(ValueError, match="at least one"):
        Calibration([])


def test_inputs_of_a_calibration_may_be_an_iterator():
    names = (name for name in ("input_ids", "attention_mask"))
    assert [set(batch) for batch in Calibration(some_batches(3), names).batches] == [{"input_ids", "attention_mask"}] * 3


def test_a_calibration_without_an_input_names_it():
    batches = [{name: values for name, values in batch.items() if name != "token_type_ids"} for batch in some_batches(2)]
    with pytest.raises(ValueError, match="a batch has input_ids, attention_mask, and no token_type_ids"):
        Calibration(batches)


@pytest.mark.parametrize("how, said", [
    ({"weights": "int4"}, "there is no type of weights 'int4': choose from int8, uint8"),
    ({"method": "mean"}, "there is no method of calibration 'mean': choose from minmax, entropy, percentile"),
])  # fmt: skip
def test_another_way_to_quantise_is_refused(tmp_path, plain, how, said):
    with pytest.raises(ModelError, match=said) as error:
        quantize(plain[1], tmp_path / "small.onnx", **how)
    assert "请从" in error.value.zh and not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_quantised(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    (tmp_path / "out.onnx").write_bytes(b"old")
    with pytest.raises(ModelError, match="bad.onnx"):
        quantize(tmp_path / "bad.onnx", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"old"


def test_fusion_depends_on_the_exporter_and_changes_no_answer(tmp_path, plain):
    model, path = plain
    old = export(model, tmp_path / "old.onnx", LONGEST, legacy=True, opset=17)
    found = fuse(old, tmp_path / "fused.onnx", 3, 24)
    assert found["Attention"] == 2 and found["EmbedLayerNormalization"] == 1 and found["SkipLayerNormalization"] == 4
    assert compared(model, tmp_path / "fused.onnx").ok
    today = fuse(path, tmp_path / "today.onnx", 3, 24)
    assert today["Attention"] == 0 and today["BiasGelu"] == 2 and compared(model, tmp_path / "today.onnx").ok


# --- measuring ----------------------------------------------------------------------------------------------------

def test_interleave_runs_everything_in_turn():
    calls = []
    times = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, repeat=2)
    assert "".join(calls) == "aabb" + "bbaa" + "aabb" and {name: len(row) for name, row in times.items()} == {"a": 2, "b": 2}
    assert deployment.ratios({"a": [4, 2, 9], "b": [2, 1, 1]}) == {"a": 1, "b": 4}
    assert deployment.ratios({"a": [4], "b": [2]}, "b") == {"a": 0.5, "b": 1}


def test_mcnemar_is_the_sign_test():
    before, after = [True] * 9 + [False] * 3, [False] * 7 + [True] * 4 + [False]
    p = 2 * sum(comb(9, k) for k in range(3)) / 2**9
    assert mcnemar(before, after) == (7, 2, pytest.approx(p))
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="3 and 2"):
        mcnemar([True] * 3, [True] * 2)


def test_peaks_are_rates_and_leave_threads_alone():
    before = torch.get_num_threads()
    found = deployment.peaks(1, size=64, rounds=2)
    assert set(found) == {"fp32", "int8"} and min(found.values()) > 0 and torch.get_num_threads() == before


def test_bound_session_gives_the_same(plain):
    session, batch = Session(plain[1], threads=1), some_batches(1)[0]
    assert np.array_equal(deployment.bound(session)(**batch)["logits"], session(**batch)["logits"])


def test_reference_is_in_eval_mode_and_back():
    model, batch = network(hidden_dropout_prob=0.9).train(), some_batches(1)[0]
    run = deployment.reference(model)
    assert np.array_equal(run(**batch)["logits"], run(**batch)["logits"]) and model.training


# --- pruning ------------------------------------------------------------------------------------------------------

def gated(model, gates):
    "Logits with a factor on the output of each head, by hooks of our own."
    hooks = []
    for layer, row in zip(model.bert.encoder.layer, gates):
        def scale(module, args, row=row):
            return (torch.cat([part * g for part, g in zip(args[0].chunk(3, -1), row)], -1),)
        hooks.append(layer.attention.output.dense.register_forward_pre_hook(scale))
    try:
        batch = {name: torch.from_numpy(v) for name, v in some_batches(1)[0].items()}
        return model(**batch, labels=torch.tensor([0, 1, 2, 0]))
    finally:
        for hook in hooks:
            hook.remove()


LABELS = torch.tensor([0, 1, 2, 0])


def labelled(*rows):
    "A batch of some of four rows."
    batch = {name: torch.from_numpy(v) for name, v in some_batches(1)[0].items()} | {"labels": LABELS}
    return {name: value[list(rows)] for name, value in batch.items()}


@pytest.mark.parametrize("layer, head", [(0, 0), (0, 2), (1, 1)])
def test_importance_is_the_slope_of_each_examples_loss(layer, head):
    "By finite differences: the mean over examples of |slope|."
    model = network().double()
    losses = []
    for step in (1e-4, -1e-4):
        gates = torch.ones(2, 3, dtype=torch.float64)
        gates[layer, head] += step
        losses.append(torch.nn.functional.cross_entropy(gated(model, gates).logits, LABELS, reduction="none"))
    slopes = (losses[0] - losses[1]) / 2e-4
    assert slopes.min() < 0 < slopes.max(), "signs differ, or the slope of the mean would be the same"
    whole = [labelled(0, 1, 2, 3)]
    assert deployment.head_importance(model, whole)[layer, head].item() == pytest.approx(slopes.abs().mean().item(), rel=1e-3)


def test_importance_does_not_depend_on_the_batches():
    model = network()
    whole = deployment.head_importance(model, [labelled(0, 1, 2, 3)])
    for batches in ([labelled(i) for i in range(4)], [labelled(3, 1), labelled(0), labelled(2)]):
        torch.testing.assert_close(deployment.head_importance(model, batches), whole)


def test_importance_leaves_the_model_as_it_was():
    model = network(hidden_dropout_prob=0.5).train()
    model.bert.embeddings.eval()
    first, second = (deployment.head_importance(model, iter([labelled(0, 1)])) for _ in range(2))
    assert torch.equal(first, second), "without dropout"
    assert model.training and model.bert.encoder.training and not model.bert.embeddings.training
    assert not any(layer.attention.output.dense._forward_pre_hooks for layer in model.bert.encoder.layer)
    assert all(weight.grad is None for weight in model.parameters())


def test_importance_of_what_cannot_be_measured():
    with pytest.raises(ValueError, match="no batch"):
        deployment.head_importance(network(), [])
    uneven = deployment.prune_heads(network(), {0: [1]})
    with pytest.raises(ValueError, match="the layers have 2, 3 heads"):
        deployment.head_importance(uneven, [labelled(0)])
    even = deployment.prune_heads(uneven, {1: [0]})
    assert deployment.head_importance(even, [labelled(0)]).shape == (2, 2)


def test_pruned_heads_are_heads_at_zero(tmp_path):
    model = network()
    with torch.no_grad():
        expected = gated(model, torch.tensor([[0.0, 1, 1], [1, 0, 0]])).logits
        pruned = deployment.prune_heads(copy.deepcopy(model), {0: [0], 1: [1, 2]})
        batch = {name: torch.from_numpy(v) for name, v in some_batches(1)[0].items()}
        torch.testing.assert_close(pruned(**batch).logits, expected)
    fewer = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in pruned.parameters())
    assert fewer == 3 * (4 * 24 * 8 + 3 * 8)
    assert compared(pruned, export(pruned, tmp_path / "model.onnx", LONGEST, legacy=True, opset=17)).ok
    with pytest.raises(ValueError, match="layer 0"):
        deployment.prune_heads(network(), {0: [0, 1, 2]})


def test_pruned_layers_are_gone(tmp_path):
    model = deployment.prune_layers(network(), [0])
    assert model.config.num_hidden_layers == len(model.bert.encoder.layer) == 1
    torch.testing.assert_close(model.bert.encoder.layer[0].state_dict(), network().bert.encoder.layer[1].state_dict())
    heads = deployment.prune_heads(copy.deepcopy(model), {0: [1]})
    for pruned, how in ((model, {"legacy": True, "opset": 17}), (heads, {})):
        assert compared(pruned, export(pruned, tmp_path / "model.onnx", LONGEST, **how)).ok
    with pytest.raises(ValueError, match="keep at least one"):
        deployment.prune_layers(model, [0])


def test_heads_of_a_pruned_layer_are_counted_anew():
    model = network()
    with torch.no_grad():
        expected = gated(model, torch.tensor([[0.0, 1, 0], [1, 1, 1]])).logits
        batch = {name: torch.from_numpy(v) for name, v in some_batches(1)[0].items()}
        twice = deployment.prune_heads(deployment.prune_heads(copy.deepcopy(model), {0: iter([0])}), {0: [1]})
        torch.testing.assert_close(twice(**batch).logits, expected)
    with pytest.raises(ValueError, match="layer 0 would have no head left"):
        deployment.prune_heads(twice, {0: [0]})


@pytest.mark.parametrize("heads, said", [
    ({0: [3]}, "layer 0 has no head 3: it has heads 0 to 2"), ({1: [0], 0: [-1]}, "layer 0 has no head -1"),
    ({2: [0]}, "the model has no layer 2: it has layers 0 to 1"), ({0: [1], -1: [0]}, "the model has no layer -1"),
    ({0: [0], 1: [0, 1, 2]}, "layer 1 would have no head left"),
])  # fmt: skip
def test_heads_that_are_not_there_are_refused(heads, said):
    "And nothing is cut before."
    model = network()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        deployment.prune_heads(model, heads)
    torch.testing.assert_close(dict(model.state_dict()), before)


def test_layers_may_come_from_an_iterator():
    model = deployment.prune_layers(network(num_hidden_layers=4), iter([1, 3]))
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 2
    kept = network(num_hidden_layers=4).bert.encoder.layer
    for layer, place in zip(model.bert.encoder.layer, (0, 2), strict=True):
        torch.testing.assert_close(layer.state_dict(), kept[place].state_dict())


@pytest.mark.parametrize("gone", [[2], [0, 7], [-1]])
def test_layers_that_are_not_there_are_refused(gone):
    model = network()
    with pytest.raises(ValueError, match=f"the model has no layer {gone[-1]}: it has layers 0 to 1"):
        deployment.prune_layers(model, gone)
    assert len(model.bert.encoder.layer) == 2


def test_what_is_cut_keeps_precision_mode_and_whether_it_is_trained():
    model = network().to(torch.bfloat16).train()
    model.bert.encoder.layer[0].attention.self.query.requires_grad_(False)
    attention = deployment.prune_heads(model, {0: [1]}).bert.encoder.layer[0].attention
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16} and all(m.training for m in model.modules())
    assert not attention.self.query.weight.requires_grad and attention.self.key.weight.requires_grad


def test_a_pruned_model_cannot_be_loaded_again(tmp_path):
    "As `prune_heads` says; the file of `export` can (`test_pruned_layers_are_gone`)."
    model = deployment.prune_heads(network(), {0: [1]})
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
