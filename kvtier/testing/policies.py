"""The laws of an eviction policy, as a test class to inherit.

    class TestMine(PolicyTests):
        @pytest.fixture
        def policy(self):
            return Mine(capacity=PolicyTests.MAX_NAMES)

Each law holds for every policy that keeps the contract of ``kvtier.policy.base``, whatever its
order of eviction; two that some algorithms break by design can be switched off by a class
attribute. Which victim is the right one is not a law: that takes golden tests of the policy.

Where a law needs the same policy twice it copies the fixture's with ``copy.deepcopy``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable, EvictionPolicy

Step = tuple[str, frozenset[int], int]
"""Verb, names it is about, and how many victims a sweep takes before it is closed."""

_NUM_NAMES = 12


def name(number: int) -> BlockHash:
    """A block's name, the same in every run."""
    return BlockHash(number.to_bytes(32, "big"))


def names(*numbers: int) -> list[BlockHash]:
    """Several names, in the order given."""
    return [name(number) for number in numbers]


def everybody(_: BlockHash) -> bool:
    """The answer of a caller that lets any block leave."""
    return True


def nobody(_: BlockHash) -> bool:
    """The answer of a caller that lets no block leave."""
    return False


def take(policy: EvictionPolicy, count: int, evictable: Evictable = everybody) -> list[BlockHash]:
    """Up to ``count`` victims of one sweep, which is then closed."""
    sweep = policy.evict(evictable)
    victims: list[BlockHash] = []
    while len(victims) < count:
        victim = next(sweep, None)
        if victim is None:
            break
        victims.append(victim)
    sweep.close()
    return victims


def sweep_all(policy: EvictionPolicy, evictable: Evictable = everybody) -> list[BlockHash]:
    """Every victim of one sweep. One more than the policy holds ends it: it would never end."""
    return take(policy, len(policy) + 1, evictable)


