"""
What each fault does to an answer: stands in for it, changes it, or strikes on the wire.

A fault counts as met as soon as it shows on the wire, be it as a byte or as the beginning
of a silence. One that does not fit the answer, such as `WrongVid` when there is no record,
waits for another request.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ._answers import (
    TEXT_TYPE,
    Answer,
    encode_json,
    has_no_body,
    make_message,
    phrase,
)
from ._delivery import DELIVERIES, send
from ._exchange import Exchange
from ._faults import (
    ClockSkew,
    Fault,
    Html,
    Latency,
    Message,
    Redirect,
    Regress,
    RotateToken,
    Status,
    Truncate,
    UnknownState,
    WrongVid,
)
from ._scripts import COMPLETED, ERROR, PENDING


_PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in</title></head>
<body><h1>Welcome</h1><p>Please sign in to use this network.</p></body></html>
"""

# How far a state is; what is not here, such as *processing*, lies between.
_PROGRESS = {PENDING: 0, COMPLETED: 2, ERROR: 2}
_UNDER_WAY = 1


async def answer_request(exchange: Exchange) -> None:
    """
    Send the answer to one request, with the fault that is planned for it.

    Raises:
        ConnectionResetError: When the client went before the answer was sent.
    """
    if exchange.planned is None:
        await send(exchange, exchange.ordinary())
        return
    fault = exchange.planned.fault
    await _prepare(exchange, fault)
    answer = _choose_answer(exchange, fault)
    await DELIVERIES.get(type(fault), send)(exchange, answer, fault)


async def _prepare(exchange: Exchange, fault: Fault) -> None:
    """Do what comes before the request is looked at."""
    if isinstance(fault, Latency):
        exchange.met()
        await asyncio.sleep(fault.seconds)
    elif isinstance(fault, RotateToken):
        exchange.services.rotate_token(fault.token)


def _choose_answer(exchange: Exchange, fault: Fault) -> Answer:
    """Make the answer that *fault* asks for; if it does not fit, the ordinary one."""
    kind = type(fault)
    if kind in _REPLACEMENTS:
        return _REPLACEMENTS[kind](fault)
    answer = exchange.ordinary()
    if kind not in _CHANGES:
        return answer
    changed = _CHANGES[kind](exchange, fault, answer)
    if changed is None:
        exchange.put_back()
        return answer
    return changed


def _status(fault: Status) -> Answer:
    headers = dict(fault.headers)
    content: bytes | Mapping[str, object]
    if fault.body is None:
        words = phrase(fault.status).lower()
        content = b"" if has_no_body(fault.status) else encode_json({"message": words})
    elif isinstance(fault.body, str):
        content = fault.body.encode("utf-8", "surrogatepass")
        headers = {"Content-Type": TEXT_TYPE, **headers}
    else:
        content = fault.body
    return Answer(fault.status, content, headers)


def _html(fault: Html) -> Answer:
    return Answer(fault.status, _PAGE, {"Content-Type": "text/html; charset=utf-8"})


def _message(fault: Message) -> Answer:
    return make_message(fault.status, fault.text)


def _redirect(fault: Redirect) -> Answer:
    return Answer(fault.status, b"", {"Location": fault.location, "Content-Type": None})


def _wrong_vid(exchange: Exchange, fault: WrongVid, answer: Answer) -> Answer | None:
    if answer.image is None:
        return None
    vid = exchange.services.images.stranger(answer.image.vid) if fault.vid is None else fault.vid
    return _change_record(exchange, answer, "vid", vid)


def _regress(exchange: Exchange, fault: Regress, answer: Answer) -> Answer | None:
    if answer.state is None or answer.state == fault.state:
        return None
    if _PROGRESS.get(fault.state, _UNDER_WAY) > _PROGRESS.get(answer.state, _UNDER_WAY):
        return None
    return _change_record(exchange, answer, "state", fault.state)


def _unknown_state(exchange: Exchange, fault: UnknownState, answer: Answer) -> Answer | None:
    return _change_record(exchange, answer, "state", fault.state)


def _clock_skew(_exchange: Exchange, fault: ClockSkew, answer: Answer) -> Answer:
    return attrs.evolve(answer, date_shift=fault.seconds)


def _truncate(_exchange: Exchange, fault: Truncate, answer: Answer) -> Answer | None:
    body = answer.body
    headers = dict(answer.headers)
    if fault.encoding is not None:
        body = gzip.compress(body, mtime=0) if fault.encoding == "gzip" else zlib.compress(body)
        headers["Content-Encoding"] = fault.encoding
    if len(body) <= fault.size:
        return None
    return Answer(answer.status, body[: fault.size], headers)


def _change_record(exchange: Exchange, answer: Answer, field: str, value: str) -> Answer | None:
    """Make a record that lies in one field, or ``None`` if the answer is no record."""
    if answer.image is None or answer.state is None:
        return None
    state = value if field == "state" else answer.state
    record = exchange.services.images.record(answer.image, state)
    return Answer(answer.status, {**record, field: value}, answer.headers)


_REPLACEMENTS: Mapping[type[Fault], Callable[[Any], Answer]] = {
    Html: _html,
    Message: _message,
    Redirect: _redirect,
    Status: _status,
}

_CHANGES: Mapping[type[Fault], Callable[[Exchange, Any, Answer], Answer | None]] = {
    ClockSkew: _clock_skew,
    Regress: _regress,
    Truncate: _truncate,
    UnknownState: _unknown_state,
    WrongVid: _wrong_vid,
}
