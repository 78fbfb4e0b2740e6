"""
Bad days drawn from a seed: calls, faults and outages at random, and a checker of what came of it.

``python -m tests.chaos --seeds 1000 --first 0`` runs so many seeds and prints the figures, and
``--seeds 1 --first 17 --history`` runs one again, exactly as before, and prints all that happened.

One `random.Random` decides everything: the plan, the network (`memory_network.py`), the jitter. Time
is virtual. What must hold whatever happens is said by the functions named `check_…`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import attrs

from kokoon_async import (
    AgeProportional,
    ClientClosed,
    Exponential,
    Fixed,
    Image,
    InvalidVid,
    JobError,
    KokoonClient,
    KokoonError,
    Learned,
    Limits,
    Outcome,
    PollPolicy,
    RateLimited,
    RetryPolicy,
    Timeouts,
    TransportError,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async.events import Braked, Event
from kokoon_async.jobs import fetch_statuses
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
    LoopClock,
    Message,
    Raw,
    Redirect,
    Regress,
    Reset,
    RotateToken,
    Simulator,
    Slice,
    Status,
    Truncate,
    UnknownState,
    WrongVid,
)

from .bulk_contract import check_contract
from .canary import CANARY_TOKEN
from .fakes import connector_of, is_idle, make_vid
from .ledger import Ledger
from .memory_network import Network, NetworkOutage, Stuck, run


SLACK = 1.0
"""Virtual seconds after its deadline at which a call must be over."""

SPAN = 60.0
"""Virtual seconds in which calls begin."""

_START = datetime(2024, 2, 1, 12, tzinfo=UTC)
_OUTAGE_COST = 35  # G6: requests that an outage may cost in all
_WEEK = 7 * 86_400.0

Kind = Literal["get_image", "wait", "get_images", "wait_many", "job"]

COURSES = (
    *("completed",) * 4,
    "pending*2 completed",
    "pending*3s processing*10s completed",
    "pending processing*2 completed",
    "pending*90s processing*90s completed",
    "warming_up*2 completed",
    "processing*20s error",
    "error",
    "",  # there is no such image
)

_RAW = (
    b"",
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    b'HTTP/1.1 200 OK\r\n\r\n{"vid": ',
    b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
)

_HINTS = ("0", "1", "7", "90", "400", "soon", "-1", "Thu, 01 Feb 2024 12:01:00 GMT", "9" * 30)


# -- the plan ------------------------------------------------------------------------------------


def draw_fault(rng: random.Random, other: str) -> Fault:
    """Draw what may happen to any request."""
    at: Any = rng.choice(["before", "headers", rng.randrange(900)])
    hinted = Status(
        rng.choice([429, 503]), headers={"Retry-After": rng.choice(_HINTS[:4] * 5 + _HINTS)}
    )
    message = Message(rng.choice(["a word in your ear", "insufficient credit"]), status=400)
    return rng.choice(
        [
            *(Reset(at=at), Fin(at=at), Hold(at=at), Hold(at=at, seconds=rng.uniform(0, 40))) * 2,
            *(Status(rng.choice([500, 502, 503, 504, 429, 408, 425])), hinted) * 3,
            Status(rng.choice([400, 404, 409, 410, 418, 501, 204, 304, 99, 999])),
            Status(rng.choice([401, 402, 403])),
            Status(200, body=rng.choice([b"", b"null", b"[" * 5000, '{"message": 5}', b"\xff"])),
            Html(rng.choice([200, 404, 503])),
            Message(rng.choice(["fail to get result.", "who knows"]), status=200),
            message,
            Redirect("https://elsewhere.example/"),
            Latency(rng.uniform(0, 40)),
            Drip(rng.choice([30.0, 300.0, 3000.0])),
            Slice(rng.choice([1, 50, 400])),
            ClockSkew(rng.choice([-1e5, -5.0, 5.0, 1e8])),
            Raw(rng.choice(_RAW)),
            Bomb(rng.choice([2_000, 2_000_000]), rng.choice(["gzip", "deflate", None])),
            ExtraResponse(rng.uniform(0, 3), other),
            RotateToken(f"another token {rng.getrandbits(40)}"),
        ]
    )


def draw_record_fault(rng: random.Random, other: str) -> Fault:
    """Draw what may happen to a record only."""
    return rng.choice(
        [
            WrongVid(rng.choice([None, other])),
            Regress(rng.choice(["pending", "pending", "warming_up"])),
            UnknownState(rng.choice(["warming_up", "COMPLETED", "?"])),
            Truncate(rng.randrange(100, 300), rng.choice([None, "gzip", "deflate"])),
        ]
    )


@attrs.define
class PlannedCall:
    """
    One thing that is asked of the client, and when.

    Attributes:
        number: Its place in the plan.

        kind: What is called.

        vids: For which images.

        begin: When, on the loop's clock.

        timeout: For waits.

        cancel_after: Seconds until the caller gives up, if it does.

        pace: Seconds that the caller takes for each outcome.

        option: Chooses between the variants of a kind.
    """

    number: int
    kind: Kind
    vids: list[str]
    begin: float
    timeout: float
    cancel_after: float | None
    pace: float
    option: int


@attrs.frozen
class Plan:
    """
    Hold all that was drawn for one run.

    Attributes:
        courses: By vid, what becomes of the image; empty if there is none.

        faults: By vid, what its requests meet; under ``None``, what any request meets.

        provides: Whether a provider gives the token; it fails on its first *refusals* calls.

        rate: How many requests per second the server takes.

        close_at: When the client is closed in the midst of it, if it is.

        is_storm: Whether it is nothing but one outage, and hundreds of calls in it.
    """

    courses: dict[str, str]
    faults: dict[str | None, list[Fault]]
    calls: list[PlannedCall]
    outages: list[NetworkOutage]
    retry: RetryPolicy
    limits: Limits
    timeouts: Timeouts
    poll: PollPolicy
    provides: bool
    refusals: int
    rate: float | None
    close_at: float | None
    is_storm: bool = False

    @property
    def fault_count(self) -> int:
        """How many faults there are."""
        return sum(map(len, self.faults.values()))


def draw_plan(rng: random.Random) -> Plan:
    """Draw a plan."""
    if rng.random() < 0.05:
        return draw_storm(rng)
    courses = {
        make_vid(rng.getrandbits(120)): rng.choice(COURSES) for _ in range(rng.randint(6, 24))
    }
    vids = list(courses)
    is_calm = rng.random() < 0.1  # so that what works on good days is seen too
    provides = rng.random() < 0.5

    def faults_for(vid: str | None, most: int) -> list[Fault]:
        drawn = []
        for _ in range(rng.randint(1, most)):
            fault = draw_fault(rng, rng.choice(vids))
            if vid is not None and courses[vid] and rng.random() < 0.25:
                fault = draw_record_fault(rng, rng.choice(vids))
            # Without a provider a rotated token would be the end of it.
            drawn += [fault] if provides or not isinstance(fault, RotateToken) else []
        return drawn

    share = 0.0 if is_calm else rng.choice([0.1, 0.3, 0.9])
    faults: dict[str | None, list[Fault]] = {
        vid: faults_for(vid, 4) for vid in vids if rng.random() < share
    }
    if not is_calm and rng.random() < 0.2:
        faults[None] = faults_for(None, 8)
    return Plan(
        courses,
        {vid: planned for vid, planned in faults.items() if planned},
        [draw_call(rng, number, vids) for number in range(rng.randint(6, 20))],
        [] if is_calm else draw_outages(rng),
        RetryPolicy(
            attempts=rng.choice([1, 2, 3, 3, 5]),
            quota=rng.choice([0, 40, 500, 500]),
            retry_after_cap=rng.choice([10.0, 120.0]),
        ),
        Limits(
            max_in_flight=rng.choice([1, 2, 8, 64, 64, None]),
            requests_per_second=rng.choice([None, None, None, 5.0, 50.0]),
        ),
        Timeouts(
            connect=rng.uniform(1, 10),
            read=rng.uniform(1, 30),
            total=rng.uniform(5, 60),
            outage=rng.uniform(20, 120),
        ),
        draw_policy(rng),
        provides,
        rng.choice([0, 0, 1]) if provides and not is_calm else 0,
        None if is_calm else rng.choice([None, None, None, 3.0, 30.0]),
        rng.uniform(5, SPAN) if rng.random() < 0.05 else None,
    )


def draw_storm(rng: random.Random) -> Plan:
    """Draw an outage with hundreds of calls in it, by a client with the usual settings."""
    vids = [make_vid(rng.getrandbits(120)) for _ in range(rng.randint(100, 300))]
    calls = [
        PlannedCall(number, "get_image", [vid], rng.uniform(0, SPAN), 60.0, None, 0.0, 0)
        for number, vid in enumerate(vids)
    ]
    down = NetworkOutage(0.0, 200.0, rng.choice(["refuse", "stall"]))
    return Plan(
        dict.fromkeys(vids, "completed"), {}, calls, [down], RetryPolicy(), Limits(), Timeouts(),
        Learned(seed=0), provides=False, refusals=0, rate=None, close_at=None, is_storm=True,
    )  # fmt: skip


def draw_call(rng: random.Random, number: int, vids: list[str]) -> PlannedCall:
    """Draw what is asked of the client."""
    kind: Kind = rng.choice(
        ["get_image", "get_image", "get_image", "wait", "wait", "get_images", "wait_many", "job"]
    )
    # With repetitions, and so that calls meet at the same image.
    asked = rng.choices(vids, k=1 if kind in ("get_image", "wait") else rng.randint(1, 20))
    return PlannedCall(
        number,
        kind,
        asked,
        begin=rng.choice([0.0, rng.uniform(0, SPAN)]),
        timeout=rng.choice([5.0, 60.0, 400.0]),
        cancel_after=rng.expovariate(0.1) if rng.random() < 0.1 else None,
        pace=rng.choice([0.0, 0.0, 0.3]),
        option=rng.randrange(8),
    )


def draw_outages(rng: random.Random) -> list[NetworkOutage]:
    """Draw when the network is down."""
    outages = []
    begin = 0.0
    while rng.random() < 0.3:
        begin += rng.uniform(0, SPAN)
        end = begin + rng.choice([rng.uniform(0, 5), rng.uniform(5, 200)])
        outages.append(NetworkOutage(begin, end, rng.choice(["refuse", "stall"])))
        begin = end
    return outages


def draw_policy(rng: random.Random) -> PollPolicy:
    """Draw when waits look next."""
    policy = rng.choice([Fixed(rng.uniform(0.5, 10)), Exponential(), AgeProportional()])
    policy._random.seed(rng.getrandbits(64))
    return rng.choice([policy, Learned(seed=rng.getrandbits(64))])


# -- what is noted -------------------------------------------------------------------------------


@attrs.define
class Report:
    """
    Say what one run was, and what was wrong with it.

    Attributes:
        history: All that happened, as lines.

        wrong: What must not have happened.

        figures: Sums, for many runs to be added up.
    """

    seed: int
    history: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    figures: Counter[str] = attrs.field(factory=Counter)
    latest: float = 0.0

    def expect(self, holds: object, what: str) -> None:
        """Take note of what is wrong, unless it holds."""
        if not holds:
            self.wrong.append(what)


# -- the run -------------------------------------------------------------------------------------


class BadDay:
    """
    Carry out a plan, and check what comes of it.

    Args:
        rng: The seed's.

        report: Told everything.

        folder: For the output of jobs.
    """

    def __init__(self, rng: random.Random, report: Report, folder: Path) -> None:
        self.report = report
        self.folder = folder
        self.plan = draw_plan(rng)
        self.network = Network(
            rng,
            delay=rng.choice([0.001, 0.02, 0.3]),
            cuts=rng.choice([0.0, 0.2, 0.9]),
            outages=self.plan.outages,
        )
        self.seed = rng.getrandbits(32)
        self.ledgers: list[Ledger] = []
        self.jobs: dict[Path, PlannedCall] = {}
        self.results: dict[int, str] = {}
        self.braked: list[float] = []
        self.refusals = self.plan.refusals
        self.is_over = False

    async def run(self) -> None:
        """Live through it."""
        plan, report = self.plan, self.report
        self.network.begin_outages()
        simulator = Simulator(
            seed=self.seed,
            clock=LoopClock(start=_START),
            token=CANARY_TOKEN,
            requests_per_second=plan.rate,
        )
        async with simulator:
            self.simulator = simulator
            for vid, course in plan.courses.items():
                if course:
                    simulator.add_image(course, vid=vid, filename=f"{vid}.png")
            for target, faults in plan.faults.items():
                simulator.fault(*faults, vid=target)
            async with self.client() as client:
                await self.live_through(client)
                if not client._closed:
                    await self.recover(client)
            if client._closed and plan.close_at is not None:
                async with self.client() as client:
                    await self.recover(client)
            self.check_requests()
        await self.check_leaks()
        report.figures["virtual seconds"] += round(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[KokoonClient]:
        """Make a client as planned, and check that it lets go of everything."""
        plan = self.plan
        async with KokoonClient(
            self.provide_token if plan.provides else CANARY_TOKEN,
            base_url=self.simulator.base_url,
            retry=plan.retry,
            limits=plan.limits,
            timeouts=plan.timeouts,
            poll=plan.poll,
            hooks=[self.count_pause],
        ) as client:
            ledger = Ledger(plan.retry)
            ledger.watch(client)
            self.ledgers.append(ledger)
            yield client
            await asyncio.sleep(1)
            if not client._closed:
                self.report.expect(is_idle(client), "the client is not idle in the end")
            self.report.expect(not len(client._scheduler), "a wait is left")
            connector = connector_of(client)
        self.report.expect(connector is None or connector.closed, "the connector is open")
        self.report.wrong += ledger.wrong
        self.report.figures += ledger.figures

    def count_pause(self, event: Event) -> None:
        """Add up the seconds for which the server held up everybody."""
        if isinstance(event, Braked):
            self.braked.append(event.delay)

    async def provide_token(self) -> str:
        """Give the token that the server wants now, after a while."""
        await asyncio.sleep(0.1)
        if self.refusals:
            self.refusals -= 1
            raise LookupError("no token today")
        return self.simulator._endpoint.token or CANARY_TOKEN

    async def live_through(self, client: KokoonClient) -> None:
        """Begin the calls when they are due, and see each of them end."""
        tasks = [
            asyncio.create_task(self.make_call(client, call), name=f"call {call.number}")
            for call in self.plan.calls
        ]
        if self.plan.close_at is not None:
            await asyncio.sleep(self.plan.close_at)
            await client.aclose()
        _, hanging = await asyncio.wait(tasks, timeout=100_000)
        for task in hanging:
            self.report.wrong.append(f"{task.get_name()} hangs")
            task.cancel()
        if self.plan.is_storm:
            calls, requests = len(self.plan.calls), self.ledgers[0].requests
            self.report.figures.update({"storm: calls": calls, "storm: requests": requests})
            self.report.figures[f"storm: {self.plan.outages[0].kind}"] += 1
            self.report.expect(
                requests <= calls + _OUTAGE_COST, f"{requests} requests for {calls} calls"
            )

    async def make_call(self, client: KokoonClient, call: PlannedCall) -> None:
        """Make one call, cut it short if that is planned, and note how it ended."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(call.begin)
        began = loop.time()
        scope = asyncio.timeout(call.cancel_after)
        work: Callable[..., Coroutine[Any, Any, str]] = getattr(self, f"do_{call.kind}")
        try:
            async with scope:
                result = await work(client, call)
        except TimeoutError as error:
            result = self.failed(call, error) if isinstance(error, KokoonError) else "given up"
            self.report.expect(
                isinstance(error, KokoonError) or scope.expired(), f"call {call.number}: {error!r}"
            )
        except KokoonError as error:
            result = self.failed(call, error)
        except Exception as error:  # noqa: BLE001 - that is the point
            result = f"{error!r}"
            self.report.wrong.append(f"call {call.number} ended with {error!r}")
        self.results[call.number] = result
        took = loop.time() - began
        limit = min(self.longest(client, call), call.cancel_after or _WEEK)
        self.note(f"call {call.number} {call.kind} {result}", call.kind, result.split(" ")[0])
        self.report.latest = max(self.report.latest, took - limit)
        self.report.expect(
            took <= limit + SLACK, f"call {call.number} took {took:.3f} s of {limit:.3f} s"
        )

    def longest(self, client: KokoonClient, call: PlannedCall) -> float:
        """Give the longest that a call may take, in seconds."""
        total = self.plan.timeouts.total or _WEEK
        # Calls of one stream begin with their turns: those go one by one after a brake, at the
        # rate of the limits, among those of all other calls, and not while the server wants a pause.
        at_once = 1 if self.braked else client._most_looks
        # The first token is waited for before that, and a brake lets a call begin anew.
        rounds = -(-len(call.vids) // at_once) + self.plan.provides + len(self.braked)
        rate = self.plan.limits.requests_per_second or math.inf
        # While nothing comes, each call before keeps its place for as long as it may be silent.
        dark = sum(outage.end - outage.begin for outage in self.plan.outages)
        queueing = sum(self.braked) + len(self.simulator.requests) / rate + dark
        pauses = call.pace * len(call.vids)
        match call.kind:
            case "get_image":
                return total
            case "wait":
                return call.timeout
            case "get_images":
                return rounds * total + queueing + pauses
            case "wait_many":
                return self.window(call)[1] * call.timeout + pauses
        # A job bears any outage up to its patience, and asks up to six times for each id.
        asked = 6 * (rounds * total + queueing + call.timeout + 5)
        return asked + 2 * self.patience(call) + dark

    def window(self, call: PlannedCall) -> tuple[int, int]:
        """Give how many a call waits for at once, and how often that may be waited out."""
        return (100_000, 1) if call.option % 2 else (3, len(call.vids) // 3 + 2)

    def patience(self, call: PlannedCall) -> float:
        """Give how long a job bears an outage."""
        return [60.0, 1000.0][call.option % 2]

    def note(self, text: str, *counted: str) -> None:
        """Write a line of history, and count."""
        self.report.history.append(f"{asyncio.get_running_loop().time():.6f} {text}")
        if counted:
            self.report.figures.update([" ".join(counted)])

    # -- the calls themselves ---------------------------------------------------------------------

    async def do_get_image(self, client: KokoonClient, call: PlannedCall) -> str:
        """Get one record."""
        image = await client.get_image(call.vids[0])
        self.check_image(call.vids[0], image)
        return f"ok {image.state}"

    async def do_wait(self, client: KokoonClient, call: PlannedCall) -> str:
        """Wait for one image, and hear of its changes."""
        (vid,) = call.vids
        changes: list[Image] = []
        image = await client.wait_until_completed(
            vid, timeout=call.timeout, on_change=changes.append
        )
        self.check_image(vid, image)
        self.report.expect(image.state == "completed", "a wait ended with an unfinished image")
        self.report.expect(changes[-1] == image, "the final record is no change")
        finals = [each for each in changes if each.state.is_final]
        self.report.expect(len(finals) == 1, "a wait went on after a final state")
        return f"ok {image.state}"

    async def do_get_images(self, client: KokoonClient, call: PlannedCall) -> str:
        """Get many records."""
        in_order = call.option % 2 == 0
        async with client.get_images([*call.vids, "nonsense"], in_order=in_order) as outcomes:
            return await self.take(call, outcomes, in_order=in_order)

    async def do_wait_many(self, client: KokoonClient, call: PlannedCall) -> str:
        """Wait for many images."""
        window, _ = self.window(call)
        stream = client.wait_many([*call.vids, "nonsense"], timeout=call.timeout, window=window)
        async with stream as outcomes:
            return await self.take(call, outcomes)

    async def take(self, call: PlannedCall, outcomes: Any, *, in_order: bool = False) -> str:
        """Take all outcomes of a stream, and check that they are what was asked for."""
        taken: list[Outcome] = []
        async for outcome in outcomes:
            taken.append(outcome)
            self.check_outcome(outcome)
            told = "ok" if outcome.ok else type(outcome.error).__name__
            self.note(f"call {call.number} {outcome.vid} {told}", f"{call.kind} outcome", told)
            await asyncio.sleep(call.pace)
        given = [outcome.vid for outcome in taken]
        asked = [*call.vids, "nonsense"]
        if not in_order:
            given, asked = sorted(given), sorted(asked)
        self.report.expect(given == asked, f"call {call.number}: outcomes lost, doubled or moved")
        return f"ok {len(taken)}"

    async def do_job(self, client: KokoonClient, call: PlannedCall) -> str:
        """Run a bulk job."""
        out = self.folder / f"{call.number}{['', '.jsonl', '.csv', '.jsonl'][call.option // 2]}"
        self.jobs[out] = call
        return await self.run_job(client, call, out)

    async def run_job(self, client: KokoonClient, call: PlannedCall, out: Path) -> str:
        """Run a bulk job once."""
        report = await fetch_statuses(
            client,
            self.input_of(call),
            out,
            wait=call.option in (0, 3),
            shard_size=1 + call.option,
            timeout=call.timeout,
            patience=self.patience(call),
        )
        for row in check_contract(self.input_of(call), out):
            self.note(f"call {call.number} row {row['vid']} {row['outcome']}")
            if row["outcome"] == "image":
                self.check_name(row["vid"], row["filename"])
            elif row["outcome"] not in ("timed_out", "invalid"):
                self.check_verdict(
                    row["vid"], row["error_type"], is_over=False
                )  # or kept from then
        return f"ok {report.ids}"

    def input_of(self, call: PlannedCall) -> list[str]:
        """Give the input of a job."""
        return [*call.vids, "# a comment", "nonsense", call.vids[0].upper(), ""]

    # -- when it is over --------------------------------------------------------------------------

    async def recover(self, client: KokoonClient) -> None:
        """Meet what is left of the faults; then everything must work again."""
        loop = asyncio.get_running_loop()
        last = max((outage.end for outage in self.plan.outages), default=0.0)
        await asyncio.sleep(max(0.0, last - loop.time()))
        healthy = make_vid(-1)
        self.simulator.add_image("completed", vid=healthy, filename=f"{healthy}.png")
        pause = 2.0
        while (unmet := self.simulator._faults.unconsumed) and pause < 2 * _WEEK:
            for vid in {planned.vid or healthy: None for planned in unmet}:
                await self.get_anyhow(client, vid)
            await asyncio.sleep(pause)
            pause *= 1.2  # the server may have asked for a long silence
        self.report.expect(not unmet, f"never met: {unmet}")
        self.report.figures["faults planned"] += self.plan.fault_count
        await asyncio.sleep(_WEEK)
        self.is_over = True
        for vid, course in self.plan.courses.items():
            told = await self.get_anyhow(client, vid)
            wanted = "ok" if course else "ImageNotFound"
            self.report.expect(told == wanted, f"afterwards {vid} gives {told}")
            await asyncio.sleep(1)  # the server's own rate holds also on good days
        for out, call in self.jobs.items():
            await self.finish_job(client, call, out)

    async def get_anyhow(self, client: KokoonClient, vid: str) -> str:
        """Get a record, and say what came of it."""
        began = asyncio.get_running_loop().time()
        try:
            image = await client.get_image(vid)
        except KokoonError as error:
            told = type(error).__name__
            self.check_verdict(vid, told)
        else:
            told = "ok"
            self.check_image(vid, image)
        took = asyncio.get_running_loop().time() - began
        limit = self.plan.timeouts.total or _WEEK
        self.report.expect(took <= limit + SLACK, f"the call afterwards took {took:.3f} s")
        self.note(f"afterwards {vid} {told}", "recovery", told)
        return told

    async def finish_job(self, client: KokoonClient, call: PlannedCall, out: Path) -> None:
        """Resume a job, whatever it is, until it is finished."""
        for _ in range(3):
            try:
                told = await self.run_job(client, call, out)
            except JobError as error:
                told = type(error).__name__
            self.note(f"job {call.number} resumed: {told}", "job resumed", told.split(" ")[0])
            if told.startswith("ok"):
                ended_well = self.results[call.number].startswith("ok")
                self.report.figures["jobs ended early, and finished afterwards"] += not ended_well
                break
            await asyncio.sleep(600)
        else:
            self.report.wrong.append(f"job {call.number} cannot be finished: {told}")
        left = [
            path.name for path in self.folder.rglob("_*") if path.name[:5] in ("_tmp-", "_seen")
        ]
        self.report.expect(not left, f"files left: {left}")

    # -- what must hold ---------------------------------------------------------------------------

    def check_image(self, vid: str, image: Image) -> None:
        """Check that a record is that of the image that was asked for."""
        self.report.expect(image.vid == vid, f"asked for {vid}, got {image.vid}")
        self.check_name(vid, image.filename)

    def check_name(self, vid: str, name: str | None) -> None:
        """Check the name of an image, which tells who it is besides its id."""
        is_bombed = any(isinstance(fault, Bomb) for fault in self.faults_of(vid))
        right = name == f"{vid}.png" and self.plan.courses.get(vid, "completed")
        # A bomb is a record with little in it, and a small one is no bomb.
        # A made-up record that nobody asked for, and that by chance came when its image was asked
        # for on the same connection: no client can see that (decision 26).
        planned = [fault for faults in self.plan.faults.values() for fault in faults]
        strays = [fault.vid for fault in planned if isinstance(fault, ExtraResponse)]
        is_stray = vid in strays and not self.plan.courses.get(vid)
        self.report.expect(
            right or is_stray or (is_bombed and not name), f"asked for {vid}, got {name}"
        )

    def check_outcome(self, outcome: Outcome) -> None:
        """Check one outcome of a stream."""
        if outcome.image is not None:
            self.check_image(outcome.vid, outcome.image)
        elif isinstance(outcome.error, InvalidVid):
            self.report.expect(outcome.vid == "nonsense", "an id was taken for nonsense")
        else:
            self.check_verdict(outcome.vid, type(outcome.error).__name__)

    def failed(self, call: PlannedCall, error: KokoonError) -> str:
        """Check that a call had a reason to fail, and name the error."""
        told = type(error).__name__
        if isinstance(error, ClientClosed):
            self.report.expect(self.plan.close_at is not None, "closed by nobody")
        elif isinstance(error, JobError):
            self.report.expect(call.kind == "job", "a job's error without a job")
        elif call.kind in ("get_image", "wait"):
            self.check_verdict(call.vids[0], told)
        else:
            self.report.wrong.append(f"a stream raised {error!r}")
        return told

    def faults_of(self, vid: str) -> list[Fault]:
        """Give the faults that requests for an image may have met."""
        return self.plan.faults.get(vid, []) + self.plan.faults.get(None, [])

    def check_verdict(self, vid: str, told: str, *, is_over: bool | None = None) -> None:
        """
        Check that an error which says something for good is no invention.

        Args:
            vid: The image.

            told: The error's class.

            is_over: Whether the faults are; by default, whether they are now.
        """
        passing = {kind.__name__ for kind in (RateLimited, WaitTimedOut, WaitOutage)}
        passing |= {kind.__name__ for kind in TransportError.__subclasses__()} | {"ServerError"}
        if told in passing:
            return
        course = self.plan.courses.get(vid, "completed")
        true = {"ImageNotFound": not course, "ImageFailed": "error" in course}
        believed = {verdict for fault in self.faults_of(vid) for verdict in verdicts_of(fault)}
        if not course and any(
            isinstance(f, Hold | Drip | Fin | Reset) for f in self.faults_of(vid)
        ):
            believed.add("UnexpectedResponse")  # a 404 whose words were cut
        everywhere = [fault for faults in self.plan.faults.values() for fault in faults]
        if self.plan.refusals or any(isinstance(fault, RotateToken) for fault in everywhere):
            # A token may be replaced again before its first use.
            believed.add("AuthenticationFailed")
        if any(isinstance(fault, ExtraResponse) for fault in everywhere):
            # If its record was by chance the one that was asked for next, then the next answer is
            # taken for another's; that is noticed by the id, which a refusal does not have.
            believed |= {verdict for fault in everywhere for verdict in verdicts_of(fault)}
            believed.add("ImageNotFound")
        if is_over if is_over is not None else self.is_over:
            believed.clear()
        self.report.expect(
            true.get(told) or told in believed, f"nothing was there to make {vid} a {told}"
        )

    def check_requests(self) -> None:
        """Check that the server saw what the client knows it sent, and no more (E1)."""
        sent = sum(ledger.requests for ledger in self.ledgers)
        seen = self.simulator.request_count()
        self.report.expect(seen <= sent, f"{seen} requests came, {sent} were sent")
        statistics: Any = self.simulator._log.statistics()
        self.report.figures.update(
            {f"fault {kind}": count for kind, count in statistics["faults"].items()}
        )
        network = self.network
        self.report.figures.update(
            {
                "outage: connections refused": network.refused,
                "outage: connections broken": network.broken,
                "outage: bytes and connections stalled": network.stalled,
                "seeds": 1,
            }
        )
        self.report.history += [
            f"{each.time:.6f} {each.client_port} {each.vid} {each.status} {each.fault}"
            for each in self.simulator.requests
        ]

    async def check_leaks(self) -> None:
        """Check that nothing is left but this task."""
        await asyncio.sleep(1)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        self.report.expect(not left, f"tasks left: {left}")
        ends = self.network.open_ends
        self.report.expect(not ends, f"{ends} ends of connections left")


_BY_WORDS = {"insufficient credit": "InsufficientCredit", "fail to get result.": "ImageNotFound"}
_BY_STATUS = {
    **dict.fromkeys([401, 403], "AuthenticationFailed"),
    **dict.fromkeys([404, 410], "ImageNotFound"),
    **dict.fromkeys([400, 409, 418], "InvalidRequest"),
    402: "InsufficientCredit",
}


def verdicts_of(fault: Fault) -> set[str]:
    """Name the errors by which a caller may be told for good what a fault only pretended."""
    match fault:
        case Message(text, status):
            return {_BY_WORDS.get(text, "ApiError" if status == 200 else "InvalidRequest")}
        case Status(status):
            return {_BY_STATUS.get(status, "UnexpectedResponse")}
        case Html() | Redirect() | Truncate() | Raw():
            return {"UnexpectedResponse"}
    return set()


@contextlib.contextmanager
def _seeded_jitter(seed: int) -> Iterator[None]:
    # The package draws its backoff from the module's own generator.
    before = random.getstate()
    random.seed(seed)
    yield
    random.setstate(before)


def run_seed(seed: int) -> Report:
    """Run one seed."""
    rng = random.Random(seed)
    report = Report(seed)
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a test of crashes needs a disk
    with (
        tempfile.TemporaryDirectory(dir=shared, prefix="kokoon-chaos-") as folder,
        _seeded_jitter(rng.getrandbits(64)),
    ):
        day = BadDay(rng, report, Path(folder))
        try:
            run(day.network, day.run(), report.wrong.append)
        except Stuck:
            report.wrong.append("time stands still, and it is not over")
        except Exception as error:  # noqa: BLE001 - so that the other seeds are run too
            report.wrong.append(f"the run ended with {error!r}")
    return report


def main(*args: str) -> int:
    """Run many seeds, print the figures, and give 1 if anything was wrong."""
    parser = argparse.ArgumentParser("tests.chaos")
    seeds = int(os.environ.get("KOKOON_CHAOS_SEEDS", "1000"))
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--history", action="store_true")
    options = parser.parse_args(args)
    say = lambda text: sys.stdout.write(f"{text}\n")  # noqa: E731
    figures: Counter[str] = Counter()
    failed: list[int] = []
    latest = 0.0
    began = time.monotonic()
    gc.collect()
    gc.freeze()
    for seed in range(options.first, options.first + options.seeds):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = run_seed(seed)
            gc.collect()
        report.wrong += [f"warned: {each.message}" for each in caught]
        figures += report.figures
        latest = max(latest, report.latest)
        if options.history:
            say("\n".join(report.history))
        if report.wrong:
            failed.append(seed)
            say(f"seed {seed}:" + "".join(f"\n  {text}" for text in report.wrong[:10]))
    for name, count in sorted(figures.items()):
        say(f"{count:10,}  {name}")
    say(f"latest end of a call: {latest:.3f} virtual s after its deadline")
    say(f"{time.monotonic() - began:.0f} s; failed seeds: {failed or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
