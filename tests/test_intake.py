"""What another process brings to a tier and takes from it, one case at a time; ``test_intake_machine`` has the rest."""

import pytest
from core_helpers import carry_out, chain, entries, key, keys, make, put, show, tiers, used

from kvtier.listing import Listing


def shared(*, memory=4, disk=8):
    """A placement over memory and a durable disk that another process uses too."""
    return make(memory, disk, durable={1})


def listing(*words):
    return Listing.of(entries(*words))


# Discovered


def test_what_another_process_brought_is_served():
    placement = shared()
    placement.discover(1, entries("ab", "a"))  # a child may be told of first

    assert (tiers(placement, "ab"), used(placement)) == ([1, 1], [0, 2])


def test_what_is_held_in_memory_and_brought_by_another_lies_in_both():
    placement = shared()
    put(placement, "a")
    placement.discover(1, entries("a"))

    assert used(placement) == [1, 1]
    assert placement.plan_copy_down() == []


def test_what_is_brought_again_while_it_waits_to_be_dropped_takes_one_place():
    placement = make(2, 4, durable=[1])
    put(placement, "a", dst=1)
    promotion = placement.plan_promote(keys("a"))
    assert placement.forget(key("a"), 1) == []  # it is dropped once the promotion has ended
    placement.discover(1, entries("a"))

    drops = placement.commit(promotion)

    assert show(drops) == ["a:1>-"]
    assert used(placement) == [1, 1]


def test_a_discovery_told_twice_counts_once():
    placement = shared()
    for _ in range(2):
        placement.discover(1, entries("a", "bc"))

    assert used(placement) == [0, 2]


def test_a_block_without_its_parent_takes_a_place_and_is_not_served():
    placement = shared()
    placement.discover(1, entries("ab"))

    placement.check()
    assert (tiers(placement, "ab"), used(placement)) == ([], [0, 1])
    assert placement.match(keys("ab")[1:]).stopped_by == "not_held"


def test_strangers_are_taken_up_when_another_process_brings_their_parent():
    placement = shared()
    placement.discover(1, entries("abc", "ab"))
    placement.discover(1, entries("a"))

    assert (tiers(placement, "abc"), used(placement)) == ([1, 1, 1], [0, 3])


def test_strangers_are_taken_up_when_their_parent_arrives_here():
    placement = shared()
    placement.discover(1, entries("ab", "abc"))
    new = placement.plan_write(chain("a"))
    assert tiers(placement, "abc") == []
    carry_out(placement, new)

    assert (tiers(placement, "abc"), used(placement)) == ([0, 1, 1], [1, 2])


def test_a_put_takes_up_strangers_on_its_way_and_stores_only_the_rest():
    placement = shared()
    placement.discover(1, entries("ab", "abc", "xy"))

    assert show(placement.plan_write(chain("abcd"))) == ["a:->0", "abcd:->0"]


def test_a_put_of_several_new_blocks_takes_up_the_stranger_behind_them():
    placement = shared(memory=8)
    placement.discover(1, entries("abc"))

    assert show(placement.plan_write(chain("abcd"))) == ["a:->0", "ab:->0", "abcd:->0"]


def test_a_stranger_is_not_taken_up_by_a_put_that_starts_with_it():
    placement = shared()
    placement.discover(1, entries("ab"))

    assert placement.plan_write(chain("ab", start=1)) == []
    assert used(placement) == [0, 1]


def test_a_stranger_whose_former_self_is_on_its_way_is_taken_up_when_that_is_over():
    placement = shared()
    put(placement, "a")
    placement.discover(1, entries("a", "ab"))
    up = placement.plan_promote(keys("ab"))
    carry_out(placement, placement.forget(key("a"), 0))
    placement.vanish(1, keys("a"))  # and ab is given up, on its way
    placement.discover(1, entries("a"))
    placement.check()
    assert tiers(placement, "ab") == [1]

    carry_out(placement, up)
    assert (tiers(placement, "ab"), used(placement)) == ([1, 1], [0, 2])


def test_a_stranger_whose_parent_is_another_ones_child_stays_one():
    placement = shared()
    placement.discover(1, entries("ab", "xy"))
    put(placement, "a")

    assert tiers(placement, "ab") == [0, 1]
    assert placement.match([key("xy")]).stopped_by == "not_held"


