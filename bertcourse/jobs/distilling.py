"""Train a small model to answer as a fine-tuned one does: `distill`.

The run is that of `bertcourse.jobs.folder`; each stage of the training has a folder of its own in `unfinished/training`. The teacher is
read again when a run is resumed; `run.json` knows its weights by a check sum. torch is imported when what can be checked without it has
been. `bertcourse.jobs.general` is the method without a task.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, read_json, write_json, write_json_lines
from bertcourse.base.machine import set_threads
from bertcourse.base.messages import grid, plural
from bertcourse.jobs import cards, general
from bertcourse.jobs.comparison import compare_models, comparison_rows, how_measured
from bertcourse.jobs.curves import Panel, draw_curves
from bertcourse.jobs.data import SPLITS, Data, build_splits, model_inputs
from bertcourse.jobs.distill_options import DEFAULTS, FILES, METHODS, NEEDED, DistillOptions, DistillSpec, compare, fill_settings, resumed
from bertcourse.jobs.finetuning import count_steps, score_kept_weights
from bertcourse.jobs.folder import METRICS, RunFolder, folder_status, remove_leftovers
from bertcourse.jobs.options import as_model, as_path
from bertcourse.jobs.reading import kinds_of, options_of, read_first
from bertcourse.jobs.reporter import NUMBERS, EpochReport, Reporter, card_line, format_scores, headline
from bertcourse.jobs.result import Trained
from bertcourse.jobs.rows import Source, as_files
from bertcourse.jobs.running import Run, run_training, save_interval, training_errors
from bertcourse.jobs.setup import choose_precision
from bertcourse.jobs.student import (
    Student,  # fmt: skip
    fresh_tokenizer,
    load_projections,
    make_student,
    plan_student,
    student_name,
    student_option,
    student_rate,
)
from bertcourse.models.checkpoint import count_parameters, folder_name, model_name, new_folder, open_checkpoint, save_tokenizer, versions
from bertcourse.models.kinds import ABOUT, base_task, check_inputs, describe, input_columns, shell_example
from bertcourse.models.labels import match_labels


def is_finished(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command, by a method that has a task?"""
    tables = ("dev", "teacher", "comparison", "settings")
    return metrics.get("method") in METHODS and all(isinstance(metrics.get(name), dict) for name in tables)


# --- the teacher and its data -------------------------------------------------------------------------------------

def open_teacher(spec: DistillSpec, out: Path, reporter: Reporter) -> Any:  # a Predictor
    """Load the teacher to where the training will be, and say what it is. Raises `UserError`."""
    from accelerate import Accelerator
    s, name = spec.settings, model_name(spec.teacher)
    teacher = open_checkpoint(spec.teacher, s["labels"])
    set_threads(teacher.model.config.hidden_size)
    teacher.model.to(Accelerator().device).requires_grad_(False)
    spec.check_same_teacher(teacher.model, out)
    s["columns"] = teacher.columns if s["columns"] is None else s["columns"]
    if s["temperature"] != METHODS[spec.method]["temperature"] and teacher.kind == "regression":
        raise UserError("--temperature makes distributions flatter, and a regression gives none: leave it out",
                        "--temperature 用来让分布变平，回归没有分布：请去掉它")
    known, length = teacher.task.labels, teacher.task.max_length
    labels = f", labels {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else ""
    about = f"{teacher.kind}, {type(teacher.model).__name__}, {count_parameters(teacher.model):,}"
    reporter.info(f"teacher {name}: {about} parameters, length {length} tokens{labels}",
                  f"教师 {name}：{about.replace(', ', '，')} 个参数，长度 {length} 个 token{labels.replace(', labels ', '，标签 ')}")
    return teacher


