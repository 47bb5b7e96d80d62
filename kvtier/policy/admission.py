"""Admission: what is worth writing to a tier, asked before room is made for it.

    touch(prompt)          each prompt that arrives, whatever is held of it
    admit(keys) -> n       blocks that the tier lacks: a prompt's new ones, or one that would sink into it

    AdmitAll         everything
    SecondTouch      what two prompts have asked for
    LongPrompts      what a prompt of some length has asked for
    WorthReloading   what is loaded sooner than it is computed
    WriteBudget      as much as the flash is to bear in a day

What needs to know the past keeps it by name for a bounded number of names, in two generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from kvtier.errors import ConfigError
from kvtier.hashing import BlockHash

MAX_NAMES = 1_000_000
"""Names that an admission remembers, unless told otherwise."""

_DAY_S = 24 * 3600


class AdmitAll:
    """Everything is worth writing."""

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``."""
        return len(keys)


class SecondTouch:
    """What at least two prompts have asked for: a block seen once is likely never to be seen again.

    Source: the cache-on-second-hit rule of Maggs and Sitaraman, "Algorithmic Nuggets in Content Delivery",
    SIGCOMM CCR 45(3), 2015. Differs from it: names are kept as they are and not in a Bloom filter, so no
    block gets in by mistake.

    Args:
        max_names: Names remembered at most. The last half of that many different ones are remembered for sure.
    """

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._seen_twice = _Recent(max_names)

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""
        self._seen_twice.note((key, key in self._seen_twice) for key in keys)

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``."""
        return _leading(keys, lambda key: self._seen_twice.get(key, default=False))


class LongPrompts:
    """What a prompt of some length has asked for: a short one is soon computed again.

    A block counts as what the last prompt that used it was. One that was forgotten is let in.

    Source: the least cacheable prompt of public APIs, 512 to 4,096 tokens by model.

    Args:
        min_blocks: Blocks of the shortest prompt that is let in.
        max_names: Names remembered at most. The last half of that many different ones are remembered for sure.
    """

    def __init__(self, min_blocks: int, max_names: int = MAX_NAMES) -> None:
        if min_blocks < 1:
            raise ConfigError(f"min_blocks must be at least 1, got {min_blocks}")
        self._min_blocks = min_blocks
        self._long = _Recent(max_names)

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""
        is_long = len(keys) >= self._min_blocks
        self._long.note((key, is_long) for key in keys)

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``."""
        return _leading(keys, lambda key: self._long.get(key, default=True))


class WorthReloading:
    """What is loaded sooner, together with the blocks before it, than all of it is computed.

        latency_s + length * load_s  <  recompute_s(0) + ... + recompute_s(length - 1)

    A later block costs more to compute and as much to load, so a prompt that is worth it at its end is let in
    whole, and otherwise nothing of it. A block that held ones come after is let in: they are worth nothing without it.

    Source: the choice that Mooncake (FAST 2025) and SGLang's HiCache make by prefix length before they load;
    made here before the block is written.

    Args:
        recompute_s: See ``Setting``; in seconds, not just in proportion.
        load_s: Seconds to load one block.
        latency_s: Seconds before the first one comes.
        depth: See ``Setting``.
        num_children: See ``Setting``.
    """

    def __init__(
        self,
        recompute_s: Callable[[int], float],
        load_s: float,
        latency_s: float = 0.0,
        *,
        depth: Callable[[BlockHash], int],
        num_children: Callable[[BlockHash], int] = lambda _: 0,
    ) -> None:
        self._recompute_s = recompute_s
        self._load_s = load_s
        self._latency_s = latency_s
        self._depth = depth
        self._num_children = num_children
        self._totals_s = [0.0]
        """Seconds to compute a prompt, by its length."""
        self._end: BlockHash | None = None
        """The last block of the last prompt."""
        self._length = 0
        """Blocks of the last prompt."""

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""
        if keys:
            self._end, self._length = keys[-1], len(keys)

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``."""
        if not keys:
            return 0
        if keys[-1] == self._end:  # new, and not known by its depth yet
            return len(keys) if self._is_worth_it(self._length) else 0
        if self._num_children(keys[-1]) or self._is_worth_it(self._depth(keys[-1]) + 1):
            return len(keys)
        return 0

    def _is_worth_it(self, length: int) -> bool:
        while len(self._totals_s) <= length:
            self._totals_s.append(self._totals_s[-1] + self._recompute_s(len(self._totals_s) - 1))
        return self._latency_s + length * self._load_s < self._totals_s[length]


class WriteBudget:
    """As many bytes a day as the flash is to bear: a token bucket, full in the beginning.

    In any time, no more is let in than the time's share of the budget and ``burst_s``'s share besides. What is let in
    counts, whether or not it is written then.

    Source: the write budgets by which CacheLib (Berg et al., OSDI 2020) admits to flash. Differs from it: first come,
    first served, not at random, since a part of a prompt without its head is worth nothing.

    Args:
        bytes_per_day: What may be written.
        block_bytes: Of one block as it is stored.
        clock: See ``Setting``.
        burst_s: Time whose unused share is kept at most.

    Raises:
        ConfigError: Not even one block fits into the bucket.
    """

    def __init__(
        self, bytes_per_day: float, block_bytes: int, clock: Callable[[], float], burst_s: float = 3600.0
    ) -> None:
        self._blocks_per_s = bytes_per_day / _DAY_S / block_bytes
        self._most = self._blocks_per_s * burst_s
        if not self._most >= 1:
            raise ConfigError(
                f"{bytes_per_day:g} bytes a day are {self._most:.2g} blocks of {block_bytes} bytes in {burst_s:g} s: "
                "no block would ever be written; allow more, or a longer burst"
            )
        self._clock = clock
        self._left = self._most
        self._since_s = clock()

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``."""
        now_s = self._clock()
        if now_s > self._since_s:
            self._left = min(self._most, self._left + (now_s - self._since_s) * self._blocks_per_s)
            self._since_s = now_s
        admitted = min(len(keys), int(self._left))
        self._left -= admitted
        return admitted


class _Recent:
    """A truth about each of the names noted last.

    Two generations: when the young one is full it becomes the old one, and the old one is forgotten.
    """

    def __init__(self, max_names: int) -> None:
        if max_names < 2:
            raise ConfigError(f"max_names must be at least 2, got {max_names}")
        self._most_young = max_names // 2
        self._young: dict[BlockHash, bool] = {}
        self._old: dict[BlockHash, bool] = {}

    def note(self, truths: Iterable[tuple[BlockHash, bool]]) -> None:
        """Note one about each of these names, or a new one."""
        for key, truth in truths:
            self._young[key] = truth
            if len(self._young) >= self._most_young:
                self._old, self._young = self._young, {}

    def get(self, key: BlockHash, *, default: bool) -> bool:
        """What was noted about a name, ``default`` if it is not known any more."""
        return self._young.get(key, self._old.get(key, default))

    def __contains__(self, key: BlockHash) -> bool:
        return key in self._young or key in self._old


def _leading(keys: Sequence[BlockHash], is_admitted: Callable[[BlockHash], bool]) -> int:
    """Length of the leading run that is let in."""
    return sum(1 for _ in takewhile(is_admitted, keys))
