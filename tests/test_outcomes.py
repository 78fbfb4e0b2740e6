"""Streams of outcomes: one for each position, bounded, and left at any point."""

from __future__ import annotations

import asyncio
import gc
import itertools
import uuid
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async import (
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    Fixed,
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    InvalidVid,
    KokoonClient,
    Limits,
    Outcome,
    OutcomeStream,
    RetryPolicy,
    WaitTimedOut,
)
from kokoon_async._http.protocol import Answer
from kokoon_async._waiting.bulk import Fetching
from kokoon_async.events import Event, WaitStarted
from kokoon_async.simulator import Constant, Simulator, Status

from .cancellation import MODES, Mode, Scenario, cancel_everywhere
from .fakes import is_idle, make_vid, record, turns


VIDS = [make_vid(number) for number in range(1, 400)]
ONE_TRY = RetryPolicy(attempts=1)


class Fetches:
    """Answer fetches in the order in which a test lets them go, or at once."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.asked: list[str] = []
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.most = self.running = 0
        self._at_once = at_once

    async def __call__(self, vid: str) -> Answer:
        """Give a record, a little later."""
        self.asked.append(vid)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self._at_once:
                await asyncio.sleep(0)
            else:
                await self.waiting.setdefault(vid, asyncio.get_running_loop().create_future())
        finally:
            self.running -= 1
            self.waiting.pop(vid, None)
        if vid == VIDS[13]:
            raise ConnectionFailed("gone", vid=vid, attempts=3)
        return Answer(Image(vid, ImageState.COMPLETED), record(vid))


def stream(vids: Any, fetch: Any, *, workers: int = 4, in_order: bool = False) -> OutcomeStream:
    """Make a stream over a fake fetch."""
    return OutcomeStream(Fetching(vids, fetch, workers=workers, in_order=in_order))


class Endless:
    """An input that tells how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for number in itertools.count(1):
            self.read += 1
            yield make_vid(number)


async def slowly(items: Any) -> AsyncIterator[Any]:
    """Make an async input of a plain one."""
    for item in items:
        await asyncio.sleep(0)
        yield item


def test_an_outcome_is_an_image_or_an_error() -> None:
    """An outcome unwraps to its image, or raises its error."""
    image = Image(VIDS[0], ImageState.COMPLETED)
    error = ImageNotFound("gone")
    assert Outcome(VIDS[0], image).ok
    assert Outcome(VIDS[0], image).unwrap() is image
    assert not Outcome(VIDS[0], None, error).ok
    with pytest.raises(ImageNotFound) as caught:
        Outcome(VIDS[0], None, error).unwrap()
    assert caught.value is error
    for both in ({}, {"image": image, "error": error}):
        with pytest.raises(ConfigurationError, match="either an image or an error"):
            Outcome(VIDS[0], **both)


@pytest.mark.fault("F-103")
@pytest.mark.parametrize(("in_order", "first"), [(False, 2), (True, 0)])
async def test_outcomes_come_as_they_are_ready(in_order: bool, first: int) -> None:
    """Outcomes come in the order in which they are ready, and in that of the input if asked."""
    fetch = Fetches(at_once=False)
    async with stream(VIDS[:3], fetch, in_order=in_order) as outcomes:
        given = asyncio.ensure_future(anext(outcomes))
        await turns(10)
        for ready in (2, 1, 0):
            fetch.waiting[VIDS[ready]].set_result(None)
            await turns()
        order = [(await given).vid] + [outcome.vid async for outcome in outcomes]
    assert order[0] == VIDS[first]
    assert order == (VIDS[:3] if in_order else VIDS[2::-1])


@pytest.mark.parametrize("source", [list, tuple, iter, slowly, dict.fromkeys])
@pytest.mark.parametrize("in_order", [False, True])
async def test_every_position_gets_one_outcome(source: Any, in_order: bool) -> None:
    """Any kind of input is read to its end, and each of its items has one outcome."""
    fetch = Fetches()
    outcomes = [outcome async for outcome in stream(source(VIDS), fetch, in_order=in_order)]
    assert Counter(outcome.vid for outcome in outcomes) == Counter(VIDS)
    assert [outcome.vid for outcome in outcomes if not outcome.ok] == [VIDS[13]]
    assert 1 <= fetch.most <= 4
    assert fetch.most == 4 or source is slowly
    if in_order:
        assert [outcome.vid for outcome in outcomes] == VIDS


