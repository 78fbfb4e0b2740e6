"""
JSON to records and back: what is strict, what is lenient, and what becomes of odd values.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

import attrs
import cattrs
import pytest
from cattrs import ClassValidationError, Converter, transform_error
from hypothesis import example, given
from hypothesis import strategies as st

from kokoon_async import Image, ImageState, configure_converter, make_converter
from kokoon_async._http.wire import (
    FIELD_RULES,
    WireError,
    decode_json,
    encode_image,
    image_from_object,
)
from kokoon_async.models import NIL_VID

from .canary import CANARY_SIGNATURE, assert_no_secret, contains_secret, presigned_url
from .strategies import (
    KNOWN_FIELDS,
    field_values,
    images,
    json_values,
    odd_records,
    paths,
    records,
    sample,
)


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
SAMPLE: Final[dict[str, Any]] = sample("image")
ADDRESS = (
    "https://sr-inner-api-storage-local.s3.amazonaws.com"
    "/video/539e3480-929a-11ee-ada2-51e4bfe11414/..."
)
BORN = datetime(2024, 2, 1, 12, 17, 32, 699_000, UTC)
SAMPLE_IMAGE = Image(
    vid=VID,
    state=ImageState.COMPLETED,
    uid="539e3480-929a-11ee-ada2-51e4bfe11414",
    pid=NIL_VID,
    tid=NIL_VID,
    created_time=BORN,
    expired_time=BORN + timedelta(days=14),
    filename="original.png",
    size=939_073,
    codec_name="png",
    fps=Fraction(25),
    duration=0.0,
    nb_frames=1,
    bitrate=0,
    width=640,
    height=360,
    download_cnt=0,
    last_category=None,
    url=ADDRESS,
    thumb_url=ADDRESS,
)


def read(**fields: Any) -> Image:
    """Read the smallest record with these fields."""
    return image_from_object({"vid": VID, "state": "pending", **fields})


def broken(record: Any) -> WireError:
    """Read what is no record, and return the error, which must be ours alone."""
    with pytest.raises(WireError) as caught:
        image_from_object(record)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return caught.value


# --- the vendor's samples -------------------------------------------------------------------------


@pytest.mark.fault("F-126")
def test_the_vendors_sample_converts_exactly() -> None:
    """Each field of the sample record becomes the value that it stands for."""
    image = image_from_object(decode_json(json.dumps(SAMPLE).encode()))
    assert image == SAMPLE_IMAGE
    assert (str(image.url), str(image.thumb_url)) == (ADDRESS, ADDRESS)
    assert image.is_original
    assert image.is_finished
    for field in attrs.fields(Image):
        assert type(getattr(image, field.name)) is type(getattr(SAMPLE_IMAGE, field.name))


def test_the_vendors_sample_is_written_as_it_came() -> None:
    """Writing the sample's image gives the sample's JSON again."""
    assert json.loads(encode_image(SAMPLE_IMAGE)) == SAMPLE


@pytest.mark.fault("F-126")
def test_every_documented_field_has_a_rule_and_a_place() -> None:
    """The sample's fields, the rules and the model's fields are the same."""
    fields = {field.alias for field in attrs.fields(Image)}
    assert KNOWN_FIELDS == FIELD_RULES.keys() == fields - {"extra"}


# --- slips of the vendor's documentation ----------------------------------------------------------


def test_slip_3_undocumented_duration_and_bitrate_are_read() -> None:
    """Slip 3: *duration* and *bitrate* are in the sample though not in the field table."""
    image = read(duration="12.5", bitrate="800000")
    assert (image.duration, image.bitrate) == (12.5, 800_000)


def test_slip_3_a_number_of_frames_may_be_text() -> None:
    """Slip 3: *nb_frames* is a number that the API writes as text; a number does as well."""
    assert read(nb_frames="300").nb_frames == read(nb_frames=300).nb_frames == 300


def test_slip_3_a_type_called_url_is_text() -> None:
    """Slip 3: what the table types as "url" is a text, even with an elided tail."""
    assert str(read(url=ADDRESS).url) == ADDRESS


@pytest.mark.parametrize(
    ("record", "category"),
    [
        (sample("uploaded_image"), None),
        (SAMPLE, None),
        ({**SAMPLE, "last_category": "general"}, "general"),
    ],
    ids=["absent after upload", "null", "set"],
)
def test_slip_4_last_category_is_absent_null_or_set(
    record: dict[str, Any], category: str | None
) -> None:
    """Slip 4: the category of the last task may be absent, null or a text."""
    image = image_from_object(record)
    assert image.last_category == category
    assert attrs.evolve(image, last_category=None) == SAMPLE_IMAGE


def test_slip_9_video_vocabulary_means_images() -> None:
    """Slip 9: a video's fields are unknown ones, and "video" in an address means nothing."""
    image = image_from_object({**SAMPLE, "is_rotated": False, "is_interlaced": True})
    assert image.extra == {"is_rotated": False, "is_interlaced": True}
    assert "/video/" in str(image.url)


