"""A bulk job with a folder: shards in, parts out, and what to do when it is stopped."""

import asyncio
import math
from pathlib import Path

from ..errors import AuthenticationFailed, InsufficientCredit, JobError
from ._cutting import Cutter
from ._distinct import DistinctIds
from ._folder import JobFolder
from ._input import Source
from ._layout import FoundPart
from ._report import JobReport
from ._run import Run, crew, job_error
from ._running import run_shard
from ._settling import wait_window
from ._shards import Shard
from ._threads import in_thread


__all__ = ["Job"]

_FETCH_WINDOW = 512  # more than most clients have requests in flight


class Job:
    """
    Run all shards of an input that are not done yet.

    Args:
        run: What is the same for all jobs.

        source: The input.

        folder: Where the parts are.

        out: The output as the user named it.

        form: The format's name.

        shard_size: How many ids make a shard.

        retry_failed: Ask again for ids that failed in earlier runs.
    """

    def __init__(
        self,
        run: Run,
        source: Source,
        folder: JobFolder,
        *,
        out: Path,
        form: str,
        shard_size: int,
        retry_failed: bool,
    ) -> None:
        self._run = run
        self._folder = folder
        self._out = out
        self._form = form
        self._retry_failed = retry_failed
        self._distinct = DistinctIds(folder.new_seen_path())
        self._cutter = Cutter(source, self._distinct, shard_size)
        # At least two, so that the last ids of one do not leave the client idle.
        window = wait_window(run.client, run.timeout) if run.wait else _FETCH_WINDOW
        self._slots = asyncio.Semaphore(1 + math.ceil(window / shard_size))
        self._skipped = 0

    async def finish(self, *, is_fresh: bool) -> JobReport:
        """
        Bring the job to its end.

        Args:
            is_fresh: Remove an earlier job first.

        Raises:
            JobError: If it cannot start or go on; what is finished is kept.

            ClientClosed: If the client was closed.
        """
        try:
            await in_thread(self._folder.open, is_fresh, stop=self._folder.stop)
            await self._work()
        except asyncio.CancelledError as stop:
            stop.add_note(self._how_to_resume())
            raise
        finally:
            await in_thread(self._let_go)
        await self._run.tell(self._run.tally.ids)
        return self._run.report(
            str(self._out),
            self._form,
            duplicates=self._cutter.duplicates,
            shards=self._cutter.shards,
            skipped=self._skipped,
        )

    def _let_go(self) -> None:
        self._distinct.close()
        self._folder.close()

    async def _work(self) -> None:
        try:
            async with self._run.ticking(self._cutter.expected_ids):
                await self._run_shards()
                await self._complete()
        except (AuthenticationFailed, InsufficientCredit, JobError) as error:
            problem = error
        except Exception as error:
            error.add_note(self._how_to_resume())
            raise
        else:
            return
        raise job_error(problem, str(self._out), self._how_to_resume())

    async def _complete(self) -> None:
        """Join the parts and note the success, or see that an earlier run did."""
        cutter, success, tally = self._cutter, self._folder.success, self._run.tally
        if success is None:
            counts = (tally, cutter.shards, cutter.duplicates, cutter.digest)
            await in_thread(self._folder.finish, *counts, stop=self._folder.stop)
            return
        await in_thread(self._folder.confirm, success, cutter.digest)
        self._run.tally = success.tally
        self._skipped = cutter.shards
        self._run.meter.skipped = cutter.ids

    async def _run_shards(self) -> None:
        """Read the input to its end, and run what is not done."""
        async with crew() as tasks:
            failure = await self._read_on(tasks)
        if failure is not None:
            raise failure

    async def _read_on(self, tasks: asyncio.TaskGroup) -> Exception | None:
        """Start a shard after the other; give what went wrong with the input."""
        while True:
            try:
                shard = await self._cutter.next_shard()
            except Exception as error:  # noqa: BLE001 - whatever the user's iterator raises
                return error  # later: what is under way comes first
            if shard is None:
                return None
            await self._deal_with(shard, tasks)

    async def _deal_with(self, shard: Shard, tasks: asyncio.TaskGroup) -> None:
        if self._folder.success is not None:
            if not (self._retry_failed and self._folder.success.tally.failed):
                return  # only whether the input is the same matters
            self._folder.success = None
        part = await in_thread(self._folder.find, shard)
        again = part.retryable if part is not None and self._retry_failed else []
        if part is not None:
            if part.answered is not None:
                self._run.valve.remember(shard.entries[part.answered].vid)
            self._run.meter.skipped += len(part.outcomes) - len(again)
            if not again:
                self._skipped += 1
                self._run.tally.add(part.outcomes)
                return
        await self._slots.acquire()
        work = self._run_shard(shard, part, again)
        tasks.create_task(work, name=f"kokoon shard {shard.index}")

    async def _run_shard(self, shard: Shard, part: FoundPart | None, again: list[int]) -> None:
        """Fetch a shard, or only some of its ids again, and write its part."""
        run, wanted = self._run, shard
        if part is not None:
            wanted = Shard(shard.index, tuple(shard.entries[place] for place in again))
        result = await run_shard(
            run.client,
            wanted,
            wait=run.wait,
            timeout=run.timeout,
            valve=run.valve,
            on_row=run.meter.count,
        )
        run.meter.requests += result.requests
        run.meter.retries += result.retries
        if part is None:
            outcomes = await in_thread(self._folder.write, shard, result.rows)
        else:
            rows = dict(zip(again, result.rows, strict=True))
            outcomes = await in_thread(self._folder.replace, shard, part, rows)
        run.tally.add(outcomes)
        self._slots.release()

    def _how_to_resume(self) -> str:
        return (
            f"{self._folder.part_count} finished shards of {self._out} are kept:"
            " run the same call again to go on from there."
        )
