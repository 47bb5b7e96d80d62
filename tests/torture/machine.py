"""A real store under every verb, restarts and damage, against the simplest model there is.

The model is the set of names ever put: a block may be lost at any time, but one that is delivered
has been put, and its bytes are those that its name stands for.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_helpers import (
    BLOCK,
    NAMESPACE,
    SPEC,
    TOKENS,
    blank,
    check,
    keys,
    make,
    orphans,
    payload,
    settle,
    tokens,
    wrong_blocks,
)
from tier_helpers import raw_flip, raw_get

from kvtier.format import header_bytes
from kvtier.hashing import Namespace

NAMESPACES = [NAMESPACE, Namespace(spec=SPEC, weights="another model's")]
SIZES = [
    {"device": 3, "host": 2, "disk": 6},
    {"host": 4, "disk": 6},
    {"host": 4, "disk": 3, "write": "on_insertion"},
    {"disk": 5},
    {"host": 2, "disk": 12, "promote": False},
]

words = st.text("ab", min_size=1, max_size=5)
sizes = st.sampled_from(SIZES)
namespaces = st.sampled_from(NAMESPACES)
#: Offsets in a record: its fields, and its payload.
places = st.integers(0, 128) | st.integers(header_bytes(TOKENS), header_bytes(TOKENS) + BLOCK - 1)


def state_of(store):
    """All that asking must leave as it is: where blocks are, who holds them, and who would leave first."""
    placement = store._core.placement
    with store._core.lock:
        nodes = {key: (n.tiers, n.doomed, n.moves, n.leases) for key, n in placement.index.nodes.items()}
        orders = []
        for rules in placement._rules:
            seen = []
            list(rules.policy.evict(seen.append))  # vetoes everybody
            orders.append(seen)
    return nodes, orders, store.stats()


class StoreMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="kvtier-machine-")
        self.store = None
        self.put_once = set()
        """Names of all blocks that were ever put."""
        self.asked = 0
        """Blocks asked for since the store was opened."""

    @initialize(sizes=sizes)
    def start(self, sizes):
        self.open(sizes, NAMESPACE)

    def open(self, sizes, namespace):
        patience = {"put_patience_s": 0.0, "group_age_s": 0.0}
        with patch("kvtier.tiers.layout.SLAB_BYTES", 4 * 8192):
            self.store = make(Path(self.directory.name) / "kv", namespace=namespace, **patience, **sizes)
        self.asked = 0

    def delivered(self, word, hit, out):
        names = keys(self.store, word)[: hit.num_blocks]
        assert set(names) <= self.put_once, "a block was delivered that nobody has put"
        assert wrong_blocks(self.store, word, hit, [block.flatten() for block in out]) == [], "wrong bytes"

    def get(self, word, wanted):
        out = blank(min(wanted, len(word)))
        hit = self.store.get(tokens(word), out)
        self.asked += len(out)
        self.delivered(word, hit, out)
        return hit

    # The verbs

    @rule(word=words, start=st.integers(0, 2))
    def put(self, word, start):
        names = keys(self.store, word)
        start = min(start, len(word))
        self.store.put(tokens(word), [payload(name) for name in names[start:]], start=start)
        self.put_once |= set(names[start:])

    @rule(word=words, wanted=st.integers(0, 5))
    def read(self, word, wanted):
        promised = self.store.match(tokens(word)).num_blocks
        assert self.get(word, wanted).num_blocks <= max(promised, min(wanted, len(word)))

    @rule(word=words)
    def stream(self, word):
        out = [torch.zeros((SPEC.layers, BLOCK // SPEC.layers), dtype=torch.uint8) for _ in word]
        stream = self.store.stream(tokens(word), out)
        hit = stream.result()
        self.asked += len(word)
        assert hit.num_blocks <= stream.num_promised
        self.delivered(word, hit, out)

    @rule(word=words)
    def ask(self, word):
        settle(self.store)
        before = state_of(self.store)

        hit = self.store.match(tokens(word))

        assert state_of(self.store) == before, "asking changed something"
        assert set(keys(self.store, word)[: hit.num_blocks]) <= self.put_once

    @rule(word=words)
    def prefetch(self, word):
        self.store.prefetch(tokens(word)).wait(60)

    @rule(word=words, other=words, ttl_s=st.sampled_from([60.0, 60.0, 0.0]))
    def pin(self, word, other, ttl_s):
        damaged = self.store.stats()["counters"]["damaged_blocks"]
        with self.store.pin(tokens(word), owner="machine", ttl_s=ttl_s) as promised:
            self.put(other, 0)
            got = self.get(word, len(word))
        if ttl_s and self.store.stats()["counters"]["damaged_blocks"] == damaged:
            assert got.num_blocks >= promised.num_blocks, "a pinned block was a miss"

    @rule()
    def flush(self):
        self.store.flush()

    # What happens to stores

    @rule(sizes=sizes, namespace=namespaces)
    def reopen(self, sizes, namespace):
        assert self.store.close().leaked == (), "a lease was left behind"
        self.open(sizes, namespace)

    @rule(word=words, position=places, mask=st.integers(1, 255))
    def damage(self, word, position, mask):
        """Change a byte of one of a word's blocks on disk, behind everybody's back, and ask for the word."""
        settle(self.store)
        disk = self.store.tiers[-1]
        names = [name for name in keys(self.store, word) if disk.contains([name])]
        if names:
            key = names[position % len(names)]
            raw_flip(disk, key, position % len(raw_get(disk, key)), mask)
            self.get(word, len(word))

    # What always holds

    @invariant()
    def the_books_balance_and_no_block_is_held_without_its_parent(self):
        if self.store is not None:
            check(self.store)
            assert orphans(self.store) == []

    @invariant()
    def every_block_asked_for_is_counted_once(self):
        if self.store is not None:
            counters = self.store.stats()["counters"]
            assert counters["hit_blocks"] + counters["missed_blocks"] == self.asked

    @invariant()
    def nobody_holds_a_lease_between_calls(self):
        if self.store is not None:
            assert self.store.stats()["leases"] == [], "a lease was left behind"

    def teardown(self):
        try:
            leaked = () if self.store is None else self.store.close().leaked
        finally:
            self.directory.cleanup()
        assert leaked == (), "a lease was left behind"
