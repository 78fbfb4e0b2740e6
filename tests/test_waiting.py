"""
Waiting through the client, against the simulator and in virtual time.

The first section has one test per guarantee of the design. Simulators are strict: leaving one with
planned faults that never struck fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import pickle
import threading
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from typing import Any

import attrs
import pytest

from kokoon_async import (
    AgeProportional,
    AuthenticationFailed,
    ClientClosed,
    ConfigurationError,
    Exponential,
    Fixed,
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    InsufficientCredit,
    InvalidRequest,
    InvalidVid,
    KokoonClient,
    KokoonError,
    Limits,
    Look,
    RetryPolicy,
    Sighting,
    Timeouts,
    WaitError,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async.events import StateChanged, TokenRefreshed, WaitEnded
from kokoon_async.simulator import (
    ABSENT,
    ClockSkew,
    Drip,
    Fault,
    Fin,
    Hold,
    Html,
    Latency,
    Message,
    Regress,
    Reset,
    RotateToken,
    Simulator,
    Status,
    UnknownState,
    WrongVid,
)

from .canary import CANARY_TOKEN, assert_no_secret, presigned_url
from .fakes import FakeSend, make_vid, outcome, record, turns
from .loop_watch import watching_the_loop


pytestmark = pytest.mark.looptime

SOON = 0.02  # virtual time stands still while the machine works, but for some timers of aiohttp
RESUME = "wait for the same vid again"
EVERY_10 = Fixed(10.0, jitter=0)


@attrs.define
class Service:
    """A simulator with a client, and when they started."""

    sim: Simulator
    client: KokoonClient
    began: float = attrs.field(factory=lambda: asyncio.get_running_loop().time())

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time() - self.began

    def times(self, vid: str | None = None) -> list[float]:
        """Give when requests came, in seconds since the start."""
        log = self.sim.requests
        return [entry.time - self.began for entry in log if vid in (None, entry.vid)]

    def gaps(self, vid: str | None = None) -> list[float]:
        """Give the seconds between requests."""
        return [later - sooner for sooner, later in itertools.pairwise(self.times(vid))]

    def later(self, seconds: float, action: Any, *arguments: Any) -> None:
        """Do something after so many seconds."""
        asyncio.get_running_loop().call_later(seconds, lambda: action(*arguments))

    async def assert_idle(self) -> None:
        """Check that the client waits for nothing and holds nothing but idle connections."""
        await turns()
        scheduler = self.client._scheduler
        assert (len(scheduler), scheduler._workers, scheduler._timer) == (0, {}, None)
        assert self.client._pipeline._throttle.in_flight == 0
        session = self.client._transport._session
        assert session is None or session.closed or not session.connector._acquired


@contextlib.asynccontextmanager
async def service(
    token: Any = "token", sim_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Service]:
    """Start a simulator and a client of it, whose waits look every 10 seconds."""
    options = {"poll": EVERY_10, **options}
    async with (
        Simulator(strict=True, **(sim_options or {})) as sim,
        KokoonClient(token, base_url=sim.base_url, **options) as client,
    ):
        yield Service(sim, client)


@attrs.define
class Recorder:
    """A policy that looks every 10 seconds and remembers what it was told."""

    looks: list[Look] = attrs.field(factory=list)
    lessons: list[tuple[float, float]] = attrs.field(factory=list)

    def next_delay(self, look: Look) -> float:
        """Remember the look."""
        self.looks.append(look)
        return 10.0

    def record(self, earliest: float, latest: float) -> None:
        """Remember the lesson."""
        self.lessons.append((earliest, latest))


# --- the guarantees -----------------------------------------------------------------------------


async def test_guarantee_the_first_look_is_immediate():
    """Nobody sleeps before the first look."""
    async with service() as s:
        vid = s.sim.add_image("completed")
        image = await s.client.wait_until_completed(vid)
        assert (image.vid, image.state) == (vid, "completed")
        assert s.times() == [pytest.approx(0, abs=SOON)]
        assert s.now < SOON


async def test_guarantee_a_final_state_seen_beats_the_clock():
    """A record seen in time is given, however late its caller gets round to taking it."""
    async with service() as s:
        vid = s.sim.add_image("pending completed")
        image = await s.client.wait_until_completed(
            vid, timeout=15.0, on_change=lambda image: asyncio.sleep(50)
        )
        assert image.state == "completed"
        assert s.now >= 100


async def test_guarantee_a_late_loop_does_not_lose_a_final_state(
    monkeypatch: pytest.MonkeyPatch,
):
    """An answer whose reading was held up beyond the deadline still counts."""
    loop = asyncio.get_running_loop()
    clock, late = loop.time, 0.0
    async with service() as s:

        def answers(request: Any, number: int) -> Any:
            nonlocal late
            late = 1000.0  # something else keeps the loop busy meanwhile
            return record(request.vid, state="completed")

        monkeypatch.setattr(loop, "time", lambda: clock() + late)
        s.client._pipeline._send = FakeSend(answers)
        image = await s.client.wait_until_completed(make_vid(0), timeout=30.0)
        assert image.state == "completed"
        assert s.now >= 1000


async def test_guarantee_there_is_a_last_look_at_the_deadline():
    """What finishes after the last planned look and before the deadline is still noticed."""
    async with service(poll=Fixed(25.0, jitter=0)) as s:
        vid = s.sim.add_image(duration=59.5)
        image = await s.client.wait_until_completed(vid, timeout=60.0)
        assert image.state == "completed"
        assert s.times() == pytest.approx([0, 25, 50, 59.9], abs=0.1)
        assert 59.5 < s.times()[-1] < 60


async def test_guarantee_no_sleep_passes_the_deadline():
    """A policy with long pauses does not make a wait longer."""
    async with service(poll=Fixed(1000.0, jitter=0)) as s:
        vid = s.sim.add_image("processing")
        with pytest.raises(WaitTimedOut):
            await s.client.wait_until_completed(vid, timeout=30.0)
        assert 29.5 < s.now <= 30 + SOON
        assert len(s.times()) == 2


async def test_guarantee_never_two_looks_at_one_vid_in_flight():
    """However many wait, and whenever they begin: a look is over before the next begins."""
    seconds = 3.0
    async with service(sim_options={"latency": seconds}) as s:
        vid = s.sim.add_image(duration=60.0)
        waits = []
        for number in range(30):
            waits.append(asyncio.ensure_future(s.client.wait_until_completed(vid)))
            await asyncio.sleep(0.7)
            if number % 3 == 1:
                waits.pop().cancel()
        images = await asyncio.gather(*waits)
        assert {image.state for image in images} == {"completed"}
        assert min(s.gaps()) >= seconds - 1e-6
        assert len(s.times()) < 20


HINTED = [
    (429, "40"),
    (503, "40"),
    (500, "40"),
    (503, "date"),
    (429, "date"),
]


@pytest.mark.fault("F-52")
@pytest.mark.parametrize(("status", "form"), HINTED)
async def test_guarantee_a_hint_is_never_shortened(status: int, form: str):
    """The server is left alone for as long as it asked, also by those who begin to wait then."""
    async with service(poll=Fixed(1.0, jitter=0)) as s:
        vid = s.sim.add_image("pending completed")
        date = formatdate(math.ceil(s.sim.now().timestamp()) + 41, usegmt=True)
        headers = {"Retry-After": date if form == "date" else form}
        s.sim.fault(Status(status, headers), vid=vid)
        first = asyncio.ensure_future(s.client.wait_until_completed(vid))
        await asyncio.sleep(5)
        second = asyncio.ensure_future(s.client.wait_until_completed(vid))
        for image in await asyncio.gather(first, second):
            assert image.state == "completed"
        pause, rest = s.gaps(vid)
        assert 40 <= pause < 43
        assert rest == pytest.approx(1, abs=SOON)


@pytest.mark.fault("F-53")
async def test_a_hint_beyond_the_cap_holds_up_its_own_image_only():
    """The image that asked for an hour is left alone for an hour; others are looked at again soon."""
    async with service(retry=RetryPolicy(retry_after_cap=30.0)) as s:
        slow, quick = s.sim.add_image("completed"), s.sim.add_image("pending completed")
        s.sim.fault(Status(429, {"Retry-After": "3600"}), vid=slow)
        first = asyncio.ensure_future(s.client.wait_until_completed(slow, timeout=None))
        await asyncio.sleep(1)
        assert (await s.client.wait_until_completed(quick)).state == "completed"
        assert s.times(quick) == pytest.approx([30, 40], abs=SOON)
        assert (await first).state == "completed"
        assert s.times(slow) == pytest.approx([0, 3600], abs=SOON)


@pytest.mark.fault("F-40")
@pytest.mark.parametrize("final", ["completed", "error"])
async def test_guarantee_no_state_goes_back(final: str):
    """The first final record ends every wait, though the server says otherwise afterwards."""
    async with service() as s:
        vid = s.sim.add_image(f"processing*2 {final}")
        s.sim.fault(Latency(0), Regress("pending"), Latency(0), vid=vid)
        seen: list[str] = []
        waits = [s.client.wait_until_completed(vid, on_change=lambda i: seen.append(i.state))]
        waits += [s.client.wait_until_completed(vid) for _ in range(3)]
        ends = await asyncio.gather(*map(outcome, waits))
        kind = Image if final == "completed" else ImageFailed
        assert [type(end) for end in ends] == [kind] * 4
        assert seen == ["processing", "pending", "processing", final]
        s.sim.fault(Regress("processing"), vid=vid)
        async with s.client.watch(vid, timeout=15.0) as records:
            states = [image.state async for image in records]
        assert states == ["processing", final]  # a new wait, and the server's new story
        await s.assert_idle()


@pytest.mark.fault("F-39")
async def test_guarantee_unknown_states_keep_waiting_and_are_named():
    """A state that the API does not document neither ends a wait nor is kept from the caller."""
    async with service() as s:
        vid = s.sim.add_image("pending warming_up*2 processing completed")
        assert (await s.client.wait_until_completed(vid)).state == "completed"
        vid = s.sim.add_image("pending*5s warming_up")
        s.sim.fault(UnknownState("thawing"), vid=vid)
        with pytest.raises(WaitTimedOut, match=r"thawing for .*, warming_up for ") as caught:
            await s.client.wait_until_completed(vid, timeout=60.0)
        assert [seen.state for seen in caught.value.history] == ["thawing", "warming_up"]
        assert not caught.value.history[1].state.is_known


# --- time ---------------------------------------------------------------------------------------


async def test_an_hours_wait_takes_no_time():
    """Only looks are work: ten of them need about as many callbacks in ten hours as in one."""
    callbacks = []
    for duration in (3600.0, 36_000.0):
        async with service(poll=Fixed(duration / 8.5, jitter=0.0)) as s:
            vid = s.sim.add_image(duration=duration)
            with watching_the_loop() as watch:
                image = await s.client.wait_until_completed(vid, timeout=2 * duration)
            assert image.state == "completed"
            assert duration <= s.now < 1.1 * duration
            assert len(s.times()) == 10
            callbacks.append(watch.callbacks)
    in_an_hour, in_ten_hours = callbacks
    assert in_ten_hours < 2 * in_an_hour
    assert in_an_hour < 1_000  # some 40 for a look, which has to connect anew


SILENT = [
    Hold(),
    Hold(at="headers"),
    Hold(at=300),
    Drip(1),
    Latency(1e6),
]


@pytest.mark.fault("F-59")
@pytest.mark.parametrize("fault", SILENT, ids=repr)
@pytest.mark.parametrize("timeout", [0.5, 20.0])
async def test_a_silent_server_does_not_hold_a_wait(fault: Fault, timeout: float):
    """The deadline cuts a request that is under way, wherever it is, at the very moment."""
    async with service() as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(fault, vid=vid)
        with pytest.raises(WaitTimedOut) as caught:
            await s.client.wait_until_completed(vid, timeout=timeout)
        assert s.now == pytest.approx(timeout, abs=SOON)
        assert caught.value.elapsed == pytest.approx(timeout, abs=1e-3)
        await s.assert_idle()
        assert (await s.client.get_image(vid)).state == "completed"


@pytest.mark.fault("F-59")
async def test_a_wait_ends_while_its_look_waits_for_its_turn():
    """The deadline holds also where the client's own limits delay a look."""
    async with service(limits=Limits(max_in_flight=1)) as s:
        busy, vid = s.sim.add_images(2, "completed")
        s.sim.fault(Hold(seconds=25), vid=busy)
        slow = asyncio.ensure_future(s.client.wait_until_completed(busy))
        await asyncio.sleep(1)
        with pytest.raises(WaitTimedOut, match="never seen"):
            await s.client.wait_until_completed(vid, timeout=5.0)
        assert s.now == pytest.approx(6, abs=SOON)
        assert (await slow).state == "completed"
        assert s.times(vid) == []


