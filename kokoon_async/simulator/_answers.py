"""
What the simulator answers, and the bytes that say it.

The bytes are made here rather than by aiohttp, so that a faulty answer and a good one
are the same up to the fault, and a fault can strike between any two of them.
"""

import http
import json
from collections.abc import Mapping

import attrs

from ._clock import http_date
from ._images import SimulatedImage


JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_USUAL = {
    name.lower(): name
    for name in ("Connection", "Content-Length", "Content-Type", "Date", "Server")
}
_NO_CONTENT = 204
_NOT_MODIFIED = 304


@attrs.frozen
class Answer:
    """
    One answer before it becomes bytes.

    Attributes:
        status: Its status.

        content: Bytes as they are, or what to write as JSON.

        headers: Replace or add to the usual ones; ``None`` leaves one out.

        image: Whose record it is, if it is one.

        state: The state of that image which the answer shows, if it is the true one.

        date_shift: Seconds that the ``Date`` header is ahead.
    """

    status: int
    content: bytes | Mapping[str, object]
    headers: Mapping[str, str | None] = attrs.field(factory=dict)
    image: SimulatedImage | None = None
    state: str | None = None
    date_shift: float = 0.0

    @property
    def body(self) -> bytes:
        """The content as bytes."""
        return self.content if isinstance(self.content, bytes) else encode_json(self.content)


@attrs.frozen
class Rendered:
    """
    One answer as bytes.

    Attributes:
        head: Status line and headers with the empty line behind them.

        body: The rest.

        closes: Whether the connection ends with it.
    """

    head: bytes
    body: bytes
    closes: bool


def encode_json(value: object) -> bytes:
    """Write *value* as compact JSON in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def make_message(status: int, text: str, headers: Mapping[str, str | None] | None = None) -> Answer:
    """Make an error answer as the API documents it."""
    return Answer(status, {"message": text}, headers or {})


def make_text(status: int, text: str, headers: Mapping[str, str | None] | None = None) -> Answer:
    """Make a plain answer that is clearly not the API's own."""
    return Answer(status, text.encode(), {"Content-Type": TEXT_TYPE, **(headers or {})})


def phrase(status: int) -> str:
    """Give the usual words for a status."""
    return _PHRASES.get(status, "Unknown")


def has_no_body(status: int) -> bool:
    """Tell whether HTTP forbids a body with this status."""
    return 100 <= status < 200 or status in {_NO_CONTENT, _NOT_MODIFIED}  # noqa: PLR2004


def render(
    answer: Answer, now: float, *, body: bytes | None = None, chunked: bool = False, close: bool
) -> Rendered:
    """
    Turn an answer into bytes.

    Args:
        answer: What to say.

        now: The server's time in seconds since 1970.

        body: Stands in for the answer's own, for an answer to HEAD or one that is streamed.

        chunked: Announce chunks instead of a length.

        close: Announce that the connection ends.
    """
    body = answer.body if body is None else body
    headers: dict[str, str | None] = {
        "Date": http_date(now + answer.date_shift),
        "Server": "kokoon-simulator",
        "Content-Type": JSON_TYPE,
    }
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif body or not has_no_body(answer.status):
        headers["Content-Length"] = str(len(body))
    if close:
        headers["Connection"] = "close"
    for name, value in answer.headers.items():
        headers[_USUAL.get(name.lower(), name)] = value
    lines = [f"HTTP/1.1 {answer.status:03d} {phrase(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    head = "\r\n".join(lines) + "\r\n\r\n"
    # Without a length only the end of the connection tells where a body ends (E9).
    endless = bool(body) and not (headers.get("Content-Length") or chunked)
    closes = endless or (headers.get("Connection") or "").lower() == "close"
    return Rendered(head.encode("latin-1"), body, closes)
