"""What is known of the images that ``wait`` waits for, and how a terminal shows it."""

import sys
from collections.abc import Callable, Iterable
from typing import TextIO, cast

import attrs
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kokoon_async import Event, ImageFailed, Outcome
from kokoon_async.events import LookFailed, LookFinished

from ._process import has_cursor
from ._show import Tally, seconds, short


__all__ = ["Board", "Row", "is_lively", "make_console", "state_text"]

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

    def picture(self, most: int | None = None) -> RenderableType:
        """
        Draw the rows, those in work first if there are more than *most*, and how far all are.

        Args:
            most: How many rows there is room for.
        """
        rows = list(self.rows.values())
        hidden = 0 if most is None else len(rows) - most
        if hidden > 0:
            rows = sorted(rows, key=lambda row: row.ended is not None)[:most]
        table = Table(box=None, pad_edge=False, header_style="dim")
        # One line for each row, also where there is not room for all of it: the picture
        # must not become higher than the screen.
        table.add_column("vid", no_wrap=True, min_width=36)
        table.add_column("state", no_wrap=True, min_width=16)
        for name in ("age", "looks", "elapsed"):
            table.add_column(name, justify="right", no_wrap=True, min_width=6)
        for row in rows:
            self._add_row(table, row)
        more = f" · {hidden} more below" if hidden > 0 else ""
        # Not as a caption, which would fill the line: a ^C behind it would begin another.
        ended = f"{self.tally.total} of {len(self.rows)} ended{more} · {seconds(self.elapsed)}"
        return Group(table, Text(ended))

    def _add_row(self, table: Table, row: Row) -> None:
        until = self._clock() if row.ended is None else row.ended
        table.add_row(
            Text(short(row.vid, 40)),
            Text(row.note, style="red") if row.note else state_text(row.state),
            seconds(None if row.born is None else until - row.born),
            str(row.looks),
            seconds(until - self._began),
        )


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
