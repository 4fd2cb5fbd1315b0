"""What distillation costs: a step of each kind beside training the student alone, the teacher asked once, attention scores.

    python benchmarks/distill.py [steps] [cache] [scores] [--rounds 9] [--threads N] [--json FILE] [--quick]

Whatever is compared runs in turn, in one process, so that a busy moment of the machine falls on all of it; medians are
compared, of wall clock and of CPU time. Reading, tokenising and imports are not counted. `--quick` shows that everything
works; its figures mean nothing. Exit code 1: a goal is missed; there is none here, the figures are to be known.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from measuring import Meter, Rounds, Sample, command, interleave, measure, rates, ratio

BATCH = 32
BERT_BASE = {"batch": 8, "length": 128}  # of `scores`


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    warmup: int = 5  # steps that are not counted
    steps: int = 40
    examples: int = 1024
    passes: int = 3  # of `scores`
    base: bool = True  # measure BERT-base's shape in `scores`


QUICK = {"rounds": 1, "warmup": 1, "steps": 2, "examples": 64, "passes": 1, "base": False}


# --- teacher, student, rows ---------------------------------------------------------------------------------------


@cache
def toy(examples: int) -> tuple[Any, list[dict[str, Any]]]:
    """The task of reviews and its encoded rows."""
    from bertcourse import profiles
    from bertcourse.corpus_tasks import dataset
    from bertcourse.tasks import task_of

    data = dataset("sentiment", "en", {"train": examples})["train"]
    task = task_of("sentiment", data, profiles.load("tiny").tokenizer())
    return task, task.encode(data)


def pair(task: Any) -> tuple[Any, Any]:
    """Student and teacher, the same weights each time; how fast they are does not depend on what they know."""
    import torch

    from bertcourse import profiles
    from bertcourse.distillation import new_model

    profile = profiles.load("tiny")
    torch.manual_seed(0)
    return (task.model(new_model(profile.student_config), attn_implementation="eager"),
            task.model(profile.model, attn_implementation="eager"))  # fmt: skip


def train(settings: Settings, module: Callable[[Any, Any], Any], cached: bool = False) -> Sample:
    """Steps of `fit` on what `module` makes of student and teacher; without the time in which the teacher is asked once."""
    from bertcourse.distillation import cache_logits, with_logits
    from bertcourse.training import fit

    task, rows = toy(settings.examples)
    student, teacher = pair(task)
    collate = task.collate
    if cached:
        rows, collate = cache_logits(teacher, rows, collate), with_logits(collate)
    meter = Meter(settings)
    fit(module(student, teacher), rows, steps=settings.warmup + settings.steps, lr=1e-3, batch_size=BATCH, collate=collate,
        precision="no", callbacks=[meter], progress=False)  # fmt: skip
    return meter.sample._replace(amount=settings.steps)


# --- parts --------------------------------------------------------------------------------------------------------

ALONE, SOFT = "student alone", "soft labels"


def steps(settings: Settings) -> dict[str, Any]:
    """Steps per second of each kind of distillation; ratios: how many times as long a step takes as the student's alone."""
    from bertcourse.distillation import Distiller, Weights
    from bertcourse.tinybert import Intermediate, Prediction, Terms

    def distil(**weights: float) -> Callable:
        return lambda student, teacher: Distiller(student, teacher, Weights(**weights))

    half = {"hard": 0.5, "soft": 0.5}
    made = {
        ALONE: lambda student, teacher: student,
        SOFT: distil(**half),
        "soft labels, hidden states": distil(**half, hidden=1.0),
        "soft labels, attention": distil(**half, attention=0.1),
        "soft labels, relation": distil(**half, relation=1.0),
        "TinyBERT's layers": Intermediate,
        "TinyBERT's layers, no attention": partial(Intermediate, terms=Terms(attention=False)),
        "TinyBERT's outputs": Prediction,
    }
    found = rates(interleave({name: partial(train, settings, module) for name, module in made.items()}, settings.rounds, warm=False))
    return {"unit": f"steps of {BATCH} examples", "arms": found,
            "ratios": {f"time: {name} / alone": ratio(found, ALONE, name) for name in made if name != ALONE}}


