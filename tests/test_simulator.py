"""
The simulator as a server: its life, its answers without faults, and its log.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from kokoon_async.simulator import (
    Constant,
    Html,
    Latency,
    LoggedRequest,
    ManualClock,
    Simulator,
    Slice,
    Status,
    UnconsumedFaults,
)
from kokoon_async.simulator._listener import loopback_address


TOKEN = "made-up"
HEADERS = {"Authorization": TOKEN}
UNKNOWN_VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that sends a token."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield session


async def get(
    http: aiohttp.ClientSession, sim: Simulator, vid: str, **options: Any
) -> tuple[int, Any, Any]:
    """Ask for an image; return status, decoded body and headers."""
    async with http.get(f"{sim.base_url}/image/{vid}", **options) as response:
        return response.status, await response.json(), response.headers


async def exchange(sim: Simulator, request: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def port_of(sim: Simulator) -> int:
    """Give the simulator's port."""
    return int(sim.base_url.split(":")[2].partition("/")[0])


# --- life -----------------------------------------------------------------------------------------


async def test_serves_between_enter_and_exit(http: aiohttp.ClientSession) -> None:
    """It has a URL and answers inside the block only, and leaves no task behind."""
    async with Simulator() as sim:
        url = sim.base_url
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/kokoon/api/image/sr/v3")
        vid = sim.add_image("completed")
        status, record, headers = await get(http, sim, vid)
        assert (status, record["vid"], record["state"]) == (200, vid, "completed")
        assert headers["Content-Type"] == "application/json; charset=utf-8"
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get(f"{url}/image/{vid}")


async def test_base_url_exists_only_while_it_runs() -> None:
    """Asking for the URL too early or too late says what to do."""
    sim = Simulator()
    with pytest.raises(RuntimeError, match="async with Simulator"):
        _ = sim.base_url
    async with sim:
        assert sim.base_url
    with pytest.raises(RuntimeError, match="not running"):
        _ = sim.base_url


async def test_starts_once() -> None:
    """A second start is refused, while it runs and when it is over."""
    sim = Simulator()
    await sim.start()
    with pytest.raises(RuntimeError, match="only once"):
        await sim.start()
    await sim.aclose()
    with pytest.raises(RuntimeError, match="only once"):
        await sim.start()


async def test_closes_as_often_as_one_likes() -> None:
    """Closing twice, or without a start, is no harm."""
    sim = Simulator()
    await sim.aclose()
    sim = Simulator()
    await sim.start()
    await sim.aclose()
    await sim.aclose()


async def test_taken_port_is_an_error() -> None:
    """A port that somebody else has is the system's own error, and nothing is left open."""
    async with Simulator() as sim:
        second = Simulator(port=port_of(sim))
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.aclose()


