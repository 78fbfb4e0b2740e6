"""
Stand-ins for the parts of the request path, so that a test needs neither socket nor clock.

```python
send = FakeSend(lambda request, n: answer(503) if n == 1 else record(request.vid))
line = make_line(send)
assert (await line.pipeline.fetch(VID)).image.vid == VID
assert len(send.sent) == 2
```
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from inspect import isawaitable
from typing import Any

import aiohttp
import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from kokoon_async import KokoonClient
from kokoon_async._http.auth import Token, TokenProvider, Tokens
from kokoon_async._http.calls import Call, Calls, Timeouts
from kokoon_async._http.pipeline import Pipeline
from kokoon_async._http.protocol import Response
from kokoon_async._http.retry import RetryPolicy
from kokoon_async._http.throttle import Limits, Throttle
from kokoon_async.events import Event, Hooks

from .raw_server import sample_record


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


def make_vid(number: int) -> str:
    """Return the canonical id with this number."""
    return str(uuid.UUID(int=number + 1))


def answer(
    status: int = 200,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
    *,
    discard: Callable[[], None] = lambda: None,
) -> Response:
    """Build an answer; a *body* that is not bytes is written as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, CIMultiDictProxy(CIMultiDict(headers or {})), raw, discard)


def record(vid: str = VID, **overrides: Any) -> Response:
    """Build the answer with the vendor's sample record, for *vid*."""
    return answer(200, sample_record(vid, **overrides))


@attrs.frozen
class Sent:
    """
    What the fake transport was given, and when.

    Attributes:
        at: The event loop's time.
    """

    vid: str
    path: str
    token: str
    at: float


Answers = Callable[[Sent, int], Any]


@attrs.define
class FakeSend:
    """
    Send nothing, and answer from a function.

    Args:
        answers: Given what was sent and its number, from 1: gives a `Response`, an exception to
            raise, or a coroutine with one of them.

        calls: With the watcher, the call is told that it waits for the answer, as by the transport.
    """

    answers: Answers = lambda request, number: record(request.vid)
    calls: Calls | None = None
    sent: list[Sent] = attrs.field(factory=list)
    running: int = 0
    most_running: int = 0

    async def __call__(self, path: str, call: Call, token: Token) -> Response:
        """Answer, and remember what was asked."""
        call.attempts += 1
        now = asyncio.get_running_loop().time()
        request = Sent(call.vid, path, str(token.secret), now)
        self.sent.append(request)
        if self.calls is not None:
            self.calls.awaits_answer(call, "waiting for the answer")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            result = self.answers(request, len(self.sent))
            if isawaitable(result):
                result = await result
        finally:
            self.running -= 1
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, Response)
        return result

    @property
    def times(self) -> list[float]:
        """When requests were sent."""
        return [sent.at for sent in self.sent]


@attrs.define
class Line:
    """A whole request path around a fake transport, taken apart."""

    pipeline: Pipeline
    calls: Calls
    tokens: Tokens
    throttle: Throttle
    events: list[Event]

    @property
    def quota(self) -> int:
        """Tokens left for retries."""
        return self.pipeline._quota.tokens


def make_line(
    send: FakeSend,
    *,
    token: str | TokenProvider = "token-1",
    timeouts: Timeouts = Timeouts(),
    limits: Limits = Limits(),
    retry: RetryPolicy = RetryPolicy(),
) -> Line:
    """Put a request path together as the client does."""
    events: list[Event] = []
    hooks = Hooks([events.append])
    calls = Calls(timeouts)
    send.calls = calls
    tokens = Tokens(token, hooks, timeout=timeouts.total)
    throttle = Throttle(limits, hooks)
    pipeline = Pipeline(
        send, calls=calls, tokens=tokens, throttle=throttle, retry=retry, hooks=hooks
    )
    return Line(pipeline, calls, tokens, throttle, events)


async def outcome(work: Coroutine[Any, Any, object]) -> object:
    """Return what a coroutine returns or, if it is an `Exception`, raises."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


async def turns(count: int = 5) -> None:
    """Let the event loop turn some times."""
    for _ in range(count):
        await asyncio.sleep(0)


def connector_of(client: KokoonClient) -> aiohttp.TCPConnector | None:
    """Return what holds a client's connections, if it has opened its session."""
    session = client._transport._session
    return session.connector if session is not None else None  # type: ignore[return-value]


def is_idle(client: KokoonClient) -> bool:
    """Tell whether a client holds no connection, no place of its throttle and no call."""
    connector = connector_of(client)
    return (
        (connector is None or not connector._acquired)
        and client._pipeline._throttle.in_flight == 0
        and not client._calls._calls
    )


@contextlib.asynccontextmanager
async def client_of(
    base_url: str, *, attempts: int = 1, token: str | TokenProvider = "token-1", **options: Any
) -> AsyncIterator[KokoonClient]:
    """Make a client that does not pause between attempts, and check that it ends up idle."""
    options.setdefault("retry", RetryPolicy(attempts=attempts, base=0, throttled_base=0))
    async with KokoonClient(token, base_url=base_url, **options) as client:
        yield client
        await turns()
        assert is_idle(client)
