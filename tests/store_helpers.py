"""Stores of a few tiny blocks, whose contents anybody can check.

A prompt is a word: each letter is one block of ``TOKENS`` equal token ids, so ``"abc"`` and
``"abd"`` share their first two blocks. The payload of a block is a function of its name alone,
so any block served can be verified without asking who put it there.

Sizes are counted in blocks. Of a device or host tier above another one, a quarter of the
places, at least one, is set aside for write-behind: four places hold three blocks at rest.
"""

import threading
from hashlib import shake_128
from unittest.mock import patch

import lmdb
import numpy as np
import torch
from tier_helpers import raw_flip, raw_get

from kvtier.hashing import Namespace
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.store import TieredStore
from kvtier.testing.tiers import SlowTier
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier

TOKENS = 4
SPEC = KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float32", block_tokens=TOKENS)
BLOCK = SPEC.block_bytes
NAMESPACE = Namespace(spec=SPEC, weights="w")

#: What a busy machine delays must not decide what a test sees.
PATIENT = {"put_patience_s": 10.0}


def tokens(word):
    return [ord(letter) for letter in word for _ in range(TOKENS)]


def ids_of(seed, count):
    """A prompt of random ids for a tiny model."""
    return torch.randint(3, 128, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def payload(key):
    return torch.from_numpy(np.frombuffer(bytearray(shake_128(key).digest(BLOCK)), np.uint8))


def blank(count):
    return [torch.zeros(BLOCK, dtype=torch.uint8) for _ in range(count)]


def make(path=None, *, device=0, host=0, disk=0, namespace=NAMESPACE, **options):
    """A store by ``open_store``; sizes in blocks. Moves between tiers go through a buffer of three."""
    sizes = {"device": device * BLOCK, "host": host * BLOCK, "disk": disk * BLOCK}
    with patch("kvtier.transfer.STAGING_BYTES", 3 * BLOCK):
        return open_store(path, namespace, **sizes, **PATIENT | options)


def make_over(*tiers, **options):
    """A store over tiers of one's own."""
    with patch("kvtier.transfer.STAGING_BYTES", 3 * BLOCK):
        return TieredStore(tiers, NAMESPACE, **PATIENT | options)


def memory(name, blocks):
    return MemoryTier(name, capacity_bytes=blocks * BLOCK, block_bytes=BLOCK)


def disk_tier(path, blocks, name="disk"):
    return LMDBTier(name, path, capacity_bytes=blocks * BLOCK, block_bytes=BLOCK, block_tokens=TOKENS)


def keys(store, word):
    return store.name(tokens(word)).keys


def save(store, word, start=0):
    """Put the blocks of a word from ``start`` on."""
    return store.put(tokens(word), [payload(key) for key in keys(store, word)[start:]], start=start)


def saved(store, *words):
    """Put several words, and let what must sink have sunk."""
    for word in words:
        save(store, word)
        settle(store)


def wrong_blocks(store, word, hit, out):
    """Numbers of the blocks delivered with other bytes than were saved."""
    names = keys(store, word)[: hit.num_blocks]
    return [i for i, name in enumerate(names) if not torch.equal(out[i], payload(name))]


def fetch(store, word):
    """Get a word into fresh buffers; every block delivered has been verified."""
    out = blank(len(word))
    hit = store.get(tokens(word), out)
    assert wrong_blocks(store, word, hit, out) == [], f"wrong bytes served for {word!r}"
    return hit


def where(store, word):
    """The tier of each leading block of a word that could be read now."""
    return store.match(tokens(word)).tiers


def settle(store):
    """Return when the background has done what was asked so far."""
    store._mover.drain()


def counters(store):
    return store.stats()["counters"]


def used(store):
    """Blocks physically held, by tier."""
    return {name: tier["used_blocks"] for name, tier in store.stats()["tiers"].items()}


def check(store):
    """Settle, then hold the books against each other and against what the tiers really hold."""
    store.match([])  # looks at what other processes have done
    settle(store)
    placement = store._core.placement
    with store._core.lock:
        placement.check()
        accounted = [placement.used_blocks(i) for i in range(placement.num_tiers)]
    assert accounted == list(used(store).values()), "accounted and physical blocks differ"


def orphans(store):
    """Held blocks whose parent is not held, found through the tiers themselves."""
    settle(store)
    held = {key: label for tier in store.tiers for key, label in tier.scan()}
    return [key for key, label in held.items() if label.depth and label.parent not in held]


def raw_delete(path, key):
    """Remove one block from a closed store's disk, books included, behind kvtier's back."""
    with lmdb.open(str(path), max_dbs=10) as env:
        dbs = {name: env.open_db(name.encode(), create=False) for name in ("index", "meta")}
        with env.begin(write=True) as txn:
            assert txn.delete(key, db=dbs["index"])
            books = np.frombuffer(txn.get(b"books", db=dbs["meta"]), "<u8").copy()
            books[0] -= 1
            txn.put(b"books", books.tobytes(), db=dbs["meta"])


def raw_shorten(path, key):
    """Cut the index entry of a block on a closed store's disk short."""
    with lmdb.open(str(path), max_dbs=10) as env:
        index = env.open_db(b"index", create=False)
        with env.begin(write=True) as txn:
            assert txn.put(key, txn.get(key, db=index)[:51], db=index)


def raw_damage(tier, key):
    """Flip the last bit of a block on an open disk, behind kvtier's back."""
    disk = getattr(tier, "inner", tier)
    raw_flip(disk, key, len(raw_get(disk, key)) - 1, 1)


class GatedTier(SlowTier):
    """A tier that holds up calls of one kind until its gate is opened."""

    def __init__(self, inner, operation):
        super().__init__(inner)
        self.operation = operation
        self.gate = threading.Event()
        self.entered = threading.Event()
        """Set once a call has been held up."""

    def _before(self, operation, num_blocks=0):
        if operation == self.operation:
            self.entered.set()
            assert self.gate.wait(60), "nobody opened the gate"
