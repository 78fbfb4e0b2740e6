"""
One budget: attempts take turns, keep the rate, and slow down together when the server asks.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections.abc import Callable
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kokoon_async._http.throttle import Limits, Throttle
from kokoon_async.errors import ConfigurationError, RateLimited
from kokoon_async.events import Braked, Event, Hooks

from .fakes import VID, outcome, turns


looptime = pytest.mark.looptime


def make_throttle(
    most: int | None = 4, rate: float | None = None, heard: list[Event] | None = None
) -> Throttle:
    """Make a throttle; *heard* collects its events."""
    hooks = Hooks() if heard is None else Hooks([heard.append])
    return Throttle(Limits(max_in_flight=most, requests_per_second=rate), hooks)


def now() -> float:
    """Give the loop's time."""
    return asyncio.get_running_loop().time()


@attrs.define
class Crowd:
    """
    Attempts of one throttle, each in a task, that go on until they are told to stop.

    Attributes:
        went: Who got a turn, in order, and when.
    """

    throttle: Throttle
    went: list[tuple[int, float]] = attrs.field(factory=list)
    tickets: dict[int, int] = attrs.field(factory=dict)
    tasks: dict[int, asyncio.Task[None]] = attrs.field(factory=dict)
    stops: dict[int, asyncio.Event] = attrs.field(factory=dict)

    def add(self, *names: int, due: float = math.inf, again: bool = False) -> None:
        """Start attempts, in this order."""
        for name in names:
            self.stops[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._attempt(name, due, again=again))

    async def _attempt(self, name: int, due: float, *, again: bool) -> None:
        self.tickets[name] = await self.throttle.take_turn(VID, due, again=again)
        self.went.append((name, now()))
        try:
            await self.stops[name].wait()
        finally:
            self.throttle.done()

    async def stop(self, *names: int) -> None:
        """Let these attempts end."""
        for name in names:
            self.stops[name].set()
        await turns()

    @property
    def order(self) -> list[int]:
        """Who got a turn, in order."""
        return [name for name, _ in self.went]

    @property
    def times(self) -> list[float]:
        """When turns were given."""
        return [at for _, at in self.went]

    async def end(self) -> None:
        """End them all, and check that nothing is left."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert self.throttle.in_flight == 0
        assert self.throttle._timer is None


# -- turns -----------------------------------------------------------------------------------------


@looptime
async def test_who_comes_again_is_next() -> None:
    """A call that is tried again does not stand behind those that have not begun."""
    crowd = Crowd(make_throttle(1))
    crowd.add(0, 1, 2)
    await turns()
    crowd.add(3, again=True)
    await turns()
    await crowd.stop(0, 1, 2, 3)
    await turns()
    assert crowd.order == [0, 3, 1, 2]
    await crowd.end()


@looptime
async def test_no_more_than_the_limit_run_at_once() -> None:
    """The limit is reached and never passed, and those who wait go in the order they came."""
    crowd = Crowd(make_throttle(3))
    crowd.add(*range(10))
    await turns()
    assert crowd.order == [0, 1, 2]
    assert crowd.throttle.in_flight == 3
    await crowd.stop(1)
    await crowd.stop(0, 2)
    assert crowd.order == [0, 1, 2, 3, 4, 5]
    crowd.add(10)
    await crowd.stop(3, 4, 5, 6, 7, 8, 9)
    assert crowd.order == list(range(11))
    assert crowd.throttle.in_flight == 1
    await crowd.end()


@looptime
async def test_who_comes_later_does_not_overtake() -> None:
    """A newcomer waits behind those who wait, also if a place is free at that moment."""
    throttle = make_throttle(1)
    crowd = Crowd(throttle)
    crowd.add(0, 1)
    await turns()
    throttle.done()  # the place is free, and 1 was given it in this very turn of the loop
    crowd.add(2)
    await turns()
    assert crowd.order == [0, 1]
    throttle._in_flight += 1
    await crowd.end()


def test_who_comes_before_a_late_timer_does_not_overtake() -> None:
    """A newcomer waits behind those who wait, also if the rate allows a turn that none took yet."""
    clock = ManualLoop()
    crowd = Crowd(make_throttle(4, rate=1))
    clock.loop.call_soon(crowd.add, 0, 1, 2)
    clock.run()
    assert crowd.order == [0]

    def comes_late() -> None:
        clock.now += 1.5  # the timer for the next is due, and fires after this
        crowd.add(3)

    clock.loop.call_soon(comes_late)
    clock.run(10)
    assert crowd.order == [0, 1, 2, 3]
    clock.loop.run_until_complete(crowd.end())
    clock.loop.close()


@looptime
async def test_without_a_limit_all_go_at_once() -> None:
    """`None` is no limit at all."""
    crowd = Crowd(make_throttle(None))
    crowd.add(*range(1_000))
    await turns()
    assert crowd.throttle.in_flight == 1_000
    assert crowd.throttle.max_in_flight == math.inf
    await crowd.end()


@pytest.mark.fault("F-105")
@looptime
@pytest.mark.parametrize("victims", [[1], [1, 2], [2], [3], [1, 2, 3]])
async def test_who_is_cancelled_while_waiting_loses_nothing(victims: list[int]) -> None:
    """A cancelled waiter leaves the queue, and the others keep their order."""
    crowd = Crowd(make_throttle(1))
    crowd.add(*range(4))
    await turns()
    for victim in victims:
        crowd.tasks[victim].cancel()
    await turns()
    assert crowd.throttle.in_flight == 1
    rest = [name for name in range(1, 4) if name not in victims]
    await crowd.stop(0, *rest)
    assert crowd.order == [0, *rest]
    crowd.add(9)
    await turns()
    assert crowd.order == [0, *rest, 9]
    await crowd.end()


@pytest.mark.fault("F-105")
@looptime
@pytest.mark.parametrize("turns_between", [0, 1])
@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_as_its_turn_comes_gives_it_on(
    turns_between: int, times: int
) -> None:
    """A turn that comes in the same tick as the cancellation goes to the next one."""
    crowd = Crowd(make_throttle(1))
    crowd.add(0, 1, 2)
    await turns()
    crowd.stops[0].set()
    await turns(turns_between)  # after one, 1 has its turn and has not noticed it
    assert crowd.throttle._queue[0][0].done() is False
    assert len(crowd.throttle._queue) == 2 - turns_between
    for _ in range(times):
        crowd.tasks[1].cancel()
    await turns()
    assert crowd.order == [0, 2]
    assert crowd.throttle.in_flight == 1
    await crowd.end()


@looptime
async def test_no_timer_is_left_when_all_who_waited_are_gone() -> None:
    """The last one to be cancelled in the queue takes the timer along."""
    throttle = make_throttle(4, rate=0.1)
    crowd = Crowd(throttle)
    crowd.add(0, 1, 2)
    await turns()
    assert throttle._timer is not None
    for task in crowd.tasks.values():
        task.cancel()
    await turns()
    assert throttle._timer is None
    assert not throttle._queue
    await crowd.end()


# -- rate ------------------------------------------------------------------------------------------


async def send_for(
    throttle: Throttle, seconds: float, *, callers: int, took: Callable[[], float] = lambda: 0.0
) -> list[float]:
    """Let so many callers ask for turns, each again and again; return when turns were given."""
    began, times = now(), []

    async def call() -> None:
        while now() < began + seconds:
            await throttle.take_turn(VID, math.inf)
            times.append(now())
            await asyncio.sleep(took())
            throttle.done()

    await asyncio.gather(*[call() for _ in range(callers)])
    return [at for at in times if at < began + seconds]


def most_within(times: list[float], seconds: float) -> int:
    """Give the most turns within any window of so many seconds, its end not included."""
    return max(
        bisect.bisect_left(times, start + seconds - 1e-9) - place
        for place, start in enumerate(times)
    )


def fewest_within(times: list[float], seconds: float) -> int:
    """Give the fewest turns within a window of so many seconds that begins after a turn."""
    inner = [t for t in times if t + seconds <= times[-1]]
    return min(
        bisect.bisect_left(times, start + seconds + 1e-9) - place - 1
        for place, start in enumerate(inner)
    )


def assert_rate(times: list[float], rate: float) -> None:
    """Check the rate within any 10 s (5 %), and against bursts within any 100 ms (twice)."""
    assert most_within(times, 10) <= 1.05 * rate * 10
    assert fewest_within(times, 10) >= 0.95 * rate * 10
    assert most_within(times, 0.1) <= math.ceil(2 * rate * 0.1)


@pytest.mark.fault("F-54")
@looptime
@pytest.mark.parametrize("rate", [5, 7.3, 60])
async def test_the_rate_is_kept(rate: float) -> None:
    """With more callers than turns, any 10 s have the rate's share of them."""
    throttle = make_throttle(64, rate=rate)
    assert_rate(await send_for(throttle, 14, callers=20), rate)