@pytest.mark.fault("F-101")
async def test_looks_that_come_late_by_our_own_limits_are_no_outage():
    """With more waits than the rate lets look within a call's time, none of them fails for it."""
    limits = Limits(requests_per_second=0.5)
    async with service(limits=limits, poll=Fixed(60.0, jitter=0)) as s:
        vids = s.sim.add_images(100, "processing*500s completed")
        outcomes = [each async for each in s.client.wait_many(vids, timeout=5000.0)]
        assert [outcome.error for outcome in outcomes if not outcome.ok] == []
        assert len(outcomes) == len(vids)
        assert max(s.gaps()) == pytest.approx(2, abs=SOON)
        assert s.now > Timeouts().outage


@pytest.mark.fault("F-110")
async def test_abandoned_waits_of_a_stream_end():
    """A `wait_many` that is dropped half-way warns, and its images are not looked at any more."""
    async with service() as s:
        s.sim.add_image("completed", vid=make_vid(0))
        vids = [make_vid(0), *s.sim.add_images(5, "pending")]
        stream = s.client.wait_many(vids, timeout=None)
        assert (await anext(stream)).ok
        assert len(s.client._scheduler) == 5
        with pytest.warns(ResourceWarning, match="was abandoned; use async with"):  # noqa: PT031
            del stream
            gc.collect()
        await s.assert_idle()


