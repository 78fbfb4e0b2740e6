"""
What each fault does, seen in the raw bytes on a plain socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, Self

import attrs
import pytest

from kokoon_async.simulator import (
    Bomb,
    ClockSkew,
    Drip,
    ExtraResponse,
    Fault,
    Fin,
    Hold,
    Html,
    Latency,
    ManualClock,
    Message,
    Raw,
    Redirect,
    Regress,
    Reset,
    RotateToken,
    Simulator,
    Slice,
    Status,
    Truncate,
    UnknownState,
    WrongVid,
)


_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


@attrs.frozen
class Parts:
    """One answer, taken apart."""

    head: bytes
    body: bytes

    @property
    def status(self) -> bytes:
        """The status line."""
        return self.head.partition(b"\r\n")[0]

    @property
    def record(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Give a header's value; its name must be spelled as it was sent."""
        match = re.search(rf"\r\n{name}: (.*?)\r\n".encode(), self.head)
        return match and match[1].decode()


class Peer:
    """A client on a plain socket, which sees every byte."""

    def __init__(self, sim: Simulator, vid: str) -> None:
        self.sim = sim
        self.vid = vid

    async def __aenter__(self) -> Self:
        port = int(self.sim.base_url.split(":")[2].partition("/")[0])
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def ask(self, *, vid: str | None = None, token: str = "x", method: str = "GET") -> None:
        """Send a request."""
        path = f"/kokoon/api/image/sr/v3/image/{vid or self.vid}"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n"
        self.writer.write(head.encode())

    async def read_answer(self) -> Parts:
        """Read one answer with a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return Parts(head, await self.reader.readexactly(int(length[1])) if length else b"")

    async def get(self, **options: Any) -> Parts:
        """Send a request and read its answer."""
        self.ask(**options)
        return await self.read_answer()

    async def read_to_end(self) -> tuple[bytes, bool]:
        """Read until the connection ends; tell whether a reset ended it."""
        received = bytearray()
        try:
            while data := await self.reader.read(65536):
                received += data
        except ConnectionResetError:
            # asyncio's reader drops what it holds when an error comes: take it out by hand.
            received += self.reader._buffer  # type: ignore[attr-defined]
            return bytes(received), True
        return bytes(received), False


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Give a running simulator that fails the test if a fault did not strike."""
    async with Simulator(strict=True, clock=ManualClock()) as simulator:
        yield simulator


@pytest.fixture
def vid(sim: Simulator) -> str:
    """Give a completed image."""
    return sim.add_image("completed")


@pytest.fixture
async def peer(sim: Simulator, vid: str) -> AsyncIterator[Peer]:
    """Give a connection to ask for that image."""
    async with Peer(sim, vid) as connected:
        yield connected


def whole(sim: Simulator, vid: str) -> bytes:
    """Give the bytes of the ordinary answer."""
    body = json.dumps(sim.record(vid), separators=(",", ":")).encode()
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Date: Thu, 01 Feb 2024 12:00:00 GMT\r\n"
        "Server: kokoon-simulator\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_ordinary_answer(sim: Simulator, peer: Peer, vid: str) -> None:
    """Without a fault the bytes are as they should be."""
    answer = await peer.get()
    assert answer.head + answer.body == whole(sim, vid)


def unmet(sim: Simulator) -> list[Fault]:
    """List the faults that are still to come."""
    return list(sim.unconsumed_faults)


# --- planning -------------------------------------------------------------------------------------


async def test_faults_strike_one_by_one(sim: Simulator, peer: Peer, vid: str) -> None:
    """Several faults are met in order, the whole list so many times, and then no more."""
    sim.fault(Status(503), Status(502), vid=vid, times=2)
    assert unmet(sim) == list((Status(503), Status(502)) * 2)
    seen = [(await peer.get()).status.split()[1] for _ in range(5)]
    assert seen == [b"503", b"502", b"503", b"502", b"200"]
    assert unmet(sim) == []
    assert [request.fault for request in sim.requests] == ["status"] * 4 + [None]


async def test_faults_wait_for_their_image(sim: Simulator, peer: Peer, vid: str) -> None:
    """A fault for one image spares the others; its own faults come before those for any request."""
    other = sim.add_image("completed")
    sim.fault(Status(500))
    sim.fault(Status(502), vid=vid)
    sim.fault(Status(503), vid=vid)
    asked = [vid, other, other, vid, vid]
    seen = [(await peer.get(vid=each)).status.split()[1] for each in asked]
    assert seen == [b"502", b"500", b"200", b"503", b"200"]


