"""
Images and their states: what they are equal to, what they show, and what they keep to themselves.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NoReturn
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kokoon_async.models import NIL_VID, Image, ImageState, Sighting, SignedUrl, canonical_vid

from .canary import CANARY_SIGNATURE, assert_no_secret, contains_secret, presigned_url
from .strategies import images, vids


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"
BORN = datetime(2024, 2, 1, 12, 17, 32, 699_000, UTC)


class Disguised(str):
    """A text that shows something else than it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        return "../admin"

    def lower(self) -> NoReturn:
        """Raise, since nobody should ask."""
        raise AssertionError


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vid",
    [VID, VID.upper(), VID.title(), UUID(VID), Disguised(VID)],
    ids=["lower", "upper", "mixed", "UUID", "subclass"],
)
def test_canonical_vid_is_a_plain_lower_case_text(vid: object) -> None:
    """Any case, a UUID object and a subclass of str become the same plain text."""
    found = canonical_vid(vid)
    assert found == VID
    assert type(found) is str


@given(vids)
def test_canonical_vid_takes_every_uuid_as_it_is(vid: str) -> None:
    """A canonical text stays as it is, whatever the UUID's version."""
    assert canonical_vid(vid) == vid


@given(st.text())
def test_canonical_vid_of_any_other_text_is_none(text: str) -> None:
    """Anything but a UUID is none."""
    assert canonical_vid(text) is None


# --- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "final"),
    [("pending", False), ("processing", False), ("completed", True), ("error", True)],
)
def test_documented_states_are_known(text: str, *, final: bool) -> None:
    """The four documented states are known, and two of them final."""
    state = ImageState(text)
    assert state in list(ImageState)
    assert (state.is_known, state.is_final) == (True, final)


@pytest.mark.fault("F-39")
@pytest.mark.parametrize(
    "text", ["archived", "COMPLETED", " completed", "", "Completed", "PENDING"]
)
def test_any_other_text_is_a_state_too(text: str) -> None:
    """A state that the vendor does not document is its text: unknown, and never final."""
    state = ImageState(text)
    assert state == text
    assert ImageState(text) == state
    assert {state: 1}[text] == 1  # type: ignore[index]
    assert state not in list(ImageState)
    assert (state.is_known, state.is_final) == (False, False)
    assert (f"{state}", str(state), repr(state), state.value) == (text, text, repr(text), text)


def test_a_state_of_a_state_is_the_same_state() -> None:
    """What is a state already stays one, known or not."""
    assert ImageState(ImageState.ERROR) is ImageState.ERROR
    assert ImageState(ImageState("archived")) == "archived"
    assert type(ImageState(Disguised("archived")).value) is str


def test_unknown_states_are_not_remembered() -> None:
    """A server that invents states cannot fill the memory, nor the list of documented states."""
    before = len(ImageState), len(ImageState._value2member_map_)
    for number in range(1_000):
        ImageState(f"state {number}")
    assert (len(ImageState), len(ImageState._value2member_map_)) == before == (4, 4)


@pytest.mark.parametrize("value", [None, 0, True, b"pending", ["pending"]])
def test_only_a_text_is_a_state(value: Any) -> None:
    """What is not a text is no state."""
    with pytest.raises(ValueError, match="is not a valid ImageState"):
        ImageState(value)


@pytest.mark.parametrize("state", [ImageState.COMPLETED, ImageState("archived")], ids=str)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))]
)
def test_states_copy_and_pickle(state: ImageState, again: Callable[[ImageState], Any]) -> None:
    """A copied or pickled state is equal, and still a state."""
    assert again(state) == state
    assert type(again(state)) is ImageState


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.fault("F-78")
def test_signed_url_keeps_every_byte() -> None:
    """An address comes out as it went in: nothing is decoded and encoded again (E20)."""
    text = "https://h.example/a%2Fb/%zz//../c%20d?X=%2F+%2f%20&&Y=ü#[f]"
    assert str(SignedUrl(text).reveal()) == text


