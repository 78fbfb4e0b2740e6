"""
What is fuzzed: functions of bytes that anybody may send, or write to a job's folder.

Each target raises nothing but an `AssertionError`, and that only for a defect: what it calls either
gives what it promises or raises what it declares. `fuzz.py` runs them with atheris for as long as one
likes; `test_fuzz.py` replays the corpus here, and lets Hypothesis try a little.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import math
import os
import re
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from multidict import CIMultiDict, CIMultiDictProxy

from kokoon_async import ConfigurationError, Image, InvalidVid, JobError, KokoonError, Learned
from kokoon_async._checks import base_url_from, vid_from
from kokoon_async._http.bodies import MOST_RECORD_BYTES, BodyFault, decoded
from kokoon_async._http.hints import longest_hint
from kokoon_async._http.protocol import Response, asks_to_brake, is_transient, read_image
from kokoon_async.jobs._formats import Csv, Format, Jsonl
from kokoon_async.jobs._layout import JobSpec, PartName, Success, is_ours
from kokoon_async.jobs._lines import Lines
from kokoon_async.jobs._parquet import Parquet
from kokoon_async.jobs._rows import COLUMNS

from .raw_server import sample_record


Target = Callable[[bytes], None]

VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
MOST_SECONDS = 1.0
_WEEK = 7 * 86_400
_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STATUSES = [*range(100, 600), 0, 99, 600, 999]

_PARQUET = Parquet()

# In memory if there is such a place: a million small files.
_FOLDER = tempfile.TemporaryDirectory(
    dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="kokoon-fuzz-"
)


class Defect(AssertionError):
    """A target raised something."""


class TooSlow(Defect):
    """One call took longer than a second of this process's time."""


def timed(target: Target) -> Target:
    """Let a target fail if it takes too long, however busy the machine is; say what made it fail."""

    @functools.wraps(target)
    def run(data: bytes) -> None:
        began = time.process_time()
        try:
            target(data)
        except Exception as error:
            raise Defect(f"{target.__name__}({data!r:.1000}): {error!r}") from error
        if time.process_time() - began > MOST_SECONDS:
            raise TooSlow(f"{target.__name__} took {time.process_time() - began:.1f} s")

    return run


def answer(status: int, body: bytes, **headers: str) -> Response:
    """Make an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, CIMultiDictProxy(CIMultiDict(named)), body, lambda: None)


def check_error(error: KokoonError) -> None:
    """Check that an error is one to be shown: short, one line, nothing that moves a terminal."""
    assert str(error).isprintable(), ascii(str(error))
    assert len(str(error)) < 1000
    assert len(repr(error)) <= 500


# -- answers -------------------------------------------------------------------------------------


@timed
def record(data: bytes) -> None:
    """Read the body of a successful answer."""
    try:
        image = read_image(answer(200, data), VID)
    except KokoonError as error:
        check_error(error)
        return
    assert type(image) is Image
    assert image.vid == VID
    assert all(
        number is None or (0 <= number < math.inf)
        for number in (image.size, image.width, image.height, image.duration, image.fps)
    )


@timed
def error_body(data: bytes) -> None:
    """Read an answer of any status, with a body and a `Retry-After`."""
    status = _STATUSES[int.from_bytes(data[:2]) % len(_STATUSES)]
    hint, _, body = data[2:].partition(b"\n")
    response = answer(status, body, Retry_After=hint.decode("latin-1"), Date="x")
    asks_to_brake(response)
    try:
        image = read_image(response, VID)
    except KokoonError as error:
        check_error(error)
        is_transient(error)
    else:
        assert 200 <= status < 300
        assert image.vid == VID


@timed
def packed_body(data: bytes) -> None:
    """Unpack a body."""
    encoding = ["gzip", "deflate", "br", "gzip, gzip"][data[0] % 4] if data else None
    for lenient in (False, True):
        with contextlib.suppress(BodyFault):
            assert len(decoded(data[1:], encoding, lenient=lenient)) <= max(
                MOST_RECORD_BYTES, len(data)
            )


@timed
def retry_after(data: bytes) -> None:
    """Read hints, one on a line, and a date before them."""
    date, *hints = data.decode("latin-1").split("\n")
    seconds = longest_hint(hints, date)
    assert seconds is None or 0 <= seconds <= _WEEK


# -- what users give -----------------------------------------------------------------------------


@timed
def vid(data: bytes) -> None:
    """Take a text for an image id."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = vid_from(text)
    except InvalidVid as error:
        check_error(error)
    else:
        assert _CANONICAL.fullmatch(found)
        assert found == str(uuid.UUID(text))


