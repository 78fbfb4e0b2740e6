"""Bulk jobs where all goes well: every input, every format, every kind of outcome."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import orjson
import pytest

from kokoon_async import ConfigurationError, InsufficientCredit, Limits
from kokoon_async._http.wire import FIELD_RULES, image_from_object
from kokoon_async.jobs import Entry, JobProgress, Shard, fetch_statuses, run_shard
from kokoon_async.jobs._rows import COLUMNS, invalid_row
from kokoon_async.jobs._settling import wait_window

from .bulk_api import NOT_FOUND, FakeApi, answer, client_of, make_vids, record
from .bulk_contract import check_contract, read_rows
from .canary import assert_no_secret


VIDS = make_vids(25)
POISON = answer(500, {"message": "boom"})
OUTS = ["out.jsonl", "out.csv", "out.parquet", "out"]


def api_with_all_outcomes() -> FakeApi:
    """Let VIDS meet one error of each kind."""
    api = FakeApi()
    api.answers[VIDS[1]] = [NOT_FOUND]
    api.answers[VIDS[2]] = [POISON] * 100
    api.answers[VIDS[3]] = [answer(422, {"message": "no"})] * 9
    api.answers[VIDS[4]] = [answer(503), answer(503)]
    api.answers[VIDS[5]] = [record(VIDS[5], state="error")]
    api.answers[VIDS[6]] = [record(VIDS[6], state="warming_up")]
    return api


@pytest.mark.fault("F-98")
@pytest.mark.fault("F-100")
@pytest.mark.parametrize("out", OUTS)
async def test_each_id_gets_its_outcome(tmp_path, out):
    """Every distinct id gets one row of its class, in every format, and nothing is secret."""
    api = api_with_all_outcomes()
    given = [*VIDS, VIDS[0].upper(), "nonsense", uuid.UUID(VIDS[7]), "nonsense", None]
    async with client_of(api) as client:
        report = await fetch_statuses(client, given, tmp_path / out, shard_size=10)
    rows = check_contract(given, tmp_path / out)
    assert report.outcomes == {"image": 22, "not_found": 1, "failed": 2, "invalid": 2}
    assert report.states == {"completed": 20, "error": 1, "warming_up": 1}
    assert (report.ids, report.duplicates, report.failed) == (27, 3, 2)
    assert (report.shards, report.shards_skipped) == (3, 0)
    assert report.format == {"out": "jsonl"}.get(out, out.removeprefix("out."))
    # One more than ids and retries: a probe whether the last failures were an outage.
    assert (report.requests, report.retries) == (api.total, 10) == (36, 10)
    assert report.rate > 0
    assert [row["error_type"] for row in rows[:5]] == [
        *[None, "ImageNotFound", "ServerError", "InvalidRequest", None]
    ] or out.endswith(".csv")
    assert int(rows[2]["attempts"]) == 9
    assert_no_secret(b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()))


def test_rows_have_the_whole_record():
    """Every field of the API's record has its column, by its own name."""
    assert set(FIELD_RULES) <= set(COLUMNS)


def test_the_row_of_what_is_no_id():
    """It says which line is at fault and why, and costs no request."""
    row = orjson.loads(invalid_row(Entry("nonsense", 7, is_valid=False)))
    known = {name: value for name, value in row.items() if value is not None}
    assert known.pop("fetched_at").endswith("Z")
    assert list(row) == list(COLUMNS)
    assert known == {
        "vid": "nonsense",
        "outcome": "invalid",
        "error_type": "InvalidVid",
        "error_message": "Line 7 of the input is not an image id: a UUID as the API writes it,"
        " 32 hexadecimal digits, grouped 8-4-4-4-12.",
        "attempts": 0,
        "line": 7,
    }


async def test_a_row_reads_back_as_the_image(tmp_path):
    """A row of JSON lines is a record that the converter reads: nothing but signatures is lost."""
    api = FakeApi()
    async with client_of(api) as client:
        image = await client.get_image(VIDS[0])
        await fetch_statuses(client, VIDS[:1], tmp_path / "out.jsonl")
    (row,) = read_rows(tmp_path / "out.jsonl")
    again = image_from_object({name: row[name] for name in FIELD_RULES})
    assert again.without_urls() == image.without_urls()
    assert str(again.url) == str(image.url).partition("?")[0]


