"""Outages, poison ids and refused tokens: what a job does when the API does not."""

from __future__ import annotations

import asyncio
import math
import random
from itertools import pairwise

import attrs
import pytest

from kokoon_async import (
    AuthenticationFailed,
    ClientClosed,
    ConnectionFailed,
    Image,
    ImageNotFound,
    ImageState,
    InsufficientCredit,
    JobError,
    Limits,
    OutcomeStream,
    RequestTimedOut,
    RetryPolicy,
    ServerError,
    UnexpectedResponse,
)
from kokoon_async._http.protocol import Answer
from kokoon_async._waiting.bulk import Fetching
from kokoon_async.jobs import Entry, JobProgress, Shard, fetch_statuses, run_shard
from kokoon_async.jobs._valve import Valve

from .bulk_api import NOT_FOUND, FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract
from .memory_network import Network, run


VIDS = make_vids(900)
POISON = answer(500, {"message": "boom"})
IN_FLIGHT = 64
RETRIES = 35  # that a client's quota allows in all
PROBES = 60  # one every ten seconds


@attrs.define
class FallibleApi(FakeApi):
    """
    Be out of order between two times.

    Attributes:
        begin: When the outage begins.

        end: When it is over.

        period: If less than infinite, the first three seconds of each are good.

        fault: What all requests get meanwhile.
    """

    begin: float = 1e9
    end: float = 1e9
    period: float = math.inf
    fault: object = None

    def is_out(self) -> bool:
        """Tell whether there is an outage now."""
        now = asyncio.get_running_loop().time()
        return self.begin <= now < self.end and (now - self.begin) % self.period < self.period - 3

    async def send(self, path, call, token):
        """Answer as the transport would."""
        response = await FakeApi.send(self, path, call, token)
        if not self.is_out():
            return response
        fault = self.fault
        if isinstance(fault, BaseException):
            raise type(fault)(*fault.args) if not attrs.has(type(fault)) else attrs.evolve(fault)
        return fault

    def requests_between(self, begin, end):
        """Count the requests that were sent in a span of time."""
        return sum(begin <= time < end for time in self.times)


FAULTS = [
    ConnectionFailed("The connection was refused."),
    RequestTimedOut("The request timed out."),
    UnexpectedResponse("Not this API."),
    answer(503, {"message": "down"}),
    answer(502, b"<html>Bad gateway</html>"),
    answer(200, b"<html>Maintenance</html>"),
    answer(429, {"message": "too many"}),
    answer(503, b"", Retry_After="30"),
]


def job(api, out, vids=VIDS, client_options=None, **options):
    """Run a job in shards of 300."""

    async def run():
        async with client_of(api, **(client_options or {})) as client:
            return await fetch_statuses(client, vids, out, **{"shard_size": 300, **options})

    return run()


@pytest.mark.fault("F-101")
@pytest.mark.fault("F-55")
@pytest.mark.parametrize(
    ("fault", "attempts", "extra"),
    [
        # Retries take the places of what is in flight, so they cost no more than that.
        (FAULTS[0], 1, 0),
        *((fault, 3, 0) for fault in FAULTS[:6]),
        (FAULTS[6], 3, 40),
        (FAULTS[7], 3, -40),  # each probe makes the client pause
    ],
    ids=repr,
)
@pytest.mark.unmeasured
async def test_an_outage_of_ten_minutes(tmp_path, virtual_time, fault, attempts, extra):
    """G25: requests in flight and a probe every ten seconds, no id failed, full speed again."""
    # After a 429 there are fewer places, and then more by and by, for nine seconds.
    vids, over = make_vids(4000 if fault in FAULTS[6:] else 1400), 601.05
    api = FallibleApi(seconds=0.1, begin=1.05, end=over, fault=fault)
    options = {"retry": RetryPolicy(attempts=attempts)}
    report = await job(api, tmp_path / "out", vids, client_options=options)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": len(vids)}
    assert PROBES / 3 <= api.requests_between(1.05, over) <= IN_FLIGHT + PROBES + extra
    assert max(api.times) < over + 30.0
    busiest = max(api.requests_between(over + n / 2, over + n / 2 + 0.5) for n in range(59))
    assert busiest >= 0.95 * IN_FLIGHT * 0.5 / api.seconds
    assert report.requests == api.total


