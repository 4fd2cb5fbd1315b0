"""`bertcourse bench`: how fast models are side by side, in every runtime that is asked for, and how well they score.

Whatever is compared runs in turn, in one process: a busy moment of the machine falls on all of it. Medians are compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app import finetune, labels
from bertcourse.app.exported import RUNTIMES, is_exported, open_exported
from bertcourse.app.finetune import Narrator, value_of
from bertcourse.app.messages import UserError, grid, reader_language
from bertcourse.app.predict import check_out
from bertcourse.app.pretrain import unusable, whole
from bertcourse.app.reading import add_options
from bertcourse.base.display import json_of, printable
from bertcourse.base.text import shown_name

FEWEST = 7  # rounds that make a median worth reading
LENGTHS = (32, 128)
SAMPLE = 0.1  # seconds of calls for one sample
MOST = {"lengths": 4096, "batches": 4096, "threads": 1024}
USAGE = "bertcourse bench DIR [DIR ...] [--lengths 32,128] [--batches 1,8] [--threads 1,2] [--dev FILE] [option ...]"
EPILOG = """A checkpoint runs in PyTorch, an exported folder in ONNX Runtime and whatever else --runtimes names. The first model is
what the others are compared with: 2.00 is twice as fast. Inputs are random pieces without padding.
"""


def numbers(name: str) -> Callable[[str], list[int]]:
    """`16,32,128`, each from 1 to what is sensible."""
    def read(text: str) -> list[int]:
        try:
            found = [int(part) for part in text.split(",")]
        except ValueError:
            found = []
        if not found or min(found) < 1 or max(found) > MOST[name] or len(set(found)) < len(found):
            raise argparse.ArgumentTypeError(f"must be like 1,8, each once, from 1 to {MOST[name]}, not {text!r}")
        return found
    return read


def runtimes(text: str) -> list[str]:
    """`ort,openvino`."""
    found = text.split(",")
    if unknown := [name for name in found if name not in RUNTIMES]:
        raise argparse.ArgumentTypeError(f"there is no runtime {unknown[0]!r}: choose from {', '.join(RUNTIMES)}")
    return list(dict.fromkeys(found))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=22, width=100)
    add = parser.add_argument
    add("models", nargs="+", metavar="DIR", help="checkpoints, or folders that `bertcourse export` made")
    add("--lengths", type=numbers("lengths"), metavar="LIST", help="pieces of a text (default: 32,128, or what the models take)")
    add("--batches", type=numbers("batches"), default=[1, 8], metavar="LIST", help="texts at a time (default: 1,8)")
    add("--threads", type=numbers("threads"), default=[1], metavar="LIST", help="threads of a model (default: 1)")
    add("--runtimes", type=runtimes, default=["ort"], metavar="LIST", help="of exported folders: ort, openvino (default: ort)")
    add("--dev", type=Path, metavar="FILE", help="labelled rows: scores, and how often they say what the first one says")
    add_options(parser)
    add("--labels", type=labels.names, metavar="LIST", help=labels.HELP)
    add("--rounds", type=whole(FEWEST), default=9, metavar="N", help=f"of each comparison, at least {FEWEST} (default: 9)")
    add("--out", type=Path, metavar="FILE", help="write the figures there as JSON, and a picture beside it as .png")
    add("--json", action="store_true", help="print the figures as JSON")
    add("--quiet", action="store_true", help="print nothing")


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported. Raises `UserError`."""
    seen: dict[str, str] = {}
    for name in args.models:
        place = finetune.place_of(name)
        if place in seen:
            raise UserError(f"{name} is given twice: name each model once", f"{name} 出现了两次：每个模型只写一次")
        seen[place] = name
    if args.dev is not None:
        finetune.check_files([args.dev])
    check_out(args.out, "-")
    if args.out is not None and args.out.suffix == ".png":
        raise UserError(f"{args.out} cannot be the JSON file: name another with --out", f"{args.out} 不能当 JSON 文件：请用 --out 换一个")
    if "openvino" in args.runtimes:
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


def weight_of(folder: Path) -> float:
    """Megabytes of the weights."""
    found = [path.stat().st_size for pattern in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(pattern)]
    return sum(found) / 1e6


def entries(args: argparse.Namespace, threads: int) -> list[Entry]:
    """All models with so many threads, shortest names that tell them apart. Raises `UserError`."""
    from bertcourse.app.predict import open_model
    from bertcourse.deployment import reference
    from bertcourse.profiles import load
    made = []
    short = {name: finetune.base_name(name) for name in args.models}
    for name in args.models:
        shown = short[name] if list(short.values()).count(short[name]) == 1 else name
        if is_exported(name):
            for runtime in args.runtimes:
                predictor = open_exported(name, runtime, threads, args.labels)
                made.append(Entry(shown, runtime, predictor, predictor.model.path.stat().st_size / 1e6, predictor.model))
        else:
            predictor = open_model(name, args.labels)
            made.append(Entry(shown, "pytorch", predictor, weight_of(Path(load(name).encoder)), reference(predictor.model)))
    return made


