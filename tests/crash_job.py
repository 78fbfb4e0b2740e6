"""
Kill bulk jobs, in children of this program, and resume them.

``python -m tests.crash_job sweep SCENARIO FAULT STEP FOLDER`` runs a small job again and again, and
each time lets one operation on the disk go wrong: the first one of a kind (such as ``fsync`` of a
folder), then the one STEP later, and so on. The process is killed there (``kill``), killed half-way
through a write (``tear``), or the disk says ``ENOSPC`` or ``EIO``; that must end the run with an
error, unless the operation is in `HARMLESS`. Each run is resumed, and must then have the result of an
undisturbed one.

``python -m tests.crash_job kills COUNT FOLDER`` kills a larger job, which asks a simulator, at random.

``python -m tests.crash_job once FOLDER`` runs the small job, or resumes it, and checks it.

All print what they found as JSON, and end with 1 if anything was wrong. Everything is forked from
this one process, so that a run costs milliseconds and not the import of the package.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import stat
import sys
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kokoon_async import JobError, KokoonClient, Limits
from kokoon_async.jobs import _disk, _job, fetch_statuses
from kokoon_async.simulator import Simulator

from .bulk_api import FakeApi, answer, client_of, make_vids
from .bulk_contract import check_contract


VIDS = make_vids(32)
SHARD_SIZE = 4
MOST_REFETCHED = 2 * SHARD_SIZE
FAILING = VIDS[::7]
WHAT_VARIES = {"fetched_at", "attempts"}

OPERATIONS = (
    *("mkdir", "open", "write", "fsync", "replace", "unlink"),
    *("open folder", "fsync folder"),
)
HARMLESS: dict[str, str] = {}
"""Which operations may fail without ending the run, and why: none."""

KILLED_SHARD_SIZE = 20  # of the larger job, which has so many ids for each kill:
KILLED_IDS = 80

# How often each id was asked for, in memory that outlives a killed child.
COUNTS = mmap.mmap(-1, len(VIDS))


class Faulty:
    """
    Stand for the module `os`, and let the n-th operation go wrong.

    Args:
        number: Which one, from 1.

        fault: What happens there.

        kind: One of `OPERATIONS`, if only those count.

    Attributes:
        left: How many more will do no harm, and the one that does; 0 or less after that.
    """

    def __init__(self, number: int, fault: str, kind: str = "") -> None:
        self.left = number
        self.fault = fault
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in OPERATIONS:
            return real

        def faulty(*args: Any, **options: Any) -> Any:
            if self.kind in ("", kind_of(name, args)):
                self.left -= 1
                if self.left == 0:
                    self.strike(name, args)
            return real(*args, **options)

        return faulty

    def strike(self, name: str, args: tuple[Any, ...]) -> None:
        """Do what was asked for instead of the operation."""
        if self.fault in ("kill", "tear"):
            if self.fault == "tear" and name == "write":
                os.write(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        code = errno.ENOSPC if self.fault == "ENOSPC" else errno.EIO
        raise OSError(code, os.strerror(code))


def kind_of(name: str, args: tuple[Any, ...]) -> str:
    """Give the kind of an operation: to open or sync a folder is another thing than a file."""
    on_folder = (name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)) or (
        name == "open" and Path(args[0]).is_dir()
    )
    return f"{name} folder" if on_folder else name


def in_child(work: Callable[[], object]) -> int:
    """Do *work* in a child; give 0, 1 if it raised, or what signal ended it as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


def fork(work: Callable[[], object]) -> int:
    """Begin *work* in a child, and give its number."""
    child = os.fork()
    if child:
        return child
    # What coverage sees here is lost at the end, and takes as long as the work itself.
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child must end here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