async def test_parquet_has_types(tmp_path):
    """Parquet columns are typed, also where a part has nothing in them."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    api = FakeApi(default=lambda vid: NOT_FOUND)
    async with client_of(api) as client:
        await fetch_statuses(client, VIDS, tmp_path / "out.parquet", shard_size=5)
    schema = pyarrow.read_schema(tmp_path / "out.parquet")
    assert {str(schema.field(name).type) for name in ("size", "line")} == {"int64"}
    assert str(schema.field("created_time").type) == "timestamp[us, tz=UTC]"
    assert (str(schema.field("duration").type), str(schema.field("fps").type)) == (
        *("double", "string"),
    )
    check_contract(VIDS, tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("count", "shard_size", "groups"),
    [(25, 3, [12, 12, 1]), (24, 4, [12, 12]), (20, 5, [10, 10]), (25, 9, [18, 7])],
)
async def test_parquet_has_large_row_groups(tmp_path, monkeypatch, count, shard_size, groups):
    """A joined file has row groups of many parts, or reading it would be slow."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("kokoon_async.jobs._parquet._ROWS_PER_GROUP", 10)
    out = tmp_path / "out.parquet"
    async with client_of(FakeApi()) as client:
        await fetch_statuses(client, VIDS[:count], out, shard_size=shard_size)
    data = pyarrow.ParquetFile(out).metadata
    assert [data.row_group(number).num_rows for number in range(data.num_row_groups)] == groups
    check_contract(VIDS[:count], out)


