"""
The floors of the house: who may import whom, who may import what, and how large things may grow.

The tables on top are the rules; a module that stands in no row of FLOORS fails the tests. What is
read is the source of the package that Python would import.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest


# Bottom to top: a module imports only from floors below its own. An entry is a module or a folder;
# inside one folder imports are free.
FLOORS = (
    ("models", "simulator", "_text", "_version", "_http.bodies", "_http.echoes", "_http.hints"),
    ("errors", "_http.__init__", "_waiting.__init__"),
    ("_waiting.leavable", "_waiting.reserve", "_waiting.slices"),
    ("_checks", "_http.wire", "_waiting.work"),
    ("events",),
    ("polling", "_http.protocol", "_http.calls", "_http.converters"),
    ("_http.auth", "_http.retry", "_http.throttle", "_waiting.waits", "_waiting.outcomes"),
    ("_http.transport", "_http.pipeline", "_waiting.agenda"),
    ("_waiting.scheduler",),
    ("_waiting.streams", "_waiting.bulk", "_life"),
    ("client",),
    ("jobs",),
    ("__init__",),
    ("testing", "cli", "ext"),
    ("__main__",),
)

# The simulator stands apart: if it shared code with the client, an error in that code would cancel
# itself out in every test.
SIMULATOR_USERS = {"testing", "cli"}

# These prove that the public API is enough: no module and no name with an underscore. What cleans
# foreign text is no part of an SDK's surface, and a second copy of it would be worse.
PUBLIC_API_ONLY = {"cli", "ext"}
SHARED_ALL_THE_SAME = {"_text"}

# Which entries of FLOORS may import a library; "*" means all. The longest name that fits decides, so
# that "aiohttp" is everything of it but its server side. The standard library is free, except json.
LIBRARIES = {
    "attrs": {"*"},
    "yarl": {"*"},
    "aiohttp": {"_http.transport"},
    "aiohttp.abc": {"simulator"},
    "aiohttp.web": {"simulator", "testing"},
    "aiohttp.web_protocol": {"simulator"},
    "multidict": {"_http.transport", "_http.protocol"},
    "cattrs": {"_http.converters"},
    "orjson": {"_http.wire", "jobs", "cli"},
    # polling: what a policy has learned; _text: nothing that is read, only what is shown.
    "json": {"simulator", "testing", "cli", "polling", "_text"},
    "click": {"cli"},
    "rich": {"cli"},
    "pyarrow": {"jobs"},
    "pytest": {"testing"},
}
# The same, under `if TYPE_CHECKING:` only.
LIBRARIES_FOR_TYPES = {"aiohttp": {"_life"}}

# Fault F-56: deadlines and pauses use the event loop's clock, which nobody sets back.
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
}
WALL_CLOCK_USERS = {"cli", "jobs", "simulator"}

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}

MODULE_LINES = 350
BODY_LINES = 60
BODY_LINES_P90 = 25

PACKAGE = "kokoon_async"
ENTRIES = {entry: floor for floor, row in enumerate(FLOORS) for entry in row}


@attrs.frozen
class Import:
    """One imported name: *target* is dotted and absolute, as far as Python's grammar tells."""

    target: str
    line: int
    for_types: bool


