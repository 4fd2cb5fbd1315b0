"""`bertcourse distill --method general`: TinyBERT's first stage, from a pre-trained teacher on text without labels.

The way of `bertcourse distill`, whose parts are used, without tasks, labels and scores. The finished folder is a checkpoint of
the student's encoder, from which `bertcourse distill --student FOLDER --method tinybert` goes on; `projections.safetensors`
holds the projections that were trained with it.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from bertcourse.app import distill, finetune, pretrain
from bertcourse.app.distill import Job
from bertcourse.app.finetune import Narrator, base_name, describe, finite, place_of, write_json
from bertcourse.app.messages import UserError, plural
from bertcourse.app.pretrain import METRICS, WORK, Interruption, SaveEvery, Workplace, load, name_of, training, writing
from bertcourse.base.machine import set_threads
from bertcourse.base.names import built_in

METHOD, PROJECTIONS = "general", "projections.safetensors"
DEFAULTS: dict[str, Any] = {"mapping": "uniform", "steps": 2000, "lr": "auto", "batch_size": 32, "warmup": 0.1, "weight_decay": 0.01,
                            "seed": 0, "precision": "auto"}
OTHERS = ("dev", "test", "augmented", "columns", "format", "encoding", "labels", "init_layers", "alpha", "temperature", "layer_epochs",
          "layer_steps", "epochs",
          "patience")  # options that mean nothing here
DOCUMENTS = 6000  # of the toy world
LONGEST = 128  # pieces of a passage, as in the paper
HELD_OUT = 256  # passages at most, on which the terms are measured
TERMS = ("embedding", "attention", "hidden")


def is_asked_for(args: argparse.Namespace) -> bool:
    """By the option, or by the run that is to be resumed."""
    if args.method is not None or not args.resume:
        return args.method == METHOD
    return METHOD in (load(args.out / WORK / "run.json").get("method"), load(args.out / METRICS).get("method"))


def check_arguments(args: argparse.Namespace) -> None:
    """What can be said before anything heavy is imported. Raises `UserError`."""
    finetune.check_given(args, "distill", ("teacher", "student", "method"))
    for name in OTHERS:
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is not for --method general, which knows text only: leave it out",
                            f"{option} 不能用于 --method general，它只看文本：请去掉它")
    finetune.check_files([args.train] if args.train else [])
    if args.teacher is not None and not distill.is_model(args.teacher):
        raise UserError(f"there is no folder {args.teacher}: give a pre-trained model with --teacher",
                        f"没有 {args.teacher} 这个文件夹：请用 --teacher 给出预训练好的模型")
    student = None if args.student is None else distill.read_student(args.student)
    if isinstance(student, str) and student not in distill.STUDENTS:
        raise UserError(f"--student {args.student}: general distillation starts from random weights, give a name or a configuration",
                        f"--student {args.student}：通用蒸馏从随机权重开始，请给出名称或配置")
    if args.train is None and args.teacher is not None and built_in(args.teacher) != "tiny":
        raise UserError("--train must be given: a text file, as for `bertcourse pretrain`; only tiny knows the toy world",
                        "缺少 --train：请给出文本文件，格式同 `bertcourse pretrain`；只有 tiny 认识玩具世界")


def asked(args: argparse.Namespace) -> Job:
    """What is asked for now."""
    settings = {name: default if getattr(args, name) is None else getattr(args, name) for name, default in DEFAULTS.items()}
    files = distill.given_files(args)
    return Job(place_of(args.teacher), distill.read_student(args.student), METHOD, settings,
               {option: str(file.resolve()) for option, file in files.items()},
               [describe(option, file) for option, file in files.items()], distill.command_line(args))


# --- teacher, text, student ---------------------------------------------------------------------------------------

def open_teacher(job: Job, out: Path) -> tuple[Any, Any, Any]:  # profile, encoder, tokenizer
    """The pre-trained encoder. Raises `UserError`."""
    from accelerate import Accelerator
    from transformers import AutoModel
    from transformers.utils import logging

    from bertcourse import profiles
    logging.set_verbosity_error()
    profile = profiles.load(job.teacher)
    if not isinstance(profile.encoder, str):
        raise UserError(f"{job.teacher} names an encoder for each language: give one of them by its own name",
                        f"{job.teacher} 每种语言各有一个编码器：请写出其中一个的名称")
    model = profile.model(AutoModel, attn_implementation="eager").to(Accelerator().device)
    set_threads(model.config.hidden_size)
    found = distill.fingerprint(model)
    if job.fingerprint and found != job.fingerprint:
        name = base_name(job.teacher)
        raise UserError(f"{name} is not the teacher of the run in {out}: put that back, or choose another folder with --out",
                        f"{name} 不是 {out} 里的训练所用的教师：请放回原来的模型，或用 --out 换一个文件夹")
    job.fingerprint = found
    return profile, model, profile.tokenizer()


def read(job: Job, profile: Any, tokenizer: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # to train on, held out
    """Passages of the file, or of the toy world in the teacher's languages. Raises `UserError`."""
    from bertcourse import corpus
    from bertcourse.pieces import read_text
    from bertcourse.tinybert import passages
    documents = read_text([Path(job.paths["train"])]) if job.paths else chain.from_iterable(
        corpus.texts(DOCUMENTS // len(profile.languages), lang=lang, split="train") for lang in profile.languages)
    rows = passages(documents, tokenizer, min(LONGEST, tokenizer.model_max_length), job.settings["seed"])
    every = max(2, math.ceil(len(rows) / HELD_OUT))
    if len(rows) < 2:
        raise UserError(f"{Path(job.paths['train']).name} holds a single passage: give more text",
                        f"{Path(job.paths['train']).name} 只有一段：请给出更多文本")
    return [row for i, row in enumerate(rows) if i % every], rows[::every]


def make_student(job: Job, teacher: Any) -> Any:
    """An encoder with random weights. Raises `UserError`."""
    import torch
    from transformers import AutoModel

    from bertcourse.distillation import new_model
    config = distill.shape_of(job.student, teacher.config)
    distill.check_method(job, config, teacher.config)
    torch.manual_seed(job.settings["seed"])
    return new_model(config)(AutoModel, "eager").to(teacher.device)


# --- the run ------------------------------------------------------------------------------------------------------

def terms_of(pupil: Any, rows: list[dict[str, Any]], pad_id: int) -> dict[str, float]:
    """The mean of each term over passages."""
    from functools import partial

    import torch

    from bertcourse.training import evaluate, pad
    found = evaluate(pupil, rows, collate=partial(pad, pad_id=pad_id), loss=lambda model, batch: torch.stack([*model(**batch).terms.values()]),
                     items=lambda batch: [len(batch["input_ids"])] * len(TERMS))
    return dict(zip(TERMS, found["terms"]))


def save(job: Job, folder: Path, work: Path, pupil: Any, history: Any) -> None:
    """Checkpoint, projections, history."""
    from safetensors.torch import save_file

    from bertcourse.training import save_weights
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "tokenizer", folder)
    save_weights(pupil.student, folder)
    weights = {name: weight.cpu().contiguous() for name, weight in pupil.state_dict().items() if name.startswith("project_")}
    if weights:
        save_file(weights, folder / PROJECTIONS)
    rows = "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in history.rows)
    (folder / "history.jsonl").write_text(rows, encoding="utf-8")


def card(name: str, metrics: Mapping[str, Any]) -> str:
    """The model card, in both languages."""
    s = metrics["settings"]
    rows = "\n".join(f"| {term} | {metrics['before'][term]:.3f} | {metrics['after'][term]:.3f} |" for term in TERMS)
    files = ", ".join(f"`{f['name']}` ({f['bytes']:,} bytes, SHA-256 `{f['sha256'][:16]}`)" for f in metrics["files"]) or "toy world"
    student = metrics["student"] if isinstance(metrics["student"], str) else json.dumps(metrics["student"])
    return f"""---
library_name: transformers
tags: [bert, distillation]
---

# {name}

用 `bertcourse distill --method general` 从预训练模型蒸馏的编码器，还没有学过任务。/ An encoder distilled from a pre-trained model by
`bertcourse distill --method general`; it has learnt no task yet.

| 项 / term | 之前 / before | 之后 / after |
|---|---|---|
{rows}

各层之和，在 {metrics['passages']['held_out']:,} 段留出的文本上。/ Sums over the layers, on {metrics['passages']['held_out']:,} passages held out.

| | |
|---|---|
| 教师 / teacher | `{metrics['teacher']}`, {metrics['parameters']['teacher']:,} parameters, weights `{metrics['fingerprint'][:16]}` |
| 学生 / student | `{student}`, {metrics['parameters']['student']:,} parameters |
| 层的对应 / mapping | {s['mapping']}: {metrics['layers']} |
| 文本 / text | {files}, {metrics['passages']['train']:,} passages |
| 训练 / training | {metrics['steps']:,} steps of {s['batch_size']}, {metrics['seconds'] / 60:,.1f} min, learning rate {metrics['lr']:g} |
| 命令 / command | `{metrics['command']}` |

```sh
bertcourse distill --teacher TEACHER --student {name} --train train.tsv --method tinybert --out student
```

{', '.join(f'{package} {version}' for package, version in metrics['versions'].items())}
"""


def draw_curves(history: Any, path: Path) -> None:
    """The loss, and the learning rate."""
    from matplotlib import pyplot

    from bertcourse.plots import axes, dress, style
    figure, (left, right) = axes(1, 2, (7.6, 3.0))
    with style():
        left.plot(*history.column("loss"))
        right.plot(*history.column("lr"))
        for ax, name in [(left, "loss, sum over layers"), (right, "learning rate")]:
            dress(ax, "step", name).grid(axis="y")
        figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def start(args: argparse.Namespace, lang: str, interruption: Interruption, state: dict[str, Any]) -> dict[str, Any]:
    """Check all, then work. Returns the metrics. `state` tells the caller about the work place."""
    check_arguments(args)
    if args.resume and load(args.out / METRICS).get("method") == METHOD:
        metrics = load(args.out / METRICS)
        distill.compare(args, metrics, DEFAULTS)
        shutil.rmtree(args.out / WORK, ignore_errors=True)
        return metrics
    found = distill.look_at(args.out, args.resume)
    if found == "new" and (args.teacher is None or args.student is None):
        raise UserError(f"there is no run in {args.out} to go on with: check --out, or leave --resume out",
                        f"{args.out} 里没有可以继续的训练：请检查 --out，或去掉 --resume")
    tell, job = Narrator(lang, args.quiet), distill.recorded(args, DEFAULTS) if found == "unfinished" else asked(args)
    profile, teacher, tokenizer = open_teacher(job, args.out)
    student = make_student(job, teacher)
    rows, held = read(job, profile, tokenizer)
    s = job.settings
    rate = distill.learning_rate(student.config.hidden_size, random=True) if s["lr"] == "auto" else s["lr"]
    precision = finetune.choose_precision(s["precision"])
    counts = {"teacher": distill.parameters(teacher), "student": distill.parameters(student)}
    tell.state(f"teacher {base_name(job.teacher)}: {counts['teacher']:,} parameters; student {distill.shown_student(job.student)}: "
               f"{counts['student']:,}, random weights; {len(rows):,} passages, {plural(s['steps'], 'step')} of {s['batch_size']}, "
               f"learning rate {rate:g}, precision {precision}",
               f"教师 {base_name(job.teacher)}：{counts['teacher']:,} 个参数；学生 {distill.shown_student(job.student)}："
               f"{counts['student']:,} 个，随机权重；文本 {len(rows):,} 段，{s['steps']:,} 步，每步 {s['batch_size']} 段，"
               f"学习率 {rate:g}，精度 {precision}")
    with Workplace(args.out, interruption) as place, writing():
        state["place"], work = place, place.path
        job.write(work / "run.json")
        if not (work / "tokenizer").is_dir():
            distill.save_tokenizer(profile.tokenizer(), work / "tokenizer")
        metrics = train(job, teacher, student, rows, held, rate, precision, tokenizer.pad_token_id or 0, work, tell, interruption, args.out)
        metrics["parameters"] = counts
        write_json(work / "model" / METRICS, metrics)
        (work / "model" / "README.md").write_text(card(name_of(args.out), metrics), encoding="utf-8")
        place.finish()
    return metrics


def train(job: Job, teacher: Any, student: Any, rows: list, held: list, rate: float, precision: str, pad_id: int, work: Path, tell: Narrator,
          interruption: Interruption, out: Path) -> dict[str, Any]:  # the metrics
    """The layers, from the newest checkpoint on if there is one; leaves all but the metrics in `work/model`."""
    from functools import partial

    from bertcourse.tinybert import Intermediate
    from bertcourse.training import fit, pad
    s, pupil = job.settings, Intermediate(student, teacher, job.settings["mapping"])
    pupil.to(teacher.device)
    before = terms_of(pupil, held, pad_id)
    with training(rate, work / "training" / "best", interruption):
        history = fit(pupil, rows, steps=s["steps"], lr=rate, warmup=s["warmup"], weight_decay=s["weight_decay"], batch_size=s["batch_size"],
                      collate=partial(pad, pad_id=pad_id), precision=precision, seed=s["seed"], progress=tell.seen, callbacks=[interruption],
                      out=work / "training", resume=True,
                      save_every=SaveEvery(min(pretrain.SAVED_EVERY, max(1, s["steps"] // 20)), interruption))
    save(job, work / "model", work, pupil, history)
    draw_curves(history, work / "model" / "curves.png")
    return finite({
        "method": METHOD, "before": before, "after": terms_of(pupil, held, pad_id), "teacher": base_name(job.teacher),
        "fingerprint": job.fingerprint, "student": job.student, "layers": list(pupil.layers), "settings": s, "files": job.files,
        "passages": {"train": len(rows), "held_out": len(held)}, "steps": history.steps, "seconds": round(history.seconds, 1),
        "seed": s["seed"], "lr": rate, "precision": precision, "command": job.command, "versions": pretrain.versions()})


def summary(out: Path, metrics: Mapping[str, Any], lang: str) -> str:
    """What a person wants to know at the end."""
    zh, minutes = lang == "zh", metrics["seconds"] / 60
    lines = [f"{out}：{metrics['steps']:,} 步，{minutes:.1f} 分钟" if zh else f"{out}: {plural(metrics['steps'], 'step')}, {minutes:.1f} minutes"]
    lines += [f"{term:10} {metrics['before'][term]:.3f} → {metrics['after'][term]:.3f}" for term in TERMS]
    lines.append(f"模型卡：{out / 'README.md'}" if zh else f"model card: {out / 'README.md'}")
    return "\n".join(lines)


def load_projections(pupil: Any, folder: str) -> bool:
    """Let projections that were trained with a student go on; False where there are none that fit."""
    path = Path(folder) / PROJECTIONS
    if not path.is_file():
        return False
    from safetensors.torch import load_file
    weights, own = load_file(path), pupil.state_dict()
    if any(name not in own or own[name].shape != weight.shape for name, weight in weights.items()):
        return False
    pupil.load_state_dict(weights, strict=False)
    return True

