"""The memory tier: the laws of every tier, and how a slot passes from one block to the next."""

import os
import resource
import signal
import threading
from contextlib import closing, contextmanager

import pytest
import torch

from kvtier.errors import ConfigError, TierClosedError, TierFullError, TierUnavailableError
from kvtier.testing.blocks import chain, contents, fill
from kvtier.testing.tier_tests import TierTests
from kvtier.tiers import memory
from kvtier.tiers.memory import MemoryTier

BLOCK = TierTests.BLOCK_BYTES
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class TestMemoryTier(TierTests):
    def open(self, path):
        return MemoryTier("dram", capacity_bytes=self.CAPACITY_BYTES, block_bytes=self.BLOCK_BYTES)


@pytest.mark.gpu
@needs_cuda
class TestCudaTier(TierTests):
    device = "cuda"

    def open(self, path):
        return MemoryTier("hbm", capacity_bytes=self.CAPACITY_BYTES, block_bytes=self.BLOCK_BYTES, device="cuda")


@pytest.mark.gpu
@needs_cuda
class TestCudaTierWithHostBuffers(TestCudaTier):
    device = "cpu"


@pytest.mark.gpu
@needs_cuda
class TestPinnedTier(TierTests):
    device = "cuda"

    def open(self, path):
        return MemoryTier("dram", capacity_bytes=self.CAPACITY_BYTES, block_bytes=self.BLOCK_BYTES, pinned=True)


@pytest.mark.gpu
@needs_cuda
class TestPinnedTierWithHostBuffers(TestPinnedTier):
    device = "cpu"


@pytest.mark.gpu
@needs_cuda
def test_a_buffer_at_an_odd_address_is_copied_by_bytes():
    tier = MemoryTier("hbm", capacity_bytes=BLOCK, block_bytes=BLOCK, device="cuda")
    part, odd = chain(1), torch.zeros(BLOCK + 3, dtype=torch.uint8)[3:]

    with closing(tier):
        tier.write(part.keys, [odd.copy_(contents(1))], part.labels)
        tier.read(part.keys, [odd.zero_()], part.labels)

    assert torch.equal(odd, contents(1))


def tier_of(blocks):
    return MemoryTier("dram", capacity_bytes=blocks * BLOCK, block_bytes=BLOCK)


def test_what_is_written_together_lies_in_order():
    with closing(tier_of(8)) as tier:
        fill(tier, 1, 2, 3, 4, 5)
        first = [tier._slots[key] for key in chain(1, 2, 3, 4, 5).keys]
        tier.delete(chain(4, 1, 3).keys)
        fill(tier, 6, 7, 8, 9)

        assert first == [0, 1, 2, 3, 4]
        assert [tier._slots[key] for key in chain(6, 7, 8, 9).keys] == [0, 2, 3, 5]


def test_of_two_blocks_of_a_name_the_first_is_kept():
    part, out = chain(1), torch.zeros(BLOCK, dtype=torch.uint8)
    with closing(tier_of(4)) as tier:
        tier.write([*part.keys] * 2, [contents(1), contents(2)], [*part.labels] * 2)
        tier.read(part.keys, [out], part.labels)

    assert torch.equal(out, contents(1))


@contextmanager
def stopped_reader(tier, monkeypatch, number):
    """A reader that has found its block and not copied it; it copies when the body ends. Yields its buffer."""
    part, out = chain(number), torch.zeros(BLOCK, dtype=torch.uint8)
    arrived, go_on, copy = threading.Event(), threading.Event(), memory.copy_rows

    def stop_first(*args, **options):
        if threading.current_thread() is reader:
            arrived.set()
            assert go_on.wait(60)
        copy(*args, **options)

    monkeypatch.setattr(memory, "copy_rows", stop_first)
    reader = threading.Thread(target=tier.read, args=(part.keys, [out], part.labels))
    reader.start()
    try:
        assert arrived.wait(60)
        yield out
    finally:
        go_on.set()
        reader.join()


def test_a_slot_is_not_reused_while_its_block_is_read(monkeypatch):
    with closing(tier_of(1)) as tier:
        fill(tier, 1)
        with stopped_reader(tier, monkeypatch, 1) as out:
            tier.delete(chain(1).keys)
            writer = threading.Thread(target=fill, args=(tier, 2))
            writer.start()
            writer.join(0.1)
            waits = writer.is_alive()
        writer.join()

        assert waits
        assert torch.equal(out, contents(1))
        assert tier.contains(chain(2).keys) == 1


