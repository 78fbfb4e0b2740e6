"""
Validators for the fields of faults, which also come from other processes as JSON.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs


Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

# What cannot stand in one line of a header without ending it. `Raw` sends such bytes.
_BREAKS_HEADERS = re.compile(r"[\r\n\0]|[^\x00-\xff]")


def between(minimum: float, maximum: float = math.inf, *, whole: bool = False) -> Validator:
    """Make a check for a finite number within the two limits, optionally a whole one."""

    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        types: tuple[type, ...] = (int,) if whole else (int, float)
        # bool is an int in Python, and in JSON it is surely a slip.
        if type(value) not in types or not math.isfinite(value):
            noun = "a whole number" if whole else "a finite number"
            raise ValueError(f"{attribute.name} must be {noun}, not {value!r}")
        if not minimum <= value <= maximum:
            limits = f"at least {minimum}" + (
                f" and at most {maximum}" if maximum < math.inf else ""
            )
            raise ValueError(f"{attribute.name} must be {limits}, not {value!r}")

    return check


def one_of(*choices: str | None) -> Validator:
    """Make a check for one of the given values."""

    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if value not in choices:
            raise ValueError(f"{attribute.name} must be one of {choices}, not {value!r}")

    return check


def check_text(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for a `str`."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text, not {value!r}")


def check_line(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for a `str` that fits into one header."""
    if not isinstance(value, str) or _BREAKS_HEADERS.search(value):
        raise ValueError(f"{attribute.name} cannot be sent in a header: {value!r}")


def check_bytes(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for `bytes`."""
    if not isinstance(value, bytes):
        raise TypeError(f"{attribute.name} must be bytes, not {value!r}")


def check_body(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for what can be made the body of an answer."""
    if not isinstance(value, bytes | str | dict | None):
        raise TypeError(f"{attribute.name} must be bytes, text, a dict or None, not {value!r}")
    if isinstance(value, dict):
        json.dumps(value)


def check_cut(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for "before", "headers" or a number of bytes."""
    if value in ("before", "headers") or (type(value) is int and value >= 0):
        return
    raise ValueError(
        f'{attribute.name} must be "before", "headers" or a number of bytes, not {value!r}'
    )


def check_headers(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check for names and values that stay on their own lines."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a mapping, not {value!r}")
    for name, text in value.items():
        for part in (name, "" if text is None else text):
            if not isinstance(part, str) or _BREAKS_HEADERS.search(part):
                raise ValueError(
                    f"{attribute.name}: {name!r} cannot be sent as a header; use Raw for that"
                )
