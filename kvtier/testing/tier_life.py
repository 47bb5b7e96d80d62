"""The laws of a tier over its life: threads, close, fork, restart, a kill, damage: T30 to T41."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from kvtier.errors import CorruptBlockError, TierClosedError
from kvtier.testing.blocks import chain, check_survivors, contents
from kvtier.testing.tier_suite import TierSuite
from kvtier.tiers.base import Tier

_TIMEOUT_S = 60
"""Whoever has not answered by then hangs."""


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


class LifeLaws(TierSuite):
    """What others and time may not do to a tier."""

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
