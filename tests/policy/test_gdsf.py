"""GDSF: the laws of every policy, and the order that is its own."""

import random

import pytest
from forests import random_prompts, replay
from policy_helpers import STREAM

from kvtier.policy.base import Setting
from kvtier.policy.gdsf import GDSF, gdsf
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestGDSF(PolicyTests):
    @pytest.fixture
    def policy(self):
        return GDSF()


class TestGDSFOfPrompts(PolicyTests):
    @pytest.fixture
    def policy(self):
        return GDSF(lambda depth: 1 + depth, lambda key: key[-1])


def singles(policy, *numbers):
    for each in names(*numbers):
        policy.insert([each])


def test_a_block_used_more_often_leaves_later():
    policy = GDSF()
    singles(policy, 1, 2, 3)

    policy.touch(names(1))
    policy.touch(names(1))
    policy.touch(names(2))

    assert sweep_all(policy) == names(3, 2, 1)


def test_a_block_that_costs_more_leaves_later():
    policy = GDSF(lambda depth: 1 + depth, lambda key: 9 - key[-1])
    singles(policy, 1, 2, 3)

    assert sweep_all(policy) == names(3, 2, 1)


def test_a_block_used_often_long_ago_leaves_before_one_used_lately():
    policy = GDSF()
    singles(policy, 1)
    policy.touch(names(1))
    for number in range(2, 6):
        singles(policy, number)
        take(policy, 1, lambda key: key != names(1)[0])
        policy.touch(names(9))
    singles(policy, 7)

    assert sweep_all(policy) == names(1, 7)


def test_the_floor_rises_to_what_the_last_victim_was_worth():
    policy = GDSF()
    singles(policy, 1, 2)
    policy.touch(names(1, 2))
    take(policy, 1)
    policy.touch(names(9))
    singles(policy, 3)

    assert policy._floor == 2.0
    assert policy._held[names(3)[0]].worth == 3.0


def test_a_head_is_worth_no_less_than_its_tail():
    policy = GDSF(lambda depth: 1 + depth, lambda key: key[-1])
    policy.insert(names(0, 1, 2))
    assert {standing.worth for standing in policy._held.values()} == {3.0}

    policy.touch(names(0, 1))

    assert [policy._held[key].worth for key in names(0, 1, 2)] == [4.0, 4.0, 3.0]


def test_a_head_is_worth_no_less_than_a_tail_that_is_about_to_come():
    policy = GDSF(lambda depth: 1 + depth, lambda key: key[-1])
    policy.insert(names(0))

    policy.touch(names(0, 1, 2, 3, 4))

    assert policy._held[names(0)[0]].worth == 5.0


def test_what_a_prompt_makes_leave_does_not_lift_its_tail_above_its_head():
    policy = GDSF()
    singles(policy, 0, 9)
    policy.touch(names(0, 1))
    take(policy, 1)

    policy.insert(names(1))

    assert sweep_all(policy) == names(1, 0)


def test_a_use_in_a_short_prompt_takes_nothing_from_a_head():
    policy = GDSF(lambda depth: 1 + depth, lambda key: key[-1])
    policy.insert(names(*range(10)))

    policy.touch(names(0))

    assert policy._held[names(0)[0]].worth == 10.0


def reference(history, capacity):
    """Hits by the published formula on single blocks, by search through all of them."""
    floor, held, hits = 0.0, {}, 0
    for step, item in enumerate(history):
        cost = 1 + item
        if item in held:
            uses, _, turn = held[item]
            held[item] = uses + 1, floor + (uses + 1) * cost, turn
            hits += 1
            continue
        if len(held) == capacity:
            victim = min(held, key=lambda other: (held[other][1], -other, held[other][2]))
            level = held.pop(victim)[1]
        else:
            level = floor
        held[item] = 1, floor + cost, step
        floor = level
    return hits


def hits_of(policy, history, capacity):
    held, hits = set(), 0
    for item in history:
        policy.touch(names(item))
        if item in held:
            hits += 1
            continue
        if len(held) == capacity:
            held.remove(take(policy, 1)[0][-1])
        policy.insert(names(item))
        held.add(item)
    return hits


@pytest.mark.parametrize(("capacity", "hits"), [(1, 26), (2, 44), (4, 74), (8, 121), (16, 265), (24, 376)])
def test_a_fixed_stream_gives_a_known_number_of_hits(capacity, hits):
    policy = GDSF(lambda depth: 1 + depth, lambda key: key[-1])

    assert hits_of(policy, STREAM, capacity) == hits == reference(STREAM, capacity)


@pytest.mark.parametrize("seed", range(30))
def test_over_prompts_no_head_is_asked_about_before_its_tail(seed):
    source = random.Random(seed)
    prompts = random_prompts(seed, max_blocks=12, max_requests=30)

    class Watched(GDSF):
        def evict(self, evictable):
            def watched(key):
                answer = evictable(key)
                assert answer or key in current, "a block that is no leaf"
                return answer

            return super().evict(watched)

    def make(setting):
        return Watched(setting.recompute_s, setting.depth)

    current = {block for prompt in prompts for block in prompt}
    replay(prompts, source.randint(4, 8), make, check=True)


def test_former_entries_are_forgotten_in_time():
    policy = GDSF()
    for _ in range(3000):
        policy.insert(names(1))
        policy.remove(names(1))

    assert len(policy._heap) < 1010


def test_forgetting_former_entries_keeps_the_order_of_the_others():
    policy = GDSF()
    singles(policy, 5, 6)
    for _ in range(1010):
        singles(policy, 1)
        policy.remove(names(1))

    singles(policy, 7)
    policy.touch(names(7))

    assert sweep_all(policy) == names(5, 6, 7)


def test_the_factory_passes_on_what_recomputing_costs():
    policy = gdsf(Setting(capacity_blocks=4, depth=lambda key: key[-1], recompute_s=lambda depth: 2.0 + depth))
    policy.insert(names(3))

    assert policy._held[names(3)[0]].worth == 5.0
