"""A fine-tuned model as an ONNX file with all that is needed to run it, compared with what it came from: `export`.

The folder is made beside its place and renamed when it is whole. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertcourse.base.atomic import file_digest
from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, read_json, write_json
from bertcourse.base.machine import overflows, processor, threads_for
from bertcourse.base.names import check_utf8
from bertcourse.base.text import shown_name
from bertcourse.jobs import cards
from bertcourse.jobs.data import check_files
from bertcourse.jobs.folder import check_place, unwritable
from bertcourse.jobs.options import Choice, FileOptions, Labels, Real, as_model, as_path, option
from bertcourse.jobs.reporter import Reporter, format_score
from bertcourse.jobs.result import Exported
from bertcourse.jobs.rows import Source, as_files
from bertcourse.models.checkpoint import count_parameters, open_checkpoint
from bertcourse.models.kinds import ABOUT, check_inputs, describe
from bertcourse.models.labels import are_unnamed, match_labels

CALIBRATION_ROWS = 256  # of --calibrate: more of them hardly move the ranges
TOLERANCE = 1e-4  # of FP32


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class ExportOptions(FileOptions):
    """The options of `export`; None: not given."""

    model: str
    out: Path
    int8: str | None = option(Choice("dynamic", "static"))
    reduce_range: bool = False
    calibrate: Path | None = None
    dev: Path | None = None
    max_drop: float | None = option(Real(0))
    labels: Sequence[str] | None = option(Labels())
    force: bool = False

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything heavy is imported."""
        from bertcourse.models.exported import is_exported
        self.check_together()
        check_files(file for file in (self.calibrate, self.dev) if file is not None)
        if is_exported(self.model):
            raise UserError(f"{self.model} is an exported model already: give the checkpoint that it came from",
                            f"{self.model} 已经是导出的模型：请给出导出前的检查点")
        check_out(self.out, self.force)

    def check_together(self) -> None:
        """Raises `UserError` for options of which one wants another."""
        for is_wrong, en, zh in (
            (self.int8 == "static" and self.calibrate is None,
             "--int8 static needs --calibrate FILE: texts that tell the ranges of activations",
             "--int8 static 需要 --calibrate FILE：用其中的文本确定激活值的范围"),
            (self.int8 != "static" and self.calibrate is not None,
             "--calibrate is for --int8 static: add that, or leave it out", "--calibrate 只用于 --int8 static：请加上它，或去掉 --calibrate"),
            (self.max_drop is not None and self.dev is None,
             "--max-drop needs --dev FILE: without labelled rows no drop can be measured",
             "--max-drop 需要 --dev FILE：没有带标签的数据就量不出下降"),
            (self.max_drop is not None and self.int8 is None,
             "--max-drop is for --int8: FP32 loses nothing; leave it out, or add --int8",
             "--max-drop 要配合 --int8：FP32 不会有损失；请去掉它，或加上 --int8"),
            (self.reduce_range and self.int8 is None,
             "--reduce-range is for --int8: add that, or leave it out", "--reduce-range 要配合 --int8：请加上它，或去掉 --reduce-range"),
        ):
            if is_wrong:
                raise UserError(en, zh)


def check_out(out: Path, force: bool) -> None:
    """Raises `UserError` if the folder cannot be made, or would take the place of something that no export made."""
    from bertcourse.models.exported import is_exported
    check_utf8(out.absolute())
    if out.is_symlink() or out.exists():
        empty = out.is_dir() and not any(out.iterdir())
        replaceable = out.is_dir() and not out.is_symlink() and is_exported(out) and "sha256" in read_json(out / ABOUT)
        if force and not (replaceable or empty):
            raise UserError(f"{out} is no exported model, --force does not replace it: choose another folder with --out",
                            f"{out} 不是导出的模型，--force 不会覆盖它：请用 --out 换一个文件夹")
        if not force and not empty:
            raise UserError(f"{out} exists: choose another folder with --out, or replace an exported model by --force",
                            f"{out} 已经存在：请用 --out 换一个文件夹，或用 --force 覆盖导出过的模型")
    check_place(out)


