"""The client: one short method for each thing it does."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from inspect import isawaitable
from uuid import UUID

from ._checks import check_not_negative, check_policy, check_seconds, check_whole, vid_from
from ._http.calls import is_cancelled
from ._life import DEFAULT_BASE_URL, ClientLife
from ._waiting.bulk import Fetching, Waiting
from ._waiting.outcomes import OutcomeStream
from ._waiting.streams import Feed, Watch
from ._waiting.waits import Wait, Watcher
from .events import logger
from .models import Image
from .polling import PollPolicy


__all__ = ["DEFAULT_BASE_URL", "KokoonClient"]


class KokoonClient(ClientLife):
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

        poll: When waits look next, unless they say otherwise; by default one `Learned`,
            which learns from all of them.

        retry: How failed requests are sent again.

        limits: How much is asked of the server.

        timeouts: How long things may take.

        hooks: Called with every event; see `kokoon_async.events`.

        session: An aiohttp session of yours; used as it is and never closed.

        allow_plain_http: Let the token travel unencrypted, beyond this machine too.

    Raises:
        ConfigurationError: If an argument cannot be used. Nothing was sent.
    """

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
        fetch = self._pipeline.fetch_in_turn
        return self._stream(Fetching(vids, fetch, workers=self._most_looks, in_order=in_order))

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
                and does not end the wait. Its own time is not cut by *timeout*.

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
        check_not_negative("missing_grace", missing_grace)
        _check_poll(poll)
        feed = Feed()
        wait = self._new_wait(vid_from(vid), feed, timeout, poll, missing_grace)
        return Watch(self._scheduler, wait, feed)

    def wait_many(
        self,
        vids: Iterable[str | UUID] | AsyncIterable[str | UUID],
        *,
        timeout: float | None = 1800.0,
        poll: PollPolicy | None = None,
        missing_grace: float = 0.0,
        window: int = 100_000,
    ) -> OutcomeStream:
        """
        Wait for many images, any number of them; give each outcome as it comes.

        Args:
            vids: Any iterable, plain or async.

            timeout: Seconds for each image, from when its own wait begins.

            poll: When to look next; the client's policy by default.

            missing_grace: Seconds of each wait in which "not found" may only mean "not yet".

            window: How many are waited for at once. Each takes some 600 bytes, and no
                task; the input is read on as waits end and their outcomes are taken.

        Raises:
            ConfigurationError: If an argument cannot be used.
        """
        return self._wait_many(
            vids, timeout=timeout, poll=poll, missing_grace=missing_grace, window=window
        )

    def _wait_many(
        self,
        vids: Iterable[str | UUID] | AsyncIterable[str | UUID],
        *,
        timeout: float | None,
        poll: PollPolicy | None = None,
        missing_grace: float = 0.0,
        window: int,
        on_seen: Callable[[str], object] | None = None,
    ) -> OutcomeStream:
        # Jobs want to know of answers long before a wait ends.
        self._check_usable()
        check_seconds("timeout", timeout)
        check_not_negative("missing_grace", missing_grace)
        check_whole("window", window)
        _check_poll(poll)

        def new_wait(vid: str, watcher: Watcher) -> Wait:
            return self._new_wait(vid, watcher, timeout, poll, missing_grace)

        work = Waiting(vids, self._scheduler, new_wait, window=window, on_seen=on_seen)
        return self._stream(work)


def _check_poll(poll: PollPolicy | None) -> None:
    if poll is not None:
        check_policy("poll", poll)


async def _call(on_change: Callable[[Image], object], image: Image) -> None:
    try:
        result = on_change(image)
        if isawaitable(result):
            await result
    except asyncio.CancelledError:
        # What the function waited for was cancelled, or this task was: only that ends the wait.
        if is_cancelled():
            raise
        logger.exception("on_change.failed", extra={"kokoon_vid": image.vid})
    except Exception:  # noqa: BLE001 - whatever the user's function raises; the wait goes on
        logger.exception("on_change.failed", extra={"kokoon_vid": image.vid})
