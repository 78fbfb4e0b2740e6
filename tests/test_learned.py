"""The policy that learns: from nothing, from intervals, and from files."""

from __future__ import annotations

import copy
import heapq
import json
import math
import pickle
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async import ConfigurationError, Exponential, Learned, Look, evaluate, preview
from kokoon_async.models import ImageState
from kokoon_async.polling.grid import EDGES, place_of
from kokoon_async.polling.memory import Memory
from kokoon_async.polling.planning import cheapest_next


Draw = Callable[[random.Random], float]


def make_look(age: float = 0.0, *, elapsed: float | None = None, looks: int = 1) -> Look:
    """Look at an image of that age."""
    known = age if elapsed is None else elapsed
    return Look(age, known, looks, ImageState.PROCESSING)


def taught(history: Sequence[tuple[float, float]], **settings: Any) -> Learned:
    """Make a policy that learned from observations."""
    policy = Learned(**settings)
    for earliest, latest in history:
        policy.record(earliest, latest)
    return policy


def wait(policy: Learned, duration: float) -> None:
    """Wait for one image as a client does, and record what it sees."""
    before = age = 0.0
    looks = 1
    while age < duration:
        before = age
        age += max(0.1, policy.next_delay(make_look(age, looks=looks)))
        looks += 1
    policy.record(before, age)


def log_normal(median: float, spread: float) -> Draw:
    """Make a source of durations."""
    return lambda chance: chance.lognormvariate(math.log(median), spread)


def queue_and_run(chance: random.Random) -> float:
    """Give a duration that is part queue, part work."""
    return chance.expovariate(1 / 60) + chance.gammavariate(16, 26 / 16)


def sample(draw: Draw, size: int = 400) -> list[float]:
    """Draw durations to evaluate policies with."""
    chance = random.Random(11)
    return sorted(draw(chance) for _ in range(20 * size))[10::20]


def optimum(durations: list[float], price: float) -> float:
    """Give the cost of the cheapest schedule for these very durations."""
    count = len(durations)
    masses = [0.0, *(1 / count for _ in durations)]
    ages = [0.0, *durations]
    choices = cheapest_next(ages, masses, price)
    total, here = price, 0
    while here < count:
        there = choices[here]
        total += price * (count - here) / count
        total += sum(ages[there] - age for age in ages[here + 1 : there + 1]) / count
        here = there
    return total


anything = st.one_of(st.floats(), st.floats(0, 2e5), st.integers(-10, 10**9))
histories = st.lists(st.tuples(anything, anything), max_size=80)
sane = st.lists(
    st.tuples(st.floats(0, 1_000), st.floats(0, 1_000)).map(lambda pair: (min(pair), max(pair))),
    max_size=80,
)


# --- what it learns -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "price"), [(log_normal(30, 0.5), 1.0), (queue_and_run, 1.0), (log_normal(2, 0.4), 0.3)]
)
def test_hundred_waits_are_enough(draw: Draw, price: float):
    """After 100 waits the policy costs at most 1.2 times the optimum."""
    policy, chance = Learned(price, seed=3), random.Random(3)
    durations = sample(draw)
    best = optimum(durations, price)
    untaught = evaluate(policy, durations, price=price).total
    for _ in range(100):
        wait(policy, draw(chance))
    cost = evaluate(policy, durations, price=price).total
    assert cost <= 1.2 * best
    assert cost < untaught
    assert policy.observed == 100


def wait_together(policy: Learned, durations: Sequence[float]) -> float:
    """Wait for images that begin at the same time, as a client does; give the cost of a wait."""
    due = [(0.0, 0.0, 1, number) for number in range(len(durations))]
    cost = 0.0
    while due:
        age, before, looks, number = heapq.heappop(due)
        cost += policy.price
        if age >= durations[number]:
            cost += age - durations[number]
            policy.record(before, age, since=before)
            continue
        if looks > 1:
            policy.follow(before, age)
        delay = max(0.1, policy.next_delay(make_look(age, looks=looks)))
        heapq.heappush(due, (age + delay, age, looks + 1, number))
    return cost / len(durations)


@pytest.mark.parametrize("draw", [queue_and_run, log_normal(200, 0.3)])
def test_images_that_begin_together_teach_too(draw: Draw):
    """The quick ones of a batch do not make the others seem overdue, and the next batch gains."""
    policy, chance = Learned(seed=3), random.Random(3)
    first, second = ([draw(chance) for _ in range(400)] for _ in range(2))
    best = optimum(sample(draw), 1.0)
    assert wait_together(policy, first) < evaluate(Exponential(), first).total
    assert wait_together(policy, second) < 1.2 * best
    assert evaluate(policy, sample(draw)).total < 1.2 * best


