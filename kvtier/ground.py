"""Loading a prefix from its end while it is computed from its beginning, until both meet.

    tokens    0 ......................................... n
    compute   --->  ->  ->            |
                                      | <- <- <-- <------   load

Keys and values of a token need those of all tokens before it, so only loading can begin at the
end; blocks do not overlap, so both may write into one buffer at once. ``Ground`` says who does
what next. Each side asks for a piece, and gets one that ends before they are predicted to meet:

* most of the way (computing) or a part of it (loading), so that what is left when predictions
  were wrong is small. A forward pass costs much even for one token, a request to a tier little;
* nothing, if the other side alone would be done as soon, but for some hundredths. Then only one side
  works, in one go.

Everything here is decided from numbers given; ``kvtier.integrations.meeting`` does the work.

Source: Jin et al., "Compute Or Load KV Cache? Why Not Both?", 2024 (Cake).
Differs from the paper: pieces are sized by measured rates, and each side leaves to the other what
that one will have sooner, so that doing both costs hardly more than the better side alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

Seconds = Callable[[int, int], float | None]
"""Predicted seconds for units ``start`` to ``stop``; None while nothing is known."""

#: A piece to compute, and a window to load, are this share of the way to where both are predicted to meet.
_PIECE_SHARE = 0.8
_WINDOW_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Piece:
    """Units to compute."""

    start: int
    stop: int


class Ground:
    """Who has which unit of a prefix, and who does what next.

    A unit is the least that can be reused: a block, or a chunk where computing is bound to
    chunks. Loading claims windows from the end, computing claims pieces from the beginning;
    what one side has claimed the other leaves alone. A window that cannot be loaded is left for
    computing, and what was loaded behind it is used all the same. Not locked.

    Args:
        num_units: Units the store is said to hold.
        compute_s: See ``Seconds``; as long as loading goes on.
        load_s: Likewise, as long as computing goes on.
        start: Units already in place at the beginning.
        least_s: To gain less is not worth a piece, and pieces that take less are not worth asking for one by one.
        single: Compute one unit at a time.
    """

    def __init__(
        self,
        num_units: int,
        compute_s: Seconds,
        load_s: Seconds,
        *,
        start: int = 0,
        least_s: float = 0.0,
        single: bool = False,
    ) -> None:
        self.num_units = num_units
        self.front = start
        """Units in place from the beginning, or being computed."""
        self.back = num_units
        """Units from here on are in place, being loaded, or could not be loaded."""
        self.loaded: set[int] = set()
        self.loading = True
        """Whether windows may still be claimed or arrive."""
        self._compute_s, self._load_s = compute_s, load_s
        self._least_s = least_s
        self._single = single
        self._window: tuple[int, int] | None = None
        self._alone = False

    def next_window(self) -> tuple[int, int] | None:
        """Claim units to load; None ends loading for good."""
        assert self._window is None, "one window at a time"
        count = self._window_units() if self.loading else 0
        if not count:
            self.loading = False
            return None
        self._window = (self.back - count, self.back)
        self.back -= count
        return self._window

    def arrived(self, num_units: int) -> None:
        """The leading units of the window claimed last are in place; the rest could not be loaded."""
        assert self._window is not None
        start = self._window[0]
        self.loaded.update(range(start, start + num_units))
        self._window = None

    def stop(self) -> None:
        """Give no more windows; one that was claimed may still arrive."""
        self.loading = False

    def give_up(self) -> None:
        """Loading has ended; a window that was claimed did not arrive."""
        self.loading = False
        self._window = None

    def next_piece(self) -> Piece | Literal["wait", "done"]:
        """Claim units to compute.

        Returns:
            A piece; its predecessors are in place. ``"wait"``: ask again when a window has
            arrived or loading has ended. ``"done"``: from ``front`` on nothing is in place, and
            nothing will be.
        """
        self._skip_loaded()
        if not self.loading and self._window is None:
            stop = min((unit for unit in self.loaded if unit > self.front), default=None)
            return "done" if stop is None else self._take(stop - self.front)
        count = self._piece_units() if self.front < self.back else 0
        return self._take(count) if count else "wait"

    def _skip_loaded(self) -> None:
        while self.front in self.loaded:
            self.front += 1

    def _take(self, count: int) -> Piece:
        piece = Piece(self.front, self.front + count)
        self.front += count
        return piece

    def _piece_units(self) -> int:
        """How much to compute before asking again; 0 if that would gain next to nothing."""
        rest, unit = self._load_s(self.front, self.back), self._compute_s(self.front, self.front + 1)
        if rest is None or unit is None:
            return 1
        meeting, until = self._meeting()
        self._alone = rest - until <= self._least_s
        if self._alone:
            return 0
        if self._single:
            return 1
        enough = _most(self.back - self.front, lambda n: self._compute_s(self.front, self.front + n), self._least_s)
        return max(enough, int(_PIECE_SHARE * (meeting - self.front)))

    def _window_units(self) -> int:
        """How much to load before asking again; 0 if that would gain next to nothing."""
        left = self.back - self.front
        if left <= 0 or self._alone:
            return max(0, left)
        rest, unit = self._compute_s(self.front, self.back), self._load_s(self.back - 1, self.back)
        if rest is None or unit is None:
            return 1
        meeting, until = self._meeting()
        if rest - until <= self._least_s:
            return 0
        enough = _most(left, lambda n: self._load_s(self.back - n, self.back), self._least_s)
        return max(enough, int(_WINDOW_SHARE * (self.back - meeting)))

    def _meeting(self) -> tuple[int, float]:
        """The unit at which both would meet if each did its part in one go, and the seconds until then."""

        def computing(at: int) -> float:
            return (self._compute_s(self.front, at) or 0.0) if at > self.front else 0.0

        def loading(at: int) -> float:
            return (self._load_s(at, self.back) or 0.0) if at < self.back else 0.0

        low, high = self.front, self.back
        while low < high:  # to the first unit at which computing up to it takes as long as loading the rest
            middle = (low + high) // 2
            low, high = (low, middle) if computing(middle) >= loading(middle) else (middle + 1, high)
        return min(((at, max(computing(at), loading(at))) for at in (low, max(self.front, low - 1))), key=itemgetter(1))


def _most(limit: int, seconds: Callable[[int], float | None], aim: float) -> int:
    """The largest count up to ``limit`` that takes at most ``aim`` seconds, at least 1."""
    low, high = 1, limit
    while low < high:
        middle = (low + high + 1) // 2
        if (seconds(middle) or 0.0) <= aim:
            low = middle
        else:
            high = middle - 1
    return low


def meeting_s(ground: Ground, compute_s: Seconds, load_s: Seconds) -> float:
    """Seconds until there is nothing to claim, played through with predictions; uses the ground up.

    What is left then, from ``ground.front`` on, is not counted.

    Args:
        ground: As both sides would find it.
        compute_s: What a piece takes while loading goes on.
        load_s: What a window takes while computing goes on.
    """
    now = arrival = 0.0
    busy_until: float | None = None
    window: tuple[int, int] | None = None
    while True:
        if busy_until is None or busy_until <= now:
            step = ground.next_piece()
            if step == "done":
                return now
            busy_until = None if step == "wait" else now + (compute_s(step.start, step.stop) or 0.0)
        if window is None and (window := ground.next_window()) is not None:
            arrival = now + (load_s(*window) or 0.0)
        if window is not None and (busy_until is None or arrival <= busy_until):
            now = arrival
            ground.arrived(window[1] - window[0])
            window = None
        elif busy_until is not None:
            now = busy_until
