"""The cheapest schedule for a known distribution: exact, on ages that are fine enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async.polling.planning import Ladder, Plan, cheapest_next, cut_finer, mean_pause


prices = st.floats(0.01, 100)


@attrs.frozen
class Grid:
    """A distribution on a few ages."""

    ages: list[float]
    masses: list[float]

    @property
    def middles(self) -> list[float]:
        """Give the middle age of each bin."""
        return [0.0, *((a + b) / 2 for a, b in pairwise(self.ages))]

    def cost(self, choices: Sequence[int], price: float, *, start: int = 0) -> float:
        """Add up price and delay of a schedule, look by look."""
        total, here = 0.0, start
        while here < len(self.ages) - 1:
            there = choices[here]
            total += price * sum(self.masses[here + 1 :])
            for index in range(here + 1, there + 1):
                total += self.masses[index] * (self.ages[there] - self.middles[index])
            here = there
        return total

    def cheapest(self, price: float) -> list[float]:
        """Give the least cost from each age on, by trying all next ages."""
        last = len(self.ages) - 1
        least = [0.0] * (last + 1)
        for here in range(last - 1, -1, -1):
            direct = [self.cost([there] * (last + 1), price, start=here) for there in [last]]
            for there in range(here + 1, last):
                jump = Grid(self.ages[: there + 1], self.masses[: there + 1])
                delay = jump.cost([there] * (there + 1), 0.0, start=here)
                direct.append(delay + price * sum(self.masses[here + 1 :]) + least[there])
            least[here] = min(direct)
        return least


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Make small grids, some with empty bins."""
    steps = draw(st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
    weight = st.one_of(st.just(0.0), st.floats(0.001, 1))
    weights = draw(st.lists(weight, min_size=len(steps), max_size=len(steps)))
    total = sum(weights)
    masses = [mass / total for mass in weights] if total else [1 / len(steps)] * len(steps)
    return Grid([0.0, *accumulate(steps)], [0.0, *masses])


# --- the programme ------------------------------------------------------------------------------


@given(grids(), prices)
def test_plan_is_the_cheapest_of_all(grid: Grid, price: float):
    """From every age on, no other schedule costs less."""
    choices = cheapest_next(grid.ages, grid.masses, grid.middles, price)
    for start, least in enumerate(grid.cheapest(price)):
        assert grid.cost(choices, price, start=start) == pytest.approx(least, abs=1e-9)


@given(grids(), prices)
def test_plan_goes_forward(grid: Grid, price: float):
    """Each choice is a later age, up to the last one, which chooses itself."""
    choices = cheapest_next(grid.ages, grid.masses, grid.middles, price)
    assert all(choice > index for index, choice in enumerate(choices[:-1]))
    assert choices[-1] == len(grid.ages) - 1


def test_cheap_looks_are_many_and_dear_ones_few():
    """At no price every age is looked at, and at a high price only the last one."""
    grid = Grid([0.0, 1.0, 2.0, 3.0], [0.0, 0.2, 0.3, 0.5])
    assert cheapest_next(grid.ages, grid.masses, grid.middles, 1e-9) == [1, 2, 3, 3]
    assert cheapest_next(grid.ages, grid.masses, grid.middles, 1e9) == [3, 3, 3, 3]


def test_plan_waits_for_what_it_expects():
    """If all images take 10 to 11 seconds, there is one look, at 11."""
    grid = Grid([0.0, 10.0, 11.0, 60.0], [0.0, 0.0, 1.0, 0.0])
    assert cheapest_next(grid.ages, grid.masses, grid.middles, 1.0)[0] == 2


# --- fine enough --------------------------------------------------------------------------------


@given(grids(), prices)
def test_cutting_keeps_edges_and_mass(grid: Grid, price: float):
    """The pieces of each bin begin and end where it does, and weigh as much."""
    ages, parts = cut_finer(grid.ages, grid.masses[1:], price)
    assert len(ages) == len(parts)
    assert all(a < b for a, b in pairwise(ages))
    for (start, end), mass in zip(pairwise(grid.ages), grid.masses[1:], strict=True):
        inside = [part for age, part in zip(ages, parts, strict=True) if start < age <= end]
        assert end in ages
        assert 1 <= len(inside) <= 8
        assert sum(inside) == pytest.approx(mass)


def test_bins_are_cut_where_looks_will_be_dense():
    """The more looks a bin will see, the more ages there are; where few images get, none."""
    masses = [0.0, 0.01, 0.2, 0.78, 0.01]
    edges = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    ages, _ = cut_finer(edges, masses, 1.0)
    pieces = [sum(start < age <= end for age in ages) for start, end in pairwise(edges)]
    assert pieces == [1, 1, 4, 7, 1]
    cheap, _ = cut_finer(edges, masses, 0.01)
    dear, _ = cut_finer(edges, masses, 100.0)
    assert len(dear) == len(edges) < len(ages) < len(cheap)


# --- a plan -------------------------------------------------------------------------------------

PLAN = Plan(ages=[0.0, 1.0, 4.0, 10.0], choices=[1, 3, 3, 3], mean_pause=1.0)


@pytest.mark.parametrize(
    ("age", "pauses"),
    [
        (0.0, (1.0, 9.0)),
        (0.4, (0.6, 9.0)),  # as from 0
        (0.6, (9.4, 9.4)),  # as from 1: the look that was due there has just been made
        (1.0, (9.0, 9.0)),
        (3.9, (6.1, 6.1)),  # as from 4
        (9.9, (pytest.approx(0.1), pytest.approx(0.1))),
        (10.0, (2.0, 2.0)),  # beyond the plan
        (1e300, (2e299, 2e299)),
    ],
)
def test_pauses_are_those_to_the_planned_ages(age: float, pauses: tuple[float, float]):
    """From any age the next planned look is the nearest age's, and never before now."""
    assert PLAN.pauses(age) == pauses


@given(grids(), prices, st.floats(0, 1e300))
def test_pauses_are_finite_and_above_zero(grid: Grid, price: float, age: float):
    """There is always a next look, and never at once."""
    choices = cheapest_next(grid.ages, grid.masses, grid.middles, price)
    for pause in Plan(grid.ages, choices, 1.0).pauses(age):
        assert 0 < pause < math.inf or age == pause == 0


def test_mean_pause_is_that_of_all_looks():
    """Half of the images need one look after the first, and half of them a second one."""
    grid = Grid([0.0, 1.0, 3.0], [0.0, 0.5, 0.5])
    assert mean_pause(grid.ages, grid.masses, [1, 2, 2]) == pytest.approx((1 + 0.5 * 2) / 1.5)
    assert mean_pause(grid.ages, grid.masses, [2, 2, 2]) == 3.0


# --- prices under pressure ----------------------------------------------------------------------

EDGES = [0.0, *(0.5 * 1.1**step for step in range(100))]


def make_ladder(price: float = 1.0) -> Ladder:
    """Expect images to take about 30 seconds, and a very few of them up to hours."""
    weights = [
        math.exp(-0.5 * (math.log((start + end) / 60) / 0.5) ** 2) + 1e-4
        for start, end in pairwise(EDGES)
    ]
    return Ladder.over(EDGES, [weight / sum(weights) for weight in weights], price)


def test_without_pressure_the_price_is_the_price():
    """A spacing that the plan keeps anyway changes nothing."""
    ladder = make_ladder()
    usual = ladder.plan(0.0)
    assert 2 < usual.mean_pause < 20
    assert ladder.plan(usual.mean_pause) is usual
    assert ladder.step == 0


@pytest.mark.parametrize("spacing", [15.0, 40.0, 300.0])
def test_price_rises_as_far_as_it_must_and_falls_back(spacing: float):
    """The plan is that of the lowest price which leaves the spacing on the average."""
    ladder = make_ladder()
    raised = ladder.plan(spacing)
    step = ladder.step
    assert step > 0
    assert raised.mean_pause >= spacing
    assert make_ladder(1.5 ** (step - 1)).plan(0.0).mean_pause < spacing
    assert ladder.plan(0.0) is make_ladder().plan(0.0) or ladder.step == 0
    assert ladder.plan(spacing) is raised


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=6))
def test_plan_under_pressure_does_not_depend_on_what_was_asked_before(spacings: list[float]):
    """The search goes on from where it was, and finds what a new one finds."""
    ladder = LADDER
    for spacing in spacings:
        ladder.plan(spacing)
    fresh = attrs.evolve(LADDER, step=0)
    fresh._plans.update(LADDER._plans)
    assert fresh.plan(spacings[-1]) is ladder.plan(spacings[-1])


