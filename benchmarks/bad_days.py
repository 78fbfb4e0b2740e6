"""
What bad days cost: requests in an outage, success while many requests fail, memory under bombs.

A server in a process of its own counts what reaches it. Next to the client stands what a
first script does: three attempts in a loop around aiohttp, which itself repeats a request
whose connection was lost. Run it with ``nox -s bench -- bad_days``, on Linux: what is said of
memory comes from there.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import multiprocessing
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from kokoon_async import KokoonClient, KokoonError, Limits


Fetch = Callable[[str], Awaitable[object]]

PIECE = bytes(1 << 16)
HUGE = 10 << 30  # bytes of the endless body
BOMB = 512 << 20  # bytes that the bomb unpacks to
GOOD = str(uuid.UUID(int=1))  # the image with a good record on the worst of days


# -- the server ------------------------------------------------------------------------------------


class Server:
    """
    Answer badly, on purpose.

    Attributes:
        requests: How many have arrived.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._share = 0.0
        self._kind = "fail"
        self._draw = random.Random(1)
        self._packed = gzip.compress(bytes(BOMB), 9)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                vid = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
                self.requests += 1
                if self._kind == "hang up":
                    break
                kind = "good" if vid == GOOD else self._kind
                await getattr(self, f"_{kind}")(writer, vid)
        writer.close()

    async def _fail(self, writer: asyncio.StreamWriter, vid: str) -> None:
        if self._draw.random() < self._share:
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
            return
        await self._good(writer, vid)

    async def _good(self, writer: asyncio.StreamWriter, vid: str) -> None:
        body = json.dumps({"vid": vid, "state": "completed"}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def _huge(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
        for _ in range(HUGE // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()

    async def _bomb(self, writer: asyncio.StreamWriter, _: str) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(self._packed) + self._packed)

    async def serve(self, pipe: Connection) -> None:
        """Listen, and obey what comes through the pipe: a kind and a share of failures."""
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        told = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), told.set)
        while True:
            await told.wait()
            told.clear()
            while pipe.poll():
                order = pipe.recv()
                if order is None:
                    return
                pipe.send(self.requests)
                self.requests, (self._kind, self._share) = 0, order


def run_server(pipe: Connection) -> None:
    """Be the server's process."""
    asyncio.run(Server().serve(pipe))


class BadServer:
    """Stand for the server, in another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url = f"http://127.0.0.1:{pipe.recv()}"

    def become(self, kind: str, share: float = 0.0) -> int:
        """Behave like this from now on; give how many requests came since the last time."""
        self._pipe.send((kind, share))
        count: int = self._pipe.recv()
        return count


@contextlib.contextmanager
def bad_server() -> Iterator[BadServer]:
    """Start the server, and stop it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(there,))
    process.start()
    try:
        yield BadServer(here)
    finally:
        here.send(None)
        process.join()


# -- the contenders --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def ours(url: str) -> AsyncIterator[Fetch]:
    """Fetch with `KokoonClient.get_image`."""
    async with KokoonClient("token", base_url=url, limits=Limits(max_in_flight=64)) as client:
        yield client.get_image


@contextlib.asynccontextmanager
async def three_attempts(url: str) -> AsyncIterator[Fetch]:
    """Fetch with three attempts in a loop, as a first script does."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

        async def fetch(vid: str) -> object:
            for left in (2, 1, 0):
                try:
                    async with session.get(f"{url}/image/{vid}", raise_for_status=True) as response:
                        return await response.json(content_type=None)
                except (aiohttp.ClientError, ValueError):
                    if not left:
                        raise
                await asyncio.sleep(0.05 * random.random())
            return None

        yield fetch


CONTENDERS = {"kokoon_async": ours, "three attempts": three_attempts}


async def successes(fetch: Fetch, calls: int) -> int:
    """Make calls at once; give how many brought a record."""
    vids = (str(uuid.UUID(int=number, version=1)) for number in range(1, calls + 1))
    results = await asyncio.gather(*map(fetch, vids), return_exceptions=True)
    foreign = [r for r in results if isinstance(r, BaseException) and not expected(r)]
    if foreign:
        raise foreign[0]
    return sum(not isinstance(result, BaseException) for result in results)


def expected(error: BaseException) -> bool:
    """Tell whether a call may end like this on a bad day."""
    return isinstance(error, KokoonError | aiohttp.ClientError | ValueError)


async def compare(server: BadServer) -> None:
    """Print what outages and failures cost."""
    print("requests on the wire per call, full outage (each connection is closed unanswered)")
    for calls in (100, 1_000, 5_000):
        shown = []
        for name, contender in CONTENDERS.items():
            server.become("hang up")
            async with contender(server.url) as fetch:
                await successes(fetch, calls)
            sent = server.become("hang up")
            shown.append(f"{name} {sent / calls:.3f} ({sent - calls:+d})")
        print(f"  {calls:5} calls: {', '.join(shown)}")
    for share in (0.1, 0.5):
        print(f"{share:.0%} of the requests fail, 5,000 calls")
        for name, contender in CONTENDERS.items():
            server.become("fail", share)
            async with contender(server.url) as fetch:
                good = await successes(fetch, 5_000)
            sent = server.become("fail")
            print(f"  {name:15} success {good / 50:.2f} %, load {sent / 5_000:.3f}")


# -- memory ----------------------------------------------------------------------------------------


def forget_peak() -> None:
    """Let `peak` count from now on: what the process needed before must not hide what follows."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Give the most memory that this process has had, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kibibytes) / 1024


def refuse(url: str, results: Connection) -> None:
    """Ask for one image in a process of its own; tell the error, seconds and memory it took."""

    async def once() -> tuple[str, int, float, float]:
        async with KokoonClient("token", base_url=url) as client:
            await client.get_image(GOOD)  # makes what is made once
            forget_peak()
            before, began = peak(), time.perf_counter()
            try:
                await client.get_image(str(uuid.UUID(int=2)))
            except KokoonError as error:
                took = time.perf_counter() - began
                return type(error).__name__, error.attempts, took, peak() - before
        return "no error", 1, time.perf_counter() - began, peak() - before

    results.send(asyncio.run(once()))


def bombs(server: BadServer) -> None:
    """Print what bodies without bounds do."""
    for kind, what in (("huge", "body of 10 GiB"), ("bomb", "gzip bomb of 512 MiB")):
        server.become(kind)
        receive, send = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=refuse, args=(server.url, send))
        process.start()
        error, attempts, seconds, growth = receive.recv()
        process.join()
        told = f"{error} after {attempts} attempts and {seconds:.2f} s"
        print(f"{what}: {told}; the process grew by {growth:.1f} MiB at most")


def main() -> None:
    """Run all, and print the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with bad_server() as server:
        asyncio.run(compare(server))
        bombs(server)


if __name__ == "__main__":
    main()