@pytest.mark.fault("F-53")
@pytest.mark.parametrize("hint", [0, 1, 20, 100, 86_400])
@pytest.mark.parametrize("where", [0, 450])
@pytest.mark.unmeasured
async def test_one_image_that_is_always_throttled(tmp_path, virtual_time, hint, where):
    """An image that gets nothing but 429 never holds the others up for more than one pause."""
    throttled, begun = VIDS[where], []

    def ask(vid):
        if api.counts[vid] == 1:
            begun.append(asyncio.get_running_loop().time())
        return record(vid)

    headers = {"Retry-After": f"{hint}"} if hint else {}
    refusal = answer(429, {"message": "slow down"}, **headers)
    api = FakeApi(answers={throttled: [refusal] * 99}, default=ask, seconds=0.1)
    report = await job(api, tmp_path / "out")
    rows = check_contract(VIDS, tmp_path / "out")
    assert report.outcomes == {"image": len(VIDS) - 1, "failed": 1}
    assert rows[where]["error_type"] == "RateLimited"
    assert 9 <= api.counts[throttled] <= 11
    pause = min(hint, RetryPolicy().retry_after_cap)
    assert max(after - before for before, after in pairwise(begun)) <= pause + 0.2
    assert virtual_time <= 9 * pause + 15


async def test_a_pause_is_told(tmp_path, virtual_time, caplog):
    """Progress and log say when the job pauses, why, and when it goes on."""
    api = FallibleApi(seconds=0.1, begin=0.25, end=40.0, fault=ConnectionFailed("Refused."))
    heard: list[JobProgress] = []
    await job(api, tmp_path / "out", VIDS[:300], on_progress=heard.append)
    check_contract(VIDS[:300], tmp_path / "out")
    reasons = [progress.paused for progress in heard]
    assert (reasons[0], reasons[-1]) == (None, None)
    assert {reason[:36] for reason in reasons[10:70]} == {"No good answer from the API: Refused"}
    assert {progress.seconds_left for progress in heard[10:70]} == {None}
    told = [record for record in caplog.records if record.message.startswith("job.")]
    assert [record.message for record in told] == ["job.paused", "job.resumed"]
    assert told[0].kokoon_error == "ConnectionFailed"


@pytest.mark.fault("F-101")
async def test_an_outage_at_the_very_end(tmp_path, virtual_time):
    """The last few ids are not taken for poison, though nothing else can succeed any more."""
    vids = VIDS[:103]
    api = FallibleApi(begin=1.05, end=300.0, fault=ConnectionFailed("No."))

    async def wait_for_outage():
        await asyncio.sleep(1.5)
        return record(vids[-1])

    for vid in vids[-3:]:
        api.answers[vid] = [wait_for_outage]
    report = await job(api, tmp_path / "out", vids)
    check_contract(vids, tmp_path / "out")
    assert (report.outcomes, virtual_time >= 300) == ({"image": 103}, True)


@pytest.mark.fault("F-101")
async def test_an_outage_while_waiting(tmp_path, virtual_time):
    """Waits end in an outage after a while, and are taken up again when it is over."""
    vids = VIDS[:60]
    api = FallibleApi(begin=30.0, end=630.0, fault=ConnectionFailed("No."))
    for vid in vids:
        api.answers[vid] = [record(vid, state="processing") for _ in range(5)]
    report = await job(api, tmp_path / "out", vids, wait=True, shard_size=20)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": 60}
    assert report.states == {"completed": 60}


