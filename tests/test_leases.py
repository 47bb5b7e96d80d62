"""Leases: who holds what, for how long, and that nothing a read meets leaves one behind."""

import logging
import threading
from unittest.mock import patch

import pytest
import torch
from store_helpers import (
    BLOCK,
    SPEC,
    GatedTier,
    blank,
    disk_tier,
    fetch,
    keys,
    make,
    make_over,
    memory,
    raw_damage,
    save,
    saved,
    settle,
    tokens,
    wrong_blocks,
)

from kvtier.answers import Leased
from kvtier.errors import TierUnavailableError
from kvtier.testing.tiers import Damaged, FaultyTier, ShortRead, on


def leases(store):
    return [(lease["owner"], lease["num_blocks"]) for lease in store.stats()["leases"]]


def layered(count):
    return [torch.zeros((SPEC.layers, BLOCK // SPEC.layers), dtype=torch.uint8) for _ in range(count)]


def never_released(store, word, owner, ttl_s):
    """A lease whose holder has forgotten it; keep what is returned, or it is released with the garbage."""
    pin = store.pin(tokens(word), owner=owner, ttl_s=ttl_s)
    pin.__enter__()
    return pin


@pytest.fixture
def store():
    with make(host=4) as store:
        saved(store, "ab")
        yield store


# What is held, and by whom


def test_nobody_holds_a_lease_on_a_quiet_store(store):
    assert leases(store) == []


def test_a_pin_is_listed_with_its_owner_its_blocks_and_what_is_left_of_its_time(store):
    with store.pin(tokens("abc"), owner="me", ttl_s=60.0):
        (lease,) = store.stats()["leases"]

    assert (lease["owner"], lease["num_blocks"]) == ("me", 2)
    assert 0 < lease["seconds_left"] <= 60


def test_two_pins_of_one_prompt_are_two_leases(store):
    with store.pin(tokens("ab"), owner="a"), store.pin(tokens("a"), owner="b"):
        assert leases(store) == [("a", 2), ("b", 1)]


def test_a_read_under_way_is_listed_without_a_deadline():
    slow = GatedTier(memory("host", 4), "read")
    with make_over(slow) as store:
        saved(store, "ab")
        reader = threading.Thread(target=fetch, args=(store, "ab"))
        reader.start()
        assert slow.entered.wait(60)

        (lease,) = store.stats()["leases"]

        slow.gate.set()
        reader.join()
        assert lease == {"owner": "get", "num_blocks": 2, "seconds_left": None}
        assert leases(store) == []


def test_a_pin_that_ends_with_an_error_is_released(store):
    with pytest.raises(ZeroDivisionError), store.pin(tokens("ab"), owner="me"):
        raise ZeroDivisionError

    assert leases(store) == []


def test_a_pin_nobody_remembers_is_released_with_the_garbage(store):
    never_released(store, "ab", "me", 60.0)

    assert leases(store) == []


# Deadlines

LATER_CALLS = {
    "get": lambda store: fetch(store, "x"),
    "put": lambda store: save(store, "x"),
    "prefetch": lambda store: store.prefetch(tokens("x")).wait(60),
    "flush": lambda store: store.flush(),
    "pin": lambda store: store.pin(tokens("x"), owner="other").__enter__(),
    "stream": lambda store: store.stream(tokens("x"), layered(1)).result(),
}


@pytest.mark.parametrize("call", LATER_CALLS.values(), ids=LATER_CALLS)
def test_a_lease_past_its_deadline_is_released_and_named_by_any_later_call(tmp_path, caplog, call):
    with make(tmp_path, host=4, disk=8) as store:
        saved(store, "ab")
        _kept = never_released(store, "ab", "slow", 0.0)

        with caplog.at_level(logging.WARNING, "kvtier"):
            call(store)

        assert "slow" not in [owner for owner, _ in leases(store)]
        assert "lease of slow lapsed after its deadline; it held 2 blocks" in caplog.text


def test_a_put_finds_room_where_a_lapsed_lease_held_it():
    with make(host=2) as store:
        saved(store, "ab")
        _kept = never_released(store, "ab", "slow", 0.0)

        assert save(store, "xy").num_new == 2


@pytest.mark.parametrize("ask", [lambda store: store.match(tokens("ab")), lambda store: store.stats()])
def test_asking_releases_nothing(store, ask):
    _kept = never_released(store, "ab", "slow", 0.0)

    ask(store)

    assert leases(store) == [("slow", 2)]


def test_a_lapsed_lease_may_be_released_by_its_holder_all_the_same(store):
    with store.pin(tokens("ab"), owner="slow", ttl_s=0.0), store.pin(tokens("ab"), owner="quick"):
        fetch(store, "ab")
        assert leases(store) == [("quick", 2)]

    assert leases(store) == []


# The report at close


def test_close_names_a_lease_that_was_never_released():
    store = make(host=4)
    saved(store, "ab")
    _kept = never_released(store, "ab", "forgetful", 60.0)

    (leak,) = store.close().leaked

    assert (leak.owner, leak.num_blocks) == ("forgetful", 2)
    assert 0 < leak.seconds_left <= 60


def test_close_logs_who_holds_how_much_for_how_long(caplog):
    store = make(host=4)
    saved(store, "ab")
    _kept = never_released(store, "ab", "forgetful", 60.0), never_released(store, "a", "careless", float("inf"))

    with caplog.at_level(logging.WARNING, "kvtier"):
        store.close()

    assert "careless (1 blocks, no deadline), forgetful (2 blocks, " in caplog.text
    assert " s before its deadline)" in caplog.text


def test_close_reports_no_lease_that_was_released_or_has_lapsed(tmp_path):
    store = make(tmp_path, host=4, disk=4)
    saved(store, "ab")
    with store.pin(tokens("ab"), owner="tidy"):
        pass
    _kept = never_released(store, "ab", "slow", 0.0)

    assert store.close().leaked == ()


def test_a_flush_reports_no_leases(store):
    with store.pin(tokens("ab"), owner="me"):
        assert store.flush().leaked == ()


def test_a_leased_block_says_what_it_is():
    assert repr(Leased("me", 2, 1.5)) == "Leased(owner='me', num_blocks=2, seconds_left=1.5)"


# Reads that go wrong

READS = {
    "get": lambda store, out: store.get(tokens("abc"), out),
    "stream": lambda store, out: store.stream(tokens("abc"), out).result(),
}


@pytest.mark.parametrize(
    "fault", [TierUnavailableError("host", "gone"), ShortRead(1), Damaged(1)], ids=["unavailable", "short", "damaged"]
)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_fault_of_a_tier_leaves_a_lease(fault, read):
    with make_over(FaultyTier(memory("host", 4), on("read", fault))) as store:
        saved(store, "abc")
        out = layered(3)

        hit = read(store, out)

        settle(store)
        assert (leases(store), hit.num_blocks < 3) == ([], True)
        assert wrong_blocks(store, "abc", hit, [block.flatten() for block in out]) == []


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_a_tier_must_not_raise_reaches_the_caller_and_leaves_no_lease(read):
    with make_over(FaultyTier(memory("host", 4), on("read", ZeroDivisionError()))) as store:
        saved(store, "abc")

        with pytest.raises(ZeroDivisionError):
            read(store, layered(3))

        assert leases(store) == []


@pytest.mark.parametrize("where", ["kvtier.tiers.memory.copy_rows", "kvtier.reader.Reader._read_at_once"])
def test_an_interrupt_while_bytes_are_copied_out_leaves_no_lease(store, where):
    with patch(where, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        store.get(tokens("ab"), blank(2))

    assert leases(store) == []
    assert fetch(store, "ab").num_blocks == 2


def test_an_interrupt_in_one_of_two_tiers_leaves_no_lease(tmp_path):
    with make_over(memory("host", 2), disk_tier(tmp_path, 8)) as store:
        saved(store, "ab", "cd")
        with (
            patch("kvtier.tiers.memory.copy_rows", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            store.get(tokens("cd"), blank(2))

        assert leases(store) == []


def test_an_interrupt_in_the_thread_of_a_stream_leaves_no_lease_and_is_told(store):
    with patch("kvtier.tiers.memory.copy_rows", side_effect=KeyboardInterrupt):
        stream = store.stream(tokens("ab"), layered(2))
        with pytest.raises(KeyboardInterrupt):
            stream.result()

    assert leases(store) == []


def test_a_stream_for_which_there_is_no_thread_is_read_by_its_caller(store):
    out = layered(2)
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        stream = store.stream(tokens("ab"), out)

    stream.wait(0)
    assert stream.result().num_blocks == 2
    assert wrong_blocks(store, "ab", stream.result(), [block.flatten() for block in out]) == []
    assert leases(store) == []


def test_a_stream_that_nobody_asks_for_its_result_leaves_no_lease():
    store = make(host=4)
    saved(store, "ab")
    store.stream(tokens("ab"), layered(2))

    assert store.close().leaked == ()


def test_a_block_that_turns_out_damaged_under_a_lease_is_let_go_with_it(tmp_path):
    with make(tmp_path, disk=8) as store:
        saved(store, "ab")
        with store.pin(tokens("ab"), owner="me") as promised:
            raw_damage(store.tiers[0], keys(store, "ab")[1])
            got = fetch(store, "ab")

        assert (promised.num_blocks, got.num_blocks, got.stopped_by) == (2, 1, "damaged")
        settle(store)
        assert leases(store) == []
        assert save(store, "ab").num_new == 1
