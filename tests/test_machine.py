"""The machine that follows one wait, as pure calls: no loop, no network, no clock."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from kokoon_async import (
    ApiError,
    AuthenticationFailed,
    ClientClosed,
    ConfigurationError,
    ConnectionFailed,
    Fixed,
    Image,
    ImageFailed,
    ImageNotFound,
    ImageState,
    InsufficientCredit,
    InvalidRequest,
    InvalidVid,
    KokoonError,
    Look,
    ProtocolError,
    RateLimited,
    RequestTimedOut,
    ServerError,
    Sighting,
    TransportError,
    UnexpectedResponse,
    WaitOutage,
    WaitTimedOut,
)
from kokoon_async.polling import Done, Failed, LookAgain, Step, WaitMachine

from .fakes import VID


START = 1_000.0  # the loop's clock starts anywhere
RESUME = "wait for the same vid again"


@attrs.define
class Recorder:
    """A policy that says what it is told to say, and remembers everything."""

    delay: Any = 5.0
    looks: list[Look] = attrs.field(factory=list)
    lessons: list[tuple[float, ...]] = attrs.field(factory=list)

    def next_delay(self, look: Look) -> float:
        """Give the delay."""
        self.looks.append(look)
        return self.delay

    def record(self, earliest: float, latest: float) -> None:
        """Remember the lesson."""
        self.lessons.append((earliest, latest))


def make_machine(policy: Any = None, **options: Any) -> WaitMachine:
    """Begin a wait at START, by default of 100 seconds with a look every 5."""
    options = {"timeout": 100.0, **options}
    return WaitMachine(VID, Recorder() if policy is None else policy, now=START, **options)


def make_image(state: str, **fields: Any) -> Image:
    """Make a record in this state."""
    return Image(VID, ImageState(state), **fields)


def see(machine: WaitMachine, at: float, state: str = "processing", **options: Any) -> Step:
    """Take in a record, so many seconds after the wait began."""
    return machine.observe(START + at, make_image(state), **options)


def miss(machine: WaitMachine, at: float, error: KokoonError | None = None, **options: Any) -> Step:
    """Take in a failed look, so many seconds after the wait began."""
    return machine.fail(START + at, error or ServerError("Broken.", status=500), **options)


def error_of(step: Step, kind: type[Exception]) -> Any:
    """Give the error that a wait ended with."""
    assert isinstance(step, Failed)
    assert type(step.error) is kind
    return step.error


# --- records ------------------------------------------------------------------------------------


def test_an_unfinished_image_is_looked_at_again():
    """After a record that is not final, the policy says when to look next."""
    assert see(make_machine(Fixed(3.0, jitter=0)), 1) == LookAgain(3.0, "policy")


def test_a_completed_image_ends_the_wait():
    """The caller gets the very record."""
    image = make_image("completed", url="https://example.com/x?signature=1")
    assert make_machine().observe(START, image) == Done(image)


@pytest.mark.parametrize("at", [99.999, 100.0, 1e6])
def test_a_final_state_seen_beats_the_clock(at: float):
    """However late it is, a completed record is a completed record."""
    machine = make_machine()
    see(machine, 1)
    assert isinstance(see(machine, at, "completed"), Done)
    machine = make_machine()
    error_of(see(machine, at, "error"), ImageFailed)


def test_an_error_state_ends_the_wait_with_all_that_is_known():
    """`ImageFailed` holds the record without its addresses, the history and the time it took."""
    machine = make_machine()
    see(machine, 1, "pending")
    image = make_image("error", filename="x.png", url="https://example.com/x?signature=1")
    error = error_of(machine.observe(START + 11, image), ImageFailed)
    assert error.image == make_image("error", filename="x.png")
    assert error.history == (Sighting("pending", 1, 1, 1), Sighting("error", 11, 11, 1))
    assert (error.vid, error.attempts, error.elapsed) == (VID, 2, 11)
    assert str(error) == (
        f"The server failed to make image {VID} after 11.0 s (pending for 0.0 s (1 look),"
        " error for 0.0 s (1 look)). Request super-resolution again, or ask the vendor."
    )


def test_history_folds_repeats():
    """One sighting for looks in a row at one state, however many; a state may come back."""
    machine = make_machine()
    assert machine.history == ()
    states = ["pending", "pending", "processing", "pending", "pending", "pending"]
    for at, state in enumerate(states, start=1):
        see(machine, at, state)
    assert machine.history == (
        Sighting("pending", 1, 2, 2),
        Sighting("processing", 3, 3, 1),
        Sighting("pending", 4, 6, 3),
    )


def test_failed_looks_are_no_part_of_the_history():
    """A look that failed between two good ones saw no state."""
    machine = make_machine()
    see(machine, 1)
    miss(machine, 2)
    see(machine, 3)
    assert machine.history == (Sighting("processing", 1, 3, 2),)
    assert machine.looks == 3


@pytest.mark.fault("F-39")
def test_an_unknown_state_keeps_waiting():
    """A state that the API does not document is neither success nor failure."""
    machine = make_machine()
    assert see(machine, 1, "warming_up") == LookAgain(5.0, "policy")
    assert machine.history == (Sighting("warming_up", 1, 1, 1),)
    assert machine.last_seen() == "last seen as warming_up"


@pytest.mark.fault("F-39")
@pytest.mark.parametrize("state", ["Completed", "completed ", "ERROR", "", "done"])
def test_what_only_resembles_a_final_state_is_unknown(state: str):
    """Only the exact words are final."""
    assert isinstance(see(make_machine(), 1, state), LookAgain)


# --- ages ---------------------------------------------------------------------------------------


def test_the_policy_is_told_everything():
    """It gets the server's age, the time waited, the number of looks and the state."""
    policy = Recorder()
    machine = make_machine(policy)
    see(machine, 1, "pending", age=61.0)
    see(machine, 6, "processing", age=66.5)
    miss(machine, 11)
    assert policy.looks == [
        Look(age=61.0, elapsed=1, looks=1, state=ImageState.PENDING),
        Look(age=66.5, elapsed=6, looks=2, state=ImageState.PROCESSING),
        Look(age=71.5, elapsed=11, looks=3, state=ImageState.PROCESSING),
    ]


