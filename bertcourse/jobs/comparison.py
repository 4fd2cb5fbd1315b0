"""Teacher and student side by side: what the student keeps of the score, and what each costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertcourse.base.messages import plural
from bertcourse.jobs.data import model_inputs
from bertcourse.jobs.reporter import METRIC_NAMES, format_score

ROUNDS = 15  # of a race
BOTH = ("teacher", "student")


def share_kept(teacher: float | None, student: float | None) -> float | None:
    """The share of the teacher's score that the student keeps; None where a share means nothing."""
    good = all(value is not None and math.isfinite(value) and value >= 0 for value in (teacher, student))
    return student / teacher if good and teacher else None


def side_by_side(teacher: float, student: float) -> dict[str, float]:
    """Both, and the student's as a share of the teacher's."""
    return {"teacher": teacher, "student": student, "ratio": student / teacher}


def measure_costs(teacher: Any, student: Any, row: Mapping[str, Any], collate: Any) -> dict[str, Any]:
    """Size, operations and time of a forward pass over one text, of both models."""
    import torch

    from bertcourse.distillation import measure_cost, race, unlabelled
    models, device = {"teacher": teacher, "student": student}, teacher.device
    batch = {name: value.to(device) for name, value in unlabelled(collate([row])).items()}
    for model in models.values():
        model.to(device).eval().set_attn_implementation("sdpa")  # what one would run
    costs = {name: measure_cost(model, batch) for name, model in models.items()}
    times = {name: statistics.median(found) for name, found in race(models, batch, ROUNDS).items()}
    sizes = {name: side_by_side(*(costs[model][name] for model in models)) for name in ("parameters", "megabytes", "gflops")}
    gflops = sizes.pop("gflops")
    return sizes | {
        "mflops": gflops | {model: gflops[model] * 1e3 for model in models}, "milliseconds": side_by_side(*times.values()),
        "pieces": len(row["input_ids"]), "batch": 1, "rounds": ROUNDS, "device": device.type, "threads": torch.get_num_threads()}


def compare_models(teacher: Any, folder: Path, scores: Mapping[str, Mapping[str, Any]], dev: Any) -> dict[str, Any]:
    """The content of the table of the end. The student is the one in the folder: who reads the table will load that.

    teacher: a `Predictor`; scores: "teacher" and "student", each with those on "dev" and "test"; dev: labelled rows.
    """
    from bertcourse.models.checkpoint import open_checkpoint
    task, metric = teacher.task, teacher.task.better[0]
    rows = sorted(model_inputs(task.encode(dev, labelled=False)), key=lambda row: len(row["input_ids"]))
    found: dict[str, Any] = {"metric": metric}
    for split in ("dev", "test"):
        both = {model: scores[model][split].get(metric) for model in BOTH}
        found[split] = both | {"kept": share_kept(**both)} if scores["student"][split] else {}
    return found | measure_costs(teacher.model, open_checkpoint(str(folder)).model, rows[len(rows) // 2], task.collate)


def format_share(value: float | None) -> str:
    """A share in percent; "–" where there is none."""
    return "–" if value is None else f"{value:.1%}"


def comparison_rows(comparison: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Rows of the table: a name in Chinese and in English; teacher, student, the student's share."""
    rows, metric = [], comparison["metric"]
    for split, zh in (("dev", "验证"), ("test", "测试")):
        if scores := comparison[split]:
            cells = [*(format_score(metric, scores[model]) for model in BOTH), format_share(scores["kept"])]
            rows.append((f"{zh}，{METRIC_NAMES[metric]}", f"{split}, {metric}", cells))
    for key, zh, en, form in [("parameters", "参数", "parameters", ",.0f"), ("megabytes", "MB", "MB", ",.1f"),
                              ("mflops", "MFLOPs", "MFLOPs", ",.1f"), ("milliseconds", "毫秒", "milliseconds", ",.2f")]:
        values = comparison[key]
        rows.append((zh, en, [*(format(values[model], form) for model in BOTH), format_share(values["ratio"])]))
    return rows


def how_measured(comparison: Mapping[str, Any]) -> tuple[str, str]:
    """How the costs were measured, in Chinese and in English."""
    device, rounds, pieces = comparison["device"], comparison["rounds"], comparison["pieces"]
    en = device + (f" ({plural(comparison['threads'], 'thread')})" if device == "cpu" else "")
    zh = device + (f"（{comparison['threads']} 线程）" if device == "cpu" else "")
    return (f"MB：FP32；MFLOPs 与毫秒：一次前向，每批 1 条，{pieces} 个 token；毫秒是交替计时 {rounds} 轮的中位数，{zh}",
            f"MB: in FP32; MFLOPs and milliseconds: a forward pass, batch 1, {plural(pieces, 'token')}; milliseconds: "
            f"median of {rounds} interleaved rounds, {en}")
