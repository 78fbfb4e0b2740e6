"""A user's tests, run by pytest-asyncio in its strict mode."""

import asyncio

import pytest
from upscaling import address_of_result

from kokoon_async import KokoonClient
from kokoon_async.simulator import Simulator, Status


@pytest.mark.asyncio
async def test_completed(kokoon_client, kokoon_simulator):
    """A completed image has an address, whatever the server answers on the way."""
    vid = kokoon_simulator.add_image("completed")
    kokoon_simulator.fault(Status(503), vid=vid)
    assert "X-Amz-Signature" in await address_of_result(kokoon_client, vid)
    assert kokoon_simulator.request_count(vid) == 2


@pytest.mark.asyncio
async def test_failed(kokoon_client, kokoon_simulator):
    """A failed image has none, and the simulator is a new one."""
    vid = kokoon_simulator.add_image("error")
    assert await address_of_result(kokoon_client, vid) is None
    assert kokoon_simulator.request_count() == 1


@pytest.mark.asyncio
async def test_own_client(kokoon_simulator):
    """A project may bring its own client."""
    assert isinstance(kokoon_simulator, Simulator)
    async with KokoonClient("own", base_url=kokoon_simulator.base_url) as client:
        image = await client.get_image(kokoon_simulator.add_image("completed"))
    assert image.is_finished


@pytest.mark.asyncio(loop_scope="module")
async def test_other_loop(kokoon_client, kokoon_simulator):
    """The fixtures live on the loop of the test, whichever that is."""
    assert await address_of_result(kokoon_client, kokoon_simulator.add_image("error")) is None
    assert asyncio.get_running_loop()


def test_sync():
    """Other tests do not notice the plugin."""
