"""
The simulated images: which there are and what state each is in.

An image is stored only if it was added. With *on_demand* every other id has an image too,
worked out anew at each look from the seed and the id, so a million of them cost nothing.
"""

import json
import math
import random
import re
import uuid
from collections.abc import Mapping

import attrs

from ._clock import Clock
from ._durations import Durations
from ._records import ABSENT, digest, make_record, make_uuid
from ._scripts import COMPLETED, ERROR, Stage, make_stages, parse_script


_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ORIGINAL = (Stage(COMPLETED),)
_UNDRAWN: tuple[Stage, ...] = ()

# Seconds since 1970 are rounded to a quarter of this in a float; a stage of 12.5 seconds is
# over after 12.5 seconds nevertheless.
_TOLERANCE = 1e-6

_NO_FIELDS: Mapping[str, object] = {}


def vid_from(value: str | uuid.UUID) -> str:
    """
    Give an id as clients ask for it: of a UUID, also in upper case, the canonical text.

    Any other text stays as it is: a test may want an odd id.

    Raises:
        TypeError: When it is neither.
    """
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"vid must be text or a uuid.UUID, not {type(value).__name__}")
    text = str.__str__(value)  # a subclass may show something else than it holds
    return text.lower() if _CANONICAL_UUID.fullmatch(text.lower()) else text


def vid_or_none(value: str | uuid.UUID | None) -> str | None:
    """Do what `vid_from` does where there may be no id."""
    return None if value is None else vid_from(value)


@attrs.define(eq=False)
class SimulatedImage:
    """
    One image and how far it has come.

    Attributes:
        vid: Its id.

        created: When it was made, in seconds since 1970.

        original: Whether it was uploaded.

        fields: What its record says differently.

        stages: Its course; empty until it is drawn.

        position: The stage it was last seen in.

        since: When that stage began.

        looks: How many answers have shown that stage.
    """

    vid: str
    created: float
    original: bool
    fields: Mapping[str, object]
    stages: tuple[Stage, ...]
    position: int = 0
    since: float = attrs.field(default=attrs.Factory(lambda self: self.created, takes_self=True))
    looks: int = 0

    def state(self, now: float) -> str:
        """Give the state at *now*, in seconds since 1970."""
        return self._stage(now).state

    def count_look(self, state: str, now: float) -> None:
        """Take note that an answer has shown *state*; looks may end a stage."""
        stage = self._stage(now)
        # Two answers may be under way together: the second must not count for the next stage.
        if stage.looks is None or stage.state != state:
            return
        self.looks += 1
        if self.looks >= stage.looks:
            self._next_stage(now)

    def _stage(self, now: float) -> Stage:
        while self.position < len(self.stages) - 1:
            seconds = self.stages[self.position].seconds
            if seconds is None or now < self.since + seconds - _TOLERANCE:
                break
            self._next_stage(self.since + seconds)
        return self.stages[self.position]

    def _next_stage(self, now: float) -> None:
        if self.position < len(self.stages) - 1:
            self.position += 1
            self.since = now
            self.looks = 0


