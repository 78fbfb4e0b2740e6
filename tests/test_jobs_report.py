"""What a job tells: how far it is, how fast, and what came of it."""

from __future__ import annotations

import asyncio

import pytest

from kokoon_async import AuthenticationFailed, JobError
from kokoon_async.jobs import JobReport
from kokoon_async.jobs._cutting import Cutter
from kokoon_async.jobs._report import Meter, Tally
from kokoon_async.jobs._run import job_error


async def progress_after(meter, seconds, done, **options):
    """Let a run bring some ids to their outcome in some seconds, and take stock."""
    await asyncio.sleep(seconds)
    for _ in range(done):
        meter.count("image")
    return meter.progress(**{"in_flight": 3, "expected": 1000.0, "paused": None, **options})


async def test_the_rate_is_that_of_the_last_ten_seconds(virtual_time):
    """A burst at the start is forgotten after ten seconds, and what is left takes so much longer."""
    await asyncio.sleep(100)  # the clock of a loop starts anywhere
    meter = Meter()
    at_once = await progress_after(meter, 0, 0)
    assert (at_once.rate, at_once.seconds, at_once.seconds_left) == (0.0, 0.0, None)
    early = await progress_after(meter, 4, 200)
    assert (early.rate, early.seconds, early.seconds_left) == (50.0, 4.0, 16.0)
    both = await progress_after(meter, 6, 60)
    assert (both.rate, both.seconds_left) == (26.0, pytest.approx(740 / 26))
    late = await progress_after(meter, 4, 20)
    assert (late.rate, late.seconds, late.done) == (8.0, 14.0, 280)
    assert late.seconds_left == 720 / 8
    assert meter.rate == 280 / 14


async def test_the_rate_of_what_is_seldom_asked(virtual_time):
    """Whoever takes stock each minute gets the rate of that minute."""
    meter = Meter()
    for _ in range(3):
        seldom = await progress_after(meter, 60, 30)
        assert (seldom.rate, len(meter._samples)) == (0.5, 2)
    assert seldom.seconds_left == (1000 - 90) / 0.5


@pytest.mark.parametrize(
    ("options", "total"), [({"expected": None}, None), ({"paused": "the server rests"}, 1000)]
)
async def test_no_time_is_told_that_nobody_knows(virtual_time, options, total):
    """While a job pauses, or its input has no end yet, nobody knows how long it will last."""
    meter = Meter()
    progress = await progress_after(meter, 1, 10, **options)
    assert (progress.total, progress.seconds_left, progress.rate) == (total, None, 10.0)
    assert (progress.paused, progress.in_flight) == (options.get("paused"), 3)


async def test_a_total_is_never_less_than_what_is_done(virtual_time):
    """An estimate that proves too small is what is done; earlier runs' ids count as done."""
    meter = Meter()
    meter.skipped = 5
    progress = await progress_after(meter, 1, 10, expected=12.4)
    assert (progress.done, progress.skipped, progress.total) == (15, 5, 15)
    assert progress.seconds_left == 0.0
    assert (await progress_after(meter, 1, 0, expected=20.6)).total == 21


def test_a_report_is_a_sentence():
    """A report that is printed says how many ids came to what, in which order ever they came."""
    counts = {"outcomes": {"image": 2, "failed": 1}, "states": {}, "shards": 1, "shards_skipped": 0}
    cost = {"requests": 5, "retries": 2, "seconds": 1.26, "rate": 2.4}
    report = JobReport("out", "jsonl", 3, 0, **counts, **cost)
    assert str(report) == "3 ids (1 failed, 2 image) in out: 5 requests, 1.3 s"
    empty = JobReport("out", "jsonl", 0, 0, **{**counts, "outcomes": {}}, **cost)
    assert str(empty) == "0 ids (none) in out: 5 requests, 1.3 s"


@pytest.mark.parametrize(
    ("error", "hint", "path"),
    [
        (AuthenticationFailed("No.", hint="Try."), "Try. Go on.", "out"),
        (JobError("No.", "Try."), "Try. Go on.", "out"),
        (JobError("No.", path="part"), "Go on.", "part"),
        (JobError("No.", "Try.", path="part", errno=5), "Try.", "part"),
    ],
)
def test_what_ends_a_job_says_where_and_what_next(error, hint, path):
    """An error that names its own path and what to do is not told to be gone on from."""
    told = job_error(error, "out", "Go on.")
    assert (told.message, told.hint, told.path) == ("No.", hint, path)
    assert told.errno == getattr(error, "errno", None)


def test_states_do_not_fill_the_memory():
    """Of a server that invents states, a hundred are counted, and the others together."""
    tally = Tally()
    tally.add(("image", f"state-{number}") for number in [*range(150), 3, 149])
    tally.add([("failed", None), ("timed_out", "state-3"), ("invalid", None)])
    assert len(tally.states) == 101
    assert (tally.states["state-3"], tally.states["(other)"]) == (3, 51)
    assert tally.outcomes == {"image": 152, "failed": 1, "timed_out": 1, "invalid": 1}
    assert (tally.ids, tally.failed) == (155, 2)


class Part:
    """A source of which some part was given out."""

    def __init__(self, fraction):
        self.given = fraction

    def fraction(self):
        """Give the part."""
        return self.given


@pytest.mark.parametrize(
    ("ids", "fraction", "expected"),
    [(30, 0.25, 120.0), (30, 1.0, 30.0), (30, None, None), (30, 0.0, None), (0, 0.25, None)],
)
def test_how_many_ids_there_will_be(ids, fraction, expected):
    """From the part of the input that was read follows how many ids there are; never none."""
    cutter = Cutter(Part(fraction), None, 10)
    cutter.ids = ids
    assert cutter.expected_ids() == expected