def read_data(spec: DistillSpec, teacher: Any, own_columns: bool, reporter: Reporter) -> tuple[Data, dict[str, Any]]:
    """Read the files with the teacher's labels in its order; returns those of `--augmented`, if it is given, apart. Raises `UserError`.

    own_columns: were columns asked for? Else they are the teacher's.
    """
    columns, kinds, name = spec.settings["columns"], kinds_of(teacher), model_name(spec.teacher)
    spellings = [columns] if own_columns else [columns, {}]  # a file may have our own names as well
    rows: dict[str, Any] = {}
    for option_name, split in SPLITS.items():
        if option_name in spec.paths:
            attempts = [(kind, spelling) for kind in kinds for spelling in spellings]
            rows[split] = read_first(spec.paths[option_name], attempts, **options_of(spec.settings))
            kinds = [rows[split].task]
            check_inputs(teacher.inputs, teacher.kind, rows[split].rows[0], name)
    spec.task, = kinds
    rows = match_labels(teacher, rows, name, reporter)
    data = build_splits(spec, rows, reporter, teacher.task.labels or None)
    return data, {"augmented": read_augmented(spec, teacher, data, reporter)} if "augmented" in spec.paths else {}


def read_augmented(spec: DistillSpec, teacher: Any, data: Data, reporter: Reporter) -> Any:  # a datasets.Dataset
    """The rows of `--augmented`, for tinybert without labels. Raises `UserError`."""
    from bertcourse import files
    path, labelled = Path(spec.paths["augmented"]), spec.method != "tinybert"
    attempts = [(spec.task, spec.settings["columns"]), (spec.task, {})]  # `bertcourse augment` writes our names
    try:
        rows = read_first(path, attempts, labelled, **options_of(spec.settings))
    except files.FileError as error:
        if not labelled or "column" not in error.en:
            raise
        read_first(path, attempts, labelled=False, **options_of(spec.settings))  # is it the labels alone that are missing?
        raise UserError(f"{path.name} has rows without labels, which --method {spec.method} learns from: have "
                        "`bertcourse augment --teacher` write them, or take --method tinybert",
                        f"{path.name} 里有的行没有标签，而 --method {spec.method} 要用标签：请用 `bertcourse augment --teacher` 标注，"
                        "或改用 --method tinybert") from None
    reporter.rows(rows)
    if labelled:
        rows, = match_labels(teacher, {"augmented": rows}, model_name(spec.teacher), reporter).values()
    found = files.as_dataset(spec.task, {"augmented": rows}, teacher.task.labels or None)["augmented"]
    wanted, has = (input_columns(one.column_names) for one in (data.splits["train"], found))
    if wanted != has:
        raise UserError(f"{path.name} has {', '.join(has)}, the training file {', '.join(wanted)}: augment that file",
                        f"{path.name} 里是 {'、'.join(has)}，训练文件里是 {'、'.join(wanted)}：请用训练文件来增强")
    return found


def encode(spec: DistillSpec, task: Any, rows: Any) -> list[dict[str, Any]]:
    """Rows to train on, as the teacher (`task`) reads them; for tinybert without labels, of words only which pieces carry one."""
    if spec.method != "tinybert":
        return model_inputs(task.encode(rows))
    encoded = task.encode(rows, labelled=False)
    if task.name == "ner":
        encoded = [row | {"labels": [0 if word >= 0 else -100 for word in row["words"]]} for row in encoded]
    return model_inputs(encoded)


# --- the plan -----------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What is trained, and what was chosen where nothing was asked for."""

    teacher: Any  # a Predictor
    student: Student
    data: Data
    inputs: Sequence[dict[str, Any]]  # the training rows, encoded
    augmented: dict[str, int]  # option: how many of them are of `--augmented`, if it was given
    lr: float
    precision: str
    stages: dict[str, int]  # name: steps
    teacher_dev: dict[str, Any] = field(default_factory=dict)


def prepare(spec: DistillSpec, out: Path, own_columns: bool, reporter: Reporter) -> Plan:
    """Load teacher and data, choose what was left open, and make the student. Raises `UserError`."""
    teacher = open_teacher(spec, out, reporter)
    student_plan = plan_student(spec, teacher)
    data, augmented = read_data(spec, teacher, own_columns, reporter)
    inputs = [row for part in (data.splits["train"], *augmented.values()) for row in encode(spec, teacher.task, part)]
    config, rate = student_plan.config, spec.settings["lr"]
    precision = choose_precision(spec.settings["precision"], config, teacher.model.config)
    student = make_student(spec, student_plan, teacher, precision)
    if rate == "auto":
        rate = student_rate(config.hidden_size, student.start.random)
    counts = {option: len(part) for option, part in augmented.items()}
    plan = Plan(teacher, student, data, inputs, counts, rate, precision, count_stage_steps(spec, len(inputs)))
    report_plan(spec, plan, reporter)
    plan.teacher_dev = teacher.task.metrics(data.splits["dev"])(teacher.model)
    reporter.info(f"the teacher on dev: {format_scores(plan.teacher_dev, False)}", f"教师在验证集上：{format_scores(plan.teacher_dev, True)}")
    return plan


