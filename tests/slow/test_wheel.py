"""The wheel carries the course: in an empty environment it runs from an empty directory without a network."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRANGERS = re.compile(r"(^|/)(tests?|__pycache__|\.ipynb_checkpoints|\.venv|_proc|_docs|\.git)(/|$)"
                       r"|bertcourse-work|\.pyc$|\.tmp$")

# Runs a command in a network namespace of its own that has nothing but its loopback, which Jupyter's kernels need.
OFFLINE = """
import fcntl, os, socket, struct, sys
with socket.socket() as handle:  # SIOCSIFFLAGS with IFF_UP
    fcntl.ioctl(handle, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""

# Runs a notebook where it lies, in this environment's own kernel, and fails on the first error.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
print(sum("<svg" in "".join(o.get("data", {}).get("text/html", "")) for c in notebook.cells if c.cell_type == "code"
          for o in c.outputs))
"""


def offline() -> list[str]:
    """What to put before a command so that it has no network; nothing where the system cannot do that."""
    wrapper = ["unshare", "--map-root-user", "--net", sys.executable, "-c", OFFLINE]
    try:
        works = subprocess.run([*wrapper, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    return wrapper if works else []


def strangers(names: list[str]) -> list[str]:
    """Files that have no place in a wheel."""
    return [name for name in names if STRANGERS.search(name)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel, built from the sdist, and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The scripts' folder of a new environment that holds the wheel and what it asks for, as pinned."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pins = ROOT / "constraints.txt"
    torch = re.search(r"^torch==\S+", pins.read_text(), re.MULTILINE)[0]
    for wanted in (torch, f"{built[0]}[lab]"):  # torch first: where a CPU build is at hand, it is the one to take
        command = [str(scripts / "python"), "-m", "pip", "install", "--no-input", "-q", "-c", str(pins), wanted]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    yield scripts
    shutil.rmtree(folder, ignore_errors=True)  # a gigabyte


@pytest.fixture
def call(installed, tmp_path, bare_environment):
    """Run a program of the new environment from an empty directory, without a network; returns what it printed."""
    empty = tmp_path / "empty"
    empty.mkdir()
    path = os.pathsep.join([str(installed), "/usr/bin", "/bin"])

    def run(program: str, *arguments: str, lang: str = "C.UTF-8", code: int = 0) -> str:
        environment = bare_environment(tmp_path / "home", LC_ALL=lang) | {"PATH": path}
        done = subprocess.run([*offline(), str(installed / program), *arguments], env=environment, cwd=empty,
                              capture_output=True, text=True, timeout=900)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout
    return run


def test_wheel_holds_the_course_and_nothing_else(built):
    wheel, sdist = built
    names = zipfile.ZipFile(wheel).namelist()
    assert strangers(names) == []
    course = {path.relative_to(ROOT / "nbs").as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
              if ".ipynb_checkpoints" not in path.parts}
    assert {f"bertcourse/assets/course/{name}" for name in course} <= set(names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bertcourse").rglob("*.py")}
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bertcourse/assets").rglob("*") if path.is_file()
            and "__pycache__" not in path.parts}
    assert modules | data <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names) and any("NOTICE" in name for name in names)
    top = {name.partition("/")[0] for name in names}
    assert top == {"bertcourse", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert wheel.stat().st_size < 30e6
    packed = [name.partition("/")[2] for name in tarfile.open(sdist).getnames()]
    assert {"pyproject.toml", "settings.ini", "README.md", "tests/test_workspace.py"} <= set(packed)
    assert not [name for name in packed if STRANGERS.search(name) and not name.startswith("tests")]


def test_strangers_are_noticed():
    good = ["bertcourse/app/cli.py", "bertcourse/assets/course/01_bert.ipynb", "bertcourse/testing.py"]
    bad = ["tests/test_cli.py", "bertcourse/__pycache__/x.cpython-311.pyc", "a/.ipynb_checkpoints/b.ipynb", "x/.a.tmp"]
    assert strangers(good + bad) == bad


def test_commands_from_an_empty_directory(call, tmp_path):
    version = re.search(r'"(.+)"', (ROOT / "bertcourse/__init__.py").read_text())[1]
    assert call("bertcourse", "--version") == f"bertcourse {version}\n"
    where = call("python", "-c", "import bertcourse; print(bertcourse.__file__)")
    assert "site-packages" in where and str(ROOT) not in where
    health = json.loads(call("bertcourse", "doctor", "--json"))
    assert health["ok"] and not health["problems"] and health["chapters"], health
    assert "（中文）" in call("bertcourse", "lab", "--no-launch", lang="zh_CN.UTF-8")
    assert (tmp_path / "empty/bertcourse-work/helpers").is_dir()
    call("bertcourse", "lab", "--no-launch", "--lang", "en", code=2)
    assert json.loads(call("bertcourse", "quiz", "--stats", "--json"))["chapters"][-1]["cards"] > 100
    assert "cards in English" in call("bertcourse", "flashcards", "deck.apkg", "--lang", "en")


@pytest.mark.parametrize("name, lang", [("01_bert", "zh"), ("02_transformer", "en"), ("03_2_pretraining", "zh"),
                                       ("07_2_serving", "zh"), ("08_1_principles", "en")])
def test_chapter_runs(call, tmp_path, name, lang):
    call("bertcourse", "lab", "--no-launch", "--lang", lang, "--dir", "work")
    chapter = tmp_path / f"empty/work/{name}.ipynb"
    assert chapter.exists()
    assert int(call("python", "-c", EXECUTE, str(chapter))) >= 3  # figures


def test_the_view_is_in_the_wheel(call):
    code = "from bertcourse.plots import attention_view; from bertcourse.profiles import load; print(attention_view(load(), 'Her bag was light.').html())"
    shown = call("python", "-c", code)
    assert "bertcourseView.mount" in shown and '"tokens":["[CLS]","her"' in shown


def test_pretrain_on_own_text(call, tmp_path):
    (tmp_path / "empty/own.txt").write_text("The cat sleeps. The dog eats fish.\n\nA bird sings. It sings every morning.\n\n" * 40)
    small = ["--steps", "4", "--layers", "1", "--hidden-size", "16", "--heads", "2", "--max-length", "32"]
    result = json.loads(call("bertcourse", "pretrain", "--corpus", "own.txt", "--out", "mine", "--json", *small))
    assert result["task"] == "pretraining" and (tmp_path / "empty/mine/model.safetensors").is_file()
    load = "from transformers import AutoModelForPreTraining as A; print(A.from_pretrained('mine').config.num_hidden_layers)"
    assert call("python", "-c", load).strip() == "1"
