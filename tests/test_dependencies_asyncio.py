"""
What asyncio does today, where we rest on it or guard against it.

The numbers are those of docs/facts.md; see test_dependencies.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest


@pytest.mark.fact("E26")
@pytest.mark.parametrize(("with_generation", "refreshes"), [(False, 100), (True, 1)])
async def test_e26_a_lock_alone_does_not_share_a_refresh(
    with_generation: bool, refreshes: int
) -> None:
    """E26: a lock makes 100 tasks refresh one after another, unless each looks once more inside."""
    lock, generation = asyncio.Lock(), 0

    async def refused() -> None:
        nonlocal generation
        used = generation
        await asyncio.sleep(0)  # the request that was refused
        async with lock:
            if not with_generation or generation == used:
                await asyncio.sleep(0)  # the refresh
                generation += 1

    await asyncio.gather(*[refused() for _ in range(100)])
    assert generation == refreshes


TOLD_TO_STOP = """
import asyncio, os, signal
# Whoever started the tests may have had signals ignored.
usual = signal.default_int_handler if "{name}" == "SIGINT" else signal.SIG_DFL
signal.signal(signal.{name}, usual)
async def main():
    try:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.{name})
        await asyncio.sleep(10)
    finally:
        print("cleaned up", flush=True)
asyncio.run(main())
"""


@pytest.mark.fact("E30")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("name", "printed", "complaint"),
    [("SIGINT", "cleaned up\n", "KeyboardInterrupt"), ("SIGTERM", "", ""), ("SIGHUP", "", "")],
)
def test_e30_only_sigint_is_cleaned_up_after(name: str, printed: str, complaint: str) -> None:
    """E30: SIGINT ends `asyncio.run` with a traceback; SIGTERM and SIGHUP end it without a clean-up."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", TOLD_TO_STOP.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -getattr(signal, name)
    assert done.stdout == printed
    assert done.stderr.strip().splitlines()[-1:] == ([complaint] if complaint else [])


@pytest.mark.fact("E38")
async def test_e38_gather_leaves_its_other_tasks_running() -> None:
    """E38: when one task fails, a task group cancels the others, and `gather` lets them go on."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            grouped.append(tasks.create_task(gate.wait()))

    gate = asyncio.Event()
    grouped: list[asyncio.Task[bool]] = []
    gathered = asyncio.create_task(gate.wait())
    with pytest.raises(LookupError):
        await asyncio.gather(fail(), gathered)
    assert not gathered.done()
    with pytest.raises(ExceptionGroup):
        await group()
    assert grouped[0].cancelled()
    gate.set()
    assert await gathered


@pytest.mark.fact("E39")
async def test_e39_a_generator_that_was_left_is_finished_later() -> None:
    """E39: after a `break` the clean-up of an async generator runs some turns of the loop later."""
    finished = False

    async def numbers() -> AsyncIterator[int]:
        nonlocal finished
        try:
            yield 1
        finally:
            finished = True

    async for _ in numbers():
        break
    assert not finished
    for _ in range(3):
        await asyncio.sleep(0)
    assert finished
