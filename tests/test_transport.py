"""
One request out, one whole answer back: over real sockets, with everything that can go wrong.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import itertools
import socket
import ssl
import tracemalloc
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aioresponses import CallbackResult, aioresponses

from kokoon_async import KokoonClient
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.retry import RetryPolicy
from kokoon_async.errors import (
    AuthenticationFailed,
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    ImageNotFound,
    InvalidRequest,
    KokoonError,
    ProtocolError,
    RequestTimedOut,
    ServerError,
    UnexpectedResponse,
)

from .canary import CANARY_TOKEN, assert_no_secret
from .conftest import RawServerFactory, TlsPair
from .fakes import VID, client_of, connector_of, is_idle, make_vid, outcome, turns
from .raw_server import (
    LOOPBACK,
    Behaviour,
    RawConnection,
    answer,
    answer_each,
    hang_up,
    hold,
    http_response,
    intrude,
    record_response,
    reset,
    sample_record,
    script,
)


looptime = pytest.mark.looptime

GOOD = record_response(VID)
HEAD, _, BODY = GOOD.partition(b"\r\n\r\n")
START = len(HEAD) + 4  # of the body

# Before anything, in the status line, in the headers, at their end, in the body, before its end.
OFFSETS = [0, 1, 12, 17, 18, 40, START - 3, START - 1, START, START + 1, START + 300, len(GOOD) - 1]

MISSING = http_response(404, b'{"message": "fail to get result."}')


def vid_of(request: bytes) -> str:
    """Give the id that a request is for."""
    return request.split(b" ", 2)[1].rpartition(b"/")[2].decode()


def echo(request: bytes, number: int) -> bytes:
    """Answer every request with the record it is for."""
    return record_response(vid_of(request))


async def failure_of(client: KokoonClient, vid: str = VID) -> Any:
    """Give the error of a call, which must fail."""
    result = await outcome(client.get_image(vid))
    assert isinstance(result, KokoonError), result
    assert result.vid == vid
    assert result.__cause__ is result.__context__ is None
    assert is_idle(client)
    return result


# -- what is sent ----------------------------------------------------------------------------------


async def test_the_request_on_the_wire(raw_server: RawServerFactory) -> None:
    """A request is a GET of the image below the base URL, with the token exactly as given."""
    server = await raw_server(GOOD)
    async with client_of(f"{server.base_url}/some/api/", token="  to:ken ".strip()) as client:
        image = await client.get_image(VID.upper())
    assert image.vid == VID
    line, *headers = server.requests[0].decode().split("\r\n")
    assert line == f"GET /some/api/image/{VID} HTTP/1.1"
    fields = dict(header.split(": ", 1) for header in headers if header)
    assert fields == {
        "Host": f"{LOOPBACK}:{server.port}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Cache-Control": "no-cache",
        "User-Agent": fields["User-Agent"],
        "Authorization": "to:ken",
    }
    assert fields["User-Agent"].startswith("kokoon-async/")


async def test_connections_are_used_again(raw_server: RawServerFactory) -> None:
    """One connection serves calls one after another."""
    server = await raw_server(answer_each(echo))
    async with client_of(server.base_url) as client:
        for number in range(20):
            assert (await client.get_image(make_vid(number))).vid == make_vid(number)
    assert (server.connections, len(server.requests)) == (1, 20)


async def test_an_address_with_brackets_is_named_so(raw_server: RawServerFactory) -> None:
    """An IPv6 address in an error can be told from its port."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        port = listener.getsockname()[1]
        async with client_of(f"http://[::1]:{port}") as client:
            error = await failure_of(client)
    assert f" [::1]:{port} " in error.message


# -- no answer -------------------------------------------------------------------------------------


@pytest.mark.fault("F-01")
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("whose", ["ours", "the user's"])
async def test_a_refused_connection(attempts: int, whose: str) -> None:
    """A closed port is an error that names host and port, and neither address nor token."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port = listener.getsockname()[1]
        base_url = f"http://{LOOPBACK}:{port}/a/path"
        async with (
            aiohttp.ClientSession() as session,
            client_of(
                base_url,
                token=CANARY_TOKEN,
                attempts=attempts,
                session=session if whose == "the user's" else None,
            ) as client,
        ):
            error = await failure_of(client)
    assert type(error) is ConnectionFailed
    assert error.message.startswith(f"Cannot connect to {LOOPBACK}:{port} for image {VID}: ")
    assert "http" not in str(error)
    assert error.attempts == attempts
    assert not error.is_lasting
    assert_no_secret(error)


@pytest.mark.fault("F-02")
@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("whose", ["ours", "the user's"])
async def test_one_attempt_is_one_request(
    raw_server: RawServerFactory, attempts: int, fresh: bool, whose: str
) -> None:
    """E1: aiohttp's own second attempt is off, on new and on used connections, in any session."""
    first = hang_up() if fresh else script(answer(GOOD), hang_up())
    server = await raw_server(first, hang_up())
    async with aiohttp.ClientSession() as session:
        given = session if whose == "the user's" else None
        async with client_of(server.base_url, attempts=attempts, session=given) as client:
            if not fresh:
                await client.get_image(VID)
                server.requests.clear()
            error = await failure_of(client)
    assert len(server.requests) == attempts
    assert type(error) is ConnectionFailed
    assert "the server closed the connection" in error.message
    assert error.attempts == attempts


CUTS = [
    *(pytest.param(reset(GOOD[:at], pause=0.002), at, id=f"reset-at-{at}") for at in OFFSETS),
    *(pytest.param(hang_up(GOOD[:at]), at, id=f"closed-at-{at}") for at in OFFSETS),
    pytest.param(reset(read=False), 0, id="reset-unread"),
    pytest.param(hang_up(read=False), 0, id="closed-unread"),
]


@pytest.mark.fault("F-03")
@pytest.mark.fault("F-18")
@pytest.mark.parametrize(("behaviour", "offset"), CUTS)
async def test_a_connection_lost_at_any_byte(
    raw_server: RawServerFactory, behaviour: Behaviour, offset: int
) -> None:
    """A lost connection is an error wherever it happens, never half a record; the next call works."""
    server = await raw_server(behaviour, GOOD)
    async with client_of(server.base_url, token=CANARY_TOKEN) as client:
        error = await failure_of(client)
        assert type(error) is (ConnectionFailed if offset < START else ProtocolError)
        assert error.attempts == 1
        assert_no_secret(error)
        assert (await client.get_image(VID)).vid == VID
    assert server.connections == 2


