"""
What URLs, ids, JSON and dates become in our dependencies and the standard library.

The numbers are those of docs/facts.md; see test_dependencies.py.
"""

from __future__ import annotations

import email.utils
import json
import uuid
from collections.abc import Callable
from typing import Any

import attrs
import cattrs
import orjson
import pytest
from yarl import URL

from .canary import CANARY_SIGNATURE, CANARY_TOKEN, SecretLeaked, assert_no_secret, presigned_url


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


@pytest.mark.fact("E18")
def test_e18_path_is_resolved() -> None:
    """E18: `URL / text` resolves dots and adds segments; in a whole URL also CR and LF vanish."""
    base = URL("https://host/v1/image")
    paths = [(base / text).raw_path for text in ("../admin", "..", "a/b")]
    assert paths == ["/v1/admin", "/v1/", "/v1/image/a/b"]
    assert str(URL(f"{base}/a\r\nb?c#d")) == "https://host/v1/image/ab?c#d"
    assert URL(f"{base}/a%2fb").raw_path == "/v1/image/a%2Fb"


@pytest.mark.fact("E19")
@pytest.mark.parametrize(
    "text",
    [
        *(f"urn:uuid:{VID}", f"{{{VID}}}", VID.replace("-", ""), VID.replace("-", "--")),
        VID.translate({ord(str(digit)): chr(0x660 + digit) for digit in range(10)}),
    ],
)
def test_e19_uuid_is_lenient(text: str) -> None:
    """E19: `UUID()` takes prefixes, braces, any dashes and digits of other scripts."""
    assert str(uuid.UUID(text)) == VID


@pytest.mark.fact("E20")
def test_e20_presigned_url_is_rewritten() -> None:
    """E20: `URL()` undoes %2F in a query; only with *encoded* every byte is kept."""
    url = presigned_url() + "&X-Amz-Credential=a%2Fb%2fc"
    assert str(URL(url)).endswith("=a/b/c")
    assert str(URL(url, encoded=True)) == url


@pytest.mark.fact("E21")
@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        *((None, str, "None"), ({}, str, "{}"), (1.9, int, 1), (True, int, 1)),
        ("inf", float, float("inf")),
    ],
)
def test_e21_cattrs_coerces(value: object, kind: type, result: object) -> None:
    """E21: a plain converter calls `str`, `int` and `float` on anything."""
    assert cattrs.Converter().structure(value, kind) == result


@pytest.mark.fact("E21")
def test_e21_cattrs_shows_the_value() -> None:
    """E21: null for an object is a bare TypeError; the value is in the error, not in its summary."""

    @attrs.frozen
    class Record:
        size: int

    converter = cattrs.Converter()
    with pytest.raises(cattrs.ClassValidationError) as caught:
        converter.structure({"size": presigned_url()}, Record)
    with pytest.raises(SecretLeaked):
        assert_no_secret(caught.value)
    assert CANARY_SIGNATURE not in str(cattrs.transform_error(caught.value))
    with pytest.raises(TypeError):
        cattrs.Converter(detailed_validation=False).structure(None, Record)


HOSTILE_JSON: dict[str, tuple[bytes, type[Exception] | None]] = {
    "deep": (b"[" * 200_000 + b"]" * 200_000, RecursionError),
    "many digits": (b"1" * 5_000, ValueError),
    "NaN": (b"NaN", None),
    "1e999": (b"1e999", None),
    "lone surrogate": (b'"\\ud800"', None),
    "not UTF-8": (b'"\xff"', UnicodeDecodeError),
}


@pytest.mark.fact("E22")
@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_e22_json_is_lenient_and_orjson_strict(kind: str) -> None:
    """E22: what `json` accepts, or refuses in four ways, is one JSONDecodeError for orjson."""
    text, error = HOSTILE_JSON[kind]
    if error is None:
        json.loads(text)
    else:
        with pytest.raises(error) as caught:
            json.loads(text)
        assert not isinstance(caught.value, json.JSONDecodeError)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)


@pytest.mark.fact("E22")
def test_e22_last_of_duplicate_keys_wins() -> None:
    """E22: both parsers take the last of two equal keys."""
    assert json.loads(b'{"a":1,"a":2}') == orjson.loads(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.fact("E23")
@pytest.mark.parametrize("text", ["inf", "nan", "1_000", "٣", "9" * 5_000])
def test_e23_float_is_lenient(text: str) -> None:
    """E23: `float` takes much that is no number of seconds."""
    float(text)


@pytest.mark.fact("E23")
def test_e23_mail_dates_are_treacherous() -> None:
    """E23: a date may be naive, out of range or absurdly far, and garbage raises a ValueError."""
    parse: Callable[[str], Any] = email.utils.parsedate_to_datetime
    assert parse("Thu, 01 Feb 2024 12:00:00 -0000").tzinfo is None
    assert parse("Fri, 31 Dec 9999 23:59:59 GMT").year == 9999
    for text in ("", "soon", "Thu, 99 Feb 2024 12:00:00 GMT"):
        with pytest.raises((ValueError, TypeError)):
            parse(text)


@pytest.mark.fact("E34")
def test_e34_hidden_field_is_only_hidden_in_repr() -> None:
    """E34: `repr=False` keeps a value out of the repr, but not out of asdict, pickle and slots."""
    assert CANARY_TOKEN not in repr(Hidden())
    with pytest.raises(SecretLeaked, match="vars, pickle, copy, asdict"):
        assert_no_secret(Hidden())


@attrs.define
class Hidden:
    """A class with a secret, in the way that does not work."""

    token: str = attrs.field(default=CANARY_TOKEN, repr=False)
