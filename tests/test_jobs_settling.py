"""When an id has its final outcome, and when it is asked for again."""

from __future__ import annotations

import asyncio
import copy

import attrs
import pytest

from kokoon_async import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    Image,
    ImageNotFound,
    ImageState,
    InvalidRequest,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    Sighting,
    UnexpectedResponse,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async._waiting.outcomes import Outcome
from kokoon_async.jobs import Entry
from kokoon_async.jobs._settling import _Feed
from kokoon_async.jobs._valve import Streak, may_pass

from .bulk_api import make_vids


VIDS = make_vids(3)


class OpenValve:
    """Let everything through, and note what it is told; each failure is a streak of its own."""

    def __init__(self):
        self.turns = asyncio.Lock()
        self.told = []

    def lets_through(self):
        """Say yes."""
        return True

    def answered(self, vid):
        """Note a good answer."""
        self.told.append("answered")

    def dropped(self, count):
        """Note what came back with nothing to learn from."""
        self.told += ["dropped"] * count

    def failed(self, vid, error):
        """Note a failure, of which it is clear at once that the id is at fault."""
        self.told.append(error)
        streak = Streak()
        streak.is_over = True
        return streak


def feed_of(*vids):
    """Make a feed of ids; give it, its valve and the list of what it settles."""
    batches = iter([[Entry(vid, line) for line, vid in enumerate(vids, 1)]])

    async def next_entries():
        return next(batches, ())

    valve, settled = OpenValve(), []
    return _Feed(next_entries, settled.append, valve, is_wait=False), valve, settled


async def feed_of_a_silent_pipe():
    """Make a feed whose first id is under way, and on whose input nothing comes any more."""
    batches = iter([[Entry(VIDS[0], 1)]])
    ended = []

    async def next_entries():
        for batch in batches:
            return batch
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(1)  # as reading in a thread ends at its own time
            ended.append(True)

    feed = _Feed(next_entries, print, OpenValve(), is_wait=False)
    assert await anext(feed) == VIDS[0]
    return feed, ended


async def test_a_silent_pipe_holds_up_nobody_who_failed(virtual_time):
    """An id is asked for again after the pause, also while nothing comes from the input."""
    feed, ended = await feed_of_a_silent_pipe()
    again = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(100)
    failed_at = asyncio.get_running_loop().time()
    for _ in range(3):
        feed.came_back(Outcome(VIDS[0], None, ServerError("no"), 1))
        assert await again == VIDS[0]
        again = asyncio.ensure_future(anext(feed))
    assert asyncio.get_running_loop().time() == pytest.approx(failed_at + 15, abs=0.1)
    again.cancel()
    assert ended == []
    await feed.aclose()
    assert ended == [True]


async def test_a_feed_sees_its_reading_end(virtual_time):
    """Who is cancelled while a feed is closed is so once nothing is read any more."""
    feed, ended = await feed_of_a_silent_pipe()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(feed), 10)
    closing = asyncio.ensure_future(feed.aclose())
    for _ in range(3):
        await asyncio.sleep(0.1)
        closing.cancel()
    assert ended == []
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert ended == [True]


async def rounds_until_failed(error):
    """Let each round of an id end with an error; give what the valve was told."""
    feed, valve, settled = feed_of(VIDS[0])
    async for vid in feed:
        feed.came_back(Outcome(vid, None, error, error.attempts))
    told = valve.told.copy()
    await feed.aclose()
    assert (valve.told, valve.turns.locked()) == (told, False)
    (only,) = settled
    assert only.outcome.error is error
    assert only.requests == len(told) * error.attempts
    assert only.retries == max(0, only.requests - 1)
    return told


def after(error, attempts):
    """Give an error that came after so many attempts."""
    error.attempts = attempts
    return error


CUT_SHORT = RequestTimedOut("No.", phase="waiting for its turn")
LATE = RequestTimedOut("No.", phase="waiting for the answer")


