"""What all kinds of jobs share while they run: client, valve, counts, progress."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable

from ..client import KokoonClient
from ..errors import JobError, KokoonError
from ..events import logger
from ._report import JobProgress, JobReport, Meter, Tally
from ._valve import Valve


__all__ = ["OnProgress", "Run", "crew", "job_error"]

OnProgress = Callable[[JobProgress], object]
"""Told how far a job is; may be a coroutine function."""

_TELL_EVERY = 0.5  # seconds


@asynccontextmanager
async def crew() -> AsyncIterator[asyncio.TaskGroup]:
    """Work in tasks that end together; what the first one raises is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        failure = group.exceptions[0]
    else:
        return
    raise failure


def job_error(error: KokoonError, path: str, advice: str = "") -> JobError:
    """
    Say that a job cannot go on.

    Args:
        error: Why.

        path: The output, where the error names none.

        advice: What to do next, where the error does not say everything.
    """
    where, number = (error.path, error.errno) if isinstance(error, JobError) else ("", None)
    hint = error.hint if where and error.hint else f"{error.hint} {advice}".strip()
    return JobError(error.message, hint, path=where or path, errno=number)


class Run:
    """
    Hold what one run of a job needs, and tell how far it is.

    Args:
        client: Asks.

        wait: Wait for each image to be finished, rather than ask for its record.

        timeout: Seconds for each wait.

        patience: Seconds without any good answer until the job is given up.

        on_progress: Told about twice a second how far the job is, and at its end.

    Attributes:
        valve: Shared by all that is asked.

        meter: What this run did.

        tally: What became of all ids, earlier runs' included.
    """

    def __init__(
        self,
        client: KokoonClient,
        *,
        wait: bool,
        timeout: float | None,
        patience: float | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.client = client
        self.wait = wait
        self.timeout = timeout
        self.valve = Valve(client, patience=patience, holds=not wait)
        self.meter = Meter()
        self.tally = Tally()
        self._on_progress = on_progress

    @asynccontextmanager
    async def ticking(self, expected: Callable[[], float | None]) -> AsyncIterator[None]:
        """
        Tell how far the job is, now and then, while the block runs.

        Args:
            expected: Estimates how many ids the input has.
        """
        if self._on_progress is None:
            yield
            return
        ticker = asyncio.create_task(self._tick(expected), name="kokoon progress")
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.wait({ticker})

    async def _tick(self, expected: Callable[[], float | None]) -> None:
        while self._on_progress is not None:
            await self.tell(expected())
            await asyncio.sleep(_TELL_EVERY)

    async def tell(self, expected: float | None) -> None:
        """Tell how far the job is; whatever the user's function raises is logged, once."""
        if self._on_progress is None:
            return
        valve = self.valve
        progress = self.meter.progress(
            in_flight=valve.in_flight, expected=expected, paused=valve.reason
        )
        try:
            result = self._on_progress(progress)
            if isawaitable(result):
                await result
        except Exception:  # noqa: BLE001 - whatever the user's function raises
            logger.exception("on_progress.failed")
            self._on_progress = None

    def report(
        self, out: str, form: str, *, duplicates: int, shards: int, skipped: int
    ) -> JobReport:
        """
        Sum up.

        Args:
            out: Where the rows are.

            form: The format's name.

            duplicates: How many positions of the input held an id that came before.

            shards: How many parts there are.

            skipped: How many of them were there before.
        """
        return JobReport(
            out=out,
            format=form,
            ids=self.tally.ids,
            duplicates=duplicates,
            outcomes=dict(self.tally.outcomes),
            states=dict(self.tally.states),
            shards=shards,
            shards_skipped=skipped,
            requests=self.meter.requests + self.valve.requests,
            retries=self.meter.retries,
            seconds=self.meter.seconds,
            rate=self.meter.rate,
        )
