"""The tiers for tests keep the laws themselves, and misbehave exactly as told."""

from contextlib import closing

import pytest
import torch

from kvtier.errors import CorruptBlockError, TierFullError, TierUnavailableError
from kvtier.testing.blocks import chain, contents, fill
from kvtier.testing.tier_tests import TierTests
from kvtier.testing.tiers import Damaged, FaultyTier, NullTier, ShortRead, SlowTier, on
from kvtier.tiers.memory import MemoryTier

BLOCK = TierTests.BLOCK_BYTES
GONE = TierUnavailableError("dram", "gone")


def memory():
    return MemoryTier("dram", capacity_bytes=TierTests.CAPACITY_BYTES, block_bytes=BLOCK)


class TestNullTier(TierTests):
    holds = False

    def open(self, path):
        return NullTier("null", block_bytes=self.BLOCK_BYTES)


class TestSlowTier(TierTests):
    def open(self, path):
        return SlowTier(memory(), latency_s=1, bytes_per_s=1, sleep=lambda _: None)


class TestFaultyTierWithoutFaults(TierTests):
    def open(self, path):
        return FaultyTier(memory(), on("write", GONE, 0))


@pytest.fixture
def inner():
    with closing(memory()) as tier:
        yield tier


def read(tier, part):
    out = [torch.zeros(BLOCK, dtype=torch.uint8) for _ in part.keys]
    return tier.read(part.keys, out, part.labels), out


def test_a_wrapped_tier_takes_the_place_of_the_one_inside(inner):
    tier = SlowTier(inner)

    assert (tier.name, tier.capacity_bytes, tier.block_bytes, tier.durable, tier.any_device, tier.used_bytes) == (
        inner.name,
        inner.capacity_bytes,
        inner.block_bytes,
        inner.durable,
        inner.any_device,
        inner.used_bytes,
    )


def test_a_slow_tier_waits_before_each_call(inner):
    slept = []
    tier = SlowTier(inner, latency_s=0.25, sleep=slept.append)

    part = fill(tier, 1)
    tier.contains(part.keys)
    list(tier.scan())
    tier.flush()
    tier.delete(part.keys)

    assert slept == [0.25] * 5


def test_a_slow_tier_moves_blocks_at_its_rate(inner):
    slept = []
    tier = SlowTier(inner, latency_s=1, bytes_per_s=2 * BLOCK, sleep=slept.append)

    part = fill(tier, 1, 2, 3)
    read(tier, part)

    assert slept == [2.5, 2.5]


@pytest.mark.parametrize(("calls", "fails"), [((), [1, 2, 3, 4]), ((3,), [3]), ((1, 4), [1, 4])])
def test_the_calls_on_the_schedule_fail_and_the_others_do_not(inner, calls, fails):
    tier, failed = FaultyTier(inner, on("write", GONE, *calls)), []
    for number in range(1, 5):
        try:
            fill(tier, number)
        except TierUnavailableError:
            failed.append(number)

    assert failed == fails
    assert [number for number in range(1, 5) if not inner.contains(chain(number).keys)] == fails


@pytest.mark.parametrize("operation", ["contains", "read", "write", "delete", "scan", "flush", "close"])
def test_every_operation_can_fail(inner, operation):
    tier, part = FaultyTier(inner, on(operation, GONE)), chain(1)
    arguments = {
        "contains": (part.keys,),
        "read": (part.keys, [contents(1).clone()], part.labels),
        "write": (part.keys, [contents(1)], part.labels),
        "delete": (part.keys,),
    }

    with pytest.raises(TierUnavailableError, match="dram: gone"):
        getattr(tier, operation)(*arguments.get(operation, ()))


def test_a_failed_delete_leaves_the_block(inner):
    tier = FaultyTier(inner, on("delete", GONE, 1))
    part = fill(tier, 1)

    with pytest.raises(TierUnavailableError):
        tier.delete(part.keys)

    assert inner.contains(part.keys) == 1
    assert tier.delete(part.keys) == 1


def test_a_refused_write_is_a_full_tier_if_the_schedule_says_so(inner):
    tier = FaultyTier(inner, on("write", TierFullError("dram", "on purpose")))

    with pytest.raises(TierFullError, match="dram: on purpose"):
        fill(tier, 1)


def test_a_short_read_ends_before_the_blocks_do(inner):
    tier = FaultyTier(inner, on("read", ShortRead(after=2), 1))
    part = fill(tier, 1, 2, 3, 4)

    count, out = read(tier, part)

    assert count == 2
    assert torch.equal(out[1], contents(2))
    assert not out[2].any()
    assert read(tier, part)[0] == 4


def test_a_damaged_block_is_named_and_those_before_it_are_good(inner):
    tier = FaultyTier(inner, on("read", Damaged(block=1)))
    part = fill(tier, 1, 2, 3)
    out = [torch.zeros(BLOCK, dtype=torch.uint8) for _ in part.keys]

    with pytest.raises(CorruptBlockError, match="damaged on purpose") as caught:
        tier.read(part.keys, out, part.labels)

    assert caught.value.key == part.keys[1]
    assert torch.equal(out[0], contents(1))


@pytest.mark.parametrize("block", [1, 2])
def test_a_block_that_is_not_held_cannot_be_damaged(inner, block):
    tier = FaultyTier(inner, on("read", Damaged(block)))
    fill(tier, 1)

    assert read(tier, chain(1, 2))[0] == 1


def test_calls_are_counted_by_operation(inner):
    tier = FaultyTier(inner, on("write", GONE, 2))
    part = fill(tier, 1)
    read(tier, part)
    with pytest.raises(TierUnavailableError):
        fill(tier, 2)

    assert tier.calls == {"write": 2, "read": 1}