async def test_wait_many_bears_images_that_are_not_there_yet():
    """Right after many tasks were made, "not found" may mean "not yet"."""
    async with service() as s:
        vids = [make_vid(1), make_vid(2)]
        for vid in vids:
            s.later(5, lambda vid: s.sim.add_image("completed", vid=vid), vid)
        stream = s.client.wait_many(vids, missing_grace=20.0)
        assert sorted([each.unwrap().vid async for each in stream]) == vids
        vid = make_vid(3)
        s.later(5, lambda: s.sim.add_image("completed", vid=vid))
        (missing,) = [each async for each in s.client.wait_many([vid])]
        assert isinstance(missing.error, ImageNotFound)


@pytest.mark.fault("F-58")
@pytest.mark.parametrize("timeout", [0, 0.0, -1, math.nan, math.inf, "30", True])
async def test_a_timeout_is_a_number_of_seconds(timeout: Any):
    """What makes no sense as a duration is refused before anything is sent."""
    async with service() as s:
        vid = s.sim.add_image("completed")
        with pytest.raises(ConfigurationError, match="timeout must be a positive number or None"):
            await s.client.wait_until_completed(vid, timeout=timeout)
        with pytest.raises(ConfigurationError):
            s.client.watch(vid, timeout=timeout)
        assert s.times() == []


async def test_without_a_timeout_a_wait_takes_its_time():
    """``None`` waits for as long as it takes."""
    async with service(poll=Fixed(3600.0)) as s:
        vid = s.sim.add_image(duration=86_400.0)
        assert (await s.client.wait_until_completed(vid, timeout=None)).state == "completed"
        assert s.now >= 86_400


@pytest.mark.fault("F-56")
async def test_the_wall_clock_means_nothing(monkeypatch: pytest.MonkeyPatch):
    """A machine whose clock jumps by days waits as long as any other."""
    async with service() as s:
        vid = s.sim.add_image(duration=25.0)
        wall = time.time
        s.later(12, monkeypatch.setattr, time, "time", lambda: wall() + 1e6)
        s.later(22, monkeypatch.setattr, time, "time", lambda: wall() - 1e6)
        await s.client.wait_until_completed(vid, timeout=60.0)
        assert s.times() == pytest.approx([0, 10, 20, 30], abs=SOON)


# --- ages ---------------------------------------------------------------------------------------


async def test_a_wait_resumed_in_a_new_process_is_not_young():
    """A second client learns from the server how old the image is, and looks accordingly."""
    poll = AgeProportional(jitter=0)
    async with service(poll=poll) as s:
        vid = s.sim.add_image(duration=100.0)
        with pytest.raises(WaitTimedOut, match=RESUME):
            await s.client.wait_until_completed(vid, timeout=60.0)
        young = s.gaps()
        assert young[0] == pytest.approx(0.5, abs=0.01)
        looks = len(s.times())
        async with KokoonClient("token", base_url=s.sim.base_url, poll=poll) as second:
            image = await second.wait_until_completed(vid)
        assert image.state == "completed"
        resumed = s.gaps()[looks:]
        assert resumed[0] == pytest.approx(0.15 * 60, abs=0.2)
        assert all(9 - 0.2 <= gap <= 15.1 for gap in resumed)


NO_AGE = [
    ClockSkew(-3600.0),
    Status(200, {"Date": None}, {"vid": "", "state": "processing"}),
    Status(200, {"Date": "yesterday"}, {"vid": "", "state": "processing"}),
]


