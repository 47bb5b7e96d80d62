"""What a provider's cache counts: of each call, the tokens read, written and neither.

    automatic   [ read: longest live prefix, in units ][ written, at a premium or not    ][ rest ]
    marked      [ read: longest live entry            ][ written up to the last mark     ][ uncached ]
    made apart  written in a call of its own, whole, and stored by the hour; then read

One engine for all. For every segment it keeps until when a prefix that ends there can be hit and from when:
not before the answer to the call that stored it has begun, so calls in parallel all miss. What differs between
providers is where entries may end and how far back they are looked for (``Rules``).

A use of a prefix is a use of every entry it contains, so that a long entry never outlives its head. No provider
says so in as many words; it is what "refreshed on use" means for keys and values that lie there once.

Source: the providers' documentation, as listed in ``providers.toml``. Differs from them: room is unlimited, as no
provider says how much there is, so an entry leaves by its lifetime alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvtier.econ.billing.calls import Call, Mark, grown, highest_id
from kvtier.econ.billing.tariffs import Rules
from kvtier.errors import ConfigError


class Usage(NamedTuple):
    """Tokens of one call. ``read + uncached + sum(written)`` is the prompt, but for entries made apart."""

    read: int
    uncached: int
    written: Mapping[str, int]
    """By lifetime. Made apart, they come on top of the prompt."""

    stored_token_hours: float = 0.0


class Meter:
    """The cache of one provider, and what it counts of each call.

    Args:
        rules: The provider's.
        lifetime: Name of the lifetime that a mark without one gets.
        lifetimes: Seconds by name.
        first_token_s: From a call to the start of its answer, for calls that do not say.
        hit_probability: Share of calls that reach the machine which has their prefix, where ``rules.routed``.
        seed: Of the draws for that.

    Raises:
        ConfigError: A probability outside 0 to 1, or a time below 0.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        lifetime: str = "",
        lifetimes: Mapping[str, float] | None = None,
        first_token_s: float = 1.0,
        hit_probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= hit_probability <= 1:
            raise ConfigError(f"a hit probability lies between 0 and 1, got {hit_probability}")
        if not first_token_s >= 0:
            raise ConfigError(f"the time to the first token must be at least 0, got {first_token_s}")
        self._rules = rules
        self._lifetime = lifetime
        self._lifetimes = {lifetime: rules.lifetime_s, **(lifetimes or {})}
        self._first_token_s = first_token_s
        self._hit_probability = hit_probability if rules.routed else 1.0
        self._random = random.Random(seed)  # noqa: S311  (draws of a simulation, not secrets)
        self._until = np.full(0, -np.inf)
        """By segment: the last moment at which the prefix that ends there can be hit."""
        self._usable = np.full(0, np.inf)
        self._kept_s = np.full(0, 0.0)
        self._seen_s = np.full(0, -np.inf)
        """By segment: when a call last had it, whether it was stored or not."""

    def count(self, call: Call) -> Usage:
        """What one call reads and writes; the cache is then as after it. Calls come in order of time.

        Raises:
            ConfigError: More marks than the provider takes, or a longer lifetime after a shorter one.
        """
        self._grow(call)
        marks = self._marks(call)
        if self._rules.made_apart:
            return self._apart(call, marks)
        hit = self._hit(call, marks)
        if self._random.random() >= self._hit_probability:
            hit = -1
        read = self._units(int(call.ends[hit])) if hit >= 0 else 0
        if self._rules.entries == "marks":
            written = self._paid(call, marks, read)
        else:
            storable = self._units(call.input_tokens)
            written = {self._lifetime: storable - read} if storable > read else {}
        self._store(call, marks, hit)
        return Usage(read, call.input_tokens - read - sum(written.values()), written)

    def _marks(self, call: Call) -> list[Mark]:
        """Where entries are to end: of a marked cache, what the call says; all on the last segment if nothing."""
        if self._rules.entries != "marks" or not len(call.ids):
            return []
        said = (Mark(len(call.ids) - 1),) if call.marks is None else call.marks
        if self._rules.max_marks is not None and len(said) > self._rules.max_marks:
            raise ConfigError(f"a call at {call.time_s} s has {len(said)} marks, of {self._rules.max_marks} allowed")
        marks = [
            Mark(mark.position, mark.lifetime if mark.lifetime in self._lifetimes else self._lifetime) for mark in said
        ]
        kept = [self._lifetimes[mark.lifetime or ""] for mark in marks]
        if kept != sorted(kept, reverse=True):
            raise ConfigError(f"a call at {call.time_s} s marks a longer lifetime after a shorter one")
        return [mark for mark in marks if self._units(int(call.ends[mark.position]))]

    def _hit(self, call: Call, marks: list[Mark]) -> int:
        """The last segment of the longest prefix that can be read; -1 if there is none."""
        live = (self._until[call.ids] >= call.time_s) & (self._usable[call.ids] <= call.time_s)
        if self._rules.entries == "marks":
            looked = np.zeros(len(live), dtype=bool)
            for mark in marks:
                back = self._rules.look_back if call.in_content_blocks else None
                looked[0 if back is None else max(mark.position + 1 - back, 0) : mark.position + 1] = True
            live &= looked
        found = np.flatnonzero(live)
        hit = int(found[-1]) if len(found) else -1
        return hit if hit >= 0 and self._units(int(call.ends[hit])) else -1

    def _units(self, tokens: int) -> int:
        """As many of so many tokens as can be an entry."""
        return tokens - tokens % self._rules.unit_tokens if tokens >= self._rules.minimum_tokens else 0

    @staticmethod
    def _paid(call: Call, marks: list[Mark], read: int) -> dict[str, int]:
        """Tokens after the hit up to each mark, by the mark's lifetime."""
        written: dict[str, int] = {}
        done = read
        for mark in marks:
            end = int(call.ends[mark.position])
            if end > done:
                written[mark.lifetime or ""] = written.get(mark.lifetime or "", 0) + end - done
                done = end
        return written

    def _store(self, call: Call, marks: list[Mark], hit: int) -> None:
        """Count what the call read as used, and take in what it stored."""
        ids, now = call.ids, call.time_s
        if self._rules.entries == "everywhere":
            self._make(ids, call, self._rules.lifetime_s)
            return
        if self._rules.refreshed_on_use:
            used = ids[: hit + 1]
            used = used[self._until[used] >= now]
            self._until[used] = np.maximum(self._until[used], now + self._kept_s[used])
        for mark in marks:
            self._make(ids[mark.position : mark.position + 1], call, self._lifetimes[mark.lifetime or ""])
        if self._rules.entries == "ends":
            shared = int((self._seen_s[ids] >= now - self._rules.lifetime_s).cumprod().sum())
            ends = ids[[position for position in (shared - 1, len(ids) - 1) if position >= 0]]
            self._make(ends, call, self._rules.lifetime_s)
            self._seen_s[ids] = now
            if call.reply is not None and self._rules.stores_output:
                self._make(np.asarray([call.reply]), call, self._rules.lifetime_s)

    def _make(self, ids: NDArray[np.int64], call: Call, lifetime_s: float) -> None:
        """Store entries. What is there, or on its way, keeps its lifetime and is used once more."""
        until = self._until[ids]
        fresh = ids[until < call.time_s]
        begins_s = self._first_token_s if call.first_token_s is None else call.first_token_s
        self._usable[fresh] = call.time_s + begins_s
        self._kept_s[fresh] = lifetime_s
        self._until[ids] = np.maximum(until, call.time_s + self._kept_s[ids])

    def _apart(self, call: Call, marks: list[Mark]) -> Usage:
        """A call whose marked prefix is made first, if it is not there, by a call of its own.

        It holds one prefix, up to the first mark: what changes least. Without a mark it reads what there is.
        """
        if not marks:
            hit = self._hit(call, [Mark(len(call.ids) - 1)] if len(call.ids) else [])
            read = int(call.ends[hit]) if hit >= 0 else 0
            return Usage(read, call.input_tokens - read, {})
        position = marks[0].position
        tokens, entry = int(call.ends[position]), call.ids[position : position + 1]
        made = not self._until[entry[0]] >= call.time_s
        if made:
            self._make(entry, call._replace(first_token_s=0.0), self._rules.lifetime_s)
        hours = tokens * self._rules.lifetime_s / 3600 if made else 0.0
        return Usage(tokens, call.input_tokens - tokens, {self._lifetime: tokens} if made else {}, hours)

    def _grow(self, call: Call) -> None:
        """Have a place for every segment of a call."""
        highest = highest_id(call)
        if highest >= len(self._until):
            self._until = grown(self._until, highest, fill=-np.inf)
            self._usable = grown(self._usable, highest, fill=np.inf)
            self._kept_s = grown(self._kept_s, highest, fill=0.0)
            self._seen_s = grown(self._seen_s, highest, fill=-np.inf)
