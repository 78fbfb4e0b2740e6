"""What the demo looks like: progress while it runs, tables at its end."""

from collections import Counter
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from kokoon_async import ImageState

from ._board import is_lively, make_console, state_text
from ._demo import Figures, Finished, run_demo
from ._process import FAILED, OK, complain, write_out
from ._show import pixels, problem, seconds


__all__ = ["show_demo"]

_BETWEEN_LINES = 3.0  # seconds


async def show_demo(*, images: int, seed: int, speed: float) -> int:
    """
    Run the demo and show it.

    Args:
        images: How many to wait for.

        seed: The same one makes the same images.

        speed: How fast the server's clock runs.

    Returns:
        The exit code.
    """
    console = make_console()
    await write_out(
        f"A simulated server makes {images} images; its clock runs {speed:g} times as fast as"
        " yours.\nSome will fail. On top it answers with errors, breaks connections, and asks for"
        " a pause.\n\n"
    )
    with _Bar(console) if is_lively(console) else _Lines() as progress:
        figures = await run_demo(images=images, seed=seed, speed=speed, show=progress.show)
    with console.capture() as captured:
        console.print("\nWhat came out", style="bold", end="\n\n")
        console.print(_summary(figures))
        console.print("\nSome of the images", style="bold", end="\n\n")
        console.print(_samples(figures))
        console.print(f"\n* by the server's clock, {speed:g} times as fast as yours", style="dim")
    await write_out(captured.get())
    for error in figures.lost:
        complain(problem(error))
    if figures.lost or figures.done != images:
        return FAILED
    await write_out("\nNothing was lost. What next: README.md, or kokoon-async simulate\n")
    return OK


class _Lines:
    # A line every few seconds, where no picture can be drawn over.

    def __init__(self) -> None:
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    async def show(self, figures: Figures) -> None:
        if figures.elapsed >= self._next:
            self._next = figures.elapsed + _BETWEEN_LINES
            await write_out(
                f"{seconds(figures.elapsed):>6}  {figures.done} of {figures.images} finished,"
                f" {_story(figures)}\n"
            )


class _Bar:
    # It draws in a thread of its own.

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=20, complete_style="cyan", finished_style="green"),
            TextColumn("{task.completed}/{task.total} finished", markup=False),
            TextColumn("{task.description}", markup=False),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.__enter__()
        self._task = self._progress.add_task("", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, traceback)

    async def show(self, figures: Figures) -> None:
        self._progress.update(
            self._task,
            total=figures.images,
            completed=figures.done,
            description=f"{_story(figures)}, {seconds(figures.elapsed)}",
        )


def _story(figures: Figures) -> str:
    return f"{figures.requests} requests ({figures.again} made again)"


def _summary(figures: Figures) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    states = Counter(outcome.image.state for outcome in figures.outcomes)
    for state, count in sorted(states.items()):
        table.add_row(state_text(state), f"{count} of {figures.images} images")
    table.add_row("lost", f"{len(figures.lost)}")
    each = figures.requests / figures.images
    table.add_row("requests", f"{figures.requests}, that is {each:.1f} per image")
    met = ", ".join(f"{count} x {kind}" for kind, count in sorted(figures.faults.items()))
    table.add_row("faults of the server", met or "none")
    table.add_row("failed requests", f"{figures.again}, and made again")
    table.add_row("slowed down", f"{figures.braked} x, because the server asked for it")
    if figures.outcomes:
        took = fmean(outcome.took for outcome in figures.outcomes)
        late = fmean(outcome.noticed for outcome in figures.outcomes)
        table.add_row("images took", f"{seconds(took)} on average *")
        table.add_row("noticed", f"{seconds(late)} after the finish on average *")
    table.add_row("all in all", seconds(figures.elapsed))
    return table


def _samples(figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("vid", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("pixels", "requests", "noticed *"):
        table.add_column(name, no_wrap=True, justify="right")
    for outcome in _chosen(figures.outcomes):
        table.add_row(
            outcome.vid,
            state_text(outcome.image.state),
            pixels(outcome.image),
            str(figures.looks[outcome.vid]),
            f"+{seconds(outcome.noticed)}",
        )
    return table


def _chosen(outcomes: list[Finished]) -> list[Finished]:
    """Choose three, one of them failed if there is one."""
    completed = [o for o in outcomes if o.image.state == ImageState.COMPLETED]
    failed = [o for o in outcomes if o.image.state != ImageState.COMPLETED][:1]
    return completed[: 3 - len(failed)] + failed
