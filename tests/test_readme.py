"""README and docs: their examples run as they stand, and what they promise is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

from kokoon_async import errors, events
from kokoon_async.cli import _process
from kokoon_async.cli._commands import program
from kokoon_async.jobs import _formats


ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
NAMES = ("bulk", "cli", "errors", "observability", "testing")  # test_polling_docs.py has another
PAGES = [README, *(ROOT / "docs" / f"{name}.md" for name in NAMES)]
MOST_LINES = 120
FILE_NAME = re.compile(r"# (\w+\.py)\n")


def examples(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """Find the examples of a page: line, code, and what it prints if the page says so."""
    parsers = [CodeBlockParser(language, lambda _: None) for language in ("python", "text")]
    document = Document.parse(str(page), *parsers)
    blocks: list[Example] = list(document.examples())
    for block, following in zip_longest(blocks, blocks[1:]):
        if document.text[block.start :].startswith("```python"):
            printed = None
            if following and document.text[: following.start].endswith("\nThis prints:\n\n"):
                printed = str(following.parsed)
            yield block.line, str(block.parsed), printed


EXAMPLES = [(page, *example) for page in PAGES for example in examples(page)]


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter, as a user would."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        pytest.param(code, printed, id=f"{page.name}:{line}")
        for page, line, code, printed in EXAMPLES
        if not FILE_NAME.match(code)
    ],
)
def test_example_runs(code: str, printed: str | None, tmp_path: Path) -> None:
    """An example runs with `python -c`, unchanged, and prints what the page says."""
    done = run_python("-W", "error", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    if printed is not None:
        assert done.stdout == printed


async def test_example_survives_an_image_that_was_never_seen() -> None:
    """What the page on errors does with a wait that timed out works if no look was answered."""
    [code] = [code for page, _, code, _ in EXAMPLES if page.name == "errors.md"]
    names: dict[str, Any] = {}
    exec(code.replace("asyncio.run(main())\n", ""), names)

    async def wait(vid: str, **options: Any) -> NoReturn:
        raise errors.WaitTimedOut(f"Image {vid} was not finished.")

    client = SimpleNamespace(wait_until_completed=wait)
    assert await names["describe"](client, "") == "still not seen, wait again later"


def test_example_project_passes(tmp_path: Path) -> None:
    """The files that the page on testing shows are a project whose tests pass."""
    for _, _, code, _ in EXAMPLES:
        if name := FILE_NAME.match(code):
            (tmp_path / name[1]).write_text(code, "utf-8")
    done = run_python("-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout


def test_examples_are_found() -> None:
    """No page has lost its examples, nor the expected output."""
    found = {
        page.name: [printed is not None for p, _, _, printed in EXAMPLES if p == page]
        for page in PAGES
    }
    assert found == {
        "README.md": [False],
        "bulk.md": [False],
        "cli.md": [],
        "errors.md": [True],
        "observability.md": [True, True],
        "testing.md": [False, False, False],
    }


def test_readme_has_its_form() -> None:
    """The README is short: a ten-line example, seven bullets with one bold word each."""
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 100
    assert len(re.findall(r"^- \*\*\w+\*\*", text, re.MULTILINE)) == 7
    [(_, code, _)] = examples(README)
    assert len([line for line in code.splitlines() if line]) == 10
    first = "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/kokoon-async demo"
    assert f"\n{first}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_short_and_its_links_lead_somewhere(page: Path) -> None:
    """A page is short, and what it links to exists."""
    text = page.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_commands_exist() -> None:
    """Each command line in the README names a command that there is."""
    named = re.findall(r"kokoon-async (\w+)", README.read_text("utf-8"))
    assert set(named) - {"COMMAND"} == program.commands.keys()


def test_exit_codes_are_the_real_ones() -> None:
    """The page on the command line has every exit code, and means the same by it as the help."""
    text = (ROOT / "docs/cli.md").read_text("utf-8")
    told = dict(re.findall(r"^\| (\d+) \| ([\w ]+): ", text, re.MULTILINE))
    constants = [value for value in vars(_process).values() if type(value) is int]
    signals = [128 + number for number in _process._SIGNALS]
    assert sorted(map(int, told)) == sorted({*constants, *signals})
    help_says = re.findall(r"((?:\d+, )*\d+(?: and \d+)?) ([a-z ]+)[,.]", program.epilog or "")
    assert {
        code: meaning for codes, meaning in help_says for code in re.findall(r"\d+", codes)
    } == told


def test_suffixes_are_the_real_ones() -> None:
    """The page on bulk jobs names each suffix that means one file, or that is refused."""
    text = (ROOT / "docs/bulk.md").read_text("utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("`out` with the suffix")]
    one_file, refused, _ = re.split(r" is one file; | are refused,", line)
    assert set(re.findall(r"`(\.\w+)`", one_file)) == set(_formats._SUFFIXES)
    assert set(re.findall(r"`(\.\w+)`", refused)) == _formats._WRONG_SUFFIXES


def test_error_tree_is_the_real_one() -> None:
    """The page on errors draws the very tree that the module draws."""
    [drawn] = re.findall(
        r"```text\n(KokoonError.*?)```", (ROOT / "docs/errors.md").read_text("utf-8"), re.DOTALL
    )
    assert drawn == "".join(
        f"{line[4:]}\n"
        for line in (errors.__doc__ or "").splitlines()
        if line.startswith(("    Kokoon", "    ├", "    │", "    └"))
    )


def test_all_events_are_listed() -> None:
    """The page on observability lists every event, with its message in the log."""
    text = (ROOT / "docs/observability.md").read_text("utf-8")
    kinds = {kind.__name__: kind.name for kind in events.Event.__subclasses__()}
    assert dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)`", text, re.MULTILINE)) == kinds
