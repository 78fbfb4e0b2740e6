"""
What was asked of the simulator: a bounded log and unbounded counters.
"""

import types
from collections import Counter, deque
from collections.abc import Mapping
from typing import cast

import attrs
from aiohttp import web


_SECRET_HEADERS = ("Authorization", "Proxy-Authorization", "Cookie")
_REDACTED = "***"


@attrs.frozen
class LoggedRequest:
    """
    One request that reached the simulator.

    Attributes:
        time: When it came, in seconds of the event loop's clock.

        method: Such as ``GET``.

        path: The path as it was sent, without the query.

        vid: The id in the path, if it is an image's.

        status: What was answered; ``None`` until the whole head of the answer is sent.

        headers: What came with it, found in any case of letters; tokens are ``***``.

        fault: The kind of fault that it met.

        query: What stood behind the question mark.

        client_port: Tells connections apart.
    """

    time: float
    method: str
    path: str
    vid: str | None
    status: int | None
    headers: Mapping[str, str]
    fault: str | None
    query: str
    client_port: int


@attrs.define(eq=False)
class Entry:
    """
    A request in the log whose answer may still be under way.

    The attributes are those of `LoggedRequest`.
    """

    time: float
    method: str
    path: str
    vid: str | None
    headers: Mapping[str, str]
    query: str
    client_port: int
    status: int | None = None
    fault: str | None = None


class RequestLog:
    """
    The requests of one simulator.

    Args:
        image_path: What comes before the id in the path of an image.

        limit: How many requests are remembered; the counters know of all.
    """

    def __init__(self, image_path: str, *, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"log_limit must be at least 0, not {limit!r}")
        self._image_path = image_path
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._total = 0
        # By id where there is one: a million ids as paths would be twice the memory.
        self._by_vid: Counter[str] = Counter()
        self._by_path: Counter[str] = Counter()
        self._by_status: Counter[int] = Counter()
        self._by_fault: Counter[str] = Counter()

    @property
    def requests(self) -> list[LoggedRequest]:
        """The remembered requests in the order in which they came."""
        return [
            LoggedRequest(
                time=entry.time,
                method=entry.method,
                path=entry.path,
                vid=entry.vid,
                status=entry.status,
                headers=entry.headers,
                fault=entry.fault,
                query=entry.query,
                client_port=entry.client_port,
            )
            for entry in self._entries
        ]

    def count(self, vid: str | None = None, path: str | None = None) -> int:
        """
        Count the requests for an image or a path, or all.

        Raises:
            ValueError: When both are given.
        """
        if vid is not None and path is not None:
            raise ValueError("count by vid or by path, not both")
        if path is not None:
            vid = self.find_vid(path)
            if vid is None:
                return self._by_path[path]
        return self._total if vid is None else self._by_vid[vid]

    def find_vid(self, path: str) -> str | None:
        """Give the id in the path of an image, or ``None`` if it is another path."""
        if not path.startswith(self._image_path):
            return None
        vid = path[len(self._image_path) :]
        return None if not vid or "/" in vid else vid

    def add(self, request: web.BaseRequest, time: float) -> Entry:
        """Take note of a request that has just come."""
        path = request.rel_url.raw_path
        vid = self.find_vid(path)
        headers = request.headers.copy()
        for name in _SECRET_HEADERS:
            if headers.get(name):
                headers[name] = _REDACTED
        # A client that is gone already has no name any more.
        _, port, *_ = cast("tuple[str, int]", request.protocol.peername or ("", 0))
        entry = Entry(
            time=time,
            method=request.method,
            path=path,
            vid=vid,
            headers=types.MappingProxyType(headers),
            query=request.rel_url.raw_query_string,
            client_port=port,
        )
        self._entries.append(entry)
        self._total += 1
        if vid is None:
            self._by_path[path] += 1
        else:
            self._by_vid[vid] += 1
        return entry

    def note_status(self, entry: Entry, status: int) -> None:
        """Take note that the head of an answer is on the wire."""
        entry.status = status
        self._by_status[status] += 1

    def note_fault(self, entry: Entry, kind: str) -> None:
        """Take note that a request has met a fault."""
        if entry.fault is None:
            entry.fault = kind
            self._by_fault[kind] += 1

    def statistics(self) -> dict[str, object]:
        """Give the counters as JSON, which stays small whatever was asked."""
        return {
            "requests": self._total,
            "images": len(self._by_vid),
            "statuses": {f"{status:03d}": n for status, n in sorted(self._by_status.items())},
            "faults": dict(sorted(self._by_fault.items())),
            "paths": dict(sorted(self._by_path.items())),
        }
