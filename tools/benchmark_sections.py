"""What each section of the benchmarks' pages shows, computed from the recordings: dots with intervals, tables, and what follows from them.

A section is a function of the recordings of one benchmark, the main one first. Its `values` fill the places of the texts in
`benchmark_pages.toml`; its `holds` are what these texts say in words, so that changed rows cannot leave a wrong sentence behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from benchmark_rows import (
    CPU,
    WALL,
    Damaged,
    Panels,
    Point,
    Recording,
    Section,
    Table,
    Words,
    by_shape,
    cpu_gap,
    ratio,
    shape_table,
    short,
    single,
    span,
    times,
)

from bertcourse.services import Factor, compare_costs, cpu_per_request

BETTER = "times as cheap (CPU time) or as fast (requests a second) as"


# --- deploy.json --------------------------------------------------------------------------------------------------


def speed(found: list[Recording]) -> Section:
    """BERT-base's shape by runtime and precision, on every processor; the picture has one thread."""
    eager, panels, tables, versus = "PyTorch eager", {}, [], []
    for one in found:
        arms, part = one.arms("speed"), one.found["parts"]["speed"]
        size = {name: f"{value:.1f}" for name, value in part["megabytes"].items()}
        for count in one.found["settings"]["counts"]:
            head = f"{count} thread{'s' * (count > 1)}, "
            rows = by_shape(arms, eager, head)
            tables.append(shape_table(rows, f"{one.cpu}, {head.removesuffix(', ')}", {"MB": size}))
            if count == 1:
                panels[one.short] = rows
        versus += [
            row["wall"] for name, row in part["ratios"].items() if name.startswith("1 thread, ") and name.endswith("OpenVINO's best")
        ]
    int8, guide = ([row[name] for row in panels.values()] for name in ("dynamic QInt8", "dynamic QUInt8 (guide)"))
    plain = [{shape: max(1.0, row["ONNX Runtime FP32"][shape].value) for shape in row["ONNX Runtime FP32"]} for row in panels.values()]
    pairs = [(name, f"{name.partition(': ')[0]}: {eager}") for name in found[0].arms("speed") if name.startswith("1 thread")]
    values = {
        "int8": times((point for row in int8 for point in row.values()), 1),
        "guide": times((point for row in guide for point in row.values()), 1),
        "versus": span(versus),
        "gap": cpu_gap(found[0].arms("speed"), pairs),
    }
    holds = {
        "dynamic QInt8 is faster than FP32 everywhere": all(
            row[s].value > fp32[s] for row, fp32 in zip(int8, plain, strict=True) for s in row
        ),
        "QUInt8 is slower than QInt8 everywhere": all(a[s].value < b[s].value for a, b in zip(guide, int8, strict=True) for s in a),
        "neither runtime is the fastest everywhere": min(versus) < 1 < max(versus),
    }
    return Section(tables, values, holds, panels, "times as fast as PyTorch eager FP32, 1 thread", (1, eager))


def accuracy(found: list[Recording]) -> Section:
    """What INT8 costs on the toy tasks."""
    part = found[0].found["parts"]["accuracy"]
    points, scores = part["points lost"], part["scores"]
    rows = {name: {"points": single(row["points"])} for name, row in points.items()}
    goal = float(next(iter(points.values()))["goal"].split()[1])
    lines = []
    for name, row in scores.items():
        before, after = (row[when][row["metric"]] for when in ("before", "after"))
        same = "–" if row["agree"] is None else f"{row['agree']:.1%}"
        lines.append(
            [
                name,
                row["metric"],
                f"{before:.4f}",
                f"{after:.4f}",
                f"{points[name]['points']:+.2f}",
                same,
                f"{row['p']:.2f}" if "p" in row else "–",
            ]
        )
    tested = [row["p"] for row in scores.values() if "p" in row]
    values = {
        "worst": f"{max(row['points'] for row in points.values()):.2f}",
        "goal": f"{goal:g}",
        "p": f"{min(tested):.2f}",
        "rows": f"{next(iter(scores.values()))['rows']:,}",
    }
    holds = {
        "no task loses more than the goal": all(row["points"] <= goal for row in points.values()),
        "no difference is significant": min(tested) > 0.05,
    }
    heads = ["task", "metric", "FP32", "INT8", "points lost", "same answers", "p"]
    return Section(
        [Table(heads, lines)],
        values,
        holds,
        {"dynamic INT8": rows},
        "points lost (percent, or correlation × 100)",
        (goal, "goal"),
        log=False,
    )


