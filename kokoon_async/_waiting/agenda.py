"""When images are due, and whose turn it is: stale entries of both are swept out."""

import heapq
import math
from collections import deque

from .waits import Awaited, Entry


__all__ = ["Agenda", "Queue"]

# Stale entries are swept out once there are more entries than this, stale or not.
_MOST_ENTRIES_PER_IMAGE = 1.125
_MOST_ENTRIES_BESIDES = 64


def _are_too_many(entries: int, images: int) -> bool:
    return entries > _MOST_ENTRIES_BESIDES + _MOST_ENTRIES_PER_IMAGE * images


class Agenda:
    """Keep the images of a schedule in the order in which they are due: a heap."""

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
        if _are_too_many(len(self._heap), images):
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


class Queue:
    """Keep the images whose look is due in the order in which it came to be."""

    __slots__ = ("_images",)

    def __init__(self) -> None:
        self._images: deque[Awaited] = deque()

    def __len__(self) -> int:
        return len(self._images)

    def put(self, image: Awaited, *, images: int) -> None:
        """
        Put an image at the end.

        Args:
            image: It is idle.

            images: How many there are in all: so many can be queued.
        """
        image.queued = True
        self._images.append(image)
        if _are_too_many(len(self._images), images):
            self._images = deque(other for other in self._images if other.queued)

    def next(self) -> Awaited | None:
        """Take out the first image."""
        while self._images:
            image = self._images.popleft()
            if image.queued:  # not forgotten meanwhile
                image.queued = False
                return image
        return None

    def clear(self) -> None:
        """Forget all, before they are ended."""
        self._images.clear()
