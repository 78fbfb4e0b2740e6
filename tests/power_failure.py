"""
A disk that loses power: what may be left of a job's files, after each of its operations.

`Recorder` stands for the module `os` in `jobs._disk`, and keeps what a job did. `Disk` replays a
beginning of that, and `Disk.after_failure` gives what may then be found: of a file's bytes, those of
its last sync are certain; of a folder's names, those of the folder's last sync. Of all that was not
synced, anything may be there: nothing, all, half of a file, zeros in its place, and of the names any
selection, since no file system promises their order (POSIX does not even promise the order of writes
and renames).

```python
before, recorder = Tree.read(folder), Recorder()
monkeypatch.setattr(_disk, "os", recorder)
...  # run a job
for count in range(len(recorder.operations) + 1):
    for tree in Disk.at(before, recorder.operations[:count]).after_failure():
        tree.write_to(another_folder)  # and run the job there
```
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs


_MOST_NAMES = 3  # not synced, of which all selections are tried; of more, the plain ones


@attrs.frozen
class Operation:
    """
    Say what was done.

    Attributes:
        kind: "create", "write", "sync", "replace", "unlink", "mkdir" or "sync folder"; or a word
            of the test's own, which the disk does not hear.

        path: What it was done to; for a file that is open, where it was created.

        file: The number of the file, which keeps it when the name changes.

        data: What was written, or the new path.
    """

    kind: str
    path: Path = Path()
    file: int = 0
    data: Any = None


_OF_THE_DISK = {"create", "write", "sync", "replace", "unlink", "mkdir", "sync folder"}


class Recorder:
    """
    Stand for the module `os`: do everything, and keep what changes files.

    Attributes:
        operations: What was done, in order.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._open: dict[int, tuple[Path, int]] = {}
        self._numbers = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def note(self, kind: str, data: Any) -> None:
        """Keep what the test wants to know the time of."""
        assert kind not in _OF_THE_DISK
        self.operations.append(Operation(kind, data=data))

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """Open a file or a folder."""
        is_new = not path.exists()
        descriptor = os.open(path, flags, mode)
        self._open[descriptor] = (path, 0)
        if is_new:
            self._open[descriptor] = (path, next(self._numbers))
            self._keep("create", descriptor)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """Write."""
        done = os.write(descriptor, data)
        self._keep("write", descriptor, bytes(data[:done]))
        return done

    def fsync(self, descriptor: int) -> None:
        """Sync a file or a folder."""
        os.fsync(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        self._keep("sync folder" if is_folder else "sync", descriptor)

    def replace(self, path: Path, to: Path) -> None:
        """Rename."""
        os.replace(path, to)  # noqa: PTH105 - all through `os`, as in `_disk`
        self.operations.append(Operation("replace", path, data=to))

    def unlink(self, path: Path) -> None:
        """Remove."""
        os.unlink(path)  # noqa: PTH108
        self.operations.append(Operation("unlink", path))

    def mkdir(self, path: Path) -> None:
        """Make a folder."""
        os.mkdir(path)  # noqa: PTH102
        self.operations.append(Operation("mkdir", path))

    def _keep(self, kind: str, descriptor: int, data: Any = None) -> None:
        path, number = self._open[descriptor]
        self.operations.append(Operation(kind, path, number, data))


@attrs.frozen
class Tree:
    """
    Hold what may be found on the disk.

    Attributes:
        root: The folder with all of it, which is always there.

        files: The content of each file, and ``None`` for each folder, by their paths.
    """

    root: Path
    files: tuple[tuple[Path, bytes | None], ...]

    @classmethod
    def read(cls, root: Path) -> Tree:
        """Take what is in a folder."""
        paths = root.rglob("*")
        return cls.of(root, {path: None if path.is_dir() else path.read_bytes() for path in paths})

    @classmethod
    def of(cls, root: Path, files: dict[Path, bytes | None]) -> Tree:
        """Take files and folders; what is in a folder that is not there is not there either."""
        found: dict[Path, bytes | None] = {root: None}
        for path in sorted(files):
            if found.get(path.parent, b"") is None:
                found[path] = files[path]
        return cls(root, tuple(found.items())[1:])

    def write_to(self, folder: Path) -> None:
        """Make it in another folder."""
        for path, content in self.files:
            at = folder / path.relative_to(self.root)
            if content is None:
                at.mkdir()
            else:
                at.write_bytes(content)


@attrs.define
class _File:
    content: bytes = b""
    certain: bytes = b""

    def after_failure(self, way: str) -> bytes:
        """Give what is left of it."""
        lost = self.content[len(self.certain) :]
        kept = {"lost": b"", "half": lost[: len(lost) // 2], "zeros": bytes(len(lost)), "all": lost}
        return self.certain + kept[way]


@attrs.define
class Disk:
    """
    Tell what a power failure may leave.

    Attributes:
        root: The folder with all of it.

        files: By their numbers; those that were there before have negative ones.

        names: What each path is, for certain: the number of a file, or ``None`` for a folder.

        changes: Of names, since the last sync of their folder, in order: a path that goes, if
            any, a path that comes, if any, and what it is.
    """

    root: Path
    files: dict[int, _File] = attrs.field(factory=dict)
    names: dict[Path, int | None] = attrs.field(factory=dict)
    changes: list[tuple[Path | None, Path | None, int | None]] = attrs.field(factory=list)

    @classmethod
    def at(cls, before: Tree, operations: Sequence[Operation]) -> Disk:
        """Give the disk after some operations; all that was there before them is certain."""
        disk = cls(before.root)
        for number, (path, content) in enumerate(before.files, 1):
            disk.names[path] = None if content is None else -number
            disk.files[-number] = _File(content or b"", content or b"")
        for operation in operations:
            if operation.kind in _OF_THE_DISK:
                disk.do(operation)
        return disk

    def do(self, operation: Operation) -> None:
        """Replay one operation."""
        path, file = operation.path, self.files.get(operation.file)
        match operation.kind:
            case "create":
                self.files[operation.file] = _File()
                self.changes.append((None, path, operation.file))
            case "mkdir":
                self.changes.append((None, path, None))
            case "write" if file is not None:
                file.content += operation.data
            case "sync" if file is not None:
                file.certain = file.content
            case "replace":
                self.changes.append((path, operation.data, self._names(self.changes)[path]))
            case "unlink":
                self.changes.append((path, None, None))
            case "sync folder":
                here = [change for change in self.changes if _folder_of(change) == path]
                self.names = self._names(here)
                # What had a name for a while in another folder has never had it.
                left = {change[0] for change in here}
                self.changes = [
                    change
                    for change in self.changes
                    if change not in here and change[1] not in left
                ]
            case _:
                raise AssertionError(operation)

    def after_failure(self) -> Iterator[Tree]:
        """Give everything that may be found, each once."""
        found = set()
        for changes in _selections(self.changes):
            names = self._names(changes)
            for way in ("lost", "half", "zeros", "all"):
                tree = Tree.of(
                    self.root,
                    {
                        path: None if number is None else self.files[number].after_failure(way)
                        for path, number in names.items()
                    },
                )
                if tree not in found:
                    found.add(tree)
                    yield tree

    def _names(self, changes: Sequence[Any]) -> dict[Path, int | None]:
        names = dict(self.names)
        for gone, come, number in changes:
            names.pop(gone, None)
            if come is not None:
                names[come] = number
        return names


def _folder_of(change: tuple[Path | None, Path | None, int | None]) -> Path:
    # A file that moves from one folder to another is safe once it is in the other.
    path = change[1] or change[0]
    assert path is not None
    return path.parent


def _selections(changes: Sequence[Any]) -> list[list[Any]]:
    """Give selections of changes that may have reached the disk, in their order."""
    if len(changes) <= _MOST_NAMES:
        keeps = itertools.product([False, True], repeat=len(changes))
        return [list(itertools.compress(changes, keep)) for keep in keeps]
    cuts = range(len(changes) + 1)
    return [
        *(list(changes[:cut]) for cut in cuts),
        *(list(changes[cut:]) for cut in cuts[1:]),
        *([*changes[: cut - 1], *changes[cut:]] for cut in cuts[1:]),
    ]
