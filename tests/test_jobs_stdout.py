"""Rows to standard output: as they come, as fast as they are read, and no faster."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import select
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from kokoon_async import ConnectionFailed, JobError
from kokoon_async.jobs import fetch_statuses
from kokoon_async.jobs._distinct import DistinctIds
from kokoon_async.jobs._input import open_source
from kokoon_async.jobs._streaming import _Entries, _Sink

from .bulk_api import FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract


VIDS = make_vids(50)


@pytest.fixture
def pipe(monkeypatch):
    """Return a function that makes a pipe standard output, and returns the end that is read."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as writer:

        def use():
            # Not before the test runs: pytest sets its own standard output for each phase.
            monkeypatch.setattr("sys.stdout", writer)
            return reader

        yield use


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Look that nothing is left where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("SQLITE_TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


async def pipe_is_full():
    """Return once standard output, a pipe that nobody reads, takes no more, and the next write hangs."""
    while select.select([], [sys.stdout], [], 0)[1]:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


def check_printed(given, stdout, tmp_path, printed=b""):
    """Check the contract on what was printed and not read yet."""
    os.set_blocking(stdout.fileno(), False)
    (tmp_path / "printed.jsonl").write_bytes(printed + (stdout.read() or b""))
    return check_contract(given, tmp_path / "printed.jsonl", in_order=False)


async def test_rows_are_printed(pipe, tmp_path):
    """All outcomes go to standard output, each id once."""
    stdout = pipe()
    given = [*VIDS, VIDS[0], "nonsense"]
    api = FakeApi(answers={VIDS[3]: [answer(500)] * 9, VIDS[4]: [answer(503)]})
    heard = []
    async with client_of(api) as client:
        report = await fetch_statuses(client, given, "-", on_progress=heard.append)
    check_printed(given, stdout, tmp_path)
    assert (report.out, report.format) == ("-", "jsonl")
    assert (report.ids, report.duplicates, report.shards, report.shards_skipped) == (51, 1, 0, 0)
    assert (heard[-1].done, heard[-1].failed, heard[-1].skipped) == (51, 1, 0)
    assert report.outcomes == {"image": 49, "failed": 1, "invalid": 1}
    assert (report.requests, report.retries) == (api.total, 9)


async def test_rows_come_at_once(pipe, tmp_path):
    """A row is printed as soon as it is known, while the input is still open."""
    stdout = pipe()
    first_read = asyncio.Event()

    async def give():
        yield VIDS[0]
        await first_read.wait()
        yield VIDS[0].upper()
        yield VIDS[1]

    heard = []
    async with client_of(FakeApi()) as client:
        job = asyncio.create_task(
            fetch_statuses(client, give(), "-", wait=True, on_progress=heard.append)
        )
        line = await asyncio.to_thread(stdout.readline)
        assert VIDS[0].encode() in line
        first_read.set()
        await job
    check_printed([VIDS[0], VIDS[0], VIDS[1]], stdout, tmp_path, line)
    assert (heard[-1].done, heard[-1].total) == (2, None)


async def test_progress_of_a_list(pipe, tmp_path):
    """The estimate of the total works without a folder too."""
    stdout = pipe()
    heard = []
    async with client_of(FakeApi()) as client:
        await fetch_statuses(client, VIDS, "-", on_progress=heard.append)
    check_printed(VIDS, stdout, tmp_path)
    assert [(each.done, each.total) for each in (heard[0], heard[-1])] == [(0, None), (50, 50)]


async def test_final_states_are_printed(pipe, tmp_path, virtual_time):
    """With *wait* a row is printed once its image is finished, or its time is over."""
    stdout = pipe()
    api = FakeApi()
    api.answers[VIDS[0]] = [record(VIDS[0], state="processing")] * 3
    api.answers[VIDS[1]] = [record(VIDS[1], state="processing") for _ in range(3000)]
    async with client_of(api) as client:
        report = await fetch_statuses(client, VIDS, "-", wait=True, timeout=300.0)
    check_printed(VIDS, stdout, tmp_path)
    assert report.outcomes == {"image": 49, "timed_out": 1}
    assert report.states == {"completed": 49, "processing": 1}


async def test_a_pipe_gets_the_bytes_of_a_file(pipe):
    """Only a terminal has to be spared: to a pipe text goes as UTF-8, as it does into files."""
    stdout = pipe()
    api = FakeApi(answers={VIDS[0]: [record(VIDS[0], filename="ü.png")]})
    async with client_of(api) as client:
        await fetch_statuses(client, VIDS[:1], "-")
    assert '"filename":"ü.png"'.encode() in stdout.readline()


async def test_a_terminal_is_not_steered(monkeypatch, tmp_path):
    """To a terminal all that is not printable ASCII goes as an escape, and means the same (F-47)."""
    ours, theirs = os.openpty()
    name = "\x9b31m\x7f\u202e\x1b[2J ü.png"
    api = FakeApi(answers={VIDS[0]: [record(VIDS[0], filename=name)]})
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        async with client_of(api) as client:
            await fetch_statuses(client, VIDS[:1], "-")
        shown = screen.read(10_000).removesuffix(b"\r\n")
    assert shown.isascii()
    assert shown.decode().isprintable()
    assert orjson.loads(shown)["filename"] == name


async def test_how_many_rows_there_will_be(tmp_path):
    """From the part of the input that was read follows how many ids there are in all."""
    source = await open_source([VIDS[0], "# a comment", *make_vids(1500, seed=3)])
    distinct = await asyncio.to_thread(DistinctIds, tmp_path / "seen")
    entries = _Entries(source, distinct, _Sink(-1))
    assert entries.expected_ids() is None
    for _ in range(3):
        assert len(await entries.next()) == 500
        assert entries.expected_ids() == pytest.approx(1501, abs=2)
    await asyncio.to_thread(distinct.close)


@pytest.mark.fault("F-93")
async def test_a_slow_reader_slows_the_job(pipe, tmp_path):
    """What is not read is not fetched: memory stays bounded behind a slow pipe."""
    stdout = pipe()
    vids = make_vids(4000)
    api = FakeApi()
    async with client_of(api) as client:
        job = asyncio.create_task(fetch_statuses(client, vids, "-"))
        await pipe_is_full()
        before = -1
        while before != api.total:  # until nothing moves any more
            before = api.total
            await asyncio.sleep(0.05)
        assert 500 <= api.total < 2000
        printed = await asyncio.to_thread(_read_all, stdout, 4000)
        await job
    check_printed(vids, stdout, tmp_path, printed)


@pytest.mark.fault("F-93")
async def test_there_is_room_once_rows_are_written(pipe):
    """Who has more rows than there is room for waits until they have gone on their way."""
    stdout = pipe()
    sink = _Sink(sys.stdout.fileno())
    for _ in range(501):
        sink.put(b"{}")
    waiting = asyncio.create_task(sink.has_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    sink.end()
    await sink.write()
    await waiting
    assert await asyncio.to_thread(_read_all, stdout, 501) == b"{}\n" * 501
    sink.close()


def _read_all(stdout, count):
    return b"".join(stdout.readline() for _ in range(count))


@pytest.mark.fault("F-93")
@pytest.mark.fault("F-116")
async def test_a_reader_that_goes(pipe):
    """A closed pipe ends the job with the error that stands for it."""
    stdout = pipe()
    stdout.close()
    api = FakeApi()
    async with client_of(api) as client:
        with pytest.raises(BrokenPipeError):
            await fetch_statuses(client, make_vids(5000), "-")
    assert api.total < 3000


async def test_a_reader_that_hangs_does_not_hold_up_a_cancellation(pipe):
    """A write that hangs is left behind."""
    stdout = pipe()
    async with client_of(FakeApi()) as client:
        job = asyncio.create_task(fetch_statuses(client, make_vids(4000), "-"))
        await pipe_is_full()
        job.cancel()
        await asyncio.wait({job}, timeout=20)
        assert job.cancelled()
    assert _is_printing()
    # Let the thread go, or it would be left behind after the test.
    os.set_blocking(stdout.fileno(), False)
    while _is_printing():
        stdout.read()
        await asyncio.sleep(0.001)


def _is_printing():
    return any(thread.name == "kokoon output" for thread in threading.enumerate())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_behind_standard_output(monkeypatch):
    """A disk that is full is an error, and not a broken pipe."""
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115
    monkeypatch.setattr("sys.stdout", full)
    async with client_of(FakeApi()) as client:
        said = "^Cannot write to standard output: No space left"
        with pytest.raises(JobError, match=said) as caught:
            await fetch_statuses(client, VIDS, "-")
    assert (caught.value.path, caught.value.errno) == ("-", errno.ENOSPC)
    full.close()


async def test_an_output_that_fails_without_a_word(pipe, monkeypatch):
    """An error of the system that says nothing is called by its class."""
    pipe()

    def fail(descriptor, content):
        raise OSError

    monkeypatch.setattr(
        "kokoon_async.jobs._streaming.os", SimpleNamespace(write=fail, isatty=lambda _: False)
    )
    async with client_of(FakeApi()) as client:
        with pytest.raises(JobError, match=r"^Cannot write to standard output: OSError\."):
            await fetch_statuses(client, VIDS, "-")


class Closed:
    """A stream that was closed."""

    def flush(self):
        """Say so."""
        raise ValueError("I/O operation on closed file.")


@pytest.mark.parametrize(
    "output", [None, io.StringIO(), Closed()], ids=["none", "no file", "closed"]
)
async def test_no_standard_output(monkeypatch, output):
    """Without a standard output the job does not start."""
    monkeypatch.setattr("sys.stdout", output)
    api = FakeApi()
    async with client_of(api) as client:
        with pytest.raises(JobError, match=r"^There is no standard output to write") as caught:
            await fetch_statuses(client, VIDS, "-")
    assert (api.total, caught.value.path) == (0, "-")
    assert caught.value.hint == "Give the path of a file."


async def test_what_stops_a_job_stops_this_one(pipe, virtual_time):
    """A refused token or an outage is told as in any job, without a word of resuming."""
    pipe()
    api = FakeApi(default=lambda vid: answer(401, {"message": "unauthorized"}))
    async with client_of(api) as client:
        with pytest.raises(JobError, match=r"refused the token.*for this API.$") as caught:
            await fetch_statuses(client, VIDS, "-")
    assert caught.value.path == "-"
    api = FakeApi(default=lambda vid: ConnectionFailed("Refused."))
    async with client_of(api) as client:
        with pytest.raises(JobError, match="No usable answer from the API"):
            await fetch_statuses(client, VIDS, "-")


async def test_the_input_may_raise(pipe, tmp_path):
    """What the input raises comes out after the rows of what was read."""
    stdout = pipe()

    def give():
        yield from VIDS
        raise LookupError("no more")

    async with client_of(FakeApi()) as client:
        with pytest.raises(LookupError, match="no more"):
            await fetch_statuses(client, give(), "-")
    check_printed(VIDS, stdout, tmp_path)
