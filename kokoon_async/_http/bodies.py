"""
Bodies of answers: how large they may be, and how they are unpacked.

Unpacked here and not by aiohttp, which accepts a gzip body that was cut (E8) and one
that unpacks to a thousand times its size (E10).
"""

import zlib


__all__ = ["MOST_ERROR_BYTES", "MOST_RECORD_BYTES", "BodyFault", "decoded"]

MOST_RECORD_BYTES = 1 << 20
MOST_ERROR_BYTES = 64 << 10

_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15
_ZLIB_STARTS = frozenset(bytes([window << 4 | 8]) for window in range(8))  # RFC 1950, CMF


class BodyFault(Exception):
    """Say what is wrong with a body, as the end of the sentence "the answer …"."""


def decoded(body: bytes, encoding: str | None, *, lenient: bool = False) -> bytes:
    """
    Unpack a body, at most to `MOST_RECORD_BYTES`.

    Args:
        body: As it came.

        encoding: The ``Content-Encoding``.

        lenient: Give nothing, and do not fail, for a body that cannot be unpacked: the
            explanation of an error, whose status stands anyway (F-34).

    Raises:
        BodyFault: If it is cut, damaged, too large, or packed in another way than
            gzip or deflate: nothing but ``identity`` was asked for (F-23).
    """
    encoding = (encoding or "").strip().lower()
    if encoding in ("", "identity"):
        return body
    try:
        return _unpacked(body, encoding)
    except BodyFault:
        if lenient:
            return b""
        raise


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        return _inflated(body, _GZIP)
    if encoding == "deflate":
        # Some servers leave the zlib header out.
        return _inflated(body, _ZLIB if body[:1] in _ZLIB_STARTS else _RAW_DEFLATE)
    raise BodyFault("is packed in a way that was not asked for")


def _inflated(body: bytes, window: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        plain = inflater.decompress(body, MOST_RECORD_BYTES + 1)
    except zlib.error:
        raise BodyFault("cannot be unpacked") from None
    if len(plain) > MOST_RECORD_BYTES:
        raise BodyFault(f"unpacks to more than {MOST_RECORD_BYTES} bytes")
    if not inflater.eof or inflater.unused_data:
        raise BodyFault("is packed, and cut or followed by more")
    return plain
