"""Tiers that fail, lie or hang: a block may be lost, a wrong one is never served, and nobody is kept waiting."""

import logging
import threading
from unittest.mock import patch

import pytest
from store_helpers import (
    GatedTier,
    check,
    counters,
    disk_tier,
    fetch,
    keys,
    make,
    make_over,
    memory,
    orphans,
    raw_damage,
    save,
    saved,
    settle,
    tokens,
    where,
)

from kvtier.errors import TierFullError, TierUnavailableError
from kvtier.store import Stored
from kvtier.testing.tiers import Damaged, FaultyTier, ShortRead, on

GONE = TierUnavailableError("disk", "unplugged")


def no_faults(operation, number):
    return None


@pytest.fixture
def faulty(tmp_path):
    """A disk that does what it is told until it is given other faults."""
    return FaultyTier(disk_tier(tmp_path, 16), no_faults)


@pytest.fixture
def store(faulty):
    """Three blocks at rest in host memory, over that disk."""
    with make_over(memory("host", 4), faulty) as store:
        yield store
        faulty.faults = no_faults


@pytest.fixture
def sunk(store):
    """``abc`` lies on disk only."""
    saved(store, "abc", "xyz")
    assert where(store, "abc") == ("disk",) * 3
    return store


# Writes


def test_a_put_that_fails_with_less_room_than_it_needs_is_tried_once():
    only = FaultyTier(memory("host", 4), lambda operation, number: GONE if operation == "write" else None)
    with make_over(only) as store:
        assert save(store, "abcdef") == Stored(0, 6)
        assert only.calls["write"] == 1


def test_a_put_that_finds_room_waits_for_nobody(faulty):
    with make_over(memory("host", 4), faulty) as store:
        store._writer._owed = 1
        with patch.object(store._core.lock, "wait_for", lambda *_: pytest.fail("there is room")):
            assert save(store, "a") == Stored(1, 0)
        store._writer._owed = 0


@pytest.mark.parametrize(
    ("error", "lost"), [(GONE, 2), (TierFullError("disk", "no run of free pages"), 3)], ids=["gone", "full"]
)
def test_a_disk_that_cannot_write_loses_what_sinks(store, faulty, error, lost):
    """One that is gone is not asked a third time: the last block is dropped where it is."""
    faulty.faults = on("write", error)

    saved(store, "abc", "xyz")

    assert (fetch(store, "abc").num_blocks, counters(store)["lost_blocks"]) == (0, lost)


def test_a_disk_that_cannot_write_does_not_disturb_puts(store, faulty):
    faulty.faults = on("write", GONE)

    done = []
    for word in ("abc", "xyz", "pqr"):
        done.append(save(store, word))
        settle(store)

    assert done == [Stored(3, 0)] * 3
    assert fetch(store, "pqr").num_blocks == 3


def test_a_disk_that_cannot_write_is_counted(store, faulty):
    faulty.faults = on("write", GONE)

    saved(store, "abc", "xyz")

    assert counters(store)["tier_errors.disk"] == counters(store)["tier_errors"] == faulty.calls["write"] > 0


def test_blocks_lost_on_their_way_down_leave_the_books_in_balance(store, faulty):
    faulty.faults = on("write", GONE, 2, 4)

    saved(store, "abc", "xyz", "pqr", "abX", "xyZ", "pqR")

    check(store)
    assert orphans(store) == []


def test_a_device_that_cannot_write_refuses_the_put(tmp_path):
    device = FaultyTier(memory("device", 4), on("write", GONE))
    with make_over(device, disk_tier(tmp_path, 8)) as store:
        assert save(store, "abc") == Stored(num_new=0, num_refused=3)
        check(store)


def test_a_device_that_works_again_takes_the_put(tmp_path):
    device = FaultyTier(memory("device", 4), on("write", GONE, 1))
    with make_over(device, disk_tier(tmp_path, 8)) as store:
        save(store, "abc")

        assert (save(store, "abc"), fetch(store, "abc").num_blocks) == (Stored(3, 0), 3)


