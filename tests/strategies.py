"""
What the tests feed to the pure half: Hypothesis strategies, and the vendor's samples.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from kokoon_async import Image, ImageState

from .canary import presigned_url


def sample(name: str) -> Any:
    """Read one of the vendor's samples, e.g. `sample("image")`."""
    return json.loads((Path(__file__).parent / "samples" / f"{name}.json").read_bytes())


KNOWN_FIELDS = frozenset(sample("image"))
"""The fields of the vendor's sample record."""


def _year(year: int) -> datetime:
    return datetime(year, 1, 1)  # noqa: DTZ001 - Hypothesis adds the time zone


_MOST = 10**18 - 1  # numbers of up to 18 digits are believed


# -- single values ---------------------------------------------------------------------

vids = st.uuids().map(str)

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)
json_values = st.recursive(
    json_scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

# Texts of which a converter might make something else than text.
telling_texts = st.sampled_from(
    [
        *("", "0", "1", "25/1", "0/0", "1/0", "-1", "1.5", "1e5", "1e99", "nan", "inf", "null"),
        *("1_000", "٣", "²", "9" * 18, "9" * 19, "9" * 5000, "true", "\x1b[2J", "a\r\nb"),
        *("2024-02-01T12:17:32.699Z", "2024-02-01T12:17:32", "0001-01-01T00:00:00+23:59"),
        *(
            presigned_url(),
            "https://h/",
            "https://[::1]:9/x",
            "https://h:99999/x",
            "file:///etc/passwd",
        ),
        *("completed", "processing", "de5e9990-c0fb-11ee-961f-d12490e606ad"),
    ]
)
field_values = telling_texts | json_values

states = st.sampled_from(["pending", "processing", "completed", "error"]) | st.text(
    st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20
)

paths = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
# yarl leaves a trailing "?" or "#" out of a text; nothing else of an address is lost.
addresses = st.builds("https://storage.example/{}.png".format, paths)

# -- records and images ----------------------------------------------------------------

records = st.fixed_dictionaries(
    {"vid": vids, "state": states},
    optional=dict.fromkeys(sorted(KNOWN_FIELDS - {"vid", "state"}), field_values)
    | {"is_rotated": json_values, "extra": json_values},
)
"""Objects that are records, with anything at all in the fields that only describe."""

odd_records = st.dictionaries(
    st.sampled_from(sorted(KNOWN_FIELDS | {"message", "extra", "_url"})), field_values
)
"""Objects that are records only by accident."""

_counts = st.none() | st.integers(0, _MOST)
_times = st.none() | st.datetimes(_year(1000), _year(9000), timezones=st.just(UTC))
_texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

images = st.builds(
    Image,
    vid=vids,
    state=states.map(ImageState),
    uid=vids | st.just(""),
    pid=vids | st.just(""),
    tid=vids | st.just(""),
    created_time=_times,
    expired_time=_times,
    filename=_texts,
    size=_counts,
    codec_name=_texts,
    fps=st.none() | st.builds(Fraction, st.integers(0, _MOST), st.integers(1, _MOST)),
    duration=st.none()
    | st.floats(0, 1e17).map(lambda seconds: seconds if seconds > 1e-90 else 0.0),
    nb_frames=_counts,
    bitrate=_counts,
    width=_counts,
    height=_counts,
    download_cnt=_counts,
    last_category=_texts,
    url=st.none() | addresses,
    thumb_url=st.none() | addresses,
    extra=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
            lambda name: name not in KNOWN_FIELDS
        ),
        json_scalars,
        max_size=3,
    ),
)
"""Whatever the API could send, as an image."""

# -- answers ---------------------------------------------------------------------------

statuses = st.integers(0, 999)

http_dates = st.datetimes(_year(1970), _year(9999)).map(
    # Not strftime, whose names of days and months follow the locale.
    lambda time: (
        f"{['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'][time.weekday()]}, {time.day:02}"
        f" {'JanFebMarAprMayJunJulAugSepOctNovDec'[3 * time.month - 3 : 3 * time.month]}"
        f" {time.year:04} {time.hour:02}:{time.minute:02}:{time.second:02} GMT"
    )
)

hints = (
    st.integers(0, 10**6).map(str)
    | http_dates
    | st.sampled_from(
        [
            *(
                "",
                "-1",
                "1.5",
                "+5",
                "1e3",
                "inf",
                "nan",
                "1_000",
                "٣",
                "9" * 5000,
                "0x10",
                "5, 10",
            ),
            *("Thu, 01 Jan 9999 00:00:00 GMT", "Sun, 06 Nov 1994 08:49:37 -0000"),
            *("Sun, 06 Nov 1994 08:49:37 +9999999999", "Thu, 30 Feb 2023 00:00:00 GMT"),
        ]
    )
    | st.text(max_size=40)
)
"""What may stand in `Retry-After`."""

bodies = (
    st.binary(max_size=100)
    | json_values.map(lambda value: json.dumps(value).encode())
    | records.map(lambda record: json.dumps(record).encode())
    | st.text(max_size=40).map(lambda text: json.dumps({"message": text}).encode())
)