class Model:
    """What a policy holds, as a set; order is none of its business."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self.policy = policy
        self.held: set[BlockHash] = set()
        self.victims: list[BlockHash] = []

    def apply(self, step: Step) -> None:
        """Do one step to the policy and to the set, and compare."""
        verb, numbers, count = step
        chosen = names(*sorted(numbers))
        if verb == "insert":
            fresh = [key for key in chosen if key not in self.held]
            self.policy.insert(fresh)
            self.held.update(fresh)
        elif verb == "touch":
            self.policy.touch(chosen)
        elif verb == "remove":
            self.policy.remove(chosen)
            self.held.difference_update(chosen)
        else:
            self._sweep(frozenset(chosen), count)
        assert len(self.policy) == len(self.held), f"after {verb}"

    def _sweep(self, refused: frozenset[BlockHash], count: int) -> None:
        asked: list[BlockHash] = []

        def evictable(key: BlockHash) -> bool:
            asked.append(key)
            return key not in refused

        victims = take(self.policy, count, evictable)
        assert len(set(asked)) == len(asked), "asked about one name twice"
        assert set(asked) <= self.held, "asked about a name that is not held"
        assert set(victims) <= set(asked) - refused, "a victim nobody agreed to"
        if len(victims) < count:
            assert set(victims) == self.held - refused, "a full sweep left a block behind"
        self.held.difference_update(victims)
        self.victims += victims


def histories() -> st.SearchStrategy[list[Step]]:
    """Random lives of a policy, over few enough names that they meet again."""
    verbs = st.sampled_from(["insert", "insert", "touch", "remove", "evict", "evict"])
    numbers = st.frozensets(st.integers(0, _NUM_NAMES - 1))
    return st.lists(st.tuples(verbs, numbers, st.integers(0, _NUM_NAMES + 1)), max_size=30)


def replay(policy: EvictionPolicy, history: Sequence[Step]) -> Model:
    """Live through a history, comparing at each step, and empty the policy in the end."""
    model = Model(policy)
    for step in history:
        model.apply(step)
    model.apply(("evict", frozenset(), _NUM_NAMES + 1))
    return model


_random = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class PolicyTests:
    """Inherit, and supply a ``policy`` fixture that makes an empty policy."""

    MAX_NAMES: ClassVar[int] = 16
    """Names the laws hold at a time, at most: the capacity to give a policy that needs one."""

    resumes: ClassVar[bool] = False
    """True for a policy whose sweep starts where the last one stopped (CLOCK, SIEVE): a refused
    block keeps its place there too, but the hand has passed it."""

    tails_first: ClassVar[bool] = True
    """False for a policy that knows better than the order of a batch (Belady)."""

    def test_p01_every_inserted_block_leaves_exactly_once(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3))
        policy.insert(names(4, 5))

        victims = sweep_all(policy)

        assert sorted(victims) == names(1, 2, 3, 4, 5)

    def test_p02_a_refused_block_stays_held_and_leaves_once_it_may(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3, 4))

        allowed = sweep_all(policy, lambda key: key != name(2))

        assert sorted(allowed) == names(1, 3, 4)
        assert sweep_all(policy) == names(2)

    def test_p03_a_refused_block_keeps_its_place(self, policy: EvictionPolicy) -> None:
        if self.resumes:
            pytest.skip("the next sweep of this policy starts behind the refused block")
        policy.insert(names(1, 2, 3, 4, 5))
        order = sweep_all(copy.deepcopy(policy))
        first, second, third, *rest = order

        assert take(policy, 1, lambda key: key not in {first, second}) == [third]
        assert sweep_all(policy) == [first, second, *rest]

    def test_p04_a_sweep_that_is_refused_everything_changes_nothing(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3, 4, 5))
        order = sweep_all(copy.deepcopy(policy))

        assert sweep_all(policy, nobody) == []
        assert sweep_all(policy) == order

    @_random
    @given(history=histories())
    def test_p05_the_same_history_gives_the_same_victims(self, policy: EvictionPolicy, history: list[Step]) -> None:
        first, second = copy.deepcopy(policy), copy.deepcopy(policy)

        assert replay(first, history).victims == replay(second, history).victims

    def test_p06_within_a_batch_tails_leave_before_heads(self, policy: EvictionPolicy) -> None:
        if not self.tails_first:
            pytest.skip("this policy has its own order within a batch")
        policy.insert(names(1, 2, 3, 4))

        assert sweep_all(policy) == names(4, 3, 2, 1)

    def test_p07_a_sweep_asks_about_each_name_at_most_once_and_ends(self, policy: EvictionPolicy) -> None:
        policy.insert(names(*range(10)))
        policy.touch(names(1, 3, 5))
        asked: list[BlockHash] = []

        def evictable(key: BlockHash) -> bool:
            asked.append(key)
            assert len(asked) <= 10, "the sweep does not end"
            return key in names(2, 3)

        sweep_all(policy, evictable)

        assert sorted(asked) == names(*range(10))

    def test_p08_a_victim_is_the_block_just_asked_about(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3, 4, 5))
        asked: list[BlockHash] = []

        def evictable(key: BlockHash) -> bool:
            asked.append(key)
            return True

        for victim in policy.evict(evictable):
            assert asked[-1] == victim

    def test_p09_closing_a_sweep_early_loses_nothing(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3, 4, 5))

        victims = take(policy, 2, lambda key: key != name(5))

        assert sorted(victims + sweep_all(policy)) == names(1, 2, 3, 4, 5)

    def test_p10_a_sweep_that_is_never_asked_changes_nothing(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3))

        take(policy, 0)

        assert sorted(sweep_all(policy)) == names(1, 2, 3)

    def test_p11_touching_an_absent_name_is_passed_over(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1))

        policy.touch(names(1, 2))

        assert sweep_all(policy) == names(1)

    def test_p12_removing_an_absent_name_is_passed_over(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2))

        policy.remove(names(3, 2))

        assert sweep_all(policy) == names(1)

    def test_p13_a_removed_block_is_never_a_victim(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3))
        policy.touch(names(2))

        policy.remove(names(2))

        assert sorted(sweep_all(policy)) == names(1, 3)

    def test_p14_len_counts_the_names_held(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2, 3, 4))
        policy.touch(names(1, 9))
        policy.remove(names(1, 9))
        take(policy, 1)

        assert len(policy) == 2

    def test_p15_a_block_that_left_may_come_back(self, policy: EvictionPolicy) -> None:
        policy.insert(names(1, 2))
        sweep_all(policy)

        policy.insert(names(2, 1))

        assert sorted(sweep_all(policy)) == names(1, 2)

    def test_p16_an_empty_policy_asks_nothing_and_ends(self, policy: EvictionPolicy) -> None:
        def evictable(key: BlockHash) -> bool:
            raise AssertionError(f"asked about {key.hex()}, which is not held")

        assert sweep_all(policy, evictable) == []

    @_random
    @given(history=histories())
    def test_p17_a_policy_holds_what_a_set_would_hold(self, policy: EvictionPolicy, history: list[Step]) -> None:
        model = replay(copy.deepcopy(policy), history)

        assert model.held == set()
