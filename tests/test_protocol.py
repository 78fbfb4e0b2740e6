"""
What every possible answer means: pure functions of a status, headers and a body.
"""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

import kokoon_async
from kokoon_async import Image
from kokoon_async._http.protocol import (
    Answer,
    Response,
    asks_to_brake,
    image_path,
    is_error,
    is_throttling,
    is_token_refused,
    is_transient,
    read_image,
    retry_after,
)
from kokoon_async.errors import (
    ApiError,
    AuthenticationFailed,
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    ImageFailed,
    ImageNotFound,
    InsufficientCredit,
    InvalidRequest,
    InvalidVid,
    KokoonError,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitOutage,
)

from .canary import assert_no_secret, contains_secret, presigned_url
from .strategies import bodies, hints, sample, statuses


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
OTHER = "8eb18100-3aa0-11ee-a8b4-73df6b5af037"
RECORD = {**sample("image"), "url": presigned_url(), "thumb_url": presigned_url()}
DATE = "Thu, 01 Feb 2024 12:17:33 GMT"


def answer(status: int, body: object = b"", *headers: tuple[str, str]) -> Response:
    """Build an answer that fails the test if its connection is closed: that is not ours to do."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, CIMultiDictProxy(CIMultiDict(headers)), raw, pytest.fail)


def refusal(response: Response) -> Any:
    """Return the error that an answer means; it must carry nothing foreign."""
    with pytest.raises(KokoonError) as caught:
        read_image(response, VID)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return caught.value


# --- the product of status and body ---------------------------------------------------------------

BODIES: dict[str, bytes] = {
    "record": json.dumps(RECORD).encode(),
    "other": json.dumps({**RECORD, "vid": OTHER}).encode(),
    "not-found": json.dumps(sample("not_found")).encode(),
    "credit": json.dumps(sample("insufficient_credit")).encode(),
    "bad-body": json.dumps(sample("bad_body")).encode(),
    "unknown": b'{"message": "something else"}',
    "empty": b"",
    "HTML": b"<!doctype html>\n<title>Log in</title>",
    "list": json.dumps([RECORD]).encode(),
    "string": b'"completed"',
    "null": b"null",
    "number": b"200",
    "object": b"{}",
    "cut": json.dumps(RECORD).encode()[:-40],
    "not-UTF-8": json.dumps(RECORD).encode().replace(b"original", b"\xff\xfe"),
    "deep-list": b"[" * 100_000 + b"]" * 100_000,
    "deep-object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "odd-state": json.dumps({**RECORD, "state": 1}).encode(),
    "odd-message": b'{"message": 404}',
}

OUTCOMES: dict[str, type[KokoonError] | None] = {
    "ok": None,
    "A": AuthenticationFailed,
    "C": InsufficientCredit,
    "E": ApiError,
    "I": InvalidRequest,
    "L": RateLimited,
    "N": ImageNotFound,
    "P": ProtocolError,
    "S": ServerError,
    "U": UnexpectedResponse,
}

# The columns are `BODIES`, in their order. Written from U1, U5 and faults F-30 to F-33, not from the
# code. Where these leave a choice: the words for missing credit win over any status of an error,
# since neither a retry nor a new token helps; "fail to get result." means "not found" with any 4xx
# that says nothing else (U5); and a damaged object is a fault of the transport, any other damage a
# foreign server.
PRODUCT = """
      rec oth n-f crd bad unk emp htm lst str nul num obj cut utf dpl dpo sta msg
200   ok  P   N   C   I   E   U   U   U   U   U   U   U   P   P   U   P   U   U
201   ok  P   N   C   I   E   U   U   U   U   U   U   U   P   P   U   P   U   U
204   ok  P   N   C   I   E   U   U   U   U   U   U   U   P   P   U   P   U   U
299   ok  P   N   C   I   E   U   U   U   U   U   U   U   P   P   U   P   U   U
100   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
199   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
300   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
301   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
302   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
304   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
400   U   U   N   C   I   I   U   U   U   U   U   U   U   U   U   U   U   U   U
401   A   A   A   C   A   A   A   A   A   A   A   A   A   A   A   A   A   A   A
402   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C
403   A   A   A   C   A   A   A   A   A   A   A   A   A   A   A   A   A   A   A
404   U   U   N   C   N   N   U   U   U   U   U   U   U   U   U   U   U   U   U
408   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
409   U   U   N   C   I   I   U   U   U   U   U   U   U   U   U   U   U   U   U
410   U   U   N   C   N   N   U   U   U   U   U   U   U   U   U   U   U   U   U
422   U   U   N   C   I   I   U   U   U   U   U   U   U   U   U   U   U   U   U
425   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
429   L   L   L   C   L   L   L   L   L   L   L   L   L   L   L   L   L   L   L
500   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
502   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
503   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
504   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
507   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
599   S   S   S   C   S   S   S   S   S   S   S   S   S   S   S   S   S   S   S
 99   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P
  0   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P