def check_alike(found: Sequence[Entry], args: argparse.Namespace) -> None:
    """Settle the lengths. Raises `UserError` for one that a model has no places for; with `--dev`, for another task than the first's."""
    first = found[0].predictor
    if args.lengths is None:
        most = min(entry.predictor.task.tokenizer.model_max_length for entry in found)
        args.lengths = sorted({min(length, most) for length in LENGTHS})
    for entry in found:
        places = entry.predictor.task.tokenizer.model_max_length
        if max(args.lengths) > places:
            raise UserError(f"{entry.name} takes at most {places} pieces, --lengths asks for {max(args.lengths)}: ask for fewer",
                            f"{entry.name} 最多 {places} 个 token，--lengths 却要 {max(args.lengths)}：请改小")
        theirs, ours = (entry.predictor.kind, entry.predictor.task.labels), (first.kind, first.task.labels)
        unnamed = any(map(labels.are_unnamed, (theirs[1], ours[1]))) and len(theirs[1]) == len(ours[1])
        if args.dev is not None and theirs != ours and not (unnamed and theirs[0] == ours[0]):
            raise UserError(f"{entry.name} is for {theirs[0]} with {', '.join(theirs[1]) or 'no labels'}, {found[0].name} for {ours[0]} with "
                            f"{', '.join(ours[1]) or 'no labels'}: leave --dev out, or compare models of the same task",
                            f"{entry.name} 的任务是 {theirs[0]}（{'、'.join(theirs[1]) or '无标签'}），{found[0].name} 是 {ours[0]}"
                            f"（{'、'.join(ours[1]) or '无标签'}）：请去掉 --dev，或只比较同一任务的模型")


# --- measuring ----------------------------------------------------------------------------------------------------

