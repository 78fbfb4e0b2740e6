"""
The client from outside: how it is made and ends, and what each of its methods does.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import uuid
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from kokoon_async import KokoonClient
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.retry import RetryPolicy
from kokoon_async._http.throttle import Limits
from kokoon_async.client import DEFAULT_BASE_URL
from kokoon_async.errors import (
    ClientClosed,
    ConfigurationError,
    ImageFailed,
    ImageNotFound,
    InvalidVid,
    KokoonError,
)
from kokoon_async.events import Event, RetryScheduled
from kokoon_async.models import Image, ImageState
from kokoon_async.polling import Fixed
from kokoon_async.simulator import Message, Reset, Simulator, Status

from .canary import CANARY_TOKEN, assert_no_secret
from .conftest import RawServerFactory
from .fakes import VID, client_of, connector_of, is_idle, make_vid, outcome, turns
from .raw_server import answer, hold, record_response


looptime = pytest.mark.looptime


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Run a simulator in which every planned fault must strike."""
    async with Simulator(strict=True) as running:
        yield running


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[KokoonClient]:
    """Give a client of the simulator that does not pause for long."""
    async with client_of(simulator.base_url, attempts=3) as client:
        yield client


# -- how it is made --------------------------------------------------------------------------------


@pytest.mark.fault("F-68")
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "The token is empty."),
        (f"{CANARY_TOKEN[:100]}\n{CANARY_TOKEN[100:]}", "position 100 "),
        (f" {CANARY_TOKEN}", "position 0 "),
        (CANARY_TOKEN * 50, "characters; no API token is that long."),
        (CANARY_TOKEN.encode(), "a str or a function, not bytes"),
        ({"token": CANARY_TOKEN}, "a str or a function, not dict"),
        (None, "a str or a function, not NoneType"),
    ],
    ids=["empty", "newline", "blank", "long", "bytes", "dict", "none"],
)
def test_a_token_that_is_none(token: Any, said: str) -> None:
    """A bad token is refused before anything is sent, by length and position, never shown."""
    with pytest.raises(ConfigurationError) as caught:
        KokoonClient(token)
    assert said in caught.value.message
    assert_no_secret(caught.value)
    if isinstance(token, str):
        with pytest.raises(ConfigurationError) as caught:
            KokoonClient.from_env(token=token)
        assert_no_secret(caught.value)


