"""
Whether and when a request is sent again: the policy's numbers, the quota and the decision.
"""

from __future__ import annotations

import math
import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async._http.retry import GiveUp, RetryPolicy, RetryQuota, next_pause
from kokoon_async.errors import (
    ApiError,
    AuthenticationFailed,
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    ImageNotFound,
    InsufficientCredit,
    InvalidRequest,
    KokoonError,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    UnexpectedResponse,
)


POLICY = RetryPolicy()
FAULT = ConnectionFailed("Lost.")
BUSY = RateLimited("Busy.", status=429)


def longest() -> float:
    """Draw the longest pause there is."""
    return 1.0


def decide(
    error: KokoonError,
    *,
    attempts: int = 1,
    left: float = math.inf,
    policy: RetryPolicy = POLICY,
    tokens: int = 500,
) -> tuple[float | GiveUp, int]:
    """Decide with the longest draw; return the decision and the tokens that it took."""
    quota = RetryQuota(tokens)
    pause = next_pause(policy, quota, error, attempts=attempts, left=left, draw=longest)
    return pause, tokens - quota.tokens


# --- the policy -----------------------------------------------------------------------------------


def test_the_default_numbers() -> None:
    """The defaults are these; 500 tokens, at 14 for a retry, are the 35 requests of G6."""
    assert attrs.asdict(POLICY) == {
        "attempts": 3,
        "base": 0.05,
        "throttled_base": 1.0,
        "cap": 20.0,
        "retry_after_cap": 120.0,
        "quota": 500,
        "transient_cost": 14,
        "throttled_cost": 5,
    }


def test_policies_are_values() -> None:
    """Two policies with the same numbers are the same, and can be printed."""
    assert RetryPolicy(attempts=5) == RetryPolicy(attempts=5) != POLICY
    assert len({RetryPolicy(), POLICY}) == 1
    assert "attempts=3" in repr(POLICY)


@pytest.mark.parametrize(
    ("failures", "transient", "throttled"),
    [
        (1, 0.05, 1.0),
        (2, 0.1, 2.0),
        (3, 0.2, 4.0),
        (4, 0.4, 8.0),
        (5, 0.8, 16.0),
        (6, 1.6, 20.0),
        (9, 12.8, 20.0),
        (10, 20.0, 20.0),
        (63, 20.0, 20.0),
        (64, 20.0, 20.0),
        (2_000, 20.0, 20.0),
        (10**400, 20.0, 20.0),
    ],
    ids=lambda value: f"{value:.0f}" if value < 10**9 else "huge",
)
@pytest.mark.fault("F-57")
def test_backoff_doubles_up_to_the_cap(failures: int, transient: float, throttled: float) -> None:
    """With the draw fixed to 1, the pause doubles with each failure until it reaches the cap."""
    assert POLICY.backoff(failures, throttled=False, draw=longest) == pytest.approx(transient)
    assert POLICY.backoff(failures, throttled=True, draw=longest) == pytest.approx(throttled)


@pytest.mark.fault("F-57")
def test_backoff_of_an_extreme_policy_is_finite() -> None:
    """Not even the largest numbers that a policy takes give an infinite pause."""
    policy = RetryPolicy(base=1e308, cap=1e308)
    assert policy.backoff(2_000, throttled=False, draw=longest) == 1e308


@given(
    failures=st.integers(1, 5_000),
    throttled=st.booleans(),
    draw=st.floats(0, 1),
    base=st.floats(0, 1e308),
    cap=st.floats(1e-300, 1e308),
)
def test_backoff_is_never_negative_and_never_above_the_cap(
    failures: int, draw: float, base: float, cap: float, *, throttled: bool
) -> None:
    """Every pause is a finite number from 0 to the cap."""
    policy = RetryPolicy(base=base, throttled_base=base, cap=cap)
    assert 0.0 <= policy.backoff(failures, throttled=throttled, draw=lambda: draw) <= cap


@pytest.mark.fault("F-54")
def test_jitter_is_full_and_even() -> None:
    """Ten thousand pauses fill the whole range from 0, each tenth of it alike (±20 %)."""
    draw = random.Random(20_240_201).random
    pauses = [POLICY.backoff(5, throttled=True, draw=draw) for _ in range(10_000)]
    buckets = [0] * 10
    for pause in pauses:
        buckets[int(pause / 16.0 * 10)] += 1
    assert all(800 <= bucket <= 1_200 for bucket in buckets)


