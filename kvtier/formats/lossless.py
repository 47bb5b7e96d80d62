"""Exact blocks in fewer bytes: exponents set apart and compressed, the rest as it is.

    float32   s eeeeeeee mmmmmmm mmmmmmmm mmmmmmmm   ->   eeeeeeee | mmmmmmms | mmmmmmmm mmmmmmmm
    bfloat16  s eeeeeeee mmmmmmm                     ->   eeeeeeee | mmmmmmms
    float16   s eeeee mmmmmmmmmm                     ->   eeeeemmm | mmmmmmms

Of a KV cache only the first plane has an order to it: most exponents are of a few values. Sign and
mantissa are noise to a compressor, so they are stored as they are, and time is spent on the rest
alone. The exponent is kept in one byte; where the bytes of the number are split as they lie, its last
bit ends up among the mantissa's.

    [header] [low planes, group after group] [length of each frame, u32] [frames]

A group is some layers. Its first plane is a zstd frame, or stored as it is if that is shorter.

Blocks compress to lengths that differ little, and slots are all of one length, so a block has a budget. One that
does not keep to it is refused.

Source: the exponent plane set apart, as in ZipNN (Hershcovitch et al., 2024). Differs: the other
planes are never compressed, and bits are moved only as far as bytes need it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import Bytes
from kvtier.formats.base import HEADER_BYTES, Framed, layers_at_a_time
from kvtier.spec import KVSpec

#: Share of the raw bytes that a block may take unless the caller says otherwise: half of the exponents' plane,
#: above what models' KV was seen to need; a float16 plane holds three bits of mantissa that do not compress.
BUDGETS = {"float32": 0.875, "bfloat16": 0.75, "float16": 0.9}

#: Numbers of a group: enough for a code of its own, few enough for a processor's second-level cache.
_GROUP_ITEMS = 64 << 10

#: Of zstd: higher ones look for repetitions, which exponents do not have, and find worse codes.
_LEVEL = 1


Halves = NDArray[np.uint16]
"""Numbers in pieces of two bytes: ``[count, 1]``, or for float32 ``[count, 2]``, the upper half last."""


class Lossless(Framed):
    """The exact format.

    Args:
        spec: Geometry of the blocks, of dtype float32, float16 or bfloat16.
        budget: Encoded bytes of a block over its raw bytes, at most; None for that of ``BUDGETS``.
            At 1 every block fits, with a page or so for the header, and nothing is gained.

    Raises:
        ConfigError: Another dtype, a budget that leaves nothing for the exponents, or no zstandard.
    """

    name: ClassVar[str] = "lossless"
    exact: ClassVar[bool] = True

    def __init__(self, spec: KVSpec, budget: float | None = None) -> None:
        self._zstd = _zstandard()
        self._groups = list(layers_at_a_time(spec, _GROUP_ITEMS))
        tables = 4 * len(self._groups)
        share = BUDGETS.get(spec.dtype, 1.0) if budget is None else budget
        super().__init__(spec, number=1, payload_bytes=tables + int(share * spec.block_bytes))
        width = np.dtype(self._word).itemsize
        self._low_bytes, self._halves = width - 1, width // 2
        raw_share = self._low_bytes / width
        if not raw_share < share <= 1:
            raise ConfigError(
                f"the budget of a lossless {spec.dtype} block is above {raw_share} and at most 1, got {budget}"
            )

    def encode(self, key: bytes, block: torch.Tensor, out: torch.Tensor) -> str | None:  # noqa: ARG002  (one signature for all)
        """See ``Codec.encode``."""
        words, encoded = self._words_in(block), out.numpy()
        compressor, scratch = self._zstd.ZstdCompressor(level=_LEVEL), self._two_rows()
        at, frames = HEADER_BYTES, []
        for group in self._groups:
            aside = self._scratch.take("words", words[group].shape, self._word)
            np.copyto(aside, words[group])
            halves = aside.view("<u2").reshape(-1, self._halves)
            exponents = np.empty(len(halves), np.uint8)
            at = _split(halves, exponents, encoded, at, scratch)
            frame = compressor.compress(exponents)
            frames.append(np.frombuffer(frame, np.uint8) if len(frame) < len(exponents) else exponents)
        lengths = np.array([len(frame) for frame in frames], "<u4").view(np.uint8)
        needed = at + len(lengths) + sum(map(len, frames))
        if needed > len(out):
            return f"it takes {needed} bytes, {len(out)} are set aside for a block of {self.spec.block_bytes}"
        for part in (lengths, *frames):
            encoded[at : at + len(part)] = part
            at += len(part)
        self._seal(out, needed)
        return None

    def decode(self, key: bytes, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """See ``Codec.decode``."""
        used, stored = self._unseal(key, encoded), encoded.numpy()
        sizes = [self._num_items(group) for group in self._groups]
        low_at, table = HEADER_BYTES, HEADER_BYTES + sum(sizes) * self._low_bytes
        at = table + 4 * len(sizes)
        lengths = stored[table:at].view("<u4")
        if at + int(lengths.sum(dtype=np.uint64)) != used:
            raise CorruptBlockError(key, f"lossless: frames of {lengths.tolist()} bytes from {at} do not end at {used}")
        decompressor, scratch = self._zstd.ZstdDecompressor(), self._two_rows()
        with self._words_out(out) as target:
            for group, size, length in zip(self._groups, sizes, lengths.tolist(), strict=True):
                exponents = self._exponents(key, decompressor, stored[at : at + length], size)
                at += length
                aside = self._scratch.take("words", target[group].shape, self._word)
                low_at = _join(exponents, stored, low_at, aside.view("<u2").reshape(-1, self._halves), scratch)
                target[group] = aside

    def _two_rows(self) -> Halves:
        """Scratch for the upper halves of a group."""
        return self._scratch.take("rows", (2, self._num_items(self._groups[0])), np.uint16)

    def _num_items(self, group: slice) -> int:
        num_layers: int = group.stop - group.start
        return num_layers * self.spec.block_bytes // self.spec.layers // (self._low_bytes + 1)

    def _exponents(self, key: bytes, decompressor: Any, frame: Bytes, size: int) -> Bytes:
        """The first plane of a group: ``size`` bytes."""
        if len(frame) == size:
            return frame
        try:
            plane = np.frombuffer(decompressor.decompress(frame, max_output_size=size), np.uint8)
        except self._zstd.ZstdError as exc:
            raise CorruptBlockError(key, f"lossless: a frame cannot be decompressed: {exc}") from exc
        if len(plane) != size:
            raise CorruptBlockError(key, f"lossless: a frame holds {len(plane)} exponents, expected {size}")
        return plane


def _split(halves: Halves, exponents: Bytes, encoded: Bytes, at: int, scratch: Halves) -> int:
    """Set the exponents of a group apart, and store its low planes; returns where they end."""
    count = len(halves)
    upper, shifted = scratch[:, :count]
    upper[:] = halves[:, -1]
    np.right_shift(upper, 7, out=shifted)
    np.copyto(exponents, shifted, casting="unsafe")  # the low byte: the sign falls off
    np.left_shift(upper, 1, out=shifted)
    upper >>= 15
    shifted |= upper
    np.copyto(encoded[at : at + count], shifted, casting="unsafe")
    at += count
    if halves.shape[1] == 1:
        return at
    encoded[at : at + 2 * count].view("<u2")[:] = halves[:, 0]
    return at + 2 * count


def _join(exponents: Bytes, encoded: Bytes, at: int, halves: Halves, scratch: Halves) -> int:
    """The inverse of ``_split``: fill ``halves``; returns where the low planes end."""
    count = len(halves)
    upper, shifted = scratch[:, :count]
    shifted[:] = encoded[at : at + count]
    np.right_shift(shifted, 1, out=upper)
    shifted <<= 15
    upper |= shifted
    shifted[:] = exponents
    shifted <<= 7
    upper |= shifted
    halves[:, -1] = upper
    at += count
    if halves.shape[1] == 1:
        return at
    halves[:, 0] = encoded[at : at + 2 * count].view("<u2")
    return at + 2 * count


def _zstandard() -> Any:
    """The compressor's library: an extra, because only this format needs it."""
    try:
        import zstandard
    except ImportError as exc:
        raise ConfigError("the lossless format needs zstandard; run: pip install 'kvtier[formats]'") from exc
    return zstandard
