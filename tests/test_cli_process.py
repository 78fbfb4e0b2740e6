"""The program as a process: signals, pipes, terminals and locales, all of them real."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from unittest.mock import Mock

import pytest

from kokoon_async.cli import _process
from kokoon_async.cli._process import Program, Signals
from kokoon_async.simulator import Latency, Simulator

from .canary import CANARY_TOKEN


Start = Callable[..., Awaitable[Process]]

ENDED = b" images were in work. The server goes on with them; to resume:\n  kokoon-async wait "


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serve a simulator."""
    async with Simulator(token=CANARY_TOKEN) as simulator:
        yield simulator


@pytest.fixture
async def start(sim: Simulator, tmp_path: Path) -> AsyncIterator[Start]:
    """Return a coroutine function that starts the program, which is killed at the latest here."""
    processes: list[Process] = []

    async def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Process:
        plain = {"TERM": "dumb", "KOKOON_TOKEN": CANARY_TOKEN, "KOKOON_BASE_URL": sim.base_url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kokoon_async", *arguments),
            cwd=tmp_path,
            env=os.environ | plain | (env or {}),
            # A shell may have let this run ignore it (E30).
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **{"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **options},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.fault("F-115")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
async def test_signal_ends_a_wait(start: Start, sim: Simulator, name: str, code: int) -> None:
    """The first signal ends the program soon and cleanly, and it says how to resume."""
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and the program leaves it so")
    vids = [sim.add_image("pending"), sim.add_image("completed")]
    process = await start("wait", *vids)
    assert process.stdout is not None
    shown = [await process.stdout.readline() for _ in vids]
    process.send_signal(getattr(signal, name))
    out, err = await process.communicate()
    assert process.returncode == code
    assert {line.split()[3] for line in shown} == {b"pending", b"completed"}
    assert out == b""
    assert err == b"kokoon-async: stopped while 1 of 2" + ENDED + vids[0].encode() + b"\n"


async def test_signal_ends_the_simulator(start: Start) -> None:
    """The simulator runs until a signal, and then says what it did."""
    process = await start("simulate", "--images", "1")
    assert process.stdout is not None
    assert b"listens on http://127.0.0.1:" in await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"kokoon-async: stopped after 0 requests.\n")


@pytest.mark.fault("F-93")
async def test_second_signal_ends_at_once(start: Start, sim: Simulator) -> None:
    """A reader that reads no more cannot hold up the program: the second signal ends it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    process = await start("get", "--json", *sim.add_images(600, "completed"), stdout=writing)
    os.close(writing)
    await until(lambda: sim.request_count() > 100)  # the first record is being written by now
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 143  # that of the second: the end without it would be 130
    os.close(reading)
    assert sim.request_count() < 600


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the exit codes of immediate ends, which do not end this process."""
    codes: list[int] = []

    def stand_in(code: int) -> None:
        codes.append(code)
        if threading.current_thread() is threading.main_thread():
            raise Ended

    monkeypatch.setattr(os, "_exit", stand_in)
    return codes


async def until_ended(ends: list[int]) -> int:
    """Send a signal to this process, and hang until it would have ended."""
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await asyncio.sleep(10)
    finally:
        while not ends:
            await asyncio.sleep(0.001)
    return 0


@pytest.mark.parametrize("is_mute", [False, True])
def test_program_ends_though_something_hangs(
    ends: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_mute: bool,
) -> None:
    """If the clean end takes too long, the process ends without it, and says so if it can."""
    monkeypatch.setattr(_process, "GRACE", 0.01)
    can_speak = threading.Event()
    if is_mute:
        monkeypatch.setattr(_process, "complain", lambda text: can_speak.wait())
        monkeypatch.setattr(_process, "_LAST_WORDS", 0.01)
    with Signals() as signals:
        assert signals.run(until_ended(ends)) == 143
    assert ends == [143]
    can_speak.set()
    assert ("stopped without waiting" in capsys.readouterr().err) == (not is_mute)


def last_resort(ends: list[int], deed: Callable[[], object]) -> None:
    """End a program that hangs, and has this to do before."""
    with Signals() as signals:
        signals.last_deed = deed
        assert signals.run(until_ended(ends)) == 143
    assert ends == [143]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon, but wait for what is done then, however busy the machine is."""
    monkeypatch.setattr(_process, "GRACE", 0.01)
    monkeypatch.setattr(_process, "_LAST_DEED", 20.0)
    monkeypatch.setattr(_process, "_LAST_WORDS", 20.0)


@pytest.mark.usefixtures("patient")
def test_the_last_resort_does_its_last_deed(
    ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """What must be kept is kept before the process ends, also if the end is not a clean one."""
    before: list[list[int]] = []
    last_resort(ends, lambda: before.append(ends.copy()))
    assert before == [[]]
    assert "stopped without waiting" in capsys.readouterr().err


@pytest.mark.usefixtures("patient")
def test_a_last_deed_that_fails_is_told(
    ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error in it is one sentence, not a traceback, and the process ends all the same."""
    last_resort(ends, Mock(side_effect=RuntimeError("dictionary\x1b changed")))
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "kokoon-async: what was to be kept at the end could not be written: RuntimeError:"
        " dictionary\ufffd changed."
    )
    assert "stopped without waiting" in second


