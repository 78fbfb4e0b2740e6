"""
The same cancellations on uvloop, and by `asyncio.timeout` at the very moment when something happens.

Without KOKOON_HEAVY only some of the points are tried.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest

from kokoon_async import Fixed, KokoonClient
from kokoon_async._waiting import scheduler
from kokoon_async.polling import machine
from kokoon_async.simulator import Reset, Simulator

from .bulk_api import heavy
from .cancellation import (
    CancelFailure,
    LoopKind,
    Mode,
    Scenario,
    ScenarioFactory,
    Way,
    cancel_everywhere,
)
from .fakes import is_idle
from .figures import record_figure
from .test_cancellation import SCENARIOS as CALLS
from .test_cancellation import closing, refreshing_the_token
from .test_jobs_cancel import scenario as bulk_job


pytestmark = [
    pytest.mark.fault("F-105"),
    pytest.mark.fault("F-111"),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop"),
]

SOME = 9
"""Without KOKOON_HEAVY, one point of so many is tried."""

OFTEN = Fixed(0.002, jitter=0)


def waiting(run: Callable[[KokoonClient, str], Any]) -> ScenarioFactory:
    """Make scenarios of something that waits for an image."""

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Scenario]:
        async with (
            Simulator() as simulator,
            KokoonClient("token", base_url=simulator.base_url, poll=OFTEN) as client,
        ):
            vid = simulator.add_image("pending processing completed")
            other = simulator.add_image("completed")
            simulator.fault(Reset(at="headers"), vid=vid)
            checks = {
                "idle": lambda: is_idle(client),
                "no wait": lambda: not len(client._scheduler),
            }
            yield Scenario(lambda: run(client, vid), checks, lambda: client.get_image(other))

    return make


async def wait(client: KokoonClient, vid: str) -> None:
    """Wait for an image."""
    await client.wait_until_completed(vid)


async def watch(client: KokoonClient, vid: str) -> None:
    """Watch an image."""
    async with client.watch(vid) as images:
        async for _ in images:
            pass


async def get_images(client: KokoonClient, vid: str) -> None:
    """Take a stream of records."""
    async with client.get_images([vid, vid, "nonsense"]) as outcomes:
        async for _ in outcomes:
            pass


async def wait_many(client: KokoonClient, vid: str) -> None:
    """Take a stream of waits."""
    async with client.wait_many([vid, "nonsense"]) as outcomes:
        async for _ in outcomes:
            pass


SCENARIOS: dict[str, ScenarioFactory] = {
    "a call": CALLS["an answer in pieces"],
    "a call with retries": CALLS["retries"],
    "a call in a queue": CALLS["a queue"],
    "a call in the user's session": CALLS["the user's session"],
    "a refresh": refreshing_the_token,
    "a close": lambda: closing(server_answers=False),
    "a wait": waiting(wait),
    "a watch": waiting(watch),
    "a stream": waiting(get_images),
    "many waits": waiting(wait_many),
    "a job": bulk_job(),
}

WAYS: list[tuple[LoopKind, Way, Mode, Literal[1, 2]]] = [
    ("asyncio", "timeout", "turns", 1),
    ("asyncio", "timeout", "suspensions", 1),
    ("uvloop", "cancel", "suspensions", 1),
    ("uvloop", "cancel", "suspensions", 2),
    ("uvloop", "cancel", "children", 1),
    ("uvloop", "timeout", "suspensions", 1),
]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    # uvloop has no virtual time.
    monkeypatch.setattr(machine, "SHORTEST_DELAY", 0.001)
    monkeypatch.setattr(scheduler, "_PAUSE_AFTER_CANCEL", 0.001)


@pytest.mark.parametrize("step", [SOME, pytest.param(1, marks=[heavy, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("how", WAYS, ids=lambda how: "-".join(map(str, how)))
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.unmeasured
def test_whatever_ends_it(
    name: str, how: tuple[LoopKind, Way, Mode, Literal[1, 2]], step: int
) -> None:
    """G10: no task, connection or place is left; a time-out is one, and a cancellation is one."""
    loop, way, mode, times = how
    if name == "a job" and mode != "suspensions":
        pytest.skip("turns are no points in time while threads work")
    report = cancel_everywhere(
        SCENARIOS[name], mode=mode, times=times, way=way, loop=loop, step=step
    )
    record_figure(f"points of {way} on {loop}", report.points)
    # A close does not suspend; and only some things start tasks.
    if name != "a close" and mode != "children":
        assert report.points > 0


async def suppress(client: KokoonClient, vid: str) -> None:
    """Swallow whatever ends a wait."""
    with contextlib.suppress(BaseException):
        await client.wait_until_completed(vid)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_swallowed_time_out_is_found(loop: LoopKind) -> None:
    """The harness notices who goes on although the time is over, on both loops."""
    with pytest.raises(CancelFailure, match="swallowed the cancellation"):
        cancel_everywhere(waiting(suppress), mode="suspensions", way="timeout", loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_wait_that_is_left_is_found(loop: LoopKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness notices a wait that goes on without anybody, on both loops."""

    async def leave_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr("kokoon_async._waiting.streams.Watch._leave", leave_nothing)
    with pytest.raises(CancelFailure, match="no wait"):
        cancel_everywhere(waiting(watch), mode="suspensions", loop=loop)
