"""Micro-batches: requests that come together go through the model together, those of like length first.

All state belongs to the event loop, so there are no locks; the model runs in one thread beside it. A batch waits for
others only while others are to be expected: a request that comes alone is answered at once.

No request can shut the others out. The smallest go first, but the request that has waited longest has a quarter of the model's
time in any case, and a batch of long inputs takes at most `SLICE` seconds, or one input. So a small request waits for one or two
such batches, however large the others are. By that order, and by the times of the last batches, a request is admitted if it can
be answered in time, and refused at once if not.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

ALIKE = 16  # pieces by which inputs of a batch may differ, and half of the longer one
SLICE = 0.2  # seconds of a batch of several inputs, at most
QUICK, GAP = 0.02, 0.002  # seconds: what may be answered in the event loop, and how long the model has to have been idle
LULL = 0.1  # seconds after which whoever came together lately is no longer expected
LOOK = 0.1  # seconds after which it is worth looking whether somebody still waits
SMALL = 9  # bits of the number of pieces up to which requests count as equally small
SHARE = 1 / 4  # of the model's time, for the request that has waited longest
RECENT = 15  # batches that tell how fast the model is now


class Full(Exception):
    """The queue is full, or would not be done in time; `seconds` until it is worth another try."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class TooMuch(Exception):
    """A request that would take more than half of the time limit, even if nobody else were there; `seconds` that it would take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.0f} s of work")
        self.seconds = seconds


class Stopped(Exception):
    """The service is going and takes nothing new."""


class Model(Protocol):
    """What a batcher needs of `bertcourse.models.exported.ExportedModel`."""

    def run(self, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One forward pass, an output for each input."""

    def decode(self, rows: Sequence[Any], inputs: Sequence[Any], found: Sequence[Any]) -> list[Any]:
        """The answers of a request."""


