"""
A loopback server that sends whatever bytes a test wants, and counts what it was sent.

HTTP libraries refuse to send broken HTTP, so these tests speak to a plain socket. A connection
follows one *behaviour*, a function of the connection; when it returns, the server hangs up.

```python
async with RawServer(reset(), answer_each(lambda request, n: record_response(VID))) as server:
    ...  # the first connection is reset, all later ones answer
assert len(server.requests) == 2
```
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import attrs


LOOPBACK = "127.0.0.1"

# RawServer's tasks carry this name, so that leak checks know whose they are.
TASK_NAME = "raw-server"

_LINE_LIMIT = 2**24
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)

Behaviour = Callable[["RawConnection"], Awaitable[None]]
Handler = Callable[[bytes, int], bytes | None]


@attrs.define(eq=False)
class RawConnection:
    """
    One accepted connection, as a behaviour sees it.

    Attributes:
        server: The server that accepted it; its *requests* grow with every request read here.

        received: All bytes read so far.
    """

    server: RawServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytearray = attrs.field(factory=bytearray)

    async def read_request(self) -> bytes:
        """
        Read one whole request and count it.

        Raises:
            EOFError: The client hung up.
        """
        request = await self._read(self.reader.readuntil(b"\r\n\r\n"))
        if length := _LENGTH.search(request):
            request += await self._read(self.reader.readexactly(int(length[1])))
        elif _CHUNKED.search(request):
            request += await self._read(self.reader.readuntil(b"0\r\n\r\n"))
        self.server.requests.append(request)
        return request

    async def _read(self, reading: Awaitable[bytes]) -> bytes:
        try:
            data = await reading
        except asyncio.IncompleteReadError as incomplete:
            self.received += incomplete.partial
            raise
        self.received += data
        return data

    async def begin(self, data: bytes, *, read: bool) -> None:
        """Read a request if *read*, then send *data*."""
        if read:
            await self.read_request()
        await self.write(data)

    async def write(self, data: bytes) -> None:
        """Send *data* as it is."""
        if self.writer.is_closing():  # asyncio lets it go nowhere, uvloop has its own error
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def wait_hung_up(self) -> None:
        """Read on until the client hangs up."""
        while data := await self.reader.read(65_536):
            self.received += data
        raise EOFError

    def reset(self) -> None:
        """Close with RST instead of FIN; bytes already written still arrive on loopback."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def answer(*responses: bytes) -> Behaviour:
    """Answer one request with each of *responses*."""

    async def behave(connection: RawConnection) -> None:
        for response in responses:
            await connection.read_request()
            await connection.write(response)

    return behave


def answer_each(handler: Handler) -> Behaviour:
    """Answer with `handler(request, n)`, *n* counting from 0; when that is `None`, hang up."""

    async def behave(connection: RawConnection) -> None:
        while True:
            request = await connection.read_request()
            response = handler(request, len(connection.server.requests) - 1)
            if response is None:
                return
            await connection.write(response)

    return behave


def hang_up(data: bytes = b"", *, read: bool = True) -> Behaviour:
    """Read a request (unless *read* is false), send *data*, which may be cut, and close: FIN."""

    async def behave(connection: RawConnection) -> None:
        await connection.begin(data, read=read)

    return behave


def reset(data: bytes = b"", *, read: bool = True, pause: float = 0.0) -> Behaviour:
    """Read a request (unless *read* is false), send *data*, wait *pause* seconds, and reset."""

    async def behave(connection: RawConnection) -> None:
        await connection.begin(data, read=read)
        await asyncio.sleep(pause)
        connection.reset()

    return behave


def hold(data: bytes = b"", *, read: bool = True) -> Behaviour:
    """Read a request (unless *read* is false), send *data*, and then nothing, for ever."""

    async def behave(connection: RawConnection) -> None:
        await connection.begin(data, read=read)
        await connection.wait_hung_up()

    return behave


def drip(data: bytes, interval: float, *, size: int = 1) -> Behaviour:
    """Read a request and send *data* in pieces of *size* bytes, *interval* seconds apart."""

    async def behave(connection: RawConnection) -> None:
        await connection.read_request()
        for start in range(0, len(data), size):
            await connection.write(data[start : start + size])
            await asyncio.sleep(interval)

    return behave


