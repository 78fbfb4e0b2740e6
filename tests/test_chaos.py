"""Bad days from a seed: what must hold holds, a seed can be run again, and a defect is found."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from kokoon_async import (
    ApiError,
    AuthenticationFailed,
    ClientClosed,
    ConnectionFailed,
    ImageFailed,
    ImageNotFound,
    InsufficientCredit,
    InvalidRequest,
    InvalidVid,
    JobError,
    ProtocolError,
    RateLimited,
    RetryPolicy,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async._http import pipeline, transport
from kokoon_async._http.calls import Calls
from kokoon_async._http.protocol import read_image
from kokoon_async._http.retry import RetryQuota, next_pause
from kokoon_async._http.wire import decode_json, image_from_object
from kokoon_async._waiting.bulk import Waiting
from kokoon_async.jobs._folder import JobFolder

from . import chaos
from .memory_network import Network, Stuck, run


# What is for threads is done in the loop here, so that nothing runs beside it.
pytestmark = [
    pytest.mark.may_block("no threads in a deterministic run"),
    pytest.mark.unmeasured,
]

ROOT = Path(__file__).parent.parent
# Behind what is installed: the package under test need not be the one in the working tree.
PROGRAM = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("tests.chaos", run_name="__main__")
"""


# The first ones, and some for what these do not show: rare ends of a call, an outage that refuses
# in the midst of other things, and nothing but such an outage.
SEEDS = (*range(16), 29, 31, 61, 141)
KINDS = get_args(chaos.Kind)
ENDS = (
    *(ApiError, AuthenticationFailed, ClientClosed, ImageFailed, ImageNotFound),
    *(InsufficientCredit, InvalidRequest, InvalidVid, JobError, RateLimited, ServerError),
    *(UnexpectedResponse, WaitOutage, WaitTimedOut, *TransportError.__subclasses__()),
)


@pytest.mark.fault("F-53")
@pytest.mark.fault("F-06")
@pytest.mark.fault("F-48")
@pytest.mark.fault("F-66")
@pytest.mark.timeout(300)  # as long as 20 tests: it takes a few seconds, on a machine of its own
def test_bad_days():
    """G1, G2, G6: each call ends in time, as declared, with its own image, and leaves nothing."""
    reports = [chaos.run_seed(seed) for seed in SEEDS]
    assert {report.seed: report.wrong for report in reports if report.wrong} == {}
    check_that_days_were_bad(sum((report.figures for report in reports), Counter()))


def check_that_days_were_bad(figures: Counter[str]) -> None:
    """Check that what ran, and not only what was planned, met all that there is to meet."""
    draw, other = random.Random(0), "another image"
    drawn = [chaos.draw_fault(draw, other) for _ in range(2_000)]
    drawn += [chaos.draw_record_fault(draw, other) for _ in range(200)]
    kinds = {fault.kind for fault in drawn}
    assert len(kinds) >= 19
    assert [kind for kind in kinds if not figures[f"fault {kind}"]] == []
    assert figures["faults planned"] > 200
    # Calls of all kinds end well, badly, and because whoever called gave up.
    assert [kind for kind in KINDS if not figures[f"{kind} ok"]] == []
    assert [kind for kind in KINDS if not figures[f"{kind} given"]] == []
    ends = {name.split(" ")[-1] for name in figures if name.startswith(KINDS)}
    assert {error.__name__ for error in ENDS} - ends == set()
    assert figures["jobs ended early, and finished afterwards"] > 0
    # Retries of both classes, those that the quota refuses, and new tokens.
    assert figures["retries"] > figures["throttled retries"] > 0
    assert figures["retries refused"] > 100
    assert figures["replays"] > 5
    # Outages of both kinds, and storms of both kinds.
    assert figures["outage: connections refused"] > 300
    assert figures["outage: connections broken"] > 0
    assert figures["outage: bytes and connections stalled"] > 300
    assert figures["storm: refuse"] == figures["storm: stall"] == 1
    assert figures["storm: requests"] == figures["storm: calls"] + 2 * 35


@pytest.mark.parametrize("seed", [3, 4, 11])
def test_a_seed_can_be_run_again(seed):
    """The same seed gives the same history, to the microsecond and to the connection."""
    before = random.getstate()
    first, second = chaos.run_seed(seed), chaos.run_seed(seed)
    assert len(first.history) > 20
    assert first.history == second.history
    assert random.getstate() == before
    assert chaos.run_seed(seed + 1).history != first.history


