"""Requests as clients, proxies and old libraries send them: what is taken, and what is refused in words, counted and logged."""

import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import commands
import httpx
import pytest
import services

BODY = b'{"text": "good", "text_pair": "bad"}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    with commands.surroundings():
        yield services.export(tmp_path_factory.mktemp("http"), "pairs")["pairs"]


@pytest.fixture(scope="module", params=[1, 2])
def service(request, model, tmp_path_factory):
    with services.serve(model, "--workers", request.param, log=tmp_path_factory.mktemp("log") / "log") as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.lines() if line["level"] in ("error", "critical")]


def talk(port: int, *packets: bytes, half: bool = False, pause: float = 0.05) -> list[tuple[int, bytes]]:
    "Statuses and bodies of all answers to packets; a side that is not closed waits a second for more."
    return services.answers(services.talk(port, *packets, pause=pause, half=half, patience=None if half else 1))


def code(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]["code"]


# --- bodies -------------------------------------------------------------------------------------------------------

def test_a_byte_order_mark_is_left_out(service):
    for body in (b"\xef\xbb\xbf" + BODY, BODY):
        answer = httpx.post(service.url + "predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
    text = httpx.post(service.url + "predict", json={"text": "\ufeffgood", "text_pair": "bad"})
    assert text.status_code == 200  # inside of a text it is a character
    for body, said in ((b"\xef\xbb\xbf\xff", "byte 3"), (b"\xef\xbb\xbf{", "column 2"), (b"\xef\xbb\xbf" * 2 + BODY, "column 1")):
        answer = httpx.post(service.url + "predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "identity, br"}, {"content-encoding": "x-unknown"}])
def test_an_encoded_body_is_415(service, headers):
    answer = httpx.post(service.url + "predict", content=gzip.compress(BODY), headers={"content-type": "application/json"} | headers)
    assert answer.status_code == 415 and answer.json()["error"]["code"] == "wrong_content_encoding"
    assert answer.headers["accept-encoding"] == "identity"
    plain = httpx.post(service.url + "predict", content=BODY, headers={"content-type": "application/json", "content-encoding": "Identity"})
    assert plain.status_code == 200


def test_an_encoding_on_the_way_is_415(service):
    packed = gzip.compress(BODY)
    [answer] = talk(service.port, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed))
    assert code(answer) == (415, "wrong_content_encoding")


# --- heads --------------------------------------------------------------------------------------------------------

LONG = b"X-More: " + b"a" * 70_000 + b"\r\n"


@pytest.mark.parametrize("packets", [
    [HEAD + LONG + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY],
    [HEAD + LONG[:40_000], LONG[40_000:] + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY],
    [HEAD, *[b"X-%d: " % i + b"a" * 1_000 + b"\r\n" for i in range(70)], b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY],
    [b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    [b"GET /?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    [HEAD + LONG],  # no end
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 12_000 + b"\r\n"],
], ids=["one packet", "two packets", "many packets", "path", "query", "no end", "many headers"])  # fmt: skip
def test_a_head_over_the_limit_is_431_however_it_arrives(service, packets):
    assert code(talk(service.port, *packets, pause=0.002)[0]) == (431, "bad_request")


def test_a_head_below_the_limit_is_taken(service):
    padding = b"X-More: " + b"a" * 60_000 + b"\r\n"
    [answer] = talk(service.port, HEAD + padding + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert answer[0] == 200
    large = json.dumps({"text": "good " * 60_000, "text_pair": "bad"}).encode()  # the body does not count
    [answer] = talk(service.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large)
    assert answer[0] == 200


@pytest.mark.parametrize("header", [b"Content-Type: text/plain", b"content-type: application/json", b"Authorization: Bearer a\r\nAuthorization: Bearer b",
                                    b"Host: localhost"])  # fmt: skip
def test_a_header_that_is_there_twice_is_400(service, header):
    [answer] = talk(service.port, HEAD + header + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert code(answer) == (400, "bad_request") and b"several headers" in answer[1]


def test_a_missing_host_is_400(model, tmp_path):
    with services.serve(model, "--host", "0.0.0.0", log=tmp_path / "log") as everywhere:
        [answer] = talk(everywhere.port, b"GET /health HTTP/1.1\r\n\r\n")
        assert code(answer) == (400, "bad_request")
        [answer] = talk(everywhere.port, b"GET /health HTTP/1.0\r\n\r\n")  # which has none
        assert answer[0] == 200


# --- half a connection --------------------------------------------------------------------------------------------

def test_whoever_has_closed_its_side_gets_its_answer(service):
    assert [status for status, _ in talk(service.port, WHOLE, half=True)] == [200]
    assert [status for status, _ in talk(service.port, WHOLE[:50], WHOLE[50:-5], WHOLE[-5:], half=True)] == [200]
    assert [status for status, _ in talk(service.port, WHOLE * 3, half=True)] == [200, 200, 200]
    assert [status for status, _ in talk(service.port, WHOLE + WHOLE[:-3], half=True)] == [200]  # the second is not complete
    assert talk(service.port, half=True) == talk(service.port, WHOLE[:-3], half=True) == talk(service.port, b"GET / HT", half=True) == []
    many = json.dumps({"text": ["good " * 40] * 64, "text_pair": ["bad"] * 64}).encode()
    assert talk(service.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(many) + many, half=True)[0][0] == 200


def test_a_connection_that_is_closed_on_one_side_does_not_stay(service):
    with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while not said.endswith(b"}"):
            said += connection.recv(65_536)
        assert said.startswith(b"HTTP/1.1 200")
        begin = time.monotonic()
        connection.shutdown(socket.SHUT_WR)  # when its answer is there
        assert connection.recv(65_536) == b"" and time.monotonic() - begin < 2


# --- what is refused before the application sees it ------------------------------------------------------------------

def counts(service) -> dict[str, float]:
    lines = httpx.get(service.url + "metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


@pytest.mark.parametrize("packet, status", [(b"hello\r\n\r\n", 400), (HEAD + LONG, 431), (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400)])
def test_it_is_counted_and_logged_with_an_id(service, packet, status):
    with httpx.Client(base_url=service.url) as client:
        client.get("/health")
    before = counts(service)
    with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
        connection.sendall(packet)
        said = connection.recv(65_536).decode()
    known = re.search(r"x-request-id: (\w{16})\r\n", said)[1]
    assert said.startswith(f"HTTP/1.1 {status}") and "cache-control: no-store" in said
    after = counts(service)
    name = f'bertcourse_requests_total{{path="unknown",status="{status}"}}'
    assert after[name] == before.get(name, 0) + 1
    assert after['bertcourse_errors_total{code="bad_request"}'] == before.get('bertcourse_errors_total{code="bad_request"}', 0) + 1
    assert sum(value for key, value in after.items() if key.startswith("bertcourse_requests_total")) == \
        sum(value for key, value in before.items() if key.startswith("bertcourse_requests_total")) + 2  # itself and /metrics
    end = time.monotonic() + 5
    while not (found := [line for line in service.lines() if line.get("id") == known]):
        assert time.monotonic() < end
    assert [(line["event"], line["status"], line["code"], line["path"]) for line in found] == [("request", status, "bad_request", "unknown")]


def test_answers_come_before_the_refusal_of_what_follows(service):
    many = json.dumps({"text": ["good " * 40] * 64, "text_pair": ["bad"] * 64}).encode()
    slow = HEAD + b"Content-Length: %d\r\n\r\n" % len(many) + many
    for rest, status in ((b"hello\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + LONG, 431),
                         (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400)):
        for half in (False, True):
            assert [said for said, _ in talk(service.port, slow + WHOLE + rest, half=half)] == [200, 200, status]


# --- SIGHUP -------------------------------------------------------------------------------------------------------

class Asking(threading.Thread):
    "Asks again and again, each time over a new connection, until it is told to end."

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.ended, self.answers = url, threading.Event(), []
        self.start()

    def run(self) -> None:
        while not self.ended.is_set():
            begin = time.monotonic()
            try:
                said = httpx.post(self.url + "predict", content=BODY, headers={"content-type": "application/json"}, timeout=20).status_code
            except httpx.TransportError as error:
                said = type(error).__name__
            self.answers.append((said, time.monotonic() - begin))

    def end(self) -> list:
        self.ended.set()
        self.join()
        return self.answers


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_are_replaced_one_by_one_without_a_gap(model, tmp_path):
    with services.serve(model, "--workers", 2, log=tmp_path / "log") as service:
        asking = Asking(service.url)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: [line["event"] for line in service.lines()].count("worker_ended") == 2)
        answers = asking.end()
        assert {said for said, _ in answers} == {200}
        events = [line["event"] for line in service.lines() if line["event"] in ("ready", "stopped")]
        assert events == ["ready", "ready", "ready", "stopped", "ready", "stopped"], "a worker goes when the one for it is there"
        first, second, third, fourth = service.workers()
        assert {line["worker"] for line in service.lines() if line["event"] == "worker_ended"} == {first, second}
        assert counts(service)["bertcourse_ready_workers"] == 2
        assert service.stop() == 0
    print(f"{len(answers)} requests, the slowest {max(took for _, took in answers):.2f} s")


def test_the_old_workers_stay_if_the_new_ones_cannot_load_the_model(model, tmp_path):
    import shutil
    folder = shutil.copytree(model, tmp_path / "model")
    with services.serve(folder, "--workers", 2, log=tmp_path / "log") as service:
        whole = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").write_bytes(whole[:1000])
        service.process.send_signal(signal.SIGHUP)
        asking = Asking(service.url)
        wait_for(lambda: "replacing_failed" in [line["event"] for line in service.lines()])
        (folder / "model.onnx").write_bytes(whole)
        service.process.send_signal(signal.SIGHUP)  # and when it is fixed, they are
        wait_for(lambda: [line["event"] for line in service.lines()].count("stopped") == 2)
        assert {said for said, _ in asking.end()} == {200}
        assert service.stop() == 0


@pytest.mark.parametrize("again", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_while_workers_are_replaced(model, tmp_path, again):
    with services.serve(model, "--workers", 2, log=tmp_path / "log") as service:
        service.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        service.process.send_signal(again)
        if again == signal.SIGHUP:
            wait_for(lambda: [line["event"] for line in service.lines()].count("stopped") >= 2)
            assert httpx.post(service.url + "predict", content=BODY, headers={"content-type": "application/json"}).status_code == 200
            service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


def test_a_single_process_goes_on_and_says_so(model, tmp_path):
    with services.serve(model, "--workers", 1, log=tmp_path / "log") as service:
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "hang_up_ignored" in [line["event"] for line in service.lines()], 10)
        assert httpx.get(service.url + "health").status_code == 200
        assert service.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_in_a_terminal_that_is_closed_it_ends(model, workers):
    import pty
    import subprocess
    import sys
    master, terminal = pty.openpty()
    line = [sys.executable, "-m", "bertcourse.app.cli", "serve", str(model), "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(line, stdin=terminal, stderr=terminal, stdout=terminal, env={**os.environ, "LC_ALL": "C.UTF-8"}, start_new_session=True)
    os.close(terminal)
    try:
        said = b""
        while said.count(b'"ready"') < workers:
            said += os.read(master, 65_536)
        os.killpg(process.pid, signal.SIGHUP)  # as the kernel does
        os.close(master)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
