"""
Calls end in time, with the right error, and never touch a cancellation of somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from kokoon_async._http.calls import Call, Calls, Timeouts
from kokoon_async.errors import (
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    ImageNotFound,
    KokoonError,
    RequestTimedOut,
)

from .fakes import VID, turns


pytestmark = pytest.mark.looptime

TOTAL, READ = 60.0, 30.0


@pytest.fixture
def calls() -> Calls:
    """Give a watcher with the usual limits."""
    return Calls(Timeouts(total=TOTAL, read=READ))


def now() -> float:
    """Give the loop's time."""
    return asyncio.get_running_loop().time()


def timers() -> int:
    """Count the loop's timers that are not cancelled."""
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


def uncancelled() -> bool:
    """Tell whether nothing is left of a cancellation of this task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() == 0


@attrs.define
class Racer:
    """
    Runs a call in a task of its own, and lets a test do things in one turn of the loop.

    Attributes:
        gate: What the call waits for.
    """

    calls: Calls
    call: Call
    gate: asyncio.Future[str]
    task: asyncio.Task[str]
    left: list[int] = attrs.field(factory=list)

    @classmethod
    async def start(cls, calls: Calls) -> Racer:
        """Start a call and let it come to its wait."""
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        left: list[int] = []
        call = calls.new(VID)

        async def work() -> str:
            return await gate

        async def run() -> str:
            task = asyncio.current_task()
            assert task is not None
            try:
                return await calls.run(call, work())
            finally:
                left.append(task.cancelling())

        racer = cls(calls, call, gate, asyncio.create_task(run()), left)
        await turns(2)
        return racer

    def at_deadline(self, *actions: Callable[[], object]) -> None:
        """Do *actions* in the turn of the loop in which the deadline is; `tick` is one of them."""

        def act() -> None:
            for action in actions:
                action()

        asyncio.get_running_loop().call_at(self.call.due, act)
        timer = self.calls._timer
        assert timer is not None
        timer.cancel()  # the order shall be the test's

    def tick(self) -> None:
        """Let the watcher look, as its timer would."""
        self.calls._tick()

    def finish(self) -> None:
        """Let the call have what it waits for."""
        if not self.gate.done():
            self.gate.set_result("done")


async def test_a_call_in_time_gives_its_result(calls: Calls) -> None:
    """A call that is done in time returns what its work returned, and is forgotten."""
    call = calls.new(VID)
    assert call.due == now() + TOTAL

    async def work() -> str:
        await asyncio.sleep(TOTAL - 0.001)
        return "done"

    assert await calls.run(call, work()) == "done"
    assert call.task is None
    assert not calls._calls
    assert uncancelled()


async def test_the_deadline_ends_a_call(calls: Calls) -> None:
    """A call is ended at its deadline, on the dot, with the phase in the error."""
    began = now()
    call = calls.new(VID)
    call.attempts = 2
    calls.pauses(call, "pausing before attempt 3")
    with pytest.raises(RequestTimedOut) as caught:
        await calls.run(call, asyncio.sleep(1000))
    assert now() == began + TOTAL
    assert caught.value.phase == "pausing before attempt 3"
    assert str(caught.value) == (
        f"The request for image {VID} timed out while pausing before attempt 3:"
        " the call took over 60 s. Ask again, or raise Timeouts.total or Timeouts.read."
    )
    assert (caught.value.vid, caught.value.attempts) == (VID, 2)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert uncancelled()


async def test_a_silent_server_ends_a_call() -> None:
    """A server that is silent for too long ends the call, however often it spoke before."""
    calls = Calls(Timeouts(total=None, read=READ))
    began, call = now(), calls.new(VID)

    async def work() -> None:
        for _ in range(3):
            calls.awaits_answer(call, "reading the answer")
            await asyncio.sleep(READ - 1)
        calls.awaits_answer(call, "waiting for the answer")
        await asyncio.sleep(1000)

    with pytest.raises(RequestTimedOut, match="waiting for the answer: the server was silent"):
        await calls.run(call, work())
    assert now() == began + 3 * (READ - 1) + READ


async def test_a_pause_is_no_silence(calls: Calls) -> None:
    """While a call does not wait for the server, only its deadline counts."""
    call = calls.new(VID)

    async def work() -> str:
        calls.awaits_answer(call, "waiting for the answer")
        calls.pauses(call, "waiting for its turn")
        await asyncio.sleep(TOTAL - 1)
        return "done"

    assert await calls.run(call, work()) == "done"


async def test_without_limits_nothing_ends_a_call() -> None:
    """`None` means for ever, and needs no timer."""
    calls = Calls(Timeouts(total=None, read=None))
    call = calls.new(VID)
    calls.awaits_answer(call, "waiting for the answer")
    work = asyncio.create_task(calls.run(call, asyncio.sleep(1_000_000, "done")))
    await turns()
    assert timers() == 1  # the sleep's own
    assert await work == "done"


async def test_one_timer_serves_all_calls(calls: Calls) -> None:
    """However many calls run and wait for the server, the loop has one timer more."""
    running = [calls.new(VID) for _ in range(100)]

    async def work(call: Call) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            calls.awaits_answer(call, "waiting for the answer")
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(calls.run(call, work(call))) for call in running]
    await turns(8)
    assert timers() == 1
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {RequestTimedOut}
    assert timers() == 0


async def test_each_call_is_ended_at_its_own_time(calls: Calls) -> None:
    """The one timer goes from each call's time to the next one's."""
    began, ended = now(), []

    async def run(delay: float) -> None:
        await asyncio.sleep(delay)
        with pytest.raises(RequestTimedOut):
            await calls.run(calls.new(VID), asyncio.sleep(1000))
        ended.append(now() - began)

    await asyncio.gather(*[run(delay) for delay in (7, 0, 3)])
    assert ended == [TOTAL, TOTAL + 3, TOTAL + 7]


# -- who ends a call -------------------------------------------------------------------------------


@pytest.mark.fault("F-16")
async def test_end_all_ends_every_call(calls: Calls) -> None:
    """Whoever runs gets `ClientClosed` of its own with vid and attempts, and no timer is left."""
    racers = [await Racer.start(calls) for _ in range(3)]
    racers[1].call.attempts = 2
    assert timers() == 1
    calls.end_all("The client was closed meanwhile.")
    assert timers() == 0
    errors = await asyncio.gather(*[racer.task for racer in racers], return_exceptions=True)
    assert {type(error) for error in errors} == {ClientClosed}
    assert len({id(error) for error in errors}) == 3
    assert [error.attempts for error in errors if isinstance(error, KokoonError)] == [0, 2, 0]
    assert {str(error) for error in errors} == {"The client was closed meanwhile."}
    assert [racer.left for racer in racers] == [[0], [0], [0]]
    calls.end_all("Nothing runs.")


async def test_the_last_end_counts(calls: Calls) -> None:
    """Ended twice in one turn, a call tells the last reason; one that is over cannot be ended."""
    racer = await Racer.start(calls)
    racer.at_deadline(racer.tick, lambda: calls.end_all("closed"), racer.tick)
    with pytest.raises(ClientClosed, match="closed"):
        await racer.task
    assert racer.left == [0]
    racer.call.ending = None
    racer.call.end(ClientClosed("too late"))
    assert racer.call.ending is None


# -- silence ends an attempt, and not the call -----------------------------------------------------


@attrs.define
class Silenced:
    """
    A call whose first attempt is ended by the server's silence, and what became of it.

    Attributes:
        went_on: What it was told when it asked whether it may go on.
    """

    calls: Calls
    call: Call
    went_on: list[RequestTimedOut | None] = attrs.field(factory=list)

    async def work(self) -> str:
        """Be silenced; go on, if that is allowed, and be silenced again."""
        self.calls.awaits_answer(self.call, "waiting for the answer")
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            self.went_on.append(self.calls.go_on_after_silence(self.call))
            if self.went_on[-1] is None:
                raise
        await asyncio.sleep(1000)
        return "done"


@pytest.mark.fault("F-05")
async def test_a_call_goes_on_after_a_silence(calls: Calls) -> None:
    """An attempt that was ended by silence may be followed by another, until the deadline."""
    silenced = Silenced(calls, calls.new(VID))
    with pytest.raises(RequestTimedOut, match="the call took over 60 s"):
        await calls.run(silenced.call, silenced.work())
    assert now() == TOTAL
    (error,) = silenced.went_on
    assert error is not None
    assert error.phase == "waiting for the answer"
    assert "silent for 30 s" in error.message
    assert uncancelled()


async def test_a_call_that_goes_on_holds_up_no_other(calls: Calls) -> None:
    """After one call went on, another that is silent for too long is ended in time."""
    first, second = (Silenced(calls, calls.new(VID)) for _ in range(2))
    running = asyncio.ensure_future(calls.run(first.call, first.work()))
    await asyncio.sleep(1)
    other = asyncio.ensure_future(calls.run(second.call, second.work()))
    await asyncio.sleep(READ - 0.5)
    assert [len(first.went_on), len(second.went_on)] == [1, 0]
    await asyncio.sleep(1)
    assert [len(first.went_on), len(second.went_on)] == [1, 1]
    results = await asyncio.gather(running, other, return_exceptions=True)
    assert {type(result) for result in results} == {RequestTimedOut}


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("meanwhile", ["cancelled", "closed", "late", "nothing"])
async def test_a_call_does_not_go_on_if_it_was_ended_too(calls: Calls, meanwhile: str) -> None:
    """Whoever else ended the call in the turn of the silence has his way."""
    silenced = Silenced(calls, calls.new(VID))
    if meanwhile == "late":
        silenced.call.due = now() + READ
    task = asyncio.create_task(calls.run(silenced.call, silenced.work()))
    await turns()

    def act() -> None:
        calls._tick()
        if meanwhile == "cancelled":
            task.cancel()
        elif meanwhile == "closed":
            calls.end_all("closed")

    asyncio.get_running_loop().call_at(READ, act)
    timer = calls._timer
    assert timer is not None
    timer.cancel()
    expected = {"cancelled": asyncio.CancelledError, "closed": ClientClosed}
    with pytest.raises(expected.get(meanwhile, RequestTimedOut)):
        await task
    assert [error is None for error in silenced.went_on] == [meanwhile != "nothing"]
    assert now() == (TOTAL if meanwhile == "nothing" else READ)


async def test_a_call_that_was_not_ended_has_no_silence(calls: Calls) -> None:
    """Nothing happens to a call that nobody ended, or that does not run."""
    call = calls.new(VID)
    assert calls.go_on_after_silence(call) is None

    async def work() -> RequestTimedOut | None:
        return calls.go_on_after_silence(call)

    assert await calls.run(call, work()) is None


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("first", ["the deadline", "the caller"])
async def test_a_cancellation_in_the_tick_of_the_deadline_wins(
    calls: Calls, first: str, times: int
) -> None:
    """Cancelled from outside in the same turn as ended, a call raises `CancelledError`."""
    racer = await Racer.start(calls)
    cancels: list[Callable[[], object]] = [racer.task.cancel] * times
    actions = [racer.tick, *cancels] if first == "the deadline" else [*cancels, racer.tick]
    racer.at_deadline(*actions)
    with pytest.raises(asyncio.CancelledError):
        await racer.task
    assert racer.call.ending is not None, "the deadline did not fire"
    assert racer.task.cancelled()
    # What the caller asked for is still asked for, and nothing else.
    assert racer.left == [times]


@pytest.mark.fault("F-105")
async def test_a_call_that_finishes_in_the_tick_of_its_deadline_times_out(calls: Calls) -> None:
    """What comes in the very turn of the deadline is too late; nothing is left of the end."""
    racer = await Racer.start(calls)
    racer.at_deadline(racer.finish, racer.tick)
    with pytest.raises(RequestTimedOut):
        await racer.task
    assert racer.left == [0]


@pytest.mark.fault("F-105")
async def test_a_call_that_finished_just_before_its_deadline_is_done(calls: Calls) -> None:
    """A call that was over in the turn before is not ended any more."""
    racer = await Racer.start(calls)
    loop = asyncio.get_running_loop()
    racer.at_deadline(racer.finish, lambda: loop.call_soon(loop.call_soon, racer.tick))
    assert await racer.task == "done"
    assert racer.left == [0]
    await turns()
    assert racer.call.ending is None


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("outer_first", [True, False])
async def test_an_outer_timeout_in_the_same_tick_fires(calls: Calls, outer_first: bool) -> None:
    """`asyncio.timeout` around a call and the call's own deadline agree on who ended it."""
    seconds = TOTAL if outer_first else TOTAL + 0.001
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises((TimeoutError, RequestTimedOut)) as caught:
        async with asyncio.timeout(seconds) as outer:
            await calls.run(calls.new(VID), asyncio.sleep(1000))
    if outer_first:
        assert outer.expired()
        assert type(caught.value) is TimeoutError
    else:
        assert not outer.expired()
        assert type(caught.value) is RequestTimedOut
    assert task.cancelling() == 0


