"""The rules of placement, one prompt at a time. ``core_helpers`` explains the notation."""

import pytest
from core_helpers import carry_out, chain, entries, key, keys, label, make, put, show, tiers, used

from kvtier.hashing import Chain
from kvtier.listing import Listing
from kvtier.placement import Placement, TierRules
from kvtier.policy.lru import LRU


def write(placement, text, dst=0):
    return placement.plan_write(chain(text), dst)


# Writing: what is planned, and in which order


def test_a_new_prompt_is_taken_up_in_prefix_order():
    assert show(write(make(4), "abc")) == ["a:->0", "ab:->0", "abc:->0"]


def test_only_the_missing_blocks_are_taken_up():
    placement = make(4)
    put(placement, "ab")

    assert show(write(placement, "abcd")) == ["abc:->0", "abcd:->0"]


def test_a_block_held_by_a_slower_tier_is_not_written_again():
    placement = make(4, 4)
    put(placement, "a", dst=1)

    assert show(write(placement, "ab")) == ["ab:->0"]


def test_a_block_that_is_arriving_is_not_planned_again():
    placement = make(4)
    write(placement, "a")

    assert show(write(placement, "ab")) == ["ab:->0"]


def test_a_prompt_can_be_written_to_any_tier():
    assert show(write(make(4, 4), "a", dst=1)) == ["a:->1"]


def test_the_deepest_tier_makes_room_first():
    placement = make(1, 1, 1)
    for text in "abc":
        put(placement, text)

    assert show(write(placement, "d")) == ["a:2>-", "b:1>2", "c:0>1", "d:->0"]


def test_a_chain_ends_where_a_block_hangs_on_another_one():
    whole, other = chain("ab"), chain("cd")
    broken = Chain([*whole.keys, other.keys[1]], [*whole.labels, other.labels[1]])

    assert show(make(4).plan_write(broken)) == ["a:->0", "ab:->0"]


def test_a_victims_own_copy_may_leave_so_that_it_can_sink_and_nothing_is_lost():
    placement = make(2, 1, 1)
    put(placement, "c", dst=1)
    put(placement, "a")
    put(placement, "b")
    carry_out(placement, placement.plan_copy_down(keys("a")))

    assert show(write(placement, "d")) == ["a:2>-", "c:1>2", "a:0>1", "d:->0"]


def test_in_one_tier_drops_come_before_copies():
    placement = make(2, 2, durable=[1])
    put(placement, "b")
    put(placement, "c", dst=1)
    carry_out(placement, placement.plan_promote(keys("c")))

    assert show(write(placement, "xy")) == ["c:0>-", "b:0>1", "x:->0", "xy:->0"]


def test_no_more_blocks_leave_than_places_are_needed():
    placement = make(1, 2)
    for text in "pqr":
        put(placement, text)

    assert show(write(placement, "x")) == ["p:1>-", "r:0>1", "x:->0"]


def test_victims_of_one_prompt_leave_tail_first():
    placement = make(3, 3)
    put(placement, "abc")

    assert show(write(placement, "xy")) == ["abc:0>1", "ab:0>1", "x:->0", "xy:->0"]


def test_the_tail_also_counts_as_older_in_the_tier_it_sank_to():
    placement = make(2, 2, 2)
    put(placement, "ab")
    carry_out(placement, write(placement, "xy"))

    assert show(write(placement, "uv"))[:2] == ["ab:1>2", "a:1>2"]


def test_no_victim_leaves_while_there_is_room():
    placement = make(2, 2)
    put(placement, "a")

    assert show(write(placement, "b")) == ["b:->0"]


def test_a_plan_counts_its_places_at_once():
    placement = make(3)

    write(placement, "ab")

    assert used(placement) == [2]


def test_a_leaving_block_keeps_its_place_until_it_is_gone():
    placement = make(1, 1)
    put(placement, "a")

    plan = write(placement, "b")

    assert used(placement) == [2, 1]
    placement.commit(plan[:1])
    assert used(placement) == [1, 1]


# Room by drops alone


def by_drops(placement, text, **options):
    return show(placement.plan_write(chain(text), demote=False, **options))


def test_without_demotion_the_oldest_leaf_is_dropped_though_there_is_room_below():
    placement = make(3, 3)
    put(placement, "ab")
    put(placement, "c")

    assert by_drops(placement, "x") == ["ab:0>-", "x:->0"]


