"""The queue: what goes together, in which order, and what happens to those who cannot wait."""

import asyncio
import threading
import time

import pytest

from bertcourse.serving.batching import GAP, LULL, SLICE, Batcher, Full, Hooks, Speed, Stopped, TooMuch


class Model:
    "Takes `seconds` for a batch, and says of each input what it was; remembers the batches."

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches, self.go = seconds, [], threading.Event()
        self.go.set()

    def run(self, inputs):
        self.go.wait(10)
        time.sleep(self.seconds)
        self.batches.append([one["input_ids"] for one in inputs])
        if any(one["input_ids"] == [13] for one in inputs):
            raise ZeroDivisionError
        return [one["input_ids"] for one in inputs]

    def decode(self, rows, inputs, found):
        assert [one["input_ids"] for one in inputs] == found  # nobody else's
        if "no answer" in rows:
            raise KeyError
        return [(row, sum(map(len, found))) for row in rows]


def of_length(*lengths: int) -> list[dict]:
    return [{"input_ids": [7] * n} for n in lengths]


def with_batcher(work, model: Model, **more):
    "Run `work(batcher)` in a loop of its own."
    # Measured beforehand, as in the service: slow enough that nobody is answered at once, and a first batch that is held up changes nothing.
    settings = {"max_batch": 4, "max_wait": 0.0, "max_queue": 8, "timeout": 5.0, "speed": Speed(0.03, 1e-6)} | more

    async def main():
        batcher = Batcher(model, **settings)
        await batcher.start()
        try:
            return await asyncio.wait_for(work(batcher), 20)
        finally:
            model.go.set()
            await batcher.stop()
    return asyncio.run(main())


async def held(batcher: Batcher, model: Model, *jobs):
    "Jobs that come while the model is busy with another: `asyncio` tasks, queued in this order."
    model.go.clear()
    first = asyncio.create_task(batcher.answer(["first"], of_length(1)))
    while not batcher.busy_since:
        await asyncio.sleep(0.001)
    tasks = []
    for rows, inputs in jobs:
        tasks.append(asyncio.create_task(batcher.answer(rows, inputs)))
        await asyncio.sleep(0)
    return first, tasks


def test_who_waits_together_is_read_together():
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, *((["r"], of_length(5)) for _ in range(6)))
        model.go.set()
        assert await first == [("first", 1)]
        assert await asyncio.gather(*tasks) == [[("r", 5)]] * 6
    with_batcher(work, model)
    assert [len(batch) for batch in model.batches] == [1, 4, 2]


def test_like_lengths_go_together_and_the_oldest_first():
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, *(([n], of_length(n)) for n in (100, 5, 90, 6, 400)))
        model.go.set()
        await asyncio.gather(first, *tasks)
    with_batcher(work, model)
    assert [[len(ids) for ids in batch] for batch in model.batches] == [[1], [100, 90], [5, 6], [400]]


def test_a_request_of_many_inputs_is_answered_when_all_are_done():
    model = Model()

    async def work(batcher):
        return await batcher.answer(["long"], of_length(*[9] * 7))
    assert with_batcher(work, model) == [("long", 63)]
    assert [len(batch) for batch in model.batches] == [4, 3]


def test_a_fault_reaches_those_in_the_batch_and_nobody_else():
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, (["bad"], [{"input_ids": [13]}]), (["same batch"], of_length(1)),
                                  (["other batch"], of_length(50)), (["no answer"], of_length(50)))
        model.go.set()
        return await first, await asyncio.gather(*tasks, return_exceptions=True)
    first, (bad, same, other, none) = with_batcher(work, model)
    assert first == [("first", 1)] and other == [("other batch", 50)]
    assert isinstance(bad, ZeroDivisionError) and isinstance(same, ZeroDivisionError) and isinstance(none, KeyError)


def test_a_failed_batch_of_a_long_request_drops_the_rest():
    model = Model()

    async def work(batcher):
        with pytest.raises(ZeroDivisionError):
            await batcher.answer(["long"], [{"input_ids": [13]}] + of_length(*[1] * 6))
        assert batcher.waiting == 0
        return await batcher.answer(["next"], of_length(2))
    assert with_batcher(work, model) == [("next", 2)]