@pytest.mark.fault("F-100")
@pytest.mark.parametrize("count", [1, 10, 400])
@pytest.mark.parametrize("where", [100, 450])
@pytest.mark.unmeasured
async def test_poison_in_the_middle(tmp_path, virtual_time, count, where):
    """Ids that always fail do so after three rounds; the others do not notice."""
    vids = VIDS[: where + count + 100]
    poison = vids[where : where + count]
    api = FakeApi(seconds=0.1, answers={vid: [POISON] * 99 for vid in poison})
    report = await job(api, tmp_path / "out", vids)
    rows = check_contract(vids, tmp_path / "out")
    assert {row["vid"] for row in rows if row["outcome"] == "failed"} == set(poison)
    assert {row["error_type"] for row in rows if row["outcome"] == "failed"} == {"ServerError"}
    assert all(9 <= api.counts[vid] <= 11 for vid in poison)
    # A probe now and then, and no pauses.
    assert api.total == report.requests
    assert virtual_time < 60


@pytest.mark.fault("F-100")
@pytest.mark.parametrize("count", [1, 10, 150])
async def test_poison_at_the_start(tmp_path, virtual_time, count):
    """Where nothing has succeeded yet, ids may be at fault as well as the server: both get time."""
    vids = VIDS[: count + 50]
    api = FakeApi(seconds=0.1, answers={vid: [POISON] * 99 for vid in vids[:count]})
    report = await job(api, tmp_path / "out", vids)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": 50, "failed": count}
    assert virtual_time < 600


async def test_nothing_but_poison(tmp_path, virtual_time):
    """A server that answers 5xx to everything gets failed rows, slowly."""
    vids = VIDS[:12]
    api = FakeApi(default=lambda vid: POISON)
    report = await job(api, tmp_path / "out", vids)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"failed": 12}
    assert 20 <= virtual_time < 300
    assert max(api.counts.values()) <= 20


@pytest.mark.parametrize("count", [3, 500])
@pytest.mark.parametrize(
    ("fault", "hint"),
    [(ConnectionFailed("Refused.", "Try later."), "Try later. 0"), (FAULTS[5], "")],
    ids=["refused", "html"],
)
async def test_a_server_that_is_not_there(tmp_path, virtual_time, fault, count, hint):
    """Without any usable answer from the start, the job gives up after two minutes."""
    api = FallibleApi(begin=0.0, fault=fault)
    vids = VIDS[:count]
    with pytest.raises(
        JobError, match=r"No usable answer from the API, for 12. s from the start.*0 finished"
    ) as caught:
        await job(api, tmp_path / "out", vids)
    assert caught.value.hint.startswith(hint)
    assert 120 <= virtual_time < 130
    assert api.total <= min(count * 3, IN_FLIGHT) + RETRIES + 13
    report = await job(FakeApi(), tmp_path / "out", vids)
    assert report.outcomes == {"image": count}
    check_contract(vids, tmp_path / "out")


async def test_a_certificate_that_does_not_fit(tmp_path, virtual_time):
    """What cannot get better ends the job at once."""
    said = "The certificate is for another host."
    fault = ConnectionFailed(said, "Set base_url.", is_lasting=True)
    api = FallibleApi(begin=0.0, fault=fault)
    with pytest.raises(JobError, match=r"The API cannot be reached. The certificate") as caught:
        await job(api, tmp_path / "out")
    assert virtual_time < 5
    assert caught.value.hint.startswith("Set base_url. 0 finished shards")


@pytest.mark.fault("F-64")
async def test_a_provider_of_tokens_that_fails_for_a_while(tmp_path, virtual_time):
    """Without new tokens for ten minutes the job waits, and fails no id."""
    fault = AuthenticationFailed("The token provider failed.", is_passing=True)
    api = FallibleApi(seconds=0.1, begin=1.05, end=600.0, fault=fault)
    report = await job(api, tmp_path / "out")
    assert virtual_time > 600
    assert report.outcomes == {"image": len(VIDS)}
    check_contract(VIDS, tmp_path / "out")


