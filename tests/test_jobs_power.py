"""Power that fails after any operation of a job on its disk: see `power_failure.py`."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from kokoon_async.jobs import _disk, _job, fetch_statuses
from kokoon_async.jobs._folder import JobFolder

from .bulk_api import FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract
from .crash_job import WHAT_VARIES
from .figures import record_figure
from .memory_network import Network, run
from .power_failure import Disk, Operation, Recorder, Tree


pytestmark = [
    pytest.mark.may_block("no threads in a deterministic run"),
    pytest.mark.skipif(os.name == "nt", reason="Windows cannot sync a folder"),
    pytest.mark.unmeasured,
]

SHARD_SIZE = 2
VIDS = make_vids(5 * SHARD_SIZE)
FAILING = {VIDS[1], VIDS[4], VIDS[5], VIDS[9]}
MOST_REFETCHED = 2 * SHARD_SIZE


@attrs.frozen
class Scenario:
    """
    Say which run loses power.

    Attributes:
        out: The name of the output.

        before: What an earlier run has left: "nothing", "failures" or "a damaged part".

        options: Of the call.
    """

    out: str
    before: str = "nothing"
    options: dict[str, Any] = attrs.field(factory=dict)


SCENARIOS = {
    "file": Scenario("out.jsonl"),
    "folder": Scenario("out"),
    "retry": Scenario("out", "failures", {"retry_failed": True}),
    "retry-file": Scenario("out.jsonl", "failures", {"retry_failed": True}),
    "damaged": Scenario("out", "a damaged part"),
}


@pytest.fixture(autouse=True)
def two_shards_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small job be like a large one; and a sync be a call of `os`, on macOS too."""
    monkeypatch.setattr(_job, "_FETCH_WINDOW", SHARD_SIZE)
    monkeypatch.delattr(_disk._fcntl, "F_FULLFSYNC", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory if there is one: what a disk may lose is made up."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else tmp_path
    with tempfile.TemporaryDirectory(dir=shared, prefix="kokoon-test-") as path:
        yield Path(path)


def run_job(
    out: Path, *, recorder: Recorder | None = None, failing: Any = (), **options: Any
) -> list[str]:
    """Run the job to its end, and give the ids that were asked for."""
    asked = []

    def ask(vid: str) -> Any:
        asked.append(vid)
        if recorder is not None:
            recorder.note("asked", {vid})
        return answer(422, {"message": "no"}) if vid in failing else record(vid)

    async def work() -> None:
        async with client_of(FakeApi(default=ask)) as client:
            await fetch_statuses(client, VIDS, out, shard_size=SHARD_SIZE, **options)

    run(Network(random.Random(0)), work(), pytest.fail)
    return asked


def recorded(out: Path, **options: Any) -> Recorder:
    """Run the job, and keep what it did, and when it held a shard for finished."""
    recorder = Recorder()

    def telling(method: Any) -> Any:
        def told(job_folder: JobFolder, shard: Any, *args: Any) -> Any:
            result = method(job_folder, shard, *args)
            recorder.note("kept", {entry.vid for entry in shard.entries})
            return result

        return told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_disk, "os", recorder)
        for name in ("write", "replace"):
            patch.setattr(JobFolder, name, telling(getattr(JobFolder, name)))
        run_job(out, recorder=recorder, **options)
    recorder.note("kept", set(VIDS))
    return recorder


def rows_that_stay(out: Path) -> list[dict[str, Any]]:
    """Check the contract, and give the rows without what differs from run to run."""
    rows = check_contract(VIDS, out)
    assert {row["outcome"] for row in rows} == {"image"}, "an id is lost"
    return [{key: row[key] for key in row.keys() - WHAT_VARIES} for row in rows]


