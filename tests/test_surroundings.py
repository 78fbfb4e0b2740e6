"""
What the machine around a client does to it: names, addresses, descriptors, settings, processes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from kokoon_async import KokoonClient
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.retry import RetryPolicy
from kokoon_async.errors import ClientClosed, ConnectionFailed, RequestTimedOut
from kokoon_async.events import RetryScheduled
from kokoon_async.polling import Fixed
from kokoon_async.simulator import Simulator, Status

from .canary import CANARY_TOKEN, assert_no_secret
from .conftest import RawServerFactory
from .fakes import VID, client_of, make_vid, outcome, turns
from .raw_server import (
    LOOPBACK,
    Behaviour,
    RawConnection,
    RawServer,
    answer_each,
    record_response,
)


looptime = pytest.mark.looptime

GOOD = record_response(VID)


# -- names and addresses ---------------------------------------------------------------------------


class Resolver(AbstractResolver):
    """Give the addresses, or raise the errors, of a list: one per look-up, the last one for ever."""

    def __init__(self, *results: list[tuple[str, int]] | OSError) -> None:
        self.results = results
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look up *host*."""
        result = self.results[min(self.asked, len(self.results) - 1)]
        self.asked += 1
        if isinstance(result, OSError):
            raise result
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=own_port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, own_port in result
        ]

    async def close(self) -> None:
        """Close."""


def look_up_with(client: KokoonClient, resolver: AbstractResolver) -> None:
    """Let a client's own session look names up with *resolver*."""
    connector: Any = client._transport._usable_session().connector
    connector._resolver = resolver


BY_NAME = {"base_url": "http://api.example/v3", "allow_plain_http": True}