@dataclass
class Speed:
    """Estimates the seconds of a batch: a constant and a time per piece, times how slow the model has been lately."""

    start: float = 0.0  # seconds that every batch takes
    piece: float = 0.0  # seconds for each piece, padding included
    slowness: float = 1.0  # median of the last batches: seconds that they took, through those estimated
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def __post_init__(self) -> None:
        if self.start or self.piece:  # measured: a single batch that is held up changes nothing
            self._recent.extend([1.0] * (RECENT // 2))

    def of(self, pieces: float, batches: float = 1) -> float:
        """Seconds of so many pieces in so many batches; 0 while nothing is known."""
        return self.slowness * (batches * self.start + pieces * self.piece)

    def learn(self, pieces: int, seconds: float) -> None:
        """A batch has taken so long."""
        if not (self.start or self.piece):
            self.piece = seconds / pieces
        estimated = self.start + pieces * self.piece
        if estimated > 0:
            self._recent.append(seconds / estimated)
            self.slowness = statistics.median(self._recent)


@dataclass(eq=False)
class Job:
    """A request: its rows, their inputs, and what has been found so far."""

    rows: Sequence[Any]
    inputs: Sequence[Mapping[str, Any]]
    done: asyncio.Future
    found: list[Any]
    left: int  # inputs without an output
    waiting: list[int]  # numbers of the inputs that no batch has taken yet
    pieces: int  # of those
    hung_up: Callable[[], bool]  # has the client closed its side? Perhaps nobody reads the answer, so others come first

    @property
    def size(self) -> int:
        """How much of it is still to do: the bits of the number of pieces, so that requests of much the same size are equal."""
        return size_of(self.pieces)

    def length(self, i: int) -> int:
        """Pieces of an input."""
        return len(self.inputs[i]["input_ids"])


@dataclass
class Hooks:
    """Who wants to know: each is called in the event loop."""

    batch: Callable[[int, float], None] = field(default=lambda size, seconds: None)  # after each
    queue: Callable[[int], None] = field(default=lambda waiting: None)  # whenever it changes


def pieces_of(inputs: Sequence[Mapping[str, Any]]) -> int:
    """Pieces of all inputs together."""
    return sum(len(one["input_ids"]) for one in inputs)


def size_of(pieces: int) -> int:
    """Bits of a number of pieces; all small requests are alike."""
    return max(SMALL, pieces.bit_length())


def padded(inputs: Sequence[Mapping[str, Any]]) -> int:
    """Pieces of a batch with its padding."""
    return len(inputs) * max(len(one["input_ids"]) for one in inputs)


class Batcher:
    """Answers jobs with a model, a batch at a time. To be used in one event loop, between `start` and `stop`."""

    def __init__(self, model: Model, max_batch: int, max_wait: float, max_queue: int, timeout: float, hooks: Hooks | None = None,
                 speed: Speed | None = None) -> None:
        self.model, self.max_batch, self.max_wait, self.max_queue, self.timeout = model, max_batch, max_wait, max_queue, timeout
        self.hooks, self.speed = hooks or Hooks(), speed or Speed()
        self.waiting = 0  # inputs
        self.busy_since: float | None = None  # when the batch began that the model works on
        self._busy_until = 0.0  # when it should be done
        self._jobs: list[Job] = []  # in the order of arrival; those that gave up are taken out with the next batch
        self._owed = 0.0  # seconds that smaller jobs are served before the oldest has its turn
        self._led_by_oldest = False  # the batch in the model
        self._refused: tuple[int, int, int] | None = None  # the smallest request that was refused for want of room: bytes, inputs, pieces
        self._ended = self._took = 0.0  # when the last batch was done, and its seconds
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

    async def answer(
        self,
        rows: Sequence[Any],
        inputs: Sequence[Mapping[str, Any]],
        gone: Callable[[], Awaitable[Any]] | None = None,
        hung_up: Callable[[], bool] = lambda: False,
        size: int = 0,  # bytes of the request, see `check`
    ) -> list[Any]:
        """The answers of one request.

        Raises `Full`, `TooMuch`, `Stopped`, `TimeoutError`, `ConnectionError` (if `gone()` ends first), what the model raises.
        """
        if self._alone(inputs):
            return self._at_once(rows, inputs)
        job = self._enter(rows, inputs, hung_up, size)
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

    # --- who is admitted ---

    def check(self, size: int = 0) -> None:
        """Raises `Full` for a request of so many bytes while there is no room for a smaller one that was refused.

        That is cheap, before anything is read of the new one, and never refuses one that is smaller than all that were.
        """
        if not self._refused or size < self._refused[0]:
            return
        _, count, pieces = self._refused
        # Where the model has become so slow that the refused one would take too long even alone, it tells nothing of the new one.
        if self.seconds(count, pieces) <= self.timeout / 2:
            self._check_room(*self._refused)
        self._refused = None

    def _check(self, size: int, count: int, pieces: int) -> None:
        """Is there room for so many inputs, and will they be answered in time? Raises `Full`, `TooMuch`, `Stopped`."""
        if self._stopped:
            raise Stopped
        own = self.seconds(count, pieces)
        if own > self.timeout / 2 and count > 1:
            raise TooMuch(own)
        self._check_room(size, count, pieces)

    def _check_room(self, size: int, count: int, pieces: int) -> None:
        """Raises `Full` where so many inputs have no room beside those that wait, or would not be answered in time."""
        if not self.waiting:
            return
        own = self.seconds(count, pieces)
        # Half of the queue is kept for those who want little.
        most = self.max_queue if count <= self.max_batch else self.max_queue // 2
        ahead = self._ahead(own, pieces)
        if self.waiting + count > most or ahead + own > self.timeout / 2:
            if self._refused is None or size < self._refused[0]:
                self._refused = size, count, pieces
            raise Full(max(1.0, ahead))

    def seconds(self, count: int, pieces: int) -> float:
        """Seconds of the model for so many inputs with so many pieces together; 0 while nothing is known."""
        return self.speed.of(pieces, -(-count // self.max_batch))

    def _ahead(self, own: float, pieces: int) -> float:
        """Seconds of work that come before a request with so many pieces."""
        running = max(0.0, self._busy_until - time.monotonic()) if self.busy_since is not None else 0.0
        everything = running + self.speed.of(sum(job.pieces for job in self._jobs), self.waiting / self.max_batch)
        if everything + own <= self.timeout / 2:
            return everything
        size = size_of(pieces)
        before = [job.pieces for job in self._jobs if job.waiting and job.size <= size and not job.hung_up()]
        return min(everything, running + self.speed.of(sum(before), len(before) / self.max_batch))

    def _alone(self, inputs: Sequence[Mapping[str, Any]]) -> bool:
        """Is the model idle, is nobody else to be expected, and will it be quick? Then nobody need be woken for this request."""
        if self._stopped or self.waiting or self.busy_since is not None or len(inputs) > self.max_batch:
            return False
        if not 0 < self.speed.of(padded(inputs)) <= QUICK:
            return False
        # Under load requests come back to back, and the event loop cuts one into pieces between two runs of the model: that is no idle model.
        return time.monotonic() - self._ended >= max(self._took, GAP if self._expected <= len(inputs) else LULL)

    def _at_once(self, rows: Sequence[Any], inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Answer in the event loop: with one core for the process, nobody else could work meanwhile."""
        begin = time.monotonic()
        try:
            found = self.model.run(inputs)
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - begin
        self._count(inputs, self._took)
        return self.model.decode(rows, inputs, found)

    def _count(self, inputs: Sequence[Mapping[str, Any]], seconds: float) -> None:
        self.speed.learn(padded(inputs), seconds)
        self.hooks.batch(len(inputs), seconds)

    def _enter(self, rows: Sequence[Any], inputs: Sequence[Mapping[str, Any]], hung_up: Callable[[], bool], size: int) -> Job:
        """Queue a request, if there is room and it can be answered in time. A request that finds nobody waiting needs no room."""
        count, pieces = len(inputs), pieces_of(inputs)
        self._check(size, count, pieces)
        job = Job(rows, inputs, asyncio.get_running_loop().create_future(), [None] * count, count, [*range(count)], pieces, hung_up)
        self._jobs.append(job)
        self._change(count)
        self._arrived.set()
        return job

    def _leave(self, job: Job) -> None:
        """Whoever asked is answered, or waits no longer: what no batch has taken yet is dropped."""
        job.done.cancel()
        self._drop(job)

    def _drop(self, job: Job) -> None:
        self._change(-len(job.waiting))
        job.waiting, job.pieces = [], 0

    def _change(self, by: int) -> None:
        if by:
            self.waiting += by
            self.hooks.queue(self.waiting)

    # --- what goes through the model ---

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
            inputs = [job.inputs[i] for job, i in batch]
            self.busy_since = begin = time.monotonic()
            self._busy_until = begin + self.speed.of(padded(inputs))
            try:
                finished = await loop.run_in_executor(self._thread, self._run, batch)
            except Exception as error:  # the model's: whoever is in this batch gets it
                finished = [(job, error) for job in {job for job, _ in batch}]
            self._ended, self.busy_since = time.monotonic(), None
            self._took = self._ended - begin
            self._expected = max(1, min(len(batch) + self.waiting, self.max_batch))
            self._count(inputs, self._ended - begin)
            self._settle(self._ended - begin)
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
        """The next batch: an input of the smallest or of the oldest job, and those like it in length."""
        self._jobs = [job for job in self._jobs if job.waiting and not job.done.done()]
        jobs = [job for job in self._jobs if not job.hung_up()] or self._jobs
        if not jobs:
            return []
        leader = jobs[0] if self._owed <= 0 else min(jobs, key=lambda job: job.size)  # of equal ones the oldest
        self._led_by_oldest = leader is jobs[0]
        chosen = self._fill(jobs, leader)
        for job in {job for job, _ in chosen}:
            taken = {i for other, i in chosen if other is job}
            job.waiting = [i for i in job.waiting if i not in taken]
            job.pieces -= sum(job.length(i) for i in taken)
        self._change(-len(chosen))
        return chosen

    def _settle(self, seconds: float) -> None:
        """After a batch: when is it the oldest job's turn again?"""
        self._owed = seconds * (1 / SHARE - 1) if self._led_by_oldest else self._owed - seconds

    def _fill(self, jobs: Sequence[Job], leader: Job) -> list[tuple[Job, int]]:
        """The leader's first input and what may go with it, as many as fit: first its own, then of the smaller jobs what is most like it."""
        length = leader.length(leader.waiting[0])
        found = []
        for number, job in enumerate(jobs):
            for i in job.waiting:
                far = abs(job.length(i) - length)
                if far <= max(ALIKE, max(job.length(i), length) // 2):
                    found.append((job is not leader, job.size, far, number, i))
        found.sort()
        chosen: list[tuple[int, int]] = []
        longest = 0
        for *_, number, i in found[:self.max_batch]:
            longest = max(longest, jobs[number].length(i))
            if chosen and self.speed.of((len(chosen) + 1) * longest) > SLICE:
                break
            chosen.append((number, i))
        return [(jobs[number], i) for number, i in sorted(chosen)]  # in the order of arrival

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
