"""A chat played against a prefix cache, to see what a context policy costs.

    turn   the user writes, edits, deletes, regenerates, steps back to another branch or returns to one
           policy.trim(history, what is live)  ->  what is sent, and of that what the cache serves
           cost = r * served + w * the rest;   the reply joins the history

Every policy is played the same chat: what the user does and when is drawn from the seed alone. The cache is a
``PrefixLedger``: it forgets by time, never for room, and the policy knows exactly what it holds.

Lengths, gaps and events are made up from the settings, not taken from real chats.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from kvtier.context.base import ContextPolicy, Reason
from kvtier.context.ledger import PrefixLedger
from kvtier.context.messages import Message
from kvtier.context.prices import Prices
from kvtier.errors import ConfigError

#: What a user can do besides writing, each with a rate in ``ChatSettings``.
EVENTS = ("edit", "delete", "regenerate", "branch", "switch")

GAPS = ("constant", "exponential", "lognormal")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """How a chat goes. The defaults are a steady chat of a minute a turn, with no edits.

    Raises:
        ConfigError: A number that cannot be, or rates that add up to more than 1.
    """

    turns: int = 400
    head_tokens: int = 2_000
    user_tokens: int = 100
    reply_tokens: int = 400

    spread: float = 0.0
    """Lengths are uniform within this share above and below."""

    gap: Literal["constant", "exponential", "lognormal"] = "constant"
    gap_s: float = 60.0
    """Mean time between two requests."""

    gap_sigma: float = 1.0
    """Standard deviation of the logarithm of a lognormal gap."""

    idle_share: float = 0.0
    """Share of the gaps that are ``idle_s`` long instead."""

    idle_s: float = 600.0

    edit: float = 0.0
    """Share of turns before which a message of some turns ago is changed where it stands."""

    delete: float = 0.0
    """Share of turns before which a turn of some turns ago is taken out."""

    regenerate: float = 0.0
    """Share of turns that ask for the last reply once more."""

    branch: float = 0.0
    """Share of turns that go on from some turns ago, leaving what came after as another branch."""

    switch: float = 0.0
    """Share of turns that go on with another branch, if there is one."""

    depth: float = 6.0
    """How many turns back edits, deletions and branches reach, on average."""

    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            number = getattr(self, field.name)
            if field.name != "gap" and not (math.isfinite(number) and number >= 0):
                raise ConfigError(f"{field.name} must be a number of at least 0, got {number!r}")
        for name in ("turns", "user_tokens", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name in ("spread", "idle_share"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} is a share from 0 to 1, got {getattr(self, name)!r}")
        if self.gap not in GAPS:
            raise ConfigError(f"gap must be {', '.join(GAPS[:-1])} or {GAPS[-1]}, got {self.gap!r}")
        if (together := sum(getattr(self, event) for event in EVENTS)) > 1:
            raise ConfigError(f"the rates of {', '.join(EVENTS)} add up to {together:g}, more than 1")


class ChatRequest(NamedTuple):
    """One turn as the front end has it before anything is cut."""

    time_s: float
    messages: tuple[Message, ...]
    reply: Message


class Turn(NamedTuple):
    """One turn as a policy and a cache made it."""

    time_s: float

    history_tokens: int
    """Length of the whole history."""

    tokens: int
    """Length of what was sent."""

    live_tokens: int
    cost: float

    cold: bool
    """Nothing behind the head was live. The first turn, which is so under any policy, does not count."""

    reason: Reason


def play(
    make: Callable[[], ContextPolicy],
    settings: ChatSettings,
    *,
    ttl_s: float,
    prices: Prices,
    caches_replies: bool = True,
    stateless: bool = False,
) -> list[Turn]:
    """Play a chat under one policy.

    Args:
        make: Gives a new policy object.
        settings: The chat.
        ttl_s: Lifetime of what the cache holds, from its last use.
        prices: Of a token served and of one that is not.
        caches_replies: The engine keeps the KV that it generates, so a reply is cached when it is sent back.
        stateless: Make the policy anew at every turn, as a front end does that keeps nothing between requests.

    Raises:
        ConfigError: From the policy.
    """
    turns: list[Turn] = []
    ledger, policy = PrefixLedger(ttl_s), make()
    for request in requests(settings):
        kept = policy.trim(request.messages, ledger.live_at(request.time_s))
        history = sum(message.tokens for message in request.messages)
        cost, cold = prices.of(kept.tokens, kept.live_tokens), kept.live_tokens <= settings.head_tokens and bool(turns)
        turns.append(Turn(request.time_s, history, kept.tokens, kept.live_tokens, cost, cold, kept.reason))
        ledger.sent([*kept.messages, request.reply] if caches_replies else kept.messages, request.time_s)
        policy = make() if stateless else policy
    return turns


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """What a chat cost: means a turn, the share of sent tokens that were served, cold turns, why what was cut."""
    tokens = sum(turn.tokens for turn in turns)
    cold = sum(turn.cold for turn in turns)
    return {
        "cost_per_turn": sum(turn.cost for turn in turns) / len(turns),
        "hit_rate": sum(turn.live_tokens for turn in turns) / tokens if tokens else 0.0,
        "mean_context_tokens": tokens / len(turns),
        "cold_turns": cold,
        "cold_share": cold / len(turns),
        "reasons": dict(Counter(turn.reason for turn in turns)),
    }


def requests(settings: ChatSettings) -> Iterator[ChatRequest]:
    """The turns of a chat, the same ones each time."""
    user = _User(settings)
    time_s = 0.0
    for number in range(settings.turns):
        time_s += user.gap_s() if number else 0.0
        user.act()
        reply = user.message("assistant", settings.reply_tokens)
        yield ChatRequest(time_s, (*user.head, *user.path), reply)
        user.path.append(reply)


class _User:
    """Who chats: the branch in use, those left, and the dice."""

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self._dice = random.Random(settings.seed)  # noqa: S311  (a chat, not a secret)
        self._written = 0
        self._left: list[list[Message]] = []
        self.head = [Message(key="head", role="system", tokens=settings.head_tokens)]
        self.path: list[Message] = []

    def act(self) -> None:
        """Do what comes before a request; then the path ends with a user's message."""
        draw, events = self._dice.random(), iter(EVENTS)
        event = next((event for event in events if (draw := draw - getattr(self._settings, event)) < 0), "write")
        if self.path:
            if event == "regenerate":
                self.path.pop()
                return
            getattr(self, f"_{event}", lambda: None)()
        self.path.append(self.message("user", self._settings.user_tokens))

    def message(self, role: str, tokens: int) -> Message:
        """A new message of about that length."""
        self._written += 1
        share = 1 + self._settings.spread * self._dice.uniform(-1, 1)
        return Message(key=self._written, role=role, tokens=round(tokens * share))

    def gap_s(self) -> float:
        """Seconds until the next request."""
        settings, idle = self._settings, self._dice.random()
        if idle < settings.idle_share:
            return settings.idle_s
        if settings.gap == "exponential":
            return self._dice.expovariate(1 / settings.gap_s) if settings.gap_s else 0.0
        if settings.gap == "lognormal" and settings.gap_s:
            return self._dice.lognormvariate(math.log(settings.gap_s) - settings.gap_sigma**2 / 2, settings.gap_sigma)
        return settings.gap_s

    def _back(self) -> int:
        """Where a turn of some turns ago begins in the path."""
        mean = self._settings.depth - 1  # at least one turn back, and on average as many as the setting says
        depth = 1 + round(self._dice.expovariate(1 / mean) if mean else 0)
        return max(0, len(self.path) - 2 * depth)

    def _edit(self) -> None:
        where = self._back() + self._dice.randrange(2)
        old = self.path[where]
        self.path[where] = self.message(old.role, old.tokens)

    def _delete(self) -> None:
        where = self._back()
        del self.path[where : where + 2]

    def _branch(self) -> None:
        self._left.append(list(self.path))
        del self.path[self._back() :]

    def _switch(self) -> None:
        if self._left:
            other = self._dice.randrange(len(self._left))
            self.path, self._left[other] = self._left[other], self.path
