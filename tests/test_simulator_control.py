"""
The simulator driven from another process: faults and counters over HTTP.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from kokoon_async.simulator import Html, Raw, RotateToken, Simulator, Status


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Give a running simulator in which every id has an image."""
    async with Simulator(images_on_demand=True) as simulator:
        yield simulator


@pytest.fixture
async def http(sim: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client of it."""
    headers = {"Authorization": "x"}
    origin = sim.base_url.removesuffix("/kokoon/api/image/sr/v3")
    async with aiohttp.ClientSession(origin, headers=headers) as session:
        yield session


async def call(
    http: aiohttp.ClientSession, method: str, path: str, **options: Any
) -> tuple[int, Any]:
    """Call one of the simulator's own endpoints."""
    async with http.request(method, path, **options) as response:
        return response.status, await response.json()


async def test_faults_can_be_planned(sim: Simulator, http: aiohttp.ClientSession) -> None:
    """Another process plans faults, sees which are still to come, and clears them."""
    order = {
        "vid": VID,
        "list": [{"kind": "status", "status": 503}, {"kind": "raw", "data": "\x00ÿ"}],
        "times": 2,
    }
    assert await call(http, "POST", "/__faults__", json=order) == (200, {"id": 1})
    order = {"list": [{"kind": "rotate_token", "token": "made-up"}]}
    assert await call(http, "POST", "/__faults__", json=order) == (200, {"id": 2})
    assert list(sim.unconsumed_faults) == [
        *[Status(503), Raw(b"\x00\xff")] * 2,
        RotateToken("made-up"),
    ]
    async with http.get(f"/kokoon/api/image/sr/v3/image/{VID}") as response:
        assert response.status == 503
    status, listed = await call(http, "GET", "/__faults__")
    assert status == 200
    raw = {"kind": "raw", "data": "\x00ÿ"}
    assert listed["unconsumed"] == [
        {"id": 1, "vid": VID, "step": raw},
        {
            "id": 1,
            "vid": VID,
            "step": {"kind": "status", "status": 503, "headers": {}, "body": None},
        },
        {"id": 1, "vid": VID, "step": raw},
        {"id": 2, "vid": None, "step": {"kind": "rotate_token", "token": "***"}},
    ]
    assert await call(http, "DELETE", "/__faults__") == (200, {"unconsumed": []})
    assert not sim.unconsumed_faults


async def test_ids_may_be_in_capitals(sim: Simulator, http: aiohttp.ClientSession) -> None:
    """A plan and a counter are for the image that clients ask for by that id."""
    order = {"vid": VID.upper(), "list": [{"kind": "status", "status": 503}]}
    assert await call(http, "POST", "/__faults__", json=order) == (200, {"id": 1})
    async with http.get(f"/kokoon/api/image/sr/v3/image/{VID}") as response:
        assert response.status == 503
    assert await call(http, "GET", f"/__stats__?vid={VID.upper()}") == (200, {"requests": 1})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("\xff", "decode"),
        ("[" * 200_000, "nested too deeply"),
        ("[]", "send an object such as"),
        ("{}", "list must be a list of steps"),
        ('{"list": {}}', "list must be a list"),
        ('{"list": []}', "at least one fault"),
        ('{"list": [{"kind": "html"}], "times": 0}', "at least once"),
        ('{"list": [{"kind": "html"}], "times": "2"}', "at least once"),
        ('{"list": [{"kind": "html"}], "times": 1e6}', "at least once"),
        ('{"list": [{"kind": "html"}], "times": 100001}', "at most 100000"),
        ('{"list": [{"kind": "html"}], "vid": 5}', "vid must be text or null"),
        ('{"list": [{"kind": "html"}], "scope": {}}', "unknown keys ['scope']"),
        ('{"list": [5]}', "a step must be an object"),
        ('{"list": [{}]}', "unknown kind of fault None: known are bomb, clock_skew"),
        ('{"list": [{"kind": "Status"}]}', "unknown kind of fault 'Status'"),
        ('{"list": [{"kind": ["html"]}]}', "unknown kind"),
        ('{"list": [{"kind": "status"}]}', "fault 'status': "),
        ('{"list": [{"kind": "html", "colour": 1}]}', "unexpected keyword argument 'colour'"),
        ('{"list": [{"kind": "drip", "bytes_per_second": -1}]}', "bytes_per_second must be"),
        ('{"list": [{"kind": "raw", "data": "€"}]}', "latin-1"),
        ('{"list": [{"kind": "raw", "data": 5}]}', "data must be bytes"),
        ('{"list": [{"kind": "latency", "seconds": NaN}]}', "seconds must be a finite number"),
    ],
    ids=range(24),
)
async def test_bad_plans_are_refused(
    sim: Simulator, http: aiohttp.ClientSession, body: str, message: str
) -> None:
    """A plan that cannot be read changes nothing, and the answer says why."""
    status, answer = await call(
        http,
        "POST",
        "/__faults__",
        data=body.encode("latin-1", "replace") if "€" not in body else body.encode(),
    )
    assert status == 400
    assert message in answer["message"]
    assert not sim.unconsumed_faults


async def test_huge_plans_are_refused(http: aiohttp.ClientSession) -> None:
    """More than a mebibyte is not even read to its end."""
    async with http.post("/__faults__", data=io.BytesIO(b" " * 2**21)) as response:
        assert response.status == 413


async def test_statistics(sim: Simulator, http: aiohttp.ClientSession) -> None:
    """The counters tell what was on the wire, without what drives the simulator."""
    sim.fault(Status(503), Status(503), Html())
    for _ in range(4):
        await (await http.get(f"/kokoon/api/image/sr/v3/image/{VID}")).read()
    await (await http.get("/elsewhere")).read()
    assert await call(http, "GET", "/__stats__") == (
        200,
        {
            "requests": 5,
            "images": 1,
            "statuses": {"200": 2, "404": 1, "503": 2},
            "faults": {"html": 1, "status": 2},
            "paths": {"/elsewhere": 1},
            "connections": 1,
            "unconsumed_faults": 0,
        },
    )
    for query, count in (
        (f"vid={VID}", 4),
        (f"path=/kokoon/api/image/sr/v3/image/{VID}", 4),
        ("path=/elsewhere", 1),
        ("vid=never", 0),
    ):
        assert await call(http, "GET", f"/__stats__?{query}") == (200, {"requests": count})
    status, answer = await call(http, "GET", "/__stats__?vid=a&path=b")
    assert (status, answer) == (400, {"message": "count by vid or by path, not both"})
    assert sim.request_count() == 5


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/__faults__", "POST, GET, DELETE"), ("POST", "/__stats__", "GET")],
)
async def test_other_methods_are_refused(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    """The answer to a wrong method names the right ones."""
    async with http.request(method, path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert allowed in (await response.json())["message"]


@pytest.mark.fault("F-125")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_web_pages_cannot_drive_it(
    sim: Simulator, http: aiohttp.ClientSession, method: str
) -> None:
    """A page in a browser on the same machine can send requests to loopback, but says so."""
    sim.fault(Html())
    body = json.dumps({"list": [{"kind": "html"}]})
    headers = {"Origin": "https://evil.example"}
    status, _ = await call(http, method, "/__faults__", data=body, headers=headers)
    assert status == 403
    assert list(sim.unconsumed_faults) == [Html()]
