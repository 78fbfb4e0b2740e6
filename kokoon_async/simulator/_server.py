"""
The simulator itself: a local Kokoon with the documented answers and planned faults.
"""

import asyncio
import functools
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from aiohttp import web

from ._clock import Clock, LoopClock, utc_datetime
from ._control import Control
from ._durations import Durations, LogNormal
from ._effects import answer_request
from ._endpoint import BASE_PATH, IMAGE_PATH, ImageEndpoint
from ._exchange import Exchange, Services
from ._fault_book import FaultBook, UnconsumedFaults
from ._faults import Fault
from ._images import ImageStore, vid_from, vid_or_none
from ._listener import Listener
from ._records import ABSENT, Absent
from ._request_log import LoggedRequest, RequestLog
from ._wire import SentResponse


class Simulator:
    """
    A local Kokoon for demos and tests; use it with ``async with``.

    It speaks real HTTP on a loopback port. Images move through their states as their
    scripts say or as the seed decides, faults strike when they were planned, and what was
    asked is on record. The durations of images are seconds of the server's clock; all
    other seconds (latency, rate, faults) are those of the event loop's clock.

    Args:
        seed: Decides everything that is drawn; the same seed gives the same images.

        durations: How long images without a script take.

        failure_rate: The share of those that end in *error*, from 0 to 1.

        token: The only accepted one; ``None`` accepts any that is not empty.

        requests_per_second: Beyond it the answer is 429 with ``Retry-After``.

        missing_status: The status of "fail to get result." (the docs name none, U1).

        latency: Seconds before every answer.

        clock: The server's clock; by default it follows the loop from the present time.

        speed: How many seconds the default clock gains in one second of the loop.

        host: A loopback address.

        port: 0 chooses a free one.

        strict: Whether leaving the block with faults unmet is an error (F-127).

        images: How many drawn images there are from the start.

        images_on_demand: Whether every canonical id has a drawn image, as old as the
            simulator. They take no memory but for a counter for each id that was asked for.

        log_limit: How many requests are remembered; the counters know of all.

        keepalive_timeout: Seconds until an idle connection is closed.

    Raises:
        ValueError: When an argument makes no sense.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        durations: Durations = LogNormal(median=20.0, sigma=0.6),  # noqa: B008 - frozen
        failure_rate: float = 0.0,
        token: str | None = None,
        requests_per_second: float | None = None,
        missing_status: int = 404,
        latency: float = 0.0,
        clock: Clock | None = None,
        speed: float = 1.0,
        host: str = "127.0.0.1",
        port: int = 0,
        strict: bool = False,
        images: int = 0,
        images_on_demand: bool = False,
        log_limit: int = 100_000,
        keepalive_timeout: float = 75.0,
    ) -> None:
        if clock is not None and speed != 1.0:
            raise ValueError("speed belongs to the default clock: give a clock or a speed")
        if not (math.isfinite(latency) and latency >= 0):
            raise ValueError(f"latency must be 0 seconds or more, not {latency!r}")
        self._clock = LoopClock(speed=speed) if clock is None else clock
        self._images = ImageStore(
            seed=seed,
            clock=self._clock,
            durations=durations,
            failure_rate=failure_rate,
            on_demand=images_on_demand,
        )
        self._endpoint = ImageEndpoint(
            self._images,
            token=token,
            requests_per_second=requests_per_second,
            missing_status=missing_status,
        )
        self._latency = latency
        self._strict = strict
        self._faults = FaultBook()
        self._log = RequestLog(IMAGE_PATH, limit=log_limit)
        self._timers: set[asyncio.TimerHandle] = set()
        self._services = Services(
            self._images, self._faults, self._log, self.rotate_token, self._call_later
        )
        self._listener = Listener(
            self._handle, host=host, port=port, keepalive_timeout=keepalive_timeout
        )
        self._control = Control(self._faults, self._log, lambda: self.connection_count)
        self.add_images(images)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        unmet = self._faults.unconsumed
        # Another exception says more; it may even be why the faults were not met.
        if self._strict and unmet and exc_type is None:
            listed = "\n".join(
                f"  {each.fault} for {'any request' if each.vid is None else each.vid}"
                for each in unmet[:20]
            )
            raise UnconsumedFaults(f"{len(unmet)} planned fault(s) never struck:\n{listed}")

    async def start(self) -> None:
        """
        Begin to serve, for use without ``async with``.

        Raises:
            RuntimeError: When it was started before.

            OSError: When the port is taken.
        """
        await self._listener.start()
        self._clock.time()  # the default clock begins to run when it is first asked

    async def aclose(self) -> None:
        """Stop serving, end held requests and drop all connections; twice is no harm."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._listener.stop()

    @property
    def base_url(self) -> str:
        """
        The URL to give to a client.

        Raises:
            RuntimeError: When the simulator does not run.
        """
        return f"http://{self._listener.authority}{BASE_PATH}"

    def now(self) -> datetime:
        """Give the server's time, as in ``Date`` headers and *created_time*."""
        return utc_datetime(self._clock.time())

    def rotate_token(self, token: str) -> None:
        """Accept only *token* from now on; any other is answered with 401."""
        self._endpoint.token = token

    def add_image(
        self,
        script: str | None = None,
        *,
        duration: float | None = None,
        vid: str | UUID | Absent | None = None,
        original: bool = False,
        record: Mapping[str, object] | None = None,
        **fields: object,
    ) -> str:
        """
        Add an image, or replace the one with this id; its age begins now.

        Args:
            script: Its states: ``"pending*3 processing*20s completed"`` is *pending* for
                three answers, *processing* for 20 seconds, then *completed*. An answer
                counts when it went out whole and its state was not a fault's.

            duration: Without a script: completed at this age in seconds; else it is drawn.

            vid: Its id; drawn if not given. `ABSENT` leaves it out of the record.

            original: Whether it was uploaded, hence completed, rather than an SR result.

            record: Like *fields*, for names that are arguments here, such as *duration*.

            fields: What its record says differently; `ABSENT` leaves a field out.

        Returns:
            Its id.

        Raises:
            ValueError: When the script cannot be read, or contradicts another argument.

            TypeError: When a field cannot be written as JSON, or *vid* is no id.
        """
        fields.update(record or {})
        if vid is ABSENT:
            fields.setdefault("vid", vid)
            vid = None
        own = vid_or_none(vid)
        return self._images.add(
            script, duration=duration, vid=own, original=original, fields=fields
        )

    def add_images(
        self, count: int, script: str | None = None, *, duration: float | None = None
    ) -> list[str]:
        """Add many images alike, and return their ids; see `add_image`."""
        return [self._images.add(script, duration=duration) for _ in range(count)]

    def forget(self, vid: str | UUID) -> None:
        """
        Have no image *vid* from now on, as if it had expired.

        Raises:
            LookupError: When there is none.
        """
        self._images.forget(vid_from(vid))

    def record(self, vid: str | UUID) -> dict[str, object]:
        """
        Give the record of an image as it is now, without counting as a look.

        Raises:
            LookupError: When there is no such image.
        """
        image = self._images.find(vid_from(vid))
        if image is None:
            raise LookupError(f"the simulator has no image {vid!r}")
        return self._images.record(image, image.state(self._clock.time()))

    def fault(self, *faults: Fault, vid: str | UUID | None = None, times: int = 1) -> int:
        """
        Let the next requests meet *faults*, one each, in this order.

        Args:
            faults: What shall happen.

            vid: Only requests for this image count, and before faults for any request.

            times: How many times the whole list is gone through.

        Returns:
            The number of this plan, as in ``GET /__faults__``.

        Raises:
            ValueError: When there is nothing to plan, or too much.

            TypeError: When something is no fault, or *vid* is no id.
        """
        return self._faults.plan(faults, vid=vid_or_none(vid), times=times)

    def clear_faults(self) -> None:
        """Forget all faults that are still to come; an outage ends."""
        self._faults.clear()

    @property
    def unconsumed_faults(self) -> tuple[Fault, ...]:
        """The faults that were not yet put on the wire, in the order of planning."""
        return tuple(each.fault for each in self._faults.unconsumed)

    @property
    def requests(self) -> list[LoggedRequest]:
        """The last requests for the API, in the order in which they came."""
        return self._log.requests

    def request_count(self, vid: str | UUID | None = None, path: str | None = None) -> int:
        """
        Count the requests for an image or a path, or all of them.

        Raises:
            ValueError: When both are given.
        """
        return self._log.count(vid_or_none(vid), path)

    @property
    def connection_count(self) -> int:
        """How many TCP connections were accepted so far."""
        return self._listener.connection_count

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; aiohttp calls it for each."""
        if not self._listener.allows(request.headers.get("Host")):
            return web.Response(status=403, text="this Host header does not name the simulator\n")
        if self._control.owns(request.rel_url.raw_path):
            return await self._control.answer(request)
        entry = self._log.add(request, asyncio.get_running_loop().time())
        if self._latency:
            await asyncio.sleep(self._latency)
        exchange = Exchange(
            request,
            entry,
            self._faults.take(entry.vid),
            self._services,
            functools.partial(self._endpoint.answer, request, entry.vid),
        )
        try:
            await answer_request(exchange)
        except ConnectionResetError:
            # The client went while its answer was made; nobody is left to be told.
            exchange.wire.keep_alive = False
        finally:
            exchange.finish()
        return SentResponse(keep_alive=exchange.wire.keep_alive)

    def _call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run *action* after *delay* seconds unless the simulator stops before."""

        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay, run)
        self._timers.add(timer)
