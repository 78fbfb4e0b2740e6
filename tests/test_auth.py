"""
Tokens: checked, never shown, and refreshed once however many calls were refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import datetime as dt
import logging
import pickle
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
import time_machine
from hypothesis import example, given

from kokoon_async._http.auth import Secret, Token, Tokens, check_token
from kokoon_async._http.calls import Timeouts
from kokoon_async._http.protocol import Response
from kokoon_async._http.retry import RetryPolicy
from kokoon_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCredit,
    KokoonError,
    RequestTimedOut,
)
from kokoon_async.events import Hooks, TokenRefreshed

from .canary import CANARY_TOKEN, assert_no_secret
from .fakes import VID, FakeSend, Line, Sent, answer, make_line, make_vid, outcome, record, turns


looptime = pytest.mark.looptime

NO_TOKEN = r"^The token is empty. Pass the API token, or set KOKOON_TOKEN for from_env\(\)\.$"


@attrs.define
class Provider:
    """
    Gives tokens one after another, the last one for ever, and counts how often it was asked.

    Args:
        tokens: What it gives; an exception is raised.

        delay: How long it takes.
    """

    tokens: list[Any]
    delay: float = 1.0
    asked: int = 0
    cancelled: int = 0

    async def __call__(self) -> str:
        """Give the next token."""
        self.asked += 1
        token = self.tokens[min(self.asked, len(self.tokens)) - 1]
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(token, BaseException):
            raise token
        return token  # type: ignore[no-any-return]


def make_tokens(source: Any, timeout: float | None = 60.0) -> Tokens:
    """Make tokens that nobody watches."""
    return Tokens(source, Hooks(), timeout=timeout)


def accepting(token: str, delay: float = 0.0) -> FakeSend:
    """Make a server that answers 401 to any other token, after *delay* seconds."""

    async def answers(request: Sent, number: int) -> Response:
        given = send.sent[number - 1].token
        await asyncio.sleep(delay)
        return record(request.vid) if given == token else refusal()

    send = FakeSend(answers)
    return send


def refusal() -> Response:
    """Build a 401."""
    return answer(401, {"message": "unauthorized"})


def kinds(results: list[Any]) -> set[type]:
    """Give the types of results."""
    return {type(result) for result in results}


# -- what can be a token ---------------------------------------------------------------------------


@pytest.mark.fault("F-68")
@pytest.mark.parametrize(
    ("token", "checked"),
    [
        ("abc", "abc"),
        ("abc\n", "abc"),
        ("abc\r\n", "abc"),
        ("Bearer abc", "Bearer abc"),
        ('~!"#/', '~!"#/'),
        ("x" * 8_000, "x" * 8_000),
        (Secret("secret"), "secret"),
    ],
)
def test_a_token_is_sent_as_it_is(token: str, checked: str) -> None:
    """A token stays as it is, but for one line break at the end: tokens come from files."""
    assert check_token(token) == checked
    assert type(check_token(token)) is Secret


@pytest.mark.fault("F-68")
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", NO_TOKEN),
        ("\n", NO_TOKEN),
        ("abc\ndef", r"\(length 7\) has a character at position 3 "),
        ("abc\n\n", r"\(length 4\) has a character at position 3 "),
        ("\rabc", r"\(length 4\) has a character at position 0 "),
        (" abc", r"\(length 4\) has a character at position 0 "),
        ("abc ", r"\(length 4\) has a character at position 3 "),
        (" ", r"\(length 1\) has a character at position 0 "),
        ("ab\x00c", r"\(length 4\) has a character at position 2 "),
        ("ab\x7f", r"\(length 3\) has a character at position 2 "),
        ("ab\tc", r"\(length 4\) has a character at position 2 "),
        ("abä", r"\(length 3\) has a character at position 2 "),
        ("ab\ud800", r"\(length 3\) has a character at position 2 "),
        ("x" * 1_000_000, "The token has 1000000 characters"),
        (b"abc", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        (12, "must be a str, not int"),
    ],
)
def test_what_cannot_be_a_token(token: object, said: str) -> None:
    """What cannot be a header's value is refused by its length and the first bad position (E17)."""
    with pytest.raises(ConfigurationError, match=said):
        check_token(token)


