"""What is known of the images that ``wait`` waits for, and how a terminal shows it."""

import sys
from collections.abc import Callable, Iterable
from typing import TextIO, cast

import attrs
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from kokoon_async import Event, ImageFailed, Outcome
from kokoon_async.events import LookFailed, LookFinished

from ._process import has_cursor
from ._show import Tally, seconds, short


__all__ = ["Board", "Row", "is_lively", "make_console", "state_text"]

# Columns and their least widths, and those that a narrow terminal does without, first to last.
_COLUMNS = {"vid": 36, "state": 16, "age": 6, "looks": 6, "elapsed": 7}
_DISPENSABLE = ("elapsed", "looks", "age")
_GAP = 2  # blanks between two columns

_STYLES = {"completed": "green", "processing": "cyan", "pending": "dim", "error": "bold red"}


@attrs.define(eq=False)
class Row:
    """
    One image.

    Attributes:
        vid: As the user wrote it.

        state: As last seen; empty before.

        born: When it was created, on the board's clock, as far as the server told.

        looks: Requests made for it.

        note: What the last look failed with; shown in place of the state.

        ended: When its wait ended, on the board's clock.
    """

    vid: str
    state: str = ""
    born: float | None = None
    looks: int = 0
    note: str = ""
    ended: float | None = None


class Board:
    """
    All the images, one row each.

    Args:
        vids: The images; those that differ only in upper and lower case are the same.

        clock: Tells the time in seconds.
    """

    def __init__(self, vids: Iterable[str], *, clock: Callable[[], float]) -> None:
        self.rows: dict[str, Row] = {}
        for vid in vids:
            self.rows.setdefault(vid.lower(), Row(vid))
        self.tally = Tally()
        self._clock = clock
        self._began = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def looks(self) -> int:
        """How many requests were made."""
        return sum(row.looks for row in self.rows.values())

    @property
    def waiting(self) -> list[str]:
        """The images whose wait has not ended."""
        return [row.vid for row in self.rows.values() if row.ended is None]

    def note(self, event: Event) -> None:
        """Take in an event of the client; it is the client's hook."""
        match event:
            case LookFinished():
                row = self.rows[event.vid]
                row.looks += 1
                row.state = event.state
                row.born = self._clock() - event.age
                row.note = ""
            case LookFailed():
                row = self.rows[event.vid]
                row.looks += 1
                row.note = event.error
            case _:
                pass

    def end(self, key: str, outcome: Outcome) -> None:
        """Take in how a wait ended."""
        row = self.rows[key]
        row.ended = self._clock()
        # The state says it already if the image failed.
        is_told = outcome.ok or isinstance(outcome.error, ImageFailed)
        row.note = "" if is_told else type(outcome.error).__name__
        self.tally.count(outcome)

    def picture(self, width: int, most: int | None = None) -> RenderableType:
        """
        Draw the rows, those in work first if there are more than *most*, and how far all are.

        Args:
            width: How many letters a line has room for.

            most: How many rows there is room for.
        """
        rows = list(self.rows.values())
        hidden = 0 if most is None else len(rows) - most
        if hidden > 0:
            rows = sorted(rows, key=lambda row: row.ended is not None)[:most]
        cells = [self._cells(row) for row in rows]
        table = Table(box=None, pad_edge=False, header_style="dim")
        columns = _fitting(cells, width)
        for name, size in columns.items():
            # One line for each row, also where there is not room for all of it: the picture
            # must not become higher than the screen.
            side: JustifyMethod = "left" if name in ("vid", "state") else "right"
            table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=size)
        for row in cells:
            table.add_row(*(row[name] for name in columns))
        more = f" · {hidden} more below" if hidden > 0 else ""
        # Not as a caption, which would fill the line: a ^C behind it would begin another.
        ended = f"{self.tally.total} of {len(self.rows)} ended{more} · {seconds(self.elapsed)}"
        return Group(table, Text(ended, no_wrap=True, overflow="ellipsis"))

    def _cells(self, row: Row) -> dict[str, Text]:
        until = self._clock() if row.ended is None else row.ended
        return {
            "vid": Text(short(row.vid, 40)),
            "state": Text(row.note, style="red") if row.note else state_text(row.state),
            "age": Text(seconds(None if row.born is None else until - row.born)),
            "looks": Text(str(row.looks)),
            "elapsed": Text(seconds(until - self._began)),
        }


def _fitting(cells: list[dict[str, Text]], width: int) -> dict[str, int]:
    """Give the columns that there is room for, and their widths: the state is always whole."""
    widths = {
        name: max([least, *(row[name].cell_len for row in cells)])
        for name, least in _COLUMNS.items()
    }
    for name in _DISPENSABLE:
        if _room(widths, width) < 0:
            del widths[name]
    widths["vid"] = max(1, widths["vid"] + min(0, _room(widths, width)))
    return widths


def _room(widths: dict[str, int], width: int) -> int:
    """Give how many letters are left beside these columns."""
    return width + _GAP - sum(size + _GAP for size in widths.values())


def state_text(state: str) -> Text:
    """Write a state in its colour."""
    return Text(short(state, 24), style=_STYLES.get(state, ""))


def make_console(file: TextIO | None = None) -> Console:
    """Make a console, for standard output by default, that takes nothing for markup."""
    return Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


def is_lively(console: Console) -> bool:
    """Tell whether a picture can be drawn over and over; not in files, pipes and Emacs."""
    # Rich lets FORCE_COLOR make a terminal of a pipe; that is fine for colours only.
    return console.is_terminal and has_cursor(cast("TextIO", console.file))
