"""
How long the server wants to be left alone, and what time it has: headers, read strictly.

Python's own readers accept infinities, other digits and dates without a zone (E23).
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache


__all__ = ["longest_hint", "parse_date"]

_LONGEST_BELIEVED = 7 * 86_400.0
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DELAY_SECONDS = re.compile(r"[0-9]+")
_IMF_FIXDATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (" + "|".join(_MONTHS) + r") ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def longest_hint(hints: Iterable[str], date: str | None) -> float | None:
    """
    Give the seconds of the longest ``Retry-After``, or ``None`` if none says anything.

    ASCII digits or an HTTP date; a date counts from the answer's own *date*, never from
    this machine's clock (F-50). Anything else says nothing. Of several the longest counts,
    since a hint is never shortened; a week is the most that is believed.
    """
    seconds = [_seconds(hint.strip(), date) for hint in hints]
    return max((known for known in seconds if known is not None), default=None)


def _seconds(hint: str, date: str | None) -> float | None:
    if _DELAY_SECONDS.fullmatch(hint):
        return min(float(hint), _LONGEST_BELIEVED)
    then, now = parse_date(hint), parse_date(date)
    if then is None or now is None:
        return None
    return min(max((then - now).total_seconds(), 0.0), _LONGEST_BELIEVED)


@lru_cache(maxsize=64)  # thousands of answers share a second
def parse_date(text: str | None) -> datetime | None:
    """Read an HTTP date in its one standard form, or give ``None``."""
    found = _IMF_FIXDATE.fullmatch(text or "")
    if found is None:
        return None
    day, month, year, *clock = found.groups()
    hour, minute, second = map(int, clock)
    try:
        return datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=UTC
        )
    except ValueError:
        return None
