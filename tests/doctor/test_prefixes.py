"""The forest of a listing, against plain walks over a dictionary."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.doctor.prefixes import Forest
from kvtier.hashing import BlockHash, Label, name_block
from kvtier.listing import Listing

ROOTS = [BlockHash(bytes([number]) * 32) for number in (1, 2)]


@st.composite
def forests(draw):
    """Blocks that hang on one another or on a root, some of them missing, some at a wrong depth, some bad."""
    blocks = []
    for number in range(draw(st.integers(0, 24))):
        hang_on = draw(st.sampled_from([*ROOTS, *(name for name, _ in blocks)]))
        depth = next((label.depth + 1 for name, label in blocks if name == hang_on), 0)
        depth += draw(st.sampled_from([0, 0, 0, 0, 1]))
        label = Label(hang_on, depth, number.to_bytes(4, "little"))
        blocks.append((name_block(label), label))
    kept = [block for block in blocks if draw(st.integers(0, 5))]
    bad = {name for name, _ in kept if not draw(st.integers(0, 5))}
    return dict(kept), bad


def chain_of(blocks, bad, name):
    """Names from a first block to this one; None if they are not all there, good, and one deeper than another."""
    chain = [name]
    while True:
        label = blocks.get(chain[0])
        if label is None or chain[0] in bad:
            return None
        if label.depth == 0:
            break
        parent = blocks.get(label.parent)
        if parent is None or parent.depth != label.depth - 1:
            return None
        chain.insert(0, label.parent)
    return chain


def forest_of(blocks, bad):
    listing = Listing.of(blocks.items())
    return Forest(listing, np.array([listing.name(row) not in bad for row in range(len(listing))], np.bool_)), listing


SETTINGS = settings(max_examples=80, deadline=None)


@SETTINGS
@given(forests())
def test_a_block_is_whole_when_all_before_it_are_there_and_good(drawn):
    blocks, bad = drawn
    forest, listing = forest_of(blocks, bad)

    assert {listing.name(row) for row in np.flatnonzero(forest.whole)} == {
        name for name in blocks if chain_of(blocks, bad, name)
    }


@SETTINGS
@given(forests())
def test_what_hangs_on_a_block_are_the_whole_blocks_whose_chain_goes_through_it(drawn):
    blocks, bad = drawn
    forest, listing = forest_of(blocks, bad)
    chains = [chain for name in blocks if (chain := chain_of(blocks, bad, name))]
    below, children = forest.below(), forest.children()

    for row in np.flatnonzero(forest.whole):
        name = listing.name(row)
        assert below[row] == sum(name in chain[:-1] for chain in chains)
        assert children[row] == sum(name == chain[-2] for chain in chains if len(chain) > 1)
        assert [listing.name(each) for each in forest.path(row)] == chain_of(blocks, bad, name)
        under = {listing.name(each) for each in forest.under(np.array([row]))}
        assert under == {chain[-1] for chain in chains if name in chain}


@SETTINGS
@given(forests())
def test_every_whole_block_belongs_to_the_root_its_chain_begins_at(drawn):
    blocks, bad = drawn
    forest, listing = forest_of(blocks, bad)
    found = {listing.name(row): root for root, rows in forest.roots().items() for row in rows}

    chains = [chain for name in blocks if (chain := chain_of(blocks, bad, name))]
    assert found == {chain[-1]: blocks[chain[0]].parent for chain in chains}


@SETTINGS
@given(forests())
def test_token_ids_of_a_prefix_are_those_of_its_blocks_in_order(drawn):
    blocks, bad = drawn
    forest, listing = forest_of(blocks, bad)

    for row in np.flatnonzero(forest.whole):
        chain = chain_of(blocks, bad, listing.name(row))
        assert forest.tokens(row).tobytes() == b"".join(blocks[name].tokens for name in chain)