def test_a_seed_can_be_run_again_in_another_process():
    """Nothing depends on addresses, nor on how this process hashes texts; the figures are printed."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT), "--first=3", "--seeds=1", "--history"]
    hashing = {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **hashing}
    )
    history = "\n".join(chaos.run_seed(3).history)
    assert done.stdout.startswith(history + "\n")
    assert "seeds" in done.stdout
    assert done.stdout.endswith("failed seeds: none\n")


def test_figures_of_a_failing_seed(monkeypatch, capsys):
    """A seed with something wrong is named, and the program ends with 1."""
    report = chaos.Report(5, wrong=["the sky fell"])
    monkeypatch.setattr(chaos, "run_seed", lambda seed: attrs.evolve(report, seed=seed))
    assert chaos.main("--seeds", "2", "--first", "5") == 1
    assert "seed 6:\n  the sky fell\n" in (said := capsys.readouterr().out)
    assert "failed seeds: [5, 6]" in said


# -- planted defects -----------------------------------------------------------------------------


def any_record(response: Any, vid: str) -> Any:
    """Take another image's record for the one that was asked for."""
    try:
        return read_image(response, vid)
    except ProtocolError as error:
        if "another image" not in error.message:
            raise
    return image_from_object(decode_json(response.body))


def no_new_states(response: Any, vid: str) -> Any:
    """Know no states but the documented ones."""
    image = read_image(response, vid)
    return {"pending": image, "processing": image, "completed": image, "error": image}[image.state]


def twice(method: Callable[..., Any]) -> Callable[..., Any]:
    """Do something twice."""

    def done_twice(*args: Any) -> None:
        method(*args)
        method(*args)

    return done_twice


def half_price(policy: RetryPolicy, *, throttled: bool) -> int:
    """Let all retries cost what those do that the server asked for."""
    return policy.throttled_cost


attempt = pipeline.Pipeline._attempt


async def until_one_fits(self: Any, call: Any) -> Any:
    """Send a request again for each 401, however many there are."""
    try:
        return await attempt(self, call)
    except AuthenticationFailed:
        return await attempt(self, call)


async def at_once_again(self: Any, call: Any) -> Any:
    """Send a request again when its connection is lost, and ask nobody."""
    try:
        return await attempt(self, call)
    except ConnectionFailed:
        return await attempt(self, call)


def more_attempts(policy: RetryPolicy, quota: Any, error: Any, **known: Any) -> Any:
    """Try once more than the policy allows."""
    known["attempts"] = max(1, known["attempts"] - 1)
    return next_pause(policy, quota, error, **known)


async def do_nothing(_: object) -> None:
    """Forget to close something."""


# What is broken, what then is said, and a seed before which it need not be looked for.
DEFECTS: dict[str, tuple[object, str, object, str, int]] = {
    "a foreign record": (pipeline, "read_image", any_record, "asked for", 0),
    "a new state": (pipeline, "read_image", no_new_states, "ended with KeyError", 0),
    "no quota": (RetryQuota, "take", lambda self, cost: True, "than the quota", 4),
    "a quota without end": (RetryQuota, "give_back", twice(RetryQuota.give_back), "tokens", 3),
    "one price": (RetryPolicy, "cost", half_price, "tokens", 5),
    "a stingy quota": (RetryQuota, "take", lambda self, cost: False, "were left", 3),
    "one attempt more": (pipeline, "next_pause", more_attempts, "more attempts", 3),
    "two replays": (pipeline.Pipeline, "_attempt", until_one_fits, "no new token", 0),
    "hidden retries": (pipeline.Pipeline, "_attempt", at_once_again, "no new token", 3),
    "no deadlines": (Calls, "_tick", lambda self: None, "s of ", 18),
    "an open session": (transport.Transport, "close", do_nothing, "connector is open", 0),
    "hidden requests": (transport, "_REPEATED", (), "were sent", 0),
    "an outcome twice": (Waiting, "ended", twice(Waiting.ended), "doubled", 3),
    "a job without an end": (JobFolder, "finish", lambda self, *args: None, "ended with", 0),
}


@pytest.mark.may_leak("that is one of the defects")
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name, monkeypatch):
    """What the checker is there to find, it finds within a few seeds."""
    owner, attribute, defect, said, first = DEFECTS[name]
    monkeypatch.setattr(owner, attribute, defect)
    for seed in range(first, first + 60):
        wrong = chaos.run_seed(seed).wrong
        if any(said in text for text in wrong):
            return
    pytest.fail(f"not found: {name}")


# -- the network ---------------------------------------------------------------------------------


def test_a_run_that_hangs_is_stuck():
    """Where nothing can happen any more, the run ends at once."""

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run(Network(random.Random(0)), hang(), pytest.fail)


def test_a_run_that_spins_is_stuck():
    """Where time stands still for ever, the run ends too."""

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck):
        run(Network(random.Random(0)), spin(), pytest.fail)