# --- odd values: the decision table ---------------------------------------------------------------

KINDS = {
    "id": ("uid", "pid", "tid"),
    "text": ("filename", "codec_name", "last_category"),
    "count": ("size", "nb_frames", "bitrate", "width", "height", "download_cnt"),
    "seconds": ("duration",),
    "ratio": ("fps",),
    "time": ("created_time", "expired_time"),
    "address": ("url", "thumb_url"),
}
"""The fields that only describe, by the kind of their values."""

EMPTY = {"id": ""}
"""What a kind makes of an odd value, if not `None`."""

NUMBERS: list[tuple[object, int | None, float | None, Fraction | None]] = [
    # value              count        seconds   ratio
    ("0",                0,           0.0,      Fraction(0)),
    ("1",                1,           1.0,      Fraction(1)),
    ("007",              7,           7.0,      Fraction(7)),
    ("25/1",             None,        None,     Fraction(25)),
    ("30000/1001",       None,        None,     Fraction(30_000, 1_001)),
    ("0/0",              None,        None,     None),
    ("1/0",              None,        None,     None),
    ("0/1",              None,        None,     Fraction(0)),
    ("25/-1",            None,        None,     None),
    ("25/1/1",           None,        None,     None),
    ("25/",              None,        None,     None),
    ("1.5",              None,        1.5,      Fraction(3, 2)),
    ("23.976",           None,        23.976,   Fraction(2_997, 125)),
    ("1.",               None,        None,     None),
    (".5",               None,        None,     None),
    ("1e3",              None,        1000.0,   Fraction(1_000)),
    ("1e-3",             None,        0.001,    Fraction(1, 1_000)),
    ("1e99",             None,        None,     None),
    ("1e-99",            None,        1e-99,    None),
    ("1e999",            None,        None,     None),
    ("-1",               None,        None,     None),
    ("+1",               None,        None,     None),
    ("-0",               None,        None,     None),
    (" 1",               None,        None,     None),
    ("1\n",              None,        None,     None),
    ("1_000",            None,        None,     None),
    ("0x10",             None,        None,     None),
    ("٣",                None,        None,     None),
    ("²",                None,        None,     None),
    ("nan",              None,        None,     None),
    ("inf",              None,        None,     None),
    ("N/A",              None,        None,     None),
    ("9" * 16,           10**16 - 1,  1e16 - 1, Fraction(10**16 - 1)),
    ("9" * 18,           10**18 - 1,  None,     Fraction(10**18 - 1)),  # a float rounds it up
    ("9" * 19,           None,        None,     None),
    ("9" * 5_000,        None,        None,     None),
    ("0." + "3" * 19,    None,        None,     None),
    ("0." + "3" * 18,    None,        1 / 3,    None),
    (0,                  0,           0.0,      Fraction(0)),
    (1,                  1,           1.0,      Fraction(1)),
    (-1,                 None,        None,     None),
    (10**18 - 100,       10**18 - 100, 1e18 - 100, Fraction(10**18 - 100)),
    (10**18 - 1,         10**18 - 1,  None,     Fraction(10**18 - 1)),
    (10**18,             None,        None,     None),
    (2**64 - 1,          None,        None,     None),
    (10**400,            None,        None,     None),
    (10**5_000,          None,        None,     None),
    (-(10**5_000),       None,        None,     None),
    (0.0,                0,           0.0,      Fraction(0)),
    (-0.0,               0,           0.0,      None),
    (1.0,                1,           1.0,      Fraction(1)),
    (1.5,                None,        1.5,      Fraction(3, 2)),
    (29.97,              None,        29.97,    Fraction(2_997, 100)),
    (1 / 3,              None,        1 / 3,    Fraction("0.3333333333333333")),
    (-1.5,               None,        None,     None),
    (1e17,               10**17,      1e17,     Fraction(10**17)),
    (1e18,               None,        None,     None),
    (1e300,              None,        None,     None),
    (5e-324,             None,        5e-324,   None),
    (math.nan,           None,        None,     None),
    (math.inf,           None,        None,     None),
    (-math.inf,          None,        None,     None),
]  # fmt: skip

