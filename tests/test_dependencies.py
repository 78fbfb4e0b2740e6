"""
What our dependencies do today, where we rest on it or guard against it.

The numbers are those of docs/facts.md; the mark `fact` says them to a program, and
test_fault_catalogue.py holds that each number in our code has a test. A test that fails after an
upgrade means that a guard of ours can go, or that a new one is needed. This file is about aiohttp
and the wire; what URLs, ids and values become is in test_dependencies_values.py.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import pickle
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .canary import CANARY_TOKEN, SecretLeaked, assert_no_secret
from .raw_server import (
    LOOPBACK,
    Behaviour,
    RawServer,
    answer,
    drip,
    hang_up,
    hold,
    http_response,
    intrude,
    record_response,
    reset,
    script,
)


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
OTHER_VID = "8eb18100-3aa0-11ee-a8b4-73df6b5af037"
OK = record_response(VID)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a plain session, which waits no longer than a second."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
        yield session


async def read(session: aiohttp.ClientSession, url: str, **options: Any) -> bytes:
    """Get *url* and read the body."""
    async with session.get(url, **options) as response:
        return await response.read()


class NoUsableAnswer(aiohttp.ClientError):
    """What `without_second_attempt` raises: a ClientError that aiohttp does not know."""


async def without_second_attempt(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Turn the two errors after which aiohttp asks again into another one."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass
    raise NoUsableAnswer


# --- E1: the hidden second attempt ----------------------------------------------------------------


WITHOUT_ANSWER = {
    "closed": hang_up(),
    "reset": reset(),
    "cut in the headers": hang_up(b"HTTP/1.1 200 O"),
}


@pytest.mark.fact("E1")
@pytest.mark.parametrize("end", WITHOUT_ANSWER)
async def test_e1_asks_twice(session: aiohttp.ClientSession, end: str) -> None:
    """E1: aiohttp sends a GET twice, each on a fresh connection, if there is no answer."""
    async with RawServer(WITHOUT_ANSWER[end]) as server:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await session.get(server.base_url)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.fact("E1")
@pytest.mark.parametrize("end", WITHOUT_ANSWER)
@pytest.mark.parametrize("place", ["session", "request"])
async def test_e1_asks_once_if_a_middleware_changes_the_error(end: str, place: str) -> None:
    """E1: no second attempt if a middleware, of session or request, raises another ClientError."""
    of_session = (without_second_attempt,) if place == "session" else ()
    of_request = (without_second_attempt,) if place == "request" else None
    async with (
        RawServer(WITHOUT_ANSWER[end]) as server,
        aiohttp.ClientSession(middlewares=of_session) as session,
    ):
        with pytest.raises(NoUsableAnswer):
            await session.get(server.base_url, middlewares=of_request)
    assert (len(server.requests), server.connections) == (1, 1)


@pytest.mark.fact("E1")
@pytest.mark.parametrize("end", [hang_up(read=False), reset(read=False)], ids=["FIN", "RST"])
async def test_e1_second_attempt_hides_a_stale_connection(
    session: aiohttp.ClientSession, end: Behaviour
) -> None:
    """E1: only the hidden attempt helps if the server closed a kept connection unnoticed."""
    async with RawServer(script(answer(OK), end)) as server:
        await read(session, server.base_url)
        await read(session, server.base_url)
        with pytest.raises(NoUsableAnswer):
            await read(session, server.base_url, middlewares=(without_second_attempt,))
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.fact("E1")
async def test_e1_middlewares_of_a_request_replace_those_of_the_session() -> None:
    """E1: a session's own middlewares do not run for a request that brings some."""
    async with (
        RawServer(hang_up()) as server,
        aiohttp.ClientSession(middlewares=(without_second_attempt,)) as session,
    ):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(server.base_url, middlewares=())
    assert len(server.requests) == 2


@pytest.mark.fact("E2")
async def test_e2_attempts_multiply(session: aiohttp.ClientSession) -> None:
    """E2: in an outage, three attempts of one's own around aiohttp's two are six requests a call."""
    async with RawServer(hang_up()) as server:
        for _ in range(5 * 3):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(server.base_url)
    assert len(server.requests) == 5 * 6


# --- E5 to E11: bodies and framing ----------------------------------------------------------------


