"""
What the API talks about: images and the states they are in.

The classes are frozen and know nothing of JSON; `kokoon_async._http.wire` converts.
Field names are the wire's, so that the vendor's page stays the reference.
"""

import enum
import re
from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from functools import lru_cache
from typing import Any, Self
from uuid import UUID

import attrs
from yarl import URL


__all__ = ["NIL_VID", "Image", "ImageState", "Sighting", "canonical_vid"]

NIL_VID = "00000000-0000-0000-0000-000000000000"
"""The API's word for "none" in *pid* and *tid* of an original."""

_MOST_SHOWN = 200
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LONGEST_ORIGIN = 300
_QUERY_OR_FRAGMENT = re.compile(r"[?#]")
_CANONICAL_UUID = re.compile("-".join(f"[0-9A-Fa-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))


def canonical_vid(vid: object) -> str | None:
    """
    Give the canonical lower-case text of an image id, or ``None`` if it is none.

    `uuid.UUID` accepts URNs, braces, missing dashes and Arabic-Indic digits (E19),
    so text is matched by hand before anything is built from it.
    """
    if type(vid) is str:
        text = vid
    elif isinstance(vid, str):
        text = str.__str__(vid)  # a subclass may show something else than it holds
    else:
        text = str(vid) if isinstance(vid, UUID) else ""
    if not _CANONICAL_UUID.fullmatch(text):
        return None
    return text if text.islower() else text.lower()  # a copy only if need be: there are millions


class ImageState(enum.StrEnum):
    """
    The state of an image: one of the four documented, or any other text.

    A text that the API did not document is a value too, equal to itself, so that
    a new server state cannot break an old client. It is never final: of the four
    that are documented, ``completed`` and ``error`` are.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ERROR = "error"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not remembered anywhere: a server that invents states must not be able
        # to fill the memory. Equality and hash are those of the text.
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = str.__str__(value)
        return unknown

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # By value: Python 3.11.0 to 3.11.3 do it by name, which an unknown state has none of.
        return (type(self), (self.value,))

    def __repr__(self) -> str:
        return repr(self.value)

    @property
    def is_known(self) -> bool:
        """Whether the vendor documents this state."""
        return self.value in _KNOWN_STATES

    @property
    def is_final(self) -> bool:
        """Whether the image will not change any more."""
        return self._value_ in _FINAL_STATES  # `value` takes longer, and waits ask at each look


_KNOWN_STATES = frozenset(state.value for state in ImageState)
_FINAL_STATES = frozenset({"completed", "error"})


class SignedUrl:
    """
    Hold an address whose query is a credential (a presigned URL).

    The bytes are kept exactly (E20), and parsed only when asked for. The repr
    leaves query and fragment out, and a pickle leaves the whole address out: whoever reads
    it gets ``None`` and asks the API again (E34).
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def text(self) -> str:
        """The address as it was given, with its signature."""
        return self._text

    def reveal(self) -> URL | None:
        """
        Give the address, byte for byte, with its signature.

        ``None`` if it is no address of the web: of its host, yarl must make something,
        of the rest, only that it is visible is asked.
        """
        end = self._text.find("/", len("https://"))
        if not 0 < end <= _LONGEST_ORIGIN or not _is_origin(self._text[:end]):
            return None
        is_visible = self._text.isprintable() and " " not in self._text
        return URL(self._text, encoded=True) if is_visible else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedUrl) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        if self.reveal() is None:
            return "<not an address>"
        shown = _QUERY_OR_FRAGMENT.split(self._text[:_MOST_SHOWN], maxsplit=1)[0]
        rest = self._text[len(shown) :]
        # Escaped: who gave the address may be nobody to trust.
        return f"<{ascii(shown + rest[:1])[1:-1]}{rest and '…'}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_forgotten_url, ())


@lru_cache(maxsize=64)  # all files of a service lie on a few hosts
def _is_origin(text: str) -> bool:
    """Tell whether a web address may begin like this, by yarl's own judgement too."""
    try:
        return bool(_ORIGIN.fullmatch(text) and str(URL(text, encoded=True)))
    except ValueError:  # a port above 65535, an IPv6 address that is none
        return False


def _forgotten_url() -> None:
    """Stand in a pickle for an address that was not written into it."""


def _signed(url: str | URL | SignedUrl | None) -> SignedUrl | None:
    if url is None or isinstance(url, SignedUrl):
        return url
    return SignedUrl(str(url))


@attrs.frozen(repr=False)
class Image:
    """
    One image record, an original or the result of super-resolution.

    Only *vid* and *state* are always there. Everything else is descriptive: absent,
    empty or odd on the wire means ``None`` here (``""`` for the ids), and never an error.

    Attributes:
        vid: Image id, a canonical lower-case UUID.

        state: Where the image is in its life.

        uid: Owner.

        pid: Parent: the original's *vid* for a result, the nil UUID for an original.

        tid: Task that made it, the nil UUID for an original.

        created_time: Aware, UTC.

        expired_time: Aware, UTC. Originals live 14 days.

        filename: As the uploader called it; may hold anything, clean it before display.

        size: Bytes.

        codec_name: As ffprobe names it, e.g. ``png``.

        fps: Frames per second; means nothing for stills.

        duration: Seconds.

        nb_frames: Number of frames.

        bitrate: Bits per second.

        width: Pixels.

        height: Pixels.

        download_cnt: Downloads that were reported to the API.

        last_category: Category last chosen for super-resolution.

        extra: Fields of the record that this version does not know.
    """

    vid: str
    state: ImageState
    uid: str = ""
    pid: str = ""
    tid: str = ""
    created_time: datetime | None = None
    expired_time: datetime | None = None
    filename: str | None = None
    size: int | None = None
    codec_name: str | None = None
    fps: Fraction | None = None
    duration: float | None = None
    nb_frames: int | None = None
    bitrate: int | None = None
    width: int | None = None
    height: int | None = None
    download_cnt: int | None = None
    last_category: str | None = None
    _url: SignedUrl | None = attrs.field(default=None, converter=_signed)
    _thumb_url: SignedUrl | None = attrs.field(default=None, converter=_signed)
    extra: Mapping[str, Any] = attrs.field(factory=dict, hash=False)

    def __repr__(self) -> str:
        # What is unset tells nothing; values of unknown fields may be credentials.
        shown = [
            f"{field.alias}={value!r:.{_MOST_SHOWN + 4}}"
            for field in attrs.fields(type(self))
            if field.name != "extra" and (value := getattr(self, field.name)) != field.default
        ]
        if self.extra:
            names = ", ".join(f"{name!r}: …" for name in self.extra)
            shown.append(f"extra={{{names:.{_MOST_SHOWN}}}}")
        return f"Image({', '.join(shown)})"

    @property
    def url(self) -> URL | None:
        """
        The file's address, byte for byte as the server sent it.

        Fetch it without the API token. Its query is a credential: it is shown
        in no repr, and left out when the image is pickled (then this is ``None``).
        """
        return None if self._url is None else self._url.reveal()

    @property
    def thumb_url(self) -> URL | None:
        """The thumbnail's address; what is said of *url* goes for it too."""
        return None if self._thumb_url is None else self._thumb_url.reveal()

    @property
    def is_original(self) -> bool:
        """Whether the image was uploaded, and not made by super-resolution."""
        return self.pid == NIL_VID

    @property
    def parent_vid(self) -> str | None:
        """The *vid* of the original that this image was made from."""
        return _unless_nil(self.pid)

    @property
    def task_id(self) -> str | None:
        """The id of the task that made this image."""
        return _unless_nil(self.tid)

    @property
    def is_finished(self) -> bool:
        """Whether the image will not change any more: completed, or failed."""
        return self.state.is_final

    def is_expired(self, now: datetime) -> bool:
        """
        Tell whether the image's life is over at *now* (aware).

        An image without an *expired_time* counts as alive.
        """
        return self.expired_time is not None and now >= self.expired_time

    def without_urls(self) -> Self:
        """Give the same record without its addresses and unknown fields, fit to be shown."""
        return attrs.evolve(self, url=None, thumb_url=None, extra={})


def _unless_nil(uuid: str) -> str | None:
    return uuid if uuid and uuid != NIL_VID else None


@attrs.frozen
class Sighting:
    """
    A state as a wait saw it, over consecutive looks.

    Attributes:
        state: What was seen.

        first_seen: Seconds from the start of the wait.

        last_seen: Seconds from the start of the wait.

        looks: How many looks in a row saw it.
    """

    state: ImageState
    first_seen: float
    last_seen: float
    looks: int

    def __str__(self) -> str:
        looks = "1 look" if self.looks == 1 else f"{self.looks} looks"
        return f"{self.state} for {self.last_seen - self.first_seen:.1f} s ({looks})"
