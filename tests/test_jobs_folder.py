"""The folder of a job: what is in the way, what was changed by hand, and who else is there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
import zlib

import orjson
import pytest

from kokoon_async import JobError
from kokoon_async.jobs import Entry, Shard, _disk, fetch_statuses
from kokoon_async.jobs._folder import JobFolder
from kokoon_async.jobs._formats import Jsonl, outcomes_of
from kokoon_async.jobs._layout import JobSpec, PartName, is_leftover, is_ours
from kokoon_async.jobs._opening import check_output, clear

from .bulk_api import BASE_URL, FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract


VIDS = make_vids(30)


async def run(api, out, vids=VIDS, **options):
    """Run a job in shards of ten."""
    options = {"shard_size": 10, **options}
    async with client_of(api) as client:
        return await fetch_statuses(client, vids, out, **options)


async def stop_after_two_parts(out, folder):
    """Run a job until the account's credit is used up, once two of its three parts are written."""

    async def refuse():
        while len(await asyncio.to_thread(lambda: list(folder.glob("part-*")))) < 2:
            pass
        return answer(402, {"message": "insufficient credit"})

    with pytest.raises(JobError, match="credit is used up"):
        await run(FakeApi(answers={VIDS[25]: [refuse]}), out)


async def refused(out, said, *, hint=r"[A-Z][a-z].*\.", **options):
    """Run a job that must be refused before anything is sent, with a sentence of what to do."""
    api = FakeApi()
    with pytest.raises(JobError, match=said) as caught:
        await run(api, out, **options)
    assert api.total == 0
    assert str(caught.value.path).startswith(str(out))
    assert re.fullmatch(hint, caught.value.hint)
    return caught.value


# -- what is in the way ----------------------------------------------------------------


async def test_a_folder_where_a_file_is_meant(tmp_path):
    """A folder named like a file is not filled."""
    (tmp_path / "out.jsonl").mkdir()
    await refused(tmp_path / "out.jsonl", "is a folder, but its name says")


async def test_a_file_where_a_folder_is_meant(tmp_path):
    """A file named like a folder is not overwritten."""
    (tmp_path / "out").write_text("mine")
    await refused(tmp_path / "out", "is a file, but a folder is needed there")
    (tmp_path / "x.csv.parts").write_text("mine")
    await refused(tmp_path / "x.csv", "is a file, but a folder is needed there")


async def test_no_place_for_the_output(tmp_path):
    """A missing parent is not made: it may be a slip."""
    await refused(tmp_path / "missing" / "out", "There is no folder .*missing to put out into")


