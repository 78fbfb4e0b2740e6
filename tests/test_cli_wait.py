"""What `wait` knows and shows of its images, without a process or a terminal."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from rich.console import Console
from yarl import URL

from kokoon_async import (
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    InvalidVid,
    KokoonClient,
    Outcome,
)
from kokoon_async.cli import _show
from kokoon_async.cli._board import Board, is_lively, make_console
from kokoon_async.cli._wait import JsonView, LineView, LiveView, wait_for_images
from kokoon_async.events import LookFailed, LookFinished, WaitStarted
from kokoon_async.simulator import Simulator, Status

from .canary import CANARY_TOKEN, presigned_url


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
OTHER = "de5e9990-c0fb-11ee-961f-d12490e606ae"


class Clock:
    """A clock that tests move."""

    now = 100.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands."""
    return Clock()


def shown(board: Board, most: int | None = None, width: int = 130) -> str:
    """Draw a board as it looks on a terminal, by default a wide one."""
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(board.picture(console.width, most))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def cells(board: Board) -> list[list[str]]:
    """Give the words of each row of a board."""
    lines = shown(board).splitlines()
    return [line.split() for line in lines if line.strip().startswith(("de5e", "DE5E", "x"))]


# -- the board -------------------------------------------------------------------------------------


def test_board_follows_the_looks(clock: Clock) -> None:
    """State, age, looks and time come from the client's events, and stand still at the end."""
    board = Board([VID.upper(), VID], clock=clock)
    board.note(WaitStarted(VID, 9.0))
    assert cells(board) == [[VID.upper(), "-", "-", "0", "0.0", "s"]]
    clock.now = 105.0
    board.note(LookFinished(VID, ImageState("processing"), 61.0, 2.0, "policy"))
    clock.now = 106.0
    assert cells(board) == [[VID.upper(), "processing", "1m", "02s", "1", "6.0", "s"]]
    board.note(LookFailed(VID, "ServerError", 2.5, "hint"))
    assert cells(board)[0][1] == "ServerError"
    clock.now = 110.0
    board.note(LookFinished(VID, ImageState("completed"), 66.0, None, "ended"))
    board.end(VID, Outcome(VID, Image(VID, ImageState("completed"))))
    clock.now = 200.0
    assert cells(board) == [[VID.upper(), "completed", "1m", "06s", "3", "10", "s"]]
    assert (board.looks, board.waiting, board.elapsed) == (3, [], 100.0)
    assert "1 of 1 ended · 1m 40s" in shown(board)


def test_board_shows_those_in_work_first(clock: Clock) -> None:
    """If there is no room for all, those that are over give way."""
    board = Board(["x1", VID, OTHER], clock=clock)
    board.end("x1", Outcome("x1", error=InvalidVid("no")))
    board.end(VID, Outcome(VID, error=ImageNotFound("no")))
    text = shown(board, 1)
    assert OTHER in text
    assert VID not in text
    assert "2 of 3 ended · 2 more below · 0.0 s" in text
    assert "InvalidVid" in shown(board, 3)
    board.end(OTHER, Outcome(OTHER, error=ImageFailed("no")))
    assert "ImageFailed" not in shown(board)
    assert board.tally.failures == "1 ImageFailed, 1 ImageNotFound, 1 InvalidVid"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (130, "vid state age looks elapsed"),
        (79, "vid state age looks elapsed"),
        (78, "vid state age looks"),
        (70, "vid state age looks"),
        (69, "vid state age"),
        (62, "vid state age"),
        (61, "vid state"),
        (54, "vid state"),
        (53, "vid state"),
        (24, "vid state"),
        (19, "… state"),
    ],
)
def test_narrow_board_leaves_columns_out(clock: Clock, width: int, columns: str) -> None:
    """What there is no room for is left out, or marked as cut; the state is always whole."""
    board = Board([VID, OTHER], clock=clock)
    for vid, state in ((VID, "processing"), (OTHER, "pending")):
        board.note(LookFinished(vid, ImageState(state), 18.0, 2.0, "policy"))
    header, first, second, end = shown(board, width=width).splitlines()
    assert header.split() == columns.split()
    for line, vid, state in ((first, VID, "processing"), (second, OTHER, "pending")):
        values = {"age": "18 s", "looks": "1", "elapsed": "0.0 s"}
        rest = " ".join(values[name] for name in columns.split()[2:])
        seen, *others = line.split()
        assert " ".join(others) == f"{state} {rest}".strip()
        assert seen == vid if width >= 54 else vid.startswith(seen.removesuffix("…"))
        assert seen.endswith("…") == (width < 54)
    assert end.startswith("0 of")
    assert max(map(len, (header, first, second, end))) <= width