def test_a_device_that_fails_midway_keeps_the_head(tmp_path):
    device = FaultyTier(memory("device", 4), on("write", GONE, 2))
    with make_over(device, disk_tier(tmp_path, 8)) as store:
        stored = save(store, "abc")

        assert (stored.num_new + stored.num_refused, fetch(store, "abc").num_blocks) == (3, stored.num_new)
        check(store)


def test_a_promotion_that_fails_leaves_the_block_below(tmp_path):
    host = FaultyTier(memory("host", 4), no_faults)
    with make_over(host, disk_tier(tmp_path, 8)) as store:
        saved(store, "abc", "xyz")
        host.faults = on("write", GONE)
        fetch(store, "abc")
        settle(store)
        host.faults = no_faults

        assert fetch(store, "abc").tiers == ("disk",) * 3
        check(store)


# Reads


def test_a_disk_that_cannot_read_is_a_miss_with_its_reason(sunk, faulty):
    faulty.faults = on("read", GONE)

    hit = fetch(sunk, "abc")

    assert (hit.num_blocks, hit.stopped_by) == (0, "unavailable")


def test_a_block_that_vanished_is_a_miss_with_its_reason(sunk, faulty):
    faulty.faults = on("read", ShortRead(1))

    hit = fetch(sunk, "abc")

    assert (hit.num_blocks, hit.stopped_by) == (1, "not_held")


def test_a_damaged_block_is_a_miss_with_its_reason(sunk, faulty):
    faulty.faults = on("read", Damaged(1))

    hit = fetch(sunk, "abc")

    assert (hit.num_blocks, hit.stopped_by) == (1, "damaged")


def test_damage_and_errors_are_counted_apart(sunk, faulty):
    saved(sunk, "pqr")  # xyz sinks as well
    faulty.faults = on("read", Damaged(0), 1)
    fetch(sunk, "abc")
    settle(sunk)
    faulty.faults = on("read", GONE)
    fetch(sunk, "xyz")

    counts = counters(sunk)
    assert (counts["damaged_blocks"], counts["tier_errors.disk"]) == (1, 1)


def test_a_flipped_bit_on_the_real_disk_is_found(tmp_path):
    with make(tmp_path, host=4, disk=16) as store:
        saved(store, "abc", "xyz")
        raw_damage(store.tiers[-1], keys(store, "ab")[1])

        hit = fetch(store, "abc")

        assert (hit.num_blocks, hit.stopped_by, counters(store)["damaged_blocks"]) == (1, "damaged", 1)


def test_a_damaged_block_takes_its_descendants_along(sunk, faulty):
    faulty.faults = on("read", Damaged(1), 1)
    fetch(sunk, "abc")
    settle(sunk)
    faulty.faults = no_faults

    assert faulty.contains(keys(sunk, "abc")[1:2]) == faulty.contains(keys(sunk, "abc")[2:]) == 0
    check(sunk)


def test_after_damage_the_second_get_is_a_plain_miss(sunk, faulty):
    faulty.faults = on("read", Damaged(0), 1)
    fetch(sunk, "abc")
    settle(sunk)

    hit = fetch(sunk, "abc")

    assert (hit.num_blocks, hit.stopped_by, counters(sunk)["damaged_blocks"]) == (0, "not_held", 1)


@pytest.mark.parametrize("fault", [Damaged(1), ShortRead(1), GONE], ids=["damaged", "vanished", "gone"])
def test_a_put_brings_a_forgotten_block_back(sunk, faulty, fault):
    faulty.faults = on("read", fault)
    fetch(sunk, "abc")
    faulty.faults = no_faults

    assert (save(sunk, "abc").num_refused, fetch(sunk, "abc").num_blocks) == (0, 3)


def test_a_put_waits_for_the_deletion_of_the_damaged_block(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 8), "delete")
    with make_over(disk, put_patience_s=0.0) as store:
        saved(store, "ab")
        raw_damage(disk, keys(store, "ab")[1])
        fetch(store, "ab")
        assert disk.entered.wait(60)

        early = save(store, "ab")
        disk.gate.set()
        settle(store)

        assert (early, save(store, "ab")) == (Stored(num_new=0, num_refused=1), Stored(num_new=1, num_refused=0))