@pytest.mark.parametrize("is_fresh", [False, True])
async def test_foreign_files_are_left_alone(tmp_path, is_fresh):
    """A folder with anybody else's files is refused; hidden files do not count."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".DS_Store").write_text("")
    await run(FakeApi(), folder, resume=not is_fresh)
    assert (folder / ".DS_Store").exists()
    (folder / "notes.txt").write_text("mine")
    (folder / "_job.json").unlink()
    await refused(folder, "files that are no job's: 'notes.txt'", resume=not is_fresh)
    assert (folder / "notes.txt").read_text() == "mine"


async def test_some_of_many_foreign_files_are_named(tmp_path):
    """Three names are enough to see whose files they are; a strange one cannot spoil a terminal."""
    for name in ("d", "a\x1b", "c", "b"):
        (tmp_path / name).write_text("")
    await refused(tmp_path, r"holds files that are no job's: 'a\\x1b', 'b', 'c'\. ")


async def test_foreign_files_that_came_later_are_tolerated(tmp_path):
    """Once a job is under way, other files in its folder are in nobody's way."""
    await run(FakeApi(), tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    report = await run(FakeApi(), tmp_path / "out")
    assert report.requests == 0


@pytest.mark.parametrize("is_fresh", [False, True])
async def test_a_foreign_output_file_is_left_alone(tmp_path, is_fresh):
    """A file that no job has made is not overwritten, unless it is empty."""
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    await refused(out, "exists already, and no job that is known here", resume=not is_fresh)
    assert out.read_text() == "mine"
    out.write_text("")
    await run(FakeApi(), out, resume=not is_fresh)
    check_contract(VIDS, out)


@pytest.mark.parametrize("is_fresh", [False, True])
@pytest.mark.parametrize("was_empty", [False, True])
async def test_a_foreign_file_in_the_place_of_a_stopped_jobs_output(tmp_path, is_fresh, was_empty):
    """A job that never wrote its file gives nobody leave to overwrite one, nor loses its parts."""
    out = tmp_path / "out.jsonl"
    if was_empty:
        out.touch()
    await stop_after_two_parts(out, tmp_path / "out.jsonl.parts")
    parts = sorted((tmp_path / "out.jsonl.parts").glob("part-*"))
    assert len(parts) >= 2
    out.write_text("mine")
    await refused(out, "exists already, and no job that is known here", resume=not is_fresh)
    assert out.read_text() == "mine"
    assert sorted((tmp_path / "out.jsonl.parts").glob("part-*")) == parts
    out.unlink()
    await run(FakeApi(), out, resume=not is_fresh)
    check_contract(VIDS, out)


async def test_a_fresh_start_over_a_damaged_note(tmp_path):
    """Where the note of what a job wrote is damaged, a fresh start is the user's word that counts."""
    out = tmp_path / "out.jsonl"
    await run(FakeApi(), out)
    (tmp_path / "out.jsonl.parts" / "_job.json").write_text("{")
    await refused(out, "is damaged: it is not what kokoon-async wrote")
    await run(FakeApi(), out, resume=False)
    check_contract(VIDS, out)


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_link_stays_a_link(tmp_path, is_there):
    """Of an output that is a symbolic link the file that it leads to is written, and stays linked."""
    (tmp_path / "large disk").mkdir()
    target, out = tmp_path / "large disk" / "rows.jsonl", tmp_path / "out.jsonl"
    if is_there:
        target.write_text("")
    out.symlink_to(target)
    report = await run(FakeApi(), out)
    assert out.is_symlink()
    assert not target.is_symlink()
    check_contract(VIDS, target)
    assert report.out == str(out)
    assert (await run(FakeApi(), out)).requests == 0


async def test_a_pipe_is_no_place_for_a_file(tmp_path):
    """A named pipe as output is refused at once, and not waited for."""
    os.mkfifo(tmp_path / "out.jsonl")
    await refused(tmp_path / "out.jsonl", "is a pipe or a device")


@pytest.mark.parametrize("left", ["part-*", "_SUCCESS"])
async def test_what_is_left_without_the_mark_of_a_job(tmp_path, left):
    """A part alone, or a note of success alone, is of some job that nobody knows."""
    out = tmp_path / "out"
    await run(FakeApi(), out)
    kept = min(out.glob(left))
    for path in out.iterdir():
        if path != kept:
            path.unlink()
    await refused(out, "holds parts of a job, but not what the job was started with")
    assert kept.exists()


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
async def test_parts_without_the_mark_of_a_job(tmp_path, name):
    """Parts of nobody knows what are not taken over, but a fresh start removes them."""
    out = tmp_path / name
    await run(FakeApi(default=lambda vid: answer(400, {"message": "no"})), out)
    folder = out if name == "out" else tmp_path / "out.jsonl.parts"
    (folder / "_job.json").unlink()
    await refused(out, "holds parts of a job, but not what the job was started with")
    if name == "out":
        report = await run(FakeApi(), out, resume=False)
        assert report.shards_skipped == 0
        check_contract(VIDS, out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_no_permission(tmp_path):
    """Where nothing may be written, the error names the place."""
    tmp_path.chmod(0o500)
    await refused(tmp_path / "out", "Permission denied", hint="")


async def test_an_error_of_the_system_names_the_place(tmp_path, monkeypatch):
    """What the operating system refuses is an error with a path."""

    def refuse(path, mode=0o777):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(_disk.os, "mkdir", refuse)
    error = await refused(tmp_path / "out", "The job cannot use .*out: Permission denied", hint="")
    assert error.path == str(tmp_path / "out")


# -- another job, another process ------------------------------------------------------


@pytest.mark.fault("F-95")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard_size": 7}, "shard_size 10, now 7"),
        ({"wait": True}, r"with wait False, now True\."),
        ({"shard_size": 7, "wait": True}, "with shard_size 10, now 7; wait False, now True"),
        ({"format": "csv"}, "format 'jsonl', now 'csv'"),
        ({"vids": VIDS[1:]}, "a job of another input: part 0 is of other ids"),
        ({"vids": VIDS[:25]}, "a job of another input: part 2 is of other ids"),
        ({"vids": VIDS[:20]}, "a job of another input: it was longer"),
        ({"vids": make_vids(40)}, "a job of another input: it is finished, and was shorter"),
    ],
)
async def test_another_job_is_refused(tmp_path, options, said):
    """A job is resumed with the same input and settings, and with no others."""
    await run(FakeApi(), tmp_path / "out")
    resume = "Give the same input" if "vids" in options else "Use the same settings"
    afresh = r"Start afresh \(resume=False, or --fresh\), or choose another output\."
    await refused(tmp_path / "out", said, hint=f"{resume} to resume it\\. {afresh}", **options)
    check_contract(VIDS, tmp_path / "out")


