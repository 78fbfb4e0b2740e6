"""Fetch many images, or wait for many, with a fixed number of tasks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator

from .._checks import vid_from
from .._http.protocol import Answer
from .._text import text_of
from ..errors import ClientClosed, InvalidVid, KokoonError
from ..models import Image
from .outcomes import Outcome
from .scheduler import Scheduler
from .waits import Wait
from .work import Work


__all__ = ["Fetching", "Waiting"]

_ROOM_PER_WORKER = 4
_MOST_SHOWN_LETTERS = 200
_TAKEN_BETWEEN_PAUSES = 200


def _checked(item: object) -> str | Outcome:
    """Give the vid that an item of the input is, or the outcome that it is none."""
    try:
        return vid_from(item)
    except InvalidVid as error:
        return Outcome(_shown(item), error=error)


def _shown(item: object) -> str:
    """Give an item that is no id as a short text: its type, if it must not be shown."""
    if isinstance(item, str) and type(item) is not str:
        return f"<{type(item).__name__}>"
    return text_of(item)[:_MOST_SHOWN_LETTERS]


class Fetching(Work[Outcome]):
    """
    Fetch every image of an input once, with a few workers.

    Args:
        vids: The input.

        fetch: Gets one record, with its retries.

        workers: How many run at once.

        in_order: Hand over in the order of the input.
    """

    def __init__(
        self,
        vids: Iterable[object] | AsyncIterable[object],
        fetch: Callable[[str], Awaitable[Answer]],
        *,
        workers: int,
        in_order: bool,
    ) -> None:
        super().__init__(vids, room=_ROOM_PER_WORKER * workers, in_order=in_order)
        self._fetch = fetch
        self._idle_workers = workers
        # The positions that wait for an image under way: a duplicate joins them.
        self._under_way: dict[str, list[int]] = {}

    def begin(self) -> None:
        """Start the first worker."""
        self._add_worker()

    def _add_worker(self) -> None:
        """Start one more worker, up to the limit: a short input needs few."""
        if self._idle_workers:
            self._idle_workers -= 1
            self.start(self._work(), "kokoon fetch")

    async def _work(self) -> None:
        await asyncio.sleep(0)  # an eager task would start the next worker within this one (F-111)
        while (taken := await self.take()) is not None:
            self._add_worker()
            position, item = taken
            vid = _checked(item)
            if isinstance(vid, Outcome):
                self.give(position, vid)
            elif vid in self._under_way:
                self._under_way[vid].append(position)
            else:
                await self._fetch_for(position, vid)

    async def _fetch_for(self, position: int, vid: str) -> None:
        positions = self._under_way[vid] = [position]
        try:
            answer = await self._fetch(vid)
            outcome = Outcome(vid, answer.image, None, answer.attempts)
        except ClientClosed as error:
            self.fail(error, is_fatal=True)
            return
        except KokoonError as error:
            outcome = Outcome(vid, None, error, error.attempts)
        finally:
            del self._under_way[vid]
        for each in positions:
            self.give(each, outcome)


class Waiting(Work[Outcome]):
    """
    Wait for every image of an input, with one task in all.

    Args:
        vids: The input.

        scheduler: The client's.

        new_wait: Makes a wait that tells this object what becomes of it.

        window: How many may be waited for, or be finished and not taken, at once.

        on_seen: Called with a vid when its first record comes, and when its state changes.
    """

    def __init__(
        self,
        vids: Iterable[object] | AsyncIterable[object],
        scheduler: Scheduler,
        new_wait: Callable[[str, "Waiting"], Wait],
        *,
        window: int,
        on_seen: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__(vids, room=window)
        self._scheduler = scheduler
        self._new_wait = new_wait
        self._open_waits = 0
        # How many positions more have a wait, of those that have several.
        self._joined: Counter[Wait] = Counter()
        self._on_seen = on_seen

    def begin(self) -> None:
        """Start the one task: it reads the input."""
        self.start(self._add_waits(), "kokoon wait_many")

    def letting_go(self) -> Iterator[object]:
        """Drop the waits that are not over, step by step."""
        return self._scheduler.dropping_all_of(self) if self._open_waits else iter(())

    async def _add_waits(self) -> None:
        while (taken := await self.take()) is not None:
            position, item = taken
            vid = _checked(item)
            if isinstance(vid, Outcome):
                self.give(position, vid)
            else:
                self._wait_for(vid)
            if position % _TAKEN_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)  # let the looks begin

    def _wait_for(self, vid: str) -> None:
        """Begin a wait, or join one that is as good as new: nobody has looked for it yet."""
        newest = self._scheduler.newest(vid)
        if newest is not None and newest.watcher is self and not newest.looks:
            self._joined[newest] += 1
            return
        self._open_waits += 1
        self._scheduler.add(self._new_wait(vid, self))

    def changed(self, wait: Wait, _: Image) -> None:
        """Tell that the API has answered; the record itself does not matter before the end."""
        if self._on_seen is not None:
            self._on_seen(wait.vid)

    def ended(self, wait: Wait, result: Image | Exception) -> None:
        """Hand over what became of a wait, for each position that has it."""
        self._open_waits -= 1
        if isinstance(result, Image):
            outcome = Outcome(wait.vid, result, None, wait.looks)
        elif isinstance(result, KokoonError) and not isinstance(result, ClientClosed):
            outcome = Outcome(wait.vid, None, result, wait.looks)
        else:  # the client is closed, or the user's policy raised
            self.fail(result, is_fatal=True)
            return
        for _ in range(1 + self._joined.pop(wait, 0)):
            self.give(0, outcome)
