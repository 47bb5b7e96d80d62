"""A few power cuts; ``scripts/torture --only power`` makes many more."""

import pytest

#: Commits are left in the kernel's memory.
NO_SYNC = """
import functools, lmdb
lmdb.open = functools.partial(lmdb.open, sync=False)
"""

#: What a cut must not do, if the drive keeps its word and the directory was not being made.
HONEST = ("record writes", "commit", "meta page")


@pytest.fixture(scope="module")
def rows(torture):
    return torture("power")


def test_a_cut_loses_nothing_promised_and_makes_nothing_wrong(rows, total):
    honest = {name: rows[name] for name in HONEST}

    assert total(honest, "survived") == total(honest, "tried") > 0
    assert [total(rows, name) for name in ("wrong_bytes", "lost_flushed", "leaks")] == [0, 0, 0]


@pytest.mark.xfail(strict=False, reason="what LMDB cannot open is not moved aside yet")
def test_after_any_cut_the_store_opens(rows, total):
    assert total(rows, "survived") == total(rows, "tried") == 24


def test_the_cuts_notice_commits_that_are_not_synced(torture, total):
    rows = torture("power", "--tries", "1", sabotage=NO_SYNC)

    assert total(rows, "survived") == 0 < total(rows, "tried")
