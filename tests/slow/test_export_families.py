"""Every family of models and every head, by the exporter that the course uses; the fast tests trace them."""

import sys
from pathlib import Path

import pytest
import torch
import transformers

sys.path.append(str(Path(__file__).parents[1]))
from test_deployment import FAMILIES, LONGEST, SMALL, check_export, names_of, network  # noqa: E402

from bertcourse.deployment import INPUTS, export  # noqa: E402


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_as_before(tmp_path, family):
    names, model = names_of(family), network(family)
    check_export(model, export(model, tmp_path / "model.onnx", LONGEST, names), names)


@pytest.mark.parametrize("head, labels, outputs", [
    ("SequenceClassification", 1, ["logits"]), ("TokenClassification", 5, ["logits"]),
    ("QuestionAnswering", 2, ["start_logits", "end_logits"]),
])  # fmt: skip
def test_every_head_answers_as_before(tmp_path, head, labels, outputs):
    torch.manual_seed(0)
    auto_class = getattr(transformers, f"AutoModelFor{head}")
    model = auto_class.from_config(transformers.BertConfig(**SMALL, num_labels=labels)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    check_export(model, export(model, tmp_path / "model.onnx", LONGEST), INPUTS, outputs)
