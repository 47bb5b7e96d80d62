"""The policies by name, and what holds for every one of the textbooks beyond the laws."""

from collections.abc import Sized

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_helpers import CLASSICS, STREAM, best_hits, classic, play, roll

from kvtier.errors import ConfigError
from kvtier.policy.base import Setting
from kvtier.policy.registry import POLICIES, make_policy
from kvtier.testing.policies import names, sweep_all, take

streams = st.lists(st.integers(0, 9), max_size=60)


def test_an_unknown_policy_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match=r"unknown policy 'mru'; known are .*fifo, lru, lfu"):
        make_policy("mru", Setting(capacity_blocks=8))


def test_every_classic_has_its_name():
    assert [name for name in POLICIES if name in CLASSICS] == list(CLASSICS)


@pytest.mark.parametrize("name", CLASSICS)
def test_a_name_makes_the_policy_that_it_names(name):
    assert type(classic(name, 8)).__name__.lower() == name


@pytest.mark.parametrize("name", CLASSICS)
def test_no_policy_beats_the_best_on_the_fixed_stream_and_all_of_them_hit(name):
    for capacity in (3, 8, 16):
        assert 0 < sum(play(classic(name, capacity), STREAM, capacity)) < best_hits(STREAM, capacity)


@pytest.mark.parametrize("name", CLASSICS)
@given(stream=streams, capacity=st.integers(1, 6))
def test_no_policy_beats_the_best(name, stream, capacity):
    assert sum(play(classic(name, capacity), stream, capacity)) <= best_hits(stream, capacity)


@pytest.mark.parametrize("name", CLASSICS)
def test_names_may_be_numbers_zero_too(name):
    policy = classic(name, 4)
    policy.insert([0, 1])
    policy.touch([0, 1, 2, 3])
    policy.insert([2, 3])

    assert sorted(sweep_all(policy)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", CLASSICS)
def test_a_roll_is_taken_up_oldest_first(name):
    policy, other = classic(name, 40), classic(name, 40)
    policy.insert(roll(*range(30)))

    for number in range(30):
        other.insert(names(number))

    assert sweep_all(policy) == sweep_all(other) == names(*range(30))


@pytest.mark.parametrize("name", CLASSICS)
def test_a_refused_block_is_the_next_victim_once_it_may_leave(name):
    policy = classic(name, 40)
    policy.insert(names(*range(40)))
    first, second, *_ = names(*range(39, -1, -1))

    assert take(policy, 1, lambda key: key != first) == [second]
    assert sweep_all(policy)[-1 if name == "sieve" else 0] == first


def size(policy):
    """Names in everything a policy keeps, more than once those that are in several."""
    return sum(len(part) for part in vars(policy).values() if isinstance(part, Sized))


@pytest.mark.parametrize("name", CLASSICS)
def test_what_a_policy_remembers_is_bounded_by_its_capacity(name):
    policy = classic(name, 50)
    for first in range(0, 5000, 25):
        policy.touch(names(*range(first - 30, first + 50)) if first > 30 else [])
        take(policy, len(policy) + 25 - 50)
        policy.insert(names(*range(first, first + 25)))

    assert size(policy) <= 20 * 50