async def test_another_server_is_refused(tmp_path):
    """Rows of two servers are not mixed."""
    await run(FakeApi(), tmp_path / "out")
    content = (tmp_path / "out" / "_job.json").read_bytes()
    (tmp_path / "out" / "_job.json").write_bytes(content.replace(b"127.0.0.1", b"elsewhere"))
    await refused(tmp_path / "out", "base_url 'http://elsewhere:9/v3', now 'http://127.0.0.1:9/v3'")


@pytest.mark.parametrize("vids", [VIDS[1:], [*VIDS, *make_vids(1, seed=5)], VIDS[:10]])
async def test_another_input_for_a_finished_file(tmp_path, vids):
    """A finished file is told from one of another input, though its parts are gone."""
    await run(FakeApi(), tmp_path / "out.csv")
    error = await refused(tmp_path / "out.csv", "is finished, and had other ids", vids=vids)
    assert error.path == str(tmp_path / "out.csv.parts")
    check_contract(VIDS, tmp_path / "out.csv")


async def test_an_input_that_grew_is_not_retried(tmp_path):
    """Also where the ids that failed are asked for again, the input must be the same."""
    out = tmp_path / "out.jsonl"
    await run(FakeApi(answers={VIDS[3]: [answer(422, {"message": "no"})]}), out)
    with pytest.raises(JobError, match="it is finished, and was shorter"):
        await run(FakeApi(), out, vids=make_vids(40), retry_failed=True)
    report = await run(FakeApi(), out, retry_failed=True)
    assert report.outcomes == {"image": 30}
    check_contract(VIDS, out)


async def test_an_unfinished_job_takes_what_its_input_goes_on_with(tmp_path):
    """Before a job is finished nobody knows where its input ends; what is there must fit."""
    out = tmp_path / "out"
    await stop_after_two_parts(out, out)
    await run(FakeApi(), out, vids=make_vids(40))
    check_contract(make_vids(40), out)


