"""When the data file may grow, and why it may not.

    grows --fails--> as large as it gets --wait over, and space again--> grows
                            ^                       |
                            '-------- fails --------'   twice as long a wait, up to a bound

A batch that needs a slab which is not to be had is lost. So after a failure the tier counts as no larger than it is,
and blocks leave it for others to come, until there is reason to think that it would grow. The free space of
the file system is looked at; a quota and a map without a long enough run of pages show only when they are tried.
"""

from __future__ import annotations

import time
from contextlib import suppress

from kvtier.errors import TierError, TierFullError
from kvtier.tiers.environment import Environment
from kvtier.tiers.slabs import Slabs

#: How long a file that could not grow is taken for as large as it gets; after failures in a row longer.
NO_GROWTH_S = 5.0
_LONGEST_DOUBLINGS = 6


class Growth:
    """Adds slabs to a file.

    Args:
        env: The file's environment.
        slabs: Its slabs.
        min_free_bytes: The file does not grow while the file system has less than this left.
    """

    def __init__(self, env: Environment, slabs: Slabs, min_free_bytes: int) -> None:
        self._env = env
        self._slabs = slabs
        self._min_free_bytes = min_free_bytes
        self._reason: str | None = None
        self._num_failures = 0
        """In a row."""
        self._retry_at = 0.0

    @property
    def hindrance(self) -> str | None:
        """Why the file cannot grow, as far as is known; None if it may well."""
        now = time.monotonic()
        if self._reason is not None and now >= self._retry_at:
            with suppress(TierError):
                if self._has_space():
                    self._reason = None
                    return None
            self._retry_at = now + NO_GROWTH_S
        return self._reason

    def add(self, num_slots: int) -> None:
        """Add slabs for so many slots. The caller holds the environment's ``writing``, and no transaction.

        Raises:
            TierFullError: There is no room for them all.
            TierUnavailableError: The disk did not do it.
        """
        try:
            for _ in range(-(-num_slots // self._slabs.layout.slab_slots)):
                if not self._has_space():
                    raise TierFullError(
                        self._env.name,
                        f"the disk has {self._env.free_bytes} bytes left and {self._min_free_bytes} must stay free; "
                        "nothing was written",
                    )
                self._slabs.grow()
        except TierError as exc:
            self._reason = exc.reason
            self._retry_at = time.monotonic() + NO_GROWTH_S * 2 ** min(self._num_failures, _LONGEST_DOUBLINGS)
            self._num_failures += 1
            raise
        self._reason = None
        self._num_failures = 0

    def _has_space(self) -> bool:
        """Whether the file system has room for a slab."""
        return self._env.free_bytes - self._slabs.layout.slab_bytes >= self._min_free_bytes
