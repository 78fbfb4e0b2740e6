"""What became of an id, as one flat row; the same columns in every format."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from .._waiting.outcomes import Outcome
from ..errors import ImageFailed, ImageNotFound, KokoonError, WaitError, WaitTimedOut
from ..models import Image, ImageState, SignedUrl
from ._shards import Entry


__all__ = ["COLUMNS", "RETRYABLE", "ColumnType", "invalid_row", "kind_of", "make_row"]

ColumnType = Literal["text", "integer", "number", "time"]

COLUMNS: Mapping[str, ColumnType] = {
    "vid": "text",
    "outcome": "text",
    "state": "text",
    "uid": "text",
    "pid": "text",
    "tid": "text",
    "created_time": "time",
    "expired_time": "time",
    "filename": "text",
    "size": "integer",
    "codec_name": "text",
    "fps": "text",  # a ratio such as 30000/1001, which no number holds
    "duration": "number",
    "nb_frames": "integer",
    "bitrate": "integer",
    "width": "integer",
    "height": "integer",
    "download_cnt": "integer",
    "last_category": "text",
    "url": "text",
    "thumb_url": "text",
    "error_type": "text",
    "error_message": "text",
    "attempts": "integer",
    "line": "integer",
    "fetched_at": "time",
}
"""The columns of the output, in their order; those between state and error are the record's."""

RETRYABLE = frozenset({"failed", "timed_out"})
"""The outcomes that another run may change: *retry_failed* asks for these again."""

_NOTHING = Image(vid="", state=ImageState.PENDING)


def kind_of(outcome: Outcome) -> str:
    """
    Name what became of an id.

    ``image``: there is a record, whatever its state. ``not_found``: there is none.
    ``timed_out``: it was not finished in time. ``failed``: all else. (``invalid``, not
    an id, is never asked for.)
    """
    error = outcome.error
    if error is None or isinstance(error, ImageFailed):
        return "image"
    if isinstance(error, ImageNotFound):
        return "not_found"
    return "timed_out" if isinstance(error, WaitTimedOut) else "failed"


def make_row(entry: Entry, outcome: Outcome, attempts: int) -> tuple[str, bytes]:
    """Give the name of what became of an id, and its row as a JSON object."""
    image = outcome.image
    if image is not None:
        return "image", _dumps(_row(entry, "image", image, None, attempts))
    kind = kind_of(outcome)
    error = None if kind == "image" else outcome.error
    if isinstance(outcome.error, WaitError):
        image = outcome.error.image
    row = _row(entry, kind, image, error, attempts)
    if isinstance(outcome.error, WaitError) and outcome.error.history:
        row["state"] = outcome.error.history[-1].state.value
    return kind, _dumps(row)


def invalid_row(entry: Entry) -> bytes:
    """Give the row of a text that is no id, as a JSON object."""
    row = _row(entry, "invalid", None, None, 0)
    row["error_type"] = "InvalidVid"
    row["error_message"] = (
        f"Line {entry.line} of the input is not an image id: a UUID as the API writes it,"
        " 32 hexadecimal digits, grouped 8-4-4-4-12."
    )
    return _dumps(row)


def _dumps(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_UTC_Z)


def _row(
    entry: Entry, kind: str, image: Image | None, error: KokoonError | None, attempts: int
) -> dict[str, Any]:
    state = None if image is None else image.state.value
    if image is None:
        image = _NOTHING
    fps = image.fps
    # Spelled out and not looped over: this runs for every single id.
    return {
        "vid": entry.vid,
        "outcome": kind,
        "state": state,
        "uid": image.uid or None,
        "pid": image.pid or None,
        "tid": image.tid or None,
        "created_time": image.created_time,
        "expired_time": image.expired_time,
        "filename": image.filename,
        "size": image.size,
        "codec_name": image.codec_name,
        "fps": None if fps is None else f"{fps.numerator}/{fps.denominator}",
        "duration": image.duration,
        "nb_frames": image.nb_frames,
        "bitrate": image.bitrate,
        "width": image.width,
        "height": image.height,
        "download_cnt": image.download_cnt,
        "last_category": image.last_category,
        "url": _unsigned(image._url),  # noqa: SLF001 - see there
        "thumb_url": _unsigned(image._thumb_url),  # noqa: SLF001
        "error_type": None if error is None else type(error).__name__,
        "error_message": None if error is None else error.message,
        "attempts": attempts,
        "line": entry.line,
        "fetched_at": datetime.now(UTC),
    }


def _unsigned(url: SignedUrl | None) -> str | None:
    """Leave out the query, which is a credential."""
    # The text and no URL: to parse two of them takes as long as all else here together.
    return None if url is None else url._text.partition("?")[0].partition("#")[0]  # noqa: SLF001
