"""What a wait looks like from outside: iterators that can be left at any point."""

import asyncio
import warnings
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import ImageFailed
from ..models import Image
from .scheduler import Scheduler
from .waits import Wait


__all__ = ["Feed", "Watch"]


class Feed:
    """Collect what a scheduler tells of one wait, until somebody takes it."""

    def __init__(self) -> None:
        self._images: deque[Image] = deque()
        self._result: Image | Exception | None = None
        self._news: asyncio.Future[None] | None = None

    def changed(self, _: Wait, image: Image) -> None:
        """Keep a record for `next_image`."""
        self._images.append(image)
        self._wake()

    def ended(self, _: Wait, result: Image | Exception) -> None:
        """Keep the result for `result`."""
        self._result = result
        self._wake()

    async def next_image(self) -> Image | None:
        """Wait for the next record; ``None`` once there are no more."""
        while not self._images and self._result is None:
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self._images.popleft() if self._images else None

    def result(self) -> Image:
        """
        Give the completed record, or raise what the wait ended with.

        Call it after `next_image` gave ``None``.
        """
        if isinstance(self._result, Image):
            return self._result
        if self._result is None:
            message = "the wait has not ended"
            raise RuntimeError(message)
        raise self._result

    @property
    def is_over(self) -> bool:
        """Whether the wait has ended."""
        return self._result is not None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Watch:
    """
    Follow one image: an async iterator of its records, one per change of state.

    The first record comes first, whatever its state; a final one is the last, also when
    it says ``error``. Leave it early by ``break`` within ``async with``, or by `aclose`;
    a plain ``async for`` that runs to the end needs neither.

    Raises, while iterating:
        KokoonError: If the wait ended without a final record.
    """

    def __init__(self, scheduler: Scheduler, wait: Wait, feed: Feed) -> None:
        self._scheduler = scheduler
        self._wait = wait
        self._feed = feed
        self._left = False
        scheduler.add(wait)

    def __repr__(self) -> str:
        seen = self._wait.image and self._wait.image.state
        return f"<Watch of {self._wait.vid}, last seen as {seen}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Image:
        if self._left:
            raise StopAsyncIteration
        try:
            image = await self._feed.next_image()
        except asyncio.CancelledError as stop:
            # Shown wherever the cancellation ends up, e.g. in an outer timeout.
            stop.add_note(
                f"The wait for image {self._wait.vid} was cancelled; it was last seen as"
                f" {self._wait.image and self._wait.image.state}. The server's work goes on:"
                " wait for the same vid again to resume."
            )
            await self.aclose()
            raise
        if image is not None:
            return image
        self._left = True
        with suppress(ImageFailed):  # its record, the last one, has said so
            self._feed.result()
        raise StopAsyncIteration

    def result(self) -> Image:
        """
        Give the completed record, once the iteration is over.

        Raises:
            WaitError: If the wait ended otherwise.
        """
        return self._feed.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop watching; the server's work goes on."""
        self._left = True
        self._scheduler.drop(self._wait)

    def __del__(self) -> None:
        if not self._left and not self._feed.is_over:
            warnings.warn(
                f"{self!r} was abandoned; use async with",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self._scheduler.drop(self._wait)
