"""Requests over many connections at once, from one small process: what each was answered, and after how long.

    python benchmarks/load.py PORT BODIES --connections 16 --count 400 [--rate 100]

BODIES holds a JSON body per line, sent in turn. Without --rate each connection sends the next request when its last is
answered; with it requests come at random moments, so many a second, whatever the service does. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import uvloop  # takes half the CPU, which the service then has
except ImportError:  # Windows
    uvloop = None

HEAD = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


@dataclass(frozen=True)
class Answer:
    """What came back for request number `number`; status 0: nothing, because the connection was lost."""

    number: int
    status: int
    seconds: float
    body: bytes = b""


@dataclass
class Result:
    """What a run gave."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    refused: int = 0  # connections that were not accepted

    def statuses(self) -> Counter:
        """How many answers of each status."""
        return Counter(answer.status for answer in self.answers)

    def quantile(self, share: float, status: int = 200) -> float:
        """Seconds that this share of the answers with a status took at most."""
        taken = sorted(answer.seconds for answer in self.answers if answer.status == status)
        return taken[min(len(taken) - 1, int(share * len(taken)))] if taken else float("nan")


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.said, self.reply, self.transport = bytearray(), None, None

    def connection_made(self, transport: Any) -> None:
        """Remember where to write."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Is the answer complete?"""
        self.said += data
        end = self.said.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.said[:end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if len(self.said) >= end + 4 + length and self.reply and not self.reply.done():
            if b"connection: close" in head:
                self.transport.close()
            self.reply.set_result((int(head.split()[1]), bytes(self.said[end + 4:end + 4 + length])))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits for an answer gets none."""
        if self.reply and not self.reply.done():
            self.reply.set_result((0, b""))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        self.said.clear()
        self.reply = asyncio.get_running_loop().create_future()
        if self.transport.is_closing():
            return 0, b""
        self.transport.write(request)
        return await self.reply


class Load:
    """Connections to a service on this machine."""

    def __init__(self, port: int, bodies: Sequence[bytes], path: str = "/predict") -> None:
        self.port, self.requests, self.result = port, [HEAD % (path.encode(), len(body), body) for body in bodies], Result()
        self._free: list[Connection] = []

    async def connect(self) -> Connection:
        """A connection that is open. Raises `OSError`."""
        while self._free:
            if not (found := self._free.pop()).transport.is_closing():
                return found
        return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port))[1]

    async def send(self, number: int) -> Answer | None:
        """Request `number`, from the moment at which it is wanted. None when nobody accepts the connection."""
        begin = time.perf_counter()
        try:
            connection = await self.connect()
        except OSError:
            self.result.refused += 1
            return None
        status, body = await connection.ask(self.requests[number % len(self.requests)])
        answer = Answer(number, status, time.perf_counter() - begin, body)
        self.result.answers.append(answer)
        self._free.append(connection)
        return answer

    async def close(self) -> None:
        """Hang up: else the connections would stay open until the garbage collector finds them."""
        for connection in self._free:
            connection.transport.close()
        self._free.clear()
        await asyncio.sleep(0)  # closed connections are closed in the next round of the event loop

    async def closed(self, connections: int, count: int, until: Callable[[], bool] = lambda: False) -> Result:
        """Each of the connections sends its next request when the last is answered; stops when one is not accepted."""
        numbers, begin = iter(range(count)), time.perf_counter()

        async def client() -> None:
            for number in numbers:
                if until() or await self.send(number) is None:
                    return
        await asyncio.gather(*(client() for _ in range(connections)))
        self.result.seconds = time.perf_counter() - begin
        await self.close()
        return self.result

    async def opened(self, rate: float, count: int, seed: int = 0) -> Result:
        """Requests at random moments, `rate` a second, whether or not the others are answered."""
        chance, begin, tasks, at = random.Random(seed), time.perf_counter(), [], 0.0
        for number in range(count):
            at += chance.expovariate(rate)
            if (left := begin + at - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            tasks.append(asyncio.create_task(self.send(number)))
        await asyncio.gather(*tasks)
        self.result.seconds = time.perf_counter() - begin
        await self.close()
        return self.result


def main() -> int:
    """Send what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rate", type=float)
    args = parser.parse_args()
    load = Load(args.port, args.bodies.read_bytes().splitlines())
    run = load.opened(args.rate, args.count) if args.rate else load.closed(args.connections, args.count)
    result = uvloop.run(run) if uvloop else asyncio.run(run)
    print(json.dumps({"seconds": result.seconds, "statuses": {str(k): n for k, n in result.statuses().items()},
                      "latencies": sorted(answer.seconds for answer in result.answers if answer.status == 200)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
