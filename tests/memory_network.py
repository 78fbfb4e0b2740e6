"""
A world in which the same seed gives the same run: a loop with virtual time and a network in memory.

aiohttp's client and server run in it unchanged, but nothing asks the kernel and nothing runs beside
the loop: time passes only when there is nothing left to do, what would run in a thread runs at once,
and bytes arrive when the seed says so, in pieces that it cut.

```python
loop = make_loop(network := Network(random.Random(seed)))
with network.installed(), asyncio.Runner(loop_factory=lambda: loop) as runner:
    runner.run(main())
```
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import selectors
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Literal
from unittest.mock import patch

import attrs


_SOCKET_BUFFER = 65_536  # what the kernel takes before a transport has to wait
_FIRST_PORT = 40_001
_ADDRESS = "127.0.0.1"

Address = tuple[str, int]


_MOST_TURNS = 100_000  # of the loop, in which no time passes


class Stuck(AssertionError):
    """The run can never be over: nothing is left to happen, or it happens again and again."""


# -- the loop ------------------------------------------------------------------------------------


class _NumberedTask(asyncio.Task[Any]):
    # Sets of tasks are walked by hash, which is else an address: different in each run.

    def __init__(self, coroutine: Any, *, number: int, **options: Any) -> None:
        self._number = number  # first: asyncio puts the new task into a set at once
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _NoWait(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    # Lets the loop's clock jump to its next timer instead of waiting for it.

    loop: VirtualLoop
    turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.turns = 0 if timeout else self.turns + 1
        if timeout is None or self.turns > _MOST_TURNS:
            self.turns = 0  # what is cancelled now may take its turns
            raise Stuck
        self.loop.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    Let time pass only when there is nothing to do, and do what is for threads at once.

    Attributes:
        now: The time, in seconds.

        network: What carries its connections.
    """

    def __init__(self, network: Network) -> None:
        self.now = 0.0
        selector = _NoWait()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-6
        self.network = network
        numbers = itertools.count(1)
        self.set_task_factory(
            lambda loop, coroutine, **options: _NumberedTask(
                coroutine, loop=loop, number=next(numbers), **options
            )
        )

    def time(self) -> float:
        """Give the virtual time."""
        return self.now

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Any:
        """Do the work now, and tell its result after a while."""
        future = self.create_future()
        try:
            tell, result = future.set_result, work(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            tell, result = future.set_exception, error  # type: ignore[assignment]
        self.call_later(self.network.rng.uniform(0, 0.01), _unless_done, future, tell, result)
        return future

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], *_: Any, sock: MemorySocket, **__: Any
    ) -> tuple[MemoryTransport, Any]:
        """Make the two ends of a connection that `Network.connect` has allowed."""
        return self.network.join(protocol_factory, sock)

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int, **_: Any
    ) -> MemoryServer:
        """Listen on a port; 0 chooses a free one."""
        return self.network.listen(protocol_factory, port)


def _unless_done(future: asyncio.Future[Any], tell: Callable[[Any], None], result: Any) -> None:
    if not future.done():
        tell(result)


# -- the network ---------------------------------------------------------------------------------


@attrs.frozen
class NetworkOutage:
    """
    Say when the network is down, and what that looks like.

    Attributes:
        begin: From when, on the loop's clock.

        end: Until when.

        kind: "refuse" breaks all connections at its begin and refuses new ones; "stall"
            delays everything to its end, as TCP does with lost packets.
    """

    begin: float
    end: float
    kind: Literal["refuse", "stall"]


