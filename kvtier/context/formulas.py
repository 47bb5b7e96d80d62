"""What trimming costs in the long run, by formula.

Symbols, all in tokens, prices in units of an uncached input token:

    S head   H high limit   L low limit   m added by a turn   new: of those, uncached at the next turn
    w price of a token that is not cached   r of one that is

    sliding      r*S + w*(H - S)
    hysteresis   w*new + (w - r)*(L - S)*m/(H - L) + r*(L + H)/2
                 the turn's own text; the cold turn, once every (H - L)/m turns; reading what is kept
    chunked      hysteresis with L = H - G

``new`` is the user's text alone where the engine keeps the KV of its replies, else the reply too. All are
input costs a turn, once the limit has been reached, if no gap outlasts the cache.

Source: these formulas agree with ``kvtier.sim.chat`` to 1 %, which a test checks.
"""

from __future__ import annotations

import math
from itertools import pairwise

from kvtier.context.prices import Prices
from kvtier.errors import ConfigError


def append_only_cost(*, tokens: float, new_tokens: float, prices: Prices) -> float:
    """Cost of a turn that sends the whole chat, ``tokens`` long.

    Example:
        >>> round(append_only_cost(tokens=101_850, new_tokens=100, prices=Prices(write=1.25, read=0.1)))
        10300
    """
    _check(tokens=tokens, new_tokens=new_tokens)
    return prices.read * (tokens - new_tokens) + prices.write * new_tokens


def sliding_cost(*, head_tokens: float, high_tokens: float, prices: Prices) -> float:
    """Cost of a turn under a sliding window that is full: all but the head is computed again.

    Example:
        >>> sliding_cost(head_tokens=2_000, high_tokens=32_000, prices=Prices(write=1.25, read=0.1))
        37700.0
    """
    _check_order(head_tokens=head_tokens, high_tokens=high_tokens)
    return prices.read * head_tokens + prices.write * (high_tokens - head_tokens)


def hysteresis_cost(
    *,
    head_tokens: float,
    low_tokens: float,
    high_tokens: float,
    turn_tokens: float,
    new_tokens: float,
    prices: Prices,
) -> float:
    """Cost of a turn under hysteresis, on average over its teeth.

    Example:
        >>> settings = dict(head_tokens=2_000, low_tokens=16_000, high_tokens=32_000, turn_tokens=500)
        >>> prices = Prices(write=1.25, read=0.1)
        >>> round(hysteresis_cost(**settings, new_tokens=100, prices=prices))
        3028
        >>> round(hysteresis_cost(**settings, new_tokens=500, prices=prices))
        3528

    Leaves out:
        The newest text is counted as read too, not as written alone: r * new more than a simulation gives.
        Messages do not end on the limits, so the real teeth are a little smaller than H - L.
    """
    _check(turn_tokens=turn_tokens, new_tokens=new_tokens)
    _check_order(head_tokens=head_tokens, low_tokens=low_tokens, high_tokens=high_tokens)
    again = (prices.write - prices.read) * (low_tokens - head_tokens) * turn_tokens / (high_tokens - low_tokens)
    return prices.write * new_tokens + again + prices.read * (low_tokens + high_tokens) / 2


def chunked_cost(
    *,
    head_tokens: float,
    chunk_tokens: float,
    high_tokens: float,
    turn_tokens: float,
    new_tokens: float,
    prices: Prices,
) -> float:
    """Cost of a turn under a chunked drop: hysteresis with L = H - G.

    Example:
        >>> settings = dict(head_tokens=2_000, chunk_tokens=16_000, high_tokens=32_000, turn_tokens=500)
        >>> round(chunked_cost(**settings, new_tokens=100, prices=Prices(write=1.25, read=0.1)))
        3028
    """
    return hysteresis_cost(
        head_tokens=head_tokens,
        low_tokens=high_tokens - chunk_tokens,
        high_tokens=high_tokens,
        turn_tokens=turn_tokens,
        new_tokens=new_tokens,
        prices=prices,
    )


def optimal_gap_tokens(
    *, head_tokens: float, high_tokens: float, turn_tokens: float, value: float, prices: Prices
) -> float:
    """The best H - L if a token of context is worth ``value`` a turn, in the prices' unit.

    The cost of hysteresis only falls with L, so without a value the best is to keep nothing. With one, the
    gap is where its gain on keeping more, (v - r)/2, equals what more cold turns cost.

    Returns:
        sqrt(2 * (w - r) * m * (H - S) / (v - r)), at most H - S, which is also the answer for v <= r.

    Example:
        >>> settings = dict(head_tokens=2_000, high_tokens=32_000, turn_tokens=500)
        >>> prices = Prices(write=1.25, read=0.1)
        >>> round(optimal_gap_tokens(**settings, value=0.4, prices=prices))
        10724
        >>> optimal_gap_tokens(**settings, value=0.1, prices=prices)
        30000
    """
    _check(turn_tokens=turn_tokens, value=value)
    _check_order(head_tokens=head_tokens, high_tokens=high_tokens)
    widest = high_tokens - head_tokens
    if value <= prices.read:
        return widest
    again = (prices.write - prices.read) * turn_tokens * widest
    return min(widest, math.sqrt(2 * again / (value - prices.read)))


def payback_turns(*, head_tokens: float, low_tokens: float, tokens: float, prices: Prices) -> float:
    """Turns after which a cut from ``tokens`` to the low limit has paid for its cold turn.

    Returns:
        (w - r) * (L - S) / (r * (n - L)); infinite if reading is free. Cheaper reads argue for a later cut.

    Example:
        >>> limits = dict(head_tokens=2_000, low_tokens=16_000, tokens=32_000)
        >>> round(payback_turns(**limits, prices=Prices(write=1.25, read=0.1)))
        10
        >>> round(payback_turns(**limits, prices=Prices(write=1.25, read=0.02)))
        54
    """
    _check_order(head_tokens=head_tokens, low_tokens=low_tokens, tokens=tokens)
    saved = prices.read * (tokens - low_tokens)
    return (prices.write - prices.read) * (low_tokens - head_tokens) / saved if saved else math.inf


def idle_cost(*, tokens: float, idle_share: float, prices: Prices) -> float:
    """What turns that come after the cache has expired add to the mean turn: q * (w - r) * n.

    Example:
        >>> round(idle_cost(tokens=24_000, idle_share=0.1, prices=Prices(write=1.25, read=0.1)))
        2760
    """
    _check(tokens=tokens)
    if not 0 <= idle_share <= 1:
        raise ConfigError(f"idle_share must be from 0 to 1, got {idle_share!r}")
    return idle_share * (prices.write - prices.read) * tokens


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            raise ConfigError(f"{name} must be a number of at least 0, got {number!r}")


def _check_order(**limits: float) -> None:
    """Each limit must be above the one before it; the head may be as long as what comes after it."""
    _check(**limits)
    for lower, upper in pairwise(limits):
        if limits[lower] > limits[upper] or (limits[lower] == limits[upper] and lower != "head_tokens"):
            raise ConfigError(f"{lower}, {limits[lower]:,g}, must be below {upper}, {limits[upper]:,g}")
