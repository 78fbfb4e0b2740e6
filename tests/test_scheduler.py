"""The schedule of all waits of a client, around a fake look and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest

from kokoon_async import (
    ClientClosed,
    ConnectionFailed,
    Fixed,
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    RateLimited,
    ServerError,
    WaitTimedOut,
)
from kokoon_async._waiting.scheduler import Scheduler
from kokoon_async._waiting.waits import Wait
from kokoon_async.events import (
    Event,
    Hooks,
    LookFailed,
    LookFinished,
    StateChanged,
    WaitEnded,
    WaitStarted,
)

from .fakes import VID, make_vid, turns


pytestmark = pytest.mark.looptime

OTHER = make_vid(1)
EVERY_10 = Fixed(10.0, jitter=0)


@attrs.frozen
class Shown:
    """What a look brings: a record, and the image's age if the server told it."""

    image: Image
    age: float | None = None


@attrs.define
class Looks:
    """
    Be the look of a scheduler; brings a state or raises an error, as a function says.

    Attributes:
        brings: Given the vid and the number of the look at it, from 1.

        seconds: How long a look takes.

        times: When looks at each image began.
    """

    brings: Callable[[str, int], Any] = lambda vid, number: "processing"
    seconds: float = 0.0
    age: float | None = None
    times: dict[str, list[float]] = attrs.field(factory=dict)
    running: Counter[str] = attrs.field(factory=Counter)
    most_running: int = 0
    cancelled: int = 0

    async def __call__(self, vid: str) -> Any:
        """Look at an image."""
        times = self.times.setdefault(vid, [])
        times.append(asyncio.get_running_loop().time())
        number = len(times)
        assert not self.running[vid], "never two looks at one image"
        self.running[vid] += 1
        self.most_running = max(self.most_running, self.running.total())
        try:
            await asyncio.sleep(self.seconds)
            brought = self.brings(vid, number)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running[vid] -= 1
        if isinstance(brought, BaseException):
            raise brought
        return Shown(Image(vid, ImageState(brought)), self.age)

    @property
    def count(self) -> int:
        """How many looks there were."""
        return sum(map(len, self.times.values()))


@attrs.define(eq=False)
class Watcher:
    """Remember what it is told of a wait, and when it ended."""

    wait: Wait
    states: list[str] = attrs.field(factory=list)
    result: Any = None
    at: float = math.nan
    over: asyncio.Event = attrs.field(factory=asyncio.Event)

    def changed(self, wait: Wait, image: Image) -> None:
        """Remember the state."""
        assert wait is self.wait
        self.states.append(image.state)

    def ended(self, wait: Wait, result: Any) -> None:
        """Remember the result."""
        assert wait is self.wait
        assert self.result is None
        self.result = result
        self.at = asyncio.get_running_loop().time()
        self.over.set()


@attrs.define
class Line:
    """A scheduler around a fake look, with its events and backoffs."""

    looks: Looks = attrs.field(factory=Looks)
    most_looks: int = 64
    pause: float = 0.0
    hook: Callable[[Event], object] | None = None
    events: list[Event] = attrs.field(factory=list)
    backoffs: list[tuple[int, bool]] = attrs.field(factory=list)
    scheduler: Scheduler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put them together."""
        hooks = [self.events.append, *([self.hook] if self.hook else [])]
        self.scheduler = Scheduler(
            self.looks, backoff=self.backoff, hooks=Hooks(hooks), most_looks=self.most_looks
        )

    def backoff(self, failures: int, throttled: bool) -> float:
        """Remember that it was asked for."""
        self.backoffs.append((failures, throttled))
        return self.pause

    def wait(self, vid: str = VID, policy: Any = EVERY_10, **options: Any) -> Watcher:
        """Begin a wait, by default one of 100 seconds."""
        options = {"timeout": 100.0, **options}
        now = asyncio.get_running_loop().time()
        make = options.pop("watcher", Watcher)
        wait = Wait(vid, policy, None, now=now, **options)  # type: ignore[arg-type]
        wait.watcher = watcher = make(wait)
        self.scheduler.add(wait)
        return watcher

    def told(self, kind: type[Event]) -> list[Any]:
        """Give the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def assert_nothing_left(self) -> None:
        """Check that no wait, look, entry or timer is left."""
        scheduler = self.scheduler
        assert len(scheduler) == 0
        assert (len(scheduler._agenda), len(scheduler._queue), scheduler._workers) == (0, 0, {})
        assert scheduler._timer is None


def after(seconds: float, state: str = "completed") -> Callable[[str, int], str]:
    """Let images be processing until so many seconds on the loop's clock."""

    def brings(vid: str, number: int) -> str:
        return state if asyncio.get_running_loop().time() >= seconds else "processing"

    return brings


# --- one wait -----------------------------------------------------------------------------------


async def test_a_wait_looks_at_once_and_then_as_its_policy_says():
    """The first look is immediate, the others follow the policy, and a final one ends it."""
    line = Line(Looks(after(30)))
    watcher = line.wait()
    await watcher.over.wait()
    assert line.looks.times == {VID: [0, 10, 20, 30]}
    assert watcher.states == ["processing", "completed"]
    assert watcher.result == Image(VID, ImageState.COMPLETED)
    assert watcher.at == 30
    await turns()
    line.assert_nothing_left()


