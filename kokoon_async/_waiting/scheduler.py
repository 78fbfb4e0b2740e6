"""
One schedule for all waits of a client: a heap of due times, and one look per image.

Waits on the same image share its looks, so that never two are in flight. No task
belongs to a wait: an image has one entry in the heap, and a few workers make the looks
that are due.
"""

import asyncio
import copy
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

from .._http.protocol import Answer, hint_of, is_throttling
from ..errors import ClientClosed, KokoonError
from ..events import (
    Hooks,
    LookFailed,
    LookFinished,
    StateChanged,
    WaitEnded,
    WaitStarted,
    logger,
)
from ..models import Image
from ..polling import Done, Failed, LookAgain, Step
from .agenda import Agenda, Queue
from .reserve import Reserve
from .slices import in_slices
from .waits import Awaited, Wait, Watcher


__all__ = ["Backoff", "Scheduler"]

# Somebody cancels all tasks of the loop, and then goes on: the next look comes after this.
_PAUSE_AFTER_CANCEL = 1.0

Backoff = Callable[[int, bool], float]
"""Gives the pause in seconds after so many failures, which may be the server throttling."""


class Scheduler:
    """
    Look at images when their waits are due.

    Args:
        look: Gets a record with one attempt.

        backoff: The pause after failed looks.

        hooks: Told of looks and waits.

        most_looks: Looks at once; the throttle may allow fewer.
    """

    def __init__(
        self,
        look: Callable[[str], Awaitable[Answer]],
        *,
        backoff: Backoff,
        hooks: Hooks,
        most_looks: int,
    ) -> None:
        self._look = look
        self._backoff = backoff
        self._hooks = hooks
        self._most_looks = most_looks
        self._images: dict[str, Awaited] = {}
        self._agenda = Agenda()
        self._queue = Queue()
        # The workers, and the image that each looks at.
        self._workers: dict[asyncio.Task[None], Awaited] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._reserve = Reserve()

    def __len__(self) -> int:
        return len(self._images)

    def newest(self, vid: str) -> Wait | None:
        """Give the wait for an image that began last, if there is one."""
        image = self._images.get(vid)
        return None if image is None else image.newest

    def add(self, wait: Wait) -> None:
        """Begin a wait: the first look is now, or the one already under way."""
        image = self._images.get(wait.vid)
        if image is None:
            image = self._images[wait.vid] = Awaited(wait.vid)
        image.add(wait)
        if self._hooks.hears(WaitStarted):
            self._hooks.tell(WaitStarted(wait.vid, wait.timeout))
        if image.is_idle and image.not_before <= asyncio.get_running_loop().time():
            self._enqueue(image)
        else:
            at = min(wait.deadline, image.not_before) if image.is_idle else wait.deadline
            if at < image.due:
                self._agenda.put(image, at, images=len(self._images))
        self._start_looks()
        self._set_timer()

    def drop(self, wait: Wait) -> None:
        """Forget a wait that nobody is interested in any more; its watcher is not told."""
        if wait.is_over:
            return
        image = self._images[wait.vid]
        image.remove(wait)
        self._conclude(image, wait, "abandoned")
        if not image.is_awaited:
            self._forget(image)
            self._set_timer()

    def dropping_all_of(self, watcher: Watcher) -> Iterator[None]:
        """Forget all waits of a watcher, which keeps no list of them, step by step."""
        for image in tuple(self._images.values()):
            for wait in image.waits:
                if wait.watcher is watcher:
                    self.drop(wait)
                yield

    async def close(self, message: str) -> None:
        """End all waits with `ClientClosed`."""
        self._queue.clear()
        try:
            await in_slices(self._ending_all(message))
        finally:
            await asyncio.gather(*self._workers, return_exceptions=True)

    def _ending_all(self, message: str) -> Iterator[None]:
        for image in tuple(self._images.values()):
            for wait in image.waits:
                error = ClientClosed(f"{message} Image {wait.vid}: {wait.last_seen()}.")
                error.hint = "The server's work goes on: wait for the same vid again to resume."
                error.vid, error.attempts = wait.vid, wait.looks
                self._end(image, wait, error)
                yield
        self._set_timer()

    # -- the schedule ------------------------------------------------------------------

    def _watch_deadlines(self, image: Awaited) -> None:
        at = image.first_deadline
        at = min(at, image.not_before) if image.is_idle else at
        self._agenda.put(image, at, images=len(self._images))

    def _enqueue(self, image: Awaited) -> None:
        self._queue.put(image, images=len(self._images))
        self._agenda.put(image, image.first_deadline, images=len(self._images))

    def _forget(self, image: Awaited) -> None:
        image.entry, image.queued = None, False
        if self._images.get(image.vid) is image:  # else a hook was faster
            del self._images[image.vid]
        if image.worker is not None:
            image.worker.cancel()

    def _set_timer(self) -> None:
        if not self._images:
            self._agenda.clear()
        at = self._agenda.next_time()
        if at == self._timer_at:  # remembered here: for what is due, uvloop gives no timer to ask
            return
        self._timer_at = at
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(at, self._on_time, at) if at < math.inf else None

    def _on_time(self, at: float) -> None:
        self._timer, self._timer_at = None, math.inf
        # A timer may fire a tick of the clock too early; what it was set for is due all the same.
        now = max(at, asyncio.get_running_loop().time())
        while (image := self._agenda.pop_due(now)) is not None:
            if image.is_idle and image.not_before <= now:
                self._enqueue(image)
            else:
                self._expire(image, now)
        self._start_looks()
        self._set_timer()

    def _expire(self, image: Awaited, now: float) -> None:
        """End the waits whose deadline passed with no look finished meanwhile."""
        for wait in image.waits:
            if wait.deadline <= now:
                self._end(image, wait, wait.expire(now).error)
        if image.is_awaited:
            self._watch_deadlines(image)

    # -- looks -------------------------------------------------------------------------

    def _start_looks(self) -> None:
        while len(self._workers) < self._most_looks and (image := self._queue.next()) is not None:
            worker = asyncio.create_task(self._work(image), name="kokoon looks")
            worker.add_done_callback(self._worker_ended)
            self._assign(image, worker)

    def _assign(self, image: Awaited, worker: "asyncio.Task[None]") -> None:
        self._workers[worker] = image
        image.worker = worker

    async def _work(self, first: Awaited) -> None:
        """Make a look, and all that are due by then."""
        await asyncio.sleep(0)  # an eager task (F-111) would begin before it is assigned
        worker = cast("asyncio.Task[None]", asyncio.current_task())
        image: Awaited | None = first
        while image is not None:
            try:
                await self._look_at(image)
            except Exception as error:  # noqa: BLE001 - whose look it was, must hear of it
                self._on_defect(image, error)
            image = self._queue.next()
            if image is not None:
                self._assign(image, worker)
            self._set_timer()

    def _worker_ended(self, worker: "asyncio.Task[None]") -> None:
        image = self._workers.pop(worker)
        if image.worker is worker and image.is_awaited:  # cancelled, and not by `_forget`
            image.worker = None
            image.not_before = asyncio.get_running_loop().time() + _PAUSE_AFTER_CANCEL
            self._watch_deadlines(image)
        self._start_looks()
        self._set_timer()

    async def _look_at(self, image: Awaited) -> None:
        """Look once, and tell every wait for the image what came of it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer: Answer | KokoonError = await self._look(image.vid)
        except KokoonError as error:
            answer = error
        except Exception:
            image.worker = None
            raise
        now = loop.time()
        image.worker = None
        if isinstance(answer, KokoonError):
            self._on_failure(image, answer, now)
        else:
            self._reserve.learn(now - began)
            self._on_record(image, answer, now)

    def _on_record(self, image: Awaited, answer: Answer, now: float) -> None:
        record, age = answer.image, answer.age
        known_age = image.waits[0].age(now) if age is None else age
        before = image.state
        if before != record.state and self._hooks.hears(StateChanged):
            self._hooks.tell(StateChanged(image.vid, before, record.state, known_age))
        steps: list[tuple[Wait, Step | Exception]] = []
        told: set[int] = set()  # the policies that were told, by their ids
        for wait in image.waits:
            if wait.is_over:  # the watcher of one before has dropped it
                continue
            if wait.state != record.state:
                wait.watcher.changed(wait, record)
            is_told = id(wait.policy) in told
            told.add(id(wait.policy))
            reserve = self._reserve.seconds(wait.timeout)
            try:
                step = wait.observe(now, record, age=age, reserve=reserve, is_told=is_told)
            except Exception as error:  # noqa: BLE001 - a user's policy; it ends that one wait
                steps.append((wait, error))
            else:
                steps.append((wait, step))
        delay, reason = self._follow(image, steps, now)
        if self._hooks.hears(LookFinished):
            self._hooks.tell(LookFinished(image.vid, record.state, known_age, delay, reason))

    def _on_failure(self, image: Awaited, error: KokoonError, now: float) -> None:
        throttled = is_throttling(error)
        hint = hint_of(error)
        pause = self._backoff(max(w.failures_in_a_row for w in image.waits) + 1, throttled)
        if hint is not None:
            image.not_before = now + hint
        steps: list[tuple[Wait, Step | Exception]] = []
        for wait in image.waits:
            reserve = self._reserve.seconds(wait.timeout)
            try:
                step = wait.fail(now, error, pause=pause, hint=hint or 0.0, reserve=reserve)
            except Exception as defect:  # noqa: BLE001 - as above
                steps.append((wait, defect))
            else:
                steps.append((wait, step))
        delay, reason = self._follow(image, steps, now)
        if self._hooks.hears(LookFailed):
            kind = type(error).__name__
            self._hooks.tell(LookFailed(image.vid, kind, delay, reason))

    def _on_defect(self, image: Awaited, error: Exception) -> None:
        """Tell of a defect: of this package, of a user's session, of its middleware."""
        if not image.is_awaited:
            context = {"message": "a look of kokoon_async failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        for wait in image.waits:
            self._end(image, wait, error)

    def _follow(
        self, image: Awaited, steps: list[tuple[Wait, Step | Exception]], now: float
    ) -> tuple[float | None, str]:
        """Schedule the next look, and end the waits that are over."""
        nearest: LookAgain | None = None
        for wait, step in steps:
            if isinstance(step, LookAgain) and not wait.is_over:
                nearest = step if nearest is None or step.delay < nearest.delay else nearest
        # Unless a hook or a watcher has begun another wait, whose first look is the next one.
        if nearest is not None and image.is_idle:
            self._agenda.put(image, now + nearest.delay, images=len(self._images))
        for wait, step in reversed(steps):  # the oldest last: it has the most to tell its policy
            match step:
                case LookAgain():
                    pass
                case Done():
                    self._end(image, wait, step.image)
                case Failed():
                    # A copy for each: they are raised in different tasks.
                    self._end(image, wait, copy.copy(step.error))
                case _:
                    self._end(image, wait, step)
        return (None, "ended") if nearest is None else (nearest.delay, nearest.reason)

    def _end(self, image: Awaited, wait: Wait, result: Image | Exception) -> None:
        if wait.is_over:  # a hook or a watcher has dropped it meanwhile
            return
        image.remove(wait)
        outcome = "completed" if isinstance(result, Image) else type(result).__name__
        self._conclude(image, wait, outcome)
        wait.watcher.ended(wait, result)
        if not image.is_awaited:
            self._forget(image)

    def _conclude(self, image: Awaited, wait: Wait, outcome: str) -> None:
        """Tell policy and hooks that a wait is over."""
        # Many waits on one image are one lesson: the last that is left tells it.
        if not image.has_policy(wait.policy):
            try:
                wait.conclude()
            except Exception:  # noqa: BLE001 - a user's policy; only the log can hear it now
                logger.exception("policy.failed", extra={"kokoon_vid": wait.vid})
        if self._hooks.hears(WaitEnded):
            elapsed = wait.elapsed(asyncio.get_running_loop().time())
            self._hooks.tell(WaitEnded(wait.vid, outcome, elapsed, wait.looks))
