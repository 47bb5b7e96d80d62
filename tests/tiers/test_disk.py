"""The disk tier: the laws of every tier, and what commits, kills, full disks and flipped bits leave behind."""

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tier_helpers import (
    BLOCK,
    disk,
    find,
    held,
    payload,
    put,
    python,
    raw,
    raw_flip,
    raw_get,
    raw_put,
    run_python,
    whole,
)

from kvtier import format as format_module
from kvtier.errors import CorruptBlockError, SpecMismatchError, TierFullError, TierUnavailableError
from kvtier.format import PAGE_BYTES, Verifier, record_bytes
from kvtier.hashing import Label, name_block
from kvtier.testing.blocks import chain, check_survivors
from kvtier.testing.tier_tests import TierTests
from kvtier.tiers import records as records_module
from kvtier.tiers.environment import Environment
from kvtier.tiers.slabs import Slabs

KILL_WRITER = Path(__file__).with_name("kill_writer.py")
REAL_BLOCK = 1_417_216
"""A block of 32 tokens of a small real model in float32, rounded to what does not divide a page."""


class TestLMDBTier(TierTests):
    persistent = True
    verifies = True

    def open(self, path):
        return disk(path, self.NUM_BLOCKS, self.BLOCK_BYTES)

    def raw_damage(self, tier, key):
        raw_flip(tier, key, len(raw_get(tier, key)) - 1)

    def writer_command(self, path):
        return [sys.executable, str(KILL_WRITER), str(path)]


class TestLMDBTierThroughThePageCache(TestLMDBTier):
    """The same laws, with records written and read through the page cache."""

    def open(self, path):
        return disk(path, self.NUM_BLOCKS, self.BLOCK_BYTES, page_cache="keep")


