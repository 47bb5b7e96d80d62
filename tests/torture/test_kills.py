"""Fifty kills; ``scripts/torture --only kills`` makes many more."""

#: A flush that says it is done and does nothing.
LAZY_FLUSH = """
from kvtier.answers import Flushed
from kvtier.store import TieredStore
TieredStore.flush = lambda store: Flushed(0, 0, 0.0, 0)
"""

#: Each record reaches the file only when the next one is written.
LATE_RECORDS = """
import os
held, pwritev = [], os.pwritev
def late(file, parts, offset):
    if held:
        pwritev(*held.pop())
    held.append((file, [bytes(part) for part in parts], offset))
    return sum(map(len, parts))
os.pwritev = late
"""


def test_fifty_kills_leave_whole_blocks_and_all_that_was_promised(torture, total):
    rows = torture("kills")

    assert total(rows, "tried") == 50
    assert total(rows, "survived") == 50
    assert [total(rows, name) for name in ("wrong_bytes", "lost_flushed", "leaks")] == [0, 0, 0]


def test_the_kills_notice_a_flush_that_does_nothing(torture, total):
    rows = torture("kills", "--tries", "1", sabotage=LAZY_FLUSH)

    assert total(rows, "lost_flushed") > 0


def test_the_kills_notice_a_commit_before_its_record(torture, total):
    rows = torture("kills", "--tries", "1", sabotage=LATE_RECORDS)

    assert total(rows, "survived") < total(rows, "tried")
