"""
What happened, for whoever wants to watch: frozen event classes, hooks, and the log.

A hook belongs to one client and is called with each event, in the order in which
things happened, on the event loop; take events apart with ``match``. No event carries
a token, an address or a whole record. Nothing is built for events that nobody hears.

The log is the hook that every client has: logger ``kokoon_async``, a constant message
per event and the fields as ``extra``.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import attrs

from ._checks import has_to_be_awaited
from .errors import ConfigurationError
from .models import ImageState


__all__ = [
    "Braked",
    "Event",
    "Hook",
    "Hooks",
    "LookFailed",
    "LookFinished",
    "RetryScheduled",
    "StateChanged",
    "TokenRefreshed",
    "WaitEnded",
    "WaitStarted",
]

logger = logging.getLogger("kokoon_async")
# A program that does not configure logging hears nothing, instead of bare warnings.
logger.addHandler(logging.NullHandler())


@attrs.frozen
class Event:
    """
    Stand for anything that happened.

    Attributes:
        name: The event's constant name, also the log message.

        level: The logging level it is logged at.
    """

    name: ClassVar[str] = "event"
    level: ClassVar[int] = logging.DEBUG


@attrs.frozen
class RetryScheduled(Event):
    """
    Tell that a request failed and will be sent again.

    Attributes:
        vid: The image it is about.

        attempt: Requests sent so far.

        delay: Seconds until the next one.

        error: The class of the failure, e.g. ``"ServerError"``.

        status: The HTTP status, or ``None`` if no answer came.
    """

    name = "retry.scheduled"
    level = logging.WARNING

    vid: str
    attempt: int
    delay: float
    error: str
    status: int | None


@attrs.frozen
class Braked(Event):
    """
    Tell that the server asked for fewer requests, and all of the client's slow down.

    Attributes:
        delay: Seconds during which nothing is sent; 0 if the server gave no hint.

        max_in_flight: How many requests may now run at once.
    """

    name = "throttle.braked"
    level = logging.WARNING

    delay: float
    max_in_flight: int


@attrs.frozen
class TokenRefreshed(Event):
    """
    Tell that the token provider gave a new token.

    Attributes:
        generation: How many tokens the client has had.
    """

    name = "token.refreshed"
    level = logging.INFO

    generation: int


@attrs.frozen
class WaitStarted(Event):
    """
    Tell that a wait for an image began.

    Attributes:
        vid: The image.

        timeout: Seconds it may take; ``None`` for ever.
    """

    name = "wait.started"

    vid: str
    timeout: float | None


@attrs.frozen
class LookFinished(Event):
    """
    Tell that a look at an image brought its record.

    Attributes:
        vid: The image.

        state: What it was in.

        age: The image's age by the server's clock, in seconds.

        delay: Seconds until the next look; ``None`` if there is none.

        reason: Why then: ``policy`` or ``deadline``; ``ended`` if there is none.
    """

    name = "look.finished"

    vid: str
    state: ImageState
    age: float
    delay: float | None
    reason: str


@attrs.frozen
class LookFailed(Event):
    """
    Tell that a look at an image brought no record.

    Attributes:
        vid: The image.

        error: The class of the failure, e.g. ``"ConnectionFailed"``.

        delay: Seconds until the next look; ``None`` if there is none.

        reason: Why then: ``policy``, ``backoff``, ``hint``, ``grace`` or ``deadline``;
            ``ended`` if there is none.
    """

    name = "look.failed"
    level = logging.WARNING

    vid: str
    error: str
    delay: float | None
    reason: str


@attrs.frozen
class StateChanged(Event):
    """
    Tell that a look saw an image in another state than before.

    Attributes:
        vid: The image.

        before: The state seen before; ``None`` at the first look.

        state: The state now.

        age: The image's age by the server's clock, in seconds.
    """

    name = "image.state_changed"
    level = logging.INFO

    vid: str
    before: ImageState | None
    state: ImageState
    age: float


@attrs.frozen
class WaitEnded(Event):
    """
    Tell that a wait for an image ended.

    Attributes:
        vid: The image.

        outcome: ``completed``, the class of the error, or ``abandoned``.

        elapsed: Seconds it took.

        looks: Requests it made.
    """

    name = "wait.ended"

    vid: str
    outcome: str
    elapsed: float
    looks: int


Hook = Callable[[Event], object]
"""Anything that takes an event. One that raises is logged, and changes nothing."""


def log_event(event: Event) -> None:
    """Write an event to the log: its name as the message, its fields as ``extra``."""
    # The prefix keeps our fields apart from the record's own (`name` is one of them).
    extra = {
        f"kokoon_{field.name}": getattr(event, field.name) for field in attrs.fields(type(event))
    }
    logger.log(event.level, event.name, extra=extra)


def _check_hook(hook: object) -> None:
    if not callable(hook) or has_to_be_awaited(hook):
        raise ConfigurationError(
            f"A hook must be a plain function of an event, not {hook!r:.100}.",
            hint="To await something for an event, put the event into a queue.",
        )


class Hooks:
    """
    Tell one client's hooks, and the log, what happened.

    Ask `hears` before building an event, so that unheard events cost nothing.

    Raises:
        ConfigurationError: If *hooks* is no list, or if a hook cannot be called or would
            have to be awaited.
    """

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        if not isinstance(hooks, Iterable):
            # For those whose code no type checker sees.
            kind = type(hooks).__name__  # type: ignore[unreachable]
            raise ConfigurationError(
                f"hooks must be a list of functions, not a {kind}.",
                hint="Put a single function into a list: hooks=[print].",
            )
        self._hooks = tuple(hooks)
        for hook in self._hooks:
            _check_hook(hook)

    def hears(self, kind: type[Event]) -> bool:
        """Tell whether anybody wants events of this kind."""
        return bool(self._hooks) or logger.isEnabledFor(kind.level)

    def tell(self, event: Event) -> None:
        """Pass an event on; whatever a hook raises is logged and goes no further."""
        if logger.isEnabledFor(event.level):
            log_event(event)
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.exception("hook.failed", extra={"kokoon_event": event.name})