@pytest.mark.parametrize(("before", "after"), [(20, 60), (60, 20)])
def test_change_is_followed(before: float, after: float):
    """150 waits after the service's speed changed, the cost is within 1.3 of the new optimum."""
    policy, chance = Learned(seed=4), random.Random(4)
    for _ in range(300):
        wait(policy, log_normal(before, 0.5)(chance))
    for _ in range(150):
        wait(policy, log_normal(after, 0.5)(chance))
    durations = sample(log_normal(after, 0.5))
    assert evaluate(policy, durations).total <= 1.3 * optimum(durations, 1.0)


def test_nothing_learned_is_an_exponential_backoff():
    """Without knowledge pauses grow with the age, from seconds to minutes."""
    ages = preview(Learned(jitter=0), 80_000)
    pauses = [end - start for start, end in pairwise(ages)]
    assert 2 < pauses[0] < 8
    assert all(later > 0.7 * sooner for sooner, later in pairwise(pauses))
    assert max(pauses) > 600
    assert len(preview(Learned(jitter=0), 600)) <= 30


def test_long_waits_are_planned_finely():
    """For images of half an hour, looks come every few seconds when they are due."""
    policy = taught([(1_700, 1_800), (1_800, 1_900)] * 50, jitter=0)
    ages = [age for age in preview(policy, 1_850) if age > 1_750]
    assert max(end - start for start, end in pairwise(ages)) < 30


def test_dear_looks_are_fewer():
    """The higher the price, the fewer the looks and the longer the delay; it may change any time."""
    policy = taught([(10, 12), (14, 18), (25, 30), (7, 9)] * 10, jitter=0)
    costs = []
    for price in (0.3, 1.0, 3.0, 30.0):
        policy.price = price
        costs.append(evaluate(policy, [8, 11, 15, 28], price=price))
    assert all(a.looks > b.looks and a.delay < b.delay for a, b in pairwise(costs))


@given(sane)
def test_plan_costs_no_more_than_the_priors_plan(history: list[tuple[float, float]]):
    """On the distribution that it believes in, what was learned does not make it worse."""
    policy, untaught = taught(history, jitter=0), Learned(jitter=0)
    sums = [0.0, *accumulate(policy._memory.distribution()), 1.0]

    def finished(age: float) -> float:
        """Give the believed share of images that are finished at an age."""
        index, part = place_of(age)
        return sums[index] + part * (sums[index + 1] - sums[index])

    def cost(ages: list[float]) -> float:
        """Give the exact cost, with each bin's mass spread evenly in it."""
        total = 1 + sum(1 - finished(age) for age in ages)
        ages = [*ages, max(EDGES[-1], ages[-1] + 1)]
        for start, end in pairwise(sorted({*EDGES, *ages})):
            delay = ages[bisect_right(ages, start)] - (start + end) / 2
            total += (finished(end) - finished(start)) * delay
        return total

    learned, prior = (cost(preview(each, 86_400)) for each in (policy, untaught))
    assert learned <= 1.01 * prior


# --- delays -------------------------------------------------------------------------------------


@given(histories, st.lists(anything, min_size=1, max_size=5), st.sampled_from([0, 0.1, 0.999]))
def test_delays_are_finite_and_not_negative(history: Any, ages: list[float], jitter: float):
    """Whatever was observed, and whatever the clocks say, the next pause is a number of seconds."""
    policy = taught(history, jitter=jitter, seed=1)
    for age in ages:
        for look in (
            make_look(age),
            make_look(math.nan, elapsed=age),
        ):
            delay = policy.next_delay(look)
            assert math.isfinite(delay)
            assert delay >= 0


@pytest.mark.parametrize("age", [math.nan, math.inf, -math.inf])
def test_age_that_is_none_is_the_elapsed_time(age: float):
    """A clock that makes no sense is replaced by the other one, and at last by 0."""
    policy = Learned(jitter=0)
    usual = policy.next_delay(make_look(20.0))
    assert policy.next_delay(make_look(age, elapsed=20.0)) == usual
    assert policy.next_delay(make_look(age, elapsed=age)) == policy.next_delay(make_look(0.0))


