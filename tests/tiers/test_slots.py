"""A slot is written again once nobody can be reading what it held, and not before."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvtier.tiers.slots import Slots


def of(*slots):
    made = Slots()
    made.add(slots)
    return made


def test_the_lowest_is_taken_first():
    assert of(5, 1, 3).take(2) == [1, 3]


def test_more_than_are_spare_are_refused():
    with pytest.raises(ValueError, match="2 slots asked for"):
        of(1).take(2)


def test_without_readers_a_slot_is_spare_as_soon_as_it_is_left():
    slots = of(1)
    slots.leave(slots.take(1))

    assert slots.take(1) == [1]


def test_a_reader_from_before_the_drop_holds_the_slot_up():
    slots = of(1)
    taken = slots.take(1)
    writer = threading.Thread(target=slots.take, args=(1,))
    with slots.reading():
        slots.leave(taken)
        assert slots.spare == 1
        writer.start()
        writer.join(0.1)
        waits = writer.is_alive()
    writer.join(60)

    assert waits
    assert slots.spare == 0


def test_a_reader_from_after_the_drop_does_not():
    slots = of(1)
    slots.leave(slots.take(1))

    with slots.reading():
        assert slots.take(1) == [1]


def test_a_slot_whose_write_failed_is_spare_whoever_reads():
    slots = of(1)
    with slots.reading():
        slots.add(slots.take(1))

        assert slots.take(1) == [1]


class Lives(RuleBasedStateMachine):
    """Readers come and go while slots are taken and left; the model remembers who may have seen what."""

    def __init__(self):
        super().__init__()
        self.slots = of(*range(6))
        self.held, self.seen, self.left_since, self.readers = set(), {}, {}, []

    @rule(count=st.integers(1, 3))
    def take(self, count):
        waiting = set().union(*self.left_since.values())
        if self.slots.spare - len(waiting) < count:
            return  # it would wait, or be refused
        taken = self.slots.take(count)
        seen = set().union(*self.seen.values())
        assert not seen & set(taken), "written under a reader"
        assert not self.held & set(taken), "written twice"
        self.held |= set(taken)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data):
        gone = data.draw(st.sets(st.sampled_from(sorted(self.held)), min_size=1))
        self.held -= gone
        self.slots.leave(gone)
        for left in self.left_since.values():
            left.update(gone)

    @rule()
    def begin(self):
        reader = self.slots.reading()
        reader.__enter__()
        self.readers.append(reader)
        self.seen[id(reader)] = set(self.held)
        self.left_since[id(reader)] = set()

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def end(self, data):
        reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        del self.seen[id(reader)], self.left_since[id(reader)]
        reader.__exit__(None, None, None)

    @invariant()
    def every_slot_is_held_or_spare(self):
        assert self.slots.spare + len(self.held) == 6


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_slots_given_back_join_those_that_are_free():
    slots = Slots()
    slots.add([5, 3, 4])
    slots.add([2, 6])

    assert (slots.spare, slots.take(5)) == (5, [2, 3, 4, 5, 6])
