"""The store over small real tiers: what it serves, where it keeps it, and what it says about it."""

import itertools
import logging
import random

import pytest
import torch
from store_helpers import (
    BLOCK,
    NAMESPACE,
    TOKENS,
    blank,
    check,
    counters,
    fetch,
    keys,
    make,
    make_over,
    memory,
    orphans,
    payload,
    save,
    saved,
    settle,
    tokens,
    used,
    where,
)

from kvtier.hashing import Namespace
from kvtier.metrics import COUNTERS
from kvtier.store import Stored

ALL_TIERS = {"device": 4, "host": 2, "disk": 16}


@pytest.fixture
def store(tmp_path):
    """Three tiers: three blocks at rest on the device, two in host memory, sixteen on disk."""
    with make(tmp_path, **ALL_TIERS) as store:
        yield store


@pytest.fixture
def spread(store):
    """``ab`` lies on disk, ``cd`` in host memory, ``efg`` on the device."""
    saved(store, "ab", "cd", "efg")
    assert [where(store, word) for word in ("ab", "cd", "efg")] == [("disk",) * 2, ("host",) * 2, ("device",) * 3]
    return store


# Asking


def test_a_prompt_never_seen_matches_nothing(store):
    hit = store.match(tokens("abc"))

    assert (hit.num_tokens, hit.num_blocks, hit.stopped_by) == (0, 0, "not_held")


def test_a_match_counts_whole_blocks_only(store):
    saved(store, "ab")

    hit = store.match([*tokens("ab"), 7, 7])

    assert (hit.num_tokens, hit.stopped_by) == (2 * TOKENS, None)


def test_a_match_stops_where_the_prompt_parts_from_what_is_held(store):
    saved(store, "abc")

    hit = store.match(tokens("abX"))

    assert (hit.num_blocks, hit.stopped_by) == (2, "not_held")


def test_a_match_names_the_fastest_tier_of_each_block(spread):
    saved(spread, "cdx")  # its new block needs a place: the device's oldest tail sinks, and with it the host's

    assert where(spread, "cdx") == ("host", "disk", "device")


def test_asking_changes_no_statistics(spread):
    before = spread.stats()

    spread.match(tokens("abcd"))
    settle(spread)

    assert spread.stats() == before


def test_asking_does_not_save_a_block_from_eviction():
    with make(host=2) as store:
        saved(store, "a", "b")

        store.match(tokens("a"))
        saved(store, "c")

        assert (where(store, "a"), where(store, "b")) == ((), ("host",))


def test_a_get_saves_a_block_from_eviction():
    with make(host=2) as store:
        saved(store, "a", "b")

        fetch(store, "a")
        saved(store, "c")

        assert (where(store, "a"), where(store, "b")) == (("host",), ())


def test_a_get_holds_on_to_nothing():
    with make(host=2) as store:
        saved(store, "ab")

        fetch(store, "ab")

        assert save(store, "xy").num_new == 2


@pytest.mark.parametrize(
    "other",
    [
        Namespace(spec=NAMESPACE.spec, weights="other"),
        Namespace(spec=NAMESPACE.spec, weights="w", adapter="lora"),
        Namespace(spec=NAMESPACE.spec, weights="w", salt=b"tenant"),
        Namespace(spec=NAMESPACE.spec, weights="w", revision="2"),
        Namespace(spec=NAMESPACE.spec, weights="w", layout="packed"),
    ],
    ids=["weights", "adapter", "salt", "revision", "layout"],
)
def test_another_namespace_in_the_same_directory_finds_nothing(tmp_path, other):
    with make(tmp_path, disk=4) as store:
        save(store, "ab")

    with make(tmp_path, disk=4, namespace=other) as store:
        assert where(store, "ab") == ()


# Reading


@pytest.mark.parametrize(("word", "tier"), [("ab", "disk"), ("cd", "host"), ("efg", "device")])
def test_a_get_delivers_what_was_put_and_says_from_where(spread, word, tier):
    hit = fetch(spread, word)

    assert (hit.tiers, hit.stopped_by) == ((tier,) * len(word), None)


