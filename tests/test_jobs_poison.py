"""Ids that always fail, and what they must not be taken for: waits, retries and first answers."""

from __future__ import annotations

import asyncio

import pytest

from kokoon_async import (
    AuthenticationFailed,
    ConnectionFailed,
    JobError,
    Limits,
    OutcomeStream,
    ServerError,
)
from kokoon_async._waiting.bulk import Fetching
from kokoon_async.jobs import fetch_statuses
from kokoon_async.jobs._valve import Valve

from .bulk_api import FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract


VIDS = make_vids(40)
POISON = answer(500, {"message": "boom"})
FORBIDDEN = answer(403, {"message": "not yours"})


async def run(api, out, vids=VIDS, client_options=None, **options):
    """Run a job in shards of ten."""
    async with client_of(api, **(client_options or {})) as client:
        return await fetch_statuses(client, vids, out, **{"shard_size": 10, **options})


def always(fault, *vids):
    """Make an API at which some ids never get anything else."""
    return FakeApi(default=lambda vid: fault if vid in vids else record(vid))


# -- waits -----------------------------------------------------------------------------


@pytest.mark.fault("F-100")
@pytest.mark.parametrize("count", [1, 15])
async def test_poison_alone_in_a_waiting_job(tmp_path, virtual_time, count):
    """Where nothing but poison is left to wait for, it fails, and the job does not give up."""
    vids = VIDS[:count]
    report = await run(always(POISON, *vids), tmp_path / "out", vids, wait=True)
    rows = check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"failed": count}
    assert {row["error_type"] for row in rows} == {"WaitOutage"}
    assert 360 <= virtual_time < 500


@pytest.mark.fault("F-100")
async def test_poison_is_retried_while_waiting(tmp_path, virtual_time):
    """*retry_failed* asks again for an id that fails in waits too, and gives it its row again."""
    api = always(POISON, VIDS[3])
    for retry_failed in (False, True, True):
        report = await run(api, tmp_path / "out", wait=True, retry_failed=retry_failed)
        assert report.outcomes == {"image": 39, "failed": 1}
    check_contract(VIDS, tmp_path / "out")


@pytest.mark.fault("F-100")
@pytest.mark.parametrize(("count", "patience"), [(1, 100.0), (15, 3600.0)])
async def test_poison_among_images_that_take_long(tmp_path, virtual_time, count, patience):
    """Images that are seen but not finished show that the API is well, whatever the patience."""
    poison = set(VIDS[5 : 5 + count])

    def ask(vid):
        if vid in poison:
            return POISON
        return record(vid, state="completed" if virtual_time > 420 else "processing")

    vids = VIDS[:20]
    report = await run(FakeApi(default=ask), tmp_path / "out", vids, wait=True, patience=patience)
    rows = check_contract(vids, tmp_path / "out")
    assert {row["vid"] for row in rows if row["outcome"] == "failed"} == poison
    assert report.states == {"completed": 20 - count}


@pytest.mark.fault("F-101")
@pytest.mark.parametrize("count", [3, 40])
async def test_waiting_for_a_server_that_is_not_there(tmp_path, virtual_time, count):
    """Without any usable answer, a waiting job gives up after a few minutes, and not before."""
    api = FakeApi(default=lambda vid: ConnectionFailed("Refused."))
    with pytest.raises(JobError, match="No usable answer from the API"):
        await run(api, tmp_path / "out", VIDS[:count], wait=True, shard_size=50)
    assert 240 <= virtual_time < 400


# -- forbidden -------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [False, True])
async def test_a_forbidden_image_is_retried_alone(tmp_path, virtual_time, wait):
    """A 403 is an image's own failure also where *retry_failed* asks for that image alone."""
    api = always(FORBIDDEN, VIDS[3])
    for retry_failed in (False, True):
        report = await run(api, tmp_path / "out", wait=wait, retry_failed=retry_failed)
        assert report.outcomes == {"image": 39, "failed": 1}
    rows = check_contract(VIDS, tmp_path / "out")
    assert rows[3]["error_type"] == "AuthenticationFailed"
    assert api.counts[VIDS[3]] <= 2 * 9


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("in_flight", [1, 64])
async def test_a_forbidden_image_is_the_first(tmp_path, virtual_time, wait, in_flight):
    """A job whose first answers are 403 goes on until it knows whether they all are."""
    api = always(FORBIDDEN, *VIDS[:3])
    report = await run(
        api, tmp_path / "out", client_options={"limits": Limits(max_in_flight=in_flight)}, wait=wait
    )
    check_contract(VIDS, tmp_path / "out")
    assert report.outcomes == {"image": 37, "failed": 3}


