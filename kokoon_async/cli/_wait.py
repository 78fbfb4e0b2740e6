"""``kokoon-async wait``: all the images at once, each with its own end."""

import asyncio
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from kokoon_async import Image, KokoonClient, KokoonError, Outcome

from ._board import Board
from ._get import exit_code
from ._process import complain, write_out
from ._show import json_line, problem, row, seconds, short


__all__ = ["JsonView", "LineView", "LiveView", "wait_for_images"]

_MOST_NAMED = 20  # ids in the sentence that says how to resume
_FRAME = 4  # lines of the screen that the live table needs besides its rows


class LineView:
    """
    One line for each change of state, for files, pipes and plain terminals.

    Args:
        board: Knows the times.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._turn = asyncio.Lock()  # threads write, and lines must not get mixed up

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""

    async def changed(self, image: Image) -> None:
        """Write the state, unless the end follows."""
        if not image.is_finished:
            await self._write_line(image.vid, short(image.state))

    async def ended(self, outcome: Outcome) -> None:
        """Write the end; of an error, its text to standard error."""
        if outcome.error is None:
            what = row(outcome.unwrap()).removeprefix(outcome.vid).strip()
        else:
            what = type(outcome.error).__name__
            complain(problem(outcome.error))
        await self._write_line(short(outcome.vid, 40), what)

    async def _write(self, text: str) -> None:
        async with self._turn:
            await write_out(text)

    async def _write_line(self, vid: str, what: str) -> None:
        await self._write(f"{seconds(self._board.elapsed):>7}  {vid:36}  {what}\n")


class JsonView(LineView):
    """One line of JSON for each image, when its wait has ended."""

    async def changed(self, image: Image) -> None:
        """Write nothing."""

    async def ended(self, outcome: Outcome) -> None:
        """Write the record or the error."""
        await self._write(json_line(outcome))


class LiveView(LineView):
    """
    A table on the terminal that is always up to date; at the end, the whole of it.

    Args:
        board: What is shown.

        console: The terminal.
    """

    def __init__(self, board: Board, console: Console) -> None:
        super().__init__(board)
        self._console = console
        # It draws in a thread of its own, so a halted terminal holds up nothing.
        self._live = Live(
            console=console,
            get_renderable=lambda: board.picture(console.width, max(1, console.height - _FRAME)),
            transient=True,
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
        """Replace the part that fits on the screen by the whole table."""
        self._live.__exit__(kind, error, traceback)
        self._console.print(self._board.picture(self._console.width))

    async def changed(self, image: Image) -> None:
        """Do nothing: the board knows already."""

    async def ended(self, outcome: Outcome) -> None:
        """Say what went wrong, above the table."""
        if outcome.error is not None:
            complain(problem(outcome.error))


async def wait_for_images(
    client: KokoonClient, board: Board, view: LineView, *, timeout: float | None
) -> int:
    """
    Wait for all images of a board, and report each end; one never stops the others.

    Args:
        client: Waits; the board must be its hook.

        board: The images.

        view: Shows them.

        timeout: Seconds for each; ``None`` for ever.

    Returns:
        The exit code.
    """
    problems: tuple[Exception, ...] = ()
    try:
        with view:
            async with asyncio.TaskGroup() as group:
                for key in board.rows:
                    group.create_task(_follow(client, key, board, view, timeout))
    except asyncio.CancelledError:
        complain(f"kokoon-async: {_how_to_resume(board)}")
        raise
    except ExceptionGroup as several:
        problems = several.exceptions
    if problems:  # with the output, and then all tasks have the same
        raise problems[0]
    complain(f"kokoon-async: {_summary(board)}")
    return exit_code(board.tally)


async def _follow(
    client: KokoonClient, key: str, board: Board, view: LineView, timeout: float | None
) -> None:
    try:
        async with client.watch(key, timeout=timeout) as records:
            async for image in records:
                await view.changed(image)
            outcome = Outcome(key, image=records.result())
    except KokoonError as error:
        outcome = Outcome(board.rows[key].vid, error=error)
    board.end(key, outcome)
    await view.ended(outcome)


def _summary(board: Board) -> str:
    done = f"{board.tally.good} of {board.tally.total} images completed"
    effort = f"in {seconds(board.elapsed)} with {board.looks} requests"
    failures = f"; {board.tally.failures}" if board.tally.bad else ""
    return f"{done} {effort}{failures}."


def _how_to_resume(board: Board) -> str:
    waiting = board.waiting
    if not waiting:
        return "stopped."
    named = " ".join(short(vid, 40) for vid in waiting[:_MOST_NAMED])
    if len(waiting) > _MOST_NAMED:
        named = "... with the same ids"
    return (
        f"stopped while {len(waiting)} of {len(board.rows)} images were in work. The server goes"
        f" on with them; to resume:\n  kokoon-async wait {named}"
    )
