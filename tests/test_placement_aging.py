"""Who leaves first, and where to: victims sink one tier, prompts age as one, copies below stay young.

``core_helpers`` explains the notation.
"""

import pytest
from core_helpers import Closed, carry_out, chain, entries, key, keys, make, put, show, tiers, used, word

from kvtier.listing import Listing
from kvtier.placement import Placement, TierRules
from kvtier.policy.fifo import FIFO
from kvtier.policy.lru import LRU
from kvtier.policy.s3fifo import S3FIFO
from kvtier.policy.sieve import Sieve
from kvtier.policy.ttl import TTL
from kvtier.testing.policies import sweep_all


def write(placement, text, dst=0):
    return placement.plan_write(chain(text), dst)


def promote(placement, text):
    carry_out(placement, placement.plan_promote(keys(text)))


def order(placement, tier):
    """Words of a tier, worst first; the policy is empty afterwards."""
    return [word(each) for each in sweep_all(placement._rules[tier].policy)]


# A victim that lies deeper too


def test_a_victim_that_also_lies_two_tiers_down_sinks_one_tier():
    placement = make(1, 1, 2, durable=[2])
    put(placement, "a", dst=2)
    promote(placement, "a")

    assert show(write(placement, "b")) == ["a:0>1", "b:->0"]


def test_a_victim_that_also_lies_in_the_next_tier_is_dropped():
    placement = make(1, 2, 2, durable=[1])
    put(placement, "a", dst=1)
    promote(placement, "a")

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_a_victim_that_also_lies_in_a_faster_tier_is_dropped_instead_of_sinking():
    placement = make(2, 1, 2, durable=[1])
    put(placement, "a", dst=1)
    promote(placement, "a")

    assert show(write(placement, "b", dst=1)) == ["a:1>-", "b:->1"]


def test_a_victim_that_lies_far_below_is_dropped_where_no_room_can_be_made_for_it():
    placement = make(1, 1, 2, durable=[2])
    put(placement, "a", dst=2)
    promote(placement, "a")
    put(placement, "x", dst=1)
    placement.lease(keys("x"), "me", 1.0)

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]
    assert tiers(placement, "a") == [2]


def test_a_victim_that_lies_far_below_is_dropped_where_nothing_may_sink():
    placement = make(1, 1, 2, durable=[2])
    put(placement, "a", dst=2)
    promote(placement, "a")

    assert show(placement.plan_write(chain("b"), demote=False)) == ["a:0>-", "b:->0"]


def test_a_tier_that_takes_nothing_is_no_place_to_sink_to():
    placement = make(1, 1)
    put(placement, "a")
    placement.set_available(1, readable=True, takes=False)

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


# Falling back on a copy


def test_a_block_that_falls_back_on_a_copy_below_is_young_there():
    placement = make(1, 3, durable=[1])
    for text in "abc":
        put(placement, text, dst=1)
    promote(placement, "a")

    carry_out(placement, write(placement, "x"))

    assert order(placement, 1) == ["b", "c", "a"]


def test_a_prompt_that_falls_back_on_its_copies_keeps_its_tail_older_than_its_head():
    placement = make(2, 3, durable=[1])
    put(placement, "ab", dst=1)
    put(placement, "c", dst=1)
    promote(placement, "ab")

    carry_out(placement, write(placement, "xy"))

    assert order(placement, 1) == ["c", "ab", "a"]


def test_a_block_dropped_below_a_faster_copy_ages_where_it_is():
    placement = make(2, 1, durable=[1])
    put(placement, "a", dst=1)
    promote(placement, "a")
    put(placement, "b")

    carry_out(placement, write(placement, "x", dst=1))

    assert order(placement, 0) == ["a", "b"]


def test_where_no_block_was_used_no_policy_is_told_of_a_use():
    class Told(LRU):
        def touch(self, keys):
            told.append(len(keys))
            super().touch(keys)

    told = []
    placement = Placement([TierRules(2, Told())])
    placement.touch([])
    placement.touch(keys("ab"))

    assert told == [2]


def test_no_policy_is_told_of_a_block_that_falls_back_while_its_sweep_is_open():
    below = Closed()
    placement = Placement([TierRules(2, LRU()), TierRules(2, below, durable=True)])
    put(placement, "a", dst=1)
    put(placement, "b", dst=1)
    promote(placement, "a")
    put(placement, "c")
    placement.touch(keys("a"))

    plan = write(placement, "xy")  # c sinks, for which b leaves; then a falls back

    assert show(plan) == ["b:1>-", "a:0>-", "c:0>1", "x:->0", "xy:->0"]
    assert not below.disturbed
    carry_out(placement, plan)
    assert order(placement, 1) == ["a", "c"]


# Victims that sink together


@pytest.mark.parametrize("stranger", [[], ["pq"]], ids=["alone", "beside a stranger"])
def test_victims_of_a_plan_reach_the_tier_below_in_the_order_in_which_they_left(stranger):
    placement = make(3, 3 + len(stranger))
    placement.discover(1, entries(*stranger))
    put(placement, "ab")
    put(placement, "c")

    carry_out(placement, write(placement, "xyz"))

    assert order(placement, 1) == ["ab", "a", "c"]


# A prompt ages as one


def test_a_prompt_arranged_has_its_tail_older_than_its_head():
    placement = make(4)
    put(placement, "a")
    put(placement, "x")
    placement.touch(keys("abc"))
    put(placement, "abc")

    placement.arrange(keys("abc"))

    assert order(placement, 0) == ["x", "abc", "ab", "a"]


def test_arranging_reaches_every_tier():
    placement = make(2, 3)
    put(placement, "ab", dst=1)
    put(placement, "x", dst=1)

    placement.arrange(keys("ab"))

    assert order(placement, 1) == ["x", "ab", "a"]


