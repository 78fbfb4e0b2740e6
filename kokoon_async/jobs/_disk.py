"""
Change files so that a crash at any instant leaves the old state or the new one.

Everything that a job changes on disk goes through the few functions here: a test that
replaces this module's `os` can kill the process at every single step. They block; call
them with `in_thread`.
"""

import errno
import importlib
import os
import secrets
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import attrs

from ..errors import JobError


__all__ = [
    "TEMPORARY",
    "WrittenFile",
    "disk_error",
    "lock_file",
    "make_folder",
    "move",
    "optional_module",
    "remove",
    "sync_folder",
    "write_file",
]

TEMPORARY = "_tmp-"
"""How the names of unfinished files begin; the underscore hides them from dataset readers."""

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}


def optional_module(name: str) -> ModuleType | None:
    """Import a module of the standard library that only some platforms have."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_fcntl = optional_module("fcntl")
_msvcrt = optional_module("msvcrt")
_folders_can_sync = os.name != "nt"


def disk_error(path: Path, what: str, error: OSError) -> JobError:
    """Say what could not be done to a path; raise it outside of ``except``."""
    reason = error.strerror or type(error).__name__
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space and run the same call again: what is finished is kept."
    return JobError(f"{what} {path}: {reason}.", hint=hint, path=str(path), errno=error.errno)


@attrs.frozen
class WrittenFile:
    """
    Describe a file as it was written.

    Attributes:
        size: In bytes.

        crc32: Of the content, as eight hexadecimal digits.
    """

    size: int
    crc32: str


class _Target:
    """Something to write into that counts; as much of a file as pyarrow wants."""

    closed = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._crc = 0
        self._size = 0

    def write(self, data: "bytes | memoryview") -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):  # a disk that is nearly full takes a part
            done += os.write(self._descriptor, view[done:])
        self._crc = zlib.crc32(view, self._crc)
        self._size += done
        return done

    def flush(self) -> None:
        """Do nothing: `write_file` syncs once, at the end."""

    def written(self) -> WrittenFile:
        return WrittenFile(self._size, f"{self._crc:08x}")


def write_file(
    folder: Path,
    fill: "Callable[[_Target], object]",
    name: Path | Callable[[WrittenFile], Path],
) -> WrittenFile:
    """
    Write a file whole: aside, synced, and only then under its name.

    Args:
        folder: Where it is written aside; on the same disk as its final place.

        fill: Writes the content.

        name: Its final path, or a function that makes it of what was written.

    Raises:
        OSError: Then nothing is left of it.
    """
    aside = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            target = _Target(descriptor)
            fill(target)
            _sync_file(descriptor)
        finally:
            os.close(descriptor)
        written = target.written()
        final = name if isinstance(name, Path) else name(written)
        os.replace(aside, final)  # noqa: PTH105 - all through `os`, see above
    except BaseException:
        with suppress(OSError):  # the first error counts; the next run removes the file
            os.unlink(aside)  # noqa: PTH108
        raise
    sync_folder(final.parent)
    return written


def _sync_file(descriptor: int) -> None:
    # macOS keeps what `fsync` wrote in the drive's cache, unless asked like this.
    full = getattr(_fcntl, "F_FULLFSYNC", None)
    if _fcntl is not None and full is not None:
        with suppress(OSError):  # network disks do not know it
            _fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """
    Make the names in a folder safe from a power failure, where the platform can.

    Windows and some network disks cannot, nor who may not read the folder: there, a
    finished part may be lost with the power, and is fetched again.
    """
    if not _folders_can_sync:
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there yet."""
    try:
        os.mkdir(folder)  # noqa: PTH102
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        sync_folder(folder.parent)


def move(path: Path, to: Path) -> None:
    """Rename a file within its folder."""
    os.replace(path, to)  # noqa: PTH105
    sync_folder(to.parent)


def remove(*paths: Path) -> None:
    """Remove files of one folder; one that is gone is no error."""
    for path in paths:
        with suppress(FileNotFoundError):  # somebody was faster
            os.unlink(path)  # noqa: PTH108
    if paths:
        sync_folder(paths[0].parent)


def lock_file(path: Path) -> int | None:
    """
    Open and lock a file for this process; ``None`` if another one holds the lock.

    Give the descriptor to `os.close` to let go; the end of the process does so too.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
    try:
        if _fcntl is not None:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        elif _msvcrt is not None:
            _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return None
        raise
    return descriptor
