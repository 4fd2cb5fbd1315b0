"""Processes of page 7.2's services: none is left running, and answers are read whatever their headers."""

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from bertcourse import services

SLEEPS = "import time; print('started', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


@pytest.fixture
def started(monkeypatch) -> Iterator[list[subprocess.Popen]]:
    "The processes that `services` starts; what is left of them in the end is killed."
    found: list[subprocess.Popen] = []
    genuine = subprocess.Popen

    def start(*args, **kw) -> subprocess.Popen:
        found.append(genuine(*args, **kw))
        return found[-1]

    monkeypatch.setattr(services.subprocess, "Popen", start)
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_a_service_that_does_not_get_ready_is_ended(started, tmp_path):
    with pytest.raises(TimeoutError, match="not ready within 0.3 seconds"):
        services._start([sys.executable, "-c", SLEEPS], tmp_path, services.free_port(), "/ready", seconds=0.3)
    assert len(started) == 1 and started[0].poll() is not None


def test_a_service_that_ends_by_itself_is_named(started, tmp_path):
    with pytest.raises(RuntimeError, match="the server has ended"):
        services._start([sys.executable, "-c", "1 / 0"], tmp_path, services.free_port(), "/ready")
    assert started[0].returncode == 1


def test_ctrl_c_while_it_starts_ends_it(started, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(services, "wait_until_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        services._start([sys.executable, "-c", SLEEPS], tmp_path, services.free_port(), "/ready")
    assert started[0].poll() is not None


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to ignore")
@pytest.mark.parametrize("code, expected", [(SLEEPS, -signal.SIGTERM), (DEAF, -signal.SIGKILL)], ids=["obeys", "ignores SIGTERM"])
def test_stop_comes_to_an_end(started, tmp_path, code, expected):
    log = tmp_path / "log"
    with log.open("w") as file:
        process = services.subprocess.Popen([sys.executable, "-c", code], stdout=file)
    service = services.Service(process, "", log)
    end = time.monotonic() + 30
    while "started" not in service.log_lines() and time.monotonic() < end:
        time.sleep(0.05)
    assert service.stop(seconds=1 if code == DEAF else 30) == expected


def test_a_model_s_folder_may_be_named_from_here(tmp_path, monkeypatch):
    "The service starts in another folder, where a relative name would mean something else."
    asked = []
    monkeypatch.setattr(services, "_start", lambda words, folder, *more: asked.append((words[words.index("serve") + 1], folder)))
    (tmp_path / "models" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    services.start_service("models/small")
    services.start_service(tmp_path / "models" / "small")
    assert asked == [(tmp_path / "models" / "small", tmp_path / "models")] * 2


def test_workers_that_do_not_start_are_no_answer(monkeypatch, tmp_path):
    stopped = []
    service = SimpleNamespace(log_lines=lambda: ["model loaded by process 1", "started"], stop=lambda: stopped.append(True))
    monkeypatch.setattr(services, "start_gunicorn", lambda *given: service)
    monkeypatch.setattr(services, "time", SimpleNamespace(monotonic=itertools.count(0, 20).__next__, sleep=lambda seconds: None))
    with pytest.raises(TimeoutError, match="^only 1 of 2 workers started$"):
        services.count_model_loads(tmp_path, 2)
    assert stopped and services.count_model_loads(tmp_path, 1) == 1


class Bare(BaseHTTPRequestHandler):
    "Answers without saying what kind of text it is."

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "alive"}')

    def log_message(self, *args):
        pass


def test_an_answer_without_a_content_type_is_text():
    with HTTPServer(("127.0.0.1", 0), Bare) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            status, headers, answer = services.send_request(f"http://127.0.0.1:{server.server_address[1]}/")
        finally:
            server.shutdown()
    assert (status, headers.get("Content-Type"), answer) == (200, None, '{"status": "alive"}')


def test_an_answer_of_any_status_is_drawn():
    figure = services.plot_latencies({"a": [services.Response(200, 0.0, 1.0, None), services.Response(418, 0.1, 2.0, None)]})
    assert ">200<" in figure.picture and ">418<" in figure.picture
