"""
The listening socket: loopback only, and gone without a trace when it stops.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG = 1024

_TURNS_TO_ACCEPT = 5  # three in Python 3.11


class Listener:
    """
    Serve HTTP on a loopback address.

    Args:
        handler: Answers requests; it is cancelled when its client goes.

        host: A loopback address or ``localhost``, which here is 127.0.0.1.

        port: 0 lets the system choose a free one.

        keepalive_timeout: Seconds until an idle connection is closed.

    Raises:
        ValueError: When *host* could be reached from another machine (F-125).
    """

    def __init__(self, handler: Handler, *, host: str, port: int, keepalive_timeout: float) -> None:
        self._handler = handler
        self._host = host
        self._address = loopback_address(host)
        self._port = port
        self._keepalive_timeout = keepalive_timeout
        self._server: _TrackingServer | None = None
        self._runner: web.ServerRunner | None = None
        self._names: frozenset[str] = frozenset()
        self._was_started = False

    @property
    def authority(self) -> str:
        """
        Host and port as in a URL.

        Raises:
            RuntimeError: When it does not listen.
        """
        if self._runner is None:
            raise RuntimeError(
                "the simulator is not running: use it inside `async with Simulator() as sim:`"
            )
        return f"{_bracketed(self._host)}:{self._port}"

    @property
    def connection_count(self) -> int:
        """How many connections were accepted so far."""
        return self._server.accepted if self._server else 0

    def allows(self, host: str | None) -> bool:
        """Tell whether a ``Host`` header names this server and no rebound domain (F-125)."""
        return host is not None and host.lower() in self._names

    async def start(self) -> None:
        """
        Begin to listen.

        Raises:
            RuntimeError: When it was started before.

            OSError: When the port is taken.
        """
        if self._was_started:
            raise RuntimeError("a simulator starts only once: make a new one")
        self._was_started = True
        self._server = _TrackingServer(
            self._handler,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self._keepalive_timeout,
        )
        runner = web.ServerRunner(self._server)
        await runner.setup()
        site = web.TCPSite(runner, self._address, self._port, backlog=_BACKLOG)
        starting = asyncio.ensure_future(site.start())
        try:
            # asyncio loses the socket when it is cancelled between listening and saying so.
            await asyncio.shield(starting)
        except BaseException:
            await asyncio.gather(starting, return_exceptions=True)
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        names = {"127.0.0.1", "localhost", "[::1]", _bracketed(self._host).lower()}
        self._names = frozenset(names | {f"{name}:{self._port}" for name in names})

    async def stop(self) -> None:
        """Stop listening, drop all connections and wait until their tasks are over."""
        if self._runner is None or self._server is None:
            return
        runner, self._runner = self._runner, None
        try:
            # asyncio loses a connection whose listener closes before it was handed over.
            for _ in range(_TURNS_TO_ACCEPT):
                await asyncio.sleep(0)
        finally:
            for site in runner.sites:
                await site.stop()
            # A graceful shutdown would wait for held answers; this ends them.
            self._server.drop_connections()
        while self._server.connections:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(0)
        await runner.cleanup()


class _TrackingServer(web.Server):
    """Know its connections, to count and to drop them."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self.accepted = 0
        self._transports: dict[RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.accepted += 1
        self._transports[handler] = transport
        # With no buffer to hide in, drain() returns when the kernel has every byte, so
        # that a reset comes behind what was sent before it and not in its place.
        transport.set_write_buffer_limits(high=0)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._transports.pop(handler, None)
        super().connection_lost(handler, exc)

    def drop_connections(self) -> None:
        """Break all connections."""
        for transport in self._transports.values():
            transport.abort()


def loopback_address(host: str) -> str:
    """
    Give the address to bind for *host*.

    Raises:
        ValueError: When it is not surely this machine alone.
    """
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(
            f"the simulator listens on this machine only: host must be a loopback address"
            f" such as 127.0.0.1, not {host!r}"
        )
    return host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
