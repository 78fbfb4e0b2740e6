"""
One call from end to end: retry → throttle → auth → transport, then read the answer.

`fetch` is a whole call with its retries; `look` is one attempt, for those who have a
schedule of their own. Both share every limit of the client.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Protocol

from ..errors import KokoonError, ProtocolError, RateLimited
from ..events import Hooks, RetryScheduled
from .auth import Token, Tokens
from .calls import Call, Calls
from .protocol import (
    Answer,
    Response,
    asks_to_brake,
    image_path,
    is_error,
    is_throttling,
    is_token_refused,
    is_transient,
    read_image,
    retry_after,
)
from .retry import GiveUp, RetryPolicy, RetryQuota, next_pause
from .throttle import Throttle


__all__ = ["Pipeline", "Send"]


class Send(Protocol):
    """Send a request once and give the whole answer: the transport, or a fake of it."""

    async def __call__(self, path: str, call: Call, token: Token) -> Response:
        """Get what is at *path*, below the base URL, with *token*."""


class Pipeline:
    """
    Carry calls to the server and their answers back.

    Args:
        send: Sends a request once.

        calls: Watches the calls' time.

        tokens: Gives the current token.

        throttle: Gives each attempt its turn.

        retry: The policy of retries.

        hooks: Told of retries.
    """

    def __init__(
        self,
        send: Send,
        *,
        calls: Calls,
        tokens: Tokens,
        throttle: Throttle,
        retry: RetryPolicy,
        hooks: Hooks,
    ) -> None:
        self._send = send
        self._calls = calls
        self._tokens = tokens
        self._throttle = throttle
        self._policy = retry
        self._quota = RetryQuota(retry.quota)
        self._hooks = hooks

    # A plain function: a coroutine less on the way of every request.

    def fetch(self, vid: str) -> Coroutine[Any, Any, Answer]:
        """
        Get one image's record, trying again as the retry policy allows.

        Raises:
            KokoonError: What the last attempt ended with.
        """
        call = self._calls.new(vid)
        return self._calls.run(call, self._with_retries(call))

    async def fetch_in_turn(self, vid: str) -> Answer:
        """
        Do as `fetch` does, but let the call's time begin with its first turn.

        For one of many calls of one caller, which wait for each other: those that come
        last did not take long because they came late. They wait out a brake, too, also
        between two attempts: then their time begins anew.
        """
        await self._first_token(vid)
        call = self._calls.new(vid, await self._throttle.take_turn(vid, math.inf))
        while True:
            try:
                return await self._calls.run(call, self._with_retries(call))
            except RateLimited as error:
                is_answer = error.status > 0  # and not a pause that another call's answer asked for
                was_ended = call.ending is not None  # and the transport made an error of that
                if is_answer or was_ended:
                    raise
            call.turn = await self._throttle.take_turn(vid, math.inf, again=True)
            call.due = self._calls.due_from_now()

    async def look(self, vid: str) -> Answer:
        """
        Get one image's record with one attempt; its time begins with its turn.

        Raises:
            RateLimited: At once, if the server's own pause takes longer than a call may.

            KokoonError: What the attempt ended with.
        """
        await self._first_token(vid)
        turn = await self._throttle.take_turn(vid, self._calls.due_from_now())
        call = self._calls.new(vid, turn)
        return await self._calls.run(call, self._attempt(call))

    async def _first_token(self, vid: str) -> None:
        """Have a token before a turn is taken: one given back would come again behind all others."""
        if self._tokens.current is None:
            call = self._calls.new(vid)
            await self._calls.run(call, self._wait_for_token(call))

    async def _wait_for_token(self, call: Call) -> None:
        self._calls.pauses(call, "waiting for a token")
        await self._tokens.first()

    async def _with_retries(self, call: Call) -> Answer:
        while True:
            try:
                answer = await self._attempt(call)
            except (KokoonError, asyncio.CancelledError) as error:
                failure = self._calls.go_on_after_silence(call) or error
                if isinstance(failure, asyncio.CancelledError):
                    raise
            else:
                self._quota.give_back(call.refund)
                return answer
            now = asyncio.get_running_loop().time()
            pause = next_pause(
                self._policy, self._quota, failure, attempts=call.attempts, left=call.due - now
            )
            if isinstance(pause, GiveUp):
                if pause.reason:
                    failure.message = f"{failure.message[:-1]}; not tried again: {pause.reason}."
                raise failure
            call.refund = self._policy.cost(throttled=is_throttling(failure))
            self._tell_of_retry(call, failure, pause)
            self._calls.pauses(call, f"pausing before attempt {call.attempts + 1}")
            del failure  # and with it, the frames that it keeps
            await asyncio.sleep(pause)

    def _tell_of_retry(self, call: Call, failure: KokoonError, pause: float) -> None:
        if self._hooks.hears(RetryScheduled):
            status = getattr(failure, "status", None)
            kind = type(failure).__name__
            self._hooks.tell(RetryScheduled(call.vid, call.attempts, pause, kind, status))

    async def _attempt(self, call: Call) -> Answer:
        """Send one request, and once more if only the token was too old."""
        path = image_path(call.vid)
        if self._tokens.current is None:
            await self._wait_for_token(call)
        response, token = await self._take_turn_and_send(path, call)
        if is_token_refused(response):
            self._calls.pauses(call, "waiting for a token")
            if await self._tokens.newer_than(token) is not None:
                response, token = await self._take_turn_and_send(path, call)
        try:
            image = read_image(response, call.vid)
        except KokoonError as error:
            failure = error
        else:
            self._throttle.succeeded()
            return Answer(image, response, call.attempts)
        failure = _without_token(failure, response, token)
        if isinstance(failure, ProtocolError):
            response.discard()  # whatever else comes on this connection is suspect (E7)
        elif not is_transient(failure):
            self._throttle.succeeded()  # the server answered, and not that it has too much to do
        raise failure

    async def _take_turn_and_send(self, path: str, call: Call) -> tuple[Response, Token]:
        ticket, call.turn = call.turn, None
        if ticket is None:
            ticket = self._throttle.turn_now(call.due)
        if ticket is None:
            self._calls.pauses(call, "waiting for its turn")
            again = call.attempts > 0
            ticket = await self._throttle.take_turn(call.vid, call.due, again=again)
        try:
            # Asked for now: the token may have changed while the call waited.
            token = self._tokens.current or await self._tokens.first()
            response = await self._send(path, call, token)
            if is_error(response.status) and asks_to_brake(response):
                self._throttle.brake(ticket, self._pause_for_all(response))
            return response, token
        finally:
            self._throttle.done()

    def _pause_for_all(self, response: Response) -> float | None:
        """
        Give the seconds for which an answer holds up everybody's requests.

        A hint that no call would wait out, perhaps about one image only, is no reason to stop
        the others for so long (F-53).
        """
        hint = retry_after(response)
        return None if hint is None else min(hint, self._policy.retry_after_cap)


def _without_token(error: KokoonError, response: Response, token: Token) -> KokoonError:
    """Give the error of an answer, which quotes it, without a token that it echoes (F-120)."""
    hidden = token.hidden_in(response.body)
    if hidden == response.body:
        return error
    try:
        read_image(response._replace(body=hidden), error.vid or "")
    except KokoonError as same:
        return same
    return error
