"""Prefill time against length, from a few measured lengths.

    T(n) = c + a n + b n^2 + residual(n)

The quadratic is what a transformer does: c for launching a pass, a per token for the weights, b
per pair for attention. It is fitted to relative errors, with no coefficient below zero, and what it
misses at the measured lengths is put back by linear interpolation: the curve goes through every
point, is exact between them where the machine is quadratic, and goes on as the fit beyond them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

Coefficients = tuple[float, float, float]


class PrefillCurve:
    """Seconds of a prefill by number of tokens.

    Args:
        tokens: Lengths measured, rising, all at least 1.
        seconds: Time of each, never falling, all above 0.

    Example:
        >>> curve = PrefillCurve([1024, 2048, 4096], [1.0, 2.1, 4.6])
        >>> round(curve.from_nothing(2048), 3)
        2.1
    """

    def __init__(self, tokens: Sequence[int], seconds: Sequence[float]) -> None:
        assert all(a < b for a, b in pairwise(tokens)), tokens
        self._tokens = tuple(tokens)
        self.coefficients = fit(tokens, seconds)
        self._residuals = tuple(s - self._fitted(n) for n, s in zip(tokens, seconds, strict=True))

    def from_nothing(self, num_tokens: int) -> float:
        """Seconds of a pass over a whole prompt; 0 for none."""
        if num_tokens < 1:
            return 0.0
        return max(0.0, self._fitted(num_tokens) + interpolate(num_tokens, self._tokens, self._residuals))

    def span(self, start_tokens: int, stop_tokens: int) -> float:
        """Seconds of a pass over the tokens from ``start`` up to ``stop``, all before being cached.

        The launch of the pass is paid by a rest as well as by a whole prompt.
        """
        if stop_tokens <= start_tokens:
            return 0.0
        whole = self.from_nothing(stop_tokens)
        if start_tokens == 0:
            return whole
        return max(0.0, whole - self.from_nothing(start_tokens)) + self.coefficients[0]

    def _fitted(self, num_tokens: int) -> float:
        c, a, b = self.coefficients
        return c + a * num_tokens + b * num_tokens * num_tokens


def interpolate(at: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear between the points, constant beyond them.

    Example:
        >>> interpolate(15, [10, 20], [1.0, 2.0]), interpolate(99, [10, 20], [1.0, 2.0])
        (1.5, 2.0)
    """
    right = bisect_right(xs, at)
    if right == 0:
        return ys[0]
    if right == len(xs):
        return ys[-1]
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def fit(tokens: Sequence[int], seconds: Sequence[float]) -> Coefficients:
    """The c, a, b of at least 0 with the smallest squared relative error.

    All choices of which are zero are tried: seven small systems are solved exactly, where an iterative
    solver would need a tolerance.

    Example:
        >>> [round(x, 6) for x in fit([1000, 2000, 4000], [1.0, 2.0, 4.0])]
        [0.0, 0.001, 0.0]
    """
    n, t = np.asarray(tokens, dtype=float), np.asarray(seconds, dtype=float)
    columns = np.stack([np.ones_like(n), n, n * n], axis=1) / t[:, None]
    best, smallest = (0.0, 0.0, 0.0), np.inf
    # Few coefficients first: a larger set must be better by more than rounding.
    for size in range(1, min(3, len(n)) + 1):
        for chosen in combinations((1, 2, 0), size):
            found, *_ = np.linalg.lstsq(columns[:, chosen] / (scale := columns[:, chosen].max(axis=0)), np.ones_like(n))
            error = float(((columns[:, chosen] / scale) @ found - 1) @ ((columns[:, chosen] / scale) @ found - 1))
            if (found >= 0).all() and error < smallest - 1e-12:
                smallest = error
                values = dict(zip(chosen, found / scale, strict=True))
                best = tuple(float(values.get(k, 0.0)) for k in range(3))  # type: ignore[assignment]
    return best
