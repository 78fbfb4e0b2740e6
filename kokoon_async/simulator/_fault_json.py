"""
Faults as JSON, for programs that drive the simulator from another process.

A step is ``{"kind": "status", "status": 503}``: the kind, and the fields of that class.
"""

from collections.abc import Mapping

import attrs

from ._faults import (
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


KINDS: Mapping[str, type[Fault]] = {
    fault.kind: fault
    for fault in (
        Bomb,
        ClockSkew,
        Drip,
        ExtraResponse,
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
}
"""Every kind of fault by the name that JSON uses."""


def fault_from_json(step: object) -> Fault:
    """
    Make a fault from decoded JSON.

    Raises:
        ValueError: When it is no object, the kind is unknown or a field does not fit.
    """
    if not isinstance(step, Mapping):
        raise ValueError(f"a step must be an object with a kind, not {step!r}")  # noqa: TRY004
    fields = dict(step)
    kind = fields.pop("kind", None)
    fault = KINDS.get(kind) if isinstance(kind, str) else None
    if fault is None:
        raise ValueError(f"unknown kind of fault {kind!r}: known are {', '.join(sorted(KINDS))}")
    try:
        if fault is Raw and isinstance(fields.get("data"), str):
            # JSON has no bytes: one character stands for one byte.
            fields["data"] = fields["data"].encode("latin-1")
        return fault(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fault {kind!r}: {error}") from error


def fault_to_json(fault: Fault) -> dict[str, object]:
    """Turn a fault into what `fault_from_json` reads, but with tokens hidden."""
    fields = attrs.asdict(fault, value_serializer=_write_value)  # type: ignore[arg-type]
    if isinstance(fault, RotateToken):
        fields["token"] = "***"  # noqa: S105 - the opposite of a secret
    return {"kind": fault.kind, **fields}


def _write_value(_instance: object, _attribute: object, value: object) -> object:
    return value.decode("latin-1") if isinstance(value, bytes) else value
