"""``kokoon-async simulate``: a local Kokoon for other programs, until a signal ends it."""

import asyncio
from typing import Any, NoReturn

from ..simulator import Simulator
from ._process import complain, write_out


__all__ = ["run_simulator"]

_MOST_LISTED = 5


async def run_simulator(*, images: int, **settings: Any) -> NoReturn:
    """
    Run a simulator until the task is cancelled.

    Args:
        images: How many drawn images there are.

        settings: Of the simulator.
    """
    for_ever: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
    async with Simulator(**settings) as simulator:
        try:
            await write_out(_introduction(simulator.base_url, simulator.add_images(images)))
            await for_ever
        finally:
            complain(f"kokoon-async: stopped after {simulator.request_count()} requests.")


def _introduction(base_url: str, vids: list[str]) -> str:
    listed = "".join(f"  {vid}\n" for vid in vids[:_MOST_LISTED])
    if len(vids) > _MOST_LISTED:
        listed += f"  … and {len(vids) - _MOST_LISTED} more\n"
    example = vids[0] if vids else "00000000-0000-0000-0000-000000000001"
    return (
        f"The simulator listens on {base_url}\n"
        "It is for this machine only, and takes any token.\n"
        f"\n{len(vids)} images:\n{listed}"
        "\nTry, in another terminal:\n"
        f"  export KOKOON_BASE_URL={base_url} KOKOON_TOKEN=any\n"
        f"  kokoon-async wait {example}\n"
        "\nStop it with Ctrl-C.\n"
    )
