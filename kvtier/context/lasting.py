"""Policies that ask the cache: of all cuts that fit, which one is live?

    history  s A B C D E F        cut at B: s B C D is live, E F is new
                                  cut at D: s is live; D E F would have to be written again

After an edit, a regeneration or a step back to another branch, an older cut may be live again; a front end
that keeps no state between turns finds its own last cut so. Without edits and before anything expires
``LongestLive`` cuts where ``Hysteresis`` does, exactly (without its memory: as long as a turn adds less than a
fresh start at the low limit computes); so does ``CheapestLive`` as long as going on costs
no more than starting again at the low limit, about r * H <= r * S + w * (L - S).

Neither drops below the low limit what it could keep, unless the last cut did: the cheapest context is none.

The longest live prefix is not always the cheapest choice: reading much can cost more than writing less. That
is what ``CheapestLive`` is for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kvtier.context.base import Bounded, Kept, Reason
from kvtier.context.ledger import Live
from kvtier.context.messages import Chat, Message
from kvtier.context.prices import Prices


class LongestLive(Bounded):
    """The cut under the high limit with the longest live prefix; if none is live, all that fits, else the low limit.

    A cut with more to compute than a fresh start at the low limit is passed over. Two messages often begin alike,
    be it only with their role, so some tokens of nearly every cut are live; going by these would slide.

    Every cut between the limits is asked about, some dozens for a long chat. The last cut is remembered, but
    hardly needed: for the reason given, and where the user has stepped back to less than the low limit.
    """

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = self._chat(messages)
        low, last = chat.within(self.low_tokens), self._remembered(chat)
        found = dict(self._live_cuts(chat, live))
        again = chat.lengths[low] - found.get(low, chat.head_tokens)
        worth = [cut for cut in found if cut == last or chat.lengths[cut] - found[cut] <= again]
        if worth:
            cut = max(worth, key=lambda cut: (found[cut], -cut))
            return self._answer(chat, cut, live, self._how(chat, cut))
        cut = chat.num_head if chat.lengths[chat.num_head] <= self.high_tokens else low
        return self._answer(chat, cut, live, self._why_none(chat, cut))

    def _live_cuts(self, chat: Chat, live: Live) -> Iterator[tuple[int, int]]:
        """Cuts that fit and of which more than the head is live, each with how much is.

        A cut that leaves less than the low limit asks for counts only if it is the last one: a user who says
        again what once stood right behind the head would else be served that and nothing more of the chat.
        """
        low, last = chat.within(self.low_tokens), self._remembered(chat)
        for cut, length in chat.lengths.items():
            if length <= self.high_tokens and (cut <= low or cut == last):
                tokens = live(chat.from_cut(cut))
                if tokens > chat.head_tokens:
                    yield cut, tokens

    def _how(self, chat: Chat, cut: int) -> Reason:
        return "kept" if cut == self._remembered(chat) else "recovered"

    def _why_none(self, chat: Chat, cut: int) -> Reason:
        """Why a cut was taken of which no more than the head is live."""
        last = self._remembered(chat)
        if cut == last:
            return "kept"
        return "expired" if last is not None and chat.lengths[last] <= self.high_tokens else "trimmed"


class CheapestLive(LongestLive):
    """The cheapest for this request among the live cuts under the high limit and a fresh start at the low one.

    Cost of a cut of ``length`` tokens of which c are live: r * c + w * (length - c). Of equals, the longest context.

    Args:
        high_tokens: As for ``Bounded``.
        low_tokens: As for ``Bounded``.
        prices: r and w.
        first_roles: See ``Chat``.
    """

    def __init__(
        self, high_tokens: int, low_tokens: int, prices: Prices, *, first_roles: Collection[str] | None = None
    ) -> None:
        super().__init__(high_tokens, low_tokens, first_roles=first_roles)
        self.prices = prices

    def trim(self, messages: Sequence[Message], live: Live) -> Kept:
        """See ``ContextPolicy.trim``."""
        chat = self._chat(messages)
        found = dict(self._live_cuts(chat, live))
        fallback = chat.within(self.low_tokens)
        known = {fallback: live(chat.from_cut(fallback)), **found}
        cut = min(known, key=lambda cut: (self.prices.of(chat.lengths[cut], known[cut]), cut))
        if known[cut] > chat.head_tokens:
            return self._answer(chat, cut, live, self._how(chat, cut))
        return self._answer(chat, cut, live, "cheaper" if found else self._why_none(chat, cut))
