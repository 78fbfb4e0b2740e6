"""What a policy would do, and what that would cost."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import attrs
import pytest

from kokoon_async import (
    AgeProportional,
    ConfigurationError,
    Cost,
    Exponential,
    Fixed,
    Learned,
    Look,
    evaluate,
    preview,
)
from kokoon_async.models import ImageState
from kokoon_async.polling import costs


@attrs.define
class Always:
    """A policy of somebody else that gives what it is told to, and remembers what it was asked."""

    delay: float
    asked: list[Look] = attrs.field(factory=list)

    def next_delay(self, look: Look) -> float:
        """Give the delay."""
        self.asked.append(look)
        return self.delay

    def record(self, earliest: float, latest: float) -> None:
        """Fail: neither function may teach a policy anything."""
        raise AssertionError


# --- preview ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "until", "ages"),
    [
        (Fixed(2.0, jitter=0), 7.0, [0, 2, 4, 6]),
        (Fixed(2.0, jitter=0), 8.0, [0, 2, 4, 6, 8]),
        (Fixed(2.0, jitter=0), 1.0, [0]),
        (Exponential(1.0, 2.0, 8.0, jitter=0), 40.0, [0, 1, 3, 7, 15, 23, 31, 39]),
        (AgeProportional(0.5, 1.0, 4.0, jitter=0), 14.0, [0, 1, 2, 3, 4.5, 6.75, 10.125]),
    ],
)
def test_preview_gives_the_ages_of_the_looks(policy: object, until: float, ages: list[float]):
    """The first look is at 0, the last one not after *until*."""
    assert preview(policy, until) == ages  # type: ignore[arg-type]


def test_policies_are_asked_as_in_a_wait():
    """A policy is told of an image that is as old as the wait, and in the works."""
    policy = Always(2.0)
    preview(policy, 5.0)
    assert policy.asked == [
        Look(age, age, looks, ImageState.PROCESSING)
        for looks, age in enumerate([0.0, 2.0, 4.0], start=1)
    ]
    other = Always(2.0)
    evaluate(other, [6.0])
    assert other.asked == policy.asked


def test_pauses_are_no_shorter_than_in_a_wait():
    """A policy that says 0 makes no flood, there and here."""
    assert len(preview(Always(0.0), 1.05)) == 11
    assert evaluate(Always(0.0), [1.05]).looks == 12


# --- evaluate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "durations", "price", "cost"),
    [
        (Fixed(2.0, jitter=0), [3.0], 1.0, Cost(3, 1.0, 4.0)),
        (Fixed(2.0, jitter=0), [4.0], 1.0, Cost(3, 0.0, 3.0)),
        (Fixed(2.0, jitter=0), [0.0], 1.0, Cost(1, 0.0, 1.0)),
        (Fixed(2.0, jitter=0), [0.0, 1.0, 2.0, 3.0], 2.0, Cost(2.0, 0.5, 4.5)),
        (AgeProportional(0.5, 1.0, 4.0, jitter=0), [4.0], 1.0, Cost(5, 0.5, 5.5)),
        (AgeProportional(0.5, 1.0, 4.0, jitter=0), [4.0, 10.0], 0.1, Cost(6.0, 0.3125, 0.9125)),
    ],
)
def test_cost_is_price_times_looks_plus_delay(
    policy: object, durations: list[float], price: float, cost: Cost
):
    """Looks and delays are counted exactly, the first look among them, and averaged."""
    found = evaluate(policy, durations, price=price)  # type: ignore[arg-type]
    assert attrs.astuple(found) == pytest.approx(attrs.astuple(cost))


def test_durations_may_come_one_by_one():
    """Any iterable of durations will do."""
    policy = Fixed(jitter=0)
    assert evaluate(policy, iter([3.0, 4.0])) == evaluate(policy, (3.0, 4.0))


def test_durations_may_be_any_kind_of_number():
    """Numbers of other libraries cost what plain ones do."""
    policy = Fixed(2.0, jitter=0)
    assert evaluate(policy, [Decimal(3), 3, True]) == evaluate(policy, [3.0, 3.0, 1.0])  # type: ignore[list-item]


def test_learned_is_evaluated_as_it_is():
    """To evaluate or preview a policy that learns teaches it nothing."""
    policy = Learned(jitter=0)
    for _ in range(30):
        policy.record(10.0, 11.0)
    before = policy.to_json()
    ages = preview(policy, 60.0)
    assert evaluate(policy, [5.0, 500.0]) == evaluate(policy, [5.0, 500.0])
    assert preview(policy, 60.0) == ages
    assert policy.to_json() == before


# --- what cannot be evaluated -------------------------------------------------------------------


def test_no_durations_cost_nothing_that_could_be_told():
    """The average of nothing is an error, with a name."""
    with pytest.raises(ConfigurationError, match="no durations"):
        evaluate(Fixed(), [])


NO_DURATIONS = [-1.0, math.nan, math.inf, "1", None, 1j, 10**400, 10**5_000, -(10**5_000)]


@pytest.mark.parametrize("duration", NO_DURATIONS, ids=range(len(NO_DURATIONS)))
def test_durations_are_seconds(duration: object):
    """An image that never finishes would be looked at for ever, and a text is no time."""
    with pytest.raises(ConfigurationError, match=r"A duration is not .* seconds"):
        evaluate(Fixed(), [1.0, duration])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, None, "1"])
def test_arguments_are_positive_numbers(value: object):
    """What is no price or no age is refused by name."""
    with pytest.raises(ConfigurationError, match="price must be"):
        evaluate(Fixed(), [1.0], price=value)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="until must be"):
        preview(Fixed(), value)  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [math.nan, math.inf, None, "1", 10**400])
def test_policies_that_give_no_seconds_are_refused(delay: Any):
    """A pause that is no number is a defect of the policy, and not an age."""
    for ask in (lambda: preview(Always(delay), 10.0), lambda: evaluate(Always(delay), [10.0])):
        with pytest.raises(ConfigurationError, match=r"^Always\.next_delay gave .*, not seconds"):
            ask()


@pytest.mark.parametrize("policy", [None, 1.0, "fixed", Fixed])
def test_what_is_no_policy_is_refused(policy: Any):
    """Both functions say first what a policy is."""
    for ask in (lambda: preview(policy, -1.0), lambda: evaluate(policy, [], price=0)):
        with pytest.raises(ConfigurationError, match=r"^policy must be a policy such as"):
            ask()


def test_endless_schedules_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Neither function runs for hours, or for ever where the ages outgrow the pauses."""
    monkeypatch.setattr(costs, "_MOST_LOOKS", 1_000)
    with pytest.raises(ConfigurationError, match=r"gave 1\.0 s after 1000 looks"):
        evaluate(Always(1.0), [1e17])
    with pytest.raises(ConfigurationError, match=r"gave 1\.0 s after 1000 looks"):
        preview(Always(1.0), 1e17)
