"""
A pytest plugin for tests of code that uses this package.

Switch it on in the ``conftest.py`` at the top of your tests::

    pytest_plugins = ["kokoon_async.testing"]

It brings two fixtures for async tests, whether pytest-asyncio runs them, in any mode and
loop scope, or anyio on asyncio:

``kokoon_simulator``
    A local Kokoon, new for each test. Faults that were planned and never struck fail the
    test, since then it did not test what it meant to.

``kokoon_client``
    A client of that simulator, which looks every 100 ms while it waits, so that tests are
    fast. To test another one, make it with ``base_url=kokoon_simulator.base_url``.
"""

from collections.abc import AsyncIterator, Generator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from . import Fixed, KokoonClient


if TYPE_CHECKING:
    from .simulator import Simulator


__all__ = ["kokoon_client", "kokoon_simulator"]

_LOOP_SCOPES = ("function", "class", "module", "package", "session")
_MOST_LISTED = 20
# Seconds: the shortest pause that a wait makes. The usual policy would make longer ones.
_POLL = Fixed(0.1, jitter=0)

_used_simulator = pytest.StashKey["Simulator"]()


@pytest.fixture
def kokoon_simulator(request: pytest.FixtureRequest) -> "Simulator":
    """Give a running simulator; planned faults that never strike fail the test."""
    simulator: Simulator = request.getfixturevalue(f"_kokoon_simulator_{_runner(request)}")
    request.node.stash[_used_simulator] = simulator
    return simulator


@pytest.fixture
def kokoon_client(
    request: pytest.FixtureRequest,
    kokoon_simulator: "Simulator",  # noqa: ARG001 - the client's fixture asks for it by name
) -> KokoonClient:
    """Give a client of the simulator."""
    client: KokoonClient = request.getfixturevalue(f"_kokoon_client_{_runner(request)}")
    return client


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Fail a test that passed, but left planned faults unmet (F-127)."""
    try:
        result = yield
    finally:
        simulator = pyfuncitem.stash.get(_used_simulator, None)
        unmet = simulator.unconsumed_faults if simulator is not None else ()
        if simulator is not None:
            simulator.clear_faults()  # said here, or the test has failed for another reason
    if unmet:
        listed = "\n".join(f"  {fault}" for fault in unmet[:_MOST_LISTED])
        pytest.fail(f"{len(unmet)} planned fault(s) never struck:\n{listed}", pytrace=False)
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Make the async fixtures, one for each way in which a test may be run."""
    _register(config, "anyio", pytest.fixture)
    pytest_asyncio = _find_pytest_asyncio(config)
    if pytest_asyncio is not None:
        for scope in _LOOP_SCOPES:
            # In its strict mode pytest-asyncio sees only what its own decorator made.
            _register(config, f"asyncio_{scope}", pytest_asyncio.fixture, loop_scope=scope)


def _register(config: pytest.Config, runner: str, fixture: Any, **options: Any) -> None:
    # Functions of its own each time, since pytest-asyncio writes the options on them.
    async def simulator() -> "AsyncIterator[Simulator]":
        from .simulator import Simulator  # with a web server, which few tests of a project need

        async with Simulator(strict=True) as running:
            yield running

    async def client(kokoon_simulator: "Simulator") -> AsyncIterator[KokoonClient]:
        base_url = kokoon_simulator.base_url
        async with KokoonClient("test", base_url=base_url, poll=_POLL) as opened:
            yield opened

    plugin = ModuleType(f"kokoon_async fixtures for {runner}")  # pytest looks for them in modules
    for function in (simulator, client):
        name = f"_kokoon_{function.__name__}_{runner}"
        setattr(plugin, name, fixture(function, name=name, **options))
    config.pluginmanager.register(plugin)


def _find_pytest_asyncio(config: pytest.Config) -> Any:
    # Its name as an entry point, and the one that it has after ``-p pytest_asyncio.plugin``.
    names = ("asyncio", "pytest_asyncio.plugin")
    return next(filter(None, map(config.pluginmanager.get_plugin, names)), None)


def _runner(request: pytest.FixtureRequest) -> str:
    """Name who runs the test, on which loop: a server must run on the loop of its test."""
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.fail(f"kokoon_async needs asyncio, and not {backend}.", pytrace=False)
        return "anyio"
    if _find_pytest_asyncio(request.config) is None:
        pytest.fail("The fixtures of kokoon_async need pytest-asyncio or anyio.", pytrace=False)
    marker = request.node.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope") if marker else None
    return f"asyncio_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
