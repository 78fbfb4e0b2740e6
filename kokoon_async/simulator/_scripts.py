"""
The states an image goes through, and how a script says so.

A script is words with blanks between them: ``pending*3 processing*20s completed`` means
that three answers say *pending*, then *processing* holds for 20 seconds, then *completed*
stays for ever.
"""

import functools
import re

import attrs


PENDING = "pending"
PROCESSING = "processing"
COMPLETED = "completed"
ERROR = "error"

# 15 digits are beyond any test's patience, and keep float() and int() off absurd input.
_STAGE = re.compile(r"([^\s*]+)(?:\*([0-9]{1,15}(?:\.[0-9]{1,15})?)(s?))?", re.ASCII)


@attrs.frozen
class Stage:
    """
    One state of an image and how long it holds.

    Attributes:
        state: The word in the record; any word is allowed.

        looks: It ends after so many answers have shown it; ``None`` if time ends it.

        seconds: It ends after this time; ``None`` if looks end it.
    """

    state: str
    looks: int | None = 1
    seconds: float | None = None


@functools.lru_cache(maxsize=1024)
def parse_script(script: str) -> tuple[Stage, ...]:
    """
    Read a state script.

    Args:
        script: Words such as ``pending``, ``pending*3`` (looks) or ``processing*2.5s``
            (seconds). The last one stays for ever, whatever stands behind it.

    Raises:
        ValueError: When there is no word, or one that does not follow the pattern.
    """
    stages = tuple(_parse_stage(word, script) for word in script.split())
    if not stages:
        raise ValueError("a state script needs at least one state, such as 'completed'")
    return stages


def make_stages(seconds: float, *, queued: float, outcome: str) -> tuple[Stage, ...]:
    """
    Make the usual course of an SR result that ends in *outcome* after *seconds*.

    Args:
        seconds: Its age when it is done.

        queued: The share of that time in *pending*, from 0 to 1.

        outcome: The state that stays.
    """
    return (
        Stage(PENDING, looks=None, seconds=seconds * queued),
        Stage(PROCESSING, looks=None, seconds=seconds - seconds * queued),
        Stage(outcome),
    )


def _parse_stage(word: str, script: str) -> Stage:
    match = _STAGE.fullmatch(word)
    if match is None:
        raise ValueError(
            f"cannot read {word!r} in the state script {script!r}:"
            " write state, state*3 (looks) or state*20s (seconds)"
        )
    state, amount, unit = match.groups()
    if amount is None:
        return Stage(state)
    if unit:
        return Stage(state, looks=None, seconds=float(amount))
    if "." in amount or int(amount) == 0:
        raise ValueError(f"a state counts whole looks from 1, or says seconds: {word}s, not {word}")
    return Stage(state, looks=int(amount))
