"""Check what users hand in, before anything is sent or started."""

import ipaddress
import math
import re
import sys
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import attrs
from yarl import URL

from .errors import ConfigurationError, InvalidVid
from .models import canonical_vid


__all__ = [
    "base_url_from",
    "check_is",
    "check_not_negative",
    "check_policy",
    "check_seconds",
    "check_session",
    "check_whole",
    "has_to_be_awaited",
    "is_finite",
    "non_negative",
    "positive",
    "positive_or_none",
    "share",
    "shown",
    "vid_from",
    "whole",
    "whole_or_none",
]

_LONGEST_HOST = 253  # RFC 1035
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")


def _is_number(value: object) -> bool:
    # True and False are numbers to Python, but never what somebody meant here.
    # An int may be too large for the clock's arithmetic, and even to be compared with inf.
    is_real = type(value) in (int, float)
    return is_real and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def is_finite(value: Any) -> bool:
    """Tell whether a value makes a finite float; other libraries' numbers may, too."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # no number, Decimal("sNaN"), a huge integer
        return False


def shown(value: object) -> str:
    """Write what somebody gave as a short part of a message."""
    try:
        return f"{value!r:.50}"
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return f"a huge {type(value).__name__}"


def _refuse(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {wanted}, not {shown(value)}.")


def check_seconds(name: str, value: object, *, or_none: bool = True) -> None:
    """
    Refuse a duration that is not a positive, finite number of seconds.

    Raises:
        ConfigurationError: It names the argument.
    """
    if value is None and or_none:
        return
    if not _is_number(value) or value <= 0:  # type: ignore[operator]
        raise _refuse(name, value, "a positive number" + (" or None" if or_none else ""))


def positive(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is not a positive, finite number."""
    check_seconds(f"{type(owner).__name__}.{attribute.name}", value, or_none=False)


