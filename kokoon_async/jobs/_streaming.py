"""Rows to standard output: as they come, without a folder and without resuming."""

import asyncio
import os
import sys

import orjson

from .._text import ascii_json
from ..errors import AuthenticationFailed, InsufficientCredit, JobError
from ._distinct import DistinctIds
from ._formats import outcomes_of
from ._input import Source
from ._report import JobReport
from ._run import Run, crew, job_error
from ._running import row_of
from ._settling import Settled, settle_ids
from ._shards import Entry
from ._threads import Servant, in_thread


__all__ = ["stream_statuses"]

_ROOM = 500
_AT_ONCE = 500


async def stream_statuses(run: Run, source: Source) -> JobReport:
    """
    Write a JSON line to standard output for each distinct id of the input.

    Args:
        run: What is the same for all jobs.

        source: The input.

    Raises:
        BrokenPipeError: If nobody reads the output any more.

        JobError: If it cannot be written to.
    """
    sink = _Sink(_standard_output())
    distinct = DistinctIds(None)
    entries = _Entries(source, distinct, sink)

    def put(settled: Settled) -> None:
        kind, row = row_of(settled)
        run.meter.count(kind)
        run.meter.requests += settled.requests
        run.meter.retries += settled.retries
        run.tally.add(outcomes_of(row + b"\n"))
        sink.put(row)

    failure: Exception | None = None
    try:
        async with run.ticking(entries.expected_ids), crew() as tasks:
            tasks.create_task(sink.write(), name="kokoon output")
            try:
                await settle_ids(
                    run.client, entries.next, put, run.valve, wait=run.wait, timeout=run.timeout
                )
            except Exception as error:  # noqa: BLE001 - raised below, after the rows so far
                failure = error
            sink.end()
    finally:
        sink.close()
        await in_thread(distinct.close)
    if isinstance(failure, AuthenticationFailed | InsufficientCredit | JobError):
        raise job_error(failure, "-")
    if failure is not None:
        raise failure
    await run.tell(entries.expected_ids())
    return run.report("-", "jsonl", duplicates=distinct.duplicates, shards=0, skipped=0)


def _standard_output() -> int:
    try:
        sys.stdout.flush()
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # closed, replaced, or `None`
        pass
    raise JobError(
        "There is no standard output to write to.", hint="Give the path of a file.", path="-"
    )


class _Entries:
    """Read entries, some at a time, while the output takes them."""

    def __init__(self, source: Source, distinct: DistinctIds, sink: "_Sink") -> None:
        self._source = source
        self._distinct = distinct
        self._sink = sink
        self._given = 0

    async def next(self) -> list[Entry]:
        """Give some distinct entries; none at the end."""
        await self._sink.has_room()
        while items := await self._source.read(_AT_ONCE):
            entries = await in_thread(self._distinct.only_new, items)
            self._given += len(entries)
            if entries:
                return entries
        return []

    def expected_ids(self) -> float | None:
        """Estimate how many there will have been."""
        fraction = self._source.fraction()
        return self._given / fraction if fraction else None


class _Sink:
    """Write rows in batches, as fast as they are taken."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self._servant = Servant("kokoon output")
        self._rows: list[bytes] = []
        self._is_over = False
        self._changed = asyncio.Event()

    def put(self, row: bytes) -> None:
        """Take a row; a terminal gets no character that could steer it (F-47)."""
        self._rows.append(ascii_json(orjson.loads(row)).encode() if self._is_terminal else row)
        self._wake()

    def end(self) -> None:
        """Take no more rows."""
        self._is_over = True
        self._wake()

    async def has_room(self) -> None:
        """Wait until the reader has caught up."""
        while len(self._rows) > _ROOM:
            await self._changed.wait()

    async def write(self) -> None:
        """
        Write until the end.

        Raises:
            BrokenPipeError: If nobody reads any more.

            JobError: If it cannot be written.
        """
        while self._rows or not self._is_over:
            if not self._rows:
                await self._changed.wait()
                continue
            content = b"".join(row + b"\n" for row in self._rows)
            self._rows.clear()
            self._wake()
            try:
                await self._servant.do(self._write_now, content)
            except BrokenPipeError:
                raise
            except OSError as error:
                failure = error
            else:
                continue
            problem = failure.strerror or type(failure).__name__
            raise JobError(
                f"Cannot write to standard output: {problem}.", path="-", errno=failure.errno
            )

    def _write_now(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        """Let go of the thread, which may be left behind."""
        self._servant.dismiss()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
