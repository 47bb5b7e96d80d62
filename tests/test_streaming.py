"""Reads that deliver layers in order: when a layer may be computed on, and what happens when one does not come."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import (
    GatedTier,
    check,
    counters,
    disk_tier,
    keys,
    make_over,
    memory,
    payload,
    raw_damage,
    saved,
    tokens,
)
from store_helpers import save as put

from kvtier.errors import SpecMismatchError, StreamBrokenError, TierClosedError
from kvtier.hashing import Namespace
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.streaming import PART_BYTES, Arrivals, Stream, parts_of

SPEC = KVSpec(layers=4, kv_heads=2, head_dim=64, dtype="float32", block_tokens=8)
NAMES = Namespace(spec=SPEC, weights="w")
IDS = list(range(6 * SPEC.block_tokens))


# Parts


@given(st.integers(1, 200), st.integers(1, 1 << 26))
def test_parts_cover_the_layers_once_in_order(layers, layer_bytes):
    parts = parts_of(layers, layers * layer_bytes)

    assert [layer for part in parts for layer in range(part.start, part.stop)] == list(range(layers))
    assert all((part.stop - part.start - 1) * layer_bytes <= PART_BYTES for part in parts)


# Arrivals


@pytest.fixture
def arrivals():
    return Arrivals([slice(0, 2), slice(2, 3)])


def waiting(arrivals, layer):
    """A thread that waits for a layer, and what it met."""
    met = []

    def wait():
        try:
            arrivals.wait(layer)
            met.append("there")
        except StreamBrokenError:
            met.append("broken")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, met


def test_a_layer_is_there_once_every_source_has_it(arrivals):
    arrivals.expect(2)
    first, met = waiting(arrivals, 1)
    arrivals.arrived(0)
    first.join(0.05)
    assert not met

    arrivals.arrived(0)

    first.join(60)
    assert met == ["there"]


def test_a_layer_is_not_there_because_an_earlier_one_is(arrivals):
    arrivals.expect(1)
    arrivals.arrived(0)
    thread, met = waiting(arrivals, 2)
    thread.join(0.05)
    assert not met

    arrivals.all_arrived()

    thread.join(60)
    assert met == ["there"]


def test_nothing_is_there_before_the_read_has_begun(arrivals):
    thread, met = waiting(arrivals, 0)
    thread.join(0.05)
    assert not met

    arrivals.finish(whole=True)

    thread.join(60)
    assert met == ["there"]


def test_who_waits_for_what_will_not_come_is_told(arrivals):
    arrivals.expect(1)
    arrivals.arrived(0)
    thread, met = waiting(arrivals, 2)

    arrivals.finish(whole=False)

    thread.join(60)
    assert met == ["broken"]


def test_an_error_of_the_read_is_raised_where_its_result_is_asked_for(arrivals):
    def work():
        raise ZeroDivisionError

    stream = Stream(arrivals, 3, work)

    with pytest.raises(StreamBrokenError):
        stream.wait(0)
    with pytest.raises(ZeroDivisionError):
        stream.result()


# Through a store


def shaped(count):
    return list(torch.zeros(count, *SPEC.block_shape[:-1], SPEC.block_shape[-1] * 4, dtype=torch.uint8))


@pytest.fixture(params=["host", "disk"])
def filled(request, tmp_path):
    """A store that holds six blocks in one tier, and those blocks."""
    sizes = {"host": 0, "disk": 0} | {request.param: 16 * SPEC.block_bytes}
    blocks = list(torch.randint(0, 256, (6, SPEC.block_bytes), dtype=torch.uint8))
    with open_store(tmp_path / "s", NAMES, **sizes) as store:
        store.put(IDS, blocks)
        yield store, blocks


@pytest.mark.parametrize("wanted", [0, 1, 4, 6])
def test_every_layer_of_every_block_is_there_when_waited_for(filled, wanted):
    store, blocks = filled
    out = shaped(wanted)

    stream = store.stream(IDS, out)

    assert stream.num_promised == wanted
    for layer in range(SPEC.layers):
        stream.wait(layer)
        for got, block in zip(out, blocks, strict=False):
            assert torch.equal(got[layer], block.view(got.shape)[layer])
    hit = stream.result()
    assert hit.num_blocks == wanted
    assert hit.stopped_by == (None if wanted == 6 else "no_buffer")


def test_a_stream_counts_and_touches_as_a_get_does(filled):
    store, _ = filled
    before = store.stats()["counters"]

    store.stream(IDS, shaped(6)).result()

    after = store.stats()["counters"]
    assert (after["gets"] - before["gets"], after["hit_blocks"] - before["hit_blocks"]) == (1, 6)


def test_of_a_prompt_never_seen_nothing_is_promised(filled):
    store, _ = filled

    stream = store.stream([n + 1 for n in IDS], shaped(6))
    stream.wait(3)

    assert (stream.num_promised, stream.result().stopped_by) == (0, "not_held")


def test_buffers_without_layers_are_refused(filled):
    store, _ = filled

    with pytest.raises(SpecMismatchError, match="layers first"):
        store.stream(IDS, list(torch.zeros(6, SPEC.block_bytes, dtype=torch.uint8)))
    with pytest.raises(SpecMismatchError):
        store.stream(IDS, [*shaped(5), torch.zeros(4, 5, dtype=torch.uint8)])


def test_a_damaged_block_breaks_the_stream_and_those_before_it_are_good(tmp_path):
    blocks = list(torch.randint(0, 256, (6, SPEC.block_bytes), dtype=torch.uint8))
    with open_store(tmp_path, NAMES, host=0, disk=16 * SPEC.block_bytes) as store:
        store.put(IDS, blocks)
        raw_damage(store.tiers[0], store.name(IDS).keys[4])
        out = shaped(6)

        stream = store.stream(IDS, out)
        with pytest.raises(StreamBrokenError):
            stream.wait(SPEC.layers - 1)
        hit = stream.result()

        assert (stream.num_promised, hit.num_blocks, hit.stopped_by) == (6, 4, "damaged")
        assert all(torch.equal(got.view(-1), want) for got, want in zip(out[:4], blocks, strict=False))
        assert store.match(IDS).num_blocks == 4
        assert store.stats()["counters"]["damaged_blocks"] == 1


def one_layer(count):
    return [block.view(1, -1) for block in torch.zeros(count, len(payload(b"")), dtype=torch.uint8)]


def test_all_tiers_are_read_at_the_same_time(tmp_path):
    top, bottom = GatedTier(memory("top", 2), "read"), GatedTier(disk_tier(tmp_path, 8), "read")
    with make_over(top, bottom) as store:
        bottom.gate.set()
        top.gate.set()
        put(store, "abcd")
        store._mover.drain()
        assert set(store.match(tokens("abcd")).tiers) == {"top", "disk"}
        for tier in (top, bottom):
            tier.gate.clear()
            tier.entered.clear()

        stream = store.stream(tokens("abcd"), out := one_layer(4))

        assert top.entered.wait(60)
        assert bottom.entered.wait(60)
        top.gate.set()
        bottom.gate.set()
        assert stream.result().num_blocks == 4
        assert all(torch.equal(got[0], payload(key)) for got, key in zip(out, keys(store, "abcd"), strict=True))
        check(store)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_over_two_tiers_ends_at_the_damaged_block_of_the_second(tmp_path, streamed):
    with make_over(memory("top", 4), disk_tier(tmp_path, 8), promote=False) as store:
        saved(store, "abc", "x", "y")  # a tail sinks before its head
        assert store.match(tokens("abc")).tiers == ("top", "disk", "disk")
        raw_damage(store.tiers[1], keys(store, "abc")[2])
        out = one_layer(3)

        hit = store.stream(tokens("abc"), out).result() if streamed else store.get(tokens("abc"), out)

        assert (hit.tiers, hit.stopped_by) == (("top", "disk"), "damaged")
        assert [torch.equal(out[i][0], payload(keys(store, "abc")[i])) for i in range(2)] == [True, True]
        check(store)


def test_a_tier_without_layers_reports_them_all_when_it_is_done(tmp_path):
    with make_over(GatedTier(disk_tier(tmp_path, 8), "read")) as store:
        put(store, "abc")
        stream = store.stream(tokens("abc"), out := one_layer(3))
        thread = threading.Thread(target=stream.wait, args=(0,))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()

        store.tiers[0].gate.set()

        thread.join(60)
        assert torch.equal(out[2][0], payload(keys(store, "abc")[2]))
        assert stream.result().num_blocks == 3


def test_close_waits_for_a_stream(tmp_path):
    tier = GatedTier(disk_tier(tmp_path, 8), "read")
    store = make_over(tier)
    put(store, "abc")
    stream = store.stream(tokens("abc"), one_layer(3))
    assert tier.entered.wait(60)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()

    tier.gate.set()

    closing.join(60)
    assert stream.result().num_blocks == 3
    with pytest.raises(TierClosedError):
        store.stream(tokens("abc"), one_layer(3))


def test_a_stream_holds_its_blocks_until_it_is_over(tmp_path):
    tier = GatedTier(memory("host", 4), "read")
    with make_over(tier) as store:
        put(store, "abcd")
        stream = store.stream(tokens("abcd"), one_layer(4))
        assert tier.entered.wait(60)

        assert put(store, "wxyz").num_refused == 4

        tier.gate.set()
        assert stream.result().num_blocks == 4
        assert put(store, "wxyz").num_refused == 0
        assert counters(store)["tier_errors"] == 0