@pytest.mark.fault("F-120")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/a.png", "<https://h.example/a.png>"),
        (f"https://h.example/a.png?sig={CANARY_SIGNATURE}", "<https://h.example/a.png?…>"),
        (f"https://h.example/a.png#sig={CANARY_SIGNATURE}", "<https://h.example/a.png#…>"),
        (f"https://h.example/?{CANARY_SIGNATURE}#?", "<https://h.example/?…>"),
        ("https://h.example/\x1b[2J\u202e", "<not an address>"),
        ("https://h.example/" + "a" * 1_000_000, f"<https://h.example/{'a' * 183}…>"),
    ],
)
def test_signed_url_shows_no_query(text: str, shown: str) -> None:
    """The repr ends before query and fragment, and is short and printable."""
    url = SignedUrl(text)
    assert (repr(url), str(url), f"{url}") == (shown, shown, shown)


@pytest.mark.parametrize(("length", "good"), [(300, True), (301, False)])
def test_a_host_has_its_bounds(length: int, *, good: bool) -> None:
    """An address whose scheme and host are longer than 300 characters is none."""
    origin = "https://" + "a" * (length - len("https://"))
    assert (SignedUrl(f"{origin}/b").reveal() is not None) is good


def test_signed_urls_are_equal_by_their_text() -> None:
    """Two addresses with the same bytes are the same; no text equals an address."""
    url = SignedUrl(presigned_url())
    assert url == SignedUrl(presigned_url())
    assert len({url, SignedUrl(presigned_url())}) == 1
    assert url != SignedUrl(presigned_url("/other"))
    assert url != presigned_url()


@pytest.mark.fault("F-120")
def test_signed_url_stays_out_of_pickles() -> None:
    """A copy within the process keeps the address; a pickle has nothing of it."""
    url = SignedUrl(presigned_url())
    assert copy.copy(url) is url
    assert copy.deepcopy([url]) == [url]
    assert b"amazonaws" not in pickle.dumps(url)
    assert pickle.loads(pickle.dumps([url])) == [None]


# --- images ---------------------------------------------------------------------------------------


def test_image_needs_only_vid_and_state() -> None:
    """All that only describes may be missing."""
    image = Image(VID, ImageState.PENDING)
    assert (image.uid, image.pid, image.tid, image.extra) == ("", "", "", {})
    for name in ("created_time", "filename", "size", "fps", "duration", "url", "thumb_url"):
        assert getattr(image, name) is None
    assert repr(image) == f"Image(vid='{VID}', state='pending')"


def test_image_is_frozen() -> None:
    """Nobody changes a record, and nobody adds to it."""
    image = Image(VID, ImageState.PENDING)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        image.state = ImageState.COMPLETED  # type: ignore[misc]
    assert not hasattr(image, "__dict__")


@pytest.mark.parametrize("kind", [str, lambda text: URL(text, encoded=True), SignedUrl])
def test_image_takes_an_address_in_any_form(kind: Callable[[str], Any]) -> None:
    """A text, a URL and a signed address are the same address, byte for byte."""
    text = presigned_url() + "&X-Amz-Credential=a%2Fb"
    image = Image(VID, ImageState.COMPLETED, url=kind(text), thumb_url=kind(text))
    assert str(image.url) == str(image.thumb_url) == text
    assert image == Image(VID, ImageState.COMPLETED, url=text, thumb_url=text)


@pytest.mark.parametrize(
    ("pid", "tid", "is_original", "parent_vid", "task_id"),
    [
        (NIL_VID, NIL_VID, True, None, None),
        (VID, "89f758a0-ba76-11ee-8fa6-17cde62e8e05", False, VID, "89f758a0-ba76-11ee-8fa6-17cde62e8e05"),
        ("", "", False, None, None),
    ],
    ids=["original", "result", "unknown"],
)  # fmt: skip
def test_the_nil_uuid_means_none(
    pid: str, tid: str, parent_vid: str | None, task_id: str | None, *, is_original: bool
) -> None:
    """An original has the nil UUID for its parent and its task, a result has their ids."""
    image = Image(VID, ImageState.COMPLETED, pid=pid, tid=tid)
    assert (image.is_original, image.parent_vid, image.task_id) == (
        is_original,
        parent_vid,
        task_id,
    )


