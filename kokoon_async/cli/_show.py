"""
What people and programs get to see: records as text, as rows and as JSON lines.

All text that comes from the server is cleaned first (F-47), or written with escapes.
"""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import attrs

from kokoon_async import ApiError, Image, KokoonError, Outcome, make_converter

from .._text import ascii_json, printable


__all__ = [
    "ROW_HEADER",
    "Tally",
    "details",
    "for_command_line",
    "json_line",
    "pixels",
    "problem",
    "row",
    "seconds",
    "short",
    "size",
]

_MOST_LETTERS = 300
_KIBI = 1024
_UNKNOWN = "-"
_WORDS = {
    "lower Limits.max_in_flight": "lower --concurrency",
    "set Limits.requests_per_second": "set --rate",
    "Limits.max_in_flight must": "--concurrency must",
    "Limits.requests_per_second must": "--rate must",
    "raise Timeouts.total or Timeouts.read": "raise --timeout",
    ", or raise Timeouts.connect": "",
    "Pass the API token, or set KOKOON_TOKEN for from_env()": "Give it, as KOKOON_TOKEN or in"
    " the file that --token-file names",
    "pass allow_plain_http=True": "pass --allow-plain-http",
    "(resume=False, or --fresh)": "(--fresh)",
    "the same call": "the same command",
    "; put single ids into a list": "",
    "base_url": "--base-url",
    "shard_size": "--shard-size",
}


def _pattern(words: str) -> str:
    """Make the pattern for words that are no part of a longer one, or of the name of a file."""
    before = r"(?<![\w./-])" if words[0].isalnum() else ""
    after = r"(?![\w/-]|\.\w)" if words[-1].isalnum() else ""
    return before + re.escape(words) + after


_PYTHONS = re.compile("|".join(map(_pattern, _WORDS)))

_converter = make_converter()

ROW_HEADER = f"{'VID':36}  {'STATE':10}  {'PIXELS':>9}  {'SIZE':>9}  {'CREATED':19}  FILENAME"


@attrs.define
class Tally:
    """
    Count what became of the ids.

    Attributes:
        good: How many went well.

        bad: How many did not, by the class of the error.
    """

    good: int = 0
    bad: Counter[str] = attrs.field(factory=Counter)

    def count(self, outcome: Outcome) -> None:
        """Take one more outcome into account."""
        if outcome.error is None:
            self.good += 1
        else:
            self.bad[type(outcome.error).__name__] += 1

    @property
    def total(self) -> int:
        """How many outcomes there are."""
        return self.good + self.bad.total()

    @property
    def failures(self) -> str:
        """What went wrong how often, as the end of a sentence."""
        return ", ".join(f"{count} {name}" for name, count in sorted(self.bad.items()))


def short(text: object, most: int = _MOST_LETTERS) -> str:
    """Make text from the server fit for a terminal; nothing is a dash."""
    return printable(str(text), most) if text is not None and text != "" else _UNKNOWN


def seconds(amount: float | None) -> str:
    """Write a duration such as ``0.4 s``, ``12 s``, ``3m 20s`` or ``2h 05m``."""
    if amount is None:
        return _UNKNOWN
    if amount < 10:  # noqa: PLR2004 - where a tenth no longer matters
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def row(image: Image) -> str:
    """Write a record as one line below `ROW_HEADER`."""
    return (
        f"{image.vid:36}  {short(image.state, 24):10}  {pixels(image):>9}  {size(image):>9}"
        f"  {_moment(image.created_time):19}  {short(image.filename, 80)}"
    )


def details(image: Image) -> str:
    """Write a record as lines of name and value."""
    lines = {
        "vid": image.vid,
        "state": short(image.state),
        "filename": short(image.filename),
        "pixels": pixels(image),
        "size": size(image),
        "codec": short(image.codec_name),
        "created": _moment(image.created_time, " UTC"),
        "expires": _moment(image.expired_time, " UTC"),
        "made from": short(image.parent_vid),
        "by task": short(image.task_id),
        "category": short(image.last_category),
        "downloads": short(image.download_cnt),
        # Without the query, which is a credential; --json shows it.
        "url": short(image.url),
        "thumbnail": short(image.thumb_url),
    }
    return "".join(f"{name:9}  {value}\n" for name, value in lines.items())


def json_line(outcome: Outcome) -> str:
    """
    Write what became of an id as one line of JSON.

    A record is complete and as the API would send it. An error has the key *error*, which
    tells the two apart.
    """
    error = outcome.error
    if error is None:
        shown: dict[str, Any] = _converter.unstructure(outcome.image)
    else:
        shown = {
            "vid": outcome.vid,
            "error": type(error).__name__,
            "message": error.message,
            "hint": for_command_line(error.hint),
        }
    if isinstance(error, ApiError):
        shown["status"] = error.status
    return ascii_json(shown) + "\n"


def problem(error: KokoonError) -> str:
    """Write an error as one line for people."""
    return f"kokoon-async: {printable(for_command_line(str(error)), 2 * _MOST_LETTERS)}"


def for_command_line(text: str) -> str:
    """Say in the words of the command line what an error says in those of Python."""
    return _PYTHONS.sub(lambda found: _WORDS[found[0]], text)


def pixels(image: Image) -> str:
    """Write width and height."""
    return f"{image.width}x{image.height}" if image.width and image.height else _UNKNOWN


def size(image: Image) -> str:
    """Write the size of the file."""
    amount = image.size
    if not amount:
        return _UNKNOWN
    if amount < _KIBI:
        return f"{amount} B"
    in_kib = amount / _KIBI
    return f"{in_kib:.0f} KiB" if in_kib < _KIBI else f"{in_kib / _KIBI:.1f} MiB"


def _moment(moment: datetime | None, zone: str = "") -> str:
    return _UNKNOWN if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}{zone}"
