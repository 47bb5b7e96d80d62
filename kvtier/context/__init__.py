"""How much of a chat to send, so that a prefix cache still knows its start.

    policy = Hysteresis(high_tokens=32_000, low_tokens=16_000)
    kept = policy.trim(messages, ledger.live_at(now_s))

A cache serves a prompt up to the first token that differs. Dropping the oldest messages makes everything
behind the head differ, so a window that slides pays for all of it at every turn.
"""

from kvtier.context.base import REASONS, ContextPolicy, Kept
from kvtier.context.choice import POLICIES, make_policy
from kvtier.context.lasting import CheapestLive, LongestLive
from kvtier.context.ledger import Live, PrefixLedger, nothing_live
from kvtier.context.limits import AppendOnly, ChunkedDrop, Hysteresis, SlidingWindow, TrimWhenExpired
from kvtier.context.messages import Chat, Message
from kvtier.context.prices import Prices

__all__ = [
    "POLICIES",
    "REASONS",
    "AppendOnly",
    "Chat",
    "CheapestLive",
    "ChunkedDrop",
    "ContextPolicy",
    "Hysteresis",
    "Kept",
    "Live",
    "LongestLive",
    "Message",
    "PrefixLedger",
    "Prices",
    "SlidingWindow",
    "TrimWhenExpired",
    "make_policy",
    "nothing_live",
]
