"""
JSON bytes to models and back: the only module that knows how a record is spelled.

What drives decisions is strict: *vid* and *state* must be right or the record is
refused. What only describes is lenient, decided field by field in `FIELD_RULES`:
an odd value becomes ``None`` (``""`` for ids) and never fails a wait (U6, U7).

What is wrong is told by field and never by value, since any value may be a credential (E21).
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from typing import Any, cast

import attrs
import orjson

from ..models import Image, ImageState, SignedUrl, canonical_vid


__all__ = [
    "BOM",
    "FIELD_RULES",
    "WIRE_FIELDS",
    "WireError",
    "decode_json",
    "encode_image",
    "image_from_object",
    "image_to_object",
    "unknown_fields",
]

_MISSING = "is missing"  # null says no more than nothing
BOM = b"\xef\xbb\xbf"
_MOST_STATE_LETTERS = 100
_MOST_DIGITS = 18
_TOO_MANY = 10**_MOST_DIGITS
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,2})?")
_RATIO = re.compile(r"([0-9]{1,18})/([0-9]{1,18})")
_LONGEST_NUMBER = 41
_SHORTEST_TIMESTAMP = len("2024-02-01T12:17:32")
_KNOWN_STATES = {state.value: state for state in ImageState}


class WireError(ValueError):
    """
    Say that bytes are not JSON, or an object is not a record.

    Attributes:
        field: The path of the offending field, ``""`` for the whole.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


def decode_json(body: bytes) -> Any:
    """
    Read JSON strictly: UTF-8 (a BOM is tolerated, F-29), no NaN, bounded depth (E22).

    Raises:
        WireError: If it is not JSON.
    """
    try:
        return orjson.loads(body.removeprefix(BOM))
    except orjson.JSONDecodeError:
        pass
    # Raised out here, so that the decoder's error, which holds the whole document,
    # does not hang on ours (F-120).
    raise WireError("is not JSON")


# -- strict fields ---------------------------------------------------------------------


def _vid(value: Any, _: Any) -> str:
    vid = canonical_vid(value)
    if vid is None:
        raise WireError(_MISSING if value is None else "must be a canonical UUID", "vid")
    return vid


def _state(value: Any, _: Any) -> ImageState:
    if type(value) is str:
        if (known := _KNOWN_STATES.get(value)) is not None:
            return known  # five times as fast as asking the enum
        if 0 < len(value) <= _MOST_STATE_LETTERS and value.isprintable():
            return ImageState(value)
    wanted = f"must be a text of 1 to {_MOST_STATE_LETTERS} printable characters"
    raise WireError(_MISSING if value is None else wanted, "state")


# -- lenient fields --------------------------------------------------------------------


def _id(value: Any, _: Any) -> str:
    return value if type(value) is str else ""


def _text(value: Any, _: Any) -> str | None:
    return value if type(value) is str and value else None


def _count(value: Any, _: Any) -> int | None:
    """Read a number that cannot be negative, also from a text (U7)."""
    # `type`, since True is an int to isinstance.
    if type(value) is int:
        return value if 0 <= value < _TOO_MANY else None
    if type(value) is str:
        # Without isascii, the digits of every script would do.
        is_number = value.isdigit() and value.isascii() and len(value) <= _MOST_DIGITS
        return int(value) if is_number else None
    if type(value) is float and value.is_integer():
        return _count(int(value), int)
    return None


def _seconds(value: Any, _: Any) -> float | None:
    if type(value) is str:
        # The length first: what is remembered must not be a megabyte.
        return _seconds_of_text(value) if len(value) <= _LONGEST_NUMBER else None
    if _count(value, int) is not None:
        value = abs(float(value))  # there is a minus zero
    return value if type(value) is float and 0 <= value < _TOO_MANY else None


@lru_cache(maxsize=256)  # that of a still is always "0"
def _seconds_of_text(text: str) -> float | None:
    if not _DECIMAL.fullmatch(text):
        return None
    seconds = float(text)
    return seconds if seconds < _TOO_MANY else None


def _ratio(value: Any, _: Any) -> Fraction | None:
    if type(value) is int:
        return Fraction(value) if 0 <= value < _TOO_MANY else None
    text = repr(value) if type(value) is float else value
    # The length first: what is remembered must not be a megabyte.
    if type(text) is str and len(text) <= _LONGEST_NUMBER:
        return _ratio_of_text(text)
    return None


@lru_cache(maxsize=256)  # a service has few frame rates, and Fraction is slow to build
def _ratio_of_text(text: str) -> Fraction | None:
    if found := _RATIO.fullmatch(text):
        denominator = int(found[2])
        return Fraction(int(found[1]), denominator) if denominator else None
    if not _DECIMAL.fullmatch(text):
        return None
    ratio = Fraction(text)
    return ratio if max(ratio.numerator, ratio.denominator) < _TOO_MANY else None