600   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P
999   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P   P
"""


def product() -> list[Any]:
    """Unfold the table: status, body, outcome."""
    _, *rows = [line.split() for line in PRODUCT.strip().splitlines()]
    return [
        pytest.param(int(status), name, OUTCOMES[cell], id=f"{status} {name}")
        for status, *cells in rows
        for name, cell in zip(BODIES, cells, strict=True)
    ]


@pytest.mark.fault("F-26")
@pytest.mark.fault("F-30")
@pytest.mark.fault("F-31")
@pytest.mark.fault("F-32")
@pytest.mark.fault("F-33")
@pytest.mark.fault("F-42")
@pytest.mark.fault("F-67")
@pytest.mark.parametrize(("status", "name", "kind"), product())
def test_what_an_answer_means(status: int, name: str, kind: type[KokoonError] | None) -> None:
    """Each status with each body is a record or the one error that the table says."""
    response = answer(status, BODIES[name], ("Retry-After", "7"))
    if kind is None:
        assert read_image(response, VID).vid == VID
        return
    error = refusal(response)
    assert type(error) is kind
    assert error.vid == VID
    assert VID in error.message or kind in (InsufficientCredit, RateLimited)
    assert error.message.endswith(".")
    assert len(error.message) <= 500
    assert getattr(error, "status", status) == status
    assert getattr(error, "retry_after", 7.0) == 7.0
    assert_no_secret(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@given(statuses, bodies, st.lists(st.tuples(st.just("Retry-After"), hints), max_size=2))
def test_any_answer_has_a_meaning(status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
    """Whatever arrives is an image of the right id, or an error of ours with a bounded text."""
    response = answer(status, body, *headers)
    try:
        found: Image | KokoonError = read_image(response, VID)
    except KokoonError as error:
        found = error
    if isinstance(found, Image):
        assert (found.vid, status // 100) == (VID, 2)
    else:
        assert len(found.message) <= 500
        assert str(found).isprintable()
        assert is_throttling(found) <= asks_to_brake(response)


# --- details of what was read ---------------------------------------------------------------------


def test_the_record_is_read_as_it_is() -> None:
    """A good answer is the image that its body says, whatever else the object holds."""
    image = read_image(answer(200, {**RECORD, "message": "hello"}), VID)
    assert str(image.url) == presigned_url()
    assert image.extra == {"message": "hello"}


def test_the_vid_may_come_in_another_case() -> None:
    """An answer with the id in upper case is the one that was asked for."""
    assert read_image(answer(200, {**RECORD, "vid": VID.upper()}), VID).vid == VID


@pytest.mark.fault("F-31")
def test_a_message_instead_of_a_null_vid_is_read() -> None:
    """An object that says `null` for the id and has a message means what the message says."""
    assert type(refusal(answer(200, {"vid": None, **sample("not_found")}))) is ImageNotFound


@pytest.mark.fault("F-42")
def test_another_images_record_is_nobodys_business() -> None:
    """The error for another image's record names the image that was asked for, and no other."""
    error = refusal(answer(200, {**RECORD, "vid": OTHER}))
    assert error.message == f"The answer for image {VID} was another image's record."
    assert OTHER not in repr(error)
    assert error.hint == "The connection was closed; asking again uses a new one."


@pytest.mark.fault("F-35")
@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"state": ["x"]}, "state", "must be a text of 1 to 100 printable characters"),
        ({"vid": 7}, "vid", "must be a canonical UUID"),
    ],
)
def test_the_field_at_fault_is_named(change: dict[str, Any], field: str, reason: str) -> None:
    """A record that is not as documented: the error has the field's path, and no value."""
    error = refusal(answer(200, {**RECORD, **change}))
    assert (error.field, error.status, error.excerpt) == (field, 200, "")
    assert str(error) == (
        f"The record of image {VID} is not as documented: {field}: {reason}."
        f" The API may have changed; is there a kokoon-async newer than {kokoon_async.__version__}?"
    )
    assert_no_secret(error)


