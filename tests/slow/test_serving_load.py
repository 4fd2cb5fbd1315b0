"""The service under load and under faults: every answer is compared with what the model says offline.

BERTCOURSE_SOAK=N makes the long runs N times as long (`make soak`).
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bertcourse.models.exported import ExportedModel
from bertcourse.serving.inputs import CODES

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "benchmarks")]
import commands  # noqa: E402
import services  # noqa: E402
from load import Load  # noqa: E402
from services import numbers, serve  # noqa: E402

SOAK = int(os.environ.get("BERTCOURSE_SOAK", "1"))
WORDS = ("the music was not very good but we liked food in a small place near sea and people there were kind my dog is hairy "
         "今 天 很 冷 但 是 音 乐 不 错 é 😀 ! , ?").split()


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return services.export(tmp_path_factory.mktemp("served"))


def text(chance: random.Random, longest: int = 60) -> str:
    return " ".join(chance.choices(WORDS, k=min(longest, 1 + int(chance.expovariate(1 / 8)))))


class Mixed:
    "Requests of all sizes, each different, some of them wrong; and what the service must say."

    def __init__(self, folder: Path, count: int, seed: int = 0) -> None:
        chance, predictor = random.Random(seed), ExportedModel(folder)
        self.bodies, self.expected = [], []
        for number in range(count):
            if chance.random() < 0.02:
                body, status, said = *chance.choice([(b"{", 400), (b'{"text": ""}', 422), (b'{"text": 3}', 422), (b"\xff", 400)]), None
            else:
                texts = [f"{number} {i} {text(chance)}" for i in range(1 if chance.random() < 0.7 else chance.randint(2, 12))]
                body, status = json.dumps({"text": texts if len(texts) > 1 else texts[0]}).encode(), 200
                said = [answer for one in texts for answer in predictor.answer([{"text": one}])]
            self.bodies.append(body)
            self.expected.append((status, said))
        texts = {json.dumps(said) for status, said in self.expected if said}
        assert len(texts) > 0.95 * len([1 for status, _ in self.expected if status == 200])  # a swapped answer would show

    def check(self, answer) -> None:
        "Is this the answer to this request?"
        status, said = self.expected[answer.number % len(self.expected)]
        assert answer.status == status, (answer.status, answer.body[:200])
        if said:
            found = json.loads(answer.body)["predictions"]
            assert all(one["label"] == max(one["scores"], key=one["scores"].get) for one in found)
            assert numbers(found) == pytest.approx(numbers(said), abs=2e-4)


def memory(service) -> float:
    "MB of all processes of a service, what they share counted once."
    process = psutil.Process(service.process.pid)
    return sum(one.memory_full_info().uss for one in [process, *process.children(recursive=True)]) / 1e6


def files(service) -> int:
    process = psutil.Process(service.process.pid)
    return sum(one.num_fds() for one in [process, *process.children(recursive=True)])


def errors(service) -> list[dict]:
    return [line for line in service.lines() if line["level"] in ("error", "critical")]


# --- load ---------------------------------------------------------------------------------------------------------

def test_ten_thousand_requests_at_64_connections(models, tmp_path, record_property):
    count = 10_000 * SOAK
    mixed = Mixed(models["classification"], min(count, 10_000))
    with serve(models["classification"], "--workers", 2, "--max-queue", 5_000, log=tmp_path / "log") as service:
        first = asyncio.run(Load(service.port, mixed.bodies).closed(64, 2_000))  # memory is taken, and stays
        before, open_files = memory(service), files(service)
        result = asyncio.run(Load(service.port, mixed.bodies).closed(64, count))
        after = memory(service)
        for answer in first.answers + result.answers:
            mixed.check(answer)
        assert sorted(answer.number for answer in result.answers) == list(range(count)) and not result.refused  # none lost, none twice
        statuses = result.statuses()
        assert set(statuses) == {200, 400, 422}
        assert after < before + 30, f"{before:.0f} MB became {after:.0f}"
        end = time.monotonic() + 30  # a slow machine closes the connections a while after the client did
        while files(service) > open_files + 4 and time.monotonic() < end:
            time.sleep(0.5)
        assert files(service) <= open_files + 4
        counts = metrics(service)
        assert counts['bertcourse_requests_total{path="/predict",status="200"}'] == statuses[200] + first.statuses()[200]
        assert counts["bertcourse_queue_inputs"] == 0
        assert service.stop() == 0 and not errors(service)
    print(f"\n{count:,} requests: {count / result.seconds:,.0f} a second, p50 {1000 * result.quantile(.5):.0f} ms, p99 {1000 * result.quantile(.99):.0f} ms, "
          f"{before:.0f} MB before, {after:.0f} MB after")


def metrics(service) -> dict[str, float]:
    lines = httpx.get(service.url + "metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}


@pytest.mark.parametrize("kind", ["ner", "qa", "pairs", "regression"])
def test_all_tasks_under_load(models, tmp_path, kind):
    chance, predictor = random.Random(1), ExportedModel(models[kind])
    asked = [{name: f"{i} {text(chance, 200 if name == 'context' else 20)}" for name in predictor.required} for i in range(400)]
    expected = [predictor.answer([one])[0] for one in asked]
    with serve(models[kind], "--workers", 2, "--max-queue", 5_000, log=tmp_path / "log") as service:
        result = asyncio.run(Load(service.port, [json.dumps(one).encode() for one in asked]).closed(32, len(asked)))
        assert result.statuses() == {200: len(asked)}
        for answer in result.answers:
            (found,) = json.loads(answer.body)["predictions"]
            close(found, expected[answer.number] | {"truncated": found["truncated"]})
        assert service.stop() == 0


def close(found, expected) -> None:
    "Equal, but for the last digits of a number."
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            close(one, other)
    else:
        assert found == pytest.approx(expected, abs=2e-4) if isinstance(expected, float) else found == expected


def test_ten_times_too_much(models, tmp_path):
    chance = random.Random(2)
    bodies = [json.dumps({"question": f"who {i}", "context": " ".join(chance.choices(WORDS, k=500))}).encode() for i in range(100)]
    timeout = 5.0
    with serve(models["qa"], "--workers", 2, "--timeout", timeout, "--max-queue", 200, log=tmp_path / "log") as service:
        usual = asyncio.run(Load(service.port, bodies).closed(8, 200))
        capacity = 200 / usual.seconds
        load = Load(service.port, bodies)
        result = asyncio.run(load.opened(10 * capacity, int(10 * capacity * 6 * SOAK)))
        over = time.monotonic()
        while True:  # how long until a single request is answered as fast as ever?
            single = asyncio.run(Load(service.port, bodies).closed(1, 1)).answers[0]
            if single.status == 200 and single.seconds < 3 * usual.quantile(0.5):
                break
            assert time.monotonic() - over < 30
        recovery = time.monotonic() - over
        statuses = result.statuses()
        assert set(statuses) == {200, 429} and not result.refused
        assert statuses[200] > 0.1 * capacity * result.seconds  # the client has its share of the cores, and those that are refused a little
        assert max(answer.seconds for answer in result.answers if answer.status == 200) < timeout + 1
        assert result.quantile(0.5, 429) < timeout / 5
        for answer in result.answers[:500]:
            if answer.status == 429:
                assert json.loads(answer.body)["error"]["code"] == "queue_full"
        assert service.stop() == 0 and not errors(service)
    print(f"\ncapacity {capacity:.0f} a second, {len(result.answers) / result.seconds:.0f} came: {statuses[200]} answered (p99 {result.quantile(.99):.2f} s), "
          f"{statuses[429]} refused (p50 {1000 * result.quantile(.5, 429):.0f} ms, p99 {1000 * result.quantile(.99, 429):.0f} ms), "
          f"recovered after {recovery:.2f} s")


# --- faults -------------------------------------------------------------------------------------------------------

def test_a_worker_is_killed_under_load(models, tmp_path):
    mixed, connections = Mixed(models["classification"], 3_000), 32
    with serve(models["classification"], "--workers", 2, "--max-queue", 5_000, log=tmp_path / "log") as service:
        victim = service.workers()[0]
        threading.Timer(1.0, os.kill, (victim, signal.SIGKILL)).start()
        load, end = Load(service.port, mixed.bodies), time.monotonic() + 20 * SOAK
        result = asyncio.run(load.closed(connections, 10**6, lambda: time.monotonic() > end or len(service.workers()) > 2 and time.monotonic() > end - 15))
        lost = [answer for answer in result.answers if answer.status == 0]
        for answer in result.answers:
            if answer.status:
                mixed.check(answer)
        assert len(lost) <= connections and not result.refused
        assert len(service.workers()) == 3 and metrics(service)["bertcourse_ready_workers"] == 2
        assert service.stop() == 0
    print(f"\n{len(result.answers):,} requests, {len(lost)} lost with the worker")


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_fails_nobody(models, tmp_path, workers):
    mixed = Mixed(models["classification"], 2_000)
    for round in range(3 * SOAK):
        with serve(models["classification"], "--workers", workers, "--max-queue", 5_000, log=tmp_path / f"log{round}") as service:
            timer = threading.Timer(1.0, service.process.send_signal, (signal.SIGTERM,))
            timer.start()
            result = asyncio.run(Load(service.port, mixed.bodies).closed(64, 10**6))
            for answer in result.answers:
                mixed.check(answer)  # whoever was connected has an answer, and the right one
            assert result.refused == 64 and len(result.answers) > 200  # and all others were not let in
            assert service.process.wait(30) == 0 and not errors(service)


def test_connections_that_do_nothing(models, tmp_path):
    mixed = Mixed(models["classification"], 500)
    with serve(models["classification"], "--workers", 2, log=tmp_path / "log") as service:
        asyncio.run(Load(service.port, mixed.bodies).closed(8, 200))
        before = files(service)
        crowd = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(400)]
        for i, connection in enumerate(crowd):
            connection.sendall((b"", b"P", b"POST /predict HTTP/1.1\r\nHost: localhost\r\n", b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
                                b"Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n{")[i % 4])  # fmt: skip
        result = asyncio.run(Load(service.port, mixed.bodies).closed(8, 500))
        for answer in result.answers:
            mixed.check(answer)
        for connection in crowd[::2]:  # half of them are reset, the others hold on
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        end = time.monotonic() + 40  # the clock of a connection is twice 10 s
        while files(service) > before + 10 and time.monotonic() < end:
            time.sleep(0.5)
        assert files(service) <= before + 10
        assert service.stop() == 0 and not errors(service)


def test_who_hangs_up_leaves_nothing_behind(models, tmp_path):
    body = json.dumps({"question": "who", "context": " ".join(WORDS * 40)}).encode()
    request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    # A client that only closes its own side may still read: its answer is computed last, and on a slow machine later than 10 s.
    with serve(models["qa"], "--max-queue", 20_000, "--timeout", 90, log=tmp_path / "log") as service:
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(request)
        end = time.monotonic() + 90
        while metrics(service)["bertcourse_queue_inputs"] and time.monotonic() < end:
            time.sleep(0.1)
        counts = metrics(service)
        assert counts["bertcourse_queue_inputs"] == 0
        assert httpx.post(service.url + "predict", content=body, headers={"content-type": "application/json"}).status_code == 200
        assert service.stop() == 0 and not errors(service)


# --- what nobody should send --------------------------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "text_pair", "a", ""]) | st.text(max_size=5), inner, max_size=4),
                    max_leaves=12)


def test_a_thousand_malformed_bodies(models, tmp_path):
    seen: Counter = Counter()
    with serve(models["classification"], log=tmp_path / "log") as service, service.client() as client:
        @given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()) |
               st.tuples(JSON, st.integers(0, 60), st.binary(max_size=3)).map(lambda parts: json.dumps(parts[0]).encode()[:parts[1]] + parts[2]))
        @example(b"[" * 100_000)
        @example(b'{"text": "' + b"a" * 1_900_000 + b'"}')
        @example(b'{"text": [' + b'"a",' * 60_000 + b'"a"]}')
        @examples(max_examples=1_000 * SOAK, deadline=None, suppress_health_check=list(HealthCheck))
        def send(body: bytes) -> None:
            answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
            said = answer.json()
            if answer.status_code == 200:
                assert said["predictions"]
                seen["ok"] += 1
            else:
                assert 400 <= answer.status_code < 500 and CODES[said["error"]["code"]][0] == answer.status_code
                seen[said["error"]["code"]] += 1
        send()
        assert client.get("/health").status_code == 200
        assert service.stop() == 0 and not errors(service)
    assert sum(seen.values()) >= 1_000 and {"not_json", "not_utf8", "wrong_type", "unknown_field", "missing_field"} <= set(seen), seen
    print("\n", dict(seen))


@pytest.mark.parametrize("kind", ["classification", "pairs", "ner", "qa"])
def test_the_schema_says_what_the_service_does(models, tmp_path, kind):
    # That two lists have the same length is what JSON Schema cannot say.
    without = ["--exclude-checks", "positive_data_acceptance"] if kind in ("pairs", "qa") else []
    with serve(models[kind], log=tmp_path / "log") as service:
        line = [sys.executable, "-m", "schemathesis.cli", "run", service.url + "openapi.json", "--max-examples", str(100 * SOAK), "--mode", "all",
                "--checks", "all", *without, "--seed", "1", "--no-color", "--generation-database", "none"]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert service.stop() == 0 and not errors(service)
