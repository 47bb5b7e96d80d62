"""What a process learns from the journal of what others have committed, and the books that go with each commit."""

from contextlib import closing, suppress

import pytest
from tier_helpers import disk, held, put

from kvtier.format import Change, unpack_entry
from kvtier.hashing import BlockHash
from kvtier.testing.blocks import chain
from kvtier.tiers import journal
from kvtier.tiers.journal import lines_since, quarantined


@pytest.fixture
def tier(tmp_path):
    with closing(disk(tmp_path / "tier", 16)) as made:
        yield made


def by_another(tier):
    """From now on what the tier commits counts as another process's."""
    env = tier._volume.env
    env.writer = bytes(byte ^ 0xFF for byte in env.writer)


def since(tier, commit):
    with tier._volume.env.reading(buffers=False) as txn:
        return lines_since(tier._volume.env, txn, commit)


def told(tier, commit):
    """Who came and went, by lines."""
    return [[(change.key, change.added) for change in line] for line in since(tier, commit)]


def last(tier):
    return tier._volume.env.books.commit


def names(*numbers):
    return chain(*numbers).keys


def damage(tier, number, change):
    """Change a line of the journal, or remove it."""
    env = tier._volume.env
    with env._env.begin(write=True) as txn:
        name = number.to_bytes(8, "big")
        line = change(txn.get(name, db=env.journal))
        if line is None:
            txn.delete(name, db=env.journal)
        else:
            txn.put(name, line, db=env.journal)


def test_what_others_committed_is_told_oldest_first(tier):
    start = last(tier)
    put(tier, 1, 2)
    tier.delete(names(1))
    by_another(tier)

    assert told(tier, start) == [[(key, True) for key in names(1, 2)], [(names(1)[0], False)]]
    assert told(tier, start + 1) == [[(names(1)[0], False)]]
    assert told(tier, start + 2) == []


def test_own_commits_are_left_out(tier):
    start = last(tier)
    put(tier, 1)
    by_another(tier)
    put(tier, 2)

    assert told(tier, start) == [[(names(1)[0], True)]]


def test_a_line_says_where_the_records_lie(tier):
    start = last(tier)
    part = put(tier, 1)
    by_another(tier)
    slot = tier._volume.slabs
    ((change,),) = since(tier, start)

    assert isinstance(change, Change)
    assert slot.place(change.slot) is not None
    assert (change.key, change.added) == (part.keys[0], True)


def test_who_has_fallen_behind_what_is_kept_is_told_nothing(tier, monkeypatch):
    monkeypatch.setattr(journal, "JOURNAL_COMMITS", 3)
    start = last(tier)
    for number in range(5):
        put(tier, number)
    by_another(tier)

    assert [since(tier, start + seen) is None for seen in range(5)] == [True, True, False, False, False]
    assert len(since(tier, start + 2)) == 3


def test_a_journal_stays_as_short_as_it_should(tier, monkeypatch):
    monkeypatch.setattr(journal, "JOURNAL_COMMITS", 3)
    for number in range(8):
        put(tier, number)

    with tier._volume.env.reading() as txn:
        assert txn.stat(tier._volume.env.journal)["entries"] == 3


@pytest.mark.parametrize(
    "change",
    [lambda line: None, lambda line: line[:-1], lambda line: line[:7], lambda line: b""],
    ids=["lost", "cut", "short", "empty"],
)
def test_a_damaged_line_is_as_good_as_none(tier, change):
    start = last(tier)
    put(tier, 1)
    put(tier, 2)
    by_another(tier)
    damage(tier, start + 1, change)

    assert since(tier, start) is None
    assert told(tier, start + 1) == [[(names(2)[0], True)]]


# Books


def books(tier):
    found = tier._volume.env.books
    return found.blocks, found.commit


def test_a_commit_counts_what_comes_and_goes(tier):
    blocks, commit = books(tier)
    put(tier, 1, 2, 3)
    assert books(tier) == (blocks + 3, commit + 1)
    tier.delete(names(1, 2))

    assert books(tier) == (1, commit + 2)


def test_a_commit_without_a_change_is_none(tier):
    put(tier, 1)
    before = books(tier)
    put(tier, 1)
    tier.delete(names(7))

    assert books(tier) == before


def test_a_commit_that_raises_leaves_no_trace(tier):
    put(tier, 1)
    before = books(tier)
    env = tier._volume.env
    with suppress(ZeroDivisionError), env.writing(), env.change() as commit:
        commit.drop(names(1)[0], 0)
        raise ZeroDivisionError

    assert (books(tier), held(tier)) == (before, [1])


def test_an_entry_under_what_is_no_name_leaves_the_books_and_is_in_no_line(tier):
    put(tier, 1)
    before, (blocks, commit) = last(tier), books(tier)
    env = tier._volume.env
    with env.writing(), env.change() as change:
        change.drop(BlockHash(b"no name"), journal.NO_SLOT)
    by_another(tier)

    assert books(tier) == (blocks - 1, commit + 1)
    assert told(tier, before) == [[]]


def test_a_capacity_announced_is_a_commit_of_its_own(tier):
    blocks, commit = books(tier)
    env = tier._volume.env
    with env.writing(), env.change() as change:
        change.announce(5)

    assert (books(tier), env.books.capacity_blocks) == ((blocks, commit + 1), 5)
    put(tier, 1)
    assert env.books.capacity_blocks == 5


def test_an_entry_says_when_its_block_came(tier, monkeypatch):
    monkeypatch.setattr(journal.time, "time", lambda: 1_700_000_000.9)
    put(tier, 1)

    with tier._volume.env.reading(buffers=False) as txn:
        entry = unpack_entry(txn.get(names(1)[0], db=tier._volume.env.index))
    assert (entry.time_s, entry.batch) == (1_700_000_000, last(tier))


# Quarantine


def test_what_cannot_be_read_of_the_quarantine_is_passed_over(tier):
    env = tier._volume.env
    with env.writing(), env.change() as commit:
        commit.quarantine(3, "checksum mismatch")
        commit.put(b"x", b"{}", env.quarantine)
        commit.put(bytes(4), b"{}", env.quarantine)
        commit.put(b"\0\0\0\1", b"[]", env.quarantine)
        commit.put(b"\0\0\0\2", b"\xff", env.quarantine)

    with env.reading() as txn:
        assert list(quarantined(env, txn)) == [(3, "checksum mismatch")]


def test_a_quarantine_outlives_a_restart(tmp_path):
    with closing(disk(tmp_path / "kept")) as tier:
        env = tier._volume.env
        with env.writing(), env.change() as commit:
            commit.quarantine(3, "why")

    with closing(disk(tmp_path / "kept")) as tier, tier._volume.env.reading() as txn:
        assert list(quarantined(tier._volume.env, txn)) == [(3, "why")]
