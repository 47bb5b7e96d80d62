"""Belady: the laws of every policy, and no cache of prefixes that gets more hits."""

import pytest
from forests import best_hits, random_prompts, replay

from kvtier.errors import ConfigError
from kvtier.policy.base import Setting
from kvtier.policy.belady import Belady, Foresight, belady
from kvtier.policy.lru import LRU
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestBelady(PolicyTests):
    tails_first = False

    @pytest.fixture
    def policy(self):
        return Belady(lambda key: key[-1] // 3, lambda key: key[-1])


class TestBeladyAmongEquals(PolicyTests):
    @pytest.fixture
    def policy(self):
        return Belady(lambda _: 9, lambda _: 0)


def foresight(capacity):
    return lambda policy, future: Foresight(policy, capacity, future.never)


@pytest.mark.parametrize("capacity", range(1, 9))
def test_no_cache_of_prefixes_gets_more_hits(capacity):
    for seed in range(200):
        prompts = random_prompts(seed)

        hits, _ = replay(prompts, capacity, belady, foresight(capacity), check=True)

        assert hits == best_hits(prompts, capacity), f"seed {seed}: {prompts}"


def test_the_random_prompts_tell_the_optimum_from_lru_and_from_no_bypass():
    pairs = [(random_prompts(seed), capacity) for seed in range(50) for capacity in range(1, 8)]

    best = sum(best_hits(*pair) for pair in pairs)

    assert best > sum(replay(*pair, lambda _: LRU())[0] for pair in pairs)
    assert best > sum(replay(*pair, belady)[0] for pair in pairs)


def due_at(uses, depths=None):
    """A policy over names 0, 1, 2 ... that are used next at these times and lie so deep."""
    depths = depths or range(len(uses))
    return Belady(lambda key: uses[key[-1]], lambda key: depths[key[-1]])


def test_the_latest_next_use_leaves_first():
    policy = due_at([7, 9, 8])
    for each in names(0, 1, 2):
        policy.insert([each])

    assert sweep_all(policy) == names(1, 2, 0)


def test_a_touched_block_is_filed_under_its_new_next_use():
    uses = [4, 5, 6]
    policy = due_at(uses)
    for each in names(0, 1, 2):
        policy.insert([each])
    uses[0] = 8

    policy.touch(names(0))

    assert sweep_all(policy) == names(0, 2, 1)


def test_what_comes_after_a_prompts_held_part_leaves_before_it():
    uses = [5] * 5
    policy = due_at(uses)
    policy.insert(names(0, 1))
    uses[:] = [9] * 5
    policy.touch(names(0, 1, 2, 3, 4))

    policy.insert(names(2, 3, 4))

    assert sweep_all(policy) == names(4, 3, 2, 1, 0)


def test_a_head_used_since_leaves_after_the_tail_it_was_not_used_with():
    uses = [5, 9, 9]
    policy = due_at(uses)
    policy.insert(names(0, 1, 2))
    uses[0] = 9

    policy.touch(names(0))

    assert sweep_all(policy) == names(2, 1, 0)


def test_so_does_a_deeper_head_than_the_first_block():
    uses = [5] * 5
    policy = due_at(uses)
    policy.insert(names(1, 2))
    uses[:] = [9] * 5
    policy.insert(names(3, 4))

    policy.touch(names(1, 2))

    assert sweep_all(policy) == names(4, 3, 2, 1)


def test_a_block_that_is_used_sooner_than_all_held_is_let_in():
    policy = due_at([6, 8, 7])
    policy.insert(names(0))
    policy.insert(names(1))

    assert Foresight(policy, 2, never=10).admit(names(2)) == 1


def test_a_block_that_is_used_later_than_all_held_stays_out():
    policy = due_at([6, 8, 8])
    policy.insert(names(0))
    policy.insert(names(1))

    assert Foresight(policy, 2, never=10).admit(names(2)) == 0


def test_each_victim_makes_room_for_one_block():
    policy = due_at([9, 8, 3, 4, 4, 4])
    policy.insert(names(1))
    policy.insert(names(0))
    policy.insert(names(2))

    assert Foresight(policy, 4, never=10).admit(names(3, 4, 5)) == 3
    assert Foresight(policy, 3, never=10).admit(names(3, 4, 5)) == 2
    assert take(policy, 3) == names(0, 1, 2)


def test_a_victim_filed_twice_makes_room_for_one_block():
    policy = due_at([9, 4, 4])
    policy.insert(names(0))
    policy.touch(names(0))

    assert Foresight(policy, 1, never=10).admit(names(1, 2)) == 1


def test_a_block_used_sooner_does_not_pay_for_one_used_later():
    policy = due_at([9, 6, 4, 7])
    policy.insert(names(0))
    policy.insert(names(1))

    assert Foresight(policy, 2, never=10).admit(names(2, 3)) == 1


def test_what_no_victim_pays_for_takes_nothing_from_what_was_let_in():
    policy = due_at([8, 6, 4, 9])
    policy.insert(names(0))
    policy.insert(names(1))

    assert Foresight(policy, 2, never=10).admit(names(2, 3)) == 1


def test_what_is_never_used_again_is_not_written_even_if_there_is_room():
    policy = due_at([4, 10, 10])

    assert Foresight(policy, 8, never=10).admit(names(0, 1, 2)) == 1


def test_former_members_are_forgotten_in_time():
    now = [0]
    policy = Belady(lambda _: now[0], lambda key: key[-1])
    policy.insert(names(*range(100)))
    for now[0] in range(1, 200):
        policy.touch(names(*range(100)))

    assert policy._entries < 1300
    assert sum(len(run) for group in policy._groups.values() for run in group.runs) == policy._entries
    assert sweep_all(policy) == names(*reversed(range(100)))


def test_forgetting_former_members_keeps_the_order_of_the_others():
    uses = [*range(50, 100), 1]
    policy = due_at(uses)
    for each in names(*range(25, 50), *range(25)):
        policy.insert([each])
    for _ in range(1200):
        policy.insert(names(50))
        policy.remove(names(50))

    policy.touch(names(3))

    assert policy._entries <= 52
    assert sweep_all(policy) == names(*reversed(range(50)))


def test_a_block_filed_twice_keeps_its_later_place_alone():
    policy = due_at([9] * 3, [0] * 3)
    policy.insert(names(0))
    policy.insert(names(1))
    for _ in range(1200):
        policy.remove(names(0))
        policy.insert(names(0))

    policy.touch(names(2))

    assert policy._entries == 2
    assert sweep_all(policy) == names(1, 0)


def test_a_prompt_is_looked_up_by_bisection():
    asked = []
    policy = Belady(lambda key: asked.append(key) or 5, lambda _: 0)
    policy.insert(names(*range(200)))

    assert len(asked) < 5


def test_a_tier_that_knows_no_future_is_refused():
    with pytest.raises(ConfigError, match="replayed over a trace"):
        belady(Setting(capacity_blocks=4))
