"""A model that is measured and not trained: without dropout, its inputs on its device and no longer than it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

UNLIMITED = 100_000  # tokens: no BERT reads more; a tokenizer that records no limit says 10³⁰
USUAL = 512  # tokens: BERT's own limit


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in eval mode, so dropout is off. Afterwards each of its modules has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def on_device_of(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a batch on the device of the model's parameters: training may have moved the model to a GPU."""
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def positions_of(model: Any) -> int:
    """How many tokens a model of transformers has positions for; `UNLIMITED` where it does not say.

    RoBERTa's table begins with entries that are never used, up to that of the padding.
    """
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if table is None:
        return getattr(model.config, "max_position_embeddings", None) or UNLIMITED
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def longest_input(tokenizer: Any, model: Any = None) -> int:
    """How many tokens an input may have: no more than the tokenizer allows and the model has positions for; 512 where neither says."""
    longest = min(tokenizer.model_max_length, UNLIMITED if model is None else positions_of(model))
    return longest if longest < UNLIMITED else USUAL
