"""What one NVIDIA card does with BERT-base: pre-training, inference, copies, batches without padding.

    python benchmarks/gpu.py [training] [inference] [transfer] [--seconds 360] [--batch-size 64]
                             [--json FILE] [--quick]

The weights and the token ids are random: the speed does not depend on them. The lengths of the inputs are
drawn with a fixed seed from a log-normal distribution (median 128 tokens, sigma 0.6, cut at 512). Only torch,
transformers, accelerate, safetensors and numpy must be installed; `bertcourse` is taken from the checkout
that this file is in.

The run keeps to a time budget, by default six minutes in all. Each part has a share of the time that is left.
An arm that does not fit is skipped, and so is a part; the JSON names both. An arm that runs out of memory, or
that torch.compile cannot compile, is recorded as such, and the run goes on. Arms are visited in turn, every
second round in reverse order. A visit warms up first and then takes several samples. An arm that still has to
be compiled comes last in its round.

training: real tokens per second, without padding, of masked-language-model steps in bf16 (autocast; the
weights are fp32). `fit` is `bertcourse.training.fit`; `Trainer` is transformers' with its fastest settings
(fused AdamW, batches grouped by length, pinned memory, no search for NaN in the losses). Both get the same
rows and the same collator. FLOPs of a real token, forward and backward:

    6 × (layers × (4 × hidden² + 2 × hidden × intermediate) + hidden² + hidden × vocabulary)
    + 12 × layers × hidden × Σ length² / Σ length

The first line is the matrix products with parameters, the second the attention scores and the weighted sums
of the values. A multiply-add counts as two operations; the backward pass costs twice the forward pass;
embedding look-ups, normalisation, softmax and padding are not counted. The peak is what a large bf16
`torch.mm` reaches in the same run.

inference: a classifier; inputs without padding, but with an attention mask, as a tokenizer makes it. Latency:
the time of one forward pass, until the card has finished. Throughput: forward passes queued one after the
other, with one wait at the end. fp32 runs with TF32 as PyTorch sets it (off; the JSON says so); in bf16 the
weights are bf16, too. Compiled: once for batches of 1 and once for all others.

transfer: copies from the CPU's memory to the card, the input path of training with and without pinned memory,
and the same examples batched with less and less padding. `packed, block-diagonal mask` puts several examples
into one row of full length; `packed, nested tensor` has no padding at all (torch.nested and
scaled_dot_product_attention). Without a card no memory is pinned.

`--quick` runs almost nothing on a tiny model, on the CPU where there is no card; torch.compile then uses
backend "eager" on the CPU. Its figures mean nothing. Exit code 1: an arm failed for another reason than
memory or time, or the hard time limit was reached. Exit code 2: wrong arguments, or no card.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

STARTED = time.monotonic()  # imports count as well
SHARES = {"training": 0.57, "inference": 0.28, "transfer": 0.15}  # of the time, by part
RESERVE = 10.0  # seconds kept for the last visit's end and for writing the file
LEAST = 10.0  # seconds without which a part is not started
COMPILE = 60.0  # seconds that compiling is expected to take, before one has been measured
PAD, CLS, SEP, MASK = 0, 1, 2, 3  # token ids; regular ones start at FIRST
FIRST = 5
PEAK = "matrix product, bf16"
PADDED = "padded to full length"


@dataclass(frozen=True)
class Settings:
    """How much is measured, and of what shape."""

    seconds: float = 360.0  # in all
    quick: bool = False
    backend: str = "inductor"  # of torch.compile
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    vocabulary: int = 30_522
    longest: int = 512  # tokens of an input
    median: int = 128
    sigma: float = 0.6  # of the lengths' logarithm
    seed: int = 0
    batch_size: int = 64
    warmup: int = 8  # steps of a training visit that are not counted
    steps: int = 6  # of a sample of training
    segments: int = 4  # samples of a training visit
    rounds: int = 4  # visits of each arm, where there is time
    workers: int = 4  # of a data loader, in the arms that have some
    matrix: int = 8_192  # rows of the matrix product
    products: int = 20  # of a sample
    batches: tuple[int, ...] = (1, 8, 32, 128)  # of inference
    lengths: tuple[int, ...] = (32, 128, 512)
    inference_rounds: int = 3
    transfer_rounds: int = 3
    calls_s: float = 0.1  # seconds of calls in a visit of inference, at least `calls`
    calls: int = 7
    transfer_batches: int = 20  # of the examples that `transfer` trains on
    copy_mb: int = 64


QUICK = {
    "quick": True,
    "layers": 1,
    "hidden": 16,
    "heads": 2,
    "vocabulary": 64,
    "longest": 24,
    "median": 10,
    "batch_size": 4,
    "warmup": 1,
    "steps": 1,
    "segments": 2,
    "rounds": 2,
    "workers": 1,
    "matrix": 64,
    "products": 2,
    "batches": (1, 2),
    "lengths": (8,),
    "inference_rounds": 2,
    "transfer_rounds": 2,
    "calls_s": 0.0,
    "calls": 3,
    "transfer_batches": 3,
    "copy_mb": 1,
}


# --- time ---------------------------------------------------------------------------------------------------


class Budget:
    """Seconds of the run, divided among parts and visits. What a part leaves unused goes to later parts."""

    def __init__(
        self,
        seconds: float,
        shares: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        begin: float | None = None,
    ):
        self.clock, self.waiting = clock, dict(shares)  # parts that have not been started
        self.begin = clock() if begin is None else begin
        self.end = self.begin + seconds
        self.part_end = self.visit_end = self.end
        self.compile_s = COMPILE

    def used(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self.begin

    def left(self) -> float:
        """Seconds that are left to the current part."""
        return max(0.0, self.part_end - self.clock())

    def start_part(self, part: str) -> float:
        """Give a part its share of what is left; returns its seconds."""
        share = self.waiting[part] / sum(self.waiting.values())
        del self.waiting[part]
        now = self.clock()
        self.part_end = self.visit_end = now + max(0.0, self.end - now) * share
        return self.left()

    def start_visit(self, arms: int) -> None:
        """Give a visit its share: `arms` visits are still to come in this round, this one included."""
        self.visit_end = self.clock() + self.left() / arms

    def is_late(self) -> bool:
        """Has the current visit used its share?"""
        return self.clock() >= self.visit_end


class Sample(NamedTuple):
    """Some work, and how long it took."""

    amount: float
    seconds: float


@dataclass
class Compiler:
    """State of the compiled arms of a model: for which kinds of input they are ready, and why one failed."""

    ready: set[Any] = field(default_factory=set)
    failure: str | None = None


@dataclass
class Arm:
    """One of the things that are compared."""

    name: str
    unit: str
    run: Callable[[Callable[[], bool]], list[Sample]]  # a visit; it is given "is it late?"
    most: int | None = None  # visits
    compiler: Compiler | None = None
    key: Any = None  # what is compiled once for all visits; None: each visit compiles
    samples: list[Sample] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # milliseconds
    status: str = "skipped"
    reason: str | None = "no time was left"
    visits: int = 0
    first_visit_s: float | None = None

    def must_compile(self) -> bool:
        """Will the next visit compile the model?"""
        return self.compiler is not None and self.key not in self.compiler.ready

    def is_due(self) -> bool:
        """Is there another visit?"""
        if self.status not in ("ok", "skipped"):
            return False
        return self.most is None or self.visits < self.most

    def needed(self, budget: Budget) -> float:
        """Seconds that the next visit is expected to take."""
        if self.must_compile():
            return budget.compile_s
        if not self.samples:
            return 1.0
        return 1.0 + 3.0 * sum(sample.seconds for sample in self.samples) / self.visits

    def fail(self, status: str, reason: str) -> None:
        """Record why there are no figures."""
        self.status, self.reason = status, reason
        self.samples.clear()
        self.latencies.clear()

    def row(self) -> dict[str, Any]:
        """The arm as the JSON has it."""
        if self.status != "ok":
            return {"status": self.status, "reason": self.reason, "unit": self.unit}
        found = {
            "status": "ok",
            "unit": self.unit,
            "per_s": statistics.median(sample.amount / sample.seconds for sample in self.samples),
            "samples": [list(sample) for sample in self.samples],
            "visits": self.visits,
            "first_visit_s": self.first_visit_s,
        }
        return found | ({"latency_ms": summarise(self.latencies)} if self.latencies else {})


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Median and 95th percentile, interpolated linearly."""
    import numpy as np

    return {
        "median": statistics.median(values),
        "p95": float(np.percentile(values, 95)),
        "samples": list(values),
    }


