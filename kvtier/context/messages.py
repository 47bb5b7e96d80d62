"""A chat as a trimmer sees it: a head that always stays, a body, and the places where the body may be cut.

    system  tools | user  assistant | user  assistant(call c) - tool(c)  assistant | user
    head            ^                 ^                                  ^           ^       cut points

What is sent is the head and everything from one cut on. A cut lies between two messages, never between a
call and its result, which a provider would refuse, and never behind the last message, which is the request.

Lengths are sums of the messages' own. Where a chat template adds tokens for a message, they belong to its
count; what it adds once for a whole chat belongs to the head's.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from kvtier.errors import ConfigError

#: Roles of the messages that form the head, as long as no other role has come before them.
HEAD_ROLES = frozenset({"system", "developer", "tools"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, known by its identity and length; its text is the caller's."""

    key: Hashable
    """Its identity: equal keys mean equal tokens, so an edited message has another key. An id with a
    revision is best. A digest of the content works as long as few messages of a chat are the same."""

    role: str
    """``"system"``, ``"tools"``, ``"user"``, ``"assistant"``, ``"tool"``, ..."""

    tokens: int
    """Its length with what the chat template puts around it."""

    calls: tuple[str, ...] = ()
    """Ids of the tool calls it makes."""

    answers: tuple[str, ...] = ()
    """Ids of the tool calls whose results it carries."""

    def __post_init__(self) -> None:
        if not isinstance(self.tokens, int) or isinstance(self.tokens, bool) or self.tokens < 0:
            raise ConfigError(f"message {self.key!r}: tokens must be a whole number of at least 0, got {self.tokens!r}")
        try:
            hash(self.key)
        except TypeError:
            raise ConfigError(f"a message's key must be hashable, got {type(self.key).__name__}") from None


class Chat:
    """The cut points of one request's messages, with the length of what each leaves.

    Args:
        messages: The whole history, oldest first, the request last.
        first_roles: Roles that may come right after the head once something is dropped, such as ``{"user"}``
            for an API that wants a user's message first; None for any.

    Raises:
        ConfigError: No message, or a result of a call that no message before it makes.
    """

    def __init__(self, messages: Sequence[Message], first_roles: Collection[str] | None = None) -> None:
        if not messages:
            raise ConfigError("there are no messages to send")
        self.messages = tuple(messages)
        self.num_head = _head_of(self.messages)
        self.head_tokens = sum(message.tokens for message in self.messages[: self.num_head])
        joined = _joined(self.messages)
        rest = self.head_tokens + sum(message.tokens for message in self.messages[self.num_head :])
        self.lengths: dict[int, int] = {self.num_head: rest}
        """Tokens sent by cut: the number of the first message after the head that is kept. Ascending, falling."""
        for number in range(self.num_head + 1, len(self.messages)):
            rest -= self.messages[number - 1].tokens
            if number not in joined and (first_roles is None or self.messages[number].role in first_roles):
                self.lengths[number] = rest

    @cached_property
    def last(self) -> int:
        """The cut that drops most."""
        return max(self.lengths)

    def within(self, limit_tokens: int) -> int:
        """The first cut that leaves at most ``limit_tokens``; the last of all if none does."""
        return next((cut for cut, length in self.lengths.items() if length <= limit_tokens), self.last)

    def from_cut(self, cut: int) -> tuple[Message, ...]:
        """What is sent: the head, and the messages from a cut on."""
        return self.messages[: self.num_head] + self.messages[cut:]


def _head_of(messages: Sequence[Message]) -> int:
    others = (number for number, message in enumerate(messages) if message.role not in HEAD_ROLES)
    return next(others, len(messages))


def _joined(messages: Sequence[Message]) -> set[int]:
    """Messages that may not come first: some call before them has its result in them or behind them."""
    made: dict[str, int] = {}
    joined: set[int] = set()
    for number, message in enumerate(messages):
        for call in message.answers:
            if call not in made:
                raise ConfigError(f"message {message.key!r} answers call {call!r}, which no message before it makes")
            joined.update(range(made[call] + 1, number + 1))
        made.update(dict.fromkeys(message.calls, number))
    return joined