def test_negative_age_is_none():
    """An image of the future is as old as the wait's beginning."""
    policy = Learned(jitter=0)
    assert policy.next_delay(make_look(-5.0)) == policy.next_delay(make_look(0.0))


def test_images_older_than_a_day_are_looked_at_now_and_then():
    """Beyond the grid pauses are a share of the age."""
    policy = Learned(jitter=0)
    assert policy.next_delay(make_look(1e6)) == pytest.approx(2e5)


@given(sane)
def test_without_jitter_it_is_deterministic(history: list[tuple[float, float]]):
    """The same observations make the same schedule, asked once or twice."""
    one, other = taught(history, jitter=0), taught(history, jitter=0)
    assert one == other
    assert preview(one, 300) == preview(one, 300) == preview(other, 300)


def test_seed_makes_jitter_repeatable():
    """Two policies with one seed draw the same, two without one do not."""
    first, second = Learned(seed=7), Learned(seed=7)
    assert preview(first, 300) == preview(second, 300)
    assert preview(Learned(), 300) != preview(Learned(), 300)


def test_jitter_is_even_within_its_bounds():
    """Pauses spread by ± *jitter*, as many of them early as late."""
    policy, plain = Learned(jitter=0.2, seed=2), Learned(jitter=0)
    expected = plain.next_delay(make_look())
    delays = sorted(policy.next_delay(make_look()) for _ in range(2_000))
    assert 0.8 * expected <= delays[0] < 0.81 * expected
    assert 1.19 * expected < delays[-1] <= 1.2 * expected
    assert delays[1_000] == pytest.approx(expected, rel=0.02)


def test_close_looks_are_not_spread_far():
    """A long pause before a close series of looks is spread by the series' own measure."""
    history = [(59.0, 61.0)] * 200
    policy, plain = taught(history, jitter=0.1, seed=2), taught(history, jitter=0)
    expected = plain.next_delay(make_look())
    following = plain.next_delay(make_look(expected))
    assert following < 0.2 * expected
    for _ in range(100):
        assert abs(policy.next_delay(make_look()) - expected) <= 0.1 * following + 1e-9


# --- planning anew ------------------------------------------------------------------------------


def plans_made(policy: Learned, history: Sequence[tuple[float, float]]) -> int:
    """Count the plans that were made, if each observation is followed by a look."""
    made = []
    for earliest, latest in history:
        policy.record(earliest, latest)
        policy.next_delay(make_look())
        if not made or made[-1] is not policy._plan:
            made.append(policy._plan)
    return len(made)


def test_plans_are_made_when_enough_is_new():
    """At first each observation is worth a plan, later only a share of what is known."""
    chance = random.Random(1)
    ages = [log_normal(15, 2)(chance) for _ in range(1_000)]
    history = [(age * 0.9, age * 1.1) for age in ages]
    policy = Learned()
    assert plans_made(policy, history[:5]) == 5
    assert plans_made(policy, history[5:100]) < 25
    assert plans_made(policy, history[100:400]) < 12
    assert plans_made(policy, history[400:]) <= 12


def test_surprises_are_planned_for_at_once():
    """When images suddenly take much longer, no plan waits for dozens of them."""
    policy = taught([(10, 12), (9, 10), (12, 15)] * 200)
    policy.next_delay(make_look())
    before = policy._plan
    for _ in range(4):
        policy.next_delay(make_look())
        assert policy._plan is before
        policy.record(100, 120)
    policy.next_delay(make_look())
    assert policy._plan is not before


def test_another_price_is_planned_for_at_once():
    """The price may be changed while the policy is in use."""
    policy = Learned(jitter=0)
    delay = policy.next_delay(make_look())
    policy.price = 30.0
    assert policy.next_delay(make_look()) > delay
    policy.price = 1.0
    assert policy.next_delay(make_look()) == delay


# --- keeping what was learned -------------------------------------------------------------------


@given(histories, st.floats(1e-3, 1e3), st.floats(0, 0.9))
def test_saving_and_loading_changes_nothing(history: Any, price: float, jitter: float):
    """What comes back is equal, plans the same and learns the same."""
    policy = taught(history, price=price, jitter=jitter)
    policy.next_delay(make_look())
    for earliest, latest in history[:5]:
        policy.record(earliest, latest)
    loaded = Learned.from_json(policy.to_json())
    assert loaded == policy
    assert loaded.to_json() == policy.to_json()
    policy.jitter = loaded.jitter = 0
    for _ in range(2):
        assert preview(loaded, 60) == preview(policy, 60)
        for each in (policy, loaded):
            for earliest, latest in history:
                each.record(earliest, latest)
    assert loaded == policy


