"""How fast models are side by side, in every runtime that is asked for, and how well they score: `bench`.

Whatever is compared runs in turn, in one process: a busy moment of the machine falls on all of it. Medians are compared.
"""

from __future__ import annotations

import datetime
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, write_json
from bertcourse.base.messages import grid
from bertcourse.base.text import shown_name
from bertcourse.jobs.data import check_files
from bertcourse.jobs.exporting import agreement, read_rows
from bertcourse.jobs.folder import check_output_file, unwritable
from bertcourse.jobs.options import FileOptions, Labels, Numbers, Refused, Whole, Words, as_model, as_path, option
from bertcourse.jobs.reporter import Reporter, format_score
from bertcourse.jobs.rows import Source, as_files
from bertcourse.models.checkpoint import model_location, model_name, open_checkpoint
from bertcourse.models.kinds import RUNTIMES
from bertcourse.models.labels import are_unnamed, listed, rename

FEWEST = 7  # rounds that make a median worth reading
LENGTHS = (32, 128)
SAMPLE = 0.1  # seconds of calls for one sample


# --- options ------------------------------------------------------------------------------------------------------

class Runtimes(Words):
    """Some of the runtimes of exported models."""

    def refusal(self, value: Any) -> Refused:
        """Names the one that there is not."""
        words = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
        unknown = next((word for word in words if word not in self.words), None)
        if unknown is None:
            return super().refusal(value)
        return Refused(f"knows no runtime {unknown!r}: choose from {', '.join(self.words)}",
                       f"没有 {unknown!r} 这个运行时：请从 {'、'.join(self.words)} 中选")


@dataclass(kw_only=True)
class BenchOptions(FileOptions):
    """The options of `bench`; None: not given."""

    models: Sequence[str]
    lengths: Sequence[int] | None = option(Numbers(4096))
    batches: Sequence[int] = option(Numbers(4096))
    threads: Sequence[int] = option(Numbers(1024))
    runtimes: Sequence[str] = option(Runtimes(*RUNTIMES))
    dev: Path | None = None
    labels: Sequence[str] | None = option(Labels())
    rounds: int = option(Whole(FEWEST))
    out: Path | None = None

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything heavy is imported."""
        if not self.models:
            raise UserError("there is no model to time: name one at least", "没有要测量的模型：至少写出一个")
        seen = set()
        for name in self.models:
            location = model_location(name)
            if location in seen:
                raise UserError(f"{name} is given twice: name each model once", f"{name} 出现了两次：每个模型只写一次")
            seen.add(location)
        check_files([] if self.dev is None else [self.dev])
        check_output_file(self.out)
        if self.out is not None and self.out.suffix == ".png":
            raise UserError(f"{self.out} cannot be the JSON file: name another with --out", f"{self.out} 不能当 JSON 文件：请用 --out 换一个")
        if "openvino" in self.runtimes:
            from importlib.util import find_spec
            if find_spec("openvino") is None:
                raise UserError('--runtimes openvino: it is not installed, run `pip install "bertcourse[openvino]"`, or leave it out',
                                '--runtimes openvino：没有安装，请运行 `pip install "bertcourse[openvino]"`，或去掉它')


# --- models -------------------------------------------------------------------------------------------------------

@dataclass
class Entry:
    """A model in a runtime."""

    name: str
    runtime: str
    predictor: Any
    megabytes: float
    call: Callable[..., Any]  # with arrays

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.name} ({self.runtime})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the model."""
        return self.predictor.task.labels

    @property
    def positions(self) -> int:
        """Pieces that it reads at most."""
        return self.predictor.task.tokenizer.model_max_length


def megabytes_of_weights(folder: Path) -> float:
    """Of a checkpoint."""
    found = [path.stat().st_size for pattern in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern)]
    return sum(found) / 1e6


