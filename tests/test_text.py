"""
Text from elsewhere, made safe to show.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kokoon_async._text import printable

from .canary import contains_secret, presigned_url


@pytest.mark.fault("F-47")
@pytest.mark.fault("F-123")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("fail to get result.", "fail to get result."),
        ("  two\t words \n\n here ", "two words here"),
        ("a\r\nERROR forged", "a ERROR forged"),
        ("a\u2028b\u2029c\x85d\x0be", "a b c d e"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("\x1b]0;title\x07", "�]0;title�"),
        ("\x9b31m", "�31m"),
        ("a\x00b\x7fc", "a�b�c"),
        ("\u202egnp.exe", "�gnp.exe"),
        ("\u2066a\u2069\u200b\u200d\ufeff", "�a����"),
        ("\ud800", "�"),
        ("\ue000\U000f0000", "��"),
        ("\u0378", "�"),
        ("画像 ü 😀 e\u0301", "画像 ü 😀 e\u0301"),
        ("a\u00a0b", "a b"),
    ],
    ids=ascii,
)
def test_one_line_without_surprises(text: str, shown: str) -> None:
    """Blanks are folded; what could steer a terminal or forge a line becomes a mark."""
    assert printable(text, 100) == shown


@pytest.mark.fault("F-120")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/a?b=c&d=e end", "https://h/a?… end"),
        ("<a href='https://h/a?b'>x</a>", "<a href='https://h/a?…'>x</a>"),
        ('{"url":"https://h/a?b=c"}', '{"url":"https://h/a?…"}'),
        ("https://h/a?b?c?d", "https://h/a?…"),
        ("next=https%3A%2F%2Fh%2Fa%3Fsig%3Dabc end", "next=https%3A%2F%2Fh%2Fa?… end"),
        ("a%3fsig=abc", "a?…"),
        ("Why? Because.", "Why? Because."),
        ("What?", "What?"),
        ("100 % of 3F", "100 % of 3F"),
    ],
)
def test_queries_are_left_out(text: str, shown: str) -> None:
    """The query of an address may be a signature; a question mark in a sentence may stay."""
    assert printable(text, 100) == shown


@pytest.mark.fault("F-120")
@pytest.mark.parametrize("before", [0, 90, 100, 110, 390, 400])
def test_no_cut_shows_a_query(before: int) -> None:
    """Wherever the text is cut, nothing of a presigned query is shown."""
    text = "x" * before + presigned_url("/" + "y" * 40)
    for most in (1, 100, 200):
        shown = printable(text, most)
        assert not contains_secret(shown)
        assert "X-Amz" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("abcde", "abcde"), ("abcdef", "abcd…"), ("ab   cdef", "ab c…"), ("     ab", "ab")],
)
def test_what_is_too_long_is_cut(text: str, shown: str) -> None:
    """At most so many characters, the last of them telling of the cut."""
    assert printable(text, 5) == shown


@pytest.mark.fault("F-47")
@given(st.text(), st.integers(1, 50))
@example("\x1b" * 1_000_000, 50)
@example(" " * 1_000_000, 50)
@example("?" * 1_000_000, 50)
def test_whatever_comes_is_short_and_harmless(text: str, most: int) -> None:
    """Any text becomes one bounded line of visible characters and single blanks."""
    shown = printable(text, most)
    assert len(shown) <= most
    assert "  " not in shown
    assert {unicodedata.category(letter)[0] for letter in shown} <= {"L", "M", "N", "P", "S", "Z"}
    assert shown.isprintable()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?%")))
def test_plain_words_stay_as_they_are(text: str) -> None:
    """What was harmless and short enough is not touched, and not changed by a second pass."""
    assert printable(text, len(text) + 1) == text
