"""Whether a tier is asked: after two failures in a row not for a while, then once, and so on.

    works --fails--> degraded --wait over--> one try --works--> works
                        ^                       |
                        '------- fails ---------'   twice as long a wait, up to a bound; the first wait is none

A disk that is full, read-only or gone fails every call, and each may take long to fail. So nobody waits
for it: what it holds is a miss, what should sink to it is dropped, and it comes back by itself when
the cause is gone. Reading and writing fail apart: a full disk can still be read.

Source: the circuit breaker of M. Nygard, Release It! (2007).
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0


@dataclass(slots=True)
class Breaker:
    """What is known of one kind of call to one tier."""

    reason: str | None = None
    """Why the last call failed; None if it did not."""

    num_failures: int = 0
    """In a row, those at one time counted once."""

    retry_at: float = 0.0

    @property
    def works(self) -> bool:
        """The last call did not fail."""
        return self.reason is None

    def failed(self, reason: str, now: float) -> None:
        """A call failed at ``now``, in seconds on any clock that only goes forward."""
        if self.reason is None or now >= self.retry_at:  # else others failed at the same time
            doublings = min(self.num_failures - 1, 20)
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**doublings) if self.num_failures else 0.0
            self.retry_at = now + wait_s
            self.num_failures += 1
        self.reason = reason

    def worked(self) -> None:
        """A call did not fail."""
        self.reason = None
        self.num_failures = 0

    def may_try(self, now: float) -> bool:
        """Whether the tier is asked at ``now``."""
        return self.reason is None or now >= self.retry_at
