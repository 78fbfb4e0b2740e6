"""Killed jobs and broken disks, in children: see `crash_job.py`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .bulk_api import heavy
from .figures import record_figure


pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.unmeasured,
]

ROOT = Path(__file__).parent.parent
# Behind what is installed: the package under test need not be the one in the working tree.
PROGRAM = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("tests.crash_job", run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder in memory if there is one: a kill does not need a disk."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kokoon-test-") as path:
        yield Path(path)


def crash(*args):
    """Run the program, and give what it found."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert done.returncode == 0
    return found


# What every job does to the disk; not all of them remove a file.
ALWAYS = {"mkdir", "open", "write", "fsync", "replace", "open folder", "fsync folder"}


def try_points(scenario, fault, step, folder):
    """Let operations go wrong; some of those that were tried must have cost a request."""
    found = crash("sweep", scenario, fault, step, folder)
    assert set(found["points"]) >= ALWAYS
    points = sum(found["points"].values())
    assert points >= 50 // step
    assert 0 < found["refetched"] <= 8 * points
    what = "kill points" if fault in ("kill", "tear") else "disk errors"
    record_figure(what, points)
    record_figure(f"ids fetched again after {what}", found["refetched"])


@pytest.mark.fault("F-90")
@pytest.mark.parametrize(
    ("scenario", "fault", "step"),
    [("file", "kill", 1), ("folder", "tear", 3), ("retry", "kill", 3), ("retry-file", "kill", 3)],
)
def test_killed_at_a_change_of_a_file(folder, scenario, fault, step):
    """Killed at any write, sync, rename or removal, a job resumed has the same result."""
    try_points(scenario, fault, step, folder)


@pytest.mark.fault("F-84")
@pytest.mark.fault("F-88")
@pytest.mark.fault("F-92")
@pytest.mark.parametrize(
    ("scenario", "fault", "step"), [("file", "ENOSPC", 4), ("retry-file", "EIO", 4)]
)
def test_the_disk_fails_at_a_change_of_a_file(folder, scenario, fault, step):
    """A disk that is full or broken ends the job with an error that names a path, and no more."""
    try_points(scenario, fault, step, folder)


def kill_often(count, folder):
    """Kill a job at random, and resume it."""
    found = crash("kills", count, folder)
    assert found["kills"] == count
    record_figure("random kills", found["kills"])
    record_figure("ids fetched again after random kills", found["refetched"])


@pytest.mark.fault("F-90")
def test_killed_at_random(folder):
    """G3: a larger job, killed fifty times, fetches only what was in flight again."""
    kill_often(50, folder)


@heavy
@pytest.mark.timeout(3600)
@pytest.mark.fault("F-90")
@pytest.mark.parametrize("fault", ["kill", "tear", "ENOSPC", "EIO"])
@pytest.mark.parametrize("scenario", ["file", "folder", "retry", "retry-file"])
def test_every_change_of_a_file(folder, scenario, fault):
    """The same as above, at every single point."""
    try_points(scenario, fault, 1, folder)


@heavy
@pytest.mark.timeout(600)
@pytest.mark.fault("F-90")
def test_killed_at_random_often(folder):
    """The same as above, two hundred times."""
    kill_often(200, folder)


@heavy
@pytest.mark.timeout(3600)
@pytest.mark.fault("F-90")
@pytest.mark.parametrize(
    ("call", "least"),
    [("mkdir", 1), ("write", 8), ("pwrite64", 1), ("fsync", 10), ("rename", 5), ("unlink", 4)],
)
def test_killed_at_every_system_call(folder, call, least):
    """
    Not only at our own changes: the kernel kills at each call that changes a file (E29).

    strace counts for each thread by itself: who gets to a number first is killed there.
    """
    strace = shutil.which("strace")
    probe = [str(strace), "-f", "-o", "/dev/null", "true"]
    if strace is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("needs strace and the right to use it")
    for number in range(1, 10_000):
        shutil.rmtree(folder)
        folder.mkdir()
        inject = f"inject={call}:signal=KILL:when={number}"
        once = [sys.executable, "-c", PROGRAM, str(ROOT), "once", str(folder)]
        traced = [strace, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *once]
        ended = subprocess.run(traced, check=False, capture_output=True).returncode
        crash("once", folder)
        if not ended:
            break
        assert ended == -signal.SIGKILL
    assert number > least  # of about twice as many, which two threads share
    record_figure("kills by the kernel", number - 1)