async def test_an_empty_input_has_no_outcomes() -> None:
    """Nothing in, nothing out, no request."""
    fetch = Fetches()
    assert [outcome async for outcome in stream([], fetch)] == []
    assert fetch.asked == []


async def test_duplicates_are_fetched_once_and_reported_each_time() -> None:
    """A vid that is under way, in any spelling, is not asked for again."""
    fetch = Fetches(at_once=False)
    same = [VIDS[0], VIDS[0].upper(), uuid.UUID(VIDS[0]), VIDS[1], VIDS[0]]
    outcomes = stream(same, fetch, in_order=True)
    first = asyncio.create_task(anext(outcomes))
    await turns(20)
    assert sorted(fetch.asked) == sorted(VIDS[:2])
    for wait in tuple(fetch.waiting.values()):
        wait.set_result(None)
    found = [await first] + [outcome async for outcome in outcomes]
    assert [outcome.vid for outcome in found] == [VIDS[0]] * 3 + [VIDS[1], VIDS[0]]
    assert sorted(fetch.asked) == sorted(VIDS[:2])


@pytest.mark.fault("F-99")
async def test_an_invalid_id_is_an_outcome() -> None:
    """What is no id is reported as it was given, cut short, and spoils no other."""
    given_ids: list[Any] = ["../x", VIDS[0], 5, "a" * 1_000_000, None]
    outcomes = [outcome async for outcome in stream(given_ids, Fetches(), in_order=True)]
    assert [outcome.vid for outcome in outcomes] == ["../x", VIDS[0], "5", "a" * 200, "None"]
    assert [outcome.ok for outcome in outcomes] == [False, True, False, False, False]
    assert {type(o.error) for o in outcomes if not o.ok} == {InvalidVid}
    assert {o.attempts for o in outcomes if not o.ok} == {0}


class Secret(str):
    """A text that must not be shown."""

    __slots__ = ()

    def __str__(self) -> str:
        return "hidden"