def count_stage_steps(spec: DistillSpec, rows: int) -> dict[str, int]:
    """The stages and their steps. Raises `UserError` when the warm-up leaves none of them."""
    s = spec.settings
    stages = {"distillation": (s["epochs"], s["steps"])}
    if spec.method == "tinybert":
        stages = {"intermediate": (s["layer_epochs"], s["layer_steps"]), "prediction": (s["epochs"], s["steps"])}
    return {name: count_steps(s | {"epochs": epochs, "steps": steps}, rows) for name, (epochs, steps) in stages.items()}


def report_plan(spec: DistillSpec, plan: Plan, reporter: Reporter) -> None:
    """Say what will be done."""
    s, name, model, start = spec.settings, student_name(spec.student), plan.student.model, plan.student.start
    width, count = model.config.hidden_size, count_parameters(model)
    shape = f"{type(model).__name__}, {model.config.num_hidden_layers} × {width}"
    reporter.info(f"student {name}: {shape}, {count:,} parameters; {start.en}",
                  f"学生 {name}：{shape.replace(', ', '，')}，{count:,} 个参数；{start.zh}")
    *before, last = plan.stages.values()
    en, zh = plural(last, "step"), f"{last:,} 步"
    if before:
        en, zh = f"{plural(before[0], 'step')} on the layers, then {en} on the outputs", f"逐层 {before[0]:,} 步，然后输出 {zh}"
    rate = rate_zh = f"{plan.lr:g}"
    if s["lr"] == "auto":
        rate += f" (auto, width {width}{', random weights' if start.random else ''})"
        rate_zh += f"（自动，宽度 {width}{'，随机权重' if start.random else ''}）"
    terms = {"temperature": "温度", "alpha": "alpha"}
    shown = [name for name in terms if s[name] is not None and (plan.teacher.kind != "regression" or name == "alpha")]
    terms_en = ", ".join([spec.method, *(f"{name} {s[name]:g}" for name in shown)])
    terms_zh = "，".join([spec.method, *(f"{terms[name]} {s[name]:g}" for name in shown)])
    reporter.info(f"{terms_en}: {en}, {plural(s['batch_size'], 'row')} each, learning rate {rate}, precision {plan.precision}",
                  f"{terms_zh}：{zh}，每步 {s['batch_size']} 条，学习率 {rate_zh}，精度 {plan.precision}")


# --- training -----------------------------------------------------------------------------------------------------

def add_teacher_logits(spec: DistillSpec, teacher: Any, rows: Sequence[dict[str, Any]], reporter: Reporter) -> Sequence[dict[str, Any]]:
    """Rows with what the teacher says of them, worked out once, where that is all it is asked for."""
    from bertcourse.distillation import cache_logits
    if spec.method != "kd" or teacher.task.name == "qa" or not spec.settings["alpha"]:
        return rows
    reporter.step("asking the teacher", "正在询问教师")
    return cache_logits(teacher.model, rows, teacher.task.collate)


def make_learners(spec: DistillSpec, student: Any, teacher: Any) -> dict[str, Any]:
    """Stage: the student with the loss by which it learns there. student, teacher: models."""
    from bertcourse.distillation import Distiller, Weights
    from bertcourse.tinybert import Intermediate, Prediction
    temperature, alpha = spec.settings["temperature"], spec.settings["alpha"]
    if spec.method == "tinybert":
        layers = Intermediate(student, teacher, spec.settings["mapping"])
        if isinstance(spec.student, str):
            load_projections(layers, spec.student)  # of a general distillation
        return {"intermediate": layers, "prediction": Prediction(student, teacher, temperature)}
    weights = Weights(hard=1 - alpha, soft=alpha) if spec.method == "kd" else \
        Weights(soft=5 / 8, hard=2 / 8, cosine=1 / 8)  # 5 : 2 : 1, as in DistilBERT's own example
    return {"distillation": Distiller(student, teacher, weights, temperature)}


