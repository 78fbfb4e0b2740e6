"""
Faults as values: printed, compared, written as JSON, and refused when they make no sense.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import attrs
import pytest

from kokoon_async.simulator import (
    Bomb,
    ClockSkew,
    Drip,
    ExtraResponse,
    Fault,
    Fin,
    Hold,
    Html,
    Latency,
    Message,
    Raw,
    Redirect,
    Regress,
    Reset,
    RotateToken,
    Slice,
    Status,
    Truncate,
    UnknownState,
    WrongVid,
)
from kokoon_async.simulator._fault_json import KINDS, fault_from_json, fault_to_json


ONE_OF_EACH: list[Fault] = [
    Bomb(10**9),
    ClockSkew(-3.5),
    Drip(1.5),
    ExtraResponse(1.0, vid="x"),
    Fin("headers"),
    Hold(12, seconds=None),
    Html(503),
    Latency(2),
    Message("no", 404),
    Raw(b"\x00\xff"),
    Redirect("/x"),
    Regress("pending"),
    Reset(7),
    RotateToken("t"),
    Slice(3),
    Status(429, {"Retry-After": "1", "Date": None}, {"message": "x"}),
    Truncate(4, "deflate"),
    UnknownState("odd"),
    WrongVid("v"),
]


def test_one_of_each_is_all() -> None:
    """The list above and the kinds of JSON name every fault there is."""
    kinds = {fault.kind: type(fault) for fault in ONE_OF_EACH}
    assert kinds == KINDS
    assert set(kinds.values()) == set(Fault.__subclasses__())


@pytest.mark.parametrize("fault", ONE_OF_EACH, ids=lambda fault: fault.kind)
def test_faults_are_values(fault: Fault) -> None:
    """A fault can be printed, compared, copied, but not changed."""
    assert repr(fault).startswith(f"{type(fault).__name__}(")
    assert copy.copy(fault) == pickle.loads(pickle.dumps(fault)) == fault
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fault.kind = "x"  # type: ignore[misc]


@pytest.mark.parametrize("fault", ONE_OF_EACH, ids=lambda fault: fault.kind)
def test_faults_survive_json(fault: Fault) -> None:
    """What is listed over HTTP can be sent back, but for tokens."""
    step = json.loads(json.dumps(fault_to_json(fault)))
    assert step["kind"] == fault.kind
    if isinstance(fault, RotateToken):
        assert step["token"] == "***"
        step["token"] = fault.token
    assert fault_from_json(step) == fault


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Status, {"status": 1000}),
        (Status, {"status": -1}),
        (Status, {"status": True}),
        (Status, {"status": "503"}),
        (Status, {"status": 503.0}),
        (Status, {"status": 503, "headers": ["a"]}),
        (Status, {"status": 503, "headers": {"a": "b\r\nc: d"}}),
        (Status, {"status": 503, "headers": {"a\n": "b"}}),
        (Status, {"status": 503, "headers": {"a": "€"}}),
        (Status, {"status": 503, "headers": {"a": 1}}),
        (Status, {"status": 503, "headers": {1: "a"}}),
        (Status, {"status": 503, "body": ["a"]}),
        (Status, {"status": 503, "body": {"a": b"b"}}),
        (Html, {"status": None}),
        (Message, {"text": b"x"}),
        (Redirect, {"location": "/\r\nSet-Cookie: a"}),
        (Redirect, {"location": None}),
        (Reset, {"at": "middle"}),
        (Reset, {"at": -1}),
        (Fin, {"at": 1.5}),
        (Fin, {"at": ["before"]}),
        (Hold, {"at": True}),
        (Hold, {"seconds": -1}),
        (Hold, {"seconds": float("inf")}),
        (Drip, {"bytes_per_second": 0}),
        (Drip, {"bytes_per_second": float("nan")}),
        (Slice, {"size": 0}),
        (Slice, {"size": 1.5}),
        (Latency, {"seconds": -0.1}),
        (Latency, {"seconds": "1"}),
        (ExtraResponse, {"delay": -1}),
        (ExtraResponse, {"delay": 1, "vid": 5}),
        (Truncate, {"size": -1}),
        (Truncate, {"size": 1, "encoding": "br"}),
        (Bomb, {"size": 1, "encoding": "zip"}),
        (Bomb, {"size": False}),
        (WrongVid, {"vid": 1}),
        (Regress, {"state": None}),
        (UnknownState, {"state": 1}),
        (RotateToken, {"token": 1}),
        (ClockSkew, {"seconds": 1e10}),
        (ClockSkew, {"seconds": float("-inf")}),
        (Raw, {"data": "text"}),
    ],
)
def test_faults_refuse_nonsense(make: Any, options: dict[str, Any]) -> None:
    """A slip in a fault is an error where it stands, and names the field."""
    with pytest.raises((ValueError, TypeError), match=rf"{list(options)[-1]}|JSON"):
        make(**options)