async def test_events_tell_the_whole_story():
    """Hooks hear of the beginning, each look, each change and the end, in this order."""
    line = Line(Looks(lambda vid, n: [ConnectionFailed(), "pending", "completed"][n - 1]))
    await line.wait(timeout=15.0).over.wait()
    assert line.events == [
        WaitStarted(VID, 15.0),
        LookFailed(VID, "ConnectionFailed", 10.0, "policy"),
        StateChanged(VID, None, ImageState.PENDING, 10.0),
        LookFinished(VID, ImageState.PENDING, 10.0, pytest.approx(4.92), "deadline"),
        StateChanged(VID, ImageState.PENDING, ImageState.COMPLETED, pytest.approx(14.92)),
        WaitEnded(VID, "completed", pytest.approx(14.92), 3),
        LookFinished(VID, ImageState.COMPLETED, pytest.approx(14.92), None, "ended"),
    ]


async def test_events_tell_the_servers_age():
    """Where the server tells the image's age, events do."""
    line = Line(Looks(lambda vid, n: "completed", age=77.0))
    await line.wait().over.wait()
    assert [event.age for event in line.told(StateChanged) + line.told(LookFinished)] == [77, 77]


async def test_a_policy_learns_from_the_servers_age():
    """An image was as old as the server says when somebody began to wait for it."""
    policy = Teachable()
    line = Line(Looks(lambda vid, n: "pending" if n == 1 else "completed", age=77.0))
    watcher = line.wait(policy=policy)
    await asyncio.sleep(5)
    line.looks.age = 87.0
    await watcher.over.wait()
    assert policy.lessons == [(77, 87)]


async def test_unheard_events_are_not_built(quiet: None, monkeypatch: pytest.MonkeyPatch):
    """With no hook and a quiet log, nobody is told anything."""
    told: list[Event] = []
    line = Line(Looks(lambda vid, n: [ConnectionFailed(), "pending", "completed"][n - 1]))
    line.scheduler._hooks = Hooks()
    monkeypatch.setattr(line.scheduler._hooks, "tell", told.append)
    await line.wait().over.wait()
    line.scheduler.drop(line.wait().wait)
    assert told == []


async def test_failed_looks_ask_for_a_backoff():
    """The pause grows with the failures in a row, and throttling is told apart."""
    brought = [
        ConnectionFailed(),
        ServerError(status=500),
        RateLimited(status=429),
        "pending",
        ServerError(status=503, retry_after=1.0),
        "completed",
    ]
    line = Line(Looks(lambda vid, n: brought[n - 1]), pause=12.0)
    await line.wait().over.wait()
    assert line.backoffs == [(1, False), (2, False), (3, True), (1, True)]
    assert line.looks.times[VID] == [0, 12, 24, 36, 46, 58]
    assert [event.reason for event in line.told(LookFailed)] == ["backoff"] * 4


async def test_the_last_look_comes_after_failed_ones_too():
    """It is as early as after good looks, and what no hint asks for is no longer than the policy's."""
    line = Line(Looks(lambda vid, n: ServerError(status=500)))
    watcher = line.wait(policy=Fixed(0.3, jitter=0), timeout=0.8)
    await watcher.over.wait()
    assert line.looks.times[VID] == pytest.approx([0, 0.3, 0.6, 0.72])


async def test_a_permanent_error_ends_a_wait_at_once():
    """The caller gets the error of the look, as it is."""
    error = ImageNotFound("None.", status=404, attempts=2)
    line = Line(Looks(lambda vid, n: error))
    watcher = line.wait()
    await watcher.over.wait()
    assert watcher.at == 0
    assert attrs.asdict(watcher.result) == attrs.asdict(error)
    assert line.told(WaitEnded) == [WaitEnded(VID, "ImageNotFound", 0, 1)]


async def test_a_silent_server_does_not_hold_a_wait():
    """The deadline cuts a look that is under way, at the very moment."""
    line = Line(Looks(seconds=1e6))
    watcher = line.wait(timeout=30.0)
    await watcher.over.wait()
    assert isinstance(watcher.result, WaitTimedOut)
    assert (watcher.at, watcher.result.elapsed) == (30, 30)
    await turns()
    assert line.looks.cancelled == 1
    line.assert_nothing_left()


@pytest.mark.parametrize(
    ("timeout", "seconds", "at"), [(100.0, 2.0, 96.0), (100.0, 7.0, 90.0), (1000.0, 0.0, 999.99)]
)
async def test_the_last_look_is_early_enough_to_be_answered(
    timeout: float, seconds: float, at: float
):
    """It begins two usual looks before the deadline, yet at most a tenth of the time before."""
    line = Line(Looks(seconds=seconds))
    for _ in range(30):  # so that it knows what is usual
        line.scheduler.drop((watcher := line.wait(policy=Fixed(0.5, jitter=0), timeout=None)).wait)
        await turns()
        watcher = line.wait(policy=Fixed(0.5, jitter=0), timeout=None)
        await asyncio.sleep(seconds + 0.01)
        line.scheduler.drop(watcher.wait)
    await turns()
    line.looks.times.clear()
    began = asyncio.get_running_loop().time()
    watcher = line.wait(policy=Fixed(31.0, jitter=0), timeout=timeout)
    await watcher.over.wait()
    assert line.looks.times[VID][-1] - began == pytest.approx(at, abs=0.1 if seconds else 0.002)
    assert isinstance(watcher.result, WaitTimedOut)
    assert watcher.at - began <= timeout


