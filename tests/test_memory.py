"""What is known of how long images take: intervals in, a distribution out."""

from __future__ import annotations

import json
import math
import operator
import random
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async.polling.grid import BINS, EDGES, blurred, place_of
from kokoon_async.polling.memory import Memory, _prior


ages = st.one_of(st.floats(0, 2e5), st.sampled_from([*EDGES[:3], *EDGES[-3:], 1e300]))
absurd = st.floats()  # negative, infinite, not a number
observations = st.lists(st.tuples(st.one_of(ages, absurd), st.one_of(ages, absurd)), max_size=150)


def memory_of(*observed: tuple[float, float], times: int = 1) -> Memory:
    """Learn from observations."""
    memory = Memory()
    for _ in range(times):
        for earliest, latest in observed:
            memory.add(earliest, latest)
    return memory


def share_between(memory: Memory, earliest: float, latest: float) -> float:
    """Give what is believed of the bins that lie in an interval."""
    masses = memory.distribution()
    return sum(
        mass
        for (start, end), mass in zip(pairwise(EDGES), masses, strict=True)
        if start >= earliest and end <= latest
    )


def watch(memory: Memory, duration: float, *, every: float = 1.15) -> None:
    """Look at an image at ages in a fixed ratio, and ask now and then what is believed."""
    age = 1.0
    while age < duration:
        age *= every
    memory.add(age / every if age > 1.0 else 0.0, age)
    if memory.unread >= 60 or memory.is_surprised:
        memory.distribution()


# --- the grid -----------------------------------------------------------------------------------


def test_grid_spans_a_day():
    """Bins are narrow where images finish, and there are few enough to be planned with."""
    assert EDGES[0] == 0.0
    assert EDGES[1] <= 0.25
    assert 86_400 <= EDGES[-1] < 100_000
    assert all(b / a <= 1.051 for a, b in pairwise(EDGES[1:]))
    assert len(EDGES) == BINS + 1 < 300


@pytest.mark.parametrize("index", [0, 1, 100, BINS - 1])
def test_place_is_bin_and_part(index: int):
    """An age's place tells its bin, and how much of the bin lies below."""
    start, end = EDGES[index], EDGES[index + 1]
    assert place_of(start) == (index, 0.0)
    assert place_of(start + 0.25 * (end - start)) == (index, pytest.approx(0.25))


@pytest.mark.parametrize("age", [EDGES[-1], 1e6, 1e308, math.inf])
def test_place_beyond_the_grid_is_its_end(age: float):
    """Whatever is older than the grid counts as just that."""
    assert place_of(age) == (BINS, 0.0)


@given(ages, ages)
def test_places_are_in_order(one: float, other: float):
    """The older of two ages has no lower place."""
    assert (one <= other) <= (sum(place_of(one)) <= sum(place_of(other)))


@given(st.lists(st.floats(0, 1e3), min_size=60, max_size=60), st.floats(0.1, 9))
def test_blurring_moves_mass_and_makes_none(masses: list[float], width: float):
    """What is blurred stays positive, and loses only what leaves at the ends."""
    result = blurred(masses, width)
    assert min(result) >= 0
    assert sum(result) <= sum(masses) * (1 + 1e-9)


@pytest.mark.parametrize("width", [0.1, 1.0, 4.0])
def test_blur_is_as_wide_as_it_says(width: float):
    """A single mass is spread evenly to both sides, with *width* as standard deviation."""
    result = blurred([0.0] * 100 + [1.0] + [0.0] * 100, width)
    assert sum(result) == pytest.approx(1)
    assert sum(k * mass for k, mass in enumerate(result)) == pytest.approx(100)
    assert sum((k - 100) ** 2 * mass for k, mass in enumerate(result)) == pytest.approx(width**2)


# --- observations -------------------------------------------------------------------------------


def test_nothing_learned_is_a_broad_guess():
    """Without observations all of the vendor's samples are likely, and a day not impossible."""
    masses = Memory().distribution()
    assert sum(masses) == pytest.approx(1)
    assert min(masses) > 0
    below = list(accumulate(masses))
    assert 0.2 < below[place_of(7)[0]] < 0.5 < below[place_of(100)[0]] < 0.9


def test_the_guess_is_even_around_its_median_on_a_logarithmic_scale():
    """It has the weight of two images, its median at 15 s, and a factor of seven as its spread."""
    guess = _prior()
    assert sum(guess) == pytest.approx(2)
    logs = [math.log((start + end) / 2) for start, end in pairwise(EDGES)]
    mean = sum(map(operator.mul, guess, logs)) / 2
    assert math.exp(mean) == pytest.approx(15, rel=0.15)
    variance = sum(mass * (log - mean) ** 2 for mass, log in zip(guess, logs, strict=True)) / 2
    assert math.exp(math.sqrt(variance)) == pytest.approx(7, rel=0.15)