@pytest.mark.fault("F-101")
@pytest.mark.parametrize("patience", [200.0, 3600.0])
async def test_an_outage_without_end(tmp_path, virtual_time, patience):
    """An outage longer than *patience* ends the job, which can be resumed."""
    api = FallibleApi(seconds=0.1, begin=1.05, fault=ConnectionFailed("Refused."))
    with pytest.raises(JobError) as caught:
        await job(api, tmp_path / "out", patience=patience)
    assert patience <= virtual_time < patience + 5
    assert f"No good answer from the API for {patience:.0f} s. Refused" in caught.value.message
    kept = len(list((tmp_path / "out").glob("part-*")))
    assert f"{kept} finished shards of {tmp_path / 'out'} are kept: run" in caught.value.hint
    assert caught.value.path == str(tmp_path / "out")
    assert caught.value.__context__ is None
    assert kept == 2
    report = await job(FakeApi(), tmp_path / "out")
    assert report.shards_skipped == 2
    check_contract(VIDS, tmp_path / "out")


async def test_a_shard_alone_in_an_outage(virtual_time):
    """A shard that runs alone holds back its ids too, and gives up when its patience is over."""
    api = FallibleApi(seconds=0.1, begin=0.25, fault=UnexpectedResponse("Not this API."))
    shard = Shard(0, [Entry(vid, line) for line, vid in enumerate(VIDS, 1)])
    async with client_of(api) as client:
        with pytest.raises(JobError, match="No good answer from the API for 30 s"):
            await run_shard(client, shard, patience=30.0)
    assert 30 <= virtual_time < 40
    assert api.requests_between(0.25, math.inf) <= IN_FLIGHT + 4


async def test_a_server_that_was_only_slow_to_start(tmp_path, virtual_time):
    """Where the first answers come within two minutes, nothing is lost."""
    api = FallibleApi(begin=0.0, end=100.0, fault=ConnectionFailed("Refused."))
    report = await job(api, tmp_path / "out")
    assert report.outcomes == {"image": len(VIDS)}
    check_contract(VIDS, tmp_path / "out")


@pytest.mark.fault("F-66")
@pytest.mark.fault("F-102")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_revoked_token(tmp_path, virtual_time, status):
    """A refused token stops the job; what is finished is kept, and no id is marked as failed."""
    fault = answer(status, {"message": "unauthorized"})
    api = FallibleApi(seconds=0.1, begin=1.05, fault=fault)
    with pytest.raises(JobError) as caught:
        await job(api, tmp_path / "out")
    kept = len(list((tmp_path / "out").glob("part-*")))
    assert kept == 2
    assert "The API refused the token" in caught.value.message
    assert "Check that the token is current" in caught.value.hint
    assert f"{kept} finished shards" in caught.value.hint
    assert api.requests_between(1.0, 1e9) <= 3 * IN_FLIGHT
    report = await job(FakeApi(), tmp_path / "out")
    assert (report.outcomes, report.shards_skipped) == ({"image": len(VIDS)}, kept)
    check_contract(VIDS, tmp_path / "out")


async def test_a_token_that_was_never_good(tmp_path):
    """A token that is refused from the start costs the requests in flight, not a million."""
    api = FakeApi(default=lambda vid: answer(403, {"message": "forbidden"}))
    with pytest.raises(JobError, match=r"refused the token.*0 finished shards"):
        await job(api, tmp_path / "out")
    assert api.total <= IN_FLIGHT


async def test_an_image_that_is_forbidden(tmp_path, virtual_time):
    """A 403 for one image, while others are answered, is that image's failure."""
    api = FakeApi(answers={VIDS[700]: [answer(403, {"message": "not yours"})] * 99})
    report = await job(api, tmp_path / "out")
    rows = check_contract(VIDS, tmp_path / "out")
    assert report.failed == 1
    assert (rows[700]["error_type"], rows[700]["attempts"]) == ("AuthenticationFailed", 9)


async def test_an_empty_account(tmp_path):
    """Credit that is used up stops the job."""
    api = FakeApi(answers={VIDS[700]: [answer(402, {"message": "insufficient credit"})] * 9})
    with pytest.raises(JobError, match="credit is used up"):
        await job(api, tmp_path / "out")
    await job(FakeApi(), tmp_path / "out")
    check_contract(VIDS, tmp_path / "out")


