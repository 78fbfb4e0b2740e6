"""
What the simulated images look like and how they come along, asked in the process.
"""

import random
import re
import uuid
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kokoon_async import KokoonClient
from kokoon_async.simulator import ABSENT, Constant, Latency, ManualClock, Simulator, Status
from kokoon_async.simulator._scripts import Stage, parse_script

from .strategies import sample


# What the client is held to as well, see test_wire.py: so the two cannot drift apart.
SAMPLE = sample("image")
NIL = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands."""
    return ManualClock()


@pytest.fixture
def sim(clock: ManualClock) -> Simulator:
    """Give a simulator that does not serve; images need no socket."""
    return Simulator(clock=clock)


def look(sim: Simulator, vid: str) -> str:
    """Do to an image what a complete answer does; return the state that was shown."""
    store = sim._images
    image = store.find(vid)
    assert image is not None
    state = image.state(store.now())
    image.count_look(state, store.now())
    return state


def state(sim: Simulator, vid: str) -> Any:
    """Read a state without looking."""
    return sim.record(vid)["state"]


@pytest.mark.fault("F-126")
def test_record_is_the_vendors_sample(sim: Simulator) -> None:
    """A completed original has the sample's fields, in its order, with its types."""
    record = sim.record(sim.add_image(original=True))
    assert list(record) == list(SAMPLE)
    assert {name: type(value) for name, value in record.items()} == {
        name: type(value) for name, value in SAMPLE.items()
    }
    same = {"pid", "tid", "codec_name", "fps", "duration", "nb_frames", "bitrate", "state"}
    assert {name: record[name] for name in same} == {name: SAMPLE[name] for name in same}
    assert record["created_time"] == "2024-02-01T12:00:00.000Z"
    assert record["expired_time"] == "2024-02-15T12:00:00.000Z"


def test_ids_look_like_the_vendors(sim: Simulator) -> None:
    """All ids are canonical lower-case version 1 UUIDs."""
    record = sim.record(sim.add_image("completed"))
    for name in ("uid", "vid", "pid", "tid"):
        text = str(record[name])
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 1, uuid.RFC_4122)


def test_result_names_parent_and_task(sim: Simulator) -> None:
    """An SR result has a parent and a task of its own."""
    first, second = (sim.record(sim.add_image("completed")) for _ in range(2))
    assert NIL not in {first["pid"], first["tid"]}
    assert len({first["pid"], first["tid"], second["pid"], second["tid"]}) == 4
    assert first["uid"] == second["uid"]


def test_urls_look_presigned(sim: Simulator) -> None:
    """A completed image has URLs whose queries hold escapes that must survive (E20)."""
    vid = sim.add_image("completed")
    record = sim.record(vid)
    for name in ("url", "thumb_url"):
        url = str(record[name])
        assert url.startswith("https://sr-inner-api-storage-local.s3.amazonaws.com/video/")
        assert f"/{record['uid']}/{vid}/" in url
        assert re.search(r"\?.*%2F.*&X-Amz-Signature=[0-9a-f]{64}(&|$)", url)


@pytest.mark.parametrize(
    ("script", "url"), [("pending", None), ("error", None), ("processing", ""), ("odd", "")]
)
def test_unfinished_images_have_no_urls(sim: Simulator, script: str, url: str | None) -> None:
    """Before the end there is nothing to download: null or empty (U6)."""
    record = sim.record(sim.add_image(script))
    assert (record["url"], record["thumb_url"], record["size"]) == (url, url, 0)


def test_fields_can_be_overridden(sim: Simulator) -> None:
    """Any field can be replaced, nulled, left out or added."""
    vid = sim.add_image(
        "completed", filename="x.png", url=None, fps=ABSENT, extra_field=1, state="done"
    )
    record = sim.record(vid)
    assert (record["filename"], record["url"], record["extra_field"]) == ("x.png", None, 1)
    assert record["state"] == "done"
    assert "fps" not in record


def test_record_overrides_fields_that_are_arguments_too(sim: Simulator) -> None:
    """Fields whose names mean something else as arguments go through *record*."""
    vid = sim.add_image("completed", record={"duration": None, "vid": "other"}, width="640")
    record = sim.record(vid)
    assert (record["duration"], record["vid"], record["width"]) == (None, "other", "640")
    assert vid != "other"


