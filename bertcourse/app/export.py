"""`bertcourse export`: a fine-tuned model as an ONNX file with all that is needed to run it, compared with what it came from.

The folder is made beside its place and renamed when it is whole. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app import finetune, labels
from bertcourse.app.exported import is_exported, refusals
from bertcourse.app.finetune import ABOUT, Narrator, number, value_of, write_json
from bertcourse.app.messages import UserError, reader_language
from bertcourse.app.pretrain import check_writable, load, unusable
from bertcourse.app.reading import add_options, check_fit, options_of, read_for
from bertcourse.base.display import json_of, printable
from bertcourse.base.machine import overflows, processor
from bertcourse.base.names import check_utf8
from bertcourse.base.text import shown_name

METHODS = ("dynamic", "static")
CALIBRATION_ROWS = 256  # of --calibrate: more of them hardly move the ranges
TOLERANCE = 1e-4  # of FP32
USAGE = "bertcourse export DIR --out FOLDER [--int8 dynamic|static] [option ...]"
EPILOG = """FOLDER gets model.onnx, tokenizer, config.json, bertcourse.json and README.md; `bertcourse predict` and `bench` take it.
A --max-drop that was kept on one processor proves nothing for another: x86 without VNNI computes in 8 bits otherwise.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage, parser.epilog = USAGE, EPILOG
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=22, width=100)
    add = parser.add_argument
    add("model", metavar="DIR", help="folder of a fine-tuned model, or its owner/name on the hub")
    add("--out", type=Path, required=True, metavar="FOLDER", help="new folder for the exported model")
    add("--int8", choices=METHODS, metavar="METHOD", help="weights in 8 bits: dynamic; or static, with fixed ranges of activations, too")
    add("--reduce-range", action="store_true", help="int8: weights in 7 bits, which overflow on no processor (x86 without VNNI)")
    add("--calibrate", type=Path, metavar="FILE", help="static: texts like those it will see, labels are not needed")
    add("--dev", type=Path, metavar="FILE", help="labelled rows: scores before and after")
    add("--max-drop", type=number(0), metavar="P", help="with --dev: write nothing if more points are lost on this processor")
    add_options(parser)
    add("--labels", type=labels.names, metavar="LIST", help=labels.HELP)
    add("--force", action="store_true", help="replace an exported model that is there")
    add("--json", action="store_true", help="print the report as JSON")
    add("--quiet", action="store_true", help="say nothing but errors")


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported. Raises `UserError`."""
    if args.int8 == "static" and args.calibrate is None:
        raise UserError("--int8 static needs --calibrate FILE: texts that tell the ranges of activations",
                        "--int8 static 需要 --calibrate FILE：用其中的文本确定激活值的范围")
    if args.int8 != "static" and args.calibrate is not None:
        raise UserError("--calibrate is for --int8 static: add that, or leave it out", "--calibrate 只用于 --int8 static：请加上它，或去掉 --calibrate")
    if args.max_drop is not None and args.dev is None:
        raise UserError("--max-drop needs --dev FILE: without labelled rows no drop can be measured",
                        "--max-drop 需要 --dev FILE：没有带标签的数据就量不出下降")
    if args.max_drop is not None and args.int8 is None:
        raise UserError("--max-drop is for --int8: FP32 loses nothing; leave it out, or add --int8",
                        "--max-drop 要配合 --int8：FP32 不会有损失；请去掉它，或加上 --int8")
    if args.reduce_range and args.int8 is None:
        raise UserError("--reduce-range is for --int8: add that, or leave it out", "--reduce-range 要配合 --int8：请加上它，或去掉 --reduce-range")
    finetune.check_files([file for file in (args.calibrate, args.dev) if file is not None])
    if is_exported(args.model):
        raise UserError(f"{args.model} is an exported model already: give the checkpoint that it came from",
                        f"{args.model} 已经是导出的模型：请给出导出前的检查点")
    check_out(args.out, args.force)


def check_out(out: Path, force: bool) -> None:
    """Raises `UserError` if the folder cannot be made, or would take the place of something that no export made."""
    check_utf8(out.absolute())
    if out.is_symlink() or out.exists():
        empty = out.is_dir() and not any(out.iterdir())
        ours = out.is_dir() and not out.is_symlink() and is_exported(out) and "sha256" in load(out / ABOUT)
        if force and not (ours or empty):
            raise UserError(f"{out} is no exported model, --force does not replace it: choose another folder with --out",
                            f"{out} 不是导出的模型，--force 不会覆盖它：请用 --out 换一个文件夹")
        if not force and not empty:
            raise UserError(f"{out} exists: choose another folder with --out, or replace an exported model by --force",
                            f"{out} 已经存在：请用 --out 换一个文件夹，或用 --force 覆盖导出过的模型")
    above = next(path for path in out.absolute().parents if path.exists())
    if not above.is_dir():
        raise UserError(f"{above} is a file, no folder can be made in it: choose another --out",
                        f"{above} 是一个文件，里面不能建文件夹：请用 --out 换一个位置")
    check_writable(above)


# --- the rows -----------------------------------------------------------------------------------------------------

def read_rows(path: Path, predictor: Any, args: argparse.Namespace, labelled: bool, tell: Narrator) -> Any:  # a datasets.Dataset
    """A file as the model was trained to read it. Raises `UserError`."""
    from bertcourse import files
    try:
        rows = read_for(predictor, path, args.columns, labelled, **options_of(vars(args)))
        check_fit(predictor.inputs, predictor.kind, rows.rows[0], path.name)
        if labelled:
            rows, = labels.settle(predictor, {"dev": rows}, predictor.name, tell).values()
        found = files.as_dataset(rows.task, {"dev": rows}, predictor.task.labels or None)["dev"]
    except files.FileError as error:
        raise UserError(error.en, error.zh) from None
    finetune.tell_rows(rows, tell)
    return found


def calibration(path: Path, predictor: Any, args: argparse.Namespace, inputs: Sequence[str], tell: Narrator) -> Any:  # a Calibration
    """Batches of a file's first rows."""
    from bertcourse.deployment import Calibration
    from bertcourse.runtime import pad_arrays
    rows = read_rows(path, predictor, args, False, tell)
    rows = rows.select(range(min(len(rows), CALIBRATION_ROWS)))
    encoded = predictor.task.encode(rows, labelled=False)
    pad_id = predictor.task.tokenizer.pad_token_id or 0
    return Calibration([pad_arrays(encoded[i:i + 8], pad_id) for i in range(0, len(encoded), 8)], inputs)