def score_student(task: Any, rows: Any) -> Any:
    """For `fit`: a function that gives the scores of the student in a learner."""
    measure = task.metrics(rows)
    return lambda learner: measure(learner.student)


def train(spec: DistillSpec, plan: Plan, folder: RunFolder, reporter: Reporter) -> dict[str, Any]:  # stage: its History
    """All stages, from the newest checkpoint on if there is one; the last of them is paused if the run is to stop.

    Not `tinybert.task_distillation`: the stages of other methods are trained here, too, and what the first has reached is reported.
    Raises `UserError` for what a user can fix.
    """
    from bertcourse.distillation import term_settings, with_logits
    from bertcourse.training import fit
    s, task, teacher, stop, dev = spec.settings, plan.student.task, plan.teacher, folder.stop, plan.data.splits["dev"]
    rows, dev_rows = (add_teacher_logits(spec, teacher, part, reporter) for part in (plan.inputs, model_inputs(teacher.task.encode(dev))))
    scored = dict(dev=dev_rows, metrics=score_student(task, dev), better=task.better, patience=s["patience"])
    shared = {name: s[name] for name in ("warmup", "weight_decay", "batch_size", "seed")}
    shared["collate"] = with_logits(teacher.task.collate) if rows and "teacher_logits" in rows[0] else teacher.task.collate
    report, histories = EpochReport([*plan.stages.values()][-1], reporter), {}
    with training_errors(plan.lr, folder.best, stop):
        for stage, learner in make_learners(spec, plan.student.model, teacher.model).items():
            steps = plan.stages[stage]
            history = histories[stage] = fit(
                learner, rows, steps=steps, lr=plan.lr, precision=plan.precision, progress=reporter.progress, callbacks=[stop, report],
                out=folder.training / stage, resume=True, save_every=save_interval(steps), pause=stop,
                **shared, **term_settings(learner), **({} if stage == "intermediate" else scored))
            if history.paused:
                break
            if stage == "intermediate":
                losses = history.column("loss")[1]
                reporter.info(f"layers: {plural(steps, 'step')}, loss {losses[0]:.3f}, at the end {losses[-1]:.3f}",
                              f"逐层：{steps:,} 步，损失从 {losses[0]:.3f} 到 {losses[-1]:.3f}")
    return histories


# --- the finished folder ------------------------------------------------------------------------------------------

def assemble(spec: DistillSpec, plan: Plan, run: RunFolder, histories: Mapping[str, Any]) -> dict[str, Any]:
    """Put all that the finished folder is to hold into `unfinished/model`; returns the metrics."""
    from bertcourse.training import save_weights
    task, model, data, name = plan.student.task, plan.student.model, plan.data, folder_name(run.out)
    *_, last = histories.values()
    dev, test = score_kept_weights(spec.settings, task, model, data, last)
    folder = new_folder(run.path / "model", run.path / "tokenizer")
    save_weights(model, folder)
    write_json_lines(folder / "history.jsonl", [{"stage": stage} | row for stage, history in histories.items() for row in history.rows])
    inputs = input_columns(data.splits["train"].column_names)
    about = describe(task, spec.settings["columns"], inputs, model=student_name(spec.student), teacher=model_name(spec.teacher))
    write_json(folder / ABOUT, about | {"task": base_task(spec.task)})
    metrics = finite(build_metrics(spec, plan, histories, {"dev": dev, "test": test}, folder))
    stages = ", ".join(f"{stage} {part['steps']:,}" for stage, part in metrics["stages"].items())
    card = cards.task_card("distill.md.j2", name, metrics, task.auto_class.__name__, shell_example(inputs, name),
                           ("lr", "precision", "init_layers"), comparison=comparison_rows(metrics["comparison"]),
                           measured=how_measured(metrics["comparison"]), stages=stages)
    (folder / "README.md").write_text(card, encoding="utf-8")
    draw_histories(histories, task.better[0], plan.teacher_dev.get(task.better[0]), folder / "curves.png")
    write_json(folder / METRICS, metrics)
    return metrics


