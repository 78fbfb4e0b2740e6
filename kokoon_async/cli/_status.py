"""``kokoon-async status``: the status of millions of images, into files, restartable."""

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import attrs
import click

from kokoon_async import JobError, KokoonClient
from kokoon_async.jobs import JobReport, fetch_statuses

from .._text import ascii_json
from ._options import Connection
from ._process import FAILED, IO_FAILED, OK, SOME_FAILED, complain, write_out
from ._show import for_command_line, problem, seconds, short
from ._status_view import QuietView, rate


__all__ = ["StatusJob", "run_status"]

STDIO = "-"


@attrs.frozen(kw_only=True)
class StatusJob:
    """
    What the user asked for.

    Attributes:
        file: The ids, ``-`` for standard input.

        out: A file, a folder, or ``-`` for standard output.

        wait: Whether to wait for each image to be finished.

        timeout: Seconds for each wait; ``None`` for ever.

        learn: The file for what the waits teach; ``None`` for none.

        format: The format's name; ``None`` to go by the suffix of *out*.

        shard_size: How many ids are written and resumed together.

        fresh: Whether an earlier job is removed first.

        retry_failed: Whether to ask again for ids that failed in earlier runs.

        as_json: Whether to write the report as JSON.

        given: The options that the user spelled out.
    """

    file: str
    out: str
    wait: bool
    timeout: float | None
    learn: str | None
    format: str | None
    shard_size: int
    fresh: bool
    retry_failed: bool
    as_json: bool
    given: frozenset[str] = frozenset()

    @property
    def is_stream(self) -> bool:
        """Whether the rows go to standard output."""
        return self.out == STDIO

    def check(self, connection: Connection) -> None:
        """
        Look that the options fit each other, and that the input is there.

        Raises:
            click.UsageError: If not.
        """
        if not self.out:  # as a path it would be the current folder
            raise click.UsageError("-o is empty: name a file, a folder, or - for standard output.")
        if self.is_stream and (self.fresh or self.retry_failed):
            raise click.UsageError(
                "Standard output cannot be resumed: --fresh and --retry-failed need a file or a"
                " folder as -o."
            )
        if self.is_stream and "shard_size" in self.given:
            raise click.UsageError(
                "Standard output is not cut into shards: --shard-size needs a file or a folder as"
                " -o."
            )
        if self.is_stream and self.as_json:
            raise click.UsageError(
                "The rows go to standard output already: --json needs a file or a folder as -o."
            )
        if not self.wait and "timeout" in self.given:
            raise click.UsageError("Only waits take long: --timeout needs --wait.")
        if self.fresh and self.retry_failed:
            raise click.UsageError(
                "--fresh asks for all ids again, --retry-failed only for those that failed: choose"
                " one of them."
            )
        self._check_learning()
        self._check_input(connection)

    def _check_learning(self) -> None:
        if self.learn is None:
            return
        if not self.wait:
            raise click.UsageError("Only waits teach anything: --learn needs --wait.")
        if not self.is_stream and Path(self.learn).resolve() == Path(self.out).resolve():
            raise click.UsageError("--learn and -o name the same file.")

    def _check_input(self, connection: Connection) -> None:
        if self.file != STDIO:
            _check_file(self.file)
        elif connection.token_file == STDIO:
            raise click.UsageError("Standard input cannot be both the token and the ids.")
        elif sys.stdin is None:
            raise click.UsageError("Standard input is closed.")
        elif sys.stdin.isatty():
            raise click.UsageError("Name a file with one id per line, or pipe ids in.")


def _check_file(file: str) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(file).st_mode)  # noqa: PTH116 - no need for a Path
    except FileNotFoundError:
        problem = f"There is no file {short(file)} to read ids from."
    except OSError as error:
        problem = f"Cannot read the input {short(file)}: {error.strerror}."
    else:
        if not is_folder:
            return
        problem = f"The input {short(file)} is a folder, not a file."
    raise click.UsageError(problem)


async def run_status(client: KokoonClient, job: StatusJob, view: QuietView) -> int:
    """
    Run a job to its end, or until it is stopped, and say what came of it.

    Args:
        client: Asks.

        job: What the user asked for.

        view: Shows how far it is.

    Returns:
        The exit code.
    """
    try:
        with view:
            report = await fetch_statuses(
                client,
                job.file,
                job.out,
                wait=job.wait,
                shard_size=job.shard_size,
                format=job.format,
                resume=not job.fresh,
                retry_failed=job.retry_failed,
                timeout=job.timeout,
                on_progress=view.show,
            )
    except asyncio.CancelledError as stop:
        complain(f"kokoon-async: {_how_to_resume(job, view, stop)}")
        raise
    except JobError as error:
        # The --timeout of this command is for waits, and not for the single request.
        error.hint = error.hint.replace(", or raise Timeouts.total or Timeouts.read", "")
        complain(problem(error))
        return FAILED if error.errno is None else IO_FAILED
    if job.as_json:
        await write_out(_json_report(report))
    complain(f"kokoon-async: {_summary(job, report)}")
    bad = {kind: count for kind, count in report.outcomes.items() if kind != "image"}
    if not bad:
        return OK
    complain(f"kokoon-async: {_where_to_look(job, report, bad)}")
    return SOME_FAILED


def _how_to_resume(job: StatusJob, view: QuietView, stop: BaseException) -> str:
    if job.is_stream:
        return (
            f"stopped after {view.done} ids. Standard output cannot be resumed; a file or a folder"
            " as -o can."
        )
    notes: list[str] = getattr(stop, "__notes__", [])
    kept = for_command_line(" ".join(notes)) or "Run the same command again to go on."
    but = " Leave out --fresh then." if job.fresh else ""
    return f"stopped. {short(kept, 1000)}{but}"


def _summary(job: StatusJob, report: JobReport) -> str:
    states = _counted(report.states)
    kinds = _counted(
        {
            f"{kind} ({states})" if kind == "image" and states else kind: count
            for kind, count in report.outcomes.items()
        }
    )
    twice = f", {report.duplicates} duplicates left out" if report.duplicates else ""
    before = f" {report.shards_skipped} of {report.shards} shards were there before;"
    return (
        f"{report.ids} ids{twice} in {_place(job)}: {kinds or 'none'};"
        f"{before if report.shards_skipped else ''} {report.requests} requests in"
        f" {seconds(report.seconds)}, {rate(report.rate)}."
    )


def _where_to_look(job: StatusJob, report: JobReport, bad: dict[str, int]) -> str:
    told = (
        f"{sum(bad.values())} of {report.ids} ids failed ({_counted(bad)}): see the columns"
        f" outcome and error_message in {_place(job)}."
    )
    if not report.failed or job.is_stream:
        return told
    return (
        f"{told} To ask again for {report.failed} of them: the same command with --retry-failed"
        f"{', without --fresh' if job.fresh else ''}."
    )


def _place(job: StatusJob) -> str:
    return "standard output" if job.is_stream else short(job.out)


def _counted(counts: Any) -> str:
    return ", ".join(f"{count} {short(name, 300)}" for name, count in sorted(counts.items()))


def _json_report(report: JobReport) -> str:
    shown = attrs.asdict(report) | {"failed": report.failed}
    return ascii_json(shown) + "\n"