@pytest.mark.usefixtures("patient")
def test_a_last_deed_that_hangs_holds_up_nothing(
    ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer is waited for only a moment."""
    monkeypatch.setattr(_process, "_LAST_DEED", 0.01)
    answers = threading.Event()
    last_resort(ends, answers.wait)
    answers.set()


class Terminal:
    """A terminal of this process, as its standard output."""

    def __init__(self, descriptor: int, file: IO[str]) -> None:
        self._descriptor = descriptor
        self.file = file

    def sent(self) -> bytes:
        """Give what it was sent."""
        os.write(self.file.fileno(), b"|")  # what was sent before comes before it
        found = b""
        while not found.endswith(b"|"):
            found += os.read(self._descriptor, 1000)
        return found[:-1]


@pytest.fixture
def terminal(patient: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Give a terminal that can move its cursor; pytest lets only the test itself write to it."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with open(theirs, "w") as file:  # noqa: PTH123 - a descriptor
        yield Terminal(ours, file)
    os.close(ours)


def test_the_second_signal_gives_the_cursor_back(
    ends: list[int], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture hides the terminal's cursor; the process does not end without showing it."""
    monkeypatch.setattr(_process, "GRACE", 60.0)  # the last resort would show it, too
    monkeypatch.setattr(sys, "stdout", terminal.file)
    with Signals():
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        assert terminal.sent() == b""
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGTERM)
    assert (ends, terminal.sent()) == ([143], b"\x1b[?25h")


