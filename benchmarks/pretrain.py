"""What pre-training costs: our loop and our collator beside transformers' own, the corpus beside the training, 1x to 100x the text.

    python benchmarks/pretrain.py [loop] [collator] [corpus] [scale] [--rounds 9] [--threads N] [--json FILE] [--quick]

Whatever is compared runs in turn, in one process, so that a busy moment of the machine falls on all of it; medians are
compared, of wall clock and of CPU time. Reading, tokenising, imports and the first steps of a run are not counted, except
where they are what is measured. `--quick` shows that everything works; its figures mean nothing. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from measuring import BEST, Meter, Rounds, Sample, command, fastest, interleave, measure, rates, ratio, share, train_with_trainer

LONGEST = 128  # pieces of an input, in the recipe of the shipped model
BATCH = 32
FACTORS = (1, 10, 100)  # times the text of `scale`
SCALE_STEPS = 20


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    steps: int = 60  # of a training run, after the warm-up
    warmup: int = 8  # steps that are not counted: caches fill, memory is allocated
    batches: int = 100  # that a collator makes
    documents: int = 1_000  # of each language
    megabytes: float = 1.0  # of text, the smallest amount
    matrix: int = 2_048  # rows of the matrix that shows the machine's peak


QUICK = {"rounds": 1, "steps": 2, "warmup": 1, "batches": 2, "documents": 300, "megabytes": 0.02, "matrix": 256}


# --- what is trained on -------------------------------------------------------------------------------------------


def shipped(**changes: Any) -> Any:
    """The recipe of the shipped model, in one epoch, with changes."""
    from bertcourse.assets import asset
    from bertcourse.pretraining import Recipe

    return replace(Recipe.read(asset("tiny-bert") / "pretrain.toml"), parts=1, batch_size=BATCH, **changes)


def make_inputs(recipe: Any, tokenizer: Any, pieces: Any) -> Any:
    """The pairs that `pretrain` draws for this recipe."""
    from bertcourse.pretraining import Inputs

    size = recipe.steps * recipe.batch_size
    options = {"short": recipe.short, "put_back": recipe.put_back, "redraw_short": recipe.redraw_short}
    return Inputs(pieces, tokenizer, size, recipe.max_length, recipe.task, recipe.seed, **options)


def plain_row(row: Mapping[str, Any], special: Sequence[int]) -> dict[str, Any]:
    """A row of `Inputs` as transformers' collator likes it best: lists, and special tokens marked beforehand."""
    ids = row["input_ids"].tolist()
    return {
        "input_ids": ids,
        "token_type_ids": row["token_type_ids"].tolist(),
        "special_tokens_mask": [int(i in special) for i in ids],
        "next_sentence_label": row["next_sentence_label"],
    }


def padded_row(row: Mapping[str, Any], length: int, pad: int) -> dict[str, Any]:
    """The row with padding, as a tokenizer makes it that is told to pad."""
    n = len(row["input_ids"])
    fill = {"input_ids": pad, "token_type_ids": 0, "special_tokens_mask": 1, "offset_mapping": (0, 0)}
    padded = {name: [*value, *[fill[name]] * (length - n)] for name, value in row.items() if name in fill}
    return {**row, **padded, "attention_mask": [1] * n + [0] * (length - n)}


# --- loop ---------------------------------------------------------------------------------------------------------


def run_ours(settings: Settings, recipe: Any, tokenizer: Any, pieces: Any) -> Sample:
    """Steps of our own loop, as `bertcourse pretrain` makes them."""
    from bertcourse.pretraining import pretrain

    meter = Meter(settings)
    pretrain(recipe, tokenizer, pieces, callbacks=[meter], progress=False)
    return meter.sample


def run_trainer(settings: Settings, recipe: Any, rows: list, collate: Any, attention: str | None = None, **options: Any) -> Sample:
    """Steps of transformers' Trainer with transformers' model."""
    import transformers

    transformers.set_seed(recipe.seed)
    kind = {"attn_implementation": attention} if attention else {}
    model = transformers.BertForPreTraining._from_config(recipe.config(len(collate.tokenizer)), **kind)
    return train_with_trainer(
        Meter(settings), model, rows, collate, per_device_train_batch_size=recipe.batch_size, max_steps=recipe.steps,
        learning_rate=recipe.lr, warmup_steps=recipe.warmup, weight_decay=recipe.weight_decay, adam_beta2=recipe.betas[1],
        max_grad_norm=recipe.clip, seed=recipe.seed, **options)  # fmt: skip