def test_id_can_be_given(sim: Simulator) -> None:
    """An image can have a chosen id, and a later one with that id replaces it."""
    assert sim.add_image("pending", vid="a-b") == "a-b"
    assert sim.record("a-b")["vid"] == "a-b"
    sim.add_image("error", vid="a-b")
    assert state(sim, "a-b") == "error"


class Loud(str):
    """A text that shows something else than it holds."""

    __slots__ = ()

    def __str__(self) -> str:
        """Shout."""
        return "LOUD"


GIVEN = "DE5E9990-c0fb-11ee-961f-d12490e606AD"


@pytest.mark.parametrize("vid", [GIVEN, uuid.UUID(GIVEN), Loud(GIVEN)], ids=["text", "uuid", "own"])
async def test_ids_are_what_clients_ask_for(vid: Any) -> None:
    """An id in capitals, or a UUID object, is the image that a client asks for by it."""
    async with Simulator() as sim, KokoonClient("any", base_url=sim.base_url) as client:
        assert sim.add_image("completed", vid=vid) == GIVEN.lower()
        sim.fault(Latency(0.001), vid=vid)
        image = await client.get_image(vid)
        assert (image.vid, sim.request_count(vid)) == (GIVEN.lower(), 1)
        assert sim.unconsumed_faults == ()
        assert sim.record(vid)["vid"] == GIVEN.lower()
        sim.forget(vid)
        with pytest.raises(LookupError, match="no image"):
            sim.record(vid)


def test_ids_on_demand_may_be_in_capitals() -> None:
    """The same image is found by its id in any case of letters."""
    sim = Simulator(images_on_demand=True)
    assert sim.record(GIVEN) == sim.record(GIVEN.lower())


@pytest.mark.parametrize("vid", [5, b"a-b", ["a-b"], 1.0], ids=["int", "bytes", "list", "float"])
def test_what_is_no_id_is_refused(sim: Simulator, vid: Any) -> None:
    """Each method says that its *vid* is of the wrong type."""
    calls = (
        lambda: sim.add_image("completed", vid=vid),
        lambda: sim.fault(Status(503), vid=vid),
        lambda: sim.forget(vid),
        lambda: sim.record(vid),
        lambda: sim.request_count(vid),
    )
    for call in calls:
        with pytest.raises(TypeError, match=f"^vid must be text .*, not {type(vid).__name__}$"):
            call()
    assert sim.unconsumed_faults == ()


def test_id_can_be_left_out_of_the_record(sim: Simulator) -> None:
    """A record without its id still has one to ask for."""
    vid = sim.add_image("completed", vid=ABSENT)
    assert "vid" not in sim.record(vid)
    assert repr(ABSENT) == "ABSENT"


def test_fields_must_be_json(sim: Simulator) -> None:
    """A value that JSON cannot hold is refused when it is said."""
    with pytest.raises(TypeError, match="JSON"):
        sim.add_image("completed", filename=b"x.png")


def test_script_counts_looks(sim: Simulator) -> None:
    """`state*N` holds for N answers, a bare state for one, the last for ever."""
    vid = sim.add_image("pending*3 warming_up processing*2 completed")
    assert [look(sim, vid) for _ in range(9)] == [
        *["pending"] * 3,
        "warming_up",
        *["processing"] * 2,
        *["completed"] * 3,
    ]


def test_script_measures_seconds(sim: Simulator, clock: ManualClock) -> None:
    """`state*Ns` holds for N seconds from when the state before it ended."""
    vid = sim.add_image("pending*2 processing*20s finishing*2.5s completed*1s")
    clock.advance(100)
    assert [look(sim, vid), look(sim, vid)] == ["pending", "pending"]
    clock.advance(19.5)
    assert look(sim, vid) == "processing"
    clock.advance(0.5)
    assert look(sim, vid) == "finishing"
    clock.advance(2.5)
    assert look(sim, vid) == "completed"
    clock.advance(1000)
    assert look(sim, vid) == "completed"


