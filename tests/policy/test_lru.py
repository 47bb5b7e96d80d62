"""LRU: the laws of every policy, and the order that is its own."""

import pytest

from kvtier.policy.lru import LRU
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestLRU(PolicyTests):
    @pytest.fixture
    def policy(self):
        return LRU()


def lcg(count, seed=1):
    """The C standard's example generator, so that the stream never changes with a library."""
    stream = []
    for _ in range(count):
        seed = (1103515245 * seed + 12345) % 2**31
        stream.append(int((seed / 2**31) ** 2 * 24))
    return stream


STREAM = lcg(400)


def oracle(stream, capacity):
    order, hits = [], 0
    for item in stream:
        hits += item in order
        order = [*(other for other in order if other != item), item][-capacity:]
    return hits


def hits_of(policy, stream, capacity):
    held, hits = set(), 0
    for item in stream:
        if item in held:
            hits += 1
            policy.touch(names(item))
            continue
        if len(held) == capacity:
            held.remove(int.from_bytes(take(policy, 1)[0], "big"))
        policy.insert(names(item))
        held.add(item)
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 65), (4, 113), (8, 201), (16, 304), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert hits_of(LRU(), STREAM, capacity) == hits == oracle(STREAM, capacity)


def test_a_fixed_history_gives_a_known_order_of_victims():
    policy = LRU()
    policy.insert(names(1, 2, 3))
    policy.insert(names(4, 5))
    policy.touch(names(2))
    policy.remove(names(5))
    policy.insert(names(6))

    assert sweep_all(policy) == names(3, 1, 4, 2, 6)


def test_a_touched_batch_counts_its_tail_as_older():
    policy = LRU()
    policy.insert(names(1, 2, 3))
    policy.insert(names(4))

    policy.touch(names(1, 2, 3))

    assert sweep_all(policy) == names(4, 3, 2, 1)


def test_several_refused_blocks_keep_their_order():
    policy = LRU()
    policy.insert(names(5, 4, 3, 2, 1))

    take(policy, 1, lambda key: key not in names(1, 2, 3))

    assert sweep_all(policy) == names(1, 2, 3, 5)


def test_a_touched_block_leaves_after_an_untouched_one():
    policy = LRU()
    policy.insert(names(1))
    policy.insert(names(2))

    policy.touch(names(1))

    assert take(policy, 1) == names(2)
