"""When images are due: a heap with one valid entry for each, and stale ones swept out."""

import heapq
import math

from .waits import Awaited, Entry


__all__ = ["MOST_ENTRIES_BESIDES", "MOST_ENTRIES_PER_IMAGE", "Agenda"]

# Stale entries are swept out once there are more entries than this, stale or not.
MOST_ENTRIES_PER_IMAGE = 1.125
MOST_ENTRIES_BESIDES = 64


class Agenda:
    """Keep the images of a schedule in the order in which they are due."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[Entry] = []

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, image: Awaited, at: float, *, images: int) -> None:
        """
        Give an image its one valid entry.

        Args:
            image: Its entry before is stale now.

            at: When it is due.

            images: How many there are in all: so many entries can be valid.
        """
        image.entry = entry = (at, image.vid, image)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > MOST_ENTRIES_BESIDES + MOST_ENTRIES_PER_IMAGE * images:
            self._heap = [entry for entry in self._heap if entry is entry[2].entry]
            heapq.heapify(self._heap)

    def next_time(self) -> float:
        """Give the time of the first image that is due; infinite if none is."""
        heap = self._heap
        while heap and heap[0] is not heap[0][2].entry:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def pop_due(self, now: float) -> Awaited | None:
        """Take out the first image that is due by *now*."""
        if self.next_time() > now:
            return None
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        """Forget all, when no image is left."""
        self._heap.clear()