def open_models(options: BenchOptions, threads: int) -> list[Entry]:
    """All models with so many threads, by the shortest names that tell them apart. Raises `UserError`."""
    from bertcourse.deployment import reference
    from bertcourse.models.exported import is_exported, open_exported
    from bertcourse.profiles import load
    entries = []
    short = [model_name(name) for name in options.models]
    for name, shown in zip(options.models, short):
        shown = shown if short.count(shown) == 1 else name
        if is_exported(name):
            for runtime in options.runtimes:
                predictor = open_exported(name, runtime, threads, options.labels)
                entries.append(Entry(shown, runtime, predictor, predictor.model.path.stat().st_size / 1e6, predictor.model))
        else:
            predictor = open_checkpoint(name, options.labels)
            megabytes = megabytes_of_weights(Path(load(name).encoder))
            entries.append(Entry(shown, "pytorch", predictor, megabytes, reference(predictor.model)))
    return entries


def choose_lengths(entries: Sequence[Entry]) -> list[int]:
    """The usual lengths, where all models have places for them."""
    most = min(entry.positions for entry in entries)
    return sorted({min(length, most) for length in LENGTHS})


def check_comparable(entries: Sequence[Entry], longest: int, scored: bool) -> None:
    """Raises `UserError` for a length that a model has no places for; if they are scored, for another task than the first's."""
    first = entries[0]
    for entry in entries:
        if longest > entry.positions:
            raise UserError(f"{entry.name} takes at most {entry.positions} tokens, --lengths asks for {longest}: ask for fewer",
                            f"{entry.name} 最多 {entry.positions} 个 token，--lengths 却要 {longest}：请改小")
        kind, expected = entry.predictor.kind, first.predictor.kind
        unnamed = any(map(are_unnamed, (entry.labels, first.labels))) and len(entry.labels) == len(first.labels)
        if scored and (kind != expected or entry.labels != first.labels and not unnamed):
            raise UserError(f"{entry.name} is for {kind} with {', '.join(entry.labels) or 'no labels'}, {first.name} for {expected} with "
                            f"{', '.join(first.labels) or 'no labels'}: leave --dev out, or compare models of the same task",
                            f"{entry.name} 的任务是 {kind}（{'、'.join(entry.labels) or '无标签'}），{first.name} 是 {expected}"
                            f"（{'、'.join(first.labels) or '无标签'}）：请去掉 --dev，或只比较同一任务的模型")


# --- measuring ----------------------------------------------------------------------------------------------------

