"""
What to send, and what an answer means: pure functions of plain values.

No socket, no clock. This is the only module that knows status codes, and one function,
`read_image`, decides what every possible answer becomes.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from multidict import CIMultiDictProxy

from .._text import printable
from .._version import __version__
from ..errors import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    ImageNotFound,
    InsufficientCredit,
    InvalidRequest,
    KokoonError,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
    UnexpectedResponse,
)
from ..models import Image
from .hints import longest_hint, parse_date
from .wire import BOM, WireError, decode_json, image_from_object


__all__ = [
    "Answer",
    "Response",
    "asks_to_brake",
    "hint_of",
    "image_path",
    "is_error",
    "is_throttling",
    "is_token_refused",
    "is_transient",
    "read_image",
    "retry_after",
]

_CLOCK_GRAIN = 1.0  # seconds: `Date` has no finer one
_MOST_MESSAGE_LETTERS = 300
_MOST_EXCERPT_LETTERS = 200

# What decides alone, whatever the body. A timeout and "too early" pass like a server's fault.
_KIND_BY_STATUS: dict[int, type[ApiError]] = {
    401: AuthenticationFailed,
    402: InsufficientCredit,
    403: AuthenticationFailed,
    408: ServerError,
    425: ServerError,
    429: RateLimited,
}

# The only words that the vendor documents, each for one endpoint: an image's record, a new
# task, the price of a task.
_NOT_FOUND_WORDS = "fail to get result."
_NO_CREDIT_WORDS = "insufficient credit"
_BAD_BODY_WORDS = "must have required property"


class Response(NamedTuple):
    """
    An answer whose body was read whole, within its cap.

    Attributes:
        status: As on the status line; anything from 0 to 999 (E15).

        headers: Names in any case.

        body: Decoded from its content encoding.

        discard: Closes the connection it came on, so that nobody uses it again.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    discard: Callable[[], None]

    def __repr__(self) -> str:
        # A traceback with locals shows it; body and headers may hold presigned addresses.
        return f"<Response {self.status}, {len(self.body)} bytes>"


class Answer(NamedTuple):
    """
    Hold an image and when the server said so.

    Attributes:
        image: The record.

        response: The answer that it was in.

        attempts: Requests sent for it.
    """

    image: Image
    response: Response
    attempts: int = 1

    @property
    def server_time(self) -> datetime | None:
        """The server's clock at the answer, from its ``Date`` header."""
        return parse_date(self.response.headers.get("Date"))

    @property
    def age(self) -> float | None:
        """The image's age in seconds by the server's clock, if that makes sense."""
        now, born = self.server_time, self.image.created_time
        if now is None or born is None:
            return None
        age = (now - born).total_seconds()
        return max(age, 0.0) if age > -_CLOCK_GRAIN else None


def image_path(vid: str) -> str:
    """
    Give where the record of a canonical *vid* is.

    A path below the base URL, and not an address: so the token can only ever go to the
    API's own origin.
    """
    return f"image/{vid}"


# -- reading answers -------------------------------------------------------------------


def read_image(response: Response, vid: str) -> Image:
    """
    Give the record that an answer holds, or raise what the answer means.

    The order follows U1: the status decides first, the body second; a success without
    the record that was asked for is an error too.

    Raises:
        ProtocolError: Another image's record (E7), a damaged body, an impossible status.

        ApiError: The one that fits; see `_refusal`.

        UnexpectedResponse: Well-formed HTTP that is not this API.
    """
    read = _record if 200 <= response.status < 300 else _refusal
    result = read(response, vid)
    # Raised only here: a traceback keeps its frames, and those below hold the record (F-120).
    if isinstance(result, KokoonError):
        raise result
    return result


def _record(response: Response, vid: str) -> Image | KokoonError:
    """Read a successful answer."""
    try:
        answer = decode_json(response.body)
        if type(answer) is not dict or (answer.get("vid") is None and "message" in answer):
            return _without_record(response, vid, answer)
        image = image_from_object(answer, vid)
    except WireError as error:
        return _unreadable(response, vid, error)
    if image.vid == vid:
        return image
    return ProtocolError(
        f"The answer for image {vid} was another image's record.",
        hint="The connection was closed; asking again uses a new one.",
        vid=vid,
    )


def _unreadable(response: Response, vid: str, problem: WireError) -> KokoonError:
    """Say why a successful answer's body is no record."""
    if problem.field:
        return UnexpectedResponse(
            f"The record of image {vid} is not as documented: {problem.field}: {problem}.",
            hint=f"The API may have changed; is there a kokoon-async newer than {__version__}?",
            vid=vid,
            status=response.status,
            field=problem.field,
        )
    if response.body.removeprefix(BOM).lstrip().startswith(b"{"):
        # An object that does not parse was cut on the way: without a length or with
        # a cut encoding, HTTP itself does not notice (E8, E9). Asking again may help.
        return ProtocolError(f"The answer for image {vid} is cut or damaged JSON.", vid=vid)
    return _not_this_api(response, vid)


def _without_record(response: Response, vid: str, answer: Any) -> KokoonError:
    """Say what a successful answer without a record means (F-31)."""
    message = _message_of(answer)
    if message is None:
        return _not_this_api(response, vid)
    kind = _kind_by_words(message) or ApiError
    return _api_error(kind, response, vid, message)