def test_what_takes_too_long_is_dropped_before_the_model_sees_it():
    model = Model()

    async def work(batcher):
        first, (late,) = await held(batcher, model, (["late"], of_length(77, 77)))
        with pytest.raises(TimeoutError):
            await late
        assert batcher.waiting == 0
        model.go.set()
        with pytest.raises(TimeoutError):
            await first
        assert await batcher.answer(["after"], of_length(3)) == [("after", 3)]
    with_batcher(work, model, timeout=0.3)
    assert [len(batch[0]) for batch in model.batches] == [1, 3]


def test_who_hangs_up_is_dropped():
    model = Model()

    async def work(batcher):
        first, _ = await held(batcher, model)
        gone = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(batcher.answer(["gone"], of_length(88), lambda: gone))
        await asyncio.sleep(0.2)
        assert batcher.waiting == 1
        gone.set_result(None)
        with pytest.raises(ConnectionError):
            await task
        assert batcher.waiting == 0
        model.go.set()
        await first
    with_batcher(work, model)
    assert [len(batch[0]) for batch in model.batches] == [1]


def test_a_full_queue_refuses_and_says_for_how_long():
    model = Model(seconds=0.05)

    async def work(batcher):
        await batcher.answer(["known"], of_length(1))  # so that a time is known
        first, tasks = await held(batcher, model, *(([n], of_length(1)) for n in range(8)))
        with pytest.raises(Full) as full:
            await batcher.answer(["one too many"], of_length(1))
        assert full.value.seconds >= 1
        with pytest.raises(Full):
            batcher.check()
        model.go.set()
        await asyncio.gather(first, *tasks)
        batcher.check()
        assert await batcher.answer(["room again"], of_length(1))
    with_batcher(work, model)


def test_what_could_not_be_answered_in_time_is_refused_at_once():
    model = Model(seconds=0.2)

    async def work(batcher):
        await batcher.answer(["known"], of_length(1))
        first, tasks = await held(batcher, model, (["a"], of_length(1)))
        with pytest.raises(Full):  # one is in the model, one waits, 0.2 s each: with its own, more than half of the second
            await batcher.answer(["b"], of_length(1))
        model.go.set()
        await asyncio.gather(first, *tasks)
    with_batcher(work, model, timeout=1.0, max_batch=1, speed=None)


def test_a_request_larger_than_the_queue_is_taken_when_nobody_waits():
    model = Model()

    async def work(batcher):
        return await batcher.answer(["long"], of_length(*[2] * 20))
    assert with_batcher(work, model, max_queue=8) == [("long", 40)]


def test_alone_nobody_waits_for_others():
    model = Model()

    async def work(batcher):
        begin = time.monotonic()
        await batcher.answer(["a"], of_length(1))
        await batcher.answer(["b"], of_length(1))
        return time.monotonic() - begin
    assert with_batcher(work, model, max_wait=5.0) < 4


@pytest.mark.parametrize("pause", [0.0, 5 * GAP], ids=["while the batch's end is fresh", "after a moment"])
def test_in_company_a_batch_waits_for_those_who_were_there_lately(pause):
    model = Model()

    async def client(batcher, name):
        for _ in range(3):
            await batcher.answer([name], of_length(4))
            await asyncio.sleep(pause + 0.001 * name)  # each comes back at another moment

    async def work(batcher):
        first, tasks = await held(batcher, model, *(([n], of_length(4)) for n in range(4)))
        model.go.set()
        await asyncio.gather(first, *tasks)
        await asyncio.gather(*(client(batcher, n) for n in range(4)))
    with_batcher(work, model, max_wait=2.0)
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 4, 4]


def test_after_a_lull_nobody_is_expected():
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, *(([n], of_length(4)) for n in range(4)))
        model.go.set()
        await asyncio.gather(first, *tasks)
        batcher.speed = Speed(piece=0.001)
        await asyncio.sleep(LULL)
        begin = time.monotonic()
        await batcher.answer(["b"], of_length(1))
        return time.monotonic() - begin
    assert with_batcher(work, model, max_wait=5.0) < 4


def test_who_comes_while_the_event_loop_cuts_texts_is_counted():
    """Cutting a request takes longer than `GAP`: that is no idle model, or all would be answered one by one and nobody refused."""
    model = Model(seconds=5 * GAP)

    async def client(batcher):
        time.sleep(2 * GAP)  # the event loop cuts the texts
        try:
            return await batcher.answer(["r"] * 4, of_length(1, 1, 1, 1))
        except Full:
            return None

    async def work(batcher):
        return await asyncio.gather(*(client(batcher) for _ in range(30)))
    answers = with_batcher(work, model, speed=Speed(2 * GAP, 1e-6))
    assert answers[0] and answers.count(None) > 10


