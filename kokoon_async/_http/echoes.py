"""What an answer echoes of a request, in whatever spelling: found and cut out."""

import re


__all__ = ["without"]

_HIDDEN = b"<secret>"
# How JSON, addresses and HTML write what might mean something else there. One pattern for all
# tokens: `re` keeps the last 512 that it was given, and none of them should be a token.
_ESCAPED = re.compile(
    rb"""
      (?: \\u00 | % | (&\#x0{0,5}) ) ([0-7][0-9a-f]) (?(1);)
    | &\#0{0,5} ([0-9]{2,3}) ;
    | & (amp|lt|gt|quot|apos) ;
    | \\ (["\\/])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}


def without(secret: bytes, text: bytes) -> bytes:
    """Give *text* with ``<secret>`` in place of *secret*, also where escapes spell it (F-120)."""
    text = text.replace(secret, _HIDDEN)
    if secret not in _ESCAPED.sub(_letter, text):
        return text
    plain, starts = _unescaped(text)
    shown, at, found = b"", 0, plain.find(secret)
    while found >= 0:
        end = found + len(secret)
        shown += text[at : starts[found]] + _HIDDEN
        at, found = starts[end], plain.find(secret, end)
    return shown + text[at:]


def _unescaped(text: bytes) -> tuple[bytes, list[int]]:
    """Give a text as it reads, and where each of its bytes began, with the end as the last."""
    plain, starts, at = bytearray(), list[int](), 0
    for found in _ESCAPED.finditer(text):
        plain += text[at : found.start()] + _letter(found)
        starts += range(at, found.start() + 1)
        at = found.end()
    return bytes(plain + text[at:]), [*starts, *range(at, len(text) + 1)]


def _letter(found: re.Match[bytes]) -> bytes:
    """Give what an escape stands for; beyond ASCII, something that no token holds."""
    hexadecimal, decimal, name, itself = found.groups()[1:]
    if name or itself:
        return itself or _NAMED[name.lower()]
    return bytes([min(int(hexadecimal, 16) if hexadecimal else int(decimal), 127)])