def test_without_demotion_a_parent_follows_its_child():
    placement = make(2, 3)
    put(placement, "ab")

    assert by_drops(placement, "xy") == ["ab:0>-", "a:0>-", "x:->0", "xy:->0"]


def test_without_demotion_what_lies_elsewhere_too_is_dropped_first():
    placement = make(3, 3, durable=[1])
    put(placement, "c", dst=1)
    put(placement, "ab")
    carry_out(placement, placement.plan_promote(keys("c")))

    assert by_drops(placement, "xy") == ["c:0>-", "ab:0>-", "x:->0", "xy:->0"]


def test_without_demotion_a_parent_of_what_lies_below_stays():
    placement = make(1, 3)
    put(placement, "a")
    put(placement, "ab", dst=1)

    assert by_drops(placement, "x") == []


def test_without_demotion_leased_blocks_and_blocks_in_flight_stay():
    placement = make(2, 3)
    put(placement, "a")
    placement.lease(keys("a"), "me", 1.0)
    placement.plan_write(chain("b"))

    assert by_drops(placement, "x") == []


def test_without_demotion_a_leased_copy_stays_though_there_is_another():
    placement = make(1, 3, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    placement.lease(keys("a"), "me", 1.0)

    assert by_drops(placement, "x") == []


def test_without_demotion_a_prompt_does_not_drop_its_own_head():
    placement = make(2, 3)
    put(placement, "ab")

    assert by_drops(placement, "abc") == by_drops(placement, "x", hold=keys("ab")) == []


def test_free_places_are_those_not_taken():
    placement = make(2, 1)
    put(placement, "a")
    write(placement, "b")

    assert [placement.free_blocks(tier) for tier in (0, 1)] == [0, 1]
    write(placement, "c")  # and a sinks
    assert [placement.free_blocks(tier) for tier in (0, 1)] == [0, 0]


# Who may leave


def test_a_victim_with_another_copy_is_dropped_instead_of_moved():
    placement = make(1, 2, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_a_dropped_victim_with_another_copy_is_read_from_there():
    placement = make(1, 2, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    write(placement, "b")

    assert tiers(placement, "a") == [1]


def test_a_copy_in_a_faster_tier_is_another_copy_too():
    placement = make(2, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    assert show(write(placement, "b", dst=1)) == ["a:1>-", "b:->1"]


def test_only_a_leaf_loses_its_last_copy():
    placement = make(3)
    put(placement, "abc")
    placement.touch(keys("abc")[2:])

    assert show(write(placement, "x")) == ["abc:0>-", "x:->0"]


def test_a_parent_is_a_leaf_once_its_only_child_is_dropped():
    placement = make(2)
    put(placement, "ab")

    assert show(write(placement, "xy")) == ["ab:0>-", "a:0>-", "x:->0", "xy:->0"]


def test_a_parent_whose_child_is_arriving_is_not_a_leaf():
    placement = make(2)
    put(placement, "a")
    write(placement, "ab")

    assert show(write(placement, "x")) == []


def test_a_parent_whose_child_lies_deeper_is_not_a_leaf():
    placement = make(1, 1)
    put(placement, "a")
    placement.plan_write(chain("ab", start=1), 1)

    assert show(write(placement, "x")) == []


def test_a_parent_may_sink_below_its_child():
    placement = make(2, 1)
    put(placement, "ab")
    placement.touch([key("ab")])

    assert show(write(placement, "x")) == ["a:0>1", "x:->0"]


def test_a_grandparent_may_sink_below_both():
    placement = make(2, 1, 1)
    put(placement, "ab")
    placement.touch([key("ab")])
    put(placement, "x")
    placement.touch([key("ab")])

    assert show(write(placement, "y")) == ["a:1>2", "x:0>1", "y:->0"]


def test_what_sinks_below_the_last_tier_is_dropped():
    placement = make(1)
    put(placement, "a")

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_a_leaf_is_dropped_when_the_tier_below_cannot_make_room():
    placement = make(1, 1)
    put(placement, "a", dst=1)
    placement.lease(keys("a"), "me", 1.0)
    put(placement, "b")

    assert show(write(placement, "c")) == ["b:0>-", "c:->0"]


def test_a_block_sinks_one_tier_at_a_time():
    placement = make(1, 0, 4)
    put(placement, "a")

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_a_prompt_longer_than_a_tier_spills_into_the_next():
    placement = make(2, 2)
    put(placement, "ab")

    assert show(write(placement, "abc")) == ["ab:0>1", "abc:->0"]


def test_none_of_a_prompt_is_dropped_for_the_rest_of_it():
    placement = make(2)
    put(placement, "ab")

    assert show(write(placement, "abc")) == []


def test_a_chain_being_promoted_is_never_a_victim():
    placement = make(1, 2)
    put(placement, "a")
    put(placement, "ab")

    assert show(placement.plan_promote(keys("ab"))) == []


def test_the_parent_of_a_chain_that_starts_mid_prompt_is_never_a_victim():
    placement = make(1)
    put(placement, "a")

    assert placement.plan_write(chain("ab", start=1)) == []


def test_a_name_held_for_the_length_of_the_plan_is_not_dropped():
    placement = make(2)
    put(placement, "a")
    put(placement, "b")

    plan = placement.plan_write(chain("c"), hold=keys("a"))

    assert show(plan) == ["b:0>-", "c:->0"]


def test_a_leased_block_is_never_a_victim():
    placement = make(2, 2)
    put(placement, "a")
    put(placement, "b")
    placement.lease(keys("a"), "me", 1.0)

    assert show(write(placement, "c")) == ["b:0>1", "c:->0"]


def test_a_released_block_may_leave_again():
    placement = make(1)
    put(placement, "a")
    lease = placement.lease(keys("a"), "me", 1.0)
    placement.release(lease)

    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_an_expired_lease_protects_no_more_and_is_named():
    placement = make(1)
    put(placement, "a")
    placement.lease(keys("a"), "me", 1.0)

    assert [lease.owner for lease in placement.index.expire(1.0)] == ["me"]
    assert show(write(placement, "b")) == ["a:0>-", "b:->0"]


def test_a_block_in_flight_is_never_a_victim():
    placement = make(2, 1, durable=[1])
    put(placement, "a", dst=1)
    placement.plan_promote(keys("a"))

    assert show(write(placement, "b", dst=1)) == []


def test_a_block_being_dropped_elsewhere_is_not_dropped_here():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    write(placement, "b")

    assert show(write(placement, "c", dst=1)) == []


def test_a_touched_block_leaves_later():
    placement = make(2, 2)
    put(placement, "a")
    put(placement, "b")

    placement.touch(keys("a"))

    assert show(write(placement, "c")) == ["b:0>1", "c:->0"]


def test_a_touch_counts_in_every_tier():
    placement = make(2, 2)
    put(placement, "a", dst=1)
    put(placement, "b", dst=1)

    placement.touch(keys("a"))

    assert show(write(placement, "c", dst=1)) == ["b:1>-", "c:->1"]


def test_a_touched_prompts_tail_is_older_than_its_head():
    placement = make(3, 3)
    put(placement, "ab")
    put(placement, "x")

    placement.touch(keys("ab"))

    assert show(write(placement, "yzw"))[:3] == ["x:0>1", "ab:0>1", "a:0>1"]


def test_a_place_set_aside_for_a_victim_that_never_comes_is_given_back():
    class Fickle(LRU):
        """Asks about a block, and then keeps it."""

        def evict(self, evictable):
            for each in list(self._order):
                evictable(each)
            yield from ()

    placement = Placement([TierRules(1, Fickle()), TierRules(2, LRU())])
    put(placement, "a")

    assert write(placement, "b") == []
    assert used(placement) == [1, 0]


# How far a plan goes


def test_a_plan_ends_where_no_room_can_be_made():
    placement = make(2)

    assert show(write(placement, "abcd")) == ["a:->0", "ab:->0"]


def test_a_plan_for_a_full_tier_of_leased_blocks_is_empty():
    placement = make(1, 1)
    put(placement, "a")
    placement.lease(keys("a"), "me", 1.0)

    assert write(placement, "b") == []


def test_a_plan_that_fails_leaves_every_block_where_it_was():
    placement = make(2, 0)
    put(placement, "ab")
    placement.lease(keys("ab"), "me", 1.0)

    write(placement, "x")

    placement.check()
    assert (used(placement), tiers(placement, "ab")) == ([2, 0], [0, 0])


def test_a_chain_may_start_mid_prompt_under_a_held_parent():
    placement = make(4)
    put(placement, "a")

    assert show(placement.plan_write(chain("abc", start=1))) == ["ab:->0", "abc:->0"]


def test_a_chain_under_a_parent_that_is_not_held_is_not_taken_up():
    assert make(4).plan_write(chain("abc", start=1)) == []


def test_an_empty_chain_needs_no_moves():
    assert make(1).plan_write(Chain([], [])) == []


def test_a_block_whose_former_self_is_on_its_way_out_is_not_planned():
    placement = make(1)
    put(placement, "a")
    write(placement, "b")

    assert write(placement, "a", dst=0) == []


def test_a_block_may_be_planned_again_once_its_last_move_is_over():
    placement = make(1)
    put(placement, "a")
    carry_out(placement, write(placement, "b"))

    assert show(write(placement, "a")) == ["b:0>-", "a:->0"]


def test_nothing_is_hung_under_a_block_on_its_way_out():
    placement = make(2)
    put(placement, "a")
    put(placement, "b")
    write(placement, "c")

    assert placement.plan_write(chain("ab", start=1)) == []


# What can be read meanwhile


def test_an_arriving_block_is_a_miss():
    placement = make(1)

    write(placement, "a")

    assert placement.match(keys("a")).stopped_by == "in_flight"


def test_an_arrived_block_is_a_hit():
    placement = make(1)

    placement.commit(write(placement, "a"))

    assert tiers(placement, "a") == [0]


def test_a_block_on_its_way_down_is_a_miss():
    placement = make(1, 1)
    put(placement, "a")

    write(placement, "b")

    assert placement.match(keys("a")).stopped_by == "in_flight"


def test_a_block_that_sank_is_a_hit_below():
    placement = make(1, 1)
    put(placement, "a")

    put(placement, "b")

    assert tiers(placement, "a") == [1]


def test_a_block_on_its_way_out_is_a_miss():
    placement = make(1)
    put(placement, "a")

    write(placement, "b")

    assert placement.match(keys("a")).stopped_by == "not_held"


def test_a_block_on_its_way_up_is_readable_where_it_was():
    placement = make(1, 1)
    put(placement, "a", dst=1)

    placement.plan_promote(keys("a"))

    assert tiers(placement, "a") == [1]


def test_a_block_that_came_up_is_readable_above_before_it_is_dropped_below():
    placement = make(1, 1)
    put(placement, "a", dst=1)

    follow = placement.commit(placement.plan_promote(keys("a")))

    assert (show(follow), tiers(placement, "a"), used(placement)) == (["a:1>-"], [0], [1, 1])


# Promotion


def test_a_promoted_block_moves_up():
    placement = make(1, 1)
    put(placement, "a", dst=1)

    carry_out(placement, placement.plan_promote(keys("a")))

    assert (tiers(placement, "a"), used(placement)) == ([0], [1, 0])


def test_a_durable_tier_keeps_its_copy_of_a_promoted_block():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)

    plan = placement.plan_promote(keys("a"))
    carry_out(placement, plan)

    assert (show(plan), used(placement)) == (["a:1=0"], [1, 1])


def test_a_promotion_comes_from_the_fastest_tier_that_holds_the_block():
    placement = make(1, 1, 1, durable=[2])
    put(placement, "a", dst=2)
    carry_out(placement, placement.plan_promote(keys("a"), 1))

    assert show(placement.plan_promote(keys("a"))) == ["a:1=0"]


def test_a_block_that_is_fast_enough_is_not_promoted():
    placement = make(2, 2)
    put(placement, "a")
    put(placement, "b", dst=1)

    assert placement.plan_promote(keys("a")) + placement.plan_promote(keys("b"), 1) == []


def test_a_promotion_skips_blocks_in_flight_and_goes_on():
    placement = make(3, 3)
    put(placement, "abc", dst=1)
    placement.plan_promote(keys("a"))

    assert show(placement.plan_promote(keys("abc"))) == ["ab:1=0", "abc:1=0"]


def test_a_promotion_stops_at_a_hole():
    placement = make(3, 3)
    put(placement, "ab", dst=1)

    assert show(placement.plan_promote([key("a"), key("x"), key("ab")])) == ["a:1=0"]


def test_a_promotion_stops_at_an_arriving_block():
    placement = make(3, 3)
    put(placement, "a", dst=1)
    write(placement, "ab", dst=1)

    assert show(placement.plan_promote(keys("ab"))) == ["a:1=0"]


def test_a_promotion_makes_room_first():
    placement = make(1, 2)
    put(placement, "a", dst=1)
    put(placement, "b")

    assert show(placement.plan_promote(keys("a"))) == ["b:0>1", "a:1=0"]


def test_a_promoted_prompt_does_not_evict_itself():
    placement = make(1, 3)
    put(placement, "abc", dst=1)

    assert show(placement.plan_promote(keys("abc"))) == ["a:1=0"]


def test_a_promoted_tail_does_not_evict_its_own_head():
    placement = make(1, 2)
    put(placement, "a")
    carry_out(placement, placement.plan_write(chain("ab", start=1), 1))

    assert placement.plan_promote(keys("ab")) == []


def test_a_block_promoted_is_ordered_by_the_tier_above_only():
    placement = make(1, 2)
    put(placement, "a", dst=1)
    put(placement, "b", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    assert show(write(placement, "cd", dst=1)) == ["b:1>-", "c:->1", "cd:->1"]


# Copies down


def test_a_block_copied_down_also_stays_above():
    placement = make(1, 1)
    put(placement, "a")

    plan = placement.plan_copy_down()
    carry_out(placement, plan)

    assert (show(plan), tiers(placement, "a"), used(placement)) == (["a:0=1"], [0], [1, 1])


def test_copies_go_to_the_last_tier_parents_first():
    placement = make(2, 1, 3)
    put(placement, "b", dst=1)
    put(placement, "a")
    carry_out(placement, placement.plan_write(chain("bc", start=1)))

    plan = show(placement.plan_copy_down())

    assert sorted(plan) == ["a:0=2", "b:1=2", "bc:0=2"]
    assert plan[-1] == "bc:0=2"


def test_chosen_blocks_are_copied_in_the_order_given():
    placement = make(3, 3)
    put(placement, "abc")

    assert show(placement.plan_copy_down(keys("ab"))) == ["a:0=1", "ab:0=1"]


def test_copies_end_where_no_room_can_be_made():
    placement = make(3, 1)
    put(placement, "abc")

    assert show(placement.plan_copy_down()) == ["a:0=1"]


def test_a_block_with_a_copy_below_is_not_copied_again():
    placement = make(1, 1)
    put(placement, "a")
    carry_out(placement, placement.plan_copy_down())

    assert placement.plan_copy_down() == []


def test_copying_down_skips_what_is_not_held_or_in_flight():
    placement = make(3, 3, 3)
    put(placement, "a")
    put(placement, "b", dst=1)
    write(placement, "c")
    placement.plan_promote(keys("b"))

    assert show(placement.plan_copy_down([key("x"), key("c"), key("b"), key("a")])) == ["a:0=2"]


def test_the_only_tier_has_nothing_to_copy_to():
    placement = make(1)
    put(placement, "a")

    assert placement.plan_copy_down() + placement.plan_copy_down(keys("a")) == []


def test_a_copy_does_not_push_out_its_own_parents():
    placement = make(2, 1)
    put(placement, "ab")
    carry_out(placement, placement.plan_copy_down(keys("a")))

    assert placement.plan_copy_down() == []


# Aborted moves


def test_an_aborted_new_block_is_gone():
    placement = make(1)
    plan = write(placement, "a")

    follow = placement.abort(plan)

    assert (follow, used(placement), placement.match(keys("a")).stopped_by) == ([], [0], "not_held")
    placement.check()


def test_an_aborted_new_block_takes_its_arrived_children_along():
    placement = make(3)
    first = write(placement, "a")
    placement.commit(write(placement, "ab"))

    follow = placement.abort(first)

    assert show(follow) == ["ab:0>-"]
    carry_out(placement, follow)
    assert used(placement) == [0]


def test_an_aborted_new_block_takes_its_arriving_children_along():
    placement = make(3)
    first, second = write(placement, "ab")
    placement.abort([first])

    follow = placement.commit([second])

    assert show(follow) == ["ab:0>-"]
    assert placement.match([key("ab")]).stopped_by == "not_held"


def test_an_aborted_sinking_block_is_lost_in_both_tiers():
    placement = make(1, 1)
    put(placement, "a")
    down, new = write(placement, "b")

    follow = placement.abort([down])

    assert (follow, used(placement)) == ([], [1, 0])
    carry_out(placement, [new])
    assert placement.match(keys("a")).stopped_by == "not_held"


def test_an_aborted_sinking_block_takes_its_children_along():
    placement = make(2, 1)
    put(placement, "ab")
    placement.touch([key("ab")])
    down, _ = write(placement, "x")

    assert show(placement.abort([down])) == ["ab:0>-"]


def test_an_aborted_promotion_leaves_the_block_below():
    placement = make(1, 1)
    put(placement, "a", dst=1)

    follow = placement.abort(placement.plan_promote(keys("a")))

    assert (follow, tiers(placement, "a"), used(placement)) == ([], [1], [0, 1])
    placement.check()


def test_an_aborted_promotion_can_be_planned_again():
    placement = make(1, 1)
    put(placement, "a", dst=1)
    placement.abort(placement.plan_promote(keys("a")))

    assert show(placement.plan_promote(keys("a"))) == ["a:1=0"]


def test_an_aborted_copy_leaves_the_block_above():
    placement = make(1, 1)
    put(placement, "a")

    follow = placement.abort(placement.plan_copy_down())

    assert (follow, tiers(placement, "a"), used(placement)) == ([], [0], [1, 0])
    placement.check()


def test_an_aborted_drop_counts_as_done():
    placement = make(1)
    put(placement, "a")
    drop, new = write(placement, "b")

    follow = placement.abort([drop])

    assert (follow, used(placement)) == ([], [1])
    carry_out(placement, [new])


def test_an_aborted_drop_of_one_copy_leaves_the_other():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    drop, _ = write(placement, "b")

    placement.abort([drop])

    assert (tiers(placement, "a"), used(placement)) == ([1], [1, 1])


# Lost and damaged blocks


def test_a_forgotten_block_is_a_miss_and_is_dropped():
    placement = make(1)
    put(placement, "a")

    follow = placement.forget(key("a"), 0)

    assert (show(follow), placement.match(keys("a")).stopped_by) == (["a:0>-"], "not_held")


def test_a_forgotten_block_keeps_its_place_until_it_is_dropped():
    placement = make(1)
    put(placement, "a")

    follow = placement.forget(key("a"), 0)

    assert used(placement) == [1]
    carry_out(placement, follow)
    assert used(placement) == [0]


def test_a_forgotten_copy_leaves_the_other_to_be_read():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    follow = placement.forget(key("a"), 0)

    assert (show(follow), tiers(placement, "a")) == (["a:0>-"], [1])


def test_a_forgotten_copy_can_be_promoted_again_once_dropped():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    carry_out(placement, placement.forget(key("a"), 0))

    assert show(placement.plan_promote(keys("a"))) == ["a:1=0"]


def test_a_forgotten_block_takes_its_descendants_in_every_tier_along():
    placement = make(3, 3)
    put(placement, "a")
    carry_out(placement, placement.plan_write(chain("ab", start=1), 1))
    carry_out(placement, placement.plan_write(chain("abc", start=2), 0))

    follow = placement.forget(key("a"), 0)

    assert sorted(show(follow)) == ["a:0>-", "ab:1>-", "abc:0>-"]
    carry_out(placement, follow)
    assert used(placement) == [0, 0]


def test_a_forgotten_block_leaves_its_parent_and_siblings():
    placement = make(4)
    put(placement, "ab")
    put(placement, "ac")

    placement.forget(key("ab"), 0)

    assert (tiers(placement, "ac"), tiers(placement, "ab")) == ([0, 0], [0])


def test_a_parent_is_a_leaf_once_its_only_child_is_forgotten():
    placement = make(2)
    put(placement, "ab")
    carry_out(placement, placement.forget(key("ab"), 0))
    put(placement, "x")

    assert show(write(placement, "y")) == ["a:0>-", "y:->0"]


def test_a_descendant_on_its_way_down_is_dropped_where_it_arrives():
    placement = make(2, 1)
    put(placement, "ab")
    down, new = write(placement, "x")
    placement.forget(key("a"), 0)

    follow = placement.commit([down])

    assert show(follow) == ["ab:1>-"]
    carry_out(placement, [*follow, new])


def test_a_descendant_on_its_way_up_is_dropped_where_it_was_and_where_it_arrives():
    placement = make(2, 2)
    put(placement, "ab", dst=1)
    first, second = placement.plan_promote(keys("ab"))
    placement.forget(key("a"), 1)
    placement.abort([first])

    assert show(placement.commit([second])) == ["ab:0>-", "ab:1>-"]


def test_a_descendant_whose_promotion_fails_is_dropped_where_it_was():
    placement = make(2, 2)
    put(placement, "ab", dst=1)
    first, second = placement.plan_promote(keys("ab"))
    placement.forget(key("a"), 1)
    placement.abort([first])

    assert show(placement.abort([second])) == ["ab:1>-"]


def test_a_block_forgotten_at_the_source_of_its_promotion_survives_above():
    placement = make(1, 1)
    put(placement, "a", dst=1)
    up = placement.plan_promote(keys("a"))

    assert placement.forget(key("a"), 1) == []
    assert show(placement.commit(up)) == ["a:1>-"]
    assert tiers(placement, "a") == [0]


def test_a_block_forgotten_at_the_durable_source_of_its_promotion_is_dropped_there_after():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    up = placement.plan_promote(keys("a"))
    placement.forget(key("a"), 1)

    assert show(placement.commit(up)) == ["a:1>-"]


def test_a_block_forgotten_at_the_source_of_a_failed_promotion_is_lost():
    placement = make(1, 1)
    put(placement, "a", dst=1)
    up = placement.plan_promote(keys("a"))
    placement.forget(key("a"), 1)

    assert show(placement.abort(up)) == ["a:1>-"]


def test_a_block_forgotten_while_its_other_copy_is_dropped_is_lost():
    placement = make(1, 1, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    drop, _ = write(placement, "b")
    placement.forget(key("a"), 1)

    assert placement.match(keys("a")).stopped_by == "in_flight"
    assert show(placement.commit([drop])) == ["a:1>-"]


def test_forgetting_a_block_that_is_not_held_does_nothing():
    assert make(1).forget(key("a"), 0) == []


def test_forgetting_a_copy_that_is_not_there_does_nothing():
    placement = make(1, 1)
    put(placement, "a")

    assert placement.forget(key("a"), 1) == []
    assert tiers(placement, "a") == [0]


def test_forgetting_a_leaving_block_does_nothing():
    placement = make(1, 1)
    put(placement, "a")
    plan = write(placement, "b")

    assert placement.forget(key("a"), 0) == []
    carry_out(placement, plan)
    assert tiers(placement, "a") == [1]


def test_a_forgotten_name_is_not_planned_before_its_drop_is_over():
    placement = make(2)
    put(placement, "a")
    follow = placement.forget(key("a"), 0)

    assert write(placement, "a") == []
    carry_out(placement, follow)
    assert show(write(placement, "a")) == ["a:->0"]


def test_a_dead_name_is_not_planned_before_its_late_arrival_is_dropped():
    placement = make(4)
    first, second = write(placement, "ab")
    placement.abort([first])
    put(placement, "a")

    assert write(placement, "ab") == []
    follow = placement.commit([second])
    assert write(placement, "ab") == []
    carry_out(placement, follow)
    assert show(write(placement, "ab")) == ["ab:->0"]


def test_a_block_given_up_in_the_batch_that_brought_it_is_ordered_by_no_policy():
    placement = make(2, 2, durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))
    child = write(placement, "ab")
    drop, new = write(placement, "x")
    placement.forget(key("a"), 1)

    follow = placement.commit([*child, drop, new])

    assert sorted(show(follow)) == ["a:1>-", "ab:0>-"]
    placement.check()


def test_a_lease_does_not_save_a_damaged_block():
    placement = make(1)
    put(placement, "a")
    lease = placement.lease(keys("a"), "me", 1.0)

    carry_out(placement, placement.forget(key("a"), 0))

    placement.release(lease)
    assert placement.match(keys("a")).stopped_by == "not_held"


# Restart


def test_what_a_tier_holds_is_readable_after_a_restart():
    placement = make(2, 2)

    assert placement.restore(1, entries("a", "ab")) == []
    assert (tiers(placement, "ab"), used(placement)) == ([1, 1], [0, 2])


def test_a_restart_takes_children_listed_before_their_parents():
    placement = make(2, 3)

    assert placement.restore(1, entries("abc", "ab", "a")) == []
    assert tiers(placement, "abc") == [1, 1, 1]


def test_a_restart_drops_orphans_and_their_descendants():
    placement = make(2, 4)

    follow = placement.restore(1, entries("a", "xy", "xyz"))

    assert sorted(show(follow)) == ["xy:1>-", "xyz:1>-"]
    carry_out(placement, follow)
    assert (used(placement), tiers(placement, "a")) == ([0, 1], [1])


def test_an_orphan_keeps_its_place_until_it_is_dropped():
    placement = make(2, 4)

    placement.restore(1, entries("xy"))

    assert used(placement) == [0, 1]


def test_an_orphans_name_is_not_planned_before_its_drop_is_over():
    placement = make(2, 4)
    follow = placement.restore(1, entries("xy"))

    assert show(write(placement, "xy")) == ["x:->0"]
    carry_out(placement, follow)
    assert show(write(placement, "xy")) == ["xy:->0"]


def test_a_restart_keeps_the_order_in_which_blocks_will_leave():
    placement = make(2, 3)
    placement.restore(1, entries("b", "c", "a"))

    assert show(write(placement, "xyz", dst=1))[:3] == ["b:1>-", "c:1>-", "a:1>-"]


def test_a_restart_over_capacity_drops_the_oldest_leaves():
    placement = make(2, 2)

    follow = placement.restore(1, entries("a", "x", "ab", "b"))

    assert show(follow) == ["x:1>-", "ab:1>-"]
    carry_out(placement, follow)
    assert (used(placement), tiers(placement, "ab")) == ([0, 2], [1])


def test_a_restart_over_capacity_drops_parents_after_their_children():
    placement = make(2, 1)

    assert show(placement.restore(1, entries("ab", "x", "a", "abc"))) == ["x:1>-", "abc:1>-", "ab:1>-"]


def test_orphans_do_not_push_out_what_would_fit_without_them():
    placement = make(2, 2)

    follow = placement.restore(1, entries("a", "xy", "b"))

    assert show(follow) == ["xy:1>-"]


def test_a_restart_of_a_tier_without_room_drops_everything():
    placement = make(2, 0)

    carry_out(placement, placement.restore(1, entries("a", "ab", "b")))

    assert (used(placement), placement.index.nodes) == ([0, 0], {})


def test_a_restart_of_two_tiers_counts_both_copies():
    placement = make(2, 2, 2)
    placement.restore(2, entries("a", "ab"))

    assert placement.restore(1, entries("a")) == []
    assert (tiers(placement, "ab"), used(placement)) == ([1, 2], [0, 1, 2])


def test_a_restart_over_capacity_drops_a_parent_that_another_tier_holds_too():
    placement = make(2, 0, 2)
    placement.restore(2, entries("a", "ab"))

    assert show(placement.restore(1, entries("a"))) == ["a:1>-"]
    assert tiers(placement, "ab") == [2, 2]


@pytest.mark.parametrize("listed", [["a", "ab"], ["ab"]], ids=["over capacity", "orphan"])
def test_a_block_that_one_tiers_restart_gave_up_is_dropped_by_the_next_ones(listed):
    placement = make(2, 2, 1)
    follow = placement.restore(2, entries(*listed))

    follow += placement.restore(1, entries("ab"))
    carry_out(placement, follow)

    assert key("ab") not in placement.index.nodes
    assert placement.used_blocks(1) == 0


# The books


def test_a_placement_counts_its_tiers():
    assert make(1, 1, 1).num_tiers == 3


def test_the_check_finds_a_block_that_no_policy_orders():
    placement = make(1)
    put(placement, "a")
    placement._rules[0].policy.remove(keys("a"))

    with pytest.raises(AssertionError, match="tier 0: policy holds 0 of 1"):
        placement.check()


def test_the_check_finds_a_block_that_is_not_accounted():
    placement = make(1)
    put(placement, "a")
    placement._used[0] = 0

    with pytest.raises(AssertionError, match="tier 0: 1 held, 0 accounted"):
        placement.check()


def test_the_check_finds_an_orphan():
    placement = make(2)
    put(placement, "ab")
    placement.index.nodes[key("ab")].parent = None

    with pytest.raises(AssertionError, match="an orphan"):
        placement.check()


def test_the_check_finds_a_block_that_nothing_holds_and_nothing_brings():
    placement = make(1)
    placement.index.add(key("a"), label("a"))

    with pytest.raises(AssertionError, match="a node without a copy or a move"):
        placement.check()


# A listing beside moves under way


def test_a_listed_block_on_its_way_out_is_not_taken_up_again():
    placement = make(4, 2, durable=(1,))
    placement.restore(1, entries("a", "ab"))
    drops = placement.forget(key("ab"), 1)
    listing = Listing.of(entries("a", "ab"))

    assert placement.reconcile(1, listing) == []
    carry_out(placement, drops)

    assert (used(placement), tiers(placement, "ab")) == ([0, 1], [1])


def test_a_listed_block_on_its_way_in_is_counted_once():
    placement = make(4, 4, durable=(1,))
    put(placement, "ab")
    down = placement.plan_copy_down()

    assert placement.reconcile(1, Listing.of(entries("a", "ab"))) == []
    carry_out(placement, down)

    assert used(placement) == [2, 2]


def test_what_has_moved_since_a_listing_is_not_judged_by_it():
    placement = make(4, 4, durable=(1,))
    put(placement, "ab")
    carry_out(placement, placement.plan_copy_down())

    placement.reconcile(1, Listing.of(entries("x")), moved=set(keys("ab")))

    assert used(placement) == [2, 3]
