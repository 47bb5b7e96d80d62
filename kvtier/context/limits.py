"""Policies that know limits: append only, sliding window, hysteresis, chunked drop, trim when expired.

    tokens  H |      /|      /|            hysteresis: one cold turn for each tooth, the cut is remembered
              |    /  |    /  |    /
            L |  /    |  /    |  /
              +------------------------ turns

A sliding window drops a little at every turn, so behind the head every turn is cold. The others drop much
at once and then leave the start of the sequence alone, which is all that a prefix cache asks for.

Source: hysteresis is the ``retention_ratio`` of OpenAI's Realtime API and ``clear_at_least`` of Anthropic's
context editing; dropping in chunks is done by chat front ends; cutting when the cache has expired anyway
is ragnarbot's cache manager.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kvtier.context.base import Bounded, Kept, answer
from kvtier.context.ledger import Live
from kvtier.context.messages import Chat, Message
from kvtier.errors import ConfigError


class AppendOnly:
    """Everything, always: the cheapest a turn for short chats, and without bound for long ones."""

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = Chat(messages)
        return answer(chat, chat.num_head, live, "whole")


class SlidingWindow(Bounded):
    """As much of the newest as fits under the high limit. Once full, every turn is cold behind the head."""

    def __init__(self, high_tokens: int, *, first_roles: Collection[str] | None = None) -> None:
        super().__init__(high_tokens, high_tokens, first_roles=first_roles)

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = self._chat(messages)
        cut = chat.within(self.high_tokens)
        return self._answer(chat, cut, live, "kept" if cut == self._remembered(chat) else "trimmed")


class Hysteresis(Bounded):
    """Cut to the low limit when the high one is passed, and keep that cut until it is passed again.

    The memory is the whole point: made anew at each turn, or computed from the full history, this slides at
    the low limit for ever (``LongestLive`` needs no memory). If the message at the cut has gone, by an edit
    or by a step back to before it, the chat starts again uncut.
    """

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = self._chat(messages)
        last = self._remembered(chat)
        cut = chat.num_head if last is None else last
        if chat.lengths[cut] > self.high_tokens:
            return self._answer(chat, chat.within(self.low_tokens), live, "trimmed")
        return self._below(chat, cut, live)

    def _below(self, chat: Chat, cut: int, live: Live) -> Kept:
        """The last cut still fits."""
        return self._answer(chat, cut, live, "kept")


class TrimWhenExpired(Hysteresis):
    """Hysteresis that also cuts to the low limit where nothing behind the head is live.

    That miss is paid anyway, by any cut, and the shorter context is cheaper to write and to read. After an
    expiry, and also after an edit of the first message kept.
    """

    def _below(self, chat: Chat, cut: int, live: Live) -> Kept:
        low = max(cut, chat.within(self.low_tokens))
        if low != cut and live(chat.from_cut(cut)) <= chat.head_tokens:
            return self._answer(chat, low, live, "expired")
        return super()._below(chat, cut, live)


class ChunkedDrop(Bounded):
    """Drop whole multiples of ``chunk_tokens``: G * ceil((total - H) / G) from the start.

    Costs what hysteresis with L = H - G does, and needs no memory: the same history is always cut at the
    same place, and a longer one too until the next multiple. A deletion or edit of anything that is dropped
    may move the cut.

    Args:
        high_tokens: As for ``Bounded``.
        chunk_tokens: G, at least 1 and below H.
        first_roles: See ``Chat``.
    """

    def __init__(self, high_tokens: int, chunk_tokens: int, *, first_roles: Collection[str] | None = None) -> None:
        if not isinstance(chunk_tokens, int) or isinstance(chunk_tokens, bool) or not 1 <= chunk_tokens < high_tokens:
            raise ConfigError(
                f"chunk_tokens must be a whole number from 1 to below the high limit, {high_tokens!r}; "
                f"got {chunk_tokens!r}"
            )
        super().__init__(high_tokens, high_tokens - chunk_tokens, first_roles=first_roles)
        self.chunk_tokens = chunk_tokens

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = self._chat(messages)
        total = chat.lengths[chat.num_head]
        chunks = max(0, -(-(total - self.high_tokens) // self.chunk_tokens))
        cut = chat.within(total - chunks * self.chunk_tokens)
        return self._answer(chat, cut, live, "kept" if cut == self._remembered(chat) else "trimmed")