async def test_faults_can_be_cleared(sim: Simulator, peer: Peer) -> None:
    """An outage ends when the test says so."""
    sim.fault(Status(503), times=1000)
    assert (await peer.get()).status == b"HTTP/1.1 503 Service Unavailable"
    sim.clear_faults()
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("faults", "times", "error"),
    [
        ((), 1, ValueError),
        ((Status(503),), 0, ValueError),
        ((Status(503),), -1, ValueError),
        ((Status(503),), True, ValueError),
        ((Status(503), Html()), 50_001, ValueError),
        ((Status,), 1, TypeError),
        ((503,), 1, TypeError),
    ],
)
async def test_plans_must_make_sense(
    sim: Simulator, faults: Any, times: int, error: type[Exception]
) -> None:
    """A plan without faults, without repetition, too long, or of something else is refused."""
    with pytest.raises(error):
        sim.fault(*faults, times=times)
    assert unmet(sim) == []


def test_plans_are_numbered() -> None:
    """Each plan has a number of its own, so that reports can name it."""
    sim = Simulator()
    assert [sim.fault(Status(503)), sim.fault(Html(), Html())] == [1, 2]


# --- instead of the record ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Status(503),
            (
                "503 Service Unavailable",
                {"Content-Type": "application/json; charset=utf-8"},
                b'{"message":"service unavailable"}',
            ),
        ),
        (
            Status(429, headers={"Retry-After": "2", "date": None, "SERVER": "x"}),
            (
                "429 Too Many Requests",
                {"Retry-After": "2", "Date": None, "Server": "x"},
                b'{"message":"too many requests"}',
            ),
        ),
        (
            Status(500, body="höchst seltsam"),
            (
                "500 Internal Server Error",
                {"Content-Type": "text/plain; charset=utf-8"},
                "höchst seltsam".encode(),
            ),
        ),
        (
            Status(400, body="x", headers={"content-type": "application/json"}),
            ("400 Bad Request", {"Content-Type": "application/json"}, b"x"),
        ),
        (Status(404, body={"a": None}), ("404 Not Found", {"Content-Length": "10"}, b'{"a":null}')),
        (Status(200, body=b"[]"), ("200 OK", {"Content-Length": "2"}, b"[]")),
        (Status(204), ("204 No Content", {"Content-Length": None}, b"")),
        (Status(304), ("304 Not Modified", {"Content-Length": None}, b"")),
        (Status(200, body=b""), ("200 OK", {"Content-Length": "0"}, b"")),
        (Status(99), ("099 Unknown", {}, b'{"message":"unknown"}')),
        (Status(999), ("999 Unknown", {}, b'{"message":"unknown"}')),
        (Message(), ("200 OK", {}, b'{"message":"fail to get result."}')),
        (Message("no", status=404), ("404 Not Found", {}, b'{"message":"no"}')),
        (
            Redirect("https://example.com/%2F?a=b"),
            ("302 Found", {"Location": "https://example.com/%2F?a=b", "Content-Type": None}, b""),
        ),
        (Redirect("/x", status=308), ("308 Permanent Redirect", {"Location": "/x"}, b"")),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else "",
)
async def test_replacements(
    sim: Simulator,
    peer: Peer,
    fault: Fault,
    expected: tuple[str, dict[str, str | None], bytes],
) -> None:
    """These answer something else, and the connection goes on as usual."""
    status, headers, body = expected
    sim.fault(fault)
    answer = await peer.get()
    assert answer.status == f"HTTP/1.1 {status}".encode()
    assert {name: answer.header(name) for name in headers} == headers
    assert answer.body == body
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"
    assert sim.connection_count == 1


async def test_html(sim: Simulator, peer: Peer) -> None:
    """A web page comes where JSON was asked for (F-30)."""
    sim.fault(Html(), Html(status=502))
    for status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 502 Bad Gateway"):
        answer = await peer.get()
        assert answer.status == status
        assert answer.header("Content-Type") == "text/html; charset=utf-8"
        assert answer.body.startswith(b"<!DOCTYPE html>")


async def test_status_can_lie_about_its_length(sim: Simulator, peer: Peer) -> None:
    """Headers are sent as they were given, even if they are wrong (F-28)."""
    sim.fault(Status(200, headers={"Content-Length": "5000"}, body=b"[]"))
    peer.ask()
    assert await peer.reader.readuntil(b"[]")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peer.reader.read(1), 0.01)


