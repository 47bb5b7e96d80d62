"""Slots inside LMDB's file: found again whatever happened, never written where they are not."""

import os
from contextlib import closing
from unittest.mock import patch

import lmdb
import numpy as np
import pytest
import torch
from tier_helpers import BLOCK, disk, held, payload, place_of, put, raw, whole

from kvtier.calibrate.residency import drop, resident_fraction
from kvtier.errors import CorruptBlockError
from kvtier.format import PAGE_BYTES, record_bytes
from kvtier.testing.blocks import chain
from kvtier.tiers.layout import Layout, layout_for
from kvtier.tiers.requests import Reading
from kvtier.tiers.slabs import Slabs

NUM_BLOCKS = 24
BLOCK_BYTES = 1 << 20


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    """Four blocks each, so that a small tier has several."""
    monkeypatch.setattr("kvtier.tiers.layout.SLAB_BYTES", 4 * record_bytes(BLOCK, 32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tier"


@pytest.fixture
def filled(path):
    """A closed tier with ten blocks in three slabs."""
    with closing(disk(path, 12)) as tier:
        put(tier, *range(10))
        tier.flush()
    return path


def places(path):
    """What is kept of where the slabs lie, by the back door."""
    with raw_env(path) as env, env.begin() as txn:
        return {bytes(key): bytes(value) for key, value in txn.cursor(env.open_db(b"places", txn=txn))}


def raw_env(path):
    return lmdb.open(str(path), max_dbs=10)


def put_places(path, change):
    with raw_env(path) as env, env.begin(write=True) as txn:
        table = env.open_db(b"places", txn=txn)
        for key, value in [(bytes(k), bytes(v)) for k, v in txn.cursor(table)]:
            txn.put(key, change(value), db=table)


@pytest.mark.parametrize(
    ("capacity", "slot_bytes", "slab_slots"),
    [(1, 8192, 1), (3, 8192, 3), (8192, 8192, 8192), (8193, 8192, 4097), (64, 1 << 20, 64), (65, 1 << 20, 33)],
)
def test_slabs_are_of_one_size_and_hold_the_tier(capacity, slot_bytes, slab_slots):
    with patch("kvtier.tiers.layout.SLAB_BYTES", 64 << 20):
        assert layout_for(capacity, slot_bytes) == Layout(slot_bytes, slab_slots)


def test_a_slot_larger_than_a_slab_should_be_is_a_slab():
    assert layout_for(7, 100 << 20) == Layout(100 << 20, 1)


def test_the_file_grows_by_slabs_as_blocks_come(path):
    sizes = []
    with closing(disk(path, 12)) as tier:
        for number in range(12):
            put(tier, number)
            sizes.append(tier._volume.slabs.num_slots)

    assert sizes == [4] * 4 + [8] * 4 + [12] * 4


def test_a_full_tier_writes_in_place(path):
    with closing(disk(path, 8)) as tier:
        put(tier, *range(8))
        size, last = tier.file_bytes, tier._volume.env.last_page
        for number in range(8, 80):
            tier.delete(chain(number - 8).keys)
            put(tier, number)

        assert held(tier) == list(range(72, 80))
        assert whole(tier, *range(72, 80))
        assert tier._volume.slabs.num_slots == 8
        assert tier._volume.env.last_page - last < 12  # pages of the index that changed hands
        assert tier.file_bytes - size < 16 * PAGE_BYTES


def test_a_record_begins_on_a_page(path):
    with closing(disk(path, 8, 5000)) as tier:
        part = put(tier, *range(8))

        assert {place_of(tier, key) % PAGE_BYTES for key in part.keys} == {0}


def test_places_that_are_kept_are_right(filled):
    kept = places(filled)

    with closing(disk(filled, 12)) as tier:
        assert not tier._volume.slabs.has_unkept_places
        assert whole(tier, *range(10))
    assert len(kept) == 3
    assert places(filled) == kept


@pytest.mark.parametrize("wrong", [0, PAGE_BYTES, 2 * PAGE_BYTES, 1 << 60, 12345])
def test_a_wrong_place_is_put_right_before_anything_is_written(filled, wrong):
    kept = places(filled)
    put_places(filled, lambda value: wrong.to_bytes(8, "little") + value[8:])

    with closing(disk(filled, 12)) as tier:
        put(tier, 20, 21)
        assert whole(tier, *range(10), 20, 21)
        tier.flush()

    assert places(filled) == kept


def test_slabs_killed_before_their_place_was_kept_are_found(path):
    tier = disk(path, 12)
    put(tier, *range(10))
    tier._volume.slabs._unwritten.clear()
    tier.close()
    put_places(path, lambda value: bytes(8) + value[8:])

    with closing(disk(path, 12)) as tier:
        assert whole(tier, *range(10))


def test_a_leftover_of_a_slab_that_was_not_committed_is_not_taken_for_it(filled):
    """It has the same number and another token, since each attempt draws its own."""
    put_places(filled, lambda value: value[:8] + os.urandom(16))

    with closing(disk(filled, 12)) as tier:
        assert tier._volume.slabs.unused(np.empty(0, np.uint32)) == []
        assert [len(tier._volume.slabs.slots_of(number)) for number in range(3)] == [0, 0, 0]
        with pytest.raises(CorruptBlockError, match="its place in the file is lost"):
            whole(tier, 1)


def test_after_a_slab_is_lost_new_blocks_go_to_new_ones(path):
    with closing(disk(path, 12)) as tier:
        put(tier, *range(4))
        tier.flush()
    put_places(path, lambda value: value[:8] + os.urandom(16))

    with closing(disk(path, 12)) as tier:
        assert tier.delete(chain(*range(4)).keys) == 4
        put(tier, *range(20, 28))

        assert whole(tier, *range(20, 28))


def test_a_copy_made_by_lmdb_itself_is_found_its_way_around_in(filled, tmp_path):
    """A compacting copy moves every page."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with raw(filled) as env:
        env.copy(str(copy), compact=True)

    with closing(disk(copy, 12)) as tier:
        assert whole(tier, *range(10))
        put(tier, 20, 21)
        assert whole(tier, *range(10), 20, 21)


def test_where_direct_io_is_not_to_be_had_the_page_cache_serves(filled, monkeypatch):
    monkeypatch.setattr(os, "O_DIRECT", 0)

    with closing(disk(filled, 12)) as tier:
        put(tier, 20, 21)

        assert not tier._volume.slabs.direct
        assert whole(tier, *range(10), 20, 21)


def test_a_file_system_that_takes_the_flag_and_refuses_the_read_is_found_out(filled, monkeypatch):
    genuine = os.preadv

    def refuse(file, buffers, offset):
        if os.get_blocking(file) and os.O_DIRECT & _flags(file):
            raise OSError(22, "Invalid argument")
        return genuine(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", refuse)

    with closing(disk(filled, 12)) as tier:
        assert not tier._volume.slabs.direct
        assert whole(tier, *range(10))


def _flags(file):
    import fcntl

    return fcntl.fcntl(file, fcntl.F_GETFL)


@pytest.fixture
def direct_reads(monkeypatch):
    """Places that were read from the file, not through the map."""
    seen = []
    genuine = Slabs.job

    def spy(self, place):
        job = genuine(self, place)
        if isinstance(job, Reading):
            seen.append(place)
        return job

    monkeypatch.setattr(Slabs, "job", spy)
    return seen


def big(path, **options):
    return disk(path, NUM_BLOCKS, BLOCK_BYTES, **options)


def read_all(tier):
    out = [torch.zeros(BLOCK_BYTES, dtype=torch.uint8) for _ in range(NUM_BLOCKS)]
    names = chain(*range(NUM_BLOCKS))
    assert tier.read(names.keys, out, names.labels) == NUM_BLOCKS
    assert all(got.equal(payload(n, BLOCK_BYTES)) for n, got in enumerate(out))


def test_around_the_page_cache_nothing_is_left_in_it(path, tmp_path, direct_reads):
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(1 << 20))
    drop(probe)
    if resident_fraction(probe) > 0.9:
        pytest.skip("this file system keeps its pages in memory")
    with closing(big(path)) as tier:
        put(tier, *range(NUM_BLOCKS))
        read_all(tier)

        assert len(direct_reads) == NUM_BLOCKS
        assert resident_fraction(path / "data.mdb") < 0.05


def test_through_the_page_cache_blocks_are_in_memory_once_written(path, direct_reads):
    with closing(big(path, page_cache="keep")) as tier:
        put(tier, *range(NUM_BLOCKS))
        read_all(tier)

    assert direct_reads == []


def test_through_the_page_cache_a_cold_read_warms_it(path, direct_reads):
    with closing(big(path)) as tier:
        put(tier, *range(NUM_BLOCKS))
    drop(path / "data.mdb")
    with closing(big(path, page_cache="keep")) as tier:
        read_all(tier)
        once = len(direct_reads)
        read_all(tier)

    assert len(direct_reads) == once


def test_records_that_something_else_brought_into_memory_are_read_from_there(path, direct_reads):
    with closing(big(path)) as tier:
        put(tier, *range(NUM_BLOCKS))
        (path / "data.mdb").read_bytes()
        read_all(tier)

    assert direct_reads == []


@pytest.mark.parametrize("offset", [0, 64])
def test_blocks_are_written_from_wherever_they_lie(path, offset):
    size = 2 * PAGE_BYTES
    memory = torch.arange(6 * size, dtype=torch.int64).to(torch.uint8)
    start = -memory.data_ptr() % PAGE_BYTES + offset
    part = chain(0, 1)
    blocks = [memory[start : start + size], memory[start + 2 * size : start + 3 * size]]
    with closing(disk(path, 4, size)) as tier:
        tier.write(part.keys, blocks, part.labels)
        out = [torch.zeros(size, dtype=torch.uint8) for _ in blocks]
        tier.read(part.keys, out, part.labels)

    assert [got.equal(block) for got, block in zip(out, blocks, strict=True)] == [True, True]
