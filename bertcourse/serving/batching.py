"""Micro-batches: requests that come together go through the model together, those of like length first.

All state belongs to the event loop, so there are no locks; the model runs in one thread beside it. A batch waits for
others only while others are to be expected: a request that comes alone is answered at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

ALIKE = 16  # pieces by which inputs of a batch may differ, and half of the longer one
QUICK, GAP = 0.02, 0.002  # seconds: what may be answered in the event loop, and how long the model has to have been idle
LULL = 0.1  # seconds after which whoever came together lately is no longer expected
LOOK = 0.1  # seconds after which it is worth looking whether somebody still waits
SMOOTH = 0.2  # weight of the latest batch in the mean time of an input


class Full(Exception):
    """The queue is full; `seconds` until it is worth another try."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class Stopped(Exception):
    """The service is going and takes nothing new."""


class Model(Protocol):
    """What a batcher needs of `bertcourse.serving.predictor.Predictor`."""

    def run(self, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One forward pass, an output for each input."""

    def decode(self, rows: Sequence[Any], inputs: Sequence[Any], found: Sequence[Any]) -> list[Any]:
        """The answers of a request."""


@dataclass(eq=False)
class Job:
    """A request: its rows, their inputs, and what has been found so far."""

    rows: Sequence[Any]
    inputs: Sequence[Mapping[str, Any]]
    done: asyncio.Future
    found: list[Any]
    left: int  # inputs without an output
    waiting: int  # inputs that no batch has taken yet


@dataclass
class Hooks:
    """Who wants to know: each is called in the event loop."""

    batch: Callable[[int, float], None] = field(default=lambda size, seconds: None)  # after each
    queue: Callable[[int], None] = field(default=lambda waiting: None)  # whenever it changes


class Batcher:
    """Answers jobs with a model, a batch at a time. To be used in one event loop, between `start` and `stop`."""

    def __init__(self, model: Model, max_batch: int, max_wait: float, max_queue: int, timeout: float, hooks: Hooks | None = None) -> None:
        self.model, self.max_batch, self.max_wait, self.max_queue, self.timeout = model, max_batch, max_wait, max_queue, timeout
        self.hooks = hooks or Hooks()
        self.waiting = 0  # inputs
        self.per_input = 0.0  # seconds, smoothed
        self.busy_since: float | None = None  # when the batch began that the model works on
        self._queue: list[tuple[Job, int]] = []  # in the order of arrival; jobs that gave up are taken out with the next batch
        self._refused = 0  # inputs of the last request for which there was no room
        self._ended = 0.0  # when the last batch was done
        self._expected = 1  # inputs that the next batch may wait for: as many as there were lately
        self._arrived, self._thread, self._stopped = asyncio.Event(), ThreadPoolExecutor(1, "model"), False

    async def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Finish what is queued, then stop. Nothing new is taken from now on."""
        self._stopped = True
        self._arrived.set()
        await self._task
        self._thread.shutdown()

    async def answer(self, rows: Sequence[Any], inputs: Sequence[Mapping[str, Any]], gone: Callable[[], Awaitable[Any]] | None = None) -> list[Any]:
        """The answers of one request. Raises `Full`, `Stopped`, `TimeoutError`, `ConnectionError` (if `gone()` ends first), what the model raises."""
        if self._alone(len(inputs)):
            return self._at_once(rows, inputs)
        job = self._enter(rows, inputs)
        try:
            await asyncio.wait([job.done], timeout=min(LOOK, self.timeout))
            if not job.done.done():
                await self._watch(job, gone)
            return job.done.result()
        finally:
            self._leave(job)

    async def _watch(self, job: Job, gone: Callable[[], Awaitable[Any]] | None) -> None:
        """Wait on, now with an eye on whoever asked. Raises `TimeoutError`, `ConnectionError`."""
        left = asyncio.ensure_future(gone()) if gone else None
        try:
            await asyncio.wait([job.done, left] if left else [job.done], timeout=max(0, self.timeout - LOOK), return_when=asyncio.FIRST_COMPLETED)
            if not job.done.done():
                raise ConnectionError("nobody waits any more") if left and left.done() else TimeoutError
        finally:
            if left:
                left.cancel()

    def check(self) -> None:
        """Raises `Full` as long as there is no room for a request like the last that was refused: cheap, before anything is read of a new one."""
        if self._refused:
            self._check(self._refused)
            self._refused = 0

    def _check(self, count: int) -> None:
        """Is there room for so many inputs, and will they be answered in time? Raises `Full`, `Stopped`."""
        if self._stopped:
            raise Stopped
        ahead = self.waiting * self.per_input
        if self.waiting and (self.waiting + count > self.max_queue or ahead > self.timeout / 2):
            self._refused = count
            raise Full(max(1.0, ahead))

    def _alone(self, count: int) -> bool:
        """Is the model idle, is nobody else to be expected, and will it be quick? Then nobody need be woken for this request."""
        if self._stopped or self.waiting or self.busy_since is not None or not 0 < self.per_input * count <= QUICK:
            return False
        return count <= self.max_batch and time.monotonic() - self._ended >= (GAP if self._expected <= count else LULL)

    def _at_once(self, rows: Sequence[Any], inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Answer in the event loop: with one core for the process, nobody else could work meanwhile."""
        begin = time.monotonic()
        try:
            found = self.model.run(inputs)
        finally:
            self._ended = time.monotonic()
        self._count(len(inputs), self._ended - begin)
        return self.model.decode(rows, inputs, found)

    def _count(self, size: int, seconds: float) -> None:
        self.per_input += (seconds / size - self.per_input) * (SMOOTH if self.per_input else 1)
        self.hooks.batch(size, seconds)

    def _enter(self, rows: Sequence[Any], inputs: Sequence[Mapping[str, Any]]) -> Job:
        """Queue a request, if there is room and it can be answered in time. A request that finds nobody waiting is always taken."""
        self._check(len(inputs))
        job = Job(rows, inputs, asyncio.get_running_loop().create_future(), [None] * len(inputs), len(inputs), len(inputs))
        self._queue += [(job, i) for i in range(len(inputs))]
        self._change(len(inputs))
        self._arrived.set()
        return job

    def _leave(self, job: Job) -> None:
        """Whoever asked is answered, or waits no longer: what no batch has taken yet is dropped."""
        job.done.cancel()
        self._drop(job)

    def _drop(self, job: Job) -> None:
        self._change(-job.waiting)
        job.waiting = 0

    def _change(self, by: int) -> None:
        if by:
            self.waiting += by
            self.hooks.queue(self.waiting)

    async def _work(self) -> None:
        """The loop: wait for inputs, take a batch, run it, hand out the answers."""
        loop = asyncio.get_running_loop()
        while not (self._stopped and not self.waiting):
            if not self.waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._gather()
            if not (batch := self._take()):
                await asyncio.sleep(0)
                continue
            self.busy_since = begin = time.monotonic()
            try:
                finished = await loop.run_in_executor(self._thread, self._run, batch)
            except Exception as error:  # the model's: whoever is in this batch gets it
                finished = [(job, error) for job in {job for job, _ in batch}]
            self._ended, self.busy_since = time.monotonic(), None
            self._expected = max(1, min(len(batch) + self.waiting, self.max_batch))
            self._count(len(batch), self._ended - begin)
            for job, found in finished:
                if job.done.done():
                    continue
                if isinstance(found, Exception):
                    job.done.set_exception(found)
                    self._drop(job)
                else:
                    job.done.set_result(found)

    async def _gather(self) -> None:
        """Wait a little, while there are fewer inputs than there were lately."""
        if self.max_wait <= 0 or self.waiting >= self._expected or self._stopped:
            return
        until = time.monotonic() + self.max_wait
        while self.waiting < self._expected and (left := until - time.monotonic()) > 0 and not self._stopped:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[Job, int]]:
        """The input that has waited longest, and those most like it in length."""
        self._queue = queue = [(job, i) for job, i in self._queue if not job.done.done()]
        if not queue:
            return []
        length = [len(job.inputs[i]["input_ids"]) for job, i in queue]
        near = sorted(range(len(queue)), key=lambda k: abs(length[k] - length[0]))
        chosen = {k for k in near[:self.max_batch] if abs(length[k] - length[0]) <= max(ALIKE, max(length[k], length[0]) // 2)}
        self._queue = [entry for k, entry in enumerate(queue) if k not in chosen]
        batch = [queue[k] for k in sorted(chosen)]
        for job, _ in batch:
            job.waiting -= 1
        self._change(-len(batch))
        return batch

    def _run(self, batch: list[tuple[Job, int]]) -> list[tuple[Job, Any]]:
        """In the model's thread: a forward pass, and the answers of the requests that it completes."""
        finished = []
        for (job, i), found in zip(batch, self.model.run([job.inputs[i] for job, i in batch]), strict=True):
            job.found[i] = found
            job.left -= 1
            if not job.left:
                try:
                    finished.append((job, self.model.decode(job.rows, job.inputs, job.found)))
                except Exception as error:
                    finished.append((job, error))
        return finished
