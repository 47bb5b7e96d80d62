"""kvtier's policies beside those of libCacheSim: the same stream, the same hits, one by one.

Exactly the same: FIFO, LRU, LFU, SIEVE, S3-FIFO, ARC. W-TinyLFU is not: libCacheSim counts in a
sketch with hashes of its own, only hits of the main part and arrivals in it, lets the window
have the whole cache until that is full, and lets the older block win a tie. So it is compared by
its share of hits.

libCacheSim takes up no block of S3-FIFO below a capacity of 20, whose small queue it could fill,
and none of W-TinyLFU below 100, which has no window there; kvtier gives either one block at least.

Source: libCacheSim's Python binding (Yang et al.), by the authors of SIEVE and S3-FIFO.
"""

import gzip
import json
from functools import partial
from itertools import chain

import pytest
from policy_helpers import classic, play, zipf_scan_loop
from torture.workloads import trace_file

from kvtier.hashing import BlockHash, Chain, Label
from kvtier.placement import Placement, TierRules

libcachesim = pytest.importorskip("libcachesim")

THEIRS = {
    "fifo": libcachesim.FIFO,
    "lru": libcachesim.LRU,
    "lfu": libcachesim.LFU,
    "sieve": libcachesim.Sieve,
    "s3fifo": libcachesim.S3FIFO,
    "arc": libcachesim.ARC,
    "wtinylfu": libcachesim.WTinyLFU,
}
EXACT = [name for name in THEIRS if name != "wtinylfu"]

slow = partial(pytest.param, marks=pytest.mark.slow)

MIXED = zipf_scan_loop()
LOOP = list(range(700)) * 12


def play_theirs(name, stream, capacity):
    """Whether each block of a stream was a hit in libCacheSim."""
    cache, request = THEIRS[name](capacity, hashpower=16), libcachesim.Request()
    request.obj_size = 1
    hits = []
    for item in stream:
        request.obj_id = item + 1
        hits.append(cache.get(request))
    return hits


@pytest.fixture(scope="module")
def conversation():
    """The block references of the conversation trace."""
    path = trace_file()
    if path is None:
        pytest.skip("the conversation trace is not here; KVTIER_TRACES says where it is")
    with gzip.open(path, "rt") as lines:
        return list(chain.from_iterable(json.loads(line)["hash_ids"] for line in lines))


@pytest.mark.parametrize("capacity", [20, 97, 500, 1500])
@pytest.mark.parametrize("name", EXACT)
def test_every_hit_is_one_of_libcachesim(name, capacity):
    hits = play(classic(name, capacity), MIXED, capacity)

    assert hits == play_theirs(name, MIXED, capacity)
    assert 1000 < sum(hits) < len(MIXED) - 1000


@pytest.mark.parametrize("capacity", [20, 699, 700])
@pytest.mark.parametrize("name", EXACT)
def test_every_hit_in_a_loop_is_one_of_libcachesim(name, capacity):
    assert play(classic(name, capacity), LOOP, capacity) == play_theirs(name, LOOP, capacity)


@pytest.mark.parametrize("capacity", [slow(1_000), 10_000, slow(50_000)])
@pytest.mark.parametrize("name", EXACT)
def test_every_hit_in_the_conversation_trace_is_one_of_libcachesim(name, capacity, conversation):
    assert len(conversation) == 288_500
    assert play(classic(name, capacity), conversation, capacity) == play_theirs(name, conversation, capacity)


@pytest.mark.parametrize("capacity", [100, 500, 1500])
def test_the_share_of_hits_of_wtinylfu_is_close_to_that_of_libcachesim(capacity):
    ours, theirs = (
        sum(played)
        for played in (
            play(classic("wtinylfu", capacity), MIXED, capacity),
            play_theirs("wtinylfu", MIXED, capacity),
        )
    )

    assert abs(ours - theirs) < 0.02 * len(MIXED)


@pytest.mark.parametrize("name", EXACT)
def test_the_placement_of_a_store_makes_the_same_hits(name):
    """Blocks without a parent, one to a prompt, through the decisions of the live store."""
    stream, capacity = MIXED[4000:9000], 97
    placement = Placement([TierRules(capacity, classic(name, capacity))])
    hits = []
    for item in stream:
        key = BlockHash(item.to_bytes(32, "big"))
        hits.append(len(placement.match([key])) == 1)
        placement.touch([key])
        moves = placement.plan_write(Chain([key], [Label(BlockHash(b""), 0, b"")]))
        while moves:
            moves = placement.commit(moves)

    placement.check()
    assert hits == play_theirs(name, stream, capacity)