@looptime
@pytest.mark.parametrize("rate", [7.3, 60])
async def test_the_rate_is_kept_after_idling(rate: float) -> None:
    """What was not used while nobody asked is not made up for in a burst."""
    throttle = make_throttle(64, rate=rate)
    await send_for(throttle, 1, callers=20)
    await asyncio.sleep(60)
    assert_rate(await send_for(throttle, 12, callers=20), rate)


@pytest.mark.fault("F-54")
@looptime
@pytest.mark.parametrize("rate", [7.3, 60])
async def test_the_rate_is_kept_after_a_brake(rate: float) -> None:
    """G9: when the server's pause is over, thousands who wait do not all go at once."""
    throttle = make_throttle(None, rate=rate)
    crowd = Crowd(throttle)
    first = await throttle.take_turn(VID, math.inf)
    throttle.brake(first, 30)
    began = now()
    throttle._allowed = math.inf  # the brake's other half is not at issue here
    crowd.add(*range(math.ceil(rate * 13)))
    await asyncio.sleep(29.9)
    assert crowd.went == []
    await asyncio.sleep(14)
    throttle.done()
    assert crowd.times[0] == pytest.approx(began + 30)
    assert_rate(crowd.times, rate)
    assert crowd.order == list(range(len(crowd.times)))
    await crowd.end()


