"""
The aiohttp adapter: one request out, one whole answer back, nothing decided.

The only module that knows aiohttp's client. Its exceptions hold the request's headers,
its URLs and live objects (E5, E6), so none leaves: each becomes one of ours here, raised
outside the handler so that nothing foreign hangs on it (F-120).
"""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .._version import __version__
from ..errors import (
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    KokoonError,
    ProtocolError,
    RequestTimedOut,
    TransportError,
)
from .auth import Token
from .bodies import MOST_ERROR_BYTES, MOST_RECORD_BYTES, BodyFault, decoded
from .calls import Call, Calls, Timeouts, is_cancelled
from .protocol import Response, is_error


__all__ = ["Transport"]

_IDLE_SECONDS = 10.0  # shorter than load balancers keep idle connections (F-04)
_ERROR_BODY_SECONDS = 5.0
# The second is what aiohttp's parser in Python lets out of a body (its C parser does not).
_NETWORK_FAULTS = (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError)
_CONSTANT_HEADERS = {
    "Accept": "application/json",
    # A record fits one packet; unpacking costs more than it saves.
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",  # a wait must not see a stale state (F-45)
    "User-Agent": f"kokoon-async/{__version__}",
}

# aiohttp repeats an idempotent request by itself, outside every retry budget, when one of
# these two comes up (E1): another exception has to carry their news.
_REPEATED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class _Disconnected(aiohttp.ClientError):
    """Say that a connection was lost."""


class _UnaskedData(aiohttp.ClientError):
    """Say that something was on a connection before its answer can have been."""


# The call whose request this task sends, and its watcher.
_sending: ContextVar[tuple[Calls, Call]] = ContextVar("kokoon_async_sending")


class _TracedResponse(aiohttp.ClientResponse):
    """
    Read an answer of a request that is sent exactly once.

    Remembers the connection, which aiohttp lets go of with the last byte, and carries a
    lost one past aiohttp's own second attempt.
    """

    wire: asyncio.Transport | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        calls, call = _sending.get()
        calls.awaits_answer(call, "waiting for the answer")
        self.wire = connection.transport
        protocol = connection.protocol
        # The request was written just now, so no answer to it can be here yet: what is,
        # was sent while the connection was idle, and aiohttp would take it (E7).
        if protocol is not None and protocol.should_close and protocol.exception() is None:
            raise _UnaskedData
        try:
            return await super().start(connection)
        except _REPEATED as error:
            lost = _lost(error)
        raise lost


