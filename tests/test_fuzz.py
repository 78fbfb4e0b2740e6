"""The fuzz targets, with the corpus and a few examples of Hypothesis': see `fuzz.py` for more."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import fuzz_targets
from .fuzz_targets import CORPUS, TARGETS


pytestmark = [pytest.mark.fault("F-37"), pytest.mark.fault("F-38"), pytest.mark.fault("F-50")]


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name):
    """G17: no undeclared exception and nothing slow, for what has been trouble somewhere."""
    target = TARGETS[name]
    assert len(CORPUS[target]) >= 6
    for data in CORPUS[target]:
        target(data)


@pytest.mark.parametrize("name", TARGETS)
@given(seed=st.integers(0, 2**32), data=st.binary(max_size=30))
def test_what_is_like_the_corpus(name, seed, data):
    """The same for pieces of the corpus with anything in them."""
    rng = random.Random(seed)
    text = rng.choice(CORPUS[TARGETS[name]])[:5000]
    at = rng.randrange(len(text) + 1)
    TARGETS[name](text[:at] + data + text[at + rng.choice([0, 1, len(data)]) :])


def test_a_slow_target_fails(monkeypatch):
    """A call that takes over a second is a defect."""
    monkeypatch.setattr(fuzz_targets, "MOST_SECONDS", 0.0)

    def work(data: bytes) -> None:
        sum(range(100_000))

    with pytest.raises(fuzz_targets.TooSlow, match="work took"):
        fuzz_targets.timed(work)(b"")


STAND_IN = """
import contextlib, os

instrument_imports = lambda include: contextlib.nullcontext()

def Setup(arguments, target):
    target(b"")

def Fuzz():
    os.write(1, os.environ["SAID"].encode())
"""
ROOT = Path(__file__).parent.parent
PROGRAM = f"import sys; sys.path.append({str(ROOT)!r}); from tests import fuzz; sys.exit(fuzz.main('vid'))"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.fault("F-127")
@pytest.mark.parametrize(
    ("said", "defects"),
    [("stat::number_of_executed_units: 5", 0), ("it crashed before the first one", 1)],
)
def test_a_target_that_did_not_run(tmp_path, said, defects):
    """A fuzzing run without any execution is a defect, and no success."""
    (tmp_path / "atheris.py").write_text(STAND_IN)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "SAID": said},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"targets with a defect: {defects}" in told.stdout, told.stderr
    assert told.returncode == defects
