"""
Work on a stream of ids: read the input no faster than results are taken, lose nothing.

What has been read and not been taken yet is bounded, whatever the order of results: so
a slow consumer slows the reading, and memory does not grow with the input.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from typing import Generic, TypeVar, cast

from ..errors import ClientClosed, ConfigurationError
from .slices import in_slices


__all__ = ["Work"]

R = TypeVar("R")

_END = object()


class Work(ABC, Generic[R]):
    """
    Do something for every item of an input, and hand over the results.

    A subclass says what: it overrides `begin`, reads with `take` and hands over with
    `give`, once for every position taken.

    Args:
        items: Any iterable, plain or async.

        room: How many positions may be taken and not be consumed yet.

        in_order: Hand over in the order of the input.
    """

    def __init__(
        self, items: Iterable[object] | AsyncIterable[object], *, room: int, in_order: bool = False
    ) -> None:
        self._plain: Iterator[object] | None = None
        self._async: AsyncIterator[object] | None = None
        if isinstance(items, str | bytes):
            raise ConfigurationError(
                f"vids must be an iterable of ids, not one {type(items).__name__}.",
                hint="Put the id into a list.",
            )
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        elif isinstance(items, Iterable):
            self._plain = iter(items)
        else:
            raise ConfigurationError(
                f"vids must be an iterable or an async iterable, not {type(items).__name__}."
            )
        self._room = room
        self._in_order = in_order
        self._reading = asyncio.Lock()
        self._exhausted = False
        self._failure: BaseException | None = None
        self._is_broken = False
        self._taken = 0
        self.given = 0
        self._early: dict[int, R] = {}
        self._next_in_order = 0
        self._results: deque[R] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._consumer: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False

    # -- for subclasses ----------------------------------------------------------------

    @abstractmethod
    def begin(self) -> None:
        """Start the first tasks."""

    def letting_go(self) -> Iterator[object]:
        """Let go of whatever is not a task, step by step."""
        return iter(())

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run a part of the work as a task; what it raises reaches the consumer."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    async def take(self) -> tuple[int, object] | None:
        """
        Give the next item and its position, as soon as there is room for its result.

        ``None`` at the end of the input, and after it raised.
        """
        async with self._reading:
            while self._taken - self.given >= self._room and self._failure is None:
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
            if self._exhausted or self._failure is not None:
                return None
            try:
                item = await self._read()
            except Exception as error:  # noqa: BLE001 - whatever the user's iterator raises
                self.fail(error)
                return None
            if item is _END:
                self._exhausted = True
                self._wake_consumer()
                return None
            self._taken += 1
            return self._taken - 1, item

    def give(self, position: int, result: R) -> None:
        """Hand over the result of a position."""
        if not self._in_order:
            self._results.append(result)
        else:
            self._early[position] = result
            while self._next_in_order in self._early:
                self._results.append(self._early.pop(self._next_in_order))
                self._next_in_order += 1
        self._wake_consumer()

    def fail(self, error: BaseException, *, is_fatal: bool = False) -> None:
        """
        Read no further, and raise *error* to the consumer after the last result.

        Args:
            error: Why.

            is_fatal: Whether some of what was taken will have no result.
        """
        if self._failure is None:
            self._failure = error
        self._exhausted = True
        self._is_broken = self._is_broken or is_fatal
        self._wake_reader()
        self._wake_consumer()

    # -- for the stream ----------------------------------------------------------------

    @property
    def is_unfinished(self) -> bool:
        """Whether something was begun that will still be done or has to be taken."""
        return self._begun and not (self._is_broken or self._is_all_given)

    async def next(self) -> R | None:
        """Give the next result; ``None`` after the last one."""
        if not self._begun:
            self._begun = True
            self.begin()
        while not self._results:
            if self._is_broken or self._is_all_given:
                if self._failure is not None:
                    raise self._failure
                return None
            self._consumer = asyncio.get_running_loop().create_future()
            try:
                await self._consumer
            finally:
                self._consumer = None
        self.given += 1
        self._wake_reader()
        return self._results.popleft()

    async def stop(self, error: Exception | None = None) -> None:
        """
        Stop all tasks, let go of the rest, and wait until the tasks have let go too.

        Args:
            error: Why, for a consumer: comes after the last result, if something is missing.
        """
        self._break_off(error)
        try:
            await in_slices(self.letting_go())
        finally:
            if self._tasks:
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Do as `stop` does, at once and without waiting."""
        self._break_off()
        for _ in self.letting_go():
            pass

    # -- inside ------------------------------------------------------------------------

    def _break_off(self, error: Exception | None = None) -> None:
        is_all_done = self._exhausted and self.given + len(self._results) == self._taken
        if error is not None and self._failure is None and not is_all_done:
            self._failure = error
        self._begun = self._exhausted = self._is_broken = True
        self._wake_consumer()
        for task in self._tasks:
            task.cancel()

    @property
    def _is_all_given(self) -> bool:
        return self._exhausted and self.given == self._taken

    async def _read(self) -> object:
        if self._plain is not None:
            return next(self._plain, _END)
        return await anext(cast("AsyncIterator[object]", self._async), _END)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._is_broken:  # by somebody who cancels all tasks of the loop, and goes on
                cancelled = ClientClosed(
                    "A task of this stream was cancelled from outside.",
                    hint="Start a new stream for the ids that had no outcome yet.",
                )
                self.fail(cancelled, is_fatal=True)
        elif (error := task.exception()) is not None:
            self.fail(error, is_fatal=True)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_consumer(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)
