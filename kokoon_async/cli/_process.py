"""
How the program ends: exit codes, signals, and streams that take nothing any more.

Whatever happens, the user sees one sentence and never a traceback (F-115, F-116).
"""

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self, TextIO, cast

import click

from kokoon_async import ConfigurationError, KokoonError

from ._show import problem, short


__all__ = [
    "FAILED",
    "GRACE",
    "IO_FAILED",
    "OK",
    "SOME_FAILED",
    "USAGE",
    "Program",
    "Signals",
    "complain",
    "has_cursor",
    "write_out",
]

OK = 0
FAILED = 1
USAGE = 2
SOME_FAILED = 3
IO_FAILED = 74  # EX_IOERR of sysexits.h

GRACE = 1.5
"""Seconds from the first signal until the process is ended, whatever hinders it."""

# Seconds, which together with GRACE are less than the two that docs/cli.md promises.
_LAST_DEED = 0.25
_LAST_WORDS = 0.1

_SHOW_CURSOR = b"\x1b[?25h"

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def complain(text: str) -> None:
    """Write a line to standard error, if that can still be written."""
    # Not click's echo: it goes around the stand-in by which Rich keeps a live table whole.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def has_cursor(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal that can move its cursor; Emacs cannot."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return stream is not None and stream.isatty() and not dumb


async def write_out(text: str) -> None:
    """
    Write to standard output, and wait until it is out.

    It happens in a thread: while a pager or a full pipe holds us up, answers are still
    read, and do not time out.

    Raises:
        OSError: If it cannot be written.
    """
    await asyncio.to_thread(_write, text)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Signals:
    """
    End the program cleanly at the first signal, and at once at the second.

    Python's own way is a traceback for SIGINT, and no clean end for the others (E30).

    Attributes:
        last_deed: What has to be done, in short, also if the first signal's end hangs.
    """

    def __init__(self) -> None:
        self.last_deed: Callable[[], object] | None = None
        self._number: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._last_resort: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # Only `nohup` is obeyed: a script's background jobs ignore SIGINT by default,
            # and whoever sends it there means it.
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._last_resort is not None:
            self._last_resort.cancel()

    def run(self, work: Coroutine[Any, Any, int]) -> int:
        """
        Run *work* until it gives the exit code, or a signal cancels it.

        Returns:
            The exit code.
        """
        try:
            return asyncio.run(self._attend(work))
        except asyncio.CancelledError:
            if self._number is None:
                raise
            return 128 + self._number

    async def _attend(self, work: Coroutine[Any, Any, int]) -> int:
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[int]", asyncio.current_task())
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await work
        finally:
            self._cancel = None

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # Python runs this between two steps of the main thread, also while a write blocks.
        if self._number is not None:
            _leave(128 + number)
        self._number = number
        self._last_resort = threading.Timer(GRACE, self._give_up, (128 + number,))
        self._last_resort.daemon = True
        self._last_resort.start()
        if self._cancel is None:
            sys.exit(128 + number)
        self._cancel()

    def _give_up(self, code: int) -> None:
        """End the process, and say so if that does not take long: its stream may hinder it."""
        told = (
            "kokoon-async: stopped without waiting for what was still under way. Run the same"
            " command again."
        )
        try:
            if deed := self.last_deed:
                _within(_LAST_DEED, _do_or_tell, deed)
            _within(_LAST_WORDS, complain, told)
        finally:
            _leave(code)


def _within(seconds: float, act: Callable[..., object], *given: object) -> None:
    """Do something that may hang, and go on without it if it takes longer than this."""
    thread = threading.Thread(target=act, args=given, daemon=True)
    thread.start()
    thread.join(seconds)


def _do_or_tell(deed: Callable[[], object]) -> None:
    try:
        deed()
    except Exception as error:  # noqa: BLE001 - whatever it is, there must be no traceback
        complain(
            "kokoon-async: what was to be kept at the end could not be written:"
            f" {type(error).__name__}: {short(error)}."
        )


def _leave(code: int) -> None:
    """End the process at once, but give the terminal its cursor back, which a picture hides."""
    try:
        terminals = [stream for stream in (sys.stdout, sys.stderr) if has_cursor(stream)]
        if terminals:
            _within(_LAST_WORDS, _show_cursor, terminals)  # the terminal may be halted
    finally:
        os._exit(code)


def _show_cursor(terminals: Iterable[TextIO]) -> None:
    for terminal in terminals:
        with suppress(OSError, ValueError):
            # Past Python's buffer, which the main thread may hold, and Rich's stand-in.
            os.write(terminal.fileno(), _SHOW_CURSOR)


class Program(click.Group):
    """A group of commands that each return an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Give the commands in the order of the source, which is that of use."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:
        """Do what click's own does, with our way to end; `click.testing` calls it."""
        sys.exit(self.run(*args, **options))

    def run(self, *args: Any, **options: Any) -> int:
        """Run the program and give its exit code."""
        for stream in (sys.stdout, sys.stderr):
            # Better a question mark than a crash where the locale has no such letter.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        with Signals() as signals:
            options |= {"prog_name": "kokoon-async", "standalone_mode": False, "obj": signals}
            return self._run(*args, **options)

    def _run(self, *args: Any, **options: Any) -> int:
        if sys.stdout is None:
            complain("kokoon-async: standard output is closed.")
            return IO_FAILED
        try:
            code: int = super().main(*args, **options) or OK
        except click.ClickException as error:
            if sys.stderr is not None:  # click would take standard output instead
                with suppress(OSError):
                    error.show()
            code = error.exit_code
        except click.Abort:  # of a prompt
            code = FAILED
        except KokoonError as error:
            complain(problem(error))
            code = USAGE if isinstance(error, ConfigurationError) else FAILED
        except OSError as error:  # but a broken pipe, which click takes for a quiet failure
            where = f"{error.filename}: " if error.filename else ""
            complain(f"kokoon-async: {short(f'{where}{error.strerror or error}')}")
            _drop_output()
            code = IO_FAILED
        return code


def _drop_output() -> None:
    """Let what is still buffered vanish: Python would fail on it once more at its end."""
    with suppress(OSError, ValueError):  # it may be no file at all
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)