@pytest.mark.fault("F-18")
def test_a_cut_object_may_begin_with_blanks() -> None:
    """What begins like an object, and does not end like one, was cut: asking again may help."""
    assert type(refusal(answer(200, b' \n {"vid": "de5e'))) is ProtocolError
    assert type(refusal(answer(200, b'\xef\xbb\xbf {"vid": "de5e'))) is ProtocolError
    assert type(refusal(answer(200, b" \n not an object"))) is UnexpectedResponse


CHANGED: dict[str, Any] = {
    "state is an object": {**RECORD, "state": {"name": "completed"}},
    "vid has another name": {"id": VID, "state": "completed"},
    "state has another name": {"vid": VID, "status": "completed"},
    "vid is a number": {**RECORD, "vid": 1},
}


@pytest.mark.fault("F-46")
@pytest.mark.parametrize("change", CHANGED)
def test_an_api_that_changed_is_told_as_such(change: str) -> None:
    """A record of another shape is an `UnexpectedResponse` that names the field and our version."""
    error = refusal(answer(200, CHANGED[change]))
    assert type(error) is UnexpectedResponse
    assert error.field in ("vid", "state")
    assert kokoon_async.__version__ in error.hint
    assert not is_transient(error)


TYPES = [
    *("application/json", "text/html", "text/plain; charset=latin-1", "application/octet-stream"),
    *("application/json; charset=utf-16", "application/json; charset=no-such-set", "", "\x7f/;;="),
    *("application/json, text/html", None),
]
UNREADABLE = {name: json.dumps(RECORD).encode(name) for name in ("utf-16", "utf-32", "cp037")}


@pytest.mark.fault("F-29")
@pytest.mark.parametrize("kind", TYPES)
def test_the_bytes_count_and_not_their_name(kind: str | None) -> None:
    """Whatever the content type says: UTF-8 is read, with or without a BOM, and nothing else."""
    headers = [] if kind is None else [("Content-Type", kind)]
    body = json.dumps({**RECORD, "filename": "ö.png"}, ensure_ascii=False).encode()
    for good in (body, b"\xef\xbb\xbf" + body):
        assert read_image(answer(200, good, *headers), VID).filename == "ö.png"
    for bad in UNREADABLE.values():
        assert type(refusal(answer(200, bad, *headers))) is UnexpectedResponse


@pytest.mark.parametrize(
    "words",
    ["fail to get result.", "fail to get result", "Fail to get result.", " fail to get result. "],
)
def test_the_vendors_words_are_known_in_any_spelling(words: str) -> None:
    """Case, blanks around and a full stop make no difference."""
    assert type(refusal(answer(400, {"message": words}))) is ImageNotFound


@pytest.mark.parametrize(
    "words",
    [
        *("fail to get result of the task", "it did fail to get result.", ""),
        *("no insufficient credit", "you must have required property"),
    ],
)
def test_other_words_mean_nothing_special(words: str) -> None:
    """Only the whole documented message counts."""
    assert type(refusal(answer(400, {"message": words}))) is InvalidRequest
    assert type(refusal(answer(200, {"message": words}))) is ApiError


def test_the_servers_words_are_quoted() -> None:
    """An API error says what the server said, as message and as a field."""
    error = refusal(answer(422, {"message": "say 'why' or \"how\" \\ when"}))
    assert error.server_message == "say 'why' or \"how\" \\ when"
    assert error.message == (
        f"The API cannot use the request for image {VID}"
        ' (status 422: "say \'why\' or "how" \\ when").'
    )


def test_no_words_no_quotes() -> None:
    """Where the server said nothing, the message has no empty quotes."""
    assert refusal(answer(503)).message == f"The API failed on image {VID} (status 503)."
    assert refusal(answer(204)).message == (
        f"The answer for image {VID} is not what this API sends (status 204)."
    )


@pytest.mark.fault("F-47")
@pytest.mark.fault("F-123")
def test_the_servers_words_are_cleaned() -> None:
    """Escapes, line breaks and marks of direction neither forge a log nor steer a terminal."""
    error = refusal(answer(400, {"message": "\x1b[31mred\x1b[0m\r\nERROR forged \u202e\x00x"}))
    assert error.server_message == "\ufffd[31mred\ufffd[0m ERROR forged \ufffd\ufffdx"
    assert str(error).isprintable()


@pytest.mark.fault("F-32")
@pytest.mark.parametrize("letter", ["x", "\\", "'", '"', "\x1b", "ü", "😀"])
@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
def test_the_servers_words_are_bounded(status: int, letter: str) -> None:
    """A message of a megabyte becomes a short one, whatever it is made of."""
    error = refusal(answer(status, {"message": letter * 1_000_000}))
    assert len(error.server_message) <= 300
    assert len(error.message) <= 500
    assert len(repr(error)) <= 500