class TestLMDBTierWithSmallSlabs(TestLMDBTier):
    """The same laws, with a slab for every two blocks."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr("kvtier.tiers.layout.SLAB_BYTES", 2 * record_bytes(self.BLOCK_BYTES, 32))


class TestLMDBTierWithAColdPageCache(TestLMDBTier):
    """The same laws, with every record read around the map."""

    @pytest.fixture(autouse=True)
    def cold(self, monkeypatch):
        monkeypatch.setattr(Slabs, "view", lambda *_: None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tier"


def commits(tier):
    return tier._volume.env._env.info()["last_txnid"]


def slabs_of(slots, block_bytes=BLOCK):
    """Slabs of a few blocks, so that small tiers live as large ones do."""
    return patch("kvtier.tiers.layout.SLAB_BYTES", slots * record_bytes(block_bytes, 32))


def map_of(pages):
    """A map as short of room as that of a fragmented tier."""
    return patch("kvtier.tiers.layout.Layout.map_bytes", lambda *_: pages * PAGE_BYTES)


def test_a_batch_is_one_commit(path):
    with closing(disk(path)) as tier:
        put(tier, 100)
        before = commits(tier)
        put(tier, *range(7))

        assert commits(tier) - before == 1


def test_a_batch_that_needs_new_slabs_is_a_commit_for_each_and_one_for_the_batch(path):
    with slabs_of(3), closing(disk(path)) as tier:
        before = commits(tier)
        put(tier, *range(8))

        assert commits(tier) - before == 4


def test_writing_only_held_names_commits_nothing(path):
    with closing(disk(path)) as tier:
        put(tier, 1, 2)
        before = commits(tier)
        put(tier, 2, 1)

        assert commits(tier) == before


def test_a_batch_that_fills_the_map_is_refused_whole(path):
    with slabs_of(4), map_of(96), closing(disk(path, 64)) as tier:
        put(tier, 100)
        with pytest.raises(TierFullError, match="nvme: the LMDB map is full"):
            put(tier, *range(60))

        assert held(tier) == [100]
        assert tier.used_bytes == BLOCK
        assert whole(tier, 100)
        put(tier, 1, 2, 3)
        assert whole(tier, 100, 1, 2, 3)


def test_ten_kills_at_random_moments_leave_whole_blocks_and_every_block_acknowledged(path):
    rng = random.Random(0)
    with subprocess.Popen(**python(KILL_WRITER, path, "--rounds"), stdin=subprocess.PIPE) as parent:
        for _ in range(10):
            parent.stdin.write("go\n")
            parent.stdin.flush()
            lines = _kill_after(parent, rng.randrange(1, 40), rng.uniform(0, 0.01))

            with closing(disk(path, TierTests.NUM_BLOCKS, TierTests.BLOCK_BYTES)) as tier:
                check_survivors(tier, lines)
        parent.stdin.close()


def _kill_after(parent, num_lines, delay_s):
    """Let a child say so many lines, kill it a moment later, and return all it said."""
    child = int(parent.stdout.readline().split()[1])
    lines = []
    killer = threading.Timer(delay_s, os.kill, (child, signal.SIGKILL))
    while (line := parent.stdout.readline()) != "dead\n":
        lines.append(line)
        if len(lines) == num_lines:
            killer.start()
    return lines


def test_a_small_cap_can_be_filled_to_the_last_block_through_six_turnovers(path):
    rng, blocks = random.Random(1), 40
    payloads = [payload(number, REAL_BLOCK) for number in range(4)]
    with slabs_of(7, REAL_BLOCK), closing(disk(path, blocks, REAL_BLOCK)) as tier:
        present, number = [], 0
        while number < 7 * blocks:
            count = rng.randrange(1, 12)
            gone = present[: max(0, len(present) + count - blocks)]
            assert tier.delete(chain(*gone).keys) == len(gone)
            part = chain(*range(number, number + count))
            tier.write(part.keys, [payloads[n % 4] for n in range(number, number + count)], part.labels)
            present = [*present[len(gone) :], *range(number, number + count)]
            number += count

        assert len(present) == blocks
        assert held(tier) == present
        assert tier.used_bytes == tier.capacity_bytes == blocks * REAL_BLOCK
        assert tier.file_bytes <= tier._volume.env._env.info()["map_size"]
        assert tier.file_bytes < 1.1 * tier.capacity_bytes


def test_a_tier_reopened_with_less_room_can_delete_and_write(path):
    with map_of(160), closing(disk(path, 40)) as tier:
        put(tier, *range(40))

    with map_of(8), closing(disk(path, 2)) as tier:
        assert tier.delete(chain(*range(40)).keys) == 40
        put(tier, 50, 51)

        assert whole(tier, 50, 51)


def test_a_tier_reopened_with_less_room_refuses_more_until_blocks_are_deleted(path):
    with closing(disk(path, 8)) as tier:
        put(tier, *range(8))

    with closing(disk(path, 2)) as tier:
        with pytest.raises(TierFullError, match="1 blocks do not fit"):
            put(tier, 9)
        assert whole(tier, *range(8))


@pytest.mark.parametrize("seed", range(4))
def test_the_file_reaches_its_last_page_whatever_was_deleted(path, seed):
    rng = random.Random(seed)
    with slabs_of(100, 1), closing(disk(path, 2000, 1)) as tier:
        data = path / "data.mdb"
        keys = put(tier, *range(600)).keys
        rng.shuffle(keys)
        while keys:
            count = rng.randrange(1, 300)
            tier.delete(keys[:count])
            keys = keys[count:]

            assert (tier._volume.env._env.info()["last_pgno"] + 1) * PAGE_BYTES <= data.stat().st_size

    with closing(disk(path, 2000, 1)) as tier:
        assert tier.used_bytes == 0


def test_the_space_of_an_empty_tier_is_not_that_of_its_map(path):
    with closing(disk(path, 8)) as tier:
        assert tier.file_bytes < 1 << 20


def test_a_payload_begins_on_a_page_of_the_file(path):
    with closing(disk(path, 8, 5000)) as tier:
        put(tier, *range(8))

    assert [find(path, payload(n, 5000).numpy()) % PAGE_BYTES for n in range(8)] == [0] * 8


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    """A tier that holds block 1, and its record."""
    with closing(disk(tmp_path_factory.mktemp("one") / "tier", 8, 512)) as tier:
        part = put(tier, 1)
        yield tier, part, raw_get(tier, part.keys[0])


def read_one(tier, part):
    out = torch.zeros(tier.block_bytes, dtype=torch.uint8)
    return tier.read(part.keys, [out], part.labels), out


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_record_is_found(one_block, data):
    tier, part, record = one_block
    position, bit = data.draw(st.integers(0, len(record) - 1)), data.draw(st.integers(0, 7))
    raw_flip(tier, part.keys[0], position, 1 << bit)

    with pytest.raises(CorruptBlockError, match=part.keys[0].hex()[:12]):
        read_one(tier, part)

    raw_flip(tier, part.keys[0], position, 1 << bit)
    assert raw_get(tier, part.keys[0]) == record


def test_a_whole_record_under_another_blocks_name_is_found(path):
    with closing(disk(path)) as tier:
        part = put(tier, 1, 2)
        raw_put(tier, part.keys[0], raw_get(tier, part.keys[1]))

        with pytest.raises(CorruptBlockError, match=f"the record is that of block {part.keys[1].hex()[:12]}"):
            whole(tier, 1)


def test_of_several_damaged_blocks_the_first_is_named(path):
    big = (2 << 20) // 4
    with closing(disk(path, 8, big)) as tier:
        part = put(tier, *range(8))
        for number in (2, 5, 6):
            raw_flip(tier, part.keys[number], 5000)
        out = [torch.zeros(big, dtype=torch.uint8) for _ in part.keys]

        with pytest.raises(CorruptBlockError) as caught:
            tier.read(part.keys, out, part.labels)

        assert caught.value.key == part.keys[2]
        assert [torch.equal(out[number], payload(number, big)) for number in (0, 1)] == [True, True]


def test_a_hole_before_a_damaged_block_is_a_miss_and_not_an_error(path):
    big = (2 << 20) // 4
    with closing(disk(path, 8, big)) as tier:
        part = put(tier, *range(8))
        tier.delete(part.keys[2:3])
        raw_flip(tier, part.keys[3], 5000)

        assert tier.read(part.keys, [torch.zeros(big, dtype=torch.uint8) for _ in part.keys]) == 2


def test_a_label_too_long_for_the_header_is_refused_before_any_block_is_written(path):
    with closing(disk(path)) as tier:
        part = chain(1, 2)
        long = Label(part.labels[1].parent, 1, bytes(4 * 1001))

        with pytest.raises(SpecMismatchError, match="has 1001 token ids, the record's header holds 1000"):
            tier.write(part.keys, [payload(1), payload(2)], [part.labels[0], long])

        assert held(tier) == []


def test_the_longest_label_that_fits_is_kept(path):
    with closing(disk(path)) as tier:
        part = chain(1)
        label = Label(part.labels[0].parent, 1, bytes(4 * 1000))
        tier.write(part.keys, [payload(1)], [label])

        assert [found for _, found in tier.scan()] == [label]


def test_a_record_that_comes_short_is_damaged(path, monkeypatch):
    with closing(disk(path)) as tier:
        part, out = put(tier, 1), torch.zeros(BLOCK, dtype=torch.uint8)
        monkeypatch.setattr(Slabs, "view", lambda *_: None)
        monkeypatch.setattr(os, "preadv", lambda *_: 0)

        with pytest.raises(CorruptBlockError, match="its record cannot be read"):
            tier.read(part.keys, [out], part.labels)


def whole_read(tier, part, out):
    return tier.read(part.keys, out, part.labels)


def read_by_layers(tier, part, out):
    return tier.read_parts(part.keys, [block.view(2, -1) for block in out], part.labels, [slice(0, 2)], lambda *_: None)


@pytest.mark.parametrize("read", [whole_read, read_by_layers])
def test_a_file_that_is_cut_while_records_are_copied_from_the_map_does_not_end_the_process(path, monkeypatch, read):
    view, places = Slabs.view, []

    def view_then_cut(slabs, place):
        seen = view(slabs, place)
        assert seen is not None, "through the map"
        places.append(place)
        if len(places) == 2:
            os.truncate(path / "data.mdb", max(places))
        return seen

    with closing(disk(path, page_cache="keep")) as tier:
        part, out = put(tier, 1, 2), [torch.zeros(BLOCK, dtype=torch.uint8) for _ in range(2)]
        monkeypatch.setattr(Slabs, "view", view_then_cut)

        with pytest.raises(TierUnavailableError, match=r"data\.mdb was cut to \d+ bytes while it was open"):
            read(tier, part, out)


def read_into_strides(tier, part, out):
    apart = [torch.zeros((len(block), 2), dtype=torch.uint8)[:, 0] for block in out]
    try:
        return tier.read(part.keys, apart, part.labels)
    finally:
        for block, strided in zip(out, apart, strict=True):
            block.copy_(strided)


LAYERED = 2 * PAGE_BYTES
"""A block of two layers that can be read one by one."""

STEPS = [(Slabs, "view"), (np, "copyto"), (Verifier, "__init__"), (Verifier, "add"), (Verifier, "finish")]


@pytest.mark.parametrize("read", [whole_read, read_by_layers, read_into_strides])
@pytest.mark.parametrize(("where", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_record_that_is_written_over_while_it_is_read_is_delivered_whole_or_not_at_all(path, read, where, step):
    genuine = getattr(where, step)

    with closing(disk(path, block_bytes=LAYERED, page_cache="keep")) as tier:
        part, out = put(tier, 1), [torch.zeros(LAYERED, dtype=torch.uint8)]
        of_zeros = bytes(len(raw_get(tier, part.keys[0])))

        def then_write_over(*args, **kwargs):
            result = genuine(*args, **kwargs)
            raw_put(tier, part.keys[0], of_zeros)
            return result

        with patch.object(where, step, then_write_over):
            try:
                delivered = read(tier, part, out)
            except CorruptBlockError:
                delivered = 0
        assert not delivered or torch.equal(out[0], payload(1, LAYERED))
        assert delivered or step != "finish", "it had been read"


@pytest.mark.parametrize("read", [whole_read, read_by_layers, read_into_strides])
def test_a_record_that_was_another_only_while_it_was_copied_is_not_delivered(path, read):
    copy, copied = np.copyto, []

    with closing(disk(path, block_bytes=LAYERED, page_cache="keep")) as tier:
        part, out = put(tier, 1), [torch.zeros(LAYERED, dtype=torch.uint8)]
        record = raw_get(tier, part.keys[0])

        def copy_another(target, source):
            copied.append(len(source))
            if len(copied) == 1:
                raw_put(tier, part.keys[0], record[:-LAYERED] + bytes(LAYERED))
            copy(target, source)
            raw_put(tier, part.keys[0], record)

        with patch.object(np, "copyto", copy_another), suppress(CorruptBlockError):
            assert read(tier, part, out) == 0 or torch.equal(out[0], payload(1, LAYERED))
        assert copied


def test_a_header_is_read_once(path, monkeypatch):
    genuine = format_module.xxhash.xxh3_64

    with closing(disk(path, page_cache="keep")) as tier:
        part, out = put(tier, 1), [torch.zeros(BLOCK, dtype=torch.uint8)]
        record = raw_get(tier, part.keys[0])

        def write_over_it(*args):
            raw_put(tier, part.keys[0], bytes(len(record) - BLOCK))
            return genuine(*args)

        monkeypatch.setattr(format_module.xxhash, "xxh3_64", write_over_it)
        assert tier.read(part.keys, out, part.labels) == 1
        assert torch.equal(out[0], payload(1))


def test_close_waits_for_a_reader_that_is_looking_at_the_map(path, monkeypatch):
    tier = disk(path)
    part, out = put(tier, 1), torch.zeros(BLOCK, dtype=torch.uint8)
    arrived, go_on, verify = threading.Event(), threading.Event(), records_module.verify

    def stop(*args, **kwargs):
        arrived.set()
        assert go_on.wait(60)
        return verify(*args, **kwargs)

    monkeypatch.setattr(records_module, "verify", stop)
    reader = threading.Thread(target=tier.read, args=(part.keys, [out], part.labels), daemon=True)
    closer = threading.Thread(target=tier.close)
    reader.start()
    assert arrived.wait(60)
    closer.start()
    closer.join(0.1)

    waits = closer.is_alive()
    if waits:  # otherwise the map is gone under the reader, who would end the process
        go_on.set()
        reader.join()
        closer.join()
    assert waits
    assert torch.equal(out, payload(1))


def test_close_in_a_forked_child_does_not_wait_for_locks_left_behind(path):
    with closing(disk(path)) as tier:
        with tier._volume.env._writer, tier._volume.env._state:  # as another thread of the parent might hold them
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                tier.close()
                os._exit(0)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_below_the_floor_of_free_space_nothing_is_written_and_blocks_stay(path):
    with slabs_of(4), closing(disk(path)) as tier:
        put(tier, 1)

    with slabs_of(4), closing(disk(path, min_free_bytes=1 << 60)) as tier:
        with pytest.raises(TierFullError, match=rf"the disk has \d+ bytes left and {1 << 60} must stay free"):
            put(tier, *range(2, 8))

        assert held(tier) == [1]
        assert whole(tier, 1)


def test_below_the_floor_of_free_space_places_that_were_freed_are_used_again(path):
    with closing(disk(path)) as tier:
        put(tier, *range(8))

    with closing(disk(path, min_free_bytes=1 << 60)) as tier:
        tier.delete(chain(0, 1).keys)
        put(tier, 10, 11)

        assert whole(tier, *range(2, 8), 10, 11)


FULL_DISK = """
import resource, signal, sys
from tier_helpers import disk, held, put, whole
from kvtier.errors import TierError
from kvtier.tiers import layout

