"""
What a bulk job costs: a million statuses to JSON lines, from nginx, in one process each.

Compared are `fetch_statuses`, the bare `get_images` that it is built on, and what people
write by hand: `gather` under a semaphore. Memory is read after the first and the last
tenth. Run it with ``nox -s bench -- bulk``; it takes some minutes.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from nginx_server import serve_any_record

from kokoon_async import KokoonClient
from kokoon_async.jobs import fetch_statuses
from kokoon_async.jobs._distinct import DistinctIds


Part = Callable[[str, int, "Meter"], Awaitable[None]]

IN_FLIGHT = 64


class Meter:
    """Count ids as they are read, and note the process's memory on the way."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.memory: list[float] = []

    def ids(self) -> Iterator[str]:
        """Give the ids, one by one; read the memory after each tenth of them."""
        for number in range(self.count):
            if number % (self.count // 10) == 0 and number:
                self.note()
            yield f"{number:08x}-0000-1000-8000-000000000000"

    def note(self) -> None:
        """Read this process's memory, in MiB."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * 4096 / 2**20)


async def bulk_job(base_url: str, count: int, meter: Meter) -> None:
    """Run a job as a user does, into one file."""
    with tempfile.TemporaryDirectory() as folder:
        async with KokoonClient("token", base_url=base_url) as client:
            report = await fetch_statuses(client, meter.ids(), Path(folder) / "out.jsonl")
        if report.ids != count:
            message = f"{report.ids} of {count} ids"
            raise RuntimeError(message)


async def bare_stream(base_url: str, count: int, meter: Meter) -> None:
    """Fetch the same with `get_images`, and keep nothing."""
    seen = 0
    async with KokoonClient("token", base_url=base_url) as client:
        async for outcome in client.get_images(meter.ids()):
            outcome.unwrap()
            seen += 1
    if seen != count:
        message = f"{seen} of {count} ids"
        raise RuntimeError(message)


async def by_hand(base_url: str, _: int, meter: Meter) -> None:
    """Fetch with a task for each id under a semaphore, and write at the end."""
    semaphore = asyncio.Semaphore(IN_FLIGHT)
    headers = {"Authorization": "token"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def fetch(vid: str) -> object:
            async with semaphore, session.get(f"{base_url}/image/{vid}") as response:
                return await response.json()

        records = await asyncio.gather(*(fetch(vid) for vid in meter.ids()))
    meter.note()
    with tempfile.TemporaryFile("w") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def run(part: Part, base_url: str, count: int, results: Connection) -> None:
    """Run a part in a process of its own."""
    meter = Meter(count)
    started, cpu = time.perf_counter(), time.process_time()
    asyncio.run(part(base_url, count, meter))
    meter.note()
    results.send((time.perf_counter() - started, time.process_time() - cpu, meter.memory))


def measured(part: Part, base_url: str, count: int) -> tuple[float, float, list[float]]:
    """Give wall seconds, CPU seconds and the memory on the way, in a fresh process."""
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run, args=(part, base_url, count, send))
    process.start()
    send.close()
    figures: tuple[float, float, list[float]] = receive.recv()
    process.join()
    return figures


def bytes_on_disk(count: int) -> float:
    """Give the bytes for each id of the file where a job notes what it has seen; few stay in memory."""
    draw = random.Random(1)
    texts = ((line, str(uuid.UUID(int=draw.getrandbits(128)))) for line in range(count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seen"
        distinct = DistinctIds(path)
        distinct.only_new(texts)
        size = path.stat().st_size
        distinct.close()
    return size / count


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--by-hand-ids", type=int, default=100_000, help="it keeps them all")
    arguments = parser.parse_args()
    parts = {
        "fetch_statuses": (bulk_job, arguments.ids),
        "get_images": (bare_stream, arguments.ids),
        "gather + semaphore": (by_hand, min(arguments.by_hand_ids, arguments.ids)),
    }
    rates = {}
    with serve_any_record() as base_url:
        for name, (part, count) in parts.items():
            wall, cpu, memory = measured(part, base_url, count)
            rates[name] = count / wall
            # `gather` draws all ids before the first request, so it has no such time.
            early = "" if part is by_hand else f"after 10 %: {memory[0]:5.0f}   "
            print(
                f"{name:20}{count:10,} ids{rates[name]:8.0f}/s{1e6 * cpu / count:8.1f} us CPU each"
                f"   MiB {early}at the end: {memory[-1]:5.0f}",
                flush=True,
            )
    print(f"ids that were seen, on disk: {bytes_on_disk(1_000_000):.1f} bytes each")
    print(f"fetch_statuses / get_images: {rates['fetch_statuses'] / rates['get_images']:.2f}")


if __name__ == "__main__":
    main()
