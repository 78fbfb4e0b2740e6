"""
The simulator's clocks, durations and rate limit, without any server.
"""

import asyncio
import math
import random
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kokoon_async.simulator import (
    Constant,
    Durations,
    LogNormal,
    LoopClock,
    ManualClock,
    QueueAndRun,
    Simulator,
)
from kokoon_async.simulator._clock import http_date, iso_timestamp, utc_datetime
from kokoon_async.simulator._rate import TokenBucket


START = datetime(2024, 2, 1, 12, 17, 32, 699_000, tzinfo=UTC)


def test_loop_clock_stands_still_without_a_loop() -> None:
    """Before any loop runs, no time has passed."""
    clock = LoopClock(start=START)
    assert clock.time() == clock.time() == START.timestamp()


@pytest.mark.looptime
async def test_loop_clock_follows_virtual_time() -> None:
    """The clock moves with the loop's own clock, at its speed."""
    clock = LoopClock(start=START)
    fast = LoopClock(start=START, speed=60.0)
    assert clock.time() == fast.time() == START.timestamp()
    await asyncio.sleep(10)
    assert clock.time() - START.timestamp() == pytest.approx(10)
    assert fast.time() - START.timestamp() == pytest.approx(600)


async def test_loop_clock_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the loop's clock jumps back, as between fixture and virtual-time test, it goes on."""
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    clock = LoopClock(start=START, speed=2.0)
    clock.time()
    now = 1005.0
    assert clock.time() - START.timestamp() == pytest.approx(10)
    now = 0.0
    assert clock.time() - START.timestamp() == pytest.approx(10)
    now = 3.0
    assert clock.time() - START.timestamp() == pytest.approx(16)


def test_loop_clock_starts_at_present() -> None:
    """Without a start it is now."""
    assert abs(utc_datetime(LoopClock().time()) - datetime.now(UTC)) < timedelta(seconds=60)


@pytest.mark.parametrize("speed", [0.0, -1.0, math.inf, math.nan])
def test_loop_clock_refuses_speed(speed: float) -> None:
    """Time neither stops, nor goes back, nor is over at once."""
    with pytest.raises(ValueError, match="speed"):
        LoopClock(speed=speed)


def test_manual_clock_moves_only_when_told() -> None:
    """A manual clock stands until it is advanced."""
    clock = ManualClock(START.astimezone(timezone(timedelta(hours=9))))
    assert clock.time() == START.timestamp()
    clock.advance(2.5)
    assert utc_datetime(clock.time()) == START + timedelta(seconds=2.5)


def test_manual_clock_has_a_fixed_start() -> None:
    """Without a start, every manual clock shows the same time."""
    assert ManualClock().time() == ManualClock().time()


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_manual_clock_refuses_to_go_back(seconds: float) -> None:
    """A clock only advances, and by a finite time."""
    with pytest.raises(ValueError, match="advances"):
        ManualClock().advance(seconds)


def test_clocks_want_a_time_zone() -> None:
    """A time without a zone means another instant on another machine."""
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(datetime(2024, 1, 1))  # noqa: DTZ001


def test_timestamps_look_like_the_documents() -> None:
    """Times are written as in the vendor's sample and as HTTP wants them."""
    assert iso_timestamp(START.timestamp()) == "2024-02-01T12:17:32.699Z"
    assert iso_timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert http_date(START.timestamp()) == "Thu, 01 Feb 2024 12:17:32 GMT"
    assert http_date(-1.5) == "Wed, 31 Dec 1969 23:59:58 GMT"


@pytest.mark.parametrize(
    ("durations", "median", "mean"),
    [
        (Constant(3.5), 3.5, 3.5),
        (LogNormal(median=20.0, sigma=0.6), 20.0, 20.0 * math.exp(0.18)),
        (QueueAndRun(queue_mean=5.0, run_mean=15.0, run_shape=4.0), None, 20.0),
    ],
)
def test_durations_have_their_parameters(
    durations: Durations, median: float | None, mean: float
) -> None:
    """Samples have the promised median and mean, and follow from the seed."""
    rng = random.Random(7)
    sample = [durations.sample(rng) for _ in range(4000)]
    assert min(sample) > 0
    assert statistics.mean(sample) == pytest.approx(mean, rel=0.05)
    if median is not None:
        assert statistics.median(sample) == pytest.approx(median, rel=0.05)
    assert durations.sample(random.Random(1)) == durations.sample(random.Random(1))


def test_a_wide_spread_draws_numbers_all_the_same() -> None:
    """However large sigma is, a duration is a finite number, and an image can take so long."""
    rng = random.Random(3)
    drawn = [LogNormal(20.0, sigma).sample(rng) for sigma in (9999.0, 1e308) for _ in range(50)]
    assert all(map(math.isfinite, drawn))
    assert min(drawn) < 1e-300
    assert max(drawn) > 1e300
    sim = Simulator(durations=LogNormal(20.0, 9999.0), clock=ManualClock(), seed=1)
    states = {sim.record(vid)["state"] for vid in sim.add_images(20)}
    assert states == {"pending", "completed"}


def test_seeds_keep_their_draws() -> None:
    """A log-normal duration is what Python's own function draws from the same seed."""
    drawn = LogNormal(20.0, 0.6).sample(random.Random(5))
    assert drawn == random.Random(5).lognormvariate(math.log(20.0), 0.6)


@pytest.mark.parametrize(
    ("make", "parameter", "value"),
    [
        (Constant, "seconds", -1.0),
        (Constant, "seconds", math.nan),
        (LogNormal, "median", 0.0),
        (LogNormal, "sigma", -0.1),
        (QueueAndRun, "queue_mean", math.inf),
        (QueueAndRun, "run_mean", -1.0),
        (QueueAndRun, "run_shape", 0.0),
    ],
)
def test_durations_refuse_nonsense(
    make: Callable[..., Durations], parameter: str, value: float
) -> None:
    """Parameters for which there is no distribution are named at once."""
    with pytest.raises(ValueError, match=f"{parameter} must be a number"):
        make(**{parameter: value})


def test_bucket_passes_its_rate() -> None:
    """After a burst of one second's worth, requests pass at the rate."""
    bucket = TokenBucket(2.0)
    assert [bucket.take(10.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(10.25) == pytest.approx(0.25)
    assert bucket.take(10.5) == 0.0
    assert bucket.take(10.5) == pytest.approx(0.5)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.5]


def test_bucket_passes_one_at_slow_rates() -> None:
    """Below one per second the first request still passes."""
    bucket = TokenBucket(0.1)
    assert [bucket.take(0.0), bucket.take(0.0)] == [0.0, 10.0]


def test_bucket_survives_a_clock_that_goes_back() -> None:
    """A jump back of the clock costs no tokens."""
    bucket = TokenBucket(1.0)
    assert [bucket.take(1000.0), bucket.take(0.0), bucket.take(1.0)] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_bucket_refuses_nonsense(rate: float) -> None:
    """A rate is a finite number above zero."""
    with pytest.raises(ValueError, match="requests_per_second"):
        TokenBucket(rate)
