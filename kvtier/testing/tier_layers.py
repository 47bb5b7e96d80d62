"""The laws of a tier that can deliver layer by layer: T50 to T55."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from kvtier.errors import CorruptBlockError, SpecMismatchError
from kvtier.hashing import Chain
from kvtier.testing.blocks import SHAPE, chain, contents
from kvtier.testing.tier_suite import TierSuite
from kvtier.tiers.base import LayeredTier, Tier

PARTS = [slice(0, 1), slice(1, 3), slice(3, 4)]
NUMBERS = (5, 0, 7, 2)


class LayerLaws(TierSuite):
    """What ``read_parts`` delivers, and when."""

    @pytest.fixture
    def layered(self, roomy: Tier) -> LayeredTier:
        """The tier, for the laws about layers."""
        if not isinstance(roomy, LayeredTier):
            pytest.skip("this tier does not deliver layer by layer")
        return roomy

    def shaped_blank(self, count: int) -> list[torch.Tensor]:
        """Buffers to read layers into: views of a model's cache, as an adapter passes them."""
        cache = torch.zeros((*SHAPE[:3], count * SHAPE[3], SHAPE[4]), dtype=torch.uint8, device=self.device)
        return [cache[:, :, :, i * SHAPE[3] : (i + 1) * SHAPE[3]] for i in range(count)]

    def stream(self, tier: LayeredTier, part: Chain, out: Sequence[torch.Tensor]) -> tuple[int, list[int], list[bool]]:
        """Read all parts: the answer, the parts reported, and whether their bytes were there at that time."""
        order: list[int] = []
        there: list[bool] = []

        def arrived(number: int, event: Any) -> None:
            if event is not None:
                event.synchronize()
            order.append(number)
            layers = PARTS[number]
            whole = [contents(n).view(SHAPE)[layers] for n in NUMBERS[: len(out)]]
            there.append(all(torch.equal(got[layers].cpu(), want) for got, want in zip(out, whole, strict=True)))

        return tier.read_parts(part.keys, out, part.labels, PARTS, arrived), order, there

    @pytest.mark.parametrize("count", [1, len(NUMBERS)])
    def test_t50_all_layers_arrive_in_order_and_are_there_when_reported(self, layered: LayeredTier, count: int) -> None:
        part, out = self.fill(layered, *NUMBERS[:count]), self.shaped_blank(count)

        answer, order, there = self.stream(layered, part, out)

        assert (answer, order, there) == (count, [0, 1, 2], [True] * 3)
        assert self.same(out, *NUMBERS[:count])

    def test_t51_a_shorter_run_is_delivered_and_its_last_part_is_not_reported(self, layered: LayeredTier) -> None:
        self.fill(layered, *NUMBERS[:2])
        part, out = chain(*NUMBERS), self.shaped_blank(len(NUMBERS))

        answer, order, _ = self.stream(layered, part, out)

        assert answer == 2
        assert PARTS.index(PARTS[-1]) not in order
        assert self.same(out[:2], *NUMBERS[:2])

    def test_t52_other_token_ids_are_damage(self, layered: LayeredTier) -> None:
        part, out = self.fill(layered, *NUMBERS), self.shaped_blank(len(NUMBERS))
        part.labels[2] = part.labels[2]._replace(tokens=bytes(4))

        with pytest.raises(CorruptBlockError) as raised:
            self.stream(layered, part, out)

        assert raised.value.key == part.keys[2]
        assert self.same(out[:2], *NUMBERS[:2])

    @pytest.mark.parametrize("damaged", [0, 2])
    def test_t53_damage_ends_the_run(self, layered: LayeredTier, damaged: int) -> None:
        self._needs_verification()
        part, out = self.fill(layered, *NUMBERS), self.shaped_blank(len(NUMBERS))
        self.raw_damage(layered, part.keys[damaged])

        with pytest.raises(CorruptBlockError) as raised:
            self.stream(layered, part, out)

        assert raised.value.key == part.keys[damaged]
        assert self.same(out[:damaged], *NUMBERS[:damaged])

    def test_t54_buffers_without_layers_are_refused(self, layered: LayeredTier) -> None:
        part = self.fill(layered, *NUMBERS)

        with pytest.raises(SpecMismatchError, match="layers first"):
            layered.read_parts(part.keys, self.blank(len(NUMBERS)), part.labels, PARTS, lambda *_: None)

    @pytest.mark.parametrize("parts", [[slice(0, 2), slice(3, 4)], [slice(2, 4), slice(0, 4)], [slice(0, 3)]])
    def test_t55_parts_that_leave_layers_out_are_refused(self, layered: LayeredTier, parts: list[slice]) -> None:
        part, out = self.fill(layered, *NUMBERS), self.shaped_blank(len(NUMBERS))

        with pytest.raises(SpecMismatchError):
            layered.read_parts(part.keys, out, part.labels, parts, lambda *_: None)
