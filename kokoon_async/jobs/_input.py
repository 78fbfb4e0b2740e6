"""Where ids come from: a file, a pipe, standard input, or any iterable."""

import io
import os
import stat
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Sized
from pathlib import Path
from typing import Protocol

from .._text import text_of
from ..errors import ConfigurationError, JobError
from ._disk import disk_error
from ._lines import Lines, meaningful
from ._threads import Servant, in_thread


__all__ = ["Item", "Source", "Vids", "open_source"]

Vids = str | os.PathLike[str] | Iterable[object] | AsyncIterable[object]
"""What users may give: a path, ``"-"``, or ids, each a text or a `uuid.UUID`."""

Item = tuple[int, str]
"""A line number, or a position, from 1; and what stands there."""

_BLOCK = 1 << 16
_END = object()


class Source(Protocol):
    """Anything that ids can be read from."""

    async def read(self, count: int) -> list[Item]:
        """Give up to *count* items; none at the end."""

    def fraction(self) -> float | None:
        """Give how much of the input was given out, from 0 to 1, if that can be told."""

    async def aclose(self) -> None:
        """Let go of the input."""


async def open_source(vids: Vids, *, eager: bool = False) -> Source:
    """
    Open the input.

    Args:
        vids: A path, ``"-"`` for standard input, or an iterable, plain or async.

        eager: Give what is there at once, rather than wait until there is more.

    Raises:
        JobError: If it cannot be read.

        ConfigurationError: If it is none of these.
    """
    if isinstance(vids, str | os.PathLike):
        if vids == "-":
            return _open_standard_input(eager=eager)
        return await in_thread(_open_path, Path(vids), eager)
    if isinstance(vids, AsyncIterable):
        return _AsyncSource(vids, eager=eager)
    if isinstance(vids, bytes) or not isinstance(vids, Iterable):
        raise ConfigurationError(
            f"vids must be a path or an iterable of ids, not {type(vids).__name__}."
        )
    if isinstance(vids, set | frozenset):
        # Another process would meet them in another order, and could not resume.
        vids = sorted(vids, key=text_of)
    return _PlainSource(vids)


def _open_path(path: Path, eager: bool) -> Source:  # noqa: FBT001 - `in_thread` has no keywords
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return _FileSource(str(path), path.open("rb", buffering=0))
        if not stat.S_ISDIR(mode):
            return _PipeSource(str(path), lambda: os.open(path, os.O_RDONLY), eager=eager)
        problem = JobError(f"The input {path} is a folder, not a file.", path=str(path))
    except OSError as error:
        problem = disk_error(path, "Cannot read the input", error)
        problem.hint = "Give the path of a file with one id per line; put single ids into a list."
    raise problem


def _open_standard_input(*, eager: bool) -> Source:
    try:
        descriptor = sys.stdin.fileno()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, replaced, or `None`
        pass
    else:
        if is_file:
            return _FileSource("-", io.FileIO(descriptor, closefd=False))
        return _PipeSource("-", lambda: os.dup(descriptor), eager=eager)
    raise JobError("There is no standard input to read ids from.", path="-")


class _FileSource:
    """Read a regular file."""

    def __init__(self, name: str, file: io.FileIO) -> None:
        self._name = name
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._read = 0
        self._given = 0
        self._lines = Lines(name)
        self._is_over = False

    async def read(self, count: int) -> list[Item]:
        if len(self._lines.ready) < count and not self._is_over:
            await in_thread(self._fill, count)
        items = self._lines.take(count)
        self._given += len(items)
        return items

    def _fill(self, count: int) -> None:
        try:
            while len(self._lines.ready) < count and not self._is_over:
                block = self._file.read(_BLOCK)
                self._is_over = not block
                self._read += len(block)
                self._lines.feed(block)
        except OSError as error:
            problem = disk_error(Path(self._name), "Cannot read on in the input", error)
        else:
            return
        raise problem

    def fraction(self) -> float | None:
        if not self._given:
            return None
        known = self._given + len(self._lines.ready)
        return min(1.0, self._read / max(1, self._size)) * self._given / known

    async def aclose(self) -> None:
        self._file.close()


class _PipeSource:
    """
    Read a pipe or a terminal.

    Args:
        name: The input's, for errors.

        opened: Gives a file descriptor of its own; may block.

        eager: Give what is there, rather than wait until there is enough.
    """

    def __init__(self, name: str, opened: Callable[[], int], *, eager: bool) -> None:
        self._name = name
        self._opened = opened
        self._eager = eager
        self._descriptor: int | None = None
        self._lines = Lines(name)
        self._is_over = False
        # Closed in the thread: the number must not be reused under a read that hangs.
        self._servant = Servant("kokoon input", self._close_now)

    async def read(self, count: int) -> list[Item]:
        enough = 1 if self._eager else count
        while not self._is_over and len(self._lines.ready) < enough:
            block = await self._read_block()
            self._is_over = not block
            self._lines.feed(block)
        return self._lines.take(count)

    async def _read_block(self) -> bytes:
        try:
            return await self._servant.do(self._read_now)
        except OSError as error:
            problem = disk_error(Path(self._name), "Cannot read the input", error)
        raise problem

    def _read_now(self) -> bytes:
        if self._descriptor is None:
            self._descriptor = self._opened()
        return os.read(self._descriptor, _BLOCK)

    def fraction(self) -> float | None:
        return None

    async def aclose(self) -> None:
        self._servant.dismiss()

    def _close_now(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class _Later:
    """Keep what an iterable raises until what it gave before was taken."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def keep(self, error: Exception, found: list[Item]) -> None:
        """Raise *error* now, or with the next call of `check` if anything was found."""
        if not found:
            raise error
        self._error = error

    def check(self) -> None:
        """Raise what was kept."""
        if self._error is not None:
            raise self._error


class _PlainSource:
    """Read an iterable, on the event loop."""

    def __init__(self, vids: Iterable[object]) -> None:
        self._size = len(vids) if isinstance(vids, Sized) else None
        self._items = enumerate(vids, 1)
        self._given = 0
        self._later = _Later()

    async def read(self, count: int) -> list[Item]:
        self._later.check()
        found: list[Item] = []
        try:
            for number, item in self._items:
                self._given = number
                text = meaningful(item)
                if text:
                    found.append((number, text))
                    if len(found) == count:
                        break
        except Exception as error:  # noqa: BLE001 - whatever the user's iterator raises
            self._later.keep(error, found)
        return found

    def fraction(self) -> float | None:
        return self._given / self._size if self._size else None

    async def aclose(self) -> None:
        """Do nothing: the iterable is the user's."""


class _AsyncSource:
    """Read an async iterable."""

    def __init__(self, vids: AsyncIterable[object], *, eager: bool) -> None:
        self._items = aiter(vids)
        self._eager = eager
        self._number = 0
        self._later = _Later()

    async def read(self, count: int) -> list[Item]:
        self._later.check()
        found: list[Item] = []
        try:
            while len(found) < (1 if self._eager else count):
                item = await anext(self._items, _END)
                if item is _END:
                    break
                self._number += 1
                text = meaningful(item)
                if text:
                    found.append((self._number, text))
        except Exception as error:  # noqa: BLE001 - whatever the user's iterator raises
            self._later.keep(error, found)
        return found

    def fraction(self) -> float | None:
        return None

    async def aclose(self) -> None:
        """Do nothing: the iterator is the user's."""
