"""The lossless format: every bit comes back, or the block is refused."""

import builtins
import subprocess
import sys

import numpy as np
import pytest
import torch
from formats.format_helpers import ODD, SPECS, as_bytes, decoded, encoded, like_kv, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.formats.base import HEADER_BYTES
from kvtier.formats.lossless import BUDGETS, Lossless
from kvtier.spec import KVSpec

SMALL = [KVSpec(layers=1, kv_heads=2, head_dim=8, dtype=dtype, block_tokens=4) for dtype in BUDGETS]
LARGE = [KVSpec(layers=9, kv_heads=4, head_dim=64, dtype=dtype) for dtype in BUDGETS]
KEY = b"\1" * 32


def blocks_of(spec):
    """Arbitrary bytes, and what a compressor may stumble over: runs, repetitions, few values."""
    size = spec.block_bytes
    plain = st.binary(min_size=size, max_size=size)
    repeated = st.binary(min_size=1, max_size=64).map(lambda piece: (piece * (size // len(piece) + 1))[:size])
    seeded = st.integers(0, 2**31).map(lambda seed: bytes(noise(spec, seed).tolist()))
    return st.one_of(plain, repeated, seeded).map(lambda data: torch.frombuffer(bytearray(data), dtype=torch.uint8))


@pytest.mark.parametrize("spec", [*SMALL, *ODD[:2]], ids=lambda spec: f"{spec.dtype}-{spec.head_dim}")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_come_back_bit_for_bit(spec, data):
    codec = Lossless(spec, budget=1.0)
    block = data.draw(blocks_of(spec))

    assert torch.equal(decoded(codec, encoded(codec, block)), block)


@pytest.mark.parametrize("spec", [*LARGE, ODD[2]], ids=lambda spec: spec.dtype)
@pytest.mark.parametrize("make", [noise, lambda spec: as_bytes(like_kv(spec))], ids=["noise", "kv"])
def test_a_block_of_several_groups_comes_back_bit_for_bit(spec, make):
    codec = Lossless(spec, budget=1.0)
    block = make(spec)

    assert len(codec._groups) > 1
    assert torch.equal(decoded(codec, encoded(codec, block)), block)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.dtype)
def test_every_sixteen_bits_come_back(spec):
    every = np.arange(2**16, dtype=np.uint16)
    words = every if spec.dtype != "float32" else (every.astype(np.uint32) << 16 | every[::-1])
    big = KVSpec(layers=1, kv_heads=1, head_dim=256, dtype=spec.dtype, block_tokens=128)
    block = torch.from_numpy(words.view(np.uint8).copy())
    codec = Lossless(big, budget=1.0)

    assert torch.equal(decoded(codec, encoded(codec, block)), block)


@pytest.mark.parametrize("spec", LARGE, ids=lambda spec: spec.dtype)
def test_numbers_like_a_models_fit_the_budget_they_have_by_default(spec):
    codec = Lossless(spec)

    assert codec.encoded_bytes < spec.block_bytes
    assert torch.equal(decoded(codec, encoded(codec, as_bytes(like_kv(spec)))), as_bytes(like_kv(spec)))


@pytest.mark.parametrize("spec", LARGE, ids=lambda spec: spec.dtype)
def test_a_block_beyond_its_budget_is_refused_with_both_sizes(spec):
    codec = Lossless(spec)

    reason = codec.encode(b"", noise(spec), torch.zeros(codec.encoded_bytes, dtype=torch.uint8))

    assert reason.endswith(f"{codec.encoded_bytes} are set aside for a block of {spec.block_bytes}")


def test_a_larger_budget_takes_what_a_smaller_one_refuses():
    spec = LARGE[0]
    block = as_bytes(like_kv(spec))
    stored = encoded(Lossless(spec, budget=1.0), block)
    used = int.from_bytes(bytes(stored[8:16].tolist()), "little")
    tight, roomy = Lossless(spec, (used - 8192) / spec.block_bytes), Lossless(spec, used / spec.block_bytes)

    assert tight.encode(b"", block, torch.zeros(tight.encoded_bytes, dtype=torch.uint8)) is not None
    assert torch.equal(decoded(roomy, encoded(roomy, block)), block)


@pytest.mark.parametrize(("dtype", "budget"), [("float32", 0.75), ("bfloat16", 0.5), ("float16", 1.01), ("float16", 0)])
def test_a_budget_that_cannot_be_is_refused(dtype, budget):
    spec = KVSpec(layers=1, kv_heads=1, head_dim=8, dtype=dtype)

    with pytest.raises(ConfigError, match=rf"budget of a lossless {dtype} block .* got {budget}"):
        Lossless(spec, budget)


def test_without_its_library_the_error_says_how_to_get_it(monkeypatch):
    genuine = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "zstandard":
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(ConfigError, match=r"needs zstandard; run: pip install 'kvtier\[formats\]'"):
        Lossless(SPECS[0])


def test_the_other_formats_do_not_load_the_library():
    code = (
        "import sys\nfrom kvtier.formats.choice import codec_for\nfrom kvtier.spec import KVSpec\n"
        "codec_for('int8', KVSpec(layers=1, kv_heads=1, head_dim=8, dtype='float32'))\n"
        "print('zstandard' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def damaged(at, value):
    """A stored block of one group whose 32-bit word at an offset behind the low planes is another."""
    codec = Lossless(SPECS[0], budget=1.0)
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))
    table = HEADER_BYTES + SPECS[0].block_bytes // 4 * 3
    length = int.from_bytes(bytes(stored[table : table + 4].tolist()), "little")
    word = np.array([value(length)], np.uint32).view(np.uint8)
    stored[table + at : table + at + 4] = torch.from_numpy(word)
    return codec, stored


@pytest.mark.parametrize("change", [-1, 1, 1 << 20])
def test_a_length_that_does_not_add_up_is_damage(change):
    codec, stored = damaged(0, lambda length: length + change)

    with pytest.raises(CorruptBlockError, match="do not end at"):
        decoded(codec, stored)


def test_a_frame_that_is_none_is_damage():
    codec, stored = damaged(4, lambda _: 0xFFFFFFFF)

    with pytest.raises(CorruptBlockError, match="a frame cannot be decompressed"):
        decoded(codec, stored)


def test_a_frame_of_another_number_of_exponents_is_damage():
    zstandard = pytest.importorskip("zstandard")
    codec = Lossless(SPECS[0], budget=1.0)
    stored = encoded(codec, as_bytes(like_kv(SPECS[0])))
    table = HEADER_BYTES + SPECS[0].block_bytes // 4 * 3
    frame = zstandard.ZstdCompressor().compress(bytes(100))
    stored[table : table + 4] = torch.tensor([len(frame)], dtype=torch.int32).view(torch.uint8)
    stored[table + 4 : table + 4 + len(frame)] = torch.frombuffer(bytearray(frame), dtype=torch.uint8)
    used = table + 4 + len(frame)
    stored[8:16] = torch.tensor([used], dtype=torch.int64).view(torch.uint8)

    with pytest.raises(CorruptBlockError, match="holds 100 exponents, expected"):
        decoded(codec, stored)