NO_VALUE: list[object] = [None, "", True, False, [], {}, ["1"], [1], {"value": 1}, b"1", [[[]]]]
"""What says nothing in any field."""

TIMES: list[tuple[object, datetime | None]] = [
    ("2024-02-01T12:17:32.699Z", BORN),
    ("2024-02-01T12:17:32.000Z", BORN.replace(microsecond=0)),
    ("2024-02-01T12:17:32Z", BORN.replace(microsecond=0)),
    ("2024-02-01T12:17:32.699123Z", BORN.replace(microsecond=699_123)),
    ("2024-02-01T12:17:32.699", BORN),
    ("2024-02-01 12:17:32.699Z", BORN),
    ("2024-02-01T12:17:32.699+00:00", BORN),
    ("2024-02-01T14:47:32.699+02:30", BORN),
    ("2024-02-01", None),
    ("2024-02-01T12:17", None),
    ("2024-02-30T12:17:32.699Z", None),
    ("2024-02-01T25:17:32.699Z", None),
    ("0001-01-01T00:00:00+23:59", None),
    ("9999-12-31T23:59:59-23:59", None),
    ("٢٠٢٤-02-01T12:17:32.699Z", None),
    ("\ud800024-02-01T12:17:32.699Z", None),
    ("2024-02-01T12:17:32.699Z" * 50_000, None),
    ("Thu, 01 Feb 2024 12:17:32 GMT", None),
    (1_706_789_852, None),
]

ADDRESSES: list[tuple[object, bool]] = [
    (ADDRESS, True),
    (presigned_url(), True),
    ("http://localhost:8080/a.png", True),
    ("https://h:65535/a", True),
    ("https://my_bucket.s3.example/a", True),
    ("https://[::1]:9000/a", True),
    ("https://h/", True),
    ("https://h/ü/画像.png?ä=ö", True),
    ("https://h/a%2Fb//../[c]?%zz&&=+#f", True),
    ("https://h/" + "a" * 1_000_000, True),
    ("https://h", False),  # no file
    ("https://h?a", False),
    ("https://h?a/b", False),
    ("https:///a", False),
    ("https://", False),
    ("https://h:65536/a", False),
    ("https://h:99999/a", False),
    ("https://h:/a", False),
    ("https://[zz]/a", False),
    ("https://[::1/a", False),
    ("https://user:pw@h/a", False),
    ("https://h\\@evil.example/a", False),
    ("https://ü.example/a", False),
    ("https://" + "a" * 1_000 + "/a", False),
    ("HTTPS://h/a", False),
    ("//h/a", False),
    ("/a", False),
    ("a.png", False),
    ("...", False),
    ("file:///etc/passwd", False),
    ("javascript:alert(1)//", False),
    ("data:image/png;base64,AAAA/", False),
    ("https://h/a b", False),
    ("https://h/a\r\nX-Evil: 1", False),
    ("https://h/\x00", False),
    ("https://h/\x1b[2J", False),
    ("https://h/\u202e", False),
    ("https://h/\u2028", False),
    ("https://h/\ud800", False),
    (" https://h/a", False),
    (1, False),
]


