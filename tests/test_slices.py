"""Much at once leaves the event loop its turns: reading, leaving and closing go in slices."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kokoon_async import ClientClosed, Fixed, Image, ImageState, KokoonClient, OutcomeStream
from kokoon_async._waiting import slices
from kokoon_async._waiting.bulk import Waiting
from kokoon_async._waiting.scheduler import Scheduler
from kokoon_async._waiting.slices import in_slices
from kokoon_async._waiting.waits import Wait, Watcher
from kokoon_async.events import Hooks
from kokoon_async.simulator import Simulator

from .cancellation import MODES, Mode, Scenario, cancel_everywhere
from .fakes import VID, is_idle, make_vid, turns


pytestmark = pytest.mark.looptime

SLICE = 200
MANY = 5 * SLICE


async def most_in_a_turn(count: Callable[[], int], work: Awaitable[object]) -> int:
    """Give by how much a number grew, or shrank, most between two turns of the loop, meanwhile."""
    task = asyncio.ensure_future(work)
    most, before = 0, count()
    while not task.done():
        await asyncio.sleep(0)
        most, before = max(most, abs(count() - before)), count()
    await task
    return most


class Looks:
    """Be the look of a scheduler that never answers; counts its looks."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, vid: str) -> Any:
        """Look for ever."""
        self.count += 1
        await asyncio.Event().wait()


class Told:
    """Count what a watcher is told of the ends of its waits."""

    def __init__(self) -> None:
        self.ends: Counter[type] = Counter()

    def changed(self, wait: Wait, image: Image) -> None:
        """Take no notice."""

    def ended(self, wait: Wait, result: Any) -> None:
        """Count an end."""
        self.ends[type(result)] += 1


def new_wait(vid: str, watcher: Watcher) -> Wait:
    """Make a wait of an hour."""
    now = asyncio.get_running_loop().time()
    return Wait(vid, Fixed(10.0), watcher, now=now, timeout=3600.0)


@pytest.fixture
def scheduler() -> Scheduler:
    """Give a scheduler whose looks never end."""
    return Scheduler(Looks(), backoff=lambda _, __: 0.0, hooks=Hooks(), most_looks=4)


def stream_over(scheduler: Scheduler, vids: Any) -> OutcomeStream:
    """Wait for images as `KokoonClient.wait_many` does."""
    return OutcomeStream(Waiting(vids, scheduler, new_wait, window=10 * MANY))


# -- slices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, SLICE, 3 * SLICE + 1])
async def test_all_steps_are_taken_with_pauses(steps: int) -> None:
    """Every step is taken, and after each slice of them the loop turns."""
    taken: list[int] = []
    most = await most_in_a_turn(
        lambda: len(taken), in_slices(taken.append(number) for number in range(steps))
    )
    assert taken == list(range(steps))
    assert most == min(steps, SLICE)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancellation_comes_after_the_last_step(times: int) -> None:
    """Cancelled once or several times in mid-work, the steps are all taken, and then it is raised."""
    taken: list[int] = []
    work = asyncio.create_task(in_slices(taken.append(number) for number in range(MANY)))
    for _ in range(times):
        await turns(1)
        work.cancel()
    assert len(taken) < MANY
    with pytest.raises(asyncio.CancelledError):
        await work
    assert taken == list(range(MANY))


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", ["none", "all", "all but those at a pause", "one, repeated"])
async def test_reading_gives_way_to_the_loop(quiet: None, scheduler: Scheduler, valid: str) -> None:
    """Whatever an input holds, and wherever, the loop turns after some items of it."""
    read = 0

    def vids() -> Iterator[str]:
        nonlocal read
        for number in range(MANY):
            read += 1
            is_at_a_pause = number % SLICE == 0
            if valid == "none" or (valid == "all but those at a pause" and is_at_a_pause):
                yield "no id"
            else:
                yield VID if valid == "one, repeated" else make_vid(number)

    stream = stream_over(scheduler, vids())
    waiting = asyncio.ensure_future(anext(stream))
    reading = most_in_a_turn(lambda: read, turns(20))
    assert 0 < await reading <= SLICE
    assert read == MANY
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["on many images", "on one image"])
async def test_dropping_gives_way_to_the_loop(
    quiet: None, scheduler: Scheduler, where: str
) -> None:
    """All waits of one watcher are dropped in slices, be they for one image or for many."""
    mine, other = Told(), Told()
    waits = [new_wait(VID if where == "on one image" else make_vid(n), mine) for n in range(MANY)]
    for wait in [*waits, new_wait(VID, other)]:
        scheduler.add(wait)
    dropping = in_slices(scheduler.dropping_all_of(mine))
    most = await most_in_a_turn(lambda: sum(wait.is_over for wait in waits), dropping)
    assert 0 < most <= SLICE
    assert all(wait.is_over for wait in waits)
    assert len(scheduler) == 1
    assert not mine.ends
    await scheduler.close("Closed.")
    assert other.ends == {ClientClosed: 1}