@pytest.mark.fault("F-68")
@given(
    bad=st.characters(exclude_categories=(), exclude_characters="".join(map(chr, range(32, 127)))),
    place=st.integers(0, len(CANARY_TOKEN) - 1),
)
@example(bad="\n", place=5)
def test_no_complaint_shows_the_token(bad: str, place: int) -> None:
    """Whatever is wrong with a token, neither the error nor its traceback shows a piece of it."""
    token = Secret(CANARY_TOKEN[:place] + bad + CANARY_TOKEN[place:])
    with pytest.raises(ConfigurationError) as caught:
        check_token(token)
    assert str(caught.value) == (
        f"The token (length {len(CANARY_TOKEN) + 1}) has a character at position {place}"
        " that cannot be part of a token."
        " Look for line breaks, blanks at the ends and pasted quotes."
    )
    assert_no_secret(caught.value)


@pytest.mark.fault("F-120")
@pytest.mark.parametrize("token", [CANARY_TOKEN.encode(), [CANARY_TOKEN], CANARY_TOKEN * 99])
def test_no_frame_shows_a_token_of_another_kind(token: object) -> None:
    """A token that is no text, or too long, is not in the traceback's locals either."""
    with pytest.raises(ConfigurationError) as caught:
        check_token(token)
    assert_no_secret(caught.value)


def test_a_token_given_is_the_first_one() -> None:
    """A token that is given as a text is current from the beginning."""
    token = make_tokens("abc").current
    assert token is not None
    assert (token.secret, token.generation) == ("abc", 1)


@pytest.mark.fault("F-120")
def test_a_secret_is_shown_nowhere() -> None:
    """A secret has a constant repr, within other objects too, and is neither pickled nor copied."""
    secret = Secret(CANARY_TOKEN)
    assert repr(secret) == "<secret>"
    assert repr([secret, {"a": secret}]) == "[<secret>, {'a': <secret>}]"
    for spoil in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a token is never pickled$"):
            spoil(secret)
    assert_no_secret(Token(secret, 1))
    assert_no_secret(make_tokens(secret))


@pytest.mark.parametrize(
    ("token", "said", "shown"),
    [
        ("tok/en-1", b"bad token: tok/en-1!", b"bad token: <secret>!"),
        ("tok/en-1", rb"bad token: tok\/en-1!", b"bad token: <secret>!"),
        ("tok/en-1", b"tok/en-1tok/en-1", b"<secret><secret>"),
        ("message", b'{"message": "no"}', b'{"message": "no"}'),
        ("ends-in==", rb"ends-in\u003d\u003D!", b"<secret>!"),
        ('a&<">\\b,c', rb"a\u0026\u003c\"\u003E\\b,c", b"<secret>"),
        ('a&<">\\b,c', b"a&amp;&lt;&#34;&#x3E;&#092;b%2cc", b"<secret>"),
        (
            "tok/en-1",
            rb"1 tok\/en-1, 2 t%6fk/en-1, 3 tok&#47;en-1!",
            b"1 <secret>, 2 <secret>, 3 <secret>!",
        ),
        ("a.c+defg", b"abc+defg", b"abc+defg"),
    ],
)
def test_an_echoed_token_is_hidden(token: str, said: bytes, shown: bytes) -> None:
    """A token in the server's words is hidden, unless it is too short to be one."""
    assert Token(Secret(token), 1).hidden_in(said) == shown


# -- one refresh -----------------------------------------------------------------------------------


async def test_a_fixed_token_is_there_at_once() -> None:
    """A token given as a text needs no provider, and there is none newer."""
    tokens = make_tokens("abc")
    assert tokens.current is not None
    assert await tokens.first() is tokens.current
    assert await tokens.newer_than(tokens.current) is None
    await tokens.close()


