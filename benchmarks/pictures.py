"""
Draw the pictures of docs/polling.md: the policies' schedules, and what they cost.

The same figures as in `polling.py`, with smaller samples. What is drawn depends on
nothing but the code, so a picture changes only when a policy does. Run it with
``nox -s bench -- pictures``.
"""

import argparse
import random
from pathlib import Path

import attrs
import matplotlib as mpl
from matplotlib import pyplot as plt
from polling import DISTRIBUTIONS, PEERS, Row, geometric_mean, row_for, wait_once

from kokoon_async import AgeProportional, Cost, Exponential, Fixed, Learned, PollPolicy, evaluate
from kokoon_async.polling import preview


FOLDER = Path(__file__).parent.parent / "docs" / "pictures"

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
BLACK, GREY = "#000000", "#777777"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

STYLE = {
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": "#DDDDDD",
    "svg.hashsalt": "kokoon_async",  # or each run would number its parts anew
}

SHOWN = "two kinds, 8 s and 120 s"
UNTIL = 180.0
PRICES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)


def taught(row: Row, waits: int, *, seed: int, jitter: float = 0.1) -> Learned:
    """Let a policy wait for so many images."""
    policy, chance = Learned(row.price, seed=seed), random.Random(1_000 + seed)
    for _ in range(waits):
        wait_once(policy, row.draw(chance))
    policy.jitter = jitter
    return policy


# --- schedules ----------------------------------------------------------------------------------


def draw_schedules(path: Path) -> None:
    """Draw when each policy looks, below the distribution of the durations."""
    row = row_for(SHOWN, DISTRIBUTIONS[SHOWN], 1.0, size=1_000)
    policies: list[tuple[str, str, PollPolicy]] = [
        ("Learned, 300 waits", BLUE, taught(row, 300, seed=1, jitter=0)),
        ("Learned, 0 waits", SKY, Learned(jitter=0)),
        ("Exponential", VERMILION, Exponential(jitter=0)),
        ("AgeProportional", ORANGE, AgeProportional(jitter=0)),
        ("Fixed", GREEN, Fixed(jitter=0)),
    ]
    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(9, 4.2), height_ratios=(1, 2), subplot_kw={"xlim": (-2, UNTIL)}
    )
    above.hist(row.durations, bins=120, range=(0, UNTIL), color="#BBBBBB")
    above.set(yticks=[], ylabel="images\nfinish")
    above.spines["left"].set_visible(False)
    for line, (_, colour, policy) in enumerate(policies):
        ages = preview(policy, UNTIL)
        below.scatter(ages, [line] * len(ages), s=150, marker="|", color=colour, clip_on=False)
        cost = evaluate(policy, row.durations)
        name_end(below, shown(cost), line)
    below.set(xlabel="age of the image, in seconds: each mark is a look", ylim=(4.5, -0.5))
    below.set_yticks(range(len(policies)), [name for name, _, _ in policies])
    below.tick_params(axis="y", length=0)
    below.spines["left"].set_visible(False)
    figure.suptitle("When the policies look: 60 % of images take about 8 s, 40 % about 120 s")
    save(figure, path)


def shown(cost: Cost) -> str:
    """Say what a policy costs."""
    return f"{cost.looks:.1f} looks, {cost.delay:.1f} s late"


# --- costs --------------------------------------------------------------------------------------


def draw_costs(path: Path) -> None:
    """Draw the cost of each policy against the price of a look."""
    policies: dict[str, tuple[PollPolicy, str, str]] = {
        "fal, 0.1 s": (PEERS["fal"], GREY, ":"),
        "OpenAI, 1 s": (PEERS["OpenAI"], GREY, "--"),
        "Azure, 30 s": (PEERS["Azure"], GREY, "-."),
        "Google sync": (PEERS["Google sync"], GREY, "-"),
        "AgeProportional": (AgeProportional(jitter=0), ORANGE, "-"),
        "Fixed": (Fixed(jitter=0), GREEN, "-"),
        "Exponential": (Exponential(jitter=0), VERMILION, "-"),
    }
    rows = {
        price: [row_for(name, draw, price, size=500) for name, draw in DISTRIBUTIONS.items()]
        for price in PRICES
    }
    curves = [
        Curve(label, colour, dashes, [mean_ratio([(policy, r) for r in rows[p]]) for p in PRICES])
        for label, (policy, colour, dashes) in policies.items()
    ]
    for waits, colour in ((0, SKY), (30, PURPLE), (300, BLUE)):
        ratios = [
            mean_ratio([(taught(r, waits, seed=s), r) for r in rows[p] for s in (1, 2)])
            for p in PRICES
        ]
        curves.append(Curve(f"Learned, {waits} waits", colour, "-", ratios))
    figure, axes = plt.subplots(figsize=(9, 5))
    draw_curves(axes, curves)
    axes.axhline(1, color=BLACK, linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(PRICES[0], PRICES[-1]), ylim=(0.95, 100))
    axes.set_xticks(PRICES, [f"{price:g}" for price in PRICES])
    ratios_shown = [1, 1.5, 2, 3, 5, 10, 20, 50, 100]
    axes.set_yticks(ratios_shown, [f"{ratio:g}" for ratio in ratios_shown])
    axes.minorticks_off()
    axes.set(xlabel="price: seconds of delay that a request is worth", ylabel="cost ÷ optimum")
    axes.set_title("What waiting costs: geometric mean over four distributions; 1 is the optimum")
    save(figure, path)


def mean_ratio(pairs: list[tuple[PollPolicy, Row]]) -> float:
    """Give the geometric mean of costs, divided by the optimum."""
    return geometric_mean(
        [
            evaluate(policy, row.durations, price=row.price).total / row.optimum
            for policy, row in pairs
        ]
    )


@attrs.frozen
class Curve:
    """
    Hold what a policy costs.

    Attributes:
        label: The policy's name.

        colour: Of the curve.

        dashes: Matplotlib's name for them.

        ratios: One for each of the prices.
    """

    label: str
    colour: str
    dashes: str
    ratios: list[float]


def draw_curves(axes: plt.Axes, curves: list[Curve]) -> None:
    """Draw curves, each with its name where it ends, or a little above if it is crowded there."""
    lowest = 0.0
    for curve in sorted(curves, key=lambda curve: curve.ratios[-1]):
        width = 2.5 if "Learned" in curve.label else 1.5
        axes.plot(PRICES, curve.ratios, color=curve.colour, linestyle=curve.dashes, linewidth=width)
        lowest = max(lowest * 1.2, curve.ratios[-1])
        name_end(axes, curve.label, lowest, colour=curve.colour)


def name_end(axes: plt.Axes, text: str, height: float, *, colour: str = BLACK) -> None:
    """Write beside the axes."""
    place, system = (1.01, height), ("axes fraction", "data")
    axes.annotate(text, place, xycoords=system, va="center", color=colour)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a picture without a date, so that the same picture is the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    print(path)


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--format", default="svg", choices=("svg", "png"))
    arguments = parser.parse_args()
    mpl.use("svg" if arguments.format == "svg" else "agg")
    with mpl.rc_context(STYLE):
        draw_schedules(arguments.folder / f"schedules.{arguments.format}")
        draw_costs(arguments.folder / f"cost-by-price.{arguments.format}")


if __name__ == "__main__":
    main()
