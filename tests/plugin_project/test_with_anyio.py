"""A user's tests, run by anyio."""

import pytest


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Run each test with both libraries; only one can work."""
    return request.param


async def test_image(kokoon_client, kokoon_simulator):
    """The simulator runs on anyio's loop."""
    image = await kokoon_client.get_image(kokoon_simulator.add_image("completed"))
    assert image.is_finished