class Masked(str):
    """Be a text that shows a mask of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "****"


def test_a_token_that_masks_itself() -> None:
    """What is sent is the text itself, whatever its class shows of it."""
    for client in (KokoonClient(Masked("mine")), KokoonClient.from_env(token=Masked("mine"))):
        token = client._tokens.current
        assert token is not None
        assert token.secret == "mine"


@pytest.mark.fault("F-70")
@pytest.mark.parametrize(
    "base_url",
    ["http://api.example", "http://10.0.0.1", "http://localhost.example", "http://0.0.0.0"],
)
def test_plain_http_beyond_this_machine(base_url: str) -> None:
    """A token travels unencrypted to nobody else, unless that is asked for."""
    with pytest.raises(ConfigurationError, match="the token would travel unencrypted") as caught:
        KokoonClient(CANARY_TOKEN, base_url=base_url)
    assert "allow_plain_http=True" in caught.value.hint
    assert_no_secret(caught.value)
    assert base_url in repr(KokoonClient("token", base_url=base_url, allow_plain_http=True))


@pytest.mark.parametrize("base_url", ["http://localhost:1", "http://127.0.0.1", "http://[::1]:8/x"])
def test_plain_http_on_this_machine(base_url: str) -> None:
    """On loopback, plain http is fine."""
    assert base_url in repr(KokoonClient("token", base_url=base_url))


@pytest.mark.fault("F-81")
@pytest.mark.parametrize(
    "base_url", ["", "api.example", "ftp://x", "https://u:p@x", "https://x?q=1", "https://x#f", 5]
)
def test_a_base_url_that_is_none(base_url: Any) -> None:
    """What is no plain web address is refused."""
    with pytest.raises(ConfigurationError, match="base_url"):
        KokoonClient(CANARY_TOKEN, base_url=base_url)


def test_a_client_shows_no_secret() -> None:
    """Neither a client's repr nor its attributes show the token; it cannot be pickled."""
    for client in (KokoonClient(CANARY_TOKEN), KokoonClient(lambda: CANARY_TOKEN)):
        assert repr(client) == f"<KokoonClient {DEFAULT_BASE_URL} (open)>"
        assert_no_secret(client)
        for spoil in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                spoil(client)


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment gives token and address; arguments win over it."""
    monkeypatch.delenv("KOKOON_TOKEN", raising=False)
    monkeypatch.delenv("KOKOON_BASE_URL", raising=False)
    for token in ("", None):
        if token is not None:
            monkeypatch.setenv("KOKOON_TOKEN", token)
        with pytest.raises(ConfigurationError, match="KOKOON_TOKEN is not set") as caught:
            KokoonClient.from_env()
        assert "pass token=" in caught.value.hint
    assert KokoonClient.from_env(token="mine")._tokens.current.secret == "mine"  # type: ignore[union-attr]
    assert KokoonClient.from_env(token=lambda: "mine")._tokens.current is None
    monkeypatch.setenv("KOKOON_TOKEN", CANARY_TOKEN + "\n")
    client = KokoonClient.from_env(limits=Limits(max_in_flight=3))
    assert client._tokens.current is not None
    assert client._tokens.current.secret == CANARY_TOKEN
    assert DEFAULT_BASE_URL in repr(client)
    assert client._pipeline._throttle.max_in_flight == 3
    monkeypatch.setenv("KOKOON_BASE_URL", "https://elsewhere.example/api/")
    assert repr(KokoonClient.from_env()) == "<KokoonClient https://elsewhere.example/api (open)>"
    assert "https://here" in repr(KokoonClient.from_env(base_url="https://here.example"))
    monkeypatch.setenv("KOKOON_BASE_URL", "http://elsewhere.example")
    with pytest.raises(ConfigurationError) as caught:
        KokoonClient.from_env()
    assert_no_secret(caught.value)


# -- one image -------------------------------------------------------------------------------------


async def test_get_image(simulator: Simulator, client: KokoonClient) -> None:
    """An image's record comes as the server has it, whatever form its id is given in."""
    vid = simulator.add_image("processing", filename="a.png", width=320)
    for form in (vid, vid.upper(), uuid.UUID(vid)):
        image = await client.get_image(form)
        assert (image.vid, image.filename, image.width) == (vid, "a.png", 320)
        assert image.state is ImageState.PROCESSING
    assert simulator.request_count(vid) == 3
    assert simulator.connection_count == 1


async def test_get_image_on_a_bad_day(simulator: Simulator) -> None:
    """Resets and server errors on the way cost attempts, and hooks hear of them."""
    heard: list[Event] = []
    vid = simulator.add_image("completed")
    simulator.fault(Reset(at="before"), Status(503), vid=vid)
    async with client_of(simulator.base_url, attempts=3, hooks=[heard.append]) as client:
        assert (await client.get_image(vid)).vid == vid
    assert [type(event) for event in heard] == [RetryScheduled, RetryScheduled]
    assert simulator.request_count(vid) == 3


@pytest.mark.parametrize("status", [200, 400, 404, 410])
async def test_an_image_that_is_not_there(
    simulator: Simulator, client: KokoonClient, status: int
) -> None:
    """The API's words for "not found" are `ImageNotFound`, with whatever status (U1)."""
    vid = simulator.add_image("completed")
    simulator.fault(Message(status=status), vid=vid)
    with pytest.raises(ImageNotFound) as caught:
        await client.get_image(vid)
    assert (caught.value.vid, caught.value.status, caught.value.attempts) == (vid, status, 1)