@pytest.mark.parametrize(("late", "rate"), [(0.0, 100), (0.03, 100), (0.2, 33)])
def test_turns_lost_to_a_late_timer_are_made_up_for(late: float, rate: float) -> None:
    """A loop that is late now and then keeps the rate; a long delay is not made up for."""
    clock = ManualLoop()
    crowd = Crowd(make_throttle(None, rate=100))
    clock.loop.call_soon(crowd.add, *range(1100))
    while clock.now < 10:
        clock.run(0.01)
        clock.now += late
    clock.run()
    assert len(crowd.went) == pytest.approx(10 * rate, rel=0.05)
    clock.loop.run_until_complete(crowd.end())
    clock.loop.close()


@looptime
async def test_rate_and_limit_hold_together() -> None:
    """With slow attempts the limit decides, with quick ones the rate."""
    slow = await send_for(make_throttle(2, rate=50), 10, callers=9, took=lambda: 1.0)
    assert len(slow) == pytest.approx(20, abs=2)
    quick = await send_for(make_throttle(2, rate=50), 10, callers=9, took=lambda: 0.001)
    assert len(quick) == pytest.approx(500, abs=10)


# -- the brake -------------------------------------------------------------------------------------


@pytest.mark.fault("F-52")
@looptime
async def test_a_brake_delays_all() -> None:
    """After the server asked for a pause nobody goes before it is over: who waits, who comes."""
    heard: list[Event] = []
    throttle = make_throttle(4, heard=heard)
    crowd = Crowd(throttle)
    crowd.add(0, 1, 2, 3, 4, 5)
    await turns()
    throttle.brake(crowd.tickets[0], 10)
    assert heard == [Braked(delay=10.0, max_in_flight=2)]
    await crowd.stop(0, 1, 2, 3)
    crowd.add(6)
    await asyncio.sleep(9.99)
    assert crowd.order == [0, 1, 2, 3]
    assert throttle.in_flight == 0
    await asyncio.sleep(0.011)
    assert crowd.order == [0, 1, 2, 3, 4, 5]  # two at once, from now on
    assert crowd.times[4:] == [10, 10]
    await crowd.end()