def name_of(value: object) -> str:
    """Name a value in a test's id, bounded."""
    if isinstance(value, int) and value.bit_length() > 100:
        return f"int of {value.bit_length()} bits"
    return ascii(value)[:30]


def decisions() -> list[Any]:
    """Unfold the table: a value, and what it becomes by the kind of the field."""
    rows: list[tuple[object, dict[str, object]]] = []
    for value, *numbers in NUMBERS:
        rows.append((value, dict(zip(("count", "seconds", "ratio"), numbers, strict=True))))
    rows += [(value, {"time": time}) for value, time in TIMES]
    rows += [(value, {"address": str(value) if good else None}) for value, good in ADDRESSES]
    rows += [(value, {kind: EMPTY.get(kind) for kind in KINDS}) for value in NO_VALUE]
    for value, expected in rows[: -len(NO_VALUE)]:
        for kind in ("id", "text"):
            expected[kind] = value if type(value) is str else EMPTY.get(kind)
    return [
        pytest.param(value, expected, id=f"{number} {name_of(value)}")
        for number, (value, expected) in enumerate(rows)
    ]


@pytest.mark.fault("F-35")
@pytest.mark.fault("F-37")
@pytest.mark.parametrize(("value", "expected"), decisions())
def test_odd_values_of_descriptive_fields(value: object, expected: dict[str, object]) -> None:
    """Each kind of field makes of each odd value what the table says, and never an error."""
    for kind, wanted in expected.items():
        for name in KINDS[kind]:
            image = read(**{name: value})
            (attribute,) = (field.name for field in attrs.fields(Image) if field.alias == name)
            found = getattr(image, attribute)
            if kind == "address":
                found = None if getattr(image, name) is None else str(getattr(image, name))
            assert (name, found) == (name, wanted)
            assert type(found) is type(wanted)
            assert attrs.evolve(image, **{name: EMPTY.get(kind)}) == read()


@pytest.mark.fault("F-36")
@pytest.mark.parametrize("kind", KINDS)
def test_absent_is_the_same_as_null(kind: str) -> None:
    """A descriptive field that is missing is as good as one that is null."""
    for name in KINDS[kind]:
        assert read(**{name: None}) == read()
        assert image_from_object({k: v for k, v in SAMPLE.items() if k != name}) == (
            image_from_object({**SAMPLE, name: None})
        )


def test_the_table_is_complete() -> None:
    """Every field is strict or has a kind."""
    assert {name for names in KINDS.values() for name in names} | {"vid", "state"} == KNOWN_FIELDS


def test_there_is_no_minus_zero() -> None:
    """Minus zero is zero, to the sign."""
    assert str(read(duration=-0.0).duration) == "0.0"


def test_frame_rates_are_remembered_only_if_they_are_short() -> None:
    """A server cannot fill the memory with frame rates of a megabyte."""
    assert read(fps="1" * 1_000_000).fps is None
    assert read(fps="29.97").fps is read(fps="29.97").fps