def describe_error(error: BaseException) -> tuple[str, str]:
    """Status and reason, one sentence, of an error and of those that led to it."""
    import torch

    chain, link = [], error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
    for link in chain:
        if isinstance(link, torch.cuda.OutOfMemoryError) or "out of memory" in str(link).lower():
            return "out of memory", sentence
    return "failed", sentence


def visit(arm: Arm, budget: Budget) -> None:
    """Run an arm once, if there is time for it, and record what came of it."""
    if arm.compiler and arm.compiler.failure:
        arm.fail("failed", arm.compiler.failure)
        return
    needed = arm.needed(budget)
    if budget.left() < needed:
        if not arm.samples:
            arm.reason = (
                f"no time was left: it needs about {needed:.0f} s, and {budget.left():.0f} s remained"
            )
        return
    compiles, start = arm.must_compile(), budget.clock()
    try:
        samples = arm.run(budget.is_late)
    except Exception as error:  # whatever it is, the other arms must be measured
        arm.fail(*describe_error(error))
        if compiles and arm.status == "failed":
            arm.compiler.failure = arm.reason
    else:
        record(arm, samples, compiles, budget.clock() - start, budget)
    if arm.status != "ok":
        free_memory()


def record(arm: Arm, samples: Sequence[Sample], compiles: bool, seconds: float, budget: Budget) -> None:
    """Add what a visit measured."""
    arm.samples += samples
    arm.visits += 1
    if arm.samples:
        arm.status, arm.reason = "ok", None
    if arm.first_visit_s is None:
        arm.first_visit_s = seconds
    if compiles:
        budget.compile_s = 0.8 * seconds  # the next one finds some kernels in the cache
        if arm.key is not None:
            arm.compiler.ready.add(arm.key)


def take_turns(
    arms: Sequence[Arm], budget: Budget, rounds: int, save: Callable[[], None] | None = None
) -> None:
    """Visit all arms in turn; every second round in reverse order, arms that have to be compiled last."""
    for number in range(rounds):
        order = [arm for arm in arms if arm.is_due()]
        if number % 2:
            order.reverse()
        order.sort(key=Arm.must_compile)
        for i, arm in enumerate(order):
            if save and arm.must_compile():  # it may take longer than there is time
                save()
            budget.start_visit(len(order) - i)
            visit(arm, budget)
        if save:
            save()


def ratios(rows: Mapping[str, Any], pairs: Sequence[tuple[str | None, str | None]]) -> dict[str, Any]:
    """How many times as fast one arm is as another, by the medians; pairs without figures are left out."""
    found = {}
    for of, to in pairs:
        if all(name in rows and "per_s" in rows[name] for name in (of, to)):
            found[f"{of} / {to}"] = {"of": of, "to": to, "wall": rows[of]["per_s"] / rows[to]["per_s"]}
    return found


def fastest(rows: Mapping[str, Any], prefix: str) -> str | None:
    """The arm with the highest median among those whose name begins so."""
    names = [name for name, row in rows.items() if name.startswith(prefix) and "per_s" in row]
    return max(names, key=lambda name: rows[name]["per_s"], default=None)


# --- the report ---------------------------------------------------------------------------------------------


