"""When images are due: the first one first, one valid entry for each, ties in any order."""

from __future__ import annotations

import math

from kokoon_async._waiting.agenda import Agenda
from kokoon_async._waiting.waits import Awaited

from .fakes import VID, make_vid


def test_images_come_when_they_are_due() -> None:
    """The first that is due comes first, at its latest time, and nothing comes before its time."""
    agenda = Agenda()
    first, second = Awaited(make_vid(1)), Awaited(make_vid(2))
    for image, at in ((second, 1.0), (first, 2.0), (second, 3.0)):
        agenda.put(image, at, images=2)
    assert agenda.next_time() == 2.0
    assert agenda.pop_due(1.9) is None
    assert agenda.pop_due(3.0) is first
    assert agenda.pop_due(3.0) is second
    assert (agenda.pop_due(1e9), agenda.next_time()) == (None, math.inf)


def test_an_image_that_was_forgotten_may_come_back_at_the_same_time() -> None:
    """Two entries of one vid and time, for an image before and after it was dropped, do no harm."""
    agenda = Agenda()
    before, after = Awaited(VID), Awaited(VID)
    agenda.put(before, 1.0, images=1)
    before.entry = None
    agenda.put(after, 1.0, images=1)
    assert agenda.pop_due(1.0) is after
    assert agenda.pop_due(1.0) is None


def test_an_image_without_an_entry_is_never_due() -> None:
    """An image is due at the time of its entry, and never without one."""
    image = Awaited(VID)
    assert image.due == math.inf
    Agenda().put(image, 5.0, images=1)
    assert image.due == 5.0