@given(st.text(max_size=12), paths)
@example("h:443", "a")
@example("[::1]", "")
@example("xn--", "")
@example("..", "?#")
def test_an_address_that_passed_can_be_used(host: str, path: str) -> None:
    """Whatever a server sends: an address that is there can be revealed and sent to."""
    url = read(url=f"https://{host}/{path}").url
    if url is not None:
        assert url.scheme == "https"
        assert url.raw_host
        assert url.user is None
        assert url.raw_path_qs.startswith("/")
        assert str(url).rstrip("?#").endswith(path.rstrip("?#"))


# --- strict fields --------------------------------------------------------------------------------

NOT_A_VID: list[Any] = [
    *("", 0, True, 1.5, [], {}, [VID], {"vid": VID}, b"bytes", VID.encode()),
    *(f"urn:uuid:{VID}", f"{{{VID}}}", VID.replace("-", ""), VID[:-1], f"{VID}0", f"{VID}\n"),
    *("../admin", VID.replace("1", "\u0661"), CANARY_SIGNATURE),
]
NOT_A_STATE: list[Any] = [
    *("", 0, True, 1.5, [], {}, ["completed"], {"state": "completed"}, b"completed"),
    *("x" * 101, "completed\n", "\x1b[2J", "a\u202eb", "\ud800"),
]


@pytest.mark.fault("F-35")
@pytest.mark.parametrize("value", NOT_A_VID, ids=lambda value: f"{value!r:.45}")
def test_a_record_needs_a_vid(value: Any) -> None:
    """A record whose *vid* is no UUID is refused; the field is named, its value never shown."""
    error = broken({"vid": value, "state": "pending"})
    assert (error.field, str(error)) == ("vid", "must be a canonical UUID")
    # The frame that was given the record holds it; who raises an error of ours drops the frames.
    assert_no_secret(error, ignoring=["traceback"])


@pytest.mark.fault("F-35")
@pytest.mark.parametrize("value", NOT_A_STATE, ids=lambda value: ascii(value)[:30])
def test_a_record_needs_a_state(value: Any) -> None:
    """A record whose *state* is no short, printable text is refused, without its value."""
    error = broken({"vid": VID, "state": value})
    assert (error.field, str(error)) == (
        "state",
        "must be a text of 1 to 100 printable characters",
    )


@pytest.mark.parametrize("name", ["vid", "state"])
def test_a_missing_strict_field_is_named(name: str) -> None:
    """A record without *vid* or *state*, or with null, is refused: the one that is missing is named."""
    error = broken({key: value for key, value in SAMPLE.items() if key != name})
    assert (error.field, str(error)) == (name, "is missing")
    assert str(broken({**SAMPLE, name: None})) == "is missing"


@pytest.mark.fault("F-120")
def test_a_refused_record_shows_nothing_of_itself() -> None:
    """No field of a refused record is in the error, its traceback or what hangs on it (E21)."""
    record = {
        "vid": f"not-{CANARY_SIGNATURE}",
        "state": {"secret": CANARY_SIGNATURE},
        "url": presigned_url(),
        "unknown": presigned_url(),
    }
    error = broken(record)
    assert not contains_secret(f"{error!r} {error} {vars(error)}")
    assert error.__context__ is None


@pytest.mark.parametrize(
    "record", [None, True, 1, 1.5, "text", "vid state", [], ["vid", "state"], [SAMPLE], b"{}"]
)
def test_only_an_object_is_a_record(record: Any) -> None:
    """What is no JSON object is refused as a whole."""
    error = broken(record)
    assert (error.field, str(error)) == ("", "is not an object")


def test_any_mapping_will_do() -> None:
    """A mapping that is no dict is an object too, known fields or not."""
    assert image_from_object(MappingProxyType(SAMPLE)) == SAMPLE_IMAGE
    assert image_from_object(MappingProxyType({**SAMPLE, "new": 1})).extra == {"new": 1}


@pytest.mark.parametrize("text", [VID.upper(), VID.title()])
def test_the_vid_is_put_into_lower_case(text: str) -> None:
    """A server that writes an id in another case means the same image."""
    assert image_from_object({"vid": text, "state": "pending"}).vid == VID


