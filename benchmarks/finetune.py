"""What fine-tuning costs: our loop beside transformers' own and beside padding to 128, each remedy against over-fitting beside none.

    python benchmarks/finetune.py [loop] [remedies] [--rounds 9] [--threads N] [--json FILE] [--quick]

Whatever is compared runs in turn, in one process, so that a busy moment of the machine falls on all of it; medians are
compared, of wall clock and of CPU time. Reading, tokenising and imports are not counted. Inputs of `loop` are as long as those
of SST-2: as its training set says, where `BERTCOURSE_DATA` names a folder with `sst2/train.tsv`, else as a distribution fitted
to it. `--quick` shows that everything works; its figures mean nothing. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from measuring import BEST, Meter, Rounds, Sample, command, fastest, interleave, rates, ratio, train_with_trainer

BATCH = 32
WIDTH = 128  # what inputs are padded to where padding is fixed
WINDOW = 50  # batches that are sorted by length together
PIECES_PER_WORD = 1.2  # makes 13.3 pieces on average of SST-2's 9.41 words, and 64 of its longest sentence
SHAPE, SCALE, MOST_WORDS = 1.05, 8.5, 52  # words of SST-2 without its file: a gamma distribution, rounded up and cut off
WARMUP, DECAY, CLIP = 0.1, 0.01, 1.0  # of the schedule, of weights, of the gradient: as `fit` has them by default


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    warmup: int = 0  # steps that are not counted
    steps: int = 100  # of `loop`: an epoch, two windows that are sorted by length
    padded: int = 8  # of its arms whose inputs all have one width, where a step is like any other
    batches: int = 10  # in an epoch of `remedies`
    epochs: int = 3  # of `remedies`, after a first one that is not counted


QUICK = {"rounds": 1, "steps": 2, "padded": 1, "batches": 2, "epochs": 1}


# --- what is trained on -------------------------------------------------------------------------------------------


def input_lengths(n: int) -> tuple[list[int], str]:
    """Lengths of n inputs as in SST-2's training set, in pieces with [CLS] and [SEP], and where they come from.

    They are its quantiles, evenly spaced and shuffled: whatever n is, mean and tail are those of the whole set.
    """
    import numpy as np
    from scipy.stats import gamma

    at = (np.arange(n) + 0.5) / n
    folder = os.environ.get("BERTCOURSE_DATA")
    file = Path(folder or ".", "sst2", "train.tsv")
    if folder and file.is_file():
        rows = file.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
        counts = np.sort([len(row.rpartition("\t")[0].split()) for row in rows])
        words, source = counts[(at * len(counts)).astype(int)], f"the words of {len(counts):,} sentences of SST-2"
    else:
        words = np.clip(np.ceil(gamma.ppf(at, SHAPE, scale=SCALE)), 1, MOST_WORDS)
        source = f"gamma distribution, shape {SHAPE}, scale {SCALE}, at most {MOST_WORDS} words"
    lengths = (2 + np.round(PIECES_PER_WORD * words)).astype(int).tolist()
    random.Random(0).shuffle(lengths)
    return lengths, source


def make_rows(lengths: Sequence[int], tokenizer: Any) -> list[dict[str, Any]]:
    """Inputs of these lengths as a tokenizer gives them, of pieces drawn by chance: speed does not depend on what they say."""
    rng, special = random.Random(0), set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    return [{
        "input_ids": [tokenizer.cls_token_id, *rng.choices(ids, k=n - 2), tokenizer.sep_token_id],
        "token_type_ids": [0] * n, "attention_mask": [1] * n, "labels": rng.randrange(2),
    } for n in lengths]  # fmt: skip


def padded_rows(rows: Sequence[Mapping[str, Any]], pad: int) -> list[dict[str, Any]]:
    """The same, padded by a tokenizer that is told `padding="max_length"`."""
    fill = {"input_ids": pad, "token_type_ids": 0, "attention_mask": 0}
    return [{**row, **{name: row[name] + [value] * (WIDTH - len(row[name])) for name, value in fill.items()}} for row in rows]


# --- loop ---------------------------------------------------------------------------------------------------------
#
# What is fair about it. Both sides train transformers' BertForSequenceClassification from the same weights, with AdamW, a linear
# schedule, decay and clipping of the same strength. Every run sees each example once, an epoch of whole batches: how long the
# batches of a moment are is a matter of chance, how long all of them are is not. Both sides sort by length within 50 batches. Our
# loop always does; Trainer does so from 200 batches on, within fewer on a smaller set, so it is told to here: SST-2 has 2,105.
# Trainer's rows lie in memory as lists, which is faster than a datasets.Dataset; it logs and saves nothing, and its best arm is
# the best of eight. The clock starts when the first batch is there. Tokens are counted before each forward pass of either side;
# our loop counts them once more by itself.


def new_model(attention: str | None = None) -> Any:
    """The tiny encoder under a head with two labels, the same weights each time."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from bertcourse import profiles

    torch.manual_seed(0)
    kind = {"attn_implementation": attention} if attention else {}
    return profiles.load("tiny").model(AutoModelForSequenceClassification, num_labels=2, **kind)


