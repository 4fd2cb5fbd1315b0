"""Graphs of page 7.1: what is drawn, what is broken on purpose, what the table holds."""

import onnx
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from bertcourse import graphs
from bertcourse.deployment import Calibration, export, fuse, operators, quantize
from bertcourse.runtime import Session, pad_arrays

CONFIG = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48,
          "max_position_embeddings": 16, "num_labels": 3, "attn_implementation": "eager"}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "A model and its file."
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**CONFIG)).eval()
    folder = tmp_path_factory.mktemp("graphs")
    return model, export(model, folder / "model.onnx", 16, legacy=True, opset=17), folder


def batch(length=7):
    return pad_arrays([{"input_ids": list(range(1, length + 1))}, {"input_ids": [3, 4]}])


def inputs():
    return {name: torch.from_numpy(values) for name, values in batch().items()}


def test_an_export_by_tracing_is_described(small):
    model, _, folder = small
    whole = graphs.trace_model(model, folder / "whole.onnx", inputs(), opset_version=14)
    bare = graphs.trace_model(model, folder / "bare.onnx", inputs(), opset_version=14, export_params=False)
    assert whole[:2] == [14, sum(operators(folder / "whole.onnx").values())] and float(bare[2]) < float(whole[2])
    assert Session(folder / "whole.onnx")(**batch(5))["logits"].shape == (2, 3)


def test_what_cannot_be_traced_is_named_and_prints_nothing(small, capfd):
    model, _, folder = small
    assert graphs.trace_model(model, folder / "no.onnx", inputs(), "sdpa", opset_version=11) == ["UnsupportedOperatorError", "", ""]
    assert model.config._attn_implementation == "eager"
    assert capfd.readouterr().out == ""


def test_a_layer_goes_from_one_normalisation_to_the_next_but_one(small):
    _, path, folder = small
    nodes, edges = graphs.find_layer(path)
    kinds = [kind for kind, _ in nodes.values()]
    assert kinds.count("LayerNormalization") == 3 and kinds.count("Softmax") == 1
    assert all(nodes[a][1] < nodes[b][1] for a, b in edges)
    fuse(path, folder / "fused.onnx", 3, 24)
    assert len(graphs.find_layer(folder / "fused.onnx")[0]) < len(nodes) / 3


def test_broken_graphs_pass_the_checker_and_leave_the_model(small):
    model, path, folder = small
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broken = graphs.break_graphs(model, path, folder)
    assert len(broken) == 5 and not model.training
    for file in broken.values():
        onnx.checker.check_model(onnx.load(file))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_products_are_described(small):
    _, path, folder = small
    assert graphs.describe_product(path) == "MatMul"
    dynamic = graphs.describe_product(quantize(path, folder / "dynamic.onnx"))
    assert dynamic.startswith("DynamicQuantizeLinear → MatMulInteger")
    static = graphs.describe_product(quantize(path, folder / "static.onnx", calibration=Calibration([batch()])))
    assert "QuantizeLinear → DequantizeLinear → MatMul [weight: DequantizeLinear]" in static


def test_other_precisions_run(small):
    _, path, folder = small
    expected = Session(path)(**batch())["logits"]
    for convert in (graphs.convert_to_fp16, graphs.quantize_to_4_bits):
        file = convert(path, folder / "other.onnx")
        assert abs(Session(file)(**batch())["logits"] - expected).max() < 0.5
        assert file.stat().st_size < path.stat().st_size


def test_channels_leave_padding_out(small):
    model, _, _ = small
    ranges = graphs.channel_ranges(model, batch())
    assert ranges.shape == (2, 48) and (ranges[:, :-1] >= ranges[:, 1:]).all()
    alone = graphs.channel_ranges(model, {name: values[:, :2] for name, values in batch(2).items()})
    assert alone.shape == ranges.shape
    assert not any(layer.output.dense._forward_pre_hooks for layer in model.base_model.encoder.layer)


def test_the_table_has_both_languages_and_measured_factors():
    html = graphs.decision_table().html()
    assert html.count('lang="zh"') == html.count('lang="en"') > 30
    assert "not run here" in html and "×" in html
