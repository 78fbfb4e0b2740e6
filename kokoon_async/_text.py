"""Make text from elsewhere safe to show: on a terminal, in a log, in an exception."""

import json
import re
import unicodedata
from contextlib import suppress


__all__ = ["ascii_json", "printable", "text_of"]

_QUERY = re.compile(r"(?:\?|%3[Ff])[^\s\"'<>]+")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, most: int) -> str:
    """
    Give *text* on one line, without control characters, at most *most* characters long.

    Escape sequences, line breaks and marks that change the reading direction could
    forge log lines or steer a terminal (F-47, F-123). Queries of addresses are left
    out: they may be presigned (F-120).
    """
    # Cut first: the text may be a megabyte long.
    shown = " ".join(_QUERY.sub("?…", text[: 4 * most]).split())
    shown = "".join("�" if unicodedata.category(c) in _UNSAFE_CATEGORIES else c for c in shown)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def ascii_json(value: object) -> str:
    """
    Write JSON on one line, with an escape for all that is not printable ASCII.

    So it is valid under any locale, and steers no terminal (F-47).
    """
    # The standard library's escapes leave out one control character.
    return json.dumps(value).replace("\x7f", "\\u007f")


def text_of(item: object) -> str:
    """Give an item of an input as text: its type, as in ``<Odd>``, if it has none."""
    with suppress(Exception):  # whatever the user's class raises, or 10**5000
        return str.__str__(item) if isinstance(item, str) else str(item)
    return f"<{type(item).__name__}>"