@pytest.mark.fault("F-75")
@pytest.mark.parametrize(
    "vid",
    [
        "",
        "urn:uuid:de5e9990-c0fb-11ee-961f-d12490e606ad",
        "{de5e9990-c0fb-11ee-961f-d12490e606ad}",
        "de5e9990c0fb11ee961fd12490e606ad",
        "../admin",
        f"{VID}/../x",
        f"{VID}\n",
        "de5e9990-c0fb-11ee-961f-d12490e606a\uff14",
        "x" * 1_000_000,
        VID.encode(),
        5,
        None,
    ],
    ids=[
        *("empty", "urn", "braces", "no dashes", "path", "longer path", "newline", "full width"),
        *("megabyte", "bytes", "number", "none"),
    ],
)
async def test_what_is_no_id(simulator: Simulator, client: KokoonClient, vid: Any) -> None:
    """Nothing that is no canonical UUID leaves this process."""
    for ask in (client.get_image, client.wait_until_completed):
        with pytest.raises(InvalidVid) as caught:
            await ask(vid)
        assert len(str(caught.value)) < 500
    with pytest.raises(InvalidVid):
        client.watch(vid)
    assert simulator.request_count() == 0
    assert connector_of(client) is None


# -- many images and waits -------------------------------------------------------------------------


async def test_get_images(simulator: Simulator, client: KokoonClient) -> None:
    """Many images come in order, each with its own outcome."""
    vids = simulator.add_images(5, "completed")
    async with client.get_images([*vids, make_vid(0), "no id"], in_order=True) as outcomes:
        got = [each async for each in outcomes]
    assert [each.vid for each in got] == [*vids, make_vid(0), "no id"]
    assert [each.ok for each in got] == [True] * 5 + [False] * 2
    assert [type(each.error) for each in got[5:]] == [ImageNotFound, InvalidVid]


@pytest.fixture
def changes() -> list[Image]:
    """Collect what `on_change` is told."""
    return []


def on_change_of_any_kind(changes: list[Image]) -> dict[str, Callable[[Image], Any] | None]:
    """Give functions for `on_change` that collect."""

    async def collect(image: Image) -> None:
        await asyncio.sleep(0)
        changes.append(image)

    def collect_and_fail(image: Image) -> None:
        changes.append(image)
        raise LookupError("mine")

    return {
        "function": changes.append,
        "coroutine": collect,
        "failing": collect_and_fail,
        "none": None,
    }


