"""The policies are plain arithmetic: how long to pause between looks."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async import AgeProportional, ConfigurationError, Exponential, Fixed, Look
from kokoon_async.models import ImageState


POLICIES = (Fixed, Exponential, AgeProportional)


def make_look(*, age: float = 0.0, elapsed: float = 0.0, looks: int = 1) -> Look:
    """Say that so many looks have been made."""
    return Look(age, elapsed, looks, ImageState.PROCESSING)


durations = st.floats(1e-6, 1e9)
looks = st.builds(
    Look,
    age=st.floats(0, 1e300),
    elapsed=st.floats(0, 1e300),
    looks=st.integers(0, 10**400),
    state=st.builds(ImageState, st.text()),
)
jitters = st.floats(0, 0.999)
policies = st.one_of(
    st.builds(Fixed, durations, jitter=jitters),
    st.builds(
        lambda least, factor, more, jitter: Exponential(least, factor, least + more, jitter=jitter),
        durations,
        st.floats(1, 1e300),
        durations,
        jitters,
    ),
    st.builds(
        lambda fraction, least, more, jitter: AgeProportional(
            fraction, least, least + more, jitter=jitter
        ),
        durations,
        durations,
        durations,
        jitters,
    ),
)


# --- the tables ---------------------------------------------------------------------------------


def test_fixed_pauses_the_same_after_every_look():
    """`Fixed` knows nothing but its interval."""
    policy = Fixed(3.0, jitter=0)
    given = [make_look(looks=1), make_look(looks=1000, age=1e6), make_look(elapsed=1e6)]
    assert [policy.next_delay(look) for look in given] == [3.0, 3.0, 3.0]


def test_exponential_pauses_grow_to_the_maximum():
    """Each pause is *factor* times the last, and none is longer than *maximum*."""
    policy = Exponential(1.0, 1.5, 20.0, jitter=0)
    pauses = [policy.next_delay(make_look(looks=n)) for n in range(1, 11)]
    assert pauses[:7] == [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625]
    assert pauses[7:] == [1.5**7, 20.0, 20.0]


def test_exponential_starts_before_any_look_was_counted():
    """Asked before the first look, it gives the first pause."""
    assert Exponential(2.0, jitter=0).next_delay(make_look(looks=0)) == 2.0


@pytest.mark.fault("F-57")
@pytest.mark.parametrize("looks", [2_000, 10**6, 10**400])
@pytest.mark.parametrize("policy", [Exponential(jitter=0), Exponential(1e-9, 1e300, jitter=0)])
def test_exponential_does_not_overflow(policy: Exponential, looks: int):
    """After thousands of looks, and even of impossibly many, the pause is the maximum."""
    with pytest.raises(OverflowError):
        policy.factor**looks
    assert policy.next_delay(make_look(looks=looks)) == 20.0


@pytest.mark.parametrize("factor", [1, 2])
def test_exponential_takes_whole_numbers(factor: int):
    """A whole factor makes no number of millions of digits."""
    policy = Exponential(1, factor, 8, jitter=0)
    expected = {1: [1, 1, 1], 2: [1, 4, 8]}[factor]
    assert [policy.next_delay(make_look(looks=n)) for n in (1, 3, 10**9)] == expected


@pytest.mark.parametrize(
    ("age", "pause"), [(0, 0.5), (3, 0.5), (4, 0.6), (20, 3.0), (100, 15.0), (1e12, 15.0)]
)
def test_age_proportional_pauses_for_a_share_of_the_age(age: float, pause: float):
    """A share of the age, with a least and a longest pause; other numbers do not matter."""
    policy = AgeProportional(jitter=0)
    for look in (make_look(age=age), make_look(age=age, elapsed=7.0, looks=99)):
        assert policy.next_delay(look) == pytest.approx(pause)


def test_defaults_are_the_designs():
    """The defaults are those of the design's page on polling."""
    assert Fixed() == Fixed(interval=2.0, jitter=0.1)
    assert Exponential() == Exponential(initial=1.0, factor=1.5, maximum=20.0, jitter=0.1)
    assert AgeProportional() == AgeProportional(
        fraction=0.15, minimum=0.5, maximum=15.0, jitter=0.1
    )


# --- jitter -------------------------------------------------------------------------------------


