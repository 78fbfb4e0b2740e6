"""
Things that have a state, driven at random: a wait, the token, and a job with crashes.

The throttle's machine is in `test_throttle.py`.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import shutil
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kokoon_async import (
    ApiError,
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    InsufficientCredit,
    JobError,
    KokoonError,
    Look,
    ProtocolError,
    RateLimited,
    ServerError,
    UnexpectedResponse,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async._http.auth import Token, Tokens
from kokoon_async.events import Event, Hooks, TokenRefreshed
from kokoon_async.jobs import _disk, fetch_statuses
from kokoon_async.polling import Done, Failed, LookAgain, WaitMachine

from .bulk_api import NOT_FOUND, FakeApi, answer, client_of, make_vids
from .bulk_contract import check_contract
from .crash_job import Faulty
from .fakes import VID
from .memory_network import Network, VirtualLoop, run


pytestmark = pytest.mark.hypothesis  # as tests with @given are marked by Hypothesis


# -- a wait --------------------------------------------------------------------------------------

LASTING: list[KokoonError] = [
    AuthenticationFailed("no", status=401),
    InsufficientCredit("no", status=402),
    ConnectionFailed("no", is_lasting=True),
]
PASSING: list[KokoonError] = [
    ApiError("no", status=200),
    ConnectionFailed("no"),
    ProtocolError("no"),
    RateLimited("no", status=429),
    ServerError("no", status=500),
    UnexpectedResponse("no", status=200),
]
SHORTEST = 0.1


@attrs.define
class Recorder:
    """Look every so many seconds, and remember the lessons."""

    interval: float
    lessons: list[tuple[float, float]] = attrs.field(factory=list)

    def next_delay(self, look: Look) -> float:
        """Give the interval."""
        return self.interval

    def record(self, earliest: float, latest: float) -> None:
        """Remember a lesson."""
        self.lessons.append((earliest, latest))


class WaitMachineMachine(RuleBasedStateMachine):
    """A wait, and a server that says anything at any time."""

    @initialize(
        timeout=st.none() | st.floats(0.2, 1e5),
        outage=st.floats(1, 500),
        grace=st.sampled_from([0.0, 30.0]),
        interval=st.floats(0.01, 100),
        start=st.floats(0, 1e9),
    )
    def begin(
        self, timeout: float | None, outage: float, grace: float, interval: float, start: float
    ) -> None:
        """Begin the first wait."""
        self.timeout, self.outage, self.grace, self.interval = timeout, outage, grace, interval
        self.now = start
        self.begin_wait()

    def begin_wait(self) -> None:
        """Begin a wait now."""
        self.started = self.failing_since = self.now
        policy = Recorder(self.interval)
        self.lessons = policy.lessons
        self.wait = WaitMachine(
            VID,
            policy,
            now=self.now,
            timeout=self.timeout,
            outage=self.outage,
            missing_grace=self.grace,
        )
        self.step: Any = None
        self.seen: list[str] = []
        self.failures = self.looks = 0
        self.last_looks = 0

    @property
    def is_open(self) -> bool:
        """Whether the wait goes on."""
        return not isinstance(self.step, Done | Failed)

    def take(self, step: Any, *, soonest: float) -> None:
        """Check what comes next, and remember it."""
        self.step = step
        self.looks += 1
        deadline = math.inf if self.timeout is None else self.started + self.timeout
        if isinstance(step, LookAgain):
            assert step.delay >= soonest
            assert self.now + step.delay <= deadline + 1e-6
            assert step.reason in {"policy", "backoff", "hint", "grace", "deadline"}
            self.last_looks += step.reason == "deadline"
            # The last look comes when it has to; no other one makes a flood of a wait.
            assert step.delay > 0 if step.reason == "deadline" else step.delay >= SHORTEST
        assert self.wait.looks == self.looks

    @precondition(lambda self: self.is_open)
    @rule(
        state=st.sampled_from(["pending", "processing", "warming_up", "completed", "error"]),
        age=st.none() | st.floats(0, 1e6),
        reserve=st.floats(0, 0.02),
    )
    def answers(self, state: str, age: float | None, reserve: float) -> None:
        """Answer with a record."""
        self.seen.append(state)
        self.failures = 0
        image = Image(VID, ImageState(state))
        step = self.wait.observe(self.now, image, age=age, reserve=reserve)
        self.take(step, soonest=0)
        match state:
            case "completed":
                assert step == Done(image)
            case "error":
                assert isinstance(step, Failed)
                assert isinstance(step.error, ImageFailed)
            case _:
                assert isinstance(step, LookAgain) or isinstance(step.error, WaitTimedOut)

    @precondition(lambda self: self.is_open)
    @rule(
        error=st.sampled_from(PASSING),
        pause=st.floats(0, 30),
        hint=st.sampled_from([0.0, 0.0, 3.0, 1e4]),
    )
    def fails(self, error: KokoonError, pause: float, hint: float) -> None:
        """Fail in a way that may pass."""
        self.failures += 1
        self.failing_since = self.failing_since if self.failures > 1 else self.now
        dark = self.now - self.failing_since
        step = self.wait.fail(self.now, error, pause=pause, hint=hint)
        self.take(step, soonest=hint)
        if isinstance(step, Failed):
            assert isinstance(step.error, WaitOutage | WaitTimedOut)
            if isinstance(step.error, WaitOutage):
                assert self.failures > 1
                assert dark >= self.outage - 1e-6
        else:
            assert isinstance(step, LookAgain)
            assert dark < self.outage

    @precondition(lambda self: self.is_open)
    @rule(error=st.sampled_from(LASTING))
    def refuses(self, error: KokoonError) -> None:
        """Fail for good: the wait ends at once."""
        step = self.wait.fail(self.now, error)
        self.take(step, soonest=0)
        assert step == Failed(error)

    @precondition(lambda self: self.is_open)
    @rule()
    def knows_nothing(self) -> None:
        """Say that there is no such image: believed after the grace."""
        is_new = self.now - self.started < self.grace
        step = self.wait.fail(self.now, error := ImageNotFound("no", status=404))
        self.take(step, soonest=0)
        if not is_new:
            assert step == Failed(error)
        else:
            assert step != Failed(error)
            self.failing_since = self.now

    @precondition(lambda self: isinstance(self.step, LookAgain))
    @rule(late=st.sampled_from([0.0, 0.001, 3.0, 1e4]))
    def time_passes(self, late: float) -> None:
        """Wait as long as the machine wants to, or longer."""
        self.now += self.step.delay + late

    @invariant()
    def history_is_what_was_seen(self) -> None:
        """Fold what was seen into the history, in its order, with times that do not go back."""
        if not hasattr(self, "wait"):
            return
        folded = [state for at, state in enumerate(self.seen) if [state] != self.seen[at - 1 : at]]
        assert [sighting.state for sighting in self.wait.history] == folded
        assert sum(sighting.looks for sighting in self.wait.history) == len(self.seen)
        times = [
            time
            for sighting in self.wait.history
            for time in (sighting.first_seen, sighting.last_seen)
        ]
        assert times == sorted(times)
        assert self.wait.state == (self.seen[-1] if self.seen else None)

    @precondition(lambda self: not self.is_open)
    @rule()
    def another_begins(self) -> None:
        """Wait again, once a wait is over."""
        self.end_wait()
        self.begin_wait()

    def teardown(self) -> None:
        """End the last wait too."""
        if hasattr(self, "wait"):
            self.end_wait()

    def end_wait(self) -> None:
        """End a wait, which says what it knows, and teaches a possible lesson."""
        if self.is_open:
            error = self.wait.expire(self.now).error
            assert isinstance(error, WaitTimedOut)
            assert [sighting.state for sighting in error.history] == [
                sighting.state for sighting in self.wait.history
            ]
        self.wait.conclude()
        assert len(self.lessons) <= 1
        assert all(0 <= earliest < latest for earliest, latest in self.lessons)
        if self.seen and set(self.seen) <= {"completed", "error"}:
            assert self.lessons == []  # finished at first sight: nothing to learn


def test_a_wait_and_any_server():
    """G18: whatever a server says whenever, a wait keeps its deadline, its patience and its history."""
    run_state_machine_as_test(WaitMachineMachine)


# -- the token -----------------------------------------------------------------------------------


class TokenMachine(RuleBasedStateMachine):
    """Callers with tokens of any age, a server that changes its mind, a provider that may fail."""

    @initialize(timeout=st.sampled_from([None, 5.0]))
    def begin(self, timeout: float | None) -> None:
        """Make the tokens, on a loop of their own."""
        self.loop = VirtualLoop(Network(random.Random(0)))
        self.loop.set_exception_handler(lambda _, context: pytest.fail(str(context)))
        self.wanted = 1  # what the server accepts: token-1
        self.mood = "gives"
        self.running = self.started = self.given = 0
        self.events: list[Event] = []
        self.timeout = timeout
        self.tokens = Tokens(self.provide, Hooks([self.events.append]), timeout=timeout)
        self.held: list[Token] = []
        self.secrets: dict[int, str] = {}
        self.waiting: dict[asyncio.Task[Token | None], Token | None] = {}

    async def provide(self) -> str:
        """Give the token that is wanted, or do what the mood says."""
        self.running += 1
        self.started += 1
        assert self.running == 1, "two refreshes at once"
        try:
            await asyncio.sleep({"hangs": 1000.0}.get(self.mood, 1.0))
            if self.mood == "raises":
                raise LookupError("no token today")
            self.given += 1
            return {"stale": "token-0", "bad": "to\nken"}.get(self.mood, f"token-{self.wanted}")
        finally:
            self.running -= 1

    def settle(self, seconds: float) -> None:
        """Let time pass, and look at what came of those who waited."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for task, refused in [*self.waiting.items()]:
            if not task.done():
                continue
            del self.waiting[task]
            if task.cancelled():
                continue
            if (error := task.exception()) is not None:
                assert isinstance(error, AuthenticationFailed | ConfigurationError | TimeoutError)
                assert isinstance(error, KokoonError)
                continue
            token = task.result()
            if token is not None:
                assert refused is None or token.secret != refused.secret
                assert refused is None or token.generation > refused.generation
                self.held.append(token)

    @rule(count=st.integers(1, 3))
    def ask_for_the_first(self, count: int) -> None:
        """Let callers ask for a token."""
        for _ in range(count):
            self.waiting[self.loop.create_task(self.tokens.first())] = None
        self.settle(0)

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 9), count=st.integers(1, 3))
    def is_refused(self, place: int, count: int) -> None:
        """Refuse a token that some callers hold, maybe an old one."""
        refused = self.held[place % len(self.held)]
        started = self.started
        for _ in range(count):
            self.waiting[self.loop.create_task(self.tokens.newer_than(refused))] = refused
        self.settle(0)
        assert self.started <= started + 1
        if self.tokens.current.generation > refused.generation:  # type: ignore[union-attr]
            assert self.started == started, "asked although a newer one was there"

    @precondition(lambda self: self.waiting)
    @rule(place=st.integers(0, 9))
    def is_cancelled(self, place: int) -> None:
        """Cancel one who waits: the others wait on."""
        task = [*self.waiting][place % len(self.waiting)]
        others = self.waiting.keys() - {task}
        task.cancel()
        self.settle(0)
        assert task.cancelled()
        assert not any(other.cancelled() for other in others)

    @rule()
    def the_server_wants_another(self) -> None:
        """Rotate the token."""
        self.wanted += 1

    @rule(mood=st.sampled_from(["gives", "gives", "stale", "raises", "hangs", "bad"]))
    def the_provider_changes(self, mood: str) -> None:
        """Let the provider do something else from now on."""
        self.mood = mood

    @rule(seconds=st.sampled_from([0.5, 1.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.settle(seconds)

    @invariant()
    def generations_count_tokens(self) -> None:
        """Count the tokens: the current one is the last that was told, and unlike the one before."""
        if not hasattr(self, "tokens"):
            return
        told = [event.generation for event in self.events if isinstance(event, TokenRefreshed)]
        assert told == sorted(told)
        current = self.tokens.current
        assert (current.generation if current else 0) == max(told, default=0)
        if current is not None:
            self.secrets[current.generation] = str(current.secret)
            assert self.secrets.get(current.generation - 1) != current.secret
        assert len(told) <= self.given
        assert all(token.generation <= max(told) for token in self.held)

    def teardown(self) -> None:
        """Nobody waits for ever: those who are left get an answer, and closing ends the rest."""
        if not hasattr(self, "tokens"):
            return
        self.settle(2000)
        assert not self.waiting
        self.loop.run_until_complete(self.tokens.close())
        assert self.running == 0
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


def test_tokens_in_any_order_of_events():
    """G18: refreshes are shared and never overlap; nobody gets the token that was refused to him."""
    run_state_machine_as_test(TokenMachine)


# -- a job that crashes --------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


class Deadly(Faulty):
    """Let the process be gone at the n-th change of a file: nothing is changed after it."""

    def strike(self, name: str, args: tuple[Any, ...]) -> None:
        """Do what was asked for instead of the change."""
        if self.fault == "tear" and name == "write":
            os.write(args[0], args[1][: len(args[1]) // 2])
        if self.fault in ("kill", "tear"):
            self.left = 1  # so is the next one
            raise Crash
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


JOB_VIDS = make_vids(13)


class JobMachine(RuleBasedStateMachine):
    """A job that is killed, meets full disks, bad answers and meddlers, and is run again."""

    @initialize(
        name=st.sampled_from(["out", "out.jsonl", "out.csv"]),
        shard_size=st.sampled_from([1, 4, 20]),
    )
    def begin(self, name: str, shard_size: int) -> None:
        """Choose an output."""
        shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(dir=shared, prefix="kokoon-test-"))
        self.out = self.folder / name
        self.shard_size = shard_size
        self.failing: set[str] = set()
        self.given = [*JOB_VIDS, "nonsense", JOB_VIDS[0].upper()]
        self.ended: Counter[str] = Counter()

    def run_job(self, given: list[str], *, point: int = 0, fault: str = "", **options: Any) -> Any:
        """Run the job, in a process that may be gone at some point."""
        api = FakeApi(default=self.answer_for)

        async def work() -> Any:
            async with client_of(api) as client:
                return await fetch_statuses(
                    client, given, self.out, shard_size=self.shard_size, **options
                )

        real, self.disk = _disk.os, Deadly(point, fault)
        _disk.os = self.disk  # type: ignore[assignment]
        try:
            return run(Network(random.Random(0)), work(), pytest.fail)
        finally:
            _disk.os = real  # type: ignore[assignment]

    def answer_for(self, vid: str) -> Any:
        """Answer one request."""
        if vid == JOB_VIDS[3]:
            return NOT_FOUND
        return answer(422, {"message": "no"}) if vid in self.failing else FakeApi().default(vid)

    @rule(
        point=st.integers(1, 60),
        fault=st.sampled_from(["kill", "tear", "ENOSPC"]),
        options=st.sampled_from([{}, {"retry_failed": True}]),
    )
    def is_disturbed(self, point: int, fault: str, options: dict[str, Any]) -> None:
        """Run the job until the disk or the process is at its end, or the job is."""
        try:
            self.run_job(self.given, point=point, fault=fault, **options)
            self.ended["well"] += 1
            assert self.disk.left > 0, "the job took no notice of what went wrong"
        except Crash:
            self.ended["killed"] += 1
        except JobError as error:
            assert str(self.folder) in f"{error.path} {error.message}"  # noqa: PT017
            self.ended["full disk"] += 1

    @rule(vids=st.sets(st.sampled_from(JOB_VIDS), max_size=3))
    def some_fail(self, vids: set[str]) -> None:
        """Let the server refuse some ids for good, from now on."""
        self.failing = vids

    @rule(place=st.integers(0, 99))
    def a_part_is_changed(self, place: int) -> None:
        """Let somebody spoil a part."""
        parts = sorted(self.folder.rglob("part-*"))
        if parts:
            part = parts[place % len(parts)]
            part.write_bytes(part.read_bytes()[:-2] + b"?\n")

    @rule(place=st.integers(0, 99))
    def a_part_is_gone(self, place: int) -> None:
        """Let somebody remove a part."""
        parts = sorted(self.folder.rglob("part-*"))
        if parts:
            parts[place % len(parts)].unlink()

    @rule()
    def another_input_is_given(self) -> None:
        """Give it other ids: refused, or else nothing of the kind was there yet."""
        parts = self.folder.rglob("part-*")
        whole = [part for part in parts if f"{zlib.crc32(part.read_bytes()):08x}" in part.name]
        if not whole:
            return
        with pytest.raises(JobError):
            self.run_job([*reversed(JOB_VIDS), "more"])

    @invariant()
    def what_has_its_name_is_whole(self) -> None:
        """Find a joined file whole or not at all, whenever the process was gone."""
        if not hasattr(self, "out"):
            return
        if self.out.is_file():
            check_contract(self.given, self.out)

    def teardown(self) -> None:
        """Run once more, undisturbed, it is finished, and running it again asks for nothing."""
        if not hasattr(self, "out"):
            return
        self.failing = set()
        report = self.run_job(self.given, retry_failed=True)
        rows = check_contract(self.given, self.out)
        told = Counter(row["outcome"] for row in rows)
        assert told == {"image": len(JOB_VIDS) - 1, "not_found": 1, "invalid": 1}
        assert report.outcomes == dict(told)
        again = self.run_job(self.given)
        assert again.requests == 0
        left = [path.name for path in self.folder.rglob("_*") if path.name.startswith("_tmp-")]
        assert left == []
        for part in self.folder.rglob("part-*"):
            assert f"{zlib.crc32(part.read_bytes()):08x}" in part.name
        shutil.rmtree(self.folder)


@pytest.mark.may_block("no threads in a deterministic run")
@pytest.mark.fault("F-90")
@pytest.mark.fault("F-92")
@pytest.mark.fault("F-96")
def test_a_job_with_crashes_in_any_order():
    """G18: whatever happened to a job before, run once more it has one right row for each id."""
    # Each step is a whole job, so fewer of them must do, but for the profile "goal" and others.
    examples = settings().max_examples
    few = settings(
        stateful_step_count=15 if examples < 200 else 50, max_examples=max(10, examples // 3)
    )
    run_state_machine_as_test(JobMachine, settings=few)