async def test_a_wait_without_deadline_sets_no_timer_for_it():
    """While its look is under way there is nothing to watch."""
    line = Line(Looks(seconds=50))
    watcher = line.wait(timeout=None)
    await turns()
    assert line.scheduler._timer is None
    line.scheduler.drop(watcher.wait)
    await turns()
    line.assert_nothing_left()


async def test_a_timer_that_fires_early_is_obeyed(monkeypatch: pytest.MonkeyPatch):
    """Clocks have grains: what a timer was set for is due when it fires, and no timer spins."""
    line = Line(Looks(after(10)))
    watcher = line.wait(timeout=20.0)
    await asyncio.sleep(5)
    assert line.scheduler._timer is not None
    at = line.scheduler._timer.when()
    line.scheduler._timer.cancel()
    monkeypatch.setattr(line.looks, "brings", lambda vid, n: "completed")
    line.scheduler._on_time(at)  # long before
    await turns()
    assert (line.looks.count, watcher.at) == (2, 5)
    line.assert_nothing_left()


# --- many waits for one image -------------------------------------------------------------------


async def looks_with(waiters: int) -> list[float]:
    """Let so many wait for one image together, and give the times of the looks."""
    line = Line(Looks(lambda vid, n: "completed" if n == 5 else "processing"))
    watchers = [line.wait() for _ in range(waiters)]
    for watcher in watchers:
        await watcher.over.wait()
        assert watcher.result.state == "completed"
        assert watcher.states == ["processing", "completed"]
    await turns()
    line.assert_nothing_left()
    return line.looks.times[VID]


@pytest.mark.fault("F-54")
async def test_a_hundred_waiters_cost_the_requests_of_one():
    """Waits on one image share its looks, and all see every change."""
    assert len(await looks_with(1)) == len(await looks_with(100)) == 5


async def test_a_look_under_way_is_joined():
    """Who begins to wait during a look takes its answer as the first."""
    line = Line(Looks(after(10), seconds=2))
    first = line.wait()
    await asyncio.sleep(1)
    second = line.wait()
    await second.over.wait()
    assert line.looks.times[VID] == [0, 12]
    assert (first.states, second.states) == (["processing", "completed"],) * 2
    assert second.wait.looks == 2


async def test_who_joins_between_looks_gets_one_at_once():
    """The first look is immediate for everyone, and serves those who wait already."""
    line = Line(Looks(after(15)))
    first = line.wait()
    await asyncio.sleep(4)
    second = line.wait()
    await second.over.wait()
    await first.over.wait()
    assert line.looks.times[VID] == [0, 4, 14, 24]
    assert (first.wait.looks, second.wait.looks) == (4, 3)
    assert len(line.told(StateChanged)) == 2


async def test_a_queued_look_is_joined():
    """An image has one place in the queue, however many begin to wait for it."""
    line = Line(Looks(seconds=1), most_looks=1)
    line.wait(OTHER)
    watchers = [line.wait(timeout=5) for _ in range(3)]
    assert len(line.scheduler._queue) == 1
    await asyncio.sleep(3)
    assert line.looks.times == {OTHER: [0], VID: [1]}
    for watcher in watchers:
        assert watcher.states == ["processing"]
    await line.scheduler.close("Closed.")


async def test_each_waiter_has_a_deadline_and_a_policy_of_its_own():
    """The nearest due time counts; who is out of time goes, and the others wait on."""
    line = Line(Looks(after(60)))
    patient = line.wait(policy=Fixed(25.0, jitter=0))
    hasty = line.wait(policy=Fixed(4.0, jitter=0), timeout=10.0)
    await patient.over.wait()
    assert isinstance(hasty.result, WaitTimedOut)
    assert 9.8 < hasty.at <= 10
    last = line.looks.times[VID][3]
    assert line.looks.times[VID] == [0, 4, 8, last, last + 25, last + 50, last + 75]
    assert patient.result.state == "completed"


async def test_a_deadline_during_a_look_ends_only_its_own_wait():
    """The look goes on for those who have time."""
    line = Line(Looks(lambda vid, n: "completed", seconds=20))
    hasty, patient, endless = line.wait(timeout=5.0), line.wait(), line.wait(timeout=None)
    await endless.over.wait()
    assert isinstance(hasty.result, WaitTimedOut)
    assert (hasty.at, patient.at, endless.at) == (5, 20, 20)
    assert line.looks.count == 1


async def test_errors_are_not_shared():
    """Each waiter gets an exception of its own to raise, with equal contents."""
    line = Line(Looks(lambda vid, n: "error"))
    results = [line.wait(), line.wait()]
    await turns(20)
    first, second = (watcher.result for watcher in results)
    assert type(first) is type(second) is ImageFailed
    assert first is not second
    line = Line(Looks(lambda vid, n: ImageNotFound("None.")))
    results = [line.wait(), line.wait()]
    await turns(20)
    first, second = (watcher.result for watcher in results)
    assert type(first) is type(second) is ImageNotFound
    assert first is not second


async def test_one_image_is_one_lesson():
    """A policy that waits on one image share is told once; another policy is told too."""
    shared, own = Teachable(), Teachable()
    line = Line(Looks(after(15)))
    line.wait(policy=shared)
    line.wait(policy=own)
    await asyncio.sleep(12)
    watchers = [line.wait(policy=shared) for _ in range(10)]
    line.scheduler.drop(line.wait(policy=shared).wait)
    await watchers[-1].over.wait()
    assert shared.lessons == own.lessons == [(12, 22)]


