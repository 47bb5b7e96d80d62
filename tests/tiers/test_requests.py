"""Records read in many requests at once: whole whatever their place, and never the worse for a failure."""

import os
import threading

import numpy as np
import pytest
from tier_helpers import disk, payload, place_of

from kvtier.errors import CorruptBlockError
from kvtier.testing.blocks import chain
from kvtier.tiers.requests import ALIGN_BYTES, REQUEST_BYTES, Buffers, Reading
from kvtier.tiers.slabs import Slabs

MIB = 1 << 20
NUM_BLOCKS = 6


@pytest.fixture
def file(tmp_path):
    """An open file of 4 MiB of noise, and its bytes."""
    path = tmp_path / "noise"
    noise = np.random.default_rng(0).integers(0, 256, 4 * MIB, np.uint8)
    path.write_bytes(noise.tobytes())
    fd = os.open(path, os.O_RDONLY)
    yield fd, noise
    os.close(fd)


def read(reading, fd, order=1):
    buffers, lock = Buffers(4 * MIB, 1), threading.Lock()
    return [reading.carry_out(at, fd, buffers, lock) for at in list(reading.requests())[::order]]


@pytest.mark.parametrize("offset", [0, 16, ALIGN_BYTES - 1, ALIGN_BYTES, 3 * ALIGN_BYTES + 16])
@pytest.mark.parametrize("length", [1, ALIGN_BYTES, REQUEST_BYTES, REQUEST_BYTES + 1, 3 * REQUEST_BYTES - 16])
@pytest.mark.parametrize("order", [1, -1])
def test_a_record_is_whole_after_its_last_request(file, offset, length, order):
    fd, noise = file
    reading = Reading(offset, length)

    ends = read(reading, fd, order)

    assert ends == [False] * (len(ends) - 1) + [True]
    assert np.array_equal(reading.record(), noise[offset : offset + length])


def test_a_record_behind_the_end_of_the_file_is_none(file):
    reading = Reading(4 * MIB - REQUEST_BYTES, 2 * REQUEST_BYTES)

    assert read(reading, file[0])[-1]
    assert reading.record() is None


def test_a_file_that_cannot_be_read_gives_none():
    reading = Reading(0, 2 * REQUEST_BYTES)

    assert read(reading, -1)[-1]
    assert reading.record() is None


def test_buffers_are_lent_to_one_at_a_time_and_used_again():
    buffers = Buffers(ALIGN_BYTES, 1)
    first, second = buffers.take(), buffers.take()

    assert not np.shares_memory(first, second)
    assert (first.ctypes.data % ALIGN_BYTES, second.ctypes.data % ALIGN_BYTES) == (0, 0)
    buffers.give_back(first)
    assert buffers.take() is first


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """A tier that holds a chain and takes each of its records for absent from the page cache."""
    monkeypatch.setattr(Slabs, "view", lambda *_: None)
    tier = disk(tmp_path, NUM_BLOCKS, MIB)
    names = chain(*range(NUM_BLOCKS))
    tier.write(names.keys, [payload(i, MIB) for i in range(NUM_BLOCKS)], names.labels)
    yield tier, names
    tier.close()


def served(tier, names):
    out = [payload(99, MIB) for _ in names.keys]
    count = tier.read(names.keys, out, names.labels)
    assert all(got.equal(payload(i, MIB)) for i, got in enumerate(out[:count]))
    return count


def test_a_record_that_cannot_be_read_is_named_and_those_before_it_are_served(cold, monkeypatch):
    tier, names = cold
    place, genuine = place_of(tier, names.keys[2]), os.preadv

    def fail(file, buffers, offset):
        if offset == place:
            raise OSError(5, "Input/output error")
        return genuine(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    out = [payload(99, MIB) for _ in names.keys]

    with pytest.raises(CorruptBlockError, match="its record cannot be read") as caught:
        tier.read(names.keys, out, names.labels)

    assert caught.value.key == names.keys[2]
    assert [out[i].equal(payload(i, MIB)) for i in (0, 1)] == [True, True]


def test_a_batch_cut_short_gives_its_buffers_back(cold):
    tier, names = cold
    free = len(tier._volume.slabs.buffers._free)
    tier.delete(names.keys[3:4])

    assert served(tier, names) == 3
    assert len(tier._volume.slabs.buffers._free) == free
