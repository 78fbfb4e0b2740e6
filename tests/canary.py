"""
A token and a signature that may be seen nowhere, and the means to look everywhere.

Tests use `CANARY_TOKEN` as their token and `CANARY_SIGNATURE` in presigned URLs. After every test
conftest.py looks for them in what was logged, warned and printed; a test itself calls
`assert_no_secret` with any exception or object that a user could get hold of.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import logging
import os
import pickle
import traceback
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import pytest


# Like the vendor's: header, payload and signature of a JWT, without a "Bearer".
CANARY_TOKEN = (
    "eyJraWQiOiJray1jYW5hcnktN2YzZTkxIiwiYWxnIjoiUlMyNTYifQ"
    ".eyJzdWIiOiJjYW5hcnktZDQxYy10b2tlbi1uZXZlci1wcmludCIsImlhdCI6MTc2NzIyNTYwMH0"
    ".FLrK82vd0PmXf9NwxF_ciTj9Wuy3sbVYX41NQC7DZLM8bo1h0xmk4rV508qcWnLut4NljmaA75K6mAoTXG1pOk"
)

# The value of X-Amz-Signature in a presigned URL.
CANARY_SIGNATURE = "6f3ace4d229e6216da78334ba09f12f8ed7f443c17cb52dda91548497f4023a8"

# The only frames whose locals count in a traceback: a test's own hold the canary by right.
LIBRARIES = ("kokoon_async", "aiohttp")

# A leak is rarely whole: an excerpt of 23 characters is sure to hold one of these. The token's
# first piece is left out since other tokens may begin like it.
_PIECE = 12
_PIECES = tuple(
    secret[start : start + _PIECE]
    for secret, first in ((CANARY_TOKEN, _PIECE), (CANARY_SIGNATURE, 0))
    for start in range(first, len(secret) - _PIECE + 1, _PIECE)
)

_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({})))


class SecretLeaked(AssertionError):
    """A canary was found where it must not be."""


def presigned_url(path: str = "/video/canary/original.png") -> str:
    """Return a URL as S3 would presign it, with the canary as its signature."""
    return (
        f"https://sr-inner-api-storage-local.s3.amazonaws.com{path}"
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
        f"&X-Amz-Signature={CANARY_SIGNATURE}"
    )


def contains_secret(text: str | bytes) -> bool:
    """Tell whether *text* holds a canary or a longer piece of one."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return any(piece in text for piece in _PIECES)


def assert_no_secret(obj: object, *, ignoring: Collection[str] = ()) -> None:
    """
    Fail if a canary shows in *obj*, however it is looked at.

    Args:
        obj: An exception, any other object, text or bytes.

        ignoring: Names of sinks that may hold it, see `secret_sinks`; say why in the test.

    Raises:
        SecretLeaked: It does; the message names the sinks and prints none of them.
    """
    sinks = secret_sinks(obj)
    leaks = [
        name
        for name, text in sinks.items()
        if contains_secret(text) and name.rpartition(": ")[2] not in ignoring
    ]
    if leaks:
        raise SecretLeaked(f"{type(obj).__name__} shows a secret in: {', '.join(leaks)}")


def secret_sinks(obj: object) -> dict[str, str]:
    """
    Render *obj* in all ways in which it could come into view.

    They are "str", "repr", "format", "vars", "pickle", "copy" and "asdict"; of an exception also
    "args", "notes" and "traceback" with the locals of library frames, and all of them again for
    each cause, context and member of a group, as "__cause__: str" and so on.
    """
    if isinstance(obj, (str, bytes)):
        return {"itself": obj if isinstance(obj, str) else obj.decode("latin-1")}
    sinks: dict[str, str] = {}
    for prefix, found in _family(obj):
        sinks.update({prefix + name: text for name, text in _renderings(found).items()})
    return sinks


def _family(obj: object) -> Iterator[tuple[str, object]]:
    seen: set[int] = set()
    queue: list[tuple[str, object]] = [("", obj)]
    while queue:
        prefix, found = queue.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield prefix, found
        if isinstance(found, BaseException):
            queue.append((prefix + "__cause__: ", found.__cause__))
            queue.append((prefix + "__context__: ", found.__context__))
        if isinstance(found, BaseExceptionGroup):
            queue += [(f"{prefix}[{n}]: ", error) for n, error in enumerate(found.exceptions)]


