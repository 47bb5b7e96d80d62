"""How the data file of the disk tier is cut up."""

from __future__ import annotations

from typing import NamedTuple

from kvtier.format import PAGE_BYTES

#: Bytes of a slab, about: enough to make its commit cheap, small enough to be made for one block.
SLAB_BYTES = 64 << 20


class Layout(NamedTuple):
    """How the data file is cut up; fixed when the environment is made."""

    slot_bytes: int
    """Whole pages."""

    slab_slots: int

    @property
    def slab_bytes(self) -> int:
        """Bytes a slab takes in the file, LMDB's page header included."""
        return PAGE_BYTES + self.slab_slots * self.slot_bytes

    def map_bytes(self, num_blocks: int) -> int:
        """Size of the map for so many blocks: address space, not disk.

        Whole slabs for the blocks; for their index entries several times what a half-full B-tree takes,
        because pages freed in one commit can be reused only after the commits that may still be read.
        """
        slabs = -(-num_blocks // self.slab_slots)
        return slabs * self.slab_bytes + 2048 * num_blocks + (64 << 20)


def layout_for(capacity_blocks: int, slot_bytes: int) -> Layout:
    """As few slabs as hold the tier at ``SLAB_BYTES`` at most, all of one size, with hardly a slot too many."""
    slots = max(1, capacity_blocks)  # a tier too small for one is refused elsewhere
    slabs = -(-slots // max(1, SLAB_BYTES // slot_bytes))
    return Layout(slot_bytes, -(-slots // slabs))