@attrs.frozen
class Module:
    """One source file; *name* is relative to the package, such as `_http.wire`."""

    name: str
    source: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @classmethod
    def parse(cls, name: str, source: str) -> Module:
        """Read a module from its source."""
        tree = ast.parse(source)
        return cls(name, source, tree, tuple(find_imports(name, tree)))

    @property
    def entry(self) -> str:
        """The entry of FLOORS that the module belongs to; an empty text if there is none."""
        return entry_of(self.name)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def entry_of(name: str) -> str:
    """Return the entry of FLOORS for a module's name, or an empty text."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ENTRIES), "")


def find_imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """Find all imports of a module, wherever they stand."""
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for child in ast.walk(statement)
    }
    folder = [PACKAGE, *name.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            targets = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, id(node) in for_types)


def inner_imports(module: Module, known: set[str]) -> Iterator[tuple[Import, str]]:
    """Find the imports of the package itself, each with the name of the module that it needs."""
    for found in module.imports:
        if found.target.partition(".")[0] != PACKAGE:
            continue
        parts = found.target.split(".")[1:]
        # The longest part that is a module: the rest is a name inside of it.
        names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        needed = next((name for name in names if name in known or entry_of(name)), None)
        if needed is None:
            needed = f"{parts[0]}.__init__" if f"{parts[0]}.__init__" in known else "__init__"
        yield found, needed


# Rules: each takes all modules and yields one sentence per breach.


def unknown_modules(modules: list[Module]) -> Iterator[str]:
    """Find modules that stand in no row of the table."""
    for module in modules:
        if not module.entry:
            yield f"{module.name}: stands in no row of FLOORS"


def empty_names(modules: list[Module]) -> Iterator[str]:
    """Find modules whose name says nothing."""
    for module in modules:
        if EMPTY_NAMES & {part.strip("_") for part in module.name.split(".")}:
            yield f"{module.name}: say what it is for"


def imports_upwards(modules: list[Module]) -> Iterator[str]:
    """Find imports that do not go to a lower floor."""
    known = {module.name for module in modules}
    for module in modules:
        for found, needed in inner_imports(module, known):
            here, there = module.entry, entry_of(needed)
            if here and there and here != there and ENTRIES[there] >= ENTRIES[here]:
                yield f"{module.name}:{found.line}: {needed} is on no lower floor"


def simulator_ties(modules: list[Module]) -> Iterator[str]:
    """Find what ties the simulator to the rest of the package."""
    known = {module.name for module in modules}
    for module in modules:
        for found, needed in inner_imports(module, known):
            there = entry_of(needed)
            if module.entry == "simulator" and there != "simulator":
                yield f"{module.name}:{found.line}: the simulator imports {needed}"
            if there == "simulator" and module.entry not in {"simulator", *SIMULATOR_USERS}:
                yield f"{module.name}:{found.line}: imports the simulator"


def private_imports(modules: list[Module]) -> Iterator[str]:
    """Find private modules and names where only the public API may be used."""
    for module in modules:
        if module.entry not in PUBLIC_API_ONLY:
            continue
        own = f"{PACKAGE}.{module.entry}."
        for found in module.imports:
            parts = found.target.removesuffix("__version__").split(".")
            foreign = parts[0] == PACKAGE and not found.target.startswith(own)
            foreign = foreign and parts[1] not in SHARED_ALL_THE_SAME
            if foreign and any(part.startswith("_") for part in parts):
                yield f"{module.name}:{found.line}: {found.target} is private"


def library_imports(modules: list[Module]) -> Iterator[str]:
    """Find libraries in modules that have no business with them, and libraries in no row."""
    for module in modules:
        for found in module.imports:
            parts = found.target.split(".")
            names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            library = next((name for name in names if name in LIBRARIES), parts[0])
            if library in {PACKAGE, *sys.stdlib_module_names} - set(LIBRARIES):
                continue
            users = LIBRARIES.get(library, set())
            if found.for_types:
                users = users | LIBRARIES_FOR_TYPES.get(library, set())
            if not users & {module.entry, "*"}:
                yield f"{module.name}:{found.line}: imports {library}"


def wall_clocks(modules: list[Module]) -> Iterator[str]:
    """Find uses of the wall clock where only the event loop's clock may be used."""
    for module in modules:
        if module.entry in WALL_CLOCK_USERS:
            continue
        names = imported_names(module.tree)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                stem, dot, rest = ast.unparse(node).partition(".")
                if names.get(stem, stem) + dot + rest in WALL_CLOCKS:
                    yield f"{module.name}:{node.lineno}: reads the wall clock"


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Map the names that a module imports to what they stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def vanishing_code(modules: list[Module]) -> Iterator[str]:
    """Find what `python -O` leaves out."""
    for module in modules:
        for node in ast.walk(module.tree):
            named = isinstance(node, ast.Name) and node.id == "__debug__"
            if named or isinstance(node, ast.Assert):
                yield f"{module.name}:{node.lineno}: is left out under -O"