def test_strangers_leave_last_and_the_oldest_of_them_first():
    placement = make(3, durable={0})
    placement.discover(0, entries("uv", "wx", "a"))

    first = placement.plan_write(chain("b"))
    assert show(first) == ["a:0>-", "b:->0"]
    carry_out(placement, first)
    placement.lease(keys("b"), "me", 9.0)
    assert show(placement.plan_write(chain("c"))) == ["uv:0>-", "c:->0"]
    assert show(placement.plan_write(chain("d"))) == ["wx:0>-", "d:->0"]


def test_a_stranger_on_its_way_out_is_not_sent_off_twice():
    placement = make(1, durable={0})
    placement.discover(0, entries("uv"))
    placement.plan_write(chain("a"))

    assert placement.plan_write(chain("b")) == []


def test_a_stranger_whose_former_self_is_on_its_way_is_not_sent_off():
    placement = shared()
    put(placement, "a")
    placement.discover(1, entries("a", "ab"))
    placement.plan_promote(keys("ab"))
    carry_out(placement, placement.forget(key("a"), 0))
    placement.vanish(1, keys("a"))
    placement.resize(1, 1)

    assert placement.plan_write(chain("c"), dst=1) == []


def test_a_stranger_sent_off_leaves_its_place():
    placement = make(1, durable={0})
    placement.discover(0, entries("uv"))
    carry_out(placement, placement.plan_write(chain("a")))

    assert (tiers(placement, "a"), used(placement)) == ([0], [1])


# Vanished


def test_what_another_process_took_away_is_a_miss_and_its_place_is_free():
    placement = shared()
    placement.discover(1, entries("a", "ab"))

    assert placement.vanish(1, keys("ab")[1:]) == []
    assert (tiers(placement, "ab"), used(placement)) == ([1], [0, 1])
    assert placement.match(keys("ab")).stopped_by == "not_held"


def test_what_also_lies_in_memory_is_served_from_there():
    placement = shared()
    put(placement, "ab")
    placement.discover(1, entries("a", "ab"))

    assert placement.vanish(1, keys("ab")) == []
    assert (tiers(placement, "ab"), used(placement)) == ([0, 0], [2, 0])


def test_what_hangs_on_a_vanished_block_stays_on_disk_for_others():
    placement = shared()
    placement.discover(1, entries("a", "ab", "abc"))

    assert placement.vanish(1, keys("a")) == []
    placement.check()
    assert (tiers(placement, "abc"), used(placement)) == ([], [0, 2])

    placement.discover(1, entries("a"))
    assert tiers(placement, "abc") == [1, 1, 1]


def test_what_hangs_on_a_vanished_block_in_memory_is_dropped():
    placement = shared()
    put(placement, "ab")
    placement.discover(1, entries("a"))
    carry_out(placement, placement.forget(key("a"), 0))
    assert tiers(placement, "ab") == [1, 0]

    assert show(placement.vanish(1, keys("a"))) == ["ab:0>-"]


def test_a_stranger_that_vanishes_gives_its_place_back_and_is_not_taken_up():
    placement = shared()
    placement.discover(1, entries("ab"))
    placement.vanish(1, [key("ab"), key("zz")])
    put(placement, "a")

    assert (tiers(placement, "ab"), used(placement)) == ([0], [1, 0])


# On the move here meanwhile


def test_a_block_that_both_bring_at_once_is_held_once():
    placement = make(4, durable={0})
    new = placement.plan_write(chain("a"))
    placement.discover(0, entries("a"))
    assert tiers(placement, "a") == []
    carry_out(placement, new)

    assert (tiers(placement, "a"), used(placement)) == ([0], [1])


def test_a_block_whose_write_failed_is_held_if_another_process_brought_it():
    placement = make(4, durable={0})
    new = placement.plan_write(chain("a"))
    placement.discover(0, entries("a"))

    assert placement.abort(new) == []
    placement.check()
    assert (tiers(placement, "a"), used(placement)) == ([0], [1])


def test_a_block_brought_to_disk_while_it_is_put_to_memory_lies_in_both():
    placement = shared()
    new = placement.plan_write(chain("a"))
    placement.discover(1, entries("a"))
    carry_out(placement, new)

    assert used(placement) == [1, 1]


def test_a_block_taken_away_while_it_was_brought_is_dropped():
    """Before it arrived, or after? Nobody can tell."""
    placement = make(4, durable={0})
    new = placement.plan_write(chain("a"))
    placement.vanish(0, keys("a"))

    follow = placement.commit(new)
    assert (show(follow), tiers(placement, "a"), used(placement)) == (["a:0>-"], [], [1])
    carry_out(placement, follow)
    assert used(placement) == [0]


