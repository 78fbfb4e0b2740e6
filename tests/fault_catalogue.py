"""
Write docs/faults.md: each fault of the catalogue, what the package does then, and the tests.

The faults stand in fault_catalogue.toml; which test proves what is read from the marks
`@pytest.mark.fault("F-42")`, and what the package does from the docstrings of these tests. Nothing
is imported and no test is run, so this needs nothing but Python; `nox -s faults` does it too:

    python tests/fault_catalogue.py
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "faults.md"

SHOWN_TESTS = 3
SHOWN_SENTENCES = 2

Function = ast.FunctionDef | ast.AsyncFunctionDef

HEAD = """\
# Faults, and what becomes of them

This page is made by `nox -s faults` from `tests/fault_catalogue.toml` and from the tests' marks; a test fails if it is not as that would make it.
What a line says the package does is what its tests say; `pytest -m fault` runs all of them.
The numbers are those of the project's catalogue of faults and do not change.

{counts}
"""

TAIL = """
## Not here

These numbers of the catalogue do not apply; [decision 25](decisions.md) says more.

| # | Why |
| --- | --- |
"""


@dataclass(frozen=True)
class Section:
    """Some faults of one kind: numbers and what goes wrong."""

    title: str
    faults: dict[str, str]


@dataclass(frozen=True)
class Catalogue:
    """
    What fault_catalogue.toml says.

    Attributes:
        not_here: Numbers that do not apply, and why.

        show: The names of the tests to name for a number.
    """

    sections: list[Section]
    not_here: dict[str, str]
    show: dict[str, list[str]]

    @classmethod
    def read(cls) -> Catalogue:
        """Read the file beside this one."""
        data = tomllib.loads((TESTS / "fault_catalogue.toml").read_text("utf-8"))
        sections = [Section(each["title"], each["faults"]) for each in data["section"]]
        return cls(sections, data["not_here"], data["show"])

    @property
    def faults(self) -> dict[str, str]:
        """All numbers that apply, and what goes wrong."""
        return {key: fault for each in self.sections for key, fault in each.faults.items()}


@dataclass(frozen=True)
class MarkedTest:
    """
    A test with marks of one kind.

    Attributes:
        path: Its file, relative to the tests' folder.

        says: The first sentence of its docstring.

        marks: The arguments of its marks, in their order.
    """

    path: str
    name: str
    says: str
    marks: tuple[str, ...]

    @property
    def is_about_the_simulator(self) -> bool:
        """Whether it shows that the fault can be made, and not what the package does then."""
        return self.path.startswith("test_simulator")


def marked_tests(mark: str, folder: Path = TESTS) -> list[MarkedTest]:
    """Find all tests with a mark, such as "fault": their own, their class's or module's, a case's."""
    sources = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("test_*.py"))}
    return [
        test
        for name, source in sources.items()
        if f"pytest.mark.{mark}(" in source
        for test in marked_in(name, source, mark)
    ]


def marked_in(path: str, source: str, mark: str) -> Iterator[MarkedTest]:
    """
    Find a module's tests with a mark.

    Raises:
        ValueError: If a mark stands where it belongs to no test.
    """
    module = ast.parse(source)
    names = {
        target.id: statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    } | {
        statement.target.id: statement.value
        for statement in module.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and statement.value is not None
    }
    used: set[int] = set()
    for scope, test in functions_with_scope(module):
        marks = []
        for expression in [*test.decorator_list, *scope]:
            for call in marks_in(expression, mark, names):
                used.add(id(call))
                marks.append(argument_of(call))
        if marks:
            says = first_sentence(ast.get_docstring(test) or "")
            yield MarkedTest(path, test.name, says, tuple(dict.fromkeys(marks)))
    for call in marks_in(module, mark, {}):
        if id(call) not in used:
            raise ValueError(f"{path}:{call.lineno}: this mark belongs to no test")


def functions_with_scope(
    parent: ast.Module | ast.ClassDef, scope: tuple[ast.expr, ...] = ()
) -> Iterator[tuple[tuple[ast.expr, ...], Function]]:
    """Find tests, each with the `pytestmark`s and class decorators that hold for it."""
    for node in parent.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "pytestmark"
        ):
            scope = (*scope, node.value)
    for node in parent.body:
        if isinstance(node, Function) and node.name.startswith("test_"):
            yield scope, node
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from functions_with_scope(node, (*scope, *node.decorator_list))


def marks_in(
    expression: ast.AST, mark: str, names: dict[str, ast.expr], seen: frozenset[str] = frozenset()
) -> Iterator[ast.Call]:
    """Find the calls of a mark in an expression, and in what the module's names in it stand for."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{mark}":
            yield node
        elif isinstance(node, ast.Name) and node.id in names and node.id not in seen:
            yield from marks_in(names[node.id], mark, names, seen | {node.id})


def argument_of(call: ast.Call) -> str:
    """Give the one text that a mark says."""
    (argument,) = call.args
    value = ast.literal_eval(argument)
    if not isinstance(value, str):
        raise TypeError(f"line {call.lineno}: a mark says one text")
    return value


def first_sentence(docstring: str) -> str:
    """Give a docstring's first paragraph in one line, without the numbers that it refers to."""
    paragraph = " ".join(docstring.split("\n\n", maxsplit=1)[0].split())
    plain = re.sub(r"^[EFG]\d+\b[^:.]*: |,? ?\((?:[EFGU]-?\d+(?:, )?)+\)", "", paragraph)
    return plain[:1].upper() + plain[1:]


def page(catalogue: Catalogue, tests: list[MarkedTest]) -> str:
    """Write the page."""
    by_number: dict[str, list[MarkedTest]] = {}
    for test in tests:
        for number in test.marks:
            by_number.setdefault(number, []).append(test)
    counts = (
        f"{len(catalogue.faults)} faults apply, held by {len(tests)} tests;"
        f" {len(catalogue.not_here)} do not apply."
    )
    parts = [HEAD.format(counts=counts)]
    for section in catalogue.sections:
        parts.append(
            f"\n## {section.title}\n\n| # | Fault | What happens | Tests |\n| --- | --- | --- | --- |\n"
        )
        for number, fault in section.faults.items():
            chosen = clearest(by_number.get(number, []), catalogue.show.get(number, []))
            parts.append(row(number, fault, chosen, len(by_number.get(number, []))))
    parts.append(TAIL)
    parts += [f"| {number} | {reason} |\n" for number, reason in catalogue.not_here.items()]
    return "".join(parts)


def clearest(tests: list[MarkedTest], wanted: list[str]) -> list[MarkedTest]:
    """Choose the tests to name: those that are wanted, or else those with the fewest other marks."""
    if wanted:
        return [test for name in wanted for test in tests if test.name == name]
    of_package = [test for test in tests if not test.is_about_the_simulator]
    return sorted(of_package or tests, key=lambda test: len(test.marks))[:SHOWN_TESTS]


def row(number: str, fault: str, shown: list[MarkedTest], count: int) -> str:
    """Write the row of one fault."""
    says = " ".join(dict.fromkeys(test.says for test in shown[:SHOWN_SENTENCES]))
    links = ", ".join(f"[{test.name}](../tests/{test.path})" for test in shown)
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"| {number} | {fault} | {says.replace('|', chr(92) + '|')} | {links}{more} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(Catalogue.read(), marked_tests("fault")), "utf-8")
