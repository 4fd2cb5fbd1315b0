"""`tools/install.py`: which PyTorch is installed, what is shown meanwhile, and where pip's words are."""

import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The script as a module, on a Linux machine without a card, in a folder with pins of its own."""
    module = scripts.tool("install")
    monkeypatch.setattr(module, "DEVICES", str(tmp_path / "none*"))
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("# pins\ntorch==9.9.1\ntorchvision==0.1\n")
    return module


class Index(ThreadingHTTPServer):
    """A package index: answers with a status, after some seconds; notes what it was asked."""

    daemon_threads = True

    def __init__(self, status: int = 200, wait: float = 0.0) -> None:
        self.status, self.wait, self.asked = status, wait, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.asked.append(self.path)
                time.sleep(self.server.wait)
                self.send_response(self.server.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/whl/cpu"


@pytest.fixture
def index(tool, monkeypatch) -> Iterator[Index]:
    """An index that answers, in the place of PyTorch's."""
    server = Index()
    monkeypatch.setattr(tool, "CPU_INDEX", server.url)
    yield server
    server.shutdown()
    server.server_close()


def put(folder: Path, name: str, text: str) -> None:
    """A program on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


# --- which build --------------------------------------------------------------------------------------------------

def test_pytorchs_own_index(tool):
    assert tool.CPU_INDEX == "https://download.pytorch.org/whl/cpu" and tool.ANSWER_SECONDS == 3


def test_without_a_card_the_cpu_build(tool, index):
    chosen, sentence = tool.choose_index("auto")
    assert chosen == index.url and index.asked == ["/whl/cpu/torch/"]
    assert "no NVIDIA card" in sentence and index.url in sentence and "TORCH_INDEX=" in sentence


@pytest.mark.parametrize("says, card", [
    ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'", True), ("echo 'No devices found.'; exit 6", False), ("exit 9", False), ("", False),
    ("echo 'GPU 0: not there'; exit 1", False),
])
@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_a_card_is_what_nvidia_smi_lists(tool, index, tmp_path, says, card):
    put(tmp_path / "bin", "nvidia-smi", says)
    chosen, sentence = tool.choose_index("auto")
    assert tool.has_nvidia_card() == card and chosen == ("" if card else index.url)
    assert ("there is an NVIDIA card" in sentence) == card and (not index.asked) == card


def test_a_card_is_also_a_device_of_the_driver(tool, index, tmp_path, monkeypatch):
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(tool, "DEVICES", str(tmp_path / "nvidia[0-9]*"))
    assert not tool.has_nvidia_card()
    (tmp_path / "nvidia0").touch()
    assert tool.has_nvidia_card() and tool.choose_index("auto")[0] == ""


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_a_driver_that_hangs_is_one(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "DRIVER_SECONDS", 0.1)
    put(tmp_path / "bin", "nvidia-smi", f"exec {shutil.which('sleep', path='/bin:/usr/bin')} 5")
    assert tool.has_nvidia_card()


@pytest.mark.parametrize("status, wait", [(404, 0), (403, 0), (500, 0), (200, 5.0)])
def test_an_index_that_does_not_answer_is_left_out(tool, index, monkeypatch, status, wait):
    index.status, index.wait = status, wait
    monkeypatch.setattr(tool.answers, "__defaults__", (0.3,))
    start = time.monotonic()
    chosen, sentence = tool.choose_index("auto")
    assert chosen == "" and "did not answer" in sentence and "CUDA" in sentence and "TORCH_INDEX=ADDRESS" in sentence
    assert time.monotonic() - start < 4.5


def test_nobody_there_and_names_that_are_looked_up_for_ever(tool, monkeypatch):
    assert not tool.answers("http://127.0.0.1:9/whl/cpu") and not tool.answers("no address")

    def slow(*args, **more):
        time.sleep(5)
        raise OSError("no such name")
    monkeypatch.setattr(tool.urllib.request, "urlopen", slow)
    start = time.monotonic()
    assert not tool.answers("http://any/", 0.2) and time.monotonic() - start < 4.5


@pytest.mark.parametrize("wanted", ["", "https://example.org/whl"])
def test_what_the_user_says_is_not_questioned(tool, index, wanted):
    chosen, sentence = tool.choose_index(wanted)
    assert chosen == wanted and not index.asked and "TORCH_INDEX" in sentence and wanted in sentence


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_changes(tool, index, monkeypatch, platform):
    monkeypatch.setattr(tool.sys, "platform", platform)
    assert tool.choose_index("auto") == ("", "") and not index.asked


# --- what is shown ------------------------------------------------------------------------------------------------

class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shell(*lines: str) -> list[str]:
    return [sys.executable, "-uc", "import time, sys\n" + "\n".join(lines)]


def test_last_line_seconds_and_log(tool, tmp_path):
    out, log = Terminal(), tmp_path / "log"
    lines = ["print('Collecting a')", "time.sleep(0.7)", "print('Progress 5000000 of 20000000')", "time.sleep(0.7)",
             "print('Downloading b', file=sys.stderr)", "time.sleep(0.7)", "print()"]
    assert tool.run(shell(*lines), log, out) == ""
    shown = out.getvalue()
    assert re.search(r"\r  \d s  Collecting a *\r", shown) and re.search(r"Collecting a 5 of 20 MB *\r", shown) and re.search("  [1-9] s  ", shown)
    assert re.search(r"\r  \d s  Downloading b *\r", shown) and re.search(r"\r +\r  done after \d s\n\Z", shown)
    text = log.read_text(encoding="utf-8")
    assert text.startswith("$ ") and text.endswith("Collecting a\nDownloading b\n\n") and "\nProgress" not in text


def test_without_a_terminal_a_line_now_and_then(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "REPORT_SECONDS", 1.0)
    out = io.StringIO()
    assert tool.run(shell("print('Collecting a' + 'a' * 200)", "time.sleep(2.3)"), tmp_path / "log", out) == ""
    *lines, last = out.getvalue().splitlines()
    assert 2 <= len(lines) <= 4 and re.fullmatch(r"  \d s  Collecting a+", lines[-1]) and len(lines[-1]) == tool.LINE
    assert re.fullmatch(r"  done after \d s", last)


@pytest.mark.parametrize("lines, wrong", [
    (["print('ERROR: no such version')", "print('hint: try again')", "sys.exit(1)"], "ERROR: no such version"),
    (["print('Killed')", "sys.exit(3)"], "Killed"), (["sys.exit(3)"], "exit code 3"), (["sys.stdout.buffer.write(b'\\xff\\n')", "sys.exit(1)"], "\ufffd"),
])
def test_what_went_wrong(tool, tmp_path, lines, wrong):
    assert tool.run(shell(*lines), tmp_path / "log", io.StringIO()) == wrong


# --- the whole, with a stub in pip's place ------------------------------------------------------------------------

@pytest.fixture
def pip(tmp_path, monkeypatch):
    """`python -m pip` prints its arguments, and fails at what the file `fails` names."""
    (tmp_path / "stub" / "pip").mkdir(parents=True)
    (tmp_path / "stub" / "pip" / "__init__.py").touch()
    (tmp_path / "stub" / "pip" / "__main__.py").write_text(textwrap.dedent("""
        import pathlib, sys
        print("called", *sys.argv[1:])
        if sys.argv[-1] in pathlib.Path("fails").read_text(): sys.exit("ERROR: no wheel of " + sys.argv[-1])
    """))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    (tmp_path / "fails").write_text("")

    def called() -> list[list[str]]:
        lines = (tmp_path / "build" / "a.log").read_text(encoding="utf-8").splitlines()
        return [line.split()[1:] for line in lines if line.startswith("called ")]
    return called


def test_pytorch_first_from_the_cpu_index(tool, index, pip, capsys):
    assert tool.main(["--extras", "lab,dev", "--log", "build/a.log"]) == 0
    first, second = pip()
    assert first[:2] == ["install", "--no-input"] and first[-3:] == ["--extra-index-url", index.url, "torch==9.9.1"]
    assert second[-3:] == ["--use-pep517", "-e", ".[lab,dev]"] and "--extra-index-url" not in second
    assert all(call[call.index("-c") + 1] == "constraints.txt" for call in (first, second))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "what pip says goes to build/a.log" and index.url in out[1] and out[2] == "installing torch==9.9.1"


def test_empty_setting_asks_nobody(tool, index, pip, capsys):
    assert tool.main(["--torch-index", "", "--log", "build/a.log"]) == 0
    assert "--extra-index-url" not in pip()[0] and not index.asked and "pip's usual build" in capsys.readouterr().out


def test_pytorch_that_is_there_is_left_alone(tool, index, pip, monkeypatch, capsys):
    monkeypatch.setattr(tool.metadata, "version", lambda name: {"torch": "9.9.1+cpu", "pip": "23.0"}[name])
    assert tool.main(["--log", "build/a.log"]) == 0
    assert [call[-1] for call in pip()] == [".[lab,dev]"] and not index.asked and "PyTorch" not in capsys.readouterr().out
    monkeypatch.setattr(tool.metadata, "version", lambda name: {"torch": "9.9.0", "pip": "23.0"}[name])
    assert not tool.is_installed("torch==9.9.1")


def test_a_failure_is_named_with_the_log(tool, index, pip, tmp_path, capsys):
    (tmp_path / "fails").write_text("torch==9.9.1")
    assert tool.main(["--log", "build/a.log"]) == 1
    assert len(pip()) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == ["pip could not install torch==9.9.1: ERROR: no wheel of torch==9.9.1", "all that it said is in build/a.log"]


@pytest.mark.parametrize("version, counts", [("23.2.1", False), ("24.0", False), ("24.1", True), ("26.1.2", True)])
def test_newer_pips_count_bytes(tool, monkeypatch, version, counts):
    monkeypatch.setattr(tool.metadata, "version", lambda name: version)
    assert ("raw" in tool.pip_command(["x"])) == counts


# --- the Makefile -------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("words, environment, passed", [
    ([], {}, "auto"), (["TORCH_INDEX="], {}, ""), ([], {"TORCH_INDEX": ""}, ""),
    (["TORCH_INDEX=https://a.org/whl"], {}, "https://a.org/whl"), ([], {"TORCH_INDEX": "https://a.org/whl"}, "https://a.org/whl"),
])
def test_make_hands_the_setting_on(words, environment, passed):
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TORCH_INDEX"))} | environment
    done = subprocess.run(["make", "-n", "venv", *words], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    assert f"tools/install.py --extras 'lab,grade,dev' --torch-index '{passed}' --log build/install.log" in done.stdout


# --- what is written about it -------------------------------------------------------------------------------------

WRITTEN = {name: (ROOT / name).read_text(encoding="utf-8").replace("\\\"", '"') for name in ("README.md", "README.zh.md", "nbs/index.ipynb")}
REPOSITORY = "https://github.com/bertcourse/bertcourse.git"


@pytest.mark.parametrize("name", WRITTEN)
def test_every_command_says_where_bertcourse_comes_from(name):
    """It is on no package index: `pip install bertcourse` would fail, or take what somebody else puts there."""
    commands = re.findall(r"pip install [^`\n]*bertcourse[^`\n]*", WRITTEN[name])
    assert commands and all(f'"bertcourse[lab] @ git+{REPOSITORY}"' in command for command in commands), commands
    assert f"git clone {REPOSITORY}" in WRITTEN[name]


def test_the_repository_is_the_projects():
    from bertcourse.app import doctor

    assert f'Repository = "{REPOSITORY.removesuffix(".git")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert doctor.REPOSITORY == REPOSITORY and REPOSITORY in doctor.REINSTALL


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_choice_of_pytorch_is_written_down(tool, name):
    for part in (tool.CPU_INDEX, "make lab TORCH_INDEX=<", "make lab TORCH_INDEX= ", "build/install.log", "3.12", "3.13"):
        assert part in WRITTEN[name], part
