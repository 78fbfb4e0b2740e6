"""Run what blocks in a thread: to its end, or by somebody who may be left behind."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast


__all__ = ["Servant", "in_thread", "see_end"]

T = TypeVar("T")


async def in_thread(
    work: Callable[..., T], *args: object, stop: Callable[[], object] | None = None
) -> T:
    """
    Do *work* in a thread, and be over when it is over.

    A cancellation waits for the work: a file that is being written is then either
    there or not, and nobody writes into a folder whose lock is free again.

    Args:
        work: What to do.

        *args: Its arguments.

        stop: Called by a cancellation, so that the work ends soon, in whatever way.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        with suppress(asyncio.CancelledError):  # the first one is raised below
            await see_end(future)
        raise


async def see_end(future: "asyncio.Future[Any]") -> None:
    """Wait until a future is done, and raise nothing of it; a cancellation waits too."""
    cancellation = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancellation = error
    if not future.cancelled():
        future.exception()  # asked for, or asyncio would log it as never retrieved
    if cancellation is not None:
        raise cancellation


class Servant:
    """
    Do things in a thread of one's own, one after another, and leave it if it hangs.

    For pipes and terminals, where a read or a write may block for ever. Not a pool's
    thread but a daemon, so that nothing waits for it when the program ends.

    Args:
        name: The thread's.

        at_end: Done last, in the thread.
    """

    def __init__(self, name: str, at_end: Callable[[], object] | None = None) -> None:
        self._at_end = at_end
        self._orders: queue.SimpleQueue[
            tuple[asyncio.Future[Any], Callable[..., object], tuple[object, ...]] | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._is_started = False

    async def do(self, work: Callable[..., T], *args: object) -> T:
        """
        Do *work*; a cancellation does not wait for it.

        Raises:
            OSError: What *work* raised; it must raise nothing else.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._orders.put((future, work, args))
        if not self._is_started:
            self._is_started = True
            self._thread.start()
        return cast(T, await future)

    def dismiss(self) -> None:
        """Let the thread end when it has done what it was told."""
        self._orders.put(None)

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            future, work, args = order
            try:
                answer = work(*args)
            except OSError as error:
                answer = error
            try:
                future.get_loop().call_soon_threadsafe(_deliver, future, answer)
            except RuntimeError:  # the loop is closed: nobody waits any more
                break
        if self._at_end is not None:
            self._at_end()


def _deliver(future: "asyncio.Future[Any]", answer: object) -> None:
    if future.done():  # cancelled meanwhile
        return
    if isinstance(answer, OSError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