def test_without_the_servers_age_the_time_waited_counts():
    """An answer without a usable age leaves what is known: its last word, or the time waited."""
    policy = Recorder()
    machine = make_machine(policy)
    miss(machine, 1)
    see(machine, 2)
    see(machine, 3, age=30.0)
    see(machine, 4)
    assert [look.age for look in policy.looks] == [1, 2, 30, 31]
    assert policy.looks[0].state == ImageState.PENDING
    assert machine.age(START + 10) == 37
    assert machine.elapsed(START + 10) == 10


# --- deadlines ----------------------------------------------------------------------------------


def test_the_last_look_is_just_before_the_deadline():
    """A delay that would pass it is cut, so that the answer can be there in time."""
    machine = make_machine(timeout=10.0)
    assert see(machine, 0) == LookAgain(5.0, "policy")
    assert see(machine, 5, reserve=0.5) == LookAgain(4.5, "deadline")
    error_of(see(machine, 9.7, reserve=0.5), WaitTimedOut)


def test_there_is_one_last_look():
    """It is planned once, also if looks turn out to be faster than was thought."""
    machine = make_machine(timeout=10.0)
    assert see(machine, 6, reserve=1.0) == LookAgain(3.0, "deadline")
    error_of(see(machine, 9, reserve=0.1), WaitTimedOut)
    machine = make_machine(timeout=10.0)
    see(machine, 6, reserve=1.0)
    assert see(machine, 8, reserve=0.1) == LookAgain(1.0, "deadline")  # somebody else's look
    error_of(see(machine, 8.9999, reserve=0.1), WaitTimedOut)  # a timer may be early


def test_a_hint_may_put_off_the_last_look():
    """A last look that the server refused is made again if there is time for it."""
    machine = make_machine(timeout=10.0)
    assert see(machine, 6, reserve=1.0) == LookAgain(3.0, "deadline")
    assert miss(machine, 9, hint=0.75, reserve=1.0) == LookAgain(0.75, "deadline")
    error_of(miss(machine, 9.75, reserve=1.0), WaitTimedOut)


def test_a_delay_that_ends_with_the_wait_is_the_last():
    """Looks that meet the last one by chance are that one."""
    assert see(make_machine(timeout=5.0), 0) == LookAgain(5.0, "deadline")


def test_a_failed_look_gets_a_last_one_too():
    """The last look comes after failures as well, and when it fails the wait is over."""
    machine = make_machine(timeout=10.0)
    assert miss(machine, 6, reserve=0.5) == LookAgain(3.5, "deadline")
    error_of(miss(machine, 9.6, reserve=0.5), WaitTimedOut)