@pytest.mark.fault("F-106")
@looptime
@pytest.mark.parametrize("kind", ["function", "coroutine", "failing", "none"])
async def test_wait_until_completed(
    changes: list[Image], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A wait ends with the completed record, and tells each state on the way, whoever listens."""
    async with Simulator() as simulator, client_of(simulator.base_url) as client:
        vid = simulator.add_image("pending processing*2 completed")
        image = await client.wait_until_completed(
            vid, poll=Fixed(5), on_change=on_change_of_any_kind(changes)[kind]
        )
    assert image.state is ImageState.COMPLETED
    states = [each.state.value for each in changes]
    assert states == ([] if kind == "none" else ["pending", "processing", "completed"])
    failed = [record for record in caplog.records if record.message == "on_change.failed"]
    assert len(failed) == (3 if kind == "failing" else 0)


@pytest.mark.fault("F-41")
@pytest.mark.parametrize("url", [None, "", "//no.scheme/a", "https:///no-host", 7])
async def test_a_completed_image_without_an_address(
    simulator: Simulator, client: KokoonClient, url: Any
) -> None:
    """The state decides and the address only describes: the wait is over, and there is none."""
    vid = simulator.add_image("completed", url=url)
    image = await client.wait_until_completed(vid)
    assert (image.state, image.url) == ("completed", None)
    assert simulator.request_count() == 1


async def test_a_wait_for_what_fails(simulator: Simulator, client: KokoonClient) -> None:
    """A wait for an image in the state error raises."""
    vid = simulator.add_image("error")
    with pytest.raises(ImageFailed):
        await client.wait_until_completed(vid)


@looptime
async def test_watch() -> None:
    """A watch gives one record per state, the final one last."""
    async with Simulator() as simulator, client_of(simulator.base_url) as client:
        vid = simulator.add_image("pending*3 completed")
        async with client.watch(vid, poll=Fixed(5), timeout=None) as records:
            states = [image.state.value async for image in records]
        assert states == ["pending", "completed"]
        with pytest.raises(ConfigurationError, match="timeout"):
            client.watch(vid, timeout=0)


async def test_wait_many(simulator: Simulator, client: KokoonClient) -> None:
    """Many waits give an outcome each."""
    vids = simulator.add_images(5, "completed")
    async with client.wait_many(vids, poll=Fixed(0.001)) as outcomes:
        got = [each async for each in outcomes]
    assert sorted(each.vid for each in got) == sorted(vids)
    assert all(each.ok for each in got)
    for wrong in ({"window": 0}, {"timeout": -1}):
        with pytest.raises(ConfigurationError):
            client.wait_many(vids, **wrong)  # type: ignore[arg-type]


@looptime
async def test_a_wait_goes_on_after_an_outage(raw_server: RawServerFactory) -> None:
    """The client's retry policy paces the looks of a wait while the server fails."""
    failed = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    server = await raw_server(answer(*[failed] * 4, record_response(VID)))
    async with client_of(server.base_url) as client:
        assert (await client.wait_until_completed(VID)).vid == VID
    assert len(server.requests) == 5


# -- its end ---------------------------------------------------------------------------------------


async def test_closed_is_closed(simulator: Simulator) -> None:
    """After `aclose`, every method says so; a second `aclose` does nothing."""
    vid = simulator.add_image("completed")
    client = KokoonClient("token", base_url=simulator.base_url)
    async with client as entered:
        assert entered is client
        await client.get_image(vid)
    assert repr(client).endswith("(closed)>")
    await client.aclose()
    for use in (
        lambda: client.get_image(vid),
        lambda: client.wait_until_completed(vid),
        client.__aenter__,
    ):
        with pytest.raises(ClientClosed, match=r"This client is closed\. Make a new"):
            await use()
    for ask in (client.get_images, client.wait_many):
        with pytest.raises(ClientClosed):
            ask([vid])
    with pytest.raises(ClientClosed):
        client.watch(vid)


async def test_a_client_that_was_never_used_closes() -> None:
    """Closing what was never opened opens nothing."""
    client = KokoonClient("token")
    await client.aclose()
    assert connector_of(client) is None


async def start(client: KokoonClient, count: int) -> list[asyncio.Task[Any]]:
    """Start calls, and let them come to where they wait."""
    tasks = [asyncio.create_task(client.get_image(make_vid(n))) for n in range(count)]
    await turns(10)
    return tasks


@pytest.mark.fault("F-16")
@pytest.mark.parametrize("times", [1, 2])
async def test_closing_while_calls_run_and_queue(raw_server: RawServerFactory, times: int) -> None:
    """Calls in flight, in the queue, and in a pause get `ClientClosed`, and no cancellation."""
    server = await raw_server(hold())
    client = KokoonClient("token", base_url=server.base_url, limits=Limits(max_in_flight=2))
    tasks = await start(client, 5)
    await server.wait_for(lambda: len(server.requests) == 2)
    for _ in range(times):
        await client.aclose()
    for task in tasks:
        with pytest.raises(ClientClosed, match="The client was closed meanwhile") as caught:
            await task
        assert task.cancelling() == 0
        assert caught.value.__context__ is None
    errors: list[Any] = [task.exception() for task in tasks]
    assert [error.attempts for error in errors] == [1, 1, 0, 0, 0]
    assert [error.vid for error in errors] == [make_vid(n) for n in range(5)]
    await server.wait_for(lambda: server.hang_ups == 2)
    assert is_idle(client)


@pytest.mark.fault("F-16")
@looptime
async def test_closing_during_a_pause() -> None:
    """A call between two attempts ends at once when the client is closed."""
    client = KokoonClient(
        "token",
        base_url="http://127.0.0.1:9",
        retry=RetryPolicy(attempts=9, base=1e6, cap=1e6),
        timeouts=Timeouts(total=None),
    )
    (task,) = await start(client, 1)
    await asyncio.sleep(0.5)
    await client.aclose()
    assert isinstance(await outcome(_result(task)), ClientClosed)
    assert asyncio.get_running_loop().time() < 10


async def _result(task: asyncio.Task[Any]) -> Any:
    return await task


@pytest.mark.fault("F-16")
async def test_closing_while_the_token_is_awaited() -> None:
    """Who waits for the provider gets `ClientClosed`; the provider has ended when closing is done."""
    ended = []

    async def provider() -> str:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(True)
        return "token"

    client = KokoonClient(provider, base_url="http://localhost:1")
    tasks = await start(client, 3)
    await client.aclose()
    assert ended
    for task in tasks:
        assert isinstance(await outcome(_result(task)), ClientClosed)


@pytest.mark.fault("F-16")
async def test_closing_ends_waits_and_streams(raw_server: RawServerFactory) -> None:
    """Waits and streams end with `ClientClosed` too, once each."""
    server = await raw_server(hold())
    client = KokoonClient("token", base_url=server.base_url)
    wait = asyncio.create_task(client.wait_until_completed(VID))

    async def fetch() -> list[Any]:
        async with client.get_images([make_vid(1)]) as outcomes:
            return [each async for each in outcomes]

    fetching = asyncio.create_task(fetch())
    await server.wait_for(lambda: len(server.requests) == 2)
    await client.aclose()
    for task in (wait, fetching):
        assert isinstance(await outcome(_result(task)), ClientClosed)


async def never() -> AsyncIterator[str]:
    """Give an input whose first item never comes."""
    await asyncio.Event().wait()
    yield VID


@pytest.mark.parametrize("method", ["get_images", "wait_many"])
@pytest.mark.parametrize("begun", [False, True])
async def test_closing_ends_streams_whose_input_is_idle(method: str, begun: bool) -> None:
    """A stream that nobody has begun, or that waits for its input, ends with `ClientClosed`."""
    client = KokoonClient("token", base_url="http://127.0.0.1:1")
    stream = getattr(client, method)(never())
    before = asyncio.all_tasks()
    taking = asyncio.ensure_future(anext(stream))
    if begun:
        await turns(10)
        assert asyncio.all_tasks() > before
    await client.aclose()
    with pytest.raises(ClientClosed, match="closed meanwhile"):
        await taking
    assert asyncio.all_tasks() == before
    assert connector_of(client) is None


async def test_closing_takes_no_outcome_away(simulator: Simulator) -> None:
    """A stream that has nothing left to do gives its last outcomes after its client was closed."""
    vids = simulator.add_images(3, "completed")
    async with KokoonClient("token", base_url=simulator.base_url) as client:
        stream = client.get_images(vids)
        first = await anext(stream)
        while len(simulator.requests) < len(vids) or not is_idle(client):
            await asyncio.sleep(0.001)
        await turns(10)
    assert sorted([first.vid, *[each.vid async for each in stream]]) == sorted(vids)


@pytest.mark.fault("F-105")
@pytest.mark.parametrize("times", [1, 2])
async def test_closing_that_is_cancelled_closes_all_the_same(
    simulator: Simulator, times: int
) -> None:
    """Cancelled while it waits for a slow provider, `aclose` still closes the connections."""

    async def provider() -> str:
        if not client._tokens.current:
            return "old"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(0.02)
        return "new"

    vid = simulator.add_image("completed")
    client = KokoonClient(provider, base_url=simulator.base_url)
    await client.get_image(vid)
    session = client._transport._session
    assert session is not None
    simulator.rotate_token("new")
    (task,) = await start(client, 1)
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(client.aclose())
    await turns(3)
    for _ in range(times):
        closing.cancel()
        await turns(1)
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert session.closed
    assert isinstance(await outcome(_result(task)), ClientClosed)
    await asyncio.sleep(0.03)


@pytest.mark.fault("F-105")
async def test_a_cancelled_caller_is_cancelled(raw_server: RawServerFactory) -> None:
    """Cancelling a call cancels it, and nothing but it."""
    server = await raw_server(hold())
    async with client_of(server.base_url) as client:
        first, second = await start(client, 2)
        await server.wait_for(lambda: len(server.requests) == 2)
        first.cancel()
        await turns()
        assert first.cancelled()
        assert not second.done()
        second.cancel()
        await turns()
    await server.wait_for(lambda: server.hang_ups == 2)


@pytest.mark.fault("F-107")
def test_another_event_loop(recwarn: pytest.WarningsRecorder) -> None:
    """A client made outside any loop belongs to the first one that uses it; another is refused."""
    client = KokoonClient("token", base_url="http://127.0.0.1:9", retry=RetryPolicy(attempts=1))

    async def use() -> object:
        return await outcome(client.get_image(VID))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert "Cannot connect" in str(first.run(use()))
        error = second.run(use())
        assert isinstance(error, ClientClosed)
        assert str(error) == (
            "This client belongs to another event loop."
            " Make one KokoonClient per event loop, inside it."
        )
        with pytest.raises(ClientClosed, match="another event loop"):
            second.run(client.aclose())
        first.run(client.aclose())
    with asyncio.Runner() as third:
        assert "is closed" in str(third.run(use()))


@pytest.mark.fault("F-112")
async def test_another_thread(simulator: Simulator, client: KokoonClient) -> None:
    """A loop in another thread is another loop."""
    vid = simulator.add_image("completed")
    await client.get_image(vid)
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.append(asyncio.run(outcome(client.get_image(vid))))
    )
    thread.start()
    await asyncio.to_thread(thread.join)
    assert isinstance(results[0], ClientClosed)
    assert (await client.get_image(vid)).vid == vid