@attrs.define(eq=False)
class Network:
    """
    Carry bytes between the two ends of connections, with delays and in pieces.

    Args:
        rng: Decides all of it.

        delay: The longest that bytes are on their way, in seconds.

        cuts: How likely it is that what was written at once arrives in pieces.

        outages: When it is down; they must not overlap.

    Attributes:
        refused: How many connections were refused.

        broken: How many were broken by an outage.

        stalled: How often something was on its way and had to wait for the end of an outage.
    """

    rng: random.Random
    delay: float = 0.02
    cuts: float = 0.2
    outages: Sequence[NetworkOutage] = ()
    refused: int = 0
    broken: int = 0
    stalled: int = 0
    _listening: dict[int, Callable[[], Any]] = attrs.field(factory=dict)
    _ends: dict[MemoryTransport, None] = attrs.field(factory=dict)
    _ports: Iterator[int] = attrs.field(factory=lambda: itertools.count(_FIRST_PORT))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let aiohttp connect through this network, and measure time on the loop's clock."""
        with (
            patch("aiohappyeyeballs.start_connection", self.connect),
            patch("aiohttp.connector.monotonic", lambda: asyncio.get_running_loop().time()),
        ):
            yield

    def begin_outages(self) -> None:
        """Set the timers of the outages that break connections; call it in the running loop."""
        for outage in self.outages:
            if outage.kind == "refuse":
                asyncio.get_running_loop().call_at(outage.begin, self._break_all)

    @property
    def open_ends(self) -> int:
        """How many ends of connections are not closed yet."""
        return len(self._ends)

    def outage_at(self, time: float) -> NetworkOutage | None:
        """Give the outage at a time."""
        return next((each for each in self.outages if each.begin <= time < each.end), None)

    async def connect(self, addr_infos: Sequence[Any], **_: Any) -> MemorySocket:
        """
        Do what `aiohappyeyeballs.start_connection` does.

        Raises:
            ConnectionRefusedError: In an outage, or when nobody listens.
        """
        loop = asyncio.get_running_loop()
        port = addr_infos[0][4][1]
        await asyncio.sleep(self.arrival(loop.time()) - loop.time())
        if self.outage_at(loop.time()) is not None or port not in self._listening:
            self.refused += 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return MemorySocket((_ADDRESS, next(self._ports)), (_ADDRESS, port))

    def join(
        self, client_factory: Callable[[], Any], sock: MemorySocket
    ) -> tuple[MemoryTransport, Any]:
        """Make both ends of a connection, and give the client's."""
        client, server = client_factory(), self._listening[sock.peer[1]]()
        near = MemoryTransport(self, client, sock)
        far = MemoryTransport(self, server, MemorySocket(sock.peer, sock.name))
        near.peer, far.peer = far, near
        self._ends |= {near: None, far: None}
        client.connection_made(near)
        server.connection_made(far)
        return near, client

    def listen(self, protocol_factory: Callable[[], Any], port: int) -> MemoryServer:
        """Begin to listen."""
        port = port or next(self._ports)
        self._listening[port] = protocol_factory
        return MemoryServer(self, [MemorySocket((_ADDRESS, port), (_ADDRESS, 0))])

    def stop_listening(self, port: int) -> None:
        """Refuse connections from now on."""
        self._listening.pop(port, None)

    def ended(self, transport: MemoryTransport) -> None:
        """Forget an end that is closed."""
        self._ends.pop(transport, None)

    def arrival(self, now: float) -> float:
        """Draw when bytes arrive that are sent now."""
        outage = self.outage_at(now)
        if outage is not None and outage.kind == "stall":
            self.stalled += 1
            now = outage.end
        return now + self.rng.uniform(0, self.delay)

    def pieces(self, data: bytes) -> list[bytes]:
        """Cut what was written at once."""
        if len(data) < 2 or self.rng.random() >= self.cuts:
            return [data]
        places = sorted(self.rng.sample(range(1, len(data)), min(len(data) - 1, 3)))
        return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]

    def _break_all(self) -> None:
        self.broken += len(self._ends) // 2
        for end in [*self._ends]:
            end.lose(_reset())


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


@attrs.define(eq=False)
class MemorySocket:
    """
    Stand for a connected or listening socket.

    Attributes:
        name: Its own address.

        peer: The other one's.

        lingers: Whether closing it is orderly, and not a reset.
    """

    name: Address
    peer: Address
    lingers: bool = True
    family: int = socket.AF_INET

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Take note of the one option that matters."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.lingers = False

    def getsockname(self) -> Address:
        """Give its own address."""
        return self.name

    def close(self) -> None:
        """Do nothing: aiohttp closes a socket that it could not use."""


