"""
How an answer goes onto the wire: in one piece, or with a fault on the way.

All seconds are seconds of the event loop's clock. Waiting ends with the connection: the
server cancels the handler when the client goes, and drops the connections when it stops.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from ._answers import Answer, Rendered, encode_json, render
from ._exchange import Exchange
from ._faults import (
    Bomb,
    Cut,
    Drip,
    Encoding,
    ExtraResponse,
    Fault,
    Fin,
    Hold,
    Raw,
    Reset,
    Slice,
)


DRIPS_PER_SECOND = 20
"""How often a fast `Drip` sends a piece; a slow one sends single bytes less often."""

_BLOCK = 65536
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


async def send(exchange: Exchange, answer: Answer, _fault: Fault | None = None) -> None:
    """Send an answer as it should be."""
    rendered = exchange.render(answer)
    exchange.write(rendered.head + rendered.body)
    exchange.met()
    exchange.seen(answer)
    await exchange.wire.drain()


async def _reset(exchange: Exchange, answer: Answer, fault: Reset) -> None:
    await _send_part(exchange, exchange.render(answer), fault.at)
    exchange.wire.reset()


async def _fin(exchange: Exchange, answer: Answer, fault: Fin) -> None:
    await _send_part(exchange, exchange.render(answer), fault.at)
    exchange.wire.close()


async def _hold(exchange: Exchange, answer: Answer, fault: Hold) -> None:
    rest = await _send_part(exchange, exchange.render(answer), fault.at)
    if fault.seconds is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(fault.seconds)
    exchange.write(rest)
    exchange.seen(answer)
    await exchange.wire.drain()


async def _send_part(exchange: Exchange, rendered: Rendered, at: Cut) -> bytes:
    """Send the answer up to *at*; return the rest."""
    whole = rendered.head + rendered.body
    size = {"before": 0, "headers": len(rendered.head)}[at] if isinstance(at, str) else at
    exchange.write(whole[:size])
    exchange.met()
    await exchange.wire.drain()
    return whole[size:]


async def _drip(exchange: Exchange, answer: Answer, fault: Drip) -> None:
    rendered = exchange.render(answer)
    whole = rendered.head + rendered.body
    size = max(1, round(fault.bytes_per_second / DRIPS_PER_SECOND))
    for start in range(0, len(whole), size):
        if start:
            await asyncio.sleep(size / fault.bytes_per_second)
        exchange.write(whole[start : start + size])
        exchange.met()
    exchange.seen(answer)
    await exchange.wire.drain()


async def _slice(exchange: Exchange, answer: Answer, fault: Slice) -> None:
    body = answer.body
    pieces = (body[start : start + fault.size] for start in range(0, len(body), fault.size))
    await _send_chunks(exchange, answer, pieces)
    exchange.seen(answer)


async def _bomb(exchange: Exchange, _answer: Answer, fault: Bomb) -> None:
    # A record that would be right but for its size, so that nothing else gives it away.
    record = {"vid": exchange.vid, "state": "completed", "padding": ""}
    headers = {"Content-Encoding": fault.encoding} if fault.encoding else {}
    pieces = _inflated(encode_json(record), fault.size)
    if fault.encoding:
        pieces = _compressed(pieces, fault.encoding)
    await _send_chunks(exchange, Answer(200, b"", headers), pieces)


def _inflated(record: bytes, size: int) -> Iterator[bytes]:
    """Give a JSON object of *size* bytes, block by block, with the padding at its end."""
    yield record[:-2]
    padding = size - len(record)
    while padding > 0:
        yield b"0" * min(padding, _BLOCK)
        padding -= _BLOCK
    yield record[-2:]


def _compressed(pieces: Iterator[bytes], encoding: Encoding) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


async def _send_chunks(exchange: Exchange, answer: Answer, pieces: Iterator[bytes]) -> None:
    exchange.write(exchange.render(answer, chunked=True).head)
    exchange.met()
    for piece in pieces:
        if piece:  # an empty chunk would be the last one
            exchange.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await exchange.wire.drain()
        # Lets others run, and a client in this process read the pieces one by one.
        await asyncio.sleep(0)
    exchange.write(b"0\r\n\r\n")
    await exchange.wire.drain()


async def _extra_response(exchange: Exchange, answer: Answer, fault: ExtraResponse) -> None:
    images = exchange.services.images
    vid = images.stranger(exchange.vid or "") if fault.vid is None else fault.vid

    def strike() -> None:
        image = images.find(vid) or images.invent(vid)
        extra = Answer(200, images.record(image, image.state(images.now())))
        rendered = render(extra, images.now(), close=False)
        try:
            exchange.write(rendered.head + rendered.body)
        except ConnectionResetError:
            # The client has closed in the meantime: another one shall have it.
            exchange.put_back()
        else:
            exchange.met()

    rendered = exchange.render(answer)
    exchange.write(rendered.head + rendered.body)
    exchange.seen(answer)
    exchange.postpone(fault.delay, strike)
    await exchange.wire.drain()


async def _raw(exchange: Exchange, _answer: Answer, fault: Raw) -> None:
    exchange.write(fault.data)
    exchange.met()
    await exchange.wire.drain()
    exchange.wire.close()


DELIVERIES: Mapping[type[Fault], Callable[[Exchange, Answer, Any], Awaitable[None]]] = {
    Bomb: _bomb,
    Drip: _drip,
    ExtraResponse: _extra_response,
    Fin: _fin,
    Hold: _hold,
    Raw: _raw,
    Reset: _reset,
    Slice: _slice,
}
"""The faults that strike while the answer is sent; all others are sent as usual."""
