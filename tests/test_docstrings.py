"""The form of docstrings, as far as a program can tell; CONTRIBUTING.md shows it."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


TESTS = Path(__file__).parent

# How something is named, where a function says what to do.
NAMING = {"A", "All", "An", "Any", "Every", "How", "One", "The", "This", "What", "When", "Whether"}

SECTION = re.compile(r"(Args|Attributes|Raises)\b[^:]*:")
ENTRY = re.compile(r"    \S[^:]*:(?P<text>.*)")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[Documented, str], Iterator[str]]


def docstrings(source: str) -> Iterator[tuple[Documented, str]]:
    """Find whatever has a docstring, and its text without the indentation."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield node, text


def entries(text: str) -> Iterator[tuple[str, str, bool]]:
    """Find the entries of all sections: the line before, the text on its line, whether it is first."""
    in_section, before = False, ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            in_section = bool(SECTION.fullmatch(line))
        elif in_section and (entry := ENTRY.fullmatch(line)):
            yield before, entry["text"].strip(), bool(SECTION.fullmatch(before))
        before = line


def fresh_lines(node: Documented, text: str) -> Iterator[str]:
    """Find entries whose text does not begin beside their name."""
    if not all(said for _, said, _ in entries(text)):
        yield f"{name_of(node)}: the text of an entry begins on a line of its own"


def crowded_entries(node: Documented, text: str) -> Iterator[str]:
    """Find entries that no empty line sets apart."""
    if any(before and not is_first for before, _, is_first in entries(text)):
        yield f"{name_of(node)}: entries without an empty line between"


def no_imperatives(node: Documented, text: str) -> Iterator[str]:
    """Find functions, events and errors that do not begin with what to do."""
    word = re.split(r"\W", text, maxsplit=1)[0]
    if is_third_person(word) and not is_named(node):
        yield f"{name_of(node)}: {word}"
    if isinstance(node, ast.ClassDef):
        is_told = {ast.unparse(base) for base in node.bases} & {"Event", "KokoonError"}
        if is_told and word in NAMING:
            yield f"{name_of(node)}: {word}"
    elif not is_named(node) and word in NAMING:
        yield f"{name_of(node)}: {word}"


def is_third_person(word: str) -> bool:
    """Tell whether a word looks like a verb of somebody else's, such as *sends*."""
    return word.endswith("s") and not word.endswith("ss")


def is_named(node: Documented) -> bool:
    """Tell whether this may be named, and need not say what to do."""
    if isinstance(node, ast.FunctionDef):
        return any("property" in ast.unparse(mark) for mark in node.decorator_list)
    return isinstance(node, ast.Module)


def name_of(node: Documented) -> str:
    """Give a name and a line to look for."""
    return "the module" if isinstance(node, ast.Module) else f"{node.lineno} {node.name}"


def sources() -> Iterator[tuple[str, str]]:
    """Find the files of the package and of the tests: name and text."""
    spec = importlib.util.find_spec("kokoon_async")
    assert spec is not None
    assert spec.origin is not None
    for root in (Path(spec.origin).parent, TESTS):
        for path in sorted(root.rglob("*.py")):
            yield path.relative_to(root.parent).as_posix(), path.read_text("utf-8")


def rules_for(name: str) -> set[Rule]:
    """Give the rules for a file; what a test's helpers begin with is left to their writers."""
    if name.startswith("tests/"):
        return {fresh_lines, crowded_entries}
    return {fresh_lines, crowded_entries, no_imperatives}


def test_docstrings_have_the_form() -> None:
    """Every docstring of the package and of the tests has the form."""
    found = [
        f"{name}: {breach}"
        for name, source in sources()
        for node, text in docstrings(source)
        for rule in rules_for(name)
        for breach in rule(node, text)
    ]
    assert found == []


GOOD = '''
"""The module."""

class Found(Event):
    """
    Tell of it.

    Attributes:
        one: Fits.

        two: Does not, so it goes
            on here: indented.

    Raises, while iterating:
        KokoonError: If so.
    """

    @property
    def size(self):
        """The size."""

    def pass_on(self):
        """Pass it on."""
'''


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("two: Does not, so it goes", "two:\n            It goes", fresh_lines),
        ("fits.\n\n", "fits.\n", crowded_entries),
        ("Tell of it.", "A thing that was found.", no_imperatives),
        ("Tell of it.", "Tells of it.", no_imperatives),
        ("Pass it on.", "Passes it on.", no_imperatives),
        ("Pass it on.", "The passing on.", no_imperatives),
    ],
)
def test_breaches_are_found(good: str, bad: str, rule: Rule) -> None:
    """What is in the form passes, and each breach is found by its rule."""
    source = GOOD.replace("Fits.", "fits.")
    assert good in source

    def breaches(text: str) -> list[str]:
        return [breach for node, said in docstrings(text) for breach in rule(node, said)]

    assert breaches(source) == []
    assert len(breaches(source.replace(good, bad))) == 1