@pytest.mark.parametrize("fault", NO_AGE, ids=["behind", "without", "unreadable"])
async def test_without_a_sensible_server_clock_the_time_waited_counts(fault: Fault):
    """A clock behind the image's birth, or none, tells no age."""
    policy = Recorder()
    async with service() as s:
        vid = s.sim.add_image("processing")
        if isinstance(fault, Status):
            fault = attrs.evolve(fault, body=s.sim.record(vid))
        await asyncio.sleep(500)
        s.sim.fault(fault, vid=vid, times=3)
        with pytest.raises(WaitTimedOut):
            await s.client.wait_until_completed(vid, timeout=25.0, poll=policy)
        assert [look.age for look in policy.looks[:3]] == pytest.approx([0, 10, 20], abs=SOON)


@pytest.mark.parametrize("created", [None, ABSENT, "some time ago"])
async def test_without_a_birthday_the_time_waited_counts(created: object):
    """A record that does not say when the image was made tells no age."""
    policy = Recorder()
    async with service() as s:
        vid = s.sim.add_image("processing*3 completed", created_time=created)
        await asyncio.sleep(500)
        await s.client.wait_until_completed(vid, poll=policy)
        assert [look.age for look in policy.looks] == pytest.approx([0, 10, 20], abs=SOON)


async def test_the_policy_learns_the_servers_ages():
    """It is told between which ages the image was seen to finish."""
    policy = Recorder()
    async with service() as s:
        vid = s.sim.add_image(duration=515.0)
        await asyncio.sleep(500)
        await s.client.wait_until_completed(vid, poll=policy)
        assert [look.age for look in policy.looks] == pytest.approx([500, 510], abs=1.0)
        assert policy.lessons == [pytest.approx((510, 520), abs=1.0)]
        await s.client.wait_until_completed(vid, poll=policy)
        assert len(policy.lessons) == 1, "first sight teaches nothing"


# --- how waits end ------------------------------------------------------------------------------


async def test_a_time_out_tells_everything():
    """`WaitTimedOut` has the record as last seen without addresses, the history and the time."""
    async with service() as s:
        vid = s.sim.add_image("pending*2 processing", url=presigned_url(), filename="x.png")
        with pytest.raises(WaitTimedOut) as caught:
            await s.client.wait_until_completed(vid, timeout=35.0)
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.vid, error.attempts) == (vid, 5)
        assert error.elapsed == pytest.approx(35, abs=0.2)
        assert error.image is not None
        assert (error.image.vid, error.image.state) == (vid, "processing")
        assert (error.image.filename, error.image.url) == ("x.png", None)
        pending, processing = error.history
        assert pending == Sighting("pending", pytest.approx(0, abs=SOON), approx(10), 2)
        assert processing == Sighting("processing", approx(20), approx(34.95), 3)
        assert str(error).startswith(f"Image {vid} was not finished after 3")
        assert "(pending for 10.0 s (2 looks), processing for " in str(error)
        assert RESUME in str(error)
        assert pickle.loads(pickle.dumps(error)).history == error.history


def approx(seconds: float) -> Any:
    """Be about so many seconds."""
    return pytest.approx(seconds, abs=0.1)


async def test_a_failed_image_tells_everything():
    """`ImageFailed` comes with the final record."""
    async with service() as s:
        vid = s.sim.add_image("processing error", url=presigned_url(), filename="x.png")
        with pytest.raises(ImageFailed, match="failed to make image") as caught:
            await s.client.wait_until_completed(vid)
        error = caught.value
        assert error.image is not None
        assert (error.image.state, error.image.filename) == ("error", "x.png")
        assert error.image.url is None
        assert [seen.state for seen in error.history] == ["processing", "error"]
        assert (error.vid, error.attempts, error.elapsed) == (vid, 2, approx(10))


@pytest.mark.parametrize("seconds", [100, 130])
async def test_an_outage_is_borne_for_120_seconds(seconds: float):
    """503 for 100 s is survived; for 130 s it ends in `WaitOutage`, 120 s after the first."""
    async with service(poll=AgeProportional()) as s:
        vid = s.sim.add_image("processing*1 completed")
        s.sim.fault(Latency(0), vid=vid)
        s.sim.fault(Status(503), vid=vid, times=1000)
        s.later(seconds, s.sim.clear_faults)
        end = await outcome(s.client.wait_until_completed(vid))
        statuses = [entry.status for entry in s.sim.requests]
        assert statuses[0] == 200
        assert statuses.count(503) > 10
        if seconds < 120:
            assert isinstance(end, Image)
            assert seconds <= s.now < 121
            return
        assert isinstance(end, WaitOutage)
        assert s.now - s.times()[statuses.index(503)] == pytest.approx(120, abs=0.1)
        assert end.image is not None
        assert end.image.state == "processing"
        assert end.history == (Sighting("processing", approx(0), approx(0), 1),)
        dark = end.elapsed - end.history[-1].last_seen
        assert f"no good answer for {dark:.0f} s after {end.elapsed:.1f} s" in str(end)
        assert "the last failure: The API failed" in str(end)
        assert RESUME in str(end)
        s.sim.clear_faults()


async def test_the_patience_in_an_outage_can_be_set():
    """``Timeouts.outage`` says how long; a server that was never well counts from the start."""
    async with service(timeouts=Timeouts(outage=30.0)) as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(Reset(), vid=vid, times=5)
        with pytest.raises(WaitOutage, match="never seen") as caught:
            await s.client.wait_until_completed(vid)
        assert caught.value.image is None
        assert s.now == pytest.approx(30, abs=0.5)


async def test_an_outage_may_be_borne_for_ever():
    """``Timeouts(outage=None)`` goes on however long no good answer comes."""
    async with service(poll=Fixed(600.0), timeouts=Timeouts(outage=None)) as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(Status(503), vid=vid, times=12)
        assert (await s.client.wait_until_completed(vid, timeout=None)).vid == vid
        assert s.now > 6_000


