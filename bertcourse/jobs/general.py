"""`distill(method="general")`: TinyBERT's first stage, from a pre-trained teacher on text without labels.

The way of `bertcourse.jobs.distilling`, whose parts are used, without tasks, labels and scores. The finished folder is a checkpoint of
the student's encoder, from which `bertcourse distill --student FOLDER --method tinybert` goes on; `projections.safetensors`
holds the projections that were trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, read_json, write_json, write_json_lines
from bertcourse.base.machine import set_threads
from bertcourse.base.messages import plural
from bertcourse.base.names import built_in
from bertcourse.jobs import cards
from bertcourse.jobs.curves import Panel, draw_curves
from bertcourse.jobs.data import check_files
from bertcourse.jobs.distill_options import DistillOptions, DistillSpec, compare, resumed
from bertcourse.jobs.finetuning import check_together
from bertcourse.jobs.folder import METRICS, SPEC, WORK, RunFolder, folder_status, remove_leftovers
from bertcourse.jobs.options import flag_of
from bertcourse.jobs.reporter import Reporter, card_line, headline
from bertcourse.jobs.result import Trained
from bertcourse.jobs.rows import is_file
from bertcourse.jobs.running import Run, run_training, save_interval, training_errors
from bertcourse.jobs.setup import choose_precision
from bertcourse.jobs.spec import filled
from bertcourse.jobs.student import (
    GENERAL,  # fmt: skip
    PROJECTIONS,
    STUDENTS,
    check_method,
    check_teacher,
    read_student,
    student_configuration,
    student_name,
    student_rate,
)
from bertcourse.models.checkpoint import count_parameters, folder_name, model_name, new_folder, save_tokenizer, versions

DEFAULTS: dict[str, Any] = {"mapping": "uniform", "steps": 2000, "lr": "auto", "batch_size": 32, "warmup": 0.1, "weight_decay": 0.01,
                            "seed": 0, "precision": "auto"}
NEEDED = ("teacher", "student", "method")
WITHOUT_MEANING = ("dev", "test", "augmented", "columns", "format", "encoding", "labels", "init_layers", "alpha", "temperature",
                   "layer_epochs", "layer_steps", "epochs", "patience")  # options of the other methods
DOCUMENTS = 6000  # of the toy world
LONGEST = 128  # pieces of a passage, as in the paper
HELD_OUT = 256  # passages at most, on which the terms are measured
TERMS = ("embedding", "attention", "hidden")


# --- options ------------------------------------------------------------------------------------------------------

def is_general(options: DistillOptions) -> bool:
    """Is a general distillation asked for, by the option, or by the run that is to be resumed?"""
    if options.method is not None or not options.resume:
        return options.method == GENERAL
    return GENERAL in (read_json(options.out / name).get("method") for name in (f"{WORK}/{SPEC}", METRICS))


def check(options: DistillOptions, sources: Mapping[str, Any]) -> None:
    """Raises `UserError` for what can be said before anything heavy is imported. sources: what was given for the files."""
    check_together(options)
    if not options.resume:
        options.require("distill", NEEDED)
    for name in options.given(WITHOUT_MEANING):
        raise UserError(f"{flag_of(name)} is not for --method general, which knows text only: leave it out",
                        f"{flag_of(name)} 不能用于 --method general，它只看文本：请去掉它")
    if sources.get("train") is not None and not is_file(sources["train"]):
        raise UserError("--train must be a text file for --method general: save the texts in one",
                        "用 --method general 时，--train 应为文本文件：请先把文本存成文件")
    check_files(options.files().values())
    check_teacher(options.teacher, "pre-trained", "预训练好")
    student = None if options.student is None else read_student(options.student)
    if isinstance(student, str) and student not in STUDENTS:
        raise UserError(f"--student {options.student}: general distillation starts from random weights, give a name or a configuration",
                        f"--student {options.student}：通用蒸馏从随机权重开始，请给出名称或配置")
    if options.train is None and options.teacher is not None and built_in(options.teacher) != "tiny":
        raise UserError("--train must be given: a text file, as for `bertcourse pretrain`; only tiny knows the toy world",
                        "缺少 --train：请给出文本文件，格式同 `bertcourse pretrain`；只有 tiny 认识玩具世界")


def is_finished(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a general distillation?"""
    return metrics.get("method") == GENERAL


# --- teacher, text, student ---------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What is trained, and what was chosen where nothing was asked for."""

    profile: Any  # the teacher's
    teacher: Any
    student: Any
    passages: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    pad_id: int
    lr: float
    precision: str