def long_modules(modules: list[Module]) -> Iterator[str]:
    """Find modules that grew too long."""
    for module in modules:
        lines = len(module.source.splitlines())
        if lines > MODULE_LINES:
            yield f"{module.name}: {lines} lines, at most {MODULE_LINES}"


def long_functions(modules: list[Module]) -> Iterator[str]:
    """Find functions that grew too long, and say so if too many of them are long."""
    lengths = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                lengths.append(body_length(node))
                if lengths[-1] > BODY_LINES:
                    yield f"{module.name}:{node.lineno}: {node.name}() has {lengths[-1]} lines"
    if lengths:
        p90 = sorted(lengths)[math.ceil(len(lengths) * 0.9) - 1]
        if p90 > BODY_LINES_P90:
            yield f"one function in ten has {p90} lines or more, at most {BODY_LINES_P90}"


def body_length(node: Function) -> int:
    """Count the lines of a function's body, without the docstring."""
    body = node.body if ast.get_docstring(node) is None else node.body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def missing_docstrings(modules: list[Module]) -> Iterator[str]:
    """Find modules, public classes and public functions without a docstring."""
    for module in modules:
        if ast.get_docstring(module.tree) is None:
            yield f"{module.name}: no docstring"
        for name, node in public_definitions(module.tree):
            if ast.get_docstring(node) is None:
                yield f"{module.name}:{node.lineno}: {name} has no docstring"


def public_definitions(
    parent: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Find public classes and functions, and those inside of public classes."""
    for node in parent.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        # An overload and a setter say nothing that the definition proper does not say.
        markers = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        if markers & {"overload", "override", "setter", "deleter"}:
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node, f"{prefix}{node.name}.")


RULES = (
    unknown_modules,
    empty_names,
    imports_upwards,
    simulator_ties,
    private_imports,
    library_imports,
    wall_clocks,
    vanishing_code,
    long_modules,
    long_functions,
    missing_docstrings,
)


@functools.cache
def read_package() -> list[Module]:
    """Read every module of the package."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    return [
        Module.parse(
            ".".join(path.relative_to(root).with_suffix("").parts), path.read_text("utf-8")
        )
        for path in sorted(root.rglob("*.py"))
    ]


@pytest.mark.parametrize("rule", RULES)
def test_package_keeps_rule(rule):
    """The package keeps the rule."""
    modules = read_package()
    assert modules
    assert "\n".join(rule(modules)) == ""


@pytest.mark.fault("F-56")
def test_no_deadline_depends_on_the_wall_clock():
    """Only the command line, jobs and the simulator read the wall clock, and only to show it."""
    assert "\n".join(wall_clocks(read_package())) == ""


@pytest.mark.fault("F-111")
def test_python_without_assertions_runs_the_same_code():
    """The package asserts nothing and asks for no `__debug__`, so `python -O` changes nothing."""
    assert "\n".join(vanishing_code(read_package())) == ""


@pytest.mark.fault("F-128")
def test_the_client_never_imports_the_simulator():
    """Only the command line and the pytest plugin import the simulator, and it nothing of ours."""
    assert "\n".join(simulator_ties(read_package())) == ""