def build_metrics(spec: DistillSpec, plan: Plan, histories: Mapping[str, Any], scores: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`. scores: of the student, on dev and test; folder: where its checkpoint lies."""
    task, start, teacher, data = plan.student.task, plan.student.start, plan.teacher, plan.data
    *_, last = histories.values()
    test = teacher.task.metrics(data.splits["test"])(teacher.model) if "test" in data.splits else {}
    teacher_scores = {"dev": plan.teacher_dev, "test": test}
    return {
        "task": base_task(spec.task), "method": spec.method, **scores,
        "teacher": {"name": model_name(spec.teacher), "fingerprint": spec.fingerprint} | teacher_scores,
        "seconds": round(sum(history.seconds for history in histories.values()), 1), "seed": spec.settings["seed"],
        "command": spec.command, "steps": sum(history.steps for history in histories.values()),
        "best_step": last.best and last.best["step"],
        "stages": {stage: {"steps": history.steps, "seconds": round(history.seconds, 1), "loss": history.column("loss")[1][-1]}
                   for stage, history in histories.items()},
        "student": spec.student if isinstance(spec.student, dict) else model_name(spec.student), "beginning": start.en,
        "init_layers": list(start.layers), "copied": start.copied and list(start.copied),
        "parameters": count_parameters(plan.student.model), "lr": plan.lr, "precision": plan.precision, "lang": task.lang,
        "max_length": task.max_length, "labels": list(task.labels), "threshold": getattr(task, "threshold", None), "files": spec.files,
        "data": data.as_metrics(**plan.augmented), "settings": spec.settings,
        "comparison": compare_models(teacher, folder, {"teacher": teacher_scores, "student": scores}, data.splits["dev"]),
        "versions": versions(),
    }


def draw_histories(histories: Mapping[str, Any], metric: str, level: float | None, path: Path) -> None:
    """The loss of each stage, the learning rate, and the score on the development set beside the teacher's."""
    names = {"intermediate": "loss, layers", "prediction": "loss, outputs", "distillation": "loss"}
    panels, steps, rates, before = [], [], [], 0
    for stage, history in histories.items():
        dots = {} if stage == "intermediate" else {"dev": history.column("dev.loss")}
        panels.append(Panel(names[stage], {"training": history.column("loss")}, dots, steps=history.steps))
        stage_steps, stage_rates = history.column("lr")
        steps += [before + step for step in stage_steps] + [before + history.steps]
        rates += [*stage_rates, math.nan]  # no line to the next stage
        before += history.steps
    panels.append(Panel("learning rate", {"learning rate": (steps, rates)}, steps=before))
    panels.append(Panel(f"{metric}, dev", dots={"student": history.column(f"dev.{metric}")}, level=("teacher", level), steps=history.steps,
                        limits=None if metric in NUMBERS else (0, 1.02)))
    draw_curves(panels, path)


def summary(out: Path, metrics: Mapping[str, Any], zh: bool) -> str:
    """What a person wants to know at the end."""
    rows = [("", "教师", "学生", "学生 ÷ 教师") if zh else ("", "teacher", "student", "student ÷ teacher")]
    rows += [(name_zh if zh else name, *cells) for name_zh, name, cells in comparison_rows(metrics["comparison"])]
    return "\n".join([headline(out, metrics, zh), *grid(rows), how_measured(metrics["comparison"])[not zh], card_line(out, zh)])


# --- the run ------------------------------------------------------------------------------------------------------

def run_distillation(options: DistillOptions, reporter: Reporter, sources: Mapping[str, Any] | None = None) -> Trained:
    """Check all, then work. sources: option → what was given for it, where rows in memory stand for a file.

    Raises `UserError`, and `Stopped` when interrupted.
    """
    if general.is_general(options):
        return general.run_general_distillation(options, reporter, sources or {})

    def work(run: Run) -> dict[str, Any] | None:
        options.check()
        complete = all(getattr(options, name) is not None for name in NEEDED)
        found = folder_status(options.out, options.resume, is_finished, complete)
        if found == "finished":
            metrics = read_json(options.out / METRICS)
            compare(options, metrics | {"teacher": metrics["teacher"].get("name", "")}, DEFAULTS)
            remove_leftovers(options.out)
            return metrics
        run.load_libraries()
        spec = resumed(options, DEFAULTS) if found == "unfinished" else DistillSpec.of(options, fill_settings(options))
        plan = prepare(spec, options.out, found == "new" and spec.settings["columns"] is not None, reporter)
        with run.open_folder(stages=True) as folder:
            return distill_in(folder, spec, plan, reporter, sources or {})

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # of scores where all rows, or all guesses, are of one class
        metrics = run_training("distill", options.out, reporter.zh, work)
    return Trained(options.out, metrics, summary(options.out, metrics, reporter.zh))


def distill_in(folder: RunFolder, spec: DistillSpec, plan: Plan, reporter: Reporter, sources: Mapping[str, Any]) -> dict[str, Any] | None:
    """Train and finish the folder; None where the training was interrupted."""
    if folder.main:
        spec.keep_rows(folder.path, sources)
        spec.write(folder.path)
        if not (folder.path / "tokenizer").is_dir():
            takes = plan.student.task.tokenizer.model_input_names
            save_tokenizer(fresh_tokenizer(spec, plan.teacher, takes), folder.path / "tokenizer")
    histories = train(spec, plan, folder, reporter)
    if any(history.paused for history in histories.values()):
        return None
    metrics = assemble(spec, plan, folder, histories) if folder.main else {"steps": sum(history.steps for history in histories.values())}
    folder.finish()
    return metrics


def distill(
    teacher: str | None = None,  # folder of a fine-tuned model; its task, labels, length and column names are used
    *,
    student: str | Mapping[str, Any] | None = None,  # tinybert-4, tinybert-6, distilbert-6, JSON ({...} or a file), or a checkpoint
    train: Source | None = None,  # as for finetune; general: a text file (default: the toy world, for tiny only)
    out: str | Path,  # new folder for the student
    dev: Source | None = None,  # scored after each epoch (default: 10% of train)
    test: Source | None = None,  # scored once, at the end
    augmented: Source | None = None,  # more rows to train on, from augment; needs dev
    method: str | None = None,  # kd, distilbert, tinybert (layers, then outputs) or general (layers, on text)
    init_layers: str | Sequence[int] | None = None,  # layers of the teacher to start from: 2,4,6 or none (default: by method)
    columns: str | Mapping[str, str] | None = None,  # our name → the file's, or its number: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll or squad (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    temperature: float | None = None,  # flattens outputs before they are compared (default: 2; tinybert: 1)
    alpha: float | None = None,  # kd: the teacher's share of the loss, the rest is the labels' (default: 0.5)
    mapping: str | None = None,  # tinybert, general: which layers teach, uniform, top or bottom (default: uniform)
    layer_epochs: int | None = None,  # tinybert: passes over train for the layers (default: twice epochs)
    layer_steps: int | None = None,  # tinybert: instead of layer-epochs (default: twice steps)
    epochs: int | None = None,  # passes over train (default: 3)
    steps: int | None = None,  # instead of epochs (default of general: 2000)
    lr: float | str | None = None,  # highest learning rate (default: auto, as for finetune; from random weights 3 times that, at most 3e-3)
    batch_size: int | None = None,  # rows of a step, of all processes together (default: 32)
    warmup: float | None = None,  # a share of the steps if below 1, else steps (default: 0.1)
    weight_decay: float | None = None,  # of AdamW (default: 0.01)
    patience: int | None = None,  # epochs without a better score, then stop; the best weights are kept
    seed: int | None = None,  # of weights, batches and dropout (default: 0)
    precision: str | None = None,  # no, bf16 or auto (default: auto, bf16 where the hardware computes in it)
    labels: Sequence[str] | None = None,  # names for the teacher's labels in their order: bad,good, or a JSON list
    resume: bool = False,  # go on with a run that Ctrl-C or a crash stopped, to the same weights
    quiet: bool = False,  # say nothing but errors
) -> Trained:
    """Train a small model to answer as a fine-tuned one does; write a folder with checkpoint, metrics, curves and model card.

    `train`, `dev`, `test` and `augmented` are files, lists of dicts, `datasets.Dataset` or `pandas.DataFrame`; `student` may be a dict
    of settings. Raises `bertcourse.base.errors.UserError` for what a user can fix, `bertcourse.jobs.Stopped` (a `KeyboardInterrupt`)
    when interrupted; `resume=True` goes on.
    """
    arguments = dict(locals())
    with as_files(arguments, FILES) as values:
        named = {"out": as_path(out), "teacher": as_model(teacher, "teacher"), "student": student_option(student)}
        return run_distillation(DistillOptions.of(values | named), Reporter(quiet), arguments)
