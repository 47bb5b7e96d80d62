"""The laws of a tier, as a test class to inherit.

    class TestMine(TierTests):
        def open(self, path):
            return Mine("mine", capacity_bytes=self.CAPACITY_BYTES, block_bytes=self.BLOCK_BYTES)

Each law holds for every tier that keeps the contract of ``kvtier.tiers.base``. A law about
something that not every medium can do is switched by a class attribute, and says so where it is
skipped. What a tier does besides is tested beside the class that inherits.
"""

from __future__ import annotations

from kvtier.testing.tier_contract import ContractLaws
from kvtier.testing.tier_layers import LayerLaws
from kvtier.testing.tier_life import LifeLaws


class TierTests(ContractLaws, LayerLaws, LifeLaws):
    """Inherit, and say how to open a tier of ``CAPACITY_BYTES`` for blocks of ``BLOCK_BYTES``."""