@pytest.mark.parametrize("wait", [False, True])
async def test_a_retry_with_a_refused_token(tmp_path, virtual_time, wait):
    """A probe with an image of an earlier run tells a refused token from a forbidden image."""
    await run(always(FORBIDDEN, VIDS[3]), tmp_path / "out", wait=wait)
    before = {path.name for path in (tmp_path / "out").iterdir()} - {"_SUCCESS"}
    api = FakeApi(default=lambda vid: FORBIDDEN)
    with pytest.raises(JobError, match="refused the token"):
        await run(api, tmp_path / "out", wait=wait, retry_failed=True)
    assert set(api.counts) - {VIDS[3]} <= set(VIDS)
    assert api.total <= 9 + 1
    assert before <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("count", [1, 9, 40])
async def test_a_refused_token_and_few_ids(tmp_path, virtual_time, count):
    """A token that is refused from the start ends the job soon, however few ids there are."""
    api = FakeApi(default=lambda vid: FORBIDDEN)
    with pytest.raises(JobError, match="refused the token"):
        await run(api, tmp_path / "out", VIDS[:count])
    assert api.total <= 9 * min(count, 9) + 9
    assert virtual_time < 30


async def test_nothing_but_forbidden_images_were_there_before(tmp_path, virtual_time):
    """A part without a single record gives nothing to probe with; the next one does."""
    api = always(FORBIDDEN, *VIDS[:10])
    api.seconds = 0.1
    for retry_failed in (False, True):
        report = await run(api, tmp_path / "out", retry_failed=retry_failed)
        assert report.outcomes == {"image": 30, "failed": 10}
    check_contract(VIDS, tmp_path / "out")


def test_three_refusals_in_a_row_may_be_the_ids_fault():
    """Where nothing ever succeeded, each third 5xx in a row lets more ids be tried."""
    valve = Valve(None, patience=None)
    server, network = ServerError("no"), ConnectionFailed("no")
    errors = [server, server, network, *[server] * 4, network, *[server] * 3]
    blind = [valve._is_blind(error) for error in errors]
    assert [number for number, is_blind in enumerate(blind) if is_blind] == [5, 10]
    valve.remember(VIDS[0])
    assert not any(valve._is_blind(server) for _ in range(9))


async def test_a_forbidden_probe_while_others_are_answered(virtual_time):
    """A probe that is refused says nothing about the token if meanwhile another image was not."""

    class Refusing:
        def get_images(self, vids):
            return OutcomeStream(Fetching(vids, self.refuse, workers=1, in_order=False))

        async def refuse(self, vid):
            asked.append(vid)
            await asyncio.sleep(1)
            raise AuthenticationFailed("no", status=403)

    asked = []
    valve = Valve(Refusing(), patience=None, holds=False)
    valve.in_flight = 11
    for _ in range(10):
        streak = valve.failed(VIDS[0], AuthenticationFailed("no", status=403))
    feeder = asyncio.create_task(valve.wait_for_passage())
    await asyncio.sleep(0.5)
    valve.answered(VIDS[1])
    await feeder
    assert (asked, streak.is_over, streak.is_outage) == ([VIDS[0]], True, False)


# -- waits that nobody looked for ------------------------------------------------------


async def test_waits_under_a_low_rate(tmp_path, virtual_time):
    """No more is waited for at once than the rate allows to look at, several times each."""
    began = {}

    def ask(vid):
        is_over = virtual_time > began.setdefault(vid, float(virtual_time)) + 20
        return record(vid, state="completed" if is_over else "processing")

    vids = make_vids(200)
    limits = Limits(requests_per_second=1)
    report = await run(
        FakeApi(default=ask),
        tmp_path / "out",
        vids,
        client_options={"limits": limits},
        wait=True,
        timeout=100,
    )
    rows = check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": 200}
    assert min(row["attempts"] for row in rows) >= 2


async def test_waits_that_were_never_looked_for(tmp_path, virtual_time):
    """A wait whose time was over before its first look begins again; the API has not failed."""
    vids = make_vids(100)
    report = await run(
        FakeApi(seconds=1),
        tmp_path / "out",
        vids,
        client_options={"limits": Limits(max_in_flight=1)},
        wait=True,
        timeout=30,
    )
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": 100}
    assert (report.requests, virtual_time < 150) == (100, True)


async def test_looks_that_never_come_back_in_time(tmp_path, virtual_time):
    """Looks that each take longer than the whole wait time out in the end."""
    vids = VIDS[:3]
    report = await run(FakeApi(seconds=5), tmp_path / "out", vids, wait=True, timeout=2)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"timed_out": 3}
