"""Blocks whose time is over, and blocks that are not worth writing. ``core_helpers`` explains the notation."""

import gc

import pytest
from core_helpers import Clock, Closed, Only, carry_out, chain, key, keys, make, put, show, tiers, used, word

from kvtier.placement import Placement, TierRules
from kvtier.policy.admission import SecondTouch, WriteBudget
from kvtier.policy.lru import LRU
from kvtier.policy.ttl import TTL


@pytest.fixture
def clock():
    return Clock()


def mortal(clock, *tiers, durable=(), admissions=None):
    """A placement of tiers of ``(blocks, seconds to live)``; None lives for ever."""
    admissions = admissions or {}
    rules, placement = [], None

    def depth(name):
        return placement.index[name].depth

    for tier, (blocks, ttl_s) in enumerate(tiers):
        policy = LRU() if ttl_s is None else TTL(LRU(), ttl_s, clock, depth=depth)
        rules.append(TierRules(blocks, policy, durable=tier in durable, admission=admissions.get(tier)))
    placement = Placement(rules)
    return placement


# Expiry


def test_without_a_time_to_live_nothing_expires():
    placement = make(2)
    put(placement, "a")

    assert placement.plan_expire() == []


def test_a_block_whose_time_is_over_goes_from_the_last_tier(clock):
    placement = mortal(clock, (2, 10.0))
    put(placement, "a")

    clock.now_s = 9.0
    assert placement.plan_expire() == []
    clock.now_s = 10.0
    plan = placement.plan_expire()

    assert (show(plan), placement.match(keys("a")).stopped_by) == (["a:0>-"], "not_held")
    carry_out(placement, plan)
    assert used(placement) == [0]


def test_a_prompt_that_is_given_up_leaves_no_cycles_in_memory():
    placement = make(4)
    put(placement, "abcd")
    gc.collect()
    gc.disable()
    try:
        carry_out(placement, placement.forget(key("a"), 0))
        assert used(placement) == [0]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_use_keeps_a_prompt_alive(clock):
    placement = mortal(clock, (3, 10.0))
    put(placement, "ab")
    put(placement, "x")
    clock.now_s = 6.0
    placement.touch(keys("ab"))

    clock.now_s = 12.0

    assert show(placement.plan_expire()) == ["x:0>-"]


def test_a_block_whose_time_is_over_sinks_to_the_next_tier(clock):
    placement = mortal(clock, (2, 10.0), (2, None))
    put(placement, "ab")

    clock.now_s = 10.0
    carry_out(placement, placement.plan_expire())

    assert (tiers(placement, "ab"), used(placement)) == ([1, 1], [0, 2])


def test_a_block_whose_time_is_over_is_dropped_where_it_has_a_copy_below(clock):
    placement = mortal(clock, (2, 10.0), (2, None), durable=[1])
    put(placement, "a", dst=1)
    carry_out(placement, placement.plan_promote(keys("a")))

    clock.now_s = 10.0

    assert show(placement.plan_expire()) == ["a:0>-"]
    assert tiers(placement, "a") == [1]


@pytest.mark.parametrize("prompt", ["a", "ab"])
def test_a_block_whose_time_is_over_is_dropped_where_it_lies_far_below_and_cannot_sink(clock, prompt):
    placement = mortal(clock, (1, 10.0), (1, None), (2, None), durable=[2])
    put(placement, prompt, dst=2)
    carry_out(placement, placement.plan_promote(keys("a")))
    put(placement, "x", dst=1)
    placement.lease(keys("x"), "me", 1.0)

    clock.now_s = 10.0

    assert show(placement.plan_expire()) == ["a:0>-"]
    assert tiers(placement, prompt) == [2] * len(prompt)


def test_who_sinks_in_time_makes_room_below(clock):
    placement = mortal(clock, (1, 10.0), (1, None))
    put(placement, "a", dst=1)
    put(placement, "b")

    clock.now_s = 10.0

    assert show(placement.plan_expire()) == ["a:1>-", "b:0>1"]


def test_what_hangs_on_a_block_whose_time_is_over_goes_with_it(clock):
    placement = mortal(clock, (1, None), (2, 10.0))
    put(placement, "a", dst=1)
    clock.now_s = 5.0
    put(placement, "ab")

    clock.now_s = 10.0
    plan = placement.plan_expire()

    assert show(plan) == ["a:1>-", "ab:0>-"]
    carry_out(placement, plan)
    assert used(placement) == [0, 0]


def test_each_tier_has_a_time_of_its_own(clock):
    placement = mortal(clock, (2, 10.0), (2, 100.0))
    put(placement, "a")
    clock.now_s = 10.0
    carry_out(placement, placement.plan_expire())

    clock.now_s = 109.0
    assert placement.plan_expire() == []
    clock.now_s = 110.0
    assert show(placement.plan_expire()) == ["a:1>-"]


def test_a_leased_block_expires_once_it_is_released(clock):
    placement = mortal(clock, (2, 10.0))
    put(placement, "a")
    lease = placement.lease(keys("a"), "me", 1.0)

    clock.now_s = 10.0
    assert placement.plan_expire() == []
    placement.release(lease)
    assert show(placement.plan_expire()) == ["a:0>-"]


