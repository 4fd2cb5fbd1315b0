"""What the benchmarks of training share: samples taken in turn, their medians and ratios, tables, the command line.

No benchmark by itself; `pretrain.py` and `finetune.py`, started as scripts, find it in their own folder.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bertcourse.app.cli import Parser
from bertcourse.base.machine import describe_machine, usable_cores

FEWEST = 7  # rounds that make a median worth reading
BEST = {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length", "logging_nan_inf_filter": False,
        "remove_unused_columns": False, "dataloader_pin_memory": False}  # fmt: skip -- what makes Trainer fast without a GPU


@dataclass(frozen=True)
class Rounds:
    """How much is measured; a benchmark adds its own amounts."""

    threads: int
    rounds: int = 9
    quick: bool = False


# --- measuring ----------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """Some work, and what it took."""

    amount: float
    wall: float  # seconds
    cpu: float  # seconds


def cpu_seconds() -> float:
    """Of this process with all its threads, and of its living children: a data loader's workers."""
    children = psutil.Process().children()
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)


def measure(work: Callable[[], float]) -> Sample:
    """Run what returns the amount of its work."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    amount = work()
    return Sample(amount, time.perf_counter() - wall, cpu_seconds() - cpu)


def interleave(arms: Mapping[str, Callable[[], Sample]], rounds: int, warm: bool = True) -> dict[str, list[Sample]]:
    """Samples of all arms, in turn; every second round backwards, so that a drift of the machine favours none."""
    samples: dict[str, list[Sample]] = {name: [] for name in arms}
    for number in range(-warm, rounds):
        for name in arms if number % 2 == 0 else reversed(arms):
            sample = arms[name]()
            if number >= 0:  # the round before the first fills the caches
                samples[name].append(sample)
    return samples


def rates(samples: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, Any]]:
    """Median amount per second of wall clock and of CPU time, by arm."""
    return {
        name: {
            "per_s": statistics.median(s.amount / s.wall for s in row),
            "per_cpu_s": statistics.median(s.amount / max(s.cpu, 1e-9) for s in row),
            "samples": [[round(value, 6) for value in s] for s in row],
        }
        for name, row in samples.items()
    }


def ratio(arms: Mapping[str, Any], of: str, to: str, goal: float | None = None) -> dict[str, Any]:
    """How many times as fast one arm is as another, by the medians."""
    wall, cpu = (arms[of][key] / arms[to][key] for key in ("per_s", "per_cpu_s"))
    return {"of": of, "to": to, "wall": wall, "cpu": cpu, "goal": goal and f">= {goal}", "met": None if goal is None else wall >= goal}


def share(value: float, cpu: float, goal: float | None = None) -> dict[str, Any]:
    """A part of something, such as of the whole time."""
    return {"wall": value, "cpu": cpu, "goal": goal and f"< {goal}", "met": None if goal is None else value < goal}


def fastest(arms: Mapping[str, Any], begin: str) -> str:
    """The arm with the highest median among those whose name begins so."""
    return max((name for name in arms if name.startswith(begin)), key=lambda name: arms[name]["per_s"])


class Meter:
    """Measures `steps` of a run from the end of `warmup` on, and stops it. A callback of `bertcourse.training.fit`."""

    def __init__(self, settings: Any):
        self.first, self.last = settings.warmup, settings.warmup + settings.steps
        self.seen = self.places = 0  # what a watched model was given: tokens without padding, and with it
        self.begin = self.sample = None

    def mark(self, step: int, tokens: float) -> bool:
        """After a step; `tokens` so far, without padding. True when it was the last."""
        now = Sample(tokens, time.perf_counter(), cpu_seconds()) if step in (self.first, self.last) else None
        if step == self.first:
            self.begin = now
        elif step == self.last:
            self.sample = Sample(*(b - a for a, b in zip(self.begin, now, strict=True)))
        return step == self.last

    def on_step_begin(self, state: Any) -> None:
        """Of our loop. Without a warm-up the clock starts when the first batch is there."""
        if self.first == 0 and self.begin is None:
            self.mark(0, 0)

    def on_step_end(self, state: Any) -> None:
        """Of our loop."""
        state.stop = self.mark(state.step, state.tokens)

    def watch(self, model: Any) -> None:
        """Count what the model is given from now on."""
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """A hook before a model's forward pass."""
        self.seen += int(kwargs["attention_mask"].sum())
        self.places += kwargs["input_ids"].numel()

    def for_trainer(self, model: Any) -> Any:
        """The same as a callback of transformers' Trainer, which does not count tokens by itself."""
        import transformers

        self.watch(model)
        meter = self

        class Callback(transformers.TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                meter.on_step_begin(state)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                control.should_training_stop = meter.mark(state.global_step, meter.seen)

        return Callback()


def train_with_trainer(meter: Meter, model: Any, rows: Sequence[Any], collate: Callable | None = None, **options: Any) -> Sample:
    """Steps of transformers' Trainer, which neither writes nor prints anything."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(folder, use_cpu=True, save_strategy="no", logging_strategy="no", report_to="none",
                                              disable_tqdm=True, **options)  # fmt: skip
        callback = meter.for_trainer(model)
        trainer = transformers.Trainer(model, args, train_dataset=rows, data_collator=collate, callbacks=[callback])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        del trainer
    gc.collect()  # its data loader's workers end here, and not while another arm's CPU time is taken
    return meter.sample


# --- the command --------------------------------------------------------------------------------------------------


def read_arguments(about: str, parts: Mapping[str, Callable], rounds: int, child: bool) -> argparse.Namespace:
    """What is asked for, checked."""
    parser = Parser(description=about.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)} (default: all)")
    parser.add_argument("--rounds", type=int, help=f"default: {rounds}")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one round of almost nothing, to see that it works")
    if child:
        parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in parts]:
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(parts)}")
    if args.threads < 1:
        parser.error(f"--threads is {args.threads}: it must be 1 or more")
    if args.rounds is not None and args.rounds < (1 if args.quick else FEWEST):
        parser.error(f"--rounds is {args.rounds}: at least {1 if args.quick else FEWEST} make a median worth reading")
    if args.json and not (args.json.absolute().parent.is_dir() and not args.json.is_dir()):
        parser.error(f"--json {args.json}: this cannot be a file, give a name in a folder that exists")
    return args


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The tables of a part."""
    yield f"{found['unit']:45}{'/ s':>18}{'/ CPU s':>18}"
    for name, arm in found["arms"].items():
        yield f"{name:45}{arm['per_s']:18,.1f}{arm['per_cpu_s']:18,.1f}"
    for kind, form in (("ratios", "17.2f}x"), ("shares", "17.1%} ")):
        for name, row in found.get(kind, {}).items():
            goal = f"{'  goal ' + row['goal'] if row['goal'] else ''}{'  MISSED' if row['met'] is False else ''}"
            yield f"{name:45}" + "".join(("{:" + form).format(row[key]) for key in ("wall", "cpu")) + goal
    for name, value in found.items():
        if name not in ("unit", "arms", "ratios", "shares"):
            yield f"{name}: {json.dumps(json.loads(json.dumps(value), parse_float=lambda digits: float(f'{float(digits):.4g}')))}"


def missed(found: Any) -> bool:
    """Is a goal missed anywhere in these figures?"""
    if not isinstance(found, Mapping):
        return False
    return found.get("met") is False or any(map(missed, found.values()))


def command(about: str, parts: Mapping[str, Callable], kind: type[Rounds], quick: Mapping[str, Any], child: Callable | None = None) -> int:
    """Measure the parts that are asked for, print the tables, write the JSON. With `--child`: what runs in a process of its own."""
    args = read_arguments(about, parts, kind.rounds, bool(child))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):  # before torch and tokenizers look
        os.environ[name] = str(args.threads)
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    from bertcourse.training import write_whole

    torch.set_num_threads(args.threads)
    if child and args.child:
        print(json.dumps(child(args.child)))
        return 0
    settings = kind(args.threads, quick=args.quick, **(quick if args.quick else {}))
    settings = replace(settings, rounds=args.rounds or settings.rounds)
    machine = describe_machine(torch=torch.__version__.split("+")[0])
    found: dict[str, Any] = {"settings": asdict(settings), "machine": machine, "date": datetime.date.today().isoformat(), "parts": {}}
    for part in args.parts or parts:
        print(f"\n{part}: {parts[part].__doc__}")
        found["parts"][part] = parts[part](settings)
        print("\n".join(lines(found["parts"][part])), flush=True)
        if args.json:  # after each part: what is measured is kept
            text = json.dumps(found, indent=1) + "\n"
            write_whole(args.json, lambda path: path.write_text(text, encoding="utf-8"))
    return int(missed(found["parts"]) and not args.quick)
