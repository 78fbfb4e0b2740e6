"""What comes next in a wait: another look, or its end."""

import attrs

from ..errors import KokoonError
from ..models import Image


__all__ = ["Done", "Failed", "LookAgain", "Step"]


@attrs.frozen
class LookAgain:
    """
    Go on waiting.

    Attributes:
        delay: Seconds from now to the next look.

        reason: Why then: ``policy``, ``backoff``, ``hint``, ``grace`` or ``deadline``.
    """

    delay: float
    reason: str


@attrs.frozen
class Done:
    """
    End a wait well.

    Attributes:
        image: Completed.
    """

    image: Image


@attrs.frozen
class Failed:
    """
    End a wait with an error.

    Attributes:
        error: What the waiting caller gets.
    """

    error: KokoonError


Step = LookAgain | Done | Failed
