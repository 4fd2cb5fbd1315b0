"""`benchmarks/load.py` and what `serve.py` makes of its figures: does the client count what came, and nothing else?"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).parents[1]
BODIES = [b'{"n": %d}' % n for n in range(5)]


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    "A server that repeats the body, says 503 to every fifth, and hangs up on bodies with a 4."
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b"4" in body:
                break
            status, close = (b"503 No", b"connection: close\r\n") if b"3" in body else (b"200 OK", b"")
            writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n" % (status, len(body), close))
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(body)  # head and body in two pieces
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


def with_server(work):
    async def main():
        server = await asyncio.start_server(answering, "127.0.0.1", 0)
        async with server:
            return await work(server.sockets[0].getsockname()[1])
    return asyncio.run(main())


@pytest.mark.parametrize("way", ["closed", "opened"])
def test_every_request_is_counted_once(way):
    with scripts.loaded("load") as load:
        def work(port):
            run = load.Load(port, BODIES)
            return run.closed(4, 50) if way == "closed" else run.opened(1_000.0, 50)
        result = with_server(work)
        assert sorted(answer.number for answer in result.answers) == list(range(50)) and result.refused == 0
        assert result.statuses() == {200: 30, 503: 10, 0: 10}
        for answer in result.answers:
            assert answer.body == (b"" if answer.status == 0 else BODIES[answer.number % 5]) and answer.seconds > 0
        assert 0 < result.quantile(0.0) <= result.quantile(0.5) <= result.quantile(1.0) <= result.seconds


def test_nobody_there():
    with scripts.loaded("load") as load, scripts.loaded("serve") as serve:
        result = asyncio.run(load.Load(serve.free_port(), BODIES).closed(3, 10))
        assert result.refused == 3 and not result.answers and result.quantile(0.5) != result.quantile(0.5)


def test_the_script_prints_json(tmp_path):
    (tmp_path / "bodies").write_bytes(b"\n".join(BODIES[:3]))

    async def work(port):
        line = [sys.executable, str(ROOT / "benchmarks/load.py"), str(port), str(tmp_path / "bodies"), "--connections", "2", "--count", "9"]
        return await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, check=True)
    said = json.loads(with_server(work).stdout)
    assert said["statuses"] == {"200": 9} and len(said["latencies"]) == 9 and said["latencies"] == sorted(said["latencies"])


def test_goals_are_judged():
    with scripts.loaded("serve") as serve:
        assert serve.goal(49.9, least=50)["met"] is False and serve.goal(50, least=50)["met"] is True
        assert serve.goal(3.1, most=3)["met"] is False and serve.goal(3, most=3)["goal"] == "<= 3"
        assert serve.cost({"per_cpu_s": 200.0}) == 5.0


def test_servers_that_are_not_installed_are_named(monkeypatch):
    with scripts.loaded("peers") as peers:
        monkeypatch.setattr(peers, "find_spec", lambda name: None if name in ("fastapi", "openvino") else name)
        lacking = {name: peers.missing(kind, given) for name, kind, given, _ in peers.ARMS}
    assert lacking == {
        "bertcourse: ONNX Runtime, dynamic INT8": [], "bertcourse: OpenVINO, the same file": ["openvino"], "bertcourse: OpenVINO, static INT8": ["openvino"],
        "LitServe: the same file and batches": [], "FastAPI: the same file, a text at a time": ["fastapi"],
        "FastAPI: a pipeline in PyTorch, FP32": ["fastapi"]}  # fmt: skip


def recorded(name):
    found = json.loads((ROOT / f"benchmarks/{name}.json").read_text(encoding="utf-8"))
    assert found["settings"]["rounds"] >= 7 and found["settings"]["layers"] == 12 and not found["settings"]["quick"]
    for part in found["parts"].values():
        assert all(len(arm["samples"]) >= 7 for arm in part["arms"].values())
    return found["parts"]


def test_recorded_figures_are_of_a_whole_run():
    parts = recorded("serve")
    ratios = parts["service"]["ratios"]
    first, ceiling, share = (ratios[name]["wall"] for name in list(ratios)[:3])
    assert share == pytest.approx(first / ceiling) and ratios["the first as a share of the second"]["goal"] == ">= 0.9"
    assert set(parts) == {"service", "ladder"}
    with scripts.loaded("serve") as serve:
        assert list(parts["ladder"]["arms"]) == [name for name, *_ in serve.STEPS]


def test_recorded_figures_of_other_servers_are_of_a_whole_run():
    parts = recorded("peers")
    assert parts["peers"]["not_installed"] == []
    with scripts.loaded("peers") as peers:
        assert list(parts["peers"]["arms"]) == [name for name, *_ in peers.ARMS]