layout.SLAB_BYTES = 1 << 19  # of four blocks
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tier = disk(sys.argv[1], 64, 100_000)
put(tier, *range(8))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for spare in (0, 1_000, 150_000, 333_333):
    resource.setrlimit(resource.RLIMIT_FSIZE, (tier.file_bytes + spare, hard))
    try:
        put(tier, *range(8, 24))
    except TierError as exc:
        print(type(exc).__name__, held(tier) == list(range(8)), tier.used_bytes == 800_000, whole(tier, *range(8)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
put(tier, *range(8, 24))
print("recovered", held(tier) == list(range(24)), whole(tier, *range(24)))
tier.close()
tier = disk(sys.argv[1], 64, 100_000)
print("reopened", held(tier) == list(range(24)), whole(tier, *range(24)))
"""


def test_a_full_disk_loses_no_block_and_can_be_written_again_once_there_is_space(path):
    assert run_python(FULL_DISK, path).splitlines() == [
        *["TierUnavailableError True True True"] * 4,
        "recovered True True",
        "reopened True True",
    ]


# What the index says at opening


def shorten_entry(path, key, length=20):
    """Cut an index entry short; the tier must be closed."""
    with raw(path) as env:
        index = env.open_db(b"index", create=False)
        with env.begin(write=True) as txn:
            assert txn.replace(key, txn.get(key, db=index)[:length], db=index)


def rename_entry(path, key, name):
    """Give an index entry another key; the tier must be closed."""
    with raw(path) as env:
        index = env.open_db(b"index", create=False)
        with env.begin(write=True) as txn:
            txn.put(name, txn.pop(key, db=index), db=index)


@pytest.mark.parametrize("length", [0, 20, 51])
def test_an_entry_that_is_too_short_is_removed_at_opening(path, length, caplog):
    with closing(disk(path)) as tier:
        part = put(tier, 1, 2, 3)
    shorten_entry(path, part.keys[1], length)

    with closing(disk(path)) as tier:
        assert held(tier) == [1, 3]
        assert (tier.contains(part.keys), tier.contains(part.keys[1:]), tier.used_bytes) == (1, 0, 2 * BLOCK)
        put(tier, 2)
        assert whole(tier, 1, 2, 3)
    assert "nvme: 1 index entries are damaged" in caplog.text
    with closing(disk(path)) as tier:
        assert tier.scan().damaged == 0


def test_an_entry_under_what_is_no_name_is_removed_at_opening(path):
    with closing(disk(path)) as tier:
        part = put(tier, 1, 2)
    rename_entry(path, part.keys[0], b"stranger")

    with closing(disk(path)) as tier:
        assert (held(tier), tier.used_bytes) == ([2], BLOCK)


def test_damaged_entries_that_cannot_be_removed_hinder_nobody(path):
    with closing(disk(path)) as tier:
        part = put(tier, 1, 2)
    shorten_entry(path, part.keys[0])

    with patch.object(Environment, "change", side_effect=TierUnavailableError("nvme", "read-only")):
        tier = disk(path)
    with closing(tier):
        assert (held(tier), whole(tier, 2)) == ([2], True)
        with pytest.raises(CorruptBlockError, match="its place in the file is lost"):
            whole(tier, 1)


def test_a_block_whose_entry_is_damaged_under_an_open_tier_can_be_deleted(path):
    with closing(disk(path)) as tier:
        part = put(tier, 1, 2)
        with tier._volume.env.writing(), tier._volume.env.change() as commit:
            commit.put(part.keys[0], b"short", tier._volume.env.index)

        assert tier.delete(part.keys) == 2
        put(tier, 1, 2)

        assert whole(tier, 1, 2)


def test_a_first_scan_tells_what_is_held_now_and_not_at_opening(path):
    with closing(disk(path)) as tier:
        put(tier, 1, 2)
    with closing(disk(path)) as tier:
        put(tier, 3)
        tier.delete(chain(1).keys)

        assert held(tier) == [2, 3]


def test_a_second_scan_tells_what_the_first_did(path):
    with closing(disk(path)) as tier:
        put(tier, 1, 2)
    with closing(disk(path)) as tier:
        assert held(tier) == held(tier) == [1, 2]


def test_labels_of_several_lengths_are_kept_over_a_restart(path):
    labels = [Label(chain(0).keys[0], number, bytes(4 * number)) for number in (3, 0, 7)]
    names = [name_block(label) for label in labels]
    with closing(disk(path)) as tier:
        tier.write(names, [payload(number) for number in range(3)], labels)

    with closing(disk(path)) as tier:
        assert dict(tier.scan()) == dict(zip(names, labels, strict=True))