def test_what_is_beyond_the_grid_counts_in_its_last_bin():
    """Each of several images that took more than a day counts, and so do the others with them."""
    memory = memory_of((1e6, 2e6), (1e6, 2e6), (19.0, 21.0))
    memory.distribution()
    for counts in memory._counts:
        assert counts[-1] == pytest.approx(2, rel=0.1)
        assert sum(counts[place_of(18)[0] : place_of(22)[0]]) == pytest.approx(1, rel=0.1)


@given(observations)
def test_masses_are_probabilities_whatever_was_observed(history: list[tuple[float, float]]):
    """No mass is ever negative or no number, and they add up to 1."""
    masses = memory_of(*history).distribution()
    assert len(masses) == BINS
    assert all(0 <= mass <= 1 for mass in masses)
    assert sum(masses) == pytest.approx(1)


@pytest.mark.parametrize(
    "nonsense",
    [
        (-1.0, 5.0),
        (5.0, 5.0),
        (6.0, 5.0),
        (math.nan, 5.0),
        (5.0, math.nan),
        (math.inf, math.inf),
        (-math.inf, math.inf),
    ],
)
def test_nonsense_is_left_out(nonsense: tuple[float, float]):
    """A clock that jumped does not spoil the memory."""
    assert memory_of(nonsense) == Memory()
    assert memory_of(nonsense).observed == 0


@pytest.mark.parametrize(
    ("earliest", "latest"),
    [
        (0.0, 0.1),  # inside the first bin
        (0.0, 1e-300),
        (0.0, 20.0),
        (10.0, 10.001),  # inside one bin
        (10.0, 12.0),
        (86_000.0, 1e9),
        (1e6, 2e6),  # beyond the grid
    ],
)
def test_observation_is_one_count_inside_its_interval(earliest: float, latest: float):
    """Each observation counts once, and nowhere outside of the bins that it touches."""
    memory = memory_of((earliest, latest))
    memory.distribution()
    first = min(place_of(earliest)[0], BINS - 1)
    last = min(place_of(latest)[0], BINS - 1)
    for counts, risks, span in zip(memory._counts, memory._risks, (60, 600), strict=True):
        assert sum(counts) == pytest.approx(1, rel=1 / span)
        assert sum(counts[first : last + 1]) == sum(counts)
        assert risks[: first + 1] == pytest.approx([span * (1 - math.exp(-1 / span))] * (first + 1))
        assert max(risks[last + 1 :], default=0.0) < 1e-9


@pytest.mark.parametrize(
    ("since", "until", "whole"),
    [
        (0.0, 20.0, range(place_of(20.0)[0])),
        (10.0, 20.0, range(place_of(10.0)[0] + 1, place_of(20.0)[0])),
        (1e4, 1e9, range(place_of(1e4)[0] + 1, BINS)),
    ],
)
def test_images_that_are_waited_for_are_at_risk(since: float, until: float, whole: range):
    """One that was unfinished all the time counts in each bin between, and finished in none."""
    memory = Memory()
    memory.follow(since, until)
    memory.distribution()
    assert memory.observed == memory.unread == 0
    for counts, risks, span in zip(memory._counts, memory._risks, (60, 600), strict=True):
        assert not any(counts)
        assert risks[whole.start : whole.stop] == pytest.approx(
            [span * (1 - math.exp(-1 / span))] * len(whole), rel=1e-6
        )
        length = min(until, EDGES[-1]) - since
        covered = [
            -span * math.log1p(-risk / span) * (end - start)
            for risk, (start, end) in zip(risks, pairwise(EDGES), strict=True)
        ]
        assert sum(covered) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("latest", [22.0, math.inf])
