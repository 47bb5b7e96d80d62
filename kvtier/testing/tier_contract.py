"""The laws of a tier that one thread sees in one process: T01 to T29."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtier.errors import CorruptBlockError, SpecMismatchError, TierFullError
from kvtier.testing.blocks import BLOCK_TOKENS, SHAPE, chain, contents
from kvtier.testing.tier_suite import TierSuite
from kvtier.tiers.base import Tier

Step = tuple[str, list[int]]
"""Verb, and numbers of the blocks it is about."""


def _too_short(block: torch.Tensor) -> torch.Tensor:
    return block[:-1]


def _too_long(block: torch.Tensor) -> torch.Tensor:
    return torch.cat([block, block[:1]])


def _signed(block: torch.Tensor) -> torch.Tensor:
    return block.to(torch.int8)


def _wide(block: torch.Tensor) -> torch.Tensor:
    return block.view(torch.float16)


_wrongly = pytest.mark.parametrize("wrong", [_too_short, _too_long, _signed, _wide])


class ContractLaws(TierSuite):
    """What a call does and what it refuses."""

    def test_t01_it_has_every_part_of_the_contract(self, tier: Tier) -> None:
        assert isinstance(tier, Tier)
        assert tier.block_bytes == self.BLOCK_BYTES
        assert tier.capacity_bytes == (self.CAPACITY_BYTES if self.holds else 0)

    def test_t02_a_block_never_written_is_a_miss(self, tier: Tier) -> None:
        part = chain(1, 2)

        assert tier.contains(part.keys) == 0
        assert tier.read(part.keys, self.blank(2), part.labels) == 0
        assert tier.delete(part.keys) == 0

    def test_t03_empty_batches_do_nothing(self, tier: Tier) -> None:
        tier.write([], [], [])

        assert (tier.contains([]), tier.read([], [], []), tier.delete([]), tier.used_bytes) == (0, 0, 0, 0)

    @pytest.mark.parametrize("count", [1, 2, TierSuite.NUM_BLOCKS])
    def test_t04_what_is_read_is_what_was_written(self, roomy: Tier, count: int) -> None:
        part = self.fill(roomy, *range(count))
        out = self.blank(count)

        assert roomy.read(part.keys, out, part.labels) == count
        assert self.same(out, *range(count))

    def test_t05_without_labels_a_read_goes_by_the_names(self, roomy: Tier) -> None:
        part = self.fill(roomy, 3, 1)
        out = self.blank(2)

        assert roomy.read(part.keys, out) == 2
        assert self.same(out, 3, 1)

    def test_t06_blocks_are_written_from_strided_buffers(self, roomy: Tier) -> None:
        views, part = self._views(roomy), chain(*range(self.NUM_BLOCKS))
        for number, view in enumerate(views):
            view.copy_(contents(number).view(SHAPE))
        out = self.blank(len(views))

        roomy.write(part.keys, views, part.labels)

        assert roomy.read(part.keys, out, part.labels) == len(views)
        assert self.same(out, *range(self.NUM_BLOCKS))

    def test_t07_blocks_are_read_into_strided_buffers(self, roomy: Tier) -> None:
        views, part = self._views(roomy), self.fill(roomy, *range(self.NUM_BLOCKS))

        assert roomy.read(part.keys, views, part.labels) == len(views)
        assert self.same(views, *range(self.NUM_BLOCKS))

    def test_t08_a_strided_read_writes_only_where_it_was_told(self, roomy: Tier) -> None:
        views, part = self._views(roomy), self.fill(roomy, *range(self.NUM_BLOCKS))

        roomy.read(part.keys[:2], [views[0], views[2]], part.labels[:2])

        assert not views[1].any()
        assert not views[3].any()

    def _views(self, tier: Tier) -> list[torch.Tensor]:
        """Blocks as an adapter passes them: slices of the token axis of one sequence's buffer."""
        layers, two, heads, tokens, head_bytes = SHAPE
        count = tier.capacity_bytes // tier.block_bytes
        buffer = torch.zeros(layers, two, heads, count * tokens, head_bytes, dtype=torch.uint8, device=self.device)
        return [buffer[:, :, :, i * tokens : (i + 1) * tokens] for i in range(count)]

    def test_t09_membership_ends_at_the_first_hole(self, roomy: Tier) -> None:
        self.fill(roomy, 0, 1, 3)

        assert roomy.contains(chain(0, 1, 2, 3).keys) == 2

    def test_t10_a_read_ends_at_the_first_hole(self, roomy: Tier) -> None:
        self.fill(roomy, 0, 1, 3, 4, 5, 6, 7)
        part, out = chain(*range(8)), self.blank(8)

        assert roomy.read(part.keys, out, part.labels) == 2
        assert self.same(out[:2], 0, 1)

    def test_t11_writing_a_held_name_again_changes_nothing(self, roomy: Tier) -> None:
        part = self.fill(roomy, 1)
        out = self.blank(1)

        roomy.write(part.keys, [contents(2).to(self.device)], part.labels)

        assert roomy.read(part.keys, out, part.labels) == 1
        assert self.same(out, 1)
        assert roomy.used_bytes == self.BLOCK_BYTES

    def test_t12_a_name_twice_in_a_batch_is_one_block(self, roomy: Tier) -> None:
        part = self.fill(roomy, 1, 2, 1)
        out = self.blank(3)

        assert roomy.read(part.keys, out, part.labels) == 3
        assert self.same(out, 1, 2, 1)
        assert roomy.used_bytes == 2 * self.BLOCK_BYTES

    def test_t13_of_a_batch_partly_held_the_rest_is_stored(self, roomy: Tier) -> None:
        self.fill(roomy, 1, 3)
        part = self.fill(roomy, 0, 1, 2, 3)
        out = self.blank(4)

        assert roomy.read(part.keys, out, part.labels) == 4
        assert self.same(out, 0, 1, 2, 3)

    def test_t14_used_bytes_counts_the_blocks_held(self, roomy: Tier) -> None:
        used = [roomy.used_bytes]
        for numbers in ((0, 1, 2), (2, 3)):
            self.fill(roomy, *numbers)
            used.append(roomy.used_bytes)
        roomy.delete(chain(1, 9).keys)
        used.append(roomy.used_bytes)

        assert used == [blocks * self.BLOCK_BYTES for blocks in (0, 3, 4, 3)]

    def test_t15_an_overfull_batch_is_refused_whole(self, roomy: Tier) -> None:
        self.fill(roomy, *range(self.NUM_BLOCKS - 1))

        with pytest.raises(TierFullError, match=roomy.name):
            self.fill(roomy, 100, 101)

        assert roomy.contains(chain(100).keys) == roomy.contains(chain(101).keys) == 0
        assert roomy.used_bytes == (self.NUM_BLOCKS - 1) * self.BLOCK_BYTES

    def test_t16_a_tier_without_room_refuses_every_block(self, tier: Tier) -> None:
        if self.holds:
            pytest.skip("this tier has room")

        with pytest.raises(TierFullError, match=tier.name):
            self.fill(tier, 1)

        assert tier.contains(chain(1).keys) == 0

    def test_t17_names_that_are_held_need_no_room(self, roomy: Tier) -> None:
        self.fill(roomy, *range(self.NUM_BLOCKS))

        self.fill(roomy, *range(self.NUM_BLOCKS))

        assert roomy.used_bytes == self.CAPACITY_BYTES

    def test_t18_it_can_be_filled_and_emptied_three_times_over(self, roomy: Tier) -> None:
        for turn in range(3):
            numbers = range(turn * 10, turn * 10 + self.NUM_BLOCKS)
            part, out = self.fill(roomy, *numbers), self.blank(self.NUM_BLOCKS)

            assert roomy.read(part.keys, out, part.labels) == self.NUM_BLOCKS
            assert self.same(out, *numbers)
            assert roomy.delete(part.keys) == self.NUM_BLOCKS
            assert roomy.used_bytes == 0

    @_wrongly
    def test_t19_a_wrong_block_is_refused_before_any_is_written(
        self, tier: Tier, wrong: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        part = chain(1, 2)

        with pytest.raises(SpecMismatchError, match=part.keys[1].hex()[:12]):
            tier.write(part.keys, [contents(1).to(self.device), wrong(contents(2)).to(self.device)], part.labels)

        assert tier.contains(part.keys) == tier.used_bytes == 0

    @_wrongly
    def test_t20_a_wrong_buffer_is_refused_before_any_is_read(
        self, roomy: Tier, wrong: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        part, (good, other) = self.fill(roomy, 1, 2), self.blank(2)

        with pytest.raises(SpecMismatchError, match=part.keys[1].hex()[:12]):
            roomy.read(part.keys, [good, wrong(other)], part.labels)

        assert not good.any()

    def test_t21_a_missing_block_or_label_is_refused_before_any_is_written(self, tier: Tier) -> None:
        part, blocks = chain(1, 2), [contents(number).to(self.device) for number in (1, 2)]

        with pytest.raises(SpecMismatchError, match="2 names but 1 buffers"):
            tier.write(part.keys, blocks[:1], part.labels)
        with pytest.raises(SpecMismatchError, match="2 names but 1 labels"):
            tier.write(part.keys, blocks, part.labels[:1])

        assert tier.contains(part.keys) == tier.used_bytes == 0

    def test_t22_a_missing_buffer_or_label_is_refused_before_any_is_read(self, roomy: Tier) -> None:
        part, out = self.fill(roomy, 1, 2), self.blank(2)

        with pytest.raises(SpecMismatchError, match="2 names but 1 buffers"):
            roomy.read(part.keys, out[:1], part.labels)
        with pytest.raises(SpecMismatchError, match="2 names but 1 labels"):
            roomy.read(part.keys, out, part.labels[:1])

        assert not out[0].any()

    def test_t23_a_label_that_differs_raises_behind_the_good_blocks(self, roomy: Tier) -> None:
        part, out = self.fill(roomy, 1, 2, 3), self.blank(3)
        labels = [part.labels[0], part.labels[1]._replace(tokens=bytes(4 * BLOCK_TOKENS)), part.labels[2]]

        with pytest.raises(CorruptBlockError, match=part.keys[1].hex()[:12]) as caught:
            roomy.read(part.keys, out, labels)

        assert caught.value.key == part.keys[1]
        assert self.same(out[:1], 1)

    def test_t24_a_block_may_be_overwritten_once_it_is_written(self, roomy: Tier) -> None:
        part, out = chain(1), self.blank(1)
        source = contents(1).to(self.device, copy=True)

        roomy.write(part.keys, [source], part.labels)
        source.zero_()

        roomy.read(part.keys, out, part.labels)
        assert self.same(out, 1)

    def test_t25_what_was_read_outlives_its_block_and_the_tier(self, roomy: Tier) -> None:
        numbers = range(self.NUM_BLOCKS)
        part, out = self.fill(roomy, *numbers), self.blank(self.NUM_BLOCKS)
        roomy.read(part.keys, out, part.labels)

        roomy.delete(part.keys)
        self.fill(roomy, *range(100, 100 + self.NUM_BLOCKS))
        roomy.close()

        assert self.same(out, *numbers)

    def test_t26_a_deleted_block_is_counted_once_and_then_a_miss(self, roomy: Tier) -> None:
        self.fill(roomy, 1, 2, 3)

        assert roomy.delete(chain(9, 2, 1, 2).keys) == 2
        assert [roomy.contains(chain(number).keys) for number in (1, 2, 3)] == [0, 0, 1]

    def test_t27_a_scan_lists_names_and_labels_of_what_is_held(self, roomy: Tier) -> None:
        self.fill(roomy, 1, 2, 3)
        self.fill(roomy, 4)
        roomy.delete(chain(2).keys)
        expected = chain(1, 3, 4)

        assert sorted(roomy.scan()) == sorted(zip(expected.keys, expected.labels, strict=True))

    def test_t28_a_scan_lists_old_batches_first_and_of_a_batch_the_tail(self, roomy: Tier) -> None:
        self.fill(roomy, 4, 5)
        self.fill(roomy, 0, 1, 2)
        self.fill(roomy, 3)

        assert [label.depth for _, label in roomy.scan()] == [5, 4, 2, 1, 0, 3]

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        history=st.lists(
            st.tuples(st.sampled_from(["write", "write", "delete"]), st.lists(st.integers(0, 11), max_size=6)),
            max_size=8,
        )
    )
    def test_t29_a_tier_holds_what_a_set_would_hold(self, roomy: Tier, history: list[Step]) -> None:
        roomy.delete(chain(*range(12)).keys)
        held: set[int] = set()

        for verb, numbers in history:
            self._live(roomy, held, verb, numbers)

        out = self.blank(len(held))
        assert {label.depth for _, label in roomy.scan()} == held
        assert roomy.read(chain(*held).keys, out, chain(*held).labels) == len(held)
        assert self.same(out, *held)

    def _live(self, tier: Tier, held: set[int], verb: str, numbers: list[int]) -> None:
        """Do one step to the tier and to the set, and compare."""
        part, chosen = chain(*numbers), set(numbers)
        if verb == "delete":
            assert tier.delete(part.keys) == len(chosen & held)
            held -= chosen
        elif len(held | chosen) > self.NUM_BLOCKS:
            with pytest.raises(TierFullError):
                self.fill(tier, *numbers)
        else:
            self.fill(tier, *numbers)
            held |= chosen
        run = next((i for i, number in enumerate(numbers) if number not in held), len(numbers))
        assert tier.contains(part.keys) == run, f"after {verb}"
        assert tier.used_bytes == len(held) * tier.block_bytes, f"after {verb}"
