"""
Compare the time to import the package with that to import aiohttp, which it needs.

Each import runs in a fresh interpreter; the time is the CPU time of the import statement.
Bytecode is compiled beforehand, as an installer does. Prints medians and their ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys


TIMED_IMPORT = """
import time
before = time.process_time()
import {module}
print(time.process_time() - before)
"""


def seconds_to_import(module: str) -> float:
    """Import a module in a new interpreter; give the CPU seconds that it took."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", TIMED_IMPORT.format(module=module)],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(run.stdout)


def main() -> None:
    """Import each in turn, several times, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    modules = ("aiohttp", "kokoon_async")
    for module in modules:  # writes bytecode, and warms the disk's cache
        seconds_to_import(module)
    pairs = [[seconds_to_import(module) for module in modules] for _ in range(rounds)]
    theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(own / other for other, own in pairs)
    print(f"import aiohttp       {1e3 * theirs:6.1f} ms")
    print(f"import kokoon_async  {1e3 * ours:6.1f} ms   ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