@timed
def base_url(data: bytes) -> None:
    """Take a text for the address of the API."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        url = base_url_from(text, allow_plain_http=False)
    except ConfigurationError as error:
        check_error(error)
        return
    assert url.scheme == "https" or url.raw_host in ("localhost", "::1") or "127." in str(url)
    assert url.user is None
    assert url.password is None
    assert not url.query_string
    assert not url.fragment
    assert str(url).isascii()
    assert not re.search(r"[\s\x00-\x1f\x7f]", str(url))


@timed
def learned(data: bytes) -> None:
    """Read what a policy had learned."""
    try:
        policy = Learned.from_json(data.decode("utf-8", "surrogateescape"))
    except ConfigurationError as error:
        check_error(error)
        return
    assert Learned.from_json(policy.to_json()) == policy


# -- a job's folder and input --------------------------------------------------------------------


def _written(data: bytes) -> Path:
    path = Path(_FOLDER.name, f"file-{os.getpid()}")
    path.write_bytes(data)
    return path


@timed
def job_file(data: bytes) -> None:
    """Read what a job was started with."""
    spec = JobSpec("jsonl", 1000, wait=False, base_url="https://host/v3")
    with contextlib.suppress(JobError):
        spec.check(_written(data))


@timed
def success_file(data: bytes) -> None:
    """Read the note of success."""
    try:
        success = Success.read(_written(data))
    except JobError:
        return
    assert success is not None
    assert success.tally.ids >= success.tally.failed >= 0
    success.to_json()


@timed
def part_name(data: bytes) -> None:
    """Read the name of a file in a job's folder."""
    name = data.decode("utf-8", "surrogateescape")
    part = PartName.parse(name)
    assert part is None or (is_ours(name) and PartName.parse(str(part)) == part)


@timed
def jsonl_part(data: bytes) -> None:
    """Read a part in JSON lines."""
    _read_part(Jsonl(), data)


@timed
def csv_part(data: bytes) -> None:
    """Read a part in CSV."""
    _read_part(Csv(), data)


@timed
def parquet_part(data: bytes) -> None:
    """Read a part in Parquet."""
    _read_part(_PARQUET, data)


def _read_part(form: Format, data: bytes) -> None:
    try:
        found = form.outcomes(data)
    except ValueError:
        return
    for outcome, state in found:
        assert type(outcome) is str
        assert state is None or type(state) is str


@timed
def input_lines(data: bytes) -> None:
    """Cut an input into lines, whatever the blocks are."""
    size = 1 + (data[0] % 50 if data else 0)
    lines = Lines("-")
    with contextlib.suppress(JobError):
        for start in range(0, len(data), size):
            lines.feed(data[start : start + size])
        lines.feed(b"")
        assert lines.count <= data.count(b"\n") + data.count(b"\r") + 1
        assert all(text and text == text.strip() for _, text in lines.ready)


# -- the corpus ----------------------------------------------------------------------------------

_RECORD = json.dumps(sample_record(VID)).encode()
_ROW = json.dumps(
    {**dict.fromkeys(COLUMNS), "vid": VID, "outcome": "image", "state": "completed"},
    separators=(",", ":"),
).encode()
_PART = _PARQUET.encode([_ROW] * 3)


