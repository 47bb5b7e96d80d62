"""A disk that fills up, refuses or gives up under an open store: what is lost of it, and that it comes back."""

import errno
import os
import random
from contextlib import closing, contextmanager
from unittest.mock import PropertyMock, patch

import pytest
import torch
from store_helpers import BLOCK, SPEC, blank, check, counters, fetch, keys, make, save, saved, settle, tokens, where
from tier_helpers import disk, held, place_of, put, whole
from torture import ailments
from torture.ailments import Scene
from torture.blocks import num_descriptors

from kvtier.errors import TierFullError, TierUnavailableError
from kvtier.format import record_bytes
from kvtier.tiers.environment import Environment
from kvtier.tiers.slabs import Slabs


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A disk that has failed is asked again at once."""
    monkeypatch.setattr("kvtier.health.FIRST_WAIT_S", 0.0)
    monkeypatch.setattr("kvtier.tiers.growth.NO_GROWTH_S", 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kv"


@pytest.fixture
def store(path):
    """Three blocks at rest in host memory, over a disk on which ``abc`` lies alone."""
    with make(path, host=4, disk=16) as store:
        saved(store, "abc", "xyz")
        assert where(store, "abc") == ("disk",) * 3
        yield store


def suffering(store, ailment):
    return ailment(Scene(store, store.tiers[-1]._volume.env.directory.path, random.Random(0)))


def state(store):
    return store.stats()["tiers"]["disk"]["state"]


@contextmanager
def writes_failing(applies):
    with ailments._failing("pwritev", errno.EIO, applies):
        yield


@contextmanager
def reads_failing(applies):
    with patch.object(Slabs, "view", lambda *_: None), ailments._failing("preadv", errno.EIO, applies):
        yield


# Reading


def test_a_disk_that_answers_no_read_loses_no_block(store):
    with reads_failing(lambda _: True):
        assert fetch(store, "abc").stopped_by == "unavailable"
        assert state(store) == "degraded: cannot read: the disk answers no read"

    assert fetch(store, "abc").num_blocks == 3
    assert (state(store), counters(store)["damaged_blocks"]) == ("ok", 0)


def test_a_record_that_cannot_be_read_is_lost_alone(store):
    second = place_of(store.tiers[-1], keys(store, "abc")[1])
    with reads_failing(lambda offset: second <= offset + 4096 < second + 8192):
        assert fetch(store, "abc").num_blocks == 1
        settle(store)

    assert (state(store), counters(store)["damaged_blocks.unreadable"]) == ("ok", 1)
    assert (fetch(store, "abc").num_blocks, fetch(store, "xyz").num_blocks) == (1, 3)
    check(store)


def test_a_stream_from_a_disk_that_answers_no_read_loses_no_block(store):
    out = [block.reshape(SPEC.layers, -1) for block in blank(3)]
    with reads_failing(lambda _: True):
        assert store.stream(tokens("abc"), out).result().num_blocks == 0

    assert fetch(store, "abc").num_blocks == 3


# Writing


def test_a_place_that_cannot_be_written_is_not_tried_again(path):
    with closing(disk(path, 16)) as tier:
        put(tier, 1)
        first = place_of(tier, next(iter(tier.scan()))[0])
        after = first + record_bytes(BLOCK, 32) // 4096 * 4096
        with writes_failing(lambda offset: first < offset <= max(after, first + 8192)):
            with pytest.raises(TierUnavailableError, match="Input/output error"):
                put(tier, 2)
            put(tier, 3)

            assert (held(tier), whole(tier, 3)) == ([1, 3], True)


def test_a_disk_that_wrote_nothing_for_a_while_has_room_for_all_its_blocks(path):
    with patch("kvtier.tiers.layout.SLAB_BYTES", 16 * record_bytes(4096, 32)), closing(disk(path, 64)) as tier:
        put(tier, 0)
        with writes_failing(lambda _: True):
            for number in range(1, 100):
                with pytest.raises(TierUnavailableError):
                    put(tier, number)
        put(tier, *range(1, 64))

        assert held(tier) == list(range(64))
        assert tier._volume.slabs.num_slabs <= 5, "a few places may be lost to it, not all"


# Growing


def test_a_file_that_may_grow_again_is_well_before_it_has_to(path):
    with closing(disk(path, 16)) as tier:
        with patch.object(Environment, "free_bytes", PropertyMock(return_value=0)):
            with pytest.raises(TierFullError, match="the disk has 0 bytes left"):
                put(tier, 1)
            assert tier.hindrance.startswith("the disk has 0 bytes left")

        assert tier.hindrance is None


def test_a_file_that_cannot_grow_counts_as_no_larger_than_it_is(path, monkeypatch):
    with patch("kvtier.tiers.layout.SLAB_BYTES", 4 * record_bytes(4096, 32)), closing(disk(path, 16)) as tier:
        put(tier, 0)
        usable = tier._volume.slabs.num_slots
        with patch.object(Environment, "free_bytes", PropertyMock(return_value=0)), pytest.raises(TierFullError):
            put(tier, *range(1, 16))
        with patch.object(Environment, "free_bytes", PropertyMock(return_value=0)):
            shrunk = tier.news().room_blocks
        again = tier.news().room_blocks

        assert (shrunk, again) == (usable, 16)


def test_a_map_that_stays_full_is_tried_less_and_less_often(path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("kvtier.tiers.growth.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("kvtier.tiers.growth.NO_GROWTH_S", 5.0)
    waits = []
    with patch("kvtier.tiers.layout.Layout.map_bytes", lambda *_: 60 * 4096), closing(disk(path, 64)) as tier:
        for _ in range(3):
            with pytest.raises(TierFullError, match="the LMDB map is full"):
                put(tier, *range(64))
            began = clock[0]
            while tier.hindrance is not None:
                clock[0] += 1
            waits.append(clock[0] - began)

    assert waits == [5, 10, 20]


# Giving up


def test_an_environment_that_lmdb_gave_up_is_opened_anew(store):
    with suffering(store, ailments.panic):
        save(store, "pqr")
        settle(store)

    assert (fetch(store, "abc").num_blocks, state(store)) == (3, "ok")
    saved(store, "stu", "vwx")
    assert where(store, "stu") == ("disk",) * 3
    check(store)


# Descriptors


def test_a_touched_file_that_cannot_be_opened_disturbs_no_caller(store):
    with suffering(store, ailments.touched_without_descriptors):
        assert fetch(store, "abc").num_blocks == 0
        assert state(store).startswith("degraded: cannot read: the disk did not do it: [Errno 24] Too many open files")
        save(store, "pqr")
        store.prefetch(tokens("abc")).wait(60)

    saved(store, "stu", "vwx")
    assert (fetch(store, "abc").num_blocks, state(store)) == (3, "ok")
    check(store)


def test_a_cut_file_is_opened_anew_once_there_are_descriptors(store):
    with suffering(store, ailments.cut_without_descriptors):
        for _ in range(3):
            assert fetch(store, "abc").num_blocks == 0
        assert "Too many open files" in state(store)

    saved(store, "pqr", "stu")
    assert (fetch(store, "pqr").num_blocks, state(store)) == (3, "ok")
    check(store)


def test_a_directory_that_is_opened_without_descriptors_says_so_and_leaves_none_open(path):
    disk(path).close()
    before, said = num_descriptors(), []
    while not said or said[-1]:
        with ailments.few_descriptors(len(said)):
            try:
                disk(path).close()
                said.append("")
            except TierUnavailableError as exc:
                said.append(str(exc))
        assert num_descriptors() == before

    assert len(said) > 5
    assert [text for text in said[:-1] if "Too many open files" not in text] == []


# Space that is needed to open


def test_the_lock_file_has_all_its_space(path):
    with closing(disk(path)):
        state = (path / "lock.mdb").stat()

        assert state.st_blocks * 512 >= state.st_size >= 1024 * 64


def test_a_marker_is_written_in_its_old_place(path):
    disk(path).close()
    marker = path / "kvtier.lock"
    before = marker.stat().st_ino, len(marker.read_bytes())
    marker.write_bytes(marker.read_bytes() + b" " * 100)
    disk(path).close()

    assert (marker.stat().st_ino, len(marker.read_bytes().rstrip())) == before
    assert not marker.read_bytes().endswith(b" ")


def test_reads_that_fail_here_and_there_are_told_from_a_disk_that_fails(path):
    """The probe is one page: where it is read, the record is what cannot be."""
    with closing(disk(path, 16)) as tier:
        part = put(tier, 1)
        out = torch.zeros(4096, dtype=torch.uint8)
        with reads_failing(lambda offset: offset > 0), pytest.raises(Exception, match="its record cannot be read"):
            tier.read(part.keys, [out], part.labels)
        with reads_failing(lambda _: True), pytest.raises(TierUnavailableError, match="answers no read"):
            tier.read(part.keys, [out], part.labels)

        assert whole(tier, 1)


# What is told afterwards


def test_a_deletion_that_no_descriptor_was_left_for_is_made_up_for(path):
    with closing(disk(path, 16)) as tier:
        gone = put(tier, 1, 2)
        tier.news()
        with ailments.few_descriptors(0):
            os.utime(tier._volume.env.data)
            with pytest.raises(TierUnavailableError, match="Too many open files"):
                tier.delete(gone.keys)

        assert [key for key, _ in tier.news().listing] == list(gone.keys)[::-1]


def test_a_listing_that_fails_is_told_the_next_time(path):
    with closing(disk(path, 16)) as tier:
        put(tier, 1)
        tier._told.everything = False
        failing = patch.object(type(tier._volume), "listing", side_effect=TierUnavailableError("nvme", "gone"))
        with failing, pytest.raises(TierUnavailableError):
            tier.news()

        assert len(tier.news().listing) == 1


def test_a_block_dropped_since_it_was_listed_does_not_come_back(store):
    """The listing is older than the report of the drop."""
    tier, last = store.tiers[-1], keys(store, "abc")[-1]
    tier._told.everything = False
    news = tier.news

    def late():
        found = news()
        store._mover.carry(store._core.placement.forget(last, 1))
        return found

    with patch.object(tier, "news", late):
        store.match([])

    assert store.match(tokens("abc")).num_blocks == 2
    check(store)


def test_a_block_written_since_it_was_listed_does_not_go(store):
    tier = store.tiers[-1]
    tier._told.everything = False
    news = tier.news

    def late():
        found = news()
        store._mover.carry(store._core.placement.plan_copy_down())
        return found

    with patch.object(tier, "news", late):
        store.match([])

    assert [tier.contains([key]) for key in keys(store, "xyz")] == [1, 1, 1]
    assert {node.tiers for node in map(store._core.placement.index.get, keys(store, "xyz"))} == {3}
    check(store)
