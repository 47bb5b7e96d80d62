"""Blocks in 8 or 4 bits a number, with the scales inside the block: what lossy formats share.

    keys     [layers, kv_heads, block_tokens, head_dim]   one scale for a channel: along block_tokens
    values   [layers, kv_heads, block_tokens, head_dim]   one scale for a token:   along head_dim

Some channels of keys are far larger than others, in every token; a scale of their own keeps them from
drowning the rest. Values have no such channels, and a scale for each token keeps the error of a token
in what attention takes from that token.

    [header] [parameters of keys] [parameters of values] [codes of keys] [codes of values]

A parameter is a bfloat16 for each group of numbers, rounded in the direction in which every number of the
group stays inside the range that its codes span. So the error of a number is bounded by its group's scale,
as each format states, and then rounded once to the block's dtype.

A block with a number that is not finite is refused: it has no range. Zeros in a group of zeros and
the numbers of a group that are all equal, if bfloat16 has that number, come back exact.

Source: keys per channel and values per token as in KIVI (Liu et al., ICML 2024). Differs from the
paper: a group of keys is a block's tokens, a group of values a head's whole row; parameters are bfloat16
and rounded outwards; no tail is kept in full precision, since only whole blocks are stored.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from kvtier.errors import CorruptBlockError
from kvtier.format import Bytes
from kvtier.formats.base import HEADER_BYTES, Framed, Words, layers_at_a_time
from kvtier.spec import KVSpec

Floats = NDArray[np.float32]
Bfloats = NDArray[np.uint16]
"""bfloat16 numbers, as their bits."""

#: The smallest scale: below it a division loses digits.
SMALLEST_SCALE = np.float32(2.0**-126)

#: Largest finite numbers. What would round to more becomes them.
_LARGEST = {"float32": float(np.finfo(np.float32).max), "bfloat16": 255 * 2.0**120, "float16": 65504.0}

#: Numbers computed with at a time: what that needs fits a processor's second-level cache.
_GROUP_ITEMS = 256 << 10

_TOKEN_AXIS, _CHANNEL_AXIS = 2, 3


class Quantized(Framed):
    """A format whose codes are a function of each number and of parameters of its group.

    Args:
        spec: Geometry of the blocks, of dtype float32, float16 or bfloat16.

    Raises:
        ConfigError: Another dtype.
    """

    exact: ClassVar[bool] = False

    number: ClassVar[int]
    """The format's number in the header."""

    num_parameters: ClassVar[int]
    """bfloat16 numbers stored for a group; the last of them is its scale."""

    code_bits: ClassVar[int]
    """Bits of a number's code."""

    def __init__(self, spec: KVSpec) -> None:
        layers, _, heads, tokens, channels = spec.block_shape
        self._group_shapes = ((layers, heads, 1, channels), (layers, heads, tokens, 1))
        self._codes_shape = (layers, heads, tokens, -(-channels * self.code_bits // 8))
        self._used = HEADER_BYTES + sum(map(self._num_bytes, self._group_shapes)) + 2 * math.prod(self._codes_shape)
        super().__init__(spec, number=self.number, payload_bytes=self._used - HEADER_BYTES)
        self._layers = list(layers_at_a_time(spec, _GROUP_ITEMS))

    @abstractmethod
    def _parameters(self, numbers: Floats, axis: int) -> Bfloats:
        """Parameters of every group along ``axis``: ``[num_parameters, *group]``, the scale last.

        A group with a number that is not finite has a parameter that is not.
        """

    @abstractmethod
    def _quantize(self, numbers: Floats, parameters: Floats, codes: Bytes) -> None:
        """Fill in the codes of numbers, which may be changed; the codes' last axis is packed."""

    @abstractmethod
    def _restore(self, codes: Bytes, parameters: Floats, numbers: Floats) -> None:
        """Fill in what the codes stand for."""

    @abstractmethod
    def _reach(self, parameters: Floats) -> Floats:
        """A magnitude for each group that no code goes beyond."""

    def encode(self, key: bytes, block: torch.Tensor, out: torch.Tensor) -> str | None:  # noqa: ARG002  (one signature for all)
        """See ``Codec.encode``."""
        words = self._words_in(block)
        for half, stored, codes in self._parts(out.numpy()):
            for layers in self._layers:
                numbers = self._widened(words[layers, half])
                with np.errstate(over="ignore", invalid="ignore"):  # the check that follows finds it
                    stored[:, layers] = self._parameters(numbers, _CHANNEL_AXIS if half else _TOKEN_AXIS)
                parameters = widened(stored[:, layers])
                if not np.isfinite(parameters).all():
                    what = "values" if half else "keys"
                    return f"the {what} hold a number that is not finite, or span too wide a range"
                self._quantize(numbers, parameters, codes[layers])
        self._seal(out, self._used)
        return None

    def decode(self, key: bytes, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """See ``Codec.decode``."""
        used = self._unseal(key, encoded)
        if used != self._used:
            raise CorruptBlockError(key, f"{self.name}: {used} bytes are in use, expected {self._used}")
        with self._words_out(out) as words:
            for half, stored, codes in self._parts(encoded.numpy()):
                parameters = widened(stored)
                if not np.isfinite(parameters).all() or (parameters[-1] <= 0).any():
                    raise CorruptBlockError(key, f"{self.name}: a scale is not a positive number")
                for layers in self._layers:
                    self._restored(codes[layers], parameters[:, layers], words[layers, half])

    def _widened(self, words: Words) -> Floats:
        """Numbers of the block's dtype as float32, each exact, in this thread's scratch."""
        numbers = self._scratch.take("numbers", words.shape, np.float32)
        if self.spec.dtype == "bfloat16":
            bits = numbers.view(np.uint32)
            bits[...] = words
            bits <<= 16
        else:
            numbers[...] = words.view(self.spec.dtype)
        return numbers

    def _restored(self, codes: Bytes, parameters: Floats, words: Words) -> None:
        """What codes stand for, rounded to the block's dtype: to nearest, to even, never beyond its largest number."""
        numbers = self._scratch.take("numbers", words.shape, np.float32)
        largest = _LARGEST[self.spec.dtype]
        with np.errstate(over="ignore"):
            self._restore(codes, parameters, numbers)
            if not (self._reach(parameters) <= largest / 2).all():
                np.clip(numbers, -largest, largest, out=numbers)
        if self.spec.dtype != "bfloat16":
            words.view(self.spec.dtype)[...] = numbers
            return
        bits, odd = numbers.view(np.uint32), self._scratch.take("odd", words.shape, np.uint32)
        np.right_shift(bits, 16, out=odd)
        odd &= 1
        bits += odd
        bits += 0x7FFF
        bits >>= 16
        np.copyto(words, bits, casting="unsafe")

    def _parts(self, encoded: Bytes) -> Iterator[tuple[int, Bfloats, Bytes]]:
        """Views of the parameters and codes, of keys (0) and of values (1)."""
        at, codes_at = HEADER_BYTES, HEADER_BYTES + sum(map(self._num_bytes, self._group_shapes))
        for half, shape in enumerate(self._group_shapes):
            end, codes_end = at + self._num_bytes(shape), codes_at + math.prod(self._codes_shape)
            stored = encoded[at:end].view(np.uint16).reshape(self.num_parameters, *shape)
            yield half, stored, encoded[codes_at:codes_end].reshape(self._codes_shape)
            at, codes_at = end, codes_end

    def _num_bytes(self, group_shape: tuple[int, ...]) -> int:
        return 2 * self.num_parameters * math.prod(group_shape)


def widened(bits: NDArray[Any]) -> Floats:
    """bfloat16 bits as float32: its upper half."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def scale_above(numbers: Floats) -> Bfloats:
    """The smallest bfloat16 scale that is not below each number, at least 0; infinite for what is not finite."""
    finite = np.where(np.isfinite(numbers), np.maximum(numbers, SMALLEST_SCALE), np.float32(np.inf))
    # Infinity has the largest bits of all; what is added to them is cut off again.
    return ((finite.view(np.uint32) + np.uint32(0xFFFF)) >> 16).astype(np.uint16)


def bfloat16_below(numbers: Floats) -> Bfloats:
    """The largest bfloat16 that is not above each number; infinite for what is not finite."""
    finite = np.where(np.isfinite(numbers), numbers, np.float32(-np.inf))
    bits = finite.view(np.uint32)
    return ((bits + np.where(bits >> 31, np.uint32(0xFFFF), np.uint32(0))) >> 16).astype(np.uint16)