def random_batch(size: int, length: int, vocabulary: int) -> dict[str, Any]:
    """Random pieces without padding."""
    import numpy as np
    ids = np.random.default_rng(0).integers(0, vocabulary, (size, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def race(entries: Sequence[Entry], size: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """Each entry's times for a batch: median, spread, and how many times as fast as the first."""
    from bertcourse.distillation import interleave
    calls, repeats = {}, {}
    for entry in entries:
        batch = random_batch(size, length, len(entry.predictor.task.tokenizer))
        entry.call(**batch)  # warm
        start = time.perf_counter()
        entry.call(**batch)
        n = repeats[entry.label] = max(1, round(SAMPLE / max(time.perf_counter() - start, 1e-5)))
        calls[entry.label] = lambda entry=entry, batch=batch, n=n: [entry.call(**batch) for _ in range(n)]
    times = {name: [t / repeats[name] for t in row] for name, row in interleave(calls, rounds).items()}
    medians = {name: statistics.median(row) for name, row in times.items()}
    base = medians[entries[0].label]
    return [{"model": entry.name, "runtime": entry.runtime, "ms": medians[entry.label], "ratio": base / medians[entry.label],
             "ms_of_rounds": [round(t, 4) for t in times[entry.label]]} for entry in entries]


def share_names(entries: Sequence[Entry], reporter: Reporter) -> None:
    """Models whose labels have no names take those of the first model that has some; nothing happens where none has."""
    named = next((entry for entry in entries if not are_unnamed(entry.labels)), None)
    for entry in entries if named is not None else ():
        if are_unnamed(entry.labels):
            names = named.labels
            rename(entry.predictor, names, entry.name)
            reporter.info(f"{entry.name} has labels without names (LABEL_0 …): taken in order as those of {named.name}, {listed(names)}",
                          f"{entry.name} 的标签没有名字（LABEL_0 …）：按顺序当作 {named.name} 的标签 {listed(names, '、')}")


def score(entries: Sequence[Entry], options: BenchOptions, reporter: Reporter) -> dict[str, Any]:
    """Each entry's scores on `--dev`, and how often it says what the first says. Raises `UserError`."""
    share_names(entries, reporter)
    rows = read_rows(options.dev, entries[0].predictor, options, True, reporter)
    share_names(entries, reporter)  # the first one may have them from the file
    task, found, first = entries[0].predictor.task, [], None
    for entry in entries:
        reporter.step(f"scoring {entry.label}", f"正在评分 {entry.label}")
        predictions = entry.predictor.task.predict(entry.predictor.model, rows)
        first = first or predictions
        found.append({"model": entry.name, "runtime": entry.runtime, "scores": entry.predictor.task.score(predictions, rows),
                      "agree": agreement(task, first, predictions)})
    return {"file": shown_name(options.dev), "models": found}


def measure(options: BenchOptions, reporter: Reporter) -> dict[str, Any]:
    """Everything that is asked for. Raises `UserError`."""
    import torch

    from bertcourse.base.machine import describe_machine
    results, models, scores, lengths = [], [], None, options.lengths
    before = torch.get_num_threads()
    try:
        for threads in options.threads:
            entries = open_models(options, threads)
            torch.set_num_threads(threads)
            if not models:
                lengths = lengths or choose_lengths(entries)
                check_comparable(entries, max(lengths), options.dev is not None)
                models = [{"model": e.name, "runtime": e.runtime, "megabytes": round(e.megabytes, 2)} for e in entries]
                scores = score(entries, options, reporter) if options.dev else None
            for length in lengths:
                for size in options.batches:
                    reporter.step(f"{size} × {length}, threads: {threads}", f"{size} × {length}，线程数 {threads}")
                    shape = {"threads": threads, "batch": size, "length": length}
                    results += [shape | row for row in race(entries, size, length, options.rounds)]
    finally:
        torch.set_num_threads(before)
    return {"models": models, "results": results, "dev": scores, "rounds": options.rounds,
            "machine": describe_machine(torch=torch.__version__.split("+")[0]), "date": datetime.date.today().isoformat(),
            "bertcourse": __version__}


# --- what is shown ------------------------------------------------------------------------------------------------

def shapes_of(found: Mapping[str, Any]) -> dict[tuple[int, int, int], list[dict[str, Any]]]:
    """The results by threads, length and batch, in the order of the models."""
    shapes: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in found["results"]:
        shapes.setdefault((row["threads"], row["length"], row["batch"]), []).append(row)
    return shapes


def format_tables(found: Mapping[str, Any], zh: bool) -> str:
    """Tables for people."""
    shapes = shapes_of(found)
    several = len({threads for threads, *_ in shapes}) > 1
    heads = [f"{batch}×{length}{f' t{threads}' if several else ''}" for threads, length, batch in shapes]
    rows = [["倍速（毫秒）" if zh else "times as fast (ms)", "MB", *heads]]
    for model, *cells in zip(found["models"], *shapes.values()):
        times = [f"{cell['ratio']:.2f} ({cell['ms']:.4g})" for cell in cells]
        rows.append([f"{model['model']} ({model['runtime']})", f"{model['megabytes']:.2f}", *times])
    lines = grid(rows)
    if dev := found["dev"]:
        names = list(dev["models"][0]["scores"])
        rows = [[dev["file"], *names, "与第一个相同" if zh else "as the first"]]
        for model in dev["models"]:
            agree = "–" if model["agree"] is None else f"{model['agree']:.1%}"
            rows.append([f"{model['model']} ({model['runtime']})", *(format_score(name, model["scores"][name]) for name in names), agree])
        lines += ["", *grid(rows)]
    return "\n".join(lines)


def draw_bars(ax: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """How many times as fast as the first of the rows, with the middle half of the rounds as lines."""
    from bertcourse.plots import PALETTE
    base = statistics.median(rows[0]["ms_of_rounds"])
    middle = [[base / t for t in statistics.quantiles(row["ms_of_rounds"])] for row in rows]
    values = [row["ratio"] for row in rows]
    errors = [[max(0, v - s[2]) for v, s in zip(values, middle)], [max(0, s[0] - v) for v, s in zip(values, middle)]]
    ax.barh(range(len(rows)), values, xerr=errors, color=[PALETTE[i % len(PALETTE)] for i in range(len(rows))], error_kw={"linewidth": 1})
    ax.set_yticks(range(len(rows)), [f"{row['model']} ({row['runtime']})" for row in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    for i, (value, above) in enumerate(zip(values, errors[1])):
        ax.annotate(f"{value:.2f}", (value + above, i), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    ax.margins(x=0.18)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Bars of how many times as fast, a panel for each shape, as a PNG."""
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    shapes, models = shapes_of(found), found["models"]
    across = len(shapes) if len(shapes) <= 3 else 2
    lines = -(-len(shapes) // across)
    size = (1.5 + 3.4 * across, 0.4 + (0.7 + 0.3 * len(models)) * lines)
    figure, axes = plt.subplots(lines, across, figsize=size, squeeze=False, sharey=True)
    for ax in axes.flat[len(shapes):]:
        ax.axis("off")
    for ax, ((threads, length, batch), rows) in zip(axes.flat, shapes.items()):
        draw_bars(ax, rows)
        ax.set_title(f"batch {batch}, length {length}, {threads} thread{'s' * (threads > 1)}", fontsize=9)
    figure.supxlabel(f"times as fast as {models[0]['model']} ({models[0]['runtime']}); medians of {found['rounds']} rounds, "
                     "lines: the middle half", fontsize=8.5)
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


# --- the job ------------------------------------------------------------------------------------------------------

def run_benchmark(options: BenchOptions, reporter: Reporter) -> dict[str, Any]:
    """Check all, measure, and write the figures if `--out` is given. Raises `UserError`."""
    options.check()
    from bertcourse.training import write_whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(options, reporter)
        if options.out is not None:
            try:
                write_json(options.out, found)
                write_whole(options.out.with_suffix(".png"), lambda path: draw(found, path))
            except OSError as error:
                raise unwritable(options.out, error) from None
    return finite(found)


def bench(
    models: str | Path | Iterable[str | Path],  # checkpoints, or folders that `bertcourse export` made
    *,
    lengths: str | Sequence[int] | None = None,  # tokens of a text (default: 32,128, or what the models take)
    batches: str | Sequence[int] = (1, 8),  # texts at a time (default: 1,8)
    threads: str | Sequence[int] = (1,),  # threads of a model (default: 1)
    runtimes: Sequence[str] = ("ort",),  # of exported folders: ort, openvino (default: ort)
    dev: Source | None = None,  # labelled rows: scores, and how often they say what the first one says
    columns: str | Mapping[str, str] | None = None,  # our name → the file's, or its number: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll or squad (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    labels: Sequence[str] | None = None,  # names for the models' labels in their order: bad,good, or a JSON list
    rounds: int = 9,  # of each comparison, at least 7 (default: 9)
    out: str | Path | None = None,  # write the figures there as JSON, and a picture beside it as .png
    quiet: bool = False,  # say nothing but errors
) -> dict[str, Any]:
    """Time models side by side; the first is what the others are compared with. Returns what `bertcourse bench --json` prints.

    `dev` is a file, a list of dicts, a `datasets.Dataset` or a `pandas.DataFrame`. Raises `bertcourse.base.errors.UserError` for
    what a user can fix.
    """
    names = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    with as_files(dict(locals()), ["dev"]) as values:
        options = BenchOptions.of(values | {"models": [as_model(name, "models") for name in names], "out": as_path(out)})
        return run_benchmark(options, Reporter(quiet))
