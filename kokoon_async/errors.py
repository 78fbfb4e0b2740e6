"""
Every exception of the package, by what the caller can do now.

::

    KokoonError                     message, hint, vid, attempts
    ├── ConfigurationError          also ValueError; nothing was sent
    │   └── InvalidVid              also ValueError; not an image id
    ├── TransportError              no usable answer: asking again may help
    │   ├── ConnectionFailed        refused, reset, closed, name not found, TLS
    │   ├── RequestTimedOut         also TimeoutError; says which phase
    │   └── ProtocolError           broken HTTP, too large, another vid, cut body
    ├── UnexpectedResponse          well-formed HTTP that is not this API
    ├── ApiError                    the API said no; status, server_message
    │   ├── AuthenticationFailed    401, 403
    │   ├── ImageNotFound           404, or the API's words for it
    │   ├── InvalidRequest          other 4xx with a message
    │   ├── InsufficientCredit      402, or the API's words for it
    │   ├── RateLimited             429; retry_after
    │   └── ServerError             5xx; retry_after
    ├── WaitError                   image (last seen), history, elapsed
    │   ├── ImageFailed             the server says error
    │   ├── WaitTimedOut            also TimeoutError; the server's work goes on
    │   └── WaitOutage              no good answer for too long
    ├── ClientClosed                the client is closed, or another loop's or process's
    └── JobError                    a bulk job cannot go on; path

All carry plain data only: they pickle and copy with fields and notes intact,
which is why each class is ``attrs.define(slots=False)`` with *message* first and
a default everywhere else; tests hold it. ``repr=False`` keeps the one bounded repr of
the base.
"""

from collections.abc import Sequence

import attrs

from .models import Image, Sighting


__all__ = [
    "ApiError",
    "AuthenticationFailed",
    "ClientClosed",
    "ConfigurationError",
    "ConnectionFailed",
    "ImageFailed",
    "ImageNotFound",
    "InsufficientCredit",
    "InvalidRequest",
    "InvalidVid",
    "JobError",
    "KokoonError",
    "ProtocolError",
    "RateLimited",
    "RequestTimedOut",
    "ServerError",
    "TransportError",
    "UnexpectedResponse",
    "WaitError",
    "WaitOutage",
    "WaitTimedOut",
]

_MOST_REPR_LETTERS = 500


@attrs.define(slots=False, repr=False)
class KokoonError(Exception):
    """
    Stand for anything that went wrong in this package.

    Attributes:
        message: What happened, as one sentence.

        hint: What to do next, as one sentence; may be empty.

        vid: The image it happened to, if there was one.

        attempts: Requests sent for it; 0 if none left this process.
    """

    message: str = ""
    hint: str = ""
    vid: str | None = None
    attempts: int = 0

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __repr__(self) -> str:
        # Bounded: an error is logged a thousand times in an outage (F-122).
        shown = f"{type(self).__name__}({self.message!r:.300}"
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if field.name not in ("message", "hint") and value != field.default:
                shown += f", {field.name}={value!r:.60}"
        return f"{shown:.{_MOST_REPR_LETTERS - 1}})"


@attrs.define(slots=False, repr=False)
class ConfigurationError(KokoonError, ValueError):
    """Say that an argument cannot be used; nothing was sent."""


@attrs.define(slots=False, repr=False)
class InvalidVid(ConfigurationError):
    """Say that a text is not an image id (a canonical UUID); nothing was sent."""


@attrs.define(slots=False, repr=False)
class TransportError(KokoonError):
    """Say that no usable answer arrived; asking again may help."""


@attrs.define(slots=False, repr=False)
class ConnectionFailed(TransportError):
    """
    Say that the connection could not be made or was lost.

    Attributes:
        is_lasting: Whether trying again cannot help: the server's certificate does
            not fit.
    """

    is_lasting: bool = False


@attrs.define(slots=False, repr=False)
class RequestTimedOut(TransportError, TimeoutError):
    """
    Say that the time for a request ran out.

    Attributes:
        phase: What the request was doing then, e.g. ``"reading the answer"``.
    """

    phase: str = ""


@attrs.define(slots=False, repr=False)
class ProtocolError(TransportError):
    """Say that the answer was broken HTTP, too large, cut, or another image's."""


@attrs.define(slots=False, repr=False)
class UnexpectedResponse(KokoonError):
    """
    Say that the answer is well-formed HTTP but not this API's.

    Attributes:
        status: The HTTP status.

        field: The path of the offending field, if the record was at fault.

        excerpt: The start of the answer, at most 200 characters, made printable.
    """

    status: int = 0
    field: str = ""
    excerpt: str = ""


@attrs.define(slots=False, repr=False)
class ApiError(KokoonError):
    """
    Say that the API refused.

    Attributes:
        status: The HTTP status. It may be a success code: the vendor documents no
            status for errors.

        server_message: The server's own words, at most 300 characters, made
            printable.
    """

    status: int = 0
    server_message: str = ""


@attrs.define(slots=False, repr=False)
class AuthenticationFailed(ApiError):
    """
    Say that the token was refused (401, after one refresh, or 403), or that there is none.

    Attributes:
        is_passing: Whether waits and jobs go on all the same, for as long as they bear an
            outage: a token provider that gave a token before failed this time.
    """

    is_passing: bool = False


@attrs.define(slots=False, repr=False)
class ImageNotFound(ApiError):
    """Say that there is no such image, or no longer (originals live 14 days)."""


@attrs.define(slots=False, repr=False)
class InvalidRequest(ApiError):
    """Say that the API cannot use the request; sending it again will not help."""


@attrs.define(slots=False, repr=False)
class InsufficientCredit(ApiError):
    """Say that the account's credit does not cover the request."""


@attrs.define(slots=False, repr=False)
class RateLimited(ApiError):
    """
    Say that the server asks for fewer requests (429).

    Attributes:
        retry_after: Seconds after which the server wants to be asked again;
            ``None`` if it did not say.
    """

    retry_after: float | None = None


@attrs.define(slots=False, repr=False)
class ServerError(ApiError):
    """
    Say that the server failed (5xx) on every attempt.

    Attributes:
        retry_after: Seconds after which the server wants to be asked again;
            ``None`` if it did not say.
    """

    retry_after: float | None = None


@attrs.define(slots=False, repr=False)
class WaitError(KokoonError):
    """
    Say that a wait ended without a finished image.

    Attributes:
        image: The record as first seen in its last state, without its addresses;
            ``None`` if it was never seen, and for `wait_many`, which keeps no records,
            except for that of an image that failed.

        history: The states seen, oldest first, repeats folded together.

        elapsed: How long the wait lasted, in seconds.
    """

    image: Image | None = None
    history: Sequence[Sighting] = ()
    elapsed: float = 0.0


@attrs.define(slots=False, repr=False)
class ImageFailed(WaitError):
    """Say that the server reports the state ``error`` for this image."""


@attrs.define(slots=False, repr=False)
class WaitTimedOut(WaitError, TimeoutError):
    """Say that the image was not finished in time; the server's work goes on."""


@attrs.define(slots=False, repr=False)
class WaitOutage(WaitError):
    """Say that the wait had no good answer for too long."""


@attrs.define(slots=False, repr=False)
class ClientClosed(KokoonError):
    """Say that the client is closed, or belongs to another event loop or process."""


@attrs.define(slots=False, repr=False)
class JobError(KokoonError):
    """
    Say that a bulk job cannot start or go on; what it wrote so far is kept.

    Attributes:
        path: The file or folder concerned.

        errno: The operating system's number, if it is what refused; see `errno`.
    """

    path: str = ""
    errno: int | None = None