async def test_one_image_is_followed_once():
    """Waits on one image that share a policy tell it once of each look; another policy hears too."""
    shared, own = Following(), Following()
    line = Line(Looks(after(25)))
    first = line.wait(policy=shared)
    watchers = [line.wait(policy=policy) for policy in (shared, own, shared)]
    await asyncio.sleep(15)
    line.scheduler.drop(first.wait)
    await watchers[-1].over.wait()
    assert shared.followed == own.followed == [(0, 10), (10, 20)]
    assert shared.lessons == own.lessons == [(20, 30)]


@attrs.define
class Teachable:
    """A policy that looks every 10 seconds and remembers what it is told."""

    lessons: list[tuple[float, float]] = attrs.field(factory=list)

    def next_delay(self, look: object) -> float:
        """Give the delay."""
        return 10.0

    def record(self, earliest: float, latest: float) -> None:
        """Remember the lesson."""
        self.lessons.append((earliest, latest))


@attrs.define
class Following(Teachable):
    """The same, told of each look."""

    followed: list[tuple[float, float]] = attrs.field(factory=list)

    def follow(self, since: float, until: float) -> None:
        """Remember between which looks the image was unfinished."""
        self.followed.append((since, until))

    def record(self, earliest: float, latest: float, *, since: float = 0.0) -> None:
        """Remember the lesson."""
        assert since == earliest
        super().record(earliest, latest)


# --- hints --------------------------------------------------------------------------------------


async def test_who_joins_does_not_shorten_a_hint():
    """A server that asked for a pause on this image gets it, whoever begins to wait meanwhile."""
    line = Line(
        Looks(lambda vid, n: [ServerError(status=500, retry_after=60.0), "completed"][n - 1])
    )
    first = line.wait()
    await asyncio.sleep(10)
    second = line.wait()
    line.wait(OTHER)
    await first.over.wait()
    assert line.looks.times[VID] == [0, 60]
    assert first.at == second.at == 60
    assert line.told(LookFailed)[0] == LookFailed(VID, "ServerError", 60.0, "hint")
    assert line.looks.times[OTHER][0] == 10


async def test_who_cannot_outwait_a_hint_is_told_at_the_deadline():
    """A wait that joins during the pause may end without any look; the others go on."""
    line = Line(
        Looks(lambda vid, n: [ServerError(status=502, retry_after=60.0), "completed"][n - 1])
    )
    first = line.wait()
    await asyncio.sleep(10)
    second, third = line.wait(timeout=20.0), line.wait(timeout=30.0)
    await first.over.wait()
    assert (second.at, third.at, first.at) == (30, 40, 60)
    assert isinstance(second.result, WaitTimedOut)
    assert "never seen" in str(second.result)
    assert line.looks.times[VID] == [0, 60]


# --- many images --------------------------------------------------------------------------------


@pytest.mark.fault("F-54")
async def test_few_looks_at_once_are_shared_fairly():
    """With too little capacity everyone is looked at equally often, in turn."""
    line = Line(Looks(seconds=1), most_looks=3)
    vids = [make_vid(number) for number in range(60)]
    for vid in vids:
        line.wait(vid, timeout=None)
    await asyncio.sleep(400)
    assert line.looks.most_running == 3
    assert list(line.looks.times) == vids  # first come, first served
    counts = {len(times) for times in line.looks.times.values()}
    assert max(counts) - min(counts) <= 1
    for times in line.looks.times.values():
        gaps = {round(later - sooner) for sooner, later in itertools.pairwise(times)}
        assert gaps == {20}, "60 looks of a second, three at once"
    await line.scheduler.close("Closed.")
    line.assert_nothing_left()


async def test_queued_waits_end_at_their_deadlines():
    """A look that never had its turn does not hold its wait."""
    line = Line(Looks(seconds=1000), most_looks=1)
    line.wait(OTHER, timeout=None)
    watchers = [line.wait(make_vid(2 + n), timeout=5.0 + n) for n in range(3)]
    await watchers[-1].over.wait()
    assert [watcher.at for watcher in watchers] == [5, 6, 7]
    assert all(isinstance(watcher.result, WaitTimedOut) for watcher in watchers)
    assert list(line.looks.times) == [OTHER]
    await line.scheduler.close("Closed.")
    line.assert_nothing_left()


async def test_a_queued_image_may_lose_one_of_its_waits():
    """The others keep its place in the queue."""
    line = Line(Looks(lambda vid, n: "completed", seconds=10), most_looks=1)
    line.wait(OTHER)
    hasty, patient = line.wait(timeout=5.0), line.wait()
    await patient.over.wait()
    assert (hasty.at, patient.at) == (5, 20)


class Nobody:
    """A watcher that takes no notice; it may serve any number of waits."""

    def changed(self, wait: Wait, image: Image) -> None:
        """Take no notice."""

    def ended(self, wait: Wait, result: Any) -> None:
        """Take no notice."""


@attrs.define
class QuickLooks:
    """Be the look of a scheduler: always the same answer, and as quick as can be."""

    answer: Shown = Shown(Image(VID, ImageState.PENDING), 12.0)
    count: int = 0

    async def __call__(self, vid: str) -> Any:
        """Count a look."""
        self.count += 1
        return self.answer