LADDER = make_ladder()


@given(st.floats(0, 1e4))
def test_mean_pause_grows_with_the_price(spacing: float):
    """Whatever the pressure, the next step up looks no more often."""
    LADDER.plan(spacing)
    step = LADDER.step
    assert LADDER._plan_at(step + 1).mean_pause >= LADDER._plan_at(step).mean_pause - 1e-9


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_pressure_stretches_no_pause_beyond_a_turn(age: float, spacing: float):
    """The few images that a dear plan would leave alone wait no longer than their turn."""
    usual, _ = LADDER.pauses(age)
    pause, _ = LADDER.pauses(age, spacing)
    assert 0 < pause <= max(usual, spacing)


def test_dear_plans_leave_the_last_images_alone_but_for_that():
    """What the rule above is for: at 200 s apart, the second look would come an hour later."""
    ladder = make_ladder()
    plan = ladder.plan(200.0)
    age = plan.ages[plan.choices[0]]
    assert plan.pauses(age)[0] > 1_000
    assert ladder.pauses(age, 200.0)[0] == pytest.approx(200.0)


@pytest.mark.parametrize(("spacing", "step"), [(math.inf, 64), (1e300, 64), (math.nan, 0), (-1, 0)])
def test_absurd_spacings_do_no_harm(spacing: float, step: int):
    """The price ends somewhere, and what is no number is no pressure."""
    ladder = make_ladder()
    pause, following = ladder.pauses(5.0, spacing)
    assert ladder.step == step
    assert 0 < pause < math.inf
    assert following >= 0


@pytest.mark.parametrize("price", [5e-324, 1e-9, 1e9, 1.7e308])
def test_absurd_prices_make_plans(price: float):
    """A price may be anything above zero, with pressure on top of it."""
    ladder = make_ladder(price)
    for spacing in (0.0, 50.0):
        for age in (0.0, 29.0, 1e9):
            assert all(0 < pause < math.inf for pause in ladder.pauses(age, spacing))
    assert len(ladder.plan(0.0).ages) <= 8 * len(EDGES)