def tried(found: list[Recording]) -> Section:
    """What makes ONNX Runtime's INT8 faster than its default."""
    arms, base = found[0].arms("tried"), "all of ONNX Runtime's fusions"
    rows = by_shape(arms, base)
    without = rows["without SkipLayerNormFusion"]
    worse = [rows[name] for name in ("fused offline, QAttention", "MatMulNBits, blocks of 128")]
    names = [
        "without BiasGeluFusion, too",
        "query, key, value as one product",
        "ONNX's Attention operator (opset 23)",
        "denormals as zero",
        "no arena",
    ]
    more = [abs(rows[name][shape].value / without[shape].value - 1) for name in names for shape in without]
    shown = {name: row for name, row in rows.items() if name != "PyTorch eager"}
    values = {
        "gain": times(without.values()),
        "more": f"{max(more):.1%}",
        "worse": times(p for row in worse for p in row.values()),
        "gap": cpu_gap(arms, [(name, f"{name.partition(': ')[0]}: {base}") for name in arms]),
    }
    spread = max((point.high - point.low) / point.value for point in without.values())
    holds = {
        "leaving out the fusion helps": all(point.value > 1 for point in without.values()),
        "the others change less than the rounds differ": max(more) < spread,
        "QAttention and MatMulNBits are slower": all(point.value < 1 for row in worse for point in row.values()),
    }
    table = shape_table(rows, f"{found[0].cpu}, 1 thread")
    return Section([table], values, holds, {found[0].short: shown}, f"times as fast as with {base}", (1, "default"))


def operators(found: list[Recording]) -> Section:
    """Where the time of one pass goes, with and without the fusion."""
    panels: Panels = {}
    tables, factors = [], []
    for one in found:
        spent = one.found["parts"]["speed"]["ms by operator"]
        fused, plain = spent.values()
        names = list(dict.fromkeys([*fused, *plain]))
        panels[one.short] = {name: {how: single(column[name]) for how, column in spent.items() if name in column} for name in names}
        tables.append(
            Table(
                ["operator", *spent],
                [[name, *(f"{column[name]:.2f}" if name in column else "" for column in spent.values())] for name in names],
                one.cpu,
            )
        )
        instead = plain["LayerNormalization"] - fused.get("LayerNormalization", 0) + plain["Add"] - fused.get("Add", 0)
        factors.append(fused["SkipLayerNormalization"] / instead)
    holds = {"the merged operator takes longer than what it replaces": min(factors) > 1}
    values = {"factor": span(factors, ".1f")}
    return Section(tables, values, holds, panels, "milliseconds of a pass, 1×32, 1 thread")


def largest(found: list[Recording]) -> Section:
    """Where the time of the largest batch goes, on the processors that this was recorded on."""
    key, products = "ms by operator, largest batch", re.compile("DynamicQuantizeMatMul|MatMulIntegerToFloat|FullyConnected")
    panels: Panels = {}
    tables, factors, others = [], [], []
    for one in found:
        if spent := one.found["parts"]["speed"].get(key):
            panels[one.short] = {name: {runtime: single(ms)} for runtime, column in spent.items() for name, ms in column.items()}
            tables.append(
                Table(
                    ["runtime", "operator", "ms"],
                    [[runtime, name, f"{ms:.1f}"] for runtime, column in spent.items() for name, ms in column.items()],
                    one.cpu,
                )
            )
            ours, theirs = (
                [sum(ms for name, ms in column.items() if bool(products.match(name)) == of) for of in (True, False)]
                for column in spent.values()
            )
            factors.append(ours[0] / theirs[0])
            others.append(ours[1] / theirs[1])
    holds = {"ONNX Runtime takes longer in the matrix products": min(factors) > 1, "it takes less time in all else": max(others) < 1}
    values = {"products": f"{min(factors):.1f}", "others": f"{max(others):.2f}"}
    return Section(tables, values, holds, panels, "milliseconds of a pass, 8×128, 1 thread")


