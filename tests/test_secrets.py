"""
A token and a presigned signature go through everything that can go wrong, and show up nowhere.

What is logged, warned about and printed is watched in every test, by `canary.py` and conftest.py.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Coroutine
from typing import Any

import aiohttp
import attrs
import pytest

from kokoon_async import KokoonClient, errors
from kokoon_async._http.auth import Secret
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.retry import RetryPolicy
from kokoon_async.errors import KokoonError
from kokoon_async.events import Event
from kokoon_async.polling import Fixed

from .canary import (
    CANARY_SIGNATURE,
    CANARY_TOKEN,
    assert_no_secret,
    contains_secret,
    presigned_url,
    secret_sinks,
)
from .conftest import RawServerFactory
from .fakes import VID, client_of, make_vid, turns
from .raw_server import (
    Behaviour,
    answer,
    drip,
    hang_up,
    hold,
    http_response,
    record_response,
    reset,
)


pytestmark = [pytest.mark.fault("F-120"), pytest.mark.looptime]

SIGNED = {"url": presigned_url(), "thumb_url": presigned_url("/thumb.png")}
GOOD = record_response(VID, **SIGNED)
ECHO = f"the token {CANARY_TOKEN} is unknown, see {presigned_url()}"
ESCAPED = f"the token {CANARY_TOKEN} is".replace("/", "\\/")


def refusal(status: int, body: object = None, **headers: str) -> bytes:
    """Build an error that repeats what it was sent."""
    raw = body if isinstance(body, bytes) else json.dumps(body or {"message": ECHO}).encode()
    echoed = {"WWW-Authenticate": CANARY_TOKEN, "X-Signed": presigned_url(), **headers}
    return http_response(status, raw, headers=echoed)


# By name: how the server behaves, and which class of error comes of it.
CASES: dict[str, tuple[Behaviour | bytes, type[KokoonError]]] = {
    "closed": (hang_up(), errors.ConnectionFailed),
    "reset": (reset(GOOD[:40], pause=0.001), errors.ConnectionFailed),
    "silent": (hold(), errors.RequestTimedOut),
    "silent half-way": (hold(GOOD[:-20]), errors.RequestTimedOut),
    "dripping": (drip(GOOD, 1.0), errors.RequestTimedOut),
    "cut": (hang_up(GOOD[:-20]), errors.ProtocolError),
    "cut, without length": (
        hang_up(
            http_response(body=GOOD.split(b"\r\n\r\n")[1][:-20], headers={"Content-Length": None})
        ),
        errors.ProtocolError,
    ),
    "no http": (hang_up(CANARY_TOKEN.encode() + b"\r\n\r\n"), errors.ProtocolError),
    "bad header": (
        http_response(headers={"X Y": CANARY_TOKEN, "Z": presigned_url()}),
        errors.ProtocolError,
    ),
    "status 999": (refusal(999), errors.ProtocolError),
    "wrong vid": (record_response(make_vid(1), **SIGNED), errors.ProtocolError),
    "wrong type": (record_response(VID, state=5, **SIGNED), errors.UnexpectedResponse),
    "wrong url": (record_response(VID, state=[ECHO]), errors.UnexpectedResponse),
    "page": (http_response(body=f"<p>{ECHO}</p>".encode()), errors.UnexpectedResponse),
    "page, cut": (
        http_response(body=b"x" * 150 + CANARY_TOKEN.encode()),
        errors.UnexpectedResponse,
    ),
    "list": (http_response(body=json.dumps([ECHO]).encode()), errors.UnexpectedResponse),
    "redirect": (refusal(302, Location=presigned_url()), errors.UnexpectedResponse),
    "message": (refusal(200), errors.ApiError),
    "escaped message": (
        refusal(200, f'{{"message": "{ESCAPED}"}}'.encode()),
        errors.ApiError,
    ),
    "400": (refusal(400), errors.InvalidRequest),
    "401": (refusal(401), errors.AuthenticationFailed),
    "402": (refusal(402), errors.InsufficientCredit),
    "403": (refusal(403), errors.AuthenticationFailed),
    "404": (refusal(404), errors.ImageNotFound),
    "429": (refusal(429, **{"Retry-After": "1000"}), errors.RateLimited),
    "500": (refusal(500, f"<pre>{ECHO}".encode()), errors.ServerError),
    "503, cut": (
        hang_up(refusal(503, **{"Content-Length": "100000"})),
        errors.ServerError,
    ),
}


@attrs.define
class Heard:
    """What a client told its hooks."""

    events: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self.events.append(event)
        assert_no_secret(event)


async def raised_by(work: Coroutine[Any, Any, object]) -> BaseException:
    """Give what a coroutine raises, a cancellation too."""
    try:
        await work
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        return error
    pytest.fail("nothing was raised")


def assert_clean(error: BaseException, kind: type[BaseException]) -> None:
    """Check an error in every way in which it could be looked at, and that it is alone."""
    assert type(error) is kind
    assert_no_secret(error)
    assert error.__cause__ is error.__context__ is None
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert str(twin) == str(error)
        assert_no_secret(twin)


@pytest.mark.parametrize("name", CASES)
async def test_no_error_shows_a_secret(raw_server: RawServerFactory, name: str) -> None:
    """Whatever the server does or repeats, error, traceback, events, log and client show nothing."""
    behaviour, kind = CASES[name]
    server = await raw_server(behaviour)
    heard = Heard()
    async with client_of(
        server.base_url,
        attempts=2,
        token=CANARY_TOKEN,
        hooks=[heard],
        timeouts=Timeouts(read=5, total=20),
    ) as client:
        error = await raised_by(client.get_image(VID))
        assert_clean(error, kind)
        assert_no_secret(client)
        assert_no_secret(client._calls)
        async with client.get_images([VID]) as outcomes:
            async for outcome in outcomes:
                assert type(outcome.error) is kind
                assert_no_secret(outcome)
                assert_no_secret(outcome.error)
        assert server.requests
        assert all(CANARY_TOKEN.encode() in request for request in server.requests)
    assert_no_secret(client)


@pytest.mark.parametrize("kind", ["state error", "timeout", "outage", "gone"])
async def test_no_wait_error_shows_a_secret(raw_server: RawServerFactory, kind: str) -> None:
    """Errors of waits, which carry the record as last seen, carry no signature."""
    state = "error" if kind == "state error" else "processing"
    seen = record_response(VID, state=state, **SIGNED)
    after = {"outage": hang_up(), "gone": refusal(404)}.get(kind, seen)

    async def behave(connection: Any) -> None:
        await connection.read_request()
        await connection.write(seen)

    server = await raw_server(behave, after)
    expected = {
        "state error": errors.ImageFailed,
        "timeout": errors.WaitTimedOut,
        "outage": errors.WaitOutage,
        "gone": errors.ImageNotFound,
    }[kind]
    heard = Heard()
    async with client_of(server.base_url, token=CANARY_TOKEN, hooks=[heard]) as client:
        error = await raised_by(client.wait_until_completed(VID, timeout=300, poll=Fixed(5)))
        assert_clean(error, expected)
    assert heard.events


async def test_no_provider_error_shows_a_secret() -> None:
    """What a token provider raises or gives shows no token either."""

    def raising() -> str:
        raise ValueError(ECHO)

    async def giving() -> str:
        return f"{CANARY_TOKEN}\n\n"

    for provider, kind in (
        (raising, errors.AuthenticationFailed),
        (giving, errors.ConfigurationError),
    ):
        async with client_of("http://127.0.0.1:9", token=provider) as client:
            assert_clean(await raised_by(client.get_image(VID)), kind)
            assert_no_secret(client)


async def test_no_refused_connection_shows_a_secret() -> None:
    """A connection that cannot be made at all shows nothing."""
    async with client_of("http://127.0.0.1:9", token=CANARY_TOKEN) as client:
        assert_clean(await raised_by(client.get_image(VID)), errors.ConnectionFailed)


async def test_no_closing_shows_a_secret(raw_server: RawServerFactory) -> None:
    """`ClientClosed`, meanwhile and afterwards, shows nothing."""
    server = await raw_server(hold(GOOD[:-20]))
    client = KokoonClient(CANARY_TOKEN, base_url=server.base_url)
    call = asyncio.create_task(client.get_image(VID))
    await server.wait_for(lambda: server.requests)
    await client.aclose()
    assert_clean(await raised_by(_result(call)), errors.ClientClosed)
    assert_clean(await raised_by(client.get_image(VID)), errors.ClientClosed)
    assert_no_secret(client)


async def _result(task: asyncio.Task[Any]) -> Any:
    return await task


PLACES: dict[str, Behaviour] = {
    "connected": hold(read=False),
    "waiting": hold(),
    "in the headers": hold(GOOD[:40]),
    "in the body": hold(GOOD[:-20]),
    "in an error": hold(refusal(503)[:-20]),
    "pausing": hang_up(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_no_cancellation_shows_a_secret(
    raw_server: RawServerFactory, place: str, how: str
) -> None:
    """A cancelled call's traceback ends before the frames of aiohttp, whose locals hold headers."""
    server = await raw_server(PLACES[place])
    async with client_of(
        server.base_url,
        token=CANARY_TOKEN,
        retry=RetryPolicy(base=1e6, cap=1e6),
        timeouts=Timeouts(total=None, read=None),
    ) as client:

        async def call() -> None:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await client.get_image(VID)

        limits: list[asyncio.Timeout] = []
        task = asyncio.create_task(call())
        await server.wait_for(lambda: server.connections)
        await turns(20)
        if how == "cancel":
            task.cancel("by the test")
        else:
            limits[0].reschedule(0)
        error = await raised_by(_result(task))
        assert isinstance(error, asyncio.CancelledError if how == "cancel" else TimeoutError)
        assert_no_secret(error)
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        assert not [name for name in frames if "aiohttp" in name]