@pytest.mark.fault("F-105")
async def test_an_outer_timeout_goes_on_after_a_call_timed_out(calls: Calls) -> None:
    """A timed-out call inside `asyncio.timeout` can be handled there, and the timeout fires later."""
    reached = []

    async def run() -> None:
        async with asyncio.timeout(TOTAL + 10):
            with pytest.raises(RequestTimedOut):
                await calls.run(calls.new(VID), asyncio.sleep(1000))
            reached.append(now())
            await asyncio.sleep(1000)

    with pytest.raises(TimeoutError) as caught:
        await run()
    assert type(caught.value) is TimeoutError
    assert reached == [TOTAL]
    assert now() == TOTAL + 10
    assert uncancelled()


async def test_a_call_in_the_clean_up_of_a_cancelled_task_times_out(calls: Calls) -> None:
    """A task that was cancelled before may still make calls, and its cancellation stays."""

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(1000)
        finally:
            with pytest.raises(RequestTimedOut):
                await calls.run(calls.new(VID), asyncio.sleep(1000))
            left.append(task.cancelling())

    left: list[int] = []
    task = asyncio.create_task(run())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [1]


@pytest.mark.fault("F-114")
async def test_a_task_group_sees_the_error_of_a_call(calls: Calls) -> None:
    """In a task group a timed-out call is one failure, and no cancellation."""

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(calls.run(calls.new(VID), asyncio.sleep(1000)))
            group.create_task(asyncio.sleep(2000))

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert [type(error) for error in caught.value.exceptions] == [RequestTimedOut]
    assert now() == TOTAL