@pytest.mark.fault("F-52")
@looptime
async def test_a_brake_is_never_shortened() -> None:
    """Of several pauses the one that ends last counts, in whatever order they come."""
    heard: list[Event] = []
    throttle = make_throttle(8, heard=heard)
    tickets = [await throttle.take_turn(VID, math.inf) for _ in range(4)]
    throttle.brake(tickets[0], 10)
    await asyncio.sleep(2)
    throttle.brake(tickets[1], 3)
    throttle.brake(tickets[2], None)
    throttle.brake(tickets[3], 0)
    crowd = Crowd(throttle)
    crowd.add(0)
    await asyncio.sleep(1)
    throttle.brake(tickets[3], 9)
    for _ in tickets:
        throttle.done()
    assert heard == [Braked(delay=10.0, max_in_flight=4), Braked(delay=9.0, max_in_flight=4)]
    await asyncio.sleep(60)
    assert crowd.times == [12]
    await crowd.end()


@pytest.mark.fault("F-51")
@looptime
async def test_a_pause_beyond_the_deadline_fails_at_once() -> None:
    """Who could not go before its deadline is told at once, with the seconds that are left."""
    throttle = make_throttle(2)
    ticket = await throttle.take_turn(VID, math.inf)
    throttle.brake(ticket, 30)
    await asyncio.sleep(10)
    with pytest.raises(RateLimited) as caught:
        await throttle.take_turn(VID, now() + 19.9)
    assert now() == 10
    assert (caught.value.vid, caught.value.retry_after) == (VID, pytest.approx(20))
    assert str(caught.value) == (
        f"The API asked for a pause of 20 s more, longer than image {VID} can wait."
        " Ask again after that time."
    )
    throttle.done()
    crowd = Crowd(throttle)
    crowd.add(0, due=now() + 20.1)
    await asyncio.sleep(20.05)
    assert crowd.times == [30]
    await crowd.end()


@pytest.mark.fault("F-51")
@looptime
async def test_a_pause_beyond_the_deadline_fails_those_who_wait_already() -> None:
    """A brake ends the waiting of those for whom it is too long, and only theirs."""
    throttle = make_throttle(1)
    crowd = Crowd(throttle)
    crowd.add(0)
    crowd.add(1, due=25)
    crowd.add(2, due=60)
    crowd.add(3, due=29)
    await turns()
    crowd.tasks[1].cancel()  # in the same turn: it must stay a cancellation
    throttle.brake(crowd.tickets[0], 30)
    result = await outcome(_value(crowd.tasks[3]))
    assert now() == 0
    assert isinstance(result, RateLimited)
    assert (result.vid, result.retry_after) == (VID, 30)
    assert VID in result.message
    assert crowd.tasks[1].cancelled()
    await crowd.stop(0)
    await asyncio.sleep(30.01)
    assert crowd.order == [0, 2]
    await crowd.end()


@pytest.mark.fault("F-105")
@looptime
async def test_who_is_cancelled_as_the_brake_refuses_it_frees_nothing() -> None:
    """Cancelled in the turn in which its wait was refused, an attempt had no place to give back."""
    throttle = make_throttle(1)
    crowd = Crowd(throttle)
    crowd.add(0)
    crowd.add(1, due=25)
    await turns()
    throttle.brake(crowd.tickets[0], 30)
    crowd.tasks[1].cancel()
    await turns()
    assert crowd.tasks[1].cancelled()
    assert throttle.in_flight == 1
    await crowd.end()


async def _value(task: asyncio.Task[None]) -> None:
    await task


# -- how many at once (AIMD) -----------------------------------------------------------------------


@pytest.mark.fault("F-53")
@looptime
async def test_a_batch_of_refusals_halves_once() -> None:
    """All attempts that were under way when the first was refused count as one refusal."""
    heard: list[Event] = []
    throttle = make_throttle(64, heard=heard)
    tickets = [await throttle.take_turn(VID, math.inf) for _ in range(64)]
    for ticket in tickets:
        throttle.brake(ticket, None)
        throttle.done()
    assert throttle.max_in_flight == 32
    assert heard == [Braked(delay=0.0, max_in_flight=32)]
    for expected in (16, 8):
        later = [await throttle.take_turn(VID, math.inf) for _ in range(2)]
        for ticket in later:
            throttle.brake(ticket, None)
            throttle.done()
        assert throttle.max_in_flight == expected