def prepare(spec: DistillSpec, out: Path, reporter: Reporter) -> Plan:
    """Load teacher and text, and make the student. Raises `UserError`."""
    s, (profile, teacher) = spec.settings, open_teacher(spec, out)
    student, tokenizer = make_student(spec, teacher), profile.tokenizer()
    passages, held_out = read_passages(spec, profile, tokenizer)
    rate = student_rate(student.config.hidden_size, random=True) if s["lr"] == "auto" else s["lr"]
    plan = Plan(profile, teacher, student, passages, held_out, tokenizer.pad_token_id or 0, rate, choose_precision(s["precision"]))
    report_plan(spec, plan, reporter)
    return plan


def report_plan(spec: DistillSpec, plan: Plan, reporter: Reporter) -> None:
    """Say what will be done."""
    s, teacher, student, rows = spec.settings, model_name(spec.teacher), student_name(spec.student), len(plan.passages)
    sizes = count_parameters(plan.teacher), count_parameters(plan.student)
    reporter.info(f"teacher {teacher}: {sizes[0]:,} parameters; student {student}: {sizes[1]:,}, random weights; {rows:,} passages, "
                  f"{plural(s['steps'], 'step')} of {s['batch_size']}, learning rate {plan.lr:g}, precision {plan.precision}",
                  f"教师 {teacher}：{sizes[0]:,} 个参数；学生 {student}：{sizes[1]:,} 个，随机权重；文本 {rows:,} 段，"
                  f"{s['steps']:,} 步，每步 {s['batch_size']} 段，学习率 {plan.lr:g}，精度 {plan.precision}")


def open_teacher(spec: DistillSpec, out: Path) -> tuple[Any, Any]:  # profile, encoder
    """The pre-trained encoder, where the training will be. Raises `UserError`."""
    from accelerate import Accelerator
    from transformers import AutoModel
    from transformers.utils import logging

    from bertcourse import profiles
    logging.set_verbosity_error()
    profile = profiles.load(spec.teacher)
    if not isinstance(profile.encoder, str):
        raise UserError(f"{spec.teacher} names an encoder for each language: give one of them by its own name",
                        f"{spec.teacher} 每种语言各有一个编码器：请写出其中一个的名称")
    model = profile.model(AutoModel, attn_implementation="eager").to(Accelerator().device)
    set_threads(model.config.hidden_size)
    spec.check_same_teacher(model, out)
    return profile, model


def make_student(spec: DistillSpec, teacher: Any) -> Any:
    """An encoder with random weights. Raises `UserError`."""
    import torch
    from transformers import AutoModel

    from bertcourse.distillation import new_model
    config = student_configuration(spec.student, teacher.config)
    check_method(spec.method, spec.settings["mapping"], config, teacher.config)
    torch.manual_seed(spec.settings["seed"])
    return new_model(config)(AutoModel, "eager").to(teacher.device)


