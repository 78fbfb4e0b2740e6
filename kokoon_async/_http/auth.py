"""
The token: checked once, shown never, refreshed by one call however many need it.

A token is given as a text, or by a provider that is asked for the first one and again
when the server refuses the last. Requests that were refused together share one refresh:
each names the generation of the token it used, and only the current one starts a new
refresh (E26). What the provider gives is sent exactly as it is, without ``Bearer`` (U2).
"""

import asyncio
import concurrent.futures
import contextvars
import copy
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from ..errors import AuthenticationFailed, ConfigurationError, KokoonError, RequestTimedOut
from ..events import Hooks, TokenRefreshed
from .calls import is_cancelled
from .echoes import without


__all__ = ["Secret", "Token", "TokenProvider", "Tokens", "check_token"]

E = TypeVar("E", bound=KokoonError)

TokenProvider = Callable[[], str | Awaitable[str]]
"""Gives the current token: a function, or a coroutine function. A plain function runs in
a thread, so it may read a file."""

_MOST_TOKEN_LETTERS = 8_000  # servers take 8 KiB for a header line
# Shorter ones are made up for tests, and part of honest words by accident.
_SHORTEST_SECRET = 8
_MOST_THREADS = 32  # in which a provider hangs: one for each time-out
_MOST_CLEAN_UP_SECONDS = 1.0  # for a provider that is cancelled

# Whose providers this code runs in: a provider may use another client, with its own.
_asking: contextvars.ContextVar[tuple["Tokens", ...]] = contextvars.ContextVar(
    "kokoon_async_asking", default=()
)


