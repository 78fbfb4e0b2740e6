"""
The cancellation harness finds what it is there to find, and nothing in clean code.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from .cancellation import MODES, CancelFailure, Mode, Scenario, cancel_everywhere
from .raw_server import RawConnection, RawServer, http_response


Times = Literal[1, 2]
Body = Callable[[asyncio.Semaphore], Coroutine[Any, Any, object]]

both_times = pytest.mark.parametrize("times", [1, 2])
own_modes = pytest.mark.parametrize("mode", ["turns", "suspensions"])
all_modes = pytest.mark.parametrize("mode", MODES)


def scenario(body: Body) -> Callable[[], contextlib.AbstractAsyncContextManager[Scenario]]:
    """Make scenarios that run *body* with a semaphore, which must be free afterwards."""

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Scenario]:
        semaphore = asyncio.Semaphore()
        yield Scenario(
            run=lambda: body(semaphore),
            checks={"semaphore is free": lambda: not semaphore.locked()},
            after=semaphore.acquire,
        )

    return make


@both_times
@all_modes
def test_clean_code_passes(mode: Mode, times: Times) -> None:
    """Code that cleans up passes in every mode, and every suspension is tried."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        async with semaphore, asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0.001))
            await asyncio.sleep(0)

    report = cancel_everywhere(scenario(body), mode=mode, times=times)
    # Two suspensions of its own and one of the child.
    assert report.points == {"turns": report.points, "suspensions": 3, "children": 1}[mode]
    assert report.points > 0


@both_times
@own_modes
def test_finds_a_semaphore_that_is_not_released(mode: Mode, times: Times) -> None:
    """A semaphore taken without `try` or `async with` is reported with its place."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        await semaphore.acquire()
        await asyncio.sleep(0.001)
        semaphore.release()

    with pytest.raises(CancelFailure, match=r"body:\d+ > sleep:\d+: check 'semaphore is free'"):
        cancel_everywhere(scenario(body), mode=mode, times=times, limit=1)


@own_modes
def test_finds_a_leak_that_needs_a_second_cancellation(mode: Mode) -> None:
    """A release after an await in the clean-up is only lost if that await is cancelled too."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        await semaphore.acquire()
        try:
            await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0.001)
            semaphore.release()

    with pytest.raises(CancelFailure, match=r"cancelled twice .*semaphore is free"):
        cancel_everywhere(scenario(body), mode=mode, times=2)


def test_the_second_cancellation_comes_after_the_first_was_met() -> None:
    """With one cancellation the clean-up runs to its end, with two it does not."""
    cleaned = []

    async def body(semaphore: asyncio.Semaphore) -> None:
        try:
            await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
            cleaned.append(semaphore)

    cancel_everywhere(scenario(body), mode="suspensions", times=1)
    once = len(cleaned)
    report = cancel_everywhere(scenario(body), mode="suspensions", times=2)
    # The run without cancellation, one at the first sleep, one at the second: and one at the end.
    assert (once, len(cleaned) - once, report.second) == (3, 2, 1)


@both_times
@own_modes
def test_finds_a_swallowed_cancellation(mode: Mode, times: Times) -> None:
    """Code that goes on after a CancelledError is reported."""

    async def body(semaphore: asyncio.Semaphore) -> str:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
        return "a result"

    with pytest.raises(CancelFailure, match="swallowed the cancellation and returned 'a result'"):
        cancel_everywhere(scenario(body), mode=mode, times=times)


@own_modes
def test_finds_a_converted_cancellation(mode: Mode) -> None:
    """Code that turns the CancelledError into an exception of its own is reported."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            raise RuntimeError("stopped") from None

    with pytest.raises(CancelFailure, match="turned the cancellation into RuntimeError"):
        cancel_everywhere(scenario(body), mode=mode)


@all_modes
def test_finds_an_invented_cancellation(mode: Mode) -> None:
    """Code that ends as cancelled although nobody cancelled it is reported."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    with pytest.raises(CancelFailure, match="nobody had cancelled"):
        cancel_everywhere(scenario(body), mode=mode)


@all_modes
def test_finds_a_task_that_is_left(mode: Mode) -> None:
    """A child that outlives its parent is reported."""
    children = set()

    async def body(semaphore: asyncio.Semaphore) -> None:
        children.add(asyncio.create_task(asyncio.sleep(60), name="forgotten"))
        await asyncio.sleep(0.001)

    with pytest.raises(CancelFailure, match="task left: forgotten in sleep:"):
        cancel_everywhere(scenario(body), mode=mode)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@own_modes
