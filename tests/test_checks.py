"""
What users hand in, checked before anything is sent: ids, the base URL, numbers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kokoon_async import Fixed, KokoonClient, Learned
from kokoon_async._checks import (
    base_url_from,
    check_not_negative,
    check_policy,
    check_seconds,
    check_whole,
    non_negative,
    positive,
    positive_or_none,
    share,
    vid_from,
    whole,
    whole_or_none,
)
from kokoon_async._http.auth import Secret
from kokoon_async.errors import ConfigurationError, InvalidVid

from .canary import CANARY_TOKEN, assert_no_secret
from .fakes import make_vid
from .strategies import vids


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"

# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [VID, VID.upper(), UUID(VID), UUID(VID.replace("-", ""))], ids=["a", "b", "c", "d"]
)
def test_texts_and_uuid_objects_are_ids(value: object) -> None:
    """The canonical text, in any case, and a UUID object name an image."""
    assert vid_from(value) == VID


BAD_VIDS: dict[str, Any] = {
    "empty": "",
    "blank": " ",
    "URN": f"urn:uuid:{VID}",
    "braces": f"{{{VID}}}",
    "no dashes": VID.replace("-", ""),
    "double dashes": VID.replace("-", "--"),
    "misplaced dashes": "-" + VID[:8] + VID[9:],
    "one digit short": VID[:-1],
    "one digit long": VID + "0",
    "not hexadecimal": VID.replace("d", "g"),
    "blank before": f" {VID}",
    "blank after": f"{VID} ",
    "line feed after": f"{VID}\n",
    "CRLF and a header": f"{VID}\r\nX-Evil: 1",
    "NUL": f"{VID}\x00",
    "NUL inside": VID.replace("-", "\x00"),
    "parent folder": "../admin",
    "parent folder, encoded": "%2e%2e%2fadmin",
    "slash": f"{VID}/..",
    "slash, encoded": f"{VID}%2f",
    "backslash": f"..\\{VID}",
    "query": f"{VID}?admin=1",
    "fragment": f"{VID}#",
    "matrix": f"{VID};a=1",
    "two": f"{VID},{VID}",
    "full-width digits": VID.translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)}),
    "Arabic-Indic digits": VID.translate({ord(str(d)): chr(0x660 + d) for d in range(10)}),
    "Cyrillic letter": VID.replace("e", "\u0435"),
    "full-width dash": VID.replace("-", "\uff0d"),
    "direction mark": f"\u202e{VID}",
    "zero-width": f"{VID}\u200b",
    "BOM": f"\ufeff{VID}",
    "surrogate": f"{VID}\ud800",
    "one megabyte": "a" * 1_000_000,
    "one megabyte of ids": VID * 28_000,
    "escape": "\x1b[2J",
    "bytes": VID.encode(),
    "bytes of a UUID": UUID(VID).bytes,
    "number": UUID(VID).int,
    "none": None,
    "bool": True,
    "list": [VID],
    "tuple": (VID,),
}


@pytest.mark.fault("F-75")
@pytest.mark.parametrize("value", BAD_VIDS.values(), ids=BAD_VIDS.keys())
def test_anything_else_is_refused(value: Any) -> None:
    """What could change an address, or means no image, is refused in a short, clean sentence."""
    with pytest.raises(InvalidVid) as caught:
        vid_from(value)
    error = caught.value
    assert error.message.endswith(" is not an image id.")
    assert len(str(error)) <= 500
    assert str(error).isprintable()
    assert str(error).isascii()
    assert error.vid is None
    assert (error.__context__, error.__cause__) == (None, None)


@pytest.mark.fault("F-75")
def test_the_refused_text_is_shown() -> None:
    """The start of the text helps to find it; of other things the type does."""
    with pytest.raises(InvalidVid, match=r"^'\.\./admin' is not an image id\. A vid is a UUID"):
        vid_from("../admin")
    with pytest.raises(InvalidVid, match=r"^A NoneType is not an image id\."):
        vid_from(None)


def test_of_a_long_text_the_start_is_shown() -> None:
    """Sixty characters are enough to recognise a text by."""
    with pytest.raises(InvalidVid) as caught:
        vid_from("0123456789" * 100)
    assert caught.value.message == f"'{'0123456789' * 6}' is not an image id."


@pytest.mark.fault("F-120")
def test_a_token_in_the_wrong_place_is_not_shown() -> None:
    """Who passes a wrapped token as an id does not find it in the error."""
    with pytest.raises(InvalidVid, match=r"^A Secret is not an image id\.") as caught:
        vid_from(Secret(CANARY_TOKEN))
    assert_no_secret(str(caught.value))


@pytest.mark.fault("F-75")
@given(st.from_regex(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", fullmatch=True))
def test_every_canonical_text_passes(text: str) -> None:
    """Whatever has the form of a UUID passes, in lower case."""
    assert vid_from(text) == str(UUID(text))


@pytest.mark.fault("F-75")
@given(st.text() | vids, st.text(min_size=1, max_size=3), st.integers(0, 36))
def test_only_what_is_safe_in_an_address_passes(text: str, more: str, place: int) -> None:
    """No text with anything inserted gets past, unless it is a UUID in the end."""
    text = text[:place] + more + text[place:]
    try:
        vid = vid_from(text)
    except InvalidVid:
        return
    assert (URL("https://h/image") / vid).raw_path == f"/image/{vid}"
    assert len(vid) == 36


# --- the base URL ---------------------------------------------------------------------------------


@pytest.mark.fault("F-81")
@pytest.mark.parametrize(
    ("given_url", "result"),
    [
        ("https://h.example/api/v3", "https://h.example/api/v3"),
        ("https://h.example/api/v3/", "https://h.example/api/v3"),
        ("https://h.example/api/v3//", "https://h.example/api/v3"),
        ("https://h.example", "https://h.example"),
        ("https://h.example/", "https://h.example"),
        ("HTTPS://H.EXAMPLE/Api", "https://h.example/Api"),
        ("https://h.example:443/", "https://h.example"),
        ("https://h.example:8443/v3", "https://h.example:8443/v3"),
        ("https://h.example:/v3", "https://h.example/v3"),
        ("https://h.example./v3", "https://h.example./v3"),
        ("https://h.example/a/../b/./c", "https://h.example/b/c"),
        ("https://h.example/../../a", "https://h.example/a"),
        ("https://h.example/a%2Fb%20c", "https://h.example/a%2Fb%20c"),
        ("https://h.example/ü", "https://h.example/%C3%BC"),
        ("https://bücher.example/", "https://xn--bcher-kva.example"),
        ("https://my_host/a", "https://my_host/a"),
        ("https://192.0.2.1/a", "https://192.0.2.1/a"),
        ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://h.example/a?", "https://h.example/a"),
        ("https://h.example/a#", "https://h.example/a"),
        (URL("https://h.example/a/"), "https://h.example/a"),
    ],
    ids=str,
)
def test_good_addresses_are_put_in_order(given_url: str | URL, result: str) -> None:
    """An absolute web address comes out in its usual form, without a slash at the end."""
    url = base_url_from(given_url, allow_plain_http=False)
    assert str(url) == result
    assert base_url_from(url, allow_plain_http=False) == url


NO_ADDRESSES: dict[str, Any] = {
    "empty": "",
    "blank": " ",
    "host only": "h.example",
    "host and port": "h.example:443",
    "no scheme": "//h.example/a",
    "path": "/kokoon/api",
    "no host": "https://",
    "no host but a path": "https:///a",
    "other scheme": "ftp://h.example/",
    "websocket": "wss://h.example/",
    "file": "file:///etc/passwd",
    "port 0": "https://h.example:0/",
    "port 65536": "https://h.example:65536/",
    "two ports": "https://h.example:80:90/",
    "word as port": "https://h.example:port/",
    "blank before": " https://h.example/",
    "blank in host": "https://h.example /",
    "blank in path": "https://h.example/a b",
    "line feed after": "https://h.example/\n",
    "CRLF and a header": "https://h.example\r\nX-Evil: 1/",
    "tab in scheme": "ht\ttps://h.example/",
    "NUL in host": "https://h.example\x00/",
    "NUL in path": "https://h.example/\x00",
    "surrogate in path": "https://h.example/\ud800",
    "line separator": "https://h.example/\u2028",
    "backslash": "https://h.example\\@evil.example/",
    "star": "https://*/",
    "comma": "https://a,b/",
    "two dots": "https://a..b/",
    "not IDNA": "https://xn--/",
    "long label": f"https://{'a' * 64}.example/",
    "long host": f"https://{'a.' * 127}example/",
    "megabyte": f"https://{'a' * 1_000_000}/",
    "open bracket": "https://[::1/",
    "brackets around nothing": "https://[:]:@/",
    "no address before the zone": "https://[fe8%0::1%25eth0]/",
    "another digit in an address": "https://[::1²]:9/",
    "not IPv6": "https://[zz]/",
    "bytes": b"https://h.example/",
    "none": None,
    "number": 443,
    "relative URL": URL("/a"),
}


@pytest.mark.fault("F-81")
@pytest.mark.parametrize("value", NO_ADDRESSES.values(), ids=NO_ADDRESSES.keys())
@pytest.mark.parametrize("plain", [True, False])
def test_what_is_no_web_address_is_refused(value: Any, *, plain: bool) -> None:
    """Whatever is no absolute web address gets the same sentence, which shows none of it."""
    with pytest.raises(ConfigurationError) as caught:
        base_url_from(value, allow_plain_http=plain)
    assert str(caught.value) == (
        "base_url must be an absolute http(s) address without blanks or control characters."
    )
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@pytest.mark.fault("F-81")
def test_a_host_is_as_long_as_names_may_be() -> None:
    """253 characters are a name (RFC 1035), one more is none."""
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert base_url_from(f"https://{name}", allow_plain_http=False).raw_host == name
    with pytest.raises(ConfigurationError):
        base_url_from(f"https://{name}b", allow_plain_http=False)


@pytest.mark.fault("F-81")
@pytest.mark.fault("F-120")
@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{CANARY_TOKEN}@h.example/",
        f"https://{CANARY_TOKEN}@h.example/",
        f"https://:{CANARY_TOKEN}@h.example/",
        f"http://{CANARY_TOKEN}@localhost/",
        f"https://h.example/?token={CANARY_TOKEN}",
        f"https://h.example/#{CANARY_TOKEN}",
    ],
    ids=["both", "user", "password", "user over http", "query", "fragment"],
)
def test_credentials_in_the_address_are_refused_unseen(url: str) -> None:
    """A password in the address would become another header (E32); the error does not show it."""
    with pytest.raises(ConfigurationError) as caught:
        base_url_from(url, allow_plain_http=False)
    assert str(caught.value) == (
        "base_url must not hold a user, a password, a query or a fragment."
    )
    assert_no_secret(repr(caught.value))


@pytest.mark.fault("F-70")
@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost", "http://LOCALHOST:8000/v3", "http://127.0.0.1:8000"),
        *("http://127.1.2.3", "http://[::1]:8000"),
    ],
)
def test_plain_http_is_for_this_machine(url: str) -> None:
    """On loopback nobody listens, so the simulator needs no certificate."""
    assert base_url_from(url, allow_plain_http=False).scheme == "http"


@pytest.mark.fault("F-70")
@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://h.example/",
            "http://localhost.evil.example",
            "http://localhost.",
            "http://0.0.0.0",
        ),
        *("http://127.0.0.1.evil.example", "http://127.1", "http://2130706433", "http://0x7f.1"),
        *(
            "http://[::ffff:192.0.2.1]",
            "http://192.168.0.1",
            "http://169.254.169.254",
            "http://[::]",
        ),
    ],
)
def test_plain_http_beyond_this_machine_must_be_meant(url: str) -> None:
    """Elsewhere the token would travel in the open: refused, unless asked for."""
    with pytest.raises(ConfigurationError, match="would travel unencrypted") as caught:
        base_url_from(url, allow_plain_http=False)
    assert "allow_plain_http=True" in caught.value.hint
    assert len(str(caught.value)) <= 500
    assert base_url_from(url, allow_plain_http=True).scheme == "http"


@pytest.mark.fault("F-81")
@given(st.text() | st.text().map("https://{}".format) | st.text().map("http://h/{}".format))
def test_no_text_breaks_the_check_of_addresses(text: str) -> None:
    """Any text is a clean address of a host, or a `ConfigurationError`."""
    try:
        url = base_url_from(text, allow_plain_http=True)
    except ConfigurationError:
        return
    assert str(url).isascii()
    assert str(url).isprintable()
    assert url.host
    assert not str(url).endswith("/")
    assert (url.user, url.password, url.query_string, url.fragment) == (None, None, "", "")


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0.001, 1e-300, 1_800, sys.float_info.max, 10**308, None])
def test_seconds_are_positive_numbers_or_none(value: float | None) -> None:
    """Any positive number that a clock can count to will do; `None` means without limit."""
    check_seconds("timeout", value)


NO_SECONDS: list[Any] = [
    *(0, 0.0, -0.0, -1, -1e-300, math.nan, math.inf, -math.inf, True, False),
    *("1", b"1", [], 1j, Decimal(1), Fraction(1), timedelta(seconds=1), object()),
    *(10**309, 10**5_000, -(10**5_000)),
]


@pytest.mark.fault("F-58")
@pytest.mark.parametrize("value", NO_SECONDS, ids=range(len(NO_SECONDS)))
def test_anything_else_is_no_number_of_seconds(value: Any) -> None:
    """Zero, negative, infinite, no number, a bool, another type: refused by the argument's name."""
    with pytest.raises(ConfigurationError) as caught:
        check_seconds("timeout", value)
    assert str(caught.value).startswith("timeout must be a positive number or None, not ")
    assert len(str(caught.value)) <= 120
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@pytest.mark.fault("F-58")
def test_none_is_refused_where_there_must_be_a_limit() -> None:
    """Where *or_none* is off, the message does not offer it."""
    with pytest.raises(ConfigurationError, match=r"^outage must be a positive number, not None\.$"):
        check_seconds("outage", None, or_none=False)


