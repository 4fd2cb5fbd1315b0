"""`bertcourse doctor`: every planted fault is found, named, and comes with the command that fixes it."""

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from bertcourse.app import cli, doctor
from bertcourse.app.needs import ANY, CHAPTERS, Need
from bertcourse.assets import asset

WELL = ({}, {"device": "cpu", "threads": 2})  # what a probe of a sound installation says


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two chapters whose needs are small; imports are not really tried."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in ("01_bert", "02_transformer"):
        (folder / f"{name}.ipynb").write_text("{}")

    def planted(name):
        return folder if name == "course" else asset(name)
    monkeypatch.setattr(doctor, "asset", planted)
    monkeypatch.setattr(doctor, "probe", lambda modules: WELL)
    monkeypatch.setattr(doctor, "memory", lambda: (16000, 8000))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    monkeypatch.delenv("BERTCOURSE_PROFILE", raising=False)
    monkeypatch.setattr(doctor, "ANY", Need(modules=("pytest",), assets=("glossary.toml",)))
    monkeypatch.setattr(doctor, "CHAPTERS", {"01_bert": Need(modules=("pytest", "nbformat"), assets=("glossary.toml",)),
                                             "02_transformer": Need(modules=("pytest",), assets=("glossary.toml",))})
    return folder


def report(capsys, *argv: str) -> tuple[int, dict]:
    """Exit code and findings of `bertcourse doctor --json`."""
    code = cli.main(["doctor", "--json", *argv])
    return code, json.loads(capsys.readouterr().out)


def problems(data: dict, chapter: int = 0) -> list[dict]:
    return data["chapters"][chapter]["problems"]


def test_sound_installation(course, capsys):
    code, data = report(capsys)
    assert code == 0 and data["ok"] and [c["ok"] for c in data["chapters"]] == [True, True]
    assert data["device"] == "cpu" and data["threads"] == 2 and data["cores"] >= 1 and data["disk_free_mb"] > 0
    assert data["profile"] == "tiny" and data["problems"] == []
    for lang, says in (("en", "2 of 2 chapters can run"), ("zh", "2 章中有 2 章可以运行")):
        assert cli.main(["doctor", "--lang", lang]) == 0
        assert says in capsys.readouterr().out


def test_missing_module(course, capsys, monkeypatch):
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "nbformat" else real(name))
    code, data = report(capsys)
    assert code == 1 and [c["ok"] for c in data["chapters"]] == [False, True]
    assert problems(data) == [
        {"en": "nbformat is not installed", "zh": "没有安装 nbformat", "mend": 'pip install "nbformat"'}]
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert '✗ 01_bert\n    nbformat is not installed  →  pip install "nbformat"' in out and "1 of 2 chapters" in out


def test_folder_left_by_an_uninstallation_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "leftover").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not doctor.is_there("leftover") and doctor.is_there("pytest")


@pytest.mark.parametrize("wanted, version, good", [
    (">=2.9", "2.8.1", False), (">=2.9", "2.13.0+cpu", True), (">=5.0,<6", "6.0.0", False),
    (">=5.0,<6", "5.23.0", True), (">=2.9", "2.14.0.dev20260101", True), ("==2.4.14", "2.4.15", False),
])
def test_version_outside_its_range(course, capsys, monkeypatch, wanted, version, good):
    monkeypatch.setattr(doctor, "requirements", lambda: ({"nbformat": wanted}, []))
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: version if name == "nbformat" else real(name))
    code, data = report(capsys)
    assert code == (0 if good else 1)
    if not good:
        assert problems(data)[0]["en"] == f"nbformat is {version}, the course needs {wanted}"
        assert problems(data)[0]["mend"] == f'pip install "nbformat{wanted}"'


def test_ranges_are_those_of_the_package(monkeypatch):
    ranges, found = doctor.requirements()
    assert not found and ranges["torch"].startswith(">=") and "jupyterlab" in ranges and "nbdev" not in ranges
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    ranges, found = doctor.requirements()
    assert ranges == {} and "packaging is not installed" in found[0].en


def test_not_installed_but_run_from_a_folder(monkeypatch):
    def absent(name):
        raise doctor.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(doctor.metadata, "requires", absent)
    assert "not installed" in doctor.requirements()[1][0].en


