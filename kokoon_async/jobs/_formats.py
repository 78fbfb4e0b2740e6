"""How rows are written: JSON lines, CSV and (in `_parquet`) Parquet."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import orjson

from ..errors import ConfigurationError
from ._rows import COLUMNS


__all__ = [
    "FORMATS",
    "Csv",
    "Format",
    "Jsonl",
    "Writable",
    "format_of",
    "is_one_file",
    "outcomes_of",
]

FORMATS = ("jsonl", "csv", "parquet")

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
# Names that mean one file to everybody, but not one that is written here.
_WRONG_SUFFIXES = {".json", ".txt", ".tsv", ".xlsx", ".gz", ".zip"}

# To the end of the line, so that the next match begins at once and need not be searched. Nothing is
# ever given back (``++``, ``*+``): a line that is no row must not take an hour.
_ROW = re.compile(
    rb'(?m:^)\{"vid":"(?:[^"\\]++|\\.)*+","outcome":"([a-z_]++)",'
    rb'"state":(null|"(?:[^"\\]++|\\.)*+")[^\n]*+\n'
)
_TEXT_COLUMNS = frozenset(name for name, kind in COLUMNS.items() if kind == "text")
_LONGEST_CELL = 32_767  # what spreadsheets take; Python's own reader takes 131,072
_CRLF = "\r\n"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Writable(Protocol):
    """Where joined parts go."""

    def write(self, data: bytes) -> int:
        """Write all of *data*."""


class Format(Protocol):
    """
    Turn rows into the content of a part, and parts into one file.

    A row comes as a JSON object with all of `COLUMNS`, in their order. All of it may
    take a while: call it in a thread.
    """

    def encode(self, rows: Sequence[bytes]) -> bytes:
        """Make a part's content."""

    def outcomes(self, content: bytes) -> list[tuple[str, str | None]]:
        """
        Give the outcome and the state of each row of a part.

        Raises:
            ValueError: If it is none.
        """

    def replace(self, content: bytes, rows: Mapping[int, bytes]) -> bytes:
        """Give a part's content with some rows, by their position, replaced."""

    def join(self, parts: Iterable[bytes], target: Writable) -> None:
        """Write all parts, in order, as one file."""


def is_one_file(out: Path) -> bool:
    """Tell whether a path's suffix says that it shall be one file."""
    return out.suffix.lower() in _SUFFIXES


def format_of(out: Path | None, wanted: str | None) -> str:
    """
    Decide on the format by what the user said and the suffix of the path.

    Args:
        out: The path; ``None`` for standard output.

        wanted: The format's name, or ``None`` to go by the suffix.

    Raises:
        ConfigurationError: If there is no such format, or they contradict each other.
    """
    if wanted is not None and wanted not in FORMATS:
        raise ConfigurationError(f"format must be one of {', '.join(FORMATS)}, not {wanted!r:.50}.")
    if out is None:
        if wanted not in (None, "jsonl"):
            raise ConfigurationError(
                f"Standard output takes JSON lines only, not {wanted}.",
                hint="Give the path of a file or a folder.",
            )
        return "jsonl"
    suffix = out.suffix.lower()
    implied = _SUFFIXES.get(suffix)
    if suffix in _WRONG_SUFFIXES or (implied and wanted and implied != wanted):
        raise ConfigurationError(
            f"{out} does not fit the format {wanted or 'jsonl'}.",
            hint=f"Let a file end in {', '.join(_SUFFIXES)}, or a folder in nothing.",
        )
    return wanted or implied or "jsonl"


def outcomes_of(lines: bytes) -> list[tuple[str, str | None]]:
    """Give the outcome and the state of each row of a part in JSON lines."""
    # A million rows must not take a minute, so they are not parsed as JSON.
    states: dict[bytes, str | None] = {}
    found = []
    for outcome, state in _ROW.findall(lines):
        if state not in states:
            states[state] = orjson.loads(state)
        found.append((outcome.decode(), states[state]))
    return found


class Jsonl:
    """JSON lines: a JSON object and a line feed for each row."""

    def encode(self, rows: Sequence[bytes]) -> bytes:
        """Make a part's content."""
        return b"".join(row + b"\n" for row in rows)

    def outcomes(self, content: bytes) -> list[tuple[str, str | None]]:
        """Give the outcome and the state of each row of a part."""
        return outcomes_of(content)

    def replace(self, content: bytes, rows: Mapping[int, bytes]) -> bytes:
        """Give a part's content with some rows, by their position, replaced."""
        lines = content.split(b"\n")[:-1]
        return self.encode([rows.get(number, line) for number, line in enumerate(lines)])

    def join(self, parts: Iterable[bytes], target: Writable) -> None:
        """Write all parts, in order, as one file."""
        for part in parts:
            target.write(part)


class Csv:
    """
    Comma-separated values with a header, safe to open in a spreadsheet.

    A text that a spreadsheet would take for a formula gets an apostrophe in front
    (F-104), and is cut where a cell ends. What is not known is empty.
    """

    def encode(self, rows: Sequence[bytes]) -> bytes:
        """Make a part's content."""
        return _csv_bytes([list(COLUMNS), *map(_csv_cells, rows)])

    def outcomes(self, content: bytes) -> list[tuple[str, str | None]]:
        """Give the outcome and the state of each row of a part."""
        try:
            return [(row[1], _unescaped(row[2]) or None) for row in _csv_rows(content)[1:]]
        except (csv.Error, IndexError) as error:
            problem = str(error)
        raise ValueError(problem)

    def replace(self, content: bytes, rows: Mapping[int, bytes]) -> bytes:
        """Give a part's content with some rows, by their position, replaced."""
        table = _csv_rows(content)
        for number, row in rows.items():
            table[number + 1] = _csv_cells(row)
        return _csv_bytes(table)

    def join(self, parts: Iterable[bytes], target: Writable) -> None:
        """Write all parts, in order, as one file with one header."""
        header = _csv_bytes([list(COLUMNS)])
        target.write(header)
        for part in parts:
            target.write(part[len(header) :])


def _csv_cells(row: bytes) -> list[str]:
    values: dict[str, Any] = orjson.loads(row)
    return [
        _escaped(value) if name in _TEXT_COLUMNS and value else "" if value is None else str(value)
        for name, value in values.items()
    ]


def _csv_rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def _csv_bytes(table: Iterable[Iterable[str]]) -> bytes:
    lines: list[str] = []
    # Before Python 3.11.9, only what is a part of the line's end gets quotes: a bare CR would not.
    csv.writer(SimpleNamespace(write=lines.append), lineterminator=_CRLF).writerows(table)
    return "".join(line.removesuffix(_CRLF) + "\n" for line in lines).encode()


def _escaped(text: str) -> str:
    # Also behind apostrophes, so that none is taken off that was there before.
    is_formula = text.lstrip("'").startswith(_FORMULA_STARTS)
    return (f"'{text}" if is_formula else text)[:_LONGEST_CELL]


def _unescaped(text: str) -> str:
    is_escaped = text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS)
    return text[1:] if is_escaped else text
