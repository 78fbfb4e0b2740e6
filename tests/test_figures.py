"""The figures that a test session counts and prints."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from . import conftest, figures


def test_figures_are_summed_over_tests_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests and workers record under one name is one sum; a worker that crashed adds nothing."""
    monkeypatch.setattr(figures, "RECORDED", Counter())
    assert figures.summary() == ""
    figures.record_figure("kills", 1000)
    figures.record_figure("kills", 500)
    worker = SimpleNamespace(config=SimpleNamespace(workeroutput={}))
    conftest.pytest_sessionfinish(worker)
    conftest.pytest_testnodedown(SimpleNamespace(workeroutput=worker.config.workeroutput))
    conftest.pytest_testnodedown(SimpleNamespace())
    figures.record_figure("cuts", 7)
    assert figures.summary() == "cuts: 7, kills: 3,000"


def test_figures_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the session tells them, if there are any."""
    lines: list[str] = []
    terminal = SimpleNamespace(write_line=lines.append)
    monkeypatch.setattr(figures, "RECORDED", Counter())
    conftest.pytest_terminal_summary(terminal)
    figures.record_figure("kills", 50)
    conftest.pytest_terminal_summary(terminal)
    assert lines == ["figures: kills: 50"]