def bytes_of(settings: Settings) -> dict[str, int]:
    """What caching takes on disk, in bytes per example: logits, and what hidden states and scores would take."""
    import torch

    from bertcourse.distillation import cache_logits, observe

    task, rows = toy(settings.examples)
    _, teacher = pair(task)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "logits.pt")
        torch.save(torch.tensor([row["teacher_logits"].tolist() for row in cache_logits(teacher, rows, task.collate)]), file)
        logits = file.stat().st_size
    inside = 0
    for row in rows[:64]:
        with torch.no_grad():
            seen = observe(teacher, {name: value for name, value in task.collate([row]).items() if name != "labels"}, True, True)
        inside += sum(x.numel() * x.element_size() for x in (*seen.hidden, *seen.scores))
    return {"logits, file of all": logits, "logits, per example": round(logits / len(rows)),
            "hidden states and scores, per example": round(inside / min(64, len(rows)))}


def teacher_cached(settings: Settings) -> dict[str, Any]:
    """Steps per second with the teacher asked at every step, or once before; what the answers take on disk."""
    from bertcourse.distillation import Distiller, Weights, cache_logits

    def soft(student: Any, teacher: Any) -> Any:
        return Distiller(student, teacher, Weights(hard=0.5, soft=0.5))

    def ask() -> Sample:
        task, rows = toy(settings.examples)
        _, teacher = pair(task)
        return measure(lambda: len(cache_logits(teacher, rows, task.collate)) / BATCH)

    arms = {ALONE: partial(train, settings, lambda student, teacher: student), "asked at every step": partial(train, settings, soft),
            "asked once": partial(train, settings, soft, cached=True), "asking, by the batch": ask}  # fmt: skip
    found = rates(interleave(arms, settings.rounds, warm=False))
    return {"unit": f"steps of {BATCH} examples", "arms": found,
            "ratios": {"asked once / at every step": ratio(found, "asked once", "asked at every step"),
                       "asked once / student alone": ratio(found, "asked once", ALONE)},
            "bytes": bytes_of(settings)}


def scores(settings: Settings) -> dict[str, Any]:
    """Forward passes per second: with PyTorch's fused attention, which keeps nothing; with scores kept; with output_attentions=True."""
    import torch
    from transformers import AutoModel

    from bertcourse import profiles
    from bertcourse.bert import SHAPES
    from bertcourse.distillation import record_scores

    def passes(model: Any, inputs: Mapping[str, Any], how: str) -> Sample:
        def work() -> float:
            for _ in range(settings.passes):
                with torch.no_grad(), record_scores(model) if how == "scores" else nullcontext():
                    model(**inputs, output_attentions=how == "weights")
            return settings.passes

        return measure(work)

    def base(attention: str) -> Any:
        torch.manual_seed(0)
        return AutoModel.from_config(SHAPES["BERT-base"].config(), attn_implementation=attention).eval()

    task, rows = toy(settings.examples)
    ids = torch.randint(1000, 30000, (BERT_BASE["batch"], BERT_BASE["length"]))
    batch = {name: value for name, value in task.collate(rows[:BATCH]).items() if name != "labels"}
    made = {"tiny": (lambda attention: profiles.load("tiny").model(AutoModel, attn_implementation=attention), batch)}
    if settings.base:
        made["BERT-base"] = (base, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    arms = {f"{name}: {how}": partial(passes, make("sdpa" if how == "fused" else "eager"), inputs, how)
            for name, (make, inputs) in made.items() for how in ("fused", "scores", "weights")}  # fmt: skip
    found = rates(interleave(arms, settings.rounds))
    return {"unit": "forward passes", "arms": found,
            "ratios": {f"time: {name}, {how}": ratio(found, f"{name}: {to}", f"{name}: {of}") for name in made
                       for how, of, to in (("scores / weights", "scores", "weights"), ("scores / fused", "scores", "fused"))}}


# --- the command --------------------------------------------------------------------------------------------------

PARTS = {"steps": steps, "cache": teacher_cached, "scores": scores}


def main() -> int:
    """Measure, print the tables, write the JSON."""
    return command(__doc__, PARTS, Settings, QUICK)


if __name__ == "__main__":
    sys.exit(main())
