"""Where ids come from: files, pipes, standard input, iterables; and what may be wrong with them."""

from __future__ import annotations

import asyncio
import io
import os
import threading

import pytest

from kokoon_async import JobError
from kokoon_async.jobs import Entry, fetch_statuses
from kokoon_async.jobs._distinct import DistinctIds
from kokoon_async.jobs._input import open_source
from kokoon_async.jobs._lines import Lines

from .bulk_api import FakeApi, client_of, make_vids
from .bulk_contract import check_contract


VIDS = make_vids(40)

MESSY = (
    b"\xef\xbb\xbf" + VIDS[0].encode() + b"\r\n"
    b"# a comment\n"
    b"\n"
    b"  \t" + VIDS[1].upper().encode() + b"  \r\n"
    b"not an id\n"
    b"caf\xe9 \x00 \xf0\x9f\n" + VIDS[0].encode() + b"\n"
    b"   # another\n" + b"y" * 100_000 + b"\n" + VIDS[2].encode()
)  # and no line feed at the end
MEANT = [
    *[VIDS[0], "", "", VIDS[1], "not an id", "caf\\xe9 \x00 \\xf0\\x9f", VIDS[0], ""],
    *["y" * 200, VIDS[2]],
]


async def read_all(source, count=3):
    """Read a source to its end."""
    found = []
    while items := await source.read(count):
        assert len(items) <= count
        found += items
    await source.aclose()
    return found


@pytest.mark.fault("F-99")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 200_000])
@pytest.mark.parametrize("end", [None, b"\n", b"\r\n", b"\r"], ids=["mixed", "LF", "CRLF", "CR"])
@pytest.mark.unmeasured
def test_lines_do_not_depend_on_blocks(size, end):
    """However the bytes arrive, and lines end, the same lines come out, with their numbers."""
    content = MESSY if end is None else MESSY.replace(b"\r\n", b"\n").replace(b"\n", end)
    lines = Lines("x")
    for start in range(0, len(content), size):
        lines.feed(content[start : start + size])
    lines.feed(b"")
    lines.feed(b"")  # whoever asks again at the end gets no more
    found = lines.take(100)
    assert [(number, text[:200].lower()) for number, text in found] == [
        (number, text) for number, text in enumerate(MEANT, 1) if text
    ]
    assert lines.count == len(MEANT)


@pytest.mark.fault("F-99")
async def test_a_messy_file(tmp_path):
    """Blank lines, comments, CRLF, a BOM, bad bytes and huge lines are all taken as they are meant."""
    path, out = tmp_path / "vids.txt", tmp_path / "out.jsonl"
    path.write_bytes(MESSY)
    async with client_of(FakeApi()) as client:
        report = await fetch_statuses(client, path, out, shard_size=2)
    rows = check_contract(MEANT, out)
    assert (report.outcomes, report.duplicates) == ({"image": 3, "invalid": 3}, 1)
    assert rows[2]["error_message"].startswith("Line 5 of the input is not an image id")


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
async def test_utf_16_is_refused(tmp_path, mark):
    """A file as PowerShell writes it is not a million invalid ids but one clear error."""
    path = tmp_path / "vids.txt"
    path.write_bytes(mark + VIDS[0].encode("utf-16-le") + b"\n\x00")
    api = FakeApi()
    async with client_of(api) as client:
        said = rf"^The input {path} is UTF-16, not UTF-8\. Save it as UTF-8"
        with pytest.raises(JobError, match=said):
            await fetch_statuses(client, path, tmp_path / "out")
    assert api.total == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.txt", "Cannot read the input .*missing.txt: No such file or directory"),
        (".", "is a folder, not a file"),
        ("file/under", "Cannot read the input .*: Not a directory"),
        (VIDS[0], "No such file or directory. Give the path .*; put single ids into a list"),
    ],
)
async def test_unreadable_input(tmp_path, name, said):
    """An input that cannot be read is named before anything is sent or written."""
    (tmp_path / "file").write_text("")
    api = FakeApi()
    async with client_of(api) as client:
        with pytest.raises(JobError, match=said) as caught:
            await fetch_statuses(client, str(tmp_path / name), tmp_path / "out")
    assert caught.value.path == str(tmp_path / name)
    assert (api.total, (tmp_path / "out").exists()) == (0, False)