@pytest.mark.parametrize(
    ("error", "held_up", "failed"),
    [
        (after(ServerError("no"), 3), 0, 3),
        (after(ServerError("no"), 4), 0, 3),
        (after(ServerError("no"), 2), 0, 5),
        (after(ServerError("no"), 1), 0, 9),
        (after(ConnectionFailed("no"), 0), 0, 9),
        (after(LATE, 1), 0, 9),
        (after(CUT_SHORT, 1), 10, 9),
        (after(copy.copy(CUT_SHORT), 0), 10, 9),
        (after(WaitTimedOut("no"), 0), 10, 9),
    ],
    ids=["3", "4", "2", "1", "unsent", "late", "cut short", "cut short unsent", "no look"],
)
async def test_how_often_an_id_is_tried(virtual_time, error, held_up, failed):
    """Three rounds and nine attempts fail an id; what its own client held up counts after ten."""
    assert await rounds_until_failed(error) == ["dropped"] * held_up + [error] * failed


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (ConnectionFailed("no"), True),
        (ServerError("no", status=500), True),
        (RateLimited("no", status=429), True),
        (UnexpectedResponse("no"), True),
        (WaitOutage("no"), True),
        (ApiError("in words that nobody knows", status=400), True),
        (AuthenticationFailed("no", status=401), False),
        (AuthenticationFailed("no", is_passing=True), True),
        (InvalidRequest("no", status=422), False),
        (ImageNotFound("no", status=404), False),
        (ProtocolError("no"), True),
        (WaitTimedOut("no"), True),
        (WaitTimedOut("no", history=(Sighting(ImageState.PENDING, 0.0, 1.0, 2),)), False),
    ],
)
def test_what_may_pass(error, may):
    """Failures that say more about the server, at this time, than about the id."""
    assert may_pass(error) is may


async def test_a_good_answer_settles_an_id(virtual_time):
    """Whatever went wrong before, a record is final, and all of its requests are counted."""
    feed, valve, settled = feed_of(*VIDS)
    good = Image(VIDS[0], ImageState.COMPLETED)
    assert [await anext(feed) for _ in range(3)] == VIDS
    error = after(ServerError("no"), 2)
    for vid in VIDS:
        feed.came_back(Outcome(vid, None, error, 2))
    asked_again = [await anext(feed) for _ in range(3)]
    for number, vid in enumerate(asked_again, 1):
        feed.came_back(Outcome(vid, attrs.evolve(good, vid=vid), None, number))
    with pytest.raises(StopAsyncIteration):
        await anext(feed)
    assert [(each.entry.vid, each.requests, each.retries) for each in settled] == [
        (VIDS[0], 3, 2),
        (VIDS[1], 4, 3),
        (VIDS[2], 5, 4),
    ]
    assert valve.told == [error] * 3 + ["answered"] * 3


async def test_new_ids_come_before_those_that_failed(virtual_time):
    """An id that failed is asked for again after five seconds, or once there are no others."""
    many = make_vids(20)
    feed, _, _ = feed_of(*many)
    first = await anext(feed)
    feed.came_back(Outcome(first, None, after(ServerError("no"), 3), 3))
    assert [await anext(feed) for _ in range(5)] == many[1:6]
    await asyncio.sleep(5)
    assert [await anext(feed) for _ in range(3)] == [first, *many[6:8]]
    feed.came_back(Outcome(first, None, after(ServerError("no"), 3), 3))
    assert [await anext(feed) for _ in range(13)] == [*many[8:], first]


async def test_a_feed_waits_for_what_is_under_way(virtual_time):
    """At the end of the input, the feed ends only when nothing can fail any more."""
    feed, _, _ = feed_of(VIDS[0])
    await anext(feed)
    waiting = asyncio.create_task(anext(feed))
    await asyncio.sleep(100)
    assert not waiting.done()
    feed.came_back(Outcome(VIDS[0], None, after(ServerError("no"), 3), 3))
    assert await waiting == VIDS[0]
    ending = asyncio.create_task(anext(feed))
    await asyncio.sleep(100)
    feed.came_back(Outcome(VIDS[0], Image(VIDS[0], ImageState.COMPLETED), None, 1))
    with pytest.raises(StopAsyncIteration):
        await ending


async def test_a_cancelled_feeder_loses_no_id(virtual_time):
    """An id that was taken out, and not given, is given to the next one that asks."""
    feed, valve, _ = feed_of(*VIDS)
    valve.lets_through = lambda: False
    valve.wait_for_passage = lambda: asyncio.sleep(1000)
    feeder = asyncio.create_task(anext(feed))
    await asyncio.sleep(1)
    feeder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeder
    valve.lets_through = lambda: True
    assert sorted([await anext(feed) for _ in range(3)]) == sorted(VIDS)


async def test_what_is_under_way_is_dropped_with_its_feed(virtual_time):
    """A feed that is left early takes its ids out of what the valve counts, and gives its turn."""
    feed, valve, _ = feed_of(*VIDS)
    for _ in range(2):
        await anext(feed)
    assert valve.turns.locked()
    await feed.aclose()
    assert (valve.told, valve.turns.locked()) == (["dropped"] * 2, False)