async def test_leaving_gives_way_to_the_loop(quiet: None, scheduler: Scheduler) -> None:
    """A stream with many waits is left in slices, and nothing of it remains."""
    stream = stream_over(scheduler, ["no id", *map(make_vid, range(MANY))])
    assert not (await anext(stream)).ok
    await turns(20)
    assert len(scheduler) == MANY
    assert 0 < await most_in_a_turn(lambda: len(scheduler), stream.aclose()) <= SLICE
    assert len(scheduler) == 0
    assert [outcome async for outcome in stream] == []


@pytest.mark.parametrize("times", [1, 2])
async def test_leaving_may_be_cancelled(quiet: None, scheduler: Scheduler, times: int) -> None:
    """Cancelled while it leaves, a stream still drops all its waits, and the cancellation is raised."""
    stream = stream_over(scheduler, ["no id", *map(make_vid, range(MANY))])
    assert not (await anext(stream)).ok
    await turns(20)
    leaving = asyncio.create_task(stream.aclose())
    for _ in range(times):
        await turns(1)
        leaving.cancel()
    assert 0 < len(scheduler) < MANY
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert len(scheduler) == 0


async def test_a_wait_may_end_while_its_stream_is_left(quiet: None) -> None:
    """An answer that comes between two slices does no harm, nor does the end of a deadline."""

    async def look(vid: str) -> Any:
        await asyncio.sleep(0)
        return Answered(Image(vid, ImageState.COMPLETED))

    scheduler = Scheduler(look, backoff=lambda _, __: 0.0, hooks=Hooks(), most_looks=4)
    stream = stream_over(scheduler, map(make_vid, range(MANY)))
    assert (await anext(stream)).ok
    await stream.aclose()
    assert len(scheduler) == 0
    assert [outcome async for outcome in stream] == []


class Answered:
    """What a look brings."""

    age = None

    def __init__(self, image: Image) -> None:
        self.image = image


# -- closing ---------------------------------------------------------------------------------------


async def test_closing_gives_way_to_the_loop(quiet: None, scheduler: Scheduler) -> None:
    """Many waits are ended in slices, each with `ClientClosed`, and no further look begins."""
    told = Told()
    for number in range(MANY):
        scheduler.add(new_wait(make_vid(number), told))
    await turns()
    most = await most_in_a_turn(told.ends.total, scheduler.close("Closed."))
    assert 0 < most <= SLICE
    assert told.ends == {ClientClosed: MANY}
    assert scheduler._look.count == 4  # type: ignore[attr-defined]
    assert (len(scheduler), scheduler._timer, scheduler._workers) == (0, None, {})


async def test_closing_may_be_cancelled(quiet: None, scheduler: Scheduler) -> None:
    """Cancelled in mid-closing, all waits and looks end, and the cancellation is raised."""
    told = Told()
    for number in range(MANY):
        scheduler.add(new_wait(make_vid(number), told))
    await turns()
    closing = asyncio.create_task(scheduler.close("Closed."))
    await turns(2)
    closing.cancel()
    assert 0 < len(scheduler) < MANY
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert told.ends == {ClientClosed: MANY}
    assert (len(scheduler), scheduler._timer, scheduler._workers) == (0, None, {})


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["leaving", "closing"])
@pytest.mark.unmeasured
def test_slices_can_be_cancelled_anywhere(
    monkeypatch: pytest.MonkeyPatch, way: str, mode: Mode, times: Any
) -> None:
    """Cancelled between any two waits that end, streams and clients leave nothing behind."""
    monkeypatch.setattr(slices, "_STEPS", 1)

    @asynccontextmanager
    async def scenario() -> AsyncIterator[Scenario]:
        async with Simulator(seed=5) as sim:
            vids = [sim.add_image("processing") for _ in range(4)]
            async with KokoonClient("token", base_url=sim.base_url) as client:

                async def run() -> None:
                    async with client.wait_many(vids) as outcomes:
                        waiting = asyncio.ensure_future(anext(outcomes))
                        await turns(20)
                        if way == "closing":
                            await client._scheduler.close("Closed.")
                    await asyncio.gather(waiting, return_exceptions=True)

                checks = {
                    "no waits": lambda: len(client._scheduler) == 0,
                    "the client is idle": lambda: is_idle(client),
                }
                yield Scenario(run=run, checks=checks, after=lambda: client.get_image(vids[0]))

    report = cancel_everywhere(scenario, mode=mode, times=times, virtual_time=True, limit=600.0)
    if mode != "children":
        assert report.points > 0