@pytest.mark.fault("F-96")
@pytest.mark.parametrize("name", ["_job.json", "_SUCCESS"])
async def test_small_files_that_were_changed(tmp_path, name):
    """Cut here and there, from the future, or of wrong content: an error, never a new start."""
    out = tmp_path / "out.jsonl"
    await run(FakeApi(), out)
    path = tmp_path / "out.jsonl.parts" / name
    whole = path.read_bytes()
    data = orjson.loads(whole)
    broken = [whole[:size] for size in range(0, len(whole.rstrip()), 7)]
    broken += [orjson.dumps({**data, key: None}) for key in data.keys() - {"ids"}]
    broken += [b"[]", b"null", b'{"version": "1"}']
    if name == "_SUCCESS":
        wrong = {"outcomes": {"image": "25"}, "states": {"completed": -1}, "output": {"crc32": "x"}}
        broken += [orjson.dumps({**data, key: value}) for key, value in wrong.items()]
    for content in broken:
        path.write_bytes(content)
        await refused(out, "is damaged: it is not what kokoon-async wrote")
    path.write_bytes(orjson.dumps({**data, "version": 2}))
    await refused(out, "was written by a newer version of kokoon-async. Upgrade")
    assert len(list(path.parent.iterdir())) == 3
    path.write_bytes(whole)
    assert (await run(FakeApi(), out)).requests == 0
    check_contract(VIDS, out)


@pytest.mark.fault("F-94")
async def test_two_at_once(tmp_path):
    """A second job on the same output is refused, in this process and in another one."""
    out = tmp_path / "out"
    refusals = []

    async def second():
        refusals.append(await refused(out, "Another process is working on"))
        script = (
            "import sys, pathlib; from kokoon_async.jobs import _disk;"
            "sys.exit(_disk.lock_file(pathlib.Path(sys.argv[1])) is not None)"
        )
        command = [sys.executable, "-c", script, str(out / "_lock")]
        refusals.append(await asyncio.to_thread(subprocess.run, command, check=True))
        return answer(404, {"message": "fail to get result."})

    api = FakeApi(answers={VIDS[3]: [second]})
    await run(api, out)
    assert len(refusals) == 2
    check_contract(VIDS, out)


# -- parts that were changed -----------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 100, -1])
async def test_a_part_cut_by_hand(tmp_path, cut, caplog):
    """A part that is not what was written is put aside, and its ids are fetched again."""
    out = tmp_path / "out"
    await run(FakeApi(), out)
    part = sorted(out.glob("part-*"))[1]
    part.write_bytes(part.read_bytes()[:cut])
    api = FakeApi()
    report = await run(api, out)
    assert (sorted(api.counts), report.shards_skipped) == (sorted(VIDS[10:20]), 2)
    assert (out / f"_{part.name}.damaged").exists()
    told = [record for record in caplog.records if record.message == "job.part_damaged"]
    assert [record.kokoon_part for record in told] == [part.name]
    check_contract(VIDS, out)
    assert (await run(FakeApi(), out)).requests == 0
    assert is_ours(f"_{part.name}.damaged")


@pytest.mark.fault("F-96")
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b'"', b"a\nb\n", b"PAR1" * 9],
    ids=["empty", "no text", "quote", "lines", "magic"],
)
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
async def test_a_part_that_is_none(tmp_path, form, content):
    """Whatever somebody put in the place of a part, under a name that fits: it is put aside."""
    out = tmp_path / "out"
    await run(FakeApi(), out, format=form)
    part = sorted(out.glob("part-*"))[1]
    fits = part.name.replace(part.name.split("-")[3].split(".")[0], f"{zlib.crc32(content):08x}")
    part.unlink()
    (out / fits).write_bytes(content)
    assert (await run(FakeApi(), out, format=form)).shards_skipped == 2
    assert (out / f"_{fits}.damaged").read_bytes() == content
    check_contract(VIDS, out)


def test_a_row_without_an_end_is_read_in_no_time():
    """What is no row takes no longer to read than what is one: nothing is tried in two ways."""
    row = b'{"vid":"' + b"x" * 100 + b'","outcome":"image","state":"' + b"y" * 100
    assert outcomes_of(row) == outcomes_of(row + b'"') == []
    assert outcomes_of(row + b'"}\n') == [("image", "y" * 100)]
    assert outcomes_of((row + b'"') * 2_000) == []