PERMANENT = [
    (Status(404, {}, {"message": "fail to get result."}), ImageNotFound),
    (Message(), ImageNotFound),
    (Status(400, {}, {"message": "no such thing"}), InvalidRequest),
    (Status(401), AuthenticationFailed),
    (Status(403), AuthenticationFailed),
    (Status(402), InsufficientCredit),
]


@pytest.mark.parametrize(("fault", "kind"), PERMANENT, ids=repr)
async def test_a_permanent_error_ends_a_wait_at_once(fault: Fault, kind: type[KokoonError]):
    """What asking again cannot change is raised as it is, after one look more or less."""
    async with service() as s:
        vid = s.sim.add_image("processing")
        s.sim.fault(Latency(0), fault, vid=vid)
        with pytest.raises(kind) as caught:
            await s.client.wait_until_completed(vid)
        assert type(caught.value) is kind
        assert caught.value.vid == vid
        assert s.times() == pytest.approx([0, 10], abs=SOON)
        await s.assert_idle()


PASSING = [
    Status(500),
    Status(502, {}, "<html>bad gateway</html>"),
    Status(503),
    Status(504),
    Status(408),
    Status(425),
    Status(429),
    Status(302, {"Location": "https://example.com/"}),
    Status(418, {}, "no JSON"),
    Html(),
    Html(404),
    Message("something new"),
    Reset(),
    Reset(at="headers"),
    Fin(at=200),
    pytest.param(WrongVid(), marks=pytest.mark.fault("F-42")),
    Status(200, {}, {"vid": 1}),
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
async def test_a_passing_error_costs_one_look(fault: Fault):
    """A wait goes on at its own pace after a fault of the network or the server."""
    async with service() as s:
        vid = s.sim.add_image("processing completed")
        s.sim.fault(fault, vid=vid)
        assert (await s.client.wait_until_completed(vid)).state == "completed"
        assert s.times() == pytest.approx([0, 10, 20], abs=SOON)


@pytest.mark.fault("F-60")
async def test_waits_need_no_retries():
    """The schedule is a look's retry: a client without any retries left polls on at its pace."""
    async with service(retry=RetryPolicy(attempts=1, quota=0)) as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(Status(503), vid=vid, times=5)
        assert (await s.client.wait_until_completed(vid)).state == "completed"
        assert s.times() == pytest.approx([0, 10, 20, 30, 40, 50], abs=SOON)


@pytest.mark.fault("F-48")
async def test_retries_do_not_nest():
    """A failed look is one request, whatever the client's retry policy allows for calls."""
    async with service(retry=RetryPolicy(attempts=10)) as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(Status(500), vid=vid, times=2)
        await s.client.wait_until_completed(vid)
        assert s.gaps() == pytest.approx([10, 10], abs=SOON)


@pytest.mark.fault("F-51")
async def test_a_hint_beyond_the_deadline_ends_a_wait_at_once():
    """There is no point in waiting only to give up."""
    async with service() as s:
        vid = s.sim.add_image("completed")
        s.sim.fault(Status(429, {"Retry-After": "100"}), vid=vid)
        with pytest.raises(WaitTimedOut, match="asks not to be asked for 100 s") as caught:
            await s.client.wait_until_completed(vid, timeout=50.0)
        assert s.now < SOON
        assert RESUME in caught.value.hint


@pytest.mark.fault("F-44")
async def test_an_image_may_come_into_being():
    """With a grace, "not found" right after asking for super-resolution is "not yet"."""
    async with service() as s:
        vid = make_vid(7)
        s.later(25, lambda: s.sim.add_image("completed", vid=vid))
        image = await s.client.wait_until_completed(vid, missing_grace=60.0)
        assert image.state == "completed"
        assert s.now == pytest.approx(30, abs=SOON)
        with pytest.raises(ImageNotFound):
            await s.client.wait_until_completed(make_vid(8), missing_grace=15.0)
        assert s.now == pytest.approx(50, abs=SOON)


async def test_closing_the_client_ends_its_waits():
    """Whoever waits gets `ClientClosed`, with what was last seen and how to resume."""
    async with service() as s:
        vid, other = s.sim.add_image("processing"), s.sim.add_image("completed")
        s.sim.fault(Hold(), vid=other)
        idle = asyncio.ensure_future(s.client.wait_until_completed(vid))
        busy = asyncio.ensure_future(s.client.wait_until_completed(other))
        await asyncio.sleep(5)
        await s.client.aclose()
        ends = await asyncio.gather(idle, busy, return_exceptions=True)
        assert [type(end) for end in ends] == [ClientClosed] * 2
        assert f"Image {vid}: last seen as processing. " in str(ends[0])
        assert f"Image {other}: not seen yet. " in str(ends[1])
        assert RESUME in str(ends[0])
        await s.assert_idle()
        with pytest.raises(ClientClosed):
            await s.client.wait_until_completed(vid)


async def test_errors_of_waits_show_no_secret():
    """Neither the token nor a signature is in what a failed wait raises."""
    url = presigned_url()
    async with service(CANARY_TOKEN) as s:
        for script in ("pending error", "pending"):
            vid = s.sim.add_image(script, url=url, thumb_url=url, api_key=url)
            end = await outcome(s.client.wait_until_completed(vid, timeout=25.0))
            assert isinstance(end, WaitError)
            assert_no_secret(end)
        s.sim.fault(Status(500), vid=vid, times=100)
        end = await outcome(s.client.wait_until_completed(vid))
        assert isinstance(end, WaitOutage)
        assert_no_secret(end)
        s.sim.clear_faults()


# --- tokens -------------------------------------------------------------------------------------


@attrs.define
class Provider:
    """Give one token after the other."""

    tokens: Iterator[str]
    calls: int = 0

    async def __call__(self) -> str:
        """Give the next token."""
        self.calls += 1
        return next(self.tokens)


@pytest.mark.fault("F-63")
async def test_a_token_refused_in_mid_wait_costs_one_refresh():
    """All waits go on with the new token, which was asked for once."""
    provider = Provider(iter(["first", "second"]))
    events: list[Any] = []
    async with service(provider.__call__, {"token": "first"}, hooks=[events.append]) as s:
        vids = s.sim.add_images(20, duration=35.0)
        s.sim.fault(RotateToken("second"), vid=vids[0])  # struck by the first look
        images = await asyncio.gather(*map(s.client.wait_until_completed, vids))
        assert {image.state for image in images} == {"completed"}
        assert provider.calls == 2
        assert len([event for event in events if isinstance(event, TokenRefreshed)]) == 2
        refused = [entry.time for entry in s.sim.requests if entry.status == 401]
        assert 1 <= len(refused) <= 20
        assert s.now == pytest.approx(40, abs=0.1)


@pytest.mark.fault("F-66")
async def test_a_token_that_stays_refused_ends_waits_at_once():
    """A fixed token, or a provider with nothing new, means no polling on."""
    async with service(sim_options={"token": "token"}) as s:
        vids = s.sim.add_images(3, "processing")
        s.later(15, s.sim.rotate_token, "new")
        ends = await asyncio.gather(
            *map(s.client.wait_until_completed, vids), return_exceptions=True
        )
        assert [type(end) for end in ends] == [AuthenticationFailed] * 3
        assert s.now == pytest.approx(20, abs=SOON)
        assert s.sim.request_count() == 9


# --- many waits ---------------------------------------------------------------------------------


@pytest.mark.fault("F-54")
async def test_a_hundred_waiters_on_one_image_cost_the_requests_of_one():
    """However its id is written, an image is looked at once for all."""
    async with service() as s:
        vid = s.sim.add_image(duration=45.0)
        spelled: list[Any] = [vid, vid.upper(), uuid.UUID(vid)]
        waits = [s.client.wait_until_completed(spelled[n % 3]) for n in range(100)]
        images = await asyncio.gather(*waits)
        assert {image.vid for image in images} == {vid}
        assert s.times() == pytest.approx([0, 10, 20, 30, 40, 50], abs=SOON)


@pytest.mark.fault("F-54")
@pytest.mark.unmeasured
async def test_ten_thousand_waits_begin_without_a_burst(quiet: None):
    """No more requests are under way than the limit allows, and the waits take their turns."""
    async with service(limits=Limits(max_in_flight=64)) as s:

        async def answers(request: Any, number: int) -> Any:
            await asyncio.sleep(0.5)
            return record(request.vid, state="completed")

        s.client._pipeline._send = send = FakeSend(answers)
        vids = [make_vid(number) for number in range(10_000)]
        images = await asyncio.gather(*map(s.client.wait_until_completed, vids))
        assert [image.vid for image in images] == vids
        assert send.most_running == 64
        assert len(send.sent) == 10_000
        assert [sent.vid for sent in send.sent] == vids, "first come, first served"
        assert s.now == pytest.approx(10_000 / 64 * 0.5, rel=0.05)
        await s.assert_idle()


@pytest.mark.fault("F-54")
async def test_waits_that_began_together_do_not_march_in_step(quiet: None):
    """The jitter spreads the looks of many images over time."""
    async with service(poll=Fixed(10.0, jitter=0.2), limits=Limits(max_in_flight=None)) as s:
        s.client._pipeline._send = send = FakeSend(
            lambda request, number: record(request.vid, state="processing")
        )
        waits = [
            s.client.wait_until_completed(make_vid(number), timeout=15.0) for number in range(400)
        ]
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ends} == {WaitTimedOut}
        second = [at - s.began for at in send.times if 8 <= at - s.began <= 12]
        assert len(second) == 400
        tenths = [sum(1 for at in second if int(at * 10) == tenth) for tenth in range(80, 120)]
        assert max(tenths) < 30, "10 on the average"


