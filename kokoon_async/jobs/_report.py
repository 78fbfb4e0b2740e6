"""What a job tells: how far it is, and what came of it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping

import attrs

from ._rows import RETRYABLE


__all__ = ["JobProgress", "JobReport", "Meter", "Tally"]

_MOST_STATES = 100
_OTHER_STATES = "(other)"
_RATE_OVER = 10.0  # seconds


@attrs.define
class Tally:
    """
    Count outcomes and states.

    Attributes:
        outcomes: How many ids came to each outcome.

        states: How many images were last seen in each state.
    """

    outcomes: dict[str, int] = attrs.field(factory=dict)
    states: dict[str, int] = attrs.field(factory=dict)

    def add(self, found: Iterable[tuple[str, str | None]]) -> None:
        """Count outcomes, each with its state."""
        for outcome, state in found:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            if state is not None:
                if state not in self.states and len(self.states) >= _MOST_STATES:
                    state = _OTHER_STATES  # noqa: PLW2901 - a server must not fill the memory
                self.states[state] = self.states.get(state, 0) + 1

    @property
    def ids(self) -> int:
        """How many ids were counted."""
        return sum(self.outcomes.values())

    @property
    def failed(self) -> int:
        """How many of them another run may do better with."""
        return sum(self.outcomes.get(name, 0) for name in RETRYABLE)


@attrs.frozen
class JobProgress:
    """
    Tell how far a job is.

    Attributes:
        done: Ids with a final outcome, earlier runs' included.

        skipped: How many of those are from earlier runs.

        failed: How many have failed or timed out, in this run.

        in_flight: How many are being asked for.

        total: How many ids there are in all, estimated from what was read of the input;
            ``None`` if that cannot be told.

        rate: Ids per second, lately.

        seconds: How long this run has lasted.

        seconds_left: How long it will last at this rate; ``None`` if that cannot be told.

        paused: Why nothing is asked for at the moment; ``None`` if all is well.
    """

    done: int
    skipped: int
    failed: int
    in_flight: int
    total: int | None
    rate: float
    seconds: float
    seconds_left: float | None
    paused: str | None


@attrs.frozen
class JobReport:
    """
    Tell what came of a job.

    Attributes:
        out: Where the rows are: a file, a folder, or ``-``.

        format: The format's name.

        ids: How many distinct ids, that is rows, there are.

        duplicates: How many further positions of the input held one of them again.

        outcomes: How many ids came to each outcome; see `docs/bulk.md`.

        states: How many images were last seen in each state.

        shards: How many parts the job was cut into.

        shards_skipped: How many of them were there from earlier runs.

        requests: How many requests this run took, probes included.

        retries: How many of them were not the first for their id; looks of a wait do not
            count.

        seconds: How long this run took.

        rate: Ids per second that this run brought to their outcome.
    """

    out: str
    format: str
    ids: int
    duplicates: int
    outcomes: Mapping[str, int]
    states: Mapping[str, int]
    shards: int
    shards_skipped: int
    requests: int
    retries: int
    seconds: float
    rate: float

    @property
    def failed(self) -> int:
        """How many ids failed or timed out: *retry_failed* asks for these again."""
        return sum(self.outcomes.get(name, 0) for name in RETRYABLE)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return (
            f"{self.ids} ids ({counts or 'none'}) in {self.out}:"
            f" {self.requests} requests, {self.seconds:.1f} s"
        )


class Meter:
    """
    Count what a run does, and tell how fast.

    Attributes:
        done: Ids that this run brought to their outcome.

        failed: How many of them failed or timed out.

        skipped: Ids that earlier runs had done.

        requests: How many requests it took.

        retries: How many of them were not the first for their id.
    """

    def __init__(self) -> None:
        self._start = asyncio.get_running_loop().time()
        self._samples = deque([(self._start, 0)])
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self.requests = 0
        self.retries = 0

    def count(self, kind: str) -> None:
        """Take note of one more outcome."""
        self.done += 1
        self.failed += kind in RETRYABLE

    @property
    def seconds(self) -> float:
        """How long the run has lasted."""
        return asyncio.get_running_loop().time() - self._start

    @property
    def rate(self) -> float:
        """Ids per second, over the whole run."""
        return self.done / self.seconds if self.seconds else 0.0

    def progress(
        self, *, in_flight: int, expected: float | None, paused: str | None
    ) -> JobProgress:
        """
        Take stock; call it a few times per second.

        Args:
            in_flight: How many ids are being asked for.

            expected: How many ids the input has, by estimate.

            paused: Why nothing is asked for.
        """
        now = asyncio.get_running_loop().time()
        self._samples.append((now, self.done))
        while now - self._samples[0][0] > _RATE_OVER and len(self._samples) > 2:  # noqa: PLR2004
            self._samples.popleft()
        since, before = self._samples[0]
        rate = (self.done - before) / (now - since) if now > since else 0.0
        done = self.done + self.skipped
        total = None if expected is None else max(round(expected), done)
        is_telling = total is not None and rate > 0 and paused is None
        return JobProgress(
            done=done,
            skipped=self.skipped,
            failed=self.failed,
            in_flight=in_flight,
            total=total,
            rate=rate,
            seconds=self.seconds,
            seconds_left=(total - done) / rate if is_telling and total is not None else None,
            paused=paused,
        )
