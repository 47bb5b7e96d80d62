"""Streams of single references, a cache that plays them to a policy, and the best that any cache could do.

A reference is a request of its own here: a block without a parent, looked up, touched, and taken up
if it was missed. So the order within a batch and the rule of prefixes play no part, and a policy
is what its paper says.
"""

import random
from itertools import accumulate

from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing, Roll
from kvtier.policy.base import Setting
from kvtier.policy.registry import make_policy
from kvtier.testing.policies import names, take

#: Policies of the textbooks: they need to know the capacity at most, and always take up what was missed.
CLASSICS = ("fifo", "lru", "lfu", "sieve", "s3fifo", "arc", "wtinylfu")


def classic(name, capacity):
    return make_policy(name, Setting(capacity_blocks=capacity))


def lcg(count, seed=1):
    """The C standard's example generator, so that the stream never changes with a library."""
    stream = []
    for _ in range(count):
        seed = (1103515245 * seed + 12345) % 2**31
        stream.append(int((seed / 2**31) ** 2 * 24))
    return stream


STREAM = lcg(400)


def zipf_scan_loop(count=20_000, blocks=2_000, seed=1):
    """Popular blocks, then a scan of blocks used once, popular ones again, a loop, and popular ones to the end."""
    rng = random.Random(seed)
    weights = list(accumulate(1 / rank**0.9 for rank in range(1, blocks + 1)))
    popular = rng.choices(range(blocks), cum_weights=weights, k=count)
    scan = list(range(blocks, blocks + count // 10))
    loop = list(range(blocks // 2, blocks)) * 3
    third = count // 3
    return popular[:third] + scan + popular[third : 2 * third] + loop + popular[2 * third :]


def play(policy, stream, capacity):
    """Whether each block of a stream was held when it was asked for."""
    held, hits = set(), []
    for item in stream:
        hits.append(item in held)
        policy.touch([item])
        if item in held:
            continue
        if len(held) == capacity:
            (victim,) = take(policy, 1)
            held.remove(victim)
        policy.insert([item])
        held.add(item)
    assert len(policy) == len(held)
    return hits


def best_hits(stream, capacity):
    """Hits of Belady's MIN, which takes up every block as the policies do: whoever is used last of all leaves."""
    held, hits = set(), 0
    for now, item in enumerate(stream):
        if item in held:
            hits += 1
            continue
        if len(held) == capacity:
            rest = stream[now + 1 :]
            held.remove(max(held, key=lambda other: rest.index(other) if other in rest else len(stream)))
        held.add(item)
    return hits


def roll(*numbers):
    """Names as a restart hands them over, the oldest first."""
    listing = Listing.of((name, Label(BlockHash(bytes(32)), 0, b"")) for name in names(*numbers))
    return Roll(listing, listing.order)
