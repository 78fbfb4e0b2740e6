"""The commands `get`, `wait` and `simulate`: what goes in, what comes out, and the exit codes."""

from __future__ import annotations

import asyncio
import builtins
import importlib.metadata
import io
import json
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Self
from unittest.mock import Mock

import click
import pytest
from click.testing import CliRunner, Result

import kokoon_async
from kokoon_async import KokoonClient, Learned, cli
from kokoon_async.cli import _process
from kokoon_async.cli._commands import program
from kokoon_async.cli._get import get_images
from kokoon_async.simulator import Hold, Message, Simulator, Status

from .canary import CANARY_TOKEN, presigned_url


NOBODY = "ffffffff-ffff-ffff-ffff-ffffffffffff"

Run = Callable[..., Result]


class SimulatorThread:
    """A simulator with a loop of its own, since the program runs its own in the main thread."""

    def __init__(self, **settings: Any) -> None:
        self.simulator = Simulator(**settings)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self.simulator:
            self._started.set()
            await self._stop.wait()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """Serve a simulator that takes the canary as its only token."""
    with SimulatorThread(token=CANARY_TOKEN) as thread:
        yield thread.simulator


@pytest.fixture
def run(sim: Simulator) -> Run:
    """Return a function that runs the program against the simulator."""

    def run(
        *arguments: str, token: str | None = CANARY_TOKEN, stdin: str | bytes | None = None
    ) -> Result:
        env = {"KOKOON_TOKEN": token, "KOKOON_BASE_URL": sim.base_url}
        return CliRunner(env=env).invoke(program, arguments, input=stdin, catch_exceptions=False)

    return run


# -- get -------------------------------------------------------------------------------------------


def test_get_shows_one_image_in_detail(run: Run, sim: Simulator) -> None:
    """A single record is shown field by field, without the queries of its addresses (F-120)."""
    vid = sim.add_image("completed", url=presigned_url(), thumb_url=None, filename="cat.png")
    result = run("get", vid)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if " " in line)
    assert lines["vid"] == vid
    assert lines["state"] == "completed"
    assert lines["filename"] == "cat.png"
    assert lines["url"].endswith("/video/canary/original.png?…")
    assert lines["thumbnail"] == "-"


def test_get_shows_several_images_in_order(run: Run, sim: Simulator) -> None:
    """Several records are rows, in the order in which they were asked for."""
    vids = [sim.add_image("completed"), sim.add_image("pending")]
    result = run("get", *vids)
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.startswith("VID ")
    assert [row.split()[:2] for row in rows] == [[vids[0], "completed"], [vids[1], "pending"]]


def test_get_writes_the_record_as_json(run: Run, sim: Simulator) -> None:
    """JSON has the wire's names and values, and whole addresses."""
    vid = sim.add_image("completed", filename="é\x1b[31m\x7f.png", brand_new=[1])
    result = run("get", "--json", vid)
    assert json.loads(result.stdout) == sim.record(vid)
    assert result.stdout.isascii()
    assert not {"\x1b", "\x7f"} & set(result.stdout)


