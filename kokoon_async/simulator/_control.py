"""
The simulator's own endpoints, by which other processes plan faults and read counters.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ._fault_book import FaultBook
from ._fault_json import fault_from_json, fault_to_json
from ._images import vid_or_none
from ._request_log import RequestLog


FAULTS_PATH = "/__faults__"
STATS_PATH = "/__stats__"


class Control:
    """
    Answer ``/__faults__`` and ``/__stats__``.

    Args:
        faults: The simulator's faults.

        log: Its request log.

        connection_count: Tells how many connections were accepted.
    """

    def __init__(
        self, faults: FaultBook, log: RequestLog, connection_count: Callable[[], int]
    ) -> None:
        self._faults = faults
        self._log = log
        self._connection_count = connection_count
        self._routes: Mapping[
            tuple[str, str], Callable[[web.BaseRequest], Awaitable[web.Response]]
        ] = {
            ("POST", FAULTS_PATH): self._plan,
            ("GET", FAULTS_PATH): self._list,
            ("DELETE", FAULTS_PATH): self._clear,
            ("GET", STATS_PATH): self._stats,
        }

    def owns(self, path: str) -> bool:
        """Tell whether *path* is one of these endpoints."""
        return path in {FAULTS_PATH, STATS_PATH}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request to these endpoints."""
        # A web page may send requests to loopback too, but not without this header.
        if "Origin" in request.headers:
            return _refuse(403, "web pages may not drive the simulator")
        path = request.rel_url.raw_path
        route = self._routes.get((request.method, path))
        if route is None:
            allowed = ", ".join(method for method, known in self._routes if known == path)
            return _refuse(405, f"{path} takes {allowed}", headers={"Allow": allowed})
        return await route(request)

    async def _plan(self, request: web.BaseRequest) -> web.Response:
        try:
            order = json.loads(await request.read())
            number = self._faults.plan(**_read_order(order))
        except RecursionError:
            return _refuse(400, "the JSON is nested too deeply")
        except (TypeError, ValueError) as error:
            return _refuse(400, str(error))
        return web.json_response({"id": number})

    async def _list(self, _request: web.BaseRequest) -> web.Response:
        faults = [
            {"id": each.plan, "vid": each.vid, "step": fault_to_json(each.fault)}
            for each in self._faults.unconsumed
        ]
        return web.json_response({"unconsumed": faults})

    async def _clear(self, _request: web.BaseRequest) -> web.Response:
        self._faults.clear()
        return web.json_response({"unconsumed": []})

    async def _stats(self, request: web.BaseRequest) -> web.Response:
        query = request.rel_url.query
        if query:
            try:
                count = self._log.count(vid_or_none(query.get("vid")), query.get("path"))
            except ValueError as error:
                return _refuse(400, str(error))
            return web.json_response({"requests": count})
        return web.json_response(
            {
                **self._log.statistics(),
                "connections": self._connection_count(),
                "unconsumed_faults": len(self._faults.unconsumed),
            }
        )


def _read_order(order: object) -> dict[str, Any]:
    """Turn the JSON of a plan into the arguments of `FaultBook.plan`."""
    if not isinstance(order, dict):
        raise TypeError('send an object such as {"list": [{"kind": "status", "status": 503}]}')
    unknown = order.keys() - {"vid", "list", "times"}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}: known are vid, list and times")
    steps = order.get("list")
    vid = order.get("vid")
    if not isinstance(steps, list):
        raise TypeError(f"list must be a list of steps, not {steps!r}")
    if not isinstance(vid, str | None):
        raise TypeError(f"vid must be text or null, not {vid!r}")
    faults = [fault_from_json(step) for step in steps]
    return {"faults": faults, "vid": vid_or_none(vid), "times": order.get("times", 1)}


def _refuse(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=headers)
