"""Reading records around the map: the hint saves time and can never cost a byte."""

import os

import pytest
import torch
from lib.residency import drop, resident_fraction
from tier_helpers import disk, payload

from kvtier.testing.blocks import chain
from kvtier.tiers.extents import Extents

NUM_BLOCKS = 48  # the map's read-ahead brings some in while the index is read; most must stay cold
BLOCK_BYTES = 1 << 20


@pytest.fixture
def filled(tmp_path):
    """A closed tier's directory whose records all have a hint and no page in memory."""
    with_tier(tmp_path, lambda tier: tier.write(*batch()))
    make_cold(tmp_path)
    return tmp_path


def batch():
    """Keys, blocks and labels of one chain, as ``Tier.write`` takes them."""
    names = chain(*range(NUM_BLOCKS))
    return names.keys, [payload(i, BLOCK_BYTES) for i in range(NUM_BLOCKS)], names.labels


def with_tier(path, work):
    tier = disk(path, NUM_BLOCKS, BLOCK_BYTES)
    try:
        result = work(tier)
        tier.flush()
        return result
    finally:
        tier.close()


def make_cold(path):
    drop(path / "data.mdb")
    if resident_fraction(path / "data.mdb") > 0.01:
        pytest.skip("this file system keeps its pages in memory")


def read_all(tier):
    keys, expected, labels = batch()
    out = [torch.zeros(BLOCK_BYTES, dtype=torch.uint8) for _ in keys]
    count = tier.read(keys, out, labels)
    return count, all(torch.equal(got, wanted) for got, wanted in zip(out, expected, strict=True))


@pytest.fixture
def direct_reads(monkeypatch):
    """Offsets that were read around the map."""
    offsets = []
    genuine = Extents.reading

    def spy(self, offset):
        offsets.append(offset)
        return genuine(self, offset)

    monkeypatch.setattr(Extents, "reading", spy)
    return offsets


def test_cold_records_are_read_directly_and_bit_exact(filled, direct_reads):
    result = with_tier(filled, read_all)

    assert result == (NUM_BLOCKS, True)
    assert len(direct_reads) > NUM_BLOCKS / 2


def test_direct_reads_leave_the_page_cache_alone(filled):
    with_tier(filled, read_all)

    assert resident_fraction(filled / "data.mdb") < 0.5


def test_records_in_the_page_cache_are_read_through_the_map(filled, direct_reads):
    (filled / "data.mdb").read_bytes()

    result = with_tier(filled, read_all)

    assert result == (NUM_BLOCKS, True)
    assert direct_reads == []


def test_a_wrong_hint_costs_a_read_and_never_a_byte(filled, direct_reads):
    def shift_all(tier):
        with tier._env._env.begin(write=True) as txn:
            places = dict(txn.cursor(tier._env.extents))
            for key, other in zip(places, [*list(places.values())[1:], bytes(8)], strict=True):
                txn.put(key, other, db=tier._env.extents)

    with_tier(filled, shift_all)
    make_cold(filled)

    result = with_tier(filled, read_all)

    assert result == (NUM_BLOCKS, True)
    assert direct_reads


def test_a_wrong_hint_is_put_right(filled):
    keys = batch()[0]

    def hints(tier):
        with tier._env.reading() as txn:
            return [txn.get(key, db=tier._env.extents)[:] for key in keys]

    def point_nowhere(tier):
        with tier._env._env.begin(write=True) as txn:
            for key in keys:
                txn.put(key, (1 << 60).to_bytes(8, "little"), db=tier._env.extents)

    genuine = with_tier(filled, lambda tier: [bytes(hint) for hint in hints(tier)])
    with_tier(filled, point_nowhere)
    make_cold(filled)
    with_tier(filled, read_all)

    assert with_tier(filled, lambda tier: [bytes(hint) for hint in hints(tier)]) == genuine


def test_a_hint_leaves_with_its_block(filled):
    keys = batch()[0]

    def delete_and_list(tier):
        tier.delete(keys[3:])
        with tier._env.reading() as txn:
            return {bytes(key) for key, _ in txn.cursor(tier._env.extents)}

    assert with_tier(filled, delete_and_list) == set(keys[:3])


def test_without_hints_the_map_serves_and_hints_are_learned(filled):
    def forget_all(tier):
        with tier._env._env.begin(write=True) as txn:
            txn.drop(tier._env.extents, delete=False)

    with_tier(filled, forget_all)
    make_cold(filled)

    assert with_tier(filled, read_all) == (NUM_BLOCKS, True)


def test_where_direct_io_is_not_to_be_had_the_map_does_everything(filled, direct_reads, monkeypatch):
    monkeypatch.setattr(os, "O_DIRECT", 0)

    result = with_tier(filled, read_all)

    assert result == (NUM_BLOCKS, True)
    assert direct_reads == []
