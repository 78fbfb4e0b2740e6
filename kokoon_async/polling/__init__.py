"""
When to look next: policies, and the machine that follows one wait.

Nothing here knows a network or a clock. A policy is asked after each look how long to
pause; the machine turns what a look brought into the next step of a wait. Ages and
delays are in seconds.
"""

from .costs import Cost, evaluate, preview
from .learned import Learned
from .machine import WaitMachine
from .policies import AgeProportional, Exponential, Fixed, Look, PollPolicy
from .steps import Done, Failed, LookAgain, Step


__all__ = [
    "AgeProportional",
    "Cost",
    "Done",
    "Exponential",
    "Failed",
    "Fixed",
    "Learned",
    "Look",
    "LookAgain",
    "PollPolicy",
    "Step",
    "WaitMachine",
    "evaluate",
    "preview",
]