@pytest.mark.fact("E5")
@pytest.mark.fact("E6")
async def test_e5_errors_show_the_token(session: aiohttp.ClientSession) -> None:
    """E5: the repr and the traceback of aiohttp's errors show the token, and our scanner sees it."""
    async with RawServer(b"not HTTP\r\n\r\n") as server:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.get(server.base_url, headers={"Authorization": CANARY_TOKEN})
    with pytest.raises(SecretLeaked, match=r"repr.*traceback"):
        assert_no_secret(caught.value)
    with pytest.raises(TypeError):  # E6
        pickle.dumps(caught.value)


@pytest.mark.fact("E7")
async def test_e7_unasked_response_shifts_all_answers(session: aiohttp.ClientSession) -> None:
    """E7: a response that comes on an idle connection is taken for the answer to the next request."""
    shifted = script(
        answer(OK),
        intrude(record_response(OTHER_VID), 0.01),
        answer(OK),
    )
    vids = []
    async with RawServer(shifted) as server:
        for _ in range(2):
            vids.append(json.loads(await read(session, server.base_url))["vid"])
            await asyncio.sleep(0.03)
    assert vids == [VID, OTHER_VID]


@pytest.mark.fact("E8")
@pytest.mark.parametrize("cut", [8, 20])
async def test_e8_cut_gzip_is_not_noticed(session: aiohttp.ClientSession, cut: int) -> None:
    """E8: a gzip body without its end is read as a shorter body; undecoded, all its bytes come."""
    whole = gzip.compress(bytes(range(256)), mtime=0)
    response_bytes = http_response(body=whole[:-cut], headers={"Content-Encoding": "gzip"})
    async with RawServer(response_bytes) as server:
        assert bytes(range(256)).startswith(await read(session, server.base_url))
        undecoded = await read(session, server.base_url, auto_decompress=False)
    assert undecoded == whole[:-cut]


@pytest.mark.fact("E9")
async def test_e9_cut_body_without_length_is_not_noticed(session: aiohttp.ClientSession) -> None:
    """E9: without a length a body is as long as the connection lived."""
    async with (
        RawServer(hang_up(http_response(body=b"{", headers={"Content-Length": None}))) as server,
        session.get(server.base_url) as response,
    ):
        assert await response.read() == b"{"


@pytest.mark.fact("E10")
async def test_e10_bomb_is_inflated_whole_by_read(session: aiohttp.ClientSession) -> None:
    """E10: `read()` inflates whatever comes, `iter_chunked` can be left at a cap of one's own."""
    size = 8 * 2**20
    bomb = zlib.compress(bytes(size))
    assert len(bomb) < size / 500
    async with RawServer(
        http_response(body=bomb, headers={"Content-Encoding": "deflate"})
    ) as server:
        assert len(await read(session, server.base_url)) == size
        async with session.get(server.base_url) as response:
            async for chunk in response.content.iter_chunked(2**16):
                assert len(chunk) <= 2**16
                break


BROKEN = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": http_response(body=b"{}", headers={"Transfer-Encoding": "chunked"}),
    "negative length": http_response(headers={"Content-Length": "-1"}),
    "signed length": http_response(headers={"Content-Length": "+5"}),
    "huge length": http_response(headers={"Content-Length": str(2**70)}),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "large header": http_response(headers={"X": "x" * 100_000}),
    "many headers": http_response(headers={f"X-{n}": "1" for n in range(10_000)}),
    "NUL in a header": http_response(headers={"X": "a\0b"}),
}


@pytest.mark.fact("E11")
@pytest.mark.parametrize("kind", BROKEN)
async def test_e11_parser_errors_look_like_status_400(
    session: aiohttp.ClientSession, kind: str
) -> None:
    """E11: broken HTTP is a ClientResponseError with status 400, like an answer of the API."""
    async with RawServer(hang_up(BROKEN[kind])) as server:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await session.get(server.base_url)
    assert caught.value.status == 400


# --- E12 to E16: time, odd answers, closing -------------------------------------------------------


@pytest.mark.fact("E12")
async def test_e12_two_kinds_of_timeout(session: aiohttp.ClientSession) -> None:
    """E12: the total timeout is a bare TimeoutError without text, sock_read's a ClientError too."""
    async with RawServer(hold()) as server:
        with pytest.raises(TimeoutError, match=r"^$") as caught:
            await session.get(server.base_url, timeout=aiohttp.ClientTimeout(total=0.02))
        assert not isinstance(caught.value, aiohttp.ClientError)
        with pytest.raises(aiohttp.SocketTimeoutError) as caught:
            await session.get(server.base_url, timeout=aiohttp.ClientTimeout(sock_read=0.02))
        assert isinstance(caught.value, TimeoutError)
    assert len(server.requests) == 2