def make_scheduler(looks: Any) -> Scheduler:
    """Make a scheduler without anything around it."""
    return Scheduler(looks, backoff=lambda _, __: 0.0, hooks=Hooks(), most_looks=64)


def add_many(scheduler: Scheduler, vids: list[str], policy: Any, timeout: float | None) -> None:
    """Wait for each of these images."""
    nobody, loop = Nobody(), asyncio.get_running_loop()
    for vid in vids:
        scheduler.add(Wait(vid, policy, nobody, now=loop.time(), timeout=timeout))


@pytest.mark.unmeasured
async def test_the_heap_stays_bounded(quiet: None):
    """A thousand images looked at fifteen times each leave no stale entries to speak of."""
    looks = QuickLooks()
    scheduler = make_scheduler(looks)
    vids = [make_vid(number) for number in range(1000)]
    add_many(scheduler, vids[:500], EVERY_10, None)
    await asyncio.sleep(5)  # or all are due at once, and whatever is stale is seen to be
    add_many(scheduler, vids[500:], EVERY_10, None)
    largest = 0
    for _ in range(30):
        await asyncio.sleep(5)
        largest = max(largest, len(scheduler._agenda))
    assert looks.count >= 15_000
    assert 1000 < largest <= 64 + 1.125 * 1000
    await scheduler.close("Closed.")


@pytest.mark.unmeasured
async def test_an_idle_wait_is_small(quiet: None):
    """Beyond its id, a wait between two looks takes at most 600 bytes."""
    looks = QuickLooks()
    vids = [make_vid(number) for number in range(5_000)]
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        scheduler = make_scheduler(looks)
        add_many(scheduler, vids, Fixed(1000.0), 1800.0)
        while looks.count < len(vids) or scheduler._workers:
            await asyncio.sleep(0)
        gc.collect()
        size = (tracemalloc.get_traced_memory()[0] - before) / len(vids)
    finally:
        tracemalloc.stop()
    assert size <= 600
    await scheduler.close("Closed.")


async def test_the_queue_stays_bounded():
    """Waits that come and go while no look gets its turn leave nothing in the queue."""
    line = Line(Looks(seconds=1e6), most_looks=1)
    line.wait(OTHER, timeout=None)
    for number in range(1000):
        line.scheduler.drop(line.wait(make_vid(2 + number)).wait)
        assert len(line.scheduler._queue) <= 70
        assert len(line.scheduler._agenda) <= 70
    await line.scheduler.close("Closed.")
    line.assert_nothing_left()


# --- leaving ------------------------------------------------------------------------------------


async def test_the_last_to_leave_stops_the_look():
    """A look that nobody waits for is cancelled; one that others wait for is not."""
    line = Line(Looks(lambda vid, n: "completed", seconds=10))
    first, second = line.wait(), line.wait()
    await asyncio.sleep(1)
    line.scheduler.drop(first.wait)
    await asyncio.sleep(1)
    assert line.looks.cancelled == 0
    line.scheduler.drop(second.wait)
    await turns()
    assert line.looks.cancelled == 1
    line.assert_nothing_left()
    assert first.result is second.result is None
    assert [event.outcome for event in line.told(WaitEnded)] == ["abandoned"] * 2


