"""The seams below a job: threads, locks and syncs, also those of other platforms."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import types
import zlib
from pathlib import Path

import pytest

from kokoon_async import JobError
from kokoon_async.jobs import _disk
from kokoon_async.jobs._layout import is_leftover
from kokoon_async.jobs._threads import Servant, in_thread


# -- threads ---------------------------------------------------------------------------


async def test_a_cancellation_waits_for_the_thread():
    """Work in a thread is over when `in_thread` is, however often that is cancelled."""
    done = threading.Event()

    def work():
        time.sleep(0.05)
        done.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_an_error_behind_a_cancellation_is_dropped():
    """What the thread raises after a cancellation is not logged as never retrieved."""

    def work():
        time.sleep(0.02)
        raise ValueError

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_never_began_is_no_trouble(monkeypatch):
    """If the loop drops the work itself, its cancellation is passed on."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    monkeypatch.setattr(loop, "run_in_executor", lambda *args: future)
    task = asyncio.create_task(in_thread(print))
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_servant_works_in_order():
    """Errors of the system come back, and the last thing is done last."""
    seen = []
    servant = Servant("test", lambda: seen.append("end"))
    await servant.do(seen.append, 1)
    with pytest.raises(FileNotFoundError):
        await servant.do(os.stat, "/does/not/exist")
    servant.dismiss()
    while "end" not in seen:
        await asyncio.sleep(0.001)
    assert seen == [1, "end"]


# -- files -----------------------------------------------------------------------------


def write(folder, content=b"content", name="final"):
    """Write a file."""
    return _disk.write_file(folder, lambda file: file.write(content), folder / name)


def test_a_file_is_whole_or_not_there(tmp_path):
    """A file that cannot be filled leaves nothing behind."""

    def fill(file):
        file.write(b"half")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        _disk.write_file(tmp_path, fill, tmp_path / "final")
    assert list(tmp_path.iterdir()) == []
    assert write(tmp_path) == _disk.WrittenFile(7, f"{zlib.crc32(b'content'):08x}")
    assert (tmp_path / "final").read_bytes() == b"content"


@pytest.mark.fault("F-89")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_files_have_the_rights_that_the_user_set(tmp_path, umask):
    """A file of a job, which holds no secret, is open to others only as far as the umask says."""
    before = os.umask(umask)
    try:
        _disk.write_file(tmp_path, lambda target: target.write(b"row"), tmp_path / "part")
    finally:
        os.umask(before)
    assert (tmp_path / "part").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.fault("F-89")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
def test_the_lock_can_be_run_by_nobody(tmp_path):
    """The file that is locked has the rights of any other file."""
    before = os.umask(0o022)
    try:
        os.close(_disk.lock_file(tmp_path / "lock"))
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644


def test_what_is_unfinished_is_known_by_its_name(tmp_path):
    """If the process is killed while it writes, the next run knows what it may remove."""

    def fill(file):
        names.extend(path.name for path in tmp_path.iterdir())

    names = []
    _disk.write_file(tmp_path, fill, tmp_path / "final")
    assert [is_leftover(name) for name in names] == [True]


