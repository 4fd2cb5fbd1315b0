"""`benchmarks/serve.py --quick`: servers start, are asked, and end; the figures mean nothing."""

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
    assert "the guide's service" in done.stdout and "goal >= 50" in done.stdout
    left = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or ())]
    assert not left
