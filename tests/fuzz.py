"""
Fuzz the targets of `fuzz_targets.py` with atheris, guided by what of the package they reach.

``python -m tests.fuzz --executions 100000 --seconds 60 vid base_url`` gives each of these targets so
many executions or so many seconds, whichever is over first, in a process of its own; without names,
all of them. Prints the executions, and what was found.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import atheris


with atheris.instrument_imports(include=["kokoon_async"]):
    from . import fuzz_targets


_LONGEST_INPUT = 4096
_DONE = re.compile(r"stat::number_of_executed_units: (\d+)")


def fuzz_one(name: str, options: Sequence[str], folder: Path) -> None:
    """Fuzz one target, and end the process."""
    corpus = folder / "corpus"
    corpus.mkdir()
    target = fuzz_targets.TARGETS[name]
    for number, data in enumerate(fuzz_targets.CORPUS[target]):
        (corpus / f"{number}").write_bytes(data)
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={folder}/", str(corpus)], target)
    atheris.Fuzz()


def main(*args: str) -> int:
    """Fuzz some targets one after another, and give 1 if anything was found, or one did not run."""
    parser = argparse.ArgumentParser("tests.fuzz")
    parser.add_argument("--executions", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("targets", nargs="*", default=[*fuzz_targets.TARGETS])
    asked = parser.parse_args(args)
    options = [
        f"-runs={asked.executions}",
        f"-max_total_time={asked.seconds}",
        f"-max_len={_LONGEST_INPUT}",
        "-timeout=20",  # of wall time, on a busy machine; the targets measure their own
        "-print_final_stats=1",
    ]
    total = found = 0
    for name in asked.targets:
        with tempfile.TemporaryDirectory(prefix="kokoon-fuzz-") as folder:
            child = os.fork()
            if not child:
                code = 1
                try:
                    fuzz_one(name, options, Path(folder))
                    code = 0
                except BaseException:  # noqa: BLE001 - a child must end here
                    traceback.print_exc()
                finally:
                    os._exit(code)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            log = Path(folder, "log").read_text("utf-8", "replace")
            counted = _DONE.search(log)
            executions = int(counted[1]) if counted else 0
            total += executions
            say(f"{executions:10,}  {name}")
            if ended or not executions:  # one that did not run has shown nothing
                found += 1
                say(log[-3000:])
    say(f"{total:10,}  executions in all; targets with a defect: {found}")
    return bool(found)


def say(text: str) -> None:
    """Print at once: the children print too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
