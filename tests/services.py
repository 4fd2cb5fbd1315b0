"""Exported models, and services that run as a user starts them: a process, a port, signals."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import commands
import httpx
import transformers
from test_predict import fine_tuned

CLASSES = ["very negative", "negative", "neutral", "positive", "very positive"]
RELATIONS = ["entailment", "neutral", "contradiction"]
TAGS = ["O", *(f"{place}-{kind}" for kind in ("PER", "LOC", "ORG", "DATE") for place in "BI")]
HEADS = {
    "classification": (transformers.AutoModelForSequenceClassification, CLASSES, ["sentence"]),
    "pairs": (transformers.AutoModelForSequenceClassification, RELATIONS, ["sentence1", "sentence2"]),
    "regression": (transformers.AutoModelForSequenceClassification, [], ["sentence1", "sentence2"]),
    "ner": (transformers.AutoModelForTokenClassification, TAGS, ["tokens"]),
    "qa": (transformers.AutoModelForQuestionAnswering, [], ["question", "context"]),
}
ASKED = {  # a request for each
    "classification": {"text": "the music was not very good"},
    "pairs": {"text": "a man plays the guitar", "text_pair": "somebody makes music"},
    "regression": {"text": "a man plays the guitar", "text_pair": "somebody makes music"},
    "ner": {"text": "Mary went to Paris, and Tom stayed at home."},
    "qa": {"question": "Where did Mary go?", "context": "Mary went to Paris. Tom stayed at home."},
}


def checkpoint(folder: Path, kind: str) -> Path:
    """A fine-tuned folder whose head knows nothing, but says something.

    The classifier is the whole model that is shipped; of the others one layer is enough.
    """
    auto, labels, inputs = HEADS[kind]
    more = {"threshold": -100.0} if kind == "qa" else {}
    layers = None if kind == "classification" else 1
    return fine_tuned(folder, kind, auto, labels, inputs, layers, **more)


def export(folder: Path, *kinds: str) -> dict[str, Path]:
    "Exported models; those in FP32, so that batches change nothing."
    made = {}
    for kind in kinds or HEADS:
        source = checkpoint(folder / "checkpoints" / kind, kind)
        code, _, err = commands.run("export", source, "--out", folder / kind, "--quiet")
        assert code == 0, err
        made[kind] = folder / kind
    return made


def numbers(value) -> list[float]:
    "All floats of an answer, in their order."
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] if isinstance(value, float) else [number for one in inner for number in numbers(one)]


class Running:
    "A service in a process of its own."

    def __init__(self, process: subprocess.Popen, url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.port = int(url.rpartition(":")[2].strip("/"))

    def client(self, **more) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **more)

    def lines(self) -> list[dict]:
        "The log, without the greeting, and without a line that is only half written: now, or by a worker that was killed."
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def workers(self) -> list[int]:
        "The processes that are ready, by the log."
        return [line["pid"] for line in self.lines() if line["event"] == "ready"]

    def stop(self, number: int = signal.SIGTERM, within: float = 30) -> int:
        "Send a signal; the exit code."
        self.process.send_signal(number)
        return self.process.wait(within)


def serve(folder: Path, *argv: object, log: Path, ready: int | None = None,
          **environment: str) -> contextlib.AbstractContextManager[Running]:  # fmt: skip
    "`bertcourse serve FOLDER`, once all its workers are ready; killed at the end if it still runs."
    workers = ready or (int(argv[argv.index("--workers") + 1]) if "--workers" in argv else 1)
    return started(["-m", "bertcourse.app.cli", "serve", str(folder), "--port", "0", *map(str, argv)], log, workers, **environment)


@contextlib.contextmanager
def started(python: list[str], log: Path, workers: int = 1, **environment: str) -> Iterator[Running]:
    "What Python with these arguments serves, once all workers are ready; killed at the end if it still runs."
    command = [sys.executable, *python]
    given = {**os.environ, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stderr=out, stdout=out, env=given, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while True:
            text = log.read_text(encoding="utf-8")
            if (found := re.search(r"http://\S+", text)) and text.count('"event": "ready"') >= workers:
                break
            assert process.poll() is None and time.monotonic() < end, text
            time.sleep(0.05)
        yield Running(process, found[0], log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def talk(port: int, *packets: bytes, pause: float = 0.0, half: bool = False, patience: float | None = None) -> bytes:
    "Send packets, perhaps close this side, read until the other closes or says nothing for `patience` seconds."
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        for packet in packets:
            connection.sendall(packet)
            time.sleep(pause)
        if half:
            connection.shutdown(socket.SHUT_WR)
        if patience:
            connection.settimeout(patience)
        said = b""
        try:
            while part := connection.recv(65_536):
                said += part
        except ConnectionResetError:
            assert said, "the connection was reset before the answer could be read"
        except TimeoutError:
            assert patience, "neither an answer nor an end"
        return said


def answers(said: bytes) -> list[tuple[int, bytes]]:
    "Statuses and bodies of all answers on one connection."
    found = []
    while said:
        top, _, rest = said.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", top, re.IGNORECASE)[1])
        found.append((int(top.split()[1]), rest[:length]))
        said = rest[length:]
    return found
