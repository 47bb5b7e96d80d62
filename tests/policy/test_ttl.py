"""TTL: the laws of every policy, and who lapses when."""

import random

import pytest

from kvtier.errors import ConfigError
from kvtier.policy.base import Expiring, Setting
from kvtier.policy.fifo import FIFO
from kvtier.policy.lru import LRU
from kvtier.policy.ttl import TTL, ttl
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class TestTTL(PolicyTests):
    @pytest.fixture
    def policy(self):
        return TTL(LRU(), 5.0, Clock())


class TestTTLWithoutRefresh(PolicyTests):
    @pytest.fixture
    def policy(self):
        return TTL(LRU(), 5.0, Clock(), refresh=False)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def policy(clock):
    return TTL(LRU(), 10.0, clock, depth=lambda key: key[-1])


def test_it_says_that_its_names_go_by_time(policy):
    assert isinstance(policy, Expiring)
    assert not isinstance(LRU(), Expiring)


def test_a_block_lapses_when_its_time_is_over_and_not_before(policy, clock):
    policy.insert(names(1))

    clock.now_s = 9.99
    assert policy.lapsed() == []
    clock.now_s = 10.0
    assert policy.lapsed() == names(1)


def test_a_use_begins_the_time_anew(policy, clock):
    policy.insert(names(1, 2))
    clock.now_s = 6.0
    policy.touch(names(1))

    clock.now_s = 12.0
    assert policy.lapsed() == names(2)
    policy.remove(names(2))
    clock.now_s = 16.0
    assert policy.lapsed() == names(1)


def test_without_refresh_a_use_changes_nothing(clock):
    policy = TTL(LRU(), 10.0, clock, refresh=False)
    policy.insert(names(1))
    clock.now_s = 6.0
    policy.touch(names(1))

    clock.now_s = 10.0

    assert policy.lapsed() == names(1)


def test_the_oldest_lapses_first_and_of_one_age_the_deepest(policy, clock):
    policy.insert(names(4, 5))
    clock.now_s = 1.0
    policy.insert(names(1, 2, 3))
    clock.now_s = 2.0
    policy.touch(names(2))

    clock.now_s = 20.0

    assert policy.lapsed() == names(5, 4, 3, 1, 2)


def test_a_tail_written_later_than_its_head_lapses_before_it(policy, clock):
    policy.insert(names(1))
    clock.now_s = 1.0
    policy.insert(names(2))
    clock.now_s = 5.0
    policy.touch(names(1, 2))

    clock.now_s = 15.0

    assert policy.lapsed() == names(2, 1)


def test_a_lapsed_block_that_is_still_held_is_named_again(policy, clock):
    policy.insert(names(1, 2))
    clock.now_s = 10.0
    policy.lapsed()
    policy.remove(names(2))

    assert policy.lapsed() == names(1)
    assert policy._entries == 1
    assert sweep_all(policy) == names(1)


def test_a_lapsed_block_that_is_used_after_all_lives_on(policy, clock):
    policy.insert(names(1))
    clock.now_s = 10.0
    policy.lapsed()

    policy.touch(names(1))

    assert policy.lapsed() == []
    clock.now_s = 20.0
    assert policy.lapsed() == names(1)


def test_a_victim_does_not_lapse(policy, clock):
    policy.insert(names(1, 2))
    take(policy, 1)
    clock.now_s = 10.0

    assert policy.lapsed() == names(1)


def test_a_block_that_came_back_lapses_once_and_by_its_new_time(policy, clock):
    policy.insert(names(1))
    policy.remove(names(1))
    clock.now_s = 5.0
    policy.insert(names(1))

    clock.now_s = 12.0
    assert policy.lapsed() == []
    clock.now_s = 15.0
    assert policy.lapsed() == names(1)