def students(found: list[Recording]) -> Section:
    """Smaller models beside BERT-base, in ONNX Runtime FP32."""
    one, part = found[0], found[0].found["parts"]["students"]
    rows, parameters = by_shape(part["arms"], "BERT-base"), part["parameters"]
    share = {name: f"{parameters[name] / parameters['BERT-base']:.0%}" for name in rows}
    half = [point for name in ("TinyBERT-6", "DistilBERT") for point in rows[name].values()]
    values = {
        "half": times(half),
        "tiny": times(rows["TinyBERT-4"].values(), 1),
        "tiny_share": share["TinyBERT-4"],
        "albert": times(rows["ALBERT-base"].values()),
        "albert_share": share["ALBERT-base"],
        "gap": cpu_gap(part["arms"], [(name, f"{name.partition(': ')[0]}: BERT-base") for name in part["arms"]]),
    }
    holds = {
        "half the layers take half the time": all(1.8 < point.value < 2.2 for point in half),
        "TinyBERT-4 is the fastest": all(
            row["1×32"].value < rows["TinyBERT-4"]["1×32"].value for name, row in rows.items() if name != "TinyBERT-4"
        ),
        "ALBERT is no faster than BERT": all(point.value < 1.1 for point in rows["ALBERT-base"].values()),
    }
    return Section(
        [shape_table(rows, f"{one.cpu}, 1 thread", {"parameters": share})],
        values,
        holds,
        {one.short: rows},
        "times as fast as BERT-base",
        (1, "BERT-base"),
    )


def lengths(found: list[Recording]) -> Section:
    """INT8 beside FP32 by length and by batch, in ONNX Runtime with one thread."""
    one, part = found[0], found[0].found["parts"]["lengths"]
    arms, peak, gflop = part["arms"], part["peak_gflops"]["int8"], part["gflop"]
    heads = list(dict.fromkeys(name.partition(": ")[0] for name in arms))
    gains = {head: ratio(arms, f"{head}: INT8", f"{head}: FP32") for head in heads}
    rate = {head: arms[f"{head}: INT8"]["per_s"] * (int(head.split()[1]) if head.startswith("batch") else 1) for head in heads}
    lines = []
    for head in heads:
        used = f"{rate[head] * gflop[head.split()[1]] / peak:.0%}" if head.startswith("length") else ""
        lines.append(
            [
                head,
                f"{arms[f'{head}: FP32']['per_s']:,.1f}",
                f"{arms[f'{head}: INT8']['per_s']:,.1f}",
                f"{gains[head].value:.2f}",
                f"{rate[head]:,.1f}",
                used,
            ]
        )
    texts = {kind: [head for head in heads if head.startswith(kind)] for kind in ("length", "batch")}
    last, single_text, full = texts["length"][-1], texts["batch"][0], texts["batch"][-1]
    best = max(texts["length"], key=lambda head: gains[head].value)
    values = {
        "best": f"{gains[best].value:.1f}",
        "best_length": best.split()[1],
        "last": f"{gains[last].value:.1f}",
        "last_length": last.split()[1],
        "batch": full.split()[1],
        "texts": f"{rate[full] / rate[single_text]:.2f}",
    }
    holds = {
        "INT8 is faster at every length and batch": all(point.value > 1 for point in gains.values()),
        "the gain is smallest at the longest text": all(gains[last].value <= gains[head].value for head in heads),
        "a full batch gives more texts a second": rate[full] > rate[single_text],
    }
    table = Table(
        ["shape", "FP32, passes / s", "INT8, passes / s", "INT8 / FP32", "INT8, texts / s", "of the peak"], lines, f"{one.cpu}, 1 thread"
    )
    return Section(
        [table],
        values,
        holds,
        {one.short: {head: {"INT8": gains[head]} for head in heads}},
        "times as fast as FP32 of the same shape",
        (1, "FP32"),
    )


def settings(found: list[Recording]) -> Section:
    """Session settings of ONNX Runtime, INT8, 1×32: wall time and CPU time."""
    one, arms, base = found[0], found[0].arms("settings"), "intra-op 1"
    rows = {name: {"wall time": ratio(arms, name, base), "CPU time": ratio(arms, name, base, CPU)} for name in arms if name != base}
    two, four = rows["intra-op 2"], rows["intra-op 4"]
    parallel = rows["intra-op 1, inter-op 2, parallel"]["CPU time"]
    rest = [row["wall time"] for name, row in rows.items() if name.startswith(base)]
    lines = [[name, f"{arms[name]['per_s']:.1f}", *(f"{point.value:.2f}" for point in row.values())] for name, row in rows.items()]
    lines = [[base, f"{arms[base]['per_s']:.1f}", "1.00", "1.00"], *lines]
    values = {
        "two": f"{two['wall time'].value:.2f}",
        "two_cpu": f"{1 / two['CPU time'].value:.2f}",
        "four": f"{four['wall time'].value:.2f}",
        "rest": f"{max(abs(point.value - 1) for point in rest):.0%}",
        "parallel": f"{1 / parallel.value:.1f}",
        "cores": str(one.found["machine"]["cores"]),
    }
    holds = {
        "two threads are faster and take more CPU": two["wall time"].value > 1 > two["CPU time"].value,
        "more threads than cores are slower than one": four["wall time"].value < 1 and one.found["machine"]["cores"] < 4,
        "running operators in parallel takes more CPU": parallel.high < 1,
        "the other settings change little": max(abs(point.value - 1) for point in rest) < 0.05,
    }
    table = Table(["setting", "passes / s", "wall time", "CPU time"], lines, one.cpu)
    return Section([table], values, holds, {one.short: rows}, "times as fast as intra-op 1 (one thread)", (1, base))