async def test_a_client_that_is_closed(tmp_path):
    """Closing the client ends the job with that error, and a note how to go on."""
    out = tmp_path / "out"
    async with client_of(FakeApi(seconds=0.01)) as client:
        work = asyncio.create_task(fetch_statuses(client, VIDS, out, shard_size=300))
        while not list(out.glob("part-*")):
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(ClientClosed) as caught:
            await work
    assert "finished shards" in caught.value.__notes__[0]
    await job(FakeApi(), out)
    check_contract(VIDS, out)


async def test_a_flapping_server(tmp_path, virtual_time):
    """A server that comes and goes for minutes loses nothing."""
    api = FallibleApi(
        seconds=0.1, begin=1.05, end=180.0, period=30.0, fault=ConnectionFailed("No.")
    )
    report = await job(api, tmp_path / "out")
    assert report.outcomes == {"image": len(VIDS)}
    check_contract(VIDS, tmp_path / "out")


async def test_a_rate_so_low_that_calls_run_out_of_time(tmp_path, virtual_time):
    """Ids that time out in the client's own queue have not failed, and are asked for again."""
    vids = VIDS[:150]
    api = FakeApi(answers={vids[3]: [POISON] * 99})
    options = {"limits": Limits(requests_per_second=0.5)}
    report = await job(api, tmp_path / "out", vids, client_options=options)
    check_contract(vids, tmp_path / "out")
    assert report.outcomes == {"image": 149, "failed": 1}
    assert 300 < virtual_time < 600


# -- the valve alone -------------------------------------------------------------------


async def fill(valve, vid=VIDS[0], failures=10):
    """Let ids through and come back as failures."""
    for _ in range(failures):
        await valve.wait_for_passage()
    for _ in range(failures):
        valve.failed(vid, ServerError("boom"))


GOOD, LATE = VIDS[1:3]


class Prober:
    """Stand for a client of which only probes are wanted."""

    def __init__(self, *answers, seconds=1):
        self.answers = list(answers)
        self.seconds = seconds
        self.asked = []

    def get_images(self, vids):
        """Answer with an image or an error for each id."""
        return OutcomeStream(Fetching(vids, self.answer, workers=1, in_order=False))

    async def answer(self, vid):
        """Give an image, or raise."""
        self.asked.append(vid)
        await asyncio.sleep(self.seconds)
        result = self.answers.pop(0)
        if isinstance(result, BaseException):
            raise result
        return Answer(result, answer(200))


async def test_nothing_is_fed_while_a_streak_is_looked_into(virtual_time):
    """Also a short streak closes the valve for as long as a probe is under way."""
    valve = Valve(Prober(Image(VIDS[0], ImageState.COMPLETED)), patience=None, holds=False)
    assert valve.lets_through()
    streak = valve.failed(VIDS[0], ServerError("no"))
    assert valve.lets_through()
    looking = asyncio.create_task(valve.resolve(streak))
    await asyncio.sleep(0.5)
    assert (valve.lets_through(), streak.is_over) == (False, False)
    await looking
    assert (valve.lets_through(), streak.is_over, streak.is_outage) == (True, True, False)
    assert (valve.in_flight, valve.requests) == (2, 1)


async def test_ten_failures_in_a_row_close_the_valve(virtual_time):
    """Nine failures with nothing good among them say nothing yet; a good answer counts anew."""
    valve = Valve(Prober(), patience=None, holds=False)
    for _ in range(2):
        for _ in range(9):
            valve.failed(VIDS[0], ServerError("no"))
        assert valve.lets_through()
        valve.answered(VIDS[1])
    await fill(valve)
    assert not valve.lets_through()


@pytest.mark.parametrize("error", [ClientClosed("Closed."), InsufficientCredit("no", status=402)])
async def test_a_probe_that_ends_it_all(virtual_time, error):
    """A client that was closed ends a job, although another image was answered meanwhile."""
    valve = Valve(Prober(error), patience=None, holds=False)
    await fill(valve)
    feeder = asyncio.create_task(valve.wait_for_passage())
    await asyncio.sleep(0.5)
    valve.answered(VIDS[1])
    with pytest.raises(type(error)):
        await feeder


