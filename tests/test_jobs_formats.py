"""Rows in each format: what is written reads back, and what is no part is told."""

from __future__ import annotations

import io

import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest

from kokoon_async import Image, Outcome, ServerError, make_converter
from kokoon_async.jobs._formats import FORMATS
from kokoon_async.jobs._parquet import make_format
from kokoon_async.jobs._rows import COLUMNS, make_row
from kokoon_async.jobs._shards import Entry

from .bulk_api import make_vids
from .fakes import VID


STATES = [
    *(None, "completed", "warming_up", "=1+1", "'=1+1", "''=", "+", "-x", "@x", "\tx", "'x", "''x"),
    *("a\rb", "a\nb", "a\r\nb", '"', ",", "\\", "é", "{", "null"),
]
OUTCOMES = [("image" if number % 3 else "timed_out", state) for number, state in enumerate(STATES)]


def row_of(vid, outcome, state, **fields):
    """Make a row as a JSON object with all columns."""
    columns = {**dict.fromkeys(COLUMNS), "vid": vid, "outcome": outcome, "state": state}
    return orjson.dumps({**columns, **fields})


def rows_of(outcomes, **fields):
    """Make a row for each outcome."""
    vids = make_vids(len(outcomes))
    return [row_of(vid, *outcome, **fields) for vid, outcome in zip(vids, outcomes, strict=True)]


@pytest.fixture(params=FORMATS)
def form(request):
    """Give a format."""
    return make_format(request.param)


def test_a_row_of_an_image():
    """What is known stands there, addresses without query and fragment, which are credentials."""
    addresses = {"url": "https://host/1.png?sig=s?&b=c#d?", "thumb_url": "https://host/2.png#s?b"}
    record = {"vid": VID, "state": "completed", "width": 640, **addresses}
    image = make_converter().structure(record, Image)
    kind, row = make_row(Entry(VID, 7), Outcome(VID, image=image), 3)
    shown = {name: value for name, value in orjson.loads(row).items() if value is not None}
    assert shown.pop("fetched_at").endswith("Z")
    assert kind == shown.pop("outcome") == "image"
    assert shown == {
        "vid": VID,
        "state": "completed",
        "width": 640,
        "attempts": 3,
        "line": 7,
        "url": "https://host/1.png",
        "thumb_url": "https://host/2.png",
    }


def test_a_row_of_an_error():
    """The class and the words of an error stand there."""
    error = ServerError("The API failed.", status=500)
    kind, row = make_row(Entry(VID, 7), Outcome(VID, error=error), 3)
    told = orjson.loads(row)
    assert kind == told["outcome"] == "failed"
    assert (told["error_type"], told["error_message"]) == ("ServerError", "The API failed.")


def test_outcomes_read_back(form):
    """The outcome and the state of each row are read back, whatever a server calls a state."""
    assert form.outcomes(form.encode(rows_of(OUTCOMES))) == OUTCOMES


def test_some_rows_are_replaced(form):
    """Rows are replaced by their position, and the others are left as they are."""
    new = dict(zip([2, 0, 7], rows_of([("failed", None)] * 3, line=1), strict=True))
    content = form.replace(form.encode(rows_of(OUTCOMES)), new)
    expected = [("failed", None) if place in new else was for place, was in enumerate(OUTCOMES)]
    assert form.outcomes(content) == expected


def test_parts_are_joined(form):
    """The joined file has the rows of all parts, in order, and reads as a part does."""
    parts = [rows_of(OUTCOMES[:5]), rows_of(OUTCOMES[5:6]), rows_of(OUTCOMES[6:])]
    target = io.BytesIO()
    form.join(map(form.encode, parts), target)
    assert form.outcomes(target.getvalue()) == OUTCOMES


def test_rows_of_megabytes(form):
    """A row may be longer than the blocks in which a library reads."""
    rows = rows_of(OUTCOMES[:2], last_category="x" * (3 << 20))
    assert form.outcomes(form.encode(rows)) == OUTCOMES[:2]


def parquet(rows_per_group=None, **columns):
    """Write a table as Parquet."""
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, row_group_size=rows_per_group)
    return sink.getvalue()


@pytest.mark.fault("F-96")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("csv", b"vid,outcome\r\nx,image\r\n", "index out of range"),
        ("csv", b"\xff", "can't decode byte"),
        ("csv", b'"' + b"x" * 200_000, "field larger than field limit"),
        ("parquet", b"", "Parquet file size is 0 bytes"),
        ("parquet", b"PAR1PAR1PAR1", "Parquet file size is 12 bytes"),
        (
            "parquet",
            parquet(outcome=["image"], state=[1]),
            r"Its columns are others: outcome: string\sstate: int64",
        ),
        ("parquet", parquet(outcome=["image", None], state=["x", "y"]), "Its columns are others"),
        (
            "parquet",
            parquet(outcome=["image"] * 100_000, state=["completed"] * 100_000),
            r"It has 1?\d{3} bytes, and row groups of \[100000\] rows",
        ),
        (
            "parquet",
            parquet(2_000, outcome=["image"] * 40_000, state=["completed"] * 40_000),
            r"It has \d{4} bytes, and row groups of \[2000, 2000, .* rows",
        ),
    ],
    ids=["short", "binary", "long", "empty", "magic", "types", "nulls", "claims", "many claims"],
)
def test_what_is_no_part(name, content, said):
    """What cannot be read as a part is told, before it costs memory: few bytes may claim much."""
    with pytest.raises(ValueError, match=said):
        make_format(name).outcomes(content)


def test_a_part_in_parquet_may_have_an_empty_row_group():
    """No rows are not too many."""
    nothing = pa.array([], pa.string())
    assert make_format("parquet").outcomes(parquet(outcome=nothing, state=nothing)) == []
