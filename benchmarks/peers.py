"""The same model behind other servers, with two workers each: what a request costs.

    python benchmarks/peers.py [--rounds 7] [--json FILE] [--quick]

Everything as in `serve.py`: BERT-base's shape with random weights, texts of about 12 pieces, 16 connections, servers in turns. Each
server gets a file that suits it: ONNX Runtime one with dynamic 8-bit weights, OpenVINO that one and one with static ranges too,
FastAPI the 8-bit file and a pipeline in PyTorch's FP32. Needs `pip install litserve fastapi uvicorn`; servers that are not installed
are left out and named.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import Sample, command, interleave, rates
from serve import QUICK, Settings, cost, load, serving, stage

ARMS = (  # name, who serves it, what it is given, requests of a round
    ("bertcourse: ONNX Runtime, dynamic INT8", "ours", {"--workers": "2"}, 600),
    ("bertcourse: OpenVINO, the same file", "ours", {"--workers": "2", "--runtime": "openvino"}, 200),
    ("bertcourse: OpenVINO, static INT8", "ours", {"MODEL": "static", "--workers": "2", "--runtime": "openvino"}, 600),
    ("LitServe: the same file and batches", "litserve", {"MODEL": "int8"}, 600),
    ("FastAPI: the same file, a text at a time", "fastapi-onnx", {"MODEL": "int8"}, 300),
    ("FastAPI: a pipeline in PyTorch, FP32", "fastapi", {"MODEL": "source"}, 120),
)
NEEDS = {"litserve": ("litserve",), "fastapi": ("fastapi", "uvicorn"), "fastapi-onnx": ("fastapi", "uvicorn")}


def missing(kind: str, given: dict[str, str]) -> list[str]:
    """The packages that this server needs and that are not installed."""
    needed = NEEDS.get(kind, ()) + (("openvino",) if given.get("--runtime") == "openvino" else ())
    return [name for name in needed if not find_spec(name)]


def quantize_statically(source: Path, texts: list[str]) -> Path:
    """The checkpoint with static ranges from these texts, beside it."""
    from bertcourse.app.cli import main

    out, rows = source.parent / "static", source.parent / "calibration.json"
    if not (out / "bertcourse.json").is_file():
        rows.write_text(json.dumps([{"sentence": text} for text in texts]), encoding="utf-8")
        if main(["export", str(source), "--out", str(out), "--int8", "static", "--calibrate", str(rows), "--quiet"]):
            raise SystemExit("the model could not be quantised statically")
    return out


def peers(settings: Settings) -> dict[str, Any]:
    """The same model behind other servers, two workers each."""
    with stage(settings) as (models, texts, bodies), contextlib.ExitStack() as stack:
        source = models["int8"].parent / "source"
        models = {**models, "source": source, "static": quantize_statically(source, texts)}
        arms: dict[str, Callable[[], Sample]] = {}
        absent: set[str] = set()
        for name, kind, given, count in ARMS:
            if lacking := missing(kind, given):
                absent.update(lacking)
                continue
            server = stack.enter_context(serving(kind, given, models))
            arms[name] = partial(load, server, bodies, max(4, round(count * settings.share)))
        found = rates(interleave(arms, settings.rounds))
    return {"unit": "requests", "arms": found, "ms_of_cpu": {name: cost(arm) for name, arm in found.items()}, "not_installed": sorted(absent)}


if __name__ == "__main__":
    sys.exit(command(__doc__, {"peers": peers}, Settings, QUICK))