def test_a_block_deleted_while_it_is_read_is_a_miss_at_once(monkeypatch):
    with closing(tier_of(1)) as tier:
        fill(tier, 1)
        with stopped_reader(tier, monkeypatch, 1):
            tier.delete(chain(1).keys)

            assert (tier.contains(chain(1).keys), tier.used_bytes) == (0, 0)


def test_other_slots_are_written_while_one_is_read(monkeypatch):
    with closing(tier_of(2)) as tier:
        fill(tier, 1)
        with stopped_reader(tier, monkeypatch, 1):
            tier.delete(chain(1).keys)
            fill(tier, 2)

            assert tier.contains(chain(2).keys) == 1


def test_a_slot_deleted_while_it_is_read_is_given_back(monkeypatch):
    with closing(tier_of(2)) as tier:
        fill(tier, 1, 2)
        with stopped_reader(tier, monkeypatch, 1):
            tier.delete(chain(1, 2).keys)

        fill(tier, 3, 4)

        assert tier.used_bytes == 2 * BLOCK


def test_close_waits_for_readers(monkeypatch):
    tier = tier_of(1)
    fill(tier, 1)
    with stopped_reader(tier, monkeypatch, 1) as out:
        closer = threading.Thread(target=tier.close)
        closer.start()
        closer.join(0.1)
        waits = closer.is_alive()
    closer.join()

    assert waits
    assert torch.equal(out, contents(1))


def test_a_write_that_close_overtook_is_refused(monkeypatch):
    tier = tier_of(1)
    monkeypatch.setattr(memory, "check_blocks", lambda *_: tier.close())

    with pytest.raises(TierClosedError):
        fill(tier, 1)


def test_close_in_a_forked_child_does_not_wait_for_locks_left_behind():
    with closing(tier_of(1)) as tier:
        with tier._writing, tier._state:  # as another thread of the parent might hold them
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                tier.close()
                os._exit(0)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_refusal_says_how_many_blocks_and_how_many_slots():
    with closing(tier_of(8)) as tier:
        fill(tier, *range(6))

        with pytest.raises(TierFullError, match=r"^dram: 3 blocks do not fit: 2 of 8 slots are free$"):
            fill(tier, 10, 11, 12)


def test_a_write_that_fails_gives_its_slots_back(monkeypatch):
    with closing(tier_of(2)) as tier:
        with monkeypatch.context() as patch:
            patch.setattr(memory, "copy_rows", _lost)
            with pytest.raises(TierUnavailableError, match="dram: copy failed: the device is lost"):
                fill(tier, 1, 2)

        assert tier.contains(chain(1).keys) == 0
        fill(tier, 3, 4)
        assert tier.used_bytes == 2 * BLOCK


def test_a_read_that_fails_lets_go_of_its_slots(monkeypatch):
    with closing(tier_of(1)) as tier:
        fill(tier, 1)
        with monkeypatch.context() as patch:
            patch.setattr(memory, "copy_rows", _lost)
            with pytest.raises(TierUnavailableError, match="the device is lost"):
                tier.read(chain(1).keys, [torch.empty(BLOCK, dtype=torch.uint8)])

        tier.delete(chain(1).keys)
        fill(tier, 2)

        assert tier.contains(chain(2).keys) == 1


def _lost(*_, **__):
    raise RuntimeError("the device is lost")


def test_a_pool_below_one_block_is_refused():
    with pytest.raises(ConfigError, match="dram: 4095 bytes hold no block of 4096 bytes"):
        MemoryTier("dram", capacity_bytes=4095, block_bytes=4096)


def test_a_pool_larger_than_the_memory_is_refused():
    with pytest.raises(ConfigError, match="dram: cpu has no room for a pool of"):
        MemoryTier("dram", capacity_bytes=1 << 60, block_bytes=4096)


def test_the_capacity_is_rounded_down_to_whole_blocks():
    with closing(MemoryTier("dram", capacity_bytes=3 * 4096 - 1, block_bytes=4096)) as tier:
        assert tier.capacity_bytes == 2 * 4096


def test_every_page_of_the_pool_is_there_before_the_first_write():
    blocks = (64 << 20) // BLOCK
    faults = _page_faults()
    with closing(tier_of(blocks)) as tier:
        opened = _page_faults()
        pool, staging = tier._pool.data_ptr(), contents(1)
        for number in range(blocks):
            tier.write(chain(number).keys, [staging], chain(number).labels)

        assert opened > faults
        assert _page_faults() - opened < (64 << 20) // resource.getpagesize() // 20
        assert tier._pool.data_ptr() == pool


def _page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
