"""
The sending side of one connection, down to its TCP end.
"""

import asyncio
import socket
import struct
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


# l_onoff = 1, l_linger = 0: the kernel answers close() with a reset.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Wire:
    """
    Write bytes to the client that sent *request*.

    Attributes:
        keep_alive: Whether the connection may carry another request afterwards.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.keep_alive = request.keep_alive

    def write(self, data: bytes) -> None:
        """
        Hand bytes to the connection.

        Raises:
            ConnectionResetError: When it is closed.
        """
        self._transport().write(data)

    async def drain(self) -> None:
        """Wait while the client reads more slowly than we write."""
        await self._request.writer.drain()

    def reset(self) -> None:
        """Break the connection so that the client sees a TCP reset."""
        transport = self._transport()
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
        self.keep_alive = False

    def close(self) -> None:
        """Close the connection in an orderly way once all is sent."""
        self._transport().close()
        self.keep_alive = False

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport


class SentResponse(web.StreamResponse):
    """
    Tell aiohttp that an answer is on the wire already.

    Args:
        keep_alive: Whether to wait for another request on the connection.
    """

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._continues = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether to wait for another request on the connection."""
        return self._continues

    async def prepare(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp calls it so
    ) -> AbstractStreamWriter | None:
        """Do nothing: the headers are sent."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body is sent."""