def test_one_get_delivers_from_several_tiers(store):
    saved(store, "ab", "pq", "rs", "abc")

    hit = fetch(store, "abc")

    assert sorted(hit.tiers) == ["device", "disk", "host"]


def test_a_get_fills_strided_buffers_of_any_shape(spread):
    layers, _, heads, block_tokens, head_dim = NAMESPACE.spec.block_shape
    cache = torch.zeros((layers, 2, heads, 3 * block_tokens, head_dim), dtype=torch.float32)
    views = [cache.view(torch.uint8)[:, :, :, i * block_tokens : (i + 1) * block_tokens] for i in range(3)]

    spread.get(tokens("efg"), views)

    assert [view.reshape(-1).equal(payload(key)) for view, key in zip(views, keys(spread, "efg"), strict=True)] == (
        [True] * 3
    )


def test_buffers_behind_the_hit_do_not_count(store):
    saved(store, "ab")

    assert fetch(store, "abX").num_blocks == 2


def test_fewer_buffers_than_blocks_deliver_what_fits(spread):
    hit = spread.get(tokens("efg"), blank(2))

    assert (hit.num_blocks, hit.stopped_by) == (2, "no_buffer")


def test_more_buffers_than_blocks_are_left_alone(spread):
    hit = spread.get(tokens("efg"), blank(9))

    assert (hit.num_blocks, hit.stopped_by) == (3, None)


def test_every_block_asked_for_is_a_hit_or_a_miss(spread):
    asked = ["ab", "abX", "cdXY", "Z", "efg", ""]

    for word in asked:
        fetch(spread, word)

    counts = counters(spread)
    assert counts["hit_blocks"] + counts["missed_blocks"] == sum(map(len, asked))
    assert counts["hit_blocks"] == sum(counts.get(f"hit_blocks.{tier}", 0) for tier in ALL_TIERS)


# Writing


def test_a_put_says_how_many_blocks_are_new(store):
    assert save(store, "abc") == Stored(num_new=3, num_refused=0)


def test_a_second_put_stores_nothing(store):
    save(store, "abc")

    assert save(store, "abc") == Stored(num_new=0, num_refused=0)


def test_prompts_share_their_common_blocks(store):
    saved(store, "ab")

    assert save(store, "abc").num_new == 1


def test_the_first_bytes_of_a_name_stay(store):
    saved(store, "a")

    store.put(tokens("a"), blank(1))

    assert fetch(store, "a").num_blocks == 1


def test_a_put_may_start_behind_blocks_that_are_held(store):
    saved(store, "ab")

    assert save(store, "abc", start=2) == Stored(num_new=1, num_refused=0)


def test_a_put_behind_blocks_that_are_not_held_stores_nothing(store):
    assert save(store, "abc", start=2) == Stored(num_new=0, num_refused=1)


def test_a_put_copies_its_blocks_before_it_returns(store):
    blocks = [payload(key) for key in keys(store, "ab")]

    store.put(tokens("ab"), blocks)
    for block in blocks:
        block.zero_()

    assert fetch(store, "ab").num_blocks == 2


def test_a_put_takes_strided_blocks(store):
    layers, _, heads, block_tokens, head_dim = NAMESPACE.spec.block_shape
    cache = torch.zeros((layers, 2, heads, 2 * block_tokens, head_dim), dtype=torch.float32)
    views = [cache.view(torch.uint8)[:, :, :, i * block_tokens : (i + 1) * block_tokens] for i in range(2)]
    for view, key in zip(views, keys(store, "ab"), strict=True):
        view.copy_(payload(key).view(view.shape))

    store.put(tokens("ab"), views)

    assert fetch(store, "ab").num_blocks == 2


def test_what_does_not_fit_is_refused_and_the_head_is_kept():
    with make(host=2) as store:
        assert save(store, "abcd") == Stored(num_new=2, num_refused=2)
        assert fetch(store, "abcd").num_blocks == 2


def test_a_plan_that_takes_up_a_part_is_followed_by_another(monkeypatch):
    with make(host=2) as store:
        plan, sizes = store._core.placement.plan_write, itertools.count(1)
        monkeypatch.setattr(
            store._core.placement, "plan_write", lambda part, **options: plan(part.part(0, next(sizes)), **options)
        )

        assert save(store, "ab") == Stored(num_new=2, num_refused=0)