# --- serve.json and peers.json ------------------------------------------------------------------------------------


def cost_table(arms: Mapping[str, Any], baseline: str, title: str) -> Table:
    """What a request costs, a row for each server."""
    lines = []
    for name, arm in arms.items():
        points = [ratio(arms, name, baseline, place) for place in (WALL, CPU)]
        lines.append([name, f"{arm['per_s']:,.1f}", short(points[0].value), f"{1000 / arm['per_cpu_s']:,.1f}", short(points[1].value)])
    return Table(["server", "requests / s", "times the baseline", "CPU ms / request", "times as cheap"], lines, title)


def by_measure(arms: Mapping[str, Any], baseline: str) -> dict[str, dict[str, Point]]:
    """Every other server beside the baseline: by CPU time and by throughput."""
    return {
        name: {"CPU time": ratio(arms, name, baseline, CPU), "requests a second": ratio(arms, name, baseline)}
        for name in arms
        if name != baseline
    }


def service(found: list[Recording]) -> Section:
    """The guide's service and ours beside the model alone, on every processor."""
    alone = "the model alone, batches of 8 to 16"
    panels = {one.short: by_measure(one.arms("service"), alone) for one in found}
    tables = [cost_table(one.arms("service"), alone, one.cpu) for one in found]
    every = [one.found["parts"]["service"]["ratios"] for one in found]
    for one, ratios in zip(found, every, strict=True):
        lines = [
            [
                name,
                (row["goal"] or "–").replace(">=", "≥").replace("<=", "≤"),
                f"{row['wall']:.2f}",
                "–" if row["met"] is None else ("met" if row["met"] else "missed"),
            ]
            for name, row in ratios.items()
        ]
        tables.append(Table(["measure", "goal", "reached", "result"], lines, one.cpu))
    share, factor, tail = (
        [ratios[name]["wall"] for ratios in every]
        for name in ("throughput: ours / the model alone", "CPU of a request: the guide's / ours", "at 70% of that load: p99 / p50")
    )
    goal = every[0]["throughput: ours / the model alone"]["goal"].split()[1]
    values = {"share": span(share, ".0%"), "goal": f"{float(goal):.0%}", "factor": span(factor, ".0f"), "tail": span(tail, ".1f")}
    holds = {
        "the goal of the throughput is missed on every processor": max(share) < float(goal),
        "the guide's service costs more": min(factor) > 1,
        "the goal of the tail is met on every processor": all(ratios["at 70% of that load: p99 / p50"]["met"] for ratios in every),
    }
    return Section(tables, values, holds, panels, f"{BETTER} the model alone", (1, "the model alone"))


def ladder(found: list[Recording]) -> Section:
    """From the guide's service to ours, one change at a time; the steps are compared round by round, as in chapter 7."""
    one, guide = found[0], "the guide's service"
    arms, names = one.arms("ladder"), list(one.arms("ladder"))
    factors = {row.after: row for row in compare_costs(cpu_per_request(one.found["parts"]["ladder"]), list(pairwise(names)))}
    table = cost_table(arms, guide, one.cpu)
    lines = [[*row, interval(factors[row[0]]) if row[0] in factors else "–"] for row in table.rows]
    padding, bits, batches, server = (factors[name] for name in ("+ no padding", "+ 8 bits", "+ batches", "+ our server, a text at a time"))
    values = {
        "padding": f"{padding.factor:.1f}",
        "bits": f"{bits.factor:.1f}",
        "batches": f"{batches.factor:.1f}",
        "server": f"{server.factor:.2f}",
    }
    best = sorted(factors, key=lambda name: -factors[name].factor)[:3]
    holds = {
        "no padding saves most, then 8 bits, then batches": best == ["+ no padding", "+ 8 bits", "+ batches"],
        "another server alone saves nothing": server.high < 1,
        "all steps stand out after Holm's correction": all(row.p < 0.05 for row in factors.values()),
    }
    return Section(
        [Table([*table.heads, "beside the step before"], lines, one.cpu)],
        values,
        holds,
        {one.short: by_measure(arms, guide)},
        f"{BETTER} {guide}",
        (1, guide),
    )