def test_arranging_takes_nothing_up():
    placement = make(2)

    placement.arrange(keys("ab"))

    placement.check()
    assert order(placement, 0) == []


@pytest.mark.parametrize("policy", [lambda _: Sieve(), S3FIFO], ids=["sieve", "s3fifo"])
def test_arranging_is_no_use(policy):
    placement, other = make(4, policy=policy), make(4, policy=policy)
    for each in (placement, other):
        put(each, "ab")
        put(each, "xy")

    for _ in range(3):
        placement.arrange(keys("ab"))

    assert order(placement, 0) == order(other, 0)


def test_arranging_reaches_the_order_inside_a_time_to_live():
    placement = make(4, policy=lambda _: TTL(LRU(), 10.0, lambda: 0.0))
    put(placement, "a")
    put(placement, "x")

    placement.arrange(keys("a"))

    assert order(placement, 0) == ["x", "a"]


def test_a_touch_tells_of_blocks_that_are_held_nowhere():
    placement = make(10, policy=S3FIFO)
    placement._rules[0].policy._ghost[key("x")] = None

    placement.touch(keys("x"))

    assert key("x") in placement._rules[0].policy._returning


# A commit with others about


def test_a_report_minds_what_others_have_taken_away_meanwhile():
    placement = make(4, 4, durable=[1])
    put(placement, "a")
    down = placement.plan_copy_down()
    placement.vanish(1, keys("a"))  # it came and went before it was reported

    carry_out(placement, placement.commit(down))

    assert (tiers(placement, "a"), used(placement)) == ([0], [1, 0])


def test_a_report_takes_up_what_waited_for_its_block():
    placement = make(4, 4, durable=[1])
    placement.restore(1, entries("ab"), shared=True)
    assert tiers(placement, "ab") == []

    put(placement, "a")

    assert tiers(placement, "ab") == [0, 1]


# The order of orders


def test_room_for_a_copy_is_made_before_the_copy():
    placement = make(2, 1)
    put(placement, "x", dst=1)
    put(placement, "a")

    assert show(placement.plan_copy_down(keys("a"))) == ["x:1>-", "a:0=1"]


def test_copies_reach_the_last_tier_with_their_tail_older_than_their_head():
    placement = make(2, 2)
    put(placement, "ab")

    carry_out(placement, placement.plan_copy_down())

    assert order(placement, 1) == ["ab", "a"]


# Ways out


def test_a_parent_that_lies_far_below_is_dropped_where_it_cannot_sink():
    placement = make(1, 1, 3, durable=[2])
    put(placement, "ab", dst=2)
    promote(placement, "a")
    put(placement, "x", dst=1)
    placement.lease(keys("x"), "me", 1.0)

    assert show(write(placement, "c")) == ["a:0>-", "c:->0"]


def test_a_place_set_aside_for_one_that_stays_is_the_next_ones():
    class Wavering(LRU):
        """Asks about two blocks before it gives one."""

        def evict(self, evictable):
            first, second = list(self._order)
            evictable(first)
            assert evictable(second)
            del self._order[second]
            yield second

    placement = Placement([TierRules(2, Wavering()), TierRules(2, LRU())])
    put(placement, "x", dst=1)
    put(placement, "a")
    put(placement, "b")

    assert show(write(placement, "c")) == ["b:0>1", "c:->0"]


def test_a_head_refused_in_one_of_several_tiers_leaves_once_it_may():
    placement = make(9, 2, policy=lambda _: FIFO())
    put(placement, "a", dst=1)
    put(placement, "ab", dst=1)
    put(placement, "c", dst=1)  # ab leaves, a was refused for it

    assert show(write(placement, "d", dst=1)) == ["a:1>-", "d:->1"]


@pytest.mark.parametrize("stranger", [[], ["pq"]], ids=["alone", "beside a stranger"])
def test_a_promoted_block_leaves_the_tier_below(stranger):
    placement = make(1, 2)
    placement.discover(1, entries(*stranger))
    put(placement, "a", dst=1)

    assert show(placement.commit(placement.plan_promote(keys("a")))) == ["a:1>-"]


def test_a_copy_on_its_way_out_is_not_dropped_again_though_its_block_sinks_and_a_listing_still_has_it():
    placement = make(1, 1, 1, durable=[2])
    put(placement, "a")
    carry_out(placement, placement.plan_copy_down(keys("a")))
    put(placement, "v", dst=1)
    plan = write(placement, "n")

    assert show(plan) == ["a:2>-", "v:1>2", "a:0>1", "n:->0"]
    placement.reconcile(2, Listing.of(entries("a")))

    assert placement.commit(plan) == [], "it is not dropped once more"
    assert [tiers(placement, each) for each in "anv"] == [[1], [0], [2]]


def test_a_block_that_was_moved_once_is_taken_up_where_a_listing_has_it_again():
    placement = make(1, 2, durable=[1])
    put(placement, "a")
    carry_out(placement, placement.plan_copy_down(keys("a")))
    assert placement.vanish(1, keys("a")) == []
    placement.reconcile(1, Listing.of(entries("a")))

    assert used(placement) == [1, 1]


def test_a_block_that_sinks_is_not_dropped_again_where_a_listing_still_has_it():
    placement = make(1, 1, 2, durable=[1])
    put(placement, "a", dst=1)
    plan = write(placement, "b", dst=1)

    assert show(plan) == ["a:1>2", "b:->1"]
    placement.reconcile(1, Listing.of(entries("a")))

    assert placement.commit(plan) == [], "it is not dropped once more"
    assert (tiers(placement, "a"), used(placement)) == ([2], [0, 1, 1])
