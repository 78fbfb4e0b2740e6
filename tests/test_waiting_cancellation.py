"""
Cancelling a wait: never swallowed, never invented, nothing left, and a note on how to resume.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal

import pytest

from kokoon_async import Fixed, Image, KokoonClient, WaitTimedOut
from kokoon_async.simulator import Hold, Simulator, Status

from .cancellation import MODES, Mode, Scenario, cancel_everywhere
from .fakes import is_idle, turns


pytestmark = [pytest.mark.fault("F-105"), pytest.mark.looptime]

Times = Literal[1, 2]
Run = Callable[[KokoonClient, str], Coroutine[Any, Any, object]]

EVERY_10 = Fixed(10.0, jitter=0)
RESUME = "wait for the same vid again to resume."


def waits_for_nothing(client: KokoonClient) -> bool:
    """Tell whether a client waits for nothing and holds nothing but idle connections."""
    scheduler = client._scheduler
    is_over = len(scheduler) == 0 and not scheduler._workers and scheduler._timer is None
    return is_over and is_idle(client)


async def wait(client: KokoonClient, vid: str) -> object:
    """Wait, with a function that takes its time at each change."""

    async def on_change(image: Image) -> None:
        await asyncio.sleep(1)

    return await client.wait_until_completed(vid, on_change=on_change)


async def watch(client: KokoonClient, vid: str) -> object:
    """Iterate, doing something for each record."""
    async with client.watch(vid) as records:
        async for _ in records:
            await asyncio.sleep(1)
    return records.result()


async def watch_plainly(client: KokoonClient, vid: str) -> object:
    """Iterate without ``async with``, to the end."""
    records = client.watch(vid)
    async for _ in records:
        pass
    return records.result()


async def time_out(client: KokoonClient, vid: str) -> object:
    """Wait too short a time."""
    with pytest.raises(WaitTimedOut):
        await client.wait_until_completed(vid, timeout=45.0)
    return None


async def share(client: KokoonClient, vid: str) -> object:
    """Wait together with another task, which stops when this one has its image."""
    async with asyncio.TaskGroup() as tasks:
        other = tasks.create_task(client.wait_until_completed(vid))
        await client.wait_until_completed(vid)
        other.cancel()
    return None


@pytest.mark.parametrize(
    ("run", "times"),
    [
        *[(wait, 1), (wait, 2), (watch, 1), (watch, 2), (watch_plainly, 1), (watch_plainly, 2)],
        *[(time_out, 2), (share, 2)],
    ],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.unmeasured
def test_waits_can_be_cancelled_anywhere(run: Run, mode: Mode, times: Times):
    """
    Whenever it hits, once or twice: no task, no timer, no connection, and the client goes on.

    And every `CancelledError` that leaves a wait says what to resume and how.
    """
    notes: list[list[str]] = []

    @contextlib.asynccontextmanager
    async def scenario() -> AsyncIterator[Scenario]:
        async with (
            Simulator(latency=0.5) as sim,
            KokoonClient("token", base_url=sim.base_url, poll=EVERY_10) as client,
        ):
            vid = sim.add_image("pending*2 processing*25s completed")
            other = sim.add_image("pending completed")
            sim.fault(Hold(at="headers", seconds=2), Status(503), vid=vid)

            async def noting() -> object:
                try:
                    return await run(client, vid)
                except asyncio.CancelledError as stop:
                    notes.append([note for note in getattr(stop, "__notes__", []) if vid in note])
                    raise

            yield Scenario(
                run=noting,
                checks={"idle": lambda: waits_for_nothing(client)},
                after=lambda: client.wait_until_completed(other),
            )

    report = cancel_everywhere(scenario, mode=mode, times=times, virtual_time=True, limit=100_000)
    assert report.points >= {"turns": 60, "suspensions": 8, "children": 2}[mode]
    if mode == "children":
        return  # those are cancelled, not the waits
    assert len(notes) >= report.points - 1  # it may hit before the first step
    if run is not share:
        assert {len(found) for found in notes} == {1}
    said = {note.partition("; ")[2] for found in notes for note in found}
    ends = f". The server's work goes on: {RESUME}"
    seen = {text.removesuffix(ends) for text in said}
    assert seen >= {"not seen yet", "last seen as pending", "last seen as processing"}
    assert seen <= {"not seen yet"} | {
        f"last seen as {state}" for state in ("pending", "processing", "completed")
    }


@contextlib.asynccontextmanager
async def service() -> AsyncIterator[tuple[Simulator, KokoonClient]]:
    """Start a simulator and a client of it, whose waits look every 10 seconds."""
    async with (
        Simulator(strict=True) as sim,
        KokoonClient("token", base_url=sim.base_url, poll=EVERY_10) as client,
    ):
        yield sim, client


async def test_a_time_out_of_ones_own_shows_how_to_resume():
    """`asyncio.timeout` around a wait works as it should, and its error tells the story."""
    async with service() as (sim, client):
        vid = sim.add_image("pending processing")
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(25):
                await client.wait_until_completed(vid)
        assert asyncio.get_running_loop().time() - began == pytest.approx(25, abs=0.02)
        assert not isinstance(caught.value, WaitTimedOut)
        # The first releases of Python 3.11 name no cause.
        reason = caught.value.__cause__ or caught.value.__context__
        assert reason is not None
        (note,) = reason.__notes__
        assert note == (
            f"The wait for image {vid} was cancelled; last seen as processing."
            f" The server's work goes on: {RESUME}"
        )
        assert waits_for_nothing(client)
        await asyncio.sleep(60)
        assert sim.request_count(vid) == 3


async def test_the_two_kinds_of_time_out_do_not_get_mixed_up():
    """The wait's own deadline is `WaitTimedOut` inside of a longer `asyncio.timeout`."""
    async with service() as (sim, client):
        vid = sim.add_image("pending")
        with pytest.raises(WaitTimedOut):
            async with asyncio.timeout(50):
                await client.wait_until_completed(vid, timeout=25.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_time_out_at_the_same_moment_is_one_or_the_other():
    """With both deadlines at once the caller gets one of the two errors, and no cancellation."""
    async with service() as (sim, client):
        vid = sim.add_image("pending")
        sim.fault(Hold(), vid=vid)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(25):
                await client.wait_until_completed(vid, timeout=25.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await turns()
        assert waits_for_nothing(client)


async def test_cancelling_one_waiter_leaves_the_others():
    """Their image is looked at on as if nothing had happened, also if a look was under way."""
    async with service() as (sim, client):
        vid = sim.add_image("completed")
        sim.fault(Hold(seconds=5), vid=vid)
        first = asyncio.ensure_future(client.wait_until_completed(vid))
        second = asyncio.ensure_future(client.wait_until_completed(vid))
        await asyncio.sleep(1)
        first.cancel()
        assert (await second).state == "completed"
        assert first.cancelled()
        assert sim.request_count(vid) == 1


async def test_a_cancelled_wait_is_told_apart_from_a_left_one():
    """Leaving by an exception of one's own adds no note to it."""
    async with service() as (sim, client):
        with pytest.raises(LookupError) as caught:
            async with client.watch(sim.add_image("pending")):
                raise LookupError("mine")
        assert not hasattr(caught.value, "__notes__")
        await turns()
        assert waits_for_nothing(client)


async def test_a_plain_iteration_can_be_cancelled():
    """Without ``async with`` too a cancelled iteration stops, warns of nothing and says how to resume."""
    async with service() as (sim, client):
        vid = sim.add_image("pending")

        async def iterate() -> None:
            async for _ in client.watch(vid):
                pass

        task = asyncio.ensure_future(iterate())
        await asyncio.sleep(15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        (note,) = caught.value.__notes__
        assert RESUME in note
        await turns()
        assert waits_for_nothing(client)


async def test_going_on_after_a_cancellation_outside_of_async_with():
    """Without ``async with``, a cancelled watch stops, and never seems to have ended by itself."""
    async with service() as (sim, client):
        vid = sim.add_image("pending")
        records = client.watch(vid)
        assert (await anext(records)).state == "pending"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(records), 5)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=rf"{vid}, .* was stopped .* async with"):
                await anext(records)
        await records.aclose()
        assert [image async for image in records] == []
        await turns()
        assert waits_for_nothing(client)


async def test_a_time_out_for_each_record():
    """Inside ``async with``, ``wait_for`` around each anext() tells that nothing came yet."""
    async with service() as (sim, client):
        told: list[str] = []
        async with client.watch(sim.add_image("pending*2 processing completed")) as records:
            while len(told) < 100:
                try:
                    told.append((await asyncio.wait_for(anext(records), 6)).state)
                except TimeoutError:
                    told.append("nothing yet")
                except StopAsyncIteration:
                    break
            assert records.result().is_finished
        nothing = "nothing yet"
        assert told == ["pending", *[nothing] * 3, "processing", nothing, "completed"]


async def test_cancelling_after_the_end_adds_no_note():
    """Whoever has the final record already is not told to resume."""
    async with service() as (sim, client):

        async def take_all() -> None:
            async with client.watch(sim.add_image("pending completed")) as records:
                async for _ in records:
                    pass
                await asyncio.sleep(1000)

        task = asyncio.ensure_future(take_all())
        await asyncio.sleep(100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not hasattr(caught.value, "__notes__")


async def test_cancelling_all_tasks_does_not_hang_who_goes_on():
    """Somebody who cancels whatever runs on the loop, but not this wait, only delays it."""
    async with service() as (sim, client):
        vid = sim.add_image("completed")
        sim.fault(Hold(), vid=vid)
        waiting = asyncio.ensure_future(client.wait_until_completed(vid))
        await asyncio.sleep(5)
        looks = client._scheduler._workers
        assert len(looks) == 1
        for task in looks:
            task.cancel()
        assert (await waiting).state == "completed"
        assert sim.request_count(vid) == 2
