"""Everything that a client runs on: made, wired, and closed."""

import asyncio
import os
import random
import warnings
import weakref
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from yarl import URL

from ._checks import base_url_from, check_is, check_policy, check_session
from ._http.auth import Secret, TokenProvider, Tokens
from ._http.calls import Calls, Timeouts
from ._http.pipeline import Pipeline
from ._http.retry import RetryPolicy
from ._http.throttle import Limits, Throttle
from ._http.transport import Transport
from ._waiting.outcomes import Outcome, OutcomeStream
from ._waiting.scheduler import Scheduler
from ._waiting.waits import Wait, Watcher
from ._waiting.work import Work
from .errors import ClientClosed, ConfigurationError
from .events import Hook, Hooks
from .polling import Learned, PollPolicy


if TYPE_CHECKING:
    import aiohttp


__all__ = ["DEFAULT_BASE_URL", "ClientLife"]

DEFAULT_BASE_URL = "https://develop.kokoon.cloud/kokoon/api/image/sr/v3"
"""The only host that the vendor's documentation shows."""

_MOST_LOOKS = 256  # at once, where the user sets no limit


class ClientLife:
    """Begin and end a client; what it does in between is `KokoonClient`'s."""

    # On the class too, for the repr and the end of a client whose __init__ raised.
    _base_url = URL()
    _loop: asyncio.AbstractEventLoop | None = None
    _process = 0
    _closed = False

    def __init__(
        self,
        token: str | TokenProvider,
        *,
        base_url: str | URL = DEFAULT_BASE_URL,
        poll: PollPolicy | None = None,
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        timeouts: Timeouts = Timeouts(),
        hooks: Sequence[Hook] = (),
        session: "aiohttp.ClientSession | None" = None,
        allow_plain_http: bool = False,
    ) -> None:
        if isinstance(token, str):
            # Of a subclass the text itself, and not what its `__str__` makes of it.
            token = Secret(str.__str__(token))  # so that no traceback with locals shows it
        elif not callable(token):
            # For those whose code no type checker sees.
            kind = type(token).__name__  # type: ignore[unreachable]
            del token
            raise ConfigurationError(f"The token must be a str or a function, not {kind}.")
        check_is("retry", retry, RetryPolicy, "RetryPolicy(attempts=3)")
        check_is("limits", limits, Limits, "Limits(max_in_flight=64)")
        check_is("timeouts", timeouts, Timeouts, "Timeouts(total=60)")
        check_is("allow_plain_http", allow_plain_http, bool, "True")
        if session is not None:
            check_session(session)
        self._base_url = base_url_from(base_url, allow_plain_http=allow_plain_http)
        self._hooks = Hooks(hooks)
        self._tokens = Tokens(token, self._hooks, timeout=timeouts.total)
        self._timeouts = timeouts
        self._limits = limits
        if poll is not None:
            check_policy("poll", poll)
        self._poll = Learned() if poll is None else poll
        self._calls = Calls(timeouts)
        self._transport = Transport(
            self._base_url, timeouts=timeouts, calls=self._calls, session=session
        )
        self._pipeline = Pipeline(
            self._transport.send,
            calls=self._calls,
            tokens=self._tokens,
            throttle=Throttle(limits, self._hooks),
            retry=retry,
            hooks=self._hooks,
        )
        self._most_looks = limits.max_in_flight or _MOST_LOOKS
        self._scheduler = Scheduler(
            self._pipeline.look,
            backoff=lambda failures, throttled: retry.backoff(
                failures, throttled=throttled, draw=random.random
            ),
            hooks=self._hooks,
            most_looks=self._most_looks,
        )
        # No set: they are ended in the order in which they began, as calls are.
        self._works: weakref.WeakKeyDictionary[Work[Outcome], None] = weakref.WeakKeyDictionary()

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """
        Make a client from ``KOKOON_TOKEN`` and, if set, ``KOKOON_BASE_URL``.

        Args:
            overrides: Any argument of the class; it wins over the environment.

        Raises:
            ConfigurationError: If there is no token.
        """
        token = overrides.setdefault("token", Secret(os.environ.get("KOKOON_TOKEN", "")))
        if isinstance(token, str):
            token = overrides["token"] = Secret(str.__str__(token))
        if token == "":
            raise ConfigurationError(
                "KOKOON_TOKEN is not set.", hint="Set it to your API token, or pass token=."
            )
        if base_url := os.environ.get("KOKOON_BASE_URL"):
            overrides.setdefault("base_url", base_url)
        return cls(**overrides)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<KokoonClient {self._base_url} ({state})>"

    def __reduce__(self) -> NoReturn:
        message = "a KokoonClient cannot be pickled or copied: make one where it is used"
        raise TypeError(message)

    # -- life --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        End everything that still runs with `ClientClosed`, and close the connections.

        A second call does nothing. A session of yours stays open.
        """
        if self._closed:
            return
        self._check_usable()
        self._closed = True
        message = "The client was closed meanwhile."
        self._calls.end_all(message)
        # Each of them is closed, also if this is cancelled meanwhile.
        async with AsyncExitStack() as rest:
            rest.push_async_callback(self._transport.close)
            rest.push_async_callback(self._tokens.close)
            rest.push_async_callback(self._scheduler.close, message)
            works = tuple(self._works)
            await asyncio.gather(*(work.stop(ClientClosed(message)) for work in works))

    def __del__(self) -> None:
        # Unused, or in a fork, it holds nothing of its own.
        if self._loop is not None and not self._closed and self._process == os.getpid():
            warnings.warn(
                f"{self!r} was never closed; use async with, or await aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _check_usable(self) -> None:
        """Refuse a closed client, and another process or event loop than the first one used."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientClosed("This client is closed.", hint="Make a new KokoonClient.")
        if self._loop is None:
            self._loop, self._process = loop, os.getpid()
        elif self._process != os.getpid():
            # After a fork both would read from the same connections (F-108).
            raise ClientClosed(
                "This client belongs to the process that this one was forked from.",
                hint="Make one KokoonClient per process, after the fork.",
            )
        elif self._loop is not loop:
            raise ClientClosed(
                "This client belongs to another event loop.",
                hint="Make one KokoonClient per event loop, inside it.",
            )

    # -- for the operations ------------------------------------------------------------

    def _stream(self, work: Work[Outcome]) -> OutcomeStream:
        self._works[work] = None
        return OutcomeStream(work)

    def _new_wait(
        self,
        vid: str,
        watcher: Watcher,
        timeout: float | None,
        poll: PollPolicy | None,
        missing_grace: float = 0.0,
    ) -> Wait:
        return Wait(
            vid,
            self._poll if poll is None else poll,
            watcher,
            now=asyncio.get_running_loop().time(),
            timeout=timeout,
            outage=self._timeouts.outage,
            missing_grace=missing_grace,
        )
