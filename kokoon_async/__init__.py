"""
An async-first client for the Kokoon Image Super-Resolution API.

Start with `KokoonClient`; everything else is what it takes, gives or raises.
"""

import typing

from ._http.auth import TokenProvider
from ._http.calls import Timeouts
from ._http.retry import RetryPolicy
from ._http.throttle import Limits
from ._version import __version__
from ._waiting.outcomes import Outcome, OutcomeStream
from ._waiting.streams import Watch
from .client import DEFAULT_BASE_URL, KokoonClient
from .errors import (
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
    JobError,
    KokoonError,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitError,
    WaitOutage,
    WaitTimedOut,
)
from .events import Event, Hook
from .models import Image, ImageState, Sighting
from .polling import (
    AgeProportional,
    Cost,
    Exponential,
    Fixed,
    Learned,
    Look,
    PollPolicy,
    evaluate,
    preview,
)


if typing.TYPE_CHECKING:
    from ._http.converters import configure_converter, make_converter

__all__ = [
    "DEFAULT_BASE_URL",
    "AgeProportional",
    "ApiError",
    "AuthenticationFailed",
    "ClientClosed",
    "ConfigurationError",
    "ConnectionFailed",
    "Cost",
    "Event",
    "Exponential",
    "Fixed",
    "Hook",
    "Image",
    "ImageFailed",
    "ImageNotFound",
    "ImageState",
    "InsufficientCredit",
    "InvalidRequest",
    "InvalidVid",
    "JobError",
    "KokoonClient",
    "KokoonError",
    "Learned",
    "Limits",
    "Look",
    "Outcome",
    "OutcomeStream",
    "PollPolicy",
    "ProtocolError",
    "RateLimited",
    "RequestTimedOut",
    "RetryPolicy",
    "ServerError",
    "Sighting",
    "Timeouts",
    "TokenProvider",
    "TransportError",
    "UnexpectedResponse",
    "WaitError",
    "WaitOutage",
    "WaitTimedOut",
    "Watch",
    "__version__",
    "configure_converter",
    "evaluate",
    "make_converter",
    "preview",
]


def __getattr__(name: str) -> object:
    # Slow to import, and few need them.
    if name in ("configure_converter", "make_converter"):
        from ._http import converters

        return getattr(converters, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
