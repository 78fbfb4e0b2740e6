"""A user's code that is to be tested."""

from kokoon_async import ImageFailed, KokoonClient


async def address_of_result(client: KokoonClient, vid: str) -> str | None:
    """Wait for an image and give its address, or ``None`` if it failed."""
    try:
        image = await client.wait_until_completed(vid, timeout=10)
    except ImageFailed:
        return None
    return str(image.url)
