"""What a bulk job is cut into: a number of ids, in their order, with nothing of a process."""

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

import attrs


__all__ = ["Entry", "Shard", "ShardResult"]

_DIGEST_BYTES = 8


class Entry(NamedTuple):
    """
    Hold one id of the input.

    Attributes:
        vid: The canonical id; the start of what was given, if that is no id.

        line: Where it stands in the input, from 1.

        is_valid: Whether it is an id.
    """

    vid: str
    line: int
    is_valid: bool = True


@attrs.frozen(slots=False)
class Shard:
    """
    Hold the ids that are fetched, written and resumed together.

    It is plain data: pickle it, and run it with `run_shard` wherever there is a client.

    Attributes:
        index: Its place in the job, from 0.

        entries: The ids, distinct within the job, in the order of the input.
    """

    index: int
    entries: Sequence[Entry]

    @cached_property
    def digest(self) -> str:
        """What tells these ids, in this order, from any others."""
        ids = "\n".join(entry.vid for entry in self.entries)
        return blake2b(ids.encode(), digest_size=_DIGEST_BYTES).hexdigest()


@attrs.frozen
class ShardResult:
    """
    Hold what became of a shard's ids.

    Attributes:
        rows: One JSON object for each entry of the shard, in the same order.

        requests: How many requests it took.

        retries: How many of them were not the first for their id; looks do not count.
    """

    rows: Sequence[bytes]
    requests: int
    retries: int