@looptime
async def test_half_of_an_odd_limit_is_a_whole_number() -> None:
    """Of seven at once three are left: growth begins with whole attempts."""
    throttle = make_throttle(7)
    throttle.brake(await throttle.take_turn(VID, math.inf), None)
    assert throttle.max_in_flight == 3
    throttle.done()


@pytest.mark.fault("F-53")
@looptime
async def test_a_turn_given_before_a_brake_belongs_to_the_old_batch() -> None:
    """Who got its turn just before the brake, and is refused too, does not halve again."""
    throttle = make_throttle(8)
    crowd = Crowd(throttle)
    crowd.add(*range(9))
    await turns()
    throttle.done()  # 8's turn comes ...
    throttle.brake(crowd.tickets[1], None)  # ... before it can notice, the brake
    await turns()
    assert crowd.order[-1] == 8
    throttle.brake(crowd.tickets[8], None)
    assert throttle.max_in_flight == 4
    throttle._in_flight += 1
    await crowd.end()


@looptime
async def test_a_round_of_successes_allows_one_more() -> None:
    """As many successes as may run at once add one, up to the limit and no further."""
    throttle = make_throttle(64)
    ticket = await throttle.take_turn(VID, math.inf)
    throttle.brake(ticket, None)
    throttle.done()
    for allowed in range(32, 64):
        for _ in range(allowed + 1):
            throttle.succeeded()
        assert allowed + 1 <= throttle.max_in_flight <= allowed + 1.2
        throttle._allowed = float(allowed + 1)
    for _ in range(100):
        throttle.succeeded()
    assert throttle.max_in_flight == 64


@looptime
async def test_one_is_always_allowed() -> None:
    """However often the server refuses, one attempt at a time goes on."""
    throttle = make_throttle(5)
    for _ in range(10):
        throttle.brake(await throttle.take_turn(VID, math.inf), None)
        throttle.done()
    assert throttle.max_in_flight == 1
    await throttle.take_turn(VID, math.inf)
    throttle.done()


@looptime
async def test_without_a_limit_the_attempts_under_way_are_halved() -> None:
    """An unlimited client has a limit after the first refusal, and grows from there."""
    throttle = make_throttle(None)
    tickets = [await throttle.take_turn(VID, math.inf) for _ in range(100)]
    throttle.brake(tickets[0], None)
    assert throttle.max_in_flight == 50
    for _ in range(60):
        throttle.succeeded()
    assert 51 <= throttle.max_in_flight < 52
    for _ in tickets:
        throttle.done()


@looptime
async def test_growth_reaches_those_who_wait() -> None:
    """When more may run again, the next attempt that ends lets two go."""
    throttle = make_throttle(4)
    throttle._allowed = 1.0
    crowd = Crowd(throttle)
    crowd.add(0, 1, 2)
    await turns()
    throttle.succeeded()
    await crowd.stop(0)
    assert crowd.order == [0, 1, 2]
    await crowd.end()


@looptime
async def test_an_unheard_brake_builds_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """Without hooks and with the log off, a brake still brakes."""
    caplog.set_level("ERROR", logger="kokoon_async")
    throttle = make_throttle(4)
    throttle.brake(await throttle.take_turn(VID, math.inf), 1)
    throttle.done()
    assert throttle.max_in_flight == 2


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "64"])
def test_a_limit_is_a_whole_number(value: object) -> None:
    """A limit is a whole number from 1, or `None`."""
    with pytest.raises(ConfigurationError, match=r"Limits\.max_in_flight"):
        Limits(max_in_flight=value)  # type: ignore[arg-type]


def test_a_limit_beyond_all_floats() -> None:
    """A limit may be any whole number, however large."""
    assert make_throttle(10**400).max_in_flight >= 10**18


@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf, True, "3"])
def test_a_rate_is_a_positive_number(value: object) -> None:
    """A rate is a positive, finite number, or `None`."""
    with pytest.raises(ConfigurationError, match=r"Limits\.requests_per_second"):
        Limits(requests_per_second=value)  # type: ignore[arg-type]


