"""
``kokoon-async demo``: a few hundred waits on a simulated server that misbehaves.

Every figure that it shows was measured in the run.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

import attrs

from kokoon_async import AgeProportional, Event, Image, ImageFailed, KokoonClient, KokoonError
from kokoon_async.events import Braked, LookFailed, LookFinished

from ..simulator import Fault, LogNormal, Reset, Simulator, Status


__all__ = ["Figures", "Finished", "run_demo"]

_FRAME = 0.1  # seconds between two pictures
_SHORTEST_PATIENCE = 50.0  # seconds: at the usual speed the whole takes less than a minute

# All of these by the server's clock.
_PATIENCE = 400.0  # seconds for one image: one in ten million takes longer
_DURATIONS = LogNormal(median=30.0, sigma=0.5)
_ARRIVING = 20.0  # seconds until the last image is there
_POLL = AgeProportional(fraction=0.15, minimum=2.0, maximum=15.0)

_FAILING = 0.04

# What the server does to the requests of that moment, by the share of images that are finished.
_TROUBLE: dict[float, tuple[Fault, ...]] = {
    0.02: (Status(503),) * 8,
    0.10: (Reset(at="headers"), Reset(at="before"), Reset(at=100)),
    0.25: (Status(429, headers={"Retry-After": "1"}),),
    0.50: (Status(500), Status(502), Status(504)),
}


@attrs.frozen
class Finished:
    """
    What became of one image.

    Attributes:
        vid: Its id.

        image: The record as last seen.

        took: How long the server worked on it, in seconds of its clock.

        noticed: How much later that was known here, in seconds of its clock.
    """

    vid: str
    image: Image
    took: float
    noticed: float


@attrs.define
class Figures:
    """
    What the run brought, while it goes on and at its end.

    Attributes:
        images: How many there are.

        speed: How many seconds the server's clock gains in one second.

        outcomes: The images that are finished, completed or not.

        lost: The images whose wait ended otherwise; there should be none.

        looks: How many requests were made for each image.

        again: How many looks failed, and were made again.

        braked: How often the server asked for fewer requests, and was obeyed.

        faults: How many requests met a fault, by its kind.

        requests: How many requests reached the server.

        elapsed: Seconds since the beginning.
    """

    images: int
    speed: float
    outcomes: list[Finished] = attrs.field(factory=list)
    lost: list[KokoonError] = attrs.field(factory=list)
    looks: Counter[str] = attrs.field(factory=Counter)
    again: int = 0
    braked: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    requests: int = 0
    elapsed: float = 0.0

    @property
    def done(self) -> int:
        """How many waits have ended."""
        return len(self.outcomes) + len(self.lost)

    def note(self, event: Event) -> None:
        """Count what the client tells; it is the client's hook."""
        match event:
            case LookFinished():
                self.looks[event.vid] += 1
            case LookFailed():
                self.looks[event.vid] += 1
                self.again += event.delay is not None
            case Braked():
                self.braked += 1
            case _:
                pass


Show = Callable[[Figures], Awaitable[None]]
"""Shows how far the demo is."""


async def run_demo(*, images: int, seed: int, speed: float, show: Show) -> Figures:
    """
    Wait for many images at once, while the server makes trouble.

    Args:
        images: How many.

        seed: Decides how long they take and which of them fail.

        speed: Of the server's clock.

        show: Called again and again meanwhile.
    """
    poll = AgeProportional(
        fraction=_POLL.fraction / speed,
        minimum=_POLL.minimum / speed,
        maximum=_POLL.maximum / speed,
    )
    figures = Figures(images, speed)
    async with (
        Simulator(seed=seed, speed=speed) as server,
        KokoonClient("demo", base_url=server.base_url, poll=poll, hooks=[figures.note]) as client,
        asyncio.TaskGroup() as group,
    ):
        run = _Run(client, server, figures, random.Random(seed))
        waits = [group.create_task(run.one_image(number)) for number in range(images)]
        pending: Collection[asyncio.Task[None]] = waits
        while pending:
            _, pending = await asyncio.wait(waits, timeout=_FRAME)
            run.take_stock()
            await show(figures)
        figures.faults = run.faults()
    return figures


class _Run:
    def __init__(
        self, client: KokoonClient, server: Simulator, figures: Figures, rng: random.Random
    ) -> None:
        self._client = client
        self._server = server
        self._figures = figures
        self._rng = rng
        self._trouble = sorted(_TROUBLE)
        self._began = asyncio.get_running_loop().time()

    async def one_image(self, number: int) -> None:
        """Have the server begin one image, wait for it, and note what became of it."""
        figures = self._figures
        await asyncio.sleep(_ARRIVING / figures.speed * number / figures.images)
        vid, took = self._add_image()
        finished = self._server.now() + timedelta(seconds=took)
        records: list[Image] = []
        try:
            await self._client.wait_until_completed(
                vid,
                timeout=max(_PATIENCE / figures.speed, _SHORTEST_PATIENCE),
                on_change=records.append,
            )
        except ImageFailed:
            pass  # its record says so too
        except KokoonError as error:
            figures.lost.append(error)
            return
        noticed = (self._server.now() - finished).total_seconds()
        figures.outcomes.append(Finished(vid, records[-1], took, noticed))
        while self._trouble and figures.done >= self._trouble[0] * figures.images:
            self._server.fault(*_TROUBLE[self._trouble.pop(0)])

    def _add_image(self) -> tuple[str, float]:
        took = _DURATIONS.sample(self._rng)
        queued = took * self._rng.uniform(0.1, 0.5)
        end = "error" if self._rng.random() < _FAILING else "completed"
        script = f"pending*{queued:.3f}s processing*{took - queued:.3f}s {end}"
        return self._server.add_image(script), took

    def take_stock(self) -> None:
        """Bring the figures up to date that the server and the clock tell."""
        self._figures.elapsed = asyncio.get_running_loop().time() - self._began
        self._figures.requests = self._server.request_count()

    def faults(self) -> Counter[str]:
        """Count the requests that met a fault, by what it was."""
        return Counter(
            f"status {request.status}"
            if request.fault == "status"
            else f"connection {request.fault}"
            for request in self._server.requests
            if request.fault is not None
        )
