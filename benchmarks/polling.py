"""
What waiting costs: every policy next to the optimum, over four distributions of durations.

Cost is price times looks plus delay, averaged over images, with the immediate first look; all
figures but the optimum's are ratios to it. `Learned` sees nothing but what a client
sees: the interval in which each of its waits ended; L30 is its cost after 30 waits. Peers
follow their documented defaults. "Best exp." is the best of 210 exponential schedules,
chosen for each row with knowledge of the distribution. Run it with
``nox -s bench -- polling``, or with ``nox -s bench -- polling --more`` over other
distributions. It prints Markdown.
"""

import argparse
import bisect
import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

import attrs

from kokoon_async import AgeProportional, Exponential, Fixed, Learned, Look, PollPolicy, evaluate
from kokoon_async.models import ImageState
from kokoon_async.polling.planning import cheapest_next


Draw = Callable[[random.Random], float]

DISTRIBUTIONS: dict[str, Draw] = {
    "log-normal, median 30 s": lambda r: r.lognormvariate(math.log(30), 0.5),
    "queue 60 s + run 26 s": lambda r: r.expovariate(1 / 60) + r.gammavariate(16, 26 / 16),
    "two kinds, 8 s and 120 s": lambda r: (
        r.gammavariate(20, 8 / 20) if r.random() < 0.6 else r.gammavariate(20, 120 / 20)
    ),
    "fast: log-normal, 2 s": lambda r: r.lognormvariate(math.log(2), 0.4),
}
MORE: dict[str, Draw] = {
    "exponential, mean 40 s": lambda r: r.expovariate(1 / 40),
    "Weibull, 45 s, shape 1.5": lambda r: r.weibullvariate(45, 1.5),
    "Weibull, 20 s, shape 0.7": lambda r: r.weibullvariate(20, 0.7),
    "Pareto from 10 s, shape 1.5": lambda r: 10 * r.paretovariate(1.5),
    "uniform, 5 to 90 s": lambda r: r.uniform(5, 90),
    "spike: 60 ± 1 s": lambda r: r.gauss(60, 1),
    "three spikes": lambda r: r.gauss(*r.choice([(5, 0.3), (30, 1.5), (200, 10)])),
    "minutes: log-normal, 600 s": lambda r: r.lognormvariate(math.log(600), 0.4),
    "minutes: 1,800 ± 120 s": lambda r: r.gauss(1_800, 120),
}
PRICES = (0.3, 1.0, 3.0)
WAITS = (0, 10, 30, 100, 300)
LEARNED = tuple(f"L{waits}" for waits in WAITS)


@attrs.define
class FullJitter:
    """
    Pause for a random part of a growing interval, as google-api-core does.

    Attributes:
        factor: How the interval grows from 1 s.

        maximum: Where it stops, in seconds.
    """

    factor: float
    maximum: float
    _random: random.Random = attrs.field(factory=lambda: random.Random(1), init=False)

    def next_delay(self, look: Look) -> float:
        """Draw the pause."""
        return self._random.uniform(0, min(self.maximum, self.factor ** min(look.looks - 1, 60)))

    def record(self, earliest: float, latest: float) -> None:
        """Take no notice."""


PEERS: dict[str, PollPolicy] = {
    "Azure": Fixed(30.0, jitter=0),
    "Google sync": FullJitter(1.5, 20.0),
    "Google async": FullJitter(2.0, 60.0),
    "OpenAI": Fixed(1.0, jitter=0),
    "Replicate": Fixed(0.5, jitter=0),
    "fal": Fixed(0.1, jitter=0),
    "botocore": Fixed(15.0, jitter=0),
    "Runway": Fixed(6.0, jitter=0.25),
    "ours, fixed": Fixed(),
    "ours, exponential": Exponential(),
    "ours, by age": AgeProportional(),
}


@attrs.frozen
class Row:
    """
    Hold a distribution and a price, and the optimum for them.

    Attributes:
        name: Of the distribution.

        draw: Gives a duration.

        price: Seconds of delay that a request is worth.

        durations: A stratified sample of the distribution.

        optimum: The lowest possible cost.
    """

    name: str
    draw: Draw
    price: float
    durations: Sequence[float]
    optimum: float


def row_for(name: str, draw: Draw, price: float, *, size: int) -> Row:
    """Draw many durations, find the optimum for them, and keep an even sample."""
    chance = random.Random(7)
    durations = sorted(draw(chance) for _ in range(20 * size))
    return Row(name, draw, price, durations[10::20], optimal_cost(durations, price))


