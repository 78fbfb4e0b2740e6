"""``kokoon-async get``: records as they are now, in the order in which they were asked for."""

import asyncio
from collections.abc import Sequence

from kokoon_async import KokoonClient, Outcome

from ._process import FAILED, OK, SOME_FAILED, complain, write_out
from ._show import ROW_HEADER, Tally, details, json_line, problem, row


__all__ = ["exit_code", "get_images"]


async def get_images(client: KokoonClient, vids: Sequence[str], *, as_json: bool) -> int:
    """
    Get records and write them to standard output, errors to standard error.

    Args:
        client: Asks.

        vids: The images, valid ids or not.

        as_json: Whether to write JSON lines, errors too.

    Returns:
        The exit code.
    """
    tally = Tally()
    alone = len(vids) == 1
    if not as_json and not alone:
        await write_out(f"{ROW_HEADER}\n")
    try:
        async with client.get_images(vids, in_order=True) as outcomes:
            async for outcome in outcomes:
                tally.count(outcome)
                if as_json:
                    await write_out(json_line(outcome))
                else:
                    await _write_text(outcome, alone=alone)
    except asyncio.CancelledError:
        complain(f"kokoon-async: stopped after {tally.total} of {len(vids)} ids.")
        raise
    if tally.bad and not alone:
        complain(f"kokoon-async: got {tally.good} of {tally.total} records; {tally.failures}.")
    return exit_code(tally)


def exit_code(tally: Tally) -> int:
    """Give the exit code that says what became of the ids (F-118)."""
    if not tally.bad:
        return OK
    return SOME_FAILED if tally.good else FAILED


async def _write_text(outcome: Outcome, *, alone: bool) -> None:
    if outcome.error is not None:
        complain(problem(outcome.error))
    else:
        image = outcome.unwrap()
        await write_out(details(image) if alone else f"{row(image)}\n")