@pytest.mark.fault("F-04")
@pytest.mark.parametrize("gone", [hang_up(read=False), reset(read=False)], ids=["closed", "reset"])
async def test_a_connection_that_was_closed_while_idle(
    raw_server: RawServerFactory, gone: Behaviour
) -> None:
    """A server that closes idle connections costs no call its answer."""
    server = await raw_server(script(answer(GOOD), gone), script(answer(GOOD), gone), GOOD)
    async with client_of(server.base_url, attempts=2) as client:
        for _ in range(3):
            await client.get_image(VID)
            await turns(2)  # it may be noticed, or not yet
    assert server.connections == 3
    assert 3 <= len(server.requests) <= 4


@pytest.mark.fault("F-04")
@looptime
async def test_a_connection_is_idle_for_ten_seconds_at_most(
    raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is used again within ten seconds, and closed by us soon after."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("aiohttp.connector.monotonic", loop.time)
    server = await raw_server(answer_each(echo))
    async with client_of(server.base_url) as client:
        await client.get_image(VID)
        await asyncio.sleep(9.5)
        await client.get_image(VID)
        assert (server.connections, server.hang_ups) == (1, 0)
        await asyncio.sleep(10.5)
        await client.get_image(VID)
        assert server.connections == 2
        await asyncio.sleep(21)  # aiohttp looks for idle ones now and then
        await server.wait_for(lambda: server.hang_ups == 2)


@pytest.mark.fault("F-07")
@looptime
@pytest.mark.parametrize(
    ("offset", "phase"),
    [
        (0, "waiting for the answer"),
        (18, "waiting for the answer"),
        (START - 1, "waiting for the answer"),
        (START, "reading the answer"),
        (START + 1, "reading the answer"),
        (len(GOOD) - 1, "reading the answer"),
    ],
)
async def test_a_server_that_falls_silent(
    raw_server: RawServerFactory, offset: int, phase: str
) -> None:
    """Silence ends a call after `Timeouts.read`, with the phase, and the connection is closed."""
    server = await raw_server(hold(GOOD[:offset]), GOOD)
    loop = asyncio.get_running_loop()
    async with client_of(server.base_url, timeouts=Timeouts(read=7)) as client:
        began = loop.time()
        error = await failure_of(client)
        assert loop.time() - began == pytest.approx(7, abs=0.1)
        assert type(error) is RequestTimedOut
        assert (error.phase, error.attempts) == (phase, 1)
        assert f"while {phase}: the server was silent for 7 s." in error.message
        await server.wait_for(lambda: server.hang_ups == 1)
        assert (await client.get_image(VID)).vid == VID


@pytest.mark.fault("F-07")
@looptime
async def test_each_part_of_an_answer_ends_a_silence(raw_server: RawServerFactory) -> None:
    """A server that sends the head, and later the body, was never silent for both times together."""

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in (GOOD[:START], GOOD[START:-5], GOOD[-5:]):
            await asyncio.sleep(20)
            writer.write(part)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(slowly, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    timeouts = Timeouts(read=30, total=90)
    async with server, client_of(f"http://127.0.0.1:{port}", timeouts=timeouts) as client:
        began = asyncio.get_running_loop().time()
        assert (await client.get_image(VID)).vid == VID
        assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=0.1)


@pytest.mark.fault("F-05")
@looptime
async def test_a_connection_that_is_silently_dead(raw_server: RawServerFactory) -> None:
    """A connection whose other end is gone without a word costs one attempt, not the call."""
    server = await raw_server(script(answer(GOOD), hold()), GOOD)
    async with client_of(server.base_url, attempts=2, timeouts=Timeouts(read=7)) as client:
        await client.get_image(VID)
        assert (await client.get_image(VID)).vid == VID
        assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)
        await server.wait_for(lambda: server.hang_ups == 1)
    assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.fault("F-08")
@looptime
@pytest.mark.parametrize(
    ("at_once", "phase", "after"),
    [
        # Each byte of the body breaks the silence, so only the whole call's time ends it.
        (START, "reading the answer", 60),
        # Half a header tells nothing yet.
        (0, "waiting for the answer", 7),
    ],
)
async def test_a_server_that_drips(
    raw_server: RawServerFactory, at_once: int, phase: str, after: float
) -> None:
    """A slow-loris gets no more than the whole call's time (E13)."""
    dripped = 0

    async def drip(connection: RawConnection) -> None:
        nonlocal dripped
        await connection.begin(GOOD[:at_once], read=True)
        for byte in GOOD[at_once:]:
            await connection.write(bytes([byte]))
            dripped += 1
            await asyncio.sleep(6.9)

    server = await raw_server(drip)
    loop = asyncio.get_running_loop()
    async with client_of(server.base_url, timeouts=Timeouts(read=7, total=60)) as client:
        began = loop.time()
        error = await failure_of(client)
        assert loop.time() - began == pytest.approx(after, abs=0.1)
        assert type(error) is RequestTimedOut
        assert error.phase == phase
    assert dripped > 1


@pytest.mark.fault("F-25")
@looptime
async def test_a_flood_of_interim_answers(raw_server: RawServerFactory) -> None:
    """Any number of 1xx answers do not keep a call alive."""

    async def flood(connection: RawConnection) -> None:
        await connection.read_request()
        while True:
            await connection.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await asyncio.sleep(0.5)

    server = await raw_server(flood)
    async with client_of(server.base_url, timeouts=Timeouts(read=7)) as client:
        error = await failure_of(client)
        assert type(error) is RequestTimedOut
        assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)


