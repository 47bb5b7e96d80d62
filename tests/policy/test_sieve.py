"""SIEVE: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.sieve import Sieve
from kvtier.testing.policies import PolicyTests, names, nobody, sweep_all, take


class TestSieve(PolicyTests):
    resumes = True

    @pytest.fixture
    def policy(self):
        return Sieve()


def oracle(stream, capacity):
    """The paper's Algorithm 1, on a list with the newest block first."""
    queue, used, hand, hits = [], set(), None, []
    for item in stream:
        hits.append(item in queue)
        if item in queue:
            used.add(item)
            continue
        if len(queue) == capacity:
            at = len(queue) - 1 if hand is None else queue.index(hand)
            while queue[at] in used:
                used.remove(queue[at])
                at = (at - 1) % len(queue)
            hand = queue[at - 1] if at else None
            del queue[at]
        queue.insert(0, item)
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 65), (4, 129), (8, 206), (16, 315), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(Sieve(), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 15), max_size=80), capacity=st.integers(1, 10))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(Sieve(), stream, capacity) == oracle(stream, capacity)


def test_a_used_block_keeps_its_place_and_leaves_in_the_next_round():
    policy = Sieve()
    policy.insert(names(3, 2, 1))
    policy.touch(names(1))

    assert sweep_all(policy) == names(2, 3, 1)


def test_the_next_sweep_starts_where_the_last_one_ended():
    policy = Sieve()
    policy.insert(names(4, 3, 2, 1))
    policy.touch(names(1))
    take(policy, 1)

    policy.insert(names(5))

    assert sweep_all(policy) == names(3, 4, 5, 1)


def test_behind_the_newest_block_the_hand_goes_back_to_the_oldest_before_another_comes():
    policy = Sieve()
    policy.insert(names(2, 1))
    policy.touch(names(1))
    take(policy, 1)

    policy.insert(names(3))

    assert sweep_all(policy) == names(1, 3)


def test_a_removed_block_under_the_hand_passes_the_hand_on():
    policy = Sieve()
    policy.insert(names(3, 2, 1))
    policy.touch(names(1))
    take(policy, 1)

    policy.remove(names(3))
    policy.insert(names(4))

    assert sweep_all(policy) == names(1, 4)


def test_a_removed_block_behind_the_hand_is_gone():
    policy = Sieve()
    policy.insert(names(3, 2, 1))
    policy.touch(names(1))
    take(policy, 1)

    policy.remove(names(1))

    assert sweep_all(policy) == names(3)


def test_a_refused_block_keeps_its_place_and_the_hand_passes_it():
    policy = Sieve()
    policy.insert(names(4, 3, 2, 1))

    assert take(policy, 1, lambda key: key not in names(1, 2)) == names(3)
    assert sweep_all(policy) == names(4, 1, 2)


def test_a_used_block_is_not_asked_about_before_the_hand_has_cleared_its_bit():
    policy, asked = Sieve(), []
    policy.insert(names(3, 2, 1))
    policy.touch(names(1, 2))

    sweep_all(policy, asked.append)

    assert asked == names(3, 1, 2)


def test_a_sweep_that_gets_nothing_leaves_the_hand_where_it_was():
    policy = Sieve()
    policy.insert(names(4, 3, 2, 1))
    policy.touch(names(1))
    take(policy, 1)

    sweep_all(policy, nobody)

    assert sweep_all(policy) == names(3, 4, 1)
