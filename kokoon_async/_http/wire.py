"""
JSON bytes to models and back: the only module that knows how a record is spelled.

What drives decisions is strict: *vid* and *state* must be right or the record is
refused. What only describes is lenient, decided field by field in `FIELD_RULES`:
an odd value becomes ``None`` (``""`` for ids) and never fails a wait (U6, U7).

A record is read by generated code without bookkeeping. Only a record that fails is
read a second time, slowly, to say which field is at fault; values are never printed,
since any of them may be a credential (E21).
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import Any

import attrs
import orjson
from cattrs import ClassValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.orjson import OrjsonConverter
from cattrs.preconf.orjson import make_converter as make_orjson_converter

from ..models import Image, ImageState, SignedUrl, canonical_vid


__all__ = [
    "FIELD_RULES",
    "WireError",
    "configure_converter",
    "decode_json",
    "encode_image",
    "image_from_object",
    "make_converter",
]

_MOST_STATE_LETTERS = 100
_INTEGER = re.compile(r"\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_RATIO = re.compile(r"(\d{1,18})(?:/(\d{1,18}))?", re.ASCII)
_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,4})?(?:[/?#]\S*)?", re.ASCII)
_TOO_MANY = 1 << 63
_SHORTEST_TIMESTAMP = len("2024-02-01T12:17:32")


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
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if not body.startswith(b"\xef\xbb\xbf"):
            reason = "is not JSON"
        else:
            return decode_json(body[3:])
    # Raised out here, so that the decoder's error, which holds the whole document,
    # does not hang on ours (F-120).
    raise WireError(reason)


# -- strict fields ---------------------------------------------------------------------


def _vid(value: Any, _: Any) -> str:
    vid = canonical_vid(value)
    if vid is None:
        reason = "must be a canonical UUID"
        raise ValueError(reason)
    return vid


def _state(value: Any, _: Any) -> ImageState:
    if type(value) is not str or not 0 < len(value) <= _MOST_STATE_LETTERS:
        reason = f"must be a text of 1 to {_MOST_STATE_LETTERS} characters"
        raise ValueError(reason)
    return ImageState(value)


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
        return int(value) if _INTEGER.fullmatch(value) else None
    if type(value) is float and value.is_integer():
        return _count(int(value), int)
    return None


def _seconds(value: Any, _: Any) -> float | None:
    if type(value) is str and _DECIMAL.fullmatch(value):
        return float(value)
    if type(value) in (int, float) and 0 <= value < math.inf:
        return float(value)
    return None


def _ratio(value: Any, _: Any) -> Fraction | None:
    if type(value) is str:
        return _ratio_of_text(value)
    if type(value) is int and 0 <= value < _TOO_MANY:
        return Fraction(value)
    if type(value) is float and value >= 0:
        return _ratio_of_text(repr(value))
    return None


@lru_cache(maxsize=256)  # a service has few frame rates, and Fraction is slow to build
def _ratio_of_text(text: str) -> Fraction | None:
    if found := _RATIO.fullmatch(text):
        denominator = int(found[2] or 1)
        return Fraction(int(found[1]), denominator) if denominator else None
    return Fraction(text) if _DECIMAL.fullmatch(text) else None


def _time(value: Any, _: Any) -> datetime | None:
    """Read an ISO 8601 timestamp; one without a zone is UTC, as all of the API's are."""
    if type(value) is not str or len(value) < _SHORTEST_TIMESTAMP:
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _address(value: Any, _: Any) -> SignedUrl | None:
    return SignedUrl(value) if type(value) is str and _WEB_ADDRESS.fullmatch(value) else None


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


# -- the converter ---------------------------------------------------------------------


def _spell_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _image_to_object(image: Image) -> dict[str, Any]:
    """Spell a record as the API does: what ffprobe measured is text, absent is null."""
    record = {name: getattr(image, name) for name in FIELD_RULES} | dict(image.extra)
    for name in ("created_time", "expired_time"):
        record[name] = record[name] and _spell_time(record[name])
    for name in ("url", "thumb_url", "nb_frames", "bitrate"):
        record[name] = None if record[name] is None else str(record[name])
    if image.fps is not None:
        record["fps"] = f"{image.fps.numerator}/{image.fps.denominator}"
    if image.duration is not None:
        record["duration"] = f"{image.duration:.9f}".rstrip("0").rstrip(".")
    record["state"] = image.state.value
    return record


def _image_reader(converter: Converter, *, detailed: bool) -> Callable[[Any, Any], Image]:
    overrides: dict[str, Any] = {
        field.name: override(rename=field.alias, struct_hook=FIELD_RULES[str(field.alias)])
        for field in attrs.fields(Image)
        if field.alias in FIELD_RULES
    }
    read_known = make_dict_structure_fn(
        Image,
        converter,
        _cattrs_detailed_validation=detailed,
        _cattrs_forbid_extra_keys=False,
        extra=override(omit=True),
        **overrides,
    )
    known = FIELD_RULES.keys()

    def read_image(record: Any, _: Any) -> Image:
        image = read_known(record, Image)
        if unknown := record.keys() - known:
            return attrs.evolve(image, extra={name: record[name] for name in sorted(unknown)})
        return image

    return read_image


def configure_converter(converter: Converter) -> None:
    """
    Teach a cattrs converter of yours to read and write `Image`.

    Nothing else changes: the rules sit on this one class, so your own classes
    keep their own treatment of dates, numbers and texts.
    """
    converter.register_structure_hook(
        Image, _image_reader(converter, detailed=converter.detailed_validation)
    )
    converter.register_unstructure_hook(Image, _image_to_object)


def make_converter(*, detailed_validation: bool = True) -> OrjsonConverter:
    """Build a cattrs converter for JSON that reads and writes `Image`."""
    converter = make_orjson_converter(detailed_validation=detailed_validation)
    configure_converter(converter)
    return converter


_read_fast = _image_reader(Converter(detailed_validation=False), detailed=False)
_read_detailed = _image_reader(Converter(detailed_validation=True), detailed=True)


def image_from_object(record: Mapping[str, Any]) -> Image:
    """
    Make an image of a decoded JSON object.

    Raises:
        WireError: If *vid* or *state* is missing or wrong; it names the field.
    """
    try:
        return _read_fast(record, Image)
    except (KeyError, ValueError, TypeError):
        pass  # told in detail below
    problem = "is not a record @ $"
    try:
        _read_detailed(record, Image)
    except ClassValidationError as group:
        problem = transform_error(group, format_exception=_reason)[0]
    reason, _, path = problem.partition(" @ $")
    raise WireError(reason, path.removeprefix("."))


def _reason(error: BaseException, _: type | None) -> str:
    """Say what is wrong with a field, never what it holds."""
    return "is missing" if isinstance(error, KeyError) else str(error)


def encode_image(image: Image) -> bytes:
    """Write an image as the JSON object that the API would send."""
    return orjson.dumps(_image_to_object(image))