def interval(row: Factor) -> str:
    """A factor with its 95% interval."""
    return f"{row.factor:.2f} [{row.low:.2f}, {row.high:.2f}]"


def peers(found: list[Recording]) -> Section:
    """The same model behind other servers; LitServe with the same file and batches is the baseline."""
    one, base, ours = found[0], "LitServe: the same file and batches", "bertcourse: ONNX Runtime, dynamic INT8"
    arms = one.arms("peers")
    others = {
        "litserve": base,
        "openvino": "bertcourse: OpenVINO, the same file",
        "static": "bertcourse: OpenVINO, static INT8",
        "fastapi": "FastAPI: the same file, a text at a time",
    }
    compared = compare_costs(cpu_per_request(one.found["parts"]["peers"]), [(name, ours) for name in others.values()])
    factors = dict(zip(others, compared, strict=True))
    values: dict[str, Words] = {name: f"{row.factor:.1f}" for name, row in factors.items()}
    litserve = factors["litserve"]
    values |= {"litserve": f"{litserve.factor:.2f}", "interval": span((litserve.low, litserve.high))}
    holds = {
        "ours is cheaper than LitServe": litserve.low > 1,
        "a text at a time costs more than batches": factors["fastapi"].low > 1,
        "OpenVINO needs a static file": factors["openvino"].factor > 2 > factors["static"].factor > 1,
    }
    return Section(
        [cost_table(arms, base, one.cpu)], values, holds, {one.short: by_measure(arms, base)}, f"{BETTER} LitServe", (1, "LitServe")
    )


# --- fairness.json, memory.json -----------------------------------------------------------------------------------


def fairness(found: list[Recording]) -> Section:
    """Small requests beside large ones: p50 as the dot, p99 as the end of the line."""
    one, lines = found[0], []
    panels: Panels = {}
    for name, parts in one.found["runs"].items():
        model, when = name.rsplit(", ", 1)
        for beside, row in parts.items():
            panels.setdefault(model, {}).setdefault(beside, {})[when] = Point(row["p50_ms"], row["p50_ms"], row["p99_ms"])
            large = ", ".join(f"{count} × {status}" for status, count in sorted(row["large"].items()))
            lines.append(
                [
                    model,
                    when,
                    beside,
                    f"{answered(row):.0%}",
                    f"{row['p50_ms']:,.0f}",
                    f"{row['p99_ms']:,.0f}",
                    f"{row['p99_ms'] / parts['alone']['p99_ms']:.1f}",
                    large or "–",
                ]
            )
    before, after = (one.found["runs"][f"BERT-base, INT8, {when}"] for when in ("before", "after"))
    _, huge, two = before
    least = min(answered(row) for parts in one.found["runs"].values() for row in parts.values())
    values = {
        "least": f"{least:.0%}",
        "huge": huge.split()[0],
        "two": two.split()[0],
        "seconds": str(one.found["seconds"]),
        "share_before": f"{answered(before[two]):.0%}",
        "share_after": f"{answered(after[two]):.0%}",
        "large": str(after[two]["large"]["200"]),
        "slow": f"{before[two]['p50_ms']:,.0f}",
        "quick": f"{after[two]['p50_ms']:,.0f}",
    }
    later = [row for name, parts in one.found["runs"].items() if name.endswith("after") for row in parts.values()]
    holds = {
        "small requests were refused before": least < 0.5,
        "all small requests are answered after": all(answered(row) == 1 for row in later),
        "the largest requests are all refused after": set(after[huge]["large"]) == {"422"},
        "as many large requests are answered after as before": before[two]["large"] == after[two]["large"],
        "small requests wait less": after[two]["p50_ms"] < before[two]["p50_ms"] / 2,
    }
    heads = ["model", "version", "beside", "small answered", "p50, ms", "p99, ms", "p99 / alone", "large answered"]
    return Section([Table(heads, lines, one.cpu)], values, holds, panels, "milliseconds of a small request: p50, line to p99")