async def _in_traced_response(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let a session of the user's read this one answer as ours does."""
    request.response_class = _TracedResponse
    try:
        return await handler(request)
    except _REPEATED as error:
        if isinstance(error, aiohttp.ClientConnectorError):
            raise  # no connection was made; never repeated
        lost = _lost(error)
    raise lost


def _lost(error: Exception) -> _Disconnected:
    reason = error.strerror if isinstance(error, OSError) else None
    return _Disconnected(reason or "the server closed the connection")


class Transport:
    """
    Send requests to one origin over one aiohttp session.

    Args:
        base_url: The API's address; requests name paths below it.

        timeouts: *connect* and *read* are watched here.

        calls: The watcher of all calls.

        session: The user's own; used as it is and never closed. Without one, a session
            is opened with the first request.
    """

    def __init__(
        self,
        base_url: URL,
        *,
        timeouts: Timeouts,
        calls: Calls,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._base_url = base_url
        self._base_path = f"{base_url.raw_path.rstrip('/')}/"
        self._place = f"{base_url.host_subcomponent}:{base_url.port}"
        self._calls = calls
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
        self._session = session
        self._owns_session = session is None
        # None leaves the session's middlewares alone: ours has none, and reads answers
        # in its own class; to the user's, ours is added.
        self._middlewares: Sequence[aiohttp.ClientMiddlewareType] | None = None
        if session is not None:
            self._middlewares = (_in_traced_response, *getattr(session, "_middlewares", ()))
        self._token: Token | None = None
        self._headers: CIMultiDict[str] | None = None

    async def send(self, path: str, call: Call, token: Token) -> Response:
        """
        Ask once for what is at *path*, and read the whole answer, whatever its status.

        Raises:
            TransportError: The one that fits.

            ClientClosed: If the session is closed.

            ConfigurationError: If the user's session cannot be used for this.
        """
        session = self._usable_session()
        self._calls.pauses(call, "connecting")
        call.attempts += 1
        if token is not self._token:
            self._use(token, session)
        outer = _sending.set((self._calls, call))
        try:
            answer = await session.get(
                self._base_url.with_path(self._base_path + path, encoded=True),
                headers=self._headers,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                timeout=self._timeout,
                middlewares=self._middlewares,
            )
            try:
                return await self._read(answer, call)
            except BaseException:
                answer.close()
                raise
        except (*_NETWORK_FAULTS, BodyFault) as foreign:
            error: KokoonError = self._translated(foreign, call)
        except asyncio.CancelledError:
            # aiohttp cancels who waits for a connection when its session is closed (E16).
            if is_cancelled() or not session.closed:
                raise
            error = ClientClosed("The aiohttp session was closed.")
        except ValueError as foreign:
            error = ConfigurationError(
                f"The aiohttp session cannot send the request ({type(foreign).__name__}).",
                hint="Does it add credentials of its own: auth=, or a netrc entry?",
            )
        finally:
            _sending.reset(outer)  # it holds the call
        raise error

    async def close(self) -> None:
        """Close the session, unless it is the user's."""
        if self._owns_session and self._session is not None:
            await self._session.close()

    def _usable_session(self) -> aiohttp.ClientSession:
        """Give the session; open it with the first request."""
        session = self._session
        if session is None:
            self._session = session = aiohttp.ClientSession(
                # The throttle limits what runs at once; a second limit would hide it.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),  # F-71
                headers=_CONSTANT_HEADERS,
                response_class=_TracedResponse,
                trust_env=False,  # netrc would send passwords to the API (E33)
            )
        elif session.closed:
            raise ClientClosed("The aiohttp session is closed.")
        elif (
            not self._owns_session
            and getattr(session, "_loop", None) is not asyncio.get_running_loop()
        ):
            raise ConfigurationError(
                "The aiohttp session belongs to another event loop.",
                hint="Make the session inside the loop that uses it.",
            )
        return session

    def _use(self, token: Token, session: aiohttp.ClientSession) -> None:
        """Send this token from now on: our session with everything, a user's with ours only."""
        if self._owns_session:
            session.headers["Authorization"] = token.secret
        else:
            self._headers = CIMultiDict(_CONSTANT_HEADERS, Authorization=token.secret)
        self._token = token

    async def _read(self, answer: aiohttp.ClientResponse, call: Call) -> Response:
        """Read the body within its cap."""
        status, headers, content = answer.status, answer.headers, answer.content
        failed = is_error(status)
        if failed:
            body = await self._read_error(answer, call)
        else:
            # A record that came in one piece, as most do, needs no waiting.
            if content.is_eof():
                body = content.read_nowait()
            else:
                self._calls.awaits_answer(call, "reading the answer")  # its head broke the silence
                body = await content.readany()
            if not content.at_eof() or len(body) > MOST_RECORD_BYTES:
                body = await self._read_rest(body, answer, call)
        encoding = headers.get("Content-Encoding")
        if encoding is not None:
            body = decoded(body, encoding, lenient=failed)
        wire = getattr(answer, "wire", None)
        return Response(status, headers, body, answer.close if wire is None else wire.abort)

    async def _read_rest(self, body: bytes, answer: aiohttp.ClientResponse, call: Call) -> bytes:
        while not answer.content.at_eof():
            if len(body) > MOST_RECORD_BYTES:
                break
            self._calls.awaits_answer(call, "reading the answer")
            body += await answer.content.readany()
        if len(body) > MOST_RECORD_BYTES:
            raise BodyFault(f"is larger than {MOST_RECORD_BYTES} bytes")
        return body

    async def _read_error(self, answer: aiohttp.ClientResponse, call: Call) -> bytes:
        """Read what explains an error; the status stands, whatever becomes of it (F-34)."""
        self._calls.pauses(call, "reading the answer")
        body = bytearray()
        try:
            async with asyncio.timeout(_ERROR_BODY_SECONDS):
                while len(body) < MOST_ERROR_BYTES and not answer.content.at_eof():
                    body += await answer.content.readany()
        except _NETWORK_FAULTS:
            answer.close()
        if not answer.content.at_eof():
            answer.close()
        return bytes(body[:MOST_ERROR_BYTES])

    def _translated(self, error: Exception, call: Call) -> TransportError:
        """Turn what aiohttp raises into the error that says the same of ours."""
        if broken := _broken(error):
            return ProtocolError(f"The answer for image {call.vid} {broken}.")
        if isinstance(error, TimeoutError):
            return RequestTimedOut(
                f"The request for image {call.vid} timed out while {call.phase} to {self._place}.",
                hint="Check the network, or raise Timeouts.connect.",
                phase=call.phase,
            )
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return ConnectionFailed(
                f"The certificate of {self._place} does not fit: {_reason(error)}.",
                hint="Check base_url and the machine's clock and certificates.",
                is_lasting=True,
            )
        never = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError)
        return ConnectionFailed(
            f"{'Cannot connect' if never else 'Lost the connection'} to {self._place}"
            f" for image {call.vid}: {_reason(error):.100}.",
            hint="Check the network and base_url.",
        )


def _broken(error: Exception) -> str:
    """Say what is wrong with an answer, as the end of a sentence; nothing if it is not."""
    if isinstance(error, BodyFault):
        return str(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return "was cut"
    if isinstance(error, _UnaskedData):
        return "came after one that nobody asked for"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ""
    # aiohttp says "status 400" for what it cannot parse (E11): never look at it.
    parsing = isinstance(error, aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError)
    return "is not valid HTTP" if parsing else ""


def _reason(error: Exception) -> str:
    """Give the system's words, or the class: aiohttp's own texts may hold addresses."""
    if isinstance(error, _Disconnected):
        return str(error)
    fault = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    words = getattr(fault, "verify_message", None) or getattr(fault, "strerror", None)
    return words or type(fault).__name__