def optimal_cost(durations: Sequence[float], price: float, *, quantiles: int = 400) -> float:
    """Give the cost of the cheapest schedule for ascending durations, all above 0."""
    count = len(durations)
    ages = [0.0, *(durations[(step + 1) * count // quantiles - 1] for step in range(quantiles))]
    ages += [durations[0] * 1.01**step for step in range(10_000)]  # finer, in the tails
    ages = sorted({age for age in ages if age <= durations[-1]})
    edges = [0, *(bisect.bisect_right(durations, age) for age in ages[1:])]
    masses = [0.0, *((b - a) / count for a, b in itertools.pairwise(edges))]
    choices = cheapest_next(ages, masses, price)
    schedule = [0]
    while schedule[-1] < len(ages) - 1:
        schedule.append(choices[schedule[-1]])
    return schedule_cost([ages[index] for index in schedule], durations, price)


def schedule_cost(ages: Sequence[float], durations: Sequence[float], price: float) -> float:
    """Give the cost of fixed ages; the last one is at or after the longest duration."""
    total = 0.0
    for duration in durations:
        look = bisect.bisect_left(ages, duration)
        total += price * (look + 1) + ages[look] - duration
    return total / len(durations)


def best_exponential(row: Row) -> float:
    """Give the cost of the best of 7 x 5 x 6 exponential schedules, known in hindsight."""
    firsts = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    factors = (1.0, 1.2, 1.5, 2.0, 3.0)
    maxima = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
    durations = row.durations[:: max(1, len(row.durations) // 1_000)]
    best = math.inf
    for first, factor, maximum in itertools.product(firsts, factors, maxima):
        ages, pause = [0.0], first
        while ages[-1] < durations[-1]:
            ages.append(ages[-1] + min(pause, maximum))
            pause *= factor
        best = min(best, schedule_cost(ages, durations, row.price))
    return best


def wait_once(policy: PollPolicy, duration: float) -> None:
    """Wait for one image as a client does, and record what it sees."""
    before = age = 0.0
    looks = 1
    while age < duration:
        before = age
        age += max(0.1, policy.next_delay(Look(age, age, looks, ImageState.PROCESSING)))
        looks += 1
    policy.record(before, age)


def learned_costs(row: Row, *, seeds: int) -> list[float]:
    """Give the cost of `Learned` after so many waits each, averaged over seeds."""
    costs: list[list[float]] = [[] for _ in WAITS]
    for seed in range(seeds):
        chance = random.Random(1_000 + seed)
        policy = Learned(row.price, seed=seed)
        for index, (before, waits) in enumerate(zip((0, *WAITS), WAITS, strict=False)):
            for _ in range(waits - before):
                wait_once(policy, row.draw(chance))
            costs[index].append(evaluate(policy, row.durations, price=row.price).total)
    return [statistics.fmean(cost) for cost in costs]


def after_change(*, seeds: int) -> list[int]:
    """Give the waits until within 1.3 of the optimum, after 20 s became 60 s."""
    needed = []
    for seed in range(seeds):
        chance = random.Random(seed)
        policy = Learned(1.0, seed=seed)
        for _ in range(300):
            wait_once(policy, chance.lognormvariate(math.log(20), 0.5))
        durations = sorted(chance.lognormvariate(math.log(60), 0.5) for _ in range(2_000))
        optimum, waits = optimal_cost(durations, 1.0), 0
        while evaluate(policy, durations, price=1.0).total > 1.3 * optimum and waits < 1_000:
            for _ in range(5):
                wait_once(policy, chance.lognormvariate(math.log(60), 0.5))
            waits += 5
        needed.append(waits)
    return needed


def geometric_mean(ratios: Sequence[float]) -> float:
    """Give the geometric mean."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


def ratios_for(row: Row, *, seeds: int) -> dict[str, float]:
    """Give the cost of everything there is, divided by the optimum."""
    costs = {"best exp.": best_exponential(row)}
    costs |= zip(LEARNED, learned_costs(row, seeds=seeds), strict=True)
    for peer, policy in PEERS.items():
        costs[peer] = evaluate(policy, row.durations[::4], price=row.price).total
    return {name: cost / row.optimum for name, cost in costs.items()}


def print_row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    shown = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
    print("|", " | ".join(shown), "|", flush=True)


def print_head(*cells: str) -> None:
    """Print the head of a Markdown table, whose figures stand to the right."""
    print()
    print_row(*cells)
    print_row("---", *["--:" for _ in cells[1:]])


def print_means(columns: Sequence[Sequence[float]], *blanks: str) -> None:
    """Print the last two rows of a table."""
    for label, of in (("geometric mean", geometric_mean), ("worst row", max)):
        print_row(label, *blanks, *map(of, columns))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=2_000, help="durations in each row's sample")
    parser.add_argument("--more", action="store_true", help="other distributions")
    arguments = parser.parse_args()
    distributions = MORE if arguments.more else DISTRIBUTIONS
    rows: list[tuple[Row, dict[str, float]]] = []
    ours = ("best exp.", *LEARNED)
    print_head("durations", "price", "optimum", *ours)
    for (name, draw), price in itertools.product(distributions.items(), PRICES):
        row = row_for(name, draw, price, size=arguments.size)
        ratios = ratios_for(row, seeds=arguments.seeds)
        rows.append((row, ratios))
        print_row(name, f"{price:g}", row.optimum, *(ratios[column] for column in ours))
    print_means([[ratios[column] for _, ratios in rows] for column in ours], "", "")
    print_head("durations", "price", *PEERS)
    for row, ratios in rows:
        print_row(row.name, f"{row.price:g}", *(ratios[peer] for peer in PEERS))
    print_means([[ratios[peer] for _, ratios in rows] for peer in PEERS], "")
    waits = ", ".join(map(str, after_change(seeds=arguments.seeds)))
    print(f"\nAfter 20 s became 60 s: within 1.3 of the new optimum after {waits} waits, by seed.")


if __name__ == "__main__":
    main()