# -- any order of events ---------------------------------------------------------------------------


class ManualLoop:
    """The loop's clock, moved by hand: the machine below decides when time passes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.loop.time = lambda: self.now  # type: ignore[method-assign]

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything happen that is due."""
        until = self.now + seconds
        while True:
            self.loop.run_until_complete(turns(6))
            timers: Any = self.loop._scheduled  # type: ignore[attr-defined]
            due = [timer.when() for timer in timers if not timer.cancelled()]
            if not due or min(due) > until:
                break
            self.now = max(self.now, min(due))
        self.now = until


class ThrottleMachine(RuleBasedStateMachine):
    """Attempts come, end, succeed, are refused and cancelled in any order."""

    @initialize(
        most=st.none() | st.integers(1, 4), rate=st.none() | st.sampled_from([0.5, 3.0, 40.0])
    )
    def begin(self, most: int | None, rate: float | None) -> None:
        """Make a throttle on a loop of its own."""
        self.clock = ManualLoop()
        self.most, self.rate = most, rate
        self.throttle = make_throttle(most, rate)
        self.crowd = Crowd(self.throttle)
        self.names = itertools.count()
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.braked_until = 0.0
        self.seen = 0

    def settle(self, seconds: float = 0.0) -> None:
        """Let the loop run, and move those who got a turn from *waiting* to *running*."""
        self.clock.run(seconds)
        for name, at in self.crowd.went[self.seen :]:
            assert name == self.waiting.pop(0), "out of turn"
            self.running.append(name)
            assert at >= self.braked_until - 1e-6, "went during the server's pause"
        self.seen = len(self.crowd.went)

    @rule()
    def comes(self) -> None:
        """Start one more attempt."""
        name = next(self.names)
        self.waiting.append(name)
        self.clock.loop.call_soon(self.crowd.add, name)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 9), succeeds=st.booleans())
    def ends(self, place: int, succeeds: bool) -> None:
        """End an attempt."""
        name = self.running.pop(place % len(self.running))
        self.crowd.stops[name].set()
        if succeeds:
            self.throttle.succeeded()
        self.settle()

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 9), hint=st.none() | st.sampled_from([0.0, 0.7, 5.0]))
    def is_refused(self, place: int, hint: float | None) -> None:
        """Refuse an attempt, maybe for some time."""
        name = self.running[place % len(self.running)]
        self.clock.loop.call_soon(self.throttle.brake, self.crowd.tickets[name], hint)
        if hint is not None:
            self.braked_until = max(self.braked_until, self.clock.now + hint)
        self.settle()

    @precondition(lambda self: self.waiting or self.running)
    @rule(place=st.integers(0, 9))
    def is_cancelled(self, place: int) -> None:
        """Cancel somebody, waiting or running."""
        name = (self.waiting + self.running)[place % len(self.waiting + self.running)]
        (self.waiting if name in self.waiting else self.running).remove(name)
        self.crowd.tasks[name].cancel()
        self.settle()

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.settle(seconds)

    @invariant()
    def limits_hold(self) -> None:
        """Places, rate and the allowed number are what they must be."""
        if not hasattr(self, "clock"):
            return
        assert self.throttle.in_flight == len(self.running)
        assert 1 <= self.throttle.max_in_flight <= (self.most or math.inf)
        assert len(self.running) <= (self.most or math.inf)
        if self.rate and self.crowd.times:
            assert most_within(self.crowd.times, 1) <= self.rate * 1.05 + 1

    def teardown(self) -> None:
        """Nobody waits for ever: when all end and time passes, everybody had a turn."""
        if not hasattr(self, "clock"):
            return
        for _ in range(500):
            if not (self.waiting or self.running):
                break
            for name in self.running:
                self.crowd.stops[name].set()
            self.running.clear()
            self.settle(10)
        assert not self.waiting
        self.clock.loop.run_until_complete(self.crowd.end())
        self.clock.loop.close()


@pytest.mark.hypothesis
def test_turns_in_any_order_of_events() -> None:
    """Whatever happens in whatever order, no limit is passed, no turn lost, and none out of turn."""
    run_state_machine_as_test(ThrottleMachine)
