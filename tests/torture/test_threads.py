"""Storms find nothing on the store as it is, and find what was broken on purpose."""

import sys
import threading
import time
from contextlib import suppress
from unittest.mock import patch

import pytest

from kvtier.errors import TierError
from kvtier.index import PrefixIndex
from kvtier.tiers.memory import MemoryTier
from kvtier.writer import Writer
from torture import threads
from torture.schedule import Schedule
from torture.storm import storm

SEEDS = range(40)


def test_storms_leave_no_wrong_byte_and_nothing_behind(torture):
    rows = torture("threads")

    assert [f"threads: {fault}" for fault in rows] == threads.FAULTS
    assert [row["failures"] for row in rows.values()] == [[], [], []]
    assert [(row["wrong_bytes"], row["lost_flushed"], row["leaks"]) for row in rows.values()] == 3 * [(0, 0, 0)]
    assert all(row["survived"] == row["tried"] > 100 for row in rows.values())


def published_before_the_copy():
    """A store that lists new blocks as readable and copies them afterwards."""
    copy_in = Writer._copy_in

    def broken(self, new, part, blocks):
        with self._core.lock:
            for move in new:
                self._core.placement.index[move.key].tiers |= 1
        return copy_in(self, new, part, blocks)

    return patch.object(Writer, "_copy_in", broken)


def answered_before_the_copy():
    """A memory tier that says a write is done, and copies after that."""
    copy = MemoryTier._copy

    def copy_late(self, slots, blocks):
        with suppress(TierError):  # the store may be closed by then
            copy(self, slots, blocks, out=False)

    def broken(self, slots, blocks, *, out):
        if out:
            copy(self, slots, blocks, out=True)
        else:
            late = [block.clone() for block in blocks]
            threading.Thread(target=copy_late, args=(self, slots, late)).start()

    return patch.object(MemoryTier, "_copy", broken)


def leases_that_hold_nothing():
    """An index that forgets to count leases."""
    lease = PrefixIndex.lease

    def broken(self, keys, owner, deadline):
        made = lease(self, keys, owner, deadline)
        for node in made.nodes:
            node.leases -= 1
        made.nodes.clear()
        return made

    return patch.object(PrefixIndex, "lease", broken)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("broken", [published_before_the_copy, answered_before_the_copy, leases_that_hold_nothing])
def test_a_race_made_on_purpose_is_found_by_a_disturbed_schedule(tmp_path, broken):
    def found(seed):
        row = threads.one_storm(threads.FAULTS[1], tmp_path / str(seed), seed, steps=15, num_threads=12)
        return [failure for failure in row["failures"] if "left behind" not in failure]

    with broken():
        first = next(filter(None, map(found, SEEDS)), [])

    assert first, f"not one of {len(SEEDS)} seeds found it"
    assert first[0].startswith("seed ")


def hesitations(seed, name, count=2000):
    """Of each kind, as one thread of that name draws them."""
    schedule, kinds = Schedule(seed), []
    for kind in ("_yield", "_sleep", "_meet"):
        setattr(schedule, kind, lambda rng, kind=kind: kinds.append((schedule.num_points, kind)))
    thread = threading.Thread(target=lambda: [schedule.point("lock") for _ in range(count)], name=name)
    thread.start()
    thread.join()
    return kinds


def test_a_seed_and_a_name_draw_the_same_hesitations_again():
    assert hesitations(7, "caller-1") == hesitations(7, "caller-1")
    assert hesitations(7, "caller-1") != hesitations(8, "caller-1")
    assert hesitations(7, "caller-1") != hesitations(7, "caller-2")


def test_a_thread_that_meets_waits_for_another_one():
    schedule = Schedule(0)
    with patch("torture.schedule.MEETING_S", 60):
        first = threading.Thread(target=schedule._meet, args=(None,))
        first.start()
        while not schedule._arrivals:
            time.sleep(0.001)
    assert first.is_alive()

    with patch("torture.schedule.MEETING_S", 0):
        schedule._meet(None)

    first.join(30)
    assert not first.is_alive()


def test_what_was_disturbed_is_as_before_afterwards():
    before = (threading.Lock, threading.RLock, sys.getswitchinterval())

    with Schedule(0).disturbing():
        assert threading.Lock is not before[0]

    assert (threading.Lock, threading.RLock, sys.getswitchinterval()) == before


def test_a_storm_without_calls_is_empty():
    assert storm(None, 0, steps=0, num_threads=2).calls == 0