async def test_parquet_without_pyarrow_is_refused(tmp_path, monkeypatch):
    """Without pyarrow nothing is sent, and the error says how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    api = FakeApi()
    async with client_of(api) as client:
        said = (
            r"^The format parquet needs .* pyarrow\. Install it with: pip install .kokoon-async\["
        )
        with pytest.raises(ConfigurationError, match=said):
            await fetch_statuses(client, VIDS, tmp_path / "out.parquet")
    assert (api.total, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.fault("F-104")
async def test_csv_is_safe_in_a_spreadsheet(tmp_path):
    """No text of the server or of the input can become a formula, and none breaks the table."""
    api = FakeApi()
    evil = ["=1+1", "+1", "-1", "@x", "\tx", 'a"b', "c,d", "e\r\nf", "g\x00h\ri", "x" * 200_000]
    for vid, name in zip(VIDS, evil, strict=False):
        api.answers[vid] = [record(vid, filename=name, last_category=name)]
    given = [*VIDS[: len(evil)], "=cmd|' /C calc'!A0", "-2"]
    out = tmp_path / "out.csv"
    async with client_of(api) as client:
        await fetch_statuses(client, given, out, shard_size=3)
        assert (await fetch_statuses(client, given, out, shard_size=3)).requests == 0
    rows = read_rows(out)
    assert all(cell[:1] not in "=+-@\t\r" for row in rows for cell in row.values() if cell)
    names = [row["filename"] for row in rows[: len(evil)]]
    assert names == [*(f"'{name}" for name in evil[:5]), *(name[:32_767] for name in evil[5:])]
    assert [row["vid"] for row in rows[-2:]] == ["'=cmd|' /C calc'!A0", "'-2"]


async def test_a_folder_is_a_dataset(tmp_path):
    """Without a suffix the output is a folder of parts in which all else is hidden."""
    async with client_of(FakeApi()) as client:
        await fetch_statuses(client, VIDS, tmp_path / "out", shard_size=10, format="csv")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name[0] for name in names] == ["_"] * 3 + ["p"] * 3
    assert all(name.endswith(".csv") for name in names[3:])
    check_contract(VIDS, tmp_path / "out")


async def test_one_file_leaves_no_parts(tmp_path):
    """When all went well the parts are gone, and running again needs neither them nor requests."""
    api = FakeApi()
    out = tmp_path / "out.jsonl"
    async with client_of(api) as client:
        first = await fetch_statuses(client, VIDS, out, shard_size=10)
        written = out.stat()
        again = await fetch_statuses(client, VIDS, out, shard_size=10)
    assert sorted(path.name for path in (tmp_path / "out.jsonl.parts").iterdir()) == [
        *["_SUCCESS", "_job.json", "_lock"]
    ]
    assert (again.requests, again.shards_skipped, api.total) == (0, 3, 25)
    assert (again.outcomes, again.states, again.ids) == (first.outcomes, first.states, first.ids)
    found = out.stat()  # but for st_atime: whether reading changes it depends on the file system
    assert (found.st_ino, found.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert str(first).startswith(f"25 ids (25 image) in {out}: 25 requests, ")
    check_contract(VIDS, out)


@pytest.mark.parametrize("out", ["out.jsonl", "out"])
async def test_no_ids_are_a_job_too(tmp_path, out):
    """An input without ids ends well, with an empty output."""
    async with client_of(FakeApi()) as client:
        for _ in range(2):
            report = await fetch_statuses(client, ["", "# nothing"], tmp_path / out)
            assert (report.ids, report.shards) == (0, 0)
            assert str(report).startswith("0 ids (none) in")
            check_contract([], tmp_path / out)


@pytest.mark.parametrize("out", OUTS)
async def test_failed_ids_can_be_retried(tmp_path, out):
    """*retry_failed* asks for these alone, and puts them into the same output."""
    api = FakeApi()
    for vid in (VIDS[3], VIDS[4], VIDS[20]):
        api.answers[vid] = [POISON] * 9
    async with client_of(api) as client:
        options = {"shard_size": 10}
        first = await fetch_statuses(client, VIDS, tmp_path / out, **options)
        assert first.outcomes == {"image": 22, "failed": 3}
        # Running again alone changes nothing.
        same = await fetch_statuses(client, VIDS, tmp_path / out, **options)
        assert (same.outcomes, same.requests) == (first.outcomes, 0)
        before = api.total
        second = await fetch_statuses(client, VIDS, tmp_path / out, retry_failed=True, **options)
        assert api.total - before == second.requests == 3
        assert second.outcomes == {"image": 25}
        assert (second.shards, second.shards_skipped) == (3, 1)
        third = await fetch_statuses(client, VIDS, tmp_path / out, retry_failed=True, **options)
    assert (third.outcomes, third.requests) == (second.outcomes, 0)
    check_contract(VIDS, tmp_path / out)


async def test_retrying_in_vain_changes_nothing(tmp_path):
    """An id that fails again keeps its row, and the others theirs."""
    api = FakeApi()
    api.answers[VIDS[3]] = [answer(422, {"message": "no"})] * 9
    async with client_of(api) as client:
        await fetch_statuses(client, VIDS, tmp_path / "out", shard_size=10)
        report = await fetch_statuses(
            client, VIDS, tmp_path / "out", shard_size=10, retry_failed=True
        )
    assert (report.failed, report.requests) == (1, 1)
    check_contract(VIDS, tmp_path / "out")


async def test_shards_are_full_although_ids_come_again(tmp_path):
    """Each part but the last has as many rows as was asked for, however many ids are duplicates."""
    given = [vid for vid in VIDS for _ in range(2)]
    async with client_of(FakeApi()) as client:
        report = await fetch_statuses(client, given, tmp_path / "out", shard_size=10)
    parts = sorted((tmp_path / "out").glob("part-*"))
    assert [len(part.read_bytes().splitlines()) for part in parts] == [10, 10, 5]
    assert (report.shards, report.duplicates) == (3, 25)


async def test_fresh_starts_again(tmp_path):
    """*resume=False* removes an earlier job, of another input and other settings too."""
    api = FakeApi()
    out = tmp_path / "out.jsonl"
    async with client_of(api) as client:
        await fetch_statuses(client, VIDS, out, shard_size=10)
        report = await fetch_statuses(client, VIDS[5:], out, shard_size=7, resume=False)
    assert (report.requests, report.shards_skipped) == (20, 0)
    check_contract(VIDS[5:], out)


async def test_waiting_for_final_states(tmp_path, virtual_time):
    """With *wait* rows have final states; an image that fails is an image, a late one is not."""
    api = FakeApi()
    for vid in VIDS[:20]:
        api.answers[vid] = [record(vid, state="processing") for _ in range(3)]
    api.answers[VIDS[0]] = [record(VIDS[0], state="processing") for _ in range(3000)]
    api.answers[VIDS[1]] = [record(VIDS[1], state="error")]
    api.answers[VIDS[2]] = [NOT_FOUND]
    async with client_of(api) as client:
        report = await fetch_statuses(
            client, VIDS, tmp_path / "out.jsonl", wait=True, timeout=300, shard_size=10
        )
    rows = check_contract(VIDS, tmp_path / "out.jsonl")
    assert report.outcomes == {"image": 23, "timed_out": 1, "not_found": 1}
    assert report.states == {"completed": 22, "error": 1, "processing": 1}
    assert (rows[0]["outcome"], rows[0]["attempts"]) == ("timed_out", api.counts[VIDS[0]])
    assert rows[1]["uid"] == rows[3]["uid"] is not None  # an image that failed has its record
    assert (rows[1]["outcome"], rows[1]["error_type"], report.retries) == ("image", None, 0)
    assert report.failed == 1


@pytest.mark.parametrize(
    ("rate", "timeout", "window"),
    [
        (None, 60.0, 50_000),
        (2.0, None, 50_000),
        (2.0, 60.0, 12),
        (3.0, 61.0, 18),
        (1.0, 5.0, 1),
        (1e6, 1e6, 50_000),
    ],
)
async def test_how_many_images_are_waited_for_at_once(rate, timeout, window):
    """Under a rate limit each image can be looked at ten times before its wait is over."""
    async with client_of(FakeApi(), limits=Limits(requests_per_second=rate)) as client:
        assert wait_window(client, timeout) == window


async def test_progress(tmp_path, virtual_time):
    """*on_progress* hears of what is done, in flight and left, a few times per second."""
    api = FakeApi(seconds=1.0)
    heard: list[JobProgress] = []

    async def listen(progress: JobProgress) -> None:
        heard.append(progress)

    out = tmp_path / "out"
    async with client_of(api) as client:
        client._pipeline._throttle._allowed = client._pipeline._throttle._most = 5
        await fetch_statuses(client, VIDS[:10], out, shard_size=10)
        (out / "_SUCCESS").unlink()  # so that there may be more
        vids = tmp_path / "vids.txt"
        vids.write_text("\n".join(VIDS))
        report = await fetch_statuses(client, vids, out, shard_size=10, on_progress=listen)
    last = heard[-1]
    assert 4 <= len(heard) <= 10
    assert (last.done, last.skipped, last.total, last.failed) == (25, 10, 25, 0)
    assert (last.seconds_left, last.in_flight, last.paused) == (0.0, 0, None)
    middle = heard[len(heard) // 2]
    assert middle.in_flight > 0
    assert middle.seconds_left == pytest.approx((25 - middle.done) / middle.rate)
    assert report.shards_skipped == 1
    check_contract(vids, out)


async def test_progress_of_a_job_that_goes_on(tmp_path):
    """What earlier runs did counts as done and skipped, also where nothing is left to do."""
    api = FakeApi()
    for vid in (VIDS[3], VIDS[13], VIDS[14]):
        api.answers[vid] = [answer(422, {"message": "no"})]
    out, heard = tmp_path / "out", []
    options = {"shard_size": 10, "retry_failed": True, "on_progress": heard.append}
    told = []
    async with client_of(api) as client:
        for _ in range(3):
            await fetch_statuses(client, VIDS, out, **options)
            told.append((heard[-1].done, heard[-1].skipped, heard[-1].failed, heard[-1].total))
    assert told == [(25, 0, 3, 25), (25, 22, 0, 25), (25, 25, 0, 25)]


async def test_retries_of_all_shards_count(tmp_path):
    """A report has the retries of every shard, and its note of success is for people to read."""
    api = FakeApi(answers={VIDS[number]: [answer(503)] for number in (0, 11, 12, 21)})
    async with client_of(api) as client:
        report = await fetch_statuses(client, VIDS, tmp_path / "out", shard_size=10)
    assert (report.requests, report.retries) == (29, 4)
    note = (tmp_path / "out" / "_SUCCESS").read_text()
    assert note.startswith('{\n  "version": 1,\n')
    assert note.endswith("\n}\n")


async def test_progress_that_raises_is_logged_once(tmp_path, virtual_time, caplog):
    """What *on_progress* raises does not end the job."""
    heard = []

    def fail(progress: JobProgress) -> None:
        heard.append(progress)
        raise RuntimeError("no")

    async with client_of(FakeApi(seconds=2.0)) as client:
        await fetch_statuses(client, VIDS, tmp_path / "out", on_progress=fail)
    assert len(heard) == 1
    assert [record.message for record in caplog.records if record.exc_info] == [
        "on_progress.failed"
    ]
    check_contract(VIDS, tmp_path / "out")


async def test_a_shard_runs_anywhere():
    """A shard survives pickling, and runs with nothing but a client."""
    shard = pickle.loads(
        pickle.dumps(Shard(7, [Entry(VIDS[0], 1), Entry("nonsense", 2, is_valid=False)]))
    )
    seen = []
    async with client_of(FakeApi()) as client:
        result = await run_shard(client, shard, on_row=seen.append)
    assert [row[:60].count(b"-") for row in result.rows] == [4, 0]
    assert (sorted(seen), result.requests, result.retries) == (["image", "invalid"], 1, 0)
    assert pickle.loads(pickle.dumps(result)) == result


async def test_a_shard_does_not_wait_unless_asked_to():
    """By default a shard asks once for each record, whatever its state."""
    api = FakeApi(default=lambda vid: record(vid, state="processing"))
    shard = Shard(0, [Entry(VIDS[0], 1)])
    async with client_of(api) as client:
        (row,) = (await run_shard(client, shard)).rows
        assert (orjson.loads(row)["state"], api.total) == ("processing", 1)
        for name in ("timeout", "patience"):
            with pytest.raises(ConfigurationError, match=f"^{name} must be"):
                await run_shard(client, shard, **{name: -1.0})


async def test_a_shard_needs_nobody_to_listen():
    """Nobody needs to hear of single outcomes."""
    async with client_of(FakeApi()) as client:
        result = await run_shard(client, Shard(0, [Entry(VIDS[0], 1)]))
    assert result.rows[0].startswith(b'{"vid":"' + VIDS[0].encode())


async def test_a_shard_alone_reports_what_stops_it():
    """Without a job around it, a shard raises what the API said."""
    api = FakeApi(default=lambda vid: answer(402, {"message": "insufficient credit"}))
    async with client_of(api) as client:
        with pytest.raises(InsufficientCredit):
            await run_shard(client, Shard(0, [Entry(VIDS[0], 1)]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard_size": 0}, "shard_size must be a whole number"),
        ({"shard_size": True}, "shard_size must be a whole number"),
        ({"timeout": 0}, "timeout must be"),
        ({"patience": -1}, "patience must be"),
        ({"format": "xml"}, "format must be one of jsonl, csv, parquet"),
        ({"format": "csv"}, "does not fit the format csv"),
        ({"out": ""}, '^out is empty: name a file, a folder, or "-" for standard output'),
        ({"out": "out.json"}, "does not fit the format jsonl"),
        ({"out": "-", "format": "csv"}, "Standard output takes JSON lines only"),
        ({"out": "-", "retry_failed": True}, "Standard output cannot be resumed"),
        ({"out": "-", "resume": False}, "Standard output cannot be resumed"),
        ({"out": "-", "shard_size": 10}, "Standard output cannot be resumed"),
        ({"vids": 5}, "vids must be a path or an iterable of ids, not int"),
        ({"vids": b"x"}, "vids must be a path or an iterable of ids, not bytes"),
    ],
)
async def test_unusable_arguments_are_refused(tmp_path, options, said):
    """An argument that cannot be used is named, and nothing is sent or written."""
    api = FakeApi()
    wanted = {"vids": VIDS, "out": "out.jsonl", **options}
    vids, out = wanted.pop("vids"), wanted.pop("out")
    async with client_of(api) as client:
        place = out if out in ("", "-") else Path(tmp_path, out)
        with pytest.raises(ConfigurationError, match=said):
            await fetch_statuses(client, vids, place, **wanted)
    assert (api.total, list(tmp_path.iterdir())) == (0, [])
