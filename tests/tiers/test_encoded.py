"""A tier in a storage format: the laws of every tier, and what is special about refusals and damage."""

import logging
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from formats.format_helpers import as_bytes, like_kv
from tier_helpers import raw_flip, raw_get

from kvtier.errors import BlockRefusedError, CorruptBlockError, SpecMismatchError, TierClosedError, TierFullError
from kvtier.formats.choice import codec_for
from kvtier.spec import KVSpec
from kvtier.testing import blocks, tier_contract, tier_life, tier_suite
from kvtier.testing.blocks import SHAPE, chain
from kvtier.testing.tier_tests import TierTests
from kvtier.testing.tiers import Damaged, FaultyTier, on
from kvtier.tiers import encoded as encoded_module
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.encoded import EncodedTier
from kvtier.tiers.memory import MemoryTier

KILL_WRITER = Path(__file__).with_name("kill_writer.py")
LAYERS, _, HEADS, TOKENS, HEAD_BYTES = SHAPE


def spec_of(dtype):
    """The geometry of the suite's blocks."""
    width = getattr(torch, dtype).itemsize
    return KVSpec(layers=LAYERS, kv_heads=HEADS, head_dim=HEAD_BYTES // width, dtype=dtype, block_tokens=TOKENS)


def on_disk(path, codec, num_blocks=TierTests.NUM_BLOCKS):
    inner = LMDBTier(
        "nvme", path, capacity_bytes=num_blocks * codec.encoded_bytes, block_bytes=codec.encoded_bytes, min_free_bytes=0
    )
    return EncodedTier(inner, codec)


def in_memory(codec, num_blocks=8):
    size = codec.encoded_bytes
    return EncodedTier(MemoryTier("dram", capacity_bytes=num_blocks * size, block_bytes=size), codec)


class TestLosslessTier(TierTests):
    """The suite's blocks are noise, so the budget is one that noise keeps to."""

    persistent = True
    verifies = True
    dtype = "float32"

    def open(self, path):
        return on_disk(path, codec_for("lossless", spec_of(self.dtype), budget=1.0))

    def raw_damage(self, tier, key):
        raw_flip(tier.inner, key, len(raw_get(tier.inner, key)) - 1)

    def writer_command(self, path):
        return [sys.executable, str(KILL_WRITER), str(path), "--lossless"]


class TestLosslessTierOfBfloat16(TestLosslessTier):
    dtype = "bfloat16"
    persistent = False  # the writer to be killed is the same


def fixed_point(kind, number):
    """A block of the suite that a format gives back as it was: numbers on the grid that its groups have."""
    random = np.random.default_rng(number)
    shape = (LAYERS, 2, HEADS, TOKENS, HEAD_BYTES // 4)
    if kind == "fp8":
        numbers = random.integers(-16, 17, shape)
        ends = (448, -448)
    else:
        levels = 255 if kind == "int8" else 15
        numbers = random.integers(0, levels + 1, shape)
        ends = (0, levels)
    for half, axis in ((0, -2), (1, -1)):  # a group's ends, so that its step is 1
        edge = np.moveaxis(numbers[:, half], axis, 0)
        edge[0], edge[1] = ends
    return torch.from_numpy(numbers.astype(np.float32)).view(-1).view(torch.uint8)


class LossyTierLaws(TierTests):
    """The laws, for blocks that the format gives back as they were."""

    kind = None

    @pytest.fixture(autouse=True)
    def _blocks_on_the_grid(self, monkeypatch):
        made = {}

        def contents(number):
            if number not in made:
                made[number] = fixed_point(self.kind, number)
            return made[number]

        for module in (blocks, tier_contract, tier_life, tier_suite):
            monkeypatch.setattr(module, "contents", contents)

    def open(self, path):
        return on_disk(path, codec_for(self.kind, spec_of("float32")))


class TestInt8Tier(LossyTierLaws):
    kind = "int8"


class TestInt4Tier(LossyTierLaws):
    kind = "int4"


class TestFloat8Tier(LossyTierLaws):
    kind = "fp8"


del LossyTierLaws  # a base is no test class of its own


SPEC = KVSpec(layers=2, kv_heads=2, head_dim=16, dtype="float32")


def put(tier, *numbers, bad=()):
    """Write blocks as one batch; those in ``bad`` hold a number that no lossy format takes."""
    part, payloads = chain(*numbers), []
    for number in numbers:
        block = like_kv(tier.codec.spec, number)
        if number in bad:
            block[0, 0, 0, 0, 0] = float("nan")
        payloads.append(as_bytes(block))
    tier.write(part.keys, payloads, part.labels)
    return part


def test_sizes_are_of_raw_blocks_outside_and_of_encoded_ones_inside():
    codec = codec_for("int8", SPEC)
    with closing(in_memory(codec, 5)) as tier:
        put(tier, 1, 2)

        assert (tier.block_bytes, tier.inner.block_bytes) == (SPEC.block_bytes, codec.encoded_bytes)
        assert (tier.capacity_bytes, tier.used_bytes) == (5 * SPEC.block_bytes, 2 * SPEC.block_bytes)


def test_a_tier_of_another_block_size_is_refused():
    inner = MemoryTier("dram", capacity_bytes=1 << 20, block_bytes=SPEC.block_bytes)

    with closing(inner), pytest.raises(SpecMismatchError, match=r"dram: tier holds blocks of \d+ bytes, int8 blocks"):
        EncodedTier(inner, codec_for("int8", SPEC))


def test_a_refused_block_is_named_and_the_others_are_stored(caplog):
    with closing(in_memory(codec_for("int8", SPEC))) as tier, caplog.at_level(logging.WARNING, "kvtier"):
        part = chain(1, 2, 3)
        with pytest.raises(
            BlockRefusedError, match=f"dram: int8 cannot keep 1 of 3 blocks; block {part.keys[1].hex()[:12]}: the keys"
        ) as caught:
            put(tier, 1, 2, 3, bad=[2])

        assert caught.value.keys == {part.keys[1]}
        assert [tier.contains([key]) for key in part.keys] == [1, 0, 1]
        assert "said once" in caplog.text


def test_refusals_are_logged_once(caplog):
    with closing(in_memory(codec_for("int8", SPEC))) as tier, caplog.at_level(logging.WARNING, "kvtier"):
        for number in (1, 2):
            with pytest.raises(BlockRefusedError):
                put(tier, number, bad=[number])

    assert len(caplog.records) == 1


def test_of_two_reasons_not_to_store_the_one_that_stores_nothing_is_given():
    with closing(in_memory(codec_for("int8", SPEC), 1)) as tier:
        with pytest.raises(TierFullError):
            put(tier, 1, 2, 3, bad=[2])

        assert tier.used_bytes == 0


@pytest.mark.parametrize("part_blocks", [1, 2, 3, 7])
def test_a_read_of_several_parts_ends_where_the_run_does(monkeypatch, part_blocks):
    codec = codec_for("int8", SPEC)
    monkeypatch.setattr(encoded_module, "_PART_BYTES", part_blocks * codec.encoded_bytes)
    with closing(in_memory(codec, 8)) as tier:
        put(tier, 0, 1, 2, 3, 4, 6)
        part, out = chain(*range(7)), [torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in range(7)]

        assert tier.read(part.keys, out, part.labels) == 5
        assert tier.read(part.keys[:4], out[:4], part.labels[:4]) == 4
        first = torch.zeros_like(out[0])
        tier.read(part.keys[4:5], [first], part.labels[4:5])
        tier.read(part.keys, out, part.labels)
        assert torch.equal(out[4], first)


def encode_garbage(tier, part, at):
    """Replace a block by bytes that are verified, and that no format wrote."""
    inner = tier.inner
    inner.delete(part.keys[at : at + 1])
    inner.write(part.keys[at : at + 1], [torch.ones(inner.block_bytes, dtype=torch.uint8)], part.labels[at : at + 1])


@pytest.mark.parametrize("part_blocks", [1, 3, 32])
def test_verified_bytes_that_no_format_wrote_are_damage_behind_good_blocks(monkeypatch, part_blocks):
    codec = codec_for("int8", SPEC)
    monkeypatch.setattr(encoded_module, "_PART_BYTES", part_blocks * codec.encoded_bytes)
    with closing(in_memory(codec)) as tier:
        part = put(tier, 0, 1, 2, 3, 4)
        out = [torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in range(5)]
        tier.read(part.keys[:2], out[:2], part.labels[:2])
        expected = [block.clone() for block in out[:2]]
        encode_garbage(tier, part, 2)
        encode_garbage(tier, part, 3)
        for block in out:
            block.zero_()

        with pytest.raises(CorruptBlockError) as caught:
            tier.read(part.keys, out, part.labels)

        assert caught.value.key == part.keys[2]
        assert all(torch.equal(*pair) for pair in zip(out[:2], expected, strict=True))


def test_damage_found_below_comes_after_damage_found_above():
    codec = codec_for("int8", SPEC)
    inner = MemoryTier("dram", capacity_bytes=8 * codec.encoded_bytes, block_bytes=codec.encoded_bytes)
    with closing(EncodedTier(FaultyTier(inner, on("read", Damaged(2))), codec)) as tier:
        part = put(tier, 0, 1, 2, 3)
        encode_garbage(tier, part, 1)
        out = [torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in range(4)]

        with pytest.raises(CorruptBlockError) as caught:
            tier.read(part.keys, out, part.labels)

        assert caught.value.key == part.keys[1]


def test_damage_found_below_leaves_the_blocks_before_it_good():
    codec = codec_for("int8", SPEC)
    inner = MemoryTier("dram", capacity_bytes=8 * codec.encoded_bytes, block_bytes=codec.encoded_bytes)
    with closing(EncodedTier(FaultyTier(inner, on("read", Damaged(2), 2)), codec)) as tier:
        part = put(tier, 0, 1, 2, 3)
        expected, out = ([torch.zeros(SPEC.block_bytes, dtype=torch.uint8) for _ in range(4)] for _ in range(2))
        tier.read(part.keys, expected, part.labels)

        with pytest.raises(CorruptBlockError) as caught:
            tier.read(part.keys, out, part.labels)

        assert caught.value.key == part.keys[2]
        assert all(torch.equal(*pair) for pair in zip(out[:2], expected[:2], strict=True))


def test_close_waits_for_a_read_that_is_being_decoded(monkeypatch):
    codec = codec_for("int8", SPEC)
    tier = in_memory(codec)
    part, out = put(tier, 1), [torch.zeros(SPEC.block_bytes, dtype=torch.uint8)]
    decoding, go_on, genuine = threading.Event(), threading.Event(), codec.decode

    def slow(*args):
        decoding.set()
        assert go_on.wait(60)
        genuine(*args)

    monkeypatch.setattr(codec, "decode", slow)
    reader = threading.Thread(target=tier.read, args=(part.keys, out, part.labels))
    reader.start()
    assert decoding.wait(60)
    closer = threading.Thread(target=tier.close)
    closer.start()
    while not tier._closed:
        pass

    with pytest.raises(TierClosedError):
        tier.read(part.keys, out, part.labels)
    closer.join(0.3)  # long enough for a close that does not wait
    assert closer.is_alive()
    go_on.set()
    reader.join(60)
    closer.join(60)

    assert out[0].any()


def test_scratch_beyond_a_bound_is_not_kept(monkeypatch):
    codec = codec_for("int8", SPEC)
    monkeypatch.setattr(encoded_module, "_KEPT_BYTES", 3 * codec.encoded_bytes)
    with closing(in_memory(codec)) as tier:
        put(tier, 1, 2)
        put(tier, 3)
        assert [len(spare) for spare in tier._spare] == [2]

        put(tier, 4, 5, 6, 7)
        assert [len(spare) for spare in tier._spare] == [2]