def run_multiply(dtype: Any, n: int) -> Sample:
    """Billions of floating-point operations of large matrix products: what the machine can do."""
    import torch

    a, times = torch.randn(n, n).to(dtype), 4
    torch.mm(a, a)

    def work() -> float:
        for _ in range(times):
            torch.mm(a, a)
        return times * 2 * n**3 / 1e9

    return measure(work)


def gflop_per_token(settings: Settings, recipe: Any, inputs: Any, tokenizer: Any) -> float:
    """Billions of operations of matrix products, forward and backward, for a token of the batches that are measured."""
    from torch.utils.flop_counter import FlopCounterMode

    from bertcourse.pretraining import BertForPreTraining, Collator, losses
    from bertcourse.training import plan

    model = BertForPreTraining._from_config(recipe.config(len(tokenizer)), attn_implementation="eager")
    collate = Collator(tokenizer, recipe.masking)
    batches = plan(inputs.lengths, recipe.batch_size, recipe.seed, 0)[settings.warmup : settings.warmup + settings.steps]
    with FlopCounterMode(display=False) as counter:
        for ids in batches:
            losses(model, collate([inputs[i] for i in ids])).sum().backward()
    return counter.get_total_flops() / 1e9 / sum(int(inputs.lengths[ids].sum()) for ids in batches)


def loop(settings: Settings) -> dict[str, Any]:
    """Tokens per second of our loop and of transformers' Trainer; the share of the machine's peak."""
    import torch
    import transformers

    from bertcourse.corpus import load_tokenizer
    from bertcourse.pieces import toy_pieces
    from bertcourse.pretraining import Masking

    transformers.utils.logging.set_verbosity_error()
    tokenizer = load_tokenizer()
    # More batches than steps: else a data loader's workers end, and their CPU time with them, before the last step.
    recipe = shipped(steps=settings.warmup + settings.steps + 6, masking=Masking(), precision="no")
    pieces = toy_pieces(tokenizer, settings.documents)
    inputs, special = make_inputs(recipe, tokenizer, pieces), set(tokenizer.all_special_ids)
    rows = [plain_row(inputs[i], special) for i in range(len(inputs))]
    padded = [padded_row(row, LONGEST, tokenizer.pad_token_id) for row in rows]
    collate = transformers.DataCollatorForLanguageModeling(tokenizer)  # 15%, of these 80/10/10, to the longest of a batch

    ours = {f"ours, {name}": replace(recipe, precision=kind) for name, kind in (("fp32", "no"), ("bf16", "bf16"))}
    ours["as shipped, bf16"] = shipped(steps=recipe.steps)  # 25%, rare and whole words
    arms = {name: partial(run_ours, settings, changed, tokenizer, pieces) for name, changed in ours.items()}
    for bf16, attention, workers in itertools.product((False, True), ("eager", "sdpa"), (0, 2)):
        name = f"Trainer, {'bf16' if bf16 else 'fp32'}, {attention}" + f", {workers} workers" * bool(workers)
        arms[name] = partial(run_trainer, settings, recipe, rows, collate, attention, bf16=bf16, dataloader_num_workers=workers, **BEST)
    arms["default Trainer, padded"] = partial(run_trainer, settings, recipe, padded, collate)
    peaks = {"matrix product, fp32": torch.float32, "matrix product, bf16": torch.bfloat16}
    arms |= {name: partial(run_multiply, dtype, settings.matrix) for name, dtype in peaks.items()}

    found = rates(interleave(arms, settings.rounds, warm=False))  # every run warms up by itself
    mine, other = fastest(found, "ours, "), fastest(found, "Trainer, ")
    peak = f"matrix product, {mine[-4:]}"
    gflop = gflop_per_token(settings, recipe, inputs, tokenizer)  # of our model, which skips most of the vocabulary
    used = [gflop * found[mine][key] / found[peak][key] for key in ("per_s", "per_cpu_s")]
    return {
        "unit": "tokens without padding (products: GFLOP)",
        "arms": found,
        "ratios": {
            "ours / best Trainer": ratio(found, mine, other, 1.2),
            "ours / default Trainer, padded": ratio(found, mine, "default Trainer, padded", 2.0),
            "bf16 / fp32, ours": ratio(found, "ours, bf16", "ours, fp32"),
        },
        "shares": {f"of the {peak}": share(*used)},
        "gflop_per_token": gflop,
    }


