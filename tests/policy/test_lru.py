"""LRU: the laws of every policy, and the order that is its own."""

from functools import partial
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play, roll

from kvtier.policy.lru import LRU
from kvtier.testing.policies import PolicyTests, names, nobody, sweep_all, take


class TestLRU(PolicyTests):
    @pytest.fixture
    def policy(self):
        return LRU()


def oracle(stream, capacity):
    order, hits = [], 0
    for item in stream:
        hits += item in order
        order = [*(other for other in order if other != item), item][-capacity:]
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 65), (4, 113), (8, 201), (16, 304), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(LRU(), STREAM, capacity)) == hits == oracle(STREAM, capacity)


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


# A batch that came as a roll


def rolled(numbers):
    """An LRU that took up names, oldest first, as a restart does, and one that got them one by one."""
    one, other = LRU(), LRU()
    one.insert(roll(*numbers))
    for name in names(*numbers):
        other.insert([name])
    return one, other


def not_in(refused, key):
    return key not in refused


operations = st.one_of(
    st.tuples(st.just("touch"), st.lists(st.integers(0, 12), max_size=4)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 12), max_size=4)),
    st.tuples(st.just("insert"), st.lists(st.integers(0, 12), max_size=4, unique=True)),
    st.tuples(st.just("evict"), st.sets(st.integers(0, 12)), st.integers(0, 6)),
)


@given(listed=st.lists(st.integers(0, 12), unique=True), history=st.lists(operations, max_size=20))
def test_a_roll_is_kept_in_the_order_of_its_names_one_by_one(listed, history):
    one, other = rolled(listed)
    held = set(listed)
    for verb, numbers, *count in history:
        if verb == "evict":
            may_leave = partial(not_in, set(names(*numbers)))
            gone, same = (list(islice(policy.evict(may_leave), *count)) for policy in (one, other))
            assert gone == same
            held -= {number for number in held if names(number)[0] in set(gone)}
        else:
            batch = [number for number in numbers if verb != "insert" or number not in held]
            for policy in (one, other):
                getattr(policy, verb)(names(*batch))
            held = {"insert": held | set(batch), "remove": held - set(batch), "touch": held}[verb]
        assert len(one) == len(other) == len(held)
    assert sweep_all(one) == sweep_all(other)


def test_a_roll_into_a_policy_that_holds_names_is_a_batch_like_any_other():
    policy = LRU()
    policy.insert(names(3))

    policy.insert(roll(1, 2))

    assert sweep_all(policy) == names(3, 1, 2)


def test_names_on_the_shelf_are_made_only_when_they_are_asked_for():
    one, _ = rolled([1, 2, 3])

    one.touch(names(2))

    assert (len(one._order), len(one._passed), len(one)) == (1, 0, 3)


def test_a_block_of_a_restart_that_was_refused_is_young_once_it_is_used():
    policy = LRU()
    policy.insert(roll(1, 2))
    assert sweep_all(policy, nobody) == []

    policy.touch(names(1))

    assert sweep_all(policy) == names(2, 1)
