"""How long small requests wait beside large ones, and how many of them are answered.

    python benchmarks/fairness.py FOLDER [--seconds 20] [--json FILE --name NAME] [option of serve ...]

FOLDER is an exported question-answering model. One client sends a question with a short passage every 50 ms: alone, then beside two
clients that send large requests again and again, the most that a request may hold (64 passages of 10,000 characters) and what may be
answered in time (2 passages of 2,000). Prints the waiting times of the small requests that were answered. With --json the figures go into
FILE under NAME, beside those that are there: `benchmarks/fairness.json` has those before and after small requests went first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from bertcourse.base.machine import describe_machine

SMALL = {"question": "Where did Mary go?", "context": "Mary went to Paris. Tom stayed at home."}
PASSAGE = "Mary went to Paris and Tom stayed at home. "
PAUSE = 0.05  # seconds between small requests


def large(count: int, characters: int) -> bytes:
    """A request of so many passages."""
    context = (PASSAGE * (characters // len(PASSAGE) + 1))[:characters]
    return json.dumps({"question": ["Where did Mary go?"] * count, "context": [context] * count}).encode()


async def ask(client: httpx.AsyncClient, body: bytes) -> tuple[str, float]:
    """Status or fault, and seconds."""
    begin = time.perf_counter()
    try:
        answer = await client.post("/predict", content=body, headers={"content-type": "application/json"})
        said = str(answer.status_code)
    except httpx.HTTPError as error:
        said = type(error).__name__
    return said, time.perf_counter() - begin


async def measure(url: str, body: bytes | None, seconds: float) -> dict[str, Any]:
    """Small requests for so long, beside two clients that send `body` again and again."""
    until = time.perf_counter() + seconds
    small: list[tuple[str, float]] = []
    others: Counter[str] = Counter()
    tasks = set()

    async def one(client: httpx.AsyncClient) -> None:
        small.append(await ask(client, json.dumps(SMALL).encode()))

    async def large_ones(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < until:
            said, took = await ask(client, body)
            others[said] += 1
            await asyncio.sleep(0.2 if took < 0.2 else 0)

    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=500)) as client:
        beside = [asyncio.create_task(large_ones(client)) for _ in range(2)] if body else []
        await asyncio.sleep(1 if body else 0)
        while time.perf_counter() < until:
            tasks.add(asyncio.create_task(one(client)))
            await asyncio.sleep(PAUSE)
        await asyncio.gather(*tasks, *beside)
    times = sorted(took for said, took in small if said == "200")
    found: dict[str, Any] = {"small": dict(Counter(said for said, _ in small)), "large": dict(others)}
    if times:
        found |= {"p50_ms": 1000 * statistics.median(times), "p99_ms": 1000 * times[int(0.99 * (len(times) - 1))], "worst_ms": 1000 * times[-1]}
    return found


@contextlib.contextmanager
def serving(folder: str, options: list[str]):
    """The address of a service."""
    with tempfile.TemporaryFile("w+") as log:
        line = [sys.executable, "-m", "bertcourse.app.cli", "serve", folder, "--port", "0", "--workers", "1", *options]
        process = subprocess.Popen(line, stderr=log)
        try:
            while True:
                log.seek(0)
                text = log.read()
                if "http://" in text and '"ready"' in text:
                    break
                if process.poll() is not None:
                    raise SystemExit(text)
                time.sleep(0.1)
            yield text[text.index("http://"):].split()[0]
        finally:
            process.kill()
            process.wait()


LARGE = ((64, 10_000), (2, 2_000))  # passages, and characters of each


def parts(folder: str, seconds: float, options: list[str]) -> dict[str, Any]:
    """Alone, and beside each kind of large request."""
    with serving(folder, options) as url:
        httpx.post(url + "predict", json=SMALL, timeout=60)
        found = {"alone": asyncio.run(measure(url, None, seconds / 2))}
        for count, characters in LARGE:
            found[f"{count} passages of {characters:,} characters"] = asyncio.run(measure(url, large(count, characters), seconds))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--name", default="measured")
    args, options = parser.parse_known_args()
    found = parts(args.folder, args.seconds, options)
    for name, row in found.items():
        print(f"{name}: {json.dumps({key: round(value) if isinstance(value, float) else value for key, value in row.items()})}")
    if args.json:
        stored = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {"runs": {}}
        stored["runs"][args.name] = found
        stored |= {"machine": describe_machine(), "date": datetime.date.today().isoformat(), "seconds": args.seconds}
        args.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
