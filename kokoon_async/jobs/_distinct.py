"""
Which ids are new: an exact set on disk, so that memory does not grow with the ids.

A throw-away SQLite database without journal and without syncs. It is not part of the
checkpoint: a resumed job reads its input from the start and fills a new one.
"""

import errno
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ..errors import JobError
from ..models import canonical_vid
from ._shards import Entry


__all__ = ["DistinctIds"]

_KEY_BYTES = 16
_CACHE_KIB = 8192
_MOST_SHOWN_LETTERS = 200


class DistinctIds:
    """
    Let each id through once, whatever its spelling.

    Not for two threads at once, but for one after another.

    Args:
        path: The database's file, which must not exist; ``None`` for one without a name, where
            SQLite puts temporary files, that goes by itself.

    Attributes:
        duplicates: How many entries were not let through.
    """

    def __init__(self, path: Path | None) -> None:
        self.duplicates = 0
        self._path = path
        self._database: sqlite3.Connection | None = None

    def only_new(self, texts: Iterable[tuple[int, str]]) -> list[Entry]:
        """
        Give what was not seen before, in its order.

        Args:
            texts: Line numbers, and what stands there.

        Raises:
            JobError: If the disk is full, or broken.
        """
        try:
            insert = self._opened().execute
            new = []
            for line, text in texts:
                vid = canonical_vid(text)
                if vid is not None:
                    entry, key = Entry(vid, line), bytes.fromhex(vid.replace("-", ""))
                else:
                    entry, key = _invalid(line, text)
                if insert("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
                    new.append(entry)
                else:
                    self.duplicates += 1
        except sqlite3.Error as error:
            problem = str(error)
        else:
            return new
        where = "a temporary file" if self._path is None else str(self._path)
        raise JobError(
            f"Cannot note which ids were seen, in {where}: {problem}.",
            hint="Make sure that the disk is not full, and run the same call again.",
            path=where,
            errno=errno.EIO,  # SQLite keeps the system's own number to itself
        )

    def close(self) -> None:
        """Remove the database."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._path is not None:
            with suppress(OSError):  # not there, or removed by the next run
                self._path.unlink()

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            # Threads take turns with it, hence no check for the same one.
            name = self._path or ""
            database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
            self._database = database
            for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
                database.execute(f"PRAGMA {setting}")
            database.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
            # Never committed: nobody ever reads it but this very connection.
            database.execute("BEGIN")
        return self._database


def _invalid(line: int, text: str) -> tuple[Entry, bytes]:
    """Give the entry of a text that is no id, and its key."""
    # Lone surrogates cannot be written to a file.
    shown = text[:_MOST_SHOWN_LETTERS].encode("utf-8", "backslashreplace")
    key = blake2b(shown, digest_size=_KEY_BYTES).digest()
    return Entry(shown.decode(), line, is_valid=False), key