@pytest.mark.fault("F-54")
@pytest.mark.parametrize("policy", [Fixed(10, jitter=0.3), Exponential(10, jitter=0.3)])
def test_jitter_is_even_within_its_bounds(policy: Any):
    """Pauses spread by ± *jitter*, as many of them early as late."""
    policy._random.seed(1)  # or once in a hundred runs the draws are less even than this
    pauses = sorted(policy.next_delay(make_look()) for _ in range(10_000))
    assert 7.0 <= pauses[0] < 7.01
    assert 12.99 < pauses[-1] <= 13.0
    for share in range(1, 10):
        assert pauses[share * 1_000] == pytest.approx(7.0 + 0.6 * share, abs=0.1)


@pytest.mark.fault("F-54")
def test_policies_do_not_march_in_step():
    """Two policies with the same settings draw different pauses: each has its own chance."""
    first, second = Fixed(), Fixed()
    assert first == second
    drawn = [[policy.next_delay(make_look()) for _ in range(5)] for policy in (first, second)]
    assert drawn[0] != drawn[1]


@given(policies, looks)
def test_delays_are_finite_and_not_negative(policy: Any, look: Look):
    """Whatever a wait has been through, the next pause is a finite number, zero or more."""
    delay = policy.next_delay(look)
    assert math.isfinite(delay)
    assert delay >= 0


@given(policies, looks)
def test_without_jitter_a_policy_is_deterministic(policy: Any, look: Look):
    """Asked twice about the same look, a policy without jitter gives the same answer."""
    policy.jitter = 0
    assert policy.next_delay(look) == policy.next_delay(look)


# --- arguments ----------------------------------------------------------------------------------

NOT_POSITIVE = [0, -1.0, math.nan, math.inf, None, "1", True]


@pytest.mark.fault("F-58")
@pytest.mark.parametrize("value", NOT_POSITIVE)
@pytest.mark.parametrize(
    ("policy", "argument"),
    [
        (Fixed, "interval"),
        (Exponential, "initial"),
        (Exponential, "factor"),
        (Exponential, "maximum"),
        (AgeProportional, "fraction"),
        (AgeProportional, "minimum"),
        (AgeProportional, "maximum"),
    ],
)
def test_seconds_and_factors_are_positive_numbers(policy: Any, argument: str, value: object):
    """What is no positive finite number is refused, by the argument's name."""
    with pytest.raises(ConfigurationError, match=f"{policy.__name__}.{argument} must be"):
        policy(**{argument: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan, None, "0", False])
@pytest.mark.parametrize("policy", POLICIES)
def test_jitter_is_a_share(policy: Any, value: object):
    """A jitter of 1 or more could make a pause of nothing, and is refused."""
    with pytest.raises(ConfigurationError, match="jitter must be at least 0 and below 1"):
        policy(jitter=value)


def test_exponential_does_not_shrink():
    """A factor below 1 would end in a flood of looks."""
    with pytest.raises(ConfigurationError, match=r"Exponential\.factor must be 1 or more, not 0.9"):
        Exponential(factor=0.9)


@pytest.mark.parametrize(
    ("policy", "lower"), [(Exponential, "initial"), (AgeProportional, "minimum")]
)
def test_bounds_do_not_contradict_each_other(policy: Any, lower: str):
    """A longest pause below the shortest is refused, rather than one of them ignored."""
    with pytest.raises(
        ConfigurationError,
        match=rf"{policy.__name__}\.maximum \(.*\) must not be below {lower} \(30\)",
    ):
        policy(**{lower: 30})
    assert policy(**{lower: 30, "maximum": 30}).maximum == 30


def test_jitter_is_named():
    """`Fixed(2, 0.1)` does not say what the second number is."""
    with pytest.raises(TypeError):
        Fixed(2.0, 0.1)  # type: ignore[misc]


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_printed_and_compared_by_their_settings(policy: Any):
    """The repr is code that makes an equal policy, and says nothing of chance."""
    default = policy()
    default.next_delay(make_look())
    assert eval(repr(default), {policy.__name__: policy}) == default
    assert "random" not in repr(default)
    assert policy(jitter=0.2) != default


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_can_be_pickled(policy: Any):
    """A policy goes to another process as it is."""
    assert pickle.loads(pickle.dumps(policy(jitter=0.2))) == policy(jitter=0.2)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_do_not_learn(policy: Any):
    """Being told when an image finished changes nothing, and is no error."""
    told = policy(jitter=0)
    told.record(1.0, math.inf)
    assert told == policy(jitter=0)
    assert told.next_delay(make_look()) == policy(jitter=0).next_delay(make_look())
