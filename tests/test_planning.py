"""The cheapest schedule for a known distribution: exact, on ages that are fine enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async.polling.planning import Plan, cheapest_next, cut_finer


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
    choices = cheapest_next(grid.ages, grid.masses, price)
    for start, least in enumerate(grid.cheapest(price)):
        assert grid.cost(choices, price, start=start) == pytest.approx(least, abs=1e-9)


@given(grids(), prices)
def test_plan_goes_forward(grid: Grid, price: float):
    """Each choice is a later age, up to the last one, which chooses itself."""
    choices = cheapest_next(grid.ages, grid.masses, price)
    assert all(choice > index for index, choice in enumerate(choices[:-1]))
    assert choices[-1] == len(grid.ages) - 1


def test_cheap_looks_are_many_and_dear_ones_few():
    """At no price every age is looked at, and at a high price only the last one."""
    grid = Grid([0.0, 1.0, 2.0, 3.0], [0.0, 0.2, 0.3, 0.5])
    assert cheapest_next(grid.ages, grid.masses, 1e-9) == [1, 2, 3, 3]
    assert cheapest_next(grid.ages, grid.masses, 1e9) == [3, 3, 3, 3]


def test_plan_waits_for_what_it_expects():
    """If all images take 10 to 11 seconds, there is one look, at 11."""
    grid = Grid([0.0, 10.0, 11.0, 60.0], [0.0, 0.0, 1.0, 0.0])
    assert cheapest_next(grid.ages, grid.masses, 1.0)[0] == 2


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

PLAN = Plan(ages=[0.0, 1.0, 4.0, 10.0], choices=[1, 3, 3, 3])


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
    choices = cheapest_next(grid.ages, grid.masses, price)
    for pause in Plan(grid.ages, choices).pauses(age):
        assert 0 < pause < math.inf or age == pause == 0


# --- from bins to a plan ------------------------------------------------------------------------

EDGES = [0.0, *(0.5 * 1.1**step for step in range(100))]
WEIGHTS = [
    math.exp(-0.5 * (math.log((start + end) / 60) / 0.5) ** 2) + 1e-4
    for start, end in pairwise(EDGES)
]
MASSES = [weight / sum(WEIGHTS) for weight in WEIGHTS]


def test_dear_looks_are_fewer():
    """The higher the price, the longer is the first pause."""
    pauses = [Plan.cheapest(EDGES, MASSES, price).pauses(0.0)[0] for price in (0.1, 1.0, 10.0)]
    assert 0 < pauses[0] < pauses[1] < pauses[2]


@pytest.mark.parametrize("price", [5e-324, 1e-9, 1e9, 1.7e308])
def test_absurd_prices_make_plans(price: float):
    """A price may be anything above zero."""
    plan = Plan.cheapest(EDGES, MASSES, price)
    for age in (0.0, 29.0, 1e9):
        assert all(0 < pause < math.inf for pause in plan.pauses(age))
    assert len(plan.ages) <= 8 * len(EDGES)
