"""What streams of outcomes and of records share: they can be left at any point."""

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar


__all__ = ["Leavable"]

T = TypeVar("T")


class Leavable(ABC, Generic[T]):
    """
    Iterate for one consumer at a time, until the end or until it is left.

    Inside ``async with`` a cancelled ``anext`` changes nothing, since the block's end
    closes the stream. Outside nobody might ever do that, so the stream is closed there
    and then; whoever goes on all the same is told, instead of taking it for the end.

    Args:
        abandon: Stops what is under way without waiting. Called on the loop when nobody
            holds this object any more, so it must not hold it either.
    """

    __slots__ = ("_abandon", "_is_closed", "_is_cut_off", "_is_entered", "_is_taking", "_loop")

    def __init__(self, abandon: Callable[[], object]) -> None:
        self._abandon = abandon
        self._loop = asyncio.get_running_loop()
        self._is_entered = False
        self._is_taking = False
        self._is_closed = False
        self._is_cut_off = False

    # -- for subclasses ----------------------------------------------------------------

    @abstractmethod
    async def _next(self) -> T | None:
        """Wait for the next item; ``None`` at the end. Lose nothing if cancelled."""

    @abstractmethod
    async def _leave(self, why: BaseException | None, /) -> None:
        """Stop what is under way, maybe because of an exception, at the end too."""

    @property
    @abstractmethod
    def _is_unfinished(self) -> bool:
        """Whether something is lost if nobody goes on."""

    # -- for users ---------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_cut_off:
            message = (
                f"{self!r} was stopped when an anext() was cancelled, maybe by a time-out;"
                " inside async with it would go on"
            )
            raise RuntimeError(message)
        if self._is_closed:
            raise StopAsyncIteration
        if self._is_taking:
            message = f"{self!r} already has a consumer"
            raise RuntimeError(message)
        self._is_taking = True
        try:
            item = await self._next()
        except asyncio.CancelledError as stop:
            if not (self._is_entered or self._is_closed):
                self._is_cut_off = True
                await self._close(stop)
            raise
        except BaseException:
            await self._close()
            raise
        finally:
            self._is_taking = False
        if item is None:
            await self._close()
            raise StopAsyncIteration
        return item

    async def __aenter__(self) -> Self:
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close(error)

    async def aclose(self) -> None:
        """Stop what is under way; what was not taken yet is lost, the server's work goes on."""
        self._is_cut_off = False
        await self._close()

    async def _close(self, why: BaseException | None = None) -> None:
        self._is_closed = True
        await self._leave(why)

    def __del__(self) -> None:
        if self._is_closed or not self._is_unfinished:
            return
        # Later, and on the loop: finalisers run at any time, in any thread.
        with suppress(RuntimeError):  # the loop is closed, and all that ran on it
            self._loop.call_soon_threadsafe(self._abandon)
        warnings.warn(
            f"{self!r} was abandoned; use async with", ResourceWarning, stacklevel=2, source=self
        )
