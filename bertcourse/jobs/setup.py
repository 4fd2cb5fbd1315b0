"""How a model is set up for training: learning rate, precision, and which weights are new."""

from __future__ import annotations

import math
from typing import Any

from bertcourse.base.errors import UserError

WIDTHS, RATES = (128, 768), (1e-3, 5e-5)  # --lr auto: the course's model, BERT-base
LOWEST_RATE, HIGHEST_RATE = 2e-5, 3e-3  # the highest: from random weights


def learning_rate(width: int) -> float:
    """`--lr auto`: 1e-3 at a width of 128 and below, 5e-5 at 768, on a straight line between logarithms, never below 2e-5."""
    (narrow, wide), (high, low) = WIDTHS, RATES
    share = math.log(width / narrow) / math.log(wide / narrow)
    return float(f"{min(high, max(LOWEST_RATE, high * (low / high) ** share)):.1e}")


def choose_precision(asked_for: str, *configs: Any) -> str:
    """`--precision auto`: bf16 where the GPU or the CPU computes in it, as in `fit`. Raises `UserError` for models that cannot."""
    if any(config.model_type == "deberta" for config in configs):  # of transformers: it fills scores with a number bf16 does not have
        if asked_for == "bf16":
            raise UserError("--precision bf16: deberta cannot compute in it, only deberta-v2 can: take --precision no",
                            "--precision bf16：deberta 不能用 bf16 计算，deberta-v2 可以：请用 --precision no")
        return "no"
    if asked_for != "auto":
        return asked_for
    import torch

    from bertcourse.training import fastest_precision
    return fastest_precision("cuda" if torch.cuda.is_available() else "cpu")


DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob",
            "dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout", "embedding_dropout", "mlp_dropout",
            "pooler_dropout")  # of all families


def keep_or_renew_head(model: Any, config: Any, task: Any) -> bool:
    """Does the checkpoint's head (its configuration tells) go on, being one for the same labels? Any other is made anew."""
    before = next(iter(config.architectures or []), "")
    same = before == type(model).__name__ and (task.name == "qa" or list(config.id2label.values()) == list(model.config.id2label.values()))
    if not same:
        initialise_head(model)
    return same


def initialise_head(model: Any) -> None:
    """New weights for all that is not the encoder: another task's, or other labels', mean nothing here."""
    from torch import nn
    for name, part in model.named_children():
        for module in part.modules() if name != model.base_model_prefix else ():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=getattr(model.config, "initializer_range", 0.02))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def reinitialise_top(model: Any, layers: int) -> None:
    """New weights for the top layers. Raises `UserError`."""
    if not layers:
        return
    from bertcourse.finetuning import reinitialise
    from bertcourse.tasks import TaskError
    total = model.config.num_hidden_layers
    if layers > total:
        raise UserError(f"--reinit {layers} is more than the {total} layers of this model: choose fewer",
                        f"--reinit {layers} 超过了这个模型的 {total} 层：请减少")
    try:
        reinitialise(model, layers)
    except TaskError as error:
        raise UserError(f"--reinit: {error.en}", f"--reinit：{error.zh}") from None


def check_layerwise(model: Any, decay: float | None) -> None:
    """Raises `UserError` for a model whose layers cannot have a learning rate each."""
    if not decay:
        return
    from bertcourse.finetuning import layer_groups
    from bertcourse.tasks import TaskError
    try:
        layer_groups(model, 1.0, decay)
    except TaskError as error:
        raise UserError(f"--llrd: {error.en}", f"--llrd：{error.zh}") from None
