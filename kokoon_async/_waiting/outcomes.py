"""Many images at once: what became of each id, as a stream that can be left at any point."""

import asyncio
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import attrs

from ..errors import ConfigurationError, KokoonError
from ..models import Image
from .work import Work


__all__ = ["Outcome", "OutcomeStream"]


@attrs.frozen
class Outcome:
    """
    Say what became of one id: its image, or why there is none.

    Attributes:
        vid: The canonical id; the text as given, cut to 200 characters, if it is no id.

        image: The record.

        error: What went wrong. Exactly one of *image* and *error* is set.

        attempts: Requests sent for it; looks, for a wait.
    """

    vid: str
    image: Image | None = None
    error: KokoonError | None = None
    attempts: int = 0

    def __attrs_post_init__(self) -> None:
        if (self.image is None) == (self.error is None):
            raise ConfigurationError("An outcome has either an image or an error.", vid=self.vid)

    @property
    def ok(self) -> bool:
        """Whether there is an image."""
        return self.image is not None

    def unwrap(self) -> Image:
        """
        Give the image.

        Raises:
            KokoonError: The error, if there is no image.
        """
        if self.error is not None:
            raise self.error
        return cast("Image", self.image)


class OutcomeStream:
    """
    Iterate over what becomes of many ids: one `Outcome` for every position of the input.

    ::

        async with client.get_images(vids) as outcomes:
            async for outcome in outcomes:
                print(outcome.vid, outcome.ok)

    The input is read only as fast as the work is done and its outcomes are taken. One
    id never spoils another, and an id that is no id is an outcome too. What the input
    itself raises comes last, after the outcomes of what was read before.

    A plain ``async for`` that runs to the end is fine too. Whoever leaves early does so
    inside ``async with``, or calls `aclose`: then the work stops at once. A stream that
    is dropped half-way warns with `ResourceWarning`, and stops.
    """

    def __init__(self, work: Work[Outcome]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._taking = False
        self._over = False

    def __repr__(self) -> str:
        return f"<OutcomeStream, {self._work.given} outcomes so far>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._over:
            raise StopAsyncIteration
        if self._taking:
            message = "this stream already has a consumer"
            raise RuntimeError(message)
        self._taking = True
        try:
            outcome = await self._work.next()
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._taking = False
        if outcome is None:
            await self.aclose()
            raise StopAsyncIteration
        return outcome

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
        """Stop the work that is under way; outcomes not taken yet are lost."""
        self._over = True
        await self._work.stop()

    def __del__(self) -> None:
        if self._over or not self._work.is_unfinished:
            return
        # Later, and on the loop: finalisers run at any time, in any thread.
        with suppress(RuntimeError):  # the loop is closed, and all tasks with it
            self._loop.call_soon_threadsafe(self._work.abandon)
        warnings.warn(
            f"{self!r} was abandoned; use async with", ResourceWarning, stacklevel=2, source=self
        )
