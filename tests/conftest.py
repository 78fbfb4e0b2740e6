"""
Fixtures for all tests, and what every test is watched for without asking.

* No secret: `canary.py`, in log, warnings and output.
* No blocking call of the package or of aiohttp in an event loop (mark `may_block`).
* No connection, nor a look-up, beyond loopback.
* No real wait of an event loop beyond a moment (`heavy` tests may).
* Nothing left behind (mark `may_leak`): no task, no open socket, transport or session, no error
  that asyncio could only log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import ipaddress
import logging
import os
import socket
import ssl
import types
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import attrs
import coverage
import hypothesis
import looptime as looptime_library
import pytest
import trustme
from aioresponses import aioresponses
from blockbuster import BlockBuster, BlockBusterFunction

from . import canary, figures
from .loop_watch import watching_waits
from .raw_server import LOOPBACK, Behaviour, RawServer


# `HYPOTHESIS_PROFILE=thorough pytest -m hypothesis`, or pytest's own option --hypothesis-profile.
# docs/decisions.md, 33, says which is for what.
hypothesis.settings.register_profile(
    "default", derandomize=True, max_examples=50, deadline=None, print_blob=True
)
hypothesis.settings.register_profile(
    "goal", parent=hypothesis.settings.get_profile("default"), max_examples=200
)
for profile, examples in {"thorough": 2_000, "night": 20_000}.items():
    hypothesis.settings.register_profile(
        profile, derandomize=False, max_examples=examples, deadline=None, print_blob=True
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    config.addinivalue_line("markers", "may_block: the test may block the event loop; say why")
    config.addinivalue_line("markers", "may_leak: the test leaves things behind; say why")
    config.addinivalue_line("markers", "heavy: the test takes minutes, and KOKOON_HEAVY=1 to run")
    config.addinivalue_line("markers", "unmeasured: coverage looks away while the test runs")


def _remembering(
    decides: Callable[[Any, pytest.FixtureRequest], bool],
) -> Callable[[Any, pytest.FixtureRequest], bool]:
    """Let a decision about a fixture be made once."""
    known: dict[tuple[str, str], bool] = {}

    def decide_once(fixture: Any, request: pytest.FixtureRequest) -> bool:
        key = fixture.func.__module__, fixture.argname
        if key not in known:
            known[key] = decides(fixture, request)
        return known[key]

    return decide_once


# For each fixture of each test, it looks through a whole module: a tenth of the time of all tests.
# Another version than 0.9 may have another inside, and is left alone then.
with contextlib.suppress(ImportError, AttributeError):
    looptime_plugin: Any = importlib.import_module("looptime._internal.plugin")
    looptime_plugin._should_patch = _remembering(looptime_plugin._should_patch)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what takes minutes, unless it is asked for: `nox -s heavy`."""
    if item.get_closest_marker("heavy") and "KOKOON_HEAVY" not in os.environ:
        pytest.skip("heavy: takes minutes, set KOKOON_HEAVY=1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """
    Let coverage look away from a test that is marked `unmeasured`, and from the programs it starts.

    The mark is for tests that go through the same lines hundreds of times, in ever other orders:
    watching them took a quarter of the time of all tests, and finds no line that others do not reach.
    """
    watching = coverage.Coverage.current()
    if watching is None or item.get_closest_marker("unmeasured") is None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # set by patch = ["subprocess"]
        watching.stop()
        try:
            return (yield)
        finally:
            watching.start()


# --- figures: see `figures.py` ---------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the figures of a worker of pytest-xdist to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = dict(figures.RECORDED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the figures of a worker that has ended; one that crashed has none."""
    figures.add_figures(getattr(node, "workeroutput", {}).get("figures", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have counted."""
    if told := figures.summary():
        terminalreporter.write_line(f"figures: {told}")


# --- what every test is watched for ---------------------------------------------------------------


@pytest.fixture(autouse=True)
def canary_watch() -> Iterator[canary.CanaryWatch]:
    """Fail the test if a canary was logged, warned about or read from capsys."""
    with canary.watching() as watch:
        yield watch
    watch.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Fail the test if a canary was printed; the last phase's report has the output of all."""
    report = yield
    if report.when == "teardown":
        canary.check_report(report)
    return report


class ForbiddenConnect(Exception):
    """A test tried to leave loopback."""


@attrs.define
class LoopbackGuard:
    """
    Stands before `connect` and `getaddrinfo`, and remembers whom it refused.

    It must remember, since the code under test may take the refusal for a network error.
    """

    refused: list[str] = attrs.field(factory=list)

    def check(self, host: Any) -> None:
        """Refuse any *host* but loopback, which may be spelled as a name, and Unix sockets."""
        if not isinstance(host, str) or host in {"", "localhost"}:
            return
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
                return
        self.refused.append(host)
        raise ForbiddenConnect(host)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the guard in its place."""
        look_up = socket.getaddrinfo

        def guarded_look_up(host: Any, *args: Any, **options: Any) -> Any:
            self.check(host.decode() if isinstance(host, bytes) else host)
            return look_up(host, *args, **options)

        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, self._guarded(getattr(socket.socket, name)))

    def _guarded(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(sock: socket.socket, address: Any) -> Any:
            self.check(address[0] if isinstance(address, tuple) else None)
            return connect(sock, address)

        return guarded


@pytest.fixture(scope="session")
def _loopback_guard() -> Iterator[LoopbackGuard]:
    guard = LoopbackGuard()
    with pytest.MonkeyPatch.context() as patch:
        guard.install(patch)
        yield guard


@pytest.fixture(autouse=True)
def loopback_only(_loopback_guard: LoopbackGuard) -> Iterator[LoopbackGuard]:
    """Fail the test if anything in it tried to leave loopback, even if it caught the refusal."""
    _loopback_guard.refused.clear()
    yield _loopback_guard
    if _loopback_guard.refused:
        pytest.fail(f"tried to connect to {_loopback_guard.refused}")


def _unimported(package: str) -> types.ModuleType:
    # BlockBuster would import it; but a package that does not import must fail its own tests only.
    module = types.ModuleType(package)
    spec = importlib.util.find_spec(package)
    assert spec is not None
    module.__path__ = list(spec.submodule_search_locations or [])
    return module


@pytest.fixture(scope="session")
def _blockbuster(_loopback_guard: LoopbackGuard) -> Iterator[BlockBuster]:
    # Only what the package or aiohttp do on the way counts, so that a test may read a file in its
    # own body; but no sleep of anybody. It is active for the whole session, since to switch it on
    # and off takes half a millisecond.
    buster = BlockBuster([_unimported("kokoon_async"), _unimported("aiohttp")])
    buster.functions["time.sleep"] = BlockBusterFunction(None, "time.sleep")
    # When a thread of ours is measured too, coverage may have to wait for it, for microseconds.
    buster.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
    buster.activate()
    yield buster
    buster.deactivate()


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest, _blockbuster: BlockBuster) -> Iterator[None]:
    """Raise `blockbuster.BlockingError` where the event loop would be blocked."""
    if request.node.get_closest_marker("may_block") is None:
        yield
        return
    _blockbuster.deactivate()
    yield
    _blockbuster.activate()


@pytest.fixture(scope="session")
def _waits() -> Iterator[list[float]]:
    with watching_waits() as waits:
        yield waits


@pytest.fixture(autouse=True)
def no_long_wait(request: pytest.FixtureRequest, _waits: list[float]) -> Iterator[list[float]]:
    """Fail the test if its event loop waited for real, and in vain: G20."""
    _waits.clear()
    yield _waits
    if _waits and request.node.get_closest_marker("heavy") is None:
        pytest.fail(f"waited for {_waits} s: use virtual time (looptime)")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(10):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=0.1)
    pytest.fail(f"tasks left: {', '.join(sorted(map(repr, left)))}")


@pytest.fixture
def quiet() -> Iterator[None]:
    """Let nobody hear of events: other fixtures listen to the log, which takes time and memory."""
    log = logging.getLogger("kokoon_async")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Fail an async test whose loop still has tasks when all other fixtures are done."""
    node = request.node
    if node.get_closest_marker("asyncio") and not node.get_closest_marker("may_leak"):
        request.getfixturevalue("_no_task_left")


class _AsyncioErrors(logging.Handler):
    # "Task exception was never retrieved", "Unclosed client session" and the like.

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


_asyncio_errors = _AsyncioErrors()
logging.getLogger("asyncio").addHandler(_asyncio_errors)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what exists before the first test: a collection then takes 1 ms and not 40."""
    gc.collect()
    gc.freeze()
    asyncio.set_event_loop(None)  # or the plugins' `get_event_loop` makes one that nobody closes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Any:
    """
    Collect the garbage once all fixtures are gone, and fail the test for what comes to light.

    A warning from a finaliser cannot be raised, so the filter "error" alone would only let some
    later test fail.
    """
    try:
        result = yield
    finally:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gc.collect()
        gc.freeze()
        found = [f"{w.category.__name__}: {w.message}" for w in caught] + _asyncio_errors.messages
        _asyncio_errors.messages.clear()
    if found and item.get_closest_marker("may_leak") is None:
        pytest.fail("left behind:\n" + "\n".join(found), pytrace=False)
    return result


# --- what tests ask for ---------------------------------------------------------------------------


@pytest.fixture
def responses(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """
    Mock `ClientSession` for tests of the adapter; time, bytes and middlewares need a real server.

    aioresponses 0.7.9 does not pass the `stream_writer` that aiohttp 3.14 wants; drop the shim
    when https://github.com/pnuckowski/aioresponses/issues/289 is closed.
    """

    class Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"stream_writer": Mock(output_size=0), **options})

    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)
    with aioresponses() as mock:
        yield mock


@attrs.frozen
class TlsPair:
    """
    What both ends of a TLS connection to loopback need.

    Attributes:
        server: For `raw_server(..., tls=...)`.

        client: Trusts that server; a default context does not.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls_pair() -> TlsPair:
    """Return contexts for server and client, with a certificate made for this run."""
    authority = trustme.CA()
    pair = TlsPair(
        server=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        client=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    authority.issue_cert(LOOPBACK, "localhost").configure_cert(pair.server)
    authority.configure_trust(pair.client)
    return pair


RawServerFactory = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def raw_server() -> AsyncIterator[RawServerFactory]:
    """Return a coroutine function that starts a server, which stops after the test."""
    async with contextlib.AsyncExitStack() as servers:

        async def start(
            *behaviours: Behaviour | bytes, tls: ssl.SSLContext | None = None
        ) -> RawServer:
            return await servers.enter_async_context(RawServer(*behaviours, tls=tls))

        yield start


@pytest.fixture
def virtual_time(
    request: pytest.FixtureRequest, looptime: looptime_library.LoopTimeProxy
) -> looptime_library.LoopTimeProxy:
    """
    Skip all waiting in this test, and return the loop's clock, a number that starts near 0.

    The same as `@pytest.mark.looptime` and the fixture `looptime` together. Measured with looptime
    0.9 and pytest-asyncio 1.5: real sockets on loopback work, 100 polls 60 s apart take 0.2 s
    (E36), and blockbuster does not mind. Mind that time jumps when nothing has happened for 42 turns of
    the loop, so what a thread or another process answers may come too late; and that in fixtures
    the loop has the real clock, so a timer started there does not fire in the test.
    """
    request.node.add_marker(pytest.mark.looptime)
    return looptime