def intrude(data: bytes, delay: float = 0.0) -> Behaviour:
    """Send *data* after *delay* seconds although nobody asked; a step for `script`."""

    async def behave(connection: RawConnection) -> None:
        await asyncio.sleep(delay)
        await connection.write(data)

    return behave


def script(*steps: Behaviour) -> Behaviour:
    """Follow *steps* one after another on the same connection."""

    async def behave(connection: RawConnection) -> None:
        for step in steps:
            await step(connection)

    return behave


class RawServer:
    """
    Accept connections on loopback and let each follow its behaviour.

    Connection *k* follows the *k*-th of *behaviours*, and all later ones the last. Bytes as a
    behaviour answer every request. Leaving the context ends all connections and raises what a
    behaviour raised, unless it only noticed that the client had gone.

    Attributes:
        requests: Every request received whole, as raw bytes, in order: what was on the wire.

        hang_ups: How many connections the client closed first, seen by behaviours that read on.
    """

    def __init__(self, *behaviours: Behaviour | bytes, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.hang_ups = 0
        self._behaviours = [_behaviour(behaviour) for behaviour in behaviours]
        self._tls = tls
        self._connections: list[RawConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._listener: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(
            self._accept, LOOPBACK, 0, ssl=self._tls, limit=_LINE_LIMIT
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.writer.transport.abort()
        await self._listener.wait_closed()
        await asyncio.sleep(0)  # aborted transports close their sockets one turn later
        if self._errors and exc is None:
            raise self._errors[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def base_url(self) -> str:
        """Where to send requests, without a trailing slash."""
        return f"{'https' if self._tls else 'http'}://{LOOPBACK}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections it accepted."""
        return len(self._connections)

    @property
    def connection_bytes(self) -> list[bytes]:
        """What each connection received, in the order of acceptance."""
        return [bytes(connection.received) for connection in self._connections]

    async def wait_for(self, condition: Callable[[], object], timeout: float = 20.0) -> None:
        """
        Wait until `condition()` holds, e.g. `lambda: server.hang_ups == 1`.

        Raises:
            TimeoutError: It did not within *timeout* seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.001)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = min(len(self._connections), len(self._behaviours) - 1)
        connection = RawConnection(self, reader, writer)
        self._connections.append(connection)
        task = asyncio.get_running_loop().create_task(
            self._follow(connection, self._behaviours[place]),
            name=f"{TASK_NAME}-{self.connections}",
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, connection: RawConnection, behaviour: Behaviour) -> None:
        try:
            await behaviour(connection)
        except (EOFError, ConnectionError, ssl.SSLError):
            self.hang_ups += 1
        except Exception as error:  # noqa: BLE001 - raised when the server is left
            self._errors.append(error)
        finally:
            connection.writer.close()


def _behaviour(behaviour: Behaviour | bytes) -> Behaviour:
    if isinstance(behaviour, bytes):
        return answer_each(lambda request, n: behaviour)
    return behaviour


def http_response(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str | None] | None = None,
    reason: str = "OK",
) -> bytes:
    """Build a response; *headers* add to its own two, replace them or, with `None`, remove them."""
    fields: dict[str, str | None] = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    lines = [f"HTTP/1.1 {status:03d} {reason}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def sample_record(vid: str, **overrides: Any) -> dict[str, Any]:
    """Return the record of the vendor's page, for *vid* and with *overrides*."""
    uid = "539e3480-929a-11ee-ada2-51e4bfe11414"
    folder = f"https://sr-inner-api-storage-local.s3.amazonaws.com/video/{uid}/..."
    return {
        "uid": uid,
        "vid": vid,
        "pid": "00000000-0000-0000-0000-000000000000",
        "tid": "00000000-0000-0000-0000-000000000000",
        "created_time": "2024-02-01T12:17:32.699Z",
        "filename": "original.png",
        "size": 939073,
        "codec_name": "png",
        "fps": "25/1",
        "duration": "0",
        "nb_frames": "1",
        "bitrate": "0",
        "width": 640,
        "height": 360,
        "download_cnt": 0,
        "expired_time": "2024-02-15T12:17:32.699Z",
        "state": "completed",
        "url": folder,
        "thumb_url": folder,
        "last_category": None,
        **overrides,
    }


def record_response(vid: str, **overrides: Any) -> bytes:
    """Build the server's answer with `sample_record(vid, **overrides)`."""
    return http_response(body=json.dumps(sample_record(vid, **overrides)).encode())