@looptime
async def test_the_first_token_is_asked_for_once() -> None:
    """However many calls begin together, the provider is asked once, and again only if refused."""
    provider = Provider(["one", "two"])
    line = make_line(send := FakeSend(), token=provider)
    await asyncio.gather(*[line.pipeline.fetch(make_vid(n)) for n in range(100)])
    assert provider.asked == 1
    assert {sent.token for sent in send.sent} == {"one"}
    assert line.events == [TokenRefreshed(generation=1)]


@pytest.mark.fault("F-63")
@looptime
@pytest.mark.parametrize("most", [64, None])
async def test_a_thousand_refusals_are_one_refresh(most: int | None) -> None:
    """G7, E26: 1,000 calls whose token was rotated cost one refresh and one more request each."""
    provider = Provider(["old", "new"])
    send = accepting("new", delay=5.0)
    line = make_line(
        send, token=provider, retry=RetryPolicy(attempts=1), timeouts=Timeouts(total=None)
    )
    line.throttle._most = line.throttle._allowed = most or float("inf")
    vids = [make_vid(n) for n in range(1_000)]
    answers = await asyncio.gather(*[line.pipeline.fetch(vid) for vid in vids])
    assert [each.image.vid for each in answers] == vids
    assert provider.asked == 2
    sent = [each.vid for each in send.sent]
    assert max(sent.count(vid) for vid in vids[:100]) == 2
    # Who waits for its turn meanwhile goes out with the new token at once.
    assert len(sent) == 1_000 + (2 * most if most else 1_000)
    assert line.events == [TokenRefreshed(1), TokenRefreshed(2)]
    assert {each.attempts for each in answers} == ({1, 2} if most else {2})


@pytest.mark.fault("F-63")
@looptime
async def test_a_late_refusal_of_an_old_token_asks_for_no_other() -> None:
    """A call that was under way during the refresh takes the token that is there by now (E26)."""
    provider = Provider(["old", "new"])
    tokens = make_tokens(provider)
    old = await tokens.first()
    new = await tokens.newer_than(old)
    assert new is not None
    assert await tokens.newer_than(old) is new
    assert (old.generation, new.generation) == (1, 2)
    assert provider.asked == 2


@pytest.mark.fault("F-66")
@looptime
async def test_a_new_token_that_is_refused_too_ends_the_call() -> None:
    """A call is sent at most once more, however many tokens the provider has."""
    provider = Provider([f"token {n}" for n in range(10)])
    line = make_line(send := accepting("none of them"), token=provider)
    with pytest.raises(AuthenticationFailed) as caught:
        await line.pipeline.fetch(VID)
    assert (provider.asked, len(send.sent)) == (2, 2)
    assert (caught.value.status, caught.value.attempts) == (401, 2)


@pytest.mark.fault("F-64")
@looptime
async def test_the_same_token_again_is_not_sent_again() -> None:
    """A provider that has nothing new ends all calls with the server's refusal, without a replay."""
    provider = Provider(["old"])
    line = make_line(send := accepting("new"), token=provider)
    fetches = [outcome(line.pipeline.fetch(make_vid(n))) for n in range(50)]
    results = await asyncio.gather(*fetches)
    assert kinds(results) == {AuthenticationFailed}
    assert (provider.asked, len(send.sent)) == (2, 50)
    assert line.events == [TokenRefreshed(1)]  # and no second one, since nothing is new


EXPIRED = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256"}', b'{"exp":1000000000}', b"no signature")
)


@pytest.mark.fault("F-69")
@pytest.mark.parametrize("year", [1971, 2001, 2999])
async def test_only_the_server_says_that_a_token_is_too_old(year: int) -> None:
    """A token that names its own end is sent all the same: this machine's clock may be wrong."""
    provider = Provider([EXPIRED, "another"], delay=0)
    line = make_line(send := accepting(EXPIRED), token=provider)
    with time_machine.travel(dt.datetime(year, 1, 1, tzinfo=dt.UTC)):
        for _ in range(3):
            await line.pipeline.fetch(VID)
    assert [sent.token for sent in send.sent] == [EXPIRED] * 3
    assert provider.asked == 1