def test_script_skips_what_was_missed(sim: Simulator, clock: ManualClock) -> None:
    """Several timed states may pass between two looks."""
    vid = sim.add_image("pending*1s processing*1s completed error")
    clock.advance(5)
    assert [look(sim, vid), look(sim, vid)] == ["completed", "error"]


def test_simultaneous_looks_count_for_what_they_showed(sim: Simulator) -> None:
    """Two answers under way together do not use up the state that neither has shown."""
    vid = sim.add_image("pending processing completed")
    image = sim._images.find(vid)
    assert image is not None
    for _ in range(2):
        image.count_look("pending", sim._images.now())
    assert look(sim, vid) == "processing"


def test_reading_the_record_is_no_look(sim: Simulator) -> None:
    """A test may read a record without changing what happens."""
    vid = sim.add_image("pending completed")
    assert [state(sim, vid) for _ in range(3)] == ["pending"] * 3


@pytest.mark.parametrize(
    "script",
    ["", "  ", "pending*", "*3", "pending*0", "pending*1.5", "a*b", "a*3x", "a**2", "a*-1s"],
)
def test_unreadable_scripts_are_refused(sim: Simulator, script: str) -> None:
    """A slip in a script is an error with an example, not a strange image."""
    with pytest.raises(ValueError, match="state"):
        sim.add_image(script)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
            st.one_of(st.none(), st.integers(1, 10**6), st.floats(0, 10**6)),
        ),
        min_size=1,
    )
)
def test_scripts_mean_what_they_say(stages: list[tuple[str, int | float | None]]) -> None:
    """Any list of states written as a script is read back as it was."""
    words = []
    expected = []
    for name, amount in stages:
        if amount is None:
            words.append(name)
            expected.append(Stage(name))
        elif isinstance(amount, int):
            words.append(f"{name}*{amount}")
            expected.append(Stage(name, looks=amount))
        else:
            seconds = round(amount, 6)
            words.append(f"{name}*{seconds:f}s")
            expected.append(Stage(name, looks=None, seconds=seconds))
    assert parse_script(" \n".join(words)) == tuple(expected)


def test_duration_is_the_age_at_the_end(sim: Simulator, clock: ManualClock) -> None:
    """With a duration the image is completed at exactly that age, after pending and processing."""
    vid = sim.add_image(duration=12.5)
    seen = [state(sim, vid)]
    for _ in range(124):
        clock.advance(0.1)
        seen.append(state(sim, vid))
    assert list(dict.fromkeys(seen)) == ["pending", "processing"]
    clock.advance(0.1)
    assert state(sim, vid) == "completed"


@pytest.mark.parametrize("duration", [-1.0, float("inf"), float("nan")])
def test_duration_must_make_sense(sim: Simulator, duration: float) -> None:
    """An image takes a finite time."""
    with pytest.raises(ValueError, match="duration"):
        sim.add_image(duration=duration)


def test_course_is_said_once(sim: Simulator) -> None:
    """A script and a duration contradict each other, as do an original and a course."""
    with pytest.raises(ValueError, match="not both"):
        sim.add_image("completed", duration=1.0)
    with pytest.raises(ValueError, match="original"):
        sim.add_image("pending completed", original=True)
    assert state(sim, sim.add_image("completed", original=True)) == "completed"


def test_drawn_durations_follow_the_distribution(clock: ManualClock) -> None:
    """An image without a script takes what the distribution says."""
    sim = Simulator(clock=clock, durations=Constant(30.0))
    vid = sim.add_image()
    assert state(sim, vid) == "pending"
    clock.advance(29.9)
    assert state(sim, vid) == "processing"
    clock.advance(0.1)
    assert state(sim, vid) == "completed"


def test_own_distributions_may_go_below_zero(clock: ManualClock) -> None:
    """A distribution of the user's own may be sloppy; no image ends before it began."""

    @attrs.frozen
    class Sloppy:
        def sample(self, rng: random.Random, /) -> float:
            """Draw something silly."""
            return -1.0

    assert (
        state(Simulator(clock=clock, durations=Sloppy(), images_on_demand=True), NIL) == "completed"
    )