@pytest.mark.fault("F-118")
@pytest.mark.parametrize("name", ["get", "wait"])
def test_one_bad_id_does_not_spoil_the_others(run: Run, sim: Simulator, name: str) -> None:
    """Each id has its own outcome, and the exit code says that some failed."""
    vid = sim.add_image("completed")
    result = run(name, "--json", "nonsense", vid, NOBODY)
    assert result.exit_code == 3
    outcomes = {line["vid"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert outcomes.keys() == {"nonsense", vid, NOBODY}
    assert outcomes[vid] == sim.record(vid)
    assert outcomes["nonsense"]["error"] == "InvalidVid"
    assert (outcomes[NOBODY]["error"], outcomes[NOBODY]["status"]) == ("ImageNotFound", 404)
    assert "1 ImageNotFound, 1 InvalidVid." in result.stderr


def test_get_fails_if_nothing_came(run: Run) -> None:
    """If there is no record at all, the exit code says failed."""
    result = run("get", NOBODY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("kokoon-async: There is no image ")
    assert run("get", "").exit_code == 1


@pytest.mark.fault("F-47")
def test_server_text_is_cleaned(run: Run, sim: Simulator) -> None:
    """Nothing that the server says can steer the terminal."""
    evil = "\x1b]0;owned\x07\r\n\u202e\x9b31m"
    vid = sim.add_image(record={"state": "odd" + evil, "filename": evil, "last_category": evil})
    shown = run("get", vid).output + run("get", vid, vid).output
    shown += run("wait", vid, "--timeout", "0.2s").output
    sim.fault(Message(evil, status=400), times=2)
    shown += run("get", vid).output + run("get", evil).output
    assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(shown)


def test_get_keeps_a_bounded_number_of_requests(run: Run, sim: Simulator) -> None:
    """Many ids are asked for with few requests at once, and come in order."""
    vids = [sim.add_image("completed") for _ in range(30)]
    result = run("get", "--json", "--concurrency", "2", "--rate", "10000", *vids)
    assert [json.loads(line)["vid"] for line in result.stdout.splitlines()] == vids
    assert sim.connection_count <= 2


def test_get_takes_no_longer_than_asked(run: Run, sim: Simulator) -> None:
    """The time for one record can be limited."""
    sim.fault(Status(503, headers={"Retry-After": "9"}))
    result = run("get", "--timeout", "0.01m", sim.add_image("completed"))
    assert result.exit_code == 1
    assert "its time would be over" in result.stderr


def test_get_names_the_option_for_more_time(run: Run, sim: Simulator) -> None:
    """What a request that timed out advises is an option of this command, also as JSON."""
    sim.fault(Hold(), times=2)
    vid = sim.add_image("completed")
    result = run("get", "--timeout", "0.05", vid)
    assert result.stderr.endswith("Ask again, or raise --timeout.\n")
    line = json.loads(run("get", "--json", "--timeout", "0.05", vid).stdout)
    assert line["hint"] == "Ask again, or raise --timeout."


async def test_stopped_get_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    """A list that is cut short says so."""
    async with Simulator() as sim, KokoonClient("any", base_url=sim.base_url) as client:
        vids = [sim.add_image("completed"), sim.add_image("completed")]
        sim.fault(Hold(), vid=vids[1])
        task = asyncio.create_task(get_images(client, vids, as_json=True))
        while not capsys.readouterr().out:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert capsys.readouterr().err == "kokoon-async: stopped after 1 of 2 ids.\n"


# -- wait ------------------------------------------------------------------------------------------


def test_wait_writes_a_line_per_change(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """Without a terminal there is one line for each change, and a summary at the end."""
    vid, ready = sim.add_image("pending processing completed"), sim.add_image("completed")
    learned = tmp_path / "learned"
    learned.write_text(Learned(price=1e-6).to_json())  # looks as often as it can
    result = run("wait", vid, ready.upper(), vid, "--learn", str(learned))
    assert result.exit_code == 0
    told = [line.split()[2:4] for line in result.stdout.splitlines()]
    assert [state for told_vid, state in told if told_vid == vid] == [
        "pending", "processing", "completed",
    ]  # fmt: skip
    assert [state for told_vid, state in told if told_vid == ready] == ["completed"]
    assert "2 of 2 images completed in" in result.stderr
    assert "with 4 requests." in result.stderr


def test_wait_tells_of_failures(run: Run, sim: Simulator) -> None:
    """An image that failed is a line, a sentence, and an exit code."""
    result = run("wait", sim.add_image("error"))
    assert result.exit_code == 1
    assert result.stdout.endswith("  ImageFailed\n")
    assert "The server failed to make image" in result.stderr
    assert "0 of 1 images completed" in result.stderr


def test_wait_ends_in_time(run: Run, sim: Simulator) -> None:
    """A wait that runs out of time says that the server goes on."""
    result = run("wait", "--timeout", "0.2", sim.add_image("pending"))
    assert result.exit_code == 1
    assert "The server's work goes on" in result.stderr


# -- ids and token ---------------------------------------------------------------------------------


def test_ids_come_from_standard_input(run: Run, sim: Simulator) -> None:
    """Standard input may have a BOM, comments, blank lines, CRLF, CR and bytes that are no text."""
    vids = [sim.add_image("completed") for _ in range(3)]
    text = f"\ufeff# mine\n{vids[0]}\r\n\n  {vids[1]}  \r".encode() + b"\xff\n"
    result = run("get", "--json", "-", vids[2], stdin=text)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["vid"] for line in found] == [vids[0], vids[1], "\ufffd", vids[2]]


def test_no_ids_are_no_failure(run: Run) -> None:
    """An empty list in a script is fine."""
    assert run("get", "-", stdin="").exit_code == 0
    assert run("wait", "-", stdin="# none\n").exit_code == 0


@pytest.mark.fault("F-117")
def test_no_argument_is_a_token(run: Run) -> None:
    """No command has an option for a token, which other users could read: only for its file."""
    params = [each for command in program.commands.values() for each in command.params]
    names = {name for each in params for name in each.opts}
    assert {name for name in names if "token" in name or "auth" in name} == {"--token-file"}
    for option in ("--token=x", "--auth=x"):
        assert run("get", option, "vid").exit_code == 2


def test_token_comes_from_a_file(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """The token may be in a file, with a line break at its end; it wins over the variable."""
    file = tmp_path / "token"
    file.write_text(CANARY_TOKEN + "\n")
    file.chmod(0o600)
    result = run("get", "--token-file", str(file), sim.add_image("completed"), token="old")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.fault("F-119")
def test_open_token_file_is_warned_about(run: Run, sim: Simulator, tmp_path: Path) -> None:
    """A token that every user of the machine can read is worth a warning."""
    file = tmp_path / "token"
    file.write_text(CANARY_TOKEN)
    file.chmod(0o604)
    assert file.stat().st_mode & stat.S_IROTH
    result = run("get", "--token-file", str(file), sim.add_image("completed"))
    assert result.exit_code == 0
    assert result.stderr == (
        f"kokoon-async: warning: every user can read {file}; try: chmod 600 {file}\n"
    )


def test_token_comes_from_standard_input(run: Run, sim: Simulator) -> None:
    """A secret store may write the token into a pipe."""
    result = run(
        "get", "--token-file", "-", sim.add_image("completed"), token=None, stdin=CANARY_TOKEN
    )
    assert result.exit_code == 0


def test_token_is_asked_for_on_a_terminal(
    run: Run, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in by a person, the token is not shown."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    vid = sim.add_image("completed")
    result = run("get", "--token-file", "-", vid, token=None, stdin=CANARY_TOKEN + "\n")
    assert (result.exit_code, "Token: " in result.output) == (0, True)


def test_prompt_can_be_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who types no token, but the end of the input, ends the program."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    monkeypatch.setattr("click.prompt", Mock(side_effect=click.Abort))
    assert run("get", "--token-file", "-", NOBODY).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get"], "Missing argument 'VID...'"),
        (["get", "-", "--token-file", "-"], "cannot be both the token and the ids"),
        (["get", "1", "--token-file", "/no/such/file"], "cannot read /no/such/file: No such file"),
        (["get", "1", "--base-url", "ftp://x"], "--base-url must be an absolute http(s) address"),
        (["get", "1", "--base-url", "http://kokoon.invalid"], "or pass --allow-plain-http if"),
        (["get", "1", "--concurrency", "0"], "0 is not in the range"),
        (["get", "1", "--rate", "nan"], "'--rate': 'nan' is not a finite number"),
        (["wait", "1", "--rate", "inf"], "'--rate': inf is not in the range"),
        (["get", "1", "--timeout", "0"], "'0' is no duration"),
        (["wait", "1", "--timeout", "soon"], "'soon' is no duration"),
        (["wait", "1", "--timeout", "inf"], "'inf' is no duration"),
        (["get", "1", "--token", "secret"], "No such option"),
        (["simulate", "--duration", "x"], "'x' is no duration"),
        (["simulate", "--duration", "weibull:1"], "'weibull:1' is no duration"),
        (["simulate", "--duration", "lognormal:0"], "'lognormal:0' is no duration"),
        (["simulate", "--duration", "queue:1:2:3:4"], "'queue:1:2:3:4' is no duration"),
        (["simulate", "--failure-rate", "1.1"], "1.1 is not in the range"),
        (["simulate", "--failure-rate", "nan"], "'--failure-rate': 'nan' is not a finite number"),
        (["simulate", "--rate", "NaN"], "'--rate': 'NaN' is not a finite number"),
        (["simulate", "--rate", "inf"], "'--rate': inf is not in the range"),
        (["demo", "--speed", "nan"], "'--speed': 'nan' is not a finite number"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], words: str) -> None:
    """Wrong usage says what is wrong, and is exit code 2."""
    result = run(*arguments)
    assert words in result.stderr
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "There is no token"),
        ("", "There is no token"),
        ("a\nb", "at position 1"),
        ("\n", "Give it, as KOKOON_TOKEN or in the file that --token-file names"),
    ],
)
def test_unusable_token(run: Run, token: str | None, words: str) -> None:
    """Without a usable token nothing is sent."""
    result = run("wait", NOBODY, token=token)
    assert result.exit_code == 2
    assert words in result.stderr


def test_plain_http_needs_to_be_asked_for(run: Run) -> None:
    """Beyond this machine, plain HTTP is a decision of the user's."""
    result = run(
        "get", "x", "--base-url", "http://kokoon.invalid", "--allow-plain-http", "--timeout", "none"
    )
    assert "'x' is not an image id" in result.stderr


def test_default_address_is_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any address the documented one is asked; here it is not, as the id is none."""
    monkeypatch.delenv("KOKOON_BASE_URL", raising=False)
    result = CliRunner(env={"KOKOON_TOKEN": CANARY_TOKEN}).invoke(program, ["get", "x"])
    assert result.exit_code == 1


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may be started without any standard input."""
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setenv("KOKOON_TOKEN", CANARY_TOKEN)
    assert program.run(["get", "-"]) == 2
    assert program.run(["get", "x", "--token-file", "-"]) == 2


# -- simulate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 2, 8])
async def test_simulator_introduces_itself(images: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The address, some ids and an example are printed; a signal ends it."""
    from kokoon_async.cli._simulate import run_simulator

    task = asyncio.create_task(run_simulator(images=images, seed=1))
    out = ""
    while "Ctrl-C" not in out:
        await asyncio.sleep(0.001)
        out += capsys.readouterr().out
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert out.startswith("The simulator listens on http://127.0.0.1:")
    assert f"{images} images:" in out
    assert ("and 3 more" in out) == (images == 8)
    assert "kokoon-async wait " in out
    assert capsys.readouterr().err == "kokoon-async: stopped after 0 requests.\n"


@pytest.mark.parametrize("spec", ["20", "constant:20", "lognormal:20:0.6", "queue:5:15:4"])
def test_durations_can_be_chosen(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All distributions of the simulator can be named."""
    chosen: dict[str, Any] = {}

    async def stand_in(**settings: Any) -> int:
        chosen.update(settings)
        return 0

    monkeypatch.setattr("kokoon_async.cli._simulate.run_simulator", stand_in)
    assert CliRunner().invoke(program, ["simulate", "--duration", spec]).exit_code == 0
    assert chosen["durations"].sample(SimpleNamespace()) if spec.endswith("20") else chosen
    assert chosen.keys() == {
        *("port", "images", "seed", "durations", "failure_rate", "requests_per_second")
    }


# -- help ------------------------------------------------------------------------------------------


def test_help_shows_the_commands_in_order_of_use() -> None:
    """The overview names the commands, and the demo first of all."""
    result = CliRunner().invoke(program, ["--help"])
    assert result.exit_code == 0
    commands = [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")]
    named = [name for name in commands if name in program.commands]
    assert named == list(program.commands) == ["get", "wait", "status", "simulate", "demo"]
    assert "kokoon-async demo" in result.output
    assert "Exit codes:" in result.output


@pytest.mark.parametrize("name", ["get", "wait", "status", "simulate", "demo"])
def test_each_option_has_a_help_text(name: str) -> None:
    """Nobody has to guess what an option is for."""
    result = CliRunner().invoke(program, [name, "-h"])
    assert result.exit_code == 0
    options = [param for param in program.commands[name].params if isinstance(param, click.Option)]
    assert all(option.help for option in options)


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is that of the package, and known in a copied folder without metadata too."""

    def not_installed(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    result = CliRunner().invoke(program, ["--version"])
    assert result.output == f"kokoon-async {kokoon_async.__version__}\n"


# -- how it starts and ends ------------------------------------------------------------------------


def without(
    monkeypatch: pytest.MonkeyPatch, library: str, error: BaseException | None = None
) -> None:
    """Let the import of a library fail."""
    real = builtins.__import__

    def fails(name: str, *args: Any, **options: Any) -> Any:
        if name == library:
            raise error or ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *args, **options)

    for module in [name for name in sys.modules if name.startswith("kokoon_async.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", fails)


@pytest.fixture
def own_handler() -> Iterator[None]:
    """Let this process keep its handler of SIGINT: the entry point is at the end of another one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_handler")
@pytest.mark.parametrize("library", ["click", "rich.live"])
def test_missing_extra_is_named(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, one sentence says how to install it."""
    without(monkeypatch, library)
    monkeypatch.setattr(sys, "argv", ["kokoon-async", "wait", "x"])
    monkeypatch.setenv("KOKOON_TOKEN", CANARY_TOKEN)
    assert cli.main() == 2
    assert capsys.readouterr().err == (
        "The kokoon-async command needs an extra: pip install 'kokoon-async[cli]'\n"
    )


@pytest.mark.usefixtures("own_handler")
def test_other_import_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broken in another way says so itself."""
    without(monkeypatch, "signal")
    with pytest.raises(ModuleNotFoundError, match="signal"):
        cli.main()


@pytest.mark.usefixtures("own_handler")
@pytest.mark.fault("F-115")
def test_early_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An impatient user who stops the program while it loads sees no traceback."""
    without(monkeypatch, "click", KeyboardInterrupt())
    assert cli.main() == 130


@pytest.mark.usefixtures("own_handler")
@pytest.mark.fault("F-115")
def test_main_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry point takes the arguments of the process; behind it a Ctrl-C has no traceback."""
    monkeypatch.setattr(sys, "argv", ["kokoon-async", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("kokoon-async ")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


class FullDevice(io.TextIOWrapper):
    """A stream on a disk that is full."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.open("wb"))

    def write(self, text: str) -> int:
        """Fail as the system does."""
        raise OSError(28, "No space left on device")


@pytest.mark.fault("F-116")
def test_full_disk_is_an_input_output_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Output that cannot be written is exit code 74, and nothing is tried again at the end."""
    with FullDevice(tmp_path / "out") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setenv("KOKOON_TOKEN", CANARY_TOKEN)
        assert program.run(["wait", "x"]) == 74
        assert program.run(["get", "--json", "x"]) == 74
    assert "kokoon-async: No space left on device\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "ids\x1b.txt"),
            "ids\ufffd.txt: Permission denied",
        ),
        (OSError("odd"), "odd"),
    ],
)
def test_an_error_of_the_system_names_its_file(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever file the system complains about, the user learns which one it is."""
    monkeypatch.setattr(_process.click.Group, "main", Mock(side_effect=error))
    assert program.run([]) == 74
    assert capsys.readouterr().err == f"kokoon-async: {said}\n"


@pytest.mark.fault("F-116")
def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a standard output nothing can go well; without a standard error it can."""
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert program.run(["--version"]) == 74
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    _process.complain("Nobody hears this.")
    assert program.run(["--version"]) == 0


@pytest.mark.fault("F-116")
def test_wrong_usage_is_never_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a standard error, what is wrong is told to nobody, rather than as output."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", out)
    assert program.run(["get", "--no-such-option"]) == 2
    assert program.run(["get"]) == 2
    assert out.getvalue() == ""