def _renderings(obj: Any) -> dict[str, str]:
    sinks = {"str": str(obj), "repr": repr(obj), "format": f"{obj}", "vars": _vars(obj)}
    with contextlib.suppress(Exception):  # many objects cannot be pickled, which is no leak
        sinks["pickle"] = pickle.dumps(obj).decode("latin-1")
    with contextlib.suppress(Exception):
        twin = copy.copy(obj)
        sinks["copy"] = f"{twin} {twin!r} {_vars(twin)}"
    if attrs.has(type(obj)):
        sinks["asdict"] = repr(attrs.asdict(obj))
    if isinstance(obj, BaseException):
        sinks["args"] = f"{obj.args} {[str(arg) for arg in obj.args]}"
        sinks["notes"] = str(getattr(obj, "__notes__", ""))
        sinks["traceback"] = _format(obj)
    return sinks


def _vars(obj: object) -> str:
    slots = {
        name: getattr(obj, name, None)
        for base in type(obj).__mro__
        for name in getattr(base, "__slots__", ())
        if name != "__weakref__"
    }
    return repr({**slots, **getattr(obj, "__dict__", {})})


def _format(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)
    frames = _library_frames(error.__traceback__)
    lines += traceback.StackSummary.extract(frames, capture_locals=True).format()
    return "".join(lines)


def _library_frames(tb: TracebackType | None) -> Iterator[tuple[Any, int]]:
    for frame, line in traceback.walk_tb(tb):
        if frame.f_code.co_filename.startswith(_library_folders()):
            yield frame, line


@functools.cache
def _library_folders() -> tuple[str, ...]:
    specs = [importlib.util.find_spec(library) for library in LIBRARIES]
    return tuple(
        f"{Path(folder)}{os.sep}"
        for spec in specs
        if spec is not None
        for folder in spec.submodule_search_locations or ()
    )


@attrs.define
class CanaryWatch:
    """
    What one test logged, warned about and printed.

    Attributes:
        seen: Where something came from, and its text.
    """

    seen: list[tuple[str, str]] = attrs.field(factory=list)

    def add(self, source: str, text: str) -> None:
        """Remember *text* only if it holds a canary: a test may log a lot."""
        if contains_secret(text):
            self.seen.append((source, text))

    def check(self) -> None:
        """
        Fail if a canary was seen.

        Raises:
            SecretLeaked: It was; the message names the places.
        """
        if self.seen:
            raise SecretLeaked(f"a secret was seen in: {', '.join(name for name, _ in self.seen)}")


class _RecordScanner(logging.Handler):
    def __init__(self, watch: CanaryWatch) -> None:
        super().__init__(level=logging.NOTSET)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN_RECORD}
        parts = [self.format(record), record.msg, record.args, record.exc_text, extra]
        if record.exc_info and record.exc_info[1]:
            parts += secret_sinks(record.exc_info[1]).values()
        strings = [str(value) for value in extra.values()]
        self._watch.add(f"log record of {record.name}", f"{parts} {strings}")


@contextlib.contextmanager
def watching() -> Iterator[CanaryWatch]:
    """
    Watch what is logged, at every level, what is warned about and what tests read from capsys.

    The root logger's level is lowered meanwhile, so a logger without a level of its own is on.
    """
    watch = CanaryWatch()
    root = logging.getLogger()
    level, handler = root.level, _RecordScanner(watch)
    show = warnings.showwarning
    read = pytest.CaptureFixture.readouterr

    def watched_show(message: Warning | str, *args: Any, **options: Any) -> None:
        watch.add("a warning", f"{message} {message!r}")
        show(message, *args, **options)

    def watched_read(fixture: pytest.CaptureFixture[Any]) -> Any:
        captured = read(fixture)
        watch.add("captured output", f"{captured.out}{captured.err}")
        return captured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", watched_show)
        patch.setattr(pytest.CaptureFixture, "readouterr", watched_read)
        root.addHandler(handler)
        root.setLevel(logging.NOTSET)
        try:
            yield watch
        finally:
            root.setLevel(level)
            root.removeHandler(handler)


def check_report(report: pytest.TestReport) -> None:
    """Turn the *report* of a test's last phase into a failure if a canary was printed."""
    leaks = [name for name, text in report.sections if contains_secret(text)]
    if leaks:
        report.outcome = "failed"
        report.longrepr = f"{SecretLeaked.__name__}: a secret is in: {', '.join(leaks)}"
