"""
What the commands have in common: how they reach the API, and which images they are about.

The token is never an argument, where every user of the machine could read it (F-117).
"""

import io
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from kokoon_async import Hook, KokoonClient, Limits, PollPolicy, Timeouts

from ._process import complain


if TYPE_CHECKING:
    from ..simulator import Durations


__all__ = [
    "Connection",
    "FiniteRange",
    "connection_options",
    "read_vids",
    "to_durations",
    "to_seconds",
    "vids_argument",
]

_STDIN = "-"
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_DURATION = re.compile(rf"({_NUMBER.pattern})([smh]?)", re.ASCII)
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_TOKEN_BYTES = 20_000  # more than any token has, and less than a device file gives


@attrs.frozen(kw_only=True)
class Connection:
    """
    How to reach the API; made of the options of `connection_options`.

    Attributes:
        token_file: Where the token is, ``-`` for standard input; ``None`` for KOKOON_TOKEN.

        base_url: The API's address; ``None`` for the default one.

        concurrency: Requests at once.

        rate: Requests per second; ``None`` for no limit.

        allow_plain_http: Whether the token may travel unencrypted.
    """

    token_file: str | None
    base_url: str | None
    concurrency: int
    rate: float | None
    allow_plain_http: bool

    def client(
        self,
        *,
        timeouts: Timeouts | None = None,
        hooks: Sequence[Hook] = (),
        poll: PollPolicy | None = None,
    ) -> KokoonClient:
        """
        Make a client; what it is given here is passed on.

        Raises:
            click.UsageError: If there is no token.

            ConfigurationError: If the token or the address cannot be used.
        """
        settings: dict[str, Any] = {
            "limits": Limits(max_in_flight=self.concurrency, requests_per_second=self.rate),
            "timeouts": timeouts or Timeouts(),
            "hooks": hooks,
            "poll": poll,
            "allow_plain_http": self.allow_plain_http,
        }
        if self.base_url is not None:
            settings["base_url"] = self.base_url
        if self.token_file is not None:
            return KokoonClient(_read_token(self.token_file), **settings)
        if not os.environ.get("KOKOON_TOKEN"):
            raise click.UsageError(
                "There is no token: set KOKOON_TOKEN, or name a file with --token-file."
            )
        return KokoonClient.from_env(**settings)


class FiniteRange(click.FloatRange):
    """A number within bounds; *nan* is within none, though click's own comparisons let it pass."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number, or end the program with wrong usage."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number; write one in digits.", param, ctx)
        return number


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that make a `Connection`."""
    options = (
        click.option(
            "--token-file",
            metavar="FILE",
            help="Read the API token from FILE, or from standard input if it is -."
            " Without it, the token is taken from the variable KOKOON_TOKEN.",
        ),
        click.option(
            "--base-url",
            metavar="URL",
            envvar="KOKOON_BASE_URL",
            help="The API's address, if not the usual one; also the variable KOKOON_BASE_URL.",
        ),
        click.option(
            "--allow-plain-http",
            is_flag=True,
            help="Send the token unencrypted, also to another machine.",
        ),
        click.option(
            "--concurrency",
            metavar="N",
            type=click.IntRange(min=1),
            default=64,
            show_default=True,
            help="At most N requests at once.",
        ),
        click.option(
            "--rate",
            metavar="R",
            type=FiniteRange(min=0.001, max=1e6),
            help="At most R requests per second.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _read_token(path: str) -> str:
    """Read a token, which may end in a line break; the client checks the rest."""
    if path == _STDIN:
        return _token_from_input()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - also /dev/fd/3
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(_MOST_TOKEN_BYTES)
    except OSError as error:
        problem = error.strerror
    else:
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            complain(f"kokoon-async: warning: every user can read {path}; try: chmod 600 {path}")
        return _decoded(token)
    raise click.BadParameter(f"cannot read {path}: {problem}", param_hint="--token-file")


def _token_from_input() -> str:
    if sys.stdin is None:
        raise click.BadParameter("standard input is closed", param_hint="--token-file")
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True))
    return _decoded(sys.stdin.buffer.read(_MOST_TOKEN_BYTES))


def _decoded(token: bytes) -> str:
    # One character for each byte, so that the client names the right position.
    return token.decode("latin-1")


def vids_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument that `read_vids` takes."""
    return click.argument("vids", metavar="VID...", nargs=-1, required=True)(command)


def read_vids(vids: Iterable[str], connection: Connection) -> list[str]:
    """
    Give the ids as they were named; ``-`` stands for those on standard input.

    There, blank lines and lines that begin with ``#`` count for nothing.

    Raises:
        click.UsageError: If standard input cannot be read, or is for the token.
    """
    found: list[str] = []
    for vid in vids:
        if vid != _STDIN:
            found.append(vid)
        elif connection.token_file == _STDIN:
            raise click.UsageError("Standard input cannot be both the token and the ids.")
        elif sys.stdin is None:
            raise click.UsageError("Standard input is closed.")
        else:
            text = sys.stdin.buffer.read().decode("utf-8-sig", "replace")
            lines = (line.strip() for line in io.StringIO(text, newline=None))
            found.extend(line for line in lines if line and not line.startswith("#"))
    return found


def to_seconds(_: click.Context, __: click.Parameter, value: str) -> float | None:
    """Read a duration such as ``90``, ``1.5m`` or ``2h``, or ``none`` for no limit."""
    if value == "none":
        return None
    found = _DURATION.fullmatch(value)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise click.BadParameter(f"{value!r} is no duration; write 90, 1.5m, 2h or none.")
    return seconds


def to_durations(_: click.Context, __: click.Parameter, value: str) -> "Durations":
    """Read how long images take: ``20``, ``lognormal:20:0.6`` or ``queue:5:15:4``."""
    from ..simulator import Constant, LogNormal, QueueAndRun  # with a whole web server

    kinds: dict[str, Callable[..., Durations]] = {
        "constant": Constant,
        "lognormal": LogNormal,
        "queue": QueueAndRun,
    }
    kind, *numbers = value.split(":") if ":" in value else ("constant", value)
    try:
        if all(map(_NUMBER.fullmatch, numbers)):
            return kinds[kind](*map(float, numbers))
    except (LookupError, TypeError, ValueError):  # no such kind, too many numbers, a zero
        pass
    raise click.BadParameter(
        f"{value!r} is no duration; write 20, lognormal:20:0.6 or queue:5:15:4."
    )
