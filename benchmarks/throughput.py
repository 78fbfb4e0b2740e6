"""
What a record costs: CPU of this process per record, ours next to others, in one run.

Every contender fetches the same records from one nginx with 64 requests in flight. The
rounds are interleaved and their order turns, so that a noisy machine is noisy for all;
the ratio is the median over the rounds. Run it with ``nox -s bench -- throughput``.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import httpx
import pydantic
from nginx_server import serve_records

from kokoon_async import KokoonClient


TOKEN = "t" * 300
IN_FLIGHT = 64

Fetch = Callable[[str], Awaitable[object]]
Contender = Callable[[str], "AsyncIterator[Fetch]"]


class PydanticImage(pydantic.BaseModel):
    """The record as a user of pydantic would type it."""

    uid: str
    vid: str
    pid: str
    tid: str
    created_time: pydantic.AwareDatetime
    filename: str
    size: int
    codec_name: str
    fps: str
    duration: float
    nb_frames: int
    bitrate: int
    width: int
    height: int
    download_cnt: int
    expired_time: pydantic.AwareDatetime
    state: str
    url: pydantic.HttpUrl
    thumb_url: pydantic.HttpUrl
    last_category: str | None


@asynccontextmanager
async def naive_aiohttp(base_url: str) -> AsyncIterator[Fetch]:
    """Fetch as a first script does: `session.get` and `resp.json()`, nothing checked."""
    async with aiohttp.ClientSession(headers={"Authorization": TOKEN}) as session:

        async def fetch(vid: str) -> object:
            async with session.get(f"{base_url}/image/{vid}") as response:
                return await response.json()

        yield fetch


@asynccontextmanager
async def our_get_image(base_url: str) -> AsyncIterator[Fetch]:
    """Fetch with `KokoonClient.get_image`: typed, validated, throttled, retried."""
    async with KokoonClient(TOKEN, base_url=base_url) as client:
        yield client.get_image


@asynccontextmanager
async def httpx_pydantic(base_url: str) -> AsyncIterator[Fetch]:
    """Fetch with httpx, and check the record with pydantic."""
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    headers = {"Authorization": TOKEN}
    async with httpx.AsyncClient(headers=headers, limits=limits) as client:

        async def fetch(vid: str) -> object:
            response = await client.get(f"{base_url}/image/{vid}")
            return PydanticImage.model_validate_json(response.content)

        yield fetch


async def cpu_per_record(fetch: Fetch, vids: Iterator[str], count: int) -> float:
    """Fetch *count* records, `IN_FLIGHT` at a time; give the CPU seconds for each."""
    todo = iter(range(count))

    async def work() -> None:
        for _ in todo:
            await fetch(next(vids))

    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return (time.process_time() - before) / count


async def compare(base_url: str, vids: list[str], *, rounds: int, count: int) -> None:
    """Run all contenders in turn, several rounds, and print the ratios."""
    contenders = {
        "naive aiohttp": (naive_aiohttp, count),
        "kokoon_async get_image": (our_get_image, count),
        # Twenty times slower: fewer records say as much.
        "httpx + pydantic": (httpx_pydantic, max(count // 10, IN_FLIGHT)),
    }
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    async with AsyncExitStack() as stack:
        fetches = {
            name: await stack.enter_async_context(open_fetch(base_url))
            for name, (open_fetch, _) in contenders.items()
        }
        endless = itertools.cycle(vids)
        for name, fetch in fetches.items():  # connections, caches
            await cpu_per_record(fetch, endless, min(500, contenders[name][1]))
        order = list(contenders)
        for _ in range(rounds):
            for name in order:
                costs[name].append(
                    await cpu_per_record(fetches[name], endless, contenders[name][1])
                )
            order.append(order.pop(0))
    ours = costs["kokoon_async get_image"]
    print(f"CPU per record, {IN_FLIGHT} in flight, median of {rounds} rounds of {count}")
    for name, cost in costs.items():
        ratio = statistics.median(own / other for own, other in zip(ours, cost, strict=True))
        print(f"  {name:24} {1e6 * statistics.median(cost):8.1f} us   ours / this: {ratio:5.3f}")


def main() -> None:
    """Read the arguments, start nginx and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=4_000, help="records per round")
    parser.add_argument("--records", type=int, default=2_000, help="different records")
    arguments = parser.parse_args()
    with serve_records(arguments.records) as (base_url, vids):
        asyncio.run(compare(base_url, vids, rounds=arguments.rounds, count=arguments.count))


if __name__ == "__main__":
    main()
