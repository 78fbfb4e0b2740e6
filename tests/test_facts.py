"""The pages that say what numbers such as E7, U1, G6 and F-42 stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
FACTS = ROOT / "docs" / "facts.md"
FAULTS = ROOT / "docs" / "faults.md"
FOLDERS = ("kokoon_async", "tests", "docs", "benchmarks")
KINDS = {".py", ".md", ".toml"}

STATED = re.compile(r"^\| ([A-Z]-?\d+) \| \S", re.MULTILINE)
# Not escaped bytes (%E2, \xE2), nor parts of ids.
CITED = re.compile(r"(?<![\w%\\-])(?:[EUG]\d{1,2}|F-\d{2,3})(?![\w-])")
# Notes of the project that are no part of the repository.
UNSHIPPED = re.compile(r"kokoon-api\.md|anchors-\w+|design section|design\.md|\.md, section")

# These are about the readers of numbers, and name some that do not exist.
MADE_UP = {"test_facts.py", "test_fault_catalogue.py"}


def texts() -> Iterator[tuple[str, str]]:
    """Find each text of the repository: where it stands, and what it says."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*paths, *ROOT.iterdir()]):
        if path.suffix in KINDS and path.name not in MADE_UP:
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def test_each_number_is_stated_once() -> None:
    """No number has two meanings, and each has one in its own page."""
    facts, faults = (STATED.findall(page.read_text("utf-8")) for page in (FACTS, FAULTS))
    assert len(facts) > 40
    assert len(faults) == 128
    assert [number for number, count in Counter(facts + faults).items() if count > 1] == []
    assert [number for number in facts if number.startswith("F")] == []


def test_each_number_that_is_named_is_stated() -> None:
    """Whoever reads a number anywhere in the repository can look up what it stands for."""
    stated = {
        number for page in (FACTS, FAULTS) for number in STATED.findall(page.read_text("utf-8"))
    }
    named = {(number, name) for name, text in texts() for number in CITED.findall(text)}
    assert len({number for number, _ in named}) > 150
    assert sorted(each for each in named if each[0] not in stated) == []


def test_nothing_refers_to_notes_that_are_not_here() -> None:
    """No text names a document that only its writers had."""
    found = [(name, said) for name, text in texts() for said in UNSHIPPED.findall(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("one (E7), two: U1, G25.", ["E7", "U1", "G25"]),
        ('@pytest.mark.fault("F-42") and F-128', ["F-42", "F-128"]),
        ("%E2%80 \\xE2 \\E2 DE12 E501 E7a 1-E7-2 F-1 xF-42", []),
    ],
)
def test_numbers_are_told_from_what_looks_like_them(text: str, numbers: list[str]) -> None:
    """A number is found between any marks, and not within a word, an id or an escaped byte."""
    assert CITED.findall(text) == numbers


def test_stated_numbers_are_rows() -> None:
    """A row states its number if it says something."""
    assert STATED.findall("| E1 | x |\n| E2 |  |\n| F-01 | y | z |\nE3\n| # | Fact |") == [
        "E1",
        "F-01",
    ]
