"""
What an image record looks like: the vendor's sample, field by field.
"""

import enum
import hashlib
from collections.abc import Mapping
from typing import Final, Literal

from ._clock import iso_timestamp
from ._scripts import COMPLETED, ERROR, PENDING


NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What *pid* and *tid* of an original say."""

LIFETIME = 14 * 86400.0
"""Seconds from *created_time* to *expired_time*, as documented for originals."""

_SIZES = ((640, 360), (1280, 720), (1920, 1080), (2560, 1440), (1080, 1920), (3840, 2160))
_STORAGE = "https://sr-inner-api-storage-local.s3.amazonaws.com"


class _Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "ABSENT"

    def __repr__(self) -> str:
        return self.name


Absent = Literal[_Absent.ABSENT]

ABSENT: Final = _Absent.ABSENT
"""A field of this value is left out of the record (``None`` would be ``null``)."""


def digest(seed: int, text: str) -> bytes:
    """Give 64 bytes that look random and depend on *seed* and *text* alone."""
    return hashlib.blake2b(f"{seed}/{text}".encode()).digest()


def make_uuid(number: int) -> str:
    """Make a lower-case UUID that looks like version 1 of early 2024 out of 128 bits."""
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-11ee-{'89ab'[number & 3]}{text[17:20]}-{text[20:]}"


def make_record(
    vid: str,
    *,
    state: str,
    created: float,
    original: bool,
    seed: int,
    uid: str,
    fields: Mapping[str, object],
) -> dict[str, object]:
    """
    Make the record of one image; all that is not given follows from *seed* and *vid*.

    Only a finished image has URLs and a size: what the API answers before that is not
    documented (U6), so *pending* and *error* show ``null`` and every other state ``""``.

    Args:
        vid: The image's id.

        state: The state to show.

        created: Seconds since 1970.

        original: Whether it was uploaded; else it is an SR result with *pid* and *tid*.

        seed: The simulator's.

        uid: The one user's id.

        fields: Replace or add to what the record would say; `ABSENT` leaves a field out.
    """
    bits = digest(seed, vid)
    width, height = _SIZES[bits[0] % len(_SIZES)]
    done = state == COMPLETED
    url: str | None = None
    thumb_url: str | None = None
    if done:
        query = _signed_query(bits, created)
        url = f"{_STORAGE}/video/{uid}/{vid}/image.png?{query}"
        thumb_url = f"{_STORAGE}/video/{uid}/{vid}/thumb.png?{query}"
    elif state not in {ERROR, PENDING}:
        url = thumb_url = ""
    record: dict[str, object] = {
        "uid": uid,
        "vid": vid,
        "pid": NIL_UUID if original else make_uuid(int.from_bytes(bits[16:32])),
        "tid": NIL_UUID if original else make_uuid(int.from_bytes(bits[32:48])),
        "created_time": iso_timestamp(created),
        "filename": f"image_{bits[1]:03d}.png",
        "size": width * height * 2 + bits[2] * 1009 if done else 0,
        "codec_name": "png",
        "fps": "25/1",
        "duration": "0",
        "nb_frames": "1",
        "bitrate": "0",
        "width": width,
        "height": height,
        "download_cnt": 0,
        "expired_time": iso_timestamp(created + LIFETIME),
        "state": state,
        "url": url,
        "thumb_url": thumb_url,
        "last_category": None,
    }
    if fields:
        record.update(fields)
        record = {name: value for name, value in record.items() if value is not ABSENT}
    return record


def _signed_query(bits: bytes, created: float) -> str:
    """Imitate a presigned URL's query, with the escapes that careless clients rewrite (E20)."""
    stamp = iso_timestamp(created)
    day = stamp[:10].replace("-", "")
    second = stamp[11:19].replace(":", "")
    return (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        f"&X-Amz-Credential=SIMULATED%2F{day}%2Fap-northeast-2%2Fs3%2Faws4_request"
        f"&X-Amz-Date={day}T{second}Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
        f"&X-Amz-Signature={bits[:32].hex()}"
        "&response-content-disposition=attachment%3B%20filename%3D%22image.png%22"
    )