def test_no_look_comes_right_before_the_last_one():
    """A look that the policy wants within the shortest pause before the last one is that one."""
    assert see(make_machine(timeout=5.0625), 0) == LookAgain(5.0625, "deadline")
    assert see(make_machine(timeout=5.25), 0) == LookAgain(5.0, "policy")


def test_without_a_timeout_there_is_no_deadline():
    """``None`` waits for ever."""
    machine = make_machine(timeout=None)
    assert machine.deadline == math.inf
    assert see(machine, 1e9, reserve=0.5) == LookAgain(5.0, "policy")
    assert miss(machine, 1e9 + 1, hint=1e6) == LookAgain(1e6, "hint")


def test_a_time_out_says_how_it_went():
    """`WaitTimedOut` holds the history and the time, and says how to resume."""
    machine = make_machine()
    see(machine, 1, "pending")
    see(machine, 21, "pending")
    see(machine, 41, "warming_up")
    error = error_of(machine.expire(START + 100), WaitTimedOut)
    assert isinstance(error, TimeoutError)
    assert (error.vid, error.attempts, error.elapsed, error.image) == (VID, 3, 100, None)
    assert error.history == machine.history
    assert str(error) == (
        f"Image {VID} was not finished after 100.0 s (pending for 20.0 s (2 looks), warming_up"
        " for 0.0 s (1 look)). The server's work goes on: wait for the same vid again to resume."
    )
    assert pickle.loads(pickle.dumps(error)).history == copy.copy(error).history == error.history


def test_a_time_out_without_any_answer_says_so():
    """Never seen is another story than never finished: failed looks are named."""
    machine = make_machine()
    for at in (1, 2, 3):
        miss(machine, at)
    error = error_of(machine.expire(START + 100), WaitTimedOut)
    assert "after 100.0 s (never seen). Failed looks in a row at the end: 3 (ServerError)." in str(
        error
    )
    assert machine.last_seen() == "not seen yet"


# --- failed looks -------------------------------------------------------------------------------