# --- what is measured ---------------------------------------------------------------------------------------------

@dataclass
class Report:
    """What was written and what was compared; `--json` prints it."""

    about: dict[str, Any]
    fp32: dict[str, Any]  # parity of the exported graph with PyTorch
    bytes: dict[str, int]  # of model.onnx, and of the FP32 weights
    seconds: float = 0.0
    dev: dict[str, Any] = field(default_factory=dict)


def right(task: Any, rows: Any, predictions: Sequence[dict[str, Any]]) -> list[bool] | None:
    """Which rows are answered rightly; None for numbers."""
    if task.name == "classification":
        return [task.labels.index(p["label"]) == label for p, label in zip(predictions, rows["label"])]
    if task.name == "ner":
        from bertcourse.tasks import repair
        said = [p["tags"] for p in predictions]
        return [a == (b if task.meaning is None else repair(b)) for a, b in zip(said, task.truth(rows), strict=True)]
    if task.name == "qa":
        from bertcourse.tasks import answer_scores
        rules = task.rules([answers["text"] for answers in rows["answers"]])
        return [answer_scores(p["answer"], answers["text"], rules)[0] == 1.0 for p, answers in zip(predictions, rows["answers"])]
    return None


def agreement(task: Any, first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> float | None:
    """The share of rows of which two models say the same; None for numbers, which are never quite the same."""
    name = {"classification": "label", "ner": "tags", "qa": "answer"}.get(task.name)
    return sum(a[name] == b[name] for a, b in zip(first, second, strict=True)) / len(first) if name else None


def on_dev(task: Any, rows: Any, before: Any, after: Any) -> dict[str, Any]:
    """Scores of two models on the same rows, how often they agree, and McNemar's test."""
    from bertcourse.deployment import mcnemar
    said = [task.predict(model, rows) for model in (before, after)]
    scores = [task.score(answers, rows) for answers in said]
    found = {"rows": len(rows), "before": scores[0], "after": scores[1], "metric": task.better[0],
             "agree": agreement(task, *said)}
    if right(task, rows, said[0]) is not None:
        lost, won, p = mcnemar(*(right(task, rows, answers) for answers in said))
        found |= {"became_wrong": lost, "became_right": won, "p": p}
    return found


def drop(dev: dict[str, Any]) -> float:
    """Points lost in the task's own metric."""
    before, after = (100 * dev[when][dev["metric"]] for when in ("before", "after"))
    return before - after


# --- the processor ------------------------------------------------------------------------------------------------

def describe_processor() -> dict[str, Any]:
    """That on which the graphs were compared and scored, for `bertcourse.json`."""
    found = processor()
    return {"name": str(found), **{key: value for key, value in asdict(found).items() if key not in ("name", "generation")},
            "flags": list(found.flags)}  # fmt: skip


def warn_of_overflow(args: argparse.Namespace, tell: Narrator) -> None:
    """Say that answers in 8 bits may be wrong on a processor such as this."""
    if not args.int8 or args.reduce_range or not overflows(processor()):
        return
    name = processor()
    tell.state(f"warning: {name} has no VNNI, so sums of 8-bit products may overflow and change answers: --reduce-range prevents it",
               f"警告：{name} 没有 VNNI，8 位乘积之和可能溢出而改变答案：加上 --reduce-range 可以避免")


def about_processors(report: Report) -> tuple[str, str] | None:
    """What the scores of a model in 8 bits do not show, in English and Chinese; None in FP32."""
    how, name = report.about["quantisation"], report.about["processor"]["name"]
    if how is None:
        return None
    if how["reduce_range"]:
        return (f"compared on {name}; weights in 7 bits overflow on no processor", f"比较是在 {name} 上做的；7 位的权重在任何处理器上都不会溢出")
    return (f"compared on {name}; this shows nothing for a processor with other 8-bit instructions (x86 without VNNI): score again there, "
            "or export with --reduce-range",
            f"比较是在 {name} 上做的；对 8 位指令不同的处理器（没有 VNNI 的 x86）说明不了什么：请在那里重新评分，或用 --reduce-range 导出")


# --- the folder ---------------------------------------------------------------------------------------------------

def card(name: str, report: Report) -> str:
    """The README.md of the folder."""
    about, fp32 = report.about, report.fp32
    how = about["quantisation"]
    bits = " with weights in 7 bits" if how and how["reduce_range"] else ""
    weights = f"INT8, {how['method']} quantisation{bits}" if how else "FP32"
    lines = [f"# {name}", "",
             f"{about['architecture']} for {about['task']}, exported to ONNX from `{about['model']}` by bertcourse {__version__}.", "",
             f"- `model.onnx`: opset {about['opset']}, {weights}, {report.bytes['onnx'] / 1e6:.2f} MB (weights in FP32: {report.bytes['fp32'] / 1e6:.2f} MB)",
             f"- inputs: any batch, 1 to {about['max_length']} pieces; longer texts are cut, or seen through several windows (ner, qa)"]
    if about["labels"]:
        lines.append(f"- labels: {', '.join(about['labels'])}")
    if found := about_processors(report):
        lines.append(f"- {found[0]}")
    lines += ["", "## Compared with PyTorch", "", f"The FP32 graph: {fp32['said']}.", ""]
    if report.dev:
        dev = report.dev
        rows = [f"| {metric} | {dev['before'][metric]:.4f} | {dev['after'][metric]:.4f} |" for metric in dev["before"]]
        kept = f"The same answer for {dev['agree']:.1%} of the rows" if dev["agree"] is not None else "Answers are numbers"
        lines += [f"On {dev['file']} ({dev['rows']:,} rows), PyTorch beside this model:", "", "| | PyTorch | ONNX |", "|---|---|---|", *rows, "",
                  kept + (f"; {dev['became_wrong']} became wrong, {dev['became_right']} right (McNemar's p = {dev['p']:.2g})." if "p" in dev else "."), ""]
    lines += ["## Use", "", "```sh", f"bertcourse predict {name} texts.txt", "```", ""]
    return "\n".join(lines)


def write_folder(args: argparse.Namespace, folder: Path, predictor: Any, tell: Narrator) -> Report:
    """Everything into a new folder. Raises `UserError`."""
    from bertcourse.base.atomic import file_digest
    from bertcourse.deployment import export, opset_of, quantize, verify
    from bertcourse.runtime import MODEL, Session
    start = time.perf_counter()
    task, model, config = predictor.task, predictor.model, predictor.model.config
    name, onnx_file, plain = finetune.base_name(args.model), folder / MODEL, folder / "fp32.onnx"
    sizes = {"max_length": task.max_length, "vocab_size": config.vocab_size, "type_vocab_size": getattr(config, "type_vocab_size", 1)}
    rows = read_rows(args.dev, predictor, args, True, tell) if args.dev else None  # bad rows are told before minutes of work
    if labels.are_unnamed(task.labels):
        tell.state(f"{name} has labels without names (LABEL_0 …): --labels gives them some", f"{name} 的标签没有名字（LABEL_0 …）：可以用 --labels 命名")
    with refusals():
        tell.say("exporting", "正在导出")
        export(model, plain, task.max_length, task.tokenizer.model_input_names)
        tell.say("comparing with PyTorch", "正在与 PyTorch 比较")
        session = Session(plain, pad_id=task.tokenizer.pad_token_id or 0)
        parity = verify(model, session, tolerance=TOLERANCE, **sizes)
        if not parity.ok:
            raise UserError(f"{name} was exported, but does not answer as before: {parity.faults[0]}; nothing was written",
                            f"{name} 导出后的结果与原来不一致：{parity.faults[0]}；没有写出任何文件")
        how = None
        if args.int8:
            warn_of_overflow(args, tell)
            tell.say("quantising", "正在量化")
            texts = calibration(args.calibrate, predictor, args, list(session.inputs), tell) if args.calibrate else None
            quantize(plain, onnx_file, calibration=texts, reduce_range=args.reduce_range)
            how = {"method": args.int8, "weights": "int8", "activations": "uint8", "per_channel": True, "reduce_range": args.reduce_range}
            if texts is not None:
                how |= {"calibration": {"file": shown_name(args.calibrate), "rows": sum(len(b["input_ids"]) for b in texts.batches)}}
            session = Session(onnx_file, pad_id=session.pad_id)
            plain.unlink()
        else:
            os.replace(plain, onnx_file)
    about = {"task": predictor.kind, "labels": list(task.labels), "max_length": task.max_length, "sha256": file_digest(onnx_file),
             "lang": task.lang, "threshold": getattr(task, "threshold", None), "max_answer_length": getattr(task, "max_answer_length", None),
             "columns": predictor.columns, "inputs": predictor.inputs,
             "opset": opset_of(onnx_file), "quantisation": how, "processor": describe_processor(), "parity": asdict(parity), "model": name,
             "architecture": type(model).__name__, "bertcourse": __version__}
    report = Report(about, asdict(parity) | {"said": str(parity)},
                    {"onnx": onnx_file.stat().st_size, "fp32": 4 * sum(p.numel() for p in model.parameters())})
    if rows is not None:
        tell.say("scoring", "正在评分")
        report.dev = on_dev(task, rows, model, session) | {"file": shown_name(args.dev)}
        about["dev"] = report.dev
        if args.max_drop is not None and not drop(report.dev) <= args.max_drop:  # nan is no proof
            other = "--reduce-range" if overflows(processor()) and not args.reduce_range else \
                f"--int8 {'dynamic' if args.int8 == 'static' else 'static'}"
            raise UserError(f"{name} loses {drop(report.dev):.2f} points of {report.dev['metric']} on {args.dev.name}, more than --max-drop "
                            f"{args.max_drop:g}: nothing was written; try {other}, or FP32",
                            f"{name} 在 {args.dev.name} 上的 {report.dev['metric']} 下降 {drop(report.dev):.2f} 个点，超过 --max-drop "
                            f"{args.max_drop:g}：没有写出任何文件；可以试试 {other}，或用 FP32")
    task.tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    about["files"] = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path != onnx_file}
    write_json(folder / ABOUT, finetune.finite(about))
    (folder / "README.md").write_text(card(shown_name(args.out.absolute()), report), encoding="utf-8")
    report.seconds = round(time.perf_counter() - start, 1)
    return report