def read_passages(spec: DistillSpec, profile: Any, tokenizer: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Passages of the file, or of the toy world in the teacher's languages: to train on, and held out. Raises `UserError`."""
    from bertcourse import corpus
    from bertcourse.pieces import read_text
    from bertcourse.tinybert import passages
    if spec.paths:
        documents = read_text([Path(spec.paths["train"])])
    else:
        each = DOCUMENTS // len(profile.languages)
        documents = chain.from_iterable(corpus.texts(each, lang=lang, split="train") for lang in profile.languages)
    rows = passages(documents, tokenizer, min(LONGEST, tokenizer.model_max_length), spec.settings["seed"])
    if len(rows) < 2:
        name = Path(spec.paths["train"]).name
        raise UserError(f"{name} holds a single passage: give more text", f"{name} 只有一段：请给出更多文本")
    every = max(2, math.ceil(len(rows) / HELD_OUT))
    return [row for i, row in enumerate(rows) if i % every], rows[::every]


# --- training -----------------------------------------------------------------------------------------------------

def measure_terms(learner: Any, rows: list[dict[str, Any]], pad_id: int) -> dict[str, float]:
    """The mean of each term over passages; all processes have to take part."""
    from functools import partial

    import torch

    from bertcourse.training import evaluate, pad

    def loss(model: Any, batch: Mapping[str, Any]) -> Any:
        return torch.stack([*model(**batch).terms.values()])

    def items(batch: Mapping[str, Any]) -> list[int]:
        return [len(batch["input_ids"])] * len(TERMS)

    found = evaluate(learner, rows, collate=partial(pad, pad_id=pad_id), loss=loss, items=items)
    return dict(zip(TERMS, found["terms"]))


def train(spec: DistillSpec, plan: Plan, learner: Any, folder: RunFolder, reporter: Reporter) -> Any:  # a History
    """Train the layers, from the newest checkpoint on if there is one. Raises `UserError` for what a user can fix."""
    from functools import partial

    from bertcourse.distillation import term_settings
    from bertcourse.training import fit, pad
    settings = {name: spec.settings[name] for name in ("steps", "warmup", "weight_decay", "batch_size", "seed")}
    with training_errors(plan.lr, folder.best, folder.stop):
        return fit(learner, plan.passages, lr=plan.lr, collate=partial(pad, pad_id=plan.pad_id), precision=plan.precision,
                   progress=reporter.progress, callbacks=[folder.stop], out=folder.training, resume=True,
                   save_every=save_interval(settings["steps"]), pause=folder.stop, **term_settings(learner), **settings)


# --- the finished folder ------------------------------------------------------------------------------------------

def assemble(spec: DistillSpec, plan: Plan, run: RunFolder, learner: Any, metrics: dict[str, Any], history: Any) -> None:
    """Put all that the finished folder is to hold into `unfinished/model`."""
    from safetensors.torch import save_file

    from bertcourse.training import save_weights
    folder = new_folder(run.path / "model", run.path / "tokenizer")
    save_weights(learner.student, folder)
    weights = {name: weight.cpu().contiguous() for name, weight in learner.state_dict().items() if name.startswith("project_")}
    if weights:
        save_file(weights, folder / PROJECTIONS)
    write_json_lines(folder / "history.jsonl", history.rows)
    draw_curves([Panel("loss, sum over layers", {"loss": history.column("loss")}, steps=history.steps),
                 Panel("learning rate", {"learning rate": history.column("lr")}, steps=history.steps)], folder / "curves.png", width=3.8)
    card = cards.render("general.md.j2", name=folder_name(run.out), m=metrics, terms=TERMS)
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_json(folder / METRICS, metrics)


def build_metrics(spec: DistillSpec, plan: Plan, learner: Any, history: Any, before: Mapping[str, float]) -> dict[str, Any]:
    """The content of `metrics.json`. before: the terms before the training."""
    return finite({
        "method": GENERAL, "before": before, "after": measure_terms(learner, plan.held_out, plan.pad_id),
        "teacher": model_name(spec.teacher), "fingerprint": spec.fingerprint, "student": spec.student, "layers": list(learner.layers),
        "settings": spec.settings, "files": spec.files, "passages": {"train": len(plan.passages), "held_out": len(plan.held_out)},
        "steps": history.steps, "seconds": round(history.seconds, 1), "seed": spec.settings["seed"], "lr": plan.lr,
        "precision": plan.precision, "command": spec.command, "versions": versions(),
        "parameters": {"teacher": count_parameters(plan.teacher), "student": count_parameters(plan.student)}})


def summary(out: Path, metrics: Mapping[str, Any], zh: bool) -> str:
    """What a person wants to know at the end."""
    terms = [f"{term:10} {metrics['before'][term]:.3f} → {metrics['after'][term]:.3f}" for term in TERMS]
    return "\n".join([headline(out, metrics, zh), *terms, card_line(out, zh)])


# --- the run ------------------------------------------------------------------------------------------------------

def run_general_distillation(options: DistillOptions, reporter: Reporter, sources: Mapping[str, Any]) -> Trained:
    """Check all, then work. sources: what was given for the files. Raises `UserError`, and `Stopped` when interrupted."""
    def work(run: Run) -> dict[str, Any] | None:
        check(options, sources)
        complete = options.teacher is not None and options.student is not None
        found = folder_status(options.out, options.resume, is_finished, complete)
        if found == "finished":
            metrics = read_json(options.out / METRICS)
            compare(options, metrics, DEFAULTS)
            remove_leftovers(options.out)
            return metrics
        run.load_libraries()
        spec = resumed(options, DEFAULTS) if found == "unfinished" else DistillSpec.of(options, filled(options, DEFAULTS))
        plan = prepare(spec, options.out, reporter)
        with run.open_folder() as folder:
            return distill_in(folder, spec, plan, reporter)

    metrics = run_training("distill", options.out, reporter.zh, work)
    return Trained(options.out, metrics, summary(options.out, metrics, reporter.zh))


def distill_in(folder: RunFolder, spec: DistillSpec, plan: Plan, reporter: Reporter) -> dict[str, Any] | None:
    """Train and finish the folder; None where the training was interrupted."""
    from bertcourse.tinybert import Intermediate
    if folder.main:
        spec.write(folder.path)
        if not (folder.path / "tokenizer").is_dir():
            save_tokenizer(plan.profile.tokenizer(), folder.path / "tokenizer")
    learner = Intermediate(plan.student, plan.teacher, spec.settings["mapping"]).to(plan.teacher.device)
    before = measure_terms(learner, plan.held_out, plan.pad_id)
    history = train(spec, plan, learner, folder, reporter)
    if history.paused:
        return None
    metrics = build_metrics(spec, plan, learner, history, before)
    if folder.main:
        assemble(spec, plan, folder, learner, metrics, history)
    folder.finish()
    return metrics