def test_a_put_goes_on_if_the_deletion_ends_before_it_starts_to_wait(tmp_path, monkeypatch):
    disk = GatedTier(disk_tier(tmp_path, 8), "delete")
    with make_over(disk, put_patience_s=60.0) as store:
        saved(store, "ab")
        raw_damage(disk, keys(store, "ab")[1])
        fetch(store, "ab")
        take_up = store._writer._take_up

        def ends_meanwhile(*args, **options):
            disk.gate.set()
            settle(store)
            return take_up(*args, **options)

        monkeypatch.setattr(store._writer, "_take_up", ends_meanwhile)

        assert save(store, "ab") == Stored(num_new=1, num_refused=0)


def test_a_block_damaged_on_its_way_up_is_not_promoted(sunk, faulty):
    faulty.faults = on("read", Damaged(1), 2)  # the first read serves the get, the second one promotes

    first = fetch(sunk, "abc")
    settle(sunk)

    assert (first.num_blocks, fetch(sunk, "abc").num_blocks, counters(sunk)["damaged_blocks"]) == (3, 1, 1)
    check(sunk)


def test_a_host_that_cannot_read_what_sinks_loses_it(tmp_path):
    host = FaultyTier(memory("host", 4), on("read", GONE))
    with make_over(host, disk_tier(tmp_path, 8)) as store:
        saved(store, "abc", "xyz")

        assert counters(store)["lost_blocks"] == 3
        check(store)


# Deletes


def test_a_disk_that_cannot_delete_disturbs_nobody(tmp_path):
    disk = FaultyTier(disk_tier(tmp_path, 4), no_faults)
    with make_over(memory("host", 4), disk) as store:
        saved(store, "abc", "xyz")
        disk.faults = on("delete", GONE)

        for word in ("pqr", "stu", "vwx"):
            assert save(store, word).num_refused == 0
            settle(store)

        assert fetch(store, "vwx").num_blocks == 3
        assert counters(store)["tier_errors.disk"] > 0


# Too slow


def over_a_hanging_disk(path, put_patience_s):
    """Six blocks at rest in host memory, two places set aside, over a disk that does not write until its gate opens."""
    disk = GatedTier(disk_tier(path, 16), "write")
    store = make_over(memory("host", 8), disk, put_patience_s=put_patience_s)
    save(store, "abc")
    save(store, "def")
    return store


@pytest.fixture
def hanging(tmp_path):
    with over_a_hanging_disk(tmp_path, 0.0) as store:
        yield store
        store.tiers[1].gate.set()


def test_a_put_drops_what_cannot_sink_in_time_and_stores_what_is_new(hanging):
    assert save(hanging, "uvwxy") == Stored(num_new=5, num_refused=0)

    assert [len(where(hanging, word)) for word in ("uvwxy", "abc", "def")] == [5, 1, 0], "c and b are to sink"
    assert (counters(hanging)["dropped_demotions"], counters(hanging)["refused_blocks"]) == (3, 0)


def test_a_put_that_finds_places_drops_nothing(hanging):
    save(hanging, "uv")

    assert (counters(hanging)["dropped_demotions"], len(where(hanging, "def"))) == (0, 3)


def test_a_put_that_finds_free_places_does_not_wait(tmp_path):
    with over_a_hanging_disk(tmp_path, 600.0) as store:
        save(store, "uv")  # owes two places
        with store._core.lock:
            drops = store._core.forget(keys(store, "d")[0], 0, None)
        store._mover.carry(drops)  # def is gone: more than is owed

        assert (save(store, "w").num_new, counters(store)["dropped_demotions"]) == (1, 0)
        store.tiers[1].gate.set()


def test_what_lies_on_disk_too_is_dropped_before_anything_is_lost(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 16), "write")
    with make_over(memory("host", 8), disk, put_patience_s=0.0) as store:
        disk.gate.set()
        saved(store, "abc")
        store.flush()
        disk.gate.clear()
        save(store, "xyz")
        fetch(store, "abc")  # xyz is older now
        save(store, "uv")
        save(store, "pqr")  # both places are owed to z and y

        assert (where(store, "abc"), where(store, "x")) == (("disk",) * 3, ("host",))
        assert counters(store)["dropped_demotions"] == 0
        disk.gate.set()


