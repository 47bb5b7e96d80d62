"""Context policies by name, as a command line or a settings file has them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from kvtier.context.base import Bounded, ContextPolicy
from kvtier.context.lasting import CheapestLive, LongestLive
from kvtier.context.limits import AppendOnly, ChunkedDrop, Hysteresis, SlidingWindow, TrimWhenExpired
from kvtier.context.prices import Prices
from kvtier.errors import ConfigError

POLICIES = ("append", "sliding", "hysteresis", "chunked", "expired", "longest", "cheapest")
"""Names that ``make_policy`` knows, simplest first."""


def make_policy(
    name: str, high_tokens: int, low_tokens: int, prices: Prices, *, first_roles: Collection[str] | None = None
) -> ContextPolicy:
    """A new policy for one chat.

    Args:
        name: One of ``POLICIES``. ``"chunked"`` drops ``high_tokens - low_tokens`` at a time.
        high_tokens: H.
        low_tokens: L.
        prices: What ``"cheapest"`` goes by.
        first_roles: See ``Chat``.

    Raises:
        ConfigError: No such policy, or limits that it cannot have.

    Example:
        >>> type(make_policy("hysteresis", 32_000, 16_000, Prices(write=1.25, read=0.1))).__name__
        'Hysteresis'
    """
    Bounded(high_tokens, low_tokens)  # not every policy looks at both
    roles: dict[str, Any] = {"first_roles": first_roles}
    both = {"high_tokens": high_tokens, "low_tokens": low_tokens, **roles}
    makers: dict[str, Callable[[], ContextPolicy]] = {
        "append": AppendOnly,
        "sliding": partial(SlidingWindow, high_tokens, **roles),
        "hysteresis": partial(Hysteresis, **both),
        "chunked": partial(ChunkedDrop, high_tokens, max(1, high_tokens - low_tokens), **roles),
        "expired": partial(TrimWhenExpired, **both),
        "longest": partial(LongestLive, **both),
        "cheapest": partial(CheapestLive, **both, prices=prices),
    }
    if name not in makers:
        near = difflib.get_close_matches(name, POLICIES, n=2)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(POLICIES)}"
        raise ConfigError(f"{name!r} is not a context policy; {meant}")
    return makers[name]()
