"""
Thousands of requests: nothing grows with them, and none of them keeps the event loop busy.

Where the time matters it is the processor's, or the best of several tries.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import attrs
import looptime
import pytest

from kokoon_async import Fixed, KokoonClient, Limits, RequestTimedOut, Timeouts
from kokoon_async.jobs import fetch_statuses

from . import loop_watch
from .bulk_api import FakeApi, heavy, make_vids
from .bulk_api import client_of as job_client_of
from .bulk_contract import check_contract
from .fakes import FakeSend, make_line, make_vid, outcome
from .loop_watch import watching_the_loop
from .memory_network import Network, run
from .raw_server import http_response, record_response


ROUNDS = 10
WARM_UP = 3  # rounds, after which all caches are full
MOST_SECONDS = 0.05
TRIES = 3  # something else may have had the processor, and what takes long does so each time

_VID = re.compile(rb"GET /image/(\S+)")
_ANY = "VID" * 12
_RECORDS = [record_response(_ANY, state=state) for state in ("completed", "processing")]


class Served(asyncio.Protocol):
    """Answer requests at once, one in ten of them badly."""

    counts: ClassVar[Counter[str]] = Counter()
    transport: Any

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self.received += data
        *requests, self.received = self.received.split(b"\r\n\r\n")
        for request in requests:
            found = _VID.match(request)
            assert found is not None
            self.answer(found[1])

    def answer(self, vid: bytes) -> None:
        """Answer one request."""
        self.counts["requests"] += 1
        kind = self.counts["requests"] % 100
        bad: dict[int, bytes] = {
            7: http_response(503, b"<p>later</p>"),
            17: http_response(404, b'{"message": "fail to get result."}'),
            27: http_response(401, b"{}"),
            37: http_response(429, b"{}", headers={"Retry-After": "0"}),
            47: record_response(make_vid(0)),
            57: _RECORDS[0][:300],
            67: b"no http\r\n\r\n",
            77: b"",
        }
        good = _RECORDS[kind % 2].replace(_ANY.encode(), vid)
        self.transport.write(bad.get(kind, good))
        if kind in (57, 67, 77):
            self.counts["hang-ups"] += 1
            self.transport.close()


@attrs.frozen
class Measure:
    """What a process has of things that may leak."""

    tasks: int
    connections: int
    objects: int
    blocks: int
    calls: int
    waits: int


async def measure(network: Network, client: KokoonClient) -> Measure:
    """Count, when all that is idle is closed."""
    await asyncio.sleep(60)
    gc.collect()
    return Measure(
        len(asyncio.all_tasks()),
        network.open_ends,
        len(gc.get_objects()),
        sys.getallocatedblocks(),
        len(client._calls._calls),
        len(client._scheduler),
    )


async def use(client: KokoonClient, requests: int) -> None:
    """Call everything, until there were about so many requests; some of it is cancelled."""
    aim = Served.counts["requests"] + requests
    while Served.counts["requests"] < aim:
        vids = [make_vid(number) for number in range(1, 101)]
        async with client.get_images(vids) as outcomes:
            async for each in outcomes:
                Served.counts["good" if each.ok else "bad"] += 1
        async with client.wait_many(vids[:30], timeout=100.0) as outcomes:
            async for each in outcomes:
                Served.counts["good" if each.ok else "bad"] += 1
        late = [asyncio.ensure_future(outcome(client.get_image(vid))) for vid in vids[:20]]
        await asyncio.sleep(0.001)
        for call in late[::2]:
            call.cancel()
        await asyncio.wait(late)
        Served.counts["cancelled"] += sum(call.cancelled() for call in late)


async def live(network: Network, requests: int) -> list[Measure]:
    """Use a client in rounds, and measure after each."""
    tokens = 0

    async def provide() -> str:
        nonlocal tokens
        tokens += 1
        return f"token {tokens}"

    Served.counts.clear()
    server = await asyncio.get_running_loop().create_server(Served, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits, poll = Limits(max_in_flight=20), Fixed(2.0)
    measures = []
    async with KokoonClient(provide, base_url=base_url, limits=limits, poll=poll) as client:
        for _ in range(ROUNDS):
            await use(client, requests // ROUNDS)
            measures.append(await measure(network, client))
    server.close()
    assert Served.counts["requests"] >= requests
    assert Served.counts["hang-ups"] > requests / 50
    assert tokens > requests / 200
    assert min(Served.counts["good"], Served.counts["bad"], Served.counts["cancelled"]) > 5
    return measures


@pytest.mark.parametrize("requests", [3_000, pytest.param(20_000, marks=heavy)])
@pytest.mark.unmeasured
def test_thousands_of_requests_leave_nothing(quiet: None, requests: int) -> None:
    """G21: tasks, connections, objects and memory are as much as they were after a while."""
    network = Network(random.Random(0), delay=0.001, cuts=0.1)
    measures = run(network, live(network, requests), pytest.fail)
    first, last = measures[WARM_UP - 1], measures[-1]
    assert (last.tasks, last.connections, last.calls, last.waits) == (1, 0, 0, 0)
    # One object a round is the measure; and one block in twenty requests would be a leak.
    assert last.objects - first.objects <= 2 * ROUNDS, measures
    assert last.blocks - first.blocks <= requests / 20, measures


@pytest.mark.unmeasured
def test_no_callback_takes_long(quiet: None) -> None:
    """G13: nothing that requests, waits and streams do keeps the event loop busy for 50 ms."""
    for _ in range(TRIES):
        network = Network(random.Random(0), delay=0.001, cuts=0.1)
        with watching_the_loop() as watch:
            run(network, live(network, 1_000), pytest.fail)
        if watch.longest < MOST_SECONDS:
            return
    pytest.fail(f"{watch.culprit} took {watch.longest} s")


@pytest.mark.unmeasured
async def test_a_job_leaves_the_loop_alone(quiet: None, tmp_path: Path) -> None:
    """G13: what a job writes, sorts and joins, it does in threads, or in less than 50 ms."""
    vids = make_vids(2_000)
    for number in range(TRIES):
        out = tmp_path / f"{number}.csv"
        async with job_client_of(FakeApi()) as client:
            with watching_the_loop() as watch:
                await fetch_statuses(client, vids, out, shard_size=1_000)
        check_contract(vids, out)
        assert watch.callbacks > len(vids)
        if watch.longest < MOST_SECONDS:
            return
    pytest.fail(f"{watch.culprit} took {watch.longest} s")


async def test_a_deadline_is_kept_on_a_busy_day() -> None:
    """G12: of a hundred calls whose time is over together, none ends 50 ms after a plain timer."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def lateness() -> float:
        send = FakeSend(lambda request, n: forever())
        limits = Limits(max_in_flight=None)
        line = make_line(send, timeouts=Timeouts(total=0.04), limits=limits)
        loop = asyncio.get_running_loop()
        ends = []

        async def call(number: int) -> None:
            error = await outcome(line.pipeline.fetch(make_vid(number)))
            assert type(error) is RequestTimedOut
            ends.append(loop.time())

        async def plain_timer() -> float:
            await asyncio.sleep(0.04)
            return loop.time()

        *_, fired = await asyncio.gather(*[call(number) for number in range(100)], plain_timer())
        return max(ends) - float(fired or 0)

    assert min([await lateness() for _ in range(TRIES)]) < MOST_SECONDS


@pytest.mark.parametrize("is_virtual", [True, False])
def test_a_long_wait_is_noticed(
    no_long_wait: list[float], monkeypatch: pytest.MonkeyPatch, is_virtual: bool
) -> None:
    """G20: the fixture that every test has tells a real wait from one in virtual time."""
    monkeypatch.setattr(loop_watch, "MOST_WAITED", 0.02)
    loop = asyncio.SelectorEventLoop()
    if is_virtual:
        looptime.patch_event_loop(loop)
    loop.run_until_complete(asyncio.sleep(0.03))
    loop.close()
    assert len(no_long_wait) == (not is_virtual)
    no_long_wait.clear()