def test_a_disk_that_takes_a_part(tmp_path, monkeypatch):
    """A short write is gone on with."""
    real = os.write
    monkeypatch.setattr(_disk.os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    assert write(tmp_path).size == 7
    assert (tmp_path / "final").read_bytes() == b"content"


def test_nothing_to_remove(tmp_path):
    """To remove nothing, or what is gone, is no error."""
    _disk.remove()
    _disk.remove(tmp_path / "gone")


def test_a_folder_may_be_there(tmp_path):
    """A folder that is there already is fine, a file in its place is not."""
    _disk.make_folder(tmp_path / "new")
    _disk.make_folder(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        _disk.make_folder(tmp_path / "file")


def test_what_an_error_says():
    """A full disk gets a hint, an error without words its class."""
    full = _disk.disk_error(Path("x"), "Cannot write", OSError(errno.ENOSPC, "No space left"))
    assert isinstance(full, JobError)
    assert str(full) == (
        "Cannot write x: No space left."
        " Free some space and run the same call again: what is finished is kept."
    )
    assert str(_disk.disk_error(Path("x"), "Cannot write", OSError())) == "Cannot write x: OSError."


# -- other platforms -------------------------------------------------------------------


def test_a_module_that_is_not_there():
    """A platform may lack a module."""
    assert _disk.optional_module("no_such_module") is None


def test_folders_that_cannot_be_synced(tmp_path, monkeypatch):
    """On Windows, and on some network disks, a folder is not synced; real errors are told."""
    opened = []
    monkeypatch.setattr(_disk, "_folders_can_sync", False)
    with monkeypatch.context() as patch:
        patch.setattr(_disk.os, "open", lambda *args: opened.append(args))
        _disk.sync_folder(tmp_path)
    assert opened == []
    monkeypatch.setattr(_disk, "_folders_can_sync", True)
    for code, is_told in ((errno.EINVAL, False), (errno.EIO, True)):

        def fail(descriptor, code=code):
            raise OSError(code, "no")

        with monkeypatch.context() as patch:
            patch.setattr(_disk.os, "fsync", fail)
            if is_told:
                with pytest.raises(OSError, match="no"):
                    _disk.sync_folder(tmp_path)
            else:
                _disk.sync_folder(tmp_path)


def test_macos_is_asked_for_more_than_fsync(tmp_path, monkeypatch):
    """Where there is F_FULLFSYNC, it is used, since fsync leaves data in the drive's cache."""
    asked = []
    fake = types.SimpleNamespace(F_FULLFSYNC=51, fcntl=lambda fd, what: asked.append(what))
    monkeypatch.setattr(_disk, "_fcntl", fake)
    write(tmp_path)
    assert asked == [51]


def test_disks_without_f_fullfsync(tmp_path, monkeypatch):
    """A network disk on macOS that refuses it gets an fsync, and what that says counts."""

    def refuse(descriptor, what):
        asked.append("fcntl")
        raise OSError(errno.ENOTSUP, "Operation not supported")

    def fsync(descriptor):
        asked.append("fsync")
        if is_broken:
            raise OSError(errno.EIO, "Input/output error")

    asked, is_broken = [], False
    fake = types.SimpleNamespace(F_FULLFSYNC=51, fcntl=refuse)
    monkeypatch.setattr(_disk, "_fcntl", fake)
    monkeypatch.setattr(_disk.os, "fsync", fsync)
    write(tmp_path)
    assert asked == ["fcntl", "fsync", "fsync"]  # the last one is the folder's
    is_broken = True
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path, name="other")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    """Files can be made in a folder that may be entered and changed but not be read."""
    real = os.open

    def refuse(path, flags, *mode):
        if Path(path).is_dir():
            opened.append(path)
            raise OSError(code, "no")
        return real(path, flags, *mode)

    opened, code = [], errno.EACCES
    monkeypatch.setattr(_disk.os, "open", refuse)
    write(tmp_path)
    assert opened == [tmp_path]
    code = errno.EMFILE
    with pytest.raises(OSError, match="no"):
        write(tmp_path)


def test_windows_has_another_lock(tmp_path, monkeypatch):
    """Without flock, a byte of the file is locked; without any lock there is none."""
    held = []

    def locking(descriptor, mode, size):
        if held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.append((mode, size))

    fake = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setattr(_disk, "_fcntl", None)
    monkeypatch.setattr(_disk, "_msvcrt", fake)
    first = _disk.lock_file(tmp_path / "lock")
    assert held == [(2, 1)]
    assert _disk.lock_file(tmp_path / "lock") is None
    monkeypatch.setattr(_disk, "_msvcrt", None)
    second = _disk.lock_file(tmp_path / "lock")
    for descriptor in (first, second):
        os.close(descriptor)


def test_a_disk_without_locks(tmp_path, monkeypatch):
    """Where locking itself fails, that is told, and nothing stays open."""
    fake = types.SimpleNamespace(LOCK_EX=2, LOCK_NB=4)

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    fake.flock = flock
    monkeypatch.setattr(_disk, "_fcntl", fake)
    with pytest.raises(OSError, match="No locks available"):
        _disk.lock_file(tmp_path / "lock")