@pytest.mark.fault("F-30")
@pytest.mark.parametrize("letter", ["x", "\\", "'", '"', "\x1b", "ü", "\xff"])
@pytest.mark.parametrize("status", [200, 302, 404])
def test_the_excerpt_is_bounded(status: int, letter: str) -> None:
    """Of a foreign page the error has at most 200 characters, made printable."""
    for encoding in ("utf-8", "latin-1"):
        error = refusal(answer(status, f"<html>{letter * 100_000}".encode(encoding)))
        assert len(error.excerpt) <= 200
        assert error.excerpt.startswith("<html>")
        assert len(error.message) <= 500
        assert str(error).isprintable()


@pytest.mark.parametrize("letter", ["x", "ü", "😀"])
def test_the_excerpt_is_long_enough_to_recognise_a_page(letter: str) -> None:
    """Where there is enough to show, all 200 characters are used, whatever their size in bytes."""
    error = refusal(answer(200, ("<html>" + letter * 1_000).encode()))
    assert error.excerpt == "<html>" + letter * 193 + "…"


HINTS = [
    (401, "unknown", "Check that the token is current and was made for this API."),
    (404, "not-found", "Check the id; an original is deleted 14 days after its upload."),
    (400, "credit", "Buy credit and ask again."),
    (429, "empty", "Wait, and lower Limits.max_in_flight or set Limits.requests_per_second."),
    (500, "empty", "Ask again later."),
    (422, "unknown", ""),  # the server's own words say more
    (200, "unknown", ""),
    (200, "HTML", "Check base_url, and whether a proxy or a login page stands in between."),
]


@pytest.mark.parametrize(("status", "body", "hint"), HINTS)
def test_an_error_says_what_to_do_next(status: int, body: str, hint: str) -> None:
    """Each kind of error has its own advice, and the image that was asked for."""
    error = refusal(answer(status, BODIES[body]))
    assert (error.hint, error.vid, error.status) == (hint, VID, status)


@pytest.mark.fault("F-33")
@pytest.mark.parametrize("status", [100, 199, 200, 299, 400, 404])
def test_a_foreign_page_is_no_redirect(status: int) -> None:
    """Any other foreign answer says so, and is not called a redirect."""
    error = refusal(answer(status, b"<html>"))
    assert error.message == (
        f'The answer for image {VID} is not what this API sends (status {status}): "<html>".'
    )


@pytest.mark.fault("F-72")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_is_never_followed(status: int) -> None:
    """A redirect is told as one, and shows nothing of where it leads."""
    error = refusal(answer(status, b"", ("Location", presigned_url())))
    assert type(error) is UnexpectedResponse
    assert f"a redirect (status {status}), which is never followed" in error.message
    assert_no_secret(error)


@pytest.mark.fault("F-120")
@pytest.mark.parametrize("status", [200, 302, 400, 404, 500])
def test_no_error_shows_a_presigned_address(status: int) -> None:
    """Wherever in an answer an address stands, its query is in no error and no traceback."""
    for body in (
        [RECORD],
        {"message": f"cannot read {presigned_url()} now"},
        {**RECORD, "vid": 1},
        {**RECORD, "state": None},
        f"<a href='{presigned_url()}'>moved</a>".encode(),
        presigned_url(),
        BODIES["cut"],
        BODIES["not-UTF-8"],
    ):
        assert_no_secret(refusal(answer(status, body, ("Location", presigned_url()))))


@pytest.mark.fault("F-120")
def test_an_answer_shows_only_its_size() -> None:
    """Neither body nor headers are in the repr of an answer."""
    response = answer(200, RECORD, ("Location", presigned_url()))
    assert repr(response) == f"<Response 200, {len(response.body)} bytes>"
    assert not contains_secret(f"{Answer(read_image(response, VID), response)}")


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("date", "created", "age"),
    [
        (DATE, "2024-02-01T12:17:32.699Z", 0.301),
        (DATE, "2024-02-01T12:17:33.000Z", 0.0),
        (DATE, "2024-02-01T12:17:33.999Z", 0.0),  # `Date` has no fractions
        (DATE, "2024-02-01T12:17:34.000Z", None),  # the clocks disagree
        (DATE, "2024-01-25T12:17:33.000Z", 7 * 86_400.0),
        (DATE, None, None),
        (DATE, "soon", None),
        ("soon", "2024-02-01T12:17:32.699Z", None),
        (None, "2024-02-01T12:17:32.699Z", None),
    ],
)
def test_the_servers_clock_tells_the_age(
    date: str | None, created: str | None, age: float | None
) -> None:
    """The age is the answer's `Date` less *created_time*, where both make sense."""
    headers = [("Date", date)] if date else []
    response = answer(200, {**RECORD, "created_time": created}, *headers)
    found = Answer(read_image(response, VID), response)
    assert found.age == (None if age is None else pytest.approx(age))


