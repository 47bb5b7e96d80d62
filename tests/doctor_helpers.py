"""Stores made through the public verbs, whose blocks check themselves, and damage done from outside."""

import os
import random
from functools import cache

import lmdb
import numpy as np
import torch

import kvtier
from kvtier.format import ENTRY_HEAD

SPEC = kvtier.KVSpec(layers=2, kv_heads=1, head_dim=32, dtype="bfloat16", block_tokens=16)
NAMES = kvtier.Namespace(spec=SPEC, weights="those of the tests")
OTHERS = kvtier.Namespace(spec=SPEC, weights="another model's")
BLOCK = SPEC.block_bytes
SLOT = 4096 + BLOCK
PAGE = 4096


def prompt(*heads, blocks=1):
    """Token ids: whole blocks, each a function of the heads before it and its place."""
    ids = []
    for number in range(blocks):
        seed = repr((heads if number >= 1 else heads[:1], number))
        ids += random.Random(seed).choices(range(50_000), k=SPEC.block_tokens)
    return ids


LONG, SIDE, OTHER = prompt("a", 0, blocks=5), prompt("a", 1, blocks=4), prompt("b", blocks=3)


@cache
def payload(name):
    """The block that has this name."""
    return torch.from_numpy(np.random.default_rng(list(name)).integers(0, 256, BLOCK, np.uint8))


def names_of(tokens, namespace=NAMES):
    return kvtier.chain_hashes(namespace, tokens)


def opened(path, namespace=NAMES, blocks=64):
    return kvtier.open_store(path, namespace, device=0, host=0, disk=blocks * BLOCK)


def fill(path, *prompts, namespace=NAMES, blocks=64):
    """A store that holds these prompts, closed."""
    with opened(path, namespace, blocks) as store:
        for tokens in prompts:
            chain = names_of(tokens, namespace)
            store.put(tokens, [payload(name) for name in chain])
            store.flush()
    return path


def held(path, tokens, namespace=NAMES, blocks=64):
    """Blocks of a prompt that the store gives back, each compared with what it must be."""
    return all_held(path, tokens, namespace=namespace, blocks=blocks)[0]


def all_held(path, *prompts, namespace=NAMES, blocks=64):
    """``held`` for several prompts."""
    with opened(path, namespace, blocks) as store:
        return [_held(store, tokens, names_of(tokens, namespace)) for tokens in prompts]


def _held(store, tokens, chain):
    out = [torch.zeros(BLOCK, dtype=torch.uint8) for _ in chain]
    found = store.get(tokens, out).num_blocks
    assert all(torch.equal(o, payload(name)) for o, name in zip(out[:found], chain[:found], strict=True))
    return found


def raw(path):
    """The environment by the back door; its store must be closed."""
    return lmdb.open(str(path), map_size=(path / "data.mdb").stat().st_size, max_dbs=8)


def entry_of(path, name):
    """A block's index entry: what it begins with, and its token ids."""
    with raw(path) as env, env.begin() as txn:
        stored = txn.get(name, db=env.open_db(b"index", txn=txn, create=False))
    return np.frombuffer(stored[: ENTRY_HEAD.itemsize], ENTRY_HEAD)[0].copy(), stored[ENTRY_HEAD.itemsize :]


def set_entry(path, name, stored):
    """Write an index entry, or with None take it away; the books stay as they are."""
    with raw(path) as env:
        index = env.open_db(b"index", create=False)
        with env.begin(write=True) as txn:
            if stored is None:
                txn.delete(name, db=index)
            else:
                txn.put(name, stored, db=index)


def set_meta(path, key, value):
    with raw(path) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            txn.put(key, value, db=meta)


def pages(path):
    """Offset and bytes of every page that has been written to; holes are left out."""
    with (path / "data.mdb").open("rb", buffering=0) as file:
        at, size = 0, os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for place in range(at, end, PAGE):
                yield place, os.pread(file.fileno(), PAGE, place)
            at = end


def place_of(path, name):
    """Offset of a block's record, found by its own bytes: magic, then the name at 16."""
    return next(at for at, page in pages(path) if page[:4] == b"KVTB" and page[16:48] == name)


def copy_store(source, target):
    """A store copied, holes as holes."""
    target.mkdir(mode=0o700)
    with (target / "data.mdb").open("wb") as file:
        file.truncate((source / "data.mdb").stat().st_size)
        for at, page in pages(source):
            file.seek(at)
            file.write(page)
    return target


def write_at(path, at, data):
    with (path / "data.mdb").open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path, at):
    with (path / "data.mdb").open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


def destroy_trees(path):
    """Overwrite every page that is no slab's: meta pages, B-trees, lists of free pages."""
    slab_ends = 0
    for at, page in list(pages(path)):
        if at >= slab_ends and page[16:20] == b"KVTS":
            slab_ends = at + int.from_bytes(page[12:16], "little") * PAGE  # LMDB's count of pages of a large value
        if at >= slab_ends:
            write_at(path, at, b"\xa5" * PAGE)
