"""A store by other rules: policies, admissions and times to live by name."""

from unittest.mock import patch

import pytest
from core_helpers import Clock
from store_helpers import check, counters, fetch, make, save, saved, settle, tokens, used, where

from kvtier.errors import ConfigError


@pytest.fixture
def clock():
    """What decides over a store's tiers takes this for the time."""
    clock = Clock()
    with patch("kvtier.ruling.monotonic", clock):
        yield clock


# Policies


def test_a_tiers_policy_decides_who_leaves(tmp_path):
    with make(host=2, policy="fifo") as store:
        saved(store, "a", "b")
        fetch(store, "a")
        saved(store, "c")

        assert [len(where(store, word)) for word in "abc"] == [0, 1, 1]


def test_lru_is_what_decides_if_nothing_is_said(tmp_path):
    with make(host=2) as store:
        saved(store, "a", "b")
        fetch(store, "a")
        saved(store, "c")

        assert [len(where(store, word)) for word in "abc"] == [1, 0, 1]


def test_each_tier_may_have_a_policy_of_its_own(tmp_path):
    with make(tmp_path, host=4, disk=2, policy=["lru", "fifo"], promote=False) as store:
        saved(store, "a", "b", "c", "d", "e")  # a and b have sunk
        fetch(store, "a")
        saved(store, "f")

        assert [where(store, word) for word in "abc"] == [(), ("disk",), ("disk",)]


@pytest.mark.parametrize("policy", ["gdsf", "arc", "sieve"])
def test_a_restart_is_taken_up_under_every_policy(tmp_path, policy):
    with make(tmp_path, host=4, disk=9, policy=policy) as store:
        saved(store, "abc", "xy")

    with make(tmp_path, host=4, disk=9, policy=policy) as store:
        assert fetch(store, "abc").num_blocks == 3
        saved(store, "uvw", "rst")
        check(store)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "mru"}, "unknown policy 'mru'; known are fifo, lru"),
        ({"policy": "belady"}, "it can be replayed over a trace, not run in a store"),
        ({"policy": ["lru"]}, "policy: 1 given for 2 tiers; write one for all, or one for each"),
        ({"admission": "some"}, "unknown admission 'some'; known are all, second_touch"),
        ({"admission": "worth_reloading"}, "is for replays"),
        ({"admission": ["all"] * 3}, "admission: 3 given for 2 tiers"),
        ({"ttl_s": 0}, "a block must live for some time"),
        ({"ttl_s": [None, -1.0]}, "a block must live for some time"),
        ({"ttl_s": []}, "ttl_s: 0 given for 2 tiers"),
    ],
)
def test_rules_that_cannot_be_are_refused(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        make(tmp_path, host=4, disk=4, **options)


# Admission


def test_what_is_not_worth_writing_to_the_disk_never_gets_there(tmp_path):
    with make(tmp_path, host=4, disk=8, admission=["all", "second_touch"]) as store:
        fetch(store, "abc")
        saved(store, "abc", "xyz")
        assert used(store)["disk"] == 0

        fetch(store, "xyz")
        saved(store, "uvw")
        fetch(store, "uvw")
        saved(store, "rst")

        assert [len(where(store, word)) for word in ("abc", "xyz", "rst")] == [0, 0, 3]
        check(store)


def test_what_a_put_may_not_write_is_refused_at_once():
    with make(host=8, admission="long_prompts/3", put_patience_s=60.0) as store:
        fetch(store, "ab")
        stored = save(store, "ab")
        assert (stored.num_new, stored.num_refused) == (0, 2)

        fetch(store, "xyz")
        assert save(store, "xyz").num_new == 3


def test_a_put_writes_as_far_as_it_is_worth_it():
    with make(host=8, admission="write_budget/48") as store:
        stored = save(store, "abcd")

        assert (stored.num_new, len(where(store, "abcd"))) == (2, 2)


def test_a_put_into_places_set_aside_writes_as_far_as_it_is_worth_it(tmp_path):
    with make(tmp_path, host=16, disk=8, admission=["write_budget/48", "all"]) as store:
        stored = save(store, "abcd")

        assert (stored.num_new, fetch(store, "abcd").num_blocks) == (2, 2)


# Time


def test_a_block_whose_time_is_over_is_no_hit(clock):
    with make(host=8, ttl_s=10.0) as store:
        saved(store, "ab")
        clock.now_s = 9.0
        assert fetch(store, "a").num_blocks == 1

        clock.now_s = 10.0

        assert fetch(store, "ab").num_blocks == 1
        clock.now_s = 20.0
        assert fetch(store, "a").num_blocks == 0
        settle(store)
        assert (used(store), counters(store)["expired_blocks"]) == ({"host": 0}, 2)
        check(store)


def test_a_match_names_no_block_whose_time_is_over_and_uses_none(clock):
    with make(host=8, ttl_s=10.0) as store:
        saved(store, "a")
        clock.now_s = 9.0
        assert len(where(store, "a")) == 1

        clock.now_s = 10.0

        assert len(where(store, "a")) == 0


def test_a_block_whose_time_is_over_sinks(clock, tmp_path):
    with make(tmp_path, host=8, disk=8, ttl_s=[10.0, None]) as store:
        saved(store, "ab")

        clock.now_s = 10.0
        store.match(tokens("ab"))
        settle(store)

        assert (where(store, "ab"), fetch(store, "ab").num_blocks) == (("disk", "disk"), 2)
        check(store)


def test_a_pinned_block_outlives_its_time(clock):
    with make(host=8, ttl_s=10.0) as store:
        saved(store, "a")
        with store.pin(tokens("a"), owner="me"):
            clock.now_s = 20.0
            assert fetch(store, "a").num_blocks == 1
            clock.now_s = 29.0
        assert fetch(store, "a").num_blocks == 1


def test_the_policy_called_ttl_keeps_a_block_for_five_minutes(clock):
    with make(host=8, policy="ttl") as store:
        saved(store, "a")
        clock.now_s = 299.0
        assert len(where(store, "a")) == 1
        clock.now_s = 300.0
        assert len(where(store, "a")) == 0


# A prompt's order in a tier


def order(store, tier):
    """Blocks of a tier by depth, worst first."""
    placement = store._core.placement
    return [placement.index[key].depth for key in placement._rules[tier].policy._order]


def test_copies_on_insertion_join_their_prompts_head_in_order(tmp_path):
    with make(tmp_path, host=32, disk=32, write="on_insertion") as store:
        saved(store, "ab")
        saved(store, "abcdefgh")

        assert order(store, 1) == [7, 6, 5, 4, 3, 2, 1, 0]


def test_promoted_blocks_join_their_prompts_head_in_order(tmp_path):
    with make(tmp_path, host=32, disk=32) as store:
        saved(store, "abcdefgh")
    with make(tmp_path, host=32, disk=32) as store:
        fetch(store, "ab")
        settle(store)
        fetch(store, "abcdefgh")
        settle(store)

        assert order(store, 0) == [7, 6, 5, 4, 3, 2, 1, 0]