async def test_a_file_that_breaks_half_way(tmp_path, monkeypatch):
    """What was read before is finished and kept, and the error names the file."""
    path, out = tmp_path / "vids.txt", tmp_path / "out"
    path.write_text("\n".join(VIDS))
    monkeypatch.setattr("kokoon_async.jobs._input._BLOCK", 10 * 37)

    class Breaking(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 700:
                raise OSError(5, "Input/output error")
            return super().read(size)

    said = rf"^Cannot read on in the input {path}: Input/output error\..*1 finished"
    async with client_of(FakeApi()) as client:
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open", lambda self, *args, **options: Breaking(self))
            with pytest.raises(JobError, match=said) as caught:
                await fetch_statuses(client, path, out, shard_size=15)
        assert (caught.value.path, caught.value.errno) == (str(path), 5)
        report = await fetch_statuses(client, path, out, shard_size=15)
    assert report.shards_skipped == 1
    check_contract(path, out)


async def test_a_file_is_read_no_further_than_is_asked(tmp_path, monkeypatch):
    """What was read of a file tells how much of it is left, also when it has grown meanwhile."""
    path = tmp_path / "vids.txt"
    path.write_text("".join(f"{vid}\n" for vid in VIDS))
    monkeypatch.setattr("kokoon_async.jobs._input._BLOCK", 10 * 37)
    source = await open_source(path)
    assert source.fraction() is None
    assert len(await source.read(5)) == 5
    assert source.fraction() == 5 / 40
    assert len(await source.read(5)) == 5
    assert source.fraction() == 10 / 40
    assert source._file.tell() == 10 * 37
    path.write_text("".join(f"{vid}\n" for vid in VIDS * 2))
    assert len(await source.read(60)) == 60
    assert source.fraction() == 1.0
    await source.aclose()


async def test_a_file_of_one_character(tmp_path):
    """All of the smallest input was read when its one line was given."""
    path = tmp_path / "vids.txt"
    path.write_text("x")
    source = await open_source(path)
    assert await source.read(1) == [(1, "x")]
    assert source.fraction() == 1.0
    await source.aclose()


async def test_a_named_pipe(tmp_path):
    """A pipe is read as it is filled, and the job ends with it."""
    path, out = tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(path)

    def fill():
        with path.open("w") as pipe:
            for vid in VIDS:
                print(vid, file=pipe, flush=True)

    writer = threading.Thread(target=fill, daemon=True)
    writer.start()
    async with client_of(FakeApi()) as client:
        report = await fetch_statuses(client, path, out, shard_size=15)
    writer.join()
    assert report.shards == 3
    check_contract(VIDS, out)


@pytest.fixture
def standard_input(monkeypatch):
    """Return a function that makes a file descriptor standard input."""
    opened = []

    def use(descriptor):
        opened.append(os.fdopen(descriptor, "rb"))
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield use
    for file in opened:
        file.close()


async def test_standard_input_as_a_pipe(tmp_path, standard_input):
    """A dash reads standard input; there is no telling how much is to come."""
    reading, writing = os.pipe()
    standard_input(reading)
    os.write(writing, "\n".join(VIDS).encode())
    os.close(writing)
    heard = []
    async with client_of(FakeApi()) as client:
        await fetch_statuses(client, "-", tmp_path / "out", on_progress=heard.append)
    assert heard[0].total is None
    check_contract(VIDS, tmp_path / "out")


async def test_standard_input_as_a_file(tmp_path, standard_input):
    """Where standard input is a file, its size tells how much is to come."""
    path = tmp_path / "vids.txt"
    path.write_text("\n".join(VIDS))
    standard_input(os.open(path, os.O_RDONLY))
    source = await open_source("-")
    assert source.fraction() is None
    assert len(await source.read(10)) == 10
    assert source.fraction() == pytest.approx(10 / 40, rel=0.1)
    assert len(await read_all(source)) == 30


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_blank_line_is_counted_at_the_start_too(end):
    """The number of a line is that which an editor shows."""
    lines = Lines("x")
    lines.feed(end + VIDS[0].encode() + end)
    assert lines.take(9) == [(2, VIDS[0])]


def test_a_long_line_may_end_with_its_block():
    """What follows a line that is longer than any id is a line of its own."""
    lines = Lines("x")
    for block in (b"y" * 100_000 + b"\r", VIDS[0].encode(), b"\r", b"\n", VIDS[1].encode(), b""):
        lines.feed(block)
    assert [(number, text[:36]) for number, text in lines.take(9)] == [
        *[(1, "y" * 36), (2, VIDS[0]), (3, VIDS[1])],
    ]


class Closed:
    """A stream that was closed."""

    def flush(self):
        """Say so."""
        raise ValueError("I/O operation on closed file.")

    fileno = flush


@pytest.mark.parametrize(
    "stdin", [None, io.StringIO(), Closed()], ids=["none", "no file", "closed"]
)
async def test_no_standard_input(tmp_path, monkeypatch, stdin):
    """Without a standard input the job does not start."""
    monkeypatch.setattr("sys.stdin", stdin)
    async with client_of(FakeApi()) as client:
        with pytest.raises(JobError, match=r"^There is no standard input") as caught:
            await fetch_statuses(client, "-", tmp_path / "out")
    assert caught.value.path == "-"


async def test_standard_input_that_cannot_be_read(standard_input):
    """An error of standard input calls it a dash, as whoever gave it did."""
    reading, writing = os.pipe()
    standard_input(writing)  # the wrong end
    source = await open_source("-")
    with pytest.raises(JobError, match=r"^Cannot read the input -: Bad file desc") as caught:
        await source.read(1)
    assert caught.value.path == "-"
    await source.aclose()
    os.close(reading)


@pytest.mark.parametrize("is_file", [False, True])
async def test_standard_input_in_utf_16(tmp_path, standard_input, is_file):
    """Standard input of another encoding is called a dash too."""
    if is_file:
        (tmp_path / "vids.txt").write_bytes(b"\xff\xfex\x00")
        standard_input(os.open(tmp_path / "vids.txt", os.O_RDONLY))
    else:
        reading, writing = os.pipe()
        standard_input(reading)
        os.write(writing, b"\xff\xfex\x00")
        os.close(writing)
    source = await open_source("-")
    with pytest.raises(JobError, match=r"^The input - is UTF-16") as caught:
        await source.read(1)
    assert caught.value.path == "-"
    await source.aclose()


@pytest.mark.parametrize("is_named", [False, True])
async def test_a_pipe_gives_what_is_there_or_what_is_asked_for(tmp_path, standard_input, is_named):
    """Who is eager gets the first ids as they come, and who is not as many as were asked for."""
    if is_named:
        name = tmp_path / "pipe"
        os.mkfifo(name)
        writing = os.open(name, os.O_RDWR)  # does not wait for a reader
    else:
        name = "-"
        reading, writing = os.pipe()
        standard_input(reading)
    eager, patient = await open_source(name, eager=True), await open_source(name)
    os.write(writing, b"a\n")
    assert await asyncio.wait_for(eager.read(3), timeout=20) == [(1, "a")]
    os.write(writing, b"b\n")
    reads = asyncio.create_task(patient.read(2))
    await asyncio.sleep(0.02)
    assert not reads.done()
    os.write(writing, b"c\n")
    assert await asyncio.wait_for(reads, timeout=20) == [(1, "b"), (2, "c")]
    for source in (eager, patient):
        await source.aclose()
    os.close(writing)


async def test_a_pipe_is_closed_with_its_source(standard_input):
    """The descriptor that was opened for a pipe is closed in the end."""
    reading, writing = os.pipe()
    standard_input(reading)
    source = await open_source("-")
    os.write(writing, b"a\n")
    assert len(await source.read(1)) == 1
    descriptor = source._descriptor
    os.fstat(descriptor)
    await source.aclose()
    while reads_in_a_thread():
        await asyncio.sleep(0.001)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    os.close(writing)


def reads_in_a_thread():
    """Tell whether a pipe's thread is alive."""
    return any(thread.name == "kokoon input" for thread in threading.enumerate())


async def test_a_silent_pipe_holds_nobody_up(standard_input):
    """A cancelled read leaves its thread behind; what comes late is nobody's."""
    reading, writing = os.pipe()
    standard_input(reading)
    source = await open_source("-", eager=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.read(5), timeout=0.02)
    assert reads_in_a_thread()
    await source.aclose()
    os.close(writing)
    while reads_in_a_thread():
        await asyncio.sleep(0.001)


def test_a_silent_pipe_outlives_the_loop(standard_input):
    """A thread that reads for a loop that is closed ends quietly."""
    reading, writing = os.pipe()
    standard_input(reading)

    async def give_up():
        source = await open_source("-", eager=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(source.read(5), timeout=0.02)

        return source

    source = asyncio.run(give_up())
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "kokoon input"] == [
        True  # or the program could not end
    ]
    os.close(writing)
    while reads_in_a_thread():
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source._descriptor)


