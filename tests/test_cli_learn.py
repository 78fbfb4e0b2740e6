"""The option `--learn`: what waits teach is kept in a file, whatever ends them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from kokoon_async import Learned
from kokoon_async.cli._commands import program
from kokoon_async.cli._learning import LearnedFile
from kokoon_async.cli._process import Signals
from kokoon_async.simulator import Simulator

from .canary import CANARY_TOKEN


Run = Callable[..., Awaitable[Result]]


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
        runner = CliRunner(env=env)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("signal.signal", Mock())  # none in a thread
            return await asyncio.to_thread(
                runner.invoke, program, [*map(str, arguments)], catch_exceptions=False
            )

    return run


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return a file with what was learned from one wait; the least pauses are worth it."""
    path = tmp_path / "learned.json"
    policy = Learned(price=1e-6)
    policy.record(0.2, 0.3)
    path.write_text(policy.to_json(), "utf-8")
    return path


def observed(path: Path) -> int:
    """Give how many waits a file has learned from; it must be whole."""
    return Learned.from_json(path.read_text("utf-8")).observed


# -- reading and writing ---------------------------------------------------------------------------


async def test_wait_makes_the_file(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """The file need not exist; it is made for this user's eyes only, also if nothing was learned."""
    path = tmp_path / "learned.json"
    result = await run("wait", sim.add_image("completed"), "--learn", path)
    assert result.exit_code == 0
    assert observed(path) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_wait_goes_on_with_the_file(run: Run, sim: Simulator, kept: Path) -> None:
    """What was known is used, settings included, and what comes is added; failures count too."""
    vids = sim.add_image("pending*1 completed"), sim.add_image("pending*1 error")
    result = await run("wait", *vids, "--timeout", "5", "--learn", kept)
    assert result.exit_code == 3
    assert "1 of 2 images completed" in result.stderr
    assert observed(kept) == 3
    assert Learned.from_json(kept.read_text()).price == 1e-6


async def test_status_learns_from_its_waits(
    run: Run, sim: Simulator, kept: Path, tmp_path: Path
) -> None:
    """A bulk job that waits reads and writes the file as well."""
    given = tmp_path / "vids"
    given.write_text("\n".join(sim.add_images(3, "pending*1 completed")))
    out = tmp_path / "out.jsonl"
    result = await run("status", given, "-o", out, "--wait", "--learn", kept)
    assert result.exit_code == 0
    assert "3 completed" in result.stderr
    assert observed(kept) == 4


async def test_nothing_learned_writes_nothing(run: Run, sim: Simulator, kept: Path) -> None:
    """A run that learned nothing leaves alone what another process may have written meanwhile."""
    before = kept.stat()
    result = await run("wait", sim.add_image("completed"), "--learn", kept)
    assert result.exit_code == 0
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_link_stays_a_link(run: Run, sim: Simulator, kept: Path, tmp_path: Path) -> None:
    """What a link leads to is replaced, and not the link."""
    link = tmp_path / "link"
    link.symlink_to(kept)
    result = await run("wait", sim.add_image("pending*1 completed"), "--learn", link)
    assert result.exit_code == 0
    assert link.is_symlink()
    assert observed(kept) == 2


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.fault("F-115")
@pytest.mark.parametrize(
    ("name", "code", "command"),
    [
        ("SIGINT", 130, ["wait", "-"]),
        ("SIGTERM", 143, ["status", "-", "-o", "out", "--wait"]),
    ],
)
async def test_signal_loses_nothing(
    sim: Simulator, kept: Path, name: str, code: int, command: list[str]
) -> None:
    """A wait that a signal stopped has taught that its image takes longer."""
    vid = sim.add_image("pending")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kokoon_async", *command, "--learn", kept.name),
        cwd=kept.parent,
        env=os.environ | {"KOKOON_TOKEN": CANARY_TOKEN, "KOKOON_BASE_URL": sim.base_url},
        # A shell may have let this run ignore it (E30).
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(vid.encode())
        process.stdin.close()
        async with asyncio.timeout(20):
            # The second look: by then the first has been taken in.
            while sim.request_count() < 2:
                await asyncio.sleep(0.005)
        process.send_signal(getattr(signal, name))
        await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code
    assert observed(kept) == 2


def test_exception_loses_nothing(kept: Path) -> None:
    """Whatever the work raises passes, and what was learned until then is written."""
    learned = LearnedFile.open(str(kept))

    async def work() -> int:
        learned.policy.record(1.0, 2.0)
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        learned.run(Signals(), work())
    assert observed(kept) == 2


def test_the_last_resort_loses_nothing(kept: Path) -> None:
    """While the work is under way, its signals know how to write down what was learned."""
    signals = Signals()
    learned = LearnedFile.open(str(kept))
    seen: list[int] = []

    async def work() -> int:
        learned.policy.record(1.0, 2.0)
        assert signals.last_deed is not None
        await asyncio.to_thread(signals.last_deed)
        seen.append(await asyncio.to_thread(observed, kept))
        return 0

    assert learned.run(signals, work()) == 0
    assert seen == [2]
    assert signals.last_deed is None


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not ask for it finds no file."""
    monkeypatch.chdir(tmp_path)
    learned = LearnedFile.open(None)

    async def work() -> int:
        learned.policy.record(1.0, 2.0)
        return 3

    assert learned.run(Signals(), work()) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "told"), [(0, 74), (3, 3)])
def test_full_disk_keeps_the_old_file(
    kept: Path,
    code: int,
    told: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If it cannot be written, the old file stays; the exit code says so if nothing else failed."""
    learned = LearnedFile.open(str(kept))
    before = kept.read_text()
    seen: list[object] = []

    def full(descriptor: int) -> None:
        seen.append(kept.read_text() == before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)

    async def work() -> int:
        learned.policy.record(1.0, 2.0)
        return code

    assert learned.run(Signals(), work()) == told
    assert seen == [True]
    told_text = capsys.readouterr().err
    assert told_text == (
        f"kokoon-async: cannot write what was learned to {kept}: No space left on device.\n"
    )
    assert kept.read_text() == before
    assert list(kept.parent.iterdir()) == [kept]


def test_nobody_sees_half_a_file(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the new file is complete the old one is in its place; the last writer wins."""
    first, last = LearnedFile.open(str(kept)), LearnedFile.open(str(kept))
    seen: list[int] = []
    monkeypatch.setattr("os.fsync", lambda _: seen.append(observed(kept)))

    async def work(learned: LearnedFile, waits: int) -> int:
        for _ in range(waits):
            learned.policy.record(1.0, 2.0)
        return 0

    assert first.run(Signals(), work(first, 5)) == 0
    assert observed(kept) == 6
    assert last.run(Signals(), work(last, 1)) == 0
    assert observed(kept) == 2
    assert seen == [1, 6]


# -- what cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["wait", "-"], ["status", "-", "-o", "out", "--wait"]])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        Learned().to_json().encode()[:-1],
        Learned().to_json().replace('"version": 1', '"version": 2').encode(),
        Learned().to_json().encode() + b" " * (1 << 20) + b"x",
    ],
    ids=["empty", "foreign", "binary", "deep", "cut", "newer", "long"],
)
async def test_foreign_file_is_left_alone(
    run: Run, sim: Simulator, tmp_path: Path, command: list[str], content: bytes
) -> None:
    """A file that something else wrote is an error before anything is sent, and not touched."""
    path = tmp_path / "file"
    path.write_bytes(content)
    result = await run(*command, "--learn", path)
    assert result.exit_code == 2
    assert f"Invalid value for --learn: {path} is not what" in result.stderr
    assert sim.request_count() == 0
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/learned.json", "cannot use no/learned.json: No such file or directory."),
        ("learned.json/x", "cannot use learned.json/x: Not a directory."),
        ("/proc/self/learned.json", "cannot use /proc/self/learned.json: No such file or "),
        (".", ". is not what"),
        ("", "- is not what"),
        ("/dev/null", "/dev/null is not what"),
        ("x" * 300, "File name too long."),
    ],
)
async def test_unusable_place(run: Run, sim: Simulator, kept: Path, name: str, words: str) -> None:
    """A place where no file can be written is an error before anything is sent."""
    with contextlib.chdir(kept.parent):
        result = await run("wait", sim.add_image("pending"), "--learn", name)
    assert result.exit_code == 2
    assert "Invalid value for --learn: " in result.stderr
    assert words in result.stderr
    assert sim.request_count() == 0
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out", "--learn", "file"], "--learn needs --wait."),
        (["-o", "out.csv", "--wait", "--learn", "./out.csv"], "--learn and -o name the same file."),
        (["-o", "-", "--wait", "--learn", "no/file"], "cannot use no/file: No such file"),
    ],
)
async def test_wrong_usage_of_status(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """A job that could learn nothing, or would write over its own rows, does not begin."""
    (tmp_path / "vids").write_text("")
    with contextlib.chdir(tmp_path):
        result = await run("status", "vids", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["vids"]