@attrs.define
class MemoryServer:
    """Stand for a listening server, as `loop.create_server` gives it."""

    network: Network
    sockets: list[MemorySocket]

    def close(self) -> None:
        """Stop listening; connections stay."""
        for each in self.sockets:
            self.network.stop_listening(each.name[1])

    async def wait_closed(self) -> None:
        """Do nothing: it is closed at once."""


class MemoryTransport(asyncio.Transport):
    """
    One end of a connection.

    Args:
        network: Carries the bytes.

        protocol: Is told what arrives.

        sock: Its addresses.

    Attributes:
        peer: The other end.
    """

    peer: MemoryTransport

    def __init__(self, network: Network, protocol: Any, sock: MemorySocket) -> None:
        names = {"socket": sock, "sockname": sock.name, "peername": sock.peer}
        super().__init__(names)
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._socket = sock
        self._is_closing = False
        self._is_reading = True
        # What is on its way to this end: bytes, or how the other one ended.
        self._incoming: deque[tuple[float, bytes | BaseException | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes that this end has written and the other not taken
        self._is_held = False
        self.set_write_buffer_limits()

    # -- what asyncio's protocols call ------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        """Tell another one from now on."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """Give who is told."""
        return self._protocol

    def is_closing(self) -> bool:
        """Tell whether this end is closed."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether bytes are taken."""
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        """Take no more bytes."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Take bytes again."""
        self._is_reading = True
        self._set_timer()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say how much may be written ahead."""
        self._high = _SOCKET_BUFFER if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Give how much was written ahead of what the kernel would take."""
        return max(0, self._unread - _SOCKET_BUFFER)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self._is_closing or not data:
            return
        self._unread += len(data)
        for piece in self._network.pieces(bytes(data)):
            self.peer.expect(piece)
        if self.get_write_buffer_size() > self._high and not self._is_held:
            self._is_held = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Tell that there are no half-closed connections here."""
        return False

    def close(self) -> None:
        """Close in an orderly way."""
        self._end(None, None)

    def abort(self) -> None:
        """Close at once."""
        self._end(None if self._socket.lingers else _reset(), None)

    # -- what the network and the other end call --------------------------------------------------

    def expect(self, event: bytes | BaseException | None) -> None:
        """Take bytes, or news of the other end, when they arrive: in order."""
        earliest = self._incoming[-1][0] if self._incoming else 0.0
        self._incoming.append((max(earliest, self._network.arrival(self._loop.time())), event))
        self._set_timer()

    def lose(self, error: BaseException | None) -> None:
        """Lose the connection, without a word to the other end."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._lost, error)

    def taken(self, size: int) -> None:
        """Note that the other end took so many bytes."""
        self._unread -= size
        if self._is_held and self.get_write_buffer_size() <= self._low:
            self._is_held = False
            self._protocol.resume_writing()

    # -- inside -----------------------------------------------------------------------------------

    def _end(self, news: BaseException | None, error: BaseException | None) -> None:
        if not self._is_closing:
            self.peer.expect(news)
            self.lose(error)

    def _lost(self, error: BaseException | None) -> None:
        self._network.ended(self)
        self._protocol.connection_lost(error)

    def _set_timer(self) -> None:
        if self._timer is None and self._incoming and (self._is_reading or self._is_closing):
            self._timer = self._loop.call_at(self._incoming[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        _, event = self._incoming.popleft()
        if self._is_closing:
            if isinstance(event, bytes):
                self.peer.expect(_reset())  # as the kernel answers what nobody will read
        elif isinstance(event, bytes):
            self._protocol.data_received(event)
            self.peer.taken(len(event))
        elif event is not None:
            self.lose(event)
        elif not self._protocol.eof_received():
            self.close()
        self._set_timer()


def run(network: Network, main: Coroutine[Any, Any, Any], on_error: Callable[[str], None]) -> Any:
    """
    Run a coroutine in a loop of its own on this network.

    Args:
        network: Used for this one run.

        main: The coroutine.

        on_error: Told what the loop could only log.

    Raises:
        Stuck: When nothing can happen any more, and the coroutine is not done.
    """
    loop = VirtualLoop(network)
    loop.set_exception_handler(lambda _, context: on_error(f"{context}"))
    with network.installed(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