def test_outside_of_any_loop() -> None:
    """A method that needs a loop says so."""
    client = KokoonClient("token")
    with pytest.raises(RuntimeError, match="no running event loop"):
        client.get_images([VID])


@pytest.mark.fault("F-109")
async def test_a_client_that_is_never_closed(simulator: Simulator) -> None:
    """Whoever forgets to close a client that was used is told, which one and how."""
    vid = simulator.add_image("completed")
    async with aiohttp.ClientSession() as session:
        client = KokoonClient("token", base_url=simulator.base_url, session=session)
        await client.get_image(vid)
        shown = repr(client)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del client
            gc.collect()
    told = [str(each.message) for each in caught if each.category is ResourceWarning]
    assert told == [f"{shown} was never closed; use async with, or await aclose()"]


@pytest.mark.parametrize("kind", ["unused", "closed", "refused"])
async def test_a_client_that_needs_no_closing(kind: str) -> None:
    """A client that was closed, or holds nothing, goes without a word."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind == "refused":
            with pytest.raises(ConfigurationError):
                KokoonClient("")
        else:
            client = KokoonClient("token")
            if kind == "closed":
                async with client:
                    pass
            del client
        gc.collect()
    assert caught == []


@pytest.mark.fault("F-109")
def test_a_program_that_forgets_to_close_ends() -> None:
    """A forgotten client holds up no program, and shows no token in what it prints."""
    program = f"""
        import asyncio
        from kokoon_async import KokoonClient
        from kokoon_async.simulator import Simulator

        async def main():
            async with Simulator() as simulator:
                client = KokoonClient({CANARY_TOKEN!r}, base_url=simulator.base_url)
                await client.get_image(simulator.add_image("completed"))
                print("done")

        asyncio.run(main())
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert ran.stdout == "done\n"
    assert "was never closed; use async with" in ran.stderr
    assert_no_secret(ran.stderr)


