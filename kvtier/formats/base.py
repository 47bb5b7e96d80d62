"""What a storage format is: a pure function from a block to bytes of a fixed number, and back.

    block   [layers, 2 (K then V), kv_heads, block_tokens, head_dim]     as in ``kvtier.spec``
       |  encode                                  depends on nothing else, if it is not encrypted
    encoded [encoded_bytes]                                              the same size for every block
       |  decode
    block   the same bytes (an exact format), or close to them (the others)

The size is fixed because slots on disk are: see ``docs/adr/0006-storage-formats.md``. A block that
does not fit, or that a format has no numbers for, is refused when it is encoded, never changed to fit.

Encoded bytes begin with a header of 64 bytes, little-endian: magic ``KVTF``, ``u8`` version 1, ``u8``
number of the format, ``u8`` number of the dtype, ``u8`` zero, ``u64`` bytes in use, zeros. Whoever
keeps them verifies them; the header makes sure that they are read as what they are.

NumPy does the work and not torch: it computes in the calling thread, without the interpreter lock,
so a few threads that share a batch use all cores. Torch would start a team of threads for each, and
teams that meet on a busy machine wait for each other.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import Bytes, whole_pages
from kvtier.hashing import Namespace
from kvtier.spec import KVSpec

#: Formats by the name a user gives, and that the layout of a store that uses one ends with.
FORMATS = ("lossless", "fp8", "int8", "int4")

#: What the last part of the layout of an encrypted store begins with; the key's id follows.
ENCRYPTION = "aes256gcm-"

HEADER_BYTES = 64
_MAGIC = b"KVTF"
_VERSION = 1
_HEADER = struct.Struct("<4sBBBBQ")
_ENCRYPTED = re.compile(ENCRYPTION + "[0-9a-f]{16}")

#: The dtypes that have a format, and their numbers in the header.
_DTYPES = {"float32": 1, "float16": 2, "bfloat16": 3}


Words = NDArray[Any]
"""A block as unsigned integers as wide as its numbers, in the shape of ``KVSpec.block_shape``."""

Number = TypeVar("Number", bound=np.generic)


class Codec(Protocol):
    """One storage format for one geometry. Blocks are on the CPU. Safe to use from many threads."""

    @property
    def name(self) -> str:
        """What the layout of a store that uses it ends with: one of ``FORMATS``, and how that is encrypted."""
        ...

    @property
    def exact(self) -> bool:
        """Whether ``decode`` gives back the very bytes that ``encode`` was given."""
        ...

    spec: KVSpec
    """The geometry of the blocks."""

    encoded_bytes: int
    """Length of every encoded block: whole pages."""

    def encode(self, key: bytes, block: torch.Tensor, out: torch.Tensor) -> str | None:
        """Write a block down.

        Args:
            key: The block's name; only an encrypted block depends on it.
            block: ``uint8`` of ``spec.block_bytes`` elements, any shape and strides; their row-major
                order is the block's byte order.
            out: ``uint8`` of shape ``[encoded_bytes]``, contiguous; every byte of it is written.

        Returns:
            None, or why this format cannot keep the block; ``out`` is then undefined.
        """
        ...

    def decode(self, key: bytes, encoded: torch.Tensor, out: torch.Tensor) -> None:
        """Give a block back.

        Args:
            key: The block's name.
            encoded: What ``encode`` wrote.
            out: Of ``spec.block_bytes`` elements, as for ``encode``.

        Raises:
            CorruptBlockError: These bytes are not what ``encode`` writes for this geometry.
                ``out`` may have been written to.
        """
        ...


class Scratch(threading.local):
    """Arrays that a thread uses again and again: fresh memory for every step would cost more than the step."""

    def __init__(self) -> None:
        self._arrays: dict[str, Bytes] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type[Number]) -> NDArray[Number]:
        """The array of that name, with whatever it holds."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._arrays or len(self._arrays[name]) < num_bytes:
            self._arrays[name] = np.empty(num_bytes, np.uint8)
        return self._arrays[name][:num_bytes].view(dtype).reshape(shape)