@pytest.mark.fault("F-58")
@given(st.floats() | st.integers() | st.none() | st.booleans() | st.text() | st.timedeltas())
def test_what_passes_can_be_slept(value: Any) -> None:
    """Whatever passes is `None`, or a positive number that stays finite as a float."""
    try:
        check_seconds("timeout", value)
    except ConfigurationError:
        return
    assert value is None or (0 < float(value) < math.inf and type(value) is not bool)


@pytest.mark.fault("F-58")
@pytest.mark.parametrize(
    ("check", "good", "bad", "wanted"),
    [
        (check_not_negative, [0, 0.0, 2.5], [-1, -1e-300, None, "1"], "zero or more"),
        (check_whole, [1, 10**6], [0, -1, 1.0, None, "1"], "a whole number from 1"),
        (check_policy, [Fixed(1.0), Learned()], [None, 1.0, "fixed", Fixed], "a policy such as"),
    ],
)
def test_arguments_are_checked_by_name(
    check: Callable[[str, Any], None], good: list[Any], bad: list[Any], wanted: str
) -> None:
    """Each check takes what it should, and names the argument and what it wants."""
    for value in good:
        check("it", value)
    for value in [*bad, True, math.nan, -(10**5_000)]:
        with pytest.raises(ConfigurationError, match=f"^it must be {wanted}") as caught:
            check("it", value)
        assert len(str(caught.value)) <= 150