@pytest.mark.fact("E13")
async def test_e13_slow_drip_passes_sock_read(virtual_time: float) -> None:
    """E13: `sock_read` never fires while single bytes come in time."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=1)
    async with (
        RawServer(drip(OK, 0.9, size=20)) as server,
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(server.base_url) as response,
    ):
        await response.read()
    assert virtual_time > 25


@pytest.mark.fact("E14")
async def test_e14_json_of_nothing_is_none(session: aiohttp.ClientSession) -> None:
    """E14: `json()` of an empty body is None."""
    async with RawServer(http_response()) as server, session.get(server.base_url) as response:
        assert await response.json() is None


@pytest.mark.fact("E15")
@pytest.mark.parametrize("status", [99, 600, 999])
async def test_e15_odd_status_is_accepted(session: aiohttp.ClientSession, status: int) -> None:
    """E15: any three digits are a status."""
    async with RawServer(http_response(status)) as server, session.get(server.base_url) as response:
        assert response.status == status


@pytest.mark.fact("E16")
async def test_e16_closing_cancels_who_waits_for_a_connection() -> None:
    """E16: `close()` raises CancelledError, ClientConnectionError or RuntimeError, by the phase."""
    async with RawServer(hold()) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        sent = asyncio.create_task(session.get(server.base_url))
        await server.wait_for(lambda: server.requests)
        waiting = asyncio.create_task(session.get(server.base_url))
        await asyncio.sleep(0)
        await session.close()
        await asyncio.wait({sent, waiting})
        assert waiting.cancelled()
        assert waiting.cancelling() == 0
        assert isinstance(sent.exception(), aiohttp.ClientConnectionError)
        with pytest.raises(RuntimeError):
            await session.get(server.base_url)


# --- E17, E32, E33: what is sent ------------------------------------------------------------------


@pytest.mark.fact("E17")
@pytest.mark.parametrize("character", "\r\n\0\x01\x7f")
async def test_e17_control_character_in_a_token(
    session: aiohttp.ClientSession, character: str
) -> None:
    """E17: a control character in a header raises a ValueError, after connecting."""
    async with RawServer(OK) as server:
        with pytest.raises(ValueError):
            await session.get(server.base_url, headers={"Authorization": f"to{character}ken"})
        await server.wait_for(lambda: server.connections == 1)
    assert server.requests == []


@pytest.mark.fact("E17")
@pytest.mark.parametrize(
    ("token", "sent"),
    [
        ("to ken", b"to ken"),
        ("to\tken", b"to\tken"),
        ("tök", "tök".encode()),
        ("", b""),
        ("\ud800", b""),
    ],
)
async def test_e17_odd_token_is_sent(
    session: aiohttp.ClientSession, token: str, sent: bytes
) -> None:
    """E17: everything else is sent, and a lone surrogate empties the header."""
    async with RawServer(OK) as server:
        await read(session, server.base_url, headers={"Authorization": token})
    assert re.findall(rb"Authorization: ?(.*)\r\n", server.requests[0]) == [sent]


@pytest.mark.fact("E32")
async def test_e32_userinfo_becomes_a_header(session: aiohttp.ClientSession) -> None:
    """E32: name and password of a URL are sent as basic authentication."""
    async with RawServer(OK) as server:
        await read(session, server.base_url.replace("//", "//user:pw@"))
    assert b"Authorization: Basic " + base64.b64encode(b"user:pw") in server.requests[0]


@pytest.mark.fact("E33")
@pytest.mark.parametrize("trust_env", [True, False])
async def test_e33_a_netrc_file_becomes_a_header(
    trust_env: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E33: with *trust_env* a netrc file's password goes to its host, and without it nowhere."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {LOOPBACK} login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer(OK) as server, aiohttp.ClientSession(trust_env=trust_env) as session:
        await read(session, server.base_url)
    sent = b"Authorization: Basic " + base64.b64encode(b"me:hush")
    assert (sent in server.requests[0]) == trust_env
