"""Records that arrive layer by layer: whole or refused in whatever order the disk answers, and never stuck."""

import random
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.errors import CorruptBlockError
from kvtier.format import PAGE_BYTES, header_bytes, seal
from kvtier.testing.blocks import chain
from kvtier.tiers.copying import Striper
from kvtier.tiers.layered import LayeredRead, Source, piece_bytes, whole_page_layers
from kvtier.tiers.requests import Buffers

LAYERS = 4
BLOCK = LAYERS * PAGE_BYTES
HEADER = header_bytes(32)
SPLITS = {
    "each": [slice(i, i + 1) for i in range(LAYERS)],
    "two": [slice(0, 3), slice(3, 4)],
    "all": [slice(0, LAYERS)],
}


class Scripted(Source):
    """Records in memory that come as if from a disk that answers in any order."""

    def __init__(self, records, seed, unreadable):
        super().__init__(-1, [0] * len(records), [None] * len(records))
        self.records, self.random, self.unreadable = records, random.Random(seed), unreadable
        self.lock = threading.Lock()

    def piece(self, record, start, stop, buffer):
        with self.lock:
            pause = self.random.choice([0, 0, 0.0005, 0.002])
        time.sleep(pause)
        if self.unreadable == (record, start):
            return None
        buffer[: stop - start] = self.records[record][start:stop]
        return buffer[: stop - start]


def record_of(number):
    payload = np.random.default_rng(number).integers(0, 256, BLOCK, np.uint8)
    record = np.concatenate([np.zeros(HEADER, np.uint8), payload])
    part = chain(number)
    seal(record[:HEADER], record[HEADER:], part.keys[0], part.labels[0])
    return record


@pytest.fixture(scope="module")
def striper():
    striper = Striper("layered", 8)
    yield striper
    striper.close()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(1, 6),
    split=st.sampled_from(sorted(SPLITS)),
    lanes=st.integers(1, 8),
    flips=st.lists(st.tuples(st.integers(0, 5), st.integers(0, HEADER + BLOCK - 1)), max_size=2),
    unreadable=st.none() | st.integers(0, 5),
)
def test_what_is_good_arrives_and_what_is_not_ends_the_run(striper, seed, count, split, lanes, flips, unreadable):
    parts, part = SPLITS[split], chain(*range(count))
    records = [record_of(number) for number in range(count)]
    bad = set()
    for number, offset in flips:
        if number < count:
            records[number][offset] ^= 1
            bad.add(number)
    lost = (unreadable, 0) if unreadable is not None and unreadable < count else None
    bad |= {unreadable} if lost else set()
    if len(flips) == 2 and flips[0] == flips[1]:  # the same bit twice is no damage
        bad = {unreadable} if lost else set()
    out = [torch.zeros(LAYERS, PAGE_BYTES, dtype=torch.uint8) for _ in range(count)]
    reported, buffers = [], Buffers(piece_bytes(HEADER, BLOCK, parts), 2)
    batch = LayeredRead(
        Scripted(records, seed, lost),
        part.keys,
        out,
        part.labels,
        header=HEADER,
        parts=parts,
        arrived=lambda number, _: reported.append(number),
        buffers=buffers,
    )
    run = threading.Thread(target=striper.run, args=(batch.num_turns, batch.work, lanes), daemon=True)
    run.start()
    run.join(60)

    assert not run.is_alive(), "threads wait for each other"
    end = min(batch.ends, default=count)
    assert end == min(bad, default=count)
    for number in range(end):
        assert np.array_equal(out[number].numpy().reshape(-1), record_of(number)[HEADER:])
    if bad:
        assert len(reported) < len(parts)
        assert all(isinstance(error, CorruptBlockError) for error in batch.ends.values())
    else:
        assert sorted(reported) == list(range(len(parts)))


def test_who_waits_for_a_piece_goes_on_when_its_record_is_not_wanted_any_more():
    records, gate = [record_of(number) for number in range(2)], threading.Event()
    records[0][0] ^= 1

    class Gated(Scripted):
        def piece(self, record, start, stop, buffer):
            if (record, start) == (1, 0):
                assert gate.wait(60)
            return super().piece(record, start, stop, buffer)

    parts, part = SPLITS["each"], chain(0, 1)
    out = [torch.zeros(LAYERS, PAGE_BYTES, dtype=torch.uint8) for _ in range(2)]
    batch = LayeredRead(
        Gated(records, 0, None),
        part.keys,
        out,
        part.labels,
        header=HEADER,
        parts=parts,
        arrived=lambda *_: None,
        buffers=Buffers(piece_bytes(HEADER, BLOCK, parts), 2),
    )
    first, second = (threading.Thread(target=batch.work, args=([turn],), daemon=True) for turn in (1, 3))
    first.start()
    second.start()
    second.join(0.05)
    assert second.is_alive(), "the second piece is not looked at before the first"
    batch.work([0])
    batch.work([5])  # skipped: the record before it is damaged

    gate.set()

    second.join(10)
    assert not second.is_alive(), "threads wait for each other"
    assert min(batch.ends) == 0


@pytest.mark.parametrize(
    ("block_bytes", "direct"), [(BLOCK, True), (BLOCK + LAYERS * 16, False), (BLOCK + PAGE_BYTES, False)]
)
def test_only_layers_of_whole_pages_are_read_one_by_one(block_bytes, direct):
    assert whole_page_layers(block_bytes, SPLITS["each"]) is direct


def test_a_piece_is_the_longest_part_with_the_header():
    assert piece_bytes(HEADER, BLOCK, SPLITS["two"]) == HEADER + 3 * PAGE_BYTES