def test_a_client_that_asks_now_and_then_is_answered_in_the_event_loop():
    model = Model(seconds=2 * GAP)

    async def work(batcher):
        for _ in range(3):
            assert batcher._alone(of_length(1))
            await batcher.answer(["r"], of_length(1))
            assert not batcher._alone(of_length(1))
            await asyncio.sleep(4 * GAP)
    with_batcher(work, model, speed=Speed(2 * GAP, 1e-6))


def test_stopping_finishes_what_is_queued_and_takes_nothing_new():
    model = Model()
    sizes, depths = [], []

    async def main():
        batcher = Batcher(model, 4, 0.0, 8, 5.0, Hooks(batch=lambda size, seconds: sizes.append(size), queue=depths.append))
        await batcher.start()
        first, tasks = await held(batcher, model, *(([n], of_length(1)) for n in range(6)))
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(Stopped):
            await batcher.answer(["new"], of_length(1))
        model.go.set()
        await stopping
        assert await asyncio.gather(first, *tasks) == [[("first", 1)], *([(n, 1)] for n in range(6))]
    asyncio.run(main())
    assert sizes == [1, 4, 2] and depths[-1] == 0 and max(depths) == 6


# --- large requests and small ones --------------------------------------------------------------------------------

def names(model: Model) -> list[str]:
    "Which requests were in each batch: l, a large one, whose inputs have 400 pieces; s, small ones; h, the one that was held."
    kinds = {400: "l", 5: "s", 1: "h"}
    return ["".join(sorted({kinds[len(ids)] for ids in batch})) for batch in model.batches]


def test_a_small_request_waits_for_a_batch_or_two_of_a_large_one():
    model = Model()

    async def work(batcher):
        first, (large, small) = await held(batcher, model, (["large"], of_length(*[400] * 40)), (["small"], of_length(5)))
        model.go.set()
        assert await small == [("small", 5)]
        assert not large.done()
        await asyncio.gather(first, large)
    with_batcher(work, model, max_queue=200)
    assert names(model)[0] == "h" and names(model).index("s") <= 2 and names(model).count("l") == 10


def test_small_requests_cannot_hold_back_a_large_one():
    async def main():
        batcher = Batcher(Model(), 4, 0.0, 200, 100.0, speed=Speed(0.03, 1e-6))
        batcher._enter(["large"], of_length(*[400] * 40), lambda: False, 0)
        order = ""
        while "l" * 10 not in order.replace("s", ""):
            for _ in range(8):  # small ones come all the time
                batcher._enter(["small"], of_length(5), lambda: False, 0)
            batch = batcher._take()
            order += "l" if len(batch[0][0].inputs) > 1 else "s"
            batcher._settle(1.0)  # each batch takes as long
            for job in batcher._jobs:
                if job.waiting and job.rows == ["small"]:
                    batcher._leave(job)
        return order
    assert asyncio.run(main()) == ("lsss" * 10)[:-3], "a quarter of the time is the large one's"


def test_requests_of_much_the_same_size_are_answered_in_their_order():
    model, ended = Model(), []

    async def one(batcher, name, count):
        await batcher.answer([name], of_length(*[400] * count))
        ended.append(name)

    async def work(batcher):
        first, _ = await held(batcher, model)
        tasks = []
        for name, count in (("a", 14), ("b", 12), ("c", 11), ("tiny", 1), ("d", 13)):
            tasks.append(asyncio.create_task(one(batcher, name, count)))
            await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *tasks)
    with_batcher(work, model, max_queue=200)
    assert ended == ["tiny", "a", "b", "c", "d"]


def test_a_batch_of_long_inputs_is_short():
    model = Model()

    async def work(batcher):
        await batcher.answer(["long"], of_length(*[400] * 10))
    with_batcher(work, model, max_batch=8, max_queue=50, speed=Speed(0.0, SLICE / 1000), timeout=100)
    assert [len(batch) for batch in model.batches[:3]] == [2, 2, 2]  # 400 pieces take 0.4 of it


def test_an_input_that_takes_longer_than_a_batch_may_goes_alone():
    model = Model()

    async def work(batcher):
        await batcher.answer(["long"], of_length(400, 400))
    with_batcher(work, model, speed=Speed(0.0, SLICE / 100), timeout=100)
    assert [len(batch) for batch in model.batches] == [1, 1]


