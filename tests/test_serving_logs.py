"""Logs that cannot be written: nobody waits for them, no request is lost, what is dropped is counted; and those that can be are complete."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import commands
import httpx
import pytest
import services

from bertcourse.serving import logs

COUNT = 400  # requests: their lines are more than a pipe of 64 KiB holds


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    with commands.surroundings():
        yield services.export(tmp_path_factory.mktemp("logs"), "pairs")["pairs"]


@contextlib.contextmanager
def serving(model: Path, workers: int, stderr):
    "A service with this stderr, once all its workers are ready: process and address."
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "bertcourse.app.cli", "serve", str(model), "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(line, stderr=stderr, env={**os.environ, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}, start_new_session=True)
    url, end = f"http://127.0.0.1:{port}/", time.monotonic() + 60
    try:
        while True:
            assert process.poll() is None and time.monotonic() < end
            with contextlib.suppress(httpx.TransportError):
                if metric(url, "bertcourse_ready_workers") == workers:
                    break
            time.sleep(0.1)
        yield process, url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def metric(url: str, name: str) -> float:
    "A sum over all labels."
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", httpx.get(url + "metrics", timeout=5).text, re.MULTILINE)
    return sum(map(float, found))


def ask_all(url: str, count: int = COUNT) -> None:
    "Each must be answered, soon."
    with httpx.Client(base_url=url, timeout=5) as client:
        for number in range(count):
            assert client.get("/health", headers={"x-request-id": f"n{number}"}).status_code == 200
        assert client.post("/predict", json={"text": "good", "text_pair": "bad"}).status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", ["disk full", "reader gone"])
def test_lines_that_cannot_be_written_are_counted(model, case, workers):
    if case == "disk full":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    with serving(model, workers, stderr) as (process, url):
        os.close(stderr)
        ask_all(url)
        assert metric(url, "bertcourse_requests_total") > COUNT
        deadline = time.monotonic() + 5
        while metric(url, "bertcourse_log_lines_dropped_total") < COUNT:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pipe_that_nobody_reads_holds_nobody_up(model, workers):
    reader, stderr = os.pipe()
    fcntl.fcntl(stderr, fcntl.F_SETPIPE_SZ, 4096)
    with serving(model, workers, stderr) as (process, url):
        os.close(stderr)
        ask_all(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0  # the lines that wait are given up
    os.close(reader)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_late_reader_gets_everything_in_its_order(model, workers):
    reader, stderr = os.pipe()
    with serving(model, workers, stderr) as (process, url):
        os.close(stderr)
        ask_all(url)
        said = bytearray()

        def read():
            while part := os.read(reader, 65_536):
                said.extend(part)
        late = threading.Thread(target=read)
        late.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        late.join(10)
        os.close(reader)
    greeting, *lines = said.decode().splitlines()
    assert "is served at" in greeting
    lines = [json.loads(line) for line in lines]
    numbers = [int(line["id"][1:]) for line in lines if line.get("id", "").startswith("n")]
    assert numbers == sorted(numbers) == [*range(COUNT)]  # one connection, so one worker
    assert [line["event"] for line in lines].count("stopped") == workers
    assert not [line for line in lines if line["event"] == "log_lines_dropped"]


# --- the writer ---------------------------------------------------------------------------------------------------

@pytest.fixture
def pipe():
    reader, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, end
    for descriptor in (reader, end):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read_lines(reader: int, until: str) -> list[str]:
    "All lines up to the one that holds `until`."
    text = ""
    while until not in text or not text.endswith("\n"):
        text += os.read(reader, 65_536).decode()
    return text.splitlines()


def test_what_does_not_fit_is_dropped_counted_and_said(pipe):
    reader, end = pipe
    writer, dropped = logs.Writer(end, room=100), []
    writer.on_drop = dropped.append
    begin = time.monotonic()
    for number in range(300):
        writer.put(f"line {number} " + "x" * 200)
    assert time.monotonic() - begin < 10 and not writer.flush(0.1)  # a put that waits for the pipe never ends
    assert 150 < sum(dropped) <= 200  # the pipe may have taken some before they were all there
    lost = sum(dropped)
    threading.Thread(target=lambda: writer.flush(60) and writer.put("last")).start()  # once all others have been read
    lines = read_lines(reader, "last")
    reports = [json.loads(line)["lines"] for line in lines if "log_lines_dropped" in line]
    # more than one where lines were taken while the 300 were still coming
    assert sum(reports) == lost and len([line for line in lines if line.startswith("line ")]) == 300 - lost
    assert writer.flush(5)


def test_a_line_that_was_taken_in_part_gets_an_end(monkeypatch):
    taken, room = bytearray(), [10]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        part = data[:room[0]]
        room[0] -= len(part)
        taken.extend(part)
        return len(part)
    monkeypatch.setattr(logs.os, "write", write)
    writer = logs.Writer(99)
    writer.put("first line, too long")
    assert writer.flush(5)
    room[0] = 1_000  # somebody has made room
    writer.put("second")
    assert writer.flush(5)
    first, report, second = taken.decode().splitlines()
    assert (first, second) == ("first line", "second") and json.loads(report)["lines"] == 1


def test_a_descriptor_that_does_not_block_gets_everything(pipe):
    reader, end = pipe
    os.set_blocking(end, False)
    writer = logs.Writer(end)
    for number in range(200):
        writer.put(f"{number} " + "x" * 100)
    assert [int(line.split()[0]) for line in read_lines(reader, "199 ")] == [*range(200)]
    assert writer.flush(5)


def test_without_a_stderr_everything_is_dropped():
    dropped = []
    assert logs.target_of(None) is None
    writer = logs.Writer(None)
    writer.on_drop = dropped.append
    writer.put("line")
    assert dropped == [1] and writer.flush(0.1)


def test_a_process_that_is_forked_writes_no_line_twice(pipe):
    code = ("import os, sys; from bertcourse.serving import logs\n"
            "with logs.nobody_waits():\n"
            "    logs.log('before')\n"
            "    child = os.fork()\n"
            "    logs.log('child' if not child else 'parent')\n"
            "    child and os.waitpid(child, 0)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert sorted(events) == ["before", "child", "parent"], done.stderr


def test_tracebacks_and_prints_wait_for_nobody():
    code = ("import sys; from bertcourse.serving import logs\n"
            "with logs.nobody_waits():\n"
            "    print('a print', end='', file=sys.stderr); print(' of two parts', file=sys.stderr)\n"
            "    logs.log('event', name='\\x1b[31m\\x9b31m\\u202e')\n"
            "    raise ValueError('the end')\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr.startswith("a print of two parts\n") and done.stderr.rstrip().endswith("ValueError: the end") and done.returncode == 1
    assert done.stderr.splitlines()[1].isascii() and "\x1b" not in done.stderr
