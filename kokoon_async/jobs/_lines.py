"""Lines of ids out of blocks of bytes: pure, and bounded whatever the bytes are."""

from collections import deque

from .._text import text_of
from ..errors import JobError


__all__ = ["Lines", "meaningful"]

_LONGEST_LINE = 4096  # of which more than an id's 36 bytes never matter
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def meaningful(item: object) -> str:
    """Give an item of the input as text without white space; nothing of a comment."""
    text = text_of(item).strip()
    return "" if text.startswith("#") else text


class Lines:
    """
    Cut what is read from a file or a pipe into lines, and number them.

    A line ends in LF, CRLF or CR, as Python reads text.

    Args:
        name: The input's, for errors.

    Attributes:
        count: Lines found so far, with blank ones and comments.

        ready: Line numbers and texts that nobody took yet.
    """

    def __init__(self, name: str) -> None:
        self.count = 0
        self.ready: deque[tuple[int, str]] = deque()
        self._name = name
        self._rest = b""
        self._is_after_cr = False

    def feed(self, block: bytes) -> None:
        """
        Take the next bytes; none at all at the end.

        Raises:
            JobError: If the text is UTF-16.
        """
        text = block.removeprefix(b"\n") if self._is_after_cr else block
        self._is_after_cr = block.endswith(b"\r")
        *lines, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = b""
            for line in lines:
                self._add(line)
        # A line without an end must not fill the memory.
        self._rest = (self._rest + rest)[:_LONGEST_LINE]
        if not block and self._rest:
            self._add(self._rest)
            self._rest = b""

    def take(self, count: int) -> list[tuple[int, str]]:
        """Give up to *count* lines."""
        return [self.ready.popleft() for _ in range(min(count, len(self.ready)))]

    def _add(self, line: bytes) -> None:
        self.count += 1
        if self.count == 1:
            line = self._without_mark(line)
        text = meaningful(line[:_LONGEST_LINE].decode("utf-8", "backslashreplace"))
        if text:
            self.ready.append((self.count, text))

    def _without_mark(self, line: bytes) -> bytes:
        """Take the byte order mark off the first line, or refuse it."""
        if line.startswith(_UTF16_BOMS):
            raise JobError(
                f"The input {self._name} is UTF-16, not UTF-8.",
                hint="Save it as UTF-8; in PowerShell, pipe it to: Out-File -Encoding utf8.",
                path=self._name,
            )
        return line.removeprefix(_UTF8_BOM)