class Textless:
    """An object whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.fault("F-99")
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(
    ("item", "shown"),
    [(Secret("password"), "<Secret>"), (Textless(), "<Textless>"), (10**5000, "<int>")],
    ids=["secret", "textless", "huge"],
)
async def test_an_item_without_a_text_is_an_outcome(item: Any, shown: str, in_order: bool) -> None:
    """An item that has no text, or one that must not be shown, is told by its type, and spoils none."""
    given_ids = [VIDS[0], item, VIDS[1]]
    found = {
        outcome.vid: outcome async for outcome in stream(given_ids, Fetches(), in_order=in_order)
    }
    assert {vid: outcome.ok for vid, outcome in found.items()} == {
        VIDS[0]: True,
        shown: False,
        VIDS[1]: True,
    }
    assert isinstance(found[shown].error, InvalidVid)


@pytest.mark.parametrize("vids", [VIDS[0], b"bytes", 5, None])
async def test_an_input_that_is_none_is_refused(vids: Any) -> None:
    """One text is not an input, though Python could iterate over its letters."""
    async with KokoonClient("token", base_url="http://127.0.0.1:1") as client:
        for make in (client.get_images, client.wait_many):
            with pytest.raises(ConfigurationError, match="vids must be an iterable"):
                make(vids)


@pytest.mark.fault("F-93")
@pytest.mark.parametrize("in_order", [False, True])
async def test_the_input_is_read_no_faster_than_outcomes_are_taken(in_order: bool) -> None:
    """A consumer that stops stops the reading, some positions ahead."""
    endless = Endless()
    async with stream(endless, Fetches(), workers=4, in_order=in_order) as outcomes:
        for taken in range(1, 30):
            await anext(outcomes)
            await turns(20)
            assert endless.read <= taken + 4 * 4


async def test_one_slow_image_holds_up_no_more_than_the_room() -> None:
    """In the order of the input, the reading goes on past a slow image, and not for ever."""
    endless, fetch = Endless(), Fetches(at_once=False)
    async with stream(endless, fetch, workers=2, in_order=True) as outcomes:
        first = asyncio.create_task(anext(outcomes))
        for _ in range(50):
            await turns()
            for vid, wait in tuple(fetch.waiting.items()):
                if vid != make_vid(1) and not wait.done():
                    wait.set_result(None)
        assert endless.read == 2 * 4
        assert not first.done()
        fetch.waiting[make_vid(1)].set_result(None)
        assert (await first).vid == make_vid(1)


@pytest.mark.parametrize("source", [iter, slowly])
async def test_an_error_of_the_input_comes_last(source: Any) -> None:
    """What the input raises reaches the caller after the outcomes of what it gave."""

    def failing() -> Iterator[str]:
        yield from VIDS[:5]
        raise OSError("disk")

    outcomes = stream(source(failing()), Fetches())
    seen = [(await anext(outcomes)).vid for _ in range(5)]
    with pytest.raises(OSError, match="disk"):
        await anext(outcomes)
    assert sorted(seen) == sorted(VIDS[:5])
    assert [outcome async for outcome in outcomes] == []


async def test_a_defect_in_the_work_reaches_the_consumer() -> None:
    """What should never be raised is raised to the consumer, and nothing hangs."""

    async def broken(vid: str) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in stream(VIDS, broken):
            pass


@pytest.mark.fault("F-105")
async def test_cancelling_a_task_of_the_stream_does_not_hang_the_consumer() -> None:
    """Who cancels all tasks of the loop and goes on gets what was ready, and then an error."""
    fetch = Fetches(at_once=False)
    outcomes = stream(VIDS[:9], fetch)
    first = asyncio.create_task(anext(outcomes))
    await turns(20)
    fetch.waiting[VIDS[2]].set_result(None)
    assert (await first).vid == VIDS[2]
    fetch.waiting[VIDS[3]].set_result(None)
    await turns()
    workers = [task for task in asyncio.all_tasks() if task.get_name() == "kokoon fetch"]
    assert len(workers) == 4
    for worker in workers:
        worker.cancel()
    assert (await anext(outcomes)).vid == VIDS[3]
    with pytest.raises(ClientClosed, match=r"cancelled from outside\. Start a new stream"):
        await anext(outcomes)
    assert fetch.running == 0


@pytest.mark.fault("F-110")
async def test_leaving_early_stops_the_work() -> None:
    """After a break inside async with nothing runs, and nothing more is read."""
    endless, fetch = Endless(), Fetches()
    async with stream(endless, fetch) as outcomes:
        async for _ in outcomes:
            break
        repr(outcomes)
    read = endless.read
    await turns(20)
    assert (endless.read, fetch.running) == (read, 0)
    assert [outcome async for outcome in outcomes] == []


@pytest.mark.fault("F-110")
async def test_an_abandoned_stream_warns_and_stops() -> None:
    """A stream that is dropped half-way says so, and its tasks end."""
    fetch = Fetches(at_once=False)
    outcomes = stream(VIDS, fetch)
    first = asyncio.create_task(anext(outcomes))
    await turns(10)
    fetch.waiting[VIDS[0]].set_result(None)
    await first
    assert fetch.running > 0
    del first
    with pytest.warns(ResourceWarning, match="was abandoned; use async with"):  # noqa: PT031
        del outcomes
        gc.collect()
    await turns(10)
    assert fetch.running == 0


@pytest.mark.fault("F-110")
@pytest.mark.parametrize("taken", [0, 3])
async def test_a_stream_with_nothing_left_to_do_is_not_abandoned(taken: int) -> None:
    """Who never began, or took everything, need not close anything."""
    outcomes = stream(VIDS[:3], Fetches())
    for _ in range(taken):
        await anext(outcomes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del outcomes
        gc.collect()


async def test_a_stream_has_one_consumer() -> None:
    """A second consumer at the same time is refused, and spoils nothing."""
    async with stream(VIDS, Fetches()) as outcomes:
        first = asyncio.create_task(anext(outcomes))
        await turns(1)
        with pytest.raises(RuntimeError, match="already has a consumer"):
            await anext(outcomes)
        assert (await first).ok


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("in_order", [False, True])
async def test_a_cancelled_anext_inside_async_with_loses_nothing(in_order: bool) -> None:
    """Inside ``async with``, whoever cancels one anext() or many still gets every outcome."""
    found: list[str] = []
    cut = 0
    async with stream(VIDS[:40], Fetches(), in_order=in_order) as outcomes:
        for patience in itertools.cycle(range(6)):
            taking = asyncio.ensure_future(anext(outcomes))
            await turns(patience)
            taking.cancel()
            await asyncio.wait([taking])
            if taking.cancelled():
                cut += 1
            elif isinstance(taking.exception(), StopAsyncIteration):
                break
            else:
                found.append(taking.result().vid)
    assert cut >= 6
    assert Counter(found) == Counter(VIDS[:40])
    if in_order:
        assert found == VIDS[:40]


@pytest.mark.fault("F-105")
async def test_going_on_after_a_cancellation_outside_of_async_with() -> None:
    """Without ``async with``, a cancelled stream stops, and never seems to have ended by itself."""
    fetch = Fetches(at_once=False)
    outcomes = stream(VIDS[:3], fetch)
    taking = asyncio.ensure_future(anext(outcomes))
    await turns(10)
    assert fetch.running == 3
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert fetch.running == 0
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"0 outcomes so far> was stopped .* async with"):
            await anext(outcomes)
    await outcomes.aclose()
    assert [outcome async for outcome in outcomes] == []


async def test_closed_and_cancelled_at_once_is_closed() -> None:
    """Who closes a stream while its anext() is cancelled needs no telling that it has ended."""
    outcomes = stream(VIDS[:3], Fetches(at_once=False))
    taking = asyncio.ensure_future(anext(outcomes))
    await turns(10)
    taking.cancel()
    await outcomes.aclose()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert [outcome async for outcome in outcomes] == []


async def test_closing_wakes_who_waits_for_an_outcome() -> None:
    """Who waits for an outcome while the stream is closed gets the end of the iteration."""
    outcomes = stream(VIDS, Fetches(at_once=False))
    waiting = asyncio.create_task(anext(outcomes))
    await turns(10)
    await outcomes.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting


@given(
    st.lists(st.sampled_from([*VIDS[:6], VIDS[13], "bad"]), max_size=40),
    st.integers(1, 5),
    st.booleans(),
)
def test_positions_and_outcomes_agree(items: list[str], workers: int, in_order: bool) -> None:
    """Whatever the input and the number of workers, positions and outcomes are the same."""

    async def run() -> list[str]:
        outcomes = stream(items, Fetches(), workers=workers, in_order=in_order)
        return [outcome.vid async for outcome in outcomes]

    found = asyncio.run(run())
    assert Counter(found) == Counter(items)
    if in_order:
        assert found == items


# --- through the client ---------------------------------------------------------------------------


async def test_get_images_from_a_server() -> None:
    """Records, missing images and failures come out side by side, with their attempts."""
    async with Simulator(seed=1, strict=True) as sim:
        vids = [sim.add_image("completed") for _ in range(30)]
        missing = str(uuid.UUID(int=7))
        sim.fault(Status(503), vid=vids[3])
        async with (
            KokoonClient("token", base_url=sim.base_url, limits=Limits(max_in_flight=5)) as client,
            client.get_images([*vids, missing], in_order=True) as stream_,
        ):
            outcomes = [outcome async for outcome in stream_]
    assert [outcome.vid for outcome in outcomes] == [*vids, missing]
    assert [outcome.attempts for outcome in outcomes] == [1] * 3 + [2] + [1] * 27
    assert isinstance(outcomes[-1].error, ImageNotFound)
    assert all(outcome.ok for outcome in outcomes[:-1])


async def test_a_client_that_closes_ends_its_streams() -> None:
    """Closing the client raises ClientClosed to who iterates, and not a million outcomes."""
    async with Simulator(latency=1000.0) as sim:
        client = KokoonClient("token", base_url=sim.base_url)
        for make in (client.get_images, client.wait_many):
            outcomes = make(Endless())
            waiting = asyncio.create_task(anext(outcomes))
            await turns(30)
            if make == client.wait_many:
                await client.aclose()
            else:
                client._calls.end_all("The client was closed meanwhile.")
            with pytest.raises(ClientClosed):
                await waiting


@pytest.mark.looptime
async def test_wait_many_waits_for_each() -> None:
    """Images are reported as they finish: completed, failed, too late, missing, no id."""
    async with Simulator(seed=2) as sim:
        quick = sim.add_image("processing*5s completed")
        slow = sim.add_image("processing*20s completed")
        bad = sim.add_image("processing*10s error")
        never = sim.add_image("processing")
        missing = str(uuid.UUID(int=7))
        vids = [never, slow, bad, quick, missing, "bad", quick]
        async with KokoonClient("token", base_url=sim.base_url) as client:
            poll = Fixed(interval=1.0, jitter=0)
            async with client.wait_many(vids, timeout=60, poll=poll) as outcomes:
                found = [(seen.vid, seen.error and type(seen.error)) async for seen in outcomes]
            assert len(client._scheduler) == 0
    assert sorted(found[:2]) == sorted([("bad", InvalidVid), (missing, ImageNotFound)])
    assert found[2:] == [
        *[(quick, None)] * 2,
        (bad, ImageFailed),
        (slow, None),
        (never, WaitTimedOut),
    ]
    assert sim.request_count(quick) <= 8  # both waits share their looks


@pytest.mark.looptime
@pytest.mark.fault("F-105")
@pytest.mark.parametrize("method", ["get_images", "wait_many"])
async def test_a_time_out_for_each_outcome(method: str) -> None:
    """``wait_for`` around each anext() tells that nothing came yet, and every outcome comes."""
    async with Simulator(seed=6, latency=12.0) as sim:
        vids = [sim.add_image("completed") for _ in range(4)]
        async with KokoonClient("token", base_url=sim.base_url, limits=Limits(2)) as client:
            told: list[str] = []
            async with getattr(client, method)([*vids, "bad"]) as outcomes:
                while len(told) < 100:
                    try:
                        outcome = await asyncio.wait_for(anext(outcomes), 5)
                        told.append(outcome.vid)
                    except TimeoutError:
                        told.append("nothing yet")
                    except StopAsyncIteration:
                        break
    assert told.count("nothing yet") == 4
    assert sorted(vid for vid in told if vid != "nothing yet") == sorted([*vids, "bad"])
    assert all(sim.request_count(vid) == 1 for vid in vids)


@pytest.mark.looptime
async def test_the_window_bounds_the_waits() -> None:
    """No more images are waited for at once than the window says, and all get their turn."""
    async with Simulator(seed=3, durations=Constant(10.0)) as sim:
        vids = sim.add_images(40)
        most = 0
        async with KokoonClient("token", base_url=sim.base_url) as client:
            async for outcome in client.wait_many(vids, window=7):
                assert outcome.ok
                most = max(most, len(client._scheduler))
    assert most <= 7


@pytest.mark.looptime
async def test_duplicates_share_a_wait_that_nobody_has_looked_for_yet() -> None:
    """Ten thousand positions of one image are one wait and ten thousand outcomes."""
    started: list[Event] = []
    async with Simulator(seed=3) as sim:
        vid, other = sim.add_image("processing*5s completed"), sim.add_image("completed")
        vids = [vid, other, *[vid.upper(), vid] * 5000]
        async with KokoonClient("token", base_url=sim.base_url, hooks=[started.append]) as client:
            found = Counter([outcome.vid async for outcome in client.wait_many(vids)])
    assert found == {vid: 10_001, other: 1}
    assert sum(isinstance(event, WaitStarted) for event in started) < 100


@pytest.mark.looptime
async def test_a_duplicate_that_comes_late_has_its_whole_time() -> None:
    """Once an image was looked at, the next position of it is a wait of its own."""

    async def late(vid: str) -> AsyncIterator[str]:
        yield vid
        yield vid
        await asyncio.sleep(7)
        yield vid

    async with Simulator(seed=3) as sim:
        vid = sim.add_image("processing")
        began, ended = asyncio.get_running_loop().time(), []
        async with KokoonClient("token", base_url=sim.base_url) as client:
            async for outcome in client.wait_many(late(vid), timeout=10):
                assert isinstance(outcome.error, WaitTimedOut)
                ended.append(asyncio.get_running_loop().time() - began)
    assert ended == pytest.approx([10, 10, 17], abs=1)


async def test_duplicates_join_no_wait_of_somebody_else() -> None:
    """Two streams of one client wait for one image, each for its own positions."""
    async with Simulator(seed=3, latency=0.01) as sim:
        vid = sim.add_image("completed")
        async with KokoonClient("token", base_url=sim.base_url) as client:
            streams = [client.wait_many([vid] * count) for count in (3, 2)]
            firsts = await asyncio.gather(*map(anext, streams))
            rest = [[outcome async for outcome in stream_] for stream_ in streams]
    assert [first.vid for first in firsts] == [vid, vid]
    assert [len(outcomes) for outcomes in rest] == [2, 1]


@pytest.mark.looptime
async def test_leaving_wait_many_drops_its_waits_only() -> None:
    """Waits of others go on when a stream of waits is left."""
    async with Simulator(seed=4) as sim:
        vids = [sim.add_image("processing*30s completed") for _ in range(300)]
        async with KokoonClient("token", base_url=sim.base_url) as client:
            other = asyncio.create_task(client.wait_until_completed(vids[0]))
            await turns()
            async with client.wait_many(vids) as outcomes:
                waiting = asyncio.create_task(anext(outcomes))
                await asyncio.sleep(5)
                assert len(client._scheduler) == 300
            with pytest.raises(StopAsyncIteration):
                await waiting
            assert len(client._scheduler) == 1
            assert (await other).is_finished


async def test_a_policy_that_raises_reaches_the_consumer() -> None:
    """A defect of the user's policy is raised, and not hidden in a million outcomes."""

    class Broken(Fixed):
        """Fail when asked."""

        def next_delay(self, look: object) -> float:
            """Fail."""
            raise ZeroDivisionError

    async with Simulator() as sim:
        vid = sim.add_image("processing")
        async with KokoonClient("token", base_url=sim.base_url) as client:
            with pytest.raises(ZeroDivisionError):
                async for _ in client.wait_many([vid], poll=Broken()):
                    pass


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["get_images", "wait_many"])
@pytest.mark.parametrize("enter", [nullcontext, lambda outcomes: outcomes])
@pytest.mark.unmeasured
def test_streams_can_be_cancelled_anywhere(enter: Any, method: str, mode: Mode, times: Any) -> None:
    """Cancelled at any await point, once or twice, a stream leaves nothing behind."""

    @asynccontextmanager
    async def streaming() -> AsyncIterator[Scenario]:
        async with Simulator(seed=5) as sim:
            vids = [sim.add_image("pending*1 completed") for _ in range(3)]
            async with KokoonClient("token", base_url=sim.base_url, retry=ONE_TRY) as client:

                async def run() -> None:
                    options: Any = {"poll": Fixed(interval=1.0)} if method == "wait_many" else {}
                    async with enter(getattr(client, method)(slowly(vids), **options)) as outcomes:
                        async for outcome in outcomes:
                            outcome.unwrap()

                checks = {
                    "no waits": lambda: len(client._scheduler) == 0,
                    "the client is idle": lambda: is_idle(client),
                }
                yield Scenario(run=run, checks=checks, after=lambda: client.get_image(vids[0]))

    report = cancel_everywhere(streaming, mode=mode, times=times, virtual_time=True, limit=600.0)
    if mode != "children":
        assert report.points > 0
