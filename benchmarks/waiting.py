"""
What a wait costs: memory and CPU of waits that wait, next to one sleeping task for each.

The looks are answered in this process by a function, so that what is measured is the
scheduler and nothing else: time to register, time to look at each image once, memory
per waiting image beyond its id, CPU per further look. Each part runs in a process of its
own. Run it with ``nox -s bench -- waiting``.
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import time
import uuid
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

from multidict import CIMultiDict, CIMultiDictProxy

from kokoon_async._http.protocol import Answer, Response
from kokoon_async._waiting.bulk import Waiting
from kokoon_async._waiting.outcomes import OutcomeStream
from kokoon_async._waiting.scheduler import Scheduler
from kokoon_async._waiting.waits import Wait, Watcher
from kokoon_async.events import Hooks
from kokoon_async.models import Image, ImageState
from kokoon_async.polling import Fixed


PAGE = resource.getpagesize()
LONG_PAUSE, SHORT_PAUSE = 3600.0, 0.2

Part = Callable[[list[str]], Awaitable[dict[str, float]]]


def resident() -> int:
    """Give the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def ids(count: int) -> list[str]:
    """Make image ids."""
    return [str(uuid.UUID(int=number, version=1)) for number in range(1, count + 1)]


class Answers:
    """Answer looks from memory: every image is being processed."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._awaited, self._reached = 0, asyncio.Event()
        self._response = Response(200, CIMultiDictProxy(CIMultiDict()), b"", lambda: None)

    async def look(self, vid: str) -> Answer:
        """Give a record as a server would: an object of its own."""
        if not self.may_answer.is_set():
            await self.may_answer.wait()
        self.looks += 1
        if self.looks == self._awaited:
            self._reached.set()
        return Answer(Image(vid, ImageState.PROCESSING), self._response)

    async def until(self, looks: int) -> None:
        """Let the loop run until so many looks were made."""
        self._awaited, self._reached = looks, asyncio.Event()
        if self.looks < looks:
            await self._reached.wait()


def scheduler_for(answers: Answers) -> Scheduler:
    """Make a scheduler with a client's usual number of looks at once."""
    return Scheduler(answers.look, backoff=lambda _, __: 1.0, hooks=Hooks(), most_looks=64)


def stream_of(vids: list[str], scheduler: Scheduler, pause: float) -> OutcomeStream:
    """Wait for images as `KokoonClient.wait_many` does, looking every *pause* seconds."""
    policy, loop = Fixed(pause), asyncio.get_running_loop()

    def new_wait(vid: str, watcher: Watcher) -> Wait:
        return Wait(vid, policy, watcher, now=loop.time(), timeout=10 * LONG_PAUSE)

    return OutcomeStream(Waiting(vids, scheduler, new_wait, window=len(vids)))


async def idle_waits(vids: list[str]) -> dict[str, float]:
    """Register waits with `wait_many`, look at each image once, and let them wait."""
    before, started = resident(), time.perf_counter()
    answers = Answers()
    answers.may_answer.clear()
    scheduler = scheduler_for(answers)
    stream = stream_of(vids, scheduler, LONG_PAUSE)
    reader = asyncio.create_task(anext(stream))
    while len(scheduler) < len(vids):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    registered = time.perf_counter()
    answers.may_answer.set()
    await answers.until(len(vids))
    figures = {
        "register": registered - started,
        "look": time.perf_counter() - registered,
        "bytes": (resident() - before) / len(vids),
        "peak": peak(),
    }
    await leave(reader, stream)
    return figures


async def sleeping_tasks(vids: list[str]) -> dict[str, float]:
    """Start a task for each image that looks once and sleeps."""
    before, started = resident(), time.perf_counter()
    answers = Answers()

    async def wait(vid: str) -> None:
        await answers.look(vid)
        await asyncio.sleep(LONG_PAUSE)

    tasks = [asyncio.create_task(wait(vid)) for vid in vids]
    registered = time.perf_counter()
    await answers.until(len(vids))
    figures = {
        "register": registered - started,
        "look": time.perf_counter() - registered,
        "bytes": (resident() - before) / len(vids),
        "peak": peak(),
    }
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return figures


async def look_cost(vids: list[str]) -> dict[str, float]:
    """Give the CPU seconds that the scheduler adds to a look."""
    answers = Answers()
    stream = stream_of(vids, scheduler_for(answers), SHORT_PAUSE)
    reader = asyncio.create_task(anext(stream))
    await answers.until(len(vids))
    cpu, looks = time.process_time(), answers.looks
    await answers.until(len(vids) * 6)
    scheduled = (time.process_time() - cpu) / (answers.looks - looks)
    await leave(reader, stream)
    cpu = time.process_time()
    for vid in vids:
        await answers.look(vid)
    bare = (time.process_time() - cpu) / len(vids)
    return {"look": scheduled - bare}


async def leave(reader: "asyncio.Task[object]", stream: OutcomeStream) -> None:
    """Stop waiting."""
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await stream.aclose()


def peak() -> float:
    """Give the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def run(part: Part, count: int, results: Connection) -> None:
    """Run a part in a process of its own."""
    vids = ids(count)
    gc.collect()
    results.send(asyncio.run(part(vids)))


def measured(part: Part, count: int) -> dict[str, float]:
    """Give what a part measures, in a fresh process."""
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=run, args=(part, count, send))
    process.start()
    send.close()
    figures: dict[str, float] = receive.recv()
    process.join()
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waits", type=int, default=1_000_000)
    waits = parser.parse_args().waits
    print(f"{waits:,} waits, each looked at once and then idle")
    for name, part in (("wait_many", idle_waits), ("a task for each", sleeping_tasks)):
        seen = measured(part, waits)
        print(
            f"  {name:16} {seen['bytes']:6.0f} bytes each  registered in {seen['register']:5.1f} s,"
            f" looked at in {seen['look']:5.1f} s  whole process {seen['peak'] / 2**20:6.0f} MiB"
        )
    cost = measured(look_cost, 20_000)["look"]
    print(f"scheduler's CPU per look, above the look itself: {1e6 * cost:.1f} us")


if __name__ == "__main__":
    main()