async def test_connections_are_shared():
    """Two hundred waits need no more connections than requests may be under way."""
    async with service(limits=Limits(max_in_flight=8)) as s:
        vids = s.sim.add_images(200, "processing completed")
        images = await asyncio.gather(*map(s.client.wait_until_completed, vids))
        assert len(images) == 200
        assert s.sim.request_count() == 400
        assert s.sim.connection_count <= 16  # eight at the start, eight after ten idle seconds


# --- watch --------------------------------------------------------------------------------------


async def test_watch_gives_the_first_record_and_one_per_change():
    """Looks that see nothing new give nothing; the final record is the last."""
    async with service() as s:
        vid = s.sim.add_image("pending*3 processing*2 warming_up processing completed")
        async with s.client.watch(vid) as records:
            seen = [(image.state, round(s.now)) async for image in records]
        assert seen == [
            ("pending", 0),
            ("processing", 30),
            ("warming_up", 50),
            ("processing", 60),
            ("completed", 70),
        ]
        assert records.result().state == "completed"
        with pytest.raises(StopAsyncIteration):
            await anext(records)
        await s.assert_idle()


async def test_watch_ends_after_an_error_state():
    """The failed record is given like any other; `result` raises."""
    async with service() as s:
        vid = s.sim.add_image("pending error")
        records = s.client.watch(vid)
        assert [image.state async for image in records] == ["pending", "error"]
        with pytest.raises(ImageFailed):
            records.result()
        await s.assert_idle()


async def test_watch_raises_what_its_wait_ended_with():
    """After the records there were, and once only."""
    async with service() as s:
        vid = s.sim.add_image("pending")
        async with s.client.watch(vid, timeout=25.0) as records:
            assert (await anext(records)).state == "pending"
            with pytest.raises(WaitTimedOut):
                await anext(records)
            with pytest.raises(StopAsyncIteration):
                await anext(records)


async def test_watch_begins_at_once():
    """The first look is under way before anybody asks for a record."""
    async with service() as s:
        vid = s.sim.add_image("pending*2 completed")
        async with s.client.watch(vid) as records:
            assert repr(records) == f"<Watch of {vid}, not seen yet>"
            with pytest.raises(RuntimeError, match="has not ended"):
                records.result()
            await asyncio.sleep(60)
            assert repr(records) == f"<Watch of {vid}, last seen as completed>"
            assert [image.state async for image in records] == ["pending", "completed"]
        assert len(s.times()) == 3


