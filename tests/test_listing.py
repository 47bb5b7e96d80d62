"""Listings: names and labels in columns answer like the list they were made from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing, Remaining, Roll


def names():
    """Names of 32 bytes: anything, or such that only their last bytes differ."""
    alike = st.integers(0, 3).map(lambda n: bytes(28) + n.to_bytes(4, "big"))
    return st.one_of(st.binary(min_size=32, max_size=32), alike).map(BlockHash)


labels = st.builds(Label, names(), st.integers(0, 2**32 - 1), st.binary(max_size=40))
listed = st.lists(st.tuples(names(), labels), unique_by=lambda entry: entry[0], max_size=40)


def rows_of(listing, keys):
    return np.array([listing.find(key) for key in keys], np.int64)


@given(entries=listed)
def test_a_listing_gives_back_what_it_was_made_from(entries):
    listing = Listing.of(entries)

    assert list(listing) == entries
    assert len(listing) == len(entries)


@given(entries=listed, strangers=st.lists(names()))
def test_a_name_is_found_in_its_row_and_no_other_is(entries, strangers):
    listing = Listing.of(entries)

    assert all(listing.name(listing.find(key)) == key for key, _ in entries)
    assert all(listing.label(listing.find(key)) == label for key, label in entries)
    assert all(listing.find(key) == -1 for key in strangers if key not in dict(entries))


@given(entries=listed, data=st.data())
def test_parents_are_found_by_their_whole_name(entries, data):
    keys = [key for key, _ in entries]
    parents = [data.draw(st.sampled_from(keys) | names()) for _ in entries]
    listing = Listing.of([(key, Label(parent, 1, b"")) for key, parent in zip(keys, parents, strict=True)])

    found = listing.parent_rows()

    for key, parent in zip(keys, parents, strict=True):
        assert found[listing.find(key)] == listing.find(parent)


def test_parents_of_many_blocks_are_found():
    stream = np.random.default_rng(1)
    keys = [BlockHash(stream.bytes(32)) for _ in range(3000)]
    parents = [keys[i] for i in stream.permutation(3000)]
    listing = Listing.of([(key, Label(parent, 1, b"")) for key, parent in zip(keys, parents, strict=True)])

    assert listing.parent_rows()[rows_of(listing, keys)].tolist() == rows_of(listing, parents).tolist()


@given(entries=listed, data=st.data())
def test_a_row_that_left_is_not_found_any_more(entries, data):
    listing = Listing.of(entries)
    kept = data.draw(st.sets(st.sampled_from(range(len(entries))))) if entries else set()
    remaining = Remaining(listing, np.array(sorted(kept), np.int64))

    for row in data.draw(st.permutations(sorted(kept)))[::2]:
        remaining.remove(row)
        kept.discard(row)

    assert remaining.num == len(kept)
    assert remaining.rows().tolist() == sorted(kept)
    for key, _ in entries:
        row = listing.find(key)
        assert remaining.find(key) == (row if row in kept else -1)
        assert (row in remaining) == (row in kept)


@given(entries=listed, data=st.data())
def test_a_roll_is_the_names_newest_first(entries, data):
    listing = Listing.of(entries)
    expected = [key for key, _ in reversed(entries)]
    roll = Roll(listing, listing.order)

    assert (list(roll), len(roll)) == (expected, len(expected))
    part = data.draw(st.slices(len(entries)))
    assert roll[part] == expected[part]


def test_a_roll_ends_where_its_names_do():
    entry = (BlockHash(bytes(32)), Label(BlockHash(bytes(32)), 0, b""))
    listing = Listing.of([entry])

    with pytest.raises(IndexError):
        Roll(listing, listing.order)[1]


def test_an_empty_listing_lists_nothing():
    listing = Listing.of([])

    assert (len(listing), list(listing), listing.find(BlockHash(bytes(32)))) == (0, [], -1)
    assert listing.parent_rows().tolist() == []