def test_finds_a_descriptor_that_is_left(mode: Mode) -> None:
    """A socket that nothing of asyncio or aiohttp knows of any more is reported."""
    kept = []

    async def body(semaphore: asyncio.Semaphore) -> None:
        kept.append(sock := socket.socket())
        await asyncio.sleep(0.001)
        sock.close()

    try:
        with pytest.raises(CancelFailure, match=r"in the end: descriptor left: \d+ -> socket:"):
            cancel_everywhere(scenario(body), mode=mode)
    finally:
        for sock in kept:
            sock.close()


def test_finds_a_hang() -> None:
    """A parent that waits for ever for a cancelled child is reported."""

    async def child(done: asyncio.Event) -> None:
        await asyncio.sleep(0)
        done.set()

    async def body(semaphore: asyncio.Semaphore) -> None:
        done = asyncio.Event()
        task = asyncio.create_task(child(done))
        await done.wait()
        await task

    with pytest.raises(CancelFailure, match="still running at the time limit"):
        cancel_everywhere(scenario(body), mode="children", limit=0.02)


@own_modes
def test_finds_an_exception_nobody_looks_at(mode: Mode) -> None:
    """What the loop's exception handler is told is reported."""

    async def fail() -> None:
        raise RuntimeError("unseen")

    async def body(semaphore: asyncio.Semaphore) -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.001)
        del task

    with pytest.raises(CancelFailure, match=r"never retrieved.*unseen"):
        cancel_everywhere(scenario(body), mode=mode)


def test_finds_what_only_the_next_call_notices() -> None:
    """A failing call afterwards is reported, as is one that is cancelled out of the blue."""
    poisoned = []

    async def body(semaphore: asyncio.Semaphore) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            poisoned.append(True)
            raise

    async def call() -> None:
        if poisoned:
            raise asyncio.CancelledError

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Scenario]:
        yield Scenario(run=lambda: body(asyncio.Semaphore()), after=call)

    with pytest.raises(CancelFailure, match="the call afterwards raised 'CancelledError'"):
        cancel_everywhere(make, mode="suspensions")


def test_the_scenarios_own_error_is_raised() -> None:
    """A scenario that fails without any cancellation is the test's mistake, not a leak."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        cancel_everywhere(scenario(body), mode="suspensions")


@both_times
@own_modes
def test_virtual_time_skips_sleeping(mode: Mode, times: Times) -> None:
    """Ten minutes of waiting costs next to nothing, and idle turns of looptime are not counted."""

    async def body(semaphore: asyncio.Semaphore) -> None:
        async with semaphore:
            for _ in range(10):
                await asyncio.sleep(60)

    report = cancel_everywhere(
        scenario(body), mode=mode, times=times, virtual_time=True, limit=10_000
    )
    assert 10 <= report.points <= 40


async def answer_in_halves(connection: RawConnection) -> None:
    """Answer every request, the second half of the body a second later."""
    response = http_response(body=b"x" * 100)
    while True:
        await connection.read_request()
        await connection.write(response[:-50])
        await asyncio.sleep(1)
        await connection.write(response[-50:])


@contextlib.asynccontextmanager
async def aiohttp_scenario(body: Callable[[aiohttp.ClientSession, str], Any]) -> Any:
    """Make the scenario of E24: two streamed requests with aiohttp."""
    async with (
        RawServer(answer_in_halves) as server,
        aiohttp.ClientSession() as session,
    ):
        connector = session.connector
        assert connector is not None

        async def once_more() -> None:
            async with session.get(server.base_url) as response:
                assert response.status == 200

        yield Scenario(
            run=lambda: body(session, server.base_url),
            checks={"no connection is acquired": lambda: not connector._acquired},
            after=once_more,
        )


@pytest.mark.fact("E24")
@both_times
@own_modes
def test_aiohttp_with_context_managers_is_clean(mode: Mode, times: Times) -> None:
    """E24: with `async with` around each response aiohttp leaks no connection anywhere."""

    async def body(session: aiohttp.ClientSession, url: str) -> None:
        for _ in range(2):
            async with session.get(url) as response:
                async for _ in response.content.iter_any():
                    pass

    report = cancel_everywhere(
        lambda: aiohttp_scenario(body), mode=mode, times=times, virtual_time=True, limit=100
    )
    assert report.points >= {"turns": 10, "suspensions": 3}[mode]


@pytest.mark.fact("E24")
@own_modes
def test_aiohttp_without_context_managers_leaks(mode: Mode) -> None:
    """E24: without `async with` a cancelled read leaves its connection acquired."""

    async def body(session: aiohttp.ClientSession, url: str) -> None:
        response = await session.get(url)
        kept.append(response)  # or the garbage collection would release it
        async for _ in response.content.iter_any():
            pass

    kept: list[aiohttp.ClientResponse] = []
    with pytest.raises(CancelFailure, match="no connection is acquired"):
        cancel_everywhere(lambda: aiohttp_scenario(body), mode=mode, virtual_time=True, limit=100)
