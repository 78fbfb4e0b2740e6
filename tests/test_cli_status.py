"""The command `status`: bulk jobs from the command line, stopped, resumed and retried."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import sys
import zlib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from kokoon_async import JobError
from kokoon_async.cli._commands import program
from kokoon_async.cli._process import complain
from kokoon_async.cli._show import for_command_line
from kokoon_async.cli._status import StatusJob, run_status
from kokoon_async.cli._status_view import BarView, LinesView, QuietView, make_view
from kokoon_async.jobs import JobProgress
from kokoon_async.simulator import Simulator, Status

from .bulk_api import heavy
from .bulk_contract import check_contract
from .canary import CANARY_TOKEN
from .figures import record_figure


NOBODY = "ffffffff-ffff-ffff-ffff-ffffffffffff"

Run = Callable[..., Awaitable[Result]]
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Serve a simulator."""
    async with Simulator(token=CANARY_TOKEN) as simulator:
        yield simulator


@pytest.fixture
def run(sim: Simulator) -> Run:
    """Return a function that runs the program to its end, in a thread."""
    env = {"KOKOON_TOKEN": CANARY_TOKEN, "KOKOON_BASE_URL": sim.base_url}

    async def run(*arguments: object) -> Result:
        # No signals in a thread, and there they are not what matters.
        runner = CliRunner(env=env)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("signal.signal", Mock())
            return await asyncio.to_thread(
                runner.invoke, program, ["status", *map(str, arguments)], catch_exceptions=False
            )

    return run


