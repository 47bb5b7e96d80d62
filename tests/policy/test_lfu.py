"""LFU: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.lfu import LFU
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestLFU(PolicyTests):
    @pytest.fixture
    def policy(self):
        return LFU()


def oracle(stream, capacity):
    uses, last, hits = {}, {}, []
    for now, item in enumerate(stream):
        hits.append(item in uses)
        if item not in uses and len(uses) == capacity:
            del uses[min(uses, key=lambda other: (uses[other], last[other]))]
        uses[item] = uses.get(item, 0) + 1
        last[item] = now
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 48), (4, 139), (8, 191), (16, 309), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(LFU(), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 15), max_size=80), capacity=st.integers(1, 10))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(LFU(), stream, capacity) == oracle(stream, capacity)


def test_the_block_used_least_leaves_first_and_of_several_the_one_used_longest_ago():
    policy = LFU()
    policy.insert(names(1, 2, 3, 4, 5))
    policy.touch(names(3))
    policy.touch(names(1, 3))
    policy.touch(names(5))
    policy.touch(names(4, 9))

    assert sweep_all(policy) == names(2, 1, 5, 4, 3)


def test_a_touched_batch_counts_its_tail_as_older():
    policy = LFU()
    policy.insert(names(1, 2, 3))

    policy.touch(names(1, 2, 3))

    assert sweep_all(policy) == names(3, 2, 1)


def test_a_prompt_of_blocks_used_unequally_often_counts_one_use_for_each():
    policy = LFU()
    policy.insert(names(1, 2, 3, 4))
    policy.touch(names(1, 2))
    policy.touch(names(1))

    policy.touch(names(4, 1, 3, 2))
    policy.touch(names(4))

    assert sweep_all(policy) == names(3, 2, 4, 1)


def test_a_block_that_left_starts_again_at_one_use():
    policy = LFU()
    policy.insert(names(1))
    policy.touch(names(1))
    policy.touch(names(1))
    take(policy, 1)

    policy.insert(names(1))
    policy.insert(names(2))
    policy.touch(names(2))

    assert sweep_all(policy) == names(1, 2)


def test_a_removed_block_leaves_the_uses_of_the_others_as_they_were():
    policy = LFU()
    policy.insert(names(1, 2, 3))
    policy.touch(names(1, 2))
    policy.touch(names(1))

    policy.remove(names(2))

    assert sweep_all(policy) == names(3, 1)


def test_no_bucket_is_kept_for_a_number_of_uses_that_nobody_has():
    policy = LFU()
    policy.insert(names(1, 2))
    for _ in range(50):
        policy.touch(names(1))
    for _ in range(50):
        policy.touch(names(2, 1))
    policy.remove(names(2))

    assert len(policy._buckets) <= 3


def test_no_bucket_is_kept_whose_last_block_has_left():
    policy = LFU()
    policy.insert(names(1, 2))
    policy.touch(names(1))

    assert sweep_all(policy) == names(2, 1)
    assert not policy._buckets
