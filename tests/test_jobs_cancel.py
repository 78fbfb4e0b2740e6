"""Jobs cancelled at every point: nothing is left, nothing is lost, and they can be resumed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from kokoon_async import JobError, ServerError
from kokoon_async.jobs import Entry, Shard, fetch_statuses, run_shard
from kokoon_async.jobs._run import crew
from kokoon_async.jobs._settling import _Feed
from kokoon_async.jobs._valve import Valve

from .bulk_api import FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract
from .cancellation import Scenario, cancel_everywhere


VIDS = make_vids(4)


def scenario(*, wait=False, name="out.jsonl", **options):
    """Make scenarios of a job with a failure in it."""

    @contextlib.asynccontextmanager
    async def make():
        folder = Path(tempfile.mkdtemp(prefix="kokoon-test-"))
        out = folder / name
        answers = {VIDS[1]: [answer(503)], VIDS[2]: [record(VIDS[2], state="pending")]}
        async with client_of(FakeApi(answers=answers)) as client:

            async def run():
                return await fetch_statuses(client, VIDS, out, wait=wait, shard_size=2, **options)

            async def again():
                await run()
                check_contract(VIDS, out)

            yield Scenario(
                run,
                checks={
                    "no temporary file": lambda: (
                        not [*folder.rglob("_tmp-*"), *folder.rglob("_seen-*")]
                    ),
                    "no slot is taken": lambda: not client._pipeline._throttle.in_flight,
                },
                after=again,
            )
        shutil.rmtree(folder)

    return make


# Turns of the loop are no points in time while threads work. Children are tasks of the streams too,
# which have their own tests.
@pytest.mark.fault("F-105")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.unmeasured
def test_a_job_can_be_cancelled_anywhere(times):
    """Cancelled at any point, once or twice, a job leaves no task and no file, and can go on."""
    assert cancel_everywhere(scenario(), mode="suspensions", times=times).points > 20


@pytest.mark.fault("F-105")
@pytest.mark.unmeasured
def test_a_waiting_job_can_be_cancelled_anywhere():
    """The same with waits, into a folder, and with progress."""
    make = scenario(wait=True, name="out", on_progress=lambda progress: None)
    assert cancel_everywhere(make, mode="suspensions", virtual_time=True, limit=600).points > 20


async def test_a_cancelled_job_says_how_to_go_on(tmp_path):
    """The cancellation carries a note, and what was finished is kept."""
    vids = make_vids(600)
    out = tmp_path / "out"
    async with client_of(FakeApi(seconds=0.01)) as client:
        job = asyncio.create_task(fetch_statuses(client, vids, out, shard_size=100))
        while not list(out.glob("part-*")):
            await asyncio.sleep(0.01)
        job.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await job
        kept = len(list(out.glob("part-*")))
        assert f"{kept} finished shards of {out} are kept" in caught.value.__notes__[0]
        report = await fetch_statuses(client, vids, out, shard_size=100)
    assert report.shards_skipped == kept
    check_contract(vids, out)


async def test_a_shard_that_is_cancelled_alone(tmp_path):
    """If somebody cancels a task of the job and not the job, it does not count as finished."""
    vids = make_vids(60)
    out = tmp_path / "out"
    hangs = asyncio.Event()

    async def hang():
        hangs.set()
        await asyncio.sleep(1000)

    async with client_of(FakeApi(answers={vids[45]: [hang]})) as client:
        job = asyncio.create_task(fetch_statuses(client, vids, out, shard_size=10))
        await hangs.wait()
        (shard,) = (task for task in asyncio.all_tasks() if task.get_name() == "kokoon shard 4")
        shard.cancel()
        with pytest.raises(JobError, match=r"1 shards of .* were interrupted. 5 finished shards"):
            await job
        report = await fetch_statuses(client, vids, out, shard_size=10)
    assert report.shards_skipped == 5
    check_contract(vids, out)


@pytest.mark.fault("F-114")
@pytest.mark.parametrize("failures", [1, 2])
async def test_a_job_raises_no_group(failures):
    """Of what fails in tasks at the same time the first is raised, as itself."""

    async def fail(number):
        await asyncio.sleep(0)
        raise JobError(f"number {number}")

    async def work():
        async with crew() as tasks:
            for number in range(failures):
                tasks.create_task(fail(number))

    with pytest.raises(JobError, match="number 0"):
        await work()


async def test_ids_are_not_lost_with_a_worker():
    """An id that a cancelled worker was about to ask for is asked for by the next one."""
    entries = iter([[Entry(VIDS[0], 1)], []])

    async def next_entries():
        return next(entries)

    valve = Valve(None, patience=None)
    valve.in_flight = 1
    streak = valve.failed("x", ServerError("boom"))
    valve.in_flight = 1  # so that the valve holds
    feed = _Feed(next_entries, print, valve, is_wait=False)
    worker = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0.01)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    valve.answered("y")
    assert streak.is_over
    assert await anext(feed) == VIDS[0]
    await feed.aclose()


async def test_a_stream_that_ends_too_early(tmp_path):
    """A shard without all of its rows is an error, never a part."""

    class Torn:
        def get_images(self, feed):
            return self

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def __aiter__(self):
            return
            yield

    with pytest.raises(JobError, match="Shard 3 has 1 ids without an outcome"):
        await run_shard(Torn(), Shard(3, [Entry(VIDS[0], 1)]))