@pytest.mark.fault("F-67")
@looptime
@pytest.mark.parametrize(
    ("refused", "asked"),
    [
        (answer(403, {"message": "forbidden"}), 1),
        (answer(401, b"<html>log in</html>"), 2),
        (answer(401, b""), 2),
    ],
)
async def test_only_a_401_asks_for_a_token(refused: Response, asked: int) -> None:
    """403 never refreshes; 401 does, whatever its body; both are authentication errors."""
    provider = Provider(["one", "two"])
    line = make_line(FakeSend(lambda request, n: refused), token=provider)
    with pytest.raises(AuthenticationFailed) as caught:
        await line.pipeline.fetch(VID)
    assert provider.asked == asked
    assert caught.value.status == refused.status


@looptime
async def test_words_about_credit_ask_for_no_token() -> None:
    """A 401 that says "insufficient credit" is no matter of the token: nobody asks for another."""
    provider = Provider(["one", "two"])
    refused = answer(401, {"message": "insufficient credit"})
    line = make_line(send := FakeSend(lambda request, n: refused), token=provider)
    with pytest.raises(InsufficientCredit) as caught:
        await line.pipeline.fetch(VID)
    assert (provider.asked, len(send.sent)) == (1, 1)
    assert (caught.value.status, caught.value.attempts) == (401, 1)


@pytest.mark.fault("F-63")
@looptime
async def test_a_refused_call_does_not_hold_a_place_while_it_waits() -> None:
    """While the provider works, the places of the throttle are free for others."""
    provider = Provider(["old", "new"], delay=10.0)
    line = make_line(accepting("new"), token=provider)
    line.throttle._most = line.throttle._allowed = 1.0
    fetch = asyncio.create_task(line.pipeline.fetch(VID))
    await asyncio.sleep(15)
    assert provider.asked == 2
    assert line.throttle.in_flight == 0
    await fetch


# -- providers of all kinds ------------------------------------------------------------------------


def plain() -> str:
    """Give a token as a plain function."""
    threads.append(threading.current_thread())
    return "good\n"


async def coroutine() -> str:
    """Give a token as a coroutine function."""
    return "good"


def awaitable() -> Awaitable[str]:
    """Give something to await."""
    return coroutine()


class Callable1:
    """Give a token as an object with a coroutine method."""

    async def __call__(self) -> str:
        """Give it."""
        return "good"


threads: list[threading.Thread] = []


@pytest.mark.fault("F-65")
@pytest.mark.parametrize("provider", [plain, coroutine, awaitable, Callable1(), lambda: "good"])
async def test_a_provider_of_any_kind(provider: Callable[[], Any]) -> None:
    """Functions, coroutine functions, what returns an awaitable and callable objects all do."""
    tokens = make_tokens(provider)
    assert (await tokens.first()).secret == "good"


@pytest.mark.fault("F-65")
async def test_a_plain_provider_runs_off_the_loop() -> None:
    """A plain function may read a file: it runs in a thread, and the loop goes on."""
    threads.clear()
    await make_tokens(plain).first()
    assert threads
    assert threads[0] is not threading.main_thread()


@pytest.mark.fault("F-64")
@pytest.mark.parametrize(
    "failure",
    [ValueError(CANARY_TOKEN), TimeoutError(), KokoonError(CANARY_TOKEN), StopIteration()],
)
async def test_a_provider_that_raises(failure: Exception) -> None:
    """All who wait get an error of their own, with the failure's class and none of its text."""

    def provider() -> str:
        raise failure

    line = make_line(send := FakeSend(), token=provider)
    errors: list[Any] = await asyncio.gather(
        *[outcome(line.pipeline.fetch(make_vid(n))) for n in range(20)]
    )
    assert kinds(errors) == {AuthenticationFailed}
    assert len({id(error) for error in errors}) == 20
    assert [error.vid for error in errors] == [make_vid(n) for n in range(20)]
    name = "RuntimeError" if isinstance(failure, StopIteration) else type(failure).__name__
    assert str(errors[0]) == (
        f"The token provider failed with {name}. Its own text is left out, since it may hold the token."
    )
    assert errors[0].attempts == len(send.sent) == 0
    for error in errors:
        assert error.__cause__ is error.__context__ is None
        assert_no_secret(error)


