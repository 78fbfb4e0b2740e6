"""
The command line: ``kokoon-async``, with the extra ``cli``.

It uses only what users have too: the public API and the simulator.
"""

import signal
import sys


__all__ = ["main"]

_LIBRARIES = {"click", "rich"}


def main() -> int:
    """
    Run the program with the arguments of this process, and give its exit code.

    It is meant for the end of a process: SIGINT is left to the system's own handling afterwards.
    Without the libraries of the extra it only says how to install them.
    """
    try:
        from ._commands import program

        return program.run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
    except KeyboardInterrupt:  # while all that was loaded; from then on signals are handled
        return 130
    finally:
        # What is left is Python's own end: it would answer another Ctrl-C with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stderr.write("The kokoon-async command needs an extra: pip install 'kokoon-async[cli]'\n")
    return 2