async def test_stops_with_a_client_connected() -> None:
    """Idle connections, and such as were just accepted, do not outlive the simulator."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        idle_writer.write(f"GET /x/{vid} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await idle.readline()).startswith(b"HTTP/1.1 404")
        with socket.create_connection(("127.0.0.1", port_of(sim))):
            await sim.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await idle.read()
        assert idle.at_eof()
        idle_writer.close()
        await idle_writer.wait_closed()


@pytest.mark.parametrize("turns", range(6))
async def test_start_can_be_cancelled(turns: int) -> None:
    """A simulator that is cancelled while it starts leaves no socket behind."""
    sim = Simulator()
    starting = asyncio.create_task(sim.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await sim.aclose()


@pytest.mark.parametrize("turns", range(10))
async def test_stop_can_be_cancelled(turns: int) -> None:
    """A simulator that is cancelled while it stops has dropped its connections nevertheless."""
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readline()
        stopping = asyncio.create_task(sim.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
        if turns:
            await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_images_can_be_added_before_it_starts(http: aiohttp.ClientSession) -> None:
    """Time begins when the simulator starts, and the constructor can add images."""
    sim = Simulator(durations=Constant(0.0), images=2)
    vid = sim.add_image("completed")
    async with sim:
        status, record, _ = await get(http, sim, vid)
    assert (status, record["state"]) == (200, "completed")
    assert len(sim._images._images) == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_loopback_hosts_are_taken(host: str) -> None:
    """Any spelling of this machine will do."""
    assert loopback_address(host) in {host, "127.0.0.1"}


@pytest.mark.fault("F-125")
@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "::", "192.168.1.1", "example.com", "::ffff:127.0.0.1", "127.1"]
)
def test_other_hosts_are_refused(host: str) -> None:
    """The simulator cannot be opened to the network."""
    with pytest.raises(ValueError, match="loopback"):
        Simulator(host=host)


@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_other_loopback_hosts_work(http: aiohttp.ClientSession, host: str) -> None:
    """The base URL leads to the simulator also by name and over IPv6."""
    async with Simulator(host=host) as sim:
        assert sim.base_url.startswith(f"http://[{host}]:" if ":" in host else f"http://{host}:")
        assert (await get(http, sim, sim.add_image("completed")))[0] == 200


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("latency", -1.0),
        ("latency", float("nan")),
        ("missing_status", 100),
        ("missing_status", 1000),
        ("missing_status", True),
        ("requests_per_second", 0.0),
        ("log_limit", -1),
        ("speed", 0.0),
        ("failure_rate", 2.0),
    ],
)
def test_nonsense_is_refused(argument: str, value: object) -> None:
    """An argument that makes no sense is named at once."""
    with pytest.raises(ValueError, match=argument):
        Simulator(**{argument: value})  # type: ignore[arg-type]


def test_own_clock_has_its_own_speed() -> None:
    """A speed for a clock that was given would be ignored silently, so it is refused."""
    with pytest.raises(ValueError, match="a clock or a speed"):
        Simulator(clock=ManualClock(), speed=2.0)


# --- unmet faults ---------------------------------------------------------------------------------


@pytest.mark.fault("F-127")
async def test_strict_names_unmet_faults() -> None:
    """With *strict*, a fault that never struck fails the test and is named."""
    sim = Simulator(strict=True)
    sim.fault(Status(503))
    sim.fault(Html(), vid="abc")
    with pytest.raises(UnconsumedFaults, match=r"2 planned.*\n.*503.*any request\n.*Html.*abc"):
        async with sim:
            pass
    assert isinstance(UnconsumedFaults("x"), AssertionError)


async def test_strict_lets_other_exceptions_pass() -> None:
    """An exception from the block says more than its unmet faults."""
    sim = Simulator(strict=True)
    sim.fault(Status(503))
    with pytest.raises(KeyError):
        async with sim:
            raise KeyError
    async with Simulator(strict=True):
        pass


async def test_unmet_faults_are_only_reported_by_default() -> None:
    """Without *strict* they can be read, also when it is over."""
    async with Simulator() as sim:
        sim.fault(Status(503), Html(), times=2)
    assert sim.unconsumed_faults == (Status(503), Html()) * 2
    sim.clear_faults()
    assert not sim.unconsumed_faults


# --- answers --------------------------------------------------------------------------------------


async def test_looks_move_an_image_on(http: aiohttp.ClientSession) -> None:
    """Each whole answer counts as one look."""
    async with Simulator() as sim:
        vid = sim.add_image("pending*2 processing completed")
        states = [(await get(http, sim, vid))[1]["state"] for _ in range(5)]
    assert states == ["pending", "pending", "processing", "completed", "completed"]


@pytest.mark.looptime
async def test_time_moves_an_image_on(http: aiohttp.ClientSession) -> None:
    """Under virtual time the image, its record and the Date header agree on the time."""
    async with Simulator() as sim:
        created = sim.now()
        vid = sim.add_image(duration=3600.0)
        await asyncio.sleep(3599)
        assert (await get(http, sim, vid))[1]["state"] == "processing"
        await asyncio.sleep(1)
        _, record, headers = await get(http, sim, vid)
        assert record["state"] == "completed"
        assert sim.now() - created == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=0.01))
        date = parsedate_to_datetime(headers["Date"])
        assert timedelta(0) <= sim.now() - date < timedelta(seconds=1.01)
        assert record["created_time"][:19] == created.isoformat()[:19]


@pytest.mark.looptime
async def test_speed_lets_time_fly(http: aiohttp.ClientSession) -> None:
    """With a speed of 60, a minute of the server passes in each second of the loop."""
    async with Simulator(speed=60.0) as sim:
        vid = sim.add_image(duration=600.0)
        await asyncio.sleep(9.9)
        assert (await get(http, sim, vid))[1]["state"] == "processing"
        await asyncio.sleep(0.1)
        assert (await get(http, sim, vid))[1]["state"] == "completed"


@pytest.mark.parametrize("status", [404, 200, 500])
async def test_missing_image_says_so(http: aiohttp.ClientSession, status: int) -> None:
    """An unknown or forgotten image is the documented message, with the status of choice."""
    async with Simulator(missing_status=status) as sim:
        vid = sim.add_image("completed")
        sim.forget(vid)
        for missing in (vid, UNKNOWN_VID, "no-uuid"):
            answer = await get(http, sim, missing)
            assert answer[:2] == (status, {"message": "fail to get result."})


async def test_images_on_demand_are_served(http: aiohttp.ClientSession) -> None:
    """Any canonical id is answered with a record of its own."""
    async with Simulator(images_on_demand=True, durations=Constant(0.0)) as sim:
        status, record, _ = await get(http, sim, UNKNOWN_VID)
        assert (status, record["vid"], record["state"]) == (200, UNKNOWN_VID, "completed")
        assert (await get(http, sim, UNKNOWN_VID.upper()))[0] == 404


@pytest.mark.parametrize(
    ("accepted", "sent", "status"),
    [
        (None, "anything", 200),
        (None, "", 401),
        (None, None, 401),
        ("right", "right", 200),
        ("right", "wrong", 401),
        ("right", "Bearer right", 401),
        ("right", None, 401),
    ],
)
async def test_token_is_checked(accepted: str | None, sent: str | None, status: int) -> None:
    """Without a token of its own any text will do; else it has to be that very text."""
    headers = {} if sent is None else {"Authorization": sent}
    async with Simulator(token=accepted) as sim, aiohttp.ClientSession() as http:
        vid = sim.add_image("completed")
        got, body, _ = await get(http, sim, vid, headers=headers)
        assert got == status
        assert (body == {"message": "unauthorized"}) is (status == 401)


async def test_rotated_token_invalidates_the_old_one(http: aiohttp.ClientSession) -> None:
    """After a rotation only the new token is taken."""
    async with Simulator(token=TOKEN) as sim:
        vid = sim.add_image("completed")
        assert (await get(http, sim, vid))[0] == 200
        sim.rotate_token("new")
        assert (await get(http, sim, vid))[0] == 401
        assert (await get(http, sim, vid, headers={"Authorization": "new"}))[0] == 200


@pytest.mark.looptime
async def test_too_many_requests_are_turned_away(http: aiohttp.ClientSession) -> None:
    """Beyond the rate the answer is 429, and waiting as told is enough."""
    async with Simulator(requests_per_second=0.4) as sim:
        vid = sim.add_image("pending completed")
        assert (await get(http, sim, vid))[0] == 200
        status, body, headers = await get(http, sim, vid)
        assert (status, body) == (429, {"message": "too many requests"})
        assert headers["Retry-After"] == "3"
        await asyncio.sleep(3)
        status, record, _ = await get(http, sim, vid)
        assert (status, record["state"]) == (200, "completed")


@pytest.mark.looptime
async def test_latency_comes_before_every_answer(http: aiohttp.ClientSession) -> None:
    """All answers are late by the latency; the log knows when the request came."""
    async with Simulator(latency=2.5) as sim:
        vid = sim.add_image("completed")
        loop = asyncio.get_running_loop()
        start = loop.time()
        await get(http, sim, vid)
        await get(http, sim, vid)
        assert loop.time() - start == pytest.approx(5.0)
        times = [request.time for request in sim.requests]
        assert times == pytest.approx([start, start + 2.5])


@pytest.mark.parametrize(
    "path", ["/", "/image/x", "/kokoon/api/image/sr/v3/image/", "BASE/image/a/b"]
)
async def test_other_paths_are_not_the_api(http: aiohttp.ClientSession, path: str) -> None:
    """A path that the simulator does not serve is plain text, so that nobody takes it for a record."""
    async with Simulator() as sim:
        path = path.replace("BASE", "/kokoon/api/image/sr/v3")
        async with http.get(f"http://127.0.0.1:{port_of(sim)}{path}") as response:
            assert response.status == 404
            assert response.content_type == "text/plain"
        assert sim.request_count(path=path) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_images_are_only_read(http: aiohttp.ClientSession, method: str) -> None:
    """Any method but GET is refused, and the connection stays usable."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        async with http.request(method, f"{sim.base_url}/image/{vid}") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
            assert bool(await response.read()) is (method != "HEAD")
        assert (await get(http, sim, vid))[0] == 200
        assert sim.connection_count == 1