def test_who_leaves_a_full_tier_is_the_inner_policys_choice(policy):
    policy.insert(names(1))
    policy.insert(names(2))
    policy.touch(names(1))

    assert sweep_all(policy) == names(2, 1)


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_what_lapses_is_what_a_list_of_times_says(clock, seed, refresh):
    source = random.Random(seed)
    policy, times = TTL(LRU(), 10.0, clock, refresh), {}
    for _ in range(300):
        clock.now_s += source.choice([0.0, 0.5, 3.0])
        number, verb = source.randrange(8), source.choice(["insert", "touch", "remove", "lapsed"])
        if verb == "insert" and number not in times:
            policy.insert(names(number))
            times[number] = clock.now_s
        elif verb == "touch":
            policy.touch(names(number))
            if number in times and refresh:
                times[number] = clock.now_s
        elif verb == "remove":
            policy.remove(names(number))
            times.pop(number, None)
        else:
            over = [key[-1] for key in policy.lapsed()]
            assert sorted(over) == sorted(each for each, time_s in times.items() if time_s + 10.0 <= clock.now_s)
            assert [times[each] for each in over] == sorted(times[each] for each in over)
            gone = [each for each in over if source.random() < 0.7]
            policy.remove(names(*gone))
            for each in gone:
                del times[each]
        assert len(policy) == len(times)


def test_former_entries_are_forgotten_in_time(policy):
    for _ in range(3000):
        policy.insert(names(1, 2))
        policy.remove(names(1, 2))
    policy.insert(names(1, 2))

    assert sum(map(len, policy._groups.values())) == policy._entries < 1010


def test_forgetting_former_entries_forgets_no_member(policy, clock):
    policy.insert(names(9))
    clock.now_s = 4.0
    for _ in range(3000):
        policy.insert(names(1))
        policy.remove(names(1))
    clock.now_s = 10.0

    assert policy.lapsed() == names(9)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan")])
def test_a_time_that_is_no_time_to_live_is_refused(clock, ttl_s):
    with pytest.raises(ConfigError, match="live for some time"):
        TTL(LRU(), ttl_s, clock)


def test_the_factory_keeps_blocks_for_five_minutes(clock):
    policy = ttl(Setting(capacity_blocks=4, clock=clock))
    policy.insert(names(1))

    clock.now_s = 299.0
    assert policy.lapsed() == []
    clock.now_s = 300.0
    assert policy.lapsed() == names(1)


def test_the_factory_passes_on_how_deep_blocks_lie(clock):
    policy = ttl(Setting(capacity_blocks=4, clock=clock, depth=lambda key: 9 - key[-1]))
    policy.insert(names(1, 2))
    clock.now_s = 300.0

    assert policy.lapsed() == names(1, 2)


def test_the_factory_needs_a_clock():
    with pytest.raises(ConfigError, match="clock"):
        ttl(Setting(capacity_blocks=4))


def test_arranging_orders_who_makes_room_and_is_no_use(policy, clock):
    policy.insert(names(1))
    policy.insert(names(2))
    clock.now_s = 6.0

    policy.arrange(names(1))

    clock.now_s = 10.0
    assert policy.lapsed() == names(2, 1)
    assert take(policy, 2) == names(2, 1)


def test_arranging_an_inner_policy_that_has_no_order_to_arrange_changes_nothing(clock):
    policy = TTL(FIFO(), 10.0, clock)
    policy.insert(names(1))
    policy.insert(names(2))

    policy.arrange(names(1))

    assert sweep_all(policy) == names(1, 2)


def test_who_need_not_wait_any_more_is_told_to_the_inner_policy(clock):
    policy, asked = TTL(FIFO(), 10.0, clock), []
    policy.insert(names(1))
    take(policy, 1, lambda key: None)

    assert sweep_all(policy, asked.append) == []
    assert asked == []
    policy.reconsider(*names(1))
    assert sweep_all(policy) == names(1)


def test_an_inner_policy_that_asks_always_need_not_be_told(policy):
    policy.insert(names(1))

    policy.reconsider(*names(1))

    assert sweep_all(policy) == names(1)