def test_the_last_resort_gives_the_cursor_back(
    ends: list[int], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does the end that comes when the first signal's hangs, also where a bar is drawn."""
    monkeypatch.setattr(sys, "stderr", terminal.file)
    with Signals() as signals:
        assert signals.run(until_ended(ends)) == 143
    told = terminal.sent()
    assert (ends, told.endswith(b"\x1b[?25h")) == ([143], True)
    assert b"stopped without waiting" in told


def test_a_halted_terminal_holds_up_nothing(
    ends: list[int], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that takes nothing any more, as after Ctrl-S, keeps no process alive."""
    is_held, goes_on = threading.Event(), threading.Event()

    def halted(*_: object) -> None:
        is_held.set()
        goes_on.wait()

    monkeypatch.setattr(sys, "stdout", terminal.file)
    monkeypatch.setattr(os, "write", halted)
    monkeypatch.setattr(_process, "_LAST_WORDS", 0.01)
    with pytest.raises(Ended):
        _process._leave(130)
    assert ends == [130]
    assert is_held.wait(20)
    goes_on.set()


def test_a_terminal_without_a_cursor_is_left_alone(
    ends: list[int], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing hides a cursor, there is nothing to give back."""
    monkeypatch.setattr(sys, "stdout", terminal.file)
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(Ended):
        _process._leave(130)
    assert (ends, terminal.sent()) == ([130], b"")


@pytest.mark.usefixtures("patient")
def test_a_terminal_that_went_away_is_no_matter(
    ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its window was closed, the process ends without a word."""
    gone = Mock(isatty=lambda: True, fileno=Mock(side_effect=OSError(5, "Input/output error")))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(Ended):
        _process._leave(129)
    assert ends == [129]
    gone.fileno.assert_called_once()


def test_signal_outside_of_the_loop(ends: list[int]) -> None:
    """A signal before or after the work ends the program too, the second at once."""
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)
    assert ends == [130]
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_obeyed() -> None:
    """Who ignores hang-ups for the program is obeyed; SIGINT ends it nevertheless."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_cancellations_are_errors() -> None:
    """A cancellation that no signal caused is a fault of the program, and not hidden."""

    async def work() -> int:
        raise asyncio.CancelledError

    with Signals() as signals, pytest.raises(asyncio.CancelledError):
        signals.run(work())


# -- pipes, disks and locales ----------------------------------------------------------------------


@pytest.mark.fault("F-116")
@pytest.mark.parametrize("name", ["get", "wait"])
async def test_closed_pipe_ends_quietly(start: Start, sim: Simulator, name: str) -> None:
    """A reader that leaves, such as head, ends the program without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    vids = [sim.add_image("completed") for _ in range(3)]
    process = await start(name, *vids, stdout=writing)
    os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


@pytest.mark.fault("F-116")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
async def test_full_device(start: Start) -> None:
    """Output that cannot be written is one sentence and exit code 74."""
    with Path("/dev/full").open("wb") as full:
        process = await start("--help", stdout=full)
    _, err = await process.communicate()
    assert (process.returncode, err) == (74, b"kokoon-async: No space left on device\n")


@pytest.mark.fault("F-116")
async def test_locale_without_letters(start: Start, sim: Simulator) -> None:
    """Where the locale lacks a letter, something else is shown."""
    vid = sim.add_image("completed", filename="größe….png")
    process = await start("get", vid, env={"PYTHONIOENCODING": "ascii"})
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"gr??e?.png" in out


# -- terminals -------------------------------------------------------------------------------------


async def on_terminal(start: Start, *arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run the program on a pseudo-terminal; return its exit code and what it showed."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = await start(
        *arguments, stdin=theirs, stdout=theirs, stderr=theirs, env={"COLUMNS": "110", **env}
    )
    os.close(theirs)
    shown = b""
    os.set_blocking(ours, False)
    while process.returncode is None:
        await asyncio.sleep(0.005)
        try:
            shown += os.read(ours, 65536)
        except BlockingIOError:
            continue
        except OSError:  # it is closed on the other side
            await process.wait()
    os.close(ours)
    return process.returncode, shown.decode()


async def test_wait_draws_a_table(start: Start, sim: Simulator) -> None:
    """On a terminal the table is drawn again and again, with messages above it."""
    good = sim.add_image("completed", filename="x")
    sim.fault(Latency(0.5), vid=good)
    bad = sim.add_image("error")
    code, shown = await on_terminal(start, "wait", good, bad, env={"TERM": "xterm"})
    assert code == 3
    assert "\x1b[?25l" in shown  # the cursor is hidden while the table moves
    assert shown.count("\x1b[?25h") == 1
    assert "0 of 2 ended" in shown or "1 of 2 ended" in shown
    last = shown.rpartition("\x1b[?25h")[2]
    assert "2 of 2 ended" in last
    assert re.search(rf"{bad}.*error", last)
    assert "The server failed to make image" in shown.rpartition("\x1b[?25h")[0]
    assert "1 of 2 images completed in" in last


async def test_plain_terminal_gets_lines(start: Start, sim: Simulator) -> None:
    """A terminal that cannot move its cursor is written to as a file is."""
    code, shown = await on_terminal(start, "wait", sim.add_image("completed"), env={"TERM": "dumb"})
    assert code == 0
    assert "\x1b" not in shown
    assert "  completed  " in shown


async def test_demo_draws_a_bar(start: Start) -> None:
    """On a terminal the demo has a bar, and no colours where none are wanted."""
    arguments = ("demo", "--images", "20", "--speed", "500")
    code, shown = await on_terminal(start, *arguments, env={"TERM": "xterm", "NO_COLOR": "1"})
    assert code == 0
    assert "20/20 finished" in shown
    assert "\x1b[3" not in shown
    assert "Nothing was lost." in shown


def test_group_is_clicks_own_otherwise() -> None:
    """The program is a usual group of click's, also for its test runner."""
    program = Program("x")
    with pytest.raises(SystemExit) as caught:
        program.main(["--help"])
    assert caught.value.code == 0