async def coroutine_function(*_: object) -> float:
    """Give a delay, when awaited."""
    return 1.0


@pytest.mark.fault("F-106")
@pytest.mark.parametrize("method", ["next_delay", "record"])
@pytest.mark.parametrize("function", [coroutine_function, partial(coroutine_function)])
async def test_a_policy_that_has_to_be_awaited_is_refused(method: str, function: Any) -> None:
    """A policy with a coroutine function is refused for a client and for a wait of it."""
    policy: Any = type("Awaited", (Fixed,), {method: staticmethod(function)})(1.0)
    wanted = r"^poll must be a policy whose next_delay\(\) and record\(\) need no await"
    with pytest.raises(ConfigurationError, match=wanted):
        KokoonClient("token", poll=policy)
    async with KokoonClient("token") as client:
        with pytest.raises(ConfigurationError, match=wanted):
            client.watch(make_vid(0), poll=policy)


@attrs.frozen
class Numbers:
    """One field for each validator."""

    positive: Any = attrs.field(default=1, validator=positive)
    positive_or_none: Any = attrs.field(default=1, validator=positive_or_none)
    non_negative: Any = attrs.field(default=1, validator=non_negative)
    share: Any = attrs.field(default=0, validator=share)
    whole: Any = attrs.field(default=1, validator=whole)
    whole_or_none: Any = attrs.field(default=1, validator=whole_or_none)


