"""
The aiohttp adapter: one request out, one whole answer back, nothing decided.

The only module that knows aiohttp's client. Its exceptions hold the request's headers,
its URLs and live objects (E5, E6), so none leaves: each becomes one of ours here, raised
outside the handler so that nothing foreign hangs on it (F-120).
"""

import asyncio
import ssl
from importlib.metadata import version

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ..errors import (
    ClientClosed,
    ConnectionFailed,
    KokoonError,
    ProtocolError,
    RequestTimedOut,
    TransportError,
)
from .auth import Secret, Token
from .bodies import MOST_ERROR_BYTES, MOST_RECORD_BYTES, BodyFault, decoded
from .calls import Call, Calls, Timeouts
from .protocol import Request, Response, is_error


__all__ = ["Transport"]

_IDLE_SECONDS = 10.0  # shorter than load balancers keep idle connections (F-04)
_ERROR_BODY_SECONDS = 5.0


class _Disconnected(aiohttp.ClientError):
    """Carry a lost connection past aiohttp's own second attempt."""


class _TracedResponse(aiohttp.ClientResponse):
    """Remember the connection, which aiohttp lets go of with the last byte."""

    wire: asyncio.Transport | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        self.wire = connection.transport
        return await super().start(connection)


async def _one_attempt(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """
    Send a request exactly once.

    aiohttp repeats an idempotent request by itself when the connection is lost, outside
    every retry budget (E1). It does so for two classes of exceptions: raise another.
    """
    request.response_class = _TracedResponse
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            raise  # no connection was made; never repeated
        reason = getattr(error, "strerror", None) or "the server closed the connection"
    raise _Disconnected(reason)


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
        self._prefix = f"{base_url}/"
        self._place = f"{base_url.host}:{base_url.port}"
        self._calls = calls
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)
        self._session = session
        self._owns_session = session is None
        self._middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = (_one_attempt,)
        if session is not None:
            # Middlewares given with a request replace the session's: keep the user's.
            self._middlewares += tuple(getattr(session, "_middlewares", ()))
        self._headers: tuple[Token | None, CIMultiDict[str]] = (None, CIMultiDict())

    async def send(self, request: Request, call: Call, token: Token) -> Response:
        """
        Send a request once and read the whole answer, whatever its status.

        Raises:
            TransportError: The one that fits.

            ClientClosed: If the session was closed.
        """
        self._calls.awaits_answer(call, "waiting for the answer")
        call.attempts += 1
        try:
            answer = await self._open_session().request(
                request.method,
                URL(self._prefix + request.path, encoded=True),
                headers=self._headers_with(token),
                allow_redirects=False,
                auto_decompress=False,
                timeout=self._timeout,
                middlewares=self._middlewares,
            )
            try:
                return await self._read(answer, call, token.secret)
            except BaseException:
                answer.close()
                raise
        except (aiohttp.ClientError, TimeoutError, OSError, BodyFault) as foreign:
            error: KokoonError = self._translated(foreign, call)
        except RuntimeError as foreign:
            if self._session is not None and not self._session.closed:
                raise
            error = ClientClosed(f"The session was closed ({foreign}).")
        error.vid, error.attempts = call.vid, call.attempts
        raise error

    async def close(self) -> None:
        """Close the session, unless it is the user's."""
        if self._owns_session and self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # The throttle limits what runs at once; a second limit would hide it.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),  # F-71
                trust_env=False,  # netrc would send passwords to the API (E33)
            )
        return self._session

    def _headers_with(self, token: Token) -> CIMultiDict[str]:
        """Give the headers for a token, built once for each."""
        if self._headers[0] is not token:
            headers = CIMultiDict(
                {
                    "Accept": "application/json",
                    # A record fits one packet; unpacking costs more than it saves.
                    "Accept-Encoding": "identity",
                    "Cache-Control": "no-cache",  # a wait must not see a stale state (F-45)
                    "User-Agent": f"kokoon-async/{version('kokoon-async')}",
                    "Authorization": token.secret,
                }
            )
            self._headers = (token, headers)
        return self._headers[1]

    async def _read(self, answer: aiohttp.ClientResponse, call: Call, secret: Secret) -> Response:
        """Read the body within its cap, and take back a token that the server echoes."""
        failed = is_error(answer.status)
        if failed:
            body = await self._read_error(answer)
        else:
            body = await self._read_record(answer, call)
        body = decoded(body, answer.headers.get("Content-Encoding"), lenient=failed)
        wire = getattr(answer, "wire", None)
        return Response(
            answer.status,
            answer.headers,
            body.replace(secret.encode(), b"<secret>"),
            answer.close if wire is None else wire.abort,
        )

    async def _read_record(self, answer: aiohttp.ClientResponse, call: Call) -> bytes:
        read = answer.content.readany
        body = await read()
        while not answer.content.at_eof():
            if len(body) > MOST_RECORD_BYTES:
                raise BodyFault(f"is larger than {MOST_RECORD_BYTES} bytes")
            self._calls.awaits_answer(call, "reading the answer")
            body += await read()
        if len(body) > MOST_RECORD_BYTES:
            raise BodyFault(f"is larger than {MOST_RECORD_BYTES} bytes")
        return body

    async def _read_error(self, answer: aiohttp.ClientResponse) -> bytes:
        """Read what explains an error; the status stands, whatever becomes of it (F-34)."""
        body = b""
        try:
            async with asyncio.timeout(_ERROR_BODY_SECONDS):
                while len(body) < MOST_ERROR_BYTES and not answer.content.at_eof():
                    body += await answer.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError):
            answer.close()
        if not answer.content.at_eof():
            answer.close()
        return body[:MOST_ERROR_BYTES]

    def _translated(self, error: Exception, call: Call) -> TransportError:
        """Turn what aiohttp raises into the error that says the same of ours."""
        image, place = f"image {call.vid}", self._place
        if isinstance(error, BodyFault):
            return ProtocolError(f"The answer for {image} {error}.")
        if isinstance(error, aiohttp.ClientPayloadError):
            return ProtocolError(f"The answer for {image} was cut.")
        if isinstance(error, aiohttp.ClientResponseError):
            # aiohttp says "status 400" for what it cannot parse (E11): never look at it.
            return ProtocolError(f"The answer for {image} is not valid HTTP.")
        if isinstance(error, TimeoutError):
            return RequestTimedOut(
                f"Connecting to {place} for {image} took too long.",
                hint="Check the network, or raise Timeouts.connect.",
                phase="connecting",
            )
        if isinstance(
            error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError
        ):
            reason = getattr(error, "certificate_error", error)
            return ConnectionFailed(
                f"The certificate of {place} does not fit: {getattr(reason, 'verify_message', '?')}.",
                hint="Check base_url and the machine's clock and certificates.",
                is_lasting=True,
            )
        reason = getattr(error, "strerror", None) or str(error.args[0] if error.args else "?")
        what = (
            "Cannot connect to"
            if isinstance(error, aiohttp.ClientConnectorError)
            else "Lost the connection to"
        )
        return ConnectionFailed(
            f"{what} {place} for {image}: {reason:.100}.", hint="Check the network and base_url."
        )