@pytest.mark.fault("F-64")
@looptime
async def test_a_provider_that_raised_is_asked_again_by_the_next_call() -> None:
    """A failed refresh is not remembered."""
    provider = Provider([ValueError("first"), "good"])
    line = make_line(FakeSend(), token=provider)
    with pytest.raises(AuthenticationFailed):
        await line.pipeline.fetch(VID)
    assert (await line.pipeline.fetch(VID)).image.vid == VID
    assert provider.asked == 2


@pytest.mark.fault("F-64")
@looptime
async def test_only_a_provider_that_worked_before_may_work_again() -> None:
    """Whether waits and jobs go on without a token depends on whether there ever was one."""
    provider = Provider([ValueError("first"), "good", ValueError("later")])
    line = make_line(FakeSend(lambda _, __: refusal()), token=provider)
    passing = []
    for _ in range(3):
        error = await outcome(line.pipeline.fetch(VID))
        assert isinstance(error, AuthenticationFailed)
        passing.append((error.status, error.is_passing))
    assert passing == [(0, False), (0, True), (0, True)]


@pytest.mark.fault("F-64")
@looptime
@pytest.mark.parametrize("bad", ["", "two\nlines", b"bytes", None, 5, CANARY_TOKEN + "\x00"])
async def test_a_provider_that_gives_no_token(bad: object) -> None:
    """What a provider gives is checked like any token, and never shown."""
    line = make_line(send := FakeSend(), token=Provider([bad]))
    with pytest.raises(ConfigurationError, match="The token provider: The token ") as caught:
        await line.pipeline.fetch(VID)
    assert send.sent == []
    assert bad != "" or caught.value.hint.startswith("Pass the API token")
    assert_no_secret(caught.value)


@pytest.mark.fault("F-09")
async def test_a_provider_that_hangs_takes_no_thread_of_the_program() -> None:
    """Plain providers hang in threads of their own, up to a bound; then calls fail at once."""
    hanging, entered = threading.Event(), []

    def provider() -> str:
        entered.append(threading.current_thread())
        hanging.wait()
        return "good"

    tokens = make_tokens(provider, timeout=0.001)
    for _ in range(32):
        with pytest.raises(RequestTimedOut, match="gave no token within"):
            await tokens.first()
    assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 10) == 7
    with pytest.raises(RequestTimedOut, match="still hangs from the last 32 times") as caught:
        await tokens.first()
    assert caught.value.phase == "waiting for a token"
    assert len(entered) == 32
    assert all(thread.daemon for thread in entered)
    hanging.set()
    for thread in entered:
        thread.join()
    assert (await make_tokens(provider).first()).secret == "good"
    tokens._timeout = None
    assert (await tokens.first()).secret == "good"


@pytest.mark.fault("F-64")
@looptime
@pytest.mark.parametrize("bad", ["", "in two\nlines", 5])
async def test_a_provider_that_gives_no_token_for_a_moment(bad: Any) -> None:
    """One that has worked may do so again, e.g. if its file is just being replaced."""
    provider = Provider(["old", bad, "new"])
    line = make_line(accepting("new"), token=provider)
    await line.tokens.first()
    error = await outcome(line.pipeline.fetch(VID))
    assert isinstance(error, AuthenticationFailed)
    assert error.is_passing
    assert error.message.startswith("The token provider: The token ")
    assert (await line.pipeline.fetch(VID)).image.vid == VID


@pytest.mark.fault("F-64")
@looptime
async def test_a_provider_that_cancels_its_own_task() -> None:
    """That is a failure of the provider, and no cancellation of those who wait."""

    async def provider() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        return "never"

    error = await outcome(make_line(FakeSend(), token=provider).pipeline.fetch(VID))
    assert isinstance(error, AuthenticationFailed)
    assert "failed with CancelledError" in error.message
    assert not error.is_passing