class Secret(str):
    """
    Be a text that nobody sees by accident.

    It is sent like any text, but its repr is constant, and it refuses to be pickled
    (E34). Any text derived from it is a plain one: do not derive any.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        message = "a token is never pickled"
        raise TypeError(message)


class Token:
    """
    Hold a token and which one it is.

    Attributes:
        secret: What goes into the ``Authorization`` header.

        generation: 1 for the first token of a client, then one more each time.
    """

    __slots__ = ("generation", "secret")

    def __init__(self, secret: Secret, generation: int) -> None:
        self.secret = secret
        self.generation = generation

    def hidden_in(self, text: bytes) -> bytes:
        """Give *text* without this token, should the server have echoed it."""
        secret = self.secret.encode()
        return text if len(secret) < _SHORTEST_SECRET else without(secret, text)


def check_token(token: object) -> Secret:
    """
    Refuse what cannot be a header value, and give the token as a `Secret`.

    One line break at the end is dropped: tokens come from files.

    Raises:
        ConfigurationError: It names the length and the first bad position, never
            the content (E17, F-68).
    """
    kind = type(token)
    if kind not in (str, Secret):
        del token  # a traceback shows what a frame holds
        raise ConfigurationError(f"The token must be a str, not {kind.__name__}.")
    text = Secret(str.removesuffix(str.removesuffix(token, "\n"), "\r"))  # type: ignore[arg-type]
    del token
    if not text:
        raise ConfigurationError(
            "The token is empty.", hint="Pass the API token, or set KOKOON_TOKEN for from_env()."
        )
    if len(text) > _MOST_TOKEN_LETTERS:
        raise ConfigurationError(
            f"The token has {len(text)} characters; no API token is that long."
        )
    for position, letter in enumerate(text):
        at_edge = position in (0, len(text) - 1)
        if not " " <= letter <= "~" or (letter == " " and at_edge):
            del letter
            raise ConfigurationError(
                f"The token (length {len(text)}) has a character at position {position}"
                " that cannot be part of a token.",
                hint="Look for line breaks, blanks at the ends and pasted quotes.",
            )
    return text


class Tokens:
    """
    Give the current token, and get a newer one when the server refused it.

    Args:
        source: A token, or a provider of tokens.

        hooks: Told of each refresh.

        timeout: Seconds that the provider may take; ``None`` for ever. A provider that
            hangs holds up those who wait for it, and not all who come later too.
    """

    def __init__(
        self, source: str | TokenProvider, hooks: Hooks, *, timeout: float | None = None
    ) -> None:
        self._hooks = hooks
        self._timeout = timeout
        self._provider: TokenProvider | None = None
        self._token: Token | None = None
        self._refresh: asyncio.Task[Token] | None = None
        self._threads: set[threading.Thread] = set()
        if callable(source):
            self._provider = source
        else:
            self._token = Token(check_token(source), 1)

    @property
    def current(self) -> Token | None:
        """The current token; ``None`` before the provider gave the first one."""
        return self._token

    async def first(self) -> Token:
        """Give the current token, asking the provider for the first one if need be."""
        return self._token or await self._ask(0)

    async def newer_than(self, refused: Token) -> Token | None:
        """
        Give a newer token than the one that the server refused, if there is one.

        ``None`` if there is no provider, or if it has nothing new.

        Raises:
            AuthenticationFailed: If the provider failed; all who wait get their own.

            ConfigurationError: If what it gave is no token.

            RequestTimedOut: If it took too long.
        """
        if self._provider is None:
            return None
        token = await self._ask(refused.generation)
        return token if token.secret != refused.secret else None

    async def close(self) -> None:
        """Stop a refresh that is under way, and see it end."""
        refresh = self._refresh
        if refresh is not None and refresh is not asyncio.current_task():
            refresh.cancel()
            await asyncio.wait({refresh}, timeout=_MOST_CLEAN_UP_SECONDS)

    async def _ask(self, known: int) -> Token:
        if self in _asking.get():
            raise ConfigurationError(
                "It called the client that waits for its token.",
                hint="Use another client, or plain HTTP, inside the provider.",
            )
        if self._token is not None and self._token.generation > known:
            return self._token
        if self._refresh is None:
            self._refresh = asyncio.create_task(self._call_provider(), name="kokoon token refresh")
            self._refresh.add_done_callback(self._refreshed)
        # Shielded: one caller's cancellation must not fail the others (F-64).
        refresh = self._refresh
        try:
            return await asyncio.shield(refresh)
        except KokoonError as error:
            failure = copy.copy(error)
        except asyncio.CancelledError as error:
            if is_cancelled() or not refresh.cancelled():
                raise
            failure = self._failed(error)  # the provider cancelled its own task
        raise failure

    def _refreshed(self, task: "asyncio.Task[Token]") -> None:
        self._refresh = None
        if task.cancelled() or task.exception() is not None:
            return
        known, self._token = self._token, task.result()
        if self._token is not known and self._hooks.hears(TokenRefreshed):
            self._hooks.tell(TokenRefreshed(generation=self._token.generation))

    async def _call_provider(self) -> Token:
        self._check_threads()
        _asking.set((*_asking.get(), self))  # in this task's own context only
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                result = self._read(await self._answer())
        except ConfigurationError as error:
            result = _prefixed(ConfigurationError, error)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            result = self._failed(error, self._timeout if limit.expired() else None)
        if isinstance(result, KokoonError):
            raise result
        known = self._token
        if known is not None and known.secret == result:
            return known
        return Token(result, known.generation + 1 if known else 1)

    async def _answer(self) -> object:
        """Give what the provider gives: in a thread, unless it is a coroutine function."""
        provider: Any = self._provider
        if inspect.iscoroutinefunction(provider):
            return await provider()
        thread, future = _in_thread(provider)
        self._threads.add(thread)
        result = await future
        return await result if inspect.isawaitable(result) else result

    def _check_threads(self) -> None:
        """Refuse one more thread if too many have not come back."""
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        if len(self._threads) >= _MOST_THREADS:
            raise RequestTimedOut(
                f"The token provider still hangs from the last {_MOST_THREADS} times.",
                hint="Give what it waits for a time limit.",
                phase="waiting for a token",
            )

    # No exception passes through these two, whose frames hold what the provider gave or raised.

    def _read(self, given: object) -> Secret | KokoonError:
        """Give the token, or say what is wrong with it."""
        try:
            return check_token(given)
        except ConfigurationError as error:
            problem = error
        if self._token is None:
            return _prefixed(ConfigurationError, problem)
        # It may be a moment's: a file that is just being replaced is empty.
        failure = _prefixed(AuthenticationFailed, problem)
        failure.is_passing = True
        return failure

    def _failed(self, error: BaseException, limit: float | None = None) -> KokoonError:
        """Say why there is no token; one that never gave any may never do so."""
        if limit is not None:
            return RequestTimedOut(
                f"The token provider gave no token within {limit:g} s.", phase="waiting for a token"
            )
        return AuthenticationFailed(
            f"The token provider failed with {type(error).__name__}.",
            hint="Its own text is left out, since it may hold the token.",
            is_passing=self._token is not None,
        )


def _prefixed(kind: type[E], error: KokoonError) -> E:
    return kind(f"The token provider: {error.message}", hint=error.hint)


def _in_thread(provider: Any) -> tuple[threading.Thread, asyncio.Future[object]]:
    """
    Call a provider in a thread of its own.

    Not in one of the event loop's, which look up names too: one that hangs would take them
    away from the whole program, one after the other, and hold up its end.
    """
    result: concurrent.futures.Future[object] = concurrent.futures.Future()
    result.set_running_or_notify_cancel()  # nobody stops it any more

    def call() -> None:
        try:
            given = provider()
        except StopIteration:
            # No future can hold it: on Python 3.11 whoever waits would wait for ever.
            result.set_exception(RuntimeError("StopIteration"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told to who waits
            result.set_exception(error)
        else:
            result.set_result(given)

    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(call,), name="kokoon token provider", daemon=True)
    thread.start()
    return thread, asyncio.wrap_future(result)