@pytest.mark.parametrize(
    "headers", [{"Content-Length": None}, {"Connection": "Close"}, {"connection": "close"}]
)
async def test_status_can_end_the_connection(
    sim: Simulator, peer: Peer, headers: dict[str, str | None]
) -> None:
    """Without a length the end of the connection ends the body (F-20), as it does when told."""
    sim.fault(Status(200, headers=headers, body=b"[]"))
    peer.ask()
    received, reset = await peer.read_to_end()
    assert received.endswith(b"\r\n\r\n[]")
    assert not reset


async def test_faults_answer_head_without_body(sim: Simulator, peer: Peer) -> None:
    """A fault that meets a HEAD request does not bring the connection out of step."""
    sim.fault(Status(503, body=b"long"))
    answer = await peer.get(method="HEAD")
    assert answer.status == b"HTTP/1.1 503 Service Unavailable"
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"


async def test_faults_come_before_the_token(sim: Simulator, peer: Peer) -> None:
    """A fault strikes the next request, whether it would have been welcome or not."""
    sim.rotate_token("right")
    sim.fault(Status(503))
    assert (await peer.get()).status == b"HTTP/1.1 503 Service Unavailable"
    assert (await peer.get()).status == b"HTTP/1.1 401 Unauthorized"


async def test_raw(sim: Simulator, peer: Peer) -> None:
    """Any bytes can stand in for an answer; then the connection ends (F-24)."""
    sim.fault(Raw(b"\x16\x03\x01 not HTTP"))
    peer.ask()
    assert await peer.read_to_end() == (b"\x16\x03\x01 not HTTP", False)
    assert [(each.status, each.fault) for each in sim.requests] == [(None, "raw")]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", None])
@pytest.mark.parametrize("size", [1_000_000, 0])
async def test_bomb(sim: Simulator, peer: Peer, vid: str, encoding: Any, size: int) -> None:
    """A few bytes inflate to a record of the wanted size, or all of it is sent (F-22)."""
    sim.fault(Bomb(size, encoding=encoding))
    peer.ask()
    head = await peer.reader.readuntil(b"\r\n\r\n")
    assert Parts(head, b"").header("Content-Encoding") == encoding
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    body = b"".join(await read_chunks(peer.reader))
    if encoding == "gzip":
        assert len(body) < 10_000
        body = gzip.decompress(body)
    elif encoding == "deflate":
        body = zlib.decompress(body)
    record = json.loads(body)
    assert (record["vid"], record["state"]) == (vid, "completed")
    assert len(body) == size or (size == 0 and record["padding"] == "")
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"


async def read_chunks(reader: asyncio.StreamReader) -> list[bytes]:
    """Read a chunked body up to its end."""
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return chunks


# --- a record that is not quite right -------------------------------------------------------------


@pytest.mark.fault("F-42")
async def test_wrong_vid(sim: Simulator, peer: Peer, vid: str) -> None:
    """The record is of another image: a made-up one, always the same, or the one that was named."""
    sim.fault(WrongVid(), WrongVid(), WrongVid(vid="other"))
    records = [(await peer.get()).record for _ in range(4)]
    assert records[0] == records[1]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-11ee-[0-9a-f]{4}-[0-9a-f]{12}", records[0]["vid"])
    assert len({record["vid"] for record in records}) == 3
    assert records[2] == records[3] | {"vid": "other"}
    assert records[3]["vid"] == vid


@pytest.mark.fault("F-40")
async def test_regress(sim: Simulator, peer: Peer) -> None:
    """Once, a completed image is back in processing, with nothing to download."""
    vid = sim.add_image("completed")
    sim.fault(Regress(), Regress("error"), Regress("pending"), vid=vid)
    records = [(await peer.get(vid=vid)).record for _ in range(4)]
    assert [each["state"] for each in records] == ["processing", "error", "pending", "completed"]
    assert [bool(each["url"]) for each in records] == [False, False, False, True]


@pytest.mark.fault("F-127")
async def test_regress_waits_until_there_is_a_way_back(sim: Simulator, peer: Peer) -> None:
    """A fault that would change nothing is not used up."""
    vid = sim.add_image("pending processing completed")
    sim.fault(Regress(), vid=vid)
    states = [(await peer.get(vid=vid)).record["state"] for _ in range(3)]
    assert states == ["pending", "processing", "processing"]
    assert [request.fault for request in sim.requests] == [None, None, "regress"]
    assert (await peer.get(vid=vid)).record["state"] == "completed"


