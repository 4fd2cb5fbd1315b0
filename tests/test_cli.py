"""The `bertcourse` command: one clear sentence for bad input, exit codes, nothing heavy before it is needed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest

from bertcourse import __version__
from bertcourse.app import cli, lab
from bertcourse.app.messages import UserError

HEAVY = ("torch", "transformers", "numpy", "matplotlib", "IPython", "jupyterlab", "datasets", "onnxruntime")


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


def call(capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `bertcourse ARGV`."""
    try:
        code = cli.main(list(argv))
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def test_version_and_help(capsys):
    assert call(capsys, "--version") == (0, f"bertcourse {__version__}\n", "")
    for argv in ([], ["--help"], *([name, "--help"] for name in cli.COMMANDS)):
        code, out, err = call(capsys, *argv)
        assert code == 0 and not err and len(out.splitlines()) < 24, argv
    assert all(name in call(capsys)[1] for name in cli.COMMANDS)


@pytest.mark.parametrize("argv, says", [
    (["labb"], "invalid choice: 'labb'"),
    (["--foo"], "--foo"),
    (["doctor", "--foo"], "--foo"),
    (["doctor", "stray"], "stray"),
    (["lab", "--lang", "fr"], "'fr'"),
    (["lab", "--port", "x"], "a number from 0 to 65535, not 'x'"),
    (["lab", "--port", "65536"], "a number from 0 to 65535"),
    (["lab", "--port", "-1"], "--port"),
    (["lab", "--dir"], "--dir"),
    (["lab", "--updat"], "did you mean --update?"),
    (["lab", "--no-lunch"], "did you mean --no-launch?"),
    (["lab", "--no-launch", "--dir", __file__], "is a file: choose a folder with --dir"),
])
def test_bad_input_is_one_sentence(capsys, argv, says):
    code, out, err = call(capsys, *argv)
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1 and err.startswith("bertcourse")


def test_error_in_the_readers_language(capsys, monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, _, err = call(capsys, "lab", "--no-launch", "--dir", __file__)
    assert code == 2 and "是一个文件" in err


def test_lab_writes_and_says_what_it_did(capsys, tmp_path):
    code, out, err = call(capsys, "lab", "--no-launch", "--lang", "zh", "--dir", str(tmp_path / "w"))
    assert code == 0 and not err and 2 <= len(out.splitlines()) <= 4 and "工作区（中文）" in out
    code, _, err = call(capsys, "lab", "--no-launch", "--lang", "en", "--dir", str(tmp_path / "w"))
    assert code == 2 and "is a workspace in Chinese: choose another folder" in err and len(err.splitlines()) == 1


def test_default_folder_and_language(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "zh_TW.UTF-8")
    assert "（中文）" in call(capsys, "lab", "--no-launch")[1]
    assert (tmp_path / "bertcourse-work" / ".bertcourse.json").is_file()


@pytest.mark.parametrize("name", ["jupyterlab", "ipykernel"])
def test_without_jupyterlab_nothing_is_written(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setattr(lab, "find_spec", lambda module: None if module == name else types)
    monkeypatch.setattr(lab, "serve", lambda command, env: pytest.fail("it was started"))
    code, _, err = call(capsys, "lab", "--dir", str(tmp_path / "w"))
    assert code == 2 and 'pip install "bertcourse[lab]"' in err and name in err and not (tmp_path / "w").exists()


def planted(monkeypatch, run) -> None:
    """A command that does what `run` does."""
    module = types.SimpleNamespace(configure=lambda parser: None, run=run)
    monkeypatch.setitem(cli.COMMANDS, "planted", "for this test")
    monkeypatch.setattr(cli, "import_module", lambda name: module)


def test_exit_codes(capsys, monkeypatch):
    def raising(error):
        def run(args, extra):
            raise error
        return run
    planted(monkeypatch, lambda args, extra: 1)
    assert call(capsys, "planted") == (1, "", "")
    planted(monkeypatch, raising(KeyboardInterrupt()))
    assert call(capsys, "planted") == (130, "", "")
    planted(monkeypatch, raising(UserError("what is wrong", "错在哪里")))
    assert call(capsys, "planted") == (2, "", "bertcourse: what is wrong\n")


def test_reader_that_stops_reading():
    pipe = f"{sys.executable} -m bertcourse.app.cli --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert done.stdout.strip() == "0" and "Traceback" not in done.stderr


@pytest.mark.parametrize("code", ["import bertcourse", "import bertcourse.app.cli as c; c.make_parser(None)",
                                  *(f"import bertcourse.app.cli as c; c.make_parser({name!r})" for name in cli.COMMANDS)])
def test_nothing_heavy_is_imported(code):
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# --- how JupyterLab is started ------------------------------------------------------------------------------------

@pytest.fixture
def started(monkeypatch):
    """The command and environment that `lab` would start, instead of starting it."""
    found = {}

    def serve(command, env):
        folder = Path(env["JUPYTER_PATH"].split(os.pathsep)[0])
        assert env["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0] == str(folder)
        settings = json.loads((folder / "labconfig/default_setting_overrides.json").read_text(encoding="utf-8"))
        found.update(command=command, env=env, kernel=(folder / "kernels/python3/kernel.json").read_text(),
                     settings=settings)
        return 0
    monkeypatch.setattr(lab, "serve", serve)
    return found


def test_jupyterlab_is_quiet_and_uses_this_python(capsys, tmp_path, monkeypatch, started):
    monkeypatch.setenv("BERTCOURSE_LANG", "en")
    root = tmp_path / "w"
    code, _, err = call(capsys, "lab", "--lang", "zh", "--dir", str(root), "--no-browser", "--port", "9999",
                        "--ServerApp.token=x", "--", "--debug")
    command = started["command"]
    assert code == 0 and not err and command[:3] == [sys.executable, "-m", "jupyterlab"]
    for part in (*lab.QUIET, f"--ServerApp.root_dir={root}", "--no-browser", "--port=9999", "--ServerApp.token=x"):
        assert part in command
    assert command[-1] == "--debug" and sys.executable in started["kernel"]
    assert started["env"]["BERTCOURSE_LANG"] == "zh"
    assert started["settings"]["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert not os.path.exists(started["env"]["JUPYTER_PATH"].split(os.pathsep)[0])  # cleared away afterwards


def stopped_by(signum: int, tmp_path, group: bool) -> tuple[int, str]:
    """Exit code and output of a process in `lab.serve` that gets a signal; its child writes a file when it ends."""
    child = textwrap.dedent("""
        import signal, sys, time
        def end(*_): open(sys.argv[1], "w").write("ended"); sys.exit(0)
        signal.signal(signal.SIGINT, end); signal.signal(signal.SIGTERM, end)
        print("ready", flush=True); time.sleep(60)
    """)
    code = f"""import os, sys
from bertcourse.app import lab
sys.exit(lab.serve([sys.executable, "-c", {child!r}, {str(tmp_path / "ended")!r}], dict(os.environ)))"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    (os.killpg if group else os.kill)(process.pid, signum)
    out, _ = process.communicate(timeout=20)
    return process.returncode, out


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_and_termination_reach_jupyterlab(tmp_path):
    assert stopped_by(signal.SIGINT, tmp_path, group=True) == (130, "")
    assert (tmp_path / "ended").read_text() == "ended"
    (tmp_path / "ended").unlink()
    assert stopped_by(signal.SIGTERM, tmp_path, group=False) == (0, "")
    assert (tmp_path / "ended").read_text() == "ended"