def test_a_block_brought_again_while_it_was_dropped_is_dropped_again():
    """Before it was dropped, or after?"""
    placement = make(1, durable={0})
    put(placement, "a")
    moves = placement.plan_write(chain("b"))
    placement.discover(0, entries("a"))

    follow = placement.commit(moves)
    assert (show(follow), used(placement)) == (["a:0>-"], [2])
    carry_out(placement, follow)
    assert (tiers(placement, "b"), used(placement)) == ([0], [1])


@pytest.mark.parametrize(("last", "held"), [("discover", 1), ("vanish", 0)])
def test_of_what_is_heard_of_a_block_on_the_move_the_last_counts(last, held):
    placement = make(4, durable={0})
    new = placement.plan_write(chain("a"))
    placement.vanish(0, keys("a"))
    placement.discover(0, entries("a"))
    if last == "vanish":
        placement.vanish(0, keys("a"))
    carry_out(placement, new)

    assert used(placement) == [held]


def test_a_block_brought_by_another_while_it_is_given_up_waits_for_its_parent_and_is_taken_up():
    placement = shared()
    put(placement, "ab")
    gone = placement.forget(key("ab"), 0)  # damaged
    placement.discover(1, entries("ab"))
    carry_out(placement, gone)

    assert (tiers(placement, "ab"), used(placement)) == ([0, 1], [1, 1])


def test_a_copy_found_damaged_on_its_way_up_is_gone_though_a_listing_still_has_it():
    placement = shared()
    placement.discover(1, entries("a"))
    up = placement.plan_promote(keys("a"))
    placement.forget(key("a"), 1)
    placement.reconcile(1, listing("a"))
    carry_out(placement, up)

    assert (tiers(placement, "a"), used(placement)) == ([0], [1, 0])


def test_a_block_taken_by_another_while_its_copy_above_is_dropped_is_listed_no_more():
    placement = shared(memory=1)
    put(placement, "a")
    carry_out(placement, placement.plan_copy_down(keys("a")))
    plan = placement.plan_write(chain("x"))
    assert show(plan) == ["a:0>-", "x:->0"]
    assert placement.vanish(1, keys("a")) == []
    carry_out(placement, plan)

    assert key("a") not in placement.index.nodes
    assert used(placement) == [1, 0]


# Reconciled


def test_a_listing_says_what_has_come_and_what_has_gone():
    placement = shared()
    placement.discover(1, entries("a", "ab", "c", "xy"))
    follow = placement.reconcile(1, listing("a", "d", "ad", "uv"))

    assert follow == []
    assert [tiers(placement, word) for word in ("ab", "c", "ad")] == [[1], [], [1, 1]]
    assert used(placement) == [0, 4]


def test_a_listing_of_what_is_known_changes_nothing():
    placement = shared()
    placement.discover(1, entries("a", "ab", "xy"))
    placement.reconcile(1, listing("a", "ab", "xy"))

    placement.check()
    assert (tiers(placement, "ab"), used(placement)) == ([1, 1], [0, 3])


@pytest.mark.parametrize("words", [(), ("a",), ("a", "ab", "c")])
def test_a_listing_holds_for_blocks_that_are_asleep(words):
    placement = shared()
    placement.restore(1, listing("a", "ab", "b"), shared=True)
    placement.reconcile(1, listing(*words))

    placement.check()
    assert used(placement) == [0, len(words)]
    assert len(tiers(placement, "ab")) == min(2, len(words))


def test_a_block_that_arrives_while_a_listing_is_read_is_where_its_report_says():
    placement = make(4, durable={0})
    new = placement.plan_write(chain("a"))
    placement.reconcile(0, listing())

    assert show(placement.commit(new)) == []
    assert tiers(placement, "a") == [0]


def test_what_memory_holds_outlives_a_disk_that_has_lost_everything():
    placement = shared()
    put(placement, "ab")
    carry_out(placement, placement.plan_copy_down())
    placement.reconcile(1, listing())

    assert (tiers(placement, "ab"), used(placement)) == ([0, 0], [2, 0])


# Opened anew


def test_a_write_that_is_reported_after_the_file_is_another_one_is_not_believed():
    placement = shared()
    put(placement, "a")
    down = placement.plan_copy_down(keys("a"))
    assert placement.reconcile(1, listing(), anew=True) == []

    follow = placement.commit(down)
    assert show(follow) == ["a:1>-"]
    carry_out(placement, follow)
    assert (tiers(placement, "a"), used(placement)) == ([0], [1, 0])