def _time(value: Any, _: Any) -> datetime | None:
    """Read an ISO 8601 timestamp; one without a zone is UTC, as all of the API's are."""
    if type(value) is not str or len(value) < _SHORTEST_TIMESTAMP:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is UTC:
            return time
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _address(value: Any, _: Any) -> SignedUrl | None:
    """Keep the address of a file; whether it can be one is looked at when it is used."""
    return SignedUrl(value) if type(value) is str and value else None


Rule = Callable[[Any, Any], Any]
"""Reads a field's value; the second argument is the field's type, as cattrs gives it."""

FIELD_RULES: Mapping[str, Rule] = {
    "vid": _vid,
    "state": _state,
    "uid": _id,
    "pid": _id,
    "tid": _id,
    "created_time": _time,
    "expired_time": _time,
    "filename": _text,
    "size": _count,
    "codec_name": _text,
    "fps": _ratio,
    "duration": _seconds,
    "nb_frames": _count,
    "bitrate": _count,
    "width": _count,
    "height": _count,
    "download_cnt": _count,
    "last_category": _text,
    "url": _address,
    "thumb_url": _address,
}
"""How each field of a record is read, by its name on the wire."""


WIRE_FIELDS = [field for field in attrs.fields(Image) if field.name != "extra"]


# -- writing ---------------------------------------------------------------------------


def _spell_time(time: datetime) -> str:
    grain = "microseconds" if time.microsecond % 1000 else "milliseconds"
    return time.astimezone(UTC).isoformat(timespec=grain).replace("+00:00", "Z")


def _spell_ratio(ratio: Fraction) -> str:
    return f"{ratio.numerator}/{ratio.denominator}"


def _spell_seconds(seconds: float) -> str:
    return repr(seconds).removesuffix(".0")


# What is JSON already is missing here. What ffprobe measured is a text.
_SPELLINGS: Mapping[str, Callable[[Any], str]] = {
    "state": str,
    "created_time": _spell_time,
    "expired_time": _spell_time,
    "fps": _spell_ratio,
    "duration": _spell_seconds,
    "nb_frames": str,
    "bitrate": str,
    "url": attrgetter("text"),
    "thumb_url": attrgetter("text"),
}


def image_to_object(image: Image) -> dict[str, Any]:
    """Spell a record as the API does; what is not known is null."""
    record = {str(field.alias): getattr(image, field.name) for field in WIRE_FIELDS}
    for name, spell in _SPELLINGS.items():
        if record[name] is not None:
            record[name] = spell(record[name])
    for name, value in image.extra.items():
        record.setdefault(name, value)
    return record


# -- reading ---------------------------------------------------------------------------

_KNOWN_NAMES = frozenset(FIELD_RULES)


def unknown_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a record holds beyond the fields that have a rule."""
    if _KNOWN_NAMES.issuperset(record):
        return {}
    return {name: value for name, value in record.items() if name not in _KNOWN_NAMES}


class _Growing(Image):
    """
    Be an image while its fields are set.

    A frozen class sets each of its fields by a guarded call, which takes as long as
    reading the record. Its class becomes `Image` when it is whole.
    """

    __slots__ = ()
    # Both, since Python keeps one slot for the two: they make an assignment a plain one.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__


def _fast_reader() -> Callable[[Mapping[str, Any], str | None], Image]:
    """
    Write the function that reads a record, one line for each field.

    Takes a third of the time of the code that cattrs writes, which collects keywords.
    """
    lines = [
        f"image.{field.name} = {field.alias}_rule(get({field.alias!r}), None)"
        for field in WIRE_FIELDS
        if field.name != "vid"
    ]
    source = """
def read(record, vid):
    get = record.get
    image = new(Growing)
    found = get("vid")
    image.vid = vid if type(found) is str and found == vid else vid_rule(found, None)
    {lines}
    image.extra = unknown_fields(record)
    image.__class__ = Image
    return image
""".format(lines="\n    ".join(lines))
    names: dict[str, Any] = {f"{name}_rule": rule for name, rule in FIELD_RULES.items()}
    names |= {
        "new": object.__new__,
        "Growing": _Growing,
        "Image": Image,
        "unknown_fields": unknown_fields,
    }
    exec(compile(source, __file__, "exec"), names)  # noqa: S102 - all of it is from here
    return cast("Callable[[Mapping[str, Any], str | None], Image]", names["read"])


_read_fast = _fast_reader()


def image_from_object(record: Mapping[str, Any], vid: str | None = None) -> Image:
    """
    Make an image of a decoded JSON object.

    Args:
        record: The object.

        vid: The canonical id that it probably has; any other one is read too.

    Raises:
        WireError: If *vid* or *state* is missing or wrong; it names the field.
    """
    try:
        return _read_fast(record, vid)
    except WireError as error:
        fault = WireError(str(error), error.field)
    except AttributeError:
        fault = WireError("is not an object")
    # Raised out here: a traceback keeps its frames, and those above hold the record (F-120).
    raise fault


def encode_image(image: Image) -> bytes:
    """Write an image as the JSON object that the API would send."""
    return orjson.dumps(image_to_object(image))
