"""
A local Kokoon for demos and tests, with no account and no network.

```python
async with Simulator() as simulator:
    vid = simulator.add_image("pending*3 completed")
    simulator.fault(Status(503), Reset(at="headers"), vid=vid)
    async with KokoonClient("any token", base_url=simulator.base_url) as client:
        image = await client.wait_until_completed(vid)
```

It imports nothing else of this package: if both sides shared code, an error in it would
cancel itself out in every test.
"""

from ._clock import Clock, LoopClock, ManualClock
from ._durations import Constant, Durations, LogNormal, QueueAndRun
from ._fault_book import UnconsumedFaults
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
from ._records import ABSENT
from ._request_log import LoggedRequest
from ._server import Simulator


__all__ = [
    "ABSENT",
    "Bomb",
    "Clock",
    "ClockSkew",
    "Constant",
    "Drip",
    "Durations",
    "ExtraResponse",
    "Fault",
    "Fin",
    "Hold",
    "Html",
    "Latency",
    "LogNormal",
    "LoggedRequest",
    "LoopClock",
    "ManualClock",
    "Message",
    "QueueAndRun",
    "Raw",
    "Redirect",
    "Regress",
    "Reset",
    "RotateToken",
    "Simulator",
    "Slice",
    "Status",
    "Truncate",
    "UnconsumedFaults",
    "UnknownState",
    "WrongVid",
]
