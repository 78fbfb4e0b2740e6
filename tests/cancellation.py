"""
Cancel a coroutine at every point where it can be cancelled, and see what it leaves behind.

```python
@contextlib.asynccontextmanager
async def getting_an_image():
    async with RawServer(record_response(VID)) as server, make_client(server) as client:
        yield Scenario(lambda: client.get_image(VID), checks={"no slot taken": client_is_idle})

@pytest.mark.parametrize("mode", MODES)
def test_get_image_can_be_cancelled_anywhere(mode):
    assert cancel_everywhere(getting_an_image, mode=mode, times=2).points > 0
```

Each point gets a scenario of its own, all in one new event loop, so the test is a plain function.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import selectors
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import looptime

from .raw_server import TASK_NAME


Mode = Literal["turns", "suspensions", "children"]
MODES: tuple[Mode, ...] = get_args(Mode)

Way = Literal["cancel", "timeout"]
LoopKind = Literal["asyncio", "uvloop"]

AnyTask = asyncio.Task[Any]

_REPORTED = 5  # a broken scenario fails at many points; the first few tell enough
_SETTLE_TURNS = 10  # that other tasks have to end after the coroutine has
_DESCRIPTORS = Path("/proc/self/fd")  # Linux has it


@attrs.frozen
class Scenario:
    """
    What is cancelled, and what must hold whenever it was.

    Attributes:
        run: Makes the coroutine.

        checks: By name, what must be true after every run, e.g. that a semaphore is free.

        after: Makes one more call, which must succeed: is everything still usable?
    """

    run: Callable[[], Coroutine[Any, Any, object]]
    checks: Mapping[str, Callable[[], object]] = attrs.field(factory=dict)
    after: Callable[[], Awaitable[object]] | None = None


ScenarioFactory = Callable[[], AbstractAsyncContextManager[Scenario]]


@attrs.frozen
class CancelReport:
    """
    Say what was tried.

    Attributes:
        places: Where each run was hit: the innermost frames, outermost await first.

        second: How many of the runs were also hit by a second cancellation.
    """

    places: tuple[str, ...]
    second: int

    @property
    def points(self) -> int:
        """In how many runs a cancellation fired; a test asserts that there were some."""
        return len(self.places)


class CancelFailure(AssertionError):
    """A cancellation left something behind, was swallowed, or came from nowhere."""


def is_server_task(task: AnyTask) -> bool:
    """Tell whether *task* serves a connection of RawServer or of `aiohttp.web`."""
    name = getattr(task.get_coro(), "__qualname__", "")
    return task.get_name().startswith(TASK_NAME) or name == "RequestHandler.start"


def cancel_everywhere(
    factory: ScenarioFactory,
    *,
    mode: Mode,
    times: Literal[1, 2] = 1,
    virtual_time: bool = False,
    limit: float = 5.0,
    way: Way = "cancel",
    loop: LoopKind = "asyncio",
    step: int = 1,
) -> CancelReport:
    """
    Run the scenario again and again, cancelled a bit later each time, until it ends uncancelled.

    Args:
        factory: Makes a fresh scenario for each run.

        mode: "turns" cancels after *k* turns of the event loop, "suspensions" when the
            coroutine or a task that it started suspends for the *k*-th time. "children"
            cancels the *k*-th suspended child itself; then the coroutine may end as it
            likes, yet must end.

        times: 2 cancels again one turn later, in the midst of the clean-up.

        virtual_time: Skip all sleeping.

        limit: Seconds after which a run counts as hung; with *virtual_time* use a large one.

        way: "timeout" puts `asyncio.timeout` around the coroutine and lets its time be over
            at the point, where "cancel" cancels the task: then the coroutine must end with
            `TimeoutError`.

        loop: "uvloop" has neither turns that could be counted nor virtual time.

        step: Try only every so many points.

    Raises:
        CancelFailure: A task or a file descriptor was left, a check failed, or the coroutine
            ended otherwise.
    """
    driver = _Driver(factory, mode, times, limit, way, step)

    def make_loop() -> asyncio.AbstractEventLoop:
        made = uvloop_loop() if loop == "uvloop" else driver.make_loop(virtual_time)
        made.set_task_factory(driver.make_task)
        made.set_exception_handler(lambda _, context: driver.loop_errors.append(str(context)))
        return made

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(driver.drive())


def open_descriptors() -> set[str]:
    """
    Name all open file descriptors of this process; none where the system does not tell.

    But for /dev/null: libuv keeps one in reserve, for when there are no others left.
    """
    found = set()
    for path in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        with contextlib.suppress(OSError):  # that of the list itself is gone by now
            found.add(f"{path.name} -> {path.readlink()}")
    return {name for name in found if not name.endswith("/dev/null")}


def uvloop_loop() -> asyncio.AbstractEventLoop:
    """Make a loop of uvloop, which does not exist for Windows."""
    import uvloop

    return uvloop.new_event_loop()


@attrs.define(eq=False)
class _Shot:
    # One run's cancellation: counts points, fires at the chosen one, knows where it hit.

    mode: Mode
    times: int
    point: int
    main: AnyTask | None = None
    passed: int = 0
    fired: bool = False
    second: bool = False
    place: str = ""
    scope: asyncio.Timeout | None = None

    def __str__(self) -> str:
        hit = "cancelled twice" if self.second else "cancelled" if self.fired else "left alone"
        return f"point {self.point}, {hit} at {self.place}" if self.fired else hit

    def on_turn(self) -> bool:
        if self.mode != "turns" or self.main is None:
            return False
        self.passed += 1
        if self.passed == self.point + 1 and self.fired:
            return self._fire_again(self.main)
        return self.passed == self.point and self._fire(self.main)

    def on_suspension(self) -> None:
        current = asyncio.current_task()
        if self.mode == "turns" or current is None or self.main is None or self.fired:
            return
        if self.mode == "children" and current is self.main:
            return
        self.passed += 1
        victim = self.main if self.mode == "suspensions" else current
        if self.passed == self.point and self._fire(victim):
            # Two hops: in the first turn the victim meets the cancellation and begins to clean
            # up, before the second turn it is cancelled again.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._fire_again, victim)

    def _fire(self, victim: AnyTask) -> bool:
        self.place = _place(victim)
        if self.scope is not None and victim is self.main:
            # The loop cancels it in its next turn, if it is not done by then.
            with contextlib.suppress(RuntimeError):  # not begun, or over
                self.scope.reschedule(asyncio.get_running_loop().time())
                self.fired = True
        else:
            self.fired = victim.cancel("cancelled by the test")
        return self.fired

    def _fire_again(self, victim: AnyTask) -> bool:
        self.second = self.times > 1 and victim.cancel("cancelled again by the test")
        return self.second


# The shot that the running code belongs to; tasks inherit it from what starts them.
_shot: contextvars.ContextVar[_Shot | None] = contextvars.ContextVar("shot", default=None)


class _Watched(Coroutine[Any, Any, Any]):
    # Tells the shot whenever the coroutine's outermost await suspends.

    def __init__(self, coroutine: Any, shot: _Shot) -> None:
        self._coroutine = coroutine
        self._shot = shot

    def send(self, value: Any) -> Any:
        yielded = self._coroutine.send(value)
        self._shot.on_suspension()
        return yielded

    def throw(self, *error: Any) -> Any:
        yielded = self._coroutine.throw(*error)
        self._shot.on_suspension()
        return yielded

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:  # cr_frame and the like, for stack traces
        return getattr(self._coroutine, name)


@attrs.define(eq=False)
class _Driver:
    # Runs a scenario once per point and collects what went wrong.

    factory: ScenarioFactory
    mode: Mode
    times: int
    limit: float
    way: Way = "cancel"
    step: int = 1
    shot: _Shot | None = None
    loop_errors: list[str] = attrs.field(factory=list)
    failures: list[str] = attrs.field(factory=list)
    servers: weakref.WeakSet[AnyTask] = attrs.field(factory=weakref.WeakSet)

    def make_loop(self, virtual_time: bool) -> asyncio.AbstractEventLoop:
        selector = selectors.DefaultSelector()
        loop = asyncio.SelectorEventLoop(selector)
        if virtual_time:
            looptime.patch_event_loop(loop)
            # From Python 3.12 on, threads have 300 s to end: no time at all where it is virtual.
            end_threads = loop.shutdown_default_executor
            loop.shutdown_default_executor = lambda _=None: end_threads()  # type: ignore[method-assign]
        select = selector.select
        eventful = True

        # The loop calls `select` once in each turn. A turn in which nothing can have happened is
        # not counted: looptime makes many of them.
        def counting_select(timeout: float | None = None) -> list[Any]:
            nonlocal eventful
            if eventful and self.shot is not None and self.shot.on_turn():
                timeout = 0  # the cancelled task is ready to run
            before = loop.time()
            events = select(timeout)
            eventful = bool(events) or timeout == 0 or loop.time() != before
            return events

        selector.select = counting_select  # type: ignore[method-assign]
        return loop

    def make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        /,
        *,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> AnyTask:
        shot = _shot.get() if context is None else context.get(_shot)
        watched = coroutine if shot is None else _Watched(coroutine, shot)
        task: AnyTask = asyncio.Task(watched, loop=loop, context=context, **options)
        parent = asyncio.current_task(loop)
        if parent is not None and (parent in self.servers or is_server_task(parent)):
            self.servers.add(task)
        return task

    async def drive(self) -> CancelReport:
        # Uncancelled first, to know how many points there are; fast runs may have fewer.
        before = open_descriptors()
        baseline = await self.attempt(_Shot(self.mode, self.times, point=-1))
        shots: list[_Shot] = []
        for point in itertools.count(1, self.step):
            shot = await self.attempt(_Shot(self.mode, self.times, point))
            if shot.fired:
                shots.append(shot)
            if len(self.failures) >= _REPORTED or (point > baseline.passed and not shot.fired):
                break
        gc.collect()  # "Task exception was never retrieved" is only said then
        self.failures += [f"  in the end: {error}" for error in self.loop_errors]
        left = await self.left_descriptors(before)
        self.failures += [f"  in the end: descriptor left: {name}" for name in sorted(left)]
        if self.failures:
            raise CancelFailure("\n".join([f"mode {self.mode}:", *self.failures]))
        places = tuple(shot.place for shot in shots)
        return CancelReport(places, second=sum(shot.second for shot in shots))

    async def attempt(self, shot: _Shot) -> _Shot:
        async with self.factory() as scenario:
            known = asyncio.all_tasks()
            context = contextvars.copy_context()
            context.run(_shot.set, shot)
            work = scenario.run()
            limited = work if self.way == "cancel" else _within_time(work, shot)
            task = asyncio.get_running_loop().create_task(limited, context=context)
            shot.main, self.shot = task, shot
            await asyncio.wait({task}, timeout=self.limit)
            self.shot = None
            if limited is not work and task.done():
                work.close()  # it may not have begun
            if shot.scope is not None:
                shot.fired = shot.scope.expired()  # it may have been done just before
            problems = _wrong_end(shot, task)
            left = await self.left_tasks(known)
            problems += [f"task left: {other.get_name()} in {_place(other)}" for other in left]
            checks = scenario.checks.items()
            problems += [f"check {name!r} failed" for name, check in checks if not check()]
            if scenario.after is not None and not problems:
                problems += await _failed_call(scenario.after, self.limit)
            problems += self.loop_errors
            self.loop_errors.clear()
            self.failures += [f"  {shot}: {problem}" for problem in problems]
            await _end(left)
        if not (shot.fired or problems):
            task.result()  # what the scenario itself raises is the test's error
        return shot

    async def left_tasks(self, known: set[AnyTask]) -> set[AnyTask]:
        new: set[AnyTask] = set()
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)
            new = asyncio.all_tasks() - known - set(self.servers)
        return {task for task in new if not is_server_task(task)}

    async def left_descriptors(self, before: set[str]) -> set[str]:
        left = open_descriptors() - before
        for _ in range(_SETTLE_TURNS):  # a transport closes its socket a turn after it was closed
            if left:
                await asyncio.sleep(0)
                left = open_descriptors() - before
        return left


async def _within_time(work: Coroutine[Any, Any, object], shot: _Shot) -> object:
    try:
        async with asyncio.timeout(None) as shot.scope:
            return await work
    finally:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "a cancellation is left pending"


def _wrong_end(shot: _Shot, task: AnyTask) -> list[str]:
    if not task.done():
        return ["still running at the time limit"]
    error = None if task.cancelled() else task.exception()
    if shot.scope is not None and shot.fired and type(error) is TimeoutError:
        return []
    if shot.fired == task.cancelled() or (shot.fired and shot.mode == "children"):
        return []
    if task.cancelled():
        return ["ended as cancelled, but nobody had cancelled it"]
    if error is not None:
        return [f"turned the cancellation into {error!r}"]
    return [f"swallowed the cancellation and returned {task.result()!r}"]


async def _failed_call(after: Callable[[], Awaitable[object]], limit: float) -> list[str]:
    call = asyncio.ensure_future(after())
    await asyncio.wait({call}, timeout=limit)
    if not call.done():
        await _end({call})
        return ["the call afterwards hung"]
    error = "CancelledError" if call.cancelled() else call.exception()
    return [] if error is None else [f"the call afterwards raised {error!r}"]


async def _end(tasks: set[Any]) -> None:
    for _ in range(3):
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.01)


def _place(task: AnyTask) -> str:
    frames = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frames += [f"{frame.f_code.co_name}:{frame.f_lineno}"] if frame else []
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return " > ".join(frames[-4:])