class SlowResolver(aiohttp.abc.AbstractResolver):
    """Look names up for ever, or fail as told."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    async def resolve(self, host: str, *_: Any, **__: Any) -> Any:
        """Look up *host*."""
        self.asked.append(host)
        if self.error is not None:
            raise self.error
        await asyncio.sleep(10_000)

    async def close(self) -> None:
        """Close."""


@pytest.mark.fault("F-09")
@looptime
@pytest.mark.parametrize("limit", ["connect", "total"])
async def test_a_name_that_is_looked_up_for_ever(limit: str) -> None:
    """A hanging look-up counts as connecting: for `Timeouts.connect`, and for the phase."""
    timeouts = Timeouts(connect=4) if limit == "connect" else Timeouts(connect=None, total=4)
    resolver = SlowResolver()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session,
        client_of("https://api.invalid", session=session, timeouts=timeouts) as client,
    ):
        error = await failure_of(client)
        assert resolver.asked == ["api.invalid"]
        assert asyncio.get_running_loop().time() == pytest.approx(4, abs=0.1)
        assert type(error) is RequestTimedOut
        assert error.phase == "connecting"
        assert "while connecting" in error.message


@pytest.mark.fault("F-09")
async def test_a_name_that_does_not_exist() -> None:
    """A failed look-up is an error in the system's words, with host and port."""
    resolver = SlowResolver(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session,
        client_of("https://api.invalid", session=session) as client,
    ):
        error = await failure_of(client)
        assert type(error) is ConnectionFailed
        assert error.message == (
            f"Cannot connect to api.invalid:443 for image {VID}: Name or service not known."
        )


# -- broken answers --------------------------------------------------------------------------------

MANY = "".join(f"X-{n}: y\r\n" for n in range(10_000)).encode()

BROKEN = {
    "two lengths": http_response(body=BODY, headers={"Content-Length": "5\r\nContent-Length: 7"}),
    "length and chunks": http_response(body=BODY, headers={"Transfer-Encoding": "chunked"}),
    "negative length": http_response(body=BODY, headers={"Content-Length": "-5"}),
    "signed length": http_response(body=BODY, headers={"Content-Length": "+5"}),
    "huge length": http_response(body=BODY, headers={"Content-Length": "9" * 30}),
    "tls": b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n",
    "http2": b"HTTP/2 200 OK\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "huge header": http_response(body=BODY, headers={"X-Huge": "y" * 100_000}),
    "many headers": HEAD + b"\r\n" + MANY + b"\r\n" + BODY,
    "nul in a header": http_response(body=BODY, headers={"X-Nul": "a\0b"}),
    "bad header name": http_response(body=BODY, headers={"X Y": "z"}),
    "header name not UTF-8": http_response(body=BODY, headers={"X-\udcff": "z"}),
    "encoding not UTF-8": http_response(body=BODY, headers={"Content-Encoding": "\udcff\udcfe"}),
    "words for a status": b"HTTP/1.1 abc OK\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n",
    "bad chunk": http_response(
        body=b"zz\r\nabc", headers={"Transfer-Encoding": "chunked", "Content-Length": None}
    ),
    "missing chunk": http_response(
        body=b'5\r\n{"vid', headers={"Transfer-Encoding": "chunked", "Content-Length": None}
    ),
    "status 099": http_response(99, BODY),
    "status 600": http_response(600, BODY),
    "status 999": http_response(999, BODY),
    "unknown encoding": http_response(body=BODY, headers={"Content-Encoding": "br"}),
    "stacked encodings": http_response(body=BODY, headers={"Content-Encoding": "gzip, gzip"}),
    "plain, said to be gzip": http_response(body=BODY, headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.fault("F-23")
@pytest.mark.fault("F-24")
@pytest.mark.fault("F-26")
@pytest.mark.fault("F-27")
@pytest.mark.fault("F-28")
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_broken_http(raw_server: RawServerFactory, broken: bytes) -> None:
    """What is no HTTP is a `ProtocolError`, never "status 400" (E11), and gone on retry."""
    server = await raw_server(hang_up(broken), hang_up(broken), GOOD)
    async with client_of(server.base_url, token=CANARY_TOKEN) as client:
        error = await failure_of(client)
        assert type(error) is ProtocolError
        assert "400" not in str(error)
        assert len(str(error)) <= 500
        assert_no_secret(error)
        assert len(server.requests) == 1
    async with client_of(server.base_url, attempts=2) as client:
        assert (await client.get_image(VID)).vid == VID
    assert server.connections == 3


@pytest.mark.fault("F-27")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Note", "one\r\n two\r\n\tthree"),
        ("Date", "\udcff\udcfe\udcc3"),
        ("Retry-After", "\udcff"),
    ],
)
async def test_odd_headers_do_not_spoil_an_answer(
    raw_server: RawServerFactory, name: str, value: str
) -> None:
    """What is folded, or no UTF-8, says nothing to us, and takes nothing away from the answer."""
    server = await raw_server(
        answer(*(http_response(status, BODY, headers={name: value}) for status in (200, 503)))
    )
    async with client_of(server.base_url) as client:
        assert (await client.get_image(VID)).vid == VID
        error = await failure_of(client)
        assert (type(error), error.retry_after) == (ServerError, None)
    assert server.connections == 1


@pytest.mark.fault("F-27")
@pytest.mark.parametrize("piece", [b"X-Note: some words\r\n" * 3_000, b"x" * 60_000])
async def test_headers_without_end(raw_server: RawServerFactory, piece: bytes) -> None:
    """Headers that never end, many or one, are given up, and take less than a megabyte."""
    sent = 0

    async def endless(connection: RawConnection) -> None:
        nonlocal sent
        await connection.begin(b"HTTP/1.1 200 OK\r\nX-First: ", read=True)
        while True:
            await connection.write(piece)
            sent += len(piece)
            await asyncio.sleep(0)

    server = await raw_server(endless)
    async with client_of(server.base_url) as client:
        tracemalloc.start()
        try:
            error = await failure_of(client)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert type(error) is ProtocolError
        await server.wait_for(lambda: server.hang_ups == 1)
    assert sent < 16 * 2**20  # most of it still in the sockets' buffers
    assert peak < 2**20