@pytest.mark.fault("F-39")
async def test_unknown_state(sim: Simulator, peer: Peer) -> None:
    """Once, the state is a word that nobody documented; it does not count as a look."""
    vid = sim.add_image("pending completed")
    sim.fault(UnknownState(), UnknownState("x"), vid=vid)
    states = [(await peer.get(vid=vid)).record["state"] for _ in range(4)]
    assert states == ["warming_up", "x", "pending", "completed"]


@pytest.mark.fault("F-127")
@pytest.mark.parametrize("fault", [WrongVid(), Regress(), UnknownState()], ids=str)
async def test_record_faults_wait_for_a_record(sim: Simulator, peer: Peer, fault: Fault) -> None:
    """A fault of the record does not count as met by an answer that is none."""
    sim.fault(fault)
    sim.rotate_token("right")
    answer = await peer.get()
    assert (answer.status, answer.record) == (
        b"HTTP/1.1 401 Unauthorized",
        {"message": "unauthorized"},
    )
    assert unmet(sim) == [fault]
    assert sim.requests[0].fault is None
    assert (await peer.get(token="right")).status == b"HTTP/1.1 200 OK"
    assert unmet(sim) == []


@pytest.mark.parametrize(
    ("seconds", "date"),
    [(3600.0, "Thu, 01 Feb 2024 13:00:00 GMT"), (-0.5, "Thu, 01 Feb 2024 11:59:59 GMT")],
)
async def test_clock_skew(sim: Simulator, peer: Peer, vid: str, seconds: float, date: str) -> None:
    """The Date header of one answer is off, and nothing else."""
    sim.fault(ClockSkew(seconds))
    answer = await peer.get()
    assert answer.header("Date") == date
    assert answer.record == sim.record(vid)
    assert parsedate_to_datetime((await peer.get()).header("Date") or "") == sim.now()


@pytest.mark.fault("F-19")
@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
async def test_truncate(sim: Simulator, peer: Peer, vid: str, encoding: Any) -> None:
    """The body is cut and its length agrees, so that only its content can give it away (E8)."""
    sim.fault(Truncate(100, encoding=encoding))
    answer = await peer.get()
    assert (answer.header("Content-Length"), len(answer.body)) == ("100", 100)
    assert answer.header("Content-Encoding") == encoding
    bits = {"gzip": 31, "deflate": 15}
    body = zlib.decompressobj(bits[encoding]).decompress(answer.body) if encoding else answer.body
    assert 0 < len(body) < 1000
    assert whole(sim, vid).partition(b"\r\n\r\n")[2].startswith(body)
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"


@pytest.mark.fault("F-127")
async def test_truncate_waits_for_a_body_to_cut(sim: Simulator, peer: Peer) -> None:
    """An answer that is not longer than the cut is left whole, and the fault waits."""
    body = len((await peer.get()).body)
    sim.fault(Truncate(body))
    assert len((await peer.get()).body) == body
    assert unmet(sim) == [Truncate(body)]
    sim.clear_faults()
    sim.fault(Truncate(body - 1))
    assert len((await peer.get()).body) == body - 1


async def test_rotate_token(sim: Simulator, peer: Peer) -> None:
    """The token changes under the feet of this very request (F-63)."""
    sim.fault(RotateToken("new"))
    assert (await peer.get()).status == b"HTTP/1.1 401 Unauthorized"
    assert (await peer.get()).status == b"HTTP/1.1 401 Unauthorized"
    assert (await peer.get(token="new")).status == b"HTTP/1.1 200 OK"
    assert [request.fault for request in sim.requests] == ["rotate_token", None, None]
    assert "new" not in repr(RotateToken("new"))


# --- on the wire ----------------------------------------------------------------------------------


@pytest.mark.fault("F-03")
@pytest.mark.parametrize("kind", [Reset, Fin])
@pytest.mark.parametrize("at", ["before", "headers", 0, 1, 17, 200, 10**9])
async def test_cut(sim: Simulator, peer: Peer, vid: str, kind: Any, at: Any) -> None:
    """The connection ends exactly where it was said, with a reset or in order."""
    sim.fault(kind(at=at))
    peer.ask()
    received, reset = await peer.read_to_end()
    expected = whole(sim, vid)
    head = expected.index(b"\r\n\r\n") + 4
    size = {"before": 0, "headers": head}.get(at, at)
    assert received == expected[:size]
    assert reset is (kind is Reset)
    request = sim.requests[0]
    assert (request.fault, request.status) == (kind.kind, 200 if size >= head else None)