def positive_or_none(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is neither ``None`` nor a positive, finite number."""
    check_seconds(f"{type(owner).__name__}.{attribute.name}", value)


def non_negative(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is not a finite number, zero or more."""
    check_not_negative(f"{type(owner).__name__}.{attribute.name}", value)


def share(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is not at least 0 and below 1."""
    if not _is_number(value) or not 0 <= value < 1:  # type: ignore[operator]
        name = f"{type(owner).__name__}.{attribute.name}"
        raise _refuse(name, value, "at least 0 and below 1")


def check_not_negative(name: str, value: object) -> None:
    """
    Refuse an argument that is not a finite number, zero or more.

    Raises:
        ConfigurationError: It names the argument.
    """
    if not _is_number(value) or value < 0:  # type: ignore[operator]
        raise _refuse(name, value, "zero or more")


def check_policy(name: str, value: object) -> None:
    """
    Refuse an argument that is no poll policy.

    Raises:
        ConfigurationError: It names the argument.
    """
    methods = [getattr(value, method, None) for method in ("next_delay", "record")]
    # The class has the methods too, but nobody to call them on.
    if isinstance(value, type) or not all(map(callable, methods)):
        raise _refuse(name, value, "a policy such as Learned(), with next_delay() and record()")
    if any(map(has_to_be_awaited, methods)):
        raise _refuse(name, value, "a policy whose next_delay() and record() need no await")


def has_to_be_awaited(function: object) -> bool:
    """Tell whether calling it gives a coroutine: it, its ``__call__`` or what it is a partial of."""
    while isinstance(function, partial):
        function = function.func
    # The type's, as in any call: a class is called to make an object, which is no coroutine.
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def check_is(name: str, value: object, kind: type, example: str) -> None:
    """
    Refuse an argument that is not of its class.

    Args:
        name: The argument.

        value: What was given for it; only its type is told.

        kind: The class.

        example: What to pass instead.

    Raises:
        ConfigurationError: It names the argument.
    """
    if not isinstance(value, kind):
        given = f"a {type(value).__name__}"
        if isinstance(value, type):
            given = f"{value.__name__} itself"
        raise ConfigurationError(
            f"{name} must be of the class {kind.__name__}, not {given}.",
            hint=f"Pass {name}={example}.",
        )


def check_session(value: object) -> None:
    """
    Refuse a session that is no aiohttp session, by what it can do.

    Raises:
        ConfigurationError: It tells the type only, since sessions hold headers.
    """
    # A class has `get` too, and `closed`, but that is no answer there.
    if type(getattr(value, "closed", None)) is not bool or not callable(
        getattr(value, "get", None)
    ):
        raise ConfigurationError(
            f"session must be an aiohttp.ClientSession, not a {type(value).__name__}.",
            hint="Leave it out, and the client makes one of its own.",
        )


def check_whole(name: str, value: object) -> None:
    """
    Refuse an argument that is not a whole number from 1.

    Raises:
        ConfigurationError: It names the argument.
    """
    if type(value) is not int or value < 1:
        raise _refuse(name, value, "a whole number from 1")


def whole(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is not a whole number from 1."""
    check_whole(f"{type(owner).__name__}.{attribute.name}", value)


def whole_or_none(owner: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a field's value that is neither ``None`` nor a whole number from 1."""
    if value is not None:
        whole(owner, attribute, value)


def vid_from(value: object) -> str:
    """
    Give the canonical form of an image id: a text or a `uuid.UUID`.

    Only what passes here ever gets into an address (E18, E19).

    Raises:
        InvalidVid: If it is not a canonical UUID.
    """
    vid = canonical_vid(value)
    if vid is not None:
        return vid
    # Of a subclass only the name: it may be one that must not be shown.
    told = ascii(value[:60]) if type(value) is str else f"A {type(value).__name__}"
    raise InvalidVid(
        f"{told} is not an image id.",
        hint="A vid is a UUID as the API writes it: 32 hexadecimal digits, grouped 8-4-4-4-12.",
    )


def base_url_from(value: str | URL, *, allow_plain_http: bool) -> URL:
    """
    Check the address of the API and give it without a trailing slash.

    Raises:
        ConfigurationError: If it is no absolute web address, holds credentials, a
            query or a fragment (F-81, E32), or would carry the token unencrypted
            beyond this machine (F-70).
    """
    url = _web_address(value)
    if url is None:
        raise ConfigurationError(
            "base_url must be an absolute http(s) address without blanks or control characters."
        )
    # Never shown from here on: it may hold a password.
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ConfigurationError(
            "base_url must not hold a user, a password, a query or a fragment."
        )
    if url.scheme == "http" and not allow_plain_http and not _is_loopback(str(url.raw_host)):
        raise ConfigurationError(
            f"base_url uses plain http to {url.raw_host}: the token would travel unencrypted.",
            hint="Use https, or pass allow_plain_http=True if you mean it.",
        )
    return url.with_path(url.raw_path.rstrip("/"), encoded=True)


def _web_address(value: object) -> URL | None:
    # yarl drops line breaks, blanks and surrogates without a word, and older ones take a
    # backslash for a part of a name: look before it does.
    if not isinstance(value, str | URL):
        return None
    text = str(value)
    if not text.isprintable() or " " in text or "\\" in text:
        return None
    try:
        url = URL(value)
        # `host` is decoded for people, which may fail; only `raw_host` is ever used.
        is_web = url.scheme in ("http", "https") and bool(url.host) and url.explicit_port != 0
        # A host with brackets and other digits loses its brackets, and is another one then.
        is_web = is_web and URL(str(url)).raw_host == url.raw_host
    except (ValueError, IndexError):  # yarl's own slip for "https://[:]:@/"
        return None
    return url if is_web and _is_host(str(url.raw_host)) else None


def _is_host(host: str) -> bool:
    if ":" in host:
        return _ip_address(host) is not None  # yarl does not look beyond a percent sign
    return len(host) <= _LONGEST_HOST and _HOST.fullmatch(host) is not None


def _is_loopback(host: str) -> bool:
    address = _ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