@pytest.mark.fault("F-19")
@pytest.mark.parametrize("kind", ["gzip", "deflate", "raw deflate"])
async def test_a_packed_answer_that_is_cut(raw_server: RawServerFactory, kind: str) -> None:
    """A packed body is read, also unasked; cut anywhere, it is an error although HTTP sees none (E8)."""
    packed = {
        "gzip": gzip.compress(BODY),
        "deflate": zlib.compress(BODY),
        "raw deflate": zlib.compress(BODY)[2:-4],
    }[kind]
    headers = {"Content-Encoding": kind.rsplit(maxsplit=1)[-1]}
    cuts = [0, 1, 9, len(packed) // 2, len(packed) - 9, len(packed) - 4, len(packed) - 1]
    bodies = [packed, *(packed[:cut] for cut in cuts), packed + b"more"]
    server = await raw_server(
        answer_each(lambda request, n: http_response(body=bodies[n], headers=headers))
    )
    async with client_of(server.base_url) as client:
        assert (await client.get_image(VID)).vid == VID
        for _ in bodies[1:]:
            assert type(await failure_of(client)) in (ProtocolError, UnexpectedResponse)
    assert len(server.requests) == len(bodies)


@pytest.mark.fault("F-22")
async def test_a_bomb_takes_no_memory(raw_server: RawServerFactory) -> None:
    """E10: half a megabyte that unpacks to 512 MiB is an error, after 8 MiB at most."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, second = (
        packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    bomb = first + second * 511
    assert len(bomb) < 2**20
    server = await raw_server(http_response(body=bomb, headers={"Content-Encoding": "gzip"}))
    async with client_of(server.base_url) as client:
        tracemalloc.start()
        try:
            error = await failure_of(client)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert type(error) is ProtocolError
    assert "unpacks to more than 1048576 bytes" in error.message
    assert peak < 8 * 2**20


@pytest.mark.fault("F-22")
@pytest.mark.parametrize("framing", ["length", "chunks", "none"])
async def test_a_body_without_end(raw_server: RawServerFactory, framing: str) -> None:
    """A body beyond the cap is given up after about a megabyte, however it is framed."""
    piece = b"x" * 65_536
    sent = 0
    headers: dict[str, str | None] = {
        "length": {"Content-Length": str(10 * 2**30)},
        "chunks": {"Content-Length": None, "Transfer-Encoding": "chunked"},
        "none": {"Content-Length": None},
    }[framing]

    async def endless(connection: RawConnection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.write(http_response(headers=headers))
        while True:
            chunk = b"10000\r\n" + piece + b"\r\n" if framing == "chunks" else piece
            await connection.write(chunk)
            sent += len(piece)
            await asyncio.sleep(0)

    server = await raw_server(endless)
    async with client_of(server.base_url) as client:
        error = await failure_of(client)
        assert type(error) is ProtocolError
        assert "is larger than 1048576 bytes" in error.message
        await server.wait_for(lambda: server.hang_ups == 1)
    assert sent < 16 * 2**20  # most of it still in the sockets' buffers


async def test_a_body_just_within_the_cap(raw_server: RawServerFactory) -> None:
    """A record of a megabyte is read, in however many pieces it comes."""
    padded = BODY[:-1] + b" " * (2**20 - len(BODY)) + b"}"
    server = await raw_server(http_response(body=padded), http_response(body=padded + b" "))
    async with client_of(server.base_url) as client:
        assert (await client.get_image(VID)).vid == VID
    async with client_of(server.base_url) as client:
        assert type(await failure_of(client)) is ProtocolError


def bad_chunk(status: int) -> Behaviour:
    """Send half a record in one chunk, and then what is no chunk."""

    async def behave(connection: RawConnection) -> None:
        chunked = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        await connection.begin(http_response(status, headers=chunked), read=True)
        await connection.write(b'8\r\n{"vid": \r\n')
        await asyncio.sleep(0.001)
        await connection.write(b"zz\r\n")
        await connection.wait_hung_up()

    return behave


@pytest.mark.fault("F-18")
@looptime
async def test_a_bad_chunk_in_the_midst(raw_server: RawServerFactory) -> None:
    """
    A body that stops making sense half-way is an error that may pass, in time.

    aiohttp's C parser closes the connection then, and tells nobody who reads the body; its parser
    in Python tells at once.
    """
    server = await raw_server(bad_chunk(200), GOOD)
    async with client_of(server.base_url, timeouts=Timeouts(read=7), attempts=2) as client:
        assert (await client.get_image(VID)).vid == VID
        assert asyncio.get_running_loop().time() <= 7.1
    assert server.connections == 2


@pytest.mark.fault("F-20")
@pytest.mark.parametrize("cut", [1, 100, len(BODY) - 1])
async def test_a_body_without_length_that_is_cut(raw_server: RawServerFactory, cut: int) -> None:
    """E9: HTTP sees nothing wrong with a body that ends with the connection; we do."""
    head = http_response(headers={"Content-Length": None})
    server = await raw_server(hang_up(head + BODY[:cut]), hang_up(head + BODY))
    async with client_of(server.base_url, attempts=2) as client:
        assert (await client.get_image(VID)).vid == VID
    assert len(server.requests) == 2


@pytest.mark.fault("F-29")
@pytest.mark.fault("F-17")
@pytest.mark.parametrize(
    "good",
    [
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        http_response(body=BODY, headers={"Connection": "close"}),
        http_response(body=BODY, headers={"Connection": "keep-alive", "Keep-Alive": "timeout=0"}),
        http_response(body=BODY, headers={"Content-Type": None}),
        http_response(body=BODY, headers={"Content-Type": "text/html; charset=utf-16"}),
        b"HTTP/1.1 102 Processing\r\n\r\n" + GOOD,
    ],
)
async def test_unusual_but_good_answers(raw_server: RawServerFactory, good: bytes) -> None:
    """Old HTTP, connections closed each time and odd headers are no reason to fail."""
    server = await raw_server(good)
    async with client_of(server.base_url) as client:
        for _ in range(3):
            assert (await client.get_image(VID)).vid == VID
    assert len(server.requests) == 3


@pytest.mark.fault("F-25")
@pytest.mark.fault("F-30")
@pytest.mark.parametrize(
    "odd",
    [
        http_response(204, headers={"Content-Length": None}),
        http_response(304, headers={"Content-Length": None}),
        http_response(205),
        http_response(101, headers={"Upgrade": "x", "Connection": "upgrade"}),
        http_response(200),
        http_response(200, b"<!doctype html><title>Log in</title>"),
        http_response(404, b"<html>not here</html>"),
        http_response(200, b"[]"),
        http_response(200, b"null"),
        http_response(200, b"\xff\xfe"),
        http_response(300, BODY),
    ],
)
async def test_answers_that_are_not_this_api(raw_server: RawServerFactory, odd: bytes) -> None:
    """Good HTTP that is not this API is an `UnexpectedResponse`, sent for once only."""
    server = await raw_server(odd)
    async with client_of(server.base_url, attempts=3) as client:
        assert type(await failure_of(client)) is UnexpectedResponse
    assert len(server.requests) == 1


# -- answers of other requests ---------------------------------------------------------------------


@pytest.mark.fault("F-42")
async def test_another_images_record_closes_the_connection(raw_server: RawServerFactory) -> None:
    """A wrong vid costs the connection, and the retry goes out on a new one."""
    server = await raw_server(
        script(answer(GOOD), answer(record_response(make_vid(1))), hold()), GOOD
    )
    async with client_of(server.base_url) as client:
        assert (await client.get_image(VID)).vid == VID
        error = await failure_of(client)
        assert type(error) is ProtocolError
        assert "another image's record" in error.message
        await server.wait_for(lambda: server.hang_ups == 1)
        assert (await client.get_image(VID)).vid == VID
    assert server.connections == 2
    server = await raw_server(record_response(make_vid(1)), GOOD)
    async with client_of(server.base_url, attempts=2) as client:
        assert (await client.get_image(VID)).vid == VID
    assert server.connections == 2


@pytest.mark.fault("F-06")
@pytest.mark.parametrize("when", ["with the answer", "while idle"])
@pytest.mark.parametrize(
    "extra", [record_response(make_vid(999)), MISSING, http_response(401), b"garbage\r\n\r\n"]
)
async def test_an_answer_that_nobody_asked_for(
    raw_server: RawServerFactory, extra: bytes, when: str
) -> None:
    """E7: what comes on an idle connection is taken for no answer, though it is an error's."""
    server = await raw_server(*intruder(gate := asyncio.Event(), extra), GOOD)
    async with client_of(server.base_url, attempts=2) as client:
        if when == "with the answer":
            gate.set()
        assert (await client.get_image(VID)).vid == VID
        gate.set()
        await arrival()
        assert (await client.get_image(VID)).vid == VID
    assert server.connections == 2


async def arrival() -> None:
    """Let what is on its way over loopback arrive, also if the machine is busy."""
    await asyncio.sleep(0.005)
    await turns(20)


def intruder(gate: asyncio.Event, extra: bytes) -> list[Behaviour]:
    """Answer, and send something more once *gate* is open."""

    async def wait(_: RawConnection) -> None:
        await gate.wait()

    return [script(answer(GOOD), wait, intrude(extra), hold())]


@pytest.mark.fault("F-06")
async def test_an_answer_that_nobody_asked_for_is_told(raw_server: RawServerFactory) -> None:
    """Without a retry, the error says what was wrong with the connection."""
    server = await raw_server(*intruder(gate := asyncio.Event(), MISSING))
    async with client_of(server.base_url) as client:
        await client.get_image(VID)
        gate.set()
        await arrival()
        error = await failure_of(client)
    assert type(error) is ProtocolError
    assert error.message == f"The answer for image {VID} came after one that nobody asked for."


@pytest.mark.fault("F-06")
async def test_a_thousand_calls_over_connections_that_lie(raw_server: RawServerFactory) -> None:
    """G24: with extra answers on idle connections all the time, no call gets another's answer."""
    extras = itertools.count()

    async def lie(connection: RawConnection) -> None:
        while True:
            request = await connection.read_request()
            await connection.write(echo(request, 0))
            if next(extras) % 7 == 0:
                await asyncio.sleep(0)
                wrong = [record_response(make_vid(5_000)), MISSING][next(extras) % 2]
                await connection.write(wrong)

    server = await raw_server(lie)
    retry = RetryPolicy(attempts=10, base=0, quota=10**6)
    async with client_of(server.base_url, retry=retry) as client:

        async def work(number: int) -> None:
            for each in range(number, 1_000, 10):
                assert (await client.get_image(make_vid(each))).vid == make_vid(each)

        await asyncio.gather(*[work(number) for number in range(10)])
    assert server.connections > 50, "the fault did not fire"


@pytest.mark.fault("F-21")
@pytest.mark.parametrize(
    ("more", "connections", "attempts"),
    [
        (GOOD, 2, 1),
        (MISSING, 2, 1),
        (b"x", 2, 2),  # what can begin no answer spoils the one before it, for aiohttp's parser
        (b"\r\n", 1, 1),  # an empty line before an answer is none (RFC 9112, 2.2)
    ],
    ids=["record", "refusal", "byte", "empty line"],
)
async def test_more_than_was_promised(
    raw_server: RawServerFactory, more: bytes, connections: int, attempts: int
) -> None:
    """Bytes after the end of an answer are nobody's answer, and cost the connection."""
    server = await raw_server(script(answer(GOOD + more), answer_each(echo)), answer_each(echo))
    async with client_of(server.base_url, attempts=attempts) as client:
        assert (await client.get_image(VID)).vid == VID
        assert (await client.get_image(make_vid(1))).vid == make_vid(1)
    assert (server.connections, len(server.requests)) == (connections, 1 + attempts)


# -- errors with bodies of their own ---------------------------------------------------------------

MESSAGE = b'{"message": "some words"}'


async def endless_error(connection: RawConnection) -> None:
    """Explain an error for ever."""
    await connection.read_request()
    await connection.write(http_response(503, headers={"Content-Length": None}))
    while True:
        await connection.write(b"x" * 65_536)


def error_with(body: bytes, **headers: str | None) -> bytes:
    """Build a 503."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return http_response(503, body, headers=fields)


@pytest.mark.fault("F-34")
@looptime
@pytest.mark.parametrize(
    ("explained", "seconds"),
    [
        (hold(error_with(MESSAGE, Content_Length="1000")), 5),
        (hold(error_with(b"", Content_Length="1000")), 5),
        (hang_up(error_with(MESSAGE, Content_Length="1000")), 0),
        (reset(error_with(MESSAGE, Content_Length="1000"), pause=0.001), 0),
        (bad_chunk(503), 5),
        (endless_error, 0),
        (hold(error_with(b"not packed", Content_Encoding="gzip")), 0),
        (hold(error_with(b"", Content_Encoding="br")), 0),
    ],
    ids=["silent", "all silent", "closed", "reset", "bad chunk", "endless", "not gzip", "br"],
)
async def test_the_status_stands_whatever_its_explanation(
    raw_server: RawServerFactory, explained: Behaviour, seconds: float
) -> None:
    """Slow, cut, endless or unreadable words of an error do not hide its status, nor hang."""
    server = await raw_server(explained)
    # The server's silence must not hide the status either.
    async with client_of(server.base_url, timeouts=Timeouts(read=2)) as client:
        error = await failure_of(client)
        assert type(error) is ServerError
        assert error.status == 503
        assert asyncio.get_running_loop().time() <= seconds + 0.1


@pytest.mark.fault("F-34")
async def test_the_words_of_an_error_are_read(raw_server: RawServerFactory) -> None:
    """An explanation that is complete is told, packed or not, and its connection used again."""
    packed = gzip.compress(MESSAGE)
    server = await raw_server(
        answer(
            http_response(400, MESSAGE),
            http_response(400, packed, headers={"Content-Encoding": "gzip"}),
            GOOD,
        )
    )
    async with client_of(server.base_url) as client:
        for _ in range(2):
            error = await failure_of(client)
            assert type(error) is InvalidRequest
            assert error.server_message == "some words"
        await client.get_image(VID)
    assert server.connections == 1


# -- where the token goes --------------------------------------------------------------------------


@pytest.mark.fault("F-72")
@pytest.mark.fault("F-73")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(raw_server: RawServerFactory, status: int) -> None:
    """A redirect is an error, and no byte of the token reaches another origin."""
    second = await raw_server(GOOD)
    for location in (f"{second.base_url}/image/{VID}", "/elsewhere", "file:///etc/passwd", ""):
        first = await raw_server(http_response(status, headers={"Location": location}))
        async with client_of(first.base_url, token=CANARY_TOKEN, attempts=3) as client:
            error = await failure_of(client)
        assert type(error) is UnexpectedResponse
        assert error.status == status
        assert len(first.requests) == 1
    assert second.connections == 0
    assert second.connection_bytes == []


@pytest.mark.fault("F-71")
async def test_cookies_are_ignored(raw_server: RawServerFactory) -> None:
    """What the server wants to be remembered is not, though aiohttp would."""
    cookie = http_response(body=BODY, headers={"Set-Cookie": "session=1; Path=/"})
    server = await raw_server(cookie)
    by_name = f"http://localhost:{server.port}"  # aiohttp takes no cookies from bare addresses
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(by_name) as response:
                await response.read()
    assert b"\r\nCookie: session=1\r\n" in server.requests[-1], "the fault did not fire"
    server.requests.clear()
    async with client_of(by_name) as client:
        for _ in range(3):
            await client.get_image(VID)
    assert len(server.requests) == 3
    assert not [request for request in server.requests if b"cookie" in request.lower()]


@pytest.mark.fault("F-13")
async def test_the_environment_changes_nothing(
    raw_server: RawServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither proxies nor a netrc file in the environment are used, unless a session asks (E33)."""
    server, proxy = await raw_server(GOOD), await raw_server(GOOD)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {LOOPBACK} login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.base_url)
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(server.base_url):
        assert len(proxy.requests) == 1, "the environment names no proxy"
        assert b"\r\nAuthorization: Basic " in proxy.requests[0], "the netrc file is not read"
    async with client_of(server.base_url, token="the token") as client:
        await client.get_image(VID)
    assert proxy.connections == 1
    assert b"Authorization: the token\r\n" in server.requests[0]
    assert b"Basic" not in server.requests[0]