# --- collator -----------------------------------------------------------------------------------------------------


def with_offsets(row: Mapping[str, Any], starts: Sequence[bool]) -> dict[str, Any]:
    """A row with the places of its pieces, from which transformers finds words: a gap before each beginning."""
    place, offsets = 0, []
    for start, special in zip(starts, row["special_tokens_mask"], strict=True):
        place += 1 + bool(start)
        offsets.append((0, 0) if special else (place - 1, place))
    return {**row, "offset_mapping": offsets}


def collator(settings: Settings) -> dict[str, Any]:
    """Batches per second of our collator and of transformers', on the same rows."""
    from transformers import DataCollatorForLanguageModeling

    from bertcourse.corpus import load_tokenizer
    from bertcourse.pieces import toy_pieces
    from bertcourse.pretraining import Collator, Masking, chances
    from bertcourse.training import plan

    tokenizer = load_tokenizer()
    recipe = shipped(steps=settings.batches)
    pieces = toy_pieces(tokenizer, settings.documents)
    inputs, special = make_inputs(recipe, tokenizer, pieces), set(tokenizer.all_special_ids)
    batches = [[inputs[i] for i in ids] for ids in plan(inputs.lengths, BATCH, recipe.seed, 0)]
    plain = [[plain_row(row, special) for row in rows] for rows in batches]
    offsets = [[with_offsets(p, row["starts"]) for p, row in zip(*pair, strict=True)] for pair in zip(plain, batches, strict=True)]
    # transformers cannot pad offsets: its rows for whole words come padded, which spares it the work.
    offsets = [[padded_row(p, max(len(q["input_ids"]) for q in rows), tokenizer.pad_token_id) for p in rows] for rows in offsets]
    words, weights = Masking(whole_words=1.0), chances(pieces, recipe.masking)
    made = {
        "ours": (Collator(tokenizer), batches),
        "transformers": (DataCollatorForLanguageModeling(tokenizer), plain),
        "ours, whole words": (Collator(tokenizer, words), batches),
        "transformers, whole words": (whole_word_collator(tokenizer), offsets),
        "ours, as shipped": (Collator(tokenizer, recipe.masking, weights), batches),
    }

    def run(collate: Callable, rows: list) -> Sample:
        return measure(lambda: sum(len(collate(part)) > 0 for part in rows))

    found = rates(interleave({name: partial(run, *pair) for name, pair in made.items()}, settings.rounds))
    pairs = {"ours / transformers": ("ours", "transformers", 1.0),
             "the same, whole words": ("ours, whole words", "transformers, whole words", 1.0)}  # fmt: skip
    return {"unit": f"batches of {BATCH}", "arms": found, "ratios": {name: ratio(found, *pair) for name, pair in pairs.items()}}


def whole_word_collator(tokenizer: Any) -> Any:
    """transformers' collator for whole words, without its warning that it replaces all of them by [MASK]."""
    from transformers import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0)


# --- corpus -------------------------------------------------------------------------------------------------------


def corpus(settings: Settings) -> dict[str, Any]:
    """Documents per second, made and cut into pieces, beside the steps of the shipped recipe."""
    from bertcourse.corpus import documents, load_tokenizer
    from bertcourse.pieces import toy_pieces

    tokenizer, whole = load_tokenizer(), shipped()
    n, languages = settings.documents, whole.languages
    recipe = shipped(steps=settings.warmup + settings.steps)
    pieces = toy_pieces(tokenizer, n)
    inputs = make_inputs(recipe, tokenizer, pieces)

    def write() -> float:
        return sum(1 for lang in languages for _ in documents(n, lang=lang))

    def draw() -> float:
        inputs.set_epoch(0)
        return len(inputs)

    def train() -> Sample:
        tokens, *seconds = run_ours(settings, recipe, tokenizer, pieces)
        return Sample(settings.steps, *seconds)

    found = rates(interleave({
        "documents": partial(measure, write),
        "documents, cut into pieces": partial(measure, lambda: len(toy_pieces(tokenizer, n))),
        "pairs drawn": partial(measure, draw),
        "training steps": train,
    }, settings.rounds, warm=not settings.quick))  # fmt: skip
    work = {"documents": whole.documents * len(languages), "pairs drawn": whole.steps * BATCH, "training steps": whole.steps}
    work["documents, cut into pieces"] = work["documents"]
    seconds = {name: [amount / found[name][key] for key in ("per_s", "per_cpu_s")] for name, amount in work.items()}

    def part(name: str) -> list[float]:
        return [a / (a + b) for a, b in zip(seconds[name], seconds["training steps"], strict=True)]

    return {
        "unit": "documents, pairs, steps",
        "arms": found,
        "shares": {
            "documents, of a run": share(*part("documents"), 0.05),
            "documents, cut, of a run": share(*part("documents, cut into pieces"), 0.05),
            "pairs, of the steps": share(*(a / b for a, b in zip(seconds["pairs drawn"], seconds["training steps"], strict=True))),
        },
        "run_s": {name: round(wall, 1) for name, (wall, _) in seconds.items()},
    }