async def test_reset_at_every_byte(sim: Simulator, vid: str) -> None:
    """There is no byte of the answer before which the connection cannot break."""
    expected = whole(sim, vid)
    sizes = range(0, len(expected), 97)
    for size in sizes:
        sim.fault(Reset(at=size))
        async with Peer(sim, vid) as peer:
            peer.ask()
            assert await peer.read_to_end() == (expected[:size], True)
    assert sim.connection_count == len(sizes)


@pytest.mark.parametrize(
    "fault", [Reset(at=400), Fin(at=400), Truncate(5), Raw(b"x"), Html()], ids=str
)
async def test_spoilt_answers_are_no_looks(sim: Simulator, fault: Fault) -> None:
    """The state script moves on only when an answer that shows the state went out whole."""
    vid = sim.add_image("pending completed")
    sim.fault(fault)
    async with Peer(sim, vid) as peer:
        peer.ask()
        await peer.reader.read(100)
    assert sim.record(vid)["state"] == "pending"


@pytest.mark.looptime
@pytest.mark.parametrize("at", ["before", "headers", 300])
async def test_hold_for_a_while(at: Any) -> None:
    """The server falls silent, and goes on where it stopped when the time is over."""
    async with Simulator(strict=True, clock=ManualClock()) as sim:
        vid = sim.add_image("pending completed")
        expected = whole(sim, vid)
        async with Peer(sim, vid) as peer:
            sim.fault(Hold(at=at, seconds=60.0))
            peer.ask()
            size = {"before": 0, "headers": expected.index(b"\r\n\r\n") + 4}.get(at, at)
            assert await peer.reader.readexactly(size) == expected[:size]
            await asyncio.sleep(59)
            assert not peer.reader._buffer  # type: ignore[attr-defined]
            assert unmet(sim) == []
            assert sim.record(vid)["state"] == "pending"
            assert await peer.reader.readexactly(len(expected) - size) == expected[size:]
            assert asyncio.get_running_loop().time() == pytest.approx(60, abs=0.01)
            assert (await peer.get()).record["state"] == "completed"


@pytest.mark.looptime
async def test_hold_ends_when_the_client_goes() -> None:
    """A held request is over when nobody waits for it any more."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image("pending completed")
        sim.fault(Hold(at="headers"))
        async with Peer(sim, vid) as peer:
            before = asyncio.all_tasks()
            peer.ask()
            await peer.reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(1000)
            assert len(asyncio.all_tasks() - before) == 1
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert sim.record(vid)["state"] == "pending"
        assert (sim.requests[0].status, sim.requests[0].fault) == (200, "hold")


@pytest.mark.parametrize("at", ["before", "headers"])
async def test_hold_ends_when_the_simulator_stops(at: Any) -> None:
    """Leaving the block ends held requests at once, without anything left behind."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image("completed")
        sim.fault(Hold(at=at), times=3)
        async with contextlib.AsyncExitStack() as peers:
            connected = [await peers.enter_async_context(Peer(sim, vid)) for _ in range(3)]
            for peer in connected:
                peer.ask()
            while unmet(sim):
                await asyncio.sleep(0.001)
            await sim.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            for peer in connected:
                received, _ = await peer.read_to_end()
                assert received.endswith(b"\r\n\r\n") is (at == "headers")


@pytest.mark.fault("F-08")
@pytest.mark.looptime
@pytest.mark.parametrize(("rate", "piece"), [(10.0, 1), (300.0, 15), (2000.0, 100)])
async def test_drip(rate: float, piece: int) -> None:
    """Headers and body come in small pieces at the given pace."""
    async with Simulator(strict=True, clock=ManualClock()) as sim:
        vid = sim.add_image("pending completed")
        expected = whole(sim, vid)
        sim.fault(Drip(rate))
        async with Peer(sim, vid) as peer:
            peer.ask()
            received = b""
            while len(received) < len(expected):
                data = await peer.reader.read(65536)
                assert len(data) in {piece, len(expected) % piece}
                received += data
            assert received == expected
            pauses = (len(expected) - 1) // piece
            elapsed = asyncio.get_running_loop().time()
            assert elapsed == pytest.approx(pauses * piece / rate, rel=0.01)
        assert sim.record(vid)["state"] == "completed"
        assert (sim.requests[0].status, sim.requests[0].fault) == (200, "drip")


