"""
A job's folder: the parts in it are the checkpoint.

Everything here blocks; call it with `in_thread`. The order of changes is what makes a
crash harmless: ``_job.json`` comes before the first part, ``_SUCCESS`` goes before any
part is written or replaced and comes back after the last, ``_job.json`` knows a joined
file before that is in its place, and it is there before the parts that it was made of go.
"""

import functools
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from ..errors import JobError
from ..events import logger
from ._disk import WrittenFile, disk_error, lock_file, make_folder, move, remove, write_file
from ._formats import Format, Jsonl, outcomes_of
from ._layout import (
    AFRESH,
    JOB_FILE,
    LOCK_FILE,
    SUCCESS_FILE,
    FoundPart,
    JobSpec,
    Outcomes,
    PartName,
    Success,
    has_output,
    is_leftover,
    seen_path,
)
from ._opening import begin, check_names, check_output, check_place, clear, still_good
from ._report import Tally
from ._shards import Shard


__all__ = ["JobFolder"]

P = ParamSpec("P")
T = TypeVar("T")


class _Stopped(Exception):
    """Nobody waits for the work any more."""


def _or_job_error(
    method: "Callable[Concatenate[JobFolder, P], T]",
) -> "Callable[Concatenate[JobFolder, P], T]":
    """Turn what the operating system says into an error that says where."""

    @functools.wraps(method)
    def guarded(folder: "JobFolder", *args: P.args, **options: P.kwargs) -> T:
        try:
            return method(folder, *args, **options)
        except OSError as error:
            where = error.filename if isinstance(error.filename, str | Path) else folder.path
            problem = disk_error(Path(where), "The job cannot use", error)
        raise problem

    return cast("Callable[Concatenate[JobFolder, P], T]", guarded)


