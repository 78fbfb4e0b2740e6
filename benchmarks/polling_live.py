"""
What waiting costs end to end: `wait_many` waits for images of the simulator, in virtual time.

The client is a whole one, but for its sockets: requests are answered by the simulator's own
images, in this process. ``--sockets`` sends them over HTTP instead: slower, with the same
figures. Images take as long as in the second distribution of `polling.py`: a queue of 60 s on
the average, then a run of 26 s. They come one by one, a second apart on the average, or all at
once. A wait's cost is price 1 times the requests that the server counted, plus the delay: the
seconds between the moment at which the server has the image finished and the one at which the
caller gets it. Run it with ``nox -s bench -- polling_live``. It prints Markdown.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import format_datetime
from typing import Any

import attrs
from multidict import CIMultiDict, CIMultiDictProxy
from polling import DISTRIBUTIONS, print_head, print_row, row_for

from kokoon_async import (
    AgeProportional,
    Exponential,
    Fixed,
    KokoonClient,
    Learned,
    Limits,
    PollPolicy,
)
from kokoon_async._http.protocol import Response
from kokoon_async.simulator import Simulator


NAME = "queue 60 s + run 26 s"
ARRIVALS = {"a second apart": 1.0, "all at once": 0.0}

POLICIES: dict[str, Callable[[int], PollPolicy]] = {
    "Learned()": lambda seed: Learned(seed=seed),
    "Exponential()": lambda _: Exponential(),
    "AgeProportional()": lambda _: AgeProportional(),
    "Fixed(1)": lambda _: Fixed(1.0),
}
ONE_SEED = {"Fixed(1)"}  # its figures hardly differ, and it takes longest


@attrs.frozen
class Arrival:
    """
    One image.

    Attributes:
        pause: Seconds since the one before.

        duration: Seconds until it is finished.
    """

    pause: float
    duration: float


@attrs.frozen
class Effort:
    """
    What a wait took, on the average.

    Attributes:
        looks: Requests.

        delay: Seconds between the finish and the end of the wait.
    """

    looks: float
    delay: float


def arrivals(name: str, gap: float, count: int, seed: int) -> list[Arrival]:
    """Draw images; the same seed gives the same ones to every policy."""
    chance, draw = random.Random(seed), DISTRIBUTIONS[name]
    return [
        Arrival(chance.expovariate(1 / gap) if gap else 0.0, draw(chance)) for _ in range(count)
    ]


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as there is nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._select = self._selector.select
        self._selector.select = self._look_or_jump

    def time(self) -> float:
        """Give the virtual time, in seconds."""
        return self._now

    def _look_or_jump(self, timeout: float | None = None) -> list[Any]:
        events: list[Any] = self._select(None if timeout is None else 0)
        if not events and timeout is not None:
            self._now += timeout
        return events


@attrs.define
class InProcess:
    """
    Answer a client's requests from a simulator that does not listen.

    Attributes:
        server: Has the images.

        count: How many requests it answered.
    """

    server: Simulator
    count: int = 0

    async def __call__(self, path: str, call: Any, token: object) -> Response:  # noqa: ARG002
        """Give the record as it is now."""
        self.count += 1
        call.attempts += 1
        headers = CIMultiDict({"Date": format_datetime(self.server.now(), usegmt=True)})
        body = json.dumps(self.server.record(call.vid)).encode()
        return Response(200, CIMultiDictProxy(headers), body, lambda: None)


@contextlib.asynccontextmanager
async def service(
    policy: PollPolicy, limits: Limits, *, sockets: bool
) -> AsyncIterator[tuple[Simulator, KokoonClient, Callable[[], int]]]:
    """Give a server, a client of it, and a function that counts the requests."""
    server = Simulator(log_limit=1)
    if sockets:
        async with (
            server,
            KokoonClient("x", base_url=server.base_url, poll=policy, limits=limits) as client,
        ):
            yield server, client, server.request_count
        return
    answers = InProcess(server)
    async with KokoonClient("x", poll=policy, limits=limits) as client:
        client._pipeline._send = answers  # noqa: SLF001 - where the tests put theirs too
        yield server, client, lambda: answers.count


async def wait_for(
    policy: PollPolicy, images: Sequence[Arrival], limits: Limits, *, sockets: bool
) -> Effort:
    """Wait for images through a client, from when each is made."""
    now = asyncio.get_running_loop().time
    finishes: dict[str, float] = {}
    async with service(policy, limits, sockets=sockets) as (server, client, requests):

        async def made() -> AsyncIterator[str]:
            for image in images:
                await asyncio.sleep(image.pause)
                vid = server.add_image(duration=image.duration)
                finishes[vid] = now() + image.duration
                yield vid

        async with client.wait_many(made(), timeout=None) as outcomes:
            delays = [now() - finishes[outcome.unwrap().vid] async for outcome in outcomes]
        return Effort(requests() / len(images), statistics.fmean(delays))


def effort_of(
    policy: PollPolicy,
    images: Sequence[Arrival],
    *,
    requests_per_second: float | None = None,
    sockets: bool = False,
) -> Effort:
    """Do the same in virtual time."""
    limits = Limits(requests_per_second=requests_per_second)
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(wait_for(policy, images, limits, sockets=sockets))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waits", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sockets", action="store_true", help="send requests over HTTP")
    arguments = parser.parse_args()
    optimum = row_for(NAME, DISTRIBUTIONS[NAME], 1.0, size=2_000).optimum
    print(f"{arguments.waits:,} waits, {arguments.seeds} seeds; the optimum costs {optimum:.2f}.")
    print_head("images come", "policy", "requests", "delay", "cost", "/ Learned", "/ optimum")
    for label, gap in ARRIVALS.items():
        learned = 0.0
        for name, make_policy in POLICIES.items():
            efforts = [
                effort_of(
                    make_policy(seed),
                    arrivals(NAME, gap, arguments.waits, seed),
                    sockets=arguments.sockets,
                )
                for seed in range(1, 1 + (1 if name in ONE_SEED else arguments.seeds))
            ]
            looks = statistics.fmean(effort.looks for effort in efforts)
            delay = statistics.fmean(effort.delay for effort in efforts)
            learned = learned or looks + delay
            cost = looks + delay
            print_row(label, name, looks, delay, cost, cost / learned, cost / optimum)


if __name__ == "__main__":
    main()