@pytest.mark.fault("F-110")
@pytest.mark.parametrize("way", ["break", "raise", "aclose"])
async def test_leaving_a_watch_early_leaves_nothing(way: str):
    """By ``break``, an exception or `aclose`: no look, no timer, no further request."""
    async with service() as s:
        vid = s.sim.add_image("pending processing")
        with contextlib.suppress(LookupError):
            async with s.client.watch(vid) as records:
                async for _ in records:
                    if way == "raise":
                        raise LookupError
                    if way == "break":
                        break
                    await records.aclose()
        await s.assert_idle()
        with pytest.raises(StopAsyncIteration):
            await anext(records)
        await asyncio.sleep(60)
        assert len(s.times()) == 1


@pytest.mark.fault("F-110")
async def test_leaving_a_watch_during_a_look_stops_the_look():
    """The request is cut, and its connection is not used again."""
    async with service() as s:
        vid = s.sim.add_image("pending")
        s.sim.fault(Hold(), vid=vid)
        async with s.client.watch(vid):
            await asyncio.sleep(5)
        await s.assert_idle()


@pytest.mark.fault("F-110")
async def test_closing_a_watch_wakes_who_waits_for_a_record():
    """Another task may leave for the one that iterates: its iteration ends."""
    async with service() as s:
        records = s.client.watch(s.sim.add_image("pending"))
        s.later(15, lambda: closing.append(asyncio.ensure_future(records.aclose())))
        closing: list[Any] = []
        assert [image.state async for image in records] == ["pending"]
        assert s.now == pytest.approx(15, abs=SOON)
        await closing[0]
        await s.assert_idle()


@pytest.mark.fault("F-110")
async def test_a_watch_has_one_consumer():
    """A second one would miss half of the records, and is refused; the first goes on."""
    async with service() as s, s.client.watch(s.sim.add_image("pending completed")) as records:
        await anext(records)
        first = asyncio.ensure_future(anext(records))
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="already has a consumer"):
            await anext(records)
        assert (await first).state == "completed"


@pytest.mark.fault("F-110")
async def test_an_abandoned_watch_warns_and_stops():
    """A plain ``async for`` that is left early warns, and nobody looks any more."""
    async with service() as s:
        vid = s.sim.add_image("pending")

        async def take_one() -> None:
            async for _ in s.client.watch(vid):
                break

        with pytest.warns(ResourceWarning, match=rf"<Watch of {vid}, last seen as pending>"):
            await take_one()
        await s.assert_idle()
        with pytest.warns(ResourceWarning, match="not seen yet> was abandoned; use async with"):
            s.client.watch(vid)
        await s.assert_idle()


@pytest.mark.fault("F-110")
async def test_a_watch_abandoned_in_another_thread_stops():
    """Garbage is collected where it pleases; the schedule is only touched on its loop."""
    threads: list[int] = []

    def note_thread(event: Any) -> None:
        if isinstance(event, WaitEnded):
            threads.append(threading.get_ident())

    async with service(hooks=[note_thread]) as s:
        watches = [s.client.watch(s.sim.add_image("pending"))]
        await asyncio.sleep(1)
        with pytest.warns(ResourceWarning, match="abandoned"):
            await asyncio.to_thread(watches.clear)
        await s.assert_idle()
    assert threads == [threading.get_ident()]


def test_a_watch_may_outlive_its_loop():
    """A finaliser that runs after the loop was closed raises nothing."""

    async def begin() -> list[Any]:
        watch = KokoonClient("token", base_url="http://127.0.0.1:9").watch(make_vid(0))
        watch._scheduler._forget(watch._scheduler._images[make_vid(0)])  # its look, that is
        return [watch]

    with pytest.warns(ResourceWarning, match="never closed"):
        watches = asyncio.run(begin())
    with pytest.warns(ResourceWarning, match="abandoned"):
        watches.clear()


async def test_a_finished_watch_may_be_dropped():
    """Nothing is lost when a watch that is over, or was left, goes without a word."""
    async with service() as s:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            watch = s.client.watch(s.sim.add_image("completed"))
            await asyncio.sleep(1)
            del watch
            watch = s.client.watch(s.sim.add_image("pending"))
            await watch.aclose()
            del watch
            gc.collect()
        await s.assert_idle()


async def test_closing_the_client_ends_a_watch():
    """What was seen is given first, then `ClientClosed` is raised."""
    async with service() as s:
        records = s.client.watch(s.sim.add_image("pending"))
        await asyncio.sleep(5)
        await s.client.aclose()
        assert (await anext(records)).state == "pending"
        with pytest.raises(ClientClosed, match="last seen as pending"):
            await anext(records)


@pytest.mark.parametrize("vid", ["", "x", "urn:uuid:" + make_vid(0), None, 7])
async def test_what_is_no_vid_is_refused_before_anything_is_sent(vid: Any):
    """An id that is none never gets into an address."""
    async with service() as s:
        with pytest.raises(InvalidVid):
            await s.client.wait_until_completed(vid)
        with pytest.raises(InvalidVid):
            s.client.watch(vid)
        assert s.times() == []
        await s.assert_idle()


# --- on_change ----------------------------------------------------------------------------------


async def changes_seen(s: Service, on_change: Any) -> Image:
    """Wait for an image that changes twice."""
    vid = s.sim.add_image("pending*2 processing*2 completed")
    return await s.client.wait_until_completed(vid, on_change=on_change)


async def test_on_change_hears_of_each_change():
    """A plain function gets the first record, each change and the final one."""
    seen: list[tuple[str, int]] = []
    async with service() as s:
        image = await changes_seen(s, lambda image: seen.append((image.state, round(s.now))))
    assert seen == [("pending", 0), ("processing", 20), ("completed", 40)]
    assert image.state == "completed"