async def test_a_part_with_a_row_too_few(tmp_path):
    """A part that somebody wrote anew, and named to fit, still needs all of its rows."""
    out = tmp_path / "out"
    await run(FakeApi(), out)
    part = sorted(out.glob("part-*"))[1]
    content = part.read_bytes().partition(b"\n")[2]
    name = PartName.parse(part.name)
    part.unlink()
    forged = PartName(name.index, name.digest, f"{_disk.zlib.crc32(content):08x}", name.suffix)
    (out / str(forged)).write_bytes(content)
    assert (await run(FakeApi(), out)).requests == 10
    check_contract(VIDS, out)


async def test_a_part_changed_while_the_job_runs(tmp_path):
    """What was changed behind the job's back does not get into the joined file."""
    out = tmp_path / "out.jsonl"

    def overwrite():
        for part in (tmp_path / "out.jsonl.parts").glob("part-*"):
            part.write_text("x")

    async def meddle():
        await asyncio.to_thread(overwrite)
        return answer(404, {"message": "fail to get result."})

    vids = make_vids(2000)
    api = FakeApi(answers={vids[-1]: [meddle]})
    said = rf"^{out}\.parts/part-.*jsonl was changed while the job was running\. Run the same call"
    with pytest.raises(JobError, match=said) as caught:
        await run(api, out, vids=vids, shard_size=300)
    assert caught.value.path in map(str, (tmp_path / "out.jsonl.parts").glob("part-*"))
    await run(api, out, vids=vids, shard_size=300)
    check_contract(vids, out)


async def test_a_part_that_is_gone(tmp_path):
    """A part that somebody removed is simply fetched again."""
    await run(FakeApi(), tmp_path / "out")
    sorted((tmp_path / "out").glob("part-*"))[1].unlink()
    assert (await run(FakeApi(), tmp_path / "out")).requests == 10
    check_contract(VIDS, tmp_path / "out")


async def test_the_better_of_two_parts_is_kept(tmp_path):
    """If a kill left an old and a retried part of one shard, the retried one counts."""
    out = tmp_path / "out"
    api = FakeApi(answers={VIDS[3]: [answer(422, {"message": "no"})]})
    await run(api, out)
    old = min(out.glob("part-*"))
    content = old.read_bytes()
    await run(api, out, retry_failed=True)
    old.write_bytes(content)
    report = await run(api, out)
    assert (report.requests, report.failed, old.exists()) == (0, 0, False)
    check_contract(VIDS, out)


def test_a_part_replaced_by_the_same(tmp_path):
    """A part that is written again with the same content is not removed with the old one."""
    out = tmp_path / "out"
    asyncio.run(run(FakeApi(), out))
    spec = JobSpec("jsonl", 10, wait=False, base_url=BASE_URL)
    folder = JobFolder(out, is_one_file=False, spec=spec, form=Jsonl())
    folder.open(False)
    shard = Shard(0, [Entry(vid, line) for line, vid in enumerate(VIDS[:10], 1)])
    part = folder.find(shard)
    assert is_leftover(folder.new_seen_path().name)
    folder.replace(shard, part, {3: part.content.split(b"\n")[3]})
    folder.close()
    check_contract(VIDS, out)


async def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    """Unfinished files are no parts, and go; a user's file does not, though its name be alike."""
    out = tmp_path / "out"
    await run(FakeApi(), out)
    (out / "_tmp-0123456789abcdef").write_text("{")
    (out / "_seen-0123456789abcdef").write_text("")
    mine = [out / name for name in ("_tmp-notes.txt", "_tmp-0123456789abcdef.txt", "_seen-all")]
    for path in mine:
        path.write_text("mine")
    await run(FakeApi(), out)
    left = [path for path in out.iterdir() if path.name.startswith(("_tmp", "_seen"))]
    assert sorted(left) == sorted(mine)
    assert not is_ours("_tmp-notes.txt")