@pytest.mark.fault("F-16")
async def test_an_invented_cancellation_becomes_an_error(calls: Calls) -> None:
    """`CancelledError` out of the work although nobody cancelled anything is none outside (E16)."""

    async def work() -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.cancel()
        await waiter

    call = calls.new(VID)
    call.attempts = 1
    with pytest.raises(ConnectionFailed, match="Something cancelled the request") as caught:
        await calls.run(call, work())
    assert (caught.value.vid, caught.value.attempts) == (VID, 1)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("failure", [ImageNotFound("There is no image."), ValueError("a bug")])
async def test_work_that_turns_its_end_into_something_else(
    calls: Calls, failure: Exception
) -> None:
    """Whatever the work makes of its end comes out, and the task is not left cancelled."""

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise failure from None

    with pytest.raises(type(failure)):
        await calls.run(calls.new(VID), work())
    assert uncancelled()


async def test_work_that_ignores_its_end_returns(calls: Calls) -> None:
    """Work that was done although it was ended gives its result, and the task goes on."""

    async def work() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "done all the same"
        return "done"

    assert await calls.run(calls.new(VID), work()) == "done all the same"
    assert uncancelled()
    await asyncio.sleep(0)


async def test_errors_know_the_image_and_the_attempts(calls: Calls) -> None:
    """Every error that leaves a call names the image and counts the requests."""

    async def work() -> None:
        call.attempts = 2
        raise ImageNotFound("There is no image.")

    call = calls.new(VID)
    with pytest.raises(ImageNotFound) as caught:
        await calls.run(call, work())
    assert (caught.value.vid, caught.value.attempts) == (VID, 2)


