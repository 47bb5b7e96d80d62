"""Forty-two failing disks; ``scripts/torture --only disks`` makes many more."""

import pytest

#: Whatever fails once is not asked again.
UNFORGIVING = """
from kvtier.health import Breaker
Breaker.may_try = lambda breaker, now: breaker.reason is None
"""

#: What cannot be read is taken for damaged, however much that is.
RASH = """
from kvtier.tiers.slabs import Slabs
Slabs.answers = lambda slabs: True
"""

#: Every failure of the disk tier reaches whoever asked.
OPEN = """
from kvtier.tiers import disk, volume
disk.translated = volume.translated = lambda name: __import__("contextlib").nullcontext()
"""


@pytest.fixture(scope="module")
def rows(torture):
    return torture("disks")


def test_no_failing_disk_is_noticed_by_callers_and_every_one_comes_back(rows, total):
    assert total(rows, "survived") == total(rows, "tried") >= 36
    assert [total(rows, name) for name in ("wrong_bytes", "lost_flushed", "leaks")] == [0, 0, 0]


def test_a_store_opens_on_a_full_file_system(rows):
    row = rows["opened on a full file system"]

    assert "refused" not in row["notes"]


def test_the_disks_notice_a_store_that_does_not_try_again(torture, total):
    rows = torture(
        "disks",
        "--tries",
        "1",
        "--seed",
        "6",
        sabotage=UNFORGIVING + "import torture.disks; torture.disks._RECOVERY_S = 1",
    )

    assert total(rows, "survived") == 0


def test_the_disks_notice_a_store_that_forgets_what_it_cannot_read(torture, total):
    rows = torture("disks", "--tries", "1", "--seed", "6", sabotage=RASH)

    assert total(rows, "lost_flushed") > 0


def test_the_disks_notice_an_error_that_reaches_a_caller(torture, total):
    rows = torture("disks", "--tries", "1", "--seed", "13", sabotage=OPEN)

    assert total(rows, "survived") == 0
