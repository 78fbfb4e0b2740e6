"""
The catalogue of faults, and the facts about dependencies: each is held by a test that says so.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from .fault_catalogue import PAGE, TESTS, Catalogue, MarkedTest, marked_in, marked_tests, page


FACT = re.compile(r"\bE\d+\b")
NUMBER = re.compile(r"F-\d{2,3}")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Read the catalogue."""
    return Catalogue.read()


@pytest.fixture(scope="module")
def fault_tests() -> list[MarkedTest]:
    """Find the tests of faults."""
    return marked_tests("fault")


def marks_of(tests: list[MarkedTest]) -> set[str]:
    """Give all that tests are marked with."""
    return {mark for test in tests for mark in test.marks}


def test_each_number_stands_once(catalogue: Catalogue) -> None:
    """The numbers from F-01 to F-128 apply or do not, and say what or why."""
    numbers = [*(key for each in catalogue.sections for key in each.faults), *catalogue.not_here]
    assert sorted(numbers) == sorted(f"F-{number:02}" for number in range(1, 129))
    assert all([*catalogue.faults.values(), *catalogue.not_here.values()])


def test_each_fault_has_a_test(catalogue: Catalogue, fault_tests: list[MarkedTest]) -> None:
    """Each number that applies marks a test; for all but the simulator's own, one of the package."""
    of_package = [test for test in fault_tests if not test.is_about_the_simulator]
    own = marks_of(fault_tests) & catalogue.sections[-1].faults.keys()
    assert catalogue.faults.keys() - marks_of(of_package) - own == set()


def test_each_mark_is_a_fault(catalogue: Catalogue, fault_tests: list[MarkedTest]) -> None:
    """No test is marked with a number that does not exist or does not apply."""
    assert marks_of(fault_tests) - catalogue.faults.keys() == set()


def test_the_tests_to_show_are_there(catalogue: Catalogue, fault_tests: list[MarkedTest]) -> None:
    """A test that the page is told to name exists, and is marked with that number."""
    marked = {(number, test.name) for test in fault_tests for number in test.marks}
    shown = {(number, name) for number, names in catalogue.show.items() for name in names}
    assert shown - marked == set()


def test_the_page_is_fresh(catalogue: Catalogue, fault_tests: list[MarkedTest]) -> None:
    """docs/faults.md is what `nox -s faults` makes of the catalogue and the marks."""
    assert page(catalogue, fault_tests) == PAGE.read_text("utf-8"), "run: nox -s faults"


def test_links_of_the_page_lead_somewhere() -> None:
    """Each file that the page names exists."""
    links = set(re.findall(r"\]\(([^)#]+)\)", PAGE.read_text("utf-8")))
    assert len(links) > 30
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_each_fact_that_the_package_names_has_a_test() -> None:
    """Each E-number in a comment of the package or in a decision is pinned by a test of that fact."""
    spec = importlib.util.find_spec("kokoon_async")
    assert spec is not None
    assert spec.origin is not None
    sources = [*Path(spec.origin).parent.rglob("*.py"), TESTS.parent / "docs" / "decisions.md"]
    named = {number for path in sources for number in FACT.findall(path.read_text("utf-8"))}
    facts = marks_of(marked_tests("fact"))
    assert len(named) > 20
    assert named - facts == set()
    assert {fact for fact in facts if not FACT.fullmatch(fact)} == set()


def test_each_fault_that_the_package_names_exists(catalogue: Catalogue) -> None:
    """No comment of the package or of a test refers to a fault that is not in the catalogue."""
    spec = importlib.util.find_spec("kokoon_async")
    assert spec is not None
    assert spec.origin is not None
    sources = [*Path(spec.origin).parent.rglob("*.py"), *TESTS.glob("*.py")]
    named = {
        number
        for path in sources
        if path.name != Path(__file__).name
        for number in NUMBER.findall(path.read_text("utf-8"))
    }
    assert named - catalogue.faults.keys() - catalogue.not_here.keys() == set()


# -- the reader of marks ---------------------------------------------------------------------------

SOURCES = {
    "own": ("@pytest.mark.fault('F-01')\ndef test_x(): ...", ["F-01"]),
    "two": (
        "@pytest.mark.fault('F-02')\n@pytest.mark.fault('F-01')\nasync def test_x(): ...",
        ["F-02", "F-01"],
    ),
    "module": ("pytestmark = [pytest.mark.fault('F-01')]\ndef test_x(): ...", ["F-01"]),
    "name": ("hard = pytest.mark.fault('F-01')\n@hard\ndef test_x(): ...", ["F-01"]),
    "case": (
        (
            "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.fault('F-01'))])\n"
            "def test_x(x): ..."
        ),
        ["F-01"],
    ),
    "list of cases": (
        (
            "HARD = pytest.mark.fault('F-01')\nCASES: list = [1, pytest.param(2, marks=HARD)]\n"
            "@pytest.mark.parametrize('x', CASES)\ndef test_x(x): ..."
        ),
        ["F-01"],
    ),
    "class": (
        (
            "@pytest.mark.fault('F-01')\nclass TestX:\n    pytestmark = pytest.mark.fault('F-02')\n"
            "    def test_x(self): ..."
        ),
        ["F-01", "F-02"],
    ),
    "another mark": ("@pytest.mark.fact('E1')\ndef test_x(): ...", None),
    "loop": ("A = B\nB = A\n@A\ndef test_x(): ...", None),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_marks_are_found_wherever_they_stand(kind: str) -> None:
    """Marks of a test, a class, a module and a case are found, also by names."""
    source, marks = SOURCES[kind]
    found = list(marked_in("test_a.py", source, "fault"))
    expected = [] if marks is None else [MarkedTest("test_a.py", "test_x", "", tuple(marks))]
    assert found == expected


def test_a_mark_of_no_test_is_an_error() -> None:
    """A mark that no test takes would be a promise that nobody keeps."""
    with pytest.raises(ValueError, match=r"test_a\.py:1: this mark belongs to no test"):
        list(marked_in("test_a.py", "HARD = pytest.mark.fault('F-01')", "fault"))


def test_a_row_is_one_line_of_plain_words() -> None:
    """A row has the first sentences of the clearest tests, without numbers, and counts the others."""
    sentences = ["E1, G6: aiohttp asks | twice (E1).\n\n    More.", "Second (F-20, F-22)."]
    source = "\n".join(
        f"@pytest.mark.fault('F-01')\ndef test_{number}():\n    '''{says}'''\n"
        for number, says in enumerate([*sentences, "Third.", "Fourth."])
    )
    tests = list(marked_in("test_a.py", source, "fault"))
    read = Catalogue.read()
    small = Catalogue([type(read.sections[0])("One", {"F-01": "It is."})], {"F-02": "No."}, {})
    assert page(small, tests).splitlines()[-11:-8] == [
        "| # | Fault | What happens | Tests |",
        "| --- | --- | --- | --- |",
        "| F-01 | It is. | Aiohttp asks \\| twice. Second. | "
        + ", ".join(f"[test_{number}](../tests/test_a.py)" for number in range(3))
        + " and 1 more |",
    ]
