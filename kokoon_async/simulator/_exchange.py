"""
One request on its way from arrival to the last byte of its answer.
"""

from collections.abc import Callable

import attrs
from aiohttp import web

from ._answers import Answer, Rendered, render
from ._fault_book import FaultBook, PlannedFault
from ._images import ImageStore
from ._request_log import Entry, RequestLog
from ._wire import Wire


@attrs.frozen
class Services:
    """
    What every exchange of one simulator shares.

    Attributes:
        images: The simulated images.

        faults: The faults still to come.

        log: The request log.

        rotate_token: Changes the token that is accepted.

        call_later: Runs something after so many seconds unless the simulator stops before.
    """

    images: ImageStore
    faults: FaultBook
    log: RequestLog
    rotate_token: Callable[[str], None]
    call_later: Callable[[float, Callable[[], None]], None]


class Exchange:
    """
    One request and what has been sent for it so far.

    Args:
        request: The request.

        entry: Its place in the log.

        planned: The fault that it is to meet.

        services: What the simulator shares.

        ordinary: Makes the answer that would be right.

    Attributes:
        wire: Where the bytes go.

        services: What the simulator shares.

        ordinary: Makes the answer that would be right.

        vid: The image in the path, or ``None``.

        planned: The fault that it is to meet.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        entry: Entry,
        planned: PlannedFault | None,
        services: Services,
        ordinary: Callable[[], Answer],
    ) -> None:
        self.wire = Wire(request)
        self.services = services
        self.ordinary = ordinary
        self.vid = entry.vid
        self.planned = planned
        self._entry = entry
        self._head_only = entry.method == "HEAD"
        self._status = 0
        self._head_left: int | None = None
        self._postponed = False

    def render(self, answer: Answer, *, chunked: bool = False) -> Rendered:
        """Turn an answer into the bytes that shall follow, and mind what they promise."""
        rendered = render(
            answer,
            self.services.images.now(),
            # A client does not read a body after HEAD and would take it for the next answer.
            body=b"" if chunked or self._head_only else None,
            chunked=chunked,
            close=not self.wire.keep_alive,
        )
        self.wire.keep_alive = not rendered.closes
        self._status = answer.status
        self._head_left = len(rendered.head)
        return rendered

    def write(self, data: bytes) -> None:
        """Send bytes, and note the status once the whole head is out."""
        self.wire.write(data)
        if self._head_left is not None:
            self._head_left -= len(data)
            if self._head_left <= 0:
                self.services.log.note_status(self._entry, self._status)
                self._head_left = None

    def met(self) -> None:
        """Take note that the planned fault, if any, has struck."""
        if self.planned is not None:
            self.services.faults.cross_out(self.planned)
            self.services.log.note_fault(self._entry, self.planned.fault.kind)

    def seen(self, answer: Answer) -> None:
        """Take note that a whole answer went out: it may have shown an image's state."""
        if answer.image is not None and answer.state is not None:
            answer.image.count_look(answer.state, self.services.images.now())

    def postpone(self, delay: float, strike: Callable[[], None]) -> None:
        """Let the planned fault strike after *delay* seconds, when this exchange is over."""
        self._postponed = True
        self.services.call_later(delay, strike)

    def put_back(self) -> None:
        """Let the planned fault, if any and not yet met, strike another request instead."""
        if self.planned is not None:
            self.services.faults.put_back(self.planned)
            self.planned = None

    def finish(self) -> None:
        """Put back what has not struck and will not."""
        if not self._postponed:
            self.put_back()