def answered(row: Mapping[str, Any]) -> float:
    """The share of small requests that were answered."""
    return row["small"].get("200", 0) / sum(row["small"].values())


def memory(found: list[Recording]) -> Section:
    """MiB of a service by model and workers."""
    one, rows, lines = found[0], {}, []
    models, limits = one.found["models"], one.found["limits"]
    states = {"idle": "idle", "load": "under load", "replacing": "while workers are replaced"}
    for name, workers in models.items():
        for count, row in workers.items():
            rows[f"{name}, {count} worker{'s' * (count != '1')}"] = {
                **{shown: single(row[key]) for key, shown in states.items() if key in row},
                "limit": single(limits[name][count]),
            }
            peak = max(row[key] for key in states if key in row)
            lines.append(
                [
                    name,
                    count,
                    *(f"{row[key]:,.0f}" if key in row else "–" for key in states),
                    f"{limits[name][count]:,}",
                    f"{peak / limits[name][count]:.0%}",
                ]
            )
    share = [models["INT8"][count]["load"] / models["FP32"][count]["load"] for count in models["FP32"]]
    values = {
        "share": span(share, ".0%"),
        "worker": f"{one.found['rules']['INT8']['worker']:,.0f}",
        "fp32": f"{one.found['rules']['FP32']['worker']:,.0f}",
    }
    several = [row for workers in models.values() for row in workers.values() if "replacing" in row]
    holds = {
        "INT8 takes less than half": max(share) < 0.5,
        "replacing takes more than load": all(row["replacing"] > row["load"] for row in several),
        "all peaks are within the limit": all(
            row.get("replacing", row["load"]) <= limits[name][count] for name, workers in models.items() for count, row in workers.items()
        ),
    }
    table = Table(["model", "workers", *states.values(), "limit", "peak / limit"], lines, f"{one.cpu}, MiB")
    return Section([table], values, holds, {one.short: rows}, "MiB of all processes")


# --- threads.json, real.json --------------------------------------------------------------------------------------


def threads(found: list[Recording]) -> Section:
    """Seconds of each job by setting beside one thread, on a quiet machine and on a busy one."""
    one, spin, sleep = "1 thread", "2 threads, spinning", "2 threads, passive"
    panels: Panels = {}
    tables = []
    for recording in found:
        lines = []
        for job, places in recording.found["jobs"].items():
            for place, rows in places.items():
                points = {name: single(rows[name]["wall"] / rows[one]["wall"], rows[name]["ended"]) for name in (spin, sleep)}
                panels.setdefault(f"{recording.short}, {place}", {})[job] = points
                took = [f"{'> ' * row['ended']}{row['wall']:.0f} / {row['cpu']:.0f}" for row in (rows[name] for name in (one, spin, sleep))]
                lines.append([job, place, *took, *(f"{'> ' * point.open}{point.value:.2f}" for point in points.values())])
        tables.append(Table(["job", "machine", one, spin, sleep, "spinning / 1 thread", "passive / 1 thread"], lines, recording.cpu))
    many = [
        job for recording in found for job in recording.found["jobs"].values() if job["quiet"][spin]["cpu"] > 1.1 * job["quiet"][one]["cpu"]
    ]
    wall, cpu = ([job["quiet"][spin][key] / job["quiet"][one][key] for job in many] for key in ("wall", "cpu"))
    passive = [job["quiet"][sleep]["wall"] / job["quiet"][one]["wall"] for job in many]
    busy = [job["busy"][spin]["wall"] / job["busy"][one]["wall"] for job in many]
    limits = [f"{recording.found['settings']['limit']:g}" for recording in found]
    values = {
        "wall": span(wall),
        "cpu": span(cpu, ".1f"),
        "passive": span(passive),
        "least": f"{min(busy):.1f}",
        "worst": f"{max(busy):.1f}",
        "limits": (" 秒、".join(limits), " and ".join(limits)),
    }
    holds = {
        "spinning is the slowest on a busy machine": all(
            job["busy"][spin]["wall"] > max(job["busy"][name]["wall"] for name in (one, sleep)) for job in many
        ),
        "spinning costs CPU on a quiet machine": min(cpu) > 1.2,
        "two sleeping threads are no faster than one": min(passive) > 1,
        "a run was ended at the limit": any(job["busy"][spin]["ended"] for job in many),
    }
    return Section(tables, values, holds, panels, "seconds, times those of 1 thread", (1, one))


