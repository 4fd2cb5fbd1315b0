"""What a request costs, behind the guide's service and behind ours, and how near ours is to the model alone.

    python benchmarks/serve.py [service] [ladder] [--rounds 7] [--json FILE] [--quick]

A model of BERT-base's shape, texts of about 12 pieces, 16 connections; servers, the bare model and the client take turns on
one machine. The measure is the CPU time of the server's processes, because the wall clock of a shared machine says little.
Other people's servers: `peers.py`. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from measuring import Rounds, Sample, command, interleave, rates

from bertcourse.base.machine import usable_cores

HERE = Path(__file__).parent
CONNECTIONS = 16
GUIDE = "the guide's service"
STEPS = (  # of the ladder, each with all before it: name, who serves it, what it is given, requests of a round
    (GUIDE, "guide", {"PAD": "128", "THREADS": "0", "MODEL": "fp32", "WITHOUT": ""}, 24),
    ("+ a thread for each worker", "guide", {"PAD": "128", "THREADS": "1", "MODEL": "fp32", "WITHOUT": ""}, 48),
    ("+ no padding", "guide", {"PAD": "0", "THREADS": "1", "MODEL": "fp32", "WITHOUT": ""}, 150),
    ("+ 8 bits", "guide", {"PAD": "0", "THREADS": "1", "MODEL": "int8", "WITHOUT": ""}, 300),
    ("+ without the fusion that is slower", "guide", {"PAD": "0", "THREADS": "1", "MODEL": "int8", "WITHOUT": "SkipLayerNormFusion"}, 300),
    ("+ our server, a text at a time", "ours", {"--max-batch": "1", "--workers": "2"}, 600),
    ("+ batches", "ours", {"--workers": "2"}, 600),
    ("the same, one process", "ours", {"--workers": "1"}, 600),
)


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    rounds: int = 7
    layers: int = 12
    share: float = 1.0  # of the requests of a round
    single: int = 40  # requests of an idle service, in a round


QUICK = {"rounds": 1, "layers": 1, "share": 0.1, "single": 3}


# --- what is served -----------------------------------------------------------------------------------------------


def make_models(folder: Path, layers: int, length: int = 128) -> dict[str, Path]:
    """A classifier of BERT-base's shape with random weights, as `bertcourse finetune` would leave it, exported in FP32 and INT8."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from bertcourse.app.cli import main
    from bertcourse.assets import asset

    torch.manual_seed(0)
    names = {0: "negative", 1: "positive"}
    config = BertConfig(num_hidden_layers=layers, num_labels=2, id2label=names, label2id={name: i for i, name in names.items()})
    source = folder / "source"
    BertForSequenceClassification(config).save_pretrained(source)
    shutil.copy(asset("tiny-bert") / "tokenizer.json", source)
    config = json.loads((asset("tiny-bert") / "tokenizer_config.json").read_text(encoding="utf-8"))
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 512}), encoding="utf-8")
    about = {"task": "classification", "labels": [*names.values()], "max_length": length, "lang": "en", "inputs": ["sentence"]}
    (source / "bertcourse.json").write_text(json.dumps(about), encoding="utf-8")
    for name, more in (("fp32", []), ("int8", ["--int8", "dynamic"])):
        if main(["export", str(source), "--out", str(folder / name), "--quiet", *more]):
            raise SystemExit(f"{name} could not be exported")
    return {name: folder / name for name in ("fp32", "int8")}


def make_texts(folder: Path, count: int = 256) -> list[str]:
    """Different sentences of the toy world, of 10 to 14 pieces."""
    from bertcourse import corpus
    from bertcourse.models.tokenizer import Tokenizer

    tokenizer, found = Tokenizer(folder), {}
    for sentences in corpus.texts(4_000, lang="en", split="train"):
        found |= dict.fromkeys(sentence for sentence in sentences if 10 <= tokenizer.count(sentence) <= 14)
        if len(found) >= count:
            return [*found][:count]
    raise SystemExit("the toy world has too few sentences of this length")


# --- who serves ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