@pytest.mark.fault("F-39")
@pytest.mark.parametrize(
    "text", ["archived", "Completed", " completed", "x" * 100, "作成中", "a b"]
)
def test_an_unknown_state_is_kept_as_it_is(text: str) -> None:
    """A state that nobody documented is no reason to refuse a record."""
    state = read(state=text).state
    assert state == text
    assert not state.is_known
    assert not state.is_final


@pytest.mark.parametrize("state", ImageState)
def test_a_known_state_is_the_enums_own(state: ImageState) -> None:
    """The documented states are found by identity too."""
    assert read(state=state.value).state is state


# --- unknown fields -------------------------------------------------------------------------------


@pytest.mark.fault("F-36")
@given(st.dictionaries(st.text().filter(lambda name: name not in KNOWN_FIELDS), json_values))
def test_unknown_fields_are_kept(unknown: dict[str, Any]) -> None:
    """What this version does not know is kept as it came, and changes nothing else."""
    image = image_from_object({**SAMPLE, **unknown})
    assert image.extra == unknown
    assert attrs.evolve(image, extra={}) == SAMPLE_IMAGE


def test_fields_called_like_our_own_attributes_are_unknown() -> None:
    """A field called "extra" or "_url" does not reach the attribute of that name."""
    image = read(extra="x", _url=presigned_url(), _thumb_url=1)
    assert image.extra == {"extra": "x", "_url": presigned_url(), "_thumb_url": 1}
    assert image.url is None
    assert image_from_object(json.loads(encode_image(image))) == image


def test_an_unknown_field_never_replaces_a_known_one() -> None:
    """An image made by hand, with a known name in *extra*, is still written truly."""
    image = Image(VID, ImageState.PENDING, extra={"vid": "other", "state": "completed", "new": 1})
    written = json.loads(encode_image(image))
    assert (written["vid"], written["state"], written["new"]) == (VID, "pending", 1)


# --- there and back -------------------------------------------------------------------------------


@given(images)
def test_an_image_survives_json(image: Image) -> None:
    """Writing an image and reading it again gives the same image."""
    assert image_from_object(decode_json(encode_image(image))) == image


@given(images)
def test_structure_undoes_unstructure(image: Image) -> None:
    """For every converter that we made or taught, structure(unstructure(x)) is x."""
    for converter in (make_converter(), make_converter(detailed_validation=False)):
        assert converter.structure(converter.unstructure(image), Image) == image
        assert converter.loads(converter.dumps(image), Image) == image


@given(images)
def test_images_are_written_in_the_apis_own_types(image: Image) -> None:
    """What the API writes as text, number or null is written so."""
    written = json.loads(encode_image(image))
    assert written.keys() >= KNOWN_FIELDS
    for name, value in SAMPLE.items():
        kinds = {type(value), type(None)} | ({str} if name == "last_category" else set())
        assert type(written[name]) in kinds


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (BORN, "2024-02-01T12:17:32.699Z"),
        (BORN.replace(microsecond=0), "2024-02-01T12:17:32.000Z"),
        (BORN.replace(microsecond=1), "2024-02-01T12:17:32.000001Z"),
        (BORN.astimezone(timezone(timedelta(hours=9))), "2024-02-01T12:17:32.699Z"),
    ],
)
def test_times_are_written_like_the_vendors(time: datetime, text: str) -> None:
    """UTC with milliseconds and Z; finer only where a time is finer."""
    image = Image(VID, ImageState.PENDING, created_time=time)
    assert json.loads(encode_image(image))["created_time"] == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0"), (12.5, "12.5"), (3.0, "3"), (1e-7, "1e-07"), (1e17, "1e+17")]
)
def test_durations_are_written_as_text(seconds: float, text: str) -> None:
    """A duration is written as ffprobe would, and read again exactly."""
    image = Image(VID, ImageState.PENDING, duration=seconds)
    assert json.loads(encode_image(image))["duration"] == text
    assert image_from_object(json.loads(encode_image(image))) == image