def test_a_request_that_cannot_be_answered_in_time_is_too_much():
    model = Model()

    async def work(batcher):
        with pytest.raises(TooMuch) as much:  # alone, too
            await batcher.answer(["large"], of_length(*[100] * 30))
        assert much.value.seconds == pytest.approx(3.0)
        batcher.check()
        assert await batcher.answer(["smaller"], of_length(*[100] * 20)) == [("smaller", 2_000)]
    with_batcher(work, model, speed=Speed(0.0, 0.001), max_queue=100)


def test_a_single_input_is_never_too_much():
    async def work(batcher):
        assert await batcher.answer(["slow"], of_length(10)) == [("slow", 10)]
    with_batcher(work, Model(), speed=Speed(0.0, 1.0), timeout=5.0)  # a machine that stood still for a while must get on again


def test_what_is_refused_to_a_large_request_is_not_refused_to_a_small_one():
    model = Model()

    async def work(batcher):
        first, (large,) = await held(batcher, model, (["large"], of_length(*[100] * 20)))  # 2 s of 2.5
        with pytest.raises(Full) as full:
            await batcher.answer(["as large"], of_length(*[100] * 20), size=2_000)
        assert 2.0 < full.value.seconds < 2.4
        with pytest.raises(Full):
            batcher.check(2_000)
        batcher.check(1_999)  # perhaps there is room for it: it has to be read
        small = asyncio.create_task(batcher.answer(["small"], of_length(5), size=50))
        await asyncio.sleep(0)
        model.go.set()
        assert await small == [("small", 5)] and not large.done()
        await asyncio.gather(first, large)
    with_batcher(work, model, speed=Speed(0.03, 0.001), max_queue=100)


@pytest.mark.parametrize("busy", [False, True])
def test_a_refused_request_that_would_now_take_too_long_shuts_nobody_out(busy):
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, (["large"], of_length(*[100] * 20)))
        with pytest.raises(Full):
            await batcher.answer(["as large"], of_length(*[100] * 20), size=2_000)
        model.go.set()
        await asyncio.gather(first, *tasks)
        first, tasks = await held(batcher, model, *[(["small"], of_length(5))] * busy)
        batcher.speed.slowness = 10.0  # 20 s for the request that was refused: too much for it even alone
        batcher.check(2_000)  # many bytes are not yet many pieces
        model.go.set()
        await asyncio.gather(first, *tasks)
    with_batcher(work, model, speed=Speed(0.03, 0.001), max_queue=100)


def test_large_requests_have_half_of_the_queue():
    model = Model()

    async def work(batcher):
        first, tasks = await held(batcher, model, (["large"], of_length(*[5] * 10)))
        with pytest.raises(Full):
            await batcher.answer(["large"], of_length(*[5] * 6))
        small = [asyncio.create_task(batcher.answer(["small"], of_length(5))) for _ in range(10)]
        await asyncio.sleep(0)
        assert batcher.waiting == 20
        with pytest.raises(Full):
            await batcher.answer(["small"], of_length(5))
        model.go.set()
        await asyncio.gather(first, *tasks, *small)
    with_batcher(work, model, max_queue=20)


def test_whoever_has_hung_up_perhaps_goes_last():
    model = Model()

    async def work(batcher):
        first, _ = await held(batcher, model)
        away = asyncio.create_task(batcher.answer(["away"], of_length(400), hung_up=lambda: True))
        await asyncio.sleep(0)
        others = [asyncio.create_task(batcher.answer(["small"], of_length(5))) for _ in range(9)]
        await asyncio.sleep(0)
        model.go.set()
        assert await away == [("away", 400)]
        await asyncio.gather(first, *others)
    with_batcher(work, model, max_queue=50)
    assert names(model) == ["h", "s", "s", "s", "l"]


def test_the_speed_follows_the_machine_and_not_a_single_batch():
    speed = Speed(0.01, 0.001)
    assert speed.of(90) == pytest.approx(0.1) and speed.of(0, 3) == pytest.approx(0.03)
    speed.learn(90, 10.0)
    assert speed.of(90) == pytest.approx(0.1)
    for _ in range(20):
        speed.learn(40, 0.1)  # twice the time
    assert speed.of(90) == pytest.approx(0.2)
    unknown = Speed()
    assert unknown.of(1_000) == 0
    unknown.learn(100, 1.0)
    assert unknown.of(50) == pytest.approx(0.5)
