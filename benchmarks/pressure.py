"""
Waiting under a rate limit: does it help to raise the price of a request?

10,000 images and 50 requests per second, end to end as in `polling_live.py`. Either all
images come at once, or so many per second that the looks that a price of 1 is worth are more
than the limit allows. The mean delay is that over all images, in seconds.

Round robin looks at the images in turn, as fast as the limit lets it. `Learned` has
learned from 300 waits before; looks that are due queue for their turns. "Rising": every two
seconds its price is raised by a quarter if the images in work, with the pauses planned since
then, would need more looks than the limit allows, and lowered if fewer. Run it with
``nox -s bench -- pressure``. It prints Markdown. ``--price 3`` shows what that price would have
done all the time, and may be given several times.
"""

import argparse
import asyncio
import math
import random
from collections.abc import Sequence
from typing import Any

import attrs
from polling import DISTRIBUTIONS, print_head, print_row, wait_once
from polling_live import arrivals, effort_of

from kokoon_async import Learned, Look, PollPolicy


RATE = 50.0
SLOW = "log-normal, median 200 s"
DISTRIBUTIONS[SLOW] = lambda chance: chance.lognormvariate(math.log(200), 0.3)
NAMES = ("queue 60 s + run 26 s", SLOW)
PER_SECOND = (math.inf, 20.0, 10.0)

EVERY, FACTOR, HIGHEST = 2.0, 1.25, 100.0


class RoundRobin:
    """Be due at once: what queues for its turn takes its turn."""

    def next_delay(self, look: Look) -> float:  # noqa: ARG002 - the protocol's
        """Give no pause."""
        return 0.0

    def record(self, earliest: float, latest: float) -> None:
        """Take no notice."""


@attrs.define
class RisingPrice:
    """
    Raise a policy's price until its planned looks fit the rate; lower it afterwards.

    Attributes:
        policy: Plans the looks.
    """

    policy: Learned
    _open: int = attrs.field(default=0, init=False)
    _pauses: list[float] = attrs.field(factory=list, init=False)
    _changed: float = attrs.field(default=0.0, init=False)

    def next_delay(self, look: Look) -> float:
        """Give the pause at the present price."""
        self._open += look.looks == 1
        now = asyncio.get_running_loop().time()
        if self._pauses and now - self._changed >= EVERY:
            demand = self._open * len(self._pauses) / sum(self._pauses)
            factor = FACTOR if demand > RATE else 1 / FACTOR
            self.policy.price = min(max(self.policy.price * factor, 1.0), HIGHEST)
            self._changed = now
            self._pauses.clear()
        pause = self.policy.next_delay(look)
        self._pauses.append(pause)
        return pause

    def follow(self, since: float, until: float) -> None:
        """Let the policy learn."""
        self.policy.follow(since, until)

    def record(self, earliest: float, latest: float, **told: Any) -> None:
        """Let the policy learn."""
        self.policy.record(earliest, latest, **told)
        self._open -= 1


def taught(name: str) -> Learned:
    """Give a policy that has waited for 300 images, one after the other."""
    policy, chance = Learned(seed=1), random.Random(1_000)
    for _ in range(300):
        wait_once(policy, DISTRIBUTIONS[name](chance))
    return policy


def policies(name: str, prices: Sequence[float]) -> dict[str, PollPolicy]:
    """Make what is compared."""
    made: dict[str, PollPolicy] = {
        "round robin": RoundRobin(),
        "price 1": taught(name),
        "rising price": RisingPrice(taught(name)),
    }
    for price in prices:
        policy = taught(name)
        policy.price = price
        made[f"price {price:g}"] = policy
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--price", type=float, action="append", default=[])
    arguments = parser.parse_args()
    print(f"{arguments.images:,} images, {RATE:.0f} requests per second")
    print_head(
        "durations",
        "images come",
        *(f"{kind}: delay (looks)" for kind in policies(SLOW, arguments.price)),
    )
    for name in arguments.only or NAMES:
        for per_second in PER_SECOND:
            cells = []
            for policy in policies(name, arguments.price).values():
                images = arrivals(name, 1 / per_second, arguments.images, seed=1)
                effort = effort_of(policy, images, requests_per_second=RATE)
                cells.append(f"{effort.delay:.1f} ({effort.looks:.1f})")
            label = "all at once" if math.isinf(per_second) else f"{per_second:.0f} per second"
            print_row(name, label, *cells)


if __name__ == "__main__":
    main()