def test_absent_asset(course, capsys, monkeypatch):
    real = doctor.asset

    def absent(name):
        if name == "glossary.toml":
            raise FileNotFoundError(name)
        return real(name)
    monkeypatch.setattr(doctor, "asset", absent)
    code, data = report(capsys)
    assert code == 1 and "glossary.toml is missing" in problems(data)[0]["en"]
    assert "pip install" in problems(data)[0]["mend"]


def test_no_chapters(course, capsys):
    for path in course.glob("*.ipynb"):
        path.unlink()
    code, data = report(capsys)
    assert code == 1 and data["problems"][0]["en"] == "this installation has no chapters"


def test_little_disk_and_memory(course, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    monkeypatch.setattr(doctor, "memory", lambda: (2000, 300))
    code, data = report(capsys)
    assert code == 1 and [p["en"].split(",")[0] for p in problems(data)] == [
        "1 MB of disk are free here", "300 MB of memory are available"]


def test_without_psutil(course, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert doctor.memory() == (None, None)


@pytest.mark.parametrize("profile, good", [("tiny", True), ("base", True), ("google-bert/bert-base-chinese", True),
                                           ("./nowhere", False), ("/nowhere", False), ("~/nowhere", False)])
def test_profile(course, capsys, monkeypatch, profile, good):
    monkeypatch.setenv("BERTCOURSE_PROFILE", profile)
    code, data = report(capsys)
    assert data["profile"] == profile and code == (0 if good else 1)
    if not good:
        assert "is not a folder with a checkpoint" in problems(data)[0]["en"] and "tiny" in problems(data)[0]["mend"]


def test_profile_that_is_a_checkpoint(course, capsys, monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("BERTCOURSE_PROFILE", str(tmp_path))
    assert report(capsys)[0] == 0


# --- the probe, in a process of its own ---------------------------------------------------------------------------

BROKEN = {
    "raising": "raise OSError('libfoo.so.1: cannot open shared object file\\nand more')",
    "exiting": "raise SystemExit(3)",
    "crashing": "import os; os._exit(139)",
    "printing": "print('noise on stdout')",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    for name, source in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)


def test_probe_reports_what_does_not_import(broken):
    errors, machine = doctor.probe(["json", "raising", "exiting", "printing", "crashing", "email"])
    assert errors == {"json": None, "raising": "OSError: libfoo.so.1: cannot open shared object file",
                      "exiting": "SystemExit: 3", "printing": None, "crashing": "the import ends the interpreter"}
    assert machine == {}


def test_probe_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "hanging.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 1)
    assert doctor.probe(["json", "hanging"]) == ({"json": None, "hanging": "the import ends the interpreter"}, {})


def test_broken_module_is_a_finding(broken):
    package = doctor.check_package("raising", ">=1", {"raising": "OSError: libfoo.so.1"})
    assert "is installed but does not import (OSError: libfoo.so.1)" in package.problem.en
    assert package.problem.mend == 'pip install --force-reinstall "raising>=1"'


def test_without_torch_and_everything_else():
    """A bare Python that has only the package's source: a report and exit code 1, no traceback."""
    source = Path(doctor.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); from bertcourse.app.cli import main; sys.exit(main())"
    command = [sys.executable, "-S", "-E", "-c", code, "doctor", "--lang", "en"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stderr
    assert "torch is not installed" in done.stdout and "unknown (torch does not import)" in done.stdout


# --- the table ----------------------------------------------------------------------------------------------------

def test_every_chapter_has_a_row():
    chapters = {path.stem for path in asset("course").glob("[0-9][0-9]_*.ipynb")}
    assert not chapters - CHAPTERS.keys(), "bertcourse/app/needs.py has no row for these chapters"


def test_this_installation_can_run_every_chapter():
    """The real thing: real imports, real assets."""
    command = [sys.executable, "-m", "bertcourse.app.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(done.stdout)
    assert data["device"] and data["threads"] >= 1 and data["chapters"]


def test_needs_name_what_exists():
    for need in (ANY, *CHAPTERS.values()):
        for name in need.assets:
            assert asset(name).exists()


def test_memory_is_at_least_what_was_measured():
    measured = json.loads(asset("timings.json").read_text(encoding="utf-8"))
    short = {name: measured[name]["memory_mb"] for name, need in CHAPTERS.items() if measured[name]["memory_mb"] > need.memory_mb}
    assert not short, "bertcourse/app/needs.py asks for less memory than these chapters took"