def test_what_says_that_all_is_well_goes_first(tmp_path, monkeypatch):
    """A fresh start that is killed half-way leaves no note of a success without its parts."""
    parts = [f"part-{index:06d}-{'0' * 16}-{'0' * 8}.csv" for index in range(3)]
    names = [parts[0], "_job.json", parts[1], "_SUCCESS", "_lock", ".mine", parts[2]]
    for name in names:
        (tmp_path / name).write_text("")
    real, removed = os.unlink, []

    def unlink(path):
        removed.append(path.name)
        real(path)

    monkeypatch.setattr(_disk.os, "unlink", unlink)
    assert clear(tmp_path, names) == ["_job.json", "_lock"]
    assert removed == ["_SUCCESS", *parts]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "_job.json", "_lock"]


# -- the joined file -------------------------------------------------------------------


async def test_a_finished_file_that_was_changed(tmp_path):
    """A finished file that somebody edited is not overwritten, except by a fresh start."""
    out = tmp_path / "out.jsonl"
    await run(FakeApi(), out)
    out.write_text("edited")
    await refused(out, "was changed since the job finished it")
    assert out.read_text() == "edited"
    await run(FakeApi(), out, resume=False)
    check_contract(VIDS, out)


async def test_a_finished_file_that_is_gone(tmp_path):
    """A finished file that somebody took away is made again."""
    out = tmp_path / "out.jsonl"
    await run(FakeApi(), out)
    out.unlink()
    assert (await run(FakeApi(), out)).requests == 30
    check_contract(VIDS, out)
    out.unlink()
    assert (await run(FakeApi(), out, vids=make_vids(40))).requests == 40
    check_contract(make_vids(40), out)


async def test_a_file_with_failures_keeps_its_parts(tmp_path):
    """If some ids failed, a file that is gone is joined again without a request."""
    out = tmp_path / "out.jsonl"
    api = FakeApi(answers={VIDS[3]: [answer(422, {"message": "no"})]})
    first = await run(api, out)
    assert len(list((tmp_path / "out.jsonl.parts").glob("part-*"))) == 3
    before = out.read_bytes()
    out.unlink()
    again = await run(FakeApi(), out)
    assert (again.requests, again.outcomes, out.read_bytes()) == (0, first.outcomes, before)


async def test_parts_left_beside_a_finished_file_are_removed(tmp_path):
    """A kill between the note of success and the removal of the parts leaves no mess."""
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.parts"
    async with client_of(FakeApi()) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kokoon_async.jobs._folder.JobFolder._remove_parts", lambda self: None)
            await fetch_statuses(client, VIDS, out, shard_size=10)
    assert len(list(folder.glob("part-*"))) == 3
    assert (await run(FakeApi(), out)).requests == 0
    assert not list(folder.glob("part-*"))
    check_contract(VIDS, out)


@pytest.mark.parametrize("when", ["unfinished", "later"])
async def test_an_output_file_that_came_from_elsewhere(tmp_path, when):
    """What somebody put in the place of the joined file is not overwritten by a job under way."""
    out = tmp_path / "out.jsonl"
    credit = answer(402, {"message": "insufficient credit"})
    if when == "unfinished":
        with pytest.raises(JobError, match="credit is used up"):
            await run(FakeApi(answers={VIDS[25]: [credit]}), out)
        out.write_text("theirs")
        await refused(out, "exists already, and no job that is known here has made it")
    else:

        async def meddle():
            await asyncio.to_thread(out.write_text, "theirs")
            return record(VIDS[25])

        with pytest.raises(JobError, match="exists already, and no job that is known here"):
            await run(FakeApi(answers={VIDS[25]: [meddle]}), out)
    assert out.read_text() == "theirs"
    path = tmp_path / "out.jsonl.parts" / "_job.json"
    content = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**content, "outputs": [1, {}, {"size": 6, "crc32": 0}]}))
    await refused(out, "exists already, and no job that is known here has made it")
    out.unlink()
    assert (await run(FakeApi(), out)).shards_skipped >= 2
    check_contract(VIDS, out)