async def test_a_pipe_that_breaks(tmp_path, monkeypatch):
    """An error of a pipe says where it came from."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = await open_source(path)
    monkeypatch.setattr(source, "_opened", lambda: os.open(tmp_path / "gone", os.O_RDONLY))
    with pytest.raises(JobError, match=r"Cannot read the input .*pipe: No such file"):
        await source.read(1)
    await source.aclose()


class Odd:
    """An item without a text."""

    def __str__(self):
        raise LookupError


class Named(str):
    """A text that calls itself something else."""

    __slots__ = ()

    def __str__(self):
        return "no id"


@pytest.mark.parametrize(
    ("item", "text"),
    [(10**5000, "<int>"), (Odd(), "<Odd>"), (Named(VIDS[0]), VIDS[0]), (None, "None")],
    ids=["large", "odd", "named", "None"],
)
async def test_an_item_of_any_class_is_read(item, text):
    """What has no text is shown as its type; a text is what it holds and not what it says it is."""
    source = await open_source([VIDS[1], item, VIDS[2]])
    assert await read_all(source) == [(1, VIDS[1]), (2, text), (3, VIDS[2])]


@pytest.mark.parametrize("kind", [set, frozenset])
async def test_a_set_has_an_order(kind):
    """A set is read in the same order by every process, so that another one can resume the job."""
    source = await open_source(kind([*VIDS, VIDS[0].upper(), 7]))
    assert [text for _, text in await read_all(source)] == sorted([*VIDS, VIDS[0].upper(), "7"])


async def test_an_async_iterable(tmp_path):
    """An async iterable is read as shards are cut, and tells nothing of its length."""

    async def give():
        for vid in ["# a comment", *VIDS]:
            await asyncio.sleep(0)
            yield vid

    async with client_of(FakeApi()) as client:
        report = await fetch_statuses(client, give(), tmp_path / "out", shard_size=15)
    assert report.shards == 3
    check_contract(["# a comment", *VIDS], tmp_path / "out")


def raising_after(count, *, is_async):
    """Make an iterator, plain or async, that gives so many ids and then raises."""

    def give():
        yield from VIDS[:count]
        raise LookupError("no more")

    async def give_later():
        for vid in give():
            yield vid

    return give_later() if is_async else give()


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_input_that_raises(tmp_path, is_async):
    """What the input raises comes out of the job, after what was complete is written."""
    vids = raising_after(25, is_async=is_async)
    async with client_of(FakeApi()) as client:
        with pytest.raises(LookupError, match="no more") as caught:
            await fetch_statuses(client, vids, tmp_path / "out", shard_size=10)
        assert "2 finished shards" in caught.value.__notes__[0]
        report = await fetch_statuses(client, VIDS, tmp_path / "out", shard_size=10)
    assert report.shards_skipped == 2
    check_contract(VIDS, tmp_path / "out")


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_input_that_raises_at_once(is_async):
    """An iterator that gives nothing before it raises needs no second call."""
    source = await open_source(raising_after(0, is_async=is_async))
    with pytest.raises(LookupError, match="no more"):
        await source.read(5)
    await source.aclose()


@pytest.mark.parametrize(("count", "fractions"), [(40, [0.0, 0.25]), (0, [None, None])])
async def test_a_list_tells_how_much_of_it_was_read(count, fractions):
    """Of a list it is known how much of it was given; of none, nothing."""
    source = await open_source(VIDS[:count])
    before = source.fraction()
    assert len(await source.read(10)) == min(count, 10)
    assert [before, source.fraction()] == fractions


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_an_input_gave_comes_before_what_it_raises(is_async):
    """What an iterator gave before it raised is given, and the next read raises."""
    source = await open_source(raising_after(3, is_async=is_async))
    assert [vid for _, vid in await source.read(5)] == VIDS[:3]
    with pytest.raises(LookupError, match="no more"):
        await source.read(5)
    await source.aclose()


async def test_an_async_iterable_gives_what_is_asked_for_or_what_is_there():
    """Who is eager gets one id at a time of an async iterable, and who is not all of them."""

    async def give():
        for vid in VIDS:
            yield vid

    assert len(await (await open_source(give())).read(5)) == 5
    assert len(await (await open_source(give(), eager=True)).read(5)) == 1


async def test_the_input_is_read_only_as_fast_as_it_is_used(tmp_path):
    """An endless input does not fill the memory."""
    taken = 0

    def give():
        nonlocal taken
        for vid in make_vids(5000):
            taken += 1
            yield vid

    hold = asyncio.Event()

    async def never():
        await hold.wait()

    api = FakeApi(default=lambda vid: never)
    async with client_of(api) as client:
        job = asyncio.create_task(fetch_statuses(client, give(), tmp_path / "out", shard_size=100))
        before = -1
        while api.total < 64 or before != taken:  # until nothing moves any more
            before = taken
            await asyncio.sleep(0.05)
        # Six shards in flight are enough for 512 ids; one more was cut.
        assert 600 <= taken <= 800
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job


@pytest.mark.fault("F-98")
def test_the_set_of_ids_is_exact(tmp_path):
    """Ids are the same in any spelling; texts that are none are compared as they are shown."""
    distinct = DistinctIds(tmp_path / "seen")
    texts = [VIDS[0], VIDS[0].upper(), "x", "X", "x", "y" * 300, "y" * 200 + "z", "\ud800"]
    found = distinct.only_new(enumerate(texts))
    assert found == [
        Entry(VIDS[0], 0),
        *(Entry(text, line, is_valid=False) for text, line in [("x", 2), ("X", 3)]),
        *(Entry(text, line, is_valid=False) for text, line in [("y" * 200, 5), ("\\ud800", 7)]),
    ]
    assert distinct.duplicates == 3
    assert distinct.only_new([(9, VIDS[0])]) == []
    distinct.close()
    distinct.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F-97")
def test_the_set_of_ids_needs_no_journal(tmp_path):
    """The one database is thrown away and has no journal, so none that some SQLites corrupt."""
    distinct = DistinctIds(tmp_path / "seen")
    distinct.only_new([(1, VIDS[0])])
    assert distinct._opened().execute("PRAGMA journal_mode").fetchone() == ("off",)
    distinct.close()
    assert list(tmp_path.iterdir()) == []


def test_the_set_of_ids_may_have_no_name():
    """Without a path it is a temporary file, which an error calls so."""
    distinct = DistinctIds(None)
    assert [entry.vid for entry in distinct.only_new([(1, VIDS[0]), (2, VIDS[0])])] == [VIDS[0]]
    distinct._database.close()
    with pytest.raises(JobError, match=r"^Cannot note .*, in a temporary file: ") as caught:
        distinct.only_new([(3, VIDS[1])])
    assert caught.value.path == "a temporary file"
    distinct.close()


def test_the_set_of_ids_says_where_it_cannot_be(tmp_path):
    """A disk that cannot hold the set is an error that names the path."""
    distinct = DistinctIds(tmp_path / "missing" / "seen")
    with pytest.raises(JobError, match=r"Cannot note which ids were seen, in .*missing"):
        distinct.only_new([(1, VIDS[0])])
    distinct.close()