@pytest.mark.fault("F-125")
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:PORT", True),
        ("localhost:PORT", True),
        ("LocalHost", True),
        ("[::1]:PORT", True),
        ("evil.example:PORT", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1:1", False),
        ("", False),
    ],
)
async def test_host_header_must_name_this_machine(
    http: aiohttp.ClientSession, host: str, allowed: bool
) -> None:
    """A domain that an attacker points at loopback is answered with 403 and nothing else."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        headers = {"Host": host.replace("PORT", str(port_of(sim)))}
        for path in (f"/kokoon/api/image/sr/v3/image/{vid}", "/__stats__"):
            url = f"http://127.0.0.1:{port_of(sim)}{path}"
            async with http.get(url, headers=headers) as response:
                assert response.status == (200 if allowed else 403)
        assert sim.request_count() == int(allowed)


@pytest.mark.parametrize(
    "request_line", ["GET PATH HTTP/1.0\r\n", "GET PATH HTTP/1.1\r\nConnection: close\r\n"]
)
async def test_connection_closes_when_the_client_wants(request_line: str) -> None:
    """Old clients, and such as say so, see the connection end after the answer."""
    async with Simulator() as sim:
        path = f"/kokoon/api/image/sr/v3/image/{sim.add_image('completed')}"
        head = f"{request_line.replace('PATH', path)}Host: localhost\r\nAuthorization: x\r\n\r\n"
        answer = await exchange(sim, head.encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"}")


async def test_request_without_host_is_refused() -> None:
    """HTTP/1.0 clients may leave the Host header out; they are not served."""
    async with Simulator() as sim:
        answer = await exchange(sim, b"GET / HTTP/1.0\r\n\r\n")
    assert b" 403 " in answer.partition(b"\r\n")[0]


@pytest.mark.looptime
async def test_idle_connections_end() -> None:
    """A connection is closed when nothing was asked for the keep-alive time."""
    async with Simulator(keepalive_timeout=30.0) as sim:
        loop = asyncio.get_running_loop()
        start = loop.time()
        # Without a request before, aiohttp closes it from 3.14.4 on only.
        assert await exchange(sim, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert loop.time() - start == pytest.approx(30, abs=1)


async def test_client_that_vanishes_meanwhile_does_no_harm() -> None:
    """When the connection breaks while the answer is made, the look and the fault do not count."""
    sim = Simulator(images_on_demand=True)

    class Vanishing:
        def sample(self, rng: object, /) -> float:
            """Break all connections in the middle of a request."""
            server = sim._listener._server
            assert server is not None
            for transport in server._transports.values():
                transport.abort()
            return 1.0

    sim._images._durations = Vanishing()
    async with sim:
        sim.fault(Slice(10))
        head = f"GET /kokoon/api/image/sr/v3/image/{UNKNOWN_VID} HTTP/1.1\r\n"
        assert (
            await exchange(sim, f"{head}Host: localhost\r\nAuthorization: x\r\n\r\n".encode())
            == b""
        )
        assert [request.status for request in sim.requests] == [None]
        assert sim.unconsumed_faults == (Slice(10),)


# --- log ------------------------------------------------------------------------------------------


async def test_requests_are_logged(http: aiohttp.ClientSession) -> None:
    """The log tells what came and what was answered, with the token hidden."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        await get(http, sim, vid, headers={"X-Attempt": "1", "Cookie": "a=b"})
        sim.fault(Status(503))
        await get(http, sim, UNKNOWN_VID, params={"a": "b"}, headers={"Authorization": ""})
        first, second = sim.requests
    assert isinstance(first, LoggedRequest)
    assert first.time <= second.time <= asyncio.get_running_loop().time()
    assert (first.method, first.vid, first.status, first.fault) == ("GET", vid, 200, None)
    assert first.path == f"/kokoon/api/image/sr/v3/image/{vid}"
    assert (first.headers["x-attempt"], first.headers["AUTHORIZATION"]) == ("1", "***")
    assert first.headers["Cookie"] == "***"
    assert TOKEN not in repr(first)
    assert (second.vid, second.status, second.fault) == (UNKNOWN_VID, 503, "status")
    assert (second.query, second.headers["Authorization"]) == ("a=b", "")
    assert first.client_port == second.client_port > 0


