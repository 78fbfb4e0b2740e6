"""
The books of a client's requests: whether each was allowed, and what is left of its retry quota.

They are kept from the wire and from the policy's public numbers: what each answer was, and what
the policy says it costs. Only *when* a retry is decided is taken from the client's own word, and a
request that nobody decided is found all the same.

```python
ledger = Ledger(policy := RetryPolicy())
async with KokoonClient(TOKEN, retry=policy) as client:
    ledger.watch(client)
    ...
assert ledger.wrong == []
```
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from kokoon_async import KokoonClient, KokoonError, RetryPolicy
from kokoon_async._http.calls import Call
from kokoon_async._http.pipeline import Pipeline
from kokoon_async._http.protocol import Answer, Response, asks_to_brake, is_error


@attrs.define
class Account:
    """
    Follow one call.

    Attributes:
        requests: How many it has sent.

        may_send: Whether it may send the first request of an attempt.

        refused: The generation of the token that the last answer refused, if it did.

        replayed: Whether this attempt has been sent once more, with a newer token.

        throttled: Whether the last answer asked for fewer requests.

        refund: Tokens that its success brings back.
    """

    requests: int = 0
    may_send: bool = True
    refused: int | None = None
    replayed: bool = False
    throttled: bool = False
    refund: int = 1


@attrs.define
class Ledger:
    """
    Check every request of a client against what it may send (G6, F-66).

    A call may send one request for each of its attempts, and once in an attempt another one with a
    newer token if a 401 was the answer. An attempt after the first is a retry: it is paid for from
    the quota when it is decided, by its class, and a success brings back what its own last retry
    cost, or 1 without any.

    Args:
        policy: The client's.

    Attributes:
        tokens: What must be left in the quota.

        wrong: What must not have happened.

        figures: How many requests, retries and so on there were.
    """

    policy: RetryPolicy
    tokens: int = attrs.field(init=False)
    wrong: list[str] = attrs.field(factory=list)
    figures: Counter[str] = attrs.field(factory=Counter)
    _accounts: dict[Call, Account] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.policy.quota

    def watch(self, client: KokoonClient) -> None:
        """Stand between a client's pipeline and its transport, and around its retries."""
        pipeline: Any = client._pipeline
        send, tell, whole = pipeline._send, pipeline._tell_of_retry, pipeline._with_retries

        async def noted_send(path: str, call: Call, token: Any) -> Response:
            self.note_request(call, token.generation)
            response: Response = await send(path, call, token)
            self.note_answer(call, response, token.generation)
            return response

        def noted_tell(call: Call, failure: KokoonError, pause: float) -> None:
            self.note_retry(call)
            self.compare(pipeline)
            tell(call, failure, pause)

        async def noted_whole(call: Call) -> Answer:
            try:
                answer: Answer = await whole(call)
            except KokoonError as error:
                if "quota of retries" in error.message:
                    self.note_refusal(call)
                raise
            self.note_success(call)
            self.compare(pipeline)
            return answer

        pipeline._send, pipeline._tell_of_retry = noted_send, noted_tell
        pipeline._with_retries = noted_whole

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self.figures["requests"]

    def note_request(self, call: Call, generation: int) -> None:
        """Check that a call may send a request with the token of this generation."""
        account = self._accounts.setdefault(call, Account())
        account.requests += 1
        self.figures["requests"] += 1
        if account.may_send:
            account.may_send = account.replayed = False
        elif account.refused is not None and not account.replayed:
            account.replayed = True
            self.figures["replays"] += 1
            if generation <= account.refused:
                self.wrong.append(f"{call.vid}: a refused token was sent once more")
        else:
            self.wrong.append(f"{call.vid}: a request that no attempt and no new token allows")
        account.refused, account.throttled = None, False

    def note_answer(self, call: Call, response: Response, generation: int) -> None:
        """Note what an answer allows, and what it makes a retry cost."""
        account = self._accounts[call]
        account.refused = generation if response.status == 401 else None
        account.throttled = is_error(response.status) and asks_to_brake(response)

    def note_retry(self, call: Call) -> None:
        """Check that a call may be tried again, and pay for it."""
        # A call that got no token in time has sent nothing yet.
        account = self._accounts.setdefault(call, Account())
        if account.requests >= self.policy.attempts:
            self.wrong.append(f"{call.vid}: more attempts than {self.policy.attempts}")
        account.refund = self._cost(account)
        self.tokens -= account.refund
        self.figures["retries"] += 1
        self.figures["throttled retries"] += account.throttled
        if self.tokens < 0:
            self.wrong.append(f"more retries than the quota of {self.policy.quota} allows")
        account.may_send, account.throttled = True, False

    def note_refusal(self, call: Call) -> None:
        """Check that a retry which the quota does not allow could not be paid for."""
        self.figures["retries refused"] += 1
        if self.tokens >= self._cost(self._accounts.get(call, Account())):
            self.wrong.append(f"no retry, though {self.tokens} tokens were left")

    def note_success(self, call: Call) -> None:
        """Credit a success."""
        self.tokens = min(self.policy.quota, self.tokens + self._accounts[call].refund)

    def compare(self, pipeline: Pipeline) -> None:
        """Check that the client's own books say the same."""
        if pipeline._quota.tokens != self.tokens:
            self.wrong.append(f"{pipeline._quota.tokens} tokens are left, and not {self.tokens}")

    def _cost(self, account: Account) -> int:
        """Give what a retry costs, after what the wire has shown."""
        policy = self.policy
        return policy.throttled_cost if account.throttled else policy.transient_cost
