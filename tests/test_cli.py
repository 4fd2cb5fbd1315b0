"""The `bertcourse` command: one clear sentence for bad input, exit codes, nothing heavy before it is needed."""

import errno
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest

from bertcourse import __version__
from bertcourse.app import cli, lab
from bertcourse.base.messages import UserError

ROOT = Path(__file__).parents[1]
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
        assert code == 0 and not err and max(map(len, out.splitlines())) <= 100, argv
    assert all(name in call(capsys)[1] for name in cli.COMMANDS)


@pytest.mark.parametrize("argv, says", [
    (["labb"], "invalid choice: 'labb'"), (["finetun"], "did you mean finetune?"), (["quiz", "--coun", "3"], "did you mean --count?"),
    (["completion", "bas"], "did you mean bash?"), (["finetune"], "usage: bertcourse finetune --task TASK --train FILE --model MODEL --out DIR"),
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


@pytest.mark.parametrize("argv, says", [
    (["labb"], "命令 不能是 'labb'；是不是 lab？"), (["doctor", "--foo"], "不认识的参数：--foo"), (["finetune"], "缺少 --out；用法：bertcourse finetune"),
    (["finetune", "--out", "m", "--epochs", "0"], "--epochs：应为不小于 1 的整数，不能是 '0'"), (["quiz", "--count"], "--count 后面缺少值"),
    (["finetune", "--out", "m", "--lang", "fr"], "--lang 不能是 'fr'"),
])
def test_bad_input_in_chinese(capsys, monkeypatch, argv, says):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, out, err = call(capsys, *argv)
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])])
def test_completion_is_a_script_of_the_shell(capsys, tmp_path, shell, check):
    code, out, err = call(capsys, "completion", shell)
    assert code == 0 and not err and all(word in out for word in ("finetune", "max-length", "distilbert"))
    script = tmp_path / "script"
    script.write_text(out, encoding="utf-8")
    if shutil.which(check[0]):
        assert subprocess.run([*check, script], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"}).stderr == ""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_completion_in_bash(capsys, tmp_path):
    """What Tab offers after a beginning of a command and of an option."""
    script = tmp_path / "script"
    script.write_text(call(capsys, "completion", "bash")[1], encoding="utf-8")
    ask = f'''source {script}; COMP_WORDS=(bertcourse "$@"); COMP_CWORD=$#; _shtab_bertcourse; echo "${{COMPREPLY[@]}}"'''
    for words, expected in [(["fine"], "finetune"), (["finetune", "--max-l"], "--max-length"), (["finetune", "--precision", "b"], "bf16")]:
        done = subprocess.run(["bash", "-c", ask, "bash", *words], capture_output=True, text=True)
        assert done.stdout.split() == [expected], (words, done)


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "bertcourse", "--version"], capture_output=True, text=True)
    assert done.stdout == f"bertcourse {__version__}\n"


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


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_hint_names_the_folder_that_was_named(capsys, tmp_path, monkeypatch, lang):
    monkeypatch.chdir(tmp_path)
    for given in ([], ["--dir", "my work"]):
        folder = tmp_path / (given[1] if given else lab.WORKSPACE)
        call(capsys, "lab", "--no-launch", "--lang", lang, *given)
        (folder / "01_bert.ipynb").unlink()
        hint = call(capsys, "lab", "--no-launch", *given)[1].splitlines()[-1]
        words = shlex.split(hint[hint.index("bertcourse lab"):])
        assert words == ["bertcourse", "lab", "--update", *given]
        call(capsys, *words[1:], "--no-launch")
        assert (folder / "01_bert.ipynb").is_file()  # it did what it said