async def test_errors_of_a_client_are_its_own(simulator: Simulator, client: KokoonClient) -> None:
    """All that goes wrong is a `KokoonError`, and none holds a foreign exception."""
    vid = simulator.add_image("completed")
    simulator.fault(Status(500), Status(500), Status(500), vid=vid)
    error = await outcome(client.get_image(vid))
    assert isinstance(error, KokoonError)
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("poll", [5, "fast", object()])
async def test_what_is_no_policy_is_refused(poll: Any) -> None:
    """A policy that lacks its methods is refused by the client and by each wait."""
    with pytest.raises(ConfigurationError, match="poll must be a policy"):
        KokoonClient("token", base_url="http://127.0.0.1:1", poll=poll)
    async with KokoonClient("token", base_url="http://127.0.0.1:1") as client:
        with pytest.raises(ConfigurationError, match="poll must be a policy"):
            client.watch(VID, poll=poll)
        with pytest.raises(ConfigurationError, match="poll must be a policy"):
            client.wait_many([VID], poll=poll)


def of_other_types() -> dict[str, tuple[dict[str, Any], str]]:
    """Name arguments of a wrong type, and what is said about each."""
    a_class = "must be of the class"
    return {
        "seconds": ({"timeouts": 30}, f"timeouts {a_class} Timeouts, not a int. Pass timeouts="),
        "number": ({"limits": 64}, f"limits {a_class} Limits, not a int. Pass limits=Limits("),
        "none": ({"retry": None}, f"retry {a_class} RetryPolicy, not a NoneType. Pass retry="),
        "class": ({"retry": RetryPolicy}, f"retry {a_class} RetryPolicy, not RetryPolicy itself."),
        "text": ({"allow_plain_http": "no"}, f"allow_plain_http {a_class} bool, not a str. Pass "),
        "hook": ({"hooks": print}, "hooks must be a list of functions, not a builtin_function_or"),
        "no hooks": ({"hooks": None}, "hooks must be a list of functions, not a NoneType. Put a "),
        "address": ({"session": "x"}, "session must be an aiohttp.ClientSession, not a str. Leave"),
        "other thing": ({"session": {"a": 1}}, "session must be an aiohttp.ClientSession, not a"),
        "session class": ({"session": aiohttp.ClientSession}, "session must be an aiohttp.Client"),
    }


