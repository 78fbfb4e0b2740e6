"""Many ids under mixed faults: none lost, none twice, none wrong."""

from __future__ import annotations

import asyncio
import random

import pytest

from kokoon_async import ConnectionFailed, KokoonClient, ProtocolError
from kokoon_async.jobs import fetch_statuses
from kokoon_async.simulator import (
    Drip,
    ExtraResponse,
    Fin,
    Hold,
    Html,
    Latency,
    Message,
    Reset,
    Simulator,
    Slice,
    Status,
    Truncate,
    WrongVid,
)

from .bulk_api import NOT_FOUND, FakeApi, answer, client_of, heavy, make_vids, record
from .bulk_contract import check_contract
from .canary import CANARY_TOKEN


SHARE = 0.1


def make_faults(rng, vid):
    """Give one of the faults that an API in memory can have."""

    async def hang():
        await asyncio.sleep(1000)

    return rng.choice(
        [
            ConnectionFailed("Refused."),
            ProtocolError("Torn."),
            hang,
            answer(500, {"message": "boom"}),
            answer(502, b"<html>Bad gateway</html>"),
            answer(503, b"", Retry_After="1"),
            answer(429, {"message": "slow down"}, Retry_After="1"),
            answer(429, {"message": "slow down"}),
            answer(408, b""),
            answer(200, b"<html>Log in</html>"),
            answer(200, b'{"vid": "'),
            answer(200, b""),
            answer(200, {"message": "who knows"}),
            answer(404, b"<html>Not here</html>"),
            answer(302, b"", Location="https://elsewhere.example/"),
            record("00000000-0000-4000-8000-000000000000"),
        ]
    )


async def run_with_faults(out, count, seed):
    """Run a job of so many ids, one in ten of whose requests fail, and check what comes of it."""
    rng = random.Random(seed)
    vids = make_vids(count, seed=seed)
    missing = set(rng.sample(vids, count // 50))
    given = [*vids, *rng.sample(vids, count // 20), *(f"nonsense {n}" for n in range(count // 100))]
    rng.shuffle(given)

    def ask(vid):
        if rng.random() < SHARE:
            return make_faults(rng, vid)
        return NOT_FOUND if vid in missing else record(vid)

    api = FakeApi(default=ask, seconds=0.05)
    async with client_of(api) as client:
        report = await fetch_statuses(client, given, out)
    rows = check_contract(given, out)
    assert {row["vid"] for row in rows if row["outcome"] == "not_found"} == missing
    assert report.outcomes == {
        "image": count - len(missing),
        "not_found": len(missing),
        "invalid": count // 100,
    }
    assert report.requests == api.total
    assert api.total < 1.3 * count


@pytest.mark.fault("F-90")
@pytest.mark.fault("F-53")
@pytest.mark.unmeasured
async def test_mixed_faults(tmp_path, virtual_time):
    """G2, the small version: 8,000 ids of which one request in ten fails."""
    await run_with_faults(tmp_path / "out.jsonl", 8_000, seed=1)


@heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [100_000, 1_000_000])
async def test_mixed_faults_on_many_ids(tmp_path, virtual_time, count, seed):
    """G2: so many ids of which one request in ten fails."""
    await run_with_faults(tmp_path / "out.jsonl", count, seed=seed)


def wire_faults(rng, other):
    """Give one or more faults that only a real connection can have."""
    harmless = [
        Hold(at=rng.randrange(600), seconds=5),
        Latency(seconds=20),
        Drip(bytes_per_second=200),
        Slice(size=50),
        ExtraResponse(delay=0.01, vid=other),
    ]
    harmful = [
        Reset(),
        Reset(at="headers"),
        Reset(at=rng.randrange(600)),
        Fin(),
        Fin(at=rng.randrange(600)),
        Hold(),
        Status(rng.choice([500, 502, 503, 429, 408, 999])),
        Status(503, headers={"Retry-After": "1"}),
        Html(),
        Message("a word in your ear"),
        Truncate(size=100),
        Truncate(size=100, encoding="gzip"),
        WrongVid(other),
    ]
    # A harmless one is the last that its image meets.
    return [*rng.choice([[], [rng.choice(harmful)]]), rng.choice(harmful + harmless)]


async def run_on_wire(out, count, seed):
    """Do the same against the simulator: one id in ten meets faults of the wire."""
    rng = random.Random(seed)
    vids = make_vids(count, seed=seed)
    async with Simulator(images_on_demand=True, strict=True, latency=0.01) as simulator:
        for vid in rng.sample(vids, round(count * SHARE)):
            simulator.fault(*wire_faults(rng, rng.choice(vids)), vid=vid)
        async with KokoonClient(CANARY_TOKEN, base_url=simulator.base_url) as client:
            report = await fetch_statuses(client, vids, out)
    check_contract(vids, out)
    assert report.outcomes == {"image": count}


@pytest.mark.unmeasured
async def test_faults_of_the_wire(tmp_path, virtual_time):
    """G2, the small version on real connections."""
    await run_on_wire(tmp_path / "out.jsonl", 1_000, seed=1)


@heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
async def test_faults_of_the_wire_on_many_ids(tmp_path, virtual_time, seed):
    """G2 on real connections."""
    await run_on_wire(tmp_path / "out.jsonl", 20_000, seed=seed)