# --- rows ---------------------------------------------------------------------------------------------------------

def read_rows(path: Path, predictor: Any, options: FileOptions, labelled: bool, reporter: Reporter) -> Any:  # a datasets.Dataset
    """A file as the model of a `Predictor` was trained to read it. Says what it is. Raises `UserError`."""
    from bertcourse import files
    from bertcourse.jobs.reading import read_for
    rows = read_for(predictor, path, options.columns, labelled, format=options.format, encoding=options.encoding)
    check_inputs(predictor.inputs, predictor.kind, rows.rows[0], path.name)
    if labelled:
        rows = match_labels(predictor, {"dev": rows}, predictor.name, reporter)["dev"]
    found = files.as_dataset(rows.task, {"dev": rows}, predictor.task.labels or None)["dev"]
    reporter.rows(rows)
    return found


def read_calibration(options: ExportOptions, predictor: Any, inputs: Sequence[str], reporter: Reporter) -> Any:  # a Calibration
    """Batches of the first rows of `--calibrate`."""
    from bertcourse.deployment import Calibration
    from bertcourse.runtime import pad_arrays
    rows = read_rows(options.calibrate, predictor, options, False, reporter)
    rows = rows.select(range(min(len(rows), CALIBRATION_ROWS)))
    encoded = predictor.task.encode(rows, labelled=False)
    pad_id = predictor.task.tokenizer.pad_token_id or 0
    return Calibration([pad_arrays(encoded[i:i + 8], pad_id) for i in range(0, len(encoded), 8)], inputs)


# --- two models on the same rows ----------------------------------------------------------------------------------

def are_right(task: Any, rows: Any, predictions: Sequence[Mapping[str, Any]]) -> list[bool] | None:
    """Which rows are answered rightly; None for numbers."""
    if task.name == "classification":
        return [task.labels.index(p["label"]) == label for p, label in zip(predictions, rows["label"])]
    if task.name == "ner":
        from bertcourse.tasks import repair
        truth = task.truth(rows)
        return [p["tags"] == (tags if task.meaning is None else repair(tags)) for p, tags in zip(predictions, truth, strict=True)]
    if task.name == "qa":
        from bertcourse.tasks import answer_scores
        rules = task.rules([answers["text"] for answers in rows["answers"]])
        return [answer_scores(p["answer"], answers["text"], rules)[0] == 1.0 for p, answers in zip(predictions, rows["answers"])]
    return None