def line_of(kind: str, given: Mapping[str, str], models: Mapping[str, Path], port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a server."""
    python = sys.executable
    if kind == "guide":
        return [python, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "--chdir", str(HERE), "--log-level", "error", "guide_app:app"], \
            {**given, "MODEL": str(models[given["MODEL"]])}  # fmt: skip
    if kind == "ours":
        model = given.get("MODEL", "int8")
        options = [word for name, value in given.items() if name != "MODEL" for word in (name, value)]
        return [python, "-m", "bertcourse.app.cli", "serve", str(models[model]), "--port", str(port), *options], {}
    return [python, str(HERE / "peer_servers.py"), kind, str(port), str(models[given["MODEL"]]), "2"], {}


@dataclass
class Server:
    """A running server."""

    process: psutil.Popen
    port: int

    def tree(self) -> list[psutil.Process]:
        """All its processes."""
        return [self.process, *self.process.children(recursive=True)] if self.process.is_running() else []

    def cpu(self) -> float:
        """Seconds of CPU that they have used."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # a helper that has just ended
                total += sum(process.cpu_times()[:2])
        return total

    def memory(self) -> float:
        """MB of all of them, what they share counted once."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 1e6


@contextlib.contextmanager
def serving(kind: str, given: Mapping[str, str], models: Mapping[str, Path]) -> Iterator[Server]:
    """A server, from the moment at which it answers."""
    port = free_port()
    line, environment = line_of(kind, given, models, port)
    log = tempfile.TemporaryFile()
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}  # each server decides for itself
    process = psutil.Popen(line, env={**clean, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **environment}, stdout=log, stderr=log)
    server, end = Server(process, port), time.monotonic() + 180
    try:
        while not answers(port):
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                raise SystemExit(f"{kind} does not start: {log.read()[-500:].decode()}")
            time.sleep(0.2)
        yield server
    finally:
        for one in server.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine: past any proxy


def answers(port: int) -> bool:
    """Does it answer a request?"""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", b'{"text": "good"}', {"Content-Type": "application/json"})
    try:
        with DIRECT.open(request, timeout=30) as answer:
            return answer.status == 200
    except OSError:
        return False


def load(server: Server, bodies: Path, count: int, seen: list[dict] | None = None, rate: float = 0.0) -> Sample:
    """Requests from a process of its own, all of which must be answered; the CPU time is the server's."""
    line = [sys.executable, str(HERE / "load.py"), str(server.port), str(bodies), "--connections", str(CONNECTIONS), "--count", str(count)]
    cpu = server.cpu()
    done = subprocess.run(line + (["--rate", str(rate)] if rate else []), capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    if said["statuses"] != {"200": count}:
        raise SystemExit(f"not all requests were answered: {said['statuses']}")
    if seen is not None:
        seen.append(said)
    return Sample(count, said["seconds"], server.cpu() - cpu)


# --- the model alone ----------------------------------------------------------------------------------------------


def bare(folder: str) -> None:
    """In a process of its own: for each number that comes on stdin, so many texts in ready batches of 8 to 16; says wall and CPU seconds."""
    from bertcourse.models.exported import ExportedModel
    from bertcourse.runtime import Session, pad_arrays

    predictor = ExportedModel(folder)
    texts = json.loads(sys.stdin.readline())
    inputs = predictor.encode([predictor.request_row({"text": text}) for text in texts])
    session: Session = predictor.session
    print("ready", flush=True)
    for line in sys.stdin:
        left, at, batches = int(line), 0, []
        while left > 0:
            size = min(left, 8 + at % 9)
            batches.append(pad_arrays([inputs[(at + i) % len(inputs)] for i in range(size)]))
            left, at = left - size, at + size
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            session(**batch)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


class Bare:
    """The same session, called directly: a process with one thread for each core."""

    def __init__(self, folder: Path, texts: Sequence[str], cores: int) -> None:
        line = [sys.executable, str(Path(__file__).resolve()), "--bare", str(folder)]
        self.processes = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(cores)]
        for process in self.processes:
            self._say(process, json.dumps(texts))
        for process in self.processes:
            process.stdout.readline()

    def _say(self, process: subprocess.Popen, line: str) -> None:
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def run(self, count: int) -> Sample:
        """So many texts, shared between the processes."""
        each = count // len(self.processes)
        for process in self.processes:
            self._say(process, str(each))
        took = [json.loads(process.stdout.readline()) for process in self.processes]
        return Sample(each * len(took), max(wall for wall, _ in took), sum(cpu for _, cpu in took))

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.kill()
            process.wait()


# --- the parts ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stage(settings: Settings) -> Iterator[tuple[dict[str, Path], list[str], Path]]:
    """Models, texts, and the texts as bodies of requests. BENCH_MODELS may name a folder in which they are kept."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("BENCH_MODELS") or temporary) / f"{settings.layers}-layers"
        if not (folder / "int8" / "bertcourse.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            make_models(folder, settings.layers)
        models = {name: folder / name for name in ("fp32", "int8")}
        texts = make_texts(models["int8"])
        bodies = Path(temporary) / "bodies"
        bodies.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        yield models, texts, bodies


def cost(arm: Mapping[str, Any]) -> float:
    """Milliseconds of CPU for a request."""
    return 1000 / arm["per_cpu_s"]


def goal(value: float, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """A figure beside its goal; the benchmark's tables have two columns, here with the same figure in both."""
    wanted = f">= {least}" if least is not None else f"<= {most}"
    return {"wall": value, "cpu": value, "goal": wanted, "met": value >= least if least is not None else value <= most}


def plain(value: float) -> dict[str, Any]:
    """A figure without a goal: it depends on the processor."""
    return {"wall": value, "cpu": value, "goal": None, "met": None}


def service(settings: Settings) -> dict[str, Any]:
    """The guide's service and ours: CPU for a request, throughput against the model alone, waiting times."""
    cores = usable_cores()
    with stage(settings) as (models, texts, bodies), serving("guide", STEPS[0][2], models) as theirs, \
            serving("ours", {"--workers": str(cores)}, models) as ours, contextlib.closing(Bare(models["int8"], texts, cores)) as alone:  # fmt: skip
        many = max(CONNECTIONS, round(1000 * settings.share))
        arms = rates(interleave({
            GUIDE: partial(load, theirs, bodies, max(4, round(24 * settings.share))),
            "ours": partial(load, ours, bodies, many),
            "the model alone, batches of 8 to 16": partial(alone.run, many),
        }, settings.rounds))  # fmt: skip
        bound, us, guide = arms["the model alone, batches of 8 to 16"], arms["ours"], arms[GUIDE]
        waits: list[dict] = []
        for _ in range(settings.rounds):
            load(ours, bodies, max(20, round(600 * settings.share)), waits, rate=0.7 * us["per_s"])
        at = [[waited["latencies"][int(share * len(waited["latencies"]))] for share in (0.5, 0.99)] for waited in waits]
        idle = single(ours, models["int8"], texts, settings)
        memory = ours.memory()
    return {
        "unit": "requests", "arms": arms,
        "ratios": {
            "CPU of a request: the guide's / ours": plain(cost(guide) / cost(us)),
            "the same, the guide's / the model alone: what no server gets past": plain(cost(guide) / cost(bound)),
            "the first as a share of the second": goal(cost(bound) / cost(us), least=0.9),
            "throughput: ours / the model alone": goal(us["per_s"] / bound["per_s"], least=0.9),
            "at 70% of that load: p99 / p50": goal(statistics.median(p99 / p50 for p50, p99 in at), most=3),
            "idle: ms of a request over those of the model": goal(idle["over"], most=2),
        },
        "ms_of_cpu": {name: cost(arm) for name, arm in arms.items()},
        "ms_at_70_percent": {"p50": 1000 * statistics.median(p50 for p50, _ in at), "p99": 1000 * statistics.median(p99 for _, p99 in at)},
        "ms_idle": idle, "megabytes": {"ours": memory, "workers": cores},
    }  # fmt: skip


def single(server: Server, folder: Path, texts: Sequence[str], settings: Settings) -> dict[str, float]:
    """One request at a time, each beside a call of the same session with the same text: medians in milliseconds."""
    from bertcourse.models.exported import ExportedModel
    from bertcourse.runtime import pad_arrays

    predictor, asked, called = ExportedModel(folder), [], []
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for i in range(settings.rounds * settings.single):
            text = texts[i % len(texts)]
            ready = pad_arrays(predictor.encode([predictor.request_row({"text": text})]))
            body = json.dumps({"text": text}).encode()
            request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            for times, work in ((asked, partial(exchange, connection, request)), (called, partial(predictor.session, **ready)))[::1 if i % 2 else -1]:
                begin = time.perf_counter()
                work()
                times.append(1000 * (time.perf_counter() - begin))
    over = statistics.median(a - b for a, b in zip(asked, called))
    return {"request": statistics.median(asked), "model": statistics.median(called), "over": over}


def exchange(connection: socket.socket, request: bytes) -> None:
    """A request and its answer."""
    connection.sendall(request)
    said = b""
    while b'"truncated":false}]}' not in said:
        said += connection.recv(65_536)


def ladder(settings: Settings) -> dict[str, Any]:
    """From the guide's service to ours, a step at a time."""
    with stage(settings) as (models, _, bodies), contextlib.ExitStack() as stack:
        arms: dict[str, Callable[[], Sample]] = {}
        for name, kind, given, count in STEPS:
            server = stack.enter_context(serving(kind, given, models))
            arms[name] = partial(load, server, bodies, max(4, round(count * settings.share)))
        found = rates(interleave(arms, settings.rounds))
    return {"unit": "requests", "arms": found, "ms_of_cpu": {name: cost(arm) for name, arm in found.items()}}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        bare(sys.argv[2])
        sys.exit(0)
    sys.exit(command(__doc__, {"service": service, "ladder": ladder}, Settings, QUICK))
