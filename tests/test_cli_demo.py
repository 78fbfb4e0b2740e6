"""The demo: that its figures are those of the run, and that it notices what is lost."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kokoon_async import Image, ImageState, WaitTimedOut
from kokoon_async.cli import _demo, _demo_view
from kokoon_async.cli._demo import Figures, Finished, run_demo
from kokoon_async.cli._demo_view import show_demo


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


@pytest.mark.usefixtures("virtual_time")
async def test_figures_are_those_of_the_run() -> None:
    """Every image has an outcome, every request is counted, every fault was survived."""
    seen: list[int] = []

    async def show(figures: Figures) -> None:
        seen.append(figures.done)

    figures = await run_demo(images=30, seed=1, speed=8.0, show=show)
    assert seen[-1] == figures.done == len(figures.outcomes) == 30
    assert figures.lost == []
    assert figures.requests == figures.looks.total()
    states = [outcome.image.state for outcome in figures.outcomes]
    assert {"completed", "error"} == set(states)
    # All of the trouble was reached, since all images were finished.
    assert figures.faults == {
        "status 503": 8,
        "connection reset": 3,
        "status 429": 1,
        **{f"status {status}": 1 for status in (500, 502, 504)},
    }
    assert figures.again == 15
    assert figures.braked >= 1
    assert all(outcome.noticed >= 0 for outcome in figures.outcomes)
    assert figures.elapsed < 60


@pytest.mark.usefixtures("virtual_time")
async def test_slow_demo_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the speed of real clocks, too, every image is waited for until it is finished."""
    monkeypatch.setattr(_demo, "_FRAME", 5.0)
    latest: list[float] = []

    async def show(figures: Figures) -> None:
        latest.append(figures.elapsed)

    figures = await run_demo(images=15, seed=1, speed=1.0, show=show)
    assert figures.lost == []
    assert max(outcome.took for outcome in figures.outcomes) > 50
    assert latest[-1] > 60


@pytest.mark.usefixtures("virtual_time")
async def test_demo_prints_what_came_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there are lines of progress, and then the tables."""
    assert await show_demo(images=30, seed=1, speed=8.0) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "A simulated server makes 30 images; its clock runs 8 times as fast as" in out
    progress = re.findall(r"^ *[\d.]+ s  (\d+) of 30 finished, \d+ requests", out, re.MULTILINE)
    assert progress == sorted(progress, key=int)
    assert 3 <= len(progress) <= 12
    count = dict(re.findall(r"^(completed|error|lost) +(\d+)", out, re.MULTILINE))
    assert int(count["completed"]) + int(count["error"]) == 30
    assert count["lost"] == "0"
    assert len(re.findall(r"^[0-9a-f-]{36}  (?:completed|error) ", out, re.MULTILINE)) == 3
    assert out.endswith("Nothing was lost. What next: README.md, or kokoon-async simulate\n")


@pytest.mark.usefixtures("virtual_time")
async def test_demo_fails_if_something_was_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that was not finished in time is lost, and the demo says so and fails."""
    monkeypatch.setattr(_demo, "_PATIENCE", 0.3)
    monkeypatch.setattr(_demo, "_SHORTEST_PATIENCE", 0.3)
    assert await show_demo(images=3, seed=0, speed=1.0) == 1
    out, err = capsys.readouterr()
    assert "lost                  3" in out
    assert "Nothing was lost" not in out
    assert err.count("was not finished") == 3


async def test_bar_shows_the_same() -> None:
    """On a terminal the progress is a bar with the same figures."""
    console = Console(file=io.StringIO(), force_terminal=True, width=90, legacy_windows=False)
    figures = Figures(10, 8.0)
    with _demo_view._Bar(console) as bar:
        await bar.show(figures)
        figures.outcomes = [Finished(VID, Image(VID, ImageState.COMPLETED), 1.0, 0.1)] * 9
        figures.lost = [WaitTimedOut("late")]
        figures.requests = 77
        await bar.show(figures)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "10/10 finished" in text
    assert "77 requests (0 made again)" in text


@pytest.mark.parametrize(("completed", "failed"), [(5, 0), (5, 2), (1, 1), (0, 2), (0, 0)])
def test_samples_are_three_at_most(completed: int, failed: int) -> None:
    """The samples are completed images, and one that failed if there is one."""
    states = [ImageState.COMPLETED] * completed + [ImageState.ERROR] * failed
    chosen = _demo_view._chosen([Finished(VID, Image(VID, state), 1.0, 0.1) for state in states])
    assert len(chosen) == min(3, completed + min(failed, 1))
    assert sum(outcome.image.state == ImageState.ERROR for outcome in chosen) == min(failed, 1)