def test_the_servers_time_is_that_of_the_answer() -> None:
    """*server_time* is the `Date` header, aware."""
    response = answer(200, RECORD, ("date", DATE))
    found = Answer(read_image(response, VID), response)
    assert found.server_time == datetime(2024, 2, 1, 12, 17, 33, tzinfo=UTC)
    assert found.attempts == 1


# --- requests -------------------------------------------------------------------------------------


def test_a_request_is_a_path_below_the_base_url() -> None:
    """A request names no host: it can only go to the API."""
    assert image_path(VID) == f"image/{VID}"


# --- what an error means for the next attempt -----------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [(100, False), (200, False), (302, False), (399, False), (400, True), (500, True), (999, True)],
)
def test_is_error(status: int, *, expected: bool) -> None:
    """From 400 on, a body explains an error."""
    assert is_error(status) is expected


@pytest.mark.fault("F-67")
@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 407, 429, 500])
def test_only_a_401_asks_for_a_newer_token(status: int) -> None:
    """A 403 is never a reason to ask for another token."""
    assert is_token_refused(answer(status)) is (status == 401)


@pytest.mark.fault("F-52")
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, [], True),
        (429, [("Retry-After", "5")], True),
        (429, [("Retry-After", "soon")], True),
        (503, [], False),
        (503, [("Retry-After", "5")], True),
        (503, [("retry-after", "0")], True),
        (503, [("Retry-After", "soon")], False),
        (503, [("Retry-After", DATE), ("Date", DATE)], True),
        (503, [("Retry-After", DATE)], False),
        (500, [("Retry-After", "5")], False),
        (502, [("Retry-After", "5")], False),
        (200, [("Retry-After", "5")], False),
        (302, [("Retry-After", "5")], False),
    ],
)
def test_what_asks_for_fewer_requests(
    status: int, headers: list[tuple[str, str]], *, expected: bool
) -> None:
    """A 429, and a 503 that says for how long; the error says the same as the answer."""
    response = answer(status, b"", *headers)
    assert asks_to_brake(response) is expected
    assert is_throttling(refusal(response)) is expected


@pytest.mark.fault("F-50")
def test_of_two_hints_the_longer_counts() -> None:
    """Two `Retry-After` headers: the server may be asked when both have passed."""
    response = answer(503, b"", ("Retry-After", "5"), ("Retry-After", "9"))
    assert retry_after(response) == 9.0
    assert refusal(response).retry_after == 9.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((TransportError(), True), (RequestTimedOut(), True), (ProtocolError(), True)),
        *((ConnectionFailed(), True), (ConnectionFailed(is_lasting=True), False)),
        *((RateLimited(status=429), True), (ServerError(status=408), True)),
        *((ServerError(status=425), True), (ServerError(status=500), True)),
        *((ServerError(status=501), False), (ServerError(status=502), True)),
        *((ServerError(status=503), True), (ServerError(status=504), True)),
        *((ServerError(status=505), False), (ServerError(status=507), False)),
        *((AuthenticationFailed(), False), (ImageNotFound(), False), (InvalidRequest(), False)),
        *((InsufficientCredit(), False), (ApiError(), False), (UnexpectedResponse(), False)),
        *((ConfigurationError(), False), (InvalidVid(), False), (ClientClosed(), False)),
        *((ImageFailed(), False), (WaitOutage(), False), (KokoonError(), False)),
    ],
    ids=repr,
)
def test_what_may_pass(error: KokoonError, *, expected: bool) -> None:
    """Faults of the connection, timeouts and the listed statuses may pass; all else does not."""
    assert is_transient(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((RateLimited(), True), (ServerError(status=503, retry_after=0.0), True)),
        *((ServerError(status=503), False), (ServerError(status=500, retry_after=1.0), False)),
        *((ConnectionFailed(), False), (ImageNotFound(), False)),
    ],
    ids=repr,
)
def test_what_is_throttling(error: KokoonError, *, expected: bool) -> None:
    """Only errors by which the server asks for fewer requests are."""
    assert is_throttling(error) is expected
