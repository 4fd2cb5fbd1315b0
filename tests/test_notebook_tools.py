"""Notebooks are run by nbval as they should be, and `tools/notebooks.py` stores and measures what it promises."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scripts
from checks import reading, stored
from checks.planting import code, notebook, stream
from checks.reading import ROOT

# --- nbval --------------------------------------------------------------------------------------------------------


def nbval(folder, *cells, options=()):
    """What `pytest --nbval-lax` says of a notebook of these cells: exit code and output."""
    (folder / "a.ipynb").write_text(json.dumps(notebook(*cells)), encoding="utf-8")
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "tests").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "tests/checks", folder / "tests/checks", dirs_exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", *options, "."],
        cwd=folder,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_nbval_runs_what_it_should(tmp_path):
    cells = code("x = 1\nx", [stream("1")]), code("#| eval: false\n1 / 0"), code("assert x == 1")
    code_, out = nbval(tmp_path, *cells, options=["--no-outputs"])
    assert code_ == 0 and "2 passed, 1 skipped" in out, out


def test_nbval_fails_where_it_should(tmp_path):
    code_, out = nbval(
        tmp_path,
        code("x = 1\nx", [stream("1")]),
        code("assert x == 2", [stream("1")]),
        code("1 / 0"),
        code("#| eval: true\nx.y"),
        options=["--no-outputs"],
    )
    assert code_ == 1 and "3 failed, 1 passed" in out, out
    assert "AssertionError" in out and "ZeroDivisionError" in out and "AttributeError" in out


# --- tools/notebooks.py -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool():
    """The tool as a module."""
    return scripts.tool("notebooks")


def store(path, *cells):
    """Write a notebook and give its path as text."""
    path.write_text(json.dumps(notebook(*cells)), encoding="utf-8")
    return str(path)


def test_outputs_are_stored_clean(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BERTCOURSE_LANG", "en")  # must not leak into stored outputs
    cells = [
        code(
            "from os import environ\nprint(environ.get('BERTCOURSE_LANG'), environ['OMP_NUM_THREADS'])",
            id="env",
        ),
        code("#| eval: false\n1 / 0", [stream("kept")], id="kept"),
        code("object()", id="last"),
    ]
    path = store(tmp_path / "a.ipynb", *cells)
    assert tool.main(["outputs", path]) == 0
    nb = reading.load(Path(path))
    assert [cell["id"] for cell in nb["cells"]] == ["title", "env", "kept", "last"]
    assert nb["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["None 1\n"]}]
    assert nb["cells"][2]["outputs"][0]["text"] == ["kept"]
    assert nb["cells"][3]["outputs"][0]["data"] == {"text/plain": ["<object>"]}
    assert nb["cells"][3]["outputs"][0]["execution_count"] is None and list(stored.form(nb, "a")) == []
    assert os.listdir(tmp_path) == ["a.ipynb"]
    capsys.readouterr()
    assert tool.main(["outputs", path]) == 0 and "unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source, expected",
    [
        ("1 / 0", "a.ipynb#bad: the cell raises ZeroDivisionError: division by zero"),
        ("import sys; print('oops', file=sys.stderr)", "a.ipynb#bad: stored something from stderr"),
        ("import warnings; warnings.warn('soon')", "a.ipynb#bad: stored"),
        ("print('/home/' + 'ann')", "a path of this machine"),
        ("import os; os._exit(1)", "a.ipynb#bad: DeadKernelError"),
    ],
)
def test_bad_outputs_are_refused(tool, tmp_path, capsys, source, expected):
    path = store(tmp_path / "a.ipynb", code("1", id="good"), code(source, id="bad"))
    before = Path(path).read_bytes()
    assert tool.main(["outputs", path]) == 1
    assert expected in capsys.readouterr().err and Path(path).read_bytes() == before


@pytest.mark.parametrize("command", ["outputs", "timings", "lint"])
def test_unknown_notebook_is_one_sentence(tool, capsys, command):
    assert tool.main([command, "nope"]) == 2
    assert capsys.readouterr().err.startswith("no notebook 'nope'")


def test_timings_are_measured_and_merged(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "TIMINGS", tmp_path / "timings.json")
    old = {
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "memory_mb": 1,
        "measured": "2026-01-01",
        "python": "3",
        "torch": "2",
        "cpu": "x",
        "cores": 2,
    }
    tool.TIMINGS.write_text(json.dumps({"zz": old}))
    work = (
        "import subprocess, sys, time\nx = bytearray(300_000_000)\ntime.sleep(0.5)\n"
        "subprocess.run([sys.executable, '-c', 'for i in range(10**7): pass'])"
    )
    assert tool.main(["timings", store(tmp_path / "a.ipynb", code(work))]) == 0
    known = json.loads(tool.TIMINGS.read_text())
    assert known["zz"] == old and list(known) == ["a", "zz"]
    assert (
        0.5 <= known["a"]["seconds"] < 60 and known["a"]["cpu_seconds"] > 0.05 and 300 < known["a"]["memory_mb"] < 1000
    )
    assert list(tool.timing_faults(known, ["a", "zz"])) == []


def test_timing_faults(tool):
    good = {
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "memory_mb": 1,
        "measured": "2026-01-01",
        "python": "3",
        "torch": "2",
        "cpu": "x",
        "cores": 2,
    }
    assert "does not know b" in next(tool.timing_faults({"a": good}, ["a", "b"]))
    assert "no chapter" in next(tool.timing_faults({"a": good, "b": good}, ["a"]))
    assert "seconds = 0" in next(tool.timing_faults({"a": good | {"seconds": 0}}, ["a"]))
    assert "cpu = None" in next(tool.timing_faults({"a": {k: v for k, v in good.items() if k != "cpu"}}, ["a"]))


def test_committed_timings_are_sound(tool):
    """Every page is measured; this is what `python tools/notebooks.py check` says."""
    faults = list(tool.timing_faults(tool.timings(), [p.stem for p in reading.notebooks()]))
    assert not faults, "\n".join(faults)
