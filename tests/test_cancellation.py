"""
Cancelled at every point of a call, once and twice: nothing is left, and the client still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal

import aiohttp
import pytest

from kokoon_async import KokoonClient
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.retry import RetryPolicy
from kokoon_async._http.throttle import Limits

from .cancellation import MODES, Mode, Scenario, ScenarioFactory, cancel_everywhere
from .fakes import VID, is_idle, make_vid
from .raw_server import (
    Behaviour,
    RawConnection,
    RawServer,
    answer,
    hang_up,
    http_response,
    record_response,
    script,
)


Times = Literal[1, 2]

both_times = pytest.mark.parametrize("times", [1, 2])
own_modes = pytest.mark.parametrize("mode", ["turns", "suspensions"])
all_modes = pytest.mark.parametrize("mode", MODES)
cancelled_anywhere = pytest.mark.fault("F-105")

GOOD = record_response(VID)
REFUSED = http_response(401, b"{}")
BUSY = http_response(429, b"{}", headers={"Retry-After": "0"})


def in_pieces(*pieces: bytes) -> Behaviour:
    """Answer one request in pieces, with turns of the loop between them."""

    async def behave(connection: RawConnection) -> None:
        await connection.read_request()
        for piece in pieces:
            await connection.write(piece)
            await asyncio.sleep(0.001)

    return behave


@contextlib.asynccontextmanager
async def getting_an_image(
    *behaviours: Behaviour | bytes,
    token: Callable[[], Any] | str = "token",
    queue: int = 0,
    own_session: bool = True,
    limits: Limits = Limits(max_in_flight=1),
) -> AsyncIterator[Scenario]:
    """Make the scenario: one call, maybe behind others, that ends well unless it is cancelled."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(RawServer(*behaviours, GOOD))
        session = None
        if not own_session:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(
            KokoonClient(
                token,
                base_url=server.base_url,
                session=session,
                limits=limits,
                retry=RetryPolicy(attempts=4, base=0.001, throttled_base=0.001),
                timeouts=Timeouts(read=5, total=5),
            )
        )
        throttle, loop = client._pipeline._throttle, asyncio.get_running_loop()
        for number in range(queue):
            await throttle.take_turn(make_vid(number), float("inf"))

        def run() -> Coroutine[Any, Any, object]:
            for _ in range(queue):
                loop.call_later(0.001, throttle.done)
            return client.get_image(VID)

        def is_clean() -> bool:
            # Those in the queue's way may still be there.
            throttle._in_flight -= (ahead := min(queue, throttle.in_flight))
            clean = is_idle(client)
            throttle._in_flight += ahead
            return clean

        yield Scenario(run, {"the client is idle": is_clean}, after=lambda: client.get_image(VID))


SCENARIOS: dict[str, ScenarioFactory] = {
    "one answer": getting_an_image,
    "an answer in pieces": functools.partial(
        getting_an_image, in_pieces(GOOD[:20], GOOD[20:250], GOOD[250:300], GOOD[300:])
    ),
    "a used connection": functools.partial(
        getting_an_image, script(answer(BUSY), in_pieces(GOOD[:200], GOOD[200:]), answer(GOOD))
    ),
    "retries": functools.partial(getting_an_image, hang_up(), answer(BUSY), answer(BUSY)),
    "an error in pieces": functools.partial(
        getting_an_image,
        in_pieces(http_response(503, b"x", headers={"Content-Length": "9"}), b"12345678"),
    ),
    "a queue": functools.partial(getting_an_image, queue=1),
    "a rate": functools.partial(getting_an_image, limits=Limits(requests_per_second=500)),
    "the user's session": functools.partial(getting_an_image, own_session=False),
}


@cancelled_anywhere
@both_times
@own_modes
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.unmeasured
def test_get_image_can_be_cancelled_anywhere(name: str, mode: Mode, times: Times) -> None:
    """G10: no task, connection or place is left at any point, and the next call succeeds."""
    report = cancel_everywhere(SCENARIOS[name], mode=mode, times=times)
    assert report.points >= {"turns": 5, "suspensions": 2}[mode]
    # There is nobody to cancel a second time: the call ends in the turn of the first.
    assert report.second == 0


@contextlib.asynccontextmanager
async def refreshing_the_token() -> AsyncIterator[Scenario]:
    """Make the scenario of a first token that is refused, and a second one."""
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return f"token {asked}"

    async with getting_an_image(script(answer(REFUSED), answer(GOOD)), token=provider) as scenario:
        yield scenario


@cancelled_anywhere
@both_times
@all_modes
def test_a_refresh_can_be_cancelled_anywhere(mode: Mode, times: Times) -> None:
    """Cancelled while a token is fetched or refreshed, a call leaves nothing, nor does the refresh."""
    report = cancel_everywhere(refreshing_the_token, mode=mode, times=times)
    assert report.points >= 1


@contextlib.asynccontextmanager
async def closing(server_answers: bool) -> AsyncIterator[Scenario]:
    """Make the scenario of a client that is closed, while a call of it runs or not."""
    async with RawServer(GOOD) as server:
        client = KokoonClient("token", base_url=server.base_url)
        await client.get_image(VID)
        session = client._transport._session
        assert session is not None

        async def run() -> None:
            call = None
            if not server_answers:
                call = asyncio.ensure_future(client.get_image(make_vid(1)))
            try:
                await client.aclose()
            finally:
                if call is not None:
                    call.cancel()

        yield Scenario(run=run, checks={"closed": lambda: session.closed or not client._closed})
        await client.aclose()


@cancelled_anywhere
@both_times
@own_modes
@pytest.mark.parametrize("idle", [True, False])
def test_closing_can_be_cancelled_anywhere(mode: Mode, times: Times, idle: bool) -> None:
    """A close that is cancelled has closed the connections, or not begun."""
    report = cancel_everywhere(lambda: closing(idle), mode=mode, times=times)
    assert report.points >= (mode == "turns")


@cancelled_anywhere
@both_times
@own_modes
@pytest.mark.unmeasured
def test_a_timeout_of_the_callers_own_fires_anywhere(mode: Mode, times: Times) -> None:
    """`asyncio.timeout` around a call hides no cancellation and invents none."""

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Scenario]:
        async with getting_an_image(in_pieces(GOOD[:100], GOOD[100:])) as scenario:

            async def run() -> object:
                async with asyncio.timeout(3):
                    return await scenario.run()

            yield Scenario(run=run, checks=scenario.checks, after=scenario.after)

    report = cancel_everywhere(make, mode=mode, times=times)
    assert report.points > 0
