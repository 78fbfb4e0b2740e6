"""Run one shard, here or on another machine."""

from collections.abc import Callable, Sequence

from .._checks import check_seconds
from ..client import KokoonClient
from ..errors import JobError
from ._rows import invalid_row, make_row
from ._settling import Settled, settle_ids
from ._shards import Entry, Shard, ShardResult
from ._valve import Valve


__all__ = ["row_of", "run_shard"]


def row_of(settled: Settled) -> tuple[str, bytes]:
    """Give the name of what became of an entry, and its row."""
    if settled.outcome is None:
        return "invalid", invalid_row(settled.entry)
    return make_row(settled.entry, settled.outcome, settled.requests)


async def run_shard(
    client: KokoonClient,
    shard: Shard,
    *,
    wait: bool = False,
    timeout: float | None = 1800.0,
    patience: float | None = 3600.0,
    valve: Valve | None = None,
    on_row: Callable[[str], object] | None = None,
) -> ShardResult:
    """
    Bring every id of a shard to its final outcome.

    Nothing is written, and nothing of this process is used but the client: that is for
    engines that run shards on many machines. For one machine use `fetch_statuses`.

    Args:
        client: Asks.

        shard: The ids.

        wait: Wait for each image to be finished, rather than ask for its record.

        timeout: Seconds for each wait; ``None`` for ever.

        patience: Seconds without any good answer until the shard is given up.

        valve: Shared by shards that run at the same time with one client.

        on_row: Called with the name of each outcome as it becomes final.

    Raises:
        AuthenticationFailed: If the token is refused.

        InsufficientCredit: If the account is empty.

        ClientClosed: If the client was closed.

        JobError: If the API did not answer for *patience*, or the work was torn apart.
    """
    check_seconds("timeout", timeout)
    check_seconds("patience", patience)
    if valve is None:
        valve = Valve(client, patience=patience, holds=not wait)
    places = {entry.vid: place for place, entry in enumerate(shard.entries)}
    rows: list[bytes] = [b""] * len(shard.entries)
    requests = retries = 0

    def keep(settled: Settled) -> None:
        nonlocal requests, retries
        # As bytes at once: they take a fifth of what the record takes.
        kind, rows[places[settled.entry.vid]] = row_of(settled)
        requests += settled.requests
        retries += settled.retries
        if on_row is not None:
            on_row(kind)

    batches = iter([shard.entries])

    async def next_entries() -> Sequence[Entry]:
        return next(batches, ())

    await settle_ids(client, next_entries, keep, valve, wait=wait, timeout=timeout)
    if not all(rows):
        raise JobError(f"Shard {shard.index} has {rows.count(b'')} ids without an outcome.")
    return ShardResult(rows, requests, retries)