async def test_requests_are_counted(http: aiohttp.ClientSession) -> None:
    """Counters know every request, by image and by path; the log only the last ones."""
    async with Simulator(log_limit=2) as sim:
        vid = sim.add_image("completed")
        path = f"/kokoon/api/image/sr/v3/image/{vid}"
        for _ in range(4):
            await get(http, sim, vid)
        await get(http, sim, UNKNOWN_VID)
        assert [request.vid for request in sim.requests] == [vid, UNKNOWN_VID]
        assert (sim.request_count(), sim.request_count(vid)) == (5, 4)
        assert (sim.request_count(path=path), sim.request_count("never")) == (4, 0)
        assert sim.request_count(path="/never") == 0
        with pytest.raises(ValueError, match="not both"):
            sim.request_count(vid, path)


async def test_connections_are_counted(http: aiohttp.ClientSession) -> None:
    """A test can see whether a connection was used again."""
    sim = Simulator()
    assert sim.connection_count == 0
    async with sim:
        vid = sim.add_image("completed")
        for _ in range(3):
            await get(http, sim, vid)
        assert sim.connection_count == 1
        await get(http, sim, vid, headers={"Connection": "close"})
        await get(http, sim, vid)
        assert sim.connection_count == 2
        ports = [request.client_port for request in sim.requests]
        assert len(set(ports)) == 2


@pytest.mark.looptime
async def test_request_is_in_the_log_before_its_answer(http: aiohttp.ClientSession) -> None:
    """While an answer is held back, its request is logged without a status."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        sim.fault(Latency(10.0))
        task = asyncio.create_task(get(http, sim, vid))
        await asyncio.sleep(5)
        assert [(each.status, each.fault) for each in sim.requests] == [(None, "latency")]
        await task
        assert [(each.status, each.fault) for each in sim.requests] == [(200, "latency")]
