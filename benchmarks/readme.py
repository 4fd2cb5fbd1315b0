"""The tables of `README.md` in this folder, and those of memory in `deploy/`, from what the benchmarks measured.

    python benchmarks/readme.py

Writes what stands between the markers anew; a test asks whether it is of the committed JSON files.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def rows(heads: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *lines]) + "\n"


def by_shape(part: dict[str, Any], head: str = "") -> tuple[list[str], dict[str, list[str]]]:
    """Ratios of a part, a row for each variant, a column for each shape."""
    shapes, found = [], {}
    for name, row in part["ratios"].items():
        place, _, variant = name.partition(": ")
        if place.startswith(head):
            shapes += [place] * (place not in shapes)
            found.setdefault(variant, {})[place] = f"{row['wall']:.2f}"
    return [place.removeprefix(head) for place in shapes], {name: [cells.get(place, "") for place in shapes] for name, cells in found.items()}


def goals(found: Any, name: str = "") -> Iterator[list[str]]:
    """Every goal in the figures: what, goal, reached, met."""
    if not isinstance(found, dict):
        return
    if found.get("met") is not None:
        value = found.get("wall", found.get("MB", found.get("points")))
        yield [name, found["goal"], f"{value:.3f}" if abs(value - 1) < 0.1 else f"{value:.2f}", "met" if found["met"] else "**missed**"]
        return
    for key, value in found.items():
        yield from goals(value, key if key not in ("ratios", "shares") else name)


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The tables by marker."""
    parts, machine = found["parts"], found["machine"]
    made = {"machine": f"{machine['cpu']}, {found['settings']['rounds']} interleaved rounds, {found['date']}, torch {machine['torch']}.\n"}
    for count in found["settings"]["counts"]:
        head = f"{count} thread{'s' * (count > 1)}, "
        shapes, lines = by_shape(parts["speed"], head)
        megabytes = parts["speed"]["megabytes"]
        made[f"speed{count}"] = rows([f"{count} thread{'s' * (count > 1)}", *shapes, "MB"],
                                     [[name, *cells, f"{megabytes[name]:.1f}" if name in megabytes else ""] for name, cells in lines.items()])  # fmt: skip
    shapes, lines = by_shape(parts["tried"])
    made["tried"] = rows(["", *shapes], [[name, *cells] for name, cells in lines.items()])
    profile = parts["speed"]["ms by operator"]
    names = list(dict.fromkeys(name for column in profile.values() for name in column))
    made["operators"] = rows(["milliseconds", *profile], [[name, *(f"{column[name]:.2f}" if name in column else "" for column in profile.values())]
                                                          for name in names])  # fmt: skip
    scores = parts["accuracy"]["scores"]
    made["accuracy"] = rows(["task", "metric", "FP32", "INT8", "answers the same", "rows"],
                            [[name, s["metric"], f"{s['before'][s['metric']]:.4f}", f"{s['after'][s['metric']]:.4f}", "–" if s["agree"] is None else f"{s['agree']:.1%}", f"{s['rows']:,}"]
                             for name, s in scores.items()])  # fmt: skip
    made["goals"] = rows(["", "goal", "reached", ""], list(goals(parts)))
    return made


QUANTITIES = {  # of every processor: how it is called, which arms are meant by the beginning of their names
    "PyTorch SDPA, bf16": ("PyTorch SDPA, bf16",),
    "ONNX Runtime FP32": ("ONNX Runtime FP32",),
    "best INT8 of ONNX Runtime": ("dynamic", "static"),
    "best of OpenVINO": ("OpenVINO",),
}


def processors(every: list[dict[str, Any]]) -> str:
    """One thread: the best of each kind on every processor, as multiples of PyTorch's eager FP32; ours beside OpenVINO's; the share of the peak."""
    lines, shapes = [], ["1×32", "1×128", "8×32", "8×128"]
    for found in every:
        part, name = found["parts"]["speed"], found["machine"]["cpu"]
        best = {what: [fastest(part["arms"], f"1 thread, {shape}: ", begins) for shape in shapes] for what, begins in QUANTITIES.items()}
        eager = [part["arms"][f"1 thread, {shape}: PyTorch eager"]["per_s"] for shape in shapes]
        lines += [[name, what, *(f"{a / b:.2f}" for a, b in zip(row, eager, strict=True))] for what, row in best.items()]
        ours, peer = best["best INT8 of ONNX Runtime"], best["best of OpenVINO"]
        lines.append([name, "ours / OpenVINO's (goal ≥ 1)", *(f"{a / b:.3f}" for a, b in zip(ours, peer, strict=True))])
        peak = part["peak_gflops"]["1"]["int8"]
        lines.append([name, "best INT8: share of the 8-bit peak", *(f"{rate * part['gflop'][shape] / peak:.0%}" for rate, shape in zip(ours, shapes, strict=True))])
    return rows(["processor", "1 thread", *shapes], lines)


def operators(every: list[dict[str, Any]]) -> str:
    """Where the time of the largest batch goes, on every processor that this was recorded on."""
    lines = []
    for found in every:
        for runtime, spent in found["parts"]["speed"].get("ms by operator, largest batch", {}).items():
            lines += [[found["machine"]["cpu"], runtime, name, f"{ms:.1f}"] for name, ms in spent.items()]
    return rows(["processor", "8×128, 1 thread", "operator", "ms"], lines)


