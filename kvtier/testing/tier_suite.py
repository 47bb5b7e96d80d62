"""What every law of a tier starts from: how a tier is opened, buffers, and what a medium can do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from kvtier.hashing import BlockHash, Chain
from kvtier.testing.blocks import SHAPE, contents, fill
from kvtier.tiers.base import Tier


class TierSuite:
    """Inherit, and say how to open a tier of ``CAPACITY_BYTES`` for blocks of ``BLOCK_BYTES``."""

    BLOCK_BYTES: ClassVar[int] = math.prod(SHAPE)
    NUM_BLOCKS: ClassVar[int] = 8
    CAPACITY_BYTES: ClassVar[int] = NUM_BLOCKS * BLOCK_BYTES

    holds: ClassVar[bool] = True
    """False for a tier without room."""

    persistent: ClassVar[bool] = False
    """Blocks outlive the process: supply ``writer_command``."""

    verifies: ClassVar[bool] = False
    """Damage to stored bytes is found on reading: supply ``raw_damage``."""

    device: ClassVar[str] = "cpu"
    """Where the buffers of the laws live."""

    def open(self, path: Path) -> Tier:
        """A tier over the medium at ``path``; one that does not persist has no use for it."""
        raise NotImplementedError

    def raw_damage(self, tier: Tier, key: BlockHash) -> None:
        """Change one byte of a stored block by the back door, not through the code under test."""
        raise NotImplementedError

    def writer_command(self, path: Path) -> list[str]:
        """The command of a process that opens the tier at ``path`` and runs ``write_until_killed``."""
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "tier"

    @pytest.fixture
    def tier(self, path: Path) -> Iterator[Tier]:
        with closing(self.open(path)) as tier:
            yield tier

    @pytest.fixture
    def roomy(self, tier: Tier) -> Tier:
        """The tier, for the laws about blocks that are held."""
        if not self.holds:
            pytest.skip("this tier holds nothing")
        return tier

    def fill(self, tier: Tier, *numbers: int) -> Chain:
        """Write some blocks as one batch; returns their names."""
        return fill(tier, *numbers, device=self.device)

    def blank(self, count: int) -> list[torch.Tensor]:
        """Buffers to read into."""
        return [torch.zeros(self.BLOCK_BYTES, dtype=torch.uint8, device=self.device) for _ in range(count)]

    def same(self, buffers: Sequence[torch.Tensor], *numbers: int) -> bool:
        """Whether the buffers hold the contents of these blocks, byte for byte."""
        return len(buffers) == len(numbers) and all(
            torch.equal(buffer.cpu().reshape(-1), contents(number))
            for buffer, number in zip(buffers, numbers, strict=True)
        )

    def _needs_persistence(self) -> None:
        if not self.persistent:
            pytest.skip("this tier does not outlive its process")

    def _needs_verification(self) -> None:
        if not self.verifies:
            pytest.skip("this tier does not verify what it holds")