def agreement(task: Any, first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of rows of which two models say the same; None for numbers, which are never quite the same."""
    name = {"classification": "label", "ner": "tags", "qa": "answer"}.get(task.name)
    return sum(a[name] == b[name] for a, b in zip(first, second, strict=True)) / len(first) if name else None


def compare_scores(task: Any, rows: Any, before: Any, after: Any) -> dict[str, Any]:
    """Scores of two models on the same rows, how often they agree, and McNemar's test."""
    from bertcourse.deployment import mcnemar
    predictions = [task.predict(model, rows) for model in (before, after)]
    scores = [task.score(answers, rows) for answers in predictions]
    found = {"rows": len(rows), "before": scores[0], "after": scores[1], "metric": task.better[0], "agree": agreement(task, *predictions)}
    right = [are_right(task, rows, answers) for answers in predictions]
    if right[0] is not None:
        lost, won, p = mcnemar(*right)
        found |= {"became_wrong": lost, "became_right": won, "p": p}
    return found


def points_lost(dev: Mapping[str, Any]) -> float:
    """Points lost in the task's own metric. dev: of `compare_scores`."""
    before, after = (100 * dev[when][dev["metric"]] for when in ("before", "after"))
    return before - after


# --- the processor ------------------------------------------------------------------------------------------------

def describe_processor() -> dict[str, Any]:
    """That on which the graphs were compared and scored, for `bertcourse.json`."""
    found = processor()
    more = {key: value for key, value in asdict(found).items() if key not in ("name", "generation", "flags")}
    return {"name": str(found), **more, "flags": list(found.flags)}


def warn_of_overflow(options: ExportOptions, reporter: Reporter) -> None:
    """Say that answers in 8 bits may be wrong on a processor such as this."""
    if not options.int8 or options.reduce_range or not overflows(processor()):
        return
    name = processor()
    reporter.info(f"warning: {name} has no VNNI, so sums of 8-bit products may overflow and change answers: --reduce-range prevents it",
                  f"警告：{name} 没有 VNNI，8 位乘积之和可能溢出而改变答案：加上 --reduce-range 可以避免")


def about_processors(about: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the scores of a model in 8 bits do not show, in English and Chinese; None in FP32."""
    how, name = about["quantisation"], about["processor"]["name"]
    if how is None:
        return None
    if how["reduce_range"]:
        return (f"compared on {name}; weights in 7 bits overflow on no processor", f"比较是在 {name} 上做的；7 位的权重在任何处理器上都不会溢出")
    return (f"compared on {name}; this shows nothing for a processor with other 8-bit instructions (x86 without VNNI): score again there, "
            "or export with --reduce-range",
            f"比较是在 {name} 上做的；对 8 位指令不同的处理器（没有 VNNI 的 x86）说明不了什么：请在那里重新评分，或用 --reduce-range 导出")


# --- the graph ----------------------------------------------------------------------------------------------------

def export_plain(predictor: Any, path: Path, reporter: Reporter) -> tuple[Any, Any]:  # a Session, a Parity
    """Write the graph in FP32, and compare it with PyTorch. Raises `UserError` where they differ."""
    from bertcourse import deployment
    from bertcourse.runtime import Session
    task, model, name = predictor.task, predictor.model, predictor.name
    sizes = {"vocab_size": model.config.vocab_size, "type_vocab_size": getattr(model.config, "type_vocab_size", 1)}
    reporter.step("exporting", "正在导出")
    deployment.export(model, path, task.max_length, task.tokenizer.model_input_names)
    reporter.step("comparing with PyTorch", "正在与 PyTorch 比较")
    session = Session(path, pad_id=task.tokenizer.pad_token_id or 0)
    parity = deployment.verify(model, session, tolerance=TOLERANCE, max_length=task.max_length, **sizes)
    if not parity.ok:
        raise UserError(f"{name} was exported, but does not answer as before: {parity.faults[0]}; nothing was written",
                        f"{name} 导出后的结果与原来不一致：{parity.faults[0]}；没有写出任何文件")
    return session, parity


def quantise(options: ExportOptions, plain: Any, path: Path, predictor: Any, reporter: Reporter) -> dict[str, Any]:
    """Write the graph in 8 bits to `path`; returns how it was made. plain: the `Session` of that in FP32."""
    from bertcourse import deployment
    warn_of_overflow(options, reporter)
    reporter.step("quantising", "正在量化")
    texts = read_calibration(options, predictor, list(plain.inputs), reporter) if options.calibrate else None
    deployment.quantize(plain.path, path, calibration=texts, reduce_range=options.reduce_range)
    how = {"method": options.int8, "weights": "int8", "activations": "uint8", "per_channel": True, "reduce_range": options.reduce_range}
    if texts is not None:
        count = sum(len(batch["input_ids"]) for batch in texts.batches)
        how["calibration"] = {"file": shown_name(options.calibrate), "rows": count}
    return how


def check_drop(options: ExportOptions, dev: Mapping[str, Any], name: str) -> None:
    """Raises `UserError` if the model `name` has lost more than `--max-drop`."""
    if options.max_drop is None or points_lost(dev) <= options.max_drop:  # nan is no proof
        return
    other = f"--int8 {'dynamic' if options.int8 == 'static' else 'static'}"
    if overflows(processor()) and not options.reduce_range:
        other = "--reduce-range"
    lost, metric = points_lost(dev), dev["metric"]
    raise UserError(f"{name} loses {lost:.2f} points of {metric} on {options.dev.name}, more than --max-drop {options.max_drop:g}: "
                    f"nothing was written; try {other}, or FP32",
                    f"{name} 在 {options.dev.name} 上的 {metric} 下降 {lost:.2f} 个点，超过 --max-drop {options.max_drop:g}："
                    f"没有写出任何文件；可以试试 {other}，或用 FP32")


# --- the folder ---------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def folder_for(out: Path) -> Iterator[Path]:
    """A new folder that is moved to `out` when all in it is written. Raises `UserError` for what the system refuses."""
    target = out.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            made = work / "new"
            made.mkdir()
            yield made
            move(made, target, work / "old")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise unwritable(out, error) from None


def move(made: Path, target: Path, old: Path) -> None:
    """Rename a whole folder to its place; what was there is kept as `old` until the new one stands. Raises `OSError`."""
    if not target.exists():
        os.replace(made, target)
        return
    os.replace(target, old)
    try:
        os.replace(made, target)
    except OSError:
        os.replace(old, target)
        raise


def write_folder(options: ExportOptions, folder: Path, predictor: Any, reporter: Reporter) -> dict[str, Any]:
    """Everything into a new folder; returns the report. Raises `UserError`."""
    from bertcourse.runtime import MODEL, Session
    start = time.perf_counter()
    task, model, name, path, plain = predictor.task, predictor.model, predictor.name, folder / MODEL, folder / "fp32.onnx"
    rows = read_rows(options.dev, predictor, options, True, reporter) if options.dev else None  # bad rows: said before minutes of work
    if are_unnamed(task.labels):
        reporter.info(f"{name} has labels without names (LABEL_0 …): --labels gives them some",
                      f"{name} 的标签没有名字（LABEL_0 …）：可以用 --labels 命名")
    session, parity = export_plain(predictor, plain, reporter)
    how = None
    if options.int8:
        how = quantise(options, session, path, predictor, reporter)
        session = Session(path, pad_id=session.pad_id)
        plain.unlink()
    else:
        os.replace(plain, path)
    about = describe_export(predictor, path, how, parity)
    report = {"about": about, "fp32": asdict(parity) | {"said": str(parity)},
              "bytes": {"onnx": path.stat().st_size, "fp32": 4 * count_parameters(model)}, "seconds": 0.0, "dev": {}}
    if rows is not None:
        reporter.step("scoring", "正在评分")
        report["dev"] = about["dev"] = compare_scores(task, rows, model, session) | {"file": shown_name(options.dev)}
        check_drop(options, about["dev"], name)
    write_files(folder, predictor, report, shown_name(options.out.absolute()))
    report["seconds"] = round(time.perf_counter() - start, 1)
    return report


def describe_export(predictor: Any, path: Path, how: Mapping[str, Any] | None, parity: Any) -> dict[str, Any]:
    """The content of `bertcourse.json`, but for scores and check sums of the other files."""
    from bertcourse.deployment import opset_of
    about = describe(predictor.task, predictor.columns, predictor.inputs, sha256=file_digest(path), opset=opset_of(path), quantisation=how,
                     processor=describe_processor(), parity=asdict(parity), model=predictor.name, architecture=type(predictor.model).__name__)
    return about | {"task": predictor.kind}


def write_files(folder: Path, predictor: Any, report: Mapping[str, Any], name: str) -> None:
    """Tokenizer, configuration, `bertcourse.json` and card beside the model; `name` is the folder's."""
    from bertcourse.runtime import MODEL
    about = report["about"]
    predictor.task.tokenizer.save_pretrained(folder)
    predictor.model.config.save_pretrained(folder)
    about["files"] = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MODEL}
    write_json(folder / ABOUT, about)
    how, processors = about["quantisation"], about_processors(about)
    bits = " with weights in 7 bits" if how and how["reduce_range"] else ""
    weights = f"INT8, {how['method']} quantisation{bits}" if how else "FP32"
    card = cards.render("export.md.j2", name=name, weights=weights, processors=processors and processors[0], **report)
    (folder / "README.md").write_text(card, encoding="utf-8")


def summary(out: Path, report: Mapping[str, Any], zh: bool) -> str:
    """What a person wants to know at the end."""
    about, dev, how = report["about"], report["dev"], report["about"]["quantisation"]
    kind = f"INT8 {how['method']}{', 7 bits' if how['reduce_range'] else ''}" if how else "FP32"
    megabytes = f"{report['bytes']['onnx'] / 1e6:.2f} MB"
    lines = [f"{out}: {about['architecture']}, {kind}, opset {about['opset']}, {megabytes}, {report['seconds']:.1f} s",
             f"FP32 {'与 PyTorch 比较：' if zh else 'compared with PyTorch: '}{report['fp32']['said']}"]
    if dev:
        before, after = (format_score(dev["metric"], dev[when][dev["metric"]]) for when in ("before", "after"))
        parts = [f"{dev['metric']} {before} → {after}"]
        if dev["agree"] is not None:
            parts.append(f"{dev['agree']:.1%} 的回答相同" if zh else f"{dev['agree']:.1%} of the answers the same")
        if "p" in dev:
            wrong, right, p = dev["became_wrong"], dev["became_right"], f"p = {dev['p']:.2g}"
            parts += [f"{wrong} 条变错", f"{right} 条变对", p] if zh else [f"{wrong} became wrong", f"{right} right", p]
        lines.append(f"{dev['file']}：{'，'.join(parts)}" if zh else f"{dev['file']}: {', '.join(parts)}")
    if found := about_processors(about):
        lines.append(found[zh])
    return "\n".join(lines)


# --- the job ------------------------------------------------------------------------------------------------------

def run_export(options: ExportOptions, reporter: Reporter) -> Exported:
    """Check all, then export. Raises `UserError`."""
    options.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor = open_checkpoint(options.model, options.labels)
        with threads_for(predictor.model.config.hidden_size), folder_for(options.out) as folder:
            report = write_folder(options, folder, predictor, reporter)
    return Exported(options.out, finite(report), summary(options.out, report, reporter.zh))


def export(
    model: str | Path,  # folder of a fine-tuned model, or its owner/name on the hub
    *,
    out: str | Path,  # new folder for the exported model
    int8: str | None = None,  # dynamic or static: weights in 8 bits; static: activations with fixed ranges, too (default: FP32)
    reduce_range: bool = False,  # int8: weights in 7 bits, which overflow on no processor (x86 without VNNI)
    calibrate: Source | None = None,  # static: texts like those it will see, labels are not needed
    dev: Source | None = None,  # labelled rows: scores before and after
    max_drop: float | None = None,  # with dev: write nothing if more points are lost on this processor
    columns: str | Mapping[str, str] | None = None,  # our name → the file's, or its number: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll or squad (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    labels: Sequence[str] | None = None,  # names for the model's labels in their order: bad,good, or a JSON list
    force: bool = False,  # replace an exported model that is there
    quiet: bool = False,  # say nothing but errors
) -> Exported:
    """Write a fine-tuned model as ONNX with tokenizer, description and card, and compare it with PyTorch.

    `calibrate` and `dev` are files, lists of dicts, `datasets.Dataset` or `pandas.DataFrame`. Raises
    `bertcourse.base.errors.UserError` for what a user can fix; then nothing is written.
    """
    with as_files(dict(locals()), ["calibrate", "dev"]) as values:
        return run_export(ExportOptions.of(values | {"model": as_model(model), "out": as_path(out)}), Reporter(quiet))
