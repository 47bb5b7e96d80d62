"""fp8: the eight-bit floating point of accelerators (e4m3), with a scale for each group.

    scale = largest magnitude / 448        448 is the largest number of e4m3
    code  = e4m3(x / scale)                four bits of exponent, three of mantissa
    x'    = code * scale                   off by x / 16 at most, or by scale / 1024 near zero

Small numbers of a group keep their leading digits, which int8 rounds away; large ones have fewer than int8.

Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022: e4m3 without infinities. Differs from
common use: a scale for each channel of keys and token of values, see ``kvtier.formats.quantized``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kvtier.format import Bytes
from kvtier.formats.quantized import Bfloats, Floats, Quantized, scale_above

#: The largest number of e4m3.
LARGEST = np.float32(448)

#: Exponents of float32 count from -127, those of e4m3 from -7; three of its 23 bits of mantissa stay.
_BIAS = np.float32(2.0 ** (127 - 7))
_DROPPED_BITS = 20


class Float8(Quantized):
    """e4m3 codes for each group."""

    name: ClassVar[str] = "fp8"
    number: ClassVar[int] = 2
    num_parameters: ClassVar[int] = 1
    code_bits: ClassVar[int] = 8

    def _parameters(self, numbers: Floats, axis: int) -> Bfloats:
        largest = np.maximum(numbers.max(axis=axis, keepdims=True), -numbers.min(axis=axis, keepdims=True))
        return scale_above(largest / LARGEST)[None]

    def _quantize(self, numbers: Floats, parameters: Floats, codes: Bytes) -> None:
        numbers /= parameters[0]
        e4m3_codes(numbers, codes)

    def _restore(self, codes: Bytes, parameters: Floats, numbers: Floats) -> None:
        e4m3_numbers(codes, numbers)
        numbers *= parameters[0]

    def _reach(self, parameters: Floats) -> Floats:
        reach: Floats = LARGEST * parameters[0]
        return reach


def e4m3_codes(numbers: Floats, codes: Bytes) -> None:
    """Codes of the nearest e4m3 numbers, ties to the even code. Changes ``numbers``.

    Without the bias, the bits of a float32 are those of e4m3 and more behind them, near zero as well:
    both then count in equal steps. So to round is to add half a step to the bits and cut them off.

    Args:
        numbers: Magnitudes of ``LARGEST`` at most.
        codes: Filled in; of the same shape.
    """
    signs = np.signbit(numbers)
    np.abs(numbers, out=numbers)
    numbers /= _BIAS
    bits = numbers.view(np.uint32)
    bits += (1 << (_DROPPED_BITS - 1)) - 1 + (bits >> _DROPPED_BITS & 1)
    bits >>= _DROPPED_BITS
    bits |= signs.astype(np.uint32) << 7
    np.copyto(codes, bits, casting="unsafe")


def e4m3_numbers(codes: Bytes, numbers: Floats) -> None:
    """The numbers that codes stand for; the two codes of NaN, which ``e4m3_codes`` does not write, as 480 and -480.

    A code's exponent and mantissa, put where float32 has them, are the number but for the bias of
    the exponent; near zero as well.
    """
    bits = numbers.view(np.uint32)
    bits[...] = codes
    bits <<= 24
    signs = bits & 0x80000000
    bits ^= signs
    bits >>= 24 - _DROPPED_BITS
    bits |= signs
    numbers *= _BIAS
