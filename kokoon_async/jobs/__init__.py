"""
Bulk jobs: the status of millions of images, written to files, restartable at any point.

Start with `fetch_statuses`; `docs/bulk.md` says what it promises.
"""

import os
from pathlib import Path

from .._checks import check_seconds, check_whole
from ..client import KokoonClient
from ..errors import ConfigurationError
from ._folder import JobFolder
from ._formats import format_of, is_one_file
from ._input import Vids, open_source
from ._job import Job
from ._layout import JobSpec
from ._parquet import make_format
from ._report import JobProgress, JobReport
from ._run import OnProgress, Run
from ._running import run_shard
from ._shards import Entry, Shard, ShardResult
from ._streaming import stream_statuses
from ._threads import in_thread


__all__ = [
    "Entry",
    "JobProgress",
    "JobReport",
    "Shard",
    "ShardResult",
    "fetch_statuses",
    "run_shard",
]


_SHARD_SIZE = 1000


async def fetch_statuses(
    client: KokoonClient,
    vids: Vids,
    out: str | os.PathLike[str],
    *,
    wait: bool = False,
    shard_size: int = _SHARD_SIZE,
    format: str | None = None,  # noqa: A002 - the word that users look for
    resume: bool = True,
    retry_failed: bool = False,
    timeout: float | None = 1800.0,
    patience: float | None = 3600.0,
    on_progress: OnProgress | None = None,
) -> JobReport:
    """
    Write one row with the status of each image to files; go on where an earlier run ended.

    ::

        report = await fetch_statuses(client, "vids.txt", "statuses.jsonl")
        print(report)

    Every distinct id of the input gets exactly one row, whatever happens on the way:
    kill the process at any instant, run the same call again, and the result is the same.
    An outage pauses the job. Memory does not grow with the input.

    Args:
        client: Asks; its limits hold for the job.

        vids: A path, ``"-"`` for standard input, or any iterable of ids, plain or async.
            Of text, blank lines and lines that begin with ``#`` do not count.

        out: A path that ends in ``.jsonl``, ``.ndjson``, ``.csv`` or ``.parquet`` becomes one
            file. One that ends like another kind of file, such as ``.json`` or ``.gz``, is
            refused. Any other becomes a folder with a file per shard, which pandas, pyarrow
            and duckdb read as a dataset. ``"-"`` is standard output: JSON lines, and no
            resuming, hence neither *shard_size* nor *resume* nor *retry_failed*.

        wait: Wait for each image to be finished, rather than ask for its record once.

        shard_size: How many ids are fetched, written and resumed together.

        format: ``jsonl``, ``csv`` or ``parquet``; by default what *out* says, else jsonl.

        resume: Go on with what is there. If false, an earlier job is removed first.

        retry_failed: Ask again for ids that failed or timed out in earlier runs.

        timeout: Seconds for each wait; ``None`` for ever.

        patience: Seconds that an outage may last; ``None`` for ever.

        on_progress: Called with a `JobProgress` about twice a second, and at the end; may
            be a coroutine function.

    Returns:
        The counts. A job that was finished before gives its report without a request.

    Raises:
        ConfigurationError: If an argument cannot be used. Nothing was sent.

        JobError: If the job cannot start or go on: another input than before, a full
            disk, a refused token, an outage. What is finished is kept.

        ClientClosed: If the client was closed.

        BrokenPipeError: If *out* is ``"-"`` and nobody reads it any more.
    """
    check_seconds("timeout", timeout)
    check_seconds("patience", patience)
    check_whole("shard_size", shard_size)
    if out == "":  # as a path it would be the current folder
        raise ConfigurationError('out is empty: name a file, a folder, or "-" for standard output.')
    path = None if out == "-" else Path(out)
    form = format_of(path, format)
    if path is None and (retry_failed or not resume or shard_size != _SHARD_SIZE):
        raise ConfigurationError(
            "Standard output cannot be resumed, so it takes neither shard_size nor resume nor"
            " retry_failed.",
            hint="Give the path of a file or a folder.",
        )
    run = Run(client, wait=wait, timeout=timeout, patience=patience, on_progress=on_progress)
    source = await open_source(vids, eager=path is None)
    try:
        if path is None:
            return await stream_statuses(run, source)
        spec = JobSpec(form, shard_size, wait, str(client._base_url))  # noqa: SLF001
        folder = await in_thread(_make_folder, path, spec)
        job = Job(
            run,
            source,
            folder,
            out=path,
            form=form,
            shard_size=shard_size,
            retry_failed=retry_failed,
        )
        return await job.finish(is_fresh=not resume)
    finally:
        await source.aclose()


def _make_folder(out: Path, spec: JobSpec) -> JobFolder:
    is_file = is_one_file(out)
    if is_file and out.is_symlink():
        out = out.resolve()  # the file that it leads to is replaced, not the link
    return JobFolder(out, is_one_file=is_file, spec=spec, form=make_format(spec.format))