@pytest.mark.fault("F-111")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_a_timer_of_uvloop_that_is_due_at_once():
    """For what is due already, uvloop gives a handle that knows no time; waits go on and end."""
    import uvloop

    async def wait_for_all() -> list[Any]:
        line = Line(Looks(lambda vid, number: "completed", seconds=0.02), most_looks=1)
        first = line.wait(VID)
        late = line.wait(OTHER, timeout=1e-9)
        assert not isinstance(line.scheduler._timer, asyncio.TimerHandle)
        last = line.wait(make_vid(2))
        for watcher in (late, first, last):
            await watcher.over.wait()
        await turns()
        line.assert_nothing_left()
        return [type(watcher.result) for watcher in (first, late, last)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(wait_for_all()) == [Image, WaitTimedOut, Image]


async def test_leaving_between_looks_leaves_no_timer():
    """Nothing remains of a wait that was dropped while it slept."""
    line = Line()
    watcher = line.wait()
    await asyncio.sleep(5)
    line.scheduler.drop(watcher.wait)
    line.assert_nothing_left()
    line.scheduler.drop(watcher.wait)  # once more is no harm
    assert len(line.told(WaitEnded)) == 1


async def test_leaving_before_the_look_began():
    """A wait may be dropped before its task had its first turn."""
    line = Line()
    line.scheduler.drop(line.wait().wait)
    await turns()
    assert line.looks.count == 0
    line.assert_nothing_left()


async def test_leaving_and_coming_back():
    """A new wait for the same image gets a new look, and never two are under way."""
    line = Line(Looks(lambda vid, n: "completed", seconds=10))
    for _ in range(3):
        line.scheduler.drop(line.wait().wait)
        watcher = line.wait()
        await asyncio.sleep(1)
        line.scheduler.drop(watcher.wait)
    watcher = line.wait()
    await watcher.over.wait()
    assert watcher.result.state == "completed"
    assert line.looks.most_running == 1


async def test_closing_ends_every_wait():
    """Idle, queued or under way: all get `ClientClosed` with what was last seen."""
    line = Line(Looks(lambda vid, n: "pending" if vid == VID else "completed"), most_looks=1)
    idle = line.wait()
    await asyncio.sleep(1)
    line.looks.seconds = 10
    busy, queued = line.wait(OTHER), line.wait(make_vid(2))
    await asyncio.sleep(1)
    await line.scheduler.close("The client was closed meanwhile.")
    assert str(idle.result) == (
        f"The client was closed meanwhile. Image {VID}: last seen as pending."
        " The server's work goes on: wait for the same vid again to resume."
    )
    assert (idle.result.vid, idle.result.attempts) == (VID, 1)
    for watcher in (busy, queued):
        assert isinstance(watcher.result, ClientClosed)
        assert "not seen yet" in str(watcher.result)
    assert line.looks.cancelled == 1
    line.assert_nothing_left()
    await line.scheduler.close("Again.")


# --- a crowd for one image ------------------------------------------------------------------------


@contextlib.contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the calls of Python functions, and the turns of generators, in this thread."""
    calls: Counter[str] = Counter()

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


ENDINGS: dict[str, Callable[[Line, list[Watcher]], Any]] = {
    "answered": lambda line, crowd: asyncio.sleep(30),
    "expired": lambda line, crowd: asyncio.sleep(100),
    "closed": lambda line, crowd: line.scheduler.close("Closed."),
    "left": lambda line, crowd: [line.scheduler.drop(each.wait) for each in crowd],
    "left by the newest first": lambda line, crowd: [
        line.scheduler.drop(each.wait) for each in reversed(crowd)
    ],
}


@pytest.mark.parametrize("policies", ["shared", "own"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_crowd_costs_no_more_for_each(quiet: None, ending: str, policies: str):
    """However many wait for one image: to begin, to hear of a look and to end costs each the same."""

    async def calls_of(size: int) -> int:
        looks = Looks(seconds=1.0 if ending == "answered" else 1e6)
        looks.brings = lambda vid, n: "completed" if n == 3 else "processing"
        line = Line(looks)
        line.scheduler._hooks = Hooks()
        made = [Following() if policies == "own" else EVERY_10 for _ in range(size)]
        with counting_calls() as calls:
            crowd = [line.wait(policy=policy, timeout=100.0) for policy in made]
            await asyncio.sleep(5)
            done = ENDINGS[ending](line, crowd)
            if not isinstance(done, list):
                await done
            await turns()
        assert all(watcher.wait.is_over for watcher in crowd)
        line.assert_nothing_left()
        return calls.total()

    small, large = await calls_of(50), await calls_of(400)
    assert large <= 8 * small


async def test_a_crowd_ends_at_its_deadlines():
    """Who joins a crowd, with more time than the others or with less, has his own deadline."""
    line = Line(Looks(seconds=1e6))
    crowd = [line.wait(timeout=20.0 + abs(number - 15)) for number in range(30)]
    await asyncio.sleep(60)
    assert [watcher.at for watcher in crowd] == [20.0 + abs(number - 15) for number in range(30)]


@pytest.mark.parametrize("size", [1, 8, 9, 30])
async def test_the_newest_of_a_crowd(size: int):
    """However many wait for an image, the one who came last of those who stay is known."""
    line = Line()
    crowd = [line.wait() for _ in range(size)]
    while crowd:
        newest = crowd.pop().wait
        assert line.scheduler.newest(VID) is newest
        line.scheduler.drop(newest)
    assert line.scheduler.newest(VID) is None


async def test_those_who_stay_in_a_crowd_wait_on():
    """Whoever leaves a crowd, those who stay hear what becomes of the image, and nobody else."""
    line = Line(Looks(after(30)))
    crowd = [line.wait() for _ in range(30)]
    await asyncio.sleep(5)
    for watcher in crowd[::3]:
        line.scheduler.drop(watcher.wait)
    await asyncio.sleep(50)
    assert [watcher.at == 30 for watcher in crowd] == [number % 3 != 0 for number in range(30)]
    line.assert_nothing_left()


# --- foreign code -------------------------------------------------------------------------------


@attrs.define
class Broken:
    """A policy that raises."""

    where: str
    raises: type[Exception] = ZeroDivisionError

    def next_delay(self, look: object) -> float:
        """Raise, or give the delay."""
        if self.where == "next_delay":
            raise self.raises("my policy")
        return 10.0

    def record(self, earliest: float, latest: float) -> None:
        """Raise."""
        if self.where == "record":
            raise self.raises("my policy")


@pytest.mark.fault("F-106")
@pytest.mark.parametrize("failing", [False, True])
async def test_a_policy_that_raises_ends_only_its_wait(failing: bool):
    """The caller whose policy it is gets what it raised; others on the same image wait on."""
    brought = [ConnectionFailed() if failing else "pending", "completed"]
    line = Line(Looks(lambda vid, n: brought[n - 1]))
    broken, sound = line.wait(policy=Broken("next_delay")), line.wait()
    await sound.over.wait()
    assert isinstance(broken.result, ZeroDivisionError)
    assert (broken.at, sound.at) == (0, 10)
    assert [event.outcome for event in line.told(WaitEnded)] == ["ZeroDivisionError", "completed"]
    await turns()
    line.assert_nothing_left()


@pytest.mark.fault("F-106")
async def test_a_policy_that_cannot_learn_takes_no_image_away(caplog: pytest.LogCaptureFixture):
    """What `record` raises is logged, and the completed record is given all the same."""
    line = Line(Looks(after(10)))
    watcher = line.wait(policy=Broken("record"))
    await watcher.over.wait()
    assert watcher.result.state == "completed"
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert (record.message, vars(record)["kokoon_vid"]) == ("policy.failed", VID)
    await turns()
    line.assert_nothing_left()


@pytest.mark.fault("F-106")
async def test_a_policy_that_cannot_learn_does_not_hinder_leaving(
    caplog: pytest.LogCaptureFixture,
):
    """Dropping a wait never raises."""
    line = Line()
    watcher = line.wait(policy=Broken("record"))
    await asyncio.sleep(1)
    line.scheduler.drop(watcher.wait)
    assert "policy.failed" in caplog.messages
    line.assert_nothing_left()


async def test_a_defect_in_a_look_reaches_who_waits():
    """What is no error of ours ends the waits for this image, instead of hanging them."""
    line = Line(Looks(lambda vid, n: RuntimeError("a middleware") if vid == VID else "completed"))
    first, second, other = line.wait(), line.wait(), line.wait(OTHER)
    await other.over.wait()
    await turns()
    assert isinstance(first.result, RuntimeError)
    assert second.result is first.result
    assert other.result.state == "completed"
    line.assert_nothing_left()


async def test_a_defect_that_nobody_waits_for_is_not_silent(monkeypatch: pytest.MonkeyPatch):
    """If the waits are over already, the event loop's exception handler is told."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_exception_handler", told.append)
    line = Line(Looks(lambda vid, n: "completed"))
    with monkeypatch.context() as patch:
        patch.setattr(line.scheduler, "_forget", lambda image: 1 / 0)
        line.wait()
        await turns()
    (context,) = told
    assert context["message"] == "a look of kokoon_async failed"
    assert type(context["exception"]) is ZeroDivisionError
    line.scheduler._forget(line.scheduler._images[VID])
    line.scheduler._set_timer()


async def test_a_look_that_somebody_else_cancels_is_made_again():
    """Who cancels all tasks of the loop and goes on does not hang the waits."""
    line = Line(Looks(lambda vid, n: "completed", seconds=5))
    watcher = line.wait()
    await asyncio.sleep(1)
    for task in line.scheduler._workers:
        task.cancel()
    await watcher.over.wait()
    assert line.looks.times[VID] == [0, 2]
    assert watcher.result.state == "completed"


async def test_a_look_cancelled_before_it_began_is_made_again():
    """Even if the task never had a turn."""
    line = Line(Looks(lambda vid, n: "completed"))
    watcher = line.wait()
    for task in line.scheduler._workers:
        task.cancel()
    await watcher.over.wait()
    assert line.looks.times[VID] == [1]


async def test_a_cancelled_look_does_not_outlast_the_deadline():
    """The pause before it is made again ends with the wait."""
    line = Line(Looks(seconds=5))
    watcher = line.wait(timeout=1.5)
    await asyncio.sleep(1)
    for task in line.scheduler._workers:
        task.cancel()
    await watcher.over.wait()
    assert isinstance(watcher.result, WaitTimedOut)
    assert watcher.at == 1.5
    line.assert_nothing_left()


@attrs.define(eq=False)
class Dropping(Watcher):
    """Drop waits as soon as something changes."""

    drops: Callable[[], Any] = lambda: None
    drops_at_end: Callable[[], Any] = lambda: None

    def ended(self, wait: Wait, result: Any) -> None:
        """Remember the result, and drop."""
        super().ended(wait, result)
        self.drops_at_end()

    def changed(self, wait: Wait, image: Image) -> None:
        """Remember the state, and drop."""
        super().changed(wait, image)
        self.drops()


async def test_a_watcher_may_drop_its_own_wait():
    """A wait dropped at the first record is over, and leaves nothing behind."""
    line = Line(Looks(lambda vid, n: "completed" if n > 1 else "pending"))
    watcher = line.wait(watcher=Dropping)
    watcher.drops = partial(line.scheduler.drop, watcher.wait)
    await asyncio.sleep(50)
    assert (watcher.states, watcher.result, line.looks.count) == (["pending"], None, 1)
    line.assert_nothing_left()


@pytest.mark.parametrize("state", ["pending", "completed"])
async def test_a_watcher_may_drop_other_waits(state: str):
    """Who is dropped by another watcher hears nothing more, be it before or after it."""
    line = Line(Looks(lambda vid, n: state if n == 1 else "completed"))
    before, dropper, behind = line.wait(), line.wait(watcher=Dropping), line.wait()
    last = line.wait()

    def drop() -> None:
        for watcher in (before, behind):
            line.scheduler.drop(watcher.wait)

    dropper.drops = drop
    await dropper.over.wait()
    assert before.result is behind.result is None
    assert (before.states, behind.states) == ([state], [])
    assert dropper.result.state == last.result.state == "completed"
    await turns()
    line.assert_nothing_left()


async def test_a_watcher_may_drop_all_waits_of_an_image():
    """With nobody left the look has no consequence."""
    line = Line()
    first, second = line.wait(), line.wait(watcher=Dropping)

    def drop() -> None:
        for watcher in (first, second):
            line.scheduler.drop(watcher.wait)

    second.drops = drop
    await asyncio.sleep(50)
    assert line.looks.count == 1
    assert line.told(LookFinished) == [LookFinished(VID, ImageState.PROCESSING, 0, None, "ended")]
    line.assert_nothing_left()


@pytest.mark.parametrize("how", ["completed", "deadline", "defect", "close"])
async def test_a_watcher_may_drop_other_waits_when_its_own_ends(how: str):
    """Whatever ended them all: who was dropped meanwhile is not told."""
    brings = {"completed": "completed", "defect": RuntimeError("a middleware")}
    line = Line(Looks(lambda vid, n: brings.get(how, "pending")))
    watchers = [line.wait(watcher=Dropping, timeout=5.0) for _ in range(3)]

    def drop() -> None:
        for watcher in watchers:
            line.scheduler.drop(watcher.wait)

    for watcher in watchers:
        watcher.drops_at_end = drop
    await asyncio.sleep(3)
    if how == "close":
        await line.scheduler.close("Closed.")
    await asyncio.sleep(3)
    assert sum(watcher.result is not None for watcher in watchers) == 1
    assert len(line.told(WaitEnded)) == 3
    line.assert_nothing_left()


async def test_a_watcher_may_begin_a_wait_when_something_changes():
    """The new wait gets a look of its own, and its deadline is watched."""
    begun: list[Watcher] = []

    def begin() -> None:
        line.looks.seconds = 1e6
        begun.append(line.wait(timeout=3.0))

    line = Line()
    line.wait(watcher=Dropping).drops = begin
    await asyncio.sleep(50)
    assert isinstance(begun[0].result, WaitTimedOut)
    assert begun[0].at == 3
    await line.scheduler.close("Closed.")


async def test_a_hook_may_begin_a_wait_when_another_ends():
    """The new wait for the same image gets a look of its own, at once."""
    begun: list[Watcher] = []

    def again(event: Event) -> None:
        if isinstance(event, WaitEnded) and len(begun) < 3:
            begun.append(line.wait())

    line = Line(Looks(lambda vid, n: "completed"), hook=again)
    line.wait()
    await asyncio.sleep(1)
    assert [watcher.result.state for watcher in begun] == ["completed"] * 3
    assert line.looks.times[VID] == [0, 0, 0, 0]
    line.assert_nothing_left()


async def test_a_hook_may_begin_a_wait_when_a_state_changes():
    """The new wait takes part in the look that it learnt of, and nobody's deadline is lost."""
    begun: list[Watcher] = []

    def join(event: Event) -> None:
        if isinstance(event, StateChanged) and not begun:
            begun.append(line.wait(timeout=3.0))
            line.looks.seconds = 1e6

    line = Line(hook=join)
    first = line.wait()
    await first.over.wait()
    assert begun[0].states == ["processing"]
    assert isinstance(begun[0].result, WaitTimedOut)
    assert (begun[0].at, first.at) == (3, 100)


async def test_a_hook_may_begin_and_drop_a_wait():
    """Even if it was the last one for the image that just ended."""

    def flicker(event: Event) -> None:
        if isinstance(event, WaitEnded) and event.outcome == "completed":
            line.scheduler.drop(line.wait().wait)

    line = Line(Looks(lambda vid, n: "completed"), hook=flicker)
    watcher = line.wait()
    await asyncio.sleep(1)
    assert watcher.result.state == "completed"
    assert {event.outcome for event in line.told(WaitEnded)} == {"abandoned", "completed"}
    line.assert_nothing_left()


async def test_a_state_is_told_once_per_image():
    """However many wait, a change is one event; whoever joins later sees no change."""
    brought = ["pending", "pending", "warming_up", "warming_up", "completed"]
    line = Line(Looks(lambda vid, n: brought[n - 1]))
    watchers = [line.wait() for _ in range(5)]
    await asyncio.sleep(15)
    watchers.append(line.wait())
    await watchers[-1].over.wait()
    changes = [(event.before, event.state) for event in line.told(StateChanged)]
    assert changes == [(None, "pending"), ("pending", "warming_up"), ("warming_up", "completed")]
    assert watchers[0].states == ["pending", "warming_up", "completed"]
    assert watchers[-1].states == ["warming_up", "completed"]


# --- any course of events -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_life_leaves_nothing_behind(seed: int):
    """Waits that come, go, fail and end at random all end in time, and nothing remains."""
    rng = random.Random(seed)
    results = ["pending", "processing", "completed", "error", ConnectionFailed()]
    results += [ServerError(status=500, retry_after=3.0), ImageNotFound(), RuntimeError()]
    weights = [9, 9, 2, 1, 4, 2, 1, 1]
    looks = Looks(lambda vid, n: rng.choices(results, weights)[0])
    line = Line(looks, most_looks=4, pause=1.0)
    waits: list[tuple[float, Watcher]] = []
    loop = asyncio.get_running_loop()
    for _ in range(200):
        looks.seconds = rng.choice([0, 0.5, 2.0, 30.0])
        if rng.random() < 0.7:
            timeout = rng.choice([1.0, 5.0, 60.0])
            policy = Fixed(rng.choice([0.5, 3.0]), jitter=0)
            watcher = line.wait(make_vid(rng.randrange(12)), policy, timeout=timeout)
            waits.append((loop.time() + timeout, watcher))
        elif waits:
            line.scheduler.drop(waits.pop(rng.randrange(len(waits)))[1].wait)
        await asyncio.sleep(rng.choice([0, 0, 0.1, 1.0]))
    await asyncio.sleep(61)
    for deadline, watcher in waits:
        assert watcher.result is not None
        assert watcher.at <= deadline + 1e-3
    line.assert_nothing_left()
