"""What docs/reliability.md says and no other test shows: degraded tiers, reasons of misses, flushes of a full disk."""

from dataclasses import replace

import pytest
from store_helpers import NAMESPACE, disk_tier, fetch, make, make_over, save, saved, tokens, where

from kvtier.errors import TierUnavailableError
from kvtier.health import FIRST_WAIT_S, LONGEST_WAIT_S, Breaker
from kvtier.testing.tiers import FaultyTier, on

GONE = TierUnavailableError("disk", "read-only file system")


# Tiers that fail


def test_a_tier_that_fails_is_degraded_with_its_reason_until_it_works_again(tmp_path):
    disk = FaultyTier(disk_tier(tmp_path, 16), on("write", GONE, 2))
    with make_over(disk) as store:
        save(store, "abc")
        assert store.stats()["tiers"]["disk"]["state"] == "ok"
        assert save(store, "xyz").num_refused == 3
        assert store.stats()["tiers"]["disk"]["state"] == "degraded: cannot write: read-only file system"
        assert fetch(store, "abc").num_blocks == 3

        assert save(store, "xyz").num_new == 3
        assert store.stats()["tiers"]["disk"]["state"] == "ok"


def test_a_tier_that_failed_twice_is_left_alone_for_a_while_and_then_asked_once():
    breaker = Breaker()
    breaker.failed("full", 10.0)
    assert breaker.may_try(10.0)
    breaker.failed("full", 10.0)

    assert [breaker.may_try(now) for now in (10.0, 10.0 + FIRST_WAIT_S / 2, 10.0 + FIRST_WAIT_S)] == [
        False,
        False,
        True,
    ]
    breaker.failed("full", 10.0 + FIRST_WAIT_S)
    assert not breaker.may_try(10.0 + 2 * FIRST_WAIT_S)
    breaker.worked()
    assert breaker.may_try(10.0)


def test_no_tier_is_left_alone_for_longer_than_the_bound():
    breaker, now = Breaker(), 0.0
    for _ in range(100):
        breaker.failed("gone", now)
        now = breaker.retry_at
    breaker.failed("gone", now)

    assert breaker.retry_at == now + LONGEST_WAIT_S


# Why a prompt is a miss


def test_a_prompt_held_for_other_weights_is_a_miss_that_says_so(tmp_path):
    with make(tmp_path, disk=8, namespace=replace(NAMESPACE, weights="old")) as store:
        save(store, "abc")

    with make(tmp_path, disk=8, namespace=replace(NAMESPACE, weights="new")) as store:
        asked = store.match(tokens("abc"))
        assert (asked.num_blocks, asked.stopped_by) == (0, "other_namespace")
        assert asked.detail == "weights: held for 'old', asked for 'new'"
        assert store.match(tokens("xyz")).stopped_by == "not_held"
        fetch(store, "abc")
        assert store.stats()["counters"]["missed_blocks.other_namespace"] == 3


@pytest.mark.parametrize("salt", [b"", b"another's"])
def test_a_tenants_prompt_is_a_plain_miss_for_others(tmp_path, salt):
    with make(tmp_path, disk=8, namespace=replace(NAMESPACE, salt=b"a tenant's")) as store:
        save(store, "abc")

    with make(tmp_path, disk=8, namespace=replace(NAMESPACE, salt=salt)) as store:
        asked = store.match(tokens("abc"))
        assert (asked.stopped_by, asked.detail) == ("not_held", None)


# What a flush promises


def test_a_later_flush_to_a_full_disk_may_push_out_what_an_earlier_one_brought_down(tmp_path):
    with make(tmp_path, device=4, disk=3) as store:
        save(store, "abc")
        assert store.flush().num_blocks == 3
        saved(store, "xyz")
        assert store.flush().num_blocks == 3

    with make(tmp_path, disk=3) as store:
        assert (where(store, "abc"), where(store, "xyz")) == ((), ("disk",) * 3)
