"""
Bodies of answers: unpacked whole and within bounds, or refused.
"""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async._http.bodies import MOST_ERROR_BYTES, MOST_RECORD_BYTES, BodyFault, decoded

from .strategies import sample


PLAIN = json.dumps(sample("image")).encode()
GZIPPED = gzip.compress(PLAIN, mtime=0)


def deflated(plain: bytes, *, raw: bool = False, level: int = -1) -> bytes:
    """Pack as `deflate`: in a zlib stream as the standard says, or *raw* as some servers do."""
    packer = zlib.compressobj(level, wbits=-15 if raw else 15)
    return packer.compress(plain) + packer.flush()


def gzip_bomb(size: int) -> bytes:
    """Pack *size* zeros, a piece at a time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as packer:
        for _ in range(size >> 20):
            packer.write(bytes(1 << 20))
    return buffer.getvalue()


def fault_of(body: bytes, encoding: str) -> str:
    """Return why a body is refused; if lenient, it is nothing instead."""
    assert decoded(body, encoding, lenient=True) == b""
    with pytest.raises(BodyFault) as caught:
        decoded(body, encoding)
    return str(caught.value)


@pytest.mark.parametrize("encoding", [None, "", "identity", "IDENTITY", " identity ", " "])
@pytest.mark.parametrize("body", [b"", PLAIN, GZIPPED], ids=["empty", "plain", "packed"])
def test_what_is_not_packed_stays_as_it_is(body: bytes, encoding: str | None) -> None:
    """Without an encoding the body is what it is, even if it looks packed."""
    assert decoded(body, encoding) is body


@pytest.mark.fault("F-23")
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIPPED, "gzip"),
        (GZIPPED, "GZIP"),
        (GZIPPED, " x-gzip"),
        (gzip.compress(PLAIN, compresslevel=0), "gzip"),
        (deflated(PLAIN), "deflate"),
        (deflated(PLAIN, level=0), "deflate"),
        (deflated(PLAIN, raw=True), "deflate"),
        (deflated(PLAIN, raw=True, level=0), "Deflate"),
        (deflated(PLAIN, raw=True, level=9), "deflate"),
    ],
    ids=[
        *("gzip", "upper case", "x-gzip", "stored gzip", "zlib", "stored zlib"),
        *("raw", "stored raw", "best raw"),
    ],
)
def test_what_is_packed_is_unpacked(body: bytes, encoding: str) -> None:
    """Gzip, and deflate with or without its zlib header, give the plain body."""
    assert decoded(body, encoding) == decoded(body, encoding, lenient=True) == PLAIN


@given(plain=st.binary(max_size=2_000), level=st.integers(0, 9), raw=st.booleans())
def test_packing_is_undone(plain: bytes, level: int, *, raw: bool) -> None:
    """Any body comes out as it went in, however well it was packed."""
    assert decoded(gzip.compress(plain, level), "gzip") == plain
    assert decoded(deflated(plain, raw=raw, level=level), "deflate") == plain


@pytest.mark.fault("F-19")
@pytest.mark.parametrize(
    ("body", "encoding"),
    [(GZIPPED, "gzip"), (deflated(PLAIN), "deflate"), (deflated(PLAIN, raw=True), "deflate")],
    ids=["gzip", "zlib", "raw"],
)
def test_a_cut_is_noticed_wherever_it_is(body: bytes, encoding: str) -> None:
    """A packed body that was cut at any offset is refused, the trailer included (E8)."""
    faults = {fault_of(body[:end], encoding) for end in range(len(body))}
    assert faults == {"is packed, and cut or followed by more"}


@pytest.mark.fault("F-19")
@pytest.mark.parametrize("tail", [b"\x00", b"{}", GZIPPED], ids=["zero", "text", "second member"])
def test_what_follows_the_end_is_noticed(tail: bytes) -> None:
    """Bytes after the end of the packed body are refused: whose are they?"""
    assert fault_of(GZIPPED + tail, "gzip") == "is packed, and cut or followed by more"


@pytest.mark.parametrize("offset", range(len(GZIPPED) - 8, len(GZIPPED)))
def test_a_wrong_checksum_is_noticed(offset: int) -> None:
    """Checksum and length at the end of a gzip body count."""
    damaged = bytearray(GZIPPED)
    damaged[offset] ^= 0xFF
    assert fault_of(bytes(damaged), "gzip") == "cannot be unpacked"


@pytest.mark.fault("F-23")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [PLAIN, b"\xff" * 9, b"<html>"], ids=["JSON", "noise", "HTML"])
def test_what_is_not_packed_as_it_says_is_refused(body: bytes, encoding: str) -> None:
    """A plain body that claims to be packed is refused."""
    assert fault_of(body, encoding) in (
        "cannot be unpacked",
        "is packed, and cut or followed by more",
    )


@pytest.mark.fault("F-23")
@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, identity", "gzip;q=1", "x", "\x00"]
)
def test_unknown_and_stacked_encodings_are_refused(encoding: str) -> None:
    """Nothing but `identity` was asked for, so nothing unusual is tried."""
    assert fault_of(GZIPPED, encoding) == "is packed in a way that was not asked for"


@pytest.mark.fault("F-22")
@pytest.mark.parametrize("size", [MOST_RECORD_BYTES - 1, MOST_RECORD_BYTES])
def test_a_body_may_be_as_large_as_a_record(size: int) -> None:
    """Up to the cap, to the byte, a body is unpacked."""
    plain = bytes(size)
    assert decoded(gzip.compress(plain), "gzip") == plain
    assert decoded(deflated(plain), "deflate") == plain


@pytest.mark.fault("F-22")
def test_a_body_may_not_be_larger() -> None:
    """One byte beyond the cap is too much."""
    too_much = f"unpacks to more than {MOST_RECORD_BYTES} bytes"
    assert fault_of(gzip.compress(bytes(MOST_RECORD_BYTES + 1)), "gzip") == too_much
    assert fault_of(deflated(bytes(MOST_RECORD_BYTES + 1)), "deflate") == too_much


@pytest.mark.fault("F-22")
def test_a_bomb_does_not_go_off() -> None:
    """A small body that unpacks to 64 MiB is refused within a few MiB of memory (E10)."""
    bomb = gzip_bomb(64 << 20)
    tracemalloc.start()
    try:
        assert fault_of(bomb, "gzip") == f"unpacks to more than {MOST_RECORD_BYTES} bytes"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "x-gzip", "br"]))
def test_no_bytes_break_the_unpacker(body: bytes, encoding: str) -> None:
    """Any bytes are unpacked or refused; when lenient, never refused."""
    lenient = decoded(body, encoding, lenient=True)
    try:
        assert decoded(body, encoding) == lenient
    except BodyFault:
        assert lenient == b""


def test_the_caps() -> None:
    """A record has 1 MiB, what explains an error has 64 KiB (F-22)."""
    assert (MOST_RECORD_BYTES, MOST_ERROR_BYTES) == (1_048_576, 65_536)
