"""The background: what is queued together is carried out together, safely and without making anybody wait.

``held_back`` stops a store's background thread from starting; ``work`` then does its work in the
test, so that a test decides how many plans end up in one batch.
"""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import (
    GatedTier,
    check,
    counters,
    disk_tier,
    fetch,
    keys,
    make_over,
    memory,
    orphans,
    save,
    saved,
    settle,
    tokens,
    where,
)

from kvtier.errors import ConfigError, TierClosedError, TierUnavailableError
from kvtier.placement import Move
from kvtier.testing.tiers import FaultyTier, _Wrapped, on
from kvtier.transfer import _turn

FOR_EVER = 600.0
GONE = TierUnavailableError("disk", "unplugged")


def no_faults(operation, number):
    return None


@contextmanager
def held_back(store):
    with patch.object(store._mover._thread, "submit"):
        yield
        work(store)


def work(store):
    if store._mover._queue:
        store._mover.hurry()
        store._mover._work()


@pytest.fixture
def disk(tmp_path):
    return FaultyTier(disk_tier(tmp_path, 32), no_faults)


@pytest.fixture
def store(disk):
    """Twelve blocks at rest in host memory, four places set aside, and a batch for the disk waits for ever."""
    with make_over(memory("host", 16), disk, group_age_s=FOR_EVER) as store:
        saved(store, "abcdefghijkl")
        disk.calls.clear()
        yield store
        disk.faults = no_faults


# Together


def test_what_several_puts_sent_down_is_one_write(store, disk):
    save(store, "x")
    save(store, "y")
    settle(store)

    assert (disk.calls["write"], counters(store)["demoted_blocks"]) == (1, 2)


def test_neighbours_are_brought_together_from_under_other_moves(tmp_path):
    disk = FaultyTier(disk_tier(tmp_path, 32), no_faults)
    with make_over(memory("device", 16), memory("host", 4), disk, group_age_s=FOR_EVER) as store:
        saved(store, "abcdefghijkl", "mn", "op")
        disk.calls.clear()
        with held_back(store):
            save(store, "x")
            save(store, "y")

        assert (disk.calls["write"], counters(store)["demoted_blocks"]) == (1, 4 + 4)


def test_a_batch_ends_where_the_staging_buffer_is_full(store, disk, monkeypatch):
    carry, sizes = store._mover._carry, []

    def carried(moves):
        moves = list(moves)
        sizes.append(len(moves))
        return carry(moves)

    monkeypatch.setattr(store._mover, "_carry", carried)
    with held_back(store):
        save(store, "xy")
        save(store, "uv")  # the buffer takes three blocks

    assert (sizes, disk.calls["write"], counters(store)["demoted_blocks"]) == ([2, 2], 2, 4)


def test_one_plan_larger_than_the_staging_buffer_goes_in_parts(store, disk):
    save(store, "wxyz")
    settle(store)

    assert (disk.calls["write"], counters(store)["demoted_blocks"]) == (2, 4)


def test_what_waits_for_its_batch_is_carried_out_in_time(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 8), "write")
    disk.gate.set()
    with make_over(memory("host", 4), disk, group_age_s=0.01) as store:
        save(store, "abc")
        save(store, "x")

        assert disk.entered.wait(20)


# Nobody waits for a batch to fill


@pytest.fixture
def gated(tmp_path):
    """As ``store``, over a disk that says when it is asked to write."""
    disk = GatedTier(disk_tier(tmp_path, 32), "write")
    disk.gate.set()
    with make_over(memory("host", 16), disk, group_age_s=FOR_EVER, put_patience_s=5.0) as store:
        saved(store, "abcdefghijkl")
        disk.entered.clear()
        yield store


def test_a_few_blocks_wait_for_others(gated):
    save(gated, "x")

    assert not gated.tiers[1].entered.wait(0.05)


def test_a_full_batch_does_not_wait(gated):
    save(gated, "xyz")

    assert gated.tiers[1].entered.wait(20)


def test_an_age_of_nothing_does_not_wait(tmp_path):
    disk = GatedTier(disk_tier(tmp_path, 8), "write")
    disk.gate.set()
    with make_over(memory("host", 4), disk, group_age_s=0) as store:
        save(store, "abc")
        save(store, "x")

        assert disk.entered.wait(20)


def test_what_no_durable_tier_takes_does_not_wait():
    below = GatedTier(memory("host", 16), "write")
    below.gate.set()
    with make_over(memory("device", 4), below, group_age_s=FOR_EVER) as store:
        save(store, "abc")
        save(store, "x")

        assert below.entered.wait(20)


def test_a_prefetch_takes_along_what_waits(gated):
    saved(gated, "x")  # and l lies on disk
    fetch(gated, "abcdefghijk")
    gated.tiers[1].entered.clear()
    save(gated, "y")  # x is to sink

    gated.prefetch(tokens("abcdefghijkl"))

    assert gated.tiers[1].entered.wait(20)


def test_a_put_in_need_of_places_does_not_wait_for_the_batch(gated):
    for word in ("p", "q"):
        save(gated, word)

    save(gated, "wxyz")

    assert counters(gated)["dropped_demotions"] == 0


def test_a_transfer_that_is_waited_for_begins_at_once(store):
    with store._core.lock:
        transfer = store._mover.submit(store._core.placement.plan_copy_down(keys(store, "ab")))

    assert (transfer.done(), transfer.wait(), transfer.done()) == (False, 2, True)


def test_a_flush_does_not_wait_for_the_batch(store):
    save(store, "x")

    assert store.flush().num_left == 0


