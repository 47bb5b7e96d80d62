"""FIFO: the laws of every policy, and the order that is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import STREAM, play

from kvtier.policy.fifo import FIFO
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestFIFO(PolicyTests):
    @pytest.fixture
    def policy(self):
        return FIFO()


def oracle(stream, capacity):
    queue, hits = [], []
    for item in stream:
        hits.append(item in queue)
        if item not in queue:
            queue = [*queue, item][-capacity:]
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 63), (4, 103), (8, 183), (16, 296), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    assert sum(play(FIFO(), STREAM, capacity)) == hits


@given(stream=st.lists(st.integers(0, 15), max_size=80), capacity=st.integers(1, 10))
def test_each_hit_is_one_of_the_textbook(stream, capacity):
    assert play(FIFO(), stream, capacity) == oracle(stream, capacity)


def test_a_use_saves_nobody():
    policy = FIFO()
    policy.insert(names(1))
    policy.insert(names(2))

    policy.touch(names(1))

    assert take(policy, 1) == names(1)


def test_several_refused_blocks_keep_their_order():
    policy = FIFO()
    policy.insert(names(5, 4, 3, 2, 1))

    take(policy, 1, lambda key: key not in names(1, 2, 3))

    assert sweep_all(policy) == names(1, 2, 3, 5)


def test_a_long_sweep_asks_about_the_oldest_first_to_its_end():
    policy, asked = FIFO(), []
    policy.insert(names(*range(100, 0, -1)))

    sweep_all(policy, lambda key: asked.append(key) or key in names(*range(1, 101, 7)))

    assert asked == names(*range(1, 101))