def test_write_on_insertion_copies_to_the_last_tier_at_once(tmp_path):
    with make(tmp_path, host=4, disk=4, write="on_insertion") as store:
        saved(store, "ab")

        assert (used(store), counters(store)["copied_blocks"]) == ({"host": 2, "disk": 2}, 2)


def test_write_on_insertion_makes_eviction_free(tmp_path):
    with make(tmp_path, host=4, disk=8, write="on_insertion") as store:
        saved(store, "ab", "cde")

        assert (counters(store)["demoted_blocks"], fetch(store, "ab").tiers) == (0, ("disk", "disk"))


# Sinking and rising


def test_an_overflow_sinks_tier_by_tier_and_nothing_is_lost(store):
    words = ["ab", "cd", "efg", "hij", "kl"]

    saved(store, *words)

    assert used(store) == {"device": 3, "host": 2, "disk": 7}
    for word in words:
        assert fetch(store, word).num_blocks == len(word)
        settle(store)  # a block on its way down is a miss


def test_the_last_tier_drops_the_oldest_tails_first():
    with make(host=4) as store:
        saved(store, "abcd")

        saved(store, "xy")

        assert (fetch(store, "abcd").num_blocks, fetch(store, "xy").num_blocks) == (2, 2)


def test_a_hit_on_disk_rises_in_the_background(spread):
    fetch(spread, "ab")
    settle(spread)

    assert where(spread, "ab") == ("device", "device")


def test_a_risen_block_keeps_its_copy_on_disk(spread):
    before = used(spread)["disk"]

    fetch(spread, "ab")
    settle(spread)

    assert used(spread)["disk"] >= before
    check(spread)


def test_a_block_risen_from_host_memory_leaves_it(spread):
    fetch(spread, "cd")
    check(spread)

    assert [spread.tiers[1].contains([key]) for key in keys(spread, "cd")] == [0, 0]


def test_without_promotion_a_hit_stays_where_it_is(tmp_path):
    with make(tmp_path, **ALL_TIERS, promote=False) as store:
        saved(store, "ab", "cd", "efg")

        fetch(store, "ab")
        settle(store)

        assert where(store, "ab") == ("disk", "disk")


def test_a_prefetch_brings_a_prompt_up(spread):
    moved = spread.prefetch(tokens("ab")).wait(timeout_s=60)

    assert (moved >= 2, where(spread, "ab")) == (True, ("device", "device"))


def test_a_prefetch_of_nothing_is_done_at_once(store):
    transfer = store.prefetch(tokens("ab"))

    assert (transfer.done(), transfer.wait()) == (True, 0)


def test_a_prefetch_counts_no_get(spread):
    spread.prefetch(tokens("ab")).wait(timeout_s=60)

    assert (counters(spread)["gets"], counters(spread)["hit_blocks"]) == (0, 0)


# Leases


def test_a_pinned_prompt_is_not_evicted():
    with make(host=2) as store:
        saved(store, "ab")

        with store.pin(tokens("ab"), owner="test") as hit:
            stored = save(store, "x")

        assert (hit.num_blocks, stored.num_refused, fetch(store, "ab").num_blocks) == (2, 1, 2)


def test_a_released_prompt_may_be_evicted():
    with make(host=2) as store:
        saved(store, "ab")
        with store.pin(tokens("ab"), owner="test"):
            pass

        assert save(store, "xy").num_new == 2


def test_a_leaked_pin_is_named_at_close(caplog):
    store = make(host=2)
    saved(store, "a")
    leak = store.pin(tokens("a"), owner="forgetful")
    leak.__enter__()

    with caplog.at_level(logging.WARNING, "kvtier"):
        store.close()

    assert "forgetful" in caplog.text


def test_a_lapsed_pin_is_named_and_protects_no_longer(caplog):
    with make(host=2) as store:
        saved(store, "ab")
        leak = store.pin(tokens("ab"), owner="slow", ttl_s=0.0)
        leak.__enter__()

        with caplog.at_level(logging.WARNING, "kvtier"):
            fetch(store, "")

        assert ("slow" in caplog.text, save(store, "xy").num_new) == (True, 2)


