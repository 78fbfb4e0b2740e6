"""How far a bulk job is: bars on a terminal, a line every few seconds elsewhere."""

import asyncio
import sys
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kokoon_async.jobs import JobProgress

from ._board import is_lively, make_console
from ._process import complain
from ._show import seconds, short


__all__ = ["BarView", "LinesView", "QuietView", "make_view", "rate"]

_BETWEEN_LINES = 3.0  # seconds
_FAST = 10


class QuietView:
    """
    Show nothing.

    Attributes:
        done: How many ids had their outcome when that was last told.
    """

    def __init__(self) -> None:
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""

    async def show(self, progress: JobProgress) -> None:
        """Take in how far the job is; it is what the job calls."""
        self.done = progress.done


class LinesView(QuietView):
    """A line on standard error every few seconds, and when the job pauses or goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._next = _BETWEEN_LINES
        self._paused: str | None = None

    async def show(self, progress: JobProgress) -> None:
        """Write a line, if it is time."""
        await super().show(progress)
        if progress.seconds < self._next and progress.paused == self._paused:
            return
        self._next = progress.seconds + _BETWEEN_LINES
        self._paused = progress.paused
        line = f"{seconds(progress.seconds):>7}  {_amount(progress)} ids, {_story(progress)}"
        # In a thread: a reader of standard error who is slow holds up no request.
        await asyncio.to_thread(complain, line)


class BarView(QuietView):
    """
    A bar on the terminal and, below it, the figures.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._progress: JobProgress | None = None
        # It draws in a thread of its own, so a halted terminal holds up nothing.
        self._live = Live(
            console=console,
            get_renderable=self.picture,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the picture: the summary says it all."""
        self._live.__exit__(kind, error, traceback)

    async def show(self, progress: JobProgress) -> None:
        """Have the picture drawn anew, soon."""
        await super().show(progress)
        self._progress = progress

    def picture(self) -> RenderableType:
        """Draw the bar and the figures."""
        progress = self._progress
        if progress is None:
            return Text("Looking at what is there …")
        total = progress.total
        bar = ProgressBar(
            total=total,
            completed=progress.done,
            pulse=total is None and progress.paused is None,
            width=40,
            complete_style="cyan",
        )
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, Text(f"{_amount(progress)} ids"))
        style = "yellow" if progress.paused else "red" if progress.failed else ""
        story = Text(_story(progress), style=style, no_wrap=True, overflow="ellipsis")
        # What it says must not become longer than a line: a ^C behind it would begin another.
        return Group(line, story, Text(seconds(progress.seconds), style="dim"))


def make_view(*, is_stream: bool) -> QuietView:
    """
    Choose a view for where the program runs.

    Args:
        is_stream: Whether the rows go to standard output.
    """
    if is_stream:
        # Between rows on a terminal, figures would only be in the way.
        return QuietView() if sys.stdout.isatty() else LinesView()
    if sys.stderr is None:
        return QuietView()
    console = make_console(sys.stderr)
    return BarView(console) if is_lively(console) else LinesView()


def rate(amount: float) -> str:
    """Write ids per second."""
    return f"{amount:.0f}/s" if amount >= _FAST else f"{amount:.1f}/s"


def _amount(progress: JobProgress) -> str:
    if not progress.total:
        return str(progress.done)
    percent = 100 * progress.done // progress.total
    # Until the input was read to its end, the total is an estimate.
    about = "" if progress.done == progress.total else "about "
    return f"{progress.done} of {about}{progress.total} ({percent} %)"


def _story(progress: JobProgress) -> str:
    told = [rate(progress.rate)]
    if progress.failed:
        told.append(f"{progress.failed} failed")
    if progress.skipped:
        told.append(f"{progress.skipped} from earlier runs")
    if progress.seconds_left is not None:
        told.append(f"{seconds(progress.seconds_left)} left")
    if progress.paused is not None:
        told.insert(0, f"paused: {short(progress.paused, 200)}")
    return ", ".join(told)