def threads(every: list[dict[str, Any]]) -> str:
    """Seconds of each job by setting, quiet and beside busy processes, by processor; of a run that was ended at the limit it says so."""
    parts = []
    for found in every:
        lines = []
        for job, places in found["jobs"].items():
            for place, settings in places.items():
                for setting, row in settings.items():
                    wall = f"> {row['wall']:.0f} (ended)" if row["ended"] else f"{row['wall']:.0f}"
                    lines.append([job, place, setting, wall, f"{row['cpu']:.0f}"])
        machine = f"{found['machine']['cpu']}, {found['machine']['usable_cores']} cores"
        head = f"{machine}, {found['settings']['busy']} busy processes beside, {found['date']}.\n\n"
        parts.append(head + rows(["job", "machine", "setting", "seconds", "CPU seconds"], lines))
    return "\n".join(parts)


def fastest(arms: dict[str, Any], head: str, begins: tuple[str, ...]) -> float:
    """Passes per second of the fastest arm of one shape whose name begins so."""
    return max(arm["per_s"] for name, arm in arms.items() if name.startswith(tuple(head + begin for begin in begins)))


def served(found: dict[str, Any]) -> dict[str, str]:
    """The tables of `serve.json`."""
    parts, machine = found["parts"], found["machine"]
    made = {"servemachine": f"{machine['cpu']}, {found['settings']['rounds']} interleaved rounds, {found['date']}.\n"}
    made["ladder"] = costs(parts["ladder"])
    made["servegoals"] = rows(["", "goal", "reached", ""], list(goals(parts["service"])))
    return made


def costs(part: dict[str, Any]) -> str:
    """What a request costs, a row for each server."""
    return rows(["", "ms of CPU for a request", "requests a second"],
                [[arm, f"{part['ms_of_cpu'][arm]:,.1f}", f"{row['per_s']:,.0f}"] for arm, row in part["arms"].items()])  # fmt: skip


def peers(found: dict[str, Any]) -> str:
    """The table of `peers.json`, with its machine: it is a run of its own."""
    head = f"{found['machine']['cpu']}, {found['settings']['rounds']} interleaved rounds, {found['date']}.\n\n"
    return head + costs(found["parts"]["peers"])


def services(every: list[dict[str, Any]]) -> str:
    """What a request costs behind HTTP, on every processor."""
    names = list(every[0]["parts"]["service"]["ratios"])
    return rows(["behind HTTP", *(found["machine"]["cpu"] for found in every)],
                [[name, *(f"{found['parts']['service']['ratios'][name]['wall']:.2f}" for found in every)] for name in names])  # fmt: skip


SIZES = {  # head of a column: in English, in Chinese
    "model": "模型", "workers": "工作进程", "idle": "空闲", "load": "负载下", "replacing": "SIGHUP 期间", "one worker": "一个工作进程", "limit": "上限"}


def memory(found: dict[str, Any], zh: bool = False) -> str:
    """MiB of a service by model and workers: idle, at most under load and while workers are replaced, and the limit to set."""
    lines = []
    for name, models in found["models"].items():
        for workers, row in models.items():
            replacing = f"{row['replacing']:,.0f}" if "replacing" in row else ""
            lines.append([name, workers, f"{row['idle']:,.0f}", f"{max(row['start'], row['load']):,.0f}", replacing, f"{found['rules'][name]['worker']:,.0f}",
                          f"{found['limits'][name][workers]:,}"])
    return rows(list(SIZES.values() if zh else SIZES), lines)


def fairness(found: dict[str, Any]) -> str:
    """Small requests beside large ones."""
    lines = []
    for name, parts in found["runs"].items():
        for part, row in parts.items():
            asked, answered = sum(row["small"].values()), row["small"].get("200", 0)
            large = ", ".join(f"{count} × {status}" for status, count in sorted(row["large"].items()))
            waits = [f"{row[key]:,.0f}" if key in row else "" for key in ("p50_ms", "p99_ms")]
            lines.append([name, part, f"{answered / asked:.0%}", *waits, large])
    return rows(["", "beside", "small ones answered", "p50, ms", "p99, ms", "answers of the large ones"], lines)


def read(name: str) -> Any:
    """A recording."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def fill(text: str, made: dict[str, str]) -> str:
    """A page with these tables between its markers. Raises `KeyError` for an unknown marker."""
    return MARK.sub(lambda mark: mark[1] + "\n" + made[mark[2]] + "\n" + mark[3], text)


def written(text: str, found: list[dict[str, Any]], service: list[dict[str, Any]]) -> str:
    """The page with the tables of these figures: all `deploy*.json`, all `serve*.json`, the main one first. Raises `KeyError` for an unknown marker."""
    made = tables(found[0]) | served(service[0]) | {"processors": processors(found), "services": services(service), "largest": operators(found), "threads": threads(stored("threads"))}
    return fill(text, made | {"memory": memory(read("memory.json")), "peers": peers(read("peers.json")), "fairness": fairness(read("fairness.json"))})


def stored(name: str) -> list[dict[str, Any]]:
    """All recordings of a benchmark, the main one first."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in (HERE / f"{name}.json", *sorted(HERE.glob(f"{name}-*.json")))]


def pages() -> dict[Path, str]:
    """All pages as they should be."""
    here, deploy = HERE / "README.md", HERE.parent / "deploy"
    made = {here: written(here.read_text(encoding="utf-8"), stored("deploy"), stored("serve"))}
    for name, zh in (("README.md", False), ("README.zh.md", True)):
        made[deploy / name] = fill((deploy / name).read_text(encoding="utf-8"), {"sizes": memory(read("memory.json"), zh)})
    return made


def main() -> int:
    """Write the pages."""
    for page, text in pages().items():
        partial = page.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