def test_the_state_is_the_last_to_go(clock: Clock) -> None:
    """Where there is hardly any room, each image still has one line, with its state."""
    board = Board([VID], clock=clock)
    board.note(LookFinished(VID, ImageState("processing"), 18.0, 2.0, "policy"))
    assert shown(board, width=12).split("\n")[1].strip() == "processing"


def test_longer_values_need_more_room(clock: Clock) -> None:
    """A state or an age that is longer than usual is whole, too; another column gives way."""
    board = Board([VID], clock=clock)
    board.note(LookFinished(VID, ImageState("warming_up_the_machines"), 90000.0, 2.0, "policy"))
    header, line, _ = shown(board, width=77).splitlines()
    assert header.split() == ["vid", "state", "age"]
    assert line.split() == [VID, "warming_up_the_machines", "25h", "00m"]


@pytest.mark.fault("F-47")
def test_board_cleans_what_it_shows(clock: Clock) -> None:
    """Neither ids nor states bring escapes or markup to the terminal."""
    board = Board(["x\x1b[31m[red]"], clock=clock)
    row = board.rows["x\x1b[31m[red]"]
    row.state = "\x1b[5m[blink]"
    text = shown(board)
    assert "\x1b" not in text
    assert "[red]" in text
    assert "[blink]" in text


@pytest.mark.parametrize(
    ("term", "terminal", "lively"),
    [("xterm", True, True), ("dumb", True, False), (None, True, False), ("xterm", False, False)],
)
def test_pictures_move_only_where_they_can(
    term: str | None, terminal: bool, lively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe is no terminal, also when colours are forced; neither is Emacs."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", term or "")
    if term is None:
        monkeypatch.delenv("TERM")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert is_lively(make_console()) is lively


# -- the wait --------------------------------------------------------------------------------------


@pytest.fixture
def console() -> Console:
    """Give a terminal in memory."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=100, height=8, legacy_windows=False
    )


async def wait(
    sim: Simulator,
    vids: list[str],
    make_view: Callable[[Board], LineView] = LineView,
    *,
    timeout: float = 60.0,
) -> int:
    """Wait as the command does."""
    board = Board(vids, clock=asyncio.get_running_loop().time)
    async with KokoonClient(CANARY_TOKEN, base_url=sim.base_url, hooks=[board.note]) as client:
        return await wait_for_images(client, board, make_view(board), timeout=timeout)


@pytest.mark.usefixtures("virtual_time")
async def test_lines_tell_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    """Each change is a line, and a failed look is none."""
    async with Simulator() as sim:
        vid = sim.add_image("pending*10s processing*20s completed", url=presigned_url())
        sim.fault(Status(503), vid=vid)
        assert await wait(sim, [vid, "x"]) == 3
    out, err = capsys.readouterr()
    *lines, last = [line for line in out.splitlines() if vid in line]
    assert [line.split()[3] for line in lines] == ["pending", "processing"]
    assert "  completed  " in last
    assert "presigned" not in out
    took = re.search(r"1 of 2 images completed in (\d+) s", err)
    assert took is not None
    assert 30 <= int(took[1]) < 60  # chance decides how soon it is seen


@pytest.mark.usefixtures("virtual_time")
async def test_json_is_one_line_for_each_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Changes are no lines of JSON."""
    async with Simulator() as sim:
        vid = sim.add_image("pending*10s completed")
        assert await wait(sim, [vid, "x"], JsonView) == 3
        record = sim.record(vid)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["vid"] for line in lines] == ["x", vid]
    assert lines[1] == record


