"""
What waits teach, kept in a file from one run to the next: the option ``--learn``.

The file is read, and its folder tried, before anything is sent. It is replaced whole at the
end: of several processes the last one wins, and none ever reads half a file.
"""

import os
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import attrs
import click

from kokoon_async import ConfigurationError, Learned

from ._process import IO_FAILED, Signals, complain
from ._show import short


__all__ = ["LearnedFile"]

_OPTION = "--learn"
_ASIDE = ".kokoon-learn-"
_MOST_BYTES = 1 << 20  # a hundred times what the file takes


@attrs.frozen
class LearnedFile:
    """
    A policy, and the file that it is kept in.

    Attributes:
        path: The file itself, if the user named a link to it; ``None`` for no file.

        policy: What was in the file, and what is learned meanwhile.
    """

    path: Path | None
    policy: Learned
    _observed: int = attrs.field(init=False)

    @_observed.default
    def _observed_before(self) -> int:
        return self.policy.observed

    @classmethod
    def open(cls, name: str | None) -> Self:
        """
        Read a file, which need not exist yet, and see that it can be replaced.

        Raises:
            click.BadParameter: If it is something else, or its folder takes no file.
        """
        if name is None:
            return cls(None, Learned())
        path = Path(os.path.realpath(name))
        try:
            policy = _read(path)
            with tempfile.NamedTemporaryFile(prefix=_ASIDE, dir=path.parent):
                pass  # so there can be one beside it at the end, too
        except OSError as error:
            raise _refused(f"cannot use {short(name)}: {error.strerror}.") from None
        except ValueError:  # not UTF-8, or not what Learned writes
            raise _refused(
                f"{short(name)} is not what {_OPTION} of this version writes; it was left as it is."
                " Name another file: if it does not exist, it is made."
            ) from None
        return cls(path, policy)

    def run(self, signals: Signals, work: Coroutine[Any, Any, int]) -> int:
        """
        Run *work* to its end, whatever that is, and then write down what was learned.

        Returns:
            The exit code: that of the work, unless only the writing failed.
        """
        signals.last_deed = self._save
        try:
            code = signals.run(work)
        finally:
            try:
                is_kept = self._save()
            finally:
                signals.last_deed = None
        return code if is_kept else code or IO_FAILED

    def _save(self) -> bool:
        """Replace the file, if there is anything new to write, and tell whether that went well."""
        if self.path is None:
            return True
        if self.policy.observed == self._observed and self.path.exists():
            return True  # rather than undo what another process has learned meanwhile
        try:
            _replace(self.path, self.policy.to_json())
        except OSError as error:
            complain(
                f"kokoon-async: cannot write what was learned to {short(self.path)}:"
                f" {error.strerror}."
            )
            return False
        return True


def _read(path: Path) -> Learned:
    if not path.exists():
        return Learned()
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise ConfigurationError("A folder, a device or a picture.")
    return Learned.from_json(path.read_text("utf-8"))


def _replace(path: Path, text: str) -> None:
    """Write a file that only this user can read, aside, and put it in the place of *path*."""
    descriptor, aside = tempfile.mkstemp(prefix=_ASIDE, dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            os.fsync(descriptor)  # or a power failure might leave an empty file
        Path(aside).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(aside).unlink()
        raise


def _refused(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=_OPTION)
