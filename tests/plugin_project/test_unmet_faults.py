"""Tests of a user that must not pass, and must say why."""

import pytest

from kokoon_async.simulator import Reset, Status


@pytest.mark.asyncio
async def test_forgets_to_ask(kokoon_simulator):
    """Nobody asks, so the fault cannot strike."""
    kokoon_simulator.fault(Status(503))


@pytest.mark.asyncio
async def test_asks_for_another(kokoon_client, kokoon_simulator):
    """The fault waits for another image."""
    kokoon_simulator.fault(Reset(), Status(503), vid=kokoon_simulator.add_image("completed"))
    await kokoon_client.get_image(kokoon_simulator.add_image("completed"))


@pytest.mark.asyncio
async def test_fails_itself(kokoon_simulator):
    """The test's own failure is all that is told."""
    kokoon_simulator.fault(Status(503))
    raise RuntimeError("of the test's own")


@pytest.mark.asyncio
async def test_skipped(kokoon_simulator):
    """A test may change its mind."""
    kokoon_simulator.fault(Status(503))
    pytest.skip("for the day")
