"""A request that asks for another protocol (`Upgrade: h2c`, the default of Java's HttpClient and of `curl --http2`) is answered as one that
does not, however its bytes arrive; nothing in its body is ever taken for a request."""

import json

import commands
import pytest
import services

SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    "A classifier behind HTTP."
    with commands.surroundings():
        folder = services.export(tmp_path_factory.mktemp("upgrade"), "classification")["classification"]
        with services.serve(folder, log=tmp_path_factory.mktemp("log") / "log") as running:
            yield running


def head(protocol: str, length: int, connection: str = "Upgrade, HTTP2-Settings") -> bytes:
    "Of a request as Java sends it."
    return (f"POST /predict HTTP/1.1\r\nConnection: {connection}\r\nContent-Length: {length}\r\nHost: localhost\r\n"
            f"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: {protocol}\r\nContent-Type: application/json\r\n\r\n").encode()  # fmt: skip


def answers(port: int, *packets: bytes) -> list[tuple[int, bytes]]:
    "Statuses and bodies of all answers on one connection."
    return services.answers(services.talk(port, *packets, pause=0.2, patience=1))


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "foo"])
@pytest.mark.parametrize("cut", ["one packet", "head, body", "in the head", "in the body"])
def test_the_body_is_read(service, protocol, cut):
    body = json.dumps({"text": "the music was very good"}).encode()
    start = head(protocol, len(body))
    packets = {"one packet": [start + body], "head, body": [start, body], "in the head": [start[:60], start[60:] + body],
               "in the body": [start + body[:9], body[9:]]}[cut]  # fmt: skip
    [(status, said)] = answers(service.port, *packets)
    assert status == 200, said
    plain = service.client().post("/predict", json={"text": "the music was very good"})
    assert json.loads(said) == plain.json()


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("packets", [1, 2])
def test_a_body_that_looks_like_a_request_is_a_body(service, protocol, packets):
    start = head(protocol, len(SMUGGLED))
    found = answers(service.port, *([start + SMUGGLED] if packets == 1 else [start, SMUGGLED]))
    assert [status for status, _ in found] == [400], "one answer, and it says that the body is no JSON"


def test_the_next_request_on_the_connection_is_answered(service):
    body = json.dumps({"text": "very good"}).encode()
    plain = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    found = answers(service.port, head("h2c", len(body)) + body + plain, head("h2c", len(body)), body + SMUGGLED)
    assert [status for status, _ in found] == [200, 200, 200, 200]
    assert len({said for _, said in found[:3]}) == 1


def test_connect_is_refused(service):
    [(status, _)] = answers(service.port, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status == 400
