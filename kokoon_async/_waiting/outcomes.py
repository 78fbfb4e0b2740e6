"""Many images at once: what became of each id, as a stream that can be left at any point."""

from typing import cast

import attrs

from ..errors import ConfigurationError, KokoonError
from ..models import Image
from .leavable import Leavable
from .work import Work


__all__ = ["Outcome", "OutcomeStream"]


@attrs.frozen
class Outcome:
    """
    Say what became of one id: its image, or why there is none.

    Attributes:
        vid: The canonical id. If it is no id, the text as given, cut to 200 characters;
            its type, as in ``<Secret>``, if it has no text or is of a subclass of `str`.

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


class OutcomeStream(Leavable[Outcome]):
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

    Inside ``async with``, a cancelled ``anext`` loses nothing, and the next one goes on:
    ``await asyncio.wait_for(anext(outcomes), 5)`` may time out any number of times.
    Outside, a cancellation stops the work, and a further ``anext`` is a `RuntimeError`.
    """

    def __init__(self, work: Work[Outcome]) -> None:
        self._work = work
        super().__init__(work.abandon)

    def __repr__(self) -> str:
        return f"<OutcomeStream, {self._work.given} outcomes so far>"

    async def _next(self) -> Outcome | None:
        return await self._work.next()

    async def _leave(self, _: BaseException | None, /) -> None:
        await self._work.stop()

    @property
    def _is_unfinished(self) -> bool:
        return self._work.is_unfinished