class Framed:
    """What all formats share: the header around a payload, and blocks seen as numbers.

    Args:
        spec: The geometry.
        number: The format's number in the header.
        payload_bytes: Most bytes that follow the header.

    Raises:
        ConfigError: The dtype has no format.
    """

    name: ClassVar[str]

    def __init__(self, spec: KVSpec, *, number: int, payload_bytes: int) -> None:
        if spec.dtype not in _DTYPES:
            raise ConfigError(
                f"storage format {self.name!r} is for {', '.join(_DTYPES)}; these blocks are {spec.dtype}"
            )
        self._dtype_number = _DTYPES[spec.dtype]
        self._word: type[np.uint16 | np.uint32] = np.uint32 if spec.dtype == "float32" else np.uint16
        self.spec = spec
        self.encoded_bytes = whole_pages(HEADER_BYTES + payload_bytes)
        self._number = number
        self._scratch = Scratch()

    def _seal(self, out: torch.Tensor, used_bytes: int) -> None:
        """Write the header, and zeros behind the bytes in use."""
        header = bytearray(HEADER_BYTES)
        _HEADER.pack_into(header, 0, _MAGIC, _VERSION, self._number, self._dtype_number, 0, used_bytes)
        out[:HEADER_BYTES].copy_(torch.frombuffer(header, dtype=torch.uint8))
        out[used_bytes:] = 0

    def _unseal(self, key: bytes, encoded: torch.Tensor) -> int:
        """Check the header; returns the bytes in use, header included.

        Raises:
            CorruptBlockError: Another length, format, version or dtype.
        """
        if len(encoded) != self.encoded_bytes:
            raise CorruptBlockError(key, f"{self.name}: encoded in {len(encoded)} bytes, expected {self.encoded_bytes}")
        *found, used = _HEADER.unpack_from(bytes(encoded[:HEADER_BYTES].tolist()))
        expected = [_MAGIC, _VERSION, self._number, self._dtype_number, 0]
        if found != expected:
            raise CorruptBlockError(
                key, f"{self.name}: the header has {found}, expected {expected}; was it written with another format?"
            )
        if not HEADER_BYTES <= used <= self.encoded_bytes:
            raise CorruptBlockError(key, f"{self.name}: the header says that {used} of {len(encoded)} bytes are in use")
        return int(used)

    def _words(self, block: torch.Tensor) -> Words | None:
        """A block's memory as words, where it lies; None if its shape or strides do not allow that."""
        *outer, last = self.spec.block_shape
        memory, width = block.numpy(), np.dtype(self._word).itemsize
        if memory.flags.c_contiguous:
            memory = memory.reshape(*outer, last * width)
        if memory.shape != (*outer, last * width) or memory.strides[-1] != 1:
            return None
        return memory.view(self._word)

    def _words_in(self, block: torch.Tensor) -> Words:
        """A block's words; copied if they have to be."""
        there = self._words(block)
        if there is None:
            there = self._words(block.clone(memory_format=torch.contiguous_format))
        assert there is not None
        return there

    @contextmanager
    def _words_out(self, block: torch.Tensor) -> Iterator[Words]:
        """Where to write a block's words; copied to the block afterwards if they have to be."""
        there = self._words(block)
        if there is not None:
            yield there
            return
        aside = np.empty(self.spec.block_shape, self._word)
        yield aside
        np.copyto(block.numpy(), aside.view(np.uint8).reshape(block.shape))


def layers_at_a_time(spec: KVSpec, num_items: int) -> Iterator[slice]:
    """The layers of a block in groups of at most ``num_items`` numbers, or of one layer; the first is the largest."""
    per_layer = 2 * spec.kv_heads * spec.block_tokens * spec.head_dim
    step = max(1, num_items // per_layer)
    return (slice(first, min(first + step, spec.layers)) for first in range(0, spec.layers, step))


def in_format(namespace: Namespace, name: str) -> Namespace:
    """The namespace of a store that keeps blocks in a format: ``kvtier-v1`` becomes ``kvtier-v1/int8``.

    So no block of one format, or computed after one, has the name of a block of another.
    """
    return replace(namespace, layout=f"{namespace.layout}/{name}")


def engine_layout(layout: str) -> str:
    """A layout without its storage format and encryption, if it names them: what the engine calls it."""
    engine, *more = layout.split("/")
    if more and _ENCRYPTED.fullmatch(more[-1]):
        more.pop()
    if more and more[-1] in FORMATS:
        more.pop()
    return "/".join([engine, *more])