def test_where_nobody_may_be_dropped_new_blocks_are_refused(hanging):
    with hanging.pin(tokens("abc"), owner="test"), hanging.pin(tokens("def"), owner="test"):
        assert save(hanging, "uv") == Stored(num_new=0, num_refused=2)

    assert counters(hanging)["dropped_demotions"] == 0


def test_a_put_longer_than_what_may_be_dropped_keeps_its_head(hanging):
    stored = save(hanging, "qrstuvwxyz")

    assert (stored, fetch(hanging, "qrstuvwxyz").num_blocks) == (Stored(num_new=5, num_refused=5), 5)
    assert len(where(hanging, "abc")) == 1, "its second block is on its way down, and must not lose its parent"


def test_a_put_that_waits_finds_places_when_the_disk_answers(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 16), "write")
    with make_over(memory("host", 8), disk, put_patience_s=60.0) as store:
        save(store, "abcdef")
        save(store, "uv")
        threading.Timer(0.05, disk.gate.set).start()

        save(store, "wx")

        assert (counters(store)["dropped_demotions"], fetch(store, "abcdef").num_blocks) == (0, 2)


def test_an_interrupted_put_owes_nothing(tmp_path):
    with make_over(memory("host", 8), disk_tier(tmp_path, 16), put_patience_s=0.0) as store:
        saved(store, "abcdef")
        with patch.object(store.tiers[0], "write", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            save(store, "uv")
        settle(store)

        assert (store._writer._owed, save(store, "uv")) == (0, Stored(num_new=2, num_refused=0))
        check(store)


def test_copies_on_insertion_that_cannot_keep_up_are_left_out(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 16), "write")
    with make_over(memory("host", 8), disk, write="on_insertion") as store:
        assert save(store, "abcdef") == Stored(num_new=6, num_refused=0)
        skipped = counters(store)["skipped_copies"]
        disk.gate.set()
        settle(store)
        held = [disk.contains([key]) for key in keys(store, "abcdef")]
        saved(store, "x")

        assert (skipped, held) == (2, [1, 1, 1, 1, 0, 0]), "half of the tier may be queued"
        assert (disk.contains(keys(store, "x")), counters(store)["skipped_copies"]) == (1, 2)
        check(store)


def test_a_hanging_disk_does_not_hold_up_hits_in_memory(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 16), "write")
    with make_over(memory("host", 4), disk, put_patience_s=0.05) as store:
        save(store, "abc")
        save(store, "x")
        assert disk.entered.wait(60)

        assert fetch(store, "x").tiers == ("host",)
        assert not disk.gate.is_set()
        disk.gate.set()


def test_puts_drop_nothing_once_the_disk_answers(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 16), "write")
    with make_over(memory("host", 4), disk, put_patience_s=0.01) as store:
        for word in ("abc", "pq", "rs"):
            save(store, word)
        before = counters(store)["dropped_demotions"]
        disk.gate.set()
        settle(store)
        saved(store, "t", "u")

        assert before > 0
        assert counters(store)["dropped_demotions"] == before


def test_waiting_for_a_prefetch_can_be_given_up(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 8), "read")
    with make_over(memory("host", 4), disk) as store:
        saved(store, "abc", "xyz")
        transfer = store.prefetch(tokens("abc"))
        assert disk.entered.wait(60)

        with pytest.raises(TimeoutError):
            transfer.wait(timeout_s=0.0)
        disk.gate.set()
        assert transfer.wait(timeout_s=60) > 0


# Closing


def test_a_close_whose_flush_fails_warns_and_closes(store, faulty, caplog):
    save(store, "abc")
    faulty.faults = on("flush", GONE)

    with caplog.at_level(logging.WARNING, "kvtier"):
        store.close()

    assert "unplugged" in caplog.text
    assert faulty.inner._volume.env._closed


def test_a_flush_says_what_it_could_not_bring_down(store, faulty):
    save(store, "abc")
    faulty.faults = on("write", GONE)

    done = store.flush()

    assert (done.num_blocks, done.num_left) == (0, 3)
    assert fetch(store, "abc").num_blocks == 3