@pytest.mark.parametrize("is_fresh", [False, True])
async def test_the_own_output_of_a_job_that_was_stopped(tmp_path, is_fresh):
    """A file that an earlier run joined, or that a fresh start found, is replaced by the next."""
    out = tmp_path / "out.jsonl"
    no, credit = answer(422, {"message": "no"}), answer(402, {"message": "insufficient credit"})
    await run(FakeApi(answers={VIDS[3]: [no], VIDS[25]: [no]}), out)
    options = {"resume": False} if is_fresh else {"retry_failed": True}
    if is_fresh:
        out.write_text("edited")
    with pytest.raises(JobError, match="credit is used up"):
        await run(FakeApi(answers={VIDS[25]: [credit]}, seconds=0.01), out, **options)
    before = out.read_bytes()
    stopped_again = FakeApi(answers={VIDS[25]: [credit]}, seconds=0.01)
    with pytest.raises(JobError, match="credit is used up"):
        await run(stopped_again, out, retry_failed=not is_fresh)
    assert out.read_bytes() == before
    report = await run(FakeApi(), out, retry_failed=not is_fresh)
    assert report.outcomes == {"image": 30}
    assert out.read_bytes() != before
    check_contract(VIDS, out)


def test_a_long_file_is_measured_in_blocks(tmp_path):
    """A file of gigabytes is known by all of its bytes, and read a mebibyte at a time."""
    out, blocks = tmp_path / "out", []
    content = b"".join(number.to_bytes(4) for number in range(600_000))
    out.write_bytes(content)
    known = [_disk.WrittenFile(2_400_000, f"{zlib.crc32(content):08x}")]
    assert check_output(out, known, lambda: blocks.append(out)) == known
    assert len(blocks) == 3


@pytest.mark.parametrize("step", ["join", "measure"])
async def test_a_cancellation_does_not_wait_for_long_files(tmp_path, monkeypatch, step):
    """A job that is cancelled while it reads or joins long files stops there, and can go on."""
    out = tmp_path / "out.jsonl"
    if step == "measure":
        await run(FakeApi(), out)
    reached = threading.Event()
    waited_for = []

    def go_on_slowly(folder):
        reached.set()
        for _ in range(1000):
            real(folder)
            time.sleep(0.002)
        waited_for.append(folder)

    real = JobFolder._go_on
    monkeypatch.setattr(JobFolder, "_go_on", go_on_slowly)
    job = asyncio.create_task(run(FakeApi(), out))
    while not reached.is_set():
        await asyncio.sleep(0.001)
    job.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await job
    assert waited_for == []
    assert "run the same call again" in caught.value.__notes__[0]
    names = {path.name[:5] for path in (tmp_path / "out.jsonl.parts").iterdir()}
    assert names <= {"part-", "_job.", "_SUCC", "_lock"}
    monkeypatch.undo()
    assert out.exists() == (step == "measure")
    assert (await run(FakeApi(), out)).requests == 0
    check_contract(VIDS, out)


def test_names():
    """A part's name says all about it, and nothing else is taken for one."""
    name = PartName(7, "0123456789abcdef", "89abcdef", "csv")
    assert PartName.parse(str(name)) == name
    assert PartName.parse("part-7.csv") is None
    assert not is_ours("part-000007.csv")
    assert all(map(is_ours, ["_tmp-0123456789abcdef", "_seen-0123456789abcdef", "_lock"]))
    assert JobSpec("csv", 1, wait=False, base_url="x").to_json().startswith(b'{"version":1,')
