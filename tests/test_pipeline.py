"""
One call from end to end: its retries, its budget, its deadline, and what the others notice of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from kokoon_async._http.calls import Timeouts
from kokoon_async._http.protocol import Answer, Response
from kokoon_async._http.retry import RetryPolicy
from kokoon_async._http.throttle import Limits
from kokoon_async.errors import (
    ApiError,
    ClientClosed,
    ConnectionFailed,
    ImageNotFound,
    KokoonError,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    UnexpectedResponse,
)
from kokoon_async.events import Braked, RetryScheduled

from .conftest import RawServerFactory
from .fakes import (
    VID,
    FakeSend,
    Line,
    Sent,
    answer,
    client_of,
    make_line,
    make_vid,
    outcome,
    record,
)
from .raw_server import hang_up, hold


looptime = pytest.mark.looptime

AT_ONCE = RetryPolicy(base=0, throttled_base=0)
MISSING = answer(404, {"message": "fail to get result."})


def now() -> float:
    """Give the loop's time."""
    return asyncio.get_running_loop().time()


def in_turn(*results: Any) -> FakeSend:
    """Answer the first request with the first of *results*, and so on; all later ones well."""

    def answers(request: Sent, number: int) -> Any:
        return results[number - 1] if number <= len(results) else record(request.vid)

    return FakeSend(answers)


def busy(seconds: int | str | None = None, status: int = 429) -> Response:
    """Build a refusal, with the server's hint."""
    return answer(status, {}, {} if seconds is None else {"Retry-After": str(seconds)})


async def hides_its_end() -> Response:
    """Hang, and make an error of one's own of the cancellation, as some middlewares do."""
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        raise ConnectionFailed("was cancelled") from None
    return record()


async def error_of(line: Line, vid: str = VID) -> Any:
    """Give the error of a call, which must fail."""
    result = await outcome(line.pipeline.fetch(vid))
    assert isinstance(result, KokoonError), result
    assert result.vid == vid
    return result