def run_ours(settings: Settings, rows: list, collate: Callable | None, attention: str | None, precision: str = "no") -> Meter:
    """Steps of our own loop."""
    from bertcourse.training import fit

    model, meter = new_model(attention), Meter(settings)
    meter.watch(model)
    fit(model, rows, steps=settings.steps, warmup=WARMUP, weight_decay=DECAY, clip=CLIP, batch_size=BATCH, collate=collate,
        precision=precision, callbacks=[meter], progress=False)  # fmt: skip
    return meter


def run_trainer(settings: Settings, rows: list, collate: Callable | None, attention: str | None, **options: Any) -> Meter:
    """Steps of transformers' Trainer."""
    from transformers import trainer_pt_utils

    meter = Meter(settings)
    group = partial(trainer_pt_utils.get_length_grouped_indices, mega_batch_mult=WINDOW)
    with mock.patch.object(trainer_pt_utils, "get_length_grouped_indices", group):
        train_with_trainer(
            meter, new_model(attention), rows, collate, per_device_train_batch_size=BATCH, max_steps=settings.steps,
            warmup_steps=round(WARMUP * settings.steps), weight_decay=DECAY, max_grad_norm=CLIP, **options)  # fmt: skip
    return meter


def loop_runs(settings: Settings, tokenizer: Any, lengths: Sequence[int]) -> dict[str, Callable[[], Meter]]:
    """What `loop` compares, by name."""
    from transformers import DataCollatorWithPadding

    from bertcourse.tasks import Classification

    rows, runs = make_rows(lengths, tokenizer), {}
    ours, theirs = Classification(tokenizer).collate, DataCollatorWithPadding(tokenizer)
    for bf16, attention in itertools.product((False, True), ("eager", "sdpa")):
        kind = f"{'bf16' if bf16 else 'fp32'}, {attention}"
        runs[f"ours, {kind}"] = partial(run_ours, settings, rows, ours, attention, "bf16" if bf16 else "no")
        options = {"bf16": bf16, **BEST}
        runs[f"Trainer, {kind}"] = partial(run_trainer, settings, rows, theirs, attention, **options)
        # Workers that persist are there at the end of the epoch, when their CPU time is taken.
        options |= {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
        runs[f"Trainer, {kind}, 2 workers"] = partial(run_trainer, settings, rows, theirs, attention, **options)
    few = replace(settings, steps=settings.padded)
    padded = padded_rows(rows[: few.steps * BATCH], tokenizer.pad_token_id)
    runs[f"padded to {WIDTH}, default Trainer"] = partial(run_trainer, few, padded, None, None)
    runs[f"padded to {WIDTH}, ours"] = partial(run_ours, few, padded, None, None)
    return runs


def loop(settings: Settings) -> dict[str, Any]:
    """Examples per second of our loop and of transformers' Trainer, on inputs as long as those of SST-2."""
    import transformers

    from bertcourse import profiles

    transformers.utils.logging.set_verbosity_error()
    tokenizer = profiles.load("tiny").tokenizer()
    lengths, source = input_lengths(settings.steps * BATCH)
    padding: dict[str, float] = {}

    def arm(name: str, run: Callable[[], Meter]) -> Sample:
        meter = run()
        side, part = name.split(",")[0], 1 - meter.seen / meter.places
        padding[side] = max(part, padding.get(side, 0.0))
        return meter.sample._replace(amount=(meter.last - meter.first) * BATCH)

    def arms(settings: Settings) -> dict[str, Callable[[], Sample]]:
        some = lengths[: settings.steps * BATCH]
        return {name: partial(arm, name, run) for name, run in loop_runs(settings, tokenizer, some).items()}

    if not settings.quick:  # imports, threads, memory: a few steps of everything
        interleave(arms(replace(settings, **{name: QUICK[name] for name in ("steps", "padded")})), 0)
        padding.clear()
    found = rates(interleave(arms(settings), settings.rounds, warm=False))
    mine, other, fixed = fastest(found, "ours, "), fastest(found, "Trainer, "), f"padded to {WIDTH}, default Trainer"
    alike = {kind: (fastest(found, f"ours, {kind}"), fastest(found, f"Trainer, {kind}")) for kind in ("fp32", "bf16")}
    return {
        "unit": "examples",
        "arms": found,
        "ratios": {
            "ours / best Trainer": ratio(found, mine, other, 1.0),
            f"ours / default Trainer, padded to {WIDTH}": ratio(found, mine, fixed, 4.0),
            **{f"ours / best Trainer, {kind}": ratio(found, *pair) for kind, pair in alike.items()},
            "the loop alone: ours / Trainer, padded": ratio(found, f"padded to {WIDTH}, ours", fixed),
            "padding alone: ours, fp32, sdpa / padded": ratio(found, "ours, fp32, sdpa", f"padded to {WIDTH}, ours"),
        },
        "padding": padding,
        "lengths": {"from": source, "mean": sum(lengths) / len(lengths), "longest": max(lengths)},
    }


# --- remedies -----------------------------------------------------------------------------------------------------

PLAIN, UNFUSED = "plain", "plain, AdamW not fused"


def adam(kind: str, decay: float, model: Any) -> Any:
    """torch's Adam or AdamW as it is by default, in which vectors do not decay: in Adam the decay is L2, part of the gradient."""
    import torch

    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
              {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip
    return getattr(torch.optim, kind)(groups, lr=5e-5, eps=1e-6)


def remedies_of(metrics: Callable, evaluations: int) -> dict[str, dict[str, Any]]:
    """What each adds to a plain `fit`, and `dropout`, which is the model's."""
    from bertcourse.finetuning import FGM, PGD, Mixup, layerwise

    return {
        PLAIN: {},
        "dropout 0.1": {"dropout": 0.1},
        "clipping": {"clip": 1.0},
        "decoupled decay": {"weight_decay": 0.01},
        "L2 in Adam": {"optimizer": partial(adam, "Adam", 0.01)},
        "FGM": {"callbacks": [FGM()]},
        "PGD": {"callbacks": [PGD()]},
        "Mixup": {"loss": Mixup()},
        "layer-wise rates": {"optimizer": layerwise(5e-5, 0.8, weight_decay=0.0)},
        # So patient that it never stops: it is to cost what it costs in every epoch.
        "early stopping": {"metrics": metrics, "better": ("accuracy", "max"), "patience": evaluations + 1},
        UNFUSED: {"optimizer": partial(adam, "AdamW", 0.0)},  # what a remedy with an optimiser of its own goes without
    }


def run_remedy(settings: Settings, task: Any, rows: list, dropout: float = 0.0, callbacks: Sequence = (), **remedy: Any) -> Meter:
    """Steps of a training with one remedy or none."""
    import torch

    from bertcourse import profiles
    from bertcourse.training import fit

    torch.manual_seed(0)
    model = task.model(profiles.load("tiny").model, attn_implementation="eager", hidden_dropout_prob=dropout,
                       attention_probs_dropout_prob=dropout)  # fmt: skip
    meter, plain = Meter(settings), {"weight_decay": 0.0, "clip": None}
    fit(model, rows, steps=settings.warmup + settings.steps, batch_size=BATCH, collate=task.collate, precision="no",
        callbacks=[*callbacks, meter], progress=False, **(plain | remedy))  # fmt: skip
    return meter


def remedies(settings: Settings) -> dict[str, Any]:
    """Steps per second with each remedy of chapter 4.3; ratios: how many times as long a step takes as without."""
    import transformers

    from bertcourse import profiles
    from bertcourse.corpus_tasks import dataset
    from bertcourse.tasks import task_of

    transformers.utils.logging.set_verbosity_error()
    # From the end of the first epoch to the end of the last: whole epochs, each with the evaluation after the one before.
    settings = replace(settings, warmup=settings.batches, steps=settings.epochs * settings.batches)
    n = settings.batches * BATCH
    data = dataset("sentiment", "en", {"train": n, "validation": n // 5})
    task = task_of("sentiment", data["train"], profiles.load("tiny").tokenizer())
    rows = task.encode(data["train"])

    def arm(remedy: Mapping[str, Any]) -> Sample:
        return run_remedy(settings, task, rows, **remedy).sample._replace(amount=settings.steps)

    made = remedies_of(task.metrics(data["validation"]), settings.epochs + 1)
    found = rates(interleave({name: partial(arm, remedy) for name, remedy in made.items()}, settings.rounds, warm=False))
    ratios = {f"time: {name} / {PLAIN}": ratio(found, PLAIN, name) for name in made if name != PLAIN}
    own = [name for name, remedy in made.items() if "optimizer" in remedy and name != UNFUSED]
    return {
        "unit": f"steps of {BATCH} examples",
        "arms": found,
        "ratios": ratios | {f"time: {name} / not fused": ratio(found, UNFUSED, name) for name in own},
        "lengths": {"mean": sum(len(row["input_ids"]) for row in rows) / n, "examples": n, "evaluated": n // 5},
    }


# --- the command --------------------------------------------------------------------------------------------------

PARTS = {"loop": loop, "remedies": remedies}


def main() -> int:
    """Measure, print the tables, write the JSON."""
    return command(__doc__, PARTS, Settings, QUICK)


if __name__ == "__main__":
    sys.exit(main())