def test_a_write_into_the_new_file_is_believed():
    placement = shared()
    put(placement, "a")
    down = placement.plan_copy_down(keys("a"))
    placement.reconcile(1, listing("a"), anew=True)
    carry_out(placement, down)

    assert used(placement) == [1, 1]


def test_a_write_that_was_reported_while_another_file_was_listed_is_not_believed():
    placement = shared()
    put(placement, "ab")
    carry_out(placement, placement.plan_copy_down(keys("ab")))

    follow = placement.reconcile(1, listing("a"), moved=set(keys("ab")), anew=True)
    assert show(follow) == ["ab:1>-"]
    carry_out(placement, follow)
    assert (tiers(placement, "ab"), used(placement)) == ([0, 0], [2, 1])


def test_nobody_else_has_what_hung_on_a_block_that_went_with_the_old_file():
    placement = shared()
    put(placement, "ab", dst=1)

    carry_out(placement, placement.reconcile(1, listing(), moved={key("ab")}, anew=True))
    assert (tiers(placement, "a"), used(placement)) == ([], [0, 0])


def test_what_memory_holds_and_brings_is_written_to_the_new_file_as_ever():
    placement = shared()
    put(placement, "a")
    new = placement.plan_write(chain("b"))
    placement.reconcile(1, listing(), anew=True)
    carry_out(placement, new)
    carry_out(placement, placement.plan_copy_down())

    assert used(placement) == [2, 2]


def test_what_lay_in_the_old_file_is_not_deleted_from_the_new_one():
    placement = shared()
    put(placement, "ab", dst=1)

    assert placement.reconcile(1, listing(), anew=True) == []
    assert used(placement) == [0, 0]


# Restored


@pytest.mark.parametrize("make_listing", [entries, listing])
def test_a_shared_tier_keeps_what_lacks_its_parent_at_a_restart(make_listing):
    placement = shared()

    assert placement.restore(1, make_listing("a", "bc", "bcd"), shared=True) == []
    placement.check()
    assert (tiers(placement, "a"), used(placement)) == ([1], [0, 3])

    put(placement, "b")
    assert tiers(placement, "bcd") == [0, 1, 1]


@pytest.mark.parametrize("make_listing", [entries, listing])
def test_strangers_that_stay_make_no_room_at_a_restart(make_listing):
    placement = make(2, durable={0})

    assert show(placement.restore(0, make_listing("a", "b", "xy"), shared=True)) == ["a:0>-"]


def test_strangers_of_one_tiers_restart_are_taken_up_when_the_next_one_has_their_parent():
    placement = make(4, 4, durable={0, 1})
    placement.restore(0, entries("ab"), shared=True)
    placement.restore(1, entries("a"), shared=True)

    assert tiers(placement, "ab") == [1, 0]


# Room and availability


def test_a_tier_that_holds_less_than_before_makes_room_earlier():
    placement = make(4, durable={0})
    put(placement, "ab")
    placement.resize(0, 2)

    assert placement.free_blocks(0) == 0
    assert show(placement.plan_write(chain("c"))) == ["ab:0>-", "c:->0"]


def test_a_tier_that_holds_more_than_before_has_free_places():
    placement = make(1, durable={0})
    put(placement, "a")
    placement.resize(0, 3)

    assert placement.free_blocks(0) == 2
    assert show(placement.plan_write(chain("b"))) == ["b:->0"]


def test_what_cannot_be_read_is_held_and_unavailable_until_it_can():
    placement = shared()
    placement.discover(1, entries("a"))
    placement.set_available(1, readable=False, takes=True)
    assert (tiers(placement, "a"), placement.match(keys("a")).stopped_by) == ([], "unavailable")

    placement.set_available(1, readable=True, takes=True)
    assert tiers(placement, "a") == [1]


def test_what_lies_in_a_readable_tier_too_is_served_from_there():
    placement = shared()
    put(placement, "a")
    placement.discover(1, entries("a"))
    placement.set_available(0, readable=False, takes=True)

    assert tiers(placement, "a") == [1]


def test_nothing_sinks_to_a_tier_that_does_not_take():
    placement = shared(memory=1)
    put(placement, "a")
    placement.set_available(1, readable=True, takes=False)

    assert show(placement.plan_write(chain("b"))) == ["a:0>-", "b:->0"]
    assert placement.plan_copy_down(keys("a")) == []


def test_nothing_is_promoted_from_a_tier_that_cannot_be_read():
    placement = shared()
    placement.discover(1, entries("a"))
    placement.set_available(1, readable=False, takes=True)

    assert placement.plan_promote(keys("a")) == []