# -- retries ---------------------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize(
    "failure",
    [
        ConnectionFailed("refused"),
        RequestTimedOut("connecting"),
        ProtocolError("cut"),
        answer(200, b'{"vid": "cut'),
        record(make_vid(1)),
        *(answer(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    ],
    ids=[
        *("connection", "timeout", "protocol", "cut", "wrong vid"),
        *("408", "425", "429", "500", "502", "503", "504"),
    ],
)
async def test_what_may_pass_is_tried_again(failure: Any) -> None:
    """Faults of connections, timeouts and the server's own troubles are tried again, at most twice."""
    line = make_line(send := in_turn(failure, failure), retry=AT_ONCE)
    got = await line.pipeline.fetch(VID)
    assert (got.image.vid, got.attempts) == (VID, 3)
    line = make_line(send := in_turn(failure, failure, failure), retry=AT_ONCE)
    error = await error_of(line)
    assert (len(send.sent), error.attempts) == (3, 3)
    assert "; not tried again: it failed 3 times in a row." in error.message


@looptime
@pytest.mark.parametrize(
    "failure",
    [
        MISSING,
        ClientClosed("closed"),
        ConnectionFailed("certificate", is_lasting=True),
        answer(200, b"<html>"),
        *(answer(status, {"message": "no"}) for status in (400, 401, 402, 403, 404, 501, 505)),
        answer(302),
    ],
    ids=[
        *("missing", "closed", "certificate", "html"),
        *("400", "401", "402", "403", "404", "501", "505", "302"),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(failure: Any) -> None:
    """What another request cannot change is told at once, with no word about retries."""
    line = make_line(send := in_turn(failure), retry=AT_ONCE)
    error = await error_of(line)
    assert len(send.sent) == 1
    assert "tried again" not in error.message
    assert line.quota == 500


@pytest.mark.fault("F-49")
@looptime
async def test_one_attempt_means_one_request() -> None:
    """With `attempts=1` there is no second request, and no word about one."""
    line = make_line(send := in_turn(answer(503)), retry=RetryPolicy(attempts=1))
    error = await error_of(line)
    assert len(send.sent) == error.attempts == 1
    assert "tried again" not in error.message


@looptime
async def test_the_last_failure_is_the_one_that_is_told() -> None:
    """Of several failures the last one is raised, and carries nothing of those before."""
    line = make_line(
        in_turn(ConnectionFailed("first"), answer(500), answer(503, {"message": "last"})),
        retry=AT_ONCE,
    )
    error = await error_of(line)
    assert (type(error), error.status, error.server_message) == (ServerError, 503, "last")
    assert error.__cause__ is error.__context__ is None


@looptime
async def test_pauses_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are drawn by the policy: short after a fault, longer after a refusal; hooks hear."""
    monkeypatch.setattr("kokoon_async._http.retry.next_pause.__kwdefaults__", {"draw": lambda: 1.0})
    line = make_line(send := in_turn(answer(500), busy(), ConnectionFailed("refused")))
    error = await error_of(line)
    assert type(error) is ConnectionFailed
    assert send.times == [0, 0.05, 2.05]
    assert line.events == [
        RetryScheduled(VID, 1, 0.05, "ServerError", 500),
        Braked(delay=0.0, max_in_flight=32),
        RetryScheduled(VID, 2, 2.0, "RateLimited", 429),
    ]


@looptime
async def test_full_jitter() -> None:
    """Without a fixed draw, pauses lie between nothing and the policy's bound."""
    pauses = set()
    for _ in range(20):
        line = make_line(send := in_turn(answer(500)))
        await line.pipeline.fetch(VID)
        pauses.add(send.times[1] - send.times[0])
    assert all(0 <= pause <= 0.05 for pause in pauses)
    assert len(pauses) > 15


@looptime
async def test_an_unheard_retry_builds_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """With the log off and no hook, retries work all the same."""
    caplog.set_level(logging.ERROR, logger="kokoon_async")
    line = make_line(in_turn(answer(500), answer(502)), retry=AT_ONCE)
    line.pipeline._hooks._hooks = ()
    assert (await line.pipeline.fetch(VID)).attempts == 3


@looptime
async def test_a_look_is_one_attempt() -> None:
    """`look` never tries again: whoever looks has a schedule of their own."""
    line = make_line(send := in_turn(answer(503)), retry=AT_ONCE)
    error = await outcome(line.pipeline.look(VID))
    assert isinstance(error, ServerError)
    assert "tried again" not in error.message
    assert (error.vid, error.attempts, len(send.sent)) == (VID, 1, 1)
    assert (await line.pipeline.look(VID)).image.vid == VID


# -- the quota -------------------------------------------------------------------------------------


@looptime
async def test_calls_that_queue_do_not_use_up_the_retries_of_those_that_run() -> None:
    """G6: of 3,000 calls at once, each tenth request of which fails, 99.85 % succeed."""
    draw = random.Random(7).random
    random.seed(7)  # the pauses: chance decides which calls fail three times
    failed = 0

    async def answers(request: Sent, number: int) -> Response:
        nonlocal failed
        await asyncio.sleep(0.02)
        if draw() >= 0.1:
            return record(request.vid)
        failed += 1
        return answer(500)

    line = make_line(send := FakeSend(answers))
    calls = [outcome(line.pipeline.fetch(make_vid(number))) for number in range(3_000)]
    results = await asyncio.gather(*calls)
    assert failed > 250
    assert sum(isinstance(result, Answer) for result in results) >= 0.9985 * 3_000
    assert len(send.sent) <= 1.12 * 3_000


@pytest.mark.fault("F-48")
@looptime
async def test_an_outage_costs_a_fixed_number_of_requests() -> None:
    """G6: 1,000 calls in a full outage cost at most 35 requests more, and say why."""
    line = make_line(send := FakeSend(lambda request, n: ConnectionFailed("refused")))
    fetches = [outcome(line.pipeline.fetch(make_vid(n))) for n in range(1_000)]
    errors: list[Any] = await asyncio.gather(*fetches)
    assert 1_000 < len(send.sent) <= 1_035
    assert {type(error) for error in errors} == {ConnectionFailed}
    assert sum("quota of retries is used up" in error.message for error in errors) > 900


@pytest.mark.fault("F-62")
@looptime
async def test_each_client_has_a_quota_of_its_own() -> None:
    """One client's outage costs another client in the process, of the same token, no retry."""
    down = FakeSend(lambda request, n: ConnectionFailed("refused"))
    up = FakeSend(lambda request, n: record(request.vid) if n % 2 == 0 else answer(503))
    one, other = make_line(down), make_line(up)
    await asyncio.gather(*[outcome(one.pipeline.fetch(make_vid(n))) for n in range(100)])
    assert one.quota < 14, "the outage did not use up the quota"
    assert other.quota == 500
    assert (await other.pipeline.fetch(VID)).attempts == 2


@pytest.mark.fault("F-02")
@pytest.mark.fault("F-48")
@pytest.mark.parametrize("behaviour", [hang_up(), hang_up(read=False)], ids=["read", "unread"])
async def test_an_outage_on_the_wire(raw_server: RawServerFactory, behaviour: Any) -> None:
    """G6, E2: 1,000 calls to a server that hangs up are at most 1,035 requests on the wire."""
    server = await raw_server(behaviour)
    async with client_of(server.base_url, retry=RetryPolicy(base=0)) as client:
        fetches = [outcome(client.get_image(make_vid(n))) for n in range(1_000)]
        errors: list[Any] = await asyncio.gather(*fetches)
    assert {type(error) for error in errors} == {ConnectionFailed}
    assert 1_000 < server.connections <= 1_035
    assert sum(error.attempts for error in errors) == server.connections
    assert len(server.requests) <= server.connections


@looptime
async def test_the_quota_is_paid_and_refunded() -> None:
    """A retry costs 14 or, if throttled, 5; a success gives its own back, or 1."""
    line = make_line(in_turn(answer(500), answer(500), answer(500)), retry=AT_ONCE)
    await error_of(line)
    assert line.quota == 500 - 28
    await line.pipeline.fetch(VID)
    assert line.quota == 500 - 27
    line.pipeline._send = in_turn(busy())
    await line.pipeline.fetch(VID)
    assert line.quota == 500 - 27
    line.pipeline._send = in_turn(answer(500), busy())
    await line.pipeline.fetch(VID)
    assert line.quota == 500 - 27 - 14
    for _ in range(50):
        await line.pipeline.fetch(VID)
    assert line.quota == 500


# -- the server's hints ----------------------------------------------------------------------------


@pytest.mark.fault("F-50")
@looptime
@pytest.mark.parametrize(
    ("hint", "pause"),
    [("3", 3), ("0", 0), ("Sun, 06 Nov 1994 08:49:47 GMT", 10), ("garbage", 0), ("-5", 0)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_hint_is_waited_out(hint: str, pause: float, status: int) -> None:
    """The server's hint is waited out by its clock, and never shortened; garbage is ignored."""
    refusal = answer(status, {}, {"Retry-After": hint, "Date": "Sun, 06 Nov 1994 08:49:37 GMT"})
    line = make_line(send := in_turn(refusal), retry=AT_ONCE)
    await line.pipeline.fetch(VID)
    assert send.times == [0, pause]


@pytest.mark.fault("F-51")
@looptime
@pytest.mark.parametrize(
    ("hint", "timeouts", "said"),
    [
        (121, Timeouts(total=None), "the server asked for a pause of 121 s"),
        (61, Timeouts(), "its time would be over before the next attempt, 61.0 s from now"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_hint_that_is_too_long_fails_at_once(
    hint: int, timeouts: Timeouts, said: str, status: int
) -> None:
    """A hint beyond the cap or the deadline is not slept for, and told in `retry_after`."""
    line = make_line(send := in_turn(busy(hint, status)), timeouts=timeouts)
    error = await error_of(line)
    assert now() == 0
    assert isinstance(error, RateLimited if status == 429 else ServerError)
    assert error.retry_after == hint
    assert error.attempts == len(send.sent) == 1
    assert error.message.endswith(f"; not tried again: {said}.")
    assert line.quota == 500


@pytest.mark.fault("F-51")
@looptime
async def test_a_pause_for_all_fails_others_at_once() -> None:
    """A call that comes during a pause beyond its deadline is told so without a request."""
    line = make_line(send := in_turn(busy(100)), retry=RetryPolicy(attempts=1))
    await error_of(line)
    await asyncio.sleep(20)
    error = await error_of(line, make_vid(1))
    assert (type(error), error.attempts, now()) == (RateLimited, 0, 20)
    assert error.retry_after == 80
    assert len(send.sent) == 1
    await asyncio.sleep(30)
    assert (await line.pipeline.fetch(VID)).image.vid == VID
    assert now() == 100


@pytest.mark.fault("F-51")
@looptime
async def test_one_of_many_calls_waits_out_a_pause_for_all() -> None:
    """A call of a stream does not fail because of a pause: its time has not begun yet."""
    line = make_line(send := in_turn(busy(100)), retry=RetryPolicy(attempts=1))
    await error_of(line)
    assert (await line.pipeline.fetch_in_turn(make_vid(1))).attempts == 1
    assert send.times == [0, 100]


@looptime
async def test_one_of_many_calls_does_not_lose_its_time_in_the_queue() -> None:
    """A rate so low that calls wait for longer than a call may take fails none of a stream's."""
    limits = Limits(requests_per_second=0.1)
    line = make_line(FakeSend(), limits=limits, timeouts=Timeouts(total=15))
    vids = [make_vid(number) for number in range(5)]
    calls = [outcome(line.pipeline.fetch_in_turn(vid)) for vid in vids]
    assert [type(each) for each in await asyncio.gather(*calls)] == [Answer] * 5
    assert now() == pytest.approx(40, abs=0.1)
    looks = [outcome(line.pipeline.look(vid)) for vid in vids]
    assert [type(each) for each in await asyncio.gather(*looks)] == [Answer] * 5
    calls = [outcome(line.pipeline.fetch(vid)) for vid in vids]
    late = [type(each) for each in await asyncio.gather(*calls)]
    assert late == [Answer] + [RequestTimedOut] * 4


@looptime
@pytest.mark.parametrize("method", ["fetch_in_turn", "look"])
async def test_the_first_token_costs_no_call_its_turn(method: str) -> None:
    """Calls that wait for the first token are not put behind those that come after them."""

    async def provider() -> str:
        await asyncio.sleep(1)
        return "token-1"

    limits, timeouts = Limits(requests_per_second=0.1), Timeouts(total=15)
    line = make_line(send := FakeSend(), token=provider, limits=limits, timeouts=timeouts)
    vids = [make_vid(number) for number in range(5)]
    call = getattr(line.pipeline, method)
    got = await asyncio.gather(*(outcome(call(vid)) for vid in vids))
    assert [type(each) for each in got] == [Answer] * 5
    assert [request.vid for request in send.sent] == vids


@looptime
async def test_a_token_that_never_comes_fails_a_call_before_its_turn() -> None:
    """Who waits for a token in vain gets a time-out that names the image and sent nothing."""
    line = make_line(send := FakeSend(), token=forever, timeouts=Timeouts(total=15))
    error = await outcome(line.pipeline.fetch_in_turn(VID))
    assert isinstance(error, RequestTimedOut)
    assert (error.vid, error.attempts, error.phase) == (VID, 0, "waiting for a token")
    assert (now(), send.sent, line.throttle.in_flight) == (15, [], 0)
    await line.tokens.close()


@looptime
async def test_no_turn_is_taken_while_the_first_token_is_awaited() -> None:
    """A call that has no token yet keeps nobody from sending."""
    given: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def provider() -> str:
        return await given

    line = make_line(FakeSend(), token=provider, limits=Limits(max_in_flight=1))
    fetching = asyncio.ensure_future(line.pipeline.fetch_in_turn(VID))
    await asyncio.sleep(1)
    assert line.throttle.in_flight == 0
    given.set_result("token")
    assert (await fetching).image.vid == VID
    assert line.throttle.in_flight == 0


@looptime
async def test_a_pause_for_all_that_begins_before_a_retry() -> None:
    """The attempts that were made count, also if the next one is refused its turn."""

    def answers(request: Sent, number: int) -> Response:
        return answer(500) if request.vid == VID else busy(100)

    line = make_line(FakeSend(answers), retry=RetryPolicy(base=0.001, quota=14))
    first, second = await asyncio.gather(error_of(line), error_of(line, make_vid(1)))
    assert (type(second), second.attempts) == (RateLimited, 1)
    assert (type(first), first.attempts, first.status) == (RateLimited, 1, 0)
    assert first.retry_after == pytest.approx(100, abs=0.01)


@pytest.mark.fault("F-51")
@looptime
async def test_one_of_many_calls_waits_out_a_pause_for_all_before_a_retry() -> None:
    """A stream's id whose first answer was bad is not lost because of another image's hint."""

    def answers(request: Sent, number: int) -> Response:
        if request.vid != VID:
            return busy(100)
        return answer(500) if number < 3 else record(VID)

    retry = RetryPolicy(base=0.001, quota=14)
    line = make_line(send := FakeSend(answers), retry=retry)
    got, error = await asyncio.gather(
        line.pipeline.fetch_in_turn(VID), outcome(line.pipeline.fetch_in_turn(make_vid(1)))
    )
    assert (got.image.vid, got.attempts) == (VID, 2)
    assert send.times == [0, 0, pytest.approx(100)]
    assert isinstance(error, RateLimited)
    assert error.status == 429
    assert line.pipeline._quota.tokens == 14  # the retry was paid for, and its price came back


@pytest.mark.fault("F-51")
@looptime
async def test_a_call_that_waits_out_a_pause_before_a_retry_can_be_cancelled() -> None:
    """It ends at once, and takes no place of the throttle with it."""

    def answers(request: Sent, number: int) -> Response:
        return answer(500) if request.vid == VID else busy(100)

    line = make_line(FakeSend(answers), retry=RetryPolicy(base=0.001, quota=14))
    waiting = asyncio.ensure_future(outcome(line.pipeline.fetch_in_turn(VID)))
    refused = asyncio.ensure_future(outcome(line.pipeline.fetch_in_turn(make_vid(1))))
    await refused
    await asyncio.sleep(50)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert now() == pytest.approx(50, abs=0.01)
    assert line.throttle.in_flight == 0


@looptime
async def test_one_of_many_calls_that_was_ended_waits_out_no_pause() -> None:
    """Also if the transport made another error of its end, and the call was about to try again."""
    send = FakeSend(lambda request, n: hides_its_end() if request.vid == VID else busy(100))
    line = make_line(send, retry=RetryPolicy(base=0.001, quota=14))
    hangs = asyncio.ensure_future(outcome(line.pipeline.fetch_in_turn(VID)))
    await asyncio.sleep(0.5)
    await outcome(line.pipeline.fetch_in_turn(make_vid(1)))
    line.calls.end_all("closed")
    error = await hangs
    assert isinstance(error, RateLimited)
    assert error.status == 0
    assert now() == pytest.approx(0.5, abs=0.01)
    assert len(send.sent) == 2


@pytest.mark.fault("F-53")
@looptime
@pytest.mark.parametrize("cap", [10.0, 120.0])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_a_day_is_not_everybodys(cap: float, status: int) -> None:
    """What asks for more than any call waits out ends its own call, and holds others to the cap."""
    policy = RetryPolicy(retry_after_cap=cap)
    line = make_line(send := in_turn(busy(86_400, status)), retry=policy)
    first = await error_of(line)
    assert (first.retry_after, first.attempts) == (86_400, 1)
    assert "the server asked for a pause of 86400 s" in first.message
    assert line.events == [Braked(delay=cap, max_in_flight=32)]
    await asyncio.sleep(0.75 * cap)
    assert (await line.pipeline.fetch(make_vid(1))).image.vid == make_vid(1)
    assert send.times == [0, cap]


@pytest.mark.fault("F-52")
@looptime
async def test_a_refusal_slows_all_down() -> None:
    """After 429 with a hint nobody sends before it is over, then about half as many at once."""

    async def answers(request: Sent, number: int) -> Response:
        await asyncio.sleep(1)
        return busy(10) if number == 1 else record(request.vid)

    line = make_line(send := FakeSend(answers), limits=Limits(max_in_flight=8))
    await asyncio.gather(*[line.pipeline.fetch(make_vid(n)) for n in range(30)])
    assert send.times[:8] == [0] * 8
    # Half of them, and one more since the other seven had their answers.
    assert send.times[8:13] == [11] * 5
    assert min(send.times[13:]) == 12
    assert send.most_running == 8
    assert [event for event in line.events if isinstance(event, Braked)] == [Braked(10.0, 4)]


@pytest.mark.fault("F-53")
@looptime
@pytest.mark.parametrize(
    "reply", [record(), MISSING, answer(200, b"<html>")], ids=["record", "missing", "html"]
)
async def test_every_answer_of_a_server_that_copes_lets_more_go(reply: Response) -> None:
    """After a brake, answers other than troubles let the limit grow: not-found ones too."""
    line = make_line(in_turn(busy(0, 503)), retry=RetryPolicy(attempts=1))
    await error_of(line)
    assert line.throttle.max_in_flight == 32
    line.pipeline._send = FakeSend(lambda request, n: reply)
    for _ in range(33):
        await outcome(line.pipeline.fetch(VID))
    assert 33 <= line.throttle.max_in_flight < 34
    line.pipeline._send = FakeSend(lambda request, n: answer(500))
    for _ in range(33):
        await outcome(line.pipeline.fetch(VID))
    assert 33 <= line.throttle.max_in_flight < 34


# -- the deadline ----------------------------------------------------------------------------------


async def forever(*_: Any) -> Any:
    """Wait for ever."""
    await asyncio.Event().wait()


def phases() -> dict[str, Callable[[], Any]]:
    """Give, by the phase it hangs in, the line that does."""

    def queue() -> Line:
        line = make_line(FakeSend(), limits=Limits(max_in_flight=1))
        line.throttle._in_flight = 1
        return line

    def answering() -> Line:
        return make_line(FakeSend(lambda request, n: forever()), timeouts=Timeouts(read=None))

    def backing_off() -> Line:
        policy = RetryPolicy(attempts=1000, base=20, cap=20, quota=10**6)
        return make_line(FakeSend(lambda request, n: answer(500)), retry=policy)

    def replaying() -> Line:
        async def provider() -> str:
            await asyncio.sleep(0 if not asked else 1e6)
            asked.append(1)
            return "token"

        asked: list[int] = []
        return make_line(FakeSend(lambda request, n: answer(401)), token=provider)

    return {
        "waiting for its turn": queue,
        "waiting for a token": lambda: make_line(FakeSend(), token=forever),
        "waiting for a token ": replaying,
        "waiting for the answer": answering,
        "pausing before attempt": backing_off,
    }


@pytest.mark.fault("F-59")
@looptime
@pytest.mark.parametrize("phase", phases())
async def test_the_deadline_in_every_phase(phase: str) -> None:
    """Wherever the time runs out, it is the same error, in time, and says what was done then."""
    line = phases()[phase]()
    began = now()
    error = await error_of(line)
    if phase == "pausing before attempt" and not isinstance(error, RequestTimedOut):
        # A pause beyond the deadline is not even begun.
        assert isinstance(error, ServerError)
        assert "its time would be over" in error.message
        assert now() - began <= 60
    else:
        assert type(error) is RequestTimedOut
        assert now() - began == pytest.approx(60)
        assert error.phase.startswith(phase.strip())
        assert f"while {error.phase}: the call took over 60 s" in error.message
    await line.tokens.close()


@pytest.mark.fault("F-59")
@looptime
async def test_the_deadline_swept_over_a_whole_call() -> None:
    """At whatever moment the time runs out, the call ends then, with one and the same error."""

    async def provider() -> str:
        await asyncio.sleep(2)
        return f"token {now()}"

    async def answers(request: Sent, number: int) -> Response:
        await asyncio.sleep(2)
        return [answer(401), busy(3), answer(500)][number - 1] if number < 4 else record()

    seen = set()
    for total in [tenths / 10 for tenths in range(1, 260, 4)]:
        line = make_line(
            FakeSend(answers),
            token=provider,
            timeouts=Timeouts(total=total),
            retry=RetryPolicy(attempts=9, base=0),
            limits=Limits(requests_per_second=0.2),
        )
        began = now()
        result = await outcome(line.pipeline.fetch(VID))
        if isinstance(result, RequestTimedOut):
            assert now() - began == pytest.approx(total)
            seen.add(result.phase)
        elif isinstance(result, KokoonError):  # the hint was too long
            assert isinstance(result, RateLimited)
            assert now() - began <= total
        assert line.throttle.in_flight == 0
        assert not line.calls._calls
        await line.tokens.close()
    assert {"waiting for a token", "waiting for the answer", "waiting for its turn"} <= seen


@pytest.mark.fault("F-05")
@looptime
async def test_a_silent_server_costs_an_attempt() -> None:
    """Silence ends an attempt and not the call: the next one may be answered."""
    line = make_line(send := in_turn(forever()), retry=AT_ONCE)
    got = await line.pipeline.fetch(VID)
    assert got.attempts == 2
    assert send.times == [0, 30]
    assert line.events == [RetryScheduled(VID, 1, 0.0, "RequestTimedOut", None)]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.fault("F-07")
@looptime
async def test_a_server_that_stays_silent() -> None:
    """When every attempt meets silence, the error says so, and how often."""
    line = make_line(
        FakeSend(lambda request, n: forever()),
        retry=AT_ONCE,
        timeouts=Timeouts(read=10),
    )
    error = await error_of(line)
    assert now() == 30
    assert type(error) is RequestTimedOut
    assert error.phase == "waiting for the answer"
    assert error.attempts == 3
    assert "silent for 10 s; not tried again: it failed 3 times in a row." in error.message


@looptime
async def test_work_that_turns_its_end_into_an_error_is_over() -> None:
    """A transport that makes an error of its own of the deadline does not go on after it."""
    line = make_line(send := FakeSend(lambda *_: hides_its_end()), timeouts=Timeouts(read=None))
    error = await error_of(line)
    assert type(error) is ConnectionFailed
    assert "its time would be over" in error.message
    assert len(send.sent) == 1
    assert now() == 60


# -- places and connections ------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize(
    "result",
    [record(), MISSING, ConnectionFailed("refused"), asyncio.CancelledError(), ValueError("a bug")],
    ids=["record", "missing", "refused", "cancelled", "bug"],
)
async def test_the_place_is_given_back(result: Any) -> None:
    """However an attempt ends, its place in the throttle is free, and no call is left."""
    line = make_line(FakeSend(lambda request, n: result), retry=RetryPolicy(attempts=1))
    await outcome(line.pipeline.fetch(VID))
    assert line.throttle.in_flight == 0
    assert not line.calls._calls


@looptime
async def test_the_pause_holds_no_place() -> None:
    """Between its attempts a call leaves its place to others."""
    line = make_line(
        send := in_turn(busy(20)), limits=Limits(max_in_flight=1), timeouts=Timeouts(total=None)
    )
    fetch = asyncio.create_task(line.pipeline.fetch(VID))
    await asyncio.sleep(10)
    assert line.throttle.in_flight == 0
    await fetch
    assert send.times == [0, 20]


@pytest.mark.fault("F-42")
@looptime
@pytest.mark.parametrize(
    ("body", "kind", "discarded"),
    [
        (record(make_vid(1)).body, ProtocolError, True),
        (b'{"vid": "cut', ProtocolError, True),
        (b"<html>", UnexpectedResponse, False),
        (MISSING.body, ImageNotFound, False),
        (b'{"message": "what?"}', ApiError, False),
    ],
)
async def test_only_a_suspect_connection_is_closed(
    body: bytes, kind: type[KokoonError], discarded: bool
) -> None:
    """A damaged or foreign answer costs its connection; one that only says no does not."""
    closed = []
    response = answer(200, body, discard=lambda: closed.append(True))
    line = make_line(in_turn(response), retry=RetryPolicy(attempts=1))
    assert type(await error_of(line)) is kind
    assert bool(closed) == discarded


@pytest.mark.fault("F-120")
@looptime
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(400, {"message": "bad token token-1/x"}), ApiError),
        (answer(200, {"message": "bad token token-1/x"}), ApiError),
        (answer(200, b"<p>bad token token-1/x</p>"), UnexpectedResponse),
        (answer(403, rb'{"message": "bad token token-1\/x"}'), ApiError),
        (answer(429, {"message": "x" * 293 + "token-1/x"}), RateLimited),
    ],
    ids=["refusal", "message", "page", "escaped", "cut"],
)
async def test_an_echoed_token_is_not_told(reply: Response, kind: type[KokoonError]) -> None:
    """A server that repeats the token in its words does not make our errors repeat it."""
    line = make_line(in_turn(reply), token="token-1/x", retry=RetryPolicy(attempts=1))
    error = await error_of(line)
    assert isinstance(error, kind)
    assert "token-1" not in f"{error} {error!r}"


@looptime
async def test_a_record_is_never_touched() -> None:
    """A record that holds the token's text by chance is given as it came."""
    line = make_line(in_turn(record(filename="original.png")), token="original")
    got = await line.pipeline.fetch(VID)
    assert got.image.filename == "original.png"


@looptime
async def test_hiding_a_token_makes_no_good_answer_of_a_bad_one() -> None:
    """A record that only the echoed token spoils stays a damaged record."""
    token = 'ab"cd-1234'
    body = record(filename="NAME").body.replace(b"NAME", token.encode())
    line = make_line(in_turn(answer(200, body)), token=token, retry=RetryPolicy(attempts=1))
    error = await error_of(line)
    assert type(error) is ProtocolError
    assert token not in f"{error} {error!r}"


async def test_hold_is_cancelled_cleanly(raw_server: RawServerFactory) -> None:
    """A call that is cancelled while the server is silent closes its connection."""
    server = await raw_server(hold())
    async with client_of(server.base_url) as client:
        task = asyncio.create_task(client.get_image(VID))
        await server.wait_for(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_for(lambda: server.hang_ups == 1)
