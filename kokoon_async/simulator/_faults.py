"""
What can go wrong with an answer: one frozen value for each kind of fault.

They only say what shall happen; `_effects` makes it happen. Where a fault cuts an answer,
*at* says where: ``"before"`` anything is sent, after the ``"headers"``, or after so many
bytes of the whole answer, counted from the first byte of its status line (F-03). All
seconds here are seconds of the event loop's clock.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs

from ._fault_checks import (
    between,
    check_body,
    check_bytes,
    check_cut,
    check_headers,
    check_line,
    check_text,
    one_of,
)


Cut = Literal["before", "headers"] | int
Encoding = Literal["gzip", "deflate"]

_three_digits = between(0, 999, whole=True)


class Fault:
    """
    The base of all faults.

    Attributes:
        kind: Its name in the request log and over HTTP.
    """

    __slots__ = ()

    kind: ClassVar[str]


@attrs.frozen
class Status(Fault):
    """
    Answer with this status instead of the record.

    Attributes:
        status: Any number from 0 to 999, also those that HTTP does not know (F-26).

        headers: Replace or add to the usual ones; ``None`` leaves one out, such as *Date*.

        body: Bytes as they are, text, or what to write as JSON. ``None`` is the API's
            ``{"message": …}`` with the status's name, or nothing where a body is forbidden.
    """

    kind: ClassVar[str] = "status"
    status: int = attrs.field(validator=_three_digits)
    headers: Mapping[str, str | None] = attrs.field(factory=dict, validator=check_headers)
    body: bytes | str | dict[str, object] | None = attrs.field(default=None, validator=check_body)


@attrs.frozen
class Html(Fault):
    """
    Answer with a web page, as a gateway or a captive portal does (F-30, F-33).

    Attributes:
        status: The status that comes with it.
    """

    kind: ClassVar[str] = "html"
    status: int = attrs.field(default=200, validator=_three_digits)


@attrs.frozen
class Message(Fault):
    """
    Answer with ``{"message": …}`` instead of the record (F-31, F-32).

    Attributes:
        text: The message; by default the documented one for a missing image.

        status: The status that comes with it.
    """

    kind: ClassVar[str] = "message"
    text: str = attrs.field(default="fail to get result.", validator=check_text)
    status: int = attrs.field(default=200, validator=_three_digits)


@attrs.frozen
class Redirect(Fault):
    """
    Send the client elsewhere.

    Attributes:
        location: The ``Location`` header, as it is.

        status: One of the 3xx.
    """

    kind: ClassVar[str] = "redirect"
    location: str = attrs.field(validator=check_line)
    status: int = attrs.field(default=302, validator=_three_digits)


@attrs.frozen
class WrongVid(Fault):
    """
    Answer with another image's id in the record (F-42).

    It waits for an answer that is a record.

    Attributes:
        vid: That id; ``None`` for a made-up one.
    """

    kind: ClassVar[str] = "wrong_vid"
    vid: str | None = attrs.field(default=None, validator=attrs.validators.optional(check_text))


@attrs.frozen
class Regress(Fault):
    """
    Show an earlier state once (F-40).

    It waits for a record whose own state differs and is as far or farther: *pending* comes
    before *processing* and any unknown state, those before *completed* and *error*.

    Attributes:
        state: The state to show.
    """

    kind: ClassVar[str] = "regress"
    state: str = attrs.field(default="processing", validator=check_text)


@attrs.frozen
class UnknownState(Fault):
    """
    Show a state that the API does not document (F-39).

    It waits for an answer that is a record.

    Attributes:
        state: The state to show.
    """

    kind: ClassVar[str] = "unknown_state"
    state: str = attrs.field(default="warming_up", validator=check_text)


@attrs.frozen
class ClockSkew(Fault):
    """
    Let the ``Date`` header of one answer go wrong.

    Attributes:
        seconds: How far the header is ahead; negative if behind; at most a billion.
    """

    kind: ClassVar[str] = "clock_skew"
    seconds: float = attrs.field(validator=between(-1e9, 1e9))


@attrs.frozen
class Truncate(Fault):
    """
    Cut the body, with a ``Content-Length`` that agrees with the cut (E8, F-19).

    It waits for an answer with more than *size* bytes of (encoded) body.

    Attributes:
        size: How many bytes of the body remain, after encoding.

        encoding: Compress the body first; ``None`` leaves it plain.
    """

    kind: ClassVar[str] = "truncate"
    size: int = attrs.field(validator=between(0, whole=True))
    encoding: Encoding | None = attrs.field(default=None, validator=one_of("gzip", "deflate", None))


@attrs.frozen
class Bomb(Fault):
    """
    Answer with a small body that inflates to a huge record (E10, F-22).

    It is made while it is sent, so the server never holds it.

    Attributes:
        size: Bytes after inflation.

        encoding: ``None`` sends all the bytes as they are.
    """

    kind: ClassVar[str] = "bomb"
    size: int = attrs.field(validator=between(0, whole=True))
    encoding: Encoding | None = attrs.field(
        default="gzip", validator=one_of("gzip", "deflate", None)
    )


@attrs.frozen
class Reset(Fault):
    """
    Break the connection with a TCP reset (F-03).

    Attributes:
        at: How much of the answer goes out first.
    """

    kind: ClassVar[str] = "reset"
    at: Cut = attrs.field(default="before", validator=check_cut)


@attrs.frozen
class Fin(Fault):
    """
    Close the connection in an orderly way before the answer is complete (F-02, F-18).

    Attributes:
        at: How much of the answer goes out first.
    """

    kind: ClassVar[str] = "fin"
    at: Cut = attrs.field(default="before", validator=check_cut)


@attrs.frozen
class Hold(Fault):
    """
    Fall silent (F-07).

    Attributes:
        at: How much of the answer goes out first.

        seconds: Then the rest follows; ``None`` is never, until the client goes.
    """

    kind: ClassVar[str] = "hold"
    at: Cut = attrs.field(default="before", validator=check_cut)
    seconds: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(between(0))
    )


@attrs.frozen
class Drip(Fault):
    """
    Send the whole answer, headers too, very slowly (E13, F-08).

    Attributes:
        bytes_per_second: One byte at a time up to 20, then 20 pieces per second.
    """

    kind: ClassVar[str] = "drip"
    bytes_per_second: float = attrs.field(validator=between(0.001))


@attrs.frozen
class Slice(Fault):
    """
    Send the body in pieces: each an HTTP chunk and a write of its own.

    Attributes:
        size: Bytes of body in a piece.
    """

    kind: ClassVar[str] = "slice"
    size: int = attrs.field(validator=between(1, whole=True))


@attrs.frozen
class Latency(Fault):
    """
    Answer as usual, but late.

    Attributes:
        seconds: How late; the image is looked at when they are over.
    """

    kind: ClassVar[str] = "latency"
    seconds: float = attrs.field(validator=between(0))


@attrs.frozen
class ExtraResponse(Fault):
    """
    Answer as usual and, later, send another answer that nobody asked for (E7, F-06).

    Attributes:
        delay: When it follows on the same connection, if that is still open by then.

        vid: Whose record it is; ``None`` for a made-up image.
    """

    kind: ClassVar[str] = "extra_response"
    delay: float = attrs.field(validator=between(0))
    vid: str | None = attrs.field(default=None, validator=attrs.validators.optional(check_text))


@attrs.frozen
class RotateToken(Fault):
    """
    Change the token just before this request is looked at (F-63).

    Attributes:
        token: The only one that is accepted from then on.
    """

    kind: ClassVar[str] = "rotate_token"
    token: str = attrs.field(validator=check_text, repr=lambda _: "'***'")


@attrs.frozen
class Raw(Fault):
    """
    Put these bytes on the wire instead of an answer, then close (F-24 to F-28).

    Attributes:
        data: Any bytes.
    """

    kind: ClassVar[str] = "raw"
    data: bytes = attrs.field(validator=check_bytes)
