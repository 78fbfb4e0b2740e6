"""
An API in memory for tests of bulk jobs: a real client around it, but no socket.

```python
api = FakeApi()
api.answers[vid] = [answer(500)]  # the first request for it; then its record
async with client_of(api) as client:
    report = await fetch_statuses(client, vids, out)
```
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from inspect import isawaitable
from typing import Any

import attrs
import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from kokoon_async import KokoonClient
from kokoon_async._http.calls import Call
from kokoon_async._http.protocol import Response

from .canary import CANARY_TOKEN, presigned_url
from .raw_server import sample_record


heavy = pytest.mark.heavy

BASE_URL = "http://127.0.0.1:9/v3"

_NO_HEADERS = CIMultiDictProxy[str](CIMultiDict())
_SOME_VID = "5eed0000-0000-4000-8000-000000000000"
_SAMPLE = orjson.dumps(
    sample_record(
        _SOME_VID,
        url=presigned_url(f"/video/{_SOME_VID}/original.png"),
        thumb_url=presigned_url(f"/video/{_SOME_VID}/thumb.png"),
    )
)


def make_vids(count: int, *, seed: int = 0) -> list[str]:
    """Return so many ids, the same ones for the same seed."""
    rng = random.Random(seed)
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]


def record(vid: str, **fields: Any) -> Response:
    """Build the answer with the record of *vid*; its addresses hold a signature."""
    body = _SAMPLE.replace(_SOME_VID.encode(), vid.encode())
    return answer(200, {**orjson.loads(body), **fields} if fields else body)


def answer(status: int, body: object = None, **headers: str) -> Response:
    """Build an answer; a *body* that is not bytes is written as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        status,
        CIMultiDictProxy(CIMultiDict(named)) if named else _NO_HEADERS,
        body if isinstance(body, bytes) else orjson.dumps(body),
        lambda: None,
    )


NOT_FOUND = answer(404, {"message": "fail to get result."})


@attrs.define
class FakeApi:
    """
    Answer requests from memory.

    Attributes:
        answers: By vid, what its next requests get: a `Response`, an exception, or a coroutine
            function without arguments that gives one of them.

        default: What all others get, by their vid.

        seconds: How long an answer takes.

        counts: How many requests there were for each vid.

        times: When they were sent, on the loop's clock.
    """

    answers: dict[str, list[Any]] = attrs.field(factory=dict)
    default: Callable[[str], Any] = record
    seconds: float = 0.0
    counts: Counter[str] = attrs.field(factory=Counter)
    times: list[float] = attrs.field(factory=list)

    @property
    def total(self) -> int:
        """How many requests there were."""
        return len(self.times)

    async def send(self, path: str, call: Call, token: object) -> Response:
        """Answer as the transport would."""
        call.attempts += 1
        self.counts[call.vid] += 1
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        planned = self.answers.get(call.vid)
        result = planned.pop(0) if planned else self.default(call.vid)
        if callable(result):
            result = result()
        if isawaitable(result):
            result = await result
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, Response)
        return result


@contextlib.asynccontextmanager
async def client_of(api: FakeApi, **options: Any) -> AsyncIterator[KokoonClient]:
    """Make a client that asks *api*."""
    async with KokoonClient(CANARY_TOKEN, base_url=BASE_URL, **options) as client:
        client._pipeline._send = api.send  # type: ignore[assignment]
        yield client