PASSING = [
    TransportError(),
    ConnectionFailed(),
    RequestTimedOut(),
    ProtocolError(),
    UnexpectedResponse(),
    ApiError(),
    RateLimited(status=429),
    ServerError(status=500),
    ServerError(status=408),
    ServerError(status=501),
]
LASTING = [
    ConnectionFailed(is_lasting=True),
    AuthenticationFailed(status=401),
    ImageNotFound(status=404),
    InvalidRequest(status=400),
    InsufficientCredit(status=402),
    ConfigurationError(),
    InvalidVid(),
    ClientClosed(),
    KokoonError(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_does_not_end_a_wait(error: KokoonError):
    """A fault of the network or the server costs one look."""
    machine = make_machine()
    assert miss(machine, 1, error) == LookAgain(5.0, "policy")
    assert (machine.looks, machine.failures_in_a_row) == (1, 1)
    see(machine, 6)
    assert (machine.looks, machine.failures_in_a_row) == (2, 0)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_ends_a_wait_at_once(error: KokoonError):
    """Asking again cannot help: the caller gets the error itself."""
    machine = make_machine()
    see(machine, 1)
    assert miss(machine, 2, error) == Failed(error)


def test_every_error_is_decided():
    """No class of error was forgotten in the two lists above."""

    def all_below(kind: type) -> Iterator[type]:
        for below in kind.__subclasses__():
            if below.__module__ == "kokoon_async.errors":
                yield below
                yield from all_below(below)

    ours = {kind for kind in all_below(KokoonError) if "Wait" not in kind.__name__}
    decided = {type(error) for error in (*PASSING, *LASTING)}
    assert {kind.__name__ for kind in ours - decided} == {"ImageFailed", "JobError"}


def test_a_failed_look_waits_for_the_backoff():
    """The next look comes no sooner than the retry policy's pause."""
    assert miss(make_machine(), 1, pause=7.0) == LookAgain(7.0, "backoff")
    assert miss(make_machine(), 1, pause=3.0) == LookAgain(5.0, "policy")


def test_a_hint_is_never_shortened():
    """Neither the policy nor the backoff nor the last look come before the server's hint."""
    assert miss(make_machine(), 1, pause=20.0, hint=30.0) == LookAgain(30.0, "hint")
    assert miss(make_machine(), 1, hint=3.0) == LookAgain(5.0, "policy")
    machine = make_machine()
    assert miss(machine, 50, hint=49.5, reserve=5.0) == LookAgain(49.5, "deadline")
    error_of(miss(machine, 99.6, reserve=5.0), WaitTimedOut)


@pytest.mark.fault("F-51")
@pytest.mark.parametrize("hint", [50.0, 51.0, 1e9])
def test_a_hint_beyond_the_deadline_ends_the_wait_at_once(hint: float):
    """There is no point in waiting only to give up."""
    machine = make_machine()
    error = error_of(miss(machine, 50, RateLimited(status=429), hint=hint), WaitTimedOut)
    assert f"asks not to be asked for {hint:.0f} s, longer than the time left" in str(error)
    assert error.elapsed == 50
    assert RESUME in error.hint


@pytest.mark.fault("F-61")
@pytest.mark.parametrize("delay", [0, 0.0, 1e-9, -5.0, 0.099])
def test_no_policy_makes_a_flood(delay: float):
    """A policy that says nothing, or less, still looks ten times a second at most."""
    assert see(make_machine(Recorder(delay)), 1) == LookAgain(0.1, "policy")


NO_SECONDS = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "Decimal('sNaN')": Decimal("sNaN"),
    "'1'": "1",
    "None": None,
    "1j": 1j,
    "1" + "0" * 49: 10**400,
    "a huge int": 10**5_000,
}


@pytest.mark.fault("F-37")
@pytest.mark.parametrize("told", NO_SECONDS)
def test_a_policy_that_gives_no_number_of_seconds_is_named(told: str):
    """Neither never nor nothing gets into the schedule, whatever the policy gives."""
    for step in (see, miss):
        with pytest.raises(ConfigurationError) as caught:
            step(make_machine(Recorder(NO_SECONDS[told])), 1)
        assert caught.value.message == f"Recorder.next_delay gave {told}, not seconds."


@pytest.mark.parametrize("kind", [int, type("Seconds", (float,), {}), Decimal, Fraction])
def test_a_policy_may_give_any_kind_of_number(kind: Callable[[int], Any]):
    """Numbers of other libraries, too, become plain seconds."""
    step = see(make_machine(Recorder(kind(7))), 1)
    assert step == LookAgain(7.0, "policy")
    assert type(step.delay) is float


# --- outages ------------------------------------------------------------------------------------


def test_an_outage_is_borne_for_its_time():
    """`WaitOutage` comes when no good answer came for so long, and names the last failure."""
    machine = make_machine(timeout=None)
    see(machine, 50)
    at = 55.0
    while isinstance(step := miss(machine, at), LookAgain):
        at += step.delay
    error = error_of(step, WaitOutage)
    assert at == 175
    assert (error.elapsed, error.attempts) == (175, 26)
    assert error.history == (Sighting("processing", 50, 50, 1),)
    assert str(error) == (
        f"Image {VID}: no good answer for 125 s after 175.0 s (processing for 0.0 s (1 look));"
        " the last failure: Broken. The server's work may go on: wait for the same vid again later."
    )


def test_an_outage_may_be_borne_for_ever():
    """Without a limit, failed looks are followed by others for as long as the wait may last."""
    machine = make_machine(timeout=None, outage=None)
    for hour in range(1, 50):
        assert miss(machine, 3_600 * hour) == LookAgain(5.0, "policy")
    assert machine.failures_in_a_row == 49


def test_an_outage_begins_anew_with_each_good_answer():
    """One good answer and the patience is whole again."""
    machine = make_machine(timeout=None)
    for good in (0, 130, 260):
        see(machine, good)
        assert isinstance(miss(machine, good + 5), LookAgain)
        assert isinstance(miss(machine, good + 119), LookAgain)


def test_the_last_chance_in_an_outage_comes_when_the_patience_ends():
    """The look after which a wait gives up is not some time later, however long the pauses are."""
    machine = make_machine(Recorder(50.0), timeout=None)
    assert miss(machine, 0) == LookAgain(30.0, "policy")
    assert miss(machine, 50) == LookAgain(30.0, "policy")
    assert miss(machine, 100) == LookAgain(20.0, "policy")
    error_of(miss(machine, 120), WaitOutage)


def test_the_last_chance_in_an_outage_is_no_flood_and_respects_hints():
    """It may come before the backoff, but neither at once nor sooner than the server allows."""
    machine = make_machine(timeout=None)
    miss(machine, 0)
    assert miss(machine, 50, pause=20.0) == LookAgain(20.0, "backoff")
    assert miss(machine, 118, pause=20.0) == LookAgain(2.0, "backoff")
    assert miss(machine, 118, hint=30.0) == LookAgain(30.0, "hint")
    assert miss(machine, 119.999) == LookAgain(0.1, "policy")


def test_a_few_failed_looks_are_no_outage():
    """However long the pauses are: from the first failure on, looks are close enough to tell."""
    machine = make_machine(Recorder(300.0), timeout=None)
    see(machine, 0)
    assert miss(machine, 300) == LookAgain(30.0, "policy")
    assert see(machine, 330) == LookAgain(300.0, "policy")
    for at in (630, 660, 690, 720):
        assert miss(machine, at) == LookAgain(30.0, "policy")
    error_of(miss(machine, 750), WaitOutage)


def test_a_provider_of_tokens_may_fail_for_a_while():
    """A refused token ends a wait; a provider that has failed this time does not."""
    machine = make_machine()
    assert isinstance(miss(machine, 0, AuthenticationFailed(is_passing=True)), LookAgain)
    refused = AuthenticationFailed(status=401)
    assert miss(machine, 5, refused) == Failed(refused)


# --- images that may not be known yet -----------------------------------------------------------


@pytest.mark.fault("F-44")
def test_a_missing_image_has_its_grace():
    """Right after a task was made, "not found" may only mean "not yet"; later it is final."""
    machine = make_machine(missing_grace=10.0)
    missing = ImageNotFound(status=404)
    assert miss(machine, 0, missing) == LookAgain(5.0, "grace")
    assert miss(machine, 9.9, missing) == LookAgain(5.0, "grace")
    assert miss(machine, 10.0, missing) == Failed(missing)


@pytest.mark.fault("F-44")
def test_grace_is_no_failure():
    """What comes within the grace neither counts as failed nor towards an outage."""
    machine = make_machine(missing_grace=1000.0, timeout=None)
    for at in range(0, 300, 5):
        miss(machine, at, ImageNotFound())
    assert machine.failures_in_a_row == 0
    assert isinstance(miss(machine, 300), LookAgain)
    assert isinstance(miss(machine, 310), LookAgain)
    assert machine.history == ()
    see(machine, 320)
    assert machine.history == (Sighting("processing", 320, 320, 1),)


@pytest.mark.fault("F-44")
def test_grace_for_an_image_that_was_seen_keeps_its_history():
    """A server that forgets an image for a moment does not change when it was last seen."""
    machine = make_machine(missing_grace=10.0)
    see(machine, 1)
    assert miss(machine, 6, ImageNotFound()) == LookAgain(5.0, "grace")
    assert machine.history == (Sighting("processing", 1, 1, 1),)


# --- what the policy learns ---------------------------------------------------------------------


def lessons_of(*looks: tuple[float, str, float | None], **options: Any) -> list[Any]:
    """Make these looks, end the wait, and give what the policy was told."""
    policy = Recorder()
    machine = make_machine(policy, **options)
    for at, state, age in looks:
        see(machine, at, state, age=age)
    assert policy.lessons == []
    machine.conclude()
    return policy.lessons


@pytest.mark.parametrize("final", ["completed", "error"])
def test_the_policy_learns_between_which_ages_an_image_finished(final: str):
    """It is told the age at the last look before, and the age at the final one."""
    seen = lessons_of((1, "pending", 11.0), (6, "warming_up", 16.0), (11, final, 21.0))
    assert seen == [(16.0, 21.0)]


def test_the_policy_learns_from_the_time_waited_too():
    """Without the server's clock, the ages count from the beginning of the wait."""
    assert lessons_of((1, "pending", None), (6, "completed", None)) == [(1, 6)]


def test_first_sight_teaches_nothing():
    """An image that was finished when first seen took no one knows how long."""
    assert lessons_of((1, "completed", 50.0)) == []
    assert lessons_of((1, "error", None)) == []
    assert lessons_of() == []


def test_a_wait_given_up_teaches_that_it_takes_longer():
    """The image finishes, if ever, at an age beyond the last one seen."""
    assert lessons_of((1, "pending", 11.0), (6, "pending", 16.0)) == [(16.0, math.inf)]


def test_failed_looks_teach_nothing():
    """Only a record shows that an image is not finished."""
    policy = Recorder()
    machine = make_machine(policy)
    see(machine, 1, age=11.0)
    miss(machine, 6)
    see(machine, 11, "completed")
    machine.conclude()
    assert policy.lessons == [(11.0, 21.0)]


def test_a_servers_clock_that_jumps_does_not_spoil_a_lesson():
    """The length of the interval is measured here, and its end by the server's last word."""
    assert lessons_of((1, "pending", 50.0), (6, "completed", 20.0)) == [(15, 20)]
    assert lessons_of((1, "pending", 50.0), (6, "completed", 2.0)) == [(0, 2)]
    assert lessons_of((1, "pending", 50.0), (6, "completed", 80.0)) == [(75, 80)]
    assert lessons_of((1, "pending", 50.0), (6, "completed", 0.0)) == []


@attrs.define
class Follower(Recorder):
    """A policy that is told of each look too."""

    followed: list[tuple[float, float]] = attrs.field(factory=list)

    def follow(self, since: float, until: float) -> None:
        """Remember between which looks the image was unfinished."""
        self.followed.append((since, until))

    def record(self, earliest: float, latest: float, *, since: float = 0.0) -> None:
        """Remember the lesson, and what it goes on from."""
        self.lessons.append((earliest, latest, since))


def test_a_policy_may_follow_the_looks():
    """It is told between which ages an image was unfinished, and in the end goes on from there."""
    policy = Follower()
    machine = make_machine(policy)
    for at in (1, 6, 9):
        see(machine, at, age=at + 10.0)
    assert policy.followed == [(11.0, 16.0), (16.0, 19.0)]
    miss(machine, 12)
    see(machine, 15, age=25.0)
    assert policy.followed[2:] == [(19.0, 25.0)]
    see(machine, 20, "completed", age=30.0)
    machine.conclude()
    assert len(policy.followed) == 3
    assert policy.lessons == [(25.0, 30.0, 25.0)]


def test_a_policy_that_follows_hears_of_the_end_too():
    """A wait given up adds nothing to what was told, but that it is over."""
    policy = Follower()
    machine = make_machine(policy)
    see(machine, 1, age=11.0)
    machine.conclude()
    assert (policy.followed, policy.lessons) == ([], [(11.0, math.inf, 11.0)])


def test_what_another_wait_tells_is_not_told_twice():
    """Of several waits for one image only one tells the policy of a look."""
    policy = Follower()
    machine = make_machine(policy)
    see(machine, 1, age=11.0)
    see(machine, 6, age=16.0, is_told=True)
    see(machine, 9, age=19.0)
    assert policy.followed == [(16.0, 19.0)]


def test_two_answers_at_once_are_no_time_to_follow():
    """Where no time passed there is nothing to tell, and no age is below zero."""
    policy = Follower()
    machine = make_machine(policy)
    see(machine, 5, age=1.0)
    see(machine, 5, age=1.0)
    see(machine, 8, age=2.0)
    assert policy.followed == [(0.0, 2.0)]


# --- every course of events ---------------------------------------------------------------------


@attrs.frozen
class Brought:
    """One look: how long it takes and what it brings."""

    seconds: float
    state: str | None = None
    error: KokoonError | None = None
    pause: float = 0.0
    hint: float = 0.0
    age: float | None = None


seconds = st.floats(0, 40)
records = st.builds(
    Brought,
    seconds,
    state=st.sampled_from(
        ["pending", "processing", "warming_up", "Completed", "completed", "error"]
    ),
    age=st.none() | st.floats(0, 1e6),
)
failures = st.builds(
    Brought,
    seconds,
    error=st.sampled_from([*PASSING, ImageNotFound(status=404)]),
    pause=seconds,
    hint=st.just(0.0) | st.floats(0, 200),
)
courses = st.lists(st.one_of(records, failures), max_size=30)


@attrs.define
class Course:
    """A wait driven to its end the way the scheduler does it, and what was seen on the way."""

    machine: WaitMachine
    brought: Iterator[Brought]
    reserve: float
    now: float = START
    states: list[str] = attrs.field(factory=list)
    looks: int = 0

    def run(self) -> Step:
        """Look until the wait is over; check each step."""
        for look in self.brought:
            if self.now + look.seconds > self.machine.deadline:
                self.now = self.machine.deadline
                return self.machine.expire(self.now)
            self.now += look.seconds
            self.looks += 1
            step = self.take(look)
            if not isinstance(step, LookAgain):
                return step
            least = max(look.hint, 0.0 if step.reason == "deadline" else 0.1)
            assert least <= step.delay + 1e-9
            assert math.isfinite(step.delay)
            assert self.now + step.delay <= self.machine.deadline + 1e-9, "no delay passes it"
            self.now += step.delay
        raise AssertionError("the course was too short")

    def take(self, look: Brought) -> Step:
        """Give what a look brought to the machine."""
        if look.error is not None:
            return self.machine.fail(
                self.now, look.error, pause=look.pause, hint=look.hint, reserve=self.reserve
            )
        assert look.state is not None
        self.states.append(look.state)
        image = make_image(look.state)
        return self.machine.observe(self.now, image, age=look.age, reserve=self.reserve)


def folded(states: Iterable[str]) -> list[tuple[str, int]]:
    """Count repeats in a row."""
    return [(state, len(list(group))) for state, group in itertools.groupby(states)]


@pytest.mark.fault("F-40")
@given(
    course=courses,
    then=st.one_of(records, failures),
    timeout=st.floats(0.5, 300),
    reserve=st.floats(0, 0.1),
    grace=st.sampled_from([0.0, 50.0]),
    outage=st.sampled_from([10.0, 120.0]),
    delay=st.floats(0, 100),
)
def test_every_course_ends_by_its_deadline(
    *,
    course: list[Brought],
    then: Brought,
    timeout: float,
    reserve: float,
    grace: float,
    outage: float,
    delay: float,
):
    """
    Whatever happens and goes on happening, a wait ends in time, with a true report.

    The first final state ends it, no delay passes the deadline, no hint is shortened, unknown
    states are waited out and named, and the history is what was seen.
    """
    policy = Recorder(delay)
    machine = make_machine(policy, timeout=timeout, missing_grace=grace, outage=outage)
    run = Course(machine, itertools.chain(course, itertools.repeat(then)), reserve * timeout)
    end = run.run()
    event(type(end.error).__name__ if isinstance(end, Failed) else "Done")
    assert run.now <= START + timeout + 1e-9
    assert machine.looks == run.looks
    assert [(s.state, s.looks) for s in machine.history] == folded(run.states)
    finals = [state for state in run.states if state in ("completed", "error")]
    if isinstance(end, Done):
        assert finals == run.states[-1:] == ["completed"]
        assert machine.state == end.image.state == "completed"
    elif isinstance(end.error, ImageFailed):
        assert finals == run.states[-1:] == ["error"]
    else:
        assert finals == []
    if isinstance(end, Failed) and isinstance(end.error, WaitTimedOut | WaitOutage):
        assert end.error.elapsed == pytest.approx(run.now - START)
        assert all(state in str(end.error) for state in run.states)
        assert RESUME in end.error.hint
    if isinstance(end, Failed) and isinstance(end.error, WaitOutage):
        last_good = machine.history[-1].last_seen if machine.history else 0.0
        assert run.now - START - last_good >= outage - 1e-9
    machine.conclude()
    assert all(0 <= earliest < latest for earliest, latest in policy.lessons)
    assert len(policy.lessons) <= 1


def test_a_message_tells_the_latest_states_only() -> None:
    """A server whose states flap cannot make a message grow; the history has them all."""
    machine = WaitMachine(VID, Fixed(), now=0.0, timeout=100.0)
    for number in range(20):
        state = ImageState.PENDING if number % 2 else ImageState.PROCESSING
        machine.observe(float(number), Image(VID, state))
    error = machine.expire(100.0).error
    assert str(error).count("look") < 8
    assert "(…, " in str(error)
    assert isinstance(error, WaitTimedOut)
    assert len(error.history) == 20


def test_whole_seconds_of_the_servers_clock_are_made_finer() -> None:
    """Of several readings of the age the earliest birth counts, but a clock that was set wins."""
    machine = WaitMachine(VID, Fixed(), now=100.0, timeout=None)
    pending = Image(VID, ImageState.PENDING)
    machine.observe(100.0, pending, age=0.1)
    machine.observe(100.9, pending, age=1.8)  # the header said a later second by then
    assert machine.age(101.0) == pytest.approx(1.9)
    machine.observe(101.0, pending, age=1.2)  # and here an earlier one
    assert machine.age(101.0) == pytest.approx(1.9)
    machine.observe(102.0, pending, age=3_600.0)
    assert machine.age(102.0) == 3_600.0
    machine.observe(103.0, pending, age=5.0)
    assert machine.age(103.0) == 5.0