async def test_slice(sim: Simulator, peer: Peer, vid: str) -> None:
    """The body comes as HTTP chunks of the given size."""
    sim.fault(Slice(100))
    peer.ask()
    head = await peer.reader.readuntil(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"Content-Length" not in head
    chunks = await read_chunks(peer.reader)
    assert {len(chunk) for chunk in chunks[:-1]} == {100}
    assert json.loads(b"".join(chunks)) == sim.record(vid)
    assert (await peer.get()).status == b"HTTP/1.1 200 OK"


@pytest.mark.looptime
async def test_latency() -> None:
    """The answer is late, and shows the image as it is by then."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image(duration=20.0)
        sim.fault(Latency(30.0))
        async with Peer(sim, vid) as peer:
            assert (await peer.get()).record["state"] == "completed"
            assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.01)
            await peer.get()
            assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.01)


@pytest.mark.looptime
async def test_latency_is_met_when_the_client_gives_up() -> None:
    """A client that loses patience has met the fault; its next request is answered at once."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image("completed")
        sim.fault(Latency(30.0))
        async with Peer(sim, vid) as peer:
            peer.ask()
            await asyncio.sleep(5)
        async with Peer(sim, vid) as peer:
            assert (await peer.get()).status == b"HTTP/1.1 200 OK"
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.01)


@pytest.mark.fault("F-06")
@pytest.mark.looptime
@pytest.mark.parametrize("extra_vid", [None, "other", "unknown"])
async def test_extra_response(extra_vid: str | None) -> None:
    """A second answer that nobody asked for comes later, and the connection stays (E7)."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image("completed")
        sim.add_image("processing", vid="other")
        sim.fault(ExtraResponse(10.0, vid=extra_vid), vid=vid)
        async with Peer(sim, vid) as peer:
            assert (await peer.get()).record["vid"] == vid
            assert asyncio.get_running_loop().time() < 1
            assert unmet(sim) == [ExtraResponse(10.0, vid=extra_vid)]
            extra = await peer.read_answer()
            assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.01)
            assert extra.status == b"HTTP/1.1 200 OK"
            assert extra.record["vid"] != vid
            assert extra.record["vid"] == (extra_vid or extra.record["vid"])
            assert extra.record["state"] == ("processing" if extra_vid == "other" else "completed")
            assert unmet(sim) == []
            assert (await peer.get()).record["vid"] == vid
        assert [request.fault for request in sim.requests] == ["extra_response", None]


@pytest.mark.fault("F-127")
@pytest.mark.looptime
async def test_extra_response_waits_for_an_open_connection() -> None:
    """If the connection is gone by then, the fault has not struck and waits for another request."""
    async with Simulator(strict=True) as sim:
        vid = sim.add_image("completed")
        fault = ExtraResponse(10.0)
        sim.fault(fault)
        async with Peer(sim, vid) as peer:
            await peer.get()
        await asyncio.sleep(11)
        assert unmet(sim) == [fault]
        async with Peer(sim, vid) as peer:
            await peer.get()
            await peer.read_answer()


async def test_extra_response_does_not_outlive_the_simulator() -> None:
    """A second answer that is still to come is dropped when the simulator stops."""
    async with Simulator() as sim:
        vid = sim.add_image("completed")
        sim.fault(ExtraResponse(0.01))
        async with Peer(sim, vid) as peer:
            await peer.get()
            await sim.aclose()
            await asyncio.sleep(0.02)
            assert (await peer.read_to_end())[0] == b""
    assert unmet(sim) == [ExtraResponse(0.01)]


async def test_cleared_faults_do_not_come_back(sim: Simulator, peer: Peer) -> None:
    """What was cleared while it was under way is not put back."""
    sim.fault(ExtraResponse(0.005))
    await peer.get()
    sim.clear_faults()
    peer.writer.close()
    await asyncio.sleep(0.02)
    assert unmet(sim) == []


@pytest.mark.looptime
async def test_faults_do_not_meet_a_client_that_is_gone() -> None:
    """A fault that has shown nothing to its client strikes the next one instead."""
    async with Simulator(strict=True, latency=5.0) as sim:
        vid = sim.add_image("completed")
        sim.fault(Status(503))
        async with Peer(sim, vid) as peer:
            peer.ask()
            await asyncio.sleep(1)
        await asyncio.sleep(10)
        assert unmet(sim) == [Status(503)]
        async with Peer(sim, vid) as peer:
            assert (await peer.get()).status == b"HTTP/1.1 503 Service Unavailable"