class Report:
    """The JSON: written after each round of visits and after each part, whole or not at all."""

    def __init__(self, found: dict[str, Any], path: Path | None, budget: Budget):
        self.found, self.path, self.budget = found, path, budget
        self.part: str | None = None
        self.text = ""
        self.lock = threading.Lock()

    def write(self) -> None:
        """Write the figures as they are now."""
        self.found["seconds"] = {
            "budget": self.found["settings"]["seconds"],
            "used": round(self.budget.used(), 1),
        }
        self.text = json.dumps(self.found, indent=1) + "\n"
        self._write(self.text)

    def _write(self, text: str) -> None:
        from bertcourse.training import write_whole
        with self.lock:
            if self.path:
                write_whole(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def save_arms(self, arms: Sequence[Arm]) -> None:
        """Keep what the arms of the current part have measured so far."""
        part = self.found["parts"].setdefault(self.part, {"status": "unfinished", "arms": {}})
        part["arms"] |= {arm.name: arm.row() for arm in arms}
        self.write()

    def stop(self, leave: Callable[[int], Any] = os._exit) -> None:
        """At the hard limit, from another thread: write what was measured before, and end the process."""
        found = json.loads(self.text or json.dumps(self.found))
        found["parts"].setdefault(self.part, {"status": "unfinished", "arms": {}})
        waiting = [part for part in self.budget.waiting if part not in found["parts"]]
        for part in waiting:
            found["parts"][part] = {"status": "skipped", "reason": "no time was left"}
        found["skipped"] = found.get("skipped", []) + waiting
        sentence = f"the time limit of {found['settings']['seconds']:.0f} s was reached in {self.part}"
        found["stopped"] = sentence
        self._write(json.dumps(found, indent=1) + "\n")
        print(f"gpu.py: {sentence}; what was measured before is kept", file=sys.stderr, flush=True)
        leave(1)


def start_watchdog(report: Report, seconds: float) -> threading.Timer:
    """End the process at the hard limit, even in the middle of a compilation."""
    timer = threading.Timer(max(0.0, seconds - 2 - report.budget.used()), report.stop)
    timer.daemon = True
    timer.start()
    return timer


# --- bertcourse and transformers ----------------------------------------------------------------------------


@contextlib.contextmanager
def fresh_accelerate(**environment: str) -> Iterator[None]:
    """Run something without accelerate's shared state and variables of earlier runs, and leave none."""
    from accelerate.state import AcceleratorState, GradientState

    before = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
            del os.environ[name]
        os.environ.update(before)
        reset()


def configuration(settings: Settings) -> Any:
    """BERT's configuration of this shape."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.hidden,
        max_position_embeddings=settings.longest,
        num_labels=2,
    )


def make_model(
    settings: Settings, device: Any, attention: str = "sdpa", kind: str = "BertForMaskedLM"
) -> Any:
    """A model of transformers with random weights, on the device."""
    import torch
    import transformers

    torch.manual_seed(settings.seed)
    with torch.device(device):
        return getattr(transformers, kind)._from_config(
            configuration(settings), attn_implementation=attention
        )


def compile_model(model: Any, settings: Settings) -> Any:
    """Have the model compiled at its first call, once for all lengths. Returns the same model."""
    model.compile(backend=settings.backend, dynamic=True)
    return model


def flops_per_token(settings: Settings, lengths: Sequence[int]) -> float:
    """Operations of a training step for a real token, on average over inputs of these lengths."""
    hidden, layers = settings.hidden, settings.layers
    layer = 4 * hidden**2 + 2 * hidden * (4 * hidden)
    head = hidden**2 + hidden * settings.vocabulary
    mean = sum(int(n) ** 2 for n in lengths) / sum(int(n) for n in lengths)
    return 6 * (layers * layer + head) + 12 * layers * hidden * mean


def synchronize(device: Any) -> None:
    """Wait until the card has finished."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give back what is no longer used."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- what is trained on -------------------------------------------------------------------------------------


def draw_lengths(settings: Settings, count: int) -> list[int]:
    """Lengths of inputs, from a log-normal distribution."""
    import numpy as np

    drawn = np.random.default_rng(settings.seed).lognormal(math.log(settings.median), settings.sigma, count)
    return np.clip(np.rint(drawn), 4, settings.longest).astype(int).tolist()


def make_rows(settings: Settings, count: int) -> list[dict[str, Any]]:
    """Inputs of random tokens: [CLS], the tokens, [SEP]."""
    import numpy as np

    rng, rows = np.random.default_rng(settings.seed + 1), []
    for length in draw_lengths(settings, count):
        ids = rng.integers(FIRST, settings.vocabulary, length)
        ids[0], ids[-1] = CLS, SEP
        rows.append({"input_ids": ids})
    return rows


def lengths_of(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of each row."""
    return [len(row["input_ids"]) for row in rows]


def round_up(length: int, multiple: int = 8) -> int:
    """The next multiple, as tensor cores and compiled kernels prefer it."""
    return -(-length // multiple) * multiple


def mask_tokens(ids: Any, vocabulary: int) -> tuple[Any, Any]:
    """Inputs and labels: 15 % of the tokens are chosen, of these 80 % become [MASK] and 10 % random."""
    import torch

    chosen = (torch.rand(ids.shape) < 0.15) & (ids >= FIRST)
    chosen[0, 1] = True  # a batch without labels would have no loss
    labels = torch.where(chosen, ids, -100)
    draw = torch.rand(ids.shape)
    hidden = torch.where(chosen & (draw < 0.8), MASK, ids)
    other = torch.randint(FIRST, vocabulary, ids.shape)
    return torch.where(chosen & (draw >= 0.9), other, hidden), labels


@dataclass(frozen=True)
class Collator:
    """Rows as a batch with masked tokens, as wide as its longest row or as `width`."""

    vocabulary: int
    width: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        lengths = torch.tensor(lengths_of(rows))
        ids = torch.full((len(rows), self.width or round_up(int(lengths.max()))), PAD)
        for i, row in enumerate(rows):
            ids[i, : lengths[i]] = torch.from_numpy(row["input_ids"])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        hidden, labels = mask_tokens(ids, self.vocabulary)
        return {"input_ids": hidden, "attention_mask": mask, "labels": labels}


# --- training -----------------------------------------------------------------------------------------------


class Meter:
    """Takes samples of a training run after its warm-up, and ends it. Also a callback of `fit`."""

    def __init__(self, settings: Settings, device: Any, is_late: Callable[[], bool]):
        self.settings, self.device, self.is_late = settings, device, is_late
        self.samples: list[Sample] = []
        self.last: tuple[float, float] | None = None  # tokens and time at the end of the sample before
        self.total = settings.warmup + settings.steps * settings.segments

    def mark(self, step: int, count_tokens: Callable[[], float]) -> bool:
        """After a step. True when it was the last one."""
        steps = step - self.settings.warmup
        if steps < 0 or steps % self.settings.steps:
            return False
        synchronize(self.device)
        now = (count_tokens(), time.perf_counter())
        if self.last:
            self.samples.append(Sample(now[0] - self.last[0], now[1] - self.last[1]))
        self.last = now
        return step >= self.total or (bool(self.samples) and self.is_late())

    def on_step_end(self, state: Any) -> None:
        """Of our loop, which counts tokens by itself."""
        state.stop = self.mark(state.step, lambda: state.tokens)


def run_fit(
    settings: Settings, device: Any, rows: Sequence[Any], make: Callable[[], Any], is_late: Callable[[], bool]
) -> list[Sample]:
    """A visit of our loop."""
    from bertcourse import training

    meter = Meter(settings, device, is_late)
    with fresh_accelerate():
        training.fit(
            make(),
            rows,
            steps=meter.total,
            lr=1e-4,
            batch_size=settings.batch_size,
            precision="bf16",
            collate=Collator(settings.vocabulary),
            callbacks=[meter],
            log_every=meter.total,
            seed=settings.seed,
            progress=False,
        )
    gc.collect()  # the loop's objects refer to each other
    return meter.samples


@functools.cache
def counting_trainer() -> type:
    """transformers' Trainer that counts tokens on the card, without waiting for it."""
    import transformers

    class CountingTrainer(transformers.Trainer):
        tokens: Any = 0

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.tokens = self.tokens + inputs["attention_mask"].sum()
            return super().training_step(model, inputs, *args, **kwargs)

    return CountingTrainer


def trainer_options(settings: Settings, device: Any, workers: int, compiled: bool) -> dict[str, Any]:
    """Trainer's fastest settings."""
    import transformers

    found = {
        "optim": "adamw_torch_fused",
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.type == "cuda",
        "dataloader_num_workers": workers,
        "bf16": True,
    }
    known = transformers.TrainingArguments.__dataclass_fields__
    if "train_sampling_strategy" in known:
        found["train_sampling_strategy"] = "group_by_length"
    else:  # its name in earlier versions
        found["group_by_length"] = True
    if compiled:
        found |= {"torch_compile": True, "torch_compile_backend": settings.backend}
    return found


def run_trainer(
    settings: Settings,
    device: Any,
    rows: Sequence[Any],
    attention: str,
    workers: int,
    compiled: bool,
    is_late: Callable[[], bool],
) -> list[Sample]:
    """A visit of transformers' Trainer, which neither writes nor prints anything."""
    import transformers

    meter = Meter(settings, device, is_late)
    dynamic = {"ACCELERATE_DYNAMO_USE_DYNAMIC": "true"} if compiled else {}  # one compilation for all lengths
    with tempfile.TemporaryDirectory() as folder, fresh_accelerate(**dynamic):
        args = transformers.TrainingArguments(
            folder,
            use_cpu=device.type == "cpu",
            per_device_train_batch_size=settings.batch_size,
            max_steps=meter.total,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=meter.total // 10,
            max_grad_norm=1.0,
            seed=settings.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **trainer_options(settings, device, workers, compiled),
        )
        trainer = counting_trainer()(
            make_model(settings, device, attention),
            args,
            train_dataset=rows,
            data_collator=Collator(settings.vocabulary),
        )
        trainer.add_callback(stop_callback(meter, trainer))
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        del trainer
    gc.collect()  # the loop's objects refer to each other
    return meter.samples


def stop_callback(meter: Meter, trainer: Any) -> Any:
    """The meter as a callback of transformers' Trainer."""
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = meter.mark(state.global_step, lambda: int(trainer.tokens))

    return Stop()


def run_products(settings: Settings, device: Any, is_late: Callable[[], bool]) -> list[Sample]:
    """A visit of large bf16 matrix products; the amount is in TFLOP."""
    import torch

    n, samples = settings.matrix, []
    a, b = torch.randn(2, n, n, device=device).bfloat16()
    for number in range(settings.segments + 1):  # the first one warms up
        synchronize(device)
        start = time.perf_counter()
        for _ in range(settings.products):
            torch.mm(a, b)
        synchronize(device)
        if number:
            samples.append(Sample(settings.products * 2 * n**3 / 1e12, time.perf_counter() - start))
        if samples and is_late():
            break
    return samples


def count_workers(count: int) -> str:
    """In words."""
    return "1 worker" if count == 1 else f"{count} workers"


def training_arms(settings: Settings, device: Any, rows: Sequence[Any]) -> list[Arm]:
    """What `training` compares."""
    arms = [Arm(PEAK, "TFLOP", functools.partial(run_products, settings, device))]
    for attention, name in (("eager", "eager attention"), ("sdpa", "SDPA")):
        make = functools.cache(functools.partial(make_model, settings, device, attention))
        arms.append(Arm(f"fit, {name}", "tokens", functools.partial(run_fit, settings, device, rows, make)))
    for attention, name, workers in (
        ("eager", "eager attention", 0),
        ("sdpa", "SDPA", 0),
        ("sdpa", "SDPA", settings.workers),
    ):
        name = f"Trainer, {name}" + f", {count_workers(workers)}" * bool(workers)
        run = functools.partial(run_trainer, settings, device, rows, attention, workers, False)
        arms.append(Arm(name, "tokens", run))

    @functools.cache
    def make_compiled() -> Any:
        return compile_model(make_model(settings, device), settings)

    compiler = Compiler()
    run = functools.partial(run_fit, settings, device, rows, make_compiled)
    arms.append(Arm("fit, SDPA, compiled", "tokens", run, compiler=compiler, key="fit"))
    run = functools.partial(run_trainer, settings, device, rows, "sdpa", settings.workers, True)
    name = f"Trainer, SDPA, {count_workers(settings.workers)}, compiled"
    arms.append(Arm(name, "tokens", run, most=1, compiler=compiler))
    return arms


def training(run: Run) -> dict[str, Any]:
    """Real tokens per second of pre-training in bf16, and the share of the card's peak."""
    settings = run.settings
    batches = settings.warmup + settings.steps * settings.segments + 6  # more than steps: the workers go on
    rows = make_rows(settings, batches * settings.batch_size)
    arms = training_arms(settings, run.device, rows)
    run.take_turns(arms, settings.rounds)
    found = {arm.name: arm.row() for arm in arms}
    flops = flops_per_token(settings, lengths_of(rows))
    peak = found[PEAK].get("per_s")
    for row in found.values():
        if row["unit"] == "tokens" and "per_s" in row and peak:
            row["share_of_peak"] = row["per_s"] * flops / (peak * 1e12)
    return {
        "arms": found,
        "ratios": training_ratios(found, settings),
        "gflop_per_token": flops / 1e9,
        "mean_length": statistics.fmean(lengths_of(rows)),
    }


def training_ratios(rows: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The loops beside each other, and what attention, workers and the compiler bring."""
    workers = f"Trainer, SDPA, {count_workers(settings.workers)}"
    found = ratios(
        rows,
        [
            ("fit, SDPA", "Trainer, SDPA"),
            ("fit, SDPA", workers),
            ("fit, SDPA, compiled", f"{workers}, compiled"),
            ("fit, SDPA", "fit, eager attention"),
            ("Trainer, SDPA", "Trainer, eager attention"),
            ("fit, SDPA, compiled", "fit, SDPA"),
            (f"{workers}, compiled", workers),
            (workers, "Trainer, SDPA"),
        ],
    )
    for row in ratios(rows, [(fastest(rows, "fit"), fastest(rows, "Trainer"))]).values():
        found["fastest fit / fastest Trainer"] = row
    return found


# --- inference ----------------------------------------------------------------------------------------------


@dataclass
class Calls:
    """A visit of inference: forward passes one by one for the latency, then queued for the throughput."""

    settings: Settings
    device: Any
    model: Any
    batch: Mapping[str, Any]
    latencies: list[float]  # of the arm

    def time_call(self) -> float:
        """Seconds of one forward pass."""
        start = time.perf_counter()
        self.model(**self.batch)
        synchronize(self.device)
        return time.perf_counter() - start

    def __call__(self, is_late: Callable[[], bool]) -> list[Sample]:
        import torch

        with torch.no_grad():
            for _ in range(3):  # these warm up, and the last one says how many calls there is time for
                seconds = self.time_call()
            count = min(100, max(self.settings.calls, round(self.settings.calls_s / seconds)))
            done = 0
            while done < count and not (done and is_late()):
                self.latencies.append(round(1e3 * self.time_call(), 4))
                done += 1
            start = time.perf_counter()
            for _ in range(done):
                self.model(**self.batch)
            synchronize(self.device)
        return [Sample(done * len(self.batch["input_ids"]), time.perf_counter() - start)]


def inference_models(settings: Settings, device: Any) -> dict[str, Any]:
    """The classifier in every form."""
    import torch

    models = {}
    for name in ("fp32", "bf16", "bf16, compiled"):
        model = make_model(settings, device, kind="BertForSequenceClassification").eval()
        models[name] = model.to(torch.bfloat16) if "bf16" in name else model
    compile_model(models["bf16, compiled"], settings)
    return models


def inference_arms(
    settings: Settings, device: Any, models: Mapping[str, Any], compiler: Compiler, batch: int, length: int
) -> list[Arm]:
    """What is compared for one shape of a batch."""
    import torch

    ids = torch.randint(FIRST, settings.vocabulary, (batch, length), device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    arms = []
    for name, model in models.items():
        compiled = {"compiler": compiler, "key": batch == 1} if "compiled" in name else {}
        latencies: list[float] = []
        calls = Calls(settings, device, model, inputs, latencies)
        arms.append(Arm(f"{batch}×{length}, {name}", "examples", calls, latencies=latencies, **compiled))
    return arms


def read_precision() -> dict[str, Any]:
    """Whether fp32 products use TF32; None where PyTorch does not say."""
    import torch

    try:
        precision = torch.get_float32_matmul_precision()
        return {"tf32": torch.backends.cuda.matmul.allow_tf32, "float32_matmul_precision": precision}
    except RuntimeError:  # its older and its newer interface were mixed
        return {"tf32": None, "float32_matmul_precision": None}


def inference(run: Run) -> dict[str, Any]:
    """Latency and throughput of a forward pass, by batch × length."""
    settings = run.settings
    models, compiler = inference_models(settings, run.device), Compiler()
    run.budget.compile_s = min(COMPILE, run.budget.compile_s)  # a forward pass compiles faster than a step
    found, pairs = {}, []
    for batch in settings.batches:
        for length in settings.lengths:
            arms = inference_arms(settings, run.device, models, compiler, batch, length)
            run.take_turns(arms, settings.inference_rounds)
            for arm in arms:
                found[arm.name] = arm.row() | {"batch": batch, "length": length}
            plain, half, compiled = (arm.name for arm in arms)
            pairs += [(half, plain), (compiled, half)]
    return {"arms": found, "ratios": ratios(found, pairs), **read_precision()}


# --- transfer -----------------------------------------------------------------------------------------------


def run_copies(
    device: Any, size: int, pin: bool, non_blocking: bool, is_late: Callable[[], bool]
) -> list[Sample]:
    """A visit of copies of so many bytes from the CPU's memory to the card; the amount is in GB."""
    import torch

    source = torch.ones(size, dtype=torch.uint8)
    if pin:
        source = source.pin_memory()
    target, samples, count = torch.empty_like(source, device=device), [], 20
    for number in range(4):  # the first one warms up
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            target.copy_(source, non_blocking=non_blocking)
        synchronize(device)
        if number:
            samples.append(Sample(count * size / 1e9, time.perf_counter() - start))
        if samples and is_late():
            break
    return samples


def copy_arms(settings: Settings, device: Any, batch_bytes: int) -> list[Arm]:
    """Copies of a large tensor and of one batch."""
    arms, pin = [], device.type == "cuda"
    for name, size in (
        (f"copy of {settings.copy_mb} MB", settings.copy_mb * 2**20),
        ("copy of a batch", batch_bytes),
    ):
        for kind, options in (
            ("pageable", (False, False)),
            ("pinned", (pin, False)),
            ("pinned, non_blocking", (pin, True)),
        ):
            arms.append(Arm(f"{name}, {kind}", "GB", functools.partial(run_copies, device, size, *options)))
    return arms


@dataclass
class TrainedModel:
    """A model with its optimiser, which all arms of `transfer` train in turn."""

    settings: Settings
    device: Any

    @functools.cached_property
    def model(self) -> Any:
        """In training mode."""
        register_nested_attention()
        return make_model(self.settings, self.device).train()

    @functools.cached_property
    def optimizer(self) -> Any:
        """AdamW, fused."""
        from bertcourse import training

        return training.make_optimizer(self.model, 1e-4)

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step in bf16 on a batch that is on the device."""
        import torch

        batch = dict(batch)
        if "segments" in batch:  # a token attends to the tokens of its own example
            segments = batch.pop("segments")
            batch["attention_mask"] = segments[:, None, :, None] == segments[:, None, None, :]
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def to_device(batch: Mapping[str, Any], device: Any, non_blocking: bool = False) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    return {
        name: value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value
        for name, value in batch.items()
    }


def run_input_path(
    trained: TrainedModel, rows: Sequence[Any], pinned: bool, workers: int, is_late: Callable[[], bool]
) -> list[Sample]:
    """A visit of training steps fed by a data loader: collating, copying and training. One sample."""
    import torch

    from bertcourse import training

    settings, device = trained.settings, trained.device
    lengths = lengths_of(rows)
    plan = training.plan(lengths, settings.batch_size, settings.seed, 0)
    loader = torch.utils.data.DataLoader(
        rows,
        batch_sampler=plan,
        collate_fn=Collator(settings.vocabulary),
        num_workers=workers,
        pin_memory=pinned and device.type == "cuda",
    )
    trained.model.set_attn_implementation("sdpa")
    warmup, tokens, start = min(settings.warmup, len(plan) // 2), 0, 0.0
    for number, (ids, batch) in enumerate(zip(plan, loader, strict=True)):
        if number == warmup:
            synchronize(device)
            start = time.perf_counter()
        trained.step(to_device(batch, device, non_blocking=pinned))
        if number >= warmup:
            tokens += sum(lengths[i] for i in ids)
            if is_late():
                break
    synchronize(device)
    return [Sample(tokens, time.perf_counter() - start)]


def input_arms(trained: TrainedModel, rows: Sequence[Any]) -> list[Arm]:
    """The input path with and without pinned memory, with and without workers."""
    arms = []
    for workers in (0, trained.settings.workers):
        for pinned, name in ((False, "pageable"), (True, "pinned, non_blocking")):
            run = functools.partial(run_input_path, trained, rows, pinned, workers)
            arms.append(Arm(f"input path, {count_workers(workers)}, {name}", "tokens", run))
    return arms


def split(order: Sequence[int], size: int) -> list[list[int]]:
    """Cut into parts of this size."""
    return [list(order[i : i + size]) for i in range(0, len(order), size)]


def token_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Batches of similar lengths, each as large as `tokens` allows with its padding."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches[-1] and (len(batches[-1]) + 1) * round_up(lengths[i]) > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def pack_examples(lengths: Sequence[int], longest: int) -> list[list[int]]:
    """Rows of at most `longest` tokens: each example goes to the first row with room, long ones first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        place = next((k for k, free in enumerate(room) if free >= lengths[i]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(longest)
        rows[place].append(i)
        room[place] -= lengths[i]
    return rows


def packed_batch(rows: Sequence[Any], packs: Sequence[Sequence[int]], settings: Settings) -> dict[str, Any]:
    """Several examples in each row, with their own positions; `segments` numbers those of a row from 1."""
    import torch

    ids, positions, segments = torch.zeros(3, len(packs), settings.longest, dtype=torch.long)
    for k, pack in enumerate(packs):
        start = 0
        for number, i in enumerate(pack, 1):
            end = start + len(rows[i]["input_ids"])
            ids[k, start:end] = torch.from_numpy(rows[i]["input_ids"])
            positions[k, start:end] = torch.arange(end - start)
            segments[k, start:end] = number
            start = end
    hidden, labels = mask_tokens(ids, settings.vocabulary)
    return {"input_ids": hidden, "labels": labels, "position_ids": positions, "segments": segments}


def nested_batch(rows: Sequence[Any], examples: Sequence[int], settings: Settings) -> dict[str, Any]:
    """All examples in one row without padding; `offsets` says where each begins."""
    import torch

    parts = [torch.from_numpy(rows[i]["input_ids"]) for i in examples]
    lengths = [len(part) for part in parts]
    hidden, labels = mask_tokens(torch.cat(parts)[None], settings.vocabulary)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return {
        "input_ids": hidden,
        "labels": labels,
        "position_ids": positions,
        "offsets": offsets,
        "max_length": max(lengths),
    }


def nested_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    offsets: Any = None,
    max_length: int | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attention within each example of `nested_batch`; inputs are (1, heads, tokens, head_dim)."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    nested = []
    for tensor in (query, key, value):
        tokens = tensor[0].transpose(0, 1)  # (tokens, heads, head_dim)
        jagged = torch.nested.nested_tensor_from_jagged(tokens, offsets, min_seqlen=1, max_seqlen=max_length)
        nested.append(jagged.transpose(1, 2))
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]  # without padding, unlike MATH
    with sdpa_kernel(kernels) if query.is_cuda else contextlib.nullcontext():
        mixed = torch.nn.functional.scaled_dot_product_attention(*nested, dropout_p=dropout, scale=scaling)
    return mixed.transpose(1, 2).values()[None], None


def register_nested_attention() -> None:
    """Make `nested_attention` known to transformers as "nested"."""
    from transformers import AttentionInterface

    AttentionInterface.register("nested", nested_attention)


def make_batches(kind: str, rows: Sequence[Any], settings: Settings) -> list[dict[str, Any]]:
    """All rows as batches of one kind, in random order."""
    import numpy as np

    from bertcourse import training

    rng, lengths, size = np.random.default_rng(settings.seed), lengths_of(rows), settings.batch_size
    order = rng.permutation(len(rows)).tolist()
    tokens = size * round(statistics.fmean(lengths))  # of a step, on average
    if kind == "packed, block-diagonal mask":
        packs = pack_examples(lengths, settings.longest)
        rng.shuffle(packs)
        return [
            packed_batch(rows, part, settings)
            for part in split(packs, max(1, round(tokens / settings.longest)))
        ]
    if kind == "packed, nested tensor":
        return [nested_batch(rows, part, settings) for part in split(order, size)]
    if kind == "grouped by length":
        batches = training.plan(lengths, size, settings.seed, 0)
    elif kind == "grouped by length, token budget":
        batches = token_batches(lengths, max(tokens, round_up(max(lengths))))
        rng.shuffle(batches)
    else:
        batches = split(order, size)
    collate = Collator(settings.vocabulary, settings.longest if kind == PADDED else None)
    return [collate([rows[i] for i in part]) for part in batches]


def count_tokens(batch: Mapping[str, Any]) -> int:
    """Tokens without padding."""
    for name in ("attention_mask", "segments"):
        if name in batch:
            return int((batch[name] > 0).sum())
    return batch["input_ids"].numel()


@dataclass
class Passes:
    """A visit of training steps on all batches of one kind, which lie on the card already. One sample."""

    trained: TrainedModel
    rows: Sequence[Any]
    kind: str

    @functools.cached_property
    def batches(self) -> list[tuple[int, dict[str, Any]]]:
        """Tokens without padding, and the batch."""
        made = make_batches(self.kind, self.rows, self.trained.settings)
        return [(count_tokens(batch), to_device(batch, self.trained.device)) for batch in made]

    def __call__(self, is_late: Callable[[], bool]) -> list[Sample]:
        self.trained.model.set_attn_implementation("nested" if "nested" in self.kind else "sdpa")
        largest = sorted((batch for _, batch in self.batches), key=lambda batch: batch["input_ids"].numel())
        for batch in largest[-2:]:  # these warm up, and take the memory that all need
            self.trained.step(batch)
        synchronize(self.trained.device)
        start, done = time.perf_counter(), 0
        for tokens, batch in self.batches:
            self.trained.step(batch)
            done += tokens
            if is_late():
                break
        synchronize(self.trained.device)
        return [Sample(done, time.perf_counter() - start)]


KINDS = (
    PADDED,
    "padded to the longest",
    "grouped by length",
    "grouped by length, token budget",
    "packed, block-diagonal mask",
    "packed, nested tensor",
)


def transfer(run: Run) -> dict[str, Any]:
    """Copies to the card, the input path of training, and batches with less and less padding."""
    settings = run.settings
    rows = make_rows(settings, settings.transfer_batches * settings.batch_size)
    trained = TrainedModel(settings, run.device)
    passes = {f"batches, {kind}": Passes(trained, rows, kind) for kind in KINDS}
    ids = Collator(settings.vocabulary)(rows[: settings.batch_size])["input_ids"]
    arms = copy_arms(settings, run.device, 3 * ids.numel() * ids.element_size())
    arms += [Arm(name, "tokens", visits) for name, visits in passes.items()]
    arms += input_arms(trained, rows)
    run.take_turns(arms, settings.transfer_rounds)
    found = {arm.name: arm.row() for arm in arms}
    pairs = []
    for name in found:
        if "pinned" in name:
            pairs.append((name, f"{name[: name.index('pinned')]}pageable"))
        elif name.startswith("batches, ") and PADDED not in name:
            pairs.append((name, f"batches, {PADDED}"))
    return {
        "arms": found,
        "ratios": ratios(found, pairs),
        "pinned_memory": run.device.type == "cuda",
        "padding": {name: describe_padding(visits) for name, visits in passes.items()},
    }


def describe_padding(visits: Passes) -> dict[str, Any]:
    """Steps of one pass, and the share of the computed positions that are padding."""
    if "batches" not in visits.__dict__:  # never made
        return {"steps": None, "padding": None}
    tokens = sum(count for count, _ in visits.batches)
    places = sum(batch["input_ids"].numel() for _, batch in visits.batches)
    return {"steps": len(visits.batches), "padding": 1 - tokens / places}


# --- the command --------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the parts share."""

    settings: Settings
    device: Any
    budget: Budget
    report: Report

    def take_turns(self, arms: Sequence[Arm], rounds: int) -> None:
        """Visit the arms, and keep the figures after each round."""
        take_turns(arms, self.budget, rounds, functools.partial(self.report.save_arms, arms))


PARTS = {"training": training, "inference": inference, "transfer": transfer}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that says what is wrong in one sentence."""

    def error(self, message: str) -> None:
        """Print the sentence to stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def read_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, checked."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=Settings.seconds, help="of the whole run (default: %(default).0f)"
    )
    parser.add_argument("--batch-size", type=int, help=f"of training (default: {Settings.batch_size})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="almost nothing, on the CPU where there is no card"
    )
    found = parser.parse_args(args)
    for part in found.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: choose from {', '.join(PARTS)}")
    if not 30 <= found.seconds <= 3600:
        parser.error(f"--seconds is {found.seconds:g}: give 30 to 3600")
    if found.batch_size is not None and found.batch_size < 1:
        parser.error(f"--batch-size is {found.batch_size}: it must be 1 or more")
    if found.json and (found.json.is_dir() or not found.json.absolute().parent.is_dir()):
        parser.error(f"--json {found.json}: this cannot be a file, give a name in a folder that exists")
    return found


def use_one_card() -> None:
    """Show PyTorch at most one card: Trainer would use all of them. Before torch is imported."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]


def find_device(quick: bool) -> Any:
    """The card, or with `--quick` the CPU; None where there is no card."""
    import torch

    if torch.version.cuda and torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu") if quick else None


def explain_no_card() -> str:
    """Why no card is visible and what to do, in one sentence."""
    import torch

    if not torch.version.cuda:
        reason = f"PyTorch {torch.__version__} is built without CUDA"
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f"torch.cuda.is_available() is false with CUDA_VISIBLE_DEVICES={visible!r}"
    remedy = "use a machine with a card and a CUDA build of PyTorch, or add --quick to try it on the CPU"
    return f"no NVIDIA card is visible to PyTorch: {reason}; {remedy}"


def find_driver() -> str | None:
    """The version of NVIDIA's driver, if nvidia-smi says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def describe_machine(device: Any) -> dict[str, Any]:
    """The card, the CPU and the versions."""
    import accelerate
    import numpy
    import torch
    import transformers

    from bertcourse.base import machine

    found = {
        "device": device.type,
        "gpu": None,
        "driver": None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "numpy": numpy.__version__,
        **machine.describe_machine(),
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found["gpu"] = {
            "name": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "memory_gib": round(card.total_memory / 2**30, 1),
            "multiprocessors": card.multi_processor_count,
        }
        found["driver"] = find_driver()
    return found


def make_settings(args: argparse.Namespace, device: Any) -> Settings:
    """As the arguments and the device ask for."""
    settings = Settings(seconds=args.seconds)
    if args.quick:
        settings = replace(settings, **QUICK, backend="eager" if device.type == "cpu" else settings.backend)
    return replace(settings, batch_size=args.batch_size or settings.batch_size)


def table_lines(part: Mapping[str, Any]) -> Iterator[str]:
    """The tables of a part."""
    if part["status"] == "skipped":
        yield f"skipped: {part['reason']}"
        return
    for name, row in part["arms"].items():
        yield f"{name:45}{describe_row(row)}"
    for name, row in part["ratios"].items():
        yield f"{name:75}{row['wall']:8.2f}x"
    for name, value in part.items():
        if name not in ("status", "arms", "ratios", "padding"):
            yield f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
    for name, row in part.get("padding", {}).items():
        if row["steps"] is not None:
            yield f"{name:45}{row['padding']:14.1%} padding in {row['steps']} steps"


def describe_row(row: Mapping[str, Any]) -> str:
    """The figures of an arm, or why there are none."""
    if row["status"] != "ok":
        return f"  {row['status']}: {row['reason']}"
    text = f"{row['per_s']:14,.1f} {row['unit']}/s"
    if "share_of_peak" in row:
        text += f"{row['share_of_peak']:8.1%} of the peak"
    if "latency_ms" in row:
        text += f"{row['latency_ms']['median']:12.3f} ms, p95 {row['latency_ms']['p95']:.3f} ms"
    return f"{text}  ({len(row['samples'])} samples)"


def run_part(part: str, run: Run) -> None:
    """Measure a part, if there is time for it, write it and print its tables."""
    import torch

    report, found = run.report, run.report.found
    print(f"\n{part}: {PARTS[part].__doc__}", flush=True)
    report.part, begin = part, run.budget.used()
    if run.budget.start_part(part) < LEAST:
        found["parts"][part] = {"status": "skipped", "reason": "no time was left"}
        found["skipped"].append(part)
    else:
        measured = measure_part(part, run)
        found["parts"][part] = {"status": "ok", "seconds": round(run.budget.used() - begin, 1)} | measured
    report.write()
    print("\n".join(table_lines(found["parts"][part])), flush=True)
    torch.compiler.reset()
    free_memory()


def measure_part(part: str, run: Run) -> dict[str, Any]:
    """The figures of a part. A failure outside its arms, such as making a model, does not end the run."""
    try:
        return PARTS[part](run)
    except Exception as error:
        status, reason = describe_error(error)
        arms = run.report.found["parts"].get(part, {}).get("arms", {})
        return {"status": status, "reason": reason, "arms": arms, "ratios": {}}


def has_failed(found: Mapping[str, Any]) -> bool:
    """Did a part or an arm fail for another reason than memory or time?"""
    rows = [row for part in found["parts"].values() for row in (part, *part.get("arms", {}).values())]
    return any(row["status"] == "failed" for row in rows)


def prepare(device: Any) -> None:
    """Quiet libraries, and accelerate on the CPU where there is no card."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*nested tensors.*")
    if device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "1"


def main() -> int:
    """Measure, print the tables, write the JSON."""
    args = read_arguments()
    use_one_card()
    os.environ.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
    device = find_device(args.quick)
    if device is None:
        print(f"gpu.py: {explain_no_card()}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    prepare(device)
    settings = make_settings(args, device)
    parts = list(dict.fromkeys(args.parts or PARTS))
    budget = Budget(settings.seconds - RESERVE, {part: SHARES[part] for part in parts}, begin=STARTED)
    found = {
        "quick": settings.quick,
        "settings": asdict(settings),
        "machine": describe_machine(device),
        "date": datetime.date.today().isoformat(),
        "seconds": {},
        "skipped": [],
        "parts": {},
    }
    report = Report(found, args.json, budget)
    report.write()
    watchdog = start_watchdog(report, settings.seconds)
    run = Run(settings, device, budget, report)
    for part in parts:
        run_part(part, run)
    report.write()
    watchdog.cancel()
    print(f"\n{budget.used():.0f} s of {settings.seconds:.0f} s used")
    return int(has_failed(found))


if __name__ == "__main__":
    sys.exit(main())