def test_tests_have_docstrings():
    """Every test states its sentence."""
    folder = Path(__file__).parent
    silent = [
        f"{path.relative_to(folder)}:{node.lineno}: {node.name}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, Function)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert "\n".join(silent) == ""


BREACHES = [
    (unknown_modules, "_http.magic", ""),
    (empty_names, "_http.utils", ""),
    (empty_names, "_base", ""),
    (imports_upwards, "errors", "from .client import KokoonClient"),
    (imports_upwards, "models", "from .errors import InvalidVid"),
    (imports_upwards, "_http.wire", "from . import protocol"),
    (imports_upwards, "_http.wire", "from ..polling import Fixed"),
    (imports_upwards, "_http.auth", "import kokoon_async._http.retry"),
    (imports_upwards, "_http.auth", "def late():\n    from kokoon_async import KokoonClient"),
    (imports_upwards, "models", "if TYPE_CHECKING:\n    from .client import KokoonClient"),
    (imports_upwards, "_http.__init__", "from .wire import load"),
    (imports_upwards, "jobs", "from . import KokoonClient"),
    (simulator_ties, "simulator.app", "from kokoon_async.models import Image"),
    (simulator_ties, "client", "from .simulator import Simulator"),
    (private_imports, "cli.main", "from kokoon_async._http.wire import load"),
    (private_imports, "ext.dask", "from kokoon_async.client import _secret"),
    (library_imports, "client", "import aiohttp"),
    (library_imports, "_http.auth", "if TYPE_CHECKING:\n    import aiohttp"),
    (library_imports, "_http.transport", "from aiohttp import web"),
    (library_imports, "simulator", "from aiohttp import ClientSession"),
    (library_imports, "models", "from cattrs.preconf.orjson import make_converter"),
    (library_imports, "_http.protocol", "import orjson"),
    (library_imports, "_http.protocol", "import json"),
    (library_imports, "_http.retry", "import tenacity"),
    (wall_clocks, "polling", "import time\nnow = time.time()"),
    (wall_clocks, "polling", "from time import time as now\nstart = now()"),
    (wall_clocks, "client", "import datetime as dt\nstart = dt.datetime.now(tz=None)"),
    (wall_clocks, "client", "from datetime import datetime\nclock = datetime.utcnow"),
    (vanishing_code, "client", "assert True"),
    (vanishing_code, "client", "if __debug__:\n    check()"),
    (long_modules, "client", "\n" * (MODULE_LINES + 1)),
    (long_functions, "client", "def long():\n" + "    pass\n" * (BODY_LINES + 1)),
    (long_functions, "client", "def long():\n" + "    pass\n" * (BODY_LINES_P90 + 1)),
    (missing_docstrings, "client", ""),
    (missing_docstrings, "client", "'''Doc.'''\nclass Shown:\n    pass"),
    (
        missing_docstrings,
        "client",
        "'''Doc.'''\nclass Shown:\n    '''Doc.'''\n    def f(self): ...",
    ),
]


@pytest.mark.parametrize(("rule", "name", "source"), BREACHES)
def test_rule_finds_breach(rule, name, source):
    """Each rule does find what it is there for."""
    assert list(rule([Module.parse(name, source)]))


PROPER = [
    ("errors", "if TYPE_CHECKING:\n    from .models import Image"),
    ("_http.protocol", "from . import wire\nfrom ..errors import ApiError\nfrom .. import models"),
    ("_http.wire", "import attrs, yarl, orjson\nfrom datetime import UTC"),
    ("_waiting.streams", "from kokoon_async._waiting.scheduler import Scheduler"),
    ("polling.machine", "from .policies import Fixed"),
    ("simulator", "from aiohttp import web\nimport aiohttp.web\nimport time\nnow = time.time()"),
    ("_life", "if TYPE_CHECKING:\n    import aiohttp\nnow = loop.time()"),
    ("cli.main", "from kokoon_async import KokoonClient, __version__\nfrom . import _table"),
    ("cli.main", "from ..simulator import Simulator\nimport click"),
    ("client", "class _Hidden:\n    def shown(self): ..."),
]


@pytest.mark.parametrize(("name", "source"), PROPER)
def test_rules_accept_what_is_allowed(name, source):
    """No rule takes offence at what is allowed."""
    modules = [Module.parse(name, f"'''Doc.'''\n{source}")]
    assert "\n".join(breach for rule in RULES for breach in rule(modules)) == ""