def _refusal(response: Response, vid: str) -> KokoonError:
    """Say what an answer without success means."""
    status = response.status
    if not 100 <= status <= 599:
        return ProtocolError(f"The answer for image {vid} has the odd status {status}.", vid=vid)
    message = _message_of(_json_or_none(response.body))
    kind = ServerError if status >= 500 else _KIND_BY_STATUS.get(status)
    if message is not None and is_error(status):
        by_words = _kind_by_words(message)
        if by_words is InsufficientCredit:
            kind = by_words  # whatever the status: no retry and no new token helps
        elif kind is None:
            kind = ImageNotFound if status in (404, 410) else by_words or InvalidRequest
    if kind is None:
        return _not_this_api(response, vid)
    return _api_error(kind, response, vid, message or "")


def _kind_by_words(message: str) -> type[ApiError] | None:
    """Name the error that the vendor's documented words stand for."""
    if _says(message, _NOT_FOUND_WORDS):
        return ImageNotFound
    if _says(message, _NO_CREDIT_WORDS):
        return InsufficientCredit
    if message.startswith(_BAD_BODY_WORDS):
        return InvalidRequest
    return None


def _says(message: str, words: str) -> bool:
    return message.strip().rstrip(".").lower() == words.rstrip(".")


def _json_or_none(body: bytes) -> Any:
    try:
        return decode_json(body)
    except WireError:
        return None


def _message_of(answer: Any) -> str | None:
    message = answer.get("message") if type(answer) is dict else None
    return message if type(message) is str else None


_WHAT_AND_NEXT: dict[type[ApiError], tuple[str, str]] = {
    ApiError: ("The API refused image {vid}", ""),
    AuthenticationFailed: (
        "The API refused the token for image {vid}",
        "Check that the token is current and was made for this API.",
    ),
    ImageNotFound: (
        "There is no image {vid}",
        "Check the id; an original is deleted 14 days after its upload.",
    ),
    InvalidRequest: ("The API cannot use the request for image {vid}", ""),
    InsufficientCredit: ("The account's credit is used up", "Buy credit and ask again."),
    RateLimited: (
        "The API asks for fewer requests",
        "Wait, and lower Limits.max_in_flight or set Limits.requests_per_second.",
    ),
    ServerError: ("The API failed on image {vid}", "Ask again later."),
}


def _api_error(kind: type[ApiError], response: Response, vid: str, message: str) -> ApiError:
    what, hint = _WHAT_AND_NEXT[kind]
    said = printable(message, _MOST_MESSAGE_LETTERS)
    text = f"{what.format(vid=vid)} (status {response.status}{_quoted(said)})."
    error = kind(text, hint=hint, vid=vid, status=response.status, server_message=said)
    if isinstance(error, RateLimited | ServerError):
        error.retry_after = retry_after(response)
    return error


def _quoted(text: str) -> str:
    return f': "{text}"' if text else ""


def _not_this_api(response: Response, vid: str) -> UnexpectedResponse:
    start = response.body[: 4 * _MOST_EXCERPT_LETTERS].decode("utf-8", "replace")
    excerpt = printable(start, _MOST_EXCERPT_LETTERS)
    what = f"not what this API sends (status {response.status})"
    if 300 <= response.status < 400:
        what = f"a redirect (status {response.status}), which is never followed"
    return UnexpectedResponse(
        f"The answer for image {vid} is {what}{_quoted(excerpt)}.",
        hint="Check base_url, and whether a proxy or a login page stands in between.",
        vid=vid,
        status=response.status,
        excerpt=excerpt,
    )


# -- what an error means for the next attempt ------------------------------------------


def is_error(status: int) -> bool:
    """Tell whether a status stands for an error of the request or of the server."""
    return status >= 400


def is_token_refused(response: Response) -> bool:
    """Tell whether a newer token may help: for a 401 about the token, never for 403 (F-67)."""
    if response.status != 401:
        return False
    message = _message_of(_json_or_none(response.body))
    return message is None or _kind_by_words(message) is not InsufficientCredit


def retry_after(response: Response) -> float | None:
    """Give the seconds after which the server wants to be asked again, if it said so."""
    return longest_hint(response.headers.getall("Retry-After", ()), response.headers.get("Date"))


def hint_of(error: KokoonError) -> float | None:
    """Give what `retry_after` gave for the answer that an error stands for."""
    return error.retry_after if isinstance(error, RateLimited | ServerError) else None


def asks_to_brake(response: Response) -> bool:
    """Tell whether the server asks for fewer requests: 429, or 503 with a hint (F-52)."""
    return response.status == 429 or (response.status == 503 and retry_after(response) is not None)


def is_throttling(error: KokoonError) -> bool:
    """Tell whether an error says what `asks_to_brake` sees in an answer."""
    if isinstance(error, ServerError):
        return error.status == 503 and error.retry_after is not None
    return isinstance(error, RateLimited)


def is_transient(error: KokoonError) -> bool:
    """
    Tell whether the same request may succeed a little later.

    Faults of the connection, timeouts, 408, 425, 429, 500, 502, 503 and 504.
    """
    if isinstance(error, ServerError):
        return error.status in (408, 425, 500, 502, 503, 504)
    if isinstance(error, ConnectionFailed):
        return not error.is_lasting
    return isinstance(error, TransportError | RateLimited)