def tunnel_to(port: int) -> Behaviour:
    """Do what a proxy does with CONNECT: carry bytes to and from *port*."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
        target.close()

    async def behave(connection: RawConnection) -> None:
        await connection.begin(b"HTTP/1.1 200 Connection established\r\n\r\n", read=True)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            await asyncio.gather(copy(reader, connection.writer), copy(connection.reader, writer))
        finally:
            writer.transport.abort()

    return behave


@pytest.mark.fault("F-13")
@pytest.mark.parametrize("case", ["407", "reset", "hung up", "tunnel"])
async def test_a_proxy_of_the_users(
    raw_server: RawServerFactory, tls_pair: TlsPair, case: str
) -> None:
    """A proxy that refuses is an error without its password, which no origin ever gets either."""
    server = await raw_server(GOOD, tls=tls_pair.server)
    refusal = http_response(407, b"who?", headers={"Proxy-Authenticate": 'Basic realm="x"'})
    proxy = await raw_server(
        {"407": hang_up(refusal), "reset": reset(), "hung up": hang_up()}.get(case)
        or tunnel_to(server.port)
    )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_pair.client),
        proxy=f"http://user:{CANARY_TOKEN}@{LOOPBACK}:{proxy.port}",
    )
    async with (
        session,
        client_of(server.base_url, session=session, attempts=2, token="the token") as client,
    ):
        if case == "tunnel":
            assert (await client.get_image(VID)).vid == VID
        else:
            error = await failure_of(client)
            assert type(error) is ConnectionFailed
            assert (error.is_lasting, error.attempts) == (False, 2)
            assert_no_secret(error)
    password = b64encode(f"user:{CANARY_TOKEN}".encode())
    connects = [b"\r\nProxy-Authorization: Basic " + password in each for each in proxy.requests]
    assert connects == ([True] if case == "tunnel" else [True, True])
    assert not any(b"the token" in received for received in proxy.connection_bytes)
    assert len(server.requests) == (case == "tunnel")
    for request in server.requests:
        assert b"\r\nAuthorization: the token\r\n" in request
        assert b"proxy" not in request.lower()
        assert CANARY_TOKEN.encode() not in request
        assert password not in request


# -- TLS -------------------------------------------------------------------------------------------


def session_with(context: ssl.SSLContext) -> aiohttp.ClientSession:
    """Make a user's session that trusts the test's authority."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def test_tls(raw_server: RawServerFactory, tls_pair: TlsPair) -> None:
    """A certificate that fits is fine."""
    server = await raw_server(GOOD, tls=tls_pair.server)
    async with (
        session_with(tls_pair.client) as session,
        client_of(server.base_url, session=session) as client,
    ):
        assert (await client.get_image(VID)).vid == VID