def _table(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


_NOTE = {
    "version": 1, "ids": 3, "outcomes": {"image": 2, "failed": 1}, "states": {"completed": 2},
    "shards": 1, "duplicates": 0, "digest": "x", "output": {"size": 1, "crc32": "00000000"},
}  # fmt: skip


def _spoiled(text: bytes, **fields: object) -> list[bytes]:
    return [
        json.dumps({**json.loads(text), name: value}).encode() for name, value in fields.items()
    ]


CORPUS: dict[Target, list[bytes]] = {
    record: [
        *(_RECORD, b"", b"null", b"[]", b"{}", b"\xff", b"[" * 3000, b'{"vid":' * 2000, b"NaN"),
        *_spoiled(
            _RECORD, vid=None, state=5, size=-1, fps="1/0", duration="1e999", width=10**400,
            url="file:///etc", thumb_url="https://[", filename="\x1b[2J\r\n", created_time="9" * 99,
            extra={"a": [1]}, message="no",
        ),
        _RECORD[:-20], b"\xef\xbb\xbf" + _RECORD, b'{"message": "fail to get result."}',
    ],
    error_body: [
        status.to_bytes(2) + rest
        for status in (0, 100, 204, 300, 301, 302, 304, 329, 400, 403, 499, 500, 503)
        for rest in (
            b"1\n{}", b"\n<html>", b'-1\n{"message": "insufficient credit"}', b"inf\n\x1b[2J\xff",
            b'9\n{"message": "' + b"x" * 2000 + b'"}', b'Thu, 01 Jan 2026 00:00:00 GMT\n{"message": 5}',
        )
    ],
    packed_body: [
        b"", b"\0" + gzip.compress(_RECORD, mtime=0), b"\1" + zlib.compress(_RECORD),
        b"\0" + gzip.compress(bytes(1 << 21), mtime=0), b"\0" + gzip.compress(_RECORD, mtime=0)[:-9],
        b"\1" + zlib.compress(_RECORD)[2:-4], b"\2abc", b"\3" + gzip.compress(b"", mtime=0),
    ],
    retry_after: [
        b"Sun, 06 Nov 1994 08:49:37 GMT\n" + hint
        for hint in (
            b"120", b"", b"-1", b"1.5", b"inf", b"nan", b"1_000", b"\xb2", b"9" * 5000, b"0x10",
            b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 9999 08:49:37 GMT\n5", b"5\n7\n",
            b"Thu, 30 Feb 2023 00:00:00 GMT", b"Sun, 06 Nov 1994 08:49:37 -0000",
        )
    ] + [b"no date\n7"],
    vid: [
        VID.encode(), VID.upper().encode(), b"", b"{" + VID.encode() + b"}", VID.encode() + b"\n",
        b"urn:uuid:" + VID.encode(), VID.replace("-", "").encode(), b"../admin", b"%2f", b"\xff" * 36,
        "\u0663e5e9990-c0fb-11ee-961f-d12490e606ad".encode(), b"\0" * 36, b"x" * 100_000,
    ],
    base_url: [
        b"https://host/v3", b"http://localhost:8080/", b"http://127.0.0.1", b"https://[::1]:9/x",
        b"http://host", b"https://u:p@host", b"https://host?q", b"https://host#f", b"ftp://host", b"",
        b"https://", b"https://host:99999", b"https://\xc3\xa4.example", b"https://h\nost", b"//host",
        b"https://[fe80::1%25eth0]/", b"https://xn--/", b"https://h/%zz", b"https://" + b"a." * 300,
        b"https://[fe8%0::1%25eth0]/", b"https://[:%3a-:1]:@/x", b"https://host:0", b"https://host/..//.", b"https://h\\x", b"http://0x7f.1", b"\xed\xa0\x80",
    ],
    learned: [
        Learned().to_json().encode(), b"", b"{}", b"null", b'{"version": 2}', b"[" * 5000,
        Learned().to_json().replace("1", "-1").encode(), Learned().to_json().replace("0", "1e999").encode(),
    ],
    job_file: [
        JobSpec("jsonl", 1000, wait=False, base_url="https://host/v3").to_json(),
        JobSpec("csv", 9, wait=True, base_url="https://other").to_json(), b"", b"{}", b"[]",
        b'{"version": 1}', b'{"version": 99}', b'{"version": true}', b"\xff", b"[" * 5000,
    ],
    success_file: [
        json.dumps(_NOTE).encode(), b"", b"{}", b'{"version": 2}',
        *_spoiled(
            json.dumps(_NOTE).encode(), outcomes={"image": "x"}, states={"a": None}, shards=True,
            output={}, duplicates=-1, digest=None,
        ),
        *_spoiled(json.dumps(_NOTE).encode(), output={"size": "x", "crc32": 5}),
    ],
    part_name: [
        b"part-000000-0123456789abcdef-01234567.jsonl", b"_part-000000-0123456789abcdef-01234567.csv.damaged",
        b"_job.json", b"_SUCCESS", b"_tmp-00", b"_seen-00", b"", b".DS_Store", b"part-000000-x-y.jsonl",
        "part-\u0660\u0661\u0662\u0663\u0664\u0665-0123456789abcdef-01234567.jsonl".encode(), b"part-" + b"9" * 5000,
        b"part-" + b"9" * 5000 + b"-0123456789abcdef-01234567.jsonl",
    ],
    jsonl_part: [
        _ROW + b"\n", _ROW, b"", _ROW + b"\n" + _ROW + b"\n", _ROW.replace(b"completed", b"\\ud800") + b"\n",
        _ROW.replace(b"completed", b"\xff") + b"\n", _ROW.replace(b"completed", b"\\x") + b"\n",
        b'{"vid":"' + b"\\" * 50_000, (b'{"vid":"' * 20_000),
    ],
    csv_part: [
        Csv().encode([_ROW]), b"", b"a\n", b'"', b"\xff", b"a,b\nc", b"\0", b"a" * 140_000 + b"\nb,c,d",
        b'"a\r"b', b"a,b,c\n\n",
    ],
    parquet_part: [
        _PART, b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(4) + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", _PART[:-1],
        _PART[:-9], _PART[4:], _PART[: len(_PART) // 2] + _PART[-8:], _PART.replace(b"outcome", b"0utcome"),
        _table(vid=[VID]), _table(outcome=["image"]), _table(outcome=["image"], state=[None]),
        _table(outcome=[None], state=[None]), _table(outcome=[1], state=[2.5]),
        _table(outcome=[["image"]], state=[{"a": 1}]), _table(outcome=[b"\xff"], state=["x"]),
        _table(outcome=["image"] * 100_000, state=["completed"] * 100_000),
    ],
    input_lines: [
        VID.encode() + b"\n", b"\xef\xbb\xbf# comment\r\n" + VID.encode(), b"\xff\xfea\0", b"\xfe\xff",
        b"x" * 10_000, b"\n" * 1000, b"\x1c\x85\n a \n", b"\xe2\x80\xa8\n",
    ],
}  # fmt: skip

TARGETS: dict[str, Target] = {target.__name__: target for target in CORPUS}
