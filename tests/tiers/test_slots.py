"""A slot is written again once nobody can be reading what it held, and not before."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvtier.tiers.slots import Slots

NOBODY = 1 << 62
"""The oldest reader where there is none."""


def of(count):
    made = Slots()
    made.extend(count)
    made.free(range(count))
    return made


def test_the_lowest_is_taken_first():
    slots = of(6)
    first = slots.take(4, NOBODY)
    slots.free([3, 1])

    assert (first, slots.take(3, NOBODY)) == ([0, 1, 2, 3], [1, 3, 4])


def test_new_slots_are_taken_until_somebody_frees_them():
    slots = Slots()
    slots.extend(3)

    assert (slots.num, slots.spare) == (3, 0)


def test_fewer_slots_than_there_are_change_nothing():
    slots = of(3)
    slots.extend(2)

    assert (slots.num, slots.spare) == (3, 3)


def test_without_readers_a_slot_is_free_as_soon_as_it_is_left():
    slots = of(1)
    slots.leave(slots.take(1, NOBODY), commit=7)

    assert slots.take(1, NOBODY) == [0]


@pytest.mark.parametrize(("oldest", "taken"), [(6, None), (7, [0]), (8, [0])])
def test_a_snapshot_from_before_the_drop_holds_the_slot_up(oldest, taken):
    slots = of(1)
    slots.leave(slots.take(1, NOBODY), commit=7)

    assert slots.spare == 1
    assert slots.take(1, oldest) == taken


def test_a_slot_whose_write_failed_is_free_whoever_reads():
    slots = of(1)
    slots.free(slots.take(1, 0))

    assert slots.take(1, 0) == [0]


def test_a_slot_that_another_process_took_is_not_free_when_its_readers_are_gone():
    slots = of(2)
    slots.leave(slots.take(1, NOBODY), commit=7)
    slots.occupy([0])

    assert (slots.spare, slots.take(1, NOBODY)) == (1, [1])


def test_a_slot_left_twice_waits_for_the_second_time():
    slots = of(1)
    slots.leave([0], commit=7)
    slots.occupy([0])
    slots.leave([0], commit=9)

    assert slots.take(1, 8) is None
    assert slots.take(1, 9) == [0]


class Lives(RuleBasedStateMachine):
    """Snapshots come and go while slots are taken and left, here and elsewhere; the model knows who sees what."""

    COUNT = 6

    def __init__(self):
        super().__init__()
        self.slots = of(self.COUNT)
        self.held, self.commit = set(), 0
        self.snapshots = []
        """Number of the last commit at the time, and the slots that held a block then."""

    def oldest(self):
        return min((commit for commit, _ in self.snapshots), default=NOBODY)

    @rule(count=st.integers(1, 3))
    def take(self, count):
        if self.slots.spare < count:
            return
        taken = self.slots.take(count, self.oldest())
        seen = set().union(*(seen for _, seen in self.snapshots))
        if taken is None:
            assert self.snapshots, "held up by nobody"
            return
        assert not seen & set(taken), "written under a reader"
        assert not self.held & set(taken), "written twice"
        self.held |= set(taken)
        self.commit += 1

    @rule(data=st.data())
    def another_process_takes(self, data):
        seen = set().union(*(seen for _, seen in self.snapshots))
        spare = sorted(set(range(self.COUNT)) - self.held - seen)
        if spare:
            taken = data.draw(st.sets(st.sampled_from(spare), min_size=1))
            self.slots.occupy(taken)
            self.held |= taken
            self.commit += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data):
        gone = data.draw(st.sets(st.sampled_from(sorted(self.held)), min_size=1))
        self.held -= gone
        self.commit += 1
        self.slots.leave(gone, self.commit)

    @rule()
    def begin(self):
        self.snapshots.append((self.commit, set(self.held)))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def end(self, data):
        self.snapshots.pop(data.draw(st.integers(0, len(self.snapshots) - 1)))

    @invariant()
    def every_slot_is_held_or_spare(self):
        assert self.slots.spare + len(self.held) == self.COUNT


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
