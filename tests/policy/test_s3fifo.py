"""S3-FIFO: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.s3fifo import S3FIFO
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestS3FIFO(PolicyTests):
    @pytest.fixture
    def policy(self):
        return S3FIFO(PolicyTests.MAX_NAMES)


class Oracle:
    """The paper's three queues as lists of names, oldest first, with libCacheSim's sizes and thresholds."""

    def __init__(self, capacity):
        self.capacity, self.small_size, self.ghost_size = capacity, max(1, capacity // 10), capacity * 9 // 10
        self.small, self.main, self.ghost, self.uses = [], [], [], {}
        self.has_evicted = False

    def ask(self, item):
        hit = item in self.uses
        if hit:
            self.uses[item] += 1
            return hit
        returns = item in self.ghost
        if returns:
            self.ghost.remove(item)
        while len(self.uses) == self.capacity:
            self.evict()
        self.uses[item] = 0
        crowded = not self.has_evicted and len(self.small) >= self.small_size
        (self.main if returns or crowded else self.small).append(item)
        return hit

    def evict(self):
        self.has_evicted = True
        if self.small and len(self.main) <= self.capacity - self.small_size:
            item = self.small.pop(0)
            if self.uses.pop(item) >= 2:
                self.main.append(item)
                self.uses[item] = 0
                return
            self.ghost = [*self.ghost, item][-self.ghost_size :] if self.ghost_size else []
        else:
            item = self.main.pop(0)
            uses = self.uses.pop(item)
            if uses:
                self.main.append(item)
                self.uses[item] = min(uses, 3) - 1


def oracle(stream, capacity):
    cache = Oracle(capacity)
    return [cache.ask(item) for item in stream]


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 88), (4, 141), (8, 215), (16, 315), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(S3FIFO(capacity), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 40), max_size=200), capacity=st.integers(1, 30))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(S3FIFO(capacity), stream, capacity) == oracle(stream, capacity)


def full(capacity=20):
    """A policy that holds 1 and 2 on trial, 3 to 20 in the main queue, and has evicted nothing yet."""
    policy = S3FIFO(capacity)
    policy.insert(names(*range(capacity, 0, -1)))
    return policy


def test_before_the_first_eviction_what_the_small_queue_has_no_room_for_goes_to_the_main_one():
    policy = full()
    policy.touch(names(*range(3, 21)))

    assert sweep_all(policy)[:3] == names(1, 2, 3)


def test_after_the_first_eviction_new_blocks_are_on_trial_however_many_they_are():
    policy = full()
    take(policy, 6)

    policy.insert(names(32, 31, 30))

    assert take(policy, 3) == names(30, 31, 32)


def test_a_block_on_trial_that_was_used_once_leaves_before_one_used_twice():
    policy = full()
    policy.touch(names(1, 2))
    policy.touch(names(1))

    victims = sweep_all(policy)

    assert (victims[0], victims[-1]) == (*names(2), *names(1))


def test_a_used_block_of_the_main_queue_gets_another_turn_for_each_use_up_to_three():
    policy = full()
    for uses, name in enumerate(names(3, 4, 5, 6), 1):
        for _ in range(uses + uses // 4 * 9):
            policy.touch([name])

    victims = sweep_all(policy)

    assert victims[2:] == names(*range(7, 21), 3, 4, 5, 6)


def test_a_block_moved_to_the_main_queue_has_to_be_used_anew():
    policy = full()
    for _ in range(3):
        policy.touch(names(1))
    policy.touch(names(3))

    assert sweep_all(policy)[-2:] == names(1, 3)


def test_a_name_that_failed_its_trial_and_is_asked_for_again_goes_to_the_main_queue():
    policy = full()
    take(policy, 2)

    policy.touch(names(1))
    policy.insert(names(1))
    policy.insert(names(30))

    assert take(policy, 2) == names(3, 30)


def test_a_name_that_comes_back_without_having_been_asked_for_is_on_trial():
    policy = full()
    take(policy, 2)

    policy.insert(names(1))

    assert list(policy._ghost) == names(2)
    assert take(policy, 1) == names(1)


def test_a_block_that_leaves_the_main_queue_is_not_remembered():
    policy = full()
    take(policy, 3)

    policy.touch(names(3))
    policy.insert(names(3))
    policy.insert(names(30))

    assert take(policy, 2) == names(3, 30)


def test_the_ghost_remembers_nine_tenths_of_the_capacity_the_newest():
    policy = full(20)
    take(policy, 20)
    policy.insert(names(*range(50, 30, -1)))
    take(policy, 20)

    assert list(policy._ghost) == names(*range(33, 51))


def test_names_asked_for_that_never_come_are_forgotten():
    policy = full(20)
    take(policy, 20)
    for first in (100, 200, 300):
        policy.insert(names(*range(first, first + 20)))
        take(policy, 20)
        policy.touch(names(*range(first, first + 20)))

    assert len(policy._returning) == 18


def test_a_main_queue_beyond_its_share_gives_the_next_victim():
    policy = full()
    take(policy, 2)
    policy.touch(names(1, 2))
    policy.insert(names(2, 1))
    take(policy, 1)

    policy.insert(names(30))

    assert take(policy, 2) == names(4, 30)


def test_a_block_that_passes_its_trial_during_a_sweep_is_asked_about_in_the_main_queue():
    policy = full()
    take(policy, 2)
    policy.touch(names(1, 2))
    policy.insert(names(2, 1))
    policy.insert(names(30))
    policy.touch(names(30))
    policy.touch(names(30))

    assert take(policy, 1, lambda key: key in names(30)) == names(30)


def test_refused_blocks_of_both_queues_keep_their_places():
    policy = full()

    assert take(policy, 2, lambda key: key not in names(1, 3, 4)) == names(2, 5)
    assert take(policy, 4) == names(1, 3, 4, 6)


def test_a_removed_block_is_not_remembered_as_a_failure():
    policy = full()
    policy.remove(names(1, 3))

    policy.touch(names(1))
    policy.insert(names(1))

    assert take(policy, 3) == names(2, 1, 4)


def test_a_block_that_comes_back_unasked_is_no_memory_any_more():
    policy = S3FIFO(10)
    policy.insert(names(1))
    take(policy, 1)
    policy.insert(names(1))

    policy.insert(names(2))
    take(policy, 1)
    policy.insert(names(3))
    take(policy, 1)

    assert list(policy._ghost) == names(1, 2)


def test_who_passes_its_trial_in_a_sweep_is_asked_about_in_the_same_one():
    policy = S3FIFO(10)
    policy.insert(names(*range(11, 0, -1)))  # 1 on trial, ten in a main queue for nine
    policy.touch(names(1))
    policy.touch(names(1))

    assert sweep_all(policy, lambda key: key == names(1)[0]) == names(1)