class PowerFailures:
    """
    Let power fail in one scenario, everywhere.

    Args:
        scenario: Which run.

        folder: For its files.

    Attributes:
        tried: How many different disks a job was resumed on.

        refetched: How many ids were asked for again, on all of them.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.tried = 0
        self.refetched = 0
        self.folder = folder / "after"
        self.spoiled = b""
        first = folder / "first"
        first.mkdir()
        out = first / scenario.out
        if scenario.before != "nothing":
            run_job(out, failing=FAILING if scenario.before == "failures" else ())
        if scenario.before == "a damaged part":
            part = sorted(out.glob("part-*"))[2]
            self.spoiled = part.read_bytes()[:-5]
            part.write_bytes(self.spoiled)
        self.before = Tree.read(first)
        self.operations = recorded(out, **scenario.options).operations
        self.undisturbed = rows_that_stay(out)

    def try_all(self) -> Iterator[str]:
        """Resume the job on every disk that there may be, and say what is wrong."""
        seen = set()
        for count in range(len(self.operations) + 1):
            asked: set[str] = set()
            kept: set[str] = set()
            for operation in self.operations[:count]:
                asked |= operation.data if operation.kind == "asked" else set()
                kept |= operation.data if operation.kind == "kept" else set()
            for tree in Disk.at(self.before, self.operations[:count]).after_failure():
                if (state := (tree, frozenset(asked), frozenset(kept))) in seen:
                    continue
                seen.add(state)
                self.tried += 1
                try:
                    self.resume(tree, asked, kept)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                    last = self.operations[count - 1]
                    yield f"after {count}, {last.kind} {last.path.name}: {error!r:.300}"

    def resume(self, tree: Tree, asked: set[str], kept: set[str]) -> None:
        """Run the job again on what is left, and check what comes of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        tree.write_to(self.folder)
        out = self.folder / self.scenario.out
        for part in self.folder.rglob("part-*"):
            content = part.read_bytes()
            assert f"{zlib.crc32(content):08x}" in part.name or content == self.spoiled, part.name
        if out.is_file():
            check_contract(VIDS, out)
        again = asked.intersection(run_job(out, **self.scenario.options))
        assert not again & kept, "what was kept is asked for again"
        assert len(again) <= MOST_REFETCHED, f"{len(again)} ids are asked for again"
        self.refetched += len(again)
        assert rows_that_stay(out) == self.undisturbed, "the result differs"
        job_folder = out if out.is_dir() else out.with_name(f"{out.name}.parts")
        names = {path.name[:5] for path in job_folder.iterdir()}
        names -= {"_part"} if self.spoiled else set()
        assert names <= {"part-", "_job.", "_SUCC", "_lock"}, names
        assert run_job(out) == [], "the job was not finished"


@pytest.mark.fault("F-91")
@pytest.mark.parametrize("name", SCENARIOS)
def test_power_fails_after_any_operation(folder, name):
    """G4: whatever of the names and bytes that were not synced is lost, the job goes on rightly."""
    failures = PowerFailures(SCENARIOS[name], folder)
    assert list(failures.try_all()) == []
    assert failures.tried >= 15
    assert failures.refetched > 0
    record_figure("power failures", failures.tried)
    record_figure("ids fetched again after power failures", failures.refetched)


# -- the model itself ------------------------------------------------------------------


def syncs_come_late(operations: list[Operation], out: Path) -> list[Operation]:
    """Sync each file only when it has its final name."""
    changed = list(operations)
    for place, operation in enumerate(operations):
        if operation.kind == "replace" and changed[place - 1].kind == "sync":
            changed[place - 1], changed[place] = operation, changed[place - 1]
    return changed


def the_file_comes_late(operations: list[Operation], out: Path) -> list[Operation]:
    """Put the joined file in its place only when its parts are gone."""
    place = next(n for n, each in enumerate(operations) if each.data == out)
    put, folder_sync = operations[place : place + 2]
    assert folder_sync.kind == "sync folder"
    return [*operations[:place], *operations[place + 2 : -1], put, folder_sync, operations[-1]]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("file", "_sync_file"),
        ("folder", "_sync_file"),
        ("retry", "_sync_file"),
        ("file", "sync_folder"),
        ("folder", "sync_folder"),
        ("retry-file", "sync_folder"),
    ],
)
def test_a_sync_that_is_missing_is_found(folder, monkeypatch, name, function):
    """Jobs that sync no file, or no folder, do not stand the power failures."""
    monkeypatch.setattr(_disk, function, lambda _: None)
    assert next(PowerFailures(SCENARIOS[name], folder).try_all(), "") != ""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("file", syncs_come_late),
        ("folder", syncs_come_late),
        ("retry", syncs_come_late),
        ("file", the_file_comes_late),
        ("retry-file", the_file_comes_late),
    ],
)
def test_a_wrong_order_is_found(folder, name, change):
    """Jobs that do the right things in a wrong order do not stand the power failures."""
    failures = PowerFailures(SCENARIOS[name], folder)
    changed = change(failures.operations, folder / "first" / failures.scenario.out)
    assert sorted(changed, key=id) == sorted(failures.operations, key=id)
    failures.operations = changed
    assert next(failures.try_all(), "") != ""
