"""The laws of a tier, as a test class to inherit.

    class TestMine(TierTests):
        def open(self, path):
            return Mine("mine", capacity_bytes=self.CAPACITY_BYTES, block_bytes=self.BLOCK_BYTES)

Each law holds for every tier that keeps the contract of ``kvtier.tiers.base``. A law about
something that not every medium can do is switched by a class attribute, and says so where it is
skipped. What a tier does besides is tested beside the class that inherits.

A block, its name and its contents are functions of one number, so that whoever reads a block can
check it without asking who wrote it: another thread, or a process that was killed.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtier.errors import CorruptBlockError, SpecMismatchError, TierClosedError, TierFullError
from kvtier.hashing import HASH_BYTES, BlockHash, Chain, Label, name_block
from kvtier.tiers.base import Tier

#: Layers, K and V, heads, tokens, bytes of one head: the shape a model's cache gives a block.
SHAPE = (4, 2, 4, 32, 256)

_BLOCK_TOKENS = SHAPE[3]
_TIMEOUT_S = 60
"""Whoever has not answered by then hangs."""

Step = tuple[str, list[int]]
"""Verb, and numbers of the blocks it is about."""


def chain(*numbers: int) -> Chain:
    """Names and labels of the blocks with these numbers, the same in every run."""
    root = BlockHash(bytes(HASH_BYTES))
    labels = [Label(root, number, number.to_bytes(4, "little") * _BLOCK_TOKENS) for number in numbers]
    return Chain([name_block(label) for label in labels], labels)


@lru_cache(maxsize=64)
def contents(number: int) -> torch.Tensor:
    """The payload of the block with this number; not to be changed."""
    random = np.random.default_rng(number)
    return torch.from_numpy(random.integers(0, 256, math.prod(SHAPE), np.uint8))


def fill(tier: Tier, *numbers: int, device: str = "cpu") -> Chain:
    """Write some blocks as one batch; returns their names."""
    part = chain(*numbers)
    tier.write(part.keys, [contents(number).to(device) for number in numbers], part.labels)
    return part


def write_until_killed(tier: Tier) -> None:
    """Store blocks for ever, and say so on standard output: what the process to be killed runs.

    A line ``wrote 7`` follows each write that returned; a line ``deleting 1 2`` precedes each
    delete. Goes on where the blocks already held end.
    """
    held = [label.depth for _, label in tier.scan()]
    while True:
        if len(held) == tier.capacity_bytes // tier.block_bytes:
            oldest = held[: -(-len(held) // 2)]
            _say("deleting", oldest)
            tier.delete(chain(*oldest).keys)
            held = held[len(oldest) :]
        number = max(held, default=0) + 1
        fill(tier, number)
        held.append(number)
        _say("wrote", [number])


def check_survivors(tier: Tier, lines: Iterable[str]) -> None:
    """What a kill must leave: books that add up, whole blocks only, and every block acknowledged.

    Args:
        tier: Opened again after the kill.
        lines: What ``write_until_killed`` said.
    """
    acknowledged: set[int] = set()
    for line in lines:
        verb, *numbers = line.split()
        if verb == "wrote":
            acknowledged.update(map(int, numbers))
        else:
            acknowledged.difference_update(map(int, numbers))
    listed = {label.depth for _, label in tier.scan()}
    out = torch.empty_like(contents(0))
    for number in listed:
        part = chain(number)
        assert tier.read(part.keys, [out], part.labels) == 1, f"block {number} is listed and not held"
        assert torch.equal(out, contents(number)), f"block {number} is not what was written"
    assert tier.used_bytes == len(listed) * tier.block_bytes
    assert acknowledged <= listed, "a block whose write had returned is gone"


def _say(verb: str, numbers: list[int]) -> None:
    os.write(1, f"{verb} {' '.join(map(str, numbers))}\n".encode())


def _operations(tier: Tier) -> dict[str, Callable[[], object]]:
    """Every call that must raise once the tier is closed."""
    part, blocks = chain(0), [contents(0).clone()]
    return {
        "contains": lambda: tier.contains(part.keys),
        "read": lambda: tier.read(part.keys, blocks, part.labels),
        "write": lambda: tier.write(part.keys, blocks, part.labels),
        "delete": lambda: tier.delete(part.keys),
        "scan": lambda: list(tier.scan()),
        "flush": tier.flush,
    }


def _all_raise_closed(operations: dict[str, Callable[[], object]]) -> bool:
    for operation in operations.values():
        try:
            operation()
        except TierClosedError:
            continue
        return False
    return True


def _resources() -> tuple[list[str], list[str]]:
    """Names of the threads of this process, and what its file descriptors point to."""
    gc.collect()
    descriptors = Path("/proc/self/fd")
    links = (
        [str(link.readlink()) for link in descriptors.iterdir() if link.is_symlink()] if descriptors.exists() else []
    )
    return sorted(thread.name for thread in threading.enumerate()), sorted(links)


def _too_short(block: torch.Tensor) -> torch.Tensor:
    return block[:-1]


def _too_long(block: torch.Tensor) -> torch.Tensor:
    return torch.cat([block, block[:1]])


def _signed(block: torch.Tensor) -> torch.Tensor:
    return block.to(torch.int8)


def _wide(block: torch.Tensor) -> torch.Tensor:
    return block.view(torch.float16)


_wrongly = pytest.mark.parametrize("wrong", [_too_short, _too_long, _signed, _wide])


class TierTests:
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

    @pytest.mark.parametrize("count", [1, 2, NUM_BLOCKS])
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
        labels = [part.labels[0], part.labels[1]._replace(tokens=bytes(4 * _BLOCK_TOKENS)), part.labels[2]]

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

    def test_t30_a_reader_racing_a_writer_sees_a_whole_block_or_none(self, roomy: Tier) -> None:
        chains = [chain(*range(start, start + self.NUM_BLOCKS)) for start in (0, 100)]
        seen, stop = threading.Event(), threading.Event()

        def read_on() -> None:
            out = self.blank(self.NUM_BLOCKS)
            while not stop.is_set():
                for part in chains:
                    count = roomy.read(part.keys, out, part.labels)
                    assert self.same(out[:count], *(label.depth for label in part.labels[:count]))
                    if count:
                        seen.set()

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read_on) for _ in range(2)]
            try:
                for part in chains * 6:
                    self.fill(roomy, *(label.depth for label in part.labels))
                    seen.clear()
                    assert seen.wait(_TIMEOUT_S), self._first_error(readers)
                    roomy.delete(part.keys)
            finally:
                stop.set()

        assert self._first_error(readers) is None

    def test_t31_writers_racing_each_other_lose_no_block(self, roomy: Tier) -> None:
        halves = range(0, self.NUM_BLOCKS, 2), range(1, self.NUM_BLOCKS, 2)

        def write_and_delete(numbers: range) -> None:
            for _ in range(5):
                self.fill(roomy, *numbers)
                assert roomy.delete(chain(*numbers).keys) == len(numbers)
            self.fill(roomy, *numbers)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write_and_delete, halves))

        part, out = chain(*range(self.NUM_BLOCKS)), self.blank(self.NUM_BLOCKS)
        assert roomy.read(part.keys, out, part.labels) == self.NUM_BLOCKS
        assert self.same(out, *range(self.NUM_BLOCKS))

    def test_t32_a_reader_racing_close_sees_whole_blocks_until_it_is_told(self, roomy: Tier) -> None:
        part = self.fill(roomy, *range(self.NUM_BLOCKS))
        started = threading.Barrier(3, timeout=_TIMEOUT_S)

        def read_on(length: int) -> None:
            out = self.blank(length)
            started.wait()
            while True:
                try:
                    count = roomy.read(part.keys[:length], out, part.labels[:length])
                except TierClosedError:
                    return
                assert self.same(out[:count], *range(count))

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read_on, length) for length in (1, self.NUM_BLOCKS)]
            started.wait()
            roomy.close()

        assert self._first_error(readers) is None

    def _first_error(self, futures: list[Future[None]]) -> BaseException | None:
        return next((error for each in futures if each.done() and (error := each.exception())), None)

    @pytest.mark.parametrize("operation", ["contains", "read", "write", "delete", "scan", "flush"])
    def test_t33_a_closed_tier_says_so(self, tier: Tier, operation: str) -> None:
        tier.close()

        with pytest.raises(TierClosedError, match=tier.name):
            _operations(tier)[operation]()

    def test_t34_a_second_close_does_nothing(self, tier: Tier) -> None:
        tier.close()

        tier.close()

    def test_t35_a_forked_child_is_refused_and_the_parent_is_not_disturbed(self, tier: Tier) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system does not fork")
        part = self.fill(tier, 1) if self.holds else chain()
        operations = _operations(tier)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads
            child = os.fork()
        if child == 0:
            signal.alarm(_TIMEOUT_S)
            refused = False
            try:
                refused = _all_raise_closed(operations)
                tier.close()
            finally:
                os._exit(0 if refused else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert tier.contains(part.keys) == len(part)

    def test_t36_after_close_no_thread_and_no_descriptor_is_left(self, path: Path) -> None:
        def live(directory: Path) -> None:
            with closing(self.open(directory)) as tier:
                if self.holds:
                    part = self.fill(tier, *range(self.NUM_BLOCKS))
                    tier.read(part.keys, self.blank(self.NUM_BLOCKS), part.labels)

        live(path.with_name("first"))  # what a library sets up once is not a leak
        before = _resources()
        live(path.with_name("second"))

        assert _resources() == before

    def test_t37_flushed_blocks_survive_reopening(self, roomy: Tier, path: Path) -> None:
        self._needs_persistence()
        part, out = self.fill(roomy, 1, 2, 3), self.blank(3)
        roomy.delete(chain(2).keys)
        roomy.flush()
        roomy.close()

        with closing(self.open(path)) as again:
            assert again.used_bytes == 2 * self.BLOCK_BYTES
            assert again.read([part.keys[0], part.keys[2]], out[:2], [part.labels[0], part.labels[2]]) == 2
        assert self.same(out[:2], 1, 3)

    def test_t38_the_order_of_a_scan_survives_reopening(self, roomy: Tier, path: Path) -> None:
        self._needs_persistence()
        self.fill(roomy, 4, 5)
        self.fill(roomy, 0, 1)
        before = list(roomy.scan())
        roomy.close()

        with closing(self.open(path)) as again:
            self.fill(again, 2)

            assert [*before, *zip(chain(2).keys, chain(2).labels, strict=True)] == list(again.scan())

    def test_t39_kill_nine_leaves_each_block_whole_or_absent(self, path: Path) -> None:
        self._needs_persistence()
        lines: list[str] = []
        with subprocess.Popen(self.writer_command(path), stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603
            assert writer.stdout is not None
            for line in writer.stdout:
                lines.append(line)
                if len(lines) == 2 * self.NUM_BLOCKS:  # it has begun to delete
                    writer.kill()

        assert writer.returncode == -signal.SIGKILL
        with closing(self.open(path)) as tier:
            check_survivors(tier, lines)

    def _needs_persistence(self) -> None:
        if not self.persistent:
            pytest.skip("this tier does not outlive its process")

    def test_t40_a_damaged_block_raises_instead_of_being_served(self, roomy: Tier) -> None:
        self._needs_verification()
        part, out = self.fill(roomy, 1, 2, 3), self.blank(3)
        self.raw_damage(roomy, part.keys[1])

        with pytest.raises(CorruptBlockError, match=part.keys[1].hex()[:12]) as caught:
            roomy.read(part.keys, out, part.labels)

        assert caught.value.key == part.keys[1]
        assert self.same(out[:1], 1)

    def test_t41_a_damaged_block_can_be_deleted_and_written_again(self, roomy: Tier) -> None:
        self._needs_verification()
        part, out = self.fill(roomy, 1, 2), self.blank(2)
        self.raw_damage(roomy, part.keys[1])

        assert roomy.delete(part.keys[1:]) == 1
        self.fill(roomy, 2)

        assert roomy.read(part.keys, out, part.labels) == 2
        assert self.same(out, 1, 2)

    def _needs_verification(self) -> None:
        if not self.verifies:
            pytest.skip("this tier does not verify what it holds")