def depth(error: BaseException) -> list[str]:
    """Give the names of the functions in a traceback."""
    names, frames = [], error.__traceback__
    while frames is not None:
        names.append(frames.tb_frame.f_code.co_name)
        frames = frames.tb_next
    return names


@pytest.mark.fault("F-120")
@pytest.mark.parametrize("ended_by", ["an error", "the deadline", "the caller"])
async def test_no_frame_below_the_call_is_kept(calls: Calls, ended_by: str) -> None:
    """The frames of the work, whose locals may hold secrets, leave with no exception."""

    async def work() -> None:
        secret = "hush"  # noqa: F841 - it shall not be seen
        if ended_by == "an error":
            raise ImageNotFound("There is no image.")
        try:
            await asyncio.sleep(1000)
        finally:
            raise_within()

    def raise_within() -> None:
        try:
            raise LookupError("hush")
        except LookupError:
            pass

    task = asyncio.create_task(calls.run(calls.new(VID), work()))
    await turns()
    if ended_by == "the caller":
        task.cancel()
    with pytest.raises((KokoonError, asyncio.CancelledError)) as caught:
        await task
    assert depth(caught.value)[-1] == "run"
    assert "work" not in depth(caught.value)
    assert caught.value.__context__ is None


async def test_a_cancellation_brings_no_foreign_exception_along(calls: Calls) -> None:
    """A cancellation that hit a handler of aiohttp's does not carry what was handled (F-120)."""

    async def work() -> None:
        try:
            raise LookupError("hush")
        except LookupError:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            try:
                await waiter
            except asyncio.CancelledError:
                raise asyncio.CancelledError from None

    task = asyncio.create_task(calls.run(calls.new(VID), work()))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__context__ is None