@pytest.mark.fault("F-64")
@looptime
async def test_a_provider_that_hangs_is_given_up() -> None:
    """Who waits for a hanging provider times out in time; who comes later asks it again."""
    provider = Provider(["never", "good"], delay=10_000)
    timeouts = Timeouts(total=60)
    line = make_line(FakeSend(), token=provider, timeouts=timeouts)
    loop = asyncio.get_running_loop()

    async def later() -> object:
        await asyncio.sleep(30)
        return await outcome(line.pipeline.fetch(VID))

    first, second = await asyncio.gather(outcome(line.pipeline.fetch(VID)), later())
    assert isinstance(first, RequestTimedOut)
    assert first.phase == "waiting for a token"
    assert isinstance(second, RequestTimedOut)
    assert provider.asked == 2  # the second call's retry asked again, and timed out then
    assert loop.time() == 90
    assert provider.cancelled == 1
    provider.delay = 1
    await asyncio.sleep(60)
    assert (await line.pipeline.fetch(VID)).image.vid == VID
    assert provider.asked == 3


@looptime
async def test_without_a_limit_a_provider_may_take_for_ever() -> None:
    """`Timeouts.total` of `None` holds for the provider too."""
    line = make_line(FakeSend(), token=Provider(["good"], 1e6), timeouts=Timeouts(total=None))
    assert (await line.pipeline.fetch(VID)).image.vid == VID


@looptime
async def test_the_error_of_a_provider_that_takes_too_long() -> None:
    """The refresh's own limit is an error that may pass."""
    tokens = make_tokens(Provider(["never"], 100), timeout=5)
    with pytest.raises(RequestTimedOut, match="gave no token within 5 s") as caught:
        await tokens.first()
    assert caught.value.phase == "waiting for a token"
    assert caught.value.__context__ is None


@pytest.mark.fault("F-64")
@looptime
async def test_a_provider_that_cancels_itself() -> None:
    """A provider's own `CancelledError` is a failure of the provider, not of those who wait."""
    line = make_line(FakeSend(), token=Provider([asyncio.CancelledError()]))
    fetches = [outcome(line.pipeline.fetch(make_vid(n))) for n in range(3)]
    results: list[Any] = await asyncio.gather(*fetches)
    assert kinds(results) == {AuthenticationFailed}
    assert "CancelledError" in results[0].message


@pytest.mark.fault("F-64")
@looptime
@pytest.mark.parametrize("victims", [[0], [1], [0, 1], [0, 1, 2]])
@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_fails_nobody_else(victims: list[int], times: int) -> None:
    """The refresh goes on when one who waits is cancelled, also if it began it, also if all are."""
    provider = Provider(["good"], delay=5)
    line = make_line(FakeSend(), token=provider)
    tasks = [asyncio.create_task(line.pipeline.fetch(make_vid(n))) for n in range(3)]
    await asyncio.sleep(1)
    for victim in victims:
        for _ in range(times):
            tasks[victim].cancel()
    await asyncio.sleep(10)
    assert [task.cancelled() for task in tasks] == [n in victims for n in range(3)]
    assert (provider.asked, provider.cancelled) == (1, 0)
    assert (await line.pipeline.fetch(VID)).image.vid == VID
    assert provider.asked == 1


