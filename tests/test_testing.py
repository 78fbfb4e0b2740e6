"""The pytest plugin, used from a project of its own, as users do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kokoon_async import testing
from kokoon_async.polling.policies import SHORTEST_DELAY


Run = Callable[..., subprocess.CompletedProcess[str]]

PROJECT = Path(__file__).parent / "plugin_project"
ASYNCIO = ("-p", "pytest_asyncio.plugin")
ANYIO = ("-p", "anyio.pytest_plugin")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs pytest in a copy of the project, with no plugin but those named."""
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project" / "conftest.py").write_text('pytest_plugins = ["kokoon_async.testing"]\n')

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=tmp_path / "project",
            env=env | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_client_looks_as_often_as_the_page_says() -> None:
    """The client's pause is one that a wait really makes, and the page on testing names it."""
    assert testing._POLL.interval == SHORTEST_DELAY
    assert testing._POLL.jitter == 0
    page = Path(__file__).parent.parent / "docs" / "testing.md"
    for text in (page.read_text("utf-8"), testing.__doc__):
        assert text is not None
        assert f"looks every {1000 * SHORTEST_DELAY:.0f} ms while it waits" in " ".join(
            text.split()
        )


def test_fixtures_work_in_strict_mode(run: Run) -> None:
    """With pytest-asyncio's strict mode, the fixtures are on the loop of each test."""
    done = run(*ASYNCIO, "test_upscaling.py")
    assert "5 passed" in done.stdout, done.stdout
    assert done.returncode == 0


@pytest.mark.fault("F-127")
def test_fixtures_work_in_auto_mode(run: Run) -> None:
    """In the other mode too; a fault that never struck fails a test, if it did not fail anyway."""
    done = run(*ASYNCIO, "-o", "asyncio_mode=auto", "test_upscaling.py", "test_unmet_faults.py")
    assert "3 failed, 5 passed, 1 skipped" in done.stdout, done.stdout
    assert "test_forgets_to_ask - Failed: 1 planned fault(s)" in done.stdout
    assert "test_asks_for_another - Failed: 2 planned fault(s)" in done.stdout
    assert "  Reset(at='before')\n" in done.stdout
    assert "test_fails_itself - RuntimeError: of the test's own" in done.stdout


def test_fixtures_work_with_anyio(run: Run) -> None:
    """With anyio the fixtures work on asyncio, and say so where they cannot."""
    pytest.importorskip("anyio")
    done = run(*ANYIO, "test_with_anyio.py")
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "kokoon_async needs asyncio, and not trio." in done.stdout


def test_anyio_is_known_by_its_fixtures(run: Run, tmp_path: Path) -> None:
    """The fixture *anyio_backend* tells that anyio runs a test; here the project stands in for it."""
    test = (
        "import pytest\n"
        "@pytest.fixture(params=['asyncio', 'trio'])\n"
        "def anyio_backend(request):\n    return request.param\n"
        "@pytest.fixture\n"
        "def anyio_backend_name(anyio_backend):\n    return anyio_backend\n"
        "async def test_alone(anyio_backend, kokoon_client, kokoon_simulator):\n"
        "    assert await kokoon_client.get_image(kokoon_simulator.add_image('completed'))\n"
    )
    (tmp_path / "project" / "test_alone.py").write_text(test)
    done = run(*ASYNCIO, "-o", "asyncio_mode=auto", "test_alone.py")
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "kokoon_async needs asyncio, and not trio." in done.stdout


def test_plugin_says_what_it_needs(run: Run, tmp_path: Path) -> None:
    """Without a plugin for async tests the fixtures say so, and a project that uses none pays nothing."""
    test = (
        "import sys\n"
        "def test_client(kokoon_client): ...\n"
        "def test_other():\n    assert 'aiohttp.web' not in sys.modules\n"
    )
    (tmp_path / "project" / "test_alone.py").write_text(test)
    done = run("test_alone.py")
    assert "The fixtures of kokoon_async need pytest-asyncio or anyio." in done.stdout
    assert "1 passed, 1 error" in done.stdout