@given(records)
def test_lenient_fields_never_fail_a_record(record: dict[str, Any]) -> None:
    """With *vid* and *state* right, nothing in any other field can make a record unreadable."""
    image = image_from_object(record)
    assert (image.vid, image.state) == (record["vid"], record["state"])
    assert set(image.extra) == record.keys() - KNOWN_FIELDS
    assert image_from_object(decode_json(encode_image(image))) == image


# --- the two readers -------------------------------------------------------------------------------


@given(records | odd_records | json_values)
def test_both_readers_agree(record: Any) -> None:
    """The client's reader and a converter's read the same image, or both refuse."""
    results: list[Image | None] = []
    for detailed in (False, True):
        try:
            converter = make_converter(detailed_validation=detailed)
            results.append(converter.structure(record, Image))
        except (ClassValidationError, ValueError, KeyError):
            results.append(None)
    try:
        ours = image_from_object(record)
    except WireError:
        ours = None
    assert results == [ours, ours]


@given(odd_records | field_values)
def test_nothing_but_wire_errors(record: Any) -> None:
    """What is no record raises `WireError`, naming a strict field or none."""
    field = reason = ""
    try:
        image_from_object(record)
    except WireError as error:
        field, reason = error.field, str(error)
    assert field in ("vid", "state", "")
    assert "@" not in reason


# --- converters of the user's own -----------------------------------------------------------------


@attrs.frozen
class Album:
    """A class of a user's, with images in it and dates in a form of its own."""

    title: str
    made: datetime
    images: list[Image]
    cover: Image | None = None


def album_converter(*, detailed: bool = True) -> Converter:
    """Make a converter as a user has it: whose dates are Unix time, whose texts are shouted."""
    converter = Converter(detailed_validation=detailed, forbid_extra_keys=True)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromtimestamp(value, UTC))
    converter.register_unstructure_hook(datetime, lambda time: int(time.timestamp()))
    converter.register_structure_hook(str, lambda value, _: value.upper())
    configure_converter(converter)
    return converter


ALBUM = {"title": "cats", "made": 0, "images": [SAMPLE, {**SAMPLE, "new": 1}], "cover": SAMPLE}


@pytest.mark.parametrize("detailed", [True, False])
def test_a_users_converter_reads_images_and_keeps_its_own_ways(*, detailed: bool) -> None:
    """Our rules hold inside images only; the user's hooks hold everywhere else."""
    converter = album_converter(detailed=detailed)
    album = converter.structure(ALBUM, Album)
    assert album.title == "CATS"
    assert album.made == datetime.fromtimestamp(0, UTC)
    assert album.images == [SAMPLE_IMAGE, attrs.evolve(SAMPLE_IMAGE, extra={"new": 1})]
    assert album.cover == SAMPLE_IMAGE
    assert converter.unstructure(album) == {**ALBUM, "title": "CATS"}


def test_a_users_converter_names_the_path() -> None:
    """Deep inside the user's own classes, cattrs says where the fault is, and not what it is."""
    bad = {**SAMPLE, "vid": CANARY_SIGNATURE}
    with pytest.raises(ClassValidationError) as caught:
        album_converter().structure({**ALBUM, "images": [SAMPLE, bad]}, Album)
    (problem,) = transform_error(caught.value, format_exception=lambda error, _: str(error))
    assert problem == "must be a canonical UUID @ $.images[1].vid"
    assert not contains_secret("".join(map(str, (caught.value, problem))))


@pytest.mark.parametrize("detailed", [True, False])
def test_a_users_converter_refuses_what_is_no_object(*, detailed: bool) -> None:
    """A list where an image should be is refused like any wrong value."""
    with pytest.raises((ValueError, cattrs.BaseValidationError)):
        album_converter(detailed=detailed).structure({**ALBUM, "images": [[SAMPLE]]}, Album)