def test_text_is_plain_json_without_the_seed():
    """The text says what it is, and may be read by other programs."""
    policy = taught([(10, 12)], price=3, jitter=0.2, seed=5)
    state = json.loads(policy.to_json())
    assert (state["kind"], state["version"]) == ("kokoon_async.Learned", 1)
    assert (state["price"], state["jitter"], state["memory"]["observed"]) == (3, 0.2, 1)
    assert "seed" not in state
    assert Learned.from_json(json.dumps(state), seed=5) == policy


def refused(text: Any) -> None:
    """Check that a text is refused, with a hint."""
    with pytest.raises(ConfigurationError, match=r"not what Learned\.to_json\(\)") as caught:
        Learned.from_json(text)
    assert "Begin anew" in caught.value.hint


def test_truncated_text_is_refused():
    """A file that was cut off anywhere is not taken for a whole one."""
    text = taught([(10, 12)]).to_json()
    for length in [*range(400), *range(400, len(text), 97), len(text) - 1]:
        refused(text[:length])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "0",
        '"kokoon_async.Learned"',
        "{}",
        "not json",
        "[" * 100_000,
        "1" * 5_000,
        b"\xff\xfe",
        None,
        7,
        '{"kind": "kokoon_async.Learned"}',
        '{"kind": "kokoon_async.Learned", "version": 1}',
    ],
    ids=lambda text: repr(text)[-30:].replace("\\", "/"),
)
def test_foreign_text_is_refused(text: Any):
    """Whatever is not JSON, or not this, is one clear error."""
    refused(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "kokoon_async.Fixed"),
        ("version", 2),
        ("version", 0),
        ("version", None),
        ("price", 0),
        ("price", -1.0),
        ("price", math.nan),
        ("price", "1"),
        ("price", None),
        ("jitter", 1),
        ("jitter", [0.1]),
        ("memory", None),
        ("memory", []),
        ("memory", {}),
        ("memory", "observed"),
        ("memory", Memory().to_state() | {"observed": -1}),
        ("memory", Memory().to_state() | {"counts": [[-1.0] * len(EDGES[1:])] * 2}),
    ],
)
def test_wrong_values_are_refused(key: str, value: object):
    """A later version's text, and one with values of a wrong kind, are the same clear error."""
    state = json.loads(Learned().to_json())
    assert key in state
    refused(json.dumps(state | {key: value}))


# --- a value like others ------------------------------------------------------------------------


def test_equal_are_those_that_know_the_same():
    """Settings and observations make two policies equal, not plans and chance."""
    assert Learned() == Learned()
    assert Learned() != Learned(3.0)
    assert Learned() != taught([(10, 12)])
    one, other = taught([(10, 12)] * 5), taught([(10, 12)] * 5)
    assert one == other
    for policy in (one, other):
        policy.next_delay(make_look())
    other.next_delay(make_look())
    assert one == other


def test_repr_says_how_much_it_learned():
    """Settings and the number of waits, but not hundreds of numbers."""
    policy = taught([(10, 12)] * 5, price=3)
    assert repr(policy) == "<Learned(price=3, jitter=0.1, seed=None), 5 waits observed>"


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_it_goes_to_another_process_as_it_is(clone: Callable[[Learned], Learned]):
    """A copy knows the same, draws the same, and then goes its own way."""
    policy = taught([(10, 12)] * 5, seed=1)
    policy.next_delay(make_look())
    twin = clone(policy)
    assert twin == policy
    assert preview(twin, 100) == preview(policy, 100)
    twin.record(50, 60)
    assert twin != policy


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, None, "1", True])
def test_price_is_a_positive_number(value: object):
    """What is no price is refused by name, from the start and later."""
    with pytest.raises(ConfigurationError, match=r"Learned\.price must be"):
        Learned(value)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"Learned\.price must be"):
        Learned().price = value  # type: ignore[assignment]


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan, None])
def test_jitter_is_a_share(value: object):
    """A jitter of 1 or more could make a pause of nothing, and is refused."""
    with pytest.raises(ConfigurationError, match="jitter must be at least 0 and below 1"):
        Learned(jitter=value)  # type: ignore[arg-type]


def test_settings_other_than_the_price_are_named():
    """`Learned(1, 0.1)` does not say what the second number is."""
    with pytest.raises(TypeError):
        Learned(1.0, 0.1)  # type: ignore[misc]