def test_a_block_in_flight_expires_once_it_has_arrived(clock):
    placement = mortal(clock, (2, None), (2, 10.0), durable=[1])
    put(placement, "a", dst=1)
    up = placement.plan_promote(keys("a"))

    clock.now_s = 10.0
    assert placement.plan_expire() == []
    carry_out(placement, up)
    assert show(placement.plan_expire()) == ["a:1>-"]


def test_a_block_that_a_leased_one_hangs_on_stays_with_it(clock):
    placement = mortal(clock, (2, 10.0))
    put(placement, "a")
    put(placement, "ab")
    lease = placement.lease([key("ab")], "me", 1.0)

    clock.now_s = 10.0
    assert placement.plan_expire() == []
    assert placement.match([key("ab")]).tiers == [0]
    placement.release(lease)
    assert sorted(show(placement.plan_expire())) == ["a:0>-", "ab:0>-"]


def test_what_expires_without_a_way_down_disturbs_no_sweep_below(clock):
    below = Closed()
    rules = [TierRules(3, TTL(LRU(), 10.0, clock)), TierRules(2, below, admission=Only("b"))]
    placement = Placement(rules)
    put(placement, "b")
    clock.now_s = 1.0
    put(placement, "a")
    put(placement, "ay", dst=1)
    put(placement, "z", dst=1)
    placement.touch(keys("ay")[1:])

    clock.now_s = 11.0
    plan = placement.plan_expire()  # b sinks, for which z leaves below; a does not, and ay hangs on it

    assert sorted(show(plan)) == ["a:0>-", "ay:1>-", "b:0>1", "z:1>-"]
    assert not below.disturbed
    carry_out(placement, plan)
    assert (used(placement), tiers(placement, "b")) == ([0, 1], [1])


# Admission


def test_a_prompt_is_worth_writing_up_to_its_first_block_that_is_not():
    admission = Only("a", "abc")
    placement = make(4, admissions={0: admission})

    assert [word(each) for each in placement.worth_writing(chain("abc")).keys] == ["a"]
    assert admission.asked == ["a", "ab", "abc"]


def test_blocks_that_are_held_are_not_asked_about():
    admission = Only("ab")
    placement = make(4, admissions={0: admission})
    put(placement, "a")

    assert [word(each) for each in placement.worth_writing(chain("abc")).keys] == ["a", "ab"]
    assert admission.asked == ["ab", "abc"]


def test_a_tier_without_admission_takes_every_prompt():
    placement = make(4, 4, admissions={1: Only()})
    whole = chain("abc")

    assert placement.worth_writing(whole) is whole
    assert placement.worth_writing(whole, 1).keys == []


def test_an_admission_is_told_of_each_prompt_that_arrives():
    admission = Only()
    make(1, 1, admissions={1: admission}).touch(keys("ab"))

    assert admission.touched == ["a", "ab"]


def test_a_victim_not_worth_a_place_below_is_dropped():
    placement = make(1, 2, admissions={1: Only("b")})
    put(placement, "a")

    plan = placement.plan_write(chain("b"))

    assert show(plan) == ["a:0>-", "b:->0"]
    carry_out(placement, plan)
    assert show(placement.plan_write(chain("c"))) == ["b:0>1", "c:->0"]


def test_nobody_leaves_below_for_a_victim_that_is_not_worth_a_place_there():
    placement = make(1, 1, admissions={1: Only("a")})
    put(placement, "a", dst=1)
    put(placement, "b")

    assert show(placement.plan_write(chain("c"))) == ["b:0>-", "c:->0"]
    assert tiers(placement, "a") == [1]


def test_a_parent_not_worth_a_place_below_stays_with_its_child():
    placement = make(2, 2, admissions={1: Only()})
    put(placement, "ab")
    placement.touch([key("ab")])  # a is the older one

    assert show(placement.plan_write(chain("x"))) == ["ab:0>-", "x:->0"]


def test_each_victim_is_asked_about_by_itself():
    placement = make(2, 2, admissions={1: Only("a")})
    put(placement, "a")
    put(placement, "b")

    assert show(placement.plan_write(chain("xy"))) == ["b:0>-", "a:0>1", "x:->0", "xy:->0"]


def test_copies_to_the_last_tier_end_where_they_are_not_worth_it():
    placement = make(4, 4, admissions={1: Only("a", "abc")})
    put(placement, "abc")

    assert show(placement.plan_copy_down(keys("abc"))) == ["a:0=1"]


def test_a_flush_brings_down_what_an_admission_would_not():
    placement = make(4, 4, admissions={1: Only()})
    put(placement, "ab")

    assert show(placement.plan_copy_down()) == ["a:0=1", "ab:0=1"]


def test_what_was_asked_for_twice_sinks_and_the_rest_is_dropped():
    placement = make(2, 2, admissions={1: SecondTouch()})
    placement.touch(keys("a"))
    put(placement, "a")
    placement.touch(keys("b"))
    put(placement, "b")
    placement.touch(keys("a"))

    assert show(placement.plan_write(chain("xy"))) == ["b:0>-", "a:0>1", "x:->0", "xy:->0"]


def test_a_budget_counts_only_who_might_sink(clock):
    budget = WriteBudget(24, 1, clock)  # one block an hour
    placement = make(1, 4, admissions={1: budget})
    put(placement, "a", dst=1)
    assert placement.plan_promote(keys("a")) != []  # in flight: nobody's victim
    put(placement, "b", dst=1)

    assert budget.admit(keys("x")) == 1
