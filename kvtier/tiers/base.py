"""The contract between the store and one storage medium.

A tier moves opaque, fixed-size blocks by name. It does not know about prefixes, recency or
other tiers: what to keep is decided in ``kvtier.placement``, and a tier that is told to
delete a block deletes it. It keeps each block's label only to compare it.

All calls take batches, in prefix order, because the caller always has a chain of blocks and
every medium is faster in batches. Reads and membership tests return the length of the
*leading run*, because a block after a gap is useless to a prefix cache.

Buffers belong to the caller throughout: a tier copies into and out of memory it is given and
never returns a view of its own, because a view of a memory map dies with its transaction. A
buffer may be strided. An adapter passes views into the model's own cache, so that a block
goes from the tier to its place there in one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from kvtier.errors import ConfigError, SpecMismatchError
from kvtier.hashing import BlockHash, Label, Namespace
from kvtier.listing import Listing


@runtime_checkable
class Tier(Protocol):
    """One place that holds KV blocks.

    Thread safety: ``read`` and ``contains`` may run concurrently with everything; ``write``
    and ``delete`` are serialised by the tier itself.
    """

    name: str
    """Short, unique, stable: it labels metrics, log lines and errors."""

    capacity_bytes: int
    """Payload bytes the tier promises to hold, not the size of its file or pool."""

    block_bytes: int
    """Payload bytes of one block."""

    durable: bool
    """Blocks outlive the process once flushed."""

    any_device: bool
    """Buffers may be on any device, not only the CPU."""

    @property
    def used_bytes(self) -> int:
        """Payload bytes held now."""
        ...

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """Length of the leading run of ``keys`` that is held."""
        ...

    def read(
        self,
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None = None,
    ) -> int:
        """Copy the leading run of held blocks into the caller's buffers.

        Args:
            keys: Names in prefix order, length n.
            out: n ``uint8`` tensors of ``block_bytes`` elements in all, any shape and strides;
                their row-major order is the block's byte order. On the CPU unless the tier says
                otherwise.
            labels: What the names were made from, compared with what is stored; None compares
                nothing beyond the name.

        Returns:
            r, the number of blocks copied. ``out[r:]`` may have been written to.

        Raises:
            SpecMismatchError: A buffer has the wrong size or dtype, or one is missing; nothing was copied.
            CorruptBlockError: Block r is held but damaged; ``out[:r]`` is good.
            TierClosedError: The tier is closed.
            TierUnavailableError: The medium did not answer.
        """
        ...

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """Store blocks. Names are content, so writing a held name again does nothing.

        Args:
            keys: Names in prefix order, length n.
            blocks: n ``uint8`` tensors as for ``read``.
            labels: What the names were made from.

        Raises:
            SpecMismatchError: A block has the wrong size or dtype, or one is missing; checked for
                the whole batch before the first byte is written.
            TierFullError: The batch does not fit; no block of it is visible.
            BlockRefusedError: The tier cannot keep some blocks, which are in its ``keys``; the others are stored.
            TierClosedError: The tier is closed.
            TierUnavailableError: The medium did not answer; each block is whole or absent.
        """
        ...

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """Remove blocks; absent names are passed over. Returns how many were held."""
        ...

    def scan(self) -> Iterable[tuple[BlockHash, Label]]:
        """Every block held, oldest batch first, within a batch the tail first.

        A tier that may hold many gives a ``kvtier.listing.Listing``, which a restart takes up
        without an object for each block.
        """
        ...

    def flush(self) -> None:
        """Return when everything written is as durable as the tier can make it."""
        ...

    def close(self) -> None:
        """Release the medium. A second close does nothing; other calls then raise TierClosedError."""
        ...


Arrived = Callable[[int, Any], None]
"""Called with the number of a part, and the CUDA event after which its bytes are there, or None if they are."""


@runtime_checkable
class LayeredTier(Tier, Protocol):
    """A tier that can also deliver blocks layer by layer."""

    def read_parts(
        self,
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
        parts: Sequence[slice],
        arrived: Arrived,
    ) -> int:
        """``Tier.read`` in the order of layers: the first layers of all blocks before the next ones of any.

        Args:
            keys: As for ``Tier.read``.
            out: As for ``Tier.read``, but shaped ``[layers, ...]``.
            labels: As for ``Tier.read``.
            parts: Layers to deliver together, in order; together all layers.
            arrived: Told, from any thread, when a part of every block is in its buffer. That is provisional: what
                this method returns or raises in the end says which blocks are good. If fewer than
                ``len(keys)`` are, some parts are not reported.

        Returns:
            As ``Tier.read``, which also says what is raised.
        """
        ...


class Namespaced(NamedTuple):
    """A namespace that has blocks in a tier."""

    root: BlockHash
    """The parent of its first blocks."""

    record: dict[str, Any]
    """See ``Namespace.record``."""


class News(NamedTuple):
    """What has become of a tier's blocks without this process's doing."""

    added: Sequence[tuple[BlockHash, Label]]
    """Blocks that others have brought."""

    dropped: Sequence[BlockHash]
    """Blocks that others have taken away."""

    listing: Listing | None
    """Everything held, where it is not known what has changed; the rest is empty then."""

    room_blocks: int
    """Blocks the tier can hold at present, its capacity at most."""

    anew: bool = False
    """The listing is that of another file than before, so that a write which is reported now may lie in the old one."""


@runtime_checkable
class SharedTier(Tier, Protocol):
    """A tier that changes by itself: other processes write to it, or its medium fails and comes back."""

    @property
    def shared(self) -> bool:
        """Others had the tier open when this process opened it."""
        ...

    @property
    def hindrance(self) -> str | None:
        """What keeps the tier from doing all that it should; None if nothing does."""
        ...

    def news(self) -> News | None:
        """What has changed since this was last asked, None if nothing has. Quick if nothing has.

        Raises:
            TierError: As ``Tier.read``.
        """
        ...

    def introduce(self, namespace: Namespace) -> Sequence[Namespaced]:
        """Note beside the blocks whose they are; returns the other namespaces that have blocks here.

        Raises:
            TierError: As ``Tier.read``.
        """
        ...


@runtime_checkable
class DirectTier(Tier, Protocol):
    """A tier on the CPU's side that may also deliver straight into a device's memory."""

    def reaches(self, out: Sequence[torch.Tensor]) -> bool:
        """Whether ``read`` takes these buffers as they are; else the caller goes by way of host memory.

        May be answered with yes and later with no; a ``read`` after a yes still delivers.
        """
        ...


def check_blocks(
    tier: str,
    block_bytes: int,
    keys: Sequence[BlockHash],
    blocks: Sequence[torch.Tensor],
    labels: Sequence[Label] | None = None,
) -> None:
    """Refuse a batch whose buffers do not fit the tier, or that does not have one of each for every name.

    Raises:
        SpecMismatchError: The first buffer that does not fit, with got and expected.
    """
    if len(keys) != len(blocks):
        raise SpecMismatchError(f"{tier}: {len(keys)} names but {len(blocks)} buffers")
    if labels is not None and len(keys) != len(labels):
        raise SpecMismatchError(f"{tier}: {len(keys)} names but {len(labels)} labels")
    for key, block in zip(keys, blocks, strict=True):
        if block.dtype != torch.uint8 or block.numel() != block_bytes:
            raise SpecMismatchError(
                f"{tier}: block {key.hex()[:12]} is {block.dtype} {tuple(block.shape)}, expected torch.uint8 of "
                f"{block_bytes} elements; was it packed by another KVSpec?"
            )


def check_layers(tier: str, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], parts: Sequence[slice]) -> None:
    """Refuse buffers that are not shaped by layers, or parts that do not cover the layers in order.

    Raises:
        SpecMismatchError: The first buffer that does not fit, with got and expected.
    """
    edges = [0, *(part.stop for part in parts)]
    for key, block in zip(keys, out, strict=True):
        if block.dim() < 2 or block.shape[0] != edges[-1]:
            raise SpecMismatchError(
                f"{tier}: block {key.hex()[:12]} has shape {tuple(block.shape)}, expected {edges[-1]} layers first; "
                "a read by layers takes buffers shaped [layers, ...]"
            )
    if [part.start for part in parts] != edges[:-1]:
        raise SpecMismatchError(f"{tier}: parts {list(parts)} do not cover the layers in order, each once")


def check_tiers(tiers: Sequence[Tier], block_bytes: int) -> None:
    """Refuse tiers that cannot be one store's.

    Raises:
        ConfigError: None at all, or two with one name.
        SpecMismatchError: One has another block size.
    """
    if not tiers:
        raise ConfigError("a store needs at least one tier with room for a block")
    names = [tier.name for tier in tiers]
    if len(set(names)) < len(names):
        raise ConfigError(f"tier names must differ, got {names}")
    for tier in tiers:
        if tier.block_bytes != block_bytes:
            raise SpecMismatchError(
                f"{tier.name}: tier holds blocks of {tier.block_bytes} bytes, the namespace's have {block_bytes}"
            )
