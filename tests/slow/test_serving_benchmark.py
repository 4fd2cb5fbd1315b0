"""`serve.py`, `memory.py` and `fairness.py` in `benchmarks/`, quickly: servers start, are asked, and end; the figures mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def test_a_quick_run(tmp_path):
    line = [sys.executable, str(ROOT / "benchmarks/serve.py"), "service", "ladder", "--quick", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["parts"]
    assert set(found) == {"service", "ladder"} and all(value > 0 for part in found.values() for value in part["ms_of_cpu"].values())
    assert "the guide's service" in done.stdout and "goal >= 0.9" in done.stdout
    left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or ())]
    assert not left


def test_memory_is_measured_in_all_states(tmp_path):
    line = [sys.executable, str(ROOT / "benchmarks/memory.py"), "--quick", "--workers", "1,2", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    for rows in found["models"].values():
        assert rows["2"]["replacing"] > rows["2"]["idle"] > rows["1"]["idle"] > 50
    assert "FP32 2: start" in done.stdout


def test_small_requests_are_timed_beside_large_ones(tmp_path):
    sys.path.append(str(ROOT / "tests"))
    import commands
    import services
    with commands.surroundings():
        model = services.export(tmp_path, "qa")["qa"]
    line = [sys.executable, str(ROOT / "benchmarks/fairness.py"), str(model), "--seconds", "2", "--json", str(tmp_path / "found.json"), "--name", "x"]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr[-2000:]
    for row in json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["runs"]["x"].values():
        assert set(row["small"]) == {"200"} and row["p50_ms"] > 0
