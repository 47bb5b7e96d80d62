"""W-TinyLFU: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.wtinylfu import WTinyLFU
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestWTinyLFU(PolicyTests):
    @pytest.fixture
    def policy(self):
        return WTinyLFU(PolicyTests.MAX_NAMES)


class Oracle:
    """Three lists, the most recent name last, and a table of exact counts."""

    def __init__(self, capacity):
        self.capacity, self.window_size = capacity, max(1, capacity // 100)
        self.protected_size = int(0.8 * (capacity - self.window_size))
        self.window, self.probation, self.protected = [], [], []
        self.counts, self.num_counted = {}, 0

    def ask(self, x):
        self.count(x)
        if x in self.protected:
            self.protected.remove(x)
            self.protected.append(x)
        elif x in self.probation:
            self.probation.remove(x)
            self.protected.append(x)
            if len(self.protected) > self.protected_size:
                self.probation.append(self.protected.pop(0))
        elif x in self.window:
            self.window.remove(x)
            self.window.append(x)
        else:
            if len(self.window) + len(self.probation) + len(self.protected) == self.capacity:
                self.evict()
            self.window.append(x)
            if len(self.window) > self.window_size:
                self.probation.append(self.window.pop(0))
            return False
        return True

    def count(self, x):
        self.counts[x] = min(15, self.counts.get(x, 0) + 1)
        self.num_counted += 1
        if self.num_counted == 10 * self.capacity:
            self.counts, self.num_counted = {x: n // 2 for x, n in self.counts.items()}, 0

    def evict(self):
        main = self.probation or self.protected
        if not main or self.counts.get(self.window[0], 0) < self.counts.get(main[0], 0):
            self.window.pop(0)
        else:
            main.pop(0)
            self.probation.append(self.window.pop(0))


def oracle(stream, capacity):
    cache = Oracle(capacity)
    return [cache.ask(item) for item in stream]


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 94), (4, 152), (8, 219), (16, 317), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(WTinyLFU(capacity), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 25), max_size=250), capacity=st.integers(1, 12))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(WTinyLFU(capacity), stream, capacity) == oracle(stream, capacity)


def test_a_window_of_several_blocks_is_one_of_the_textbook_too():
    stream = [(number * number) % 787 for number in range(4000)]

    assert play(WTinyLFU(500), stream, 500) == oracle(stream, 500)


def full():
    """A policy whose window holds 1 and whose probation holds 2 to 10, the oldest first; none was asked for yet."""
    policy = WTinyLFU(10)
    policy.insert(names(1, 10, 9, 8, 7, 6, 5, 4, 3, 2))
    return policy


def test_of_two_equally_frequent_blocks_the_older_one_leaves():
    assert sweep_all(full()) == names(*range(2, 11), 1)


def test_a_block_of_the_window_that_is_less_frequent_than_the_oldest_on_probation_leaves():
    policy = full()
    policy._uses.update(dict.fromkeys(names(2, 3), 1))

    assert take(policy, 2) == names(1, 2)


def test_a_block_of_the_window_that_wins_is_the_newest_on_probation():
    policy = full()
    policy.touch(names(1))
    take(policy, 1)
    policy.insert(names(20))
    policy._uses.update(dict.fromkeys(names(*range(3, 11)), 1))

    assert take(policy, 9) == names(20, *range(3, 11))


def test_requests_for_a_name_count_before_it_is_held():
    policy = full()
    policy._uses.update(dict.fromkeys(names(3), 2))
    take(policy, 1)
    for _ in range(3):
        policy.touch(names(20))

    policy.insert(names(20))

    assert take(policy, 1) == names(3)


def test_a_block_used_on_probation_leaves_after_all_that_were_not():
    policy = full()
    policy.touch(names(2))

    assert sweep_all(policy) == names(*range(3, 11), 1, 2)


def test_the_oldest_protected_block_goes_back_to_probation_if_they_are_too_many():
    policy = full()
    for name in names(*range(2, 11)):
        policy.touch([name])

    assert sweep_all(policy)[1:4] == names(2, 3, 4)


def test_a_block_used_in_the_window_is_its_newest():
    policy = WTinyLFU(300)
    policy.insert(names(3, 2, 1))

    policy.touch(names(1, 2, 3))

    assert sweep_all(policy) == names(3, 2, 1)


def test_what_the_window_has_no_room_for_is_on_probation():
    policy = full()
    take(policy, 2)

    policy.insert(names(21, 20))

    assert (list(policy._window), list(policy._probation)[-1:]) == (names(21), names(20))


def test_all_counts_are_halved_after_ten_requests_for_each_block_of_the_capacity():
    policy = WTinyLFU(2)
    for number in (1, 1, 1, 1, 1, 2, 2, 3):
        policy.touch(names(number))
    one, two, three, four = names(1, 2, 3, 4)
    assert policy._uses == {one: 5, two: 2, three: 1}

    policy.touch([four] * 12)

    assert policy._uses == {one: 2, two: 1, four: 6}


@pytest.mark.parametrize(("asked", "victim"), [(14, 2), (15, 1), (99, 1)])
def test_what_is_asked_for_fifteen_times_is_asked_for_as_often_as_anything(asked, victim):
    policy = WTinyLFU(100)
    policy.insert(names(1))
    policy.insert(names(2))  # and 1 goes on probation
    policy.touch(names(*[1] * 99))
    policy._probation.update(dict.fromkeys(names(1)))
    policy._protected.clear()
    policy.touch(names(*[2] * asked))

    assert take(policy, 1) == names(victim)


def test_more_than_fifteen_uses_are_not_remembered():
    policy = WTinyLFU(10)
    one, two = names(1, 2)

    policy.touch([one] * 99)
    policy.touch([two])

    assert policy._uses == {one: 7}


def test_who_was_refused_for_others_is_not_asked_about_until_told():
    policy = full()
    asked = []

    def never(key):
        asked.append(key)

    assert take(policy, 1, never) == []
    assert take(policy, 1, never) == []
    assert len(asked) == len(policy) == len(set(asked))
    policy.reconsider(asked[3])
    policy.remove([asked[4]])
    policy.insert([asked[4]])
    assert take(policy, 9, lambda key: asked.append(key) or True) == asked[-2:]
    assert set(asked[-2:]) == {asked[3], asked[4]}


def test_the_table_of_counts_holds_no_more_names_than_the_sample_and_those_left_of_the_last():
    policy = WTinyLFU(10)
    for number in range(2000):
        policy.touch(names(number // 2))
        assert len(policy._uses) <= 100


def test_refused_blocks_of_the_three_queues_keep_their_places():
    policy = full()
    policy.touch(names(2, 3))

    assert take(policy, 1, lambda key: key not in names(1, 2, 3, 4, 5)) == names(6)
    assert [list(queue) for queue in (policy._window, policy._probation, policy._protected)] == [
        [],
        names(4, 5, 7, 8, 9, 10, 1),
        names(3, 2),
    ]


def test_a_refused_block_of_the_window_keeps_its_place():
    policy = full()
    policy._uses.update(dict.fromkeys(names(2), 1))

    assert take(policy, 1, lambda key: key != names(1)[0]) == names(2)
    assert sweep_all(policy) == names(*range(3, 11), 1)


def test_a_refused_block_on_probation_leaves_the_contest_to_the_next():
    policy = full()
    policy.touch(names(1))

    assert take(policy, 1, lambda key: key not in names(2)) == names(3)
    assert take(policy, 2) == names(2, 4)


@pytest.mark.parametrize("number", [1, 4, 2])
def test_a_removed_block_is_gone_from_whichever_queue(number):
    policy = full()
    policy.touch(names(2, 3))

    policy.remove(names(number))

    assert names(number)[0] not in sweep_all(policy)
