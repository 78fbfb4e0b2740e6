"""The commands and their options; what they do is in the modules named after them."""

import time
from typing import Any

import attrs
import click
from click.core import ParameterSource

from kokoon_async import Timeouts, __version__

from ._learning import LearnedFile
from ._options import (
    Connection,
    FiniteRange,
    connection_options,
    read_vids,
    to_durations,
    to_seconds,
    vids_argument,
)
from ._process import Program, Signals


__all__ = ["program"]

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object per line, as the API spells it."
)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all good, 1 failed, 2 wrong usage, 3 some ids failed, 74 input or output"
    " failed, 129, 130 and 143 stopped by a signal.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """
    Ask the Kokoon Image Super-Resolution API for images, and wait until they are finished.

    To see what it is about, with no account and no network: kokoon-async demo
    """


@program.command()
@vids_argument
@_json_option
@click.option(
    "--timeout",
    metavar="TIME",
    callback=to_seconds,
    default="60",
    show_default=True,
    help="The most time for one record, retries included: 90, 1.5m, 2h or none.",
)
@connection_options
@click.pass_obj
def get(
    signals: Signals,
    /,
    vids: tuple[str, ...],
    *,
    as_json: bool,
    timeout: float | None,
    **options: Any,
) -> int:
    """
    Show the records of images as they are now.

    VID is the id of an image, a UUID; - reads ids from standard input, one per line. One image is
    shown in detail, several as one line each.
    """
    from ._get import get_images

    connection = Connection(**options)
    wanted = read_vids(vids, connection)
    client = connection.client(timeouts=Timeouts(total=timeout))

    async def work() -> int:
        async with client:
            return await get_images(client, wanted, as_json=as_json)

    return signals.run(work())


@program.command()
@vids_argument
@_json_option
@click.option(
    "--timeout",
    metavar="TIME",
    callback=to_seconds,
    default="30m",
    show_default=True,
    help="The most time for each image: 90, 1.5m, 2h or none.",
)
@click.option(
    "--learn",
    metavar="FILE",
    help="Read from FILE how long images take, if it exists, and write down what these waits"
    " teach.",
)
@connection_options
@click.pass_obj
def wait(
    signals: Signals,
    /,
    vids: tuple[str, ...],
    *,
    as_json: bool,
    timeout: float | None,
    learn: str | None,
    **options: Any,
) -> int:
    """
    Wait until images are finished, all of them at once.

    VID is the id of an image, a UUID; - reads ids from standard input, one per line. On a terminal,
    a table shows how far they are; elsewhere, there is one line for each change. Stopping the
    program stops nothing at the server: wait for the same ids again to resume.
    """
    from ._board import Board, is_lively, make_console
    from ._wait import JsonView, LineView, LiveView, wait_for_images

    connection = Connection(**options)
    board = Board(read_vids(vids, connection), clock=time.monotonic)
    learned = LearnedFile.open(learn)
    client = connection.client(hooks=[board.note], poll=learned.policy)
    console = make_console()
    view: LineView = LineView(board)
    if as_json:
        view = JsonView(board)
    elif is_lively(console):
        view = LiveView(board, console)

    async def work() -> int:
        async with client:
            return await wait_for_images(client, board, view, timeout=timeout)

    return learned.run(signals, work())


@program.command()
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    required=True,
    help="Write to OUT: one file if it ends in .jsonl, .ndjson, .csv or .parquet; a folder with a"
    " file per shard if it has no suffix of another kind of file; - is standard output, as JSON"
    " lines.",
)
@click.option("--wait", is_flag=True, help="Wait for each image to be finished.")
@click.option(
    "--timeout",
    metavar="TIME",
    callback=to_seconds,
    default="30m",
    show_default=True,
    help="With --wait, the most time for each image: 90, 1.5m, 2h or none.",
)
@click.option(
    "--learn",
    metavar="FILE",
    help="With --wait, read from FILE how long images take, if it exists, and write down what these"
    " waits teach.",
)
@click.option(
    "--format",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    help="Without it, OUT says the format; of a folder, it is jsonl.",
)
@click.option(
    "--shard-size",
    metavar="N",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Fetch, write and resume N ids together.",
)
@click.option("--fresh", is_flag=True, help="Remove what an earlier run wrote, and begin again.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Also ask again for ids that failed or timed out in earlier runs.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Write the final report to standard output, as JSON."
)
@connection_options
@click.pass_obj
def status(signals: Signals, /, **options: Any) -> int:
    """
    Write the status of each image to files, for millions of images.

    FILE has one id per line; without it, ids come from standard input. Each id gets one row,
    whatever happens on the way: after a crash or a signal, the same command again goes on where it
    was. The exit code is 3 if some ids have no record.
    """
    from ._status import StatusJob, run_status
    from ._status_view import make_view

    source = click.get_current_context().get_parameter_source
    options["given"] = frozenset(
        name for name in options if source(name) is ParameterSource.COMMANDLINE
    )
    job = StatusJob(**{field.name: options.pop(field.name) for field in attrs.fields(StatusJob)})
    connection = Connection(**options)
    job.check(connection)
    learned = LearnedFile.open(job.learn)
    client = connection.client(poll=learned.policy)
    view = make_view(is_stream=job.is_stream)

    async def work() -> int:
        async with client:
            return await run_status(client, job, view)

    return learned.run(signals, work())


@program.command()
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=0,
    help="Listen on port N; without it, on a free one.",
)
@click.option(
    "--images",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Have N images, which begin now.",
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=0,
    show_default=True,
    help="The same seed makes the same images.",
)
@click.option(
    "--duration",
    "durations",
    metavar="SPEC",
    callback=to_durations,
    default="lognormal:20:0.6",
    show_default=True,
    help="How long images take, in seconds: 20 (each the same), lognormal:MEDIAN:SIGMA or"
    " queue:QUEUE:RUN:SHAPE (an exponential queue, then a gamma-distributed run).",
)
@click.option(
    "--failure-rate",
    metavar="P",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="The share of images that end in the state error.",
)
@click.option(
    "--rate",
    "requests_per_second",
    metavar="R",
    type=FiniteRange(min=0.001, max=1e6),
    help="Answer more than R requests per second with 429.",
)
@click.pass_obj
def simulate(signals: Signals, /, **options: Any) -> int:
    """
    Run a local Kokoon until it is stopped, for trying things out.

    It speaks the API's HTTP on this machine only, takes any token, and its images go through their
    states as time passes.
    """
    from ._simulate import run_simulator

    return signals.run(run_simulator(**options))


@program.command()
@click.option(
    "--images",
    metavar="N",
    type=click.IntRange(1, 5000),
    default=300,
    show_default=True,
    help="Wait for N images at once.",
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=0,
    show_default=True,
    help="The same seed makes the same images.",
)
@click.option(
    "--speed",
    metavar="X",
    type=FiniteRange(1, 1000),
    default=8.0,
    show_default=True,
    help="The server's clock runs X times as fast as yours.",
)
@click.pass_obj
def demo(signals: Signals, /, **options: Any) -> int:
    """
    See it work: wait for a few hundred images at once, with no account and no network.

    A simulated server in this program makes them; some fail, and on top it answers with errors,
    breaks connections and asks for fewer requests. The figures at the end are measured.
    """
    from ._demo_view import show_demo

    return signals.run(show_demo(**options))