@pytest.mark.fault("F-64")
@looptime
async def test_a_failure_that_nobody_waits_for_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When all who waited were cancelled, the provider's failure is nobody's business."""
    line = make_line(FakeSend(), token=Provider([ValueError("too late")]))
    task = asyncio.create_task(line.pipeline.fetch(VID))
    await turns()
    task.cancel()
    await asyncio.sleep(10)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.fault("F-65")
@looptime
@pytest.mark.parametrize("first", [True, False])
async def test_a_provider_that_calls_its_own_client(first: bool) -> None:
    """A provider that needs the token it shall give gets an error at once, and no dead-lock."""

    async def provider() -> str:
        asked.append(1)
        if not first and len(asked) == 1:
            return "old"
        await line.pipeline.fetch(make_vid(7))
        return "new"

    asked: list[int] = []
    line = make_line(accepting("new"), token=provider)
    with pytest.raises(ConfigurationError) as caught:
        await line.pipeline.fetch(VID)
    assert str(caught.value) == (
        "The token provider: It called the client that waits for its token."
        " Use another client, or plain HTTP, inside the provider."
    )
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.fault("F-65")
@looptime
async def test_a_provider_may_use_another_client() -> None:
    """Another client inside a provider is fine, also one with a provider of its own."""
    other = make_line(FakeSend(), token=Provider(["inner"]))

    async def provider() -> str:
        await other.pipeline.fetch(VID)
        return "outer"

    line = make_line(send := FakeSend(), token=provider)
    await line.pipeline.fetch(VID)
    assert send.sent[0].token == "outer"


@looptime
async def test_a_quiet_log_hears_of_no_refresh(caplog: pytest.LogCaptureFixture) -> None:
    """Without hooks and with the log off, no event is built."""
    caplog.set_level(logging.ERROR, logger="kokoon_async")
    assert (await make_tokens(Provider(["good"])).first()).secret == "good"


# -- the end ---------------------------------------------------------------------------------------


async def wait_for_token(line: Line) -> asyncio.Task[Any]:
    """Start a call that waits for the provider."""
    task = asyncio.create_task(line.pipeline.fetch(VID))
    await asyncio.sleep(0.5)
    return task


@pytest.mark.fault("F-16")
@looptime
async def test_closing_ends_a_refresh() -> None:
    """A provider under way is cancelled, and has cleaned up when closing is done."""
    provider = Provider(["never"], delay=10_000)
    line = make_line(FakeSend(), token=provider)
    task = await wait_for_token(line)
    line.calls.end_all("closed")
    await line.tokens.close()
    assert provider.cancelled == 1
    assert asyncio.all_tasks() <= {asyncio.current_task(), task}
    with pytest.raises(KokoonError, match="closed"):
        await task


@pytest.mark.fault("F-16")
@looptime
async def test_closing_does_not_wait_for_a_stubborn_provider() -> None:
    """A provider that does not let itself be cancelled holds nobody up for long."""

    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10_000)
        await asyncio.sleep(100)
        return "late"

    line = make_line(FakeSend(), token=stubborn)
    task = await wait_for_token(line)
    line.calls.end_all("closed")
    began = asyncio.get_running_loop().time()
    await line.tokens.close()
    assert asyncio.get_running_loop().time() - began == pytest.approx(1)
    with pytest.raises(KokoonError, match="closed"):
        await task
    await asyncio.sleep(200)


@pytest.mark.fault("F-16")
@looptime
async def test_a_provider_may_close() -> None:
    """A provider that closes what waits for it does not wait for itself."""

    async def provider() -> str:
        line.calls.end_all("closed")
        await line.tokens.close()
        closed.append(True)
        return "too late"

    closed: list[bool] = []
    line = make_line(FakeSend(), token=provider)
    with pytest.raises(KokoonError, match="closed"):
        await line.pipeline.fetch(VID)
    await turns()
    assert closed


@looptime
async def test_a_refresh_that_is_cancelled_from_outside() -> None:
    """A refresh whose task somebody cancels, e.g. the end of the loop, ends as cancelled."""
    provider = Provider(["never"], delay=10_000)
    line = make_line(FakeSend(), token=provider)
    task = await wait_for_token(line)
    refresh = line.tokens._refresh
    assert refresh is not None
    refresh.cancel()
    with pytest.raises(KokoonError):
        await task
    assert refresh.cancelled()
    assert line.tokens._refresh is None


@pytest.mark.fault("F-74")
async def test_a_request_names_no_origin() -> None:
    """What is sent with a token is a path below the base URL, never an address."""
    line = make_line(send := FakeSend())
    await line.pipeline.fetch(VID)
    assert send.sent[0].path == f"image/{VID}"