def real(found: list[Recording]) -> Section:
    """A fine-tuned model, its student, and both in 8 bits: latency, size, accuracy."""
    one = found[0].found
    rounds = {(row["model"], row["batch"]): row for row in one["results"]}
    base, batches = one["models"][0]["model"], list(dict.fromkeys(row["batch"] for row in one["results"]))
    size, scores = {row["model"]: row["megabytes"] for row in one["models"]}, {row["model"]: row for row in one["dev"]["models"]}
    panel: dict[str, dict[str, Point]] = {}
    for name in size:
        for batch in batches:
            own, other = rounds[name, batch]["ms_of_rounds"], rounds[base, batch]["ms_of_rounds"]
            value, pairs = rounds[base, batch]["ms"] / rounds[name, batch]["ms"], [b / a for a, b in zip(own, other, strict=True)]
            if name != base:
                panel.setdefault(name, {})[f"batch {batch}"] = Point(value, min(value, *pairs), max(value, *pairs))
    lines = []
    for name in size:
        took = [f"{rounds[name, batch]['ms']:.1f}" for batch in batches]
        fast = [f"{panel[name][f'batch {batch}'].value:.2f}" if name in panel else "1.00" for batch in batches]
        lines.append([name, f"{size[name]:.1f}", *took, *fast, f"{scores[name]['scores']['accuracy']:.1%}", f"{scores[name]['agree']:.1%}"])
    accuracies = [row["scores"]["accuracy"] for row in scores.values()]
    small = "sst2-student-int8"
    values = {
        "fast": times(panel[small].values(), 1),
        "size": f"{size[small] / size[base]:.0%}",
        "int8": times(panel["sst2-int8"].values(), 1),
        "accuracy": span(accuracies, ".1%"),
        "agree": f"{scores[small]['agree']:.1%}",
        "rounds": str(one["rounds"]),
    }
    holds = {
        "the small model in 8 bits is the fastest and smallest": size[small] == min(size.values())
        and all(panel[small][batch].value == max(row[batch].value for row in panel.values()) for batch in panel[small]),
        "no model is less accurate than the first": min(accuracies) >= scores[base]["scores"]["accuracy"],
    }
    heads = [
        "model",
        "MB",
        *(f"ms, batch {n}" for n in batches),
        *(f"times as fast, batch {n}" for n in batches),
        "accuracy",
        "as the first",
    ]
    return Section(
        [Table(heads, lines, found[0].cpu)],
        values,
        holds,
        {found[0].short: panel},
        "times as fast as sst2 (PyTorch)",
        (1, "sst2 (PyTorch)"),
    )


# --- attacks.json -------------------------------------------------------------------------------------------------


def attacks(found: list[Recording]) -> Section:
    """Which attacks gain a point or do harm, by tool."""
    one, tools = found[0].found, {"ours": "bertcourse", "nbgrader": "nbgrader", "otter": "otter-grader"}
    rows = {name: [attack["tools"][tool] for tool in tools] for name, attack in one["attacks"].items()}
    shown = {name: f"`{name}`" for name in ("os._exit", "sys.exit", "pickle", "sitecustomize")}  # names of Python
    lines = [[shown.get(name, name), one["attacks"][name]["tries"], *map(came_to, row)] for name, row in rows.items()]
    totals = {tool: totals_of([row[number] for row in rows.values()]) for number, tool in enumerate(tools)}
    panel = {tools[tool]: {"gained a point": single(row["gained"]), "did harm": single(row["harm"])} for tool, row in totals.items()}
    summary = [
        [f"{name} {one['versions'][name]}", str(totals[tool]["run"]), str(totals[tool]["gained"]), str(totals[tool]["harm"])]
        for tool, name in tools.items()
    ]
    values: dict[str, Words] = {
        "all": str(len(rows)),
        "both": str(sum(bool(row[1]["gained"] and row[2]["gained"]) for row in rows.values())),
    }
    for tool in ("nbgrader", "otter"):
        values |= {tool: str(totals[tool]["gained"]), f"{tool}_harm": str(totals[tool]["harm"])}
    values |= {"nbgrader_version": one["versions"]["nbgrader"], "otter_version": one["versions"]["otter-grader"],
               "seconds_limit": f"{one['limits']['seconds']:g}", "memory_limit": f"{one['limits']['memory_mb']:,}"}  # fmt: skip
    holds = {
        "no attack gains a point with ours": totals["ours"] == {"run": len(rows), "gained": 0, "harm": 0},
        "attacks gain points with both other tools": min(totals[tool]["gained"] for tool in ("nbgrader", "otter")) > 0,
        "the counts are those of the rows": totals == one["counts"],
        "every tool tells a right answer from a wrong one": all(
            [row["score"] for row in one["controls"][tool].values()] == [1.0, 0.0] for tool in tools
        ),
    }
    tables = [Table(["tool", "attacks run", "gained a point", "did harm"], summary), Table(["attack", "tries", *tools.values()], lines)]
    return Section(tables, values, holds, {"hidden tests of one exercise": panel}, f"attacks, of {len(rows)}", log=False)