async def test_on_change_hears_of_a_failure_too():
    """The record that ends the wait in an error is a change."""
    seen: list[str] = []
    async with service() as s:
        vid = s.sim.add_image("pending error")
        with pytest.raises(ImageFailed):
            await s.client.wait_until_completed(vid, on_change=lambda i: seen.append(i.state))
    assert seen == ["pending", "error"]


async def test_on_change_may_take_its_time():
    """A slow coroutine function gets every record, in order, and holds up no look."""
    seen: list[tuple[str, int]] = []
    async with service() as s:

        async def slow(image: Image) -> None:
            seen.append((image.state, round(s.now)))
            await asyncio.sleep(15)

        await changes_seen(s, slow)
        assert seen == [("pending", 0), ("processing", 20), ("completed", 40)]
        assert s.times() == pytest.approx([0, 10, 20, 30, 40], abs=SOON)
        seen.clear()
        s.began += s.now

        async def very_slow(image: Image) -> None:
            seen.append((image.state, round(s.now)))
            await asyncio.sleep(100)

        await changes_seen(s, very_slow)
        assert seen == [("pending", 0), ("processing", 100), ("completed", 200)]


@pytest.mark.fault("F-106")
@pytest.mark.parametrize("is_async", [False, True])
async def test_on_change_that_raises_does_not_end_a_wait(
    is_async: bool, caplog: pytest.LogCaptureFixture
):
    """What it raises is logged, each time, and the image is given."""

    def broken(image: Image) -> None:
        raise ZeroDivisionError("mine")

    async def broken_later(image: Image) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("mine")

    async with service() as s:
        image = await changes_seen(s, broken_later if is_async else broken)
    assert image.state == "completed"
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.message for record in logged] == ["on_change.failed"] * 3
    assert {record.kokoon_vid for record in logged} == {image.vid}


@pytest.mark.fault("F-106")
async def test_on_change_that_waits_for_what_is_cancelled(caplog: pytest.LogCaptureFixture):
    """Somebody else's cancelled task is a failure of the function, and not of the wait."""

    async def broken(image: Image) -> None:
        other = asyncio.ensure_future(asyncio.sleep(5))
        other.cancel()
        await other

    async with service() as s:
        assert (await changes_seen(s, broken)).state == "completed"
    logged = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert logged == ["on_change.failed"] * 3


@pytest.mark.fault("F-113")
async def test_on_change_may_end_the_program():
    """What is no `Exception` passes, and leaves nothing behind."""

    class Stop(BaseException):
        pass

    def stop(image: Image) -> None:
        raise Stop

    async with service() as s:
        with pytest.raises(Stop):
            await changes_seen(s, stop)
        await s.assert_idle()


async def test_on_change_may_cancel_its_wait():
    """A wait that cancels itself is cancelled, with the note that every cancelled wait has."""
    async with service() as s:

        async def cancel(image: Image) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("enough")
            await asyncio.sleep(1)

        wait = asyncio.ensure_future(changes_seen(s, cancel))
        with pytest.raises(asyncio.CancelledError) as caught:
            await wait
        assert "last seen as pending" in " ".join(caught.value.__notes__)
        await s.assert_idle()


async def test_on_change_may_close_the_client():
    """The wait ends with `ClientClosed`, as any other would."""
    async with service() as s:
        with pytest.raises(ClientClosed):
            await changes_seen(s, lambda image: s.client.aclose())
        await s.assert_idle()


async def test_on_change_may_wait_for_another_image():
    """Waits may be nested as one likes."""
    inner: list[Image] = []
    async with service() as s:
        other = s.sim.add_image("pending completed")

        async def also(image: Image) -> None:
            inner.append(await s.client.wait_until_completed(other))

        await changes_seen(s, also)
    assert [image.vid for image in inner] == [other] * 3


# --- what is told and sent ----------------------------------------------------------------------


async def test_hooks_hear_of_each_change_once():
    """Many waiters on one image, one event per change; each wait has an end of its own."""
    events: list[Any] = []
    async with service(hooks=[events.append]) as s:
        vid = s.sim.add_image("pending*2 completed")
        await asyncio.gather(*(s.client.wait_until_completed(vid) for _ in range(5)))
    changes = [(e.before, e.state) for e in events if isinstance(e, StateChanged)]
    assert changes == [(None, "pending"), ("pending", "completed")]
    assert [e.outcome for e in events if isinstance(e, WaitEnded)] == ["completed"] * 5


async def test_a_change_is_logged_once(caplog: pytest.LogCaptureFixture):
    """One INFO per change, however many wait."""
    async with service() as s:
        vid = s.sim.add_image("pending*2 completed")
        await asyncio.gather(*(s.client.wait_until_completed(vid) for _ in range(5)))
    infos = [record for record in caplog.records if record.levelname == "INFO"]
    assert [record.message for record in infos] == ["image.state_changed"] * 2
    assert [record.kokoon_state for record in infos] == ["pending", ImageState.COMPLETED]


@pytest.mark.fault("F-45")
async def test_looks_ask_for_fresh_answers():
    """A cache on the way must not answer with an old state."""
    async with service() as s:
        await s.client.wait_until_completed(s.sim.add_image("pending completed"))
        assert {entry.headers["Cache-Control"] for entry in s.sim.requests} == {"no-cache"}


async def test_the_default_policy_follows_the_images_age():
    """Without a word about polling, looks get rarer as the image gets older."""
    async with Simulator() as sim, KokoonClient("token", base_url=sim.base_url) as client:
        s = Service(sim, client)
        image = await client.wait_until_completed(sim.add_image(duration=120.0))
        assert image.state == "completed"
        assert s.now < 120 + 0.17 * 120
        assert len(s.times()) < 50


async def test_a_wait_may_have_a_policy_of_its_own():
    """What is given to the call wins over the client's."""
    async with service() as s:
        vid = s.sim.add_image("pending*3 completed")
        await s.client.wait_until_completed(vid, poll=Exponential(1.0, 2.0, jitter=0))
        assert s.times() == pytest.approx([0, 1, 3, 7], abs=SOON)
