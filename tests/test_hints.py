"""
How long a server wants to be left alone, and what time it has.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async._http.hints import longest_hint, parse_date

from .strategies import hints, http_dates


NOW = "Sun, 06 Nov 1994 08:49:37 GMT"
WEEK = 7 * 86_400.0


@pytest.mark.fault("F-50")
@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("007", 7.0),
        ("604800", WEEK),
        ("604801", WEEK),
        ("9999999999", WEEK),  # never taken for no hint: asking at once would be worse
        ("9" * 5_000, WEEK),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", WEEK),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("1 2", None),
        ("5, 10", None),
        ("\u0663", None),
        ("²", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("120\x00", None),
        ("Sun, 06 Nov 1994 08:51:37 -0000", None),
        ("Sun, 06 Nov 1994 08:51:37 +0000", None),
        ("Sun, 06 Nov 1994 08:51:37 +9999999999", None),
        ("Sun, 06 Nov 1994 08:51:37", None),
        ("Sunday, 06-Nov-94 08:51:37 GMT", None),
        ("Sun Nov  6 08:51:37 1994", None),
        ("1994-11-06T08:51:37Z", None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_retry_after_is_read_strictly(hint: str, seconds: float | None) -> None:
    """ASCII digits or a standard date; anything else says nothing, and a week is the most."""
    assert longest_hint([hint], NOW) == seconds


@pytest.mark.fault("F-50")
@pytest.mark.fault("F-56")
@pytest.mark.parametrize("date", [None, "", "soon", "-1", "Sun, 06 Nov 1994 08:49:37 -0000"])
def test_a_date_counts_from_the_answers_own_date_only(date: str | None) -> None:
    """Without the answer's own date, a date says nothing: this machine's clock may be wrong."""
    assert longest_hint(["Sun, 06 Nov 1994 08:51:37 GMT"], date) is None
    assert longest_hint(["5"], date) == 5.0


@pytest.mark.fault("F-50")
@pytest.mark.parametrize(
    ("several", "seconds"),
    [
        ([], None),
        (["5", "10"], 10.0),
        (["10", "5"], 10.0),
        (["soon", "5"], 5.0),
        (["soon", "later"], None),
        (["60", "Sun, 06 Nov 1994 08:51:37 GMT"], 120.0),
    ],
)
def test_of_several_hints_the_longest_counts(several: list[str], seconds: float | None) -> None:
    """A hint is never shortened, so of several that make sense the longest counts."""
    assert longest_hint(several, NOW) == seconds


@pytest.mark.fault("F-50")
@given(st.lists(hints, max_size=3), st.none() | hints)
def test_a_hint_is_always_a_sane_number(several: list[str], date: str | None) -> None:
    """Whatever the headers hold: no exception, nothing negative, nothing infinite."""
    seconds = longest_hint(several, date)
    assert seconds is None or 0.0 <= seconds <= WEEK
    assert seconds is None or math.isfinite(seconds)


@given(st.lists(hints, max_size=3), hints, http_dates)
def test_another_hint_never_shortens_the_pause(several: list[str], more: str, date: str) -> None:
    """Adding a header can only make the pause longer."""
    before, after = longest_hint(several, date), longest_hint([*several, more], date)
    assert before is None or (after is not None and after >= before)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (NOW, datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Mon, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Thu, 29 Feb 2024 23:59:59 GMT", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("Thu, 29 Feb 2023 00:00:00 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08:49:60 GMT", None),
        ("Sun, 06 nov 1994 08:49:37 GMT", None),
        ("Sun, \u0660\u0666 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT\n", None),
        (" Sun, 06 Nov 1994 08:49:37 GMT", None),
        ("Sun,06 Nov 1994 08:49:37 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_dates_are_read_in_their_standard_form_only(
    text: str | None, time: datetime | None
) -> None:
    """An IMF-fixdate that exists is an aware time; anything else is none."""
    assert parse_date(text) == time


@given(http_dates)
def test_every_date_that_exists_is_read(text: str) -> None:
    """From the year 1970 to 9999, every date is read to the second."""
    time = parse_date(text)
    assert time is not None
    assert time.tzinfo is UTC
    assert f"{time.day:02} " in text
    assert f" {time.year:04} {time:%H:%M:%S} GMT" in text


@given(st.text())
def test_no_text_breaks_the_reader_of_dates(text: str) -> None:
    """Any other text is no date."""
    assert parse_date(text) is None
