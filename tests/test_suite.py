"""The suite itself: a kill ends it and all it has started, failures are named at once, and it starts wherever the repository lies."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import scripts
import yaml
from checks.reading import ROOT

COMMAND_UNDER_TEST = '''
import signal, subprocess, sys, time
from pathlib import Path

def test_a_command_that_handles_termination():
    """As `bertcourse finetune` does: it stops after the step, and the test goes on and fails."""
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    Path("started").write_text(str(child.pid))
    end = time.monotonic() + 60
    while not asked and time.monotonic() < end:
        time.sleep(0.05)
    assert not asked, "the command was interrupted"

def test_the_next():
    assert False, "this must not be reached"
'''
RAISING = '''
import signal

def test_what_a_test_raises_reaches_the_handler_under_test():
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert asked == [1]
'''


def project(folder: Path, text: str) -> list[str]:
    "A test file beside the repository's conftest; the command that runs it."
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "test_a.py").write_text(text, encoding="utf-8")
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]


def environment() -> dict[str, str]:
    "Without what this run of pytest has set."
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}


def test_a_kill_ends_the_run_and_its_children(tmp_path):
    process = subprocess.Popen(project(tmp_path, COMMAND_UNDER_TEST), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "started").read_text())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM and "failed" not in out and "interrupted" not in out
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_test_may_still_send_the_signal_itself(tmp_path):
    done = subprocess.run(project(tmp_path, RAISING), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_failure_is_named_before_the_end(tmp_path):
    text = "import time\ndef test_bad():\n    x = 1\n    assert x == 2, 'planted'\ndef test_slow():\n    time.sleep(30)\n"
    process = subprocess.Popen(project(tmp_path, text), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in process.stderr if line.strip())
        assert line.startswith("FAILED") and "test_bad (call)" in line and process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ascii_path():
    "tools/ascii_path.py as a module."
    return scripts.tool("ascii_path")


@pytest.mark.skipif(os.name == "nt", reason="an ASCII locale is a matter of Linux and macOS")
def test_python_starts_in_a_folder_that_the_locale_cannot_write(ascii_path, tmp_path):
    home = tmp_path / "我的 课程"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / ".venv")], check=True)
    python, (packages,) = home / ".venv/bin/python", (home / ".venv/lib").glob("python*/site-packages")
    (home / "there.py").write_text("answer = 42\n")
    file = packages / "_bertcourse.pth"
    file.write_text(f"{home}\n", encoding="utf-8")
    assert ascii_path.main(str(home / ".venv")) == 0 and file.read_bytes().isascii()
    given = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_CTYPE", "PYTHONUTF8", "PYTHONPATH")} | {"LC_ALL": "C"}
    done = subprocess.run([str(python), "-c", "import there; print(there.answer)"], env=given, cwd="/", capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr
    before = file.read_bytes()
    assert ascii_path.main(str(home / ".venv")) == 0 and file.read_bytes() == before, "a second time changes nothing"
    assert ascii_path.main(str(tmp_path)) == 1, "no environment at all"


def test_a_path_in_ascii_stays_a_path(ascii_path, tmp_path):
    file = tmp_path / "_bertcourse.pth"
    file.write_text("/srv/course\n")
    assert not ascii_path.rewrite(file) and file.read_text() == "/srv/course\n"


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_may_do_little(path):
    text = path.read_text(encoding="utf-8")
    for name, comment in re.findall(r"uses: (\S+)(.*)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) and re.fullmatch(r"  # v\d+\.\d+\.\d+", comment), f"{name}: pin the commit, name the version"
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"} and all("timeout-minutes" in job for job in workflow["jobs"].values())
    shared = {name: at for other in WORKFLOWS for name, at in re.findall(r"uses: ([\w./-]+)@(\w+)", other.read_text(encoding="utf-8"))}
    assert all(shared[name] == at for name, at in re.findall(r"uses: ([\w./-]+)@(\w+)", text)), "the same action, the same commit everywhere"


def test_quarto_is_pinned():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    quarto = next(step for step in steps if "quarto" in step.get("uses", ""))
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(quarto["with"]["version"]))


def test_forms_for_issues_are_whole():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "labels", "body"} == form.keys() and " | " in form["name"], path.name
            assert len({field["id"] for field in form["body"]}) == len(form["body"]) and all("label" in field["attributes"] for field in form["body"])


def test_one_version_everywhere():
    version = re.search(r"^version = (\S+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert "## Unreleased" in (changes := (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) or f"## {version}" in changes


def test_slow_tests_of_a_module_stay_together():
    """Their fixtures build environments, models and servers; pytest-xdist's groups do nothing with pytest 9.2."""
    spec = importlib.util.spec_from_file_location("slow_conftest", ROOT / "tests/slow/conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    assert conftest.scope_of("tests/slow/test_wheel.py::test_a[x::y]") == conftest.scope_of("tests/slow/test_wheel.py::test_b") == "tests/slow/test_wheel.py"
    assert conftest.scope_of("tests/slow/test_experiments.py::test_a[1]") != conftest.scope_of("tests/slow/test_experiments.py::test_a[2]")
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert make.count("--dist loadscope") == 2 and "loadgroup" not in make
