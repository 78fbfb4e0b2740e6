"""The client: its life, and one short method for each thing it does."""

import asyncio
import os
import random
import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from yarl import URL

from ._checks import base_url_from, check_seconds, check_whole, vid_from
from ._http.auth import Secret, TokenProvider, Tokens
from ._http.calls import Calls, Timeouts
from ._http.pipeline import Pipeline
from ._http.retry import RetryPolicy
from ._http.throttle import Limits, Throttle
from ._http.transport import Transport
from ._waiting.bulk import Fetching, Waiting
from ._waiting.outcomes import OutcomeStream
from ._waiting.scheduler import Scheduler
from ._waiting.streams import Feed, Watch
from ._waiting.waits import Wait, Watcher
from .errors import ClientClosed, ConfigurationError
from .events import Hook, Hooks, logger
from .models import Image
from .polling import AgeProportional, PollPolicy


if TYPE_CHECKING:
    import aiohttp


__all__ = ["DEFAULT_BASE_URL", "KokoonClient"]

DEFAULT_BASE_URL = "https://develop.kokoon.cloud/kokoon/api/image/sr/v3"
"""The only host that the vendor's documentation shows (kokoon-api.md, section 1)."""

_MOST_LOOKS = 256  # at once, where the user sets no limit


class KokoonClient:
    """
    Talk to the Kokoon Image Super-Resolution API.

    ::

        async with KokoonClient(token) as client:
            image = await client.wait_until_completed(vid)

    One client serves any number of tasks of one event loop. All its requests share one
    concurrency limit, one rate, one retry quota and one token refresh, and all its waits
    one schedule. Durations are seconds; ``None`` means without limit.

    Args:
        token: Sent as it is, without ``Bearer``; or a function or coroutine function
            that gives the current one, asked again when the server refuses the last.

        base_url: The API's address.

        poll: When waits look next, unless they say otherwise.

        retry: How failed requests are sent again.

        limits: How much is asked of the server.

        timeouts: How long things may take.

        hooks: Called with every event; see `kokoon_async.events`.

        session: An aiohttp session of yours; used as it is and never closed.

        allow_plain_http: Let the token travel unencrypted, beyond this machine too.

    Raises:
        ConfigurationError: If an argument cannot be used. Nothing was sent.
    """

    # On the class too, for the repr and the end of a client whose __init__ raised.
    _base_url = URL()
    _loop: asyncio.AbstractEventLoop | None = None
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
            token = Secret(token)  # so that no traceback with locals shows it
        elif not callable(token):
            # For those whose code no type checker sees.
            kind = type(token).__name__  # type: ignore[unreachable]
            del token
            raise ConfigurationError(f"The token must be a str or a function, not {kind}.")
        self._base_url = base_url_from(base_url, allow_plain_http=allow_plain_http)
        self._hooks = Hooks(hooks)
        self._tokens = Tokens(token, self._hooks, timeout=timeouts.total)
        self._timeouts = timeouts
        self._poll = AgeProportional() if poll is None else poll
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
            token = overrides["token"] = Secret(token)
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
            await self._scheduler.close(message)

    def __del__(self) -> None:
        if self._loop is not None and not self._closed:  # unused, it holds nothing
            warnings.warn(
                f"{self!r} was never closed; use async with, or await aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _check_usable(self) -> None:
        """Refuse a closed client, and another event loop than the first one used."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientClosed("This client is closed.", hint="Make a new KokoonClient.")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientClosed(
                "This client belongs to another event loop.",
                hint="Make one KokoonClient per event loop, inside it.",
            )

    # -- one image ---------------------------------------------------------------------

    async def get_image(self, vid: str | UUID) -> Image:
        """
        Get the record of one image.

        Failed requests are sent again as *retry* allows; the whole call takes at most
        ``Timeouts.total``.

        Raises:
            InvalidVid: If *vid* is not a canonical UUID. Nothing was sent.

            ImageNotFound: If there is no such image.

            AuthenticationFailed: If the token is refused, and a new one too.

            KokoonError: Whatever else went wrong; see `kokoon_async.errors`.
        """
        self._check_usable()
        answer = await self._pipeline.fetch(vid_from(vid))
        return answer.image

    def get_images(
        self,
        vids: Iterable[str | UUID] | AsyncIterable[str | UUID],
        *,
        in_order: bool = False,
    ) -> OutcomeStream:
        """
        Get the records of many images, any number of them, as fast as the limits allow.

        ::

            async with client.get_images(vids) as outcomes:
                async for outcome in outcomes:
                    ...

        Every position of the input gets exactly one outcome; an id that is under way is
        not fetched a second time. Memory does not grow with the input.

        Args:
            vids: Any iterable, plain or async; read only as fast as the work is done.

            in_order: Give the outcomes in the order of the input, and not as they come.

        Raises:
            ConfigurationError: If *vids* is no iterable, or is one text.
        """
        self._check_usable()
        work = Fetching(vids, self._pipeline.fetch, workers=self._most_looks, in_order=in_order)
        return OutcomeStream(work)

    async def wait_until_completed(
        self,
        vid: str | UUID,
        *,
        timeout: float | None = 1800.0,
        poll: PollPolicy | None = None,
        on_change: Callable[[Image], object] | None = None,
        missing_grace: float = 0.0,
    ) -> Image:
        """
        Wait until an image is completed, and give its record.

        The first look is immediate and the last one just before the deadline. Waits on
        the same image share their requests. To resume a wait, in this process or
        another, wait for the same vid again: the server tells the image's age.

        Args:
            vid: The image.

            timeout: Seconds, on the event loop's clock. It also cuts a request that is
                under way.

            poll: When to look next; the client's policy by default.

            on_change: Called with the first record and with each one in another state,
                the final one too; may be a coroutine function. What it raises is logged
                and does not end the wait.

            missing_grace: Seconds in which "not found" may only mean "not yet": use it
                right after asking for super-resolution.

        Raises:
            InvalidVid: If *vid* is not a canonical UUID. Nothing was sent.

            ImageFailed: If the server reports the state ``error``.

            WaitTimedOut: If the image is not finished in time; it stays in work.

            WaitOutage: If no good answer came for ``Timeouts.outage``.

            KokoonError: At once, for what does not pass: no such image, a refused token.
        """
        watch = self.watch(vid, timeout=timeout, poll=poll, missing_grace=missing_grace)
        async with watch:
            async for image in watch:
                if on_change is not None:
                    await _call(on_change, image)
            return watch.result()

    def watch(
        self,
        vid: str | UUID,
        *,
        timeout: float | None = 1800.0,
        poll: PollPolicy | None = None,
        missing_grace: float = 0.0,
    ) -> Watch:
        """
        Follow an image: its first record, then one per change, ending after a final one.

        ::

            async with client.watch(vid) as records:
                async for image in records:
                    print(image.state)

        Args:
            vid: The image.

            timeout: Seconds until `WaitTimedOut`, on the event loop's clock.

            poll: When to look next; the client's policy by default.

            missing_grace: Seconds in which "not found" may only mean "not yet".

        Returns:
            An async iterator that is also an async context manager.

        Raises:
            InvalidVid: If *vid* is not a canonical UUID. Nothing was sent.
        """
        self._check_usable()
        check_seconds("timeout", timeout)
        feed = Feed()
        wait = self._new_wait(vid_from(vid), feed, timeout, poll, missing_grace)
        return Watch(self._scheduler, wait, feed)

    def wait_many(
        self,
        vids: Iterable[str | UUID] | AsyncIterable[str | UUID],
        *,
        timeout: float | None = 1800.0,
        poll: PollPolicy | None = None,
        window: int = 100_000,
    ) -> OutcomeStream:
        """
        Wait for many images, any number of them; give each outcome as it comes.

        Args:
            vids: Any iterable, plain or async.

            timeout: Seconds for each image, from when its own wait begins.

            poll: When to look next; the client's policy by default.

            window: How many are waited for at once. Each takes some 600 bytes, and no
                task; the input is read on as waits end and their outcomes are taken.

        Raises:
            ConfigurationError: If an argument cannot be used.
        """
        self._check_usable()
        check_seconds("timeout", timeout)
        check_whole("window", window)

        def new_wait(vid: str, watcher: Watcher) -> Wait:
            return self._new_wait(vid, watcher, timeout, poll)

        return OutcomeStream(Waiting(vids, self._scheduler, new_wait, window=window))

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


async def _call(on_change: Callable[[Image], object], image: Image) -> None:
    try:
        result = on_change(image)
        if isawaitable(result):
            await result
    except Exception:  # noqa: BLE001 - whatever the user's function raises; the wait goes on
        logger.exception("on_change.failed", extra={"kokoon_vid": image.vid})
