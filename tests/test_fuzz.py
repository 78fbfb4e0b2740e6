"""The fuzz targets, with the corpus and a few examples of Hypothesis': see `fuzz.py` for more."""

from __future__ import annotations

import random

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
