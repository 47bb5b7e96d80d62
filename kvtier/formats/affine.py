"""int8 and int4: a number is the low end of its group and a whole number of steps.

    step = (high - low) / levels        levels = 255 or 15, for each group
    code = round((x - low) / step)      0 to levels
    x'   = low + code * step            off by half a step at most, and then rounded to the dtype

Four bits are packed two to a byte: the first half of a head's channels in the low halves of the bytes,
the second in the high ones, so that both are packed and unpacked as runs.

Source: asymmetric quantization as in KIVI (Liu et al., ICML 2024); see ``kvtier.formats.quantized``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kvtier.format import Bytes
from kvtier.formats.quantized import Bfloats, Floats, Quantized, bfloat16_below, scale_above, widened


class Int8(Quantized):
    """256 levels for each group."""

    name: ClassVar[str] = "int8"
    number: ClassVar[int] = 3
    num_parameters: ClassVar[int] = 2
    code_bits: ClassVar[int] = 8

    levels: ClassVar[int] = 255
    """Steps from the low end of a group to its high end."""

    def _parameters(self, numbers: Floats, axis: int) -> Bfloats:
        start = bfloat16_below(numbers.min(axis=axis, keepdims=True))
        span = numbers.max(axis=axis, keepdims=True) - widened(start)
        return np.stack([start, scale_above(span / np.float32(self.levels))])

    def _quantize(self, numbers: Floats, parameters: Floats, codes: Bytes) -> None:
        start, step = parameters
        numbers -= start
        numbers /= step
        np.rint(numbers, out=numbers)
        self._pack(numbers, codes)

    def _restore(self, codes: Bytes, parameters: Floats, numbers: Floats) -> None:
        start, step = parameters
        self._unpack(codes, numbers)
        numbers *= step
        numbers += start

    def _reach(self, parameters: Floats) -> Floats:
        start, step = parameters
        last = start + np.float32(self.levels) * step
        reach: Floats = np.maximum(np.abs(start), np.abs(last))
        return reach

    def _pack(self, numbers: Floats, codes: Bytes) -> None:
        """Codes as whole numbers to codes as they are stored."""
        np.copyto(codes, numbers, casting="unsafe")

    def _unpack(self, codes: Bytes, numbers: Floats) -> None:
        """The inverse of ``_pack``."""
        numbers[...] = codes


class Int4(Int8):
    """16 levels for each group."""

    name: ClassVar[str] = "int4"
    number: ClassVar[int] = 4
    code_bits: ClassVar[int] = 4
    levels: ClassVar[int] = 15

    def _pack(self, numbers: Floats, codes: Bytes) -> None:
        half = codes.shape[-1]
        rest = numbers.shape[-1] - half
        numbers[..., half:] *= 16
        numbers[..., :rest] += numbers[..., half:]
        np.copyto(codes, numbers[..., :half], casting="unsafe")

    def _unpack(self, codes: Bytes, numbers: Floats) -> None:
        half = codes.shape[-1]
        rest = numbers.shape[-1] - half
        nibbles = self._scratch.take("nibbles", codes.shape, np.uint8)
        np.bitwise_and(codes, 0x0F, out=nibbles)
        numbers[..., :half] = nibbles
        np.right_shift(codes, 4, out=nibbles)
        numbers[..., half:] = nibbles[..., :rest]
