"""
Every exception of the package: where it stands in the tree, how it travels, what it shows.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import kokoon_async
from kokoon_async import errors
from kokoon_async.errors import (
    ApiError,
    ConfigurationError,
    InvalidVid,
    JobError,
    KokoonError,
    RequestTimedOut,
    UnexpectedResponse,
    WaitTimedOut,
)
from kokoon_async.models import Image, ImageState, Sighting

from .canary import assert_no_secret, presigned_url


VID = "de5e9990-c0fb-11ee-961f-d12490e606ad"


def family(root: type[KokoonError]) -> Iterator[type[KokoonError]]:
    """Walk a class and all that is below it."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("kokoon_async"):
            yield from family(child)


ALL = sorted(family(KokoonError), key=lambda kind: kind.__name__)
every_class = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)

# One value, different from the default, for each field that any class has.
VALUES: dict[str, Any] = {
    "message": "It broke.",
    "hint": "Mend it.",
    "vid": VID,
    "attempts": 3,
    "status": 418,
    "server_message": "I'm a teapot",
    "field": "state",
    "excerpt": "<html>",
    "is_lasting": True,
    "is_passing": True,
    "phase": "reading the answer",
    "retry_after": 1.5,
    "image": Image(VID, ImageState("odd"), filename="a.png"),
    "history": (Sighting(ImageState.PENDING, 0.0, 1.0, 2),),
    "elapsed": 9.5,
    "path": "/tmp/job",
    "errno": 28,
}


def whole(kind: type[KokoonError]) -> KokoonError:
    """Make an error with every field set, two notes, and a field that changed later."""
    names = [field.name for field in attrs.fields(kind)]
    error = kind(**{name: VALUES[name] for name in names})
    error.attempts += 1
    error.add_note("A note.")
    error.add_note("Another.")
    return error


def drawn_tree() -> dict[str, str | None]:
    """Read the tree on top of the module: the parent of each class."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^    ([│├└─ ]*)([A-Z]\w+)  ", line):
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            parents[found[2]] = path[depth - 1] if depth else None
    return parents


# --- the tree -------------------------------------------------------------------------------------


def test_all_errors_are_here_and_public() -> None:
    """Every class is in this module, in its `__all__` and, by name, in the package."""
    names = [kind.__name__ for kind in ALL]
    assert {kind.__module__ for kind in ALL} == {errors.__name__}
    assert errors.__all__ == sorted(names)
    assert set(names) <= set(kokoon_async.__all__)


def test_the_drawn_tree_is_the_real_one() -> None:
    """What the module's docstring draws is what is inherited."""
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in ALL if kind is not KokoonError}
    assert drawn_tree() == {"KokoonError": None, **real}


@every_class
def test_each_class_says_what_it_stands_for(kind: type[KokoonError]) -> None:
    """Each class has its own docstring, and it names the fields that the class adds."""
    text = vars(kind)["__doc__"]
    assert text.strip().startswith(("Say ", "Stand "))
    inherited = {field.name for field in attrs.fields(kind) if field.inherited}
    for field in attrs.fields(kind):
        if field.name not in inherited:
            assert f"{field.name}: " in text


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        *((ConfigurationError, ValueError), (InvalidVid, ValueError)),
        *((RequestTimedOut, TimeoutError), (WaitTimedOut, TimeoutError)),
    ],
)
def test_some_are_builtin_errors_too(kind: type[KokoonError], builtin: type[Exception]) -> None:
    """Who catches the builtin error that fits catches ours."""
    with pytest.raises(builtin) as caught:
        raise kind("It broke.", hint="Mend it.", vid=VID, attempts=2)
    assert str(caught.value) == "It broke. Mend it."
    assert vars(caught.value).get("attempts") == 2


@every_class
def test_the_message_comes_first_and_nothing_is_required(kind: type[KokoonError]) -> None:
    """Any error can be made of nothing, or of a message alone."""
    assert (kind().message, str(kind())) == ("", "")
    assert str(kind("It broke.")) == "It broke."
    assert kind("It broke.").args[0] == "It broke."


# --- travelling -----------------------------------------------------------------------------------


def ways() -> Iterator[Callable[[KokoonError], KokoonError]]:
    """Give all ways in which an error may travel."""
    yield copy.copy
    yield copy.deepcopy
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))


@pytest.mark.fault("F-122")
@every_class
def test_errors_travel_whole(kind: type[KokoonError]) -> None:
    """Class, text, every field and the notes survive a copy and a pickle (E6)."""
    error = whole(kind)
    for travelled in ways():
        again = travelled(error)
        assert type(again) is kind
        assert again is not error
        assert attrs.asdict(again) == attrs.asdict(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
        assert again.__notes__ == ["A note.", "Another."]


@every_class
def test_errors_are_equal_only_to_themselves(kind: type[KokoonError]) -> None:
    """Two errors with the same fields are two errors, and both can be in a set."""
    assert whole(kind) != whole(kind)
    assert len({whole(kind), whole(kind)}) == 2


# --- what they show -------------------------------------------------------------------------------


def test_str_is_the_message_and_the_hint() -> None:
    """People read what happened and, if somebody knows, what to do next."""
    assert str(KokoonError("It broke.")) == "It broke."
    assert str(KokoonError("It broke.", hint="Mend it.")) == "It broke. Mend it."


def test_repr_names_the_fields_that_are_set() -> None:
    """Developers see class, message and all fields that are not at their default."""
    error = ApiError("It broke.", hint="Mend it.", status=418, server_message="no")
    assert repr(error) == "ApiError('It broke.', status=418, server_message='no')"


@pytest.mark.fault("F-122")
@every_class
def test_repr_is_bounded(kind: type[KokoonError]) -> None:
    """However large the fields: the repr has at most 500 characters, on one line."""
    error = whole(kind)
    error.message = "m\n" * 1_000_000
    for name, huge in {
        "server_message": "x" * 1_000_000,
        "excerpt": "\x1b" * 1_000_000,
        "path": "/" * 1_000_000,
        "errno": 28,
        "history": VALUES["history"] * 10_000,
        "image": Image(VID, ImageState("odd"), filename="x" * 1_000_000),
    }.items():
        if hasattr(error, name):
            setattr(error, name, huge)
    assert len(repr(error)) <= 500
    assert repr(error).isprintable()


@pytest.mark.fault("F-120")
@every_class
def test_errors_show_no_signature(kind: type[KokoonError]) -> None:
    """An error whose record has signed addresses shows none of them, wherever it goes."""
    error = whole(kind)
    if hasattr(error, "image"):
        error.image = Image(VID, ImageState.ERROR, url=presigned_url(), thumb_url=presigned_url())
    assert_no_secret(error)


def test_fields_of_their_own() -> None:
    """The fields that callers decide by have the documented defaults."""
    assert UnexpectedResponse().status == 0
    assert JobError(path="/tmp/job").path == "/tmp/job"
    assert WaitTimedOut().image is None
    assert WaitTimedOut().history == ()
    assert errors.RateLimited().retry_after is None
    assert errors.ServerError().retry_after is None
    assert errors.ConnectionFailed().is_lasting is False
    assert RequestTimedOut().phase == ""
