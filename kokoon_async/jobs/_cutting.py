"""Cut a stream of ids into shards."""

from hashlib import blake2b

from ._distinct import DistinctIds
from ._input import Source
from ._shards import Entry, Shard
from ._threads import in_thread


__all__ = ["Cutter"]


class Cutter:
    """
    Read ids as they are asked for, drop what came before, and cut shards.

    Args:
        source: The input.

        distinct: Knows which ids came before.

        shard_size: How many ids make a shard; the last one may have fewer.

    Attributes:
        shards: How many were cut.

        ids: How many distinct ids are in them.
    """

    def __init__(self, source: Source, distinct: DistinctIds, shard_size: int) -> None:
        self._source = source
        self._distinct = distinct
        self._shard_size = shard_size
        self._digest = blake2b(digest_size=16)
        self.shards = 0
        self.ids = 0

    async def next_shard(self) -> Shard | None:
        """Give the next shard; ``None`` at the end of the input."""
        entries: list[Entry] = []
        while len(entries) < self._shard_size:
            items = await self._source.read(self._shard_size - len(entries))
            if not items:
                break
            entries += await in_thread(self._distinct.only_new, items)
        if not entries:
            return None
        shard = Shard(self.shards, tuple(entries))
        self._digest.update(shard.digest.encode())
        self.shards += 1
        self.ids += len(entries)
        return shard

    @property
    def duplicates(self) -> int:
        """How many positions held an id that came before."""
        return self._distinct.duplicates

    @property
    def digest(self) -> str:
        """What tells the input so far from any other."""
        return self._digest.hexdigest()

    def expected_ids(self) -> float | None:
        """Estimate how many distinct ids the whole input has, if that can be told."""
        fraction = self._source.fraction()
        return self.ids / fraction if fraction and self.ids else None