@pytest.mark.fault("F-11")
@pytest.mark.parametrize("case", ["unknown authority", "wrong host", "expired"])
async def test_a_certificate_that_does_not_fit(
    raw_server: RawServerFactory, tls_pair: TlsPair, case: str
) -> None:
    """A certificate's fault is told with its reason, not retried, and no token is sent."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = "other.example" if case == "wrong host" else LOOPBACK
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=-1 if case == "expired" else 1)
    authority.issue_cert(name, not_after=until).configure_cert(server_side)
    if case != "unknown authority":
        authority.configure_trust(client_side)
    server = await raw_server(GOOD, tls=server_side)
    async with (
        session_with(client_side) as session,
        client_of(server.base_url, attempts=3, session=session, token=CANARY_TOKEN) as client,
    ):
        error = await failure_of(client)
        assert type(error) is ConnectionFailed
        assert error.is_lasting
        assert error.attempts == 1
        said = {
            "unknown authority": "unable to get local issuer certificate",
            "wrong host": "certificate is not valid for '127.0.0.1'",
            "expired": "certificate has expired",
        }
        assert f"The certificate of {LOOPBACK}:{server.port} does not fit: " in error.message
        assert said[case] in error.message
        assert_no_secret(error)
    assert server.requests == []
    assert server.connections <= 1


@pytest.mark.fault("F-11")
async def test_our_own_session_checks_certificates(
    raw_server: RawServerFactory, tls_pair: TlsPair
) -> None:
    """Without a session of the user's, the system's authorities count."""
    server = await raw_server(GOOD, tls=tls_pair.server)
    async with client_of(server.base_url, attempts=3) as client:
        error = await failure_of(client)
    assert error.is_lasting
    assert server.requests == []


@pytest.mark.fault("F-11")
async def test_plain_http_on_a_tls_port(raw_server: RawServerFactory, tls_pair: TlsPair) -> None:
    """A server that speaks no TLS is an error of the connection; it gets no token."""

    async def speak_first(connection: RawConnection) -> None:
        await connection.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    server = await raw_server(speak_first)
    base_url = server.base_url.replace("http:", "https:")
    async with (
        session_with(tls_pair.client) as session,
        client_of(base_url, session=session) as client,
    ):
        error = await failure_of(client)
        assert type(error) is ConnectionFailed
        assert f"{LOOPBACK}:{server.port}" in error.message
        assert not error.is_lasting
    assert not any(b"token" in received for received in server.connection_bytes)


@pytest.mark.fault("F-11")
async def test_a_reset_in_the_handshake(raw_server: RawServerFactory, tls_pair: TlsPair) -> None:
    """A connection lost in the handshake may work the next time."""
    server = await raw_server(reset(read=False))
    base_url = server.base_url.replace("http:", "https:")
    async with (
        session_with(tls_pair.client) as session,
        client_of(base_url, session=session, attempts=3) as client,
    ):
        error = await failure_of(client)
        assert type(error) is ConnectionFailed
        assert not error.is_lasting
    assert server.connections == 3


@pytest.mark.fault("F-11")
@looptime
async def test_a_handshake_without_end(raw_server: RawServerFactory, tls_pair: TlsPair) -> None:
    """A server that falls silent in the handshake is a connection not made in time."""
    server = await raw_server(hold(read=False))
    base_url = server.base_url.replace("http:", "https:")
    async with (
        session_with(tls_pair.client) as session,
        client_of(base_url, session=session, timeouts=Timeouts(connect=3)) as client,
    ):
        error = await failure_of(client)
        assert type(error) is RequestTimedOut
        assert error.phase == "connecting"
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.2)


# -- the user's own session ------------------------------------------------------------------------


async def test_a_given_session_is_used_and_not_closed(raw_server: RawServerFactory) -> None:
    """A session of the user's serves the requests, and is open when the client is closed."""
    server = await raw_server(answer_each(echo))
    async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
        async with client_of(server.base_url, session=session) as client:
            await client.get_image(VID)
        assert not session.closed
        async with session.get(f"{server.base_url}/image/{VID}") as response:
            assert response.status == 200
    assert server.connections == 1
    assert all(b"X-Mine: yes" in request for request in server.requests)


