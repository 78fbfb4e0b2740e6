"""Ask for ids until each has its final outcome: the rounds, and the feed of a stream."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import attrs

from .._waiting.outcomes import Outcome
from ..client import KokoonClient
from ..errors import (
    AuthenticationFailed,
    InsufficientCredit,
    KokoonError,
    RequestTimedOut,
    WaitTimedOut,
)
from ._shards import Entry
from ._threads import see_end
from ._valve import FORBIDDEN, Streak, Valve, may_pass


__all__ = ["Settled", "settle_ids", "wait_window"]

# How often an id is tried, while others succeed, until it has failed for good. A round is a call,
# which the client may repeat. What it does not repeat, such as a page of HTML, takes more rounds.
# Where one request in ten fails, one id in a million fails six times in a row, and one in a
# thousand million nine times.
_ROUNDS = 3
_TRIES = 9

_WAIT_WINDOW = 50_000
_LOOKS_PER_WAIT = 10  # that a rate limit must leave time for

_NO_TURN = "waiting for its turn"  # the phase of a call that its own client held up
_MOST_CUT_SHORT = 10
_PAUSE_BETWEEN_ROUNDS = 5.0  # seconds, as long as there is other work

NextEntries = Callable[[], Awaitable[Iterable[Entry]]]
"""Gives some entries at a time, and none at the end."""


@attrs.frozen
class Settled:
    """
    Hold the final outcome of an entry.

    Attributes:
        entry: The id and its line.

        outcome: What became of it; ``None`` if it is no id.

        requests: How many requests, or looks, it took.

        retries: How many of them were not the first.
    """

    entry: Entry
    outcome: Outcome | None
    requests: int = 0
    retries: int = 0


@attrs.define(eq=False)
class _Asked:
    """An id on its way, and what happened to it in earlier rounds."""

    entry: Entry
    requests: int = 0
    tries: int = 0
    cut_short: int = 0
    streaks: list[Streak] = attrs.field(factory=list)
    outcome: Outcome | None = None
    due: float = 0.0


def wait_window(client: KokoonClient, timeout: float | None) -> int:
    """
    Give how many ids to wait for at once.

    Under a rate limit there are as many as can be looked at several times each: of more,
    most would time out before anybody looked whether they are finished.
    """
    rate = client._limits.requests_per_second  # noqa: SLF001
    if rate is None or timeout is None:
        return _WAIT_WINDOW
    return max(1, min(_WAIT_WINDOW, int(rate * timeout / _LOOKS_PER_WAIT)))


async def settle_ids(
    client: KokoonClient,
    next_entries: NextEntries,
    settled: Callable[[Settled], object],
    valve: Valve,
    *,
    wait: bool,
    timeout: float | None,
) -> None:
    """
    Bring every entry to its final outcome.

    Args:
        client: Asks.

        next_entries: Gives the entries, some at a time, and then none.

        settled: Called with each outcome as it becomes final.

        valve: Decides when to ask, and what failures mean.

        wait: Wait for each image to be finished, rather than ask for its record.

        timeout: Seconds for each wait.

    Raises:
        AuthenticationFailed: If the token is refused.

        InsufficientCredit: If the account is empty.

        ClientClosed: If the client was closed.

        JobError: If the API does not answer for too long.
    """
    feed = _Feed(next_entries, settled, valve, is_wait=wait)
    try:
        stream = (
            client._wait_many(  # noqa: SLF001
                feed,
                timeout=timeout,
                window=wait_window(client, timeout),
                on_seen=valve.looked_at,
            )
            if wait
            else client.get_images(feed)
        )
        async with stream as outcomes:
            async for outcome in outcomes:
                feed.came_back(outcome)
    finally:
        await feed.aclose()


class _Feed:
    """
    Give a stream the ids to ask for, and again those that failed.

    A class and no generator, so that a stream that is left early has nothing to close.
    """

    def __init__(
        self,
        next_entries: NextEntries,
        settled: Callable[[Settled], object],
        valve: Valve,
        *,
        is_wait: bool,
    ) -> None:
        self._next_entries = next_entries
        self._coming: asyncio.Future[Iterable[Entry]] | None = None
        self._entries: deque[Entry] = deque()
        self._settled = settled
        self._valve = valve
        self._is_wait = is_wait
        self._has_turn = False
        self._has_more = True
        self._asked: dict[str, _Asked] = {}
        self._again: deque[_Asked] = deque()
        self._news: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            asked = await self._next()
            if asked is None:
                raise StopAsyncIteration
            try:
                if asked.streaks and await self._has_failed(asked):
                    continue
                if not self._valve.lets_through():
                    await self._valve.wait_for_passage()
            except asyncio.CancelledError:
                self._again.appendleft(asked)  # for the stream's next worker
                raise
            self._asked[asked.entry.vid] = asked
            return asked.entry.vid

    async def _next(self) -> _Asked | None:
        """Give what to ask for next; ``None`` once nothing can come any more."""
        while True:
            if self._again and (not self._has_more or self._again[0].due <= _now()):
                return self._again.popleft()
            if self._has_more:
                asked = await self._first_time()
                if asked is not None:
                    return asked
            elif self._asked:
                # Only what is under way may bring more to do.
                await self._change()
            else:
                return None

    async def _first_time(self) -> _Asked | None:
        """Give the next valid entry; ``None`` if there is none, or something else may be due."""
        if not self._has_turn:
            await self._valve.turns.acquire()
            self._has_turn = True
        if not self._entries:
            if self._coming is None:
                self._coming = asyncio.ensure_future(self._next_entries())
            # The input may be a pipe on which nothing comes for long.
            await self._change()
            if not self._coming.done():
                return None
            coming, self._coming = self._coming, None
            self._entries.extend(coming.result())
        if not self._entries:
            self._has_more = False
            self._give_turn()
            return None
        entry = self._entries.popleft()
        if not entry.is_valid:
            self._settled(Settled(entry, None))
            return None
        return _Asked(entry)

    async def _change(self) -> None:
        """Wait for an outcome, for entries, or until an id is to be asked for again."""
        self._news = asyncio.get_running_loop().create_future()
        pause = self._again[0].due - _now() if self._again else None
        awaited: set[asyncio.Future[Any]] = {self._news}
        if self._coming is not None:
            awaited.add(self._coming)
        await asyncio.wait(awaited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)

    async def _has_failed(self, asked: _Asked) -> bool:
        """Tell whether an id has had its rounds, and settle it if so."""
        while True:
            asked.streaks = [streak for streak in asked.streaks if not streak.is_outage]
            if len(asked.streaks) < _ROUNDS or asked.tries < _TRIES:
                return False
            unclear = [streak for streak in asked.streaks if not streak.is_over]
            if not unclear:
                self._settle(asked)
                return True
            await self._valve.resolve(unclear[0])

    def came_back(self, outcome: Outcome) -> None:
        """Settle an outcome, or ask for its id again later."""
        error = outcome.error
        must_ask_again = error is not None and self._must_ask_again(error)
        asked = self._asked.pop(outcome.vid)
        asked.outcome = outcome
        asked.requests += outcome.attempts
        if error is not None and must_ask_again:
            self._ask_again(asked, error)
        else:
            if isinstance(error, WaitTimedOut):
                # Its last good answer may be long ago.
                self._valve.seen(outcome.vid)
                self._valve.dropped(1)
            else:
                self._valve.answered(outcome.vid)
            self._settle(asked)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _ask_again(self, asked: _Asked, error: KokoonError) -> None:
        # At a low rate a call's next attempt, or a look, may not have its turn in time. That is
        # nobody's fault; but a poison id may not hide behind it for ever, nor a look that takes
        # longer than the whole wait.
        is_cut_short = (
            not error.attempts
            if isinstance(error, WaitTimedOut)
            else isinstance(error, RequestTimedOut) and error.phase == _NO_TURN
        )
        asked.cut_short += is_cut_short
        if is_cut_short and asked.cut_short <= _MOST_CUT_SHORT:
            self._valve.dropped(1)
        else:
            asked.tries += max(1, error.attempts)
            asked.streaks.append(self._valve.failed(asked.entry.vid, error))
        asked.due = _now() + _PAUSE_BETWEEN_ROUNDS
        self._again.append(asked)

    async def aclose(self) -> None:
        """Read no more, and let go of what the valve counts, and of the turn."""
        self._valve.dropped(len(self._asked))
        self._give_turn()
        if self._coming is not None:
            self._coming.cancel()
            await see_end(self._coming)

    def _must_ask_again(self, error: KokoonError) -> bool:
        if may_pass(error):
            return True
        # 403 may be about this one image (U1), until a probe is refused too; 401 and an empty
        # account are about all.
        if isinstance(error, AuthenticationFailed | InsufficientCredit):
            if error.status == FORBIDDEN:
                return True
            raise error
        return False

    def _settle(self, asked: _Asked) -> None:
        retries = 0 if self._is_wait else max(0, asked.requests - 1)
        self._settled(Settled(asked.entry, asked.outcome, asked.requests, retries))

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._valve.turns.release()


def _now() -> float:
    return asyncio.get_running_loop().time()
