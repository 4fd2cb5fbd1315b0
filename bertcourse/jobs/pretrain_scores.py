"""How well a pre-training goes: scores on held-out text, what frequencies alone would give, and a line at each evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bertcourse.jobs.reporter import Reporter

DEV_INPUTS = 2_000  # pairs that an evaluation looks at, at most


def batch_scores(model: Any, batch: Mapping[str, Any]) -> Any:
    """Two losses and two shares of right answers, of words and of pairs: a tensor (4,)."""
    import torch
    output, labels = model(**batch), batch["labels"]
    words = output.prediction_logits.argmax(-1) == labels[labels != -100]
    pairs = output.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
    return torch.cat([output["losses"].float(), torch.stack([words.float().mean(), pairs.float().mean()])])


def batch_counts(batch: Mapping[str, Any]) -> Any:
    """How many words and pairs these four are means of."""
    from bertcourse.pretraining import items
    return items(batch).repeat(2)


class Scores:
    """How well a model does on held-out text: the same pairs and masks each time."""

    def __init__(self, recipe: Any, tokenizer: Any, pieces: Mapping[str, Any]) -> None:
        import numpy as np

        from bertcourse.pretraining import Collator, Inputs, chances, segment_pairs
        self.recipe, self.train, self.vocab_size = recipe, pieces["train"], len(tokenizer)
        dev, longest = pieces["dev"], max(length for length, _ in recipe.lengths)
        order = range(min(len(dev), DEV_INPUTS))
        drawn = {"task": recipe.task, "redraw_short": recipe.redraw_short}
        pairs = len(segment_pairs(dev, order, longest, np.random.default_rng(0), **drawn))
        self.inputs = Inputs(dev, tokenizer, min(max(pairs, 2), DEV_INPUTS), longest, **drawn)
        weights = chances(self.train, recipe.masking) if recipe.masking.rarity else None
        self.collate = Collator(tokenizer, recipe.masking, weights)

    def __call__(self, model: Any) -> dict[str, float]:
        """Losses (natural logarithm), and shares of right answers."""
        from bertcourse.training import evaluate
        task = self.recipe.task
        mlm, pairs, words_right, pairs_right = evaluate(
            model, self.inputs, batch_size=self.recipe.batch_size, collate=self.collate, loss=batch_scores, items=batch_counts,
            precision=self.recipe.precision)["terms"]
        return {"loss": mlm + pairs, "mlm_loss": mlm, "mlm_perplexity": math.exp(min(mlm, 700)), "mlm_accuracy": words_right,
                f"{task}_loss": pairs, f"{task}_accuracy": pairs_right}

    def baseline(self) -> dict[str, float]:
        """What the frequencies of pieces and of answers give, without looking at the text."""
        import numpy as np
        frequency = self.train.counts(self.vocab_size) + 1.0
        labels, negatives, size = np.zeros(self.vocab_size), 0, self.recipe.batch_size
        for start in range(0, len(self.inputs), size):
            batch = self.collate([self.inputs[i] for i in range(start, min(start + size, len(self.inputs)))])
            found = batch["labels"].numpy()
            labels += np.bincount(found[found != -100], minlength=self.vocab_size)
            negatives += int(batch["next_sentence_label"].sum())
        loss = float(-(labels * np.log(frequency / frequency.sum())).sum() / labels.sum())
        share = negatives / len(self.inputs)
        return {"mlm_loss": loss, "mlm_perplexity": math.exp(loss),
                "mlm_accuracy": float(labels[frequency.argmax()] / labels.sum()),
                f"{self.recipe.task}_accuracy": max(share, 1 - share)}


class EvaluationReport:
    """A callback of `training.fit`: a line at each evaluation."""

    __qualname__ = "Report"  # checkpoints name their callbacks: those of earlier versions can be resumed

    def __init__(self, recipe: Any, reporter: Reporter) -> None:
        self.recipe, self.reporter = recipe, reporter

    def on_eval(self, state: Any) -> None:
        """Say how it stands and how long it will take."""
        steps, words, pairs = self.recipe.steps, state.dev["mlm_accuracy"], state.dev[f"{self.recipe.task}_accuracy"]
        left = state.history.seconds / state.step * (steps - state.step) / 60
        self.reporter.above_bar(
            f"step {state.step:,} of {steps:,}: loss {state.loss:.3f}; held out: masked words {words:.1%}, "
            f"sentence pairs {pairs:.1%}; {left:.0f} min left",
            f"第 {state.step:,} 步，共 {steps:,} 步：损失 {state.loss:.3f}；留出文本：掩码词 {words:.1%}，"
            f"句对 {pairs:.1%}；还需 {left:.0f} 分钟")
