"""
What happened, told to hooks and to the log.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from kokoon_async import events
from kokoon_async.errors import ConfigurationError
from kokoon_async.events import (
    Braked,
    Event,
    Hooks,
    LookFailed,
    LookFinished,
    RetryScheduled,
    StateChanged,
    TokenRefreshed,
    WaitEnded,
    WaitStarted,
    log_event,
    logger,
)
from kokoon_async.models import ImageState


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"

# Each event with its log message and its level.
EVENTS: list[tuple[Event, str, int]] = [
    (RetryScheduled(VID, 1, 0.05, "ServerError", 503), "retry.scheduled", logging.WARNING),
    (Braked(5.0, 32), "throttle.braked", logging.WARNING),
    (TokenRefreshed(2), "token.refreshed", logging.INFO),
    (WaitStarted(VID, 1800.0), "wait.started", logging.DEBUG),
    (LookFinished(VID, ImageState.PENDING, 1.5, 2.0, "policy"), "look.finished", logging.DEBUG),
    (LookFailed(VID, "ConnectionFailed", 2.0, "backoff"), "look.failed", logging.WARNING),
    (
        StateChanged(VID, None, ImageState.PENDING, 1.5),
        "image.state_changed",
        logging.INFO,
    ),
    (WaitEnded(VID, "completed", 9.5, 4), "wait.ended", logging.DEBUG),
]
each_event = pytest.mark.parametrize(
    ("event", "name", "level"), EVENTS, ids=[name for _, name, _ in EVENTS]
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Begin each test with a log that nobody reads."""
    with caplog.at_level(logging.CRITICAL, logger.name):
        yield


# --- the events -----------------------------------------------------------------------------------


def test_every_event_is_listed() -> None:
    """All event classes are public, frozen and in this file's list."""
    kinds = {kind.__name__ for kind in Event.__subclasses__() if kind.__module__ == events.__name__}
    assert kinds == {type(event).__name__ for event, *_ in EVENTS}
    assert {*kinds, "Event", "Hook", "Hooks"} == set(events.__all__)


@each_event
def test_events_are_plain_values(event: Event, name: str, level: int) -> None:
    """An event is frozen, equal by its fields, and holds only what JSON can."""
    assert event == attrs.evolve(event)
    assert hash(event) == hash(attrs.evolve(event))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.vid = "x"  # type: ignore[attr-defined]
    assert json.loads(json.dumps(attrs.asdict(event))) == attrs.asdict(event)


@each_event
def test_events_describe_their_fields(event: Event, name: str, level: int) -> None:
    """Each field is explained in its class's docstring."""
    for field in attrs.fields(type(event)):
        assert f"\n        {field.name}: " in (type(event).__doc__ or "")


def test_events_are_taken_apart_with_match() -> None:
    """A hook can tell events apart and read their fields by position."""
    match RetryScheduled(VID, 1, 0.05, "ServerError", 503):
        case RetryScheduled(vid, attempt, status=503):
            assert (vid, attempt) == (VID, 1)
        case _:
            pytest.fail("no match")


# --- the log --------------------------------------------------------------------------------------


@pytest.mark.fault("F-124")
@each_event
def test_the_log_has_a_constant_message_and_extra_fields(
    event: Event, name: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is the event's name; the fields are on the record, with a prefix."""
    with caplog.at_level(logging.DEBUG, logger.name):
        log_event(event)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("kokoon_async", level)
    assert (record.msg, record.args, record.getMessage()) == (name, (), name)
    extra = {key: value for key, value in vars(record).items() if key.startswith("kokoon_")}
    assert extra == {f"kokoon_{key}": value for key, value in attrs.asdict(event).items()}


@each_event
def test_the_log_is_a_hook_that_every_client_has(
    event: Event, name: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any hook, an event is heard and written as soon as its level is switched on."""
    hooks = Hooks()
    assert not hooks.hears(type(event))
    with caplog.at_level(level + 1, logger.name):
        assert not hooks.hears(type(event))
        hooks.tell(event)
    assert caplog.records == []
    with caplog.at_level(level, logger.name):
        assert hooks.hears(type(event))
        hooks.tell(event)
    assert [record.msg for record in caplog.records] == [name]


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_get_every_event_in_order() -> None:
    """All hooks get all events, one after another, whatever the log does."""
    told: list[tuple[str, Event]] = []
    hooks = Hooks(
        [lambda event: told.append(("a", event)), lambda event: told.append(("b", event))]
    )
    for event, *_ in EVENTS:
        assert hooks.hears(type(event))
        hooks.tell(event)
    assert told == [(hook, event) for event, *_ in EVENTS for hook in "ab"]


def test_unheard_events_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody hears, nothing is built for the log."""
    monkeypatch.setattr(events, "log_event", pytest.fail)
    Hooks().tell(EVENTS[0][0])


@pytest.mark.fault("F-106")
def test_a_hook_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged with the event's name; the other hooks still hear."""
    told: list[Event] = []

    def raises(event: Event) -> None:
        raise ZeroDivisionError

    event = TokenRefreshed(2)
    with caplog.at_level(logging.ERROR, logger.name):
        Hooks([raises, told.append]).tell(event)
    assert told == [event]
    (record,) = caplog.records
    assert (record.msg, record.levelno) == ("hook.failed", logging.ERROR)
    assert vars(record)["kokoon_event"] == "token.refreshed"
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.fault("F-113")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_passes_through(kind: type[BaseException]) -> None:
    """A hook can still be interrupted, and can end the program."""

    def ends(event: Event) -> None:
        raise kind

    with pytest.raises(kind):
        Hooks([ends]).tell(TokenRefreshed(2))


async def coroutine_hook(event: Event) -> None:
    """Do nothing, when awaited."""


class CoroutineHook:
    """An object whose calls have to be awaited; that of its class has not."""

    def __init__(self, event: Event | None = None) -> None:
        self.event = event

    async def __call__(self, event: Event) -> None:
        """Do nothing, when awaited."""


@pytest.mark.fault("F-106")
@pytest.mark.parametrize(
    "hook",
    [
        *[None, "print", 1, coroutine_hook, functools.partial(coroutine_hook)],
        *[CoroutineHook(), functools.partial(CoroutineHook()), CoroutineHook().__call__],
    ],
    ids=[
        *["none", "text", "number", "coroutine function", "partial of one"],
        *["object", "partial of an object", "method"],
    ],
)
def test_what_could_never_work_as_a_hook_is_refused(hook: Any) -> None:
    """What cannot be called, or would have to be awaited, is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="A hook must be a plain function") as caught:
        Hooks([print, hook])
    assert len(str(caught.value)) <= 500


def test_a_class_is_a_hook() -> None:
    """Calling a class makes an object, whatever a call of that object would be."""
    Hooks([CoroutineHook, functools.partial(CoroutineHook)]).tell(TokenRefreshed(2))