@pytest.mark.parametrize(
    ("state", "finished"),
    [("pending", False), ("processing", False), ("completed", True), ("error", True), ("?", False)],
)
def test_image_is_finished_in_a_final_state(state: str, *, finished: bool) -> None:
    """Completed and failed images are finished; unknown states never are."""
    assert Image(VID, ImageState(state)).is_finished is finished


def test_image_expires_at_its_time() -> None:
    """The life of an image ends with *expired_time*; without one it does not."""
    end = BORN + timedelta(days=14)
    image = Image(VID, ImageState.COMPLETED, expired_time=end)
    assert not image.is_expired(end - timedelta(microseconds=1))
    assert image.is_expired(end)
    assert not Image(VID, ImageState.COMPLETED).is_expired(datetime.max.replace(tzinfo=UTC))


@given(images, images)
def test_images_are_equal_by_their_fields(one: Image, other: Image) -> None:
    """Equal images have equal hashes, and a copy is equal, addresses included."""
    assert (one == other) == (attrs.astuple(one) == attrs.astuple(other))
    for again in (copy.copy(one), copy.deepcopy(one), attrs.evolve(one)):
        assert again == one
        assert hash(again) == hash(one)
        assert again.url == one.url


@given(images)
def test_a_pickled_image_lacks_only_its_addresses(image: Image) -> None:
    """Pickling keeps everything but the addresses, which are credentials (E34)."""
    again = pickle.loads(pickle.dumps(image))
    assert again == attrs.evolve(image, url=None, thumb_url=None)
    assert again.url is None


@pytest.mark.fault("F-120")
def test_image_shows_no_signature() -> None:
    """Neither repr nor str, `asdict`, JSON of it, a pickle or a copy shows a query."""
    image = Image(
        VID, ImageState.COMPLETED, filename="a.png", url=presigned_url(), thumb_url=presigned_url()
    )
    assert_no_secret(image)
    assert_no_secret(json.dumps(attrs.asdict(image), default=str))
    assert_no_secret(json.dumps(attrs.asdict(image), default=repr))
    assert_no_secret(str(attrs.astuple(image)))
    assert contains_secret(str(image.url))
    assert "url=<https://" in repr(image)


@pytest.mark.fault("F-120")
def test_image_shows_the_names_of_unknown_fields_only() -> None:
    """The values of fields that this version does not know may be credentials."""
    image = Image(VID, ImageState.PENDING, extra={"preview_url": presigned_url(), "n": 1})
    assert repr(image) == (
        f"Image(vid='{VID}', state='pending', extra={{'preview_url': …, 'n': …}})"
    )


@pytest.mark.fault("F-123")
def test_the_repr_of_an_image_is_bounded_and_printable() -> None:
    """A megabyte of server text neither floods a log nor steers a terminal."""
    image = Image(
        VID,
        ImageState.PENDING,
        filename="\x1b[2J\r\n\u202e" + "x" * 1_000_000,
        url="https://h.example/" + "\x07" * 1_000_000,
        extra={f"{number}\n": 1 for number in range(100_000)},
    )
    assert len(repr(image)) < 1_500
    assert repr(image).isprintable()


def test_a_long_address_is_shown_to_its_end_mark() -> None:
    """Where an address is cut, the mark of the cut is seen."""
    image = Image(VID, ImageState.PENDING, url="https://h.example/" + "a" * 1_000)
    assert repr(image).endswith("aaa…>)")


def test_an_image_without_urls_is_fit_to_be_shown() -> None:
    """The rest of the record stays; the addresses and unknown fields go."""
    image = Image(VID, ImageState.ERROR, size=3, fps=Fraction(25), url="https://h/", extra={"a": 1})
    assert image.without_urls() == Image(VID, ImageState.ERROR, size=3, fps=Fraction(25))


def test_a_sighting_reads_as_a_phrase() -> None:
    """A sighting is shown as state, duration and number of looks."""
    assert str(Sighting(ImageState.PENDING, 1.0, 3.25, 4)) == "pending for 2.2 s (4 looks)"
    assert str(Sighting(ImageState.ERROR, 1.0, 1.0, 1)) == "error for 0.0 s (1 look)"
