"""Reading the index at once gives what reading it entry by entry does."""

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvtier.format import ENTRY_HEAD, Entry, pack_entry, unpack_entry
from kvtier.hashing import BlockHash, Label
from kvtier.tiers import entries
from kvtier.tiers.entries import read_entries

keys = st.binary(min_size=32, max_size=32)
runs = st.sampled_from([1, 3, 512])


def bytes_of(size):
    return st.binary(min_size=size, max_size=size)


few = st.integers(0, 5)
numbers = st.integers(0, 2**32 - 1)


def values(size, batches=few):
    """Values of the index database, with so many bytes of token ids."""
    label = st.builds(Label, keys.map(BlockHash), numbers, bytes_of(size))
    return st.builds(Entry, batches, numbers, numbers, label).map(pack_entry)


def index(*stored, odd_keys=keys):
    """Keys and values as LMDB keeps them."""
    return st.dictionaries(keys | odd_keys, st.one_of(*stored), max_size=20).map(lambda held: sorted(held.items()))


def by_hand(pairs):
    """Entry by entry: oldest first and of a batch the deepest first; slots; times; damage."""
    good = [(key, unpack_entry(value)) for key, value in pairs if len(key) == 32 and len(value) >= 52]
    listed = sorted(good, key=lambda found: (found[1].batch, -found[1].label.depth))
    damaged = [key for key, value in pairs if len(key) != 32 or len(value) < 52]
    return [(key, entry.label) for key, entry in listed], [(e.slot, e.time_s) for _, e in good], damaged


def at_once(pairs, run):
    with mock.patch.object(entries, "_RUN", run):
        found = read_entries(iter(pairs), len(pairs))
    assert found.listing.damaged == len(found.damaged)
    return list(found.listing), list(zip(found.slots.tolist(), found.times.tolist(), strict=True)), found.damaged


@given(pairs=st.sampled_from([0, 4, 128]).flatmap(lambda size: index(values(size))), run=runs)
def test_entries_as_long_as_one_another(pairs, run):
    assert at_once(pairs, run) == by_hand(pairs)


@given(pairs=index(values(0), values(4), values(12)), run=runs)
def test_entries_of_several_lengths(pairs, run):
    assert at_once(pairs, run) == by_hand(pairs)


@given(pairs=index(values(8), st.binary(max_size=60), odd_keys=st.binary(min_size=1, max_size=40)), run=runs)
def test_what_is_no_entry_is_named_and_left_out(pairs, run):
    assert at_once(pairs, run) == by_hand(pairs)


@given(pairs=index(bytes_of(51)), run=runs)
def test_an_index_of_entries_that_are_all_too_short(pairs, run):
    assert at_once(pairs, run) == ([], [], [key for key, _ in pairs])


@given(pairs=index(values(4, st.integers(0, 2**64 - 1))), run=runs)
def test_numbers_of_commits_that_take_all_their_bits_keep_the_order(pairs, run):
    assert at_once(pairs, run) == by_hand(pairs)


def test_a_run_that_ends_is_followed_by_the_next():
    pairs = [
        (i.to_bytes(32, "big"), pack_entry(Entry(i, i, 7, Label(BlockHash(bytes(32)), i, b"abcd")))) for i in range(5)
    ]

    assert at_once(pairs, 2) == by_hand(pairs)


@given(stored=values(4))
def test_the_columns_of_an_entry_are_the_fields_of_its_format(stored):
    entry = unpack_entry(stored)

    head = np.frombuffer(stored[: ENTRY_HEAD.itemsize], ENTRY_HEAD)[0]

    assert [int(head[name]) for name in ("batch", "slot", "time", "depth")] == [*entry[:3], entry.label.depth]
    assert head["parent"].tobytes() == entry.label.parent