def test_failure_rate_is_the_share_of_errors(clock: ManualClock) -> None:
    """So many of the drawn images end in error."""
    sim = Simulator(clock=clock, failure_rate=0.3, durations=Constant(0.0))
    states = [state(sim, vid) for vid in sim.add_images(1000)]
    assert set(states) == {"completed", "error"}
    assert states.count("error") == pytest.approx(300, abs=45)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_failure_rate_is_a_share(rate: float) -> None:
    """A share lies between none and all."""
    with pytest.raises(ValueError, match="failure_rate"):
        Simulator(failure_rate=rate)


def test_seed_decides_everything(clock: ManualClock) -> None:
    """The same seed gives the same images, another seed others."""
    records = []
    for seed in (1, 1, 2):
        sim = Simulator(seed=seed, clock=clock, images=20, failure_rate=0.5)
        vids = [*sim._images._images]
        clock.advance(25)
        records.append([sim.record(vid) | {"created_time": 0, "expired_time": 0} for vid in vids])
        assert len(set(vids)) == 20
    without_dates = [re.sub(r"20\d{6}|T\d{6}Z", "", str(each)) for each in records]
    assert without_dates[0] == without_dates[1]
    assert not {each["vid"] for each in records[0]} & {each["vid"] for each in records[2]}


def test_order_of_looks_decides_nothing(clock: ManualClock) -> None:
    """What is drawn for an image follows from its id alone."""
    sims = [Simulator(seed=3, clock=clock) for _ in range(2)]
    vids = sims[0].add_images(10)
    assert vids == sims[1].add_images(10)
    forward = {vid: sims[0].record(vid) for vid in vids}
    backward = {vid: sims[1].record(vid) for vid in reversed(vids)}
    assert forward == backward


def test_many_images_can_share_a_script(sim: Simulator) -> None:
    """Many images alike have their own ids and their own progress."""
    vids = sim.add_images(3, "pending completed")
    assert len(set(vids)) == 3
    look(sim, vids[0])
    assert [state(sim, vid) for vid in vids] == ["completed", "pending", "pending"]


def test_drawn_ids_never_replace_an_image(sim: Simulator) -> None:
    """An id that was chosen by hand is not drawn again."""
    taken = Simulator().add_image()
    sim.add_image("error", vid=taken)
    assert sim.add_image() != taken
    assert state(sim, taken) == "error"


def test_forgotten_images_are_gone(sim: Simulator) -> None:
    """A forgotten image can neither be read nor forgotten again, but it can come back."""
    vid = sim.add_image("completed")
    sim.forget(vid)
    with pytest.raises(LookupError, match=vid):
        sim.record(vid)
    with pytest.raises(LookupError, match=vid):
        sim.forget(vid)
    sim.add_image("completed", vid=vid)
    assert state(sim, vid) == "completed"


def test_images_on_demand_take_no_memory(clock: ManualClock) -> None:
    """Every canonical id has its image, which is worked out anew and never stored."""
    sim = Simulator(clock=clock, images_on_demand=True, durations=Constant(10.0))
    vids = [str(uuid.UUID(int=number)) for number in range(500)]
    before = [sim.record(vid) for vid in vids]
    assert {record["state"] for record in before} == {"pending"}
    assert [record["vid"] for record in before] == vids
    assert [sim.record(vid) for vid in vids] == before
    clock.advance(10)
    assert {state(sim, vid) for vid in vids} == {"completed"}
    assert not sim._images._images


@pytest.mark.parametrize("vid", ["", "x", NIL + "0", GIVEN.replace("-", ""), f"{{{GIVEN}}}"])
def test_images_on_demand_have_canonical_ids(vid: str) -> None:
    """Text that is no canonical UUID, whatever its letters, has no image."""
    with pytest.raises(LookupError, match="no image"):
        Simulator(images_on_demand=True).record(vid)


def test_images_on_demand_can_be_scripted_and_forgotten() -> None:
    """What is said about one id goes before what is made up."""
    sim = Simulator(images_on_demand=True, clock=ManualClock())
    sim.add_image("error", vid=NIL)
    assert state(sim, NIL) == "error"
    sim.forget(NIL)
    with pytest.raises(LookupError, match="no image"):
        sim.record(NIL)
    sim.add_image("warming_up", vid=NIL)
    assert state(sim, NIL) == "warming_up"