class JobFolder:
    """
    Keep one job on disk.

    Args:
        out: Where the user wants the rows.

        is_one_file: Whether *out* is a file, joined from the parts at the end, and not
            the folder of parts itself.

        spec: What must be the same when the job is resumed.

        form: How parts are written.

    Attributes:
        path: The folder.

        success: What was written down when the job was finished, if it still holds and
            the parts may be gone.
    """

    def __init__(self, out: Path, *, is_one_file: bool, spec: JobSpec, form: Format) -> None:
        self.path = out.with_name(f"{out.name}.parts") if is_one_file else out
        self.success: Success | None = None
        self._out = out if is_one_file else None
        self._spec = spec
        self._form = form
        self._parts: dict[int, list[PartName]] = {}
        self._lock: int | None = None
        self._is_sealed = False
        self._shards_when_sealed: int | None = None
        self._known_outputs: list[WrittenFile] = []
        self._is_stopped = False

    # -- beginning and end -------------------------------------------------------------

    @_or_job_error
    def open(self, is_fresh: bool) -> None:  # noqa: FBT001 - `in_thread` has no keywords
        """
        Make or find the folder, lock it, and read what is there.

        Args:
            is_fresh: Remove an earlier job first.

        Raises:
            JobError: If there is anything in the way.
        """
        check_place(self.path, self._out)
        make_folder(self.path)
        self._lock = lock_file(self.path / LOCK_FILE)
        if self._lock is None:
            raise JobError(
                f"Another process is working on {self.path}.",
                hint="Wait for it, or stop it; or choose another output.",
                path=str(self.path),
            )
        names = os.listdir(self.path)  # noqa: PTH208 - names are what is wanted
        check_names(self.path, names, is_fresh=is_fresh)
        remove(*(self.path / name for name in names if is_leftover(name)))
        given_up = is_fresh and has_output(self.path / JOB_FILE)
        if is_fresh:
            if not given_up:
                check_output(self._out, [], self._go_on)
            names = clear(self.path, names)
        for name in names:
            if (part := PartName.parse(name)) is not None:
                self._parts.setdefault(part.index, []).append(part)
        self._is_sealed = SUCCESS_FILE in names
        known = None if is_fresh else self._spec.check(self.path / JOB_FILE)
        if known is None:
            known = begin(
                self.path,
                names,
                self._spec,
                self._out,
                given_up=given_up,
                on_block=self._go_on,
            )
        else:
            self._look_for_end(known)
        self._known_outputs = known

    def _look_for_end(self, known: list[WrittenFile]) -> None:
        """See whether the job was finished, and that nobody else wrote to its output."""
        success = Success.read(self.path / SUCCESS_FILE)
        if success is None:
            check_output(self._out, known, self._go_on)
            return
        self.success = still_good(success, self._out, self._go_on)
        if self._out is None or self._parts:
            self._shards_when_sealed = success.shards

    def stop(self) -> None:
        """Let what takes long, in another thread, end soon, with an exception."""
        self._is_stopped = True

    def _go_on(self) -> None:
        if self._is_stopped:
            raise _Stopped

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def part_count(self) -> int:
        """How many shards have a part."""
        return sum(bool(names) for names in self._parts.values())

    def new_seen_path(self) -> Path:
        """Give a path for the set of ids that were seen."""
        return seen_path(self.path, secrets.token_hex(8))

    # -- parts -------------------------------------------------------------------------

    @_or_job_error
    def find(self, shard: Shard) -> FoundPart | None:
        """
        Give the part of a shard; ``None`` if it must be fetched.

        Raises:
            JobError: If the part that is there is of other ids.
        """
        if self._shards_when_sealed is not None and shard.index >= self._shards_when_sealed:
            raise self._other_input("it is finished, and was shorter")
        names = self._parts.get(shard.index, [])
        if any(name.digest != shard.digest for name in names):
            raise self._other_input(f"part {shard.index} is of other ids")
        found = [part for name in names if (part := self._read(name, len(shard.entries)))]
        # There are two if a process was killed after it had written the better one.
        found.sort(key=lambda part: len(part.retryable))
        remove(*(part.path for part in found[1:]))
        self._parts[shard.index] = [
            name for name in names if found and self.path / str(name) == found[0].path
        ]
        return found[0] if found else None

    def _read(self, name: PartName, rows: int) -> FoundPart | None:
        """Read a part; one that was changed is put aside."""
        path = self.path / str(name)
        content = path.read_bytes()
        if f"{zlib.crc32(content):08x}" == name.crc32:
            with suppress(ValueError):  # no part, whatever its name says
                outcomes = self._form.outcomes(content)
                if len(outcomes) == rows:
                    return FoundPart(path, content, outcomes)
        logger.warning("job.part_damaged", extra={"kokoon_part": str(name)})
        self._unseal()
        move(path, path.with_name(name.when_damaged))
        return None

    @_or_job_error
    def write(self, shard: Shard, rows: Sequence[bytes]) -> Outcomes:
        """Write the part of a shard, and give the outcome and the state of each row."""
        self._write(shard, self._form.encode(rows))
        return outcomes_of(Jsonl().encode(rows))

    @_or_job_error
    def replace(self, shard: Shard, old: FoundPart, rows: Mapping[int, bytes]) -> Outcomes:
        """Do as `write` does with some rows, by their position, replaced in a part."""
        new = self._write(shard, self._form.replace(old.content, rows))
        if new != old.path:
            remove(old.path)
        changed = zip(rows, outcomes_of(Jsonl().encode([*rows.values()])), strict=True)
        return list({**dict(enumerate(old.outcomes)), **dict(changed)}.values())

    def _write(self, shard: Shard, content: bytes) -> Path:
        self._unseal()
        suffix = self._spec.format

        def path_of(written: WrittenFile) -> Path:
            return self.path / str(PartName.of(shard, written, suffix))

        written = write_file(self.path, lambda file: file.write(content), path_of)
        self._parts[shard.index] = [PartName.of(shard, written, suffix)]
        return path_of(written)

    def _unseal(self) -> None:
        """Take back the note of success: it does not hold any more."""
        if self._is_sealed:
            remove(self.path / SUCCESS_FILE)
            self._is_sealed = False

    def _other_input(self, why: str) -> JobError:
        return JobError(
            f"{self.path} holds a job of another input: {why}.",
            hint=f"Give the same input to resume it. {AFRESH}",
            path=str(self.path),
        )

    # -- the end -----------------------------------------------------------------------

    @_or_job_error
    def finish(self, tally: Tally, shards: int, duplicates: int, digest: str) -> None:
        """
        Join the parts if one file is wanted, and write down that all is there.

        Args:
            tally: What became of the ids.

            shards: How many parts there must be.

            duplicates: How many positions of the input held an id that came before.

            digest: The input's.

        Raises:
            JobError: If there are parts of another input.
        """
        if any(names and index >= shards for index, names in self._parts.items()):
            raise self._other_input("it was longer")
        if self.part_count != shards:
            # A task of ours can be cancelled from outside, and nobody else would notice.
            raise JobError(
                f"{shards - self.part_count} shards of {self.path} were interrupted.",
                path=str(self.path),
            )
        output = None if self._out is None else self._join(shards, self._out)
        content = Success(tally, shards, duplicates, digest, output).to_json()
        path = self.path / SUCCESS_FILE
        if not self._is_sealed or path.read_bytes() != content:
            write_file(self.path, lambda file: file.write(content), path)
            self._is_sealed = True
        if self._out is not None and not tally.failed:
            self._remove_parts()

    @_or_job_error
    def confirm(self, success: Success, digest: str) -> None:
        """
        Finish what a finished job left undone, if it is the same input.

        Raises:
            JobError: If it is another input.
        """
        if success.digest != digest:
            raise self._other_input("it is finished, and had other ids")
        if not success.tally.failed:
            self._remove_parts()

    def _remove_parts(self) -> None:
        """Remove what the joined file was made of."""
        remove(*(self.path / str(name) for names in self._parts.values() for name in names))
        self._parts.clear()

    def _join(self, shards: int, out: Path) -> WrittenFile:
        present = check_output(out, self._known_outputs, self._go_on)
        # The old note must not stand beside the new file, nor beside none.
        self._unseal()
        parts = self._contents(shards)

        def path_of(written: WrittenFile) -> Path:
            # Killed after this, the next run finds one of the two.
            content = self._spec.to_json([*present, written])
            write_file(self.path, lambda file: file.write(content), self.path / JOB_FILE)
            return out

        return write_file(self.path, lambda file: self._form.join(parts, file), path_of)

    def _contents(self, shards: int) -> Iterator[bytes]:
        for index in range(shards):
            for name in self._parts[index]:
                self._go_on()
                content = (self.path / str(name)).read_bytes()
                if f"{zlib.crc32(content):08x}" != name.crc32:
                    raise JobError(
                        f"{self.path / str(name)} was changed while the job was running.",
                        hint="Run the same call again: it is put aside and fetched again.",
                        path=str(self.path / str(name)),
                    )
                yield content