@pytest.mark.fault("F-58")
@pytest.mark.parametrize(
    "numbers",
    [
        *({"attempts": 0}, {"attempts": -1}, {"attempts": 1.5}, {"attempts": True}),
        *({"attempts": None}, {"base": -0.1}, {"base": math.nan}, {"base": "1"}),
        *({"throttled_base": math.inf}, {"cap": 0}, {"cap": None}, {"retry_after_cap": 0}),
        *({"quota": -1}, {"transient_cost": -1}, {"throttled_cost": math.nan}),
    ],
    ids=str,
)
def test_impossible_numbers_are_refused(numbers: dict[str, Any]) -> None:
    """A policy that cannot be meant is refused, by the name of the number."""
    (name,) = numbers
    with pytest.raises(ConfigurationError, match=f"RetryPolicy.{name} must be "):
        RetryPolicy(**numbers)


# --- the quota ------------------------------------------------------------------------------------


def test_the_quota_pays_for_35_retries_in_an_outage() -> None:
    """Where everything fails, 500 tokens buy 35 retries after faults, 100 after 429s (E2)."""
    quota = RetryQuota(POLICY.quota)
    assert sum(quota.take(POLICY.cost(throttled=False)) for _ in range(1_000)) == 35
    assert quota.tokens == 10
    quota = RetryQuota(POLICY.quota)
    assert sum(quota.take(POLICY.cost(throttled=True)) for _ in range(1_000)) == 100


def test_the_quota_fills_again_by_successes() -> None:
    """A success without a retry brings back one token, and never more than there were."""
    quota = RetryQuota(10)
    assert quota.take(10)
    assert not quota.take(1)
    quota.give_back(1)
    assert quota.tokens == 1
    quota.give_back(10_000)
    assert quota.tokens == 10


@given(
    st.integers(0, 500),
    st.lists(st.tuples(st.sampled_from(["take", "give_back"]), st.integers(0, 600)), max_size=50),
)
def test_the_quota_stays_within_its_bounds(size: int, steps: list[tuple[str, int]]) -> None:
    """Whatever happens: 0 <= tokens <= size, and what is refused costs nothing."""
    quota = RetryQuota(size)
    for step, tokens in steps:
        before = quota.tokens
        result = getattr(quota, step)(tokens)
        if step == "take":
            assert result == (tokens <= before)
            assert quota.tokens == (before - tokens if result else before)
        else:
            assert quota.tokens == min(size, before + tokens)
        assert 0 <= quota.tokens <= size


