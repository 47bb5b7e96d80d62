"""What a prefix cache still holds of the chats sent to it, as far as their sender can know.

    sent at 0 s    system A B          every prefix of it lives until 300 s
    sent at 200 s  system A C          system and system A live until 500 s, system A B until 300 s

A trie of message keys with a moment of expiry in each node. Sending a sequence writes or reads all its
prefixes, so both refresh them, and a node never outlives its parent. Only whole messages count: a prefix
that ends inside a message is taken for one that ends before it.

A store of one's own knows better than any ledger, for it also evicts: a policy takes any ``Live``, such as
``lambda messages: store.match(ids_of(messages)).num_tokens``.

Source: reads that refresh a lifetime are those of Anthropic's and OpenAI's prompt caches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from kvtier.context.messages import Message
from kvtier.errors import ConfigError

#: Tokens at the start of a sequence of messages that a request with it would find cached now.
Live = Callable[[Sequence[Message]], int]


def nothing_live(_: Sequence[Message]) -> int:
    """A cache that holds nothing, or one whose user does not care."""
    return 0


@dataclass(slots=True)
class _Node:
    expires_s: float = 0.0
    children: dict[Hashable, _Node] = field(default_factory=dict)


class PrefixLedger:
    """The sequences sent to one cache, each prefix with the moment it expires.

    Not thread safe. Times are seconds since any fixed moment and come from the caller.

    Args:
        ttl_s: How long the cache keeps a prefix after its last use; ``math.inf`` if it evicts for room alone.

    Raises:
        ConfigError: Not a time above 0.

    Example:
        >>> system = Message(key="s", role="system", tokens=2000)
        >>> hello = Message(key="u1", role="user", tokens=100)
        >>> ledger = PrefixLedger(ttl_s=300)
        >>> ledger.sent([system, hello], now_s=0)
        >>> ledger.live_at(299)([system, hello]), ledger.live_at(300)([system, hello])
        (2100, 0)
    """

    def __init__(self, ttl_s: float) -> None:
        if not ttl_s > 0:
            raise ConfigError(f"ttl_s must be more than 0 seconds, got {ttl_s!r}")
        self.ttl_s = ttl_s
        self._root = _Node()
        self._sweep_s = 0.0

    def sent(self, messages: Sequence[Message], now_s: float, *, ttl_s: float | None = None) -> None:
        """Take up a sequence that was sent, and so written or read.

        Args:
            messages: What the cache has now: add the reply if the engine keeps the KV that it generates.
            now_s: When.
            ttl_s: Another lifetime for these prefixes, such as that of a breakpoint of an hour.
        """
        if now_s >= self._sweep_s:
            _forget_expired(self._root, now_s)
            self._sweep_s = now_s + self.ttl_s
        node, expires_s = self._root, now_s + (self.ttl_s if ttl_s is None else ttl_s)
        for message in messages:
            node = node.children.setdefault(message.key, _Node())
            node.expires_s = max(node.expires_s, expires_s)

    def live_at(self, now_s: float) -> Live:
        """What is live at a moment, for a policy's ``trim``."""

        def live(messages: Sequence[Message]) -> int:
            node, tokens = self._root, 0
            for message in messages:
                child = node.children.get(message.key)
                if child is None or child.expires_s <= now_s:
                    break
                node, tokens = child, tokens + message.tokens
            return tokens

        return live

    def __len__(self) -> int:
        """Prefixes remembered; expired ones leave at the first ``sent`` after a lifetime or so."""
        return _count(self._root)


def _forget_expired(root: _Node, now_s: float) -> None:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        node.children = {key: child for key, child in node.children.items() if child.expires_s > now_s}
        nodes += node.children.values()


def _count(root: _Node) -> int:
    nodes, count = [root], 0
    while nodes:
        children = nodes.pop().children.values()
        nodes += children
        count += len(children)
    return count
