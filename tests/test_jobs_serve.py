"""`bertcourse.jobs.serve`: it returns when it is interrupted, in a script, beside an event loop, and in a Jupyter kernel."""

import asyncio
import contextlib
import inspect
import os
import re
import signal
import threading
import time
from pathlib import Path

import commands
import httpx
import pytest
import services

from bertcourse.app.options import help_texts, parameter_comments
from bertcourse.base.errors import UserError
from bertcourse.jobs import serve, serving
from bertcourse.serving.settings import Settings

ASKED = {"text": "good"}


@pytest.fixture(autouse=True, scope="module")
def surroundings(cached_exports):
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return services.export(tmp_path_factory.mktemp("served"), "classification")["classification"]


# --- the end ------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "script": "serve(folder, port=0, workers=1)",
    "workers": "serve(folder, port=0, workers=2)",
    "loop": "async def main():\n    serve(folder, port=0)\nasyncio.run(main())",
    "twice": "async def main():\n    serve(folder, port=0)\nasyncio.run(main())\nserve(folder, port=0, workers=1)",
}


def script(folder: Path, how: str) -> list[str]:
    "A program that serves, and says when it goes on."
    lines = ["import asyncio", "from bertcourse.jobs import serve", f"folder = {str(folder)!r}", SCRIPTS[how], "print('went on', flush=True)"]
    return ["-c", "\n".join(lines)]


@pytest.mark.parametrize("how", ["script", "loop", "workers"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_service_returns(model, tmp_path, how, number):
    with services.started(script(model, how), tmp_path / "log", 2 if how == "workers" else 1) as service:
        assert httpx.post(service.url + "predict", json=ASKED).json()["predictions"][0]["label"] in services.CLASSES
        assert service.stop(number) == 0
        text = service.log.read_text(encoding="utf-8")
        assert text.count("went on") == 1 and "Traceback" not in text, text
        assert "stopped" in [line["event"] for line in service.lines()] or how == "workers"


def test_a_process_may_serve_again(model, tmp_path):
    with services.started(script(model, "twice"), tmp_path / "log") as service:
        service.process.send_signal(signal.SIGINT)
        end = time.monotonic() + 60
        while len(found := re.findall(r"http://\S+", service.log.read_text(encoding="utf-8"))) < 2 or len(service.workers()) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert httpx.post(found[1] + "predict", json=ASKED).status_code == 200
        assert service.stop(signal.SIGINT) == 0


def test_in_a_kernel(model, tmp_path):
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(env={**os.environ, "LC_ALL": "C.UTF-8"}, cwd=tmp_path)
    printed: list[str] = []
    try:
        client.execute(f"from bertcourse.jobs import serve\nserve({str(model)!r}, port=0)\nprint('went on')")
        while not (found := re.search(r"http://\S+", "".join(printed))):
            printed += said(client.get_iopub_msg(timeout=60))
        assert "interrupt the kernel to end it" in "".join(printed)
        assert httpx.post(found[0] + "predict", json=ASKED).status_code == 200
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=30)["content"]["status"] == "ok"
        while "went on" not in "".join(printed):
            printed += said(client.get_iopub_msg(timeout=30))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def said(message: dict) -> list[str]:
    "What a message of a kernel prints."
    assert message["msg_type"] != "error", message["content"]
    return [message["content"]["text"]] if message["msg_type"] == "stream" else []


# --- what is refused ----------------------------------------------------------------------------------------------

def test_processes_need_a_thread_without_a_loop(tmp_path):
    async def in_a_loop() -> None:
        serve(tmp_path, workers=2)

    with pytest.raises(UserError, match="--workers needs the main thread, with no event loop"):
        asyncio.run(in_a_loop())
    found = []

    def in_a_thread() -> None:
        with contextlib.suppress(UserError):
            found.append(serving.owns_process())
            serve(tmp_path, workers=2)
            found.append("served")
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert found == [False] and serving.owns_process()


@pytest.mark.parametrize("option, says", [
    ({"port": 70_000}, "--port 70000 is no port"), ({"timeout": 0}, "--timeout 0 is no positive number"), ({"workers": 0}, "--workers must be"),
    ({"max_wait_ms": -1}, "--max-wait-ms -1 is no positive number"), ({"runtime": "torch"}, "--runtime must be one of ort, openvino"),
])  # fmt: skip
def test_the_words_are_the_command_s(tmp_path, option, says):
    with pytest.raises(UserError) as error:
        serve(tmp_path, **option)
    assert error.value.en.startswith(says) and commands.HAN.search(error.value.zh)


# --- defaults stand in one place ----------------------------------------------------------------------------------

def test_help_texts_have_the_defaults_of_the_settings():
    texts = help_texts("serve")
    comments = parameter_comments(serve)
    for name in (name for name in inspect.signature(serve).parameters if name not in ("folder", "workers")):
        default = getattr(Settings, name)
        value = re.escape(f"{default:g}" if isinstance(default, float) else str(default))
        assert re.search(rf"\(default: {value}\b", comments[name]), name
        assert re.search(rf"默认 {value}\b", texts["zh"][name]), name


def test_no_option_is_forgotten():
    assert [*inspect.signature(serve).parameters] == [*vars(serving.ServeOptions(folder="x"))] == [*vars(Settings("x"))]