async def test_middlewares_and_traces_of_a_given_session_run(raw_server: RawServerFactory) -> None:
    """Middlewares in their order, and traces, see every request; the order is the user's."""
    seen = []

    def middleware(name: str) -> aiohttp.ClientMiddlewareType:
        async def run(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            seen.append(name)
            return await handler(request)

        return run

    async def started(*_: Any) -> None:
        seen.append("trace")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    server = await raw_server(hang_up(), GOOD)
    session = aiohttp.ClientSession(
        middlewares=[middleware("outer"), middleware("inner")], trace_configs=[trace]
    )
    async with session, client_of(server.base_url, session=session, attempts=2) as client:
        await client.get_image(VID)
    assert seen == ["trace", "outer", "inner"] * 2
    assert len(server.requests) == 2


async def test_a_session_that_raises_for_status(raw_server: RawServerFactory) -> None:
    """A given session's own taste in statuses does not turn answers into broken HTTP."""
    server = await raw_server(MISSING)
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        client_of(server.base_url, session=session) as client,
    ):
        assert type(await failure_of(client)) is ImageNotFound


@pytest.mark.parametrize("from_netrc", [True, False])
async def test_a_session_with_credentials_of_its_own(
    raw_server: RawServerFactory,
    from_netrc: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two credentials for one request are a mistake that is told; nothing is sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {LOOPBACK} login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = await raw_server(GOOD)
    if from_netrc:
        session = aiohttp.ClientSession(trust_env=True)
    else:
        session = aiohttp.ClientSession()
        with pytest.warns(DeprecationWarning, match="BasicAuth"):
            session._default_auth = aiohttp.BasicAuth("me", "hush")
    async with session, client_of(server.base_url, session=session, attempts=3) as client:
        error = await failure_of(client)
    assert type(error) is ConfigurationError
    assert "netrc" in error.hint
    assert server.requests == []


async def test_a_session_that_is_closed(raw_server: RawServerFactory) -> None:
    """A session that its owner closed is told as such; nothing was sent."""
    server = await raw_server(GOOD)
    session = aiohttp.ClientSession()
    async with client_of(server.base_url, session=session, attempts=3) as client:
        await client.get_image(VID)
        await session.close()
        error = await outcome(client.get_image(VID))
        assert isinstance(error, ClientClosed)
        assert error.message == "The aiohttp session is closed."
        assert error.attempts == 0


@pytest.mark.fault("F-16")
@pytest.mark.parametrize("doing", ["waiting for the answer", "waiting for a connection"])
async def test_a_session_that_is_closed_meanwhile(raw_server: RawServerFactory, doing: str) -> None:
    """E16: who runs or waits when the session is closed gets `ClientClosed`, no cancellation."""
    server = await raw_server(hold())
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    async with client_of(server.base_url, session=session, attempts=3) as client:
        running = asyncio.create_task(outcome(client.get_image(VID)))
        await server.wait_for(lambda: server.requests)
        if doing == "waiting for a connection":
            waiting = asyncio.create_task(outcome(client.get_image(make_vid(1))))
            await turns()
            await session.close()
            assert type(await waiting) is ClientClosed
        await session.close()
        assert type(await running) is ClientClosed
        connector = connector_of(client)
        assert connector is None


@pytest.mark.fault("F-16")
async def test_a_middleware_that_cancels_a_future_of_its_own(raw_server: RawServerFactory) -> None:
    """A cancellation that nobody asked for is a failed connection, and the session is open."""
    server = await raw_server(GOOD)

    async def cancel(*_: Any) -> Any:
        waiter = asyncio.get_running_loop().create_future()
        waiter.cancel()
        await waiter

    async with (
        aiohttp.ClientSession(middlewares=(cancel,)) as session,
        client_of(server.base_url, session=session, attempts=3) as client,
    ):
        error = await failure_of(client)
        assert type(error) is ConnectionFailed
        assert error.message.startswith("Something cancelled the request")
        assert server.requests == []


@pytest.mark.fault("F-15")
@looptime
async def test_a_session_that_allows_no_connection(raw_server: RawServerFactory) -> None:
    """To wait for a place in a given session's pool counts as connecting, and ends in time."""
    server = await raw_server(hold())
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
        client_of(
            server.base_url, session=session, timeouts=Timeouts(connect=3, read=20)
        ) as client,
    ):
        first = asyncio.create_task(outcome(client.get_image(VID)))
        await server.wait_for(lambda: server.requests)
        error = await outcome(client.get_image(make_vid(1)))
        assert isinstance(error, RequestTimedOut)
        assert error.phase == "connecting"
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.1)
        assert isinstance(await first, RequestTimedOut)