# --- the decision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempts", "pause", "cost"),
    [
        (FAULT, 1, 0.05, 14),
        (FAULT, 2, 0.1, 14),
        (RequestTimedOut("Late."), 1, 0.05, 14),
        (ProtocolError("Cut."), 1, 0.05, 14),
        (ServerError("Down.", status=500), 1, 0.05, 14),
        (ServerError("Down.", status=408), 1, 0.05, 14),
        (ServerError("Down.", status=503), 2, 0.1, 14),
        (ServerError("Down.", status=503, retry_after=0.0), 1, 1.0, 5),
        (ServerError("Down.", status=503, retry_after=7.0), 1, 7.0, 5),
        (ServerError("Down.", status=502, retry_after=7.0), 1, 7.0, 14),
        (BUSY, 1, 1.0, 5),
        (BUSY, 2, 2.0, 5),
        (RateLimited("Busy.", status=429, retry_after=0.5), 1, 1.0, 5),
        (RateLimited("Busy.", status=429, retry_after=120.0), 1, 120.0, 5),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_what_may_pass_is_tried_again(
    error: KokoonError, attempts: int, pause: float, cost: int
) -> None:
    """The pause is the backoff or the server's hint, whichever is longer; the quota pays."""
    assert decide(error, attempts=attempts) == (pytest.approx(pause), cost)


@pytest.mark.parametrize(
    "error",
    [
        *(KokoonError(), ApiError(status=200), AuthenticationFailed(status=401)),
        *(ImageNotFound(status=404), InvalidRequest(status=422), InsufficientCredit(status=402)),
        *(ServerError(status=501), ServerError(status=507, retry_after=1.0)),
        *(UnexpectedResponse(status=200), ConnectionFailed(is_lasting=True)),
        *(ClientClosed(), ConfigurationError()),
    ],
    ids=repr,
)
def test_what_does_not_pass_is_not_tried_again(error: KokoonError) -> None:
    """There is nothing to explain: the error itself says why trying again cannot help."""
    assert decide(error) == (GiveUp(""), 0)


@pytest.mark.fault("F-49")
def test_one_attempt_means_one_request() -> None:
    """With one attempt allowed, even a passing fault is reported as it is, and costs nothing."""
    assert decide(FAULT, policy=RetryPolicy(attempts=1)) == (GiveUp(""), 0)


@pytest.mark.parametrize(("allowed", "attempts"), [(2, 2), (3, 3), (3, 4), (3, 2_000)])
def test_the_attempts_run_out(allowed: int, attempts: int) -> None:
    """After the last attempt allowed, the reason says how many there were."""
    decision = decide(FAULT, attempts=attempts, policy=RetryPolicy(attempts=allowed))
    assert decision == (GiveUp(f"it failed {attempts} times in a row"), 0)


@pytest.mark.fault("F-51")
@pytest.mark.parametrize("hint", [120.001, 121.0, 604_800.0])
def test_a_hint_longer_than_the_cap_ends_the_call_at_once(hint: float) -> None:
    """A hint is never shortened: too long a one means no retry, and no token is spent."""
    error = RateLimited("Busy.", status=429, retry_after=hint)
    assert decide(error) == (GiveUp(f"the server asked for a pause of {hint:.0f} s"), 0)


@pytest.mark.fault("F-51")
@pytest.mark.parametrize(
    ("error", "left", "pause"),
    [
        (RateLimited("Busy.", status=429, retry_after=30.0), 30.0, "30.0"),
        (RateLimited("Busy.", status=429, retry_after=30.0), 0.0, "30.0"),
        (ServerError("Down.", status=503, retry_after=9.96), 9.0, "10.0"),
        (FAULT, 0.05, "0.1"),
        (FAULT, -1.0, "0.1"),
        (BUSY, 1.0, "1.0"),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_nobody_sleeps_only_to_fail(error: KokoonError, left: float, pause: str) -> None:
    """If the pause would reach the call's deadline, the call ends now."""
    reason = f"its time would be over before the next attempt, {pause} s from now"
    assert decide(error, left=left) == (GiveUp(reason), 0)


@pytest.mark.fault("F-51")
def test_a_pause_that_just_fits_is_made() -> None:
    """As long as any time is left after the pause, there is another attempt."""
    assert decide(RateLimited(status=429, retry_after=30.0), left=30.001) == (30.0, 5)


@pytest.mark.fault("F-48")
@pytest.mark.parametrize(("error", "tokens"), [(FAULT, 13), (BUSY, 4), (FAULT, 0)])
def test_an_empty_quota_ends_retries(error: KokoonError, tokens: int) -> None:
    """Without the tokens for a retry there is none, and what is left stays."""
    reason = "too many requests fail: the client's quota of retries is used up"
    assert decide(error, tokens=tokens) == (GiveUp(reason), 0)


def test_the_last_tokens_count() -> None:
    """A quota that just suffices does."""
    assert decide(FAULT, tokens=14) == (pytest.approx(0.05), 14)


def test_the_draw_is_random_by_default() -> None:
    """Left to itself, the pause is drawn anew each time."""
    quota = RetryQuota(10_000)
    pauses = {next_pause(POLICY, quota, BUSY, attempts=1, left=math.inf) for _ in range(20)}
    assert len(pauses) > 15


hint_values = st.none() | st.floats(0, 604_800)
retryable = (
    st.just(FAULT)
    | st.builds(RateLimited, status=st.just(429), retry_after=hint_values)
    | st.builds(
        ServerError, status=st.sampled_from([408, 425, 500, 502, 503, 504]), retry_after=hint_values
    )
)


@given(retryable, st.integers(1, 5_000), st.floats(-10, 100), st.integers(0, 30), st.floats(0, 1))
def test_every_decision_keeps_the_promises(
    error: Any, attempts: int, left: float, tokens: int, draw: float
) -> None:
    """A pause is finite, not below the hint, within time and paid for; giving up is free."""
    quota = RetryQuota(tokens)
    pause = next_pause(POLICY, quota, error, attempts=attempts, left=left, draw=lambda: draw)
    if isinstance(pause, GiveUp):
        assert quota.tokens == tokens
        return
    hint = getattr(error, "retry_after", None)
    assert 0.0 <= pause < left
    assert hint is None or hint <= pause
    assert pause <= max(POLICY.cap, hint or 0.0)
    assert attempts < POLICY.attempts
    assert tokens - quota.tokens in (5, 14)
