"""Synthetic traces: sessions of turns, begun at random and merged by time, without any download.

    sessions arrive (Poisson)  ─►  pieces that others begin with too, then turns with waits between them
                                                 merged by time  ─►  requests

A prompt here is a length and where its text comes from: two share blocks exactly as far as they are made of the
same pieces. Whole blocks only are named, as in the store. ``kvtier.sim.workloads`` says which sessions there are.

A session draws from a generator of its own, seeded by the workload's seed and the session's number: the same
parameters give the same trace, and a longer trace begins with the shorter one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from heapq import heappop, heappush
from itertools import chain, count
from random import Random
from typing import ClassVar, NamedTuple

from kvtier.errors import ConfigError
from kvtier.sim.lines import MAX_PROMPT_BLOCKS
from kvtier.sim.trace import Request

_MOST = 10**6
_MOST_OF = {"requests": 10**12, "seed": 2**64}
_MOST_TIMES_MEAN = 20
_SIGMA = 0.8


class Piece(NamedTuple):
    """Text that sessions begin with."""

    key: str
    """Equal keys are equal texts."""

    tokens: int


class Turn(NamedTuple):
    """One request of a session."""

    wait_s: float
    """Since the one before it."""

    new_tokens: int
    """What the user or a tool says; after the pieces, or after all that was said before."""

    output_tokens: int
    fresh: bool = False
    """It goes back to the session's pieces and leaves out what was said after them."""


class Session(NamedTuple):
    """What one user, agent or document brings."""

    pieces: Sequence[Piece]
    turns: Iterator[Turn]
    """At least one."""


class Draw:
    """Random quantities, all made from ``Random.random``, whose values no release of Python changes."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self._random = Random(seed).random  # noqa: S311  (to be had again, not to be unpredictable)

    def tokens(self, mean: float) -> int:
        """A length: log-normal, at least 1 and at most 20 times the mean."""
        normal = math.sqrt(-2 * math.log(1 - self._random())) * math.cos(2 * math.pi * self._random())
        return max(1, round(mean * min(math.exp(_SIGMA * normal - _SIGMA**2 / 2), _MOST_TIMES_MEAN)))

    def wait_s(self, mean_s: float) -> float:
        """A wait: exponential."""
        return -mean_s * math.log(1 - self._random())

    def number(self, mean: float) -> int:
        """A count from 1 on: geometric."""
        return 1 if mean <= 1 else 1 + int(math.log(1 - self._random()) / math.log(1 - 1 / mean))

    def rank(self, cumulative: Sequence[float]) -> int:
        """An index, by the sums of all weights up to each."""
        return min(bisect(cumulative, self._random() * cumulative[-1]), len(cumulative) - 1)


class _Text(NamedTuple):
    """A prompt so far."""

    tokens: int
    ids: tuple[range, ...]
    """Of its whole blocks."""


class _Texts:
    """The texts of one going through, their blocks numbered as they come."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._next = 0
        self._shared: dict[tuple[str, ...], _Text] = {}

    def beginning(self, pieces: Sequence[Piece]) -> _Text:
        """The text that some pieces make, the same each time."""
        text = _Text(0, ())
        keys: tuple[str, ...] = ()
        for piece in pieces:
            keys = (*keys, piece.key)
            if keys not in self._shared:
                self._shared[keys] = self.longer(text, piece.tokens)
            text = self._shared[keys]
        return text

    def longer(self, text: _Text, tokens: int) -> _Text:
        """A text with something appended that no other has."""
        total = text.tokens + tokens
        num_blocks = total // self._block_tokens
        if num_blocks > MAX_PROMPT_BLOCKS:
            raise ConfigError(f"a prompt of {total} tokens has over {MAX_PROMPT_BLOCKS} blocks; make them larger")
        first = self._next
        self._next += num_blocks - text.tokens // self._block_tokens
        return _Text(total, (*text.ids, range(first, self._next)))


@dataclass(slots=True)
class _Running:
    """A session between two turns."""

    session: Session
    conversation: int
    turn: Turn
    """The one to come."""

    said: _Text | None = None
    """The prompt before; None at the beginning."""

    answer_tokens: int = 0
    """What was answered to it."""

    def speak(self, texts: _Texts, time_s: float) -> Request:
        """Make the turn that is due."""
        turn = self.turn
        if self.said is None or turn.fresh:
            said = texts.longer(texts.beginning(self.session.pieces), turn.new_tokens)
        else:
            said = texts.longer(self.said, self.answer_tokens + turn.new_tokens)
        self.said, self.answer_tokens = said, turn.output_tokens
        return Request(time_s, list(chain(*said.ids)), said.tokens, turn.output_tokens, self.conversation)


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """A trace that is made up as it is gone through. See ``Trace``.

    Raises:
        ConfigError: A parameter that cannot be.
    """

    name: ClassVar[str]
    about: ClassVar[str]

    requests: int = 2000
    seed: int = 0
    block_tokens: int = 64
    rate: float = 1.0
    """Requests a second, in the long run."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name == "seed" else 1 if each.type == "int" else 1e-6
            most = _MOST_OF.get(each.name, _MOST)
            if not least <= value <= most:
                raise ConfigError(f"synthetic:{self.name}: {each.name} must be from {least:g} to {most:g}, got {value}")

    @property
    @abstractmethod
    def turns_each(self) -> float:
        """Turns of a session, on average."""

    @abstractmethod
    def session(self, draw: Draw) -> Session:
        """A session, all of it drawn from ``draw``, whose seed no other session has."""

    def __iter__(self) -> Iterator[Request]:
        """See ``Trace.__iter__``."""
        texts = _Texts(self.block_tokens)
        arrivals = Draw(f"{self.seed}/arrivals")
        heap: list[tuple[float, int, _Running]] = []
        order = count()
        conversations = count()
        arrival_s = 0.0
        for _ in range(self.requests):
            while not heap or arrival_s <= heap[0][0]:
                number = next(conversations)
                session = self.session(Draw(f"{self.seed}/{number}"))
                heappush(heap, (arrival_s, next(order), _Running(session, number, next(session.turns))))
                arrival_s += arrivals.wait_s(self.turns_each / self.rate)
            time_s, _, running = heappop(heap)
            yield running.speak(texts, round(time_s, 3))
            turn = next(running.session.turns, None)
            if turn is not None:
                running.turn = turn
                heappush(heap, (time_s + turn.wait_s, next(order), running))
