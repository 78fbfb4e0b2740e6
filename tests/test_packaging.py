"""What an installation holds, and what importing it costs."""

from __future__ import annotations

import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import kokoon_async


ROOT = Path(__file__).parent.parent


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter, one that nothing measures."""
    env = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def test_all_is_what_the_package_exposes():
    """Every public name stands in `__all__`, and every name in `__all__` exists."""
    exposed = {
        name
        for name, value in vars(kokoon_async).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    listed = set(kokoon_async.__all__)
    assert exposed - listed == set()
    assert [name for name in listed if not hasattr(kokoon_async, name)] == []


def test_security_page_names_every_public_module():
    """The promise of compatibility lists all modules without an underscore but the command's."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    [listed] = re.findall(r"modules without an underscore \(([^)]*)\)", text)
    names = {name.removeprefix("kokoon_async") for name in re.findall(r"`([\w.]+)`", listed)}
    found = {f".{module.name}" for module in pkgutil.iter_modules(kokoon_async.__path__)}
    assert names == {name for name in found if not name.startswith("._")} - {".cli"}


def test_version_is_that_of_the_distribution():
    """The version that the package states is the one it was installed as."""
    assert kokoon_async.__version__ == importlib.metadata.version("kokoon-async")
    with pytest.raises(AttributeError, match="no_such_name"):
        kokoon_async.no_such_name  # noqa: B018


def test_types_are_marked():
    """Type checkers are told that the package has types."""
    assert Path(kokoon_async.__file__).with_name("py.typed").is_file()


def test_command_is_installed():
    """The distribution brings the command `kokoon-async`, and no pytest plugin that loads itself."""
    points = importlib.metadata.distribution("kokoon-async").entry_points
    assert {(point.group, point.name, point.value) for point in points} == {
        ("console_scripts", "kokoon-async", "kokoon_async.cli:main")
    }


@pytest.mark.fault("F-128")
def test_import_is_light():
    """Importing the package loads no server, no extra, no test tool, and no cattrs."""
    code = "import sys, kokoon_async; print(*sys.modules, sep='\\n')"
    loaded = set(run_python("-c", code).stdout.split())
    assert "kokoon_async" in loaded
    heavy = {
        *("aiohttp.web", "cattrs", "click", "rich", "pyarrow", "pytest", "_pytest"),
        *("kokoon_async.simulator", "kokoon_async.testing", "kokoon_async.cli"),
    }
    assert loaded & heavy == set()


def test_import_is_clean():
    """Importing the package in development mode warns of nothing."""
    done = run_python("-W", "error", "-X", "dev", "-c", "import kokoon_async")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Older ones have known advisories (orjson's is CVE-2025-67221). `nox -s audit` asks for new ones,
# which needs a network; this needs none.
SAFE_FROM = {"aiohttp": "3.14.3", "orjson": "3.11.6"}


@pytest.mark.parametrize("name", SAFE_FROM)
def test_no_version_with_known_advisories_is_allowed(name: str):
    """Neither what is required nor what is installed here is older than the lowest safe version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [required] = [each for each in map(Requirement, project["dependencies"]) if each.name == name]
    [bound] = required.specifier
    assert bound.operator == ">="
    safe = Version(SAFE_FROM[name])
    assert Version(bound.version) >= safe
    assert Version(importlib.metadata.version(name)) >= safe


@pytest.mark.skipif("NOX_CURRENT_SESSION" not in os.environ, reason="nox installs the wheel")
def test_wheel_is_tested():
    """Under nox it is the installed wheel that is tested, and not the working tree."""
    assert Path(kokoon_async.__file__).is_relative_to(sysconfig.get_path("purelib"))


def test_ci_runs_what_the_readme_says():
    """CI runs the very command that the README gives for running the tests."""
    command = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"
    assert command in (ROOT / ".ci" / "run").read_text("utf-8")
    assert command in (ROOT / "README.md").read_text("utf-8")