async def test_no_foreign_error_shows_a_secret(raw_server: RawServerFactory) -> None:
    """A user's middleware may raise through aiohttp's frames: the token is not in their locals."""

    async def broken(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await handler(request)
        raise LookupError("mine")

    server = await raw_server(http_response(404, b"{}"))
    async with (
        aiohttp.ClientSession(middlewares=[broken]) as session,
        client_of(server.base_url, token=CANARY_TOKEN, session=session) as client,
    ):
        error = await raised_by(client.get_image(VID))
        assert isinstance(error, LookupError)
        assert_no_secret(error)
        await asyncio.sleep(0.01)


@pytest.mark.fault("F-121")
async def test_no_debug_mode_shows_a_secret(
    raw_server: RawServerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """With asyncio's debug mode and every logger on, nothing that is logged shows a secret."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.0
    loop.set_debug(True)
    try:
        server = await raw_server(hang_up(GOOD[:-20]), answer(refusal(503)), GOOD)
        async with client_of(server.base_url, token=CANARY_TOKEN, attempts=3) as client:
            image = await client.get_image(VID)
    finally:
        loop.set_debug(False)
    assert "Executing" in caplog.text, "asyncio's debug mode did not log"
    assert not contains_secret(caplog.text)
    assert not contains_secret(repr(image) + str(image))
    assert CANARY_SIGNATURE in str(image.url), "the record itself is whole"


def test_the_canary_sings() -> None:
    """The instrument finds what it is there to find: a token in an error of aiohttp (E5)."""
    headers = {"Authorization": CANARY_TOKEN}
    with pytest.raises(LookupError) as caught:
        _raise_with(headers)
    assert not contains_secret(str(caught.value))
    assert contains_secret(secret_sinks(KokoonError(ECHO))["str"])
    assert not contains_secret(repr({"Authorization": Secret(CANARY_TOKEN)}))


def _raise_with(headers: dict[str, str]) -> None:
    raise LookupError("mine")