# --- scale --------------------------------------------------------------------------------------------------------


def peak_mb() -> float:
    """The most memory this process has had, in MB."""
    with contextlib.suppress(OSError):  # Linux: `ru_maxrss` of a child begins with its parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset / 1e6
    return getrusage(RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def write_text(path: Path, megabytes: float) -> None:
    """Toy text of both languages. A million characters again and again: neither tokenizer nor loop remembers documents."""
    from bertcourse.corpus import texts

    stories = itertools.chain.from_iterable(zip(texts(lang="en"), texts(lang="zh"), strict=False))
    size, block = int(megabytes * 1e6), b""
    while len(block) < min(size, 1_000_000):
        block += ("\n".join(next(stories)) + "\n\n").encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(size / len(block)))):
            file.write(block)


def child(path: Path) -> dict[str, Any]:
    """Text file to mapped arrays, then steps from these: in a process of its own, whose memory is nobody else's."""
    import transformers.trainer  # noqa: F401 -- the loop's imports, before the memory of the work is looked at

    from bertcourse.corpus import load_tokenizer
    from bertcourse.pieces import encode, read_text
    from bertcourse.pretraining import pretrain

    tokenizer, before, kept = load_tokenizer(), peak_mb(), []
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:

        def cut() -> float:
            kept.append(encode(read_text(path), tokenizer, Path(folder) / "pieces"))
            return path.stat().st_size / 1e6

        cutting, after_cutting = measure(cut), peak_mb()
        training = measure(lambda: pretrain(shipped(steps=SCALE_STEPS), tokenizer, kept[0], progress=False)[1].steps)
        kept.clear()  # Windows removes no file that is mapped
    return {"cut": cutting, "train": training, "peak_mb": [before, after_cutting, peak_mb()]}


def scale(settings: Settings) -> dict[str, Any]:
    """Speed and memory at 1x, 10x and 100x the text: time is to be linear, memory flat."""
    memory: dict[str, list[list[float]]] = {f"{factor}x": [] for factor in FACTORS}
    samples: dict[str, list[Sample]] = {f"{name}, {what}": [] for name in memory for what in ("cut", "steps")}
    with tempfile.TemporaryDirectory() as folder:
        files = {f"{factor}x": Path(folder) / f"{factor}.txt" for factor in FACTORS}
        for factor, path in zip(FACTORS, files.values(), strict=True):
            write_text(path, factor * settings.megabytes)
        for _ in range(settings.rounds):
            for name, path in files.items():
                command = [sys.executable, __file__, "--child", str(path), "--threads", str(settings.threads)]
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                samples[f"{name}, cut"].append(Sample(*found["cut"]))
                samples[f"{name}, steps"].append(Sample(*found["train"]))
                memory[name].append(found["peak_mb"])
    found, small, large = rates(samples), f"{FACTORS[0]}x", f"{FACTORS[-1]}x"
    peaks = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in memory.items()}
    return {
        "unit": "MB of text, training steps",
        "arms": found,
        "ratios": {f"{large} / {small}, {what}": ratio(found, f"{large}, {what}", f"{small}, {what}") for what in ("cut", "steps")},
        "s_per_mb": {name: 1 / found[f"{name}, cut"]["per_s"] for name in memory},
        "peak_mb": {name: dict(zip(("imports", "cut", "steps"), row, strict=True)) for name, row in peaks.items()},
        "memory_growth": peaks[large][-1] / peaks[small][-1],
    }


# --- the command --------------------------------------------------------------------------------------------------

PARTS = {"loop": loop, "collator": collator, "corpus": corpus, "scale": scale}


def main() -> int:
    """Measure, print the tables, write the JSON."""
    return command(__doc__, PARTS, Settings, QUICK, child)


if __name__ == "__main__":
    sys.exit(main())