@pytest.mark.fault("F-58")
@pytest.mark.parametrize(
    ("field", "good", "bad", "wanted"),
    [
        ("positive", [1, 0.5], [0, None, "1"], "a positive number"),
        ("positive_or_none", [1, 0.5, None], [0, "1"], "a positive number or None"),
        ("non_negative", [0, 0.0, 2.5], [-1, None, "1"], "zero or more"),
        ("share", [0, 0.999], [1, -0.1, None], "at least 0 and below 1"),
        ("whole", [1, 10**6], [0, -1, 1.0, None, "1"], "a whole number from 1"),
        ("whole_or_none", [1, None], [0, 1.0, "1"], "a whole number from 1"),
    ],
)
def test_fields_check_their_numbers(
    field: str, good: list[Any], bad: list[Any], wanted: str
) -> None:
    """Each validator takes what it should, and names class, field and what it wants."""
    make: Callable[..., Numbers] = Numbers
    for value in good:
        assert getattr(make(**{field: value}), field) == value
    for value in [*bad, True, False, math.nan, math.inf, -(10**5_000), []]:
        with pytest.raises(ConfigurationError) as caught:
            make(**{field: value})
        assert str(caught.value).startswith(f"Numbers.{field} must be {wanted}, not ")
        assert len(str(caught.value)) <= 120