@pytest.mark.usefixtures("virtual_time")
async def test_live_table_ends_whole(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    """While it moves the table fits on the screen; at the end all of it is written."""
    async with Simulator() as sim:
        vids = sim.add_images(4, "pending*10s completed")
        failed = sim.add_image("error")
        assert await wait(sim, [*vids, failed], lambda board: LiveView(board, console)) == 3
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    moving, _, whole = text.rpartition("\x1b[?25h")
    assert "more below" in moving
    assert all(vid in whole for vid in (*vids, failed))
    assert "5 of 5 ended" in whole
    assert "The server failed to make image" in capsys.readouterr().err + moving


@pytest.mark.parametrize(
    ("count", "end"), [(2, None), (30, "  kokoon-async wait ... with the same ids\n")]
)
async def test_stopped_wait_says_how_to_resume(
    count: int, end: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stopped wait names the images that are still in work, unless they are many."""
    async with Simulator() as sim:
        done, *vids = sim.add_image("completed"), *sim.add_images(count, "pending")
        task = asyncio.create_task(wait(sim, [done, *vids]))
        while capsys.readouterr().out.count("completed") == 0 or sim.request_count() <= count:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    err = capsys.readouterr().err
    assert f"stopped while {count} of {count + 1} images were in work." in err
    assert err.endswith(end or f"  kokoon-async wait {' '.join(vids)}\n")


async def test_stop_at_the_very_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after the last image, there is nothing to resume."""

    class Halting(LineView):
        async def ended(self, outcome: Outcome) -> None:
            halted.set()
            await asyncio.sleep(10)

    halted = asyncio.Event()
    async with Simulator() as sim:
        task = asyncio.create_task(wait(sim, [sim.add_image("completed")], Halting))
        await halted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert capsys.readouterr().err == "kokoon-async: stopped.\n"


async def test_broken_output_ends_the_wait() -> None:
    """If nobody reads the output, the wait ends with that one error."""

    class Broken(LineView):
        async def ended(self, outcome: Outcome) -> None:
            raise BrokenPipeError

    async with Simulator() as sim:
        with pytest.raises(BrokenPipeError):
            await wait(sim, [*sim.add_images(3, "completed"), *sim.add_images(3)], Broken)


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        *((None, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s")),
        *((59.6, "1m 00s"), (3599, "59m 59s"), (3600, "1h 00m"), (90000, "25h 00m")),
    ],
)
def test_seconds(amount: float | None, text: str) -> None:
    """Durations are written as people say them."""
    assert _show.seconds(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        *((None, "-"), (0, "-"), (1, "1 B"), (1023, "1023 B"), (1024, "1 KiB")),
        *((939073, "917 KiB"), (1 << 20, "1.0 MiB"), (50_000_000, "47.7 MiB")),
    ],
)
def test_size(amount: int | None, text: str) -> None:
    """Sizes have a unit that fits."""
    assert _show.size(Image(VID, ImageState.PENDING, size=amount)) == text


def test_details_of_a_bare_record() -> None:
    """What is not known is a dash."""
    text = _show.details(Image(VID, ImageState("new")))
    assert [line.split()[-1] for line in text.splitlines()] == [VID, "new", *12 * "-"]


def test_details_of_a_full_record() -> None:
    """What is known is shown, the addresses without their queries."""
    image = Image(
        VID,
        ImageState.COMPLETED,
        pid=OTHER,
        tid=OTHER,
        created_time=datetime(2024, 2, 1, 12, 17, 32, tzinfo=UTC),
        width=640,
        height=360,
        download_cnt=0,
        url=URL(presigned_url()),
    )
    text = _show.details(image)
    assert "created    2024-02-01 12:17:32 UTC\n" in text
    assert "pixels     640x360\n" in text
    assert f"made from  {OTHER}\n" in text
    assert "downloads  0\n" in text
    assert "/video/canary/original.png?…\n" in text