async def run(out: Path, *, failing: bool = False, **options: Any) -> Any:
    """Run the small job once, and count its requests by id."""

    def ask(vid: str) -> Any:
        number = VIDS.index(vid)
        COUNTS[number] += 1
        if failing and vid in FAILING:
            return answer(422, {"message": "no"})
        return FakeApi().default(vid)

    # Two shards in flight, as in a large job.
    _job._FETCH_WINDOW = SHARD_SIZE
    async with client_of(FakeApi(default=ask)) as client:
        return await fetch_statuses(client, VIDS, out, shard_size=SHARD_SIZE, **options)


SCENARIOS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    # The output, whether an earlier run has left failures, and the call.
    "file": ("out.jsonl", False, {}),
    "folder": ("out", False, {}),
    "retry": ("out", True, {"retry_failed": True}),
    "retry-file": ("out.jsonl", True, {"retry_failed": True}),
}


class Sweep:
    """
    Let every change of a job's files go wrong, one at a time.

    Args:
        scenario: One of `SCENARIOS`.

        fault: What goes wrong.

        folder: For the output of all runs.
    """

    def __init__(self, scenario: str, fault: str, folder: Path) -> None:
        self.name, self.is_prepared, self.options = SCENARIOS[scenario]
        self.fault = fault
        self.folder = folder
        self.refetched = 0
        self.points: Counter[str] = Counter()
        self.undisturbed: list[dict[str, Any]] = []

    def note_undisturbed(self) -> None:
        """Run the job undisturbed, and keep its rows."""
        out = self.prepare()
        assert in_child(lambda: asyncio.run(run(out, **self.options))) == 0
        self.undisturbed = rows_that_stay(out)

    def prepare(self) -> Path:
        """Make what was there before, and give the path of the output."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self.is_prepared:
            asyncio.run(run(self.folder / self.name, failing=True))
        COUNTS[:] = bytes(len(VIDS))
        return self.folder / self.name

    def disturbed(self, out: Path, operation: str, number: int) -> None:
        """Run the job with one operation going wrong; an error must name a path."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _disk.os = Faulty(number, self.fault, operation)  # type: ignore[assignment]
        try:
            asyncio.run(run(out, **self.options))
        except JobError as error:
            os._exit(3 if str(self.folder) in f"{error.path} {error.message}" else 5)
        os._exit(0 if _disk.os.left > 0 else 4)  # type: ignore[attr-defined]

    def resumed(self, out: Path) -> None:
        """Run the job again, and check what comes of it."""
        asyncio.run(run(out, **self.options))
        assert rows_that_stay(out) == self.undisturbed, "the result differs"
        folder = out if out.is_dir() else out.with_name(f"{out.name}.parts")
        names = {path.name[:5] for path in folder.iterdir()}
        assert names <= {"part-", "_job.", "_SUCC", "_lock"}, names
        parts = len(list(folder.glob("part-*")))
        assert parts == (len(VIDS) // SHARD_SIZE if out.is_dir() else 0), parts
        again = asyncio.run(run(out, **self.options))
        assert again.requests == 0, "the job was not finished"

    def try_point(self, operation: str, number: int) -> bool:
        """Disturb, look, resume, check; ``False`` when there is no such operation any more."""
        out = self.prepare()
        ended = in_child(lambda: self.disturbed(out, operation, number))
        if ended == 0:
            return False
        self.points[operation] += 1
        # Whatever has a final name is whole: a joined file is all there, or as it was.
        if out.is_file():
            check_contract(VIDS, out)
        is_allowed = ended == (-signal.SIGKILL if self.fault in ("kill", "tear") else 3)
        assert is_allowed or (ended == 4 and operation in HARMLESS), f"it ended with {ended}"
        assert in_child(lambda: self.resumed(out)) == 0, "the resumed run is wrong"
        again = sum(count > 1 for count in COUNTS[:])
        assert again <= MOST_REFETCHED, f"{again} ids were fetched again"
        self.refetched += again
        return True


def rows_that_stay(out: Path) -> list[dict[str, Any]]:
    """Check the contract, and give the rows without what differs from run to run."""
    rows = check_contract(VIDS, out)
    assert {row["outcome"] for row in rows} == {"image"}, "an id is lost"
    return [{key: row[key] for key in row.keys() - WHAT_VARIES} for row in rows]


def sweep(scenario: str, fault: str, step: int, folder: Path) -> dict[str, Any]:
    """Try every *step*-th operation of each kind until there are no more."""
    runs = Sweep(scenario, fault, folder)
    runs.note_undisturbed()
    wrong = []
    for operation in OPERATIONS:
        for number in itertools.count(1, step):
            try:
                if not runs.try_point(operation, number):
                    break
            except AssertionError as error:
                wrong.append(f"{scenario}, {fault} at {operation} {number}: {error}")
    return {"points": runs.points, "refetched": runs.refetched, "wrong": wrong}


# -- random kills ----------------------------------------------------------------------


def serve(pipe: int) -> None:
    """Run a simulator that knows every id, until killed."""

    async def forever() -> None:
        async with Simulator(images_on_demand=True) as simulator:
            os.write(pipe, simulator.base_url.encode())
            await asyncio.Event().wait()

    asyncio.run(forever())


async def run_against(base_url: str, vids: Path, out: Path, limits: Limits) -> None:
    """Run the larger job once."""
    _job._FETCH_WINDOW = KILLED_SHARD_SIZE
    async with KokoonClient("any", base_url=base_url, limits=limits) as client:
        await fetch_statuses(client, vids, out, shard_size=KILLED_SHARD_SIZE)


def count_requests(base_url: str) -> int:
    """Ask the simulator how many requests it has had."""
    address = base_url.partition("/kokoon")[0] + "/__stats__"
    with urllib.request.urlopen(address, timeout=10) as response:
        return int(json.load(response)["requests"])


def kill_at_random(count: int, base_url: str, run: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a job in children and kill them; give how many did not end before that."""
    rng = random.Random(7)
    killed = 0
    for _ in range(count):
        before = count_requests(base_url)
        child = fork(lambda: asyncio.run(run()))
        # Some while they begin; most when they are at work, however busy the machine is.
        while rng.random() < 0.9 and count_requests(base_url) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return killed


def kills(count: int, folder: Path) -> dict[str, Any]:
    """Kill a job *count* times, each time after a random while, and let it end."""
    vids = make_vids(KILLED_IDS * count)
    path, out = folder / "vids.txt", folder / "out.jsonl"
    path.write_text("\n".join(vids))
    reading, writing = os.pipe()
    server = os.fork()
    if not server:
        serve(writing)
    wrong = []
    try:
        base_url = os.read(reading, 1000).decode()
        # So slow that it is not done before the last kill.
        slow = Limits(requests_per_second=500)
        killed = kill_at_random(count, base_url, lambda: run_against(base_url, path, out, slow))
        ended = in_child(lambda: asyncio.run(run_against(base_url, path, out, Limits())))
        if ended:
            wrong.append(f"the last run ended with {ended}")
        again = count_requests(base_url) - len(vids)
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    try:
        check_contract(path, out)
    except AssertionError as error:
        wrong.append(f"the contract is broken: {error}")
    if not 0 < again <= 2 * KILLED_SHARD_SIZE * killed:
        wrong.append(f"{again} ids were fetched again")
    return {"kills": killed, "refetched": again, "wrong": wrong}


def main(mode: str, *args: str) -> int:
    """Do what the command line says."""
    vars(_disk._fcntl).pop("F_FULLFSYNC", None)  # on macOS, a sync shall be a call of `os` too
    if mode == "once":
        out = Path(args[0], "out.jsonl")
        asyncio.run(run(out))
        result: dict[str, Any] = {"rows": len(rows_that_stay(out)), "wrong": []}
    elif mode == "sweep":
        scenario, fault, step, folder = args
        result = sweep(scenario, fault, int(step), Path(folder, "runs"))
    else:
        result = kills(int(args[0]), Path(args[1]))
    sys.stdout.write(json.dumps(result))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