@pytest.mark.fault("F-107")
def test_a_session_of_another_loop() -> None:
    """A session made in another event loop is refused with a clear text."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def use(session: aiohttp.ClientSession) -> object:
        async with client_of("http://localhost:1", session=session) as client:
            return await outcome(client.get_image(VID))

    with asyncio.Runner() as first:
        session = first.run(make())
        with asyncio.Runner() as second:
            error = second.run(use(session))
        assert isinstance(error, ConfigurationError)
        assert "belongs to another event loop" in error.message
        first.run(session.close())


async def test_a_middleware_that_raises(raw_server: RawServerFactory) -> None:
    """What the user's own middleware raises comes out as it is, or as what it says of the network."""
    raised = 0

    async def broken(request: Any, handler: Any) -> Any:
        nonlocal raised
        raised += 1
        raise error

    server = await raw_server(GOOD)
    async with (
        aiohttp.ClientSession(middlewares=[broken]) as session,
        client_of(server.base_url, session=session) as client,
    ):
        error: Exception = LookupError("mine")
        with pytest.raises(LookupError, match="mine"):
            await client.get_image(VID)
        assert is_idle(client)
        error = aiohttp.ClientConnectionError("with http://address")
        assert (await failure_of(client)).message == (
            f"Lost the connection to {LOOPBACK}:{server.port} for image {VID}:"
            " ClientConnectionError."
        )
        for lost in (aiohttp.ServerDisconnectedError(), aiohttp.ClientOSError(32, "Broken pipe")):
            error, raised = lost, 0
            assert type(await failure_of(client)) is ConnectionFailed
            assert raised == 1, "aiohttp made its own second attempt"
        error = aiohttp.ClientHttpProxyError(None, (), status=407)  # type: ignore[arg-type]
        found = await failure_of(client)
        assert type(found) is ConnectionFailed
        assert found.message.startswith(f"Cannot connect to {LOOPBACK}:{server.port} for ")
        error = aiohttp.http_exceptions.TransferEncodingError("zz")
        assert type(await failure_of(client)) is ProtocolError
        error = TimeoutError()
        assert type(await failure_of(client)) is RequestTimedOut
        error = OSError(24, "Too many open files")
        assert "Too many open files" in (await failure_of(client)).message


async def test_a_middleware_that_answers_itself(raw_server: RawServerFactory) -> None:
    """An answer that a middleware made, without a connection, is fine; discarding it does no harm."""
    server = await raw_server(GOOD, answer_each(lambda request, n: record_response(make_vid(1))))
    kept: list[aiohttp.ClientResponse] = []

    async def cached(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.response_class = aiohttp.ClientResponse  # one without a trace of ours
        kept.append(await handler(request))
        return kept[-1]

    async with (
        aiohttp.ClientSession(middlewares=[cached]) as session,
        client_of(server.base_url, session=session) as client,
    ):
        assert (await client.get_image(VID)).vid == VID
        assert type(await failure_of(client, make_vid(2))) is ProtocolError
    assert len(kept) == 2


# -- with aiohttp mocked ---------------------------------------------------------------------------

URL = f"http://localhost/api/image/{VID}"


async def test_a_mocked_answer(responses: aioresponses) -> None:
    """Users who mock aiohttp get their answers, with the headers that were sent."""
    responses.get(URL, payload=sample_record(VID))
    async with client_of("http://localhost/api", token="mine") as client:
        assert (await client.get_image(VID)).vid == VID
    ((sent,),) = responses.requests.values()
    assert sent.kwargs["headers"]["Authorization"] == "mine"
    assert sent.kwargs["allow_redirects"] is False
    assert sent.kwargs["raise_for_status"] is False
    assert sent.kwargs["auto_decompress"] is False


async def test_mocked_errors(responses: aioresponses) -> None:
    """Mocked statuses and exceptions become the errors they stand for."""
    responses.get(URL, status=503)
    responses.get(URL, status=401)
    responses.get(URL, exception=aiohttp.ServerDisconnectedError())
    responses.get(URL, exception=aiohttp.ClientPayloadError(CANARY_TOKEN))
    responses.get(URL, exception=aiohttp.SocketTimeoutError())
    expected = [
        ServerError,
        AuthenticationFailed,
        ConnectionFailed,
        ProtocolError,
        RequestTimedOut,
    ]
    async with client_of("http://localhost/api") as client:
        for kind in expected:
            error = await failure_of(client)
            assert type(error) is kind
            assert_no_secret(error)


async def test_a_mocked_answer_for_another_image(responses: aioresponses) -> None:
    """A mocked answer has no connection that could be closed, and is refused all the same."""
    responses.get(
        URL, callback=lambda url, **options: CallbackResult(payload=sample_record(make_vid(1)))
    )
    async with client_of("http://localhost/api") as client:
        assert type(await failure_of(client)) is ProtocolError