def place(made: Path, out: Path) -> None:
    """Rename a whole folder to its place; what was there goes when the new one stands."""
    old = None
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent)) / "old"
        os.replace(out, old)
    try:
        os.replace(made, out)
    except OSError:
        if old is not None:
            os.replace(old, out)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old.parent, ignore_errors=True)


def summary(out: Path, report: Report, zh: bool) -> str:
    """What is printed at the end."""
    about, how = report.about, report.about["quantisation"]
    kind = f"INT8 {how['method']}{', 7 bits' if how['reduce_range'] else ''}" if how else "FP32"
    mb = f"{report.bytes['onnx'] / 1e6:.2f} MB"
    lines = [f"{out}: {about['architecture']}, {kind}, opset {about['opset']}, {mb}, {report.seconds:.1f} s",
             f"FP32 {'与 PyTorch 比较：' if zh else 'compared with PyTorch: '}{report.fp32['said']}"]
    if report.dev:
        dev, metric = report.dev, report.dev["metric"]
        before, after = (value_of(metric, dev[when][metric]) for when in ("before", "after"))
        p = f", {dev['became_wrong']} became wrong, {dev['became_right']} right, p = {dev['p']:.2g}" if "p" in dev else ""
        p_zh = f"，{dev['became_wrong']} 条变错，{dev['became_right']} 条变对，p = {dev['p']:.2g}" if "p" in dev else ""
        kept, kept_zh = (f", {dev['agree']:.1%} of the answers the same", f"，{dev['agree']:.1%} 的回答相同") if dev["agree"] is not None else ("", "")
        lines.append(f"{dev['file']}：{metric} {before} → {after}{kept_zh}{p_zh}" if zh else f"{dev['file']}: {metric} {before} → {after}{kept}{p}")
    if found := about_processors(report):
        lines.append(found[zh])
    return "\n".join(lines)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Export: 0. Raises `UserError`."""
    check_arguments(args)
    lang = reader_language()
    tell = Narrator(lang, args.quiet or args.json)
    warnings.simplefilter("ignore")
    from bertcourse.app.predict import open_model
    predictor = open_model(args.model, args.labels)
    out = args.out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            (work / "new").mkdir()
            report = write_folder(args, work / "new", predictor, tell)
            place(work / "new", out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise unusable(args.out, error) from None
    if args.json:
        print(json_of(finetune.finite(asdict(report)), indent=1))
    elif not args.quiet:
        print(printable(summary(args.out, report, lang == "zh"), keep="\n"), file=sys.stderr)
    return 0