def came_to(row: Mapping[str, Any]) -> str:
    """What an attack came to, for a table."""
    if row["gained"] is None:
        return "not run"
    return ", ".join([*["point"] * row["gained"], *["harm"] * bool(row["harm"])]) or "–"


def totals_of(rows: list[Mapping[str, Any]]) -> dict[str, int]:
    """How many were run, gained a point, did harm."""
    ran = [row for row in rows if row["gained"] is not None]
    return {"run": len(ran), "gained": sum(row["gained"] for row in ran), "harm": sum(bool(row["harm"]) for row in ran)}


# --- grade.json ---------------------------------------------------------------------------------------------------


def grade(found: list[Recording]) -> Section:
    """A submission beside nbgrader, and what a class takes."""
    one, ours, base = found[0], "bertcourse grade", "nbgrader autograde"
    arms, part = one.arms("peers"), one.found["parts"]["class"]
    fast, cheap = (ratio(arms, ours, base, place) for place in (WALL, CPU))
    lines = []
    for name, arm in arms.items():
        points = [ratio(arms, name, base, place) for place in (WALL, CPU)]
        lines.append([name, f"{1 / arm['per_s']:.2f}", short(points[0].value), f"{1 / arm['per_cpu_s']:.2f}", short(points[1].value)])
    measured = {"minutes": ("minutes", ".1f"), "largest page, kB": ("largest_page_kb", ".1f"), "memory: second half / first": ("memory", ".2f")}
    goals = []
    for shown, (key, form) in measured.items():
        row = part[key]
        value = row["second_half_to_first"] if key == "memory" else row["value"]
        goals.append([shown, row["goal"].replace(">=", "≥"), format(value, form), "met" if row["met"] else "missed"])
    values: dict[str, Words] = {
        "fast": f"{fast.value:.2f}",
        "fast_between": span((fast.low, fast.high)),
        "cheap": f"{cheap.value:.2f}",
        "each": f"{1 / arms[ours]['per_s']:.1f}",
        "theirs": f"{1 / arms[base]['per_s']:.1f}",
        "students": str(part["students"]),
        "minutes": f"{part['minutes']['value']:.1f}",
        "peak": f"{part['memory']['peak_mb']:.0f}",
    }
    holds = {
        "a submission takes less time and CPU than nbgrader in every round": min(fast.low, cheap.low) > 1,
        "a class meets its goals": all(part[key]["met"] for _, (key, _) in measured.items()),
    }
    tables = [
        Table(["grader", "seconds", "as fast as nbgrader", "CPU seconds", "as cheap as nbgrader"], lines, one.cpu),
        Table(["measure", "goal", "reached", "result"], goals, one.cpu),
    ]
    panels = {one.short: {"bertcourse grade": {"CPU time": cheap, "wall time": fast}}}
    return Section(tables, values, holds, panels, "nbgrader's time, as a multiple of ours", (1, "nbgrader"), log=False)


SECTIONS: dict[str, Callable[[list[Recording]], Section]] = {
    function.__name__: function
    for function in (
        speed,
        accuracy,
        tried,
        operators,
        largest,
        students,
        lengths,
        settings,
        service,
        ladder,
        peers,
        fairness,
        memory,
        threads,
        real,
        attacks,
        grade,
    )
}


def section(name: str, found: list[Recording]) -> Section:
    """A section. Raises `Damaged` where the recordings lack what it needs, or where they no longer say what its text says."""
    files = " and ".join(f"benchmarks/{one.name}" for one in found)
    try:
        made = SECTIONS[name](found)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise Damaged(
            f"{files} cannot be shown in the section {name!r} ({type(error).__name__}: {error}): measure again, or fix tools/benchmark_sections.py"
        ) from error
    for what, holds in made.holds.items():
        if not holds:
            raise Damaged(
                f"{files}: it no longer holds that {what}, as the section {name!r} says: write its text in tools/benchmark_pages.toml anew"
            )
    return made