def test_a_close_does_not_wait_for_the_batch(store):
    save(store, "x")

    store._mover.close()

    assert counters(store)["demoted_blocks"] == 1


def test_a_closed_mover_takes_nothing(store):
    moves = [Move(keys(store, "a")[0], 0, None)]
    store._mover.close()

    with pytest.raises(TierClosedError):
        store._mover.submit(moves)
    with patch.object(store._mover, "drain"):
        store.close()


# Each submission has its own end


@pytest.fixture
def reopened(tmp_path):
    """``ab`` lies on disk only, ``pq`` in host memory only; the background is held back."""
    with make_over(memory("host", 16), disk_tier(tmp_path, 32)) as store:
        saved(store, "ab")
    faulty = FaultyTier(disk_tier(tmp_path, 32), no_faults)
    with make_over(memory("host", 16), faulty) as store, ExitStack() as stack:
        saved(store, "pq")
        stack.enter_context(held_back(store))
        yield store
        faulty.faults = no_faults


def submit_copies(store, word):
    with store._core.lock:
        return store._mover.submit(store._core.placement.plan_copy_down(keys(store, word)))


def test_moves_that_fail_are_their_submissions_own(reopened):
    reopened.tiers[1].faults = on("write", GONE)
    copies, up = submit_copies(reopened, "pq"), reopened.prefetch(tokens("ab"))
    work(reopened)

    assert (copies.wait(), up.wait(), where(reopened, "ab")) == (0, 2, ("host", "host"))


def test_moves_that_break_are_their_submissions_own(reopened, caplog):
    reopened.tiers[1].faults = on("write", ZeroDivisionError("odd"))
    copies, up = submit_copies(reopened, "pq"), reopened.prefetch(tokens("ab"))
    work(reopened)

    assert (up.wait(), "odd" in caplog.text) == (2, True)
    with pytest.raises(ZeroDivisionError, match="odd"):
        copies.wait()


def test_whoever_asked_to_be_told_is_told_once_whatever_happened(reopened):
    told = []
    reopened.tiers[1].faults = on("write", ZeroDivisionError("odd"))
    with reopened._core.lock:
        moves = reopened._core.placement.plan_copy_down(keys(reopened, "pq"))
    reopened._mover.submit(moves, lambda: told.append("copies"))
    reopened._mover.submit([], lambda: told.append("nothing"))
    work(reopened)

    assert (told, reopened._mover.num_pending) == (["copies", "nothing"], 0)


def test_moves_carried_out_by_the_caller_raise_what_broke_them(reopened):
    reopened.tiers[1].faults = on("write", ZeroDivisionError("odd"))

    with reopened._core.lock:
        moves = reopened._core.placement.plan_copy_down(keys(reopened, "pq"))

    with pytest.raises(ZeroDivisionError, match="odd"):
        reopened._mover.carry(moves)


# Any mix of plans


def test_a_batch_has_its_order_whatever_plans_it_comes_from():
    moves = [Move(b"k", *each) for each in [(2, 0), (0, 1), (0, None), (1, 2), (0, 2), (1, 0), (2, None), (1, None)]]

    assert [(move.src, move.dst) for move in sorted(moves, key=_turn)] == [
        (2, None), (1, None), (0, None), (1, 2), (0, 2), (0, 1), (2, 0), (1, 0)
    ]  # fmt: skip


class WatchedTier(_Wrapped):
    """A tier that is looked at whenever a block leaves it."""

    def __init__(self, inner):
        super().__init__(inner)
        self.core = None

    def delete(self, names):
        with self.core.lock:
            alive = [name for name in names if self.core.holds(name)]
        for name in alive:
            elsewhere = [tier for tier in self.core.tiers if tier is not self and tier.contains([name])]
            assert elsewhere, "a block is never nowhere"
        return super().delete(names)


@contextmanager
def watched(tiers, **options):
    with make_over(*map(WatchedTier, tiers), **options) as store:
        for tier in store.tiers:
            tier.core = store._core
        yield store


WORDS = st.text("abc", min_size=1, max_size=5)
STEPS = st.lists(st.tuples(st.sampled_from(["save", "save", "save", "fetch", "prefetch", "copy", "work"]), WORDS))


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    sizes=st.tuples(st.integers(4, 12), st.integers(1, 4), st.integers(1, 8)),
    write=st.sampled_from(["on_eviction", "on_insertion"]),
    data=st.data(),
)
def test_any_mix_of_plans_stays_within_every_tier(tmp_path_factory, steps, sizes, write, data):
    """The tiers are real and no larger than placement thinks: one block too many is a lost block."""
    device, host, last = sizes
    below = [memory("host", host)] if data.draw(st.booleans()) else []
    tiers = [memory("device", device), *below, disk_tier(tmp_path_factory.mktemp("disk"), last)]
    with watched(tiers, write=write, put_patience_s=0.0) as store:
        with held_back(store):
            for step, word in steps:
                match step:
                    case "save":
                        save(store, word)
                    case "fetch":
                        fetch(store, word)
                    case "prefetch":
                        store.prefetch(tokens(word))
                    case "copy":
                        submit_copies(store, word)
                    case _:
                        work(store)
        check(store)
        assert orphans(store) == []
        assert (counters(store)["lost_blocks"], counters(store)["tier_errors"]) == (0, 0)


# Settings


@pytest.mark.parametrize("name", ["put_patience_s", "group_age_s"])
@pytest.mark.parametrize("seconds", [-0.1, float("nan")])
def test_a_time_below_nothing_is_refused(name, seconds):
    with pytest.raises(ConfigError, match=f"{name} must be 0 or more seconds"):
        make_over(memory("host", 4), **{name: seconds})
