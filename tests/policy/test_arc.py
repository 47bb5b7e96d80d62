"""ARC: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.arc import ARC
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestARC(PolicyTests):
    @pytest.fixture
    def policy(self):
        return ARC(PolicyTests.MAX_NAMES)


class Oracle:
    """The paper's Figure 4 on four lists, the most recent name last."""

    def __init__(self, capacity):
        self.c, self.p = capacity, 0.0
        self.t1, self.t2, self.b1, self.b2 = [], [], [], []

    def replace(self, in_b2):
        if self.t1 and (len(self.t1) > self.p or (in_b2 and len(self.t1) == self.p)):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))

    def ask(self, x):
        for held in (self.t1, self.t2):
            if x in held:
                held.remove(x)
                self.t2.append(x)
                return True
        full = len(self.t1) + len(self.t2) == self.c
        if x in self.b1:
            self.p = min(self.c, self.p + max(len(self.b2) / len(self.b1), 1))
            self.b1.remove(x)
        elif x in self.b2:
            self.p = max(0, self.p - max(len(self.b1) / len(self.b2), 1))
            self.b2.remove(x)
            if full:
                self.replace(in_b2=True)
            self.t2.append(x)
            return False
        else:
            self.make_room(full)
            self.t1.append(x)
            return False
        if full:
            self.replace(in_b2=False)
        self.t2.append(x)
        return False

    def make_room(self, full):
        if len(self.t1) + len(self.b1) == self.c:
            if len(self.t1) < self.c:
                self.b1.pop(0)
                self.replace(in_b2=False)
            else:
                self.t1.pop(0)
        elif full:
            if len(self.t1) + len(self.t2) + len(self.b1) + len(self.b2) == 2 * self.c:
                self.b2.pop(0)
            self.replace(in_b2=False)


def oracle(stream, capacity):
    cache = Oracle(capacity)
    return [cache.ask(item) for item in stream]


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 76), (4, 120), (8, 203), (16, 303), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(ARC(capacity), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 25), max_size=250), capacity=st.integers(1, 12))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(ARC(capacity), stream, capacity) == oracle(stream, capacity)


def used_twice(policy, *numbers):
    for name in names(*numbers):
        policy.insert([name])
        policy.touch([name])


def test_a_block_used_once_leaves_before_one_used_again():
    policy = ARC(8)
    used_twice(policy, 1, 2)
    policy.insert(names(4, 3))

    assert sweep_all(policy) == names(3, 4, 1, 2)


def test_a_touched_batch_counts_its_tail_as_older():
    policy = ARC(8)
    policy.insert(names(1, 2, 3))

    policy.touch(names(1, 2, 3))

    assert sweep_all(policy) == names(3, 2, 1)


def test_a_request_for_what_left_the_first_list_makes_it_larger():
    policy = ARC(4)
    used_twice(policy, 1, 2)
    policy.insert(names(4, 3))
    take(policy, 1)

    policy.touch(names(3))
    policy.insert(names(3))

    assert take(policy, 2) == names(1, 2)


def test_a_request_for_what_left_the_second_list_makes_the_first_smaller():
    policy = ARC(4)
    used_twice(policy, 1, 2)
    policy.insert(names(4, 3))
    take(policy, 1)
    policy.touch(names(3))
    policy.insert(names(3))
    take(policy, 1)

    policy.touch(names(1))

    assert take(policy, 1) == names(4)


def test_at_its_target_the_first_list_gives_the_victim_to_a_prompt_that_left_the_second():
    policy = ARC(4)
    policy._target = 2.0
    policy._left_again.update(dict.fromkeys(names(8)))
    policy._left_once.update(dict.fromkeys(names(9)))
    used_twice(policy, 1)
    policy.insert(names(4, 3))
    policy._target = 3.0

    policy.touch(names(8))

    assert take(policy, 1) == names(3)
    policy.touch(names(7))
    policy.insert(names(7))
    assert take(policy, 1) == names(1)


def test_a_name_that_left_and_was_asked_for_again_comes_to_the_second_list():
    policy = ARC(4)
    policy.insert(names(1))
    take(policy, 1)

    policy.touch(names(1))
    policy.insert(names(1))
    policy.insert(names(3, 2))

    assert take(policy, 1) == names(2)


def test_a_name_that_comes_back_without_having_been_asked_for_is_no_name_that_left():
    policy = ARC(4)
    policy.insert(names(1))
    take(policy, 1)

    policy.insert(names(1))

    assert (list(policy._once), list(policy._left_once)) == (names(1), [])


def test_if_nothing_of_one_list_may_leave_the_other_gives_the_victim():
    policy = ARC(8)
    used_twice(policy, 1, 2)
    policy.insert(names(4, 3))

    assert take(policy, 1, lambda key: key in names(1, 2)) == names(1)
    assert take(policy, 1) == names(3)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_the_four_lists_hold_twice_the_capacity_and_the_first_two_once(size):
    policy = ARC(8)
    for first in range(0, 400, 8):
        policy.touch(names(*range(first, first + 8)))
        policy.touch(names(*range(first - 20, first)) if first > 20 else [])
        for at in range(first, first + 8, size):
            batch = range(at, min(at + size, first + 8))
            take(policy, len(policy) + len(batch) - 8)
            policy.insert(names(*batch))
        policy.touch(names(*range(first, first + 8, 3)))

        once, left = len(policy._once), len(policy._left_once)
        assert once + left <= 8
        assert len(policy) + left + len(policy._left_again) <= 16


def test_names_asked_for_that_never_come_are_forgotten():
    policy = ARC(8)
    for first in (0, 100, 200):
        policy.insert(names(*range(first, first + 8)))
        take(policy, 8)
        policy.touch(names(*range(first, first + 8)))

    assert len(policy._returning) == 8


@pytest.mark.parametrize(("asked", "target"), [([1], 1.0), (range(8), 8.0), ((), 0.0)])
def test_the_target_stays_between_nothing_and_the_capacity(asked, target):
    policy = ARC(8)
    policy.insert(names(*range(8)))
    take(policy, 8)
    policy._left_again.update(dict.fromkeys(names(*range(20, 30))))

    policy.touch(names(*asked))
    policy.touch(names(*asked))

    assert policy._target >= target
    assert policy._target <= 8
    policy.touch(names(*range(20, 30)))
    assert policy._target == 0