def batch_of(size: int, length: int, vocab: int) -> dict[str, Any]:
    """Random pieces without padding."""
    import numpy as np
    ids = np.random.default_rng(0).integers(0, vocab, (size, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def race(found: Sequence[Entry], size: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """Each entry's times for a batch: median, spread, and how many times as fast as the first."""
    from bertcourse.distillation import interleave
    calls, repeats = {}, {}
    for entry in found:
        batch = batch_of(size, length, len(entry.predictor.task.tokenizer))
        entry.call(**batch)  # warm
        start = time.perf_counter()
        entry.call(**batch)
        n = repeats[entry.label] = max(1, round(SAMPLE / max(time.perf_counter() - start, 1e-5)))
        calls[entry.label] = lambda entry=entry, batch=batch, n=n: [entry.call(**batch) for _ in range(n)]
    times = {name: [t / repeats[name] for t in row] for name, row in interleave(calls, rounds).items()}
    medians = {name: statistics.median(row) for name, row in times.items()}
    base = medians[found[0].label]
    return [{"model": entry.name, "runtime": entry.runtime, "ms": medians[entry.label], "ratio": base / medians[entry.label],
             "ms_of_rounds": [round(t, 4) for t in times[entry.label]]} for entry in found]


def share_names(found: Sequence[Entry], tell: Narrator) -> None:
    """Models whose labels have no names take those of the first model that has some; nothing happens where none has."""
    named = next((entry for entry in found if not labels.are_unnamed(entry.predictor.task.labels)), None)
    for entry in found if named is not None else ():
        if labels.are_unnamed(entry.predictor.task.labels):
            names = named.predictor.task.labels
            labels.rename(entry.predictor, names, entry.name)
            tell.state(f"{entry.name} has labels without names (LABEL_0 …): taken in order as those of {named.name}, {labels.listed(names)}",
                       f"{entry.name} 的标签没有名字（LABEL_0 …）：按顺序当作 {named.name} 的标签 {labels.listed(names, '、')}")


def scored(found: Sequence[Entry], rows: Any, tell: Narrator) -> list[dict[str, Any]]:
    """Each entry's scores, and how often it says what the first says."""
    from bertcourse.app.export import agreement
    task, made, first = found[0].predictor.task, [], None
    for entry in found:
        tell.say(f"scoring {entry.label}", f"正在评分 {entry.label}")
        said = entry.predictor.task.predict(entry.predictor.model, rows)
        first = first or said
        made.append({"model": entry.name, "runtime": entry.runtime, "scores": entry.predictor.task.score(said, rows),
                     "agree": agreement(task, first, said)})
    return made


def measure(args: argparse.Namespace, tell: Narrator) -> dict[str, Any]:
    """Everything that is asked for. Raises `UserError`."""
    import torch

    from bertcourse.app.export import read_rows
    from bertcourse.base.machine import describe_machine
    results, scores, models = [], [], []
    before = torch.get_num_threads()
    try:
        for threads in args.threads:
            torch.set_num_threads(threads)
            found = entries(args, threads)
            if not models:
                check_alike(found, args)
                models = [{"model": e.name, "runtime": e.runtime, "megabytes": round(e.megabytes, 2)} for e in found]
                if args.dev is not None:
                    share_names(found, tell)
                    rows = read_rows(args.dev, found[0].predictor, args, True, tell)
                    share_names(found, tell)  # the first one may have them from the file
                    scores = scored(found, rows, tell)
            for length in args.lengths:
                for size in args.batches:
                    tell.say(f"{size} × {length}, threads: {threads}", f"{size} × {length}，线程数 {threads}")
                    results += [{"threads": threads, "batch": size, "length": length} | row for row in race(found, size, length, args.rounds)]
    finally:
        torch.set_num_threads(before)
    machine = describe_machine(torch=torch.__version__.split("+")[0])
    return {"models": models, "results": results, "dev": {"file": shown_name(args.dev), "models": scores} if args.dev else None, "rounds": args.rounds,
            "machine": machine, "date": datetime.date.today().isoformat(), "bertcourse": __version__}


# --- what is shown ------------------------------------------------------------------------------------------------

def shown(found: dict[str, Any], zh: bool) -> str:
    """Tables for people."""
    shapes = list(dict.fromkeys((r["threads"], r["length"], r["batch"]) for r in found["results"]))
    heads = [f"{batch}×{length}" for _, length, batch in shapes]
    if len({threads for threads, *_ in shapes}) > 1:
        heads = [f"{head} t{threads}" for head, (threads, *_) in zip(heads, shapes)]
    by = {(r["threads"], r["length"], r["batch"], r["model"], r["runtime"]): r for r in found["results"]}
    rows = [["倍速（毫秒）" if zh else "times as fast (ms)", "MB", *heads]]
    for m in found["models"]:
        cells = [by[(*shape, m["model"], m["runtime"])] for shape in shapes]
        rows.append([f"{m['model']} ({m['runtime']})", f"{m['megabytes']:.2f}", *(f"{c['ratio']:.2f} ({c['ms']:.4g})" for c in cells)])
    said = grid(rows)
    if found["dev"]:
        names = list(found["dev"]["models"][0]["scores"])
        rows = [[found["dev"]["file"], *names, "与第一个相同" if zh else "as the first"]]
        rows += [[f"{m['model']} ({m['runtime']})", *(value_of(n, m["scores"][n]) for n in names), "–" if m["agree"] is None else f"{m['agree']:.1%}"] for m in found["dev"]["models"]]
        said += ["", *grid(rows)]
    return "\n".join(said)


def draw(found: dict[str, Any], path: Path) -> None:
    """Bars of how many times as fast, a panel for each shape, as a PNG."""
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from bertcourse.plots import PALETTE
    shapes = list(dict.fromkeys((r["threads"], r["length"], r["batch"]) for r in found["results"]))
    across = len(shapes) if len(shapes) <= 3 else 2
    lines = -(-len(shapes) // across)
    figure, axes = plt.subplots(lines, across, figsize=(1.5 + 3.4 * across, 0.4 + (0.7 + 0.3 * len(found["models"])) * lines), squeeze=False, sharey=True)
    for ax in axes.flat[len(shapes):]:
        ax.axis("off")
    for ax, (threads, length, batch) in zip(axes.flat, shapes):
        rows = [r for r in found["results"] if (r["threads"], r["length"], r["batch"]) == (threads, length, batch)]
        names = [f"{r['model']} ({r['runtime']})" for r in rows]
        base = statistics.median(rows[0]["ms_of_rounds"])
        middle = [[base / t for t in statistics.quantiles(r["ms_of_rounds"])] for r in rows]  # of the rounds
        values = [r["ratio"] for r in rows]
        errors = [[max(0, v - s[2]) for v, s in zip(values, middle)], [max(0, s[0] - v) for v, s in zip(values, middle)]]
        ax.barh(range(len(rows)), values, xerr=errors, color=[PALETTE[i % len(PALETTE)] for i in range(len(rows))], error_kw={"linewidth": 1})
        ax.set_yticks(range(len(rows)), names, fontsize=8)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(f"batch {batch}, length {length}, {threads} thread{'s' * (threads > 1)}", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        for i, (v, more) in enumerate(zip(values, errors[1])):
            ax.annotate(f"{v:.2f}", (v + more, i), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
        ax.margins(x=0.18)
    figure.supxlabel(f"times as fast as {found['models'][0]['model']} ({found['models'][0]['runtime']}); medians of {found['rounds']} rounds, "
                     "lines: the middle half", fontsize=8.5)
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def write(found: dict[str, Any], out: Path) -> None:
    """JSON and PNG, each whole or not at all."""
    from bertcourse.training import write_whole
    text = json.dumps(finetune.finite(found), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_whole(out, lambda path: path.write_text(text, encoding="utf-8"))
    write_whole(out.with_suffix(".png"), lambda path: draw(found, path))


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Measure and report: 0. Raises `UserError`."""
    check_arguments(args)
    zh = reader_language() == "zh"
    warnings.simplefilter("ignore")
    found = measure(args, Narrator("zh" if zh else "en", args.quiet or args.json))
    if args.out is not None:
        try:
            write(found, args.out)
        except OSError as error:
            raise unusable(args.out, error) from None
    if args.json:
        print(json_of(finetune.finite(found), indent=1))
    elif not args.quiet:
        print(printable(shown(found, zh), keep="\n"))
    return 0