# Flushing and closing


def test_a_flush_brings_down_what_only_memory_held(spread):
    done = spread.flush()

    assert (done.num_blocks, done.num_bytes, done.num_left) == (5, 5 * BLOCK, 0)
    assert spread.tiers[-1].contains(keys(spread, "efg")) == 3


def test_a_flush_leaves_blocks_where_they_were(spread):
    spread.flush()

    assert where(spread, "efg") == ("device",) * 3


def test_a_second_flush_brings_down_nothing(spread):
    spread.flush()

    assert (spread.flush().num_blocks, spread.flush().num_left) == (0, 0)


def test_a_flush_says_what_the_last_tier_has_no_room_for(tmp_path):
    with make(tmp_path, host=8, disk=2) as store:
        saved(store, "abcde")

        done = store.flush()

        assert (done.num_blocks, done.num_left) == (2, 3)


def test_without_a_disk_a_flush_only_waits():
    with make(host=4) as store:
        saved(store, "ab")

        assert (store.flush().num_blocks, fetch(store, "ab").num_blocks) == (0, 2)


def test_a_close_reports_what_it_brought_down(tmp_path):
    store = make(tmp_path, host=4, disk=8)
    saved(store, "abc")

    done = store.close()

    assert (done.num_blocks, done.num_bytes, done.num_left) == (3, 3 * BLOCK, 0)


def test_a_second_close_does_nothing(tmp_path):
    store = make(tmp_path, host=4, disk=8)
    saved(store, "abc")
    store.close()

    assert store.close().num_blocks == 0


# Statistics


def test_every_counter_is_documented(spread):
    fetch(spread, "abX")
    spread.flush()

    names = {name.partition(".")[0] for name in counters(spread)}
    assert names == set(COUNTERS)


def test_a_fresh_store_counts_nothing(store):
    assert set(counters(store).values()) == {0}


def test_the_statistics_describe_each_tier(spread):
    stats = spread.stats()

    assert stats["tiers"]["host"] == {
        "state": "ok",
        "used_blocks": 2,
        "used_bytes": 2 * BLOCK,
        "capacity_bytes": 2 * BLOCK,
    }
    assert stats["write_behind_bytes"] == BLOCK


# Whatever happens


def _random_steps(store, seed, num_steps):
    """Random calls over a small family of prompts with shared heads."""
    rng = random.Random(seed)
    for _ in range(num_steps):
        word = "".join(rng.choice("abc") for _ in range(rng.randint(0, 6)))
        match rng.randrange(8):
            case 0 | 1 | 2:
                save(store, word)
            case 3:
                save(store, word, start=rng.randint(0, len(word)))
            case 4 | 5:
                fetch(store, word)
            case 6:
                store.prefetch(tokens(word))
            case _:
                store.flush()
        yield


@pytest.mark.parametrize("seed", range(4))
def test_after_any_history_every_held_block_has_its_parent(tmp_path, seed):
    with make(tmp_path, device=4, host=3, disk=9) as store:
        for _ in _random_steps(store, seed, 150):
            assert orphans(store) == []
        check(store)


@pytest.mark.parametrize("seed", range(4))
def test_at_no_moment_does_a_tier_hold_more_than_its_cap(tmp_path, seed):
    with make(tmp_path, device=4, host=3, disk=5) as store:
        caps = {name: tier["capacity_bytes"] // BLOCK for name, tier in store.stats()["tiers"].items()}
        for _ in _random_steps(store, seed, 200):
            assert all(blocks <= caps[name] for name, blocks in used(store).items())


def test_blocks_in_memory_of_ones_own_making_are_served_alike():
    with make_over(memory("a", 4), memory("b", 4)) as store:
        saved(store, "wx", "yz")

        assert fetch(store, "wx").tiers == ("a", "b")


def test_a_prompt_longer_than_every_faster_tier_is_stored_whole(store):
    saved(store, "abcdefghi")

    assert store.match(tokens("abcdefghi")).num_blocks == 9