def test_an_unconfigured_converter_is_left_alone() -> None:
    """Teaching one converter changes no other one, nor the global one."""
    album_converter()
    other: Mapping[str, Any] = Converter().unstructure(SAMPLE_IMAGE)
    assert isinstance(other["created_time"], datetime)
    with pytest.raises(Exception, match="structur"):
        cattrs.structure({**SAMPLE, "fps": "0/0"}, Image)


# --- bytes ----------------------------------------------------------------------------------------

BOM = b"\xef\xbb\xbf"

NOT_JSON = {
    "empty": b"",
    "blank": b" \r\n",
    "BOM only": BOM,
    "a million BOMs": BOM * 1_000_000,
    "BOM and damage": BOM + b'{"vid": ',
    "HTML": b"<!doctype html><title>Log in</title>",
    "cut": b'{"vid": "de5e9990',
    "two documents": b"{}{}",
    "depth bomb of lists": b"[" * 200_000 + b"]" * 200_000,
    "depth bomb of objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "depth 1025": b"[" * 1_025 + b"]" * 1_025,
    "NaN": b'{"duration": NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "1e999": b"[1e999]",
    "plus sign": b"[+1]",
    "leading zero": b"[01]",
    "single quotes": b"{'vid': 1}",
    "comment": b"{} // done",
    "trailing comma": b"[1,]",
    "control character": b'["\x00"]',
    "lone high surrogate": rb'["\ud800"]',
    "lone low surrogate": rb'["\udc00"]',
    "bad UTF-8": b'["\xff"]',
    "overlong UTF-8": b'["\xc0\xaf"]',
    "surrogate in UTF-8": b'["\xed\xa0\x80"]',
    "Latin-1": '["ü"]'.encode("latin-1"),
    "UTF-16": json.dumps(SAMPLE).encode("utf-16"),
    "UTF-32": json.dumps(SAMPLE).encode("utf-32"),
}


@pytest.mark.fault("F-38")
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_one_error(body: bytes) -> None:
    """Whatever is wrong with a body: a `WireError` that keeps nothing of it (E22)."""
    with pytest.raises(WireError) as caught:
        decode_json(body)
    assert (str(caught.value), caught.value.field) == ("is not JSON", "")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.fault("F-29")
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b' {"a": [1, 2.5, "x", true]}\n', {"a": [1, 2.5, "x", True]}),
        (BOM + b'{"a": 1}', {"a": 1}),
        (b"[" * 1_000 + b"]" * 1_000, None),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (rb'"\ud83d\ude00"', "😀"),
        (b"-0", 0),
    ],
    ids=["null", "plain", "BOM", "depth 1000", "duplicate key", "surrogate pair", "-0"],
)
def test_good_json_is_read(body: bytes, value: Any) -> None:
    """UTF-8 with or without a BOM, to a sane depth; of duplicate names the last counts."""
    decoded = decode_json(body)
    assert decoded == value or body.startswith(b"[[")


@pytest.mark.fault("F-37")
@pytest.mark.parametrize("digits", [18, 19, 30, 5_000])
def test_huge_numbers_are_bounded(digits: int) -> None:
    """A number of thousands of digits is refused or becomes a float, in no time."""
    body = b'{"vid": "%b", "state": "pending", "size": %b}' % (VID.encode(), b"9" * digits)
    size: object = "refused"
    with contextlib.suppress(WireError):
        size = image_from_object(decode_json(body)).size
    assert size in ([10**18 - 1] if digits == 18 else [None, "refused"])


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_decoding_raises_nothing_but_wire_errors(body: bytes) -> None:
    """Any bytes are JSON, and read as the standard library does, or a `WireError`."""
    try:
        value = decode_json(body)
    except WireError:
        return
    assert value == json.loads(body)