@pytest.mark.fault("F-58")
@pytest.mark.parametrize("field", ["connect", "read", "total", "outage"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "60", True])
def test_timeouts_are_checked(field: str, value: object) -> None:
    """A timeout is a positive, finite number."""
    with pytest.raises(ConfigurationError, match=rf"Timeouts\.{field}"):
        Timeouts(**{field: value})  # type: ignore[arg-type]


def test_timeouts_are_values() -> None:
    """Timeouts have the documented defaults, and compare and print as values."""
    assert Timeouts() == Timeouts(connect=10, read=30, total=60, outage=120)
    assert Timeouts(None, None, None, None) == Timeouts(  # for ever, all of them
        connect=None, read=None, total=None, outage=None
    )
    assert (
        repr(Timeouts(total=None)) == "Timeouts(connect=10.0, read=30.0, total=None, outage=120.0)"
    )


async def test_a_late_timer_ends_all_that_are_due(calls: Calls) -> None:
    """Calls whose time was over while the loop was busy are ended together."""
    racers = [await Racer.start(calls) for _ in range(3)]
    loop = asyncio.get_running_loop()
    for racer in racers:
        racer.at_deadline()  # no look at the deadline itself
    loop.call_at(racers[0].call.due + 3, calls._tick)
    await asyncio.sleep(TOTAL + 5)
    results = await asyncio.gather(*[racer.task for racer in racers], return_exceptions=True)
    assert {type(result) for result in results} == {RequestTimedOut}