def test_a_wait_that_was_followed_counts_as_one_that_was_not(latest: float):
    """Told look by look or at the end only, it is the same lesson."""
    at_once, followed = memory_of((20.0, latest)), Memory()
    for since, until in pairwise([0.0, 1.3, 7.0, 20.0]):
        followed.follow(since, until)
    followed.add(20.0, latest, since=20.0)
    assert followed.distribution() == pytest.approx(at_once.distribution())
    for one, other in zip(followed._risks, at_once._risks, strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize(
    "nonsense",
    [(-1.0, 5.0), (5.0, 5.0), (6.0, 5.0), (math.nan, 5.0), (5.0, math.nan), (5.0, math.inf)],
)
def test_nonsense_is_not_followed(nonsense: tuple[float, float]):
    """A clock that jumped does not spoil the memory between two looks either."""
    memory = Memory()
    memory.follow(*nonsense)
    memory.add(5.0, 6.0, since=nonsense[0] if nonsense[0] > 5 else math.nan)
    assert memory == Memory()


def test_those_that_wait_still_outweigh_the_quick_ones():
    """Of 100 images that began together and are 30 s old, 5 finished: the others are not overdue."""
    memory = Memory()
    for number in range(100):
        for since, until in pairwise([0.1, 5.0, 10.0, 20.0, 30.0]):
            if number < 5 and until == 20.0:
                memory.add(since, until, since)
                break
            memory.follow(since, until)
    assert share_between(memory, 30, math.inf) > 0.8
    assert share_between(memory_of((10.0, 20.0), times=5), 30, math.inf) < 0.3


def test_ages_of_which_nothing_new_is_heard_are_not_forgotten():
    """After a thousand images that were first seen at an age of 60 s, the early ages are known."""
    memory = memory_of((20.0, 22.0), (20.0, 22.0), (90.0, 99.0), times=100)
    before = share_between(memory, 0, 40)
    for _ in range(1_000):
        memory.add(95.0, 99.0, since=60.0)
    assert before > 0.5
    assert share_between(memory, 0, 40) == pytest.approx(before, abs=0.05)


def test_count_is_spread_as_is_believed():
    """Where images are known to finish at 20 s, one of 10 to 40 s finished near 20 s."""
    memory = memory_of((19.0, 21.0), times=100)
    memory.distribution()
    before = [sum(counts) for counts in memory._counts]
    near = [sum(counts[place_of(18)[0] : place_of(22)[0]]) for counts in memory._counts]
    memory.add(10.0, 40.0)
    memory.distribution()
    for counts, old, old_near, span in zip(memory._counts, before, near, (60, 600), strict=True):
        fade = math.exp(-1 / span)
        assert sum(counts) == pytest.approx(fade * old + 1, rel=0.02)
        assert sum(counts[place_of(18)[0] : place_of(22)[0]]) > fade * old_near + 0.8


def test_a_wait_given_up_says_that_images_take_longer():
    """An observation without an end moves belief to later ages."""
    before = share_between(Memory(), 60, math.inf)
    assert share_between(memory_of((60.0, math.inf), times=3), 60, math.inf) > before + 0.2


def test_distribution_is_learned_from_intervals():
    """From looks at ages far apart the distribution is known between them."""
    memory, chance = Memory(), random.Random(5)
    for _ in range(500):
        watch(memory, chance.lognormvariate(math.log(30), 0.5), every=1.3)
    for age, expected in ((15.8, 0.1), (21.4, 0.25), (30, 0.5), (42, 0.75), (57, 0.9)):
        assert share_between(memory, 0, age) == pytest.approx(expected, abs=0.06)


def test_narrow_distributions_are_not_blurred_away():
    """If all images take the same time, that is what is believed in the end."""
    memory, chance = Memory(), random.Random(5)
    for _ in range(300):
        watch(memory, chance.gauss(60, 1), every=1.05)
    assert share_between(memory, 52, 69) > 0.9


def test_few_samples_are_no_comb():
    """After few observations the ages between them are likely too."""
    memory = Memory()
    for duration in (10, 14, 20, 28, 40):
        memory.add(duration * 0.99, duration * 1.01)
    masses = memory.distribution()
    inside = masses[place_of(11)[0] : place_of(36)[0]]
    assert max(inside) < 5 * min(inside)


def test_observations_are_learned_even_if_nobody_asks():
    """What waits to be learned does not pile up."""
    memory = memory_of((10.0, 12.0), times=1_000)
    assert memory.observed == memory.unread == 1_000
    assert len(memory._pending) < 100
    memory.distribution()
    assert memory.unread == 0


# --- change -------------------------------------------------------------------------------------


def test_slower_service_is_followed():
    """After 20 s became 60 s, 150 observations outweigh the 600 before."""
    memory, chance = Memory(), random.Random(5)
    for _ in range(600):
        watch(memory, chance.lognormvariate(math.log(20), 0.3))
    assert share_between(memory, 0, 30) > 0.85
    for _ in range(150):
        watch(memory, chance.lognormvariate(math.log(60), 0.3))
    assert share_between(memory, 40, 90) > 0.55


def test_steady_service_is_remembered_for_long():
    """While nothing changes, the long memory's counts are what is believed."""
    memory, chance = Memory(), random.Random(5)
    for _ in range(600):
        watch(memory, chance.lognormvariate(math.log(20), 0.3))
    memory.distribution()
    short, long = memory._span_merits
    assert short - long < math.log(4.5)


@pytest.mark.parametrize("duration", [5.0, 60.0])
def test_change_is_a_surprise(duration: float):
    """A few images in a row that are all far too early, or too late, are told of at once."""
    memory, chance = Memory(), random.Random(5)
    for _ in range(300):
        watch(memory, chance.lognormvariate(math.log(20), 0.3))
    memory.distribution()
    for count in range(5):
        assert memory.is_surprised == (count >= 4)
        memory.add(duration * 0.95, duration * 1.05)
    memory.distribution()
    assert not memory.is_surprised


def test_the_usual_is_no_surprise():
    """While nothing changes, alarms are rare."""
    memory, chance = Memory(), random.Random(5)
    alarms = 0
    for _ in range(1_000):
        duration = chance.lognormvariate(math.log(20), 0.3)
        memory.add(duration * 0.95, duration * 1.05)
        if memory.is_surprised or memory.unread >= 60:
            alarms += memory.is_surprised
            memory.distribution()
    assert alarms <= 5


def test_ten_million_observations_leave_it_working():
    """Counts stay bounded: nothing grows, overflows or vanishes, and change is still followed."""
    memory = Memory(observed=10_000_000)
    for _ in range(6_000):  # as long as the memory lasts, ten times over
        memory.add(10.0, 12.0)
        memory.follow(0.0, 1e5)
        memory.add(1e5, math.inf, since=1e5)
    for risks, span in zip(memory._risks, (60, 600), strict=True):
        assert max(risks) == pytest.approx(span)
        assert min(risks) > 0.9 * span
    for counts, span in zip(memory._counts, (60, 600), strict=True):
        assert sum(counts) == pytest.approx(span / 2, rel=0.3)
    for _ in range(640):
        memory.add(3.0, 4.0)
    assert share_between(memory, 2, 6) > 0.9
    assert memory.observed == 10_012_640


# --- keeping it ---------------------------------------------------------------------------------


@given(observations, observations)
def test_saving_and_loading_changes_nothing(
    history: list[tuple[float, float]], future: list[tuple[float, float]]
):
    """What went through JSON is equal, believes the same, and learns the same from then on."""
    memory = memory_of(*history)
    loaded = Memory.from_state(json.loads(json.dumps(memory.to_state())))
    assert loaded == memory
    for earliest, latest in future:
        memory.add(earliest, latest)
        loaded.add(earliest, latest)
    assert loaded.distribution() == memory.distribution()
    assert loaded == memory


def test_state_is_a_copy():
    """What was saved does not change with the memory."""
    memory = memory_of((10.0, 12.0))
    state = memory.to_state()
    kept = json.dumps(state)
    memory.add(30.0, 40.0)
    memory.distribution()
    assert json.dumps(state) == kept


def test_memories_differ_by_what_they_know():
    """Equal are those with the same knowledge, whatever they were asked."""
    one, other = memory_of((10.0, 12.0)), memory_of((10.0, 12.0))
    assert one == other != memory_of((10.0, 13.0))
    one.distribution()
    other.distribution()
    other.distribution()
    assert one == other


def replaced(path: list[Any], value: Any) -> dict[str, Any]:
    """Give a good state with one value replaced."""
    state = memory_of((10.0, 12.0), (0.0, 3.0)).to_state()
    *most, last = path
    inner: Any = state
    for key in most:
        inner = inner[key]
    inner[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["observed"], -1),
        (["observed"], 1.0),
        (["observed"], True),
        (["observed"], None),
        (["grid"], [0.25, 1.1, BINS]),
        (["spans"], [60, 300]),
        (["widths"], [1, 2]),
        (["counts"], None),
        (["counts"], []),
        (["counts"], ["", ""]),
        (["counts", 0], [0.0] * (BINS - 1)),
        (["counts", 0], dict.fromkeys(map(str, range(BINS)), 0.0)),
        (["counts", 1, 7], -1e-9),
        (["counts", 1, 7], math.nan),
        (["counts", 1, 7], math.inf),
        (["counts", 1, 7], 1e9),
        (["counts", 1, 7], 10**400),
        (["counts", 1, 7], "1"),
        (["counts", 1, 7], True),
        (["counts", 1, 7], None),
        (["risks", 1, 7], -1e-9),
        (["risks"], []),
        (["span_merits"], [0.0]),
        (["span_merits", 0], 1e300),
        (["width_merits", 2], math.nan),
        (["width_merits", 2], [0.0]),
    ],
)
def test_what_is_no_memory_is_refused(path: list[Any], value: object):
    """Each value is checked: a memory that was read works like one that learned."""
    with pytest.raises((ValueError, TypeError)):
        Memory.from_state(replaced(path, value))


@pytest.mark.parametrize("key", sorted(Memory().to_state()))
def test_what_is_missing_is_refused(key: str):
    """No part of a memory is guessed."""
    state = Memory().to_state()
    del state[key]
    with pytest.raises(KeyError):
        Memory.from_state(state)
