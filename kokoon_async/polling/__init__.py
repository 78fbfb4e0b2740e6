"""
When to look next: policies, and the machine that follows one wait.

Nothing here knows a network or a clock. A policy is asked after each look how long to
pause; the machine turns what a look brought into the next step of a wait. Ages and
delays are in seconds.
"""

from .machine import Done, Failed, LookAgain, Step, WaitMachine
from .policies import AgeProportional, Exponential, Fixed, Look, PollPolicy


__all__ = [
    "AgeProportional",
    "Done",
    "Exponential",
    "Failed",
    "Fixed",
    "Look",
    "LookAgain",
    "PollPolicy",
    "Step",
    "WaitMachine",
]