# -- what a look of the watcher costs --------------------------------------------------------------


class Examined(Call):
    """A call that counts how often somebody looks at its times."""

    __slots__ = ("_due", "_silent_at")

    looks = 0

    @property  # type: ignore[override]
    def due(self) -> float:
        """Count a look."""
        Examined.looks += 1
        return self._due

    @due.setter
    def due(self, at: float) -> None:
        self._due = at

    @property  # type: ignore[override]
    def silent_at(self) -> float:
        """Count a look."""
        Examined.looks += 1
        return self._silent_at

    @silent_at.setter
    def silent_at(self, at: float) -> None:
        self._silent_at = at


@pytest.mark.parametrize(
    ("timeouts", "awaiting"),
    [
        (Timeouts(total=None, read=READ), True),
        (Timeouts(total=TOTAL, read=None), True),
        (Timeouts(total=TOTAL, read=READ), True),
        (Timeouts(total=TOTAL, read=READ), False),
    ],
)
@pytest.mark.unmeasured
async def test_a_tick_looks_at_no_call_whose_time_is_to_come(
    monkeypatch: pytest.MonkeyPatch, timeouts: Timeouts, awaiting: bool
) -> None:
    """Calls that time out one after another are looked at some times each, however many there are."""
    monkeypatch.setattr("kokoon_async._http.calls.Call", Examined)
    monkeypatch.setattr(Examined, "looks", 0)
    calls = Calls(timeouts)
    count, pause = 500, 0.01
    ended: list[float] = []

    async def run() -> None:
        began, call = now(), calls.new(VID)

        async def work() -> None:
            if awaiting:
                calls.awaits_answer(call, "waiting for the answer")
            await asyncio.sleep(1000)

        with pytest.raises(RequestTimedOut):
            await calls.run(call, work())
        ended.append(now() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(run())
            await asyncio.sleep(pause)
    limit = timeouts.read if awaiting and timeouts.read else timeouts.total
    assert ended == pytest.approx([limit] * count)
    assert Examined.looks <= 10 * count
    assert not calls._calls
    assert not calls._awaiting


async def test_silence_counts_from_the_last_sign_of_life(calls: Calls) -> None:
    """Of two calls, the one whose server spoke later is ended later, though it began first."""
    ended: list[int] = []

    async def run(number: int, *pauses: float) -> None:
        call = calls.new(VID)

        async def work() -> None:
            for pause in pauses:
                calls.awaits_answer(call, "reading the answer")
                await asyncio.sleep(pause)

        with pytest.raises(RequestTimedOut, match="silent"):
            await calls.run(call, work())
        assert now() == sum(pauses[:-1]) + READ
        ended.append(number)

    await asyncio.gather(run(0, 10, 1000), run(1, 5, 1000), run(2, 1000))
    assert ended == [2, 1, 0]


async def test_who_cleans_up_slowly_keeps_no_other_call(calls: Calls) -> None:
    """A call that takes its time to end is no reason to end later ones late."""

    async def work(call: Call) -> None:
        try:
            calls.awaits_answer(call, "waiting for the answer")
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(500)

    async def run(delay: float) -> float:
        await asyncio.sleep(delay)
        call = calls.new(VID)
        with pytest.raises(RequestTimedOut):
            await calls.run(call, work(call))
        return now()

    assert await asyncio.gather(run(0), run(1), run(2)) == [READ + 500 + late for late in range(3)]


async def test_a_sign_of_life_after_the_end_is_not_heeded(calls: Calls) -> None:
    """Once a call is over, nobody watches the server for it."""
    call = calls.new(VID)
    await calls.run(call, asyncio.sleep(0))
    calls.awaits_answer(call, "waiting for the answer")
    await asyncio.sleep(TOTAL)
    assert timers() == 0
    assert not calls._awaiting