@pytest.mark.parametrize("lang, says", [("en_US.UTF-8", "is in use: choose another with --port"), ("zh_CN.UTF-8", "已被占用：请用 --port 换一个")])
@pytest.mark.parametrize("host, family", [("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_port_in_use_is_refused(capsys, tmp_path, monkeypatch, started, lang, says, host, family):
    monkeypatch.setenv("LC_ALL", lang)
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"nothing listens at {host} here")
    names = {address[0] for *_, address in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}
    if host == "::1" and host not in names:
        pytest.skip("localhost is not ::1 here")
    with listener:
        port = listener.getsockname()[1]
        code, out, err = call(capsys, "lab", "--dir", str(tmp_path / "w"), "--no-browser", "--port", str(port))
        assert code == 2 and not out and says in err and str(port) in err and len(err.splitlines()) == 1
        assert not started and not (tmp_path / "w").exists()
    code, _, _ = call(capsys, "lab", "--dir", str(tmp_path / "w"), "--no-browser", "--port", str(port))
    assert code == 0 and f"--port={port}" in started["command"] and "--ServerApp.port_retries=0" in started["command"]


@pytest.mark.parametrize("word", ["--ServerApp.port_retries=3", "--port-retries=3"])
def test_what_is_said_about_ports_is_not_said_twice(capsys, tmp_path, started, word):
    """JupyterLab ends at an argument that it gets twice."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    call(capsys, "lab", "--dir", str(tmp_path / "w"), "--no-browser", "--port", str(port), word)
    assert [part for part in started["command"] if "retries" in part] == [word]


def test_port_that_may_not_be_used(capsys, tmp_path, monkeypatch, started):
    class Refusing(socket.socket):
        def bind(self, address):
            raise PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(lab.socket, "socket", Refusing)
    code, _, err = call(capsys, "lab", "--dir", str(tmp_path / "w"), "--port", "80")
    assert code == 2 and "port 80 cannot be used (Permission denied): choose another with --port" in err


@pytest.mark.parametrize("given", [[], ["--port", "0"]])
def test_without_a_port_the_next_free_one_is_taken(capsys, tmp_path, monkeypatch, started, given):
    monkeypatch.setattr(lab.socket, "getaddrinfo", lambda *args, **more: pytest.fail("no port was asked for"))
    assert call(capsys, "lab", "--dir", str(tmp_path / "w"), *given)[0] == 0
    assert ("--ServerApp.port_retries=0" in started["command"]) == bool(given)


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
    pipe = f"{shlex.quote(sys.executable)} -m bertcourse.app.cli --help | true; echo ${{PIPESTATUS[0]}}"
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
        writable = {name for name in VARIABLES if name in env and os.path.isdir(env[name])}
        found.update(command=command, env=env, writable=writable, kernel=(folder / "kernels/python3/kernel.json").read_text(),
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
    assert command[-1] == "--debug" and json.dumps(sys.executable) in started["kernel"]
    assert started["env"]["BERTCOURSE_LANG"] == "zh"
    assert started["settings"]["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert not os.path.exists(started["env"]["JUPYTER_PATH"].split(os.pathsep)[0])  # cleared away afterwards


VARIABLES = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Sets the home folder, and nothing else that says where Jupyter writes."""
    for name in (*VARIABLES, "XDG_CONFIG_HOME", "XDG_DATA_HOME", "JUPYTER_PLATFORM_DIRS"):
        monkeypatch.delenv(name, raising=False)

    def set_home(path):
        monkeypatch.setenv("HOME", str(path))
        monkeypatch.setenv("USERPROFILE", str(path))
    return set_home


@pytest.mark.parametrize("lang, says", [("en", "Your home folder cannot be written"), ("zh", "主目录不可写")])
def test_home_that_cannot_be_written(capsys, tmp_path, started, home, lang, says):
    (tmp_path / "file").touch()
    home(tmp_path / "file" / "home")  # not even root can make that
    code, out, err = call(capsys, "lab", "--lang", lang, "--dir", str(tmp_path / "w"), "--no-browser")
    folder = started["env"]["JUPYTER_PATH"].split(os.pathsep)[0]
    assert code == 0 and not err and says in out.splitlines()[-1] and len(out.splitlines()) <= 4
    assert all(started["env"][name].startswith(folder) for name in VARIABLES) and started["writable"] == set(VARIABLES)
    assert not os.path.exists(folder)


def test_home_that_can_be_written_is_used(capsys, tmp_path, started, home):
    home(tmp_path / "home")
    code, out, _ = call(capsys, "lab", "--lang", "en", "--dir", str(tmp_path / "w"), "--no-browser")
    assert code == 0 and "home folder" not in out and not set(VARIABLES) & set(started["env"])


def test_only_what_cannot_be_written_is_replaced(capsys, tmp_path, started, home):
    home(tmp_path / "home")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".ipython").touch()
    call(capsys, "lab", "--lang", "en", "--dir", str(tmp_path / "w"), "--no-browser")
    assert set(VARIABLES) & set(started["env"]) == {"IPYTHONDIR"}


def test_user_without_a_home(capsys, tmp_path, monkeypatch, started, home):
    def nobody():
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(lab, "own_folders", nobody)
    code, out, _ = call(capsys, "lab", "--lang", "en", "--dir", str(tmp_path / "w"), "--no-browser")
    assert code == 0 and "cannot be written" in out and started["env"]["HOME"].startswith(started["env"]["JUPYTER_PATH"].split(os.pathsep)[0])


def test_no_place_for_a_temporary_folder(capsys, tmp_path, monkeypatch, started):
    def nowhere(*args, **more):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")
    monkeypatch.setattr(lab.tempfile, "TemporaryDirectory", nowhere)
    code, _, err = call(capsys, "lab", "--lang", "en", "--dir", str(tmp_path / "w"), "--no-browser")
    assert code == 2 and "set TMPDIR to a folder that can be written" in err and len(err.splitlines()) == 1 and not started


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


# --- make lab -----------------------------------------------------------------------------------------------------

LAB = """#!/bin/sh
trap 'echo ended; exit {code}' INT
echo lab is up
i=0; while [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done
"""


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("code, error", [(130, False), (0, False), (2, True)])
def test_ending_jupyterlab_is_no_error_of_make(tmp_path, code, error):
    """Ctrl-C goes to all processes of the terminal: make, its shell, `bertcourse lab`."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, text in (("python", "#!/bin/sh\n"), ("bertcourse", LAB.format(code=code))):
        (tmp_path / ".venv" / "bin" / name).write_text(text)
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    process = subprocess.Popen(["make", "lab", "ARGS=--dir 'a b'"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    out = ""
    while "lab is up\n" not in out:
        line = process.stdout.readline()
        assert line, out
        out += line
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert rest.startswith("ended\n") and ("Error" in rest) == error, rest