@pytest.fixture
async def start(sim: Simulator, tmp_path: Path) -> AsyncIterator[Start]:
    """Return a coroutine function that starts the program, which is killed at the latest here."""
    processes: list[Process] = []

    async def start(*arguments: str, **options: Any) -> Process:
        plain = {"TERM": "dumb", "KOKOON_TOKEN": CANARY_TOKEN, "KOKOON_BASE_URL": sim.base_url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kokoon_async", "status", *arguments),
            cwd=tmp_path,
            env=os.environ | plain,
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


def write_vids(path: Path, vids: list[str]) -> Path:
    """Write an input."""
    path.write_text("".join(f"{vid}\n" for vid in vids), "utf-8")
    return path


def make_job(**changes: Any) -> StatusJob:
    """Give a job with the defaults of the command line."""
    settings: dict[str, Any] = {
        "file": "-",
        "out": "-",
        "wait": False,
        "timeout": 9.0,
        "learn": None,
        "format": None,
        "shard_size": 10,
        "fresh": False,
        "retry_failed": False,
        "as_json": False,
    }
    return StatusJob(**settings | changes)


def make_progress(**changes: Any) -> JobProgress:
    """Tell of a job that is halfway."""
    settings: dict[str, Any] = {
        "done": 50,
        "skipped": 0,
        "failed": 0,
        "in_flight": 5,
        "total": 100,
        "rate": 10.0,
        "seconds": 5.0,
        "seconds_left": 5.0,
        "paused": None,
    }
    return JobProgress(**settings | changes)


# -- to the end ------------------------------------------------------------------------------------


async def test_rows_go_to_a_file(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """Each id gets its row, the summary counts them, and a second run asks for nothing."""
    given = write_vids(tmp_path / "vids", sim.add_images(30, "completed"))
    out = tmp_path / "out.jsonl"
    result = await run(given, "-o", out, "--shard-size", "10")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"30 ids in {out}: 30 image (30 completed); 30 requests in " in result.stderr
    check_contract(given, out)
    result = await run(given, "-o", out, "--shard-size", "10", "--json")
    assert result.exit_code == 0
    assert "3 of 3 shards were there before; 0 requests in " in result.stderr
    report = json.loads(result.stdout)
    assert (report["ids"], report["outcomes"], report["failed"]) == (30, {"image": 30}, 0)


async def test_retry_failed(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """If some failed, the exit code, the counts and the hint say so, and a retry mends them."""
    vids = sim.add_images(5, "completed")
    given = write_vids(tmp_path / "vids", [*vids, vids[0], NOBODY, "nonsense"])
    out = tmp_path / "out.csv"
    sim.fault(Status(400), vid=vids[2])
    result = await run(given, "-o", out, "--fresh")
    assert result.exit_code == 3
    assert "7 ids, 1 duplicates left out in " in result.stderr
    assert "3 of 7 ids failed (1 failed, 1 invalid, 1 not_found): see " in result.stderr
    assert "again for 1 of them: the same command with --retry-failed, without" in result.stderr
    result = await run(given, "-o", out, "--retry-failed")
    assert result.exit_code == 3
    assert "2 of 7 ids failed (1 invalid, 1 not_found)" in result.stderr
    assert "--retry-failed" not in result.stderr
    rows = check_contract(given, out)
    assert [row["outcome"] for row in rows] == ["image"] * 5 + ["not_found", "invalid"]


async def test_nothing_to_do(run: Run, tmp_path: Path) -> None:
    """An empty input is a job that is done."""
    given = write_vids(tmp_path / "vids", [])
    result = await run(given, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert "0 ids in " in result.stderr
    assert ": none; 0 requests" in result.stderr


# -- stopped ---------------------------------------------------------------------------------------


@pytest.mark.fault("F-115")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
async def test_signal_and_resume(
    start: Start, sim: Simulator, tmp_path: Path, name: str, code: int
) -> None:
    """A signal ends the job soon, says how to resume, and the same command finishes it."""
    vids = sim.add_images(400, "completed")
    given = write_vids(tmp_path / "vids", vids)
    command = ["vids", "-o", "out.jsonl", "--shard-size", "20"]
    process = await start(*command, "--rate", "150", "--fresh")
    async with asyncio.timeout(20):
        while sim.request_count() < 150:
            await asyncio.sleep(0.005)
    process.send_signal(getattr(signal, name))
    _, err = await process.communicate()
    assert process.returncode == code
    assert b"kokoon-async: stopped. " in err
    assert b"are kept: run the same command again to go on" in err
    assert err.endswith(b" Leave out --fresh then.\n")
    assert not (tmp_path / "out.jsonl").exists()
    process = await start(*command)
    _, err = await process.communicate()
    assert process.returncode == 0
    assert b"shards were there before" in err
    assert sim.request_count() < 700
    rows = check_contract(given, tmp_path / "out.jsonl")
    assert {row["outcome"] for row in rows} == {"image"}


class StopAtRandom:
    """
    Stop a job by a signal at a moment that a seed decides, and resume it.

    Args:
        sim: Serves the job.

        start: Starts the program.

        run: Runs it to its end.

        folder: For the files.
    """

    def __init__(self, sim: Simulator, start: Start, run: Run, folder: Path) -> None:
        self.sim = sim
        self.start = start
        self.run = run
        self.given = write_vids(folder / "vids", sim.add_images(300, "completed"))
        self.folder = folder

    async def try_one(self, number: signal.Signals, times: int, seed: int) -> None:
        """Stop it once, by one signal or by two."""
        if signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGINT:
            pytest.skip(
                f"{number.name} is ignored here, as under nohup, and the program leaves it so"
            )
        rng = random.Random(f"{number.name} {times} {seed}")
        out = self.folder / f"out-{seed}.jsonl"
        command = [str(self.given), "-o", str(out), "--shard-size", "20"]
        before = self.sim.request_count()
        process = await self.start(*command, "--rate", "500")
        moment = before + rng.randrange(1, 250)
        async with asyncio.timeout(20):
            while self.sim.request_count() < moment:
                await asyncio.sleep(0.001)
        process.send_signal(number)
        if times == 2:
            await asyncio.sleep(rng.uniform(0, 0.02))
            with contextlib.suppress(ProcessLookupError):  # the first was enough
                process.send_signal(number)
        _, err = await process.communicate()
        # The second one may come when there is nothing left to do but to vanish.
        assert process.returncode in (128 + number, -number if times == 2 else None)
        assert b"Traceback" not in err, err
        assert times == 2 or b"are kept: run the same command again to go on" in err
        assert not out.exists()
        for part in out.with_name(f"{out.name}.parts").glob("part-*"):
            assert f"{zlib.crc32(part.read_bytes()):08x}" in part.name
        assert (await self.run(*command)).exit_code == 0
        rows = check_contract(self.given, out)
        assert {row["outcome"] for row in rows} == {"image"}
        record_figure("signals to a job", times)


@pytest.fixture
def stop_at_random(sim: Simulator, start: Start, run: Run, tmp_path: Path) -> StopAtRandom:
    """Return what stops jobs."""
    return StopAtRandom(sim, start, run, tmp_path)


any_signal = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
both_times = pytest.mark.parametrize("times", [1, 2])


@pytest.mark.fault("F-115")
@any_signal
@both_times
@pytest.mark.unmeasured
async def test_a_signal_at_any_moment(
    stop_at_random: StopAtRandom, number: signal.Signals, times: int
) -> None:
    """G22: stopped by one signal or two, the job has whole parts, tells no traceback and goes on."""
    await stop_at_random.try_one(number, times, seed=0)


@heavy
@pytest.mark.timeout(600)
@any_signal
@both_times
async def test_a_signal_at_many_moments(
    stop_at_random: StopAtRandom, number: signal.Signals, times: int
) -> None:
    """The same as above at twenty moments."""
    for seed in range(1, 21):
        await stop_at_random.try_one(number, times, seed)


@pytest.mark.parametrize(
    ("notes", "job", "told"),
    [
        ([], make_job(out="x"), "stopped. Run the same command again to go on.\n"),
        (["5 are kept: the same call"], make_job(out="x"), "5 are kept: the same command\n"),
        ([], make_job(), "stopped after 50 ids. Standard output cannot be resumed; a "),
    ],
)
async def test_how_to_resume(
    notes: list[str],
    job: StatusJob,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a stopped job says depends on where its rows went, and on what it knows."""

    async def stopped(*_: object, on_progress: Any, **__: object) -> None:
        await on_progress(make_progress())
        stop = asyncio.CancelledError()
        for note in notes:
            stop.add_note(note)
        raise stop

    monkeypatch.setattr("kokoon_async.cli._status.fetch_statuses", stopped)
    with pytest.raises(asyncio.CancelledError):
        await run_status(Mock(), job, QuietView())
    assert told in capsys.readouterr().err


# -- standard output -------------------------------------------------------------------------------


async def test_rows_stream_to_a_pipe(start: Start, sim: Simulator, tmp_path: Path) -> None:
    """Ids from standard input become JSON lines on standard output, and no file."""
    vids = sim.add_images(20, "completed")
    process = await start("-o", "-")
    out, err = await process.communicate("\n".join([*vids, "nonsense"]).encode())
    assert process.returncode == 3
    assert {json.loads(line)["vid"] for line in out.splitlines()} == {*vids, "nonsense"}
    assert err.endswith(
        b"(1 invalid): see the columns outcome and error_message in standard output.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F-93")
async def test_reader_goes_away(start: Start, sim: Simulator, tmp_path: Path) -> None:
    """As in `| head`: the program ends quietly, and not with success."""
    write_vids(tmp_path / "vids", sim.add_images(300, "completed"))
    reading, writing = os.pipe()
    process = await start("vids", "-o", "-", "--rate", "200", stdout=writing)
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 10)  # the simulator runs in this loop
    os.close(reading)
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "-o", "x"], "There is no file missing to read ids from."),
        ([".", "-o", "x"], "The input . is a folder, not a file."),
        (["x" * 300, "-o", "x"], f"Cannot read the input {'x' * 300}: File name too long."),
        (["vids/x", "-o", "x"], "Cannot read the input vids/x: Not a directory."),
        (["vids"], "Missing option '-o'"),
        (["vids", "-o", ""], "-o is empty: name a file, a folder, or - for standard output."),
        (["vids", "-o", "-", "--fresh"], "Standard output cannot be resumed"),
        (["vids", "-o", "-", "--retry-failed"], "Standard output cannot be resumed"),
        (["vids", "-o", "-", "--shard-size", "1000"], "Standard output is not cut into shards"),
        (["vids", "-o", "-", "--json"], "The rows go to standard output already: --json"),
        (["vids", "-o", "x", "--timeout", "30m"], "Only waits take long: --timeout needs --wait"),
        (["vids", "-o", "x", "--retry-failed", "--fresh"], "choose one of them"),
        (["-", "-o", "x", "--token-file", "-"], "cannot be both the token and the ids"),
        (["vids", "-o", "-", "--format", "csv"], "Standard output takes JSON lines only"),
        (["vids", "-o", "x.csv", "--format", "jsonl"], "x.csv does not fit the format jsonl"),
        (["vids", "-o", "x", "--shard-size", "0"], "0 is not in the range"),
    ],
)
async def test_wrong_usage(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    """What cannot be done is told before anything is sent."""
    monkeypatch.chdir(tmp_path)
    write_vids(tmp_path / "vids", [])
    result = await run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["vids"]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (None, "Standard input is closed."),
        (SimpleNamespace(isatty=lambda: True), "Name a file"),
    ],
)
def test_no_input(stdin: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wonder why a program waits that reads from the keyboard."""
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(Exception, match=message):
        make_job().check(Mock(token_file=None))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("Cannot read the input x: Permission denied.", errno=13), 74),
        (JobError("The job cannot use x: No space left on device.", errno=28), 74),
        (JobError("Another process is working on x."), 1),
    ],
)
async def test_job_cannot_go_on(
    error: JobError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message and the hint are shown; trouble with files has an exit code of its own."""
    error.hint = "Run the same call again."

    async def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("kokoon_async.cli._status.fetch_statuses", failing)
    assert await run_status(Mock(), make_job(out="x"), QuietView()) == code
    told = capsys.readouterr().err
    assert told == f"kokoon-async: {error.message} Run the same command again.\n"


async def test_other_settings(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """A job that was started otherwise is not touched, and the options are named as they are."""
    given = write_vids(tmp_path / "vids", sim.add_images(2, "completed"))
    assert (await run(given, "-o", tmp_path / "out")).exit_code == 0
    result = await run(given, "-o", tmp_path / "out", "--shard-size", "5")
    assert result.exit_code == 1
    assert "started with --shard-size 1000, now 5." in result.stderr
    assert "Start afresh (--fresh), or" in result.stderr
    check_contract(given, tmp_path / "out")


async def test_no_place(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """An output that cannot be written to ends with the exit code for files."""
    if os.getuid() == 0:
        folder = Path("/proc/self")
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    given = write_vids(tmp_path / "vids", sim.add_images(1, "completed"))
    result = await run(given, "-o", folder / "out")
    assert result.exit_code == 74
    assert "The job cannot use " in result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "lower Limits.max_in_flight or set Limits.requests_per_second",
            "lower --concurrency or set --rate",
        ),
        ("Limits.requests_per_second must be 1", "--rate must be 1"),
        ("Limits.max_in_flight must be 1", "--concurrency must be 1"),
        ("Ask again, or raise Timeouts.total or Timeouts.read.", "Ask again, or raise --timeout."),
        ("Check the network, or raise Timeouts.connect.", "Check the network."),
        ("Check the network and base_url.", "Check the network and --base-url."),
        ("with shard_size 5. Another shard_size.", "with --shard-size 5. Another --shard-size."),
        *(
            (name, name)
            for name in ("shard_size.csv", "./shard_size", "shard_size/x", "x-base_url")
        ),
        *(
            (name, name)
            for name in ("my_shard_size", "shard_size-2", "x.shard_size", "shard_sizes")
        ),
    ],
)
def test_words_of_the_command_line(text: str, told: str) -> None:
    """Hints speak of options, not of Python; names of files stay as they are."""
    assert for_command_line(text) == told


async def test_names_of_files_stay_as_they_are(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """A message about a file that is named like an argument tells its real name."""
    given = write_vids(tmp_path / "vids", sim.add_images(1, "completed"))
    out = tmp_path / "shard_size.csv"
    out.write_text("mine")
    result = await run(given, "-o", out)
    assert result.exit_code == 1
    assert str(out) in result.stderr


async def test_a_job_offers_no_option_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No option of this command gives a single request more time, so none is named."""
    failing = Mock(
        side_effect=JobError("No answer.", "Ask again, or raise Timeouts.total or Timeouts.read.")
    )
    monkeypatch.setattr("kokoon_async.cli._status.fetch_statuses", failing)
    assert await run_status(Mock(), make_job(out="x"), QuietView()) == 1
    assert capsys.readouterr().err == "kokoon-async: No answer. Ask again.\n"


# -- what is seen meanwhile ------------------------------------------------------------------------


async def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line every few seconds, and when the job pauses."""
    with LinesView() as view:
        for second in range(1, 8):
            await view.show(make_progress(seconds=float(second)))
        await view.show(
            make_progress(seconds=7.5, paused="ServerError \x1b[1m", seconds_left=None, failed=3)
        )
        await view.show(make_progress(seconds=8.0, total=None, done=70, skipped=20, rate=0.25))
        await view.show(make_progress(seconds=20.0, total=100, done=100))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:2] == [
        "  3.0 s  50 of about 100 (50 %) ids, 10/s, 5.0 s left",
        "  6.0 s  50 of about 100 (50 %) ids, 10/s, 5.0 s left",
    ]
    assert lines[2].startswith("  7.5 s  50 of about 100 (50 %) ids, paused: ServerError ")
    assert lines[2].endswith(", 10/s, 3 failed")
    assert lines[3] == "  8.0 s  70 ids, 0.2/s, 20 from earlier runs, 5.0 s left"
    assert lines[4] == "   20 s  100 of 100 (100 %) ids, 10/s, 5.0 s left"
    assert "\x1b" not in err
    assert view.done == 100


async def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, a picture shows the figures, and is gone at the end."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, legacy_windows=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with BarView(console) as view:
        complain("above")
        await view.show(make_progress(failed=2))
        view._live.refresh()
    assert "Looking at what is there" in screen.getvalue()
    assert "above\n" in screen.getvalue()
    assert "50 of about 100 (50 %) ids" in screen.getvalue()
    assert "10/s, 2 failed, 5.0 s left" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")
    for change in ({"paused": "x" * 300}, {"total": None}, {}):
        await view.show(make_progress(**change))
        lines = console.render_lines(view.picture())
        assert len(lines) == 3


@pytest.mark.parametrize(
    ("is_stream", "terminals", "kind"),
    [
        (True, "stdout stderr", QuietView),
        (True, "stderr", LinesView),
        (False, "stderr", BarView),
        (False, "stdout", LinesView),
    ],
)
def test_view_fits_the_place(
    monkeypatch: pytest.MonkeyPatch, is_stream: bool, terminals: str, kind: type
) -> None:
    """Bars are for terminals only, and never between rows."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("stdout", "stderr"):
        stream = io.StringIO()
        stream.isatty = lambda name=name: name in terminals.split()  # type: ignore[method-assign]
        monkeypatch.setattr(f"sys.{name}", stream)
    assert type(make_view(is_stream=is_stream)) is kind


def test_view_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed standard error shows nothing and harms nothing."""
    monkeypatch.setattr("sys.stderr", None)
    assert type(make_view(is_stream=False)) is QuietView
