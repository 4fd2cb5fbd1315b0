"""The service as a process: how it starts and refuses to, what raw connections get, how it ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import commands
import httpx
import pytest
import services
from services import serve, talk

from bertcourse.jobs import serving
from bertcourse.serving import server
from bertcourse.serving.inputs import CODES

SERVE = commands.Training("serve")


@pytest.fixture(autouse=True, scope="module")
def surroundings(cached_exports):
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return services.export(tmp_path_factory.mktemp("served"), "classification")["classification"]


# --- the start ----------------------------------------------------------------------------------------------------

def damaged(model: Path, folder: Path, how: str) -> Path:
    "A copy of the model that cannot be served."
    import shutil
    made = shutil.copytree(model, folder / how)
    file = made / "model.onnx"
    if how == "cut":
        file.write_bytes(file.read_bytes()[:100_000])
    elif how == "other":
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    elif how == "no-model":
        file.unlink()
    elif how == "no-about":
        (made / "bertcourse.json").unlink()
    elif how == "no-tokenizer":
        (made / "tokenizer.json").unlink()
    elif how == "other-tokenizer":  # pieces with numbers that the model has no vectors for
        said = json.loads((made / "tokenizer.json").read_text(encoding="utf-8"))
        said["model"]["vocab"] = {piece: 5_000 + i if piece in ("ok", "o", "##k") else i for piece, i in said["model"]["vocab"].items()}
        (made / "tokenizer.json").write_text(json.dumps(said), encoding="utf-8")
    elif how == "no-onnx":
        file.write_bytes(b"not an ONNX file")
        about = json.loads((made / "bertcourse.json").read_text(encoding="utf-8"))
        import hashlib
        (made / "bertcourse.json").write_text(json.dumps(about | {"sha256": hashlib.sha256(b"not an ONNX file").hexdigest()}), encoding="utf-8")
    return made


@pytest.mark.parametrize("how", ["cut", "other", "no-model", "no-about", "no-tokenizer", "other-tokenizer", "no-onnx"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_served_never_starts(model, tmp_path, monkeypatch, how, workers):
    monkeypatch.setattr(serving, "greet", lambda *given: pytest.fail("it said that it is served"))
    folder = damaged(model, tmp_path, how)
    says = "model.onnx is no usable ONNX file" if how == "no-onnx" else str(folder)
    SERVE.in_both_languages(monkeypatch, says, folder, "--port", "0", "--workers", workers)


def test_the_process_ends_with_code_2(model, tmp_path):
    folder = damaged(model, tmp_path, "cut")
    done = subprocess.run([sys.executable, "-m", "bertcourse.app.cli", "serve", str(folder), "--port", "0"], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "ready" not in done.stderr and not done.stdout


def test_what_is_asked_for_wrongly(model, monkeypatch, tmp_path):
    SERVE.in_both_languages(monkeypatch, "holds no model.onnx", tmp_path / "nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        SERVE.in_both_languages(monkeypatch, "cannot be listened at", model, "--port", taken.getsockname()[1])
    SERVE.in_both_languages(monkeypatch, "cannot be listened at", model, "--host", "no.such.host.invalid")
    monkeypatch.setattr(serving, "PACKAGES", ("no_such_package",))
    SERVE.in_both_languages(monkeypatch, 'pip install "bertcourse[serve]"', model)
    for argv, says in ((["--port", "70000"], "no port"), (["--timeout", "0"], "no positive number"), (["--timeout", "nan"], "no positive number"),
                       (["--max-wait-ms", "-1"], "no positive number"), (["--workers", "0"], "--workers"), (["--runtime", "torch"], "--runtime")):
        code, _, err = SERVE.call(model, *argv)
        assert code == 2 and says in err and len(err.splitlines()) == 1


def test_an_open_door_is_said(capsys, monkeypatch):
    from bertcourse.serving.settings import Settings
    serving.greet(Settings("m", host="0.0.0.0"), ("0.0.0.0", 80))
    assert "BERTCOURSE_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("BERTCOURSE_TOKEN", "x")
    serving.greet(Settings("m", host="::", workers=2), ("::", 80, 0, 0))
    assert capsys.readouterr().err == "m is served at http://[::]:80/ by 2 processes; Ctrl-C ends it\n"


@pytest.mark.parametrize("cores, options, workers", [(3, {}, 3), (3, {"threads": 2}, 1), (1, {"threads": 2}, 1), (3, {"workers": 5}, 5),
                                                     (3, {"provider": "cuda"}, 1)])
def test_a_worker_for_each_core(monkeypatch, cores, options, workers):
    monkeypatch.setattr(serving, "usable_cores", lambda: cores)
    assert serving.ServeOptions(folder="m", **options).settings().workers == workers


# --- raw connections ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def running(model, tmp_path_factory):
    "A service that has little patience."
    with serve(model, "--max-body", 5000, "--read-timeout", 1, "--keep-alive", 2, log=tmp_path_factory.mktemp("log") / "log") as service:
        yield service
        assert service.stop() == 0
        assert not [line for line in service.lines() if line["level"] in ("error", "critical")]


def code_of(said: bytes) -> tuple[int, str]:
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_what_is_no_http(running):
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00" * 20, b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"Content-Length: many\r\n\r\n",
                 HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
        assert code_of(talk(running.port, junk)) == (400, "bad_request")


def test_a_head_without_end(running):
    said = talk(running.port, b"GET / HTTP/1.1\r\n", *[b"X-More: " + b"a" * 8000 + b"\r\n"] * 20)
    assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large") and code_of(said)[1] == "bad_request"


def test_a_body_that_is_too_large_is_refused_before_and_while_it_comes(running):
    body = b'{"text": "' + b"a" * 50_000 + b'"}'
    assert code_of(talk(running.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body)) == (413, "body_too_large")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[i:i + 900] for i in range(0, len(body), 900)))
    assert code_of(talk(running.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunks + b"0\r\n\r\n")) == (413, "body_too_large")
    asked_first = talk(running.port, HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert code_of(asked_first) == (413, "body_too_large") and b"100 Continue" not in asked_first


def test_who_is_slow_is_not_waited_for(running):
    begin = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        nothing = pool.submit(talk, running.port)
        head = pool.submit(talk, running.port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        drops = pool.submit(talk, running.port, HEAD + b"Content-Length: 100\r\n\r\n", b'{"te')
        trickle = pool.submit(talk, running.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n", *[b"X: y\r\n"] * 9, pause=0.15)  # no end
        assert nothing.result() == b"" and head.result() == b"" and trickle.result() == b""
        assert code_of(drops.result()) == (408, "too_slow") and CODES["too_slow"][0] == 408
    assert time.monotonic() - begin < 20  # the clocks are 1 and 2 s
    assert httpx.get(running.url + "health").status_code == 200


def test_half_a_connection(running):
    body = b'{"text": "good"}'
    said = talk(running.port, HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body), body)
    assert said.startswith(b"HTTP/1.1 200")
    for part in (b"", b"GET /", HEAD + b"Content-Length: 100\r\n\r\n{"):  # gone in the middle of it
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(part)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    assert httpx.get(running.url + "health").status_code == 200


def test_two_requests_in_one_packet(running):
    body = b'{"text": "good"}'
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    said = talk(running.port, one + one + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 200 OK") == 3 and said.endswith(b'{"status":"alive"}')


def test_an_idle_connection_is_closed_by_the_service(running):
    assert talk(running.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b'{"status":"alive"}')


# --- the end ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_answers_what_is_on_its_way_and_exits_0(model, tmp_path, workers):
    with serve(model, "--workers", workers, log=tmp_path / "log") as service, service.client() as client:
        assert client.post("/predict", json={"text": "good"}).status_code == 200
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(service.stop)
            end = time.monotonic() + 10
            while client.get("/health").headers.get("connection") != "close":  # the connection was there before the signal
                assert time.monotonic() < end
            assert ended.result() == 0
        assert [line["event"] for line in service.lines()].count("stopped") == workers
        with pytest.raises(httpx.ConnectError):
            httpx.get(service.url + "health")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it(model, tmp_path, workers):
    with serve(model, "--workers", workers, log=tmp_path / "log") as service:
        os.killpg(service.process.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert service.process.wait(30) in (0, 130)
        assert "Traceback" not in service.log.read_text(encoding="utf-8")


def test_a_worker_that_dies_is_replaced_and_counts_go_on(model, tmp_path):
    with serve(model, "--workers", 2, log=tmp_path / "log") as service:
        for _ in range(20):
            httpx.post(service.url + "predict", json={"text": "good"})
        first, second = service.workers()
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 60
        while len(service.workers()) < 3:
            assert time.monotonic() < end
            with contextlib.suppress(httpx.TransportError):  # it may have been the dying worker's
                assert httpx.post(service.url + "predict", json={"text": "good"}).status_code == 200
        counts = dict(line.rsplit(" ", 1) for line in httpx.get(service.url + "metrics").text.splitlines() if line and line[0] != "#")
        assert float(counts['bertcourse_requests_total{path="/predict",status="200"}']) >= 20
        assert float(counts["bertcourse_ready_workers"]) == 2
        assert service.stop() == 0


def test_connections_are_shared_out(model, tmp_path):
    with serve(model, "--workers", 2, log=tmp_path / "log") as service:
        clients = [service.client() for _ in range(16)]
        for client in clients:
            assert client.get("/model").status_code == 200  # and the connection stays
        time.sleep(0.2)
        by = [line["pid"] for line in service.lines() if line.get("path") == "/model"]
        assert len(by) == 16 and all(4 <= by.count(pid) <= 12 for pid in service.workers())  # 8, where nobody is late
        assert service.stop() == 0


def test_sighup_replaces_the_workers(model, tmp_path):
    with serve(model, "--workers", 2, log=tmp_path / "log") as service:
        before = service.workers()
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while len(service.workers()) < 4 or any(alive(pid) for pid in before):
            assert httpx.post(service.url + "predict", json={"text": "good"}).status_code == 200 and time.monotonic() < end
        assert httpx.post(service.url + "predict", json={"text": "good"}).status_code == 200
        assert service.stop() == 0


def test_workers_do_not_outlive_their_master(model, tmp_path):
    with serve(model, "--workers", 2, log=tmp_path / "log") as service:
        service.process.kill()
        service.process.wait()
        end = time.monotonic() + 30
        while time.monotonic() < end and any(alive(pid) for pid in service.workers()):
            time.sleep(0.2)
        assert not any(alive(pid) for pid in service.workers())


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False


class Late(asyncio.Protocol):
    "Answers each byte."

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def outcome(address) -> str:
    "What a client sees that asks now."
    try:
        with socket.create_connection(address, timeout=5) as one:
            one.sendall(b"?")
            return "answered" if one.recv(1) else "lost"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionError:
        return "lost"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep connections out while a socket still listens")
@pytest.mark.parametrize("protected", [True, False])
def test_who_comes_while_the_door_shuts_is_refused_not_lost(protected, monkeypatch):
    "A processor that is busy takes a while between the last `accept` and `close`."
    if not protected:
        monkeypatch.setattr(server, "keep_out", lambda listener: None)

    async def shut() -> list[str]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        door, clients = server.Door([listener], Late, set(), None, 0), ThreadPoolExecutor(4)
        loop, address, accept = asyncio.get_running_loop(), listener.getsockname(), door._accept
        early, late = [loop.run_in_executor(clients, outcome, address) for _ in range(2)], []

        def slow(listener) -> bool:
            if not (found := accept(listener)):
                late.extend(clients.submit(outcome, address) for _ in range(2))
                time.sleep(0.2)
            return found
        await asyncio.sleep(0.1)
        door._accept = slow
        await door.close()
        return [*await asyncio.gather(*early), *await asyncio.gather(*map(asyncio.wrap_future, late))]
    assert asyncio.run(shut()) == ["answered", "answered"] + 2 * ["refused" if protected else "lost"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such filters")
def test_a_worker_lets_in_whom_another_kept_out():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.keep_out(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)
        server.let_in(listener)
        server.let_in(listener)
        socket.create_connection(listener.getsockname(), timeout=5).close()


def test_only_the_last_worker_keeps_clients_out(monkeypatch):
    kept, shares = [], server.Shares(3)
    monkeypatch.setattr(server, "keep_out", kept.append)

    async def two() -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        doors = [server.Door([listener], Late, set(), shares, slot) for slot, listener in enumerate(listeners)]
        await doors[0].close()
        assert not kept
        await doors[1].close()
        assert kept == [listeners[1]]
    asyncio.run(two())
