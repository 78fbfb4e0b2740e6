"""What a policy would do, and what that would cost: to choose one, and to test one."""

from collections.abc import Iterable

import attrs

from .._checks import check_policy, check_seconds, is_finite, shown
from ..errors import ConfigurationError
from ..models import ImageState
from .policies import SHORTEST_DELAY, Look, PollPolicy, delay_from


__all__ = ["Cost", "evaluate", "preview"]

_MOST_LOOKS = 1_000_000  # at one image; a mistake, not a policy


@attrs.frozen
class Cost:
    """
    Say what a policy costs for one image, on the average.

    Attributes:
        looks: Requests, with the first one at age 0.

        delay: Seconds between the finish and the look that noticed it.

        total: ``price * looks + delay``.
    """

    looks: float
    delay: float
    total: float


def preview(policy: PollPolicy, until: float = 600.0) -> list[float]:
    """
    Give the ages at which a policy would look at an image that never finishes.

    Args:
        policy: Asked as in a wait that begins with the image; nothing is recorded.

        until: The last age of interest, in seconds.

    Raises:
        ConfigurationError: If an argument cannot be used, or the policy gives no seconds.
    """
    check_policy("policy", policy)
    check_seconds("until", until, or_none=False)
    ages = []
    age = 0.0
    while age <= until:
        ages.append(age)
        age = _next_age(policy, age, len(ages))
    return ages


def evaluate(policy: PollPolicy, durations: Iterable[float], *, price: float = 1.0) -> Cost:
    """
    Give what a policy costs for images that take so long; a pure simulation.

    Every wait begins with its image, and nothing is recorded: a policy that learns
    stays as it is.

    Args:
        policy: Any.

        durations: Seconds from creation to finish, one for each image.

        price: Seconds of delay that a request is worth.

    Raises:
        ConfigurationError: If there are no durations, or one that is not a number of seconds;
            if another argument cannot be used, or the policy gives no seconds.
    """
    check_policy("policy", policy)
    check_seconds("price", price, or_none=False)
    images = looks = 0
    delay = 0.0
    for given in durations:
        if not (is_finite(given) and float(given) >= 0):
            raise ConfigurationError(f"A duration is not {shown(given)} seconds.")
        duration, age, made = float(given), 0.0, 1
        while age < duration:
            age = _next_age(policy, age, made)
            made += 1
        images, looks, delay = images + 1, looks + made, delay + age - duration
    if not images:
        raise ConfigurationError("There are no durations to evaluate a policy with.")
    return Cost(looks / images, delay / images, (price * looks + delay) / images)


def _next_age(policy: PollPolicy, age: float, looks: int) -> float:
    look = Look(age=age, elapsed=age, looks=looks, state=ImageState.PROCESSING)
    delay = delay_from(policy, look)
    if looks >= _MOST_LOOKS:
        name = type(policy).__name__
        raise ConfigurationError(f"{name} never ends: it gave {delay!r} s after {looks} looks.")
    return age + max(delay, SHORTEST_DELAY)
