"""Prompts spelled as words, and plans as text, so that a test of the core reads like its docstring.

A block is a letter and its name is the word so far: the chain of ``"abc"`` is the blocks ``a``,
``ab`` and ``abc``, and shares its first two with ``"abd"``. A move is shown as ``name:src>dst``,
with ``-`` for nowhere and ``=`` in the place of ``>`` where the source keeps its copy.
"""

from kvtier.hashing import BlockHash, Chain, Label
from kvtier.placement import Placement, TierRules
from kvtier.policy.lru import LRU


def key(word):
    return BlockHash(word.encode().ljust(32, b"."))


def word(name):
    return name.decode().rstrip(".")


def label(text):
    return Label(key(text[:-1]), len(text) - 1, text[-1].encode())


def chain(text, start=0):
    words = [text[: i + 1] for i in range(len(text))][start:]
    return Chain([key(each) for each in words], [label(each) for each in words])


def keys(text):
    return chain(text).keys


def entries(*words):
    """What a tier lists at a restart."""
    return [(key(each), label(each)) for each in words]


def make(*capacities, durable=(), policy=lambda _: LRU(), admissions=None):
    """A placement; ``policy`` makes one of a capacity, ``admissions`` are by tier."""
    admissions = admissions or {}
    return Placement(
        [
            TierRules(blocks, policy(blocks), durable=tier in durable, admission=admissions.get(tier))
            for tier, blocks in enumerate(capacities)
        ]
    )


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Only:
    """Admission of some words, and what it was asked and told."""

    def __init__(self, *words):
        self.words = set(words)
        self.asked = []
        self.touched = []

    def touch(self, keys):
        self.touched += map(word, keys)

    def admit(self, keys):
        self.asked += map(word, keys)
        return next((i for i, key in enumerate(keys) if word(key) not in self.words), len(keys))


def show(moves):
    def place(tier):
        return "-" if tier is None else tier

    return [f"{word(m.key)}:{place(m.src)}{'=' if m.keep else '>'}{place(m.dst)}" for m in moves]


def carry_out(placement, moves):
    """Commit moves, and what follows from them, as a store without failures would."""
    while moves:
        moves = placement.commit(moves)
        placement.check()


def put(placement, text, dst=0):
    """Write a prompt, carried out."""
    carry_out(placement, placement.plan_write(chain(text), dst))


def tiers(placement, text):
    """The fastest tier of each block of the leading run."""
    return list(placement.match(keys(text)).tiers)


def used(placement):
    return [placement.used_blocks(tier) for tier in range(placement.num_tiers)]


class Closed(LRU):
    """Notes what is called while one of its sweeps is open."""

    def __init__(self):
        super().__init__()
        self.is_open = False
        self.disturbed = False

    def evict(self, evictable):
        self.is_open = True
        try:
            yield from super().evict(evictable)
        finally:
            self.is_open = False

    def touch(self, keys):
        self.disturbed |= self.is_open
        super().touch(keys)

    def remove(self, keys):
        self.disturbed |= self.is_open
        super().remove(keys)
