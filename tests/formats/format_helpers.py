"""Blocks for tests of storage formats, and what they are once decoded."""

import torch

from kvtier.spec import KVSpec

SPECS = [
    KVSpec(layers=3, kv_heads=2, head_dim=16, dtype=dtype, block_tokens=8)
    for dtype in ("float32", "float16", "bfloat16")
]
#: The name of every block here.
KEY = b"\1" * 32

ODD = [
    KVSpec(layers=1, kv_heads=1, head_dim=1, dtype="float32", block_tokens=1),
    KVSpec(layers=2, kv_heads=3, head_dim=5, dtype="bfloat16", block_tokens=7),
    KVSpec(layers=70, kv_heads=4, head_dim=33, dtype="float16", block_tokens=32),
]


def dtype_of(spec):
    return getattr(torch, spec.dtype)


def like_kv(spec, seed=0):
    """Numbers as a model's cache has them: channels of keys of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(spec.block_shape, generator=generator)
    numbers[:, 0] *= torch.logspace(-2, 1.5, spec.head_dim)
    numbers[:, 0] += torch.randn(spec.head_dim, generator=generator)
    return numbers.to(dtype_of(spec))


def as_bytes(numbers):
    """A block as tiers move it."""
    return numbers.contiguous().view(-1).view(torch.uint8)


def noise(spec, seed=0):
    """Bytes without any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (spec.block_bytes,), dtype=torch.uint8, generator=generator)


def encoded(codec, block):
    """The block, encoded; the format must be able to keep it."""
    out = torch.full((codec.encoded_bytes,), 0xAA, dtype=torch.uint8)
    assert codec.encode(KEY, block, out) is None
    return out


def decoded(codec, stored):
    """The block that comes back, as bytes."""
    out = torch.full((codec.spec.block_bytes,), 0x55, dtype=torch.uint8)
    codec.decode(KEY, stored, out)
    return out


def there_and_back(codec, numbers):
    """Numbers of the spec's dtype and shape, after a trip through the format."""
    back = decoded(codec, encoded(codec, as_bytes(numbers)))
    return back.view(dtype_of(codec.spec)).view(codec.spec.block_shape)


def strided(spec, count=3, at=1):
    """A block's place in the middle of a longer sequence, as an adapter passes it, and the whole of it."""
    layers, two, heads, tokens, channels = spec.block_shape
    size = dtype_of(spec).itemsize
    whole = torch.zeros(layers, two, heads, count * tokens, channels * size, dtype=torch.uint8)
    return whole[:, :, :, at * tokens : (at + 1) * tokens], whole