@pytest.mark.fault("F-10")
@looptime
async def test_an_address_that_swallows_all(
    raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where IPv6 leads nowhere, IPv4 is tried within a quarter of a second (happy eyeballs)."""
    server = await raw_server(GOOD)
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect
    swallowed = []

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_INET6:
            swallowed.append(address)
            await asyncio.sleep(10_000)
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    async with client_of(**BY_NAME) as client:
        look_up_with(client, Resolver([("::1", server.port), (LOOPBACK, server.port)]))
        assert (await client.get_image(VID)).vid == VID
    assert len(swallowed) == 1
    assert 0 < loop.time() < 1


@pytest.mark.fault("F-09")
@looptime
@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_NONAME])
async def test_a_look_up_that_fails_for_a_moment(raw_server: RawServerFactory, code: int) -> None:
    """A look-up that fails is tried again as any connection is."""
    server = await raw_server(GOOD)
    resolver = Resolver(socket.gaierror(code, "not now"), [(LOOPBACK, server.port)])
    async with client_of(**BY_NAME, attempts=2) as client:
        look_up_with(client, resolver)
        assert (await client.get_image(VID)).vid == VID
    assert resolver.asked == 2


@pytest.mark.fault("F-09")
async def test_look_ups_that_hang_leave_threads_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty calls to one name take one thread for its look-up, so that other work goes on."""
    gate = threading.Event()
    asked = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        gate.wait()
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        async with client_of(**BY_NAME, timeouts=Timeouts(connect=0.03)) as client:
            calls = [outcome(client.get_image(make_vid(number))) for number in range(40)]
            errors = await asyncio.gather(*calls)
            assert {type(error) for error in errors} == {RequestTimedOut}
            assert asked == ["api.example"]
            assert await asyncio.to_thread(lambda: "work") == "work"
            gate.set()
            await asyncio.sleep(0.005)
    finally:
        gate.set()


# -- TLS settings ----------------------------------------------------------------------------------


def handshake_with(context: ssl.SSLContext) -> Behaviour:
    """Shake hands as far as *context* lets it, and send what OpenSSL then says: asyncio would not."""

    async def behave(connection: RawConnection) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(await connection.reader.read(65_536))
        with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
            tls.do_handshake()
        await connection.write(outgoing.read())
        await connection.wait_hung_up()

    return behave


@pytest.mark.fault("F-11")
@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="this OpenSSL has no old TLS to offer")
async def test_a_server_with_an_old_tls(
    raw_server: RawServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that speaks TLS 1.1 at most gets no request from our own session, which says why."""
    authority = trustme.CA()
    old, new = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    lax = ssl.create_default_context()
    for context in (old, lax):
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # or OpenSSL would not offer it at all
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    for context in (old, new):
        authority.issue_cert(LOOPBACK).configure_cert(context)
    authority.configure_trust(lax)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    # aiohttp makes its default context once, when it is imported.
    default = aiohttp.connector._make_ssl_context(verified=True)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", default)

    offering, modern = await raw_server(GOOD, tls=old), await raw_server(GOOD, tls=new)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=lax))
    async with session, session.get(offering.base_url) as response:
        assert response.status == 200, "the server does not offer TLS 1.1"
    async with client_of(modern.base_url) as client:
        assert (await client.get_image(VID)).vid == VID, "the authority is not trusted"
    refusing = await raw_server(handshake_with(old))
    for server, said in (
        (offering, "ConnectionResetError"),
        (refusing, "alert protocol version"),
    ):
        base_url = server.base_url.replace("http:", "https:")
        async with client_of(base_url, token=CANARY_TOKEN) as client:
            error = await outcome(client.get_image(VID))
        assert isinstance(error, ConnectionFailed)
        assert said in error.message
        assert_no_secret(error)
    assert [len(offering.requests), len(refusing.requests)] == [1, 0]


KEY_LOG_PROGRAM = """
    import asyncio, ssl, sys
    import aiohttp
    from kokoon_async import KokoonClient

    async def main(base_url, own):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            session = session if own == "own" else None
            async with KokoonClient("token", base_url=base_url, session=session) as client:
                await client.get_image("de5e9990-c0fb-11ee-961f-d12490e606ad")

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.fault("F-12")
@pytest.mark.parametrize(("whose", "logged"), [("ours", True), ("own", False)])
async def test_keys_are_logged_only_by_default_settings(
    raw_server: RawServerFactory, tmp_path: Path, whose: str, logged: bool
) -> None:
    """SSLKEYLOGFILE works as in any Python program, but not for the session that SECURITY.md shows."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(LOOPBACK).configure_cert(server_side)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    keys = tmp_path / "keys"
    server = await raw_server(GOOD, tls=server_side)
    env = {"SSLKEYLOGFILE": str(keys), "SSL_CERT_FILE": str(tmp_path / "authority.pem")}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(KEY_LOG_PROGRAM), server.base_url, whose),
        env=os.environ | env,
    )
    assert await program.wait() == 0
    assert len(server.requests) == 1
    assert (keys.exists() and b"TRAFFIC_SECRET" in keys.read_bytes()) == logged


# -- descriptors -----------------------------------------------------------------------------------


@attrs.define
class Descriptors:
    """Let this process have no further file descriptor, and give them back."""

    limits: tuple[int, int]
    resource: Any

    def take_away(self) -> None:
        """Allow no number above those in use."""
        lowest_free = os.dup(0)
        os.close(lowest_free)
        self.resource.setrlimit(self.resource.RLIMIT_NOFILE, (lowest_free, self.limits[1]))

    def give_back(self) -> None:
        """Allow as many as before."""
        self.resource.setrlimit(self.resource.RLIMIT_NOFILE, self.limits)


@pytest.fixture
def descriptors() -> Iterator[Descriptors]:
    """Give control of the number of file descriptors."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    control = Descriptors(resource.getrlimit(resource.RLIMIT_NOFILE), resource)
    yield control
    control.give_back()


@pytest.mark.fault("F-14")
@pytest.mark.parametrize("again", [False, True])
async def test_no_file_descriptor_is_left(
    raw_server: RawServerFactory, descriptors: Descriptors, again: bool
) -> None:
    """Without a free descriptor each attempt fails in words, and works once there is one."""
    server = await raw_server(GOOD)
    told = []

    def hook(event: object) -> None:
        if isinstance(event, RetryScheduled):
            told.append(event.error)
            if again:
                descriptors.give_back()

    async with client_of(server.base_url, attempts=3, hooks=[hook]) as client:
        descriptors.take_away()
        result = await outcome(client.get_image(VID))
        descriptors.give_back()
        if again:
            assert told == ["ConnectionFailed"]
            assert getattr(result, "vid", None) == VID
        else:
            assert isinstance(result, ConnectionFailed)
            assert "Too many open files" in result.message
            assert (told, result.attempts) == (["ConnectionFailed"] * 2, 3)
            assert not result.is_lasting
            assert server.connections == 0
            assert (await client.get_image(VID)).vid == VID


# -- processes and loops ---------------------------------------------------------------------------


@pytest.mark.fault("F-108")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_client_in_a_forked_process() -> None:
    """A forked process cannot use its parent's client, on no loop, and the parent notices nothing."""
    good = answer_each(lambda request, number: GOOD)
    reading, writing = os.pipe()
    with asyncio.Runner() as runner:
        server = runner.run(RawServer(good).__aenter__())
        client = KokoonClient("token", base_url=server.base_url)
        assert runner.run(client.get_image(VID)).vid == VID
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "fork() may lead to deadlocks": not in this child
            child = os.fork()
        if child == 0:
            try:
                told = [
                    runner.run(outcome(client.get_image(VID))),
                    asyncio.new_event_loop().run_until_complete(outcome(client.aclose())),
                ]
                os.write(writing, "\n".join(map(str, told)).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        said = os.read(reading, 1_000).decode().splitlines()
        os.close(reading)
        assert runner.run(client.get_image(VID)).vid == VID
        runner.run(client.aclose())
        runner.run(server.__aexit__(None, None, None))
    refusal = (
        "This client belongs to the process that this one was forked from."
        " Make one KokoonClient per process, after the fork."
    )
    assert said == [refusal] * 2
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.fault("F-108")
async def test_a_client_knows_its_process(
    raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `os.getpid` says counts, since a fork copies all else; nothing is sent."""
    server = await raw_server(GOOD)
    async with client_of(server.base_url) as client:
        await client.get_image(VID)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            for call in (client.get_image(VID), client.aclose()):
                assert isinstance(await outcome(call), ClientClosed)
    assert len(server.requests) == 1


def eager(loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks begin at once (Python 3.12)."""
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "plain": asyncio.new_event_loop,
    "debugging": asyncio.new_event_loop,
    "eager": asyncio.new_event_loop,
    "uvloop": lambda: pytest.importorskip("uvloop").new_event_loop(),
}


async def whole_life() -> None:
    """Use every method of a client on a day that is not quite good."""
    async with Simulator(strict=True) as server:
        vids = server.add_images(5, "pending processing completed")
        server.fault(Status(503), times=2)
        async with client_of(
            server.base_url, attempts=3, poll=Fixed(0.005), retry=RetryPolicy(base=0.001)
        ) as client:
            assert (await client.get_image(vids[0])).vid == vids[0]
            waits = [client.wait_until_completed(vids[0]), client.wait_until_completed(vids[0])]
            assert [image.state for image in await asyncio.gather(*waits)] == ["completed"] * 2
            async with client.watch(vids[1]) as records:
                assert [image.state async for image in records][-1] == "completed"
            async with client.get_images([*vids, "none"]) as outcomes:
                assert sum([each.ok async for each in outcomes]) == 5
            async with client.wait_many(vids) as outcomes:
                async for each in outcomes:
                    assert each.ok
                    break
            late = asyncio.create_task(client.wait_until_completed(server.add_image("pending")))
            await turns()
            late.cancel()
            await asyncio.wait({late})
            assert late.cancelled()


@pytest.mark.fault("F-111")
@pytest.mark.parametrize("kind", LOOPS)
def test_any_event_loop_will_do(kind: str) -> None:
    """A whole life works on the plain loop, in debug mode, with eager tasks and on uvloop."""
    if kind == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    with asyncio.Runner(loop_factory=LOOPS[kind], debug=kind == "debugging") as runner:
        if kind == "eager":
            eager(runner.get_loop())
        runner.run(whole_life())