class ImageStore:
    """
    All images of one simulator.

    Args:
        seed: Decides everything that is drawn.

        clock: The server's.

        durations: How long images without a script take.

        failure_rate: The share of those that end in *error*, from 0 to 1.

        on_demand: Whether every canonical id has an image.
    """

    def __init__(
        self,
        *,
        seed: int,
        clock: Clock,
        durations: Durations,
        failure_rate: float,
        on_demand: bool,
    ) -> None:
        if not 0.0 <= failure_rate <= 1.0:
            raise ValueError(f"failure_rate must be from 0 to 1, not {failure_rate!r}")
        self._seed = seed
        self._clock = clock
        self._durations = durations
        self._failure_rate = failure_rate
        self._on_demand = on_demand
        self._uid = make_uuid(int.from_bytes(digest(seed, "uid")[:16]))
        self._born = clock.time()
        self._ids = random.Random(seed)
        self._images: dict[str, SimulatedImage] = {}
        self._forgotten: set[str] = set()

    def add(
        self,
        script: str | None,
        *,
        duration: float | None = None,
        vid: str | None = None,
        original: bool = False,
        fields: Mapping[str, object] = _NO_FIELDS,
    ) -> str:
        """
        Add an image, or put a new one in the place of *vid*; return its id.

        Raises:
            ValueError: When the course is said twice, or does not fit an original.

            TypeError: When a field cannot be written as JSON.
        """
        if script is not None and duration is not None:
            raise ValueError("give a state script or a duration, not both")
        stages = _read_course(script, duration)
        if original:
            if stages not in (_UNDRAWN, _ORIGINAL):
                raise ValueError("an original is completed from the start (its upload is done)")
            stages = _ORIGINAL
        # Said here rather than as a broken answer later.
        json.dumps({name: value for name, value in fields.items() if value is not ABSENT})
        vid = self.new_vid() if vid is None else vid
        self._images[vid] = SimulatedImage(vid, self._clock.time(), original, fields, stages)
        self._forgotten.discard(vid)
        return vid

    def forget(self, vid: str) -> None:
        """
        Have no image *vid* from now on.

        Raises:
            LookupError: When there is none, so that a slip in a test shows.
        """
        if self.find(vid) is None:
            raise LookupError(f"the simulator has no image {vid!r} to forget")
        self._images.pop(vid, None)
        if self._on_demand:
            self._forgotten.add(vid)

    def find(self, vid: str) -> SimulatedImage | None:
        """Give the image *vid*, or ``None`` if there is none."""
        image = self._images.get(vid)
        if image is None:
            if not self._on_demand or vid in self._forgotten or not _CANONICAL_UUID.fullmatch(vid):
                return None
            image = SimulatedImage(vid, self._born, False, _NO_FIELDS, _UNDRAWN)  # noqa: FBT003
        if not image.stages:
            image.stages = self._draw_course(vid)
        return image

    def record(self, image: SimulatedImage, state: str) -> dict[str, object]:
        """Make the record of *image* that shows *state*."""
        return make_record(
            image.vid,
            state=state,
            created=image.created,
            original=image.original,
            seed=self._seed,
            uid=self._uid,
            fields=image.fields,
        )

    def now(self) -> float:
        """Give the server's time in seconds since 1970."""
        return self._clock.time()

    def new_vid(self) -> str:
        """Draw the next id that no image has."""
        while True:
            vid = make_uuid(self._ids.getrandbits(128))
            if vid not in self._images:
                return vid

    def stranger(self, vid: str) -> str:
        """Give an id that is not *vid*, always the same one."""
        return make_uuid(int.from_bytes(digest(self._seed, f"not {vid}")[:16]))

    def invent(self, vid: str) -> SimulatedImage:
        """Make a completed image that is not kept."""
        return SimulatedImage(vid, self._born, False, _NO_FIELDS, _ORIGINAL)  # noqa: FBT003

    def _draw_course(self, vid: str) -> tuple[Stage, ...]:
        # From the id and not from one stream, so that the order of requests decides nothing.
        rng = random.Random(digest(self._seed, vid))
        seconds = max(0.0, self._durations.sample(rng))
        outcome = ERROR if rng.random() < self._failure_rate else COMPLETED
        return make_stages(seconds, queued=rng.uniform(0.1, 0.5), outcome=outcome)


def _read_course(script: str | None, duration: float | None) -> tuple[Stage, ...]:
    """Turn what was said about an image's course into stages; none leaves it to be drawn."""
    if script is not None:
        return parse_script(script)
    if duration is None:
        return _UNDRAWN
    if not (math.isfinite(duration) and duration >= 0):
        raise ValueError(f"duration must be 0 seconds or more, not {duration!r}")
    return make_stages(duration, queued=0.25, outcome=COMPLETED)
