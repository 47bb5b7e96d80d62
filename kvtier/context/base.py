"""The contract of a context policy: the whole history and what is live go in, what to send comes out.

    kept = policy.trim(messages, ledger.live_at(now_s))
    reply = send(kept.messages)
    ledger.sent([*kept.messages, reply], now_s)

A policy may remember between calls where it cut; it keeps no messages, no text and no clock. One object
serves one chat.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kvtier.context.ledger import Live
from kvtier.context.messages import Chat, Message
from kvtier.errors import ConfigError

Reason = Literal["whole", "kept", "trimmed", "expired", "recovered", "cheaper"]

#: Each reason in a sentence.
REASONS: dict[Reason, str] = {
    "whole": "nothing is dropped",
    "kept": "the cut of the last request still fits",
    "trimmed": "what was kept no longer fits, and was cut",
    "expired": "of what was kept nothing behind the head is live, so it was cut while that costs nothing more",
    "recovered": "another cut than the last one is live",
    "cheaper": "starting again at the low limit costs less than reading what is live",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What to send, and why."""

    messages: tuple[Message, ...]
    """The head, and the history from the cut on."""

    cut: int
    """Number of the first message after the head that is kept, in the history given."""

    tokens: int
    """Length of what is sent."""

    live_tokens: int
    """How much of that, from its start, is live."""

    reason: Reason
    """See ``REASONS``."""

    num_dropped: int
    """Messages left out."""

    excess_tokens: int
    """Tokens over the high limit; above 0 only where the head and the last message, with the calls and
    results that hang on it, are longer than that by themselves. It is for the caller to shorten them."""

    def __str__(self) -> str:
        what = f"{self.tokens:,} tokens, {self.live_tokens:,} of them live, {self.num_dropped:,} messages dropped"
        over = f"; {self.excess_tokens:,} tokens over the limit, for the last message cannot be split"
        return f"{what}: {REASONS[self.reason]}" + (over if self.excess_tokens else "")


class ContextPolicy(Protocol):
    """How much of a chat's history goes into the next request."""

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """What to send of a history.

        Args:
            messages: All of it, oldest first, as it is now after edits and deletions; the request last.
            live: What of a sequence the cache would find; called for the sequences considered.

        Raises:
            ConfigError: No messages, a head above the high limit, a result without its call.
        """
        ...


class Bounded:
    """Limits, and the cut of the last call, for policies that have them.

    Args:
        high_tokens: Never more than this is sent (H).
        low_tokens: What is kept when that is reached, at most (L).
        first_roles: See ``Chat``.

    Raises:
        ConfigError: A limit below 1, or the low one above the high one.
    """

    def __init__(self, high_tokens: int, low_tokens: int, *, first_roles: Collection[str] | None = None) -> None:
        for name, limit in (("high_tokens", high_tokens), ("low_tokens", low_tokens)):
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {limit!r}")
        if low_tokens > high_tokens:
            raise ConfigError(f"the low limit, {low_tokens:,} tokens, is above the high one, {high_tokens:,}")
        self.high_tokens = high_tokens
        self.low_tokens = low_tokens
        self.first_roles = first_roles
        self._last: _Cut | None = None

    def _chat(self, messages: Sequence[Message]) -> Chat:
        chat = Chat(messages, self.first_roles)
        if chat.head_tokens > self.high_tokens:
            raise ConfigError(
                f"the head (system, tools) has {chat.head_tokens:,} tokens, more than the high limit of "
                f"{self.high_tokens:,}; raise the limit or shorten the head"
            )
        return chat

    def _remembered(self, chat: Chat) -> int | None:
        """The cut of the last call in this history: where its first message is now.

        None before the first call, and if that message has gone. Of several messages with its key the
        nearest to where it was is taken. A chat that was not cut stays so, whatever comes to stand first.
        """
        if self._last is None:
            return None
        if self._last.first is None:
            return chat.num_head
        place, key = self._last.first
        same = [cut for cut in chat.lengths if cut > chat.num_head and chat.messages[cut].key == key]
        return min(same, key=lambda cut: abs(cut - place), default=None)

    def _answer(self, chat: Chat, cut: int, live: Live, reason: Reason) -> Kept:
        self._last = _Cut((cut, chat.messages[cut].key) if cut > chat.num_head else None)
        return answer(chat, cut, live, reason, self.high_tokens)


@dataclass(frozen=True, slots=True)
class _Cut:
    first: tuple[int, Hashable] | None
    """Place and key of the first message kept behind the head; None if none was dropped."""


def answer(chat: Chat, cut: int, live: Live, reason: Reason, high_tokens: int | None = None) -> Kept:
    """A policy's answer; without anything dropped the reason is that."""
    messages, tokens = chat.from_cut(cut), chat.lengths[cut]
    return Kept(
        messages=messages,
        cut=cut,
        tokens=tokens,
        live_tokens=min(live(messages), tokens),
        reason="whole" if cut == chat.num_head else reason,
        num_dropped=cut - chat.num_head,
        excess_tokens=0 if high_tokens is None else max(0, tokens - high_tokens),
    )