async def test_a_probe_whose_image_is_gone(virtual_time):
    """A server that says that there is no such image is well."""
    client = Prober(ImageNotFound("gone", status=404))
    valve = Valve(client, patience=None, holds=False)
    await fill(valve)
    await valve.wait_for_passage()
    assert (client.asked, valve.reason) == ([VIDS[0]], None)
    assert virtual_time < 2


async def test_another_feeder_goes_on_with_the_probes(virtual_time):
    """If the one that probes is cancelled, the next in line takes over."""
    client = Prober(ServerError("boom"), ServerError("boom"), Image(GOOD, ImageState.COMPLETED))
    valve = Valve(client, patience=None, holds=False)
    valve.answered(GOOD)
    valve.in_flight = 0
    await fill(valve)
    first, second = (asyncio.create_task(valve.wait_for_passage()) for _ in range(2))
    await asyncio.sleep(5)
    assert len(client.asked) == 1
    first.cancel()
    await second
    assert client.asked == [GOOD] * 3
    assert valve.reason is None


async def test_all_feeders_hear_why_it_is_no_use(virtual_time):
    """A probe that meets a refused token is sent once, and ends all who wait."""
    client = Prober(AuthenticationFailed("no", status=401))
    valve = Valve(client, patience=None, holds=False)
    await fill(valve)
    feeders = [asyncio.create_task(valve.wait_for_passage()) for _ in range(3)]
    results = await asyncio.gather(*feeders, return_exceptions=True)
    assert [type(result) for result in results] == [AuthenticationFailed] * 3
    assert len(client.asked) == 1


async def test_all_requests_of_a_probe_count(virtual_time):
    """A probe that succeeds at its second attempt took two requests."""
    api = FakeApi({VIDS[0]: [answer(503)]}, seconds=1)
    async with client_of(api) as client:
        valve = Valve(client, patience=None, holds=False)
        valve.seen(VIDS[0])
        await fill(valve)
        await valve.wait_for_passage()
    assert valve.requests == api.total == 2


async def test_good_news_while_the_valve_is_closed(virtual_time):
    """A late good answer gives a better id to probe with, and a new start to the patience."""
    client = Prober(*[ConnectionFailed("no") for _ in range(6)])
    valve = Valve(client, patience=30.0, holds=False)
    await valve.wait_for_passage()
    await fill(valve)
    feeder = asyncio.create_task(valve.wait_for_passage())
    await asyncio.sleep(15)
    valve.answered(LATE)
    with pytest.raises(JobError, match="No good answer from the API for 30 s"):
        await feeder
    assert client.asked == [VIDS[0]] * 2 + [LATE] * 4
    assert 45 <= virtual_time < 55


async def test_a_missing_image_is_a_good_probe(tmp_path, virtual_time):
    """A probe is good if the server is well, even if its image has gone meanwhile."""
    vids = VIDS[:300]
    api = FallibleApi(seconds=0.1, begin=0.15, end=60.0, fault=ConnectionFailed("No."))
    for vid in vids[:64]:
        api.answers[vid] = [record(vid), *[NOT_FOUND] * 20]
    report = await job(api, tmp_path / "out", vids)
    assert report.outcomes == {"image": 300}
    check_contract(vids, tmp_path / "out")


@pytest.mark.parametrize("seed", range(20))
def test_patience_ends_whatever_the_clock_says(seed):
    """Sums of times are rounded: the last probe comes at the end of patience, and is the last."""
    rng = random.Random(seed)
    begin, patience = rng.uniform(0, 100), rng.uniform(1, 100)
    client = Prober(*[ConnectionFailed("no") for _ in range(100)], seconds=0)

    async def give_up():
        await asyncio.sleep(begin)
        valve = Valve(client, patience=patience, holds=False)
        await fill(valve)
        with pytest.raises(JobError, match="No good answer from the API"):
            await valve.wait_for_passage()
        assert asyncio.get_running_loop().time() == pytest.approx(begin + patience, abs=0.01)

    run(Network(rng), give_up(), pytest.fail)
    assert len(client.asked) <= patience / 10 + 2