@pytest.mark.fault("F-58")
@pytest.mark.parametrize(("options", "said"), of_other_types().values(), ids=of_other_types())
def test_arguments_of_another_type_are_refused(options: dict[str, Any], said: str) -> None:
    """An argument of a wrong type is refused at once, by its name, with what to pass instead."""
    with pytest.raises(ConfigurationError) as caught:
        KokoonClient("token", **options)
    assert str(caught.value).startswith(said)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@pytest.mark.fault("F-120")
def test_a_wrong_session_is_not_shown() -> None:
    """Whatever is taken for a session may hold a token, so the error shows its type only."""
    with pytest.raises(ConfigurationError) as caught:
        KokoonClient("token", session={"Authorization": CANARY_TOKEN})  # type: ignore[arg-type]
    assert "not a dict." in caught.value.message
    assert_no_secret(str(caught.value))


@pytest.mark.parametrize("grace", [-1, float("nan"), True, None, "1"])
async def test_a_grace_that_is_no_time_is_refused(grace: Any) -> None:
    """The grace for "not found" is zero or more seconds."""
    async with KokoonClient("token", base_url="http://127.0.0.1:1") as client:
        with pytest.raises(ConfigurationError, match="missing_grace must be zero or more"):
            client.watch(VID, missing_grace=grace)
