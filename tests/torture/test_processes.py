"""Processes that share a directory, some of them killed; ``scripts/torture --only processes`` runs many more."""

#: What others have written may be written over.
BLIND = """
from kvtier.tiers.slots import Slots
Slots.occupy = lambda slots, taken: None
"""


def test_writers_that_share_a_directory_and_are_killed_leave_it_whole(torture, total):
    rows = torture("processes")

    assert total(rows, "tried") == total(rows, "survived") == 4
    assert [total(rows, name) for name in ("wrong_bytes", "lost_flushed", "leaks")] == [0, 0, 0]


def test_writers_that_do_not_follow_each_other_are_noticed(torture, total):
    rows = torture("processes", sabotage=BLIND)

    assert total(rows, "survived") < total(rows, "tried")
